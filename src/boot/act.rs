//! Runs a plan: the only stage that writes. Each step can be run again after a cut at any point; the crash order of a
//! swap stands at the head of [`crate::journal`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::evidence::FsckLevel;
use super::outcome::{Detail, Outcome, StepResult};
use super::plan::{side, trial_key};
use super::sense::{TRIALS, UNCLEAN, read_record, small_file};
use super::step::{Plan, Step};
use super::{events, install, reset, stage};
use crate::audit::events::New;
use crate::audit::json::Value;
use crate::config::Settings;
use crate::edge::{Access, Look, Machine, durable};
use crate::record::{self, Decoded};
use crate::reset::SUBJECT;
use crate::slots::file as slot_file;
use crate::slots::{Slot, SlotsState};

/// Seconds e2fsck may take before it is stopped.
const FSCK_LIMIT_SECONDS: u64 = 600;
/// What a death of ours adds to the count of a step beside its beginning: two deaths reach [`super::plan::TRIALS`].
const CRASH: u32 = 4;

/// Runs the steps in order. A failed step stops the later steps of its own database only.
pub fn run(machine: &mut dyn Machine, settings: &Settings, plan: &Plan) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut failed: Vec<String> = Vec::new();
    for step in &plan.steps {
        let started = machine.uptime_ms();
        let database = step.database().map(str::to_string);
        let result = if database.as_ref().is_some_and(|d| failed.contains(d)) {
            StepResult::Skipped("an earlier step of the same database failed".to_string())
        } else {
            machine.progress(&format!(
                "step {}{}",
                step.name(),
                database.as_ref().map_or(String::new(), |d| format!(" {d}"))
            ));
            match attach(machine, step).and_then(|()| one(machine, settings, step)) {
                Ok(detail) => StepResult::Done(Box::new(detail)),
                Err(e) => StepResult::Failed(e.to_string()),
            }
        };
        if let (StepResult::Failed(why), Some(name)) = (&result, &database) {
            log::error!("{} {name}: {why}", step.name());
            failed.push(name.clone());
        }
        let elapsed_ms = machine.uptime_ms().saturating_sub(started);
        outcomes.push(Outcome { step: step.name().to_string(), database, result, elapsed_ms });
    }
    outcomes
}

fn attach(machine: &mut dyn Machine, step: &Step) -> io::Result<()> {
    if step.writes_state() {
        machine.attach("state", Access::ReadWrite)?;
    }
    if step.writes_data() {
        machine.attach("data", Access::ReadWrite)?;
    }
    Ok(())
}

fn one(machine: &mut dyn Machine, settings: &Settings, step: &Step) -> io::Result<Detail> {
    let said = |text: &str| Detail { text: text.to_string(), ..Detail::default() };
    match step {
        Step::RecordUnclean { volume, text } => {
            let bytes = record::encode(UNCLEAN, &format!("{volume}: {text}"));
            make_dirs(machine, &settings.state_dir)?;
            durable::replace(machine, &settings.state_dir.join(UNCLEAN), &bytes)?;
            Ok(said("recorded that the volume was not clean"))
        }
        Step::ForgetUnclean => {
            durable::remove(machine, &settings.state_dir.join(UNCLEAN))?;
            Ok(said("the databases on the unclean volume have been looked at"))
        }
        Step::CheckVolume { volume, level } => check_volume(machine, settings, volume, *level),
        Step::Resume { op } => {
            count_trial(machine, settings, &format!("resume:{op}"))?;
            let detail = install::resume(machine, settings, op)?;
            forget_trials(machine, settings, &format!("resume:{op}"))?;
            if detail.reset.is_some() {
                forget_trials(machine, settings, "reset:")?;
            }
            if detail.action.is_some() {
                let database =
                    op.split_once('-').and_then(|(_, rest)| rest.rsplit_once('-')).map_or("", |(name, _)| name);
                forget_trials(machine, settings, &trial_key(database, ""))?;
            }
            Ok(detail)
        }
        Step::Preserve { op, database, files, into, copy } => {
            if *copy {
                count_trial(machine, settings, &format!("copy:{op}"))?;
            }
            let detail = preserve(machine, settings, files, into, *copy)?;
            if *copy {
                forget_trials(machine, settings, &format!("copy:{op}"))?;
                left(machine, settings, op, database, &detail);
            }
            Ok(detail)
        }
        Step::Build(build) => {
            let fingerprint = build.op.rsplit('-').next().unwrap_or("");
            count_trial(machine, settings, &trial_key(&build.database, fingerprint))?;
            let built = stage::build(machine, settings, build)?;
            if built.is_err() {
                // Refused is refused for as long as the files are the same: no boot spends its time on them again.
                give_up(machine, settings, &trial_key(&build.database, fingerprint))?;
            }
            built.map_err(io::Error::other)
        }
        Step::Reset(asked) => {
            count_trial(machine, settings, &format!("reset:{}", asked.request.id))?;
            reset::prepare(machine, settings, asked)
        }
        Step::Install { op, database } => {
            let detail = install::install(machine, settings, op)?;
            if database == SUBJECT {
                forget_trials(machine, settings, "reset:")?;
            }
            forget_trials(machine, settings, &trial_key(database, ""))?;
            Ok(detail)
        }
        Step::Prune { dirs, .. } => {
            for dir in dirs {
                stage::discard(machine, dir)?;
            }
            Ok(said("older preserved originals were removed, as the policy says"))
        }
        Step::CountAttempt { slot } => write_slots(machine, settings, &|s| s.count_attempt(*slot), *slot),
        Step::MarkBad { slot } => write_slots(machine, settings, &|s| _ = s.mark_bad(*slot), *slot),
        Step::EnterRecovery { digest } => write_slots(machine, settings, &|s| _ = s.enter_recovery(digest), Slot::R),
    }
}

