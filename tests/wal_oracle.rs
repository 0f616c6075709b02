//! The oracle kept honest by the real engine, and then the program held against both: header facts and the fold of
//! the log on generated databases of every page size and both checksum byte orders.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use support::crash::{self, Crash, Files, Setup};
use support::rng::Rng;
use support::site::{Site, changed};
use support::wal::{self, Wal};
use support::work::{Kind, commit_of};
use support::{Failures, engine, page, rounds, seeds};

const SIZES: [usize; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];
const KINDS: [Kind; 6] = [Kind::Append, Kind::Other, Kind::Queue, Kind::Transfers, Kind::Spill, Kind::Meter];

/// One killed writer per page size, kind and checkpoint setting.
fn generated(rng: &mut Rng) -> Vec<(Setup, Crash, bool)> {
    let mut all = Vec::new();
    for page_size in SIZES {
        for kind in KINDS {
            let mut setup = Setup::new(kind, page_size, rng.pick(&[0, 1, 100, 1000]));
            setup.accounts = 200;
            let commits = rng.between(1, 150) / if kind == Kind::Spill { 8 } else { 1 } + 1;
            let mid = rng.chance(33);
            let crash = crash::kill(&setup, commits, mid, rng);
            all.push((setup, crash, mid));
        }
    }
    all
}

/// The same crash state with the log's sums in the big-endian order, as the engine itself then leaves it:
/// it is opened and read once, so that the index file is the engine's own.
fn big_endian(files: &Files, setup: &Setup) -> Files {
    let mut turned = files.without_shm();
    if let Some(bytes) = turned.wal.as_mut()
        && let Some(log) = Wal::read(bytes)
    {
        wal::rechecksum(bytes, true, log.chain);
    }
    let before = turned.wal.clone();
    let turned = crash::reopen(&turned, setup, |_, _| ()).unwrap();
    assert_eq!(turned.wal, before, "reading must not have changed the log");
    turned
}

#[test]
fn the_oracle_reads_the_log_as_the_engine_does() {
    let (mut sets, mut frames, mut uncommitted, mut older) = (0, 0, 0, 0);
    for seed in seeds(1, rounds("ORACLE_ROUNDS", 2)) {
        let mut rng = Rng::new(seed);
        for (setup, crash, mid) in generated(&mut rng) {
            for files in [crash.files.clone(), big_endian(&crash.files, &setup)] {
                let found = engine::open(&files);
                let what = format!("seed {seed} {setup:?}");
                assert_eq!(found.rows.as_ref(), Ok(&crash.work.rows), "the model is the engine's truth, {what}");
                assert_eq!(found.integrity, "ok", "{what}");
                let log = Wal::read(files.wal()).unwrap();
                assert_eq!(found.frames, log.committed as i64, "committed frames, {what}");
                let index = files.shm.as_deref().unwrap();
                for (slot, frame) in log.live().iter().enumerate() {
                    assert_eq!(wal::indexed_page(index, slot), Some(frame.page), "the index names the page, {what}");
                }
                let nothing = vec![false; log.committed];
                let fold = log.fold(&files.db, files.wal(), &nothing);
                assert!(fold == found.folded, "the fold is the engine's byte for byte, {what}");
                assert!(log.superseded(&nothing));
                let table = crash.work.table();
                let root = root(&fold, table);
                let rows = page::rows(&fold, setup.page_size, &page::tree(&fold, setup.page_size, root));
                let truth = crash.work.rows.keys().filter(|k| k.starts_with(&format!("{table}/"))).count();
                assert_eq!(rows.len(), truth, "the oracle's own reading of the leaves, {what}");
                assert_eq!(commit_of(&crash.work.rows, &crash.work.commits), Some(crash.work.commits.len()));
                sets += 1;
                frames += log.committed;
                uncommitted += usize::from(mid && log.chain > log.committed);
                older += log.slots[log.chain..].iter().filter(|f| f.salts != log.salts).count();
            }
        }
    }
    println!(
        "sets {sets}, committed frames {frames}, with an unfinished transaction {uncommitted}, older frames {older}"
    );
    assert!(frames > 5000 && uncommitted > 0 && older > 0, "the generator makes too little");
}

