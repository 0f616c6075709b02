//! The decision core, enumerated: every combination of the discrete signals goes through `plan::data`, and the
//! invariants of the design are asserted on each plan. The table of decisions that people review is
//! `tests/golden/plans.txt`; write it anew with `GOLDEN=write cargo test --test plan_exhaustive`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout, missing_docs)]
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use pyvorin_recovery::boot::assess::{
    Assessment, Cause, DatabaseVerdict, FileSet, IntentVerdict, SlotVerdict, StructureVerdict, VolumeState,
    VolumeVerdict,
};
use pyvorin_recovery::boot::evidence::FsckLevel;
use pyvorin_recovery::boot::plan::{self, Policy, TRIALS, trial_key};
use pyvorin_recovery::boot::rescue::Rescue;
use pyvorin_recovery::boot::step::{Ending, Plan, Step};
use pyvorin_recovery::config::{OnTrouble, Rung, Settings, SlotBackend};
use pyvorin_recovery::slots::Slot;
use pyvorin_recovery::sqlite::check::Scope;
use pyvorin_recovery::sqlite::judge::{Candidate, Completeness, Finding, Level, LogVerdict, WalState};
use pyvorin_recovery::sqlite::overlay::Fold;

/// What a database can look like to the plan.
const CLASSES: [&str; 13] = [
    "healthy",
    "waiting",
    "replay",
    "resync",
    "extras",
    "lossy",
    "damaged",
    "index-damaged",
    "backed-up",
    "unreadable",
    "unborn",
    "orphaned",
    "in-use",
];

fn candidate(rung: Rung, extras: bool, completeness: Completeness) -> Candidate {
    let fold =
        |upto| Fold { page_size: 4096, frames: vec![(1, upto)], upto, pages: 10, sum: [1, 2], mends: Vec::new() };
    Candidate {
        rung,
        base: fold(9),
        rollback: None,
        extras: extras.then(|| fold(12)),
        completeness,
        frames_lost: 0,
        in_doubt: false,
        proof: Default::default(),
    }
}

fn rescued(class: &str) -> bool {
    matches!(class, "damaged" | "index-damaged" | "backed-up")
}

/// The rungs below resync, as `boot::rescue` offers them.
fn rescue(class: &str) -> Rescue {
    let rungs: &[Rung] = match class {
        "damaged" => &[Rung::Salvage, Rung::Empty],
        "index-damaged" => &[Rung::Reindex, Rung::Salvage, Rung::Empty],
        "backed-up" => &[Rung::Backup, Rung::Salvage, Rung::Empty],
        _ => &[],
    };
    let one = |rung: &Rung| candidate(*rung, false, Completeness::Unknown);
    let backups = if class == "backed-up" { vec!["/var/lib/pyvorin/backups/1/x.db".into()] } else { vec![] };
    Rescue { candidates: rungs.iter().map(one).collect(), backups, schema_record: None }
}

