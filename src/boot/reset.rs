//! A factory reset on this machine: what is preserved and staged before COMMIT, and what is written once the swap is done.
//! The swap between the two is that of every operation ([`super::install`]).
//!
//! Order, and what each wrong order costs:
//! 1. whatever goes gets a second name in quarantine, synced and hashed, before anything else: I1;
//! 2. the new databases are built in staging and gated by the engine: a gateway must not come up with a torn one;
//! 3. PREPARED, the mirror, COMMIT, the swap;
//! 4. the receipt, then the record that the request was executed, both durable before the event and before the operation
//!    is forgotten: a cut between would lose the receipt, or execute the request again at the next start.

use std::io;
use std::path::{Path, PathBuf};

use super::act::{make_dirs, sha256};
use super::chain::{self, Ask};
use super::fold::store;
use super::outcome::{Detail, Issued};
use super::plan::side;
use super::saved;
use super::sense::read_record;
use super::stage::discard;
use super::step::{Reset, ResetDatabase};
use crate::audit::chain::Start;
use crate::config::Settings;
use crate::edge::{FileKind, Machine, SalvageJob, durable};
use crate::journal::{self, Intent, Phase, Target};
use crate::record::{self, Decoded};
use crate::reset::{Emptied, KEPT, KIND, Kept, OldChain, RECEIPT, RECEIPTS, REMEMBERED, Receipt, USED};
use crate::sqlite::salvage::{Facts, SavedSchema};

/// Preserves, stages, writes PREPARED.
pub fn prepare(machine: &mut dyn Machine, settings: &Settings, reset: &Reset) -> io::Result<Detail> {
    let record = settings.state_dir.join(journal::FILE);
    if machine.stat(&record)?.is_some() {
        return Err(io::Error::other("another operation is still open; it is finished first, at the next boot"));
    }
    let old_chain = old_chain(machine, settings, reset);
    make_dirs(machine, &reset.into)?;
    let mut receipt = begun(settings, reset, old_chain);
    let mut targets = Vec::new();
    for database in &reset.databases {
        let kept = reset.into.join(&database.name);
        let (emptied, target) = empty(machine, reset, database, kept)?;
        receipt.databases.push(emptied);
        targets.push(target);
    }
    for (n, path) in reset.configuration.iter().enumerate() {
        let kept = reset.into.join("configuration").join(n.to_string());
        if let Some((file, target)) = take_away(machine, reset, path, kept, &mut receipt)? {
            receipt.configuration.push(file);
            targets.push(target);
        }
    }
    receipt.loss = receipt.databases.iter().any(|d| !d.lost.is_empty())
        || receipt.configuration.iter().any(|f| f.sha256.is_none());
    let text = serde_json::to_vec_pretty(&receipt).map_err(io::Error::other)?;
    durable::replace(machine, &reset.into.join("manifest.json"), &text)?;
    for dir in [reset.into.parent(), Some(settings.data_dir.as_path())].into_iter().flatten() {
        machine.sync_dir(dir)?;
    }
    if let Err(e) = stage(machine, settings, reset, &mut receipt, &mut targets) {
        discard(machine, &reset.stage)?;
        return Err(e);
    }
    let intent = Intent {
        op: reset.op.clone(),
        kind: KIND.to_string(),
        phase: Phase::Prepared,
        prepared_at: reset.now,
        by: reset.request.by.clone(),
        volume: reset.volume.clone(),
        stage: reset.stage.clone(),
        targets,
        note: note(&receipt),
        outcome: String::new(),
        receipt: Some(Box::new(receipt.clone())),
    };
    make_dirs(machine, &settings.state_dir)?;
    durable::replace(machine, &record, &intent.encode())?;
    Ok(Detail {
        text: format!("{} databases preserved for a reset of tier {}", receipt.databases.len(), receipt.tier.name()),
        quarantine: Some(reset.into.clone()),
        ..Detail::default()
    })
}

