//! Inputs to begin with, made by the real engine: databases of many shapes, logs of killed writers, whole records.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::Connection;

/// A database in memory, of pages of 512 bytes unless the SQL says otherwise.
pub fn database(sql: &str) -> Vec<u8> {
    let mut conn = Connection::open_in_memory().unwrap();
    conn.execute_batch("PRAGMA page_size=512").unwrap();
    conn.execute_batch(sql).unwrap();
    conn.serialize(rusqlite::MAIN_DB).unwrap().to_vec()
}

const FILL: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<24) INSERT INTO";

/// Databases of many shapes, each of a few pages.
pub fn databases() -> Vec<Vec<u8>> {
    let rows = |table: &str, columns: &str| format!("{FILL} {table} SELECT {columns} FROM n;");
    let readings = "CREATE TABLE r(id INTEGER PRIMARY KEY AUTOINCREMENT, s TEXT NOT NULL, t REAL, m TEXT);
        CREATE INDEX ri ON r(s, t);";
    let filled = rows("r", "i, 's'||(i%4), i*0.25, hex(i)");
    let all = [
        "CREATE TABLE t(a)".to_owned(),
        format!("{readings} {filled}"),
        format!("{readings} {filled} DELETE FROM r WHERE id BETWEEN 5 AND 20"),
        format!("PRAGMA auto_vacuum=FULL; {readings} {filled}"),
        format!("PRAGMA auto_vacuum=INCREMENTAL; {readings} {filled} DELETE FROM r WHERE id>8"),
        format!("PRAGMA encoding='UTF-16le'; {readings} {filled}"),
        format!("PRAGMA encoding='UTF-16be'; {readings} {filled}"),
        format!("CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID; {}", rows("w", "'k'||i, randomblob(i)")),
        format!("CREATE TABLE o(a INTEGER PRIMARY KEY, b BLOB); {}", rows("o", "i, zeroblob(i*25)")),
        format!(
            "CREATE TABLE u(a TEXT UNIQUE COLLATE NOCASE, b TEXT COLLATE RTRIM, c INT); CREATE INDEX ub ON u(b DESC, c); {}",
            rows("u", "'Key'||i, 'x'||i||'  ', -i*i*i")
        ),
        format!(
            "CREATE TABLE p(a, b); CREATE INDEX pp ON p(a) WHERE b>3; CREATE INDEX pe ON p(a+b); {}",
            rows("p", "i, i%7")
        ),
        "CREATE TABLE v(a, b AS (a*2) STORED, c CHECK(c>0)); INSERT INTO v(a,c) VALUES(1,2),(3,4);
         CREATE VIEW vv AS SELECT a FROM v; CREATE TRIGGER vt AFTER INSERT ON v BEGIN SELECT 1; END"
            .to_owned(),
        format!("PRAGMA page_size=1024; {readings} {filled}"),
        format!("PRAGMA page_size=4096; CREATE TABLE t(a); {}", rows("t", "i")),
    ];
    all.iter().map(|sql| database(sql)).collect()
}

