//! The tiny operating system of the QEMU tests: PID 1 of a booted slot. It does what the edge agent would do (mount the
//! data partition, open the store with the real SQLite engine) and says over the serial port what it found.
//!
//! Kernel command line: `userland.dry` (mount nothing, report, power off), `userland.insert=N` (write N rows, each in
//! its own transaction), `userland.nodb` (mount, but leave the store alone), `userland.crash` (then reset without unmounting), `userland.markgood`, `userland.hold` (do not
//! power off), `userland.nocheck` (count and check nothing), `userland.seed` (time the seed script's
//! checkpoint and integrity check).

// This is a test's operating system, not the product: time, files and processes are its business.
#![allow(clippy::disallowed_methods)]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount, umount};
use nix::sys::reboot::{RebootMode, reboot};
use rusqlite::{Connection, OpenFlags};

const DATA: &str = "/var/lib/pyvorin";
const STATE: &str = "/var/lib/pyvorin-recovery";
const STORE: &str = "/var/lib/pyvorin/edge_store.db";
const REPORT: &str = "/run/pyvorin-recovery/report.json";

fn main() {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")] {
        if !mounted(target) {
            let _ = mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>);
        }
    }
    let asked = Asked::read();
    let report = fs::read_to_string(REPORT).unwrap_or_default();
    if !report.is_empty() {
        say(&format!("REPORT {}", report.replace(['\n', '\r'], " ")));
    }
    let mut line = format!("USERLAND slot={}", slot());
    if asked.dry {
        line.push_str(" dry=yes");
    } else {
        let data = attach("data", DATA);
        let state = attach("state", STATE);
        let _ = write!(line, " data={data} state={state}");
        // The connection stays open past the report: a crash must find it in use, as a power cut does.
        let agent = if data == "mounted" && !asked.no_db { Some(agent(&asked, &mut line)) } else { None };
        let _ = write!(line, " report={}", summary(&report));
        if asked.crash {
            // Something must be in the journal, or there is nothing to replay.
            let _ = fs::write(Path::new(DATA).join("in-use"), "written just before the power failed");
            nix::unistd::sync();
            say(&line);
            let _ = reboot(RebootMode::RB_AUTOBOOT);
        }
        drop(agent);
        if asked.mark_good {
            say(&mark_good());
        }
    }
    say(&line);
    if asked.hold {
        loop {
            std::thread::sleep(Duration::from_secs(60));
        }
    }
    for target in [DATA, STATE] {
        let _ = umount(target);
    }
    nix::unistd::sync();
    let _ = reboot(RebootMode::RB_POWER_OFF);
}

/// What the kernel command line asks of this userland.
struct Asked {
    dry: bool,
    crash: bool,
    hold: bool,
    mark_good: bool,
    no_db: bool,
    seed: bool,
    check: bool,
    insert: i64,
}

impl Asked {
    fn read() -> Self {
        let text = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let has = |word: &str| text.split_whitespace().any(|w| w == word);
        let insert = text.split_whitespace().find_map(|w| w.strip_prefix("userland.insert="));
        Self {
            dry: has("userland.dry"),
            crash: has("userland.crash"),
            hold: has("userland.hold"),
            mark_good: has("userland.markgood"),
            no_db: has("userland.nodb"),
            seed: has("userland.seed"),
            check: !has("userland.nocheck"),
            insert: insert.and_then(|n| n.parse().ok()).unwrap_or(0),
        }
    }
}

fn mounted(target: &str) -> bool {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(1) == Some(target))
}

fn slot() -> String {
    fs::read_to_string("/etc/slot").map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
}

/// Mounts the partition with this GPT name the way a distribution would; a word for the report line.
fn attach(partition: &str, target: &str) -> String {
    let Some(device) = device_of(partition) else { return "absent".to_owned() };
    match mount(Some(device.as_str()), target, Some("ext4"), MsFlags::MS_NOATIME, None::<&str>) {
        Ok(()) => "mounted".to_owned(),
        Err(error) => format!("refused:{error:?}"),
    }
}

fn device_of(partition: &str) -> Option<String> {
    let wanted = format!("PARTNAME={partition}");
    for entry in fs::read_dir("/sys/class/block").ok()?.flatten() {
        let text = fs::read_to_string(entry.path().join("uevent")).unwrap_or_default();
        if text.lines().any(|line| line == wanted) {
            return text.lines().find_map(|line| line.strip_prefix("DEVNAME=")).map(|name| format!("/dev/{name}"));
        }
    }
    None
}

/// Opens the store as the agent would, writes what was asked, and adds what it found to the line.
fn agent(asked: &Asked, line: &mut String) -> Option<Connection> {
    let wal = match fs::metadata(format!("{STORE}-wal")) {
        Ok(meta) => meta.len().to_string(),
        Err(_) => "absent".to_owned(),
    };
    let intent = if Path::new(DATA).join(".pyvorin-intent").exists() { "open" } else { "none" };
    let _ = write!(line, " wal={wal} intent={intent}");
    if !Path::new(STORE).exists() {
        line.push_str(" rows=no-file");
        return None;
    }
    match store(asked) {
        Ok((store, facts)) => {
            line.push_str(&facts);
            Some(store)
        }
        Err(error) => {
            let _ = write!(line, " rows=error:{}", error.to_string().replace(' ', "_"));
            None
        }
    }
}

fn store(asked: &Asked) -> rusqlite::Result<(Connection, String)> {
    let store = Connection::open_with_flags(STORE, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    store.pragma_update(None, "wal_autocheckpoint", 0)?;
    for n in 0..asked.insert {
        store.execute(
            "INSERT INTO readings(sensor_name, timestamp, value, unit, metadata) VALUES ('agent', ?1, 1.5, '', '{}')",
            [n],
        )?;
    }
    let mut facts = String::new();
    if asked.seed {
        let began = Instant::now();
        store.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        let integrity: String = store.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        let _ = write!(facts, " seed_ms={} seed_says={}", began.elapsed().as_millis(), integrity.replace(' ', "_"));
    }
    if asked.check {
        let (rows, max): (i64, Option<i64>) =
            store.query_row("SELECT count(*), max(id) FROM readings", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let integrity: String = store.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        let _ = write!(facts, " rows={rows} max_id={} integrity={}", max.unwrap_or(0), integrity.replace(' ', "_"));
    }
    Ok((store, facts))
}

/// The few fields of the boot report that most cases ask for; the REPORT line has all of it.
fn summary(report: &str) -> String {
    let Ok(value) = serde_json::from_str::<serde_json::Value>(report) else { return "none".to_owned() };
    let field = |name: &str| value.get(name).map_or_else(|| "?".to_owned(), |v| v.to_string().replace('"', ""));
    format!(
        "ending:{},cause:{},slot:{},elapsed_ms:{}",
        field("ending"),
        field("cause"),
        field("slot"),
        field("elapsed_ms")
    )
}

fn mark_good() -> String {
    match Command::new("/usr/sbin/pyvorin-recovery").args(["slot", "mark-good"]).output() {
        Ok(out) => {
            let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            let code = out.status.code().map_or_else(|| "killed".to_owned(), |code| code.to_string());
            format!("MARKGOOD exit={code} {}", text.replace('\n', " | "))
        }
        Err(error) => format!("MARKGOOD exit=unstarted {error}"),
    }
}

/// One write per line, so that a line of the kernel cannot fall into the middle of it.
fn say(line: &str) {
    if let Ok(mut console) = fs::OpenOptions::new().write(true).open("/dev/console") {
        let _ = console.write_all(format!("\n{line}\n").as_bytes());
    }
}
