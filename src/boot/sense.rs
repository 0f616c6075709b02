//! Asks the machine. Read-only by type: it receives [`Look`], which has no writing method. No judgement here.

mod logs;
mod operation;
mod request;
mod reset;

pub use operation::{holders, operation, quarantined};
pub use request::Request;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;

use super::evidence::{DatabaseEvidence, DirectoryFact, Evidence, FileFact, SlotsEvidence, VolumeEvidence, VolumeFact};
use super::plan::side;
use super::saved;
use crate::config::{Database, SlotBackend};
use crate::edge::{FileKind, Look, Stat, VolumeHead};
use crate::ext4::FileSystem;
use crate::journal::{self, IntentEvidence};
use crate::record::{self, Decoded};
use crate::slots::file as slot_file;
use crate::sqlite::check::{self, Scope, Structure, SumKey};
use crate::sqlite::foreign;
use crate::sqlite::header::{self, Header, HeaderFault};
use crate::sqlite::observe::{self, ShmState, WalEvidence};
use crate::sqlite::overlay::Overlay;
use crate::sqlite::rollback::{JournalEvidence, Rollback};
use crate::sqlite::wal::WalScan;
use crate::sqlite::{ReadAt, read_vec};

/// Kind and file name of the record that counts steps begun and not ended.
pub const TRIALS: &str = "trials";
/// Kind and file name of the record that a volume was found unclean.
pub const UNCLEAN: &str = "unclean";
/// Largest record read.
const MAX_RECORD: u64 = 1 << 20;
/// Bytes between two lines of progress of a full check.
const PROGRESS: u32 = 64 << 20;
/// Looks at a database that keeps changing before it is called moving.
const LOOKS: u32 = 3;

/// The volumes, as bytes, before anything is attached.
pub fn volumes(look: &dyn Look, request: &Request<'_>) -> Evidence {
    let mut evidence = blank(look, request);
    for name in ["state", "data"] {
        let head = match look.volume_head(name) {
            VolumeHead::NotConfigured => continue,
            VolumeHead::Missing(why) => VolumeFact::Missing(why),
            VolumeHead::Unreadable(why) => VolumeFact::Unreadable(why),
            VolumeHead::Head(bytes) => match FileSystem::detect(&bytes) {
                FileSystem::Ext(superblock) => VolumeFact::Ext(superblock),
                other => VolumeFact::Foreign(format!("{other:?}").to_lowercase()),
            },
        };
        let mine = request.checks.iter().filter(|(volume, _, _)| volume == name);
        let checks = mine.map(|(_, level, status)| (*level, *status)).collect();
        evidence.volumes.push(VolumeEvidence { name: name.to_string(), head, checks });
    }
    evidence
}

/// Everything on the attached volumes.
pub fn data(look: &dyn Look, request: &Request<'_>) -> Evidence {
    let settings = request.settings;
    let mut evidence = blank(look, request);
    evidence.volumes = request.volumes.to_vec();
    evidence.state = directory(look, &settings.state_dir, request, "state");
    evidence.data = directory(look, &settings.data_dir, request, "data");
    let usable = evidence.data == DirectoryFact::Usable;
    if usable {
        evidence.free_bytes = look.free_bytes(&settings.data_dir).unwrap_or(0);
        evidence.mirror = matches!(look.stat(&settings.data_dir.join(journal::MIRROR)), Ok(Some(_)));
        evidence.data_uuid = look.volume_id(&settings.data_dir).unwrap_or_default();
    }
    if !matches!(evidence.state, DirectoryFact::Unusable(_)) {
        evidence.intent = operation::intent(look, settings, evidence.mirror);
        evidence.trials = read_record(look, &settings.state_dir.join(TRIALS), TRIALS).ok().unwrap_or_default();
        evidence.unclean_before |= matches!(look.stat(&settings.state_dir.join(UNCLEAN)), Ok(Some(_)));
        evidence.slots = slots(look, request);
    }
    evidence.reset = request.reset.map(|asked| reset::reset(look, settings, asked));
    let unclean = evidence.unclean_before
        || evidence.volumes.iter().any(|v| matches!(&v.head, VolumeFact::Ext(sb) if !sb.is_clean()));
    let clean = !unclean && evidence.volumes.iter().any(|v| v.name == "data");
    if let DirectoryFact::Unusable(why) = &evidence.data {
        evidence.databases = settings.databases.iter().map(|d| unreachable(d, why)).collect();
    } else {
        let wanted = |d: &&Database| {
            request.only.is_empty()
                || request.only.iter().any(|p| *p == d.path || *p == d.location || p.as_os_str() == OsStr::new(&d.name))
        };
        for config in settings.databases.iter().filter(wanted) {
            evidence.databases.push(database(look, config, request, clean));
        }
    }
    evidence
}

