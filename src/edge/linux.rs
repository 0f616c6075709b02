//! The machine we run on: [`Look`] and [`Machine`] by system calls.
//!
//! Two rules hold for every method. A path is never followed through a symbolic link at its last component, and only
//! regular files are opened, without blocking: the data partition is written by an OS that we do not trust, and a
//! pipe or a device under the name of a database must not stop a boot. And nothing is made durable as a side effect:
//! the order of syncs is the crash order of `act`, and stands there.
//!
//! [`file`] holds files, [`volume`] mounts and checks them, [`run`] bounds programs. What only PID 1 does lives in
//! [`init`] and its neighbours.

pub mod block;
pub mod child;
mod clock;
pub mod file;
pub mod holders;
pub mod init;
pub mod kmsg;
pub mod lock;
pub mod modules;
pub mod partition;
mod rescue;
pub mod run;
pub mod scratch;
pub mod service;
pub mod stick;
pub mod switch;
pub mod volume;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use nix::time::{ClockId, clock_gettime};

use super::crew::Threads;
use super::{Access, FileKind, Look, Machine, SalvageJob, Stat, TableGain, TableRows, VolumeHead, engine};
use crate::sqlite::check::Crew;
use crate::sqlite::salvage::Report;
use crate::sqlite::salvage::loss::TableLoss;
use crate::sqlite::{ReadAt, read_vec};

pub use volume::Volume;

/// Between two signs of life of an action that has nothing to report itself.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Bytes per second that an engine check of a staged file must reach on the slowest gateway: a tenth of what was
/// measured on an old SD card. Slower than this it is hung, or the database is built to make it so.
const ENGINE_FLOOR: u64 = 256 * 1024;

/// This machine.
pub struct LinuxMachine {
    volumes: Vec<Volume>,
    attached: BTreeMap<String, Access>,
    missing: Vec<(String, String)>,
    fsck: PathBuf,
    progress: Box<dyn Fn(&str)>,
    crew: Threads,
}

impl LinuxMachine {
    /// A machine with the given volumes (none on a laptop, where attaching does nothing) that tells its progress to
    /// `progress`: init gives the pipe to PID 1, the command line gives stderr.
    #[must_use]
    pub fn new(volumes: Vec<Volume>, progress: Box<dyn Fn(&str)>) -> LinuxMachine {
        LinuxMachine {
            volumes,
            attached: BTreeMap::new(),
            missing: Vec::new(),
            fsck: PathBuf::from("/sbin/e2fsck"),
            progress,
            crew: Threads::available(),
        }
    }

    /// The same machine with another file system checker.
    #[must_use]
    pub fn with_fsck(self, fsck: PathBuf) -> LinuxMachine {
        LinuxMachine { fsck, ..self }
    }

    /// The same machine, knowing why some of its volumes are not there.
    #[must_use]
    pub fn with_missing(self, missing: Vec<(String, String)>) -> LinuxMachine {
        LinuxMachine { missing, ..self }
    }

    fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    /// Runs the engine in a thread and reports a sign of life while it may still be getting somewhere. When it should
    /// have been done it is interrupted; should even that fail, the silence lets the deadline of the stage end us.
    fn interruptible<T: Send + 'static>(
        &self,
        staged: &Path,
        work: impl FnOnce(&Path, &dyn Fn(engine::InterruptHandle)) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let limit = Duration::from_secs(60 + fs::symlink_metadata(staged)?.len() / ENGINE_FLOOR);
        let (started, handle) = mpsc::channel();
        let (ended, outcome) = mpsc::channel();
        let path = staged.to_path_buf();
        std::thread::Builder::new().name("engine".into()).spawn(move || {
            let checked = work(&path, &|handle| drop(started.send(handle)));
            // Nobody listens when the caller has given up; there is nothing left to tell then.
            drop(ended.send(checked));
        })?;
        let mut waited = Duration::ZERO;
        loop {
            match outcome.recv_timeout(HEARTBEAT) {
                Ok(checked) => return checked,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(io::Error::other("the engine's thread died")),
                Err(mpsc::RecvTimeoutError::Timeout) => waited += HEARTBEAT,
            }
            if waited < limit {
                self.progress(&format!("checking {} for {} s", staged.display(), waited.as_secs()));
            } else if let Ok(handle) = handle.try_recv() {
                handle.interrupt();
            }
        }
    }
}

