//! The real binary killed (SIGKILL, through strace's fault injection) at every system call that changes something, in every
//! operation that swaps a database; then the same command again. What lies there at the moment of the kill is the old
//! database or the new one, byte for byte; afterwards every row is there exactly once, the damaged originals are kept, and
//! nothing of the interrupted run is left open.
//!
//! What a kill does not model, writes that the kernel had acknowledged and the device lost, is the simulated disk's (`power_cut.rs`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use support::agent::python;
use support::crash::side;
use support::kill;
use support::site::{CONFIG, Site};

/// Kills of one operation at every test run; the full set is run by `make bench`.
const SAMPLE: usize = 24;

/// One operation on one damaged gateway.
struct Scenario {
    name: &'static str,
    command: &'static [&'static str],
    /// Exit codes of a run that was not disturbed.
    ends: &'static [i32],
    site: Site,
    db: PathBuf,
    /// How the rows are told apart.
    rows: &'static str,
}

fn store() -> Scenario {
    let site = Site::bare();
    let db = site.db();
    let script = "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                  c.execute('PRAGMA journal_mode=WAL'); c.execute('PRAGMA wal_autocheckpoint=0')\n\
                  c.execute('CREATE TABLE readings(id INTEGER PRIMARY KEY, v TEXT)'); c.execute('PRAGMA wal_checkpoint(TRUNCATE)')\n\
                  [c.execute('INSERT INTO readings(v) VALUES(?)', (f'row {n}',)) for n in range(300)]\n\
                  os._exit(0)";
    assert!(Command::new("python3").args(["-c", script]).arg(&db).status().unwrap().success());
    let mut wal = std::fs::read(side(&db, "-wal")).unwrap();
    wal[..512].fill(0xa5);
    std::fs::write(side(&db, "-wal"), wal).unwrap();
    Scenario { name: "repair", command: &["repair"], ends: &[1], site, db, rows: "SELECT id || '|' || v FROM readings" }
}

fn queue() -> Scenario {
    let site = Site::bare();
    let queue = "[[database]]\nname = \"sync_queue\"\nkind = \"queue\"\npath = \"/var/lib/pyvorin/sync_queue.db\"\n";
    std::fs::write(site.config(), format!("{CONFIG}{queue}")).unwrap();
    let db = site.data().join("sync_queue.db");
    python(&["queue", db.to_str().unwrap(), "6", "400"]);
    let mut bytes = std::fs::read(&db).unwrap();
    bytes[4 * 4096..4 * 4096 + 700].fill(0x55);
    std::fs::write(&db, bytes).unwrap();
    let rows = "SELECT id || '|' || payload || '|' || created_at || '|' || retry_count || '|' || next_retry_at FROM sync_queue";
    Scenario { name: "queue repair", command: &["queue", "repair"], ends: &[5], site, db, rows }
}

/// Copies a directory: what a fresh gateway with the same damage is.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

impl Scenario {
    /// The same damaged gateway, fresh.
    fn again(&self) -> (Site, PathBuf) {
        let site = Site::bare();
        copy(&self.site.root(), &site.root());
        std::fs::copy(self.site.config(), site.config()).unwrap();
        let db = site.root().join(self.db.strip_prefix(self.site.root()).unwrap());
        (site, db)
    }

    fn all_rows(&self, db: &Path) -> Vec<String> {
        let conn = Connection::open(db).unwrap();
        let sound: String = conn.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
        assert_eq!(sound, "ok");
        let mut statement = conn.prepare(self.rows).unwrap();
        let mut rows: Vec<String> = statement.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect();
        rows.sort();
        rows
    }

    /// The command line of the operation, and where strace writes.
    fn command(&self, site: &Site) -> (Vec<String>, PathBuf) {
        let (config, root) = (site.config(), site.root());
        let mut all = vec![env!("CARGO_BIN_EXE_pyvorin-recovery"), "--config", config.to_str().unwrap()];
        all.extend(["--root", root.to_str().unwrap(), "--technician", "T-042", "--json"]);
        all.extend(self.command);
        (all.into_iter().map(str::to_string).collect(), config.with_extension("trace"))
    }
}

