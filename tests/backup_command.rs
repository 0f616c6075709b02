//! Backups from the outside: what Debian's own age, zstd, tar and minisign say of them, what a running writer sees of them,
//! what comes back, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret;
use rusqlite::Connection;
use support::agent::python;
use support::archive::{Desk, archives, desk, pipe, text};
use support::rng::Rng;
use support::site::{Scratch, changed};

const STORE: &str = "
CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, sensor_name TEXT NOT NULL, timestamp REAL NOT NULL,
  value REAL NOT NULL, unit TEXT, metadata TEXT);
CREATE INDEX idx_readings_sensor_time ON readings(sensor_name, timestamp);
";

fn open(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(Duration::from_secs(20)).unwrap();
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
    conn.execute_batch("PRAGMA synchronous = NORMAL").unwrap();
    conn
}

fn put(conn: &Connection, rows: u32, rng: &mut Rng) {
    conn.execute_batch("BEGIN").unwrap();
    for n in 0..rows {
        let values = (format!("temp.{}", rng.below(5)), 1.7e9 + f64::from(n), rng.below(10_000) as f64 / 7.0);
        conn.execute("INSERT INTO readings(sensor_name, timestamp, value) VALUES (?1, ?2, ?3)", values).unwrap();
    }
    conn.execute_batch("COMMIT").unwrap();
}

/// A gateway whose agent is stopped: a store, an audit chain in it, a queue.
fn filled(more: &str, rows: u32) -> Desk {
    let desk = desk(more);
    let store = desk.site.db();
    python(&["write", text(&store), "5", "40", "0", "zeros"]);
    let conn = open(&store);
    conn.execute_batch(STORE).unwrap();
    put(&conn, rows, &mut Rng::new(7));
    python(&["queue", text(&desk.site.data().join("sync_queue.db")), "3", "120"]);
    desk
}

fn dump(db: &Path) -> BTreeMap<String, Vec<String>> {
    let conn = Connection::open(db).unwrap();
    let mut all = BTreeMap::new();
    for table in ["readings", "privacy_audit", "sync_queue"] {
        let Ok(mut statement) = conn.prepare(&format!("SELECT * FROM {table} ORDER BY id")) else { continue };
        let columns = statement.column_count();
        let row = |r: &rusqlite::Row<'_>| {
            let cells: Vec<_> =
                (0..columns).map(|i| r.get::<_, rusqlite::types::Value>(i)).collect::<Result<_, _>>()?;
            Ok(format!("{cells:?}"))
        };
        all.insert(table.to_string(), statement.query_map([], row).unwrap().map(Result::unwrap).collect());
    }
    all
}

/// Everything is as it was, and the agent's chain goes on behind it.
fn same_and_bridged(now: &BTreeMap<String, Vec<String>>, then: &BTreeMap<String, Vec<String>>) -> bool {
    let bridged = |table: &str, rows: &[String], was: &[String]| match table {
        "privacy_audit" => rows.len() > was.len() && rows.starts_with(was),
        _ => rows == was,
    };
    now.len() == then.len()
        && now.iter().all(|(table, rows)| then.get(table).is_some_and(|was| bridged(table, rows, was)))
}

fn create(desk: &Desk, more: &[&str]) -> serde_json::Value {
    let run = desk.site.run(&[&["backup", "create"], more].concat());
    assert_eq!(run.code, 0, "{} {}", run.stdout, run.stderr);
    run.json.unwrap()
}