/// With damage the engine alone never has a row that the oracle does not call surviving.
#[test]
fn the_engine_is_never_better_than_the_oracle() {
    let (mut engine_rows, mut oracle_rows, mut trials, mut perfect) = (0, 0, 0, 0);
    for seed in seeds(500, rounds("ORACLE_ROUNDS", 60)) {
        let mut rng = Rng::new(seed);
        let setup = Setup::new(Kind::Append, rng.pick(&SIZES[..5]), rng.pick(&[0, 100, 1000]));
        let commits = rng.between(20, 400);
        let crash = crash::kill(&setup, commits, false, &mut rng);
        let log = Wal::read(crash.files.wal()).unwrap();
        let mut damaged = crash.files.clone();
        let frame = rng.below(log.committed);
        let at = log.slots[frame].at + rng.below(log.slot_len() - 8);
        rng.fill(&mut damaged.wal.as_mut().unwrap()[at..at + 8]);
        let lost = log.lost(crash.files.wal(), damaged.wal());
        assert_eq!(lost.iter().filter(|l| **l).count(), 1);
        let fold = log.fold(&crash.files.db, crash.files.wal(), &lost);
        let whole = log.fold(&crash.files.db, crash.files.wal(), &vec![false; log.committed]);
        let root = root(&whole, "readings");
        let rows = page::rows(&fold, setup.page_size, &page::tree(&whole, setup.page_size, root));
        let plain = engine::open(&damaged).rows.unwrap_or_default();
        let (mine, theirs) = (rows.len(), plain.len());
        assert!(mine >= theirs, "seed {seed}: engine {theirs}, oracle {mine}, frame {frame} of {}", log.committed);
        if log.superseded(&lost) {
            assert!(fold == whole, "seed {seed}: superseded means nothing is lost");
            perfect += 1;
        }
        engine_rows += theirs;
        oracle_rows += mine;
        trials += 1;
    }
    println!("trials {trials}, superseded {perfect}; rows: engine {engine_rows}, surviving {oracle_rows}");
    assert!(std::env::var("SEED").is_ok() || oracle_rows > engine_rows, "the damage damages nothing");
}

fn root(db: &[u8], table: &str) -> u32 {
    let scratch = support::site::Scratch::new("root");
    let path = scratch.path().join("fold.db");
    std::fs::write(&path, db).unwrap();
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.query_row("SELECT rootpage FROM sqlite_master WHERE name=?1", [table], |r| r.get(0)).unwrap_or(0)
}

/// Why frame 1 counts as surviving when only the header is gone: the sum that its own stored sum must have started
/// from is the header's, and of the 24 bytes under that one only the checkpoint number (32 bits) is not known from
/// elsewhere. So 64 bits are given and 32 unknown: frame 1 and the header prove each other.
fn rebuild_header(wal: &[u8], page_size: usize, big_endian: bool) -> Option<[u8; 32]> {
    let word = |at: usize| if big_endian { wal::be32(wal, at) } else { wal::be32(wal, at).swap_bytes() };
    let at = wal::HEADER;
    let (mut s0, mut s1) = (wal::be32(wal, at + 16), wal::be32(wal, at + 20));
    let page = at + wal::FRAME;
    let pairs = (page..page + page_size).step_by(8).rev().chain([at]);
    for pair in pairs {
        s1 = s1.wrapping_sub(word(pair + 4)).wrapping_sub(s0);
        s0 = s0.wrapping_sub(word(pair)).wrapping_sub(s1);
    }
    let mut header = [0; 32];
    header[0..4].copy_from_slice(&(0x377f_0682 | u32::from(big_endian)).to_be_bytes());
    header[4..8].copy_from_slice(&3_007_000u32.to_be_bytes());
    header[8..12].copy_from_slice(&(page_size as u32).to_be_bytes());
    header[16..24].copy_from_slice(&wal[at + 8..at + 16]);
    let turn = |bytes: &[u8]| if big_endian { wal::be32(bytes, 0) } else { wal::be32(bytes, 0).swap_bytes() };
    let before = wal::sum(big_endian, (0, 0), &header[..8]);
    let salt1 = turn(&header[20..24]);
    // Back over the salts: what stood after the pair (page size, checkpoint number); the number is the difference.
    let b1 = s1.wrapping_sub(salt1).wrapping_sub(s0);
    let a0 = before.0.wrapping_add(turn(&header[8..12])).wrapping_add(before.1);
    let number = b1.wrapping_sub(before.1).wrapping_sub(a0);
    let number = if big_endian { number.to_be_bytes() } else { number.swap_bytes().to_be_bytes() };
    header[12..16].copy_from_slice(&number);
    header[24..28].copy_from_slice(&s0.to_be_bytes());
    header[28..32].copy_from_slice(&s1.to_be_bytes());
    (wal::sum(big_endian, (0, 0), &header[..24]) == (s0, s1)).then_some(header)
}

#[test]
fn a_lost_header_is_proved_by_the_first_frame() {
    let (mut rebuilt, mut refused) = (0, 0);
    for (setup, crash, _) in generated(&mut Rng::new(77)) {
        for mut files in [crash.files.clone(), big_endian(&crash.files, &setup)] {
            let log = Wal::read(files.wal()).unwrap();
            let wal = files.wal.as_mut().unwrap();
            let header = wal[..32].to_vec();
            wal[..32].fill(0);
            assert_eq!(
                rebuild_header(wal, setup.page_size, log.big_endian).as_ref().map(|h| &h[..]),
                Some(&header[..])
            );
            rebuilt += 1;
            wal[wal::HEADER + wal::FRAME + 9] ^= 4;
            refused += usize::from(rebuild_header(wal, setup.page_size, log.big_endian).is_none());
        }
    }
    println!("headers rebuilt byte for byte {rebuilt}, refused after one bit of frame 1 was flipped {refused}");
    assert_eq!(rebuilt, refused);
}

