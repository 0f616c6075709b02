//! The merge of append-only rows: `main` gains what `donor` has above it.
//!
//! Sensor tables only grow, so a row whose rowid lies above every rowid that `main` ever gave is new to it; a row at
//! or below is either there already or was deleted, and is never brought back. "Ever gave" is the highest rowid, or
//! for AUTOINCREMENT tables the higher mark in `sqlite_sequence`, which remembers deleted rows (a queue deletes what it
//! has sent). SQLite raises that mark itself as the rows go in.
//!
//! Tables and columns are matched by name. A table that only `donor` has is made first, with its indexes behind the
//! rows; a column that only one side has is left out, and so is a row that `main` refuses (a unique value it already
//! has, a missing mandatory column).
//!
//! The donor may be damaged: it is a later commit with a hole in it. Each table is read from its low end until the
//! engine meets the hole, and then from its high end down to it, so that a hole costs only what lies in it.

use std::io;

use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OptionalExtension, Transaction, params_from_iter};

use super::super::TableGain;
use super::{defend, failed, ordinary_tables, quoted};

/// Appends to the ordinary rowid tables of `main`, all or nothing, without a side file.
///
/// The donor has a connection of its own: once the engine has met damage in one database of a connection, it refuses
/// to go on with the others.
pub(super) fn append(db: &mut Connection, donor: &Connection) -> io::Result<Vec<TableGain>> {
    append_sql(db, donor).map_err(failed)
}

fn append_sql(db: &mut Connection, source: &Connection) -> rusqlite::Result<Vec<TableGain>> {
    ready(db, source)?;
    let transaction = db.transaction()?;
    let donors = ordinary_tables(source, "main")?;
    let ours = ordinary_tables(&transaction, "main")?;
    let mut gains = Vec::new();
    for donor in &donors {
        let known = ours.iter().find(|t| t.name.eq_ignore_ascii_case(&donor.name));
        let inserted = match known {
            Some(table) if table.without_rowid || donor.without_rowid => None,
            Some(table) => append_table(&transaction, source, &table.name, &donor.name)?,
            None => new_table(&transaction, source, &donor.name, donor.without_rowid)?,
        };
        gains.extend(inserted.map(|inserted| TableGain { table: donor.name.clone(), inserted }));
    }
    transaction.commit()?;
    Ok(gains)
}

/// Two connections on guard, the first ready to write.
pub(super) fn ready(db: &Connection, source: &Connection) -> rusqlite::Result<()> {
    defend(db)?;
    defend(source)?;
    // The journal lives in memory, so a failed append can be taken back and nothing appears beside the file. Syncing
    // is the caller's: the stage is synced once, as a whole.
    db.execute_batch(
        "PRAGMA main.locking_mode = EXCLUSIVE; PRAGMA main.journal_mode = MEMORY; PRAGMA main.synchronous = OFF;",
    )
}

