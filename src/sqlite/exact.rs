//! The exactness rule: up to which commit a timeline with unverified frames can be folded without losing anything.

use std::collections::{BTreeMap, BTreeSet};

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
    let images = Images::new(&accepted, scan);
    let windows = images.windows(&joined.lost, size_at(latest));
    let best = last_exact(&commits, &windows);
    // A frame with live salts that nothing accounts for may be a commit that was destroyed.
    let behind = scan.frames.get(usize::try_from(accepted.last().copied().unwrap_or(0)).unwrap_or(0)..).unwrap_or(&[]);
    let unaccounted = behind.iter().any(|f| f.salt == generation.salt);
    let in_doubt = joined.refused || behind.iter().any(|f| f.linked && f.commit != 0 && f.salt == generation.salt);
    let named = hint.is_some_and(|h| {
        h.salt == generation.salt && h.max_frame == latest && scan.frame(latest).is_some_and(|f| f.stored == h.sum)
    });
    let at = |n: &u32| scan.frame(*n).map_or(0, |f| f.page);
    // A believed frame that no later image supersedes carries the result: good enough to use, not to call complete.
    let trusted = |n: &u32| images.next(at(n), *n) <= best;
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
    // An index that names this very commit knows whether a checkpoint had begun; a page may equal an image because the
    // write changed nothing.
    let untouched = named && hint.is_some_and(|h| h.backfilled == 0 && h.backfill_attempted == 0);
    if !untouched && !base_is_clean(best, &accepted, scan, generation) {
        if db.present && generation.pages.iter().all(|p| p.equals_last) {
            // Every surviving image is in the database already; what is lost was lost with the destroyed frames.
            v.candidates.push(Candidate {
                rung: Rung::Replay,
                base: Fold::nothing(db.page_size.unwrap_or(scan.page_size)),
                extras: None,
                completeness: Completeness::Lossy,
                frames_lost: latest.saturating_sub(best),
                in_doubt,
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
        in_doubt,
    });
    if extras.is_some() && db.present {
        let rung = if best > facts.committed { Rung::Resync } else { Rung::Replay };
        v.candidates.push(Candidate { rung, base, extras: None, completeness: whole, frames_lost: given_up, in_doubt });
    }
}

/// The last commit that lies in no window; windows and commits ascend. 0 when there is none.
fn last_exact(commits: &[u32], windows: &[(u32, u32)]) -> u32 {
    let mut open = windows.iter().peekable();
    let (mut closed_by, mut best) = (0, 0);
    for commit in commits {
        while let Some((_, to)) = open.next_if(|(from, _)| from <= commit) {
            closed_by = closed_by.max(*to);
        }
        if closed_by <= *commit {
            best = *commit;
        }
    }
    best
}

/// Where each page has its accepted images.
struct Images<'a> {
    accepted: &'a [u32],
    scan: &'a WalScan,
    of: BTreeMap<u32, Vec<u32>>,
}

impl<'a> Images<'a> {
    fn new(accepted: &'a [u32], scan: &'a WalScan) -> Self {
        let mut of: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for n in accepted {
            of.entry(scan.frame(*n).map_or(0, |f| f.page)).or_default().push(*n);
        }
        Self { accepted, scan, of }
    }

    /// The first accepted image of a page behind a frame; `u32::MAX` when there is none.
    fn next(&self, page: u32, behind: u32) -> u32 {
        let frames = self.of.get(&page).map_or(&[][..], Vec::as_slice);
        frames.get(frames.partition_point(|n| *n <= behind)).copied().unwrap_or(u32::MAX)
    }

    /// For each lost frame the stretch of commits at which it matters: from itself to the frame by which every page it
    /// can have been has a later image.
    fn windows(&self, lost: &[(u32, Vec<u32>)], size: u32) -> Vec<(u32, u32)> {
        // Lost frames of one gap have the same accepted frames behind them, and so the same answer for "any page".
        let mut any: BTreeMap<usize, u32> = BTreeMap::new();
        let mut to = |n: u32, pages: &[u32]| match pages.iter().map(|p| self.next(*p, n)).max() {
            Some(to) => to,
            None => {
                let at = self.accepted.partition_point(|a| *a <= n);
                *any.entry(at).or_insert_with(|| self.every_page(at, size))
            }
        };
        lost.iter().map(|(n, pages)| (*n, to(*n, pages))).collect()
    }

    /// The frame by which every page up to `size` has an image among the accepted frames from `at` on.
    fn every_page(&self, at: usize, size: u32) -> u32 {
        let mut seen = BTreeSet::new();
        for n in self.accepted.get(at..).unwrap_or(&[]) {
            seen.extend(self.scan.frame(*n).map(|f| f.page).filter(|p| *p <= size));
            if u32::try_from(seen.len()).is_ok_and(|found| found >= size) {
                return *n;
            }
        }
        u32::MAX
    }
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
