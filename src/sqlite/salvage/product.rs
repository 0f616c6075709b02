//! The schema of the documented product, for a database that says nothing of its own and was never seen whole.
//!
//! ASSUMED, not documented: the columns of a reading follow the product's own type, the statements are ours. Rows are
//! only put into these tables where they fit them, so a wrong guess leaves them in lost-and-found.

use super::SavedSchema;
use super::catalog::Entry;

const TABLES: [(&str, &str, &str, &str); 3] = [
    (
        "table",
        "readings",
        "readings",
        "CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, sensor_name TEXT NOT NULL, timestamp REAL NOT NULL,\n  \
         value REAL NOT NULL, unit TEXT, metadata TEXT)",
    ),
    (
        "table",
        "privacy_audit",
        "privacy_audit",
        "CREATE TABLE privacy_audit (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp REAL NOT NULL, action TEXT NOT NULL,\n  \
         details TEXT, prev_hash TEXT, record_hash TEXT)",
    ),
    (
        "index",
        "idx_readings_sensor_time",
        "readings",
        "CREATE INDEX idx_readings_sensor_time ON readings(sensor_name, timestamp)",
    ),
];

/// The tables of the store.
pub fn store() -> SavedSchema {
    let entry = |(kind, name, table, sql): (&str, &str, &str, &str)| Entry {
        kind: kind.to_string(),
        name: name.to_string(),
        table: table.to_string(),
        root: 0,
        sql: sql.to_string(),
    };
    SavedSchema { facts: super::Facts::default(), entries: TABLES.map(entry).to_vec() }
}
