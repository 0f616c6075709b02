//! Restore sticks: what stands on one is read, and reported into, by a child without privileges.
//!
//! The parent opens the device, forks, and never looks at a byte of the file system itself: [`confine`] holds the child,
//! [`filter`] is what it may ask of the kernel, [`wire`] is how it answers. [`candidates`] tells which devices are sticks.
//!
//! | in the child | is refused, and by what |
//! |---|---|
//! | opening, connecting, starting anything | no descriptors but device and pipe, RLIMIT_NOFILE 0, seccomp |
//! | writing to the stick while reading | the descriptor is open for reading only |
//! | rights | uid and gid 65534 and no groups where we were root, no_new_privs |
//! | memory | RLIMIT_AS: 64 MiB beyond what the program had |
//! | time | RLIMIT_CPU, time without a sign of life, time in all |
//!
//! Killed, crashed, silent and lying children are one and the same to a technician ([`Unusable::Damaged`]); how it ended
//! is for the log.
//!
//! A stick can answer a second read differently, so nothing here is *verified*: the caller hashes what it was given, and
//! uses what it hashed.

pub mod candidates;
mod confine;
mod filter;
mod wire;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::{Deserialize, Serialize};

use self::confine::{Access, Limits};
use self::wire::Mouth;
use super::file;
use crate::fat::overwrite::Overwrite;
use crate::fat::{self, Blocks, BlocksMut, Code, Contents, Place, Refusal, Stream};

/// Bytes given on at a time.
const PIECE: usize = 64 << 10;

/// What stands in our directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The partition, from 1; 0 is a device without a table.
    pub partition: u32,
    /// Serial number of the volume.
    pub volume_id: u32,
    /// Name and size of each file.
    pub files: Vec<(String, u64)>,
}

/// Why a stick gives nothing.
#[derive(Debug)]
pub enum Unusable {
    /// It was read, and is refused.
    Refused(Refusal),
    /// The child that read it did not come to an end; how, for the log.
    Damaged(String),
    /// We could not look.
    Failed(io::Error),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Damaged(_) => f.write_str(
                "the stick is damaged or not ours; next: make the stick again with `stick format` and `stick prepare`",
            ),
            Self::Failed(error) => {
                write!(f, "the stick cannot be looked at: {error}; next: try another USB port or another stick")
            }
        }
    }
}

impl std::error::Error for Unusable {}

/// A device, or an image of one, open for reading.
#[derive(Debug)]
pub struct Stick {
    path: PathBuf,
    device: Device,
}

impl Stick {
    /// Opens it. Nothing is read yet.
    pub fn open(path: &Path) -> io::Result<Stick> {
        let device = Device::open(path, OpenOptions::new().read(true), libc::O_NONBLOCK)?;
        Ok(Stick { path: path.to_path_buf(), device })
    }

    /// Bytes of the device.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.device.len
    }

    /// A reader without a medium.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.device.len == 0
    }

    /// What stands in our directory.
    pub fn list(&self) -> Result<Listing, Unusable> {
        let limits = Limits::for_bytes(0);
        let mut device = self.device.again().map_err(Unusable::Failed)?;
        confine::ask(&mut device, Access::Read, limits, &mut |_| Ok(()), |device, _| {
            let contents = look(device)?;
            let files = contents.files.into_iter().map(|file| (file.name, file.size)).collect();
            Ok(Listing { partition: contents.partition.number, volume_id: contents.geometry.volume_id, files })
        })
    }

    /// Gives the bytes of a file, in order, to `take`; a file of more than `most` bytes is refused before the first.
    /// Returns how many there were. An error of `take` ends it and comes back as [`Unusable::Failed`].
    pub fn read(&self, name: &str, most: u64, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<u64, Unusable> {
        let mut device = self.device.again().map_err(Unusable::Failed)?;
        let mut taken = 0_u64;
        let mut count = |bytes: &[u8]| {
            taken = taken.saturating_add(bytes.len() as u64);
            take(bytes)
        };
        let told = confine::ask(&mut device, Access::Read, Limits::for_bytes(most), &mut count, |device, mouth| {
            tell(device, name, most, mouth)
        })?;
        if told == taken {
            Ok(told)
        } else {
            Err(Unusable::Damaged(format!("{taken} bytes came, {told} were announced")))
        }
    }

    /// Puts reports, (name, bytes), into the files that were made for them, and reads them back from the device.
    pub fn report(&self, reports: &[(&str, &[u8])]) -> Result<(), Unusable> {
        // O_EXCL on a block device: not while somebody has it mounted.
        let flags = libc::O_NONBLOCK | if self.device.block { libc::O_EXCL } else { 0 };
        let opened = Device::open(&self.path, OpenOptions::new().read(true).write(true), flags);
        let mut device = opened.map_err(|e| match e.kind() {
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Unusable::Refused(Refusal::new(Code::Unwritable, Place::Device, e.to_string()))
            }
            _ => Unusable::Failed(e),
        })?;
        if (device.rdev, device.len) != (self.device.rdev, self.device.len) {
            return Err(Unusable::Failed(io::Error::other("another device has taken its place")));
        }
        let bytes = reports.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        confine::ask(&mut device, Access::Write, Limits::for_bytes(bytes), &mut |_| Ok(()), |device, _| {
            let contents = look(device)?;
            let plan = Overwrite::plan(device, &contents, reports)?;
            plan.write(device)?;
            device.forget();
            plan.verify(device)
        })
    }
}

