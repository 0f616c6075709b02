//! Builds a candidate in staging. Works on the preserved files, so that what is built is what was preserved.

use std::io;
use std::path::{Path, PathBuf};

use super::act::{make_dirs, sha256};
use super::chain;
use super::outcome::{Detail, Resumed};
use super::rebuild;
use super::step::Build;
use crate::config::{Rung, Settings};
use crate::edge::{FileKind, Look, Machine, durable};
use crate::journal::{self, Intent, Phase, Target};
use crate::sqlite::judge::Candidate;
use crate::sqlite::overlay::Fold;
use crate::sqlite::read_vec;
use crate::sqlite::rollback::Rollback;
use crate::sqlite::wal;

/// Longest outcome kept in an intent: both it and its mirror are records.
const MAX_OUTCOME: usize = 256 << 10;

/// Builds the first candidate that the engine calls sound and writes PREPARED. The outer error: could not build, which
/// may be different the next time; the inner: every candidate was built and refused.
pub fn build(machine: &mut dyn Machine, settings: &Settings, build: &Build) -> io::Result<Result<Detail, String>> {
    make_dirs(machine, &build.stage)?;
    let name = build.path.file_name().ok_or_else(|| io::Error::other("the path has no file name"))?;
    let staged = build.stage.join(name);
    let mut refused = Vec::new();
    for candidate in &build.candidates {
        match candidate_file(machine, build, candidate, &staged)? {
            Ok(detail) => return prepare(machine, settings, build, candidate, &staged, detail).map(Ok),
            Err(why) => {
                log::warn!("{}: a {:?} candidate was refused: {why}", build.database, candidate.rung);
                refused.push(format!("{}: {why}", word(candidate)));
            }
        }
    }
    discard(machine, &build.stage)?;
    Ok(Err(format!("no candidate could be used ({})", refused.join("; "))))
}

type Gated = Result<Detail, String>;

