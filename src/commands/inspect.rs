//! `inspect`: the facts of one database, read from its bytes. What a pilot user sends in.

use std::path::Path;

use serde::Serialize;

use super::{Context, print, print_json};
use crate::boot::evidence::FileFact;
use crate::boot::{assess, report, sense};
use crate::edge::Machine;
use crate::error::{Error, Exit};
use crate::sqlite::check::SchemaEntry;
use crate::sqlite::header::Header;
use crate::sqlite::observe::ShmState;

/// `inspect --json`.
#[derive(Serialize)]
struct Inspection {
    schema: &'static str,
    exit: u8,
    file: FileFact,
    /// The header in the file.
    header: Option<Header>,
    /// The header that SQLite sees, with the log laid over it.
    effective_header: Option<Header>,
    /// The wal-index hint, without its list of pages.
    shm: Option<(u32, u32, u32)>,
    tables: Vec<SchemaEntry>,
    verdict: report::DatabaseReport,
}

/// Prints the facts; changes nothing.
pub fn inspect(context: &Context, database: &Path) -> Result<Exit, Error> {
    let named = [database.to_path_buf()];
    let settings = super::check::narrowed(&context.settings, &named);
    let request = sense::Request::new(&settings, &context.by);
    let found = sense::data(context.machine.as_look(), &request);
    let mut assessed = assess::assess(&found);
    let mut exit = report::check_exit(&assessed.databases);
    let (Some(evidence), Some(verdict)) = (found.databases.into_iter().next(), assessed.databases.pop()) else {
        let why = assessed.data_fault.unwrap_or_else(|| "nothing was found".to_string());
        let advice = "check the path, and --root if one was given";
        return Err(Error::new(crate::error::ErrorKind::Read, "cannot inspect", why, advice).at(database));
    };
    if evidence.file == FileFact::Missing {
        exit |= Exit::LEFT;
    }
    let structure = evidence.structure;
    let shm = if let ShmState::Valid(h) = &evidence.shm { Some((h.max_frame, h.backfilled, h.pages)) } else { None };
    let whole = Inspection {
        schema: "pyvorin-recovery/inspect/1",
        exit: exit.code(),
        file: evidence.file,
        header: evidence.header.and_then(Result::ok),
        effective_header: structure.as_ref().and_then(|s| s.header.clone()),
        shm,
        tables: structure.map(|s| s.schema).unwrap_or_default(),
        verdict: report::verdict(&verdict),
    };
    if context.json {
        print_json(&whole)?;
    } else {
        words(&whole);
    }
    Ok(exit)
}

fn words(i: &Inspection) {
    for line in report::sentences(&i.verdict) {
        print(&line);
    }
    if let Some(h) = &i.effective_header {
        let mode = if h.wal_mode { "WAL" } else { "rollback journal" };
        print(&format!(
            "  page size {}, {} pages, {mode} mode, schema cookie {}, user_version {}, application_id {}, written by SQLite {}",
            h.page_size, i.verdict.pages, h.schema_cookie, h.user_version, h.application_id, h.writer_version
        ));
    }
    let w = &i.verdict.wal;
    print(&format!(
        "  log: {} frames, {} committed, {} verified behind damage",
        w.frames, w.committed_frames, w.resyncable_frames
    ));
    for t in i.tables.iter().filter(|t| t.kind == "table" || t.kind == "index") {
        let rows = t.entries.map_or("not counted".to_string(), |n| n.to_string());
        print(&format!("  {} {}: {rows} entries", t.kind, t.name));
    }
}
