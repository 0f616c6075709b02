//! The engine's part in the rungs below replay: indexes built again, a database written from salvaged rows, the rows of
//! a backup put where rows were lost. Each on a staged file, and on bytes for the simulated machine.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::super::TableGain;
use super::append::ready;
use super::{
    VERSIONS, damage, defend, failed, immutable_uri, integrity, load, merge, rebuild, refuse_side_files, regular,
};
use crate::sqlite::salvage::catalog::Entry;
use crate::sqlite::salvage::loss::TableLoss;
use crate::sqlite::salvage::{self, Input, Report};

const WRITE: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// Salvages into the new file `out`, which must not exist; `spill` is a directory for what the sorter of an index cannot
/// hold in memory. The file is complete and unsynced. After an error it must be discarded.
pub fn salvage_file(input: &Input<'_>, out: &Path, spill: &Path, tell: &mut dyn FnMut(&str)) -> io::Result<Report> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(out)?;
    let db = Connection::open_with_flags(out, WRITE).map_err(failed)?;
    let sink = rebuild::Rebuild::new(&db, Some((spill, file.try_clone()?)))?;
    let report = salvage::run(input, &mut { sink }, tell)?;
    db.close().map_err(|(_, e)| failed(e))?;
    if report.wal_mode && file.metadata()?.len() > 0 {
        file.write_all_at(&[2, 2], VERSIONS.start as u64)?;
    }
    Ok(report)
}

/// [`salvage_file`] into memory.
pub fn salvage_bytes(input: &Input<'_>, tell: &mut dyn FnMut(&str)) -> io::Result<(Vec<u8>, Report)> {
    let mut db = Connection::open_in_memory().map_err(failed)?;
    let report = salvage::run(input, &mut rebuild::Rebuild::new(&db, None)?, tell)?;
    let mut bytes = db.serialize("main").map_err(failed)?.to_vec();
    if let Some(versions) = bytes.get_mut(VERSIONS).filter(|_| report.wal_mode) {
        versions.fill(2);
    }
    Ok((bytes, report))
}

/// Builds every index of a staged file anew. Where an index is too damaged even to be cleared (VACUUM is no way
/// out: it copies indexes as they are), the rows are salvaged into a new file, and it is believed only when not one is
/// missing. `Some` says why neither was possible; the file is then good for nothing.
pub fn reindex_file(staged: &Path) -> io::Result<Option<String>> {
    regular(staged)?;
    refuse_side_files(staged)?;
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(staged)?;
    let mut versions = [0; 2];
    file.read_exact_at(&mut versions, VERSIONS.start as u64)?;
    file.write_all_at(&[1, 1], VERSIONS.start as u64)?;
    let mut why = {
        let db = Connection::open_with_flags(staged, WRITE).map_err(failed)?;
        reindex(&db)?
    };
    if why.is_some() {
        let mut copy = staged.as_os_str().to_os_string();
        copy.push(".rebuilt");
        let copy = Path::new(&copy);
        why = {
            let db = crate::edge::linux::file::open(staged)?;
            let spill = staged.parent().unwrap_or(Path::new("."));
            lossless(&salvage_file(&Input { db: Some(&db), ..Input::default() }, copy, spill, &mut |_| {})?)
        };
        if why.is_none() {
            std::fs::rename(copy, staged)?;
        } else if std::fs::symlink_metadata(copy).is_ok() {
            std::fs::remove_file(copy)?;
        }
    }
    let file = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(staged)?;
    file.write_all_at(&versions, VERSIONS.start as u64)?;
    Ok(why)
}

/// [`reindex_file`] on bytes in memory.
pub fn reindex_bytes(bytes: &[u8]) -> io::Result<(Vec<u8>, Option<String>)> {
    let versions = bytes.get(VERSIONS).unwrap_or(&[1, 1]).to_vec();
    let mut db = Connection::open_in_memory().map_err(failed)?;
    load(&mut db, "main", bytes, false)?;
    let mut why = reindex(&db)?;
    if why.is_some() {
        let (copy, report) = salvage_bytes(&Input { db: Some(&bytes.to_vec()), ..Input::default() }, &mut |_| {})?;
        why = lossless(&report);
        return Ok((copy, why));
    }
    Ok((taken(&mut db, &versions)?, why))
}

