//! Which backups go: a pure function of what there is and of the time.
//!
//! Kept, each for the first reason that holds:
//!
//! | reason | rule |
//! |---|---|
//! | `no-clock` | nothing goes while the time is not known, stands below what is certainly past, or decades ahead of it |
//! | `newest` | the newest backup, verified or not: the last one is never deleted |
//! | `newest-verified` | the newest `keep_verified` that can be restored and are verified (`verified`, and their base too) |
//! | `young` | younger than `keep_days` days, or not proved to be older |
//! | `base` | a kept increment needs it |
//!
//! Everything else goes (`old`).
//!
//! *Order is the sequence number*, never a clock: a gateway without a battery begins in 1970 after each power cut, and one
//! wrong network answer sets it to 2106. Age is what a clock is needed for, and it is held against the neighbours: a
//! backup is at least as young as one made before it, and one from the future was made before the next one that is not.
//!
//! Files whose names are not ours are not in the list and are never touched.

pub mod name;
pub mod utc;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use name::ArchiveName;

const DAY: u64 = 86_400;
/// A clock that is further ahead of what is certainly past is wrong, whoever vouches for it: such as one at its end in 2106.
const LIFE: u64 = 30 * 365 * DAY;
/// Certainly past, where nothing else is known: 2026-01-01.
const RELEASED: u64 = 1_767_225_600;

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Name of its file; each once.
    pub name: String,
    /// Its sequence number.
    pub sequence: u64,
    /// When it was made by the clock of that time, seconds since 1970.
    pub made: u64,
    /// Its length in bytes.
    pub length: u64,
    /// It was read back, decrypted and fully checked after it was written.
    pub verified: bool,
    /// Name of the file that it is an increment to; `None` for a full one.
    pub base: Option<String>,
}

/// How long backups are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Days for which every backup is kept.
    pub keep_days: u32,
    /// How many verified ones are kept whatever their age.
    pub keep_verified: u32,
}

impl Default for Rule {
    fn default() -> Self {
        Self { keep_days: 30, keep_verified: 3 }
    }
}

/// What is known of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Seconds since 1970 by the clock.
    pub at: u64,
    /// Whether the clock was set by something that knows the time since the machine was started.
    pub trusted: bool,
    /// What is certainly past.
    pub floor: u64,
}

impl Now {
    /// The time, where it is known.
    fn known(self) -> Option<u64> {
        let possible = self.floor..=self.floor.max(RELEASED).saturating_add(LIFE);
        (self.trusted && possible.contains(&self.at)).then_some(self.at)
    }
}

/// Why a backup is kept or goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum Reason {
    /// Kept: the time is not known.
    NoClock,
    /// Kept: the newest.
    Newest,
    /// Kept: among the newest verified ones.
    NewestVerified,
    /// Kept: not older than `keep_days`.
    Young {
        /// Whole days, where its age is known.
        days: Option<u64>,
    },
    /// Kept: an increment that is kept needs it.
    Base {
        /// The increment.
        of: String,
    },
    /// Goes: older than `keep_days`, and enough verified ones are newer.
    Old {
        /// Whole days.
        days: u64,
    },
    /// Goes: room is needed, and enough verified ones are newer.
    Room,
}

/// What becomes of one backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Its name.
    pub name: String,
    /// Whether it is kept.
    pub keep: bool,
    /// Why.
    pub reason: Reason,
}

/// What becomes of each backup, newest first.
#[must_use]
pub fn plan(backups: &[Backup], rule: Rule, now: Now) -> Vec<Decision> {
    let shelf = Shelf::new(backups);
    let Some(at) = now.known() else { return shelf.decide(|_| (true, Reason::NoClock)) };
    let (ages, mut kept) = (shelf.ages(at), shelf.protected(rule));
    let age = |place: usize| ages.get(place).copied().flatten();
    let limit = u64::from(rule.keep_days) * DAY;
    for (place, slot) in kept.iter_mut().enumerate() {
        let old = age(place).is_some_and(|age| age > limit);
        if slot.is_none() && !old {
            *slot = Some(Reason::Young { days: age(place).map(|age| age / DAY) });
        }
    }
    shelf.keep_bases(&mut kept);
    shelf.decide(|place| match kept.get(place).cloned().flatten() {
        Some(reason) => (true, reason),
        None => (false, Reason::Old { days: age(place).unwrap_or(0) / DAY }),
    })
}

