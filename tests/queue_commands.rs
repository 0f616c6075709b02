//! `queue` from the command line: figures as the agent's own, export and import that change nothing on the way, the shapes
//! of the documented script, and every bad input told with nothing lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::path::PathBuf;

use rusqlite::Connection;
use support::agent::python;
use support::site::{CONFIG, Run, Site, changed};

fn site() -> Site {
    let site = Site::bare();
    let queue = "[[database]]\nname = \"sync_queue\"\nkind = \"queue\"\npath = \"/var/lib/pyvorin/sync_queue.db\"\n";
    std::fs::write(site.config(), format!("{CONFIG}{queue}")).unwrap();
    site
}

fn db(site: &Site) -> PathBuf {
    site.data().join("sync_queue.db")
}

fn filled(seed: u64, count: u32) -> Site {
    let site = site();
    python(&["queue", db(&site).to_str().unwrap(), &seed.to_string(), &count.to_string()]);
    site
}

/// Every value of every row as SQL text, exact.
fn rows(site: &Site) -> Vec<String> {
    let conn = Connection::open(db(site)).unwrap();
    let sql = "SELECT id || '|' || quote(payload) || '|' || priority || '|' || printf('%!.17g', created_at) || '|' || \
               ttl_seconds || '|' || retry_count || '|' || printf('%!.17g', next_retry_at) FROM sync_queue ORDER BY id";
    let mut statement = conn.prepare(sql).unwrap();
    let rows: rusqlite::Result<Vec<String>> = statement.query_map([], |r| r.get(0)).unwrap().collect();
    rows.unwrap()
}

fn sql(site: &Site, text: &str) {
    Connection::open(db(site)).unwrap().execute_batch(text).unwrap();
}

fn json(run: &Run) -> &serde_json::Value {
    run.json.as_ref().unwrap_or_else(|| panic!("exit {}: {} {}", run.code, run.stdout, run.stderr))
}

fn told(run: &Run, code: i32, word: &str) {
    assert_eq!(run.code, code, "{word}: {} {}", run.stdout, run.stderr);
    assert!(run.stderr.contains(word) && run.stderr.contains("next: "), "{word}: {}", run.stderr);
}

fn queue(site: &Site, line: &[&str]) -> Run {
    site.run(&[&["--technician", "T-042", "queue"], line].concat())
}

#[test]
fn figures_are_those_of_the_engine_and_nothing_is_written() {
    let site = filled(1, 500);
    sql(
        &site,
        "UPDATE sync_queue SET priority = 9 WHERE id = 7; UPDATE sync_queue SET ttl_seconds = 99999999999 WHERE id < 11",
    );
    let conn = Connection::open(db(&site)).unwrap();
    let one = |text: &str| conn.query_row(text, [], |r| r.get::<_, i64>(0)).unwrap();
    let retries = one("SELECT sum(retry_count) FROM sync_queue");
    let retrying = one("SELECT count(*) FROM sync_queue WHERE retry_count > 0");
    let third = one("SELECT count(*) FROM sync_queue WHERE priority = 3");
    let expired = one("SELECT count(*) FROM sync_queue WHERE created_at + ttl_seconds < unixepoch() AND priority < 5");
    let oldest: f64 = conn.query_row("SELECT min(created_at) FROM sync_queue", [], |r| r.get(0)).unwrap();
    drop(conn);
    let before = site.tree();
    let run = site.run(&["queue", "stats"]);
    let found = json(&run);
    assert_eq!((run.code, found["depth"].as_i64(), found["invalid"].as_i64()), (4, Some(500), Some(1)), "{found}");
    assert_eq!((found["total_retries"].as_i64(), found["retrying_items"].as_i64()), (Some(retries), Some(retrying)));
    assert_eq!(
        (found["by_priority"]["3"].as_i64(), found["oldest_item_timestamp"].as_f64()),
        (Some(third), Some(oldest))
    );
    assert_eq!(found["expired"].as_i64(), Some(expired), "{found}");
    assert!(found["growing"].is_null());
    assert_eq!(changed(&before, &site.tree()), Vec::<PathBuf>::new());
}

#[test]
fn the_history_is_written_once_an_hour_and_only_when_asked() {
    let site = filled(2, 20);
    assert_eq!(json(&site.run(&["queue", "stats", "--record"]))["notes"], 0);
    let history = site.root().join("var/lib/pyvorin-recovery/queue-history");
    let first = std::fs::read(&history).unwrap();
    sql(&site, "DELETE FROM sync_queue WHERE id = 1");
    assert_eq!(json(&site.run(&["queue", "stats", "--record"]))["notes"], 1);
    assert_eq!(std::fs::read(&history).unwrap(), first);
}

