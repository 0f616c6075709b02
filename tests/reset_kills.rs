//! The real binary killed at the calls of a factory reset that change something (`support/kill.rs`). What is found then is
//! the old state or the new one, or is closed to the agent by the mirror of the intent; the next command finishes it;
//! sentinels and originals are there, whatever was killed where. `kill_calls.rs` does the same to repairs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rusqlite::Connection;
use support::agent::python;
use support::kill;
use support::site::{CONFIG, Scratch, Site, Tree, tree};

const QUEUE: &str =
    "[[database]]\nname = \"sync_queue\"\nkind = \"queue\"\npath = \"/var/lib/pyvorin/sync_queue.db\"\n";
const SENTINELS: [&str; 4] = [
    "var/lib/pyvorin-recovery/keys/restore.key",
    "var/lib/pyvorin-recovery/tickets-used",
    "var/lib/pyvorin/backups/x.tar.zst.age",
    "var/lib/pyvorin/config/certs/client.pem",
];

const RESET: [&str; 1] = ["reset"];

/// A store with a chain of 12 records and a queue of 60 rows, of which one cannot be sent: it has to be rebuilt.
fn template() -> Site {
    let site = Site::bare();
    std::fs::write(site.config(), format!("{CONFIG}{QUEUE}")).unwrap();
    python(&["write", site.db().to_str().unwrap(), "1", "12", "0", "zeros"]);
    let queue = site.data().join("sync_queue.db");
    python(&["queue", queue.to_str().unwrap(), "1", "60"]);
    let conn = Connection::open(&queue).unwrap();
    conn.execute("UPDATE sync_queue SET priority = 77 WHERE id = 30", []).unwrap();
    conn.close().unwrap();
    for (n, path) in SENTINELS.iter().enumerate() {
        let path = site.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("sentinel {n}")).unwrap();
    }
    site
}

/// Puts a copy of the template in the place of a site.
fn renew(template: &Site, at: &Path) -> (PathBuf, PathBuf) {
    let _ = std::fs::remove_dir_all(at);
    std::fs::create_dir_all(at).unwrap();
    let copied = Command::new("cp").arg("-a").arg(template.root()).arg(template.config()).arg(at).status().unwrap();
    assert!(copied.success());
    (at.join("root"), at.join("recovery.toml"))
}

fn command(root: &Path, config: &Path, line: &[&str]) -> Vec<String> {
    let mut all = vec![env!("CARGO_BIN_EXE_pyvorin-recovery").to_string()];
    all.extend(["--config", config.to_str().unwrap(), "--root", root.to_str().unwrap()].map(str::to_string));
    all.extend(["--technician", "T-042", "--json"].map(str::to_string));
    all.extend(line.iter().map(|w| (*w).to_string()));
    all
}

fn finish(root: &Path, config: &Path, line: &[&str]) -> (i32, String) {
    let all = command(root, config, line);
    let done = Command::new(&all[0]).args(&all[1..]).stdin(Stdio::null()).output().unwrap();
    (done.status.code().unwrap_or(1000), String::from_utf8_lossy(&done.stderr).into_owned())
}