fn look(device: &mut Device) -> Result<Contents, Refusal> {
    fat::survey(device, &fat::Limits::default())?.one()
}

fn tell(device: &mut Device, name: &str, most: u64, mouth: &mut Mouth) -> Result<u64, Refusal> {
    let contents = look(device)?;
    let place = || Place::File(name.to_owned());
    let file = contents.file(name).ok_or_else(|| Refusal::new(Code::NoFile, place(), ""))?;
    let mut stream = Stream::new(device, file, most)?;
    let mut piece = vec![0; PIECE];
    let mut told = 0_u64;
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Ok(told),
            Ok(n) => {
                mouth.data(piece.get(..n).unwrap_or_default());
                told = told.saturating_add(n as u64);
            }
            Err(e) => return Err(Refusal::read(place(), told, &e)),
        }
    }
}

/// A device by its descriptor. The child has nothing else.
#[derive(Debug)]
struct Device {
    file: File,
    len: u64,
    sector: Option<u32>,
    block: bool,
    rdev: u64,
}

impl Device {
    fn open(path: &Path, options: &mut OpenOptions, flags: i32) -> io::Result<Device> {
        use std::io::Seek;
        let mut file = options.custom_flags(flags).open(path)?;
        let meta = file.metadata()?;
        let block = meta.file_type().is_block_device();
        if !block && !meta.is_file() {
            let why = format!("{}: neither a block device nor an image of one", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let len = file.seek(io::SeekFrom::End(0))?;
        let sector = if block { logical_sector(meta.rdev()) } else { None };
        Ok(Device { file, len, sector, block, rdev: if block { meta.rdev() } else { meta.ino() } })
    }

    fn again(&self) -> io::Result<Device> {
        let file = self.file.try_clone()?;
        Ok(Device { file, len: self.len, sector: self.sector, block: self.block, rdev: self.rdev })
    }

    /// Drops what the kernel holds of it in memory, so that the next read asks the device. Advice: where it is not taken,
    /// a read proves less.
    fn forget(&self) {
        let _ = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}

/// The unit of its partition table; a partition asks its disk.
fn logical_sector(rdev: u64) -> Option<u32> {
    let dir = PathBuf::from(format!("/sys/dev/block/{}:{}", libc::major(rdev), libc::minor(rdev)));
    let read = |path: &str| file::read_text(&dir.join(path)).ok();
    let text = read("queue/logical_block_size").or_else(|| read("../queue/logical_block_size"))?;
    text.trim().parse().ok().filter(|size| (512..=4096).contains(size))
}

impl Blocks for Device {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
    fn sector(&self) -> Option<u32> {
        self.sector
    }
}

impl BlocksMut for Device {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // A write past the end of an image would make it longer.
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.write_all_at(bytes, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl Limits {
    /// For reading or writing so many bytes: half a minute, and a second for each half megabyte, which the slowest stick
    /// manages.
    #[must_use]
    pub fn for_bytes(bytes: u64) -> Limits {
        Limits {
            silence: Duration::from_secs(15),
            overall: Duration::from_secs(30).saturating_add(Duration::from_secs(bytes >> 19)),
            memory: 64 << 20,
            cpu_seconds: 10_u64.saturating_add(bytes >> 24),
            most: bytes,
        }
    }
}

#[cfg(test)]
mod tests;
