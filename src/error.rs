//! What a person is told when a command cannot do its work, and what a script is told by the exit code.
//!
//! Rules: an error says what was being done, on which path, why it failed and what to do next. Damage found is not an
//! error but a finding, because looking worked. "Could not look" and "looked, and it is bad" have different bits.

use std::fmt;
use std::io;
use std::ops::{BitOr, BitOrAssign};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Exit code: the bits of fsck(8), OR-ed together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[must_use = "an exit code that is dropped turns damage into success"]
pub struct Exit(u8);

impl Exit {
    /// Nothing wrong.
    pub const OK: Exit = Exit(0);
    /// Something was wrong and has been repaired.
    pub const REPAIRED: Exit = Exit(1);
    /// The machine should be started again.
    pub const REBOOT: Exit = Exit(2);
    /// Damage or loss is left.
    pub const LEFT: Exit = Exit(4);
    /// The work could not be done.
    pub const OPERATIONAL: Exit = Exit(8);
    /// The command line or the configuration cannot be used.
    pub const USAGE: Exit = Exit(16);
    /// Cancelled by a person.
    pub const CANCELLED: Exit = Exit(32);

    /// The number for exit(2).
    #[must_use]
    pub fn code(self) -> u8 {
        self.0
    }

    /// True when every bit of `bits` is set.
    #[must_use]
    pub fn has(self, bits: Exit) -> bool {
        self.0 & bits.0 == bits.0
    }
}

impl BitOr for Exit {
    type Output = Exit;
    fn bitor(self, other: Exit) -> Exit {
        Exit(self.0 | other.0)
    }
}

impl BitOrAssign for Exit {
    fn bitor_assign(&mut self, other: Exit) {
        self.0 |= other.0;
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// What kind of failure; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The command line cannot be understood.
    Usage,
    /// The configuration cannot be used.
    Config,
    /// Something that must be read could not be read.
    Read,
    /// Something that must be written could not be written.
    Write,
    /// Refused, because going on could destroy something.
    Refused,
    /// Cancelled by a person.
    Cancelled,
}

impl ErrorKind {
    /// The exit code of this kind.
    pub fn exit(self) -> Exit {
        match self {
            Self::Usage | Self::Config => Exit::USAGE,
            Self::Read | Self::Write | Self::Refused => Exit::OPERATIONAL,
            Self::Cancelled => Exit::CANCELLED,
        }
    }
}

/// A failure with everything that the reader needs: `what: path: why; next: advice`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// Kind of failure.
    pub kind: ErrorKind,
    /// What was being done, such as `cannot read the configuration`.
    pub what: String,
    /// On which file or device, where there is one.
    pub path: Option<PathBuf>,
    /// Why it failed.
    pub why: String,
    /// What to do next.
    pub advice: String,
}

impl Error {
    /// A failure without a path.
    #[must_use]
    pub fn new(kind: ErrorKind, what: impl Into<String>, why: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { kind, what: what.into(), path: None, why: why.into(), advice: advice.into() }
    }

    /// A failed system call on `path`. The advice follows from the error where it is one of the usual ones.
    #[must_use]
    pub fn io(kind: ErrorKind, what: impl Into<String>, path: &Path, error: &io::Error) -> Self {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "check the path, and --root if one was given",
            io::ErrorKind::PermissionDenied => "run as root, or as the owner of the file",
            io::ErrorKind::StorageFull => "free some space on that volume and try again",
            io::ErrorKind::ReadOnlyFilesystem => {
                "mount the volume read-write, or look into the kernel log for why it is not"
            }
            io::ErrorKind::ResourceBusy => "stop whatever has it open, and try again",
            io::ErrorKind::IsADirectory => "name the file, not its directory",
            _ => "look into the kernel log (dmesg) for errors of the device below",
        };
        Self::new(kind, what, error.to_string(), advice).at(path)
    }

    /// The same failure on a path.
    #[must_use]
    pub fn at(mut self, path: &Path) -> Self {
        self.path = Some(path.to_path_buf());
        self
    }

    /// The same failure with other advice.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    /// Its exit code.
    pub fn exit(&self) -> Exit {
        self.kind.exit()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(path) = &self.path {
            write!(f, ": {}", path.display())?;
        }
        if !self.why.is_empty() {
            write!(f, ": {}", self.why)?;
        }
        if !self.advice.is_empty() {
            write!(f, "; next: {}", self.advice)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::{Error, ErrorKind, Exit};
    use std::io;
    use std::path::Path;

    #[test]
    fn exit_bits_are_those_of_fsck_and_join() {
        let all = [Exit::REPAIRED, Exit::REBOOT, Exit::LEFT, Exit::OPERATIONAL, Exit::USAGE, Exit::CANCELLED];
        assert_eq!(all.map(Exit::code), [1, 2, 4, 8, 16, 32]);
        let mut exit = Exit::OK | Exit::REPAIRED;
        exit |= Exit::LEFT;
        assert_eq!(exit.code(), 5);
        assert!(exit.has(Exit::LEFT) && !exit.has(Exit::REBOOT));
    }

    #[test]
    fn an_error_says_what_where_why_and_what_next() {
        let cause = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error = Error::io(ErrorKind::Read, "cannot read the configuration", Path::new("/etc/x.toml"), &cause);
        assert_eq!(
            error.to_string(),
            "cannot read the configuration: /etc/x.toml: no such file; next: check the path, and --root if one was given"
        );
        assert_eq!(error.exit(), Exit::OPERATIONAL);
        assert_eq!(Error::new(ErrorKind::Usage, "what", "why", "").to_string(), "what: why");
    }
}
