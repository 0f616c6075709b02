//! The sink of a salvage: the real engine writing a new database, row by row, into a staged file.
//!
//! Tables are made from their own statements, rows go in with their rowids, indexes, views and triggers are made when
//! all rows are there. Values arrive bit by bit as they were stored: text is bound as bytes, and in a UTF-16 database
//! through a cast of a blob, which takes the bytes as they are and spares them a way through UTF-8 on which an unpaired
//! surrogate would be lost. Checks are off (what the file held, the file held), triggers and foreign keys as well.
//!
//! The sorter of an index spills into files beside the stage: what `/tmp` is in an initramfs is memory.

use std::collections::HashMap;
use std::io;

use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, Value as Owned, ValueRef};
use rusqlite::{Connection, OptionalExtension, Statement};

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
/// Longest message kept.
const MAX_WORDS: usize = 300;

/// Writes into one connection. The connection must be empty; everything happens in one transaction.
pub(super) struct Rebuild<'c> {
    db: &'c Connection,
    tables: Vec<Option<Table<'c>>>,
    utf16: bool,
    stray: Option<(String, usize)>,
    found: LostAndFound,
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
    /// A sink into an empty database. `spill` is a directory for the files of the sorter; without one it stays in memory.
    pub(super) fn new(db: &'c Connection, spill: Option<&std::path::Path>) -> io::Result<Self> {
        defend(db).map_err(failed)?;
        db.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; \
             PRAGMA ignore_check_constraints = ON; PRAGMA cache_size = -16384;",
        )
        .map_err(failed)?;
        if let Some(dir) = spill {
            let dir = dir.to_string_lossy().replace('\'', "''");
            db.execute_batch(&format!("PRAGMA temp_store = FILE; PRAGMA temp_store_directory = '{dir}';"))
                .map_err(failed)?;
        }
        Ok(Self { db, tables: Vec::new(), utf16: false, stray: None, found: LostAndFound::default() })
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
        match self.insert(table, rowid, fields, payload) {
            Ok(inserted) => Ok(inserted),
            Err(e) => damage(&e).map(|_| false).ok_or_else(|| failed(e)),
        }
    }

    fn stray(&mut self, stray: &StrayRow<'_>) -> io::Result<()> {
        self.add_stray(stray).map_err(failed)?;
        self.found.rows += 1;
        match stray.class {
            "ambiguous" => self.found.ambiguous += 1,
            "index-like" => self.found.index_like += 1,
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
                 PRAGMA user_version = {}; PRAGMA application_id = {}; BEGIN IMMEDIATE;",
                facts.page_size,
                facts.auto_vacuum,
                facts.user_version.cast_signed(),
                facts.application_id.cast_signed()
            ))
            .map_err(failed)?;
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
        Ok(not_made)
    }

    fn end(&mut self, entries: &[Entry], sequences: &[(String, i64)]) -> io::Result<(Vec<String>, LostAndFound)> {
        self.tables.clear();
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
