//! The real engine, only ever on copies.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::crash::Files;
use super::site::Scratch;

/// Every row of every table: `table/key` to the columns as text.
pub type Rows = BTreeMap<String, String>;

fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".into(),
        ValueRef::Integer(i) => i.to_string(),
        ValueRef::Real(r) => format!("{r:?}"),
        ValueRef::Text(t) => format!("'{}'", String::from_utf8_lossy(t)),
        ValueRef::Blob(b) => format!("x{b:02x?}"),
    }
}

/// Reads all rows; an error is the engine's own word on a damaged file.
pub fn rows(conn: &Connection) -> rusqlite::Result<Rows> {
    let mut out = Rows::new();
    let mut list = conn.prepare("SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%'")?;
    let tables: Vec<String> = list.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?;
    for table in tables {
        let mut keys = conn.prepare("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")?;
        let keys: Vec<String> = keys.query_map([&table], |r| r.get(0))?.collect::<Result<_, _>>()?;
        let mut all = conn.prepare(&format!("SELECT * FROM \"{table}\" NOT INDEXED"))?;
        let columns: Vec<String> = all.column_names().map(str::to_owned).collect();
        let mut cursor = all.query([])?;
        while let Some(row) = cursor.next()? {
            let mut key = table.clone();
            let mut content = String::new();
            for (i, column) in columns.iter().enumerate() {
                let value = text(row.get_ref(i)?);
                if keys.contains(column) {
                    key.push('/');
                    key.push_str(&value);
                }
                content.push_str(&value);
                content.push('|');
            }
            out.insert(key, content);
        }
    }
    Ok(out)
}

/// What an agent would find when it opened these files.
pub struct Found {
    pub rows: Result<Rows, String>,
    pub integrity: String,
    /// The main file after a clean checkpoint and close.
    pub folded: Vec<u8>,
    /// Frames the engine accepted, by `wal_checkpoint`; -1 when not in WAL mode.
    pub frames: i64,
}

/// Opens a copy of the files with the engine, reads all, checkpoints, closes.
pub fn open(files: &Files) -> Found {
    let scratch = Scratch::new("engine");
    let db = scratch.path().join("copy.db");
    files.without_shm().write(&db);
    let mut found = Found { rows: Err("not opened".into()), integrity: String::new(), folded: Vec::new(), frames: -1 };
    match Connection::open(&db) {
        Err(e) => found.rows = Err(e.to_string()),
        Ok(conn) => {
            found.rows = rows(&conn).map_err(|e| e.to_string());
            found.integrity = integrity(&conn);
            found.frames = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |r| r.get(1)).unwrap_or(-2);
            let _ = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get::<_, i64>(1));
            let _ = conn.close();
        }
    }
    found.folded = std::fs::read(&db).unwrap_or_default();
    found
}

/// The engine's verdict on the structure; errors come back as text.
pub fn integrity(conn: &Connection) -> String {
    let lines = conn
        .prepare("PRAGMA integrity_check")
        .and_then(|mut statement| statement.query_map([], |r| r.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>());
    match lines {
        Ok(lines) => lines.join("; "),
        Err(e) => format!("error: {e}"),
    }
}

/// Opens for writing as the agent would, with the settings given.
pub fn writer(path: &Path, setup: &super::crash::Setup) -> Connection {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .unwrap();
    conn.execute_batch(&format!(
        "PRAGMA page_size={}; PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint={}; \
         PRAGMA cache_size={};",
        setup.page_size, setup.autocheckpoint, setup.cache
    ))
    .unwrap();
    conn
}

/// Keys of the rows of a rowid table that the engine can still read, from the low end up and from the high end down.
pub fn scan(db: &[u8], table: &str) -> std::collections::BTreeSet<String> {
    let scratch = Scratch::new("scan");
    let path = scratch.path().join("fold.db");
    std::fs::write(&path, db).unwrap();
    let mut keys = std::collections::BTreeSet::new();
    let Ok(conn) = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY) else { return keys };
    for order in ["ASC", "DESC"] {
        let sql = format!("SELECT rowid, * FROM \"{table}\" NOT INDEXED ORDER BY rowid {order}");
        let Ok(mut statement) = conn.prepare(&sql) else { continue };
        let mut rows = statement.query([]).unwrap();
        while let Ok(Some(row)) = rows.next() {
            keys.extend(row.get::<_, i64>(0).map(|id| format!("{table}/{id}")));
        }
    }
    keys
}

/// Where the engine says each page of each tree stands (`dbstat`): tree, kind (`interior`, `leaf`, `overflow`) and page,
/// in the order of keys. Empty when it cannot open the files.
pub fn pages(files: &super::injury::Set) -> Vec<(String, String, u32)> {
    let scratch = Scratch::new("pages");
    let db = scratch.path().join("copy.db");
    files.write(&db);
    let list = || -> rusqlite::Result<Vec<(String, String, u32)>> {
        let conn = Connection::open(&db)?;
        let mut all = conn.prepare("SELECT name, pagetype, pageno FROM dbstat ORDER BY name, path")?;
        let kind = |k: String| if k == "internal" { "interior".into() } else { k };
        let rows = all.query_map([], |r| Ok((r.get(0)?, kind(r.get(1)?), r.get(2)?)))?;
        rows.collect()
    };
    list().unwrap_or_default()
}
