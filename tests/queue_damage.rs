//! A thousand damaged queues, on the simulated machine and against the real engine: every row whose pages are untouched is
//! back exactly once, with its id, times and retries; no row is made up; everything else is told, and the original kept.
//! And a cut of power anywhere in the operation leaves the old queue or the new one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pyvorin_recovery::boot::queue::{REJECTED, Replaced, Replacement, Rows, configured, read, replace};
use pyvorin_recovery::boot::table::Found;
use pyvorin_recovery::boot::{self, BootRequest};
use pyvorin_recovery::config::Settings;
use pyvorin_recovery::edge::engine::queue::{Facts, Load};
use pyvorin_recovery::edge::engine::schema_of_sql;
use pyvorin_recovery::edge::sim::{CutMode, SimMachine};
use pyvorin_recovery::edge::{Machine, SalvageJob};
use pyvorin_recovery::queue::lines::line;
use pyvorin_recovery::queue::{Item, SCHEMA};
use pyvorin_recovery::sqlite::check::Scope;
use pyvorin_recovery::sqlite::salvage::{self, SavedSchema};
use rusqlite::Connection;
use support::crash::Files;
use support::rng::Rng;
use support::site::Scratch;
use support::{Failures, rounds, seeds};

const DATA: &str = "/var/lib/pyvorin";
const STATE: &str = "/var/lib/pyvorin-recovery";
const DB: &str = "/var/lib/pyvorin/sync_queue.db";

fn settings() -> Settings {
    let mut s = Settings::default_for_agent();
    s.state_device = None;
    s
}

/// A row by the engine: payload, priority, created_at, ttl, retries, next; doubles by their bits.
type Row = (String, i64, u64, i64, i64, u64);

fn rows(conn: &Connection) -> BTreeMap<i64, Row> {
    let sql = "SELECT id, payload, priority, created_at, ttl_seconds, retry_count, next_retry_at FROM sync_queue \
               WHERE typeof(payload) = 'text' AND typeof(created_at) = 'real' AND typeof(priority) = 'integer'";
    let mut statement = conn.prepare(sql).unwrap();
    let found = statement
        .query_map([], |r| {
            let bits = |i: usize| r.get::<_, f64>(i).map(f64::to_bits);
            Ok((r.get(0)?, (r.get(1)?, r.get(2)?, bits(3)?, r.get(4)?, r.get(5)?, bits(6)?)))
        })
        .unwrap();
    found.collect::<Result<_, _>>().unwrap()
}

fn open(files: &Files) -> (Scratch, Connection) {
    let scratch = Scratch::new("queue");
    let path = scratch.path().join("sync_queue.db");
    files.write(&path);
    let conn = Connection::open(&path).unwrap();
    (scratch, conn)
}

/// A queue as a killed agent leaves it, and what it held.
struct Base {
    files: Files,
    /// What SQLite sees, page by page.
    folded: Vec<u8>,
    page_size: usize,
    rows: BTreeMap<i64, Row>,
    /// Ids of rows that were made invalid.
    invalid: BTreeSet<i64>,
    /// Pages that have an image in the log: what the file has there does not matter.
    logged: BTreeSet<usize>,
}

fn token(id: i64) -> String {
    format!("@{id}@")
}

