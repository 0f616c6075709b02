//! From facts about a log to a verdict and the candidates that would repair it. Pure and total.
//!
//! A candidate is **exact at a commit** when every unverified frame at or before that commit has a known page whose
//! image is superseded by a later accepted frame at or before it: then the lost images matter to nobody. Exactness
//! alone is not enough (see [`super::resync`] on abandoned timelines): a segment is accepted only where it is proved to
//! descend from what stands before it. Row counts decide nothing here: they prefer the candidate that lacks the deletes.

use super::observe::{LogFacts, LogTail, ShmState, WalEvidence};
use super::overlay::Fold;
use super::resync::{BreakKind, Continuity, Gap, Generation, Segment};
use super::wal::{ShmHint, WalHeaderFault, WalScan};
use crate::config::Rung;

pub use super::verdict::{Candidate, Completeness, Finding, Level, LogVerdict, WalState};

/// What the judge must know of the database file itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DbSize {
    /// True when the file exists and is not empty.
    pub present: bool,
    /// Whole pages in it.
    pub pages: u32,
    /// Page size by its header, if readable.
    pub page_size: Option<u32>,
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
            Some(trouble) => damaged(facts, &trouble.scan, trouble.generation.as_ref(), hint, db),
        },
    }
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
        Some(_) => {
            v.completeness = Completeness::Complete;
            v.evidence.push("shm-hint".into());
        }
        None if absent && matches!(shm, ShmState::Invalid) => {
            v.completeness = Completeness::Lossy;
            let text = "a wal-index stands without its log: SQLite never leaves it so; committed rows may be missing";
            v.findings.push(Finding::new(Level::Error, "shm-without-wal", text));
        }
        None => {}
    }
    v
}

fn sound_chain(facts: &LogFacts, hint: Option<&ShmHint>, db: DbSize) -> LogVerdict {
    let torn = facts.prefix > facts.committed || facts.tail == LogTail::Torn;
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
    if torn {
        let text =
            "an unfinished transaction stands at the end of the log; it was never committed and SQLite ignores it";
        v.findings.push(Finding::new(Level::Info, "wal-torn-tail", text).at_frame(facts.committed + 1));
    }
    if facts.committed == 0 {
        return v;
    }
    let whole = Fold {
        page_size: facts.page_size,
        frames: vec![(1, facts.committed)],
        upto: facts.committed,
        pages: facts.commit_pages,
        sum: facts.commit_sum,
    };
    let mismatch = db.page_size.is_some_and(|s| db.present && s != facts.page_size);
    if facts.missing_pages > 0 || mismatch {
        v.state = WalState::Foreign;
        v.completeness = Completeness::Unknown;
        v.needs_repair = true;
        let text = format!(
            "the log cannot belong to this database: {}; replaying it would corrupt the database",
            if mismatch {
                "the page sizes differ".to_string()
            } else {
                format!("{} pages are in neither file", facts.missing_pages)
            }
        );
        v.findings.push(Finding::new(Level::Error, "wal-foreign", text));
    } else if !db.present {
        // SQLite deletes a log that stands beside an empty database file, and with it every committed row.
        v.needs_repair = true;
        v.completeness = Completeness::Lossy;
        let text = "the database file is empty or missing while its log is whole: SQLite would discard the log";
        v.findings.push(Finding::new(Level::Error, "database-file-empty", text));
        let completeness = if v.evidence.is_empty() { Completeness::Unknown } else { Completeness::Complete };
        v.candidates.push(Candidate {
            rung: Rung::Replay,
            base: whole,
            extras: None,
            completeness,
            frames_lost: 0,
            in_doubt: false,
        });
    }
    v
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
    if facts.header.is_err() {
        let text = "the log's header is damaged: SQLite would silently ignore the whole log and delete it";
        v.findings.push(Finding::new(Level::Error, "wal-header-damaged", text).at_frame(0));
    }
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
        extras: None,
        completeness,
        frames_lost,
        in_doubt: false,
    };
    if facts.header.is_err() {
        let liveness = liveness(generation, hint);
        match liveness {
            Liveness::Live => {}
            Liveness::Stale | Liveness::NoOp => {
                let lost = hint.map_or(0, |h| h.max_frame.saturating_sub(h.backfilled));
                let known = hint.is_some_and(|h| h.salt == generation.salt || liveness == Liveness::Stale);
                v.completeness = match (lost, known) {
                    (0, true) => Completeness::Complete,
                    (0, false) => Completeness::Unknown,
                    _ => Completeness::Lossy,
                };
                let text =
                    "the frames that survive are already in the database, or older than it; they are not applied";
                v.findings.push(Finding::new(Level::Info, "wal-already-applied", text));
                if lost > 0 {
                    let text = format!("{lost} committed frames were destroyed with the head of the log");
                    v.findings.push(Finding::new(Level::Error, "committed-frames-missing", text));
                }
                if db.present {
                    v.candidates.push(alone(v.completeness, lost));
                }
                return v;
            }
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
        }
    }
    let joined = join(generation, scan, hint, &mut v);
    super::exact::candidates(&joined, scan, generation, hint, db, facts, &mut v);
    v
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Liveness {
    Live,
    Stale,
    NoOp,
    Unclear,
}

