//! The journal of our own events: append-only, hash-chained, of bounded size. It outlives every repair, restore and reset
//! of the data, because it lies in the state directory.
//!
//! ```text
//! audit.log                 the segment that is written to
//! audit.0000000412.log      full segments, named by their first sequence number
//!
//! pyv1 1a2b3c4d 9f86d081…0f00a08 {"at":1717000000,"by":"T-042","details":{…},"event":"repair","op":"…","prev":"…","seq":413}
//!      CRC-32   SHA-256 of the JSON text
//! ```
//!
//! Three checks with three meanings. The CRC (of everything behind it on the line) fails: the storage, or a cut while
//! the line was written. The CRC holds and the hash does not: somebody edited it. Both hold and `prev` or `seq` do not
//! continue the line before: lines were removed, put in or reordered.
//!
//! A torn last line is cut off by the next append, which says so in a line of its own; it was never acknowledged. Damage
//! before good lines is not touched: that segment is set aside whole and the next one goes on from its last good line.
//! When a segment is full the next one continues its chain; when there are too many, the oldest is removed after a line
//! that names its last sequence number and hash, so that what is left still has a known start.

use super::dialect::sha256;
use super::json::{self, Style, Value};

/// The segment that is written to.
pub const CURRENT: &str = "audit.log";
/// Bytes of a segment at which the next one begins.
pub const SEGMENT: usize = 64 << 10;
/// Full segments kept beside the current one.
pub const KEEP: usize = 7;
/// Longest line: details beyond it are refused where they are given, and replaced by a digest where we made them.
pub const LINE: usize = 8 << 10;
/// Before the first line.
pub const GENESIS: &str = super::chain::ZEROS;
const MARK: &str = "pyv1 ";
const STYLE: Style = Style { spaced: false, ascii: true, sorted: true };

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Counts from 1, without gaps.
    pub seq: u64,
    /// Seconds since the epoch by the wall clock, right or not.
    pub at: u64,
    /// A technician as claimed, or "unattended".
    pub by: String,
    /// What happened: "repair", "left", "folded", or the action of `audit log`.
    pub event: String,
    /// The operation, where it has a name: the same one is recorded once.
    pub op: String,
    /// Facts; always an object.
    pub details: Value,
    /// Hash of the line before.
    pub prev: String,
    /// Hash of this line.
    pub hash: String,
}

/// An event before it has its place.
#[derive(Clone, Debug, PartialEq)]
pub struct New {
    /// As in [`Event`].
    pub at: u64,
    /// As in [`Event`].
    pub by: String,
    /// As in [`Event`].
    pub event: String,
    /// As in [`Event`].
    pub op: String,
    /// As in [`Event`].
    pub details: Value,
}

impl New {
    /// Gives it its place behind `last` and the bytes of its line.
    #[must_use]
    pub fn behind(&self, last: &Head) -> (Event, Vec<u8>) {
        let event = Event {
            seq: last.seq + 1,
            at: self.at,
            by: self.by.clone(),
            event: self.event.clone(),
            op: self.op.clone(),
            details: self.details.clone(),
            prev: last.hash.clone(),
            hash: String::new(),
        };
        let mut json = text(&event);
        let mut event = event;
        if json.len() > LINE {
            let whole = json::dumps(&event.details, STYLE).unwrap_or_default();
            event.details = Value::Object(vec![
                ("sha256".into(), Value::text(&sha256(&whole))),
                ("too_long".into(), Value::int(whole.len() as u64)),
            ]);
            json = text(&event);
        }
        event.hash = sha256(&json);
        let mut body = format!("{} ", event.hash).into_bytes();
        body.extend_from_slice(&json);
        let mut line = format!("{MARK}{:08x} ", crc32fast::hash(&body)).into_bytes();
        line.extend_from_slice(&body);
        line.push(b'\n');
        (event, line)
    }
}

fn text(e: &Event) -> Vec<u8> {
    let pairs = vec![
        ("at".into(), Value::int(e.at)),
        ("by".into(), Value::text(&e.by)),
        ("details".into(), e.details.clone()),
        ("event".into(), Value::text(&e.event)),
        ("op".into(), Value::text(&e.op)),
        ("prev".into(), Value::text(&e.prev)),
        ("seq".into(), Value::int(e.seq)),
    ];
    // With ASCII escapes everything can be written.
    json::dumps(&Value::Object(pairs), STYLE).unwrap_or_default()
}

/// The last line of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its sequence number; 0 before the first.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

impl Head {
    /// Before the first line.
    #[must_use]
    pub fn none() -> Self {
        Self { seq: 0, hash: GENESIS.to_string() }
    }
}