fn base(seed: u64) -> Base {
    let mut rng = Rng::new(seed);
    let scratch = Scratch::new("base");
    let path = scratch.path().join("sync_queue.db");
    let conn = Connection::open(&path).unwrap();
    let page_size = rng.pick(&[512, 1024, 4096, 4096]);
    let (wal, vacuum) = (rng.chance(60), rng.pick(&["NONE", "NONE", "FULL", "INCREMENTAL"]));
    conn.execute_batch(&format!("PRAGMA page_size={page_size}; PRAGMA auto_vacuum={vacuum}; PRAGMA synchronous=OFF;"))
        .unwrap();
    let mode = if wal { "WAL" } else { "DELETE" };
    conn.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(())).unwrap();
    conn.execute_batch("PRAGMA wal_autocheckpoint=0; PRAGMA user_version=7;").unwrap();
    SCHEMA.iter().for_each(|sql| assert!(conn.execute(sql, []).is_ok()));
    let count = rng.between(30, 160) as i64;
    let put = |conn: &Connection, id: i64, rng: &mut Rng| {
        // Tokens all over the payload, so that every page that holds a part of it can be told.
        let repeat = if rng.chance(8) { rng.between(50, 900) } else { rng.between(1, 8) };
        let payload = format!("{{\"x\": \"{}\", \"u\": \"°C\"}}", token(id).repeat(repeat));
        let created = 1.7e9 + id as f64 + if rng.chance(50) { 0.0 } else { rng.below(1000) as f64 / 1000.0 };
        let next = if rng.chance(30) { 1.8e9 + rng.below(99) as f64 / 7.0 } else { 0.0 };
        let values = (id, payload, rng.between(1, 4) as i64, created, 3600, rng.below(4) as i64, next);
        conn.execute("INSERT INTO sync_queue VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)", values).unwrap();
    };
    conn.execute_batch("BEGIN").unwrap();
    (1..=count).for_each(|id| put(&conn, id, &mut rng));
    for _ in 0..rng.below(count as usize / 2) {
        conn.execute("DELETE FROM sync_queue WHERE id = ?1", [rng.between(1, count as usize) as i64]).unwrap();
    }
    conn.execute_batch("COMMIT").unwrap();
    if wal {
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        (count + 1..=count + rng.between(1, 30) as i64).for_each(|id| put(&conn, id, &mut rng));
    }
    let mut invalid = BTreeSet::new();
    let ids: Vec<i64> = rows(&conn).keys().copied().collect();
    for _ in 0..rng.below(4) {
        let id = rng.pick(&ids);
        let change = rng.pick(&[
            "priority = 9",
            "payload = 'no json'",
            "payload = '[1]'",
            "created_at = 'x'",
            "retry_count = -1",
            "payload = x'00ff'",
        ]);
        conn.execute(&format!("UPDATE sync_queue SET {change} WHERE id = ?1"), [id]).unwrap();
        invalid.insert(id);
    }
    let files = Files::read(&path).without_shm();
    drop(conn);
    let (copy, conn) = open(&files);
    let rows = rows(&conn).into_iter().filter(|(id, _)| !invalid.contains(id)).collect();
    if wal {
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }
    drop(conn);
    let folded = std::fs::read(copy.path().join("sync_queue.db")).unwrap();
    let frames = files.wal().get(32..).unwrap_or_default().chunks(24 + page_size);
    let logged = frames.map(|f| u32::from_be_bytes(f[..4].try_into().unwrap()) as usize).collect();
    Base { files, folded, page_size, rows, invalid, logged }
}

