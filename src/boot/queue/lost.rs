//! What a rebuild cannot bring back, by id: rows that an index still names and no page holds, and ids that may have been
//! rows of damaged pages. Worked out by the salvage from the preserved originals. It stands in full in the loss manifest
//! beside them, and every id of it among the rejected, so that one file accounts for every row of the old queue.

use std::io;
use std::path::{Path, PathBuf};

use super::{DOCUMENTED_NAME, SCHEMA, in_pages};
use crate::boot::table;
use crate::config::Database;
use crate::edge::engine::schema_of_sql;
use crate::edge::{Machine, SalvageJob, durable};
use crate::queue::{Item, MAX_ID, Rejected, TABLE};
use crate::sqlite::overlay::Fold;
use crate::sqlite::salvage::loss::TableLoss;
use crate::sqlite::salvage::spans::Spans;
use crate::sqlite::salvage::{Facts, SavedSchema};

/// What the salvage of the originals tells.
#[derive(Default)]
pub(super) struct Gone {
    /// The loss of the queue's table; `None`: nothing is missing.
    loss: Option<Box<TableLoss>>,
    /// Why that could not be worked out.
    unknown: Option<String>,
    /// Rows that it found.
    rows: Vec<Item>,
    /// Those that cannot be sent.
    invalid: Vec<Rejected>,
}

/// The files that are looked at: database, -wal, -shm, as far as they are there.
pub(super) type Files = [Option<PathBuf>; 3];

/// What the salvage tells of `files`; the loss goes into a manifest too, where one is wanted. The rows that were read
/// are there whatever becomes of it, so a failure is said and stops nothing.
pub(super) fn tell(
    machine: &mut dyn Machine,
    database: &Database,
    fold: &Fold,
    files: Files,
    manifest: Option<&Path>,
    scratch: &Path,
) -> Gone {
    let written = write(machine, database, fold, files, manifest, scratch);
    let tidied = machine.unlink(scratch);
    match written.and_then(|gone| tidied.map(|()| gone)) {
        Ok(gone) => gone,
        Err(e) => {
            log::warn!("{}: what is missing cannot be listed by id: {e}", database.path.display());
            Gone { unknown: Some(e.to_string()), ..Gone::default() }
        }
    }
}

fn write(
    machine: &mut dyn Machine,
    database: &Database,
    fold: &Fold,
    files: Files,
    manifest: Option<&Path>,
    scratch: &Path,
) -> io::Result<Gone> {
    machine.unlink(scratch)?;
    let entries = schema_of_sql(&(SCHEMA.join(";\n") + ";"))?;
    let [db, wal, shm] = files;
    let job = SalvageJob {
        db,
        wal,
        shm,
        journal: None,
        fold: Some(fold.clone()),
        schemas: vec![(DOCUMENTED_NAME.to_string(), SavedSchema { facts: Facts::default(), entries })],
    };
    let report = machine.engine_salvage(&job, scratch)?;
    // The result is a sound database, which its own reader reads.
    let fold = Fold::nothing(report.page_size);
    let found = table::with_pages(machine.as_look(), scratch, &fold, &mut |pages| in_pages(pages, false))?;
    let (rows, mut invalid) = (found.items, found.rejected);
    invalid.iter_mut().for_each(|r| r.place = "rows that the salvage put together".to_string());
    if !report.tables.iter().any(|t| t.name.eq_ignore_ascii_case(TABLE)) {
        return Err(io::Error::other("the statement that made its table is damaged"));
    }
    if report.loss.is_empty() {
        return Ok(Gone { rows, invalid, ..Gone::default() });
    }
    if let Some(manifest) = manifest {
        let listed = serde_json::json!({
            "schema": "pyvorin-recovery/loss/1",
            "path": database.path,
            "tables": report.loss,
            "lost_and_found": report.lost_and_found,
            "from_backup": [],
        });
        durable::replace(machine, manifest, &serde_json::to_vec_pretty(&listed).map_err(io::Error::other)?)?;
    }
    let loss = report.loss.into_iter().find(|t| t.table.eq_ignore_ascii_case(TABLE)).map(Box::new);
    Ok(Gone { loss, unknown: None, rows, invalid })
}

/// Ids that are accounted for, by rows that go in and by lines of their own.
fn told(items: &[Item], rejected: &[Rejected]) -> Spans {
    let told = items.iter().map(|i| i.id).chain(rejected.iter().map(|r| r.id)).flatten();
    Spans::from(told.map(|id| (id, id)).collect())
}

impl Gone {
    /// Rows that the queue's own reader did not find, such as those on the part of a page where the file was cut off.
    pub(super) fn more(&self, items: &[Item], rejected: &[Rejected]) -> Vec<Item> {
        let told = told(items, rejected);
        self.rows.iter().filter(|r| r.id.is_some_and(|id| !told.has(id))).cloned().collect()
    }

    /// A line for every span of ids that is gone, or may be, and is accounted for nowhere else.
    pub(super) fn lines(&self, items: &[Item], rejected: &[Rejected]) -> Vec<Rejected> {
        let line = |place: &str, (first, last): (i64, Option<i64>), reason: &str| Rejected {
            ids: Some((first, last)),
            place: place.to_string(),
            reason: reason.to_string(),
            ..Rejected::default()
        };
        if let Some(why) = &self.unknown {
            let reason = format!("which rows are gone could not be worked out: {why}");
            return vec![line("the original", (1, None), &reason)];
        }
        let known = told(items, rejected);
        let invalid = self.invalid.iter().filter(|r| r.id.is_some_and(|id| !known.has(id)));
        let mut all: Vec<Rejected> = invalid.cloned().collect();
        let Some(loss) = &self.loss else { return all };
        let index = format!("index {}", loss.named_by.join(", "));
        let named = loss.named.without(&known);
        let possible = loss.possible.without(&known).without(&loss.named);
        let why = "an index names it, and the page that held it is damaged";
        all.extend(named.intervals().iter().map(|(first, last)| line(&index, (*first, Some(*last)), why)));
        all.extend(possible.intervals().iter().map(|(first, last)| {
            let last = Some(*last).filter(|id| *id <= MAX_ID);
            line("a damaged page", (*first, last), "a row with such an id may have been on a damaged page")
        }));
        if all.is_empty() && loss.lost.is_none() {
            all.push(line("the original", (1, None), "nothing says how many rows its damaged pages held"));
        }
        all
    }
}