/// How long the engine may be busy with so many bytes before it is held to hang: it reads them, writes them and sorts.
fn engine_limit(bytes: u64) -> Duration {
    Duration::from_secs(60 + 4 * bytes / ENGINE_FLOOR)
}

impl Look for LinuxMachine {
    fn crew(&self) -> &dyn Crew {
        &self.crew
    }

    fn volume_head(&self, name: &str) -> VolumeHead {
        if let Some((_, why)) = self.missing.iter().find(|(missing, _)| missing == name) {
            return VolumeHead::Missing(why.clone());
        }
        let Some(volume) = self.volume(name) else { return VolumeHead::NotConfigured };
        let head = file::open_device(&volume.device).and_then(|device| read_vec(&device, 0, crate::ext4::HEAD_LEN));
        match head {
            Ok(bytes) => VolumeHead::Head(bytes),
            Err(e) => VolumeHead::Unreadable(format!("{}: {e}", volume.device.display())),
        }
    }

    fn volume_id(&self, dir: &Path) -> Option<String> {
        volume::id_of(dir)
    }

    fn holders(&self, path: &Path) -> Vec<String> {
        holders::of(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Stat>> {
        match fs::symlink_metadata(path) {
            Ok(meta) => Ok(Some(stat(&meta))),
            // A file where a directory was expected means just as much that nothing has this name.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadAt + '_>> {
        Ok(Box::new(file::open(path)?))
    }

    fn reader(&self, path: &Path) -> io::Result<Box<dyn io::Read>> {
        Ok(Box::new(file::open(path)?.into_file()))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut names = fs::read_dir(dir)?.map(|entry| entry.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn secret(&self) -> [u64; 2] {
        // No randomness must never keep a gateway from being checked: time and process are better than nothing.
        let words = file::random().unwrap_or([self.clock(), self.uptime_ms()]);
        [words[0] ^ u64::from(std::process::id()), words[1]]
    }

    fn clock(&self) -> u64 {
        let seconds = clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |now| now.tv_sec());
        u64::try_from(seconds).unwrap_or(0)
    }

    fn clock_is_set(&self) -> bool {
        clock::is_set()
    }

    fn uptime_ms(&self) -> u64 {
        uptime_ms()
    }

    fn cpu_ms(&self) -> u64 {
        let Ok(used) = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID) else { return 0 };
        u64::try_from(used.tv_sec() * 1000 + used.tv_nsec() / 1_000_000).unwrap_or(0)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let volume = statvfs(path)?;
        Ok(volume.blocks_available().saturating_mul(volume.fragment_size()))
    }

    fn progress(&self, line: &str) {
        (self.progress)(line);
    }
}

impl Machine for LinuxMachine {
    fn as_look(&self) -> &dyn Look {
        self
    }

    fn make_dir(&mut self, path: &Path) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && fs::symlink_metadata(path)?.is_dir() => Ok(()),
            made => made,
        }
    }

    fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        missing_is_fine(fs::remove_file(path))
    }

    fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        missing_is_fine(fs::remove_dir(path))
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        file::write(path, bytes)
    }

    fn write_at(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file::write_at(path, offset, bytes)
    }

    fn set_len(&mut self, path: &Path, len: u64) -> io::Result<()> {
        file::set_len(path, len)
    }

    fn copy(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        file::copy(from, to, &|line| self.progress(line))
    }

    fn set_owner(&mut self, path: &Path, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
        file::set_owner(path, uid, gid, mode)
    }

    fn sync_file(&mut self, path: &Path) -> io::Result<()> {
        file::sync(path)
    }

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        file::sync_dir(path)
    }

    fn random(&mut self, into: &mut [u8]) -> io::Result<()> {
        file::fill_random(into)
    }

    fn engine_snapshot(&mut self, live: &Path, out: &Path, rate: u64) -> io::Result<()> {
        let tell = |done, all| self.progress(&format!("snapshot of {}: {done} of {all} pages", live.display()));
        engine::snapshot_file(live, out, rate, &engine::Around { clock: &uptime_ms, tell: &tell })
    }

    fn engine_check(&mut self, staged: &Path) -> io::Result<(Vec<String>, Vec<TableRows>)> {
        self.interruptible(staged, |path, watch| engine::check_file_watched(path, watch))
    }

    fn engine_constraints(&mut self, staged: &Path) -> io::Result<Vec<String>> {
        self.interruptible(staged, |path, watch| engine::constraints_file(path, watch))
    }

    fn engine_append(&mut self, base: &Path, donor: &Path) -> io::Result<Vec<TableGain>> {
        engine::append_file(base, donor)
    }

    fn engine_queue(&mut self, staged: &Path, load: &engine::queue::Load) -> io::Result<engine::queue::Refused> {
        engine::queue::load_file(staged, load)
    }

    fn engine_salvage(&mut self, job: &SalvageJob, out: &Path) -> io::Result<Report> {
        let sizes = [&job.db, &job.wal].into_iter().flatten().filter_map(|p| fs::symlink_metadata(p).ok());
        let limit = engine_limit(sizes.map(|m| m.len()).sum());
        let (job, out) = (job.clone(), out.to_path_buf());
        self.watched("salvaging", limit, move |tell| rescue::salvage(&job, &out, tell))
    }

    fn engine_reindex(&mut self, staged: &Path) -> io::Result<Option<String>> {
        let limit = engine_limit(fs::symlink_metadata(staged)?.len());
        let staged = staged.to_path_buf();
        self.watched("building indexes", limit, move |_| engine::reindex_file(&staged))
    }

    fn engine_merge(&mut self, base: &Path, backup: &Path, losses: &[TableLoss]) -> io::Result<Vec<TableGain>> {
        let limit = engine_limit(fs::symlink_metadata(backup)?.len());
        let (base, backup, losses) = (base.to_path_buf(), backup.to_path_buf(), losses.to_vec());
        self.watched("taking rows from the backup", limit, move |_| engine::merge_file(&base, &backup, &losses))
    }

    fn attach(&mut self, volume: &str, access: Access) -> io::Result<()> {
        // Its directory is there all the same, empty and in memory: whatever was written to it would be lost.
        if let Some((_, why)) = self.missing.iter().find(|(missing, _)| missing == volume) {
            return Err(io::Error::new(io::ErrorKind::NotFound, why.clone()));
        }
        let Some(known) = self.volume(volume).cloned() else { return Ok(()) };
        match self.attached.get(volume) {
            Some(current) if *current == access => return Ok(()),
            // ext4 refuses to remount a `noload` mount read-write, so a change is always out and in again.
            Some(_) => {
                known.unmount(volume::Last::Refuse)?;
                self.attached.remove(volume);
            }
            None => {}
        }
        known.mount(access)?;
        self.attached.insert(volume.to_owned(), access);
        Ok(())
    }

    fn detach(&mut self, volume: &str) -> io::Result<()> {
        let Some(known) = self.volume(volume).cloned() else { return Ok(()) };
        if self.attached.contains_key(volume) {
            known.unmount(volume::Last::Lazy)?;
            self.attached.remove(volume);
        }
        Ok(())
    }

    fn fsck(&mut self, volume: &str, args: &[String], limit_seconds: u64) -> io::Result<i32> {
        let Some(known) = self.volume(volume) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no volume named {volume}")));
        };
        if self.attached.contains_key(volume) {
            let why = format!("volume {volume} is attached; a check needs it detached");
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
        }
        let mut all: Vec<OsString> = args.iter().map(OsString::from).collect();
        all.push(known.device.clone().into_os_string());
        run::bounded(&self.fsck, &all, Duration::from_secs(limit_seconds), HEARTBEAT, &|line| {
            log::info!("e2fsck: {line}");
            self.progress(line);
        })
    }
}

/// Milliseconds since the kernel started, sleep included.
#[must_use]
pub fn uptime_ms() -> u64 {
    let Ok(now) = clock_gettime(ClockId::CLOCK_BOOTTIME) else { return 0 };
    let millis = now.tv_sec().saturating_mul(1000).saturating_add(now.tv_nsec() / 1_000_000);
    u64::try_from(millis).unwrap_or(0)
}

fn stat(meta: &fs::Metadata) -> Stat {
    let kind = if meta.is_file() {
        FileKind::File
    } else if meta.is_dir() {
        FileKind::Directory
    } else {
        FileKind::Other
    };
    Stat {
        kind,
        len: meta.len(),
        ino: meta.ino(),
        nlink: meta.nlink(),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime_ns: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
    }
}

fn missing_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests;
