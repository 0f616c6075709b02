//! One b-tree page read for what it still holds: which cells can be believed, and whether the page is whole.
//!
//! A page is *whole* when its header, pointers, cells, free blocks and fragments account for every byte of the content
//! area (file format 2, section 1.6) and its rowids rise. Of a page that is not, those cells are kept that parse, whose
//! record header accounts for the whole payload, that no other cell overlaps, and whose rowids form the longest rising
//! sequence: a rowid that lies out of order, or stands twice, belongs to a cell that was changed.

use super::fields::{Field, split};
use crate::sqlite::bytes::be16;
use crate::sqlite::page::{Cell, Page, PageKind};

/// What of a page can be believed.
#[derive(Debug)]
pub struct Sheet<'a> {
    /// The page.
    pub page: Page<'a>,
    /// Indexes of the cells that can be believed, in order.
    pub good: Vec<usize>,
    /// False when something on the page is damaged.
    pub whole: bool,
}

impl<'a> Sheet<'a> {
    /// The believable cells.
    pub fn cells(&self) -> impl Iterator<Item = Cell<'a>> + '_ {
        self.good.iter().filter_map(|i| self.page.cell(*i))
    }
}

/// Reads a page. With `kind`, a damaged page header is overruled. `None` when it is no b-tree page (of that kind).
pub fn read<'a>(bytes: &'a [u8], number: u32, usable: u32, kind: Option<PageKind>) -> Option<Sheet<'a>> {
    if let Some(page) = Page::parse(bytes, number, usable)
        && kind.is_none_or(|k| k == page.kind)
    {
        return Some(trust(bytes, page, usable));
    }
    let page = Page::assume(bytes, number, usable, kind?)?;
    let good = believable(&page);
    // A page of zeroes has no cells either; a header that is wrong in every respect is no header.
    (!good.is_empty()).then_some(Sheet { page, good, whole: false })
}

fn trust<'a>(bytes: &'a [u8], page: Page<'a>, usable: u32) -> Sheet<'a> {
    let mut fields = Vec::new();
    let mut used = 0;
    let mut last: Option<i64> = None;
    let whole = (0..page.cells).all(|i| {
        let Some(cell) = page.cell(i) else { return false };
        used += cell.raw.len().max(4);
        let rises = cell.rowid.is_none_or(|id| last.is_none_or(|l| id > l));
        last = cell.rowid;
        rises && is_record(&page, &cell, &mut fields)
    }) && free_bytes(bytes, &page)
        .is_some_and(|free| Some(page.content + used + free) == usize::try_from(usable).ok());
    let good = if whole { (0..page.cells).collect() } else { believable(&page) };
    Sheet { page, good, whole }
}

fn is_record(page: &Page<'_>, cell: &Cell<'_>, fields: &mut Vec<Field>) -> bool {
    page.kind == PageKind::TableInterior
        || split(cell.local, cell.payload_len, fields)
        // The header of a very wide row may itself spill; what it says is judged when the row is put together.
        || cell.overflow.is_some() && header_spills(cell)
}

fn header_spills(cell: &Cell<'_>) -> bool {
    let header = crate::sqlite::bytes::varint(cell.local, 0).and_then(|(len, _)| u64::try_from(len).ok());
    header.is_some_and(|len| len > cell.local.len() as u64 && len <= cell.payload_len)
}

/// Bytes in free blocks and fragments; `None` when the chain of free blocks is broken.
fn free_bytes(bytes: &[u8], page: &Page<'_>) -> Option<usize> {
    let mut sum = page.fragments();
    let mut at = page.first_freeblock();
    let mut behind = page.content;
    while at != 0 {
        if at < behind {
            return None;
        }
        let size = usize::from(be16(bytes, at + 2));
        if size < 4 {
            return None;
        }
        sum += size;
        behind = at + size;
        at = usize::from(be16(bytes, at));
    }
    Some(sum)
}

fn believable(page: &Page<'_>) -> Vec<usize> {
    let mut fields = Vec::new();
    let mut cells: Vec<(usize, Cell<'_>)> = Vec::new();
    for i in 0..page.cells {
        cells.extend(page.cell(i).filter(|c| is_record(page, c, &mut fields)).map(|c| (i, c)));
    }
    let mut extents: Vec<(usize, usize, usize)> = cells.iter().map(|(i, c)| (c.at, c.at + c.raw.len(), *i)).collect();
    extents.sort_unstable();
    let mut overlapped = vec![false; page.cells];
    let mut reach = (0, 0);
    for (from, to, i) in extents {
        if from < reach.0 {
            for cell in [i, reach.1] {
                if let Some(mark) = overlapped.get_mut(cell) {
                    *mark = true;
                }
            }
        }
        reach = reach.max((to, i));
    }
    cells.retain(|(i, _)| !overlapped.get(*i).copied().unwrap_or(true));
    if page.kind.is_table() { rising(&cells) } else { cells.into_iter().map(|(i, _)| i).collect() }
}

/// The longest sequence of cells whose rowids rise, by patience sorting. A rowid that stands twice is in none: one of
/// the two was changed, and nothing says which.
fn rising(cells: &[(usize, Cell<'_>)]) -> Vec<usize> {
    let mut ids: Vec<i64> = cells.iter().filter_map(|(_, c)| c.rowid).collect();
    ids.sort_unstable();
    let twice = |id: i64| ids.partition_point(|x| *x <= id) - ids.partition_point(|x| *x < id) > 1;
    let single: Vec<(usize, i64)> =
        cells.iter().filter_map(|(i, c)| Some((*i, c.rowid?))).filter(|(_, id)| !twice(*id)).collect();
    // tails[k]: position of the smallest last element of a rising sequence of k + 1 elements.
    let mut tails: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(single.len());
    for (position, (_, id)) in single.iter().enumerate() {
        let k = tails.partition_point(|t| single.get(*t).is_some_and(|(_, x)| x < id));
        before.push(k.checked_sub(1).and_then(|k| tails.get(k).copied()));
        match tails.get_mut(k) {
            Some(tail) => *tail = position,
            None => tails.push(position),
        }
    }
    let mut chain = Vec::new();
    let mut at = tails.last().copied();
    while let Some(position) = at {
        chain.extend(single.get(position).map(|(i, _)| *i));
        at = before.get(position).copied().flatten();
    }
    chain.reverse();
    chain
}

/// Where the content of a page that accounts for every byte ends; `None` when it does not, or has no cell. The page
/// was read with the whole page size as usable: what is left behind the end is reserved space.
pub fn content_end(bytes: &[u8], page: &Page<'_>) -> Option<usize> {
    let mut fields = Vec::new();
    let mut used = 0;
    for i in 0..page.cells {
        let cell = page.cell(i)?;
        if !is_record(page, &cell, &mut fields) {
            return None;
        }
        used += cell.raw.len().max(4);
    }
    (page.cells > 0).then_some(page.content + used + free_bytes(bytes, page)?)
}
