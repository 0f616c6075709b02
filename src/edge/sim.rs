//! A machine in memory behind the same traits as the real one, so that the same `act` runs on both.
//!
//! Its disk (`sim/disk.rs`, where the crash model is stated) cuts the power when told to: *before* the n-th sync takes effect
//! ([`SimMachine::cut_at`]) or *after* the n-th changing call did ([`SimMachine::cut_after_op`]). From then on every call
//! fails with "power cut", as a process that no longer exists; [`SimMachine::after_cut`] is the machine at its next
//! start. Running a scenario with n = 1, 2, 3 … until [`SimMachine::is_cut`] stays false visits every cut there is.
//!
//! Deterministic: time passes only with changing calls and [`SimMachine::advance_ms`].
//!
//! Volumes are optional. A volume that is registered and not attached shows an empty mount point, and one attached
//! read-only refuses every change, so that a forgotten attach is found here and not on a gateway.

mod calls;
mod change;
mod disk;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

pub use change::CutMode;
use disk::Disk;

use super::{Access, FileKind, VolumeHead};

#[derive(Clone, Copy, Debug)]
enum When {
    Sync(u64),
    Op(u64),
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    when: When,
    mode: CutMode,
    seed: u64,
}

#[derive(Clone, Debug, Default)]
struct Volume {
    mountpoint: PathBuf,
    attached: Option<Access>,
    broken: bool,
    head: Option<VolumeHead>,
    fsck_exits: VecDeque<i32>,
}

impl Volume {
    fn head(&self) -> VolumeHead {
        match &self.head {
            _ if self.broken => VolumeHead::Missing("the simulated device is absent".to_owned()),
            Some(head) => head.clone(),
            None => VolumeHead::Head(clean_ext4_head()),
        }
    }

    /// Sets or clears the needs-recovery flag, as a kernel that mounts read-write and e2fsck do. A head that is too
    /// short to have one stays as it is.
    fn set_unclean(&mut self, unclean: bool) {
        let VolumeHead::Head(mut bytes) = self.head() else { return };
        if let Some(flags) = bytes.get_mut(EXT4_INCOMPAT) {
            *flags = if unclean { *flags | EXT4_RECOVER } else { *flags & !EXT4_RECOVER };
        }
        self.head = Some(VolumeHead::Head(bytes));
    }
}

/// Low byte of `s_feature_incompat`: the superblock begins at 1024, the field at 0x60 of it.
const EXT4_INCOMPAT: usize = 1024 + 0x60;
/// `EXT4_FEATURE_INCOMPAT_RECOVER`.
const EXT4_RECOVER: u8 = 0x04;

