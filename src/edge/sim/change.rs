//! Changes that wait for a sync, and how each is applied or torn. The model stands at the head of `disk.rs`.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// The unit in which a device writes; a torn write keeps or loses whole sectors.
const SECTOR: usize = 512;

/// What a cut does to changes that no sync has covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutMode {
    /// All of them happened.
    Applied,
    /// None of them happened.
    Dropped,
    /// Each happened, happened in part or did not, by the seed.
    Torn,
}

/// Contents and facts of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime_ns: i64,
}

/// A change of one file that waits for a sync.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8>, mtime_ns: i64 },
    Length { len: usize, mtime_ns: i64 },
    Owner { uid: u32, gid: u32, mode: u32 },
}

impl Change {
    pub(super) fn apply(&self, image: &mut Image) {
        match self {
            Self::Write { offset, bytes, mtime_ns } => {
                put(&mut image.bytes, *offset, bytes);
                image.mtime_ns = *mtime_ns;
            }
            Self::Length { len, mtime_ns } => {
                image.bytes.resize(*len, 0);
                image.mtime_ns = *mtime_ns;
            }
            Self::Owner { uid, gid, mode } => (image.uid, image.gid, image.mode) = (*uid, *gid, *mode),
        }
    }

    pub(super) fn tear(&self, image: &mut Image, dice: &mut Dice) {
        let Self::Write { offset, bytes, mtime_ns } = self else {
            if dice.coin() {
                self.apply(image);
            }
            return;
        };
        let mut at = 0;
        while at < bytes.len() {
            let len = (SECTOR - (offset + at) % SECTOR).min(bytes.len() - at);
            if let (true, Some(part)) = (dice.coin(), bytes.get(at..at + len)) {
                put(&mut image.bytes, offset + at, part);
                image.mtime_ns = *mtime_ns;
            }
            at += len;
        }
    }
}

fn put(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    if let Some(place) = to.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

/// Inode of a directory, and a name in it.
pub(super) type Name = (u64, OsString);

/// A change of names that waits for a sync.
#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Add { at: Name, ino: u64 },
    Remove { at: Name, ino: u64 },
    Move { from: Name, to: Name, ino: u64 },
}

impl NameChange {
    pub(super) fn names(&self) -> Vec<&Name> {
        match self {
            Self::Add { at, .. } | Self::Remove { at, .. } => vec![at],
            Self::Move { from, to, .. } => vec![from, to],
        }
    }

    /// Total: where an earlier change was lost, a removal removes nothing and a move still brings its file.
    pub(super) fn apply(&self, names: &mut BTreeMap<Name, u64>) {
        let mut remove = |at: &Name, ino: u64| {
            if names.get(at) == Some(&ino) {
                names.remove(at);
            }
        };
        match self {
            Self::Add { at, ino } => drop(names.insert(at.clone(), *ino)),
            Self::Remove { at, ino } => remove(at, *ino),
            Self::Move { from, to, ino } => {
                remove(from, *ino);
                names.insert(to.clone(), *ino);
            }
        }
    }
}

/// Xorshift: enough to vary what is torn, and the same everywhere.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give neighbouring sequences, and the state must not be zero.
        Self((seed.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn coin(&mut self) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 40 & 1 == 1
    }
}
