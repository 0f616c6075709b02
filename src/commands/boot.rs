//! `boot`: the flow as a hook inside somebody else's initramfs, its plan, and the replay of stored evidence.
//!
//! The caller mounts nothing of ours; this attaches the volumes for itself, in its own mount namespace, and lets go of
//! them again. The binary does all waiting and holding; the script that calls it reboots on bit 2 and returns 0.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Context, RUN, print_json};
use crate::boot::report::{BootReport, plain};
use crate::boot::step::Ending;
use crate::boot::{self, BootRequest, Stage, assess, sense};
use crate::cli::Invocation;
use crate::cmdline::{self, FaultKind, FaultStage};
use crate::config::{Fault, Settings};
use crate::edge::Machine;
use crate::edge::linux::child::{ChildEnd, Limits, Teller};
use crate::edge::linux::{LinuxMachine, Volume, block, child, file, init};
use crate::error::{Error, ErrorKind, Exit};

/// Address space of the child that runs the line: the log scanner's bound and the engine's cache fit several times.
const MEMORY: u64 = 1 << 30;
/// However much it progresses, the line ends after this.
const OVERALL: Duration = Duration::from_secs(4 * 3600);

/// Time for copying the logs after a failure of our own.
const GUARD: Duration = Duration::from_secs(30);

/// What the child tells PID 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Told {
    /// How the plan ends.
    pub ending: Ending,
    /// Why.
    pub reason: String,
    /// What to show on every console.
    pub lines: Vec<String>,
}

/// Reads the configuration baked into the initramfs. Faults are findings, never a reason to stop a boot.
pub fn baked_settings(path: &Path) -> (Settings, Vec<Fault>) {
    match file::read_text(path) {
        Ok(text) => Settings::lenient(&text),
        Err(_) => (Settings::default_for_agent(), Vec::new()),
    }
}

/// The volumes by name, waited for; what was not found is named with the reason.
pub fn find_volumes(settings: &Settings, extra: &[&str]) -> Found {
    let state = settings.state_device.as_deref();
    let mut specs = vec![settings.data_device.as_str()];
    specs.extend(state);
    specs.extend(extra);
    let wait = Duration::from_secs(u64::from(settings.device_wait_seconds));
    let mut answers = block::wait_for(&specs, wait).into_iter().map(|a| a.map_err(|e| e.to_string()));
    let mut found = Found::default();
    let mut volume = |name: &str, target: &Path, answer: Option<Result<PathBuf, String>>| match answer {
        Some(Ok(device)) => found.volumes.push(Volume { name: name.into(), device, target: target.into() }),
        Some(Err(why)) => found.missing.push((name.to_string(), why)),
        None => {}
    };
    volume("data", &settings.data_mountpoint, answers.next());
    if state.is_some() {
        volume("state", &settings.state_dir, answers.next());
    }
    found.extra = answers.collect();
    found
}

/// Result of looking for devices.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Volumes that are there.
    pub volumes: Vec<Volume>,
    /// Volumes that are not, with the reason.
    pub missing: Vec<(String, String)>,
    /// The other devices asked for, in order.
    pub extra: Vec<Result<PathBuf, String>>,
}

/// Runs the line in a limited child and hands the reports over. `on_line` sees its progress.
pub fn in_child(
    settings: &Settings,
    found: &Found,
    request: &BootRequest,
    fault: Option<cmdline::Fault>,
    on_line: &mut dyn FnMut(&str),
) -> std::io::Result<Result<Told, String>> {
    let limits = Limits {
        silence: Duration::from_secs(u64::from(settings.stage_deadline_seconds)),
        overall: OVERALL,
        memory: MEMORY,
        private_mounts: true,
    };
    let ended = child::run(limits, on_line, |teller| work(settings, found, request, fault, teller))?;
    let stage = ended.last_stage.unwrap_or_else(|| "start".to_string());
    let failure = match ended.end {
        ChildEnd::Finished(bytes) => match serde_json::from_slice::<Told>(&bytes) {
            Ok(told) => return Ok(Ok(told)),
            Err(e) => format!("its answer cannot be understood ({e})"),
        },
        ChildEnd::Died(how) => format!("stage {stage} died: {how}"),
        ChildEnd::TimedOut => {
            format!("stage {stage} made no progress for {} s and was stopped", settings.stage_deadline_seconds)
        }
    };
    Ok(Err(failure))
}