/// Contents of the databases as the engine reads them, on a copy.
fn contents(root: &Path) -> (Vec<i64>, Vec<(i64, String)>) {
    let copy = Scratch::new("copy");
    let data = root.join("var/lib/pyvorin");
    for entry in std::fs::read_dir(&data).unwrap().flatten().filter(|e| e.path().is_file()) {
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let queue = Connection::open(copy.path().join("sync_queue.db")).unwrap();
    let mut statement = queue.prepare("SELECT id FROM sync_queue ORDER BY id").unwrap();
    let ids = statement.query_map([], |r| r.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let store = Connection::open(copy.path().join("edge_store.db")).unwrap();
    let mut statement = store.prepare("SELECT id, action FROM privacy_audit ORDER BY id").unwrap();
    let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap();
    (ids, rows)
}

fn held(tree: &Tree, bytes: &[u8]) -> bool {
    tree.values().any(|e| e.0 == 'f' && e.4 == bytes)
}

struct Seen {
    points: u64,
    killed: u64,
    old: u64,
    new: u64,
    gated: u64,
}

/// Kills at the n-th call of a name and looks at everything; whether it was killed.
fn point(template: &Site, at: &Path, call: &str, n: usize, seen: &mut Seen) -> bool {
    let what = format!("killed at {call} number {n}");
    let (root, config) = renew(template, at);
    let before = tree(&root);
    let originals = ["edge_store.db", "sync_queue.db"].map(|f| before[&Path::new("var/lib/pyvorin").join(f)].4.clone());
    let (old_ids, _) = contents(&root);
    let killed = kill::at(&command(&root, &config, &RESET), &at.join("trace"), call, n);
    seen.points += 1;
    let now = tree(&root);
    if now.contains_key(Path::new("var/lib/pyvorin/.pyvorin-intent")) {
        seen.gated += 1;
    } else {
        let (ids, chain) = contents(&root);
        assert!(ids == old_ids || ids.is_empty(), "{what}: {ids:?}");
        assert_eq!(ids.is_empty(), chain.len() <= 1, "{what}: one database of two is reset, and the agent could start");
        seen.old += u64::from(ids == old_ids);
        seen.new += u64::from(ids.is_empty());
    }
    let lost_nothing = |tree: &Tree, when: &str| {
        for path in SENTINELS {
            assert_eq!(tree.get(Path::new(path)), before.get(Path::new(path)), "{what}: {when}: {path}");
        }
        for bytes in &originals {
            assert!(held(tree, bytes), "{what}: {when}: an original is gone");
        }
    };
    lost_nothing(&now, "at the kill");
    // The next command leaves nothing half-made. (This one has nothing else to do: both databases are sound.)
    let (code, said) = finish(&root, &config, &["repair"]);
    assert_eq!(code & !1, 0, "{what}: {said}");
    let now = tree(&root);
    let open = |p: &&PathBuf| p.ends_with(".pyvorin-intent") || p.ends_with("var/lib/pyvorin-recovery/intent");
    assert_eq!(now.keys().find(open), None, "{what}");
    let (ids, _) = contents(&root);
    assert!(ids == old_ids || ids.is_empty(), "{what}: after the next command: {ids:?}");
    lost_nothing(&now, "after the next command");
    let (code, said) = finish(&root, &config, &RESET);
    assert_eq!(code & !5, 0, "{what}: again: {said}");
    let (ids, chain) = contents(&root);
    assert_eq!(ids, [] as [i64; 0], "{what}: again");
    let resets = chain.iter().filter(|(_, action)| action == "factory_reset").count();
    assert!(resets >= 1 && chain.len() <= 3, "{what}: {chain:?}");
    lost_nothing(&tree(&root), "at the end");
    // The chains, ours and the agent's, verify across all of it (I14).
    let (code, said) = finish(&root, &config, &["audit", "verify"]);
    assert_eq!(code, 0, "{what}: {said}");
    killed
}

fn campaign(sample: Option<usize>) {
    let template = template();
    let scratch = Scratch::new("kill");
    let (root, config) = renew(&template, scratch.path());
    let calls = kill::changing(&command(&root, &config, &RESET), &scratch.path().join("trace"));
    let step = sample.map_or(1, |sample| calls.len().div_ceil(sample));
    let mut seen = Seen { points: 0, killed: 0, old: 0, new: 0, gated: 0 };
    // From the end: the calls around the swap are late.
    for (call, n) in calls.iter().rev().step_by(step) {
        seen.killed += u64::from(point(&template, scratch.path(), call, *n, &mut seen));
    }
    println!(
        "reset: {} calls that change something, {} tried, {} killed; found {} as before, {} new, {} with the agent gated",
        calls.len(),
        seen.points,
        seen.killed,
        seen.old,
        seen.new,
        seen.gated
    );
    assert!(seen.killed * 10 >= seen.points * 9, "only {} of {} were killed", seen.killed, seen.points);
    assert!(seen.old > 0 && seen.gated > 0 && seen.new > 0, "a state was never reached");
}

#[test]
fn a_reset_killed_at_a_sample_of_its_calls_is_old_or_new() {
    campaign(Some(24));
}

#[test]
#[ignore = "every call that changes something; part of `make bench`"]
fn a_reset_killed_at_every_call_is_old_or_new() {
    campaign(None);
}
