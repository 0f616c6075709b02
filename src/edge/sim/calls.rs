//! The calls of the two traits, on the simulated machine.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::{SimMachine, error};
use crate::edge::{Access, FileKind, Look, Machine, SalvageJob, Stat, TableGain, TableRows, VolumeHead, engine};
use crate::ext4::FileSystem;
use crate::sqlite::ReadAt;
use crate::sqlite::salvage::Report;
use crate::sqlite::salvage::loss::TableLoss;

/// What e2fsck exits with when the device is in use.
const FSCK_OPERATIONAL: i32 = 8;
/// The bits (corrected, reboot wanted) after which the volume is clean.
const FSCK_CLEANED: i32 = 3;

struct View<'a>(&'a [u8]);

impl ReadAt for View<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }
}

impl Look for SimMachine {
    fn volume_id(&self, dir: &Path) -> Option<String> {
        match self.volume_of(dir)?.1.head() {
            VolumeHead::Head(bytes) => match FileSystem::detect(&bytes) {
                FileSystem::Ext(superblock) => Some(superblock.uuid_text()),
                _ => None,
            },
            _ => None,
        }
    }

    fn holders(&self, path: &Path) -> Vec<String> {
        self.held.get(path).cloned().into_iter().collect()
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Stat>> {
        self.alive()?;
        if self.hidden(path) {
            return Ok(None);
        }
        let Some(ino) = self.disk.find(path)? else { return Ok(None) };
        Ok(self.disk.get(ino).map(|inode| Stat {
            kind: inode.kind,
            len: inode.now.bytes.len() as u64,
            ino,
            nlink: self.disk.links(ino),
            mode: inode.now.mode,
            uid: inode.now.uid,
            gid: inode.now.gid,
            mtime_ns: inode.now.mtime_ns,
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadAt + '_>> {
        Ok(Box::new(View(self.readable(path)?)))
    }

    fn reader(&self, path: &Path) -> io::Result<Box<dyn io::Read>> {
        Ok(Box::new(io::Cursor::new(self.readable(path)?.to_vec())))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.visible(dir)?;
        let ino = self.disk.directory(dir)?;
        let detached = self.volume_of(dir).is_some_and(|(_, volume)| volume.attached.is_none());
        Ok(if detached { Vec::new() } else { self.disk.list(ino) })
    }

    fn clock(&self) -> u64 {
        self.epoch + self.uptime_ms / 1000
    }

    fn uptime_ms(&self) -> u64 {
        self.uptime_ms
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.visible(path)?;
        self.disk.existing(path)?;
        Ok(self.free)
    }

    fn volume_head(&self, volume: &str) -> VolumeHead {
        match self.volumes.get(volume) {
            _ if self.dead => VolumeHead::Unreadable("power cut".to_owned()),
            Some(found) => found.head(),
            None if self.volumes.is_empty() => VolumeHead::NotConfigured,
            None => VolumeHead::Missing("no such simulated volume".to_owned()),
        }
    }

    fn progress(&self, line: &str) {
        self.lines.borrow_mut().push(line.to_owned());
    }
}

impl Machine for SimMachine {
    fn as_look(&self) -> &dyn Look {
        self
    }

    fn make_dir(&mut self, path: &Path) -> io::Result<()> {
        self.op(|this| {
            this.visible(path)?;
            if let Some(inode) = this.disk.find(path)?.and_then(|ino| this.disk.get(ino)) {
                let directory = inode.kind == FileKind::Directory;
                return if directory { Ok(()) } else { Err(error(io::ErrorKind::AlreadyExists, path)) };
            }
            this.writable(path)?;
            let mtime = this.mtime();
            this.disk.add(path, FileKind::Directory, 0o700, mtime).map(drop)
        })
    }

    fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.op(|this| {
            this.visible(from)?;
            this.writable(to)?;
            this.same_volume(from, to)?;
            this.disk.link(from, to)
        })
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.op(|this| {
            this.writable(from)?;
            this.writable(to)?;
            this.same_volume(from, to)?;
            this.disk.rename(from, to)
        })
    }

    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        self.op(|this| this.writable(path).and_then(|()| this.disk.remove(path, false)))
    }

    fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        self.op(|this| this.writable(path).and_then(|()| this.disk.remove(path, true)))
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.op(|this| this.put(path, bytes))
    }

    fn write_at(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.op(|this| {
            this.writable(path)?;
            let mtime = this.mtime();
            this.disk.write(path, offset, bytes, mtime)
        })
    }

    fn set_len(&mut self, path: &Path, len: u64) -> io::Result<()> {
        self.op(|this| {
            this.writable(path)?;
            let mtime = this.mtime();
            this.disk.set_len(path, len, mtime)
        })
    }

    fn copy(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.op(|this| {
            let bytes = this.readable(from)?.to_vec();
            if this.disk.find(from)? == this.disk.find(to)? {
                return Err(error(io::ErrorKind::InvalidInput, to));
            }
            this.put(to, &bytes)
        })
    }

    fn set_owner(&mut self, path: &Path, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
        self.op(|this| this.writable(path).and_then(|()| this.disk.set_owner(path, uid, gid, mode)))
    }

    fn sync_file(&mut self, path: &Path) -> io::Result<()> {
        self.sync_op(|this| this.visible(path).and_then(|()| this.disk.sync_file(path)))
    }

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.sync_op(|this| this.visible(path).and_then(|()| this.disk.sync_dir(path)))
    }

