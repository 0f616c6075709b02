//! What may stand in recovery.toml, and what is said about everything else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::path::Path;

use pyvorin_recovery::config::{self, DatabaseKind, Fault, OnTrouble, Rung, Settings, SlotBackend};

/// The block of the contract (design.md section 4), with its placeholders filled in.
const CONTRACT: &str = r#"
[device]
id_from = "device-tree"
[data]
device = "LABEL=PYV-DATA"
mountpoint = "/var/lib/pyvorin"
dir = "/var/lib/pyvorin"
[state]
device = "LABEL=PYV-STATE"
dir = "/var/lib/pyvorin-recovery"
[[database]]
name = "edge_store"
kind = "store"
path = "/var/lib/pyvorin/edge_store.db"
owner = "auto"
mode = "0640"
accept = ["replay", "resync", "reindex", "salvage", "backup"]
[[database]]
name = "sync_queue"
kind = "queue"
path = "/var/lib/pyvorin/sync_queue.db"
[service]
unit = "auto"
health = "http://127.0.0.1:8080/health"
[backup]
dir = "/var/lib/pyvorin/backups"
local_restore = false
recipients = ["age1...", "age1..."]
keep_days = 30
keep_verified = 3
config = ["/etc/pyvorin"]
exclude = ["certs"]
[keys]
restore_identity = "/var/lib/pyvorin-recovery/keys/restore"
signing_key = "/var/lib/pyvorin-recovery/keys/signing"
keyring = "/var/lib/pyvorin-recovery/keyring"
[quarantine]
keep = 2
max_percent = 20
[slots]
backend = "file"
tries = 3
a = "PARTLABEL=root-a"
b = "PARTLABEL=root-b"
init = "/sbin/init"
[button]
line = "RECOVERY"
active = "low"
hold_seconds = 5
reset_seconds = 10
[stick]
wait_seconds = 3
[boot]
check_budget_ms = 2000
on_damage_left = "continue"
on_data_missing = "continue"
hold_minutes = 10
stage_deadline_seconds = 120
device_wait_seconds = 10
"#;

fn faults(text: &str) -> Vec<Fault> {
    config::parse(text).expect_err(text)
}

fn only(text: &str) -> Fault {
    let all = faults(text);
    assert_eq!(all.len(), 1, "{text}: {all:?}");
    all.into_iter().next().unwrap()
}

#[test]
fn the_contract_and_an_empty_file_are_the_defaults() {
    // Recipients have no default: nobody's key would be the right one.
    let named = Settings { backup_recipients: vec!["age1...".into(); 2], ..Settings::default_for_agent() };
    assert_eq!(config::parse(CONTRACT).unwrap(), named);
    assert_eq!(config::parse("").unwrap(), Settings::default_for_agent());
    assert_eq!(config::parse("[boot]\n[data]\n[slots]\n[button]\n").unwrap(), Settings::default_for_agent());
}

