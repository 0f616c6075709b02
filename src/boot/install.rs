//! Commits, swaps and finishes an operation, from whatever phase its record is in. The order stands at the head of
//! [`crate::journal`]; every part asks first whether it is done already.

use std::io;
use std::path::Path;

use super::act::{second_name, sha256};
use super::events;
use super::outcome::Detail;
use super::reset;
use super::sense::{holders, read_record};
use super::stage::discard;
use crate::audit::events::New;
use crate::audit::json::{self, Value};
use crate::backup::restore;
use crate::config::Settings;
use crate::edge::{Machine, durable};
use crate::journal::{self, Intent, Phase, Target};
use crate::record::Decoded;

/// Carries a prepared operation through to its end.
pub fn install(machine: &mut dyn Machine, settings: &Settings, op: &str) -> io::Result<Detail> {
    let mut intent = load(machine, settings)?.ok_or_else(|| io::Error::other("there is no intent record"))?;
    if intent.op != op {
        return Err(io::Error::other(format!("the open operation is {}, not {op}", intent.op)));
    }
    if intent.phase == Phase::Prepared {
        intent.phase = Phase::Commit;
        // The mirror first: once COMMIT stands, nothing of the OS may start on the data before the swap is done. And
        // only then the look for users: whoever starts from here on meets the mirror.
        let mirror = settings.data_dir.join(journal::MIRROR);
        if let Err(e) = durable::replace(machine, &mirror, &intent.encode()).and_then(|()| nobody(machine, &intent)) {
            // Nothing has been touched, so nothing need wait for the next boot. What cannot be tidied does.
            let tidy = throw_away(machine, &intent).and_then(|()| close(machine, settings));
            tidy.unwrap_or_else(|e| log::warn!("{op} stays open: {e}"));
            return Err(e);
        }
        save(machine, settings, &intent)?;
    }
    forward(machine, settings, &mut intent)
}

/// After a cut: forward from COMMIT on, backward before it.
pub fn resume(machine: &mut dyn Machine, settings: &Settings, op: &str) -> io::Result<Detail> {
    let Some(mut intent) = load(machine, settings)?.filter(|i| i.op == op) else {
        return Err(io::Error::other("the record changed since it was sensed"));
    };
    if intent.phase == Phase::Prepared {
        throw_away(machine, &intent)?;
        close(machine, settings)?;
        let text = "an operation that had not committed was thrown away; the originals are untouched";
        return Ok(Detail { text: text.to_string(), ..Detail::default() });
    }
    // A record known from its mirror alone goes back to state before anything moves.
    save(machine, settings, &intent)?;
    if intent.phase == Phase::Commit {
        nobody(machine, &intent)?;
    }
    if intent.phase == Phase::Commit && !can_go_forward(machine, &intent)? {
        // Some of its files may be in place already, and belong together with those that cannot be.
        if intent.kind == restore::KIND {
            return begin_back(machine, settings, &mut intent);
        }
        take_back(machine, settings, &intent)?;
        let text = "the staged file was lost; the originals were put back from quarantine";
        return Ok(Detail { text: text.to_string(), ..Detail::default() });
    }
    let done = forward(machine, settings, &mut intent)?;
    if intent.phase == Phase::Rollback {
        return Ok(done);
    }
    let mut detail: Detail = serde_json::from_str(&intent.outcome).unwrap_or(done);
    detail.action = detail.action.or_else(|| Some("finished".to_string()));
    detail.text = format!("an operation interrupted by a power cut was finished ({op})");
    Ok(detail)
}

