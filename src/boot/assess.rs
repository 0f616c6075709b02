//! Facts to verdicts. Pure and total: no clock, no environment, no logging; "could not read" is a value of its own.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::evidence::{DatabaseEvidence, DirectoryFact, Evidence, FileFact, FsckLevel, VolumeEvidence, VolumeFact};
use super::looked::{LookedAt, looked};
use super::rescue::{Rescue, rescue};
use crate::journal::IntentEvidence;
use crate::slots::Slot;
use crate::sqlite::check::{DamagedObject, Scope};
use crate::sqlite::foreign::{PageOne, counts_agree};
use crate::sqlite::judge::{Completeness, DbSize, Finding, Level, LogVerdict, WalState, judge};
use crate::sqlite::observe::{ShmState, WalEvidence};
use crate::sqlite::rollback::{self, JournalEvidence};

/// Everything judged in one pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assessment {
    /// Volumes.
    pub volumes: Vec<VolumeVerdict>,
    /// True when records can be written: without it no plan contains a destructive step.
    pub state_usable: bool,
    /// Why the data directory cannot be used; `None` when it can.
    pub data_fault: Option<String>,
    /// The intent journal.
    pub intent: IntentVerdict,
    /// Databases.
    pub databases: Vec<DatabaseVerdict>,
    /// Boot state.
    pub slots: Option<SlotVerdict>,
    /// What this boot suffered from.
    pub cause: Cause,
    /// True when an unclean mark stands in state.
    pub unclean_mark: bool,
    /// When, for naming operations.
    pub now: u64,
    /// Who asked.
    pub by: String,
    /// Free bytes on the data volume.
    pub free_bytes: u64,
    /// UUID of the data volume, empty where it is a plain directory.
    pub data_volume: String,
    /// A factory reset that was asked for.
    pub reset: Option<super::evidence::ResetEvidence>,
}

/// What a boot suffered from; the three are told apart because each has another cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Nothing.
    None,
    /// Power was lost; nothing is damaged.
    Power,
    /// A slot's system did not come up.
    Os,
    /// Data is damaged or missing; switching slots would not heal it.
    Data,
}

/// Verdict on a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeVerdict {
    /// "state" or "data".
    pub name: String,
    /// State.
    pub state: VolumeState,
}

/// State of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeState {
    /// Cleanly unmounted, or made clean by e2fsck.
    Clean,
    /// e2fsck must run, this far; what the superblock said.
    Check(FsckLevel, String),
    /// e2fsck asks for a reboot before the volume is used.
    RebootWanted,
    /// e2fsck went as far as it may and errors are left.
    Broken(String),
    /// No device, no answer, or no ext file system.
    Unusable(String),
}

/// Verdict on the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntentVerdict {
    /// Nothing open.
    None,
    /// An operation to finish or to throw away.
    Resume(String),
    /// A record we must not touch, and so nothing beside it either.
    Blocked(String),
}

/// Structure axis of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StructureVerdict {
    /// Nothing wrong as far as the scope goes.
    Sound,
    /// Damaged.
    Damaged,
    /// Could not be read.
    Unreadable,
    /// Not there.
    Missing,
}

/// Verdict on one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseVerdict {
    /// Configured name.
    pub name: String,
    /// The path as reports print it.
    pub path: PathBuf,
    /// The path used here.
    pub location: PathBuf,
    /// First axis.
    pub structure: StructureVerdict,
    /// Second axis.
    pub completeness: Completeness,
    /// How far the check went.
    pub scope: Scope,
    /// Page size, 0 when unknown.
    pub page_size: u32,
    /// Size in pages as SQLite would see it, 0 when unknown.
    pub pages: u32,
    /// The log.
    pub log: LogVerdict,
    /// Named evidence for completeness.
    pub evidence: Vec<String>,
    /// All findings.
    pub findings: Vec<Finding>,
    /// Who looked at what.
    #[serde(default)]
    pub looked: LookedAt,
    /// Objects with damage.
    #[serde(default)]
    pub damaged: Vec<DamagedObject>,
    /// True when something must be done or reported as left.
    pub needs_repair: bool,
    /// Processes that have it open: nothing may be done to it then.
    pub held_by: Vec<String>,
    /// Facts that a repair needs.
    pub files: FileSet,
    /// The rungs below resync.
    pub rescue: Rescue,
}

