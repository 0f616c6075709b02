//! Public keys, and the device's own secret key.

use std::fmt;

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, Zeroizing};

use super::{KeyId, base64};

/// Algorithm of a key: Ed25519, whatever form its signatures have.
const ED25519: [u8; 2] = *b"Ed";
/// Checksum of a secret key: BLAKE2b-256.
const BLAKE2B: [u8; 2] = *b"B2";
/// Key derivation by scrypt: the secret key is encrypted.
const SCRYPT: [u8; 2] = *b"Sc";
const SECRET_LEN: usize = 158;
const PUBLIC_LEN: usize = 42;
/// No key file of ours or of minisign is longer (its comment may have 1024 bytes).
const FILE_MAX: usize = 2048;

/// Why a text is not a key that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// Not a key file of minisign.
    NotAKey,
    /// A secret key behind a password.
    Encrypted,
    /// Its checksum, or its public half, does not fit its secret half.
    Damaged,
    /// A point of small order: any signature would fit.
    Weak,
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAKey => "it is not a minisign key of the Ed25519 kind",
            Self::Encrypted => "it is encrypted with a password; make an unencrypted one (minisign -G -W)",
            Self::Damaged => "its checksum does not match, the file is damaged",
            Self::Weak => "it is a weak key under which anything would be signed",
        })
    }
}

impl std::error::Error for KeyFault {}

/// A key that checks signatures.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    id: KeyId,
    point: [u8; 32],
    line: String,
    pub(super) inner: minisign_verify::PublicKey,
}

impl PublicKey {
    /// The key of a public key file (comment and key) or of its second line alone.
    pub fn parse(text: &str) -> Result<Self, KeyFault> {
        let line = key_line(text)?;
        let bytes = base64::decode::<PUBLIC_LEN>(line).ok_or(KeyFault::NotAKey)?;
        let mut rest = bytes.as_slice();
        if take::<2>(&mut rest)? != ED25519 {
            return Err(KeyFault::NotAKey);
        }
        let id = KeyId::new(take(&mut rest)?);
        let point = take(&mut rest)?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(&point).map_err(|_| KeyFault::NotAKey)?;
        if key.is_weak() {
            return Err(KeyFault::Weak);
        }
        let inner = minisign_verify::PublicKey::from_base64(line).map_err(|_| KeyFault::NotAKey)?;
        Ok(Self { id, point, line: line.to_owned(), inner })
    }

    /// The key as one line, which is how it stands in keyrings and behind `minisign -P`.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.line
    }

    /// The public key file.
    #[must_use]
    pub fn text(&self) -> String {
        format!("untrusted comment: minisign public key {}\n{}\n", self.id, self.line)
    }

    /// The key itself, without its id.
    #[must_use]
    pub fn point(&self) -> [u8; 32] {
        self.point
    }

    /// Which key it is.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.line)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.line)
    }
}

/// From the one line only: a form that is signed has one spelling.
impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let key = Self::parse(&text).map_err(serde::de::Error::custom)?;
        if key.line == text { Ok(key) } else { Err(serde::de::Error::custom("a public key is one line of base64")) }
    }
}

/// The key that makes the device's signatures. Wiped from memory when dropped, and never printed.
pub struct SigningKey {
    public: PublicKey,
    key: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// A key of 32 random bytes, which the caller wipes, and of a random id.
    ///
    /// Both must come from the operating system's generator, once, and never be used for anything else: two keys of one
    /// secret would be told apart by their id alone.
    pub fn new(random: &[u8; 32], id: [u8; 8]) -> Result<Self, KeyFault> {
        Self::of(KeyId::new(id), ed25519_dalek::SigningKey::from_bytes(random))
    }

    fn of(id: KeyId, key: ed25519_dalek::SigningKey) -> Result<Self, KeyFault> {
        let mut line = String::new();
        let point = key.verifying_key().to_bytes();
        base64::encode(&[&ED25519[..], &id.bytes(), &point].concat(), &mut line);
        Ok(Self { public: PublicKey::parse(&line)?, key })
    }

    /// The key of an unencrypted secret key file of minisign.
    pub fn parse(text: &str) -> Result<Self, KeyFault> {
        let line = key_line(text)?;
        let bytes = Zeroizing::new(base64::decode::<SECRET_LEN>(line).ok_or(KeyFault::NotAKey)?);
        let mut rest = bytes.as_slice();
        let (algorithm, derivation, checksum) = (take::<2>(&mut rest)?, take::<2>(&mut rest)?, take::<2>(&mut rest)?);
        let _salt_and_limits: [u8; 48] = take(&mut rest)?;
        match (algorithm, derivation, checksum) {
            (ED25519, [0, 0], BLAKE2B) => {}
            (ED25519, SCRYPT, BLAKE2B) => return Err(KeyFault::Encrypted),
            _ => return Err(KeyFault::NotAKey),
        }
        let id = KeyId::new(take(&mut rest)?);
        let pair = Zeroizing::new(take::<64>(&mut rest)?);
        let sum: [u8; 32] = take(&mut rest)?;
        if sum != [0; 32] && sum != secret_sum(id, &pair) {
            return Err(KeyFault::Damaged);
        }
        let key = ed25519_dalek::SigningKey::from_keypair_bytes(&pair).map_err(|_| KeyFault::Damaged)?;
        Self::of(id, key)
    }

