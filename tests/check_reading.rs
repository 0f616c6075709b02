//! How a check reads: by any number of workers with the same result, past pages that the device does not give, and past
//! the page of the locking bytes in a database larger than a gibibyte.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs
)]

mod support;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pyvorin_recovery::edge::crew::Threads;
use pyvorin_recovery::edge::linux::file;
use pyvorin_recovery::sqlite::ReadAt;
use pyvorin_recovery::sqlite::check::{Alone, Crew, Scope, Structure, SumKey, check_keyed};
use pyvorin_recovery::sqlite::overlay::{Fold, Overlay};
use pyvorin_recovery::sqlite::verdict::Level;
use pyvorin_recovery::sqlite::wal;
use rusqlite::Connection;
use support::odd::odd;
use support::rng::Rng;
use support::site::Scratch;
use support::{Failures, rounds, seeds};

fn full(source: &Overlay<'_>, crew: &dyn Crew) -> Structure {
    check_keyed(source, Scope::Full, SumKey([3, 5]), crew, &mut |_, _| true).unwrap()
}

fn page_size(db: &[u8]) -> u32 {
    let raw = u32::from(u16::from_be_bytes([db[16], db[17]]));
    if raw == 1 { 65536 } else { raw }
}

/// A store of about 14 MB with chains, free pages and indexes: enough runs that threads are worth it.
fn store(path: &Path) -> Vec<u8> {
    let db = Connection::open(path).unwrap();
    db.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b REAL, c BLOB); CREATE INDEX t_a ON t(a, b); CREATE INDEX t_b ON t(b); \
         CREATE TABLE w(k TEXT PRIMARY KEY, n) WITHOUT ROWID; CREATE INDEX w_n ON w(n); \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) \
         INSERT INTO t SELECT i, 'name ' || (i % 977), i * 0.5, zeroblob(CASE i % 50 WHEN 0 THEN 9000 ELSE 20 END) FROM n; \
         INSERT INTO w SELECT 'key ' || id, id FROM t WHERE id < 20000; DELETE FROM t WHERE id BETWEEN 30000 AND 33000",
    )
    .unwrap();
    db.close().unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn any_number_of_workers_finds_the_same() {
    let scratch = Scratch::new("workers");
    let whole = store(&scratch.path().join("a.db"));
    assert!(whole.len() > 12 << 20, "{} bytes are too few for threads", whole.len());
    let mut failures = Failures::default();
    for seed in seeds(1, rounds("WORKERS", 10)) {
        let rng = &mut Rng::new(seed);
        let mut db = whole.clone();
        // From sound over a few pages to so many that findings no longer fit and pages of an object neither.
        let hurt = [0, 1, 3, 10, 100, 3000][rng.below(6)];
        for _ in 0..hurt {
            let page = rng.between(1, db.len() / 4096) * 4096;
            match rng.below(3) {
                0 => db[page..(page + 4096).min(whole.len())].fill(0),
                1 => {
                    let at = (page + rng.below(4096)).min(whole.len() - 1);
                    db[at] ^= 1 << rng.below(8);
                }
                _ => {
                    let from = rng.below(whole.len() / 4096) * 4096;
                    let copy = whole[from..from + 4096].to_vec();
                    let end = (page + 4096).min(whole.len());
                    db[page..end].copy_from_slice(&copy[..end - page]);
                }
            }
        }
        let one = full(&Overlay::alone(&db, 4096), &Alone);
        for threads in [2, 4] {
            let many = full(&Overlay::alone(&db, 4096), &Threads::at_most(threads));
            if many != one {
                let differ = many.findings.iter().zip(&one.findings).find(|(a, b)| a != b);
                failures.add("workers differ", seed, format!("{hurt} pages hurt, {threads} workers: {differ:?}"));
            }
        }
    }
    failures.finish("any number of workers");
}

#[test]
fn a_check_that_is_told_to_stop_stops_with_any_number_of_workers() {
    let scratch = Scratch::new("stopped");
    let db = store(&scratch.path().join("a.db"));
    for threads in [1, 2, 4] {
        let crew = Threads::at_most(threads);
        let mut asked = false;
        let mut go_on = |done: u32, _: u32| {
            assert!(!asked, "it went on after it was told to stop");
            asked = done > 0;
            !asked
        };
        let found = check_keyed(&Overlay::alone(&db, 4096), Scope::Full, SumKey([3, 5]), &crew, &mut go_on).unwrap();
        assert!(found.sound(), "{:?}", found.findings);
        // On a busy machine the others may have done everything before this thread had its turn.
        assert!(asked || threads > 1);
        assert_eq!(found.out_of_time, asked);
    }
}

