//! Candidates that are not folds: indexes built again, rows salvaged into a new database, rows of a backup in its gaps,
//! an empty schema. Works on the preserved files like [`super::stage`], whose gate they all pass.

use std::io;
use std::path::Path;

use serde::Serialize;

use super::outcome::Detail;
use super::saved;
use super::stage::fold_into;
use super::step::Build;
use crate::config::Rung;
use crate::edge::{Machine, SalvageJob, TableGain, durable};
use crate::sqlite::judge::{Candidate, Completeness};
use crate::sqlite::salvage::loss::TableLoss;
use crate::sqlite::salvage::{LostAndFound, Report, TableReport, product, report::PRODUCT};

/// The loss manifest.
#[derive(Serialize)]
struct Manifest<'a> {
    schema: &'static str,
    path: &'a Path,
    tables: &'a [TableLoss],
    lost_and_found: &'a LostAndFound,
    from_backup: &'a [TableGain],
}

/// Writes the loss manifest of a salvage of `path`, durably. What was put in from a backup stands in it too.
pub fn tell(
    machine: &mut dyn Machine,
    (at, path): (&Path, &Path),
    report: &Report,
    gains: &[TableGain],
) -> io::Result<()> {
    let manifest = Manifest {
        schema: "pyvorin-recovery/loss/1",
        path,
        tables: &report.loss,
        lost_and_found: &report.lost_and_found,
        from_backup: gains,
    };
    durable::replace(machine, at, &serde_json::to_vec_pretty(&manifest).map_err(io::Error::other)?)
}

/// Builds one into `staged`. The outer error: could not build; the inner: built and refused, with the reason.
pub fn build(
    machine: &mut dyn Machine,
    build: &Build,
    candidate: &Candidate,
    staged: &Path,
) -> io::Result<Result<Detail, String>> {
    if candidate.rung == Rung::Reindex {
        fold_into(machine, build, &candidate.base, staged)?;
        return Ok(match machine.engine_reindex(staged)? {
            Some(why) => Err(format!("the indexes cannot be built again: {why}")),
            None => Ok(Detail::default()),
        });
    }
    let job = job(machine, build, candidate);
    machine.unlink(staged)?;
    let report = machine.engine_salvage(&job, staged)?;
    if candidate.rung == Rung::Empty {
        return Ok(Ok(Detail::default()));
    }
    let (mut gains, mut from) = (Vec::new(), None);
    if candidate.rung == Rung::Backup && !report.nothing_lost() {
        let Some(copy) = saved::newest_sound(machine, &build.backups) else {
            return Ok(Err("no backup is sound".to_string()));
        };
        gains = machine.engine_merge(staged, &copy, &report.loss)?;
        from = Some(copy);
    }
    let rows = report.tables.iter().map(|t| t.rows).sum::<u64>() + gains.iter().map(|g| g.inserted).sum::<u64>();
    if rows == 0 && !report.nothing_lost() {
        // An empty database is another rung, and another policy.
        return Ok(Err("not one row could be salvaged".to_string()));
    }
    if !report.loss.is_empty() {
        tell(machine, (&build.manifest, &build.path), &report, &gains)?;
    }
    let text = match &from {
        Some(copy) => format!("rows were salvaged; what was lost was taken from {}", copy.display()),
        None => "rows were salvaged".to_string(),
    };
    Ok(Ok(Detail {
        text,
        completeness: (!report.nothing_lost()).then_some(Completeness::Lossy),
        action: Some(if gains.is_empty() { "salvaged" } else { "restored" }.to_string()),
        losses: losses(&report, &gains),
        lost_and_found: report.lost_and_found.rows,
        manifest: (!report.loss.is_empty()).then(|| build.manifest.clone()),
        gained: gains,
        ..Detail::default()
    }))
}

fn job(machine: &dyn Machine, build: &Build, candidate: &Candidate) -> SalvageJob {
    let look = machine.as_look();
    let mut schemas = Vec::new();
    if let Some(kept) = build.schema.as_ref().and_then(|path| saved::read(look, path)) {
        schemas.push(("schema of the last good boot".to_string(), kept));
    }
    for copy in build.backups.iter().filter(|_| candidate.rung == Rung::Backup) {
        schemas.extend(saved::of_database(look, copy).map(|s| ("backup".to_string(), s)));
    }
    if build.product {
        schemas.push((PRODUCT.to_string(), product::store()));
    }
    let empty = candidate.rung == Rung::Empty;
    SalvageJob {
        db: build.source.clone().filter(|_| !empty),
        wal: build.log.clone().filter(|_| !empty),
        shm: build.index.clone().filter(|_| !empty),
        journal: None,
        fold: Some(candidate.base.clone()),
        schemas,
    }
}

/// Rows lost per table once the backup has given what it had.
fn losses(report: &Report, gains: &[TableGain]) -> Vec<TableReport> {
    let gained = |name: &str| gains.iter().find(|g| g.table == name).map_or(0, |g| g.inserted);
    let one = |t: &TableReport| TableReport {
        rows: t.rows + gained(&t.name),
        lost: t.lost.map(|n| n.saturating_sub(gained(&t.name))),
        lost_at_most: t.lost_at_most.map(|n| n.saturating_sub(gained(&t.name))),
        ..t.clone()
    };
    report.tables.iter().map(one).collect()
}
