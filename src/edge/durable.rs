//! Durable replacement of one small file, the only way records are written.
//!
//! Order, and what each wrong order costs:
//! 1. write the temporary name: a cut leaves a stray `.tmp`, overwritten by the next attempt;
//! 2. sync its contents: without this the rename below can survive a cut while the contents do not (an empty record);
//! 3. rename over the target: readers see the old record or the new one, never a mix;
//! 4. sync the directory: without this the caller goes on to act on a record that a cut may still take back.

use std::io;
use std::path::{Path, PathBuf};

use super::Machine;

/// Replaces `path` with `bytes`; when it returns, a power cut cannot take the new contents back.
pub fn replace(machine: &mut dyn Machine, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let tmp = temporary(path);
    machine.write(&tmp, bytes)?;
    machine.sync_file(&tmp)?;
    machine.rename(&tmp, path)?;
    sync_parent(machine, path)
}

/// Removes a name durably; a missing one is not an error.
pub fn remove(machine: &mut dyn Machine, path: &Path) -> io::Result<()> {
    machine.unlink(path)?;
    sync_parent(machine, path)
}

/// Creates a directory and makes its name durable.
pub fn make_dir(machine: &mut dyn Machine, path: &Path) -> io::Result<()> {
    machine.make_dir(path)?;
    sync_parent(machine, path)
}

fn sync_parent(machine: &mut dyn Machine, path: &Path) -> io::Result<()> {
    match path.parent() {
        // A bare name lies in the directory that we are in.
        Some(parent) if parent.as_os_str().is_empty() => machine.sync_dir(Path::new(".")),
        Some(parent) => machine.sync_dir(parent),
        None => Ok(()),
    }
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    path.with_file_name(name)
}
