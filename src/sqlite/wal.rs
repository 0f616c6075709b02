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

use super::bytes::{be32, le32};
use super::header::valid_page_size;
use super::{ReadAt, read_vec};

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

    /// The last commit frame at or before `end`, and the database size it names; (0, 0) when there is none.
    pub fn last_commit(&self, end: u32) -> (u32, u32) {
        let upto = self.frames.get(..usize::try_from(end).unwrap_or(0)).unwrap_or(&[]);
        match upto.iter().rposition(|f| f.commit != 0) {
            Some(i) => (u32::try_from(i + 1).unwrap_or(0), upto.get(i).map_or(0, |f| f.commit)),
            None => (0, 0),
        }
    }
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
        Ok(header) => scan_frames(file, Ok(header), header.page_size, header.big_endian, header.sum),
        Err(fault) => {
            let (page_size, big_endian) = guess_geometry(file, page_size_hint)?;
            // The header's stored checksum may have survived the damage to the rest: then frame 1 still links. If not,
            // frame 1 itself tells what it must have been.
            let slot = usize::try_from(page_size).unwrap_or(0) + 24;
            let first = read_vec(file, HEADER, slot)?;
            let stored = [be32(&head, 24), be32(&head, 28)];
            let seed = proved_seed(page_size, big_endian, &first).unwrap_or(stored);
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

/// Page size and byte order by trial: the pair under which a frame links to its predecessor earliest in the file. A
/// single link is 64 bits of proof; the earliest belongs to the newest generation, whatever stands behind it.
fn guess_geometry(file: &dyn ReadAt, hint: Option<u32>) -> io::Result<(u32, bool)> {
    let sample = read_vec(file, 0, 1 << 20)?;
    let fallback = hint.filter(|s| valid_page_size(*s)).unwrap_or(4096);
    let mut best = (usize::MAX, (fallback, false));
    let mut sizes = vec![fallback];
    sizes.extend((9..=16).map(|bits| 1_u32 << bits).filter(|s| *s != fallback));
    for page_size in sizes {
        for big_endian in [false, true] {
            if let Some(at) = first_link(&sample, page_size, big_endian).filter(|at| *at < best.0) {
                best = (at, (page_size, big_endian));
            }
        }
    }
    Ok(best.1)
}

/// The header's checksum, proved by frame 1: the sum is run backwards through the frame, and what comes out must be the
/// sum of a header with this geometry and the frame's salts, whatever its checkpoint number. 64 bits are given and 32
/// are free, so a frame that is not the first, or not whole, passes once in about four thousand million.
fn proved_seed(page_size: u32, big_endian: bool, first: &[u8]) -> Option<Sum> {
    let seed = unsum(big_endian, [be32(first, 16), be32(first, 20)], first.get(24..)?);
    let seed = unsum(big_endian, seed, first.get(..8)?);
    let mut header = Vec::with_capacity(32);
    for word in [0x377f_0682 | u32::from(big_endian), 3_007_000, page_size, 0] {
        header.extend_from_slice(&word.to_be_bytes());
    }
    header.extend_from_slice(first.get(8..16)?);
    let rest = sum(big_endian, [0, 0], header.get(..24)?);
    if rest == seed {
        return Some(seed);
    }
    // The checkpoint number is word 3 of 6: one step of the recurrence stands behind its pair.
    let coefficient = step([0, 1]);
    solve(coefficient, [seed[0].wrapping_sub(rest[0]), seed[1].wrapping_sub(rest[1])]).map(|_| seed)
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

/// Offset of the first frame that links to its predecessor (or to a header that it proves).
fn first_link(sample: &[u8], page_size: u32, big_endian: bool) -> Option<usize> {
    let slot = 24 + usize::try_from(page_size).ok()?;
    let body = sample.get(32..)?;
    let mut previous: Option<Sum> = None;
    for (i, raw) in body.chunks_exact(slot).enumerate() {
        let stored = [be32(raw, 16), be32(raw, 20)];
        let believable = be32(raw, 0) != 0 && stored != [0, 0];
        let linked = match previous {
            Some(seed) => frame_sum(big_endian, seed, raw) == stored,
            None => proved_seed(page_size, big_endian, raw).is_some(),
        };
        if believable && linked {
            return Some(i * slot);
        }
        previous = Some(stored);
    }
    None
}

/// A word that alone explains why a frame does not link: its index among the summed words and what to add to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WordFix {
    /// Index among the summed 32-bit words: 0 page number, 1 commit size, then the image.
    pub word: u32,
    /// Added (modulo 2^32) to the word as found.
    pub delta: u32,
}

/// Solves for single damaged words. The sum is linear: a change `d` of word `i` moves the result by `(a·d, b·d)` where
/// `a` and `b` are neighbouring Fibonacci numbers, one of which is always odd and so invertible modulo 2^32. A solution
/// for 64 bits of difference out of 32 bits of freedom is chance once in about 2^22 frames, so it proves that the frame
/// continues its predecessor; *which* word it was is less certain (several fit when only high bits changed).
pub fn single_word_fixes(big_endian: bool, seed: Sum, frame: &[u8]) -> Vec<WordFix> {
    let computed = frame_sum(big_endian, seed, frame);
    let target = [be32(frame, 16), be32(frame, 20)];
    let diff = [target[0].wrapping_sub(computed[0]), target[1].wrapping_sub(computed[1])];
    let words = (frame.len().saturating_sub(24) + 8) / 4;
    let mut fixes = Vec::new();
    // Coefficients of the last pair of words are (x0: 1, 1) and (x1: 0, 1); each earlier pair goes through one more
    // step (s0, s1) -> (s0 + s1, s0 + 2·s1).
    let (mut even, mut odd) = ([1_u32, 1_u32], [0_u32, 1_u32]);
    for pair in (0..words / 2).rev() {
        for (word, coefficient) in [(2 * pair, even), (2 * pair + 1, odd)] {
            if let Some(delta) = solve(coefficient, diff) {
                fixes.push(WordFix { word: u32::try_from(word).unwrap_or(u32::MAX), delta });
            }
        }
        even = step(even);
        odd = step(odd);
    }
    fixes
}

fn step([s0, s1]: Sum) -> Sum {
    let n0 = s0.wrapping_add(s1);
    [n0, s1.wrapping_add(n0)]
}

fn solve([a, b]: Sum, [d0, d1]: Sum) -> Option<u32> {
    let delta = if a & 1 == 1 { inverse(a).wrapping_mul(d0) } else { inverse(b).wrapping_mul(d1) };
    (delta != 0 && a.wrapping_mul(delta) == d0 && b.wrapping_mul(delta) == d1).then_some(delta)
}

/// Inverse of an odd number modulo 2^32 (Newton: each round doubles the right bits).
fn inverse(odd: u32) -> u32 {
    let mut x = odd;
    for _ in 0..5 {
        x = x.wrapping_mul(2_u32.wrapping_sub(odd.wrapping_mul(x)));
    }
    x
}

/// The header of the wal-index (`-shm`), a hint and never truth: it is not synced, so after a power cut it may be old.
///
/// Layout (wal.c, "WAL-index format"): two copies of 48 bytes, in the byte order of the machine that wrote it, then at
/// 96 the checkpoint record; page numbers of the frames from byte 136 (4062 in the first 32 KiB block, 4096 in others).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShmHint {
    /// Page size in bytes.
    pub page_size: u32,
    /// Frames committed when it was written: a least value.
    pub max_frame: u32,
    /// Database size in pages after that commit.
    pub pages: u32,
    /// Running checksum of frame `max_frame`.
    pub sum: Sum,
    /// Salts of the generation it belongs to.
    pub salt: [u32; 2],
    /// Frames known to be copied back into the database.
    pub backfilled: u32,
    /// Frames a checkpoint has tried to copy back.
    pub backfill_attempted: u32,
    /// Page number of each frame, as far as the file holds them.
    pub frame_pages: Vec<u32>,
}

