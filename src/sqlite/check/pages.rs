//! One b-tree page looked at as `integrity_check` does: header, cells inside the content area, and every byte of that
//! area accounted for exactly once by a cell, a freeblock or the count of fragments (file format 2, section 1.6).

use crate::sqlite::bytes::{be16, be32, byte, varint};
use crate::sqlite::page::PageKind;

/// What payload stays on a page, precomputed for one page size.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Page size minus reserved bytes.
    pub usable: usize,
    max_table: u64,
    max_index: u64,
    min: u64,
}

impl Geometry {
    /// For pages with so many usable bytes (at least 480, which the header's parser sees to).
    pub fn new(usable: u32) -> Self {
        let u = u64::from(usable.max(480));
        Self {
            usable: usize::try_from(u).unwrap_or(480),
            max_table: u - 35,
            max_index: (u - 12) * 64 / 255 - 23,
            min: (u - 12) * 32 / 255 - 23,
        }
    }

    /// Bytes of a payload kept on a page.
    #[inline]
    fn local(&self, payload: u64, table: bool) -> u64 {
        let max = if table { self.max_table } else { self.max_index };
        if payload <= max {
            return payload;
        }
        let k = self.min + (payload - self.min) % (self.usable as u64 - 4);
        if k <= max { k } else { self.min }
    }

    /// Pages of a chain that holds so many bytes.
    pub fn chain(&self, spilled: u64) -> u32 {
        u32::try_from(spilled.div_ceil(self.usable as u64 - 4)).unwrap_or(u32::MAX)
    }
}

/// One cell.
#[derive(Clone, Copy, Debug)]
pub struct CellAt<'a> {
    /// Left child, 0 on leaves.
    pub left: u32,
    /// Rowid, 0 on index pages.
    pub rowid: i64,
    /// Whole payload length.
    pub payload_len: u64,
    /// Payload on this page.
    pub local: &'a [u8],
    /// First overflow page, 0 when none.
    pub overflow: u32,
}

/// A page with a well-formed header.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    /// The usable bytes.
    pub bytes: &'a [u8],
    /// Kind.
    pub kind: PageKind,
    /// Number of cells.
    pub cells: usize,
    /// Right-most child, 0 on leaves.
    pub right: u32,
    pointers: usize,
    content: usize,
    fragments: usize,
    freeblock: usize,
}

