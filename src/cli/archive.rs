//! The sub-commands around backups: `backup`, `restore`, `key`.

use std::path::PathBuf;

use super::sub::{exactly, none, verb};
use super::{Given, Usage, file, see};

/// `backup …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupCommand {
    /// Takes one.
    Create {
        /// A full one, also where an increment would do.
        full: bool,
    },
    /// Lists them.
    List,
    /// Proves one.
    Verify(Verify),
    /// Takes away what is old.
    Prune {
        /// Say what would go.
        plan: bool,
    },
}

/// `backup verify`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verify {
    /// The archive.
    pub archive: PathBuf,
    /// Files with keys that may open it.
    pub identities: Vec<PathBuf>,
    /// The full backup that it builds on.
    pub base: Option<PathBuf>,
}

/// `restore`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    /// The archive, and the keys.
    pub from: Verify,
    /// Restore the configuration too.
    pub config: bool,
    /// Also from another device.
    pub any_device: bool,
    /// `--queue`.
    pub queue: QueueRows,
    /// Say what would be done.
    pub plan: bool,
}

/// Which rows of an old queue come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueRows {
    /// All.
    #[default]
    All,
    /// None: the queue that is there stays.
    Keep,
    /// Those that are younger than so many days.
    Days(u32),
}

impl QueueRows {
    pub(super) fn of(word: &str) -> Option<Self> {
        match word {
            "all" => Some(Self::All),
            "keep" => Some(Self::Keep),
            days => days.parse().ok().filter(|n| (1..=3650).contains(n)).map(Self::Days),
        }
    }
}

/// `key …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyCommand {
    /// Makes the device's keys.
    Init,
    /// Prints their public halves.
    Show,
}

const BACKUP: [(&str, &[&str]); 4] =
    [("create", &["--full"]), ("list", &[]), ("verify", &["--identity", "--base"]), ("prune", &["--plan"])];
const KEY: [(&str, &[&str]); 2] = [("init", &[]), ("show", &[])];

pub(super) fn backup(given: &Given) -> Result<BackupCommand, Usage> {
    let words = &given.words;
    match verb("backup", words, &BACKUP, given)?.as_str() {
        "create" => none("backup create", words).map(|()| BackupCommand::Create { full: given.full }),
        "list" => none("backup list", words).map(|()| BackupCommand::List),
        "prune" => none("backup prune", words).map(|()| BackupCommand::Prune { plan: given.plan }),
        _ => {
            let archive = file("backup verify", exactly("ARCHIVE", "backup verify", words)?)?;
            Ok(BackupCommand::Verify(verify(given, archive)))
        }
    }
}

fn verify(given: &Given, archive: PathBuf) -> Verify {
    Verify { archive, identities: given.identities.clone(), base: given.base.clone() }
}

pub(super) fn restore(given: &Given) -> Result<Restore, Usage> {
    let [archive] = given.words.as_slice() else {
        return Err(Usage::new("restore takes exactly one ARCHIVE", see("restore")));
    };
    Ok(Restore {
        from: verify(given, file("restore", archive)?),
        config: given.config_files,
        any_device: given.any_device,
        queue: given.queue.unwrap_or_default(),
        plan: given.plan,
    })
}

pub(super) fn key(given: &Given) -> Result<KeyCommand, Usage> {
    match verb("key", &given.words, &KEY, given)?.as_str() {
        "init" => none("key init", &given.words).map(|()| KeyCommand::Init),
        _ => none("key show", &given.words).map(|()| KeyCommand::Show),
    }
}
