//! The merge of append-only rows: `main` gains what `donor` has above it.
//!
//! Sensor tables only grow, so a row whose rowid lies above every rowid that `main` ever gave is new to it; a row at
//! or below is either there already or was deleted, and is never brought back. "Ever gave" is the highest rowid, or
//! for AUTOINCREMENT tables the higher mark in `sqlite_sequence`, which remembers deleted rows (a queue deletes what it
//! has sent). SQLite raises that mark itself as the rows go in.
//!
//! Tables and columns are matched by name. What only one side has is left out; a row that `main` refuses (a unique
//! value it already has, a missing mandatory column) is left out by `INSERT OR IGNORE` and not counted.

use std::io;

use rusqlite::{Connection, OptionalExtension, Transaction};

use super::super::TableGain;
use super::{defend, failed, ordinary_tables, quoted};

/// Appends to the ordinary rowid tables of `main`, all or nothing, without a side file.
pub(super) fn append(db: &mut Connection) -> io::Result<Vec<TableGain>> {
    append_sql(db).map_err(failed)
}

fn append_sql(db: &mut Connection) -> rusqlite::Result<Vec<TableGain>> {
    defend(db)?;
    // The journal lives in memory, so a failed append can be taken back and nothing appears beside the file. Syncing
    // is the caller's: the stage is synced once, as a whole.
    db.execute_batch(
        "PRAGMA main.locking_mode = EXCLUSIVE; PRAGMA main.journal_mode = MEMORY; PRAGMA main.synchronous = OFF;",
    )?;
    let transaction = db.transaction()?;
    let donors = ordinary_tables(&transaction, "donor")?;
    let mut gains = Vec::new();
    for table in ordinary_tables(&transaction, "main")?.iter().filter(|table| !table.without_rowid) {
        let Some(donor) = donors.iter().find(|d| d.name.eq_ignore_ascii_case(&table.name)) else { continue };
        if donor.without_rowid {
            continue;
        }
        if let Some(inserted) = append_table(&transaction, &table.name, &donor.name)? {
            gains.push(TableGain { table: table.name.clone(), inserted });
        }
    }
    transaction.commit()?;
    Ok(gains)
}

/// `None` when the rows of the two tables cannot be matched: every name of the rowid is taken by a column.
fn append_table(db: &Transaction<'_>, table: &str, donor: &str) -> rusqlite::Result<Option<u64>> {
    let ours = columns(db, "main", table)?;
    let theirs = columns(db, "donor", donor)?;
    let free = |name: &&str| !ours.iter().chain(&theirs).any(|column| column.name.eq_ignore_ascii_case(name));
    let Some(rowid) = ["rowid", "_rowid_", "oid"].into_iter().find(free) else { return Ok(None) };
    let mut names = vec![rowid.to_owned()];
    let common = |c: &&Column| !c.generated && theirs.iter().any(|t| t.name.eq_ignore_ascii_case(&c.name));
    names.extend(ours.iter().filter(common).map(|column| quoted(&column.name)));
    let names = names.join(", ");
    let (into, from) = (quoted(table), quoted(donor));
    let highest: Option<i64> = db.query_row(&format!("SELECT max({rowid}) FROM main.{into}"), [], |row| row.get(0))?;
    let given = highest.max(sequence(db, table)?);
    let sql = format!("INSERT OR IGNORE INTO main.{into} ({names}) SELECT {names} FROM donor.{from}");
    let inserted = match given {
        // Rowids may be negative, so an empty table has no lower bound at all.
        None => db.execute(&sql, [])?,
        Some(given) => db.execute(&format!("{sql} WHERE {rowid} > ?1 ORDER BY {rowid}"), [given])?,
    };
    Ok(Some(u64::try_from(inserted).unwrap_or(u64::MAX)))
}

/// The mark of an AUTOINCREMENT table; `None` for any other, and for a mark that is no number.
fn sequence(db: &Transaction<'_>, table: &str) -> rusqlite::Result<Option<i64>> {
    let known = "SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence' AND type = 'table'";
    if db.query_row(known, [], |_| Ok(())).optional()?.is_none() {
        return Ok(None);
    }
    let sql = "SELECT max(seq) FROM main.sqlite_sequence WHERE name = ?1 COLLATE NOCASE AND typeof(seq) = 'integer'";
    db.query_row(sql, [table], |row| row.get(0))
}

struct Column {
    name: String,
    /// Computed by the engine: can be read, must not be written.
    generated: bool,
}

fn columns(db: &Transaction<'_>, schema: &str, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut statement = db.prepare("SELECT name, hidden FROM pragma_table_xinfo(?1, ?2)")?;
    let rows = statement
        .query_map([table, schema], |row| Ok(Column { name: row.get(0)?, generated: row.get::<_, i64>(1)? != 0 }))?;
    rows.collect()
}
