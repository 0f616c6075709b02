//! Puts a backup in place of what is there: unpacked beside it, proved, what is there preserved, and only then swapped, on
//! the intent journal. A cut anywhere leaves the old files or, after the next boot, the new ones.
//!
//! Members find their places by the names of configured databases and below configured paths; an archive names neither
//! a directory nor an owner. Keys, certificates, the keyring and our own configuration are never put in place, whatever an
//! archive holds.

mod config;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use age::Identity;
use serde::Serialize;

use super::create::proof;
use super::unpack::{self, Unpacked, unpack};
use super::{RESTORED, facts};
use crate::archive::manifest::{Kind, Manifest};
use crate::archive::{Code, Refusal};
use crate::boot::act::{make_dirs, second_name, sha256, side_files};
use crate::boot::stage::discard;
use crate::boot::{chain, install, queue, saved};
use crate::config::{Database, DatabaseKind, Settings};
use crate::edge::engine::queue::Load;
use crate::edge::{Look, Machine, durable};
use crate::journal::{self, Intent, Phase, STAGE, Target};
use crate::sqlite::check::Scope;
use crate::sqlite::salvage::SavedSchema;

/// Kind of the operation.
pub const KIND: &str = "restore";

/// What becomes of the rows of an old queue, which may have been sent since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// All come back.
    All,
    /// The queue that is there stays.
    Keep,
    /// Those that are younger than so many seconds come back.
    Younger(u64),
}

/// What is asked.
pub struct Ask<'a> {
    /// The archive.
    pub archive: &'a Path,
    /// The full backup that it builds on; looked for beside it when not given.
    pub base: Option<&'a Path>,
    /// Keys that may open it.
    pub identities: &'a [&'a dyn Identity],
    /// Restore the configuration too.
    pub config: bool,
    /// Restore also what this device did not sign.
    pub any_device: bool,
    /// Old messages.
    pub queue: Queue,
    /// Who asked.
    pub by: &'a str,
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub struct Restored {
    /// Device that the archive was made on.
    pub device: String,
    /// Its number.
    pub sequence: u64,
    /// When it was made, seconds since the epoch.
    pub created: u64,
    /// Rows by database and table.
    pub databases: BTreeMap<String, BTreeMap<String, u64>>,
    /// Files of the configuration.
    pub config_files: usize,
    /// What is in the archive and was not put in place, and why.
    pub left: Vec<(String, String)>,
    /// Rows of the restored queue: they may have been sent since the backup.
    pub queue_rows: u64,
    /// Where the files that were there are kept.
    pub kept: PathBuf,
    /// In words.
    pub text: String,
}

/// Unpacks and proves an archive, and everything that it builds on, in `dir`; changed pages become whole databases.
///
/// # Errors
/// Why it is refused.
pub fn open(machine: &mut dyn Machine, settings: &Settings, ask: &Ask<'_>, dir: &Path) -> Result<Unpacked, Refusal> {
    let cannot = |e: io::Error| Refusal::new(Code::Io, e.to_string());
    let (newer, older) = (dir.join("archive"), dir.join("base"));
    make_dirs(machine, &newer).map_err(cannot)?;
    let mut out = unpack(machine, ask.archive, ask.identities, &newer)?;
    if let Some(base) = out.manifest.base.clone() {
        let beside = ask.archive.with_file_name(&base.archive);
        let path = ask.base.unwrap_or(&beside);
        if machine.stat(path).map_err(cannot)?.is_none() {
            let text = format!("it builds on {}, which is not at {}", base.archive, path.display());
            return Err(Refusal::new(Code::WrongBase, text));
        }
        if !ask.any_device {
            signed(machine.as_look(), settings, path)?;
        }
        make_dirs(machine, &older).map_err(cannot)?;
        let whole = unpack(machine, path, ask.identities, &older)?;
        for (file, path) in out.manifest.files.iter().zip(&mut out.files) {
            let (Kind::Pages, Some(said)) = (file.kind, &file.database) else { continue };
            let known = whole.databases().find(|(f, d, _)| f.kind == Kind::Database && d.name == said.name);
            let Some((_, _, base)) = known else {
                let text = format!("{} is not in the backup that it builds on", said.name);
                return Err(Refusal::new(Code::WrongBase, text));
            };
            unpack::lay_over(machine, base, path)?;
            *path = base.to_path_buf();
        }
    }
    for (_, said, path) in out.databases() {
        machine.progress(&format!("checking {}", said.name));
        unpack::compare(machine.as_look(), path, said)?;
        // The engine's word gates what is installed. What this device did not make is looked at by our own check too, which
        // was not written by those whose mistakes somebody may be after.
        if ask.any_device {
            proof::fully(machine, settings, path, &said.name)?;
        }
        let (lines, _) = machine.engine_check(path).map_err(cannot)?;
        if lines != ["ok"] {
            let text = format!("{}: {}", said.name, lines.first().map_or("", String::as_str));
            return Err(Refusal::new(Code::BadDatabase, text));
        }
    }
    Ok(out)
}

