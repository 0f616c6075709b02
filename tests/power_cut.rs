//! Power cuts on the simulated disk: every scenario is cut at every sync and after every changing call, with what was
//! not yet durable applied, dropped or torn, and booted again. Old or new, never a mix (I4); originals never lost (I1);
//! running once more changes nothing (I3).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pyvorin_recovery::boot::{self, BootRequest, outcome::StepResult};
use pyvorin_recovery::config::Settings;
use pyvorin_recovery::edge::sim::{CutMode, SimMachine};
use pyvorin_recovery::sqlite::judge::Completeness;

const DATA: &str = "/var/lib/pyvorin";
const STATE: &str = "/var/lib/pyvorin-recovery";
const MODES: [(CutMode, u64); 4] =
    [(CutMode::Applied, 0), (CutMode::Dropped, 0), (CutMode::Torn, 1), (CutMode::Torn, 2)];

#[derive(Clone)]
struct Files {
    db: Vec<u8>,
    wal: Option<Vec<u8>>,
    shm: Option<Vec<u8>>,
}

/// The files of a killed writer: `before` rows checkpointed, `after` rows in the log, one commit each.
fn killed(before: u32, after: u32, updates: bool) -> Files {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF;
         CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, sensor TEXT NOT NULL, at REAL, value REAL);
         CREATE INDEX by_time ON readings(sensor, at);",
    )
    .unwrap();
    let insert = |i: u32| {
        let sql = "INSERT INTO readings (sensor, at, value) VALUES ('temp.warehouse.a', ?1, ?2)";
        conn.execute(sql, (1.7e9 + f64::from(i), f64::from(i) * 0.25)).unwrap();
    };
    (0..before).for_each(insert);
    if before > 0 {
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }
    for i in 0..after {
        insert(before + i);
        if updates && i % 3 == 0 {
            conn.execute("UPDATE readings SET value = value + 1 WHERE id = ?1", [i % before.max(1) + 1]).unwrap();
        }
    }
    let read = |suffix: &str| std::fs::read(format!("{}{suffix}", path.display())).ok();
    Files { db: read("").unwrap(), wal: read("-wal"), shm: read("-shm") }
}

fn noise(bytes: &mut [u8], mut seed: u32) {
    for b in bytes {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *b = (seed >> 24) as u8;
    }
}

