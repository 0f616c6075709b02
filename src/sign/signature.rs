//! Making and checking a detached signature while the file streams by.

use std::fmt;

use blake2::{Blake2b512, Digest};

use super::{KeyId, PublicKey, SigningKey, base64};

/// Longest signature file that is read, in bytes; minisign's own comments may have 1 and 8 KiB.
pub const MAX_LEN: usize = 10 << 10;
/// Longest trusted comment that is written, in bytes.
const COMMENT_MAX: usize = 512;
const UNTRUSTED: &str = "untrusted comment: ";
const TRUSTED: &str = "trusted comment: ";
const PREHASHED: [u8; 2] = *b"ED";
const LEGACY: [u8; 2] = *b"Ed";

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not a signature file in its one exact form; what is wrong with it.
    NotASignature(&'static str),
    /// The legacy form, which signs the file and not its hash.
    Legacy,
    /// Made by another key than the one it is checked with.
    OtherKey {
        /// The key that it names.
        named: KeyId,
    },
    /// Named right, and wrong: the file, the signature or the trusted comment is not what was signed.
    Forged,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASignature(why) => write!(f, "it is not a minisign signature: {why}"),
            Self::Legacy => {
                f.write_str("it is a signature of the legacy kind; sign again with minisign 0.10 or newer, without -l")
            }
            Self::OtherKey { named } => write!(f, "it was made with the key {named}, which is another one"),
            Self::Forged => f.write_str("the signature does not match: what was signed has been changed"),
        }
    }
}

impl std::error::Error for Refused {}

/// A signature file that has been read and not yet checked.
#[derive(Clone)]
pub struct Signature {
    id: KeyId,
    inner: minisign_verify::Signature,
}

impl Signature {
    /// Reads a signature file. Nothing of it may be believed before [`Verifier::finish`].
    pub fn parse(file: &[u8]) -> Result<Self, Refused> {
        use Refused::NotASignature as Not;
        if file.len() > MAX_LEN {
            return Err(Not("it is too long"));
        }
        let text = std::str::from_utf8(file).map_err(|_| Not("it is not text"))?;
        if text.contains('\r') {
            return Err(Not("its lines end as on Windows; copy the file unchanged"));
        }
        // The crate also reads other line ends and further lines; a signature has one form here.
        let [untrusted, first, trusted, second, ""] = *text.split('\n').collect::<Vec<_>>().as_slice() else {
            return Err(Not("it does not have four lines"));
        };
        if !untrusted.starts_with(UNTRUSTED) || !trusted.starts_with(TRUSTED) {
            return Err(Not("its comments are not where they belong"));
        }
        if untrusted.chars().chain(trusted.chars()).any(|c| c.is_control() && c != '\t') {
            return Err(Not("a comment of it has control characters"));
        }
        let bytes = base64::decode::<74>(first).ok_or(Not("its second line is not a signature"))?;
        base64::decode::<64>(second).ok_or(Not("its fourth line is not a signature"))?;
        let [a, b, id @ ..] = bytes.first_chunk::<10>().ok_or(Not("its second line is too short"))?;
        match [*a, *b] {
            PREHASHED => {}
            LEGACY => return Err(Refused::Legacy),
            _ => return Err(Not("its algorithm is unknown")),
        }
        let inner = minisign_verify::Signature::decode(text).map_err(|_| Not("it cannot be read"))?;
        Ok(Self { id: KeyId::new(*id), inner })
    }

    /// The key that it names.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.id
    }

    /// Its trusted comment: for a person to read once [`Verifier::finish`] has said yes, never for a decision.
    #[must_use]
    pub fn trusted_comment(&self) -> &str {
        self.inner.trusted_comment()
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature(by {})", self.id)
    }
}

/// Checks a signature over a file that streams by.
#[must_use = "nothing is checked before finish"]
pub struct Verifier<'a>(minisign_verify::StreamVerifier<'a>);

impl<'a> Verifier<'a> {
    /// Begins to check `signature` with `key`.
    pub fn new(key: &'a PublicKey, signature: &'a Signature) -> Result<Self, Refused> {
        match key.inner.verify_stream(&signature.inner) {
            Ok(stream) => Ok(Self(stream)),
            Err(minisign_verify::Error::UnsupportedLegacyMode) => Err(Refused::Legacy),
            Err(_) => Err(Refused::OtherKey { named: signature.id }),
        }
    }

    /// The next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The answer. It is yes only when the file, the signature and the trusted comment are what was signed.
    pub fn finish(mut self) -> Result<(), Refused> {
        self.0.finalize().map_err(|_| Refused::Forged)
    }
}

/// Checks a signature file over bytes in memory.
pub fn verify(key: &PublicKey, message: &[u8], signature: &Signature) -> Result<(), Refused> {
    let mut verifier = Verifier::new(key, signature)?;
    verifier.update(message);
    verifier.finish()
}

/// Signs a file that streams by.
#[must_use = "nothing is signed before finish"]
pub struct Signer<'a> {
    key: &'a SigningKey,
    hash: Blake2b512,
}

impl<'a> Signer<'a> {
    /// Begins a signature by `key`.
    pub fn new(key: &'a SigningKey) -> Self {
        Self { key, hash: Blake2b512::new() }
    }

