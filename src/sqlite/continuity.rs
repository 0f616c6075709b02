//! What the pages themselves say about time: whether what was written before a gap is there behind it, and which of two
//! versions of a page is newer.
//!
//! For each of the last commits before a gap, newest first, the pages that it changed are looked at as they were before
//! it, as it left them, and as the first image behind the gap has them. A row that it changed and that stands behind the
//! gap as it was left speaks for one timeline. A commit none of whose changes is there speaks for another timeline,
//! which never knew of it. One row may agree by chance (a balance of the same amount) or differ because it was changed
//! once more in the gap, so more than one row is asked for, and the newest commit that is answered at all decides.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;

use super::bytes::varint;
use super::page::{Page, PageKind};
use super::record::{self, Class, Field};
use super::resync::{Continuity, Examination};
use super::wal::WalScan;

/// Transactions before a gap whose changes are looked for behind it.
const TRANSACTIONS_COMPARED: usize = 8;
/// Frames before a gap that are compared row by row; a larger last transaction is silent.
const FRAMES_COMPARED: usize = 160;

/// The verified frames before a gap, gathered as the scan goes on, so that many gaps cost no more than one.
#[derive(Default)]
pub(super) struct Past {
    /// Frames of each page, ascending.
    history: BTreeMap<u32, Vec<u32>>,
    /// All frames, ascending.
    frames: Vec<u32>,
    /// How many frames there were at the end of each commit.
    commits: Vec<usize>,
}

impl Past {
    pub(super) fn extend(&mut self, scan: &WalScan, frames: RangeInclusive<u32>) {
        for n in frames {
            let Some(frame) = scan.frame(n) else { continue };
            self.history.entry(frame.page).or_default().push(n);
            self.frames.push(n);
            if frame.commit != 0 {
                self.commits.push(self.frames.len());
            }
        }
    }

    /// The last frame of a page before frame `n`.
    fn before(&self, page: u32, n: u32) -> Option<u32> {
        let frames = self.history.get(&page)?;
        frames.get(frames.partition_point(|m| *m < n).checked_sub(1)?).copied()
    }
}

/// Changes of a commit that are there behind a gap, and that are not.
#[derive(Clone, Copy, Default)]
struct Votes {
    /// Rows that stand behind the gap as the commit left them.
    shown: usize,
    /// Those of them that were not there before the commit.
    inserted: usize,
    /// Rows that stand there as they were before it, and inserted ones that are others there.
    against: usize,
    /// Index entries that stand there. Two timelines may well have an entry in common, so they only support.
    support: usize,
}

