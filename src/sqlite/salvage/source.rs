//! Where page images come from: the newest committed image of a log wins over the database file; for a page that is
//! bad in both there may be a donor in the leftovers of the log.
//!
//! Reading never fails: a sector that the card no longer gives is a damaged page like any other, and is counted.

use std::collections::BTreeMap;

use crate::sqlite::{ReadAt, read_vec};

/// Bytes read at once when pages are asked for in order.
const WINDOW: usize = 256 << 10;

/// Pages behind the end of the file that are looked for, for each image that a log holds.
const REACH: u32 = 64;

/// Images of pages by number: offsets in one side file.
pub type Images = BTreeMap<u32, u64>;

/// A source of pages in bounded memory.
pub struct Source<'a> {
    db: Option<&'a dyn ReadAt>,
    side: Option<&'a dyn ReadAt>,
    images: Images,
    donors: Images,
    older: Images,
    page_size: usize,
    /// Size in pages.
    pub pages: u32,
    /// Page size minus reserved bytes.
    pub usable: u32,
    /// Pages that the storage would not give.
    pub unreadable: u32,
    /// Pages taken from the generation before.
    adopted: std::collections::BTreeSet<u32>,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Source<'a> {
    /// The database with the images of one side file (log or rollback journal) laid over it. `pages` 0: as many as
    /// the file holds. `donors` are images of the generation before, asked for by name only.
    pub fn new(
        db: Option<&'a dyn ReadAt>,
        side: Option<&'a dyn ReadAt>,
        (images, donors): (Images, Images),
        (page_size, reserved): (u32, u8),
        pages: u32,
    ) -> Self {
        let in_file = db.map_or(0, |d| d.size().div_ceil(u64::from(page_size.max(1))));
        let in_file = u32::try_from(in_file).unwrap_or(u32::MAX - 1);
        // A log may claim four thousand million pages. Behind the end of the file every page has an image in a log that is
        // whole; one that lost most of its frames still reaches this far.
        let images_reach = u32::try_from(images.len()).unwrap_or(u32::MAX).saturating_mul(REACH);
        let limit = in_file.saturating_add(images_reach);
        let there = in_file.max(images.range(..=limit).next_back().map_or(0, |(last, _)| *last));
        let pages = if pages == 0 { in_file } else { pages.min(there) };
        Self {
            db,
            side,
            images,
            donors,
            older: Images::new(),
            page_size: usize::try_from(page_size).unwrap_or(4096),
            pages,
            usable: page_size.saturating_sub(u32::from(reserved)),
            unreadable: 0,
            adopted: std::collections::BTreeSet::new(),
            window: Vec::new(),
            window_at: 0,
        }
    }

    /// Page size in bytes.
    pub fn page_size(&self) -> u32 {
        u32::try_from(self.page_size).unwrap_or(0)
    }

    /// Puts page `number` into `into`; false beyond the end and where the storage fails. A page that the end of the
    /// file cuts off is filled up with zeroes: its cells lie at its end, but its header is at its beginning.
    pub fn read(&mut self, number: u32, into: &mut Vec<u8>) -> bool {
        into.clear();
        if number == 0 || number > self.pages {
            return false;
        }
        if let (Some(at), Some(side)) = (self.images.get(&number), self.side) {
            return self.exactly(side, *at, into);
        }
        let Some(db) = self.db else { return false };
        let at = u64::from(number - 1) * self.page_size as u64;
        if let Some(bytes) = self.windowed(db, at) {
            into.extend_from_slice(bytes);
            return true;
        }
        self.exactly(db, at, into)
    }

    /// True when the end of the file cuts a page off, so that its end is not what was written.
    pub fn is_cut(&self, number: u32) -> bool {
        let end = u64::from(number) * self.page_size as u64;
        !self.images.contains_key(&number) && self.db.is_some_and(|d| d.size() < end)
    }

    /// The donor image of a page, if there is one.
    pub fn donor(&mut self, number: u32, into: &mut Vec<u8>) -> bool {
        into.clear();
        match (self.donors.get(&number), self.side) {
            (Some(at), Some(side)) => self.exactly(side, *at, into),
            _ => false,
        }
    }

    /// From now on a page is what its donor says.
    pub fn adopt(&mut self, number: u32) {
        if let Some(at) = self.donors.remove(&number) {
            self.images.insert(number, at);
            self.adopted.insert(number);
        }
    }

    /// Pages taken from the generation before.
    pub fn adopted(&self) -> &std::collections::BTreeSet<u32> {
        &self.adopted
    }

    /// Pages that have a donor.
    pub fn donors(&self) -> impl Iterator<Item = u32> + '_ {
        self.donors.keys().copied()
    }

    /// Nothing proves the donors: they are older states from now on.
    pub fn distrust(&mut self) {
        let donors = std::mem::take(&mut self.donors);
        self.hold(donors);
    }

    /// Images that are older states.
    pub fn hold(&mut self, older: Images) {
        self.older.extend(older);
    }

    /// Pages that have an older state.
    pub fn older_pages(&self) -> Vec<u32> {
        self.older.keys().copied().collect()
    }

    /// The older state of a page.
    pub fn older(&mut self, number: u32, into: &mut Vec<u8>) -> bool {
        into.clear();
        match (self.older.get(&number), self.side) {
            (Some(at), Some(side)) => self.exactly(side, *at, into),
            _ => false,
        }
    }

    fn exactly(&mut self, file: &dyn ReadAt, at: u64, into: &mut Vec<u8>) -> bool {
        match read_vec(file, at, self.page_size) {
            Ok(bytes) if bytes.is_empty() => false,
            Ok(bytes) => {
                into.extend_from_slice(&bytes);
                into.resize(self.page_size, 0);
                true
            }
            Err(_) => {
                self.unreadable = self.unreadable.saturating_add(1);
                false
            }
        }
    }

    /// The page out of a larger read, when it is in the window or directly behind it. `None`: read it alone.
    fn windowed(&mut self, db: &dyn ReadAt, at: u64) -> Option<&[u8]> {
        let end = self.window_at + self.window.len() as u64;
        let inside = |from: u64, len: usize| at >= from && at + self.page_size as u64 <= from + len as u64;
        if !inside(self.window_at, self.window.len()) {
            // Index pages lie between the leaves of a table: a short jump forward is still reading in order.
            let forward = at >= end && at - end <= WINDOW as u64;
            if !forward && at != 0 {
                self.window_at = at;
                self.window.clear();
                self.window.extend_from_slice(&read_vec(db, at, self.page_size).ok()?);
            } else {
                self.window_at = at;
                self.window.clear();
                self.window.extend_from_slice(&read_vec(db, at, WINDOW).ok()?);
            }
        }
        let from = usize::try_from(at - self.window_at).ok()?;
        self.window.get(from..from + self.page_size)
    }
}
