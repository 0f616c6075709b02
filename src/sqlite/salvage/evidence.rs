//! Which of several tables that look alike an orphan belongs to: the one whose indexes have entries for its rows.
//!
//! Of each undecided orphan a few rows are taken; for each candidate table and each of its indexes the entry that such
//! a row would have is hashed. One pass over the entries of those indexes then shows which are there. Where indexes are
//! silent the storage classes of the values decide, if they prefer one table strictly.

use std::collections::BTreeMap;

use super::assign::{Orphan, spread};
use super::fields::{Field, split};
use super::objects::{Class, Object};
use super::sheet;
use super::source::Source;
use crate::sqlite::record::Value;

/// Leaves of an orphan that are probed, and rows of each.
const LEAVES: usize = 4;
const ROWS: usize = 3;
/// Probes at most; behind that the records' likeness must do.
const MAX_PROBES: usize = 1 << 18;

/// Decides what can be decided.
pub fn decide(source: &mut Source<'_>, objects: &[Object], orphans: Vec<Orphan>) -> Vec<(Orphan, Option<usize>)> {
    if orphans.is_empty() {
        return Vec::new();
    }
    let mut probes: BTreeMap<(usize, u64), Vec<(usize, usize)>> = BTreeMap::new();
    for (number, orphan) in orphans.iter().enumerate() {
        if probes.len() < MAX_PROBES {
            probe(source, objects, orphan, number, &mut probes);
        }
    }
    let mut indexes: Vec<usize> = probes.keys().map(|(index, _)| *index).collect();
    indexes.dedup();
    let mut votes: BTreeMap<(usize, usize), u32> = BTreeMap::new();
    for index in indexes {
        let Some(object) = objects.get(index) else { continue };
        entries(source, object, &mut |fields, payload| {
            let hash = fields.iter().fold(0, |h, f| mix(h, f.value(payload)));
            for (orphan, table) in probes.get(&(index, hash)).map_or(&[][..], Vec::as_slice) {
                *votes.entry((*orphan, *table)).or_default() += 1;
            }
        });
    }
    orphans
        .into_iter()
        .enumerate()
        .map(|(number, orphan)| {
            let counts: Vec<u32> =
                orphan.candidates.iter().map(|t| votes.get(&(number, *t)).copied().unwrap_or(0)).collect();
            let owner = first_alone(&counts).or_else(|| first_alone(&orphan.likeness));
            let owner = owner.and_then(|at| orphan.candidates.get(at).copied());
            (orphan, owner)
        })
        .collect()
}

/// Position of the greatest number, when it is greater than every other.
pub fn first_alone(numbers: &[u32]) -> Option<usize> {
    let most = numbers.iter().max().filter(|n| **n > 0)?;
    let mut at = numbers.iter().enumerate().filter(|(_, n)| *n == most).map(|(i, _)| i);
    let first = at.next()?;
    at.next().is_none().then_some(first)
}

fn probe(
    source: &mut Source<'_>,
    objects: &[Object],
    orphan: &Orphan,
    number: usize,
    probes: &mut BTreeMap<(usize, u64), Vec<(usize, usize)>>,
) {
    let mut bytes = Vec::new();
    let mut fields = Vec::new();
    for bound in spread(&orphan.tree.leaves, LEAVES) {
        if !source.read(bound.page, &mut bytes) {
            continue;
        }
        let Some(sheet) = sheet::read(&bytes, bound.page, source.usable, None) else { continue };
        for row in spread(&sheet.good, ROWS) {
            let Some(cell) = sheet.page.cell(*row).filter(|c| c.overflow.is_none()) else { continue };
            let Some(rowid) = cell.rowid.filter(|_| split(cell.local, cell.payload_len, &mut fields)) else { continue };
            for table in &orphan.candidates {
                let Some(candidate) = objects.get(*table) else { continue };
                let of_table =
                    |o: &Object| o.class == Class::Index && o.entry.table.eq_ignore_ascii_case(&candidate.entry.name);
                for (index, object) in objects.iter().enumerate().filter(|(_, o)| of_table(o)) {
                    let Some(columns) = &object.index_columns else { continue };
                    let value = |c: &usize| match fields.get(*c) {
                        _ if candidate.alias() == Some(*c) => Value::Integer(rowid),
                        Some(f) => f.value(cell.local),
                        None => Value::Null,
                    };
                    let hash = columns.iter().fold(0, |h, c| mix(h, value(c)));
                    let hash = mix(hash, Value::Integer(rowid));
                    probes.entry((index, hash)).or_default().push((number, *table));
                }
            }
        }
    }
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
