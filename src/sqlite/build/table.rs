//! A table keyed by rowid, from its rows in ascending order.

use std::io;

use crate::sqlite::bytes;

use super::{Blank, Out, TABLE_INTERIOR, TABLE_LEAF, varint};

/// One table that is being written.
pub struct Table {
    root: u32,
    page_size: usize,
    usable: usize,
    leaf: Blank,
    levels: Vec<Inner>,
    last: Option<i64>,
    rows: u64,
    overflow: Vec<u8>,
}

/// One level of inner pages.
struct Inner {
    page: Blank,
    /// The newest child with its highest rowid: the right-most, until another comes.
    right: Option<(u32, i64)>,
    /// A full page whose successor has no cell yet. An inner page without cells would be a page of one child; should no
    /// other child come, this one gives its last.
    held: Option<Full>,
}

struct Full {
    page: Blank,
    right: (u32, i64),
    /// Its last cell: child and key.
    last: (u32, i64),
}

impl Table {
    /// A table whose root page is `root`.
    pub fn new(root: u32, page_size: u32, usable: u32) -> Self {
        let (page_size, usable) = (usize::try_from(page_size).unwrap_or(0), usize::try_from(usable).unwrap_or(0));
        Self {
            root,
            page_size,
            usable,
            leaf: Blank::new(TABLE_LEAF, page_size, usable),
            levels: Vec::new(),
            last: None,
            rows: 0,
            overflow: Vec::new(),
        }
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds a row; false when its rowid does not lie above the one before.
    pub fn add(&mut self, rowid: i64, payload: &[u8], out: &mut dyn Out) -> io::Result<bool> {
        if self.last.is_some_and(|last| rowid <= last) {
            return Ok(false);
        }
        let (length, n) = varint(payload.len() as u64);
        let (id, m) = varint(rowid.cast_unsigned());
        let local = self.local(payload.len());
        let spills = local < payload.len();
        let size = n + m + local + if spills { 4 } else { 0 };
        if !self.leaf.fits(size) {
            self.close_leaf(out)?;
        }
        let (here, rest) = payload.split_at(local);
        let first = if spills { self.spill(rest, out)?.to_be_bytes() } else { [0; 4] };
        let parts = [length.get(..n), id.get(..m), Some(here), first.get(..if spills { 4 } else { 0 })];
        self.leaf.push(&parts.map(Option::unwrap_or_default));
        self.last = Some(rowid);
        self.rows += 1;
        Ok(true)
    }

    /// Bytes of a payload that stay on the leaf (file format 2, section 1.6).
    fn local(&self, len: usize) -> usize {
        let max = self.usable - 35;
        if len <= max {
            return len;
        }
        let min = (self.usable - 12) * 32 / 255 - 23;
        let k = min + (len - min) % (self.usable - 4);
        if k <= max { k } else { min }
    }

    /// Writes a chain of overflow pages; its first.
    fn spill(&mut self, rest: &[u8], out: &mut dyn Out) -> io::Result<u32> {
        let first = out.number();
        let mut number = first;
        let mut chunks = rest.chunks(self.usable - 4).peekable();
        while let Some(chunk) = chunks.next() {
            let next = if chunks.peek().is_some() { out.number() } else { 0 };
            self.overflow.clear();
            self.overflow.extend_from_slice(&next.to_be_bytes());
            self.overflow.extend_from_slice(chunk);
            self.overflow.resize(self.page_size, 0);
            out.put(number, &self.overflow)?;
            number = next;
        }
        Ok(first)
    }

    fn close_leaf(&mut self, out: &mut dyn Out) -> io::Result<()> {
        let number = out.number();
        out.put(number, self.leaf.finish(None))?;
        self.leaf.clear();
        self.up(0, (number, self.last.unwrap_or(0)), out)
    }

    /// Hands a finished page to the level above it.
    fn up(&mut self, level: usize, child: (u32, i64), out: &mut dyn Out) -> io::Result<()> {
        if level == self.levels.len() {
            let page = Blank::new(TABLE_INTERIOR, self.page_size, self.usable);
            self.levels.push(Inner { page, right: None, held: None });
        }
        let Some(inner) = self.levels.get_mut(level) else { return Ok(()) };
        let Some(before) = inner.right.replace(child) else { return Ok(()) };
        let (key, n) = varint(before.1.cast_unsigned());
        let cell = [before.0.to_be_bytes().as_slice(), key.get(..n).unwrap_or(&[])].concat();
        if inner.page.fits(cell.len()) {
            inner.page.push(&[&cell]);
            return Ok(());
        }
        // The page is full: the child before is its right-most, and it goes up under that child's highest rowid.
        let page = std::mem::replace(&mut inner.page, Blank::new(TABLE_INTERIOR, self.page_size, self.usable));
        let last = last_cell(&page);
        let full = inner.held.replace(Full { page, right: before, last });
        self.release(level, full, out)
    }

    fn release(&mut self, level: usize, full: Option<Full>, out: &mut dyn Out) -> io::Result<()> {
        let Some(mut full) = full else { return Ok(()) };
        let number = out.number();
        out.put(number, full.page.finish(Some(full.right.0)))?;
        self.up(level + 1, (number, full.right.1), out)
    }

    /// Writes what is left; the root last.
    pub fn finish(mut self, out: &mut dyn Out) -> io::Result<()> {
        if self.levels.is_empty() {
            return out.put(self.root, self.leaf.finish(None));
        }
        self.close_leaf(out)?;
        let mut level = 0;
        loop {
            let Some(inner) = self.levels.get_mut(level) else { return Ok(()) };
            let mut held = inner.held.take();
            if let Some(full) = held.as_mut().filter(|_| inner.page.cells == 0) {
                // The last cell of the full page becomes its right-most child, and the child that was gives the new page
                // its one cell.
                let (key, n) = varint(full.right.1.cast_unsigned());
                let cell = [full.right.0.to_be_bytes().as_slice(), key.get(..n).unwrap_or(&[])].concat();
                let (_, popped) = varint(full.last.1.cast_unsigned());
                full.page.pop(4 + popped);
                full.right = full.last;
                inner.page.push(&[&cell]);
            }
            self.release(level, held, out)?;
            let top = level + 1 == self.levels.len();
            let Some(inner) = self.levels.get_mut(level) else { return Ok(()) };
            let Some((right, key)) = inner.right else { return Ok(()) };
            if top {
                return out.put(self.root, inner.page.finish(Some(right)));
            }
            let number = out.number();
            out.put(number, inner.page.finish(Some(right)))?;
            self.up(level + 1, (number, key), out)?;
            level += 1;
        }
    }
}

/// Child and key of the last cell of an inner page.
fn last_cell(page: &Blank) -> (u32, i64) {
    let key = bytes::varint(&page.bytes, page.content + 4).map_or(0, |(key, _)| key);
    (bytes::be32(&page.bytes, page.content), key)
}
