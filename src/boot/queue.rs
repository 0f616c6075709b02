//! The queue on this machine: its rows read raw, whatever the state of the file, and the one operation that replaces it.
//!
//! The operation runs on the intent journal like every repair: originals preserved, the new database built in staging and
//! gated by the engine, PREPARED, COMMIT, swap. Rows that cannot go into it are written, with the reason, beside the
//! preserved originals before COMMIT. A cut anywhere leaves the old queue or the new one after the next boot.

mod lost;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::act::{make_dirs, preserve, sha256, side_files};
use super::assess::StructureVerdict;
use super::install;
use super::outcome::{Detail, Resumed};
use super::plan::{MANIFEST, side};
use super::stage::{discard, fold_copy};
use super::table::{self, Found, Table};
use crate::config::{Database, DatabaseKind, Settings};
use crate::edge::engine::queue::{Facts, Load};
use crate::edge::{Look, Machine, TableRows, durable};
use crate::journal::{self, Intent, Phase, QUARANTINE, STAGE, Target};
use crate::queue::{COLUMNS, Item, MAX_ID, Rejected, SCHEMA, TABLE, item, lines};
use crate::sqlite::check::{SchemaEntry, Scope};
use crate::sqlite::judge::Completeness;
use crate::sqlite::overlay::{Fold, Overlay};
use crate::sqlite::rows::{self, Cell, Claimed, Column, Raw};
use crate::sqlite::schema::{self, described};

/// Bytes kept free beside what a rebuild needs.
const MARGIN: u64 = 4 << 20;
/// Facts of a queue whose own header is lost: what the agent's SQLite makes by default.
pub const DOCUMENTED: Facts =
    Facts { page_size: 4096, wal: true, auto_vacuum: 0, encoding: 1, user_version: 0, application_id: 0 };
/// Name of the documented schema, as the source of one.
const DOCUMENTED_NAME: &str = "documented queue";
/// Name, in quarantine, of what could not go into the new queue.
pub const REJECTED: &str = "rejected.jsonl";

/// The configured queue.
#[must_use]
pub fn configured(settings: &Settings) -> Option<&Database> {
    settings.databases.iter().find(|d| d.kind == DatabaseKind::Queue)
}

/// The rows of a queue, and what a rebuild must know of it.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Rows that can be sent, each id once.
    pub items: Vec<Item>,
    /// Everything else that was found.
    pub rejected: Vec<Rejected>,
    /// Of the items, those on pages to which no page of the tree leads any more.
    pub strayed: u64,
    /// Highest id ever given.
    pub sequence: i64,
    /// Why there is no table to read, where there is none.
    pub absent: Option<String>,
    /// Statements of its own schema; empty when it is lost.
    pub create: Vec<String>,
    /// Tables that are not the queue's.
    pub others: Vec<String>,
    /// Facts of its header, where it has one.
    pub facts: Option<Facts>,
}

/// Reads the queue as the best candidate would have it. `stray`: also look on pages that no tree leads to.
pub fn read(
    look: &dyn Look,
    settings: &Settings,
    database: &Database,
    scope: Scope,
    stray: bool,
) -> io::Result<(Found, Rows)> {
    let find = || table::find(look, settings, database, scope, "unattended", true);
    if look.stat(&database.location)?.is_none_or(|s| s.len == 0) {
        let found = find()?;
        if found.fold.upto == 0 {
            let absent = Some("the file is missing or empty".to_string());
            return Ok((found, Rows { absent, ..Rows::default() }));
        }
    }
    if look.stat(&database.location)?.is_some() {
        let found = find()?;
        if found.verdict.page_size == 0 && found.fold.upto == 0 {
            return without_header(look, database, found);
        }
    }
    let (found, mut rows) = table::read(look, database, &mut || find(), &mut |found, pages| {
        let damaged = found.verdict.structure != StructureVerdict::Sound;
        in_pages(pages, stray && damaged)
    })?;
    if let Some(extras) = &found.extras {
        // A later commit with a hole in it: only rows that the exact one cannot have yet.
        let highest = rows.items.iter().filter_map(|i| i.id).max().unwrap_or(0).max(rows.sequence);
        let later = table::with_pages(look, &database.location, extras, &mut |pages| in_pages(pages, false))?;
        rows.items.extend(later.items.into_iter().filter(|i| i.id.is_some_and(|id| id > highest)));
    }
    Ok((found, rows))
}