/// What goes so that `wanted` more bytes fit, the oldest first, whatever its age, and no more than that: for a backup that
/// cannot be written otherwise. No clock is asked. The newest, the newest verified ones and their bases stay, so it may be
/// less than wanted. A base takes its increments with it.
#[must_use]
pub fn room(backups: &[Backup], rule: Rule, wanted: u64) -> Vec<Decision> {
    let shelf = Shelf::new(backups);
    let mut kept = shelf.protected(rule);
    shelf.keep_bases(&mut kept);
    let increments = shelf.increments();
    let mut gone = vec![false; backups.len()];
    let mut freed = 0_u64;
    for oldest in (0..backups.len()).rev() {
        if freed >= wanted {
            break;
        }
        let mut open = vec![oldest];
        while let Some(place) = open.pop() {
            // From what is not kept nothing that is kept is reached: the bases of kept ones are kept.
            let (Some(slot), Some(None)) = (gone.get_mut(place), kept.get(place)) else { continue };
            if !std::mem::replace(slot, true) {
                freed = freed.saturating_add(shelf.newest_first.get(place).map_or(0, |b| b.length));
                open.extend(increments.get(place).into_iter().flatten());
            }
        }
    }
    shelf.decide(|place| match (gone.get(place), kept.get(place).cloned().flatten()) {
        (Some(true), _) => (false, Reason::Room),
        (_, reason) => (true, reason.unwrap_or(Reason::Young { days: None })),
    })
}

/// What of a decision goes, in the order in which to delete it: increments before their bases, so that a cut in between
/// breaks no chain, and the oldest first.
#[must_use]
pub fn drops<'d>(backups: &[Backup], decisions: &'d [Decision]) -> Vec<&'d str> {
    let shelf = Shelf::new(backups);
    let mut gone: Vec<(Reverse<usize>, Reverse<usize>, &str)> = Vec::new();
    for decision in decisions.iter().filter(|d| !d.keep) {
        let place = shelf.place.get(decision.name.as_str()).copied().unwrap_or(0);
        let depth = shelf.depth.get(place).copied().flatten().unwrap_or(usize::MAX);
        gone.push((Reverse(depth), Reverse(place), &decision.name));
    }
    gone.sort();
    gone.into_iter().map(|(_, _, name)| name).collect()
}

/// The sequence number of the next backup: above every one that lies there and above the one recorded in state. A card
/// whose state is new must not begin again below its own backups, since these would then count as newer.
#[must_use]
pub fn next_sequence(backups: &[Backup], recorded: Option<u64>) -> u64 {
    backups.iter().map(|b| b.sequence).chain(recorded).max().unwrap_or(0).saturating_add(1)
}

/// The backups in order, and how they hang together. A place is an index into `newest_first`.
struct Shelf<'a> {
    newest_first: Vec<&'a Backup>,
    place: BTreeMap<&'a str, usize>,
    /// How many bases are below each; `None` where one is missing or the chain runs in a circle.
    depth: Vec<Option<usize>>,
}

impl<'a> Shelf<'a> {
    fn new(backups: &'a [Backup]) -> Self {
        let mut newest_first: Vec<&Backup> = backups.iter().collect();
        newest_first.sort_by_key(|b| Reverse((b.sequence, b.made, b.name.as_str())));
        let place = newest_first.iter().enumerate().map(|(place, b)| (b.name.as_str(), place)).collect();
        let mut shelf = Self { depth: vec![None; newest_first.len()], newest_first, place };
        shelf.measure();
        shelf
    }

