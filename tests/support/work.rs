//! Workloads with a model beside them: what the engine has acknowledged, commit by commit.

use rusqlite::{Connection, params};

use super::engine::Rows;
use super::rng::Rng;

/// The kinds of writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ASSUMED fixture of the facts sheet (not documented): readings with an index, one commit per row.
    Append,
    /// Another fixture: other column order, one more column, one more table, WITHOUT ROWID.
    Other,
    /// The documented queue: enqueue, acknowledge, retry.
    Queue,
    /// Two accounts per commit, sum of balances constant, balances in no index.
    Transfers,
    /// Large transactions over a cache of a few pages, some rolled back.
    Spill,
    /// Readings, and three rows that every commit updates with its own number.
    Meter,
}

/// One acknowledged change: key and new content; `None` deletes.
pub type Change = (String, Option<String>);

/// A writer: the model's rows, and the changes of every commit so far.
#[derive(Clone)]
pub struct Work {
    pub kind: Kind,
    pub rows: Rows,
    pub commits: Vec<Vec<Change>>,
    /// Written into every row, to tell timelines apart.
    pub tag: String,
    next: i64,
    pub accounts: usize,
}

const READINGS: &str = "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, sensor_name TEXT NOT NULL,
  timestamp REAL NOT NULL, value REAL NOT NULL, unit TEXT, metadata TEXT);
CREATE INDEX idx_readings_sensor_time ON readings(sensor_name, timestamp);";

const OTHER: &str = "CREATE TABLE site (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID;
CREATE TABLE readings (value REAL, metadata BLOB, sensor_name TEXT NOT NULL, quality INTEGER, id INTEGER PRIMARY KEY,
  unit TEXT DEFAULT '', timestamp REAL NOT NULL);
CREATE TABLE events (rule TEXT NOT NULL, at INTEGER NOT NULL, severity TEXT, PRIMARY KEY (at, rule)) WITHOUT ROWID;
CREATE INDEX by_time ON readings(timestamp DESC);";

const QUEUE: &str =
    "CREATE TABLE IF NOT EXISTS sync_queue (id INTEGER PRIMARY KEY AUTOINCREMENT, payload TEXT NOT NULL,
  priority INTEGER NOT NULL, created_at REAL NOT NULL, ttl_seconds INTEGER NOT NULL,
  retry_count INTEGER NOT NULL DEFAULT 0, next_retry_at REAL NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS idx_sync_queue_priority ON sync_queue(priority, next_retry_at);";

impl Work {
    pub fn new(kind: Kind, accounts: usize) -> Self {
        Self { kind, rows: Rows::new(), commits: Vec::new(), tag: "t0".into(), next: 1, accounts }
    }

