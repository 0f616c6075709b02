//! Who does the work of streaming: one after the other, or side by side.
//!
//! The check itself knows no threads. It hands out the same piece of work any number of times; the pieces share a counter
//! of runs of pages and end when it does, so that any number of workers, one included, gets the whole done, and what they
//! found is merged in a way that does not depend on who did what ([`super::tally`]).

/// Workers.
pub trait Crew {
    /// Runs `mine` on the calling thread and `others` any number of times beside it, none included; returns when all have
    /// ended. `mine` alone must be enough to get everything done.
    fn work(&self, mine: &mut dyn FnMut(), others: &(dyn Fn() + Sync));
}

/// The calling thread alone.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Crew for Alone {
    fn work(&self, mine: &mut dyn FnMut(), _: &(dyn Fn() + Sync)) {
        mine();
    }
}