fn verdict(name: &str, class: &str) -> DatabaseVerdict {
    use StructureVerdict as S;
    let path = PathBuf::from(format!("/var/lib/pyvorin/{name}.db"));
    let (structure, completeness, log, candidates) = match class {
        "healthy" | "unborn" => (S::Sound, Completeness::Unknown, WalState::Absent, vec![]),
        "waiting" => (S::Sound, Completeness::Complete, WalState::Sound, vec![]),
        "replay" => {
            let list = vec![candidate(Rung::Replay, false, Completeness::Unknown)];
            (S::Damaged, Completeness::Lossy, WalState::Sound, list)
        }
        "resync" | "in-use" => {
            let list = vec![candidate(Rung::Resync, false, Completeness::Complete)];
            (S::Sound, Completeness::Lossy, WalState::Damaged, list)
        }
        "extras" => {
            let lossy = Completeness::Lossy;
            let list = vec![candidate(Rung::Resync, true, lossy), candidate(Rung::Replay, false, lossy)];
            (S::Sound, lossy, WalState::Damaged, list)
        }
        "lossy" => (S::Sound, Completeness::Lossy, WalState::Absent, vec![]),
        "damaged" | "index-damaged" | "backed-up" => (S::Damaged, Completeness::Unknown, WalState::Sound, vec![]),
        "unreadable" => (S::Unreadable, Completeness::Unknown, WalState::Absent, vec![]),
        "orphaned" => {
            let list = vec![candidate(Rung::Replay, false, Completeness::Unknown)];
            (S::Missing, Completeness::Lossy, WalState::Sound, list)
        }
        other => panic!("{other}"),
    };
    let needs =
        matches!(class, "replay" | "resync" | "in-use" | "extras" | "unreadable" | "orphaned") || rescued(class);
    let findings = if needs { vec![Finding::new(Level::Error, "x", "x")] } else { vec![] };
    let present = !matches!(class, "unborn" | "orphaned");
    DatabaseVerdict {
        name: name.into(),
        path: path.clone(),
        location: path,
        structure: if class == "unborn" { S::Missing } else { structure },
        completeness,
        scope: Scope::Full,
        page_size: 4096,
        pages: 10,
        log: LogVerdict {
            state: log,
            frames: 12,
            committed: 0,
            resyncable: 12,
            completeness,
            evidence: vec![],
            findings: vec![],
            candidates,
            needs_repair: needs,
        },
        evidence: vec![],
        findings,
        looked: Default::default(),
        damaged: vec![],
        needs_repair: needs,
        held_by: if class == "in-use" { vec!["agent (42)".into()] } else { vec![] },
        rescue: rescue(class),
        files: FileSet {
            present,
            bytes: 40960,
            owner: (10, 10),
            log: !matches!(log, WalState::Absent),
            shm: class == "resync",
            journal: false,
            fingerprint: "abcd1234".into(),
        },
    }
}

#[derive(Clone, Debug)]
struct Case {
    store: &'static str,
    queue: &'static str,
    state: bool,
    data: bool,
    intent: u8,
    slot: Option<(Slot, bool)>,
    tried: bool,
    space: bool,
    accept: bool,
    trouble: OnTrouble,
    booting: bool,
    recovery: bool,
}

impl Case {
    fn assessment(&self) -> Assessment {
        let dead = |d: bool| if d { vec![Slot::A] } else { vec![] };
        Assessment {
            reset: None,
            volumes: vec![],
            state_usable: self.state,
            data_fault: (!self.data).then(|| "no device".to_string()),
            intent: match self.intent {
                0 => IntentVerdict::None,
                1 => IntentVerdict::Resume("77-edge_store-abcd".into()),
                _ => IntentVerdict::Blocked("newer".into()),
            },
            databases: vec![verdict("edge_store", self.store), verdict("sync_queue", self.queue)],
            slots: self.slot.map(|(choice, dead_a)| SlotVerdict {
                choice,
                reason: "chosen".into(),
                dead: dead(dead_a),
                fell_back: dead_a,
            }),
            cause: Cause::None,
            unclean_mark: false,
            now: 1000,
            by: "unattended".into(),
            free_bytes: if self.space { 1 << 30 } else { 1 << 20 },
            data_volume: String::new(),
        }
    }

    fn settings(&self) -> Settings {
        let mut s = Settings::default_for_agent();
        s.slot_backend = SlotBackend::File;
        s.on_damage_left = self.trouble;
        s.on_data_missing = self.trouble;
        if !self.accept {
            s.databases.iter_mut().for_each(|d| d.accept.clear());
        }
        s
    }

    fn plan(&self) -> Plan {
        let settings = self.settings();
        let mut trials = BTreeMap::new();
        if self.tried {
            for name in ["edge_store", "sync_queue"] {
                trials.insert(trial_key(name, "abcd1234"), TRIALS);
                trials.insert(format!("copy:left-{name}-abcd1234"), TRIALS);
            }
        }
        let policy = Policy {
            settings: &settings,
            trials: &trials,
            failed: &[],
            quarantined: &[],
            recovery_asked: self.recovery,
            booting: self.booting,
        };
        plan::data(&self.assessment(), &policy)
    }
}

