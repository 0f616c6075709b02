//! Whether a ticket is carried out, here and now. Pure and total: every fact comes in as a value.
//!
//! The order, and what each wrong order would cost:
//! 1. size, then signature, before a byte of the ticket is interpreted: a parser in front of the signature is one that
//!    strangers can reach;
//! 2. whether the text is a ticket, and whether the key may sign this action;
//! 3. device and restore recipient: a stick for another device must not be told apart by counters of this one;
//! 4. nonce, then counter: "already done" is what a technician has to read when a stick was left in, not "too old";
//! 5. version, time, sizes, age of the backup.
//!
//! A clock that nobody has set proves nothing. The *time floor* is what the device knows to be past: a ticket whose last
//! second lies before it is expired, whatever the clock says. Where the clock is not trusted that is all there is, and the
//! counter alone keeps a ticket from being used twice; what was accepted says so ([`Accepted::clock_trusted`]).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Action, Code, Digest, MAX_LEN, Malformed, Nonce, Refusal, Ticket, Version};
use crate::keyring::Keyring;
use crate::reset::Request;
use crate::sign::{KeyId, PublicKey};

const DAY: u64 = 86_400;
const GIB: u64 = 1 << 30;
/// How far the desk's clock may be ahead of the device's.
const SKEW: u64 = DAY;
/// How far one ticket may move the time floor. Less than a ticket may live ([`Policy::lifetime`]), so that after a desk's
/// wrong date a rightly dated ticket can still be made that this device accepts.
const FLOOR_STEP: u64 = 30 * DAY;
/// No device lives longer. A time beyond is a clock that was wrong, such as one at its end in 2106.
const LIFE: u64 = 30 * 365 * DAY;

/// The clock of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// Seconds since 1970.
    pub now: u64,
    /// Whether it has been set by something that knows the time since the machine was started.
    pub trusted: bool,
}

/// What the device remembers, in state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Highest counter of a ticket that was carried out; 0: none.
    pub counter: u64,
    /// Nonces of tickets that were carried out. May be cut to the newest few: the counter alone refuses the others.
    pub nonces: BTreeSet<Nonce>,
    /// [`time_floor`].
    pub floor: u64,
    /// Highest sequence number of a backup that this device has made or was restored to.
    pub sequence: Option<u64>,
}

/// Everything about the device that a ticket is held against.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Its id.
    pub device: &'a str,
    /// Digest of its restore recipient; `None` before it has one.
    pub recipient: Option<Digest>,
    /// Its own signing key, which may authorise nothing.
    pub own_key: Option<&'a PublicKey>,
    /// What it remembers; `None` when its state cannot be read.
    pub memory: Option<&'a Memory>,
    /// Its clock.
    pub clock: Clock,
    /// Version of this program.
    pub version: Version,
    /// What it accepts at most.
    pub policy: Policy,
}

/// What a device accepts at most, whoever has signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Bytes of an archive.
    pub archive: u64,
    /// Bytes of all files of an archive together.
    pub restored: u64,
    /// Bytes of an export.
    pub export: u64,
    /// Seconds from a ticket's issue to its expiry.
    pub lifetime: u64,
}

impl Default for Policy {
    /// A file on a stick has less than 4 GiB; a card has less than 64 GB.
    fn default() -> Self {
        Self { archive: 4 * GIB, restored: 32 * GIB, export: 4 * GIB, lifetime: 90 * DAY }
    }
}

/// What the COMMIT record of an operation carries: the ticket is used if and only if such a record exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Of the ticket.
    pub nonce: Nonce,
    /// Of the ticket.
    pub counter: u64,
    /// Time floor from then on.
    pub floor: u64,
}

