//! A short run of every fuzz target on each run of the tests, without libFuzzer: the kept inputs of `tests/fuzz/corpus`,
//! the made ones, and what a small mutator and the injuries of `tests/support/injury.rs` make of them.
//!
//! The targets carry their own promises (`tests/fuzz/src`): no panic, heap bounded by the length of the input, reads
//! bounded by the files, the same answer twice, agreement with an independent reader. Here they also run on a small
//! stack, and a target that hangs is named with the input that it hangs on.
//!
//! `FUZZ_ROUNDS=n` asks for more mutations per target, `SEED=n` for one of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, unsafe_code, missing_docs)]

#[path = "fuzz/src/lib.rs"]
mod fuzz;
mod support;

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use fuzz::{TARGETS, Target, meter, seeds};
use pyvorin_recovery::sqlite::check::Scope;
use support::injury::{self, Base, Set};
use support::rng::Rng;

/// A reader that recurses with its input overflows this.
const STACK: usize = 256 << 10;
/// Longest silence of a target: a hang, not a measure of speed.
const SILENCE: Duration = Duration::from_secs(60);

/// The kept inputs of a target, then the made ones.
fn inputs(target: &Target) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target.name);
    let mut paths: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|p| std::fs::read(p).unwrap()).chain(seeds::seeds(target.name)).collect()
}

/// A few of the changes that libFuzzer makes: bits, bytes, words of meaning, blocks moved, cut, doubled, two inputs crossed.
fn mutate(rng: &mut Rng, all: &[Vec<u8>], max_len: usize) -> Vec<u8> {
    let mut data = all[rng.below(all.len())].clone();
    for _ in 0..rng.between(1, 4) {
        let len = data.len().max(1);
        let (at, n) = (rng.below(len), rng.between(1, 16));
        let end = (at + n).min(data.len());
        if data.is_empty() {
            data.push(rng.below(256) as u8);
            continue;
        }
        match rng.below(9) {
            0 => data[at] ^= 1 << rng.below(8),
            1 => data[at] = rng.pick(&[0, 1, 0x7f, 0x80, 0xff, b'0', b'"']),
            2 => rng.fill(&mut data[at..end]),
            3 if at + 4 <= len => {
                let word = rng.pick(&[0, 1, 2, 0xff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff_u32]);
                data[at..at + 4].copy_from_slice(&word.to_be_bytes());
            }
            4 => drop(data.drain(at..end)),
            5 => {
                let block = data[at..end].to_vec();
                let to = rng.below(len);
                data.splice(to..to, block);
            }
            6 => data.truncate(at),
            7 => {
                let other = &all[rng.below(all.len())];
                let from = rng.below(other.len());
                data.truncate(at);
                data.extend_from_slice(&other[from.min(other.len())..]);
            }
            _ => data[at] = data[at].wrapping_add(1),
        }
    }
    data.truncate(max_len);
    data
}

/// Runs a target over inputs that come one by one, on a thread with a small stack.
fn drive(target: &'static Target, mut next: impl FnMut(u64) -> Option<Vec<u8>> + Send + 'static) -> u64 {
    let (send, receive) = mpsc::channel();
    std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || {
            let mut n = 0;
            while let Some(input) = next(n) {
                let _ = send.send((n, Some(input.clone()), None));
                let done = catch_unwind(|| fuzz::run(target, &input));
                let text = done.err().map(|e| e.downcast_ref::<String>().cloned().unwrap_or_else(|| "panicked".into()));
                if text.is_some() {
                    let _ = send.send((n, Some(input), text));
                    return;
                }
                n += 1;
            }
            let _ = send.send((n, None, None));
        })
        .unwrap();
    let mut last = Vec::new();
    loop {
        match receive.recv_timeout(SILENCE) {
            Ok((n, None, _)) => return n,
            Ok((n, Some(input), Some(text))) => panic!("{}: input {n} ({}): {text}", target.name, keep(target, &input)),
            Ok((_, Some(input), None)) => last = input,
            Err(why) => panic!("{}: {why} with input {}", target.name, keep(target, &last)),
        }
    }
}

/// Puts a failing input where it can be looked at.
fn keep(target: &Target, input: &[u8]) -> String {
    let path = std::env::temp_dir().join(format!("fuzz-{}-{}", target.name, std::process::id()));
    std::fs::write(&path, input).unwrap();
    path.display().to_string()
}

#[test]
fn every_target_keeps_its_promises_on_mutated_inputs() {
    let rounds = support::rounds("FUZZ_ROUNDS", 4000);
    for target in TARGETS.iter().filter(|t| t.name != "engine") {
        let all = inputs(target);
        assert!(!all.is_empty(), "{} has nothing to begin with", target.name);
        let kept = all.len() as u64;
        let seeds = support::seeds(1, rounds);
        let ran = drive(target, move |n| match n.checked_sub(kept) {
            None => Some(all[n as usize].clone()),
            Some(n) => Some(mutate(&mut Rng::new(*seeds.get(n as usize)?), &all, target.max_len)),
        });
        println!("{}: {ran} inputs, {kept} of them kept", target.name);
    }
}

/// Why the engine may still see damage that the full check does not; empty once it may not. Counted at every run.
const KNOWN: &str = "the full check does not look at everything yet that integrity_check looks at";