/// Damages the database file; the pages that were touched.
fn damage(base: &Base, rng: &mut Rng) -> (Files, BTreeSet<usize>, &'static str) {
    let mut files = base.files.clone();
    let pages = files.db.len() / base.page_size;
    let kinds = ["noise", "spots", "zeroes", "first page", "header", "inner pages", "truncated", "swapped", "none"];
    let kind = rng.pick(&kinds);
    let some: Vec<usize> = (0..rng.between(1, 3)).map(|_| rng.between(1, pages)).collect();
    let span = |page: usize| (page - 1) * base.page_size..page * base.page_size;
    match kind {
        "noise" => some.iter().for_each(|p| rng.fill(&mut files.db[span(*p)])),
        "spots" => {
            for p in &some {
                for _ in 0..rng.between(1, 5) {
                    let at = span(*p).start + rng.below(base.page_size);
                    files.db[at] ^= 1 << rng.below(8);
                }
            }
        }
        "zeroes" => some.iter().for_each(|p| files.db[span(*p)].fill(0)),
        "first page" => rng.fill(&mut files.db[span(1)]),
        "header" => {
            let at = rng.below(100);
            files.db[at] ^= 1 << rng.below(8);
        }
        "inner pages" => {
            for p in 2..=pages {
                if files.db[span(p)][0] == 5 {
                    rng.fill(&mut files.db[span(p)]);
                }
            }
        }
        "truncated" => {
            let len = rng.between(0, files.db.len());
            files.db.truncate(len);
        }
        "swapped" if pages > 3 => {
            let (a, b) = (rng.between(2, pages), rng.between(2, pages));
            let (first, second) = (files.db[span(a)].to_vec(), files.db[span(b)].to_vec());
            files.db[span(a)].copy_from_slice(&second);
            files.db[span(b)].copy_from_slice(&first);
        }
        _ => {}
    }
    let same = |p: &usize| files.db.get(span(*p)) == Some(&base.files.db[span(*p)]);
    let touched = (1..=pages).filter(|p| !base.logged.contains(p) && !same(p)).collect();
    (files, touched, kind)
}

fn machine(files: &Files) -> SimMachine {
    let mut m = SimMachine::new().with_dir(STATE).with_file(DB, files.db.clone());
    if let Some(wal) = &files.wal {
        m = m.with_file(format!("{DB}-wal"), wal.clone());
    }
    m
}

fn look(m: &SimMachine) -> (Found, Rows) {
    let settings = settings();
    read(m, &settings, configured(&settings).unwrap(), Scope::Full, true).unwrap()
}

fn rebuilt(rows: Rows) -> Replacement {
    let documented =
        Facts { page_size: 4096, wal: true, auto_vacuum: 0, encoding: 1, user_version: 0, application_id: 0 };
    let create = if rows.create.is_empty() { SCHEMA.map(str::to_string).to_vec() } else { rows.create };
    let load =
        Load { new: Some((rows.facts.unwrap_or(documented), create)), items: rows.items, sequence: rows.sequence };
    Replacement { kind: "rebuild", load, rejected: rows.rejected, by: "T-1".into() }
}

#[derive(Default, Debug)]
struct Counts {
    queues: u64,
    intact: u64,
    back: u64,
    rejected: u64,
    /// Ids that `salvage` brings out of the same files, of every fourth queue.
    salvaged: u64,
    /// Back with a payload that nothing tells from the one that was written.
    altered: u64,
    /// In a line that names a span of ids.
    told_by_span: u64,
    /// In a line that says from which id on nothing is known.
    told_without_an_end: u64,
    /// The page that held it has a line, which holds its bytes.
    told_by_page: u64,
    strayed: u64,
}

/// The ids that the page salvage finds in the same files.
fn salvaged(m: &mut SimMachine, files: &Files, found: &Found) -> Vec<i64> {
    let entries = schema_of_sql(&(SCHEMA.join(";\n") + ";")).unwrap();
    let job = SalvageJob {
        db: Some("/scratch/sync_queue.db".into()),
        wal: files.wal.as_ref().map(|_| "/scratch/sync_queue.db-wal".into()),
        shm: None,
        journal: None,
        fold: Some(found.fold.clone()),
        schemas: vec![("documented".to_string(), SavedSchema { facts: salvage::Facts::default(), entries })],
    };
    let mut other = SimMachine::new().with_file("/scratch/sync_queue.db", files.db.clone());
    if let Some(wal) = &files.wal {
        other = other.with_file("/scratch/sync_queue.db-wal", wal.clone());
    }
    drop(std::mem::replace(m, other));
    if m.engine_salvage(&job, Path::new("/scratch/out.db")).is_err() {
        return Vec::new();
    }
    let (_scratch, conn) = open(&Files { db: m.bytes("/scratch/out.db").unwrap(), wal: None, shm: None });
    let Ok(mut statement) = conn.prepare("SELECT id FROM sync_queue") else { return Vec::new() };
    statement.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect()
}

