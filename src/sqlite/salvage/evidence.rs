//! What the indexes say of orphaned table pages: an entry for each of their rows, or none where it would have to be.
//!
//! Of each orphan a few rows are taken; for each candidate table and each of its indexes the entry that such a row would
//! have is hashed. One pass over the entries of those indexes shows which are there: proof of the owner. An entry that is
//! missing from an intact page whose first and last entries enclose it is proof of the contrary: the row was deleted, or
//! is another table's.

use std::collections::{BTreeMap, BTreeSet};

use super::assign::{Orphan, spread};
use super::fields::{Field, split};
use super::objects::{Class, Object};
use super::sheet;
use super::source::Source;
use crate::sqlite::collate::{KeyOrder, compare};
use crate::sqlite::record::Value;
use std::cmp::Ordering;

/// Leaves of an orphan that are probed, and rows of each.
const LEAVES: usize = 4;
const ROWS: usize = 6;
/// Rows of an orphan that nothing else proves alive: one entry is enough, and any of its rows may have it.
const ROWS_IN_DOUBT: usize = 256;
/// Probes at most; behind that the records' likeness must do.
const MAX_PROBES: usize = 1 << 18;
/// Leaves of one index whose ends are remembered.
const MAX_ENDS: usize = 1 << 17;

/// What the indexes say of one orphan and one candidate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said {
    /// Rows that have an entry.
    pub has: u32,
    /// Rows that have none where it would have to be.
    pub lacks: u32,
}

struct Row {
    orphan: usize,
    payload: Vec<u8>,
    fields: Vec<Field>,
    rowid: i64,
}

impl Row {
    /// True when a column lies in the part of the row that is at hand: the rest of a row that spills is not looked for.
    fn has(&self, column: usize) -> bool {
        self.fields.get(column).is_none_or(|f| f.at + f.len <= self.payload.len())
    }
}

/// Asks; the answer is by orphan and place among its candidates.
pub fn ask(
    source: &mut Source<'_>,
    objects: &[Object],
    orphans: &[Orphan],
    encoding: u32,
) -> BTreeMap<(usize, usize), Said> {
    let rows = sample(source, orphans);
    // By index: the hash of the entry, the row, the candidate.
    let mut probes: BTreeMap<usize, BTreeMap<u64, Vec<(usize, usize)>>> = BTreeMap::new();
    let mut count = 0;
    for (number, row) in rows.iter().enumerate() {
        let candidates = orphans.get(row.orphan).map_or(&[][..], |o| o.candidates.as_slice());
        for (place, table) in candidates.iter().enumerate() {
            let Some(candidate) = objects.get(*table) else { continue };
            for (at, index) in of_table(objects, candidate) {
                let Some(columns) = index.index_columns.as_ref().filter(|_| count < MAX_PROBES) else { continue };
                if !columns.iter().all(|c| row.has(*c)) {
                    continue;
                }
                let hash = columns.iter().fold(0, |h, c| mix(h, value(row, candidate, *c)));
                let hash = mix(hash, Value::Integer(row.rowid));
                probes.entry(at).or_default().entry(hash).or_default().push((number, place));
                count += 1;
            }
        }
    }
    let mut said: BTreeMap<(usize, usize), Said> = BTreeMap::new();
    for (at, asked) in probes {
        let Some(index) = objects.get(at) else { continue };
        let mut seen = BTreeSet::new();
        entries(source, index, &mut |fields, payload| {
            let hash = fields.iter().fold(0, |h, f| mix(h, f.value(payload)));
            if asked.contains_key(&hash) {
                seen.insert(hash);
            }
        });
        let ends = index.order.as_ref().map(|order| ends(source, index, order, encoding)).unwrap_or_default();
        for (hash, rows_of) in &asked {
            for (number, place) in rows_of {
                let Some(row) = rows.get(*number) else { continue };
                let said = said.entry((row.orphan, *place)).or_default();
                if seen.contains(hash) {
                    said.has += 1;
                    continue;
                }
                let table =
                    orphans.get(row.orphan).and_then(|o| o.candidates.get(*place)).and_then(|t| objects.get(*t));
                let (Some(table), Some(columns), Some(order)) = (table, &index.index_columns, &index.order) else {
                    continue;
                };
                let mut key: Vec<Value<'_>> = columns.iter().map(|c| value(row, table, *c)).collect();
                key.push(Value::Integer(row.rowid));
                let behind = |end: &[u8]| against(end, &key, order, encoding);
                let at = ends.partition_point(|e| behind(&e.first) != Ordering::Greater);
                let page = at.checked_sub(1).and_then(|at| ends.get(at));
                let on_page = page.is_some_and(|e| behind(&e.last) != Ordering::Less);
                // Between two leaves that are neighbours there is one entry, and that one was seen.
                let between = page.is_some_and(|e| ends.get(at).is_some_and(|behind| e.next == Some(behind.page)));
                said.lacks += u32::from(on_page || between);
            }
        }
    }
    said
}

