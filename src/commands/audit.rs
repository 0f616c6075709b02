//! `audit verify`, `show`, `log` and `fold`.

use std::path::Path;

use serde::Serialize;

use super::work::Work;
use super::{Context, print, print_json};
use crate::audit::chain::{Anchor, ChainState, Verified};
use crate::audit::dialect::Record;
use crate::audit::events::{self, Event, Head, New};
use crate::audit::json::{self, Style, Value};
use crate::boot::chain::{self, Ask, Chain};
use crate::boot::events as journal;
use crate::boot::fold::{self, Folded};
use crate::boot::sense::small_file;
use crate::cli::AuditCommand;
use crate::edge::{Look, Machine};
use crate::error::{Error, ErrorKind, Exit};
use crate::sqlite::rows::Cell;

/// Schema of `audit verify`, also of the anchors it takes.
const SCHEMA: &str = "pyvorin-recovery/audit/1";
/// Longest details that `audit log` takes.
const MAX_DETAILS: usize = 4096;

/// Runs one of them.
pub fn run(context: &mut Context, what: AuditCommand) -> Result<Exit, Error> {
    match what {
        AuditCommand::Verify { anchor } => verify(context, anchor.as_deref()),
        AuditCommand::Show { last } => show(context, last),
        AuditCommand::Log { action, details } => log(context, &action, &details),
        AuditCommand::Fold => fold(context),
    }
}

#[derive(Serialize)]
struct ChainReport {
    path: String,
    /// Why there is none, where there is none.
    absent: Option<String>,
    #[serde(flatten)]
    verified: Verified,
    /// Events of ours that are not in it yet.
    waiting: usize,
}

#[derive(Serialize)]
struct JournalReport {
    state: &'static str,
    events: u64,
    first_seq: Option<u64>,
    head_seq: u64,
    head_hash: String,
    pruned: bool,
    torn: bool,
    breaks: Vec<String>,
}

#[derive(Serialize)]
struct AuditReport {
    schema: &'static str,
    exit: u8,
    /// When, by the clock of the machine: kept elsewhere, this report is an anchor.
    taken_at: u64,
    chain: Option<ChainReport>,
    journal: JournalReport,
    /// Seconds since the anchor given was taken; `null` without one: what was cut off behind it cannot be seen.
    anchor_age_seconds: Option<u64>,
}

/// What an earlier report says of the heads.
struct Known {
    chain: Option<Anchor>,
    journal: Head,
    taken_at: u64,
}

fn known(context: &Context, path: &Path) -> Result<Known, Error> {
    let cannot = |e: std::io::Error| Error::io(ErrorKind::Read, "cannot read the anchor", path, &e);
    let bytes = small_file(context.machine.as_look(), path).map_err(cannot)?;
    let refuse = |why: &str| {
        let advice = "name a file that `audit verify --json` has printed";
        Error::new(ErrorKind::Read, "cannot understand the anchor", why, advice).at(path)
    };
    let bytes = bytes.ok_or_else(|| cannot(std::io::ErrorKind::NotFound.into()))?;
    let report: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| refuse(&e.to_string()))?;
    let at = |pointer: &str| report.pointer(pointer);
    if at("/schema").and_then(serde_json::Value::as_str) != Some(SCHEMA) {
        return Err(refuse("it is no report of this command"));
    }
    let number = |pointer: &str| at(pointer).and_then(serde_json::Value::as_u64);
    let text = |pointer: &str| at(pointer).and_then(serde_json::Value::as_str).map(str::to_string);
    let taken_at = number("/taken_at").ok_or_else(|| refuse("it does not say when it was taken"))?;
    let id = |pointer: &str| at(pointer).and_then(serde_json::Value::as_i64);
    let chain = id("/chain/head/0").zip(text("/chain/head/1")).map(|(record, hash)| Anchor {
        id: record,
        hash,
        first_id: id("/chain/first_id"),
        taken_at,
        source: path.display().to_string(),
    });
    let head = number("/journal/head_seq").zip(text("/journal/head_hash"));
    let journal = head.map_or_else(Head::none, |(seq, hash)| Head { seq, hash });
    Ok(Known { chain, journal, taken_at })
}

fn verify(context: &Context, anchor: Option<&Path>) -> Result<Exit, Error> {
    let look = context.machine.as_look();
    let known = anchor.map(|path| known(context, path)).transpose()?;
    let ours = load(context)?;
    let (mut anchors, bridges) = chain::known_heads(&ours);
    anchors.extend(known.as_ref().and_then(|k| k.chain.clone()));
    let mut exit = Exit::OK;
    let chain = match fold::store(&context.settings) {
        None => None,
        Some(database) => {
            let ask = Ask { anchors, ..Ask::default() };
            let cannot =
                |e: std::io::Error| Error::io(ErrorKind::Read, "cannot read the audit chain", &database.path, &e);
            let (_, mut read) = chain::read(look, &context.settings, database, &ask).map_err(cannot)?;
            read.verified.remarks.extend(bridges);
            if !read.verified.good() {
                exit |= Exit::LEFT;
            }
            Some(ChainReport {
                path: database.path.display().to_string(),
                absent: read.absent,
                verified: read.verified,
                waiting: fold::waiting(&ours).len(),
            })
        }
    };
    let journal = journal_report(&ours, known.as_ref().map(|k| &k.journal));
    if !journal.breaks.is_empty() {
        exit |= Exit::LEFT;
    }
    let now = look.clock();
    let report = AuditReport {
        schema: SCHEMA,
        exit: exit.code(),
        taken_at: now,
        chain,
        journal,
        anchor_age_seconds: known.map(|k| now.saturating_sub(k.taken_at)),
    };
    if context.json {
        print_json(&report)?;
    } else {
        words(&report);
    }
    Ok(exit)
}

