//! With real databases in real files, and the same through memory.
#![allow(clippy::disallowed_methods)] // The oracle of a test reads files by itself and not through what it tests.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

const SCHEMA: &str =
    "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, sensor TEXT, value REAL, twice AS (value * 2));
     CREATE TABLE plain (x UNIQUE, rowid_like TEXT); CREATE TABLE pairs (k PRIMARY KEY, v) WITHOUT ROWID;
     CREATE TABLE shadowed (rowid TEXT, note TEXT);
     CREATE VIEW v AS SELECT * FROM readings; CREATE INDEX by_sensor ON readings (sensor);
     CREATE VIRTUAL TABLE words USING fts5(body);
     CREATE TRIGGER noisy AFTER INSERT ON readings BEGIN INSERT INTO plain VALUES (new.id, 'trigger'); END;";

/// A WAL-mode database of one file: the last close folds the WAL in and leaves bytes 18 and 19 at 2.
fn make(dir: &Path, name: &str, sql: &str) -> PathBuf {
    let path = dir.join(name);
    let db = Connection::open(&path).unwrap();
    db.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    db.execute_batch(SCHEMA).unwrap();
    db.execute_batch(sql).unwrap();
    drop(db);
    assert_eq!(fs::read(&path).unwrap()[18..20], [2, 2]);
    path
}

fn readings(upto: u32) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {upto})
         INSERT INTO readings (sensor, value) SELECT 's' || (i % 7), i FROM n;"
    )
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn rows(rows: &[TableRows], table: &str) -> Option<u64> {
    rows.iter().find(|r| r.table == table).map(|r| r.rows)
}

fn gain(gains: &[TableGain], table: &str) -> Option<u64> {
    gains.iter().find(|g| g.table == table).map(|g| g.inserted)
}

#[test]
fn a_check_changes_nothing_and_counts_ordinary_tables() {
    let dir = TempDir::new().unwrap();
    // A name that would end a URI early.
    let path = make(dir.path(), "edge ?store#%41.db", &readings(100));
    let before = fs::read(&path).unwrap();
    let (lines, counted) = check_file(&path).unwrap();
    assert_eq!(lines, ["ok"]);
    assert_eq!(rows(&counted, "readings"), Some(100));
    assert_eq!(rows(&counted, "plain"), Some(100));
    assert_eq!(rows(&counted, "pairs"), Some(0));
    assert_eq!(rows(&counted, "v"), None);
    assert!(!counted.iter().any(|r| r.table.starts_with("words") || r.table.starts_with("sqlite_")));
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(names(dir.path()), ["edge ?store#%41.db"]);
    assert_eq!(check_bytes(&before).unwrap(), (lines, counted));
}

#[test]
fn a_check_does_not_look_at_a_wal_beside_the_file() {
    let dir = TempDir::new().unwrap();
    let path = make(dir.path(), "a.db", "");
    let live = Connection::open(&path).unwrap();
    live.execute_batch("INSERT INTO pairs VALUES (1, 1)").unwrap();
    let copy = dir.path().join("b.db");
    fs::copy(&path, &copy).unwrap();
    fs::copy(dir.path().join("a.db-wal"), dir.path().join("b.db-wal")).unwrap();
    let wal = fs::read(dir.path().join("b.db-wal")).unwrap();
    let (lines, counted) = check_file(&copy).unwrap();
    assert_eq!((lines.as_slice(), rows(&counted, "pairs")), (["ok".to_owned()].as_slice(), Some(0)));
    assert_eq!(fs::read(dir.path().join("b.db-wal")).unwrap(), wal);
    assert!(!dir.path().join("b.db-shm").exists());
}

