//! Whether what survives of an injured log proves where it leads, asked of the truth by an independent reader. For each
//! answer "no" there is another history that leaves the same bytes under the same damage, told at the reason.

use std::collections::{BTreeMap, BTreeSet};

use super::crash::Files;
use super::page;
use super::wal::{FRAME, Wal, be32};

/// What the surviving bytes prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proved {
    /// The index names the last commit, with its checksum, and lists the page of every lost frame.
    ByIndex,
    /// The sums themselves carry through the damage, or the rows on both sides of it hang together.
    ByContent,
    /// They do not: why.
    No(&'static str),
}

/// Frames lie behind the damage that may be of a timeline abandoned before the last commit in front of it. The other
/// history: that commit came after the loss of a write, in place of frames that then were destroyed, and what stands
/// behind is older. Nothing that it wrote is to be seen there, so nothing contradicts.
pub const SILENT: &str = "nothing written before the damage is seen behind it";
/// A destroyed frame, or one that only a destroyed sum ties to the log, may have been of any page. The other history:
/// it was of a page that has no later image.
pub const ANY_PAGE: &str = "a lost frame can have been of any page";
/// The header is gone, and with it which generation is live. The other history: these frames are of the generation
/// before, copied back long ago, and the database has gone on.
pub const GENERATION: &str = "nothing tells which is newer, log or database";

/// The log as it was and as it is, and which live frames verify.
pub struct Injured<'a> {
    pub log: &'a Wal,
    pub whole: &'a Files,
    pub now: &'a Files,
    pub ok: &'a [bool],
}

type Rows = BTreeMap<u64, Vec<u8>>;

