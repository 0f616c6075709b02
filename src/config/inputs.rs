//! From the file as written to validated settings: every key of the contract, its range, and what to write instead.
//! Each function reads one section and starts from the defaults, so an absent or faulty key is the default.
//!
//! Faulty values fall towards doing less: a faulty `accept` keeps only the rungs that were recognised, an entry of
//! `[[database]]` that names no usable file is left out.

use toml::de::{DeTable, DeValue};

use super::Fault;
use super::fragment::{Faults, Placed, Section, absolute, choose};
use super::settings::{Database, DatabaseKind, OnTrouble, Rung, Settings, SlotBackend};

/// For whom the file is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    CommandLine,
    Boot,
}

const TROUBLE: [(&str, OnTrouble); 3] =
    [("continue", OnTrouble::Continue), ("recovery", OnTrouble::Recovery), ("hold", OnTrouble::Hold)];
const BACKENDS: [(&str, SlotBackend); 5] = [
    ("uboot", SlotBackend::Uboot),
    ("grub", SlotBackend::Grub),
    ("tryboot", SlotBackend::Tryboot),
    ("systemd-boot", SlotBackend::SystemdBoot),
    ("file", SlotBackend::File),
];
const KINDS: [(&str, DatabaseKind); 3] =
    [("store", DatabaseKind::Store), ("queue", DatabaseKind::Queue), ("other", DatabaseKind::Other)];
const RUNGS: [(&str, Rung); 6] = [
    ("replay", Rung::Replay),
    ("resync", Rung::Resync),
    ("reindex", Rung::Reindex),
    ("salvage", Rung::Salvage),
    ("backup", Rung::Backup),
    ("empty", Rung::Empty),
];
const ID_SOURCES: [(&str, &str); 4] =
    [("device-tree", "device-tree"), ("dmi", "dmi"), ("machine-id", "machine-id"), ("state", "state")];

/// Reads the whole file. Total: the settings are always usable, the faults say what of the text was not.
pub(super) fn read(text: &str, door: Door) -> (Settings, Vec<Fault>) {
    let mut settings = Settings::default_for_agent();
    let mut faults = Faults::new(text);
    match DeTable::parse(text) {
        Ok(document) => read_document(document.get_ref(), door, &mut settings, &mut faults),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let why = error.message().trim().replace('\n', ", ");
            faults.add("", at, format!("not valid TOML: {why}; correct this line first, nothing else was read"));
        }
    }
    (settings, faults.into_sorted())
}

fn read_document(document: &DeTable<'_>, door: Door, to: &mut Settings, faults: &mut Faults) {
    let mut root = Section::new("", Some(document));
    device(section(&mut root, "device", faults), door, to, faults);
    data(section(&mut root, "data", faults), to, faults);
    state(section(&mut root, "state", faults), to, faults);
    databases(&mut root, to, faults);
    service(section(&mut root, "service", faults), to, faults);
    backup(section(&mut root, "backup", faults), to, faults);
    keys(section(&mut root, "keys", faults), to, faults);
    reset(section(&mut root, "reset", faults), to, faults);
    quarantine(section(&mut root, "quarantine", faults), to, faults);
    slots(section(&mut root, "slots", faults), to, faults);
    button(section(&mut root, "button", faults), to, faults);
    stick(section(&mut root, "stick", faults), to, faults);
    boot(section(&mut root, "boot", faults), to, faults);
    root.finish(faults);
}

fn section<'a, 'i>(root: &mut Section<'a, 'i>, name: &'static str, faults: &mut Faults) -> Section<'a, 'i> {
    let value = root.get(name);
    let table = value.and_then(|v| v.get_ref().as_table());
    if let (Some(value), None) = (value, table) {
        faults.add(name, value.span().start, format!("is not a section; write [{name}] on a line of its own"));
    }
    Section::new(name, table)
}

