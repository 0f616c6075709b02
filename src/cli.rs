//! Arguments to an [`Invocation`]: pure, so that every refusal can be tested. Nothing here reads a file or prints.
//!
//! Global options may stand before or behind the command. As `init` (the name under which a kernel starts us) every
//! argument is ignored: the kernel hands over whatever words of its command line it did not know.

mod archive;
mod help;
mod sub;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use lexopt::Arg;

use crate::config::is_label;
use crate::error::Exit;
use crate::reset::Tier;
pub use archive::{BackupCommand, KeyCommand, QueueRows, Restore, Verify};
use help::{OVERVIEW, help};
pub use sub::{AuditCommand, QueueCommand};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// `--config FILE`, taken as given.
    pub config: Option<PathBuf>,
    /// `--root DIR`.
    pub root: Option<PathBuf>,
    /// `--technician ID`: a claim, recorded as such.
    pub technician: Option<String>,
    /// One JSON document on stdout and nothing else.
    pub json: bool,
    /// Log less.
    pub quiet: bool,
    /// Log more.
    pub verbose: bool,
    /// What to do.
    pub command: Command,
}

/// A command with its own options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The whole `/init` of an initramfs.
    Init,
    /// The boot flow as a hook.
    Boot {
        /// Print the plan, change nothing.
        plan: bool,
        /// Plan from a stored evidence file instead of from this machine.
        from: Option<PathBuf>,
    },
    /// Verdicts.
    Check {
        /// Headers, WAL, schema and freelist head only.
        quick: bool,
        /// Files instead of the configured databases.
        databases: Vec<PathBuf>,
    },
    /// The repair ladder.
    Repair {
        /// Print the plan, change nothing.
        plan: bool,
        /// Files instead of the configured databases.
        databases: Vec<PathBuf>,
    },
    /// Everything recoverable into a new database.
    Salvage(Salvage),
    /// Read-only facts.
    Inspect {
        /// The database.
        database: PathBuf,
    },
    /// The last report.
    Status(Status),
    /// The audit chain and our own journal.
    Audit(AuditCommand),
    /// The queue of unsent messages.
    Queue(QueueCommand),
    /// Backups.
    Backup(BackupCommand),
    /// A backup in place of what is there.
    Restore(Restore),
    /// The device's keys.
    Key(KeyCommand),
    /// A factory reset.
    Reset {
        /// How far.
        tier: Tier,
        /// Say what would be done.
        plan: bool,
        /// Go on where something cannot be preserved.
        accept_loss: bool,
    },
    /// Slot state, read.
    SlotStatus,
    /// Marks the booted slot good.
    SlotMarkGood,
    /// Name and version.
    Version,
    /// This text, to print on stdout.
    Help(&'static str),
}

/// `salvage DB OUT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvage {
    /// The damaged database.
    pub db: PathBuf,
    /// The new one.
    pub out: PathBuf,
    /// `--schema FILE`.
    pub schema: Option<PathBuf>,
    /// `--backup DIR`.
    pub backup: Option<PathBuf>,
}

/// `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `--metrics`: as Prometheus text.
    pub metrics: bool,
    /// `--to FILE`: into a file, replaced as a whole.
    pub to: Option<PathBuf>,
}

/// A command line that cannot be used; exit code 16.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What is wrong.
    pub message: String,
    /// What to do next.
    pub advice: String,
}

impl Usage {
    fn new(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { message: message.into(), advice: advice.into() }
    }

    /// Its exit code.
    pub fn exit(&self) -> Exit {
        Exit::USAGE
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; next: {}", self.message, self.advice)
    }
}

impl std::error::Error for Usage {}

/// Commands of the contract that this version refuses by name instead of as unknown.
const LATER: [&str; 4] = ["scrub", "stick", "recovery", "drill"];
const SLOT_LATER: [&str; 3] = ["mark-bad", "set-primary", "doctor"];
const TRY_HELP: &str = "see pyvorin-recovery --help";