/// Records that damage was left: once for each state of the files, as the copy is made once.
fn left(machine: &mut dyn Machine, settings: &Settings, op: &str, database: &str, detail: &Detail) {
    let digests = detail.digests.iter().map(|(name, sha)| (name.as_str().into(), Value::text(sha))).collect();
    let details =
        Value::Object(vec![("database".into(), Value::text(database)), ("sha256".into(), Value::Object(digests))]);
    let new = New { at: machine.clock(), by: "unattended".into(), event: "left".into(), op: op.into(), details };
    events::note(machine, settings, &new);
}

/// Changes the boot state: read both copies, change in memory, write the older one.
pub fn write_slots(
    machine: &mut dyn Machine,
    settings: &Settings,
    change: &dyn Fn(&mut SlotsState),
    slot: Slot,
) -> io::Result<Detail> {
    // A copy that exists and cannot be read is an error, not a new device: defaults must not replace a real state.
    let [first, second] = slot_file::NAMES.map(|name| small_file(machine.as_look(), &settings.state_dir.join(name)));
    let (first, second) = (first?, second?);
    let found = slot_file::read(first.as_deref(), second.as_deref(), settings.slot_tries);
    let mut state = found.state.clone();
    change(&mut state);
    if state == found.state && found.newest.is_some() {
        return Ok(Detail { text: "the boot state says so already".to_string(), ..Detail::default() });
    }
    let Some(next) = found.encode_next(&state) else {
        return Err(io::Error::other("a newer version wrote the boot state; it is left alone"));
    };
    let name = slot_file::NAMES.get(next.index).copied().unwrap_or("slots.0");
    make_dirs(machine, &settings.state_dir)?;
    durable::replace(machine, &settings.state_dir.join(name), &next.bytes)?;
    let left = state.facts(slot).map_or(0, |f| f.left);
    Ok(Detail { text: format!("slot {slot}: {left} tries left"), ..Detail::default() })
}

fn check_volume(machine: &mut dyn Machine, settings: &Settings, volume: &str, level: FsckLevel) -> io::Result<Detail> {
    machine.detach(volume)?;
    let mut args: Vec<String> = Vec::new();
    match level {
        FsckLevel::Preen => args.push("-p".to_string()),
        FsckLevel::Yes => {
            // The undo file lets a technician take every change back; its name is new for each run.
            let undo = settings.state_dir.join(format!("undo-{volume}-{}", machine.clock()));
            args.extend(["-y".to_string(), "-z".to_string(), undo.to_string_lossy().into_owned()]);
        }
    }
    let status = machine.fsck(volume, &args, FSCK_LIMIT_SECONDS)?;
    let text = match status {
        0 => "the file system is clean",
        1 => "the file system was repaired",
        s if s & 2 != 0 => "the file system was repaired; a reboot is needed",
        _ => "errors are left on the file system",
    };
    Ok(Detail { text: text.to_string(), exit: Some(status), ..Detail::default() })
}

/// Gives files a second name in quarantine, or copies them there, with their digests.
pub fn preserve(
    machine: &mut dyn Machine,
    settings: &Settings,
    files: &[PathBuf],
    into: &Path,
    copy: bool,
) -> io::Result<Detail> {
    let mut digests = Vec::new();
    make_dirs(machine, into)?;
    for file in files {
        let Some(name) = file.file_name() else { continue };
        let kept = into.join(name);
        if copy {
            machine.copy(file, &kept)?;
            machine.sync_file(&kept)?;
        } else {
            match machine.link(file, &kept) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && same_file(machine, file, &kept)? => {}
                Err(e) => return Err(e),
            }
            // Pages that the kernel had not yet written when the power went are on disk by now; this makes it certain.
            machine.sync_file(&kept)?;
        }
        digests.push((name.to_string_lossy().into_owned(), sha256(machine.as_look(), &kept)?));
    }
    let manifest = serde_json::to_vec_pretty(&digests).map_err(io::Error::other)?;
    durable::replace(machine, &into.join("manifest.json"), &manifest)?;
    if let Some(parent) = into.parent() {
        machine.sync_dir(parent)?;
    }
    machine.sync_dir(&settings.data_dir)?;
    let text = format!("{} files preserved in {}", files.len(), into.display());
    Ok(Detail { text, quarantine: Some(into.to_path_buf()), digests, ..Detail::default() })
}