/// The outer error: could not build; the inner: built and refused.
fn candidate_file(machine: &mut dyn Machine, build: &Build, candidate: &Candidate, staged: &Path) -> io::Result<Gated> {
    let mut detail = Detail::default();
    if matches!(candidate.rung, Rung::Replay | Rung::Resync) {
        fold_into(machine, build, &candidate.base, staged)?;
        if let Some(back) = &candidate.rollback {
            roll_back(machine, build, back, staged)?;
        }
    } else {
        match rebuild::build(machine, build, candidate, staged)? {
            Ok(built) => detail = built,
            Err(why) => return Ok(Err(why)),
        }
    }
    if let Some(extras) = &candidate.extras {
        let donor = with_suffix(staged, ".donor");
        fold_into(machine, build, extras, &donor)?;
        believe_length(machine, &donor, extras.pages)?;
        // A donor may be unsound: only rows that it can still give are taken, and the result is gated below.
        let appended = machine.engine_append(staged, &donor);
        machine.unlink(&donor)?;
        detail.gained = match appended {
            Ok(gained) => gained,
            Err(e) => return Ok(Err(format!("the later commit cannot be read: {e}"))),
        };
        if detail.gained.iter().all(|g| g.inserted == 0) {
            return Ok(Err("the later commit has no appended rows".to_string()));
        }
    }
    let (lines, tables) = machine.engine_check(staged)?;
    if lines != ["ok"] {
        return Ok(Err(lines.first().cloned().unwrap_or_default()));
    }
    // Told, and no reason to refuse: no lower rung has better values.
    let broken = match machine.engine_constraints(staged) {
        Ok(lines) => lines,
        Err(e) => vec![format!("its CHECK constraints could not be looked at: {e}")],
    };
    Ok(Ok(Detail { tables, broken, ..detail }))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// The size in the donor's header may be that of a page 1 older than the hole; the engine would refuse whatever lies
/// beyond it. Only ever a donor: rows are read from it, it is never installed.
fn believe_length(machine: &mut dyn Machine, donor: &Path, pages: u32) -> io::Result<()> {
    let header = read_vec(&*machine.open(donor)?, 0, 100)?;
    if header.get(..16) != Some(crate::sqlite::header::MAGIC.as_slice()) {
        return Ok(());
    }
    let counter = header.get(24..28).unwrap_or(&[0; 4]).to_vec();
    machine.write_at(donor, 28, &pages.to_be_bytes())?;
    machine.write_at(donor, 92, &counter)
}

/// Copies the preserved database and lays the images of a fold over it.
pub(super) fn fold_into(machine: &mut dyn Machine, build: &Build, fold: &Fold, to: &Path) -> io::Result<()> {
    fold_copy(machine, build.source.as_deref(), build.log.as_deref(), fold, to)
}

/// [`fold_into`] from a preserved database and log.
pub fn fold_copy(
    machine: &mut dyn Machine,
    source: Option<&Path>,
    log: Option<&Path>,
    fold: &Fold,
    to: &Path,
) -> io::Result<()> {
    match source {
        Some(source) => machine.copy(source, to)?,
        None => machine.write(to, &[])?,
    }
    if fold.upto == 0 {
        return Ok(());
    }
    let path = log.ok_or_else(|| io::Error::other("the plan names frames and no log"))?;
    let images = {
        let log = machine.open(path)?;
        let scan = wal::scan(&*log, Some(fold.page_size))?;
        let commit = |stored: u32| fold.mend(fold.upto).map_or(stored, |m| m.commit);
        let last = scan.frame(fold.upto).map(|f| (f.stored, commit(f.commit)));
        if scan.page_size != fold.page_size || last != Some((fold.sum, fold.pages)) {
            return Err(io::Error::other("the log is not the one that was sensed; nothing is changed"));
        }
        fold.images(&scan)
    };
    let size = usize::try_from(fold.page_size).unwrap_or(0);
    for (page, frame) in images {
        let mut image = read_vec(&*machine.open(path)?, wal::image_offset(fold.page_size, frame), size)?;
        fold.put_right(frame, &mut image);
        if image.len() != size {
            return Err(io::Error::other(format!("frame {frame} cannot be read in full")));
        }
        machine.write_at(to, u64::from(page - 1) * u64::from(fold.page_size), &image)?;
    }
    machine.set_len(to, u64::from(fold.pages) * u64::from(fold.page_size))
}

/// Puts pages of the preserved rollback journal back into the staged copy.
fn roll_back(machine: &mut dyn Machine, build: &Build, back: &Rollback, to: &Path) -> io::Result<()> {
    let path = build.journal.as_ref().ok_or_else(|| io::Error::other("the plan names a rollback and no journal"))?;
    let size = usize::try_from(back.page_size).unwrap_or(0);
    for (page, at) in &back.images {
        let image = read_vec(&*machine.open(path)?, *at, size)?;
        if image.len() != size {
            return Err(io::Error::other(format!("the journal's image of page {page} cannot be read in full")));
        }
        machine.write_at(to, u64::from(page.saturating_sub(1)) * u64::from(back.page_size), &image)?;
    }
    machine.set_len(to, u64::from(back.pages) * u64::from(back.page_size))
}

fn prepare(
    machine: &mut dyn Machine,
    settings: &Settings,
    build: &Build,
    candidate: &Candidate,
    staged: &Path,
    built: Detail,
) -> io::Result<Detail> {
    let detail = told(candidate, built);
    machine.set_owner(staged, build.owner.0, build.owner.1, build.mode)?;
    machine.sync_file(staged)?;
    machine.sync_dir(&build.stage)?;
    if let Some(parent) = build.stage.parent() {
        machine.sync_dir(parent)?;
    }
    machine.sync_dir(&settings.data_dir)?;
    let intent = Intent {
        op: build.op.clone(),
        kind: "repair".to_string(),
        phase: Phase::Prepared,
        prepared_at: build.now,
        by: build.by.clone(),
        volume: build.volume.clone(),
        stage: build.stage.clone(),
        targets: vec![Target {
            database: build.database.clone(),
            path: build.path.clone(),
            staged: staged.to_path_buf(),
            sha256: sha256(machine.as_look(), staged)?,
            retire: build.retire.clone(),
            kept: PathBuf::new(),
        }],
        receipt: None,
        note: note(machine.as_look(), build, candidate, staged, &detail),
        outcome: resumed(build, &detail),
    };
    make_dirs(machine, &settings.state_dir)?;
    let record = settings.state_dir.join(journal::FILE);
    if machine.stat(&record)?.is_some() {
        // One journal, one open operation: overwriting it would orphan a swap that has begun.
        return Err(io::Error::other("another operation is still open; it is finished first, at the next boot"));
    }
    durable::replace(machine, &record, &intent.encode())?;
    Ok(detail)
}

/// What was built, as the report tells it.
fn told(candidate: &Candidate, detail: Detail) -> Detail {
    let mut text = match detail.text.as_str() {
        "" => format!("{} candidate built and checked", word(candidate)),
        built => format!("{built}; the result is checked"),
    };
    for line in &detail.broken {
        text.push_str("; ");
        text.push_str(line);
    }
    Detail {
        text,
        action: Some(detail.action.clone().unwrap_or_else(|| word(candidate).to_string())),
        completeness: Some(detail.completeness.unwrap_or(candidate.completeness)),
        frames_lost: candidate.frames_lost,
        in_doubt: candidate.in_doubt,
        proof: Some(Box::new(candidate.proof.clone())),
        ..detail
    }
}

/// The same, for whoever finishes the operation after a cut: with where the originals are, and what was found.
fn resumed(build: &Build, detail: &Detail) -> String {
    let (structure, completeness) = build.found;
    let resumed = Some(Box::new(Resumed { database: build.database.clone(), structure, completeness }));
    let quarantine = build.source.as_ref().or(build.log.as_ref()).and_then(|p| p.parent()).map(Path::to_path_buf);
    let text = serde_json::to_string(&Detail { resumed, quarantine, ..detail.clone() }).unwrap_or_default();
    // A record has a limit; the report of a cut repair may then say less, the journal of events says it all the same.
    if text.len() > MAX_OUTCOME { String::new() } else { text }
}

/// What the journal of events says of a repair: what was done, what was lost, where the originals are.
fn note(look: &dyn Look, build: &Build, candidate: &Candidate, staged: &Path, detail: &Detail) -> String {
    let rows: serde_json::Map<String, serde_json::Value> =
        detail.tables.iter().map(|t| (t.table.clone(), t.rows.into())).collect();
    // Null: how many of this table are gone cannot be known.
    let lost: serde_json::Map<String, serde_json::Value> =
        detail.losses.iter().map(|t| (t.name.clone(), t.lost.into())).collect();
    let added: u64 = detail.gained.iter().map(|g| g.inserted).sum();
    let quarantine = build.source.as_ref().or(build.log.as_ref()).and_then(|p| p.parent());
    serde_json::json!({
        "database": build.database,
        "action": detail.action.as_deref().unwrap_or_else(|| word(candidate)),
        "completeness": detail.completeness.unwrap_or(candidate.completeness),
        "frames_lost": candidate.frames_lost,
        "in_doubt": candidate.in_doubt,
        "rows": rows,
        "rows_lost": lost,
        "lost_and_found": detail.lost_and_found,
        "rows_from_later_commit": added,
        "constraints": detail.broken,
        "quarantine": quarantine.map(|p| p.display().to_string()),
        // Null where there is no audit chain in it. It bridges the repair: later heads are compared with this one.
        "chain_head": chain::head_in_file(look, staged),
    })
    .to_string()
}

/// The contract's word for what a candidate does.
fn word(candidate: &Candidate) -> &'static str {
    if candidate.proof.why.iter().any(|w| w == "log-set-aside") {
        return "set-aside";
    }
    match candidate.rung {
        Rung::Replay => "replayed",
        Rung::Resync => "resynced",
        Rung::Reindex => "reindexed",
        Rung::Salvage => "salvaged",
        Rung::Backup => "restored",
        Rung::Empty => "emptied",
    }
}

/// Removes a stage and everything in it.
pub fn discard(machine: &mut dyn Machine, stage: &Path) -> io::Result<()> {
    match machine.list(stage) {
        Ok(names) => {
            for name in names.iter().map(|n| stage.join(n)) {
                match machine.stat(&name)? {
                    Some(s) if s.kind == FileKind::Directory => discard(machine, &name)?,
                    _ => machine.unlink(&name)?,
                }
            }
            machine.remove_dir(stage)?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    }
    match stage.parent() {
        Some(parent) => machine.sync_dir(parent),
        None => Ok(()),
    }
}