/// A line of the file in quarantine.
struct Line {
    place: String,
    /// First and last id; the same for one row.
    ids: (i64, Option<i64>),
    span: bool,
}

impl Line {
    fn holds(&self, id: i64) -> bool {
        self.span && self.ids.0 <= id && self.ids.1.is_none_or(|last| id <= last)
    }
}

/// What quarantine says, each with a reason; a line without an id stands for none.
fn quarantined(m: &SimMachine, done: &Replaced) -> Vec<Line> {
    let text = m.bytes(done.quarantine.join(REJECTED)).unwrap_or_default();
    let lines = std::str::from_utf8(&text).unwrap().lines();
    lines
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(!line["reason"].as_str().unwrap().is_empty() && !line["place"].as_str().unwrap().is_empty());
            let span = line["ids"].is_array();
            let ids = if span {
                (line["ids"][0].as_i64().unwrap(), line["ids"][1].as_i64())
            } else {
                (line["id"].as_i64().unwrap_or(0), line["id"].as_i64())
            };
            Line { place: line["place"].as_str().unwrap().to_string(), ids, span }
        })
        .collect()
}

fn one(base: &Base, seed: u64, failures: &mut Failures, counts: &mut Counts) {
    let mut rng = Rng::new(seed);
    let (files, touched, kind) = damage(base, &mut rng);
    let mut fail = |what: &str, text: String| failures.add(what, seed, format!("{kind}: {text}"));
    let mut m = machine(&files);
    let (found, rows) = look(&m);
    counts.queues += 1;
    counts.strayed += rows.strayed;
    let strayed = rows.strayed;
    let settings = settings();
    let database = configured(&settings).unwrap();
    let done = match replace(&mut m, &settings, database, &found, rebuilt(rows)) {
        Ok(done) => done,
        Err(e) => return fail("not rebuilt", e.to_string()),
    };
    let rejected = quarantined(&m, &done);
    let original = done.original.and_then(|p| m.bytes(p));
    if original.as_ref() != Some(&files.db) {
        fail("the original is not kept", String::new());
    }
    let (_scratch, conn) = open(&Files { db: m.bytes(DB).unwrap(), wal: m.bytes(format!("{DB}-wal")), shm: None });
    let said = support::engine::integrity(&conn);
    if said != "ok" {
        return fail("unsound", said);
    }
    let now = self::rows(&conn);
    for (id, row) in &base.rows {
        let token = token(*id).into_bytes();
        let on: Vec<usize> = base
            .folded
            .chunks(base.page_size)
            .zip(1..)
            .filter(|(page, _)| page.windows(token.len()).any(|w| w == token))
            .map(|(_, n)| n)
            .collect();
        let intact = !on.is_empty() && on.iter().all(|p| !touched.contains(p));
        counts.intact += u64::from(intact);
        if now.get(id) == Some(row) {
            counts.back += 1;
            continue;
        }
        if !intact && now.contains_key(id) {
            // Bytes within a payload were changed, and it is JSON still: no byte of the file contradicts it.
            counts.altered += 1;
        } else if intact {
            fail("an intact row is not back", format!("id {id} on {on:?}, touched {touched:?}: {:?}", now.get(id)));
        } else if rejected.iter().any(|r| r.ids == (*id, Some(*id)) && !r.span) {
            counts.rejected += 1;
        } else if rejected.iter().any(|r| r.holds(*id) && r.ids.1.is_some()) {
            counts.told_by_span += 1;
        } else if rejected.iter().any(|r| r.holds(*id)) {
            counts.told_without_an_end += 1;
        } else if on.iter().any(|p| rejected.iter().any(|r| r.place == format!("page {p}"))) {
            counts.told_by_page += 1;
        } else {
            let lines: Vec<String> = rejected.iter().map(|r| format!("{} {:?}", r.place, r.ids)).collect();
            fail("a row that is gone is in no line of quarantine", format!("id {id} on {on:?}: {lines:?}"));
        }
    }
    if seed.is_multiple_of(4) {
        for id in salvaged(&mut m, &files, &found) {
            let known = now.contains_key(&id) || rejected.iter().any(|r| r.ids == (id, Some(id)) || r.holds(id));
            counts.salvaged += 1;
            if !known {
                let lines: Vec<String> = rejected.iter().map(|r| format!("{} {:?}", r.place, r.ids)).collect();
                let was = base.rows.get(&id);
                fail(
                    "the salvage of the file gives a row that the queue's reader does not",
                    format!("id {id}, written {was:?}: {lines:?}"),
                );
            }
        }
    }
    for id in &base.invalid {
        let told = rejected.iter().any(|r| r.ids == (*id, Some(*id)));
        if touched.is_empty() && (!told || now.contains_key(id)) {
            fail("an invalid row is not in quarantine", format!("id {id}"));
        }
    }
    for (id, row) in &now {
        let known = base.rows.get(id) == Some(row);
        // A byte of a touched page may make another row of one; a page that nothing led to may hold one sent before.
        if !known && touched.is_empty() && strayed == 0 {
            fail("a row is made up", format!("id {id}: {row:?}"));
        }
    }
    let seq: i64 =
        conn.query_row("SELECT seq FROM sqlite_sequence WHERE name = 'sync_queue'", [], |r| r.get(0)).unwrap_or(0);
    if now.keys().max().is_some_and(|highest| seq < *highest) {
        fail("an id may be given twice", format!("{seq}"));
    }
}

