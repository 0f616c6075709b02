//! One worker over pages: what it reads, what it is bounded by, and where it puts what it finds.

use std::sync::atomic::Ordering;

use super::accounts::Owner;
use super::collect::About;
use super::objects::TreeSpec;
use super::pages::Tree;
use super::pass::{Env, Map, Separator};
use super::tally::Tally;
use crate::sqlite::bytes::be32;
use crate::sqlite::overlay::Got;
use crate::sqlite::verdict::Level;

/// Pages read out of order between two looks at the clock.
const READS: u32 = 64;

/// A worker.
pub(super) struct Judge<'j> {
    pub env: &'j Env<'j, 'j>,
    pub map: &'j Map,
    pub tally: &'j mut Tally,
    /// False when time is up.
    pub go_on: &'j mut dyn FnMut() -> bool,
}

impl<'j> Judge<'j> {
    pub fn spec(&self, tree: usize) -> Option<&'j TreeSpec> {
        self.env.trees.get(tree)
    }

    pub fn error(&mut self, tree: usize, code: &str, page: u32, text: impl FnOnce(&str) -> String) {
        self.tally.error(&self.env.trees, tree, code, page, text);
    }

    /// One page, out of order. `None` when it is not there ([`Tally::absent`] says why) or time is up.
    pub fn read(&mut self, page: u32) -> Option<Vec<u8>> {
        self.tally.reads = self.tally.reads.wrapping_add(1);
        if self.tally.reads.is_multiple_of(READS) && !self.tally.out_of_time && !(self.go_on)() {
            self.tally.out_of_time = true;
        }
        if self.tally.out_of_time {
            return None;
        }
        match self.env.source.page(page) {
            Ok(image) => image,
            Err(e) => {
                self.failed(page, e.to_string());
                None
            }
        }
    }

    /// Notes a page that could not be read; too many, and the device is given up.
    pub fn failed(&mut self, page: u32, why: String) {
        if self.tally.failed(page, why) && !self.tally.out_of_time {
            self.tally.out_of_time = true;
            let n = self.tally.unreadable.len();
            self.tally.found.error(About::Other(super::ObjectKind::Unowned), "device-failing", page, || {
                format!("{n} pages could not be read, the last was {page}; the rest was not looked at: copy the device first")
            });
        }
    }

    /// Judges a page in its turn.
    pub fn page(&mut self, number: u32, got: Got, image: &[u8]) {
        self.tally.found.judging = number;
        match (self.map.accounts.owner(number), got) {
            (Owner::Leaf(tree), Got::Whole) => self.leaf(tree, number, image),
            // It may be part of an overflow chain: then its first word names the next page.
            (Owner::None, Got::Whole) => self.map.accounts.set_link(number, be32(image, 0)),
            (Owner::Leaf(tree), Got::Short) => {
                let name = self.spec(tree).map_or("", |s| s.name.as_str());
                self.tally.absent(About::Tree(tree), number, name);
            }
            (Owner::Leaf(tree), Got::Unreadable(why)) => {
                self.failed(number, why);
                let name = self.spec(tree).map_or("", |s| s.name.as_str());
                self.tally.absent(About::Tree(tree), number, name);
            }
            (Owner::None, Got::Unreadable(why)) => {
                self.failed(number, why);
                let about = About::Other(super::ObjectKind::Unowned);
                self.tally.absent(about, number, "an overflow chain, or of nothing,");
            }
            (Owner::Free, Got::Unreadable(why)) => {
                let text = format!("free page {number} cannot be read: {why}; nothing is lost with it");
                self.tally.found.note(Level::Warning, "free-page-unreadable", text);
                self.failed(number, why);
            }
            // What is no leaf was read on the way down, or is when it is needed, and a failure told there.
            _ => {}
        }
    }

    /// The bounds of a leaf, from its parent.
    pub fn leaf_bounds(&mut self, page: u32) -> (Separator, Separator) {
        let (parent, place) = (self.map.accounts.link(page), self.map.accounts.place(page));
        if parent == 0 {
            return ((0, 0), (0, 0));
        }
        let cells = self.with_interior(parent, |tree| tree.cells);
        cells.map_or(((0, 0), (0, 0)), |n| self.map.bounds(parent, place, n))
    }

    /// Looks at an interior page, kept or read again.
    pub fn with_interior<T>(&mut self, page: u32, f: impl FnOnce(&Tree<'_>) -> T) -> Option<T> {
        let geometry = &self.env.geometry;
        if let Some(image) = self.map.interiors.get(&page).and_then(|i| i.image.as_deref()) {
            return Tree::parse(image, page, geometry).ok().map(|t| f(&t));
        }
        // Neighbours in the file mostly have one parent, so the last one read again is worth keeping.
        let again = &mut self.tally.scratch.again;
        if again.0 != page {
            // It was read once, so a failure now costs the bounds and no more.
            *again = (page, self.env.source.page(page).ok().flatten().unwrap_or_default());
        }
        Tree::parse(&again.1, page, geometry).ok().map(|t| f(&t))
    }

    /// The records of one page, for naming.
    pub fn records(&mut self, tree: usize, number: u32, image: &[u8]) {
        let env = self.env;
        let (Ok(page), Some(spec)) = (Tree::parse(image, number, &env.geometry), self.spec(tree)) else { return };
        for i in 0..page.cells {
            let Ok((cell, _)) = page.cell(i, &env.geometry) else { continue };
            if page.kind.is_table() && page.kind.is_leaf() {
                self.row(tree, number, &cell);
            } else if !page.kind.is_table() && !spec.by_rowid {
                let mut entry = std::mem::take(&mut self.tally.scratch.entries[0]);
                self.entry(tree, number, &cell, &mut entry);
                self.tally.scratch.entries[0] = entry;
            }
        }
    }

    /// The first `upto` bytes of a payload, its chain followed as far as needed. `None` when the chain is broken (which
    /// is found when the chains are walked) or when so much has been read that pages must be shared.
    pub fn prefix(&mut self, local: &[u8], overflow: u32, upto: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(upto.min(1 << 16));
        bytes.extend_from_slice(local);
        let mut next = overflow;
        while bytes.len() < upto {
            let less = |n: u64| n.checked_sub(1);
            let spent = self.map.chain_reads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err();
            if spent || !self.map.accounts.exists(next) {
                return None;
            }
            let page = self.read(next)?;
            bytes.extend_from_slice(page.get(4..self.env.geometry.usable).unwrap_or(&[]));
            next = be32(&page, 0);
        }
        Some(bytes)
    }
}
