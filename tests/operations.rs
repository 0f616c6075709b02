//! One operation at a time, and none over a half-made one: what a cut left open is finished by every command that writes,
//! two of us exclude each other (at boot too), the agent is stopped through its service manager and started again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pyvorin_recovery::journal::{FILE, Intent, MIRROR, Phase, RECORD, STAGE, Target};
use pyvorin_recovery::record;
use sha2::{Digest, Sha256};
use support::agent::python;
use support::site::{CONFIG, Run, Site};

const QUEUE: &str =
    "[[database]]\nname = \"sync_queue\"\nkind = \"queue\"\npath = \"/var/lib/pyvorin/sync_queue.db\"\n";
const ROWS: &str = "40";

/// A gateway with a store that has a chain, and a queue with rows; nothing is damaged.
fn site() -> Site {
    let site = Site::bare();
    std::fs::write(site.config(), format!("{CONFIG}{QUEUE}")).unwrap();
    python(&["write", site.db().to_str().unwrap(), "1", "20", "0", "zeros"]);
    python(&["queue", queue(&site).to_str().unwrap(), "1", ROWS]);
    site
}

fn queue(site: &Site) -> PathBuf {
    site.data().join("sync_queue.db")
}

fn state(site: &Site) -> PathBuf {
    site.root().join("var/lib/pyvorin-recovery")
}

fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let leaf = bytes.chunks(4096).rposition(|page| page[0] == 13).unwrap();
    bytes[leaf * 4096..leaf * 4096 + 8].fill(0xff);
    std::fs::write(path, bytes).unwrap();
}

/// An open operation that replaces the queue by another one.
fn open(site: &Site, phase: Phase) -> Vec<u8> {
    let stage = site.data().join(STAGE).join("1-sync_queue-x");
    std::fs::create_dir_all(&stage).unwrap();
    let staged = stage.join("sync_queue.db");
    python(&["queue", staged.to_str().unwrap(), "9", "5"]);
    let new = std::fs::read(&staged).unwrap();
    let intent = Intent {
        op: "1-sync_queue-x".into(),
        kind: "rebuild".into(),
        phase,
        prepared_at: 1,
        by: "T-042".into(),
        volume: String::new(),
        stage,
        targets: vec![Target {
            database: "sync_queue".into(),
            path: queue(site),
            sha256: Sha256::digest(&new).iter().map(|b| format!("{b:02x}")).collect(),
            staged,
            retire: vec![],
            kept: PathBuf::new(),
        }],
        note: "{}".into(),
        outcome: String::new(),
        receipt: None,
    };
    let bytes = record::encode(RECORD, &intent);
    if phase >= Phase::Commit {
        std::fs::write(site.data().join(MIRROR), &bytes).unwrap();
    }
    std::fs::write(state(site).join(FILE), bytes).unwrap();
    new
}

fn closed(site: &Site) -> bool {
    !site.data().join(MIRROR).exists()
        && !state(site).join(FILE).exists()
        && !site.data().join(STAGE).join("1-sync_queue-x").exists()
}

fn writing_commands(site: &Site) -> Vec<Vec<String>> {
    let file = site.root().join("rows.jsonl").display().to_string();
    let lines: [&[&str]; 5] = [
        &["repair"],
        &["queue", "repair"],
        &["queue", "import", &file],
        &["audit", "log", "card_replaced"],
        &["audit", "fold"],
    ];
    lines.iter().map(|line| line.iter().map(|w| (*w).to_string()).collect()).collect()
}

#[test]
fn every_writing_command_finishes_what_a_cut_left_open() {
    for n in 0..writing_commands(&site()).len() {
        for phase in [Phase::Prepared, Phase::Commit] {
            let site = site();
            std::fs::write(site.root().join("rows.jsonl"), "").unwrap();
            let before = std::fs::read(queue(&site)).unwrap();
            let new = open(&site, phase);
            let command = &writing_commands(&site)[n];
            let line: Vec<&str> =
                ["--technician", "T-042"].into_iter().chain(command.iter().map(String::as_str)).collect();
            let run = site.run(&line);
            assert_eq!(run.code & !5, 0, "{command:?} {phase:?}: {} {}", run.code, run.stderr);
            assert!(closed(&site), "{command:?} {phase:?}: {}", run.stderr);
            let wanted = if phase == Phase::Prepared { &before } else { &new };
            assert_eq!(&std::fs::read(queue(&site)).unwrap(), wanted, "{command:?} {phase:?}");
        }
    }
}