/// Bytes on a device with bad pages: a read that touches one fails, as read(2) does with EIO.
struct Failing<'a> {
    bytes: &'a [u8],
    bad: Vec<u64>,
    page_size: u64,
}

impl ReadAt for Failing<'_> {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let end = offset + buf.len() as u64;
        let touches = |page: &u64| (page - 1) * self.page_size < end && page * self.page_size > offset;
        if self.bad.iter().any(touches) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.bytes.read_at(offset, buf)
    }
}

/// The roots of the schema and the kind of every page of the freelist, as the file says: trunk pages and leaves.
fn free_leaves(db: &[u8], size: usize) -> Vec<u32> {
    let word = |at: usize| u32::from_be_bytes(db[at..at + 4].try_into().unwrap());
    let mut leaves = Vec::new();
    let mut trunk = word(32) as usize;
    while trunk != 0 {
        let at = (trunk - 1) * size;
        leaves.extend((0..word(at + 4) as usize).map(|i| word(at + 8 + 4 * i)));
        trunk = word(at) as usize;
    }
    leaves
}

#[test]
fn a_page_that_cannot_be_read_is_a_finding_with_its_number_and_the_rest_is_checked() {
    let mut failures = Failures::default();
    let (mut pages, mut free) = (0, 0);
    for seed in seeds(1, rounds("UNREADABLE", 12)) {
        let o = odd(seed, 120);
        if o.wal.is_some() {
            continue;
        }
        let size = page_size(&o.db);
        let lock = (1 << 30) / size + 1;
        let unused = free_leaves(&o.db, size as usize);
        let last = u32::try_from(o.db.len()).unwrap() / size;
        for page in (2..=last.min(150)).filter(|p| *p != lock) {
            let db = Failing { bytes: &o.db, bad: vec![u64::from(page)], page_size: u64::from(size) };
            let found = full(&Overlay::alone(&db, size), &Alone);
            let of_it = found.findings.iter().find(|f| f.page == Some(page) && f.message.contains("cannot be read"));
            let text = || format!("{}: page {page}: {:?}", o.about, found.findings.iter().take(4).collect::<Vec<_>>());
            pages += 1;
            if unused.contains(&page) {
                free += 1;
                let told = found.findings.iter().any(|f| f.code == "free-page-unreadable" && f.level == Level::Warning);
                if !found.sound() || !told {
                    failures.add("a free page that cannot be read is damage, or is not told", seed, text());
                }
            } else {
                let schema =
                    found.findings.iter().any(|f| f.code == "schema-damaged" && f.message.contains("cannot be read"));
                if found.sound() || (of_it.is_none() && !schema) {
                    failures.add("a page that cannot be read goes unnoticed", seed, text());
                }
                if found.findings.iter().any(|f| f.code == "page-missing" || f.code == "device-failing") {
                    failures.add("a page that cannot be read is said to be missing", seed, text());
                }
                if found.findings.iter().filter(|f| f.code == "page-unreadable").count() > 1 {
                    failures.add("it is told twice", seed, text());
                }
            }
        }
        let db = Failing { bytes: &o.db, bad: vec![1], page_size: u64::from(size) };
        let failed = check_keyed(&Overlay::alone(&db, size), Scope::Full, SumKey([1, 2]), &Alone, &mut |_, _| true);
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(5), "without page 1 nothing is known");
    }
    println!("{pages} pages that cannot be read, {free} of them free");
    assert!(pages > 200 && free > 0);
    failures.finish("unreadable pages");
}

#[test]
fn damage_beside_pages_that_cannot_be_read_is_still_found_and_a_dead_device_is_given_up() {
    let scratch = Scratch::new("failing");
    let mut bytes = store(&scratch.path().join("a.db"));
    let pages = bytes.len() as u64 / 4096;
    // Two leaves beside each other near the end: the one that cannot be read stands in the same run of pages.
    let free = free_leaves(&bytes, 4096);
    let leaf = |page: usize| matches!(bytes[(page - 1) * 4096], 10 | 13) && !free.contains(&(page as u32));
    let is_leaf = |n: &u64| leaf(*n as usize) && leaf(*n as usize + 1);
    let hurt = (pages / 2..pages).find(is_leaf).unwrap();
    bytes[(hurt as usize - 1) * 4096] = 0;
    let db = Failing { bytes: &bytes, bad: vec![hurt + 1], page_size: 4096 };
    for threads in [1, 2] {
        let found = full(&Overlay::alone(&db, 4096), &Threads::at_most(threads));
        let on = |page: u64| {
            found.findings.iter().filter(move |f| f.page == u32::try_from(page).ok()).map(|f| f.code.as_str())
        };
        assert_eq!(on(hurt).collect::<Vec<_>>(), ["page-damaged"], "{:?}", found.findings);
        assert_eq!(on(hurt + 1).collect::<Vec<_>>(), ["page-unreadable"], "{:?}", found.findings);
    }
    // Every page from the middle on: each may cost seconds, so they are not all tried.
    let db = Failing { bytes: &bytes, bad: (pages / 2..=pages).collect(), page_size: 4096 };
    let found = full(&Overlay::alone(&db, 4096), &Alone);
    assert!(found.findings.iter().any(|f| f.code == "page-unreadable"));
    assert!(found.out_of_time && !found.sound());
}