/// Gives the file `from` the name `to` as well, durably but for the directory; where the file system has none to give, a copy
/// with the same owner and mode.
pub fn second_name(machine: &mut dyn Machine, from: &Path, to: &Path) -> io::Result<()> {
    if let Err(e) = machine.link(from, to) {
        match e.kind() {
            io::ErrorKind::CrossesDevices | io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied => {
                machine.copy(from, to)?;
                if let Some(s) = machine.stat(from)? {
                    machine.set_owner(to, s.uid, s.gid, s.mode)?;
                }
            }
            _ => return Err(e),
        }
    }
    machine.sync_file(to)
}

/// Side files of a database that are there: what must lose its name before another file takes the place.
pub fn side_files(machine: &dyn Machine, location: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for suffix in ["-wal", "-journal", "-shm"] {
        let path = side(location, suffix);
        if machine.stat(&path)?.is_some() {
            found.push(path);
        }
    }
    Ok(found)
}

fn same_file(machine: &dyn Machine, a: &Path, b: &Path) -> io::Result<bool> {
    let ino = |p: &Path| machine.stat(p).map(|s| s.map(|s| s.ino));
    Ok(ino(a)? == ino(b)?)
}

/// Creates a directory and its missing parents, each name durable.
pub fn make_dirs(machine: &mut dyn Machine, path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|p| matches!(machine.stat(p), Ok(None))).collect();
    for dir in missing.into_iter().rev() {
        durable::make_dir(machine, dir)?;
    }
    Ok(())
}

/// SHA-256 of a file, lower-case hex, in bounded memory.
pub fn sha256(look: &dyn Look, path: &Path) -> io::Result<String> {
    let file = look.open(path)?;
    let mut hash = Sha256::new();
    let mut at = 0;
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        let n = file.read_at(at, &mut buffer)?;
        if n == 0 {
            break;
        }
        hash.update(buffer.get(..n).unwrap_or(&[]));
        at += n as u64;
        if at % (64 << 20) == 0 {
            look.progress(&format!("read {} MiB of {}", at >> 20, path.display()));
        }
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

fn trials(machine: &dyn Machine, settings: &Settings) -> BTreeMap<String, u32> {
    match read_record(machine.as_look(), &settings.state_dir.join(TRIALS), TRIALS) {
        Decoded::Ok(map) => map,
        _ => BTreeMap::new(),
    }
}

/// Counts the beginning of a step, durably: one that never ends is not begun for ever. Power cuts count once each, a
/// stage that died counts more ([`count_crash`]).
fn count_trial(machine: &mut dyn Machine, settings: &Settings, key: &str) -> io::Result<()> {
    let mut map = trials(machine, settings);
    *map.entry(key.to_string()).or_default() += 1;
    machine.attach("state", Access::ReadWrite)?;
    make_dirs(machine, &settings.state_dir)?;
    durable::replace(machine, &settings.state_dir.join(TRIALS), &record::encode(TRIALS, &map))
}

/// Counts a step as tried often enough.
fn give_up(machine: &mut dyn Machine, settings: &Settings, key: &str) -> io::Result<()> {
    let mut map = trials(machine, settings);
    map.insert(key.to_string(), super::plan::TRIALS);
    durable::replace(machine, &settings.state_dir.join(TRIALS), &record::encode(TRIALS, &map))
}

/// Called when a child of ours died or hung: whatever was begun and not ended is charged for it.
pub fn count_crash(machine: &mut dyn Machine, settings: &Settings) -> io::Result<()> {
    let mut map = trials(machine, settings);
    if map.is_empty() {
        return Ok(());
    }
    map.values_mut().for_each(|n| *n = n.saturating_add(CRASH));
    machine.attach("state", Access::ReadWrite)?;
    durable::replace(machine, &settings.state_dir.join(TRIALS), &record::encode(TRIALS, &map))
}

/// Forgets every count whose key starts with `prefix`: the step has ended, whatever state the files were in before.
fn forget_trials(machine: &mut dyn Machine, settings: &Settings, prefix: &str) -> io::Result<()> {
    let mut map = trials(machine, settings);
    let before = map.len();
    map.retain(|key, _| !key.starts_with(prefix));
    if map.len() == before {
        return Ok(());
    }
    let path = settings.state_dir.join(TRIALS);
    if map.is_empty() {
        return durable::remove(machine, &path);
    }
    durable::replace(machine, &path, &record::encode(TRIALS, &map))
}
