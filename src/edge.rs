//! The rim: the two traits through which the outside world is reached, and their two implementations.
//!
//! [`Look`] can only read; [`Machine`] adds every write. `sense` receives `&dyn Look`, so that sensing writes nothing by
//! type (invariant I2); only `act` receives `&mut dyn Machine`. Domain modules (`sqlite`, `slots`, `journal`, `ext4`,
//! `config`) never import this module: they take bytes, text or a [`crate::sqlite::ReadAt`].
//!
//! [`linux`] talks to the kernel. [`sim`] is a machine in memory whose disk cuts the power at the n-th sync and applies,
//! drops or tears every write that was not yet durable: the same `act` runs on both.

pub mod crew;
pub mod durable;
pub mod engine;
pub mod linux;
pub mod sim;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sqlite::ReadAt;
use crate::sqlite::check::{Alone, Crew};
use crate::sqlite::overlay::Fold;
use crate::sqlite::salvage::loss::TableLoss;
use crate::sqlite::salvage::{Input, Report, SavedSchema};

/// What kind of object a path names. Symbolic links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, device, socket or pipe.
    Other,
}

/// The facts of one path, as lstat(2) gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Kind of object.
    pub kind: FileKind,
    /// Length in bytes.
    pub len: u64,
    /// Inode number; names the file across renames and hard links.
    pub ino: u64,
    /// Number of hard links.
    pub nlink: u64,
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification, nanoseconds since the epoch.
    pub mtime_ns: i64,
}

/// Everything that can be asked without changing a byte.
pub trait Look {
    /// Facts of `path`; `None` when nothing has that name.
    fn stat(&self, path: &Path) -> io::Result<Option<Stat>>;
    /// Opens a regular file for positioned reads (never following a symbolic link, never blocking on a pipe).
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadAt + '_>>;
    /// Opens a regular file for reading from its beginning, under the rules of [`Look::open`], for as long as it is read.
    fn reader(&self, path: &Path) -> io::Result<Box<dyn io::Read>>;
    /// Names in a directory, sorted. A missing directory is an error of kind `NotFound`.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;
    /// Seconds since the epoch by the wall clock. Never decides anything; it names operations and stamps records.
    fn clock(&self) -> u64;
    /// True when something that knows the time has set the clock since this machine started.
    fn clock_is_set(&self) -> bool {
        true
    }
    /// Milliseconds since this machine started.
    fn uptime_ms(&self) -> u64;
    /// Milliseconds of processor time that this process has used; 0 where nothing counts it.
    fn cpu_ms(&self) -> u64 {
        0
    }
    /// A secret of this run, for sums that whoever made a file must not be able to foresee. Machines without a source of
    /// randomness give the same one each time: the sums are then as good against chance, and not against intent.
    fn secret(&self) -> [u64; 2] {
        [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344]
    }
    /// Who does the work of a full check.
    fn crew(&self) -> &dyn Crew {
        &Alone
    }
    /// Bytes an unprivileged writer may still allocate on the volume of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// The first bytes of a volume's block device ("state", "data"), read before any mount.
    fn volume_head(&self, volume: &str) -> VolumeHead;
    /// UUID of the file system that holds `dir`, as text; `None` where it has none that we can read.
    fn volume_id(&self, _dir: &Path) -> Option<String> {
        None
    }
    /// Other processes that have `path` open, as "name (pid)"; empty when none or when that cannot be seen.
    fn holders(&self, path: &Path) -> Vec<String>;
    /// One line of progress for whoever watches; also extends the deadline of the running stage.
    fn progress(&self, line: &str);
}

/// The first bytes of a volume, as far as they could be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeHead {
    /// This machine has no volume of that name of its own: its files lie in a directory.
    NotConfigured,
    /// No device answers to its name; the reason.
    Missing(String),
    /// The device could not be read; the reason.
    Unreadable(String),
    /// At least [`crate::ext4::HEAD_LEN`] bytes, or all there are.
    Head(Vec<u8>),
}

/// How a volume is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read-only and without journal replay (`ro,noload`): nothing is written.
    ReadOnly,
    /// Read-write, private to us, nosuid,nodev,noexec.
    ReadWrite,
}

/// A whole-row result of merging appended rows: one per table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableGain {
    /// Table name.
    pub table: String,
    /// Rows inserted.
    pub inserted: u64,
}

/// Rows of one table as the real engine counts them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRows {
    /// Table name.
    pub table: String,
    /// Rows in it.
    pub rows: u64,
}

/// What a salvage reads, by paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SalvageJob {
    /// The database; `None` when there is none.
    pub db: Option<PathBuf>,
    /// Its log.
    pub wal: Option<PathBuf>,
    /// Its wal-index.
    pub shm: Option<PathBuf>,
    /// Its rollback journal.
    pub journal: Option<PathBuf>,
    /// Which frames of the log to lay over; `None`: the judge of logs chooses.
    pub fold: Option<Fold>,
    /// Schemas from elsewhere, the most trusted first, each with the name of its source.
    pub schemas: Vec<(String, SavedSchema)>,
}

