//! Every b-tree page to its owner.
//!
//! First the trees that can be followed from roots the schema names. Then the freelist: what it lists is deleted. What
//! is left are *orphans*, subtrees and single leaves without a living parent. An orphan goes to the one table whose
//! records it can hold and which misses rowids just there ([`super::tree::Hole`]); among several, index entries decide
//! ([`super::evidence`]), then the likeness of the records. An orphan of index pages goes where the rows say that its
//! entries belong ([`super::witness`]). An orphan that fits tables which all miss nothing there is
//! a *ghost*: a page that was freed while its tree lived on. What nothing decides is a *stray*, kept apart.

use super::evidence;
use super::fields::{Field, split};
use super::map::{Kind, Map, trunk};
use super::objects::{Class, Object};
use super::sheet;
use super::source::Source;
use super::tree::{Bound, Hole, Owners, Tree, follow};
use super::witness;
use crate::sqlite::header::Header;
use crate::sqlite::page::PageKind;

/// Owner of pages of the schema itself.
pub const SCHEMA: u16 = u16::MAX - 1;
/// Owner of deleted pages.
pub const FREE: u16 = u16::MAX - 2;
/// Owner of pages of an orphan that is not decided yet, or never was.
pub const ORPHAN: u16 = u16::MAX - 3;
/// Owner of pages that were freed while their tree lived on.
pub const GHOST: u16 = u16::MAX - 4;
/// Leaves of a subtree whose records are looked at.
const SAMPLE_LEAVES: usize = 6;
/// Rows of each.
const SAMPLE_ROWS: usize = 4;
/// Rounds in which orphans that are kept like an index are looked at.
const ROUNDS: usize = 4;

/// Why an orphan has no owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its records fit no table of the schema.
    FitsNothing,
    /// They fit several, and nothing tells which.
    Ambiguous,
    /// The same of pages kept like an index: rows of a WITHOUT ROWID table, or entries of an index.
    IndexLike,
}

/// A subtree or leaf without an owner.
#[derive(Clone, Debug)]
pub struct Stray {
    /// Its pages with rows.
    pub leaves: Vec<Bound>,
    /// Why it has none.
    pub why: Why,
    /// The page at its top.
    pub top: u32,
}

/// The result.
#[derive(Debug)]
pub struct Assigned {
    /// Owners of all pages.
    pub owners: Owners,
    /// What has no owner.
    pub strays: Vec<Stray>,
    /// Leaves on the freelist, or proved unreachable while their tree is intact: deleted rows, never mixed with live ones.
    pub ghosts: u32,
    /// True when the freelist was read from its head to its end.
    pub freelist_whole: bool,
    /// True when trees point to pages of nothing but zeroes: something erases pages here.
    pub erased: bool,
}

/// An orphan with the objects it may belong to.
pub struct Orphan {
    /// The subtree.
    pub tree: Tree,
    /// Its top page.
    pub top: u32,
    /// Candidates by index into the objects.
    pub candidates: Vec<usize>,
    /// Summed likeness per candidate.
    pub likeness: Vec<u32>,
}

/// Assigns every page.
/// `incomplete`: tables may exist that the schema does not name, so that no orphan is proved to be a ghost.
pub fn assign(
    source: &mut Source<'_>,
    map: &mut Map,
    objects: &mut [Object],
    header: Option<&Header>,
    incomplete: bool,
) -> Assigned {
    let mut owners = Owners::new(source.pages);
    follow(source, map, &mut owners, (1, SCHEMA), true, None);
    for (i, object) in objects.iter_mut().enumerate() {
        let owner = u16::try_from(i + 1).unwrap_or(u16::MAX);
        object.tree = Tree { holes: vec![Hole::everything()], ..Tree::default() };
        if object.entry.root > 1 {
            let table = object.class == Class::Table;
            let tree = follow(source, map, &mut owners, (object.entry.root, owner), table, Some(&object.shape));
            if !tree.leaves.is_empty() || !tree.interior.is_empty() {
                object.tree = tree;
                object.rooted = true;
            }
        }
    }
    let mut result = Assigned { owners, strays: Vec::new(), ghosts: 0, freelist_whole: false, erased: false };
    result.freelist_whole = freelist(source, map, &mut result.owners, header);
    for page in &map.schema_leaves {
        if result.owners.of(*page) == 0 {
            result.owners.set(*page, SCHEMA);
        }
    }
    for table in [true, false] {
        orphans(source, map, objects, &mut result, (table, incomplete));
    }
    result.erased = objects.iter().any(|o| o.tree.erased > 0);
    let free = |n: &u32| matches!(result.owners.of(*n), FREE | GHOST);
    let leaves = [PageKind::TableLeaf, PageKind::IndexLeaf].map(|k| map.pages_of(k).iter().filter(|n| free(n)).count());
    result.ghosts = leaves.iter().map(|n| u32::try_from(*n).unwrap_or(0)).sum();
    result
}