/// Puts a value that was read in its place; without one the default stays.
fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn device(mut from: Section<'_, '_>, door: Door, to: &mut Settings, faults: &mut Faults) {
    set(&mut to.device_id_from, from.word("id_from", faults, &ID_SOURCES).map(str::to_owned));
    let at = from.text("id", faults);
    match at {
        Some(Placed { at, .. }) if door == Door::Boot => {
            let message = "a literal id is refused at boot, where one image serves a fleet; use id_from";
            faults.add(from.path("id"), at, message);
        }
        Some(Placed { value, at }) => match label(&value, 64) {
            Ok(id) => to.device_id = Some(id),
            Err(message) => faults.add(from.path("id"), at, message),
        },
        None => {}
    }
    from.finish(faults);
}

fn data(mut from: Section<'_, '_>, to: &mut Settings, faults: &mut Faults) {
    set(&mut to.data_device, from.checked("device", faults, block_device));
    set(&mut to.data_mountpoint, from.absolute("mountpoint", faults));
    set(&mut to.data_dir, from.absolute("dir", faults));
    from.finish(faults);
}

/// A `[state]` section without `device` means that there is no partition; without the section the default stands.
/// A faulty device keeps the default, so that a typing error does not move the state into the initramfs.
fn state(mut from: Section<'_, '_>, to: &mut Settings, faults: &mut Faults) {
    let given = from.get("device").is_some();
    match from.checked("device", faults, block_device) {
        Some(device) => to.state_device = Some(device),
        None if from.present() && !given => to.state_device = None,
        None => {}
    }
    set(&mut to.state_dir, from.absolute("dir", faults));
    from.finish(faults);
}

fn databases(root: &mut Section<'_, '_>, to: &mut Settings, faults: &mut Faults) {
    let Some(value) = root.get("database") else { return };
    let Some(entries) = value.get_ref().as_array() else {
        faults.add("database", value.span().start, "is one section; write [[database]] with two brackets for each");
        return;
    };
    let mut list: Vec<Database> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let name = format!("database[{}]", index + 1);
        let DeValue::Table(table) = entry.get_ref() else {
            faults.add(name, entry.span().start, "is not a section; write [[database]] on a line of its own");
            continue;
        };
        let at = entry.span().start;
        if let Some(one) = database(Section::new(name, Some(table)), at, &list, faults) {
            list.push(one);
        }
    }
    // Boot goes on with faults; supervising nothing at all is never what a faulty file meant.
    if !list.is_empty() || entries.is_empty() {
        to.databases = list;
    }
}

fn database(mut from: Section<'_, '_>, at: usize, earlier: &[Database], faults: &mut Faults) -> Option<Database> {
    let name = from.checked("name", faults, database_name);
    let mut one = Database::named(name.as_deref().unwrap_or_default());
    match &name {
        Some(name) => from.rename(format!("database.{name}")),
        None if from.get("name").is_none() => {
            faults.add(from.path("name"), at, "is missing; give each database a name")
        }
        None => {}
    }
    if let Some(kind) = from.word("kind", faults, &KINDS) {
        one.kind = kind;
        one.accept = kind.default_accept();
    }
    let given = from.get("path").is_some();
    set(&mut one.path, from.absolute("path", faults));
    one.location.clone_from(&one.path);
    if !given && name.is_some() && one.path.as_os_str().is_empty() {
        faults.add(from.path("path"), at, "is missing; write the absolute path of the database file");
    }
    one.owner = from.checked("owner", faults, owner).flatten();
    set(&mut one.mode, from.checked("mode", faults, mode));
    accept(&mut from, &mut one, faults);
    let unique = unique(&from, at, &one, earlier, faults);
    from.finish(faults);
    (unique && name.is_some() && !one.path.as_os_str().is_empty()).then_some(one)
}

