//! Where nothing can be decided: page 1 gone and no schema known, a table and its index that contradict each other on whole
//! pages. A repair leaves such files as they are and says what and why; a salvage into a new file loses no row and invents
//! none, and names what one side has and the other lacks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::Connection;
use support::site::{Run, Site};

/// Nobody knows this one: it is not the documented product's.
const UNKNOWN: &str = "CREATE TABLE things (id INTEGER PRIMARY KEY, place TEXT NOT NULL, grams REAL, note BLOB);
CREATE INDEX by_place ON things(place, grams);";

type Row = (i64, String, Option<f64>, Option<Vec<u8>>);

fn things(db: &Path, n: i64) {
    let conn = Connection::open(db).unwrap();
    conn.execute_batch(UNKNOWN).unwrap();
    conn.execute_batch("BEGIN").unwrap();
    for i in 1..=n {
        conn.execute(
            "INSERT INTO things VALUES (?1, ?2, ?3, ?4)",
            (i, format!("shelf {}", i % 7), i as f64 / 3.0, vec![i as u8; (i % 40) as usize]),
        )
        .unwrap();
    }
    conn.execute_batch("COMMIT").unwrap();
    conn.close().unwrap();
}

fn rows(db: &Path, sql: &str) -> Vec<Row> {
    let conn = Connection::open_with_flags(db, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut statement = conn.prepare(sql).unwrap();
    let all = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))).unwrap();
    all.map(Result::unwrap).collect()
}

const IN_TABLE: &str = "SELECT id, place, grams, note FROM things NOT INDEXED ORDER BY id";

fn salvage(site: &Site, db: &Path, out: &str, more: &[&str]) -> (Run, std::path::PathBuf) {
    let out = site.root().join(out);
    let mut all = vec!["salvage", db.to_str().unwrap(), out.to_str().unwrap()];
    all.extend_from_slice(more);
    (site.run(&all), out)
}

/// A repair that leaves a file: its bytes are the same, and the report has the reason in words.
fn is_left(site: &Site, db: &Path, what: &str) -> Run {
    let before = std::fs::read(db).unwrap();
    let run = site.run(&["--technician", "T-1", "repair", db.to_str().unwrap()]);
    assert_eq!(run.text("action"), "left", "{what}: {} {}", run.brief(), run.stderr);
    assert!(run.code & 4 != 0 && run.code & 8 == 0, "{what}: {}", run.brief());
    assert_eq!(std::fs::read(db).unwrap(), before, "{what}: the file was changed");
    assert!(run.tells(), "{what}: {}", run.brief());
    run
}

#[test]
fn without_page_1_and_without_a_schema_the_file_is_left_and_no_row_is_lost() {
    for hole in [4096, 512] {
        let site = Site::bare();
        let db = site.data().join("things.db");
        things(&db, 900);
        let truth = rows(&db, IN_TABLE);
        let mut bytes = std::fs::read(&db).unwrap();
        bytes[..hole].fill(0);
        // With the first sector alone gone, the cells of the schema at the end of page 1 still say what the tables are.
        let known = hole < 4096;
        std::fs::write(&db, bytes).unwrap();
        if known {
            let (run, out) = salvage(&site, &db, "out.db", &[]);
            assert_eq!(rows(&out, IN_TABLE), truth, "{}", run.stdout);
            continue;
        }
        let run = is_left(&site, &db, "page 1");
        let whole = format!("{} {}", run.stdout, run.stderr);
        assert!(whole.contains("row could be salvaged") || whole.contains("schema"), "the reason is missing: {whole}");

        let (run, out) = salvage(&site, &db, "out.db", &[]);
        assert_eq!(run.code, 4, "{} {}", run.stdout, run.stderr);
        let json = run.json.unwrap();
        assert_eq!(
            (&json["tables"], &json["report"]["loss"]),
            (&serde_json::json!([]), &serde_json::json!([])),
            "{json}"
        );
        // Pages kept like an index may be rows of a table without rowids; they wait apart from the rows.
        assert_eq!(json["lost_and_found_by_reason"]["fits_nothing"].as_i64(), Some(900), "{json}");
        assert_eq!(json["report"]["schema_whole"], false, "{json}");
        // The rowid stands where it stood; the alias of it is NULL in the record.
        let found = rows(&out, "SELECT id, c1, c2, c3 FROM lost_and_found WHERE class = 'fits-nothing' ORDER BY id");
        assert_eq!(found, truth, "not one row is lost, altered or invented");

        // What the program asks for is enough for every row under its name.
        let schema = site.root().join("schema.sql");
        std::fs::write(&schema, UNKNOWN).unwrap();
        let (run, named) = salvage(&site, &db, "named.db", &["--schema", schema.to_str().unwrap()]);
        assert_eq!(rows(&named, IN_TABLE), truth, "{}", run.stdout);
    }
}