/// What one segment holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Segment {
    /// Good lines, in order.
    pub events: Vec<Event>,
    /// What is wrong, with the line number (from 1).
    pub faults: Vec<(usize, String)>,
    /// Bytes up to the end of the last good line.
    pub good: usize,
    /// Bytes behind it.
    pub torn: usize,
    /// Something is wrong before the last good line, or with a line that had been written whole.
    pub damaged: bool,
    /// A line of a later version: nothing may be appended.
    pub newer: bool,
}

/// Reads a segment. Total.
#[must_use]
pub fn read(bytes: &[u8]) -> Segment {
    let mut segment = Segment::default();
    let mut at = 0;
    for (i, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        at += line.len();
        match event(line) {
            Ok(event) => {
                segment.damaged |= !segment.faults.is_empty();
                segment.events.push(event);
                segment.good = at;
            }
            Err(why) => {
                let version = line.strip_prefix(b"pyv").and_then(|rest| rest.first());
                segment.newer |= version.is_some_and(|v| (b'2'..=b'9').contains(v)) && line.ends_with(b"\n");
                segment.faults.push((i + 1, why));
            }
        }
    }
    segment.torn = bytes.len() - segment.good;
    // A write that a cut interrupted lacks its end, or sectors in it that read as zeroes. A tail with neither is a line
    // that was whole once. (One zero may be a space with a flipped bit.)
    let tail = bytes.get(segment.good..).unwrap_or(&[]);
    segment.damaged |= tail.ends_with(b"\n") && !tail.windows(2).any(|w| w == [0, 0]);
    segment
}

fn event(line: &[u8]) -> Result<Event, String> {
    let fault = |why: &str| why.to_string();
    let line = line.strip_suffix(b"\n").ok_or_else(|| fault("it is cut off"))?;
    let rest = line.strip_prefix(MARK.as_bytes()).ok_or_else(|| fault("it does not begin as a line of ours"))?;
    let (crc, body) = rest.split_at_checked(9).ok_or_else(|| fault("it is cut off"))?;
    if crc != format!("{:08x} ", crc32fast::hash(body)).as_bytes() {
        return Err(fault("its checksum does not hold: the storage, or a cut while it was written"));
    }
    let (hash, json) = body.split_at_checked(65).ok_or_else(|| fault("it is too short"))?;
    let real = sha256(json);
    if hash != format!("{real} ").as_bytes() {
        return Err(fault("it does not have the hash of its contents: it was edited"));
    }
    let value = json::loads(json)?;
    let field = |name: &str| value.get(name).ok_or_else(|| format!("it has no {name}"));
    let number = |name: &str| {
        field(name)?.as_i64().and_then(|n| u64::try_from(n).ok()).ok_or(format!("its {name} is no number"))
    };
    let word = |name: &str| Ok::<_, String>(field(name)?.as_str().ok_or(format!("its {name} is no text"))?.to_string());
    Ok(Event {
        seq: number("seq")?,
        at: number("at")?,
        by: word("by")?,
        event: word("event")?,
        op: word("op")?,
        details: field("details")?.clone(),
        prev: word("prev")?,
        hash: real,
    })
}

/// The journal as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// Lines read.
    pub events: u64,
    /// First sequence number.
    pub first_seq: Option<u64>,
    /// The last good line.
    pub head: Head,
    /// The first line continues one that is gone, as a `journal-pruned` line behind it says.
    pub pruned: bool,
    /// What is wrong, the first first; empty: nothing.
    pub breaks: Vec<String>,
    /// The last line was cut off while it was written: nothing that was acknowledged is missing.
    pub torn: bool,
}

/// Checks the segments in order, oldest first, as (name, contents).
#[must_use]
pub fn verify(segments: &[(String, Segment)]) -> Verified {
    let mut v =
        Verified { events: 0, first_seq: None, head: Head::none(), pruned: false, breaks: Vec::new(), torn: false };
    let mut start: Option<Event> = None;
    let mut covered: Vec<(u64, String)> = Vec::new();
    let count = segments.len();
    for (i, (name, segment)) in segments.iter().enumerate() {
        let last = i + 1 == count;
        for (line, why) in &segment.faults {
            if last && !segment.damaged && segment.torn > 0 {
                v.torn = true;
            } else {
                v.breaks.push(format!("{name}, line {line}: {why}"));
            }
        }
        for event in &segment.events {
            if event.event == PRUNED {
                let seq = event.details.get("through_seq").and_then(Value::as_i64).and_then(|n| u64::try_from(n).ok());
                let hash = event.details.get("through_hash").and_then(Value::as_str);
                covered.extend(seq.zip(hash.map(str::to_string)));
            }
            if start.is_none() {
                start = Some(event.clone());
            } else if event.seq != v.head.seq + 1 || event.prev != v.head.hash {
                v.breaks.push(format!(
                    "{name}: event {} does not continue event {}: lines were removed, put in or reordered",
                    event.seq, v.head.seq
                ));
            }
            v.events += 1;
            v.head = Head { seq: event.seq, hash: event.hash.clone() };
        }
    }
    if let Some(first) = start {
        v.first_seq = Some(first.seq);
        if first.seq > 1 || first.prev != GENESIS {
            v.pruned = covered.iter().any(|(seq, hash)| seq + 1 == first.seq && *hash == first.prev);
            if !v.pruned {
                v.breaks.push(format!("the journal begins with event {}, and nothing says why", first.seq));
            }
        }
    }
    v
}