/// The indexes of a table.
fn of_table<'o>(objects: &'o [Object], table: &'o Object) -> impl Iterator<Item = (usize, &'o Object)> {
    let mine = |o: &Object| o.class == Class::Index && o.entry.table.eq_ignore_ascii_case(&table.entry.name);
    objects.iter().enumerate().filter(move |(_, o)| mine(o))
}

/// A column of a row, should it be one of `table`.
fn value<'r>(row: &'r Row, table: &Object, column: usize) -> Value<'r> {
    match row.fields.get(column) {
        _ if table.alias() == Some(column) => Value::Integer(row.rowid),
        Some(f) => f.value(&row.payload),
        None => Value::Null,
    }
}

/// How an entry stands to a key.
fn against(entry: &[u8], key: &[Value<'_>], order: &[KeyOrder], encoding: u32) -> Ordering {
    let mut fields = Vec::new();
    if !split(entry, entry.len() as u64, &mut fields) {
        return Ordering::Less;
    }
    let parts = fields.iter().zip(key).zip(order);
    parts
        .map(|((f, k), o)| compare(f.value(entry), *k, *o, encoding))
        .find(|o| *o != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}

/// First and last entry of an intact leaf.
struct Ends {
    page: u32,
    /// The leaf behind it, where an intact parent names both.
    next: Option<u32>,
    first: Vec<u8>,
    last: Vec<u8>,
}

/// The ends of every intact leaf of an index, in key order.
fn ends(source: &mut Source<'_>, index: &Object, order: &[KeyOrder], encoding: u32) -> Vec<Ends> {
    let mut found: Vec<Ends> = Vec::new();
    let mut next: BTreeMap<u32, u32> = BTreeMap::new();
    let mut bytes = Vec::new();
    let mut fields = Vec::new();
    for bound in &index.tree.leaves {
        if found.len() >= MAX_ENDS || !source.read(bound.page, &mut bytes) {
            continue;
        }
        let Some(sheet) = sheet::read(&bytes, bound.page, source.usable, None).filter(|s| s.whole) else { continue };
        if !sheet.page.kind.is_leaf() {
            let children: Vec<u32> = sheet.cells().filter_map(|c| c.left).chain(sheet.page.right()).collect();
            next.extend(children.iter().copied().zip(children.iter().copied().skip(1)));
            continue;
        }
        // Only entries of this very index: others have no place in its order.
        let mut is_entry = |c: &crate::sqlite::page::Cell<'_>| {
            let split = c.overflow.is_none() && split(c.local, c.payload_len, &mut fields);
            split && fields.len() == order.len() && index.shape.fits(&fields)
        };
        let ends = [sheet.cells().next(), sheet.good.last().and_then(|i| sheet.page.cell(*i))];
        if let [Some(first), Some(last)] = ends
            && is_entry(&first)
            && is_entry(&last)
        {
            let (first, last) = (first.local.to_vec(), last.local.to_vec());
            found.push(Ends { page: bound.page, next: None, first, last });
        }
    }
    found.iter_mut().for_each(|e| e.next = next.get(&e.page).copied());
    found.sort_by(|a, b| {
        split(&b.first, b.first.len() as u64, &mut fields);
        let key: Vec<Value<'_>> = fields.iter().map(|f| f.value(&b.first)).collect();
        against(&a.first, &key, order, encoding)
    });
    found
}

/// In how many columns of numbers an orphan goes on where the leaf before it ends, and ends where the leaf behind it
/// begins: what a table of measurements looks like, and no proof.
pub fn continues(source: &mut Source<'_>, orphan: &Orphan, before: Option<u32>, behind: Option<u32>) -> u32 {
    let (Some(before), Some(behind)) = (before, behind) else { return 0 };
    let page = |b: Option<&super::tree::Bound>| b.map_or(0, |b| b.page);
    let rows = [
        numbers(source, before, true),
        numbers(source, page(orphan.tree.leaves.first()), false),
        numbers(source, page(orphan.tree.leaves.last()), true),
        numbers(source, behind, false),
    ];
    let columns = rows.iter().map(Vec::len).min().unwrap_or(0);
    let column = |i: usize| rows.iter().map(|r| r.get(i).copied().flatten()).collect::<Option<Vec<f64>>>();
    let rises = |v: &[f64]| v.windows(2).all(|w| w.first() <= w.last()) && v.first() < v.last();
    let falls = |v: &[f64]| v.windows(2).all(|w| w.first() >= w.last()) && v.first() > v.last();
    (0..columns).filter_map(column).map(|v| u32::from(rises(&v) || falls(&v))).sum()
}

/// The numbers of the first or last row of a page.
fn numbers(source: &mut Source<'_>, page: u32, last: bool) -> Vec<Option<f64>> {
    let mut bytes = Vec::new();
    let mut fields = Vec::new();
    if !source.read(page, &mut bytes) {
        return Vec::new();
    }
    let Some(sheet) = sheet::read(&bytes, page, source.usable, None) else { return Vec::new() };
    let at = if last { sheet.good.last() } else { sheet.good.first() };
    let Some(cell) = at.and_then(|i| sheet.page.cell(*i)).filter(|c| c.overflow.is_none()) else { return Vec::new() };
    if !split(cell.local, cell.payload_len, &mut fields) {
        return Vec::new();
    }
    let number = |f: &Field| match f.value(cell.local) {
        Value::Real(r) => Some(r),
        Value::Integer(n) => i32::try_from(n).ok().map(f64::from),
        _ => None,
    };
    fields.iter().map(number).collect()
}

/// Some rows of each orphan, as far as they lie on its pages.
fn sample(source: &mut Source<'_>, orphans: &[Orphan]) -> Vec<Row> {
    let mut found = Vec::new();
    let mut bytes = Vec::new();
    let mut fields = Vec::new();
    for (number, orphan) in orphans.iter().enumerate() {
        for bound in spread(&orphan.tree.leaves, LEAVES) {
            if found.len() >= MAX_PROBES || !source.read(bound.page, &mut bytes) {
                continue;
            }
            let Some(sheet) = sheet::read(&bytes, bound.page, source.usable, None) else { continue };
            let rows = if orphan.live { ROWS } else { ROWS_IN_DOUBT };
            for at in spread(&sheet.good, rows).take(MAX_PROBES.saturating_sub(found.len())) {
                let Some(cell) = sheet.page.cell(*at) else { continue };
                let Some(rowid) = cell.rowid.filter(|_| split(cell.local, cell.payload_len, &mut fields)) else {
                    continue;
                };
                found.push(Row { orphan: number, payload: cell.local.to_vec(), fields: fields.clone(), rowid });
            }
        }
    }
    found
}

/// Position of the greatest number, when it is greater than every other.
pub fn first_alone(numbers: &[u32]) -> Option<usize> {
    let most = numbers.iter().max().filter(|n| **n > 0)?;
    let mut at = numbers.iter().enumerate().filter(|(_, n)| *n == most).map(|(i, _)| i);
    let first = at.next()?;
    at.next().is_none().then_some(first)
}

/// Every entry of an index, in page order; payloads that spill are left out. False when a page is not whole.
pub fn entries(source: &mut Source<'_>, object: &Object, each: &mut dyn FnMut(&[Field], &[u8])) -> bool {
    let mut whole = true;
    let mut bytes = Vec::new();
    let mut fields = Vec::new();
    for bound in &object.tree.leaves {
        let read = source.read(bound.page, &mut bytes);
        let sheet = if read { sheet::read(&bytes, bound.page, source.usable, None) } else { None };
        let Some(sheet) = sheet else {
            whole = false;
            continue;
        };
        whole &= sheet.whole;
        for cell in sheet.cells() {
            if cell.overflow.is_none() && split(cell.local, cell.payload_len, &mut fields) && object.shape.fits(&fields)
            {
                each(&fields, cell.local);
            }
        }
    }
    whole
}

/// Mixes a value into a hash; an integer and the double equal to it are the same value.
pub fn mix(hash: u64, value: Value<'_>) -> u64 {
    let step = |h: u64, x: u64| (h.rotate_left(23) ^ x).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match value {
        Value::Null => step(hash, 1),
        Value::Integer(n) => {
            let short = i32::try_from(n).is_ok();
            step(hash, if short { f64::from(i32::try_from(n).unwrap_or(0)).to_bits() } else { n.cast_unsigned() })
        }
        Value::Real(r) => step(hash, r.to_bits()),
        Value::Text(t) | Value::Blob(t) => t.chunks(8).fold(step(hash, t.len() as u64), |h, chunk| {
            let mut word = [0; 8];
            if let Some(place) = word.get_mut(..chunk.len()) {
                place.copy_from_slice(chunk);
            }
            step(h, u64::from_le_bytes(word))
        }),
    }
}
