//! Rows of one rowid table, page by page, from a database that may be damaged. Nothing here fails on bytes: what cannot
//! be read is named and the rest is yielded.
//!
//! Work is bounded by the size of the file whatever it claims: every page of the tree and every overflow page is used
//! once ([`Claimed`]), so two chains that share a page make one row unreadable and not the walk quadratic.
//!
//! Two rules of the format matter to whoever compares values (file format 2, sections 2.1 and 2.3): an INTEGER PRIMARY
//! KEY is stored as NULL and is the rowid; a REAL column stores whole numbers as integers and gives them back as reals.
//! A record may be shorter than its table (`ALTER TABLE ADD COLUMN`); the defaults stand for what is missing.

use std::io;

use super::bytes::be32;
use super::overlay::Overlay;
use super::page::{Cell as PageCell, Page};
use super::record::{Value, values};

use super::schema::{Affinity, Literal, TableDef};

/// Deepest b-tree walked; SQLite's own limit.
const MAX_DEPTH: u32 = 20;
/// Longest row read. A queue payload or an audit record of this size is no honest one.
const MAX_ROW: u64 = 16 << 20;

/// One value, owned. Text is UTF-8 whatever the encoding of the database, unless its bytes were none.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// NULL.
    Null,
    /// Integer.
    Integer(i64),
    /// IEEE 754 double, bit-exact.
    Real(f64),
    /// Text.
    Text(Vec<u8>),
    /// Blob.
    Blob(Vec<u8>),
}

/// A stored column, in the order of the record.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Name as the schema writes it.
    pub name: String,
    /// Affinity.
    pub affinity: Affinity,
    /// True for the INTEGER PRIMARY KEY.
    pub rowid: bool,
    /// Stands for the value in records that end before it.
    pub default: Cell,
}

/// The columns of a rowid table as its records have them. A default that only the engine can compute stands as NULL.
#[must_use]
pub fn columns(table: &TableDef) -> Vec<Column> {
    let column = |i: usize| {
        let c = table.columns.get(i)?;
        let default = match &c.default {
            Some(Literal::Integer(n)) => Cell::Integer(*n),
            Some(Literal::Real(x)) => Cell::Real(*x),
            Some(Literal::Text(t)) => Cell::Text(t.clone().into_bytes()),
            Some(Literal::Blob(b)) => Cell::Blob(b.clone()),
            Some(Literal::Null | Literal::Expression) | None => Cell::Null,
        };
        Some(Column { name: c.name.clone(), affinity: c.affinity, rowid: table.rowid_alias == Some(i), default })
    };
    table.stored_columns().into_iter().filter_map(column).collect()
}

/// A set of pages that have been used.
#[derive(Clone, Debug)]
pub struct Claimed(Vec<u64>);

impl Claimed {
    /// None of `pages`.
    #[must_use]
    pub fn none(pages: u32) -> Self {
        Self(vec![0; usize::try_from(pages / 64 + 1).unwrap_or(1)])
    }

    /// Marks a page; false when it was marked before or does not exist.
    pub fn claim(&mut self, page: u32) -> bool {
        let bit = 1_u64 << (page % 64);
        match self.0.get_mut(usize::try_from(page / 64).unwrap_or(usize::MAX)) {
            Some(word) if page > 0 && *word & bit == 0 => {
                *word |= bit;
                true
            }
            _ => false,
        }
    }

    /// True when the page is marked.
    #[must_use]
    pub fn has(&self, page: u32) -> bool {
        let word = self.0.get(usize::try_from(page / 64).unwrap_or(usize::MAX));
        word.is_some_and(|w| w >> (page % 64) & 1 == 1)
    }
}

/// A place that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Page.
    pub page: u32,
    /// Why.
    pub why: String,
}

/// Walks the inner pages of a rowid table and gives its leaves in key order, with the places that are not what they
/// should be where they were met. `claimed` gains every page of the tree.
pub fn leaves(
    source: &Overlay<'_>,
    root: u32,
    usable: u32,
    claimed: &mut Claimed,
) -> io::Result<Vec<Result<u32, Unread>>> {
    let mut found = Vec::new();
    let mut stack = vec![(root, 0)];
    while let Some((number, depth)) = stack.pop() {
        let mut unread = |page: u32, why: &str| found.push(Err(Unread { page, why: why.to_string() }));
        if number == 0 || number > source.pages {
            unread(number, "the tree points to a page that does not exist");
            continue;
        }
        if !claimed.claim(number) {
            unread(number, "two places of the tree point to this page");
            continue;
        }
        let image = source.page(number)?.unwrap_or_default();
        let Some(page) = Page::parse(&image, number, usable).filter(|p| p.kind.is_table() && depth <= MAX_DEPTH) else {
            unread(number, "it is not a page of this table any more");
            continue;
        };
        if page.kind.is_leaf() {
            found.push(Ok(number));
            continue;
        }
        let mut children: Vec<u32> = Vec::with_capacity(page.cells + 1);
        for i in 0..page.cells {
            match page.cell(i).and_then(|c| c.left) {
                Some(child) => children.push(child),
                None => unread(number, "a pointer on it is damaged"),
            }
        }
        children.extend(page.right());
        // The stack gives back the last first: the leftmost child must be on top.
        stack.extend(children.into_iter().rev().map(|child| (child, depth + 1)));
    }
    Ok(found)
}

