//! What lies behind damage in a log: facts only, judged in [`super::judge`].
//!
//! A frame is *verified* when it continues the stored checksum of its predecessor and belongs to the live generation.
//! Runs of verified frames are *segments*; between two of them lies a *gap*. Whether a segment may be joined to what
//! stands before it is the crux, because of **abandoned timelines**: after a lost write SQLite recovers to the last
//! valid commit and appends from there with the same salts, and the older commits behind the new frames stay verified
//! among themselves. Joining them would revert acknowledged commits, and `integrity_check` would not notice. So for
//! each gap this module collects what can prove, or refute, that the frames behind it descend from those before it:
//!
//! * *chain*: the sum itself carries through the gap once a single damaged word, or a damaged stored sum, is solved for;
//! * *continuity*: rows written by the last commits before the gap are (or are not) in the page images behind it;
//! * the wal-index hint, compared by the judge.

mod proof;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde::{Deserialize, Serialize};

use super::continuity::Past;
use super::overlay::Mend;
use super::page::{Shape, shape};
use super::wal::{FRAME_HEADER, ShmHint, WalScan, precedes, single_word_fixes};
use super::{ReadAt, read_vec};

/// Segments examined; each costs a look at all that stands before it. A log with more holes is refused behind the last.
const MAX_SEGMENTS: usize = 128;

/// Images read for each frame of the log, at most, in looking for rows across its gaps.
const IMAGES_EACH: usize = 24;

/// What the first frame of a gap looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakKind {
    /// Nothing verified stands before: the head of the log is gone.
    Head,
    /// Live salts and a plausible page: where a timeline was abandoned, or subtle damage.
    WellFormed,
    /// Salts of an older generation: a write that never arrived.
    Leftover,
    /// Zeroes: a write that never arrived, or an erased block.
    Zero,
    /// Salts that no generation in this log has.
    ForeignSalts,
    /// A page number of 0 or beyond any size the log names.
    PageNumber,
    /// Live salts, but an image that SQLite does not write.
    Malformed,
}

/// How the chain of checksums itself proves a gap bridged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChainProof {
    /// One damaged 32-bit word explains the difference.
    Word,
    /// Only the stored checksum of the first frame was damaged; both frames are verified through it.
    StoredSum,
    /// The header of the first frame was destroyed: run backwards from the second, the sum gives a page number and a
    /// commit size that are both possible. The second frame is verified, the first one's number is known.
    Header,
}

/// Whether rows written before a gap are there behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Continuity {
    /// Rows of the last commit before the gap are in the images behind it.
    Shown,
    /// Rows committed before the gap are missing or different behind it.
    Contradicted,
    /// Neither.
    Silent,
}

/// Unverified frames between two segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First and last frame of the gap; `first > last` when nothing but the header is missing.
    pub first: u32,
    /// Last frame of the gap.
    pub last: u32,
    /// What its first frame looks like.
    pub kind: BreakKind,
    /// Proof by the chain itself.
    pub proof: Option<ChainProof>,
    /// Proof or refutation by content.
    pub continuity: Continuity,
    /// Frames whose images could not be verified.
    pub lost: Vec<LostFrame>,
    /// The last frame of the gap, where only the lost checksum before it keeps it from being verified: its own header
    /// is intact, its own checksum is confirmed by the next frame, and its page is well-formed, while the frame before
    /// it is visibly destroyed. One contiguous damage cannot have reached its image; two could.
    pub believed: Option<u32>,
    /// The first frame, where its header is destroyed and the sum gives its page number and commit size: verified.
    #[serde(default)]
    pub rebuilt: Option<Mend>,
    /// The lost frame as it would be with one bit put right, where one bit and no other word explains its sum.
    #[serde(default)]
    pub guess: Option<Mend>,
}

/// A frame whose image is unverified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostFrame {
    /// Frame number.
    pub frame: u32,
    /// The pages it can have been; empty means any page.
    pub pages: Vec<u32>,
}

/// A run of verified frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// First verified frame.
    pub first: u32,
    /// Last verified frame.
    pub last: u32,
    /// What lies before it; `None` when it continues the valid header.
    pub gap: Option<Gap>,
}

/// How the database's own copy of a page relates to the images of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageFact {
    /// Page number.
    pub page: u32,
    /// First verified frame of the page whose image equals the database's page.
    pub equal: Option<u32>,
    /// First and last verified frame of the page.
    pub first: u32,
    /// Last verified frame of the page.
    pub last: u32,
    /// True when the last image equals the database's page.
    pub equals_last: bool,
    /// True when the page lies beyond the end of the database file.
    pub beyond: bool,
    /// Which side is newer by rowids or counters: 1 the log, -1 the database, 0 undecided.
    pub newer: i8,
}

