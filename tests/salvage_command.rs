//! `salvage DB OUT` from the outside: what it refuses, what it leaves alone, what it prints, how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, missing_docs)]

mod support;

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use support::rng::Rng;
use support::site::{Run, Site, tree};

const SCHEMA: &str = "
CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, sensor_name TEXT NOT NULL, timestamp REAL NOT NULL,
  value REAL NOT NULL, unit TEXT, metadata TEXT);
CREATE INDEX idx_readings_sensor_time ON readings(sensor_name, timestamp);
";

/// A store of `rows` rows whose page `ruined` (0: none) is noise, and an untouched copy as a backup.
fn store(site: &Site, rows: u32, ruined: usize) -> (PathBuf, PathBuf) {
    let db = site.data().join("edge_store.db");
    let conn = Connection::open(&db).unwrap();
    conn.execute_batch(SCHEMA).unwrap();
    conn.execute_batch("BEGIN").unwrap();
    for n in 0..rows {
        conn.execute(
            "INSERT INTO readings(sensor_name, timestamp, value, unit) VALUES (?1, ?2, ?3, '°C')",
            (format!("temp.{}", n % 3), 1.7e9 + f64::from(n), f64::from(n)),
        )
        .unwrap();
    }
    conn.execute_batch("COMMIT").unwrap();
    conn.close().unwrap();
    let backup = site.data().join("backups/2026-11-01");
    std::fs::create_dir_all(&backup).unwrap();
    std::fs::copy(&db, backup.join("edge_store.db")).unwrap();
    if ruined > 0 {
        let mut bytes = std::fs::read(&db).unwrap();
        let at = (ruined - 1) * 4096;
        Rng::new(1).fill(&mut bytes[at..at + 4096]);
        std::fs::write(&db, bytes).unwrap();
    }
    (db, site.data().join("backups"))
}

/// The last table leaf of the file.
fn a_leaf(db: &Path) -> usize {
    std::fs::read(db).unwrap().chunks(4096).rposition(|p| p[0] == 13).unwrap() + 1
}

fn salvage(site: &Site, db: &Path, out: &Path, more: &[&str]) -> Run {
    let mut all = vec!["salvage", db.to_str().unwrap(), out.to_str().unwrap()];
    all.extend_from_slice(more);
    site.run(&all)
}

fn count(db: &Path) -> i64 {
    Connection::open(db).unwrap().query_row("SELECT count(*) FROM readings", [], |r| r.get(0)).unwrap()
}

#[test]
fn a_sound_database_is_copied_and_exit_0_says_that_nothing_is_missing() {
    let site = Site::bare();
    let (db, _) = store(&site, 2000, 0);
    let out = site.root().join("out.db");
    let before = tree(&site.data());
    let run = salvage(&site, &db, &out, &[]);
    assert_eq!(run.code, 0, "{} {}", run.stdout, run.stderr);
    let json = run.json.unwrap();
    assert_eq!(
        json["tables"],
        serde_json::json!([{"name": "readings", "rows": 2000, "lost": 0, "lost_at_most": 0, "not_provable": 0}])
    );
    assert_eq!((&json["lost_and_found"], &json["loss_manifest"]), (&0.into(), &serde_json::Value::Null));
    // An ordinary schema needs no engine for the verdict.
    assert_eq!((&json["checked_by"], &json["integrity_check"]), (&"full check".into(), &serde_json::json!(["ok"])));
    assert_eq!(count(&out), 2000);
    assert_eq!(tree(&site.data()), before, "the database or its directory was touched");
    assert!(!site.root().join("out.db.loss.json").exists());
}