    /// From the full ones up, so that nothing is walked twice however long a chain is.
    fn measure(&mut self) {
        let increments = self.increments();
        let full = |(place, b): (usize, &&Backup)| b.base.is_none().then_some((place, 0));
        let mut open: Vec<(usize, usize)> = self.newest_first.iter().enumerate().filter_map(full).collect();
        while let Some((place, depth)) = open.pop() {
            if let Some(slot) = self.depth.get_mut(place) {
                *slot = Some(depth);
            }
            open.extend(increments.get(place).into_iter().flatten().map(|next| (*next, depth + 1)));
        }
    }

    fn base_of(&self, place: usize) -> Option<usize> {
        let base = self.newest_first.get(place)?.base.as_deref()?;
        self.place.get(base).copied()
    }

    /// For each place the increments to it.
    fn increments(&self) -> Vec<Vec<usize>> {
        let mut all = vec![Vec::new(); self.newest_first.len()];
        for place in 0..self.newest_first.len() {
            if let Some(list) = self.base_of(place).and_then(|base| all.get_mut(base)) {
                list.push(place);
            }
        }
        all
    }

    /// For each place whether it can be restored and everything that takes is verified.
    fn proved(&self) -> Vec<bool> {
        let mut proved = vec![false; self.newest_first.len()];
        let mut order: Vec<(usize, usize)> =
            self.depth.iter().enumerate().filter_map(|(place, depth)| depth.map(|depth| (depth, place))).collect();
        order.sort_unstable();
        for (_, place) in order {
            let below = self.base_of(place).is_none_or(|base| proved.get(base) == Some(&true));
            let verified = self.newest_first.get(place).is_some_and(|b| b.verified);
            if let Some(slot) = proved.get_mut(place) {
                *slot = below && verified;
            }
        }
        proved
    }

    /// What stays whatever its age.
    fn protected(&self, rule: Rule) -> Vec<Option<Reason>> {
        let mut kept = vec![None; self.newest_first.len()];
        let proved = self.proved();
        // The last verified one is never deleted, whatever the rule says.
        let most = usize::try_from(rule.keep_verified.max(1)).unwrap_or(usize::MAX);
        for (slot, _) in kept.iter_mut().zip(&proved).filter(|(_, proved)| **proved).take(most) {
            *slot = Some(Reason::NewestVerified);
        }
        if let Some(first) = kept.first_mut() {
            *first = Some(Reason::Newest);
        }
        kept
    }

    fn keep_bases(&self, kept: &mut [Option<Reason>]) {
        for from in 0..kept.len() {
            let mut place = from;
            while let (Some(Some(_)), Some(base)) = (kept.get(place), self.base_of(place)) {
                let Some(slot @ None) = kept.get_mut(base) else { break };
                let of = self.newest_first.get(place).map_or_else(String::new, |b| b.name.clone());
                *slot = Some(Reason::Base { of });
                place = base;
            }
        }
    }

    /// For each place its age in seconds, at most; `None` where nothing says that it is not of today.
    fn ages(&self, now: u64) -> Vec<Option<u64>> {
        let mut made: Vec<Option<u64>> = self.newest_first.iter().map(|b| (b.made <= now).then_some(b.made)).collect();
        let mut latest = 0;
        for time in made.iter_mut().rev().flatten() {
            latest = latest.max(*time);
            *time = latest;
        }
        let mut next = None;
        for time in &mut made {
            next = time.or(next);
            *time = next;
        }
        made.into_iter().map(|time| time.map(|time| now - time)).collect()
    }

    fn decide(&self, of: impl Fn(usize) -> (bool, Reason)) -> Vec<Decision> {
        let decision = |(place, backup): (usize, &&Backup)| {
            let (keep, reason) = of(place);
            Decision { name: backup.name.clone(), keep, reason }
        };
        self.newest_first.iter().enumerate().map(decision).collect()
    }
}
