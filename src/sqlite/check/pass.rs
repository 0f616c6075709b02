//! One full check: interior pages first, then the file once, in order.
//!
//! The interior pages (under one in a hundred) give every leaf an owner, a parent and so key bounds. The file is then
//! read once from front to back in large pieces ([`super::stream`]); each leaf is judged where it lies
//! ([`super::judge`]). Overflow chains are walked at the end over the links noted on the way, the order of their pages in
//! the file being arbitrary. Memory is a few bytes a page and a bounded number of interior pages; work is bounded by the
//! bytes of the file, whatever they say.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use super::accounts::{Accounts, Owner};
use super::collect::About;
use super::crew::Crew;
use super::judge::Judge;
use super::objects::TreeSpec;
use super::pages::Geometry;
use super::sums::Keyed;
use super::tally::Tally;
use crate::sqlite::header::Header;
use crate::sqlite::overlay::Overlay;

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
    pub image: Option<Box<[u8]>>,
    pub left: Separator,
    pub right: Separator,
}

/// Who owns which page, and the interior pages: made before streaming, and only read by it.
pub(super) struct Map {
    pub accounts: Accounts,
    pub interiors: BTreeMap<u32, Interior>,
    kept: usize,
    /// Overflow pages that may still be read for values before the file must be hostile.
    pub chain_reads: AtomicU64,
}

impl Map {
    /// The bounds of the `place`-th child of an interior page.
    pub fn bounds(&self, parent: u32, place: u16, cells: usize) -> (Separator, Separator) {
        let Some(interior) = self.interiors.get(&parent) else { return ((0, 0), (0, 0)) };
        let left = if place == 0 { interior.left } else { (parent, place - 1) };
        let right = if usize::from(place) < cells { (parent, place) } else { interior.right };
        (left, right)
    }
}

/// A check in progress.
pub(super) struct Pass<'a, 'b> {
    pub env: &'a Env<'a, 'b>,
    pub map: Map,
    pub tally: Tally,
    pub crew: &'a dyn Crew,
    pub may_go_on: &'a mut dyn FnMut(u32, u32) -> bool,
}

impl<'a, 'b> Pass<'a, 'b> {
    pub fn new(
        env: &'a Env<'a, 'b>,
        pages: u32,
        crew: &'a dyn Crew,
        may_go_on: &'a mut dyn FnMut(u32, u32) -> bool,
    ) -> Self {
        let chain_reads = AtomicU64::new(4 * u64::from(pages) + 1024);
        let map = Map { accounts: Accounts::new(pages), interiors: BTreeMap::new(), kept: 0, chain_reads };
        Self { env, map, tally: Tally::new(env.trees.len()), crew, may_go_on }
    }

    pub fn spec(&self, tree: usize) -> Option<&'a TreeSpec> {
        self.env.trees.get(tree)
    }

    pub fn error(&mut self, tree: usize, code: &str, page: u32, text: impl FnOnce(&str) -> String) {
        self.tally.error(&self.env.trees, tree, code, page, text);
    }

    /// Looks at pages on this thread.
    pub fn with_judge<T>(&mut self, f: impl FnOnce(&mut Judge<'_>) -> T) -> T {
        let pages = self.map.accounts.pages;
        let may_go_on = &mut *self.may_go_on;
        f(&mut Judge { env: self.env, map: &self.map, tally: &mut self.tally, go_on: &mut || may_go_on(0, pages) })
    }

    /// One page, out of order. `None` when it is not there ([`Tally::absent`] says why) or time is up.
    pub fn read(&mut self, page: u32) -> Option<Vec<u8>> {
        self.with_judge(|judge| judge.read(page))
    }

    /// Marks a page as used; false when it was used before or does not exist.
    pub fn claim(&mut self, about: About, page: u32, owner: Owner, by: &str) -> bool {
        let accounts = &mut self.map.accounts;
        let pages = accounts.pages;
        let found = &mut self.tally.found;
        if !accounts.exists(page) {
            found.error(about, "page-out-of-range", 0, || format!("{by} points to page {page} of {pages}"));
            return false;
        }
        let had = accounts.owner(page);
        if had == Owner::None {
            accounts.set(page, owner);
            return true;
        }
        let text = || format!("page {page} is used twice, the second time by {by}");
        found.error(about, "page-used-twice", page, text);
        // Both claims are in doubt, so the first one's object is damaged as well.
        let first = match had {
            Owner::Leaf(t) | Owner::Interior(t) | Owner::Overflow(t) => Some(About::Tree(t)),
            Owner::Trunk | Owner::Free => Some(About::Other(super::ObjectKind::Freelist)),
            Owner::Map => Some(About::Other(super::ObjectKind::PointerMap)),
            Owner::Lock | Owner::None => None,
        };
        if let Some(first) = first.filter(|f| *f != about) {
            found.error(first, "page-used-twice", page, || format!("page {page} is also used by {by}"));
        }
        false
    }

    /// Keeps an interior page for the bounds of its children.
    pub fn keep(&mut self, page: u32, image: Vec<u8>, left: Separator, right: Separator) {
        let image = if self.map.kept + image.len() <= KEPT {
            self.map.kept += image.len();
            Some(image.into_boxed_slice())
        } else {
            None
        };
        self.map.interiors.insert(page, Interior { image, left, right });
    }
}
