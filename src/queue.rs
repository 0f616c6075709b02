//! The agent's queue of unsent messages (`sync_queue`): what is a row that can be sent, what is not and why.
//!
//! A row is never changed on its way: ids, times and retries stay, and the payload stays the text that it was. What
//! cannot be sent goes into a file with the reason; nothing is dropped. Expired rows are rows: what to do with them is the
//! agent's choice.

pub mod history;
pub mod lines;
pub mod stats;

use crate::audit::json::{self, Value};
use crate::sqlite::rows::Cell;

/// Name of the table.
pub const TABLE: &str = "sync_queue";
/// Columns, as documented.
pub const COLUMNS: [&str; 7] =
    ["id", "payload", "priority", "created_at", "ttl_seconds", "retry_count", "next_retry_at"];
/// The documented schema, for a queue whose own is lost.
pub const SCHEMA: [&str; 2] = [
    "CREATE TABLE sync_queue (\n    id INTEGER PRIMARY KEY AUTOINCREMENT,\n    payload TEXT NOT NULL,\n    \
     priority INTEGER NOT NULL,\n    created_at REAL NOT NULL,\n    ttl_seconds INTEGER NOT NULL,\n    \
     retry_count INTEGER NOT NULL DEFAULT 0,\n    next_retry_at REAL NOT NULL DEFAULT 0\n)",
    "CREATE INDEX idx_sync_queue_priority\n    ON sync_queue(priority, next_retry_at)",
];
/// Largest id taken. AUTOINCREMENT goes on behind the largest ever given and fails at the end of its range, so a
/// damaged id must not use it up.
pub const MAX_ID: i64 = 1 << 53;

/// A row that can be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Id; `None` lets the queue give one.
    pub id: Option<i64>,
    /// JSON text of an object, exactly as it was stored.
    pub payload: String,
    /// 1 critical, 2 anomaly, 3 telemetry, 4 logs.
    pub priority: i64,
    /// Seconds since the epoch.
    pub created_at: f64,
    /// Lifetime.
    pub ttl_seconds: i64,
    /// Failed attempts.
    pub retry_count: i64,
    /// Not before this time.
    pub next_retry_at: f64,
    /// Columns that the documentation does not know.
    pub extra: Vec<(String, Cell)>,
}

/// A row that cannot, or rows that are gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rejected {
    /// Its id, where that much is known.
    pub id: Option<i64>,
    /// Instead of one id: the first and the last of rows that are gone, or may be; without a last where nothing bounds them.
    pub ids: Option<(i64, Option<i64>)>,
    /// Where it was found: a page, or a line of a file.
    pub place: String,
    /// Why.
    pub reason: String,
    /// Its values by column, as far as they are known.
    pub values: Vec<(String, Cell)>,
    /// Its bytes, where they could not be understood.
    pub bytes: Vec<u8>,
}

/// A row by its columns to an item, or the reason why it is none.
pub fn item(id: Option<i64>, columns: &[(String, Cell)]) -> Result<Item, String> {
    let cell = |name: &str| columns.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, c)| c);
    let integer = |name: &str| match cell(name) {
        Some(Cell::Integer(n)) => Ok(*n),
        Some(Cell::Null) | None => Err(format!("{name} is missing")),
        Some(_) => Err(format!("{name} is no integer")),
    };
    #[allow(clippy::cast_precision_loss)] // a time in whole seconds is exact
    let time = |name: &str| match cell(name) {
        Some(Cell::Real(x)) if x.is_finite() => Ok(*x),
        Some(Cell::Integer(n)) if n.unsigned_abs() < 1 << 53 => Ok(*n as f64),
        Some(Cell::Null) | None => Err(format!("{name} is missing")),
        Some(_) => Err(format!("{name} is no finite number")),
    };
    let payload = match cell("payload") {
        Some(Cell::Text(text)) => std::str::from_utf8(text).map_err(|_| "payload is not UTF-8 text".to_string())?,
        Some(Cell::Null) | None => return Err("payload is missing".to_string()),
        Some(_) => return Err("payload is no text".to_string()),
    };
    match json::loads(payload.as_bytes()) {
        Ok(Value::Object(_)) => {}
        Ok(_) => return Err("payload is JSON and no object".to_string()),
        Err(why) => return Err(format!("payload is no JSON: {why}")),
    }
    let priority = integer("priority")?;
    if !(1..=4).contains(&priority) {
        return Err(format!("priority {priority} is not one of 1 to 4"));
    }
    let retry_count = integer("retry_count")?;
    if retry_count < 0 {
        return Err(format!("retry_count {retry_count} is negative"));
    }
    if let Some(id) = id.filter(|id| !(1..=MAX_ID).contains(id)) {
        return Err(format!("id {id} was never given by a queue"));
    }
    let known = |name: &str| COLUMNS.iter().any(|c| c.eq_ignore_ascii_case(name));
    Ok(Item {
        id,
        payload: payload.to_string(),
        priority,
        created_at: time("created_at")?,
        ttl_seconds: integer("ttl_seconds")?,
        retry_count,
        next_retry_at: time("next_retry_at")?,
        extra: columns.iter().filter(|(name, _)| !known(name)).cloned().collect(),
    })
}