fn every(mut visit: impl FnMut(&Case)) -> u64 {
    let slots = [None, Some((Slot::A, false)), Some((Slot::B, false)), Some((Slot::B, true)), Some((Slot::R, true))];
    let mut n = 0;
    for store in CLASSES {
        for queue in CLASSES {
            for bits in 0..128_u32 {
                let bit = |i: u32| bits >> i & 1 == 1;
                for intent in 0..3 {
                    for slot in slots {
                        for trouble in [OnTrouble::Continue, OnTrouble::Recovery, OnTrouble::Hold] {
                            n += 1;
                            visit(&Case {
                                store,
                                queue,
                                intent,
                                slot,
                                trouble,
                                state: bit(0),
                                data: bit(1),
                                tried: bit(2),
                                space: bit(3),
                                accept: bit(4),
                                booting: bit(5),
                                recovery: bit(6),
                            });
                        }
                    }
                }
            }
        }
    }
    n
}

fn destructive(step: &Step) -> bool {
    matches!(step, Step::Install { .. } | Step::Resume { .. } | Step::Prune { .. })
}

fn holds(c: &Case, p: &Plan) {
    // I1: nothing is destroyed before it is preserved, and everything that loses its name was.
    for (i, step) in p.steps.iter().enumerate() {
        let before = &p.steps[..i];
        if let Step::Install { op, database } = step {
            let kept = before.iter().find_map(|s| match s {
                Step::Preserve { op: o, database: d, files, copy: false, .. } if o == op && d == database => {
                    Some(files)
                }
                _ => None,
            });
            let built = before.iter().find_map(|s| match s {
                Step::Build(b) if b.op == *op && b.database == *database => Some(b),
                _ => None,
            });
            let (kept, built) = (kept.unwrap_or_else(|| panic!("{c:?}: not preserved")), built.unwrap());
            assert!(built.retire.iter().all(|r| kept.contains(r)), "{c:?}: {built:?} retires what is not preserved");
            assert!(built.source.is_none() || kept.contains(&built.path), "{c:?}: replaces what is not preserved");
            assert!(built.source.iter().chain(&built.log).all(|s| s.starts_with("/var/lib/pyvorin/quarantine")));
            assert!(!built.candidates.is_empty());
            // Only what the policy accepts; by default a store is never emptied.
            let accepted = c.settings().databases.iter().find(|d| d.name == *database).unwrap().accept.clone();
            assert!(built.candidates.iter().all(|k| accepted.contains(&k.rung)), "{c:?}: {built:?}");
            assert!(database != "edge_store" || built.candidates.iter().all(|k| k.rung != Rung::Empty), "{c:?}");
            assert!(built.manifest.starts_with("/var/lib/pyvorin/quarantine"), "{c:?}: {built:?}");
        }
    }
    // Without a usable state directory, or data, nothing is destroyed and nothing is counted.
    if !c.state {
        assert!(p.steps.is_empty(), "{c:?}: {:?}", p.steps);
    }
    let on_data = |s: &&Step| s.writes_data();
    if !c.data || c.intent == 2 {
        assert_eq!(p.steps.iter().filter(on_data).count(), 0, "{c:?}");
    }
    // An interrupted operation is finished before anything else is planned, and then the line runs again.
    if c.intent == 1 && c.state && c.data {
        assert!(matches!(p.steps.as_slice(), [Step::Resume { .. }]) && p.again, "{c:?}: {:?}", p.steps);
        return;
    }
    let concerns = |name: &str| p.steps.iter().filter(move |s| s.database() == Some(name)).cloned().collect::<Vec<_>>();
    for (name, class) in [("edge_store", c.store), ("sync_queue", c.queue)] {
        let steps = concerns(name);
        let may = c.state && c.data && c.intent == 0;
        let repairs = matches!(class, "replay" | "resync" | "extras" | "orphaned") || rescued(class);
        let goes = may && repairs && c.accept && !c.tried && c.space;
        assert_eq!(steps.iter().any(destructive), goes, "{c:?}: {name}: {steps:?}");
        if matches!(class, "healthy" | "waiting" | "unborn" | "lossy") {
            assert!(steps.is_empty(), "{c:?}: {name} is touched: {steps:?}");
        }
        if c.tried {
            assert!(steps.is_empty(), "{c:?}: {name} is tried once more: {steps:?}");
        }
    }
    let repairing = p.steps.iter().any(destructive);
    assert_eq!(p.again, repairing, "{c:?}");
    slots_and_ending(c, p, repairing);
}

