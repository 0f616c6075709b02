//! Rollback journals of killed writers, in every journal mode, held against the real engine; and damaged, cut and
//! foreign ones, judged and acted on by a whole boot on the simulated machine. `JOURNALS=n` runs more, `SEED=n` one again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
// `ReadAt` is asked of a whole vector, as the library's own callers have it.
#![allow(clippy::disallowed_methods, clippy::ptr_arg)]

mod support;

use pyvorin_recovery::boot::report::DatabaseReport;
use pyvorin_recovery::boot::{self, BootRequest};
use pyvorin_recovery::config::Settings;
use pyvorin_recovery::edge::sim::SimMachine;
use pyvorin_recovery::sqlite::judge::Completeness;
use pyvorin_recovery::sqlite::overlay::Overlay;
use pyvorin_recovery::sqlite::rollback::{self, JournalEvidence, JournalFacts, Rollback};

use support::crash::Files;
use support::rng::Rng;
use support::site::Scratch;
use support::{Failures, engine, rounds, seeds};

const DATA: &str = "/var/lib/pyvorin";
const STATE: &str = "/var/lib/pyvorin-recovery";
const MODES: [&str; 3] = ["DELETE", "TRUNCATE", "PERSIST"];

/// A writer killed in the middle of a transaction: its files, and the database before that transaction.
struct Killed {
    db: Vec<u8>,
    journal: Vec<u8>,
    before: Vec<u8>,
    page_size: usize,
    what: String,
}

fn killed(rng: &mut Rng) -> Killed {
    let (mode, page_size) = (rng.pick(&MODES), rng.pick(&[512, 1024, 4096]));
    let (rows, synchronous) = (rng.between(20, 400), rng.pick(&["OFF", "NORMAL", "FULL"]));
    let scratch = Scratch::new("journal");
    let path = scratch.path().join("a.db");
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA page_size={page_size}; PRAGMA journal_mode={mode}; PRAGMA synchronous={synchronous};
         CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b INTEGER); CREATE INDEX i ON t(b);
         PRAGMA cache_size=8;"
    ))
    .unwrap();
    let fill = |from: usize, to: usize, rng: &mut Rng| {
        for i in from..to {
            let text = "x".repeat(rng.between(5, 90));
            conn.execute("INSERT INTO t VALUES (?1, ?2, ?3)", (i as i64, text, rng.below(1000) as i64)).unwrap();
        }
    };
    conn.execute_batch("BEGIN").unwrap();
    fill(0, rows, rng);
    conn.execute_batch("COMMIT").unwrap();
    let before = std::fs::read(&path).unwrap();
    conn.execute_batch("BEGIN").unwrap();
    // More pages than the cache holds, so that some go back to the file before the end.
    conn.execute("UPDATE t SET b = b + 7, a = a || 'y' WHERE id % 3 = ?1", [rng.below(3) as i64]).unwrap();
    fill(rows, rows + rng.between(0, 60), rng);
    conn.execute("DELETE FROM t WHERE id % 5 = 1", []).unwrap();
    let db = std::fs::read(&path).unwrap();
    let journal = std::fs::read(scratch.path().join("a.db-journal")).unwrap();
    let what = format!("{mode} {page_size} {rows} rows {synchronous}");
    Killed { db, journal, before, page_size, what }
}

/// What the engine makes of a database and its journal.
fn engine_rolls_back(db: &[u8], journal: &[u8]) -> (Vec<u8>, String) {
    rolled_back_in(&Scratch::new("roll"), db, journal)
}

fn rolled_back_in(scratch: &Scratch, db: &[u8], journal: &[u8]) -> (Vec<u8>, String) {
    let path = scratch.path().join("a.db");
    std::fs::write(&path, db).unwrap();
    std::fs::write(scratch.path().join("a.db-journal"), journal).unwrap();
    let conn = rusqlite::Connection::open(&path).unwrap();
    let _ = conn.query_row("SELECT count(*) FROM sqlite_master", [], |r| r.get::<_, i64>(0));
    let integrity = engine::integrity(&conn);
    drop(conn);
    (std::fs::read(&path).unwrap(), integrity)
}

