//! Tables against their indexes: sums first, names on a mismatch.
//!
//! Where the sums of a sound table and a sound index differ, the rows are named by two more passes over these two alone.
//! The first adds the differences up in buckets by rowid; the second gathers the entries of the buckets that do not come
//! out even. A row without an entry is damage of the index; an entry without a row is a row that is gone from the table;
//! an entry that differs from its row may be either's fault, and making the index again follows the table.

use std::collections::BTreeMap;
use std::io;

use super::objects::TreeSpec;
use super::pass::{Aim, Pass};
use crate::sqlite::verdict::Level;

/// Buckets of the first pass: enough that a bucket of four million rows holds sixty.
const BUCKETS: usize = 1 << 16;
/// Uneven buckets looked into, and entries gathered from them at most.
const UNEVEN: usize = 512;
const GATHERED: usize = 1 << 17;
/// Indexes named in one check; a file with more mismatches than that gets counts.
const NAMED: usize = 16;
/// Rows listed by number in a finding.
const LISTED: usize = 8;

/// Naming in progress, of one index.
pub(super) struct Naming {
    tree: usize,
    buckets: Vec<u64>,
    /// Uneven buckets, once they are known.
    uneven: Option<Vec<bool>>,
    /// Gathered entries: rowid and mixed value to how often the table has it less how often the index has it.
    gathered: BTreeMap<(i64, u64), i64>,
    full: bool,
}

impl Naming {
    fn new(tree: usize) -> Self {
        Self { tree, buckets: vec![0; BUCKETS], uneven: None, gathered: BTreeMap::new(), full: false }
    }

    fn note(&mut self, tree: usize, mixed: u128, rowid: i64, of_table: bool) {
        if tree != self.tree {
            return;
        }
        let spread = rowid.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        let at = usize::try_from(spread).unwrap_or(0);
        #[allow(clippy::cast_possible_truncation)]
        let word = (mixed ^ (mixed >> 64)) as u64;
        match &self.uneven {
            None => {
                if let Some(bucket) = self.buckets.get_mut(at) {
                    *bucket = if of_table { bucket.wrapping_add(word) } else { bucket.wrapping_sub(word) };
                }
            }
            Some(uneven) if uneven.get(at).copied().unwrap_or(false) => {
                if self.gathered.len() >= GATHERED {
                    self.full = true;
                    return;
                }
                *self.gathered.entry((rowid, word)).or_insert(0) += if of_table { 1 } else { -1 };
            }
            Some(_) => {}
        }
    }

    pub fn implied(&mut self, tree: usize, mixed: u128, rowid: i64) {
        self.note(tree, mixed, rowid, true);
    }

    pub fn held(&mut self, tree: usize, mixed: u128, rowid: i64) {
        self.note(tree, mixed, rowid, false);
    }
}

/// What the passes named.
#[derive(Default)]
struct Named {
    missing: Vec<i64>,
    extra: Vec<i64>,
    differing: Vec<i64>,
    all: bool,
}

impl Pass<'_, '_> {
    /// Compares every index with its table.
    pub fn compare(&mut self) -> io::Result<()> {
        let env = self.env;
        let mut named = 0;
        for (tree, spec) in env.trees.iter().enumerate() {
            let Some((table, keys)) = spec.table.zip(spec.keys.as_ref()) else { continue };
            let clean = self.found.clean(tree) && self.found.clean(table);
            let (rows, entries) = (self.counts.get(table).copied(), self.counts.get(tree).copied());
            if !keys.summed || self.skipped.contains_key(&tree) {
                if keys.counted && rows != entries && clean {
                    self.miscounted(tree, table, rows.unwrap_or(0), entries.unwrap_or(0));
                }
                continue;
            }
            let Some((of_table, of_index)) = self.sums.get(tree).copied() else { continue };
            if of_table == of_index {
                continue;
            }
            if !clean {
                self.differs_with_damage(tree, table);
                continue;
            }
            let by_rowid = env.trees.get(table).is_some_and(|t: &TreeSpec| t.by_rowid);
            if by_rowid && named < NAMED && !self.out_of_time {
                named += 1;
                let found = self.name(tree, table)?;
                self.report(tree, table, &found, of_table.count, of_index.count);
            } else {
                self.miscounted(tree, table, of_table.count, of_index.count);
            }
        }
        Ok(())
    }

