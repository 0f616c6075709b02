//! What goes into a backup: snapshots of the databases, whole or as the pages that changed, and files of the configuration.

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::super::catalogue::Found;
use super::super::{facts, index};
use super::{Fault, Kept};
use crate::archive::manifest::{self, File, Kind};
use crate::archive::pages::{Head, Index};
use crate::boot::assess::StructureVerdict;
use crate::boot::plan::side;
use crate::boot::sense::small_file;
use crate::boot::{stage, table};
use crate::config::{Database, Settings};
use crate::edge::{FileKind, Look, Machine};
use crate::sqlite::check::Scope;
use crate::sqlite::judge::Completeness;

/// Longest file of the configuration.
const MAX_CONFIG: u64 = 1 << 20;
/// Most of them.
const MAX_FILES: usize = 1000;
/// Deepest directory below a configured one.
const MAX_DEPTH: usize = 8;

/// Where a member's bytes come from.
pub(super) enum Source {
    /// A snapshot, whole.
    Whole(PathBuf),
    /// The pages of a snapshot that changed.
    Changed { snapshot: PathBuf, head: Head, pages: Vec<u32> },
    /// A file of the configuration, read already.
    Bytes(Vec<u8>),
}

/// A member.
pub(super) struct Member {
    /// As the manifest names it.
    pub file: File,
    /// Where it comes from.
    pub source: Source,
}

/// What was taken.
#[derive(Default)]
pub(super) struct Taken {
    pub members: Vec<Member>,
    pub left: Vec<(String, String)>,
    pub incremental: bool,
    /// Page tags of whole databases, for increments on them.
    pub indexes: Vec<(String, Index)>,
}

impl Member {
    /// The snapshot that it was taken from.
    pub fn snapshot(&self) -> Option<&Path> {
        match &self.source {
            Source::Whole(path) | Source::Changed { snapshot: path, .. } => Some(path),
            Source::Bytes(_) => None,
        }
    }

    pub fn kept(&self) -> Option<Kept> {
        let d = self.file.database.as_ref()?;
        let changed_pages = match &self.source {
            Source::Changed { pages, .. } => Some(pages.len() as u64),
            _ => None,
        };
        Some(Kept { name: d.name.clone(), bytes: d.len, changed_pages, rows: d.rows.clone() })
    }

    /// Its bytes.
    pub fn reader(&self, machine: &dyn Machine) -> io::Result<Box<dyn Read>> {
        Ok(match &self.source {
            Source::Whole(path) => machine.reader(path)?,
            Source::Bytes(bytes) => Box::new(Cursor::new(bytes.clone())),
            Source::Changed { snapshot, head, pages } => Box::new(Changed {
                reader: machine.reader(snapshot)?,
                at: 0,
                page_size: head.page_size as usize,
                pages: pages.clone().into_iter(),
                ready: Cursor::new(head.encode()),
            }),
        })
    }
}

/// Records of changed pages out of a snapshot that is read once, in order.
struct Changed {
    reader: Box<dyn Read>,
    /// Pages read so far.
    at: u32,
    page_size: usize,
    pages: std::vec::IntoIter<u32>,
    ready: Cursor<Vec<u8>>,
}

impl Read for Changed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.ready.read(into)?;
        if n > 0 || into.is_empty() {
            return Ok(n);
        }
        let Some(next) = self.pages.next() else { return Ok(0) };
        let mut page = vec![0; self.page_size];
        while self.at < next {
            if facts::fill(&mut *self.reader, &mut page)? != self.page_size {
                return Err(io::Error::other("the snapshot became shorter"));
            }
            self.at += 1;
        }
        let mut record = next.to_be_bytes().to_vec();
        record.extend_from_slice(&page);
        self.ready = Cursor::new(record);
        self.ready.read(into)
    }
}

/// Bytes that the work needs at most: a snapshot of everything, and about as much again for the archive and its proof.
pub(super) fn need(look: &dyn Look, settings: &Settings) -> u64 {
    let size = |d: &Database, suffix: &str| look.stat(&side(&d.location, suffix)).ok().flatten().map_or(0, |s| s.len);
    let all: u64 = settings.databases.iter().map(|d| size(d, "").saturating_add(size(d, "-wal"))).sum();
    all.saturating_mul(2)
}

