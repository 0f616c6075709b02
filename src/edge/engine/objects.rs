//! The engine's part of a check: what only SQL can say, on a staged copy, table by table.
//!
//! CHECK constraints, partial and expression indexes, collations that are not built in, generated columns and virtual
//! tables are looked at by `PRAGMA integrity_check(table)`, which confines itself to one table and its indexes. The texts
//! of the schema need no copy: they are read in an empty database in memory.

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

pub(super) fn check_objects(db: &Connection, tables: &[String]) -> io::Result<Vec<ObjectCheck>> {
    let mut checked = Vec::new();
    for table in tables {
        let mut check = ObjectCheck { table: table.clone(), lines: Vec::new(), unable: None };
        // The settings are made again for each, so that a schema that cannot be read is said of each.
        if let Err(e) = defend(db).and_then(|()| one(db, table, &mut check.lines)) {
            let text: String = e.to_string().chars().take(MAX_LINE).collect();
            match damage(&e) {
                Some(_) if foreign(&e) && !garbled(db, &text) => check.unable = Some(text),
                Some(line) => check.lines.push(line),
                None => return Err(failed(e)),
            }
        }
        checked.push(check);
    }
    Ok(checked)
}

/// True when a function or collation of the application is not here: no statement about the contents.
pub(super) fn foreign(e: &rusqlite::Error) -> bool {
    let ours = ["no such function", "unknown function", "no such collation", "no such module", "no such table"];
    let text = e.to_string();
    ours.iter().any(|w| text.contains(w)) && !text.contains("malformed")
}

/// True when the name that is not known here is one of the engine's own with a bit fallen over, or with one character that
/// no name has: then the schema is damaged, and no application has such a thing.
fn garbled(db: &Connection, text: &str) -> bool {
    let Some((what, name)) = text.split_once(": ") else { return false };
    let name = name.split(" in ").next().unwrap_or(name).trim_end_matches("()");
    let list = match what.rsplit(' ').next() {
        Some("function") => "SELECT DISTINCT name FROM pragma_function_list",
        Some("sequence") => "SELECT name FROM pragma_collation_list",
        Some("module") => "SELECT name FROM pragma_module_list",
        _ => return false,
    };
    let known = || -> rusqlite::Result<Vec<String>> {
        db.prepare(list)?.query_map([], |row| row.get::<_, String>(0))?.collect()
    };
    known().is_ok_and(|names| names.iter().any(|own| one_off(own, name)))
}

/// True when two names of the same length differ in one character, and there by one bit or by what no name has.
fn one_off(own: &str, name: &str) -> bool {
    if own.chars().count() != name.chars().count() {
        return false;
    }
    let mut differing = own.chars().zip(name.chars()).filter(|(a, b)| !a.eq_ignore_ascii_case(b));
    let (Some((a, b)), None) = (differing.next(), differing.next()) else { return false };
    let bits = |a: char| (u32::from(a) ^ u32::from(b)).count_ones();
    let strange = !(b.is_ascii_alphanumeric() || b == '_');
    strange || bits(a.to_ascii_lowercase()) == 1 || bits(a.to_ascii_uppercase()) == 1
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

/// What the engine says of a text that no database can have, whatever else is missing here.
const IMPOSSIBLE: [&str; 8] = [
    "syntax error",
    "unrecognized token",
    "incomplete input",
    "duplicate column name",
    "more than one primary key",
    "AUTOINCREMENT is only allowed",
    "PRIMARY KEY missing",
    "datatype for",
];

/// Reads the texts of the schema in an empty database in memory. `texts` are (kind, name, sql) in the order of the
/// schema. The answers are (name, what is wrong). Nothing that computes runs: a text is one CREATE statement or none.
pub fn check_texts(texts: &[(String, String, String)]) -> io::Result<Vec<(String, String)>> {
    let db = Connection::open_in_memory().map_err(failed)?;
    defend(&db).map_err(failed)?;
    let mut wrong = Vec::new();
    for kind in ["table", "index", "view", "trigger"] {
        for (_, name, sql) in texts.iter().filter(|(k, _, sql)| k == kind && !sql.is_empty()) {
            let refused = match one_create(kind, sql) {
                // A virtual table needs its module, and CREATE TABLE AS would compute: neither is a text of a record layout.
                Ok(false) => continue,
                Ok(true) => db.execute(sql, []).err().map(|e| e.to_string()),
                Err(why) => Some(why),
            };
            let Some(why) = refused else { continue };
            // Names of SQLite's own, and tables or functions that are not here, are refused as well and are no damage; of
            // a view or trigger, whose table is here, everything is.
            if kind == "view" || kind == "trigger" || IMPOSSIBLE.iter().any(|w| why.contains(w)) {
                wrong.push((name.clone(), why.chars().take(MAX_LINE).collect()));
            }
        }
    }
    Ok(wrong)
}

/// True when a text is a CREATE of its kind that may be run, false when it is one that may not.
fn one_create(kind: &str, sql: &str) -> Result<bool, String> {
    let mut cursor = schema::Cursor::new(sql);
    let create = cursor.eat("CREATE");
    if kind == "table" {
        let is_virtual = create && cursor.eat("VIRTUAL");
        return Ok(!is_virtual && schema::table(sql).is_ok());
    }
    if kind == "index" {
        cursor.eat("UNIQUE");
    }
    if create && cursor.eat(&kind.to_ascii_uppercase()) { Ok(true) } else { Err(format!("it is not a CREATE {kind}")) }
}
