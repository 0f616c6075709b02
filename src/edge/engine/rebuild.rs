//! The sink of a salvage: the real engine writing a new database, row by row, into a staged file.
//!
//! Tables are made from their own statements, rows go in with their rowids, indexes, views and triggers are made when
//! all rows are there. Values arrive bit by bit as they were stored: text is bound as bytes, and in a UTF-16 database
//! through a cast of a blob, which takes the bytes as they are and spares them a way through UTF-8 on which an unpaired
//! surrogate would be lost. Checks are off (what the file held, the file held), triggers and foreign keys as well.
//!
//! Into a file, most rows do not go through the engine at all but as pages beside it ([`super::bulk`]); what takes that way
//! comes first, and with the first row that cannot the engine takes over.
//!
//! The sorter of an index spills into files beside the stage: what `/tmp` is in an initramfs is memory.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, Value as Owned, ValueRef};
use rusqlite::{Connection, OptionalExtension, Statement};

use super::bulk::{self, Bulk};
use super::{damage, defend, failed, quoted};
use crate::sqlite::record::Value;
use crate::sqlite::salvage::catalog::Entry;
use crate::sqlite::salvage::extract::{Rows, StrayRow};
use crate::sqlite::salvage::fields::Field;
use crate::sqlite::salvage::objects::{Class, Object, is_virtual};
use crate::sqlite::salvage::{Facts, LostAndFound, Sink};

/// Prepared statements kept for one table: one for each number of values, in UTF-16 one for each pattern of text.
const MAX_STATEMENTS: usize = 64;
/// Columns of lost-and-found at most; SQLite's default limit is 2000.
const MAX_STRAY_COLUMNS: usize = 1900;
/// Bytes of rows for lost-and-found that wait for the engine to take over.
const MAX_HELD: usize = 4 << 20;
/// Longest message kept.
const MAX_WORDS: usize = 300;

/// Writes into one connection. The connection must be empty; everything happens in one transaction.
pub(super) struct Rebuild<'c> {
    db: &'c Connection,
    tables: Vec<Option<Table<'c>>>,
    utf16: bool,
    stray: Option<(String, usize)>,
    found: LostAndFound,
    file: Option<File>,
    bulk: Option<Bulk>,
    held: Vec<Held>,
    held_bytes: usize,
    /// AUTOINCREMENT tables by their place among the objects.
    counted: Vec<(usize, String)>,
}

/// A row for lost-and-found that waits.
struct Held {
    page: u32,
    top: u32,
    class: &'static str,
    rowid: Option<i64>,
    fields: Vec<Field>,
    payload: Vec<u8>,
}

struct Table<'c> {
    name: String,
    /// The word by which the rowid can be given, where no column is its alias.
    rowid: Option<&'static str>,
    /// Per stored value: its column; `None` for what the engine computes. The alias takes the rowid.
    columns: Vec<Option<String>>,
    alias: Option<usize>,
    /// By the number of values, where text needs no cast.
    plain: Vec<Option<Statement<'c>>>,
    /// By the pattern of text, where it does.
    cast: HashMap<Vec<bool>, Statement<'c>>,
}

impl<'c> Rebuild<'c> {
    /// A sink into an empty database. For a database in a file: a directory for the files of the sorter, and the file.
    pub(super) fn new(db: &'c Connection, file: Option<(&std::path::Path, File)>) -> io::Result<Self> {
        defend(db).map_err(failed)?;
        // Rows come in key order and indexes are sorted: a larger cache, and the larger runs of the sorter that go with it,
        // cost memory and save nothing (measured: 2 to 40 MiB).
        db.execute_batch(
            "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA ignore_check_constraints = ON; \
             PRAGMA cache_size = -4096;",
        )
        .map_err(failed)?;
        if let Some((dir, _)) = &file {
            let dir = dir.to_string_lossy().replace('\'', "''");
            db.execute_batch(&format!("PRAGMA temp_store = FILE; PRAGMA temp_store_directory = '{dir}';"))
                .map_err(failed)?;
        }
        Ok(Self {
            db,
            tables: Vec::new(),
            utf16: false,
            stray: None,
            found: LostAndFound::default(),
            file: file.map(|(_, file)| file),
            bulk: None,
            held: Vec::new(),
            held_bytes: 0,
            counted: Vec::new(),
        })
    }