fn facts(journal: &Vec<u8>, page_size: usize) -> Option<JournalFacts> {
    match rollback::read(journal, Some(page_size as u32)).unwrap() {
        JournalEvidence::Hot(facts) => Some(*facts),
        _ => None,
    }
}

fn rolled_back(db: &Vec<u8>, journal: &Vec<u8>, facts: &JournalFacts) -> Vec<u8> {
    let back = Rollback { page_size: facts.page_size, pages: facts.pages, images: facts.images.clone() };
    let source = Overlay::rolled_back(db, journal, &back);
    (1..=source.pages).flat_map(|n| source.page(n).unwrap().unwrap()).collect()
}

fn boot(db: &[u8], journal: &[u8]) -> (DatabaseReport, Option<Vec<u8>>, bool, bool) {
    boot_on(SimMachine::new(), db, journal)
}

fn boot_on(m: SimMachine, db: &[u8], journal: &[u8]) -> (DatabaseReport, Option<Vec<u8>>, bool, bool) {
    let path = format!("{DATA}/edge_store.db");
    let mut m = m
        .with_dir(DATA)
        .with_dir(STATE)
        .with_file(&path, db.to_vec())
        .with_file(format!("{path}-journal"), journal.to_vec());
    let mut settings = Settings::default_for_agent();
    settings.state_device = None;
    settings.check_budget_ms = 60_000;
    let done = boot::run(&mut m, &settings, &BootRequest::default(), &mut |_| {});
    let report = done.report.databases.into_iter().find(|d| d.path.ends_with("edge_store.db")).unwrap();
    let kept =
        m.paths().iter().any(|p| p.to_string_lossy().contains("quarantine") && m.bytes(p).as_deref() == Some(journal));
    (report, m.bytes(&path), m.bytes(format!("{path}-journal")).is_some(), kept)
}

#[test]
fn a_whole_hot_journal_is_read_as_the_engine_plays_it_back() {
    let (mut hot, mut changed, mut several) = (0, 0, 0);
    for seed in seeds(1, rounds("JOURNALS", 60)) {
        let k = killed(&mut Rng::new(seed));
        let (engine, integrity) = engine_rolls_back(&k.db, &k.journal);
        assert_eq!(integrity, "ok", "seed {seed} {}", k.what);
        // Until the first sync a kept journal has the zeroed header of the transaction before.
        let Some(facts) = facts(&k.journal, k.page_size) else {
            assert!(k.db == k.before && k.journal[0] == 0, "seed {seed} {}", k.what);
            continue;
        };
        assert_eq!(facts.damaged, 0, "seed {seed} {} {facts:?}", k.what);
        assert!(rolled_back(&k.db, &k.journal, &facts) == engine, "seed {seed} {}", k.what);
        assert!(engine == k.before, "seed {seed}: the generator");
        let (report, after, still, _) = boot(&k.db, &k.journal);
        let codes: Vec<&str> = report.findings.iter().map(|f| f.code.as_str()).collect();
        assert!(still && after.as_ref() == Some(&k.db), "seed {seed} {} left to SQLite: {codes:?}", k.what);
        assert!(codes.contains(&"hot-journal") && codes.len() == 1, "seed {seed} {} {codes:?}", k.what);
        assert_ne!(report.completeness, Completeness::Complete, "seed {seed}");
        hot += 1;
        changed += usize::from(k.db != k.before);
        let magic = &k.journal[..8];
        several += usize::from(k.journal.chunks(512).filter(|c| c.starts_with(magic)).count() > 1);
    }
    println!("hot journals {hot}, with the database changed already {changed}, with several headers {several}");
    assert!(std::env::var("SEED").is_ok() || changed * 2 > hot && several > 0);
}

#[test]
fn an_ended_transaction_is_not_taken_for_a_hot_journal() {
    for mode in MODES {
        let scratch = Scratch::new("ended");
        let path = scratch.path().join("a.db");
        let conn = rusqlite::Connection::open(&path).unwrap();
        conn.execute_batch(&format!("PRAGMA journal_mode={mode}; CREATE TABLE t (a); INSERT INTO t VALUES (1);"))
            .unwrap();
        let journal = std::fs::read(scratch.path().join("a.db-journal")).unwrap_or_default();
        assert_eq!(rollback::read(&journal, Some(4096)).unwrap(), JournalEvidence::Cold, "{mode}");
    }
}

