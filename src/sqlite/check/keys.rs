//! Entries of indexes and of WITHOUT ROWID tables.

use std::cmp::Ordering;
use std::io;

use super::pages::CellAt;
use super::pass::{MAX_PREFIX, Pass};
use crate::sqlite::collate::{KeyOrder, compare};
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

impl Pass<'_, '_> {
    /// Splits an entry and gathers as much of its payload as its key needs.
    pub fn load(
        &mut self,
        tree: usize,
        local: &[u8],
        payload_len: u64,
        overflow: u32,
        into: &mut Entry,
    ) -> io::Result<Result<(), Unloaded>> {
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
            Err(Unsplit::Damaged(why)) => return Ok(Err(Unloaded::Damaged(why))),
            Err(Unsplit::Needs(_)) if overflow == 0 => return Ok(Err(Unloaded::Damaged("its header runs off it"))),
            Err(Unsplit::Needs(n)) => {
                let Some(bytes) = self.prefix(local, overflow, n)? else { return Ok(Err(Unloaded::Chain)) };
                into.bytes = bytes;
                match split(&into.bytes, payload_len, &mut into.fields) {
                    Ok(()) => {}
                    Err(Unsplit::Damaged(why)) => return Ok(Err(Unloaded::Damaged(why))),
                    Err(Unsplit::Needs(_)) => return Ok(Err(Unloaded::Chain)),
                }
            }
        }
        let last = into.fields.len().min(reach).checked_sub(1).and_then(|i| into.fields.get(i));
        let needed = last.map_or(0, Field::end);
        if needed > into.bytes.len() {
            if needed > MAX_PREFIX {
                return Ok(Err(Unloaded::Long));
            }
            let Some(bytes) = self.prefix(local, overflow, needed)? else { return Ok(Err(Unloaded::Chain)) };
            into.bytes = bytes;
        }
        Ok(Ok(()))
    }

    /// Judges an entry by itself and adds it to the sums. False when it could not be read.
    pub fn entry(&mut self, tree: usize, number: u32, cell: &CellAt<'_>, entry: &mut Entry) -> io::Result<bool> {
        if let Some(count) = self.counts.get_mut(tree) {
            *count += 1;
        }
        match self.load(tree, cell.local, cell.payload_len, cell.overflow, entry)? {
            Ok(()) => {}
            Err(Unloaded::Damaged(why)) => {
                self.error(tree, "record-damaged", number, |n| format!("an entry on page {number} of {n}: {why}"));
                return Ok(false);
            }
            Err(Unloaded::Long) => {
                self.skipped.insert(tree, "keys too long to be read here");
                return Ok(false);
            }
            Err(Unloaded::Chain) => {
                self.skipped.insert(tree, "keys on a broken overflow chain");
                return Ok(false);
            }
        }
        let env = self.env;
        let Some(spec) = env.trees.get(tree) else { return Ok(true) };
        if let Some(rows) = &spec.rows {
            let fields = std::mem::take(&mut entry.fields);
            self.values(tree, number, rows, &fields, &entry.bytes, None);
            self.implied(rows, &fields, &entry.bytes, 0);
            entry.fields = fields;
        }
        let Some(keys) = &spec.keys else { return Ok(true) };
        if spec.rows.is_none() {
            if entry.fields.len() != keys.fields {
                let (has, wants) = (entry.fields.len(), keys.fields);
                self.error(tree, "record-damaged", number, |n| {
                    format!("an entry on page {number} of {n} has {has} values and not {wants}")
                });
                return Ok(false);
            }
            let rowid = match (keys.rowid_last, entry.fields.len().checked_sub(1).map(|i| entry.value(i))) {
                (true, Some(Value::Integer(id))) => id,
                (true, _) => {
                    self.error(tree, "record-damaged", number, |n| {
                        format!("an entry on page {number} of {n} does not end with a rowid")
                    });
                    return Ok(false);
                }
                (false, _) => 0,
            };
            if keys.summed {
                let mut mix = env.keyed.begin();
                for field in &entry.fields {
                    mix.value(field.value(&entry.bytes).unwrap_or(Value::Null));
                }
                self.held(tree, mix.end(), rowid);
            }
        }
        Ok(true)
    }
}