    /// The engine takes over from the writer of pages.
    fn take_over(&mut self) -> io::Result<()> {
        let Some(mut bulk) = self.bulk.take() else { return Ok(()) };
        bulk.settle()?;
        self.db.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
        for (at, name) in std::mem::take(&mut self.counted) {
            if let Some(highest) = bulk.highest(at) {
                self.sequence(&name, highest).map_err(failed)?;
            }
        }
        for row in std::mem::take(&mut self.held) {
            let Held { page, top, class, rowid, fields, payload } = &row;
            let stray = StrayRow { page: *page, top: *top, class, rowid: *rowid, fields, payload };
            self.add_stray(&stray).map_err(failed)?;
        }
        Ok(())
    }

    /// Roots of the tables whose rows can be written as pages.
    fn roots(&self, facts: &Facts, objects: &[Object]) -> rusqlite::Result<Vec<Option<u32>>> {
        let sql = "SELECT rootpage FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE AND NOT EXISTS \
                   (SELECT 1 FROM main.sqlite_schema WHERE type = 'index' AND tbl_name = ?1 COLLATE NOCASE)";
        let mut find = self.db.prepare(sql)?;
        let mut roots = Vec::with_capacity(objects.len());
        for (object, made) in objects.iter().zip(&self.tables) {
            // With auto-vacuum every page has an entry in a pointer map, which only the engine keeps.
            let plain = facts.auto_vacuum == 0 && object.class == Class::Table && made.is_some();
            let root = if plain { find.query_row([&object.entry.name], |r| r.get(0)).optional()? } else { None };
            roots.push(root.filter(|root| *root > 1));
        }
        Ok(roots)
    }

    /// Runs one statement of the schema; why not, when it is refused.
    fn make(&self, what: &str, name: &str, sql: &str) -> io::Result<Option<String>> {
        match self.db.execute(sql, []) {
            Ok(_) => Ok(None),
            Err(e) => match damage(&e) {
                Some(why) => Ok(Some(format!("{what} {name}: {why}").chars().take(MAX_WORDS).collect())),
                None => Err(failed(e)),
            },
        }
    }

    fn insert(&mut self, at: usize, rowid: i64, fields: &[Field], payload: &[u8]) -> rusqlite::Result<bool> {
        let Some(Some(table)) = self.tables.get_mut(at) else { return Ok(false) };
        let statement = if self.utf16 {
            let key: Vec<bool> = fields.iter().map(|f| f.is_text()).collect();
            if !table.cast.contains_key(&key) {
                if table.cast.len() >= MAX_STATEMENTS {
                    table.cast.clear();
                }
                let fresh = prepare(self.db, table, &key)?;
                table.cast.insert(key.clone(), fresh);
            }
            table.cast.get_mut(&key)
        } else {
            if table.plain.len() <= fields.len() {
                table.plain.resize_with(fields.len() + 1, || None);
            }
            if table.plain.get(fields.len()).is_none_or(Option::is_none) {
                let fresh = prepare(self.db, table, &vec![false; fields.len()])?;
                if let Some(place) = table.plain.get_mut(fields.len()) {
                    *place = Some(fresh);
                }
            }
            table.plain.get_mut(fields.len()).and_then(Option::as_mut)
        };
        let Some(statement) = statement else { return Ok(false) };
        let mut parameter = 0;
        if table.rowid.is_some() {
            parameter += 1;
            statement.raw_bind_parameter(parameter, rowid)?;
        }
        for (i, field) in fields.iter().enumerate() {
            if !matches!(table.columns.get(i), Some(Some(_))) {
                continue;
            }
            parameter += 1;
            if table.alias == Some(i) {
                statement.raw_bind_parameter(parameter, rowid)?;
            } else {
                statement.raw_bind_parameter(parameter, bound(field.value(payload), self.utf16))?;
            }
        }
        Ok(statement.raw_execute()? > 0)
    }

    /// The table for rows without one, wide enough.
    fn stray_table(&mut self, width: usize) -> rusqlite::Result<String> {
        let (name, have) = match self.stray.take() {
            Some(known) => known,
            None => {
                let mut name = "lost_and_found".to_string();
                let taken = "SELECT 1 FROM main.sqlite_schema WHERE name = ?1 COLLATE NOCASE";
                let mut n = 0;
                while self.db.query_row(taken, [&name], |_| Ok(())).optional()?.is_some() {
                    name = format!("lost_and_found_{n}");
                    n += 1;
                }
                let sql = format!("CREATE TABLE main.{name} (page INTEGER, root INTEGER, class TEXT, id INTEGER)");
                self.db.execute(&sql, [])?;
                (name, 0)
            }
        };
        for i in have..width {
            self.db.execute(&format!("ALTER TABLE main.{name} ADD COLUMN c{i}"), [])?;
        }
        self.stray = Some((name.clone(), have.max(width)));
        Ok(name)
    }

