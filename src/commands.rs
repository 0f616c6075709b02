//! The commands: the same five stages with a narrower scope. No logic of their own beyond asking and printing.

mod audit;
mod backup;
mod boot;
mod check;
mod init;
mod inspect;
mod key;
mod metrics;
mod queue;
mod reset;
mod restore;
mod salvage;
mod slot;
mod status;
mod work;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use crate::cli::{AuditCommand, Command, Invocation, QueueCommand};
use crate::config::{self, Settings};
use crate::edge::Look;
use crate::edge::linux::LinuxMachine;
use crate::error::{Error, ErrorKind, Exit};

/// Where the configuration is when none is named.
pub const CONFIG: &str = "/etc/pyvorin/recovery.toml";
/// Where the reports of this boot are handed over to the OS.
pub const RUN: &str = "/run/pyvorin-recovery";
/// Longest configuration read.
const MAX_CONFIG: usize = 1 << 20;

/// What every command needs.
struct Context {
    settings: Settings,
    root: PathBuf,
    json: bool,
    by: String,
    machine: LinuxMachine,
}

/// Runs a command and returns the exit code.
pub fn run(invocation: Invocation) -> Exit {
    match invocation.command {
        Command::Init => return init::run(),
        Command::Version => {
            print(&format!("pyvorin-recovery {}", env!("CARGO_PKG_VERSION")));
            return Exit::OK;
        }
        Command::Help(text) => {
            print(text);
            return Exit::OK;
        }
        _ => {}
    }
    log_to_stderr(&invocation);
    match dispatch(invocation) {
        Ok(exit) => exit,
        Err(error) => {
            complain(&error.to_string());
            error.exit()
        }
    }
}

fn dispatch(invocation: Invocation) -> Result<Exit, Error> {
    let command = invocation.command.clone();
    if let Command::Boot { plan: false, from: None } = &command {
        return Ok(boot::hook(&invocation));
    }
    let mut context = context(&invocation)?;
    match command {
        Command::Boot { from, .. } => boot::plan(&mut context, from.as_deref()),
        Command::Check { quick, databases } => check::check(&context, quick, &databases),
        Command::Repair { plan, databases } => {
            if !plan {
                someone_asks(&invocation)?;
            }
            check::repair(&mut context, plan, &databases)
        }
        Command::Salvage(asked) => salvage::salvage(&mut context, &asked),
        Command::Inspect { database } => inspect::inspect(&context, &database),
        Command::Status(what) => status::status(&mut context, &what),
        Command::Audit(what) => {
            if let AuditCommand::Log { .. } = &what {
                someone_asks(&invocation)?;
            }
            audit::run(&mut context, what)
        }
        Command::Queue(what) => {
            if let QueueCommand::Import { plan: false, .. } | QueueCommand::Repair { plan: false } = &what {
                someone_asks(&invocation)?;
            }
            queue::run(&mut context, what)
        }
        Command::Reset { tier, plan, accept_loss } => reset::reset(&mut context, tier, plan, accept_loss),
        Command::Backup(what) => backup::run(&mut context, what),
        Command::Restore(asked) => {
            if !asked.plan {
                someone_asks(&invocation)?;
            }
            restore::run(&mut context, &asked)
        }
        Command::Key(what) => key::run(&mut context, what),
        Command::SlotStatus => slot::status(&context),
        Command::SlotMarkGood => {
            // Whatever another one of us is doing: an OS that has proved itself is marked.
            let _locks = work::alone(&context).map_err(|e| log::warn!("{e}"));
            slot::mark_good(&mut context)
        }
        Command::Init | Command::Version | Command::Help(_) => Ok(Exit::OK),
    }
}

/// On a terminal a person must say who they are before anything is written.
fn someone_asks(invocation: &Invocation) -> Result<(), Error> {
    if invocation.technician.is_none() && std::io::stdin().is_terminal() {
        return Err(Error::new(
            ErrorKind::Usage,
            "this command changes data",
            "no technician was named",
            "add --technician ID; it is recorded with the operation",
        ));
    }
    Ok(())
}

fn context(invocation: &Invocation) -> Result<Context, Error> {
    let root = invocation.root.clone().unwrap_or_else(|| PathBuf::from("/"));
    let verbose = invocation.verbose;
    let progress = Box::new(move |line: &str| {
        if verbose {
            complain(line);
        }
    });
    let machine = LinuxMachine::new(Vec::new(), progress);
    let settings = settings(&machine, invocation.config.as_deref(), &root)?.under_root(&root);
    let by = invocation.technician.clone().unwrap_or_else(|| "unattended".to_string());
    Ok(Context { settings, root, json: invocation.json, by, machine })
}

fn settings(look: &dyn Look, named: Option<&Path>, root: &Path) -> Result<Settings, Error> {
    let path = match named {
        Some(path) => path.to_path_buf(),
        None => {
            let path = below(root, Path::new(CONFIG));
            if matches!(look.stat(&path), Ok(None)) {
                log::info!("{} does not exist; the defaults for the documented agent are used", path.display());
                return Ok(Settings::default_for_agent());
            }
            path
        }
    };
    let cannot = |e: std::io::Error| Error::io(ErrorKind::Read, "cannot read the configuration", &path, &e);
    let file = look.open(&path).map_err(cannot)?;
    let bytes = crate::sqlite::read_vec(&*file, 0, MAX_CONFIG).map_err(cannot)?;
    let refuse = |why: String| {
        Error::new(
            ErrorKind::Config,
            "the configuration cannot be used",
            why,
            "correct the file and run the command again",
        )
        .at(&path)
    };
    let text = String::from_utf8(bytes).map_err(|e| refuse(format!("it is not UTF-8 text: {e}")))?;
    config::parse(&text).map_err(|faults| refuse(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
}

/// A path below the root directory of `--root`.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Prints the one document or text of a command. A closed pipe is not an error of ours.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

fn print_json<T: serde::Serialize>(value: &T) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(|e| {
        Error::new(ErrorKind::Write, "cannot print the report", e.to_string(), "report this as a defect")
    })?;
    print(&text);
    Ok(())
}

fn complain(text: &str) {
    drop(writeln!(std::io::stderr(), "pyvorin-recovery: {text}"));
}

fn log_to_stderr(invocation: &Invocation) {
    let level = match (invocation.quiet, invocation.verbose) {
        (true, _) => log::LevelFilter::Error,
        (_, true) => log::LevelFilter::Debug,
        _ => log::LevelFilter::Warn,
    };
    // A second logger is refused; the first then goes on.
    drop(env_logger::Builder::new().filter_level(level).format_timestamp(None).try_init());
}
