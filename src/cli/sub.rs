//! The sub-commands of `audit` and `queue`: words and options to values.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{Given, Usage, file, see};

/// `audit …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditCommand {
    /// The agent's chain and our journal.
    Verify {
        /// An earlier `audit verify --json`, kept elsewhere.
        anchor: Option<PathBuf>,
    },
    /// Their last lines.
    Show {
        /// How many.
        last: u32,
    },
    /// An entry by a person or a script.
    Log {
        /// What happened.
        action: String,
        /// Facts, a JSON object.
        details: String,
    },
    /// Our events into the agent's chain.
    Fold,
}

/// `queue …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueCommand {
    /// The figures.
    Stats {
        /// Note the depth in the history, at most once an hour.
        record: bool,
    },
    /// Rows to a file.
    Export {
        /// The file.
        to: PathBuf,
    },
    /// Rows from a file.
    Import {
        /// The file.
        from: PathBuf,
        /// Say what would be done.
        plan: bool,
    },
    /// Export, rebuild, re-inject.
    Repair {
        /// Say what would be done.
        plan: bool,
    },
}

/// Options that belong to one sub-command, beside the global ones.
const AUDIT: [(&str, &[&str]); 4] =
    [("verify", &["--anchor"]), ("show", &["--last"]), ("log", &["--details"]), ("fold", &[])];
const QUEUE: [(&str, &[&str]); 4] =
    [("stats", &["--record"]), ("export", &[]), ("import", &["--plan"]), ("repair", &["--plan"])];
/// Longest action that `audit log` takes.
const MAX_ACTION: usize = 64;

pub(super) fn verb(name: &str, words: &[OsString], verbs: &[(&str, &[&str])], given: &Given) -> Result<String, Usage> {
    let list = || verbs.iter().map(|(verb, _)| *verb).collect::<Vec<_>>().join(", ");
    let first = words.first().map(|w| w.to_string_lossy().into_owned()).unwrap_or_default();
    let Some((verb, options)) = verbs.iter().find(|(verb, _)| *verb == first) else {
        return Err(Usage::new(format!("{name} takes one of: {}", list()), see(name)));
    };
    match given.options().into_iter().find(|option| !options.contains(option)) {
        Some(option) => Err(Usage::new(format!("{option} does not belong to {name} {verb}"), see(name))),
        None => Ok(first),
    }
}

pub(super) fn exactly<'w>(what: &str, name: &str, words: &'w [OsString]) -> Result<&'w OsString, Usage> {
    match words {
        [_, one] => Ok(one),
        _ => Err(Usage::new(format!("{name} takes exactly one {what}"), see(name.split(' ').next().unwrap_or(name)))),
    }
}

pub(super) fn none(name: &str, words: &[OsString]) -> Result<(), Usage> {
    match words {
        [_] | [] => Ok(()),
        [_, extra, ..] => {
            Err(Usage::new(format!("{name} takes no argument {extra:?}"), see(name.split(' ').next().unwrap_or(name))))
        }
    }
}

pub(super) fn audit(given: &Given) -> Result<AuditCommand, Usage> {
    let words = &given.words;
    match verb("audit", words, &AUDIT, given)?.as_str() {
        "verify" => none("audit verify", words).map(|()| AuditCommand::Verify { anchor: given.anchor.clone() }),
        "show" => none("audit show", words).map(|()| AuditCommand::Show { last: given.last.unwrap_or(20) }),
        "fold" => none("audit fold", words).map(|()| AuditCommand::Fold),
        _ => {
            let action = exactly("ACTION", "audit log", words)?.to_str().unwrap_or("").to_string();
            let fits = (1..=MAX_ACTION).contains(&action.len())
                && action.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            if !fits {
                return Err(Usage::new(
                    format!("ACTION {action:?} cannot stand in an audit record"),
                    "write 1 to 64 of a-z, 0-9 and _, such as card_replaced",
                ));
            }
            Ok(AuditCommand::Log { action, details: given.details.clone().unwrap_or_else(|| "{}".to_string()) })
        }
    }
}

pub(super) fn queue(given: &Given) -> Result<QueueCommand, Usage> {
    let words = &given.words;
    match verb("queue", words, &QUEUE, given)?.as_str() {
        "stats" => none("queue stats", words).map(|()| QueueCommand::Stats { record: given.record }),
        "export" => Ok(QueueCommand::Export { to: file("queue export", exactly("FILE", "queue export", words)?)? }),
        "import" => Ok(QueueCommand::Import {
            from: file("queue import", exactly("FILE", "queue import", words)?)?,
            plan: given.plan,
        }),
        _ => none("queue repair", words).map(|()| QueueCommand::Repair { plan: given.plan }),
    }
}