/// One generation of frames (equal salts) and all that is known about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Its salts.
    pub salt: [u32; 2],
    /// Verified runs, ascending.
    pub segments: Vec<Segment>,
    /// Comparison with the database, one entry per page with a verified image.
    pub pages: Vec<PageFact>,
}

impl Generation {
    /// The scan with the headers of rebuilt frames put right; `None` when there are none.
    pub(super) fn mended(&self, scan: &WalScan) -> Option<WalScan> {
        let rebuilt: Vec<Mend> = self.segments.iter().filter_map(|s| s.gap.as_ref()?.rebuilt).collect();
        if rebuilt.is_empty() {
            return None;
        }
        let mut scan = scan.clone();
        rebuilt.iter().for_each(|mend| mend.apply(&mut scan));
        Some(scan)
    }
}

/// One look at a log beside its database.
pub(super) struct Examination<'a> {
    pub(super) scan: &'a WalScan,
    wal: &'a dyn ReadAt,
    db: Option<&'a dyn ReadAt>,
    pub(super) shm: Option<&'a ShmHint>,
    pub(super) usable: u32,
    max_pages: u32,
    /// Images that may still be read for the sake of continuity: many gaps must not read the log over and over.
    pub(super) budget: Cell<usize>,
}

/// Collects the facts of the live generation, or of the one nearest the head when the header is gone (the live
/// generation always starts at frame 1). `None` when no frame can be verified at all.
pub fn examine(
    scan: &WalScan,
    wal: &dyn ReadAt,
    db: Option<&dyn ReadAt>,
    reserved: u8,
    shm: Option<&ShmHint>,
) -> io::Result<Option<Generation>> {
    let lone = shm.and_then(|hint| Some((hint, proof::lone(scan, hint)?)));
    if let Some((hint, frame)) = lone {
        let look = Examination::new(scan, wal, db, reserved, shm, hint.pages);
        if let Some(segment) = look.lone_segment(hint.salt, frame)? {
            let segments = vec![segment];
            let pages = look.page_facts(&segments)?;
            return Ok(Some(Generation { salt: hint.salt, segments, pages }));
        }
    }
    let Some(salt) = generation(scan, shm) else { return Ok(None) };
    let commits = scan.frames.iter().filter(|f| f.linked && f.salt == salt).map(|f| f.commit).max().unwrap_or(0);
    let look = Examination::new(scan, wal, db, reserved, shm, commits);
    let segments = look.segments(salt)?;
    let mut generation = Generation { salt, segments, pages: Vec::new() };
    generation.pages = match generation.mended(scan) {
        Some(scan) => Examination { scan: &scan, ..look }.page_facts(&generation.segments)?,
        None => look.page_facts(&generation.segments)?,
    };
    Ok(Some(generation))
}

/// The generation to look at: the header's; else the one a valid wal-index names, if any verified frame has it; else
/// the first that shows a verified frame.
fn generation(scan: &WalScan, shm: Option<&ShmHint>) -> Option<[u32; 2]> {
    if let Ok(header) = &scan.header {
        return Some(header.salt);
    }
    let verified = |salt: [u32; 2]| scan.frames.iter().any(|f| f.linked && f.salt == salt);
    if let Some(hint) = shm.filter(|s| s.page_size == scan.page_size && verified(s.salt)) {
        return Some(hint.salt);
    }
    scan.frames.iter().find(|f| f.linked && f.page != 0).map(|f| f.salt)
}

/// True when the wal-index lists the same page for every verified frame of its generation that it covers. Where none
/// verifies, a header with the very checksum that it names will do.
pub fn agrees(scan: &WalScan, hint: &ShmHint) -> bool {
    let mut compared = 0;
    for (frame, listed) in scan.frames.iter().zip(&hint.frame_pages) {
        if frame.linked && frame.salt == hint.salt {
            if frame.page != *listed {
                return false;
            }
            compared += 1;
        }
    }
    compared > 0 || proof::lone(scan, hint).is_some()
}

/// Which frames are verified members of a generation.
pub fn verified(scan: &WalScan, salt: [u32; 2]) -> Vec<bool> {
    let mut known = Vec::with_capacity(scan.frames.len());
    let mut before = scan.header.is_ok_and(|h| h.salt == salt);
    for frame in &scan.frames {
        // The salts are outside the sum: a frame that continues a verified one is part of the chain whatever they say.
        before = frame.linked && frame.page != 0 && (frame.salt == salt || before);
        known.push(before);
    }
    known
}