#[test]
fn a_check_of_a_dying_device_looks_at_the_clock_between_two_failed_reads() {
    let scratch = Scratch::new("dying");
    let bytes = store(&scratch.path().join("a.db"));
    let pages = bytes.len() as u64 / 4096;
    let db = Failing { bytes: &bytes, bad: (pages / 2..=pages).collect(), page_size: 4096 };
    // Asked again without progress means a failed read; time is up at the third.
    let (mut again, mut last) = (0, 0);
    let mut go_on = |done: u32, _: u32| {
        again = if done == last && done > 0 { again + 1 } else { 0 };
        last = done;
        again < 3
    };
    let found = check_keyed(&Overlay::alone(&db, 4096), Scope::Full, SumKey([3, 5]), &Alone, &mut go_on).unwrap();
    assert!(found.out_of_time);
    let failed = found.findings.iter().filter(|f| f.code.ends_with("page-unreadable")).count();
    assert!((1..=3).contains(&failed), "{failed}: {:?}", found.findings);
}

#[test]
fn a_frame_that_cannot_be_read_is_a_finding_of_its_page() {
    let o = (1..200).map(|seed| odd(seed, 150)).find(|o| o.wal.as_ref().is_some_and(|w| w.len() > 8192)).unwrap();
    let log = o.wal.unwrap();
    let scan = wal::scan(&log, None).unwrap();
    let (upto, pages) = scan.last_commit(scan.prefix());
    let sum = scan.frame(upto).unwrap().stored;
    let fold = Fold { page_size: scan.page_size, frames: vec![(1, upto)], upto, pages, sum, mends: Vec::new() };
    let page = scan.frame(upto).unwrap().page;
    // Pages of the device are counted in frames here: the last frame begins behind the header and those before it.
    let at = 32 + u64::from(upto - 1) * (u64::from(scan.page_size) + 24) + 24;
    struct Tail<'a>(&'a Vec<u8>, u64);
    impl ReadAt for Tail<'_> {
        fn size(&self) -> u64 {
            self.0.size()
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
            if offset + buf.len() as u64 > self.1 {
                Err(io::Error::from_raw_os_error(5))
            } else {
                self.0.read_at(offset, buf)
            }
        }
    }
    let bad = Tail(&log, at);
    let result = check_keyed(
        &Overlay::folded(Some(&o.db), &bad, &scan, &fold),
        Scope::Full,
        SumKey([1, 2]),
        &Alone,
        &mut |_, _| true,
    );
    match result {
        Err(e) => assert!(page == 1 && e.raw_os_error() == Some(5)),
        Ok(found) => assert!(
            found.findings.iter().any(|f| f.message.contains("cannot be read")),
            "page {page} of the log: {:?}",
            found.findings
        ),
    }
}

/// Where the pointer map of an auto-vacuum database has the entry of a page, as `ptrmapPageno` of the engine has it.
fn map_of(page: u64, size: u64) -> u64 {
    let span = size / 5 + 1;
    let map = (page - 2) / span * span + 2;
    if map == (1 << 30) / size + 1 { map + 1 } else { map }
}