#[test]
fn debians_age_zstd_tar_and_minisign_open_what_we_write_and_we_open_what_they_write() {
    let desk = filled("config = [\"/etc/pyvorin\"]", 3000);
    let etc = desk.site.root().join("etc/pyvorin");
    std::fs::create_dir_all(etc.join("certs")).unwrap();
    for (name, text) in
        [("agent.toml", "a = 1"), ("certs/device.pem", "PRIVATE"), ("recovery.toml", "x"), ("keyring.json", "{}")]
    {
        std::fs::write(etc.join(name), text).unwrap();
    }
    let before = (dump(&desk.site.db()), desk.site.tree());
    let made = create(&desk, &[]);
    let after = desk.site.tree();
    for name in changed(&before.1, &after) {
        let ours = ["var/lib/pyvorin/backups", "var/lib/pyvorin-recovery"].iter().any(|d| name.starts_with(d));
        assert!(ours || name.as_path() == Path::new("var/lib/pyvorin"), "{name:?} was changed");
    }
    let archive = archives(&desk.site).pop().unwrap();
    assert_eq!(made["archive"].as_str(), archive.to_str());
    // Theirs.
    let escrow = desk.site.config().with_file_name("escrow.key");
    std::fs::write(&escrow, desk.escrow.to_string().expose_secret()).unwrap();
    let out = Scratch::new("unpacked");
    let bytes = std::fs::read(&archive).unwrap();
    let plain = pipe("age", &["-d", "-i", text(&escrow)], &bytes);
    let tar = pipe("zstd", &["-dq"], &plain);
    pipe("tar", &["xf", "-", "-C", text(out.path())], &tar);
    let names = String::from_utf8(pipe("tar", &["tf", "-"], &tar)).unwrap();
    let expected = "manifest.json\ndata/edge_store.db\ndata/sync_queue.db\nconfig/etc/pyvorin/agent.toml\n";
    assert_eq!(names, expected, "certificates, keyring and our own configuration are never members");
    assert_eq!(dump(&out.path().join("data/edge_store.db")), before.0);
    assert!(!bytes.windows(13).any(|w| w == b"SQLite format"), "it is not encrypted");
    let key = desk.site.config().with_file_name("device.pub");
    let shown = desk.site.run(&["key", "show"]).json.unwrap();
    std::fs::write(&key, format!("untrusted comment: x\n{}\n", shown["signing_key"].as_str().unwrap())).unwrap();
    pipe("minisign", &["-V", "-p", text(&key), "-m", text(&archive)], b"");
    // Ours.
    let packed = pipe(
        "tar",
        &[
            "--format=ustar",
            "-C",
            text(out.path()),
            "-cf",
            "-",
            "manifest.json",
            "data/edge_store.db",
            "data/sync_queue.db",
            "config/etc/pyvorin/agent.toml",
        ],
        b"",
    );
    for level in ["-1", "-19"] {
        let theirs = out.path().join("theirs.tar.zst.age");
        let operations = desk.operations.to_public().to_string();
        std::fs::write(&theirs, pipe("age", &["-r", &operations], &pipe("zstd", &["-q", level], &packed))).unwrap();
        let run = desk.site.run(&["backup", "verify", "--identity", text(&desk.identity), text(&theirs)]);
        let said = run.json.unwrap();
        assert_eq!((said["contents"].as_bool(), said["signature"].as_str()), (Some(true), Some("missing")), "{said}");
        assert_eq!(run.code, 4, "a backup without a signature passes for a good one");
    }
}

/// A writer without pauses; the sum of every committed state is 0, and rows are never removed.
fn write_until(path: &Path, stop: &AtomicBool, pause: bool) -> Vec<u64> {
    let conn = open(path);
    conn.execute_batch("CREATE TABLE IF NOT EXISTS moves (id INTEGER PRIMARY KEY, amount INTEGER)").unwrap();
    let mut rng = Rng::new(3);
    let mut micros = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let amount = rng.below(1000) as i64;
        let begun = Instant::now();
        conn.execute_batch(&format!(
            "BEGIN; INSERT INTO moves(amount) VALUES ({amount}); INSERT INTO moves(amount) VALUES (-{amount}); COMMIT"
        ))
        .unwrap();
        micros.push(begun.elapsed().as_micros() as u64);
        if pause {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    micros
}

/// Ends the writer, also where an assertion beside it fails: the scope waits for it.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn backups_beside_a_writer(count: usize, pause: bool) -> (Vec<u64>, u64) {
    let desk = desk("increments = 3");
    let store = desk.site.db();
    {
        let conn = open(&store);
        conn.execute_batch(STORE).unwrap();
        put(&conn, 4000, &mut Rng::new(1));
    }
    let stop = AtomicBool::new(false);
    let (micros, mut counts) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(&store, &stop, pause));
        let done = Stop(&stop);
        std::thread::sleep(Duration::from_millis(100));
        let mut counts: Vec<i64> = Vec::new();
        for n in 0..count {
            let run = desk.site.run(&["backup", "create"]);
            assert!(
                run.code == 0 || run.code == 4 && run.stdout.contains("sync_queue"),
                "{n}: {} {}",
                run.stdout,
                run.stderr
            );
            let made = run.json.unwrap();
            assert!(made["databases"].as_array().unwrap().iter().any(|d| d["name"] == "edge_store"), "{made}");
            let archive = made["archive"].as_str().unwrap().to_string();
            let out = Scratch::new("restored");
            let other = self::desk("");
            let restore =
                ["--technician", "T-1", "restore", "--any-device", "--identity", text(&desk.identity), &archive];
            let run = other.site.run(&restore);
            assert_eq!(run.code, 0, "{n}: {}", run.stderr);
            let conn = Connection::open(other.site.db()).unwrap();
            let said: String = conn.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
            let sum: i64 = conn.query_row("SELECT coalesce(sum(amount), 0) FROM moves", [], |r| r.get(0)).unwrap();
            let rows: i64 = conn.query_row("SELECT count(*) FROM moves", [], |r| r.get(0)).unwrap();
            let highest: i64 = conn.query_row("SELECT max(id) FROM moves", [], |r| r.get(0)).unwrap();
            assert_eq!((said.as_str(), sum, rows % 2, rows), ("ok", 0, 0, highest), "backup {n} is no committed state");
            counts.push(rows);
            drop(out);
            // Bases stay for their increments; the rest would only fill the disk.
            if made["base"].is_string() && n + 1 < count {
                std::fs::remove_file(&archive).unwrap();
            }
        }
        drop(done);
        (writer.join().unwrap(), counts)
    });
    let grew = counts.windows(2).filter(|w| w[1] > w[0]).count();
    assert!(grew > count / 2, "the writer stood still: {counts:?}");
    counts.sort_unstable();
    (micros, counts.len() as u64)
}