/// Whether a generation whose header is gone is the live one. A stale one must not be applied: its pages are older
/// than the database's. A wal-index of the same salts says live; one that is ahead says stale; without it the pages
/// themselves are compared: a stale generation has been copied back completely, so the database holds its last images
/// or newer ones.
fn liveness(generation: &Generation, hint: Option<&ShmHint>) -> Liveness {
    if generation.segments.is_empty() {
        return Liveness::Stale;
    }
    let from_the_first = generation.segments.first().is_some_and(|s| s.first == 1);
    if let Some(h) = hint {
        if h.salt == generation.salt {
            let first = generation.segments.first().map_or(0, |s| s.first);
            let last = generation.segments.last().map_or(0, |s| s.last);
            return if h.backfilled >= h.max_frame && last <= h.max_frame {
                // A finished checkpoint: the database holds everything this log ever committed.
                Liveness::NoOp
            } else if h.max_frame < first {
                Liveness::Unclear
            } else {
                Liveness::Live
            };
        }
        let ahead = h.salt[0].wrapping_sub(generation.salt[0]);
        if (1..=1 << 16).contains(&ahead) {
            return Liveness::Stale;
        }
    }
    if generation.pages.iter().all(|p| p.equals_last) {
        return Liveness::NoOp;
    }
    if from_the_first {
        // Frame 1 belongs to whichever generation was written last.
        return Liveness::Live;
    }
    if generation.pages.iter().any(|p| p.beyond || (p.equal.is_some() && !p.equals_last)) {
        return Liveness::Live;
    }
    let ahead = generation.pages.iter().any(|p| p.newer > 0);
    let behind = generation.pages.iter().any(|p| p.newer < 0);
    match (ahead, behind) {
        (true, false) => Liveness::Live,
        (false, true) => Liveness::Stale,
        _ => Liveness::Unclear,
    }
}

/// The segments accepted as one timeline.
pub(super) struct Joined {
    /// Accepted frames as closed ranges.
    pub frames: Vec<(u32, u32)>,
    /// Unverified frames between them, with the pages they can have been (empty: any).
    pub lost: Vec<(u32, Vec<u32>)>,
    /// Frames among the accepted that are believed, not verified.
    pub believed: Vec<u32>,
    /// True when a segment was refused.
    pub refused: bool,
    /// True when the refused one stands behind damage, not behind a well-formed break.
    pub refused_damage: bool,
    /// True when a gap was bridged.
    pub bridged: bool,
}

/// The last commit frame of a segment.
fn last_commit(segment: &Segment, scan: &WalScan) -> Option<u32> {
    (segment.first..=segment.last).rev().find(|n| scan.frame(*n).is_some_and(|f| f.commit != 0))
}

fn confirms(segment: &Segment, scan: &WalScan, hint: Option<&ShmHint>, salt: [u32; 2]) -> bool {
    hint.is_some_and(|h| {
        h.salt == salt
            && (segment.first..=segment.last).contains(&h.max_frame)
            && scan.frame(h.max_frame).is_some_and(|f| f.stored == h.sum)
    })
}

