//! Boot slots: which side starts next, how often it may try, and what it has proved.
//!
//! Pure. Every verb changes the value in memory only and says whether it changed anything; the caller writes once, at
//! the end, and only then. [`mod@file`] turns the value into the two copies of the plain state file and back.
//!
//! One boot is: refund or not, [`SlotsState::choose`], [`SlotsState::count_attempt`], one write, start. The refund comes
//! first: counting opens an attempt of its own, and a later refund would give back the try of a start that has not
//! happened yet. A cut between the two, if they are written apart, is harmless: a refunded attempt is closed.
//!
//! A try is consumed by an unknown reset before mark-good, because a hang that ends by pulling the plug must reach the
//! other slot. A *proven* power loss gives it back, at most [`REFUNDS_IN_ROW`] times without a mark-good in between,
//! because a slot that makes the supply collapse must not be tried for ever.

pub mod file;

use std::fmt;

use serde::{Deserialize, Serialize};

/// Power losses in a row, without a mark-good, that give their try back.
pub const REFUNDS_IN_ROW: u32 = 9;
/// More tries than this are never granted or believed: one digit, as every loader can store it.
pub const TRIES_MAX: u32 = 9;

/// A bootable side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// Root A.
    A,
    /// Root B.
    B,
    /// The recovery system.
    R,
}

impl Slot {
    /// The counterpart; `R` has none.
    #[must_use]
    pub fn other(self) -> Option<Slot> {
        match self {
            Self::A => Some(Self::B),
            Self::B => Some(Self::A),
            Self::R => None,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
            Self::R => "R",
        })
    }
}

/// What a slot has proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootState {
    /// It reached its health, and nobody has taken that back.
    Good,
    /// Marked bad, or all its tries are used up.
    Bad,
    /// Not known: never proved, or the state could not be read.
    Unknown,
}

/// Tries and proof of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotFacts {
    /// Starts that are left.
    pub left: u32,
    /// What it has proved.
    pub good: BootState,
}

/// Why a slot was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It stands first and has tries left.
    Primary,
    /// The slots before it are spent or bad.
    Fallback,
    /// No slot is left; the recovery system starts.
    AllSpent,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "it is the primary slot and has tries left",
            Self::Fallback => "the slot before it is bad or has used up its tries",
            Self::AllSpent => "no slot has tries left, so the recovery system starts",
        })
    }
}

/// What starts next, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The slot.
    pub slot: Slot,
    /// Why this one.
    pub reason: Reason,
}

/// Everything the selector remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotsState {
    /// Slots in the order in which they are tried; a slot marked bad is not in it.
    pub order: Vec<Slot>,
    /// Slot A.
    pub a: SlotFacts,
    /// Slot B.
    pub b: SlotFacts,
    /// What was started last.
    pub booted: Option<Slot>,
    /// The start that has been counted and not yet been marked, refunded or followed by another.
    pub attempt: Option<Slot>,
    /// Starts since the state was made.
    pub boot_count: u64,
    /// Refunds since the last mark-good.
    pub refunds_in_row: u32,
    /// Digest of the verdict for which the recovery system was last entered.
    pub recovery_entered_for: Option<String>,
}

impl SlotsState {
    /// The state of a new device: A before B, `tries` each, nothing proved.
    #[must_use]
    pub fn fresh(tries: u32) -> Self {
        let facts = SlotFacts { left: grant(tries), good: BootState::Unknown };
        Self {
            order: vec![Slot::A, Slot::B],
            a: facts,
            b: facts,
            booted: None,
            attempt: None,
            boot_count: 0,
            refunds_in_row: 0,
            recovery_entered_for: None,
        }
    }

    /// Tries and proof of a slot; `R` has neither.
    #[must_use]
    pub fn facts(&self, slot: Slot) -> Option<SlotFacts> {
        match slot {
            Slot::A => Some(self.a),
            Slot::B => Some(self.b),
            Slot::R => None,
        }
    }

    fn facts_mut(&mut self, slot: Slot) -> Option<&mut SlotFacts> {
        match slot {
            Slot::A => Some(&mut self.a),
            Slot::B => Some(&mut self.b),
            Slot::R => None,
        }
    }

    /// The boot state as it is reported: a slot without tries is bad, unless its last one is still running.
    #[must_use]
    pub fn boot_state(&self, slot: Slot) -> BootState {
        match self.facts(slot) {
            None => BootState::Unknown,
            Some(_) if !self.order.contains(&slot) => BootState::Bad,
            Some(facts) if facts.left == 0 && self.attempt != Some(slot) => BootState::Bad,
            Some(facts) => facts.good,
        }
    }

