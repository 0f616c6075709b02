//! Verification of a chain of records, one at a time and in bounded memory.
//!
//! What a chain can and cannot show:
//! * an edited record no longer has the hash of its contents; removed, inserted and reordered records leave a link that
//!   does not fit. The first of either is the first break, and is named;
//! * a chain whose first record points at a hash that is not there has an *anchored start*: older records were purged,
//!   by retention or by somebody. It is no break, and is said apart;
//! * records cut from the end, and a whole chain hashed anew, leave nothing to see in the chain itself. Only a head that
//!   was noted before ([`Anchor`]) shows them, and only up to that head: so its age belongs into every report.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::dialect::{self, Dialect, Parsed, Record, Set};
use crate::sqlite::rows::Cell;

/// Rows at the end that a dialect must reproduce, beside the first, to be written in.
const TAIL: usize = 16;
/// Breaks described at most; all are counted.
const MAX_BREAKS: usize = 16;
/// What a chain begins with when nothing can be learnt from one that exists.
pub const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A head of the chain, noted at some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Id of the record.
    pub id: i64,
    /// Its hash.
    pub hash: String,
    /// Id of the first record at that time.
    #[serde(default)]
    pub first_id: Option<i64>,
    /// Seconds since the epoch when it was noted; 0 when unknown.
    #[serde(default)]
    pub taken_at: u64,
    /// Where it was kept.
    #[serde(default)]
    pub source: String,
}

/// Kind of break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakKind {
    /// The hash is not that of the contents: one of them was changed.
    Edited,
    /// It does not continue the record before it: records between were removed, put in or reordered, or the one before
    /// was changed and hashed anew.
    Unlinked,
    /// A place in the table that cannot be read.
    Unreadable,
}

/// One break.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Break {
    /// Id of the record at which it shows; for an unreadable place the last id before it.
    pub id: i64,
    /// Kind.
    pub kind: BreakKind,
    /// In words.
    pub what: String,
}

/// How the chain begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// No records.
    Empty,
    /// The first record has no predecessor; its `prev_hash` as stored ("null" for NULL).
    Genesis(String),
    /// The first record continues one that is not there.
    Anchored(String),
}

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChainState {
    /// Every record has its hash and its link, from a genesis on.
    Intact,
    /// The same, behind a start whose predecessors are gone.
    Anchored,
    /// No records, and none known from before.
    Empty,
    /// At least one break.
    Broken,
    /// It verifies, and ends before a head that is known.
    Shortened,
    /// It verifies, and is another chain than the one whose head is known.
    Rewritten,
    /// The links hold, and no known dialect gives the hash of any record.
    Unexplained,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Verdict.
    pub state: ChainState,
    /// Records read.
    pub records: u64,
    /// Id of the first.
    pub first_id: Option<i64>,
    /// Id and hash of the last.
    pub head: Option<(i64, String)>,
    /// How it begins.
    pub start: Start,
    /// Dialects that explain every explained record; more than one where the texts cannot tell them apart.
    pub dialects: Vec<String>,
    /// More than one dialect is possible.
    pub ambiguous: bool,
    /// No single dialect explains all the records that have their hash: the agent changed its form.
    pub mixed: bool,
    /// The dialect in which records may be appended; `None`: do not.
    pub append_in: Option<String>,
    /// Number of breaks.
    pub breaks: u64,
    /// The first of them, in order.
    pub first_breaks: Vec<Break>,
    /// Known heads that the chain does not bear out, and what else should be looked at, in words.
    pub remarks: Vec<String>,
    /// The newest known head that it was compared with.
    pub anchor: Option<Anchor>,
}

impl Verified {
    /// The first break.
    #[must_use]
    pub fn first_break(&self) -> Option<&Break> {
        self.first_breaks.first()
    }

    /// True when nothing speaks against the chain.
    #[must_use]
    pub fn good(&self) -> bool {
        matches!(self.state, ChainState::Intact | ChainState::Anchored | ChainState::Empty)
    }
}

