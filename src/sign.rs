//! Signatures in the format of minisign, prehashed only: what signs tickets, keyrings, backups and reports, and what any
//! PC checks with `minisign -V`.
//!
//! ```text
//! untrusted comment: anything                                       nobody signs this line
//! base64( "ED" | key id, 8 bytes | Ed25519(BLAKE2b-512(file)) )
//! trusted comment: anything                                         carried, never interpreted
//! base64( Ed25519(signature | trusted comment) )
//! ```
//!
//! | file | form |
//! |---|---|
//! | public key | a comment, then base64 of `"Ed"`, key id, 32 bytes |
//! | secret key, not encrypted | a comment, then base64 of `"Ed" "\0\0" "B2"`, salt and limits (48 zeros), key id, 64 bytes, BLAKE2b-256 of `"Ed"`, key id and those 64 |
//!
//! The device's own secret key is not encrypted, because nobody is there to type a password; the form is minisign's, so
//! that `minisign -S` can use it. minisign itself leaves the checksum of such a file zero; both are read.
//!
//! Decisions:
//! 1. *Prehashed only.* The legacy form (`Ed` in a signature) signs the file itself, so a signature over a hash could be
//!    passed off as one over a 64-byte file, and it cannot be checked while streaming. It is refused by name.
//! 2. *Only the exact form is read*: four lines, each ended by one newline, canonical base64. A signature has no second
//!    spelling; only the untrusted comment is free.
//! 3. *Two implementations.* Signing is ed25519-dalek and the BLAKE2 crate, checking is minisign-verify, which shares no
//!    code with them: a mistake in one is caught by the other, in the tests and on the device.

mod base64;
mod key;
mod signature;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use key::{KeyFault, PublicKey, SigningKey};
pub use signature::{MAX_LEN, Refused, Signature, Signer, Verifier, sign, verify};

/// Which key: eight random bytes that minisign calls the key number. A hint for finding the key, never a proof.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 8]);

impl KeyId {
    /// The id of these bytes, as they stand in key and signature files.
    #[must_use]
    pub fn new(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Its bytes, as they stand in key and signature files.
    #[must_use]
    pub fn bytes(self) -> [u8; 8] {
        self.0
    }

    /// The id of 16 upper-case hex digits, as minisign prints it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
        digits.then(|| u64::from_str_radix(text, 16).ok().map(|n| Self(n.to_le_bytes()))).flatten()
    }
}

/// As minisign prints it: a little-endian number in hex.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", u64::from_le_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a key id is 16 upper-case hex digits"))
    }
}