fn forward(machine: &mut dyn Machine, settings: &Settings, intent: &mut Intent) -> io::Result<Detail> {
    if intent.phase == Phase::Rollback {
        return back(machine, settings, intent);
    }
    if intent.phase == Phase::Commit {
        for target in &intent.targets {
            swap(machine, target)?;
        }
        intent.phase = Phase::Swapped;
        save(machine, settings, intent)?;
    }
    if intent.phase == Phase::Swapped {
        for target in &intent.targets {
            if target.goes() {
                if machine.stat(&target.path)?.is_some() {
                    return Err(io::Error::other(format!(
                        "{} came back while it was taken away",
                        target.path.display()
                    )));
                }
            } else if sha256(machine.as_look(), &target.path)? != target.sha256 {
                if intent.kind == restore::KIND {
                    return begin_back(machine, settings, intent);
                }
                let text = "the new database does not read back as written: the storage is failing; the originals are in quarantine";
                return Err(io::Error::other(text));
            }
        }
        intent.phase = Phase::Done;
        save(machine, settings, intent)?;
    }
    let mut detail = Detail { text: format!("{} is in place", names(intent)), ..Detail::default() };
    if let Some(receipt) = &intent.receipt {
        detail = reset::finish(machine, settings, receipt)?;
    }
    // Before the record is forgotten: a cut between the two leads here again, and the same event is recorded once.
    let done = event(machine.clock(), intent);
    events::note(machine, settings, &done);
    discard(machine, &intent.stage)?;
    close(machine, settings)?;
    Ok(detail)
}

fn begin_back(machine: &mut dyn Machine, settings: &Settings, intent: &mut Intent) -> io::Result<Detail> {
    intent.phase = Phase::Rollback;
    save(machine, settings, intent)?;
    back(machine, settings, intent)
}

/// Every displaced file back under its name, from where it was kept; then the operation is forgotten. Where nothing was
/// displaced the new file goes. The agent waits meanwhile: the mirror stands.
fn back(machine: &mut dyn Machine, settings: &Settings, intent: &Intent) -> io::Result<Detail> {
    for target in &intent.targets {
        for path in [&target.path].into_iter().chain(&target.retire) {
            let Some(original) = path.file_name().map(|name| target.kept.join(name)) else { continue };
            if machine.stat(&original)?.is_none() {
                machine.unlink(path)?;
                continue;
            }
            let mut aside = path.as_os_str().to_os_string();
            aside.push(".back");
            let aside = Path::new(&aside);
            machine.unlink(aside)?;
            second_name(machine, &original, aside)?;
            machine.rename(aside, path)?;
        }
        if let Some(parent) = target.path.parent() {
            machine.sync_dir(parent)?;
        }
    }
    let done = New { event: "restore_taken_back".to_string(), ..event(machine.clock(), intent) };
    events::note(machine, settings, &done);
    throw_away(machine, intent)?;
    close(machine, settings)?;
    let text =
        "the restored files did not read back as written, so the originals are in place again; the storage is failing";
    Ok(Detail { text: text.to_string(), action: Some("left".to_string()), ..Detail::default() })
}

/// Proof that no other process has a target open: it would go on writing to a file without a name.
fn nobody(machine: &dyn Machine, intent: &Intent) -> io::Result<()> {
    for target in &intent.targets {
        let by = holders(machine.as_look(), &target.path);
        if !by.is_empty() {
            let why = format!("{} is open in {}; nothing was swapped", target.path.display(), by.join(", "));
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
        }
    }
    Ok(())
}

fn event(at: u64, intent: &Intent) -> New {
    let details = json::loads(intent.note.as_bytes()).unwrap_or_else(|_| Value::Object(Vec::new()));
    New { at, by: intent.by.clone(), event: intent.kind.clone(), op: intent.op.clone(), details }
}

fn names(intent: &Intent) -> String {
    intent.targets.iter().map(|t| t.database.as_str()).collect::<Vec<_>>().join(", ")
}

fn swap(machine: &mut dyn Machine, target: &Target) -> io::Result<()> {
    let parent = target.path.parent().ok_or_else(|| io::Error::other("the path has no directory"))?;
    if target.goes() {
        return go(machine, target, parent);
    }
    if machine.stat(&target.staged)?.is_none() {
        // Renamed already; the digest is compared at SWAPPED.
        return match machine.stat(&target.path)? {
            Some(_) => Ok(()),
            None => Err(io::Error::other("neither the staged file nor the database is there")),
        };
    }
    if sha256(machine.as_look(), &target.staged)? != target.sha256 {
        return Err(io::Error::other("the staged file does not read back as written; nothing was swapped"));
    }
    for side in &target.retire {
        machine.unlink(side)?;
    }
    machine.sync_dir(parent)?;
    machine.rename(&target.staged, &target.path)?;
    machine.sync_dir(parent)?;
    match target.staged.parent() {
        Some(stage) => machine.sync_dir(stage),
        None => Ok(()),
    }
}

