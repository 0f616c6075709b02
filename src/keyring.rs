//! Whose word counts: the operations keys that may sign tickets and keyrings.
//!
//! ```json
//! {"type":"pyvorin/keyring/1","format":1,"min_reader":1,"version":2,
//!  "keys":[{"id":"BE787045F7423D0B","public":"RWQLPUL3RXB4vi…","roles":["restore"],"name":"operations-2026"}],
//!  "revoked":["1F2E3D4C5B6A7988"]}
//! ```
//!
//! | role | its tickets |
//! |---|---|
//! | `restore` | restore, reset, export, enrol |
//! | `keyring` | keyring updates and revocations, nothing else |
//!
//! The key of a device stands in no keyring: it signs that device's backups and authorises nothing.
//!
//! Rules, in the order in which they are applied:
//! 1. The *present* keyring is, of the one baked into the image and the one in state, the one of the higher version; the
//!    baked one when they are equal. What either of them revokes is revoked ([`present`]).
//! 2. An update is signed by an unrevoked key of role `keyring` of the present one, and its version is higher: an old
//!    keyring that was once right can never come back ([`Keyring::update`]).
//! 3. Revocations are kept for ever, whatever an update says. A list of them on its own is enough, so that a stolen key
//!    can be shut out with one small file; it only ever adds, so there is no harm in seeing it again ([`Keyring::revoke`]).
//! 4. A keyring that was written for a newer reader is not used, not replaced, and *not passed over*: to go on with the
//!    baked one would forget revocations. The same holds for a damaged one. Nothing is then accepted.
//!
//! Not held off: whoever has stolen a key of role `keyring` can publish keyrings until another such key revokes it.
//! Keep these keys offline and have two of them.

mod raw;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::sign::{self, KeyId, PublicKey, Signature};

/// `type` of a keyring.
pub const TYPE: &str = "pyvorin/keyring/1";
/// `type` of a list of revocations on its own.
pub const REVOCATION_TYPE: &str = "pyvorin/revocation/1";
/// Longest keyring or list of revocations, in bytes.
pub const MAX_LEN: usize = 64 << 10;
/// Most keys in a keyring.
pub const MAX_KEYS: usize = 64;
/// Most revocations; a keyring that holds them all still fits [`MAX_LEN`].
pub const MAX_REVOKED: usize = 1024;
/// How far a version may rise at once: one bad update must not use up the numbers of all later ones.
pub const MAX_STEP: u32 = 1000;

/// What a key may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Tickets that restore, reset, export or enrol.
    Restore,
    /// Keyrings and revocations.
    Keyring,
}

impl Role {
    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::Keyring => "keyring",
        }
    }
}

/// One operations key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub public: PublicKey,
    /// What it may sign; at least one.
    pub roles: BTreeSet<Role>,
    /// For people, a label.
    pub name: Option<String>,
}

/// The operations keys, and those that are operations keys no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "raw::Keyring", into = "raw::Keyring")]
pub struct Keyring {
    version: u32,
    keys: Vec<Key>,
    revoked: BTreeSet<KeyId>,
}

/// Why bytes are not a keyring that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not one, or not whole; what is wrong with it.
    Malformed(String),
    /// Written for a newer version of this program.
    Newer {
        /// The reader it asks for.
        min_reader: u32,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => f.write_str(why),
            Self::Newer { min_reader } => write!(f, "it asks for reader {min_reader} and this is {}", raw::READER),
        }
    }
}

impl std::error::Error for Fault {}

/// Why a signature does not make something trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// There is no signature.
    Unsigned,
    /// What should be the signature is none, or is of the legacy kind.
    NotASignature(sign::Refused),
    /// The key that it names is not in the keyring.
    WrongKey(KeyId),
    /// The key that it names is revoked.
    RevokedKey(KeyId),
    /// The signature does not fit.
    Forged(KeyId),
    /// The key may not sign this.
    WrongRole {
        /// The key.
        key: KeyId,
        /// The role that it would need.
        needs: Role,
    },
}

impl Distrust {
    /// Its stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::NotASignature(_) => "bad-signature",
            Self::WrongKey(_) => "wrong-key",
            Self::RevokedKey(_) => "revoked-key",
            Self::Forged(_) => "forged",
            Self::WrongRole { .. } => "wrong-role",
        }
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned => f.write_str("it is not signed"),
            Self::NotASignature(why) => write!(f, "its signature cannot be used: {why}"),
            Self::WrongKey(key) => write!(f, "it is signed with the key {key}, which this device does not know"),
            Self::RevokedKey(key) => write!(f, "it is signed with the key {key}, which is revoked"),
            Self::Forged(key) => write!(f, "it is not what the key {key} has signed"),
            Self::WrongRole { key, needs } => {
                write!(f, "it is signed with the key {key}, which does not have the role {}", needs.name())
            }
        }
    }
}

/// Why a keyring or a revocation is not taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not signed by one who may.
    Distrusted(Distrust),
    /// Signed, and cannot be used.
    Unusable(Fault),
    /// Its version is not higher.
    OlderVersion {
        /// Version of the present keyring.
        present: u32,
        /// Version of the one offered.
        offered: u32,
    },
    /// Its version is more than [`MAX_STEP`] higher.
    VersionTooFar {
        /// Version of the present keyring.
        present: u32,
        /// Version of the one offered.
        offered: u32,
    },
    /// With it no key could sign this any more.
    LocksOut(Role),
    /// More revocations than can be kept.
    TooManyRevoked,
}

