//! Entries of indexes and of WITHOUT ROWID tables.

use std::cmp::Ordering;

use super::judge::Judge;
use super::objects::TreeSpec;
use super::pages::CellAt;
use super::pass::MAX_PREFIX;
use super::tally::Aim;
use crate::sqlite::collate::{KeyOrder, compare, utf8};
use crate::sqlite::record::{Field, Unsplit, Value, split};

/// One entry with its bytes; the buffers are used again.
#[derive(Debug, Default)]
pub(super) struct Entry {
    bytes: Vec<u8>,
    pub fields: Vec<Field>,
}

impl Entry {
    /// Value of a part; NULL where the record is too short to have it (its default is not part of a key's order).
    #[inline]
    pub fn value(&self, part: usize) -> Value<'_> {
        self.fields.get(part).and_then(|f| f.value(&self.bytes)).unwrap_or(Value::Null)
    }

    /// Order of two entries, and how many leading parts are equal.
    #[inline]
    pub fn compare(&self, other: &Self, order: &[KeyOrder], encoding: u32) -> (Ordering, usize) {
        for (i, o) in order.iter().enumerate() {
            let ordering = compare(self.value(i), other.value(i), *o, encoding);
            if ordering != Ordering::Equal {
                return (ordering, i);
            }
        }
        (Ordering::Equal, order.len())
    }

    /// True when one of the first parts is NULL: such keys may repeat.
    pub fn any_null(&self, parts: usize) -> bool {
        (0..parts).any(|i| self.value(i) == Value::Null)
    }
}

/// Why an entry was not loaded.
pub(super) enum Unloaded {
    /// Its record is damaged.
    Damaged(&'static str),
    /// It is longer than is read here.
    Long,
    /// Its chain is broken; that is found elsewhere.
    Chain,
}

impl Judge<'_> {
    /// Splits an entry and gathers as much of its payload as its key needs.
    pub fn load(
        &mut self,
        tree: usize,
        local: &[u8],
        payload_len: u64,
        overflow: u32,
        into: &mut Entry,
    ) -> Result<(), Unloaded> {
        let spec = self.spec(tree);
        let key = spec.and_then(|s| s.keys.as_ref()).map_or(0, |k| k.order.as_ref().map_or(0, Vec::len));
        // Of an index every value takes part; of a WITHOUT ROWID table the key and what its indexes hold.
        let reach = match spec.and_then(|s| s.rows.as_ref()) {
            Some(rows) => key.max(rows.reach),
            None => usize::MAX,
        };
        into.bytes.clear();
        into.bytes.extend_from_slice(local);
        match split(&into.bytes, payload_len, &mut into.fields) {
            Ok(()) => {}
            Err(Unsplit::Damaged(why)) => return Err(Unloaded::Damaged(why)),
            Err(Unsplit::Needs(_)) if overflow == 0 => return Err(Unloaded::Damaged("its header runs off it")),
            Err(Unsplit::Needs(n)) => {
                let Some(bytes) = self.prefix(local, overflow, n) else { return Err(Unloaded::Chain) };
                into.bytes = bytes;
                match split(&into.bytes, payload_len, &mut into.fields) {
                    Ok(()) => {}
                    Err(Unsplit::Damaged(why)) => return Err(Unloaded::Damaged(why)),
                    Err(Unsplit::Needs(_)) => return Err(Unloaded::Chain),
                }
            }
        }
        let last = into.fields.len().min(reach).checked_sub(1).and_then(|i| into.fields.get(i));
        let needed = last.map_or(0, Field::end);
        if needed > into.bytes.len() {
            if needed > MAX_PREFIX {
                return Err(Unloaded::Long);
            }
            let Some(bytes) = self.prefix(local, overflow, needed) else { return Err(Unloaded::Chain) };
            into.bytes = bytes;
        }
        Ok(())
    }