/// Pages on the freelist: what stands on them was deleted, and is not to be brought back.
pub fn free_pages(source: &Overlay<'_>, head: u32, usable: u32) -> io::Result<Claimed> {
    let mut free = Claimed::none(source.pages);
    let mut trunk = head;
    while trunk <= source.pages && free.claim(trunk) {
        let image = source.page(trunk)?.unwrap_or_default();
        let count = be32(&image, 4).min(usable / 4);
        for i in 0..count {
            free.claim(be32(&image, 8 + 4 * usize::try_from(i).unwrap_or(0)));
        }
        trunk = be32(&image, 0);
    }
    Ok(free)
}

/// A row, or the part of a page where one should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    /// Its rowid, where that much could be read.
    pub rowid: Option<i64>,
    /// Page.
    pub page: u32,
    /// Values by column, or why there are none.
    pub cells: Result<Vec<Cell>, String>,
    /// The bytes of a cell that could not be understood, as far as they are on the page.
    pub bytes: Vec<u8>,
}

/// The rows of a leaf, in key order. `encoding` is that of the header (1 UTF-8, 2 UTF-16le, 3 UTF-16be); `claimed` gains
/// the overflow pages.
pub fn rows(
    source: &Overlay<'_>,
    number: u32,
    usable: u32,
    encoding: u32,
    columns: &[Column],
    claimed: &mut Claimed,
) -> io::Result<Vec<Raw>> {
    let image = source.page(number)?.unwrap_or_default();
    let page = Page::parse(&image, number, usable).filter(|p| p.kind.is_table() && p.kind.is_leaf());
    let Some(page) = page else {
        let why = "the page is not a leaf of this table any more".to_string();
        return Ok(vec![Raw { rowid: None, page: number, cells: Err(why), bytes: Vec::new() }]);
    };
    let mut found = Vec::with_capacity(page.cells);
    for i in 0..page.cells {
        let Some(cell) = page.cell(i) else {
            let why = format!("cell {i} leaves the page");
            found.push(Raw { rowid: None, page: number, cells: Err(why), bytes: Vec::new() });
            continue;
        };
        let rowid = cell.rowid;
        let read = match payload(source, &cell, usable, claimed)? {
            Ok(payload) => match values(&payload) {
                Some(values) => Ok(owned(&values, rowid, encoding, columns)),
                None => Err("its record contradicts itself".to_string()),
            },
            Err(why) => Err(why),
        };
        let bytes = if read.is_err() { cell.raw.to_vec() } else { Vec::new() };
        found.push(Raw { rowid, page: number, cells: read, bytes });
    }
    Ok(found)
}

fn owned(values: &[Value<'_>], rowid: Option<i64>, encoding: u32, columns: &[Column]) -> Vec<Cell> {
    let one = |(i, column): (usize, &Column)| match values.get(i) {
        None | Some(Value::Null) if column.rowid => rowid.map_or(Cell::Null, Cell::Integer),
        None => column.default.clone(),
        Some(Value::Null) => Cell::Null,
        #[allow(clippy::cast_precision_loss)] // what SQLite does; it stores only those that come back exactly
        Some(Value::Integer(n)) if column.affinity == Affinity::Real => Cell::Real(*n as f64),
        Some(Value::Integer(n)) => Cell::Integer(*n),
        Some(Value::Real(r)) => Cell::Real(*r),
        Some(Value::Text(t)) => Cell::Text(utf8(t, encoding)),
        Some(Value::Blob(b)) => Cell::Blob(b.to_vec()),
    };
    columns.iter().enumerate().map(one).collect()
}

/// Text as UTF-8. Bytes that are no UTF-8 in a UTF-8 database stay as they are: they are evidence.
fn utf8(bytes: &[u8], encoding: u32) -> Vec<u8> {
    let unit = |pair: &[u8]| match (pair, encoding) {
        ([a, b], 2) => u16::from_le_bytes([*a, *b]),
        ([a, b], _) => u16::from_be_bytes([*a, *b]),
        _ => 0xfffd,
    };
    match encoding {
        2 | 3 => String::from_utf16_lossy(&bytes.chunks_exact(2).map(unit).collect::<Vec<u16>>()).into_bytes(),
        _ => bytes.to_vec(),
    }
}

/// The whole payload; the inner error is damage.
fn payload(
    source: &Overlay<'_>,
    cell: &PageCell<'_>,
    usable: u32,
    claimed: &mut Claimed,
) -> io::Result<Result<Vec<u8>, String>> {
    let Some(whole) = usize::try_from(cell.payload_len).ok().filter(|_| cell.payload_len <= MAX_ROW) else {
        return Ok(Err(format!("it claims to be {} bytes long", cell.payload_len)));
    };
    let mut bytes = cell.local.to_vec();
    let per_page = usize::try_from(usable.saturating_sub(4)).unwrap_or(0);
    let mut next = cell.overflow.unwrap_or(0);
    while bytes.len() < whole {
        if next == 0 || next > source.pages || !claimed.claim(next) {
            return Ok(Err(format!("its overflow chain breaks at page {next}")));
        }
        let image = source.page(next)?.unwrap_or_default();
        let take = (whole - bytes.len()).min(per_page);
        match image.get(4..4 + take) {
            Some(part) => bytes.extend_from_slice(part),
            None => return Ok(Err(format!("overflow page {next} is missing"))),
        }
        next = be32(&image, 0);
    }
    if next != 0 {
        return Ok(Err("its overflow chain does not end where the row does".to_string()));
    }
    Ok(Ok(bytes))
}
