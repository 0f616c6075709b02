//! A program under a time limit, its output as lines.
//!
//! It stays in our process group on purpose: when PID 1 kills a stage ([`super::child`]), it kills the group, and a
//! file system check must not live on beside the boot that mounts its device.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;

use super::uptime_ms;

/// How long a killed program may take to vanish; one that hangs in the kernel cannot be waited for.
const GRACE_MS: u64 = 5_000;
/// Longest line passed on; more is cut off.
const LONGEST_LINE: usize = 1_000;

/// Runs `program` until it ends or `limit` has passed, passing on each line it prints and a sign of life after each
/// `heartbeat` of silence. Gives its exit status. A program that had to be killed is an error of kind `TimedOut`.
pub fn bounded(
    program: &Path,
    args: &[OsString],
    limit: Duration,
    heartbeat: Duration,
    on_line: &dyn Fn(&str),
) -> io::Result<i32> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    // Our end only: the program must not meet EAGAIN on its output.
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    #[allow(clippy::disallowed_methods)] // This is the one place in the rim where programs are run.
    let mut command = Command::new(program);
    // An environment of our own: the one of PID 1 is made of words from the kernel command line.
    command.args(args).env_clear().env("PATH", "/sbin:/usr/sbin:/bin:/usr/bin").env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child =
        command.spawn().map_err(|e| io::Error::new(e.kind(), format!("cannot run {}: {e}", program.display())))?;
    // The command holds the writing ends; without this the end of the output would never come.
    drop(command);

    let ended = watch(&mut child, std::fs::File::from(reader), limit, heartbeat, on_line);
    if ended.is_err() {
        kill(&mut child);
    }
    ended.map_err(|e| io::Error::new(e.kind(), format!("{} {e}", program.display())))
}

fn watch(
    child: &mut Child,
    mut output: std::fs::File,
    limit: Duration,
    heartbeat: Duration,
    on_line: &dyn Fn(&str),
) -> io::Result<i32> {
    let started = uptime_ms();
    let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let heartbeat = u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX);
    let mut last_sign = started;
    let mut lines = Lines::default();
    let mut open = true;
    loop {
        if open {
            open = lines.take(&mut output, on_line, &mut last_sign)?;
        }
        if let Some(status) = child.try_wait()? {
            if open {
                // What it said last; whether more could come does not matter any more.
                let _ = lines.take(&mut output, on_line, &mut last_sign)?;
            }
            lines.finish(on_line);
            return match (status.code(), status.signal()) {
                (Some(code), _) => Ok(code),
                (None, signal) => Err(io::Error::other(format!("was ended by signal {}", signal.unwrap_or(0)))),
            };
        }
        let now = uptime_ms();
        if now.saturating_sub(started) >= limit {
            let why = format!("did not end within {} s and was killed", limit / 1000);
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        if now.saturating_sub(last_sign) >= heartbeat {
            last_sign = now;
            on_line(&format!("running for {} s", now.saturating_sub(started) / 1000));
        }
        if open {
            let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(100_u8)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        } else {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Kills the program and waits a little for it to go. One that has just ended by itself is what we want as well.
fn kill(child: &mut Child) {
    let _ = child.kill();
    let started = uptime_ms();
    while uptime_ms().saturating_sub(started) < GRACE_MS && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Passes on what has arrived; false at the end of the output.
    fn take(&mut self, from: &mut impl Read, on_line: &dyn Fn(&str), last: &mut u64) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        // Bounded, so that a program that never stops talking still meets its limit.
        for _ in 0..64 {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    *last = uptime_ms();
                    for &byte in buffer.get(..n).unwrap_or_default() {
                        // Progress meters end their lines with a carriage return.
                        match byte {
                            b'\n' | b'\r' => self.finish(on_line),
                            byte if self.partial.len() < LONGEST_LINE => self.partial.push(byte),
                            _ => {}
                        }
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    fn finish(&mut self, on_line: &dyn Fn(&str)) {
        let line = String::from_utf8_lossy(&self.partial);
        let line = line.trim_end();
        if !line.is_empty() {
            on_line(line);
        }
        self.partial.clear();
    }
}
