//! Salvage against the truth of the writer: two schemas, the damages of the field, and what must come back.
//!
//! The store has 100 000 rows and an index. The other schema has everything that makes owners hard to tell: two tables of
//! the same shape with the same rowids, rows that spill, a WITHOUT ROWID table, UTF-16, pages of 1 KiB, auto-vacuum, deleted
//! rows on the freelist. Truth is read from the database before it is damaged, by the engine; which pages are intact is
//! known because the damage is ours.
//!
//! Measured for each: rows on intact pages that are in their named table with every value as it was, rows that were never
//! written, index entries among the rows, and what the loss manifest says of the missing ids. What it can say at best is
//! computed from the truth: an id can be named by an index only if one of its entries stands on a page that is intact.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, missing_docs)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pyvorin_recovery::edge::engine;
use pyvorin_recovery::sqlite::salvage::catalog::Entry;
use pyvorin_recovery::sqlite::salvage::loss::TableLoss;
use pyvorin_recovery::sqlite::salvage::spans::Spans;
use pyvorin_recovery::sqlite::salvage::{Facts, Input, Report, SavedSchema};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use support::rng::Rng;
use support::site::Scratch;

const STORE: &str = "
CREATE TABLE readings (id INTEGER PRIMARY KEY AUTOINCREMENT, sensor_name TEXT NOT NULL, timestamp REAL NOT NULL,
  value REAL NOT NULL, unit TEXT, metadata TEXT);
CREATE INDEX idx_readings_sensor_time ON readings(sensor_name, timestamp);
";

const OTHER: &str = "
CREATE TABLE events (id INTEGER PRIMARY KEY, rule TEXT NOT NULL, at REAL NOT NULL, severity TEXT, message TEXT,
  body BLOB);
CREATE TABLE hot (unit TEXT NOT NULL, at REAL NOT NULL, value REAL);
CREATE TABLE cold (unit TEXT NOT NULL, at REAL NOT NULL, value REAL);
CREATE TABLE tags (name TEXT, key TEXT, note TEXT, n INTEGER, PRIMARY KEY (name, key)) WITHOUT ROWID;
CREATE INDEX events_rule ON events(rule, at);
CREATE INDEX hot_at ON hot(at, unit);
CREATE INDEX cold_at ON cold(at, unit);
CREATE VIEW worst AS SELECT * FROM events WHERE severity = 'critical';
";

/// A value, bit by bit.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Integer(i64),
    Real(u64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl Value {
    fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(i) => Self::Integer(i),
            ValueRef::Real(r) => Self::Real(r.to_bits()),
            ValueRef::Text(t) => Self::Text(t.to_vec()),
            ValueRef::Blob(b) => Self::Blob(b.to_vec()),
        }
    }
}

/// A row by its table and key, with all its values.
type Rows = BTreeMap<(String, String), Vec<Value>>;

struct Truth {
    bytes: Vec<u8>,
    page_size: usize,
    rows: Rows,
    /// Which page holds which row (for rows without overflow: the leaf; with: also every page of the chain).
    pages: BTreeMap<(String, String), Vec<u32>>,
    /// Which index pages have an entry of which row.
    entries: BTreeMap<(String, String), Vec<u32>>,
    /// Pages by what they are.
    leaves: Vec<u32>,
    interior: Vec<u32>,
    index_pages: BTreeSet<u32>,
    /// Parent of each page of a tree; the trunks of the freelist; whether pointer maps stand in the file.
    parents: BTreeMap<u32, u32>,
    trunks: Vec<u32>,
    maps: bool,
    schema: SavedSchema,
}

impl Truth {
    /// True where an intact page of a tree can be told from a freed one: nothing was ever freed or the list of what was is
    /// there, the page's entry in a pointer map is, or its parents are up to the root.
    fn provable(&self, page: u32, d: &Damaged) -> bool {
        let there = |p: &u32| !d.pages.contains(p);
        let span = self.page_size as u32 / 5 + 1;
        let map = (page - 2) / span * span + 2;
        let mut up = std::iter::successors(self.parents.get(&page), |p| self.parents.get(p));
        self.trunks.iter().all(there) || (self.maps && there(&map)) || up.all(there)
    }
}

fn read_rows(db: &Connection) -> Rows {
    let mut rows = Rows::new();
    let mut list = db
        .prepare("SELECT name, wr FROM pragma_table_list WHERE type = 'table' AND schema = 'main' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE 'lost\\_%' ESCAPE '\\'")
        .unwrap();
    let tables: Vec<(String, bool)> =
        list.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap().map(Result::unwrap).collect();
    for (table, keyed) in tables {
        let key = if keyed { "name || '/' || key" } else { "rowid" };
        let mut all =
            db.prepare(&format!("SELECT {key}, * FROM \"{}\" NOT INDEXED", table.replace('"', "\"\""))).unwrap();
        let n = all.column_count();
        let mut cursor = all.query([]).unwrap();
        while let Some(row) = cursor.next().unwrap() {
            let key = match row.get_ref(0).unwrap() {
                ValueRef::Integer(i) => i.to_string(),
                ValueRef::Text(t) => String::from_utf8_lossy(t).into_owned(),
                other => panic!("{other:?}"),
            };
            let values = (1..n).map(|i| Value::of(row.get_ref(i).unwrap())).collect();
            rows.insert((table.clone(), key), values);
        }
    }
    rows
}

