//! What is written back to the stick: `RESULT.txt` for the technician and `report.json` for operations.
//!
//! Both overwrite files of a fixed size in place, so they end in as many line ends as are missing ([`padded`]); what is
//! signed by the device is the padded text, byte for byte. Neither has rows, payloads, secrets or paths outside of what
//! the ticket names, and both are bounded: nothing that comes from a damaged database can make them long or put control
//! characters on an operator's screen.
//!
//! `RESULT.txt` has the line ends of Windows: it is read on whatever PC is at hand.

use serde::Serialize;

use super::{Accepted, Nonce, Refusal, Version};
use crate::retention::utc;

/// Size of `RESULT.txt` on a stick.
pub const RESULT_LEN: usize = 8 << 10;
/// Size of `report.json` on a stick.
pub const REPORT_LEN: usize = 64 << 10;
/// `schema` of `report.json`.
const SCHEMA: &str = "pyvorin-recovery/stick/1";
/// Most lines of each list, and most characters of a line.
const MAX_LINES: usize = 60;
const MAX_LINE: usize = 200;
const MORE: &str = "(more stands in report.json)\r\n";

/// Something that is gone, in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// What, such as `edge_store: readings`.
    pub what: String,
    /// How many rows; `null`: nobody can know.
    pub rows: Option<u64>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Carried out.
    Done {
        /// The ticket.
        ticket: Box<Accepted>,
        /// What was done, a sentence each.
        done: Vec<String>,
        /// What is gone.
        losses: Vec<Loss>,
        /// Sequence number and hash of the last record of the device's journal: an anchor outside of the device.
        journal: Option<(u64, String)>,
    },
    /// Begun, and given up with nothing changed. The same stick may be tried again.
    Failed {
        /// The ticket.
        ticket: Box<Accepted>,
        /// Stable code of what went wrong.
        code: String,
        /// What went wrong, a sentence.
        why: String,
        /// What to do next, a sentence.
        next: String,
    },
    /// Not carried out.
    Refused(Refusal),
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    result: &'static str,
    code: &'a str,
    device: String,
    version: Version,
    at: u64,
    clock_trusted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<Nonce>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counter: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    technician: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    why: String,
    next: String,
    done: Vec<String>,
    losses: Vec<Loss>,
    #[serde(skip_serializing_if = "Option::is_none")]
    journal: Option<Head>,
}

#[derive(Serialize)]
struct Head {
    seq: u64,
    hash: String,
}

/// The device that ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Its id.
    pub device: &'a str,
    /// Version of this program.
    pub version: Version,
    /// Seconds since 1970 by its clock.
    pub at: u64,
    /// Whether that clock was set.
    pub clock_trusted: bool,
}

impl Ending {
    /// Whether the stick may be told.
    #[must_use]
    pub fn may_write(&self) -> bool {
        !matches!(self, Self::Refused(refusal) if !refusal.may_write)
    }

