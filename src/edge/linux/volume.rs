//! The volumes of a gateway: mounted for us alone, and away again before the OS takes over.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::syncfs;

use super::super::Access;
use super::file;
use crate::ext4::{FileSystem, HEAD_LEN};
use crate::sqlite::read_vec;

/// Attempts to unmount a busy volume, and the pause between two: a killed child may still be letting go.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// One volume that this machine attaches by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// "state" or "data".
    pub name: String,
    /// The block device, already found and unambiguous.
    pub device: PathBuf,
    /// Where it is mounted, in our own mount namespace. Made when missing.
    pub target: PathBuf,
}

/// What to do when a volume stays busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// Give up: something else depends on it being gone.
    Refuse,
    /// Take the name away and let the kernel finish, with a line in the log.
    Lazy,
}

impl Volume {
    /// `ReadOnly` adds `noload`: without it the kernel replays the journal, which is a write, even for `ro`.
    /// `ReadWrite` says `errors=remount-ro`, so that a failing card stops taking writes whatever its superblock says.
    pub(super) fn mount(&self, access: Access) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.target)?;
        let private = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let (flags, options) = match access {
            Access::ReadOnly => (private | MsFlags::MS_RDONLY, "noload"),
            Access::ReadWrite => (private, "errors=remount-ro"),
        };
        mount(Some(&self.device), &self.target, Some("ext4"), flags, Some(options)).map_err(|e| self.failed("mount", e))
    }

    pub(super) fn unmount(&self, last: Last) -> io::Result<()> {
        self.sync()?;
        for attempt in 1.. {
            match umount2(&self.target, MntFlags::UMOUNT_NOFOLLOW) {
                Ok(()) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::EBUSY) if attempt < ATTEMPTS => std::thread::sleep(PAUSE),
                Err(Errno::EBUSY) if last == Last::Lazy => break,
                Err(e) => return Err(self.failed("unmount", e)),
            }
        }
        log::warn!("{} stays busy; taking its mount away lazily", self.name);
        umount2(&self.target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(|e| self.failed("unmount", e))
    }

    fn sync(&self) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let dir = fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&self.target)?;
        syncfs(&dir).map_err(|e| self.failed("sync", e))
    }

    fn failed(&self, what: &str, e: Errno) -> io::Error {
        let why = format!("{what} volume {} ({} at {}): {e}", self.name, self.device.display(), self.target.display());
        io::Error::new(io::Error::from(e).kind(), why)
    }
}

/// UUID of the ext4 file system that holds a directory, read from its block device; `None` without one that may be read.
pub(super) fn id_of(dir: &Path) -> Option<String> {
    let device = fs::metadata(dir).ok()?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let facts = file::read_text(Path::new(&format!("/sys/dev/block/{major}:{minor}/uevent"))).ok()?;
    let name = facts.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    let head = read_vec(&file::open_device(&Path::new("/dev").join(name)).ok()?, 0, HEAD_LEN).ok()?;
    match FileSystem::detect(&head) {
        FileSystem::Ext(superblock) => Some(superblock.uuid_text()),
        _ => None,
    }
}