/// The options and words of one command line, before they are joined into a command.
#[derive(Default)]
struct Given {
    config: Option<PathBuf>,
    root: Option<PathBuf>,
    technician: Option<String>,
    json: bool,
    quiet: bool,
    verbose: bool,
    help: bool,
    version: bool,
    plan: bool,
    quick: bool,
    metrics: bool,
    record: bool,
    from: Option<PathBuf>,
    anchor: Option<PathBuf>,
    last: Option<u32>,
    details: Option<String>,
    schema: Option<PathBuf>,
    backup: Option<PathBuf>,
    to: Option<PathBuf>,
    tier: Option<Tier>,
    accept_loss: bool,
    full: bool,
    config_files: bool,
    any_device: bool,
    identities: Vec<PathBuf>,
    base: Option<PathBuf>,
    queue: Option<QueueRows>,
    command: Option<String>,
    words: Vec<OsString>,
}

impl Given {
    /// The options given that belong to some commands only.
    fn options(&self) -> Vec<&'static str> {
        let all = [
            ("--plan", self.plan),
            ("--quick", self.quick),
            ("--metrics", self.metrics),
            ("--from", self.from.is_some()),
            ("--record", self.record),
            ("--anchor", self.anchor.is_some()),
            ("--last", self.last.is_some()),
            ("--details", self.details.is_some()),
            ("--schema", self.schema.is_some()),
            ("--backup", self.backup.is_some()),
            ("--tier", self.tier.is_some()),
            ("--accept-loss", self.accept_loss),
            ("--to", self.to.is_some()),
            ("--full", self.full),
            ("--config-files", self.config_files),
            ("--any-device", self.any_device),
            ("--identity", !self.identities.is_empty()),
            ("--base", self.base.is_some()),
            ("--queue", self.queue.is_some()),
        ];
        all.into_iter().filter(|(_, given)| *given).map(|(option, _)| option).collect()
    }
}

/// Understands a whole command line, beginning with the name of the program.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, Usage> {
    let mut args = args.into_iter();
    let program = args.next().unwrap_or_default();
    if Path::new(&program).file_name() == Some(OsStr::new("init")) {
        return Ok(invocation(&Given::default(), Command::Init));
    }
    let given = read(lexopt::Parser::from_args(args))?;
    let command = command(&given)?;
    Ok(invocation(&given, command))
}

fn invocation(given: &Given, command: Command) -> Invocation {
    Invocation {
        config: given.config.clone(),
        root: given.root.clone(),
        technician: given.technician.clone(),
        json: given.json,
        quiet: given.quiet,
        verbose: given.verbose,
        command,
    }
}

fn read(mut parser: lexopt::Parser) -> Result<Given, Usage> {
    let mut given = Given::default();
    while let Some(arg) = parser.next().map_err(|error| Usage::new(error.to_string(), TRY_HELP))? {
        match arg {
            Arg::Long("config") => once("--config", &mut given.config, path("--config", &mut parser)?)?,
            Arg::Long("root") => once("--root", &mut given.root, path("--root", &mut parser)?)?,
            Arg::Long("from") => once("--from", &mut given.from, path("--from", &mut parser)?)?,
            Arg::Long("anchor") => once("--anchor", &mut given.anchor, path("--anchor", &mut parser)?)?,
            Arg::Long("to") => once("--to", &mut given.to, path("--to", &mut parser)?)?,
            Arg::Long("last") => {
                let number = value("--last", &mut parser)?;
                let number = number.to_str().and_then(|n| n.parse().ok()).filter(|n| (1..=10_000).contains(n));
                let number = number.ok_or_else(|| Usage::new("--last needs a number from 1 to 10000", TRY_HELP))?;
                once("--last", &mut given.last, number)?;
            }
            Arg::Long("details") => {
                let text = value("--details", &mut parser)?.into_string();
                let text = text.map_err(|_| Usage::new("--details is not UTF-8 text", "write JSON in UTF-8"))?;
                once("--details", &mut given.details, text)?;
            }
            Arg::Long("record") => given.record = true,
            Arg::Long("schema") => once("--schema", &mut given.schema, path("--schema", &mut parser)?)?,
            Arg::Long("backup") => once("--backup", &mut given.backup, path("--backup", &mut parser)?)?,
            Arg::Long("tier") => {
                let word = value("--tier", &mut parser)?;
                let tier = word.to_str().and_then(Tier::of);
                let tier =
                    tier.ok_or_else(|| Usage::new(format!("--tier {word:?} is none"), "write queue, data or full"))?;
                once("--tier", &mut given.tier, tier)?;
            }
            Arg::Long("accept-loss") => given.accept_loss = true,
            Arg::Long("full") => given.full = true,
            Arg::Long("config-files") => given.config_files = true,
            Arg::Long("any-device") => given.any_device = true,
            Arg::Long("identity") => given.identities.push(path("--identity", &mut parser)?),
            Arg::Long("base") => once("--base", &mut given.base, path("--base", &mut parser)?)?,
            Arg::Long("queue") => {
                let word = value("--queue", &mut parser)?;
                let rows = word.to_str().and_then(QueueRows::of);
                let rows = rows.ok_or_else(|| {
                    Usage::new(format!("--queue {word:?} is none"), "write all, keep, or a number of days")
                })?;
                once("--queue", &mut given.queue, rows)?;
            }
            Arg::Long("technician") => {
                let id = technician(&value("--technician", &mut parser)?)?;
                once("--technician", &mut given.technician, id)?;
            }
            Arg::Long("json") => given.json = true,
            Arg::Short('q') | Arg::Long("quiet") => given.quiet = true,
            Arg::Short('v') | Arg::Long("verbose") => given.verbose = true,
            Arg::Short('h') | Arg::Long("help") => given.help = true,
            Arg::Short('V') | Arg::Long("version") => given.version = true,
            Arg::Long("plan") => given.plan = true,
            Arg::Long("quick") => given.quick = true,
            Arg::Long("metrics") => given.metrics = true,
            Arg::Value(word) if given.command.is_none() => given.command = Some(known(&word)?),
            Arg::Value(word) => given.words.push(word),
            other => return Err(Usage::new(other.unexpected().to_string(), TRY_HELP)),
        }
    }
    Ok(given)
}