#[test]
fn damage_is_an_answer_and_not_an_error() {
    let dir = TempDir::new().unwrap();
    let path = make(dir.path(), "a.db", &readings(3000));
    let sound = fs::read(&path).unwrap();
    for (at, len) in [(0, 16), (20, 4), (100, 60), (4096, 4096), (sound.len() / 2, 9000)] {
        let mut bytes = sound.clone();
        bytes[at..at + len].fill(0xA5);
        fs::write(&path, &bytes).unwrap();
        let (lines, _) = check_file(&path).unwrap();
        assert!(!lines.is_empty() && lines != ["ok"], "{at}: {lines:?}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
        let (in_memory, _) = check_bytes(&bytes).unwrap();
        assert!(!in_memory.is_empty() && in_memory != ["ok"], "{at}: {in_memory:?}");
    }
    fs::write(&path, b"not a database, and rather longer than one hundred bytes: ".repeat(9)).unwrap();
    assert_eq!(check_file(&path).unwrap().0.len(), 1);
    assert_eq!(names(dir.path()), ["a.db"]);
}

#[test]
fn what_cannot_be_looked_at_is_an_error() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("missing.db");
    assert_eq!(check_file(&missing).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert!(!missing.exists());
    assert_eq!(check_file(dir.path()).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    let path = make(dir.path(), "a.db", "");
    let link = dir.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(check_file(&link).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn an_empty_file_is_an_empty_database() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("empty.db");
    fs::write(&path, b"").unwrap();
    assert_eq!(check_file(&path).unwrap(), (vec!["ok".to_owned()], Vec::new()));
    assert_eq!(check_bytes(b"").unwrap(), (vec!["ok".to_owned()], Vec::new()));
    assert!(append_file(&path, &path).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn an_append_brings_what_lies_above_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let extra = "INSERT INTO plain (rowid, x) VALUES (5000, 'new'), (5001, 'taken'), (-5, 'below');
                 INSERT INTO shadowed VALUES ('a', 'b'), ('c', 'd'); INSERT INTO pairs VALUES (9, 9);
                 INSERT INTO words VALUES ('hello');";
    let base =
        make(dir.path(), "base.db", &format!("{} INSERT INTO plain (rowid, x) VALUES (4000, 'taken');", readings(60)));
    let donor = make(dir.path(), "donor.db", &format!("{} {extra}", readings(100)));
    // A queue deletes what it has sent: row 60 existed in the base, so it stays deleted.
    Connection::open(&base).unwrap().execute_batch("DELETE FROM readings WHERE id > 55").unwrap();
    let (base_bytes, donor_bytes) = (fs::read(&base).unwrap(), fs::read(&donor).unwrap());

    let gains = append_file(&base, &donor).unwrap();
    assert_eq!(gain(&gains, "readings"), Some(40));
    assert_eq!(gain(&gains, "plain"), Some(1));
    assert_eq!(gain(&gains, "shadowed"), Some(2));
    assert_eq!(gain(&gains, "pairs"), None);
    assert_eq!(names(dir.path()), ["base.db", "donor.db"]);
    assert_eq!(fs::read(&donor).unwrap(), donor_bytes);
    let after = fs::read(&base).unwrap();
    assert_eq!(after[18..20], [2, 2]);
    assert_eq!(check_file(&base).unwrap().0, ["ok"]);
    let db = Connection::open_with_flags(
        immutable_uri(&base).unwrap(),
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
    )
    .unwrap();
    let facts: (i64, i64, i64, f64) = db
        .query_row(
            "SELECT count(*), max(id), (SELECT seq FROM sqlite_sequence WHERE name = 'readings'), sum(twice) FROM readings",
            [],
            |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)),
        )
        .unwrap();
    let sum: u32 = (1..=55).chain(61..=100).sum::<u32>() * 2;
    assert_eq!(facts, (95, 100, 100, f64::from(sum)));
    drop(db);

    let (in_memory, memory_gains) = append_bytes(base_bytes, &donor_bytes).unwrap();
    assert_eq!(memory_gains, gains);
    assert_eq!(in_memory[18..20], [2, 2]);
    assert_eq!(check_bytes(&in_memory).unwrap(), check_bytes(&after).unwrap());
    // Again: nothing lies above any more.
    assert!(append_file(&base, &donor).unwrap().iter().all(|g| g.inserted == 0));
}

#[test]
fn an_empty_base_table_takes_everything_negative_rowids_included() {
    let dir = TempDir::new().unwrap();
    let base = make(dir.path(), "base.db", "");
    let donor = make(dir.path(), "donor.db", "INSERT INTO plain (rowid, x) VALUES (-9223372036854775808, 1), (7, 2);");
    assert_eq!(gain(&append_file(&base, &donor).unwrap(), "plain"), Some(2));
}

#[test]
fn a_hole_in_the_donor_costs_only_what_lies_in_it() {
    let dir = TempDir::new().unwrap();
    let base = make(dir.path(), "base.db", &readings(10));
    let donor = make(dir.path(), "donor.db", &readings(5000));
    let whole = fs::read(&donor).unwrap();
    // One table leaf in the middle of the file, among hundreds: rows on both sides of it come over.
    let mut bytes = whole.clone();
    let middle = (bytes.len() / 8192..).map(|page| page * 4096).find(|at| whole[*at] == 13).unwrap();
    bytes[middle..middle + 8].fill(0xFF);
    fs::write(&donor, &bytes).unwrap();
    // Two tables grow by 4990 rows each (a trigger fed the second); the leaf belongs to one of them.
    let gained: u64 = append_file(&base, &donor).unwrap().iter().map(|g| g.inserted).sum();
    assert!((9000..9980).contains(&gained), "{gained}");
    let after = fs::read(&base).unwrap();
    assert_eq!(check_bytes(&after).unwrap().0, ["ok"]);
    assert_eq!(after[18..20], [2, 2]);
    assert_eq!(names(dir.path()), ["base.db", "donor.db"]);
}

#[test]
fn a_donor_that_cannot_be_read_at_all_gives_nothing() {
    let dir = TempDir::new().unwrap();
    let base = make(dir.path(), "base.db", &readings(10));
    let donor = dir.path().join("donor.db");
    fs::write(&donor, vec![0xFF; 8192]).unwrap();
    let before = fs::read(&base).unwrap();
    assert!(append_file(&base, &donor).is_err());
    assert_eq!(fs::read(&base).unwrap(), before);
}

#[test]
fn a_stage_with_side_files_is_refused() {
    let dir = TempDir::new().unwrap();
    let base = make(dir.path(), "base.db", "");
    fs::write(dir.path().join("base.db-wal"), b"x").unwrap();
    let before = fs::read(&base).unwrap();
    assert!(append_file(&base, &base).is_err());
    assert_eq!(fs::read(&base).unwrap(), before);
}

#[test]
fn a_check_can_be_stopped() {
    let dir = TempDir::new().unwrap();
    let path = make(dir.path(), "a.db", "");
    // Before the start there is nothing to stop; SQLite documents that such an interrupt has no effect.
    let mut handle = None;
    assert!(check_file_watched(&path, |h| handle = Some(h)).is_ok());
    handle.unwrap().interrupt();
}

#[test]
fn the_engine_says_what_only_sql_can_say_of_a_table() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("checked.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "CREATE TABLE t(a INTEGER CHECK (a < 100), b); CREATE TABLE u(a); INSERT INTO t VALUES (1, 2); \
         PRAGMA ignore_check_constraints = ON; INSERT INTO t VALUES (200, 5)",
    )
    .unwrap();
    drop(db);
    let before = fs::read(&path).unwrap();
    let tables = ["t".to_string(), "u".to_string(), "gone".to_string()];
    let expected = vec![
        ObjectCheck { table: "t".into(), lines: vec!["CHECK constraint failed in t".into()], unable: None },
        ObjectCheck { table: "u".into(), lines: vec![], unable: None },
    ];
    let mut by_file = check_objects_file(&path, &tables, |_| {}).unwrap();
    let mut by_bytes = check_objects_bytes(&fs::read(&path).unwrap(), &tables).unwrap();
    for found in [&mut by_file, &mut by_bytes] {
        let gone = found.pop().unwrap();
        assert!(gone.unable.unwrap().contains("no such table"), "{:?}", gone.lines);
        assert_eq!(*found, expected);
    }
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_view_or_trigger_whose_text_cannot_be_read_is_named() {
    let text = |kind: &str, name: &str, sql: &str| (kind.to_string(), name.to_string(), sql.to_string());
    let texts = [
        text("table", "t", "CREATE TABLE t(a)"),
        text("view", "good", "CREATE VIEW good AS SELECT a FROM t"),
        text("view", "bad", "CREATE VIEW bad AS SELEKT a FROM t"),
        text("trigger", "fine", "CREATE TRIGGER fine AFTER DELETE ON t BEGIN SELECT 1; END"),
        text("view", "two", "CREATE VIEW two AS SELECT 1; SELECT 2"),
    ];
    let names: Vec<String> = check_texts(&texts).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["bad", "two"]);
}

#[test]
fn rows_that_break_a_check_constraint_are_told_and_the_staged_file_stays_as_it_was() {
    let dir = TempDir::new().unwrap();
    let path = make(
        dir.path(),
        "a.db",
        "CREATE TABLE c(v INTEGER CHECK (v > 0), \"a check\" TEXT); CREATE TABLE d(v CHECK (v <> 7));
         PRAGMA ignore_check_constraints = ON; INSERT INTO c VALUES (1, ''), (-1, ''), (-2, ''); INSERT INTO d VALUES (1);",
    );
    let before = fs::read(&path).unwrap();
    assert_eq!(check_file(&path).unwrap().0, ["ok"], "the gate does not look at them");
    let lines = constraints_file(&path, |_| {}).unwrap();
    assert!(lines.len() == 1 && lines[0].contains("rows of c break"), "{lines:?}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(names(dir.path()), ["a.db"]);
    assert_eq!(constraints_bytes(&before).unwrap(), lines);
    let none = make(dir.path(), "b.db", &readings(10));
    assert_eq!(constraints_file(&none, |_| {}).unwrap(), Vec::<String>::new());
}

#[test]
fn a_collation_of_the_application_refuses_no_sound_file_and_hides_no_damage() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "CREATE TABLE t(a TEXT COLLATE NOCASE, b); CREATE INDEX t_a ON t(a); CREATE TABLE u(x); CREATE INDEX u_x ON u(x);
         INSERT INTO t VALUES ('one', 1), ('two', 2); INSERT INTO u VALUES (1), (2), (3); PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'theirs');",
    )
    .unwrap();
    let root: i64 = db.query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'u_x'", [], |r| r.get(0)).unwrap();
    drop(db);
    let mut bytes = fs::read(&path).unwrap();
    let (lines, counted) = check_bytes(&bytes).unwrap();
    assert_eq!((lines.as_slice(), rows(&counted, "u")), (["ok".to_string()].as_slice(), Some(3)));
    assert_eq!(check_file(&path).unwrap(), (lines, counted));
    // An index entry gone: the number of cells of its page is one less.
    let page = usize::try_from(root - 1).unwrap() * 4096;
    bytes[page + 4] -= 1;
    assert_ne!(check_bytes(&bytes).unwrap().0, ["ok"]);
}

