//! The second pass: rows out of the pages of each table, in key order, into the sink.
//!
//! A row is taken when its cell can be believed ([`super::sheet`]), its rowid lies above the one before and within the
//! bounds that its parents and the leaves beside it give ([`super::bounds`]), its chain of overflow pages is whole, and
//! its record can be one of the table ([`super::shape`]). Of a page that is not whole the rows that pass are taken too, and named as *not provable*:
//! what damaged their neighbours may have changed a value of theirs that nothing in the file contradicts.

use std::io;

use super::bounds::{self, Beside};
use super::fields::{Field, split};
use super::map::Map;
use super::objects::{Class, Object};
use super::overflow::{Chains, assemble};
use super::sheet;
use super::source::Source;
use super::spans::Spans;
use super::tree::Bound;
use crate::sqlite::page::{Cell, PageKind};

/// Where rows go.
pub trait Rows {
    /// One row of a table (an index into the objects). False when the table refuses it.
    fn row(&mut self, table: usize, rowid: i64, fields: &[Field], payload: &[u8]) -> io::Result<bool>;
    /// One row that goes to lost-and-found.
    fn stray(&mut self, stray: &StrayRow<'_>) -> io::Result<()>;
}

/// A row without a table.
#[derive(Debug)]
pub struct StrayRow<'a> {
    /// Page it lies on.
    pub page: u32,
    /// The page at the top of what is left of its tree.
    pub top: u32,
    /// Why it is here: "fits-nothing", "ambiguous", "index-like", "not-provable", "duplicate",
    /// "refused", "older-state".
    pub class: &'static str,
    /// Its rowid, on a page that has them.
    pub rowid: Option<i64>,
    /// Its values.
    pub fields: &'a [Field],
    /// Its payload.
    pub payload: &'a [u8],
}

/// What the rows of a database are read by.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Text encoding.
    pub encoding: u32,
    /// True where trees point to erased pages.
    pub erased: bool,
}

/// What came out of one table.
#[derive(Clone, Debug, Default)]
pub struct Extracted {
    /// Rows in the table now.
    pub rows: u64,
    /// Their rowids; not kept for tables without.
    pub ids: Spans,
    /// False when there are too many gaps to remember them.
    pub ids_known: bool,
    /// Rowid ranges whose pages are damaged: some rows of them may be missing.
    pub torn: Vec<(i64, i64)>,
    /// Rowids of rows that stand on damaged pages.
    pub not_provable: Vec<(i64, i64)>,
    /// Rows seen and given up, with a rowid.
    pub given_up: u64,
    /// Pages that are not whole.
    pub damaged_pages: u64,
    /// Rowids of rows that stand on pages taken from the generation before in the log.
    pub donated: Vec<(i64, i64)>,
    /// Rows on the fullest page that is whole.
    pub most_rows: u64,
}

/// Takes the rows of one table.
pub fn table(
    source: &mut Source<'_>,
    map: &Map,
    chains: &mut Chains,
    (index, object): (usize, &mut Object),
    out: &mut dyn Rows,
    way: Way,
) -> io::Result<Extracted> {
    let mut result = Extracted { ids_known: true, ..Extracted::default() };
    let rowid_table = object.class == Class::Table;
    if rowid_table {
        object.tree.leaves.sort_by_key(|b| map.leaf(b.page).map_or(i64::MAX, |l| l.mid));
    }
    let mut taker = Taker { chains, out, index, object, way, fields: Vec::new(), last: None };
    let mut bytes = Vec::new();
    let mut left = None;
    for at in 0..taker.object.tree.leaves.len() {
        let Some(bound) = taker.object.tree.leaves.get(at).copied() else { continue };
        if !source.read(bound.page, &mut bytes) {
            continue;
        }
        let kind = rowid_table.then_some(PageKind::TableLeaf);
        let Some(sheet) = sheet::read(&bytes, bound.page, source.usable, kind) else { continue };
        let mut whole = sheet.whole;
        let mut ids = (i64::MAX, i64::MIN);
        let before = taker.last;
        let next = taker.object.tree.leaves.get(at + 1).and_then(|b| map.leaf(b.page)).filter(|l| l.low <= l.high);
        let beside = Beside { before: left.zip(before), next };
        left = rowid_table.then_some(bound.high);
        let bound = if rowid_table { bounds::believed(source, &sheet, bound, beside) } else { bound };
        for cell in sheet.cells() {
            match taker.take(source, &bound, &cell, &mut result)? {
                Taken::Row(id) => ids = (ids.0.min(id), ids.1.max(id)),
                Taken::Damaged => whole = false,
                Taken::Elsewhere => {}
            }
        }
        if source.adopted().contains(&bound.page) {
            result.donated.push(ids);
        }
        if whole {
            result.most_rows = result.most_rows.max(sheet.good.len() as u64);
        } else {
            result.damaged_pages += 1;
            result.not_provable.push(ids);
            if rowid_table {
                let low = before.map_or(bound.low, |b| b.max(bound.low)).saturating_add(1);
                let high = next.map_or(bound.high, |n| bound.high.min(n.low.saturating_sub(1)));
                result.torn.push((low, high));
            }
        }
    }
    Ok(result)
}