impl Injured<'_> {
    fn image(&self, slot: usize) -> &[u8] {
        self.log.image(self.whole.wal(), &self.log.slots[slot])
    }

    fn same(&self, from: usize, to: usize) -> bool {
        self.now.wal().get(from..to).is_some_and(|now| now == &self.whole.wal()[from..to])
    }

    /// Header or image of a slot, unchanged.
    fn header(&self, slot: usize) -> bool {
        let at = self.log.slots[slot].at;
        self.same(at, at + 16)
    }

    fn body(&self, slot: usize) -> bool {
        let at = self.log.slots[slot].at;
        self.same(at + FRAME, at + self.log.slot_len())
    }

    fn sum(&self, slot: usize) -> bool {
        let at = self.log.slots[slot].at;
        self.same(at + 16, at + FRAME)
    }

    /// Maximal runs of live slots that do not verify.
    fn runs(&self) -> Vec<(usize, usize)> {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for slot in (0..self.ok.len()).filter(|s| !self.ok[*s]) {
            match runs.last_mut() {
                Some(run) if run.1 + 1 == slot => run.1 = slot,
                _ => runs.push((slot, slot)),
            }
        }
        runs
    }

    /// Two unknown words can be solved for: a frame of which one word is damaged; a frame whose stored sum, or whose
    /// header, is damaged while the next one is whole.
    fn carried_by_the_sums(&self, (from, to): (usize, usize)) -> bool {
        if from == 0 && !self.same(24, 32) {
            return from == to && self.header(0) && self.body(0) && self.sum(0);
        }
        let (at, len) = (self.log.slots[from].at, self.log.slot_len());
        let words = (at..at + len).step_by(4).filter(|w| !self.same(*w, w + 4)).count();
        let one = from == to && words == 1 && self.sum(from);
        let two = to == from + 1 && self.body(from) && self.header(to) && self.body(to) && self.sum(to);
        one || two
    }

    /// Every page that a commit at or behind a slot counts has a verifying image behind it.
    fn any_page_superseded(&self, slot: usize) -> bool {
        let behind = || self.log.live().iter().enumerate().skip(slot + 1);
        let pages: BTreeSet<u32> = behind().filter(|(i, _)| self.ok[*i]).map(|(_, f)| f.page).collect();
        let size = behind().map(|(_, f)| f.commit).max().unwrap_or(0);
        (1..=size).all(|p| pages.contains(&p))
    }

    fn rows(&self, image: &[u8], number: u32) -> Rows {
        page::leaf(image, number)
    }

    /// Rows of the last transaction in front of a run that stand behind it as it left them: new ones, and changed ones.
    fn seen_behind(&self, (from, to): (usize, usize)) -> bool {
        let live = self.log.live();
        let commits: Vec<usize> = (0..from).filter(|i| live[*i].commit != 0).collect();
        let open = commits.last().map_or(0, |c| c + 1) < from;
        let (first, last) = match (open, commits.as_slice()) {
            (true, _) => (commits.last().map_or(0, |c| c + 1), from),
            (false, [.., before, last]) => (before + 1, last + 1),
            (false, [last]) => (0, last + 1),
            (false, []) => return false,
        };
        if (first..from).any(|i| !self.ok[i]) {
            return false;
        }
        let until = (to + 1..live.len()).find(|i| !self.ok[*i]).unwrap_or(live.len());
        let (mut new, mut changed) = (0, 0);
        let pages: BTreeSet<u32> = live[first..last].iter().map(|f| f.page).collect();
        for number in pages {
            let Some(later) = (to + 1..until).find(|i| live[*i].page == number) else { continue };
            let left = (first..last).rev().find(|i| live[*i].page == number).map(|i| self.rows(self.image(i), number));
            let before = match (0..first).rev().find(|i| live[*i].page == number) {
                Some(i) => self.rows(self.image(i), number),
                None => page::page(&self.whole.db, self.log.page_size, number)
                    .map_or_else(Rows::new, |held| self.rows(held, number)),
            };
            let then = self.rows(self.image(later), number);
            for (id, row) in left.unwrap_or_default() {
                if before.get(&id) != Some(&row) && then.get(&id) == Some(&row) {
                    changed += 1;
                    new += usize::from(!before.contains_key(&id) && row.len() >= 16);
                }
            }
        }
        changed > 1 || new > 0 && !open
    }

    /// The database's own copy of some page is an older one than the log's.
    fn database_is_behind(&self) -> bool {
        let live = self.log.live();
        let kept: Vec<usize> = (0..live.len()).filter(|i| self.ok[*i]).collect();
        if self.ok.first().is_some_and(|ok| *ok) {
            return true;
        }
        let pages: BTreeSet<u32> = kept.iter().map(|i| live[*i].page).collect();
        pages.iter().any(|number| {
            let mut images = kept.iter().filter(|i| live[**i].page == *number).map(|i| self.image(*i));
            let last = images.clone().next_back().unwrap_or_default();
            match page::page(&self.now.db, self.log.page_size, *number) {
                None => true,
                Some(held) if *number == 1 => held != last && be32(last, 24) > be32(held, 24),
                Some(held) => held != last && images.any(|image| image == held),
            }
        })
    }

    /// The answer. `index`: the index of the writer stands there untouched.
    pub fn proved(&self, index: bool) -> Proved {
        let named = self.whole.shm.as_deref().map_or(0, |s| u32::from_ne_bytes(s[16..20].try_into().unwrap()) as usize);
        if index && named == self.log.committed {
            return Proved::ByIndex;
        }
        let header = self.same(0, 24);
        let head = !header || !self.ok.first().copied().unwrap_or(true);
        if head && !header && !self.database_is_behind() {
            return Proved::No(GENERATION);
        }
        for run in self.runs().into_iter().filter(|run| !self.carried_by_the_sums(*run)) {
            for slot in run.0..=run.1 {
                let tied = slot == 0 && header || slot > 0 && self.sum(slot - 1);
                if !(self.header(slot) && tied || self.any_page_superseded(slot)) {
                    return Proved::No(ANY_PAGE);
                }
            }
            if (run.0 > 0 || header) && !self.seen_behind(run) {
                return Proved::No(SILENT);
            }
        }
        Proved::ByContent
    }
}
