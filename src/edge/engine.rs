//! The only user of the real SQLite engine.
//!
//! The engine opens *staged* copies, never an original: opening a database with a damaged WAL discards the WAL
//! (`crate::sqlite` tells why). Staged files are single files. Their header may still say WAL mode (bytes 18 and 19
//! are 2, file format section 1.3.4), and neither of the two ways in touches anything beside them:
//!
//! - *checking* opens with `immutable=1`: no lock, no look at `-wal` or `-journal`, no side file, contents unchanged;
//! - *appending* writes 1 into bytes 18 and 19 first, keeps its rollback journal in memory, and puts the bytes back.
//!   A staged file that a crash caught in between is discarded with its stage.
//!
//! In memory (`*_bytes`, for the simulated machine) the same code runs on `sqlite3_deserialize`, which refuses WAL
//! mode as well.
//!
//! A database may be hostile (it may come from a stick). The settings of [`defend`] follow "Defense Against The Dark
//! Arts" (sqlite.org/security.html). Time is bounded by the caller, who gets an [`InterruptHandle`]; memory by the
//! page cache below and by the limits of the process.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub use rusqlite::InterruptHandle;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{TableGain, TableRows};

mod append;
pub mod audit;
mod bulk;
mod constraints;
mod merge;
mod objects;
pub mod queue;
mod rebuild;
mod rescue;
mod snapshot;

pub use constraints::{constraints_bytes, constraints_file};
pub use objects::{ObjectCheck, check_objects_bytes, check_objects_file, check_texts};
pub use rescue::{merge_bytes, merge_file, reindex_bytes, reindex_file, salvage_bytes, salvage_file, schema_of_sql};
pub use snapshot::{Around, snapshot_file};

/// Where the two version numbers of the header lie: write version, then read version; 1 is rollback, 2 is WAL.
const VERSIONS: std::ops::Range<usize> = 18..20;
/// Lines of `integrity_check` kept; the hundred-and-first says nothing new.
const MAX_LINES: u32 = 100;
/// Longest line kept, in characters: a name from a hostile schema may be huge.
const MAX_LINE: usize = 500;

/// What a check gives: the lines of `integrity_check` (`["ok"]` when sound) and the rows of each table.
pub type Checked = (Vec<String>, Vec<TableRows>);

/// Checks a staged file and leaves it byte-identical. Damage is an `Ok` whose lines tell it; an `Err` means that
/// the engine could not look (the file cannot be read, memory ran out, it was interrupted).
pub fn check_file(path: &Path) -> io::Result<Checked> {
    check_file_watched(path, |_| {})
}

/// [`check_file`], handing out what stops it before it starts. An interrupted check is an error of kind
/// `Interrupted`.
pub fn check_file_watched(path: &Path, watch: impl FnOnce(InterruptHandle)) -> io::Result<Checked> {
    regular(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(immutable_uri(path)?, flags).map_err(failed)?;
    watch(db.get_interrupt_handle());
    check(&db)
}

/// [`check_file`] on bytes in memory.
pub fn check_bytes(bytes: &[u8]) -> io::Result<Checked> {
    let mut db = Connection::open_in_memory().map_err(failed)?;
    load(&mut db, "main", bytes, true)?;
    check(&db)
}

/// Inserts into every rowid table of the staged `base` the rows of the staged `donor` that lie above the highest
/// rowid `base` ever gave, in one transaction. On an error `base` holds what it held before.
pub fn append_file(base: &Path, donor: &Path) -> io::Result<Vec<TableGain>> {
    regular(base)?;
    regular(donor)?;
    refuse_side_files(base)?;
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(base)?;
    let mut versions = [0; 2];
    if file.metadata()?.len() == 0 {
        // Nothing yet: the new database takes the mode of the donor.
        OpenOptions::new().read(true).open(donor)?.read_exact_at(&mut versions, VERSIONS.start as u64)?;
    } else {
        file.read_exact_at(&mut versions, VERSIONS.start as u64)?;
        file.write_all_at(&[1, 1], VERSIONS.start as u64)?;
    }
    let gained = append_files(base, donor);
    // Whatever happened above: the mode of the database is the agent's choice, not ours.
    file.write_all_at(&versions, VERSIONS.start as u64)?;
    gained
}

fn append_files(base: &Path, donor: &Path) -> io::Result<Vec<TableGain>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(base, flags).map_err(failed)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(immutable_uri(donor)?, flags).map_err(failed)?;
    append::append(&mut db, &source)
}

/// [`append_file`] on bytes in memory: the new contents of `base` and what it gained.
pub fn append_bytes(base: Vec<u8>, donor: &[u8]) -> io::Result<(Vec<u8>, Vec<TableGain>)> {
    let modes = if base.is_empty() { donor } else { &base };
    let versions = modes.get(VERSIONS).ok_or_else(|| invalid("shorter than a database header"))?.to_vec();
    let mut db = Connection::open_in_memory().map_err(failed)?;
    let mut source = Connection::open_in_memory().map_err(failed)?;
    load(&mut db, "main", &base, false)?;
    load(&mut source, "main", donor, true)?;
    let gained = append::append(&mut db, &source)?;
    let mut bytes = db.serialize("main").map_err(failed)?.to_vec();
    if let Some(place) = bytes.get_mut(VERSIONS) {
        place.copy_from_slice(&versions);
    }
    Ok((bytes, gained))
}

/// Puts a copy of `bytes` in place of the empty database `schema`, with its mode set to rollback.
fn load(db: &mut Connection, schema: &str, bytes: &[u8], read_only: bool) -> io::Result<()> {
    if bytes.is_empty() {
        // The engine cannot take nothing; a file of length zero is an empty database, as the one already there is.
        return Ok(());
    }
    let mut copy = bytes.to_vec();
    if let Some(versions) = copy.get_mut(VERSIONS) {
        versions.fill(1);
    }
    db.deserialize_read_exact(schema, copy.as_slice(), copy.len(), read_only).map_err(failed)
}

