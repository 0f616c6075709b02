//! Schemas kept apart from their databases: the record of the last good boot, and backups.
//!
//! The record is written in the OS, when a slot is marked good, and only when the schema has changed; never by a clean
//! boot from the initramfs (I12). With it a database whose page 1 is gone gets its names, roots and header facts back.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::act::make_dirs;
use super::plan::side;
use super::sense::{read_record, small_file};
use crate::config::{Database, Settings};
use crate::edge::{FileKind, Look, Machine, durable, engine};
use crate::record::{self, Decoded};
use crate::sqlite::bytes::be32;
use crate::sqlite::header;
use crate::sqlite::salvage::source::{Images, Source};
use crate::sqlite::salvage::{Facts, SavedSchema, catalog, side as laid};
use crate::sqlite::{ReadAt, read_vec};

/// Kind of the record, and what its file name begins with.
pub const SCHEMA: &str = "schema";
/// Directories of backups looked into, newest names first.
const MAX_BACKUPS: usize = 64;

/// A schema with the name of its database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    database: String,
    schema: SavedSchema,
}

/// Where the record of a database stands.
pub fn path(settings: &Settings, database: &str) -> PathBuf {
    settings.state_dir.join(format!("{SCHEMA}-{database}"))
}

/// Records that may be of this file, each with the name of the source as reports print it.
pub fn records(look: &dyn Look, settings: &Settings, db: &Path) -> Vec<(String, PathBuf)> {
    let mine = |d: &&Database| d.location == db || d.path == db || d.location.file_name() == db.file_name();
    let known = settings.databases.iter().filter(mine).map(|d| path(settings, &d.name));
    let there = |p: &PathBuf| matches!(look.stat(p), Ok(Some(s)) if s.kind == FileKind::File);
    known.filter(there).map(|p| ("schema of the last good boot".to_string(), p)).collect()
}

/// A record; `None` when there is none that can be read.
pub fn read(look: &dyn Look, path: &Path) -> Option<SavedSchema> {
    match read_record::<Record>(look, path, SCHEMA) {
        Decoded::Ok(record) => Some(record.schema),
        Decoded::Newer { .. } | Decoded::Damaged(_) => None,
    }
}

/// The schema of a sound database file, its log laid over it; `None` when it is not whole.
pub fn of_database(look: &dyn Look, path: &Path) -> Option<SavedSchema> {
    let file = look.open(path).ok()?;
    let log = look.open(&side(path, "-wal")).ok().filter(|l| l.size() > 0);
    of_files(&*file, log.as_deref()).ok().flatten()
}

fn of_files(db: &dyn ReadAt, log: Option<&dyn ReadAt>) -> io::Result<Option<SavedSchema>> {
    let over = match log {
        Some(log) => laid::log(log, Some(db), None, None)?,
        None => laid::Laid::default(),
    };
    let first = match (over.images.get(&1), log) {
        (Some(at), Some(log)) => read_vec(log, *at, header::LEN)?,
        _ => read_vec(db, 0, header::LEN)?,
    };
    let Ok(h) = header::parse(&first) else { return Ok(None) };
    if over.page_size != 0 && over.page_size != h.page_size {
        return Ok(None);
    }
    let images = (over.images, Images::new());
    let mut source = Source::new(Some(db), log, images, (h.page_size, h.reserved), over.pages);
    let found = catalog::read(&mut source, &[]);
    if !found.whole || found.entries.is_empty() {
        return Ok(None);
    }
    let facts = Facts {
        page_size: h.page_size,
        reserved: h.reserved,
        encoding: h.encoding,
        auto_vacuum: if h.largest_root == 0 { 0 } else { 1 + u32::from(be32(&first, 64) != 0) },
        user_version: h.user_version,
        application_id: h.application_id,
        wal_mode: h.wal_mode,
    };
    Ok(Some(SavedSchema { facts, entries: found.entries }))
}

/// Keeps the schema of every supervised database that has a whole one, where it differs from what is kept. A record
/// of a newer version is left alone. Returns the names of the databases whose record was written.
pub fn keep(machine: &mut dyn Machine, settings: &Settings) -> io::Result<Vec<String>> {
    let mut written = Vec::new();
    for database in &settings.databases {
        let Some(schema) = of_database(machine.as_look(), &database.location) else { continue };
        let path = path(settings, &database.name);
        let old = read_record::<Record>(machine.as_look(), &path, SCHEMA);
        let record = Record { database: database.name.clone(), schema };
        if matches!(old, Decoded::Newer { .. }) || old == Decoded::Ok(record.clone()) {
            continue;
        }
        make_dirs(machine, &settings.state_dir)?;
        durable::replace(machine, &path, &record::encode(SCHEMA, &record))?;
        written.push(database.name.clone());
    }
    Ok(written)
}

/// A schema file named by a person: CREATE statements, a record of ours, or a database.
pub fn schema_file(look: &dyn Look, path: &Path) -> io::Result<SavedSchema> {
    let file = look.open(path)?;
    if read_vec(&*file, 0, 16)? == header::MAGIC {
        return of_database(look, path).ok_or_else(|| io::Error::other("the schema of that database is not whole"));
    }
    if let Some(schema) = read(look, path) {
        return Ok(schema);
    }
    let bytes = small_file(look, path)?.unwrap_or_default();
    let text = String::from_utf8(bytes).map_err(io::Error::other)?;
    Ok(SavedSchema { facts: Facts::default(), entries: engine::schema_of_sql(&text)? })
}

/// Copies of a database in a directory of decrypted backups: under its own name in the directory itself or in one of
/// its directories; the newest first, by the time of the file.
pub fn backups(look: &dyn Look, dir: &Path, name: &OsStr) -> Vec<PathBuf> {
    let mut found: Vec<(i64, PathBuf)> = Vec::new();
    let mut consider = |path: PathBuf| {
        if let Ok(Some(s)) = look.stat(&path)
            && s.kind == FileKind::File
            && s.len > 0
        {
            found.push((s.mtime_ns, path));
        }
    };
    consider(dir.join(name));
    let mut names = look.list(dir).unwrap_or_default();
    names.sort();
    for inner in names.into_iter().rev().take(MAX_BACKUPS) {
        let inner = dir.join(inner);
        if matches!(look.stat(&inner), Ok(Some(s)) if s.kind == FileKind::Directory) {
            consider(inner.join(name));
        }
    }
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// The first of these copies that is one file and that the engine calls sound. The engine reads it as immutable.
pub fn newest_sound(machine: &mut dyn Machine, copies: &[PathBuf]) -> Option<PathBuf> {
    for copy in copies {
        let lone = ["-wal", "-journal"].iter().all(|s| matches!(machine.stat(&side(copy, s)), Ok(None)));
        if lone && machine.engine_check(copy).is_ok_and(|(lines, _)| lines == ["ok"]) {
            return Some(copy.clone());
        }
        log::warn!("{}: this copy is not a sound, folded database; an older one is looked for", copy.display());
    }
    None
}
