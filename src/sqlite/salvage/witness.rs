//! Which of several indexes orphaned index pages belong to, asked of the rows.
//!
//! An entry ends with the rowid of its row. Where that row is still there, its columns say whether the entry can be of this
//! index: that is proof. Where the rows of all entries are gone with their pages (and those are the entries that matter,
//! because they name what is lost), exclusion is left: an index has one entry for a row, so an index that has one already
//! is not the owner. Then the likeness of the records. Pages that may be rows of a WITHOUT ROWID table are decided by
//! proof alone.

use std::collections::BTreeMap;

use super::assign::{Orphan, spread};
use super::evidence::{entries, first_alone, mix};
use super::fields::{Field, split};
use super::map::Map;
use super::objects::{Class, Object};
use super::sheet;
use super::source::Source;
use crate::sqlite::page::PageKind;
use crate::sqlite::record::Value;

/// Pages of an orphan that are asked about, and entries of each.
const PAGES: usize = 6;
const ENTRIES: usize = 6;
/// Entries asked about in one round.
const MAX_PROBES: usize = 1 << 18;

/// The leaves of one table by their lowest rowid.
type Leaves = Vec<(i64, u32)>;

/// What the rows say of one orphan and one candidate.
#[derive(Clone, Copy, Default)]
struct Said {
    /// Entries whose row has these very values.
    is: u32,
    /// Entries whose row has others.
    is_not: u32,
    /// Entries whose row has an entry of this index elsewhere.
    has_one: u32,
}

/// Decides what can be decided.
pub fn decide(source: &mut Source<'_>, map: &Map, objects: &[Object], orphans: &[Orphan]) -> Vec<Option<usize>> {
    if orphans.is_empty() {
        return Vec::new();
    }
    let mut said: BTreeMap<(usize, usize), Said> = BTreeMap::new();
    let mut asked: BTreeMap<(usize, i64), Vec<usize>> = BTreeMap::new();
    let mut tables: BTreeMap<usize, (usize, Leaves)> = BTreeMap::new();
    for index in orphans.iter().flat_map(|o| &o.candidates) {
        if !tables.contains_key(index) {
            tables.extend(table_of(map, objects, *index).map(|t| (*index, t)));
        }
    }
    // Each probe reads one page of a table at most: no more in all than some passes over the file.
    let mut budget = (8 * u64::from(source.pages) + 4096).min(MAX_PROBES as u64);
    for (number, orphan) in orphans.iter().enumerate() {
        for (fields, payload) in sample(source, orphan) {
            let Some(id) = fields.last().and_then(|f| f.integer(&payload)) else { continue };
            for index in &orphan.candidates {
                let Some((table, leaves)) = tables.get(index) else { continue };
                let Some(left) = budget.checked_sub(1) else { continue };
                budget = left;
                asked.entry((*index, id)).or_default().push(number);
                let verdict = agrees(source, objects, (*index, *table), leaves, (id, &fields, &payload));
                let said = said.entry((number, *index)).or_default();
                said.is += u32::from(verdict == Some(true));
                said.is_not += u32::from(verdict == Some(false));
            }
        }
    }
    let mut indexes: Vec<usize> = asked.keys().map(|(index, _)| *index).collect();
    indexes.dedup();
    for index in indexes {
        let Some(object) = objects.get(index) else { continue };
        entries(source, object, &mut |fields, payload| {
            let Some(id) = fields.last().and_then(|f| f.integer(payload)) else { return };
            for orphan in asked.get(&(index, id)).map_or(&[][..], Vec::as_slice) {
                said.entry((*orphan, index)).or_default().has_one += 1;
            }
        });
    }
    let owner = |number: usize, orphan: &Orphan| {
        let said = |i: &usize| said.get(&(number, *i)).copied().unwrap_or_default();
        one(objects, orphan, &said)
    };
    orphans.iter().enumerate().map(|(number, o)| owner(number, o)).collect()
}

