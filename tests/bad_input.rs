//! Bad input: whatever stands where a database or the configuration should be, the program says what is wrong, where,
//! and what to do, ends with the documented code, and changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::os::unix::fs::symlink;
use std::process::Command;

use support::Failures;
use support::crash::{self, Files, Setup};
use support::rng::Rng;
use support::site::{CONFIG, Run, Site, changed, run};
use support::work::Kind;

const DB: &str = "/var/lib/pyvorin/edge_store.db";

fn sound() -> Files {
    let mut rng = Rng::new(7);
    let crash = crash::kill(&Setup::new(Kind::Append, 4096, 0), 50, false, &mut rng);
    let db = support::engine::open(&crash.files).folded;
    Files { db, wal: None, shm: None }
}

fn with_log() -> Files {
    crash::kill(&Setup::new(Kind::Append, 4096, 0), 50, false, &mut Rng::new(8)).files
}

struct Case {
    name: &'static str,
    /// Exit codes of `check` that the contract allows here.
    codes: &'static [i32],
    /// Values of `structure` that make sense here.
    structures: &'static [&'static str],
    /// True when the text must name the path and say something.
    told: bool,
    make: fn(&Site),
}

fn damaged(site: &Site, change: impl FnOnce(&mut Vec<u8>)) {
    let mut files = sound();
    change(&mut files.db);
    files.write(&site.db());
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "a sound database",
            codes: &[0],
            structures: &["sound"],
            told: false,
            make: |s| sound().write(&s.db()),
        },
        Case {
            name: "missing, and nothing names it",
            codes: &[0, 4],
            structures: &["missing"],
            told: false,
            make: |_| (),
        },
        Case {
            name: "missing, with its log still there",
            codes: &[4],
            structures: &["missing"],
            told: true,
            make: |s| {
                with_log().write(&s.db());
                std::fs::remove_file(s.db()).unwrap();
            },
        },
        Case {
            name: "a directory instead of a file",
            codes: &[4, 8, 12],
            structures: &["unreadable", "damaged"],
            told: true,
            make: |s| std::fs::create_dir(s.db()).unwrap(),
        },
        Case {
            name: "a fifo instead of a file",
            codes: &[4, 8, 12],
            structures: &["unreadable", "damaged"],
            told: true,
            make: |s| assert!(Command::new("mkfifo").arg(s.db()).status().unwrap().success()),
        },
        Case {
            name: "a symlink loop",
            codes: &[4, 8, 12],
            structures: &["unreadable", "damaged"],
            told: true,
            make: |s| symlink("edge_store.db", s.db()).unwrap(),
        },
        Case {
            name: "a symlink to nowhere",
            codes: &[4, 8, 12],
            structures: &["missing", "unreadable", "damaged"],
            told: true,
            make: |s| symlink("/nonexistent/x.db", s.db()).unwrap(),
        },
        Case {
            name: "the data directory is a file",
            codes: &[4, 8, 12],
            structures: &["unreadable", "missing", "damaged"],
            told: true,
            make: |s| {
                std::fs::remove_dir(s.data()).unwrap();
                std::fs::write(s.data(), b"x").unwrap();
            },
        },
        Case {
            name: "zero length, no log",
            codes: &[0, 4],
            structures: &["sound", "damaged"],
            told: true,
            make: |s| std::fs::write(s.db(), b"").unwrap(),
        },
        Case {
            name: "zero length, log with 50 commits",
            codes: &[4],
            structures: &["damaged", "sound"],
            told: true,
            make: |s| Files { db: Vec::new(), ..with_log() }.write(&s.db()),
        },
        Case {
            name: "wrong magic",
            codes: &[4],
            structures: &["damaged"],
            told: true,
            make: |s| damaged(s, |db| db[..16].copy_from_slice(b"NotSQLite format")),
        },
        Case {
            name: "a text file",
            codes: &[4],
            structures: &["damaged"],
            told: true,
            make: |s| std::fs::write(s.db(), "to whom it may concern\n".repeat(300)).unwrap(),
        },
        Case {
            name: "page size field of 3",
            codes: &[4],
            structures: &["damaged"],
            told: true,
            make: |s| damaged(s, |db| db[16..18].copy_from_slice(&[0, 3])),
        },
        Case {
            name: "page size field of another size",
            codes: &[4],
            structures: &["damaged"],
            told: true,
            make: |s| damaged(s, |db| db[16..18].copy_from_slice(&[2, 0])),
        },
        Case {
            name: "cut in the middle of a page",
            codes: &[4],
            structures: &["damaged"],
            told: true,
            make: |s| damaged(s, |db| db.truncate(db.len() - 1000)),
        },
        Case {
            name: "one byte",
            codes: &[4],
            structures: &["damaged"],
            told: true,
            make: |s| std::fs::write(s.db(), b"S").unwrap(),
        },
        Case {
            name: "noise as log and index",
            codes: &[0, 4],
            structures: &["sound"],
            told: true,
            make: |s| {
                let (mut wal, mut shm) = (vec![0; 10_000], vec![0; 32768]);
                Rng::new(1).fill(&mut wal);
                Rng::new(2).fill(&mut shm);
                Files { wal: Some(wal), shm: Some(shm), ..sound() }.write(&s.db());
            },
        },
        Case {
            name: "the log is a directory",
            codes: &[4, 8, 12],
            structures: &["sound", "unreadable", "damaged"],
            told: true,
            make: |s| {
                sound().write(&s.db());
                std::fs::create_dir(s.side("-wal")).unwrap();
            },
        },
        Case {
            name: "the log is gone and its index is there",
            codes: &[4],
            structures: &["sound", "damaged"],
            told: true,
            make: |s| {
                with_log().write(&s.db());
                std::fs::remove_file(s.side("-wal")).unwrap();
            },
        },
    ]
}

