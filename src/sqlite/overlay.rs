//! Database ⊕ chosen frames, as one source of pages: what a reader would see after those frames are folded in.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::rollback::Rollback;
use super::wal::{WalScan, image_offset};
use super::{ReadAt, read_vec};

/// A frame that is used though its header, or one word of its image, is damaged: what it must be read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mend {
    /// Frame number.
    pub frame: u32,
    /// Its page number.
    pub page: u32,
    /// Its commit size, 0 inside a transaction.
    pub commit: u32,
    /// Offset in the image and the four bytes that stand there.
    pub word: Option<(u32, [u8; 4])>,
}

impl Mend {
    /// Puts page number and commit size right in a scan.
    pub fn apply(&self, scan: &mut WalScan) {
        let at = self.frame.checked_sub(1).and_then(|i| usize::try_from(i).ok());
        if let Some(frame) = at.and_then(|i| scan.frames.get_mut(i)) {
            (frame.page, frame.commit) = (self.page, self.commit);
        }
    }
}

/// Which frames of a log make a database: every accepted frame up to a commit, the last image of each page winning.
/// Self-contained, so that a plan can carry it; `upto` 0 means the database alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fold {
    /// Page size of the log.
    pub page_size: u32,
    /// Accepted frames as closed ranges, ascending, 1-based.
    pub frames: Vec<(u32, u32)>,
    /// The commit frame that ends the fold; 0: nothing is folded in.
    pub upto: u32,
    /// Database size in pages after that commit; 0: as the database file has it.
    pub pages: u32,
    /// Stored checksum of frame `upto`, so that a log that moved since sensing is noticed.
    pub sum: [u32; 2],
    /// Frames among them that must be put right to be read.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub mends: Vec<Mend>,
}

impl Fold {
    /// The database alone.
    pub fn nothing(page_size: u32) -> Self {
        Self { page_size, frames: Vec::new(), upto: 0, pages: 0, sum: [0, 0], mends: Vec::new() }
    }

    /// Accepted frame numbers up to the commit, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.frames.iter().flat_map(|(a, b)| *a..=*b).take_while(|n| *n <= self.upto)
    }

    /// What a frame must be read as, where that differs from what it says.
    pub fn mend(&self, frame: u32) -> Option<&Mend> {
        self.mends.iter().find(|m| m.frame == frame)
    }

    /// Puts the image of a frame right.
    pub fn put_right(&self, frame: u32, image: &mut [u8]) {
        let Some((at, bytes)) = self.mend(frame).and_then(|m| m.word) else { return };
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        if let Some(word) = image.get_mut(at..at.saturating_add(4)) {
            word.copy_from_slice(&bytes);
        }
    }

    /// The winning frame of each page.
    pub fn images(&self, scan: &WalScan) -> BTreeMap<u32, u32> {
        let page = |n: u32| self.mend(n).map(|m| m.page).or_else(|| scan.frame(n).map(|f| f.page)).map(|p| (p, n));
        self.numbers().filter_map(page).filter(|(p, _)| *p <= self.pages).collect()
    }
}

/// The page that holds the locking bytes at 1 GiB; never written, in a log or in the file (file format 2, section 1.4).
pub fn lock_byte_page(page_size: u32) -> u32 {
    (1 << 30) / page_size.max(1) + 1
}

/// What came of reading a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// All of it.
    Whole,
    /// It lies beyond the end.
    Short,
    /// The device, or whatever stands for it, did not give it; its words.
    Unreadable(String),
}

/// Reads until `buf` is full or the file ends; the bytes read.
fn read_full(file: &dyn ReadAt, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
        match file.read_at(offset + done as u64, rest) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Pages of a database with frames laid over it.
pub struct Overlay<'a> {
    db: Option<&'a dyn ReadAt>,
    wal: Option<&'a dyn ReadAt>,
    images: BTreeMap<u32, u32>,
    /// Images that stand elsewhere in the side file (a rollback journal), by page.
    places: BTreeMap<u32, u64>,
    /// Images that had to be put right, by page.
    mended: BTreeMap<u32, Vec<u8>>,
    /// Page size in bytes.
    pub page_size: u32,
    /// Size of the result in pages; what a commit claims beyond that is in neither file.
    pub pages: u32,
}

impl<'a> Overlay<'a> {
    /// The database alone.
    pub fn alone(db: &'a dyn ReadAt, page_size: u32) -> Self {
        let pages = u32::try_from(db.size().div_ceil(u64::from(page_size.max(1)))).unwrap_or(u32::MAX);
        Self {
            db: Some(db),
            wal: None,
            images: BTreeMap::new(),
            places: BTreeMap::new(),
            mended: BTreeMap::new(),
            page_size,
            pages,
        }
    }

