//! Whole database files: the check, quick and full, alone and beside the real engine.

use pyvorin_recovery::sqlite::ReadAt as _;
use pyvorin_recovery::sqlite::check::{self, Scope, Structure};
use pyvorin_recovery::sqlite::header;
use pyvorin_recovery::sqlite::overlay::Overlay;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, MAIN_DB};

use super::meter::Metered;

/// Checks a file. The reads are counted: a full check reads each page once, a quick one a few pages.
pub fn examine(data: &[u8], scope: Scope) -> Structure {
    let file = Metered::new(data);
    let page_size = header::parse(data).map_or(4096, |h| h.page_size);
    let mut asked = 0_u64;
    let found = check::check(&Overlay::alone(&file, page_size), scope, &mut || {
        asked += 1;
        true
    })
    .unwrap();
    let pages = file.size().div_ceil(u64::from(page_size));
    // Sound: the whole file once, its interior pages, roots and schema before that, and values in overflow pages where
    // they lie. Damaged: a second pass that names rows, and a bounded number of steps along chains that lead nowhere.
    let bound = if found.sound() { 3 * pages + 8 } else { 8 * pages + 1024 };
    assert!(file.read() <= bound * u64::from(page_size), "{} bytes read, bound {bound} pages", file.read());
    assert!(!found.out_of_time, "a check that may go on goes on");
    found
}

/// A whole file.
pub fn file(data: &[u8]) {
    let full = examine(data, Scope::Full);
    if data.len().is_multiple_of(16) {
        assert_eq!(full, examine(data, Scope::Full), "the same bytes give the same verdict");
    }
    let quick = examine(data, Scope::Quick);
    // What the short look sees, the long one sees too.
    assert!(quick.sound() || !full.sound(), "quick {:?} full {:?}", quick.findings, full.findings);
    // A check that is stopped at once says so and claims nothing it has not read.
    let source = data.to_vec();
    let stopped = Overlay::alone(&source, header::parse(data).map_or(4096, |h| h.page_size));
    let _ = check::check(&stopped, Scope::Full, &mut || false).unwrap();
}

/// What the engine says of a database in memory: `None` when it gives no answer within its limits. Only the files' own
/// expressions run, over values that the limit keeps short.
pub fn engine_says(data: &[u8]) -> Option<Result<(), String>> {
    let mut bytes = data.to_vec();
    if bytes.len() > 19 {
        // A database in memory cannot be in WAL mode.
        bytes[18] = bytes[18].min(1);
        bytes[19] = bytes[19].min(1);
    }
    let mut conn = Connection::open_in_memory().ok()?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).ok()?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false).ok()?;
    conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, 1 << 20).ok()?;
    let opened = conn.deserialize_read_exact(MAIN_DB, bytes.as_slice(), bytes.len(), true);
    let answer = opened.and_then(|()| {
        let mut statement = conn.prepare("PRAGMA integrity_check(1)")?;
        statement.query_row([], |row| row.get::<_, String>(0))
    });
    match answer {
        Ok(line) if line == "ok" => Some(Ok(())),
        Ok(line) => Some(Err(line)),
        Err(rusqlite::Error::SqliteFailure(e, _))
            if matches!(
                e.code,
                rusqlite::ErrorCode::OperationInterrupted
                    | rusqlite::ErrorCode::OutOfMemory
                    | rusqlite::ErrorCode::TooBig
            ) =>
        {
            None
        }
        Err(e) => Some(Err(e.to_string())),
    }
}

/// Called sound by the check alone: nothing found, and nothing left for the engine to look at.
pub fn called_sound(data: &[u8]) -> bool {
    let found = examine(data, Scope::Full);
    found.sound() && found.coverage.for_engine.is_empty()
}

/// Where the engine says that a database is not well, a full check never calls it sound by itself.
pub fn engine(data: &[u8]) {
    if data.len() < 512 || !called_sound(data) {
        return;
    }
    if let Some(Err(line)) = engine_says(data) {
        panic!("called sound, and integrity_check says: {line}");
    }
}
