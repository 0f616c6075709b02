//! The layers of the crate documentation, held by scanning the source: domain modules know no effects, the pure stages
//! know no clock, only the edge talks to the operating system, and no file outgrows its reader.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

const LONGEST: usize = 500;
const DOMAIN: [&str; 18] = [
    "archive",
    "sqlite",
    "slots",
    "ext4",
    "fat",
    "audit",
    "queue",
    "journal.rs",
    "keyring",
    "record.rs",
    "reset.rs",
    "retention",
    "sign",
    "ticket",
    "config",
    "cmdline.rs",
    "cli",
    "error.rs",
];
const PURE: [&str; 7] = [
    "boot/assess.rs",
    "boot/plan.rs",
    "boot/plan/reset.rs",
    "boot/step.rs",
    "boot/evidence.rs",
    "boot/report.rs",
    "boot/report/reset.rs",
];

fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&src, &mut paths);
    let name = |p: &PathBuf| p.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
    let mut all: Vec<_> = paths.iter().map(|p| (name(p), fs::read_to_string(p).unwrap())).collect();
    all.sort();
    assert!(all.len() > 40, "the scan found {} files", all.len());
    all
}

/// The code of a file: without its comments, and without its tests.
fn code(text: &str) -> String {
    let body = text.split("#[cfg(test)]\nmod").next().unwrap();
    body.lines().map(|l| l.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs")
}

/// Every (file, word) where a word stands that must not.
fn offences(of: impl Fn(&str) -> bool, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| of(name) && !is_test(name)) {
        let code = code(text);
        found.extend(words.iter().filter(|w| code.contains(**w)).map(|w| format!("src/{name}: {w}")));
    }
    found
}

fn domain(name: &str) -> bool {
    DOMAIN.iter().any(|d| name == *d || name == format!("{d}.rs") || name.starts_with(&format!("{d}/")))
}

#[test]
fn domain_modules_point_at_nothing_with_effects() {
    let words = [
        "crate::edge",
        "crate::boot",
        "crate::commands",
        "std::fs",
        "std::env",
        "std::process::Command",
        "nix::",
        "libc::",
        "rusqlite",
    ];
    assert_eq!(offences(domain, &words), Vec::<String>::new());
}

#[test]
fn the_pure_stages_know_no_clock_no_environment_and_no_machine() {
    let words = [
        "Machine",
        "dyn Look",
        "std::fs",
        "std::env",
        "std::process",
        "std::time",
        "log::",
        "Result<Plan",
        "Result<Assessment",
    ];
    assert_eq!(offences(|n| PURE.contains(&n), &words), Vec::<String>::new());
}

#[test]
fn sensing_cannot_write() {
    assert_eq!(offences(|n| n == "boot/sense.rs", &["Machine", "&mut dyn"]), ["src/boot/sense.rs: &mut dyn"; 0]);
}

#[test]
fn only_the_edge_talks_to_the_operating_system() {
    let words = ["std::fs", "std::process::Command", "nix::", "libc::"];
    assert_eq!(offences(|n| !n.starts_with("edge"), &words), Vec::<String>::new());
    let engine = |n: &str| n != "edge/engine.rs" && !n.starts_with("edge/engine/");
    assert_eq!(offences(engine, &["rusqlite"]), Vec::<String>::new());
}

#[test]
fn unsafe_code_stands_at_the_edge_and_gives_its_reason() {
    for (name, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            if !line.contains("unsafe {") && !line.contains("unsafe fn") {
                continue;
            }
            assert!(name.starts_with("edge/linux"), "src/{name}:{}: unsafe outside the edge", i + 1);
            let reason = lines[i.saturating_sub(8)..i].iter().any(|l| l.contains("SAFETY"));
            assert!(reason, "src/{name}:{}: unsafe without a SAFETY line", i + 1);
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_stays_readable() {
    for (name, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LONGEST, "src/{name} has {lines} lines, more than {LONGEST}");
        assert!(text.starts_with("//!"), "src/{name} does not say what it is");
    }
}

#[test]
fn nothing_unfinished_and_nothing_that_panics() {
    let words = [".unwrap()", ".expect(", "todo!", "unimplemented!", "dbg!", "panic!("];
    assert_eq!(offences(|_| true, &words), Vec::<String>::new());
}
