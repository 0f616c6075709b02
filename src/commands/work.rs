//! What stands around every command that writes: one of us at a time, whatever a cut left open finished first, the agent
//! stopped while its files are replaced and started again afterwards, whatever became of the work.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::{Context, RUN, complain};
use crate::boot::outcome::Detail;
use crate::boot::{open, sense};
use crate::edge::linux::lock::{self, Lock};
use crate::edge::linux::service::{Running, Service};
use crate::edge::{Look, Machine};
use crate::error::{Error, ErrorKind, Exit};
use crate::journal::{IntentEvidence, MIRROR};
use crate::sqlite::check::Scope;
use crate::sqlite::judge::Completeness;
use crate::sqlite::read_vec;

/// How long a command waits for another one of us.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long files may stay open after a script has said that the agent is stopped.
const LETTING_GO: u32 = 150;
const PAUSE: Duration = Duration::from_millis(200);
/// In [`RUN`]: the unit that a command has stopped and not started again yet. In memory, so that a start of the machine
/// forgets it.
const STOPPED: &str = "stopped-unit";

/// Held while a command writes.
pub struct Work {
    _locks: Vec<Lock>,
    stopped: Option<Service>,
}

/// Takes the locks: this machine's, then the card's. Where there is no state directory yet, the data directory stands
/// for it.
pub fn alone(context: &Context) -> Result<Vec<Lock>, Error> {
    let mut locks = Vec::new();
    if is_this_machine(context) {
        locks.extend(machine_lock(PATIENCE).map_err(|e| busy(&e, Path::new(RUN)))?);
    }
    for dir in [&context.settings.state_dir, &context.settings.data_dir] {
        match lock::take(dir, PATIENCE) {
            Ok(lock) => {
                locks.push(lock);
                break;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(busy(&e, dir)),
        }
    }
    Ok(locks)
}

/// The lock of this machine, which `boot` takes too. An error is `WouldBlock`: another one of us has it. Where there is
/// nothing to lock (no `/run` that we may write to) there is no lock, and whoever is there is not root.
pub fn machine_lock(patience: Duration) -> io::Result<Option<Lock>> {
    let mut machine = crate::edge::linux::LinuxMachine::new(Vec::new(), Box::new(|_| {}));
    if let Err(e) = machine.make_dir(Path::new(RUN)) {
        log::debug!("{RUN}: {e}");
    }
    match lock::take(Path::new(RUN), patience) {
        Ok(lock) => Ok(Some(lock)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(e),
        Err(e) => {
            log::debug!("{RUN} cannot be locked: {e}");
            Ok(None)
        }
    }
}

fn busy(e: &io::Error, dir: &Path) -> Error {
    if e.kind() != io::ErrorKind::WouldBlock {
        return Error::io(ErrorKind::Read, "cannot lock the directory", dir, e);
    }
    let advice = "wait until it has ended, then try again";
    Error::new(ErrorKind::Refused, "cannot begin", "another pyvorin-recovery is at work here", advice).at(dir)
}

/// Below another root nothing of this machine's agent is meant.
fn is_this_machine(context: &Context) -> bool {
    context.root == Path::new("/")
}

impl Work {
    /// Takes the locks and takes over what an earlier command that was killed has left stopped.
    pub fn begin(context: &Context) -> Result<Work, Error> {
        let locks = alone(context)?;
        let stopped = if is_this_machine(context) { left_stopped(context) } else { None };
        if let Some(service) = &stopped {
            complain(&format!("an earlier command stopped {} and did not end; it is started after this", service.unit));
        }
        Ok(Work { _locks: locks, stopped })
    }

    /// Finishes what is open, with the agent stopped. What was finished is for the caller to tell.
    pub fn finish_open(&mut self, context: &mut Context) -> Result<Option<Detail>, Error> {
        let (settings, by) = (context.settings.clone(), context.by.clone());
        let request =
            sense::Request { scope: Some(Scope::Quick), holders: true, ..sense::Request::new(&settings, &by) };
        if sense::operation(context.machine.as_look(), &request).intent == IntentEvidence::None {
            return Ok(None);
        }
        self.quiet(context)?;
        let done = open::finish(&mut context.machine, &request)?;
        if let Some(done) = &done {
            complain(&done.text);
            if done.completeness == Some(Completeness::Lossy) {
                complain("rows were lost in it; next: `audit show` tells what, and where the originals are");
            }
        }
        Ok(done)
    }

    /// Stops the agent, where it runs and something manages it; true when that was done. What was read before is out of
    /// date then. Whoever has the files open besides is found by the look that follows.
    pub fn quiet(&mut self, context: &Context) -> Result<bool, Error> {
        if self.stopped.is_some() || !is_this_machine(context) {
            return Ok(false);
        }
        let Some(service) = Service::here(&context.settings.service_unit) else { return Ok(false) };
        let open = || !holders(context).is_empty();
        if service.running() == Running::No || service.running() == Running::Unknown && !open() {
            return Ok(false);
        }
        // Written first: a command killed between the two leaves a unit that is named and runs.
        note_stopped(Some(&service.unit));
        let unit = service.unit.clone();
        complain(&format!("stopping {unit}"));
        let stopped = service.stop(&|line| log::info!("{line}"));
        self.stopped = Some(service);
        stopped.map_err(|e| {
            let advice = "stop it by hand, see why it does not stop, and try again";
            Error::new(ErrorKind::Refused, format!("cannot stop {unit}"), e.to_string(), advice)
        })?;
        let mut waits = 0;
        while open() && waits < LETTING_GO {
            std::thread::sleep(PAUSE);
            waits += 1;
        }
        Ok(true)
    }

    /// Starts what was stopped, whatever became of the work, unless a half-made change is in place.
    pub fn end(self, context: &Context, result: Result<Exit, Error>) -> Result<Exit, Error> {
        let Some(service) = self.stopped else { return result };
        let mirror = context.settings.data_dir.join(MIRROR);
        if !matches!(context.machine.stat(&mirror), Ok(None)) {
            complain(&format!(
                "{} stays stopped: a change is half made; next: the same command again, or a start of the machine",
                service.unit
            ));
            return result;
        }
        match service.start(&|line| log::info!("{line}")) {
            Ok(()) => {
                note_stopped(None);
                complain(&format!("{} is started again", service.unit));
                result
            }
            Err(e) => {
                complain(&format!(
                    "{} cannot be started again: {e}; next: see its own log, then start it",
                    service.unit
                ));
                result.map(|exit| exit | Exit::OPERATIONAL)
            }
        }
    }
}

/// Whoever has a supervised database open.
fn holders(context: &Context) -> Vec<String> {
    let look = context.machine.as_look();
    context.settings.databases.iter().flat_map(|d| sense::holders(look, &d.location)).collect()
}

fn left_stopped(context: &Context) -> Option<Service> {
    let path = Path::new(RUN).join(STOPPED);
    let file = context.machine.open(&path).ok()?;
    let unit = String::from_utf8(read_vec(&*file, 0, 256).ok()?).ok()?;
    Service::here(unit.trim())
}

fn note_stopped(unit: Option<&str>) {
    let mut machine = crate::edge::linux::LinuxMachine::new(Vec::new(), Box::new(|_| {}));
    let path = Path::new(RUN).join(STOPPED);
    let done = match unit {
        Some(unit) => machine.write(&path, unit.as_bytes()),
        None => machine.unlink(&path),
    };
    if let Err(e) = done {
        log::warn!("{}: {e}", path.display());
    }
}
