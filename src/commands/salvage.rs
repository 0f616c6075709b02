//! `salvage DB OUT`: everything recoverable out of any SQLite database into a new one. The database and what stands
//! beside it are only read; the new one appears under its name when it is whole, checked and durable.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Context, print, print_json};
use crate::boot::plan::side;
use crate::boot::{rebuild, saved};
use crate::cli::Salvage;
use crate::edge::{FileKind, Look, Machine, SalvageJob, TableGain};
use crate::error::{Error, ErrorKind, Exit};
use crate::sqlite::check::{self, Scope, Structure, SumKey};
use crate::sqlite::overlay::Overlay;
use crate::sqlite::salvage::{LostAndFound, Report, SavedSchema, TableReport, product, report::PRODUCT};
use crate::sqlite::{header, read_vec};

/// Silence of a long check, in milliseconds.
const TELL_MS: u64 = 10_000;
/// Bytes kept free beside what a salvage needs.
const MARGIN: u64 = 4 << 20;

#[derive(Serialize)]
struct Printed<'a> {
    schema: &'static str,
    exit: u8,
    path: &'a Path,
    out: &'a Path,
    tables: &'a [TableReport],
    lost_and_found: u64,
    lost_and_found_by_reason: &'a LostAndFound,
    from_backup: &'a [TableGain],
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<PathBuf>,
    /// The loss manifest, where something is missing or not provable.
    loss_manifest: Option<PathBuf>,
    integrity_check: &'a [String],
    /// Who judged the new database: our own full check, or the engine where that leaves something to it.
    checked_by: &'static str,
    report: &'a Report,
}

/// Runs it.
pub fn salvage(context: &mut Context, asked: &Salvage) -> Result<Exit, Error> {
    let (db, out) = (asked.db.as_path(), asked.out.as_path());
    let job = job(context, asked)?;
    room(context, &job, out)?;
    let partial = side(out, ".partial");
    let manifest = side(out, ".loss.json");
    for path in [out, partial.as_path(), manifest.as_path()] {
        refuse_existing(context, path)?;
    }
    let done = built(context, asked, &job, &partial);
    let (report, gains, backup, (lines, checked_by)) = match done {
        Ok(done) => done,
        Err(e) => {
            // A file that is not whole must not be taken for a result.
            for path in [partial.clone(), side(&partial, "-journal")] {
                drop(context.machine.unlink(&path));
            }
            return Err(Error::io(ErrorKind::Write, "cannot salvage", db, &e));
        }
    };
    let cannot = |e: std::io::Error| Error::io(ErrorKind::Write, "cannot finish the new database", out, &e);
    finish(context, &partial, out).map_err(cannot)?;
    let whole = report.nothing_lost() && lines == ["ok"];
    let tell_loss = !report.loss.is_empty() || report.lost_and_found.rows > 0;
    if tell_loss {
        rebuild::tell(&mut context.machine, (&manifest, db), &report, &gains).map_err(cannot)?;
    }
    let exit = if whole { Exit::OK } else { Exit::LEFT };
    let printed = Printed {
        schema: "pyvorin-recovery/salvage/1",
        exit: exit.code(),
        path: db,
        out,
        tables: &report.tables,
        lost_and_found: report.lost_and_found.rows,
        lost_and_found_by_reason: &report.lost_and_found,
        from_backup: &gains,
        backup,
        loss_manifest: tell_loss.then_some(manifest),
        integrity_check: &lines,
        checked_by,
        report: &report,
    };
    if context.json {
        print_json(&printed)?;
    } else {
        for line in sentences(&printed) {
            print(&line);
        }
    }
    Ok(exit)
}

