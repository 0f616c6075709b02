//! The exactness rule: up to which commit a timeline with unverified frames can be folded without losing anything.

mod windows;

use std::collections::BTreeSet;

use super::judge::{DbSize, Joined, may_be_ahead, names};
use super::observe::LogFacts;
use super::overlay::{Fold, Mend, lock_byte_page};
use super::resync::Generation;
use super::verdict::{Candidate, Completeness, Exactness, Finding, Level, LogVerdict, Proof};
use super::wal::{LogTail, ShmHint, WalScan};
use crate::config::Rung;
use windows::{Images, last_exact};

/// Everything the rule looks at.
pub(super) struct Case<'a> {
    pub joined: &'a Joined,
    pub scan: &'a WalScan,
    pub generation: &'a Generation,
    pub hint: Option<&'a ShmHint>,
    pub db: DbSize,
    pub facts: &'a LogFacts,
}

/// What the rule finds.
struct Found {
    /// The last exact commit, and the last one that survives; 0 when there is none.
    best: u32,
    latest: u32,
    /// Commits up to `best`, and behind it.
    kept: u32,
    behind: u32,
    /// What stands behind the last accepted frame and the unfinished transaction that may follow it.
    end: LogTail,
    /// The index names `latest`, with its checksum.
    named: bool,
    /// The index names frames behind `latest`.
    beyond: bool,
    /// Verified frames were left out because nothing proves that they belong.
    in_doubt: bool,
    /// Believed frames that carry the result.
    believed: Vec<u32>,
    completeness: Completeness,
}

impl Case<'_> {
    fn accepted(&self) -> Vec<u32> {
        self.joined.frames.iter().flat_map(|(a, b)| *a..=*b).collect()
    }

    fn find(&self) -> Found {
        let (scan, salt) = (self.scan, self.generation.salt);
        let accepted = self.accepted();
        let is_commit = |n: &u32| scan.frame(*n).is_some_and(|f| f.commit != 0);
        let commits: Vec<u32> = accepted.iter().copied().filter(is_commit).collect();
        let latest = commits.last().copied().unwrap_or(0);
        let images = Images::new(&accepted, scan);
        let windows = images.windows(&self.joined.lost, &commits);
        let best = last_exact(&commits, &windows);
        let last = accepted.last().copied().unwrap_or(0);
        // Frames that continue the last commit without ending one are a transaction that never ended. Any other frame
        // with live salts, and noise where the next commit would stand, may be a commit that was destroyed.
        let open = scan.unfinished(last, salt);
        let end = scan.tail(open, salt);
        let rest = scan.frames.get(usize::try_from(open).unwrap_or(usize::MAX)..).unwrap_or(&[]);
        let unaccounted = rest.iter().any(|f| f.salt == salt) || end != LogTail::Clean;
        let in_doubt = self.joined.refused || rest.iter().any(|f| f.linked && f.commit != 0 && f.salt == salt);
        let named = self.hint.is_some_and(|h| names(h, scan, salt, latest));
        let page = |n: u32| scan.frame(n).map_or(0, |f| f.page);
        // A believed frame that no later image supersedes carries the result: good enough to use, not to call exact.
        // Nor is it known to be of the page, or to end the commit, that its own header names: of that page if the index
        // lists it, else of any.
        let listed = |n: u32| {
            let at = usize::try_from(n.saturating_sub(1)).unwrap_or(usize::MAX);
            let names = |h: &&ShmHint| h.salt == salt && h.frame_pages.get(at) == Some(&page(n));
            self.hint.is_some_and(|h| names(&h))
        };
        let replaced = |n: u32| if listed(n) { images.next(page(n), n) } else { images.any_page(n, &commits) };
        let carries = |n: &u32| *n <= best && (*n == best || replaced(*n) > best);
        let believed: Vec<u32> = self.joined.believed.iter().copied().filter(carries).collect();
        let confirmed = named && !self.joined.refused && !unaccounted && believed.is_empty();
        let beyond = self.hint.is_some_and(|h| h.salt == salt && h.max_frame > latest && h.max_frame > h.backfilled);
        let completeness = match (best == latest, beyond || self.joined.refused_damage, confirmed) {
            (false, _, _) | (_, true, _) => Completeness::Lossy,
            (true, false, true) => Completeness::Complete,
            (true, false, false) => Completeness::Unknown,
        };
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let kept = count(commits.partition_point(|c| *c <= best));
        let left_out = rest.iter().filter(|f| f.linked && f.commit != 0 && f.salt == salt).count();
        let behind = count(commits.len() + left_out).saturating_sub(kept);
        Found { best, latest, kept, behind, end, named, beyond, in_doubt, believed, completeness }
    }

    fn fold(&self, upto: u32) -> Fold {
        let last = self.scan.frame(upto);
        Fold {
            page_size: self.scan.page_size,
            frames: self.joined.frames.clone(),
            upto,
            pages: last.map_or(0, |f| f.commit),
            sum: last.map_or([0, 0], |f| f.stored),
            mends: self.joined.mends.iter().filter(|m| m.frame <= upto).copied().collect(),
        }
    }
}

