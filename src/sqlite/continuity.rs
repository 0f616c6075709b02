//! What the pages themselves say about time: whether rows written before a gap are there behind it, and which of two
//! versions of a page is newer.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::page::{Page, PageKind};
use super::resync::{Continuity, Examination, Segment};

/// Transactions before a gap whose rows are looked for behind it.
const TRANSACTIONS_COMPARED: usize = 8;
/// Frames of a transaction that is still compared row by row; a larger one is silent.
const FRAMES_COMPARED: usize = 256;

impl Examination<'_> {
    /// Looks for the rows of the last transactions before a gap in the images behind it.
    pub(super) fn continuity(&self, before: &[Segment], next: u32, next_last: u32) -> io::Result<Continuity> {
        let accepted: Vec<u32> = before.iter().flat_map(|s| s.first..=s.last).collect();
        let mut history: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for n in &accepted {
            history.entry(self.scan.frame(*n).map_or(0, |f| f.page)).or_default().push(*n);
        }
        let mut behind: BTreeMap<u32, u32> = BTreeMap::new();
        for n in next..=next_last {
            behind.entry(self.scan.frame(n).map_or(0, |f| f.page)).or_insert(n);
        }
        let is_commit = |n: &&u32| self.scan.frame(**n).is_some_and(|f| f.commit != 0);
        let commits: Vec<u32> = accepted.iter().filter(is_commit).copied().collect();
        let mut verdict = Continuity::Silent;
        for (age, end) in commits.iter().rev().take(TRANSACTIONS_COMPARED).enumerate() {
            let start = commits.iter().rev().nth(age + 1).copied().unwrap_or(0);
            let frames: Vec<u32> = accepted.iter().copied().filter(|n| *n > start && n <= end).collect();
            if frames.len() > FRAMES_COMPARED {
                continue;
            }
            match self.compare_transaction(&frames, &history, &behind)? {
                Continuity::Contradicted => return Ok(Continuity::Contradicted),
                Continuity::Shown if age == 0 => verdict = Continuity::Shown,
                _ => {}
            }
        }
        Ok(verdict)
    }

    fn compare_transaction(
        &self,
        frames: &[u32],
        history: &BTreeMap<u32, Vec<u32>>,
        behind: &BTreeMap<u32, u32>,
    ) -> io::Result<Continuity> {
        // Rows that stood on any page of the transaction before it: a split only moves them.
        let mut old_rows: BTreeSet<(i64, Vec<u8>)> = BTreeSet::new();
        let mut old_ids: BTreeSet<i64> = BTreeSet::new();
        for n in frames {
            let page = self.scan.frame(*n).map_or(0, |f| f.page);
            let earlier = history.get(&page).and_then(|h| h.iter().rfind(|m| frames.first().is_some_and(|s| *m < s)));
            let image = match earlier {
                Some(m) => Some(self.image(*m)?),
                None => self.db_page(page)?,
            };
            for (id, row) in rows(image.as_deref(), page, self.usable) {
                old_ids.insert(id);
                old_rows.insert((id, row));
            }
        }
        let mut verdict = Continuity::Silent;
        for n in frames {
            let page = self.scan.frame(*n).map_or(0, |f| f.page);
            let Some(later) = behind.get(&page) else { continue };
            let last_of_page = frames.iter().rev().find(|m| self.scan.frame(**m).is_some_and(|f| f.page == page));
            if last_of_page != Some(n) {
                continue;
            }
            let now = rows(Some(&self.image(*n)?), page, self.usable);
            let then: BTreeMap<i64, Vec<u8>> =
                rows(Some(&self.image(*later)?), page, self.usable).into_iter().collect();
            let highest = then.keys().next_back().copied();
            for (id, row) in now {
                if old_rows.contains(&(id, row.clone())) {
                    continue;
                }
                let inserted = !old_ids.contains(&id);
                match then.get(&id) {
                    Some(other) if *other == row => verdict = Continuity::Shown,
                    // An inserted row that is different behind the gap was inserted by somebody else.
                    Some(_) if inserted => return Ok(Continuity::Contradicted),
                    None if inserted && highest.is_none_or(|h| h < id) => return Ok(Continuity::Contradicted),
                    _ => {}
                }
            }
        }
        Ok(verdict)
    }
}

/// Rows of a table leaf; nothing for any other page.
fn rows(image: Option<&[u8]>, number: u32, usable: u32) -> Vec<(i64, Vec<u8>)> {
    let Some(page) = image.and_then(|i| Page::parse(i, number, usable)) else { return Vec::new() };
    if page.kind != PageKind::TableLeaf {
        return Vec::new();
    }
    let cell = |i| page.cell(i).and_then(|c| Some((c.rowid?, c.raw.to_vec())));
    (0..page.cells).filter_map(cell).collect()
}

/// Which of two versions of a page is newer: 1 the first, -1 the second, 0 undecided. Change counters and sizes only
/// grow; the highest rowid of a table leaf only grows except where the newest row itself was deleted.
pub(super) fn newer(number: u32, log: &[u8], held: &[u8], usable: u32) -> i8 {
    let sign = |o: std::cmp::Ordering| o as i8;
    if number == 1 {
        if let (Ok(a), Ok(b)) = (super::header::parse(log), super::header::parse(held)) {
            return sign(a.change_counter.cmp(&b.change_counter).then(a.pages.cmp(&b.pages)));
        }
        return 0;
    }
    let (a, b) = (Page::parse(log, number, usable), Page::parse(held, number, usable));
    match (a.and_then(|p| p.max_rowid()), b.and_then(|p| p.max_rowid())) {
        (Some(a), Some(b)) => sign(a.cmp(&b)),
        _ => 0,
    }
}
