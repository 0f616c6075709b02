//! Asks what a factory reset needs to know: whether it was executed already, and which files of the configuration it
//! would take away.

use std::path::{Path, PathBuf};

use super::small_file;
use crate::boot::evidence::ResetEvidence;
use crate::boot::plan::side;
use crate::config::Settings;
use crate::edge::{FileKind, Look};
use crate::journal::{MIRROR, QUARANTINE, STAGE};
use crate::record::{self, Decoded};
use crate::reset::{Request, Tier, USED};

/// Files of a configuration at most, and how deep they may lie: more is not a configuration.
const FILES: usize = 1000;
const DEPTH: u32 = 8;
/// Names that no reset touches, whatever the configuration says: without them the agent does not start, or trusts
/// another key.
const NEVER: [&str; 5] = ["certs", "keyring", "recovery.toml", "trust_anchor.json", "bundles"];

/// The request with what it would touch.
pub(super) fn reset(look: &dyn Look, settings: &Settings, request: &Request) -> ResetEvidence {
    let mut found = ResetEvidence {
        request: request.clone(),
        used: false,
        unknown: None,
        configuration: Vec::new(),
        left: Vec::new(),
    };
    let path = settings.state_dir.join(USED);
    match small_file(look, &path) {
        Ok(None) => {}
        Ok(Some(bytes)) => match record::decode::<Vec<String>>(USED, &bytes) {
            Decoded::Ok(used) => found.used = used.contains(&request.id),
            Decoded::Newer { .. } => found.unknown = Some("a newer version wrote the record of resets".to_string()),
            Decoded::Damaged(why) => found.unknown = Some(format!("{}: {why}", path.display())),
        },
        Err(e) => found.unknown = Some(format!("{}: {e}", path.display())),
    }
    if request.tier == Tier::Full && !found.used {
        configuration(look, settings, &mut found);
    }
    found
}

fn configuration(look: &dyn Look, settings: &Settings, found: &mut ResetEvidence) {
    let mut kept: Vec<PathBuf> = [QUARANTINE, STAGE, MIRROR, "lost+found"].map(|n| settings.data_dir.join(n)).to_vec();
    kept.extend([settings.backup_dir.clone(), settings.state_dir.clone()]);
    for database in &settings.databases {
        kept.extend(["", "-wal", "-shm", "-journal"].map(|suffix| side(&database.location, suffix)));
    }
    for path in &settings.config_paths {
        if path.starts_with(&settings.data_mountpoint) {
            walk(look, settings, path, &kept, found, DEPTH);
        } else {
            found.left.push(format!("{} is not on the data volume; it belongs to the image", path.display()));
        }
    }
}

fn walk(look: &dyn Look, settings: &Settings, path: &Path, kept: &[PathBuf], found: &mut ResetEvidence, depth: u32) {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let never = NEVER.contains(&name) || settings.config_exclude.iter().any(|n| n == name) || name.ends_with(".key");
    if never || kept.iter().any(|k| k == path) {
        return;
    }
    let mut leave = |why: &str| found.left.push(format!("{}: {why}", path.display()));
    match look.stat(path) {
        Ok(None) => {}
        Ok(Some(stat)) if stat.kind == FileKind::File && found.configuration.len() < FILES => {
            found.configuration.push(path.to_path_buf());
        }
        Ok(Some(stat)) if stat.kind == FileKind::File => leave("too many files for a configuration"),
        Ok(Some(stat)) if stat.kind == FileKind::Directory && depth > 0 => match look.list(path) {
            Ok(names) => {
                names.iter().for_each(|n| walk(look, settings, &path.join(n), kept, found, depth - 1));
            }
            Err(e) => leave(&e.to_string()),
        },
        Ok(Some(_)) => leave("neither a file nor a directory that is looked into"),
        Err(e) => leave(&e.to_string()),
    }
}