/// Takes a file away with its side files, the log first: a database without its log is an older one, and a log without
/// its database is nothing that SQLite would look at.
fn go(machine: &mut dyn Machine, target: &Target, parent: &Path) -> io::Result<()> {
    for side in &target.retire {
        machine.unlink(side)?;
    }
    machine.sync_dir(parent)?;
    machine.unlink(&target.path)?;
    machine.sync_dir(parent)
}

/// Every target goes away, is in place or has a staged file that reads back as it was written.
fn can_go_forward(machine: &dyn Machine, intent: &Intent) -> io::Result<bool> {
    for target in intent.targets.iter().filter(|t| !t.goes()) {
        let mut whole = false;
        for path in [&target.staged, &target.path] {
            whole |= machine.stat(path)?.is_some() && sha256(machine.as_look(), path)? == target.sha256;
        }
        if !whole {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Backwards from COMMIT, for storage that lost what it had acknowledged: whatever name was taken away is linked back
/// from quarantine. A file that still has its name is left alone.
fn take_back(machine: &mut dyn Machine, settings: &Settings, intent: &Intent) -> io::Result<()> {
    let whole = settings.data_dir.join(journal::QUARANTINE).join(&intent.op);
    for target in &intent.targets {
        let kept = if target.kept.as_os_str().is_empty() { &whole } else { &target.kept };
        for path in target.retire.iter().chain([&target.path]) {
            let Some(original) = path.file_name().map(|name| kept.join(name)) else { continue };
            if machine.stat(path)?.is_none() && machine.stat(&original)?.is_some() {
                machine.link(&original, path)?;
            }
        }
        if let Some(parent) = target.path.parent() {
            machine.sync_dir(parent)?;
        }
    }
    discard(machine, &intent.stage)?;
    close(machine, settings)
}

/// The staged files of an operation that has not committed, those that stand beside their targets among them.
fn throw_away(machine: &mut dyn Machine, intent: &Intent) -> io::Result<()> {
    for target in intent.targets.iter().filter(|t| !t.goes() && !t.staged.starts_with(&intent.stage)) {
        durable::remove(machine, &target.staged)?;
    }
    discard(machine, &intent.stage)
}

/// Refuses to begin an operation while another one is open: its files are neither the old nor the new ones.
///
/// # Errors
/// One is open, or that cannot be seen.
pub fn none_open(machine: &dyn Machine, settings: &Settings) -> io::Result<()> {
    for open in [settings.state_dir.join(journal::FILE), settings.data_dir.join(journal::MIRROR)] {
        if machine.stat(&open)?.is_some() {
            return Err(io::Error::other("an interrupted operation is still open; `repair` finishes it first"));
        }
    }
    Ok(())
}

/// Forgets the operation: mirror first, record last.
fn close(machine: &mut dyn Machine, settings: &Settings) -> io::Result<()> {
    durable::remove(machine, &settings.data_dir.join(journal::MIRROR))?;
    durable::remove(machine, &settings.state_dir.join(journal::FILE))
}

fn save(machine: &mut dyn Machine, settings: &Settings, intent: &Intent) -> io::Result<()> {
    durable::replace(machine, &settings.state_dir.join(journal::FILE), &intent.encode())
}

fn load(machine: &dyn Machine, settings: &Settings) -> io::Result<Option<Intent>> {
    let own = settings.state_dir.join(journal::FILE);
    let path = if machine.stat(&own)?.is_some() { own } else { settings.data_dir.join(journal::MIRROR) };
    read(machine, &path)
}

fn read(machine: &dyn Machine, path: &Path) -> io::Result<Option<Intent>> {
    if machine.stat(path)?.is_none() {
        return Ok(None);
    }
    match read_record::<Intent>(machine.as_look(), path, journal::RECORD) {
        Decoded::Ok(intent) => Ok(Some(intent)),
        Decoded::Newer { min_reader } => {
            Err(io::Error::other(format!("a newer version (reader {min_reader}) wrote it")))
        }
        Decoded::Damaged(why) => Err(io::Error::other(why)),
    }
}
