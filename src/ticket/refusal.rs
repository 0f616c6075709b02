//! Why a ticket is not carried out: a stable code for machines, sentences for the technician, and whether the stick may
//! be written to.
//!
//! Nothing is written to a stick whose ticket is not signed by a key that is trusted now: whoever plugs in a stick of
//! their own learns nothing from it, and a file system of theirs is never written to.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Digest, Nonce, Version};
use crate::keyring::{Distrust, Role};
use crate::retention::utc;
use crate::sign::KeyId;

/// The stable code of a refusal. Codes may be added, never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The ticket is longer than any ticket.
    TooLong,
    /// There is no signature.
    Unsigned,
    /// What should be the signature is none, or is of the legacy kind.
    BadSignature,
    /// Signed with a key that is not in the keyring.
    WrongKey,
    /// Signed with a key that is revoked.
    RevokedKey,
    /// The ticket is not what the key has signed.
    Forged,
    /// The key may not sign tickets for this action.
    WrongRole,
    /// Signed, and not a ticket.
    Malformed,
    /// Made for a newer version of this program.
    NeedsNewerVersion,
    /// For other devices.
    WrongDevice,
    /// For the card that this device had before.
    WrongRecipient,
    /// Carried out before.
    Replayed,
    /// Older than a ticket that was carried out.
    OlderCounter,
    /// Past its last second.
    Expired,
    /// Issued in the future.
    NotYetValid,
    /// Valid for longer than the device accepts.
    TooLongLived,
    /// Archive, files or export beyond what the device accepts.
    TooLarge,
    /// The backup is older than one that the device knows of.
    OlderBackup,
    /// More than one valid ticket.
    Ambiguous,
    /// The device cannot read its own counters.
    StateUnusable,
    /// The device cannot read its keyring.
    KeyringUnusable,
}

impl Code {
    /// All of them.
    pub const ALL: [Code; 21] = [
        Self::TooLong,
        Self::Unsigned,
        Self::BadSignature,
        Self::WrongKey,
        Self::RevokedKey,
        Self::Forged,
        Self::WrongRole,
        Self::Malformed,
        Self::NeedsNewerVersion,
        Self::WrongDevice,
        Self::WrongRecipient,
        Self::Replayed,
        Self::OlderCounter,
        Self::Expired,
        Self::NotYetValid,
        Self::TooLongLived,
        Self::TooLarge,
        Self::OlderBackup,
        Self::Ambiguous,
        Self::StateUnusable,
        Self::KeyringUnusable,
    ];

    /// Its word, as it stands in reports, journal and `RESULT.txt`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::Unsigned => "unsigned",
            Self::BadSignature => "bad-signature",
            Self::WrongKey => "wrong-key",
            Self::RevokedKey => "revoked-key",
            Self::Forged => "forged",
            Self::WrongRole => "wrong-role",
            Self::Malformed => "malformed",
            Self::NeedsNewerVersion => "needs-newer-version",
            Self::WrongDevice => "wrong-device",
            Self::WrongRecipient => "wrong-recipient",
            Self::Replayed => "replayed",
            Self::OlderCounter => "older-counter",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::TooLongLived => "too-long-lived",
            Self::TooLarge => "too-large",
            Self::OlderBackup => "older-backup",
            Self::Ambiguous => "ambiguous",
            Self::StateUnusable => "state-unusable",
            Self::KeyringUnusable => "keyring-unusable",
        }
    }
}

/// A ticket that is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Its code.
    pub code: Code,
    /// What is wrong and why, a sentence.
    pub why: String,
    /// What to do next, a sentence.
    pub next: String,
    /// Whether the stick may be told. Only where a key that is trusted now has signed the ticket.
    pub may_write: bool,
    /// The ticket's nonce, where the ticket could be read and believed.
    pub nonce: Option<Nonce>,
}

const NEW_STICK: &str = "Ask operations to prepare a new stick for this device.";

impl Refusal {
    /// Nobody who is trusted has signed it. The stick is not written to.
    pub(super) fn untrusted(code: Code, why: impl Into<String>, next: &str) -> Self {
        Self { code, why: why.into(), next: next.to_owned(), may_write: false, nonce: None }
    }

    /// One who is trusted has signed it, and it is not carried out all the same.
    pub(super) fn trusted(code: Code, why: impl Into<String>, next: &str) -> Self {
        Self { code, why: why.into(), next: next.to_owned(), may_write: true, nonce: None }
    }

