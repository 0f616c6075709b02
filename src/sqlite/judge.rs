//! From facts about a log to a verdict and the candidates that would repair it. Pure and total.
//!
//! A candidate is **exact at a commit** when every unverified frame at or before that commit has a known page whose
//! image is superseded by a later accepted frame at or before it: then the lost images matter to nobody. Exactness
//! alone is not enough (see [`super::resync`] on abandoned timelines): a segment is accepted only where it is proved to
//! descend from what stands before it. Row counts decide nothing here: they prefer the candidate that lacks the deletes.

mod join;
mod live;

use super::foreign::PageOne;
use super::observe::{LogFacts, LogTail, ShmState, Trouble, WalEvidence};
use super::overlay::Fold;
use super::resync::Generation;
use super::wal::{ShmHint, WalHeaderFault, WalScan};
use crate::config::Rung;
use live::Liveness;

pub(super) use join::Joined;
pub(super) use live::{from_the_first, may_be_ahead, names};

pub use super::verdict::{Candidate, Completeness, Exactness, Finding, Level, LogVerdict, Proof, WalState};

/// What the judge must know of the database file itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DbSize {
    /// True when the file exists and is not empty.
    pub present: bool,
    /// Whole pages in it.
    pub pages: u32,
    /// Page size by its header, if readable.
    pub page_size: Option<u32>,
    /// Its page 1, if readable.
    pub page_one: Option<PageOne>,
    /// Whether a full check found the file sound without the log; `None` when none was made.
    pub sound_alone: Option<bool>,
    /// Whether a full check found it sound with the log's valid chain laid over it; `None` when none was made.
    pub sound_with_log: Option<bool>,
}

/// Judges a log beside its database.
pub fn judge(wal: &WalEvidence, shm: &ShmState, db: DbSize) -> LogVerdict {
    let hint = if let ShmState::Valid(hint) = shm { Some(hint) } else { None };
    match wal {
        WalEvidence::Absent | WalEvidence::Empty => without_log(wal, shm, hint),
        WalEvidence::Unreadable(why) => {
            let text = format!("the log could not be read: {why}; check the storage and run `check` again");
            let mut v = blank(WalState::Damaged);
            v.findings.push(Finding::new(Level::Error, "wal-unreadable", text));
            v
        }
        WalEvidence::Present(facts) => match &facts.trouble {
            None => sound_chain(facts, hint, db),
            Some(trouble) if unfinished(facts, trouble) => sound_chain(facts, hint, db),
            Some(trouble) => damaged(facts, &trouble.scan, trouble.generation.as_ref(), hint, db),
        },
    }
}

/// True when all that stands behind the last commit is one transaction that never ended. A transaction larger than the
/// cache rewrites frames in place and mends the sums only at its commit, so after a power cut its frames verify in pieces,
/// and it looks like damage. It is told by its headers: live salts throughout, no commit frame among them, and no word
/// whose repair would make one.
fn unfinished(facts: &LogFacts, trouble: &Trouble) -> bool {
    let (Ok(header), Some(generation)) = (&facts.header, &trouble.generation) else { return false };
    let Some(end) = generation.segments.last().map(|s| s.last) else { return false };
    let behind = trouble.scan.frames.get(usize::try_from(end).unwrap_or(usize::MAX)..).unwrap_or(&[]);
    generation.segments.iter().any(|s| s.gap.is_some())
        && join::open(generation, &trouble.scan, 0, facts.committed)
        && behind.iter().all(|f| f.salt != header.salt || f.commit == 0)
}

fn blank(state: WalState) -> LogVerdict {
    LogVerdict {
        state,
        frames: 0,
        committed: 0,
        resyncable: 0,
        completeness: Completeness::Unknown,
        evidence: Vec::new(),
        findings: Vec::new(),
        candidates: Vec::new(),
        needs_repair: false,
    }
}