#[test]
fn every_value_that_settings_carry_can_be_set() {
    let text = r#"
[device]
id_from = "dmi"
id = "GW-042"
[data]
device = "/dev/mmcblk0p6"
mountpoint = "/data"
dir = "/data/pyvorin/"
[state]
device = "UUID=1234-ABCD"
dir = "/state"
[[database]]
name = "extra"
path = "/data/extra.db"
owner = "1000:100"
mode = "600"
accept = ["salvage", "replay"]
[service]
unit = "pyvorin-edge"
health = "http://127.0.0.1:9/h"
[backup]
dir = "/b"
local_restore = true
recipients = ["age1x"]
keep_days = 7
keep_verified = 4
level = 4
workers = 2
rate_mib = 5
increments = 0
[keys]
signing_key = "/k/sign"
[quarantine]
keep = 5
max_percent = 100
[slots]
backend = "systemd-boot"
tries = 9
a = "PARTUUID=1"
b = "/dev/sda3"
init = "/usr/bin/init"
[button]
chip = "gpiochip0"
offset = 0x10
active = "high"
hold_seconds = 1
reset_seconds = 2
[stick]
wait_seconds = 0
[boot]
check_budget_ms = 1_000
on_damage_left = "recovery"
on_data_missing = "hold"
hold_minutes = 1
stage_deadline_seconds = 7
device_wait_seconds = 0
"#;
    let got = config::parse(text).unwrap();
    assert_eq!((got.device_id_from.as_str(), got.device_id.as_deref()), ("dmi", Some("GW-042")));
    assert_eq!((got.data_device.as_str(), got.data_mountpoint.as_path()), ("/dev/mmcblk0p6", Path::new("/data")));
    assert_eq!(got.data_dir.to_str(), Some("/data/pyvorin"));
    assert_eq!((got.state_device.as_deref(), got.state_dir.as_path()), (Some("UUID=1234-ABCD"), Path::new("/state")));
    assert_eq!(got.databases.len(), 1);
    let extra = &got.databases[0];
    assert_eq!((extra.name.as_str(), extra.kind, extra.owner), ("extra", DatabaseKind::Other, Some((1000, 100))));
    assert_eq!((extra.mode, extra.accept.as_slice()), (0o600, [Rung::Replay, Rung::Salvage].as_slice()));
    assert_eq!(extra.path, extra.location);
    assert_eq!((got.service_unit.as_str(), got.service_health.as_str()), ("pyvorin-edge", "http://127.0.0.1:9/h"));
    assert_eq!((got.quarantine_keep, got.quarantine_max_percent), (5, 100));
    assert_eq!((got.slot_backend, got.slot_tries), (SlotBackend::SystemdBoot, 9));
    assert_eq!((got.slot_a.as_str(), got.slot_b.as_str()), ("PARTUUID=1", "/dev/sda3"));
    assert_eq!((got.backup_dir.to_str(), got.slot_init.to_str()), (Some("/b"), Some("/usr/bin/init")));
    assert_eq!((got.backup_local_restore, got.backup_recipients.as_slice()), (true, ["age1x".to_string()].as_slice()));
    assert_eq!((got.backup_keep_days, got.backup_keep_verified, got.backup_level), (7, 4, 4));
    assert_eq!((got.backup_workers, got.backup_rate_mib, got.backup_increments), (2, 5, 0));
    let keys = [&got.key_signing, &got.key_restore, &got.keyring].map(|p| p.to_str().unwrap());
    assert_eq!(keys, ["/k/sign", "/state/keys/restore", "/state/keyring"]);
    let button = &got.button;
    assert_eq!((&button.line, button.chip.as_deref(), button.offset), (&None, Some("gpiochip0"), Some(16)));
    assert_eq!((button.active_low, button.hold_seconds, button.reset_seconds), (false, 1, 2));
    assert_eq!((got.stick_wait_seconds, got.check_budget_ms), (0, 1000));
    assert_eq!((got.on_damage_left, got.on_data_missing), (OnTrouble::Recovery, OnTrouble::Hold));
    assert_eq!((got.hold_minutes, got.stage_deadline_seconds, got.device_wait_seconds), (1, 7, 0));
}

#[test]
fn an_unknown_key_names_itself_its_line_and_the_nearest_known() {
    let fault = only("[boot]\nhold_minutes = 1\nchek_budget_ms = 3\n");
    assert_eq!(fault.to_string(), "line 3: boot.chek_budget_ms: unknown key; did you mean check_budget_ms?");
    assert_eq!(only("[bot]\n").to_string(), "line 1: bot: unknown section; did you mean boot?");
    let fault = only("[[database]]\nname='edge_store'\npaht='/x'\n");
    assert_eq!((fault.path.as_str(), fault.line), ("database.edge_store.paht", 3));
    assert!(only("[stick]\nzzzzzzzzzzzzzzzzzzzz = 1\n").message.contains("wait_seconds"));
}

