//! The seed's drill with an independent oracle: a writer is killed, the head of its log is overwritten with noise, and
//! `repair` has to bring back every row that the surviving bytes still hold, and to report every other as lost.
//!
//! *Reachable*: let F be the true state (the engine's own fold of the undamaged set). A page of F survives when the
//! database file or an undamaged frame of the live generation holds exactly that image. G is F with every page that
//! does not survive replaced by its newest older surviving image. A row is reachable when its cell stands on a leaf of
//! its own table in G exactly as in F. When G equals F every row is reachable, whatever its table.
//!
//! `DRILLS=1000 cargo test --test drills` runs more; `SEED=n` runs one again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::collections::BTreeSet;

use support::crash::{self, Crash, Files, Setup};
use support::engine::{self, Rows};
use support::rng::Rng;
use support::site::{Run, Site, changed};
use support::wal::Wal;
use support::work::{Kind, commit_of};
use support::{Failures, page, rounds, seeds};

#[derive(Default, Debug)]
struct Counts {
    drills: usize,
    commits: usize,
    rows: usize,
    reachable: usize,
    returned: usize,
    unreachable: usize,
    /// Reachable rows on leaves to which no surviving page leads.
    orphaned: usize,
    lost_and_reported: usize,
    superseded: usize,
    byte_identical: usize,
    plain_engine: usize,
    index_kept: usize,
    index_gone_all_back: usize,
    index_gone_not_claimed: usize,
    exact_and_called_complete: usize,
    exact: usize,
    left: usize,
}

/// The true state, and what of it the surviving bytes hold.
struct Truth {
    fold: Vec<u8>,
    whole: bool,
    superseded: bool,
    reachable: BTreeSet<String>,
    /// Reachable rows to which surviving pages still lead, where the whole state does not survive.
    led_to: BTreeSet<String>,
}

fn truth(crash: &Crash, damaged: &Files) -> Truth {
    let (db, wal) = (&crash.files.db, crash.files.wal());
    let fold = engine::open(&crash.files).folded;
    let Some(log) = Wal::read(wal) else {
        let reachable = crash.work.rows.keys().cloned().collect();
        return Truth { fold, whole: true, superseded: true, reachable, led_to: BTreeSet::new() };
    };
    let lost = log.lost(wal, damaged.wal());
    let size = log.page_size;
    let mut best = fold.clone();
    for number in 1..=(fold.len() / size) as u32 {
        let want = page::page(&fold, size, number).unwrap();
        let mut older = page::page(db, size, number).unwrap_or_default().to_vec();
        let mut survives = older == want;
        for (i, frame) in log.live().iter().enumerate().filter(|(_, f)| f.page == number) {
            if !lost[i] {
                older = log.image(wal, frame).to_vec();
                survives |= older == want;
            }
        }
        if !survives {
            older.resize(size, 0);
            let at = (number as usize - 1) * size;
            best[at..at + size].copy_from_slice(&older);
        }
    }
    let whole = best == fold;
    let superseded = log.superseded(&lost);
    let reachable = if whole {
        crash.work.rows.keys().cloned().collect()
    } else {
        let table = crash.work.table();
        let pages = page::tree(&fold, size, root(&fold, table));
        let (all, kept) = (page::rows(&fold, size, &pages), page::rows(&best, size, &pages));
        all.iter().filter(|(id, cell)| kept.get(id) == Some(cell)).map(|(id, _)| format!("{table}/{id}")).collect()
    };
    let led_to = if whole { BTreeSet::new() } else { engine::scan(&best, crash.work.table()) };
    Truth { fold, whole, superseded, reachable, led_to }
}

fn root(db: &[u8], table: &str) -> u32 {
    let scratch = support::site::Scratch::new("root");
    let path = scratch.path().join("fold.db");
    std::fs::write(&path, db).unwrap();
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.query_row("SELECT rootpage FROM sqlite_master WHERE name=?1", [table], |r| r.get(0)).unwrap_or(0)
}

