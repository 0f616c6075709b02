//! For each lost frame the stretch of commits at which it matters.

use std::collections::{BTreeMap, BTreeSet};

use crate::sqlite::wal::WalScan;

/// Where each page has its accepted images.
pub(super) struct Images<'a> {
    accepted: &'a [u32],
    scan: &'a WalScan,
    of: BTreeMap<u32, Vec<u32>>,
}

impl<'a> Images<'a> {
    pub(super) fn new(accepted: &'a [u32], scan: &'a WalScan) -> Self {
        let mut of: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for n in accepted {
            of.entry(scan.frame(*n).map_or(0, |f| f.page)).or_default().push(*n);
        }
        Self { accepted, scan, of }
    }

    /// The first accepted image of a page behind a frame; `u32::MAX` when there is none.
    pub(super) fn next(&self, page: u32, behind: u32) -> u32 {
        let frames = self.of.get(&page).map_or(&[][..], Vec::as_slice);
        frames.get(frames.partition_point(|n| *n <= behind)).copied().unwrap_or(u32::MAX)
    }

    /// The frame by which every page that the database has at a commit behind frame `n` has an image behind it;
    /// `u32::MAX` when there is none.
    pub(super) fn any_page(&self, n: u32, commits: &[u32]) -> u32 {
        let behind = commits.get(commits.partition_point(|c| *c < n)..).unwrap_or(&[]);
        let size = behind.iter().filter_map(|c| self.scan.frame(*c)).map(|f| f.commit).max().unwrap_or(u32::MAX);
        self.every_page(self.accepted.partition_point(|a| *a <= n), size)
    }

    /// For each lost frame the stretch of commits at which it matters: from itself to the frame by which every page it
    /// can have been has a later image, or lies beyond the end of the database for good.
    pub(super) fn windows(&self, lost: &[(u32, Vec<u32>)], commits: &[u32]) -> Vec<(u32, u32)> {
        // The largest size that the database has at a commit or at any later one.
        let mut largest: Vec<(u32, u32)> = Vec::with_capacity(commits.len());
        for c in commits.iter().rev() {
            let size = self.scan.frame(*c).map_or(0, |f| f.commit).max(largest.last().map_or(0, |(_, s)| *s));
            largest.push((*c, size));
        }
        largest.reverse();
        let size_from = |n: u32| largest.get(largest.partition_point(|(c, _)| *c < n)).map_or(0, |(_, s)| *s);
        // Where the database ends before a page at every commit from there on.
        let ends_before = |page: u32| {
            let at = largest.partition_point(|(_, s)| *s >= page);
            largest.get(at).map_or(u32::MAX, |(c, _)| *c)
        };
        // Lost frames of one gap have the same accepted frames behind them, and so the same answer for "any page".
        let mut any: BTreeMap<usize, u32> = BTreeMap::new();
        let mut to =
            |n: u32, pages: &[u32]| match pages.iter().map(|p| self.next(*p, n).min(ends_before(*p).max(n))).max() {
                Some(to) => to,
                None => {
                    let at = self.accepted.partition_point(|a| *a <= n);
                    *any.entry(at).or_insert_with(|| self.every_page(at, size_from(n)))
                }
            };
        lost.iter().map(|(n, pages)| (*n, to(*n, pages))).collect()
    }

    /// The frame by which every page up to `size` has an image among the accepted frames from `at` on.
    fn every_page(&self, at: usize, size: u32) -> u32 {
        let mut seen = BTreeSet::new();
        for n in self.accepted.get(at..).unwrap_or(&[]) {
            seen.extend(self.scan.frame(*n).map(|f| f.page).filter(|p| *p <= size));
            if u32::try_from(seen.len()).is_ok_and(|found| found >= size) {
                return *n;
            }
        }
        u32::MAX
    }
}

/// The last commit that lies in no window; windows and commits ascend. 0 when there is none.
pub(super) fn last_exact(commits: &[u32], windows: &[(u32, u32)]) -> u32 {
    let mut open = windows.iter().peekable();
    let (mut closed_by, mut best) = (0, 0);
    for commit in commits {
        while let Some((_, to)) = open.next_if(|(from, _)| from <= commit) {
            closed_by = closed_by.max(*to);
        }
        if closed_by <= *commit {
            best = *commit;
        }
    }
    best
}