/// Refuses an unknown command before its options, which would only confuse the message.
fn known(word: &OsStr) -> Result<String, Usage> {
    let word = word.to_string_lossy().into_owned();
    if ["init", "version", "help"].contains(&word.as_str()) || help(&word).is_some() {
        return Ok(word);
    }
    if LATER.contains(&word.as_str()) {
        return Err(not_yet(&word));
    }
    Err(Usage::new(format!("unknown command {word:?}"), TRY_HELP))
}

fn not_yet(command: &str) -> Usage {
    Usage::new(format!("{command} is not part of this version"), "see pyvorin-recovery --help for what is")
}

fn command(given: &Given) -> Result<Command, Usage> {
    if given.quiet && given.verbose {
        return Err(Usage::new("--quiet and --verbose exclude each other", "give one of them"));
    }
    if given.version {
        return Ok(Command::Version);
    }
    let Some(name) = given.command.as_deref() else {
        if given.help {
            return Ok(Command::Help(OVERVIEW));
        }
        return Err(Usage::new("no command given", TRY_HELP));
    };
    if given.help {
        return Ok(Command::Help(help(name).unwrap_or(OVERVIEW)));
    }
    let allowed: &[&str] = match name {
        "boot" => &["--plan", "--from"],
        "check" => &["--quick"],
        "repair" => &["--plan"],
        "salvage" => &["--schema", "--backup"],
        "reset" => &["--plan", "--tier", "--accept-loss"],
        "restore" => &["--plan", "--identity", "--base", "--config-files", "--any-device", "--queue"],
        "backup" | "key" => &["--plan", "--full", "--identity", "--base"],
        "status" => &["--metrics", "--to"],
        // Their verbs say which of them take which.
        "audit" | "queue" => &["--plan", "--record", "--anchor", "--last", "--details"],
        _ => &[],
    };
    if let Some(option) = given.options().into_iter().find(|option| !allowed.contains(option)) {
        return Err(Usage::new(format!("{option} does not belong to {name}"), see(name)));
    }
    let databases = || given.words.iter().map(|word| file(name, word)).collect::<Result<Vec<_>, _>>();
    let none = |command| match given.words.first() {
        None => Ok(command),
        Some(word) => Err(Usage::new(format!("{name} takes no argument {word:?}"), see(name))),
    };
    match name {
        "init" => none(Command::Init),
        "boot" if given.from.is_some() && !given.plan => {
            Err(Usage::new("--from needs --plan: stored evidence is not this machine", "add --plan"))
        }
        "boot" => none(Command::Boot { plan: given.plan, from: given.from.clone() }),
        "check" => Ok(Command::Check { quick: given.quick, databases: databases()? }),
        "repair" => Ok(Command::Repair { plan: given.plan, databases: databases()? }),
        "status" if given.to.is_some() && !given.metrics => {
            Err(Usage::new("--to is for metrics only", "add --metrics, or redirect the output"))
        }
        "status" => none(Command::Status(Status { metrics: given.metrics, to: given.to.clone() })),
        // Never for nobody: a reset without a name could not be told from a mistake.
        "reset" if given.technician.is_none() && !given.plan => {
            let advice = "add --technician ID; it is recorded in the receipt";
            Err(Usage::new("reset needs a person who answers for it", advice))
        }
        "reset" => none(Command::Reset {
            tier: given.tier.unwrap_or(Tier::Data),
            plan: given.plan,
            accept_loss: given.accept_loss,
        }),
        "version" => none(Command::Version),
        "salvage" => match databases()?.as_slice() {
            [db, out] => Ok(Command::Salvage(Salvage {
                db: db.clone(),
                out: out.clone(),
                schema: given.schema.clone(),
                backup: given.backup.clone(),
            })),
            _ => Err(Usage::new("salvage takes exactly DB and OUT", see(name))),
        },
        "inspect" => match databases()?.as_slice() {
            [database] => Ok(Command::Inspect { database: database.clone() }),
            _ => Err(Usage::new("inspect takes exactly one DB", see(name))),
        },
        "audit" => sub::audit(given).map(Command::Audit),
        "queue" => sub::queue(given).map(Command::Queue),
        "backup" => archive::backup(given).map(Command::Backup),
        "restore" => archive::restore(given).map(Command::Restore),
        "key" => archive::key(given).map(Command::Key),
        "slot" => slot(&given.words),
        _ => topic(&given.words),
    }
}