impl<'a> Tree<'a> {
    /// Reads the header; an error says what is impossible about it.
    pub fn parse(image: &'a [u8], number: u32, geometry: &Geometry) -> Result<Self, &'static str> {
        let at = if number == 1 { 100 } else { 0 };
        let bytes = image.get(..geometry.usable).ok_or("it is cut off")?;
        let kind = match byte(bytes, at) {
            2 => PageKind::IndexInterior,
            5 => PageKind::TableInterior,
            10 => PageKind::IndexLeaf,
            13 => PageKind::TableLeaf,
            _ => return Err("it is not a b-tree page"),
        };
        let cells = usize::from(be16(bytes, at + 3));
        let raw = usize::from(be16(bytes, at + 5));
        let content = if raw == 0 { 65536 } else { raw };
        let pointers = at + if kind.is_leaf() { 8 } else { 12 };
        if pointers + 2 * cells > content {
            return Err("its cell pointers run into its cells");
        }
        if content > geometry.usable {
            return Err("its cells begin behind its end");
        }
        let right = if kind.is_leaf() { 0 } else { be32(bytes, at + 8) };
        let (fragments, freeblock) = (usize::from(byte(bytes, at + 7)), usize::from(be16(bytes, at + 1)));
        Ok(Self { bytes, kind, cells, right, pointers, content, fragments, freeblock })
    }

    /// Cell `i`, and where it begins and ends (exclusive); an error says what is impossible about it.
    #[inline(always)]
    pub fn cell(&self, i: usize, geometry: &Geometry) -> Result<(CellAt<'a>, (usize, usize)), &'static str> {
        let at = usize::from(be16(self.bytes, self.pointers + 2 * i));
        if at < self.content || at + 4 > self.bytes.len() {
            return Err("lies outside the cell area");
        }
        let mut cursor = at;
        let mut cell = CellAt { left: 0, rowid: 0, payload_len: 0, local: &[], overflow: 0 };
        if !self.kind.is_leaf() {
            cell.left = be32(self.bytes, at);
            cursor += 4;
        }
        let short = "runs off the page";
        if self.kind != PageKind::TableInterior {
            let (len, n) = self.varint(cursor).ok_or(short)?;
            // The engine keeps the low 32 bits of this length; nothing it wrote is that long.
            cell.payload_len =
                u64::try_from(len).ok().filter(|n| *n <= 0x7fff_ffff).ok_or("has an impossible length")?;
            cursor += n;
        }
        if self.kind.is_table() {
            let (id, n) = self.varint(cursor).ok_or(short)?;
            cell.rowid = id;
            cursor += n;
        }
        if self.kind != PageKind::TableInterior {
            let local = geometry.local(cell.payload_len, self.kind.is_table());
            let end = cursor + usize::try_from(local).map_err(|_| short)?;
            cell.local = self.bytes.get(cursor..end).ok_or(short)?;
            cursor = end;
            if local < cell.payload_len {
                if cursor + 4 > self.bytes.len() {
                    return Err(short);
                }
                cell.overflow = be32(self.bytes, cursor);
                cursor += 4;
            }
        }
        // A cell takes at least four bytes, so that it can become a freeblock.
        let end = cursor.max(at + 4);
        if end > self.bytes.len() {
            return Err(short);
        }
        Ok((cell, (at, end)))
    }

    #[inline]
    fn varint(&self, at: usize) -> Option<(i64, usize)> {
        match self.bytes.get(at) {
            Some(b) if *b < 0x80 => Some((i64::from(*b), 1)),
            _ => varint(self.bytes, at),
        }
    }

    /// Accounts for every byte of the cell area. `cover` holds the cells already.
    pub fn account(&self, cover: &mut Cover) -> Result<(), String> {
        let end = self.bytes.len();
        let mut next = self.freeblock;
        if next != 0 && next < self.content {
            return Err(format!("its first freeblock, {next}, lies outside the cell area"));
        }
        while next != 0 {
            if next + 4 > end {
                return Err(format!("freeblock {next} runs off the page"));
            }
            let (after, size) = (usize::from(be16(self.bytes, next)), usize::from(be16(self.bytes, next + 2)));
            if size < 4 || next + size > end {
                return Err(format!("freeblock {next} has an impossible length"));
            }
            // In ascending order, and never closer than a freeblock is long: they would have been joined.
            if after != 0 && after < next + size + 4 {
                return Err(format!("freeblock {next} is followed by {after}, out of order"));
            }
            cover.add(next, next + size);
            next = after;
        }
        if let Some(at) = cover.twice {
            return Err(format!("byte {at} is used twice"));
        }
        let gaps = end.saturating_sub(self.content).saturating_sub(cover.bytes());
        if gaps == self.fragments {
            Ok(())
        } else {
            Err(format!("{gaps} bytes belong to nothing, its header counts {}", self.fragments))
        }
    }
}

/// Which bytes of a page are in use, one bit each: cheaper than sorting the cells by their place, whose order is arbitrary.
#[derive(Debug, Default)]
pub struct Cover {
    words: Vec<u64>,
    /// The lowest cell or freeblock seen to begin on, or reach into, bytes already in use.
    twice: Option<usize>,
}

impl Cover {
    /// Forgets everything; for a page with so many usable bytes.
    pub fn clear(&mut self, usable: usize) {
        self.words.clear();
        self.words.resize(usable.div_ceil(64), 0);
        self.twice = None;
    }

    /// Marks `start..end`, which is not empty and ends on the page.
    #[inline]
    pub fn add(&mut self, start: usize, end: usize) {
        let (first, last) = (start / 64, (end - 1) / 64);
        let (head, tail) = (u64::MAX << (start % 64), u64::MAX >> (63 - (end - 1) % 64));
        let Some(words) = self.words.get_mut(first..=last) else { return };
        let clash = match words {
            [one] => {
                let clash = *one & head & tail;
                *one |= head & tail;
                clash
            }
            [one, between @ .., other] => {
                let mut clash = (*one & head) | (*other & tail);
                *one |= head;
                *other |= tail;
                for word in between {
                    clash |= *word;
                    *word = u64::MAX;
                }
                clash
            }
            [] => 0,
        };
        if clash != 0 {
            self.twice = Some(self.twice.map_or(start, |t| t.min(start)));
        }
    }

    fn bytes(&self) -> usize {
        self.words.iter().map(|w| usize::try_from(w.count_ones()).unwrap_or(0)).sum()
    }
}
