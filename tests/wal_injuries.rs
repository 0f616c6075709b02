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

use pyvorin_recovery::sqlite::header;
use pyvorin_recovery::sqlite::judge::{Candidate, Completeness, DbSize, Exactness, LogVerdict, WalState, judge};
use pyvorin_recovery::sqlite::observe::{self, ShmState, WalEvidence};

use support::crash::Files;
use support::log_injury::{Injury, injure};
use support::record::{Change, engine_alone, folded, superseded, verifiable};
use support::rng::Rng;
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
    truly_exact: usize,
    truly_exact_right: usize,
    truly_exact_index: usize,
    truly_exact_index_complete: usize,
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
        counts.truly_exact += 1;
        counts.truly_exact_right += usize::from(right);
        if case.index == Index::Fresh {
            counts.truly_exact_index += 1;
            let complete = right && v.candidates[0].completeness == Completeness::Complete;
            counts.truly_exact_index_complete += usize::from(complete);
            if std::env::var("SHOW_MISSED").is_ok() && !complete {
                let codes: Vec<String> = v.findings.iter().map(|f| format!("{}@{:?}", f.code, f.frame)).collect();
                println!(
                    "missed: seed {seed} {} [{}] {:?} {:?} {codes:?} right {right}",
                    history.what, case.injury.what, v.state, v.completeness
                );
            }
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
