//! `reset` from the command line: what is kept is kept byte for byte, what goes is preserved byte for byte, the audit chain
//! goes on, and every reason not to do it changes nothing. What proves it are sentinels, not a verdict.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use support::agent::{audit_rows, python};
use support::site::{CONFIG, Run, Site, changed};

const QUEUE: &str =
    "[[database]]\nname = \"sync_queue\"\nkind = \"queue\"\npath = \"/var/lib/pyvorin/sync_queue.db\"\n";
const KEPT: [&str; 9] = [
    "var/lib/pyvorin-recovery/keys/restore.key",
    "var/lib/pyvorin-recovery/device-id",
    "var/lib/pyvorin-recovery/tickets-used",
    "var/lib/pyvorin-recovery/time-floor",
    "var/lib/pyvorin/backups/pyvorin-x-20260101-7.tar.zst.age",
    "var/lib/pyvorin/quarantine/1-edge_store-x/edge_store.db",
    "var/lib/pyvorin/config/certs/client.pem",
    "var/lib/pyvorin/config/bundles/main/trust_anchor.json",
    "etc/pyvorin/config.toml",
];
const CONFIGURATION: [&str; 2] = ["var/lib/pyvorin/config/config.toml", "var/lib/pyvorin/config/d/sensors.toml"];

/// A gateway with a chain of 30 records, readings, 40 unsent messages, and a sentinel in every place that is kept.
fn site() -> Site {
    let site = Site::bare();
    configure(&site, "");
    python(&["write", site.db().to_str().unwrap(), "1", "30", "3", "zeros"]);
    let conn = Connection::open(site.db()).unwrap();
    conn.execute_batch(
        "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, sensor TEXT NOT NULL, at REAL, value REAL CHECK (value < 1e9));
         CREATE INDEX by_time ON readings(sensor, at); CREATE VIEW newest AS SELECT max(at) FROM readings;
         CREATE TRIGGER t AFTER INSERT ON readings BEGIN SELECT 1; END; PRAGMA user_version = 7;",
    )
    .unwrap();
    (0..500).for_each(|i| {
        conn.execute("INSERT INTO readings (sensor, at, value) VALUES ('a', ?1, 1.5)", [i]).unwrap();
    });
    conn.close().unwrap();
    python(&["queue", queue(&site).to_str().unwrap(), "1", "40"]);
    for (n, path) in KEPT.iter().chain(&CONFIGURATION).enumerate() {
        let path = site.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("sentinel {n} {}", "é".repeat(n * 300))).unwrap();
    }
    site
}

fn configure(site: &Site, more: &str) {
    let config = "[backup]\nconfig = [\"/etc/pyvorin\", \"/var/lib/pyvorin/config\"]\n";
    std::fs::write(site.config(), format!("{config}{more}{CONFIG}{QUEUE}")).unwrap();
}

fn queue(site: &Site) -> PathBuf {
    site.data().join("sync_queue.db")
}

fn reset(site: &Site, line: &[&str]) -> Run {
    site.run(&[&["--technician", "T-042", "reset"], line].concat())
}

fn sentinels(site: &Site, names: &[&str]) -> BTreeMap<String, Vec<u8>> {
    names.iter().map(|n| ((*n).to_string(), std::fs::read(site.root().join(n)).unwrap())).collect()
}

fn count(path: &Path, table: &str) -> i64 {
    Connection::open(path).unwrap().query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0)).unwrap()
}

fn schema(path: &Path) -> Vec<(String, String)> {
    let conn = Connection::open(path).unwrap();
    let sql = "SELECT name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name";
    let mut statement = conn.prepare(sql).unwrap();
    let rows: rusqlite::Result<Vec<_>> = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap().collect();
    rows.unwrap()
}

/// Every byte of every file, by content: what was there must still be somewhere.
fn preserved(site: &Site, originals: &[Vec<u8>]) {
    let after = site.tree();
    for bytes in originals {
        assert!(after.values().any(|e| e.0 == 'f' && e.4 == *bytes), "{} bytes are gone", bytes.len());
    }
}

