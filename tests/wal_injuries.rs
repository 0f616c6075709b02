//! Injured logs by the ten thousand, judged in memory: what the judge would install, and what it says of it, held
//! against the true sequence of committed states, which is recorded beside the writer by an independent reader.
//!
//! *False complete*: something is called complete and is not the last committed state. *Reverted*: what would be
//! installed is an earlier state than the engine alone still has, or a state that no commit ever had, and is not
//! labelled as such. *Undecidable*: see [`undecidable`]; counted, printed, and not held against anybody.
//!
//! `INJURIES=n` runs more, `SEED=n` one history again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::collections::BTreeMap;

use pyvorin_recovery::boot::report::DatabaseReport;
use pyvorin_recovery::boot::{self, BootRequest};
use pyvorin_recovery::config::Settings;
use pyvorin_recovery::edge::sim::SimMachine;
use pyvorin_recovery::sqlite::header;
use pyvorin_recovery::sqlite::judge::{Candidate, Completeness, DbSize, Exactness, LogVerdict, WalState, judge};
use pyvorin_recovery::sqlite::observe::{self, ShmState, WalEvidence};

use support::crash::Files;
use support::log_injury::{Injury, injure};
use support::provable::{Injured, Proved};
use support::record::{Change, engine_alone, folded, superseded, verifiable};
use support::rng::Rng;
use support::site::Site;
use support::timeline::{self, History};
use support::wal::Wal;
use support::{Failures, engine, rounds, seeds};

#[derive(Default, Debug)]
struct Counts {
    injuries: usize,
    with_abandoned: usize,
    undecidable: usize,
    /// Damage that the format's own checksum does not see (two flips of topmost bits cancel).
    collisions: usize,
    engine_at_latest: usize,
    engine_earlier: usize,
    engine_mixture: usize,
    candidate_at_latest: usize,
    candidate_earlier: usize,
    candidate_mixture_labelled: usize,
    left_as_the_engine_has_it: usize,
    past_the_engine: usize,
    complete: usize,
    bits_restored: usize,
    bits_restored_right: usize,
    /// Cases in which every lost frame is superseded and the damage shows by itself, by what proves where the log
    /// leads: all, those whose latest state is offered as exact, and as complete.
    truly_exact: BTreeMap<Proved, [usize; 3]>,
}

/// What the library makes of a set of files.
fn verdict(files: &Files) -> LogVerdict {
    let shm = files.shm.as_ref().map_or(ShmState::Absent, |bytes| observe::shm(bytes).unwrap());
    let hint = if let ShmState::Valid(hint) = &shm { Some(hint) } else { None };
    let head = header::parse(&files.db).ok();
    let page_size = head.as_ref().map(|h| h.page_size);
    let wal = match &files.wal {
        None => WalEvidence::Absent,
        Some(bytes) => {
            observe::wal(bytes, Some(&files.db), page_size, head.as_ref().map_or(0, |h| h.reserved), hint).unwrap().0
        }
    };
    let size = match &wal {
        WalEvidence::Present(facts) => page_size.unwrap_or(facts.page_size),
        _ => page_size.unwrap_or(4096),
    };
    judge(
        &wal,
        &shm,
        DbSize {
            present: !files.db.is_empty(),
            pages: (files.db.len() / size as usize) as u32,
            page_size,
            page_one: head.as_ref().map(Into::into),
            ..DbSize::default()
        },
    )
}

fn candidate_state(files: &Files, page_size: usize, candidate: &Candidate) -> u64 {
    let fold = &candidate.base;
    let size = if fold.upto == 0 { (files.db.len() / page_size) as u32 } else { fold.pages };
    let changes: Vec<Change> =
        fold.mends.iter().map(|m| Change { frame: m.frame, page: m.page, word: m.word }).collect();
    folded(files, page_size, fold.numbers(), size, &changes)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Index {
    Fresh,
    Gone,
    Old,
    Abandoned,
    Noise,
}

struct Case<'a> {
    history: &'a History,
    files: Files,
    injury: Injury,
    index: Index,
}