    /// The same on every run, and never twice the same: tests can repeat themselves.
    fn random(&mut self, into: &mut [u8]) -> io::Result<()> {
        self.alive()?;
        for byte in into {
            self.drawn = self.drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = self.drawn.to_be_bytes()[0];
        }
        Ok(())
    }

    /// Nobody writes on this machine while it is looked at, so the copy of a database without a log is its state.
    fn engine_snapshot(&mut self, live: &Path, out: &Path, _rate: u64) -> io::Result<()> {
        self.op(|this| {
            let bytes = this.readable(live)?.to_vec();
            this.put(out, &bytes)
        })
    }

    fn engine_check(&mut self, staged: &Path) -> io::Result<(Vec<String>, Vec<TableRows>)> {
        engine::check_bytes(self.readable(staged)?)
    }

    fn engine_constraints(&mut self, staged: &Path) -> io::Result<Vec<String>> {
        engine::constraints_bytes(self.readable(staged)?)
    }

    /// The result is not durable: whoever installs it must sync it, as on the real machine.
    fn engine_append(&mut self, base: &Path, donor: &Path) -> io::Result<Vec<TableGain>> {
        self.op(|this| {
            let merged = engine::append_bytes(this.readable(base)?.to_vec(), this.readable(donor)?)?;
            this.put(base, &merged.0)?;
            Ok(merged.1)
        })
    }

    /// As [`Self::engine_append`]: not durable before it is synced.
    fn engine_queue(&mut self, staged: &Path, load: &engine::queue::Load) -> io::Result<engine::queue::Refused> {
        self.op(|this| {
            let before = if load.new.is_some() { Vec::new() } else { this.readable(staged)?.to_vec() };
            let (bytes, refused) = engine::queue::load_bytes(&before, load)?;
            this.put(staged, &bytes)?;
            Ok(refused)
        })
    }

    fn engine_salvage(&mut self, job: &SalvageJob, out: &Path) -> io::Result<Report> {
        self.op(|this| {
            let (bytes, report) = job.with(this.as_look(), |input| engine::salvage_bytes(input, &mut |_| {}))?;
            this.put(out, &bytes)?;
            Ok(report)
        })
    }

    fn engine_reindex(&mut self, staged: &Path) -> io::Result<Option<String>> {
        self.op(|this| {
            let (bytes, why) = engine::reindex_bytes(this.readable(staged)?)?;
            this.put(staged, &bytes)?;
            Ok(why)
        })
    }

    fn engine_merge(&mut self, base: &Path, backup: &Path, losses: &[TableLoss]) -> io::Result<Vec<TableGain>> {
        self.op(|this| {
            let (bytes, gains) = engine::merge_bytes(this.readable(base)?, this.readable(backup)?, losses)?;
            this.put(base, &bytes)?;
            Ok(gains)
        })
    }

    fn attach(&mut self, volume: &str, access: Access) -> io::Result<()> {
        self.op(|this| {
            if this.volumes.is_empty() {
                return Ok(());
            }
            match this.volumes.get_mut(volume) {
                Some(found) if !found.broken => {
                    found.attached = Some(access);
                    Ok(())
                }
                _ => Err(error(io::ErrorKind::NotFound, Path::new(volume))),
            }
        })
    }

    /// Counts as one sync, of that volume alone.
    fn detach(&mut self, volume: &str) -> io::Result<()> {
        if self.attached(volume).is_none() {
            return self.op(|_| Ok(()));
        }
        self.sync_op(|this| {
            let Some(found) = this.volumes.get_mut(volume) else { return Ok(()) };
            found.attached = None;
            let mountpoint = found.mountpoint.clone();
            this.disk.sync_tree(&mountpoint)
        })
    }

    fn fsck(&mut self, volume: &str, args: &[String], _limit_seconds: u64) -> io::Result<i32> {
        self.op(|this| {
            this.fsck_calls.push((volume.to_owned(), args.to_vec()));
            let Some(found) = this.volumes.get_mut(volume) else { return Ok(0) };
            if found.attached.is_some() {
                return Ok(FSCK_OPERATIONAL);
            }
            let exit = found.fsck_exits.pop_front().unwrap_or(0);
            if exit & !FSCK_CLEANED == 0 {
                found.set_unclean(false);
            }
            Ok(exit)
        })
    }
}
