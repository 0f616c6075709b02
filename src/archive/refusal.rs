//! Why an archive is refused: a stable code for machines, a sentence for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is wrong with it. The words are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// It is no age file.
    NotEncrypted,
    /// Its age header is too long, or no header.
    BadHeader,
    /// It is encrypted to keys, and none of them is here.
    WrongRecipient,
    /// A part of it does not decrypt: it was altered.
    Altered,
    /// It ends before its end.
    Truncated,
    /// What is inside is no zstd frame, or a damaged one.
    BadCompression,
    /// Its zstd frame asks for more memory than is granted.
    Window,
    /// Bytes behind its end.
    TrailingBytes,
    /// The first member is not the manifest.
    NoManifest,
    /// The manifest is no manifest.
    BadManifest,
    /// A newer version wrote it.
    Newer,
    /// An extension header (PAX, GNU long names, sparse files).
    ExtensionHeader,
    /// A member that is no regular file.
    NotAFile,
    /// A member that the manifest does not name at this place.
    UnexpectedMember,
    /// A member of the manifest that is missing.
    MissingMember,
    /// A member header that is damaged.
    BadMember,
    /// A member is longer or shorter than the manifest says.
    WrongLength,
    /// A member is not what the manifest says.
    WrongDigest,
    /// More than may be unpacked here.
    TooLarge,
    /// Changed pages that do not fit the full backup that they build on.
    WrongBase,
    /// Changed pages that are no such file.
    BadPages,
    /// Nothing proves that this device made it.
    NotSigned,
    /// The database inside is not the one that was backed up, or not sound.
    BadDatabase,
    /// It could not be read, or what it holds could not be written; nothing is wrong with it that is known.
    Io,
}

impl Code {
    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Code::NotEncrypted => "not-encrypted",
            Code::BadHeader => "bad-header",
            Code::WrongRecipient => "wrong-recipient",
            Code::Altered => "altered",
            Code::Truncated => "truncated",
            Code::BadCompression => "bad-compression",
            Code::Window => "window",
            Code::TrailingBytes => "trailing-bytes",
            Code::NoManifest => "no-manifest",
            Code::BadManifest => "bad-manifest",
            Code::Newer => "newer",
            Code::ExtensionHeader => "extension-header",
            Code::NotAFile => "not-a-file",
            Code::UnexpectedMember => "unexpected-member",
            Code::MissingMember => "missing-member",
            Code::BadMember => "bad-member",
            Code::WrongLength => "wrong-length",
            Code::WrongDigest => "wrong-digest",
            Code::TooLarge => "too-large",
            Code::WrongBase => "wrong-base",
            Code::BadPages => "bad-pages",
            Code::NotSigned => "not-signed",
            Code::BadDatabase => "bad-database",
            Code::Io => "io",
        }
    }

    /// What to do next.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Code::WrongRecipient => {
                "use the identity of one of its recipients (operations, escrow, or the device itself)"
            }
            Code::Truncated => "copy it again from where it came from, and compare the lengths",
            Code::Newer => "use the version that wrote it, or a later one",
            Code::TooLarge => "make room, or raise the limit",
            Code::WrongBase => "give the full backup that it builds on, with --base",
            Code::NotSigned => {
                "keep ARCHIVE.minisig beside it; where the keys of this device are new, --any-device takes it on your word"
            }
            Code::Io => "look at the storage and the free space, then try again",
            _ => "take another backup, and keep this one for whoever has to find out what happened to it",
        }
    }
}

/// A refusal: nothing of the archive is to be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong.
    pub code: Code,
    /// Where and how, in words.
    pub text: String,
}

impl Refusal {
    /// One.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.word(), self.text)
    }
}

impl From<Refusal> for std::io::Error {
    fn from(refusal: Refusal) -> Self {
        std::io::Error::other(refusal.to_string())
    }
}
