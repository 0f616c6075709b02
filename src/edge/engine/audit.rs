//! Appends to the agent's audit chain: the one place where the engine opens a database that is in use. Only in the OS,
//! only while nothing else has it open, only when it has been found sound and complete.
//!
//! One immediate transaction: the last record is read under the write lock and must be the one that was verified, so no
//! record of the agent can come between; either all records go in or none.

use std::io;
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::{defend, failed, regular};
use crate::audit::dialect::{Dialect, Parsed, Record};
use crate::sqlite::rows::Cell;

/// A record before it has its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Seconds since the epoch.
    pub timestamp: f64,
    /// Action.
    pub action: String,
    /// Details as they are stored: JSON in ASCII.
    pub details: Vec<u8>,
}

/// What to append, and behind what.
#[derive(Clone, Debug)]
pub struct Append<'a> {
    /// How records are hashed.
    pub dialect: Dialect,
    /// `prev_hash` of the first record of an empty chain.
    pub genesis: Cell,
    /// Id and hash of the record that must be the last.
    pub expected: Option<(i64, String)>,
    /// The records, in order.
    pub entries: &'a [Entry],
}

/// Appends; gives id and hash of the last record. When it returns, a power cut cannot take the records back.
pub fn append(path: &Path, request: &Append<'_>) -> io::Result<(i64, String)> {
    regular(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut db = Connection::open_with_flags(path, flags).map_err(failed)?;
    let head = records(&mut db, request);
    // A failed close leaves the log to the next opener, as a killed process does; the commit stands.
    if let Err((_, e)) = db.close() {
        log::warn!("{}: {e}", path.display());
    }
    head
}

fn records(db: &mut Connection, request: &Append<'_>) -> io::Result<(i64, String)> {
    defend(db).map_err(failed)?;
    db.execute_batch("PRAGMA busy_timeout = 0; PRAGMA synchronous = FULL;").map_err(failed)?;
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let sql = "SELECT id, record_hash FROM main.privacy_audit ORDER BY id DESC LIMIT 1";
    let last = transaction.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional().map_err(failed)?;
    if last != request.expected {
        return Err(io::Error::other("the chain grew since it was verified; nothing was put in"));
    }
    let mut head = last;
    for entry in request.entries {
        let prev = head.as_ref().map_or_else(|| request.genesis.clone(), |(_, h)| Cell::Text(h.clone().into_bytes()));
        let record = Record {
            id: 0,
            timestamp: Cell::Real(entry.timestamp),
            action: Cell::Text(entry.action.clone().into_bytes()),
            details: Cell::Text(entry.details.clone()),
            prev: prev.clone(),
            hash: Cell::Null,
        };
        let hash = Parsed::new(&record).ok().and_then(|parsed| request.dialect.hash(&parsed));
        let hash = hash.ok_or_else(|| io::Error::other("a record cannot be hashed in the form of this chain"))?;
        let details = String::from_utf8_lossy(&entry.details);
        let insert = "INSERT INTO main.privacy_audit (timestamp, action, details, prev_hash, record_hash) \
                      VALUES (?1, ?2, ?3, ?4, ?5)";
        let values = params![entry.timestamp, entry.action, details, value(prev), hash];
        transaction.execute(insert, values).map_err(failed)?;
        head = Some((transaction.last_insert_rowid(), hash));
    }
    transaction.commit().map_err(failed)?;
    head.ok_or_else(|| io::Error::other("there was nothing to append"))
}

fn value(cell: Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Integer(n) => Value::Integer(n),
        Cell::Real(x) => Value::Real(x),
        Cell::Text(t) => Value::Text(String::from_utf8_lossy(&t).into_owned()),
        Cell::Blob(b) => Value::Blob(b),
    }
}
