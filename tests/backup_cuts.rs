//! The power cut after every call of a backup, of a restore and of the removal of an archive, on the simulated machine: whole
//! archives or none, the old files or the new ones, and the next run finds nothing in its way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::path::{Path, PathBuf};

use age::x25519::Identity;
use pyvorin_recovery::backup::restore::{Ask, Queue, open, restore};
use pyvorin_recovery::backup::{catalogue, create, device};
use pyvorin_recovery::boot::{self, BootRequest};
use pyvorin_recovery::config::Settings;
use pyvorin_recovery::edge::Machine;
use pyvorin_recovery::edge::sim::{CutMode, SimMachine};
use rusqlite::Connection;
use support::crash::Files;
use support::site::Scratch;

const DATA: &str = "/var/lib/pyvorin";
const STATE: &str = "/var/lib/pyvorin-recovery";
const DB: &str = "/var/lib/pyvorin/edge_store.db";
const CUTS: [(CutMode, u64); 4] =
    [(CutMode::Applied, 0), (CutMode::Dropped, 0), (CutMode::Torn, 1), (CutMode::Torn, 2)];

fn settings(operations: &Identity) -> Settings {
    let mut s = Settings::default_for_agent();
    s.state_device = None;
    s.device_id = Some("GW-1".to_string());
    s.backup_recipients = vec![operations.to_public().to_string(), Identity::generate().to_public().to_string()];
    s.databases.truncate(1);
    s.config_paths = vec!["/etc/pyvorin".into()];
    s
}

/// A store of `rows` rows with frames in its log, as a killed agent leaves it.
fn store(rows: u32) -> Files {
    let scratch = Scratch::new("cuts");
    let path = scratch.path().join("edge_store.db");
    let conn = Connection::open(&path).unwrap();
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
    conn.execute_batch("CREATE TABLE readings (id INTEGER PRIMARY KEY, value REAL)").unwrap();
    for n in 0..rows {
        conn.execute("INSERT INTO readings(value) VALUES (?1)", [f64::from(n)]).unwrap();
    }
    Files::read(&path).without_shm()
}

fn with(files: &Files, m: SimMachine) -> SimMachine {
    let m = m.with_file(DB, files.db.clone());
    match &files.wal {
        Some(wal) => m.with_file(format!("{DB}-wal"), wal.clone()),
        None => m,
    }
}

fn rows(m: &SimMachine) -> i64 {
    let scratch = Scratch::new("rows");
    let path = scratch.path().join("x.db");
    Files { db: m.bytes(DB).unwrap(), wal: m.bytes(format!("{DB}-wal")), shm: None }.write(&path);
    Connection::open(&path).unwrap().query_row("SELECT count(*) FROM readings", [], |r| r.get(0)).unwrap()
}

fn machine(settings: &Settings) -> SimMachine {
    let m = SimMachine::new().with_dir(STATE).with_file("/etc/pyvorin/agent.toml", *b"new = 1\n");
    let mut m = with(&store(60), m);
    device::init(&mut m, settings).unwrap();
    m
}

fn archives(m: &SimMachine, settings: &Settings) -> Vec<(PathBuf, bool)> {
    let known = catalogue::read(m.as_look(), settings).unwrap();
    let found = catalogue::archives(m.as_look(), settings, &known).unwrap();
    found.iter().map(|f| (settings.backup_dir.join(&f.backup.name), f.backup.verified)).collect()
}

fn opens(m: &SimMachine, settings: &Settings, archive: &Path, operations: &Identity) {
    let mut m = m.clone();
    device::made(m.as_look(), settings, archive).unwrap().unwrap();
    let ask = Ask {
        archive,
        base: None,
        identities: &[operations],
        config: false,
        any_device: false,
        queue: Queue::All,
        by: "T-1",
    };
    open(&mut m, settings, &ask, Path::new("/var/lib/pyvorin/.stage/look")).unwrap();
}