    /// The index is damaged by what was found in it or in its table; that they differ needs no names.
    fn differs_with_damage(&mut self, tree: usize, table: usize) {
        let table_name = self.spec(table).map_or("", |s| s.name.as_str());
        if self.found.clean(tree) {
            self.error(tree, "index-differs", 0, |n| {
                format!("index {n} does not match its damaged table {table_name}")
            });
        }
    }

    fn miscounted(&mut self, tree: usize, table: usize, rows: u64, entries: u64) {
        let table_name = self.spec(table).map_or("", |s| s.name.as_str());
        self.error(tree, "index-differs", 0, |n| {
            format!("index {n} has {entries} entries for {rows} rows of {table_name}, or other values than they have")
        });
        if entries > rows {
            self.error(table, "rows-missing", 0, |n| format!("{n} has fewer rows than its index has entries"));
        }
    }

    fn name(&mut self, tree: usize, table: usize) -> io::Result<Named> {
        let aim = std::mem::replace(&mut self.aim, Aim::Name(Naming::new(tree)));
        let wanted = |t: usize| t == tree || t == table;
        self.revisit(&wanted)?;
        let mut all = true;
        if let Aim::Name(naming) = &mut self.aim {
            let mut left = UNEVEN;
            let mut pick = |b: &u64| {
                let take = *b != 0 && left > 0;
                all &= *b == 0 || take;
                left -= usize::from(take);
                take
            };
            naming.uneven = Some(naming.buckets.iter().map(&mut pick).collect());
            naming.buckets = Vec::new();
        }
        self.revisit(&wanted)?;
        let mut named = Named { all: all && !self.out_of_time, ..Named::default() };
        if let Aim::Name(naming) = std::mem::replace(&mut self.aim, aim) {
            named.all &= !naming.full;
            let mut by_row: BTreeMap<i64, (bool, bool)> = BTreeMap::new();
            for ((rowid, _), n) in naming.gathered.iter().filter(|(_, n)| **n != 0) {
                let sides = by_row.entry(*rowid).or_default();
                if *n > 0 { sides.0 = true } else { sides.1 = true }
            }
            for (rowid, sides) in by_row {
                match sides {
                    (true, false) => named.missing.push(rowid),
                    (false, true) => named.extra.push(rowid),
                    _ => named.differing.push(rowid),
                }
            }
        }
        Ok(named)
    }

    fn report(&mut self, tree: usize, table: usize, named: &Named, rows: u64, entries: u64) {
        let (index_name, table_name) =
            (self.spec(tree).map_or("", |s| s.name.as_str()), self.spec(table).map_or("", |s| s.name.as_str()));
        if !named.missing.is_empty() {
            self.error(tree, "row-missing-from-index", 0, |_| {
                format!("{} of {table_name} missing from index {index_name}", list(&named.missing, named.all))
            });
        }
        if !named.differing.is_empty() {
            self.error(tree, "index-differs", 0, |_| {
                format!(
                    "{} of {table_name}: the values differ from index {index_name}, and which of the two was altered \
                     is not provable",
                    list(&named.differing, named.all)
                )
            });
        }
        if !named.extra.is_empty() {
            self.error(tree, "entry-without-row", 0, |_| {
                format!(
                    "index {index_name} has entries without a row in {table_name}: {}",
                    list(&named.extra, named.all)
                )
            });
            self.error(table, "rows-missing", 0, |_| {
                format!("{} gone from {table_name}, as its index {index_name} shows", list(&named.extra, named.all))
            });
        }
        if named.missing.is_empty() && named.differing.is_empty() && named.extra.is_empty() {
            self.miscounted(tree, table, rows, entries);
        }
    }

    /// Notes on text that is not valid UTF-8: the engine stores what it is given, so it is no damage by itself.
    pub fn text_notes(&mut self) {
        for (tree, (count, rowid)) in std::mem::take(&mut self.odd_text) {
            let name = self.spec(tree).map_or("", |s| s.name.as_str());
            let text = format!("{count} rows of {name} hold text that is not valid UTF-8, the first is row {rowid}");
            self.found.note(Level::Info, "text-not-utf8", text);
        }
    }
}

fn list(rows: &[i64], all: bool) -> String {
    let ids: Vec<String> = rows.iter().take(LISTED).map(i64::to_string).collect();
    let more = match (rows.len() > LISTED, all) {
        (true, true) => format!(" and {} more", rows.len() - LISTED),
        (_, false) => format!(" and others, at least {} in all", rows.len()),
        (false, true) => String::new(),
    };
    format!("{} {}{more}", if rows.len() == 1 && all { "row" } else { "rows" }, ids.join(", "))
}
