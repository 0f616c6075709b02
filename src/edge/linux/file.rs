//! Regular files and directories by descriptor. See the rules in [`super`].

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::unistd::{Gid, Uid, fchown};

use crate::sqlite::ReadAt;

/// Bytes between two lines of progress.
const COPY_STEP: u64 = 64 << 20;

/// A read this long is one of many in a row.
const STREAM: usize = 512 << 10;
/// Bytes asked for ahead of such a read.
const AHEAD: libc::off_t = 4 << 20;

/// A regular file or device, open for reading.
#[derive(Debug)]
pub struct Opened {
    file: File,
    size: u64,
}

impl ReadAt for Opened {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if buf.len() >= STREAM {
            self.read_ahead(offset.saturating_add(buf.len() as u64));
        }
        self.file.read_at(buf, offset)
    }
}

impl Opened {
    /// The file itself, to be read from its beginning.
    pub fn into_file(self) -> File {
        self.file
    }

    /// Asks the kernel to begin reading what comes next, so that the device works while we look at what it gave. Advice:
    /// whether it is taken makes no difference but time.
    fn read_ahead(&self, offset: u64) {
        let Ok(at) = libc::off_t::try_from(offset) else { return };
        if offset < self.size {
            let _ = posix_fadvise(&self.file, at, AHEAD, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
    }
}

/// Opens a regular file for reading.
pub fn open(path: &Path) -> io::Result<Opened> {
    let file = regular(OpenOptions::new().read(true), path)?;
    let size = file.metadata()?.len();
    Ok(Opened { file, size })
}

/// Opens a block device, or an image file in its place, for reading. Links are followed: `/dev/disk/by-label` is made
/// of them. The size of a device is not asked for and stands as the largest number.
pub fn open_device(path: &Path) -> io::Result<Opened> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let meta = file.metadata()?;
    if meta.file_type().is_block_device() {
        Ok(Opened { file, size: u64::MAX })
    } else if meta.is_file() {
        Ok(Opened { file, size: meta.len() })
    } else {
        Err(wrong_kind(path, "a block device"))
    }
}

/// Reads a small text file of the kernel (`/proc`, `/sys`) or of the initramfs.
pub fn read_text(path: &Path) -> io::Result<String> {
    const LONGEST: u64 = 1 << 20;
    let mut text = String::new();
    OpenOptions::new().read(true).open(path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// Two random words from the kernel.
pub fn random() -> io::Result<[u64; 2]> {
    let mut bytes = [[0; 8]; 2];
    let mut source = OpenOptions::new().read(true).open("/dev/urandom")?;
    for word in &mut bytes {
        source.read_exact(word)?;
    }
    Ok(bytes.map(u64::from_ne_bytes))
}

/// Fills `into` from the kernel's source of randomness.
pub fn fill_random(into: &mut [u8]) -> io::Result<()> {
    OpenOptions::new().read(true).open("/dev/urandom")?.read_exact(into)
}

/// Creates or truncates a file. What is there under the name is looked at before it is truncated.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create(path)?.write_all(bytes)
}

/// Writes at an offset of an existing file.
pub fn write_at(path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
    regular(OpenOptions::new().write(true), path)?.write_all_at(bytes, offset)
}

/// Sets the length of an existing file.
pub fn set_len(path: &Path, len: u64) -> io::Result<()> {
    regular(OpenOptions::new().write(true), path)?.set_len(len)
}

/// Copies contents. The standard library lets the kernel do it inside the file system where it can (copy_file_range)
/// and goes on with reads and writes where it cannot.
pub fn copy(from: &Path, to: &Path, progress: &dyn Fn(&str)) -> io::Result<()> {
    let source = regular(OpenOptions::new().read(true), from)?;
    let target = create(to)?;
    let total = source.metadata()?.len();
    let mut done: u64 = 0;
    loop {
        let n = io::copy(&mut (&source).take(COPY_STEP), &mut &target)?;
        done += n;
        if n < COPY_STEP {
            return Ok(());
        }
        progress(&format!("copying {}: {} of {} MiB", from.display(), done >> 20, total >> 20));
    }
}

/// Sets owner, group and permission bits of a file or directory. Owner first: a change of owner clears set-id bits.
/// Where the owner is right already nothing is asked of the kernel, so that this works without privilege.
pub fn set_owner(path: &Path, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() && !meta.is_dir() {
        return Err(wrong_kind(path, "a regular file or directory"));
    }
    if (meta.uid(), meta.gid()) != (uid, gid) {
        fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    file.set_permissions(Permissions::from_mode(mode & 0o7777))
}

/// fsync(2) of a file. A descriptor opened for reading serves: the sync is of the file and not of the descriptor.
pub fn sync(path: &Path) -> io::Result<()> {
    regular(OpenOptions::new().read(true), path)?.sync_all()
}

/// fsync(2) of a directory.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?.sync_all()
}

fn create(path: &Path) -> io::Result<File> {
    let file = regular(OpenOptions::new().write(true).create(true).truncate(false).mode(0o600), path)?;
    file.set_len(0)?;
    Ok(file)
}

fn regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // NONBLOCK: opening a pipe would wait for its other end. O_CLOEXEC is what the standard library always sets.
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(wrong_kind(path, "a regular file")) }
}

fn wrong_kind(path: &Path, wanted: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{}: not {wanted}", path.display()))
}
