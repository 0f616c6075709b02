//! What is missing, by name where an index still names it, as a range where nothing does.
//!
//! An index entry whose row is gone tells the rowid and the indexed columns of a lost row: for the sensor store, which
//! sensor lost which readings, from when to when. Entries are looked for only among the rowids whose pages are
//! damaged. What no index names is bounded by the rowids around it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::catalog::decode;
use super::evidence::entries;
use super::extract::Extracted;
use super::fields::Field;
use super::objects::{Class, Object};
use super::source::Source;
use super::spans::Spans;
use super::tree::Hole;
use crate::sqlite::record::Value;

/// Lost rowids remembered by name (16 MiB); behind that they are only counted.
const MAX_NAMED: usize = 2 << 20;
/// Groups of lost rows told apart, such as sensors.
const MAX_GROUPS: usize = 1000;
/// Intervals listed of each kind in the manifest.
const MAX_LISTED: usize = 100_000;
/// Missing pages in a row, below a lost inner page, that the numbering reaches across.
const WIDEST_GAP: u64 = 8;
/// Longest text of a group's name.
const MAX_NAME: usize = 200;

/// How a loss was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CountedBy {
    /// Nothing is missing.
    Nothing,
    /// A whole index has an entry for every row.
    Index,
    /// Everywhere else the rowids follow each other without a gap, so each gap at a damaged page is taken for a row.
    Numbering,
    /// It cannot be counted; see `lost_at_most`.
    Unknown,
}

/// Lost rows that share the first column of an index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// That column, such as `sensor_name`, and its value.
    pub column: String,
    /// Its value.
    pub value: String,
    /// Rows.
    pub rows: u64,
    /// The second column, such as `timestamp`, with its least and greatest value; where it is a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<(String, f64, f64)>,
}

/// The loss of one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableLoss {
    /// Table.
    pub table: String,
    /// Rows lost; `null` when they cannot be counted.
    pub lost: Option<u64>,
    /// How that was counted.
    pub counted_by: CountedBy,
    /// No more than this can be missing; `null`: no bound is known.
    pub lost_at_most: Option<u64>,
    /// Rowids that an index names and whose row is gone.
    pub named: Spans,
    /// Their number.
    pub named_rows: u64,
    /// The indexes that name them.
    pub named_by: Vec<String>,
    /// Rowids that may have been rows: they lie on damaged pages and no index names them.
    pub possible: Spans,
    /// Those of the possible ones that the numbering vouches for: rows, unless a deleted one stood just there.
    pub numbered: Spans,
    /// Lost rows by the first column of the index, with the range of the second.
    pub groups: Vec<Group>,
    /// Rowids of rows that were kept although something else on their page is damaged, or that hold text that is none.
    pub not_provable: Spans,
    /// Rowids of rows whose page is gone in the database and stands, proved, in the leftovers of the log.
    pub donated: Spans,
    /// Index entries that name a row which its page, whole, does not hold: the index was not in step.
    pub out_of_step: u64,
    /// The rowids that these entries name: rows that a lost write took from the table, or deleted rows that one left in the
    /// index; nothing in the file tells which.
    #[serde(default)]
    pub contradicted: Spans,
}

/// What else bears on the losses of a table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// Its mark in `sqlite_sequence`.
    pub sequence: Option<i64>,
    /// Text encoding.
    pub encoding: u32,
    /// Pages that may have held rows and are gone; `None` when nothing says how many the file had.
    pub gone: Option<u64>,
}

/// Works out the loss of one table.
pub fn table(source: &mut Source<'_>, objects: &[Object], object: &Object, got: &Extracted, known: Known) -> TableLoss {
    let mut loss = TableLoss {
        table: object.entry.name.clone(),
        lost: Some(0),
        counted_by: CountedBy::Nothing,
        lost_at_most: Some(0),
        named: Spans::default(),
        named_rows: 0,
        named_by: Vec::new(),
        possible: Spans::default(),
        numbered: Spans::default(),
        groups: Vec::new(),
        not_provable: Spans::from(if object.class == Class::Table { got.not_provable.clone() } else { Vec::new() })
            .at_most(MAX_LISTED),
        donated: Spans::from(if object.class == Class::Table { got.donated.clone() } else { Vec::new() })
            .at_most(MAX_LISTED),
        out_of_step: 0,
        contradicted: Spans::default(),
    };
    let untouched = object.tree.holes.is_empty() && got.torn.is_empty() && got.given_up == 0 && got.damaged_pages == 0;
    if untouched && object.class != Class::Table {
        return loss;
    }
    let each = rows_per_page(source.usable, object);
    let by_pages = known.gone.map(|n| n.saturating_add(got.damaged_pages).saturating_mul(each));
    if object.class != Class::Table || !got.ids_known {
        loss.lost = None;
        loss.lost_at_most = by_pages;
        loss.counted_by = CountedBy::Unknown;
        return loss;
    }
    let parts = parts(object, got, known.sequence);
    let gaps = Spans::from(parts.iter().map(|p| (p.low, p.high)).collect()).without(&got.ids);
    // Also where no page is damaged: an index that names rows which are not there is the only witness of a lost write.
    let whole_index = name(source, objects, object, got, &gaps, known.encoding, &mut loss);
    if gaps.is_empty() {
        // A row that was given up, and whose rowid is not missing anywhere, had a rowid that was changed.
        let doubts = got.given_up.saturating_add(loss.out_of_step);
        if doubts > 0 {
            loss.lost = None;
            loss.counted_by = CountedBy::Unknown;
            loss.lost_at_most = Some(doubts);
        }
        return loss;
    }
    if whole_index {
        loss.lost = Some(loss.named_rows);
        loss.lost_at_most = loss.lost;
        loss.counted_by = CountedBy::Index;
    } else {
        loss.possible = gaps.without(&loss.named);
        count(&mut loss, &gaps, &parts, got, (each, by_pages));
    }
    loss.named = loss.named.at_most(MAX_LISTED);
    loss.possible = loss.possible.at_most(MAX_LISTED);
    loss.numbered = loss.numbered.first(MAX_LISTED);
    loss
}