/// The pages of the newer file, but for the table leaves (or index leaves) that differ: those are the older file's, as
/// a card leaves them that said it had written and had not.
fn lost_writes(older: &[u8], newer: &[u8], kind: u8) -> Option<Vec<u8>> {
    let mut mixed = newer.to_vec();
    let mut lost = 0;
    for at in (4096..older.len().min(newer.len())).step_by(4096) {
        let (old, new) = (&older[at..at + 4096], &newer[at..at + 4096]);
        if new[0] == kind && old[0] == kind && old != new {
            mixed[at..at + 4096].copy_from_slice(old);
            lost += 1;
        }
    }
    (lost > 0).then_some(mixed)
}

#[test]
fn a_table_and_an_index_that_contradict_each_other_lose_and_invent_nothing() {
    // What was done last, and which of its writes was lost. The ids that only the index knows afterwards.
    let cases: [(&str, &str, u8, std::ops::Range<i64>); 4] = [
        (
            "rows added",
            "INSERT INTO things SELECT id + 900, place, grams, note FROM things WHERE id <= 5",
            13,
            901..906,
        ),
        ("a value changed, the table lost it", "UPDATE things SET place = 'bench' WHERE id = 450", 13, 0..0),
        ("a value changed, the index lost it", "UPDATE things SET place = 'shelf 0' WHERE id = 450", 10, 0..0),
        ("rows deleted, the index lost it", "DELETE FROM things WHERE id BETWEEN 400 AND 403", 10, 400..404),
    ];
    let mut tried = 0;
    for (what, sql, kind, orphaned) in cases {
        let site = Site::bare();
        let db = site.data().join("things.db");
        things(&db, 900);
        let older = std::fs::read(&db).unwrap();
        let conn = Connection::open(&db).unwrap();
        conn.execute_batch(sql).unwrap();
        conn.close().unwrap();
        let newer = std::fs::read(&db).unwrap();
        let Some(mixed) = lost_writes(&older, &newer, kind) else { panic!("{what}: no page was lost") };
        std::fs::write(&db, mixed).unwrap();
        let held = rows(&db, IN_TABLE);
        let run = is_left(&site, &db, what);
        let codes: BTreeSet<String> =
            run.findings().iter().filter_map(|f| f["code"].as_str().map(str::to_owned)).collect();
        let say = ["entry-without-row", "index-differs", "row-missing-from-index", "rows-missing"];
        assert!(codes.iter().any(|c| say.contains(&c.as_str())), "{what}: {codes:?}");

        let (run, out) = salvage(&site, &db, "out.db", &[]);
        let json = run.json.clone().unwrap_or_default();
        // Every row that the table holds, with its own values; none that it does not.
        assert_eq!(rows(&out, IN_TABLE), held, "{what}: {json}");
        assert_eq!(json["integrity_check"], serde_json::json!(["ok"]), "{what}: {json}");
        if !orphaned.is_empty() {
            assert_eq!(run.code, 4, "{what}: {json}");
            let manifest = std::fs::read(json["loss_manifest"].as_str().unwrap()).unwrap();
            let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
            let table = &manifest["tables"][0];
            let ids: Vec<i64> = table["contradicted"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|span| span[0].as_i64().unwrap()..=span[1].as_i64().unwrap())
                .collect();
            assert_eq!(ids, orphaned.clone().collect::<Vec<_>>(), "{what}: {table}");
            assert_eq!(table["lost_at_most"].as_u64(), Some(ids.len() as u64), "{what}: {table}");
        }
        tried += 1;
    }
    assert_eq!(tried, 4);
}
