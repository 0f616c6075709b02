//! The five stages in a child of PID 1, with limits on memory and time.
//!
//! PID 1 must reach switch_root whatever happens to us (invariant I9), and the binary aborts on panic; so PID 1 only
//! forks, listens and waits. The child has its own mount namespace: what it mounts goes away with it, however it ends,
//! and nothing of the OS ever sees our private mounts.
//!
//! Protocol on the pipe, child to parent: lines of text, each of which extends the deadline; a line `stage:NAME` names
//! the stage that begins; a line `result:LENGTH` is followed by that many bytes and ends the conversation. The parent
//! believes nothing it reads: lines and result are bounded, and no number of lines buys more than the overall limit.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2, setpgid};
use serde::{Deserialize, Serialize};

use super::uptime_ms;

const STAGE: &str = "stage:";
const RESULT: &str = "result:";
/// Longest line believed.
const LONGEST_LINE: usize = 4 << 10;
/// Largest result believed; a report is some kilobytes.
const LARGEST_RESULT: usize = 16 << 20;
/// How long a child may take to go, after its result or after it was killed.
const GRACE: Duration = Duration::from_secs(5);

/// What the child may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time without a sign of life.
    pub silence: Duration,
    /// Time in all, whatever it says.
    pub overall: Duration,
    /// Address space in bytes.
    pub memory: u64,
    /// A mount namespace of its own. Needs privilege; where it is refused the child says so and goes on.
    pub private_mounts: bool,
}

/// How the child ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChildEnd {
    /// It delivered its whole result.
    Finished(Vec<u8>),
    /// It ended without one: in words, by which signal or with which status.
    Died(String),
    /// It was killed for taking too long.
    TimedOut,
}

/// How the child ended, and where it was then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildReport {
    /// How.
    pub end: ChildEnd,
    /// The stage it named last.
    pub last_stage: Option<String>,
}

/// The child's end of the pipe. A failure to write is ignored: without a listener there is nobody to tell.
#[derive(Clone, Debug)]
pub struct Teller {
    pipe: Rc<OwnedFd>,
}

impl Teller {
    /// One line of progress; extends the deadline.
    pub fn line(&self, text: &str) {
        // Colons of ours at the start of foreign text would be taken for protocol.
        let text = text.replace(['\n', '\r'], " ");
        let lead = if text.starts_with(STAGE) || text.starts_with(RESULT) { " " } else { "" };
        self.send(format!("{lead}{text}\n").as_bytes());
    }

    /// Names the stage that begins now.
    pub fn stage(&self, name: &str) {
        self.send(format!("{STAGE}{}\n", name.replace(['\n', '\r'], " ")).as_bytes());
    }

    fn result(&self, bytes: &[u8]) {
        self.send(format!("{RESULT}{}\n", bytes.len()).as_bytes());
        self.send(bytes);
    }

    fn send(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match nix::unistd::write(self.pipe.as_fd(), bytes) {
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// Runs `work` in a child. `on_line` receives each line of progress, and stages as `stage:NAME`.
///
/// The calling process must have a single thread: the child inherits every lock as the fork finds it.
pub fn run(
    limits: Limits,
    on_line: &mut dyn FnMut(&str),
    work: impl FnOnce(&Teller) -> Vec<u8>,
) -> io::Result<ChildReport> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // SAFETY: PID 1 has a single thread, so the child may go on to allocate and take locks.
    #[allow(unsafe_code)]
    let forked = unsafe { fork() }?;
    match forked {
        ForkResult::Child => {
            drop(reader);
            let teller = Teller { pipe: Rc::new(writer) };
            let status = live(limits, &teller, work);
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
            Ok(listen(child, std::fs::File::from(reader), limits, on_line))
        }
    }
}

/// The life of the child. The result is sent before the process ends, so that a fault on the way out costs nothing.
fn live(limits: Limits, teller: &Teller, work: impl FnOnce(&Teller) -> Vec<u8>) -> i32 {
    // A group of its own, so that the programs it starts die with it.
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    if let Err(e) = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL) {
        teller.line(&format!("cannot tie our life to our parent's: {e}"));
    }
    if let Err(e) = setrlimit(Resource::RLIMIT_AS, limits.memory, limits.memory)
        .and_then(|()| setrlimit(Resource::RLIMIT_CORE, 0, 0))
    {
        teller.line(&format!("no limit on memory: {e}"));
    }
    if limits.private_mounts
        && let Err(e) = private_mounts()
    {
        teller.line(&format!("no private mounts: {e}"));
    }
    // The shipped binary aborts on panic; a build that unwinds must not unwind into the parent's code.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(teller))) {
        Ok(result) => {
            teller.result(&result);
            0
        }
        Err(_) => 101,
    }
}

fn private_mounts() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}