impl Found {
    fn proof(&self, guesses: &[Mend]) -> Proof {
        let mut why = Vec::new();
        let mut say = |when: bool, code: &str| {
            if when {
                why.push(code.to_string());
            }
        };
        say(self.best == self.latest, "every-lost-frame-superseded");
        say(self.best < self.latest, "a-lost-frame-matters-behind-it");
        say(self.named, "index-names-the-last-commit");
        say(self.beyond, "index-names-later-commits");
        say(self.in_doubt, "verified-frames-left-out");
        say(self.end == LogTail::Noise, "damage-behind-the-last-commit");
        say(!self.believed.is_empty(), "frames-believed");
        say(!guesses.is_empty(), "bit-restored-from-checksum");
        let exactness = if !self.believed.is_empty() || !guesses.is_empty() {
            Exactness::Plausible
        } else if self.best == self.latest && !self.in_doubt && !self.beyond {
            Exactness::ExactLatest
        } else {
            Exactness::ExactEarlier
        };
        Proof {
            exactness,
            commits_kept: self.kept,
            commits_left_out: self.behind,
            commits_lost: (self.completeness == Completeness::Complete).then_some(0),
            believed: self.believed.clone(),
            why,
        }
    }
}

/// Adds the candidates that follow from the accepted segments, best first, and completes the verdict.
pub(super) fn candidates(case: &Case<'_>, v: &mut LogVerdict) {
    let Case { joined, scan, generation, hint, db, facts } = *case;
    let found = case.find();
    let (best, latest) = (found.best, found.latest);
    v.completeness = if latest > facts.committed || found.completeness == Completeness::Lossy {
        Completeness::Lossy
    } else {
        Completeness::Unknown
    };
    if found.beyond {
        let text = "the wal-index names committed frames behind the last one that could be verified: they are lost";
        v.findings.push(Finding::new(Level::Error, "committed-frames-missing", text).at_frame(latest + 1));
    }
    if !holds_every_page(&case.fold(best), scan, db) {
        let text = "the frames that verify do not make a whole database together with the file; salvage is needed";
        v.findings.push(Finding::new(Level::Error, "log-insufficient", text));
        return;
    }
    if best > facts.committed && db.present && may_be_ahead(generation, scan, hint, best, latest, found.end) {
        let text = "the database may hold commits that are lost in the log, and the engine, which ignores the log, would \
                    still find them; nothing is changed";
        v.findings.push(Finding::new(Level::Error, "database-may-be-newer", text));
        return;
    }
    let alone = Fold::nothing(db.page_size.unwrap_or(scan.page_size));
    let given_up = latest.saturating_sub(best);
    let mut candidate = Candidate {
        rung: Rung::Replay,
        base: alone.clone(),
        rollback: None,
        extras: None,
        completeness: found.completeness,
        frames_lost: given_up,
        in_doubt: found.in_doubt,
        proof: found.proof(&[]),
    };
    // An index that names this very commit knows whether a checkpoint had begun; a page may equal an image because the
    // write changed nothing.
    let untouched = found.named && hint.is_some_and(|h| h.backfilled == 0 && h.backfill_attempted == 0);
    if !untouched && !base_is_clean(best, case) {
        if db.present && generation.pages.iter().all(|p| p.equals_last) {
            // Every surviving image is in the database already; what is lost was lost with the destroyed frames.
            candidate.completeness = Completeness::Lossy;
            candidate.proof = Proof { why: vec!["log-already-in-the-database".into()], ..Proof::default() };
            v.candidates.push(candidate);
            return;
        }
        let text = "a checkpoint had copied part of this log into the database, and frames it needs are lost; \
                    no earlier state can be proved consistent, so nothing is changed: salvage is needed";
        v.findings.push(Finding::new(Level::Error, "half-checkpointed", text));
        return;
    }
    restored(case, &found, v);
    if best == 0 && !db.present && latest == 0 {
        // Nothing verifies and there is no file: an empty database is the policy's word, not ours.
        return;
    }
    if best > 0 {
        candidate.base = case.fold(best);
    }
    let replay = if joined.bridged && best > facts.committed { Rung::Resync } else { Rung::Replay };
    if best < latest {
        let extras = Some(case.fold(latest));
        v.candidates.push(Candidate { rung: Rung::Resync, extras, ..candidate.clone() });
    }
    if best == latest || db.present {
        v.candidates.push(Candidate { rung: replay, ..candidate });
    }
}