/// Takes the records in order of id.
#[derive(Debug)]
pub struct Verifier {
    anchors: Vec<(Anchor, Option<String>)>,
    by_id: BTreeMap<i64, Vec<usize>>,
    live: Set,
    explained: u64,
    mixed: bool,
    first: Set,
    tail: VecDeque<Set>,
    records: u64,
    first_id: Option<i64>,
    start: Start,
    previous: Option<(i64, Cell)>,
    gap: bool,
    breaks: u64,
    first_breaks: Vec<Break>,
}

impl Verifier {
    /// Begins. `anchors` are the heads known from before.
    #[must_use]
    pub fn new(anchors: Vec<Anchor>) -> Self {
        let mut by_id: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (i, anchor) in anchors.iter().enumerate() {
            by_id.entry(anchor.id).or_default().push(i);
        }
        Self {
            anchors: anchors.into_iter().map(|a| (a, None)).collect(),
            by_id,
            live: dialect::ALL,
            explained: 0,
            mixed: false,
            first: 0,
            tail: VecDeque::with_capacity(TAIL),
            records: 0,
            first_id: None,
            start: Start::Empty,
            previous: None,
            gap: false,
            breaks: 0,
            first_breaks: Vec::new(),
        }
    }

    fn broken(&mut self, id: i64, kind: BreakKind, what: String) {
        self.breaks += 1;
        if self.first_breaks.len() < MAX_BREAKS {
            self.first_breaks.push(Break { id, kind, what });
        }
    }

    /// A place that cannot be read. The link across it is not asked for again.
    pub fn unreadable(&mut self, why: &str) {
        let id = self.previous.as_ref().map_or(0, |(id, _)| *id);
        self.broken(id, BreakKind::Unreadable, format!("records behind id {id} cannot be read: {why}"));
        self.gap = true;
    }

