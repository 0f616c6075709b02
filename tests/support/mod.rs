//! What the oracle tests share: seeded randomness, crash states made by the real engine, an independent reader of
//! the WAL, and a gateway's directory tree to run the command line in. Nothing here imports the crate under test.
#![allow(dead_code)]

pub mod agent;
pub mod archive;
pub mod crash;
pub mod engine;
pub mod injury;
pub mod kill;
pub mod log_injury;
pub mod odd;
pub mod page;
pub mod provable;
pub mod record;
pub mod rng;
pub mod site;
pub mod stick;
pub mod timeline;
pub mod wal;
pub mod work;

/// How many rounds to run: the environment variable if it is set, else the default.
pub fn rounds(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => default,
    }
}

/// The seeds to run: exactly one if SEED is set, else `count` of them from `base` on.
pub fn seeds(base: u64, count: u64) -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(text) => vec![text.parse().unwrap_or_else(|_| panic!("SEED={text} is not a number"))],
        Err(_) => (base..base + count).collect(),
    }
}

/// Failures found by a run, with a limit on what is printed; the run goes on so that the counts are whole.
#[derive(Default)]
pub struct Failures {
    lines: Vec<String>,
    kinds: std::collections::BTreeMap<String, (usize, Vec<u64>)>,
}

impl Failures {
    /// Notes one failure of a kind, found with a seed.
    pub fn add(&mut self, kind: &str, seed: u64, text: impl Into<String>) {
        let entry = self.kinds.entry(kind.to_owned()).or_default();
        entry.0 += 1;
        if entry.1.len() < 8 {
            entry.1.push(seed);
        }
        if self.lines.len() < 200 && entry.0 <= 4 {
            self.lines.push(format!("seed {seed}: {kind}: {}", text.into()));
        }
    }

    /// Ends the test: prints what was found and fails when that is anything.
    pub fn finish(self, name: &str) {
        if self.kinds.is_empty() {
            return;
        }
        for line in &self.lines {
            println!("{line}");
        }
        let kinds: Vec<String> =
            self.kinds.iter().map(|(kind, (n, seeds))| format!("  {n} x {kind}, seeds {seeds:?}")).collect();
        panic!("{name} failed; rerun one with SEED=<seed>:\n{}", kinds.join("\n"));
    }
}