    /// The unencrypted secret key file. To be written with mode 0600, outside whatever is backed up.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let pair = Zeroizing::new(self.key.to_keypair_bytes());
        let mut bytes = Zeroizing::new([0_u8; SECRET_LEN]);
        let sum = secret_sum(self.public.id, &pair);
        let parts = [&ED25519[..], &[0, 0], &BLAKE2B, &[0; 48], &self.public.id.bytes(), pair.as_slice(), &sum];
        bytes.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        // Room for the whole, so that no half-written copy is left behind by growing.
        let mut text = Zeroizing::new(String::with_capacity(512));
        text.push_str("untrusted comment: minisign secret key, not encrypted\n");
        base64::encode(bytes.as_slice(), &mut text);
        text.push('\n');
        text
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        use ed25519_dalek::Signer as _;
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, secret)", self.public.id)
    }
}

fn secret_sum(id: KeyId, pair: &[u8; 64]) -> [u8; 32] {
    let mut hash = Blake2b::<U32>::new();
    hash.update(ED25519);
    hash.update(id.bytes());
    hash.update(pair);
    let mut out = [0; 32];
    let mut sum = hash.finalize();
    out.copy_from_slice(&sum);
    sum.as_mut_slice().zeroize();
    out
}

/// The line of base64 of a key file: the second one, or the only one.
fn key_line(text: &str) -> Result<&str, KeyFault> {
    if text.len() > FILE_MAX {
        return Err(KeyFault::NotAKey);
    }
    let mut lines = text.lines();
    let first = lines.next().ok_or(KeyFault::NotAKey)?;
    let line = if first.starts_with("untrusted comment: ") { lines.next().ok_or(KeyFault::NotAKey)? } else { first };
    if lines.next().is_some() { Err(KeyFault::NotAKey) } else { Ok(line) }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], KeyFault> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(KeyFault::NotAKey)?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use super::{KeyFault, PublicKey, SigningKey};

    fn key() -> SigningKey {
        SigningKey::new(&[7; 32], [1, 2, 3, 4, 5, 6, 7, 8]).unwrap()
    }

    #[test]
    fn keys_come_back_as_they_were() {
        let key = key();
        let again = SigningKey::parse(&key.to_text()).unwrap();
        assert_eq!(again.to_text(), key.to_text());
        assert_eq!(again.public(), key.public());
        assert_eq!(PublicKey::parse(&key.public().text()), Ok(key.public().clone()));
        assert_eq!(PublicKey::parse(key.public().line()), Ok(key.public().clone()));
        assert_eq!(key.public().id().to_string(), "0807060504030201");
    }

    #[test]
    fn a_secret_is_never_printed() {
        let key = key();
        let secret = key.to_text();
        let printed = format!("{key:?} {key:#?}");
        assert_eq!(printed.split(' ').next(), Some("SigningKey(0807060504030201,"));
        for part in secret.as_bytes().windows(8) {
            assert!(!printed.contains(std::str::from_utf8(part).unwrap()) || part.iter().all(|b| *b == b'A'));
        }
        assert!(!printed.contains("07070707") && !printed.contains("7, 7"));
    }

    #[test]
    fn a_secret_key_with_a_changed_bit_is_refused_or_the_same_key() {
        let whole = key().to_text();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(text) = String::from_utf8(bytes) else { continue };
            if let Ok(other) = SigningKey::parse(&text) {
                assert_eq!(other.to_text(), whole, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_key_of_another_kind_is_named() {
        let encrypted = key().to_text().replacen("RWQAAEIy", "RWRTY0Iy", 1);
        assert_eq!(SigningKey::parse(&encrypted).err(), Some(KeyFault::Encrypted));
        for other in ["", "\n", "untrusted comment: x\n", "RWQ=", &"A".repeat(4000), &key().public().text()] {
            assert_eq!(SigningKey::parse(other).err(), Some(KeyFault::NotAKey), "{other}");
        }
        assert_eq!(PublicKey::parse(&key().to_text()), Err(KeyFault::NotAKey));
        let two = format!("{}{}", key().public().text(), key().public().line());
        assert_eq!(PublicKey::parse(&two), Err(KeyFault::NotAKey));
    }

    /// The eight points of small order: with such a key anybody could sign.
    #[test]
    fn a_weak_public_key_is_refused() {
        let mut identity = [0; 42];
        identity[..2].copy_from_slice(b"Ed");
        identity[10] = 1;
        let mut text = String::new();
        super::base64::encode(&identity, &mut text);
        assert_eq!(PublicKey::parse(&text), Err(KeyFault::Weak));
    }
}
