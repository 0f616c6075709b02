//! The vocabulary of plans. A step carries everything it needs, can be run again after any cut, and says what it
//! destroys.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::assess::StructureVerdict;
use super::evidence::FsckLevel;
use crate::reset;
use crate::slots::Slot;
use crate::sqlite::judge::{Candidate, Completeness};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "step")]
pub enum Step {
    /// Record in state that a volume was found unclean, before anything repairs it.
    RecordUnclean {
        /// Volume.
        volume: String,
        /// What its superblock said.
        text: String,
    },
    /// Run e2fsck on an unmounted volume.
    CheckVolume {
        /// Volume.
        volume: String,
        /// How far it may go.
        level: FsckLevel,
    },
    /// Forget that a volume was unclean: the databases on it have been looked at.
    ForgetUnclean,
    /// Finish an operation that a power cut interrupted after its commit, or throw away one that had not committed.
    Resume {
        /// Operation.
        op: String,
    },
    /// Hard links to the originals, or copies, in quarantine, with their digests.
    Preserve {
        /// Operation.
        op: String,
        /// Database.
        database: String,
        /// Files to preserve, the log first.
        files: Vec<PathBuf>,
        /// Directory under quarantine.
        into: PathBuf,
        /// Copies instead of links: the originals stay in use, and a link would share their inode with the writer.
        copy: bool,
    },
    /// Build the first candidate that the engine calls sound, in staging; write PREPARED.
    Build(Box<Build>),
    /// Preserve whatever a factory reset takes away, stage what takes its place, write PREPARED.
    Reset(Box<Reset>),
    /// Commit, swap, verify, finish.
    Install {
        /// Operation.
        op: String,
        /// Database.
        database: String,
    },
    /// Remove the oldest preserved originals of a database, beyond the number the policy keeps.
    Prune {
        /// Database.
        database: String,
        /// Directories under quarantine, oldest first.
        dirs: Vec<PathBuf>,
    },
    /// Count one attempt of a slot in the boot state.
    CountAttempt {
        /// Slot about to be started.
        slot: Slot,
    },
    /// Record that a slot cannot be started.
    MarkBad {
        /// Slot.
        slot: Slot,
    },
    /// Record that recovery was entered, so that it is not entered again for the same reason.
    EnterRecovery {
        /// Digest of the reason.
        digest: String,
    },
}

/// What it takes to build a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Operation.
    pub op: String,
    /// Database.
    pub database: String,
    /// Its two axes as they were found.
    pub found: (StructureVerdict, Completeness),
    /// The path to replace in the end.
    pub path: PathBuf,
    /// The preserved database file; `None` when there was none.
    pub source: Option<PathBuf>,
    /// The preserved log.
    pub log: Option<PathBuf>,
    /// The preserved rollback journal.
    #[serde(default)]
    pub journal: Option<PathBuf>,
    /// Staging directory.
    pub stage: PathBuf,
    /// The preserved wal-index.
    pub index: Option<PathBuf>,
    /// Candidates, best first.
    pub candidates: Vec<Candidate>,
    /// Record of the schema as of the last good boot, for the rungs that need one.
    pub schema: Option<PathBuf>,
    /// The database is the store of the documented product, whose schema is the last resort.
    pub product: bool,
    /// Copies in the directory of decrypted backups, the newest first.
    pub backups: Vec<PathBuf>,
    /// Where the loss manifest goes.
    pub manifest: PathBuf,
    /// Owner, group and mode of the result.
    pub owner: (u32, u32),
    /// Permission bits.
    pub mode: u32,
    /// Side files to retire at the swap.
    pub retire: Vec<PathBuf>,
    /// Who asked.
    pub by: String,
    /// Identity of the data volume, empty where it has none.
    pub volume: String,
    /// When, for the record.
    pub now: u64,
}

/// What it takes to prepare a factory reset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// Operation.
    pub op: String,
    /// What was asked for, and by whom.
    pub request: reset::Request,
    /// The databases to empty.
    pub databases: Vec<ResetDatabase>,
    /// Files of the configuration to take away.
    pub configuration: Vec<PathBuf>,
    /// Configuration that cannot be taken away, with the reason.
    pub left: Vec<String>,
    /// Directory under quarantine.
    pub into: PathBuf,
    /// Staging directory.
    pub stage: PathBuf,
    /// Identity of the data volume, empty where it has none.
    pub volume: String,
    /// When, for the record.
    pub now: u64,
}

