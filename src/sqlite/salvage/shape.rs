//! What the rows of a table and the entries of an index look like, and whether a record can be one of them.
//!
//! Hard rules only, each a promise that SQLite keeps when it writes (datatype3, section 3; file format 2, section 2.3):
//! never more values than columns; the rowid's alias is stored as NULL; a NOT NULL column is not NULL; a column of TEXT
//! affinity never holds a number, one of REAL affinity never holds a number that is not a double or its integer form;
//! an entry of an index ends with the rowid (or the key of a WITHOUT ROWID table).

use super::fields::Field;
use crate::sqlite::schema::Affinity;

/// One value of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name.
    pub name: String,
    /// Affinity.
    pub affinity: Affinity,
    /// Never NULL.
    pub not_null: bool,
    /// The alias of the rowid: stored as NULL.
    pub alias: bool,
    /// May be missing at the end of an old row (it was added later).
    pub optional: bool,
    /// STRICT: the very storage class its type names.
    pub strict: bool,
}

/// The records of one object, values in the order in which they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Columns as stored.
    pub columns: Vec<Column>,
    /// True for rowid tables, whose rows may lack columns that were added later.
    pub rowid_table: bool,
    /// True for an index whose entries end with a rowid.
    pub ends_with_rowid: bool,
    /// True where the schema itself is a guess: then only records that match it in every value are taken for its rows.
    pub guessed: bool,
}

impl Shape {
    /// True when a record can be one of this object.
    pub fn fits(&self, fields: &[Field]) -> bool {
        if fields.is_empty() || fields.len() > self.columns.len() {
            return false;
        }
        let short = self.columns.get(fields.len()..).unwrap_or(&[]);
        if !short.is_empty() && (!self.rowid_table || !short.iter().all(|c| c.optional)) {
            return false;
        }
        if self.ends_with_rowid && !fields.last().is_some_and(|f| f.is_integer()) {
            return false;
        }
        if self.guessed && fields.len() != self.columns.len() {
            return false;
        }
        self.columns.iter().zip(fields).all(|(c, f)| c.holds(*f) && (!self.guessed || c.likeness(*f) > 0))
    }

    /// How closely the storage classes of a record match what the columns are declared for, for choosing between
    /// shapes that all fit: 2 for the class a column is named for, 1 for NULL, 0 for what it merely tolerates.
    pub fn likeness(&self, fields: &[Field]) -> u32 {
        let complete = u32::from(fields.len() == self.columns.len());
        self.columns.iter().zip(fields).map(|(c, f)| c.likeness(*f)).sum::<u32>() + complete
    }
}

impl Column {
    fn holds(&self, f: Field) -> bool {
        if self.alias {
            return f.is_null();
        }
        if f.is_null() {
            return !self.not_null;
        }
        match self.affinity {
            Affinity::Text => !f.is_integer() && !f.is_real() && (!self.strict || f.is_text()),
            Affinity::Blob => !self.strict || f.is_blob(),
            Affinity::Integer => !self.strict || f.is_integer(),
            Affinity::Real => !self.strict || f.is_real() || f.is_integer(),
            Affinity::Numeric => true,
        }
    }

    fn likeness(&self, f: Field) -> u32 {
        match self.affinity {
            _ if self.alias => 2,
            _ if f.is_null() => 1,
            Affinity::Text => 2 * u32::from(f.is_text()),
            Affinity::Integer => 2 * u32::from(f.is_integer()),
            Affinity::Real => 2 * u32::from(f.is_real() || f.is_integer()),
            Affinity::Numeric => 2 * u32::from(f.is_real() || f.is_integer()),
            Affinity::Blob => 2 * u32::from(f.is_blob()),
        }
    }
}