/// Marks what the freelist lists and no tree has. Where its head is gone, every page that looks like a trunk is taken
/// for one: an orphan that it lists was deleted.
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

fn orphans(
    source: &mut Source<'_>,
    map: &mut Map,
    objects: &mut [Object],
    result: &mut Assigned,
    (table, incomplete): (bool, bool),
) {
    let (interior, leaf) = match table {
        true => (PageKind::TableInterior, PageKind::TableLeaf),
        false => (PageKind::IndexInterior, PageKind::IndexLeaf),
    };
    let tops = map.pages_of(interior);
    let mut found: Vec<(u32, Tree)> = Vec::new();
    // Those that nothing points to are tops for sure; a second round takes what points at itself.
    for round in [false, true] {
        for top in &tops {
            if result.owners.of(*top) == 0 && (round || !map.has_parent(*top)) {
                let tree = follow(source, map, &mut result.owners, (*top, ORPHAN), table, None);
                found.push((*top, tree));
            }
        }
    }
    // The larger a subtree, the more of a table it proves.
    found.sort_by_key(|(_, tree)| std::cmp::Reverse(tree.leaves.len()));
    for page in map.pages_of(leaf) {
        if result.owners.of(page) == 0 {
            result.owners.set(page, ORPHAN);
            let bound = Bound { page, low: i64::MIN, high: i64::MAX };
            found.push((page, Tree { leaves: vec![bound], ..Tree::default() }));
        }
    }
    let mut waiting = Vec::new();
    for (top, tree) in found {
        let open = open_ranges(objects);
        let verdict = judge(source, map, objects, &open, &tree, table);
        match verdict {
            Verdict::Owner(one) => give(objects, &mut result.owners, one, tree),
            Verdict::Several(candidates, likeness) => waiting.push(Orphan { tree, top, candidates, likeness }),
            Verdict::Ghost if incomplete && table => {
                result.strays.push(Stray { leaves: tree.leaves, why: Why::Ambiguous, top });
            }
            Verdict::Ghost => {
                tree.leaves.iter().for_each(|b| result.owners.set(b.page, GHOST));
            }
            Verdict::Nothing => {
                let why = if table { Why::FitsNothing } else { Why::IndexLike };
                result.strays.push(Stray { leaves: tree.leaves, why, top });
            }
        }
    }
    // Every orphan that finds its owner is evidence for the others.
    for _ in 0..if table { 1 } else { ROUNDS } {
        let before = waiting.len();
        let decided = match table {
            true => evidence::decide(source, objects, waiting),
            false => witness::decide(source, map, objects, waiting),
        };
        waiting = Vec::new();
        for (orphan, owner) in decided {
            match owner {
                Some(one) => give(objects, &mut result.owners, one, orphan.tree),
                None => waiting.push(orphan),
            }
        }
        if waiting.len() == before {
            break;
        }
    }
    let why = if table { Why::Ambiguous } else { Why::IndexLike };
    result.strays.extend(waiting.into_iter().map(|o| Stray { leaves: o.tree.leaves, why, top: o.top }));
}