/// Mutated and injured databases beside the real engine: what it calls damaged is never called sound.
#[test]
fn what_the_engine_calls_damaged_is_never_called_sound() {
    let target = fuzz::target("engine").unwrap();
    let all = inputs(target);
    let bases: Vec<Base> = seeds::databases()
        .into_iter()
        .map(|db| Base::new(Set([("db".to_owned(), db)].into()), Set::default()))
        .collect();
    let (mut looked, mut damaged, mut missed) = (0, 0, BTreeMap::<String, (usize, String)>::new());
    for seed in support::seeds(1, support::rounds("FUZZ_ROUNDS", 4000)) {
        let mut rng = Rng::new(seed);
        let (data, how) = if rng.chance(50) {
            (mutate(&mut rng, &all, target.max_len), String::new())
        } else {
            let base = &bases[rng.below(bases.len())];
            let injury = injury::random(&mut rng, base);
            let mut injured = base.files.clone();
            injury.apply(&mut injured, base).unwrap();
            (injured.file("db").to_vec(), injury.to_string())
        };
        let Some(says) = (data.len() >= 512).then(|| fuzz::database::engine_says(&data)).flatten() else { continue };
        looked += 1;
        damaged += usize::from(says.is_err());
        if let (Err(line), true) = (says, fuzz::database::called_sound(&data)) {
            let line = line.lines().last().unwrap_or_default().to_owned();
            let kind: String = line.split(|c: char| !c.is_ascii_alphabetic()).filter(|w| w.len() > 3).take(4).collect();
            missed.entry(kind).or_insert((0, format!("seed {seed}: {how}: {line}"))).0 += 1;
        }
    }
    let count: usize = missed.values().map(|m| m.0).sum();
    println!("{looked} databases, {damaged} damaged by the engine's word, {count} of them called sound");
    for (n, example) in missed.values() {
        println!("{}{n} x such as {example}", if KNOWN.is_empty() { "" } else { "known: " });
    }
    assert!(damaged > looked / 4, "the mutations damage too little: {damaged} of {looked}");
    assert!(count == 0 || !KNOWN.is_empty(), "{count} called sound");
}

/// Injuries of the formats' own fields and of storage go where bytes changed at random hardly ever do.
#[test]
fn injured_databases_and_logs_keep_the_promises() {
    let databases = seeds::databases();
    let logs = seeds::logs();
    let bases: Vec<(&str, Set)> = databases
        .into_iter()
        .map(|db| ("file", Set([("db".to_owned(), db)].into())))
        .chain(logs.into_iter().map(|(db, wal)| ("wal", Set([("db".to_owned(), db), ("wal".to_owned(), wal)].into()))))
        .collect();
    let per_base = support::rounds("FUZZ_ROUNDS", 4000) / 10;
    let (mut files, mut wals) = (Vec::new(), Vec::new());
    for (i, (kind, set)) in bases.into_iter().enumerate() {
        let base = Base::new(set, Set::default());
        for seed in support::seeds(i as u64 * 1_000_000, per_base) {
            let mut rng = Rng::new(seed);
            let mut injured = base.files.clone();
            for _ in 0..rng.between(1, 3) {
                let _ = injury::random(&mut rng, &base).apply(&mut injured, &base);
            }
            match kind {
                "file" => files.push(injured.file("db").to_vec()),
                _ => {
                    let pages = (injured.file("db").len() / 512).min(47) as u8;
                    let db = &injured.file("db")[..usize::from(pages) * 512];
                    wals.push(
                        [&[0, 0, pages, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], db, injured.file("wal")].concat(),
                    );
                }
            }
        }
    }
    for (name, all) in [("file", files), ("wal", wals)] {
        let target = fuzz::target(name).unwrap();
        let ran = drive(target, move |n| all.get(n as usize).cloned());
        println!("{name}: {ran} injured inputs");
        assert!(ran > 100);
    }
}

/// The meter itself: an allocation is seen, whatever becomes of it, and a read is counted.
#[test]
fn the_meter_sees_what_is_allocated_and_read() {
    use pyvorin_recovery::sqlite::ReadAt;
    assert!(meter::peak(|| drop(std::hint::black_box(vec![1_u8; 100_000]))) >= 100_000);
    assert!(meter::peak(|| ()) < 1000);
    let file = meter::Metered::new(b"twelve bytes");
    file.read_at(3, &mut [0; 4]).unwrap();
    file.read_at(10, &mut [0; 4]).unwrap();
    assert_eq!((file.reads(), file.read()), (2, 6));
}

/// Found by fuzzing: a check took a bitmap and a walk of as many pages as a commit frame claims.
#[test]
fn a_commit_that_claims_all_pages_there_can_be_costs_nothing() {
    use pyvorin_recovery::sqlite::overlay::{Fold, Overlay};
    use pyvorin_recovery::sqlite::{check, wal};
    let (db, mut log) = seeds::logs().swap_remove(0);
    let honest = wal::scan(&log, None).unwrap();
    let last = honest.last_commit(honest.prefix()).0;
    let at = 32 + (last as usize - 1) * (24 + 512);
    log[at..at + 4].copy_from_slice(&0xffff_fff0_u32.to_be_bytes());
    log[at + 4..at + 8].copy_from_slice(&u32::MAX.to_be_bytes());
    let scan = wal::scan(&log, None).unwrap();
    let fold =
        Fold { frames: vec![(1, last)], upto: last, pages: u32::MAX, sum: [0, 0], ..Fold::nothing(honest.page_size) };
    let peak = meter::peak(|| {
        let found = check::check(&Overlay::folded(Some(&db), &log, &scan, &fold), Scope::Full, &mut || true).unwrap();
        assert!(found.pages < 100);
    });
    assert!(peak < 4 << 20, "{peak} bytes");
}
