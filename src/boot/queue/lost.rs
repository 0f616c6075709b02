//! What a rebuild cannot bring back, by id: rows that an index still names and no page holds, and ids that may have been
//! rows of damaged pages. Worked out by the salvage from the preserved originals, and written beside them.

use std::io;
use std::path::Path;

use super::{DOCUMENTED_NAME, SCHEMA};
use crate::boot::plan::{MANIFEST, side};
use crate::config::Database;
use crate::edge::engine::schema_of_sql;
use crate::edge::{Machine, SalvageJob, durable};
use crate::sqlite::overlay::Fold;
use crate::sqlite::salvage::{Facts, SavedSchema};

/// Writes the loss manifest. The rows are in the new queue whatever becomes of it, so a failure is said and stops nothing.
pub(super) fn tell(machine: &mut dyn Machine, database: &Database, fold: &Fold, into: &Path, stage: &Path) {
    let scratch = stage.join("lost.db");
    let written = write(machine, database, fold, into, &scratch);
    let tidied = machine.unlink(&scratch);
    if let Err(e) = written.and(tidied) {
        log::warn!("{}: what is missing cannot be listed by id: {e}", database.path.display());
    }
}

fn write(machine: &mut dyn Machine, database: &Database, fold: &Fold, into: &Path, scratch: &Path) -> io::Result<()> {
    machine.unlink(scratch)?;
    let kept = |suffix: &str| {
        let path = into.join(side(&database.location, suffix).file_name()?);
        matches!(machine.stat(&path), Ok(Some(_))).then_some(path)
    };
    let entries = schema_of_sql(&(SCHEMA.join(";\n") + ";"))?;
    let job = SalvageJob {
        db: kept(""),
        wal: kept("-wal"),
        shm: kept("-shm"),
        journal: None,
        fold: Some(fold.clone()),
        schemas: vec![(DOCUMENTED_NAME.to_string(), SavedSchema { facts: Facts::default(), entries })],
    };
    let report = machine.engine_salvage(&job, scratch)?;
    if report.loss.is_empty() {
        return Ok(());
    }
    let manifest = serde_json::json!({
        "schema": "pyvorin-recovery/loss/1",
        "path": database.path,
        "tables": report.loss,
        "lost_and_found": report.lost_and_found,
        "from_backup": [],
    });
    durable::replace(machine, &into.join(MANIFEST), &serde_json::to_vec_pretty(&manifest).map_err(io::Error::other)?)
}
