//! One full check: interior pages first, then the file once, in order.
//!
//! The interior pages (under one in a hundred) give every leaf an owner, a parent and so key bounds. The file is then
//! read once from front to back in large pieces; each leaf is judged where it lies. Overflow chains are walked at the end
//! over the links noted on the way, the order of their pages in the file being arbitrary. Memory is a few bytes a page and
//! a bounded number of interior pages; work is bounded by the bytes of the file, whatever they say.

use std::collections::BTreeMap;
use std::io;

use super::accounts::{Accounts, Owner};
use super::collect::{About, Collector};
use super::keys::Entry;
use super::objects::TreeSpec;
use super::pages::{Geometry, Tree};
use super::sums::{Keyed, Side};
use crate::sqlite::ReadAt;
use crate::sqlite::bytes::be32;
use crate::sqlite::header::Header;
use crate::sqlite::overlay::Overlay;
use crate::sqlite::record::Field;

/// Bytes read at a time.
const RUN: usize = 1 << 20;
/// Interior pages kept for the bounds of their leaves, in bytes; others are read again when they are needed.
const KEPT: usize = 6 << 20;
/// Longest part of a payload read for the values in it. Longer keys are left to the engine.
pub(super) const MAX_PREFIX: usize = 8 << 20;

/// What does not change during a check.
pub(super) struct Env<'a, 'b> {
    pub source: &'a Overlay<'b>,
    pub header: &'a Header,
    pub geometry: Geometry,
    pub trees: Vec<TreeSpec>,
    pub keyed: Keyed,
}

/// A cell of an interior page, by page and number; page 0 is no bound at all.
pub(super) type Separator = (u32, u16);

/// What is remembered of an interior page.
pub(super) struct Interior {
    image: Option<Box<[u8]>>,
    pub left: Separator,
    pub right: Separator,
}

/// An overflow chain that a cell begins.
pub(super) struct Chain {
    pub first: u32,
    pub pages: u32,
    pub cell_page: u32,
    pub tree: u32,
}

/// What entries are taken for.
pub(super) enum Aim {
    /// The check itself.
    Check,
    /// The second pass: naming the rows of some indexes ([`super::compare`]).
    Name(super::compare::Naming),
}

/// A check in progress.
pub(super) struct Pass<'a, 'b> {
    pub env: &'a Env<'a, 'b>,
    pub accounts: Accounts,
    pub found: Collector,
    /// By tree: entries that the table implies, entries that the index holds.
    pub sums: Vec<(Side, Side)>,
    /// By tree: records (rows of a table, entries of an index).
    pub counts: Vec<u64>,
    /// By tree: why its comparison cannot be made after all.
    pub skipped: BTreeMap<usize, &'static str>,
    /// By tree: text values that are not valid UTF-8, and a row that has one.
    pub odd_text: BTreeMap<usize, (u64, i64)>,
    pub interiors: BTreeMap<u32, Interior>,
    kept: usize,
    again: (u32, Vec<u8>),
    pub chains: Vec<Chain>,
    /// Overflow pages that may still be read for values before the file must be hostile.
    pub chain_reads: u64,
    pub aim: Aim,
    pub fields: Vec<Field>,
    pub entries: [Entry; 2],
    pub extents: Vec<u64>,
    may_go_on: &'a mut dyn FnMut(u32, u32) -> bool,
    pub out_of_time: bool,
    reads: u32,
}

impl<'a, 'b> Pass<'a, 'b> {
    pub fn new(env: &'a Env<'a, 'b>, pages: u32, may_go_on: &'a mut dyn FnMut(u32, u32) -> bool) -> Self {
        Self {
            env,
            accounts: Accounts::new(pages),
            found: Collector::default(),
            sums: vec![(Side::default(), Side::default()); env.trees.len()],
            counts: vec![0; env.trees.len()],
            skipped: BTreeMap::new(),
            odd_text: BTreeMap::new(),
            interiors: BTreeMap::new(),
            kept: 0,
            again: (0, Vec::new()),
            chains: Vec::new(),
            chain_reads: 4 * u64::from(pages) + 1024,
            aim: Aim::Check,
            fields: Vec::new(),
            entries: [Entry::default(), Entry::default()],
            extents: Vec::new(),
            may_go_on,
            out_of_time: false,
            reads: 0,
        }
    }