/// An old index beside frames that are gone for good: the same bytes could have been left by a writer for whom that
/// index is the newest and those frames were never written. Nobody can tell the two apart.
fn undecidable(case: &Case<'_>, log: &Wal, verifiable: &[bool]) -> bool {
    let live_from = case.history.forks.last().copied().unwrap_or(0);
    let none_left = |from: usize| verifiable.iter().skip(from).all(|ok| !ok);
    match case.index {
        Index::Fresh | Index::Gone | Index::Noise => !case.history.forks.is_empty() && none_left(live_from),
        Index::Old | Index::Abandoned => {
            let bytes = if case.index == Index::Old { &case.history.old_index } else { &case.history.abandoned_index };
            let named = bytes.as_ref().map_or(0, |b| u32::from_ne_bytes(b[16..20].try_into().unwrap()) as usize);
            let _ = log;
            none_left(live_from) || none_left(named)
        }
    }
}

fn try_one(seed: u64, case: &Case<'_>, counts: &mut Counts, failures: &mut Failures) {
    let history = case.history;
    let page_size = history.setup.page_size;
    let states = &history.states;
    let latest = *states.last().unwrap();
    let newest = |digest: u64| states.iter().rposition(|s| *s == digest);
    let oldest = |digest: u64| states.iter().position(|s| *s == digest);
    let Some(log) = Wal::read(history.files.wal()) else { return };
    let ok = verifiable(history.files.wal(), case.files.wal(), &log);
    counts.injuries += 1;
    counts.with_abandoned += usize::from(history.behind > 0);
    let alone = engine_alone(&case.files, page_size);
    let base = oldest(alone);
    match newest(alone) {
        Some(at) if at + 1 == states.len() => counts.engine_at_latest += 1,
        Some(_) => counts.engine_earlier += 1,
        None => counts.engine_mixture += 1,
    }
    let collides = support::record::collides(history.files.wal(), case.files.wal(), &log);
    counts.collisions += usize::from(collides);
    let excused = undecidable(case, &log, &ok) || collides;
    counts.undecidable += usize::from(excused);
    let v = verdict(&case.files);
    if std::env::var("CASE").is_ok() {
        println!("{} [{}] {:?}\n{v:#?}", history.what, case.injury.what, case.index);
    }
    let mut fail = |kind: &str, text: String| {
        if excused {
            return;
        }
        let codes: Vec<String> = v.findings.iter().map(|f| format!("{}@{:?}", f.code, f.frame)).collect();
        let what = format!(
            "{} [{}index {:?}] frames {} committed {} live {}; verdict {:?} {:?} {codes:?}",
            history.what,
            case.injury.what,
            case.index,
            log.slots.len(),
            log.committed,
            ok.iter().filter(|o| **o).count(),
            v.state,
            v.completeness
        );
        failures.add(kind, seed, format!("{text} {what}"));
    };
    // What is promised of the files as they are, which the engine will then open.
    let settled = matches!(v.state, WalState::Absent | WalState::Empty | WalState::Sound);
    if v.candidates.is_empty() && alone != latest {
        if v.completeness == Completeness::Complete {
            fail(
                "FALSE COMPLETE of the files as they are",
                format!("the engine has commit {base:?} of {}", states.len() - 1),
            );
        } else if settled && v.completeness == Completeness::Unknown && !v.needs_repair {
            fail(
                "A CLEAN SUPERBLOCK WOULD MAKE IT COMPLETE",
                format!("the engine has commit {base:?} of {}", states.len() - 1),
            );
        }
    }
    let exact_now = superseded(&ok, &log);
    let mut right = false;
    for (i, candidate) in v.candidates.iter().enumerate() {
        let state = candidate_state(&case.files, page_size, candidate);
        let at = newest(state);
        if candidate.completeness == Completeness::Complete && state != latest {
            fail(
                "FALSE COMPLETE",
                format!("candidate {i} {:?} is commit {at:?} of {}", candidate.rung, states.len() - 1),
            );
        }
        match (at, base) {
            (Some(at), Some(base)) if at < base => {
                fail(
                    "REVERTED",
                    format!(
                        "candidate {i} {:?} at {at}, the engine alone {base} of {}",
                        candidate.rung,
                        states.len() - 1
                    ),
                );
            }
            // The database as it is, half copied back by a checkpoint: no more and no less than the engine has.
            (None, _) if state == alone => counts.left_as_the_engine_has_it += 1,
            (None, _) if candidate.proof.exactness != Exactness::Plausible => {
                fail(
                    "A STATE THAT NO COMMIT EVER HAD",
                    format!("candidate {i} {:?}, engine {base:?} of {}", candidate.rung, states.len() - 1),
                );
            }
            (None, _) => counts.candidate_mixture_labelled += 1,
            (Some(at), base) if i == 0 => {
                counts.past_the_engine += usize::from(base.is_none_or(|b| b < at));
                if at + 1 == states.len() { counts.candidate_at_latest += 1 } else { counts.candidate_earlier += 1 }
            }
            _ => {}
        }
        let exact = candidate.proof.exactness;
        // Claimed: exact at the last commit; or the database alone, and complete.
        let claimed = exact == Exactness::ExactLatest || candidate.completeness == Completeness::Complete;
        right |= state == latest && claimed;
        counts.bits_restored += usize::from(candidate.proof.why.iter().any(|w| w == "bit-restored-from-checksum"));
        counts.bits_restored_right +=
            usize::from(candidate.proof.why.iter().any(|w| w == "bit-restored-from-checksum") && at.is_some());
        counts.complete += usize::from(i == 0 && candidate.completeness == Completeness::Complete);
    }
    let damaged = case.files.wal != history.files.wal;
    if exact_now && case.injury.provable && damaged && history.behind == 0 && alone != latest {
        let injured = Injured { log: &log, whole: &history.files, now: &case.files, ok: &ok };
        let proved = injured.proved(case.index == Index::Fresh);
        let complete = right && v.candidates[0].completeness == Completeness::Complete;
        let row = counts.truly_exact.entry(proved).or_default();
        for (n, one) in row.iter_mut().zip([true, right, complete]) {
            *n += usize::from(one);
        }
        let claimed = if proved == Proved::ByIndex { complete } else { right };
        if std::env::var("SHOW_MISSED").is_ok() && !claimed {
            let codes: Vec<String> = v.findings.iter().map(|f| format!("{}@{:?}", f.code, f.frame)).collect();
            let first: Vec<String> =
                v.candidates.iter().map(|c| format!("{:?} {:?}", c.proof, c.completeness)).collect();
            println!(
                "missed: {proved:?} {:?} seed {seed} {} [{}] {:?} {:?} {codes:?} {first:?}",
                case.index, history.what, case.injury.what, v.state, v.completeness
            );
        }
    }
}

