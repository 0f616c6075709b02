//! Who has a file open: every descriptor of every process that may be looked at, by device and inode.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Other processes that have `path` open, as "name (pid)". What may not be looked at is left out.
pub fn of(path: &Path) -> Vec<String> {
    let Ok(wanted) = fs::symlink_metadata(path) else { return Vec::new() };
    let own = std::process::id();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        if pid == own {
            continue;
        }
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let same = |m: fs::Metadata| m.ino() == wanted.ino() && m.dev() == wanted.dev();
        if descriptors.into_iter().any(|d| fs::metadata(d.path()).is_ok_and(same)) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            found.push(format!("{} ({pid})", name.trim()));
        }
    }
    found
}
