//! One look at a log and its wal-index: from bytes to [`WalEvidence`] and [`ShmState`]. Reads only; judges nothing.

use std::io;

use serde::{Deserialize, Serialize};

use super::foreign::{self, Origin, PageOne};
use super::header;
use super::overlay::Fold;
use super::resync::{self, Generation};
use super::wal::{self, ShmHint, WalHeader, WalHeaderFault, WalScan};

pub use super::wal::LogTail;
use super::{ReadAt, read_vec};

/// Largest wal-index read: 32 KiB for every 4096 frames, up to the frame limit of the scanner.
const MAX_SHM: u64 = 64 << 20;

/// A log as found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WalEvidence {
    /// No such file.
    Absent,
    /// No frame in it.
    Empty,
    /// Reading failed; the reason.
    Unreadable(String),
    /// A log with frames.
    Present(Box<LogFacts>),
}

/// A log in numbers; frame by frame only where something is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFacts {
    /// The header, or why there is none.
    pub header: Result<WalHeader, WalHeaderFault>,
    /// Page size the frames were cut by.
    pub page_size: u32,
    /// Whole frame slots.
    pub frames: u32,
    /// Frames SQLite would accept.
    pub prefix: u32,
    /// Frames up to the last commit of those.
    pub committed: u32,
    /// Commits among those.
    #[serde(default)]
    pub commits: u32,
    /// Database size in pages after that commit.
    pub commit_pages: u32,
    /// Stored checksum of that commit frame.
    pub commit_sum: [u32; 2],
    /// What follows the valid chain.
    pub tail: LogTail,
    /// Pages up to `commit_pages` that are neither in the log nor in the database file.
    pub missing_pages: u32,
    /// What they say of the database they were made from.
    #[serde(default)]
    pub origin: Origin,
    /// Frames and comparisons, present when the header is damaged or live frames stand behind a break.
    pub trouble: Option<Trouble>,
}

impl LogFacts {
    /// What SQLite would replay: the committed frames of the valid chain.
    pub fn fold(&self) -> Fold {
        if self.committed == 0 {
            return Fold::nothing(self.page_size);
        }
        Fold {
            page_size: self.page_size,
            frames: vec![(1, self.committed)],
            upto: self.committed,
            pages: self.commit_pages,
            sum: self.commit_sum,
            mends: Vec::new(),
        }
    }
}

/// The log frame by frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// All frames.
    pub scan: WalScan,
    /// The generation to look at; `None` when no frame verifies.
    pub generation: Option<Generation>,
}

/// The wal-index as found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShmState {
    /// No such file.
    Absent,
    /// Its two header copies differ or their checksum is wrong: it says nothing.
    Invalid,
    /// Checksum-valid: a hint.
    Valid(ShmHint),
}

/// Observes a log. `db` is the database file where it can be read, `page_size` and `reserved` come from its header.
/// The scan comes along, so that whoever lays the frames over the database does not read the log a second time.
pub fn wal(
    wal: &dyn ReadAt,
    db: Option<&dyn ReadAt>,
    page_size: Option<u32>,
    reserved: u8,
    shm: Option<&ShmHint>,
) -> io::Result<(WalEvidence, WalScan)> {
    let scan = wal::scan(wal, page_size)?;
    if wal.size() == 0 || scan.header.is_ok() && scan.is_empty() && scan.rest == 0 {
        return Ok((WalEvidence::Empty, scan));
    }
    let prefix = scan.prefix();
    let (committed, commit_pages) = scan.last_commit(prefix);
    let live = scan.header.ok().map(|h| h.salt);
    let known = live.map(|salt| resync::verified(&scan, salt)).unwrap_or_default();
    let behind = known.iter().skip(usize::try_from(prefix).unwrap_or(0)).any(|v| *v);
    let trouble =
        if scan.header.is_err() || behind { Some(resync::examine(&scan, wal, db, reserved, shm)?) } else { None };
    let held = db.map_or(0, |d| d.size() / u64::from(scan.page_size.max(1)));
    let mut facts = LogFacts {
        header: scan.header,
        page_size: scan.page_size,
        frames: scan.len(),
        prefix,
        committed,
        commits: commits(&scan, committed),
        commit_pages,
        commit_sum: scan.frame(committed).map_or([0, 0], |f| f.stored),
        tail: scan.tail(prefix, live.unwrap_or_default()),
        missing_pages: missing(&scan, committed, commit_pages, held),
        origin: origin(&scan, committed, wal, db, reserved)?,
        trouble: None,
    };
    facts.trouble = trouble.map(|generation| Trouble { scan: scan.clone(), generation });
    Ok((WalEvidence::Present(Box::new(facts)), scan))
}