/// Takes everything.
pub(super) fn take(
    machine: &mut dyn Machine,
    settings: &Settings,
    work: &Path,
    base: Option<&Found>,
) -> Result<Taken, Fault> {
    let mut taken = Taken::default();
    let mut snapshots = Vec::new();
    for database in &settings.databases {
        let to = work.join(format!("{}.db", database.name));
        match snapshot(machine, settings, database, &to)? {
            Ok(()) => snapshots.push((database.name.clone(), to)),
            Err(why) => taken.left.push((database.name.clone(), why)),
        }
    }
    let increments = match base {
        Some(base) => increments(machine.as_look(), settings, base, &snapshots)?,
        None => None,
    };
    taken.incremental = increments.is_some();
    match increments {
        Some(members) => {
            for mut member in members {
                member.file.sha256 = digest(&mut *member.reader(machine)?)?;
                taken.members.push(member);
            }
        }
        None => {
            for (name, path) in snapshots {
                let mut tags = None;
                if settings.backup_increments > 0 {
                    let mut key = [0; 32];
                    machine.random(&mut key)?;
                    tags = Some(Index::new(facts::of(machine.as_look(), &path, &name)?.page_size, key));
                }
                let file = facts::member(machine.as_look(), &path, &name, tags.as_mut())?;
                taken.members.push(Member { file, source: Source::Whole(path) });
                taken.indexes.extend(tags.map(|tags| (name, tags)));
            }
        }
    }
    config(machine.as_look(), settings, &mut taken)?;
    Ok(taken)
}

/// The state of one database in a file of our own; the inner error says why it cannot be had.
fn snapshot(
    machine: &mut dyn Machine,
    settings: &Settings,
    database: &Database,
    to: &Path,
) -> io::Result<Result<(), String>> {
    let location = &database.location;
    if machine.stat(location)?.is_none_or(|s| s.len == 0) {
        return Ok(Err("it is not there, or empty".to_string()));
    }
    machine.progress(&format!("snapshot of {}", database.name));
    let found = table::find(machine.as_look(), settings, database, Scope::Quick, "backup", true)?;
    let v = &found.verdict;
    // Written to faster than it can be looked at: the engine's reader, which takes part in the locking, sees one state all the
    // same, and the proof looks at the whole of it.
    let busy = !v.held_by.is_empty() && v.findings.iter().any(|f| f.code == "live");
    let unfit = v.needs_repair || v.structure != StructureVerdict::Sound || v.completeness == Completeness::Lossy;
    if unfit && !busy {
        let why = v.findings.first().map_or("it is damaged", |f| f.message.as_str());
        return Ok(Err(format!("{why}; `repair` comes first")));
    }
    machine.unlink(to)?;
    if v.held_by.is_empty() {
        // Nobody writes it: its bytes with its log laid over them, and no engine near it.
        let stats = |m: &dyn Machine| -> io::Result<_> { Ok((m.stat(location)?, m.stat(&side(location, "-wal"))?)) };
        let before = stats(machine)?;
        let log = side(location, "-wal");
        stage::fold_copy(machine, Some(location), Some(&log), &found.fold, to)?;
        let still = table::find(machine.as_look(), settings, database, Scope::Quick, "backup", true)?;
        if stats(machine)? == before && still.verdict.held_by.is_empty() {
            return Ok(Ok(()));
        }
        machine.unlink(to)?;
    }
    let rate = u64::from(settings.backup_rate_mib) << 20;
    machine.engine_snapshot(location, to, rate)?;
    Ok(Ok(()))
}

/// Everything as changed pages; `None` where a full backup is due: an index is missing or another's, a database is new, or
/// half of it changed.
fn increments(
    look: &dyn Look,
    settings: &Settings,
    base: &Found,
    snapshots: &[(String, PathBuf)],
) -> io::Result<Option<Vec<Member>>> {
    let Some(entry) = &base.entry else { return Ok(None) };
    let mut members = Vec::new();
    for (name, path) in snapshots {
        let Some((_, sha256)) = entry.databases.iter().find(|(known, _)| known == name) else { return Ok(None) };
        let tags = match look.stat(&index(settings, name))? {
            Some(_) => Index::parse(&whole(look, &index(settings, name))?),
            None => None,
        };
        let facts = facts::of(look, path, name)?;
        let tags = tags.filter(|t| facts::hex(&t.sha256) == *sha256 && t.page_size == facts.page_size);
        let Some(tags) = tags else { return Ok(None) };
        let (mut pages, mut at) = (Vec::new(), 0_u32);
        let (len, result) = facts::through(look, path, |bytes| {
            for page in bytes.chunks(facts.page_size as usize) {
                at = at.saturating_add(1);
                if tags.changed(at, page) {
                    pages.push(at);
                }
            }
        })?;
        if pages.len() as u64 * 2 > u64::from(at) && at > 64 {
            return Ok(None);
        }
        let changed = u32::try_from(pages.len()).unwrap_or(u32::MAX);
        let head = Head {
            page_size: facts.page_size,
            base_pages: tags.pages(),
            pages: at,
            changed,
            base: tags.sha256,
            result,
        };
        let database =
            manifest::Database { len, sha256: facts::hex(&result), base_sha256: Some(sha256.clone()), ..facts };
        let file = File {
            name: format!("data/{name}.pages"),
            kind: Kind::Pages,
            len: head.len(),
            sha256: String::new(),
            database: Some(database),
        };
        members.push(Member { file, source: Source::Changed { snapshot: path.clone(), head, pages } });
    }
    Ok(Some(members))
}