    /// The next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
    }

    /// The text of the signature file. Control characters of the comment (but tabs) become blanks, and it
    /// ends after 512 bytes.
    #[must_use]
    pub fn finish(self, trusted_comment: &str) -> String {
        let comment = comment(trusted_comment);
        let signature = self.key.sign(&self.hash.finalize());
        let id = self.key.public().id();
        let mut text = format!("{UNTRUSTED}signature by the key {id}\n");
        base64::encode(&[&PREHASHED[..], &id.bytes(), &signature].concat(), &mut text);
        text.push('\n');
        text.push_str(TRUSTED);
        text.push_str(&comment);
        text.push('\n');
        base64::encode(&self.key.sign(&[&signature[..], comment.as_bytes()].concat()), &mut text);
        text.push('\n');
        text
    }
}

/// Signs bytes in memory.
#[must_use]
pub fn sign(key: &SigningKey, message: &[u8], trusted_comment: &str) -> String {
    let mut signer = Signer::new(key);
    signer.update(message);
    signer.finish(trusted_comment)
}

fn comment(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }) {
        if out.len() + c.len_utf8() > COMMENT_MAX {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::SigningKey;
    use super::{MAX_LEN, Refused, Signature, Signer, Verifier, sign, verify};

    fn key(seed: u8) -> SigningKey {
        SigningKey::new(&[seed; 32], [seed; 8]).unwrap()
    }

    fn judged(key: &SigningKey, message: &[u8], file: &[u8]) -> Result<(), Refused> {
        verify(key.public(), message, &Signature::parse(file)?)
    }

    #[test]
    fn what_was_signed_in_pieces_is_checked_in_other_pieces() {
        let message: Vec<u8> = (0..1000_u32).map(|i| (i * 31) as u8).collect();
        let mine = key(1);
        let mut signer = Signer::new(&mine);
        message.chunks(7).for_each(|c| signer.update(c));
        let text = signer.finish("made\tby a test\n");
        let signature = Signature::parse(text.as_bytes()).unwrap();
        assert_eq!(signature.trusted_comment(), "made\tby a test ");
        let mut verifier = Verifier::new(mine.public(), &signature).unwrap();
        message.chunks(129).for_each(|c| verifier.update(c));
        assert_eq!(verifier.finish(), Ok(()));
    }

    #[test]
    fn another_key_of_the_same_name_is_a_forgery() {
        let mine = key(1);
        let thief = SigningKey::new(&[9; 32], [1; 8]).unwrap();
        assert_eq!(judged(&mine, b"x", sign(&thief, b"x", "").as_bytes()), Err(Refused::Forged));
        let other = judged(&mine, b"x", sign(&key(2), b"x", "").as_bytes());
        assert_eq!(other, Err(Refused::OtherKey { named: key(2).public().id() }));
    }

    #[test]
    fn the_legacy_form_is_refused_by_name() {
        // "ED" and "Ed" differ in one bit of the second character of the base64.
        let text = sign(&key(1), b"x", "c").replacen("\nRUQ", "\nRWQ", 1);
        assert_eq!(Signature::parse(text.as_bytes()).err(), Some(Refused::Legacy));
    }

    #[test]
    fn every_other_spelling_of_a_signature_is_refused() {
        let mine = key(3);
        let text = sign(&mine, b"x", "c");
        assert_eq!(judged(&mine, b"x", text.as_bytes()), Ok(()));
        let cut = &text[..text.len() - 1];
        let spellings = [
            cut.to_owned(),
            format!("{text}\n"),
            format!("{text}more\n"),
            format!("\u{feff}{text}"),
            text.replace('\n', "\r\n"),
            text.replacen("trusted", "Trusted", 1),
            text.replace("\ntrusted comment: c", "\ntrusted comment: d"),
            text.replace("\ntrusted comment: c", "\ntrusted comment: c "),
            text.replace("\ntrusted comment: c", "\ntrusted comment: \u{85}c"),
            text.replacen("\nRUQ", "\n RUQ", 1),
            "x".repeat(MAX_LEN + 1),
            String::new(),
        ];
        for (n, other) in spellings.iter().enumerate() {
            assert!(judged(&mine, b"x", other.as_bytes()).is_err(), "{n}");
        }
        assert!(Signature::parse(&[0xff; 300]).is_err());
    }

    /// Adding the group order to S gives a second valid signature under a careless check.
    #[test]
    fn the_scalar_of_a_signature_is_canonical() {
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mine = key(4);
        let text = sign(&mine, b"x", "c");
        let line = text.lines().nth(1).unwrap();
        let mut bytes = super::base64::decode::<74>(line).unwrap();
        let mut carry = 0_u16;
        for (byte, add) in bytes[42..].iter_mut().zip(ORDER) {
            carry += u16::from(*byte) + u16::from(add);
            *byte = carry as u8;
            carry >>= 8;
        }
        let mut other = String::new();
        super::base64::encode(&bytes, &mut other);
        assert_eq!(judged(&mine, b"x", text.replace(line, &other).as_bytes()), Err(Refused::Forged));
    }

    #[test]
    fn a_comment_that_is_too_long_or_odd_still_gives_a_signature_that_holds() {
        let mine = key(5);
        for comment in ["é".repeat(400), "a\nb\r\0\u{7f}\u{85}".to_owned(), String::new()] {
            assert_eq!(judged(&mine, b"x", sign(&mine, b"x", &comment).as_bytes()), Ok(()), "{comment}");
        }
    }
}