    pub(super) fn distrusted(why: &Distrust) -> Self {
        let (code, next) = match why {
            Distrust::Unsigned => (
                Code::Unsigned,
                "Put the signature file that belongs to it beside the ticket, or ask operations for a new stick.",
            ),
            Distrust::NotASignature(_) => (
                Code::BadSignature,
                "Copy the files of the stick again as operations sent them, or ask for a new stick.",
            ),
            Distrust::WrongKey(_) => (
                Code::WrongKey,
                "Ask operations which key this device trusts; a stick with a newer keyring may have to go first.",
            ),
            Distrust::RevokedKey(_) => (Code::RevokedKey, "Do not use this stick. Tell operations who gave it to you."),
            Distrust::Forged(_) => (
                Code::Forged,
                "Do not use this stick. Tell operations: the ticket was changed after it was signed, or the copy is bad.",
            ),
            Distrust::WrongRole { .. } => {
                return Self::trusted(
                    Code::WrongRole,
                    format!("The ticket cannot be used: {why}."),
                    "Ask operations to sign it with a key of that role.",
                );
            }
        };
        Self::untrusted(code, format!("The ticket is not trusted: {why}."), next)
    }

    pub(super) fn own_key(key: KeyId) -> Self {
        let needs = Role::Restore.name();
        Self::trusted(
            Code::WrongRole,
            format!("The ticket is signed with the key {key} of a device, which can never have the role {needs}."),
            "Tell operations to take the key out of the keyring.",
        )
    }

    pub(super) fn wrong_device(named: &[&str], device: &str) -> Self {
        let whom = match named {
            [one] => format!("for {one}"),
            [one, two] => format!("for {one} and {two}"),
            [one, rest @ ..] => format!("for {one} and {} others", rest.len()),
            [] => "for nobody".to_owned(),
        };
        Self::trusted(
            Code::WrongDevice,
            format!("The ticket is {whom}; this device is {device}."),
            "Take the stick to the device that it is for, or ask operations for one for this device.",
        )
    }

    pub(super) fn wrong_recipient(device: &str, own: Option<Digest>) -> Self {
        let why = match own {
            Some(_) => format!(
                "The ticket was made for the memory card that {device} had before, or for another device of that name."
            ),
            None => format!("{device} has no keys yet, so nothing can have been encrypted for it."),
        };
        Self::trusted(
            Code::WrongRecipient,
            why,
            "Enrol the device first (a stick with the action enrol), then ask operations for a new stick.",
        )
    }

    pub(super) fn replayed() -> Self {
        let why = "The ticket has been carried out on this device already.";
        Self::trusted(Code::Replayed, why, "There is nothing left to do: pull the stick out and send it back.")
    }

    pub(super) fn older_counter(counter: u64, highest: u64) -> Self {
        let why = format!("The ticket has the number {counter}, and this device has carried out number {highest}.");
        Self::trusted(Code::OlderCounter, why, NEW_STICK)
    }

    pub(super) fn expired(expires: u64, at: u64) -> Self {
        let why = format!("The ticket was good until {}, and it is {} at least.", utc::plain(expires), utc::plain(at));
        Self::trusted(Code::Expired, why, NEW_STICK)
    }

    pub(super) fn not_yet_valid(issued: u64, now: u64) -> Self {
        let why = format!("The ticket was made at {}, and here it is {}.", utc::plain(issued), utc::plain(now));
        Self::trusted(
            Code::NotYetValid,
            why,
            "Check the clock of the device and of the desk that made the stick, then start the device again.",
        )
    }

    pub(super) fn needs_version(wanted: Version, has: Version) -> Self {
        let why = format!("The ticket asks for version {wanted} of pyvorin-recovery, and this device has {has}.");
        Self::trusted(
            Code::NeedsNewerVersion,
            why,
            "Update the system of the device first, or ask operations for a ticket that this version can carry out.",
        )
    }

    pub(super) fn older_backup(sequence: u64, newest: u64) -> Self {
        let why = format!("The backup on the stick is number {sequence}, and this device knows of number {newest}.");
        Self::trusted(
            Code::OlderBackup,
            why,
            "Ask operations for the newest backup, or for a ticket that allows an older one and says why.",
        )
    }

    /// The device cannot read its own counters, so no ticket can be told from one that was carried out.
    #[must_use]
    pub fn state_unusable() -> Self {
        Self::trusted(
            Code::StateUnusable,
            "This device cannot read its own records, so it cannot tell whether the ticket has been used.",
            "Nothing was changed. Replace the memory card, enrol the new one, and ask operations for a new stick.",
        )
    }

    /// The device cannot read its keyring, so no signature can be checked. The stick is not written to.
    #[must_use]
    pub fn keyring_unusable(why: &crate::keyring::Fault) -> Self {
        Self::untrusted(
            Code::KeyringUnusable,
            format!("This device cannot use its list of trusted keys: {why}."),
            "Nothing was changed. Start the newer system of this device, or replace the memory card and enrol the new one.",
        )
    }

    /// One of several valid tickets.
    pub(super) fn ambiguous(count: usize) -> Self {
        Self::trusted(
            Code::Ambiguous,
            format!("{count} sticks with a valid ticket are plugged in, and nobody has said which one is meant."),
            "Nothing was changed. Pull out all but one and start the device again.",
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) {}", self.why, self.code.word(), self.next)
    }
}

impl std::error::Error for Refusal {}