#[test]
fn every_backup_beside_a_writer_without_pauses_is_a_committed_state() {
    let (commits, backups) = backups_beside_a_writer(support::rounds("BACKUPS", 25) as usize, false);
    println!("{backups} backups beside {} commits", commits.len());
    assert!(commits.len() > 100);
}

#[test]
#[ignore = "the whole campaign; make bench runs it"]
fn a_thousand_backups_beside_a_writer() {
    let (commits, backups) = backups_beside_a_writer(1000, false);
    println!("{backups} backups beside {} commits", commits.len());
}

#[test]
fn an_increment_restores_with_its_base_and_chains_stay_short() {
    let desk = filled("increments = 2", 6000);
    let mut kinds = Vec::new();
    let mut rng = Rng::new(11);
    let mut states = Vec::new();
    for _ in 0..5 {
        let made = create(&desk, &[]);
        kinds.push(made["base"].is_string());
        states.push(dump(&desk.site.db()));
        put(&open(&desk.site.db()), 60, &mut rng);
    }
    assert_eq!(kinds, [false, true, true, false, true]);
    let all = archives(&desk.site);
    let sizes: Vec<u64> = all.iter().map(|p| p.metadata().unwrap().len()).collect();
    assert!(sizes[1] * 3 < sizes[0], "{sizes:?}");
    for (archive, state) in all.iter().zip(&states) {
        let run = desk.site.run(&[
            "--technician",
            "T-1",
            "restore",
            "--identity",
            text(&desk.identity),
            "--queue",
            "keep",
            text(archive),
        ]);
        assert_eq!(run.code, 4, "the queue that stays is told: {} {}", run.stdout, run.stderr);
        assert!(same_and_bridged(&dump(&desk.site.db()), state), "{archive:?}");
    }
    // Without its base, or on another one, it restores nothing.
    let elsewhere = Scratch::new("alone");
    let alone = elsewhere.path().join(all[1].file_name().unwrap());
    std::fs::copy(&all[1], &alone).unwrap();
    let beside = |path: &Path| std::path::PathBuf::from(format!("{}.minisig", path.display()));
    std::fs::copy(beside(&all[1]), beside(&alone)).unwrap();
    let before = dump(&desk.site.db());
    for (base, code) in [(None, "wrong-base"), (Some(&all[3]), "wrong-base"), (Some(&all[1]), "wrong-base")] {
        let mut arguments = vec!["--technician", "T-1", "restore", "--identity", text(&desk.identity)];
        arguments.extend(base.iter().flat_map(|b| ["--base", text(b)]));
        arguments.push(text(&alone));
        let run = desk.site.run(&arguments);
        assert!(run.code == 8 && run.stderr.contains(code), "{base:?}: {}", run.stderr);
    }
    assert_eq!(dump(&desk.site.db()), before);
}