fn injured<'a>(history: &'a History, rng: &mut Rng) -> Case<'a> {
    let mut files = history.files.clone();
    let index = match rng.below(20) {
        0..=9 => Index::Fresh,
        10..=15 => Index::Gone,
        16 | 17 if history.old_index.is_some() => Index::Old,
        18 if history.abandoned_index.is_some() => Index::Abandoned,
        19 => Index::Noise,
        _ => Index::Fresh,
    };
    match index {
        Index::Fresh => {}
        Index::Gone => files.shm = None,
        Index::Old => files.shm = history.old_index.clone(),
        Index::Abandoned => files.shm = history.abandoned_index.clone(),
        Index::Noise => files.shm.iter_mut().for_each(|shm| {
            let n = shm.len().min(136);
            rng.fill(&mut shm[..n]);
        }),
    }
    let injury = injure(&mut files, rng);
    Case { history, files, injury, index }
}

fn run(base: u64, injuries: u64, each: u64) {
    let (mut counts, mut failures, mut skipped) = (Counts::default(), Failures::default(), 0);
    for seed in seeds(base, injuries.div_ceil(each)) {
        let mut rng = Rng::new(seed);
        let history = if rng.chance(40) { timeline::abandoned(&mut rng) } else { Some(timeline::killed(&mut rng)) };
        let Some(history) = history else {
            skipped += 1;
            continue;
        };
        // The recorder is kept honest by the engine. (Where a change is made once more after a crash, byte for byte, the
        // chain can go on into the abandoned timeline, and the engine itself takes that up again: no case for us.)
        let found = engine::open(&history.files);
        let pages = support::record::pages(&found.folded, history.setup.page_size);
        if Some(&support::record::state(&pages, pages.len() as u32)) != history.states.last() {
            assert!(!history.forks.is_empty(), "seed {seed}: the recorder is wrong: {}", history.what);
            skipped += 1;
            continue;
        }
        let only: Option<u64> = std::env::var("CASE").ok().and_then(|c| c.parse().ok());
        for n in 0..each {
            let case = injured(&history, &mut Rng::new(seed.wrapping_mul(1_000_003) ^ n));
            if only.is_none_or(|only| only == n) {
                try_one(seed * 1_000_000 + n, &case, &mut counts, &mut failures);
            }
        }
    }
    assert!(skipped * 50 < injuries.div_ceil(each).max(50), "{skipped} seeds made no history");
    println!("injured logs ({skipped} seeds made no history): {counts:#?}");
    failures.finish("wal_injuries");
    if std::env::var("SEED").is_ok() {
        return;
    }
    // Of what can be proved, 95 of 100 are claimed: with an index as complete, by content as exact.
    for (proved, claim) in [(Proved::ByIndex, 2), (Proved::ByContent, 1)] {
        let row = counts.truly_exact.get(&proved).copied().unwrap_or_default();
        assert!(row[0] * 40 > injuries as usize, "too few proved {proved:?}: {row:?}");
        assert!(row[claim] * 100 >= row[0] * 95, "{proved:?}: {} of {} claimed, fewer than 95 %", row[claim], row[0]);
    }
}