#[test]
fn a_look_leaves_an_open_operation_alone() {
    for command in [
        &["check"][..],
        &["queue", "stats"],
        &["audit", "verify"],
        &["repair", "--plan"],
        &["queue", "repair", "--plan"],
    ] {
        let site = site();
        open(&site, Phase::Commit);
        let before = site.tree();
        site.run(command);
        assert_eq!(support::site::changed(&before, &site.tree()), Vec::<PathBuf>::new(), "{command:?}");
    }
}

#[test]
fn an_operation_of_another_volume_or_version_stops_every_command_and_is_kept() {
    for newer in [true, false] {
        let site = site();
        open(&site, Phase::Commit);
        let path = state(&site).join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        if newer {
            // A record of a later version, whole by its own checksum, cannot be made here; one that is damaged can.
            let at = bytes.len() - 3;
            bytes[at] ^= 1;
        } else {
            bytes.truncate(bytes.len() / 2);
        }
        std::fs::write(&path, &bytes).unwrap();
        std::fs::write(site.root().join("rows.jsonl"), "").unwrap();
        for command in [&["queue", "repair"][..], &["audit", "fold"]] {
            let run = site.run(&[&["--technician", "T-042"], command].concat());
            assert_eq!(run.code, 8, "{command:?}: {}", run.stderr);
            assert!(run.stderr.contains("intent record") && run.stderr.contains("next: "), "{}", run.stderr);
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        // Our own journal takes an event all the same; the agent's chain waits.
        let run = site.run(&["--technician", "T-042", "audit", "log", "seen"]);
        assert_eq!((run.code, run.json.unwrap()["waiting"].as_i64()), (0, Some(1)), "{}", run.stderr);
    }
}

/// Ends a process of ours, whatever becomes of the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Another process that holds the lock of a directory.
fn locker(dir: &Path) -> Ended {
    let mut command = Command::new("flock");
    command.arg(dir).args(["sh", "-c", "echo; exec sleep 60"]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut byte = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
    Ended(child)
}

#[test]
fn a_second_instance_is_refused_and_the_lock_of_a_dead_one_is_none() {
    let site = site();
    damage(&queue(&site));
    let before = site.tree();
    let other = locker(&state(&site));
    let refused = site.run(&["--technician", "T-042", "queue", "repair"]);
    assert_eq!(refused.code, 8);
    assert!(refused.stderr.contains("another pyvorin-recovery is at work") && refused.stderr.contains("next: "));
    assert_eq!(support::site::changed(&before, &site.tree()), Vec::<PathBuf>::new());
    // `flock` has a child that inherited the lock: both must be dead, as after a crash of the whole group.
    let pid = other.0.id();
    let _ = Command::new("sh").args(["-c", &format!("kill -9 $(cat /proc/{pid}/task/{pid}/children) {pid}")]).status();
    drop(other);
    let run = site.run(&["--technician", "T-042", "queue", "repair"]);
    assert_eq!(run.code & !5, 0, "{}", run.stderr);
}

/// A shell script in a mount namespace with a `/run` of its own, so that `/` can be the root and nothing is left behind.
/// `None`: this machine does not give such namespaces.
fn in_machine(site: &Site, script: &str) -> Option<Run> {
    let enter = "mount -t tmpfs run /run && exec sh -c \"$SCRIPT\"";
    let probe = Command::new("unshare").args(["-Urm", "true"]).output();
    if !probe.is_ok_and(|p| p.status.success()) {
        println!("skipped: no user namespaces here");
        return None;
    }
    let started = Instant::now();
    let done = Command::new("unshare")
        .args(["-Urm", "sh", "-c", enter])
        .env("SCRIPT", script)
        .env("BIN", env!("CARGO_BIN_EXE_pyvorin-recovery"))
        .env("SITE", site.root())
        .output()
        .unwrap();
    assert!(started.elapsed() < Duration::from_secs(60));
    let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
    Some(Run { code: done.status.code().unwrap_or(1000), json: serde_json::from_str(&stdout).ok(), stdout, stderr })
}

/// A configuration whose paths are those of the site, for the root `/`.
fn rooted(site: &Site, more: &str) {
    let text = format!("{more}{CONFIG}{QUEUE}").replace("/var/lib", site.root().join("var/lib").to_str().unwrap());
    std::fs::write(site.root().join("r.toml"), text).unwrap();
}

#[test]
fn a_boot_waits_a_little_for_another_one_of_us_and_then_goes_on_without_writing() {
    let site = site();
    rooted(&site, "[boot]\ndevice_wait_seconds = 0\n");
    let before = site.tree();
    let script = "mkdir /run/pyvorin-recovery; flock /run/pyvorin-recovery sleep 20 >/dev/null 2>&1 & sleep 0.3; \
                  \"$BIN\" --config $SITE/r.toml boot; code=$?; kill $!; exit $code";
    let started = Instant::now();
    let Some(run) = in_machine(&site, script) else { return };
    assert_eq!(run.code, 8, "{} {}", run.stdout, run.stderr);
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(support::site::changed(&before, &site.tree()), Vec::<PathBuf>::new());
}

/// A `systemctl` that knows one unit, whose process has the queue open, and writes down how it was called.
fn systemctl(site: &Site) {
    let bin = site.root().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let script = r#"#!/bin/sh
dir=$(dirname "$0")
echo "$*" >> "$dir/calls"
alive() { [ -e "$dir/pid" ] && kill -0 "$(cat "$dir/pid")" 2>/dev/null; }
case "$*" in
*LoadState*pyvorin-edge-agent.service) echo LoadState=not-found;;
*LoadState*pyvorin-edge.service) echo LoadState=loaded;;
*ActiveState*) if alive; then echo ActiveState=active; else echo ActiveState=inactive; fi;;
"stop "*) kill "$(cat "$dir/pid")"; while alive; do sleep 0.05; done;;
"start "*) sh -c 'echo $$ > "$0/pid"; exec sleep 60 3<"$0/../var/lib/pyvorin/sync_queue.db"' "$dir" >/dev/null 2>&1 & sleep 0.2;;
esac
"#;
    std::fs::write(bin.join("systemctl"), script).unwrap();
    std::fs::set_permissions(bin.join("systemctl"), std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn calls(site: &Site) -> Vec<String> {
    let text = std::fs::read_to_string(site.root().join("bin/calls")).unwrap_or_default();
    let verbs = text.lines().filter_map(|l| l.split(' ').next()).filter(|verb| *verb != "show");
    verbs.map(str::to_string).collect()
}

const AGENT: &str = "PATH=$SITE/bin:$PATH; systemctl start x; : > $SITE/bin/calls; r() { \"$BIN\" --config $SITE/r.toml --technician T-042 \"$@\"; }; ";
const AFTER: &str = "; code=$?; kill $(cat $SITE/bin/pid) 2>/dev/null; exit $code";

#[test]
fn the_agent_is_stopped_for_a_repair_and_started_again() {
    for command in ["queue repair", "repair", "queue import $SITE/rows.jsonl"] {
        let site = site();
        rooted(&site, "");
        systemctl(&site);
        if command.starts_with("queue import") {
            let run = site.run(&["queue", "export", site.root().join("rows.jsonl").to_str().unwrap()]);
            assert_eq!(run.code, 0, "{}", run.stderr);
            rusqlite::Connection::open(queue(&site))
                .unwrap()
                .execute("DELETE FROM sync_queue WHERE id < 9", [])
                .unwrap();
        } else {
            damage(&queue(&site));
        }
        let Some(run) = in_machine(&site, &format!("{AGENT} r {command}{AFTER}")) else { return };
        assert_eq!(run.code & !5, 0, "{command}: {} {} {:?}", run.code, run.stderr, calls(&site));
        assert_eq!(calls(&site), ["stop", "reset-failed", "start"], "{command}: {}", run.stderr);
        let back = site.run(&["queue", "stats"]);
        assert_eq!(back.code & !4, 0, "{}", back.stderr);
    }
}

#[test]
fn nothing_is_stopped_for_what_needs_no_write_or_is_not_of_this_machine() {
    let site = site();
    rooted(&site, "");
    systemctl(&site);
    let script = format!("{AGENT} r queue repair && r repair && r queue repair --plan && r audit log seen{AFTER}");
    let Some(run) = in_machine(&site, &script) else { return };
    assert_eq!((run.code, calls(&site)), (0, vec![]), "{} {}", run.stdout, run.stderr);
    damage(&queue(&site));
    rooted(&site, "[service]\nunit = \"none\"\n");
    let before = std::fs::read(queue(&site)).unwrap();
    let Some(run) = in_machine(&site, &format!("{AGENT} r queue repair{AFTER}")) else { return };
    assert_eq!((run.code, calls(&site)), (8, vec![]), "{}", run.stderr);
    assert!(
        run.stderr.contains("it is open in sleep") && run.stderr.contains("next: stop the agent"),
        "{}",
        run.stderr
    );
    assert_eq!(std::fs::read(queue(&site)).unwrap(), before);
}

#[test]
fn a_failed_repair_leaves_the_agent_running_and_a_killed_one_is_made_up_for() {
    let site = site();
    rooted(&site, "");
    systemctl(&site);
    // The queue holds another table: a rebuild is refused after the stop.
    rusqlite::Connection::open(queue(&site)).unwrap().execute_batch("CREATE TABLE other (x)").unwrap();
    let mut bytes = std::fs::read(queue(&site)).unwrap();
    let leaf = bytes.chunks(4096).position(|page| page[0] == 13 && page[3..5] != [0, 0]).unwrap_or(1).max(1);
    bytes[leaf * 4096 + 2000..leaf * 4096 + 2100].fill(0xee);
    std::fs::write(queue(&site), bytes).unwrap();
    damage(&queue(&site));
    let Some(run) = in_machine(&site, &format!("{AGENT} r queue repair{AFTER}")) else { return };
    println!("{} {}", run.code, run.stderr);
    assert_eq!(calls(&site), ["stop", "reset-failed", "start"], "{}", run.stderr);

    // A command that was killed with the agent stopped: the next one that writes starts it.
    let script = format!(
        "{AGENT} systemctl stop x; mkdir -p /run/pyvorin-recovery; printf pyvorin-edge > /run/pyvorin-recovery/stopped-unit; \
                          : > $SITE/bin/calls; r audit log seen; ls /run/pyvorin-recovery >&2{AFTER}"
    );
    let Some(run) = in_machine(&site, &script) else { return };
    assert_eq!(calls(&site), ["reset-failed", "start"], "{}", run.stderr);
    assert!(run.stderr.contains("did not end") && !run.stderr.contains("stopped-unit"), "{}", run.stderr);
}

#[test]
fn an_agent_that_no_list_of_processes_shows_is_found_by_its_lock() {
    let site = site();
    damage(&queue(&site));
    let hold = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM sqlite_master').fetchall(); print(flush=True); sys.stdin.read()";
    let mut agent = Command::new("python3");
    agent.args(["-c", hold]).arg(queue(&site)).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut agent = agent.spawn().unwrap();
    let mut byte = [0];
    std::io::Read::read_exact(agent.stdout.as_mut().unwrap(), &mut byte).unwrap();
    let agent = Ended(agent);
    let before = std::fs::read(queue(&site)).unwrap();
    // A PID namespace of our own: the agent is in none of the directories of /proc.
    let mut inside = Command::new("unshare");
    inside.args(["-Urpf", "--mount-proc", env!("CARGO_BIN_EXE_pyvorin-recovery"), "--technician", "T-042", "--config"]);
    let done = inside.arg(site.config()).arg("--root").arg(site.root()).args(["queue", "repair"]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    if said.contains("unshare") {
        println!("skipped: no PID namespaces here: {said}");
        return;
    }
    assert_eq!(done.status.code(), Some(8), "{said}");
    assert!(said.contains("holds a lock on it"), "{said}");
    assert_eq!(std::fs::read(queue(&site)).unwrap(), before);
    drop(agent);
    assert_eq!(site.run(&["--technician", "T-042", "queue", "repair"]).code & !5, 0);
}
