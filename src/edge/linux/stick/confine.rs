//! A child that can read one device and say what it found, and nothing else.
//!
//! Order in the child, and why: limits first, because they can be had by anybody; then rights are given up, because the
//! rest must hold for whoever remains; then the tie to the parent, which a change of rights would undo; the filter last,
//! because it forbids all of these. Giving up rights and closing descriptors are conditions: without them nothing is
//! read. The filter is not: a kernel without seccomp is told about in the log, and the other walls stand.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, getpid, getppid, pipe2, setgroups, setpgid, setresgid, setresuid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::child::{end_group, reap, words};
use super::super::{file, uptime_ms};
use super::wire::{Ear, Mouth, Stop};
use super::{Device, Unusable, filter};
use crate::fat::Refusal;

/// Whom nobody has given anything.
const NOBODY: u32 = 65_534;
/// Descriptors closed one by one where the kernel cannot close a range.
const DESCRIPTORS: i32 = 4096;
/// How long a child may take to go after its answer.
const GRACE: Duration = Duration::from_secs(1);
/// Status of a child that could not be confined.
const UNCONFINED: i32 = 120;

/// What the child does with its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads.
    Read,
    /// Reads and writes in place.
    Write,
}

/// What the child may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time without a word or a byte.
    pub silence: Duration,
    /// Time in all.
    pub overall: Duration,
    /// Address space in bytes, beyond what the program has.
    pub memory: u64,
    /// Processor time.
    pub cpu_seconds: u64,
    /// Bytes of data that are taken from it.
    pub most: u64,
}

/// Runs `work` in a confined child that keeps the descriptor of `device` and a pipe, and no other, and gives back its answer. Data that it
/// sends on the way goes to `take`.
///
/// The calling process must have a single thread: the child inherits every lock as the fork finds it.
pub fn ask<T: Serialize + DeserializeOwned>(
    device: &mut Device,
    access: Access,
    limits: Limits,
    take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    work: impl FnOnce(&mut Device, &mut Mouth) -> Result<T, Refusal>,
) -> Result<T, Unusable> {
    let bytes = run(device, access, limits, take, |device, mouth| {
        let told = work(device, mouth);
        serde_json::to_vec(&told).unwrap_or_default()
    })?;
    let told: Result<T, Refusal> = serde_json::from_slice(&bytes)
        .map_err(|e| Unusable::Damaged(format!("an answer of {} bytes that says nothing: {e}", bytes.len())))?;
    told.map_err(Unusable::Refused)
}

/// [`ask`], with an answer of plain bytes.
pub fn run(
    device: &mut Device,
    access: Access,
    limits: Limits,
    take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    work: impl FnOnce(&mut Device, &mut Mouth) -> Vec<u8>,
) -> Result<Vec<u8>, Unusable> {
    let failed = |e: Errno| Unusable::Failed(e.into());
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
    let memory = limits.memory.saturating_add(address_space());
    let parent = getpid();
    // SAFETY: the process has a single thread (a condition of this function), so the child may go on to allocate.
    #[allow(unsafe_code)]
    let forked = unsafe { fork() }.map_err(failed)?;
    match forked {
        ForkResult::Child => {
            let mut mouth = Mouth::new(writer);
            let status = live(device, access, &Limits { memory, ..limits }, parent, &mut mouth, work);
            // SAFETY: _exit takes no pointer. It runs no destructor and no atexit handler of the parent's.
            #[allow(unsafe_code)]
            unsafe {
                libc::_exit(status)
            }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            // Both sides do this, so that the group exists whoever comes first.
            let _ = setpgid(child, child);
            let mut ear = Ear::new(limits.most);
            let heard = listen(child, File::from(reader), limits, &mut ear, take);
            end_group(child);
            ear.words().for_each(|word| log::warn!("stick: {}", word.escape_debug()));
            if let Err(Unusable::Damaged(how)) = &heard {
                log::warn!("stick: the reading child: {how}");
            }
            heard
        }
    }
}

/// What the program occupies now, in bytes.
fn address_space() -> u64 {
    const PAGE: u64 = 4096;
    let text = file::read_text(std::path::Path::new("/proc/self/statm")).unwrap_or_default();
    let pages: u64 = text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    // A page may be larger than this; the limit is then tighter than meant, and never looser.
    pages.saturating_mul(PAGE)
}