/// One boot of the simulated machine on these files: what it reports, and what stands there afterwards.
fn boot(files: &Files) -> (DatabaseReport, Files) {
    const DATA: &str = "/var/lib/pyvorin";
    let path = format!("{DATA}/edge_store.db");
    let mut m = SimMachine::new().with_dir(DATA).with_dir("/var/lib/pyvorin-recovery");
    m = m.with_file(&path, files.db.clone());
    for (suffix, bytes) in [("-wal", &files.wal), ("-shm", &files.shm)] {
        if let Some(bytes) = bytes {
            m = m.with_file(format!("{path}{suffix}"), bytes.clone());
        }
    }
    let mut settings = Settings::default_for_agent();
    settings.state_device = None;
    settings.check_budget_ms = 60_000;
    let done = boot::run(&mut m, &settings, &BootRequest::default(), &mut |_| {});
    let report = done.report.databases.into_iter().find(|d| d.path.ends_with("edge_store.db")).unwrap();
    let side = |suffix: &str| m.bytes(format!("{path}{suffix}"));
    (report, Files { db: m.bytes(&path).unwrap_or_default(), wal: side("-wal"), shm: side("-shm") })
}

/// What came of one injured log on one of the two ways.
struct Came<'a> {
    way: &'static str,
    after: &'a Files,
    /// It says that nothing is missing.
    claims: bool,
    action: &'a str,
}

#[derive(Default, Debug)]
struct Ways {
    tried: usize,
    latest: usize,
    earlier: usize,
    /// Rows were taken from what could not be proved; the state as a whole is none that was committed.
    in_part: usize,
    left: usize,
    claimed: usize,
}