    pub fn spec(&self, tree: usize) -> Option<&'a TreeSpec> {
        self.env.trees.get(tree)
    }

    pub fn error(&mut self, tree: usize, code: &str, page: u32, text: impl FnOnce(&str) -> String) {
        let env = self.env;
        let name = env.trees.get(tree).map_or("", |s| s.name.as_str());
        self.found.error(About::Tree(tree), code, page, || text(name));
    }

    /// One page, out of order. `None` when it is not there or time is up.
    pub fn read(&mut self, page: u32) -> io::Result<Option<Vec<u8>>> {
        self.reads = self.reads.wrapping_add(1);
        if self.reads.is_multiple_of(64) && !self.out_of_time && !(self.may_go_on)(0, self.accounts.pages) {
            self.out_of_time = true;
        }
        if self.out_of_time { Ok(None) } else { self.env.source.page(page) }
    }

    /// Marks a page as used; false when it was used before or does not exist.
    pub fn claim(&mut self, about: About, page: u32, owner: Owner, by: &str) -> bool {
        let pages = self.accounts.pages;
        if !self.accounts.exists(page) {
            self.found.error(about, "page-out-of-range", 0, || format!("{by} points to page {page} of {pages}"));
            return false;
        }
        let had = self.accounts.owner(page);
        if had == Owner::None {
            self.accounts.set(page, owner);
            return true;
        }
        let text = || format!("page {page} is used twice, the second time by {by}");
        self.found.error(about, "page-used-twice", page, text);
        // Both claims are in doubt, so the first one's object is damaged as well.
        let first = match had {
            Owner::Leaf(t) | Owner::Interior(t) | Owner::Overflow(t) => Some(About::Tree(t)),
            Owner::Trunk | Owner::Free => Some(About::Other(super::ObjectKind::Freelist)),
            Owner::Map => Some(About::Other(super::ObjectKind::PointerMap)),
            Owner::Lock | Owner::None => None,
        };
        if let Some(first) = first.filter(|f| *f != about) {
            self.found.error(first, "page-used-twice", page, || format!("page {page} is also used by {by}"));
        }
        false
    }

    /// Keeps an interior page for the bounds of its children.
    pub fn keep(&mut self, page: u32, image: Vec<u8>, left: Separator, right: Separator) {
        let image = if self.kept + image.len() <= KEPT {
            self.kept += image.len();
            Some(image.into_boxed_slice())
        } else {
            None
        };
        self.interiors.insert(page, Interior { image, left, right });
    }

    /// The bounds of the `place`-th child of an interior page.
    pub fn bounds(&self, parent: u32, place: u16, cells: usize) -> (Separator, Separator) {
        let Some(interior) = self.interiors.get(&parent) else { return ((0, 0), (0, 0)) };
        let left = if place == 0 { interior.left } else { (parent, place - 1) };
        let right = if usize::from(place) < cells { (parent, place) } else { interior.right };
        (left, right)
    }

    /// The bounds of a leaf, from its parent.
    pub fn leaf_bounds(&mut self, page: u32) -> io::Result<(Separator, Separator)> {
        let (parent, place) = (self.accounts.link(page), self.accounts.place(page));
        if parent == 0 {
            return Ok(((0, 0), (0, 0)));
        }
        let cells = self.with_interior(parent, |tree| tree.cells)?;
        Ok(cells.map_or(((0, 0), (0, 0)), |n| self.bounds(parent, place, n)))
    }

    /// Looks at an interior page, kept or read again.
    pub fn with_interior<T>(&mut self, page: u32, f: impl FnOnce(&Tree<'_>) -> T) -> io::Result<Option<T>> {
        let geometry = &self.env.geometry;
        if let Some(image) = self.interiors.get(&page).and_then(|i| i.image.as_deref()) {
            return Ok(Tree::parse(image, page, geometry).ok().map(|t| f(&t)));
        }
        // Neighbours in the file mostly have one parent, so the last one read again is worth keeping.
        if self.again.0 != page {
            self.again = (page, self.env.source.page(page)?.unwrap_or_default());
        }
        Ok(Tree::parse(&self.again.1, page, geometry).ok().map(|t| f(&t)))
    }

    /// Reads the file once, in order, and judges what stands on each page.
    pub fn stream(&mut self) -> io::Result<()> {
        let size = usize::try_from(self.env.source.page_size).unwrap_or(4096);
        let per_run = u32::try_from((RUN / size).max(1)).unwrap_or(1);
        let pages = self.accounts.pages;
        let mut run = vec![0; size * usize::try_from(per_run).unwrap_or(1)];
        let mut first = 1;
        while first <= pages && !self.out_of_time {
            let n = per_run.min(pages - first + 1);
            let there = self.env.source.read_run(first, n, &mut run)?;
            for (number, image) in (first..first + n).zip(run.chunks_exact(size)) {
                let image = if there.contains(number) { Some(image) } else { None };
                self.judge(number, image)?;
            }
            if !(self.may_go_on)(first + n - 1, pages) {
                self.out_of_time = true;
            }
            first += n;
        }
        Ok(())
    }

    fn judge(&mut self, number: u32, image: Option<&[u8]>) -> io::Result<()> {
        let owner = self.accounts.owner(number);
        match (owner, image) {
            (Owner::Leaf(tree), Some(image)) => self.leaf(tree, number, image),
            (Owner::Leaf(tree), None) => {
                self.error(tree, "page-missing", number, |name| {
                    format!("page {number} of {name} lies beyond the end of the file")
                });
                Ok(())
            }
            // It may be part of an overflow chain: then its first word names the next page.
            (Owner::None, Some(image)) => {
                self.accounts.set_link(number, be32(image, 0));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A second look at the pages of some trees, in order: leaves and interior pages alike, without findings.
    pub fn revisit(&mut self, wanted: &dyn Fn(usize) -> bool) -> io::Result<()> {
        for number in 1..=self.accounts.pages {
            let (Owner::Leaf(tree) | Owner::Interior(tree)) = self.accounts.owner(number) else { continue };
            if !wanted(tree) {
                continue;
            }
            let Some(image) = self.read(number)? else {
                if self.out_of_time {
                    return Ok(());
                }
                continue;
            };
            self.records(tree, number, &image)?;
        }
        Ok(())
    }

    /// The records of one page, for naming.
    fn records(&mut self, tree: usize, number: u32, image: &[u8]) -> io::Result<()> {
        let env = self.env;
        let (Ok(page), Some(spec)) = (Tree::parse(image, number, &env.geometry), self.spec(tree)) else {
            return Ok(());
        };
        for i in 0..page.cells {
            let Ok((cell, _)) = page.cell(i, &env.geometry) else { continue };
            if page.kind.is_table() && page.kind.is_leaf() {
                self.row(tree, number, &cell)?;
            } else if !page.kind.is_table() && !spec.by_rowid {
                let mut entry = std::mem::take(&mut self.entries[0]);
                self.entry(tree, number, &cell, &mut entry)?;
                self.entries[0] = entry;
            }
        }
        Ok(())
    }

    /// The first `upto` bytes of a payload, its chain followed as far as needed. `None` when the chain is broken (which
    /// is found when the chains are walked) or when so much has been read that pages must be shared.
    pub fn prefix(&mut self, local: &[u8], overflow: u32, upto: usize) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::with_capacity(upto.min(1 << 16));
        bytes.extend_from_slice(local);
        let mut next = overflow;
        while bytes.len() < upto {
            if self.chain_reads == 0 || !self.accounts.exists(next) {
                return Ok(None);
            }
            self.chain_reads -= 1;
            let Some(page) = self.read(next)? else { return Ok(None) };
            bytes.extend_from_slice(page.get(4..self.env.geometry.usable).unwrap_or(&[]));
            next = be32(&page, 0);
        }
        Ok(Some(bytes))
    }
}

/// Which pages of a run were there.
pub(crate) struct There {
    first: u32,
    there: Vec<bool>,
}

impl There {
    pub(crate) fn new(first: u32, there: Vec<bool>) -> Self {
        Self { first, there }
    }

    fn contains(&self, page: u32) -> bool {
        let at = page.checked_sub(self.first).and_then(|i| usize::try_from(i).ok());
        at.and_then(|i| self.there.get(i)).copied().unwrap_or(false)
    }
}

/// Reads until `buf` is full or the file ends; the bytes read.
pub(crate) fn read_full(file: &dyn ReadAt, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
        match file.read_at(offset + done as u64, rest) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}
