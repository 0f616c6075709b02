//! `queue stats` and `export`; `import` and `repair` stand in [`replace`].

mod replace;

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::work::alone;
use super::{Context, print, print_json};
use crate::boot::assess::StructureVerdict;
use crate::boot::plan::side;
use crate::boot::queue::{self, Rows};
use crate::boot::sense::read_record;
use crate::boot::table::Found;
use crate::cli::QueueCommand;
use crate::config::Database;
use crate::edge::{Look, Machine, durable};
use crate::error::{Error, ErrorKind, Exit};
use crate::queue::history::{self, Note, RECORD};
use crate::queue::lines;
use crate::queue::stats::Stats;
use crate::record;
use crate::sqlite::check::Scope;
use crate::sqlite::judge::Completeness;
use crate::sqlite::read_vec;

/// Runs one of them.
pub fn run(context: &mut Context, what: QueueCommand) -> Result<Exit, Error> {
    let database = queue::configured(&context.settings).cloned().ok_or_else(|| {
        Error::new(
            ErrorKind::Config,
            "there is no queue",
            "no database of kind \"queue\" is configured",
            "add one to recovery.toml ([[database]] with kind = \"queue\")",
        )
    })?;
    match what {
        QueueCommand::Stats { record } => stats(context, &database, record),
        QueueCommand::Export { to } => export(context, &database, &to),
        QueueCommand::Import { from, plan } => replace::import(context, &database, &from, plan),
        QueueCommand::Repair { plan } => replace::repair(context, &database, plan),
    }
}

fn read(context: &Context, database: &Database, scope: Scope, stray: bool) -> Result<(Found, Rows), Error> {
    queue::read(context.machine.as_look(), &context.settings, database, scope, stray)
        .map_err(|e| Error::io(ErrorKind::Read, "cannot read the queue", &database.path, &e))
}

/// Damage in words; `None`: sound, and nothing known to be missing.
fn damage(found: &Found) -> Option<String> {
    let v = &found.verdict;
    match (v.structure, v.completeness) {
        (StructureVerdict::Damaged, _) => Some("its structure is damaged".to_string()),
        (StructureVerdict::Unreadable, _) => Some("it cannot be read".to_string()),
        (StructureVerdict::Missing, _) if v.needs_repair => Some("the file is missing beside its log".to_string()),
        (_, Completeness::Lossy) => Some("committed rows are not reachable for SQLite".to_string()),
        _ if v.needs_repair => Some("its log is damaged".to_string()),
        _ => None,
    }
}

#[derive(Serialize)]
pub(super) struct StatsReport {
    schema: &'static str,
    exit: u8,
    path: String,
    #[serde(flatten)]
    pub(super) stats: Stats,
    /// `null`: too few notes to judge.
    pub(super) growing: Option<bool>,
    /// Notes in the history.
    notes: usize,
    /// Why there is no queue to read, where there is none.
    absent: Option<String>,
    /// Damage in words; `null`: none found.
    pub(super) damage: Option<String>,
}

/// The figures, and whether the queue grows by the history in state.
pub(super) fn figures(context: &Context, database: &Database) -> Result<(StatsReport, Vec<Note>), Error> {
    let look = context.machine.as_look();
    let (found, rows) = read(context, database, Scope::Quick, false)?;
    let now = look.clock();
    let mut stats = Stats::new(now);
    rows.items.iter().for_each(|item| stats.item(item, now));
    rows.rejected.iter().for_each(|rejected| stats.rejected(rejected));
    let path = context.settings.state_dir.join(RECORD);
    let notes: Vec<Note> = read_record(look, &path, RECORD).ok().unwrap_or_default();
    let damage = damage(&found);
    let bad = damage.is_some() || stats.invalid > 0 || stats.unreadable_places > 0;
    let report = StatsReport {
        schema: "pyvorin-recovery/queue/1",
        exit: if bad { Exit::LEFT } else { Exit::OK }.code(),
        path: database.path.display().to_string(),
        growing: history::growing(&notes, Note { at: now, depth: stats.depth }),
        stats,
        notes: notes.len(),
        absent: rows.absent,
        damage,
    };
    Ok((report, notes))
}

fn stats(context: &mut Context, database: &Database, record: bool) -> Result<Exit, Error> {
    let (report, notes) = figures(context, database)?;
    if record && report.absent.is_none() {
        let note = Note { at: context.machine.clock(), depth: report.stats.depth };
        if let Some(notes) = history::noted(&notes, note) {
            let _locks = alone(context)?;
            let path = context.settings.state_dir.join(RECORD);
            durable::replace(&mut context.machine, &path, &record::encode(RECORD, &notes))
                .map_err(|e| Error::io(ErrorKind::Write, "cannot note the depth of the queue", &path, &e))?;
        }
    }
    let exit = if report.exit == 0 { Exit::OK } else { Exit::LEFT };
    if context.json {
        print_json(&report)?;
        return Ok(exit);
    }
    let s = &report.stats;
    let growing = match report.growing {
        None => format!("not known yet ({} notes)", report.notes),
        Some(true) => "yes".to_string(),
        Some(false) => "no".to_string(),
    };
    print(&format!("queue {}: {} pending", report.path, s.depth));
    report.absent.iter().for_each(|why| print(&format!("  {why}")));
    report.damage.iter().for_each(|why| print(&format!("  {why}; next: queue repair, with the agent stopped")));
    let oldest = s.oldest_item_timestamp.map_or("none".to_string(), |t| format!("{t:.0}"));
    print(&format!("  oldest item: {oldest}, retries: {} on {} items", s.total_retries, s.retrying_items));
    let words = [("1", "critical"), ("2", "anomaly"), ("3", "telemetry"), ("4", "logs")];
    let priorities: Vec<String> =
        words.iter().map(|(p, word)| format!("{word} {}", s.by_priority.get(*p).unwrap_or(&0))).collect();
    print(&format!("  {}", priorities.join(", ")));
    let expired = s.expired.map_or("not known, the clock is wrong".to_string(), |n| n.to_string());
    print(&format!(
        "  expired: {expired}, invalid: {}, unreadable places: {}, growing: {growing}",
        s.invalid, s.unreadable_places
    ));
    Ok(exit)
}

