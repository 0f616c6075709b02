//! Whether a page without a parent is alive, or was freed while its rows stayed on it.
//!
//! SQLite frees a page without a mark on the page itself; who lists it is all that tells. Three witnesses are asked:
//!
//! 1. The **freelist**, from the header's first trunk on (file format 2, section 1.5). Read to its end, or with its
//!    missing part accounted for, it proves every other page alive.
//! 2. The **pointer maps** of an auto-vacuum database (section 1.8): five bytes for each page say what it is (root, free,
//!    overflow, child) and who its parent is. They prove life and death of one page each, and its tree: the parents lead
//!    up to a root that the schema names. A map page is believed when all but a few of its entries are well-formed
//!    and agree with the trees that can be followed.
//! 3. **Entries of indexes** for the rows on it ([`super::evidence`]); asked elsewhere.
//!
//! What none of them decides is *not provable*. Where pages are known to have been freed and the list of them is lost, such
//! rows stay out of the tables.

use super::assign::{FREE, GHOST, ORPHAN, SCHEMA};
use super::map::{Map, trunk};
use super::objects::Object;
use super::source::Source;
use super::tree::Owners;
use crate::sqlite::bytes::{be32, byte};
use crate::sqlite::check::map_entry;
use crate::sqlite::header::Header;
use crate::sqlite::overlay::lock_byte_page;

/// Kinds of a pointer map (file format 2, section 1.8).
const ROOT: u8 = 1;
const FREED: u8 = 2;
const CHILD: u8 = 5;
/// Entries of a map without a header to say that there are any, before it is taken for one.
const LEAST: u32 = 16;
/// One entry in so many may be wrong on a map that is believed.
const TOLERANCE: u32 = 16;
/// Parents followed upwards.
const MAX_DEPTH: u16 = 32;

/// What is known of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// A page of a tree.
    Live,
    /// Freed, or no page of a tree at all.
    Dead,
    /// Nothing says.
    Unknown,
}

/// The witnesses.
#[derive(Debug, Default)]
pub struct Lives {
    /// Which map pages are believed, in order.
    maps: Vec<bool>,
    /// Map page held.
    held: (u32, Vec<u8>),
    usable: u32,
    lock: u32,
    /// True when every freed page is known.
    pub freelist_whole: bool,
    /// True when pages were freed that nothing lists any more: then life has to be proved.
    pub strict: bool,
}

impl Lives {
    /// Reads freelist and pointer maps. Marks what the freelist lists and no tree has in `owners`.
    pub fn read(
        source: &mut Source<'_>,
        map: &Map,
        owners: &mut Owners,
        header: Option<&Header>,
        objects: &[Object],
    ) -> Self {
        let page_size = source.page_size();
        let mut lives = Self { usable: source.usable, lock: lock_byte_page(page_size), ..Self::default() };
        if header.is_none_or(|h| h.largest_root != 0) {
            lives.believe_maps(source, owners, header.is_some(), objects);
        }
        lives.freelist_whole = freelist(source, map, owners, header);
        if !lives.freelist_whole {
            let known = lives.freed(source, owners);
            lives.freelist_whole = header.is_some_and(|h| h.freelist_count == known);
            // Without a header, pages that were freed show that some were; then there may be more.
            lives.strict = !lives.freelist_whole && (header.is_some() || known > 0);
        }
        lives
    }

    /// What is known of a page.
    pub fn of(&mut self, source: &mut Source<'_>, page: u32) -> Life {
        match self.entry(source, page) {
            Some((ROOT | CHILD, _)) => Life::Live,
            Some(_) => Life::Dead,
            None if self.freelist_whole => Life::Live,
            None => Life::Unknown,
        }
    }

    /// The object whose tree a page is in, by the parents that the maps name.
    pub fn home(&mut self, source: &mut Source<'_>, owners: &Owners, objects: &[Object], page: u32) -> Option<usize> {
        let mut at = page;
        for _ in 0..MAX_DEPTH {
            match self.entry(source, at)? {
                (ROOT, _) => return objects.iter().position(|o| o.entry.root == at),
                (CHILD, parent) => at = parent,
                _ => return None,
            }
            match owners.of(at) {
                0 | FREE | GHOST | ORPHAN => {}
                owner => return usize::from(owner).checked_sub(1).filter(|i| *i < objects.len()),
            }
        }
        None
    }