/// Accepts segments from the front for as long as each is proved to descend from the one before.
fn join(generation: &Generation, scan: &WalScan, hint: Option<&ShmHint>, v: &mut LogVerdict) -> Joined {
    let mut joined = Joined {
        frames: Vec::new(),
        lost: Vec::new(),
        believed: Vec::new(),
        refused: false,
        refused_damage: false,
        bridged: false,
    };
    // A frame of the live timeline at m makes every frame before m a frame of the live timeline.
    let confirmed_by = generation.segments.iter().rposition(|s| confirms(s, scan, hint, generation.salt));
    let mut committed = 0;
    // Verified frames behind the last commit of all, and behind a well-formed break, belong to a transaction that never
    // ended: SQLite rewrites spilled frames in place and mends the sums only at the commit. Behind damage they may be
    // what is left of one that did.
    let ended_by = generation.segments.iter().rposition(|s| last_commit(s, scan).is_some()).map_or(0, |i| i + 1);
    for (i, segment) in generation.segments.iter().enumerate() {
        let well_formed = segment.gap.as_ref().is_some_and(|g| g.kind == BreakKind::WellFormed);
        if i >= ended_by && well_formed && scan.header.is_err() {
            break;
        }
        let ends_with = last_commit(segment, scan);
        let Some(gap) = &segment.gap else {
            joined.frames.push((segment.first, segment.last));
            committed = ends_with.unwrap_or(committed);
            continue;
        };
        let confirmed = confirmed_by.is_some_and(|c| c >= i);
        let ended =
            hint.is_some_and(|h| h.salt == generation.salt && h.max_frame >= committed && h.max_frame <= gap.last);
        let accepted = descends(gap, joined.frames.is_empty(), confirmed, ended);
        v.findings.push(gap_finding(gap, segment, accepted));
        if !accepted {
            joined.refused = true;
            joined.refused_damage |= gap.kind != BreakKind::WellFormed;
            break;
        }
        joined.bridged = true;
        committed = ends_with.unwrap_or(committed);
        joined.frames.push((segment.first, segment.last));
        joined.believed.extend(gap.believed);
        joined.lost.extend(gap.lost.iter().map(|l| (l.frame, l.pages.clone())));
    }
    joined
}

/// Whether the frames behind a gap descend from those before it. `confirmed`: the wal-index names a frame at or behind
/// them with its very checksum. `ended`: the wal-index says that its timeline ended before them.
fn descends(gap: &Gap, at_head: bool, confirmed: bool, ended: bool) -> bool {
    if gap.proof.is_some() {
        return true;
    }
    // The index may be older than the log, then it says less than there is; but where it ends exactly here, or inside
    // the gap, what follows may as well be a timeline that was abandoned there.
    if ended && !confirmed {
        return false;
    }
    if at_head {
        return true;
    }
    match (gap.kind, gap.continuity) {
        (_, Continuity::Contradicted) | (BreakKind::Head, _) => false,
        (BreakKind::WellFormed, c) => confirmed && c == Continuity::Shown,
        // An erased frame cannot be told from a write that never arrived, and an old index may confirm either.
        (BreakKind::Leftover | BreakKind::Zero, c) => c == Continuity::Shown,
        (BreakKind::ForeignSalts | BreakKind::PageNumber | BreakKind::Malformed, c) => {
            c == Continuity::Shown || confirmed
        }
    }
}

fn gap_finding(gap: &Gap, segment: &Segment, accepted: bool) -> Finding {
    let what = match gap.kind {
        BreakKind::Head => "the head of the log is damaged".to_string(),
        BreakKind::WellFormed => format!("frame {} does not continue the chain though it looks whole", gap.first),
        BreakKind::Leftover => format!("frame {} was never written in this generation", gap.first),
        BreakKind::Zero => format!("frame {} is erased", gap.first),
        BreakKind::ForeignSalts | BreakKind::PageNumber | BreakKind::Malformed => {
            format!("frame {} is damaged", gap.first)
        }
    };
    let n = segment.last + 1 - segment.first;
    let (code, then) = match (accepted, gap.kind) {
        (true, BreakKind::Head) => ("wal-head-lost", format!("{n} frames behind it verify")),
        (true, _) => ("wal-frame-damaged", format!("{n} frames behind it verify and continue the same timeline")),
        (false, BreakKind::WellFormed) => (
            "wal-abandoned-timeline",
            format!("{n} frames behind it verify among themselves, as after a lost write; they are not applied"),
        ),
        (false, _) => (
            "wal-continuity-unproved",
            format!("{n} frames behind it verify, but nothing proves that they continue it; they are not applied"),
        ),
    };
    Finding::new(Level::Error, code, format!("{what}; {then}")).at_frame(gap.first)
}