type Built = (Report, Vec<TableGain>, Option<PathBuf>, Judged);
/// What is wrong, `["ok"]` for nothing, and whose word that is.
type Judged = (Vec<String>, &'static str);

const OWN: &str = "full check";
const ENGINE: &str = "integrity_check";

fn built(context: &mut Context, asked: &Salvage, job: &SalvageJob, partial: &Path) -> std::io::Result<Built> {
    let machine = &mut context.machine;
    let report = machine.engine_salvage(job, partial)?;
    let mut backup = None;
    let mut gains = Vec::new();
    if let (Some(dir), Some(name)) = (&asked.backup, asked.db.file_name()) {
        let copies = saved::backups(machine.as_look(), dir, name);
        backup = saved::newest_sound(machine, &copies);
        if let Some(from) = &backup {
            gains = machine.engine_merge(partial, from, &report.loss)?;
        }
    }
    let judged = judged(machine, partial)?;
    Ok((report, gains, backup, judged))
}

/// The verdict on the new database. Nothing is replaced by it, so our own full check is enough, at a fifth of the cost of
/// `integrity_check`: it never calls sound what that does not (tests/check_injuries.rs). What it leaves to the engine, and
/// what it finds, the engine is asked about. A repair at boot installs nothing without the engine's word.
fn judged(machine: &mut dyn Machine, staged: &Path) -> std::io::Result<Judged> {
    let own = own_check(machine.as_look(), staged);
    // The texts of the schema, which belong to no table, were the engine's own statements a moment ago.
    let ours = |s: &Structure| s.sound() && !s.out_of_time && s.coverage.for_engine.iter().all(|x| x.table.is_none());
    if own.as_ref().is_ok_and(ours) {
        return Ok((vec!["ok".to_string()], OWN));
    }
    let (lines, _) = machine.engine_check(staged)?;
    match own {
        Ok(s) if lines == ["ok"] && !s.sound() => Ok((s.findings.into_iter().map(|f| f.message).collect(), OWN)),
        _ => Ok((lines, ENGINE)),
    }
}

fn own_check(look: &dyn Look, staged: &Path) -> std::io::Result<Structure> {
    let file = look.open(staged)?;
    let page_size = header::parse(&read_vec(&*file, 0, header::LEN)?)
        .map_err(|_| std::io::Error::other("it has no header"))?
        .page_size;
    let mut told = look.uptime_ms();
    check::check_keyed(
        &Overlay::alone(&*file, page_size),
        Scope::Full,
        SumKey(look.secret()),
        look.crew(),
        &mut |done, pages| {
            if look.uptime_ms().saturating_sub(told) >= TELL_MS {
                told = look.uptime_ms();
                look.progress(&format!("checked {done} of {pages} pages of the new database"));
            }
            true
        },
    )
}

fn finish(context: &mut Context, partial: &Path, out: &Path) -> std::io::Result<()> {
    let machine = &mut context.machine;
    machine.sync_file(partial)?;
    // A link, not a rename: what has appeared under the name in the meantime is not overwritten.
    machine.link(partial, out)?;
    machine.unlink(partial)?;
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    machine.sync_dir(parent)
}

fn job(context: &Context, asked: &Salvage) -> Result<SalvageJob, Error> {
    let look = context.machine.as_look();
    let db = asked.db.as_path();
    let present = |path: &Path| -> Result<Option<PathBuf>, Error> {
        match look.stat(path) {
            Ok(Some(s)) if s.kind == FileKind::File && s.len > 0 => Ok(Some(path.to_path_buf())),
            Ok(_) => Ok(None),
            Err(e) => Err(Error::io(ErrorKind::Read, "cannot look at the database", path, &e)),
        }
    };
    let wal = present(&side(db, "-wal"))?;
    let found = present(db)?;
    if found.is_none() && wal.is_none() {
        let why = "it does not exist, is empty, or is not a regular file, and no log stands beside it";
        return Err(Error::new(ErrorKind::Read, "cannot salvage", why, "check the path").at(db));
    }
    let mut schemas = Vec::new();
    if let Some(file) = &asked.schema {
        schemas.push(("the schema file".to_string(), schema_file(look, file)?));
    }
    for (name, path) in saved::records(look, &context.settings, db) {
        schemas.extend(saved::read(look, &path).map(|s| (name, s)));
    }
    if let (Some(dir), Some(name)) = (&asked.backup, db.file_name()) {
        for path in saved::backups(look, dir, name) {
            schemas.extend(saved::of_database(look, &path).map(|s| ("backup".to_string(), s)));
        }
    }
    schemas.push((PRODUCT.to_string(), product::store()));
    Ok(SalvageJob {
        db: found,
        wal,
        shm: present(&side(db, "-shm"))?,
        journal: present(&side(db, "-journal"))?,
        fold: None,
        schemas,
    })
}

fn schema_file(look: &dyn Look, path: &Path) -> Result<SavedSchema, Error> {
    saved::schema_file(look, path).map_err(|e| {
        let advice = "give CREATE statements as text, a schema record of a gateway, or a database with that schema";
        Error::new(ErrorKind::Read, "cannot use the schema file", e.to_string(), advice).at(path)
    })
}

fn refuse_existing(context: &Context, path: &Path) -> Result<(), Error> {
    match context.machine.stat(path) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => {
            let why = "something has this name already, and nothing is overwritten";
            Err(Error::new(ErrorKind::Refused, "cannot write the new database", why, "choose another OUT").at(path))
        }
        Err(e) => Err(Error::io(ErrorKind::Write, "cannot write the new database", path, &e)),
    }
}