    /// Kind and parent of a page, from a map that is believed.
    fn entry(&mut self, source: &mut Source<'_>, page: u32) -> Option<(u8, u32)> {
        let (map, at) = map_entry(page, self.usable, self.lock)?;
        if !self.maps.get(self.nth(map)).copied().unwrap_or(false) {
            return None;
        }
        if self.held.0 != map {
            self.held.0 = map;
            source.read(map, &mut self.held.1);
        }
        let entry = (byte(&self.held.1, at), be32(&self.held.1, at + 1));
        is_entry(entry, source.pages).then_some(entry)
    }

    fn nth(&self, map: u32) -> usize {
        usize::try_from(map.saturating_sub(2) / (self.usable / 5 + 1)).unwrap_or(usize::MAX)
    }

    fn believe_maps(&mut self, source: &mut Source<'_>, owners: &Owners, by_header: bool, objects: &[Object]) {
        let span = self.usable / 5 + 1;
        let mut bytes = Vec::new();
        let mut first = 2_u32;
        while first < source.pages {
            let pages = first..=source.pages.min(first.saturating_add(span - 1));
            let map = if first == self.lock { first + 1 } else { first };
            let (mut entries, mut wrong) = (0, 0);
            let read = owners.of(map) == 0 && source.read(map, &mut bytes);
            for (page, (_, at)) in
                pages.filter(|_| read).filter_map(|p| Some((p, map_entry(p, self.usable, self.lock)?)))
            {
                if page == self.lock {
                    continue;
                }
                let entry = (byte(&bytes, at), be32(&bytes, at + 1));
                entries += 1;
                let agrees = match owners.of(page) {
                    SCHEMA => page == 1 || matches!(entry.0, ROOT | CHILD),
                    owner if owner > 0 && usize::from(owner) <= objects.len() => matches!(entry.0, ROOT | CHILD),
                    _ => true,
                };
                wrong += u32::from(!agrees || !is_entry(entry, source.pages));
            }
            let enough = entries >= if by_header { 1 } else { LEAST };
            self.maps.push(read && enough && wrong * TOLERANCE <= entries);
            first = first.saturating_add(span);
        }
    }

    /// How many pages are known to be free.
    fn freed(&mut self, source: &mut Source<'_>, owners: &Owners) -> u32 {
        let mut count = 0;
        for page in 2..=source.pages {
            let free = match self.entry(source, page) {
                Some((kind, _)) => kind == FREED,
                None => owners.of(page) == FREE,
            };
            count += u32::from(free);
        }
        count
    }
}

/// A root and a free page have no parent, every other page has one.
fn is_entry((kind, parent): (u8, u32), pages: u32) -> bool {
    match kind {
        ROOT | FREED => parent == 0,
        3..=CHILD => (1..=pages).contains(&parent),
        _ => false,
    }
}

/// Marks what the freelist lists and no tree has. Where its head is gone, every page that looks like a trunk is taken
/// for one: an orphan that it lists was deleted. True when it was read from its head to its end.
fn freelist(source: &mut Source<'_>, map: &Map, owners: &mut Owners, header: Option<&Header>) -> bool {
    let mut bytes = Vec::new();
    let mut counted = 0_u32;
    let mut next = header.map_or(0, |h| h.freelist_head);
    let mut whole = header.is_some();
    while next != 0 && whole {
        let listed = (owners.of(next) == 0 && source.read(next, &mut bytes)).then(|| trunk(&bytes, source)).flatten();
        let lone = next != 0 && bytes.iter().take(8).all(|b| *b == 0);
        let Some((following, pages)) = listed.or_else(|| lone.then(|| (0, Vec::new()))) else {
            whole = false;
            break;
        };
        owners.set(next, FREE);
        counted += 1;
        counted += pages.iter().map(|p| free(owners, *p)).sum::<u32>();
        next = following;
    }
    whole &= header.is_some_and(|h| h.freelist_count == counted);
    if !whole {
        for number in &map.trunks {
            if owners.of(*number) == 0
                && source.read(*number, &mut bytes)
                && let Some((_, pages)) = trunk(&bytes, source)
            {
                owners.set(*number, FREE);
                for page in pages {
                    free(owners, page);
                }
            }
        }
    }
    whole
}

fn free(owners: &mut Owners, page: u32) -> u32 {
    if owners.of(page) == 0 {
        owners.set(page, FREE);
    }
    1
}
