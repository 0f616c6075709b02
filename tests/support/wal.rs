//! An independent reader of the write-ahead log, written from the file format document and not from the crate.
//!
//! It reads the UNDAMAGED log and so knows the truth: which slots are frames of the live chain, which of them end a
//! commit, and what each carries. Damage is then a set of byte ranges, and a frame is *lost* when any byte of its
//! slot (header or page) has changed.

/// One slot of the log.
#[derive(Clone, Debug)]
pub struct Frame {
    pub page: u32,
    /// Database size in pages after the commit; 0 when this frame ends none.
    pub commit: u32,
    pub salts: [u8; 8],
    pub sum: (u32, u32),
    /// Byte offset of the frame header in the file.
    pub at: usize,
}

/// The log as the engine would read it.
#[derive(Clone, Debug)]
pub struct Wal {
    pub page_size: usize,
    pub big_endian: bool,
    pub header_ok: bool,
    pub salts: [u8; 8],
    /// Every slot of the file, live or not.
    pub slots: Vec<Frame>,
    /// Slots verified by the checksum chain from the header.
    pub chain: usize,
    /// Slots up to the last commit of the chain: what the engine replays.
    pub committed: usize,
}

pub const HEADER: usize = 32;
pub const FRAME: usize = 24;

pub fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The checksum of the format: two words at a time, in either byte order.
pub fn sum(big_endian: bool, mut seed: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    assert_eq!(bytes.len() % 8, 0);
    for pair in bytes.chunks_exact(8) {
        let (a, b) = if big_endian {
            (be32(pair, 0), be32(pair, 4))
        } else {
            (be32(pair, 0).swap_bytes(), be32(pair, 4).swap_bytes())
        };
        seed.0 = seed.0.wrapping_add(a).wrapping_add(seed.1);
        seed.1 = seed.1.wrapping_add(b).wrapping_add(seed.0);
    }
    seed
}

impl Wal {
    /// Reads a log; `None` when it has no whole header or one that is not a WAL's.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER {
            return None;
        }
        let magic = be32(bytes, 0);
        let page_size = be32(bytes, 8) as usize;
        if magic & !1 != 0x377f_0682 || !page_size.is_power_of_two() || !(512..=65536).contains(&page_size) {
            return None;
        }
        let big_endian = magic & 1 == 1;
        let mut seed = sum(big_endian, (0, 0), &bytes[..24]);
        let header_ok = seed == (be32(bytes, 24), be32(bytes, 28)) && be32(bytes, 4) == 3_007_000;
        let salts: [u8; 8] = bytes[16..24].try_into().unwrap();
        let mut wal = Self { page_size, big_endian, header_ok, salts, slots: Vec::new(), chain: 0, committed: 0 };
        let mut unbroken = header_ok;
        for slot in 0..(bytes.len() - HEADER) / (FRAME + page_size) {
            let at = HEADER + slot * (FRAME + page_size);
            let frame = Frame {
                page: be32(bytes, at),
                commit: be32(bytes, at + 4),
                salts: bytes[at + 8..at + 16].try_into().unwrap(),
                sum: (be32(bytes, at + 16), be32(bytes, at + 20)),
                at,
            };
            if unbroken {
                let sum_here = sum(big_endian, seed, &bytes[at..at + 8]);
                let sum_here = sum(big_endian, sum_here, &bytes[at + FRAME..at + FRAME + page_size]);
                unbroken = frame.page != 0 && frame.salts == salts && sum_here == frame.sum;
                if unbroken {
                    seed = sum_here;
                    wal.chain = slot + 1;
                    if frame.commit != 0 {
                        wal.committed = slot + 1;
                    }
                }
            }
            wal.slots.push(frame);
        }
        Some(wal)
    }

    pub fn slot_len(&self) -> usize {
        FRAME + self.page_size
    }

    /// The frames the engine would replay.
    pub fn live(&self) -> &[Frame] {
        &self.slots[..self.committed]
    }

    pub fn image<'a>(&self, bytes: &'a [u8], frame: &Frame) -> &'a [u8] {
        &bytes[frame.at + FRAME..frame.at + FRAME + self.page_size]
    }

    /// Which live frames differ between the undamaged and the damaged file.
    pub fn lost(&self, whole: &[u8], damaged: &[u8]) -> Vec<bool> {
        let n = self.slot_len();
        self.live().iter().map(|f| damaged.get(f.at..f.at + n) != Some(&whole[f.at..f.at + n])).collect()
    }

    /// True when every lost frame's page has a later surviving image and the last commit's own frame survives.
    pub fn superseded(&self, lost: &[bool]) -> bool {
        let live = self.live();
        if lost.last() == Some(&true) {
            return false;
        }
        (0..live.len()).all(|i| !lost[i] || (i + 1..live.len()).any(|j| !lost[j] && live[j].page == live[i].page))
    }

    /// The fold of the database and every live frame that is not lost, up to the last surviving commit.
    /// With nothing lost this is exactly what a checkpoint by the engine writes.
    pub fn fold(&self, db: &[u8], wal: &[u8], lost: &[bool]) -> Vec<u8> {
        let mut out = db.to_vec();
        let Some(last) = (0..self.committed).rev().find(|&i| !lost[i] && self.slots[i].commit != 0) else {
            return out;
        };
        for (frame, lost) in self.slots.iter().zip(lost).take(last + 1) {
            if !lost {
                let at = (frame.page as usize - 1) * self.page_size;
                if out.len() < at + self.page_size {
                    out.resize(at + self.page_size, 0);
                }
                out[at..at + self.page_size].copy_from_slice(self.image(wal, frame));
            }
        }
        out.resize(self.slots[last].commit as usize * self.page_size, 0);
        out
    }
}

/// Rewrites the chain of sums in place, in either byte order: header and the first `frames` slots.
pub fn rechecksum(bytes: &mut [u8], big_endian: bool, frames: usize) {
    let page_size = be32(bytes, 8) as usize;
    bytes[0..4].copy_from_slice(&(0x377f_0682 | u32::from(big_endian)).to_be_bytes());
    let mut seed = sum(big_endian, (0, 0), &bytes[..24]);
    put(bytes, 24, seed);
    for slot in 0..frames {
        let at = HEADER + slot * (FRAME + page_size);
        seed = sum(big_endian, seed, &bytes[at..at + 8]);
        seed = sum(big_endian, seed, &bytes[at + FRAME..at + FRAME + page_size]);
        put(bytes, at + 16, seed);
    }
}

fn put(bytes: &mut [u8], at: usize, sum: (u32, u32)) {
    bytes[at..at + 4].copy_from_slice(&sum.0.to_be_bytes());
    bytes[at + 4..at + 8].copy_from_slice(&sum.1.to_be_bytes());
}

/// Pages of the WAL that the index file says are already in the database (`nBackfill`); 0 without an index.
pub fn backfilled(shm: Option<&[u8]>) -> usize {
    shm.filter(|s| s.len() >= 100).map_or(0, |s| u32::from_ne_bytes(s[96..100].try_into().unwrap()) as usize)
}

/// The page number that the index file keeps for a frame (0-based slot): it survives the loss of the frame's header.
pub fn indexed_page(shm: &[u8], slot: usize) -> Option<u32> {
    const FIRST: usize = 4096 - 136 / 4;
    let at = match slot.checked_sub(FIRST) {
        None => 136 + 4 * slot,
        Some(rest) => 32768 * (1 + rest / 4096) + 4 * (rest % 4096),
    };
    shm.get(at..at + 4).map(|b| u32::from_ne_bytes(b.try_into().unwrap()))
}
