//! `queue repair` and `queue import`: what replaces the queue, with the agent stopped meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::{damage, not_half_written, outputs, put, read};
use crate::boot::assess::StructureVerdict;
use crate::boot::outcome::Detail;
use crate::boot::queue::{self, DOCUMENTED, Replaced, Replacement, Rows};
use crate::boot::table::Found;
use crate::commands::work::Work;
use crate::commands::{Context, print, print_json};
use crate::config::Database;
use crate::edge::Look;
use crate::edge::engine::queue::Load;
use crate::error::{Error, ErrorKind, Exit};
use crate::queue::lines::{self, Parsed};
use crate::queue::{Item, Rejected, SCHEMA};
use crate::sqlite::check::Scope;
use crate::sqlite::judge::Completeness;
use crate::sqlite::read_vec;

/// Longest file read by `import`: it is held in memory, with its rows.
const MAX_IMPORT: u64 = 256 << 20;

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
    /// Rows and places that were not, and spans of ids that are gone.
    rejected: usize,
    /// Rows that may have been sent before: as in `queue export`, or, imported, with ids that were given before.
    strayed: u64,
    quarantine: Option<String>,
    /// The preserved original.
    original: Option<String>,
    rejected_file: Option<String>,
    /// What is gone, in detail, as for `repair`.
    loss_manifest: Option<String>,
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

/// Runs `act` with everything around it that a write needs, or with nothing for a plan.
fn with_work(
    context: &mut Context,
    plan: bool,
    act: impl FnOnce(&mut Context, Option<&mut Work>, Option<Detail>) -> Result<Exit, Error>,
) -> Result<Exit, Error> {
    if plan {
        return act(context, None, None);
    }
    let mut work = Work::begin(context)?;
    let done = work.finish_open(context).and_then(|finished| act(context, Some(&mut work), finished));
    work.end(context, done)
}

/// `queue repair`.
pub(super) fn repair(context: &mut Context, database: &Database, plan: bool) -> Result<Exit, Error> {
    with_work(context, plan, |context, work, finished| rebuild(context, database, work, finished))
}

fn rebuild(
    context: &mut Context,
    database: &Database,
    work: Option<&mut Work>,
    finished_before: Option<Detail>,
) -> Result<Exit, Error> {
    let plan = work.is_none();
    not_half_written(context, database)?;
    let (mut found, mut rows) = read(context, database, Scope::Full, true)?;
    if let Some(work) = work
        && (damage(&found).is_some() || !rows.rejected.is_empty())
        && work.quiet(context)?
    {
        not_half_written(context, database)?;
        (found, rows) = read(context, database, Scope::Full, true)?;
    }
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
        loss_manifest: None,
        reasons: reasons(&rows.rejected),
        damage: damage.clone(),
    };
    if found.verdict.structure == StructureVerdict::Unreadable {
        let why = "it cannot be read";
        let advice = "look into the kernel log (dmesg) for errors of the device below";
        return Err(Error::new(ErrorKind::Read, "cannot repair the queue", why, advice).at(&database.path));
    }
    if damage.is_none() && rows.rejected.is_empty() {
        let exit = finished_before.map_or(Exit::OK, |before| tell_finished(&mut report, &before, database));
        return told(context, report, exit);
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

/// A rebuild that an earlier run had begun and this one has finished is told as what it is, with what it left out.
fn tell_finished(report: &mut ReplaceReport, before: &Detail, database: &Database) -> Exit {
    if before.resumed.as_ref().is_none_or(|r| r.database != database.name) {
        return Exit::OK;
    }
    report.action = if before.action.as_deref() == Some("imported") { "imported" } else { "rebuilt" };
    report.loaded = usize::try_from(report.rows).unwrap_or(0);
    report.quarantine = before.quarantine.as_ref().map(|p| p.display().to_string());
    report.rejected_file = before.manifest.as_ref().map(|p| p.display().to_string());
    let lossy = before.completeness == Some(Completeness::Lossy);
    if lossy { Exit::REPAIRED | Exit::LEFT } else { Exit::REPAIRED }
}

fn finished(report: &mut ReplaceReport, done: &Replaced) {
    report.rows = done.rows;
    report.loaded = done.loaded;
    report.rejected = done.rejected.len();
    report.reasons = reasons(&done.rejected);
    report.quarantine = Some(done.quarantine.display().to_string());
    report.original = done.original.as_ref().map(|p| p.display().to_string());
    report.loss_manifest = done.manifest.as_ref().map(|p| p.display().to_string());
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
        print(&format!("  {} rows, places or spans of ids are not in it:", report.rejected));
        report.reasons.iter().for_each(|(why, n)| print(&format!("    {n} x {why}")));
    }
    report.rejected_file.iter().for_each(|f| print(&format!("  they are in {f}")));
    report.loss_manifest.iter().for_each(|f| print(&format!("  what is gone is listed in {f}")));
    report.original.iter().for_each(|f| print(&format!("  the original is kept as {f}")));
    Ok(exit)
}

/// `queue import`.
pub(super) fn import(context: &mut Context, database: &Database, from: &Path, plan: bool) -> Result<Exit, Error> {
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
    with_work(context, plan, |context, work, _| put_in(context, database, parsed, &rejected_file, work))
}

fn put_in(
    context: &mut Context,
    database: &Database,
    parsed: Parsed,
    rejected_file: &Path,
    work: Option<&mut Work>,
) -> Result<Exit, Error> {
    let plan = work.is_none();
    if let Some(work) = work
        && !parsed.items.is_empty()
    {
        work.quiet(context)?;
    }
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
        loss_manifest: None,
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
        left_out = done.rejected;
    }
    if !left_out.is_empty() {
        exit |= Exit::LEFT;
        // Beside the file where that can be written; in quarantine it is in any case.
        match put(context, rejected_file, left_out.iter().map(lines::rejected_line)) {
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
            rejected.push(Rejected { id: item.id, place: "the file".into(), reason, bytes, ..Rejected::default() });
            continue;
        }
        if let Some(id) = item.id {
            known.insert(id, item.clone());
        }
        items.push(item);
    }
    (items, rejected)
}
