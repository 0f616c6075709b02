//! The write-ahead log (file format 2, section 4): header, frames, and the chain of checksums over them.
//!
//! ```text
//! header (32 bytes)                          frame (24 bytes + page)
//!  0 magic 0x377f0682 (LE sums) or 83 (BE)    0 page number
//!  4 version 3007000                          4 database size in pages on a commit frame, else 0
//!  8 page size                                8 salt-1, salt-2: copies of the header's
//! 12 checkpoint sequence                     16 checksum-1, checksum-2: cumulative, up to this frame
//! 16 salt-1, salt-2                          24 the page image
//! 24 checksum-1, checksum-2 of bytes 0..24
//! ```
//!
//! The sum of a frame runs over the first 8 bytes of its header and the page image, continuing from the frame before.
//! The salts are *not* in the sum. SQLite stops for good at the first frame that does not continue the chain. But every
//! frame stores the running value, so a frame can be verified from the *stored* value of its predecessor whatever
//! happened before it: a hole costs itself and at most the one frame behind it.

use std::io;

use serde::{Deserialize, Serialize};

mod fix;
mod geometry;
mod shm;

use super::bytes::be32;
use super::header::valid_page_size;
use super::{ReadAt, read_vec};

pub use fix::{WordFix, single_word_fixes};
pub use shm::{ShmHint, parse_shm};

/// Length of the WAL header.
pub const HEADER: u64 = 32;
/// Length of a frame header.
pub const FRAME_HEADER: u64 = 24;
/// Frames read at most; beyond it (16 GiB of 4 KiB pages) the log is reported unreadable rather than exhausting memory.
pub const MAX_FRAMES: u64 = 4 << 20;

/// Running checksum: two 32-bit words.
pub type Sum = [u32; 2];

/// A valid WAL header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalHeader {
    /// True when the sums read the data as big-endian words.
    pub big_endian: bool,
    /// Page size in bytes.
    pub page_size: u32,
    /// Checkpoint sequence number.
    pub checkpoint_seq: u32,
    /// Salts of the live generation.
    pub salt: [u32; 2],
    /// Checksum of the header; the seed of frame 1.
    pub sum: Sum,
}

/// Why the header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WalHeaderFault {
    /// Fewer than 32 bytes.
    Short,
    /// Magic, page size or checksum is wrong: SQLite silently ignores the whole log.
    Damaged,
    /// Checksum right, version unknown: SQLite refuses to open the database.
    Version(u32),
    /// A whole header, but of an older generation than the first frame, which proves its own: a reset whose header
    /// write was lost. SQLite finds no frame that fits and ignores the log.
    Outdated,
}

/// One frame as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Page number, 0 is impossible in a written frame.
    pub page: u32,
    /// Database size in pages after the commit; 0 on a frame inside a transaction.
    pub commit: u32,
    /// Salts of the generation that wrote it.
    pub salt: [u32; 2],
    /// The stored running checksum.
    pub stored: Sum,
    /// True when the checksum computed from the predecessor's stored value (the header's for frame 1) equals `stored`.
    pub linked: bool,
}

/// A log, scanned once from front to back. Frame numbers are 1-based, as in SQLite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalScan {
    /// The header, or why there is none.
    pub header: Result<WalHeader, WalHeaderFault>,
    /// Page size the frames were cut by (from the header, or found by trial).
    pub page_size: u32,
    /// Byte order of the sums (from the header, or found by trial).
    pub big_endian: bool,
    /// Every whole frame slot in the file.
    pub frames: Vec<Frame>,
    /// Bytes behind the last whole frame slot.
    pub rest: u64,
}

impl WalScan {
    /// Frame `n` (1-based).
    pub fn frame(&self, n: u32) -> Option<&Frame> {
        self.frames.get(usize::try_from(n.checked_sub(1)?).ok()?)
    }

