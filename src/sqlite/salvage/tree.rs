//! One tree from its root, as far as it can be followed, with the places where it cannot.
//!
//! A *hole* is a range of rowids whose page is gone. It is *closed* when an intact interior page names the very leaf
//! that is damaged: no other page can belong there. It is *open* when an interior page is gone (its children are
//! whole somewhere, without a parent) or its pointer cannot be believed. Only open holes take orphans in.

use super::map::{Kind, Map};
use super::shape::Shape;
use super::sheet;
use super::source::Source;
use crate::sqlite::page::PageKind;

/// Deepest tree followed.
const MAX_DEPTH: u16 = 32;
/// Holes kept for one tree; behind that they are joined, which only makes bounds wider.
const MAX_HOLES: usize = 1 << 17;

/// Rowids above `low` up to `high` whose page is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Exclusive; `i64::MIN` is no bound.
    pub low: i64,
    /// Inclusive; `i64::MAX` is no bound.
    pub high: i64,
    /// True when an orphan may belong here.
    pub open: bool,
    /// Leaves that are gone here; only where it is closed.
    pub pages: u32,
    depth: u16,
}

impl Hole {
    /// No bound on either side, open.
    pub fn everything() -> Self {
        Self { low: i64::MIN, high: i64::MAX, open: true, pages: 1, depth: 0 }
    }

    /// True when rowids from `low` to `high` all lie in it.
    pub fn holds(&self, low: i64, high: i64) -> bool {
        (self.low == i64::MIN || self.low < low) && high <= self.high
    }
}

/// A leaf in its tree with the bounds its parents give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Page number.
    pub page: u32,
    /// Rowids lie above this; `i64::MIN` is no bound.
    pub low: i64,
    /// And not above this.
    pub high: i64,
}

/// What of a tree can be followed.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Table leaves in key order; for index-like trees every page that holds entries.
    pub leaves: Vec<Bound>,
    /// Interior pages.
    pub interior: Vec<u32>,
    /// Where it cannot be followed.
    pub holes: Vec<Hole>,
    /// Pages of nothing but zeroes that it points to: something erases pages here.
    pub erased: u32,
}

impl Tree {
    fn hole(&mut self, hole: Hole) {
        let full = self.holes.len() >= MAX_HOLES;
        if let Some(last) = self.holes.last_mut()
            && (full || (last.high == hole.low && last.open == hole.open && last.depth == hole.depth))
        {
            last.high = last.high.max(hole.high);
            last.open |= hole.open;
            last.pages = last.pages.saturating_add(hole.pages);
            return;
        }
        self.holes.push(hole);
    }
}

/// Who has which page. 0 is nobody; numbers are the caller's.
#[derive(Debug)]
pub struct Owners(Vec<u16>);

impl Owners {
    /// For a database of `pages` pages.
    pub fn new(pages: u32) -> Self {
        Self(vec![0; usize::try_from(pages).unwrap_or(0) + 1])
    }

    /// The owner of a page; pages outside belong to somebody else.
    pub fn of(&self, page: u32) -> u16 {
        self.0.get(usize::try_from(page).unwrap_or(usize::MAX)).copied().unwrap_or(u16::MAX)
    }

    /// Gives a page to somebody.
    pub fn set(&mut self, page: u32, owner: u16) {
        if let Some(place) = self.0.get_mut(usize::try_from(page).unwrap_or(usize::MAX)) {
            *place = owner;
        }
    }
}