/// A ticket that may be carried out once.
///
/// What it does not prove, and whoever carries it out has to: that the archive on the stick has the length and digest that
/// it names, and that the manifest in it has exactly its files, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an accepted ticket is to be carried out, or its refusal said"]
pub struct Accepted {
    /// The ticket.
    pub ticket: Ticket,
    /// The key that signed it.
    pub key: KeyId,
    /// False when expiry was judged by the time floor alone.
    pub clock_trusted: bool,
    /// What the COMMIT record has to carry.
    pub used: Used,
}

impl Accepted {
    /// The factory reset that the ticket asks for. Its number is the nonce, so that it is executed once however it came in.
    #[must_use]
    pub fn reset_request(&self) -> Option<Request> {
        let Action::Reset(reset) = &self.ticket.action else { return None };
        let (by, id) = (self.ticket.technician.clone(), format!("ticket-{}", self.ticket.nonce));
        Some(Request { tier: reset.tier, by, id, accept_loss: reset.accept_loss })
    }
}

/// Judges a ticket: the bytes of the two files as found on the stick, `None` where there is no signature file.
pub fn judge(bytes: &[u8], minisig: Option<&[u8]>, keyring: &Keyring, facts: &Facts<'_>) -> Result<Accepted, Refusal> {
    if bytes.len() > MAX_LEN {
        let why = "The ticket is longer than 64 KiB, so it is not one of ours.";
        return Err(Refusal::untrusted(Code::TooLong, why, "Ask operations to prepare the stick again."));
    }
    let key = keyring.signer(bytes, minisig).map_err(|why| Refusal::distrusted(&why))?;
    let ticket = Ticket::parse(bytes).map_err(|why| malformed(&why))?;
    let own = facts.own_key.is_some_and(|own| own.point() == key.public.point());
    let verdict = match key.may(ticket.action.role()) {
        _ if own => Err(Refusal::own_key(key.public.id())),
        _ if ticket.key != key.public.id() => Err(Refusal::trusted(
            Code::WrongKey,
            format!(
                "The ticket says that it is signed with the key {}, and it is with {}.",
                ticket.key,
                key.public.id()
            ),
            "Ask operations to prepare the stick again.",
        )),
        Err(why) => Err(Refusal::distrusted(&why)),
        Ok(()) => held_against(&ticket, facts),
    };
    match verdict {
        Ok((clock_trusted, used)) => Ok(Accepted { key: key.public.id(), clock_trusted, used, ticket }),
        Err(refusal) => Err(Refusal { nonce: Some(ticket.nonce), ..refusal }),
    }
}

fn malformed(why: &Malformed) -> Refusal {
    let code = match why {
        Malformed::Unfit(_) => Code::Malformed,
        Malformed::Newer(_) => Code::NeedsNewerVersion,
    };
    let next = match why {
        Malformed::Unfit(_) => "Ask operations to prepare the stick again with pyvorin-recovery stick prepare.",
        Malformed::Newer(_) => {
            "Update the system of the device first, or ask operations for a ticket of an older kind."
        }
    };
    Refusal::trusted(code, format!("The ticket is signed and cannot be used: {why}."), next)
}

fn held_against(ticket: &Ticket, facts: &Facts<'_>) -> Result<(bool, Used), Refusal> {
    let Some(target) = ticket.devices.iter().find(|d| d.id == facts.device) else {
        let named: Vec<&str> = ticket.devices.iter().map(|d| d.id.as_str()).collect();
        return Err(Refusal::wrong_device(&named, facts.device));
    };
    // Named is compared even where it need not be named.
    if target.recipient_sha256.is_some() && target.recipient_sha256 != facts.recipient {
        return Err(Refusal::wrong_recipient(facts.device, facts.recipient));
    }
    let memory = facts.memory.ok_or_else(Refusal::state_unusable)?;
    if memory.nonces.contains(&ticket.nonce) {
        return Err(Refusal::replayed());
    }
    if ticket.counter <= memory.counter {
        return Err(Refusal::older_counter(ticket.counter, memory.counter));
    }
    if let Some(wanted) = ticket.min_version.filter(|wanted| *wanted > facts.version) {
        return Err(Refusal::needs_version(wanted, facts.version));
    }
    let clock_trusted = in_time(ticket, facts, memory)?;
    within_policy(ticket, &facts.policy)?;
    if let (Action::Restore(restore), Some(newest)) = (&ticket.action, memory.sequence)
        && restore.archive.sequence < newest
        && !restore.allow_older
    {
        return Err(Refusal::older_backup(restore.archive.sequence, newest));
    }
    let floor = raise_floor(memory.floor, ticket.issued);
    Ok((clock_trusted, Used { nonce: ticket.nonce, counter: ticket.counter, floor }))
}