fn digest(reader: &mut dyn Read) -> io::Result<String> {
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 64 << 10]);
    loop {
        let n = facts::fill(reader, &mut piece)?;
        let Some(bytes) = piece.get(..n).filter(|b| !b.is_empty()) else { break };
        hash.update(bytes);
    }
    Ok(format!("{:x}", hash.finalize()))
}

/// A file of our own, which is no longer than it was written.
fn whole(look: &dyn Look, path: &Path) -> io::Result<Vec<u8>> {
    let file = look.open(path)?;
    crate::sqlite::read_vec(&*file, 0, usize::try_from(file.size()).unwrap_or(0))
}

/// Files of the configuration by the allow-list; what cannot be taken is named.
fn config(look: &dyn Look, settings: &Settings, taken: &mut Taken) -> Result<(), Fault> {
    let own = [&settings.key_restore, &settings.key_signing, &settings.keyring];
    let mut found = Vec::new();
    for path in &settings.config_paths {
        walk(look, settings, path, 0, &mut found, &mut taken.left);
    }
    for path in found {
        let inside = path.starts_with(&settings.state_dir) || own.iter().any(|key| path == **key);
        let ours = path.file_name().is_some_and(|n| n == "recovery.toml" || n == "keyring.json");
        if inside || ours {
            continue;
        }
        let relative = path.strip_prefix(&settings.root).unwrap_or(&path);
        let name = format!("config/{}", relative.display());
        if !manifest::is_name(&name) {
            taken.left.push((path.display().to_string(), "its name has letters that an archive cannot have".into()));
            continue;
        }
        if taken.members.len() >= MAX_FILES {
            taken.left.push((path.display().to_string(), format!("there are more than {MAX_FILES} files")));
            break;
        }
        let bytes = match look.stat(&path) {
            Ok(Some(s)) if s.len <= MAX_CONFIG => small_file(look, &path).map(Option::unwrap_or_default),
            Ok(_) => Err(io::Error::other("it is longer than 1 MiB")),
            Err(e) => Err(e),
        };
        match bytes {
            Ok(bytes) => {
                let file = File {
                    name,
                    kind: Kind::Config,
                    len: bytes.len() as u64,
                    sha256: format!("{:x}", Sha256::digest(&bytes)),
                    database: None,
                };
                taken.members.push(Member { file, source: Source::Bytes(bytes) });
            }
            Err(e) => taken.left.push((path.display().to_string(), e.to_string())),
        }
    }
    Ok(())
}

fn walk(
    look: &dyn Look,
    settings: &Settings,
    path: &Path,
    depth: usize,
    found: &mut Vec<PathBuf>,
    left: &mut Vec<(String, String)>,
) {
    let excluded = |p: &Path| {
        p.file_name().and_then(|n| n.to_str()).is_some_and(|n| settings.config_exclude.iter().any(|e| e == n))
    };
    if excluded(path) {
        return;
    }
    match look.stat(path) {
        Ok(Some(s)) if s.kind == FileKind::File => found.push(path.to_path_buf()),
        Ok(Some(s)) if s.kind == FileKind::Directory && depth < MAX_DEPTH => {
            for name in look.list(path).unwrap_or_default() {
                if found.len() > MAX_FILES {
                    return;
                }
                walk(look, settings, &path.join(name), depth + 1, found, left);
            }
        }
        Ok(Some(_)) => left.push((path.display().to_string(), "it is no file, or lies too deep".to_string())),
        Ok(None) => {}
        Err(e) => left.push((path.display().to_string(), e.to_string())),
    }
}
