//! Crash states by the real engine: a connection stays open while its three files are copied, which is what a killed
//! writer leaves. (This process holds no other connection to them, so the locks lost by the copying do not matter.)

use std::path::Path;

use super::engine;
use super::rng::Rng;
use super::site::Scratch;
use super::work::{Kind, Work};

/// How the writer was set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub kind: Kind,
    pub page_size: usize,
    pub autocheckpoint: usize,
    /// Cache in pages; few make a large transaction spill into the log before its commit.
    pub cache: usize,
    pub accounts: usize,
}

impl Setup {
    pub fn new(kind: Kind, page_size: usize, autocheckpoint: usize) -> Self {
        let cache = if kind == Kind::Spill { 10 } else { 2000 };
        Self { kind, page_size, autocheckpoint, cache, accounts: 2000 }
    }
}

/// The database and its side files as bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    pub db: Vec<u8>,
    pub wal: Option<Vec<u8>>,
    pub shm: Option<Vec<u8>>,
}

impl Files {
    pub fn read(db: &Path) -> Self {
        Self {
            db: std::fs::read(db).unwrap_or_default(),
            wal: std::fs::read(side(db, "-wal")).ok(),
            shm: std::fs::read(side(db, "-shm")).ok(),
        }
    }

    pub fn write(&self, db: &Path) {
        std::fs::write(db, &self.db).unwrap();
        for (suffix, bytes) in [("-wal", &self.wal), ("-shm", &self.shm)] {
            if let Some(bytes) = bytes {
                std::fs::write(side(db, suffix), bytes).unwrap();
            }
        }
    }

    pub fn without_shm(&self) -> Self {
        Self { shm: None, ..self.clone() }
    }

    pub fn wal(&self) -> &[u8] {
        self.wal.as_deref().unwrap_or_default()
    }
}

/// `edge_store.db` and `-wal` give `edge_store.db-wal`.
pub fn side(db: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = db.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A killed writer: its files, and what it had been told is safe.
pub struct Crash {
    pub files: Files,
    pub work: Work,
    /// The files a few commits earlier, when one was asked for.
    pub before: Option<Files>,
}

/// Runs a workload for `commits` commits and kills it there, or a little later inside a transaction.
pub fn kill(setup: &Setup, commits: usize, mid_transaction: bool, rng: &mut Rng) -> Crash {
    kill_with_past(setup, commits, usize::MAX, mid_transaction, rng)
}

/// The same, with the files as they were `past` commits before the end kept too.
pub fn kill_with_past(setup: &Setup, commits: usize, past: usize, mid: bool, rng: &mut Rng) -> Crash {
    let scratch = Scratch::new("kill");
    let db = scratch.path().join("live.db");
    let conn = engine::writer(&db, setup);
    let mut work = Work::new(setup.kind, setup.accounts);
    work.create(&conn);
    if setup.kind == Kind::Transfers {
        let _ = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get::<_, i64>(1)).unwrap();
    }
    let mut before = None;
    for n in 0..commits {
        if past != usize::MAX && n + past == commits {
            before = Some(Files::read(&db));
        }
        work.commit(&conn, rng);
    }
    if mid {
        work.unfinished(&conn, rng);
    }
    Crash { files: Files::read(&db), work, before }
}

/// Puts the files down, opens them with the engine as the agent would after a boot, and lets `write` go on;
/// killed again. The closure gets the rows that the engine recovered.
pub fn reopen(
    files: &Files,
    setup: &Setup,
    write: impl FnOnce(&rusqlite::Connection, &engine::Rows),
) -> Result<Files, String> {
    let scratch = Scratch::new("reopen");
    let db = scratch.path().join("live.db");
    files.write(&db);
    let conn = engine::writer(&db, setup);
    let recovered = engine::rows(&conn).map_err(|e| e.to_string())?;
    write(&conn, &recovered);
    Ok(Files::read(&db))
}