struct Scenario {
    name: &'static str,
    files: Vec<(&'static str, Files, bool)>,
    lossy: bool,
    left: bool,
    backup: Option<Vec<u8>>,
}

fn scenarios() -> Vec<Scenario> {
    let head = |mut f: Files, shm: bool| {
        noise(&mut f.wal.as_mut().unwrap()[..512], 7);
        f.shm = f.shm.filter(|_| shm);
        f
    };
    let hole = {
        let mut f = killed(40, 40, true);
        let wal = f.wal.as_mut().unwrap();
        let slot = 4096 + 24;
        let middle = 32 + (wal.len() - 32) / slot / 2 * slot;
        noise(&mut wal[middle..middle + slot], 9);
        f
    };
    let empty = Files { db: Vec::new(), ..killed(0, 30, false) };
    let mut page = killed(60, 0, false);
    page.wal = None;
    page.shm = None;
    noise(&mut page.db[2 * 4096..2 * 4096 + 64], 3);
    // Nothing in it is a page, so not one row can be salvaged: it is tried once and left.
    let mut noise_only = Files { db: vec![0; 16 << 10], wal: None, shm: None };
    noise(&mut noise_only.db, 5);
    // A leaf of the index of a store with several pages: no row is touched.
    let mut index = killed(400, 0, false);
    (index.wal, index.shm) = (None, None);
    let leaf = index.db.chunks(4096).rposition(|p| p[0] == 10).unwrap();
    noise(&mut index.db[leaf * 4096..leaf * 4096 + 64], 3);
    // A leaf of the table, with and without a backup that has its rows.
    let mut table = killed(400, 0, false);
    (table.wal, table.shm) = (None, None);
    let backup = table.db.clone();
    let leaf = table.db.chunks(4096).rposition(|p| p[0] == 13).unwrap();
    noise(&mut table.db[leaf * 4096..(leaf + 1) * 4096], 3);
    let one = |f: Files| vec![("edge_store.db", f, false)];
    let scenario = |name, files, lossy| Scenario { name, files, lossy, left: false, backup: None };
    vec![
        scenario("head of the log destroyed", one(head(killed(0, 40, false), true)), false),
        scenario("head destroyed, no index", one(head(killed(40, 40, false), false)), true),
        scenario("hole in the middle", one(hole), false),
        scenario("database file empty", one(empty.clone()), false),
        scenario("database file missing", vec![("edge_store.db", empty, true)], false),
        scenario(
            "two databases at once",
            vec![
                ("edge_store.db", head(killed(0, 25, false), true), false),
                ("sync_queue.db", head(killed(20, 20, true), true), false),
            ],
            false,
        ),
        scenario("page of a small table", one(page), false),
        scenario("page of an index", one(index), false),
        scenario("page of a table", one(table.clone()), true),
        Scenario { backup: Some(backup), ..scenario("page of a table, with a backup", one(table), true) },
        Scenario { left: true, ..scenario("nothing to salvage", one(noise_only.clone()), false) },
        scenario("nothing to salvage in a queue", vec![("sync_queue.db", noise_only, false)], true),
    ]
}

fn machine(s: &Scenario) -> SimMachine {
    let mut m = SimMachine::new().with_dir(DATA).with_dir(STATE);
    if let Some(backup) = &s.backup {
        m = m.with_file(format!("{DATA}/backups/2026-11-01/edge_store.db"), backup.clone());
    }
    for (name, files, missing) in &s.files {
        if !missing {
            m = m.with_file(format!("{DATA}/{name}"), files.db.clone());
        }
        for (suffix, bytes) in [("-wal", &files.wal), ("-shm", &files.shm)] {
            if let Some(bytes) = bytes {
                m = m.with_file(format!("{DATA}/{name}{suffix}"), bytes.clone());
            }
        }
    }
    m
}

fn settings() -> Settings {
    let mut s = Settings::default_for_agent();
    s.state_device = None;
    s
}

fn run(m: &mut SimMachine) -> boot::Boot {
    let request = BootRequest { choose_slot: true, ..BootRequest::default() };
    boot::run(m, &settings(), &request, &mut |_| {})
}

type Set = Vec<(Option<Vec<u8>>, Option<Vec<u8>>)>;

/// Database and log of every database, as names on the disk.
fn set(m: &SimMachine, s: &Scenario) -> Set {
    let one = |name: &str| (m.bytes(format!("{DATA}/{name}")), m.bytes(format!("{DATA}/{name}-wal")));
    s.files.iter().map(|(name, _, _)| one(name)).collect()
}

fn all(m: &SimMachine) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let slot = |p: &Path| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("slots."));
    m.paths().into_iter().filter(|p| !slot(p)).map(|p| (p.clone(), m.bytes(&p))).collect()
}

/// The originals: under their own names, or in quarantine, byte for byte.
fn originals_somewhere(m: &SimMachine, s: &Scenario) -> bool {
    let held: Vec<Option<Vec<u8>>> = m.paths().iter().map(|p| m.bytes(p)).collect();
    let has = |bytes: &Vec<u8>| held.iter().any(|h| h.as_ref() == Some(bytes));
    s.files.iter().all(|(_, f, missing)| (*missing || has(&f.db)) && f.wal.as_ref().is_none_or(has))
}

struct Counts {
    cuts: u32,
    boots: u32,
    old: u32,
    new: u32,
    gated: u32,
}