/// Page sizes of the file format.
const PAGE_SIZES: [u32; 8] = [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];

/// A file whose header is lost does not say how long its pages are: the size that gives most rows is taken.
fn without_header(look: &dyn Look, database: &Database, mut found: Found) -> io::Result<(Found, Rows)> {
    let mut best = Rows::default();
    for page_size in PAGE_SIZES {
        let fold = Fold::nothing(page_size);
        let rows = table::with_pages(look, &database.location, &fold, &mut |pages| in_pages(pages, true))?;
        if rows.items.len() > best.items.len() || best.absent.is_none() && best.items.is_empty() {
            best = rows;
            best.facts = Some(Facts { page_size, ..DOCUMENTED }).filter(|_| !best.items.is_empty());
            found.fold = fold;
        }
    }
    Ok((found, best))
}

fn in_pages(pages: &Overlay<'_>, stray: bool) -> io::Result<Rows> {
    let mut result = Rows::default();
    let mut claimed = Claimed::none(pages.pages);
    claimed.claim(1);
    let mut seen = Seen::default();
    let table = table::table(pages, TABLE)?;
    if let Ok(table) = &table {
        facts(table, &mut result);
        table::each(pages, table, &mut claimed, &mut |raw| seen.take(&raw, &table.columns, &mut result, false))?;
        result.sequence = sequence(pages)?.max(seen.highest);
        // Pages of other tables hold no rows of the queue. What hangs below one of SQLite's own may, where roots were
        // exchanged: no row of theirs looks like one of the queue's.
        let other = |e: &&SchemaEntry| e.kind == "table" && e.root > 0 && !e.name.to_lowercase().starts_with("sqlite_");
        for entry in table.schema.iter().filter(other) {
            rows::leaves(pages, entry.root, table.usable(), &mut claimed)?;
        }
    }
    if stray || table.is_err() {
        let columns = table.as_ref().map_or_else(|_| documented(), |t| t.columns.clone());
        let known = table.as_ref().ok();
        let usable = known.map_or(pages.page_size, Table::usable);
        let encoding = known.map_or(1, |t| t.header.encoding);
        let head = known.map_or(0, |t| t.header.freelist_head);
        let free = rows::free_pages(pages, head, usable)?;
        for page in (2..=pages.pages).filter(|p| !free.has(*p)) {
            if claimed.has(page) {
                continue;
            }
            let found = rows::rows(pages, page, usable, encoding, &columns, &mut claimed)?;
            // A page is the queue's when one row on it can be sent; what else stands on it is then the queue's too.
            if found.iter().any(|raw| seen.row(raw, &columns).is_ok()) {
                found.iter().for_each(|raw| seen.take(raw, &columns, &mut result, true));
            }
        }
        result.sequence = result.sequence.max(seen.highest);
    }
    result.absent = table.err().filter(|_| result.items.is_empty());
    Ok(result)
}

/// Ids that were taken, with the place of the item.
#[derive(Default)]
struct Seen {
    ids: BTreeMap<i64, usize>,
    highest: i64,
}

impl Seen {
    fn row(&self, raw: &Raw, columns: &[Column]) -> Result<Item, String> {
        let cells = raw.cells.as_ref().map_err(Clone::clone)?;
        item(Some(raw.rowid.ok_or("it has no id")?), &named(columns, cells))
    }

    fn take(&mut self, raw: &Raw, columns: &[Column], into: &mut Rows, stray: bool) {
        let reason = match self.row(raw, columns) {
            Ok(item) => {
                let id = item.id.unwrap_or(0);
                match self.ids.get(&id).and_then(|i| into.items.get(*i)) {
                    None => {
                        self.ids.insert(id, into.items.len());
                        self.highest = self.highest.max(id);
                        into.strayed += u64::from(stray);
                        into.items.push(item);
                        return;
                    }
                    // Pages that were split or freed keep copies of rows.
                    Some(known) if *known == item => return,
                    Some(_) => format!("another row has the id {id}"),
                }
            }
            Err(why) => why,
        };
        let values = raw.cells.as_ref().map(|cells| named(columns, cells)).unwrap_or_default();
        self.highest = self.highest.max(raw.rowid.filter(|id| *id <= MAX_ID && !values.is_empty()).unwrap_or(0));
        let place = format!("page {}", raw.page);
        let bytes = raw.bytes.clone();
        into.rejected.push(Rejected { id: raw.rowid, place, reason, values, bytes, ..Rejected::default() });
    }
}