fn refused(site: &Site, run: &Run, before: &support::site::Tree, word: &str) {
    assert_eq!(run.code, 8, "{word}: {} {}", run.stdout, run.stderr);
    assert!(run.stderr.contains(word) && run.stderr.contains("next: "), "{word}: {}", run.stderr);
    let ours = |p: &PathBuf| !p.ends_with("trials") && !p.ends_with("pyvorin-recovery") && !p.ends_with("pyvorin");
    let mut moved = changed(before, &site.tree());
    moved.retain(|p| ours(p) && !p.to_string_lossy().contains("quarantine") && !p.ends_with(".stage"));
    assert_eq!(moved, Vec::<PathBuf>::new(), "{word}");
}

#[test]
fn each_tier_empties_what_it_says_and_keeps_every_sentinel() {
    for tier in ["queue", "data", "full"] {
        let site = site();
        let kept = sentinels(&site, &KEPT);
        let configuration = sentinels(&site, &CONFIGURATION);
        let old = [site.db(), queue(&site)].map(|p| std::fs::read(p).unwrap());
        let (before_store, before_queue) = (schema(&site.db()), schema(&queue(&site)));
        let chain = audit_rows(&site.db());
        let run = reset(&site, &["--tier", tier]);
        let left = tier == "full"; // /etc/pyvorin is not on the data volume, and the receipt says so
        assert_eq!(run.code, if left { 4 } else { 0 }, "{tier}: {} {}", run.stdout, run.stderr);
        let told = run.json.as_ref().unwrap();
        assert_eq!(
            (told["state"].as_str(), told["loss"].as_bool(), told["waiting"].as_i64()),
            (Some("done"), Some(false), Some(0))
        );
        assert_eq!(sentinels(&site, &KEPT), kept, "{tier}");
        assert_eq!(count(&queue(&site), "sync_queue"), 0);
        assert_eq!(schema(&queue(&site)), before_queue);
        assert_eq!(schema(&site.db()), before_store);
        if tier == "queue" {
            assert_eq!(count(&site.db(), "readings"), 500);
            assert_eq!(audit_rows(&site.db())[..30], chain[..], "the chain goes on");
            preserved(&site, &old[1..]);
        } else {
            assert_eq!(count(&site.db(), "readings"), 0);
            let version: i64 =
                Connection::open(site.db()).unwrap().query_row("PRAGMA user_version", [], |r| r.get(0)).unwrap();
            assert_eq!(version, 7);
            preserved(&site, &old);
        }
        if tier == "full" {
            CONFIGURATION.iter().for_each(|c| assert!(!site.root().join(c).exists(), "{c}"));
            preserved(&site, &configuration.into_values().collect::<Vec<_>>());
            assert!(told["left"][0].as_str().unwrap().contains("/etc/pyvorin"), "{told}");
        } else {
            assert_eq!(sentinels(&site, &CONFIGURATION), configuration);
        }
        // The receipt, for machines and for people.
        let receipt = PathBuf::from(told["receipt"].as_str().unwrap());
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&receipt).unwrap()).unwrap();
        assert_eq!((json["technician"].as_str(), json["tier"].as_str()), (Some("T-042"), Some(tier)));
        assert_eq!(&json, &told["document"]);
        let text = std::fs::read_to_string(receipt.with_extension("txt")).unwrap();
        for word in
            ["T-042", tier, json["quarantine"].as_str().unwrap(), "Everything that was taken away is preserved."]
        {
            assert!(text.contains(word), "{word}: {text}");
        }
        for d in json["databases"].as_array().unwrap() {
            for file in d["originals"].as_array().unwrap() {
                assert!(text.contains(file["sha256"].as_str().unwrap()));
            }
        }
        assert!(!site.data().join(".pyvorin-intent").exists());
        assert!(!site.root().join("var/lib/pyvorin-recovery/intent").exists());
        let check = site.run(&["check"]);
        assert_eq!(check.code, 0, "{}", check.stdout);
    }
}