    /// Number of frame slots.
    pub fn len(&self) -> u32 {
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    /// True when the log holds no frame.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Offset of the page image of frame `n`.
    pub fn image_offset(&self, n: u32) -> u64 {
        image_offset(self.page_size, n)
    }

    /// Length of the chain that SQLite itself would accept: the salts of the header, every link intact.
    pub fn prefix(&self) -> u32 {
        let Ok(header) = &self.header else { return 0 };
        let ok = |f: &&Frame| f.linked && f.salt == header.salt && f.page != 0;
        u32::try_from(self.frames.iter().take_while(ok).count()).unwrap_or(u32::MAX)
    }

    /// What stands behind frame `n` of the generation with these salts: the first thing that is no leftover decides.
    pub fn tail(&self, n: u32, salt: [u32; 2]) -> LogTail {
        let behind = self.frames.get(usize::try_from(n).unwrap_or(usize::MAX)..).unwrap_or(&[]);
        let mut before: Option<&Frame> = None;
        for (i, f) in behind.iter().enumerate() {
            if f.salt == salt || f.salt == [0, 0] {
                return LogTail::Torn;
            }
            // After the loss of a header the salts start anew at random; frames then prove each other.
            let proved = |f: &Frame, next: Option<&Frame>| next.is_some_and(|g| g.linked && g.salt == f.salt);
            let linked = f.linked && before.is_some_and(|b| b.salt == f.salt);
            if !(precedes(f.salt, salt) || linked || proved(f, behind.get(i + 1))) {
                return LogTail::Noise;
            }
            before = Some(f);
        }
        if self.rest == 0 { LogTail::Clean } else { LogTail::Torn }
    }

    /// The last of the frames behind `n` that continue its chain without ending a commit.
    pub fn unfinished(&self, n: u32, salt: [u32; 2]) -> u32 {
        let open = |m: &u32| self.frame(*m).is_some_and(|f| f.linked && f.salt == salt && f.page != 0 && f.commit == 0);
        (n.saturating_add(1)..=self.len()).take_while(open).last().unwrap_or(n)
    }

    /// The last commit frame at or before `end`, and the database size it names; (0, 0) when there is none.
    pub fn last_commit(&self, end: u32) -> (u32, u32) {
        let upto = self.frames.get(..usize::try_from(end).unwrap_or(0)).unwrap_or(&[]);
        match upto.iter().rposition(|f| f.commit != 0) {
            Some(i) => (u32::try_from(i + 1).unwrap_or(0), upto.get(i).map_or(0, |f| f.commit)),
            None => (0, 0),
        }
    }
}

/// What stands behind the last frame that is accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogTail {
    /// The file ends there, or a frame of an older generation follows: nothing was ever written behind it.
    Clean,
    /// A frame of the live generation, part of a frame, or zeroes: a write that did not arrive in full.
    Torn,
    /// Something that no generation of this log has written. It may have been a commit.
    Noise,
}

/// True when `older` can be the salts of a generation before `live`: each reset adds one to the first word.
pub fn precedes(older: [u32; 2], live: [u32; 2]) -> bool {
    (1..=1 << 16).contains(&live[0].wrapping_sub(older[0]))
}

/// Offset of the page image of frame `n` in a log of this page size.
pub fn image_offset(page_size: u32, n: u32) -> u64 {
    HEADER + u64::from(n.saturating_sub(1)) * (FRAME_HEADER + u64::from(page_size)) + FRAME_HEADER
}

/// Continues a checksum over `data` (a multiple of 8 bytes; a ragged end is ignored, the format has none).
pub fn sum(big_endian: bool, seed: Sum, data: &[u8]) -> Sum {
    let [mut s0, mut s1] = seed;
    let word: fn([u8; 4]) -> u32 = if big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
    for pair in data.chunks_exact(8) {
        if let [a, b, c, d, e, f, g, h] = *pair {
            s0 = s0.wrapping_add(word([a, b, c, d])).wrapping_add(s1);
            s1 = s1.wrapping_add(word([e, f, g, h])).wrapping_add(s0);
        }
    }
    [s0, s1]
}

/// The sum of one frame (its 24-byte header and image in `frame`) continuing from `seed`.
pub fn frame_sum(big_endian: bool, seed: Sum, frame: &[u8]) -> Sum {
    let head = frame.get(..8).unwrap_or(&[]);
    let image = frame.get(24..).unwrap_or(&[]);
    sum(big_endian, sum(big_endian, seed, head), image)
}