    fn add_stray(&mut self, stray: &StrayRow<'_>) -> rusqlite::Result<()> {
        let width = stray.fields.len().min(MAX_STRAY_COLUMNS);
        let name = self.stray_table(width)?;
        let mut values: Vec<ToSqlOutput<'_>> = vec![
            ToSqlOutput::Owned(Owned::Integer(i64::from(stray.page))),
            ToSqlOutput::Owned(Owned::Integer(i64::from(stray.top))),
            ToSqlOutput::Borrowed(ValueRef::Text(stray.class.as_bytes())),
            ToSqlOutput::Owned(stray.rowid.map_or(Owned::Null, Owned::Integer)),
        ];
        let fields = stray.fields.get(..width).unwrap_or(&[]);
        values.extend(fields.iter().map(|f| bound(f.value(stray.payload), self.utf16)));
        let cast = |f: &Field| if self.utf16 && f.is_text() { ", CAST(? AS TEXT)" } else { ", ?" };
        let marks: String = fields.iter().map(cast).collect();
        let columns: String = (0..width).map(|i| format!(", c{i}")).collect();
        let sql = format!("INSERT INTO main.{name} (page, root, class, id{columns}) VALUES (?, ?, ?, ?{marks})");
        self.db.prepare(&sql)?.execute(rusqlite::params_from_iter(values))?;
        Ok(())
    }

    fn sequence(&self, name: &str, mark: i64) -> rusqlite::Result<()> {
        let known = "SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence'";
        if self.db.query_row(known, [], |_| Ok(())).optional()?.is_none() {
            return Ok(());
        }
        let raise = "UPDATE main.sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1";
        if self.db.execute(raise, (name, mark))? == 0 {
            self.db.execute("INSERT INTO main.sqlite_sequence (name, seq) VALUES (?1, ?2)", (name, mark))?;
        }
        Ok(())
    }

    /// A virtual table is an entry in the schema: its shadow tables have been made as the ordinary tables they are, and
    /// its module would make them anew.
    fn virtual_table(&self, entry: &Entry) -> rusqlite::Result<()> {
        self.db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)?;
        self.db.execute_batch("PRAGMA writable_schema = ON")?;
        let sql =
            "INSERT INTO main.sqlite_schema (type, name, tbl_name, rootpage, sql) VALUES ('table', ?1, ?1, 0, ?2)";
        let added = self.db.execute(sql, (&entry.name, &entry.sql));
        self.db.execute_batch("PRAGMA writable_schema = OFF")?;
        self.db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        added.map(|_| ())
    }
}

/// The statement that inserts a row of so many values; `texts` says which of them are text that needs a cast.
fn prepare<'c>(db: &'c Connection, table: &Table<'c>, texts: &[bool]) -> rusqlite::Result<Statement<'c>> {
    let mut names: Vec<String> = table.rowid.iter().map(ToString::to_string).collect();
    let mut marks: Vec<&str> = table.rowid.iter().map(|_| "?").collect();
    for (i, text) in texts.iter().enumerate() {
        if let Some(Some(column)) = table.columns.get(i) {
            names.push(quoted(column));
            marks.push(if *text { "CAST(? AS TEXT)" } else { "?" });
        }
    }
    let name = quoted(&table.name);
    if names.is_empty() {
        return db.prepare(&format!("INSERT OR IGNORE INTO main.{name} DEFAULT VALUES"));
    }
    let (names, marks) = (names.join(", "), marks.join(", "));
    db.prepare(&format!("INSERT OR IGNORE INTO main.{name} ({names}) VALUES ({marks})"))
}