/// Event that names what was removed from the beginning.
pub const PRUNED: &str = "journal-pruned";
/// Event behind a last line that was cut off.
pub const TORN: &str = "journal-torn";
/// Event behind a segment that was set aside.
pub const DAMAGED: &str = "journal-damaged";
/// Event behind records folded into the agent's chain.
pub const FOLDED: &str = "folded";

/// True for what concerns the agent's chain: everything but our own housekeeping.
#[must_use]
pub fn is_for_the_chain(event: &Event) -> bool {
    ![PRUNED, TORN, DAMAGED, FOLDED].contains(&event.event.as_str())
}

/// Name of a full segment.
#[must_use]
pub fn segment_name(first_seq: u64) -> String {
    format!("audit.{first_seq:010}.log")
}

/// True for the name of a full segment.
#[must_use]
pub fn is_segment(name: &str) -> bool {
    let digits = name.strip_prefix("audit.").and_then(|rest| rest.strip_suffix(".log"));
    digits.is_some_and(|d| d.len() == 10 && d.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::{Event, Head, New, Value, read, verify};

    fn new(n: u64) -> New {
        let details = Value::Object(vec![("n".into(), Value::int(n)), ("é".into(), Value::text("ü\n\u{7f}"))]);
        New { at: n, by: "T-1".into(), event: "repair".into(), op: format!("op-{n}"), details }
    }

    fn lines(count: u64) -> (Vec<Event>, Vec<Vec<u8>>) {
        let mut head = Head::none();
        (1..=count)
            .map(|n| {
                let (event, line) = new(n).behind(&head);
                head = Head { seq: event.seq, hash: event.hash.clone() };
                (event, line)
            })
            .unzip()
    }

    fn one(bytes: &[u8]) -> super::Verified {
        verify(&[("audit.log".to_string(), read(bytes))])
    }

    #[test]
    fn lines_come_back_and_verify() {
        let (events, lines) = lines(20);
        let segment = read(&lines.concat());
        assert_eq!(segment.events, events);
        assert!(segment.faults.is_empty() && segment.torn == 0);
        let v = one(&lines.concat());
        assert!(v.breaks.is_empty() && !v.torn && v.head.seq == 20 && v.events == 20);
        assert!(one(b"").breaks.is_empty());
    }

    #[test]
    fn a_cut_anywhere_loses_at_most_the_line_that_was_being_written() {
        let bytes = lines(3).1.concat();
        let second = bytes.len() - lines(3).1[2].len();
        for cut in second..bytes.len() {
            let segment = read(&bytes[..cut]);
            assert_eq!((segment.events.len(), segment.good, segment.damaged), (2, second, false), "{cut}");
            let v = one(&bytes[..cut]);
            assert!(v.breaks.is_empty() && v.head.seq == 2 && v.torn == (cut > second), "{cut}");
        }
    }

    #[test]
    fn every_bit_and_every_removed_or_moved_line_is_found() {
        let lines = lines(5).1;
        let bytes = lines.concat();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let v = one(&bad);
            // A last line without its end cannot be told from one that a cut interrupted.
            let end = bit / 8 == bytes.len() - 1;
            assert!(!v.breaks.is_empty() || (end && v.torn && v.head.seq == 4), "bit {bit}");
        }
        for k in 0..4 {
            let mut gone = lines.clone();
            gone.remove(k);
            assert!(!one(&gone.concat()).breaks.is_empty(), "{k}");
            let mut moved = lines.clone();
            moved.swap(k, k + 1);
            assert!(!one(&moved.concat()).breaks.is_empty(), "{k}");
        }
    }

    #[test]
    fn a_line_of_a_later_version_forbids_appending() {
        let mut bytes = lines(1).1.concat();
        bytes.extend_from_slice(b"pyv2 something\n");
        assert!(read(&bytes).newer);
    }

    #[test]
    fn details_that_would_not_fit_are_named_by_their_digest() {
        let big = New { details: Value::Object(vec![("x".into(), Value::text(&"y".repeat(10_000)))]), ..new(1) };
        let (event, line) = big.behind(&Head::none());
        assert!(line.len() < 1000 && event.details.get("sha256").is_some());
        assert_eq!(read(&line).events, [event]);
    }
}