/// Parses and verifies the 32-byte header.
pub fn parse_header(bytes: &[u8]) -> Result<WalHeader, WalHeaderFault> {
    if bytes.len() < 32 {
        return Err(WalHeaderFault::Short);
    }
    let magic = be32(bytes, 0);
    let page_size = be32(bytes, 8);
    if magic & !1 != 0x377f_0682 || !valid_page_size(page_size) {
        return Err(WalHeaderFault::Damaged);
    }
    let big_endian = magic & 1 == 1;
    let stored = [be32(bytes, 24), be32(bytes, 28)];
    if sum(big_endian, [0, 0], bytes.get(..24).unwrap_or(&[])) != stored {
        return Err(WalHeaderFault::Damaged);
    }
    let version = be32(bytes, 4);
    if version != 3_007_000 {
        return Err(WalHeaderFault::Version(version));
    }
    Ok(WalHeader {
        big_endian,
        page_size,
        checkpoint_seq: be32(bytes, 12),
        salt: [be32(bytes, 16), be32(bytes, 20)],
        sum: stored,
    })
}

/// Scans a log. `page_size_hint` is the database header's page size, tried first when the log's own header is gone.
pub fn scan(file: &dyn ReadAt, page_size_hint: Option<u32>) -> io::Result<WalScan> {
    let head = read_vec(file, 0, 32)?;
    match parse_header(&head) {
        Ok(header) => {
            let first = read_vec(file, HEADER, usize::try_from(header.page_size).unwrap_or(0) + 24)?;
            let salt = [be32(&first, 8), be32(&first, 12)];
            let newer = precedes(header.salt, salt);
            match geometry::proved_seed(header.page_size, header.big_endian, &first).filter(|_| newer) {
                Some(seed) => {
                    let fault = Err(WalHeaderFault::Outdated);
                    scan_frames(file, fault, header.page_size, header.big_endian, seed)
                }
                None => scan_frames(file, Ok(header), header.page_size, header.big_endian, header.sum),
            }
        }
        Err(fault) => {
            let (page_size, big_endian) = geometry::guess(file, page_size_hint)?;
            // The header's stored checksum may have survived the damage to the rest: then frame 1 still links. If not,
            // frame 1 itself tells what it must have been.
            let slot = usize::try_from(page_size).unwrap_or(0) + 24;
            let first = read_vec(file, HEADER, slot)?;
            let stored = [be32(&head, 24), be32(&head, 28)];
            let seed = geometry::proved_seed(page_size, big_endian, &first).unwrap_or(stored);
            scan_frames(file, Err(fault), page_size, big_endian, seed)
        }
    }
}

fn scan_frames(
    file: &dyn ReadAt,
    header: Result<WalHeader, WalHeaderFault>,
    page_size: u32,
    big_endian: bool,
    seed: Sum,
) -> io::Result<WalScan> {
    let slot = FRAME_HEADER + u64::from(page_size);
    let body = file.size().saturating_sub(HEADER);
    let count = body / slot;
    if count > MAX_FRAMES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{count} frames, more than {MAX_FRAMES}")));
    }
    let mut frames = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    let mut previous = seed;
    let per_read = (1_u64 << 20).div_ceil(slot);
    let slot_len = usize::try_from(slot).unwrap_or(usize::MAX);
    let mut next = 0;
    'reading: while next < count {
        let n = per_read.min(count - next);
        let chunk = read_vec(file, HEADER + next * slot, slot_len.saturating_mul(usize::try_from(n).unwrap_or(0)))?;
        for raw in chunk.chunks_exact(slot_len) {
            let stored = [be32(raw, 16), be32(raw, 20)];
            let linked = frame_sum(big_endian, previous, raw) == stored;
            frames.push(Frame {
                page: be32(raw, 0),
                commit: be32(raw, 4),
                salt: [be32(raw, 8), be32(raw, 12)],
                stored,
                linked,
            });
            previous = stored;
        }
        if chunk.len() < slot_len {
            break 'reading;
        }
        next += n;
    }
    Ok(WalScan { header, page_size, big_endian, frames, rest: body % slot })
}

/// The inverse of [`sum`]: the seed from which `data` gives `result`.
pub fn unsum(big_endian: bool, result: Sum, data: &[u8]) -> Sum {
    let [mut s0, mut s1] = result;
    let word: fn([u8; 4]) -> u32 = if big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
    for pair in data.chunks_exact(8).rev() {
        if let [a, b, c, d, e, f, g, h] = *pair {
            s1 = s1.wrapping_sub(word([e, f, g, h])).wrapping_sub(s0);
            s0 = s0.wrapping_sub(word([a, b, c, d])).wrapping_sub(s1);
        }
    }
    [s0, s1]
}