/// One finding or line must name the path and say something of use.
fn names_it(run: &Run) -> bool {
    let found = run.findings().iter().any(|f| f["message"].as_str().is_some_and(|m| m.len() >= 20));
    found || (run.stderr.contains("edge_store.db") && run.stderr.len() >= 40)
}

#[test]
fn whatever_stands_in_the_databases_place_is_told_and_left_alone() {
    let (mut failures, mut tried) = (Failures::default(), 0);
    for (number, case) in cases().into_iter().enumerate() {
        for command in [vec!["check"], vec!["check", "--quick"], vec!["inspect", DB]] {
            let site = Site::bare();
            (case.make)(&site);
            let before = site.tree();
            let run = site.run(&command);
            tried += 1;
            let mut fail = |kind: &str, text: String| {
                failures.add(kind, number as u64, format!("{}: {command:?}: {text} {}", case.name, run.brief()));
            };
            let moved = changed(&before, &site.tree());
            if !moved.is_empty() {
                fail("something changed on disk", format!("{moved:?}"));
            }
            if run.code >= 1000 || run.stderr.contains("panicked") {
                fail("crash or hang", run.stderr.clone());
                continue;
            }
            if command[0] == "inspect" {
                let allowed = case.codes.contains(&run.code) || (run.code & !12 == 0 && case.codes != [0]);
                if !allowed {
                    fail("exit code of inspect", format!("{} not in {:?} {}", run.code, case.codes, run.stderr));
                }
                continue;
            }
            if run.json.is_none() {
                fail("no JSON document on stdout", format!("stdout {} stderr {}", run.stdout, run.stderr));
                continue;
            }
            // A quick look need not read the pages; a finding it makes must still fit.
            let quick_and_fine = command.contains(&"--quick") && run.code == 0;
            if !quick_and_fine && !case.codes.contains(&run.code) {
                fail("exit code", format!("{} not in {:?}", run.code, case.codes));
            }
            if run.json.as_ref().and_then(|j| j["exit"].as_i64()) != Some(i64::from(run.code)) {
                fail("`exit` in the JSON is not the exit code", String::new());
            }
            if command.len() == 1 && !case.structures.contains(&run.text("structure")) {
                fail("structure", format!("not in {:?}", case.structures));
            }
            if command.len() == 1 && case.told && !names_it(&run) {
                fail("nothing useful is said", format!("stderr {} findings {:?}", run.stderr, run.findings()));
            }
            if run.code & 4 == 4 && run.complete() && run.text("structure") == "sound" {
                fail("bit 4 and yet sound and complete", String::new());
            }
        }
        // In plain words too: the path, and no bare number of an error.
        if case.told {
            let site = Site::bare();
            (case.make)(&site);
            let (config, root) = (site.config(), site.root());
            let plain = run(&["--config", config.to_str().unwrap(), "--root", root.to_str().unwrap(), "check"]);
            let words = format!("{}{}", plain.stdout, plain.stderr);
            if !words.contains("edge_store") || words.trim().len() < 60 {
                failures.add("plain words", number as u64, format!("{}: {words:?}", case.name));
            }
        }
    }
    println!("bad databases: {tried} looks at {} cases", cases().len());
    failures.finish("bad databases");
}

