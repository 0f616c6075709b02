//! Takes a backup. The order of its steps stands at the head of [`super`].

mod members;
pub(super) mod proof;

use std::io;
use std::path::{Path, PathBuf};

use age::x25519;
use serde::Serialize;

use super::catalogue::{self, Catalogue, Entry, Found};
use super::device::{self, Keys};
use super::output::{Output, Written};
use super::{WORK, index, signature};
use crate::archive::manifest::{self, Base, Head, Manifest};
use crate::archive::seal::{Effort, Sealer};
use crate::audit::events::New;
use crate::audit::json;
use crate::boot::act::make_dirs;
use crate::boot::stage::discard;
use crate::boot::{chain, events, install};
use crate::config::Settings;
use crate::edge::{Look, Machine, durable};
use crate::retention::{self, ArchiveName, Rule};
use members::Member;

/// Bytes kept free on the volume of the backups.
const MARGIN: u64 = 16 << 20;
/// Recipients that must be named, so that one lost key does not make every backup worthless.
const RECIPIENTS: usize = 2;

/// What was made.
#[derive(Clone, Debug, Serialize)]
pub struct Created {
    /// The archive.
    pub archive: PathBuf,
    /// Its number.
    pub sequence: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of it.
    pub sha256: String,
    /// The full backup that it builds on.
    pub base: Option<String>,
    /// Rows by database and table.
    pub databases: Vec<Kept>,
    /// Configuration files in it.
    pub config_files: usize,
    /// What is not in it, and why.
    pub left: Vec<(String, String)>,
    /// Processor time of everything but the proof, in milliseconds.
    pub cpu_ms: u64,
    /// Processor time of the proof.
    pub proof_cpu_ms: u64,
}

/// One database in it.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// Bytes of the whole file.
    pub bytes: u64,
    /// Pages that changed, of an increment.
    pub changed_pages: Option<u64>,
    /// Rows by table.
    pub rows: std::collections::BTreeMap<String, u64>,
}

/// Why none was made.
#[derive(Debug)]
pub enum Fault {
    /// Something must be set up first; what, and how.
    Setup(String, String),
    /// There is no room.
    Room(String),
    /// It was made and does not prove itself; nothing is kept.
    NotProved(String),
    /// Something could not be read or written.
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::StorageFull { Fault::Room(e.to_string()) } else { Fault::Io(e) }
    }
}

fn setup<T>(what: impl Into<String>, cure: &str) -> Result<T, Fault> {
    Err(Fault::Setup(what.into(), cure.to_string()))
}

/// Everything that is settled before the first byte is written.
struct Plan {
    keys: Keys,
    name: ArchiveName,
    recipients: Vec<x25519::Recipient>,
    catalogue: Catalogue,
    base: Option<Found>,
    work: PathBuf,
}

/// Takes one; `full`: whether or not an increment would do.
///
/// # Errors
/// Why there is none; what was there before is as it was.
pub fn create(machine: &mut dyn Machine, settings: &Settings, full: bool, by: &str) -> Result<Created, Fault> {
    let plan = prepare(machine, settings, full)?;
    let made = write(machine, settings, &plan, by);
    let tidied = discard(machine, &plan.work);
    let created = made?;
    tidied?;
    Ok(created)
}

