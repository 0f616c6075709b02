//! The file once, in order, by any number of workers: each takes the next run of pages, reads it in one piece and judges
//! the pages in it. A second look at some trees for naming is in order too, by one worker.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::accounts::Owner;
use super::judge::Judge;
use super::pass::{Env, Map, Pass};
use super::tally::Tally;
use crate::sqlite::overlay::Got;

/// Bytes read at a time.
const RUN: usize = 1 << 20;
/// Databases of fewer runs are not worth a thread.
const WORTH: u32 = 8;

/// What the workers of one check share.
struct Runs<'s> {
    env: &'s Env<'s, 's>,
    map: &'s Map,
    per_run: u32,
    /// The next run.
    next: AtomicU32,
    /// Time is up.
    stop: AtomicBool,
}

impl Runs<'_> {
    /// Takes runs until there are none. `go_on` is asked after each, and between pages that are read out of order.
    fn work(&self, tally: &mut Tally, go_on: &mut dyn FnMut(u32) -> bool) {
        let size = usize::try_from(self.env.source.page_size).unwrap_or(4096);
        let pages = self.map.accounts.pages;
        let mut buffer = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let first = u64::from(self.next.fetch_add(1, Ordering::Relaxed)) * u64::from(self.per_run) + 1;
            let Some(first) = u32::try_from(first).ok().filter(|f| *f <= pages) else { return };
            let n = self.per_run.min(pages - first + 1);
            buffer.resize(size * usize::try_from(self.per_run).unwrap_or(1), 0);
            let got = self.env.source.read_run(first, n, &mut buffer);
            for ((number, image), mut got) in (first..first + n).zip(buffer.chunks_exact_mut(size)).zip(got) {
                if n > 1 && matches!(got, Got::Unreadable(_)) {
                    // A device has few bad blocks, and the pages beside them are as good as any; but each failed read
                    // may take seconds.
                    if tally.out_of_time || !go_on(first - 1) {
                        tally.out_of_time = true;
                        break;
                    }
                    got = self.env.source.read_run(number, 1, image).pop().unwrap_or(Got::Short);
                }
                let go_on = &mut || go_on(first - 1);
                Judge { env: self.env, map: self.map, tally: &mut *tally, go_on }.page(number, got, image);
            }
            if tally.out_of_time || !go_on(first - 1 + n) {
                tally.out_of_time = true;
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl Pass<'_, '_> {
    /// Reads the file once, in order, and judges what stands on each page.
    pub fn stream(&mut self) {
        let size = usize::try_from(self.env.source.page_size).unwrap_or(4096);
        let per_run = u32::try_from((RUN / size).max(1)).unwrap_or(1);
        let pages = self.map.accounts.pages;
        let (next, stop) = (AtomicU32::new(0), AtomicBool::new(self.tally.out_of_time));
        let runs = Runs { env: self.env, map: &self.map, per_run, next, stop };
        let trees = self.env.trees.len();
        let (may_go_on, tally) = (&mut *self.may_go_on, &mut self.tally);
        let tallies = Mutex::new(Vec::new());
        let mut own = Tally::new(trees);
        let mut mine = || runs.work(&mut own, &mut |done| may_go_on(done, pages));
        if pages / per_run < WORTH {
            mine();
        } else {
            self.crew.work(&mut mine, &|| {
                let mut tally = Tally::new(trees);
                runs.work(&mut tally, &mut |_| !runs.stop.load(Ordering::Relaxed));
                if let Ok(mut all) = tallies.lock() {
                    all.push(tally);
                }
            });
        }
        let mut all = tallies.into_inner().unwrap_or_default();
        all.push(own);
        tally.merge(all);
    }

    /// A second look at the pages of some trees, in order: leaves and interior pages alike, without findings.
    pub fn revisit(&mut self, wanted: &dyn Fn(usize) -> bool) {
        for number in 1..=self.map.accounts.pages {
            let (Owner::Leaf(tree) | Owner::Interior(tree)) = self.map.accounts.owner(number) else { continue };
            if !wanted(tree) {
                continue;
            }
            self.with_judge(|judge| {
                if let Some(image) = judge.read(number) {
                    judge.records(tree, number, &image);
                }
            });
            if self.tally.out_of_time {
                return;
            }
        }
    }
}