fn begun(settings: &Settings, reset: &Reset, old_chain: Option<OldChain>) -> Receipt {
    let state = settings.state_dir.display();
    let mut kept = vec![
        format!("device keys, counters and our journal, in {state}"),
        format!("backups, in {}", settings.backup_dir.display()),
        "certificates".to_string(),
    ];
    if reset.configuration.is_empty() {
        let paths: Vec<String> = settings.config_paths.iter().map(|p| p.display().to_string()).collect();
        kept.push(format!("configuration, in {}", paths.join(", ")));
    }
    Receipt {
        schema: RECEIPT.to_string(),
        op: reset.op.clone(),
        tier: reset.request.tier,
        technician: reset.request.by.clone(),
        request: reset.request.id.clone(),
        at: reset.now,
        databases: Vec::new(),
        configuration: Vec::new(),
        left: reset.left.clone(),
        kept,
        loss: false,
        quarantine: reset.into.display().to_string(),
        old_chain,
    }
}

/// Preserves the files of a database.
fn empty(
    machine: &mut dyn Machine,
    reset: &Reset,
    database: &ResetDatabase,
    kept: PathBuf,
) -> io::Result<(Emptied, Target)> {
    let mut emptied = Emptied {
        name: database.name.clone(),
        path: database.path.display().to_string(),
        originals: Vec::new(),
        lost: Vec::new(),
        schema_from: None,
    };
    let mut retire = Vec::new();
    make_dirs(machine, &kept)?;
    // The log first, as everywhere: a copy of it is never newer than that of its database.
    for suffix in ["-wal", "-journal", "", "-shm"] {
        let path = side(&database.location, suffix);
        match machine.stat(&path)? {
            None => continue,
            Some(stat) if stat.kind == FileKind::File => {}
            Some(_) => {
                let why = "it is not a file; look at what stands there and move it away";
                return Err(refused(&path, &io::Error::new(io::ErrorKind::InvalidInput, why)));
            }
        }
        if !suffix.is_empty() {
            retire.push(path.clone());
        }
        match keep(machine, &path, &kept) {
            Ok((file, None)) => emptied.originals.push(file),
            Ok((file, Some(why))) if reset.request.accept_loss => {
                emptied.lost.push(format!("{}: {why}", file.name));
                emptied.originals.push(file);
            }
            Err(e) if reset.request.accept_loss => emptied.lost.push(format!("{}: {e}", path.display())),
            Ok((_, Some(why))) | Err(why) => return Err(refused(&path, &why)),
        }
    }
    machine.sync_dir(&kept)?;
    let path = database.location.clone();
    Ok((
        emptied,
        Target { database: database.name.clone(), path, staged: PathBuf::new(), sha256: String::new(), retire, kept },
    ))
}

fn refused(path: &Path, why: &io::Error) -> io::Error {
    io::Error::new(why.kind(), format!("{} cannot be preserved, so nothing was reset: {why}", path.display()))
}

/// A second name in quarantine; where the file system has none to give, a copy. With the digest, or with the reason why
/// it could not be read to its end.
fn keep(machine: &mut dyn Machine, path: &Path, into: &Path) -> io::Result<(Kept, Option<io::Error>)> {
    let name = path.file_name().ok_or_else(|| io::Error::other("it has no name"))?;
    let kept = into.join(name);
    let mut read = path;
    if let Err(e) = machine.link(path, &kept) {
        match e.kind() {
            io::ErrorKind::CrossesDevices | io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied => {
                machine.copy(path, &kept)?;
                read = &kept;
            }
            _ => return Err(e),
        }
    }
    machine.sync_file(&kept)?;
    let digest = sha256(machine.as_look(), read);
    let name = name.to_string_lossy().into_owned();
    Ok(match digest {
        Ok(sha256) => (Kept { name, sha256: Some(sha256) }, None),
        Err(e) => (Kept { name, sha256: None }, Some(e)),
    })
}