/// Counts or bounds the loss where no index is whole.
fn count(loss: &mut TableLoss, gaps: &Spans, parts: &[Part], got: &Extracted, (each, by_pages): (u64, Option<u64>)) {
    let open_ended = |(a, b): &(i64, i64)| *a == i64::MIN || *b == i64::MAX;
    let closed = Spans::from(gaps.intervals().iter().copied().filter(|g| !open_ended(g)).collect());
    let all_closed = closed.intervals().len() == gaps.intervals().len();
    let missing = gaps.count_in(&parts.iter().map(|p| (p.low, p.high)).collect::<Vec<_>>());
    let of_part = |(p, n): (&Part, &u64)| p.pages.map(|pages| pages.saturating_mul(each).min(*n));
    let by_parts: Option<u64> =
        parts.iter().zip(&missing).map(of_part).try_fold(0_u64, |sum, n| Some(sum.saturating_add(n?)));
    let bounds = [all_closed.then(|| gaps.count()), by_parts, by_pages];
    loss.lost_at_most = bounds.into_iter().flatten().min().map(|n| n.max(loss.named_rows));
    // No deleted range, as far as anything tells: the rest of the table has none, and no gap is too wide for its pages. How
    // many pages are missing below a lost inner page is not known; a gap of many of them may hide anything.
    let fullest = got.most_rows + got.most_rows / 4;
    let is_wide = |(a, b): &(i64, i64)| b.abs_diff(*a) >= WIDEST_GAP.saturating_mul(fullest);
    let wide = Spans::from(closed.intervals().iter().copied().filter(is_wide).collect());
    let fits = |(p, n): (&Part, &u64)| match p.pages {
        Some(pages) => *n <= pages.saturating_mul(fullest),
        None => !wide.overlaps(p.low, p.high),
    };
    let dense = Spans::from([got.ids.intervals(), closed.intervals()].concat()).intervals().len() == 1;
    if dense && parts.iter().zip(&missing).all(fits) {
        loss.numbered = closed.without(&loss.named);
    }
    let counted = all_closed && loss.numbered == loss.possible;
    loss.lost = counted.then(|| gaps.count());
    loss.counted_by = if counted { CountedBy::Numbering } else { CountedBy::Unknown };
    if counted {
        loss.lost_at_most = loss.lost;
    }
}

/// Most rows that one page can hold: each is no smaller than its header (file format 2, sections 1.6 and 2.1).
fn rows_per_page(usable: u32, object: &Object) -> u64 {
    let columns = object.shape.columns.iter();
    let least = match object.shape.rowid_table {
        true => columns.rev().skip_while(|c| c.optional).count(),
        false => columns.count(),
    };
    let cell = 2 + (2 + least + usize::from(object.class == Class::Table)).max(4) as u64;
    u64::from(usable.saturating_sub(8)) / cell
}

/// Rowids whose page is gone or torn.
struct Part {
    low: i64,
    high: i64,
    /// How many pages that is, where it is known.
    pages: Option<u64>,
}