fn prepare(machine: &mut dyn Machine, settings: &Settings, full: bool) -> Result<Plan, Fault> {
    install::none_open(machine, settings)?;
    let Some(keys) = device::keys(machine.as_look(), settings)? else {
        return setup("this device has no keys yet", "run `key init` once");
    };
    let Some(device) = device::id(machine.as_look(), settings) else {
        return setup("this device has no id", "set [device] id_from, or run `key init`, which makes one");
    };
    let mut texts = settings.backup_recipients.clone();
    texts.sort();
    texts.dedup();
    if texts.len() < RECIPIENTS {
        let what = format!("{} recipients are configured, and {RECIPIENTS} are needed", texts.len());
        return setup(what, "name the public keys of operations and of escrow in [backup] recipients");
    }
    let mut recipients = match crate::archive::seal::recipients(&texts) {
        Ok(recipients) => recipients,
        Err(why) => return setup(why, "correct [backup] recipients"),
    };
    if settings.backup_local_restore {
        recipients.push(keys.restore.to_public());
    }
    let catalogue = catalogue::read(machine.as_look(), settings)?;
    let found = catalogue::archives(machine.as_look(), settings, &catalogue)?;
    let backups: Vec<_> = found.iter().map(|f| f.backup.clone()).collect();
    let sequence = retention::next_sequence(&backups, Some(catalogue.sequence));
    let Some(name) = ArchiveName::new(&device, machine.clock(), sequence) else {
        return setup(
            format!("no archive can be named for the device {device}"),
            "set [device] id to letters and digits",
        );
    };
    let work = settings.backup_dir.join(WORK);
    make_dirs(machine, &settings.backup_dir)?;
    tidy(machine, settings)?;
    make_dirs(machine, &work)?;
    let base = if full { None } else { base(&found, settings.backup_increments) };
    Ok(Plan { keys, name, recipients, catalogue, base, work })
}

/// The newest full backup, while it may carry one increment more.
fn base(found: &[Found], most: u32) -> Option<Found> {
    let newest = found.iter().rev().find(|f| f.backup.base.is_none())?;
    let entry = newest.entry.as_ref().filter(|e| e.verified > 0)?;
    let on_it = found.iter().filter(|f| f.backup.base.as_deref() == Some(entry.name.as_str())).count();
    (on_it < most as usize).then(|| newest.clone())
}

