//! Every b-tree page to its owner.
//!
//! First the trees that can be followed from roots the schema names. Then what is known of freed pages
//! ([`super::life`]). What is left are *orphans*, subtrees and single leaves without a living parent. An orphan goes to
//! the table whose root the pointer maps lead to, else to the one table whose records it can hold and which misses rowids
//! just there ([`super::tree::Hole`]); among several, index entries decide ([`super::evidence`]), then the likeness of
//! the records. Where freed pages may be among the orphans, likeness is no proof of life: those that nothing proves
//! alive are strays. An orphan of index pages goes where the rows say that its
//! entries belong ([`super::witness`]). An orphan that fits tables which all miss nothing there is
//! a *ghost*: a page that was freed while its tree lived on. What nothing decides is a *stray*, kept apart.

use std::collections::BTreeMap;

use super::evidence;
use super::fields::{Field, split};
use super::life::{Life, Lives};
use super::map::{Kind, Map};
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
/// Tables among which the neighbours of an orphan are compared.
const MAX_LIKENED: usize = 8;
/// Rounds in which orphans are looked at.
const ROUNDS: usize = 4;

/// Why an orphan has no owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its records fit no table of the schema.
    FitsNothing,
    /// They fit several, and nothing tells which.
    Ambiguous,
    /// They fit, and nothing proves that they were not deleted.
    NotProvable,
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
    /// Its lowest and highest rowid.
    pub range: (i64, i64),
    /// True when its pages are proved not to be freed ones, or nothing was ever freed.
    pub live: bool,
}

/// What the schema and the freelist leave open.
#[derive(Clone, Copy, Debug)]
struct Way {
    incomplete: bool,
    encoding: u32,
    freelist_whole: bool,
    /// Life has to be proved.
    strict: bool,
}

/// Assigns every page.
/// `incomplete`: tables may exist that the schema does not name, so that no orphan is proved to be a ghost.
pub fn assign(
    source: &mut Source<'_>,
    map: &mut Map,
    objects: &mut [Object],
    header: Option<&Header>,
    (incomplete, encoding): (bool, u32),
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
    let mut lives = Lives::read(source, map, &mut result.owners, header, objects);
    result.freelist_whole = lives.freelist_whole;
    for page in &map.schema_leaves {
        if result.owners.of(*page) == 0 {
            result.owners.set(*page, SCHEMA);
        }
    }
    let way = Way { incomplete, encoding, freelist_whole: lives.freelist_whole, strict: lives.strict };
    orphans(source, map, objects, &mut result, (&mut lives, way));
    result.erased = objects.iter().any(|o| o.tree.erased > 0);
    let free = |n: &u32| matches!(result.owners.of(*n), FREE | GHOST);
    let leaves = [PageKind::TableLeaf, PageKind::IndexLeaf].map(|k| map.pages_of(k).iter().filter(|n| free(n)).count());
    result.ghosts = leaves.iter().map(|n| u32::try_from(*n).unwrap_or(0)).sum();
    result
}

/// Trees and single leaves of one kind that nobody owns, the largest first: the larger, the more of a table it proves.
fn unowned(
    source: &mut Source<'_>,
    map: &mut Map,
    owners: &mut Owners,
    (lives, table): (&mut Lives, bool),
) -> Vec<(u32, Tree)> {
    let (interior, leaf) = match table {
        true => (PageKind::TableInterior, PageKind::TableLeaf),
        false => (PageKind::IndexInterior, PageKind::IndexLeaf),
    };
    let mut tops = map.pages_of(interior);
    // What an inner page points to may have been given to others since it was freed. Unless it is known to be alive, its
    // children have to speak for themselves.
    tops.retain(|top| {
        let speaks = owners.of(*top) != 0
            || match lives.of(source, *top) {
                Life::Live => true,
                Life::Dead => false,
                Life::Unknown => !lives.strict,
            };
        if !speaks {
            owners.set(*top, if lives.of(source, *top) == Life::Dead { GHOST } else { ORPHAN });
        }
        speaks
    });
    let mut found: Vec<(u32, Tree)> = Vec::new();
    // Those that nothing points to are tops for sure; a second round takes what points at itself.
    for round in [false, true] {
        for top in &tops {
            if owners.of(*top) == 0 && (round || !map.has_parent(*top)) {
                found.push((*top, follow(source, map, owners, (*top, ORPHAN), table, None)));
            }
        }
    }
    found.sort_by_key(|(_, tree)| std::cmp::Reverse(tree.leaves.len()));
    for page in map.pages_of(leaf) {
        if owners.of(page) == 0 && lives.of(source, page) == Life::Dead {
            owners.set(page, GHOST);
        } else if owners.of(page) == 0 {
            owners.set(page, ORPHAN);
            let bound = Bound { page, low: i64::MIN, high: i64::MAX };
            found.push((page, Tree { leaves: vec![bound], ..Tree::default() }));
        }
    }
    found
}

