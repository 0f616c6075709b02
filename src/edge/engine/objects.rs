//! The engine's part of a check: what only SQL can say, on a staged copy, table by table.
//!
//! CHECK constraints, partial and expression indexes, collations that are not built in, generated columns and virtual
//! tables are looked at by `PRAGMA integrity_check(table)`, which confines itself to one table and its indexes. The texts
//! of views and triggers need no copy: they are read in an empty database in memory.

use std::io;
use std::path::Path;

use rusqlite::{Connection, InterruptHandle, OpenFlags};

use crate::sqlite::schema;

use super::{MAX_LINE, MAX_LINES, damage, defend, failed, load, quoted, refuse_side_files, regular};

/// What the engine said of one table: `None` when it could not look, with the reason in the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectCheck {
    /// The table asked about.
    pub table: String,
    /// Its lines; empty: nothing wrong.
    pub lines: Vec<String>,
    /// Why it could not look, where it could not.
    pub unable: Option<String>,
}

/// Checks the named tables of a staged file in rollback mode (bytes 18 and 19 are 1). It is opened for writing and not
/// written: on a connection that can only read, the engine forgets all CHECK constraints.
pub fn check_objects_file(
    path: &Path,
    tables: &[String],
    watch: impl FnOnce(InterruptHandle),
) -> io::Result<Vec<ObjectCheck>> {
    regular(path)?;
    refuse_side_files(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(failed)?;
    watch(db.get_interrupt_handle());
    check_objects(&db, tables)
}

/// [`check_objects_file`] on bytes in memory.
pub fn check_objects_bytes(bytes: &[u8], tables: &[String]) -> io::Result<Vec<ObjectCheck>> {
    let mut db = Connection::open_in_memory().map_err(failed)?;
    load(&mut db, "main", bytes, false)?;
    check_objects(&db, tables)
}

fn check_objects(db: &Connection, tables: &[String]) -> io::Result<Vec<ObjectCheck>> {
    let mut checked = Vec::new();
    for table in tables {
        let mut check = ObjectCheck { table: table.clone(), lines: Vec::new(), unable: None };
        // The settings are made again for each, so that a schema that cannot be read is said of each.
        if let Err(e) = defend(db).and_then(|()| one(db, table, &mut check.lines)) {
            let text: String = e.to_string().chars().take(MAX_LINE).collect();
            // A function or collation of the application that is not here is no statement about the contents.
            let ours = ["no such function", "no such collation", "no such module", "no such table"];
            match damage(&e) {
                Some(_) if ours.iter().any(|w| text.contains(w)) && !text.contains("malformed") => {
                    check.unable = Some(text);
                }
                Some(line) => check.lines.push(line),
                None => return Err(failed(e)),
            }
        }
        checked.push(check);
    }
    Ok(checked)
}

fn one(db: &Connection, table: &str, lines: &mut Vec<String>) -> rusqlite::Result<()> {
    // A name that reads as a number would be taken for the number of lines wanted.
    let mut statement = db.prepare(&format!("PRAGMA main.integrity_check({})", quoted(table)))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let line: String = row.get::<_, String>(0)?.chars().take(MAX_LINE).collect();
        if line != "ok" && lines.len() < usize::try_from(MAX_LINES).unwrap_or(100) {
            lines.push(line);
        }
    }
    Ok(())
}

/// Reads the texts of views and triggers in an empty database in memory that has the tables and views of the schema.
/// `texts` are (kind, name, sql) in the order of the schema. The answers are (name, what is wrong).
pub fn check_texts(texts: &[(String, String, String)]) -> io::Result<Vec<(String, String)>> {
    let db = Connection::open_in_memory().map_err(failed)?;
    defend(&db).map_err(failed)?;
    let mut wrong = Vec::new();
    for kind in ["table", "view", "trigger"] {
        for (_, name, sql) in texts.iter().filter(|(k, _, _)| k == kind) {
            // Nothing that computes may run here: no CREATE TABLE AS, no second statement.
            if kind == "table" {
                if schema::table(sql).is_ok() {
                    drop(db.execute(sql, []));
                }
                continue;
            }
            let mut cursor = schema::Cursor::new(sql);
            let made = if cursor.eat("CREATE") && cursor.eat(&kind.to_ascii_uppercase()) {
                db.execute(sql, []).map(drop).map_err(|e| e.to_string())
            } else {
                Err(format!("it is not a CREATE {kind}"))
            };
            if let Err(e) = made {
                wrong.push((name.clone(), e.chars().take(MAX_LINE).collect()));
            }
        }
    }
    Ok(wrong)
}