/// The end that a transaction over several files gives its journals: the page number of the lock byte, the name of the
/// super-journal, its length, the sum of its bytes, and the magic (pager.c, `writeSuperJournal`).
fn with_super_journal(k: &Killed, name: &str) -> Vec<u8> {
    let mut journal = k.journal.clone();
    if k.what.ends_with("FULL") {
        journal.resize(journal.len().next_multiple_of(512), 0);
    }
    let lock = 0x4000_0000 / k.page_size as u32 + 1;
    let sum = name.bytes().fold(0_u32, |sum, b| sum.wrapping_add(u32::from(b)));
    for part in [&lock.to_be_bytes(), name.as_bytes(), &(name.len() as u32).to_be_bytes(), &sum.to_be_bytes()] {
        journal.extend_from_slice(part);
    }
    journal.extend_from_slice(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
    journal
}

/// While the super-journal stands there the transaction had not ended, and the engine plays the journal back. Once it
/// is gone the transaction had ended in all its files, and playing back would revert it.
#[test]
fn the_super_journal_decides_as_it_does_for_the_engine() {
    let (mut hot, mut over) = (0, 0);
    for seed in seeds(9000, rounds("JOURNALS", 60)) {
        let mut rng = Rng::new(seed);
        let k = killed(&mut rng);
        if k.journal.first().is_none_or(|b| *b == 0) || k.db == k.before {
            continue;
        }
        // Present, absent, and absent with a name that the engine never gives: then the end is noise, and it plays back.
        for (name, present) in [("a.db-mjC0FFEE9AB", true), ("a.db-mjC0FFEE9AB", false), ("a.db-mjC0FFEE8AB", false)] {
            let (named, ended) = (name.contains("E9AB"), !present && name.contains("E9AB"));
            let scratch = Scratch::new("super");
            let beside = scratch.path().join(name);
            let journal = with_super_journal(&k, beside.to_str().unwrap());
            let mut m = SimMachine::new();
            if present {
                let children = format!("{}\0", scratch.path().join("a.db-journal").display());
                std::fs::write(&beside, &children).unwrap();
                m = m.with_file(format!("{DATA}/{name}"), children.into_bytes());
            }
            let (engine, _) = rolled_back_in(&scratch, &k.db, &journal);
            let expected = if ended { &k.db } else { &k.before };
            assert!(engine == *expected, "seed {seed} {}: the generator, {name} present {present}", k.what);
            let facts = facts(&journal, k.page_size).unwrap();
            // What is no super-journal's name stands where a journal that counts to its end has one more record.
            assert_eq!(facts.super_journal.is_some(), named, "seed {seed} {}", k.what);
            assert!(facts.damaged == 0 || !named, "seed {seed} {}", k.what);
            let (report, after, still, _) = boot_on(m, &k.db, &journal);
            let codes: Vec<&str> = report.findings.iter().map(|f| f.code.as_str()).collect();
            let what = format!("seed {seed} {} present {present} {codes:?} {:?}", k.what, report.action);
            if !named {
                assert!(rolled_back(&k.db, &journal, &facts) == engine, "{what}");
            } else if present {
                hot += 1;
                assert!(rolled_back(&k.db, &journal, &facts) == engine, "{what}");
                assert!(codes.contains(&"hot-journal") && still, "{what}");
            } else {
                over += 1;
                assert!(codes.contains(&"journal-ended") && !codes.contains(&"hot-journal"), "{what}");
            }
            // Whoever opens it then ends where the engine ends. (It removes the super-journal with its last journal.)
            if present {
                std::fs::write(&beside, "x").unwrap();
            }
            let after = after.unwrap();
            let result = if still { rolled_back_in(&scratch, &after, &journal).0 } else { after };
            let whole = engine::open(&Files { db: engine.clone(), ..Files::default() });
            if whole.integrity == "ok" {
                assert!(!still || result == engine, "{what}");
            }
            assert_ne!(report.completeness, Completeness::Complete, "{what}");
        }
    }
    println!("journals of a transaction over several files: not ended {hot}, ended {over}");
    assert!(std::env::var("SEED").is_ok() || hot > 20 && over > 20);
}

fn injure(k: &Killed, rng: &mut Rng) -> (Vec<u8>, &'static str) {
    let mut journal = k.journal.clone();
    let slot = k.page_size + 8;
    let records = (journal.len() - 512) / slot;
    let at = 512 + rng.below(records.max(1)) * slot;
    let what = match rng.below(6) {
        0 => {
            rng.fill(&mut journal[..28]);
            journal[0] |= 1;
            "header random"
        }
        1 => {
            let end = (at + slot).min(journal.len());
            rng.fill(&mut journal[at..end]);
            "record random"
        }
        2 => {
            let end = (at + 4 + k.page_size).min(journal.len());
            rng.fill(&mut journal[(at + 4).min(end)..end]);
            "image random"
        }
        3 => {
            let cut = rng.between(30, journal.len() - 1);
            journal.truncate(cut);
            "cut"
        }
        4 => {
            let end = (at + 4096).min(journal.len());
            journal[at..end].fill(0);
            "block zeroed"
        }
        _ => {
            let end = (at + 4).min(journal.len());
            rng.fill(&mut journal[at..end]);
            "page number random"
        }
    };
    (journal, what)
}

#[test]
fn what_a_damaged_journal_holds_is_put_back_and_never_called_complete() {
    let (mut cases, mut repaired, mut exact, mut engine_exact, mut left) = (0, 0, 0, 0, 0);
    let mut failures = Failures::default();
    for seed in seeds(1000, rounds("JOURNALS", 120)) {
        let mut rng = Rng::new(seed);
        let k = killed(&mut rng);
        let (journal, what) = injure(&k, &mut rng);
        let (report, after, still, kept) = boot(&k.db, &journal);
        let what = format!("{what} {} {:?} {:?}", k.what, report.action, report.findings.first());
        cases += 1;
        if report.completeness == Completeness::Complete {
            failures.add("called complete", seed, what.clone());
        }
        engine_exact += usize::from(engine_rolls_back(&k.db, &journal).0 == k.before);
        let after = after.unwrap();
        if still {
            left += 1;
            if after != k.db {
                failures.add("the journal stands there and the database was changed", seed, what.clone());
            }
            exact += usize::from(engine_rolls_back(&after, &journal).0 == k.before);
            continue;
        }
        repaired += 1;
        exact += usize::from(after == k.before);
        if !kept {
            failures.add("the journal is not in the quarantine", seed, what.clone());
        }
        let scratch = Scratch::new("after");
        let path = scratch.path().join("a.db");
        std::fs::write(&path, &after).unwrap();
        let integrity = engine::integrity(&rusqlite::Connection::open(&path).unwrap());
        if integrity != "ok" {
            failures.add("what was installed is not sound", seed, format!("{integrity} {what}"));
        }
    }
    println!(
        "damaged journals {cases}: repaired {repaired}, left {left}; the state before: engine alone {engine_exact}, with us {exact}"
    );
    failures.finish("hot_journals");
    assert!(std::env::var("SEED").is_ok() || exact >= engine_exact && repaired > 0);
}

#[test]
fn a_journal_of_another_database_is_refused_and_set_aside() {
    let (mut pairs, mut refused) = (0, 0);
    for seed in seeds(5000, rounds("JOURNALS", 80)) {
        let mut rng = Rng::new(seed);
        let (a, b) = (killed(&mut rng), killed(&mut rng));
        // The database of one, whole, beside the journal of the other; only where playing it back would change it.
        if engine_rolls_back(&a.before, &b.journal).0 == a.before {
            continue;
        }
        pairs += 1;
        let (report, after, still, kept) = boot(&a.before, &b.journal);
        let codes: Vec<&str> = report.findings.iter().map(|f| f.code.as_str()).collect();
        if codes.contains(&"journal-foreign") {
            refused += 1;
            assert!(!still && kept && after.as_ref() == Some(&a.before), "seed {seed}: {codes:?} {:?}", report.action);
        } else {
            println!("seed {seed}: {} beside the journal of {}: {codes:?}", a.what, b.what);
        }
    }
    println!("journals of another database {pairs}, refused and set aside {refused}");
    assert!(std::env::var("SEED").is_ok() || refused * 100 >= pairs * 95, "{refused} of {pairs}");
}
