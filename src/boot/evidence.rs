//! What *sense* found: facts and failures to look, no judgement. Serialisable, so that a report from the field can be
//! replayed on a desk (`boot --plan --from evidence.json`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::edge::Stat;
use crate::ext4::Superblock;
use crate::journal::IntentEvidence;
use crate::reset::Request;
use crate::slots::Slot;
use crate::slots::file::FileState;
use crate::sqlite::check::{Scope, Structure};
use crate::sqlite::header::{Header, HeaderFault};
use crate::sqlite::observe::{ShmState, WalEvidence};
use crate::sqlite::rollback::JournalEvidence;

/// Everything sensed in one pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// `pyvorin-recovery/evidence/1`.
    pub schema: String,
    /// Seconds since the epoch by the wall clock; names operations, decides nothing.
    pub now: u64,
    /// Who asked: a technician as claimed, or "unattended".
    pub by: String,
    /// Volumes, where this machine has its own ("state", "data").
    pub volumes: Vec<VolumeEvidence>,
    /// The state directory.
    pub state: DirectoryFact,
    /// The data directory.
    pub data: DirectoryFact,
    /// Free bytes on the data volume.
    pub free_bytes: u64,
    /// UUID of the file system of the data directory as it is mounted; empty where that is not known.
    #[serde(default)]
    pub data_uuid: String,
    /// The intent journal.
    pub intent: IntentEvidence,
    /// True when the mirror of an intent stands in the data directory.
    pub mirror: bool,
    /// Steps that were begun and not ended, with the number of times.
    pub trials: BTreeMap<String, u32>,
    /// True when a volume was unclean at an earlier, unfinished pass.
    pub unclean_before: bool,
    /// Boot state; `None` outside the boot flow and with a foreign backend.
    pub slots: Option<SlotsEvidence>,
    /// A factory reset that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<ResetEvidence>,
    /// The supervised databases.
    pub databases: Vec<DatabaseEvidence>,
}

/// Whether a directory can be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DirectoryFact {
    /// It can be listed.
    Usable,
    /// It does not exist (a state directory is then made when first needed).
    Absent,
    /// It cannot be read, or its volume is not there; the reason.
    Unusable(String),
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeEvidence {
    /// "state" or "data".
    pub name: String,
    /// What its first bytes say.
    pub head: VolumeFact,
    /// e2fsck runs of this boot: arguments and exit status.
    pub checks: Vec<(FsckLevel, i32)>,
}

/// What a volume holds, read as bytes before any mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeFact {
    /// No device of that name appeared.
    Missing(String),
    /// The device could not be read.
    Unreadable(String),
    /// An ext2, ext3 or ext4 file system.
    Ext(Box<Superblock>),
    /// Something else; what it looks like.
    Foreign(String),
}

/// How far e2fsck may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FsckLevel {
    /// `-p`: replay the journal and fix what is safe.
    Preen,
    /// `-y` with an undo file in the state directory.
    Yes,
}

/// Boot state as read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotsEvidence {
    /// What the two copies say; defaults, and never said to be read, where neither could be.
    pub file: FileState,
    /// Slots that were tried in this boot and could not be started.
    pub dead: Vec<Slot>,
    /// A slot asked for on the kernel command line.
    pub asked: Option<Slot>,
}

/// A factory reset that was asked for, and what it would touch beside the databases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetEvidence {
    /// The request.
    pub request: Request,
    /// It was executed already.
    pub used: bool,
    /// Why that cannot be told.
    pub unknown: Option<String>,
    /// Configuration files that it takes away.
    pub configuration: Vec<PathBuf>,
    /// Configuration that it cannot take away, with the reason.
    pub left: Vec<String>,
}

/// The database file itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileFact {
    /// Nothing has that name.
    Missing,
    /// It cannot be read; the reason.
    Unreadable(String),
    /// A directory, link, pipe or device stands in its place.
    NotAFile,
    /// A regular file.
    Present(Stat),
}

/// One database with its side files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseEvidence {
    /// Configured name.
    pub name: String,
    /// The path as reports print it.
    pub path: PathBuf,
    /// The path used here.
    pub location: PathBuf,
    /// The file.
    pub file: FileFact,
    /// Owner and group a replacement should have when there is no file to take them from.
    pub directory_owner: Option<(u32, u32)>,
    /// Its header as in the file (the log may hold a newer one).
    pub header: Option<Result<Header, HeaderFault>>,
    /// The log.
    pub wal: WalEvidence,
    /// The wal-index.
    pub shm: ShmState,
    /// True when SQLite would play a rollback journal back.
    pub hot_journal: bool,
    /// The rollback journal.
    #[serde(default)]
    pub journal: JournalEvidence,
    /// Structure of what SQLite would see (database with the valid chain laid over it); `None` when nothing could be
    /// read or the file moved while it was.
    pub structure: Option<Structure>,
    /// Whether the database without its log is sound by a full check, where one was made: the log is in question then.
    #[serde(default)]
    pub sound_alone: Option<bool>,
    /// The scope asked for.
    pub scope: Scope,
    /// True when the file changed under the reader more than once: a live database.
    pub moving: bool,
    /// True when the volume was cleanly unmounted.
    pub superblock_clean: bool,
    /// Copies of it in the directory of decrypted backups, the newest first.
    #[serde(default)]
    pub backups: Vec<PathBuf>,
    /// Record of its schema as of the last good boot.
    #[serde(default)]
    pub schema_record: Option<PathBuf>,
    /// Processes that have the database or its log open, where that was asked for.
    pub held_by: Vec<String>,
}
