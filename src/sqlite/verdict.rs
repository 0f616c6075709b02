//! The words of a verdict on a log: values only.

use serde::{Deserialize, Serialize};

use super::overlay::Fold;
use super::rollback::Rollback;
use crate::config::Rung;

/// Second axis of a verdict: is every committed transaction still reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Completeness {
    /// Nothing is missing, and evidence (named beside it) says so.
    Complete,
    /// No evidence either way.
    Unknown,
    /// Committed transactions are not reachable.
    Lossy,
}

/// State of the log as the contract names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WalState {
    /// No such file.
    Absent,
    /// A file without a frame.
    Empty,
    /// A valid chain, and behind it nothing but leftovers.
    Sound,
    /// A valid chain and an unfinished transaction behind it: normal after a power cut.
    TornTail,
    /// The header is gone, or live frames stand behind a break.
    Damaged,
    /// It cannot belong to this database.
    Foreign,
}

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Worth attention; nothing is damaged.
    Warning,
    /// Damage or loss.
    Error,
}

/// One thing found, as the JSON contract has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Severity.
    pub level: Level,
    /// Stable code.
    pub code: String,
    /// Page concerned.
    pub page: Option<u32>,
    /// Frame concerned (0 is the log's header).
    pub frame: Option<u32>,
    /// What was found and what follows, for people.
    pub message: String,
}

impl Finding {
    /// A finding about the whole file.
    pub fn new(level: Level, code: &str, message: impl Into<String>) -> Self {
        Self { level, code: code.to_string(), page: None, frame: None, message: message.into() }
    }

    /// The same, about one frame.
    pub fn at_frame(mut self, frame: u32) -> Self {
        self.frame = Some(frame);
        self
    }

    /// The same, about one page.
    pub fn at_page(mut self, page: u32) -> Self {
        self.page = Some(page);
        self
    }
}

/// How exactly a candidate is a state that was committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exactness {
    /// Exactly the state after the last commit that survives.
    ExactLatest,
    /// Exactly the state after an earlier commit.
    ExactEarlier,
    /// It rests on something that is likely and not proved, named beside it.
    Plausible,
    /// The database file as it is; the log adds nothing.
    #[default]
    DatabaseOnly,
}

/// What a candidate keeps, what it leaves out, and why it can be believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The claim.
    pub exactness: Exactness,
    /// Commits of the log's live generation that are in it.
    pub commits_kept: u32,
    /// Commits that verify and are left out, behind a hole or because nothing proves that they belong.
    pub commits_left_out: u32,
    /// Committed transactions lost; `null` when unknowable.
    pub commits_lost: Option<u32>,
    /// Frames whose images are used though no checksum could be continued to them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub believed: Vec<u32>,
    /// Reasons, as stable codes.
    pub why: Vec<String>,
}

/// One way to a repaired database, to be built in staging and gated by `integrity_check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The rung it belongs to.
    pub rung: Rung,
    /// What is folded into the copy of the database.
    pub base: Fold,
    /// Or what of a rollback journal is put back into it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rollback: Option<Rollback>,
    /// A later commit with a hole in it, from which only appended rows are taken.
    pub extras: Option<Fold>,
    /// Completeness of the result.
    pub completeness: Completeness,
    /// Committed frames that this candidate gives up, where they can be counted.
    pub frames_lost: u32,
    /// True when verified frames of the live salts were left out because nothing proved that they belong.
    pub in_doubt: bool,
    /// How exact it is.
    #[serde(default)]
    pub proof: Proof,
}

/// What the log says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogVerdict {
    /// State by the contract.
    pub state: WalState,
    /// Frame slots in the file.
    pub frames: u32,
    /// Frames up to the last commit of the valid chain: what SQLite would replay.
    pub committed: u32,
    /// Frames verified behind damage.
    pub resyncable: u32,
    /// Completeness as things stand, before any repair.
    pub completeness: Completeness,
    /// Names of the evidence used.
    pub evidence: Vec<String>,
    /// Findings.
    pub findings: Vec<Finding>,
    /// Candidates, best first; empty: nothing to do, or nothing that may be done.
    pub candidates: Vec<Candidate>,
    /// True when the log needs repair, whether or not a candidate exists.
    pub needs_repair: bool,
}
