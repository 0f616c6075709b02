//! Configuration in two stages: [`fragment`] is the file as written (every key is consumed by the reader that knows it,
//! and what is left over is a fault), [`settings`] are the validated values every other module uses. [`inputs`] leads
//! from one to the other. Parsing is pure: text in, settings and faults out.
//!
//! Two doors, because a mistake must cost different things. [`parse`] serves the command line: one fault and nothing
//! is done. [`Settings::lenient`] serves the boot: each fault becomes a finding, its key takes the default, and the
//! machine starts (invariant I9). Both collect all faults, so that a file is corrected in one round.

pub mod fragment;
pub mod inputs;
pub mod settings;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use settings::{Button, Database, DatabaseKind, OnTrouble, Rung, Settings, SlotBackend};

/// Something in the file that cannot be used: where it stands, what it is, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Section and key, such as `boot.check_budget_ms`, `database.edge_store.mode`, or `database[2].path` where the
    /// entry (counted from 1) has no usable name. Empty for a file that is not TOML at all.
    pub path: String,
    /// Line in the file, from 1.
    pub line: u32,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// True for 1 to `most` letters, digits, dots, underscores and hyphens: what may name a device or a technician, because
/// it may then stand in file names, reports and command lines as it is.
#[must_use]
pub fn is_label(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// The settings that `text` asks for, or everything that is wrong with it.
pub fn parse(text: &str) -> Result<Settings, Vec<Fault>> {
    let (settings, faults) = inputs::read(text, inputs::Door::CommandLine);
    if faults.is_empty() { Ok(settings) } else { Err(faults) }
}

impl Settings {
    /// The settings for a boot: whatever of `text` can be used, the defaults for the rest, and the faults to report.
    ///
    /// A text that is not TOML yields the defaults alone: after a syntax error nobody knows which section a key
    /// belongs to, and a device name must never slip from one section into another.
    #[must_use]
    pub fn lenient(text: &str) -> (Settings, Vec<Fault>) {
        inputs::read(text, inputs::Door::Boot)
    }
}