/// Preserves a file of the configuration; `None`: it is kept where it is, because it cannot be.
fn take_away(
    machine: &mut dyn Machine,
    reset: &Reset,
    path: &Path,
    kept: PathBuf,
    receipt: &mut Receipt,
) -> io::Result<Option<(Kept, Target)>> {
    if machine.stat(path)?.is_none() {
        return Ok(None);
    }
    make_dirs(machine, &kept)?;
    let file = match keep(machine, path, &kept) {
        Ok((file, None)) => file,
        Ok((file, Some(_))) if reset.request.accept_loss => file,
        Ok((_, Some(e))) | Err(e) => {
            receipt.left.push(format!("{}: it cannot be preserved: {e}", path.display()));
            return Ok(None);
        }
    };
    machine.sync_dir(&kept)?;
    let target = Target {
        database: "configuration".to_string(),
        path: path.to_path_buf(),
        staged: PathBuf::new(),
        sha256: String::new(),
        retire: Vec::new(),
        kept,
    };
    Ok(Some((Kept { name: path.display().to_string(), ..file }, target)))
}

/// Builds the new databases. One whose schema is nowhere to be had, or that the engine does not make, is left to the
/// agent.
fn stage(
    machine: &mut dyn Machine,
    settings: &Settings,
    reset: &Reset,
    receipt: &mut Receipt,
    targets: &mut [Target],
) -> io::Result<()> {
    make_dirs(machine, &reset.stage)?;
    for (database, target) in reset.databases.iter().zip(targets) {
        let Some((from, schema)) = schema(machine, database) else { continue };
        let staged = reset.stage.join(format!("{}.db", database.name));
        machine.unlink(&staged)?;
        let job = SalvageJob { schemas: vec![(from.to_string(), schema)], ..SalvageJob::default() };
        machine.engine_salvage(&job, &staged)?;
        let (said, tables) = machine.engine_check(&staged)?;
        if said != ["ok"] || tables.iter().any(|t| t.rows > 0) {
            log::warn!("{}: the engine did not make an empty database of its schema ({said:?})", database.name);
            machine.unlink(&staged)?;
            continue;
        }
        machine.set_owner(&staged, database.owner.0, database.owner.1, database.mode)?;
        machine.sync_file(&staged)?;
        target.sha256 = sha256(machine.as_look(), &staged)?;
        target.staged = staged;
        if let Some(emptied) = receipt.databases.iter_mut().find(|e| e.name == database.name) {
            emptied.schema_from = Some(from.to_string());
        }
    }
    machine.sync_dir(&reset.stage)?;
    if let Some(parent) = reset.stage.parent() {
        machine.sync_dir(parent)?;
    }
    machine.sync_dir(&settings.data_dir)
}

/// The schema of the last good database, with the name of where it was found.
fn schema(machine: &dyn Machine, database: &ResetDatabase) -> Option<(&'static str, SavedSchema)> {
    if !database.recreate {
        return None;
    }
    let look = machine.as_look();
    let own = if database.sound { saved::of_database(look, &database.location) } else { None };
    let recorded = || database.schema.as_ref().and_then(|path| saved::read(look, path));
    let documented = || {
        let sql = crate::queue::SCHEMA.join(";\n") + ";";
        let entries = crate::edge::engine::schema_of_sql(&sql).ok().filter(|_| database.queue)?;
        Some(SavedSchema { facts: Facts { wal_mode: true, ..Facts::default() }, entries })
    };
    own.map(|s| ("database before", s))
        .or_else(|| recorded().map(|s| ("last good boot", s)))
        .or_else(|| documented().map(|s| ("documented queue", s)))
}