/// Follows a table (rowid tree) or an index (any other) from `root`. Claims pages for `owner`. A page that the map could
/// not recognise is read again as what its parent says it is; `shape` then says whether its rows can be.
pub fn follow(
    source: &mut Source<'_>,
    map: &mut Map,
    owners: &mut Owners,
    (root, owner): (u32, u16),
    table: bool,
    shape: Option<&Shape>,
) -> Tree {
    let mut tree = Tree::default();
    let mut leaf_depth = None;
    // (page, above, up to, depth, named by a page that can be believed)
    let mut stack = vec![(root, i64::MIN, i64::MAX, 0_u16, true)];
    let mut bytes = Vec::new();
    while let Some((page, low, high, depth, believed)) = stack.pop() {
        let hole = |open: bool| Hole { low, high, open, pages: 1, depth };
        if depth > MAX_DEPTH || owners.of(page) != 0 || page == 0 {
            tree.hole(hole(true));
            continue;
        }
        let mut kind = map.kind(page);
        if !matches!(kind, Kind::Tree(k) if k.is_table() == table) {
            kind = second_look(source, map, page, (low, high), table, shape);
        }
        match kind {
            Kind::Tree(PageKind::TableLeaf) if table => {
                let Some(leaf) = map.leaf(page) else { continue };
                let empty = leaf.low > leaf.high;
                if !empty && (leaf.high <= low && low != i64::MIN || leaf.low > high) {
                    // Somebody else's leaf: the pointer is what is damaged.
                    tree.hole(hole(true));
                    continue;
                }
                leaf_depth.get_or_insert(depth);
                owners.set(page, owner);
                tree.leaves.push(Bound { page, low, high });
            }
            Kind::Tree(PageKind::IndexLeaf) if !table => {
                leaf_depth.get_or_insert(depth);
                owners.set(page, owner);
                tree.leaves.push(Bound { page, low, high });
            }
            Kind::Tree(PageKind::TableInterior | PageKind::IndexInterior) if source.read(page, &mut bytes) => {
                owners.set(page, owner);
                tree.interior.push(page);
                if !table {
                    tree.leaves.push(Bound { page, low, high });
                }
                interior(source, &bytes, page, (low, high, depth), &mut tree, &mut stack);
            }
            Kind::Tree(_) => tree.hole(hole(true)),
            Kind::Zero | Kind::Other | Kind::Unreadable => {
                tree.erased += u32::from(kind == Kind::Zero);
                tree.hole(hole(!believed));
            }
        }
    }
    // All leaves of a tree lie equally deep: a hole at that depth was a leaf, and named by a believable pointer nothing
    // else can stand in for it. A hole above was an interior page whose children are still there.
    for hole in &mut tree.holes {
        hole.open |= leaf_depth.is_none_or(|d| hole.depth < d);
    }
    tree
}

type Todo = Vec<(u32, i64, i64, u16, bool)>;

fn interior(
    source: &Source<'_>,
    bytes: &[u8],
    number: u32,
    (low, high, depth): (i64, i64, u16),
    tree: &mut Tree,
    stack: &mut Todo,
) {
    let Some(sheet) = sheet::read(bytes, number, source.usable, None) else { return };
    let mut children: Todo = Vec::with_capacity(sheet.good.len() + 1);
    let mut previous = low;
    let mut expected = 0;
    for index in &sheet.good {
        let Some(cell) = sheet.page.cell(*index) else { continue };
        let Some(left) = cell.left else { continue };
        let key = match cell.rowid {
            Some(key) if (low != i64::MIN && key <= low) || key > high => continue,
            Some(key) => key,
            None => high,
        };
        let skipped = *index != expected;
        if skipped && cell.rowid.is_some() {
            tree.hole(Hole { low: previous, high: key, open: true, pages: 1, depth: depth + 1 });
        }
        children.push((left, previous, key, depth + 1, sheet.whole));
        if cell.rowid.is_some() {
            previous = key;
        }
        expected = index + 1;
    }
    if expected != sheet.page.cells {
        tree.hole(Hole { low: previous, high, open: true, pages: 1, depth: depth + 1 });
    }
    children.extend(sheet.page.right().map(|right| (right, previous, high, depth + 1, sheet.whole)));
    stack.extend(children.into_iter().rev());
}

/// A page that is not what its parent says: an older image from the log, or the page itself with its header overruled.
fn second_look(
    source: &mut Source<'_>,
    map: &mut Map,
    page: u32,
    (low, high): (i64, i64),
    table: bool,
    shape: Option<&Shape>,
) -> Kind {
    let mut bytes = Vec::new();
    let inside = |id: i64| (low == i64::MIN || id > low) && id <= high;
    if source.donor(page, &mut bytes)
        && sheet::read(&bytes, page, source.usable, None)
            .is_some_and(|s| s.page.kind.is_table() == table && s.cells().all(|c| c.rowid.is_none_or(inside)))
    {
        source.adopt(page);
        map.again(page, &bytes, source);
        return map.kind(page);
    }
    if !table || map.kind(page) != Kind::Other || !source.read(page, &mut bytes) {
        return map.kind(page);
    }
    let mut fields = Vec::new();
    if let Some(sheet) = sheet::read(&bytes, page, source.usable, Some(PageKind::TableLeaf))
        && sheet.cells().all(|c| {
            c.rowid.is_some_and(inside)
                && super::fields::split(c.local, c.payload_len, &mut fields)
                && shape.is_some_and(|s| s.fits(&fields))
        })
    {
        map.add_leaf(page, &sheet);
        return map.kind(page);
    }
    map.kind(page)
}