#[test]
fn the_audit_chain_goes_on_with_an_entry_that_cites_the_old_head() {
    for (dialect, genesis) in [("0", "zeros"), ("3", "empty"), ("9", "null"), ("14", "word")] {
        let site = site();
        std::fs::remove_file(site.db()).unwrap();
        let db = site.db();
        python(&["write", db.to_str().unwrap(), "5", "25", dialect, genesis]);
        let old = audit_rows(&db).pop().unwrap();
        let run = reset(&site, &[]);
        assert_eq!(run.code, 0, "{} {}", run.stdout, run.stderr);
        let rows = audit_rows(&db);
        assert_eq!(rows.len(), 1);
        let text = |v: &rusqlite::types::Value| match v {
            rusqlite::types::Value::Text(t) => t.clone(),
            other => format!("{other:?}"),
        };
        assert_eq!(text(&rows[0].2), "factory_reset");
        let details: serde_json::Value = serde_json::from_str(&text(&rows[0].3)).unwrap();
        assert_eq!(details["old_head"]["id"].as_i64(), Some(old.0));
        assert_eq!(details["old_head"]["hash"].as_str(), Some(text(&old.5).as_str()));
        assert_eq!((details["technician"].as_str(), details["tier"].as_str()), (Some("T-042"), Some("data")));
        // The agent's own model takes the chain as its own, and goes on behind the entry.
        let verified = python(&["verify", db.to_str().unwrap(), dialect]);
        assert!(verified.starts_with("ok 1 "), "{dialect} {genesis}: {verified}");
        python(&["write", db.to_str().unwrap(), "6", "3", dialect, genesis]);
        assert!(python(&["verify", db.to_str().unwrap(), dialect]).starts_with("ok 4 "));
        let verify = site.run(&["audit", "verify"]);
        let chain = &verify.json.as_ref().unwrap()["chain"];
        assert_eq!((verify.code, chain["state"].as_str()), (0, Some("intact")), "{}", verify.stdout);
        let remark = chain["remarks"].to_string();
        assert!(remark.contains("began a new chain"), "{remark}");
        // A head from before the reset, kept elsewhere, is not borne out, and that is said.
        let second = reset(&site, &[]);
        assert_eq!(second.code, 0, "{}", second.stderr);
        assert!(python(&["verify", db.to_str().unwrap(), dialect]).starts_with("ok 1 "));
    }
}

