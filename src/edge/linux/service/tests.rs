//! A service manager of shell, which writes down how it was called.
#![allow(clippy::disallowed_methods)] // scratch files

use super::*;

/// A program that writes down how it was called.
fn fake(path: &Path, body: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn systemctl(dir: &Path, loaded: &str, active: &str) {
    let log = dir.join("calls").display().to_string();
    fake(
        &dir.join("systemctl"),
        &format!(
            "echo \"$*\" >> {log}\ncase \"$*\" in\n\
             'show --property=LoadState {loaded}.service') echo LoadState=loaded;;\n\
             'show --property=LoadState '*) echo LoadState=not-found;;\n\
             'show --property=ActiveState '*) echo ActiveState={active};;\nesac"
        ),
    );
}

#[test]
fn the_unit_is_found_by_either_documented_name_or_as_configured() {
    let dir = tempfile::tempdir().unwrap();
    let tools = [dir.path().to_path_buf()];
    for loaded in UNITS {
        systemctl(dir.path(), loaded, "active");
        let found = Service::find("auto", &tools, dir.path()).unwrap();
        assert_eq!((found.unit.as_str(), found.running()), (loaded, Running::Yes));
        assert_eq!(Service::find("none", &tools, dir.path()), None);
        assert_eq!(Service::find("other", &tools, dir.path()), None);
    }
    systemctl(dir.path(), "edge@7", "failed");
    let found = Service::find("edge@7.service", &tools, dir.path()).unwrap();
    assert_eq!((found.unit.as_str(), found.running()), ("edge@7", Running::No));
}

#[test]
fn a_stop_that_did_not_stop_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let tools = [dir.path().to_path_buf()];
    systemctl(dir.path(), UNITS[0], "active");
    let found = Service::find("auto", &tools, dir.path()).unwrap();
    assert!(found.stop(&|_| {}).unwrap_err().to_string().contains("still runs"));
    found.start(&|_| {}).unwrap();
    let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
    let wanted = format!("reset-failed {0}.service\nstart {0}.service\n", UNITS[0]);
    assert!(calls.ends_with(&wanted), "{calls}");
}

#[test]
fn where_no_systemd_answers_the_scripts_are_used() {
    let dir = tempfile::tempdir().unwrap();
    let tools = [dir.path().to_path_buf()];
    fake(&dir.path().join("systemctl"), "echo System has not been booted with systemd >&2; exit 1");
    assert_eq!(Service::find("auto", &tools, dir.path()), None);
    let log = dir.path().join("calls");
    fake(&dir.path().join("S85pyvorin-edge"), &format!("echo $1 >> {}", log.display()));
    fake(&dir.path().join("S9xpyvorin-edge-agent"), "exit 1");
    let found = Service::find("auto", &tools, dir.path()).unwrap();
    assert_eq!((found.unit.as_str(), found.running()), ("pyvorin-edge", Running::Unknown));
    found.stop(&|_| {}).unwrap();
    found.start(&|_| {}).unwrap();
    assert_eq!(std::fs::read_to_string(log).unwrap(), "stop\nstart\n");
    fake(&dir.path().join("pyvorin-edge-agent"), "exit 3");
    let plain = Service::find("auto", &tools, dir.path()).unwrap();
    assert!(plain.stop(&|_| {}).unwrap_err().to_string().contains("status 3"));
}