fn slot(words: &[OsString]) -> Result<Command, Usage> {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    match words.iter().map(AsRef::as_ref).collect::<Vec<&str>>().as_slice() {
        ["status"] => Ok(Command::SlotStatus),
        ["mark-good"] => Ok(Command::SlotMarkGood),
        [verb, ..] if SLOT_LATER.contains(verb) => Err(not_yet(&format!("slot {verb}"))),
        _ => Err(Usage::new("slot takes one of: status, mark-good", see("slot"))),
    }
}

fn topic(words: &[OsString]) -> Result<Command, Usage> {
    match words {
        [] => Ok(Command::Help(OVERVIEW)),
        [one] => {
            let name = known(one)?;
            Ok(Command::Help(help(&name).unwrap_or(OVERVIEW)))
        }
        _ => Err(Usage::new("help takes one command", TRY_HELP)),
    }
}

fn see(command: &str) -> String {
    format!("see pyvorin-recovery {command} --help")
}

fn once<T>(option: &str, place: &mut Option<T>, value: T) -> Result<(), Usage> {
    if place.replace(value).is_some() {
        return Err(Usage::new(format!("{option} is given twice"), "give it once"));
    }
    Ok(())
}

fn value(option: &str, parser: &mut lexopt::Parser) -> Result<OsString, Usage> {
    parser.value().map_err(|_| Usage::new(format!("{option} needs a value"), TRY_HELP))
}

fn path(option: &str, parser: &mut lexopt::Parser) -> Result<PathBuf, Usage> {
    file(option, &value(option, parser)?)
}

fn file(whose: &str, word: &OsStr) -> Result<PathBuf, Usage> {
    if word.is_empty() {
        return Err(Usage::new(format!("{whose} got an empty path"), "check the variable that was to hold it"));
    }
    Ok(PathBuf::from(word))
}

fn technician(id: &OsStr) -> Result<String, Usage> {
    match id.to_str().filter(|id| is_label(id, 64)) {
        Some(id) => Ok(id.to_owned()),
        None => Err(Usage::new(
            format!("--technician {id:?} cannot stand in an audit record"),
            "write 1 to 64 of A-Z, a-z, 0-9, dot, _ and -",
        )),
    }
}

#[cfg(test)]
mod tests;
