//! Rows: their records, NOT NULL, the kinds of value a column may hold, and the index entries they imply.

use super::judge::Judge;
use super::objects::{BLOB, INTEGER, NULL, PartFrom, REAL, Rows, TEXT};
use super::pages::CellAt;
use super::pass::MAX_PREFIX;
use super::tally::Aim;
use crate::sqlite::collate::utf8;
use crate::sqlite::record::{Class, Field, Unsplit, Value, split};
use crate::sqlite::schema::{Literal, looks_numeric};

impl Judge<'_> {
    /// A row of a rowid table.
    pub fn row(&mut self, tree: usize, number: u32, cell: &CellAt<'_>) {
        let env = self.env;
        self.tally.count(tree);
        let Some(rows) = env.trees.get(tree).and_then(|s| s.rows.as_ref()) else { return };
        let mut fields = std::mem::take(&mut self.tally.scratch.fields);
        let mut long = None;
        let mut split_up = split(cell.local, cell.payload_len, &mut fields);
        if let Err(Unsplit::Needs(n)) = split_up
            && cell.overflow != 0
            && let Some(bytes) = self.prefix(cell.local, cell.overflow, n)
        {
            split_up = split(&bytes, cell.payload_len, &mut fields);
            long = Some(bytes);
        }
        match split_up {
            Ok(()) => {
                let have = long.as_ref().map_or(cell.local.len(), Vec::len);
                let last = fields.len().min(rows.reach).checked_sub(1).and_then(|i| fields.get(i));
                let needed = last.map_or(0, Field::end);
                if needed > have && needed <= MAX_PREFIX {
                    long = self.prefix(cell.local, cell.overflow, needed).or(long);
                }
                let bytes = long.as_deref().unwrap_or(cell.local);
                self.values(tree, number, rows, &fields, bytes, Some(cell.rowid));
                self.implied(rows, &fields, bytes, cell.rowid, &|| None);
            }
            Err(Unsplit::Damaged(why)) => {
                let id = cell.rowid;
                self.error(tree, "record-damaged", number, |n| format!("row {id} on page {number} of {n}: {why}"));
            }
            Err(Unsplit::Needs(_)) => {
                let id = cell.rowid;
                self.error(tree, "record-damaged", number, |n| {
                    format!("row {id} on page {number} of {n}: its header runs off it")
                });
            }
        }
        self.tally.scratch.fields = fields;
    }

    /// Checks the values of a row against its columns.
    pub fn values(
        &mut self,
        tree: usize,
        number: u32,
        rows: &Rows,
        fields: &[Field],
        bytes: &[u8],
        rowid: Option<i64>,
    ) {
        if !matches!(self.tally.aim, Aim::Check) {
            return;
        }
        let row = || rowid.map_or("a row".to_string(), |id| format!("row {id}"));
        if fields.len() > rows.stored {
            let (has, wants) = (fields.len(), rows.stored);
            self.error(tree, "record-damaged", number, |n| {
                format!("{} on page {number} of {n} has {has} values, its table {wants} columns", row())
            });
        }
        let encoding = self.env.header.encoding;
        for column in &rows.columns {
            let (mut kind, field) = match fields.get(column.at) {
                Some(f) => (kind_of(f.class), Some(f)),
                None if column.missing == 0 => continue,
                None => (column.missing, None),
            };
            if kind == REAL && column.not_null && field.and_then(|f| f.value(bytes)) == Some(Value::Null) {
                kind = NULL;
            }
            if column.not_null && kind == NULL {
                let name = &column.name;
                self.error(tree, "null-in-not-null", number, |n| {
                    format!("{} on page {number} has NULL in {n}.{name}, which is NOT NULL", row())
                });
            } else if kind & column.allowed == 0 && kind != NULL {
                let name = &column.name;
                self.error(tree, "value-of-wrong-type", number, |n| {
                    format!("{} on page {number} has a value in {n}.{name} of a type that it cannot hold", row())
                });
            } else if column.no_numeric_text
                && kind == TEXT
                && let Some(Value::Text(text)) = field.and_then(|f| f.value(bytes))
                && looks_numeric(&utf8(text, encoding))
            {
                let name = &column.name;
                self.error(tree, "value-of-wrong-type", number, |n| {
                    format!("{} on page {number} has a number as text in {n}.{name}", row())
                });
            }
        }
        if encoding <= 1 {
            let odd = |f: &Field| {
                f.class == Class::Text
                    && matches!(f.value(bytes), Some(Value::Text(t)) if !t.is_ascii() && std::str::from_utf8(t).is_err())
            };
            if fields.iter().any(odd) {
                self.tally.odd(tree, number, rowid.unwrap_or(0));
            }
        }
    }

    /// Adds the entries that a row implies to the sums of its indexes. A row without a rowid has instead what stands for
    /// its primary key, and `key` in words.
    #[inline]
    pub fn implied(
        &mut self,
        rows: &Rows,
        fields: &[Field],
        bytes: &[u8],
        rowid: i64,
        key: &dyn Fn() -> Option<String>,
    ) {
        let keyed = &self.env.keyed;
        'entries: for entry in &rows.entries {
            let mut mix = keyed.begin();
            for part in &entry.parts {
                match part {
                    PartFrom::Rowid => mix.integer(rowid),
                    PartFrom::Stored { at, missing } => match (fields.get(*at), missing) {
                        (Some(field), _) => match field.value(bytes) {
                            Some(value) => mix.value(value),
                            None => {
                                self.tally.skip(entry.tree, "rows too long to be read here");
                                continue 'entries;
                            }
                        },
                        (None, Literal::Null) => mix.value(Value::Null),
                        (None, Literal::Integer(n)) => mix.integer(*n),
                        (None, Literal::Real(r)) => mix.value(Value::Real(*r)),
                        (None, Literal::Blob(b)) => mix.value(Value::Blob(b)),
                        (None, Literal::Text(t)) => match self.env.header.encoding {
                            2 => mix.value(Value::Text(&utf16(t, u16::to_le_bytes))),
                            3 => mix.value(Value::Text(&utf16(t, u16::to_be_bytes))),
                            _ => mix.value(Value::Text(t.as_bytes())),
                        },
                        (None, Literal::Expression) => {
                            self.tally.skip(entry.tree, "a default that only SQL can compute");
                            continue 'entries;
                        }
                    },
                }
            }
            let mixed = mix.end();
            match &mut self.tally.aim {
                Aim::Check => {
                    if let Some((table, _)) = self.tally.sums.get_mut(entry.tree) {
                        table.add(mixed);
                    }
                }
                Aim::Name(naming) => naming.note(entry.tree, mixed, rowid, true, key),
            }
        }
    }

    /// Adds an entry that an index holds.
    #[inline]
    pub fn held(&mut self, tree: usize, mixed: u64, rowid: i64, key: &dyn Fn() -> Option<String>) {
        match &mut self.tally.aim {
            Aim::Check => {
                if let Some((_, index)) = self.tally.sums.get_mut(tree) {
                    index.add(mixed);
                }
            }
            Aim::Name(naming) => naming.note(tree, mixed, rowid, false, key),
        }
    }
}

fn kind_of(class: Class) -> u8 {
    match class {
        Class::Null => NULL,
        Class::Integer | Class::Constant(_) => INTEGER,
        Class::Real => REAL,
        Class::Text => TEXT,
        Class::Blob => BLOB,
    }
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(unit).collect()
}