    /// The slot tried first; `None` when all are marked bad.
    #[must_use]
    pub fn primary(&self) -> Option<Slot> {
        self.order.first().copied()
    }

    /// What starts next. Changes nothing.
    #[must_use]
    pub fn choose(&self) -> Choice {
        let usable = |slot: &Slot| self.facts(*slot).is_some_and(|facts| facts.left > 0);
        match self.order.iter().copied().find(usable) {
            Some(slot) if self.primary() == Some(slot) => Choice { slot, reason: Reason::Primary },
            Some(slot) => Choice { slot, reason: Reason::Fallback },
            None => Choice { slot: Slot::R, reason: Reason::AllSpent },
        }
    }

    /// Counts one start, in memory. Must be durable before the slot is started, or a slot that resets the machine at
    /// once would be started for ever. Always a change.
    pub fn count_attempt(&mut self, slot: Slot) {
        self.attempt = None;
        if let Some(facts) = self.facts_mut(slot) {
            facts.left = facts.left.saturating_sub(1);
            self.attempt = Some(slot);
        }
        self.booted = Some(slot);
        self.boot_count = self.boot_count.saturating_add(1);
    }

    /// Gives back the try of the open attempt, in memory, after a *proven* power loss. False when nothing changed:
    /// no open attempt of that slot, or [`REFUNDS_IN_ROW`] reached.
    pub fn refund(&mut self, slot: Slot) -> bool {
        if self.attempt != Some(slot) || self.refunds_in_row >= REFUNDS_IN_ROW {
            return false;
        }
        let Some(facts) = self.facts_mut(slot).filter(|facts| facts.left < TRIES_MAX) else { return false };
        facts.left += 1;
        self.attempt = None;
        self.refunds_in_row += 1;
        true
    }

    /// Records in memory that a slot proved itself: all its tries, and good. False when nothing changed, and then
    /// nothing must be written. A slot that had been marked bad comes back at the end of the order.
    pub fn mark_good(&mut self, slot: Slot, tries: u32) -> bool {
        let before = self.clone();
        if let Some(facts) = self.facts_mut(slot) {
            *facts = SlotFacts { left: grant(tries), good: BootState::Good };
            if !self.order.contains(&slot) {
                self.order.push(slot);
            }
            self.refunds_in_row = 0;
            self.close(slot);
        }
        *self != before
    }

    /// Takes a slot out of the order, in memory, until it is marked good or made primary. False when nothing changed.
    pub fn mark_bad(&mut self, slot: Slot) -> bool {
        let before = self.clone();
        if let Some(facts) = self.facts_mut(slot) {
            *facts = SlotFacts { left: 0, good: BootState::Bad };
            self.order.retain(|one| *one != slot);
            self.close(slot);
        }
        *self != before
    }

    /// Puts a slot first with all its tries, in memory. What it has proved stays, except that bad becomes unknown.
    /// False when nothing changed.
    pub fn set_primary(&mut self, slot: Slot, tries: u32) -> bool {
        let before = self.clone();
        if let Some(facts) = self.facts_mut(slot) {
            facts.left = grant(tries);
            if facts.good == BootState::Bad {
                facts.good = BootState::Unknown;
            }
            self.order.retain(|one| *one != slot);
            self.order.insert(0, slot);
            self.close(slot);
        }
        *self != before
    }

    /// Remembers in memory that the recovery system is entered for a verdict. False when it was entered for the same
    /// one before: then it must not be entered again.
    pub fn enter_recovery(&mut self, digest: &str) -> bool {
        if self.recovery_entered_for.as_deref() == Some(digest) {
            return false;
        }
        self.recovery_entered_for = Some(digest.to_owned());
        true
    }

    /// An attempt that has been answered can no longer be refunded.
    fn close(&mut self, slot: Slot) {
        if self.attempt == Some(slot) {
            self.attempt = None;
        }
    }

    /// What a value from a file must fulfil before it is believed; the reason when it does not.
    pub(crate) fn impossible(&self) -> Option<&'static str> {
        let twice = self.order.iter().enumerate().any(|(i, slot)| self.order.iter().skip(i + 1).any(|o| o == slot));
        if twice || self.order.contains(&Slot::R) {
            return Some("its order of slots is impossible");
        }
        if self.a.left > TRIES_MAX || self.b.left > TRIES_MAX || self.refunds_in_row > REFUNDS_IN_ROW {
            return Some("it counts more tries than are ever granted");
        }
        None
    }
}

/// At least one try, or a slot could never be marked good; at most [`TRIES_MAX`].
fn grant(tries: u32) -> u32 {
    tries.clamp(1, TRIES_MAX)
}
