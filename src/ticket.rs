//! The ticket of a stick: one order to certain devices, signed by operations, carried out once.
//!
//! ```json
//! {"type":"pyvorin/ticket/1","action":"restore","nonce":"32 hex digits","counter":17,"key":"BE787045F7423D0B",
//!  "devices":[{"id":"GW-042","recipient_sha256":"64 hex digits"}],
//!  "technician":"T-17","reason":"card replaced","issued":1795636800,"expires":1796241600,"min_version":"0.1.0",
//!  "archive":{"sha256":"64 hex digits","length":139700000,"sequence":41},
//!  "files":[{"name":"edge_store.db","length":527000000,"sha256":"64 hex digits"}],
//!  "allow_older":false,"include_certs":false}
//! ```
//!
//! | action | has besides the common fields | key of role |
//! |---|---|---|
//! | `restore` | `archive`, `files`; may have `allow_older` (with a `reason`), `include_certs`; one device | `restore` |
//! | `reset` | `reset`: `tier`, `accept_loss`; a `reason` | `restore` |
//! | `keyring` | `keyring`: `sha256`, `length`, `version` of the keyring on the stick | `keyring` |
//! | `export` | `export`: `reserve`, bytes kept free for it on the stick | `restore` |
//! | `enrol` | nothing | `restore` |
//!
//! * `type` is what keeps a signature over anything else from being one over a ticket.
//! * `key` is the id of the key that signs, so that another key cannot be put under the same text.
//! * `devices` are named one by one, there is no "all". `recipient_sha256` is the SHA-256 of the device's restore recipient
//!   (`age1…`, no line end). It ties the ticket to the card that the device had: on a replaced card it does nothing. Only
//!   `keyring` and `enrol` go without.
//! * `counter` is greater than that of every ticket before it for the same device; `nonce` tells "this one has been
//!   carried out" from "an older one". A ticket is used if and only if the COMMIT record of an operation carries both
//!   ([`Used`]); that record and the counter live in state, outside of what is restored or reset.
//! * Where a file goes is not in the ticket: the device has its own table.
//! * Times are seconds since 1970, UTC. `reason` and names are printable ASCII, since they end up on consoles.
//!
//! The bytes are bounded ([`MAX_LEN`]), unknown and doubled fields are refused, as are fields of another action. Nothing in
//! them is looked at before the signature has been checked ([`judge`]).

mod device;
mod ending;
mod hex;
mod judge;
mod raw;
mod refusal;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::keyring::Role;
use crate::reset::Tier;
use crate::sign::{KeyId, SigningKey, sign};

pub use device::{DeviceCard, DeviceFault};
pub use ending::{Ending, Loss, Place, REPORT_LEN, RESULT_LEN, padded};
pub use hex::Hex;
pub use judge::{Accepted, Clock, Facts, Memory, Policy, Used, judge, only_one, raise_floor, time_floor};
pub use raw::Malformed;
pub use refusal::{Code, Refusal};

/// `type` of a ticket.
pub const TYPE: &str = "pyvorin/ticket/1";
/// Longest ticket, in bytes.
pub const MAX_LEN: usize = 64 << 10;

/// The files of a stick, all of them in [`fat::DIRECTORY`](crate::fat::DIRECTORY). Those that the device writes lie there
/// already, at the size that they keep.
pub mod files {
    /// The ticket.
    pub const TICKET: &str = "ticket.json";
    /// Its signature.
    pub const TICKET_SIGNATURE: &str = "ticket.json.minisig";
    /// What is restored, encrypted to the device.
    pub const ARCHIVE: &str = "archive.tar.zst.age";
    /// A keyring, for the action `keyring`.
    pub const KEYRING: &str = "keyring.json";
    /// Its signature.
    pub const KEYRING_SIGNATURE: &str = "keyring.json.minisig";
    /// Revocations. They need no ticket.
    pub const REVOCATION: &str = "revocation.json";
    /// Their signature.
    pub const REVOCATION_SIGNATURE: &str = "revocation.json.minisig";
    /// For whoever plugs it in.
    pub const README: &str = "README.txt";
    /// Written by the device: how it ended, for the technician.
    pub const RESULT: &str = "RESULT.txt";
    /// Written by the device: how it ended, for operations.
    pub const REPORT: &str = "report.json";
    /// Written by the device: its signature over the report as it fills its file.
    pub const REPORT_SIGNATURE: &str = "report.json.minisig";
    /// Written by the device: how it ended, with pictures.
    pub const REPORT_PAGE: &str = "report.html";
    /// Written by the device: its public card, for the action `enrol`.
    pub const DEVICE: &str = "device.pub";
    /// Written by the device: quarantine and reports, encrypted to operations, for the action `export`.
    pub const EXPORT: &str = "export.tar.zst.age";
}

