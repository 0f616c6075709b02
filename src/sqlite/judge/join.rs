//! Which segments of a log are one timeline.

use crate::sqlite::overlay::Mend;
use crate::sqlite::resync::{BreakKind, Continuity, Gap, Generation, Segment};
use crate::sqlite::verdict::{Finding, Level, LogVerdict};
use crate::sqlite::wal::{ShmHint, WalScan};

/// The segments accepted as one timeline.
#[derive(Clone, Default)]
pub(in crate::sqlite) struct Joined {
    /// Accepted frames as closed ranges.
    pub frames: Vec<(u32, u32)>,
    /// Unverified frames between them, with the pages they can have been (empty: any).
    pub lost: Vec<(u32, Vec<u32>)>,
    /// The same before and behind the segment that was refused.
    pub refused_lost: Vec<(u32, Vec<u32>)>,
    /// Frames among the accepted that are believed, not verified.
    pub believed: Vec<u32>,
    /// Frames among the accepted whose header is destroyed and known all the same.
    pub mends: Vec<Mend>,
    /// Lost frames that one bit would make whole.
    pub guesses: Vec<Mend>,
    /// True when a segment was refused.
    pub refused: bool,
    /// True when the refused one stands behind damage, not behind a well-formed break.
    pub refused_damage: bool,
    /// True when a gap was bridged.
    pub bridged: bool,
}

/// The last commit frame of a segment.
pub(super) fn last_commit(segment: &Segment, scan: &WalScan) -> Option<u32> {
    (segment.first..=segment.last).rev().find(|n| scan.frame(*n).is_some_and(|f| f.commit != 0))
}

fn confirms(segment: &Segment, scan: &WalScan, hint: Option<&ShmHint>, salt: [u32; 2]) -> bool {
    hint.is_some_and(|h| {
        (segment.first..=segment.last).contains(&h.max_frame) && super::live::names(h, scan, salt, h.max_frame)
    })
}

/// True when all frames behind the last commit, up to the last that verifies, have the headers of a transaction that
/// never ended, and no damaged word would explain a break among them.
pub(super) fn open(generation: &Generation, scan: &WalScan, from: usize, committed: u32) -> bool {
    let gaps = || generation.segments.iter().skip(from).filter_map(|s| s.gap.as_ref());
    let end = generation.segments.last().map_or(committed, |s| s.last);
    // What the images hold does not matter: an image is damaged or rewritten, and either way nobody committed it.
    let rewritten = |gap: &Gap| gap.proof.is_none() && gap.believed.is_none() && gap.rebuilt.is_none();
    let mut frames = (committed.saturating_add(1)..=end).filter_map(|n| scan.frame(n));
    gaps().all(rewritten) && frames.all(|f| f.salt == generation.salt && f.page != 0 && f.commit == 0)
}

/// Accepts segments from the front for as long as each is proved to descend from the one before.
pub(super) fn join(generation: &Generation, scan: &WalScan, hint: Option<&ShmHint>, v: &mut LogVerdict) -> Joined {
    let mut joined = Joined::default();
    // A frame of the live timeline at m makes every frame before m a frame of the live timeline.
    let confirmed_by = generation.segments.iter().rposition(|s| confirms(s, scan, hint, generation.salt));
    let mut committed = 0;
    // Verified frames behind the last commit of all, and behind a well-formed break, belong to a transaction that never
    // ended: SQLite rewrites spilled frames in place and mends the sums only at the commit. Behind damage they may be
    // what is left of one that did, and behind a whole header the break may be of a commit, unless the index knows that
    // there was none, or every header says so.
    let ended_by = generation.segments.iter().rposition(|s| last_commit(s, scan).is_some()).map_or(0, |i| i + 1);
    for (i, segment) in generation.segments.iter().enumerate() {
        let well_formed = segment.gap.as_ref().is_some_and(|g| g.kind == BreakKind::WellFormed);
        let none_since = || hint.is_some_and(|h| super::live::names(h, scan, generation.salt, committed));
        if i >= ended_by
            && (well_formed && (scan.header.is_err() || none_since()) || open(generation, scan, i, committed))
        {
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
            let gaps = generation.segments.iter().skip(i).filter_map(|s| s.gap.as_ref());
            joined.refused_lost.extend(gaps.flat_map(|g| &g.lost).map(|l| (l.frame, l.pages.clone())));
            joined.refused_damage |= gap.kind != BreakKind::WellFormed;
            break;
        }
        joined.bridged = true;
        committed = ends_with.unwrap_or(committed);
        joined.frames.push((segment.first, segment.last));
        joined.believed.extend(gap.believed);
        joined.mends.extend(gap.rebuilt);
        joined.guesses.extend(gap.guess);
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