/// What a report says was done, and how complete the result is, for each database.
fn told(done: &boot::Boot, s: &Scenario) -> Vec<(Option<String>, Completeness)> {
    let of = |name: &str| done.report.databases.iter().find(|d| d.path.ends_with(name)).unwrap();
    s.files.iter().map(|(name, _, _)| (of(name).action.clone(), of(name).completeness)).collect()
}

struct Ends<'a> {
    old: &'a Set,
    new: &'a Set,
    /// What the report of a boot that was not disturbed says.
    told: &'a [(Option<String>, Completeness)],
}

fn check(s: &Scenario, cut: SimMachine, ends: &Ends<'_>, what: &str, counts: &mut Counts) {
    let Ends { old, new, told: expected } = *ends;
    let after = cut.after_cut();
    counts.cuts += 1;
    let now = set(&after, s);
    let gated = after.bytes(format!("{DATA}/.pyvorin-intent")).is_some();
    for (i, one) in now.iter().enumerate() {
        let (is_old, is_new) = (*one == old[i], *one == new[i]);
        assert!(is_old || is_new || gated, "{}: {what}: a mix that the agent could open", s.name);
        counts.old += u32::from(is_old);
        counts.new += u32::from(is_new && !is_old);
        counts.gated += u32::from(!is_old && !is_new);
    }
    assert!(originals_somewhere(&after, s), "{}: {what}: an original is lost", s.name);
    let mut again = after;
    let done = run(&mut again);
    counts.boots += 1;
    assert_eq!(set(&again, s), *new, "{}: {what}: not the repaired state after the next boot", s.name);
    assert!(originals_somewhere(&again, s), "{}: {what}: an original is lost after the next boot", s.name);
    // Whoever finishes a repair tells it, with what it lost: the report of the boot that began it went with the power.
    // (What was finished and closed before the cut is told by the journal of events.)
    for (i, one) in told(&done, s).iter().enumerate().filter(|(i, _)| now[*i] != new[*i]) {
        assert_eq!(*one, expected[i], "{}: {what}: the next boot hides what was done", s.name);
    }
    // A count of begun steps may stay when the cut fell behind the end of the operation: it is keyed by the state of
    // files that no longer exist, and a clean boot must not write only to remove it.
    for name in [format!("{DATA}/.pyvorin-intent"), format!("{STATE}/intent")] {
        assert!(again.bytes(&name).is_none(), "{}: {what}: {name} is left behind", s.name);
    }
    if s.lossy {
        let complete = done.report.databases.iter().any(|d| d.completeness == Completeness::Complete);
        assert!(!complete, "{}: {what}: called complete", s.name);
    }
    let before = all(&again);
    let last = run(&mut again);
    counts.boots += 1;
    let touched: Vec<&str> =
        last.report.steps.iter().map(|o| o.step.as_str()).filter(|n| *n != "count-attempt").collect();
    assert!(touched.is_empty(), "{}: {what}: the third boot still has work: {touched:?}", s.name);
    assert_eq!(all(&again), before, "{}: {what}: the third boot changed something", s.name);
}