/// Finds the owners of what nobody owns. Every orphan that finds one is evidence for the others, rows for index pages and
/// index pages for rows, so that it goes in rounds until nothing changes.
fn orphans(
    source: &mut Source<'_>,
    map: &mut Map,
    objects: &mut [Object],
    result: &mut Assigned,
    (lives, way): (&mut Lives, Way),
) {
    let (mut rows, mut entries) = (Vec::new(), Vec::new());
    open_ranges(objects);
    for table in [true, false] {
        for (top, tree) in unowned(source, map, &mut result.owners, (&mut *lives, table)) {
            let live = !way.strict || lives.of(source, top) == Life::Live;
            let home = lives.home(source, &result.owners, objects, top);
            match fit(source, map, objects, (tree, top), table) {
                Fit::Some(orphan) if home.is_some_and(|home| orphan.candidates.contains(&home)) => {
                    give(objects, &mut result.owners, home.unwrap_or(0), orphan.tree);
                }
                Fit::Some(orphan) if table => rows.push(Orphan { live, ..orphan }),
                Fit::Some(orphan) => entries.push(Orphan { live, ..orphan }),
                Fit::Full(tree) => drop_ghost(result, (tree, top), table, way),
                Fit::Nothing(tree) => {
                    let why = if table { Why::FitsNothing } else { Why::IndexLike };
                    result.strays.push(Stray { leaves: tree.leaves, why, top });
                }
            }
        }
    }
    for round in 0..ROUNDS {
        let last = round + 1 == ROUNDS;
        let before = (rows.len(), entries.len());
        rows = decide_rows(source, map, objects, result, (rows, last), way);
        let decided = witness::decide(source, map, objects, &entries);
        // Entries of a freed page would speak for rows that were deleted with them.
        let sure = |(o, owner): &(Orphan, Option<usize>)| o.live && owner.is_some();
        let (done, left): (Vec<_>, Vec<_>) = entries.into_iter().zip(decided).partition(sure);
        done.into_iter().for_each(|(o, owner)| give(objects, &mut result.owners, owner.unwrap_or(0), o.tree));
        entries = left.into_iter().map(|(o, _)| o).collect();
        if (rows.len(), entries.len()) == before && !last {
            rows = decide_rows(source, map, objects, result, (rows, true), way);
            if rows.len() == before.0 {
                break;
            }
        }
    }
    let stray = |why| {
        move |o: Orphan| {
            let why = if o.live { why } else { Why::NotProvable };
            Stray { leaves: o.tree.leaves, why, top: o.top }
        }
    };
    result.strays.extend(rows.into_iter().map(stray(Why::Ambiguous)));
    let of_keys = |o: &Orphan| o.candidates.iter().any(|i| objects.get(*i).is_some_and(|o| o.class == Class::KeyTable));
    let (keyed, plain): (Vec<_>, Vec<_>) = entries.into_iter().partition(of_keys);
    result.strays.extend(keyed.into_iter().map(stray(Why::IndexLike)));
    let plain = plain.into_iter().map(|o| Orphan { live: true, ..o });
    result.strays.extend(plain.map(stray(Why::IndexLike)));
}

/// One round over the orphans with rows; those that stay undecided are given back. In the last round the likeness of the
/// records is enough, and so is being the only table that misses such rows.
fn decide_rows(
    source: &mut Source<'_>,
    map: &Map,
    objects: &mut [Object],
    result: &mut Assigned,
    (mut orphans, last): (Vec<Orphan>, bool),
    way: Way,
) -> Vec<Orphan> {
    let mut left = Vec::new();
    let mut cover = Cover::default();
    let said = evidence::ask(source, objects, &orphans, way.encoding);
    for (number, mut orphan) in orphans.drain(..).enumerate() {
        let said: Vec<evidence::Said> =
            (0..orphan.candidates.len()).map(|place| said.get(&(number, place)).copied().unwrap_or_default()).collect();
        let has: Vec<u32> = said.iter().map(|s| s.has).collect();
        let proved = evidence::first_alone(&has);
        // A table holds a rowid once: where other leaves of it hold this range, these rows are not its own.
        let keep: Vec<bool> = (0..orphan.candidates.len())
            .map(|place| {
                let denied = said.get(place).is_some_and(|s| s.lacks > 0 && s.has == 0);
                let table = orphan.candidates.get(place).copied().unwrap_or(usize::MAX);
                !denied && !cover.overlaps(map, objects, table, orphan.range)
            })
            .collect();
        if let Some(place) = proved.filter(|place| keep.get(*place) == Some(&true)) {
            let owner = orphan.candidates.get(place).copied().unwrap_or(0);
            cover.add(owner, &orphan);
            give(objects, &mut result.owners, owner, orphan.tree);
            continue;
        }
        orphan.retain(&keep);
        let sure = way.freelist_whole && !way.incomplete;
        let likeness = if last { cover.liken(source, &orphan) } else { None };
        match (orphan.candidates.as_slice(), likeness) {
            ([], _) => drop_ghost(result, (orphan.tree, orphan.top), true, way),
            _ if !orphan.live => left.push(orphan),
            ([one], _) if last || sure => {
                cover.add(*one, &orphan);
                give(objects, &mut result.owners, *one, orphan.tree);
            }
            (several, Some(place)) => {
                let owner = several.get(place).copied().unwrap_or(0);
                cover.add(owner, &orphan);
                give(objects, &mut result.owners, owner, orphan.tree);
            }
            _ => left.push(orphan),
        }
    }
    left
}