fn without_log(wal: &WalEvidence, shm: &ShmState, hint: Option<&ShmHint>) -> LogVerdict {
    let absent = matches!(wal, WalEvidence::Absent);
    let mut v = blank(if absent { WalState::Absent } else { WalState::Empty });
    match hint {
        Some(h) if h.max_frame > h.backfilled => {
            v.completeness = Completeness::Lossy;
            v.evidence.push("shm-hint".into());
            let n = h.max_frame - h.backfilled;
            let text = format!(
                "the wal-index names {n} committed frames that are not in the database, and the log that held them is {}; \
                 look for the -wal file on the storage before it is overwritten",
                if absent { "missing" } else { "empty" }
            );
            v.findings.push(Finding::new(Level::Error, "wal-missing", text));
        }
        // An emptied log goes with an index that has nothing left to copy. A log that is gone does not: the index may
        // be older than the last log was.
        Some(_) if !absent => {
            v.completeness = Completeness::Complete;
            v.evidence.push("shm-hint".into());
        }
        None if absent && matches!(shm, ShmState::Invalid) => {
            v.completeness = Completeness::Lossy;
            let text = "a wal-index stands without its log: SQLite never leaves it so; committed rows may be missing";
            v.findings.push(Finding::new(Level::Error, "shm-without-wal", text));
        }
        Some(_) | None => {}
    }
    v
}

fn sound_chain(facts: &LogFacts, hint: Option<&ShmHint>, db: DbSize) -> LogVerdict {
    let torn = facts.prefix > facts.committed || facts.tail != LogTail::Clean;
    let mut v = blank(if torn { WalState::TornTail } else { WalState::Sound });
    v.frames = facts.frames;
    v.committed = facts.committed;
    let salt = facts.header.as_ref().ok().map(|h| h.salt);
    if let Some(h) = hint.filter(|h| Some(h.salt) == salt) {
        v.evidence.push("shm-hint".into());
        if h.max_frame > facts.committed && h.max_frame > h.backfilled {
            v.completeness = Completeness::Lossy;
            let n = h.max_frame - facts.committed;
            let text = format!(
                "the wal-index names {} committed frames, the log holds {}: {n} are missing",
                h.max_frame, facts.committed
            );
            v.findings.push(Finding::new(Level::Error, "committed-frames-missing", text).at_frame(facts.committed + 1));
        } else if !torn && h.max_frame == facts.committed && (h.max_frame == 0 || h.sum == facts.commit_sum) {
            v.completeness = Completeness::Complete;
        }
    }
    if facts.tail == LogTail::Noise {
        let text = "the frame behind the last commit is damaged; if it was committed, it and what followed are lost";
        v.findings.push(Finding::new(Level::Warning, "wal-tail-damaged", text).at_frame(facts.prefix + 1));
    } else if torn {
        let text =
            "an unfinished transaction stands at the end of the log; it was never committed and SQLite ignores it";
        v.findings.push(Finding::new(Level::Info, "wal-torn-tail", text).at_frame(facts.committed + 1));
    }
    if facts.committed == 0 {
        return v;
    }
    let whole = facts.fold();
    if foreign(&mut v, facts, db) {
        return v;
    }
    if facts.missing_pages > 0 {
        v.needs_repair = true;
        v.completeness = v.completeness.max(Completeness::Unknown);
        let n = facts.missing_pages;
        let text = format!("{n} pages are in neither the database nor its log; salvage is needed");
        v.findings.push(Finding::new(Level::Error, "log-insufficient", text));
    } else if !db.present {
        // SQLite deletes a log that stands beside an empty database file, and with it every committed row.
        v.needs_repair = true;
        let completeness = v.completeness;
        v.completeness = Completeness::Lossy;
        let text = "the database file is empty or missing while its log is whole: SQLite would discard the log";
        v.findings.push(Finding::new(Level::Error, "database-file-empty", text));
        v.candidates.push(Candidate {
            rung: Rung::Replay,
            base: whole,
            rollback: None,
            extras: None,
            completeness,
            frames_lost: 0,
            in_doubt: false,
            proof: Proof {
                exactness: Exactness::ExactLatest,
                commits_kept: facts.commits,
                commits_lost: (completeness == Completeness::Complete).then_some(0),
                why: vec!["chain-whole".into()],
                ..Proof::default()
            },
        });
    }
    v
}