/// Restores. The caller holds the lock, and has found nobody with the databases open.
///
/// # Errors
/// Why nothing was changed; or, from the swap on, what could not be finished and is by the next boot.
pub fn restore(machine: &mut dyn Machine, settings: &Settings, ask: &Ask<'_>) -> Result<Restored, Refusal> {
    let cannot = |e: io::Error| Refusal::new(Code::Io, e.to_string());
    install::none_open(machine, settings).map_err(cannot)?;
    // No operation is open and nobody else is at work here: whatever is staged was left by a cut, in the clear.
    discard(machine, &settings.data_dir.join(STAGE)).map_err(cannot)?;
    for path in settings.config_paths.iter().filter(|_| ask.config) {
        config::tidy(machine, path, 0).map_err(cannot)?;
    }
    let now = machine.clock();
    let mut op = String::new();
    // Two in one second are two operations: what the first displaced is kept apart from what the second does.
    for n in 0..1000_u32 {
        let mut word = crc32fast::Hasher::new();
        word.update(ask.archive.as_os_str().as_encoded_bytes());
        word.update(&n.to_be_bytes());
        op = format!("{now}-{KIND}-{:08x}", word.finalize());
        if machine.stat(&settings.data_dir.join(RESTORED).join(&op)).map_err(cannot)?.is_none() {
            break;
        }
    }
    let stage = settings.data_dir.join(STAGE).join(&op);
    make_dirs(machine, &stage).map_err(cannot)?;
    let done = prepare(machine, settings, ask, &op, &stage, now).and_then(|restored| {
        let detail = install::install(machine, settings, &op).map_err(cannot)?;
        if detail.action.as_deref() == Some("left") {
            return Err(Refusal::new(Code::Io, detail.text));
        }
        Ok(Restored { text: detail.text, ..restored })
    });
    if done.is_err() && matches!(machine.stat(&settings.state_dir.join(journal::FILE)), Ok(None)) {
        discard(machine, &stage).map_err(cannot)?;
    }
    done
}

fn prepare(
    machine: &mut dyn Machine,
    settings: &Settings,
    ask: &Ask<'_>,
    op: &str,
    stage: &Path,
    now: u64,
) -> Result<Restored, Refusal> {
    let cannot = |e: io::Error| Refusal::new(Code::Io, e.to_string());
    if !ask.any_device {
        signed(machine.as_look(), settings, ask.archive)?;
    }
    let out = open(machine, settings, ask, stage)?;
    ours(machine.as_look(), settings, ask, &out.manifest)?;
    let kept = settings.data_dir.join(RESTORED).join(op);
    let mut restored = Restored {
        device: out.manifest.device.clone(),
        sequence: out.manifest.sequence,
        created: out.manifest.created,
        databases: BTreeMap::new(),
        config_files: 0,
        left: Vec::new(),
        queue_rows: 0,
        kept: kept.clone(),
        text: String::new(),
    };
    let mut targets = Vec::new();
    for (_, said, path) in out.databases().filter(|_| ask.any_device) {
        let Some(database) = settings.databases.iter().find(|d| d.name == said.name) else { continue };
        if let Some(why) = brings(machine.as_look(), settings, database, path) {
            return Err(Refusal::new(Code::BadDatabase, why));
        }
    }
    for (file, path) in out.manifest.files.iter().zip(&out.files) {
        let target = match &file.database {
            Some(said) => match settings.databases.iter().find(|d| d.name == said.name) {
                Some(database) => database_target(machine, settings, ask, database, path, &mut restored),
                None => Ok(Err("no database of that name is configured here".to_string())),
            },
            None => config::target(machine, settings, ask, file, path, op),
        };
        match target.map_err(cannot)? {
            Ok(target) => {
                restored.config_files += usize::from(file.kind == Kind::Config);
                targets.push(target);
            }
            Err(why) => restored.left.push((file.name.clone(), why)),
        }
    }
    if targets.is_empty() {
        return Err(Refusal::new(Code::Io, "nothing of it belongs here"));
    }
    let before = heads(machine.as_look(), settings, &[]);
    preserve(machine, settings, &mut targets, &kept).map_err(cannot)?;
    let intent = Intent {
        op: op.to_string(),
        kind: KIND.to_string(),
        phase: Phase::Prepared,
        prepared_at: now,
        by: ask.by.to_string(),
        volume: machine.volume_id(&settings.data_dir).unwrap_or_default(),
        stage: stage.to_path_buf(),
        note: note(machine.as_look(), settings, &restored, ask, before, &targets),
        targets,
        outcome: String::new(),
        receipt: None,
    };
    machine.sync_dir(stage).map_err(cannot)?;
    make_dirs(machine, &settings.state_dir).map_err(cannot)?;
    durable::replace(machine, &settings.state_dir.join(journal::FILE), &intent.encode()).map_err(cannot)?;
    Ok(restored)
}

