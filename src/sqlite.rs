//! Readers of the SQLite file formats that never open a database with the engine.
//!
//! Opening a database with the SQLite engine is a write: recovery discards a WAL whose head is damaged and the last
//! close deletes it, and the evidence with it. So everything here takes bytes through [`ReadAt`] and yields values.
//! The readers of damaged bytes do not fail, they yield what they found; judgement lives in [`judge`].
//!
//! Terms (see the glossary in the crate documentation): *committed frames* run to the last commit frame of the valid
//! chain; the *tail* behind it was never committed; *leftover* frames are of an older generation (other salts);
//! *replay* applies exactly what SQLite would; *resync* restarts the chain behind damage, and only ever into a copy.

pub mod build;
pub mod bytes;
pub mod check;
pub mod collate;
mod continuity;
mod exact;
pub mod foreign;
pub mod header;
pub mod judge;
pub mod observe;
pub mod overlay;
pub mod page;
pub mod record;
pub mod resync;
pub mod rollback;
pub mod rows;
pub mod salvage;
pub mod schema;
pub mod verdict;
pub mod wal;

use std::io;

/// Positioned reads from a file, a device or a byte slice. Several threads may read at once.
pub trait ReadAt: Sync {
    /// Length in bytes.
    fn size(&self) -> u64;
    /// Reads up to `buf.len()` bytes at `offset`; short only at the end.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or(&[]);
        let n = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        Ok(n)
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.as_slice().read_at(offset, buf)
    }
}

/// Reads exactly `len` bytes at `offset`, or fewer when the file ends there.
pub fn read_vec(file: &dyn ReadAt, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        let Some(rest) = bytes.get_mut(done..) else { break };
        match file.read_at(offset + done as u64, rest) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}