/// `repair` may mend or leave, but it never crashes, hangs, loses the original or calls the unmended well.
#[test]
fn repair_of_bad_input_keeps_the_original() {
    let mut failures = Failures::default();
    for (number, case) in cases().into_iter().enumerate() {
        let site = Site::bare();
        (case.make)(&site);
        let before = site.tree();
        let run = site.run(&["repair"]);
        let mut fail = |kind: &str, text: String| {
            failures.add(kind, number as u64, format!("{}: {text} {}", case.name, run.brief()));
        };
        if run.code >= 1000 || run.stderr.contains("panicked") || run.code & !15 != 0 {
            fail("crash or hang", format!("{} {}", run.code, run.stderr));
            continue;
        }
        let after = site.tree();
        let big = before.iter().filter(|(_, e)| e.0 == 'f' && !e.4.is_empty());
        for (path, entry) in big {
            if path.starts_with("var/lib/pyvorin") && !after.values().any(|e| e.0 == 'f' && e.4 == entry.4) {
                fail("the original bytes are gone", format!("{}", path.display()));
            }
        }
        println!("{:42} {}", case.name, run.brief());
    }
    failures.finish("repair of bad input");
}

/// The WAL still holds all 50 commits: both of these are whole in the surviving bytes.
#[test]
fn an_empty_or_missing_file_beside_a_whole_log_comes_back() {
    let mut rng = Rng::new(9);
    let crash = crash::kill(&Setup::new(Kind::Append, 4096, 0), 1000, false, &mut rng);
    for (name, zero) in [("zero length", true), ("missing", false)] {
        let site = Site::new(&Files { db: Vec::new(), ..crash.files.clone() });
        if !zero {
            std::fs::remove_file(site.db()).unwrap();
        }
        let run = site.run(&["repair"]);
        let rows = support::engine::open(&site.files()).rows.unwrap_or_default();
        let back = rows.iter().filter(|(k, v)| crash.work.rows.get(*k) == Some(v)).count();
        println!("{name}: {back} of 1000 rows; {}", run.brief());
        assert!(rows == crash.work.rows || !zero, "{name}: {back} of 1000; {}", run.brief());
        assert!(rows == crash.work.rows || !run.complete(), "{name}: {}", run.brief());
    }
}