/// A directory of its own for each call.
fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("pyv-seeds-{}-{n}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// The files of a writer that was killed: database and log, pages of 512 bytes.
fn killed(name: &str, autocheckpoint: u32, sql: &[String]) -> (Vec<u8>, Vec<u8>) {
    let dir = scratch(name);
    let path = dir.join("live.db");
    let conn = Connection::open(&path).unwrap();
    let pragmas = format!(
        "PRAGMA page_size=512; PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA cache_size=10; PRAGMA wal_autocheckpoint={autocheckpoint}"
    );
    conn.execute_batch(&pragmas).unwrap();
    for statement in sql {
        conn.execute_batch(statement).unwrap();
    }
    let files = (std::fs::read(&path).unwrap(), std::fs::read(dir.join("live.db-wal")).unwrap());
    drop(conn);
    std::fs::remove_dir_all(&dir).unwrap();
    files
}

/// Database and log of killed writers, pages of 512 bytes.
pub fn logs() -> Vec<(Vec<u8>, Vec<u8>)> {
    let table = "CREATE TABLE t(a INTEGER PRIMARY KEY, b)".to_owned();
    let inserts: Vec<String> = (0..4).map(|i| format!("INSERT INTO t VALUES({i}, 'row {i}')")).collect();
    let one = |sql: &str| vec![table.clone(), sql.to_owned()];
    let mut all = vec![killed("append", 0, &[vec![table.clone()], inserts.clone()].concat())];
    // Two generations, the older one longer.
    let mut two = [vec![table.clone()], inserts].concat();
    two.push("PRAGMA wal_checkpoint".into());
    two.push("UPDATE t SET b='new' WHERE a<3".into());
    all.push(killed("generations", 0, &two));
    all.push(killed(
        "spill",
        0,
        &one(&format!("BEGIN; {FILL} t SELECT i, hex(zeroblob(i)) FROM n; UPDATE t SET b='x'")),
    ));
    all.push(killed("large", 0, &one("INSERT INTO t VALUES(1, zeroblob(700)); DELETE FROM t")));
    all
}

/// Made inputs of a target.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "header" => databases().iter().map(|d| d[..100].to_vec()).chain([logs()[0].1[..32].to_vec()]).collect(),
        "page" => pages(),
        "record" => records(),
        "file" | "engine" => databases(),
        "salvage" => {
            let with = |how: u8| move |input: Vec<u8>| [vec![how], input].concat();
            databases().into_iter().map(with(0)).chain(wal().into_iter().map(with(1))).collect()
        }
        "wal" => wal(),
        "journal" => journals(),
        "shm" => vec![vec![1; 97], vec![3; 137], [vec![1], vec![0; 400]].concat()],
        "superblock" => superblocks(),
        "slots" => slots(),
        "records" => vec![INTENT.as_bytes().to_vec(), br#"{"repair:edge_store:0":1}"#.to_vec()],
        "config" => vec![CONFIG.as_bytes().to_vec()],
        "cmdline" => vec![
            b"console=ttyS0 root=/dev/vda2 quiet pyvorin.slot=A pyvorin.recovery pyvorin.fault=sense:kill -- x"
                .to_vec(),
            br#"a="b c" pyvorin.hold pyvorin.off"#.to_vec(),
        ],
        "sql" => SQL.iter().map(|s| s.as_bytes().to_vec()).collect(),
        "evidence" => evidence(),
        "ticket" => super::ticket::seeds(),
        "archive" => super::archive::seeds(),
        "fat" => super::stick::seeds(),
        _ => Vec::new(),
    }
}

fn pages() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for db in databases() {
        let size = usize::from(u16::from_be_bytes([db[16], db[17]]));
        for (i, page) in db.chunks(size).enumerate().take(8) {
            all.push([vec![u8::from(i == 0), 0], page.to_vec()].concat());
        }
    }
    all
}

fn records() -> Vec<Vec<u8>> {
    let mut all = vec![vec![1], vec![2, 0], vec![3, 8, 9], vec![3, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0, 5]];
    all.push([vec![8, 1, 2, 3, 4, 5, 6, 0x17], vec![1; 31], b"texts".to_vec()].concat());
    all.push([vec![4, 12 + 8, 0x81, 0x0d], vec![7; 4], vec![b'x'; 64]].concat());
    all
}

fn wal() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (n, (db, log)) in logs().into_iter().enumerate() {
        let pages = u8::try_from(db.len() / 512).unwrap();
        let make = |preamble: [u8; 16]| [preamble.as_slice(), &db, &log].concat();
        let flags = [0, 1, 3, 5, 13, 17];
        for (i, flag) in flags.into_iter().enumerate() {
            let frame = u8::try_from(2 + n + i).unwrap();
            all.push(make([flag, 0, pages, frame, u8::try_from(i).unwrap(), 77, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0]));
            all.push(make([flag, 0, pages, 0, 6, 0x55, frame, 4, 1, 12, 3, 0, 0, 0, 0, 0]));
        }
    }
    all
}

