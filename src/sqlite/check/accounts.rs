//! Who owns each page: exactly one tree, chain, list or map. Ten bytes a page, whatever the file holds.
//!
//! `link` holds the parent of a b-tree page; of a page that nothing owns yet its first word, which is the next page if it
//! turns out to be part of a chain; of an overflow page, once its chain is walked, what stands before it. `place` is the
//! child number under the parent, from which the bounds of a leaf follow.

use std::sync::atomic::{AtomicU32, Ordering};

/// Owner of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nothing yet.
    None,
    /// The page of the locking bytes.
    Lock,
    /// Pointer map.
    Map,
    /// Freelist trunk.
    Trunk,
    /// Free page.
    Free,
    /// Leaf of a tree.
    Leaf(usize),
    /// Interior page of a tree.
    Interior(usize),
    /// Overflow page of a tree.
    Overflow(usize),
}

/// Ownership of every page.
pub(super) struct Accounts {
    /// Pages that the database has.
    pub pages: u32,
    owner: Vec<u32>,
    /// Atomic, so that workers may note the first words of pages without an owner; each page is judged by one worker.
    link: Vec<AtomicU32>,
    place: Vec<u16>,
}

impl Accounts {
    pub fn new(pages: u32) -> Self {
        let n = usize::try_from(pages).unwrap_or(0) + 1;
        Self { pages, owner: vec![0; n], link: (0..n).map(|_| AtomicU32::new(0)).collect(), place: vec![0; n] }
    }

    pub fn owner(&self, page: u32) -> Owner {
        let word = usize::try_from(page).ok().and_then(|i| self.owner.get(i)).copied().unwrap_or(0);
        let tree = usize::try_from(word / 4).unwrap_or(0).wrapping_sub(2);
        match (word, word % 4) {
            (0, _) => Owner::None,
            (1, _) => Owner::Lock,
            (2, _) => Owner::Map,
            (3, _) => Owner::Trunk,
            (4, _) => Owner::Free,
            (_, 0) => Owner::Leaf(tree),
            (_, 1) => Owner::Interior(tree),
            _ => Owner::Overflow(tree),
        }
    }

    /// Sets the owner, whoever had it.
    pub fn set(&mut self, page: u32, owner: Owner) {
        let tree = |t: usize| u32::try_from(t + 2).unwrap_or(u32::MAX / 8) * 4;
        let word = match owner {
            Owner::None => 0,
            Owner::Lock => 1,
            Owner::Map => 2,
            Owner::Trunk => 3,
            Owner::Free => 4,
            Owner::Leaf(t) => tree(t),
            Owner::Interior(t) => tree(t) + 1,
            Owner::Overflow(t) => tree(t) + 2,
        };
        if let Some(place) = usize::try_from(page).ok().and_then(|i| self.owner.get_mut(i)) {
            *place = word;
        }
    }

    pub fn link(&self, page: u32) -> u32 {
        usize::try_from(page).ok().and_then(|i| self.link.get(i)).map_or(0, |l| l.load(Ordering::Relaxed))
    }

    pub fn set_link(&self, page: u32, link: u32) {
        if let Some(place) = usize::try_from(page).ok().and_then(|i| self.link.get(i)) {
            place.store(link, Ordering::Relaxed);
        }
    }

    pub fn place(&self, page: u32) -> u16 {
        usize::try_from(page).ok().and_then(|i| self.place.get(i)).copied().unwrap_or(0)
    }

    pub fn set_place(&mut self, page: u32, number: u16) {
        if let Some(place) = usize::try_from(page).ok().and_then(|i| self.place.get_mut(i)) {
            *place = number;
        }
    }

    /// True when the page exists in the database.
    pub fn exists(&self, page: u32) -> bool {
        page != 0 && page <= self.pages
    }
}

/// The pointer-map page that has the entry of `page` (file format 2, section 1.8), and the offset of the entry there.
/// Page 1 and the map pages themselves have none.
pub(crate) fn map_entry(page: u32, usable: u32, lock: u32) -> Option<(u32, usize)> {
    let map = map_page(page, usable, lock)?;
    let at = page.checked_sub(map + 1)?;
    Some((map, 5 * usize::try_from(at).ok()?))
}

/// The pointer-map page in whose range `page` lies: itself when it is one.
pub(super) fn map_page(page: u32, usable: u32, lock: u32) -> Option<u32> {
    let span = usable / 5 + 1;
    let nth = page.checked_sub(2)? / span;
    let map = nth * span + 2;
    // The map is never on the page of the locking bytes: it moves one up.
    Some(if map == lock { map + 1 } else { map })
}
