//! Folds events of our journal into the agent's chain: in the running OS, while nothing has the database open.
//!
//! Order, and why: the records go in first, in one transaction of the engine; then `folded` is written to our journal. A
//! cut between the two leaves records whose details name their events, so the next fold finds them there and puts none
//! in twice. What a chain cannot take stays in our journal, which is complete by itself.

use std::io;

use super::chain::{self, Ask, Chain, EVENT_HASH};
use super::events::{self as journal, Journal};
use crate::audit::chain::{Start, ZEROS};
use crate::audit::dialect::Dialect;
use crate::audit::events::{Event, FOLDED, New, is_for_the_chain};
use crate::audit::json::{self, Style, Value};
use crate::boot::assess::StructureVerdict;
use crate::config::{Database, DatabaseKind, Settings};
use crate::edge::Machine;
use crate::edge::engine::audit::{Append, Entry, append};
use crate::journal::{FILE, MIRROR};
use crate::reset;
use crate::sqlite::judge::Completeness;
use crate::sqlite::rows::Cell;

/// What became of the events that wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folded {
    /// None waited.
    Nothing,
    /// So many records were put in; the words are what should be known about it.
    Done(usize, Vec<String>),
    /// They wait on; why.
    Queued(usize, String),
}

/// The database that holds the chain: the first of kind `store`.
#[must_use]
pub fn store(settings: &Settings) -> Option<&Database> {
    settings.databases.iter().find(|d| d.kind == DatabaseKind::Store)
}

/// Events that are not known to be folded in, oldest first.
#[must_use]
pub fn waiting(journal: &Journal) -> Vec<Event> {
    let through = journal.events().filter(|e| e.event == FOLDED);
    let through = through.filter_map(|e| e.details.get("through_seq").and_then(Value::as_i64)).max().unwrap_or(0);
    let after = |e: &&Event| i64::try_from(e.seq).is_ok_and(|seq| seq > through);
    journal.events().filter(after).filter(|e| is_for_the_chain(e)).cloned().collect()
}

/// Folds in whatever waits. An error is a failure to look or to write; a chain that cannot take records is `Queued`.
pub fn fold(machine: &mut dyn Machine, settings: &Settings, by: &str) -> io::Result<Folded> {
    let journal = journal::load(machine.as_look(), settings)?;
    let waiting = waiting(&journal);
    if waiting.is_empty() {
        return Ok(Folded::Nothing);
    }
    let queued = |why: String| Ok(Folded::Queued(waiting.len(), why));
    for open in [settings.state_dir.join(FILE), settings.data_dir.join(MIRROR)] {
        if machine.stat(&open)?.is_some() {
            // The file that is there now may be the one that goes.
            return queued("an interrupted operation is open; it is finished first".into());
        }
    }
    let Some(database) = store(settings) else { return queued("no database of kind store is configured".into()) };
    let ask =
        Ask { anchors: Vec::new(), events: waiting.iter().map(|e| e.hash.clone()).collect(), last: 1, holders: true };
    let (found, chain) = match chain::read(machine.as_look(), settings, database, &ask) {
        Ok(read) => read,
        Err(e) => return queued(format!("{}: {e}", database.path.display())),
    };
    let v = &found.verdict;
    if !v.held_by.is_empty() {
        return queued(format!(
            "{} is open in {}; records go in while the agent is stopped",
            database.path.display(),
            v.held_by.join(", ")
        ));
    }
    if v.structure != StructureVerdict::Sound || v.completeness == Completeness::Lossy || v.needs_repair {
        return queued(format!("{} is damaged or incomplete; repair it first", database.path.display()));
    }
    if let Some(why) = &chain.absent {
        return queued(format!("{}: {why}; the agent creates it when it starts", database.path.display()));
    }
    let (dialect, mut remarks) = match dialect(&chain, &journal) {
        Ok(known) => known,
        Err(why) => return queued(why),
    };
    let news: Vec<&Event> = waiting.iter().filter(|e| !chain.folded.contains(&e.hash)).collect();
    let head = if news.is_empty() {
        chain.verified.head.clone()
    } else {
        let style =
            chain.style.map_or(Style { spaced: true, ascii: true, sorted: false }, |s| Style { ascii: true, ..s });
        let now = machine.clock();
        let entries: Vec<Entry> = news.iter().filter_map(|e| entry(e, now, style)).collect();
        let request =
            Append { dialect, genesis: genesis(&journal), expected: chain.verified.head.clone(), entries: &entries };
        match append(&database.location, &request) {
            Ok(head) => Some(head),
            Err(e) => return queued(format!("{}: {e}", database.path.display())),
        }
    };
    if chain.verified.breaks > 0 {
        remarks.push("the chain has breaks before its end; `audit verify` names them".to_string());
    }
    let new = New {
        at: machine.clock(),
        by: by.to_string(),
        event: FOLDED.to_string(),
        op: String::new(),
        details: facts(&waiting, news.len(), dialect, head, chain.verified.first_id),
    };
    journal::append(machine, settings, &new)?;
    Ok(Folded::Done(news.len(), remarks))
}