/// Names below a directory that begin like this.
fn names(dir: &Path, word: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            }
            if entry.file_name().to_string_lossy().starts_with(word) {
                found.push(entry.path());
            }
        }
    }
    found
}

/// Kills the operation at its calls and counts the kills. `every`: all of them, else a sample.
fn campaign(scenario: &Scenario, every: bool) -> usize {
    let old = std::fs::read(&scenario.db).unwrap();
    let old_wal = std::fs::read(side(&scenario.db, "-wal")).ok();
    let (undisturbed, db) = scenario.again();
    let (command, trace) = scenario.command(&undisturbed);
    let calls = kill::changing(&command, &trace);
    let expected = scenario.all_rows(&db);
    assert!(expected.len() > 250, "{}: only {} rows without any kill", scenario.name, expected.len());
    let step = if every { 1 } else { calls.len().div_ceil(SAMPLE) };
    let (mut killed, mut done) = (0, 0);
    // From the end: the calls around the swap are late.
    for (call, n) in calls.iter().rev().step_by(step) {
        let (site, db) = scenario.again();
        let (command, trace) = scenario.command(&site);
        killed += usize::from(kill::at(&command, &trace, call, *n));
        let at = format!("{} killed at {call} number {n}", scenario.name);
        let now = std::fs::read(&db).unwrap_or_else(|e| panic!("{at}: no database: {e}"));
        let new = now != old;
        if new {
            // The new one whole, and never beside the old log unless the next run still knows of it.
            let log = std::fs::read(side(&db, "-wal")).ok().filter(|wal| !wal.is_empty());
            let open = !names(&site.root(), ".pyvorin-intent").is_empty();
            assert!(log.is_none() || open, "{at}: the new database beside the old log, and no intent");
            done += 1;
        } else if names(&site.root(), ".pyvorin-intent").is_empty() {
            assert_eq!(std::fs::read(side(&db, "-wal")).ok(), old_wal, "{at}: the old database without its log");
        }
        let run = site.run(&[&["--technician", "T-042"], scenario.command].concat());
        // Done and told before the kill, or told now: a repair that was finished by the second run is in its report.
        let ended = scenario.ends.contains(&run.code) || run.code == 0 && new;
        assert!(ended, "{at}: run again: {} {} {}", run.code, run.stdout, run.stderr);
        assert_eq!(scenario.all_rows(&db), expected, "{at}: rows after the second run");
        assert_eq!(names(&site.root(), ".pyvorin-intent"), Vec::<PathBuf>::new(), "{at}");
        let kept = names(&site.data().join("quarantine"), "").iter().any(|p| std::fs::read(p).is_ok_and(|b| b == old));
        assert!(kept, "{at}: the damaged original is not in quarantine");
        let run = site.run(&[&["--technician", "T-042"], scenario.command].concat());
        assert_eq!(run.code, 0, "{at}: a third run finds something to do: {} {}", run.stdout, run.stderr);
    }
    let tried = calls.len().div_ceil(step);
    println!(
        "{}: {} calls that change something, {tried} tried, {killed} killed, {done} with the new database",
        scenario.name,
        calls.len()
    );
    assert!(killed * 10 >= tried * 9, "{}: only {killed} of {tried} were killed", scenario.name);
    assert!(done > 0 && done < tried, "{}: no kill on one side of the swap", scenario.name);
    killed
}

#[test]
fn a_sample_of_kills_leaves_the_old_or_the_new_database() {
    for scenario in [store(), queue()] {
        campaign(&scenario, false);
    }
}

#[test]
#[ignore = "every system call of every operation: make bench"]
fn every_kill_leaves_the_old_or_the_new_database() {
    let killed: usize = [store(), queue()].iter().map(|scenario| campaign(scenario, true)).sum();
    println!("{killed} kills, 0 mixed states");
}