/// A path as given, made absolute, and the one beside it for what was rejected.
fn outputs(context: &Context, to: &Path, both: bool) -> Result<(PathBuf, PathBuf), Error> {
    let to = std::path::absolute(to).map_err(|e| Error::io(ErrorKind::Write, "cannot write", to, &e))?;
    let mut rejected = to.clone().into_os_string();
    rejected.push(".rejected");
    let rejected = PathBuf::from(rejected);
    let check: &[&PathBuf] = if both { &[&to, &rejected] } else { &[&rejected] };
    for path in check {
        if context.machine.stat(path).map_err(|e| Error::io(ErrorKind::Write, "cannot write", path, &e))?.is_some() {
            let advice = "name another file, or move this one away";
            return Err(Error::new(ErrorKind::Refused, "cannot write", "it is there already", advice).at(path));
        }
    }
    Ok((to, rejected))
}

fn put(context: &mut Context, path: &Path, lines: impl Iterator<Item = String>) -> Result<(), Error> {
    let text: String = lines.map(|line| line + "\n").collect();
    durable::replace(&mut context.machine, path, text.as_bytes()).map_err(|e| {
        let mut tmp = path.as_os_str().to_os_string();
        tmp.push(".tmp");
        // What could not be written whole is of no use to anybody.
        drop(context.machine.unlink(Path::new(&tmp)));
        Error::io(ErrorKind::Write, "cannot write", path, &e)
    })
}

#[derive(Serialize)]
struct ExportReport {
    schema: &'static str,
    exit: u8,
    exported: usize,
    rejected: usize,
    /// Of the exported, rows on pages to which no page of the tree leads any more: some may have been sent already.
    strayed: u64,
    file: String,
    rejected_file: Option<String>,
    damage: Option<String>,
}

fn export(context: &mut Context, database: &Database, to: &Path) -> Result<Exit, Error> {
    let (to, rejected) = outputs(context, to, true)?;
    not_half_written(context, database)?;
    let (found, mut rows) = read(context, database, Scope::Full, true)?;
    // While somebody writes, pages looked at one by one need not belong together.
    if found.verdict.structure == StructureVerdict::Damaged && found.verdict.held_by.is_empty() {
        let mut scratch = to.as_os_str().to_os_string();
        scratch.push(format!(".{}.tmp", context.machine.clock()));
        queue::salvage(&mut context.machine, database, &found, &mut rows, Path::new(&scratch));
    }
    if let Some(why) = rows.absent.as_ref().filter(|_| rows.items.is_empty()) {
        let advice = "check the path in recovery.toml, and --root if one was given";
        return Err(Error::new(ErrorKind::Read, "cannot export the queue", why, advice).at(&database.path));
    }
    // What was rejected first: a cut between the two leaves no export that looks whole.
    if !rows.rejected.is_empty() {
        put(context, &rejected, rows.rejected.iter().map(lines::rejected_line))?;
    }
    put(context, &to, rows.items.iter().map(lines::line))?;
    let damage = damage(&found);
    let exit = if rows.rejected.is_empty() && damage.is_none() { Exit::OK } else { Exit::LEFT };
    let report = ExportReport {
        schema: "pyvorin-recovery/queue-export/1",
        exit: exit.code(),
        exported: rows.items.len(),
        rejected: rows.rejected.len(),
        strayed: rows.strayed,
        file: to.display().to_string(),
        rejected_file: (!rows.rejected.is_empty()).then(|| rejected.display().to_string()),
        damage,
    };
    if context.json {
        print_json(&report)?;
        return Ok(exit);
    }
    print(&format!("{} rows exported to {}", report.exported, report.file));
    if let Some(file) = &report.rejected_file {
        print(&format!("{} rows or places cannot be sent; they are in {file}, with the reason", report.rejected));
    }
    report.damage.iter().for_each(|why| print(&format!("the queue: {why}")));
    Ok(exit)
}

/// First bytes of a rollback journal that is waiting (file format 2, section 3). One that is done is empty, or begins
/// with zeroes.
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// With a transaction half written in place, the rows of the file are neither the old nor the new ones.
fn not_half_written(context: &Context, database: &Database) -> Result<(), Error> {
    let path = side(&database.location, "-journal");
    let cannot = |e: io::Error| Error::io(ErrorKind::Read, "cannot read the rollback journal", &path, &e);
    if context.machine.stat(&path).map_err(cannot)?.is_none() {
        return Ok(());
    }
    let head = context.machine.open(&path).and_then(|file| read_vec(&*file, 0, 8)).map_err(cannot)?;
    if head != JOURNAL_MAGIC {
        return Ok(());
    }
    let why = "a transaction that a cut interrupted waits in it to be taken back";
    let advice = "start the agent once, which takes it back, then stop it and try again";
    Err(Error::new(ErrorKind::Refused, "cannot work on the queue", why, advice).at(&path))
}
