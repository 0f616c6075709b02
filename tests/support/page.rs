//! Cells of table leaves, read straight from page images, so that rows can be counted in a fold that no engine would
//! open. A row is *reachable* when its cell, byte for byte as in the true state, stands on a leaf page of its own
//! table in the fold of the surviving bytes, and every overflow page it needs is there unchanged.

use std::collections::{BTreeMap, BTreeSet};

use super::wal::be32;

fn be16(page: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([page[at], page[at + 1]]))
}

fn varint(page: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for n in 0..9 {
        let byte = *page.get(at)?;
        at += 1;
        if n == 8 {
            return Some(((value << 8) | u64::from(byte), at));
        }
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

/// Page `number` of a database image.
pub fn page(db: &[u8], page_size: usize, number: u32) -> Option<&[u8]> {
    let at = (number as usize).checked_sub(1)?.checked_mul(page_size)?;
    db.get(at..at + page_size)
}

/// The pages of the b-tree at `root`, in any order. Stops at what is not a page of the tree.
pub fn tree(db: &[u8], page_size: usize, root: u32) -> BTreeSet<u32> {
    let mut seen = BTreeSet::new();
    let mut todo = vec![root];
    while let Some(number) = todo.pop() {
        let Some(page) = page(db, page_size, number) else { continue };
        if !seen.insert(number) {
            continue;
        }
        let head = if number == 1 { 100 } else { 0 };
        if page[head] == 0x05 {
            todo.push(be32(page, head + 8));
            for i in 0..be16(page, head + 3).min(page_size / 2) {
                let cell = be16(page, (head + 12 + 2 * i).min(page_size - 2));
                if cell + 4 <= page_size {
                    todo.push(be32(page, cell));
                }
            }
        }
    }
    seen
}

/// The rows on the table leaves among `pages`: row id to the bytes of the record.
pub fn rows(db: &[u8], page_size: usize, pages: &BTreeSet<u32>) -> BTreeMap<u64, Vec<u8>> {
    let mut rows = BTreeMap::new();
    for &number in pages {
        let Some(page) = page(db, page_size, number) else { continue };
        let head = if number == 1 { 100 } else { 0 };
        if page[head] != 0x0d {
            continue;
        }
        for i in 0..be16(page, head + 3).min(page_size / 4) {
            let pointer = head + 8 + 2 * i;
            if pointer + 2 > page_size {
                break;
            }
            if let Some((rowid, record)) = cell(db, page_size, page, be16(page, pointer)) {
                rows.insert(rowid, record);
            }
        }
    }
    rows
}

/// The rows on one page image, as far as they are on it: row id to the bytes of the record there. Empty when it is no
/// table leaf.
pub fn leaf(image: &[u8], number: u32) -> BTreeMap<u64, Vec<u8>> {
    let mut rows = BTreeMap::new();
    let head = if number == 1 { 100 } else { 0 };
    if image.get(head) != Some(&0x0d) {
        return rows;
    }
    for i in 0..be16(image, head + 3).min(image.len() / 4) {
        let Some(pointer) = image.get(head + 8 + 2 * i..head + 10 + 2 * i) else { break };
        let Some((length, at)) = varint(image, be16(pointer, 0)) else { continue };
        let Some((rowid, at)) = varint(image, at) else { continue };
        let end = at.saturating_add(usize::try_from(length).unwrap_or(0)).min(image.len());
        rows.insert(rowid, image.get(at..end).unwrap_or_default().to_vec());
    }
    rows
}

fn cell(db: &[u8], page_size: usize, leaf: &[u8], at: usize) -> Option<(u64, Vec<u8>)> {
    let (length, at) = varint(leaf, at)?;
    let (rowid, at) = varint(leaf, at)?;
    let length = usize::try_from(length).ok()?;
    let (most, least) = (page_size - 35, (page_size - 12) * 32 / 255 - 23);
    if length <= most {
        return Some((rowid, leaf.get(at..at + length)?.to_vec()));
    }
    let fit = least + (length - least) % (page_size - 4);
    let local = if fit <= most { fit } else { least };
    let mut record = leaf.get(at..at + local)?.to_vec();
    let mut next = be32(leaf.get(at + local..at + local + 4)?, 0);
    while record.len() < length {
        let overflow = page(db, page_size, next)?;
        next = be32(overflow, 0);
        let n = (length - record.len()).min(page_size - 4);
        record.extend_from_slice(&overflow[4..4 + n]);
    }
    Some((rowid, record))
}