fn slots_and_ending(c: &Case, p: &Plan, repairing: bool) {
    // I10: the slot depends on slots alone.
    let counted: Vec<Slot> =
        p.steps.iter().filter_map(|s| if let Step::CountAttempt { slot } = s { Some(*slot) } else { None }).collect();
    let chosen = c.slot.map(|(s, _)| s).filter(|s| *s != Slot::R);
    if c.state && !c.recovery {
        assert_eq!(counted, chosen.into_iter().collect::<Vec<_>>(), "{c:?}");
    } else {
        assert!(counted.is_empty(), "{c:?}");
    }
    match &p.ending {
        Ending::Continue { slot } => {
            assert_eq!(*slot, chosen, "{c:?}");
            assert!(!c.recovery && c.slot.is_none_or(|(s, _)| s != Slot::R), "{c:?}: goes on into nothing");
        }
        Ending::Hold { then, recovery, .. } => {
            assert_eq!(*then, chosen, "{c:?}: a hold must go on where the boot would have gone");
            let asked = c.recovery || c.slot.is_some_and(|(s, _)| s == Slot::R);
            assert!(asked || (c.booting && !repairing && c.trouble != OnTrouble::Continue), "{c:?}: holds for nothing");
            assert!(!asked || *recovery, "{c:?}");
        }
        Ending::RebootInto { .. } => panic!("{c:?}: the data never reboots the machine"),
    }
    // Trouble that is left is told, and followed by what the policy says.
    let quiet = |class: &str| matches!(class, "healthy" | "waiting" | "unborn");
    let trouble = !c.data || ((!quiet(c.store) || !quiet(c.queue)) && !repairing);
    if c.booting && trouble && !repairing {
        assert_ne!(p.reason, "chosen", "{c:?}: the trouble is not told");
        if c.trouble != OnTrouble::Continue {
            assert!(matches!(p.ending, Ending::Hold { .. }), "{c:?}: {:?}", p.ending);
        }
    }
    // I12: a clean boot writes nothing but the attempt.
    if quiet(c.store) && quiet(c.queue) && c.slot.is_none_or(|(_, dead)| !dead) && c.intent == 0 {
        assert!(p.steps.iter().all(|s| matches!(s, Step::CountAttempt { .. })), "{c:?}: {:?}", p.steps);
    }
}

#[test]
fn the_invariants_hold_on_every_combination_of_signals() {
    let mut repairs = 0_u64;
    let n = every(|c| {
        let p = c.plan();
        repairs += u64::from(p.steps.iter().any(|s| matches!(s, Step::Install { .. })));
        holds(c, &p);
    });
    println!("{n} combinations, {repairs} plans that repair");
    assert!(n > 600_000 && repairs > 1000);
}

#[test]
fn a_plan_and_what_it_follows_from_survive_the_trip_to_a_desk() {
    let mut seen = 0;
    every(|c| {
        seen += 1;
        if seen % 997 == 0 {
            let (a, p) = (c.assessment(), c.plan());
            let text = serde_json::to_string(&p).unwrap();
            assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), p);
            assert_eq!(serde_json::from_str::<Assessment>(&serde_json::to_string(&a).unwrap()).unwrap(), a);
        }
    });
}