#[test]
fn impossible_values_name_their_key_and_the_cure() {
    let database = |line: &str| format!("[[database]]\nname = 'x'\npath = '/x'\n{line}\n");
    let cases = [
        ("[slots]\ntries = 0".to_owned(), "slots.tries", "1 to 9"),
        ("[slots]\ntries = 10".to_owned(), "slots.tries", "1 to 9"),
        ("[slots]\ntries = '3'".to_owned(), "slots.tries", "without quotes"),
        ("[slots]\ntries = -1".to_owned(), "slots.tries", "1 to 9"),
        ("[slots]\ntries = 3.0".to_owned(), "slots.tries", "whole number"),
        ("[slots]\ntries = 99999999999999999999".to_owned(), "slots.tries", "1 to 9"),
        ("[slots]\na = 'root-a'".to_owned(), "slots.a", "PARTLABEL="),
        ("[slots]\na = 'PARTLABEL=root-b'".to_owned(), "slots.b", "two different"),
        ("[slots]\nbackend = 'lilo'".to_owned(), "slots.backend", "\"uboot\""),
        ("[button]\nhold_seconds = 10".to_owned(), "button.hold_seconds", "reset_seconds"),
        ("[button]\nreset_seconds = 5".to_owned(), "button.hold_seconds", "reset_seconds"),
        ("[button]\noffset = 3".to_owned(), "button.chip", "needs the chip"),
        ("[button]\nchip = 'gpiochip0'".to_owned(), "button.offset", "offset"),
        ("[button]\nactive = 'maybe'".to_owned(), "button.active", "\"low\""),
        ("[data]\ndir = 'var/lib'".to_owned(), "data.dir", "from the root"),
        ("[data]\ndir = '/var/../etc'".to_owned(), "data.dir", "detours"),
        ("[data]\ndir = '/'".to_owned(), "data.dir", "below it"),
        ("[data]\ndevice = '/dev/../etc/passwd'".to_owned(), "data.device", "LABEL="),
        ("[state]\ndevice = ''".to_owned(), "state.device", "LABEL="),
        ("[quarantine]\nmax_percent = 101".to_owned(), "quarantine.max_percent", "1 to 100"),
        ("[boot]\non_damage_left = 'panic'".to_owned(), "boot.on_damage_left", "\"hold\""),
        ("[boot]\ncheck_budget_ms = true".to_owned(), "boot.check_budget_ms", "boolean"),
        ("[device]\nid = 'a b'".to_owned(), "device.id", "A-Z"),
        ("[service]\nhealth = 'https://x'".to_owned(), "service.health", "http://"),
        ("[service]\nunit = '../x'".to_owned(), "service.unit", "unit"),
        ("[backup]\nlocal_restore = 'yes'".to_owned(), "backup.local_restore", "true or false"),
        ("[backup]\nrecipients = ['ssh-rsa']".to_owned(), "backup.recipients", "age1"),
        ("[backup]\nexclude = ['a/b']".to_owned(), "backup.exclude", "plain name"),
        ("[backup]\nconfig = [1]".to_owned(), "backup.config", "strings"),
        ("[backup]\nkeep_verified = 0".to_owned(), "backup.keep_verified", "3 to"),
        ("[keys]\nkeyring = 'k'".to_owned(), "keys.keyring", "from the root"),
        (database("owner = 'pyvorin:pyvorin'"), "database.x.owner", "numeric"),
        (database("owner = '4294967295:0'"), "database.x.owner", "numeric"),
        (database("mode = '0999'"), "database.x.mode", "octal"),
        (database("mode = '4755'"), "database.x.mode", "octal"),
        (database("mode = '0040'"), "database.x.mode", "owner"),
        (database("accept = ['replay', 'magic']"), "database.x.accept", "\"salvage\""),
        (database("accept = ['replay', 'replay']"), "database.x.accept", "twice"),
        (database("accept = 'replay'"), "database.x.accept", "list"),
        (database("kind = 'cache'"), "database.x.kind", "\"queue\""),
        ("[[database]]\nname = 'X Y'\npath = '/x'".to_owned(), "database[1].name", "a-z"),
        ("[[database]]\npath = '/x'".to_owned(), "database[1].name", "missing"),
        ("[[database]]\nname = 'x'".to_owned(), "database.x.path", "missing"),
        ("[[database]]\nname = 'x'\npath = 'x.db'".to_owned(), "database.x.path", "from the root"),
        (
            "[[database]]\nname = 'x'\npath = '/x'\n[[database]]\nname = 'x'\npath = '/y'".to_owned(),
            "database.x.name",
            "x",
        ),
        (
            "[[database]]\nname = 'x'\npath = '/x'\n[[database]]\nname = 'y'\npath = '//x'".to_owned(),
            "database.y.path",
            "\"x\"",
        ),
        ("[database]\nname = 'x'".to_owned(), "database", "[[database]]"),
        ("boot = 3".to_owned(), "boot", "[boot]"),
    ];
    for (text, path, cure) in cases {
        let fault = only(&text);
        assert_eq!(fault.path, path, "{text}: {fault}");
        assert!(fault.message.contains(cure), "{text}: {fault}");
    }
}

#[test]
fn all_faults_are_collected_in_the_order_of_the_file() {
    let all = faults("[boot]\nx = 1\n[slots]\ntries = 0\n[data]\ndir = 'a'\n");
    let places: Vec<_> = all.iter().map(|fault| (fault.line, fault.path.as_str())).collect();
    assert_eq!(places, [(2, "boot.x"), (4, "slots.tries"), (6, "data.dir")]);
}

#[test]
fn an_empty_accept_accepts_nothing() {
    let settings = config::parse("[[database]]\nname = 'edge_store'\naccept = []\n").unwrap();
    assert!(settings.databases[0].accept.is_empty());
}

