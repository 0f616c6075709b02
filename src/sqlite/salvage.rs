//! Everything recoverable out of a damaged database: rows into their named tables, a manifest of what is missing.
//!
//! ```text
//! side files ─▶ page images ─▶ geometry ─▶ map (first pass, in order) ─▶ schema ─▶ owners ─▶ rows (second pass) ─▶ loss
//! ```
//!
//! Nothing here opens a database or writes: pages come through [`ReadAt`], rows go into a [`Sink`], which at the rim is
//! the real engine writing a staged file. Indexes are never copied, they are built anew from their statements; their
//! old entries serve as witnesses, for the owner of a page ([`evidence`]) and for the rows that are gone ([`loss`]).
//!
//! Memory: one byte and two for each page, 56 for each table leaf, the intervals of the rowids found, and one row
//! at a time. Work: two passes over the pages, one more over the entries of indexes when rows are missing. Every page is
//! claimed once, so a crafted file buys no more.

pub mod assign;
pub mod bounds;
pub mod catalog;
pub mod donors;
pub mod evidence;
pub mod extract;
pub mod fields;
pub mod geometry;
pub mod life;
pub mod loss;
pub mod map;
pub mod objects;
pub mod overflow;
pub mod product;
pub mod report;
pub mod shape;
pub mod sheet;
pub mod side;
pub mod source;
pub mod spans;
pub mod tree;
pub mod witness;

use std::io;

use self::assign::Why;
use self::catalog::Entry;
use self::extract::Rows;
use self::geometry::Geometry;
use self::loss::Known;
use self::objects::{Class, Object};
use self::overflow::Chains;
pub use self::report::{LostAndFound, Report, TableReport};
use self::side::Laid;
use self::source::Source;
use super::ReadAt;
use super::bytes::be32;
use super::header::Header;
use super::overlay::Fold;

/// The files, and what else is known.
#[derive(Default)]
pub struct Input<'a> {
    /// The database.
    pub db: Option<&'a dyn ReadAt>,
    /// Its write-ahead log.
    pub wal: Option<&'a dyn ReadAt>,
    /// Its wal-index.
    pub shm: Option<&'a dyn ReadAt>,
    /// Its rollback journal.
    pub journal: Option<&'a dyn ReadAt>,
    /// Which frames of the log to lay over, where a plan has chosen; `None`: the judge of logs chooses.
    pub fold: Option<Fold>,
    /// Schemas from elsewhere, the most trusted first, each with the name of its source.
    pub schemas: Vec<(String, SavedSchema)>,
}

/// A schema kept apart from its database, with the facts of its header.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SavedSchema {
    /// The facts.
    pub facts: Facts,
    /// The entries; roots are 0 where only statements are known.
    pub entries: Vec<Entry>,
}

/// What a rebuilt database keeps of its header.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Facts {
    /// Page size.
    pub page_size: u32,
    /// Bytes reserved at the end of each page, as a checksum VFS needs them.
    #[serde(default)]
    pub reserved: u8,
    /// Text encoding, 1 to 3.
    pub encoding: u32,
    /// 0 none, 1 full, 2 incremental.
    pub auto_vacuum: u32,
    /// `PRAGMA user_version`.
    pub user_version: u32,
    /// `PRAGMA application_id`.
    pub application_id: u32,
    /// True for WAL mode.
    pub wal_mode: bool,
}

/// Where the rebuilt database comes to be.
pub trait Sink: Rows {
    /// Makes an empty database with these facts and the tables among the objects. Names the tables that could not be
    /// made; their rows are refused later.
    fn begin(&mut self, facts: &Facts, objects: &[Object]) -> io::Result<Vec<String>>;
    /// True for a table whose rows it takes faster as long as no other row has come.
    fn prefers(&self, _table: usize) -> bool {
        false
    }
    /// Finishes: sequences, indexes, views, triggers, virtual tables. Names what could not be made, and counts the rows
    /// that went to lost-and-found.
    fn end(&mut self, entries: &[Entry], sequences: &[(String, i64)]) -> io::Result<(Vec<String>, LostAndFound)>;
}