/// Whether the clock could be gone by; refuses what is out of its time.
fn in_time(ticket: &Ticket, facts: &Facts<'_>, memory: &Memory) -> Result<bool, Refusal> {
    // A clock below the floor is wrong, whatever it says of itself.
    let trusted = facts.clock.trusted && facts.clock.now >= memory.floor;
    let at = if trusted { facts.clock.now } else { memory.floor };
    if at > ticket.expires {
        return Err(Refusal::expired(ticket.expires, at));
    }
    if trusted && ticket.issued > at.saturating_add(SKEW) {
        return Err(Refusal::not_yet_valid(ticket.issued, at));
    }
    if ticket.expires.saturating_sub(ticket.issued) > facts.policy.lifetime {
        let why = format!(
            "The ticket would be good for more than the {} days that this device accepts.",
            facts.policy.lifetime / DAY
        );
        return Err(Refusal::trusted(Code::TooLongLived, why, "Ask operations for a ticket that expires earlier."));
    }
    Ok(trusted)
}

fn within_policy(ticket: &Ticket, policy: &Policy) -> Result<(), Refusal> {
    let (what, bytes, most) = match &ticket.action {
        Action::Restore(restore) if restore.archive.length > policy.archive => {
            ("archive on the stick", restore.archive.length, policy.archive)
        }
        Action::Restore(restore) => {
            let sum = restore.files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.length));
            ("content of the archive", sum, policy.restored)
        }
        Action::Export(export) => ("file for the export", export.reserve, policy.export),
        Action::Reset(_) | Action::Keyring(_) | Action::Enrol => return Ok(()),
    };
    if bytes <= most {
        return Ok(());
    }
    let why = format!("The {what} has {bytes} bytes, and this device accepts {most} at most.");
    Err(Refusal::trusted(Code::TooLarge, why, "Ask operations for a smaller one."))
}

/// Of the tickets of all sticks at most one may be carried out. With more than one valid ticket none is, and each is told.
#[must_use]
pub fn only_one(judged: Vec<Result<Accepted, Refusal>>) -> Vec<Result<Accepted, Refusal>> {
    let valid = judged.iter().filter(|j| j.is_ok()).count();
    let told = |accepted: Accepted| match valid {
        1 => Ok(accepted),
        _ => Err(Refusal { nonce: Some(accepted.ticket.nonce), ..Refusal::ambiguous(valid) }),
    };
    judged.into_iter().map(|j| j.and_then(told)).collect()
}

/// The time that is certainly past: the newest of when this program was built and of what the device has recorded under a
/// trusted clock (its saved time, its last audit entry, the floor of the last used ticket). What lies more than a device's
/// life behind the build is a clock that was wrong, and does not count.
#[must_use]
pub fn time_floor(built: u64, recorded: &[u64]) -> u64 {
    let last = built.saturating_add(LIFE);
    recorded.iter().copied().filter(|at| *at <= last).fold(built, u64::max)
}

/// The floor after a ticket was accepted that was issued at `issued`. A ticket shows that this time has come, and moves the
/// floor by 30 days at most.
#[must_use]
pub fn raise_floor(floor: u64, issued: u64) -> u64 {
    floor.max(issued.min(floor.saturating_add(FLOOR_STEP)))
}
