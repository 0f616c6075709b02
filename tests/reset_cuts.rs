//! Power cuts during a factory reset on the simulated disk: cut at every sync and after every changing call, with what was
//! not yet durable applied, dropped or torn, and booted again with the same word on the kernel command line. Reset or as
//! it was, never a mix (I4); originals and sentinels never lost (I1); one receipt, one event that cites the old head
//! (I14); and the word that is still there at the third boot does nothing any more (I3).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pyvorin_recovery::audit::events;
use pyvorin_recovery::boot::report::reset::ResetState;
use pyvorin_recovery::boot::{self, BootRequest};
use pyvorin_recovery::config::Settings;
use pyvorin_recovery::edge::VolumeHead;
use pyvorin_recovery::edge::sim::{CutMode, SimMachine, clean_ext4_head};
use pyvorin_recovery::reset;
use support::agent::python;

const DATA: &str = "/var/lib/pyvorin";
const STATE: &str = "/var/lib/pyvorin-recovery";
const STORE: &str = "/var/lib/pyvorin/edge_store.db";
const QUEUE: &str = "/var/lib/pyvorin/sync_queue.db";
const MODES: [(CutMode, u64); 3] = [(CutMode::Applied, 0), (CutMode::Dropped, 0), (CutMode::Torn, 1)];
const SENTINELS: [&str; 6] = [
    "/var/lib/pyvorin-recovery/keys/restore.key",
    "/var/lib/pyvorin-recovery/tickets-used",
    "/var/lib/pyvorin/backups/pyvorin-x-20260101-7.tar.zst.age",
    "/var/lib/pyvorin/config/certs/client.pem",
    "/var/lib/pyvorin/quarantine/1-edge_store-x/edge_store.db",
    "/var/lib/pyvorin/logs/agent.log",
];
const CONFIGURATION: &str = "/var/lib/pyvorin/config/config.toml";

struct Scenario {
    name: &'static str,
    word: &'static str,
    leave: bool,
    files: Vec<(String, Vec<u8>)>,
}

/// Databases of the agent's model as a killed agent leaves them: rows in the file, and rows in a log.
fn databases() -> Vec<(String, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    let (store, queue) = (dir.path().join("edge_store.db"), dir.path().join("sync_queue.db"));
    python(&["write", store.to_str().unwrap(), "3", "12", "0", "zeros"]);
    python(&["queue", queue.to_str().unwrap(), "3", "15"]);
    let conn = rusqlite::Connection::open(&store).unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE readings (id INTEGER PRIMARY KEY, v REAL);
         INSERT INTO readings (v) VALUES (1), (2), (3);",
    )
    .unwrap();
    let mut files = Vec::new();
    for name in ["edge_store.db", "edge_store.db-wal", "edge_store.db-shm", "sync_queue.db"] {
        if let Ok(bytes) = std::fs::read(dir.path().join(name)) {
            files.push((format!("{DATA}/{name}"), bytes));
        }
    }
    assert!(files.iter().any(|(name, bytes)| name.ends_with("-wal") && bytes.len() > 4096));
    files
}

fn scenarios() -> Vec<Scenario> {
    let files = databases();
    let mut damaged = files.clone();
    for (name, bytes) in &mut damaged {
        if name.ends_with("-wal") {
            bytes[..32].fill(0x33);
        }
    }
    let scenario =
        |name, word, leave, files: &Vec<(String, Vec<u8>)>| Scenario { name, word, leave, files: files.clone() };
    vec![
        scenario("every database", "data,T-042,1", false, &files),
        scenario("databases and configuration, none recreated", "full,T-042,1", true, &files),
        scenario("the queue, beside a store that must be repaired", "queue,T-042,1", false, &damaged),
    ]
}