    /// The next record.
    pub fn record(&mut self, record: &Record) {
        self.records += 1;
        self.link(record);
        let parsed = Parsed::new(record);
        let set = match &parsed {
            Err(_) => 0,
            Ok(parsed) => self.explain(parsed, &record.hash),
        };
        if set == 0 {
            let what = match parsed {
                Err(why) => format!("record {} cannot have been hashed as it stands: {why}", record.id),
                Ok(_) => {
                    format!("record {} does not have the hash of its contents: one of them was changed", record.id)
                }
            };
            self.broken(record.id, BreakKind::Edited, what);
        }
        if self.records == 1 {
            self.first = set;
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(set);
        for i in self.by_id.get(&record.id).into_iter().flatten() {
            if let Some((_, found)) = self.anchors.get_mut(*i) {
                *found = Some(shown(&record.hash));
            }
        }
        self.previous = Some((record.id, record.hash.clone()));
        self.gap = false;
    }

    /// The dialects that give this record its hash, asking the likely ones first.
    fn explain(&mut self, parsed: &Parsed, hash: &Cell) -> Set {
        let first_choice = if self.explained == 0 { dialect::FIRST } else { self.live };
        let mut set = parsed.explained_by(hash, first_choice);
        if set == 0 {
            set = parsed.explained_by(hash, dialect::ALL & !first_choice);
        }
        if set != 0 {
            self.explained += 1;
            if self.live & set == 0 {
                self.mixed = true;
            } else {
                self.live &= set;
            }
        }
        set
    }

    fn link(&mut self, record: &Record) {
        match &self.previous {
            None => {
                self.first_id = Some(record.id);
                self.start = match &record.prev {
                    Cell::Text(text) if is_hash(text) => Start::Anchored(shown(&record.prev)),
                    other => Start::Genesis(shown(other)),
                };
            }
            Some((id, hash)) if *hash != record.prev && !self.gap => {
                let missing = if record.id > id + 1 {
                    format!(" (ids {} to {} are not there)", id + 1, record.id - 1)
                } else {
                    String::new()
                };
                let what = format!(
                    "record {} does not continue record {id}{missing}: records were removed, put in or reordered, or record {id} was changed",
                    record.id
                );
                self.broken(record.id, BreakKind::Unlinked, what);
            }
            Some(_) => {}
        }
    }

    /// The verdict.
    #[must_use]
    pub fn finish(mut self) -> Verified {
        let mut state = match (&self.start, self.breaks) {
            (Start::Empty, 0) => ChainState::Empty,
            _ if self.records > 0 && self.explained == 0 && self.only_hashes_fail() => ChainState::Unexplained,
            (Start::Genesis(_), 0) => ChainState::Intact,
            (Start::Anchored(_), 0) => ChainState::Anchored,
            _ => ChainState::Broken,
        };
        let last = self.previous.as_ref().map_or(i64::MIN, |(id, _)| *id);
        let mut remarks = Vec::new();
        for (anchor, found) in &self.anchors {
            let Some((verdict, remark)) = compare(anchor, found.as_deref(), self.first_id, last, &self.start) else {
                continue;
            };
            remarks.push(remark);
            if matches!(state, ChainState::Intact | ChainState::Anchored | ChainState::Empty) {
                state = verdict;
            }
        }
        let usable = self.tail.iter().fold(self.first, |set, row| set & row);
        let explains_all = if self.explained > 0 && !self.mixed { self.live } else { 0 };
        if self.mixed {
            remarks.push("records have their hash in different dialects: the agent changed its form".to_string());
        }
        self.anchors.sort_by_key(|(anchor, _)| (anchor.taken_at, anchor.id));
        Verified {
            state,
            records: self.records,
            first_id: self.first_id,
            head: self.previous.map(|(id, hash)| (id, shown(&hash))),
            start: self.start,
            dialects: Dialect::of(explains_all).map(Dialect::name).collect(),
            ambiguous: explains_all.count_ones() > 1,
            mixed: self.mixed,
            append_in: Dialect::of(usable).next().map(Dialect::name),
            breaks: self.breaks,
            first_breaks: self.first_breaks,
            remarks,
            anchor: self.anchors.pop().map(|(anchor, _)| anchor),
        }
    }

    /// Every break is a hash: the links say nothing against the chain, so it may be written in a form unknown here.
    fn only_hashes_fail(&self) -> bool {
        self.breaks == self.records && self.first_breaks.iter().all(|b| b.kind == BreakKind::Edited)
    }
}

/// What a known head says against a chain; `None`: it is borne out, or cannot be asked.
fn compare(
    anchor: &Anchor,
    found: Option<&str>,
    first: Option<i64>,
    last: i64,
    start: &Start,
) -> Option<(ChainState, String)> {
    let whose = format!(
        "record {} noted{}",
        anchor.id,
        if anchor.source.is_empty() { String::new() } else { format!(" in {}", anchor.source) }
    );
    match found {
        Some(hash) if hash == anchor.hash => {
            let (Some(then), Some(now)) = (anchor.first_id, first) else { return None };
            let text = format!(
                "the chain began with record {then} when {whose}, and now begins with {now}: purged by retention, or removed"
            );
            (now > then && matches!(start, Start::Anchored(_))).then_some((ChainState::Shortened, text))
        }
        Some(_) => Some((
            ChainState::Rewritten,
            format!("{whose} has another hash now: the chain was hashed anew from there or before"),
        )),
        None if anchor.id > last => {
            let end = if first.is_some() { format!("ends with record {last}") } else { "is empty".to_string() };
            Some((ChainState::Shortened, format!("the chain {end}, before {whose}: its end was cut off")))
        }
        // Purged since: the link of the first record may still bear it out.
        None if first.is_some_and(|first| first == anchor.id + 1) => match start {
            Start::Anchored(prev) if *prev == anchor.hash => None,
            _ => Some((ChainState::Rewritten, format!("the first record does not continue {whose}"))),
        },
        None if first.is_some_and(|first| anchor.id < first) => {
            Some((ChainState::Shortened, format!("{whose} is gone, with all before the first: purged, or removed")))
        }
        None => Some((ChainState::Rewritten, format!("{whose} is not in the chain any more"))),
    }
}

/// A hash of a record, and not a word or zeroes that stand for "none before".
fn is_hash(text: &[u8]) -> bool {
    text.len() == 64 && text.iter().all(u8::is_ascii_hexdigit) && text.iter().any(|b| *b != b'0')
}

/// A cell as reports print it.
fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Null => "null".to_string(),
        Cell::Integer(n) => n.to_string(),
        Cell::Real(x) => super::json::repr(*x),
        Cell::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Cell::Blob(bytes) => bytes.iter().map(|b| format!("{b:02x}")).collect(),
    }
}
