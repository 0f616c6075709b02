//! FAT16 and FAT32 as they stand on a restore stick, read strictly and without the kernel, and the few bytes of reports
//! written back in place.
//!
//! Format: Microsoft, *FAT: General Overview of On-Disk Format*, version 1.03 (2000), below "FAT"; the same text is
//! ECMA-107 up to FAT16. Partition tables: the MBR as every system reads it, and UEFI 2.10 section 5.3. All words are
//! little-endian.
//!
//! A stick is the one medium that a stranger hands to the device, so every byte of it is hostile, and it is read here in
//! a process without privileges ([`crate::edge`]) instead of by a mount. FAT has no checksums: a changed start of a
//! chain or a changed size can agree with everything else, and no reader can see it. What this one promises is less:
//!
//! * it ends, within bounds on work and memory that do not depend on what the bytes say ([`Limits`]), and never panics;
//! * it refuses, with a reason of its own for each case ([`Code`]), whatever two readers could understand differently:
//!   copies of the table that disagree, a chain longer or shorter than its size, clusters with two owners, a volume
//!   larger than its device, two files of one name. For a restore stick refusal is right: a new one is made in minutes;
//! * whether the data are the right data is decided by signature and SHA-256, above this module.
//!
//! Writing means two things. On the device: [`overwrite`] puts reports into files that were made beforehand, at their
//! fixed size, so that no byte of a table or directory ever changes and a stick pulled at any moment stays a sound
//! volume. At the desk: [`format`] lays out a whole new stick.
//!
//! FAT12 (nothing above 16 MB), exFAT and NTFS are recognised and refused with the cure.

mod boot;
mod bytes;
mod chain;
mod dir;
pub mod format;
mod name;
pub mod overwrite;
mod refusal;
mod stream;
mod survey;
mod table;

use std::io;

use serde::{Deserialize, Serialize};

pub use boot::{Geometry, Kind};
pub use refusal::{Code, Place, Refusal};
pub use stream::Stream;
pub use survey::{Survey, open, survey};
pub use table::{Partition, partitions};

/// The directory on a stick that is ours; everything else on it is somebody else's.
pub const DIRECTORY: &str = "PYVORIN-RESTORE";

/// A device as bytes: a block device, an image of one, or a test.
pub trait Blocks {
    /// Length in bytes.
    fn len(&self) -> u64;
    /// Fills all of `buf` from `offset`; reading past the end is an error.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Bytes in a logical sector, where that is known: the unit of partition tables. Images do not tell, and then the
    /// sizes in use are tried.
    fn sector(&self) -> Option<u32> {
        None
    }
    /// Nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A device that can also be written.
pub trait BlocksMut: Blocks {
    /// Writes all of `bytes` at `offset`; writing past the end is an error.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Everything written so far is durable when this returns.
    fn sync(&mut self) -> io::Result<()>;
}

/// A device in memory.
impl Blocks for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|at| self.get(at..)?.get(..buf.len()));
        buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl BlocksMut for Vec<u8> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let to = usize::try_from(offset).ok().and_then(|at| self.get_mut(at..)?.get_mut(..bytes.len()));
        to.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(bytes);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bounds on what one look at a volume may cost, whatever its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one directory; 65 536 entries are the most that the format allows.
    pub directory: u32,
    /// Files and directories in our directory.
    pub files: u32,
    /// Runs of clusters in a row, over everything looked at: each may cost a seek.
    pub fragments: u32,
    /// Clusters followed, over everything looked at.
    pub clusters: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { directory: 2 << 20, files: 256, fragments: 16_384, clusters: 16 << 20 }
    }
}

/// Bytes of the device that belong to a file, in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Where they begin, in bytes from the start of the device.
    pub offset: u64,
    /// How many.
    pub len: u64,
}

/// A file in our directory. Its extents hold its bytes in order and add up to its size: what lies behind the end in
/// the last cluster is not part of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Name as it is displayed.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Where they are.
    pub extents: Vec<Extent>,
}

/// Our directory on one volume. No two of its files, and none of them and a directory, share a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Where the volume lies.
    pub partition: Partition,
    /// What kind of volume it is.
    pub geometry: Geometry,
    /// The files, in the order of the directory. Directories within are not descended into.
    pub files: Vec<File>,
}

impl Contents {
    /// The file of a name. FAT compares names without regard to case, so there is one at most.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&File> {
        let wanted = name::fold(name);
        self.files.iter().find(|file| name::fold(&file.name) == wanted)
    }
}

/// Where a refusal that concerns one file says it is.
pub(crate) fn in_directory(name: &str) -> Place {
    Place::File(name.to_owned())
}