fn listen(child: Pid, mut pipe: std::fs::File, limits: Limits, on_line: &mut dyn FnMut(&str)) -> ChildReport {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let started = uptime_ms();
    let mut heard = started;
    let mut ear = Ear::default();
    let mut open = true;
    let end = loop {
        if open {
            open = ear.take(&mut pipe, &mut |line| {
                heard = uptime_ms();
                on_line(line);
            });
        }
        if let Some(result) = ear.whole_result() {
            reap(child, GRACE);
            break ChildEnd::Finished(result);
        }
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
            ended => {
                // It is gone, but its last words may still lie in the pipe.
                while open && ear.take(&mut pipe, on_line) && ear.fresh() {}
                break ear.whole_result().map_or_else(|| ChildEnd::Died(words(ended)), ChildEnd::Finished);
            }
        }
        let now = uptime_ms();
        if now.saturating_sub(heard) >= millis(limits.silence) || now.saturating_sub(started) >= millis(limits.overall)
        {
            break ChildEnd::TimedOut;
        }
        if open {
            let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
            // Interrupted or not, the loop looks again.
            let _ = poll(&mut fds, PollTimeout::from(50_u8));
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    end_group(child);
    ChildReport { end, last_stage: ear.last_stage }
}

/// Waits for the child to end by itself, at most `grace`.
pub(super) fn reap(child: Pid, grace: Duration) {
    let limit = uptime_ms().saturating_add(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    while let Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) = waitpid(child, Some(WaitPidFlag::WNOHANG)) {
        if uptime_ms() >= limit {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Kills whatever is left of the child and its programs, and waits until all are gone: an e2fsck that outlives its
/// stage would write to the device while the OS mounts it. Orphans of the group become children of PID 1, so that it
/// can wait for them. What hangs in the kernel cannot be waited for; the boot then goes on, and the log says so.
pub(super) fn end_group(child: Pid) {
    let limit = uptime_ms().saturating_add(u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX));
    let group = Pid::from_raw(-child.as_raw());
    // Usually the group is empty by now.
    let _ = killpg(child, Signal::SIGKILL);
    loop {
        match waitpid(group, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if uptime_ms() >= limit => {
                log::error!("process group {child} cannot be ended; going on without it");
                return;
            }
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(1)),
            Ok(_) | Err(Errno::EINTR) => {}
            // No child of ours is left in it.
            Err(_) => return,
        }
    }
}

pub(super) fn words(ended: nix::Result<WaitStatus>) -> String {
    match ended {
        Ok(WaitStatus::Exited(_, status)) => format!("status {status}"),
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("signal {signal}"),
        Ok(other) => format!("{other:?}"),
        Err(e) => format!("unknown: {e}"),
    }
}

/// The parent's side of the protocol, free of effects but for the reader it is given.
#[derive(Debug, Default)]
struct Ear {
    partial: Vec<u8>,
    result: Option<(usize, Vec<u8>)>,
    last_stage: Option<String>,
    fresh: bool,
}

impl Ear {
    /// Takes what has arrived, up to a bound; false at the end of the pipe. A pipe that cannot be read has ended.
    fn take(&mut self, pipe: &mut impl Read, on_line: &mut dyn FnMut(&str)) -> bool {
        let mut buffer = [0; 4096];
        self.fresh = false;
        for _ in 0..64 {
            match pipe.read(&mut buffer) {
                Ok(0) => return false,
                Ok(n) => {
                    self.fresh = true;
                    self.hear(buffer.get(..n).unwrap_or_default(), on_line);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Whether the last [`Ear::take`] brought anything.
    fn fresh(&self) -> bool {
        self.fresh
    }

    fn hear(&mut self, mut bytes: &[u8], on_line: &mut dyn FnMut(&str)) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if let Some((len, result)) = &mut self.result {
                let wanted = len.saturating_sub(result.len()).min(bytes.len());
                result.extend_from_slice(bytes.get(..wanted).unwrap_or_default());
                return;
            }
            bytes = rest;
            match byte {
                b'\n' => self.line(on_line),
                byte if self.partial.len() < LONGEST_LINE => self.partial.push(byte),
                _ => {}
            }
        }
    }

    fn line(&mut self, on_line: &mut dyn FnMut(&str)) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned();
        if let Some(len) = line.strip_prefix(RESULT) {
            // An impossible length is no result; the child will then count as dead.
            if let Some(len) = len.parse().ok().filter(|len| *len <= LARGEST_RESULT) {
                self.result = Some((len, Vec::new()));
            }
            return;
        }
        if let Some(stage) = line.strip_prefix(STAGE) {
            self.last_stage = Some(stage.to_owned());
        }
        on_line(&line);
    }

    fn whole_result(&mut self) -> Option<Vec<u8>> {
        self.result.take_if(|(len, result)| result.len() == *len).map(|(_, result)| result)
    }
}

#[cfg(test)]
mod tests;
