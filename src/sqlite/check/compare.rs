//! Tables against their indexes: sums first, names on a mismatch.
//!
//! Where the sums of a sound table and a sound index differ, the rows are named by two more passes over these two alone.
//! The first adds the differences up in buckets by rowid (a WITHOUT ROWID table: by a keyed sum of the primary key, which
//! every entry of its indexes holds); the second gathers the entries of the buckets that do not come
//! out even. A row without an entry is damage of the index; an entry without a row is a row that is gone from the table;
//! an entry that differs from its row may be either's fault, and making the index again follows the table.

use std::collections::BTreeMap;

use super::pass::Pass;
use super::tally::Aim;
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
    /// Gathered entries: row and mixed value to how often the table has it less how often the index has it.
    gathered: BTreeMap<(i64, u64), i64>,
    /// Primary keys in words, of gathered rows that have no rowid.
    keys: BTreeMap<i64, String>,
    full: bool,
}

impl Naming {
    fn new(tree: usize) -> Self {
        Self {
            tree,
            buckets: vec![0; BUCKETS],
            uneven: None,
            gathered: BTreeMap::new(),
            keys: BTreeMap::new(),
            full: false,
        }
    }

    /// Takes an entry that the table implies or the index holds. `row` is its rowid, or stands for its primary key, which
    /// `key` then gives in words.
    pub fn note(&mut self, tree: usize, mixed: u64, row: i64, of_table: bool, key: &dyn Fn() -> Option<String>) {
        if tree != self.tree {
            return;
        }
        let spread = row.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        let at = usize::try_from(spread).unwrap_or(0);
        match &self.uneven {
            None => {
                if let Some(bucket) = self.buckets.get_mut(at) {
                    *bucket = if of_table { bucket.wrapping_add(mixed) } else { bucket.wrapping_sub(mixed) };
                }
            }
            Some(uneven) if uneven.get(at).copied().unwrap_or(false) => {
                if self.gathered.len() >= GATHERED {
                    self.full = true;
                    return;
                }
                *self.gathered.entry((row, mixed)).or_insert(0) += if of_table { 1 } else { -1 };
                if !self.keys.contains_key(&row)
                    && let Some(words) = key()
                {
                    self.keys.insert(row, words);
                }
            }
            Some(_) => {}
        }
    }
}

/// What the passes named.
#[derive(Default)]
struct Named {
    missing: Vec<String>,
    extra: Vec<String>,
    differing: Vec<String>,
    all: bool,
}

impl Pass<'_, '_> {
    /// Compares every index with its table.
    pub fn compare(&mut self) {
        let env = self.env;
        let mut named = 0;
        for (tree, spec) in env.trees.iter().enumerate() {
            let Some((table, keys)) = spec.table.zip(spec.keys.as_ref()) else { continue };
            let clean = self.tally.found.clean(tree) && self.tally.found.clean(table);
            let (rows, entries) = (self.tally.counts.get(table).copied(), self.tally.counts.get(tree).copied());
            if !keys.summed || self.tally.skipped.contains_key(&tree) {
                if keys.counted && rows != entries && clean {
                    self.miscounted(tree, table, rows.unwrap_or(0), entries.unwrap_or(0));
                }
                continue;
            }
            let Some((of_table, of_index)) = self.tally.sums.get(tree).copied() else { continue };
            if of_table == of_index {
                continue;
            }
            if !clean {
                self.differs_with_damage(tree, table);
                continue;
            }
            if named < NAMED && !self.tally.out_of_time {
                named += 1;
                let found = self.name(tree, table);
                self.report(tree, table, &found, of_table.count, of_index.count);
            } else {
                self.miscounted(tree, table, of_table.count, of_index.count);
            }
        }
    }

    /// The index is damaged by what was found in it or in its table; that they differ needs no names.
    fn differs_with_damage(&mut self, tree: usize, table: usize) {
        let table_name = self.spec(table).map_or("", |s| s.name.as_str());
        if self.tally.found.clean(tree) {
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

    fn name(&mut self, tree: usize, table: usize) -> Named {
        let aim = std::mem::replace(&mut self.tally.aim, Aim::Name(Naming::new(tree)));
        let wanted = |t: usize| t == tree || t == table;
        self.revisit(&wanted);
        let mut all = true;
        if let Aim::Name(naming) = &mut self.tally.aim {
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
        self.revisit(&wanted);
        let mut named = Named { all: all && !self.tally.out_of_time, ..Named::default() };
        if let Aim::Name(naming) = std::mem::replace(&mut self.tally.aim, aim) {
            named.all &= !naming.full;
            let mut by_row: BTreeMap<i64, (bool, bool)> = BTreeMap::new();
            for ((rowid, _), n) in naming.gathered.iter().filter(|(_, n)| **n != 0) {
                let sides = by_row.entry(*rowid).or_default();
                if *n > 0 { sides.0 = true } else { sides.1 = true }
            }
            for (row, sides) in by_row {
                let name = naming.keys.get(&row).cloned().unwrap_or_else(|| row.to_string());
                match sides {
                    (true, false) => named.missing.push(name),
                    (false, true) => named.extra.push(name),
                    _ => named.differing.push(name),
                }
            }
        }
        named
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
        for (tree, odd) in std::mem::take(&mut self.tally.odd_text) {
            let name = self.spec(tree).map_or("", |s| s.name.as_str());
            let text = format!(
                "{} rows of {name} hold text that is not valid UTF-8, the first is row {}",
                odd.rows, odd.rowid
            );
            self.tally.found.note(Level::Info, "text-not-utf8", text);
        }
    }
}

fn list(rows: &[String], all: bool) -> String {
    let ids: Vec<&str> = rows.iter().take(LISTED).map(String::as_str).collect();
    let more = match (rows.len() > LISTED, all) {
        (true, true) => format!(" and {} more", rows.len() - LISTED),
        (_, false) => format!(" and others, at least {} in all", rows.len()),
        (false, true) => String::new(),
    };
    format!("{} {}{more}", if rows.len() == 1 && all { "row" } else { "rows" }, ids.join(", "))
}