#[test]
fn rows_that_are_gone_are_listed_by_sensor_and_time_and_a_backup_fills_them_in() {
    let site = Site::bare();
    let (db, backups) = store(&site, 4000, 0);
    let leaf = a_leaf(&db);
    std::fs::remove_file(&db).unwrap();
    let (db, _) = store(&site, 4000, leaf);
    let out = site.root().join("out.db");
    let run = salvage(&site, &db, &out, &[]);
    assert_eq!(run.code, 4, "{} {}", run.stdout, run.stderr);
    let json = run.json.unwrap();
    let lost = json["tables"][0]["lost"].as_i64().unwrap();
    assert!(lost > 10 && count(&out) == 4000 - lost, "{json}");
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(json["loss_manifest"].as_str().unwrap()).unwrap()).unwrap();
    let table = &manifest["tables"][0];
    assert_eq!((table["named_rows"].as_i64(), &table["counted_by"]), (Some(lost), &"index".into()), "{table}");
    let groups = table["groups"].as_array().unwrap();
    assert_eq!(groups.iter().map(|g| g["rows"].as_i64().unwrap()).sum::<i64>(), lost);
    assert!(groups.iter().all(|g| g["column"] == "sensor_name" && g["range"][0] == "timestamp"), "{groups:?}");
    // The same with the backup: every row is back, and said to come from there.
    let out = site.root().join("filled.db");
    let run = salvage(&site, &db, &out, &["--backup", backups.to_str().unwrap()]);
    let json = run.json.unwrap();
    assert_eq!((run.code, count(&out)), (4, 4000), "{json}");
    assert_eq!(json["from_backup"], serde_json::json!([{"table": "readings", "inserted": lost}]));
}

#[test]
fn a_lost_schema_is_taken_from_a_file() {
    let site = Site::bare();
    // Not the documented product, so nothing else knows these names.
    let db = site.data().join("other.db");
    let conn = Connection::open(&db).unwrap();
    conn.execute_batch("CREATE TABLE parts (id INTEGER PRIMARY KEY, name TEXT, weight REAL, note BLOB)").unwrap();
    conn.execute_batch(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 900)
         INSERT INTO parts SELECT n, 'part ' || n, n / 3.0, x'00' FROM c;",
    )
    .unwrap();
    conn.close().unwrap();
    let mut bytes = std::fs::read(&db).unwrap();
    bytes[..4096].fill(0);
    std::fs::write(&db, bytes).unwrap();
    let schema = site.root().join("schema.sql");
    std::fs::write(&schema, "CREATE TABLE parts (id INTEGER PRIMARY KEY, name TEXT, weight REAL, note BLOB);").unwrap();
    let run = salvage(&site, &db, &site.root().join("none.db"), &[]);
    assert_eq!(run.json.unwrap()["lost_and_found"], 900, "{}", run.stderr);
    let out = site.root().join("out.db");
    let run = salvage(&site, &db, &out, &["--schema", schema.to_str().unwrap()]);
    let json = run.json.unwrap();
    assert_eq!(json["report"]["schema_from"], serde_json::json!(["the schema file"]));
    let rows: i64 = Connection::open(&out).unwrap().query_row("SELECT count(*) FROM parts", [], |r| r.get(0)).unwrap();
    assert_eq!((rows, &json["lost_and_found"]), (900, &0.into()), "{json}");
    std::fs::write(&schema, "CREATE TABLE (").unwrap();
    let run = salvage(&site, &db, &site.root().join("bad.db"), &["--schema", schema.to_str().unwrap()]);
    assert!(run.code == 8 && run.stderr.contains("next:"), "{} {}", run.code, run.stderr);
}

#[test]
fn nothing_is_overwritten_and_a_missing_database_is_an_operational_error() {
    let site = Site::bare();
    let (db, _) = store(&site, 50, 0);
    let out = site.root().join("out.db");
    for name in ["out.db", "out.db.partial", "out.db.loss.json"] {
        std::fs::write(site.root().join(name), "mine").unwrap();
        let run = salvage(&site, &db, &out, &[]);
        assert!(run.code & 8 != 0 && run.stderr.contains("next:"), "{name}: {} {}", run.code, run.stderr);
        assert_eq!(std::fs::read(site.root().join(name)).unwrap(), b"mine");
        std::fs::remove_file(site.root().join(name)).unwrap();
    }
    let run = salvage(&site, &site.root().join("nothing.db"), &out, &[]);
    assert!(run.code == 8 && run.stderr.contains("next:"), "{} {}", run.code, run.stderr);
    assert!(!out.exists());
    let names: Vec<_> = std::fs::read_dir(site.root()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|n| !n.to_string_lossy().contains("partial")), "{names:?}");
}