/// After a failure of the line: copies of the logs, because the OS is about to open them with an engine that deletes
/// what it cannot read. A child of its own with a short leash; whatever becomes of it, the boot goes on.
pub fn guard(settings: &Settings, found: &Found, on_line: &mut dyn FnMut(&str)) {
    let limits = Limits { silence: GUARD, overall: GUARD, memory: MEMORY, private_mounts: true };
    let ended = child::run(limits, on_line, |teller| {
        let sink = teller.clone();
        let mut machine = LinuxMachine::new(found.volumes.clone(), Box::new(move |line| sink.line(line)))
            .with_missing(found.missing.clone());
        let kept = boot::guard::keep_logs(&mut machine, settings);
        if let Err(e) = boot::guard::charge(&mut machine, settings) {
            log::warn!("the failure could not be counted: {e}");
        }
        for volume in ["data", "state"] {
            if let Err(e) = machine.detach(volume) {
                log::warn!("{volume}: {e}");
            }
        }
        kept.map_or_else(|e| e.to_string(), |n| format!("{n} logs copied")).into_bytes()
    });
    match ended.map(|e| e.end) {
        Ok(ChildEnd::Finished(text)) => {
            init::say(&format!("pyvorin-recovery: {} to quarantine", String::from_utf8_lossy(&text)));
        }
        other => log::error!("the logs could not be copied: {other:?}"),
    }
}

fn work(
    settings: &Settings,
    found: &Found,
    request: &BootRequest,
    fault: Option<cmdline::Fault>,
    teller: &Teller,
) -> Vec<u8> {
    let sink = teller.clone();
    let mut machine = LinuxMachine::new(found.volumes.clone(), Box::new(move |line| sink.line(line)))
        .with_missing(found.missing.clone());
    let mut enter = |stage: Stage| {
        teller.stage(stage.name());
        if let Some(kind) = fault.filter(|f| stage_of(f.stage) == stage).map(|f| f.kind) {
            rehearse(kind);
        }
    };
    let done = boot::run(&mut machine, settings, request, &mut enter);
    hand_over(&done);
    for volume in ["data", "state"] {
        if let Err(e) = machine.detach(volume) {
            log::warn!("{volume}: {e}");
        }
    }
    let told = Told { ending: done.ending, reason: done.report.reason.clone(), lines: plain(&done.report) };
    serde_json::to_vec(&told).unwrap_or_default()
}

fn stage_of(stage: FaultStage) -> Stage {
    match stage {
        FaultStage::Sense => Stage::Sense,
        FaultStage::Assess => Stage::Assess,
        FaultStage::Plan => Stage::Plan,
        FaultStage::Act => Stage::Act,
        FaultStage::Report => Stage::Report,
    }
}

/// A rehearsal of our own failure, asked for on the kernel command line.
fn rehearse(kind: FaultKind) {
    match kind {
        FaultKind::Kill => init::kill_self(),
        FaultKind::Hang => {
            init::hold(OVERALL, &mut || false);
        }
    }
}

/// Writes the reports of this boot to memory, where the OS finds them.
fn hand_over(done: &boot::Boot) {
    let dir = Path::new(RUN);
    let text = plain(&done.report).join("\n") + "\n";
    let files: [(&str, Result<Vec<u8>, serde_json::Error>); 4] = [
        ("report.json", serde_json::to_vec_pretty(&done.report)),
        ("evidence.json", serde_json::to_vec(&done.evidence)),
        ("plan.json", serde_json::to_vec_pretty(&done.plan)),
        ("report.txt", Ok(text.into_bytes())),
    ];
    let mut machine = LinuxMachine::new(Vec::new(), Box::new(|_| {}));
    if let Err(e) = machine.make_dir(dir) {
        log::error!("{}: {e}", dir.display());
    }
    for (name, bytes) in files {
        let written = bytes.map_err(std::io::Error::other).and_then(|b| machine.write(&dir.join(name), &b));
        if let Err(e) = written {
            log::error!("{name}: {e}");
        }
    }
}

