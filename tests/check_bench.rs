//! `make bench-check`: the check of a store of about 500 MB with two indexes, page cache dropped, beside a raw sequential
//! read and the engine's own `integrity_check` in the same run. Prints ratios, bytes read, memory and CPU seconds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs
)]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rusqlite::{Connection, OpenFlags, params};

const ROWS: i64 = 3_600_000;

/// The store: readings with two indexes, as the agent writes them.
fn store() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("store-2.db");
    if path.exists() {
        return path;
    }
    let building = dir.join("building.db");
    let _ = fs::remove_file(&building);
    let mut db = Connection::open(&building).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-65536; \
         CREATE TABLE readings(id INTEGER PRIMARY KEY AUTOINCREMENT, sensor_name TEXT NOT NULL, timestamp REAL NOT NULL, \
           value REAL NOT NULL, unit TEXT, metadata TEXT); \
         CREATE INDEX idx_sensor_time ON readings(sensor_name, timestamp); CREATE INDEX idx_time ON readings(timestamp)",
    )
    .unwrap();
    let tx = db.transaction().unwrap();
    {
        let mut insert = tx.prepare("INSERT INTO readings VALUES (?1,?2,?3,?4,?5,?6)").unwrap();
        for id in 1..=ROWS {
            let sensor = format!("temp.wh.{}", id % 8);
            let at = 1_717_000_000.0 + id as f64 * 0.25;
            let value = ((id * 7919) % 4000) as f64 * 0.25;
            insert
                .execute(params![id, sensor, at, value, "°C", "{\"q\":\"good\",\"batch\":17,\"line\":\"A3\"}"])
                .unwrap();
        }
    }
    tx.commit().unwrap();
    db.close().unwrap();
    fs::rename(&building, &path).unwrap();
    path
}

fn drop_cache() -> bool {
    let _ = Command::new("sync").status();
    fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

/// What a child used: wall and CPU seconds, peak memory in MiB, bytes it read from files.
struct Used {
    wall: f64,
    cpu: f64,
    rss: f64,
    read: u64,
}

/// Runs this test binary again for one task, so that memory and CPU are of that task alone.
fn measured(task: &str, path: &Path) -> Used {
    let begun = Instant::now();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--nocapture", "--exact", "task"]).env("BENCH_TASK", task).env("BENCH_FILE", path);
    command.arg0("bench");
    let out = command.output().unwrap();
    let wall = begun.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{task}: {text}{}", String::from_utf8_lossy(&out.stderr));
    let field = |name: &str| -> f64 {
        let at = text.find(&format!("{name}=")).unwrap_or_else(|| panic!("{task} printed no {name}: {text}"));
        text[at + name.len() + 1..].split_whitespace().next().unwrap().parse().unwrap()
    };
    let inner = field("wall");
    assert!(inner <= wall + 0.5);
    Used { wall: inner, cpu: field("cpu"), rss: field("rss"), read: field("read") as u64 }
}

fn proc_value(file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("{file} has no {key}"));
    line[key.len()..].split_whitespace().find_map(|w| w.trim_matches(':').parse().ok()).unwrap()
}

fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[test]
#[ignore = "a task of the benchmark, not a test"]
fn task() {
    let Ok(task) = std::env::var("BENCH_TASK") else { return };
    let path = PathBuf::from(std::env::var("BENCH_FILE").unwrap());
    let (begun, cpu, read) = (Instant::now(), cpu_seconds(), proc_value("/proc/self/io", "rchar:"));
    match task.as_str() {
        "raw" => {
            let mut file = File::open(&path).unwrap();
            let mut buffer = vec![0; 1 << 20];
            while file.read(&mut buffer).unwrap() > 0 {}
        }
        "engine" => {
            let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
            let verdict: String = db.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
            assert_eq!(verdict, "ok");
        }
        _ => {
            // The product itself, as the command line runs it.
            use pyvorin_recovery::edge::crew::Threads;
            use pyvorin_recovery::edge::linux::file;
            use pyvorin_recovery::sqlite::check::{Scope, SumKey, check_keyed};
            use pyvorin_recovery::sqlite::overlay::Overlay;
            let db = file::open(&path).unwrap();
            let crew = Threads::available();
            let found =
                check_keyed(&Overlay::alone(&db, 4096), Scope::Full, SumKey([1, 2]), &crew, &mut |_, _| true).unwrap();
            assert!(found.sound(), "{:?}", found.findings);
            assert!(found.coverage.for_engine.iter().all(|d| d.table.is_none()), "{:?}", found.coverage.for_engine);
            assert_eq!(found.coverage.natively.len(), 5, "{:?}", found.coverage.natively);
        }
    }
    let rss = proc_value("/proc/self/status", "VmHWM:") as f64 / 1024.0;
    println!(
        "\nwall={} cpu={} rss={rss} read={}",
        begun.elapsed().as_secs_f64(),
        cpu_seconds() - cpu,
        proc_value("/proc/self/io", "rchar:") - read
    );
}

#[test]
#[ignore = "a benchmark"]
fn check_against_integrity_check_and_a_raw_read() {
    let path = store();
    let size = fs::metadata(&path).unwrap().len();
    println!("store: {:.1} MB, {} pages, {ROWS} rows, two indexes", size as f64 / 1e6, size / 4096);
    let cold = drop_cache();
    if !cold {
        println!("the page cache cannot be dropped here (needs root): the figures below are warm");
    }
    let runs = std::env::var("BENCH_RUNS").ok().and_then(|r| r.parse().ok()).unwrap_or(3);
    let best = |task: &str, runs: u32| {
        let run = || {
            drop_cache();
            measured(task, &path)
        };
        (0..runs).map(|_| run()).min_by(|a, b| a.wall.total_cmp(&b.wall)).unwrap()
    };
    let raw = best("raw", runs);
    let ours = best("ours", runs);
    let engine = best("engine", 1);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "the best of {runs} runs, integrity_check once; load {}: at more than 1.5 trust the CPU seconds alone",
        load.trim()
    );
    println!("{:22} {:>8} {:>8} {:>9} {:>12}", "", "wall s", "CPU s", "RSS MiB", "bytes read");
    for (name, u) in [("raw sequential read", &raw), ("check", &ours), ("integrity_check", &engine)] {
        println!("{name:22} {:>8.2} {:>8.2} {:>9.1} {:>12}", u.wall, u.cpu, u.rss, u.read);
    }
    let verdict = |good: bool| if good { "holds" } else { "MISSED" };
    let row = |what: &str, value: f64, goal: f64, at_most: bool| {
        let good = if at_most { value <= goal } else { value >= goal };
        println!("{what:34} {value:>8.3}  goal {} {goal:<6} {}", if at_most { "<=" } else { ">=" }, verdict(good));
    };
    row("check / raw read", ours.wall / raw.wall, 1.25, true);
    row("integrity_check / check", engine.wall / ours.wall, 10.0, false);
    row("integrity_check / check, CPU", engine.cpu / ours.cpu, 5.0, false);
    row("bytes read / bytes of the file", ours.read as f64 / size as f64, 1.01, true);
    row("peak memory, MiB", ours.rss, 32.0, true);
    row("CPU seconds", ours.cpu, 2.0, true);
}