fn campaign(queues: u64) {
    let mut failures = Failures::default();
    let mut counts = Counts::default();
    for seed in seeds(1, queues) {
        // A few damages for each base: making one costs more than looking at it.
        let base = base(seed / 8);
        one(&base, seed, &mut failures, &mut counts);
    }
    println!("{counts:?}");
    if counts.queues > 50 {
        assert!(counts.intact * 10 > counts.back * 5 && counts.rejected > 0 && counts.strayed > 0, "{counts:?}");
    }
    failures.finish("damaged queues");
}

#[test]
fn every_intact_row_of_a_damaged_queue_is_back_exactly_once() {
    campaign(rounds("QUEUES", 200));
}

#[test]
fn a_bit_rotted_beside_the_rows_of_the_schema_does_not_make_the_log_a_foreign_one() {
    let (mut failures, mut counts) = (Failures::default(), Counts::default());
    one(&base(108), 869, &mut failures, &mut counts);
    failures.finish("damaged queues");
    assert!(counts.back > 50, "{counts:?}");
}

#[test]
#[ignore = "the whole campaign; make bench runs it"]
fn a_thousand_damaged_queues() {
    campaign(rounds("QUEUES", 1000));
}

fn sound() -> (SimMachine, Found, Rows) {
    let base = base(3);
    let files = Files { db: base.folded, wal: None, shm: None };
    let m = machine(&files);
    let (found, rows) = look(&m);
    (m, found, rows)
}

fn import(rows: &Rows) -> Replacement {
    let item = |id: i64| Item {
        id: Some(id),
        payload: "{\"a\": 1}".into(),
        priority: 1,
        created_at: 1.5,
        ttl_seconds: 9,
        retry_count: 3,
        next_retry_at: 2.5,
        extra: Vec::new(),
    };
    let load = Load { new: None, items: vec![item(5000), item(5001)], sequence: rows.sequence };
    Replacement { kind: "import", load, rejected: Vec::new(), by: "T-1".into() }
}

