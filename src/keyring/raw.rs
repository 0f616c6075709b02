//! Keyrings and revocations as they stand in JSON, and what makes such a text a keyring.
//!
//! `min_reader` is looked at before anything else, so that a text of the future is told apart from a wrong one. A reader
//! refuses what it does not know: in a text that says whom to trust nothing may be passed over. So a new field raises
//! `min_reader`.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Fault, Key, MAX_KEYS, MAX_LEN, MAX_REVOKED, REVOCATION_TYPE, Role, TYPE};
use crate::config::is_label;
use crate::sign::{KeyId, PublicKey};

/// The reader that this is.
pub const READER: u32 = 1;
const FORMAT: u32 = 1;
const NAME_MAX: usize = 64;

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
    min_reader: u32,
}

/// A keyring as written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keyring {
    #[serde(rename = "type")]
    kind: String,
    format: u32,
    min_reader: u32,
    version: u32,
    keys: Vec<RawKey>,
    revoked: Vec<KeyId>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    id: KeyId,
    public: PublicKey,
    roles: Vec<Role>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revocation {
    #[serde(rename = "type")]
    kind: String,
    format: u32,
    min_reader: u32,
    revoked: Vec<KeyId>,
}

fn read<T: DeserializeOwned>(bytes: &[u8], kind: &str) -> Result<T, Fault> {
    if bytes.len() > MAX_LEN {
        return Err(malformed("it is longer than 64 KiB"));
    }
    let head: Head = serde_json::from_slice(bytes).map_err(|e| Fault::Malformed(e.to_string()))?;
    if head.kind != kind {
        return Err(Fault::Malformed(format!("its type is not {kind}")));
    }
    if head.min_reader > READER {
        return Err(Fault::Newer { min_reader: head.min_reader });
    }
    serde_json::from_slice(bytes).map_err(|e| Fault::Malformed(e.to_string()))
}

/// Reads a keyring.
pub fn keyring(bytes: &[u8]) -> Result<super::Keyring, Fault> {
    read::<Keyring>(bytes, TYPE)?.try_into()
}

/// Reads a list of revocations.
pub fn revocation(bytes: &[u8]) -> Result<BTreeSet<KeyId>, Fault> {
    once(read::<Revocation>(bytes, REVOCATION_TYPE)?.revoked)
}

/// The text of a keyring.
pub fn text(ring: &super::Keyring) -> String {
    lines(&Keyring::from(ring.clone()))
}

/// The text of a list of revocations.
pub fn revocation_text(revoked: &BTreeSet<KeyId>) -> String {
    let revoked = revoked.iter().copied().collect();
    lines(&Revocation { kind: REVOCATION_TYPE.to_owned(), format: FORMAT, min_reader: READER, revoked })
}

/// Indented, because people read what they sign. These types have no value that JSON cannot express.
fn lines<T: Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn malformed(why: &str) -> Fault {
    Fault::Malformed(why.to_owned())
}

fn once(revoked: Vec<KeyId>) -> Result<BTreeSet<KeyId>, Fault> {
    let count = revoked.len();
    let set: BTreeSet<KeyId> = revoked.into_iter().collect();
    match count {
        _ if count > MAX_REVOKED => Err(malformed("it has more than 1024 revoked keys")),
        _ if count > set.len() => Err(malformed("it revokes a key twice")),
        _ => Ok(set),
    }
}

impl TryFrom<Keyring> for super::Keyring {
    type Error = Fault;

    fn try_from(raw: Keyring) -> Result<Self, Fault> {
        if raw.kind != TYPE {
            return Err(Fault::Malformed(format!("its type is not {TYPE}")));
        }
        if raw.min_reader > READER {
            return Err(Fault::Newer { min_reader: raw.min_reader });
        }
        if raw.version == 0 {
            return Err(malformed("its version is 0; versions begin with 1"));
        }
        if raw.keys.len() > MAX_KEYS {
            return Err(malformed("it has more than 64 keys"));
        }
        let mut keys = Vec::new();
        // Of one key under two ids only one would be revoked.
        let (mut ids, mut points) = (BTreeSet::new(), BTreeSet::new());
        for key in raw.keys {
            let id = key.public.id();
            if key.id != id {
                return Err(Fault::Malformed(format!("the key {} says that it is {id}", key.id)));
            }
            if !ids.insert(id) || !points.insert(key.public.point()) {
                return Err(Fault::Malformed(format!("it has the key {id} twice")));
            }
            let roles: BTreeSet<Role> = key.roles.iter().copied().collect();
            if roles.is_empty() || roles.len() != key.roles.len() {
                return Err(Fault::Malformed(format!("the key {id} has no role, or one twice")));
            }
            if key.name.as_ref().is_some_and(|name| !is_label(name, NAME_MAX)) {
                return Err(Fault::Malformed(format!("the name of the key {id} is not a label")));
            }
            keys.push(Key { public: key.public, roles, name: key.name });
        }
        Ok(Self { version: raw.version, keys, revoked: once(raw.revoked)? })
    }
}

impl From<super::Keyring> for Keyring {
    fn from(ring: super::Keyring) -> Self {
        let keys = ring.keys.into_iter().map(|key| RawKey {
            id: key.public.id(),
            roles: key.roles.into_iter().collect(),
            name: key.name,
            public: key.public,
        });
        Self {
            kind: TYPE.to_owned(),
            format: FORMAT,
            min_reader: READER,
            version: ring.version,
            keys: keys.collect(),
            revoked: ring.revoked.into_iter().collect(),
        }
    }
}