fn setup(rng: &mut Rng) -> Setup {
    let kind = match rng.below(20) {
        0..=11 => Kind::Append,
        12..=13 => Kind::Other,
        14..=16 => Kind::Queue,
        17 => Kind::Meter,
        _ => Kind::Spill,
    };
    let page_size = if rng.chance(75) { 4096 } else { rng.pick(&[512, 1024, 2048, 8192, 16384, 32768, 65536]) };
    Setup::new(kind, page_size, rng.pick(&[0, 1, 100, 1000]))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Index {
    Kept,
    Gone,
    Stale,
}

fn drill(seed: u64, counts: &mut Counts, failures: &mut Failures) {
    let mut rng = Rng::new(seed);
    let setup = setup(&mut rng);
    let most = if setup.kind == Kind::Spill { 40 } else { 1000 };
    let commits = rng.between(1, most);
    let mid = rng.chance(20);
    let crash = crash::kill_with_past(&setup, commits, rng.between(1, commits), mid, &mut rng);
    let index = match rng.below(20) {
        0..=10 => Index::Kept,
        11..=16 => Index::Gone,
        _ => Index::Stale,
    };
    let mut damaged = crash.files.clone();
    damaged.shm = match index {
        Index::Kept => damaged.shm,
        Index::Gone => None,
        Index::Stale => crash.before.as_ref().and_then(|b| b.shm.clone()),
    };
    let mut bytes = rng.between(1, 8192);
    if let Some(wal) = damaged.wal.as_mut() {
        bytes = bytes.min(wal.len());
        rng.fill(&mut wal[..bytes]);
    }
    let what = format!("{setup:?}, {commits} commits, mid {mid}, {bytes} bytes, index {index:?}");
    let truth = truth(&crash, &damaged);
    counts.drills += 1;
    counts.commits += commits;
    counts.rows += crash.work.rows.len();
    counts.reachable += truth.reachable.len();
    counts.unreachable += crash.work.rows.len() - truth.reachable.len();
    counts.superseded += usize::from(truth.superseded);
    counts.index_kept += usize::from(index == Index::Kept);
    counts.plain_engine += engine::open(&damaged).rows.map_or(0, |rows| same(&rows, &crash.work.rows));
    let damaged_at_all = damaged.wal != crash.files.wal;
    let site = Site::new(&damaged);
    let first = site.run(&["repair"]);
    let mut fail = |kind: &str, text: String| failures.add(kind, seed, format!("{text} [{what}] {}", first.brief()));
    if first.json.is_none() || first.code & !7 != 0 {
        fail("repair did not run to its end", format!("code {} stderr {}", first.code, first.stderr));
        return;
    }
    let after = site.files();
    let found = engine::open(&after);
    let Ok(rows) = &found.rows else {
        fail("the result does not open", format!("{:?}", found.rows));
        return;
    };
    if found.integrity != "ok" {
        fail("the result fails integrity_check", found.integrity.clone());
    }
    // Rows: back, lost, stale, invented.
    let acknowledged = &crash.work.rows;
    let missing: Vec<&String> = acknowledged.iter().filter(|(k, v)| rows.get(*k) != Some(v)).map(|(k, _)| k).collect();
    let returned = truth.reachable.iter().filter(|k| rows.get(*k) == acknowledged.get(*k)).count();
    counts.returned += returned;
    let invented = invented(&crash, rows);
    if invented > 0 {
        fail("invented rows", format!("{invented} rows that no commit ever held"));
    }
    let state = commit_of(rows, &crash.work.commits);
    let all_back = returned == truth.reachable.len();
    let append_only = matches!(setup.kind, Kind::Append | Kind::Other | Kind::Spill);
    // A row is owed when its image survives and the surviving pages still lead to it: the real engine, scanning the
    // table of the surviving fold from both ends, must not read a row that is not back. Rows on leaves to which no
    // surviving page leads need page salvage; they are counted, and must be reported lost like any other.
    let owed = |k: &&String| truth.whole || truth.led_to.contains(*k);
    let owing = truth.reachable.iter().filter(owed).filter(|k| rows.get(*k) != acknowledged.get(*k)).count();
    counts.orphaned += truth.reachable.len() - truth.reachable.iter().filter(owed).count();
    if index == Index::Kept && owing > 0 && (truth.whole || append_only) {
        let class = match (truth.superseded, truth.whole) {
            (true, _) => "all lost frames superseded",
            (_, true) => "true state whole in the surviving bytes",
            _ => "some page images lost",
        };
        let n = truth.reachable.len();
        fail(&format!("reachable rows not back ({class})"), format!("{owing} of {n} owed at commit {state:?}"));
    }
    if index != Index::Kept {
        if all_back {
            counts.index_gone_all_back += 1;
        } else if first.claims_all() {
            fail("called complete without all reachable rows (index absent or stale)", format!("{returned} back"));
        } else {
            counts.index_gone_not_claimed += 1;
        }
    }
    let exact = *rows == *acknowledged;
    if truth.whole {
        counts.exact += 1;
        counts.exact_and_called_complete += usize::from(exact && first.claims_all());
    }
    if !exact {
        if first.claims_all() || !first.tells() {
            fail("loss not reported", format!("{} missing, state at commit {state:?}", missing.len()));
        } else {
            counts.lost_and_reported += missing.len();
        }
        // Without an index nothing proves that the destroyed head held more than the database has: `unknown` is right.
        if first.code & 4 == 0 && (index == Index::Kept || first.text("completeness") == "lossy") {
            fail("loss without exit bit 4", format!("{} missing", missing.len()));
        }
    }
    // With a page image gone for good nobody can know that its loss happens to cost no row.
    if exact && truth.whole && index == Index::Kept && (first.code & 4 != 0 || first.text("action") == "left") {
        fail("false alarm: nothing is lost and the index proves it", String::new());
    }
    if !damaged_at_all && (first.text("action") != "none" || first.code != 0) && index == Index::Kept && !mid {
        fail("an undamaged set was not left alone", String::new());
    }
    if truth.superseded && index == Index::Kept {
        let bytes = if matches!(first.text("action"), "none" | "left") { &found.folded } else { &after.db };
        if *bytes == truth.fold {
            counts.byte_identical += 1;
        } else {
            fail("not byte-identical to the engine's own fold", difference(bytes, &truth.fold, setup.page_size));
        }
    }
    tables(&first, rows, acknowledged, &mut fail);
    aftermath(&site, &damaged, &first, &mut fail);
    counts.left += usize::from(first.text("action") == "left");
}

fn same(rows: &Rows, truth: &Rows) -> usize {
    truth.iter().filter(|(k, v)| rows.get(*k) == Some(v)).count()
}

fn invented(crash: &Crash, rows: &Rows) -> usize {
    rows.iter()
        .filter(|(key, content)| {
            crash.work.rows.get(*key) != Some(content)
                && !crash.work.commits.iter().flatten().any(|(k, c)| k == *key && c.as_ref() == Some(content))
        })
        .count()
}

fn difference(a: &[u8], b: &[u8], page_size: usize) -> String {
    let pages = a.chunks(page_size).zip(b.chunks(page_size)).enumerate();
    let differ: Vec<usize> = pages.filter(|(_, (x, y))| x != y).map(|(i, _)| i + 1).collect();
    format!("lengths {} and {}, pages that differ {differ:?}", a.len(), b.len())
}

/// Row and loss counts of the report against the truth.
fn tables(run: &Run, rows: &Rows, acknowledged: &Rows, fail: &mut impl FnMut(&str, String)) {
    for table in run.database()["tables"].as_array().into_iter().flatten() {
        let Some(name) = table["name"].as_str().filter(|n| !n.starts_with("sqlite_")) else { continue };
        let prefix = format!("{name}/");
        let there = rows.keys().filter(|k| k.starts_with(&prefix)).count() as u64;
        if table["rows"].as_u64().is_some_and(|n| n != there) {
            fail("wrong row count in the report", format!("{table} but {there} rows are there"));
        }
        let of = |(k, v): (&String, &String)| k.starts_with(&prefix) && rows.get(k) != Some(v);
        let missing = acknowledged.iter().filter(|&(k, v)| of((k, v))).count() as u64;
        if table["lost"].as_u64().is_some_and(|n| n != missing) {
            fail("wrong loss count in the report", format!("{table} but {missing} are missing"));
        }
    }
}

/// Originals kept, no stale side files, and a second repair that changes nothing.
fn aftermath(site: &Site, damaged: &Files, first: &Run, fail: &mut impl FnMut(&str, String)) {
    let tree = site.tree();
    let action = first.text("action");
    if !matches!(action, "none" | "left") {
        for suffix in ["-wal", "-shm", "-journal"] {
            if site.side(suffix).exists() {
                fail("a side file stands beside the new database", suffix.into());
            }
        }
    }
    if action != "none" {
        for (what, bytes) in [("db", Some(&damaged.db)), ("wal", damaged.wal.as_ref()), ("shm", damaged.shm.as_ref())] {
            let kept = |bytes: &Vec<u8>| {
                tree.iter().any(|(p, e)| p.to_string_lossy().contains("quarantine") && e.0 == 'f' && e.4 == *bytes)
            };
            if bytes.is_some_and(|bytes| !kept(bytes)) {
                fail("an original is not in the quarantine", what.into());
            }
        }
    }
    let second = site.run(&["repair"]);
    let moved = changed(&tree, &site.tree());
    let moved: Vec<_> = moved.iter().filter(|p| p.starts_with("var/lib/pyvorin")).collect();
    if !moved.is_empty() {
        fail("a second repair changed the data", format!("{moved:?}, second: {}", second.brief()));
    }
    if action == "left" {
        if second.code != first.code & !1 {
            fail("a second look at what was left says otherwise", second.brief());
        }
    } else if second.code != 0 || second.text("action") != "none" {
        fail("a second repair is not content", second.brief());
    }
}

fn run(base: u64, count: u64) {
    let (mut counts, mut failures) = (Counts::default(), Failures::default());
    for seed in seeds(base, count) {
        drill(seed, &mut counts, &mut failures);
    }
    println!("drills at the head of the log: {counts:#?}");
    assert!(
        std::env::var("SEED").is_ok() || counts.superseded * 2 > counts.drills,
        "the drills are not what they claim"
    );
    failures.finish("drills");
}

#[test]
fn every_reachable_commit_comes_back_and_every_other_is_reported_lost() {
    run(1, rounds("DRILLS", 200));
}

#[test]
#[ignore = "the full thousand of `make bench`"]
fn a_thousand_drills() {
    run(10_000, 1000);
}

/// The head of the log is gone, and of its live generation nothing but the last frame is left, which the index names;
/// behind it stands an older generation that verifies. That one must not be taken for the live one.
#[test]
fn a_lone_last_frame_is_not_passed_over_for_an_older_generation() {
    let (mut counts, mut failures) = (Counts::default(), Failures::default());
    for seed in [10_539, 10_813] {
        drill(seed, &mut counts, &mut failures);
        assert_eq!(counts.superseded, 0, "seed {seed} is not the drill that it was: {counts:#?}");
    }
    failures.finish("drills");
}

/// The seed's own drill, where its script keeps 0 or 963 of 1000 rows.
#[test]
fn the_seeds_own_drill_gives_a_thousand_of_a_thousand() {
    for autocheckpoint in [0, 1000] {
        for bytes in [32, 56, 512, 4096, 8192] {
            let mut rng = Rng::new(autocheckpoint as u64 + bytes as u64);
            let crash = crash::kill(&Setup::new(Kind::Append, 4096, autocheckpoint), 1000, false, &mut rng);
            let mut damaged = crash.files.clone();
            rng.fill(&mut damaged.wal.as_mut().unwrap()[..bytes]);
            let plain = engine::open(&damaged).rows.map_or(0, |rows| same(&rows, &crash.work.rows));
            let site = Site::new(&damaged);
            let run = site.run(&["repair"]);
            let after = site.files();
            let rows = engine::open(&after).rows.unwrap_or_default();
            let back = same(&rows, &crash.work.rows);
            println!("autocheckpoint {autocheckpoint}, {bytes} bytes: engine {plain}, repair {back}; {}", run.brief());
            assert_eq!((back, rows.len()), (1000, 1000), "{}", run.brief());
            assert_eq!(after.db, engine::open(&crash.files).folded, "byte-identical; {}", run.brief());
            assert_eq!(run.text("structure"), "sound");
            assert_eq!(run.code & 1, 1, "repaired");
        }
    }
}
