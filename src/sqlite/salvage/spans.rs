//! Sets of rowids as closed intervals: a table that only grew is one interval, whatever its size.

use serde::{Deserialize, Serialize};

/// Intervals kept at most (16 MiB).
const MAX: usize = 1 << 20;

/// A set of rowids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spans(Vec<(i64, i64)>);

impl Spans {
    /// The union of intervals in any order; those whose ends are crossed over are empty.
    pub fn from(mut parts: Vec<(i64, i64)>) -> Self {
        parts.retain(|(a, b)| a <= b);
        parts.sort_unstable();
        let mut all = Self::default();
        for (a, b) in parts {
            match all.0.last_mut() {
                Some(last) if a <= last.1.saturating_add(1) => last.1 = last.1.max(b),
                _ => all.0.push((a, b)),
            }
        }
        all
    }

    /// Adds a rowid that is greater than every one before; false when there are too many intervals to go on.
    pub fn push(&mut self, id: i64) -> bool {
        let full = self.0.len() >= MAX;
        match self.0.last_mut() {
            Some(last) if id <= last.1.saturating_add(1) => last.1 = last.1.max(id),
            _ if full => return false,
            _ => self.0.push((id, id)),
        }
        true
    }

    /// True when `id` is in the set.
    pub fn has(&self, id: i64) -> bool {
        let at = self.0.partition_point(|(a, _)| *a <= id);
        at.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, b)| id <= *b)
    }

    /// True when a rowid from `low` to `high` is in the set.
    pub fn overlaps(&self, low: i64, high: i64) -> bool {
        let at = self.0.partition_point(|(_, b)| *b < low);
        low <= high && self.0.get(at).is_some_and(|(a, _)| *a <= high)
    }

    /// What is in this set and not in the other.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        let mut holes = other.0.iter().peekable();
        for (a, b) in &self.0 {
            let mut from = Some(*a);
            while holes.next_if(|(_, d)| d < a).is_some() {}
            let mut ahead = holes.clone();
            while let (Some(at), Some((c, d))) = (from, ahead.peek().copied()) {
                if c > b {
                    break;
                }
                if *c > at {
                    left.push((at, c - 1));
                }
                from = d.checked_add(1).filter(|next| next <= b);
                if d > b {
                    break;
                }
                ahead.next();
                holes = ahead.clone();
            }
            left.extend(from.map(|at| (at, *b)));
        }
        Self(left)
    }

    /// The intervals, ascending.
    pub fn intervals(&self) -> &[(i64, i64)] {
        &self.0
    }

    /// True when the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of rowids, as far as 64 bits go.
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |n: u64, (a, b)| n.saturating_add(b.abs_diff(*a).saturating_add(1)))
    }

    /// Number of rowids in each of many ranges: work in proportion to the ranges, whatever they overlap.
    pub fn count_in(&self, ranges: &[(i64, i64)]) -> Vec<u64> {
        let mut upto = Vec::with_capacity(self.0.len() + 1);
        upto.push(0_u64);
        for (a, b) in &self.0 {
            upto.push(upto.last().copied().unwrap_or(0).saturating_add(b.abs_diff(*a).saturating_add(1)));
        }
        let below = |id: i64| {
            // Rowids of the set that are less than `id`.
            let Some(at) = self.0.partition_point(|(a, _)| *a < id).checked_sub(1) else { return 0 };
            let inside = self.0.get(at).map_or(0, |(a, b)| id.min(b.saturating_add(1)).abs_diff(*a));
            upto.get(at).copied().unwrap_or(0).saturating_add(inside)
        };
        ranges
            .iter()
            .map(|(a, b)| match a > b {
                true => 0,
                false => below(*b).saturating_sub(below(*a)).saturating_add(u64::from(self.has(*b))),
            })
            .collect()
    }

    /// Lowest and highest.
    pub fn ends(&self) -> Option<(i64, i64)> {
        Some((self.0.first()?.0, self.0.last()?.1))
    }

    /// The first `n` intervals.
    pub fn first(mut self, n: usize) -> Self {
        self.0.truncate(n);
        self
    }

    /// The same set with at most `n` intervals: those behind are joined into one, which makes the set larger.
    pub fn at_most(mut self, n: usize) -> Self {
        if self.0.len() > n.max(1)
            && let Some(end) = self.0.last().map(|l| l.1)
        {
            self.0.truncate(n.max(1));
            if let Some(last) = self.0.last_mut() {
                last.1 = end;
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::Spans;

    fn set(parts: &[(i64, i64)]) -> Spans {
        Spans::from(parts.to_vec())
    }

    #[test]
    fn the_difference_is_what_membership_says() {
        // Every pair of sets of intervals over a small domain that a counter can spell.
        let spell = |bits: u32| Spans::from((0..9).filter(|i| bits >> i & 1 == 1).map(|i| (i, i)).collect());
        for a in (0..512).step_by(3) {
            for b in (0..512).step_by(5) {
                let (x, y) = (spell(a), spell(b));
                let left = x.without(&y);
                for id in -1..10 {
                    assert_eq!(left.has(id), x.has(id) && !y.has(id), "{a} {b} {id}");
                    let near = (id..id + 3).any(|n| x.has(n));
                    assert_eq!(x.overlaps(id, id + 2), near, "{a} {id}");
                }
                assert!(left.intervals().windows(2).all(|w| w[0].1 < w[1].0));
            }
        }
    }

    #[test]
    fn counting_in_ranges_is_what_membership_says() {
        for bits in 0..512_u32 {
            let x = Spans::from((0..9).filter(|i| bits >> i & 1 == 1).map(|i| (i, i)).collect());
            let ranges: Vec<(i64, i64)> = (-1..10).flat_map(|a| (-1..10).map(move |b| (a, b))).collect();
            let slow = |(a, b): &(i64, i64)| (*a..=*b).filter(|id| x.has(*id)).count() as u64;
            assert_eq!(x.count_in(&ranges), ranges.iter().map(slow).collect::<Vec<_>>(), "{bits}");
        }
        let all = set(&[(i64::MIN, i64::MAX)]);
        assert_eq!(all.count_in(&[(i64::MIN, i64::MAX), (0, 9)]), [u64::MAX, 10]);
    }

    #[test]
    fn neighbours_join_and_ends_do_not_overflow() {
        assert_eq!(set(&[(5, 9), (1, 4), (11, 12)]).intervals(), [(1, 9), (11, 12)]);
        let all = set(&[(i64::MIN, i64::MAX)]);
        assert_eq!(all.without(&set(&[(0, 0)])).intervals(), [(i64::MIN, -1), (1, i64::MAX)]);
        assert!(all.without(&all).is_empty());
        assert_eq!(all.count(), u64::MAX);
    }
}