/// Refuses a log that cannot belong to the database; true when it did. Set aside it is only where the database without
/// it is known to be sound.
fn foreign(v: &mut LogVerdict, facts: &LogFacts, db: DbSize) -> bool {
    let (Some(page_one), Some(page_size), true) = (db.page_one, db.page_size, db.present) else { return false };
    let reason = super::foreign::reason(facts, &page_one, db.pages, page_size);
    let breaks = db.sound_alone == Some(true) && db.sound_with_log == Some(false);
    let Some(reason) =
        reason.or_else(|| breaks.then(|| "the database is sound without it, and damaged with it".into()))
    else {
        return false;
    };
    if db.sound_alone == Some(false) {
        // Whatever is wrong with the database may be what speaks against the log.
        let text = format!("the log may not belong to this database ({reason}), or the database is damaged");
        v.findings.push(Finding::new(Level::Warning, "wal-perhaps-foreign", text));
        return false;
    }
    v.state = WalState::Foreign;
    v.completeness = Completeness::Unknown;
    v.needs_repair = true;
    let text = format!("the log does not belong to this database: {reason}; replaying it would corrupt the database");
    v.findings.push(Finding::new(Level::Error, "wal-foreign", text));
    // An empty database without a table may stand where the one that the log belongs to was lost: then the log is all
    // there is, and it stays.
    if db.sound_alone == Some(true) && page_one.schema_cookie != 0 {
        v.candidates.push(Candidate {
            rung: Rung::Replay,
            base: Fold::nothing(page_size),
            rollback: None,
            extras: None,
            completeness: Completeness::Unknown,
            frames_lost: 0,
            in_doubt: true,
            proof: Proof { why: vec!["log-set-aside".into()], ..Proof::default() },
        });
    }
    true
}

fn damaged(
    facts: &LogFacts,
    scan: &WalScan,
    generation: Option<&Generation>,
    hint: Option<&ShmHint>,
    db: DbSize,
) -> LogVerdict {
    let mut v = blank(WalState::Damaged);
    v.frames = facts.frames;
    v.committed = facts.committed;
    v.needs_repair = true;
    if let Err(WalHeaderFault::Version(version)) = facts.header {
        let text =
            format!("the log names format version {version}, which no SQLite reads; the database cannot be opened");
        v.findings.push(Finding::new(Level::Error, "wal-version", text).at_frame(0));
        return v;
    }
    match facts.header {
        Ok(_) | Err(WalHeaderFault::Version(_)) => {}
        Err(WalHeaderFault::Outdated) => {
            let text = "the log's header is older than its first frame: its write was lost, and SQLite would ignore the \
                        whole log";
            v.findings.push(Finding::new(Level::Error, "wal-header-outdated", text).at_frame(0));
        }
        Err(_) => {
            let text = "the log's header is damaged: SQLite would silently ignore the whole log and delete it";
            v.findings.push(Finding::new(Level::Error, "wal-header-damaged", text).at_frame(0));
        }
    }
    // Of the rest of what speaks against a log nothing can be asked here: a checkpoint may have copied frames into the
    // database that stand behind the damage.
    if let Some(size) = db.page_size.filter(|s| db.present && *s != scan.page_size) {
        let text = format!(
            "the frames that verify have pages of {} bytes, the database has {size}; they are not applied",
            scan.page_size
        );
        v.findings.push(Finding::new(Level::Error, "wal-foreign", text));
        v.state = WalState::Foreign;
        return v;
    }
    let mended = generation.and_then(|g| g.mended(scan));
    let scan = mended.as_ref().unwrap_or(scan);
    let empty = Generation { salt: [0, 0], segments: Vec::new(), pages: Vec::new() };
    let generation = generation.unwrap_or(&empty);
    v.resyncable = generation.segments.iter().map(|s| s.last + 1 - s.first.max(facts.prefix + 1).min(s.last + 1)).sum();
    let hint = hint.filter(|h| h.page_size == scan.page_size);
    if hint.is_some() {
        v.evidence.push("shm-hint".into());
    }
    let alone = |completeness, frames_lost| Candidate {
        rung: Rung::Replay,
        base: Fold::nothing(db.page_size.unwrap_or(scan.page_size)),
        rollback: None,
        extras: None,
        completeness,
        frames_lost,
        in_doubt: false,
        proof: Proof {
            commits_lost: (completeness == Completeness::Complete).then_some(0),
            why: vec!["log-not-applied".into()],
            ..Proof::default()
        },
    };
    let liveness = live::liveness(generation, hint);
    if facts.header.is_err() || liveness == Liveness::NoOp {
        match liveness {
            Liveness::Live => {}
            Liveness::Unclear => {
                v.completeness = Completeness::Lossy;
                let text = "it cannot be proved that the surviving frames belong to the live generation; they are kept \
                            in quarantine and not applied";
                v.findings.push(Finding::new(Level::Error, "wal-generation-unclear", text));
                if db.present && generation.pages.iter().all(|p| p.equal.is_none() || p.equals_last) {
                    v.candidates.push(alone(Completeness::Lossy, v.resyncable));
                }
                return v;
            }
            // Behind a whole header the engine would lay the front of the log over a database that is past it.
            Liveness::NoOp if facts.header.is_ok() && exact(facts, scan, generation, hint, db, &mut v) => return v,
            liveness => {
                not_applied(&mut v, liveness, generation, scan, hint);
                if db.present {
                    let lost = hint.map_or(0, |h| h.max_frame.saturating_sub(h.backfilled));
                    v.candidates.push(alone(v.completeness, lost));
                }
                return v;
            }
        }
    }
    folds(facts, scan, generation, hint, db, &mut v);
    v
}

