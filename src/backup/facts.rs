//! What is in a database that is one file without a log: for the manifest of a backup, and for the comparison with it
//! before anything is put in place. Read from its bytes; the engine is not asked.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::archive::manifest::{Database, File, Kind};
use crate::archive::pages::Index;
use crate::boot::table;
use crate::edge::Look;
use crate::sqlite::bytes::be16;
use crate::sqlite::check::{self, SchemaEntry, Scope};
use crate::sqlite::overlay::{Fold, Overlay};
use crate::sqlite::rows::{self, Claimed};
use crate::sqlite::{header, read_vec, schema};

const PIECE: usize = 1 << 20;

/// SHA-256 over the statements of a schema by type and name: two databases of one schema have the same, wherever their
/// pages lie.
#[must_use]
pub fn schema_digest(entries: &[SchemaEntry]) -> String {
    let mut all: Vec<[&str; 4]> =
        entries.iter().map(|e| [e.kind.as_str(), e.name.as_str(), e.table.as_str(), e.sql.as_str()]).collect();
    all.sort_unstable();
    let mut hash = Sha256::new();
    for text in all.iter().flatten() {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    format!("{:x}", hash.finalize())
}

/// Rows of every ordinary table with rowids, counted by its leaves.
fn counts(pages: &Overlay<'_>, entries: &[SchemaEntry], usable: u32) -> io::Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    let ordinary = |e: &&SchemaEntry| {
        let named = !e.name.to_lowercase().starts_with("sqlite_");
        e.kind == "table" && e.root > 0 && named && schema::table(&e.sql).is_ok_and(|t| !t.without_rowid)
    };
    for entry in entries.iter().filter(ordinary) {
        let mut rows = 0;
        for page in rows::leaves(pages, entry.root, usable, &mut Claimed::none(pages.pages))?.into_iter().flatten() {
            // Number of cells of a leaf (file format 2, section 1.6); page 1 is never one of these.
            let bytes = pages.page(page)?.unwrap_or_default();
            rows += u64::from(be16(&bytes, 3));
        }
        counts.insert(entry.name.clone(), rows);
    }
    Ok(counts)
}

/// Schema digest, rows and page size of a single database file.
///
/// # Errors
/// It cannot be read, or is no database.
pub fn of(look: &dyn Look, path: &Path, name: &str) -> io::Result<Database> {
    let head = read_vec(&*look.open(path)?, 0, header::LEN)?;
    let header = header::parse(&head).map_err(|e| io::Error::other(format!("{}: {e:?}", path.display())))?;
    let usable = header.page_size.saturating_sub(u32::from(header.reserved));
    table::with_pages(look, path, &Fold::nothing(header.page_size), &mut |pages| {
        let structure = check::check(pages, Scope::Quick, &mut || true)?;
        Ok(Database {
            name: name.to_string(),
            page_size: header.page_size,
            schema_sha256: schema_digest(&structure.schema),
            rows: counts(pages, &structure.schema, usable)?,
            ..Database::default()
        })
    })
}

/// Reads a file through: its length and digest; with `index` every page is added to it.
///
/// # Errors
/// It cannot be read.
pub fn through(look: &dyn Look, path: &Path, mut visit: impl FnMut(&[u8])) -> io::Result<(u64, [u8; 32])> {
    let mut reader = look.reader(path)?;
    let mut piece = vec![0; PIECE];
    let (mut hash, mut len) = (Sha256::new(), 0);
    loop {
        let n = fill(&mut *reader, &mut piece)?;
        let Some(bytes) = piece.get(..n).filter(|b| !b.is_empty()) else { break };
        hash.update(bytes);
        visit(bytes);
        len += n as u64;
    }
    Ok((len, hash.finalize().into()))
}

/// Fills the whole of `into`, or as much as there is.
///
/// # Errors
/// It cannot be read.
pub fn fill(reader: &mut dyn io::Read, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = into.get_mut(done..).filter(|r| !r.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// A database as a member, whole: with its digest, and its pages added to `index`.
///
/// # Errors
/// It cannot be read, or is no database.
pub fn member(look: &dyn Look, path: &Path, name: &str, mut index: Option<&mut Index>) -> io::Result<File> {
    let facts = of(look, path, name)?;
    let size = facts.page_size as usize;
    let (len, sha256) = through(look, path, |bytes| {
        if let Some(index) = &mut index {
            bytes.chunks(size).for_each(|page| index.push(page));
        }
    })?;
    if let Some(index) = index {
        index.sha256 = sha256;
    }
    let sha256 = hex(&sha256);
    let database = Database { len, sha256: sha256.clone(), ..facts };
    Ok(File { name: format!("data/{name}.db"), kind: Kind::Database, len, sha256, database: Some(database) })
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
