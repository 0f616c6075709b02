//! The intent journal: the record under every operation of more than one step, and the order of its writes.
//!
//! `PREPARED → COMMIT → SWAPPED → DONE` (a restore: `SWAPPED → ROLLBACK` where the new files do not read back), one record in the state directory (`intent`), mirrored as `.pyvorin-intent` in
//! the data directory while it is open. Before COMMIT a power cut discards the stage; from COMMIT on every boot rolls
//! forward. The mirror keeps the agent from starting on a half-made swap (a drop-in of its unit asserts its absence).
//!
//! The swap of one database, and what each wrong order would cost:
//! 1. the staged file is complete, gated by the engine, synced, its name synced: else COMMIT could name a torn file;
//! 2. PREPARED, then the mirror, then COMMIT, each durable before the next: a cut before COMMIT leaves the old database
//!    with its log untouched;
//! 3. the old log and wal-index lose their names and the directory is synced *before* the new file appears: a log whose
//!    head is intact would otherwise be replayed over the new file and revert it (their contents live on in quarantine,
//!    hard-linked and synced before anything else);
//! 4. the staged file is renamed over the database, the directory synced;
//! 5. SWAPPED; the new file's digest is compared; DONE; the mirror goes first, the record last: a record without a
//!    mirror is finished at the next boot, a mirror without a record would block the agent for nothing.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::record;
use crate::reset::Receipt;

/// Kind word of the record.
pub const RECORD: &str = "intent";
/// Name of the record in the state directory.
pub const FILE: &str = "intent";
/// Name of the mirror in the data directory.
pub const MIRROR: &str = ".pyvorin-intent";
/// Name of the staging directory in the data directory.
pub const STAGE: &str = ".stage";
/// Name of the quarantine directory in the data directory.
pub const QUARANTINE: &str = "quarantine";

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Phase {
    /// The staged files are whole; nothing of the old state has been touched.
    Prepared,
    /// Only forward from here.
    Commit,
    /// Every target is in place.
    Swapped,
    /// Nothing is left but to forget the record.
    Done,
    /// What was put in place did not read back: the originals go back to where they were.
    Rollback,
}

/// One file to put in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Name of the database.
    pub database: String,
    /// The path to replace.
    pub path: PathBuf,
    /// The staged file; empty where nothing takes the place.
    pub staged: PathBuf,
    /// SHA-256 of the staged file, lower-case hex; empty where nothing takes the place.
    pub sha256: String,
    /// Side files of the old database that must lose their names before the new one appears.
    pub retire: Vec<PathBuf>,
    /// Directory of its originals under quarantine; empty: the directory of the operation itself.
    #[serde(default)]
    pub kept: PathBuf,
}

impl Target {
    /// True when the path only loses its file.
    #[must_use]
    pub fn goes(&self) -> bool {
        self.sha256.is_empty()
    }
}

/// The record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Name of the operation, also of its stage and quarantine directories.
    pub op: String,
    /// "repair", "rebuild", "import", "reset", "restore".
    pub kind: String,
    /// How far it is.
    pub phase: Phase,
    /// Seconds since the epoch when it was prepared.
    pub prepared_at: u64,
    /// Who asked for it: a technician as claimed, or "unattended".
    pub by: String,
    /// Identity of the data volume, so that a mirror on a copied card is not obeyed.
    pub volume: String,
    /// Directory of the staged files.
    pub stage: PathBuf,
    /// The files, in order.
    pub targets: Vec<Target>,
    /// What the journal of events is to say once it is done: a JSON object. Empty in records of older versions.
    #[serde(default)]
    pub note: String,
    /// What the report is to say of it, should a later boot finish it: a JSON object. A repair that gave something up must
    /// not look like a healthy database because the power was cut before its report was written. May be empty.
    #[serde(default)]
    pub outcome: String,
    /// Receipt of a factory reset, written once the swap is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<Receipt>>,
}

impl Intent {
    /// The bytes of its record. A reader that does not know targets that go away would stop half-way through them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let reader = match self.phase {
            Phase::Rollback => 3,
            _ if self.targets.iter().any(Target::goes) || self.receipt.is_some() => 2,
            _ => 1,
        };
        record::encode_for(reader, RECORD, self)
    }
}

/// What was found of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntentEvidence {
    /// No open operation.
    None,
    /// An open operation.
    Open(Box<Intent>),
    /// A record that a newer version wrote: left alone.
    Newer(u32),
    /// A record that cannot be read; the reason.
    Damaged(String),
}