impl<'a> Examination<'a> {
    /// `commits` is the largest size that a commit of the generation names.
    fn new(
        scan: &'a WalScan,
        wal: &'a dyn ReadAt,
        db: Option<&'a dyn ReadAt>,
        reserved: u8,
        shm: Option<&'a ShmHint>,
        commits: u32,
    ) -> Self {
        let held = db.map_or(0, |d| d.size() / u64::from(scan.page_size.max(1)));
        Self {
            scan,
            wal,
            db,
            shm: shm.filter(|s| agrees(scan, s)),
            usable: scan.page_size.saturating_sub(u32::from(reserved)),
            max_pages: commits.max(u32::try_from(held).unwrap_or(u32::MAX)).max(1),
            budget: Cell::new(IMAGES_EACH * scan.frames.len() + 64),
        }
    }

    fn slot(&self, n: u32) -> io::Result<Vec<u8>> {
        let at = self.scan.image_offset(n) - FRAME_HEADER;
        read_vec(self.wal, at, usize::try_from(self.scan.page_size).unwrap_or(0) + 24)
    }

    pub(super) fn image(&self, n: u32) -> io::Result<Vec<u8>> {
        Ok(self.slot(n)?.split_off(24))
    }

    pub(super) fn db_page(&self, page: u32) -> io::Result<Option<Vec<u8>>> {
        let len = usize::try_from(self.scan.page_size).unwrap_or(0);
        let Some(db) = self.db else { return Ok(None) };
        let at = u64::from(page.saturating_sub(1)) * u64::from(self.scan.page_size);
        let bytes = read_vec(db, at, len)?;
        Ok((bytes.len() == len).then_some(bytes))
    }

    fn segments(&self, salt: [u32; 2]) -> io::Result<Vec<Segment>> {
        let known = verified(self.scan, salt);
        let mut segments: Vec<Segment> = Vec::new();
        let mut past = Past::default();
        let mut end = 0_u32; // last frame accounted for
        let mut n = 1_u32;
        let is = |n: u32| known.get(usize::try_from(n - 1).unwrap_or(usize::MAX)).copied().unwrap_or(false);
        while n <= self.scan.len() && segments.len() < MAX_SEGMENTS {
            if !is(n) {
                n += 1;
                continue;
            }
            let first = n;
            while n < self.scan.len() && is(n + 1) {
                n += 1;
            }
            let whole = first == 1 && self.scan.header.is_ok();
            let gap = if whole { None } else { Some(self.gap(salt, &past, end, first, n)?) };
            let from = gap.as_ref().and_then(|g| match g.proof {
                Some(ChainProof::StoredSum | ChainProof::Header) => Some(g.first),
                _ => g.believed,
            });
            past.extend(self.scan, from.unwrap_or(first)..=n);
            segments.push(Segment { first: from.unwrap_or(first), last: n, gap });
            end = n;
            n += 1;
        }
        Ok(segments)
    }

    fn gap(&self, salt: [u32; 2], past: &Past, end: u32, next: u32, next_last: u32) -> io::Result<Gap> {
        let (first, last) = (end + 1, next - 1);
        let headless = end == 0 && self.scan.header.is_err();
        let seed = match (end, &self.scan.header) {
            (0, Ok(h)) => Some(h.sum),
            (0, Err(_)) => None,
            _ => self.scan.frame(end).map(|f| f.stored),
        };
        let mut fixes = Vec::new();
        let mut proof = None;
        let mut rebuilt = None;
        let mut guess = None;
        if let Some(seed) = seed.filter(|_| last >= first && last - first <= 1) {
            let slot = self.slot(first)?;
            if first == last {
                fixes = single_word_fixes(self.scan.big_endian, seed, &slot);
                proof = (!fixes.is_empty()).then_some(ChainProof::Word);
                guess = self.bit(salt, first, &slot, &fixes);
            } else {
                let second = self.slot(last)?;
                let (through, number) = self.through(seed, &slot, &second);
                // Two flips of the topmost bit, one in each frame, cancel each other in the sum. Then one word alone
                // also explains the first frame, which a lost sum does only by chance.
                let alike = through && !single_word_fixes(self.scan.big_endian, seed, &slot).is_empty();
                proof = if through && alike {
                    None
                } else if through {
                    Some(ChainProof::StoredSum)
                } else {
                    rebuilt = number.map(|(page, commit)| Mend { frame: first, page, commit, word: None });
                    number.map(|_| ChainProof::Header)
                };
            }
        }
        let kind = if headless || last < first { BreakKind::Head } else { self.break_kind(salt, first)? };
        let believed = if proof.is_none() && last >= first { self.believed(salt, last)? } else { None };
        let mut lost = Vec::new();
        for frame in first..=last {
            if matches!(proof, Some(ChainProof::StoredSum | ChainProof::Header)) || believed == Some(frame) {
                continue;
            }
            let mut pages = self.lost_pages(salt, frame, kind != BreakKind::WellFormed || proof.is_some());
            for fix in fixes.iter().filter(|f| f.word == 0) {
                let page = self.scan.frame(frame).map_or(0, |f| f.page).wrapping_add(fix.delta);
                if !pages.is_empty() && (1..=self.max_pages).contains(&page) {
                    pages.push(page);
                }
            }
            lost.push(LostFrame { frame, pages });
        }
        let continuity = self.continuity(past, next, next_last)?;
        Ok(Gap { first, last, kind, proof, continuity, lost, believed, rebuilt, guess })
    }

