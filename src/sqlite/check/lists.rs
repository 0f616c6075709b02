//! What is no b-tree: the freelist, overflow chains, pointer maps, and pages that nothing owns (file format 2, sections
//! 1.5, 1.6 and 1.8).

use super::ObjectKind;
use super::accounts::{Owner, map_entry, map_page};
use super::collect::About;
use super::pass::Pass;
use crate::sqlite::bytes::{be32, byte};
use crate::sqlite::overlay::lock_byte_page;

const FREELIST: About = About::Other(ObjectKind::Freelist);
const MAP: About = About::Other(ObjectKind::PointerMap);

impl Pass<'_, '_> {
    fn lock(&self) -> u32 {
        lock_byte_page(self.env.header.page_size)
    }

    fn usable(&self) -> u32 {
        u32::try_from(self.env.geometry.usable).unwrap_or(480)
    }

    /// Pages with an owner by their number alone.
    pub fn fixed(&mut self) {
        let (lock, pages) = (self.lock(), self.map.accounts.pages);
        if lock <= pages {
            self.map.accounts.set(lock, Owner::Lock);
        }
        if self.env.header.largest_root == 0 {
            if self.env.header.incremental_vacuum != 0 {
                self.tally.found.error(MAP, "auto-vacuum-damaged", 1, || {
                    "the header asks for incremental vacuum in a database without pointer maps".into()
                });
            }
            return;
        }
        let usable = self.usable();
        let mut at = 2;
        while at <= pages {
            let Some(map) = map_page(at, usable, lock) else { break };
            if map <= pages {
                self.map.accounts.set(map, Owner::Map);
            }
            at = at.saturating_add(usable / 5 + 1);
        }
        let largest = self.env.trees.iter().map(|t| t.root).max().unwrap_or(0);
        let stated = self.env.header.largest_root;
        if largest != stated {
            self.tally.found.error(About::Other(ObjectKind::Schema), "largest-root", 1, || {
                format!("the largest root page is {largest}, the header says {stated}")
            });
        }
    }

    /// Walks the freelist: trunks are read, leaves only counted.
    pub fn freelist(&mut self) {
        let mut trunk = self.env.header.freelist_head;
        let stated = self.env.header.freelist_count;
        let mut counted = 0_u32;
        let mut whole = true;
        while trunk != 0 {
            if !self.claim(FREELIST, trunk, Owner::Trunk, "the freelist") {
                return;
            }
            let Some(image) = self.read(trunk) else {
                self.tally.absent(FREELIST, trunk, "the freelist");
                return;
            };
            counted = counted.saturating_add(1);
            let leaves = be32(&image, 4);
            if leaves > self.usable() / 4 - 2 {
                self.tally.found.error(FREELIST, "freelist-damaged", trunk, || {
                    format!("freelist trunk {trunk} claims {leaves} pages")
                });
                whole = false;
            } else {
                for i in 0..usize::try_from(leaves).unwrap_or(0) {
                    whole &= self.claim(FREELIST, be32(&image, 8 + 4 * i), Owner::Free, "the freelist");
                }
                counted = counted.saturating_add(leaves);
            }
            trunk = be32(&image, 0);
        }
        if whole && counted != stated {
            self.tally.found.error(FREELIST, "freelist-count", 1, || {
                format!("the freelist holds {counted} pages, the header counts {stated}")
            });
        }
    }

    /// Walks every overflow chain over the links noted while streaming.
    pub fn walk_chains(&mut self) {
        let chains = std::mem::take(&mut self.tally.chains);
        for chain in &chains {
            let tree = usize::try_from(chain.tree).unwrap_or(usize::MAX);
            let name = self.spec(tree).map_or("", |s| s.name.as_str());
            let (mut next, mut before, mut left) = (chain.first, chain.cell_page, chain.pages);
            while next != 0 {
                if left == 0 {
                    self.error(tree, "overflow-too-long", chain.cell_page, |n| {
                        format!("an overflow chain of page {} of {n} does not end where its row does", chain.cell_page)
                    });
                    break;
                }
                if !self.claim(About::Tree(tree), next, Owner::Overflow(tree), name) {
                    // The row that lost its chain is the damage that matters.
                    self.tally.found.error(About::Tree(tree), "overflow-damaged", chain.cell_page, || {
                        format!("an overflow chain of page {} of {name} is not its own", chain.cell_page)
                    });
                    left = 0;
                    break;
                }
                let after = self.map.accounts.link(next);
                self.map.accounts.set_link(next, before);
                // The first page of a chain is told from the others by its place.
                self.map.accounts.set_place(next, u16::from(left != chain.pages));
                (before, next) = (next, after);
                left -= 1;
            }
            if left > 0 {
                self.error(tree, "overflow-too-short", chain.cell_page, |n| {
                    format!("an overflow chain of page {} of {n} ends {left} pages early", chain.cell_page)
                });
            }
        }
    }

    /// Compares every entry of the pointer maps with what the trees say.
    pub fn pointer_maps(&mut self) {
        if self.env.header.largest_root == 0 {
            return;
        }
        let (usable, lock) = (self.usable(), self.lock());
        let mut held: (u32, Vec<u8>) = (0, Vec::new());
        for page in 3..=self.map.accounts.pages {
            let expected = match self.map.accounts.owner(page) {
                Owner::Trunk | Owner::Free => (2, 0),
                Owner::Leaf(_) | Owner::Interior(_) => match self.map.accounts.link(page) {
                    0 => (1, 0),
                    parent => (5, parent),
                },
                Owner::Overflow(_) => {
                    (if self.map.accounts.place(page) == 0 { 3 } else { 4 }, self.map.accounts.link(page))
                }
                Owner::None | Owner::Lock | Owner::Map => continue,
            };
            let Some((map, at)) = map_entry(page, usable, lock) else { continue };
            if held.0 != map {
                let image = self.read(map);
                if image.is_none() {
                    self.tally.absent(MAP, map, "the pointer map");
                }
                held = (map, image.unwrap_or_default());
            }
            if self.tally.out_of_time {
                return;
            }
            // A map page that is not there was told of once.
            if held.1.is_empty() {
                continue;
            }
            let entry = (byte(&held.1, at), be32(&held.1, at + 1));
            if entry != expected {
                self.tally.found.error(MAP, "pointer-map", map, || {
                    format!(
                        "the pointer map says kind {} and parent {} of page {page}, the trees say {} and {}",
                        entry.0, entry.1, expected.0, expected.1
                    )
                });
            }
        }
    }

    /// Pages that nothing owns: lost space, and a sign of damage elsewhere. Where damage was found that can hide their
    /// owner, they say nothing new, and are only named as objects.
    pub fn unused(&mut self) {
        let known = !self.tally.found.sound();
        let about = About::Other(ObjectKind::Unowned);
        let mut count = 0_u32;
        let mut first = 0;
        for page in 1..=self.map.accounts.pages {
            if self.map.accounts.owner(page) == Owner::None {
                count += 1;
                if first == 0 {
                    first = page;
                }
                if count <= 4096 && (known || count > 1) {
                    self.tally.found.name_page(about, page);
                }
            }
        }
        if count > 0 && !known {
            self.tally.found.error(about, "page-unused", first, || match count {
                1 => format!("page {first} is neither used nor free"),
                n => format!("page {first} and {} others are neither used nor free", n - 1),
            });
        }
    }
}
