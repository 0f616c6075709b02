//! One look at a log and its wal-index: from bytes to [`WalEvidence`] and [`ShmState`]. Reads only; judges nothing.

use std::io;

use serde::{Deserialize, Serialize};

use super::resync::{self, Generation};
use super::wal::{self, ShmHint, WalHeader, WalHeaderFault, WalScan};
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

/// What stands behind the valid chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogTail {
    /// The file ends, or frames of older generations follow.
    Clean,
    /// A frame or part of one that does not continue the chain.
    Torn,
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
    /// Database size in pages after that commit.
    pub commit_pages: u32,
    /// Stored checksum of that commit frame.
    pub commit_sum: [u32; 2],
    /// What follows the valid chain.
    pub tail: LogTail,
    /// Pages up to `commit_pages` that are neither in the log nor in the database file.
    pub missing_pages: u32,
    /// Frames and comparisons, present when the header is damaged or live frames stand behind a break.
    pub trouble: Option<Trouble>,
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
    if scan.is_empty() {
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
        commit_pages,
        commit_sum: scan.frame(committed).map_or([0, 0], |f| f.stored),
        tail: tail(&scan, prefix, live),
        missing_pages: missing(&scan, committed, commit_pages, held),
        trouble: None,
    };
    facts.trouble = trouble.map(|generation| Trouble { scan: scan.clone(), generation });
    Ok((WalEvidence::Present(Box::new(facts)), scan))
}

fn tail(scan: &WalScan, prefix: u32, live: Option<[u32; 2]>) -> LogTail {
    match scan.frame(prefix + 1) {
        None if scan.rest == 0 => LogTail::Clean,
        None => LogTail::Torn,
        // A frame of an older generation is how every log ends that was reset before; zeroes and live salts are not.
        Some(f) if Some(f.salt) != live && f.salt != [0, 0] => LogTail::Clean,
        Some(_) => LogTail::Torn,
    }
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