/// Hot journals of transactions that spilled, and what a finished one leaves.
fn journals() -> Vec<Vec<u8>> {
    let dir = scratch("journal");
    let (path, beside) = (dir.join("live.db"), dir.join("live.db-journal"));
    let mut all = Vec::new();
    for (mode, cache, change) in [
        ("DELETE", 2000, "UPDATE t SET b='x'"),
        ("PERSIST", 4, "DELETE FROM t WHERE a % 2; INSERT INTO t VALUES(99, zeroblob(900))"),
        ("TRUNCATE", 4, "UPDATE t SET b=b||'y'"),
    ] {
        let _ = std::fs::remove_file(&path);
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(&format!(
            "PRAGMA page_size=512; PRAGMA journal_mode={mode}; PRAGMA cache_size={cache};
             CREATE TABLE t(a INTEGER PRIMARY KEY, b); {FILL} t SELECT i, hex(zeroblob(i)) FROM n; BEGIN; {change};"
        ))
        .unwrap();
        for flags in [0, 1] {
            let journal = std::fs::read(&beside).unwrap();
            all.push([vec![flags, 0, 0, 0], journal].concat());
        }
        conn.execute_batch("COMMIT").unwrap();
        all.push([vec![0; 4], std::fs::read(&beside).unwrap_or_default()].concat());
    }
    std::fs::remove_dir_all(&dir).unwrap();
    all
}

fn superblocks() -> Vec<Vec<u8>> {
    let mut sb = vec![0_u8; 2048];
    sb[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
    sb[1024 + 0x3a] = 1;
    sb[1024 + 0x18] = 2;
    let mut fat = vec![0_u8; 512];
    fat[..3].copy_from_slice(&[0xeb, 0x58, 0x90]);
    fat[510..].copy_from_slice(&[0x55, 0xaa]);
    vec![sb.clone(), sb[1024..].to_vec(), fat, b"LUKS\xba\xbe".to_vec(), vec![0; 2048]]
}

fn slots() -> Vec<Vec<u8>> {
    use pyvorin_recovery::slots::{Slot, SlotsState, file};
    let fresh = file::read(None, None, 3);
    let mut state = SlotsState::fresh(3);
    let first = fresh.encode_next(&state).unwrap().bytes;
    state.count_attempt(Slot::A);
    state.mark_bad(Slot::B);
    let mut read = file::read(Some(&first), None, 3);
    let next = read.encode_next(&state).unwrap();
    let second = next.bytes.clone();
    read.written(next);
    let json = |bytes: &[u8]| bytes.splitn(2, |b| *b == b'\n').nth(1).unwrap_or_default().to_vec();
    let half = |how: u8, a: Vec<u8>, b: Vec<u8>| {
        let at = u8::try_from(a.len() * 256 / (a.len() + b.len()).max(1)).unwrap_or(255);
        [vec![how, at], a, b].concat()
    };
    vec![half(0, first.clone(), second.clone()), half(1, json(&first), json(&second)), half(2, first, second)]
}

const SQL: [&str; 7] = [
    "CREATE TABLE r(id INTEGER PRIMARY KEY AUTOINCREMENT, s TEXT NOT NULL DEFAULT 'x', t REAL)\0CREATE INDEX i ON r(s, t DESC) WHERE t>1",
    "CREATE TABLE \"w\"(k VARCHAR(10) PRIMARY KEY COLLATE NOCASE, v, UNIQUE(v, k)) WITHOUT ROWID, STRICT",
    "CREATE TABLE g(a INT, b AS (a*2) STORED, c GENERATED ALWAYS AS (a||b) VIRTUAL, CHECK(a > 0))",
    "CREATE TABLE [f](a REFERENCES o(x) ON DELETE SET NULL, PRIMARY KEY(a DESC, b), b BLOB /* c */ -- d\n)",
    "CREATE TABLE s(a INTEGER, b ANY, PRIMARY KEY(a)) STRICT",
    "CREATE TABLE c(a INTEGER PRIMARY KEY DESC, b DEFAULT (1+2), c DEFAULT -5 UNIQUE ON CONFLICT IGNORE)",
    "CREATE TABLE l(a UNSIGNED BIG INT CONSTRAINT n NOT NULL, FOREIGN KEY(a) REFERENCES o DEFERRABLE INITIALLY DEFERRED)",
];

const INTENT: &str = r#"{"op":"1-edge_store-0","kind":"repair","phase":"PREPARED","prepared_at":1,"by":"unattended",
"volume":"","stage":"/d/.stage/1","targets":[{"database":"edge_store","path":"/d/e.db","staged":"/d/.stage/1/e.db",
"sha256":"00","retire":["/d/e.db-wal"]}]}"#;