fn accept(from: &mut Section<'_, '_>, one: &mut Database, faults: &mut Faults) {
    if from.get("accept").is_none() {
        return;
    }
    let mut rungs: Vec<Rung> = Vec::new();
    for word in from.list("accept", faults).unwrap_or_default() {
        match choose(&word.value, &RUNGS) {
            Ok(rung) if rungs.contains(&rung) => {
                faults.add(from.path("accept"), word.at, format!("{:?} stands twice; write it once", word.value));
            }
            Ok(rung) => rungs.push(rung),
            Err(message) => faults.add(from.path("accept"), word.at, message),
        }
    }
    rungs.sort_unstable();
    one.accept = rungs;
}

fn unique(from: &Section<'_, '_>, at: usize, one: &Database, earlier: &[Database], faults: &mut Faults) -> bool {
    let mut unique = true;
    if earlier.iter().any(|other| other.name == one.name) {
        faults.add(
            from.path("name"),
            at,
            format!("a database named {:?} stands above; give this one another", one.name),
        );
        unique = false;
    }
    if let Some(other) = earlier.iter().find(|other| other.path == one.path && !one.path.as_os_str().is_empty()) {
        let message = format!("{} is already the path of {:?}; remove one of the two", one.path.display(), other.name);
        faults.add(from.path("path"), at, message);
        unique = false;
    }
    unique
}

fn service(mut from: Section<'_, '_>, to: &mut Settings, faults: &mut Faults) {
    set(&mut to.service_unit, from.checked("unit", faults, unit));
    set(&mut to.service_health, from.checked("health", faults, health));
    from.finish(faults);
}

fn backup(mut from: Section<'_, '_>, to: &mut Settings, faults: &mut Faults) {
    set(&mut to.backup_dir, from.absolute("dir", faults));
    set(&mut to.backup_local_restore, from.flag("local_restore", faults));
    let recipients = each(&mut from, "recipients", faults, |text| {
        // Whether it is a whole one is told by the command that uses it: a boot has other worries.
        if text.starts_with("age1") {
            Ok(text.to_owned())
        } else {
            Err(format!("{text:?} is no age recipient; it begins with age1"))
        }
    });
    set(&mut to.backup_recipients, recipients);
    set(&mut to.backup_keep_days, from.integer("keep_days", faults, 1..3651, "days that archives are kept"));
    let keep = from.integer("keep_verified", faults, 3..1001, "the newest three verified archives are always kept");
    set(&mut to.backup_keep_verified, keep);
    set(
        &mut to.backup_level,
        from.integer("level", faults, 1..5, "level of compression: more costs minutes and gives little"),
    );
    set(&mut to.backup_workers, from.integer("workers", faults, 0..17, "threads beside the one that reads"));
    let rate = from.integer("rate_mib", faults, 0..100_001, "MiB read per second at most, 0 for no limit");
    set(&mut to.backup_rate_mib, rate);
    let most = from.integer("increments", faults, 0..32, "increments on one full backup, 0 for none");
    set(&mut to.backup_increments, most);
    set(&mut to.config_paths, each(&mut from, "config", faults, absolute));
    let names = each(&mut from, "exclude", faults, |text| {
        let name = !text.is_empty() && !text.contains(['/', '\0']) && text != "." && text != "..";
        let name = name.then(|| text.to_owned());
        name.ok_or_else(|| format!("{text:?} is not a plain name; write the name of a file or directory"))
    });
    set(&mut to.config_exclude, names);
    from.finish(faults);
}

/// The values of a list that can be used; `None` where there is no list.
fn each<T>(
    from: &mut Section<'_, '_>,
    key: &'static str,
    faults: &mut Faults,
    check: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let mut values = Vec::new();
    for item in from.list(key, faults)? {
        match check(&item.value) {
            Ok(value) => values.push(value),
            Err(message) => faults.add(from.path(key), item.at, message),
        }
    }
    Some(values)
}

fn reset(mut from: Section<'_, '_>, to: &mut Settings, faults: &mut Faults) {
    set(&mut to.reset_recreates, from.word("databases", faults, &[("recreate", true), ("leave", false)]));
    from.finish(faults);
}

