//! `slot status` and `slot mark-good`.

use serde::Serialize;

use super::{Context, print, print_json};
use crate::boot::act::write_slots;
use crate::boot::saved;
use crate::boot::sense::small_file;
use crate::config::SlotBackend;
use crate::edge::Machine;
use crate::error::{Error, ErrorKind, Exit};
use crate::slots::file::{FileState, NAMES, Origin, read};
use crate::slots::{BootState, Slot};

#[derive(Serialize)]
struct SlotReport {
    slot: String,
    state: BootState,
    left: u32,
}

#[derive(Serialize)]
struct SlotsReport {
    schema: &'static str,
    exit: u8,
    booted: Option<String>,
    primary: Option<String>,
    slots: Vec<SlotReport>,
    known: bool,
    findings: Vec<String>,
}

fn load(context: &Context) -> Result<FileState, Error> {
    if context.settings.slot_backend != SlotBackend::File {
        return Err(Error::new(
            ErrorKind::Config,
            "cannot read the boot state",
            format!("the backend {:?} is not part of this version", context.settings.slot_backend),
            "set [slots] backend = \"file\", or use the loader's own tools",
        ));
    }
    let dir = &context.settings.state_dir;
    let copy = |name: &str| {
        let path = dir.join(name);
        small_file(context.machine.as_look(), &path)
            .map_err(|e| Error::io(ErrorKind::Read, "cannot read the boot state", &path, &e))
    };
    let [first, second] = NAMES;
    Ok(read(copy(first)?.as_deref(), copy(second)?.as_deref(), context.settings.slot_tries))
}

/// Prints the boot state.
pub fn status(context: &Context) -> Result<Exit, Error> {
    let found = load(context)?;
    let known = found.origin != Origin::Unreadable;
    let exit = if known { Exit::OK } else { Exit::OPERATIONAL };
    let name = |s: Option<Slot>| s.map(|s| s.to_string());
    let one = |slot: Slot| SlotReport {
        slot: slot.to_string(),
        state: found.state.boot_state(slot),
        left: found.state.facts(slot).map_or(0, |f| f.left),
    };
    let report = SlotsReport {
        schema: "pyvorin-recovery/slots/1",
        exit: exit.code(),
        booted: name(found.state.booted),
        primary: name(found.state.primary()),
        slots: vec![one(Slot::A), one(Slot::B)],
        known,
        findings: found.findings.iter().map(|f| format!("{}: {}", f.code, f.message)).collect(),
    };
    if context.json {
        print_json(&report)?;
        return Ok(exit);
    }
    for s in &report.slots {
        let mark = if report.booted.as_ref() == Some(&s.slot) { " (running)" } else { "" };
        print(
            &format!("slot {}{mark}: {:?}, {} tries left", s.slot, s.state, s.left)
                .to_lowercase()
                .replace("slot a", "slot A")
                .replace("slot b", "slot B"),
        );
    }
    for finding in &report.findings {
        print(finding);
    }
    Ok(exit)
}

/// Marks the running slot good; writes only when that changes something.
pub fn mark_good(context: &mut Context) -> Result<Exit, Error> {
    let found = load(context)?;
    let Some(slot) = found.state.booted.filter(|s| *s != Slot::R) else {
        return Err(Error::new(
            ErrorKind::Refused,
            "cannot mark a slot good",
            "the boot state does not say which slot is running",
            "run this in a system that this initramfs has started, with the state partition mounted",
        ));
    };
    let tries = context.settings.slot_tries;
    let path = context.settings.state_dir.clone();
    write_slots(&mut context.machine, &context.settings, &|s| _ = s.mark_good(slot, tries), slot)
        .map_err(|e| Error::io(ErrorKind::Write, "cannot write the boot state", &path, &e))?;
    // For the day on which a database has lost its first page. Never withholds the mark (I10).
    if let Err(e) = saved::keep(&mut context.machine, &context.settings) {
        log::warn!("{}: the schemas could not be kept: {e}", path.display());
    }
    if !context.json {
        print(&format!("slot {slot} is marked good"));
        return Ok(Exit::OK);
    }
    status(context)
}
