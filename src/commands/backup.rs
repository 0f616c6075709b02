//! `backup`: create, list, verify, prune.

use std::io;
use std::path::{Path, PathBuf};

use age::{Identity, x25519};
use serde::Serialize;

use super::work::alone;
use super::{Context, complain, print, print_json};
use crate::backup::catalogue;
use crate::backup::create::{self, Created, Fault};
use crate::backup::restore::{self, Ask, Queue};
use crate::backup::{WORK, device};
use crate::boot::sense::small_file;
use crate::boot::stage::discard;
use crate::cli::{BackupCommand, Verify};
use crate::config::Settings;
use crate::edge::{Look, Machine};
use crate::error::{Error, ErrorKind, Exit};
use crate::retention::{self, Now, Rule};

/// Runs one of them.
pub fn run(context: &mut Context, what: BackupCommand) -> Result<Exit, Error> {
    match what {
        BackupCommand::Create { full } => create(context, full),
        BackupCommand::List => list(context),
        BackupCommand::Verify(asked) => verify(context, &asked),
        BackupCommand::Prune { plan } => prune(context, plan),
    }
}

#[derive(Serialize)]
struct CreateReport<'a> {
    schema: &'static str,
    exit: u8,
    #[serde(flatten)]
    created: &'a Created,
}

fn create(context: &mut Context, full: bool) -> Result<Exit, Error> {
    let _locks = alone(context)?;
    let (settings, by) = (context.settings.clone(), context.by.clone());
    let dir = settings.backup_dir.clone();
    let created = create::create(&mut context.machine, &settings, full, &by).map_err(|fault| match fault {
        Fault::Setup(why, cure) => Error::new(ErrorKind::Config, "cannot back up", why, cure),
        Fault::Room(why) => {
            let advice = "make room, or let [backup] dir be on another volume";
            Error::new(ErrorKind::Write, "cannot back up", why, advice).at(&dir)
        }
        Fault::NotProved(why) => {
            let advice = "look into the kernel log (dmesg) for errors of the storage, and try again";
            Error::new(ErrorKind::Write, "the backup does not prove itself and was thrown away", why, advice).at(&dir)
        }
        Fault::Io(e) => Error::io(ErrorKind::Write, "cannot back up", &dir, &e),
    })?;
    let exit = if created.left.is_empty() { Exit::OK } else { Exit::LEFT };
    if context.json {
        let schema = "pyvorin-recovery/backup-create/1";
        print_json(&CreateReport { schema, exit: exit.code(), created: &created })?;
        return Ok(exit);
    }
    let kind = created.base.as_ref().map_or("full".to_string(), |base| format!("increment on {base}"));
    print(&format!("{}: {} bytes, {kind}, proved to restore", created.archive.display(), created.bytes));
    for kept in &created.databases {
        let rows: u64 = kept.rows.values().sum();
        let pages = kept.changed_pages.map_or(String::new(), |n| format!(", {n} pages changed"));
        print(&format!("  {}: {rows} rows{pages}", kept.name));
    }
    created.left.iter().for_each(|(name, why)| print(&format!("  not in it: {name}: {why}")));
    Ok(exit)
}

#[derive(Serialize)]
struct Listed {
    name: String,
    sequence: u64,
    made: u64,
    bytes: u64,
    verified: u64,
    signed: bool,
    base: Option<String>,
}

fn list(context: &Context) -> Result<Exit, Error> {
    let settings = &context.settings;
    let look = context.machine.as_look();
    let cannot = |e: io::Error| Error::io(ErrorKind::Read, "cannot list the backups", &settings.backup_dir, &e);
    let catalogue = catalogue::read(look, settings).map_err(cannot)?;
    let found = catalogue::archives(look, settings, &catalogue).map_err(cannot)?;
    let listed: Vec<Listed> = found
        .into_iter()
        .map(|f| Listed {
            name: f.backup.name,
            sequence: f.backup.sequence,
            made: f.backup.made,
            bytes: f.backup.length,
            verified: f.entry.map_or(0, |e| e.verified),
            signed: f.signed,
            base: f.backup.base,
        })
        .collect();
    if context.json {
        let report = serde_json::json!({
            "schema": "pyvorin-recovery/backup-list/1", "exit": 0, "dir": settings.backup_dir, "backups": listed,
        });
        print_json(&report)?;
        return Ok(Exit::OK);
    }
    if listed.is_empty() {
        print(&format!("there is no backup in {}", settings.backup_dir.display()));
    }
    for one in &listed {
        let proved = if one.verified > 0 { "verified" } else { "not verified" };
        let signed = if one.signed { "" } else { ", without a signature" };
        let on = one.base.as_ref().map_or(String::new(), |base| format!(", on {base}"));
        print(&format!("{}  {} bytes, {proved}{signed}{on}", one.name, one.bytes));
    }
    Ok(Exit::OK)
}

/// Reads age secret keys from a file as `age-keygen` writes it.
pub fn identities(context: &Context, files: &[PathBuf]) -> Result<Vec<x25519::Identity>, Error> {
    let mut found = Vec::new();
    for path in files {
        let cannot = |e: io::Error| Error::io(ErrorKind::Read, "cannot read the identity", path, &e);
        let bytes = small_file(context.machine.as_look(), path).map_err(cannot)?;
        let text = bytes.and_then(|b| String::from_utf8(b).ok()).unwrap_or_default();
        let before = found.len();
        found.extend(text.lines().filter_map(|line| line.trim().parse::<x25519::Identity>().ok()));
        if found.len() == before {
            let advice = "name a file as age-keygen writes it (a line that begins with AGE-SECRET-KEY-1)";
            return Err(Error::new(ErrorKind::Read, "cannot use the identity", "it holds no key", advice).at(path));
        }
    }
    Ok(found)
}