/// The candidate in which a frame that differs from its checksum by exactly one bit is put right. The checksum has 64
/// bits, and a frame some ten thousand places for one bit: that another damage looks so is chance once in 2^49. It is
/// offered where that bit decides, and never called exact.
fn restored(case: &Case<'_>, found: &Found, v: &mut LogVerdict) {
    let guesses = &case.joined.guesses;
    if guesses.is_empty() {
        return;
    }
    let mut scan = case.scan.clone();
    let mut joined = case.joined.clone();
    for guess in guesses {
        guess.apply(&mut scan);
        joined.lost.retain(|(n, _)| *n != guess.frame);
        joined.frames.push((guess.frame, guess.frame));
        joined.mends.push(*guess);
    }
    joined.frames.sort_unstable();
    let whole = Case { joined: &joined, scan: &scan, ..*case };
    let then = whole.find();
    let used: Vec<Mend> = guesses.iter().filter(|g| g.frame <= then.best).copied().collect();
    let ahead = || case.db.present && may_be_ahead(case.generation, &scan, case.hint, then.best, then.latest, then.end);
    if then.best <= found.best
        || used.is_empty()
        || !base_is_clean(then.best, &whole)
        || !holds_every_page(&whole.fold(then.best), &scan, case.db)
        || ahead()
    {
        return;
    }
    let list: Vec<String> = used.iter().map(|g| g.frame.to_string()).collect();
    let text = format!("frame {} differs from its checksum by a single bit, which is put right", list.join(", "));
    v.findings.push(Finding::new(Level::Warning, "wal-bit-restored", text));
    v.candidates.push(Candidate {
        rung: Rung::Resync,
        base: whole.fold(then.best),
        rollback: None,
        extras: None,
        completeness: then.completeness.max(Completeness::Unknown),
        frames_lost: then.latest.saturating_sub(then.best),
        in_doubt: then.in_doubt,
        proof: then.proof(&used),
    });
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
fn base_is_clean(best: u32, case: &Case<'_>) -> bool {
    let page = |n: &u32| case.scan.frame(*n).map(|f| f.page);
    let covered: BTreeSet<u32> = case.accepted().iter().filter(|n| **n <= best).filter_map(page).collect();
    let pages = &case.generation.pages;
    // What a checkpoint copied from frames that are lost equals no image; each of their pages must be covered, too.
    let copied = |h: &ShmHint| h.salt == case.generation.salt && h.backfilled.max(h.backfill_attempted) > best;
    let checkpointed = case.hint.is_some_and(copied) || pages.iter().any(|p| p.equal.is_some());
    let lost = case.joined.lost.iter().chain(&case.joined.refused_lost).filter(|(n, _)| *n > best);
    let mut hidden = lost.filter(|(_, pages)| pages.is_empty() || pages.iter().any(|p| !covered.contains(p)));
    pages.iter().all(|p| covered.contains(&p.page) || p.equal.is_none()) && !(checkpointed && hidden.next().is_some())
}