fn machine(s: &Scenario) -> SimMachine {
    let mut m = SimMachine::new()
        .with_volume("data", DATA)
        .with_volume("state", STATE)
        .with_volume_head("data", VolumeHead::Head(clean_ext4_head()));
    for (n, path) in SENTINELS.iter().chain([&CONFIGURATION]).enumerate() {
        m = m.with_file(path, format!("sentinel {n}").repeat(n + 1));
    }
    for (path, bytes) in &s.files {
        m = m.with_file(path, bytes.clone());
    }
    m
}

fn settings(s: &Scenario) -> Settings {
    let mut settings = Settings::default_for_agent();
    settings.config_paths = vec![format!("{DATA}/config").into()];
    settings.reset_recreates = !s.leave;
    // What the policy prunes is no loss; here it would only hide one.
    settings.quarantine_keep = 50;
    settings
}

fn run(m: &mut SimMachine, s: &Scenario) -> boot::Boot {
    let request = BootRequest { choose_slot: true, reset: reset::word(s.word), ..BootRequest::default() };
    boot::run(m, &settings(s), &request, &mut |_| {})
}

/// Databases, logs and configuration as names on the disk.
fn set(m: &SimMachine) -> Vec<Option<Vec<u8>>> {
    let names = [STORE.into(), format!("{STORE}-wal"), QUEUE.into(), format!("{QUEUE}-wal"), CONFIGURATION.into()];
    names.iter().map(|path| m.bytes(path)).collect()
}

fn all(m: &SimMachine) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let slot = |p: &Path| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("slots."));
    m.paths().into_iter().filter(|p| !slot(p)).map(|p| (p.clone(), m.bytes(&p))).collect()
}

/// Sentinels under their names, and every original byte for byte somewhere.
fn nothing_is_lost(m: &SimMachine, whole: &SimMachine, s: &Scenario, what: &str) {
    for path in SENTINELS {
        assert!(m.bytes(path) == whole.bytes(path), "{}: {what}: {path}", s.name);
    }
    let held: Vec<Option<Vec<u8>>> = m.paths().iter().map(|p| m.bytes(p)).collect();
    let configuration = whole.bytes(CONFIGURATION);
    for (path, bytes) in &s.files {
        let index = path.ends_with("-shm"); // rebuilt by whoever opens the database
        assert!(index || held.iter().any(|h| h.as_ref() == Some(bytes)), "{}: {what}: {path} is lost", s.name);
    }
    assert!(held.contains(&configuration), "{}: {what}: the configuration is lost", s.name);
}

fn events_of(m: &SimMachine) -> Vec<events::Event> {
    let segment = events::read(&m.bytes(format!("{STATE}/audit.log")).unwrap_or_default());
    segment.events.into_iter().filter(|e| e.event == "reset").collect()
}

#[derive(Default)]
struct Counts {
    cuts: u32,
    old: u32,
    new: u32,
    gated: u32,
}

struct Case {
    fresh: SimMachine,
    old: Vec<Option<Vec<u8>>>,
    new: Vec<Option<Vec<u8>>>,
}