#[test]
fn a_backup_cut_anywhere_leaves_whole_archives_or_none_and_the_next_one_succeeds() {
    let operations = Identity::generate();
    let settings = settings(&operations);
    // The second of the two builds on the first.
    for increment in [false, true] {
        let begin = || {
            let mut m = machine(&settings);
            if increment {
                create::create(&mut m, &settings, false, "T-1").unwrap();
            }
            m.after_shutdown()
        };
        let before = usize::from(increment);
        let mut whole = begin();
        create::create(&mut whole, &settings, false, "T-1").unwrap();
        assert_eq!(archives(&whole, &settings).len(), before + 1);
        let (mut cuts, mut old, mut new) = (0, 0, 0);
        for (mode, seed) in CUTS {
            for n in 1..=whole.op_count() {
                let mut m = begin();
                m.cut_after_op(n, mode, seed);
                drop(create::create(&mut m, &settings, false, "T-1"));
                let mut m = m.after_cut();
                let found = archives(&m, &settings);
                assert!(found.len() == before || found.len() == before + 1, "cut {n} {mode:?} {seed}: {found:?}");
                found.iter().for_each(|(path, _)| opens(&m, &settings, path, &operations));
                old += u32::from(found.len() == before);
                new += u32::from(found.len() > before);
                boot::run(&mut m, &settings, &BootRequest::default(), &mut |_| {});
                assert_eq!(rows(&m), 60, "cut {n} {mode:?}");
                create::create(&mut m, &settings, false, "T-1")
                    .unwrap_or_else(|e| panic!("cut {n} {mode:?} {seed}: {e:?}"));
                let after = archives(&m, &settings);
                assert!(after.len() == found.len() + 1 && after.last().unwrap().1, "cut {n} {mode:?} {seed}");
                let stray: Vec<_> =
                    m.paths().into_iter().filter(|p| p.starts_with(format!("{DATA}/backups/.work"))).collect();
                assert!(stray.is_empty(), "cut {n} {mode:?} {seed}: {stray:?}");
                cuts += 1;
            }
        }
        println!(
            "{cuts} cuts of {}: {old} without it, {new} with it",
            if increment { "an increment" } else { "a backup" }
        );
        assert!(old > 20 && new > 3);
    }
}

#[test]
fn a_restore_cut_anywhere_leaves_the_old_files_or_the_new_ones() {
    let operations = Identity::generate();
    let settings = settings(&operations);
    let mut m = machine(&settings);
    create::create(&mut m, &settings, true, "T-1").unwrap();
    let archive = archives(&m, &settings)[0].0.clone();
    // Since then: other rows, with a log of their own, and another configuration.
    let old = store(25);
    let m = with(&old, m).with_file("/etc/pyvorin/agent.toml", *b"old = 1\n").after_shutdown();
    let go = |m: &mut SimMachine| {
        let ask = Ask {
            archive: &archive,
            base: None,
            identities: &[&operations],
            config: true,
            any_device: false,
            queue: Queue::All,
            by: "T-1",
        };
        restore(m, &settings, &ask)
    };
    let mut whole = m.clone();
    let done = go(&mut whole).unwrap();
    assert_eq!((rows(&whole), done.config_files), (60, 1));
    assert_eq!(whole.bytes(done.kept.join("1-edge_store/edge_store.db")), Some(old.db.clone()));
    assert_eq!(whole.bytes(done.kept.join("1-edge_store/edge_store.db-wal")), old.wal.clone());
    let (mut cuts, mut olds, mut news) = (0, 0, 0);
    for (mode, seed) in CUTS {
        for n in 1..=whole.op_count() {
            let mut m = m.clone();
            m.cut_after_op(n, mode, seed);
            drop(go(&mut m));
            let mut m = m.after_cut();
            boot::run(&mut m, &settings, &BootRequest::default(), &mut |_| {});
            let config = m.bytes("/etc/pyvorin/agent.toml").unwrap();
            let state = (rows(&m), config == b"new = 1\n");
            assert!(state == (25, false) || state == (60, true), "cut {n} {mode:?} {seed}: a mix: {state:?}");
            assert!(m.bytes(format!("{DATA}/.pyvorin-intent")).is_none(), "cut {n} {mode:?} {seed}");
            let events = boot::events::load(m.as_look(), &settings).unwrap();
            let told = events.events().filter(|e| e.event == "restore").count();
            assert_eq!(told, usize::from(state.0 == 60), "cut {n} {mode:?} {seed}");
            // Whatever became of it, asking again gives the backup.
            go(&mut m).unwrap_or_else(|e| panic!("cut {n} {mode:?} {seed}: {e}"));
            assert_eq!(rows(&m), 60);
            let litter: Vec<_> =
                m.paths().into_iter().filter(|p| p.to_string_lossy().contains("agent.toml.")).collect();
            assert!(litter.is_empty(), "cut {n} {mode:?} {seed}: {litter:?}");
            cuts += 1;
            olds += u32::from(state.0 == 25);
            news += u32::from(state.0 == 60);
        }
    }
    println!("{cuts} cuts of a restore: {olds} old, {news} new");
    assert!(olds > 20 && news > 10);
}