#[test]
fn header_and_log_facts_equal_the_engines() {
    let (mut sets, mut failures) = (0, Failures::default());
    for seed in seeds(1, rounds("ORACLE_ROUNDS", 1)) {
        let mut rng = Rng::new(seed);
        for (setup, crash, mid) in generated(&mut rng) {
            for files in [crash.files.clone(), crash.files.without_shm(), big_endian(&crash.files, &setup)] {
                let log = Wal::read(files.wal()).unwrap();
                let fold = engine::open(&files).folded.len() / setup.page_size;
                let stored = files.db.len() / setup.page_size;
                let site = Site::new(&files);
                let before = site.tree();
                let name = "/var/lib/pyvorin/edge_store.db";
                for command in [vec!["check"], vec!["check", "--quick"], vec!["inspect", name]] {
                    let run = site.run(&command);
                    let mut fail = |kind: &str, text: String| {
                        let shm = files.shm.is_some();
                        failures.add(
                            kind,
                            seed,
                            format!(
                                "{text} {command:?} {setup:?} mid {mid} shm {shm} be {} {}",
                                log.big_endian,
                                run.brief()
                            ),
                        );
                    };
                    if run.json.is_none() || run.code != 0 {
                        fail("an undamaged set is not exit 0", run.stderr.clone());
                    }
                    let moved = changed(&before, &site.tree());
                    if !moved.is_empty() {
                        fail("looking changed something", format!("{moved:?}"));
                    }
                    if command[0] == "inspect" {
                        continue;
                    }
                    let size = run.database()["page_size"].as_u64();
                    let pages = run.database()["pages"].as_u64().unwrap_or(0) as usize;
                    if size != Some(setup.page_size as u64) {
                        fail("page size", format!("{size:?}"));
                    }
                    if pages != fold && pages != stored {
                        fail("pages", format!("{pages}, folded {fold}, stored {stored}"));
                    }
                    if run.wal("frames") != log.slots.len() as i64 {
                        fail("frames", format!("{} slots", log.slots.len()));
                    }
                    if run.wal("committed_frames") != log.committed as i64 {
                        fail("committed frames", format!("{}", log.committed));
                    }
                    if !matches!(run.database()["wal"]["state"].as_str(), Some("sound" | "torn-tail" | "empty")) {
                        fail("state of an undamaged log", String::new());
                    }
                    if run.text("structure") != "sound" || run.text("completeness") == "lossy" {
                        fail("verdict on an undamaged set", String::new());
                    }
                    sets += 1;
                }
            }
        }
    }
    println!("facts compared {sets} times");
    failures.finish("facts");
}

#[test]
fn the_fold_without_a_header_is_the_engines_own() {
    let (mut sets, mut identical, mut claimed, mut failures) = (0, 0, 0, Failures::default());
    for seed in seeds(30, rounds("ORACLE_ROUNDS", 1)) {
        let mut rng = Rng::new(seed);
        for (setup, crash, mid) in generated(&mut rng) {
            for mut files in [crash.files.clone(), crash.files.without_shm(), big_endian(&crash.files, &setup)] {
                let log = Wal::read(files.wal()).unwrap();
                let truth = engine::open(&files);
                let kept = files.shm.is_some();
                rng.fill(&mut files.wal.as_mut().unwrap()[..wal::HEADER]);
                let site = Site::new(&files);
                let run = site.run(&["repair"]);
                let after = site.files();
                let found = engine::open(&after);
                sets += 1;
                let same = found.folded == truth.folded;
                identical += usize::from(same);
                claimed += usize::from(run.claims_all());
                let be = log.big_endian;
                let what = format!("{setup:?} mid {mid} shm {kept} be {be} {} {}", log.committed, run.brief());
                let rows = found.rows.as_ref().ok();
                if rows != Some(&crash.work.rows) {
                    let back = rows.map(|r| commit_of(r, &crash.work.commits));
                    let of = crash.work.commits.len();
                    if run.claims_all() {
                        failures.add("called complete with rows missing", seed, format!("{back:?} of {of} {what}"));
                    } else if kept {
                        failures.add(
                            "rows missing though the index is there",
                            seed,
                            format!("{back:?} of {of} {what}"),
                        );
                    }
                } else if !same && kept {
                    failures.add("not byte-identical", seed, what.clone());
                }
                if found.integrity != "ok" {
                    failures.add("integrity_check", seed, format!("{} {what}", found.integrity));
                }
            }
        }
    }
    println!("logs without a header {sets}: byte-identical {identical}, called complete {claimed}");
    failures.finish("folds without a header");
}