fn check(s: &Scenario, case: &Case, cut: SimMachine, what: &str, counts: &mut Counts) {
    let mut m = cut.after_cut();
    counts.cuts += 1;
    let now = set(&m);
    let gated = m.bytes(format!("{DATA}/.pyvorin-intent")).is_some();
    let whole = now == case.old || now == case.new;
    // The repair of the store beside a reset of the queue is an operation of its own, before or after it.
    let apart = s.word.starts_with("queue")
        && (now[..2] == case.old[..2] || now[..2] == case.new[..2])
        && (now[2..] == case.old[2..] || now[2..] == case.new[2..]);
    assert!(whole || apart || gated, "{}: {what}: a mix that the agent could open", s.name);
    counts.old += u32::from(now == case.old);
    counts.new += u32::from(now == case.new);
    counts.gated += u32::from(gated);
    nothing_is_lost(&m, &case.fresh, s, what);
    let done = run(&mut m, s);
    let told = done.report.reset.expect("a reset was asked for");
    assert!(matches!(told.state, ResetState::Done | ResetState::Used), "{}: {what}: {told:?}", s.name);
    assert!(set(&m) == case.new, "{}: {what}: not reset after the next boot: {told:?} {:?}", s.name, done.report.steps);
    nothing_is_lost(&m, &case.fresh, s, what);
    for open in [format!("{DATA}/.pyvorin-intent"), format!("{STATE}/intent")] {
        assert!(m.bytes(&open).is_none(), "{}: {what}: {open} is left behind", s.name);
    }
    let receipts: Vec<PathBuf> = m.paths().into_iter().filter(|p| p.starts_with(format!("{STATE}/receipts"))).collect();
    let whole = receipts.iter().filter(|p| p.extension().is_some_and(|e| e == "json" || e == "txt")).count();
    assert_eq!(whole, 2, "{}: {what}: {receipts:?}", s.name);
    let events = events_of(&m);
    assert_eq!(events.len(), 1, "{}: {what}", s.name);
    let cited = events[0].details.get("old_head").and_then(|h| h.get("id")).and_then(|id| id.as_i64());
    assert_eq!(cited, (!s.word.starts_with("queue")).then_some(12), "{}: {what}: {:?}", s.name, events[0].details);
    let before = all(&m);
    let last = run(&mut m, s);
    assert_eq!(last.report.reset.unwrap().state, ResetState::Used, "{}: {what}", s.name);
    assert!(all(&m) == before, "{}: {what}: the third boot changed something", s.name);
}

fn case(s: &Scenario) -> (Case, SimMachine) {
    let fresh = machine(s);
    let mut whole = fresh.clone();
    let old = set(&whole);
    let done = run(&mut whole, s);
    let told = done.report.reset.clone().unwrap();
    assert_eq!(
        (told.state, told.loss, told.why),
        (ResetState::Done, false, None),
        "{}: {:?}",
        s.name,
        done.report.steps
    );
    let new = set(&whole);
    assert!(old != new);
    (Case { fresh, old, new }, whole)
}

fn cuts(s: &Scenario, every: u64) -> Counts {
    let (case, whole) = case(s);
    let (syncs, ops) = (whole.sync_count(), whole.op_count());
    let mut counts = Counts::default();
    for (mode, seed) in MODES {
        for n in 1..=syncs {
            let mut m = case.fresh.clone();
            m.cut_at(n, mode, seed);
            run(&mut m, s);
            assert!(m.is_cut());
            check(s, &case, m, &format!("cut at sync {n} of {syncs}, {mode:?} {seed}"), &mut counts);
        }
        for n in (1..=ops).filter(|n| n % every == 0) {
            let mut m = case.fresh.clone();
            m.cut_after_op(n, mode, seed);
            run(&mut m, s);
            check(s, &case, m, &format!("cut after call {n} of {ops}, {mode:?} {seed}"), &mut counts);
        }
    }
    println!(
        "{}: {syncs} syncs, {ops} changing calls; {} cuts: {} found as before, {} reset, {} with the agent gated",
        s.name, counts.cuts, counts.old, counts.new, counts.gated
    );
    assert!(counts.old > 0 && counts.new > 0 && counts.gated > 0, "{}: a state was never reached", s.name);
    counts
}

#[test]
fn a_cut_at_any_sync_leads_to_the_old_state_or_to_a_reset_with_one_receipt() {
    for s in &scenarios() {
        cuts(s, 7);
    }
}

#[test]
#[ignore = "every changing call; minutes"]
fn a_cut_after_any_changing_call_leads_to_the_old_state_or_to_a_reset_with_one_receipt() {
    for s in &scenarios() {
        cuts(s, 1);
    }
}