fn blank(look: &dyn Look, request: &Request<'_>) -> Evidence {
    Evidence {
        schema: "pyvorin-recovery/evidence/1".to_string(),
        now: look.clock(),
        by: request.by.to_string(),
        volumes: Vec::new(),
        state: DirectoryFact::Absent,
        data: DirectoryFact::Absent,
        free_bytes: 0,
        data_uuid: String::new(),
        intent: IntentEvidence::None,
        mirror: false,
        trials: BTreeMap::new(),
        unclean_before: request.unclean,
        slots: None,
        reset: None,
        databases: Vec::new(),
    }
}

fn directory(look: &dyn Look, path: &Path, request: &Request<'_>, name: &str) -> DirectoryFact {
    if let Some((_, why)) = request.unattached.iter().find(|(volume, _)| volume == name) {
        return DirectoryFact::Unusable(format!("its volume cannot be attached: {why}"));
    }
    match request.volumes.iter().find(|v| v.name == name).map(|v| &v.head) {
        Some(VolumeFact::Missing(why) | VolumeFact::Unreadable(why)) => return DirectoryFact::Unusable(why.clone()),
        Some(VolumeFact::Foreign(what)) => return DirectoryFact::Unusable(format!("its volume holds {what}")),
        _ => {}
    }
    match look.list(path) {
        Ok(_) => DirectoryFact::Usable,
        Err(e) if e.kind() == io::ErrorKind::NotFound => DirectoryFact::Absent,
        Err(e) => DirectoryFact::Unusable(e.to_string()),
    }
}

/// Bytes of a small file; `Ok(None)` when it does not exist.
pub fn small_file(look: &dyn Look, path: &Path) -> io::Result<Option<Vec<u8>>> {
    match look.stat(path)? {
        None => Ok(None),
        Some(s) if s.kind != FileKind::File => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        Some(s) if s.len > MAX_RECORD => Err(io::Error::new(io::ErrorKind::FileTooLarge, "too long for a record")),
        Some(s) => {
            let file = look.open(path)?;
            read_vec(&*file, 0, usize::try_from(s.len).unwrap_or(0)).map(Some)
        }
    }
}

/// A record, damaged when absent or unreadable.
pub fn read_record<T: serde::de::DeserializeOwned>(look: &dyn Look, path: &Path, kind: &str) -> Decoded<T> {
    match small_file(look, path) {
        Ok(Some(bytes)) => record::decode(kind, &bytes),
        Ok(None) => Decoded::Damaged("there is no such record".to_string()),
        Err(e) => Decoded::Damaged(e.to_string()),
    }
}

fn slots(look: &dyn Look, request: &Request<'_>) -> Option<SlotsEvidence> {
    if !request.slots || request.settings.slot_backend != SlotBackend::File {
        return None;
    }
    // A copy that exists and cannot be read must not pass for a new device.
    let copy = |name: &str| match small_file(look, &request.settings.state_dir.join(name)) {
        Ok(bytes) => bytes,
        Err(_) => Some(Vec::new()),
    };
    let [first, second] = slot_file::NAMES.map(copy);
    let file = slot_file::read(first.as_deref(), second.as_deref(), request.settings.slot_tries);
    Some(SlotsEvidence { file, dead: request.dead.to_vec(), asked: request.asked })
}