impl SalvageJob {
    /// Opens what is named and hands it to `act`.
    fn with<T>(&self, look: &dyn Look, act: impl FnOnce(&Input<'_>) -> io::Result<T>) -> io::Result<T> {
        let open = |path: &Option<PathBuf>| path.as_ref().map(|p| look.open(p)).transpose();
        let (db, wal, shm, journal) = (open(&self.db)?, open(&self.wal)?, open(&self.shm)?, open(&self.journal)?);
        act(&Input {
            db: db.as_deref(),
            wal: wal.as_deref(),
            shm: shm.as_deref(),
            journal: journal.as_deref(),
            fold: self.fold.clone(),
            schemas: self.schemas.clone(),
        })
    }
}

/// Everything that changes something. Every method maps to one system call or one bounded action, so that the
/// simulated machine can cut the power between any two of them. Nothing is durable before the sync that says so:
/// file contents by [`Machine::sync_file`], names by [`Machine::sync_dir`].
pub trait Machine: Look {
    /// Upcast, for the stages that may only look.
    fn as_look(&self) -> &dyn Look;

    /// Creates a directory (mode 0700); succeeds when it exists already.
    fn make_dir(&mut self, path: &Path) -> io::Result<()>;
    /// Hard link `to` naming the file of `from`; an existing `to` is an error of kind `AlreadyExists`.
    fn link(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Renames, replacing a file at `to`.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a name; a missing one is not an error.
    fn unlink(&mut self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory; a missing one is not an error.
    fn remove_dir(&mut self, path: &Path) -> io::Result<()>;
    /// Creates or truncates a file (mode 0600) and writes all of `bytes`.
    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Writes `bytes` at `offset` of an existing file.
    fn write_at(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Sets the length of an existing file.
    fn set_len(&mut self, path: &Path, len: u64) -> io::Result<()>;
    /// Copies the contents of `from` into the new file `to` (mode 0600, truncated if it exists). Unsynced.
    fn copy(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Sets owner, group and permission bits.
    fn set_owner(&mut self, path: &Path, uid: u32, gid: u32, mode: u32) -> io::Result<()>;
    /// Makes the contents of a file durable.
    fn sync_file(&mut self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&mut self, path: &Path) -> io::Result<()>;

    /// Fills `into` with randomness that is good enough for keys, or fails.
    fn random(&mut self, into: &mut [u8]) -> io::Result<()>;
    /// By the real engine, the one exception to "staged copies only": the state of a database that another process has
    /// open, as of one moment, into the new file `out`, by the backup interface inside one read transaction. Never
    /// checkpoints. At most `rate` bytes a second, 0 for no limit. Unsynced.
    fn engine_snapshot(&mut self, live: &Path, out: &Path, rate: u64) -> io::Result<()>;
    /// `PRAGMA integrity_check` by the real engine on a *staged* file: the lines it prints (`["ok"]` when sound) and
    /// the rows of each table. Leaves no side file and the contents unchanged.
    fn engine_check(&mut self, staged: &Path) -> io::Result<(Vec<String>, Vec<TableRows>)>;
    /// What the real engine says of CHECK constraints in a *staged* file, which [`Machine::engine_check`] does not look
    /// at: one line for each table with rows that break one. Leaves no side file and the contents unchanged.
    fn engine_constraints(&mut self, staged: &Path) -> io::Result<Vec<String>>;
    /// By the real engine, on two *staged* files: inserts into every rowid table of `base` the rows of `donor` whose
    /// rowid lies above the highest of `base`. Triggers and foreign keys are off. Leaves no side file.
    fn engine_append(&mut self, base: &Path, donor: &Path) -> io::Result<Vec<TableGain>>;
    /// By the real engine, into a *staged* queue: rows with their ids, times and retries. Gives those that the engine
    /// refused, by their place in the list, with its words. Leaves no side file.
    fn engine_queue(&mut self, staged: &Path, load: &engine::queue::Load) -> io::Result<engine::queue::Refused>;
    /// By the real engine: everything recoverable out of damaged files into the new *staged* file `out`. Reads the files
    /// of `job` as bytes and never opens them with the engine. Leaves no side file.
    fn engine_salvage(&mut self, job: &SalvageJob, out: &Path) -> io::Result<Report>;
    /// By the real engine, on a *staged* file: builds every index anew. `Some` says why it could not.
    fn engine_reindex(&mut self, staged: &Path) -> io::Result<Option<String>>;
    /// By the real engine, on two *staged* files: puts rows of `backup` where `losses` say that rows of `base` were lost.
    fn engine_merge(&mut self, base: &Path, backup: &Path, losses: &[TableLoss]) -> io::Result<Vec<TableGain>>;

    /// Attaches the named volume ("state", "data") at its configured place, or changes how it is attached.
    /// On machines without volumes of their own (a laptop, `--root`) this does nothing.
    fn attach(&mut self, volume: &str, access: Access) -> io::Result<()>;
    /// Detaches a volume after a sync.
    fn detach(&mut self, volume: &str) -> io::Result<()>;
    /// Runs `e2fsck` on the block device of a volume with the given arguments (without the device) and returns its
    /// exit status, bounded by `limit_seconds`.
    fn fsck(&mut self, volume: &str, args: &[String], limit_seconds: u64) -> io::Result<i32>;
}