/// Facts of the files of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSet {
    /// True when the database file exists.
    pub present: bool,
    /// Its length.
    pub bytes: u64,
    /// Owner and group for a replacement.
    pub owner: (u32, u32),
    /// True when a log with bytes in it exists.
    pub log: bool,
    /// True when a wal-index exists.
    pub shm: bool,
    /// True when a hot rollback journal exists.
    #[serde(default)]
    pub journal: bool,
    /// A short word that changes when the files do; names a preserved copy.
    pub fingerprint: String,
}

/// Verdict on the boot state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotVerdict {
    /// The slot to start; `R` when none is left.
    pub choice: Slot,
    /// Why.
    pub reason: String,
    /// Slots that could not be started in this boot.
    pub dead: Vec<Slot>,
    /// True when another slot than the primary was chosen, or none is left.
    pub fell_back: bool,
}

/// Judges one pass.
pub fn assess(evidence: &Evidence) -> Assessment {
    let volumes: Vec<VolumeVerdict> = evidence.volumes.iter().map(volume).collect();
    let databases: Vec<DatabaseVerdict> = evidence.databases.iter().map(database).collect();
    let data_fault = match (&evidence.data, volumes.iter().find(|v| v.name == "data").map(|v| &v.state)) {
        (_, Some(VolumeState::Unusable(why) | VolumeState::Broken(why))) => Some(why.clone()),
        (DirectoryFact::Unusable(why), _) => Some(why.clone()),
        (DirectoryFact::Absent, _) => Some("the data directory does not exist".to_string()),
        (DirectoryFact::Usable, _) => None,
    };
    let state_volume = volumes.iter().find(|v| v.name == "state").map(|v| &v.state);
    let state_usable = !matches!(evidence.state, DirectoryFact::Unusable(_))
        && !matches!(state_volume, Some(VolumeState::Unusable(_) | VolumeState::Broken(_)));
    let slots = evidence.slots.as_ref().map(slot);
    let unclean =
        evidence.unclean_before || evidence.volumes.iter().any(|v| !v.checks.is_empty() || unclean(v).is_some());
    // The superblock as it was before it was mounted, in the boot flow; else that of the mounted file system.
    let data_volume = evidence.volumes.iter().find(|v| v.name == "data").map(uuid).filter(|id| !id.is_empty());
    let data_volume = data_volume.unwrap_or_else(|| evidence.data_uuid.clone());
    let cause = cause(&databases, data_fault.is_some(), slots.as_ref(), unclean);
    Assessment {
        volumes,
        state_usable,
        data_fault,
        intent: intent(&evidence.intent, &data_volume),
        databases,
        slots,
        cause,
        unclean_mark: evidence.unclean_before,
        now: evidence.now,
        by: evidence.by.clone(),
        free_bytes: evidence.free_bytes,
        reset: evidence.reset.clone(),
        data_volume,
    }
}

fn cause(databases: &[DatabaseVerdict], no_data: bool, slots: Option<&SlotVerdict>, unclean: bool) -> Cause {
    if no_data || databases.iter().any(|d| d.needs_repair || is_bad(d) && !never_was(d)) {
        Cause::Data
    } else if slots.is_some_and(|s| s.fell_back || !s.dead.is_empty()) {
        Cause::Os
    } else if unclean {
        Cause::Power
    } else {
        Cause::None
    }
}

/// A database that is not there, and that nothing says was ever there: a fresh gateway, not damaged data.
fn never_was(d: &DatabaseVerdict) -> bool {
    d.structure == StructureVerdict::Missing && !d.findings.iter().any(|f| f.level == Level::Error)
}