fn journal_report(ours: &journal::Journal, known: Option<&Head>) -> JournalReport {
    let mut v = events::verify(&ours.segments);
    if let Some(known) = known.filter(|k| k.seq > 0) {
        let found = ours.events().find(|e| e.seq == known.seq);
        if v.head.seq < known.seq {
            v.breaks.push(format!("it ends with event {}, before event {} of the anchor", v.head.seq, known.seq));
        } else if found.is_some_and(|e| e.hash != known.hash) {
            v.breaks.push(format!("event {} is not the one of the anchor: the journal was written anew", known.seq));
        }
    }
    JournalReport {
        state: match (v.breaks.is_empty(), v.events) {
            (false, _) => "broken",
            (true, 0) => "empty",
            (true, _) => "intact",
        },
        events: v.events,
        first_seq: v.first_seq,
        head_seq: v.head.seq,
        head_hash: v.head.hash,
        pruned: v.pruned,
        torn: v.torn,
        breaks: v.breaks,
    }
}

fn words(report: &AuditReport) {
    if let Some(chain) = &report.chain {
        let v = &chain.verified;
        let state = match (&chain.absent, v.state) {
            (Some(why), ChainState::Empty) => format!("there is none ({why})"),
            (_, ChainState::Intact) => "every record has its hash and its link".to_string(),
            (_, ChainState::Anchored) => {
                "every record has its hash and its link; what stood before the first is gone".to_string()
            }
            (_, ChainState::Empty) => "it is empty".to_string(),
            (_, ChainState::Broken) => format!("BROKEN in {} places", v.breaks),
            (_, ChainState::Shortened) => "SHORTENED against a known head".to_string(),
            (_, ChainState::Rewritten) => "REWRITTEN against a known head".to_string(),
            (_, ChainState::Unexplained) => "no known form gives the hash of any record".to_string(),
        };
        print(&format!("audit chain of {}: {} records, {state}", chain.path, v.records));
        v.first_breaks.iter().for_each(|b| print(&format!("  {}", b.what)));
        v.remarks.iter().for_each(|r| print(&format!("  {r}")));
        match v.dialects.as_slice() {
            [] => {}
            [one] => print(&format!("  form: {one}")),
            several => print(&format!("  form: one of {} (its texts cannot tell them apart)", several.join(" or "))),
        }
        if chain.waiting > 0 {
            print(&format!(
                "  {} events of ours wait to be put in; `audit fold` does it while the agent is stopped",
                chain.waiting
            ));
        }
    }
    let j = &report.journal;
    print(&format!("our journal: {} events, {}", j.events, j.state));
    j.breaks.iter().for_each(|b| print(&format!("  {b}")));
    match report.anchor_age_seconds {
        Some(age) => print(&format!(
            "compared with an anchor {} old; what came after it is known from here alone",
            age_words(age)
        )),
        None => print(
            "no anchor was given: an end cut off, or a chain hashed anew, would not be seen; next: keep an `audit verify --json` elsewhere and name it with --anchor",
        ),
    }
}

fn age_words(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn load(context: &Context) -> Result<journal::Journal, Error> {
    let dir = &context.settings.state_dir;
    journal::load(context.machine.as_look(), &context.settings)
        .map_err(|e| Error::io(ErrorKind::Read, "cannot read our journal", dir, &e))
}

#[derive(Serialize)]
struct Line {
    id: i64,
    timestamp: serde_json::Value,
    action: String,
    /// The stored text, exactly.
    details: String,
    record_hash: String,
}

#[derive(Serialize)]
struct OwnLine {
    seq: u64,
    at: u64,
    by: String,
    event: String,
    op: String,
    details: String,
    hash: String,
}

#[derive(Serialize)]
struct ShowReport {
    schema: &'static str,
    exit: u8,
    chain: Vec<Line>,
    journal: Vec<OwnLine>,
}

fn show(context: &Context, last: u32) -> Result<Exit, Error> {
    let last = usize::try_from(last).unwrap_or(20);
    let ours = load(context)?;
    let chain = match fold::store(&context.settings) {
        None => Vec::new(),
        Some(database) => {
            let cannot =
                |e: std::io::Error| Error::io(ErrorKind::Read, "cannot read the audit chain", &database.path, &e);
            let ask = Ask { last, ..Ask::default() };
            let (_, read): (_, Chain) =
                chain::read(context.machine.as_look(), &context.settings, database, &ask).map_err(cannot)?;
            read.last.iter().map(line).collect()
        }
    };
    let mut journal: Vec<OwnLine> = ours.events().rev().take(last).map(own_line).collect();
    journal.reverse();
    let report = ShowReport { schema: "pyvorin-recovery/audit-show/1", exit: 0, chain, journal };
    if context.json {
        print_json(&report)?;
        return Ok(Exit::OK);
    }
    for l in &report.chain {
        print(&format!("chain {}  {}  {}  {}", l.id, l.timestamp, l.action, l.details));
    }
    for l in &report.journal {
        print(&format!("ours {}  {}  {}  {}  {}  {}", l.seq, l.at, l.by, l.event, l.op, l.details));
    }
    Ok(Exit::OK)
}

fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Cell::Integer(n) => n.to_string(),
        Cell::Real(x) => json::repr(*x),
        Cell::Null => String::new(),
        Cell::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}