#[test]
fn where_the_agent_is_to_create_the_databases_none_is_left() {
    let site = site();
    configure(&site, "[reset]\ndatabases = \"leave\"\n");
    let old = [site.db(), queue(&site)].map(|p| std::fs::read(p).unwrap());
    let run = reset(&site, &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(!site.db().exists() && !queue(&site).exists());
    preserved(&site, &old);
    assert_eq!(run.json.unwrap()["waiting"].as_i64(), Some(1));
    // The agent makes its databases; the entry is folded in at the next start of the OS.
    python(&["write", site.db().to_str().unwrap(), "1", "0", "3", "zeros"]);
    let fold = site.run(&["audit", "fold"]);
    assert_eq!((fold.code, fold.json.unwrap()["folded"].as_i64()), (0, Some(1)), "{}", fold.stderr);
    assert!(python(&["verify", site.db().to_str().unwrap(), "3"]).starts_with("ok 1 "));
}

#[test]
fn damaged_databases_are_reset_too_with_the_schema_of_the_last_good_one() {
    let site = site();
    // What mark-good keeps in a booted system.
    let want = schema(&site.db());
    keep_schemas(&site);
    for path in [site.db(), queue(&site)] {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[..4096].fill(0x5a);
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::write(site.side("-wal"), vec![7; 5000]).unwrap();
    let old = [site.db(), queue(&site), site.side("-wal")].map(|p| std::fs::read(p).unwrap());
    let run = reset(&site, &[]);
    assert_eq!(run.code, 0, "{} {}", run.stdout, run.stderr);
    preserved(&site, &old);
    assert_eq!(schema(&site.db()), want);
    assert_eq!(count(&queue(&site), "sync_queue"), 0);
    let told = run.json.unwrap();
    let from: Vec<_> =
        told["document"]["databases"].as_array().unwrap().iter().map(|d| d["schema_from"].as_str()).collect();
    assert_eq!(from, [Some("last good boot"), Some("last good boot")]);
    assert!(told["document"]["old_chain"]["head"].is_null() && !told["document"]["old_chain"]["trouble"].is_null());
}

/// Through the library, as `slot mark-good` does.
fn keep_schemas(site: &Site) {
    use pyvorin_recovery::{boot::saved, config, edge::linux::LinuxMachine};
    let text = std::fs::read_to_string(site.config()).unwrap();
    let settings = config::parse(&text).unwrap().under_root(&site.root());
    let mut machine = LinuxMachine::new(vec![], Box::new(|_| {}));
    assert_eq!(saved::keep(&mut machine, &settings).unwrap().len(), 2);
}

#[test]
fn what_cannot_be_preserved_stops_it_unless_the_loss_is_accepted() {
    // A directory in the place of the log: nothing of ours can take it away or preserve it.
    let site = site();
    std::fs::create_dir(site.data().join("sync_queue.db-journal")).unwrap();
    let before = site.tree();
    refused(&site, &reset(&site, &[]), &before, "cannot be preserved");
    std::fs::remove_dir(site.data().join("sync_queue.db-journal")).unwrap();
    assert_eq!(reset(&site, &[]).code, 0);
}

#[test]
fn every_reason_not_to_do_it_is_told_and_changes_nothing() {
    let site = site();
    let before = site.tree();
    let nobody = site.run(&["reset"]);
    assert_eq!(nobody.code, 16);
    assert!(nobody.stderr.contains("--technician"), "{}", nobody.stderr);
    for line in [&["reset", "--tier", "all"][..], &["reset", "now"], &["check", "--accept-loss"]] {
        assert_eq!(site.run(&[&["--technician", "T"], line].concat()).code, 16, "{line:?}");
    }
    let plan = site.run(&["reset", "--plan"]);
    assert_eq!(plan.code, 0);
    assert!(plan.stdout.contains("\"step\": \"reset\""), "{}", plan.stdout);
    assert_eq!(changed(&before, &site.tree()), Vec::<PathBuf>::new());

    // Somebody has it open.
    let file = std::fs::File::open(queue(&site)).unwrap();
    let mut holder = std::process::Command::new("sleep").arg("30").stdin(file).spawn().unwrap();
    refused(&site, &reset(&site, &[]), &before, "is open in sleep");
    holder.kill().unwrap();
    holder.wait().unwrap();

    // No directory for the journal and the receipt.
    let other = crate::site();
    std::fs::remove_dir_all(other.root().join("var/lib/pyvorin-recovery")).unwrap();
    std::fs::write(other.root().join("var/lib/pyvorin-recovery"), "x").unwrap();
    let before = other.tree();
    refused(&other, &reset(&other, &[]), &before, "pyvorin-recovery");
}

#[test]
fn the_quarantine_of_resets_is_bounded() {
    let site = site();
    for _ in 0..5 {
        assert_eq!(reset(&site, &["--tier", "queue"]).code, 0);
        // Operations are named by the second.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    let names: Vec<_> =
        std::fs::read_dir(site.data().join("quarantine")).unwrap().map(|e| e.unwrap().file_name()).collect();
    let resets = names.iter().filter(|n| n.to_string_lossy().contains("-reset-")).count();
    assert_eq!(resets, 2, "{names:?}");
    assert!(site.root().join(KEPT[5]).exists());
}
