//! Backups on this machine: taken, proved, listed, put back.
//!
//! | module | does |
//! |---|---|
//! | [`device`] | who this device is, and its keys |
//! | [`catalogue`] | what is known of the archives beside their files |
//! | [`facts`] | what is in a database, for the manifest and for the comparison after a restore |
//! | [`create`] | snapshot, manifest, archive, proof, signature, and only then a name |
//! | [`unpack`] | an archive into a directory of our own, nowhere else |
//! | [`restore`] | an unpacked archive in place of what is there, on the intent journal |
//!
//! Order of a backup, and what each wrong order would cost:
//! 1. everything is made in a directory of its own below the backups: a cut leaves rubbish that the next run removes, and
//!    never half an archive under a name that somebody would trust;
//! 2. the archive is synced, then read back, decrypted with a key that was made for this alone and is forgotten afterwards,
//!    and checked as a restore would check it: what cannot be restored never gets a name;
//! 3. signature, archive, catalogue, each durable before the next: an archive without its signature would be refused, a
//!    signature without an archive is rubbish, and an archive that the catalogue does not know counts as not verified.

use std::path::{Path, PathBuf};

use crate::config::Settings;

pub mod catalogue;
pub mod create;
pub mod device;
pub mod facts;
pub mod output;
pub mod restore;
pub mod unpack;

/// Directory below the backups in which one is made.
pub const WORK: &str = ".work";
/// What a signature's name ends with.
pub const SIGNATURE: &str = ".minisig";
/// Directory in the state directory with the page tags of the last full backup.
pub const INDEXES: &str = "pages";
/// Directory below the data with what a restore displaced.
pub const RESTORED: &str = ".restored";

/// The signature file of an archive.
#[must_use]
pub fn signature(archive: &Path) -> PathBuf {
    let mut name = archive.as_os_str().to_os_string();
    name.push(SIGNATURE);
    PathBuf::from(name)
}

/// The page tags of a database's last full backup.
#[must_use]
pub fn index(settings: &Settings, database: &str) -> PathBuf {
    settings.state_dir.join(INDEXES).join(database)
}
