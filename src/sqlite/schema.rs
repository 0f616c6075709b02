//! What the texts in `sqlite_schema` say about stored records: our own reading of CREATE TABLE and CREATE INDEX.
//!
//! Opening a database with the engine is a write, so the layout of its records must be known without it: which columns a
//! table has and in which order they are stored (sqlite.org/fileformat2.html sections 2.2 to 2.5), affinities
//! (sqlite.org/datatype3.html section 3.1), the key of every index with collation and direction, the automatic indexes
//! that PRIMARY KEY and UNIQUE imply, and the quirks that decide them (sqlite.org/lang_createtable.html,
//! sqlite.org/withoutrowid.html).
//!
//! The reader is total: whatever it does not understand is [`NotUnderstood`] with the reason, and callers then leave the
//! object to the engine on a copy. It never guesses. What it accepts may be wider than what SQLite accepts, because a
//! text in a schema was accepted once.

mod index;
mod literal;
mod names;
mod table;
mod token;

pub use index::index;
pub use literal::{Literal, looks_numeric};
pub use names::{Described, described};
pub use table::table;
pub use token::{Cursor, Kind, Token};

use std::collections::BTreeMap;

/// Longest text read. SQLite allows a thousand million bytes; two thousand columns with long names need a quarter of this.
pub const MAX_TEXT: usize = 1 << 18;
/// Most columns of a table or index: SQLITE_MAX_COLUMN as every common build has it.
pub const MAX_COLUMNS: usize = 2000;

/// A text that was not understood, and why. Its object is left to the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotUnderstood(pub String);

impl NotUnderstood {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// Column affinity (datatype3.html section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// No conversion.
    Blob,
    /// Numbers become text.
    Text,
    /// Text that is a number becomes one.
    Numeric,
    /// As numeric; reals that are integers become integers.
    Integer,
    /// Integers become reals (and are stored as integers where that is shorter, see [`Affinity::Real`] in records).
    Real,
}

/// How a column gets its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generated {
    /// It is stored as given.
    No,
    /// Computed when read; not in the record.
    Virtual,
    /// Computed when written; in the record.
    Stored,
}

/// One of the six type names of STRICT tables (stricttables.html section 2), or something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandardType {
    /// No type, or another word.
    Other,
    /// `ANY`.
    Any,
    /// `BLOB`.
    Blob,
    /// `INT`.
    Int,
    /// `INTEGER`: the one that makes a rowid alias.
    Integer,
    /// `REAL`.
    Real,
    /// `TEXT`.
    Text,
}

/// One column.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDef {
    /// Name.
    pub name: String,
    /// Declared type as written, empty when none.
    pub declared: String,
    /// The declared type as STRICT tables know it.
    pub standard: StandardType,
    /// Affinity.
    pub affinity: Affinity,
    /// NOT NULL, declared or implied (primary keys of WITHOUT ROWID and STRICT tables).
    pub not_null: bool,
    /// Collating sequence, "BINARY" when none is given.
    pub collation: String,
    /// The value a record shorter than the column list has here; `None`: NULL.
    pub default: Option<Literal>,
    /// Generated column.
    pub generated: Generated,
}

/// What one part of a key is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A column of the table, counted from 0.
    Column(usize),
    /// The rowid.
    Rowid,
    /// An expression: only the engine can compute it.
    Expression,
}

/// One part of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPart {
    /// Where it is taken from.
    pub source: KeySource,
    /// Collating sequence.
    pub collation: String,
    /// Descending order (schema format 4 only; see [`IndexDef::layout`]).
    pub desc: bool,
}

/// Where an index comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// CREATE INDEX.
    Create,
    /// A UNIQUE constraint.
    Unique,
    /// The PRIMARY KEY.
    PrimaryKey,
}

/// One index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexDef {
    /// Name.
    pub name: String,
    /// Its table.
    pub table: String,
    /// True when its key may not repeat.
    pub unique: bool,
    /// The declared parts.
    pub parts: Vec<KeyPart>,
    /// True when it has a WHERE clause.
    pub partial: bool,
    /// Where it comes from.
    pub origin: Origin,
}

