//! Arguments to an [`Invocation`]: pure, so that every refusal can be tested. Nothing here reads a file or prints.
//!
//! Global options may stand before or behind the command. As `init` (the name under which a kernel starts us) every
//! argument is ignored: the kernel hands over whatever words of its command line it did not know.

mod help;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use lexopt::Arg;

use crate::config::is_label;
use crate::error::Exit;
use help::{OVERVIEW, help};

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
    Status {
        /// As Prometheus text.
        metrics: bool,
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
const LATER: [&str; 10] =
    ["scrub", "queue", "audit", "backup", "restore", "stick", "key", "reset", "recovery", "drill"];
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
    from: Option<PathBuf>,
    schema: Option<PathBuf>,
    backup: Option<PathBuf>,
    command: Option<String>,
    words: Vec<OsString>,
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
            Arg::Long("schema") => once("--schema", &mut given.schema, path("--schema", &mut parser)?)?,
            Arg::Long("backup") => once("--backup", &mut given.backup, path("--backup", &mut parser)?)?,
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
    let allowed = match name {
        "boot" => (true, false, false, true),
        "check" => (false, true, false, false),
        "repair" => (true, false, false, false),
        "status" => (false, false, true, false),
        _ => (false, false, false, false),
    };
    let asked = [
        ("--plan", given.plan, allowed.0),
        ("--quick", given.quick, allowed.1),
        ("--metrics", given.metrics, allowed.2),
        ("--from", given.from.is_some(), allowed.3),
        ("--schema", given.schema.is_some(), name == "salvage"),
        ("--backup", given.backup.is_some(), name == "salvage"),
    ];
    if let Some((option, ..)) = asked.iter().find(|(_, given, allowed)| *given && !allowed) {
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
        "status" => none(Command::Status { metrics: given.metrics }),
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
mod tests {
    use super::help::{BOOT, INIT, OVERVIEW, help};
    use super::{Command, Invocation, LATER, SLOT_LATER, Usage, parse};
    use std::ffi::OsString;
    use std::path::PathBuf;

    fn run(line: &str) -> Result<Invocation, Usage> {
        parse(std::iter::once("pyvorin-recovery").chain(line.split_whitespace()).map(OsString::from))
    }

    fn command(line: &str) -> Command {
        run(line).expect(line).command
    }

    #[test]
    fn every_command_of_this_version_is_understood() {
        let db = || vec![PathBuf::from("a.db"), PathBuf::from("/b.db")];
        assert_eq!(command("init"), Command::Init);
        assert_eq!(command("boot --plan --from e.json"), Command::Boot { plan: true, from: Some("e.json".into()) });
        assert_eq!(command("check a.db --quick /b.db"), Command::Check { quick: true, databases: db() });
        assert_eq!(command("check"), Command::Check { quick: false, databases: vec![] });
        assert_eq!(command("repair --plan a.db /b.db"), Command::Repair { plan: true, databases: db() });
        assert_eq!(command("repair -- --plan"), Command::Repair { plan: false, databases: vec!["--plan".into()] });
        assert_eq!(command("inspect a.db"), Command::Inspect { database: "a.db".into() });
        let salvage = |schema: Option<&str>, backup: Option<&str>| {
            let (db, out) = ("a.db".into(), "o.db".into());
            Command::Salvage(super::Salvage { db, out, schema: schema.map(Into::into), backup: backup.map(Into::into) })
        };
        assert_eq!(command("salvage a.db o.db"), salvage(None, None));
        assert_eq!(command("salvage --schema s.sql a.db --backup=d o.db"), salvage(Some("s.sql"), Some("d")));
        assert_eq!(command("status --metrics"), Command::Status { metrics: true });
        assert_eq!(command("slot status"), Command::SlotStatus);
        assert_eq!(command("slot mark-good"), Command::SlotMarkGood);
        assert_eq!(command("version"), Command::Version);
        assert_eq!(command("-V"), Command::Version);
    }

    #[test]
    fn global_options_stand_on_either_side_of_the_command() {
        let left = run("--config c --root=/r --technician J.Doe_1-x --json -q check").unwrap();
        assert_eq!(left, run("check --json -q --config=c --root /r --technician J.Doe_1-x").unwrap());
        assert_eq!(left.config, Some("c".into()));
        assert_eq!((left.root, left.technician.as_deref()), (Some("/r".into()), Some("J.Doe_1-x")));
        assert!(left.json && left.quiet && !left.verbose);
    }

    #[test]
    fn under_the_name_init_every_argument_is_ignored() {
        for name in ["init", "/init", "/sbin/init"] {
            let args = [name, "single", "--json", "\u{1}"].map(OsString::from);
            let got = parse(args).unwrap();
            assert_eq!((got.command, got.json), (Command::Init, false));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_exit_16_and_a_next_step() {
        let lines = [
            "",
            "chek",
            "check --slow",
            "check --plan",
            "boot --quick",
            "repair --metrics",
            "status x",
            "boot x",
            "boot --from e.json",
            "inspect",
            "inspect a b",
            "salvage",
            "salvage a",
            "salvage a b c",
            "salvage a b --schema",
            "repair a --schema b",
            "check --backup b",
            "slot",
            "slot mark-god",
            "slot status x",
            "init x",
            "check --config",
            "check --config a --config b",
            "-q -v check",
            "check --technician a/b",
            "help a b",
            "help nothing",
            "check --technician=",
            "check --root=",
            "-x",
            "check --json=yes",
        ];
        for line in lines {
            let usage = run(line).expect_err(line);
            assert_eq!(usage.exit().code(), 16);
            assert!(usage.to_string().contains("; next: "), "{usage}");
        }
        assert!(run(&format!("check --technician {}", "x".repeat(65))).is_err());
    }

    #[test]
    fn commands_of_the_contract_that_are_missing_say_so() {
        for name in LATER.iter().map(ToString::to_string).chain(SLOT_LATER.map(|verb| format!("slot {verb}"))) {
            let usage = run(&format!("{name} --whatever")).or_else(|_| run(&name)).expect_err(&name);
            assert!(usage.message.contains("not part of this version"), "{usage}");
        }
    }

    #[test]
    fn every_command_has_help_that_says_what_it_writes_and_how_it_ends() {
        for name in ["init", "boot", "check", "repair", "salvage", "inspect", "status", "slot"] {
            let text = help(name).unwrap();
            assert!(text.contains("Exit codes:") && text.to_lowercase().contains("write"), "{name}");
            assert!(OVERVIEW.contains(&format!("\n  {name} ")), "{name}");
            assert_eq!(command(&format!("help {name}")), Command::Help(text));
            assert_eq!(command(&format!("{name} --help")), Command::Help(text));
        }
        assert_eq!(command("--help"), Command::Help(OVERVIEW));
        assert_eq!(command("help"), Command::Help(OVERVIEW));
        assert_eq!((command("boot x -h"), command("help init")), (Command::Help(BOOT), Command::Help(INIT)));
    }
}