/// What tells one ticket from every other.
pub type Nonce = Hex<16>;
/// A SHA-256.
pub type Digest = Hex<32>;

/// A ticket whose fields fit together. That says nothing about who has signed it: [`judge`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Random.
    pub nonce: Nonce,
    /// Rises with every ticket for a device.
    pub counter: u64,
    /// The key that signs it.
    pub key: KeyId,
    /// Whom it is for; at least one.
    pub devices: Vec<Target>,
    /// Who carries it.
    pub technician: String,
    /// Why; printable ASCII.
    pub reason: Option<String>,
    /// When it was made, seconds since 1970.
    pub issued: u64,
    /// Last second at which it may be used.
    pub expires: u64,
    /// Oldest version of this program that may carry it out.
    pub min_version: Option<Version>,
    /// What is to be done.
    pub action: Action,
}

/// One device of a ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Its id.
    pub id: String,
    /// [`recipient_digest`] of its restore recipient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient_sha256: Option<Digest>,
}

/// What a ticket asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Restore the archive on the stick.
    Restore(Restore),
    /// Factory reset.
    Reset(Reset),
    /// Take over the keyring on the stick.
    Keyring(KeyringFile),
    /// Write quarantine and reports, encrypted to operations, into the file that waits for it.
    Export(Export),
    /// Write the device's public keys into the file that waits for it.
    Enrol,
}

/// What is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    /// The archive, as it lies on the stick.
    pub archive: Archive,
    /// Every file in it, in order.
    pub files: Vec<FileFact>,
    /// It may be older than backups that the device knows of.
    pub allow_older: bool,
    /// Certificates in it are restored too.
    pub include_certs: bool,
}

/// The encrypted archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Of its bytes.
    pub sha256: Digest,
    /// Its length in bytes.
    pub length: u64,
    /// Sequence number of the backup that it was made from.
    pub sequence: u64,
}

/// One file in the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileFact {
    /// Its name in the archive: a relative path of labels.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// Of its bytes.
    pub sha256: Digest,
}

/// How far a reset goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reset {
    /// Which tier.
    pub tier: Tier,
    /// Go on where something cannot be preserved.
    pub accept_loss: bool,
}

/// The keyring on the stick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyringFile {
    /// Of its bytes.
    pub sha256: Digest,
    /// Its length in bytes.
    pub length: u64,
    /// Its version.
    pub version: u32,
}

/// Where an export goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// Length in bytes of the file that waits for it.
    pub reserve: u64,
}

impl KeyringFile {
    /// Whether the keyring on the stick is the one that the ticket means. Whether it is taken is for
    /// [`Keyring::update`](crate::keyring::Keyring::update) to say, which asks for a signature of its own.
    #[must_use]
    pub fn holds(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.length && Hex(Sha256::digest(bytes).into()) == self.sha256
    }
}

impl Action {
    /// Its word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Restore(_) => "restore",
            Self::Reset(_) => "reset",
            Self::Keyring(_) => "keyring",
            Self::Export(_) => "export",
            Self::Enrol => "enrol",
        }
    }

    /// The role that the signing key needs.
    #[must_use]
    pub fn role(&self) -> Role {
        if matches!(self, Self::Keyring(_)) { Role::Keyring } else { Role::Restore }
    }

    /// Whether it must name the restore recipient of each device.
    fn needs_recipient(&self) -> bool {
        !matches!(self, Self::Keyring(_) | Self::Enrol)
    }
}

impl Ticket {
    /// Reads a ticket, after its signature has been checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        raw::parse(bytes)
    }

    /// The text of the ticket, always the same for the same ticket. Fails where [`Self::parse`] would refuse it.
    pub fn text(&self) -> Result<String, Malformed> {
        raw::text(self)
    }

    /// Text and signature file of a ticket, for the stick. The signing key must be the one that the ticket names.
    pub fn sign(&self, key: &SigningKey) -> Result<(String, String), Malformed> {
        if key.public().id() != self.key {
            return Err(Malformed::Unfit(format!(
                "it names the key {} and is signed by {}",
                self.key,
                key.public().id()
            )));
        }
        let text = self.text()?;
        let comment = format!("pyvorin ticket {} counter {}", self.nonce, self.counter);
        let minisig = sign(key, text.as_bytes(), &comment);
        Ok((text, minisig))
    }
}

/// The digest by which tickets name a restore recipient: of its text, `age1…`, without a line end.
#[must_use]
pub fn recipient_digest(recipient: &str) -> Digest {
    Hex(Sha256::digest(recipient.as_bytes()).into())
}

/// A version of this program: three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// The version of `1.2.3`, in that one form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        let version = Self(parts.next()??, parts.next()??, parts.next()??);
        (version.to_string() == text).then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a version is three numbers with dots"))
    }
}
