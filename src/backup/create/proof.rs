//! A backup proves itself before it gets a name: read back from where it was written, decrypted with a key that was made
//! for this alone, unpacked, and checked as a restore would check it.

use std::io;
use std::path::Path;

use age::x25519;

use super::super::facts;
use super::super::unpack::{compare, unpack};
use super::members::{Member, Source};
use crate::archive::manifest::{Kind, Manifest};
use crate::archive::pages;
use crate::archive::{Code, Refusal};
use crate::boot::act::make_dirs;
use crate::boot::assess::StructureVerdict;
use crate::boot::stage::discard;
use crate::boot::{assess, sense};
use crate::config::{Database, DatabaseKind, Settings};
use crate::edge::{Look, Machine};
use crate::sqlite::check::Scope;

/// Proves the archive at `partial`. Whole snapshots are removed on the way: what comes out of the archive takes their place.
pub(super) fn prove(
    machine: &mut dyn Machine,
    settings: &Settings,
    work: &Path,
    partial: &Path,
    key: &x25519::Identity,
    manifest: &Manifest,
    members: &[Member],
) -> Result<(), Refusal> {
    let cannot = |e: io::Error| Refusal::new(Code::Io, e.to_string());
    for member in members {
        if let Source::Whole(path) = &member.source {
            machine.unlink(path).map_err(cannot)?;
        }
    }
    let dir = work.join("proof");
    make_dirs(machine, &dir).map_err(cannot)?;
    let out = unpack(machine, partial, &[key], &dir)?;
    if out.manifest != *manifest {
        return Err(Refusal::new(Code::BadManifest, "it does not read back as it was written"));
    }
    for (file, said, path) in out.databases() {
        let whole = match file.kind {
            Kind::Database => path,
            _ => {
                let member = members.iter().find(|m| m.file.name == file.name);
                let snapshot = member.and_then(Member::snapshot);
                let snapshot = snapshot.ok_or_else(|| Refusal::new(Code::Io, "the snapshot is gone"))?;
                same_pages(machine.as_look(), path, snapshot)?;
                snapshot
            }
        };
        compare(machine.as_look(), whole, said)?;
        fully(machine, settings, whole, &said.name)?;
    }
    discard(machine, &dir).map_err(cannot)
}

/// The changed pages that came out are those of the snapshot. That all others are those of the base, the tags told when
/// they were chosen; the base was proved when it was made.
fn same_pages(look: &dyn Look, changed: &Path, snapshot: &Path) -> Result<(), Refusal> {
    let cannot = |e: io::Error| Refusal::new(Code::Io, e.to_string());
    let mut reader = look.reader(changed).map_err(cannot)?;
    let mut head = vec![0; pages::HEAD];
    facts::fill(&mut *reader, &mut head).map_err(cannot)?;
    let len = look.stat(changed).map_err(cannot)?.map_or(0, |s| s.len);
    let head = pages::Head::parse(&head, len)?;
    let source = look.open(snapshot).map_err(cannot)?;
    let mut record = vec![0; head.record() as usize];
    for _ in 0..head.changed {
        facts::fill(&mut *reader, &mut record).map_err(cannot)?;
        let number = record.first_chunk().map_or(0, |n| u32::from_be_bytes(*n));
        let at = u64::from(number.saturating_sub(1)) * u64::from(head.page_size);
        let page = crate::sqlite::read_vec(&*source, at, head.page_size as usize).map_err(cannot)?;
        if record.get(4..) != Some(page.as_slice()) {
            return Err(Refusal::new(Code::WrongDigest, format!("page {number} does not read back as it was written")));
        }
    }
    Ok(())
}

/// A full check of a file of our own, with the engine for what needs SQL.
///
/// # Errors
/// What is wrong with it.
pub(in crate::backup) fn fully(
    machine: &mut dyn Machine,
    settings: &Settings,
    path: &Path,
    name: &str,
) -> Result<(), Refusal> {
    let bad = |text: String| Refusal::new(Code::BadDatabase, format!("{name}: {text}"));
    let database = Database {
        name: name.to_string(),
        kind: DatabaseKind::Other,
        path: path.to_path_buf(),
        location: path.to_path_buf(),
        owner: None,
        mode: 0o600,
        accept: Vec::new(),
    };
    let narrow = Settings { databases: vec![database], ..settings.clone() };
    let request = sense::Request { scope: Some(Scope::Full), ..sense::Request::new(&narrow, "backup") };
    let evidence = sense::data(machine.as_look(), &request);
    // Without a table it is the grammar of the schema's texts, which the digest of the schema stands for.
    let wants_engine = evidence
        .databases
        .iter()
        .filter_map(|d| d.structure.as_ref())
        .any(|s| s.coverage.for_engine.iter().any(|x| x.table.is_some()));
    let verdict = assess::assess(&evidence).databases.into_iter().next();
    let verdict = verdict.ok_or_else(|| bad("it cannot be looked at".to_string()))?;
    if verdict.structure != StructureVerdict::Sound {
        let why = verdict.findings.first().map_or("it is damaged".to_string(), |f| f.message.clone());
        return Err(bad(why));
    }
    if wants_engine {
        let (lines, _) = machine.engine_check(path).map_err(|e| Refusal::new(Code::Io, e.to_string()))?;
        if lines != ["ok"] {
            return Err(bad(lines.first().cloned().unwrap_or_default()));
        }
    }
    Ok(())
}
