//! The agent's audit chain as it lies in a database, read raw; and what our own journal knows of it.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::Path;

use super::events::Journal;
use super::table::{self, Found, Table};
use crate::audit::chain::{Anchor, Verified, Verifier};
use crate::audit::dialect::{Parsed, Record, stored_style};
use crate::audit::events::Event;
use crate::audit::json::{Style, Value};
use crate::config::{Database, Settings};
use crate::edge::Look;
use crate::sqlite::check::Scope;
use crate::sqlite::header;
use crate::sqlite::overlay::{Fold, Overlay};
use crate::sqlite::read_vec;
use crate::sqlite::rows::{self, Cell, Claimed, Raw};

/// Name of the table.
pub const TABLE: &str = "privacy_audit";
/// Its columns that a record needs, `id` apart.
const COLUMNS: [&str; 5] = ["timestamp", "action", "details", "prev_hash", "record_hash"];
/// Key in the details of a record that we folded in: the hash of the event it tells.
pub const EVENT_HASH: &str = "recovery_event";
/// Events that explain why the chain is not what it was.
const BRIDGES: [&str; 4] = ["repair", "rebuild", "restore", "reset"];

/// What reading the chain gave.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The verdict on it.
    pub verified: Verified,
    /// Why there is no chain to read, where there is none.
    pub absent: Option<String>,
    /// How details are stored, where a row shows it.
    pub style: Option<Style>,
    /// Hashes, of those asked for, of events that stand in it already.
    pub folded: BTreeSet<String>,
    /// The last records, oldest first, as many as asked for.
    pub last: VecDeque<Record>,
}

/// What to look for beside the verdict.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// Known heads.
    pub anchors: Vec<Anchor>,
    /// Hashes of events that may have been folded in.
    pub events: BTreeSet<String>,
    /// Records to keep from the end.
    pub last: usize,
    /// Also look at who has the database open.
    pub holders: bool,
}

/// Reads and verifies the chain of a database.
pub fn read(look: &dyn Look, settings: &Settings, database: &Database, ask: &Ask) -> io::Result<(Found, Chain)> {
    if look.stat(&database.location)?.is_none() {
        let found = table::find(look, settings, database, Scope::Quick, "unattended", ask.holders)?;
        return Ok((found, nothing(ask, "there is no such file")));
    }
    table::read(
        look,
        database,
        &mut || table::find(look, settings, database, Scope::Quick, "unattended", ask.holders),
        &mut |_, pages| in_pages(pages, ask),
    )
}

fn nothing(ask: &Ask, why: &str) -> Chain {
    Chain {
        verified: Verifier::new(ask.anchors.clone()).finish(),
        absent: Some(why.to_string()),
        style: None,
        folded: BTreeSet::new(),
        last: VecDeque::new(),
    }
}

fn in_pages(pages: &Overlay<'_>, ask: &Ask) -> io::Result<Chain> {
    let table = match table::table(pages, TABLE)? {
        Ok(table) => table,
        Err(why) => return Ok(nothing(ask, &why)),
    };
    let Some(places) = places(&table) else {
        return Ok(nothing(ask, "the table privacy_audit lacks a column of the documented ones"));
    };
    let mut chain = nothing(ask, "");
    chain.absent = None;
    let mut verifier = Verifier::new(ask.anchors.clone());
    table::each(pages, &table, &mut Claimed::none(pages.pages), &mut |raw| match record(&raw, &places) {
        Err(why) => verifier.unreadable(&why),
        Ok(record) => {
            if !ask.events.is_empty()
                && let Ok(parsed) = Parsed::new(&record)
                && let Some(hash) = parsed.details().and_then(|d| d.get(EVENT_HASH)).and_then(Value::as_str)
                && ask.events.contains(hash)
            {
                chain.folded.insert(hash.to_string());
            }
            verifier.record(&record);
            if chain.last.len() > ask.last {
                chain.last.pop_front();
            }
            // One more than asked for, so that the style can be learnt from the last of them.
            chain.last.push_back(record);
        }
    })?;
    chain.style = chain.last.back().and_then(|r| stored_style(&r.details));
    while chain.last.len() > ask.last {
        chain.last.pop_front();
    }
    chain.verified = verifier.finish();
    Ok(chain)
}