    /// The first word of `RESULT.txt`: `OK`, `ALREADY DONE`, `REFUSED` or `FAILED`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Done { .. } => "OK",
            Self::Failed { .. } => "FAILED",
            Self::Refused(refusal) if refusal.code == super::Code::Replayed => "ALREADY DONE",
            Self::Refused(_) => "REFUSED",
        }
    }

    /// The stable code: `done`, or why not.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Done { .. } => "done",
            Self::Failed { code, .. } => code,
            Self::Refused(refusal) => refusal.code.word(),
        }
    }

    /// `RESULT.txt`, of [`RESULT_LEN`] bytes.
    #[must_use]
    pub fn result_text(&self, place: &Place<'_>) -> Vec<u8> {
        let (why, next) = self.why_and_next();
        let mut lines = vec![format!("{} ({})", self.word(), self.code()), String::new(), why];
        if !matches!(self, Self::Done { .. }) {
            lines.push("Nothing was changed on the device.".to_owned());
        }
        lines.extend([next, String::new(), format!("Device      {}", place.device)]);
        let unset = if place.clock_trusted { "" } else { " by a clock that nobody had set" };
        lines.push(format!("Time        {}{unset}", utc::plain(place.at)));
        if let Some(Accepted { ticket, .. }) = self.ticket() {
            lines.push(format!("Ticket      {} number {}, {}", ticket.action.name(), ticket.counter, ticket.nonce));
            lines.push(format!("Technician  {} (named by operations in the ticket)", ticket.technician));
        } else if let Self::Refused(Refusal { nonce: Some(nonce), .. }) = self {
            lines.push(format!("Ticket      {nonce}"));
        }
        lines.push(format!("Program     pyvorin-recovery {}", place.version));
        lines.extend(self.details());
        let mut text = String::new();
        for line in lines {
            let line = one_line(&line);
            if text.len() + line.len() + MORE.len() + 2 > RESULT_LEN {
                text.push_str(MORE);
                break;
            }
            text.push_str(&line);
            text.push_str("\r\n");
        }
        padded(text, RESULT_LEN).unwrap_or_default()
    }

    /// `report.json`, of [`REPORT_LEN`] bytes.
    #[must_use]
    pub fn report_json(&self, place: &Place<'_>) -> Vec<u8> {
        let (why, next) = self.why_and_next();
        let ticket = self.ticket();
        let (done, losses, journal) = match self {
            Self::Done { done, losses, journal, .. } => (done.as_slice(), losses.as_slice(), journal.as_ref()),
            _ => (&[][..], &[][..], None),
        };
        let report = Report {
            schema: SCHEMA,
            result: self.word(),
            code: self.code(),
            device: one_line(place.device),
            version: place.version,
            at: place.at,
            clock_trusted: place.clock_trusted,
            nonce: match self {
                Self::Refused(refusal) => refusal.nonce,
                _ => ticket.map(|t| t.ticket.nonce),
            },
            counter: ticket.map(|t| t.ticket.counter),
            action: ticket.map(|t| t.ticket.action.name()),
            technician: ticket.map(|t| one_line(&t.ticket.technician)),
            key: ticket.map(|t| t.key.to_string()),
            why: one_line(&why),
            next: one_line(&next),
            done: done.iter().take(MAX_LINES).map(|line| one_line(line)).collect(),
            losses: losses.iter().take(MAX_LINES).map(|l| Loss { what: one_line(&l.what), rows: l.rows }).collect(),
            journal: journal.map(|(seq, hash)| Head { seq: *seq, hash: one_line(hash) }),
        };
        // Printable ASCII takes two characters at most in JSON, so the bounds above keep this below the size of the file.
        let text = serde_json::to_string_pretty(&report).unwrap_or_default() + "\n";
        padded(text, REPORT_LEN).unwrap_or_default()
    }

    fn ticket(&self) -> Option<&Accepted> {
        match self {
            Self::Done { ticket, .. } | Self::Failed { ticket, .. } => Some(ticket),
            Self::Refused(_) => None,
        }
    }

    fn why_and_next(&self) -> (String, String) {
        match self {
            Self::Done { losses, .. } if losses.is_empty() => {
                ("The ticket has been carried out.".to_owned(), "Send the stick back to operations.".to_owned())
            }
            Self::Done { .. } => (
                "The ticket has been carried out. Not everything could be brought back; see below.".to_owned(),
                "Send the stick back to operations: they have to know what is missing.".to_owned(),
            ),
            Self::Failed { why, next, .. } => (why.clone(), next.clone()),
            Self::Refused(refusal) => (refusal.why.clone(), refusal.next.clone()),
        }
    }

    /// What was done and what is gone, last, because it is what may be cut off.
    fn details(&self) -> Vec<String> {
        let Self::Done { done, losses, journal, .. } = self else { return Vec::new() };
        let mut lines: Vec<String> =
            journal.iter().map(|(seq, hash)| format!("Journal     record {seq}, {hash}")).collect();
        lines.push(String::new());
        lines.extend(losses.iter().map(|loss| match loss.rows {
            Some(rows) => format!("  MISSING  {}: {}", loss.what, count(rows, "row")),
            None => format!("  MISSING  {}: nobody can know how many rows", loss.what),
        }));
        lines.extend(done.iter().map(|line| format!("  done     {line}")));
        lines
    }
}

fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// One line of printable ASCII of at most [`MAX_LINE`] characters; everything else becomes `?`.
fn one_line(text: &str) -> String {
    text.chars().take(MAX_LINE).map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect()
}

/// A text as it fills a file of `len` bytes: line ends behind it. `None` where it is longer.
#[must_use]
pub fn padded(text: String, len: usize) -> Option<Vec<u8>> {
    let mut bytes = text.into_bytes();
    if bytes.len() > len {
        return None;
    }
    bytes.resize(len, b'\n');
    Some(bytes)
}

#[cfg(test)]
mod tests;