fn named(columns: &[Column], cells: &[Cell]) -> Vec<(String, Cell)> {
    columns.iter().filter(|c| !c.rowid).map(|c| c.name.clone()).zip(without_rowid(columns, cells)).collect()
}

fn without_rowid(columns: &[Column], cells: &[Cell]) -> Vec<Cell> {
    columns.iter().zip(cells).filter(|(c, _)| !c.rowid).map(|(_, cell)| cell.clone()).collect()
}

fn documented() -> Vec<Column> {
    SCHEMA.first().and_then(|sql| schema::table(sql).ok()).map(|t| rows::columns(&t)).unwrap_or_default()
}

fn facts(table: &Table, into: &mut Rows) {
    let h = &table.header;
    into.facts = Some(Facts {
        page_size: h.page_size,
        wal: h.wal_mode,
        auto_vacuum: match (h.largest_root, h.incremental_vacuum) {
            (0, _) => 0,
            (_, 0) => 1,
            _ => 2,
        },
        encoding: h.encoding,
        user_version: h.user_version.cast_signed(),
        application_id: h.application_id.cast_signed(),
    });
    let own = |name: &str| name.eq_ignore_ascii_case(TABLE);
    into.others = table
        .schema
        .iter()
        .filter(|e| e.kind == "table" && !own(&e.name) && !e.name.to_lowercase().starts_with("sqlite_"))
        .map(|e| e.name.clone())
        .collect();
    // Its text may be damaged where the row that holds it reads well: it must make the table that it is kept for.
    let named = schema::table(&table.entry.sql).is_ok_and(|t| own(&t.name));
    if named && COLUMNS.iter().all(|c| table.column(c).is_some()) {
        let rest = |e: &&SchemaEntry| {
            let makes = |e: &SchemaEntry| described(&e.sql).is_some_and(|d| d.name.eq_ignore_ascii_case(&e.name));
            e.kind != "table" && own(&e.table) && makes(e)
        };
        into.create = std::iter::once(table.entry.sql.clone())
            .chain(table.schema.iter().filter(rest).map(|e| e.sql.clone()))
            .collect();
    }
}

/// The mark of AUTOINCREMENT, 0 where there is none.
fn sequence(pages: &Overlay<'_>) -> io::Result<i64> {
    let Ok(table) = table::table(pages, "sqlite_sequence")? else { return Ok(0) };
    let mut highest = 0;
    table::each(pages, &table, &mut Claimed::none(pages.pages), &mut |raw| {
        if let Ok([Cell::Text(name), Cell::Integer(seq), ..]) = raw.cells.as_deref()
            && name.eq_ignore_ascii_case(TABLE.as_bytes())
            && *seq <= MAX_ID
        {
            highest = highest.max(*seq);
        }
    })?;
    Ok(highest)
}

/// Those of a database's files that are there, wherever they are kept.
fn present(machine: &dyn Machine, kept: impl Fn(&str) -> Option<PathBuf>) -> lost::Files {
    ["", "-wal", "-shm"].map(|suffix| kept(suffix).filter(|path| matches!(machine.stat(path), Ok(Some(_)))))
}

/// Adds what the page salvage brings out of a damaged queue beyond the rows that were read, and what it says is gone.
/// `scratch` is written and removed.
pub fn salvage(machine: &mut dyn Machine, database: &Database, found: &Found, rows: &mut Rows, scratch: &Path) {
    let files = present(machine, |suffix| Some(side(&database.location, suffix)));
    let gone = lost::tell(machine, database, &found.fold, files, None, scratch);
    let more = gone.more(&rows.items, &rows.rejected);
    rows.strayed += more.len() as u64;
    rows.items.extend(more);
    let lines = gone.lines(&rows.items, &rows.rejected);
    rows.rejected.extend(lines);
}

