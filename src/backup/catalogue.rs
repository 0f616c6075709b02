//! What is known of the archives beside their files: which were proved to restore, and what they build on.

use std::io;

use serde::{Deserialize, Serialize};

use super::{device, signature};
use crate::boot::act::make_dirs;
use crate::boot::sense::read_record;
use crate::config::Settings;
use crate::edge::{FileKind, Look, Machine, durable};
use crate::record::{self, Decoded};
use crate::retention::{ArchiveName, Backup};

/// Kind and name of the record in the state directory.
pub const RECORD: &str = "backups";
/// Entries kept: ten years of a backup a day.
const MOST: usize = 4096;

/// One archive, as it was when it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// File name.
    pub name: String,
    /// Sequence number.
    pub sequence: u64,
    /// Seconds since the epoch.
    pub made: u64,
    /// Bytes.
    pub len: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// File name of the full backup that it builds on.
    pub base: Option<String>,
    /// Seconds since the epoch when it was last proved to restore; 0: never.
    pub verified: u64,
    /// What is in it: database, and SHA-256 of the whole file.
    pub databases: Vec<(String, String)>,
}

/// The record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Highest number ever given.
    pub sequence: u64,
    /// The archives, oldest first.
    pub entries: Vec<Entry>,
}

/// Reads it. One that is damaged is as good as none: archives then count as not verified, and nothing is deleted for it.
///
/// # Errors
/// A newer version wrote it.
pub fn read(look: &dyn Look, settings: &Settings) -> io::Result<Catalogue> {
    let path = settings.state_dir.join(RECORD);
    if look.stat(&path)?.is_none() {
        return Ok(Catalogue::default());
    }
    match read_record::<Catalogue>(look, &path, RECORD) {
        Decoded::Ok(catalogue) => Ok(catalogue),
        Decoded::Newer { min_reader } => {
            Err(io::Error::other(format!("a newer version (reader {min_reader}) wrote {}", path.display())))
        }
        Decoded::Damaged(why) => {
            log::warn!("{}: {why}; the archives count as not verified", path.display());
            Ok(Catalogue::default())
        }
    }
}

/// Writes it.
///
/// # Errors
/// The state directory cannot be written.
pub fn write(machine: &mut dyn Machine, settings: &Settings, mut catalogue: Catalogue) -> io::Result<()> {
    let surplus = catalogue.entries.len().saturating_sub(MOST);
    catalogue.entries.drain(..surplus);
    make_dirs(machine, &settings.state_dir)?;
    durable::replace(machine, &settings.state_dir.join(RECORD), &record::encode(RECORD, &catalogue))
}

/// An archive on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name, taken apart.
    pub name: ArchiveName,
    /// As retention sees it.
    pub backup: Backup,
    /// What is known of it; `None`: nothing.
    pub entry: Option<Entry>,
    /// True when a signature lies beside it.
    pub signed: bool,
}

/// This device's archives in the directory of backups, oldest first by their numbers. Those of other devices are nobody's to
/// count, to build on or to delete here, and are left out with all other files.
///
/// # Errors
/// The directory cannot be read; a missing one is empty.
pub fn archives(look: &dyn Look, settings: &Settings, catalogue: &Catalogue) -> io::Result<Vec<Found>> {
    let names = match look.list(&settings.backup_dir) {
        Ok(names) => names,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    let own = device::id(look, settings);
    for text in names.iter().filter_map(|n| n.to_str()) {
        let Some(name) = ArchiveName::parse(text).filter(|n| own.as_deref() == Some(n.device())) else { continue };
        let path = settings.backup_dir.join(text);
        let Some(stat) = look.stat(&path)?.filter(|s| s.kind == FileKind::File) else { continue };
        // What was replaced by another file of that name is not what was proved.
        let entry = catalogue.entries.iter().rev().find(|e| e.name == text && e.len == stat.len).cloned();
        let backup = Backup {
            name: text.to_string(),
            sequence: name.sequence(),
            made: name.made(),
            length: stat.len,
            verified: entry.as_ref().is_some_and(|e| e.verified > 0),
            base: entry.as_ref().and_then(|e| e.base.clone()),
        };
        let signed = look.stat(&signature(&path))?.is_some();
        found.push(Found { name, backup, entry, signed });
    }
    found.sort_by_key(|f| f.backup.sequence);
    Ok(found)
}