    /// Judges an entry by itself and adds it to the sums. False when it could not be read.
    pub fn entry(&mut self, tree: usize, number: u32, cell: &CellAt<'_>, entry: &mut Entry) -> bool {
        self.tally.count(tree);
        match self.load(tree, cell.local, cell.payload_len, cell.overflow, entry) {
            Ok(()) => {}
            Err(Unloaded::Damaged(why)) => {
                self.error(tree, "record-damaged", number, |n| format!("an entry on page {number} of {n}: {why}"));
                return false;
            }
            Err(Unloaded::Long) => {
                self.tally.skip(tree, "keys too long to be read here");
                return false;
            }
            Err(Unloaded::Chain) => {
                self.tally.skip(tree, "keys on a broken overflow chain");
                return false;
            }
        }
        let env = self.env;
        let Some(spec) = env.trees.get(tree) else { return true };
        let encoding = env.header.encoding;
        if let Some(rows) = &spec.rows {
            let fields = std::mem::take(&mut entry.fields);
            self.values(tree, number, rows, &fields, &entry.bytes, None);
            let row = self.stands_for(spec, &fields, &entry.bytes);
            self.implied(rows, &fields, &entry.bytes, row, &|| key_in_words(spec, &fields, &entry.bytes, encoding));
            entry.fields = fields;
        }
        let Some(keys) = &spec.keys else { return true };
        if spec.rows.is_none() {
            if entry.fields.len() != keys.fields {
                let (has, wants) = (entry.fields.len(), keys.fields);
                self.error(tree, "record-damaged", number, |n| {
                    format!("an entry on page {number} of {n} has {has} values and not {wants}")
                });
                return false;
            }
            let rowid = match (keys.rowid_last, entry.fields.len().checked_sub(1).map(|i| entry.value(i))) {
                (true, Some(Value::Integer(id))) => id,
                (true, _) => {
                    self.error(tree, "record-damaged", number, |n| {
                        format!("an entry on page {number} of {n} does not end with a rowid")
                    });
                    return false;
                }
                (false, _) => 0,
            };
            if keys.summed {
                let mut mix = env.keyed.begin();
                for field in &entry.fields {
                    mix.value(field.value(&entry.bytes).unwrap_or(Value::Null));
                }
                let mixed = mix.end();
                let row = if keys.rowid_last { rowid } else { self.stands_for(spec, &entry.fields, &entry.bytes) };
                self.held(tree, mixed, row, &|| key_in_words(spec, &entry.fields, &entry.bytes, encoding));
            }
        }
        true
    }

    /// What stands for the primary key of an entry of a WITHOUT ROWID table or of its indexes, where rows are named.
    fn stands_for(&self, spec: &TreeSpec, fields: &[Field], bytes: &[u8]) -> i64 {
        let (Aim::Name(_), Some(keys)) = (&self.tally.aim, &spec.keys) else { return 0 };
        let mut mix = self.env.keyed.begin();
        for field in keys.primary.iter().map(|at| fields.get(*at)) {
            mix.value(field.and_then(|f| f.value(bytes)).unwrap_or(Value::Null));
        }
        mix.end().cast_signed()
    }
}

/// Longest text or blob of a key shown, in characters or bytes.
const SHOWN: usize = 24;

/// The primary key as SQL would write it; `None` where rows have rowids.
fn key_in_words(spec: &TreeSpec, fields: &[Field], bytes: &[u8], encoding: u32) -> Option<String> {
    let keys = spec.keys.as_ref().filter(|k| !k.primary.is_empty())?;
    let word = |at: &usize| match fields.get(*at).and_then(|f| f.value(bytes)).unwrap_or(Value::Null) {
        Value::Null => "NULL".to_string(),
        Value::Integer(n) => n.to_string(),
        Value::Real(r) => format!("{r:?}"),
        Value::Text(text) => {
            let text = utf8(text, encoding);
            let text = String::from_utf8_lossy(&text);
            let shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
            format!("'{shown}{}'", if text.chars().count() > SHOWN { "..." } else { "" })
        }
        Value::Blob(blob) => {
            let shown: String = blob.iter().take(SHOWN).map(|b| format!("{b:02x}")).collect();
            format!("x'{shown}{}'", if blob.len() > SHOWN { "..." } else { "" })
        }
    };
    let words: Vec<String> = keys.primary.iter().map(word).collect();
    Some(format!("({})", words.join(", ")))
}
