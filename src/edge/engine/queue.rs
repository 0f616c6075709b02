//! Rows of a queue into a *staged* database, new or a copy of the one in use, with their ids, times and retries.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rusqlite::types::ToSql;
use rusqlite::{Connection, OpenFlags, Transaction, params};

use super::{VERSIONS, defend, failed, invalid, load, quoted, refuse_side_files, regular};
use crate::queue::Item;
use crate::sqlite::rows::Cell;

/// What persists in the header of a database beside its contents (file format 2, section 1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Page size in bytes.
    pub page_size: u32,
    /// WAL mode instead of a rollback journal.
    pub wal: bool,
    /// 0 none, 1 full, 2 incremental.
    pub auto_vacuum: u8,
    /// 1 UTF-8, 2 UTF-16le, 3 UTF-16be.
    pub encoding: u32,
    /// `PRAGMA user_version`.
    pub user_version: i32,
    /// `PRAGMA application_id`.
    pub application_id: i32,
}

/// What to load.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// For a new database: its facts and the statements that make its schema. `None`: the staged file has both.
    pub new: Option<(Facts, Vec<String>)>,
    /// The rows.
    pub items: Vec<Item>,
    /// The highest id ever given: the queue goes on behind it.
    pub sequence: i64,
}

/// Rows that the engine refused, by their place in the list, with its words.
pub type Refused = Vec<(usize, String)>;

/// Loads into a staged file.
pub fn load_file(staged: &Path, what: &Load) -> io::Result<Refused> {
    refuse_side_files(staged)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NOFOLLOW);
    if what.new.is_some() {
        options.create_new(true).mode(0o600);
    } else {
        regular(staged)?;
    }
    let file = options.open(staged)?;
    let mut versions = [1; 2];
    match &what.new {
        Some((facts, _)) => versions = [if facts.wal { 2 } else { 1 }; 2],
        None => {
            file.read_exact_at(&mut versions, VERSIONS.start as u64)?;
            file.write_all_at(&[1, 1], VERSIONS.start as u64)?;
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(staged, flags).map_err(failed)?;
    let refused = fill(&mut db, what);
    db.close().map_err(|(_, e)| failed(e))?;
    file.write_all_at(&versions, VERSIONS.start as u64)?;
    refused
}

/// [`load_file`] on bytes in memory: the new contents, and what was refused.
pub fn load_bytes(staged: &[u8], what: &Load) -> io::Result<(Vec<u8>, Refused)> {
    let mut db = Connection::open_in_memory().map_err(failed)?;
    let mut versions = vec![1; 2];
    match &what.new {
        Some((facts, _)) => versions = vec![if facts.wal { 2 } else { 1 }; 2],
        None => {
            versions = staged.get(VERSIONS).ok_or_else(|| invalid("shorter than a database header"))?.to_vec();
            load(&mut db, "main", staged, false)?;
        }
    }
    let refused = fill(&mut db, what)?;
    let mut bytes = db.serialize("main").map_err(failed)?.to_vec();
    if let Some(place) = bytes.get_mut(VERSIONS) {
        place.copy_from_slice(&versions);
    }
    Ok((bytes, refused))
}

fn fill(db: &mut Connection, what: &Load) -> io::Result<Refused> {
    fill_sql(db, what).map_err(failed)
}

fn fill_sql(db: &mut Connection, what: &Load) -> rusqlite::Result<Refused> {
    if let Some((facts, _)) = &what.new {
        let encoding = match facts.encoding {
            2 => "UTF-16le",
            3 => "UTF-16be",
            _ => "UTF-8",
        };
        // Before anything is stored: these can only be chosen for an empty database.
        db.execute_batch(&format!(
            "PRAGMA page_size = {}; PRAGMA encoding = '{encoding}'; PRAGMA auto_vacuum = {};",
            facts.page_size, facts.auto_vacuum
        ))?;
    }
    defend(db)?;
    db.execute_batch(
        "PRAGMA main.locking_mode = EXCLUSIVE; PRAGMA main.journal_mode = MEMORY; PRAGMA main.synchronous = OFF;",
    )?;
    let transaction = db.transaction()?;
    if let Some((facts, create)) = &what.new {
        create.iter().try_for_each(|sql| transaction.execute(sql, []).map(|_| ()))?;
        let (version, id) = (facts.user_version, facts.application_id);
        transaction.execute_batch(&format!("PRAGMA user_version = {version}; PRAGMA application_id = {id};"))?;
    }
    let refused = insert(&transaction, &what.items)?;
    sequence(&transaction, what.sequence)?;
    transaction.commit()?;
    Ok(refused)
}

fn insert(db: &Transaction<'_>, items: &[Item]) -> rusqlite::Result<Refused> {
    let mut refused = Vec::new();
    let mut prepared: Option<(Vec<&str>, rusqlite::Statement<'_>)> = None;
    for (n, item) in items.iter().enumerate() {
        let names: Vec<&str> = item.extra.iter().map(|(name, _)| name.as_str()).collect();
        if prepared.as_ref().is_none_or(|(known, _)| *known != names) {
            let columns: String = names.iter().map(|name| format!(", {}", quoted(name))).collect();
            let marks = ", ?".repeat(names.len());
            let sql = format!(
                "INSERT INTO main.sync_queue (id, payload, priority, created_at, ttl_seconds, retry_count, \
                 next_retry_at{columns}) VALUES (?, ?, ?, ?, ?, ?, ?{marks})"
            );
            prepared = match db.prepare(&sql) {
                Ok(statement) => Some((names, statement)),
                Err(e) => {
                    refused.push((n, e.to_string()));
                    None
                }
            };
        }
        let Some((_, statement)) = &mut prepared else { continue };
        let mut values: Vec<&dyn ToSql> = vec![
            &item.id,
            &item.payload,
            &item.priority,
            &item.created_at,
            &item.ttl_seconds,
            &item.retry_count,
            &item.next_retry_at,
        ];
        let extra: Vec<rusqlite::types::Value> = item.extra.iter().map(|(_, cell)| value(cell)).collect();
        values.extend(extra.iter().map(|v| v as &dyn ToSql));
        if let Err(e) = statement.execute(values.as_slice()) {
            refused.push((n, e.to_string()));
        }
    }
    Ok(refused)
}

/// AUTOINCREMENT remembers the highest id ever given; the rows alone would let it give ids of rows already sent.
fn sequence(db: &Transaction<'_>, highest: i64) -> rusqlite::Result<()> {
    let known = "SELECT count(*) FROM main.sqlite_schema WHERE name = 'sqlite_sequence'";
    if highest <= 0 || db.query_row(known, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(());
    }
    let name = crate::queue::TABLE;
    let update = "UPDATE main.sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1";
    if db.execute(update, params![name, highest])? == 0 {
        db.execute("INSERT INTO main.sqlite_sequence (name, seq) VALUES (?1, ?2)", params![name, highest])?;
    }
    Ok(())
}

fn value(cell: &Cell) -> rusqlite::types::Value {
    use rusqlite::types::Value;
    match cell {
        Cell::Null => Value::Null,
        Cell::Integer(n) => Value::Integer(*n),
        Cell::Real(x) => Value::Real(*x),
        Cell::Text(t) => Value::Text(String::from_utf8_lossy(t).into_owned()),
        Cell::Blob(b) => Value::Blob(b.clone()),
    }
}