fn line(record: &Record) -> Line {
    let timestamp = match &record.timestamp {
        Cell::Real(x) => serde_json::Value::from(*x),
        Cell::Integer(n) => (*n).into(),
        other => shown(other).into(),
    };
    Line {
        id: record.id,
        timestamp,
        action: shown(&record.action),
        details: shown(&record.details),
        record_hash: shown(&record.hash),
    }
}

fn own_line(e: &Event) -> OwnLine {
    let details = json::dumps(&e.details, Style { spaced: false, ascii: true, sorted: true }).unwrap_or_default();
    OwnLine {
        seq: e.seq,
        at: e.at,
        by: e.by.clone(),
        event: e.event.clone(),
        op: e.op.clone(),
        details: String::from_utf8_lossy(&details).into_owned(),
        hash: e.hash.clone(),
    }
}

#[derive(Serialize)]
struct LogReport {
    schema: &'static str,
    exit: u8,
    /// Sequence number in our journal, of `audit log`.
    seq: Option<u64>,
    /// Records put into the agent's chain.
    folded: usize,
    /// Events that wait.
    waiting: usize,
    /// Why they wait, or what should be known.
    remarks: Vec<String>,
}

fn log(context: &mut Context, action: &str, details: &str) -> Result<Exit, Error> {
    let refuse = |why: String| {
        let advice = "give a JSON object such as --details '{\"reason\": \"card replaced\"}'";
        Error::new(ErrorKind::Usage, "--details cannot be recorded", why, advice)
    };
    if details.len() > MAX_DETAILS {
        return Err(refuse(format!("it is longer than {MAX_DETAILS} bytes")));
    }
    let value = json::loads(details.as_bytes()).map_err(refuse)?;
    if !matches!(value, Value::Object(_)) {
        return Err(refuse("it is no JSON object".to_string()));
    }
    if [events::PRUNED, events::TORN, events::DAMAGED, events::FOLDED].contains(&action) {
        return Err(refuse(format!("the action {action:?} is our own")));
    }
    let mut work = Work::begin(context)?;
    if let Err(e) = work.finish_open(context) {
        // Our own journal can be written all the same; only the agent's chain has to wait.
        log::warn!("{e}");
    }
    let (by, at) = (context.by.clone(), context.machine.clock());
    let new = New { at, by, event: action.to_string(), op: String::new(), details: value };
    let settings = context.settings.clone();
    let cannot = |e: std::io::Error| Error::io(ErrorKind::Write, "cannot record the event", &settings.state_dir, &e);
    let event = journal::append(&mut context.machine, &settings, &new).map_err(cannot);
    let done = event.and_then(|e| finish(context, e.map(|e| e.seq)));
    work.end(context, done)
}

fn fold(context: &mut Context) -> Result<Exit, Error> {
    let mut work = Work::begin(context)?;
    let done = work.finish_open(context).and_then(|_| finish(context, None));
    work.end(context, done)
}

fn finish(context: &mut Context, seq: Option<u64>) -> Result<Exit, Error> {
    let settings = context.settings.clone();
    let cannot = |e: std::io::Error| Error::io(ErrorKind::Write, "cannot fold events in", &settings.state_dir, &e);
    let by = context.by.clone();
    let done = fold::fold(&mut context.machine, &settings, &by).map_err(cannot)?;
    let (folded, waiting, remarks) = match done {
        Folded::Nothing => (0, 0, Vec::new()),
        Folded::Done(n, remarks) => (n, 0, remarks),
        Folded::Queued(n, why) => (0, n, vec![why]),
    };
    let report = LogReport { schema: "pyvorin-recovery/audit-log/1", exit: 0, seq, folded, waiting, remarks };
    if context.json {
        print_json(&report)?;
        return Ok(Exit::OK);
    }
    if let Some(seq) = seq {
        print(&format!("recorded as event {seq} of our journal"));
    }
    print(&match (folded, waiting) {
        (0, 0) => "nothing waits for the agent's chain".to_string(),
        (n, 0) => format!("{n} records put into the agent's chain"),
        (_, n) => format!("{n} events wait for the agent's chain"),
    });
    report.remarks.iter().for_each(|r| print(&format!("  {r}")));
    Ok(Exit::OK)
}
