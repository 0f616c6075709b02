//! The tables and indexes of a schema with what their records look like and what was found of their trees.

use super::catalog::Entry;
use super::shape::{Column, Shape};
use super::tree::Tree;
use crate::sqlite::collate::{Collation, KeyOrder};
use crate::sqlite::schema::{self, Affinity, Generated, KeyPart, KeySource, StandardType, TableDef};

/// What kind of tree an object is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A table keyed by rowid.
    Table,
    /// A WITHOUT ROWID table: kept in the pages of an index.
    KeyTable,
    /// An index.
    Index,
}

/// One object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its entry in the schema.
    pub entry: Entry,
    /// Its kind of tree.
    pub class: Class,
    /// Its records.
    pub shape: Shape,
    /// For tables, per stored value: the column to insert it into; `None` for what the engine computes itself.
    pub insert: Vec<Option<String>>,
    /// For tables: AUTOINCREMENT.
    pub autoincrement: bool,
    /// For indexes made of columns alone, without WHERE: places of their columns in the table's record.
    pub index_columns: Option<Vec<usize>>,
    /// For those: the order of their entries, the rowid last; `None` where an application defines it.
    pub order: Option<Vec<KeyOrder>>,
    /// What was found of its tree.
    pub tree: Tree,
    /// True when its root was found where the schema says.
    pub rooted: bool,
    /// Orphans it took in.
    pub adopted: u32,
    /// Open holes, sorted and joined, as they were before the first orphan.
    pub open: Option<Vec<(i64, i64)>>,
}

impl Object {
    /// True when rowids from `low` to `high` may be missing together.
    pub fn misses(&self, low: i64, high: i64) -> bool {
        let open = self.open.as_deref().unwrap_or(&[]);
        let at = open.partition_point(|(from, _)| *from < low || (*from == i64::MIN && low == i64::MIN));
        at.checked_sub(1).and_then(|at| open.get(at)).is_some_and(|(_, to)| high <= *to)
    }

    /// Place of the rowid's alias in the record.
    pub fn alias(&self) -> Option<usize> {
        self.shape.columns.iter().position(|c| c.alias)
    }
}

/// Every table and index with a tree, and the names of tables whose statement was not understood.
pub fn build(entries: &[Entry]) -> (Vec<Object>, Vec<String>) {
    let mut objects = Vec::new();
    let mut unknown = Vec::new();
    let mut tables: Vec<TableDef> = Vec::new();
    for entry in entries.iter().filter(|e| e.kind == "table" && !is_virtual(&e.sql)) {
        match schema::table(&entry.sql) {
            Ok(def) => {
                objects.push(table(entry, &def));
                tables.push(def);
            }
            Err(_) => unknown.push(entry.name.clone()),
        }
    }
    for entry in entries.iter().filter(|e| e.kind == "index") {
        let Some(of) = tables.iter().find(|t| t.name.eq_ignore_ascii_case(&entry.table)) else { continue };
        let def =
            if entry.sql.is_empty() { of.auto_index(&entry.name).cloned() } else { schema::index(&entry.sql, of).ok() };
        if let Some(def) = def {
            objects.push(index(entry, of, &def.layout(of, 4), def.partial));
        }
    }
    // More owners than page marks can tell apart; a schema of this size is crafted.
    objects.truncate(usize::from(super::assign::GHOST) - 1);
    (objects, unknown)
}

/// True for a virtual table: it has no tree of its own, its shadow tables are ordinary ones.
pub fn is_virtual(sql: &str) -> bool {
    let mut words = sql.split_whitespace();
    words.next().is_some_and(|w| w.eq_ignore_ascii_case("create"))
        && words.next().is_some_and(|w| w.eq_ignore_ascii_case("virtual"))
}

fn table(entry: &Entry, def: &TableDef) -> Object {
    let stored = def.stored_columns();
    let column = |i: &usize| def.columns.get(*i).map(|c| value(def, *i, c));
    let mut seen = vec![false; def.columns.len()];
    let insert = stored
        .iter()
        .map(|i| {
            let c = def.columns.get(*i)?;
            let first = seen.get_mut(*i).is_some_and(|s| !std::mem::replace(s, true));
            (c.generated == Generated::No && first).then(|| c.name.clone())
        })
        .collect();
    Object {
        entry: entry.clone(),
        class: if def.without_rowid { Class::KeyTable } else { Class::Table },
        shape: Shape {
            columns: stored.iter().filter_map(column).collect(),
            rowid_table: !def.without_rowid,
            ends_with_rowid: false,
            guessed: false,
        },
        insert,
        autoincrement: def.autoincrement,
        index_columns: None,
        order: None,
        tree: Tree::default(),
        rooted: false,
        adopted: 0,
        open: None,
    }
}

fn value(def: &TableDef, at: usize, c: &schema::ColumnDef) -> Column {
    let strict = def.strict && !matches!(c.standard, StandardType::Any | StandardType::Other);
    // ANY in a STRICT table keeps what it is given, as a column without a type does.
    let affinity = if def.strict && c.standard == StandardType::Any { Affinity::Blob } else { c.affinity };
    Column {
        name: c.name.clone(),
        affinity,
        not_null: c.not_null,
        alias: def.rowid_alias == Some(at),
        // ALTER TABLE ADD COLUMN demands a default of a column that is NOT NULL.
        optional: !c.not_null || c.default.is_some(),
        strict,
    }
}

fn index(entry: &Entry, of: &TableDef, parts: &[KeyPart], partial: bool) -> Object {
    let stored = of.stored_columns();
    let column = |part: &KeyPart| {
        let anything = |name: &str, affinity| Column {
            name: name.to_string(),
            affinity,
            not_null: false,
            alias: false,
            optional: false,
            strict: false,
        };
        match part.source {
            // The alias of the rowid is spelled out in an index.
            KeySource::Column(i) if of.rowid_alias == Some(i) => anything("rowid", Affinity::Integer),
            KeySource::Column(i) => match of.columns.get(i) {
                Some(c) => Column { alias: false, ..value(of, i, c) },
                None => anything("", Affinity::Blob),
            },
            KeySource::Rowid => anything("rowid", Affinity::Integer),
            KeySource::Expression => anything("", Affinity::Blob),
        }
    };
    let place = |part: &KeyPart| match part.source {
        KeySource::Column(i) => stored.iter().position(|s| *s == i),
        _ => None,
    };
    let keys = if of.without_rowid { parts } else { parts.get(..parts.len().saturating_sub(1)).unwrap_or(&[]) };
    let index_columns: Option<Vec<usize>> = keys.iter().map(place).collect();
    let order = |p: &KeyPart| Collation::named(&p.collation).map(|collation| KeyOrder { collation, desc: p.desc });
    Object {
        entry: entry.clone(),
        class: Class::Index,
        shape: Shape {
            columns: parts.iter().map(column).collect(),
            rowid_table: false,
            ends_with_rowid: !of.without_rowid,
            guessed: false,
        },
        insert: Vec::new(),
        autoincrement: false,
        index_columns: index_columns.filter(|_| !partial && !of.without_rowid),
        order: parts.iter().map(order).collect(),
        tree: Tree::default(),
        rooted: false,
        adopted: 0,
        open: None,
    }
}