#[test]
fn a_cut_anywhere_leaves_the_old_queue_or_the_new_one() {
    let settings = settings();
    let database = configured(&settings).unwrap();
    let (mut whole, found, rows) = sound();
    let old = whole.bytes(DB).unwrap();
    replace(&mut whole, &settings, database, &found, import(&rows)).unwrap();
    let new = whole.bytes(DB).unwrap();
    assert_ne!(old, new);
    let (mut cuts, mut olds, mut news) = (0, 0, 0);
    for (mode, seed) in [(CutMode::Applied, 0), (CutMode::Dropped, 0), (CutMode::Torn, 1), (CutMode::Torn, 2)] {
        for n in 1..=whole.op_count() {
            let (mut m, found, rows) = sound();
            m.cut_after_op(n, mode, seed);
            drop(replace(&mut m, &settings, database, &found, import(&rows)));
            let mut m = m.after_cut();
            let before = m.bytes(DB);
            let gated = m.bytes(format!("{DATA}/.pyvorin-intent")).is_some();
            assert!(before.as_ref() == Some(&old) || before.as_ref() == Some(&new) || gated, "cut {n} {mode:?} {seed}");
            boot::run(&mut m, &settings, &BootRequest::default(), &mut |_| {});
            let after = m.bytes(DB).unwrap();
            assert!(after == old || after == new, "cut {n} {mode:?} {seed}: a mix");
            assert!(m.bytes(format!("{DATA}/.pyvorin-intent")).is_none(), "cut {n} {mode:?} {seed}");
            let events = boot::events::load(&m, &settings).unwrap();
            let told = events.events().filter(|e| e.event == "import").count();
            assert_eq!(told, usize::from(after == new), "cut {n} {mode:?} {seed}: recorded {told} times");
            cuts += 1;
            olds += u32::from(after == old);
            news += u32::from(after == new);
        }
    }
    println!("{cuts} cuts: {olds} old, {news} new");
    assert!(olds > 0 && news > 0);
}

#[test]
fn a_failing_call_anywhere_loses_nothing() {
    let settings = settings();
    let database = configured(&settings).unwrap();
    let (mut whole, found, rows) = sound();
    let old = whole.bytes(DB).unwrap();
    replace(&mut whole, &settings, database, &found, import(&rows)).unwrap();
    let new = whole.bytes(DB).unwrap();
    for kind in [std::io::ErrorKind::StorageFull, std::io::ErrorKind::ReadOnlyFilesystem] {
        for n in 1..=whole.op_count() {
            let (m, found, rows) = sound();
            let mut m = m.with_failing_op(n, kind);
            drop(replace(&mut m, &settings, database, &found, import(&rows)));
            let mut m = m.after_shutdown();
            boot::run(&mut m, &settings, &BootRequest::default(), &mut |_| {});
            let after = m.bytes(DB).unwrap();
            assert!(after == old || after == new, "{kind:?} at call {n}");
        }
    }
    let (mut m, found, rows) = sound();
    m.set_free_bytes(1000);
    let before = m.op_count();
    let refused = replace(&mut m, &settings, database, &found, import(&rows)).unwrap_err();
    assert_eq!((refused.kind(), m.op_count()), (std::io::ErrorKind::StorageFull, before));
}

#[test]
fn rows_of_the_file_and_of_the_engine_are_the_same() {
    for seed in 0..20 {
        let base = base(seed);
        let (_, rows) = look(&machine(&base.files));
        let lines: BTreeSet<String> = rows.items.iter().map(line).collect();
        assert_eq!(lines.len(), base.rows.len(), "seed {seed}: {:?}", rows.rejected);
        for item in &rows.items {
            let bits = (item.created_at.to_bits(), item.next_retry_at.to_bits());
            let row = (item.payload.clone(), item.priority, bits.0, item.ttl_seconds, item.retry_count, bits.1);
            assert_eq!(base.rows.get(&item.id.unwrap()), Some(&row), "seed {seed}");
        }
        let rejected: BTreeSet<i64> = rows.rejected.iter().filter_map(|r| r.id).collect();
        assert_eq!(rejected, base.invalid, "seed {seed}");
    }
}
