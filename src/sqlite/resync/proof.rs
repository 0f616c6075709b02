//! What ties frames together across damage: the sum solved for what is missing, and frames that are only believed.

use std::io;

use super::{BreakKind, Continuity, Examination, Gap, LostFrame, Segment};
use crate::sqlite::bytes::be32;
use crate::sqlite::overlay::Mend;
use crate::sqlite::page::Page;
use crate::sqlite::wal::{ShmHint, WalScan, WordFix, frame_sum, unsum};

/// The frame that a wal-index names as the last commit, where nothing in front of it verifies: its header has the
/// index's salts, page, size and very checksum. It may be all that is left of the live generation.
pub(super) fn lone(scan: &WalScan, hint: &ShmHint) -> Option<u32> {
    let at = usize::try_from(hint.max_frame.checked_sub(1)?).ok()?;
    let (before, frame) = (scan.frames.get(..at)?, scan.frames.get(at)?);
    let named = scan.header.is_err()
        && hint.page_size == scan.page_size
        && frame.salt == hint.salt
        && frame.stored == hint.sum
        && frame.commit != 0
        && frame.commit == hint.pages
        && hint.frame_pages.get(at) == Some(&frame.page);
    let alone = !scan.frames.iter().any(|f| f.linked && f.salt == hint.salt) && before.iter().all(|f| !f.linked);
    (named && alone).then_some(hint.max_frame)
}

impl Examination<'_> {
    /// The segment that consists of the lone frame alone, where it can be believed (see [`Gap::believed`]).
    pub(super) fn lone_segment(&self, salt: [u32; 2], frame: u32) -> io::Result<Option<Segment>> {
        let Some(believed) = self.believed(salt, frame)? else { return Ok(None) };
        let lost = (1..frame).map(|n| LostFrame { frame: n, pages: self.lost_pages(salt, n, true) }).collect();
        let gap = Gap {
            first: 1,
            last: frame,
            kind: BreakKind::Head,
            proof: None,
            continuity: Continuity::Silent,
            lost,
            believed: Some(believed),
            rebuilt: None,
            guess: None,
        };
        Ok(Some(Segment { first: frame, last: frame, gap: Some(gap) }))
    }

    /// Two frames between verified ones: whether the second continues the first once its stored checksum is left out;
    /// else the page number and commit size that the first must have had, if its whole header is left out.
    pub(super) fn through(&self, seed: [u32; 2], slot: &[u8], second: &[u8]) -> (bool, Option<(u32, u32)>) {
        let order = self.scan.big_endian;
        let target = [be32(second, 16), be32(second, 20)];
        let before_image = unsum(order, target, second.get(24..).unwrap_or(&[]));
        let needed = unsum(order, before_image, second.get(..8).unwrap_or(&[]));
        if frame_sum(order, seed, slot) == needed {
            return (true, None);
        }
        let [s0, s1] = unsum(order, needed, slot.get(24..).unwrap_or(&[]));
        let page = s0.wrapping_sub(seed[0]).wrapping_sub(seed[1]);
        let commit = s1.wrapping_sub(seed[1]).wrapping_sub(s0);
        // The sum reads the words in its own byte order, the format stores them big-endian.
        let (page, commit) = if order { (page, commit) } else { (page.swap_bytes(), commit.swap_bytes()) };
        let possible = (1..=self.max_pages).contains(&page) && commit <= self.max_pages;
        (false, possible.then_some((page, commit)))
    }

    /// The frame with one bit put right, where a single bit of a single word explains its sum and nothing else does.
    pub(super) fn bit(&self, salt: [u32; 2], n: u32, slot: &[u8], fixes: &[WordFix]) -> Option<Mend> {
        let [fix] = fixes else { return None };
        let frame = self.scan.frame(n).filter(|f| f.salt == salt)?;
        let index = usize::try_from(fix.word).ok()?;
        // The summed words are the first two of the header, then the image.
        let at = if index < 2 { 4 * index } else { 24 + 4 * (index - 2) };
        let word: [u8; 4] = slot.get(at..at + 4)?.try_into().ok()?;
        let (found, fixed) = if self.scan.big_endian {
            let found = u32::from_be_bytes(word);
            (found, found.wrapping_add(fix.delta))
        } else {
            let found = u32::from_le_bytes(word);
            (found, found.wrapping_add(fix.delta))
        };
        let bytes = if self.scan.big_endian { fixed.to_be_bytes() } else { fixed.to_le_bytes() };
        if (found ^ fixed).count_ones() != 1 {
            return None;
        }
        let mut mend = Mend { frame: n, page: frame.page, commit: frame.commit, word: None };
        match index {
            0 => mend.page = u32::from_be_bytes(bytes),
            1 => mend.commit = u32::from_be_bytes(bytes),
            _ => mend.word = Some((u32::try_from(at - 24).ok()?, bytes)),
        }
        ((1..=self.max_pages).contains(&mend.page) && mend.commit <= self.max_pages).then_some(mend)
    }

    pub(super) fn believed(&self, salt: [u32; 2], n: u32) -> io::Result<Option<u32>> {
        let destroyed = match n.checked_sub(1).and_then(|before| self.scan.frame(before)) {
            Some(before) => before.salt != salt,
            None => self.scan.header.is_err(),
        };
        let Some(frame) = self.scan.frame(n).filter(|f| f.salt == salt && destroyed) else { return Ok(None) };
        if !(1..=self.max_pages).contains(&frame.page) || frame.commit > self.max_pages {
            return Ok(None);
        }
        let listed = self.shm.filter(|s| s.salt == salt);
        let index = usize::try_from(n - 1).unwrap_or(usize::MAX);
        if listed.and_then(|s| s.frame_pages.get(index)).is_some_and(|page| *page != frame.page) {
            return Ok(None);
        }
        let image = self.image(n)?;
        let sound = Page::parse(&image, frame.page, self.usable).is_some_and(|p| p.all_cells().is_some());
        Ok(sound.then_some(n))
    }
}
