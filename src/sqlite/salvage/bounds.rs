//! Between which rowids the rows of one leaf lie, when its parent, the leaf itself and the leaves beside it contradict
//! each other. In a sound tree they never do: one of them was changed, and the least change that explains it is believed.
//!
//! A rowid out of its place matters beyond its own row: one that is too high would push every row of the leaves behind it
//! out of the table.

use super::map::Leaf;
use super::sheet::{self, Sheet};
use super::source::Source;
use super::tree::Bound;
use crate::sqlite::page::PageKind;

/// The leaves on both sides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// Upper bound that the leaf before has from its parents, and the last rowid taken.
    pub before: Option<(i64, i64)>,
    /// The leaf behind.
    pub next: Option<&'a Leaf>,
}

/// The bounds to believe for the rows of `sheet`, whose parents give `bound`.
pub fn believed(source: &mut Source<'_>, sheet: &Sheet<'_>, bound: Bound, beside: Beside<'_>) -> Bound {
    let mut result = bound;
    let ids = || sheet.cells().filter_map(|c| c.rowid);
    if sheet.whole {
        let above = ids().filter(|id| *id > bound.high).count();
        let below = ids().filter(|id| bound.low != i64::MIN && *id <= bound.low).count();
        let most = |n: usize| 2 * n > sheet.good.len();
        // The key of a parent is the highest rowid that its child had when the page was split. Where that rowid is
        // there and others lie above it, or most do, it is the key that was changed.
        if above > 0 && (most(above) || ids().any(|id| id == bound.high)) {
            result.high = i64::MAX;
        }
        // The lower bound is the key of the leaf before. Where that leaf ends with another rowid, nothing confirms it.
        let unconfirmed = beside.before.is_some_and(|(high, last)| high == bound.low && last < bound.low);
        if below > 0 && (most(below) || unconfirmed) {
            result.low = i64::MIN;
        }
    }
    let last = ids().take_while(|id| *id <= result.high).last();
    if let (Some(last), Some(next)) = (last, beside.next)
        && last >= next.low
    {
        let here = ids().filter(|id| *id >= next.low && *id <= last).count();
        if here <= lower_in(source, next.page, last) {
            result.high = result.high.min(next.low.saturating_sub(1));
        }
    }
    result
}

/// How many rows of a leaf do not lie above `last`.
fn lower_in(source: &mut Source<'_>, page: u32, last: i64) -> usize {
    let mut bytes = Vec::new();
    if !source.read(page, &mut bytes) {
        return 0;
    }
    let sheet = sheet::read(&bytes, page, source.usable, Some(PageKind::TableLeaf));
    sheet.map_or(0, |s| s.cells().filter_map(|c| c.rowid).filter(|id| *id <= last).count())
}
