//! The disk of the simulated machine: what is durable, what is not yet, and what a power cut makes of the difference.
//!
//! The model follows SQLite's crash test (`src/test6.c`), extended by directories:
//! - Every file has durable contents and a queue of changes (writes, lengths, owners) that no sync has covered.
//!   Syncing the file empties its queue into the durable contents. It says nothing about the file's *names*.
//! - Every directory has durable names and there is one queue of name changes (create, link, rename, unlink) that no
//!   sync has covered. Syncing a directory makes durable every queued change that touches it, and every earlier one
//!   that concerns the same names. A rename touches two directories and is atomic: syncing either makes both ends durable.
//! - A cut treats each queued change by its own: applied, dropped, or torn. Torn writes keep a pseudo-random subset of
//!   their 512-byte sectors (what lies beyond the old end and was not kept reads as zero); torn lengths, owners and name
//!   changes happen or do not.
//!
//! So the model is harsher than ext4 with its journal: changes of different files and names are not ordered against
//! each other by anything but a sync. Code that survives here does not rely on the order in which a file system
//! happens to write. It is deterministic: the same calls and the same seed leave the same disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::change::{Change, CutMode, Dice, Image, Name, NameChange};
use super::error;
use crate::edge::FileKind;

/// The directory that has no name.
const ROOT: u64 = 2;
/// Files live in memory; a wild offset must be an error and not the end of the test machine.
const FILE_MAX: u64 = 1 << 31;

/// A file, directory or other object, whatever its names.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) kind: FileKind,
    pub(super) now: Image,
    durable: Image,
    queue: Vec<Change>,
}

/// Files, names, and what of both would survive.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<Name, u64>,
    durable_names: BTreeMap<Name, u64>,
    queue: Vec<NameChange>,
    next_ino: u64,
}

impl Disk {
    pub(super) fn new() -> Self {
        let mut disk = Self {
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            queue: Vec::new(),
            next_ino: ROOT,
        };
        disk.inode(FileKind::Directory, 0o755, 0);
        disk
    }

    fn inode(&mut self, kind: FileKind, mode: u32, mtime_ns: i64) -> u64 {
        let ino = self.next_ino;
        self.next_ino += 1;
        let image = Image { bytes: Vec::new(), mode, uid: 0, gid: 0, mtime_ns };
        self.inodes.insert(ino, Inode { kind, now: image.clone(), durable: image, queue: Vec::new() });
        ino
    }

    /// The inode that a path names. `NotADirectory` where a file stands in the way.
    pub(super) fn find(&self, path: &Path) -> io::Result<Option<u64>> {
        let mut at = ROOT;
        for part in parts(path)? {
            if self.inodes.get(&at).is_none_or(|inode| inode.kind != FileKind::Directory) {
                return Err(error(io::ErrorKind::NotADirectory, path));
            }
            match self.names.get(&(at, part)) {
                Some(ino) => at = *ino,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Directory and name of a path whose directory exists.
    fn place(&self, path: &Path) -> io::Result<Name> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(error(io::ErrorKind::InvalidInput, path));
        };
        Ok((self.directory(dir)?, name.to_os_string()))
    }

    pub(super) fn directory(&self, path: &Path) -> io::Result<u64> {
        let ino = self.existing(path)?;
        match self.inodes.get(&ino) {
            Some(inode) if inode.kind == FileKind::Directory => Ok(ino),
            _ => Err(error(io::ErrorKind::NotADirectory, path)),
        }
    }

    pub(super) fn existing(&self, path: &Path) -> io::Result<u64> {
        self.find(path)?.ok_or_else(|| error(io::ErrorKind::NotFound, path))
    }

    pub(super) fn get(&self, ino: u64) -> Option<&Inode> {
        self.inodes.get(&ino)
    }

    /// A regular file, for its contents.
    pub(super) fn file(&self, path: &Path) -> io::Result<&Inode> {
        let found = self.inodes.get(&self.existing(path)?);
        match found {
            Some(inode) if inode.kind == FileKind::File => Ok(inode),
            Some(inode) if inode.kind == FileKind::Directory => Err(error(io::ErrorKind::IsADirectory, path)),
            _ => Err(error(io::ErrorKind::InvalidInput, path)),
        }
    }

    fn file_mut(&mut self, path: &Path) -> io::Result<&mut Inode> {
        self.file(path)?;
        let ino = self.existing(path)?;
        self.inodes.get_mut(&ino).ok_or_else(|| error(io::ErrorKind::NotFound, path))
    }

    pub(super) fn links(&self, ino: u64) -> u64 {
        let names = self.names.values().filter(|one| **one == ino).count() as u64;
        let directory = self.inodes.get(&ino).is_some_and(|inode| inode.kind == FileKind::Directory);
        // A directory also names itself, and is named by each of its own directories.
        if directory { 2 + self.subdirectories(ino) } else { names }
    }

    fn subdirectories(&self, dir: u64) -> u64 {
        let is_dir = |ino: &u64| self.inodes.get(ino).is_some_and(|inode| inode.kind == FileKind::Directory);
        self.names.iter().filter(|((at, _), ino)| *at == dir && is_dir(ino)).count() as u64
    }

    pub(super) fn list(&self, dir: u64) -> Vec<OsString> {
        self.names.keys().filter(|(at, _)| *at == dir).map(|(_, name)| name.clone()).collect()
    }

    /// Every path and its kind, for tests.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![(ROOT, PathBuf::from("/"))];
        while let Some((dir, path)) = open.pop() {
            for ((_, name), ino) in self.names.iter().filter(|((at, _), _)| *at == dir) {
                let child = path.join(name);
                if self.inodes.get(ino).is_some_and(|inode| inode.kind == FileKind::Directory) {
                    open.push((*ino, child));
                } else {
                    found.push(child);
                }
            }
        }
        found.sort();
        found
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.queue.push(change);
    }

