//! What a check says of damage that the engine made itself: which object, which rows, who looked; and what it says of a
//! database that is being written.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs
)]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyvorin_recovery::sqlite::check::{Alone, ObjectKind, Scope, Structure, SumKey, check_keyed};
use pyvorin_recovery::sqlite::overlay::Overlay;
use rusqlite::Connection;
use support::site::Scratch;

fn full(path: &Path) -> Structure {
    let bytes = std::fs::read(path).unwrap();
    check_keyed(&Overlay::alone(&bytes, 4096), Scope::Full, SumKey([3, 5]), &Alone, &mut |_, _| true).unwrap()
}

fn codes(s: &Structure) -> Vec<&str> {
    s.findings.iter().map(|f| f.code.as_str()).collect()
}

/// Hides an index from the engine while rows change, and puts it back as it was: it is then out of step, and sound in
/// itself. The damage that a lost write leaves.
fn out_of_step(path: &Path, changes: &str) {
    let db = Connection::open(path).unwrap();
    db.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b REAL); CREATE INDEX t_a ON t(a, b); \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
         INSERT INTO t SELECT i, 'name ' || (i % 97), i * 0.5 FROM n; \
         CREATE TEMP TABLE kept AS SELECT * FROM sqlite_schema WHERE name = 't_a'; \
         PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 't_a';",
    )
    .unwrap();
    let row: (i64, String) =
        db.query_row("SELECT rootpage, sql FROM kept", [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
    db.close().unwrap();
    let db = Connection::open(path).unwrap();
    db.execute_batch(changes).unwrap();
    db.execute_batch("PRAGMA writable_schema = ON").unwrap();
    db.execute("INSERT INTO sqlite_schema VALUES ('index', 't_a', 't', ?1, ?2)", rusqlite::params![row.0, row.1])
        .unwrap();
    db.close().unwrap();
}

#[test]
fn an_index_that_lacks_rows_is_damage_of_the_index_alone_and_the_rows_are_named() {
    let scratch = Scratch::new("lacks");
    let path = scratch.path().join("a.db");
    out_of_step(&path, "INSERT INTO t VALUES (6001, 'new', 1.5), (6002, 'new', 2.5)");
    let found = full(&path);
    assert_eq!(codes(&found), ["row-missing-from-index"]);
    assert!(found.findings[0].message.contains("rows 6001, 6002 of t missing from index t_a"), "{:?}", found.findings);
    assert!(found.only_indexes_damaged());
    assert_eq!(found.damaged[0].name, "t_a");
}

#[test]
fn entries_without_a_row_are_damage_of_the_table_and_name_what_is_gone() {
    let scratch = Scratch::new("gone");
    let path = scratch.path().join("a.db");
    out_of_step(&path, "DELETE FROM t WHERE id IN (17, 4711)");
    let found = full(&path);
    assert_eq!(codes(&found), ["entry-without-row", "rows-missing"]);
    assert!(found.findings[1].message.contains("rows 17, 4711"), "{:?}", found.findings);
    assert!(!found.only_indexes_damaged());
    assert!(found.damaged.iter().any(|o| o.name == "t" && o.kind == ObjectKind::Table));
}

#[test]
fn a_row_that_differs_from_its_entry_is_named_and_said_not_to_be_provable() {
    let scratch = Scratch::new("differs");
    let path = scratch.path().join("a.db");
    out_of_step(&path, "UPDATE t SET b = -1 WHERE id = 2500");
    let found = full(&path);
    assert_eq!(codes(&found), ["index-differs"]);
    assert!(found.findings[0].message.contains("row 2500 of t"), "{:?}", found.findings);
    assert!(found.findings[0].message.contains("not provable"));
    assert!(found.only_indexes_damaged());
}

/// As [`out_of_step`], of a table without rowids.
fn out_of_step_by_key(path: &Path, changes: &str) {
    let db = Connection::open(path).unwrap();
    db.execute_batch(
        "CREATE TABLE t(region TEXT, n INTEGER, v, x, PRIMARY KEY(n DESC, region)) WITHOUT ROWID; \
         CREATE INDEX t_v ON t(v, region COLLATE NOCASE); CREATE INDEX t_e ON t(v || 'x'); \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
         INSERT INTO t SELECT 'north ' || (i % 7), i, 'v' || (i % 97), i * 0.5 FROM n; \
         CREATE TEMP TABLE kept AS SELECT * FROM sqlite_schema WHERE name = 't_v'; \
         PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 't_v';",
    )
    .unwrap();
    let row: (i64, String) =
        db.query_row("SELECT rootpage, sql FROM kept", [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
    db.close().unwrap();
    let db = Connection::open(path).unwrap();
    db.execute_batch(changes).unwrap();
    db.execute_batch("PRAGMA writable_schema = ON").unwrap();
    db.execute("INSERT INTO sqlite_schema VALUES ('index', 't_v', 't', ?1, ?2)", rusqlite::params![row.0, row.1])
        .unwrap();
    db.close().unwrap();
}

#[test]
fn rows_without_rowids_are_named_by_their_primary_key() {
    let scratch = Scratch::new("keys");
    let path = scratch.path().join("a.db");
    let again = |changes: &str| {
        let _ = std::fs::remove_file(&path);
        out_of_step_by_key(&path, changes);
        full(&path)
    };
    let found = again("INSERT INTO t VALUES ('it''s new', 6001, 'a', 1.5)");
    assert_eq!(codes(&found), ["row-missing-from-index"]);
    assert!(
        found.findings[0].message.contains(r"row (6001, 'it\'s new') of t missing from index t_v"),
        "{:?}",
        found.findings
    );
    assert!(found.only_indexes_damaged());
    let found = again("DELETE FROM t WHERE n IN (17, 4711)");
    assert_eq!(codes(&found), ["entry-without-row", "rows-missing"]);
    for key in ["(17, 'north 3')", "(4711, 'north 0')"] {
        assert!(found.findings.iter().all(|f| f.message.contains(key)), "{key}: {:?}", found.findings);
    }
    let found = again("UPDATE t SET v = x'00ff' WHERE n = 2500");
    assert_eq!(codes(&found), ["index-differs"]);
    assert!(found.findings[0].message.contains("row (2500, 'north 1') of t"), "{:?}", found.findings);
    assert!(again("SELECT 1").sound());
}

#[test]
fn naming_rows_leaves_the_counts_alone() {
    let scratch = Scratch::new("counts");
    let path = scratch.path().join("a.db");
    out_of_step_by_key(&path, "DELETE FROM t WHERE n = 17");
    let found = full(&path);
    let counts: Vec<_> = found.schema.iter().map(|e| (e.name.as_str(), e.entries)).collect();
    assert!(counts.contains(&("t", Some(4999))) && counts.contains(&("t_v", Some(5000))), "{counts:?}");
    assert!(found.findings.iter().all(|f| !f.message.contains("t_e")), "{:?}", found.findings);
}

#[test]
fn a_whole_real_stored_as_an_integer_equals_its_entry() {
    let scratch = Scratch::new("whole");
    let path = scratch.path().join("a.db");
    out_of_step(&path, "SELECT 1");
    assert!(full(&path).sound());
}

#[test]
fn null_in_a_not_null_column_is_found_without_the_engine() {
    let scratch = Scratch::new("null");
    let path = scratch.path().join("a.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT); INSERT INTO t VALUES (1, 'x'), (2, NULL); \
         PRAGMA writable_schema = ON; \
         UPDATE sqlite_schema SET sql = 'CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT NOT NULL)'",
    )
    .unwrap();
    db.close().unwrap();
    let found = full(&path);
    assert_eq!(codes(&found), ["null-in-not-null"]);
    assert!(found.findings[0].message.contains("row 2"));
    assert!(found.coverage.for_engine.iter().all(|d| d.table.is_none()), "{:?}", found.coverage.for_engine);
}

#[test]
fn a_key_that_repeats_in_a_unique_index_is_found_and_nulls_may_repeat() {
    let scratch = Scratch::new("unique");
    let path = scratch.path().join("a.db");
    let make = |rows: &str| {
        let _ = std::fs::remove_file(&path);
        let db = Connection::open(&path).unwrap();
        db.execute_batch(&format!(
            "CREATE TABLE t(a, b); CREATE INDEX i ON t(a, b); INSERT INTO t VALUES {rows}; PRAGMA writable_schema = ON; \
             UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX i ON t(a, b)' WHERE name = 'i'"
        ))
        .unwrap();
    };
    make("(1, NULL), (1, NULL), (NULL, 2), (NULL, 2), (1, 2)");
    assert!(full(&path).sound());
    make("(1, 2), (3, 4), (1.0, 2)");
    assert_eq!(codes(&full(&path)), ["key-not-unique"]);
}

/// `check --json` as a process, since the connections of this one must not lose their locks.
fn check(path: &Path) -> (i32, serde_json::Value) {
    let out =
        Command::new(env!("CARGO_BIN_EXE_pyvorin-recovery")).args(["--json", "check"]).arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    (out.status.code().unwrap(), value["databases"][0].clone())
}

fn names(value: &serde_json::Value) -> Vec<String> {
    value.as_array().map(|a| a.iter().map(|v| v.as_str().unwrap().to_string()).collect()).unwrap_or_default()
}

#[test]
fn what_needs_sql_is_checked_by_the_engine_on_a_copy_and_the_report_says_so() {
    let scratch = Scratch::new("sql");
    let path = scratch.path().join("a.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode = WAL; CREATE TABLE t(a INTEGER CHECK (a < 100), b); CREATE INDEX i ON t(b); \
         CREATE INDEX p ON t(a) WHERE b > 1; CREATE VIEW v AS SELECT a FROM t; INSERT INTO t VALUES (1, 2), (3, 4)",
    )
    .unwrap();
    let (exit, sound) = check(&path);
    assert_eq!((exit, sound["structure"].as_str()), (0, Some("sound")), "{sound}");
    assert_eq!(names(&sound["checked_natively"]), ["sqlite_schema", "t", "i"]);
    let engine = names(&sound["checked_by_engine"]);
    let expected =
        ["t: CHECK constraints", "p: a partial index", "sqlite_schema: the grammar of the texts of the schema"];
    assert_eq!(engine, expected);
    assert!(sound["engine_ms"].is_u64() && sound["not_checked"].is_null());
    db.execute_batch("PRAGMA ignore_check_constraints = ON; INSERT INTO t VALUES (200, 5)").unwrap();
    let before = std::fs::read(&path).unwrap();
    let (exit, damaged) = check(&path);
    assert_eq!((exit, damaged["structure"].as_str()), (4, Some("damaged")), "{damaged}");
    assert_eq!(damaged["findings"][0]["code"], "engine");
    assert!(damaged["findings"][0]["message"].as_str().unwrap().contains("CHECK constraint failed in t"));
    assert_eq!(damaged["damaged_objects"][0]["kind"], "table");
    assert_eq!(before, std::fs::read(&path).unwrap());
    let left: Vec<_> = std::fs::read_dir("/var/tmp").unwrap().map(|e| e.unwrap().file_name()).collect();
    let ours = |n: &&std::ffi::OsString| n.to_string_lossy().starts_with("pyvorin-check-");
    // Another test may be using its own at this moment, for milliseconds.
    assert!(left.iter().filter(ours).count() <= 1, "{left:?}");
}

/// A writer that inserts, updates, deletes and checkpoints without pause.
fn writer(path: &Path, stop: &Arc<AtomicBool>, checkpoint: u32) -> std::thread::JoinHandle<u64> {
    let (path, stop) = (path.to_path_buf(), Arc::clone(stop));
    std::thread::spawn(move || {
        let db = Connection::open(&path).unwrap();
        db.execute_batch(&format!("PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = {checkpoint}")).unwrap();
        let mut n: u64 = 0;
        while !stop.load(Ordering::Relaxed) {
            n += 1;
            let i = i64::try_from(n).unwrap();
            db.execute("INSERT INTO t(a, b) VALUES (?1, ?2)", rusqlite::params![format!("name {}", i % 50), i])
                .unwrap();
            if n.is_multiple_of(3) {
                db.execute("DELETE FROM t WHERE id = (SELECT min(id) FROM t)", []).unwrap();
                db.execute("UPDATE t SET b = b + 1 WHERE id = (SELECT max(id) FROM t)", []).unwrap();
            }
        }
        n
    })
}

fn live(checkpoint: u32, looks: u32) -> (u32, u32) {
    let scratch = Scratch::new("live");
    let path = scratch.path().join("a.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b); CREATE INDEX t_a ON t(a, b); \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
         INSERT INTO t(a, b) SELECT 'name ' || (i % 50), i FROM n",
    )
    .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let thread = writer(&path, &stop, checkpoint);
    let (mut sound, mut unknown) = (0, 0);
    for _ in 0..looks {
        let (exit, verdict) = check(&path);
        match verdict["structure"].as_str() {
            Some("sound") => sound += 1,
            Some("unreadable") => {
                unknown += 1;
                assert_eq!(verdict["completeness"], "unknown", "{verdict}");
                assert!(verdict["findings"].as_array().unwrap().iter().any(|f| f["code"] == "live"), "{verdict}");
            }
            _ => panic!("a live database was called {verdict}"),
        }
        assert_eq!(exit & 4, 0, "{verdict}");
        assert!(verdict["findings"].as_array().unwrap().iter().all(|f| f["level"] != "error"), "{verdict}");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(thread.join().unwrap() > 0);
    let (exit, verdict) = check(&path);
    assert_eq!((exit, verdict["structure"].as_str()), (0, Some("sound")), "{verdict}");
    (sound, unknown)
}

#[test]
fn a_database_that_is_being_written_is_never_called_damaged() {
    let mut sound = 0;
    for checkpoint in [0, 20, 1000] {
        let found = live(checkpoint, 12);
        println!("autocheckpoint {checkpoint}: {} sound, {} unknown", found.0, found.1);
        sound += found.0;
    }
    // A writer that only appends to its log disturbs nothing.
    assert!(sound > 0);
}