/// Parses a `-shm` file; `None` when its two header copies differ or their checksum is wrong.
pub fn parse_shm(bytes: &[u8]) -> Option<ShmHint> {
    let (first, second) = (bytes.get(..48)?, bytes.get(48..96)?);
    if first != second {
        return None;
    }
    let little = le32(first, 0) == 3_007_000;
    if !little && be32(first, 0) != 3_007_000 {
        return None;
    }
    let word = |at: usize| if little { le32(bytes, at) } else { be32(bytes, at) };
    let half = |at: usize| if little { super::bytes::le16(bytes, at) } else { super::bytes::be16(bytes, at) };
    if sum(!little, [0, 0], first.get(..40)?) != [word(40), word(44)] || super::bytes::byte(first, 12) == 0 {
        return None;
    }
    let raw_size = u32::from(half(14));
    let page_size = if raw_size == 1 { 65536 } else { raw_size };
    let max_frame = word(16);
    let mut frame_pages = Vec::new();
    let wanted = usize::try_from(u64::from(max_frame).min(MAX_FRAMES)).unwrap_or(0);
    for (block, raw) in bytes.chunks(32768).enumerate() {
        let (start, count) = if block == 0 { (136, 4062) } else { (0, 4096) };
        for i in 0..count {
            let at = start + 4 * i;
            if frame_pages.len() >= wanted || raw.len() < at + 4 {
                break;
            }
            frame_pages.push(if little { le32(raw, at) } else { be32(raw, at) });
        }
    }
    Some(ShmHint {
        page_size,
        max_frame,
        pages: word(20),
        sum: [word(24), word(28)],
        // The salts are copied from the log as bytes, so they are big-endian whatever the machine is.
        salt: [be32(bytes, 32), be32(bytes, 36)],
        backfilled: word(96),
        backfill_attempted: word(128),
        frame_pages,
    })
}