fn open(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

/// Reads the truth of a database file: rows, and where each lies, by a b-tree walk of the test's own.
fn truth(path: &Path) -> Truth {
    let bytes = std::fs::read(path).unwrap();
    let db = open(path);
    let rows = read_rows(&db);
    let page_size = db.query_row("PRAGMA page_size", [], |r| r.get::<_, u32>(0)).unwrap() as usize;
    let mut truth = Truth {
        page_size,
        rows,
        pages: BTreeMap::new(),
        entries: BTreeMap::new(),
        leaves: Vec::new(),
        interior: Vec::new(),
        index_pages: BTreeSet::new(),
        parents: BTreeMap::new(),
        trunks: Vec::new(),
        maps: be(&bytes, 52, 4) != 0,
        schema: SavedSchema::default(),
        bytes,
    };
    let mut trunk = be(&truth.bytes, 32, 4);
    while trunk != 0 {
        truth.trunks.push(trunk as u32);
        trunk = be(&truth.bytes, (trunk - 1) * page_size, 4);
    }
    let mut list = db.prepare("SELECT type, name, tbl_name, rootpage, coalesce(sql, '') FROM sqlite_master").unwrap();
    let entries: Vec<Entry> = list
        .query_map([], |r| {
            Ok(Entry { kind: r.get(0)?, name: r.get(1)?, table: r.get(2)?, root: r.get(3)?, sql: r.get(4)? })
        })
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for e in entries.iter().filter(|e| e.root > 0) {
        let keyed = e.sql.to_uppercase().contains("WITHOUT ROWID");
        let what = match e.kind.as_str() {
            "table" if keyed => What::Keyed,
            "table" => What::Table(&e.name),
            _ => What::Index(&e.table),
        };
        walk(&mut truth, e.root, what);
    }
    if truth.rows.keys().any(|(t, _)| t == "tags") {
        // Rows of the keyed table by page, through the engine's own order: only whether all its pages are intact is used.
        truth.index_pages.extend(entries.iter().filter(|e| e.kind == "index").map(|e| e.root));
    }
    let facts = Facts { page_size: page_size as u32, ..Facts::default() };
    truth.schema = SavedSchema { facts, entries };
    truth
}

fn be(bytes: &[u8], at: usize, n: usize) -> usize {
    bytes[at..at + n].iter().fold(0, |a, b| a << 8 | usize::from(*b))
}

fn varint(bytes: &[u8], at: usize) -> (u64, usize) {
    let mut v = 0_u64;
    for i in 0..8 {
        v = v << 7 | u64::from(bytes[at + i] & 0x7f);
        if bytes[at + i] & 0x80 == 0 {
            return (v, i + 1);
        }
    }
    (v << 8 | u64::from(bytes[at + 8]), 9)
}

#[derive(Clone, Copy)]
enum What<'a> {
    Table(&'a str),
    Keyed,
    Index(&'a str),
}

fn walk(truth: &mut Truth, page: u32, what: What<'_>) {
    let size = truth.page_size;
    let base = (page as usize - 1) * size;
    let bytes = truth.bytes[base..base + size].to_vec();
    let head = if page == 1 { 100 } else { 0 };
    let (kind, cells) = (bytes[head], be(&bytes, head + 3, 2));
    let leaf = kind == 10 || kind == 13;
    if leaf {
        truth.leaves.push(page)
    } else {
        truth.interior.push(page)
    }
    if matches!(what, What::Index(_)) {
        truth.index_pages.insert(page);
    }
    let pointers = head + if leaf { 8 } else { 12 };
    for i in 0..cells {
        let at = be(&bytes, pointers + 2 * i, 2);
        if !leaf {
            truth.parents.insert(be(&bytes, at, 4) as u32, page);
            walk(truth, be(&bytes, at, 4) as u32, what);
        }
        match what {
            What::Index(table) => {
                let at = if leaf { at } else { at + 4 };
                let (len, n) = varint(&bytes, at);
                // The rowid of an entry that spills lies elsewhere; the matrix has none.
                if len as usize > (size - 12) * 64 / 255 - 23 {
                    continue;
                }
                let id = last_integer(&bytes[at + n..at + n + len as usize]);
                truth.entries.entry((table.to_string(), id.to_string())).or_default().push(page);
            }
            What::Table(name) if leaf => {
                let (len, n) = varint(&bytes, at);
                let (id, m) = varint(&bytes, at + n);
                let mut pages = vec![page];
                let (len, usable) = (len as usize, size);
                if len > usable - 35 {
                    let min = (usable - 12) * 32 / 255 - 23;
                    let k = min + (len - min) % (usable - 4);
                    let local = if k <= usable - 35 { k } else { min };
                    let mut next = be(&bytes, at + n + m + local, 4);
                    while next != 0 {
                        pages.push(next as u32);
                        next = be(&truth.bytes, (next - 1) * size, 4);
                    }
                }
                truth.pages.insert((name.to_string(), (id as i64).to_string()), pages);
            }
            _ => {}
        }
    }
    if !leaf {
        truth.parents.insert(be(&bytes, head + 8, 4) as u32, page);
        walk(truth, be(&bytes, head + 8, 4) as u32, what);
    }
}

/// The last value of a record, which is an integer: the rowid that ends an index entry.
fn last_integer(record: &[u8]) -> i64 {
    let (header, mut at) = varint(record, 0);
    let mut serial = 0;
    while at < header as usize {
        let (s, n) = varint(record, at);
        (serial, at) = (s, at + n);
    }
    let len = [0, 1, 2, 3, 4, 6, 8].get(serial as usize).copied().unwrap_or(0);
    match serial {
        8 | 9 => serial as i64 - 8,
        _ => be(record, record.len() - len, len) as i64,
    }
}

fn store(rows: u32) -> Truth {
    let scratch = Scratch::new("store");
    let path = scratch.path().join("a.db");
    let mut db = Connection::open(&path).unwrap();
    db.execute_batch(&format!("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA user_version=7; {STORE}"))
        .unwrap();
    let mut rng = Rng::new(1);
    let t = db.transaction().unwrap();
    {
        let mut insert = t
            .prepare("INSERT INTO readings(sensor_name, timestamp, value, unit, metadata) VALUES (?1, ?2, ?3, ?4, ?5)")
            .unwrap();
        for n in 0..rows {
            let value = if n % 11 == 0 { f64::from(n % 40) } else { rng.below(1 << 30) as f64 / 7e6 };
            let at = 1_717_000_000.0 + f64::from(n) + rng.below(1000) as f64 / 1000.0;
            let meta = format!("{{\"seq\": {n}, \"quality\": 0.{}}}", rng.below(1000));
            insert.execute((format!("temp.warehouse.{}", n % 7), at, value, "°C", meta)).unwrap();
        }
    }
    t.commit().unwrap();
    db.close().unwrap();
    truth(&path)
}

fn other(rows: u32) -> Truth {
    other_with(rows, "FULL")
}

fn other_with(rows: u32, auto_vacuum: &str) -> Truth {
    let scratch = Scratch::new("other");
    let path = scratch.path().join("b.db");
    let mut db = Connection::open(&path).unwrap();
    db.execute_batch(&format!(
        "PRAGMA page_size=1024; PRAGMA encoding='UTF-16le'; PRAGMA auto_vacuum={auto_vacuum}; PRAGMA application_id=77;
         PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; {OTHER}"
    ))
    .unwrap();
    let mut rng = Rng::new(2);
    let t = db.transaction().unwrap();
    let mut body = vec![0; 3000];
    {
        let prepare = |sql| t.prepare(sql).unwrap();
        let mut hot = prepare("INSERT INTO hot VALUES (?1, ?2, ?3)");
        let mut cold = prepare("INSERT INTO cold VALUES (?1, ?2, ?3)");
        let mut events = prepare("INSERT INTO events(rule, at, severity, message, body) VALUES (?1, ?2, ?3, ?4, ?5)");
        let mut tags = prepare("INSERT INTO tags VALUES (?1, ?2, ?3, ?4)");
        for n in 0..rows {
            let at = 1_717_000_000.5 + f64::from(n);
            hot.execute((format!("u{}", n % 5), at, f64::from(n) / 3.0)).unwrap();
            cold.execute((format!("u{}", n % 5), at + 0.25, f64::from(n) / 5.0)).unwrap();
            if n % 8 == 0 {
                let len = rng.between(0, 2900);
                rng.fill(&mut body[..len]);
                let message = "überhitzt ".repeat(rng.between(1, 60));
                let severity = ["info", "critical"][n as usize % 2];
                events.execute((format!("rule.{}", n % 13), at, severity, message, &body[..len])).unwrap();
                tags.execute((format!("n{}", n % 97), format!("k{n}"), "🌡".repeat(n as usize % 9), n)).unwrap();
            }
        }
    }
    t.commit().unwrap();
    if auto_vacuum == "FULL" {
        db.execute_batch("PRAGMA auto_vacuum=INCREMENTAL").unwrap();
    }
    // Deleted rows whose pages stay in the file: they must not come back.
    db.execute("DELETE FROM hot WHERE rowid BETWEEN 500 AND 1500", []).unwrap();
    db.execute("DELETE FROM events WHERE id BETWEEN 50 AND 120", []).unwrap();
    db.close().unwrap();
    truth(&path)
}

/// A damage: the pages it destroys, and the bytes after it.
struct Damaged {
    bytes: Vec<u8>,
    pages: BTreeSet<u32>,
}

fn damage(truth: &Truth, name: &str, seed: u64) -> Damaged {
    let mut rng = Rng::new(seed);
    let size = truth.page_size;
    let count = (truth.bytes.len() / size) as u32;
    let mut d = Damaged { bytes: truth.bytes.clone(), pages: BTreeSet::new() };
    let ruin = |d: &mut Damaged, page: u32, rng: &mut Rng, zero: bool| {
        let at = (page as usize - 1) * size;
        if zero {
            d.bytes[at..at + size].fill(0)
        } else {
            rng.fill(&mut d.bytes[at..at + size])
        }
        d.pages.insert(page);
    };
    let (what, how) = name.split_once(' ').unwrap_or((name, ""));
    match what {
        "1%" | "5%" | "20%" => {
            let percent: u32 = what.trim_end_matches('%').parse().unwrap();
            // Page 1 has damages of its own.
            while (d.pages.len() as u32) < count * percent / 100 {
                let page = 2 + rng.below(count as usize - 1) as u32;
                if !d.pages.contains(&page) {
                    ruin(&mut d, page, &mut rng, how == "zeroed");
                }
            }
        }
        "interior" => {
            let all: Vec<u32> = truth.interior.iter().copied().filter(|p| !truth.index_pages.contains(p)).collect();
            for page in all {
                ruin(&mut d, page, &mut rng, true);
            }
        }
        "page1" => ruin(&mut d, 1, &mut rng, how == "zeroed"),
        "header" => rng.fill(&mut d.bytes[..100]),
        "first512" => rng.fill(&mut d.bytes[..512]),
        "half" => {
            let keep = d.bytes.len() / 2;
            d.bytes.truncate(keep);
            d.pages = (1..=count).filter(|p| *p as usize * size > keep).collect();
        }
        "bits" => {
            let leaves: Vec<u32> = truth.leaves.iter().copied().filter(|p| *p != 1).collect();
            while d.pages.len() < 50.min(leaves.len()) {
                let page = leaves[rng.below(leaves.len())];
                if d.pages.insert(page) {
                    let bit = rng.below(size * 8);
                    d.bytes[(page as usize - 1) * size + bit / 8] ^= 1 << (bit % 8);
                }
            }
        }
        other => panic!("{other}"),
    }
    d
}

/// What came back, measured against the truth.
#[derive(Debug, Default)]
struct Score {
    intact: usize,
    intact_back: usize,
    exact: usize,
    altered: usize,
    invented: usize,
    lost: usize,
    /// Lost ids that an index of the file can still name; that the manifest names by an index; that it names at all.
    at_best: usize,
    by_index: usize,
    named: usize,
    /// Lost ids that are in the manifest, if only within a range.
    ranged: usize,
    stray: u64,
    integrity: String,
    /// What the report says that is not so.
    untrue: Vec<String>,
}

impl Score {
    fn of_lost(&self, n: usize) -> f64 {
        100.0 * n as f64 / self.lost.max(1) as f64
    }
}

/// Into a file, as the program does it.
fn salvage(bytes: &[u8], schemas: Vec<(String, SavedSchema)>) -> (Vec<u8>, Report) {
    let bytes = bytes.to_vec();
    let input = Input { db: Some(&bytes), schemas, ..Input::default() };
    let scratch = Scratch::new("salvaged");
    let out = scratch.path().join("out.db");
    let report = engine::salvage_file(&input, &out, scratch.path(), &mut |_| {}).unwrap();
    (std::fs::read(out).unwrap(), report)
}

/// Into memory, where every row goes through the engine.
fn salvage_in_memory(bytes: &[u8]) -> (Vec<u8>, Report) {
    let bytes = bytes.to_vec();
    let input = Input { db: Some(&bytes), ..Input::default() };
    engine::salvage_bytes(&input, &mut |_| {}).unwrap()
}

fn score(truth: &Truth, d: &Damaged, schemas: Vec<(String, SavedSchema)>, bits: bool) -> (Score, Report) {
    let mut lost_keyed = 0;
    let (out, report) = salvage(&d.bytes, schemas);
    let scratch = Scratch::new("out");
    let path = scratch.path().join("out.db");
    std::fs::write(&path, &out).unwrap();
    let db = open(&path);
    let back = read_rows(&db);
    let mut s = Score { integrity: support::engine::integrity(&db), ..Score::default() };
    for (key, values) in &truth.rows {
        // Rows of the keyed table lie on pages that the walk does not list; they are asked for in a test of their own.
        let intact = truth.pages.get(key).is_some_and(|p| p.iter().all(|p| !d.pages.contains(p)));
        s.intact += usize::from(intact);
        match back.get(key) {
            Some(found) if found == values => {
                s.exact += 1;
                s.intact_back += usize::from(intact);
            }
            Some(_) => s.altered += 1,
            None if truth.pages.contains_key(key) => {
                s.lost += 1;
                let id: i64 = key.1.parse().unwrap();
                let there = |p: &u32| !d.pages.contains(p) && truth.provable(*p, d);
                s.at_best += usize::from(truth.entries.get(key).is_some_and(|pages| pages.iter().any(there)));
                let loss = report.loss.iter().find(|l| l.table == key.0);
                let is = |f: fn(&TableLoss) -> &Spans| loss.is_some_and(|l| f(l).has(id));
                s.by_index += usize::from(is(|l| &l.named));
                s.named += usize::from(is(|l| &l.named) || is(|l| &l.numbered));
                s.ranged += usize::from(is(|l| &l.named) || is(|l| &l.possible));
            }
            None => lost_keyed += 1,
        }
    }
    // A changed bit of a key makes another key of it: an altered row, as far as its page goes.
    let strange = back.keys().filter(|k| !truth.rows.contains_key(*k)).count();
    let rekeyed = if bits { strange.min(s.lost + lost_keyed) } else { 0 };
    s.altered += rekeyed;
    s.invented = strange - rekeyed;
    s.stray = report.lost_and_found.rows;
    // What became of a row whose key was changed is not known to a report.
    s.untrue = if rekeyed > 0 { Vec::new() } else { untrue(truth, &back, &report) };
    (s, report)
}

/// Counts and bounds that do not hold, and ids named that were never lost.
fn untrue(truth: &Truth, back: &Rows, report: &Report) -> Vec<String> {
    let mut wrong = Vec::new();
    for t in &report.tables {
        let lost =
            truth.rows.keys().filter(|(name, _)| *name == t.name).filter(|key| !back.contains_key(*key)).count() as u64;
        if t.lost.is_some_and(|n| n != lost) || t.lost_at_most.is_some_and(|n| n < lost) {
            wrong.push(format!("{}: {lost} rows are lost, the report says {:?}, {:?}", t.name, t.lost, t.lost_at_most));
        }
        if t.lost.is_none() && t.lost_at_most.is_none() {
            wrong.push(format!("{}: the loss of {lost} rows is neither counted nor bounded", t.name));
        }
    }
    for loss in &report.loss {
        let ids = |spans: &Spans| -> Vec<i64> { spans.intervals().iter().flat_map(|(a, b)| *a..=*b).collect() };
        for (how, spans) in [("an index", &loss.named), ("the numbering", &loss.numbered)] {
            let never = ids(spans).into_iter().find(|id| {
                let key = (loss.table.clone(), id.to_string());
                !truth.rows.contains_key(&key) || back.contains_key(&key)
            });
            wrong.extend(never.map(|id| format!("{}: {id} was not lost, and {how} is said to name it", loss.table)));
        }
    }
    wrong
}

const DAMAGES: [&str; 13] = [
    "1% zeroed",
    "1% random",
    "5% zeroed",
    "5% random",
    "20% zeroed",
    "20% random",
    "interior",
    "page1 zeroed",
    "page1 random",
    "header",
    "first512",
    "half",
    "bits",
];

/// Without page 1 only what was saved at the last good boot knows the names.
fn needs_schema(what: &str, damage: &str) -> bool {
    what == "other" || damage.starts_with("page1")
}

/// Of the ids that the surviving entries can name, so many at least are named.
const OF_BEST: f64 = 0.999;

/// What a damage asks of the manifest, in percent of the lost ids. An index can name no id whose entries are gone with their
/// pages, so where luck took more of them, all that are left are asked for instead.
fn threshold(damage: &str) -> f64 {
    match damage.split(' ').next() {
        Some("1%" | "5%") => 95.0,
        Some("20%") => 79.0,
        _ => 0.0,
    }
}

fn run(truth: &Truth, what: &str, seeds: std::ops::Range<u64>, failures: &mut support::Failures) {
    println!(
        "{what}: damage, rows on intact pages back / there, altered, invented, lost, named by an index (at best), \
         named at all, in ranges, strays"
    );
    let mut sums: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for name in DAMAGES {
        for seed in seeds.clone() {
            let d = damage(truth, name, seed);
            let saved =
                needs_schema(what, name).then(|| ("saved at the last good boot".to_string(), truth.schema.clone()));
            let (s, report) = score(truth, &d, saved.into_iter().collect(), name == "bits");
            println!(
                "  {name:<13} {:>6} / {:<6} altered {:<2} invented {:<2} lost {:>5} by index {:>5.1} % ({:>5.1}) named {:>5.1} % \
                 ranges {:>5.1} % strays {:>4} {:?}",
                s.intact_back,
                s.intact,
                s.altered,
                s.invented,
                s.lost,
                s.of_lost(s.by_index),
                s.of_lost(s.at_best),
                s.of_lost(s.named),
                s.of_lost(s.ranged),
                s.stray,
                report.tables.iter().map(|t| (t.lost, t.lost_at_most)).collect::<Vec<_>>()
            );
            for (sum, n) in sums.entry(name).or_default().iter_mut().zip([s.lost, s.at_best, s.by_index, s.named]) {
                *sum += n;
            }
            if (s.intact - s.intact_back) * 10_000 > s.intact {
                println!(
                    "{:?} {:?} {:?} {:?}",
                    report.schema_from, report.not_made, report.not_understood, report.tables
                );
                failures.add("rows of intact pages are missing", seed, format!("{what} {name}: {s:?}"));
            }
            if s.invented > 0 {
                failures.add("rows were invented", seed, format!("{what} {name}: {s:?}"));
            }
            if s.altered > 0 && name != "bits" {
                failures.add("rows were altered", seed, format!("{what} {name}: {s:?}"));
            }
            if s.integrity != "ok" {
                failures.add("the result is not sound", seed, format!("{what} {name}: {s:?}"));
            }
            for text in &s.untrue {
                failures.add("the report is not true", seed, format!("{what} {name}: {text}"));
            }
            if (s.by_index as f64) < OF_BEST * s.at_best as f64 && name != "bits" {
                failures.add("an index names ids that the manifest does not", seed, format!("{what} {name}: {s:?}"));
            }
            if s.of_lost(s.named) < threshold(name).min(OF_BEST * s.of_lost(s.at_best)) {
                failures.add("too few lost ids are named", seed, format!("{what} {name}: {s:?}"));
            }
            if s.ranged < s.lost && name != "bits" {
                failures.add("a lost id is in no range of the manifest", seed, format!("{what} {name}: {s:?}"));
            }
        }
    }
    for (name, [lost, at_best, by_index, named]) in sums.into_iter().filter(|(_, n)| n[0] > 0) {
        let percent = |n: usize| 100.0 * n as f64 / lost as f64;
        println!(
            "  {name:<13} all seeds: {lost} lost, {:.1} % named by an index (at best {:.1}), {:.1} % named at all",
            percent(by_index),
            percent(at_best),
            percent(named)
        );
    }
}

#[test]
fn the_store_comes_back_from_every_damage() {
    let mut failures = support::Failures::default();
    run(&store(20_000), "store", 1..2, &mut failures);
    failures.finish("store");
}

#[test]
fn tables_that_are_hard_to_tell_apart_come_back_under_their_names() {
    let mut failures = support::Failures::default();
    run(&other(8_000), "other", 1..2, &mut failures);
    failures.finish("other");
}

/// Pages were freed, the list of them is gone, and there are no pointer maps: only rows that an index still names are proved.
/// Not one deleted row is in a table, and not one live row is nowhere.
fn unlisted(rows: u32, seeds: std::ops::Range<u64>, failures: &mut support::Failures) {
    let truth = other_with(rows, "NONE");
    for name in ["20% zeroed", "20% random", "5% random", "interior", "page1 random", "header"] {
        for seed in seeds.clone() {
            let mut d = damage(&truth, name, seed);
            let mut rng = Rng::new(seed);
            for trunk in &truth.trunks {
                rng.fill(&mut d.bytes[(*trunk as usize - 1) * truth.page_size..][..truth.page_size]);
                d.pages.insert(*trunk);
            }
            let (s, report) = score(&truth, &d, vec![("saved".into(), truth.schema.clone())], false);
            let apart = report.lost_and_found.not_provable;
            println!(
                "  {name:<13} {:>6} / {:<6} altered {} invented {} lost {:>5} not provable {apart:>5} strays {:>5}",
                s.intact_back, s.intact, s.altered, s.invented, s.lost, s.stray
            );
            if s.invented + s.altered > 0 {
                failures.add("rows were invented", seed, format!("{name}: {s:?}"));
            }
            if (s.intact - s.intact_back) as u64 > apart {
                failures.add("live rows are nowhere", seed, format!("{name}: {s:?} {:?}", report.lost_and_found));
            }
            for text in &s.untrue {
                failures.add("the report is not true", seed, format!("{name}: {text}"));
            }
        }
    }
}

#[test]
fn rows_that_nothing_proves_alive_wait_apart() {
    let mut failures = support::Failures::default();
    unlisted(8_000, 1..3, &mut failures);
    failures.finish("unlisted");
}

#[test]
#[ignore = "the whole matrix; make bench-salvage runs it"]
fn the_whole_matrix() {
    let mut failures = support::Failures::default();
    run(&store(100_000), "store", 1..4, &mut failures);
    run(&other(40_000), "other", 1..11, &mut failures);
    unlisted(40_000, 1..11, &mut failures);
    failures.finish("the whole matrix");
}

/// Everything a schema may hold that a salvage must carry over.
fn odd() -> Truth {
    let scratch = Scratch::new("odd");
    let path = scratch.path().join("c.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "PRAGMA page_size=2048; PRAGMA user_version=-3; PRAGMA application_id=99;
         CREATE TABLE plain (a, b TEXT, c);
         CREATE TABLE later (id INTEGER PRIMARY KEY, x TEXT);
         INSERT INTO later(x) VALUES ('short'), ('record');
         ALTER TABLE later ADD COLUMN y TEXT NOT NULL DEFAULT 'dflt';
         INSERT INTO later(x, y) VALUES ('long', 'own');
         CREATE TABLE made (a INTEGER, b AS (a * 2) VIRTUAL, c AS (a + 1) STORED, d REAL) ;
         INSERT INTO made(a, d) VALUES (1, 2.0), (-7, 1e300), (NULL, -0.0);
         CREATE TABLE strict (a INT, b TEXT, c ANY) STRICT;
         INSERT INTO strict VALUES (1, 'x', 5), (2, 'y', '5');
         CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, v BLOB UNIQUE);
         INSERT INTO counted(v) VALUES (x'00'), (zeroblob(9000)), (x'ff');
         DELETE FROM counted WHERE id = 3;
         CREATE TABLE \"odd name\"\"s\" (\"select\" TEXT CHECK (length(\"select\") > 0), \"rowid\" INT);
         INSERT INTO \"odd name\"\"s\" VALUES ('x', 9);
         CREATE TABLE keyed (name TEXT, key INT, v, PRIMARY KEY (key DESC, name)) WITHOUT ROWID;
         INSERT INTO keyed VALUES ('a', 1, NULL), ('b', 2, 3.5);
         CREATE VIRTUAL TABLE words USING fts5(body);
         INSERT INTO words VALUES ('the pump is hot'), ('the fan is cold');
         CREATE INDEX plain_expr ON plain(length(b)) WHERE b IS NOT NULL;
         CREATE UNIQUE INDEX later_x ON later(x COLLATE NOCASE);
         CREATE VIEW v AS SELECT a FROM plain;
         CREATE TRIGGER t AFTER INSERT ON plain BEGIN DELETE FROM later; END;",
    )
    .unwrap();
    for n in 0..400_i64 {
        let blob: &[u8] = b"\xff\x00\xc3";
        db.execute("INSERT INTO plain(rowid, a, b, c) VALUES (?1, ?2, CAST(?3 AS TEXT), ?4)", (n * n, n, blob, "ü\0x"))
            .unwrap();
    }
    db.close().unwrap();
    truth(&path)
}

fn pragma(db: &Connection, name: &str) -> String {
    let value: Value = db.query_row(&format!("PRAGMA {name}"), [], |r| Ok(Value::of(r.get_ref(0)?))).unwrap();
    format!("{value:?}")
}

#[test]
fn a_sound_database_comes_through_with_everything_it_had() {
    let cases = [("store", store(3000)), ("other", other(3000)), ("odd", odd())];
    for ((what, truth), way) in cases.iter().flat_map(|c| [(c, "file"), (c, "memory")]) {
        let what = *what;
        let (out, report) = if way == "file" { salvage(&truth.bytes, vec![]) } else { salvage_in_memory(&truth.bytes) };
        let scratch = Scratch::new("sound");
        let (old, new) = (scratch.path().join("old.db"), scratch.path().join("new.db"));
        std::fs::write(&old, &truth.bytes).unwrap();
        std::fs::write(&new, &out).unwrap();
        let (old, new) = (open(&old), open(&new));
        assert!(report.nothing_lost(), "{what}: {report:#?}");
        // Bytes that are no UTF-8 stand in the odd one, and a page of zeroes ends one of its blobs: both named, both kept.
        let named = report.loss.iter().filter(|l| !l.not_provable.is_empty()).count();
        assert_eq!((report.loss.len(), named), if what == "odd" { (2, 2) } else { (0, 0) }, "{what}");
        assert_eq!(support::engine::integrity(&new), "ok", "{what}");
        assert_eq!(read_rows(&new), truth.rows, "{what}");
        for name in ["page_size", "encoding", "auto_vacuum", "user_version", "application_id"] {
            assert_eq!(pragma(&new, name), pragma(&old, name), "{what}: {name}");
        }
        assert_eq!(out[18..20], truth.bytes[18..20], "{what}: journal mode");
        let list = |db: &Connection, sql: &str| -> Vec<String> {
            let mut s = db.prepare(sql).unwrap();
            s.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let schema = "SELECT type || name || tbl_name || coalesce(sql, '') FROM sqlite_master ORDER BY 1";
        assert_eq!(list(&new, schema), list(&old, schema), "{what}");
        if what != "other" {
            let marks = "SELECT name || seq FROM sqlite_sequence ORDER BY 1";
            assert_eq!(list(&new, marks), list(&old, marks), "{what}");
        }
    }
}

#[test]
fn deleted_rows_stay_deleted_even_without_the_freelist_head() {
    let truth = other(3000);
    for damage_name in ["page1 zeroed", "header", "interior"] {
        let d = damage(&truth, damage_name, 1);
        let (s, report) = score(&truth, &d, vec![("saved".into(), truth.schema.clone())], false);
        assert_eq!((s.invented, s.intact_back), (0, s.intact), "{damage_name}: {s:?}");
        assert!(report.ghost_pages > 0, "{damage_name}: no page of deleted rows was recognised");
    }
}

#[test]
fn rows_of_a_table_without_rowids_come_back_by_key() {
    let truth = other(8000);
    let keyed = |rows: &Rows| rows.iter().filter(|((t, _), _)| t == "tags").count();
    let (out, _) = salvage(&damage(&truth, "page1 random", 3).bytes, vec![("saved".into(), truth.schema.clone())]);
    let scratch = Scratch::new("keyed");
    std::fs::write(scratch.path().join("o.db"), out).unwrap();
    let back = read_rows(&open(&scratch.path().join("o.db")));
    assert_eq!(keyed(&back), keyed(&truth.rows));
    assert!(back.iter().filter(|((t, _), _)| t == "tags").all(|(k, v)| truth.rows.get(k) == Some(v)));
}

/// Without any schema nothing is thrown away and nothing is guessed.
#[test]
fn without_a_schema_every_row_is_in_lost_and_found_and_none_is_in_a_table() {
    let truth = store(2000);
    let (out, report) = salvage(&damage(&truth, "page1 zeroed", 1).bytes, vec![]);
    assert_eq!((report.tables.len(), report.schema_from.len()), (0, 0));
    let scratch = Scratch::new("lost");
    std::fs::write(scratch.path().join("o.db"), out).unwrap();
    let db = open(&scratch.path().join("o.db"));
    let sql =
        "SELECT count(*), count(DISTINCT id) FROM lost_and_found WHERE class = 'fits-nothing' AND typeof(c1) = 'text'";
    let found: (i64, i64) = db.query_row(sql, [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
    assert_eq!(found, (2000, 2000));
}

#[test]
fn crafted_files_cost_bounded_time_and_nothing_panics() {
    let small = [store(600), other(500), odd()];
    let from = std::time::Instant::now();
    for seed in support::seeds(1, support::rounds("SALVAGE_ROUNDS", 120)) {
        let mut rng = Rng::new(seed);
        let truth = &small[rng.below(small.len())];
        let mut bytes = truth.bytes.clone();
        let size = truth.page_size;
        let pages = bytes.len() / size;
        for _ in 0..rng.between(1, 12) {
            let (a, b) = (rng.below(pages) * size, rng.below(pages) * size);
            match rng.below(6) {
                // Pages copied over others: children of two parents, loops, wrong kinds.
                0 => bytes.copy_within(a..a + size, b),
                // Every pointer of an interior page to one child.
                1 => {
                    let at = a + rng.below(size - 4);
                    let child = (rng.below(pages + 2) as u32).to_be_bytes();
                    bytes[at..at + 4].copy_from_slice(&child);
                }
                2 => {
                    let len = rng.below(size);
                    rng.fill(&mut bytes[a..a + len]);
                }
                3 => bytes[a + rng.below(size)] ^= 1 << rng.below(8),
                4 => bytes[a + rng.below(12)] = rng.next() as u8,
                _ => bytes.truncate(bytes.len().saturating_sub(rng.below(size)).max(size)),
            }
            if bytes.len() < pages * size {
                break;
            }
        }
        let schemas = if rng.chance(50) { vec![("saved".to_string(), truth.schema.clone())] } else { vec![] };
        let input = Input { db: Some(&bytes), schemas, ..Input::default() };
        // A refusal is an answer; a panic or a hang is not.
        let scratch = Scratch::new("crafted");
        drop(engine::salvage_file(&input, &scratch.path().join("o.db"), scratch.path(), &mut |_| {}));
    }
    println!("{:?}", from.elapsed());
}

/// Tables are written as pages, full and in order. Every number of rows at which a level of pages ends is met here, on the
/// smallest pages, with rows that fill a page alone, that spill, and that are tiny; the engine judges the result.
#[test]
fn tables_of_every_size_are_written_as_the_engine_reads_them() {
    let mut rng = Rng::new(5);
    for (page_size, len, counts) in [
        (512, 400, (0..8).chain(55..66).chain(108..120).collect::<Vec<u32>>()),
        (512, 1, (30..50).step_by(3).chain((2000..2600).step_by(97)).collect()),
        (512, 3000, (0..4).collect()),
        (1024, 0, (0..1200).step_by(149).collect()),
        (4096, 900, (0..12).collect()),
        (65536, 300, vec![0, 1, 213, 214, 215, 216, 217, 1000]),
    ] {
        let scratch = Scratch::new("sizes");
        let path = scratch.path().join("a.db");
        let db = Connection::open(&path).unwrap();
        db.execute_batch(&format!(
            "PRAGMA page_size={page_size}; PRAGMA synchronous=OFF; CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v);
             CREATE TABLE u (a, b); CREATE INDEX i ON t(v);"
        ))
        .unwrap();
        let (mut rows, mut id) = (0, -3_i64);
        for count in counts {
            db.execute_batch("BEGIN").unwrap();
            while rows < count {
                let long = len + if len > 1 { rng.below(3) } else { 0 };
                db.execute("INSERT INTO t VALUES (?1, zeroblob(?2))", (id, long as i64)).unwrap();
                db.execute("INSERT INTO u VALUES (?1, 'x')", [id]).unwrap();
                id += if rng.chance(2) { 1 << rng.below(24) } else { 1 };
                rows += 1;
            }
            db.execute_batch("COMMIT").unwrap();
            let (out, report) = salvage(&std::fs::read(&path).unwrap(), vec![]);
            assert!(report.nothing_lost(), "{page_size} {len} {count}: {report:?}");
            let new = scratch.path().join(format!("{count}.db"));
            std::fs::write(&new, &out).unwrap();
            let new = open(&new);
            assert_eq!(support::engine::integrity(&new), "ok", "{page_size} {len} {count}");
            if count % 7 == 0 {
                assert!(read_rows(&new) == read_rows(&db), "{page_size} {len} {count}");
            }
            let all: i64 = new.query_row("SELECT count(*) FROM t", [], |r| r.get(0)).unwrap();
            assert_eq!(all, i64::from(count), "{page_size} {len}");
        }
    }
}

/// The log's newest committed image wins, and a page that only a log has is found there.
#[test]
fn page_images_of_the_log_win_over_the_file() {
    let scratch = Scratch::new("log");
    let path = scratch.path().join("a.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(&format!("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0; {STORE}"))
        .unwrap();
    let insert = "INSERT INTO readings(sensor_name, timestamp, value) VALUES ('a', ?1, ?2)";
    for n in 0..2000 {
        db.execute(insert, (f64::from(n), f64::from(n))).unwrap();
    }
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    for n in 2000..2400 {
        db.execute(insert, (f64::from(n), f64::from(n))).unwrap();
    }
    db.execute("UPDATE readings SET unit = 'K' WHERE id BETWEEN 100 AND 700", []).unwrap();
    let (mut file, wal) = (std::fs::read(&path).unwrap(), std::fs::read(scratch.path().join("a.db-wal")).unwrap());
    let rows = read_rows(&db);
    drop(db);
    // Page 1 and every leaf that the log has too: noise in the file.
    Rng::new(4).fill(&mut file[..4096]);
    let input = Input { db: Some(&file), wal: Some(&wal), ..Input::default() };
    let (out, report) = engine::salvage_bytes(&input, &mut |_| {}).unwrap();
    std::fs::write(scratch.path().join("o.db"), out).unwrap();
    let back = read_rows(&open(&scratch.path().join("o.db")));
    assert_eq!(back, rows);
    assert!(report.nothing_lost() && report.log_images > 0, "{report:?}");
}

/// A store whose log holds a short generation, and behind it the end of the one before: the file, the log, the rows, a page
/// that only the generation before has, and a frame of the current one.
fn two_generations(scratch: &Scratch) -> (Vec<u8>, Vec<u8>, Rows, u32) {
    let path = scratch.path().join("a.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(&format!("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0; {STORE}"))
        .unwrap();
    let insert = "INSERT INTO readings(sensor_name, timestamp, value) VALUES ('a', ?1, ?2)";
    for n in 0..3000 {
        db.execute(insert, (f64::from(n), f64::from(n))).unwrap();
    }
    db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
    for n in 3000..3010 {
        db.execute(insert, (f64::from(n), f64::from(n))).unwrap();
    }
    let (file, wal) = (std::fs::read(&path).unwrap(), std::fs::read(scratch.path().join("a.db-wal")).unwrap());
    let salt = |at: usize| be(&wal, at + 8, 4);
    let frames: Vec<usize> = (32..wal.len()).step_by(4096 + 24).collect();
    let current: BTreeSet<usize> =
        frames.iter().filter(|at| salt(**at) == be(&wal, 16, 4)).map(|at| be(&wal, *at, 4)).collect();
    let before = frames.iter().filter(|at| salt(**at) + 1 == be(&wal, 16, 4)).map(|at| be(&wal, *at, 4));
    // A leaf in the middle of the table.
    let leaf = |p: &usize| file[(p - 1) * 4096] == 13 && *p > 4;
    let page = before.filter(|p| !current.contains(p)).find(leaf).unwrap();
    let rows = read_rows(&db);
    (file, wal, rows, page as u32)
}

/// The page is gone from the database and stands in the generation before, whole: it was copied from there.
#[test]
fn a_lost_page_comes_from_the_generation_before_only_where_that_is_proved() {
    let scratch = Scratch::new("donor");
    let (mut file, wal, rows, page) = two_generations(&scratch);
    let at = (page as usize - 1) * 4096;
    Rng::new(6).fill(&mut file[at..at + 4096]);
    let back = |file: &Vec<u8>, wal: &Vec<u8>| {
        let input = Input { db: Some(file), wal: Some(wal), ..Input::default() };
        let (out, report) = engine::salvage_bytes(&input, &mut |_| {}).unwrap();
        std::fs::write(scratch.path().join("o.db"), out).unwrap();
        (read_rows(&open(&scratch.path().join("o.db"))), report)
    };
    let (found, report) = back(&file, &wal);
    assert!(found == rows && report.nothing_lost() && report.donors_used == 1, "{report:?}");
    // The rows are named as what they are.
    assert_eq!(report.loss.len(), 1, "{report:?}");
    let donated = report.loss[0].donated.count();
    assert!(donated > 20 && report.loss[0].lost == Some(0), "{report:?}");

    // Another such page was changed in the database since: the end of that generation was cut off, as a limit on the size
    // of the log does. Now nothing is proved.
    let mut cut = file.clone();
    let other = (5..).find(|p| *p != page as usize && cut[(p - 1) * 4096] == 13).unwrap();
    let last = other * 4096 - 1;
    cut[last] ^= 1;
    // A commit of the current generation that cannot be read may have changed the page.
    let mut torn = wal.clone();
    torn[32 + 24 + 100] ^= 1;
    for (what, file, wal) in [("cut", &cut, &wal), ("torn", &file, &torn)] {
        let (found, report) = back(file, wal);
        assert_eq!(report.donors_used, 0, "{what}: {report:?}");
        assert!(report.lost_and_found.older_state >= 20, "{what}: {report:?}");
        assert!(!report.nothing_lost() && found.len() < rows.len(), "{what}");
        let missing = rows.keys().filter(|k| !found.contains_key(*k)).count();
        assert!(missing as u64 >= donated, "{what}: {missing} of {donated}");
    }
}

/// The bytes at the end of each page that a checksum or an encryption needs are there again, and the rows around them.
#[test]
fn reserved_bytes_are_kept() {
    let scratch = Scratch::new("reserved");
    let path = scratch.path().join("a.db");
    Connection::open(&path).unwrap().execute_batch("PRAGMA page_size=1024; PRAGMA user_version=1").unwrap();
    let mut empty = std::fs::read(&path).unwrap();
    assert_eq!(empty.len(), 1024);
    (empty[20], empty[105], empty[106]) = (8, 3, 248);
    std::fs::write(&path, empty).unwrap();
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE u (v UNIQUE); CREATE INDEX i ON t(v);
         WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 900)
         INSERT INTO t SELECT n, zeroblob(n * 3) FROM c; INSERT INTO u SELECT id FROM t;",
    )
    .unwrap();
    for header in [true, false] {
        let mut bytes = std::fs::read(&path).unwrap();
        if !header {
            Rng::new(1).fill(&mut bytes[..100]);
        }
        let (out, report) = salvage(&bytes, vec![]);
        assert_eq!(out[20], 8, "{header}");
        assert!(report.nothing_lost(), "{report:?}");
        std::fs::write(scratch.path().join("o.db"), out).unwrap();
        let new = open(&scratch.path().join("o.db"));
        assert_eq!(support::engine::integrity(&new), "ok");
        assert!(read_rows(&new) == read_rows(&db));
    }
}

/// A hot rollback journal is rolled back, as SQLite would.
#[test]
fn a_hot_journal_is_rolled_back() {
    let scratch = Scratch::new("journal");
    let path = scratch.path().join("a.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(&format!("PRAGMA journal_mode=DELETE; PRAGMA cache_size=5; {STORE}")).unwrap();
    db.execute_batch(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3000)
         INSERT INTO readings(sensor_name, timestamp, value) SELECT 'a', n, n FROM c;",
    )
    .unwrap();
    let rows = read_rows(&db);
    // A transaction larger than the cache, never ended: pages spill into the file under the journal.
    db.execute_batch("BEGIN; UPDATE readings SET value = -1, unit = 'changed';").unwrap();
    let (file, journal) = (std::fs::read(&path).unwrap(), std::fs::read(scratch.path().join("a.db-journal")).unwrap());
    db.execute_batch("ROLLBACK").unwrap();
    assert!(salvage(&file, vec![]).0.len() > 4096);
    let input = Input { db: Some(&file), journal: Some(&journal), ..Input::default() };
    let (out, report) = engine::salvage_bytes(&input, &mut |_| {}).unwrap();
    std::fs::write(scratch.path().join("o.db"), out).unwrap();
    assert_eq!(read_rows(&open(&scratch.path().join("o.db"))), rows, "{report:?}");
}

/// The rung above salvage: damage in an index costs no row, whether its pages are noise or its entries are wrong.
#[test]
fn indexes_are_built_again_from_their_tables() {
    let truth = store(4000);
    let page = truth.bytes.chunks(4096).rposition(|p| p[0] == 10).unwrap() * 4096;
    let mut noise = truth.bytes.clone();
    Rng::new(1).fill(&mut noise[page..page + 4096]);
    let mut swapped = truth.bytes.clone();
    let text = swapped[page..page + 4096].windows(4).rposition(|w| w == b"temp").unwrap();
    swapped[page + text] = b'T';
    for (what, bytes) in [("noise", noise), ("a wrong entry", swapped)] {
        let scratch = Scratch::new("reindex");
        // Looking at a database in WAL mode leaves side files, which a staged file must not have.
        let look = |name: &str, bytes: &[u8]| {
            let path = scratch.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let db = open(&path);
            (support::engine::integrity(&db), db)
        };
        assert_ne!(look("before.db", &bytes).0, "ok", "{what}: no damage was done");
        let (out, why) = engine::reindex_bytes(&bytes).unwrap();
        assert_eq!(why, None, "{what}");
        let staged = scratch.path().join("staged.db");
        std::fs::write(&staged, &bytes).unwrap();
        assert_eq!(engine::reindex_file(&staged).unwrap(), None, "{what}");
        for (name, bytes) in [("bytes.db", out), ("file.db", std::fs::read(&staged).unwrap())] {
            assert_eq!(bytes[18..20], truth.bytes[18..20], "{what}: journal mode");
            let (says, db) = look(name, &bytes);
            assert_eq!(says, "ok", "{what}: {name}");
            assert_eq!(read_rows(&db), truth.rows, "{what}: {name}");
        }
    }
}