fn database(look: &dyn Look, config: &Database, request: &Request<'_>, clean: bool) -> DatabaseEvidence {
    let mut result = one_look(look, config, request, clean);
    for _ in 1..LOOKS {
        if result.moving {
            result = one_look(look, config, request, clean);
            continue;
        }
        let damaged = result.structure.as_ref().is_some_and(|s| !s.sound());
        if !damaged || result.shm == ShmState::Absent {
            break;
        }
        // A wal-index means that somebody may be writing, and the times of files are coarse: damage that is there is
        // there again.
        let again = one_look(look, config, request, clean);
        let same = again.structure == result.structure && !again.moving;
        result = again;
        if same {
            break;
        }
        result.moving = true;
    }
    result
}

/// A database in a directory that cannot be used.
fn unreachable(config: &Database, why: &str) -> DatabaseEvidence {
    DatabaseEvidence { file: FileFact::Unreadable(why.to_string()), ..nothing(config, false) }
}

/// What must be equal before and after for a look at live files to count: the database untouched, the log of the same
/// generation. A writer that only appends to its log moves nothing: the frames up to the last commit read are a snapshot.
#[derive(PartialEq, Eq)]
struct Identity {
    database: Option<Stat>,
    header: Vec<u8>,
    generation: Vec<u8>,
    log: Option<Stat>,
}

