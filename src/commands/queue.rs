//! `queue stats`, `export`, `import` and `repair`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Context, alone, print, print_json};
use crate::boot::assess::StructureVerdict;
use crate::boot::plan::side;
use crate::boot::queue::{self, DOCUMENTED, Replaced, Replacement, Rows};
use crate::boot::sense::read_record;
use crate::boot::table::Found;
use crate::cli::QueueCommand;
use crate::config::Database;
use crate::edge::engine::queue::Load;
use crate::edge::{Look, Machine, durable};
use crate::error::{Error, ErrorKind, Exit};
use crate::queue::history::{self, Note, RECORD};
use crate::queue::lines::{self, Parsed};
use crate::queue::stats::Stats;
use crate::queue::{Item, Rejected, SCHEMA};
use crate::record;
use crate::sqlite::check::Scope;
use crate::sqlite::judge::Completeness;
use crate::sqlite::read_vec;

/// Longest file read by `import`: it is held in memory, with its rows.
const MAX_IMPORT: u64 = 256 << 20;

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
        QueueCommand::Import { from, plan } => import(context, &database, &from, plan),
        QueueCommand::Repair { plan } => repair(context, &database, plan),
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
            let _lock = alone(context)?;
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
    let (found, rows) = read(context, database, Scope::Full, true)?;
    if let Some(why) = &rows.absent {
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

#[derive(Serialize)]
struct ReplaceReport {
    schema: &'static str,
    exit: u8,
    /// "none", "rebuilt" or "imported"; with `plan`, what would be done.
    action: &'static str,
    plan: bool,
    /// Rows in the queue afterwards.
    rows: u64,
    /// Rows that were put in.
    loaded: usize,
    /// Rows and places that were not.
    rejected: usize,
    /// Rows that may have been sent before: as in `queue export`, or, imported, with ids that were given before.
    strayed: u64,
    quarantine: Option<String>,
    /// The preserved original.
    original: Option<String>,
    rejected_file: Option<String>,
    damage: Option<String>,
    reasons: BTreeMap<String, u64>,
}

fn reasons(rejected: &[Rejected]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for r in rejected {
        // One line for each kind of reason, not for each row.
        let kind: String = r.reason.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).take(80).collect();
        if counts.len() < 50 || counts.contains_key(&kind) {
            *counts.entry(kind).or_default() += 1;
        }
    }
    counts
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

fn not_while_open(found: &Found, database: &Database) -> Result<(), Error> {
    if found.verdict.held_by.is_empty() {
        return Ok(());
    }
    let why = format!("it is open in {}", found.verdict.held_by.join(", "));
    let advice = "stop the agent (systemctl stop pyvorin-edge-agent, or pyvorin-edge) and try again";
    Err(Error::new(ErrorKind::Refused, "cannot change the queue", why, advice).at(&database.path))
}

fn replace(context: &mut Context, database: &Database, found: &Found, what: Replacement) -> Result<Replaced, Error> {
    let settings = context.settings.clone();
    queue::replace(&mut context.machine, &settings, database, found, what)
        .map_err(|e| Error::io(ErrorKind::Write, "cannot replace the queue", &database.path, &e))
}

fn repair(context: &mut Context, database: &Database, plan: bool) -> Result<Exit, Error> {
    let _lock = if plan { None } else { alone(context)? };
    not_half_written(context, database)?;
    let (found, rows) = read(context, database, Scope::Full, true)?;
    let damage = damage(&found);
    let mut report = ReplaceReport {
        schema: "pyvorin-recovery/queue-repair/1",
        exit: 0,
        action: "none",
        plan,
        rows: rows.items.len() as u64,
        loaded: 0,
        rejected: rows.rejected.len(),
        strayed: rows.strayed,
        quarantine: None,
        original: None,
        rejected_file: None,
        reasons: reasons(&rows.rejected),
        damage: damage.clone(),
    };
    if found.verdict.structure == StructureVerdict::Unreadable {
        let why = "it cannot be read";
        let advice = "look into the kernel log (dmesg) for errors of the device below";
        return Err(Error::new(ErrorKind::Read, "cannot repair the queue", why, advice).at(&database.path));
    }
    if damage.is_none() && rows.rejected.is_empty() {
        return told(context, report, Exit::OK);
    }
    if !plan {
        not_while_open(&found, database)?;
    }
    if !rows.others.is_empty() {
        let why = format!("it holds other tables ({}), which a rebuild would lose", rows.others.join(", "));
        let advice = "use `repair` or `salvage` for this database";
        return Err(Error::new(ErrorKind::Refused, "cannot rebuild the queue", why, advice).at(&database.path));
    }
    let create = if rows.create.is_empty() { SCHEMA.map(str::to_string).to_vec() } else { rows.create };
    let new = Some((rows.facts.unwrap_or(DOCUMENTED), create));
    report.action = "rebuilt";
    report.loaded = rows.items.len();
    // What is lost without a trace cannot be counted: damage in the structure is never wholly repaired by rows alone.
    let whole = rows.rejected.is_empty() && found.verdict.structure == StructureVerdict::Sound;
    let mut exit = if whole { Exit::REPAIRED } else { Exit::REPAIRED | Exit::LEFT };
    if plan {
        return told(context, report, Exit::OK);
    }
    let load = Load { new, items: rows.items, sequence: rows.sequence };
    let by = context.by.clone();
    let done = replace(context, database, &found, Replacement { kind: "rebuild", load, rejected: rows.rejected, by })?;
    if !done.rejected.is_empty() {
        exit |= Exit::LEFT;
    }
    finished(&mut report, &done);
    told(context, report, exit)
}

fn finished(report: &mut ReplaceReport, done: &Replaced) {
    report.rows = done.rows;
    report.rejected = done.rejected.len();
    report.reasons = reasons(&done.rejected);
    report.quarantine = Some(done.quarantine.display().to_string());
    report.original = done.original.as_ref().map(|p| p.display().to_string());
    if !done.rejected.is_empty() {
        report.rejected_file = Some(done.quarantine.join(queue::REJECTED).display().to_string());
    }
}

fn told(context: &Context, mut report: ReplaceReport, exit: Exit) -> Result<Exit, Error> {
    report.exit = exit.code();
    if context.json {
        print_json(&report)?;
        return Ok(exit);
    }
    let would = if report.plan { " (plan: nothing was changed)" } else { "" };
    print(&match report.action {
        "none" => format!("the queue needs nothing: {} rows{would}", report.rows),
        "rebuilt" => format!("the queue is rebuilt: {} rows with their ids, times and retries{would}", report.loaded),
        _ => format!("{} rows put into the queue, which has {} now{would}", report.loaded, report.rows),
    });
    report.damage.iter().for_each(|why| print(&format!("  it was damaged: {why}")));
    if report.strayed > 0 {
        let what = match report.action {
            "imported" => "have ids that this queue had given and no longer holds; they may have been sent before",
            _ => "lay on pages that nothing led to; some may have been sent before",
        };
        print(&format!("  {} rows {what}", report.strayed));
    }
    if report.rejected > 0 {
        print(&format!("  {} rows or places were left out:", report.rejected));
        report.reasons.iter().for_each(|(why, n)| print(&format!("    {n} x {why}")));
    }
    report.rejected_file.iter().for_each(|f| print(&format!("  they are in {f}")));
    report.original.iter().for_each(|f| print(&format!("  the original is kept as {f}")));
    Ok(exit)
}

fn import(context: &mut Context, database: &Database, from: &Path, plan: bool) -> Result<Exit, Error> {
    let (from, rejected_file) = outputs(context, from, false)?;
    let cannot = |e: io::Error| Error::io(ErrorKind::Read, "cannot read the rows", &from, &e);
    let bytes = {
        let file = context.machine.open(&from).map_err(cannot)?;
        if file.size() > MAX_IMPORT {
            let why = format!("it is larger than {} MiB", MAX_IMPORT >> 20);
            return Err(Error::new(ErrorKind::Read, "cannot read the rows", why, "split it by lines").at(&from));
        }
        read_vec(&*file, 0, usize::try_from(file.size()).unwrap_or(0)).map_err(cannot)?
    };
    let parsed = lines::parse(&bytes);
    let _lock = if plan { None } else { alone(context)? };
    not_half_written(context, database)?;
    let (found, rows) = read(context, database, Scope::Full, false)?;
    if let Some(why) = damage(&found) {
        let advice = "run `queue repair` first";
        return Err(Error::new(ErrorKind::Refused, "cannot import into the queue", why, advice).at(&database.path));
    }
    let missing = rows.absent.is_some();
    let empty = found.verdict.structure == StructureVerdict::Missing || found.verdict.files.bytes == 0;
    if missing && !empty {
        let why = rows.absent.unwrap_or_default();
        let advice = "let the agent make its table first (start it once), then stop it and import again";
        return Err(Error::new(ErrorKind::Refused, "cannot import into the queue", why, advice).at(&database.path));
    }
    if !plan {
        not_while_open(&found, database)?;
    }
    let (items, rejected) = once(parsed, &rows);
    let mut report = ReplaceReport {
        schema: "pyvorin-recovery/queue-import/1",
        exit: 0,
        action: if items.is_empty() { "none" } else { "imported" },
        plan,
        rows: rows.items.len() as u64,
        loaded: items.len(),
        rejected: rejected.len(),
        strayed: items.iter().filter(|i| i.id.is_some_and(|id| id <= rows.sequence)).count() as u64,
        quarantine: None,
        original: None,
        rejected_file: None,
        reasons: reasons(&rejected),
        damage: None,
    };
    let mut exit = if rejected.is_empty() { Exit::OK } else { Exit::LEFT };
    if plan {
        return told(context, report, exit);
    }
    let mut left_out = rejected.clone();
    if !items.is_empty() {
        let new = empty.then(|| (DOCUMENTED, SCHEMA.map(str::to_string).to_vec()));
        let load = Load { new, items, sequence: rows.sequence };
        let by = context.by.clone();
        let done = replace(context, database, &found, Replacement { kind: "import", load, rejected, by })?;
        finished(&mut report, &done);
        report.loaded = report.loaded.saturating_sub(done.rejected.len().saturating_sub(left_out.len()));
        left_out = done.rejected;
    }
    if !left_out.is_empty() {
        exit |= Exit::LEFT;
        // Beside the file where that can be written; in quarantine it is in any case.
        match put(context, &rejected_file, left_out.iter().map(lines::rejected_line)) {
            Ok(()) => report.rejected_file = Some(rejected_file.display().to_string()),
            Err(e) if report.rejected_file.is_none() => return Err(e),
            Err(e) => log::warn!("{e}"),
        }
    }
    told(context, report, exit)
}

/// Each id once: against the rows of the queue, and within the file.
fn once(parsed: Parsed, rows: &Rows) -> (Vec<Item>, Vec<Rejected>) {
    let mut known: BTreeMap<i64, Item> = rows.items.iter().filter_map(|i| Some((i.id?, i.clone()))).collect();
    let taken: BTreeMap<i64, ()> = rows.rejected.iter().filter_map(|r| Some((r.id?, ()))).collect();
    let mut items = Vec::new();
    let mut rejected = parsed.rejected;
    for item in parsed.items {
        let reason = match item.id.map(|id| (id, known.get(&id))) {
            Some((id, Some(there))) if *there == item => Some(format!("row {id} is there already")),
            Some((id, Some(_))) => Some(format!("another row has the id {id}")),
            Some((id, None)) if taken.contains_key(&id) => {
                Some(format!("a row with the id {id} is there, and invalid"))
            }
            _ => None,
        };
        if let Some(reason) = reason {
            let bytes = lines::line(&item).into_bytes();
            rejected.push(Rejected { id: item.id, place: "the file".into(), reason, values: Vec::new(), bytes });
            continue;
        }
        if let Some(id) = item.id {
            known.insert(id, item.clone());
        }
        items.push(item);
    }
    (items, rejected)
}