#[test]
fn a_second_cut_while_the_first_is_made_good_changes_nothing_of_that() {
    let all = scenarios();
    let s = &all[0];
    let (case, whole) = case(s);
    let mut counts = Counts::default();
    for first in (1..=whole.sync_count()).step_by(2) {
        for second in [1, 3, 8, 21] {
            let mut m = case.fresh.clone();
            m.cut_at(first, CutMode::Torn, first);
            run(&mut m, s);
            let mut m = m.after_cut();
            m.cut_at(second, CutMode::Torn, second);
            run(&mut m, s);
            check(s, &case, m, &format!("cut at sync {first}, then at sync {second}"), &mut counts);
        }
    }
    println!("{} double cuts", counts.cuts);
}

#[test]
fn a_request_is_executed_once_and_another_number_is_another_request() {
    let all = scenarios();
    let s = &all[0];
    let (case, mut m) = case(s);
    assert_eq!(run(&mut m, s).report.reset.unwrap().state, ResetState::Used);
    // Rows that came after it are not taken by the word that is still there.
    let (path, rows) = &s.files.iter().find(|(p, _)| p.ends_with("sync_queue.db")).unwrap();
    let mut m = m.with_file(path, rows.clone());
    assert_eq!(run(&mut m, s).report.reset.unwrap().state, ResetState::Used);
    assert!(m.bytes(path).as_ref() == Some(rows));
    let again = Scenario { name: "again", word: "data,T-042,2", leave: false, files: vec![] };
    assert_eq!(run(&mut m, &again).report.reset.unwrap().state, ResetState::Done);
    assert!(set(&m)[2] == case.new[2]);
    assert_eq!(events_of(&m).len(), 2);
}

#[test]
fn what_cannot_be_preserved_is_refused_at_boot_and_taken_with_the_loss_named_when_that_is_accepted() {
    let all = scenarios();
    let s = &all[0];
    let mut m = machine(s).with_unreadable(STORE);
    let before = set(&m);
    let done = run(&mut m, s);
    let told = done.report.reset.unwrap();
    assert_eq!(told.state, ResetState::Refused);
    assert!(told.why.as_ref().unwrap().contains("cannot be preserved"), "{told:?}");
    assert!(set(&m) == before);
    assert_eq!(done.report.ending, "continue", "a refusal never holds a boot");
    let accepted =
        Scenario { name: "accepted", word: "data,T-042,2,accept-loss", leave: false, files: s.files.clone() };
    let done = run(&mut m, &accepted);
    let told = done.report.reset.unwrap();
    assert_eq!((told.state, told.loss), (ResetState::Done, true), "{:?}", done.report.steps);
    let text = m.paths().into_iter().find(|p| p.extension().is_some_and(|e| e == "txt")).unwrap();
    let text = String::from_utf8(m.bytes(text).unwrap()).unwrap();
    assert!(text.contains("LOST: edge_store.db") && text.contains("NOT everything"), "{text}");
}

#[test]
fn without_a_state_volume_or_with_a_full_one_nothing_is_reset_and_the_boot_goes_on() {
    let all = scenarios();
    let s = &all[0];
    let mut m = machine(s).with_broken_volume("state");
    let before = set(&m);
    let done = run(&mut m, s);
    assert_eq!(done.report.reset.unwrap().state, ResetState::Refused);
    assert!(set(&m) == before && done.report.ending == "continue");

    // Every changing call that fails for want of room: as before or reset, and never a boot that stops.
    let (case, whole) = case(s);
    for n in 1..=whole.op_count() {
        let mut m = case.fresh.clone().with_failing_op(n, std::io::ErrorKind::StorageFull);
        let done = run(&mut m, s);
        assert_eq!(done.report.ending, "continue", "call {n}");
        nothing_is_lost(&m, &case.fresh, s, &format!("call {n} failed"));
        let mut m = m.after_shutdown();
        let next = run(&mut m, s);
        let told = next.report.reset.unwrap();
        assert!(
            matches!(told.state, ResetState::Done | ResetState::Used),
            "call {n}: {told:?} {:?}",
            next.report.steps
        );
        assert!(set(&m) == case.new, "call {n}");
    }
}
