//! CHECK constraints of a staged file, which its `integrity_check` says nothing of: on a connection that can only read, the
//! engine forgets them (`sqlite3AddCheckConstraint` leaves them out of a schema that cannot be written to).
//!
//! So this opens the staged file for writing, writes nothing through the engine, and puts back the two bytes of the header
//! that kept it from looking for a log. Rows that break a constraint are told and refuse no candidate: whoever made them
//! did so with the constraint switched off or before it was there, or a bit fell over in a page without a checksum; either
//! way no lower rung of the ladder has a better value, and each of them has fewer commits.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rusqlite::{Connection, InterruptHandle, OpenFlags};

use crate::sqlite::schema;

use super::objects::{ObjectCheck, check_objects_bytes, check_objects_file};
use super::{VERSIONS, damage, defend, failed, immutable_uri, load, regular};

/// How the engine begins a line about a row that breaks a constraint.
const BROKEN: &str = "CHECK constraint failed";

/// The lines about broken CHECK constraints of a staged file, and of what could not be checked. Leaves its contents as they
/// were, and no side file.
pub fn constraints_file(path: &Path, watch: impl FnOnce(InterruptHandle)) -> io::Result<Vec<String>> {
    regular(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(immutable_uri(path)?, flags).map_err(failed)?;
    let tables = constrained(&db)?;
    drop(db);
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let mut versions = [0; 2];
    file.read_exact_at(&mut versions, VERSIONS.start as u64)?;
    file.write_all_at(&[1, 1], VERSIONS.start as u64)?;
    let checked = check_objects_file(path, &tables, watch);
    // Whatever happened above: the mode of the database is the agent's choice, not ours.
    file.write_all_at(&versions, VERSIONS.start as u64)?;
    checked.map(lines)
}

/// [`constraints_file`] on bytes in memory.
pub fn constraints_bytes(bytes: &[u8]) -> io::Result<Vec<String>> {
    let mut db = Connection::open_in_memory().map_err(failed)?;
    load(&mut db, "main", bytes, true)?;
    let tables = constrained(&db)?;
    if tables.is_empty() { Ok(Vec::new()) } else { check_objects_bytes(bytes, &tables).map(lines) }
}

/// Tables whose text has a CHECK constraint, or is not understood here and may have one.
fn constrained(db: &Connection) -> io::Result<Vec<String>> {
    let listed = defend(db).and_then(|()| {
        let mut statement = db.prepare("SELECT name, sql FROM main.sqlite_schema WHERE type = 'table'")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?)))?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    });
    match listed {
        Ok(tables) => {
            let may = |sql: &str| {
                // A word in the text costs one look too many; a constraint that is overlooked costs more.
                schema::table(sql).map_or_else(|_| sql.to_ascii_uppercase().contains("CHECK"), |t| t.has_check)
            };
            Ok(tables.into_iter().filter(|(_, sql)| sql.as_deref().is_some_and(may)).map(|(name, _)| name).collect())
        }
        // What is wrong with a damaged schema is the gate's to say.
        Err(e) if damage(&e).is_some() => Ok(Vec::new()),
        Err(e) => Err(failed(e)),
    }
}

fn lines(checks: Vec<ObjectCheck>) -> Vec<String> {
    let mut said = Vec::new();
    for check in checks {
        let broken = check.lines.iter().filter(|l| l.starts_with(BROKEN)).count();
        if broken > 0 {
            said.push(format!("{broken} rows of {} break a CHECK constraint of it", check.table));
        }
        if let Some(why) = check.unable {
            said.push(format!("the CHECK constraints of {} were not looked at: {why}", check.table));
        }
    }
    said
}
