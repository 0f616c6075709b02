//! The true sequence of committed states of a database, recorded beside the writer, commit by commit, with the
//! independent reader of [`super::wal`]. A state is one digest over every page up to its size.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::crash::{Files, side};
use super::wal::{FRAME, HEADER, Wal, be32, sum};

/// Digest of one page image.
pub fn image(number: u32, bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (number, bytes).hash(&mut hasher);
    hasher.finish()
}

/// Digest of a state from the digests of its pages. Sums, so that a commit costs only the pages it wrote.
pub fn state(pages: &BTreeMap<u32, u64>, size: u32) -> u64 {
    pages.range(..=size).fold(u64::from(size).wrapping_mul(0x9e37_79b9_7f4a_7c15), |sum, (_, h)| sum.wrapping_add(*h))
}

/// The pages of a database file.
pub fn pages(db: &[u8], page_size: usize) -> BTreeMap<u32, u64> {
    db.chunks_exact(page_size).zip(1..).map(|(bytes, n)| (n, image(n, bytes))).collect()
}

/// Watches a writer.
pub struct Recorder {
    page_size: usize,
    pages: BTreeMap<u32, u64>,
    salts: [u8; 8],
    big_endian: bool,
    seed: (u32, u32),
    slots: usize,
    /// Digest of the state after each commit; the first is the one it began with.
    pub states: Vec<u64>,
}

impl Recorder {
    /// Begins with what the engine finds in these files: the database, and the committed frames of the valid chain.
    pub fn start(files: &Files, page_size: usize) -> Self {
        let mut recorder = Self {
            page_size,
            pages: pages(&files.db, page_size),
            salts: [0; 8],
            big_endian: false,
            seed: (0, 0),
            slots: 0,
            states: Vec::new(),
        };
        let mut size = (files.db.len() / page_size) as u32;
        if let Some(log) = Wal::read(files.wal()).filter(|log| log.header_ok) {
            for frame in log.live() {
                recorder.pages.insert(frame.page, image(frame.page, log.image(files.wal(), frame)));
                if frame.commit != 0 {
                    size = frame.commit;
                }
            }
            recorder.salts = log.salts;
            recorder.big_endian = log.big_endian;
            recorder.slots = log.committed;
            recorder.seed = match log.committed.checked_sub(1) {
                Some(last) => log.slots[last].sum,
                None => (be32(files.wal(), 24), be32(files.wal(), 28)),
            };
        }
        recorder.states.push(state(&recorder.pages, size));
        recorder
    }

    /// Reads what the writer has committed since the last look.
    pub fn observe(&mut self, db: &Path) {
        let Ok(mut file) = std::fs::File::open(side(db, "-wal")) else { return };
        let mut head = [0; HEADER];
        if file.read_exact(&mut head).is_err() {
            return;
        }
        let salts: [u8; 8] = head[16..24].try_into().unwrap();
        if salts != self.salts {
            self.salts = salts;
            self.slots = 0;
            self.big_endian = be32(&head, 0) & 1 == 1;
            self.seed = (be32(&head, 24), be32(&head, 28));
        }
        let slot = FRAME + self.page_size;
        let (mut at, mut seed) = (self.slots, self.seed);
        let mut pending = Vec::new();
        file.seek(SeekFrom::Start((HEADER + at * slot) as u64)).unwrap();
        let mut raw = vec![0; slot];
        // Where the engine itself thinks that the log ends: behind it older commits may continue the chain by chance,
        // when the same change was made once more.
        let index = std::fs::read(side(db, "-shm")).unwrap_or_default();
        let end = index.get(16..20).map_or(usize::MAX, |b| u32::from_ne_bytes(b.try_into().unwrap()) as usize);
        while at < end && file.read_exact(&mut raw).is_ok() {
            seed = sum(self.big_endian, sum(self.big_endian, seed, &raw[..8]), &raw[FRAME..]);
            if raw[8..16] != self.salts || be32(&raw, 0) == 0 || seed != (be32(&raw, 16), be32(&raw, 20)) {
                break;
            }
            at += 1;
            pending.push((be32(&raw, 0), image(be32(&raw, 0), &raw[FRAME..])));
            if be32(&raw, 4) != 0 {
                self.pages.extend(pending.drain(..));
                self.states.push(state(&self.pages, be32(&raw, 4)));
                (self.slots, self.seed) = (at, seed);
            }
        }
    }
}

/// A frame that is to be read as another page, or with four bytes of its image replaced.
pub struct Change {
    pub frame: u32,
    pub page: u32,
    pub word: Option<(u32, [u8; 4])>,
}