/// The device's own identity, where it has one.
pub fn own(context: &Context) -> Vec<x25519::Identity> {
    let keys = device::keys(context.machine.as_look(), &context.settings);
    keys.ok().flatten().map(|k| k.restore).into_iter().collect()
}

#[derive(Serialize)]
struct VerifyReport {
    schema: &'static str,
    exit: u8,
    archive: PathBuf,
    /// "good", "missing", or why it is not good.
    signature: String,
    /// True where an identity was given and everything inside is what it should be.
    contents: Option<bool>,
    refused: Option<crate::archive::Refusal>,
    sequence: Option<u64>,
    device: Option<String>,
}

fn verify(context: &mut Context, asked: &Verify) -> Result<Exit, Error> {
    let settings = context.settings.clone();
    let archive = asked.archive.clone();
    let cannot = |e: io::Error| Error::io(ErrorKind::Read, "cannot read the archive", &archive, &e);
    let signature = match device::made(context.machine.as_look(), &settings, &archive).map_err(cannot)? {
        Ok(()) => "good".to_string(),
        Err(why) => why,
    };
    let mut report = VerifyReport {
        schema: "pyvorin-recovery/backup-verify/1",
        exit: 0,
        archive: archive.clone(),
        signature,
        contents: None,
        refused: None,
        sequence: None,
        device: None,
    };
    if !asked.identities.is_empty() {
        // Whoever tidies up takes what lies there for rubbish.
        let _locks = alone(context)?;
        let keys = identities(context, &asked.identities)?;
        let keys: Vec<&dyn Identity> = keys.iter().map(|k| k as &dyn Identity).collect();
        let scratch = scratch(&settings, &archive);
        let ask = Ask {
            archive: &archive,
            base: asked.base.as_deref(),
            identities: &keys,
            config: false,
            any_device: true,
            queue: Queue::All,
            by: &context.by,
        };
        // What a cut left of it would be in the way.
        discard(&mut context.machine, &scratch).map_err(cannot)?;
        let opened = restore::open(&mut context.machine, &settings, &ask, &scratch);
        discard(&mut context.machine, &scratch).map_err(cannot)?;
        report.contents = Some(opened.is_ok());
        match opened {
            Ok(out) => {
                report.sequence = Some(out.manifest.sequence);
                report.device = Some(out.manifest.device);
            }
            Err(refused) => report.refused = Some(refused),
        }
    }
    let exit = if report.signature == "good" && report.contents != Some(false) { Exit::OK } else { Exit::LEFT };
    report.exit = exit.code();
    if context.json {
        print_json(&report)?;
        return Ok(exit);
    }
    print(&format!("signature: {}", report.signature));
    match (&report.contents, &report.refused) {
        (_, Some(refused)) => print(&format!("contents: refused: {refused}; next: {}", refused.code.advice())),
        (Some(true), _) => print("contents: every digest, schema and row as when it was made, and sound"),
        _ => print("contents: not looked at; give an --identity to decrypt it"),
    }
    Ok(exit)
}

/// Beside the archive, where there is as much room as it took. The lock keeps another of us out of it.
fn scratch(settings: &Settings, archive: &Path) -> PathBuf {
    let beside = archive.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = if archive.starts_with(&settings.backup_dir) { settings.backup_dir.as_path() } else { beside };
    dir.join(format!("{WORK}-verify"))
}

fn prune(context: &mut Context, plan: bool) -> Result<Exit, Error> {
    let _locks = if plan { Vec::new() } else { alone(context)? };
    let settings = context.settings.clone();
    let cannot = |e: io::Error| Error::io(ErrorKind::Write, "cannot prune the backups", &settings.backup_dir, &e);
    let look = context.machine.as_look();
    let catalogue = catalogue::read(look, &settings).map_err(cannot)?;
    let found = catalogue::archives(look, &settings, &catalogue).map_err(cannot)?;
    let floor = catalogue.entries.iter().map(|e| e.verified).max().unwrap_or(0);
    let now = Now { at: context.machine.clock(), trusted: context.machine.clock_is_set(), floor };
    let backups: Vec<_> = found.into_iter().map(|f| f.backup).collect();
    let rule = Rule { keep_days: settings.backup_keep_days, keep_verified: settings.backup_keep_verified };
    let decisions = retention::plan(&backups, rule, now);
    let going = retention::drops(&backups, &decisions);
    if !plan {
        create::tidy(&mut context.machine, &settings).map_err(cannot)?;
        for gone in &going {
            create::remove(&mut context.machine, &settings, gone).map_err(cannot)?;
        }
    }
    if context.json {
        let report = serde_json::json!({
            "schema": "pyvorin-recovery/backup-prune/1", "exit": 0, "plan": plan, "backups": decisions,
        });
        print_json(&report)?;
        return Ok(Exit::OK);
    }
    let word = if plan { "would go" } else { "is gone" };
    going.iter().for_each(|name| print(&format!("{name} {word}")));
    print(&format!("{} of {} backups are kept", decisions.len() - going.len(), decisions.len()));
    if !now.trusted {
        complain("nothing goes while the clock was not set by something that knows the time");
    }
    Ok(Exit::OK)
}
