//! The wal-index (`-shm`): a hint, never truth.

use serde::{Deserialize, Serialize};

use super::{MAX_FRAMES, Sum, sum};
use crate::sqlite::bytes::{be16, be32, byte, le16, le32};

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
    let half = |at: usize| if little { le16(bytes, at) } else { be16(bytes, at) };
    if sum(!little, [0, 0], first.get(..40)?) != [word(40), word(44)] || byte(first, 12) == 0 {
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