fn places(table: &Table) -> Option<[usize; 5]> {
    let mut places = [0; 5];
    for (place, name) in places.iter_mut().zip(COLUMNS) {
        *place = table.column(name)?;
    }
    table.column("id").map(|_| places)
}

fn record(raw: &Raw, places: &[usize; 5]) -> Result<Record, String> {
    let cells = raw.cells.as_ref().map_err(|why| format!("page {}: {why}", raw.page))?;
    let id = raw.rowid.ok_or_else(|| format!("page {}: a row without an id", raw.page))?;
    let cell = |i: usize| places.get(i).and_then(|p| cells.get(*p)).cloned().unwrap_or(Cell::Null);
    Ok(Record { id, timestamp: cell(0), action: cell(1), details: cell(2), prev: cell(3), hash: cell(4) })
}

/// The head of the chain in a single database file, as a fact for our journal; `None` where there is no chain in it.
pub fn head_in_file(look: &dyn Look, path: &Path) -> Option<serde_json::Value> {
    let head = read_vec(&*look.open(path).ok()?, 0, header::LEN).ok()?;
    let page_size = header::parse(&head).ok()?.page_size;
    let ends = table::with_pages(look, path, &Fold::nothing(page_size), &mut ends).ok()??;
    let Cell::Text(hash) = &ends.1.hash else { return None };
    Some(serde_json::json!({"id": ends.1.id, "hash": String::from_utf8_lossy(hash), "first_id": ends.0}))
}

/// Id of the first record and the last record, without a look at those between.
fn ends(pages: &Overlay<'_>) -> io::Result<Option<(i64, Record)>> {
    let Ok(table) = table::table(pages, TABLE)? else { return Ok(None) };
    let Some(places) = places(&table) else { return Ok(None) };
    let mut claimed = Claimed::none(pages.pages);
    let leaves = rows::leaves(pages, table.entry.root, table.usable(), &mut claimed)?;
    let leaves: Vec<u32> = leaves.into_iter().flatten().collect();
    let mut ids = Vec::new();
    let mut last = None;
    for page in leaves.first().into_iter().chain(leaves.last()) {
        // The first leaf may be the last: its overflow pages are then read twice.
        let mut used = Claimed::none(pages.pages);
        for raw in rows::rows(pages, *page, table.usable(), table.header.encoding, &table.columns, &mut used)? {
            if let Ok(record) = record(&raw, &places) {
                ids.push(record.id);
                last = Some(record);
            }
        }
    }
    Ok(ids.first().copied().zip(last))
}

/// Heads of the chain that our journal noted, since the last event that explains a change of it; and what it explains.
#[must_use]
pub fn known_heads(journal: &Journal) -> (Vec<Anchor>, Vec<String>) {
    let mut anchors: Vec<Anchor> = Vec::new();
    let mut remarks = Vec::new();
    for event in journal.events() {
        if event.event == crate::reset::KIND && event.details.get("old_head").is_some() {
            let before = match anchors.last() {
                Some(last) => format!("; before it the last known was record {}", last.id),
                None => String::new(),
            };
            remarks.push(format!("event {} (reset) began a new chain{before}", event.seq));
            anchors.clear();
            continue;
        }
        let Some(anchor) = noted_head(event) else { continue };
        let other = |b: &&Anchor| b.id > anchor.id || b.id == anchor.id && b.hash != anchor.hash;
        if BRIDGES.contains(&event.event.as_str())
            && let Some(before) = anchors.last().filter(other)
        {
            remarks.push(format!(
                "event {} ({}) left the chain at record {}; before it the last known was record {}",
                event.seq, event.event, anchor.id, before.id
            ));
            anchors.clear();
        }
        anchors.push(anchor);
    }
    (anchors, remarks)
}

fn noted_head(event: &Event) -> Option<Anchor> {
    let head = event.details.get("chain_head")?;
    Some(Anchor {
        id: head.get("id")?.as_i64()?,
        hash: head.get("hash")?.as_str()?.to_string(),
        first_id: head.get("first_id").and_then(Value::as_i64),
        taken_at: event.at,
        source: format!("event {} of our journal", event.seq),
    })
}