enum Taken {
    Row(i64),
    Damaged,
    Elsewhere,
}

struct Taker<'t> {
    chains: &'t mut Chains,
    out: &'t mut dyn Rows,
    index: usize,
    object: &'t mut Object,
    way: Way,
    fields: Vec<Field>,
    last: Option<i64>,
}

impl Taker<'_> {
    fn take(
        &mut self,
        source: &mut Source<'_>,
        bound: &Bound,
        cell: &Cell<'_>,
        result: &mut Extracted,
    ) -> io::Result<Taken> {
        let rowid = cell.rowid.unwrap_or(0);
        let outside = cell.rowid.is_some_and(|id| (bound.low != i64::MIN && id <= bound.low) || id > bound.high);
        if outside || (cell.overflow.is_none() && !split(cell.local, cell.payload_len, &mut self.fields)) {
            result.given_up += 1;
            return Ok(Taken::Damaged);
        }
        let spilled = match cell.overflow {
            None => None,
            Some(_) => match assemble(source, self.chains, cell) {
                Some(payload) if split(&payload.bytes, cell.payload_len, &mut self.fields) => Some(payload),
                _ => {
                    result.given_up += 1;
                    return Ok(Taken::Damaged);
                }
            },
        };
        let (payload, zero_from) = match &spilled {
            Some(p) => (p.bytes.as_slice(), p.zero_from),
            None => (cell.local, cell.local.len()),
        };
        // A page of zeroes at the end of a chain may be the end of a blob; of a text it never is, and where pages are
        // found erased it is one of those.
        let zeroed = self.fields.iter().any(|f| (f.is_text() || self.way.erased) && f.at + f.len > zero_from);
        if zeroed || !self.object.shape.fits(&self.fields) {
            result.given_up += 1;
            return Ok(Taken::Damaged);
        }
        // SQLite stores whatever bytes it is given as text, so bytes that are none are no proof of damage: the row is
        // kept, and named.
        let doubtful = self.fields.iter().any(|f| f.is_text() && !valid_text(payload, *f, self.way.encoding));
        if let Some(id) = cell.rowid {
            if self.last.is_some_and(|l| id <= l) {
                self.stray(bound, "duplicate", cell.rowid, payload)?;
                return Ok(Taken::Elsewhere);
            }
            self.last = Some(id);
        }
        if !self.out.row(self.index, rowid, &self.fields, payload)? {
            self.stray(bound, "refused", cell.rowid, payload)?;
            return Ok(Taken::Elsewhere);
        }
        result.rows += 1;
        if cell.rowid.is_some() {
            result.ids_known &= result.ids.push(rowid);
        }
        if doubtful || zero_from < payload.len() {
            result.not_provable.push((rowid, rowid));
        }
        Ok(Taken::Row(rowid))
    }

    fn stray(&mut self, bound: &Bound, class: &'static str, rowid: Option<i64>, payload: &[u8]) -> io::Result<()> {
        let fields = &self.fields;
        self.out.stray(&StrayRow { page: bound.page, top: self.object.entry.root, class, rowid, fields, payload })
    }
}

fn valid_text(payload: &[u8], f: Field, encoding: u32) -> bool {
    let bytes = payload.get(f.at..f.at + f.len).unwrap_or(&[]);
    match encoding {
        2 | 3 => f.len.is_multiple_of(2),
        _ => std::str::from_utf8(bytes).is_ok(),
    }
}

/// Rows of an orphan without an owner, as they are.
pub fn stray(
    source: &mut Source<'_>,
    chains: &mut Chains,
    (leaves, top, class): (&[Bound], u32, &'static str),
    out: &mut dyn Rows,
) -> io::Result<u64> {
    let mut bytes = Vec::new();
    let mut fields = Vec::new();
    let mut rows = 0;
    for bound in leaves {
        if !source.read(bound.page, &mut bytes) {
            continue;
        }
        let Some(sheet) = sheet::read(&bytes, bound.page, source.usable, None) else { continue };
        for cell in sheet.cells() {
            let Some(payload) = assemble(source, chains, &cell) else { continue };
            if split(&payload.bytes, cell.payload_len, &mut fields) {
                let (payload, fields) = (payload.bytes.as_slice(), fields.as_slice());
                out.stray(&StrayRow { page: bound.page, top, class, rowid: cell.rowid, fields, payload })?;
                rows += 1;
            }
        }
    }
    Ok(rows)
}
