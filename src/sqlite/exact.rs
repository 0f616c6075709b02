//! The exactness rule: up to which commit a timeline with unverified frames can be folded without losing anything.

use std::collections::BTreeSet;

use super::judge::{DbSize, Joined};
use super::observe::LogFacts;
use super::overlay::{Fold, lock_byte_page};
use super::resync::Generation;
use super::verdict::{Candidate, Completeness, Finding, Level, LogVerdict};
use super::wal::{ShmHint, WalScan};
use crate::config::Rung;

/// Adds the candidates that follow from the accepted segments, best first, and completes the verdict.
pub(super) fn candidates(
    joined: &Joined,
    scan: &WalScan,
    generation: &Generation,
    hint: Option<&ShmHint>,
    db: DbSize,
    facts: &LogFacts,
    v: &mut LogVerdict,
) {
    let accepted: Vec<u32> = joined.frames.iter().flat_map(|(a, b)| *a..=*b).collect();
    let commits: Vec<u32> =
        accepted.iter().copied().filter(|n| scan.frame(*n).is_some_and(|f| f.commit != 0)).collect();
    let latest = commits.last().copied().unwrap_or(0);
    let size_at = |c: u32| scan.frame(c).map_or(0, |f| f.commit);
    let fold = |c: u32| Fold {
        page_size: scan.page_size,
        frames: joined.frames.clone(),
        upto: c,
        pages: size_at(c),
        sum: scan.frame(c).map_or([0, 0], |f| f.stored),
    };
    let windows: Vec<(u32, u32)> =
        joined.lost.iter().map(|(n, pages)| (*n, superseded_at(*n, pages, &accepted, scan, size_at(latest)))).collect();
    let exact = |c: &u32| windows.iter().all(|(from, to)| c < from || c >= to);
    let best = commits.iter().rev().copied().find(exact).unwrap_or(0);
    // A frame with live salts that nothing accounts for may be a commit that was destroyed.
    let unaccounted = scan
        .frames
        .iter()
        .skip(usize::try_from(accepted.last().copied().unwrap_or(0)).unwrap_or(0))
        .any(|f| f.salt == generation.salt);
    let named = hint.is_some_and(|h| {
        h.salt == generation.salt && h.max_frame == latest && scan.frame(latest).is_some_and(|f| f.stored == h.sum)
    });
    let at = |n: &u32| scan.frame(*n).map_or(0, |f| f.page);
    // A believed frame that no later image supersedes carries the result: good enough to use, not to call complete.
    let trusted = |n: &u32| superseded_at(*n, &[at(n)], &accepted, scan, 0) <= best;
    let confirmed = named && !joined.refused && !unaccounted && joined.believed.iter().all(trusted);
    let beyond = hint.is_some_and(|h| h.salt == generation.salt && h.max_frame > latest && h.max_frame > h.backfilled);
    let whole = match (best == latest, beyond || joined.refused_damage, confirmed) {
        (false, _, _) | (_, true, _) => Completeness::Lossy,
        (true, false, true) => Completeness::Complete,
        (true, false, false) => Completeness::Unknown,
    };
    v.completeness = if latest > facts.committed || whole == Completeness::Lossy {
        Completeness::Lossy
    } else {
        Completeness::Unknown
    };
    if beyond {
        let text = "the wal-index names committed frames behind the last one that could be verified: they are lost";
        v.findings.push(Finding::new(Level::Error, "committed-frames-missing", text).at_frame(latest + 1));
    }
    if !holds_every_page(&fold(best), scan, db) {
        let text = "the frames that verify do not make a whole database together with the file; salvage is needed";
        v.findings.push(Finding::new(Level::Error, "log-insufficient", text));
        return;
    }
    if !base_is_clean(best, &accepted, scan, generation) {
        if db.present && generation.pages.iter().all(|p| p.equals_last) {
            // Every surviving image is in the database already; what is lost was lost with the destroyed frames.
            v.candidates.push(Candidate {
                rung: Rung::Replay,
                base: Fold::nothing(db.page_size.unwrap_or(scan.page_size)),
                extras: None,
                completeness: Completeness::Lossy,
                frames_lost: latest.saturating_sub(best),
                in_doubt: joined.refused,
            });
            return;
        }
        let text = "a checkpoint had copied part of this log into the database, and frames it needs are lost; \
                    no earlier state can be proved consistent, so nothing is changed: salvage is needed";
        v.findings.push(Finding::new(Level::Error, "half-checkpointed", text));
        return;
    }
    let rung = if joined.bridged && best > facts.committed { Rung::Resync } else { Rung::Replay };
    let given_up = latest.saturating_sub(best);
    let extras = (best < latest).then(|| fold(latest));
    let base = if best == 0 { Fold::nothing(db.page_size.unwrap_or(scan.page_size)) } else { fold(best) };
    let rung = if extras.is_some() { Rung::Resync } else { rung };
    if best == 0 && !db.present && extras.is_none() {
        // Nothing verifies and there is no file: an empty database is the policy's word, not ours.
        return;
    }
    v.candidates.push(Candidate {
        rung,
        base: base.clone(),
        extras: extras.clone(),
        completeness: whole,
        frames_lost: given_up,
        in_doubt: joined.refused,
    });
    if extras.is_some() && db.present {
        let rung = if best > facts.committed { Rung::Resync } else { Rung::Replay };
        v.candidates.push(Candidate {
            rung,
            base,
            extras: None,
            completeness: whole,
            frames_lost: given_up,
            in_doubt: joined.refused,
        });
    }
}

/// The frame by which every page a lost frame can have been has a later accepted image; `u32::MAX` when never.
fn superseded_at(lost: u32, pages: &[u32], accepted: &[u32], scan: &WalScan, size: u32) -> u32 {
    let mut open: BTreeSet<u32> = if pages.is_empty() { (1..=size).collect() } else { pages.iter().copied().collect() };
    for n in accepted.iter().filter(|n| **n > lost) {
        if let Some(frame) = scan.frame(*n) {
            open.remove(&frame.page);
        }
        if open.is_empty() {
            return *n;
        }
    }
    u32::MAX
}

/// Every page up to the commit's size is in the file or among the images: otherwise the log is another database's.
fn holds_every_page(fold: &Fold, scan: &WalScan, db: DbSize) -> bool {
    if fold.upto == 0 {
        return true;
    }
    let images = fold.images(scan);
    let held = if db.present { db.pages } else { 0 };
    let lock = lock_byte_page(fold.page_size);
    (held + 1..=fold.pages).all(|p| p == lock || images.contains_key(&p))
}

/// No page of the database comes from a frame behind the commit: a checkpoint may have copied later images already,
/// and a page without an image at or before the commit would keep them.
fn base_is_clean(best: u32, accepted: &[u32], scan: &WalScan, generation: &Generation) -> bool {
    let covered: BTreeSet<u32> =
        accepted.iter().filter(|n| **n <= best).filter_map(|n| scan.frame(*n)).map(|f| f.page).collect();
    generation.pages.iter().all(|p| covered.contains(&p.page) || p.equal.is_none())
}
