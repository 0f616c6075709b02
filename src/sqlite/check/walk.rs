//! Interior pages: from the root down to the parents of the leaves, without recursion.
//!
//! The depth of a tree is found along its left edge (its right edge where that is damaged): all leaves stand at one depth,
//! so children at that depth are given their owner without being read; a leaf that is none is found when its turn comes.

use std::io;

use super::accounts::Owner;
use super::collect::About;
use super::pages::Tree;
use super::pass::{Chain, Pass, Separator};

/// Deepest b-tree; the engine's own limit.
const MAX_DEPTH: u32 = 20;

/// An interior page to be read.
struct Todo {
    page: u32,
    depth: u32,
    left: Separator,
    right: Separator,
}

impl Pass<'_, '_> {
    /// Gives every page of a tree its owner.
    pub fn walk(&mut self, tree: usize) -> io::Result<()> {
        let Some(spec) = self.spec(tree) else { return Ok(()) };
        let leaves = self.depth(spec.root)?;
        let owner = if leaves == 0 { Owner::Leaf(tree) } else { Owner::Interior(tree) };
        if !self.claim(About::Tree(tree), spec.root, owner, &spec.name) || leaves == 0 {
            return Ok(());
        }
        let mut stack = vec![Todo { page: spec.root, depth: 0, left: (0, 0), right: (0, 0) }];
        while let Some(todo) = stack.pop() {
            if self.out_of_time {
                return Ok(());
            }
            let Some(image) = self.read(todo.page)? else {
                if !self.out_of_time {
                    self.error(tree, "page-missing", todo.page, |name| {
                        format!("page {} of {name} lies beyond the end of the file", todo.page)
                    });
                }
                continue;
            };
            self.interior(tree, &todo, image, leaves, &mut stack)?;
        }
        Ok(())
    }

    /// Depth of the leaves below `root`, 0 when it is one itself or cannot be read.
    fn depth(&mut self, root: u32) -> io::Result<u32> {
        for rightmost in [false, true] {
            let mut page = root;
            for depth in 0..=MAX_DEPTH {
                let Some(image) = self.read(page)? else { break };
                let Ok(node) = Tree::parse(&image, page, &self.env.geometry) else { break };
                if node.kind.is_leaf() {
                    return Ok(depth);
                }
                let first = node.cell(0, &self.env.geometry).ok().map(|(c, _)| c.left);
                page = if rightmost || node.cells == 0 { node.right } else { first.unwrap_or(0) };
                if !self.accounts.exists(page) {
                    break;
                }
            }
        }
        let image = self.read(root)?.unwrap_or_default();
        let interior = Tree::parse(&image, root, &self.env.geometry).is_ok_and(|t| !t.kind.is_leaf());
        Ok(u32::from(interior))
    }

    fn interior(
        &mut self,
        tree: usize,
        todo: &Todo,
        image: Vec<u8>,
        leaves: u32,
        stack: &mut Vec<Todo>,
    ) -> io::Result<()> {
        let env = self.env;
        let number = todo.page;
        let by_rowid = self.spec(tree).is_some_and(|s| s.by_rowid);
        let node = match Tree::parse(&image, number, &env.geometry) {
            Ok(node) if node.kind.is_table() != by_rowid => {
                self.error(tree, "page-damaged", number, |n| {
                    format!("page {number} of {n} is of the other kind of tree")
                });
                return Ok(());
            }
            Ok(node) => node,
            Err(why) => {
                self.error(tree, "page-damaged", number, |n| format!("page {number} of {n}: {why}"));
                return Ok(());
            }
        };
        if node.kind.is_leaf() {
            self.error(tree, "tree-uneven", number, |n| {
                format!("leaf {number} of {n} is not at the depth of the other leaves")
            });
            self.accounts.set(number, Owner::Leaf(tree));
            return Ok(());
        }
        self.keep(number, image.clone(), todo.left, todo.right);
        let mut extents = std::mem::take(&mut self.extents);
        extents.clear();
        let mut whole = true;
        let mut used = 0;
        for i in 0..node.cells {
            let (cell, extent) = match node.cell(i, &env.geometry) {
                Ok(found) => found,
                Err(why) => {
                    whole = false;
                    self.error(tree, "cell-damaged", number, |n| format!("cell {i} of page {number} of {n} {why}"));
                    continue;
                }
            };
            used += (extent & 0xffff_ffff) - (extent >> 32);
            if used > env.geometry.usable as u64 {
                break;
            }
            extents.push(extent);
            self.child(tree, todo, (cell.left, i), node.cells, leaves, stack);
            if !by_rowid {
                if cell.overflow != 0 {
                    self.chain(tree, number, cell.payload_len - cell.local.len() as u64, cell.overflow);
                }
                let mut entry = std::mem::take(&mut self.entries[0]);
                self.entry(tree, number, &cell, &mut entry)?;
                self.entries[0] = entry;
            }
        }
        self.child(tree, todo, (node.right, node.cells), node.cells, leaves, stack);
        if used > env.geometry.usable as u64 {
            self.error(tree, "cells-overlap", number, |n| format!("two cells of page {number} of {n} overlap"));
        } else if let Err(why) = if whole { node.account(&mut extents) } else { Ok(()) } {
            self.error(tree, "space-damaged", number, |n| format!("page {number} of {n}: {why}"));
        }
        self.extents = extents;
        Ok(())
    }

    fn child(
        &mut self,
        tree: usize,
        todo: &Todo,
        (page, place): (u32, usize),
        cells: usize,
        leaves: u32,
        stack: &mut Vec<Todo>,
    ) {
        let depth = todo.depth + 1;
        if depth > MAX_DEPTH {
            self.error(tree, "tree-too-deep", page, |n| format!("the tree of {n} is deeper than {MAX_DEPTH}"));
            return;
        }
        let owner = if depth >= leaves { Owner::Leaf(tree) } else { Owner::Interior(tree) };
        let name = self.spec(tree).map_or("", |s| s.name.as_str());
        if !self.claim(About::Tree(tree), page, owner, name) {
            return;
        }
        let place = u16::try_from(place).unwrap_or(u16::MAX);
        self.accounts.set_link(page, todo.page);
        self.accounts.set_place(page, place);
        if depth < leaves {
            let (left, right) = self.bounds(todo.page, place, cells);
            stack.push(Todo { page, depth, left, right });
        }
    }

    /// Notes a chain, to be walked when every link is known.
    pub fn chain(&mut self, tree: usize, cell_page: u32, spilled: u64, first: u32) {
        let pages = self.env.geometry.chain(spilled);
        let tree = u32::try_from(tree).unwrap_or(u32::MAX);
        self.chains.push(Chain { first, pages, cell_page, tree });
    }
}