fn give(objects: &mut [Object], owners: &mut Owners, one: usize, tree: Tree) {
    let Some(object) = objects.get_mut(one) else { return };
    let owner = u16::try_from(one + 1).unwrap_or(u16::MAX);
    for page in tree.leaves.iter().map(|b| b.page).chain(tree.interior.iter().copied()) {
        owners.set(page, owner);
    }
    object.tree.leaves.extend(tree.leaves);
    object.tree.interior.extend(tree.interior);
    object.tree.holes.extend(tree.holes);
    object.tree.erased += tree.erased;
    object.adopted += 1;
}

/// Per object the open holes as they were before any orphan came: sorted and joined.
fn open_ranges(objects: &mut [Object]) -> Vec<usize> {
    for object in objects.iter_mut().filter(|o| o.open.is_none()) {
        let mut open: Vec<(i64, i64)> = object.tree.holes.iter().filter(|h| h.open).map(|h| (h.low, h.high)).collect();
        open.sort_unstable();
        let mut joined: Vec<(i64, i64)> = Vec::new();
        for (low, high) in open {
            match joined.last_mut() {
                Some(last) if low <= last.1 => last.1 = last.1.max(high),
                _ => joined.push((low, high)),
            }
        }
        object.open = Some(joined);
    }
    (0..objects.len()).collect()
}

enum Verdict {
    Owner(usize),
    Several(Vec<usize>, Vec<u32>),
    Ghost,
    Nothing,
}

fn judge(source: &mut Source<'_>, map: &Map, objects: &[Object], all: &[usize], tree: &Tree, table: bool) -> Verdict {
    let records = sample(source, tree);
    if records.is_empty() {
        return Verdict::Nothing;
    }
    let range = tree.leaves.iter().filter_map(|b| map.leaf(b.page)).filter(|l| l.low <= l.high);
    let (low, high) = range.fold((i64::MAX, i64::MIN), |(a, b), l| (a.min(l.low), b.max(l.high)));
    let fitting: Vec<usize> = all
        .iter()
        .copied()
        .filter(|i| {
            objects
                .get(*i)
                .is_some_and(|o| (o.class == Class::Table) == table && records.iter().all(|r| o.shape.fits(r)))
        })
        .collect();
    let room =
        |i: &usize| objects.get(*i).is_some_and(|o| if table { o.misses(low, high) } else { !o.tree.holes.is_empty() });
    let candidates: Vec<usize> = fitting.iter().copied().filter(room).collect();
    match (candidates.as_slice(), fitting.is_empty()) {
        ([one], _) => Verdict::Owner(*one),
        ([], true) => Verdict::Nothing,
        ([], false) => Verdict::Ghost,
        _ => {
            let likeness = candidates
                .iter()
                .map(|i| objects.get(*i).map_or(0, |o| records.iter().map(|r| o.shape.likeness(r)).sum()))
                .collect();
            Verdict::Several(candidates, likeness)
        }
    }
}

/// Some records of a subtree: from leaves at both ends and between.
fn sample(source: &mut Source<'_>, tree: &Tree) -> Vec<Vec<Field>> {
    let mut records = Vec::new();
    let mut bytes = Vec::new();
    let mut fields = Vec::new();
    for bound in spread(&tree.leaves, SAMPLE_LEAVES) {
        if !source.read(bound.page, &mut bytes) {
            continue;
        }
        let Some(sheet) = sheet::read(&bytes, bound.page, source.usable, None) else { continue };
        for index in spread(&sheet.good, SAMPLE_ROWS) {
            if let Some(cell) = sheet.page.cell(*index)
                && split(cell.local, cell.payload_len, &mut fields)
            {
                records.push(fields.clone());
            }
        }
    }
    records
}

/// Up to `n` elements, spread evenly, the first and the last among them.
pub fn spread<T>(all: &[T], n: usize) -> impl Iterator<Item = &T> {
    let n = n.min(all.len());
    (0..n).filter_map(move |i| all.get(if n < 2 { 0 } else { i * (all.len() - 1) / (n - 1) }))
}

/// True when a page is a table leaf of the map; for callers that only know owners.
pub fn is_leaf(map: &Map, page: u32) -> bool {
    matches!(map.kind(page), Kind::Tree(PageKind::TableLeaf | PageKind::IndexLeaf))
}