#[test]
fn a_bad_configuration_is_refused_with_file_key_and_cure() {
    let long = "a".repeat(300);
    let cases: Vec<(&str, String, &str)> = vec![
        ("an unknown key", CONFIG.replace("[data]", "[data]\nspeed = 9"), "speed"),
        ("an unknown table", format!("{CONFIG}\n[turbo]\non = true\n"), "turbo"),
        ("an unknown key of a database", CONFIG.replace("kind = ", "colour = \"red\"\nkind = "), "colour"),
        ("not TOML", "[state\n".into(), "recovery.toml"),
        ("noise", "\u{0}\u{1}\u{2}".into(), "recovery.toml"),
        ("a kind that is none", CONFIG.replace("\"store\"", "\"stork\""), "stork"),
        ("a relative path", CONFIG.replace("\"/var/lib/pyvorin/edge_store.db\"", "\"edge_store.db\""), "edge_store.db"),
        ("a path with ..", CONFIG.replace("/var/lib/pyvorin/edge_store.db", "/var/../../etc/x.db"), ".."),
        ("a number for a path", CONFIG.replace("\"/var/lib/pyvorin\"", "7"), "dir"),
        ("a budget below zero", format!("[boot]\ncheck_budget_ms = -5\n{CONFIG}"), "check_budget_ms"),
        ("tries of a million", format!("[slots]\ntries = 1000000\n{CONFIG}"), "tries"),
        ("a percentage of 900", format!("[quarantine]\nmax_percent = 900\n{CONFIG}"), "max_percent"),
        ("an impossible mode", CONFIG.replace("kind = ", "mode = \"9999\"\nkind = "), "mode"),
        ("an impossible rung", CONFIG.replace("kind = ", "accept = [\"magic\"]\nkind = "), "magic"),
        ("an empty name", CONFIG.replace("\"edge_store\"", "\"\""), "name"),
        ("a very long name", CONFIG.replace("\"edge_store\"", &format!("\"{long}\"")), "name"),
        ("two databases of one name", format!("{CONFIG}{}", &CONFIG[CONFIG.find("[[").unwrap()..]), "edge_store"),
        ("an ending that is none", format!("[boot]\non_damage_left = \"pray\"\n{CONFIG}"), "pray"),
    ];
    let mut failures = Failures::default();
    for (number, (name, text, word)) in cases.iter().enumerate() {
        for command in ["check", "repair"] {
            let site = Site::new(&sound());
            std::fs::write(site.config(), text).unwrap();
            let before = site.tree();
            let run = site.run(&[command]);
            let mut fail = |kind: &str, why: &str| {
                failures.add(
                    kind,
                    number as u64,
                    format!("{name}: {command}: {why} code {} stderr {:?}", run.code, run.stderr),
                );
            };
            if !matches!(run.code, 8 | 16 | 24) {
                fail("exit code of a bad configuration", "not 8 or 16");
            }
            if !run.stderr.contains("recovery.toml") || !run.stderr.contains(word) {
                fail("the text does not say where", word);
            }
            if run.stderr.trim().len() < 40 || run.stderr.contains("panicked") {
                fail("the text does not say what to do", "");
            }
            if !changed(&before, &site.tree()).is_empty() {
                fail("something changed", "");
            }
        }
    }
    println!("bad configurations: {}", cases.len());
    failures.finish("bad configurations");
}

#[test]
fn a_configuration_that_cannot_be_read_is_told() {
    let mut failures = Failures::default();
    for (number, name) in ["missing", "a directory", "a fifo", "a symlink loop"].into_iter().enumerate() {
        let site = Site::new(&sound());
        std::fs::remove_file(site.config()).unwrap();
        match number {
            1 => std::fs::create_dir(site.config()).unwrap(),
            2 => assert!(Command::new("mkfifo").arg(site.config()).status().unwrap().success()),
            3 => symlink("recovery.toml", site.config()).unwrap(),
            _ => (),
        }
        let before = site.tree();
        let run = site.run(&["check"]);
        let mut fail = |kind: &str| {
            failures.add(kind, number as u64, format!("{name}: code {} stderr {:?}", run.code, run.stderr));
        };
        if !matches!(run.code, 8 | 16 | 24) {
            fail("exit code");
        }
        if !run.stderr.contains("recovery.toml") || run.stderr.trim().len() < 40 {
            fail("the text does not say where and what to do");
        }
        if !changed(&before, &site.tree()).is_empty() {
            fail("something changed");
        }
    }
    failures.finish("unreadable configurations");
}

#[test]
fn a_command_line_that_makes_no_sense_is_usage() {
    let mut failures = Failures::default();
    let lines: [&[&str]; 7] = [
        &[],
        &["frobnicate"],
        &["check", "--fast"],
        &["check", "--root"],
        &["--config"],
        &["inspect"],
        &["check", "/var/lib/pyvorin/no_such.db"],
    ];
    for (number, line) in lines.iter().enumerate() {
        let site = Site::new(&sound());
        let before = site.tree();
        let run = if number == 4 { run(line) } else { site.run(line) };
        let allowed: &[i32] = if number == 6 { &[4, 8, 16] } else { &[16] };
        if !allowed.contains(&run.code) {
            failures.add("exit code", number as u64, format!("{line:?}: {} stderr {:?}", run.code, run.stderr));
        }
        if run.stderr.trim().is_empty() && number != 6 {
            failures.add("no text", number as u64, format!("{line:?}"));
        }
        if !changed(&before, &site.tree()).is_empty() {
            failures.add("something changed", number as u64, format!("{line:?}"));
        }
    }
    failures.finish("usage");
}