/// Makes a table that only the donor has, with its rows and then its indexes. `None` when its statement is not one.
fn new_table(
    db: &Transaction<'_>,
    source: &Connection,
    name: &str,
    without_rowid: bool,
) -> rusqlite::Result<Option<u64>> {
    let mut statement = source.prepare(
        "SELECT sql FROM main.sqlite_schema WHERE tbl_name = ?1 COLLATE NOCASE AND type IN ('table', 'index') \
         AND sql IS NOT NULL ORDER BY type = 'index'",
    )?;
    let statements: Vec<String> = statement.query_map([name], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let creates = |sql: &str| sql.trim_start().get(..7).is_some_and(|word| word.eq_ignore_ascii_case("CREATE "));
    let Some((table, indexes)) = statements.split_first().filter(|(table, _)| creates(table)) else { return Ok(None) };
    if db.execute(table, []).is_err() {
        return Ok(None);
    }
    let inserted = if without_rowid {
        let name = quoted(name);
        copy_rows(
            db,
            source,
            &format!("SELECT * FROM main.{name}"),
            &format!("INSERT OR IGNORE INTO main.{name} VALUES"),
            "",
            "",
        )?
    } else {
        append_table(db, source, name, name)?.unwrap_or(0)
    };
    for index in indexes.iter().filter(|sql| creates(sql)) {
        // An index that cannot be made (a unique value twice, an unknown collation) costs no row.
        if let Err(e) = db.execute(index, []) {
            log::warn!("{name}: an index was not rebuilt: {e}");
        }
    }
    Ok(Some(inserted))
}

/// Copies rows in ascending order until the source fails, then in descending order down to where it failed.
fn copy_rows(
    db: &Transaction<'_>,
    source: &Connection,
    select: &str,
    insert: &str,
    rowid: &str,
    above: &str,
) -> rusqlite::Result<u64> {
    let orders: &[&str] = if rowid.is_empty() { &[""] } else { &["ASC", "DESC"] };
    let mut inserted = 0;
    for order in orders {
        let sql =
            if rowid.is_empty() { select.to_owned() } else { format!("{select} {above} ORDER BY {rowid} {order}") };
        let mut reader = source.prepare(&sql)?;
        let marks = vec!["?"; reader.column_count()].join(", ");
        let mut writer = db.prepare(&format!("{insert} ({marks})"))?;
        let columns = reader.column_count();
        let mut rows = reader.query([])?;
        let failed = loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => break None,
                Err(e) => break Some(e),
            };
            // Borrowed, so that text and numbers arrive bit by bit as they are stored, valid UTF-8 or not.
            let value = |i| row.get_ref(i).map(ToSqlOutput::Borrowed);
            let values: rusqlite::Result<Vec<ToSqlOutput<'_>>> = (0..columns).map(value).collect();
            let Ok(values) = values else { break values.err() };
            let changed = writer.execute(params_from_iter(values));
            inserted += u64::try_from(changed.unwrap_or(0)).unwrap_or(0);
        };
        match failed {
            None => break,
            Some(e) => log::warn!("rows of the later commit end at a hole ({order}): {e}"),
        }
    }
    Ok(inserted)
}

/// `None` when the rows of the two tables cannot be matched: every name of the rowid is taken by a column.
fn append_table(db: &Transaction<'_>, source: &Connection, table: &str, donor: &str) -> rusqlite::Result<Option<u64>> {
    let ours = columns(db, table)?;
    let theirs = columns(source, donor)?;
    let free = |name: &&str| !ours.iter().chain(&theirs).any(|column| column.name.eq_ignore_ascii_case(name));
    let Some(rowid) = ["rowid", "_rowid_", "oid"].into_iter().find(free) else { return Ok(None) };
    let mut names = vec![rowid.to_owned()];
    let common = |c: &&Column| !c.generated && theirs.iter().any(|t| t.name.eq_ignore_ascii_case(&c.name));
    names.extend(ours.iter().filter(common).map(|column| quoted(&column.name)));
    let names = names.join(", ");
    let (into, from) = (quoted(table), quoted(donor));
    let highest: Option<i64> = db.query_row(&format!("SELECT max({rowid}) FROM main.{into}"), [], |row| row.get(0))?;
    let given = highest.max(sequence(db, table)?);
    let select = format!("SELECT {names} FROM main.{from}");
    let insert = format!("INSERT OR IGNORE INTO main.{into} ({names}) VALUES");
    // Rowids may be negative, so an empty table has no lower bound at all.
    let above = given.map_or(String::new(), |given| format!("WHERE {rowid} > {given}"));
    copy_rows(db, source, &select, &insert, rowid, &above).map(Some)
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

/// A column by name.
pub(super) struct Column {
    pub(super) name: String,
    /// Computed by the engine: can be read, must not be written.
    pub(super) generated: bool,
}

pub(super) fn columns(db: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut statement = db.prepare("SELECT name, hidden FROM pragma_table_xinfo(?1, 'main')")?;
    let rows =
        statement.query_map([table], |row| Ok(Column { name: row.get(0)?, generated: row.get::<_, i64>(1)? != 0 }))?;
    rows.collect()
}