impl Examination<'_> {
    /// Looks for the changes of the last commits before a gap in the images behind it.
    pub(super) fn continuity(&self, past: &Past, next: u32, next_last: u32) -> io::Result<Continuity> {
        let mut behind: BTreeMap<u32, u32> = BTreeMap::new();
        for n in next..=next_last {
            behind.entry(self.scan.frame(n).map_or(0, |f| f.page)).or_insert(n);
        }
        let end = past.frames.last().copied().unwrap_or(0);
        let (mut sum, mut newest, mut decided, mut absent) = (Votes::default(), false, false, 0);
        // Frames behind the last commit are of one that ends in the gap or behind it, if they are of this timeline.
        let mut weak = false;
        let open = past.frames.get(past.commits.last().copied().unwrap_or(0)..).unwrap_or(&[]);
        if !open.is_empty() && open.len() <= FRAMES_COMPARED {
            let votes = self.commit_votes(past, open, end, &behind)?;
            if votes.against > 0 && votes.against >= votes.shown {
                return Ok(Continuity::Contradicted);
            }
            // Counters go on alike in both timelines, so one row in common is not enough without an index beside it.
            weak = votes.against > 0 || self.shm.is_none() && votes.shown < 2;
        }
        for age in 0..TRANSACTIONS_COMPARED.min(past.commits.len()) {
            let at = past.commits.len() - 1 - age;
            let to = past.commits.get(at).copied().unwrap_or(0);
            let from = at.checked_sub(1).and_then(|i| past.commits.get(i)).copied().unwrap_or(0);
            let frames = past.frames.get(from..to).unwrap_or(&[]);
            if frames.len() > FRAMES_COMPARED {
                break;
            }
            let votes = self.commit_votes(past, frames, end, &behind)?;
            sum.support += votes.support;
            if votes.shown + votes.against == 0 {
                continue;
            }
            let unknown = votes.against >= votes.shown;
            if unknown && !decided {
                return Ok(Continuity::Contradicted);
            }
            absent += usize::from(unknown);
            // A counter goes on alike in both timelines, that of AUTOINCREMENT above all.
            newest |= age == 0 && (votes.inserted > 0 || votes.shown > 1);
            decided = true;
            sum.shown += votes.shown;
            sum.against += votes.against;
        }
        Ok(if absent > 1 {
            Continuity::Contradicted
        } else if !weak && newest && sum.shown + sum.support > 1 && 2 * sum.against <= sum.shown {
            Continuity::Shown
        } else {
            Continuity::Silent
        })
    }

    /// What became behind the gap of the changes of one commit that were still there right before it.
    fn commit_votes(&self, past: &Past, frames: &[u32], end: u32, behind: &BTreeMap<u32, u32>) -> io::Result<Votes> {
        let (first, last) = (frames.first().copied().unwrap_or(0), frames.last().copied().unwrap_or(0));
        let touched: BTreeSet<u32> = frames.iter().filter_map(|n| self.scan.frame(*n)).map(|f| f.page).collect();
        let mut votes = Votes::default();
        let cost = 2 * touched.len() + 2 * touched.iter().filter(|page| behind.contains_key(page)).count();
        let Some(left) = self.budget.get().checked_sub(cost) else { return Ok(votes) };
        if !touched.iter().any(|page| behind.contains_key(page)) {
            return Ok(votes);
        }
        self.budget.set(left);
        let mut pages = Vec::new();
        for page in &touched {
            let before = self.content(*page, past.before(*page, first))?;
            let left = self.content(*page, past.before(*page, last + 1))?;
            pages.push((*page, before, left));
        }
        // Rows that only moved from one page to another, as a split or a merge moves them.
        let had: BTreeSet<(i64, &Vec<u8>)> = pages.iter().flat_map(|(_, b, _)| &b.rows).map(|(i, r)| (*i, r)).collect();
        let has: BTreeSet<(i64, &Vec<u8>)> = pages.iter().flat_map(|(_, _, l)| &l.rows).map(|(i, r)| (*i, r)).collect();
        for (page, before, left) in &pages {
            let Some(later) = behind.get(page) else { continue };
            let then = self.content(*page, Some(*later))?;
            let kept = self.content(*page, past.before(*page, end + 1))?;
            if left.kind != then.kind || left.kind != kept.kind {
                continue;
            }
            let added = left.entries.iter().filter(|e| !before.entries.contains(*e) && kept.entries.contains(*e));
            votes.support += added.filter(|e| then.entries.contains(*e)).count();
            let highest = then.rows.keys().next_back().copied();
            let ids: BTreeSet<i64> = before.rows.keys().chain(left.rows.keys()).copied().collect();
            for id in ids {
                let (was, is, now) = (before.rows.get(&id), left.rows.get(&id), then.rows.get(&id));
                let moved = match (was, is) {
                    (None, Some(row)) => had.contains(&(id, row)),
                    (Some(row), None) => has.contains(&(id, row)),
                    _ => was == is,
                };
                if moved || kept.rows.get(&id) != is {
                    continue;
                }
                match (is, now) {
                    _ if is == now => {
                        votes.shown += 1;
                        votes.inserted += usize::from(was.is_none());
                    }
                    // It may have been deleted since, or moved on to a neighbour.
                    (Some(_), None) if highest.is_some_and(|h| h > id) => {}
                    (Some(row), Some(later)) if was.is_none() => match updated(row, later) {
                        Some(much) => {
                            votes.shown += usize::from(much);
                            votes.inserted += usize::from(much);
                        }
                        None => votes.against += 1,
                    },
                    _ if now == was || was.is_none() => votes.against += 1,
                    // Changed once more, by whomever.
                    _ => {}
                }
            }
        }
        Ok(votes)
    }

    /// A page as a frame has it, or as the database has it.
    fn content(&self, page: u32, frame: Option<u32>) -> io::Result<Content> {
        let image = match frame {
            Some(n) => Some(self.image(n)?),
            None => self.db_page(page)?,
        };
        Ok(content(image.as_deref(), page, self.usable))
    }
}