const CONFIG: &str = r#"[device]
id_from = "device-tree"
[data]
device = "LABEL=PYV-DATA"
dir = "/var/lib/pyvorin"
[state]
dir = "/var/lib/pyvorin-recovery"
[[database]]
name = "edge_store"
kind = "store"
path = "/var/lib/pyvorin/edge_store.db"
owner = "auto"
mode = "0640"
accept = ["replay", "resync", "reindex", "salvage", "backup"]
[quarantine]
keep = 2
max_percent = 20
[slots]
backend = "file"
tries = 3
[button]
line = "RECOVERY"
active = "low"
hold_seconds = 5
[boot]
check_budget_ms = 2000
on_damage_left = "continue"
hold_minutes = 10
"#;

fn evidence() -> Vec<Vec<u8>> {
    use pyvorin_recovery::boot::evidence::{DatabaseEvidence, DirectoryFact, Evidence, FileFact};
    use pyvorin_recovery::journal::IntentEvidence;
    use pyvorin_recovery::sqlite::check::{self, Scope};
    use pyvorin_recovery::sqlite::observe::{self, ShmState};
    use pyvorin_recovery::sqlite::overlay::Overlay;
    let mut all = Vec::new();
    for (db, log) in logs() {
        for cut in [0, 600] {
            let mut log = log.clone();
            log[..cut].fill(9);
            let (wal, _) = observe::wal(&log, Some(&db), Some(512), 0, None).unwrap();
            let structure = check::check(&Overlay::alone(&db, 512), Scope::Full, &mut || true).ok();
            let database = DatabaseEvidence {
                name: "edge_store".into(),
                path: "/var/lib/pyvorin/edge_store.db".into(),
                location: "/var/lib/pyvorin/edge_store.db".into(),
                file: FileFact::Missing,
                directory_owner: None,
                header: None,
                wal,
                shm: ShmState::Absent,
                hot_journal: false,
                journal: Default::default(),
                sound_alone: None,
                structure,
                scope: Scope::Full,
                moving: false,
                superblock_clean: true,
                backups: Vec::new(),
                schema_record: None,
                held_by: Vec::new(),
            };
            let evidence = Evidence {
                reset: None,
                schema: "pyvorin-recovery/evidence/1".into(),
                now: 1,
                by: "unattended".into(),
                volumes: Vec::new(),
                state: DirectoryFact::Usable,
                data: DirectoryFact::Usable,
                free_bytes: 1 << 30,
                data_uuid: String::new(),
                intent: IntentEvidence::None,
                mirror: false,
                trials: Default::default(),
                unclean_before: false,
                slots: None,
                databases: vec![database],
            };
            all.push(serde_json::to_vec(&evidence).unwrap());
        }
    }
    all
}