/// Leaves word of our own failure for the OS.
pub fn hand_over_failure(why: &str) {
    let report = BootReport {
        schema: "pyvorin-recovery/boot/1".to_string(),
        ending: "continue".to_string(),
        slot: None,
        reason: "the recovery line failed and the system starts; what it had begun is finished or taken back at the next boot".to_string(),
        elapsed_ms: 0,
        databases: Vec::new(),
        filesystem: Vec::new(),
        stick: None,
        button: "none".to_string(),
        steps: Vec::new(),
        cause: assess::Cause::None,
        reset: None,
        own_failure: Some(why.to_string()),
    };
    let mut machine = LinuxMachine::new(Vec::new(), Box::new(|_| {}));
    let path = Path::new(RUN);
    let written = machine
        .make_dir(path)
        .and_then(|()| serde_json::to_vec_pretty(&report).map_err(std::io::Error::other))
        .and_then(|bytes| machine.write(&path.join("report.json"), &bytes));
    if let Err(e) = written {
        log::error!("the report cannot be handed over: {e}");
    }
}

/// The hook. Never more than bit 2 matters to the caller.
pub fn hook(invocation: &Invocation) -> Exit {
    let path = invocation.config.clone().unwrap_or_else(|| PathBuf::from(super::CONFIG));
    let (settings, faults) = baked_settings(&path);
    for fault in &faults {
        init::say(&format!("pyvorin-recovery: {}: {fault}", path.display()));
    }
    let words = cmdline::parse(&file::read_text(Path::new("/proc/cmdline")).unwrap_or_default());
    if words.off {
        return Exit::OK;
    }
    // Held by the forked line as well. Waiting for ever would stop a boot; so would two of us at one journal.
    let _lock = match super::work::machine_lock(super::work::PATIENCE) {
        Ok(lock) => lock,
        Err(_) => {
            init::say(
                "pyvorin-recovery: another pyvorin-recovery is at work; nothing is done here, and the boot goes on",
            );
            return Exit::OPERATIONAL;
        }
    };
    let request =
        BootRequest { slot: None, dead: Vec::new(), recovery: words.recovery, reset: words.reset, choose_slot: false };
    let found = find_volumes(&settings, &[]);
    let told = match in_child(&settings, &found, &request, words.fault, &mut |line| log::info!("{line}")) {
        Ok(Ok(told)) => told,
        Ok(Err(why)) => {
            guard(&settings, &found, &mut |line| log::info!("{line}"));
            return failed(&why);
        }
        Err(e) => return failed(&e.to_string()),
    };
    told.lines.iter().for_each(|line| init::say(&format!("pyvorin-recovery: {line}")));
    match told.ending {
        Ending::RebootInto { .. } => Exit::REBOOT,
        Ending::Hold { .. } => {
            init::hold(Duration::from_secs(60 * u64::from(settings.hold_minutes)), &mut || false);
            Exit::OK
        }
        Ending::Continue { .. } => Exit::OK,
    }
}

fn failed(why: &str) -> Exit {
    init::say(&format!("pyvorin-recovery: {why}; the system starts all the same"));
    hand_over_failure(why);
    Exit::OPERATIONAL
}

/// Prints the plan of a boot, from this machine or from stored evidence.
pub fn plan(context: &mut Context, from: Option<&Path>) -> Result<Exit, Error> {
    let settings = &context.settings;
    let ask = sense::Request {
        scope: None,
        budget_ms: Some(settings.check_budget_ms),
        holders: true,
        slots: true,
        ..sense::Request::new(settings, &context.by)
    };
    let found = match from {
        None => sense::data(context.machine.as_look(), &ask),
        Some(path) => {
            let cannot = |e: std::io::Error| Error::io(ErrorKind::Read, "cannot read the evidence", path, &e);
            let opened = crate::edge::Look::open(&context.machine, path).map_err(cannot)?;
            let bytes = crate::sqlite::read_vec(&*opened, 0, 256 << 20).map_err(cannot)?;
            serde_json::from_slice(&bytes).map_err(|e| {
                let advice = "name the evidence.json of a boot report";
                Error::new(ErrorKind::Read, "cannot understand the evidence", e.to_string(), advice).at(path)
            })?
        }
    };
    print_json(&boot::planned(context.machine.as_look(), settings, &found, true).1)?;
    Ok(Exit::OK)
}