fn live(
    device: &mut Device,
    access: Access,
    limits: &Limits,
    parent: Pid,
    mouth: &mut Mouth,
    work: impl FnOnce(&mut Device, &mut Mouth) -> Vec<u8>,
) -> i32 {
    if let Err(why) = confine(device, access, limits, parent, mouth) {
        mouth.word(&why);
        return UNCONFINED;
    }
    // The shipped binary aborts on panic; a build that unwinds must not unwind into the parent's code.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(device, mouth))) {
        Ok(answer) => {
            mouth.answer(&answer);
            0
        }
        Err(_) => 101,
    }
}

fn confine(device: &Device, access: Access, limits: &Limits, parent: Pid, mouth: &mut Mouth) -> Result<(), String> {
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    let mut keep = [device.file.as_raw_fd(), mouth.pipe().as_raw_fd()];
    keep.sort_unstable();
    close_others(keep);
    let mut all = vec![
        (Resource::RLIMIT_AS, limits.memory),
        (Resource::RLIMIT_CPU, limits.cpu_seconds),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NPROC, 0),
        (Resource::RLIMIT_NOFILE, 0),
    ];
    if access == Access::Read {
        all.push((Resource::RLIMIT_FSIZE, 0));
    }
    for (resource, value) in all {
        // At the hard limit of processor time the kernel kills, at the soft one it sends a signal that can be caught. One
        // that is tighter already stays, because only root could raise it.
        let (_, hard) = getrlimit(resource).map_err(|e| format!("unknown limit {resource:?}: {e}"))?;
        let value = value.min(hard);
        setrlimit(resource, value, value).map_err(|e| format!("no limit {resource:?}: {e}"))?;
    }
    give_up_rights().map_err(|e| format!("rights cannot be given up: {e}"))?;
    prctl::set_no_new_privs().map_err(|e| format!("no_new_privs: {e}"))?;
    prctl::set_dumpable(false).map_err(|e| format!("not dumpable: {e}"))?;
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| format!("no tie to the parent: {e}"))?;
    if getppid() != parent {
        return Err("the parent is gone".into());
    }
    if let Err(why) = filter::install(access) {
        mouth.word(&why);
    }
    Ok(())
}

fn give_up_rights() -> nix::Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    if Uid::effective().is_root() { Err(Errno::EPERM) } else { Ok(()) }
}

/// Closes every descriptor but two, those of the standard streams included.
fn close_others([low, high]: [i32; 2]) {
    let ranges = [(0, low - 1), (low + 1, high - 1), (high + 1, i32::MAX)];
    for (from, to) in ranges.into_iter().filter(|(from, to)| from <= to) {
        // SAFETY: takes three numbers. What is closed is used by nothing that runs here from now on.
        #[allow(unsafe_code)]
        let done = unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        if done == 0 {
            continue;
        }
        for descriptor in from..=to.min(DESCRIPTORS) {
            // SAFETY: as above; a number that is no descriptor gives an error.
            #[allow(unsafe_code)]
            unsafe {
                libc::close(descriptor)
            };
        }
    }
}

fn listen(
    child: Pid,
    mut pipe: File,
    limits: Limits,
    ear: &mut Ear,
    take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<Vec<u8>, Unusable> {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let started = uptime_ms();
    let mut last = started;
    let mut open = true;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let ended = waitpid(child, Some(WaitPidFlag::WNOHANG));
        // What it said last may still lie in the pipe, so this comes after looking whether it is gone.
        while open {
            match pipe.read(&mut buffer) {
                Ok(0) => open = false,
                Ok(n) => {
                    ear.hear(buffer.get(..n).unwrap_or_default(), take).map_err(|stop| match stop {
                        Stop::Lies(how) => Unusable::Damaged(how),
                        Stop::Taker(error) => Unusable::Failed(error),
                    })?;
                    // The taker's own time is not the child's silence.
                    last = uptime_ms();
                    if last.saturating_sub(started) >= millis(limits.overall) {
                        break;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => open = false,
            }
        }
        if let Some(answer) = ear.answer() {
            reap(child, GRACE);
            return Ok(answer);
        }
        if !matches!(ended, Ok(WaitStatus::StillAlive) | Err(Errno::EINTR)) {
            return Err(Unusable::Damaged(format!("ended without an answer: {}", words(ended))));
        }
        let now = uptime_ms();
        if now.saturating_sub(last) >= millis(limits.silence) {
            return Err(Unusable::Damaged(format!("silent for {:?}", limits.silence)));
        }
        if now.saturating_sub(started) >= millis(limits.overall) {
            return Err(Unusable::Damaged(format!("not ready after {:?}", limits.overall)));
        }
        if open {
            let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
            // Interrupted or not, the loop looks again.
            let _ = poll(&mut fds, PollTimeout::from(50_u8));
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