/// Left out, they lie below the state directory, wherever that is.
fn keys(mut from: Section<'_, '_>, to: &mut Settings, faults: &mut Faults) {
    let below = to.state_dir.join("keys");
    to.key_restore = from.absolute("restore_identity", faults).unwrap_or_else(|| below.join("restore"));
    to.key_signing = from.absolute("signing_key", faults).unwrap_or_else(|| below.join("signing"));
    to.keyring = from.absolute("keyring", faults).unwrap_or_else(|| to.state_dir.join("keyring"));
    from.finish(faults);
}

fn quarantine(mut from: Section<'_, '_>, to: &mut Settings, faults: &mut Faults) {
    let keep = from.integer("keep", faults, 1..101, "preserved operations per database, the newest always among them");
    set(&mut to.quarantine_keep, keep);
    set(&mut to.quarantine_max_percent, from.integer("max_percent", faults, 1..101, "percent of the data partition"));
    from.finish(faults);
}

fn slots(mut from: Section<'_, '_>, to: &mut Settings, faults: &mut Faults) {
    set(&mut to.slot_backend, from.word("backend", faults, &BACKENDS));
    set(
        &mut to.slot_tries,
        from.integer("tries", faults, 1..10, "starts that a slot gets, one digit for every loader"),
    );
    let before = (to.slot_a.clone(), to.slot_b.clone());
    let (a, b) = (from.checked("a", faults, block_device), from.checked("b", faults, block_device));
    set(&mut to.slot_a, a);
    set(&mut to.slot_b, b);
    if to.slot_a == to.slot_b {
        let at = from.get("b").or(from.get("a")).map_or(0, |value| value.span().start);
        faults.add(from.path("b"), at, "is the device of slot A too; name two different partitions");
        (to.slot_a, to.slot_b) = before;
    }
    set(&mut to.slot_init, from.absolute("init", faults));
    from.finish(faults);
}

fn button(mut from: Section<'_, '_>, to: &mut Settings, faults: &mut Faults) {
    let line = from.text("line", faults);
    let chip = from.text("chip", faults);
    let offset = from.integer("offset", faults, 0..65536, "offset of the line on its chip");
    match (&line, &chip, offset) {
        (Some(line), Some(_), _) => {
            faults.add(from.path("chip"), line.at, "stands beside line; keep line, or chip and offset");
        }
        (None, Some(chip), None) => {
            faults.add(from.path("offset"), chip.at, "is missing; a chip needs the offset of the line");
        }
        (None, None, Some(_)) | (Some(_), None, Some(_)) => {
            let at = from.get("offset").map_or(0, |value| value.span().start);
            faults.add(from.path("chip"), at, "is missing; an offset needs the chip, and takes the place of line");
        }
        (None, Some(chip), Some(offset)) => {
            to.button.line = None;
            to.button.chip = Some(chip.value.clone());
            to.button.offset = Some(offset);
        }
        (Some(line), None, None) => to.button.line = Some(line.value.clone()).filter(|name| !name.is_empty()),
        (None, None, None) => {}
    }
    set(&mut to.button.active_low, from.word("active", faults, &[("low", true), ("high", false)]));
    let before = (to.button.hold_seconds, to.button.reset_seconds);
    set(&mut to.button.hold_seconds, from.integer("hold_seconds", faults, 1..61, "seconds held for recovery"));
    set(&mut to.button.reset_seconds, from.integer("reset_seconds", faults, 2..121, "seconds held for a reset"));
    if to.button.hold_seconds >= to.button.reset_seconds {
        let at = from.get("hold_seconds").or(from.get("reset_seconds")).map_or(0, |value| value.span().start);
        let (hold, reset) = (to.button.hold_seconds, to.button.reset_seconds);
        let message = format!("{hold} is not below reset_seconds {reset}; recovery must come before reset");
        faults.add(from.path("hold_seconds"), at, message);
        (to.button.hold_seconds, to.button.reset_seconds) = before;
    }
    from.finish(faults);
}

