//! The figures of a queue: the four that the agent's own `get_stats` gives, under its names, and what it does not say.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Item, Rejected};
use crate::sqlite::rows::Cell;

/// A clock before 2024 is that of a machine which does not know the time: nothing is called expired by it.
pub const CLOCK_FLOOR: u64 = 1_704_067_200;

/// Figures, gathered row by row.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Rows, valid or not: what the agent calls pending.
    pub depth: u64,
    /// Least `created_at`; `null` in an empty queue.
    pub oldest_item_timestamp: Option<f64>,
    /// Sum of `retry_count`.
    pub total_retries: i64,
    /// Rows that were tried and not sent.
    pub retrying_items: u64,
    /// Rows by priority.
    pub by_priority: BTreeMap<String, u64>,
    /// Rows whose lifetime is over; `null` when the clock cannot be right.
    pub expired: Option<u64>,
    /// Rows that cannot be sent as they are.
    pub invalid: u64,
    /// Places of the table that cannot be read; the rows on them are not counted anywhere.
    pub unreadable_places: u64,
}

impl Stats {
    /// Nothing yet. `now` is the wall clock.
    #[must_use]
    pub fn new(now: u64) -> Self {
        let by_priority = (1..=4).map(|p| (p.to_string(), 0)).collect();
        Self { expired: (now >= CLOCK_FLOOR).then_some(0), by_priority, ..Self::default() }
    }

    /// Counts a row that can be sent.
    pub fn item(&mut self, item: &Item, now: u64) {
        self.row(Some(item.created_at), item.retry_count, item.priority);
        #[allow(clippy::cast_precision_loss)] // seconds
        let over = item.ttl_seconds > 0 && item.created_at + (item.ttl_seconds as f64) < now as f64;
        if let (Some(expired), true) = (self.expired.as_mut(), over) {
            *expired += 1;
        }
    }

    /// Counts a row that cannot; the agent counts it too.
    pub fn rejected(&mut self, rejected: &Rejected) {
        let cell = |name: &str| rejected.values.iter().find(|(n, _)| n == name).map(|(_, c)| c);
        let integer = |name: &str| if let Some(Cell::Integer(n)) = cell(name) { Some(*n) } else { None };
        let created = match cell("created_at") {
            Some(Cell::Real(x)) if x.is_finite() => Some(*x),
            _ => None,
        };
        if rejected.values.is_empty() {
            self.unreadable_places += 1;
            return;
        }
        self.invalid += 1;
        self.row(created, integer("retry_count").unwrap_or(0), integer("priority").unwrap_or(0));
    }

    fn row(&mut self, created: Option<f64>, retries: i64, priority: i64) {
        self.depth += 1;
        self.oldest_item_timestamp = match (self.oldest_item_timestamp, created) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.total_retries = self.total_retries.saturating_add(retries);
        self.retrying_items += u64::from(retries > 0);
        if (1..=4).contains(&priority) {
            *self.by_priority.entry(priority.to_string()).or_default() += 1;
        }
    }
}