/// The rows, their indexes, and what the sorter of an index spills: no more than the old files and half of that.
fn room(context: &Context, job: &SalvageJob, out: &Path) -> Result<(), Error> {
    let len = |path: &Option<PathBuf>| {
        path.as_ref().and_then(|p| context.machine.stat(p).ok().flatten()).map_or(0, |s| s.len)
    };
    let need = (len(&job.db) + len(&job.wal)).saturating_mul(3) / 2 + MARGIN;
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let free = context
        .machine
        .free_bytes(parent)
        .map_err(|e| Error::io(ErrorKind::Write, "cannot write the new database", parent, &e))?;
    if free < need {
        let why = format!("{} MiB are free and {} MiB may be needed", free >> 20, need.div_ceil(1 << 20));
        let advice = "free some space, or name an OUT on another volume";
        return Err(Error::new(ErrorKind::Refused, "cannot write the new database", why, advice).at(parent));
    }
    Ok(())
}

fn sentences(p: &Printed<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for t in p.tables {
        lines.push(match (t.lost, t.lost_at_most) {
            (Some(0), _) => format!("{}: {} rows, none lost.", t.name, t.rows),
            (Some(n), _) => format!("{}: {} rows, {n} lost.", t.name, t.rows),
            (None, Some(n)) => format!("{}: {} rows, at most {n} lost.", t.name, t.rows),
            (None, None) => format!("{}: {} rows; how many are lost cannot be told.", t.name, t.rows),
        });
        if t.not_provable > 0 {
            lines.push(format!("  {} of them stand on damaged pages and cannot be proved.", t.not_provable));
        }
    }
    lines.extend(p.from_backup.iter().map(|g| {
        format!("{}: {} rows were put in from the backup; they may have been changed since.", g.table, g.inserted)
    }));
    if p.lost_and_found > 0 {
        lines.push(format!("{} rows without a table are in lost_and_found.", p.lost_and_found));
    }
    if p.lost_and_found_by_reason.not_provable > 0 {
        let n = p.lost_and_found_by_reason.not_provable;
        lines.push(format!(
            "  {n} of them may have been deleted: the list of freed pages is lost (class not-provable)."
        ));
    }
    if p.lost_and_found_by_reason.older_state > 0 {
        let n = p.lost_and_found_by_reason.older_state;
        lines.push(format!("  {n} of them stand in the log, on pages older than those that are gone."));
    }
    if p.report.donors_used > 0 {
        let n = p.report.donors_used;
        lines.push(format!(
            "{n} lost pages were whole in the log, proved to be the last ones written; their rows are in."
        ));
    }
    if p.report.schema_from.is_empty() {
        lines.push("No schema was found; give one with --schema FILE.".to_string());
    } else {
        lines.push(format!("The schema came from: {}.", p.report.schema_from.join(", ")));
    }
    lines.extend(p.report.not_made.iter().map(|why| format!("Could not be made: {why}.")));
    lines.extend(p.report.not_understood.iter().map(|name| format!("The statement of {name} was not understood.")));
    lines.extend(p.loss_manifest.iter().map(|m| format!("What is missing is listed in {}.", m.display())));
    if p.integrity_check != ["ok"] {
        lines.push(format!("{} of the new database: {}.", p.checked_by, p.integrity_check.join("; ")));
    }
    lines
}
