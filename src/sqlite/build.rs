//! New b-trees from rows in key order (file format 2, section 1.6), written front to back: every page once, full, and in
//! ascending page numbers, but for the root, whose number the schema has already.
//!
//! A record that lies in a page of the old database is the record of the new one, byte by byte: same encoding, same usable
//! size, same columns. So nothing is decoded and nothing is looked up; this is what makes a salvage cheaper than
//! inserting its rows one by one.
//!
//! Nothing here reads or writes: pages go to an [`Out`].

pub mod table;

use std::io;

/// Takes pages. Numbers rise from one call of `number` to the next.
pub trait Out {
    /// The number of the next new page.
    fn number(&mut self) -> u32;
    /// The contents of page `number`.
    fn put(&mut self, number: u32, page: &[u8]) -> io::Result<()>;
}

/// The page that holds the lock bytes (file format 2, section 1.4) is never used.
pub fn lock_page(page_size: u32) -> u32 {
    0x4000_0000 / page_size.max(1) + 1
}

/// A b-tree page that is being filled: pointers from the front, cells from the end.
struct Blank {
    bytes: Vec<u8>,
    kind: u8,
    cells: usize,
    content: usize,
    usable: usize,
}

const TABLE_INTERIOR: u8 = 5;
const TABLE_LEAF: u8 = 13;

impl Blank {
    fn new(kind: u8, page_size: usize, usable: usize) -> Self {
        Self { bytes: vec![0; page_size], kind, cells: 0, content: usable, usable }
    }

    /// Length of the page header.
    fn header(&self) -> usize {
        if self.kind == TABLE_LEAF { 8 } else { 12 }
    }

    fn fits(&self, len: usize) -> bool {
        self.header() + 2 * (self.cells + 1) + len.max(4) <= self.content
    }

    /// Adds a cell made of parts; the caller has asked [`Self::fits`].
    fn push(&mut self, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        self.content -= len.max(4).min(self.content);
        let mut at = self.content;
        for part in parts {
            set(&mut self.bytes, at, part);
            at += part.len();
        }
        let pointer = self.header() + 2 * self.cells;
        set(&mut self.bytes, pointer, &word(self.content));
        self.cells += 1;
    }

    /// Takes the last cell off again.
    fn pop(&mut self, len: usize) {
        self.content = (self.content + len.max(4)).min(self.usable);
        self.cells = self.cells.saturating_sub(1);
        let pointer = self.header() + 2 * self.cells;
        set(&mut self.bytes, pointer, &[0, 0]);
    }

    /// The finished page; `right` is its right-most child.
    fn finish(&mut self, right: Option<u32>) -> &[u8] {
        let content = word(self.content);
        set(&mut self.bytes, 0, &[self.kind, 0, 0]);
        set(&mut self.bytes, 3, &word(self.cells));
        set(&mut self.bytes, 5, &content);
        if let Some(right) = right {
            set(&mut self.bytes, 8, &right.to_be_bytes());
        }
        &self.bytes
    }

    fn clear(&mut self) {
        self.bytes.fill(0);
        self.cells = 0;
        self.content = self.usable;
    }
}

/// A number below 65536 in two bytes; 65536 is written as 0.
fn word(n: usize) -> [u8; 2] {
    u16::try_from(n).unwrap_or(0).to_be_bytes()
}

fn set(bytes: &mut [u8], at: usize, part: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + part.len()) {
        place.copy_from_slice(part);
    }
}

/// A variable-length integer: its bytes and how many of them count.
fn varint(value: u64) -> ([u8; 9], usize) {
    let mut bytes = [0; 9];
    if value >> 56 != 0 {
        // Eight times seven bits, then eight.
        for (i, b) in bytes.iter_mut().enumerate().take(8) {
            *b = 0x80 | low7(value >> (8 + 7 * (7 - i)));
        }
        set(&mut bytes, 8, &[u8::try_from(value & 0xff).unwrap_or(0)]);
        return (bytes, 9);
    }
    let len = (1..8).find(|n| value >> (7 * n) == 0).unwrap_or(8);
    for (i, b) in bytes.iter_mut().enumerate().take(len) {
        let more = if i + 1 < len { 0x80 } else { 0 };
        *b = more | low7(value >> (7 * (len - 1 - i)));
    }
    (bytes, len)
}

fn low7(value: u64) -> u8 {
    u8::try_from(value & 0x7f).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::varint;

    #[test]
    fn varints_are_read_back_as_written() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1 << shift) - 1, u64::MAX >> shift, u64::MAX << shift] {
                let (bytes, len) = varint(value);
                assert_eq!(crate::sqlite::bytes::varint(&bytes[..len], 0), Some((value.cast_signed(), len)), "{value}");
            }
        }
    }
}