/// A value bound as it is stored.
fn bound(value: Value<'_>, utf16: bool) -> ToSqlOutput<'_> {
    match value {
        Value::Null => ToSqlOutput::Owned(Owned::Null),
        Value::Integer(n) => ToSqlOutput::Owned(Owned::Integer(n)),
        Value::Real(r) => ToSqlOutput::Owned(Owned::Real(r)),
        Value::Text(t) if utf16 => ToSqlOutput::Borrowed(ValueRef::Blob(t)),
        Value::Text(t) => ToSqlOutput::Borrowed(ValueRef::Text(t)),
        Value::Blob(b) => ToSqlOutput::Borrowed(ValueRef::Blob(b)),
    }
}

impl Rows for Rebuild<'_> {
    fn row(&mut self, table: usize, rowid: i64, fields: &[Field], payload: &[u8]) -> io::Result<bool> {
        if let Some(bulk) = self.bulk.as_mut().filter(|b| b.takes(table)) {
            return bulk.row(table, rowid, fields, payload);
        }
        self.take_over()?;
        match self.insert(table, rowid, fields, payload) {
            Ok(inserted) => Ok(inserted),
            Err(e) => damage(&e).map(|_| false).ok_or_else(|| failed(e)),
        }
    }

    fn stray(&mut self, stray: &StrayRow<'_>) -> io::Result<()> {
        if self.bulk.is_some() && self.held_bytes < MAX_HELD {
            let StrayRow { page, top, class, rowid, fields, payload } = *stray;
            self.held_bytes += payload.len() + std::mem::size_of_val(fields) + size_of::<Held>();
            let (fields, payload) = (fields.to_vec(), payload.to_vec());
            self.held.push(Held { page, top, class, rowid, fields, payload });
        } else {
            self.take_over()?;
            self.add_stray(stray).map_err(failed)?;
        }
        self.found.rows += 1;
        match stray.class {
            "ambiguous" => self.found.ambiguous += 1,
            "index-like" => self.found.index_like += 1,
            "not-provable" => self.found.not_provable += 1,
            "older-state" => self.found.older_state += 1,
            "duplicate" => self.found.duplicate += 1,
            "refused" => self.found.refused += 1,
            _ => self.found.fits_nothing += 1,
        }
        Ok(())
    }
}

impl Sink for Rebuild<'_> {
    fn begin(&mut self, facts: &Facts, objects: &[Object]) -> io::Result<Vec<String>> {
        self.utf16 = facts.encoding > 1;
        let encoding = match facts.encoding {
            2 => "UTF-16le",
            3 => "UTF-16be",
            _ => "UTF-8",
        };
        self.db
            .execute_batch(&format!(
                "PRAGMA page_size = {}; PRAGMA encoding = '{encoding}'; PRAGMA auto_vacuum = {}; \
                 PRAGMA user_version = {}; PRAGMA application_id = {};",
                facts.page_size,
                facts.auto_vacuum,
                facts.user_version.cast_signed(),
                facts.application_id.cast_signed()
            ))
            .map_err(failed)?;
        if let Some(file) = self.file.as_ref().filter(|_| facts.reserved > 0) {
            bulk::reserve(file, facts.page_size, facts.reserved)?;
        }
        self.db.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
        let mut not_made = Vec::new();
        for object in objects {
            let own = object.entry.name.to_ascii_lowercase().starts_with("sqlite_");
            if object.class == Class::Index || own {
                self.tables.push(None);
                continue;
            }
            let why = self.make("table", &object.entry.name, &object.entry.sql)?;
            let table = why.is_none().then(|| table(object));
            self.tables.push(table);
            not_made.extend(why);
        }
        if let Some(file) = self.file.take() {
            let roots = self.roots(facts, objects).map_err(failed)?;
            if roots.iter().any(Option::is_some) {
                self.db.execute_batch("COMMIT").map_err(failed)?;
                self.bulk = Some(Bulk::new(file, (facts.page_size, facts.reserved), roots)?);
                let counted = objects.iter().enumerate().filter(|(_, o)| o.autoincrement);
                self.counted = counted.map(|(at, o)| (at, o.entry.name.clone())).collect();
            }
        }
        Ok(not_made)
    }

    fn prefers(&self, table: usize) -> bool {
        self.bulk.as_ref().is_some_and(|b| b.takes(table))
    }

    fn end(&mut self, entries: &[Entry], sequences: &[(String, i64)]) -> io::Result<(Vec<String>, LostAndFound)> {
        self.tables.clear();
        self.take_over()?;
        for (name, mark) in sequences {
            self.sequence(name, *mark).map_err(failed)?;
        }
        let mut not_made = Vec::new();
        for kind in ["index", "view", "trigger"] {
            for entry in entries.iter().filter(|e| e.kind == kind && !e.sql.is_empty()) {
                not_made.extend(self.make(kind, &entry.name, &entry.sql)?);
            }
        }
        for entry in entries.iter().filter(|e| e.kind == "table" && is_virtual(&e.sql)) {
            self.virtual_table(entry).map_err(failed)?;
        }
        self.db.execute_batch("COMMIT").map_err(failed)?;
        Ok((not_made, self.found.clone()))
    }
}

fn table<'c>(object: &Object) -> Table<'c> {
    let alias = object.alias();
    let taken = |word: &str| object.shape.columns.iter().any(|c| c.name.eq_ignore_ascii_case(word));
    let rowid = ["rowid", "_rowid_", "oid"].into_iter().find(|word| !taken(word));
    Table {
        name: object.entry.name.clone(),
        rowid: rowid.filter(|_| alias.is_none() && object.class == Class::Table),
        columns: object.insert.clone(),
        alias,
        plain: Vec::new(),
        cast: HashMap::new(),
    }
}