/// True when a verdict sets bit 4 of the exit code.
pub fn is_bad(d: &DatabaseVerdict) -> bool {
    d.structure != StructureVerdict::Sound
        || d.completeness == Completeness::Lossy
        || d.findings.iter().any(|f| f.level == Level::Error)
}

fn uuid(v: &VolumeEvidence) -> String {
    if let VolumeFact::Ext(superblock) = &v.head { superblock.uuid_text() } else { String::new() }
}

fn intent(found: &IntentEvidence, volume: &str) -> IntentVerdict {
    match found {
        IntentEvidence::Open(intent) if !intent.volume.is_empty() && !volume.is_empty() && intent.volume != volume => {
            IntentVerdict::Blocked(format!(
                "operation {} was begun on another data volume ({}); this card or its state was exchanged",
                intent.op, intent.volume
            ))
        }
        IntentEvidence::None => IntentVerdict::None,
        IntentEvidence::Open(intent) => IntentVerdict::Resume(intent.op.clone()),
        IntentEvidence::Newer(version) => IntentVerdict::Blocked(format!(
            "an operation was left open by a newer version (needs reader {version}); boot the slot that has it"
        )),
        IntentEvidence::Damaged(why) => IntentVerdict::Blocked(format!(
            "the intent record cannot be read ({why}); the originals are in quarantine, a technician must decide"
        )),
    }
}

fn unclean(v: &VolumeEvidence) -> Option<String> {
    let VolumeFact::Ext(sb) = &v.head else { return None };
    if sb.needs_recovery() {
        Some("it was not unmounted: its journal must be replayed".to_string())
    } else if sb.has_errors() {
        Some("the kernel recorded errors on it".to_string())
    } else if !sb.is_clean() {
        Some("it was not unmounted cleanly".to_string())
    } else {
        None
    }
}

/// e2fsck(8) exit bits: 1 fixed, 2 reboot, 4 errors left, 8 operational, 16 usage, 32 cancelled, 128 library.
fn volume(v: &VolumeEvidence) -> VolumeVerdict {
    let state = match &v.head {
        VolumeFact::Missing(why) | VolumeFact::Unreadable(why) => VolumeState::Unusable(why.clone()),
        VolumeFact::Foreign(what) => {
            VolumeState::Unusable(format!("it holds {what}, not an ext4 file system; nothing was written to it"))
        }
        VolumeFact::Ext(_) => match (v.checks.last(), unclean(v)) {
            (None, None) => VolumeState::Clean,
            (None, Some(why)) => VolumeState::Check(FsckLevel::Preen, why),
            (Some((_, status)), _) if *status & 2 != 0 => VolumeState::RebootWanted,
            (Some((_, status)), _) if *status & !1 == 0 => VolumeState::Clean,
            (Some((FsckLevel::Preen, status)), _) if *status & 4 != 0 => {
                VolumeState::Check(FsckLevel::Yes, "errors are left that cannot be preened".to_string())
            }
            (Some((_, status)), _) => VolumeState::Broken(format!("e2fsck ended with status {status}")),
        },
    };
    VolumeVerdict { name: v.name.clone(), state }
}

fn slot(s: &super::evidence::SlotsEvidence) -> SlotVerdict {
    let mut state = s.file.state.clone();
    for dead in &s.dead {
        state.mark_bad(*dead);
    }
    if let Some(asked) = s.asked.filter(|a| !s.dead.contains(a)) {
        return SlotVerdict {
            choice: asked,
            reason: "asked for on the kernel command line".to_string(),
            dead: s.dead.clone(),
            fell_back: false,
        };
    }
    let choice = state.choose();
    SlotVerdict {
        fell_back: state.primary() != Some(choice.slot),
        choice: choice.slot,
        reason: choice.reason.to_string(),
        dead: s.dead.clone(),
    }
}