/// Whether a row can be an earlier one after an update, which leaves most of it as it was: two thirds of its bytes
/// stand in the same columns. `Some(true)` when that is so much that it is neither chance nor the name beside a counter.
fn updated(row: &[u8], later: &[u8]) -> Option<bool> {
    let (row, later) = (columns(row)?, columns(later)?);
    let size = |c: &(Class, &[u8])| c.1.len();
    let kept: usize = row.iter().zip(&later).filter(|(a, b)| a == b).map(|(a, _)| size(a)).sum();
    let all: usize = row.iter().map(size).sum();
    (row.len() == later.len() && kept > 0 && 3 * kept >= 2 * all).then_some(row.len() > 2 && kept >= 16)
}

/// The columns of a cell of a table leaf, as far as they are on the page.
fn columns(cell: &[u8]) -> Option<Vec<(Class, &[u8])>> {
    let (len, n) = varint(cell, 0)?;
    let (_, m) = varint(cell, n)?;
    let payload = cell.get(n + m..)?;
    let mut fields = Vec::new();
    record::split(payload, u64::try_from(len).ok()?, &mut fields).ok()?;
    let bytes = |f: &Field| payload.get(usize::try_from(f.at).ok()?..f.end());
    Some(fields.iter().map(|f| (f.class, bytes(f).unwrap_or(&[]))).collect())
}

/// What can be compared of a page.
#[derive(Default)]
struct Content {
    kind: Option<PageKind>,
    /// Rows of a table leaf.
    rows: BTreeMap<i64, Vec<u8>>,
    /// Entries of an index leaf.
    entries: BTreeSet<Vec<u8>>,
}

fn content(image: Option<&[u8]>, number: u32, usable: u32) -> Content {
    let Some(page) = image.and_then(|i| Page::parse(i, number, usable)) else { return Content::default() };
    let mut content = Content { kind: Some(page.kind), ..Content::default() };
    let cells = (0..page.cells).filter_map(|i| page.cell(i));
    match page.kind {
        PageKind::TableLeaf => {
            content.rows = cells.filter_map(|c| Some((c.rowid?, c.raw.to_vec()))).collect();
        }
        PageKind::IndexLeaf => content.entries = cells.map(|c| c.raw.to_vec()).collect(),
        PageKind::TableInterior | PageKind::IndexInterior => {}
    }
    content
}

/// Which of two versions of a page is newer: 1 the first, -1 the second, 0 undecided. Change counters and sizes only
/// grow; the highest rowid of a table leaf only grows except where the newest row itself was deleted.
pub(super) fn newer(number: u32, log: &[u8], held: &[u8], usable: u32) -> i8 {
    let sign = |o: std::cmp::Ordering| o as i8;
    if number == 1 {
        if let (Ok(a), Ok(b)) = (super::header::parse(log), super::header::parse(held)) {
            return sign(a.change_counter.cmp(&b.change_counter));
        }
        return 0;
    }
    let (a, b) = (Page::parse(log, number, usable), Page::parse(held, number, usable));
    match (a.and_then(|p| p.max_rowid()), b.and_then(|p| p.max_rowid())) {
        (Some(a), Some(b)) => sign(a.cmp(&b)),
        _ => 0,
    }
}
