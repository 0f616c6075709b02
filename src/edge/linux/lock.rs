//! One of us at a time: flock(2) on a directory itself, so that nothing is written to take it, a read-only file system has
//! it too, and the kernel lets go of it however a process ends: a stale lock does not exist.
//!
//! Two directories, for two kinds of "here". The one in `/run` is this machine: `boot` takes it as well, because it mounts
//! and unmounts the volumes, and an open directory of a volume would keep it busy. The state directory is the card, under
//! whatever root it is mounted.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _held: Flock<File>,
}

/// Takes the lock of a directory, waiting at most `patience`. `WouldBlock`: another one of us has it.
pub fn take(dir: &Path, patience: Duration) -> io::Result<Lock> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(dir)?;
    let mut waited = Duration::ZERO;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return Ok(Lock { _held: held }),
            Err((back, nix::errno::Errno::EWOULDBLOCK)) if waited < patience => file = back,
            Err((_, errno)) => return Err(errno.into()),
        }
        std::thread::sleep(PAUSE);
        waited += PAUSE;
    }
}