/// Salvages into a sink. `progress` is told a sentence now and then.
pub fn run(input: &Input<'_>, sink: &mut dyn Sink, progress: &mut dyn FnMut(&str)) -> io::Result<Report> {
    let laid = lay(input)?;
    let side =
        if input.journal.is_some() && laid.page_size != 0 && input.wal.is_none() { input.journal } else { input.wal };
    let first = first_page(input.db, side, &laid)?;
    let hint =
        [laid.page_size].into_iter().chain(input.schemas.iter().map(|(_, s)| s.facts.page_size)).find(|s| *s > 0);
    let nothing: &dyn ReadAt = &EMPTY;
    let (geometry, header) = geometry::detect(input.db.unwrap_or(nothing), &first, hint)?;
    let mut report = Report::new(&geometry, &laid);
    let laid = if laid.page_size == geometry.page_size { laid } else { Laid::default() };
    let donors = laid.donors.len() + laid.older.len();
    let mut source =
        Source::new(input.db, side, (laid.images, laid.donors), (geometry.page_size, geometry.reserved), laid.pages);
    source.hold(laid.older);
    report.donors = u32::try_from(donors).unwrap_or(u32::MAX);
    let pages = source.pages;
    let mut map = map::Map::read(&mut source, &mut |n| progress(&format!("looked at page {n} of {pages}")));
    donors::prove(&mut source, &map);
    let mut schema = schema(&mut source, &map, input, &mut report);
    let header = header.filter(|_| geometry.header_believed);
    let facts = facts(&geometry, header.as_ref(), &first, &schema, input);
    report.encoding = facts.encoding;
    report.wal_mode = facts.wal_mode;
    let (mut objects, unknown) = objects::build(&schema.entries);
    report.not_understood = unknown;
    let guessed = report.schema_from.first().is_some_and(|name| name == report::PRODUCT);
    objects.iter_mut().for_each(|o| o.shape.guessed = guessed);
    report.schema_whole = !schema.incomplete;
    let assigned =
        assign::assign(&mut source, &mut map, &mut objects, header.as_ref(), (schema.incomplete, facts.encoding));
    report.tree(&map, &source, &assigned);
    // A guess that not one page confirms was wrong: its tables were never here, and nothing of them is lost.
    let confirmed = |o: &Object| is_kept(o) && !o.tree.leaves.is_empty();
    if guessed && source.pages > 0 && !objects.iter().any(confirmed) {
        objects.clear();
        schema.entries.clear();
        report.schema_from.clear();
    }
    progress("rows are taken out");
    report.not_made = sink.begin(&facts, &objects)?;
    let mut chains = Chains::new(source.pages);
    for number in 1..=source.pages {
        if matches!(map.kind(number), map::Kind::Tree(_)) {
            chains.take(number);
        }
    }
    let way = extract::Way { encoding: facts.encoding, erased: assigned.erased };
    let sequences = sequences(&mut source, &map, &mut chains, &mut objects, way)?;
    let mut extracted = Vec::new();
    let mut order: Vec<usize> = (0..objects.len()).collect();
    order.sort_by_key(|index| !sink.prefers(*index));
    for index in order {
        let Some(object) = objects.get_mut(index).filter(|o| is_kept(o)) else { continue };
        let got = extract::table(&mut source, &map, &mut chains, (index, object), &mut *sink, way)?;
        progress(&format!("{}: {} rows", object.entry.name, got.rows));
        extracted.push((index, got));
    }
    extracted.sort_by_key(|(index, _)| *index);
    // Where the schema is whole and has no WITHOUT ROWID table, pages kept like an index hold nothing but entries.
    let keyed = schema.incomplete || objects.iter().any(|o| o.class == Class::KeyTable);
    for stray in &assigned.strays {
        let class = match stray.why {
            Why::Ambiguous => "ambiguous",
            Why::NotProvable => "not-provable",
            Why::FitsNothing => "fits-nothing",
            Why::IndexLike if keyed => "index-like",
            Why::IndexLike => continue,
        };
        extract::stray(&mut source, &mut chains, (&stray.leaves, stray.top, class), &mut *sink)?;
    }
    donors::older(&mut source, &map, &assigned.owners, &mut *sink)?;
    progress("indexes are built");
    let (not_made, found) = sink.end(&schema.entries, &sequences)?;
    report.not_made.extend(not_made);
    report.lost_and_found = found;
    let gone = gone(&source, &map, &assigned, &chains, header.as_ref());
    for (index, got) in &extracted {
        let Some(object) = objects.get(*index) else { continue };
        let mark = sequences.iter().find(|(name, _)| name.eq_ignore_ascii_case(&object.entry.name)).map(|(_, s)| *s);
        let known = Known { sequence: mark, encoding: facts.encoding, gone };
        let loss = loss::table(&mut source, &objects, object, got, known);
        report.table(object, got, loss);
    }
    report.unreadable = source.unreadable;
    Ok(report)
}

static EMPTY: [u8; 0] = [];

impl ReadAt for [u8; 0] {
    fn size(&self) -> u64 {
        0
    }
    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
}

fn lay(input: &Input<'_>) -> io::Result<Laid> {
    match (input.wal, input.journal) {
        (Some(log), _) if log.size() > 0 => side::log(log, input.db, input.shm, input.fold.as_ref()),
        (_, Some(journal)) => side::journal(journal),
        _ => Ok(Laid::default()),
    }
}

fn first_page(db: Option<&dyn ReadAt>, side: Option<&dyn ReadAt>, laid: &Laid) -> io::Result<Vec<u8>> {
    match (laid.images.get(&1), side, db) {
        (Some(at), Some(side), _) => super::read_vec(side, *at, 512),
        // A first sector that cannot be read is a damaged one.
        (_, _, Some(db)) => Ok(super::read_vec(db, 0, 512).unwrap_or_default()),
        _ => Ok(Vec::new()),
    }
}