/// Before anything of an archive is looked into: it is ours, or a person says that it is to be taken.
fn signed(look: &dyn Look, settings: &Settings, archive: &Path) -> Result<(), Refusal> {
    let made = super::device::made(look, settings, archive);
    let made = made.map_err(|e| Refusal::new(Code::Io, format!("{}: {e}", archive.display())))?;
    made.map_err(|why| Refusal::new(Code::NotSigned, format!("its signature: {why}")))
}

/// Code in a database that nobody vouches for: a trigger or a view that the one here does not have.
fn brings(look: &dyn Look, settings: &Settings, database: &Database, staged: &Path) -> Option<String> {
    let code = |schema: Option<SavedSchema>| -> Vec<(String, String)> {
        let entries = schema.map(|s| s.entries).unwrap_or_default();
        let runs = |kind: &str| kind != "table" && kind != "index";
        entries.into_iter().filter(|e| runs(&e.kind)).map(|e| (e.name, e.sql)).collect()
    };
    let mut known = code(saved::of_database(look, &database.location));
    known.extend(code(saved::read(look, &saved::path(settings, &database.name))));
    let new = code(saved::of_database(look, staged)).into_iter().find(|one| !known.contains(one));
    new.map(|(name, _)| {
        format!("{}: it brings {name}, which would run inside the agent, and which no database here has", database.name)
    })
}

/// An archive of another device restores only on a person's word.
fn ours(look: &dyn Look, settings: &Settings, ask: &Ask<'_>, manifest: &Manifest) -> Result<(), Refusal> {
    let here = super::device::id(look, settings);
    if ask.any_device || here.as_deref() == Some(manifest.device.as_str()) {
        return Ok(());
    }
    let text = format!("it was made on {}, and this is {}", manifest.device, here.as_deref().unwrap_or("unnamed"));
    Err(Refusal::new(Code::UnexpectedMember, text))
}

type Placed = io::Result<Result<Target, String>>;

fn database_target(
    machine: &mut dyn Machine,
    settings: &Settings,
    ask: &Ask<'_>,
    database: &Database,
    staged: &Path,
    restored: &mut Restored,
) -> Placed {
    let is_queue = database.kind == DatabaseKind::Queue;
    if is_queue && ask.queue == Queue::Keep {
        return Ok(Err("the queue that is there stays, as was asked".to_string()));
    }
    let mut staged = staged.to_path_buf();
    if is_queue && let Queue::Younger(seconds) = ask.queue {
        staged = younger(machine, settings, database, &staged, seconds)?;
        let (lines, _) = machine.engine_check(&staged)?;
        if lines != ["ok"] {
            return Ok(Err(format!(
                "its younger rows make no sound queue: {}",
                lines.first().map_or("", String::as_str)
            )));
        }
    }
    let rows = facts::of(machine.as_look(), &staged, &database.name)?.rows;
    if is_queue {
        restored.queue_rows = rows.values().sum();
    }
    restored.databases.insert(database.name.clone(), rows);
    let there = machine.stat(&database.location)?;
    let parent = match database.location.parent() {
        Some(parent) => machine.stat(parent)?,
        None => None,
    };
    let like = there.or(parent).map_or((0, 0), |s| (s.uid, s.gid));
    let owner = database.owner.unwrap_or(like);
    machine.set_owner(&staged, owner.0, owner.1, database.mode)?;
    machine.sync_file(&staged)?;
    if let Some(dir) = staged.parent() {
        machine.sync_dir(dir)?;
    }
    Ok(Ok(Target {
        database: database.name.clone(),
        path: database.location.clone(),
        sha256: sha256(machine.as_look(), &staged)?,
        staged,
        retire: side_files(machine, &database.location)?,
        kept: PathBuf::new(),
    }))
}