    fn break_kind(&self, salt: [u32; 2], n: u32) -> io::Result<BreakKind> {
        let Some(frame) = self.scan.frame(n) else { return Ok(BreakKind::Head) };
        let slot = self.slot(n)?;
        if slot.iter().all(|b| *b == 0) {
            return Ok(BreakKind::Zero);
        }
        let image = slot.get(24..).unwrap_or(&[]);
        let plausible = shape(image, frame.page, self.usable, self.max_pages);
        if frame.salt != salt {
            // Each reset of the log adds one to salt-1: an older generation is a little below the live one.
            let older = precedes(frame.salt, salt);
            let shared = self.scan.frames.iter().filter(|f| f.salt == frame.salt).count() > 1;
            let leftover = (older || shared) && plausible != Shape::Malformed;
            return Ok(if leftover || plausible == Shape::Zero && frame.salt == [0, 0] {
                BreakKind::Leftover
            } else {
                BreakKind::ForeignSalts
            });
        }
        if !(1..=self.max_pages).contains(&frame.page) {
            return Ok(BreakKind::PageNumber);
        }
        Ok(match plausible {
            Shape::Plausible => BreakKind::WellFormed,
            Shape::Zero | Shape::Malformed => BreakKind::Malformed,
        })
    }

    /// The pages a lost frame can have been: the number in its header while the salts beside it are intact, and the
    /// one the wal-index lists. Nothing else narrows it down: frames are not always in page order.
    ///
    /// A frame that looks whole and does not continue the chain may be another one, written astray: then its own header
    /// says nothing (`own` is false).
    fn lost_pages(&self, salt: [u32; 2], n: u32, own: bool) -> Vec<u32> {
        let mut pages = BTreeSet::new();
        let believable = |p: &u32| (1..=self.max_pages).contains(p);
        pages.extend(self.scan.frame(n).filter(|f| own && f.salt == salt).map(|f| f.page).filter(believable));
        let listed = self.shm.filter(|s| s.salt == salt);
        let index = usize::try_from(n - 1).unwrap_or(usize::MAX);
        pages.extend(listed.and_then(|s| s.frame_pages.get(index)).copied().filter(believable));
        pages.into_iter().collect()
    }

    fn page_facts(&self, segments: &[Segment]) -> io::Result<Vec<PageFact>> {
        let mut history: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for n in segments.iter().flat_map(|s| s.first..=s.last) {
            history.entry(self.scan.frame(n).map_or(0, |f| f.page)).or_default().push(n);
        }
        let mut facts = Vec::with_capacity(history.len());
        for (page, frames) in history {
            let (first, last) = (frames.first().copied().unwrap_or(0), frames.last().copied().unwrap_or(0));
            let held = self.db_page(page)?;
            let last_image = self.image(last)?;
            let mut fact =
                PageFact { page, equal: None, first, last, equals_last: false, beyond: held.is_none(), newer: 0 };
            if let Some(held) = held {
                fact.equals_last = held == last_image;
                for n in &frames {
                    if self.image(*n)? == held {
                        fact.equal = Some(*n);
                        break;
                    }
                }
                if fact.equal.is_none() {
                    fact.newer = super::continuity::newer(page, &last_image, &held, self.usable);
                }
            }
            facts.push(fact);
        }
        Ok(facts)
    }
}