#[test]
fn the_ladder_repairs_a_damaged_table_and_counts_what_is_lost() {
    let site = Site::bare();
    let (db, _) = store(&site, 4000, 0);
    let leaf = a_leaf(&db);
    std::fs::remove_file(&db).unwrap();
    let (db, backups) = store(&site, 4000, leaf);
    std::fs::remove_dir_all(backups).unwrap();
    let damaged = std::fs::read(&db).unwrap();
    let run = site.run(&["--technician", "t", "repair"]);
    assert_eq!((run.code, run.text("action")), (5, "salvaged"), "{} {}", run.stdout, run.stderr);
    let lost = run.database()["tables"][0]["lost"].as_i64().unwrap();
    assert!(lost > 10 && count(&db) == 4000 - lost);
    let manifest = run.text("loss_manifest");
    assert!(Path::new(manifest).is_file(), "{manifest}");
    let kept = Path::new(run.text("quarantine")).join("edge_store.db");
    assert_eq!(std::fs::read(kept).unwrap(), damaged, "the original is not what it was");
    let again = site.run(&["--technician", "t", "repair"]);
    assert_eq!((again.code, again.text("action")), (0, "none"), "{}", again.stdout);
}

#[test]
fn damage_in_an_index_alone_loses_no_row_and_needs_no_salvage() {
    let site = Site::bare();
    let (db, _) = store(&site, 4000, 0);
    let leaf = std::fs::read(&db).unwrap().chunks(4096).rposition(|p| p[0] == 10).unwrap() + 1;
    std::fs::remove_file(&db).unwrap();
    let (db, _) = store(&site, 4000, leaf);
    let run = site.run(&["--technician", "t", "repair"]);
    assert_eq!(run.code & 1, 1, "{} {}", run.stdout, run.stderr);
    println!("{}", run.brief());
    assert_eq!(count(&db), 4000);
}

#[test]
fn marking_a_slot_good_keeps_the_schema_once() {
    let site = Site::bare();
    let (db, _) = store(&site, 300, 0);
    let state = site.root().join("var/lib/pyvorin-recovery");
    // A boot that this program has started: then the slot it runs is known.
    let boot = site.run(&["boot"]);
    assert!(boot.code < 8, "{} {}", boot.stdout, boot.stderr);
    let marked = site.run(&["slot", "mark-good"]);
    if marked.code == 0 {
        let record = state.join("schema-edge_store");
        let first = std::fs::metadata(&record).unwrap().modified().unwrap();
        let again = site.run(&["slot", "mark-good"]);
        assert_eq!((again.code, std::fs::metadata(&record).unwrap().modified().unwrap()), (0, first));
        // With it a database without page 1 has its names back.
        let mut bytes = std::fs::read(&db).unwrap();
        bytes[..4096].fill(0);
        std::fs::write(&db, bytes).unwrap();
        let run = salvage(&site, &db, &site.root().join("o.db"), &[]);
        let from = run.json.unwrap()["report"]["schema_from"].to_string();
        assert!(from.contains("last good boot"), "{from}");
    } else {
        println!("not marked: {}", marked.stderr);
    }
}

#[test]
fn bare_names_mean_the_directory_that_one_is_in() {
    let site = Site::bare();
    let (db, _) = store(&site, 600, 0);
    let mut bytes = std::fs::read(&db).unwrap();
    let at = (a_leaf(&db) - 1) * 4096;
    bytes[at..at + 4096].fill(0);
    std::fs::write(site.data().join("here.db"), bytes).unwrap();
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_pyvorin-recovery"))
        .current_dir(site.data())
        .args(["salvage", "here.db", "out.db"])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(4), "{}", String::from_utf8_lossy(&run.stderr));
    let rows = count(&site.data().join("out.db"));
    assert!(rows > 0 && rows < 600 && site.data().join("out.db.loss.json").exists(), "{rows}");
}