/// The queue with its younger rows alone, built anew.
fn younger(
    machine: &mut dyn Machine,
    settings: &Settings,
    database: &Database,
    staged: &Path,
    seconds: u64,
) -> io::Result<PathBuf> {
    let inside = Database { location: staged.to_path_buf(), path: staged.to_path_buf(), ..database.clone() };
    let (_, mut rows) = queue::read(machine.as_look(), settings, &inside, Scope::Quick, false)?;
    #[allow(clippy::cast_precision_loss)] // seconds since the epoch
    let oldest = machine.clock().saturating_sub(seconds) as f64;
    rows.items.retain(|item| item.created_at >= oldest);
    let create = if rows.create.is_empty() { crate::queue::SCHEMA.map(str::to_string).to_vec() } else { rows.create };
    let mut name = staged.as_os_str().to_os_string();
    name.push(".younger");
    let out = PathBuf::from(name);
    machine.unlink(&out)?;
    let new = Some((rows.facts.unwrap_or(queue::DOCUMENTED), create));
    machine.engine_queue(&out, &Load { new, items: rows.items, sequence: rows.sequence })?;
    Ok(out)
}

/// Second names for everything that is displaced, each target in a directory of its own.
fn preserve(machine: &mut dyn Machine, settings: &Settings, targets: &mut [Target], kept: &Path) -> io::Result<()> {
    for (n, target) in (1..).zip(targets.iter_mut()) {
        let into = kept.join(format!("{n}-{}", target.database));
        make_dirs(machine, &into)?;
        // The log first: a copy of it is never newer than that of its database.
        for path in target.retire.iter().chain([&target.path]) {
            let Some(name) = path.file_name() else { continue };
            if machine.stat(path)?.is_none() {
                continue;
            }
            second_name(machine, path, &into.join(name))?;
        }
        machine.sync_dir(&into)?;
        target.kept = into;
    }
    machine.sync_dir(kept)?;
    machine.sync_dir(&settings.data_dir)
}

/// The end of the audit chain in the store that is there, or in the staged one among `targets`.
fn heads(look: &dyn Look, settings: &Settings, targets: &[Target]) -> Option<serde_json::Value> {
    let store = settings.databases.iter().find(|d| d.kind == DatabaseKind::Store)?;
    match targets.iter().find(|t| t.database == store.name) {
        Some(target) => chain::head_in_file(look, &target.staged),
        None => chain::read(look, settings, store, &chain::Ask::default())
            .ok()
            .and_then(|(_, chain)| chain.verified.head.map(|h| serde_json::json!({ "id": h.0, "hash": h.1 }))),
    }
}

fn note(
    look: &dyn Look,
    settings: &Settings,
    restored: &Restored,
    ask: &Ask<'_>,
    before: Option<serde_json::Value>,
    targets: &[Target],
) -> String {
    let replaced: Vec<&str> = targets.iter().map(|t| t.database.as_str()).collect();
    serde_json::json!({
        "archive": ask.archive.file_name().map(|n| n.to_string_lossy()),
        "device": restored.device,
        "sequence": restored.sequence,
        "replaced": replaced,
        "rows": restored.databases,
        "kept": restored.kept.display().to_string(),
        // Both ends of the bridge: what the chain ended with here, and what it ends with in the backup.
        "old_chain_head": before,
        "chain_head": heads(look, settings, targets),
    })
    .to_string()
}
