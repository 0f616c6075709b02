//! Threads for the check of a large database: one for each processor, up to a few.

use std::thread;

use crate::sqlite::check::Crew;

/// More than this would wait for the device, and each takes a buffer.
const MOST: usize = 4;
/// The check does not recurse; its buffers are on the heap.
const STACK: usize = 256 << 10;

/// The calling thread and its helpers.
#[derive(Clone, Copy, Debug)]
pub struct Threads(usize);

impl Threads {
    /// As many as can run at the same time. On one processor that is the calling thread alone.
    #[must_use]
    pub fn available() -> Self {
        Self::at_most(thread::available_parallelism().map_or(1, usize::from))
    }

    /// So many, the calling thread included.
    #[must_use]
    pub fn at_most(threads: usize) -> Self {
        Self(threads.clamp(1, MOST))
    }
}

impl Crew for Threads {
    fn work(&self, mine: &mut dyn FnMut(), others: &(dyn Fn() + Sync)) {
        thread::scope(|scope| {
            for _ in 1..self.0 {
                // Where a limit forbids another thread, those that there are do all the work.
                if thread::Builder::new().stack_size(STACK).spawn_scoped(scope, others).is_err() {
                    break;
                }
            }
            mine();
        });
    }
}