/// One database of a factory reset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetDatabase {
    /// Its name.
    pub name: String,
    /// Its path as reports print it.
    pub path: PathBuf,
    /// The path used here.
    pub location: PathBuf,
    /// True for the documented queue, whose schema is known without any database.
    pub queue: bool,
    /// True when its own schema can be trusted.
    pub sound: bool,
    /// Record of its schema as of the last good boot; `None`: there is none.
    pub schema: Option<PathBuf>,
    /// True when an empty database takes its place; false leaves that to the agent.
    pub recreate: bool,
    /// Owner and group of the new one.
    pub owner: (u32, u32),
    /// Permission bits.
    pub mode: u32,
}

impl Step {
    /// The database it works on, if any: when a step of a database fails, the later ones are skipped.
    pub fn database(&self) -> Option<&str> {
        match self {
            Self::Preserve { database, .. } | Self::Install { database, .. } | Self::Prune { database, .. } => {
                Some(database)
            }
            Self::Build(build) => Some(&build.database),
            Self::Reset(_) => Some(reset::SUBJECT),
            _ => None,
        }
    }

    /// What it destroys, in words; `None` when it destroys nothing.
    pub fn destroys(&self) -> Option<&'static str> {
        match self {
            Self::CheckVolume { level: FsckLevel::Preen, .. } => {
                Some("file-system metadata that contradicts its journal")
            }
            Self::CheckVolume { level: FsckLevel::Yes, .. } => Some("file-system metadata that e2fsck cannot explain"),
            Self::Prune { .. } => Some("preserved originals older than the policy keeps"),
            Self::Resume { .. } => Some("an unfinished stage, or the names of files preserved in quarantine"),
            Self::Install { database, .. } if database == reset::SUBJECT => {
                Some("the names of what the reset takes away (preserved in quarantine)")
            }
            Self::Install { .. } => Some("the names of the damaged database and its log (preserved in quarantine)"),
            _ => None,
        }
    }

    /// True when it writes to the data volume.
    pub fn writes_data(&self) -> bool {
        matches!(
            self,
            Self::Resume { .. }
                | Self::Preserve { .. }
                | Self::Build(_)
                | Self::Reset(_)
                | Self::Install { .. }
                | Self::Prune { .. }
        )
    }

    /// True when it writes to the state volume.
    pub fn writes_state(&self) -> bool {
        !matches!(self, Self::CheckVolume { level: FsckLevel::Preen, .. } | Self::Preserve { copy: false, .. })
    }

    /// Short name for progress lines and reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RecordUnclean { .. } => "record-unclean",
            Self::CheckVolume { .. } => "check-volume",
            Self::ForgetUnclean => "forget-unclean",
            Self::Resume { .. } => "resume",
            Self::Preserve { .. } => "preserve",
            Self::Build(_) => "build",
            Self::Reset(_) => "reset",
            Self::Install { .. } => "install",
            Self::Prune { .. } => "prune",
            Self::CountAttempt { .. } => "count-attempt",
            Self::MarkBad { .. } => "mark-bad",
            Self::EnterRecovery { .. } => "enter-recovery",
        }
    }
}

/// How a plan ends. Every plan has exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "ending")]
pub enum Ending {
    /// The OS of this slot may start (`None`: whichever the loader chose).
    Continue {
        /// Slot to start.
        slot: Option<Slot>,
    },
    /// Another slot must be started by the loader.
    RebootInto {
        /// Slot to start.
        slot: Slot,
    },
    /// Stop, show why, wait for a person, then go on.
    Hold {
        /// Why.
        reason: String,
        /// True when this is the recovery system itself.
        recovery: bool,
        /// The slot to go on with after `hold_minutes`; `None`: stay.
        then: Option<Slot>,
    },
}

/// What will be done, in order, and how it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// `pyvorin-recovery/plan/1`.
    pub schema: String,
    /// The steps.
    pub steps: Vec<Step>,
    /// How it ends.
    pub ending: Ending,
    /// Why it ends so, in plain words.
    pub reason: String,
    /// True when the line must be run again afterwards: what was sensed before a resumed operation is out of date.
    pub again: bool,
    /// Why a factory reset that was asked for is not in the plan; `None`: it is, or none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_refused: Option<String>,
}