fn arrive(seed: u64, case: &Case<'_>, came: &Came<'_>, ways: &mut Ways, failures: &mut Failures) {
    let (history, page_size) = (case.history, case.history.setup.page_size);
    let newest = |digest: u64| history.states.iter().rposition(|s| *s == digest);
    let last = history.states.len() - 1;
    let found = engine::open(came.after);
    let pages = support::record::pages(&found.folded, page_size);
    let at = newest(support::record::state(&pages, pages.len() as u32));
    let alone = engine_alone(&case.files, page_size);
    let base = history.states.iter().position(|s| *s == alone);
    let mut fail = |kind: &str| {
        let what = format!("{} {} [{}] index {:?}", came.way, history.what, case.injury.what, case.index);
        failures.add(kind, seed, format!("{what}: {at:?} of {last}, the engine alone {base:?}, {}", came.action));
    };
    ways.tried += 1;
    ways.claimed += usize::from(came.claims);
    ways.left += usize::from(came.action == "left");
    match at {
        Some(at) if at == last => ways.latest += 1,
        Some(_) => ways.earlier += 1,
        None => ways.in_part += 1,
    }
    if came.claims && at != Some(last) {
        fail("FALSE COMPLETE");
    }
    if at.is_some_and(|at| base.is_some_and(|base| at < base)) {
        fail("REVERTED");
    }
    if found.integrity != "ok" && !matches!(came.action, "left" | "none") {
        fail("what was installed is not sound");
    }
}

/// A sample through the command line and through a whole boot, which do what the judge only offers.
#[test]
fn the_command_line_and_a_boot_keep_what_the_judge_promises() {
    let (mut command, mut booted, mut failures) = (Ways::default(), Ways::default(), Failures::default());
    for seed in seeds(5000, rounds("INJURIES", 240).div_ceil(6)) {
        let mut rng = Rng::new(seed);
        let history = if rng.chance(40) { timeline::abandoned(&mut rng) } else { Some(timeline::killed(&mut rng)) };
        let Some(history) = history else { continue };
        for n in 0..6 {
            let case = injured(&history, &mut Rng::new(seed.wrapping_mul(1_000_003) ^ n));
            let Some(log) = Wal::read(history.files.wal()) else { continue };
            let ok = verifiable(history.files.wal(), case.files.wal(), &log);
            let collides = support::record::collides(history.files.wal(), case.files.wal(), &log);
            if undecidable(&case, &log, &ok) || collides {
                continue;
            }
            let site = Site::new(&case.files);
            let run = site.run(&["repair"]);
            if run.json.is_none() || run.code & !7 != 0 {
                failures.add("repair did not run to its end", seed, format!("{} {}", run.code, run.stderr));
                continue;
            }
            let (after, claims, action) = (site.files(), run.claims_all(), run.text("action"));
            let came = Came { way: "repair", after: &after, claims, action };
            arrive(seed, &case, &came, &mut command, &mut failures);
            let (report, after) = boot(&case.files);
            let action = report.action.as_deref().unwrap_or("none");
            let claims = report.completeness == Completeness::Complete;
            arrive(seed, &case, &Came { way: "boot", after: &after, claims, action }, &mut booted, &mut failures);
        }
    }
    println!("injured logs through `repair`: {command:?}\nthrough a boot: {booted:?}");
    failures.finish("wal_injuries");
    assert!(std::env::var("SEED").is_ok() || command.tried > 100 && command.latest > 30 && booted.latest > 30);
}

#[test]
fn no_injury_makes_a_loss_look_complete_or_reverts_a_commit() {
    run(1, rounds("INJURIES", 2500), 25);
}

#[test]
#[ignore = "a hundred thousand, for `make bench`"]
fn a_hundred_thousand_injuries() {
    run(100_000, rounds("INJURIES", 120_000), 60);
}
