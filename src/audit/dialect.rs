//! The forms in which the agent may hash a record. Its documentation says: SHA-256 over "canonical JSON" of {action,
//! details, timestamp, prev_hash}. It does not say which canonical JSON, so every plausible one is a dialect, and the
//! dialect is taken from the rows that are there.
//!
//! Sixteen combinations of four choices, the likeliest first: separators (`,` `:` or Python's `, ` `: `), ASCII escapes or
//! raw UTF-8, details as an object or as the stored text, keys sorted or as inserted. Behind them the same sixteen with
//! the timestamp as text, asked only where none of the first explains a row.

use sha2::{Digest, Sha256};

use super::json::{self, Style, Value};
use crate::sqlite::rows::Cell;

/// A set of dialects, one bit each, by index into [`Dialect::all`].
pub type Set = u32;

/// The sixteen of the contract.
pub const FIRST: Set = 0x0000_ffff;
/// All, with the timestamp as text too.
pub const ALL: Set = 0xffff_ffff;

/// One way to hash a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect(u8);

impl Dialect {
    /// Compact, sorted, ASCII escapes, details as an object: what stands for a chain from which nothing can be learnt.
    pub const DEFAULT: Dialect = Dialect(0);

    /// Every dialect, the likeliest first.
    pub fn all() -> impl Iterator<Item = Dialect> {
        (0..32).map(Dialect)
    }

    /// The dialects of a set.
    pub fn of(set: Set) -> impl Iterator<Item = Dialect> {
        Self::all().filter(move |d| set & d.bit() != 0)
    }

    /// Its bit in a set.
    #[must_use]
    pub fn bit(self) -> Set {
        1 << self.0
    }

    /// The dialect of a name, as [`Dialect::name`] gives it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|d| d.name() == name)
    }

    fn insertion(self) -> bool {
        self.0 & 1 != 0
    }

    fn spaced(self) -> bool {
        self.0 & 2 != 0
    }

    fn raw(self) -> bool {
        self.0 & 4 != 0
    }

    fn stored_text(self) -> bool {
        self.0 & 8 != 0
    }

    fn stamp_text(self) -> bool {
        self.0 & 16 != 0
    }

    /// In words, for reports and records; [`Dialect::named`] reads it back.
    #[must_use]
    pub fn name(self) -> String {
        let words = [
            if self.spaced() { "default-separators" } else { "compact" },
            if self.insertion() { "inserted-order" } else { "sorted" },
            if self.raw() { "utf-8" } else { "ascii" },
            if self.stored_text() { "details-as-text" } else { "details-as-object" },
        ];
        let tail = if self.stamp_text() { ",timestamp-as-text" } else { "" };
        words.join(",") + tail
    }

    fn style(self) -> Style {
        Style { spaced: self.spaced(), ascii: !self.raw(), sorted: !self.insertion() }
    }

    /// The bytes that are hashed; `None` when Python could not make them in this dialect.
    #[must_use]
    pub fn hashed_text(self, record: &Parsed) -> Option<Vec<u8>> {
        let details = if self.stored_text() { record.text.as_ref() } else { record.object.as_ref() }?;
        let stamp = match (&record.timestamp, self.stamp_text()) {
            (Value::Float(x), true) => Value::text(&json::repr(*x)),
            (Value::Int(n), true) => Value::text(n),
            (_, true) => return None,
            (stamp, false) => stamp.clone(),
        };
        // Insertion order is that of the documentation.
        let pairs = vec![
            ("action".into(), record.action.clone()),
            ("details".into(), details.clone()),
            ("timestamp".into(), stamp),
            ("prev_hash".into(), record.prev.clone()),
        ];
        json::dumps(&Value::Object(pairs), self.style())
    }

    /// The record hash, lower-case hex.
    #[must_use]
    pub fn hash(self, record: &Parsed) -> Option<String> {
        self.hashed_text(record).map(|text| sha256(&text))
    }
}

/// SHA-256, lower-case hex.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A row of `privacy_audit`, values as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// `id`.
    pub id: i64,
    /// `timestamp`.
    pub timestamp: Cell,
    /// `action`.
    pub action: Cell,
    /// `details`.
    pub details: Cell,
    /// `prev_hash`.
    pub prev: Cell,
    /// `record_hash`.
    pub hash: Cell,
}

/// A record as Python values, parsed once for all dialects.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    timestamp: Value,
    action: Value,
    prev: Value,
    /// Details as `json.loads` gives them; `None` when they are no JSON.
    object: Option<Value>,
    /// Details as the stored text; `None` when they are no text.
    text: Option<Value>,
}

impl Parsed {
    /// Reads a record; the error names the field that no Python program could put into JSON.
    pub fn new(record: &Record) -> Result<Self, String> {
        let field = |name: &str, cell: &Cell| value(cell).ok_or_else(|| format!("its {name} is no text and no number"));
        let details = field("details", &record.details)?;
        let object = match &record.details {
            Cell::Text(text) => json::loads(text).ok(),
            _ => Some(details.clone()),
        };
        Ok(Self {
            timestamp: field("timestamp", &record.timestamp)?,
            action: field("action", &record.action)?,
            prev: field("prev_hash", &record.prev)?,
            object,
            text: Some(details),
        })
    }

    /// The details as an object, where they are JSON.
    #[must_use]
    pub fn details(&self) -> Option<&Value> {
        self.object.as_ref()
    }

    /// The dialects among `asked` in which `hash` is the hash of this record. Dialects that give the same bytes are
    /// hashed once.
    #[must_use]
    pub fn explained_by(&self, hash: &Cell, asked: Set) -> Set {
        let Cell::Text(stored) = hash else { return 0 };
        let mut seen: Vec<(Vec<u8>, bool)> = Vec::new();
        let mut found = 0;
        for dialect in Dialect::of(asked) {
            let Some(text) = dialect.hashed_text(self) else { continue };
            let right = match seen.iter().find(|(known, _)| *known == text) {
                Some((_, right)) => *right,
                None => {
                    let right = sha256(&text).as_bytes() == stored.as_slice();
                    seen.push((text, right));
                    right
                }
            };
            if right {
                found |= dialect.bit();
            }
        }
        found
    }
}

fn value(cell: &Cell) -> Option<Value> {
    match cell {
        Cell::Null => Some(Value::Null),
        Cell::Integer(n) => Some(Value::int(*n)),
        Cell::Real(x) => Some(Value::Float(*x)),
        Cell::Text(text) => std::str::from_utf8(text).ok().map(Value::text),
        Cell::Blob(_) => None,
    }
}

/// How the agent stores details: `json.dumps` as it is called for the column, learnt from a row.
#[must_use]
pub fn stored_style(details: &Cell) -> Option<Style> {
    let Cell::Text(text) = details else { return None };
    let value = json::loads(text).ok()?;
    let choices = [(true, false), (false, true), (true, true), (false, false)];
    let mut styles = choices
        .iter()
        .flat_map(|(spaced, sorted)| [true, false].map(|ascii| Style { spaced: *spaced, ascii, sorted: *sorted }));
    styles.find(|style| json::dumps(&value, *style).as_ref() == Some(text))
}