#[test]
fn a_database_takes_the_defaults_of_its_name_and_the_ladder_of_its_kind() {
    let text = "[[database]]\nname = 'sync_queue'\n[[database]]\nname = 'n'\nkind = 'queue'\npath = '/n'\n";
    let settings = config::parse(text).unwrap();
    assert_eq!(settings.databases[0], Settings::default_for_agent().databases[1]);
    assert!(settings.databases[1].accept.contains(&Rung::Empty));
    let other = config::parse("[[database]]\nname = 'o'\npath = '/o'\n").unwrap();
    assert!(!other.databases[0].accept.contains(&Rung::Empty));
}

#[test]
fn state_without_a_device_is_a_plain_directory() {
    assert_eq!(config::parse("[state]\ndir = '/s'\n").unwrap().state_device, None);
    assert!(Settings::default_for_agent().state_device.is_some());
}

#[test]
fn a_boot_uses_what_it_can_and_reports_the_rest() {
    let text = "[boot]\nx = 1\nhold_minutes = 3\n[slots]\ntries = 0\n[state]\ndevice = 'sda'\n\
                [[database]]\nname = 'edge_store'\nkind = 'store'\naccept = ['replay', 'majik']\n\
                [[database]]\nname = 'bad name'\npath = '/x'\n";
    let (settings, faults) = Settings::lenient(text);
    assert_eq!(faults.len(), 5, "{faults:?}");
    assert_eq!((settings.hold_minutes, settings.slot_tries), (3, 3));
    assert_eq!(settings.state_device.as_deref(), Some("LABEL=PYV-STATE"));
    assert_eq!(settings.databases.len(), 1);
    // A misspelt rung is not accepted, and does not bring back the rungs that the file left out.
    assert_eq!(settings.databases[0].accept, [Rung::Replay]);
}

#[test]
fn two_values_that_contradict_each_other_both_take_the_default() {
    let (settings, faults) = Settings::lenient("[slots]\na = 'PARTLABEL=root-b'\n[button]\nhold_seconds = 30\n");
    assert_eq!((settings, faults.len()), (Settings::default_for_agent(), 2));
}

#[test]
fn a_literal_id_is_for_the_desk_and_refused_at_boot() {
    let text = "[device]\nid = 'GW-042'\n";
    assert_eq!(config::parse(text).unwrap().device_id.as_deref(), Some("GW-042"));
    let (settings, faults) = Settings::lenient(text);
    assert_eq!(settings.device_id, None);
    assert_eq!(faults[0].path, "device.id");
}

#[test]
fn a_file_that_is_not_toml_boots_on_the_defaults_and_names_the_line() {
    let deep = format!("a = {}", "[".repeat(200_000));
    for text in ["[boot]\nhold_minutes = 3\n[data\ndevice = 'x'\n", "\n= 3", &deep, "\u{0}"] {
        let (settings, faults) = Settings::lenient(text);
        assert_eq!(settings, Settings::default_for_agent());
        assert_eq!(faults.len(), 1);
        assert!(faults[0].message.contains("not valid TOML"), "{}", faults[0]);
        assert_eq!(config::parse(text), Err(faults));
    }
    assert_eq!(Settings::lenient("[boot]\nhold_minutes = 3\n[data\n").1[0].line, 3);
}

#[test]
fn a_hundred_thousand_faults_are_read_in_linear_time() {
    let text: String = (0..100_000).map(|i| format!("[x{i}]\n")).collect();
    let (settings, faults) = Settings::lenient(&text);
    assert_eq!((settings, faults.len()), (Settings::default_for_agent(), 100_000));
    assert_eq!(faults[99_999].line, 100_000);
}

#[test]
fn no_mutation_of_the_contract_panics_or_loses_the_defaults() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..3000 {
        let mut bytes = CONTRACT.as_bytes().to_vec();
        for _ in 0..4 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let at = usize::try_from(seed >> 8).unwrap() % bytes.len();
            bytes[at] = b"[]\"='/.\n0a#"[usize::try_from(seed & 0xff).unwrap() % 11];
        }
        let text = String::from_utf8(bytes).unwrap();
        let (settings, _) = Settings::lenient(&text);
        assert!(!settings.databases.is_empty());
        assert!(settings.databases.iter().all(|one| one.path.is_absolute()));
        assert!(settings.button.hold_seconds < settings.button.reset_seconds);
        assert_ne!(settings.slot_a, settings.slot_b);
    }
}
