//! The plain state file: two copies, `slots.0` and `slots.1`, each a record of [`crate::record`] with a sequence number.
//!
//! Crash order, and what each wrong order would cost:
//! 1. the *older* copy is overwritten ([`FileState::encode_next`]): writing the newer one would leave, after a cut, only
//!    the state of one boot earlier, and after two cuts none;
//! 2. the copy is synced before the slot is started: otherwise the attempt is not counted and a slot that resets the
//!    machine is tried for ever;
//! 3. only after that sync [`FileState::written`] makes it the newest: a failed write is repeated into the same copy,
//!    never into the good one.
//!
//! A cut at any byte of the write leaves a copy that does not decode, and the other, one sequence older, is used.

use serde::{Deserialize, Serialize};

use super::SlotsState;
use crate::record::{self, Decoded};

/// Names of the two copies in the state directory.
pub const NAMES: [&str; 2] = ["slots.0", "slots.1"];
const KIND: &str = "slots";

#[derive(Serialize, Deserialize)]
struct Copy {
    sequence: u64,
    state: SlotsState,
}

/// Where the state in memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Read from a copy.
    Read,
    /// Neither copy exists: a new device.
    New,
    /// No copy could be used; the defaults stand in and prove nothing.
    Unreadable,
}

/// Something worth reporting about a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `slots-copy-damaged`, `slots-copy-missing`, `slots-copy-newer`, `slots-copies-differ` or `slots-unreadable`.
    pub code: String,
    /// In plain words.
    pub message: String,
}

/// What the two copies say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// The state to go on with.
    pub state: SlotsState,
    /// Where it comes from.
    pub origin: Origin,
    /// Which copy holds it.
    pub newest: Option<usize>,
    /// Its sequence number; 0 without a copy.
    pub sequence: u64,
    /// False when a newer version wrote a copy: then neither may be touched.
    pub writable: bool,
    /// What is to be reported.
    pub findings: Vec<Finding>,
}

/// One copy to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// Index into [`NAMES`].
    pub index: usize,
    /// The whole contents.
    pub bytes: Vec<u8>,
    sequence: u64,
    state: SlotsState,
}

/// Reads both copies (`None` = the file does not exist). Total. `tries` is what a new device grants.
#[must_use]
pub fn read(copy0: Option<&[u8]>, copy1: Option<&[u8]>, tries: u32) -> FileState {
    let mut findings = Vec::new();
    let mut writable = true;
    let mut best: Option<(usize, Copy)> = None;
    for (index, (name, bytes)) in NAMES.iter().zip([copy0, copy1]).enumerate() {
        let Some(bytes) = bytes else { continue };
        match believed(bytes) {
            Decoded::Ok(copy) => match &best {
                Some((_, other)) if other.sequence > copy.sequence => {}
                Some((_, other)) if other.sequence == copy.sequence => {
                    if other.state != copy.state {
                        findings
                            .push(finding("differ", "both copies have the same number and differ; the first is used"));
                    }
                }
                _ => best = Some((index, copy)),
            },
            Decoded::Newer { min_reader } => {
                writable = false;
                let message = format!("{name} needs a reader of format {min_reader}; both copies are left untouched");
                findings.push(finding("newer", message));
            }
            Decoded::Damaged(reason) => findings.push(finding("damaged", format!("{name} cannot be used: {reason}"))),
        }
    }
    let present = [copy0, copy1].iter().flatten().count();
    // A second copy does not exist before the second write.
    if let (1, Some((_, copy))) = (present, &best)
        && copy.sequence > 1
    {
        findings.push(finding("missing", "one of the two copies is gone; the other is used"));
    }
    match best {
        Some((index, copy)) => {
            let (state, sequence) = (copy.state, copy.sequence);
            FileState { state, origin: Origin::Read, newest: Some(index), sequence, writable, findings }
        }
        None => {
            let origin = if present == 0 { Origin::New } else { Origin::Unreadable };
            if origin == Origin::Unreadable {
                let message =
                    "no copy of the slot state can be read; each slot gets its tries again, nothing is proved";
                findings.push(Finding { code: "slots-unreadable".to_owned(), message: message.to_owned() });
            }
            FileState { state: SlotsState::fresh(tries), origin, newest: None, sequence: 0, writable, findings }
        }
    }
}

impl FileState {
    /// The copy to write so that `state` becomes the newest; `None` when nothing may be written.
    #[must_use]
    pub fn encode_next(&self, state: &SlotsState) -> Option<Next> {
        if !self.writable {
            return None;
        }
        let index = if self.newest == Some(0) { 1 } else { 0 };
        let sequence = self.sequence.saturating_add(1);
        let bytes = record::encode(KIND, &Copy { sequence, state: state.clone() });
        Some(Next { index, bytes, sequence, state: state.clone() })
    }

    /// Makes a copy the newest, once it is durable. The origin stays: defaults that were written were still not read.
    pub fn written(&mut self, next: Next) {
        self.newest = Some(next.index);
        self.sequence = next.sequence;
        self.state = next.state;
    }
}

/// A copy that decodes is believed only if its contents are possible: the checksum proves who wrote it, not what.
fn believed(bytes: &[u8]) -> Decoded<Copy> {
    match record::decode::<Copy>(KIND, bytes) {
        Decoded::Ok(copy) => match copy.state.impossible() {
            None => Decoded::Ok(copy),
            Some(reason) => Decoded::Damaged(reason.to_owned()),
        },
        other => other,
    }
}

fn finding(what: &str, message: impl Into<String>) -> Finding {
    let code = if what == "differ" { "slots-copies-differ".to_owned() } else { format!("slots-copy-{what}") };
    Finding { code, message: message.into() }
}