#[test]
fn metrics_tell_the_queue_and_the_audit_chain_in_the_text_format() {
    let site = filled(10, 40);
    python(&["write", site.db().to_str().unwrap(), "1", "15", "0", "zeros"]);
    let report = r#"{"schema":"pyvorin-recovery/boot/1","ending":"continue","slot":"A","reason":"","elapsed_ms":3,"databases":[],
        "filesystem":[],"stick":null,"button":"none","steps":[],"cause":"none"}"#;
    std::fs::write(site.root().join("run/pyvorin-recovery/report.json"), report).unwrap();
    let before = site.tree();
    let (config, root) = (site.config(), site.root());
    let run = support::site::run(&[
        "--config",
        config.to_str().unwrap(),
        "--root",
        root.to_str().unwrap(),
        "status",
        "--metrics",
    ]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(changed(&before, &site.tree()), Vec::<PathBuf>::new());
    let mut known = String::new();
    for line in run.stdout.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            known = rest.strip_suffix(" gauge").unwrap().to_string();
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(name.split('{').next().unwrap(), known, "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    for sample in
        ["queue_depth 40", "audit_records 15", "audit_bad 0", "audit_waiting 0", "queue_damaged 0", "journal_broken 0"]
    {
        assert!(run.stdout.contains(&format!("\npyvorin_recovery_{sample}\n")), "{sample}: {}", run.stdout);
    }
}

#[test]
fn a_queue_in_use_is_read_and_not_changed() {
    let site = filled(3, 50);
    let agent = Connection::open(db(&site)).unwrap();
    agent.execute("UPDATE sync_queue SET retry_count = 7 WHERE id = 3", []).unwrap();
    let found = site.run(&["queue", "stats"]);
    assert_eq!((found.code, json(&found)["depth"].as_i64()), (0, Some(50)));
    let before = site.tree();
    let file = site.root().join("rows.jsonl");
    std::fs::write(&file, "{\"id\":900,\"payload\":\"{}\",\"priority\":1,\"created_at\":1.0,\"ttl_seconds\":5}\n")
        .unwrap();
    told(&queue(&site, &["import", file.to_str().unwrap()]), 8, "is open in");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(changed(&before, &site.tree()).iter().filter(|p| p.starts_with("var")).count(), 0);
    drop(agent);
}

#[test]
fn rows_go_out_and_come_back_exactly() {
    let site = filled(4, 300);
    let before = rows(&site);
    let file = site.root().join("out.jsonl");
    let run = queue(&site, &["export", file.to_str().unwrap()]);
    assert_eq!((run.code, json(&run)["exported"].as_i64()), (0, Some(300)), "{}", run.stdout);
    told(&queue(&site, &["export", file.to_str().unwrap()]), 8, "there already");
    // Into the same queue without a third of its rows; into one that does not exist.
    sql(&site, "DELETE FROM sync_queue WHERE id % 3 = 0");
    let run = queue(&site, &["import", "--plan", file.to_str().unwrap()]);
    assert_eq!((json(&run)["loaded"].as_i64(), rows(&site).len()), (Some(100), 200), "{}", run.stdout);
    let run = queue(&site, &["import", file.to_str().unwrap()]);
    let found = json(&run);
    assert_eq!((run.code, found["loaded"].as_i64(), found["rejected"].as_i64()), (4, Some(100), Some(200)), "{found}");
    assert_eq!((found["strayed"].as_i64(), rows(&site)), (Some(100), before.clone()));
    let rejected = std::fs::read_to_string(format!("{}.rejected", file.display())).unwrap();
    assert!(rejected.lines().count() == 200 && rejected.contains("is there already"), "{rejected}");
    let other = self::site();
    let run = queue(&other, &["import", file.to_str().unwrap()]);
    assert_eq!(run.code, 8, "the file of the rejected is there: {}", run.stderr);
    std::fs::remove_file(format!("{}.rejected", file.display())).unwrap();
    let run = queue(&other, &["import", file.to_str().unwrap()]);
    assert_eq!((run.code, rows(&other)), (0, before), "{} {}", run.stdout, run.stderr);
    let conn = Connection::open(db(&other)).unwrap();
    let seq: i64 = conn.query_row("SELECT seq FROM sqlite_sequence", [], |r| r.get(0)).unwrap();
    assert_eq!(seq, 300);
}

#[test]
fn what_the_documented_script_exports_is_imported() {
    let site = filled(5, 60);
    let before = rows(&site);
    let conn = Connection::open(db(&site)).unwrap();
    let expression = "json_object(\n'id', id,\n'payload', payload,\n'priority', priority,\n'created_at', created_at,\n\
                      'ttl_seconds', ttl_seconds,\n'retry_count', retry_count,\n'next_retry_at', next_retry_at\n)";
    let mut statement = conn.prepare(&format!("SELECT {expression} FROM sync_queue")).unwrap();
    let texts: Vec<String> = statement.query_map([], |r| r.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    drop(statement);
    drop(conn);
    let key = serde_json::to_string(expression).unwrap();
    let one = |text: &String| format!("{{{key}:{}}}", serde_json::to_string(text).unwrap());
    let array = format!("[{}]\n", texts.iter().map(one).collect::<Vec<_>>().join(",\n"));
    for (text, count) in [(array.clone(), 60), (array[..array.len() * 2 / 3].to_string(), 39)] {
        let other = self::site();
        let file = other.root().join("queue_export.jsonl");
        std::fs::write(&file, text).unwrap();
        let run = queue(&other, &["import", file.to_str().unwrap()]);
        let loaded = json(&run)["loaded"].as_u64().unwrap();
        assert!(loaded >= count && loaded <= 60, "{loaded} {}", run.stdout);
        assert_eq!(run.code, if count == 60 { 0 } else { 4 }, "{}", run.stdout);
        // The script prints times with 15 digits; everything else is as it was.
        let strip = |row: &String| {
            row.split('|')
                .enumerate()
                .filter(|(i, _)| ![3, 6].contains(i))
                .map(|(_, p)| p.to_string())
                .collect::<Vec<_>>()
        };
        let now: Vec<_> = rows(&other).iter().map(strip).collect();
        assert_eq!(now, before.iter().take(now.len()).map(strip).collect::<Vec<_>>());
    }
}

#[test]
fn a_damaged_queue_is_rebuilt_in_one_operation() {
    let site = filled(6, 800);
    let before = rows(&site);
    let mut bytes = std::fs::read(db(&site)).unwrap();
    bytes[4 * 4096..4 * 4096 + 700].fill(0x55);
    std::fs::write(db(&site), &bytes).unwrap();
    let tree = site.tree();
    let run = queue(&site, &["repair", "--plan"]);
    assert_eq!((run.code, json(&run)["action"].as_str()), (0, Some("rebuilt")), "{}", run.stdout);
    assert_eq!(changed(&tree, &site.tree()), Vec::<PathBuf>::new());
    let run = queue(&site, &["repair"]);
    let found = json(&run).clone();
    assert_eq!((run.code, found["action"].as_str()), (5, Some("rebuilt")), "{found} {}", run.stderr);
    let original = PathBuf::from(found["original"].as_str().unwrap());
    assert!(original.file_name().unwrap().to_string_lossy().starts_with("sync_queue.db.corrupt."), "{found}");
    assert_eq!(std::fs::read(&original).unwrap(), bytes);
    let now = rows(&site);
    assert!(now.len() > 700 && now.iter().all(|row| before.contains(row)), "{}", now.len());
    let run = queue(&site, &["repair"]);
    assert_eq!((run.code, json(&run)["action"].as_str()), (0, Some("none")), "{}", run.stdout);
    let shown = site.run(&["audit", "show"]);
    let journal = shown.json.as_ref().unwrap()["journal"].clone();
    assert_eq!(
        (journal[0]["event"].as_str(), journal[0]["by"].as_str()),
        (Some("rebuild"), Some("T-042")),
        "{journal}"
    );
}

#[test]
fn a_queue_of_another_schema_keeps_its_columns_or_is_refused() {
    // Other order, an extra column, an extra index: rebuilt as it was.
    let site = self::site();
    sql(&site, "CREATE TABLE sync_queue (site TEXT, payload TEXT, id INTEGER PRIMARY KEY AUTOINCREMENT, next_retry_at REAL DEFAULT 0, \
         priority INTEGER, created_at REAL, ttl_seconds INTEGER, retry_count INTEGER DEFAULT 0); CREATE INDEX by_site ON sync_queue(site);
         INSERT INTO sync_queue (site, payload, priority, created_at, ttl_seconds) VALUES ('north', '{\"a\":1}', 1, 1e9, 60), ('süd', '{}', 2, 1e9+0.5, 60), ('x', '[]', 2, 5, 60)");
    let run = queue(&site, &["repair"]);
    assert_eq!(run.code, 5, "{} {}", run.stdout, run.stderr);
    let conn = Connection::open(db(&site)).unwrap();
    let sites: String =
        conn.query_row("SELECT group_concat(site) FROM sync_queue INDEXED BY by_site", [], |r| r.get(0)).unwrap();
    assert_eq!(sites, "north,süd");
    drop(conn);
    // No such columns, no such table, another table beside it.
    let cases = [
        ("CREATE TABLE sync_queue (a, b)", "repair", 0),
        ("CREATE TABLE other (a)", "export", 8),
        ("CREATE TABLE other (a)", "import", 8),
    ];
    for (schema, verb, code) in cases {
        let site = self::site();
        sql(&site, schema);
        let file = site.root().join("f.jsonl");
        if verb == "import" {
            std::fs::write(
                &file,
                "{\"id\":9,\"payload\":\"{}\",\"priority\":1,\"created_at\":1.0,\"ttl_seconds\":5}\n",
            )
            .unwrap();
        }
        let name = file.to_str().unwrap();
        let run = if verb == "repair" { queue(&site, &[verb]) } else { queue(&site, &[verb, name]) };
        assert_eq!(run.code, code, "{schema} {verb}: {} {}", run.stdout, run.stderr);
    }
    let site = filled(7, 10);
    sql(&site, "CREATE TABLE notes (a); INSERT INTO notes VALUES (1); UPDATE sync_queue SET priority = 0 WHERE id = 1");
    told(&queue(&site, &["repair"]), 8, "other tables");
}

#[test]
fn bad_input_is_told_and_nothing_is_lost() {
    let site = filled(8, 20);
    let before = rows(&site);
    told(&queue(&site, &["import", "/nonexistent.jsonl"]), 8, "cannot read the rows");
    told(&queue(&site, &["export", "/nonexistent/dir/file"]), 8, "cannot write");
    let file = site.root().join("bad.jsonl");
    std::fs::write(&file, "not json\n{\"id\":1}\n").unwrap();
    let run = queue(&site, &["import", file.to_str().unwrap()]);
    assert_eq!((run.code, json(&run)["rejected"].as_i64(), json(&run)["action"].as_str()), (4, Some(2), Some("none")));
    let told_lines = std::fs::read_to_string(format!("{}.rejected", file.display())).unwrap();
    assert!(told_lines.contains("no JSON") && told_lines.contains("payload is missing"), "{told_lines}");
    assert_eq!(rows(&site), before);
    // Damage: import refuses and names the cure.
    let mut bytes = std::fs::read(db(&site)).unwrap();
    bytes[4096..4200].fill(0xff);
    std::fs::write(db(&site), &bytes).unwrap();
    let good = site.root().join("good.jsonl");
    std::fs::write(&good, "{\"id\":900,\"payload\":\"{}\",\"priority\":1,\"created_at\":1.0,\"ttl_seconds\":5}\n")
        .unwrap();
    told(&queue(&site, &["import", good.to_str().unwrap()]), 8, "queue repair");
    // No queue at all.
    let site = self::site();
    let run = site.run(&["queue", "stats"]);
    assert_eq!((run.code, json(&run)["depth"].as_i64()), (0, Some(0)), "{}", run.stdout);
    told(&queue(&site, &["export", "/tmp/never-written.jsonl"]), 8, "cannot export");
    assert_eq!(queue(&site, &["repair"]).code, 0);
    // A transaction of a rollback journal, cut off half way.
    let site = self::site();
    sql(
        &site,
        "PRAGMA cache_size = 2; CREATE TABLE sync_queue (id INTEGER PRIMARY KEY AUTOINCREMENT, payload TEXT, priority INTEGER, \
         created_at REAL, ttl_seconds INTEGER, retry_count INTEGER, next_retry_at REAL)",
    );
    let agent = Connection::open(db(&site)).unwrap();
    agent.execute_batch("PRAGMA cache_size = 2; PRAGMA cache_spill = 1; BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) \
         INSERT INTO sync_queue SELECT i, '{}', 1, i, 5, 0, 0 FROM n").unwrap();
    let killed = self::site();
    for suffix in ["", "-journal"] {
        std::fs::copy(support::crash::side(&db(&site), suffix), support::crash::side(&db(&killed), suffix)).unwrap();
    }
    let before = killed.tree();
    let file = killed.root().join("out.jsonl");
    for line in [&["repair"][..], &["export", file.to_str().unwrap()]] {
        told(&queue(&killed, line), 8, "waits in it to be taken back");
    }
    assert_eq!(changed(&before, &killed.tree()), Vec::<PathBuf>::new());
    drop(agent);
    // A second instance.
    let site = filled(9, 5);
    let state = std::fs::File::open(site.root().join("var/lib/pyvorin-recovery")).unwrap();
    let held = nix::fcntl::Flock::lock(state, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
    told(&queue(&site, &["repair"]), 8, "another pyvorin-recovery");
    drop(held);
}