fn commits(scan: &WalScan, committed: u32) -> u32 {
    let frames = scan.frames.get(..usize::try_from(committed).unwrap_or(0)).unwrap_or(&[]);
    u32::try_from(frames.iter().filter(|f| f.commit != 0).count()).unwrap_or(u32::MAX)
}

/// The first sector is written as a whole, whatever becomes of the rest of page 1.
const SECTOR: usize = 512;
/// Where the schema's b-tree begins on page 1.
const TREE: usize = 100;

fn origin(
    scan: &WalScan,
    committed: u32,
    wal: &dyn ReadAt,
    db: Option<&dyn ReadAt>,
    reserved: u8,
) -> io::Result<Origin> {
    let mut origin = Origin::default();
    let size = usize::try_from(scan.page_size).unwrap_or(0);
    let page = |number: u32| match db {
        Some(db) => read_vec(db, u64::from(number.saturating_sub(1)) * u64::from(scan.page_size), size),
        None => Ok(Vec::new()),
    };
    let held = page(1)?;
    let usable = scan.page_size.saturating_sub(u32::from(reserved));
    // Sectors of page 1 that no image has, from the schema on.
    let mut strange: Vec<(usize, usize)> = (0..held.len().div_ceil(SECTOR)).map(|i| (i * SECTOR, SECTOR)).collect();
    let root = foreign::sequence_root(&held, usable);
    let (mut seen, mut sequence) = (false, None);
    // The same rows, whatever lies between them: a bit that rotted in unused bytes makes no other database.
    let own_rows = foreign::schema_rows(&held, usable);
    let mut same_rows = false;
    for n in 1..=committed {
        let Some(frame) = scan.frame(n) else { break };
        if frame.page == 1 {
            let image = read_vec(wal, scan.image_offset(n), size)?;
            if !seen {
                origin.first = header::parse(&image).ok().as_ref().map(PageOne::from);
            }
            seen = true;
            origin.held |= image.len() == size && image.get(..SECTOR) == held.get(..SECTOR);
            let part = |bytes: &[u8], at: usize, len: usize| bytes.get(at.max(TREE)..at + len).map(<[u8]>::to_vec);
            strange.retain(|(at, len)| part(&image, *at, *len) != part(&held, *at, *len));
            same_rows |= own_rows.is_some() && foreign::schema_rows(&image, usable) == own_rows;
        }
        if Some(frame.page) == root {
            sequence = Some(n);
            origin.sequence_ahead |= read_vec(wal, scan.image_offset(n), size)? == page(frame.page)?;
        }
        if frame.commit != 0 {
            origin.largest = origin.largest.max(frame.commit);
            if !seen {
                let (least, most) = origin.early;
                let least = if least == 0 { frame.commit } else { least.min(frame.commit) };
                origin.early = (least, most.max(frame.commit));
            }
        }
    }
    origin.other_schema = seen && !strange.is_empty() && !same_rows;
    // A page that some frame has as it is was copied back from here.
    let copied = std::mem::take(&mut origin.sequence_ahead);
    if let (Some(root), Some(n), false) = (root, sequence, copied) {
        let last = foreign::marks(&read_vec(wal, scan.image_offset(n), size)?, root, usable);
        let own = foreign::marks(&page(root)?, root, usable);
        origin.sequence_ahead = own.iter().any(|(name, mark)| last.get(name).is_some_and(|m| m < mark));
    }
    Ok(origin)
}

fn missing(scan: &WalScan, committed: u32, pages: u32, held: u64) -> u32 {
    let first = u32::try_from(held).unwrap_or(u32::MAX).saturating_add(1);
    if committed == 0 || pages < first {
        return 0;
    }
    let mut found = std::collections::BTreeSet::new();
    for frame in scan.frames.iter().take(usize::try_from(committed).unwrap_or(0)) {
        if (first..=pages).contains(&frame.page) {
            found.insert(frame.page);
        }
    }
    let lock = u32::from((first..=pages).contains(&super::overlay::lock_byte_page(scan.page_size)));
    (pages - first + 1 - lock).saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX))
}

/// Reads a wal-index.
pub fn shm(file: &dyn ReadAt) -> io::Result<ShmState> {
    let len = usize::try_from(file.size().min(MAX_SHM)).unwrap_or(0);
    let bytes = read_vec(file, 0, len)?;
    Ok(wal::parse_shm(&bytes).map_or(ShmState::Invalid, ShmState::Valid))
}
