//! Rows of a salvage written as pages into the staged file, beside the engine instead of through it.
//!
//! The engine makes the empty tables and commits; their rows are then appended as whole pages ([`crate::sqlite::build`]),
//! each table's root last; then the header gets the new page count and a new change counter, by which the engine sees
//! that its cache is stale, and goes on with what only it can do: rows that must be looked up, indexes, views, triggers.
//! Only tables without an index of a constraint come this way, because a row that a UNIQUE constraint refuses must not
//! go in; and the whole of the result is judged by a check before it is believed, as everything staged is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::sqlite::build::{Out, lock_page, table::Table};
use crate::sqlite::bytes::be32;
use crate::sqlite::salvage::fields::Field;

/// Bytes gathered before they are written.
const CHUNK: usize = 1 << 20;

/// The writer of pages.
pub(super) struct Bulk {
    pages: Pages,
    usable: u32,
    roots: Vec<Option<u32>>,
    current: Option<(usize, Table)>,
    done: Vec<bool>,
    /// Highest rowid written, by table.
    highest: Vec<Option<i64>>,
}

struct Pages {
    file: File,
    page_size: u32,
    next: u32,
    buffer: Vec<u8>,
    /// Page number of the first byte of the buffer.
    first: u32,
}

impl Bulk {
    /// For a committed database in `file`; `roots` are those of the tables to be written here, by their place among the
    /// objects.
    pub(super) fn new(file: File, (page_size, reserved): (u32, u8), roots: Vec<Option<u32>>) -> io::Result<Self> {
        let pages = file.metadata()?.len() / u64::from(page_size.max(1));
        let next = u32::try_from(pages).map_err(io::Error::other)? + 1;
        let (done, highest) = (vec![false; roots.len()], vec![None; roots.len()]);
        let pages = Pages { file, page_size, next, buffer: Vec::with_capacity(CHUNK), first: next };
        let usable = page_size.saturating_sub(u32::from(reserved));
        Ok(Self { pages, usable, roots, current: None, done, highest })
    }

    /// True for the tables that are written here.
    pub(super) fn takes(&self, table: usize) -> bool {
        self.roots.get(table).copied().flatten().is_some() && self.done.get(table) == Some(&false)
    }

    /// The highest rowid written into a table.
    pub(super) fn highest(&self, table: usize) -> Option<i64> {
        self.highest.get(table).copied().flatten()
    }

    /// Adds a row to a table that [`Self::takes`] it; false when it is refused.
    pub(super) fn row(&mut self, table: usize, rowid: i64, fields: &[Field], payload: &[u8]) -> io::Result<bool> {
        // The engine stores no number that is none, and reads one as NULL: these bytes are damaged.
        let nan = |f: &Field| f.is_real() && payload.get(f.at..f.at + f.len).is_some_and(is_nan);
        if fields.iter().any(nan) {
            return Ok(false);
        }
        if self.current.as_ref().is_none_or(|(at, _)| *at != table) {
            self.finish_table()?;
            let root = self.roots.get(table).copied().flatten().ok_or_else(|| io::Error::other("no such table"))?;
            self.current = Some((table, Table::new(root, self.pages.page_size, self.usable)));
        }
        let Some((_, tree)) = self.current.as_mut() else { return Ok(false) };
        let added = tree.add(rowid, payload, &mut self.pages)?;
        if added && let Some(highest) = self.highest.get_mut(table) {
            *highest = Some(rowid);
        }
        Ok(added)
    }

    fn finish_table(&mut self) -> io::Result<()> {
        let Some((table, tree)) = self.current.take() else { return Ok(()) };
        if let Some(done) = self.done.get_mut(table) {
            *done = true;
        }
        tree.finish(&mut self.pages)
    }

    /// Ends the table that is being written and makes the file a database again.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        self.finish_table()?;
        self.roots.iter_mut().for_each(|r| *r = None);
        self.pages.flush()?;
        self.pages.file.write_all_at(&(self.pages.next - 1).to_be_bytes(), 28)?;
        changed(&self.pages.file)
    }
}

/// Tells the engine that the file is not what it has in its cache.
fn changed(file: &File) -> io::Result<()> {
    let mut head = [0; 100];
    file.read_exact_at(&mut head, 0)?;
    let counter = be32(&head, 24).wrapping_add(1).to_be_bytes();
    file.write_all_at(&counter, 24)?;
    file.write_all_at(&counter, 92)
}

/// Reserves bytes at the end of each page of a database that has one page and nothing on it: the engine has no statement
/// for it, and keeps to what the header says (file format 2, section 1.3.4).
pub(super) fn reserve(file: &File, page_size: u32, reserved: u8) -> io::Result<()> {
    if file.metadata()?.len() != u64::from(page_size) {
        return Err(io::Error::other("a new database of one page was expected"));
    }
    let usable = u16::try_from(page_size - u32::from(reserved)).map_err(io::Error::other)?;
    file.write_all_at(&[reserved], 20)?;
    file.write_all_at(&usable.to_be_bytes(), 105)?;
    changed(file)
}

fn is_nan(bytes: &[u8]) -> bool {
    <[u8; 8]>::try_from(bytes).is_ok_and(|b| f64::from_be_bytes(b).is_nan())
}

impl Pages {
    fn offset(&self, number: u32) -> u64 {
        u64::from(number - 1) * u64::from(self.page_size)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.offset(self.first))?;
        self.buffer.clear();
        Ok(())
    }
}

impl Out for Pages {
    fn number(&mut self) -> u32 {
        if self.next == lock_page(self.page_size) {
            self.next += 1;
        }
        let number = self.next;
        self.next += 1;
        number
    }

    fn put(&mut self, number: u32, page: &[u8]) -> io::Result<()> {
        let gathered = u32::try_from(self.buffer.len()).unwrap_or(0) / self.page_size;
        if number != self.first + gathered || self.buffer.len() >= CHUNK {
            self.flush()?;
            self.first = number;
        }
        self.buffer.extend_from_slice(page);
        Ok(())
    }
}
