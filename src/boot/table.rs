//! One table of one supervised database, read raw: whatever its state, without the engine, without a write.
//!
//! The database is looked at by [`sense`], judged by [`assess`], and read as the best candidate would have it: with the
//! frames that SQLite would replay, or those that the judge accepts where the log is damaged. A database that is written
//! to meanwhile is read again, a few times.

use std::io;
use std::path::Path;

use super::assess::{self, DatabaseVerdict};
use super::plan::side;
use super::sense::{self, Request};
use crate::config::{Database, Settings};
use crate::edge::{Look, Stat};
use crate::sqlite::ReadAt;
use crate::sqlite::check::{SchemaEntry, Scope};
use crate::sqlite::header::Header;
use crate::sqlite::observe::WalEvidence;
use crate::sqlite::overlay::{Fold, Overlay};
use crate::sqlite::rows::{self, Claimed, Column, Raw, Unread};
use crate::sqlite::{check, schema, wal};

/// Looks before a live database is called moving.
const LOOKS: u32 = 5;
/// Pages that may be missing before one that the log holds.
const MAX_HOLE: u32 = 1 << 20;

/// A database as found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Verdict.
    pub verdict: DatabaseVerdict,
    /// Frames laid over the file.
    pub fold: Fold,
    /// A later commit with a hole in it: only rows above those of `fold` are taken from it.
    pub extras: Option<Fold>,
}

/// Looks at one database. `holders`: also at who has it open.
pub fn find(
    look: &dyn Look,
    settings: &Settings,
    database: &Database,
    scope: Scope,
    by: &str,
    holders: bool,
) -> io::Result<Found> {
    let mut narrow = settings.clone();
    narrow.databases = vec![database.clone()];
    let request = Request { scope: Some(scope), holders, ..Request::new(&narrow, by) };
    let evidence = sense::data(look, &request);
    let assessed = assess::assess(&evidence);
    let facts = evidence.databases.first().map(|d| (d.wal.clone(), d.header.clone()));
    let page_size = facts.as_ref().and_then(|(_, h)| h.clone()).and_then(Result::ok).map_or(4096, |h| h.page_size);
    let committed = match facts.map(|(w, _)| w) {
        Some(WalEvidence::Present(f)) if f.committed > 0 => f.fold(),
        _ => Fold::nothing(page_size),
    };
    let verdict = assessed.databases.into_iter().next();
    let verdict = verdict.ok_or_else(|| io::Error::other("the database cannot be looked at"))?;
    let candidate = verdict.log.candidates.first().cloned();
    let (fold, extras) = candidate.map_or((committed, None), |c| (c.base, c.extras));
    Ok(Found { verdict, fold, extras })
}

/// A table with what is needed to read it.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its schema entry.
    pub entry: SchemaEntry,
    /// Columns in the order of the records.
    pub columns: Vec<Column>,
    /// Header of the database.
    pub header: Header,
    /// All schema entries.
    pub schema: Vec<SchemaEntry>,
}

impl Table {
    /// Page size without the reserved bytes.
    #[must_use]
    pub fn usable(&self) -> u32 {
        self.header.page_size.saturating_sub(u32::from(self.header.reserved))
    }

    /// Place of a column in the record.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name))
    }
}

/// Finds a rowid table by its name; the inner error says why it cannot be read as one.
pub fn table(source: &Overlay<'_>, name: &str) -> io::Result<Result<Table, String>> {
    let structure = check::check(source, Scope::Quick, &mut || true)?;
    let Some(header) = structure.header else {
        return Ok(Err("the file has no header of a database".to_string()));
    };
    let is_it = |e: &&SchemaEntry| e.kind == "table" && e.name.eq_ignore_ascii_case(name);
    let Some(entry) = structure.schema.iter().find(is_it).cloned() else {
        return Ok(Err(format!("there is no table {name}")));
    };
    let columns = match schema::table(&entry.sql) {
        Ok(table) if table.without_rowid => return Ok(Err(format!("{name} is a table without rowids"))),
        Ok(table) => rows::columns(&table),
        Err(why) => return Ok(Err(format!("the schema of {name} is not understood: {}", why.0))),
    };
    Ok(Ok(Table { entry, columns, header, schema: structure.schema }))
}

/// Gives every row of a table to `visit`, in order of rowid; a place that cannot be read is a row without values.
/// `claimed` gains every page of the table.
pub fn each(source: &Overlay<'_>, table: &Table, claimed: &mut Claimed, visit: &mut dyn FnMut(Raw)) -> io::Result<()> {
    for place in rows::leaves(source, table.entry.root, table.usable(), claimed)? {
        match place {
            Ok(page) => {
                let rows = rows::rows(source, page, table.usable(), table.header.encoding, &table.columns, claimed)?;
                rows.into_iter().for_each(&mut *visit);
            }
            Err(Unread { page, why }) => visit(Raw { rowid: None, page, cells: Err(why), bytes: Vec::new() }),
        }
    }
    Ok(())
}

/// Opens a database with a fold of its log and hands its pages to `read`.
pub fn with_pages<R>(
    look: &dyn Look,
    location: &Path,
    fold: &Fold,
    read: &mut dyn FnMut(&Overlay<'_>) -> io::Result<R>,
) -> io::Result<R> {
    let db = match look.stat(location)? {
        Some(_) => Some(look.open(location)?),
        None => None,
    };
    let db = db.as_deref().filter(|f| f.size() > 0);
    if fold.upto == 0 {
        return match db {
            Some(db) => read(&Overlay::alone(db, fold.page_size)),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "the file is missing or empty")),
        };
    }
    let log = look.open(&side(location, "-wal"))?;
    let scan = wal::scan(&*log, Some(fold.page_size))?;
    let commit = |stored: u32| fold.mend(fold.upto).map_or(stored, |m| m.commit);
    if scan.frame(fold.upto).map(|f| (f.stored, commit(f.commit))) != Some((fold.sum, fold.pages)) {
        return Err(moved());
    }
    let mut pages = Overlay::folded(db.map(|d| d as &dyn ReadAt), &*log, &scan, fold);
    // Rows on a page that the log holds are not lost because pages before it are. A log may claim any number, and work
    // and memory go by it.
    if pages.highest_image() <= pages.pages.saturating_add(MAX_HOLE) {
        pages.pages = pages.pages.max(pages.highest_image());
    }
    read(&pages)
}

/// Looks at a database and reads from it, again when it moved meanwhile.
pub fn read<R>(
    look: &dyn Look,
    database: &Database,
    find: &mut dyn FnMut() -> io::Result<Found>,
    read: &mut dyn FnMut(&Found, &Overlay<'_>) -> io::Result<R>,
) -> io::Result<(Found, R)> {
    let stats = || -> io::Result<Vec<Option<Stat>>> {
        ["", "-wal"].iter().map(|s| look.stat(&side(&database.location, s))).collect()
    };
    for _ in 0..LOOKS {
        let before = stats()?;
        let found = find()?;
        let done = with_pages(look, &database.location, &found.fold, &mut |pages| read(&found, pages));
        if stats()? == before {
            return done.map(|r| (found, r));
        }
    }
    Err(moved())
}

fn moved() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "it is being written to; stop the agent, or try again")
}