/// One table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableDef {
    /// Name.
    pub name: String,
    /// Columns as declared.
    pub columns: Vec<ColumnDef>,
    /// WITHOUT ROWID.
    pub without_rowid: bool,
    /// STRICT.
    pub strict: bool,
    /// The column that is the rowid; its place in the record holds NULL.
    pub rowid_alias: Option<usize>,
    /// AUTOINCREMENT.
    pub autoincrement: bool,
    /// Parts of the primary key as declared, repeats taken out as SQLite does for WITHOUT ROWID tables.
    pub primary_key: Vec<KeyPart>,
    /// True when it has CHECK constraints.
    pub has_check: bool,
    /// The indexes its constraints imply, in the order of their numbers. The primary key of a WITHOUT ROWID table is
    /// among them and has a number, but no entry in `sqlite_schema`: it is the table.
    pub auto_indexes: Vec<IndexDef>,
    /// Columns by name in lower case: a hostile schema can ask for them millions of times.
    names: BTreeMap<String, usize>,
}

impl TableDef {
    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.names.get(&name.to_ascii_lowercase()).copied()
    }

    /// The automatic index of this name.
    pub fn auto_index(&self, name: &str) -> Option<&IndexDef> {
        self.auto_indexes.iter().find(|i| i.name.eq_ignore_ascii_case(name))
    }

    /// Columns in the order of the record: the key first in a WITHOUT ROWID table (a column stands there twice when the
    /// key holds it under two collations), else as declared; virtual columns are not stored.
    pub fn stored_columns(&self) -> Vec<usize> {
        let mut stored = Vec::with_capacity(self.columns.len());
        let mut keyed = vec![false; self.columns.len()];
        if self.without_rowid {
            for part in &self.primary_key {
                if let KeySource::Column(c) = part.source {
                    stored.push(c);
                    if let Some(k) = keyed.get_mut(c) {
                        *k = true;
                    }
                }
            }
        }
        let rest = self.columns.iter().zip(&keyed).enumerate();
        stored.extend(rest.filter(|(_, (c, k))| !**k && c.generated != Generated::Virtual).map(|(i, _)| i));
        stored
    }
}

impl IndexDef {
    /// The parts of its records in order: the declared ones, then the rowid or what the primary key adds.
    /// `schema_format` is the header's word at offset 44: before 4, DESC is ignored. `None` when the table's key is not
    /// made of columns.
    pub fn layout(&self, table: &TableDef, schema_format: u32) -> Vec<KeyPart> {
        let mut parts = self.parts.clone();
        if table.without_rowid {
            for key in &table.primary_key {
                if !same_column(&self.parts, key) {
                    // The automatic indexes of a WITHOUT ROWID table store these ascending whatever the key says.
                    parts.push(KeyPart { desc: key.desc && self.origin == Origin::Create, ..key.clone() });
                }
            }
        } else {
            parts.push(KeyPart { source: KeySource::Rowid, collation: BINARY.to_string(), desc: false });
        }
        if schema_format < 4 {
            parts.iter_mut().for_each(|p| p.desc = false);
        }
        parts
    }
}

/// The collation of columns that name none.
pub const BINARY: &str = "BINARY";

/// True when `parts` hold the same column under the same collation.
fn same_column(parts: &[KeyPart], key: &KeyPart) -> bool {
    parts.iter().any(|p| p.source == key.source && p.collation.eq_ignore_ascii_case(&key.collation))
}

/// Affinity of a declared type (datatype3.html section 3.1).
pub fn affinity_of(declared: &str) -> Affinity {
    if declared.is_empty() {
        return Affinity::Blob;
    }
    let lower = declared.to_ascii_lowercase();
    let mut affinity = Affinity::Numeric;
    let bytes = lower.as_bytes();
    for end in 1..=bytes.len() {
        let tail = bytes.get(..end).unwrap_or(&[]);
        if tail.ends_with(b"char") || tail.ends_with(b"clob") || tail.ends_with(b"text") {
            affinity = Affinity::Text;
        } else if tail.ends_with(b"blob") && matches!(affinity, Affinity::Numeric | Affinity::Real) {
            affinity = Affinity::Blob;
        } else if (tail.ends_with(b"real") || tail.ends_with(b"floa") || tail.ends_with(b"doub"))
            && affinity == Affinity::Numeric
        {
            affinity = Affinity::Real;
        } else if tail.ends_with(b"int") {
            return Affinity::Integer;
        }
    }
    affinity
}

#[cfg(test)]
mod tests;