#[test]
fn storage_that_loses_or_alters_what_was_put_in_place_gets_every_original_back() {
    let operations = Identity::generate();
    let settings = settings(&operations);
    let mut m = machine(&settings);
    create::create(&mut m, &settings, true, "T-1").unwrap();
    let archive = archives(&m, &settings)[0].0.clone();
    let old = store(25);
    let m = with(&old, m).with_file("/etc/pyvorin/agent.toml", *b"old = 1\n").after_shutdown();
    let go = |m: &mut SimMachine| {
        let identities: [&dyn age::Identity; 1] = [&operations];
        let ask = Ask {
            archive: &archive,
            base: None,
            identities: &identities,
            config: true,
            any_device: false,
            queue: Queue::All,
            by: "T-1",
        };
        restore(m, &settings, &ask)
    };
    let mut whole = m.clone();
    go(&mut whole).unwrap();
    let (mut altered, mut lost) = (0, 0);
    for n in 1..=whole.op_count() {
        let mut m = m.clone();
        m.cut_after_op(n, CutMode::Applied, 0);
        drop(go(&mut m));
        let mut m = m.after_cut();
        let record = m.bytes(format!("{STATE}/intent")).unwrap_or_default();
        let phase = |word: &str| record.windows(word.len()).any(|w| w == word.as_bytes());
        let staged: Vec<PathBuf> = m
            .paths()
            .into_iter()
            .filter(|p| p.to_string_lossy().contains("agent.toml.") && m.bytes(p).is_some())
            .collect();
        if phase("\"SWAPPED\"") {
            m.write_at(Path::new(DB), 5000, b"rot").unwrap();
            m.sync_file(Path::new(DB)).unwrap();
            altered += 1;
        } else if phase("\"COMMIT\"") && m.bytes(format!("{DB}-wal")).is_none() && !staged.is_empty() {
            // The database may be in place; its configuration cannot be any more.
            m.unlink(&staged[0]).unwrap();
            lost += 1;
        } else {
            continue;
        }
        for _ in 0..2 {
            boot::run(&mut m, &settings, &BootRequest::default(), &mut |_| {});
            let config = m.bytes("/etc/pyvorin/agent.toml");
            assert_eq!((m.bytes(DB), m.bytes(format!("{DB}-wal"))), (Some(old.db.clone()), old.wal.clone()), "cut {n}");
            assert_eq!((rows(&m), config), (25, Some(b"old = 1\n".to_vec())), "cut {n}");
            assert!(m.bytes(format!("{DATA}/.pyvorin-intent")).is_none(), "cut {n}: still open");
        }
        let events = boot::events::load(m.as_look(), &settings).unwrap();
        let told = |word: &str| events.events().filter(|e| e.event == word).count();
        assert_eq!((told("restore"), told("restore_taken_back")), (0, 1), "cut {n}");
    }
    println!("{altered} times altered, {lost} times lost");
    assert!(altered > 0 && lost > 0, "{altered} {lost}");
}