fn identity(look: &dyn Look, config: &Database) -> Identity {
    let stat = |suffix: &str| look.stat(&side(&config.location, suffix)).ok().flatten();
    let head = |suffix: &str, is: Option<Stat>, len: usize| match is {
        Some(s) if s.kind == FileKind::File => {
            look.open(&side(&config.location, suffix)).and_then(|f| read_vec(&*f, 0, len)).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    let (database, log) = (stat(""), stat("-wal"));
    Identity { database, header: head("", database, header::LEN), generation: head("-wal", log, 32), log }
}

/// Whether what was read may be a mixture of two states.
fn moved(before: &Identity, after: &Identity, d: &DatabaseEvidence) -> bool {
    let file = |s: &Option<Stat>| s.map(|s| (s.ino, s.kind));
    let same_log = before.generation == after.generation && file(&before.log) == file(&after.log);
    if before.database != after.database || before.header != after.header || !same_log {
        return true;
    }
    // Frames that were being written while they were read may look damaged.
    let doubted = matches!(&d.wal, WalEvidence::Present(facts) if facts.trouble.is_some())
        || d.structure.as_ref().is_some_and(|s| !s.sound());
    doubted && before.log != after.log
}

fn nothing(config: &Database, clean: bool) -> DatabaseEvidence {
    DatabaseEvidence {
        name: config.name.clone(),
        path: config.path.clone(),
        location: config.location.clone(),
        file: FileFact::Missing,
        directory_owner: None,
        header: None,
        wal: WalEvidence::Absent,
        shm: ShmState::Absent,
        hot_journal: false,
        journal: JournalEvidence::Absent,
        structure: None,
        sound_alone: None,
        scope: Scope::Quick,
        moving: false,
        superblock_clean: clean,
        backups: Vec::new(),
        schema_record: None,
        held_by: Vec::new(),
    }
}

fn one_look(look: &dyn Look, config: &Database, request: &Request<'_>, clean: bool) -> DatabaseEvidence {
    let before = identity(look, config);
    let location = &config.location;
    let mut d = nothing(config, clean);
    if request.holders {
        d.held_by = holders(look, location);
    }
    d.scope = request.scope.unwrap_or(Scope::Quick);
    d.directory_owner = location.parent().and_then(|p| look.stat(p).ok().flatten()).map(|s| (s.uid, s.gid));
    d.file = match look.stat(location) {
        Ok(None) => FileFact::Missing,
        Ok(Some(stat)) if stat.kind == FileKind::File => FileFact::Present(stat),
        Ok(Some(_)) => FileFact::NotAFile,
        Err(e) => FileFact::Unreadable(e.to_string()),
    };
    let mut file = None;
    if let FileFact::Present(_) = d.file {
        match look.open(location) {
            Ok(opened) => file = Some(opened),
            Err(e) => d.file = FileFact::Unreadable(e.to_string()),
        }
    }
    if let Some(f) = &file {
        match read_vec(&**f, 0, header::LEN) {
            Ok(bytes) if !bytes.is_empty() => d.header = Some(header::parse(&bytes)),
            Ok(_) => {}
            Err(e) => {
                d.file = FileFact::Unreadable(e.to_string());
                file = None;
            }
        }
    }
    let db = file.as_deref().filter(|f| f.size() > 0);
    let scan = side_files(look, location, db, &mut d);
    let wants_full = match (&d.wal, request.scope) {
        (_, Some(scope)) => scope == Scope::Full,
        (WalEvidence::Present(facts), None) => !clean || facts.trouble.is_some() || facts.missing_pages > 0,
        (WalEvidence::Unreadable(_), None) => true,
        (WalEvidence::Absent | WalEvidence::Empty, None) => !clean,
    };
    let suspect = db.is_some_and(|f| logs::in_question(&d, f));
    let wants_full = wants_full || suspect && request.scope.is_none();
    d.scope = if wants_full { Scope::Full } else { Scope::Quick };
    match structure(look, location, db, &d, scan.as_ref(), request) {
        Ok(structure) => d.structure = structure,
        Err(e) if matches!(d.file, FileFact::Present(_)) => d.file = FileFact::Unreadable(e.to_string()),
        Err(_) => {}
    }
    let breaks = d
        .structure
        .as_ref()
        .is_some_and(|s| s.scope == Scope::Full && !(s.sound() && foreign::counts_agree(&s.schema)));
    let replays = d.hot_journal || matches!(&d.wal, WalEvidence::Present(facts) if facts.committed > 0);
    if let (Some(db), Some(Ok(header))) = (db, &d.header)
        && wants_full
        && replays
        && (suspect || breaks)
    {
        d.sound_alone = logs::alone(look, db, header.page_size, request);
    }
    d.moving = moved(&before, &identity(look, config), &d);
    if let Some(name) = location.file_name() {
        d.backups = saved::backups(look, &request.settings.backup_dir, name);
    }
    let record = saved::path(request.settings, &config.name);
    d.schema_record = matches!(look.stat(&record), Ok(Some(_))).then_some(record);
    d
}

/// Looks at everything beside the database; gives the frames of the log where it could be read.
fn side_files(look: &dyn Look, location: &Path, db: Option<&dyn ReadAt>, d: &mut DatabaseEvidence) -> Option<WalScan> {
    d.journal = logs::rollback_journal(look, location, d.header.as_ref());
    // Beside an empty database SQLite deletes the journal.
    d.hot_journal = db.is_some() && matches!(d.journal, JournalEvidence::Hot(_) | JournalEvidence::Unreadable(_));
    let shm = side(location, "-shm");
    d.shm = match look.stat(&shm) {
        Ok(None) => ShmState::Absent,
        Ok(Some(s)) if s.kind == FileKind::File => {
            look.open(&shm).and_then(|f| observe::shm(&*f)).unwrap_or(ShmState::Invalid)
        }
        _ => ShmState::Invalid,
    };
    let hint = if let ShmState::Valid(hint) = &d.shm { Some(hint) } else { None };
    let (page_size, reserved) = geometry(d.header.as_ref());
    let log = side(location, "-wal");
    let (found, scan) = match look.stat(&log) {
        Ok(None) => (WalEvidence::Absent, None),
        Ok(Some(s)) if s.kind == FileKind::File => {
            match look.open(&log).and_then(|f| observe::wal(&*f, db, page_size, reserved, hint)) {
                Ok((found, scan)) => (found, Some(scan)),
                Err(e) => (WalEvidence::Unreadable(e.to_string()), None),
            }
        }
        Ok(Some(_)) => (WalEvidence::Unreadable("it is not a regular file".to_string()), None),
        Err(e) => (WalEvidence::Unreadable(e.to_string()), None),
    };
    d.wal = found;
    scan
}

fn geometry(header: Option<&Result<Header, HeaderFault>>) -> (Option<u32>, u8) {
    match header {
        Some(Ok(h)) => (Some(h.page_size), h.reserved),
        _ => (None, 0),
    }
}

/// Structure of what SQLite would see: the database with the committed frames of the valid chain laid over it.
fn structure(
    look: &dyn Look,
    location: &Path,
    db: Option<&dyn ReadAt>,
    d: &DatabaseEvidence,
    scan: Option<&WalScan>,
    request: &Request<'_>,
) -> io::Result<Option<Structure>> {
    let deadline = request.budget_ms.map(|ms| look.uptime_ms().saturating_add(ms));
    let mut told = 0;
    let per_line = PROGRESS / d.header.as_ref().and_then(|h| h.as_ref().ok()).map_or(4096, |h| h.page_size).max(512);
    let mut go_on = |done: u32, of: u32| {
        if done / per_line > told {
            told = done / per_line;
            look.progress(&format!("checking {}: {done} of {of} pages", location.display()));
        }
        deadline.is_none_or(|end| look.uptime_ms() < end)
    };
    let key = SumKey(look.secret());
    if let (WalEvidence::Present(facts), Some(scan)) = (&d.wal, scan)
        && facts.committed > 0
    {
        let log = look.open(&side(location, "-wal"))?;
        let source = Overlay::folded(db, &*log, scan, &facts.fold());
        return check::check_keyed(&source, d.scope, key, look.crew(), &mut go_on).map(Some);
    }
    let Some(db) = db else { return Ok(None) };
    if let (JournalEvidence::Hot(facts), true) = (&d.journal, d.hot_journal)
        && facts.pages > 0
    {
        // What SQLite will see once it has put the pages back.
        let journal = look.open(&side(location, "-journal"))?;
        let back = Rollback { page_size: facts.page_size, pages: facts.pages, images: facts.images.clone() };
        let source = Overlay::rolled_back(db, &*journal, &back);
        return check::check_keyed(&source, d.scope, key, look.crew(), &mut go_on).map(Some);
    }
    let page_size = match &d.header {
        Some(Ok(h)) => h.page_size,
        _ => 4096,
    };
    check::check_keyed(&Overlay::alone(db, page_size), d.scope, key, look.crew(), &mut go_on).map(Some)
}

/// Opens a database again as it was sensed, with the same frames laid over it; `None` when there is nothing to open or
/// its log is no longer the one that was sensed.
pub fn overlaid<T>(
    look: &dyn Look,
    d: &DatabaseEvidence,
    f: impl FnOnce(&Overlay<'_>) -> io::Result<T>,
) -> io::Result<Option<T>> {
    let db = if let FileFact::Present(_) = d.file { Some(look.open(&d.location)?) } else { None };
    let db = db.as_deref().filter(|f| f.size() > 0);
    if let WalEvidence::Present(facts) = &d.wal
        && facts.committed > 0
    {
        let log = look.open(&side(&d.location, "-wal"))?;
        let scan = crate::sqlite::wal::scan(&*log, Some(facts.page_size))?;
        let fold = facts.fold();
        if scan.frame(fold.upto).map(|f| f.stored) != Some(fold.sum) {
            return Ok(None);
        }
        return f(&Overlay::folded(db, &*log, &scan, &fold)).map(Some);
    }
    let (Some(db), Some(Ok(header))) = (db, &d.header) else { return Ok(None) };
    f(&Overlay::alone(db, header.page_size)).map(Some)
}