    /// The database with a fold of its log. A missing or empty database file is all zeroes.
    pub fn folded(db: Option<&'a dyn ReadAt>, wal: &'a dyn ReadAt, scan: &WalScan, fold: &Fold) -> Self {
        if fold.upto == 0 {
            let page_size = fold.page_size;
            let pages = db.map_or(0, |d| d.size().div_ceil(u64::from(page_size.max(1))));
            let pages = u32::try_from(pages).unwrap_or(u32::MAX);
            return Self {
                db,
                wal: Some(wal),
                images: BTreeMap::new(),
                places: BTreeMap::new(),
                mended: BTreeMap::new(),
                page_size,
                pages,
            };
        }
        // A log may claim any size and any page number. More pages than both files hold (and the one that neither ever
        // does) cannot be read, and must not be counted or allocated for.
        let images = fold.images(scan);
        let held = db.map_or(0, |d| d.size().div_ceil(u64::from(fold.page_size.max(1))));
        let most = u32::try_from(held.saturating_add(images.len() as u64 + 1)).unwrap_or(u32::MAX);
        let len = usize::try_from(fold.page_size).unwrap_or(0);
        let mut mended = BTreeMap::new();
        for mend in fold.mends.iter().filter(|m| m.word.is_some() && images.get(&m.page) == Some(&m.frame)) {
            // A failed read shows when the page is asked for.
            if let Ok(mut image) = read_vec(wal, image_offset(fold.page_size, mend.frame), len) {
                fold.put_right(mend.frame, &mut image);
                mended.insert(mend.page, image);
            }
        }
        Self {
            db,
            wal: Some(wal),
            images,
            places: BTreeMap::new(),
            mended,
            page_size: fold.page_size,
            pages: fold.pages.min(most),
        }
    }

    /// The highest page that the log holds, 0 when it holds none. It may lie beyond `pages` where pages before it are in
    /// neither file.
    pub fn highest_image(&self) -> u32 {
        self.images.keys().next_back().copied().unwrap_or(0)
    }

    /// Reads `count` pages from `first` on into `run` (at least that many pages long) with one read of the database, and
    /// lays over them what the log holds. Says of each page what came of it. Where the one read fails, that is said of
    /// all its pages; whoever wants to know which it is asks again for each, and may look at the clock in between.
    pub(crate) fn read_run(&self, first: u32, count: u32, run: &mut [u8]) -> Vec<Got> {
        let size = usize::try_from(self.page_size).unwrap_or(usize::MAX);
        let n = usize::try_from(count).unwrap_or(0);
        let offset = u64::from(first.saturating_sub(1)) * u64::from(self.page_size);
        let whole = |read: io::Result<usize>| match read {
            Ok(have) if have == size => Got::Whole,
            Ok(_) => Got::Short,
            Err(e) => Got::Unreadable(e.to_string()),
        };
        let mut got = match (self.db, run.get_mut(..size.saturating_mul(n))) {
            (Some(db), Some(run)) => match read_full(db, offset, run) {
                Ok(have) => (0..n).map(|i| if (i + 1) * size <= have { Got::Whole } else { Got::Short }).collect(),
                Err(e) => vec![Got::Unreadable(e.to_string()); n],
            },
            _ => vec![Got::Short; n],
        };
        let Some(wal) = self.wal else { return got };
        let pages = first..first.saturating_add(count);
        let journal = self.places.range(pages.clone()).map(|(page, offset)| (page, *offset));
        let log = self.images.range(pages).map(|(page, frame)| (page, image_offset(self.page_size, *frame)));
        for (page, offset) in journal.chain(log) {
            let at = usize::try_from(page - first).unwrap_or(usize::MAX);
            let place = run.get_mut(at.saturating_mul(size)..).and_then(|r| r.get_mut(..size));
            let (Some(place), Some(got)) = (place, got.get_mut(at)) else { break };
            *got = match self.mended.get(page) {
                Some(image) if image.len() == size => {
                    place.copy_from_slice(image);
                    Got::Whole
                }
                _ => whole(read_full(wal, offset, place)),
            };
        }
        got
    }

    /// As [`Overlay::read_run`], for copying: pages that are not there stay as `run` had them, and one that cannot be
    /// read is an error.
    pub fn run(&self, first: u32, count: u32, run: &mut [u8]) -> io::Result<()> {
        let got = self.read_run(first, count, run);
        let failed = got.into_iter().find_map(|g| if let Got::Unreadable(why) = g { Some(why) } else { None });
        failed.map_or(Ok(()), |why| Err(io::Error::other(why)))
    }

    /// The database with the pages of a rollback journal put back.
    pub fn rolled_back(db: &'a dyn ReadAt, journal: &'a dyn ReadAt, back: &Rollback) -> Self {
        let mut source = Self::alone(db, back.page_size);
        source.wal = Some(journal);
        source.places = back.images.iter().copied().collect();
        let held = source.pages.max(source.places.keys().next_back().copied().unwrap_or(0));
        source.pages = back.pages.min(held);
        source
    }

    /// Page `number` (1-based), `None` beyond the end or where the file is short.
    pub fn page(&self, number: u32) -> io::Result<Option<Vec<u8>>> {
        if number == 0 || number > self.pages {
            return Ok(None);
        }
        let len = usize::try_from(self.page_size).unwrap_or(0);
        if let Some(image) = self.mended.get(&number) {
            return Ok((image.len() == len).then(|| image.clone()));
        }
        if let (Some(at), Some(side)) = (self.places.get(&number), self.wal) {
            let image = read_vec(side, *at, len)?;
            return Ok((image.len() == len).then_some(image));
        }
        let bytes = match (self.images.get(&number), self.wal, self.db) {
            (Some(frame), Some(wal), _) => read_vec(wal, image_offset(self.page_size, *frame), len)?,
            (_, _, Some(db)) => read_vec(db, u64::from(number - 1) * u64::from(self.page_size), len)?,
            _ => Vec::new(),
        };
        Ok((bytes.len() == len).then_some(bytes))
    }
}
