//! Who has a file open, from two sources, since neither sees everything.
//!
//! * Every descriptor of every process that may be looked at, by device and inode: it gives names, and it is blind to
//!   processes of other users (without root) and of other PID namespaces (an agent in a container).
//! * The locks of SQLite itself, asked of the kernel with `F_OFD_GETLK`, which takes none: every connection in WAL mode
//!   holds a shared lock on the database and on its wal-index from the first statement on, whatever namespace it is in.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};

/// `PENDING_BYTE` of the file format, and the bytes behind it that are ever locked.
const DATABASE: (libc::off_t, libc::off_t) = (0x4000_0000, 512);
/// The locks of a wal-index (`WALINDEX_LOCK_OFFSET`, eight of them, and the one of its users).
const INDEX: (libc::off_t, libc::off_t) = (120, 9);

/// Other processes that have `path` open, as "name (pid)". What may not be looked at is named by its lock, if it has one.
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
    if found.is_empty() && wanted.is_file() {
        let index = path.as_os_str().as_encoded_bytes().ends_with(b"-shm");
        found.extend(locked(path, if index { INDEX } else { DATABASE }));
    }
    found
}

/// Whoever holds a lock in a range of bytes. A file that cannot be opened or asked tells nothing.
fn locked(path: &Path, (start, len): (libc::off_t, libc::off_t)) -> Option<String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    #[allow(clippy::cast_possible_truncation)] // constants of fcntl.h, which fit
    let mut ask = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: len,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut ask)).ok()?;
    match (i32::from(ask.l_type) == libc::F_UNLCK, ask.l_pid) {
        (true, _) => None,
        (false, pid) if pid > 0 => Some(format!("a process that holds a lock on it ({pid})")),
        (false, _) => Some("a process that holds a lock on it and cannot be seen from here".to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)] // a scratch file

    use super::*;

    #[test]
    fn a_lock_of_sqlite_is_seen_without_a_look_at_descriptors() {
        // Another open file description of this very process: a list of descriptors leaves it out, its lock is there.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        fs::write(&path, vec![0; 8192]).unwrap();
        assert_eq!(of(&path), Vec::<String>::new());
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let lock = libc::flock {
            l_type: libc::F_RDLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: DATABASE.0 + 2,
            l_len: 510,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
        assert_eq!(of(&path).len(), 1, "{:?}", of(&path));
        drop(file);
        assert_eq!(of(&path), Vec::<String>::new());
    }
}