/// Tables whose rows go into the new database. SQLite's own are not among them: sequences are set apart, statistics
/// describe a database that no longer exists (`ANALYZE` makes new ones).
fn is_kept(object: &Object) -> bool {
    object.class != Class::Index && !object.entry.name.to_ascii_lowercase().starts_with("sqlite_")
}

/// How many pages nobody has that may have held rows: those of the file that are neither in a tree nor in the chain of a row
/// nor free, and those behind its end. `None` when nothing says where its end was.
fn gone(
    source: &Source<'_>,
    map: &map::Map,
    assigned: &assign::Assigned,
    chains: &Chains,
    header: Option<&Header>,
) -> Option<u64> {
    let pages = header.filter(|h| h.pages > 0 && h.valid_for == h.change_counter)?.pages;
    let lost = |n: &u32| match assigned.owners.of(*n) {
        0 => !chains.is_taken(*n) || matches!(map.kind(*n), map::Kind::Tree(_)),
        owner => owner == assign::ORPHAN,
    };
    let inside = (2..=source.pages).filter(lost).count() as u64;
    Some(inside + u64::from(pages.saturating_sub(source.pages)))
}

struct Schema {
    entries: Vec<Entry>,
    encoding: u32,
    saved: Option<Facts>,
    /// True when tables may exist that it does not name.
    incomplete: bool,
}

/// The schema, from the file as far as it has one, completed from elsewhere where the file's is not whole.
fn schema(source: &mut Source<'_>, map: &map::Map, input: &Input<'_>, report: &mut Report) -> Schema {
    let found = catalog::read(source, &map.schema_leaves);
    let mut schema = Schema { entries: found.entries, encoding: found.encoding, saved: None, incomplete: !found.whole };
    if !found.whole {
        // A statement of a damaged schema that cannot be read is no better than none.
        let readable =
            |e: &Entry| e.kind != "table" || objects::is_virtual(&e.sql) || super::schema::table(&e.sql).is_ok();
        schema.entries.retain(readable);
    }
    if !found.source.is_empty() {
        report.schema_from.push(found.source.to_string());
    }
    for (name, other) in &input.schemas {
        if found.whole && !schema.entries.is_empty() {
            break;
        }
        let known =
            |e: &&Entry| schema.entries.iter().any(|k| k.kind == e.kind && k.name.eq_ignore_ascii_case(&e.name));
        let missing: Vec<Entry> = other.entries.iter().filter(|e| !known(e)).cloned().collect();
        if schema.saved.is_none() && other.facts.page_size > 0 {
            schema.saved = Some(other.facts.clone());
        }
        // The documented product is the last resort of a file that says nothing, not an addition to one that does.
        if !missing.is_empty() && (schema.entries.is_empty() || name != report::PRODUCT) {
            schema.entries.extend(missing);
            report.schema_from.push(name.clone());
        }
        // A schema that was read from a sound database names every table there was.
        schema.incomplete &= other.facts.page_size == 0;
    }
    schema
}

fn facts(geometry: &Geometry, header: Option<&Header>, first: &[u8], schema: &Schema, input: &Input<'_>) -> Facts {
    let saved = schema.saved.clone().unwrap_or_default();
    let encoding = [schema.encoding, geometry.encoding, saved.encoding].into_iter().find(|e| *e != 0).unwrap_or(1);
    match header {
        Some(h) => Facts {
            page_size: geometry.page_size,
            reserved: geometry.reserved,
            encoding,
            auto_vacuum: if h.largest_root == 0 { 0 } else { 1 + u32::from(be32(first, 64) != 0) },
            user_version: h.user_version,
            application_id: h.application_id,
            wal_mode: h.wal_mode,
        },
        None => {
            let wal_mode = saved.wal_mode || input.wal.is_some();
            let Geometry { page_size, reserved, .. } = *geometry;
            Facts { page_size, reserved, encoding, wal_mode, ..saved }
        }
    }
}

/// The rows of `sqlite_sequence`: name and mark.
fn sequences(
    source: &mut Source<'_>,
    map: &map::Map,
    chains: &mut Chains,
    objects: &mut [Object],
    way: extract::Way,
) -> io::Result<Vec<(String, i64)>> {
    struct Marks(Vec<(String, i64)>, u32);
    impl Rows for Marks {
        fn row(&mut self, _: usize, _: i64, fields: &[fields::Field], payload: &[u8]) -> io::Result<bool> {
            let name = fields.first().map(|f| f.value(payload));
            let mark = fields.get(1).and_then(|f| f.integer(payload));
            if let (Some(super::record::Value::Text(t)), Some(mark)) = (name, mark) {
                self.0.extend(catalog::decode(t, self.1).map(|name| (name, mark)));
            }
            Ok(true)
        }
        fn stray(&mut self, _: &extract::StrayRow<'_>) -> io::Result<()> {
            Ok(())
        }
    }
    let mut marks = Marks(Vec::new(), way.encoding);
    let known = objects.iter_mut().enumerate().find(|(_, o)| o.entry.name.eq_ignore_ascii_case("sqlite_sequence"));
    if let Some((index, object)) = known {
        extract::table(source, map, chains, (index, object), &mut marks, way)?;
    }
    Ok(marks.0)
}