#[test]
fn a_leftover_log_beside_the_old_database_is_never_replayed_over_the_restored_one() {
    for seed in support::seeds(1, support::rounds("RESTORES", 12)) {
        let desk = filled("", 400);
        create(&desk, &["--full"]);
        let state = dump(&desk.site.db());
        let mut rng = Rng::new(seed);
        // An agent that was killed: its files as they are, with frames that were checkpointed and frames that were not.
        let killed = {
            let conn = open(&desk.site.db());
            conn.execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
            put(&conn, rng.between(1, 400) as u32, &mut rng);
            conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
            put(&conn, rng.between(1, 400) as u32, &mut rng);
            conn.execute("UPDATE readings SET value = -1 WHERE id % 3 = 0", []).unwrap();
            desk.site.files()
        };
        killed.write(&desk.site.db());
        assert!(desk.site.side("-wal").exists(), "there is no log to be left over");
        let archive = archives(&desk.site).pop().unwrap();
        let run =
            desk.site.run(&["--technician", "T-1", "restore", "--identity", text(&desk.identity), text(&archive)]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(same_and_bridged(&dump(&desk.site.db()), &state), "seed {seed}");
        let kept = run.json.unwrap()["kept"].as_str().unwrap().to_string();
        let files = support::crash::Files::read(&Path::new(&kept).join("1-edge_store/edge_store.db"));
        assert_eq!((files.db, files.wal), (killed.db, killed.wal), "what was displaced is not what was there");
    }
}

#[test]
fn the_audit_chain_goes_on_over_a_restore_with_an_entry_that_cites_both_heads() {
    let desk = filled("", 100);
    create(&desk, &[]);
    let archive = archives(&desk.site).pop().unwrap();
    let verified = |desk: &Desk| desk.site.run(&["audit", "verify"]).json.unwrap();
    let old = verified(&desk);
    let more = desk.site.run(&["--technician", "T-2", "audit", "log", "card_replaced"]);
    assert_eq!(more.code, 0, "{}", more.stderr);
    let run = desk.site.run(&["--technician", "T-1", "restore", "--identity", text(&desk.identity), text(&archive)]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let said = verified(&desk);
    assert_eq!(desk.site.run(&["audit", "verify"]).code, 0, "{said}");
    let conn = Connection::open(desk.site.db()).unwrap();
    let entries: Vec<String> = {
        let mut statement = conn.prepare("SELECT details FROM privacy_audit ORDER BY id DESC LIMIT 4").unwrap();
        statement.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let bridge = entries.iter().find(|e| e.contains("old_chain_head")).unwrap_or_else(|| panic!("{entries:?} {old}"));
    assert!(bridge.contains("chain_head"), "{bridge}");
    assert!(python(&["verify", text(&desk.site.db()), "0"]).starts_with("ok"));
}

#[test]
fn old_messages_come_back_all_by_their_age_or_not_at_all() {
    let desk = filled("", 10);
    let queue = desk.site.data().join("sync_queue.db");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let conn = Connection::open(&queue).unwrap();
    conn.execute("UPDATE sync_queue SET created_at = ?1 - 3600.0 - 86400.0 * (id % 10)", [now]).unwrap();
    drop(conn);
    let all = dump(&queue)["sync_queue"].clone();
    create(&desk, &[]);
    let archive = archives(&desk.site).pop().unwrap();
    for (word, left) in [("all", 120), ("3", 36), ("keep", 1)] {
        let conn = Connection::open(&queue).unwrap();
        conn.execute("DELETE FROM sync_queue WHERE id > 1", []).unwrap();
        drop(conn);
        let run = desk.site.run(&[
            "--technician",
            "T-1",
            "restore",
            "--queue",
            word,
            "--identity",
            text(&desk.identity),
            text(&archive),
        ]);
        assert_eq!(run.code, if word == "keep" { 4 } else { 0 }, "{}", run.stderr);
        assert_eq!(run.json.unwrap()["queue_rows"].as_u64(), Some(if word == "keep" { 0 } else { left as u64 }));
        let rows = dump(&queue)["sync_queue"].clone();
        assert_eq!(rows.len(), left, "{word}");
        assert!(rows.iter().all(|row| all.contains(row)), "{word}: a row was changed");
    }
}

#[test]
fn what_must_be_set_up_first_is_said_and_nothing_is_written() {
    let desk = filled("", 10);
    let text = std::fs::read_to_string(desk.site.config()).unwrap();
    let one = text.replace(&format!(", \"{}\"", desk.escrow.to_public()), "");
    let twice = text.replace(&desk.escrow.to_public().to_string(), &desk.operations.to_public().to_string());
    for config in [one, twice] {
        std::fs::write(desk.site.config(), config).unwrap();
        let before = desk.site.tree();
        let run = desk.site.run(&["backup", "create"]);
        assert!(run.code == 16 && run.stderr.contains("1 recipients are configured, and 2"), "{}", run.stderr);
        assert_eq!(changed(&before, &desk.site.tree()), Vec::<std::path::PathBuf>::new());
    }
    std::fs::write(desk.site.config(), &text).unwrap();
    let keys = desk.site.root().join("var/lib/pyvorin-recovery/keys");
    std::fs::rename(&keys, keys.with_extension("away")).unwrap();
    let run = desk.site.run(&["backup", "create"]);
    assert!(run.code == 16 && run.stderr.contains("key init"), "{}", run.stderr);
    std::fs::rename(keys.with_extension("away"), &keys).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(keys.join("signing"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let run = desk.site.run(&["backup", "create"]);
    assert!(run.code == 8 && run.stderr.contains("0600"), "{}", run.stderr);
}

#[test]
fn a_damaged_database_is_left_out_and_named_and_the_others_are_kept() {
    let desk = filled("", 3000);
    let mut bytes = std::fs::read(desk.site.db()).unwrap();
    bytes[..100].fill(0);
    std::fs::write(desk.site.db(), bytes).unwrap();
    let run = desk.site.run(&["backup", "create"]);
    let said = run.json.unwrap();
    assert_eq!(run.code, 4, "{said}");
    assert_eq!(said["left"][0][0], "edge_store");
    assert_eq!(said["databases"][0]["name"], "sync_queue");
}

#[test]
fn keys_are_made_once_and_their_secrets_are_never_printed() {
    let desk = desk("");
    let keys = desk.site.root().join("var/lib/pyvorin-recovery/keys");
    let read = || ["restore", "signing"].map(|n| std::fs::read_to_string(keys.join(n)).unwrap());
    let before = read();
    let (init, show) = (desk.site.run(&["key", "init"]), desk.site.run(&["key", "show"]));
    assert_eq!((init.code, show.code, read()), (0, 0, before.clone()));
    assert_eq!(init.json, show.json);
    for run in [init, show, desk.site.run(&["backup", "list"])] {
        for secret in
            before.iter().flat_map(|text| text.lines()).filter(|l| !l.contains("comment") && !l.starts_with('#'))
        {
            assert!(!run.stdout.contains(secret) && !run.stderr.contains(secret), "a secret was printed");
        }
    }
}

#[test]
fn a_reset_makes_an_encrypted_backup_first_where_the_device_can_make_one() {
    let desk = filled("", 50);
    let before = dump(&desk.site.db());
    let run = desk.site.run(&["--technician", "T-1", "reset", "--tier", "data"]);
    assert_eq!(run.code, 0, "{} {}", run.stdout, run.stderr);
    let archive = run.json.unwrap()["backup"].as_str().unwrap().to_string();
    assert!(dump(&desk.site.db())["readings"].is_empty());
    let run = desk.site.run(&["--technician", "T-1", "restore", "--identity", text(&desk.identity), &archive]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(same_and_bridged(&dump(&desk.site.db()), &before));
    let bare = support::site::Site::bare();
    let none = bare.run(&["--technician", "T-1", "reset", "--tier", "data"]);
    assert!(none.code == 0 && none.json.unwrap()["backup"].is_null(), "{}", none.stderr);
}

#[test]
fn figures_count_archives_as_what_there_is_to_come_back_from() {
    let desk = filled("", 50);
    let value = |name: &str| -> f64 {
        let run = desk.site.run(&["status", "--metrics"]);
        let line = run
            .stdout
            .lines()
            .find(|l| l.starts_with(&format!("pyvorin_recovery_{name}{{")) && l.contains("edge_store"));
        line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or(-1.0)
    };
    assert_eq!((value("backup_copies"), value("backup_newest_sound")), (0.0, -1.0));
    create(&desk, &[]);
    create(&desk, &[]);
    assert_eq!((value("backup_copies"), value("backup_newest_sound")), (2.0, 1.0));
    assert!((0.0..120.0).contains(&value("backup_newest_age_seconds")));
}

#[test]
fn pruning_keeps_the_newest_three_that_are_proved_and_says_what_goes() {
    let desk = filled("increments = 0", 20);
    (0..5).for_each(|_| drop(create(&desk, &[])));
    // Forty days ago by their names; the catalogue follows, as it would have been written then.
    let all = archives(&desk.site);
    let record = desk.site.root().join("var/lib/pyvorin-recovery/backups");
    assert_eq!((all.len(), record.exists()), (5, true));
    let run = desk.site.run(&["backup", "prune", "--plan"]);
    let said = run.json.unwrap();
    let kept = said["backups"].as_array().unwrap().iter().filter(|d| d["keep"] == true).count();
    assert_eq!((run.code, kept), (0, 5), "none of them is old: {said}");
    assert_eq!(archives(&desk.site), all);
    assert_eq!(desk.site.run(&["backup", "prune"]).code, 0);
    assert_eq!(archives(&desk.site), all);
    let listed = desk.site.run(&["backup", "list"]).json.unwrap();
    let listed = listed["backups"].as_array().unwrap().clone();
    assert!(listed.iter().all(|b| b["verified"].as_u64() > Some(0) && b["signed"] == true), "{listed:?}");
}