fn one(objects: &[Object], orphan: &Orphan, said: &dyn Fn(&usize) -> Said) -> Option<usize> {
    // Of an index that was only guessed nothing is believed but what rows confirm.
    let guessed = |i: &usize| objects.get(*i).is_some_and(|o| o.shape.guessed) && said(i).is == 0;
    if orphan.candidates.iter().any(guessed) {
        return None;
    }
    if let [one] = orphan.candidates.as_slice() {
        let denied = said(one).is == 0 && said(one).is_not > 0;
        return (!denied).then_some(*one);
    }
    let proved: Vec<usize> =
        orphan.candidates.iter().copied().filter(|i| said(i).is > 0 && said(i).is > said(i).is_not).collect();
    let mixed = orphan.candidates.iter().any(|i| objects.get(*i).is_some_and(|o| o.class == Class::KeyTable));
    let among = match (proved.as_slice(), mixed) {
        ([one], _) => return Some(*one),
        ([], true) => return None,
        ([], false) => &orphan.candidates,
        _ => &proved,
    };
    let free: Vec<usize> = among.iter().copied().filter(|i| said(i).has_one == 0 && said(i).is_not == 0).collect();
    if let [one] = free.as_slice() {
        return Some(*one);
    }
    let likeness = |i: &usize| {
        let at = orphan.candidates.iter().position(|c| c == i)?;
        orphan.likeness.get(at).copied()
    };
    let likeness: Vec<u32> = free.iter().map(|i| likeness(i).unwrap_or(0)).collect();
    first_alone(&likeness).and_then(|at| free.get(at).copied())
}

/// The table of an index whose entries can be compared with its rows, and its leaves.
fn table_of(map: &Map, objects: &[Object], index: usize) -> Option<(usize, Leaves)> {
    let index = objects.get(index).filter(|o| o.class == Class::Index && o.index_columns.is_some())?;
    let of = |o: &Object| o.class == Class::Table && o.entry.name.eq_ignore_ascii_case(&index.entry.table);
    let at = objects.iter().position(of)?;
    let leaf = |page: u32| map.leaf(page).filter(|l| l.low <= l.high).map(|l| (l.low, l.page));
    let mut leaves: Leaves = objects.get(at)?.tree.leaves.iter().filter_map(|b| leaf(b.page)).collect();
    leaves.sort_unstable();
    Some((at, leaves))
}

/// Whether the row of an entry has the values of the entry; `None` where the row is not there, or spills.
fn agrees(
    source: &mut Source<'_>,
    objects: &[Object],
    (index, table): (usize, usize),
    leaves: &Leaves,
    (id, entry, entry_payload): (i64, &[Field], &[u8]),
) -> Option<bool> {
    let (_, page) = leaves.get(leaves.partition_point(|(low, _)| *low <= id).checked_sub(1)?)?;
    let mut bytes = Vec::new();
    if !source.read(*page, &mut bytes) {
        return None;
    }
    let sheet = sheet::read(&bytes, *page, source.usable, Some(PageKind::TableLeaf))?;
    let cell = sheet.cells().find(|c| c.rowid == Some(id)).filter(|c| c.overflow.is_none())?;
    let mut fields = Vec::new();
    if !split(cell.local, cell.payload_len, &mut fields) {
        return None;
    }
    let alias = objects.get(table)?.alias();
    let columns = objects.get(index)?.index_columns.as_ref()?;
    let of_row = |c: &usize| match fields.get(*c) {
        _ if alias == Some(*c) => Value::Integer(id),
        Some(f) => f.value(cell.local),
        None => Value::Null,
    };
    let same = |(c, f): (&usize, &Field)| mix(0, of_row(c)) == mix(0, f.value(entry_payload));
    Some(columns.iter().zip(entry).all(same))
}

/// Some entries of an orphan that do not spill.
fn sample(source: &mut Source<'_>, orphan: &Orphan) -> Vec<(Vec<Field>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut bytes = Vec::new();
    let mut fields = Vec::new();
    for bound in spread(&orphan.tree.leaves, PAGES) {
        if !source.read(bound.page, &mut bytes) {
            continue;
        }
        let Some(sheet) = sheet::read(&bytes, bound.page, source.usable, None) else { continue };
        for at in spread(&sheet.good, ENTRIES) {
            if let Some(cell) = sheet.page.cell(*at).filter(|c| c.overflow.is_none())
                && split(cell.local, cell.payload_len, &mut fields)
            {
                found.push((fields.clone(), cell.local.to_vec()));
            }
        }
    }
    found
}
