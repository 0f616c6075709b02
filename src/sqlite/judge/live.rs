//! Whether a generation whose header is gone is the live one, and whether the database has gone past it.
//!
//! A stale generation must not be applied: it was copied back completely before the log was begun anew, so the database
//! holds its last images, or newer ones. The database may also be ahead of what survives of the live generation: a
//! checkpoint had copied frames that are lost now. Then folding the survivors in would take commits back that the
//! engine, which ignores a log without a header, still has.

use crate::sqlite::resync::{Generation, Segment, agrees};
use crate::sqlite::wal::{LogTail, ShmHint, WalScan, precedes};

/// How the surviving frames relate to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Liveness {
    /// They are of the live generation, and ahead of the database.
    Live,
    /// They are older than the database.
    Stale,
    /// The database holds all of them.
    NoOp,
    /// Nothing verifies.
    Nothing,
    /// It cannot be told.
    Unclear,
}

/// Frames between the segments that could not be verified.
pub(super) fn unverified(generation: &Generation) -> usize {
    generation.segments.iter().filter_map(|s| s.gap.as_ref()).map(|g| g.lost.len()).sum()
}

/// True when no frame is verified, and one is believed.
fn only_believed(generation: &Generation) -> bool {
    let believed = |s: &Segment| s.first == s.last && s.gap.as_ref().is_some_and(|g| g.believed == Some(s.last));
    !generation.segments.is_empty() && generation.segments.iter().all(believed)
}

/// True when the first frame is verified: it belongs to whichever generation was written last.
pub(in crate::sqlite) fn from_the_first(generation: &Generation) -> bool {
    generation.segments.first().is_some_and(|s| s.first == 1)
}

/// The index names this very frame, with its checksum, as the last commit, and lists the pages that the frames have.
pub(in crate::sqlite) fn names(hint: &ShmHint, scan: &WalScan, salt: [u32; 2], frame: u32) -> bool {
    hint.salt == salt
        && hint.max_frame == frame
        && scan.frame(frame).is_some_and(|f| f.stored == hint.sum)
        && agrees(scan, hint)
}

/// A wal-index of the same salts says live; one that is ahead says stale; without it the pages are compared.
pub(super) fn liveness(generation: &Generation, hint: Option<&ShmHint>) -> Liveness {
    let Some(first) = generation.segments.first() else { return Liveness::Nothing };
    let differ = generation.pages.iter().filter(|p| !p.equals_last).count();
    if let Some(h) = hint {
        if h.salt == generation.salt {
            // A lone frame that is only believed can be of the generation before, where the index is that old, too.
            if only_believed(generation) && generation.pages.iter().any(|p| p.newer < 0) {
                return Liveness::Stale;
            }
            let last = generation.segments.last().map_or(0, |s| s.last);
            // The count of frames copied back is outside the index's checksum: the pages must bear it out.
            let cut_off = usize::try_from(h.max_frame.saturating_sub(last)).unwrap_or(usize::MAX);
            let borne_out = differ <= unverified(generation).saturating_add(cut_off);
            return if h.backfilled >= h.max_frame && last <= h.max_frame && borne_out {
                Liveness::NoOp
            } else if h.max_frame < first.first {
                Liveness::Unclear
            } else {
                Liveness::Live
            };
        }
        if precedes(generation.salt, h.salt) {
            return Liveness::Stale;
        }
    }
    if differ == 0 {
        return Liveness::NoOp;
    }
    if from_the_first(generation) {
        return Liveness::Live;
    }
    // Only what is written when page 1 is counts its changes; and a stale log can name pages that a vacuum took away.
    if generation.pages.iter().any(|p| p.page == 1 && p.newer < 0) {
        return Liveness::Stale;
    }
    let ahead = generation.pages.iter().any(|p| p.newer > 0 || p.beyond);
    let behind = generation.pages.iter().any(|p| p.newer < 0);
    if generation.pages.iter().any(|p| p.equal.is_some() && !p.equals_last) {
        return Liveness::Live;
    }
    match (ahead, behind) {
        (true, false) => Liveness::Live,
        (false, true) => Liveness::Stale,
        _ => Liveness::Unclear,
    }
}

/// True when the database may hold commits behind `best`, the last commit that can be folded in, though the header is
/// gone and the engine would open the database alone. `latest` is the last commit that survives, `end` what is behind.
pub(in crate::sqlite) fn may_be_ahead(
    generation: &Generation,
    scan: &WalScan,
    hint: Option<&ShmHint>,
    best: u32,
    latest: u32,
    end: LogTail,
) -> bool {
    let pages = &generation.pages;
    if pages.iter().any(|p| p.equal.is_some_and(|f| f > best) || (p.page == 1 && p.newer < 0)) {
        return true;
    }
    // An index that names the commit, or a later one, knows how far a checkpoint had come.
    let knows = |h: &ShmHint| {
        names(h, scan, generation.salt, latest) || h.salt == generation.salt && h.max_frame > latest && agrees(scan, h)
    };
    if hint.is_some_and(|h| knows(h) && h.backfilled.max(h.backfill_attempted) <= best) {
        return false;
    }
    if from_the_first(generation) && best == latest && end == LogTail::Clean {
        return false;
    }
    // A page that stands in the database as it was before its last image here, or is not there yet.
    let older = |p: &crate::sqlite::resync::PageFact| p.beyond || (p.equal.is_some() && !p.equals_last);
    if pages.iter().any(|p| p.last <= best && older(p) || p.page == 1 && p.newer > 0) {
        return false;
    }
    // Each lost frame can explain one page that equals no image; more of them say that nothing was copied back. Where
    // the file ends within a frame, nobody knows how many are gone.
    let last = usize::try_from(generation.segments.last().map_or(0, |s| s.last)).unwrap_or(usize::MAX);
    let behind = scan.frames.get(last..).unwrap_or(&[]);
    if end != LogTail::Clean && behind.is_empty() {
        return true;
    }
    let noise = if end == LogTail::Clean { 0 } else { behind.len() };
    let unlike = pages.iter().filter(|p| !p.beyond && p.equal.is_none()).count();
    unlike <= unverified(generation) + noise
}