/// The state of a database file with frames laid over it: `frames` are 1-based numbers in order, `size` its pages.
pub fn folded(
    files: &Files,
    page_size: usize,
    frames: impl Iterator<Item = u32>,
    size: u32,
    changes: &[Change],
) -> u64 {
    let log = files.wal();
    let mut last: BTreeMap<u32, u32> = BTreeMap::new();
    let at = |n: u32| HEADER + (n as usize - 1) * (FRAME + page_size);
    let change = |n: u32| changes.iter().find(|c| c.frame == n);
    for n in frames {
        last.insert(change(n).map_or_else(|| be32(log, at(n)), |c| c.page), n);
    }
    let mut pages = pages(&files.db, page_size);
    for (page, n) in last {
        let mut bytes = log[at(n) + FRAME..at(n) + FRAME + page_size].to_vec();
        if let Some((offset, word)) = change(n).and_then(|c| c.word) {
            bytes[offset as usize..offset as usize + 4].copy_from_slice(&word);
        }
        pages.insert(page, image(page, &bytes));
    }
    state(&pages, size)
}

/// What the engine itself would make of these files: the database alone when the log's header is damaged, else the
/// committed frames of the valid chain over it.
pub fn engine_alone(files: &Files, page_size: usize) -> u64 {
    let alone = |files: &Files| folded(files, page_size, std::iter::empty(), (files.db.len() / page_size) as u32, &[]);
    match Wal::read(files.wal()).filter(|log| log.header_ok && log.page_size == page_size) {
        Some(log) if log.committed > 0 => {
            let size = log.slots[log.committed - 1].commit;
            folded(files, page_size, 1..=log.committed as u32, size, &[])
        }
        _ => alone(files),
    }
}

/// Slots of the live generation that a later look can still verify: unchanged, and with the sum before them unchanged.
pub fn verifiable(whole: &[u8], damaged: &[u8], log: &Wal) -> Vec<bool> {
    let n = log.slot_len();
    let same = |from: usize, to: usize| damaged.get(from..to) == whole.get(from..to);
    let seed = |i: usize| if i == 0 { same(24, 32) } else { same(log.slots[i - 1].at + 16, log.slots[i - 1].at + 24) };
    (0..log.committed).map(|i| same(log.slots[i].at, log.slots[i].at + n) && seed(i)).collect()
}

/// True when a changed frame still continues the sum before it: the format cannot see that damage.
///
/// With the header gone, frame 1 continues any header of its geometry and salts, whatever its checkpoint number was. A
/// flip of the topmost bit of a word moves the sum like a flip in that number does, so a log with the other number, and
/// with this very frame whole, leaves the same bytes under the same noise at its head: two histories.
pub fn collides(whole: &[u8], damaged: &[u8], log: &Wal) -> bool {
    let n = log.slot_len();
    let summed = |seed, b: &[u8]| sum(log.big_endian, sum(log.big_endian, seed, &b[..8]), &b[FRAME..]);
    let headless = damaged.get(..HEADER) != whole.get(..HEADER);
    log.slots.iter().enumerate().any(|(i, f)| {
        let (Some(now), before) = (damaged.get(f.at..f.at + n), &whole[f.at..f.at + n]) else { return false };
        let same_data = now[..8] == before[..8] && now[FRAME..] == before[FRAME..];
        if same_data || f.salts != log.salts || f.sum != (be32(now, 16), be32(now, 20)) {
            return false;
        }
        let seed_at = if i == 0 { 24 } else { log.slots[i - 1].at + 16 };
        let other_number = |bit: u32| {
            let mut head: Vec<u8> = whole[..24].to_vec();
            let number = be32(whole, 12) ^ 1 << bit;
            head[12..16].copy_from_slice(&number.to_be_bytes());
            sum(log.big_endian, (0, 0), &head)
        };
        summed((be32(damaged, seed_at), be32(damaged, seed_at + 4)), now) == f.sum
            || i == 0 && headless && (0..32).any(|bit| summed(other_number(bit), now) == f.sum)
    })
}

/// True when the last commit's frame is verifiable and every frame that is not has a later verifiable image.
pub fn superseded(verifiable: &[bool], log: &Wal) -> bool {
    let live = log.live();
    let mut later = std::collections::BTreeSet::new();
    if verifiable.last() != Some(&true) {
        return false;
    }
    for (frame, ok) in live.iter().zip(verifiable).rev() {
        if *ok {
            later.insert(frame.page);
        } else if !later.contains(&frame.page) {
            return false;
        }
    }
    true
}