#[test]
fn an_archive_that_goes_is_gone_or_whole_and_leaves_no_signature_behind() {
    let operations = Identity::generate();
    let settings = settings(&operations);
    let mut m = machine(&settings);
    create::create(&mut m, &settings, true, "T-1").unwrap();
    let m = m.after_shutdown();
    let name = archives(&m, &settings)[0].0.file_name().unwrap().to_str().unwrap().to_string();
    let mut whole = m.clone();
    create::remove(&mut whole, &settings, &name).unwrap();
    for (mode, seed) in CUTS {
        for n in 1..=whole.op_count() {
            let mut m = m.clone();
            m.cut_after_op(n, mode, seed);
            drop(create::remove(&mut m, &settings, &name));
            let mut m = m.after_cut();
            archives(&m, &settings).iter().for_each(|(path, _)| opens(&m, &settings, path, &operations));
            create::tidy(&mut m, &settings).unwrap();
            let left = m
                .paths()
                .into_iter()
                .filter(|p| p.starts_with(format!("{DATA}/backups")))
                .filter(|p| m.bytes(p).is_some())
                .count();
            assert!(left == 0 || left == 2, "cut {n} {mode:?} {seed}: {left}");
        }
    }
}

#[test]
fn a_full_disk_fails_the_backup_and_nothing_else() {
    let operations = Identity::generate();
    let settings = settings(&operations);
    let begin = || machine(&settings).after_shutdown();
    let mut whole = begin();
    create::create(&mut whole, &settings, true, "T-1").unwrap();
    for n in 1..=whole.op_count() {
        let mut m = begin().with_failing_op(n, std::io::ErrorKind::StorageFull);
        let made = create::create(&mut m, &settings, true, "T-1");
        let found = archives(&m, &settings);
        found.iter().for_each(|(path, _)| opens(&m, &settings, path, &operations));
        assert!(made.is_err() || found.len() == 1, "call {n}: said to be made, and is not there");
        assert_eq!(rows(&m), 60);
    }
    // Nothing goes for a backup that would not fit all the same.
    let mut m = whole.clone();
    (0..5).for_each(|_| drop(create::create(&mut m, &settings, true, "T-1").unwrap()));
    let before = archives(&m, &settings);
    m.set_free_bytes(1 << 20);
    assert!(matches!(create::create(&mut m, &settings, true, "T-1"), Err(create::Fault::Room(_))));
    assert_eq!((before.len(), archives(&m, &settings)), (6, before));
    let mut m = begin();
    m.set_free_bytes(1 << 20);
    let refused = create::create(&mut m, &settings, true, "T-1");
    assert!(matches!(&refused, Err(create::Fault::Room(why)) if why.contains("MiB are needed")), "{refused:?}");
}

#[test]
fn archives_of_other_devices_are_nobodys_to_count_or_delete_and_an_open_operation_comes_first() {
    let operations = Identity::generate();
    let settings = settings(&operations);
    let mut m = machine(&settings);
    create::create(&mut m, &settings, true, "T-1").unwrap();
    let other = format!("{DATA}/backups/pyvorin-GW-2-20200101T000000Z-000900.tar.zst.age");
    let mut m = m.with_file(&other, *b"theirs").with_file(format!("{other}.minisig"), *b"theirs");
    create::create(&mut m, &settings, false, "T-1").unwrap();
    let found = archives(&m, &settings);
    assert!(found.len() == 2 && found.iter().all(|(p, _)| !p.to_string_lossy().contains("GW-2")), "{found:?}");
    assert!(found[1].0.to_string_lossy().contains("-000002."), "it was counted: {found:?}");
    assert!(m.bytes(&other).is_some() && m.bytes(format!("{other}.minisig")).is_some());
    let mut m = m.with_file(format!("{DATA}/.pyvorin-intent"), *b"open");
    let refused = create::create(&mut m, &settings, true, "T-1").unwrap_err();
    assert!(format!("{refused:?}").contains("still open"), "{refused:?}");
    assert_eq!(archives(&m, &settings).len(), 2);
}
