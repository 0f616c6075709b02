//! Rows that spill: a payload put together from its cell and its chain of overflow pages (file format 2, section 1.6).
//!
//! A chain is believed when it has exactly the pages its payload needs, its last page ends it, and none of its pages is
//! used by another row or by a tree. A last page of zeroes may be the end of a blob or an erased page: the
//! caller is told, and decides by what the row holds there. The work is bounded: pages of believed
//! chains are claimed once, and the pages walked in vain have a budget of their own, so that a thousand cells that
//! all point into one long chain cost no more than the file has pages.

use super::source::Source;
use crate::sqlite::bytes::be32;
use crate::sqlite::page::Cell;

/// Longest payload put together; the engine's own limit (SQLITE_MAX_LENGTH).
const MAX_PAYLOAD: u64 = 1_000_000_000;

/// Which pages belong to somebody, and how much may still be walked in vain.
#[derive(Debug, Default)]
pub struct Chains {
    taken: Vec<u8>,
    in_vain: u64,
    free_for_all: bool,
}

impl Chains {
    /// For a database of `pages` pages.
    pub fn new(pages: u32) -> Self {
        let bytes = usize::try_from(pages / 8 + 1).unwrap_or(0);
        Self { taken: vec![0; bytes], in_vain: 4 * u64::from(pages) + 64, free_for_all: false }
    }

    /// Without claims, for the few rows of the schema.
    pub fn unclaimed() -> Self {
        Self { taken: Vec::new(), in_vain: 4096, free_for_all: true }
    }

    /// Marks a page as somebody's.
    pub fn take(&mut self, page: u32) {
        if let Some(byte) = self.taken.get_mut(usize::try_from(page / 8).unwrap_or(usize::MAX)) {
            *byte |= 1 << (page % 8);
        }
    }

    /// True when a page is somebody's.
    pub fn is_taken(&self, page: u32) -> bool {
        let byte = self.taken.get(usize::try_from(page / 8).unwrap_or(usize::MAX));
        !self.free_for_all && byte.is_none_or(|b| b & (1 << (page % 8)) != 0)
    }
}

/// A payload put together.
#[derive(Debug)]
pub struct Payload {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Where an overflow page of nothing but zeroes begins; the length of the payload when there is none.
    pub zero_from: usize,
}

/// The whole payload of a cell; `None` when its chain cannot be believed.
pub fn assemble(source: &mut Source<'_>, chains: &mut Chains, cell: &Cell<'_>) -> Option<Payload> {
    let Some(first) = cell.overflow else {
        return Some(Payload { bytes: cell.local.to_vec(), zero_from: cell.local.len() });
    };
    let whole = usize::try_from(cell.payload_len).ok().filter(|n| *n as u64 <= MAX_PAYLOAD)?;
    let per_page = usize::try_from(source.usable).ok()?.checked_sub(4).filter(|n| *n > 0)?;
    let needed = (whole - cell.local.len()).div_ceil(per_page);
    if needed > usize::try_from(source.pages).ok()? {
        return None;
    }
    // Allocated as the chain proves itself, so that a length alone costs nothing.
    let mut payload = cell.local.to_vec();
    let mut pages = Vec::new();
    let mut page = Vec::new();
    let mut next = first;
    let mut zero_from = whole;
    for hop in 0..needed {
        let believed = next > 1
            && !chains.is_taken(next)
            && !source.is_cut(next)
            && source.read(next, &mut page)
            && (hop + 1 == needed) == (be32(&page, 0) == 0);
        if !believed {
            chains.in_vain = chains.in_vain.saturating_sub(pages.len() as u64 + 1);
            return None;
        }
        let take = per_page.min(whole - payload.len());
        if page.iter().all(|b| *b == 0) {
            zero_from = payload.len();
        }
        payload.extend_from_slice(page.get(4..4 + take)?);
        pages.push(next);
        if chains.in_vain < pages.len() as u64 {
            return None;
        }
        next = be32(&page, 0);
    }
    for page in pages {
        chains.take(page);
    }
    Some(Payload { bytes: payload, zero_from })
}