impl Refusal {
    /// Its stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Distrusted(why) => why.code(),
            Self::Unusable(Fault::Malformed(_)) => "malformed",
            Self::Unusable(Fault::Newer { .. }) => "needs-newer-version",
            Self::OlderVersion { .. } => "older-keyring",
            Self::VersionTooFar { .. } => "keyring-version-too-far",
            Self::LocksOut(_) => "keyring-locks-out",
            Self::TooManyRevoked => "too-many-revoked",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Distrusted(why) => why.fmt(f),
            Self::Unusable(why) => why.fmt(f),
            Self::OlderVersion { present, offered } => {
                write!(f, "its version is {offered} and the device has version {present}")
            }
            Self::VersionTooFar { present, offered } => {
                write!(f, "its version {offered} is more than {MAX_STEP} above the device's, {present}")
            }
            Self::LocksOut(role) => write!(f, "with it no key would have the role {} any more", role.name()),
            Self::TooManyRevoked => write!(f, "there would be more than {MAX_REVOKED} revoked keys"),
        }
    }
}

impl std::error::Error for Refusal {}

/// The keyring to go by: of the one baked into the image and the one in state, the one of the higher version, with the
/// revocations of both. `state` is `None` only where there is none; one that cannot be read is not passed over (rule 4).
#[must_use]
pub fn present(root: &Keyring, state: Option<&Keyring>) -> Keyring {
    let Some(state) = state else { return root.clone() };
    let newer = if state.version > root.version { state } else { root };
    Keyring { revoked: root.revoked.union(&state.revoked).copied().collect(), ..newer.clone() }
}

impl Keyring {
    /// A keyring, made at the desk. Fails as [`Self::parse`] would on its text.
    pub fn new(version: u32, keys: Vec<Key>, revoked: BTreeSet<KeyId>) -> Result<Self, Fault> {
        let ring = Self { version, keys, revoked };
        Self::parse(ring.text().as_bytes())
    }

    /// Reads a keyring. Strict: an unknown or doubled key, a key that is not one, or two of the same make it none.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        raw::keyring(bytes)
    }

    /// Its text, always the same for the same keyring.
    #[must_use]
    pub fn text(&self) -> String {
        raw::text(self)
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Its keys, revoked ones included.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The ids that are revoked, whether or not they are keys of it.
    #[must_use]
    pub fn revoked(&self) -> &BTreeSet<KeyId> {
        &self.revoked
    }

    /// The key that has signed `bytes`, where it is one of ours and not revoked. What it may sign is for the caller to
    /// ask with [`Key::may`]; nothing in `bytes` has been looked at.
    pub fn signer(&self, bytes: &[u8], minisig: Option<&[u8]>) -> Result<&Key, Distrust> {
        let file = minisig.filter(|file| !file.is_empty()).ok_or(Distrust::Unsigned)?;
        let signature = Signature::parse(file).map_err(Distrust::NotASignature)?;
        let id = signature.key_id();
        if self.revoked.contains(&id) {
            return Err(Distrust::RevokedKey(id));
        }
        let key = self.keys.iter().find(|key| key.public.id() == id).ok_or(Distrust::WrongKey(id))?;
        sign::verify(&key.public, bytes, &signature).map_err(|_| Distrust::Forged(id))?;
        Ok(key)
    }

    /// The keyring after an update that one of its keys has signed. The revocations of both are in it.
    pub fn update(&self, bytes: &[u8], minisig: Option<&[u8]>) -> Result<Keyring, Refusal> {
        self.signer(bytes, minisig).and_then(|key| key.may(Role::Keyring)).map_err(Refusal::Distrusted)?;
        let offered = Self::parse(bytes).map_err(Refusal::Unusable)?;
        let versions = (self.version, offered.version);
        if offered.version <= self.version {
            return Err(Refusal::OlderVersion { present: versions.0, offered: versions.1 });
        }
        if offered.version - self.version > MAX_STEP {
            return Err(Refusal::VersionTooFar { present: versions.0, offered: versions.1 });
        }
        let next = offered.with_revoked(&self.revoked)?;
        match [Role::Keyring, Role::Restore].into_iter().find(|role| !next.has(*role)) {
            Some(role) => Err(Refusal::LocksOut(role)),
            None => Ok(next),
        }
    }

    /// The keyring after a list of revocations that one of its keys has signed; an equal one where they were known.
    ///
    /// It may revoke the last key of a role. A stolen key that is believed is worse than a device that believes none:
    /// an image with a newer keyring cures that.
    pub fn revoke(&self, bytes: &[u8], minisig: Option<&[u8]>) -> Result<Keyring, Refusal> {
        self.signer(bytes, minisig).and_then(|key| key.may(Role::Keyring)).map_err(Refusal::Distrusted)?;
        self.clone().with_revoked(&raw::revocation(bytes).map_err(Refusal::Unusable)?)
    }

    fn with_revoked(mut self, more: &BTreeSet<KeyId>) -> Result<Keyring, Refusal> {
        self.revoked.extend(more);
        if self.revoked.len() > MAX_REVOKED { Err(Refusal::TooManyRevoked) } else { Ok(self) }
    }

    /// True when an unrevoked key has the role.
    fn has(&self, role: Role) -> bool {
        self.keys.iter().any(|key| key.roles.contains(&role) && !self.revoked.contains(&key.public.id()))
    }
}

impl Key {
    /// Whether it has a role.
    pub fn may(&self, role: Role) -> Result<(), Distrust> {
        let has = self.roles.contains(&role);
        if has { Ok(()) } else { Err(Distrust::WrongRole { key: self.public.id(), needs: role }) }
    }
}

/// The text of a list of revocations, to be signed by a key of role `keyring`.
#[must_use]
pub fn revocation(revoked: &BTreeSet<KeyId>) -> String {
    raw::revocation_text(revoked)
}