#[test]
fn volumes_are_checked_step_by_step_and_never_beyond_what_can_be_undone() {
    let states = [
        VolumeState::Clean,
        VolumeState::Check(FsckLevel::Preen, "x".into()),
        VolumeState::Check(FsckLevel::Yes, "x".into()),
        VolumeState::RebootWanted,
        VolumeState::Broken("x".into()),
        VolumeState::Unusable("x".into()),
    ];
    let base = Case {
        store: "healthy",
        queue: "healthy",
        state: true,
        data: true,
        intent: 0,
        slot: None,
        tried: false,
        space: true,
        accept: true,
        trouble: OnTrouble::Continue,
        booting: true,
        recovery: false,
    };
    for state in &states {
        for data in &states {
            for usable in [true, false] {
                let mut a = base.assessment();
                a.state_usable = usable;
                let volume = |name: &str, s: &VolumeState| VolumeVerdict { name: name.into(), state: s.clone() };
                a.volumes = vec![volume("state", state), volume("data", data)];
                let p = plan::volumes(&a);
                for (i, step) in p.steps.iter().enumerate() {
                    if let Step::CheckVolume { volume, level } = step {
                        // `-y` only with an undo file, which lies in state: so never for state itself.
                        assert!(*level == FsckLevel::Preen || (usable && volume == "data"), "{a:?}");
                        let marked = p.steps[..i].iter().any(|s| matches!(s, Step::RecordUnclean { .. }));
                        assert!(volume == "state" || marked || !usable, "{a:?}: checked before it was recorded");
                    }
                }
                let reboot = [state, data].contains(&&VolumeState::RebootWanted);
                assert_eq!(matches!(p.ending, Ending::RebootInto { .. }), reboot, "{a:?}");
                assert_eq!(p.again, !p.steps.is_empty());
            }
        }
    }
}

#[test]
fn the_table_of_decisions_is_the_reviewed_one() {
    let mut text = String::from(
        "# store, queue, state, data, accepted, slot -> steps; ending\n\
         # Reviewed by people. GOLDEN=write cargo test --test plan_exhaustive writes it anew; read the diff.\n",
    );
    for (state, data, accept) in [(true, true, true), (true, true, false), (false, true, true), (true, false, true)] {
        for store in CLASSES {
            for (queue, slot) in [("healthy", Some((Slot::A, false))), ("resync", Some((Slot::R, true)))] {
                let c = Case {
                    store,
                    queue,
                    state,
                    data,
                    intent: 0,
                    slot,
                    tried: false,
                    space: true,
                    accept,
                    trouble: OnTrouble::Hold,
                    booting: true,
                    recovery: false,
                };
                let p = c.plan();
                let name = |s: &Step| match s.database() {
                    Some(d) if matches!(s, Step::Build(_)) => {
                        let Step::Build(b) = s else { unreachable!() };
                        let rungs: Vec<String> =
                            b.candidates.iter().map(|k| format!("{:?}", k.rung).to_lowercase()).collect();
                        format!("build {d} ({})", rungs.join(", "))
                    }
                    Some(d) => format!("{} {d}", s.name()),
                    None => s.name().to_string(),
                };
                let steps: Vec<String> = p.steps.iter().map(name).collect();
                let ending = match &p.ending {
                    Ending::Continue { slot } => format!("continue {slot:?}"),
                    Ending::RebootInto { slot } => format!("reboot {slot:?}"),
                    Ending::Hold { recovery, then, .. } => format!("hold recovery={recovery} then={then:?}"),
                };
                let word = |b: bool| if b { "yes" } else { "no" };
                let slot = c.slot.map_or(String::new(), |(s, _)| s.to_string());
                let signals = format!("{store}, {queue}, {}, {}, {}, {slot}", word(state), word(data), word(accept));
                writeln!(text, "{signals} -> {}; {ending}", steps.join(", ")).unwrap();
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plans.txt");
    if std::env::var("GOLDEN").is_ok_and(|v| v == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, golden, "the decisions changed: read the difference, then write the table anew");
}