/// A database that ends beyond the page of the locking bytes: the engine's own small one, with one leaf moved to its new
/// end and everything between on the freelist, where the file may have holes. Gives its length in pages.
fn beyond_the_locking_bytes(path: &Path, size: u64, auto_vacuum: bool) -> u64 {
    let db = Connection::open(path).unwrap();
    db.execute_batch(&format!(
        "PRAGMA page_size = {size}; PRAGMA auto_vacuum = {}; CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT); CREATE INDEX i ON t(a); \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO t SELECT i, 'some longer text ' || i FROM n",
        if auto_vacuum { 2 } else { 0 }
    ))
    .unwrap();
    let root: i64 = db.query_row("SELECT rootpage FROM sqlite_schema WHERE name = 't'", [], |r| r.get(0)).unwrap();
    db.close().unwrap();
    let root = root.unsigned_abs();
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let held = file.metadata().unwrap().len() / size;
    let word = |at: u64| {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from(u32::from_be_bytes(bytes))
    };
    let put = |at: u64, value: u64| file.write_all_at(&u32::try_from(value).unwrap().to_be_bytes(), at).unwrap();
    let lock = (1 << 30) / size + 1;
    let end = lock + 40;
    file.set_len(end * size).unwrap();
    let right_at = (root - 1) * size + 8;
    let old = word(right_at);
    let mut leaf = vec![0; size as usize];
    file.read_exact_at(&mut leaf, (old - 1) * size).unwrap();
    assert_eq!(leaf[0], 13, "the right-most child of the root is a leaf of a table");
    file.write_all_at(&leaf, (end - 1) * size).unwrap();
    put(right_at, end);
    let is_map = |page: u64| auto_vacuum && page >= 2 && map_of(page, size) == page;
    assert!(!is_map(end));
    let free: Vec<u64> = (held + 1..end).chain([old]).filter(|p| *p != lock && !is_map(*p)).collect();
    let per_trunk = (size / 4 - 8) as usize + 1;
    let mut next = 0;
    for chunk in free.chunks(per_trunk) {
        let mut trunk: Vec<u8> = Vec::new();
        for n in [next, chunk.len() as u64 - 1].iter().chain(&chunk[1..]) {
            trunk.extend(u32::try_from(*n).unwrap().to_be_bytes());
        }
        file.write_all_at(&trunk, (chunk[0] - 1) * size).unwrap();
        next = chunk[0];
    }
    put(28, end);
    put(32, next);
    put(36, free.len() as u64);
    put(92, word(24));
    if auto_vacuum {
        let entry = |page: u64, kind: u8, parent: u64| {
            let at = (map_of(page, size) - 1) * size + 5 * (page - map_of(page, size) - 1);
            let mut bytes = vec![kind];
            bytes.extend(u32::try_from(parent).unwrap().to_be_bytes());
            file.write_all_at(&bytes, at).unwrap();
        };
        free.iter().for_each(|page| entry(*page, 2, 0));
        entry(end, 5, root);
    }
    end
}

fn by_engine(path: &Path) -> String {
    let uri = format!("file:{}?immutable=1", path.display());
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_URI;
    support::engine::integrity(&Connection::open_with_flags(uri, flags).unwrap())
}

/// With pages of 64 KiB the file is quick to read; with those of 1024 bytes the page of the locking bytes is where a
/// pointer map should stand, which then moves one up.
#[test]
fn a_database_beyond_the_locking_bytes_is_checked_right() {
    for (size, auto_vacuum) in [(65536, false), (65536, true), (1024, true)] {
        let scratch = Scratch::new("locking");
        let path = scratch.path().join("big.db");
        let end = beyond_the_locking_bytes(&path, size, auto_vacuum);
        let lock = (1 << 30) / size + 1;
        if size == 1024 {
            assert_eq!(map_of(lock + 5, size), lock + 1, "this size was chosen because they meet");
        }
        let ours = || {
            let db = file::open(&path).unwrap();
            full(&Overlay::alone(&db, u32::try_from(size).unwrap()), &Threads::available())
        };
        assert_eq!(by_engine(&path), "ok", "{size} {auto_vacuum}");
        let found = ours();
        assert!(found.sound(), "{size} {auto_vacuum}: {:?}", found.findings);
        assert_eq!(u64::from(found.pages), end);
        assert_eq!(found.schema.iter().map(|e| e.entries).collect::<Vec<_>>(), [Some(3000), Some(3000)]);
        // The page of the locking bytes holds nothing, so whatever stands in it is no damage.
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[13; 100], (lock - 1) * size).unwrap();
        assert_eq!(by_engine(&path), "ok");
        assert!(ours().sound());
        // A leaf beyond it that is damaged is.
        file.write_all_at(&[0; 8], (end - 1) * size).unwrap();
        assert_ne!(by_engine(&path), "ok");
        assert!(ours().findings.iter().any(|f| f.page.map(u64::from) == Some(end)), "{size} {auto_vacuum}");
    }
}

#[test]
fn a_freelist_that_gives_out_the_page_of_the_locking_bytes_is_damage() {
    let scratch = Scratch::new("lock-free");
    let path = scratch.path().join("big.db");
    beyond_the_locking_bytes(&path, 65536, false);
    let mut word = [0; 4];
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.read_exact_at(&mut word, 32).unwrap();
    let trunk = u64::from(u32::from_be_bytes(word));
    file.write_all_at(&16385_u32.to_be_bytes(), (trunk - 1) * 65536 + 8).unwrap();
    let db = file::open(&path).unwrap();
    let found = full(&Overlay::alone(&db, 65536), &Alone);
    assert!(
        found.findings.iter().any(|f| f.code == "page-used-twice" && f.page == Some(16385)),
        "{:?}",
        found.findings
    );
}