/// Adds what the segments give that are one timeline.
fn folds(
    facts: &LogFacts,
    scan: &WalScan,
    generation: &Generation,
    hint: Option<&ShmHint>,
    db: DbSize,
    v: &mut LogVerdict,
) {
    let joined = join::join(generation, scan, hint, v);
    let case = super::exact::Case { joined: &joined, scan, generation, hint, db, facts };
    super::exact::candidates(&case, v);
}

/// The same, and only where the first of them is exact at the last commit that survives.
fn exact(
    facts: &LogFacts,
    scan: &WalScan,
    generation: &Generation,
    hint: Option<&ShmHint>,
    db: DbSize,
    v: &mut LogVerdict,
) -> bool {
    let mut then = v.clone();
    folds(facts, scan, generation, hint, db, &mut then);
    let proved = then.candidates.first().is_some_and(|c| c.proof.exactness == Exactness::ExactLatest);
    if proved {
        *v = then;
    }
    proved
}

/// A log of which nothing is to be applied: what that says about completeness.
fn not_applied(
    v: &mut LogVerdict,
    liveness: Liveness,
    generation: &Generation,
    scan: &WalScan,
    hint: Option<&ShmHint>,
) {
    let lost = hint.map_or(0, |h| h.max_frame.saturating_sub(h.backfilled));
    if liveness == Liveness::Nothing {
        let text = "no frame of the log verifies; what it held is lost, if it held anything";
        v.findings.push(Finding::new(Level::Error, "wal-nothing-verifies", text));
    } else {
        let text = "the frames that survive are already in the database, or older than it; they are not applied";
        v.findings.push(Finding::new(Level::Info, "wal-already-applied", text));
    }
    if lost > 0 {
        let text = format!("{lost} committed frames were destroyed with the head of the log");
        v.findings.push(Finding::new(Level::Error, "committed-frames-missing", text));
    }
    // Nothing is missing only if no newer generation can have stood where the damage is: frame 1 is here, and the last
    // frame is the one that the index names.
    let last = generation.segments.last().and_then(|s| join::last_commit(s, scan)).unwrap_or(0);
    let all = liveness == Liveness::NoOp
        && from_the_first(generation)
        && hint.is_some_and(|h| names(h, scan, generation.salt, last))
        && scan.tail(last, generation.salt) == LogTail::Clean;
    v.completeness = match (lost, all) {
        (0, true) => Completeness::Complete,
        (0, false) => Completeness::Unknown,
        _ => Completeness::Lossy,
    };
}
