//! An archive unpacked into a directory of our own: members by their numbers and never by their names, so that nothing in
//! an archive decides where a byte goes.

use std::io;
use std::path::{Path, PathBuf};

use age::Identity;

use super::facts;
use crate::archive::manifest::{Database, File, Kind, Manifest};
use crate::archive::pages::{self, Head};
use crate::archive::unseal::{self, Sink};
use crate::archive::{Code, Refusal};
use crate::edge::{Look, Machine};
use crate::sqlite::read_vec;

/// Bytes kept free on the volume, whatever an archive asks for.
const MARGIN: u64 = 16 << 20;

/// What came out.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// The manifest.
    pub manifest: Manifest,
    /// A file for each member, in its order.
    pub files: Vec<PathBuf>,
}

impl Unpacked {
    /// Its databases, whole or as changed pages.
    pub fn databases(&self) -> impl Iterator<Item = (&File, &Database, &Path)> {
        let all = self.manifest.files.iter().zip(&self.files);
        all.filter_map(|(file, path)| file.database.as_ref().map(|d| (file, d, path.as_path())))
    }
}

struct Files<'a> {
    machine: &'a mut dyn Machine,
    dir: &'a Path,
    files: Vec<PathBuf>,
    at: u64,
    done: u64,
    total: u64,
}

impl Files<'_> {
    fn current(&self) -> io::Result<&PathBuf> {
        self.files.last().ok_or_else(|| io::Error::other("no member has begun"))
    }
}

impl Sink for Files<'_> {
    fn manifest(&mut self, manifest: &Manifest) -> Result<(), Refusal> {
        let free = self.machine.free_bytes(self.dir).map_err(|e| Refusal::new(Code::Io, e.to_string()))?;
        self.total = manifest.total();
        let need = self.total.saturating_add(MARGIN);
        if free < need {
            let text = format!("{need} bytes are needed below {}, and {free} are free", self.dir.display());
            return Err(Refusal::new(Code::TooLarge, text));
        }
        Ok(())
    }

    fn begin(&mut self, _: &File) -> io::Result<()> {
        let path = self.dir.join(format!("member-{}", self.files.len() + 1));
        self.machine.write(&path, &[])?;
        self.files.push(path);
        self.at = 0;
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let path = self.current()?.clone();
        self.machine.write_at(&path, self.at, bytes)?;
        self.at += bytes.len() as u64;
        let before = self.done;
        self.done += bytes.len() as u64;
        if before >> 26 != self.done >> 26 {
            self.machine.progress(&format!("unpacked {} of {} MiB", self.done >> 20, self.total >> 20));
        }
        Ok(())
    }

    fn end(&mut self, _: &File) -> io::Result<()> {
        Ok(())
    }
}

/// Unpacks `archive` into the existing directory `dir`. Unsynced.
///
/// # Errors
/// Why it is refused; what lies in `dir` then is rubbish.
pub fn unpack(
    machine: &mut dyn Machine,
    archive: &Path,
    identities: &[&dyn Identity],
    dir: &Path,
) -> Result<Unpacked, Refusal> {
    let cannot = |e: io::Error| Refusal::new(Code::Io, format!("{}: {e}", archive.display()));
    let input = machine.reader(archive).map_err(cannot)?;
    let most = machine.free_bytes(dir).map_err(cannot)?;
    let mut files = Files { machine, dir, files: Vec::new(), at: 0, done: 0, total: 0 };
    let manifest = unseal::unseal(input, identities, most, &mut files)?;
    Ok(Unpacked { manifest, files: files.files })
}

/// Turns the whole file `base` into the one that changed pages describe, in place, and proves it by its digest.
///
/// # Errors
/// The pages do not fit this base, or are none.
pub fn lay_over(machine: &mut dyn Machine, base: &Path, changed: &Path) -> Result<(), Refusal> {
    let cannot = |e: io::Error| Refusal::new(Code::Io, format!("{}: {e}", changed.display()));
    let (head, len) = {
        let file = machine.open(changed).map_err(cannot)?;
        (read_vec(&*file, 0, pages::HEAD).map_err(cannot)?, file.size())
    };
    let head = Head::parse(&head, len)?;
    let (base_len, sha256) = facts::through(machine.as_look(), base, |_| {}).map_err(cannot)?;
    if sha256 != head.base || base_len != u64::from(head.base_pages) * u64::from(head.page_size) {
        return Err(Refusal::new(Code::WrongBase, "it builds on another full backup than the one given"));
    }
    let size = head.record() as usize;
    let mut reader = machine.reader(changed).map_err(cannot)?;
    let mut skip = vec![0; pages::HEAD];
    facts::fill(&mut *reader, &mut skip).map_err(cannot)?;
    let mut record = vec![0; size];
    let mut before = 0;
    for _ in 0..head.changed {
        if facts::fill(&mut *reader, &mut record).map_err(cannot)? != size {
            return Err(Refusal::new(Code::BadPages, "changed pages end within a page"));
        }
        let number = record.first_chunk().map_or(0, |n| u32::from_be_bytes(*n));
        if number <= before || number > head.pages {
            return Err(Refusal::new(Code::BadPages, format!("page {number} stands behind page {before}")));
        }
        before = number;
        let at = u64::from(number - 1) * u64::from(head.page_size);
        machine.write_at(base, at, record.get(4..).unwrap_or_default()).map_err(cannot)?;
    }
    machine.set_len(base, u64::from(head.pages) * u64::from(head.page_size)).map_err(cannot)?;
    let (_, sha256) = facts::through(machine.as_look(), base, |_| {}).map_err(cannot)?;
    if sha256 != head.result {
        return Err(Refusal::new(Code::WrongDigest, "the changed pages do not give the database that was backed up"));
    }
    Ok(())
}

/// Compares a whole database file with what the manifest says of it.
///
/// # Errors
/// What differs.
pub fn compare(look: &dyn Look, path: &Path, said: &Database) -> Result<(), Refusal> {
    let bad = |text: String| Refusal::new(Code::BadDatabase, format!("{}: {text}", said.name));
    let is = facts::of(look, path, &said.name).map_err(|e| bad(e.to_string()))?;
    if is.page_size != said.page_size || is.schema_sha256 != said.schema_sha256 {
        return Err(bad("its schema is not the one that the manifest names".to_string()));
    }
    for (table, rows) in &is.rows {
        let named = said.rows.get(table).copied();
        if named != Some(*rows) {
            return Err(bad(format!("table {table} has {rows} rows, and {named:?} in the manifest")));
        }
    }
    if is.rows.len() != said.rows.len() {
        return Err(bad("it has other tables than the manifest names".to_string()));
    }
    Ok(())
}

/// True for a member that holds the configuration.
#[must_use]
pub fn is_config(file: &File) -> bool {
    file.kind == Kind::Config
}