/// What a replacement puts in place, and why.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// "rebuild" or "import": the kind of the operation.
    pub kind: &'static str,
    /// What is loaded. Without `new` it goes into a copy of the queue as found.
    pub load: Load,
    /// What does not go in.
    pub rejected: Vec<Rejected>,
    /// Who asked.
    pub by: String,
}

/// What a replacement did.
#[derive(Clone, Debug)]
pub struct Replaced {
    /// Directory of the originals under quarantine.
    pub quarantine: PathBuf,
    /// The original database there, under the name that people look for; `None` when there was none.
    pub original: Option<PathBuf>,
    /// Everything that did not go in, the engine's own refusals and ids that are gone among them.
    pub rejected: Vec<Rejected>,
    /// The loss manifest, where rows are gone.
    pub manifest: Option<PathBuf>,
    /// Rows of the queue now.
    pub rows: u64,
    /// Rows that were put in.
    pub loaded: usize,
}

/// Replaces the queue. The caller holds the lock, and has found nobody with the database open.
pub fn replace(
    machine: &mut dyn Machine,
    settings: &Settings,
    database: &Database,
    found: &Found,
    mut what: Replacement,
) -> io::Result<Replaced> {
    install::none_open(machine, settings)?;
    // No operation is open and nobody else is at work here: whatever is staged was left by a cut.
    discard(machine, &settings.data_dir.join(STAGE))?;
    let files = &found.verdict.files;
    let payload: u64 = what.load.items.iter().map(|i| i.payload.len() as u64 + 128).sum();
    let need = payload.saturating_mul(2).max(files.bytes).saturating_add(MARGIN);
    if machine.free_bytes(&settings.data_dir)? < need {
        let text = format!("{need} bytes are needed on the volume of {}", settings.data_dir.display());
        return Err(io::Error::new(io::ErrorKind::StorageFull, text));
    }
    let now = machine.clock();
    let op = format!("{now}-{}-{}", database.name, files.fingerprint);
    let into = settings.data_dir.join(QUARANTINE).join(&op);
    let stage = settings.data_dir.join(STAGE).join(&op);
    let original = keep(machine, settings, database, found, &into, now)?;
    make_dirs(machine, &stage)?;
    let prepared = prepare(machine, settings, database, found, &mut what, (&op, &into, &stage, now));
    let (rejected, rows, loaded) = match prepared {
        Ok(prepared) => prepared,
        Err(e) => {
            discard(machine, &stage)?;
            return Err(e);
        }
    };
    install::install(machine, settings, &op)?;
    let manifest = Some(into.join(MANIFEST)).filter(|m| matches!(machine.stat(m), Ok(Some(_))));
    Ok(Replaced { quarantine: into, original, rejected, manifest, rows, loaded })
}

/// Preserves the originals, and gives the database the name under which the documented script would have kept it.
fn keep(
    machine: &mut dyn Machine,
    settings: &Settings,
    database: &Database,
    found: &Found,
    into: &Path,
    now: u64,
) -> io::Result<Option<PathBuf>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for suffix in ["-wal", "-journal", "", "-shm"] {
        let path = side(&database.location, suffix);
        if machine.stat(&path)?.is_some() {
            files.push(path);
        }
    }
    preserve(machine, settings, &files, into, false)?;
    let Some(name) = database.location.file_name().filter(|_| found.verdict.files.present) else { return Ok(None) };
    let named = into.join(format!("{}.corrupt.{now}", name.to_string_lossy()));
    if machine.stat(&named)?.is_none() {
        machine.link(&into.join(name), &named)?;
        machine.sync_dir(into)?;
    }
    Ok(Some(named))
}

/// What is told of it, should somebody else finish it after a cut.
fn outcome(database: &Database, found: &Found, kind: &str, rows: u64, all: bool, into: &Path) -> String {
    let v = &found.verdict;
    let resumed = Resumed { database: database.name.clone(), structure: v.structure, completeness: v.completeness };
    // What is lost without a trace cannot be counted: damage in the structure is never wholly repaired by rows alone.
    let whole = all && v.structure == StructureVerdict::Sound;
    let detail = Detail {
        action: Some(if kind == "import" { "imported" } else { "rebuilt" }.to_string()),
        completeness: Some(if whole { Completeness::Unknown } else { Completeness::Lossy }),
        tables: vec![TableRows { table: TABLE.to_string(), rows }],
        quarantine: Some(into.to_path_buf()),
        manifest: (!all).then(|| into.join(REJECTED)),
        resumed: Some(Box::new(resumed)),
        ..Detail::default()
    };
    serde_json::to_string(&detail).unwrap_or_default()
}