/// Makes the connection distrust what it opens. Runs before the first statement that reads the schema.
fn defend(db: &Connection) -> rusqlite::Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
    // Depths and counts no honest schema reaches; lengths stay, because honest rows may be long.
    db.set_limit(Limit::SQLITE_LIMIT_EXPR_DEPTH, 100)?;
    db.set_limit(Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1)?;
    db.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
    // mmap off: a failing card is then an error and not a SIGBUS. No temporary files: there may be no /tmp.
    db.execute_batch(
        "PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA cache_size = -8192; PRAGMA temp_store = MEMORY;",
    )
}

fn check(db: &Connection) -> io::Result<Checked> {
    let looked = match defend(db).and_then(|()| integrity(db)) {
        Err(e) if objects::foreign(&e) => return by_table(db),
        looked => looked,
    };
    match looked {
        Ok(lines) => {
            let rows = ordinary_tables(db, "main").and_then(|tables| count(db, &tables));
            // A sound database whose tables cannot be listed does not exist; in a damaged one the lines say it all.
            Ok((lines, rows.or_else(|e| damage(&e).map(|_| Vec::new()).ok_or_else(|| failed(e)))?))
        }
        Err(e) => damage(&e).map(|line| (vec![line], Vec::new())).ok_or_else(|| failed(e)),
    }
}

/// A collation or function of the application is not here, and the engine then refuses to look at anything. Table by
/// table it does look; what it cannot, the check of the bytes has looked at all but the order of.
fn by_table(db: &Connection) -> io::Result<Checked> {
    let tables = ordinary_tables(db, "main").map_err(failed)?;
    let names: Vec<String> = tables.iter().map(|t| t.name.clone()).collect();
    let mut lines: Vec<String> = objects::check_objects(db, &names)?.into_iter().flat_map(|c| c.lines).collect();
    if lines.is_empty() {
        lines.push("ok".to_string());
    }
    Ok((lines, count(db, &tables).map_err(failed)?))
}

fn integrity(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = db.prepare(&format!("PRAGMA main.integrity_check({MAX_LINES})"))?;
    let mut lines = Vec::new();
    let mut rows = statement.query([])?;
    loop {
        match rows.next() {
            Ok(Some(row)) => lines.push(row.get::<_, String>(0)?.chars().take(MAX_LINE).collect()),
            Ok(None) => return Ok(lines),
            // The check itself may run into the damage; what it said so far is kept.
            Err(e) => match damage(&e) {
                Some(line) => {
                    lines.push(line);
                    return Ok(lines);
                }
                None => return Err(e),
            },
        }
    }
}

/// A table that stores rows itself: no view, no virtual table, no shadow of one, none of SQLite's own.
struct Table {
    name: String,
    without_rowid: bool,
}

fn ordinary_tables(db: &Connection, schema: &str) -> rusqlite::Result<Vec<Table>> {
    let sql = "SELECT name, wr FROM pragma_table_list WHERE schema = ?1 AND type = 'table' \
               AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
    let mut statement = db.prepare(sql)?;
    let rows = statement.query_map([schema], |row| Ok(Table { name: row.get(0)?, without_rowid: row.get(1)? }))?;
    rows.collect()
}

/// Counts every table that can be counted; a damaged one is left out, and has its lines in the check.
fn count(db: &Connection, tables: &[Table]) -> rusqlite::Result<Vec<TableRows>> {
    let mut counted = Vec::new();
    for table in tables {
        let sql = format!("SELECT count(*) FROM main.{}", quoted(&table.name));
        match db.query_row(&sql, [], |row| row.get::<_, i64>(0)) {
            Ok(rows) => counted.push(TableRows { table: table.name.clone(), rows: rows.unsigned_abs() }),
            Err(e) if damage(&e).is_some() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(counted)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The engine's words when an error is a statement about the contents; `None` when it is about us or the device.
fn damage(e: &rusqlite::Error) -> Option<String> {
    match e.sqlite_error_code() {
        Some(
            ErrorCode::OutOfMemory
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::OperationInterrupted
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::InternalMalfunction
            | ErrorCode::ApiMisuse,
        ) => None,
        Some(_) | None => Some(e.to_string().chars().take(MAX_LINE).collect()),
    }
}

fn failed(e: rusqlite::Error) -> io::Error {
    let kind = match e.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => io::ErrorKind::Interrupted,
        Some(ErrorCode::OutOfMemory) => io::ErrorKind::OutOfMemory,
        Some(ErrorCode::DiskFull) => io::ErrorKind::StorageFull,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("SQLite: {e}"))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

fn regular(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_file() {
        Ok(())
    } else {
        Err(invalid(&format!("{}: not a regular file", path.display())))
    }
}

/// The engine would roll a hot journal back into the base or read a WAL beside it. A stage holds none.
fn refuse_side_files(base: &Path) -> io::Result<()> {
    for suffix in ["-journal", "-wal", "-shm"] {
        let mut name = base.as_os_str().to_os_string();
        name.push(suffix);
        let side = PathBuf::from(name);
        if fs::symlink_metadata(&side).is_ok() {
            return Err(invalid(&format!("{}: a staged database has no side files", side.display())));
        }
    }
    Ok(())
}

/// `file:` with every byte escaped that could end the path early (RFC 3986; sqlite.org/uri.html).
fn immutable_uri(path: &Path) -> io::Result<String> {
    let path = std::path::absolute(path)?;
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri.push_str("?immutable=1");
    Ok(uri)
}

#[cfg(test)]
mod tests;