fn parts(object: &Object, got: &Extracted, sequence: Option<i64>) -> Vec<Part> {
    let ends = got.ids.ends();
    let above = |h: &Hole| if h.low == i64::MIN { i64::MIN } else { h.low.saturating_add(1) };
    let hole = |h: &Hole| Part { low: above(h), high: h.high, pages: (!h.open).then_some(u64::from(h.pages)) };
    let mut parts: Vec<Part> = object.tree.holes.iter().map(hole).collect();
    parts.extend(got.torn.iter().map(|(low, high)| Part { low: *low, high: *high, pages: Some(1) }));
    for part in &mut parts {
        // SQLite hands out rowids from 1 on. Where no lower one is left there is no reason to think of any.
        if part.low < 1 && ends.is_none_or(|(low, _)| low >= 1) {
            part.low = 1;
        }
        if part.high == i64::MAX {
            // An AUTOINCREMENT table remembers the highest rowid it ever gave.
            let last = sequence.filter(|_| object.autoincrement);
            part.high = last.map_or(i64::MAX, |s| s.max(ends.map_or(0, |(_, high)| high)));
        }
    }
    parts
}

/// Names what indexes name. True when one of the indexes is whole, so that what it does not name is not missing.
fn name(
    source: &mut Source<'_>,
    objects: &[Object],
    object: &Object,
    got: &Extracted,
    gaps: &Spans,
    encoding: u32,
    loss: &mut TableLoss,
) -> bool {
    let mine = |o: &&Object| o.class == Class::Index && o.entry.table.eq_ignore_ascii_case(&object.entry.name);
    let (mut ids, mut strange): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
    let mut whole = false;
    let mut groups: BTreeMap<String, (u64, f64, f64)> = BTreeMap::new();
    let describing = objects.iter().filter(mine).max_by_key(|o| describes(o)).map(|o| o.entry.name.clone());
    for index in objects.iter().filter(mine).filter(|o| o.index_columns.is_some()) {
        let mut found = 0;
        let mut count = 0_u64;
        let describes = describing.as_deref() == Some(index.entry.name.as_str());
        let intact = entries(source, index, &mut |fields, payload| {
            count += 1;
            let Some(id) = fields.last().and_then(|f| f.integer(payload)) else { return };
            if !gaps.has(id) {
                if !got.ids.has(id) {
                    loss.out_of_step += 1;
                    strange.extend((strange.len() < MAX_LISTED).then_some(id));
                }
                return;
            }
            found += 1;
            if ids.len() < MAX_NAMED {
                ids.push(id);
            }
            if describes {
                group(&mut groups, fields, payload, encoding);
            }
        });
        whole |= intact && index.rooted && index.tree.holes.is_empty() && count >= got.rows;
        if found > 0 {
            loss.named_by.push(index.entry.name.clone());
        }
    }
    ids.sort_unstable();
    ids.dedup();
    loss.contradicted = Spans::from(strange.into_iter().map(|id| (id, id)).collect());
    loss.named_rows = ids.len() as u64;
    loss.named = Spans::from(ids.into_iter().map(|id| (id, id)).collect());
    let index = objects.iter().filter(mine).find(|o| Some(&o.entry.name) == describing.as_ref());
    let column = |i: usize| index.and_then(|o| o.shape.columns.get(i)).map_or(String::new(), |c| c.name.clone());
    loss.groups = groups
        .into_iter()
        .map(|(value, (rows, low, high))| Group {
            column: column(0),
            value,
            rows,
            range: (low <= high).then(|| (column(1), low, high)),
        })
        .collect();
    whole
}

/// How much an index tells a person about a lost row: a text and then a number tells most.
fn describes(index: &Object) -> u32 {
    use crate::sqlite::schema::Affinity::{Integer, Numeric, Real, Text};
    if index.index_columns.is_none() {
        return 0;
    }
    let affinity = |i: usize| index.shape.columns.get(i).map(|c| c.affinity);
    let number = |i: usize| matches!(affinity(i), Some(Real | Integer | Numeric)) && i + 1 < index.shape.columns.len();
    1 + 2 * u32::from(affinity(0) == Some(Text)) + u32::from(number(1))
}

fn group(groups: &mut BTreeMap<String, (u64, f64, f64)>, fields: &[Field], payload: &[u8], encoding: u32) {
    let name = match fields.first().map(|f| f.value(payload)) {
        Some(Value::Text(t)) => decode(t, encoding).unwrap_or_default(),
        Some(Value::Integer(n)) => n.to_string(),
        Some(Value::Real(r)) => r.to_string(),
        _ => String::new(),
    };
    let name: String = name.chars().take(MAX_NAME).collect();
    let number = match fields.get(1).filter(|_| fields.len() > 2).map(|f| f.value(payload)) {
        Some(Value::Real(r)) => Some(r),
        // Times and counts lie far below the 53 bits that a double holds exactly.
        Some(Value::Integer(n)) => i32::try_from(n).ok().map(f64::from).or_else(|| n.to_string().parse().ok()),
        _ => None,
    };
    if groups.len() >= MAX_GROUPS && !groups.contains_key(&name) {
        return;
    }
    let one = groups.entry(name).or_insert((0, f64::INFINITY, f64::NEG_INFINITY));
    one.0 += 1;
    if let Some(n) = number {
        one.1 = one.1.min(n);
        one.2 = one.2.max(n);
    }
}