fn database(d: &DatabaseEvidence) -> DatabaseVerdict {
    let mut findings = Vec::new();
    let mut error = |code: &str, text: String| findings.push(Finding::new(Level::Error, code, text));
    let stat = if let FileFact::Present(stat) = &d.file { Some(*stat) } else { None };
    let page_size = d.header.as_ref().and_then(|h| h.as_ref().ok()).map(|h| h.page_size);
    let size = DbSize {
        present: stat.is_some_and(|s| s.len > 0),
        pages: stat.zip(page_size.or_else(|| log_page_size(&d.wal))).map_or(0, |(s, p)| whole_pages(s.len, p)),
        page_size,
        page_one: d.header.as_ref().and_then(|h| h.as_ref().ok()).map(PageOne::from),
        sound_alone: d.sound_alone,
        sound_with_log: d
            .structure
            .as_ref()
            .filter(|s| s.scope == Scope::Full && !s.out_of_time)
            .map(|s| s.sound() && counts_agree(&s.schema)),
    };
    let log = if d.hot_journal { journal(d, &size) } else { judge(&d.wal, &d.shm, size) };
    let side_files = !matches!(d.wal, WalEvidence::Absent) || d.shm != ShmState::Absent;
    let structure = match &d.file {
        FileFact::Missing => {
            if side_files {
                error("database-missing", "the database file is missing while its side files are there".into());
            }
            StructureVerdict::Missing
        }
        FileFact::NotAFile => {
            error("not-a-file", "a directory, link, pipe or device stands where the database should be".into());
            StructureVerdict::Unreadable
        }
        FileFact::Unreadable(why) => {
            error("database-unreadable", format!("the database could not be read: {why}"));
            StructureVerdict::Unreadable
        }
        FileFact::Present(stat) if stat.len == 0 => {
            // SQLite treats an empty file as an empty database.
            if log.needs_repair { StructureVerdict::Damaged } else { StructureVerdict::Sound }
        }
        FileFact::Present(_) => match &d.structure {
            Some(s) if s.sound() => StructureVerdict::Sound,
            Some(_) => StructureVerdict::Damaged,
            None => StructureVerdict::Unreadable,
        },
    };
    if stat.is_some_and(|s| s.len == 0) && !log.needs_repair {
        let text = "the file is empty: SQLite takes it for a new database; if it ever held rows, restore them";
        findings.push(Finding::new(Level::Warning, "database-empty", text));
    }
    if d.moving {
        findings.push(Finding::new(
            Level::Warning,
            "live",
            "the database changed while it was read; stop the agent for a verdict",
        ));
    }
    if !d.held_by.is_empty() && needs_repair_hint(&log, structure) {
        let text = format!("open in {}: stop the agent through its service manager, then repair", d.held_by.join(", "));
        findings.push(Finding::new(Level::Warning, "in-use", text));
    }
    // What was read while it changed is a mixture of two states, and its findings are about neither.
    if let Some(s) = d.structure.as_ref().filter(|_| !d.moving) {
        findings.extend(s.findings.iter().cloned());
        if s.out_of_time && s.findings.iter().all(|f| f.code != "device-failing") {
            let text = "the time budget ended before every page was read; the rest is left to a scrub";
            findings.push(Finding::new(Level::Info, "check-budget-spent", text));
        }
    }
    if !d.moving {
        findings.extend(log.findings.iter().cloned());
    }
    let mut evidence = log.evidence.clone();
    let mut completeness = log.completeness;
    let settled = matches!(log.state, WalState::Absent | WalState::Empty | WalState::Sound);
    if d.superblock_clean && settled && structure == StructureVerdict::Sound && completeness != Completeness::Lossy {
        evidence.insert(0, "superblock-clean".to_string());
        completeness = Completeness::Complete;
    }
    if d.moving {
        completeness = Completeness::Unknown;
    }
    let missing_is_fine = structure == StructureVerdict::Missing && !side_files;
    let needs_repair = !d.moving && (log.needs_repair || !(structure == StructureVerdict::Sound || missing_is_fine));
    let rescue = if needs_repair { rescue(d, &log, structure) } else { Rescue::default() };
    let (pages, page_size) = match &d.structure {
        Some(s) => (s.pages, s.header.as_ref().map_or(0, |h| h.page_size)),
        None => (size.pages, page_size.unwrap_or(0)),
    };
    DatabaseVerdict {
        name: d.name.clone(),
        path: d.path.clone(),
        location: d.location.clone(),
        structure: if d.moving && structure == StructureVerdict::Damaged {
            StructureVerdict::Unreadable
        } else {
            structure
        },
        completeness,
        scope: d.structure.as_ref().map_or(d.scope, |s| if s.out_of_time { Scope::Quick } else { s.scope }),
        page_size,
        pages,
        log,
        evidence,
        findings,
        looked: d.structure.as_ref().map(looked).unwrap_or_default(),
        damaged: d.structure.as_ref().filter(|_| !d.moving).map(|s| s.damaged.clone()).unwrap_or_default(),
        needs_repair,
        rescue,
        held_by: d.held_by.clone(),
        files: FileSet {
            present: stat.is_some(),
            bytes: stat.map_or(0, |s| s.len),
            owner: stat.map(|s| (s.uid, s.gid)).or(d.directory_owner).unwrap_or((0, 0)),
            log: !matches!(d.wal, WalEvidence::Absent),
            shm: d.shm != ShmState::Absent,
            journal: d.hot_journal,
            fingerprint: fingerprint(d, stat.map_or((0, 0), |s| (s.len, s.mtime_ns))),
        },
    }
}

