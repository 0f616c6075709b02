//! What became of a plan, step by step.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::assess::StructureVerdict;
use crate::edge::{TableGain, TableRows};
use crate::reset::Receipt;
use crate::sqlite::judge::{Completeness, Proof};
use crate::sqlite::salvage::TableReport;

/// The result of one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Name of the step.
    pub step: String,
    /// Database concerned.
    pub database: Option<String>,
    /// How it went.
    pub result: StepResult,
    /// Milliseconds it took.
    pub elapsed_ms: u64,
}

/// How a step went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(clippy::large_enum_variant)] // a handful of them in a plan
pub enum StepResult {
    /// Done.
    Done(Box<Detail>),
    /// Not run because an earlier step of the same database failed.
    Skipped(String),
    /// Failed; nothing it had begun is visible to the OS.
    Failed(String),
}

/// A receipt, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The receipt.
    pub receipt: Receipt,
    /// Its file; a text for people beside it.
    pub file: PathBuf,
}

/// Facts only some steps yield.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// What was done, in words.
    pub text: String,
    /// Rung taken: the contract's `action` word.
    pub action: Option<String>,
    /// Completeness of the result.
    pub completeness: Option<Completeness>,
    /// Rows per table of the result.
    pub tables: Vec<TableRows>,
    /// Rows taken over from a later commit.
    pub gained: Vec<TableGain>,
    /// What the engine says of CHECK constraints of the result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<String>,
    /// Where the originals are.
    pub quarantine: Option<PathBuf>,
    /// Digests of the preserved originals (name, SHA-256).
    pub digests: Vec<(String, String)>,
    /// Exit status of a program.
    pub exit: Option<i32>,
    /// Rows lost per table, where the result was salvaged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<TableReport>,
    /// Rows that went to lost-and-found.
    #[serde(default)]
    pub lost_and_found: u64,
    /// The loss manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PathBuf>,
    /// Committed frames given up.
    pub frames_lost: u32,
    /// True when verified frames were left out because nothing proved that they belong.
    pub in_doubt: bool,
    /// Receipt of a factory reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Box<Issued>>,
    /// How exact the result is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proof: Option<Box<Proof>>,
    /// Set where an earlier run had built this and a cut of power left the rest to us.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resumed: Option<Box<Resumed>>,
}

/// The database of an operation that is finished later than it was begun, as it was found then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// Its name.
    pub database: String,
    /// First axis.
    pub structure: StructureVerdict,
    /// Second axis.
    pub completeness: Completeness,
}