fn taken(db: &mut Connection, versions: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = db.serialize("main").map_err(failed)?.to_vec();
    if let Some(place) = bytes.get_mut(VERSIONS) {
        place.copy_from_slice(versions);
    }
    Ok(bytes)
}

/// Why a salvage was no mere rebuilding of indexes.
fn lossless(report: &Report) -> Option<String> {
    (!report.nothing_lost()).then(|| "the tables are not whole".to_string())
}

/// REINDEX, believed only when the engine then calls the whole database sound.
fn reindex(db: &Connection) -> io::Result<Option<String>> {
    ready(db, db).map_err(failed)?;
    if let Some(why) = refused(db.execute("REINDEX", []))? {
        return Ok(Some(why));
    }
    match integrity(db) {
        Ok(lines) if lines == ["ok"] => Ok(None),
        Ok(lines) => Ok(Some(lines.into_iter().next().unwrap_or_default())),
        Err(e) => damage(&e).map(Some).ok_or_else(|| failed(e)),
    }
}

fn refused(done: rusqlite::Result<usize>) -> io::Result<Option<String>> {
    match done {
        Ok(_) => Ok(None),
        Err(e) => damage(&e).map(Some).ok_or_else(|| failed(e)),
    }
}

/// Puts rows of `backup` into the staged `base` where `losses` say that rows were lost.
pub fn merge_file(base: &Path, backup: &Path, losses: &[TableLoss]) -> io::Result<Vec<TableGain>> {
    regular(base)?;
    regular(backup)?;
    refuse_side_files(base)?;
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(base)?;
    let mut versions = [0; 2];
    file.read_exact_at(&mut versions, VERSIONS.start as u64)?;
    file.write_all_at(&[1, 1], VERSIONS.start as u64)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let merged = Connection::open_with_flags(base, WRITE).map_err(failed).and_then(|mut db| {
        let donor = Connection::open_with_flags(immutable_uri(backup)?, flags).map_err(failed)?;
        merge::merge(&mut db, &donor, losses)
    });
    file.write_all_at(&versions, VERSIONS.start as u64)?;
    merged
}

/// [`merge_file`] on bytes in memory.
pub fn merge_bytes(base: &[u8], backup: &[u8], losses: &[TableLoss]) -> io::Result<(Vec<u8>, Vec<TableGain>)> {
    let versions = base.get(VERSIONS).unwrap_or(&[1, 1]).to_vec();
    let mut db = Connection::open_in_memory().map_err(failed)?;
    let mut donor = Connection::open_in_memory().map_err(failed)?;
    load(&mut db, "main", base, false)?;
    load(&mut donor, "main", backup, true)?;
    let gains = merge::merge(&mut db, &donor, losses)?;
    Ok((taken(&mut db, &versions)?, gains))
}

/// The schema that SQL text describes, as the engine understands it. Roots are not known from a text and stand as 0.
pub fn schema_of_sql(sql: &str) -> io::Result<Vec<Entry>> {
    let db = Connection::open_in_memory().map_err(failed)?;
    defend(&db).map_err(failed)?;
    db.execute_batch(sql).map_err(failed)?;
    let list = "SELECT type, name, tbl_name, coalesce(sql, '') FROM main.sqlite_schema ORDER BY rowid";
    let mut statement = db.prepare(list).map_err(failed)?;
    let entry = |r: &rusqlite::Row<'_>| {
        Ok(Entry { kind: r.get(0)?, name: r.get(1)?, table: r.get(2)?, root: 0, sql: r.get(3)? })
    };
    let rows = statement.query_map([], entry).map_err(failed)?;
    rows.collect::<rusqlite::Result<_>>().map_err(failed)
}