fn needs_repair_hint(log: &LogVerdict, structure: StructureVerdict) -> bool {
    log.needs_repair || structure == StructureVerdict::Damaged
}

fn whole_pages(len: u64, page_size: u32) -> u32 {
    u32::try_from(len / u64::from(page_size.max(1))).unwrap_or(u32::MAX)
}

fn log_page_size(wal: &WalEvidence) -> Option<u32> {
    if let WalEvidence::Present(facts) = wal { Some(facts.page_size) } else { None }
}

/// With a hot rollback journal the file is mid-transaction: a log beside it is not judged.
fn quiet(wal: &WalEvidence) -> LogVerdict {
    let mut v = judge(&WalEvidence::Absent, &ShmState::Absent, DbSize { present: true, ..DbSize::default() });
    if !matches!(wal, WalEvidence::Absent) {
        v.state = WalState::Empty;
    }
    v
}

/// A hot rollback journal, as what it asks to be done: by SQLite, or before SQLite sees it.
fn journal(d: &DatabaseEvidence, size: &DbSize) -> LogVerdict {
    let mut v = quiet(&d.wal);
    match &d.journal {
        JournalEvidence::Hot(facts) => {
            let page_size = size.page_size.unwrap_or(facts.page_size);
            let found = rollback::judge(facts, size.page_one.as_ref(), page_size, d.sound_alone, size.sound_with_log);
            v.findings = found.findings;
            v.candidates = found.candidates;
            v.needs_repair = found.needs_repair;
        }
        JournalEvidence::Unreadable(why) => {
            let text =
                format!("the rollback journal could not be read: {why}; check the storage, then run `check` again");
            v.findings.push(Finding::new(Level::Error, "journal-unreadable", text));
            v.needs_repair = true;
        }
        JournalEvidence::Absent | JournalEvidence::Cold => {}
    }
    v
}

fn fingerprint(d: &DatabaseEvidence, (len, mtime): (u64, i64)) -> String {
    let log = match &d.wal {
        WalEvidence::Present(f) => (f.frames, f.commit_sum),
        _ => (0, [0, 0]),
    };
    format!("{:08x}", crc32fast::hash(format!("{len} {mtime} {log:?}").as_bytes()))
}
