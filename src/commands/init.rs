//! `init`: the whole `/init` of an initramfs with no shell. PID 1 itself only mounts, loads, waits and switches; the
//! line runs in a limited child, and whatever becomes of it, a system that would have started is started (I9).

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::boot::{Found, baked_settings, find_volumes, guard, hand_over_failure, in_child};
use crate::boot::BootRequest;
use crate::boot::step::Ending;
use crate::cmdline::{self, SlotWord};
use crate::config::{Settings, SlotBackend};
use crate::edge::linux::init::{
    Down, has_init, hold, mount_api_filesystems, mount_root, open_console, reboot, say, unmount_root, uptime,
};
use crate::edge::linux::{file, kmsg, modules, switch};
use crate::error::Exit;
use crate::slots::Slot;

/// Modules to load, in order.
const LOAD_ORDER: &str = "/lib/modules/load-order";
/// Where a slot is mounted.
const NEW_ROOT: &str = "/mnt/root";
/// Pause between two looks while the recovery system waits for a person.
const IDLE: Duration = Duration::from_secs(60);

/// Runs as PID 1; returns only when it is not PID 1 and so has no business here.
pub fn run() -> Exit {
    if std::process::id() != 1 {
        super::complain("init is for PID 1 of an initramfs; use `boot` as a hook, or `check` and `repair`");
        return Exit::USAGE;
    }
    let started = uptime();
    let mut faults = mount_api_filesystems();
    if let Err(e) = open_console() {
        faults.push(format!("console: {e}"));
    }
    let text = file::read_text(Path::new("/proc/cmdline")).unwrap_or_default();
    let words = cmdline::parse(&text);
    kmsg::init(log::LevelFilter::Info);
    for fault in faults.iter().chain(&words.refused) {
        log::warn!("{fault}");
    }
    let (settings, complaints) = baked_settings(Path::new(super::CONFIG));
    for fault in &complaints {
        tell(&format!("configuration: {fault}"));
    }
    let loaded = modules::load_modules(Path::new(LOAD_ORDER));
    log::info!("{} modules loaded, {} failed", loaded.loaded, loaded.failed);
    let found = find_volumes(&settings, &[&settings.slot_a, &settings.slot_b]);
    for (name, why) in &found.missing {
        tell(&format!("{name}: {why}"));
    }
    start(&settings, &words, &found, started)
}

fn start(settings: &Settings, words: &cmdline::Request, found: &Found, started: u64) -> ! {
    let asked = words.slot.map(|s| if s == SlotWord::A { Slot::A } else { Slot::B });
    let mut dead: Vec<Slot> = Vec::new();
    loop {
        let choose_slot = settings.slot_backend == SlotBackend::File;
        let request = BootRequest {
            slot: asked,
            dead: dead.clone(),
            recovery: words.recovery,
            reset: words.reset.clone(),
            choose_slot,
        };
        let slot = if words.off {
            tell("switched off on the kernel command line");
            fallback(&dead)
        } else {
            line(settings, words, found, &request)
        };
        match slot {
            Some(slot) => {
                let why = boot_slot(settings, found, slot, started);
                tell(&format!("slot {slot} cannot be started: {why}"));
                dead.push(slot);
            }
            None => recovery(),
        }
        if dead.len() > 2 {
            recovery();
        }
    }
}

/// The slot to start, by the line; without it the first one that was not tried yet.
fn line(settings: &Settings, words: &cmdline::Request, found: &Found, request: &BootRequest) -> Option<Slot> {
    let mut progress = |line: &str| {
        if line.starts_with("stage:") { log::debug!("{line}") } else { log::info!("{line}") }
    };
    let failure = match in_child(settings, found, request, words.fault, &mut progress) {
        Ok(Ok(told)) => {
            told.lines.iter().for_each(|line| tell(line));
            return match told.ending {
                Ending::Continue { slot } => slot.or_else(|| fallback(&request.dead)),
                Ending::RebootInto { .. } => {
                    let why = reboot(Down::Restart);
                    tell(&format!("the machine cannot be restarted: {why}"));
                    fallback(&request.dead)
                }
                Ending::Hold { then, .. } => {
                    // Nobody on site is the normal case: a hold ends by itself wherever there is something to go on with.
                    then?;
                    tell(&format!("going on after a wait of {} min", settings.hold_minutes));
                    hold(Duration::from_secs(60 * u64::from(settings.hold_minutes)), &mut || false);
                    then
                }
            };
        }
        Ok(Err(why)) => why,
        Err(e) => e.to_string(),
    };
    tell(&format!("our own failure: {failure}; the system starts all the same"));
    tell("what the line had not finished is finished or taken back at the next boot");
    guard(settings, found, &mut progress);
    hand_over_failure(&failure);
    fallback(&request.dead)
}

/// Without a line there is no boot state either: A, else B.
fn fallback(dead: &[Slot]) -> Option<Slot> {
    [Slot::A, Slot::B].into_iter().find(|s| !dead.contains(s))
}

/// Mounts a slot and hands the machine over; returns only why that failed.
fn boot_slot(settings: &Settings, found: &Found, slot: Slot, started: u64) -> String {
    let index = usize::from(slot == Slot::B);
    let device: &PathBuf = match found.extra.get(index) {
        Some(Ok(device)) => device,
        Some(Err(why)) => return why.clone(),
        None => return "it has no device".to_string(),
    };
    let root = Path::new(NEW_ROOT);
    if let Err(e) = mount_root(device, root) {
        return format!("{}: {e}", device.display());
    }
    if !has_init(root, &settings.slot_init) {
        let why = format!("it has no {}", settings.slot_init.display());
        unmount_root(root);
        return why;
    }
    let up = uptime().saturating_sub(started);
    tell(&format!("starting slot {slot} after {up} ms"));
    let why = switch::switch_root(root, &settings.slot_init);
    unmount_root(root);
    why.to_string()
}

/// Stays. A person decides; the console says how things stand.
fn recovery() -> ! {
    loop {
        tell("recovery: this system stays up and changes nothing; a technician is needed");
        hold(IDLE, &mut || false);
    }
}

fn tell(line: &str) {
    say(&format!("pyvorin-recovery: {line}"));
}