/// The end of the audit chain, where the store is among what is emptied. Never an error: a chain that cannot be read is
/// said to be so, and its file is preserved.
fn old_chain(machine: &dyn Machine, settings: &Settings, reset: &Reset) -> Option<OldChain> {
    let database = store(settings).filter(|d| reset.databases.iter().any(|r| r.name == d.name))?;
    let chain = match chain::read(machine.as_look(), settings, database, &Ask::default()) {
        Ok((_, chain)) => chain,
        Err(e) => return Some(OldChain { trouble: Some(e.to_string()), ..OldChain::default() }),
    };
    let v = chain.verified;
    let trouble = match (chain.absent, v.breaks) {
        (Some(why), _) => Some(why),
        (None, 0) => None,
        (None, n) => Some(format!("it had {n} breaks; the first: {}", v.first_breaks.first().map_or("", |b| &b.what))),
    };
    Some(OldChain {
        head: v.head,
        first_id: v.first_id,
        records: v.records,
        dialect: v.append_in,
        genesis: if let Start::Genesis(word) = v.start { Some(word) } else { None },
        trouble,
    })
}

/// What the journal of events says: short enough for one line of it.
fn note(receipt: &Receipt) -> String {
    let originals: serde_json::Map<String, serde_json::Value> = receipt
        .databases
        .iter()
        .flat_map(|d| &d.originals)
        .take(8)
        .map(|file| (file.name.clone(), file.sha256.clone().into()))
        .collect();
    let mut note = serde_json::json!({
        "tier": receipt.tier,
        "request": receipt.request,
        "databases": receipt.databases.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(),
        "sha256": originals,
        "loss": receipt.loss,
        "quarantine": receipt.quarantine,
    });
    if let (Some(chain), Some(pairs)) = (&receipt.old_chain, note.as_object_mut()) {
        let head = chain.head.as_ref().map(|(id, hash)| {
            serde_json::json!({"id": id, "hash": hash, "first_id": chain.first_id, "records": chain.records})
        });
        pairs.insert("old_head".to_string(), head.unwrap_or(serde_json::Value::Null));
        if let Some(dialect) = &chain.dialect {
            pairs.insert("dialect".to_string(), dialect.clone().into());
            pairs.insert("genesis".to_string(), chain.genesis.clone().into());
        }
    }
    note.to_string()
}

/// Writes the receipt and records the request as executed. Can be run again: the same files with the same contents.
pub fn finish(machine: &mut dyn Machine, settings: &Settings, receipt: &Receipt) -> io::Result<Detail> {
    let dir = settings.state_dir.join(RECEIPTS);
    make_dirs(machine, &dir)?;
    let json = dir.join(format!("{}.json", receipt.op));
    let bytes = serde_json::to_vec_pretty(receipt).map_err(io::Error::other)?;
    durable::replace(machine, &dir.join(format!("{}.txt", receipt.op)), receipt.text().as_bytes())?;
    durable::replace(machine, &json, &bytes)?;
    let path = settings.state_dir.join(USED);
    let mut used: Vec<String> = match read_record(machine.as_look(), &path, USED) {
        Decoded::Ok(used) => used,
        _ => Vec::new(),
    };
    if !used.contains(&receipt.request) {
        used.push(receipt.request.clone());
        let surplus = used.len().saturating_sub(REMEMBERED);
        used.drain(..surplus);
        durable::replace(machine, &path, &record::encode(USED, &used))?;
    }
    forget_oldest(machine, &dir)?;
    Ok(Detail {
        text: format!("a factory reset of tier {} is complete; receipt: {}", receipt.tier.name(), json.display()),
        reset: Some(Box::new(Issued { receipt: receipt.clone(), file: json })),
        ..Detail::default()
    })
}

/// Receipts beyond those kept, the oldest first by the time in their names.
fn forget_oldest(machine: &mut dyn Machine, dir: &Path) -> io::Result<()> {
    let names = machine.list(dir)?;
    let mut dated: Vec<(u64, PathBuf)> = names
        .iter()
        .filter_map(|name| Some((name.to_str()?.split('-').next()?.parse().ok()?, dir.join(name))))
        .collect();
    dated.sort();
    let surplus = dated.len().saturating_sub(2 * KEPT);
    for (_, path) in dated.into_iter().take(surplus) {
        durable::remove(machine, &path)?;
    }
    Ok(())
}