#[test]
fn a_name_of_the_engines_own_with_a_bit_fallen_over_is_damage_and_no_application() {
    let sound = |from: &str, to: &str| {
        let mut db = Connection::open_in_memory().unwrap();
        db.execute_batch(&format!(
            "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t(a TEXT COLLATE NOCASE, b, CHECK (length(b) < 9));
             CREATE INDEX t_a ON t(a); INSERT INTO t VALUES ('one', 1); PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}');"
        ))
        .unwrap();
        let bytes = db.serialize("main").unwrap().to_vec();
        let checks = check_objects_bytes(&bytes, &["t".to_string()]).unwrap();
        (checks[0].lines.clone(), checks[0].unable.clone())
    };
    for (from, to) in
        [("NOCASE", "NOCA\u{4053}E"), ("NOCASE", "NOGASE"), ("NOCASE", "NOC\u{e9}SE"), ("length", "lungth")]
    {
        let (lines, unable) = sound(from, to);
        assert!(
            unable.is_none() && lines.len() == 1 && ["no such", "unknown"].iter().any(|w| lines[0].starts_with(w)),
            "{to}: {lines:?} {unable:?}"
        );
    }
    for (from, to) in [("NOCASE", "GERMAN"), ("NOCASE", "LTRIM"), ("length", "lenght"), ("length", "weight")] {
        let (lines, unable) = sound(from, to);
        assert!(unable.is_some() && lines.is_empty(), "{to}: {lines:?} {unable:?}");
    }
}