    /// The table whose rows have row ids.
    pub fn table(&self) -> &'static str {
        match self.kind {
            Kind::Queue => "sync_queue",
            Kind::Transfers => "accounts",
            _ => "readings",
        }
    }

    /// Schema, and the rows that stand before the first commit counted.
    pub fn create(&mut self, conn: &Connection) {
        match self.kind {
            Kind::Append | Kind::Spill => conn.execute_batch(READINGS).unwrap(),
            Kind::Meter => {
                conn.execute_batch(READINGS).unwrap();
                conn.execute_batch("CREATE TABLE meter (k INTEGER PRIMARY KEY, n INTEGER, pad TEXT)").unwrap();
                let mut changes = Vec::new();
                for k in 0..3 {
                    conn.execute("INSERT INTO meter VALUES (?1, 0, 'p')", [k]).unwrap();
                    changes.push((format!("meter/{k}"), Some(format!("{k}|0|'p'|"))));
                }
                self.acknowledge(changes);
            }
            Kind::Other => conn.execute_batch(OTHER).unwrap(),
            Kind::Queue => conn.execute_batch(QUEUE).unwrap(),
            Kind::Transfers => {
                conn.execute_batch("CREATE TABLE accounts (id INTEGER PRIMARY KEY, pad TEXT, balance INTEGER); BEGIN")
                    .unwrap();
                let pad = "x".repeat(380);
                let mut changes = Vec::new();
                for id in 1..=self.accounts {
                    conn.execute("INSERT INTO accounts VALUES (?1, ?2, 1000)", params![id as i64, pad]).unwrap();
                    changes.push((format!("accounts/{id}"), Some(format!("{id}|'{pad}'|1000|"))));
                }
                conn.execute_batch("COMMIT").unwrap();
                self.acknowledge(changes);
            }
        }
    }

    fn acknowledge(&mut self, changes: Vec<Change>) {
        apply(&mut self.rows, &changes);
        self.commits.push(changes);
    }

    /// One transaction, acknowledged.
    pub fn commit(&mut self, conn: &Connection, rng: &mut Rng) {
        if self.kind == Kind::Spill && rng.chance(20) {
            self.rolled_back(conn, rng);
        }
        let many = if self.kind == Kind::Spill { rng.between(1, 60) } else { 1 };
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut changes = Vec::new();
        for _ in 0..many {
            self.step(conn, rng, &mut changes);
        }
        conn.execute_batch("COMMIT").unwrap();
        self.acknowledge(changes);
    }

    /// A large transaction that is given up: frames of it may stay in the log, none of them ends a commit.
    pub fn rolled_back(&mut self, conn: &Connection, rng: &mut Rng) {
        let next = self.next;
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        for _ in 0..rng.between(10, 80) {
            self.step(conn, rng, &mut Vec::new());
        }
        conn.execute_batch("ROLLBACK").unwrap();
        self.next = next;
    }

    /// Begins a transaction and leaves it open, as a kill in the middle would.
    pub fn unfinished(&mut self, conn: &Connection, rng: &mut Rng) {
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        let next = self.next;
        for _ in 0..rng.between(1, 120) {
            self.step(conn, rng, &mut Vec::new());
        }
        self.next = next;
    }

    fn step(&mut self, conn: &Connection, rng: &mut Rng, changes: &mut Vec<Change>) {
        let id = self.next;
        let seq = self.commits.len();
        let at = 1_717_000_000.0 + id as f64 * 0.25;
        match self.kind {
            Kind::Append | Kind::Spill | Kind::Meter => {
                let sensor = format!("temp.warehouse.{}", rng.below(4));
                let value = rng.below(4000) as f64 * 0.25;
                let meta = format!("{{\"t\":\"{}\",\"c\":{seq},\"r\":{}}}", self.tag, rng.next());
                conn.execute("INSERT INTO readings VALUES (?1,?2,?3,?4,'°C',?5)", params![id, sensor, at, value, meta])
                    .unwrap();
                self.next += 1;
                changes
                    .push((format!("readings/{id}"), Some(format!("{id}|'{sensor}'|{at:?}|{value:?}|'°C'|'{meta}'|"))));
                if self.kind == Kind::Meter {
                    let k = rng.below(3);
                    let pad = format!("{}-{}", self.tag, rng.next());
                    conn.execute("UPDATE meter SET n=?2, pad=?3 WHERE k=?1", params![k as i64, seq as i64, pad])
                        .unwrap();
                    changes.push((format!("meter/{k}"), Some(format!("{k}|{seq}|'{pad}'|"))));
                }
            }
            Kind::Other => {
                let blob = rng.next().to_be_bytes();
                let value = rng.below(4000) as f64 * 0.5;
                let name = format!("{}.{}", self.tag, rng.below(9));
                conn.execute(
                    "INSERT INTO readings VALUES (?1,?2,?3,NULL,?4,'bar',?5)",
                    params![value, blob.to_vec(), name, id, at],
                )
                .unwrap();
                changes.push((
                    format!("readings/{id}"),
                    Some(format!("{value:?}|x{blob:02x?}|'{name}'|NULL|{id}|'bar'|{at:?}|")),
                ));
                if rng.chance(30) {
                    conn.execute("INSERT INTO events VALUES (?1,?2,'warning')", params![name, id]).unwrap();
                    changes.push((format!("events/'{name}'/{id}"), Some(format!("'{name}'|{id}|'warning'|"))));
                }
                self.next += 1;
            }
            Kind::Queue => self.queue(conn, rng, changes),
            Kind::Transfers => {
                let (a, b) = (1 + rng.below(self.accounts), 1 + rng.below(self.accounts));
                let amount = 1 + rng.below(9) as i64;
                for (id, by) in [(a, -amount), (b, amount)] {
                    if a == b {
                        continue;
                    }
                    conn.execute("UPDATE accounts SET balance=balance+?2 WHERE id=?1", params![id as i64, by]).unwrap();
                    let key = format!("accounts/{id}");
                    let old = changes.iter().rev().find(|c| c.0 == key).and_then(|c| c.1.clone());
                    let old = old.unwrap_or_else(|| self.rows[&key].clone());
                    let mut parts: Vec<String> = old.trim_end_matches('|').split('|').map(str::to_owned).collect();
                    let balance: i64 = parts[2].parse().unwrap();
                    parts[2] = (balance + by).to_string();
                    changes.push((key, Some(parts.join("|") + "|")));
                }
            }
        }
    }

    fn queue(&mut self, conn: &Connection, rng: &mut Rng, changes: &mut Vec<Change>) {
        let live: Vec<&String> = self.rows.keys().filter(|k| k.starts_with("sync_queue/")).collect();
        let chosen = if live.is_empty() { None } else { Some(live[rng.below(live.len())].clone()) };
        match (rng.below(10), chosen) {
            (0..=2, Some(key)) if !changes.iter().any(|c| c.0 == key) => {
                let id: i64 = key.rsplit('/').next().unwrap().parse().unwrap();
                conn.execute("DELETE FROM sync_queue WHERE id=?1", [id]).unwrap();
                changes.push((key, None));
            }
            (3..=4, Some(key)) if !changes.iter().any(|c| c.0 == key) => {
                let id: i64 = key.rsplit('/').next().unwrap().parse().unwrap();
                let old = self.rows[&key].clone();
                let mut parts: Vec<String> = old.trim_end_matches('|').split('|').map(str::to_owned).collect();
                let retries: i64 = parts[5].parse::<i64>().unwrap() + 1;
                parts[5] = retries.to_string();
                parts[6] = format!("{:?}", retries as f64 * 1.5);
                conn.execute(
                    "UPDATE sync_queue SET retry_count=?2, next_retry_at=?3 WHERE id=?1",
                    params![id, retries, retries as f64 * 1.5],
                )
                .unwrap();
                changes.push((key, Some(parts.join("|") + "|")));
            }
            _ => {
                let id = self.next;
                self.next += 1;
                let payload = format!("{{\"t\":\"{}\",\"v\":{}}}", self.tag, rng.next());
                let priority = 1 + rng.below(4);
                let at = 1_717_000_000.0 + id as f64;
                conn.execute(
                    "INSERT INTO sync_queue VALUES (?1,?2,?3,?4,3600,0,0.0)",
                    params![id, payload, priority as i64, at],
                )
                .unwrap();
                changes.push((
                    format!("sync_queue/{id}"),
                    Some(format!("{id}|'{payload}'|{priority}|{at:?}|3600|0|0.0|")),
                ));
            }
        }
    }

    /// Goes on from any rows, without a memory of the commits that led to them.
    pub fn carry_on(&mut self, rows: &Rows, tag: &str) {
        self.rows = rows.clone();
        self.tag = tag.to_owned();
        let ids = rows.keys().filter_map(|k| k.strip_prefix(self.table())?.strip_prefix('/')?.parse().ok());
        self.next = ids.max().unwrap_or(0i64) + 1;
    }

    /// Goes on from what the engine recovered after a lost write: forgets every commit behind it.
    /// Returns false when the recovered rows are the state after no commit (the generator is then wrong).
    pub fn rewind(&mut self, recovered: &Rows, tag: &str) -> bool {
        let upto = commit_of(recovered, &self.commits);
        self.commits.truncate(upto.unwrap_or(0));
        self.rows = recovered.clone();
        self.tag = tag.to_owned();
        let last = recovered.keys().filter_map(|k| k.strip_prefix(self.table())?.strip_prefix('/')?.parse().ok());
        self.next = last.max().unwrap_or(0i64) + 1;
        upto.is_some()
    }
}

