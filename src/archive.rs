//! Backup archives: `pyvorin-<device>-<UTC>-<seq>.tar.zst.age`, which any PC opens with `age -d | zstd -d | tar x`.
//!
//! ```text
//! age, X25519 recipients (age-encryption.org/v1)
//! └ one zstd frame (RFC 8878), window at most 8 MiB
//!   └ ustar (POSIX.1-1988): manifest.json, then exactly the members that it names, in its order, then zeroes
//! ```
//!
//! The writer is [`seal`], the strict reader [`unseal`]: regular members only, no extension header of any kind, every length
//! and digest from the manifest, nothing behind the end. Increments hold changed pages ([`pages`]). No effects: bytes
//! come in through `Read`, and what is to be done with them goes out through a trait.
//!
//! age authenticates each 64 KiB, and names no sender: whoever knows a recipient can write an archive to it. Where an
//! archive comes from is told by its detached signature alone.

pub mod manifest;
pub mod pages;
pub mod refusal;
pub mod seal;
pub mod unseal;

pub use manifest::Manifest;
pub use refusal::{Code, Refusal};

/// Longest window of a zstd frame that is accepted, as a power of two: 8 MiB. Level 19 of the command line tool has it.
pub const WINDOW_LOG_MAX: u32 = 23;
/// Longest age header: a few hundred recipients.
pub const MAX_HEADER: usize = 64 << 10;
/// What an age file begins with.
pub const AGE_MAGIC: &[u8] = b"age-encryption.org/v1\n";