/// The first 4096 bytes of a clean ext4 volume, with the fields that say so.
#[must_use]
pub fn clean_ext4_head() -> Vec<u8> {
    let fields: [(usize, &[u8]); 10] = [
        (0x00, &1024_u32.to_le_bytes()),   // s_inodes_count
        (0x04, &4096_u32.to_le_bytes()),   // s_blocks_count_lo
        (0x18, &2_u32.to_le_bytes()),      // s_log_block_size: 4096
        (0x38, &0xef53_u16.to_le_bytes()), // s_magic
        (0x3a, &1_u16.to_le_bytes()),      // s_state: cleanly unmounted
        (0x4c, &1_u32.to_le_bytes()),      // s_rev_level: dynamic
        (0x58, &256_u16.to_le_bytes()),    // s_inode_size
        (0x5c, &0x04_u32.to_le_bytes()),   // s_feature_compat: has_journal
        (0x60, &0x42_u32.to_le_bytes()),   // s_feature_incompat: filetype, extents
        (0x68, &[0x5e; 16]),               // s_uuid
    ];
    let mut head = vec![0; 4096];
    for (at, bytes) in fields {
        if let Some(place) = head.get_mut(1024 + at..1024 + at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
    head
}

/// The simulated machine.
#[derive(Clone, Debug)]
pub struct SimMachine {
    disk: Disk,
    cut: Option<Cut>,
    dead: bool,
    syncs: u64,
    ops: u64,
    epoch: u64,
    uptime_ms: u64,
    /// Never reset, so that every change has a later mtime than the one before.
    tick: i64,
    free: u64,
    volumes: BTreeMap<String, Volume>,
    fsck_calls: Vec<(String, Vec<String>)>,
    failing: BTreeMap<u64, io::ErrorKind>,
    unreadable: BTreeSet<PathBuf>,
    held: BTreeMap<PathBuf, String>,
    lines: RefCell<Vec<String>>,
    drawn: u64,
}

impl Default for SimMachine {
    fn default() -> Self {
        Self::new()
    }
}

impl SimMachine {
    /// An empty disk with a root directory, 1 GiB free, no volumes, at the start of 2026.
    #[must_use]
    pub fn new() -> Self {
        Self {
            disk: Disk::new(),
            cut: None,
            dead: false,
            syncs: 0,
            ops: 0,
            epoch: 1_767_225_600,
            uptime_ms: 0,
            tick: 0,
            free: 1 << 30,
            volumes: BTreeMap::new(),
            fsck_calls: Vec::new(),
            failing: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            held: BTreeMap::new(),
            lines: RefCell::new(Vec::new()),
            drawn: 0,
        }
    }

    /// Adds a durable file (mode 0644) and the directories above it.
    #[must_use]
    pub fn with_file(self, path: impl AsRef<Path>, bytes: impl Into<Vec<u8>>) -> Self {
        self.with(path.as_ref(), FileKind::File, 0o644, &bytes.into())
    }

    /// Adds a durable directory (mode 0755) and those above it.
    #[must_use]
    pub fn with_dir(self, path: impl AsRef<Path>) -> Self {
        self.with(path.as_ref(), FileKind::Directory, 0o755, &[])
    }

    /// Adds a durable name that is neither file nor directory, such as a pipe.
    #[must_use]
    pub fn with_other(self, path: impl AsRef<Path>) -> Self {
        self.with(path.as_ref(), FileKind::Other, 0o644, &[])
    }

    fn with(mut self, path: &Path, kind: FileKind, mode: u32, bytes: &[u8]) -> Self {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        self.tick += 1;
        let mtime = self.mtime();
        for dir in above {
            if matches!(self.disk.find(dir), Ok(None)) {
                let made = self.disk.add(dir, FileKind::Directory, 0o755, mtime);
                debug_assert!(made.is_ok(), "{dir:?}");
            }
        }
        if matches!(self.disk.find(path), Ok(None)) {
            let made = self.disk.add(path, kind, mode, mtime);
            debug_assert!(made.is_ok(), "{path:?}");
        }
        if kind == FileKind::File {
            let filled = self.disk.set_len(path, 0, mtime).and_then(|()| self.disk.write(path, 0, bytes, mtime));
            debug_assert!(filled.is_ok(), "{path:?}");
        }
        self.disk.sync_all();
        self
    }

    /// Registers a volume, not attached yet.
    #[must_use]
    pub fn with_volume(mut self, name: &str, mountpoint: impl AsRef<Path>) -> Self {
        let mut this = self.with_dir(mountpoint.as_ref());
        let volume = Volume { mountpoint: mountpoint.as_ref().to_path_buf(), ..Volume::default() };
        this.volumes.insert(name.to_owned(), volume);
        self = this;
        self
    }

    /// Sets what a volume's block device begins with. Without this it is [`clean_ext4_head`].
    #[must_use]
    pub fn with_volume_head(mut self, name: &str, head: VolumeHead) -> Self {
        self.volumes.entry(name.to_owned()).or_default().head = Some(head);
        self
    }

    /// Another process has `path` open.
    #[must_use]
    pub fn with_holder(mut self, path: impl AsRef<Path>, process: &str) -> Self {
        self.held.insert(path.as_ref().to_path_buf(), process.to_owned());
        self
    }

    /// Makes every attach of a volume fail, as for one that is absent or holds no file system.
    #[must_use]
    pub fn with_broken_volume(mut self, name: &str) -> Self {
        self.volumes.entry(name.to_owned()).or_default().broken = true;
        self
    }

    /// The exit codes of the next fsck runs on a volume; 0 when they are used up.
    #[must_use]
    pub fn with_fsck_exits(mut self, volume: &str, exits: &[i32]) -> Self {
        self.volumes.entry(volume.to_owned()).or_default().fsck_exits = exits.iter().copied().collect();
        self
    }

    /// Makes reading a file fail with an input/output error, as from a dying card.
    #[must_use]
    pub fn with_unreadable(mut self, path: impl AsRef<Path>) -> Self {
        self.unreadable.insert(path.as_ref().to_path_buf());
        self
    }

    /// Makes the n-th changing call (from 1) fail without effect, such as with `StorageFull`.
    #[must_use]
    pub fn with_failing_op(mut self, n: u64, kind: io::ErrorKind) -> Self {
        self.failing.insert(n, kind);
        self
    }

    /// Sets what [`super::Look::free_bytes`] answers. Writes are not counted against it.
    pub fn set_free_bytes(&mut self, bytes: u64) {
        self.free = bytes;
    }

    /// Lets time pass.
    pub fn advance_ms(&mut self, ms: u64) {
        self.uptime_ms += ms;
    }

    /// Cuts the power at the n-th sync (from 1), before it takes effect. The seed matters for [`CutMode::Torn`] alone.
    pub fn cut_at(&mut self, n: u64, mode: CutMode, seed: u64) {
        self.cut = Some(Cut { when: When::Sync(n), mode, seed });
    }

    /// Cuts the power after the n-th changing call (from 1; syncs count) took effect; that call does not return either.
    pub fn cut_after_op(&mut self, n: u64, mode: CutMode, seed: u64) {
        self.cut = Some(Cut { when: When::Op(n), mode, seed });
    }

    /// True once the power is gone.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.dead
    }

    /// The machine at its next start, whether the planned cut has been reached or comes now. Without a plan unsynced
    /// changes are dropped. Counters, plans and attached volumes are gone.
    #[must_use]
    pub fn after_cut(mut self) -> Self {
        let (mode, seed) = self.cut.map_or((CutMode::Dropped, 0), |cut| (cut.mode, cut.seed));
        self.disk = self.disk.cut(mode, seed);
        for volume in self.volumes.values_mut().filter(|volume| volume.attached == Some(Access::ReadWrite)) {
            volume.set_unclean(true);
        }
        self.started_again()
    }

    /// The machine at its next start after an orderly shutdown: everything is durable.
    #[must_use]
    pub fn after_shutdown(mut self) -> Self {
        self.disk.sync_all();
        self.started_again()
    }

    fn started_again(mut self) -> Self {
        self.epoch += self.uptime_ms / 1000 + 1;
        (self.cut, self.dead, self.syncs, self.ops, self.uptime_ms) = (None, false, 0, 0, 0);
        self.failing.clear();
        self.lines.borrow_mut().clear();
        for volume in self.volumes.values_mut() {
            volume.attached = None;
        }
        self
    }

    /// Syncs begun so far.
    #[must_use]
    pub fn sync_count(&self) -> u64 {
        self.syncs
    }

    /// Changing calls so far, syncs among them. Zero after a stage that only looked.
    #[must_use]
    pub fn op_count(&self) -> u64 {
        self.ops
    }

    /// Contents of a file as the running machine sees it; also on a machine that is cut or has the volume detached.
    #[must_use]
    pub fn bytes(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.disk.file(path.as_ref()).ok().map(|inode| inode.now.bytes.clone())
    }

    /// Every name that is not a directory, sorted.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.disk.paths()
    }

    /// How a volume is attached now.
    #[must_use]
    pub fn attached(&self, volume: &str) -> Option<Access> {
        self.volumes.get(volume).and_then(|volume| volume.attached)
    }

    /// Volume and arguments of every fsck run, in order.
    #[must_use]
    pub fn fsck_calls(&self) -> &[(String, Vec<String>)] {
        &self.fsck_calls
    }

    /// What was shown to whoever watches, since the start.
    #[must_use]
    pub fn progress_lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    fn mtime(&self) -> i64 {
        i64::try_from(self.epoch).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(self.tick)
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("power cut")) } else { Ok(()) }
    }

    /// The volume that holds a path, with its name: the deepest mount point above it.
    fn volume_of(&self, path: &Path) -> Option<(&str, &Volume)> {
        let holds =
            |volume: &&Volume| !volume.mountpoint.as_os_str().is_empty() && path.starts_with(&volume.mountpoint);
        let all = self.volumes.iter().filter(|(_, volume)| holds(volume));
        all.max_by_key(|(_, volume)| volume.mountpoint.components().count())
            .map(|(name, volume)| (name.as_str(), volume))
    }

    /// True when the path lies in a volume that is not attached. The mount point itself is there, and empty.
    fn hidden(&self, path: &Path) -> bool {
        self.volume_of(path).is_some_and(|(_, volume)| volume.attached.is_none() && path != volume.mountpoint)
    }

    fn visible(&self, path: &Path) -> io::Result<()> {
        self.alive()?;
        if self.hidden(path) { Err(error(io::ErrorKind::NotFound, path)) } else { Ok(()) }
    }

    fn writable(&self, path: &Path) -> io::Result<()> {
        self.visible(path)?;
        match self.volume_of(path) {
            Some((_, volume)) if volume.attached == Some(Access::ReadOnly) => {
                Err(error(io::ErrorKind::ReadOnlyFilesystem, path))
            }
            _ => Ok(()),
        }
    }

    /// The frame around every changing call: counts it, lets time pass, and cuts the power behind it when planned.
    fn op<T>(&mut self, act: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        self.alive()?;
        self.ops += 1;
        self.tick += 1;
        self.uptime_ms += 1;
        let result = match self.failing.get(&self.ops) {
            Some(kind) => Err(io::Error::new(*kind, "scripted failure")),
            None => act(self),
        };
        if matches!(self.cut, Some(Cut { when: When::Op(n), .. }) if n == self.ops) {
            self.dead = true;
        }
        self.alive()?;
        result
    }

    /// A changing call that is a sync: the planned cut comes before its effect.
    fn sync_op(&mut self, act: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        self.op(|this| {
            this.syncs += 1;
            if matches!(this.cut, Some(Cut { when: When::Sync(n), .. }) if n == this.syncs) {
                this.dead = true;
                return this.alive();
            }
            act(this)
        })
    }

    fn readable(&self, path: &Path) -> io::Result<&[u8]> {
        self.visible(path)?;
        if self.unreadable.contains(path) {
            return Err(io::Error::other(format!("input/output error: {}", path.display())));
        }
        Ok(&self.disk.file(path)?.now.bytes)
    }

    fn put(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.writable(path)?;
        let mtime = self.mtime();
        match self.disk.find(path)? {
            Some(_) => self.disk.set_len(path, 0, mtime)?,
            None => drop(self.disk.add(path, FileKind::File, 0o600, mtime)?),
        }
        self.disk.write(path, 0, bytes, mtime)
    }

    /// Both ends of a link or rename must lie in one file system.
    fn same_volume(&self, from: &Path, to: &Path) -> io::Result<()> {
        let name = |path| self.volume_of(path).map(|(name, _)| name);
        if name(from) == name(to) { Ok(()) } else { Err(error(io::ErrorKind::CrossesDevices, to)) }
    }
}

/// An error that names the path, so that a failing test says where.
fn error(kind: io::ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{kind}: {}", path.display()))
}