/// Applies acknowledged changes to rows.
pub fn apply(rows: &mut Rows, changes: &[Change]) {
    for (key, content) in changes {
        match content {
            Some(content) => rows.insert(key.clone(), content.clone()),
            None => rows.remove(key),
        };
    }
}

/// The number of the commit after which the rows stood exactly so; the newest one, `None` for a mixture.
pub fn commit_of(rows: &Rows, commits: &[Vec<Change>]) -> Option<usize> {
    commits_of(rows, commits).map(|(_, newest)| newest)
}

/// The oldest and the newest commit after which the rows stood exactly so (a queue can come back to an old state).
pub fn commits_of(rows: &Rows, commits: &[Vec<Change>]) -> Option<(usize, usize)> {
    let mut state = Rows::new();
    let mut found = if rows.is_empty() { Some((0, 0)) } else { None };
    let digest = |rows: &Rows| rows.iter().fold(0u64, |sum, (k, v)| sum.wrapping_add(hash(k, v)));
    let (wanted, mut sum) = (digest(rows), 0u64);
    for (i, changes) in commits.iter().enumerate() {
        for (key, content) in changes {
            if let Some(old) = state.get(key) {
                sum = sum.wrapping_sub(hash(key, old));
            }
            if let Some(new) = content {
                sum = sum.wrapping_add(hash(key, new));
            }
            apply(&mut state, &[(key.clone(), content.clone())]);
        }
        if sum == wanted && state.len() == rows.len() && state == *rows {
            found = Some((found.map_or(i + 1, |(oldest, _)| oldest), i + 1));
        }
    }
    found
}

fn hash(key: &str, content: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (key, content).hash(&mut hasher);
    hasher.finish()
}
