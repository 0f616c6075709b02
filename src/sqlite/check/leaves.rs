//! Leaves: rows with their rowids, keys with their order, inside the bounds that the parent gives.

use std::cmp::Ordering;

use super::judge::Judge;
use super::keys::Entry;
use super::pages::{CellAt, Cover, Tree};
use super::pass::Separator;

impl Judge<'_> {
    /// Judges a leaf.
    pub fn leaf(&mut self, tree: usize, number: u32, image: &[u8]) {
        let env = self.env;
        let Some(spec) = self.spec(tree) else { return };
        let node = match Tree::parse(image, number, &env.geometry) {
            Ok(node) => node,
            Err(why) => {
                self.error(tree, "page-damaged", number, |n| format!("page {number} of {n}: {why}"));
                return;
            }
        };
        if node.kind.is_table() != spec.by_rowid {
            self.error(tree, "page-damaged", number, |n| format!("page {number} of {n} is of the other kind of tree"));
            return;
        }
        if !node.kind.is_leaf() {
            self.error(tree, "tree-uneven", number, |n| {
                format!("interior page {number} of {n} stands at the depth of its leaves")
            });
            return;
        }
        let mut cover = std::mem::take(&mut self.tally.scratch.cover);
        cover.clear(env.geometry.usable);
        let whole = if spec.by_rowid {
            self.table_leaf(tree, number, &node, &mut cover)
        } else {
            self.index_leaf(tree, number, &node, &mut cover)
        };
        if let Err(why) = if whole { node.account(&mut cover) } else { Ok(()) } {
            self.error(tree, "space-damaged", number, |n| format!("page {number} of {n}: {why}"));
        }
        self.tally.scratch.cover = cover;
    }

    /// A cell that can be used; `None` after a finding. `used` guards against cells laid over one another thousands of
    /// times, which would be read as often.
    #[inline(always)]
    fn cell_at<'p>(
        &mut self,
        tree: usize,
        number: u32,
        node: &Tree<'p>,
        i: usize,
        cover: &mut Cover,
        used: &mut usize,
    ) -> Option<CellAt<'p>> {
        match node.cell(i, &self.env.geometry) {
            Ok((cell, (start, end))) => {
                *used += end - start;
                cover.add(start, end);
                Some(cell)
            }
            Err(why) => {
                self.error(tree, "cell-damaged", number, |n| format!("cell {i} of page {number} of {n} {why}"));
                None
            }
        }
    }

    #[inline(always)]
    fn overlap(&mut self, tree: usize, number: u32, used: usize) -> bool {
        let over = used > self.env.geometry.usable;
        if over {
            self.error(tree, "cells-overlap", number, |n| format!("two cells of page {number} of {n} overlap"));
        }
        over
    }

    fn table_leaf(&mut self, tree: usize, number: u32, node: &Tree<'_>, cover: &mut Cover) -> bool {
        let (left, right) = self.leaf_bounds(number);
        let mut previous = self.rowid_at(left);
        let high = self.rowid_at(right);
        let (mut whole, mut used) = (true, 0);
        for i in 0..node.cells {
            let Some(cell) = self.cell_at(tree, number, node, i, cover, &mut used) else {
                whole = false;
                continue;
            };
            if self.overlap(tree, number, used) {
                return false;
            }
            let id = cell.rowid;
            if previous.is_some_and(|p| id <= p) || high.is_some_and(|h| id > h) {
                self.error(tree, "rowid-out-of-order", number, |n| {
                    format!("rowid {id} on page {number} of {n} is out of order")
                });
            }
            previous = Some(id);
            if cell.overflow != 0 {
                self.chain(tree, number, cell.payload_len - cell.local.len() as u64, cell.overflow);
            }
            self.row(tree, number, &cell);
        }
        whole
    }

    fn rowid_at(&mut self, (page, cell): Separator) -> Option<i64> {
        if page == 0 {
            return None;
        }
        let geometry = self.env.geometry;
        let found = self.with_interior(page, |t| t.cell(usize::from(cell), &geometry).ok().map(|(c, _)| c.rowid));
        found.flatten()
    }

    fn index_leaf(&mut self, tree: usize, number: u32, node: &Tree<'_>, cover: &mut Cover) -> bool {
        let (left, right) = self.leaf_bounds(number);
        let [mut previous, mut current] = std::mem::take(&mut self.tally.scratch.entries);
        let mut known = self.separator(tree, left, &mut previous);
        let (mut whole, mut used) = (true, 0);
        for i in 0..node.cells {
            let Some(cell) = self.cell_at(tree, number, node, i, cover, &mut used) else {
                whole = false;
                continue;
            };
            if self.overlap(tree, number, used) {
                whole = false;
                break;
            }
            if cell.overflow != 0 {
                self.chain(tree, number, cell.payload_len - cell.local.len() as u64, cell.overflow);
            }
            let readable = self.entry(tree, number, &cell, &mut current);
            if known && readable {
                self.in_order(tree, number, &previous, &current);
            }
            if readable {
                known = true;
                std::mem::swap(&mut previous, &mut current);
            }
        }
        if known && self.separator(tree, right, &mut current) {
            self.in_order(tree, number, &previous, &current);
        }
        self.tally.scratch.entries = [previous, current];
        whole
    }

    /// The entry that bounds a leaf.
    fn separator(&mut self, tree: usize, (page, cell): Separator, into: &mut Entry) -> bool {
        if page == 0 {
            return false;
        }
        let geometry = self.env.geometry;
        let found = self.with_interior(page, |t| {
            t.cell(usize::from(cell), &geometry).ok().map(|(c, _)| (c.local.to_vec(), c.payload_len, c.overflow))
        });
        match found.flatten() {
            Some((local, len, overflow)) => self.load(tree, &local, len, overflow, into).is_ok(),
            None => false,
        }
    }

    /// Compares two neighbours.
    fn in_order(&mut self, tree: usize, number: u32, a: &Entry, b: &Entry) {
        let env = self.env;
        let Some(keys) = self.spec(tree).and_then(|s| s.keys.as_ref()) else { return };
        let Some(order) = &keys.order else { return };
        let (ordering, equal) = a.compare(b, order, env.header.encoding);
        match ordering {
            Ordering::Greater => self.error(tree, "key-out-of-order", number, |n| {
                format!("two keys on or beside page {number} of {n} are out of order")
            }),
            Ordering::Equal => self.error(tree, "key-twice", number, |n| {
                format!("a key on or beside page {number} of {n} stands there twice")
            }),
            Ordering::Less if keys.unique > 0 && equal >= keys.unique && !a.any_null(keys.unique) => {
                self.error(tree, "key-not-unique", number, |n| {
                    format!("a key on or beside page {number} of {n} is not unique")
                });
            }
            Ordering::Less => {}
        }
    }
}