/// Removes what a cut left: directories of work, which hold databases in the clear, and signatures whose archive never got
/// its name. The caller holds the lock: nobody is at work in them.
///
/// # Errors
/// The directory of backups cannot be written.
pub fn tidy(machine: &mut dyn Machine, settings: &Settings) -> io::Result<()> {
    let dir = &settings.backup_dir;
    let names = match machine.list(dir) {
        Ok(names) => names,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    let mut gone = false;
    for name in names.iter().filter_map(|n| n.to_str()) {
        if name.starts_with(WORK) {
            discard(machine, &dir.join(name))?;
            continue;
        }
        let stray = name.strip_suffix(".tmp").unwrap_or(name);
        let Some(archive) = stray.strip_suffix(super::SIGNATURE) else { continue };
        let ours = ArchiveName::parse(archive).is_some();
        if ours && (stray != name || machine.stat(&dir.join(archive))?.is_none()) {
            machine.unlink(&dir.join(name))?;
            gone = true;
        }
    }
    if gone { machine.sync_dir(dir) } else { Ok(()) }
}

/// Makes room for `need` bytes by taking away the oldest that nothing needs.
fn room(machine: &mut dyn Machine, settings: &Settings, need: u64) -> Result<(), Fault> {
    let free = machine.free_bytes(&settings.backup_dir)?;
    let need = need.saturating_add(MARGIN);
    if free >= need {
        return Ok(());
    }
    let catalogue = catalogue::read(machine.as_look(), settings)?;
    let found = catalogue::archives(machine.as_look(), settings, &catalogue)?;
    let backups: Vec<_> = found.into_iter().map(|f| f.backup).collect();
    let rule = Rule { keep_days: settings.backup_keep_days, keep_verified: settings.backup_keep_verified };
    let decisions = retention::room(&backups, rule, need - free);
    let going = retention::drops(&backups, &decisions);
    let won: u64 = backups.iter().filter(|b| going.contains(&b.name.as_str())).map(|b| b.length).sum();
    // Nothing goes for a backup that would not fit all the same.
    if free.saturating_add(won) >= need {
        for name in going {
            log::warn!("{name} goes, because room is needed for the next backup");
            remove(machine, settings, name)?;
        }
        return Ok(());
    }
    let dir = settings.backup_dir.display();
    Err(Fault::Room(format!("{} MiB are needed below {dir}, and {} are free", need >> 20, free >> 20)))
}

/// Takes an archive away: its name first, then its signature.
///
/// # Errors
/// It cannot be removed.
pub fn remove(machine: &mut dyn Machine, settings: &Settings, name: &str) -> io::Result<()> {
    let archive = settings.backup_dir.join(name);
    durable::remove(machine, &archive)?;
    durable::remove(machine, &signature(&archive))
}

fn write(machine: &mut dyn Machine, settings: &Settings, plan: &Plan, by: &str) -> Result<Created, Fault> {
    let begun = machine.cpu_ms();
    let need = members::need(machine.as_look(), settings);
    room(machine, settings, need)?;
    let taken = members::take(machine, settings, &plan.work, plan.base.as_ref())?;
    if taken.members.is_empty() {
        let all: Vec<String> = taken.left.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        return Err(Fault::Io(io::Error::other(format!("there is nothing to back up ({})", all.join("; ")))));
    }
    let base = plan.base.as_ref().filter(|_| taken.incremental);
    let manifest = manifest(machine.as_look(), settings, plan, &taken, base);
    let partial = plan.work.join("archive");
    let proof = x25519::Identity::generate();
    let mut recipients = plan.recipients.clone();
    recipients.push(proof.to_public());
    let written = seal(machine, settings, &plan.keys, &manifest, &taken.members, (&partial, &recipients))?;
    let cpu_ms = machine.cpu_ms().saturating_sub(begun);
    let proving = machine.cpu_ms();
    machine.progress("reading the archive back");
    proof::prove(machine, settings, &plan.work, &partial, &proof, &manifest, &taken.members)
        .map_err(|e| Fault::NotProved(e.to_string()))?;
    let proof_cpu_ms = machine.cpu_ms().saturating_sub(proving);
    let entry = publish(machine, settings, plan, &manifest, &written, &partial, base)?;
    keep_indexes(machine, settings, &taken)?;
    note(machine, settings, &entry, by);
    Ok(Created {
        archive: settings.backup_dir.join(&entry.name),
        sequence: entry.sequence,
        bytes: entry.len,
        sha256: entry.sha256,
        base: entry.base,
        databases: taken.members.iter().filter_map(Member::kept).collect(),
        config_files: manifest.files.iter().filter(|f| f.kind == manifest::Kind::Config).count(),
        left: taken.left,
        cpu_ms,
        proof_cpu_ms,
    })
}

fn manifest(
    look: &dyn Look,
    settings: &Settings,
    plan: &Plan,
    taken: &members::Taken,
    base: Option<&Found>,
) -> Manifest {
    let audit = taken.members.iter().filter_map(Member::snapshot).find_map(|path| chain::head_in_file(look, path));
    let audit = audit.and_then(|head| {
        Some(Head { records: head.get("id")?.as_u64()?, hash: head.get("hash")?.as_str()?.to_string() })
    });
    let journal = events::load(look, settings).ok().map(|j| j.head()).filter(|head| head.seq > 0);
    Manifest {
        kind: manifest::TYPE.to_string(),
        format: manifest::FORMAT,
        min_reader: manifest::FORMAT,
        device: plan.name.device().to_string(),
        sequence: plan.name.sequence(),
        created: plan.name.made(),
        tool: concat!("pyvorin-recovery ", env!("CARGO_PKG_VERSION")).to_string(),
        restore_recipient: Some(plan.keys.restore.to_public().to_string()),
        base: base.map(|f| Base { sequence: f.backup.sequence, archive: f.backup.name.clone() }),
        audit,
        journal: journal.map(|head| Head { records: head.seq, hash: head.hash }),
        files: taken.members.iter().map(|m| m.file.clone()).collect(),
    }
}

fn seal(
    machine: &mut dyn Machine,
    settings: &Settings,
    keys: &Keys,
    manifest: &Manifest,
    members: &[Member],
    (partial, recipients): (&Path, &[x25519::Recipient]),
) -> Result<Written, Fault> {
    let effort = Effort { level: i32::try_from(settings.backup_level).unwrap_or(2), workers: settings.backup_workers };
    let inputs: Vec<_> = members.iter().map(|m| m.reader(machine)).collect::<io::Result<_>>()?;
    let mut output = Output::create(machine, partial, &keys.signing)?;
    let mut sealer = Sealer::new(&mut output, recipients, effort)?;
    let bytes = manifest.encode();
    sealer.member(manifest::NAME, bytes.len() as u64, manifest.created)?;
    sealer.data(&bytes)?;
    let mut piece = vec![0; 256 << 10];
    for (member, mut input) in members.iter().zip(inputs) {
        sealer.member(&member.file.name, member.file.len, manifest.created)?;
        loop {
            let n = input.read(&mut piece)?;
            let Some(bytes) = piece.get(..n).filter(|b| !b.is_empty()) else { break };
            sealer.data(bytes)?;
        }
    }
    sealer.finish()?;
    let comment = format!("device {} sequence {} time {}", manifest.device, manifest.sequence, manifest.created);
    Ok(output.finish(&comment)?)
}

/// The signature, then the archive's own name, then the catalogue.
fn publish(
    machine: &mut dyn Machine,
    settings: &Settings,
    plan: &Plan,
    manifest: &Manifest,
    written: &Written,
    partial: &Path,
    base: Option<&Found>,
) -> Result<Entry, Fault> {
    let name = plan.name.to_string();
    let archive = settings.backup_dir.join(&name);
    machine.set_owner(partial, 0, 0, 0o600).or_else(|e| match e.kind() {
        // Whoever is not root keeps what is his.
        io::ErrorKind::PermissionDenied => Ok(()),
        _ => Err(e),
    })?;
    durable::replace(machine, &signature(&archive), written.signature.as_bytes())?;
    machine.rename(partial, &archive)?;
    machine.sync_dir(&settings.backup_dir)?;
    machine.sync_dir(&plan.work)?;
    let databases = manifest.files.iter().filter_map(|f| f.database.as_ref());
    let entry = Entry {
        name,
        sequence: plan.name.sequence(),
        made: plan.name.made(),
        len: written.len,
        sha256: written.sha256.clone(),
        base: base.map(|f| f.backup.name.clone()),
        verified: machine.clock().max(1),
        databases: databases.map(|d| (d.name.clone(), d.sha256.clone())).collect(),
    };
    let mut catalogue = plan.catalogue.clone();
    catalogue.sequence = entry.sequence;
    catalogue.entries.push(entry.clone());
    catalogue::write(machine, settings, catalogue)?;
    Ok(entry)
}

/// The page tags of a full backup, for the increments on it. Written last: one that does not belong to the newest full
/// backup is not used.
fn keep_indexes(machine: &mut dyn Machine, settings: &Settings, taken: &members::Taken) -> Result<(), Fault> {
    for (database, tags) in &taken.indexes {
        let path = index(settings, database);
        if let Some(parent) = path.parent() {
            make_dirs(machine, parent)?;
        }
        durable::replace(machine, &path, &tags.encode())?;
    }
    Ok(())
}

fn note(machine: &mut dyn Machine, settings: &Settings, entry: &Entry, by: &str) {
    let facts = serde_json::json!({ "archive": entry.name, "sha256": entry.sha256, "bytes": entry.len });
    let details = json::loads(facts.to_string().as_bytes()).unwrap_or(json::Value::Object(Vec::new()));
    let op = format!("backup-{}", entry.sequence);
    let new = New { at: machine.clock(), by: by.to_string(), event: "backup".to_string(), op, details };
    events::note(machine, settings, &new);
}