    pub(super) fn add(&mut self, path: &Path, kind: FileKind, mode: u32, mtime_ns: i64) -> io::Result<u64> {
        let at = self.place(path)?;
        if self.names.contains_key(&at) {
            return Err(error(io::ErrorKind::AlreadyExists, path));
        }
        let ino = self.inode(kind, mode, mtime_ns);
        self.change_names(NameChange::Add { at, ino });
        Ok(ino)
    }

    pub(super) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.file(from)?;
        let ino = self.existing(from)?;
        let at = self.place(to)?;
        if self.names.contains_key(&at) {
            return Err(error(io::ErrorKind::AlreadyExists, to));
        }
        self.change_names(NameChange::Add { at, ino });
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let ino = self.existing(from)?;
        let (source, target) = (self.place(from)?, self.place(to)?);
        if to.starts_with(from) && to != from {
            return Err(error(io::ErrorKind::InvalidInput, to));
        }
        let directory = |ino: &u64| self.inodes.get(ino).is_some_and(|inode| inode.kind == FileKind::Directory);
        match self.names.get(&target) {
            // Two names of one file: rename(2) does nothing, and both names stay.
            Some(old) if *old == ino => return Ok(()),
            Some(old) if directory(old) && !directory(&ino) => return Err(error(io::ErrorKind::IsADirectory, to)),
            Some(old) if !directory(old) && directory(&ino) => return Err(error(io::ErrorKind::NotADirectory, to)),
            Some(old) if directory(old) && !self.list(*old).is_empty() => {
                return Err(error(io::ErrorKind::DirectoryNotEmpty, to));
            }
            _ => {}
        }
        self.change_names(NameChange::Move { from: source, to: target, ino });
        Ok(())
    }

    /// Removes a name of the wanted kind; a missing one is not an error.
    pub(super) fn remove(&mut self, path: &Path, directory: bool) -> io::Result<()> {
        let Some(ino) = self.find(path)? else { return Ok(()) };
        let at = self.place(path)?;
        let is_dir = self.inodes.get(&ino).is_some_and(|inode| inode.kind == FileKind::Directory);
        match (directory, is_dir) {
            (false, true) => return Err(error(io::ErrorKind::IsADirectory, path)),
            (true, false) => return Err(error(io::ErrorKind::NotADirectory, path)),
            (true, true) if !self.list(ino).is_empty() => {
                return Err(error(io::ErrorKind::DirectoryNotEmpty, path));
            }
            _ => {}
        }
        self.change_names(NameChange::Remove { at, ino });
        Ok(())
    }

    fn change(&mut self, path: &Path, change: Change) -> io::Result<()> {
        let inode = self.file_mut(path)?;
        change.apply(&mut inode.now);
        inode.queue.push(change);
        Ok(())
    }

    pub(super) fn write(&mut self, path: &Path, offset: u64, bytes: &[u8], mtime_ns: i64) -> io::Result<()> {
        let offset = within(offset, bytes.len(), path)?;
        self.change(path, Change::Write { offset, bytes: bytes.to_vec(), mtime_ns })
    }

    pub(super) fn set_len(&mut self, path: &Path, len: u64, mtime_ns: i64) -> io::Result<()> {
        let len = within(len, 0, path)?;
        self.change(path, Change::Length { len, mtime_ns })
    }

    /// Owners of directories too; those are durable at once, because nothing depends on their order.
    pub(super) fn set_owner(&mut self, path: &Path, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
        let ino = self.existing(path)?;
        let inode = self.inodes.get_mut(&ino).ok_or_else(|| error(io::ErrorKind::NotFound, path))?;
        let change = Change::Owner { uid, gid, mode };
        change.apply(&mut inode.now);
        if inode.kind == FileKind::Directory {
            change.apply(&mut inode.durable);
        } else {
            inode.queue.push(change);
        }
        Ok(())
    }

    pub(super) fn sync_file(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.file_mut(path)?;
        inode.durable = inode.now.clone();
        inode.queue.clear();
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.directory(path)?;
        // Backwards, so that a change pulls every earlier change of its names with it: the order of the changes to one
        // name is never turned round.
        let mut pulled: BTreeSet<Name> = BTreeSet::new();
        let mut keep = vec![false; self.queue.len()];
        for (change, keep) in self.queue.iter().zip(keep.iter_mut()).rev() {
            let names = change.names();
            *keep = !names.iter().any(|name| name.0 == dir || pulled.contains(*name));
            if !*keep {
                pulled.extend(names.into_iter().cloned());
            }
        }
        let mut kept = Vec::new();
        for (change, keep) in std::mem::take(&mut self.queue).into_iter().zip(keep) {
            if keep {
                kept.push(change);
            } else {
                change.apply(&mut self.durable_names);
            }
        }
        self.queue = kept;
        Ok(())
    }

    /// Makes everything below a directory durable, as unmounting its volume does.
    pub(super) fn sync_tree(&mut self, path: &Path) -> io::Result<()> {
        let mut dirs = BTreeSet::new();
        let mut open = vec![self.directory(path)?];
        while let Some(ino) = open.pop() {
            if dirs.insert(ino) {
                open.extend(self.names.iter().filter(|((at, _), _)| *at == ino).map(|(_, child)| *child));
            }
            if let Some(inode) = self.inodes.get_mut(&ino) {
                inode.durable = inode.now.clone();
                inode.queue.clear();
            }
        }
        for change in std::mem::take(&mut self.queue) {
            if change.names().iter().any(|name| dirs.contains(&name.0)) {
                change.apply(&mut self.durable_names);
            } else {
                self.queue.push(change);
            }
        }
        Ok(())
    }

    /// Makes everything durable, as an orderly shutdown does.
    pub(super) fn sync_all(&mut self) {
        for inode in self.inodes.values_mut() {
            inode.durable = inode.now.clone();
            inode.queue.clear();
        }
        self.durable_names = self.names.clone();
        self.queue.clear();
    }

    /// The disk as the next start finds it.
    pub(super) fn cut(mut self, mode: CutMode, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        for change in std::mem::take(&mut self.queue) {
            let happens = match mode {
                CutMode::Applied => true,
                CutMode::Dropped => false,
                CutMode::Torn => dice.coin(),
            };
            if happens {
                change.apply(&mut self.durable_names);
            }
        }
        for inode in self.inodes.values_mut() {
            for change in std::mem::take(&mut inode.queue) {
                match mode {
                    CutMode::Applied => change.apply(&mut inode.durable),
                    CutMode::Dropped => {}
                    CutMode::Torn => change.tear(&mut inode.durable, &mut dice),
                }
            }
            inode.now = inode.durable.clone();
        }
        self.durable_names = self.reachable();
        self.names = self.durable_names.clone();
        let alive: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|ino, _| *ino == ROOT || alive.contains(ino));
        self
    }

    /// The durable names that a walk from the root meets: a name in a lost directory is lost with it, and must not
    /// count as a link.
    fn reachable(&self) -> BTreeMap<Name, u64> {
        let mut found = BTreeMap::new();
        let mut open = vec![ROOT];
        while let Some(dir) = open.pop() {
            for (name, ino) in self.durable_names.iter().filter(|((at, _), _)| *at == dir) {
                if found.insert(name.clone(), *ino).is_none() {
                    open.push(*ino);
                }
            }
        }
        found
    }
}

/// `offset` in memory, if `len` bytes behind it still fit.
fn within(offset: u64, len: usize, path: &Path) -> io::Result<usize> {
    let end = offset.checked_add(len as u64).filter(|end| *end <= FILE_MAX);
    end.and_then(|_| usize::try_from(offset).ok()).ok_or_else(|| error(io::ErrorKind::FileTooLarge, path))
}

/// The names along an absolute path. `..` is refused: no caller of ours may need it.
fn parts(path: &Path) -> io::Result<Vec<OsString>> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(OsStr::to_os_string(name)),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(error(io::ErrorKind::InvalidInput, path)),
        }
    }
    Ok(parts)
}
