//! Our own journal on this machine: reads the segments, appends durably. The format stands in [`crate::audit::events`].
//!
//! Order of an append, and what each wrong order would cost:
//! 1. what a cut left of a line is cut off before anything is written behind it: a line would begin inside another;
//! 2. a full segment is renamed and its name synced before the next one is begun: two segments would hold one name;
//! 3. a new segment is written whole, with its first line, under a temporary name: it is never there and empty;
//! 4. the oldest segment goes last, after the line that names its end is durable: a start nothing explains is a break.
//!
//! Whoever calls this records what has happened, so a failure here is logged and stops nothing.

use std::io;
use std::path::PathBuf;

use super::act::make_dirs;
use super::sense::small_file;
use crate::audit::events::{
    self, CURRENT, DAMAGED, Event, Head, KEEP, New, PRUNED, SEGMENT, Segment, TORN, is_segment, segment_name,
};
use crate::audit::json::Value;
use crate::config::Settings;
use crate::edge::{Access, Look, Machine, durable};

/// The journal as it lies on the disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Journal {
    /// Segments, oldest first, by name; the current one last, where there is one.
    pub segments: Vec<(String, Segment)>,
}

impl Journal {
    /// Good lines, oldest first.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.segments.iter().flat_map(|(_, segment)| &segment.events)
    }

    /// The last good line.
    #[must_use]
    pub fn head(&self) -> Head {
        self.events().next_back().map_or_else(Head::none, |e| Head { seq: e.seq, hash: e.hash.clone() })
    }

    fn current(&self) -> Option<&Segment> {
        self.segments.last().filter(|(name, _)| name == CURRENT).map(|(_, segment)| segment)
    }
}

/// Reads the journal. A missing one is empty.
pub fn load(look: &dyn Look, settings: &Settings) -> io::Result<Journal> {
    let names = match look.list(&settings.state_dir) {
        Ok(names) => names,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Journal::default()),
        Err(e) => return Err(e),
    };
    let mut segments = Vec::new();
    let full = names.iter().filter_map(|n| n.to_str()).filter(|n| is_segment(n));
    for name in full.chain([CURRENT]) {
        if let Some(bytes) = small_file(look, &settings.state_dir.join(name))? {
            segments.push((name.to_string(), events::read(&bytes)));
        }
    }
    Ok(Journal { segments })
}

/// Appends an event; when it returns, a power cut cannot take it back. `None`: an event of that name and operation is
/// there already.
pub fn append(machine: &mut dyn Machine, settings: &Settings, new: &New) -> io::Result<Option<Event>> {
    machine.attach("state", Access::ReadWrite)?;
    let journal = load(machine.as_look(), settings)?;
    if journal.segments.iter().any(|(_, segment)| segment.newer) {
        return Err(io::Error::other("a newer version wrote the journal; it is left alone"));
    }
    if !new.op.is_empty() && journal.events().any(|e| e.op == new.op && e.event == new.event) {
        return Ok(None);
    }
    make_dirs(machine, &settings.state_dir)?;
    let path = settings.state_dir.join(CURRENT);
    let mut lines = Lines { head: journal.head(), bytes: Vec::new(), at: new.at };
    let mut begin = journal.current().is_none();
    let mut len = 0;
    if let Some(current) = journal.current() {
        len = current.good;
        if current.damaged || (current.events.is_empty() && current.torn > 0) {
            let first = current.events.first().map_or(lines.head.seq, |e| e.seq);
            set_aside(machine, settings, first)?;
            lines.ours(DAMAGED, &[("set_aside", Value::text(&segment_name(first)))]);
            begin = true;
        } else {
            if current.torn > 0 {
                machine.set_len(&path, u64::try_from(len).unwrap_or(u64::MAX))?;
                machine.sync_file(&path)?;
                lines.ours(TORN, &[("bytes", Value::int(current.torn as u64))]);
            }
            if len + lines.bytes.len() + events::LINE > SEGMENT {
                let first = current.events.first().map_or(1, |e| e.seq);
                set_aside(machine, settings, first)?;
                begin = true;
            }
        }
    }
    let surplus = if begin { surplus(machine, settings, &mut lines)? } else { Vec::new() };
    let event = lines.push(new);
    if begin {
        durable::replace(machine, &path, &lines.bytes)?;
        for oldest in surplus {
            machine.unlink(&oldest)?;
            machine.sync_dir(&settings.state_dir)?;
        }
    } else {
        machine.write_at(&path, u64::try_from(len).unwrap_or(u64::MAX), &lines.bytes)?;
        machine.sync_file(&path)?;
    }
    Ok(Some(event))
}

/// [`append`] for what has already happened: a failure is said and stops nothing.
pub fn note(machine: &mut dyn Machine, settings: &Settings, new: &New) {
    if let Err(e) = append(machine, settings, new) {
        log::warn!("{}: the event {} is not in the journal: {e}", settings.state_dir.display(), new.event);
    }
}

struct Lines {
    head: Head,
    bytes: Vec<u8>,
    at: u64,
}

impl Lines {
    fn push(&mut self, new: &New) -> Event {
        let (event, line) = new.behind(&self.head);
        self.head = Head { seq: event.seq, hash: event.hash.clone() };
        self.bytes.extend_from_slice(&line);
        event
    }

    fn ours(&mut self, event: &str, facts: &[(&str, Value)]) {
        let details = Value::Object(facts.iter().map(|(k, v)| ((*k).into(), v.clone())).collect());
        self.push(&New { at: self.at, by: "unattended".into(), event: event.into(), op: String::new(), details });
    }
}

fn set_aside(machine: &mut dyn Machine, settings: &Settings, first: u64) -> io::Result<()> {
    let mut name = segment_name(first);
    // Damage may hide the first line; a name that is taken is never written over.
    let mut number = first;
    while machine.stat(&settings.state_dir.join(&name))?.is_some() {
        number += 1;
        name = segment_name(number);
    }
    machine.rename(&settings.state_dir.join(CURRENT), &settings.state_dir.join(name))?;
    machine.sync_dir(&settings.state_dir)
}

/// Full segments beyond those kept, with the line that names where they end.
fn surplus(machine: &mut dyn Machine, settings: &Settings, lines: &mut Lines) -> io::Result<Vec<PathBuf>> {
    let journal = load(machine.as_look(), settings)?;
    let full: Vec<_> = journal.segments.iter().filter(|(name, _)| name != CURRENT).collect();
    let old = full.get(..full.len().saturating_sub(KEEP)).unwrap_or(&[]);
    if let Some(end) = old.iter().rev().find_map(|(_, segment)| segment.events.last()) {
        let facts = [("through_seq", Value::int(end.seq)), ("through_hash", Value::text(&end.hash))];
        lines.ours(PRUNED, &facts);
    }
    Ok(old.iter().map(|(name, _)| settings.state_dir.join(name)).collect())
}