#[test]
fn every_cut_leads_to_old_or_new_and_never_a_mix() {
    let mut counts = Counts { cuts: 0, boots: 0, old: 0, new: 0, gated: 0 };
    for s in &scenarios() {
        let mut whole = machine(s);
        let old = set(&whole, s);
        let done = run(&mut whole);
        let failed: Vec<_> = done.report.steps.iter().filter(|o| matches!(o.result, StepResult::Failed(_))).collect();
        assert!(failed.is_empty() || s.left, "{}: {failed:?}", s.name);
        let new = set(&whole, s);
        assert_eq!(new == old, s.left, "{}: {:?}", s.name, done.report.databases);
        if !s.left {
            let size = if s.name.ends_with("queue") { 0 } else { 4097 };
            assert!(new.iter().all(|(db, wal)| db.as_ref().is_some_and(|d| d.len() >= size) && wal.is_none()));
            let actions: Vec<_> = done.report.databases.iter().filter_map(|d| d.action.clone()).collect();
            println!("{}: {actions:?}", s.name);
        }
        let (syncs, ops) = (whole.sync_count(), whole.op_count());
        let ends = Ends { old: &old, new: &new, told: &told(&done, s) };
        for (mode, seed) in MODES {
            for n in 1..=syncs {
                let mut m = machine(s);
                m.cut_at(n, mode, seed);
                run(&mut m);
                assert!(m.is_cut());
                check(s, m, &ends, &format!("cut at sync {n} of {syncs}, {mode:?} {seed}"), &mut counts);
            }
            for n in 1..=ops {
                let mut m = machine(s);
                m.cut_after_op(n, mode, seed);
                run(&mut m);
                check(s, m, &ends, &format!("cut after call {n} of {ops}, {mode:?} {seed}"), &mut counts);
            }
        }
        println!("{}: {syncs} syncs, {ops} changing calls, each cut in {} ways", s.name, MODES.len());
    }
    println!(
        "{} cuts, {} boots after them; found at the cut: {} old, {} new, {} between with the agent gated",
        counts.cuts, counts.boots, counts.old, counts.new, counts.gated
    );
    assert!(counts.old > 0 && counts.new > 0 && counts.gated > 0, "a state was never reached");
}

#[test]
fn a_second_cut_during_the_next_boot_changes_nothing_of_that() {
    let mut counts = Counts { cuts: 0, boots: 0, old: 0, new: 0, gated: 0 };
    let all = scenarios();
    let s = &all[0];
    let mut whole = machine(s);
    let old = set(&whole, s);
    let done = run(&mut whole);
    let new = set(&whole, s);
    let ends = Ends { old: &old, new: &new, told: &told(&done, s) };
    for first in 1..=whole.sync_count() {
        for second in [1, 2, 3, 5, 8, 13, 21] {
            let mut m = machine(s);
            m.cut_at(first, CutMode::Torn, first);
            run(&mut m);
            let mut m = m.after_cut();
            m.cut_at(second, CutMode::Torn, second);
            run(&mut m);
            check(s, m, &ends, &format!("cut at sync {first}, then at sync {second}"), &mut counts);
        }
    }
    println!("{} double cuts", counts.cuts);
}

#[test]
fn a_staged_file_that_the_disk_lost_after_commit_is_taken_back() {
    let all = scenarios();
    let s = &all[0];
    let mut whole = machine(s);
    let old = set(&whole, s);
    run(&mut whole);
    let mut seen = false;
    for n in 1..=whole.op_count() {
        let mut m = machine(s);
        m.cut_after_op(n, CutMode::Applied, 0);
        run(&mut m);
        let m = m.after_cut();
        let staged =
            m.paths().into_iter().find(|p| p.starts_with(format!("{DATA}/.stage")) && p.ends_with("edge_store.db"));
        let (Some(staged), Some(record)) = (staged, m.bytes(format!("{STATE}/intent"))) else { continue };
        if !String::from_utf8_lossy(&record).contains("COMMIT") {
            continue;
        }
        let mut lying = m.with_file(&staged, vec![0; 8192]);
        let first = run(&mut lying);
        seen = true;
        let resumed = first.report.steps.iter().any(|o| o.step == "resume" && matches!(o.result, StepResult::Done(_)));
        assert!(resumed, "call {n}: {:?}", first.report.steps);
        // Put back, and repaired from scratch in the same boot.
        assert!(lying.bytes(format!("{DATA}/.pyvorin-intent")).is_none());
        let now = set(&lying, s);
        assert!(now == old || now == set(&whole, s), "call {n}: neither the originals nor the repair");
        assert!(originals_somewhere(&lying, s), "call {n}");
    }
    assert!(seen, "no cut fell between COMMIT and the swap");
}
