//! What looking at pages yields: findings, counts, sums and chains. Several workers each have one; merged, they are what
//! one worker alone would have: sums and counts add up, and everything whose order shows is put in the order of the file.

use std::collections::BTreeMap;

use super::collect::{About, Collector};
use super::compare::Naming;
use super::keys::Entry;
use super::objects::TreeSpec;
use super::pages::Cover;
use super::sums::Side;
use crate::sqlite::record::Field;

/// Pages that cannot be read before the device is given up: each may have cost seconds.
pub(super) const MAX_UNREADABLE: u32 = 256;

/// An overflow chain that a cell begins.
pub(super) struct Chain {
    pub first: u32,
    pub pages: u32,
    pub cell_page: u32,
    pub tree: u32,
}

/// Rows that hold text that is not valid UTF-8.
#[derive(Clone, Copy)]
pub(super) struct OddText {
    pub rows: u64,
    /// The first page with one, and its first such row.
    pub page: u32,
    pub rowid: i64,
}

/// What entries are taken for.
pub(super) enum Aim {
    /// The check itself.
    Check,
    /// The second pass: naming the rows of some indexes ([`super::compare`]).
    Name(Naming),
}

/// Buffers that are used again from page to page.
#[derive(Default)]
pub(super) struct Scratch {
    pub fields: Vec<Field>,
    pub entries: [Entry; 2],
    pub cover: Cover,
    /// An interior page that was not kept, read again for the bounds of its leaves.
    pub again: (u32, Vec<u8>),
}

/// What one worker has found so far.
pub(super) struct Tally {
    pub found: Collector,
    /// By tree: entries that the table implies, entries that the index holds.
    pub sums: Vec<(Side, Side)>,
    /// By tree: records (rows of a table, entries of an index).
    pub counts: Vec<u64>,
    /// By tree: why its comparison cannot be made after all.
    pub skipped: BTreeMap<usize, &'static str>,
    /// By tree.
    pub odd_text: BTreeMap<usize, OddText>,
    pub chains: Vec<Chain>,
    pub aim: Aim,
    pub scratch: Scratch,
    /// Pages whose reading failed.
    pub unreadable: BTreeMap<u32, String>,
    /// Time is up, or the device was given up: nothing more is read, and what is missing from here on is not damage.
    pub out_of_time: bool,
    pub reads: u32,
}

impl Tally {
    pub fn new(trees: usize) -> Self {
        Self {
            found: Collector::default(),
            sums: vec![(Side::default(), Side::default()); trees],
            counts: vec![0; trees],
            skipped: BTreeMap::new(),
            odd_text: BTreeMap::new(),
            chains: Vec::new(),
            aim: Aim::Check,
            scratch: Scratch::default(),
            unreadable: BTreeMap::new(),
            out_of_time: false,
            reads: 0,
        }
    }

    /// Counts a record; a second look does not count.
    #[inline]
    pub fn count(&mut self, tree: usize) {
        if let (Some(count), Aim::Check) = (self.counts.get_mut(tree), &self.aim) {
            *count += 1;
        }
    }

    pub fn error(&mut self, trees: &[TreeSpec], tree: usize, code: &str, page: u32, text: impl FnOnce(&str) -> String) {
        let name = trees.get(tree).map_or("", |s| s.name.as_str());
        self.found.error(About::Tree(tree), code, page, || text(name));
    }

    /// Says that a page is not there, and why; nothing where that is because time was up. `by` is what needs it.
    pub fn absent(&mut self, about: About, page: u32, by: &str) {
        match self.unreadable.get(&page) {
            Some(why) => self.found.error(about, "page-unreadable", page, || {
                format!("page {page} of {by} cannot be read: {why}; copy the device before anything else")
            }),
            None if self.out_of_time => {}
            None => self
                .found
                .error(about, "page-missing", page, || format!("page {page} of {by} lies beyond the end of the file")),
        }
    }

    /// Notes a failed read. True when there were so many that the device is given up.
    pub fn failed(&mut self, page: u32, why: String) -> bool {
        self.unreadable.insert(page, why);
        self.unreadable.len() >= usize::try_from(MAX_UNREADABLE).unwrap_or(usize::MAX)
    }

    /// Notes why a comparison cannot be made. Of several reasons one is kept, whichever comes first.
    pub fn skip(&mut self, tree: usize, why: &'static str) {
        self.skipped.entry(tree).and_modify(|w| *w = why.min(*w)).or_insert(why);
    }

    /// A row with odd text.
    pub fn odd(&mut self, tree: usize, page: u32, rowid: i64) {
        self.odd_text.entry(tree).or_insert(OddText { rows: 0, page, rowid }).rows += 1;
    }

    /// Adds what other workers found while streaming. They began with nothing, and each saw its pages in ascending order.
    pub fn merge(&mut self, others: Vec<Self>) {
        let streamed = self.chains.len();
        let mut collectors = Vec::new();
        for other in others {
            for (mine, theirs) in self.sums.iter_mut().zip(&other.sums) {
                mine.0.merge(theirs.0);
                mine.1.merge(theirs.1);
            }
            for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
                *mine = mine.wrapping_add(*theirs);
            }
            for (tree, why) in other.skipped {
                self.skip(tree, why);
            }
            for (tree, odd) in other.odd_text {
                let mine = self.odd_text.entry(tree).or_insert(OddText { rows: 0, ..odd });
                let first = if odd.page < mine.page { odd } else { *mine };
                *mine = OddText { rows: mine.rows + odd.rows, ..first };
            }
            self.chains.extend(other.chains);
            self.unreadable.extend(other.unreadable);
            self.out_of_time |= other.out_of_time;
            collectors.push(other.found);
        }
        // Stable, and all cells of a page were seen by one worker: so chains are claimed as one worker would claim them.
        if let Some(chains) = self.chains.get_mut(streamed..) {
            chains.sort_by_key(|c| c.cell_page);
        }
        self.found.merge(collectors);
    }
}