/// The dialect to write in, with what must be said about it.
fn dialect(chain: &Chain, journal: &Journal) -> Result<(Dialect, Vec<String>), String> {
    let v = &chain.verified;
    if let Some(dialect) = v.append_in.as_deref().and_then(Dialect::named) {
        let mut remarks = Vec::new();
        if v.ambiguous {
            remarks.push(format!(
                "the texts of the chain fit {}; ours are ASCII, which all of them hash alike",
                v.dialects.join(" and ")
            ));
        }
        return Ok((dialect, remarks));
    }
    if v.start != Start::Empty {
        return Err("no known form gives the hashes of its first and last records, so nothing is put in; `audit verify` says more".into());
    }
    let before =
        journal.events().rev().find_map(|e| e.details.get("dialect").and_then(Value::as_str).and_then(Dialect::named));
    match before {
        Some(dialect) => {
            Ok((dialect, vec![format!("the chain was empty; its form is that of before: {}", dialect.name())]))
        }
        None => {
            let text = format!(
                "the chain was empty and no form is known: a guess was written ({}, beginning with 64 zeroes); the agent's own check may refuse it",
                Dialect::DEFAULT.name()
            );
            log::warn!("{text}");
            Ok((Dialect::DEFAULT, vec![text]))
        }
    }
}

/// What the first record of a chain stands behind: as in the chain that a reset ended, else zeroes.
fn genesis(journal: &Journal) -> Cell {
    match journal.events().rev().find_map(|e| e.details.get("genesis")?.as_str()) {
        Some("null") => Cell::Null,
        Some(word) => Cell::Text(word.as_bytes().to_vec()),
        None => Cell::Text(ZEROS.into()),
    }
}

/// An event as a record: its own facts, and where it comes from.
fn entry(event: &Event, now: u64, style: Style) -> Option<Entry> {
    let mut pairs = match &event.details {
        Value::Object(pairs) => pairs.clone(),
        other => vec![("details".into(), other.clone())],
    };
    let ours = [
        ("technician", Value::text(&event.by)),
        ("recorded_at", Value::int(event.at)),
        ("operation", Value::text(&event.op)),
        ("recovery_seq", Value::int(event.seq)),
        (EVENT_HASH, Value::text(&event.hash)),
    ];
    for (key, value) in ours {
        pairs.retain(|(k, _)| k.as_str() != Some(key));
        pairs.push((key.into(), value));
    }
    let details = json::dumps(&Value::Object(pairs), style)?;
    #[allow(clippy::cast_precision_loss)] // seconds since the epoch
    let timestamp = now as f64;
    let action = if event.event == reset::KIND {
        // The word of the documented script.
        "factory_reset".to_string()
    } else if ["repair", "left", "rebuild"].contains(&event.event.as_str()) {
        format!("recovery_{}", event.event)
    } else {
        event.event.clone()
    };
    Some(Entry { timestamp, action, details })
}

/// What our journal says of a fold: through which event, in which form, and the head that the chain has now.
fn facts(
    waiting: &[Event],
    records: usize,
    dialect: Dialect,
    head: Option<(i64, String)>,
    first: Option<i64>,
) -> Value {
    let through = waiting.iter().map(|e| e.seq).max().unwrap_or(0);
    let mut pairs = vec![
        ("dialect".into(), Value::text(&dialect.name())),
        ("records".into(), Value::int(records as u64)),
        ("through_seq".into(), Value::int(through)),
    ];
    if let Some((id, hash)) = head {
        let first = Value::int(first.unwrap_or(id));
        let head = vec![("first_id".into(), first), ("hash".into(), Value::text(&hash)), ("id".into(), Value::int(id))];
        pairs.push(("chain_head".into(), Value::Object(head)));
    }
    Value::Object(pairs)
}