/// Which rowids the leaves of a table hold already: lowest to highest and page, leaf by leaf.
#[derive(Default)]
struct Cover {
    tables: BTreeMap<usize, BTreeMap<i64, (i64, u32)>>,
}

impl Cover {
    fn overlaps(&mut self, map: &Map, objects: &[Object], table: usize, (low, high): (i64, i64)) -> bool {
        let ranges = self.tables.entry(table).or_insert_with(|| {
            let leaves = objects.get(table).map_or(&[][..], |o| o.tree.leaves.as_slice());
            let leaves = leaves.iter().filter_map(|b| map.leaf(b.page)).filter(|l| l.low <= l.high);
            leaves.map(|l| (l.low, (l.high, l.page))).collect()
        });
        ranges.range(..=high).next_back().is_some_and(|(_, (to, _))| *to >= low)
    }

    fn add(&mut self, table: usize, orphan: &Orphan) {
        let page = orphan.tree.leaves.last().map_or(0, |b| b.page);
        if let Some(ranges) = self.tables.get_mut(&table) {
            ranges.insert(orphan.range.0, (orphan.range.1, page));
        }
    }

    /// The place of the one candidate that an orphan looks most like: it continues its neighbours in more columns, else by
    /// the classes of its values.
    fn liken(&self, source: &mut Source<'_>, orphan: &Orphan) -> Option<usize> {
        let several = (2..=MAX_LIKENED).contains(&orphan.candidates.len());
        let mut continues = Vec::new();
        for table in orphan.candidates.iter().filter(|_| several) {
            let leaves = self.tables.get(table);
            let before = leaves.and_then(|l| l.range(..orphan.range.0).next_back()).map(|(_, (_, page))| *page);
            let above = (std::ops::Bound::Excluded(orphan.range.1), std::ops::Bound::Unbounded);
            let behind = leaves.and_then(|l| l.range(above).next()).map(|(_, (_, page))| *page);
            continues.push(evidence::continues(source, orphan, before, behind));
        }
        evidence::first_alone(&continues).or_else(|| evidence::first_alone(&orphan.likeness))
    }
}

/// Pages that nobody misses: deleted rows, unless a table may exist that the schema does not name.
fn drop_ghost(result: &mut Assigned, (tree, top): (Tree, u32), table: bool, way: Way) {
    if way.incomplete && table {
        result.strays.push(Stray { leaves: tree.leaves, why: Why::Ambiguous, top });
    } else {
        tree.leaves.iter().for_each(|b| result.owners.set(b.page, GHOST));
    }
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
fn open_ranges(objects: &mut [Object]) {
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
}

enum Fit {
    /// Tables or indexes that may miss it.
    Some(Orphan),
    /// It fits some, and none of them misses anything there.
    Full(Tree),
    /// It fits none.
    Nothing(Tree),
}

fn fit(source: &mut Source<'_>, map: &Map, objects: &[Object], (tree, top): (Tree, u32), table: bool) -> Fit {
    let records = sample(source, &tree);
    if records.is_empty() {
        return Fit::Nothing(tree);
    }
    let leaves = tree.leaves.iter().filter_map(|b| map.leaf(b.page)).filter(|l| l.low <= l.high);
    let range = leaves.fold((i64::MAX, i64::MIN), |(a, b), l| (a.min(l.low), b.max(l.high)));
    let fits = |o: &Object| (o.class == Class::Table) == table && records.iter().all(|r| o.shape.fits(r));
    let fitting: Vec<usize> = (0..objects.len()).filter(|i| objects.get(*i).is_some_and(fits)).collect();
    let misses = |o: &Object| if table { o.misses(range.0, range.1) } else { !o.tree.holes.is_empty() };
    let candidates: Vec<usize> = fitting.iter().copied().filter(|i| objects.get(*i).is_some_and(misses)).collect();
    match (candidates.is_empty(), fitting.is_empty()) {
        (true, true) => Fit::Nothing(tree),
        (true, false) => Fit::Full(tree),
        (false, _) => {
            let likeness = |i: &usize| objects.get(*i).map_or(0, |o| records.iter().map(|r| o.shape.likeness(r)).sum());
            let likeness = candidates.iter().map(likeness).collect();
            Fit::Some(Orphan { tree, top, candidates, likeness, range, live: true })
        }
    }
}

impl Orphan {
    fn retain(&mut self, keep: &[bool]) {
        let mut flags = keep.iter();
        self.candidates.retain(|_| flags.next().copied().unwrap_or(true));
        let mut flags = keep.iter();
        self.likeness.retain(|_| flags.next().copied().unwrap_or(true));
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