fn prepare(
    machine: &mut dyn Machine,
    settings: &Settings,
    database: &Database,
    found: &Found,
    what: &mut Replacement,
    (op, into, stage, now): (&str, &Path, &Path, u64),
) -> io::Result<(Vec<Rejected>, u64, usize)> {
    let name = database.location.file_name().ok_or_else(|| io::Error::other("the path has no file name"))?;
    let staged = stage.join(name);
    machine.unlink(&staged)?;
    if what.load.new.is_none() {
        let kept = |path: PathBuf| path.file_name().map(|n| into.join(n));
        let log = side(&database.location, "-wal");
        fold_copy(machine, kept(database.location.clone()).as_deref(), kept(log).as_deref(), &found.fold, &staged)?;
    }
    let damaged =
        what.kind == "rebuild" && what.load.new.is_some() && found.verdict.structure != StructureVerdict::Sound;
    let gone = damaged.then(|| {
        let files = present(machine, |suffix| Some(into.join(side(&database.location, suffix).file_name()?)));
        lost::tell(machine, database, &found.fold, files, Some(&into.join(MANIFEST)), &stage.join("lost.db"))
    });
    if let Some(gone) = &gone {
        what.load.items.extend(gone.more(&what.load.items, &what.rejected));
    }
    let refused = machine.engine_queue(&staged, &what.load)?;
    let mut rejected = what.rejected.clone();
    for (n, why) in &refused {
        let Some(item) = what.load.items.get(*n) else { continue };
        let bytes = lines::line(item).into_bytes();
        let place = "the engine".to_string();
        rejected.push(Rejected { id: item.id, place, reason: why.clone(), bytes, ..Rejected::default() });
    }
    if let Some(gone) = &gone {
        let lines = gone.lines(&what.load.items, &rejected);
        rejected.extend(lines);
    }
    let (said, tables) = machine.engine_check(&staged)?;
    if said != ["ok"] {
        return Err(io::Error::other(format!("the new queue was refused: {}", said.join("; "))));
    }
    let rows = tables.iter().find(|t| t.table.eq_ignore_ascii_case(TABLE)).map_or(0, |t| t.rows);
    if !rejected.is_empty() {
        let text: String = rejected.iter().map(|r| lines::rejected_line(r) + "\n").collect();
        durable::replace(machine, &into.join(REJECTED), text.as_bytes())?;
    }
    let owner = database.owner.unwrap_or(found.verdict.files.owner);
    machine.set_owner(&staged, owner.0, owner.1, database.mode)?;
    machine.sync_file(&staged)?;
    machine.sync_dir(stage)?;
    if let Some(parent) = stage.parent() {
        machine.sync_dir(parent)?;
    }
    machine.sync_dir(&settings.data_dir)?;
    let retire = side_files(machine, &database.location)?;
    let loaded = what.load.items.len().saturating_sub(refused.len());
    let note = serde_json::json!({
        "database": database.name,
        "rows": rows,
        "loaded": loaded,
        "rejected": rejected.len(),
        "quarantine": into.display().to_string(),
    });
    let intent = Intent {
        op: op.to_string(),
        kind: what.kind.to_string(),
        phase: Phase::Prepared,
        prepared_at: now,
        by: what.by.clone(),
        // Bound to this file system: a boot that finds another card in its place must not go on with it.
        volume: machine.volume_id(&settings.data_dir).unwrap_or_default(),
        stage: stage.to_path_buf(),
        targets: vec![Target {
            database: database.name.clone(),
            path: database.location.clone(),
            sha256: sha256(machine.as_look(), &staged)?,
            staged,
            retire,
            kept: PathBuf::new(),
        }],
        receipt: None,
        note: note.to_string(),
        outcome: outcome(database, found, what.kind, rows, rejected.is_empty(), into),
    };
    make_dirs(machine, &settings.state_dir)?;
    durable::replace(machine, &settings.state_dir.join(journal::FILE), &intent.encode())?;
    Ok((rejected, rows, loaded))
}
