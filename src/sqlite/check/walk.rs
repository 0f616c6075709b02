//! Interior pages: from the root down to the parents of the leaves, without recursion.
//!
//! The depth of a tree is found along its left edge (its right edge where that is damaged): all leaves stand at one depth,
//! so children at that depth are given their owner without being read; a leaf that is none is found when its turn comes.

use super::accounts::Owner;
use super::collect::About;
use super::judge::Judge;
use super::pages::Tree;
use super::pass::{Pass, Separator};
use super::tally::Chain;

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
    pub fn walk(&mut self, tree: usize) {
        let Some(spec) = self.spec(tree) else { return };
        let leaves = self.depth(spec.root);
        let owner = if leaves == 0 { Owner::Leaf(tree) } else { Owner::Interior(tree) };
        if !self.claim(About::Tree(tree), spec.root, owner, &spec.name) || leaves == 0 {
            return;
        }
        let mut stack = vec![Todo { page: spec.root, depth: 0, left: (0, 0), right: (0, 0) }];
        while let Some(todo) = stack.pop() {
            if self.tally.out_of_time {
                return;
            }
            match self.read(todo.page) {
                Some(image) => self.interior(tree, &todo, image, leaves, &mut stack),
                None => self.tally.absent(About::Tree(tree), todo.page, &spec.name),
            }
        }
    }

    /// Depth of the leaves below `root`, 0 when it is one itself or cannot be read.
    fn depth(&mut self, root: u32) -> u32 {
        for rightmost in [false, true] {
            let mut page = root;
            for depth in 0..=MAX_DEPTH {
                let Some(image) = self.read(page) else { break };
                let Ok(node) = Tree::parse(&image, page, &self.env.geometry) else { break };
                if node.kind.is_leaf() {
                    return depth;
                }
                let first = node.cell(0, &self.env.geometry).ok().map(|(c, _)| c.left);
                page = if rightmost || node.cells == 0 { node.right } else { first.unwrap_or(0) };
                if !self.map.accounts.exists(page) {
                    break;
                }
            }
        }
        let image = self.read(root).unwrap_or_default();
        let interior = Tree::parse(&image, root, &self.env.geometry).is_ok_and(|t| !t.kind.is_leaf());
        u32::from(interior)
    }

    fn interior(&mut self, tree: usize, todo: &Todo, image: Vec<u8>, leaves: u32, stack: &mut Vec<Todo>) {
        let env = self.env;
        let number = todo.page;
        let by_rowid = self.spec(tree).is_some_and(|s| s.by_rowid);
        let node = match Tree::parse(&image, number, &env.geometry) {
            Ok(node) if node.kind.is_table() != by_rowid => {
                self.error(tree, "page-damaged", number, |n| {
                    format!("page {number} of {n} is of the other kind of tree")
                });
                return;
            }
            Ok(node) => node,
            Err(why) => {
                self.error(tree, "page-damaged", number, |n| format!("page {number} of {n}: {why}"));
                return;
            }
        };
        if node.kind.is_leaf() {
            self.error(tree, "tree-uneven", number, |n| {
                format!("leaf {number} of {n} is not at the depth of the other leaves")
            });
            self.map.accounts.set(number, Owner::Leaf(tree));
            return;
        }
        self.keep(number, image.clone(), todo.left, todo.right);
        let mut cover = std::mem::take(&mut self.tally.scratch.cover);
        cover.clear(env.geometry.usable);
        let mut whole = true;
        let mut used = 0;
        for i in 0..node.cells {
            let (cell, (start, end)) = match node.cell(i, &env.geometry) {
                Ok(found) => found,
                Err(why) => {
                    whole = false;
                    self.error(tree, "cell-damaged", number, |n| format!("cell {i} of page {number} of {n} {why}"));
                    continue;
                }
            };
            used += end - start;
            if used > env.geometry.usable {
                break;
            }
            cover.add(start, end);
            self.child(tree, todo, (cell.left, i), node.cells, leaves, stack);
            if !by_rowid {
                self.with_judge(|judge| {
                    if cell.overflow != 0 {
                        judge.chain(tree, number, cell.payload_len - cell.local.len() as u64, cell.overflow);
                    }
                    let mut entry = std::mem::take(&mut judge.tally.scratch.entries[0]);
                    judge.entry(tree, number, &cell, &mut entry);
                    judge.tally.scratch.entries[0] = entry;
                });
            }
        }
        self.child(tree, todo, (node.right, node.cells), node.cells, leaves, stack);
        if used > env.geometry.usable {
            self.error(tree, "cells-overlap", number, |n| format!("two cells of page {number} of {n} overlap"));
        } else if let Err(why) = if whole { node.account(&mut cover) } else { Ok(()) } {
            self.error(tree, "space-damaged", number, |n| format!("page {number} of {n}: {why}"));
        }
        self.tally.scratch.cover = cover;
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
        self.map.accounts.set_link(page, todo.page);
        self.map.accounts.set_place(page, place);
        if depth < leaves {
            let (left, right) = self.map.bounds(todo.page, place, cells);
            stack.push(Todo { page, depth, left, right });
        }
    }
}

impl Judge<'_> {
    /// Notes a chain, to be walked when every link is known.
    pub fn chain(&mut self, tree: usize, cell_page: u32, spilled: u64, first: u32) {
        let pages = self.env.geometry.chain(spilled);
        let tree = u32::try_from(tree).unwrap_or(u32::MAX);
        self.tally.chains.push(Chain { first, pages, cell_page, tree });
    }
}