fn stick(mut from: Section<'_, '_>, to: &mut Settings, faults: &mut Faults) {
    set(&mut to.stick_wait_seconds, from.integer("wait_seconds", faults, 0..61, "seconds a boot may wait for a stick"));
    from.finish(faults);
}

fn boot(mut from: Section<'_, '_>, to: &mut Settings, faults: &mut Faults) {
    let budget =
        from.integer("check_budget_ms", faults, 0..600_001, "milliseconds for full checks, ten minutes at most");
    set(&mut to.check_budget_ms, budget.map(u64::from));
    set(&mut to.on_damage_left, from.word("on_damage_left", faults, &TROUBLE));
    set(&mut to.on_data_missing, from.word("on_data_missing", faults, &TROUBLE));
    let hold = from.integer("hold_minutes", faults, 1..1441, "a hold ends within a day");
    set(&mut to.hold_minutes, hold);
    let deadline = from.integer("stage_deadline_seconds", faults, 1..3601, "seconds without progress");
    set(&mut to.stage_deadline_seconds, deadline);
    let wait = from.integer("device_wait_seconds", faults, 0..601, "seconds to wait for the partitions");
    set(&mut to.device_wait_seconds, wait);
    from.finish(faults);
}

/// `LABEL=`, `UUID=`, `PARTLABEL=`, `PARTUUID=` with a name, or a path below `/dev`.
fn block_device(text: &str) -> Result<String, String> {
    let named = text.split_once('=').is_some_and(|(tag, name)| {
        ["LABEL", "UUID", "PARTLABEL", "PARTUUID"].contains(&tag)
            && !name.is_empty()
            && !name.contains(|c: char| c == '/' || c.is_control() || c.is_whitespace())
    });
    let path = text.starts_with("/dev/") && absolute(text).is_ok_and(|path| path.as_os_str() != "/dev");
    if named || path {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} names no device; write LABEL=, UUID=, PARTLABEL= or PARTUUID= with a name, or a path in /dev"
    ))
}

fn database_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if (1..=32).contains(&text.len()) && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} cannot name a directory; write 1 to 32 of a-z, 0-9, _ and -"))
}

/// `None` keeps the ids of what is displaced. Names are refused: an initramfs has no user database to look them up in.
fn owner(text: &str) -> Result<Option<(u32, u32)>, String> {
    if text == "auto" {
        return Ok(None);
    }
    let id = |part: &str| if part.bytes().all(|b| b.is_ascii_digit()) { part.parse::<u32>().ok() } else { None };
    // The highest number means "leave unchanged" to chown(2), so it is no id.
    let usable = |id: &u32| *id != u32::MAX;
    text.split_once(':')
        .and_then(|(uid, gid)| Some((id(uid).filter(usable)?, id(gid).filter(usable)?)))
        .map(Some)
        .ok_or_else(|| {
            format!("{text:?} cannot be looked up before the OS is there; write numeric ids such as \"1000:1000\", or \"auto\"")
        })
}

fn mode(text: &str) -> Result<u32, String> {
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let bits = if octal { u32::from_str_radix(text, 8).ok() } else { None };
    bits.filter(|bits| *bits <= 0o777 && bits & 0o600 == 0o600).ok_or_else(|| {
        format!("{text:?} is no file mode that its owner could use; write octal digits such as \"0640\"")
    })
}

fn unit(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ":_.\\@-".contains(c);
    if !text.is_empty() && text.len() <= 255 && !text.starts_with('-') && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is no unit name; write \"auto\" or a name such as \"pyvorin-edge-agent\""))
}

fn health(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").filter(|rest| !rest.is_empty() && !rest.starts_with('/'));
    if host.is_some() && text.chars().all(|c| c.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} cannot be asked; write an address on this machine such as \"http://127.0.0.1:8080/health\""))
}

/// Letters, digits, dot, underscore and hyphen: what may stand in file names, reports and on a command line.
fn label(text: &str, most: usize) -> Result<String, String> {
    if super::is_label(text, most) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is no device id; write 1 to {most} of A-Z, a-z, 0-9, dot, _ and -"))
}
