//! The schema of a damaged database: from the tree at page 1, else from leaves anywhere that hold schema rows, else
//! from the cells that are left on page 1 without a page header. What else may serve (a record of the last good
//! schema, a backup, a file named by a person, the documented product) is handed in by the caller.

use serde::{Deserialize, Serialize};

use super::fields::{Field, split};
use super::overflow::{Chains, assemble};
use super::sheet;
use super::source::Source;
use crate::sqlite::page::{Cell, Page, PageKind};
use crate::sqlite::record::Value;

/// Longest schema row read.
const MAX_ROW: u64 = 1 << 20;
/// Entries kept at most: a crafted file may hold millions.
const MAX_ENTRIES: usize = 20_000;

/// One entry of `sqlite_schema`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// "table", "index", "view" or "trigger".
    pub kind: String,
    /// Name.
    pub name: String,
    /// Table it belongs to.
    pub table: String,
    /// Root page, 0 when it has none or it is not known.
    pub root: u32,
    /// Its SQL text, empty for the indexes that constraints make.
    pub sql: String,
}

/// What the file itself still says about its schema.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Entries, in rowid order as far as rowids are known.
    pub entries: Vec<Entry>,
    /// True when the tree at page 1 was read without any damage: then nothing is missing.
    pub whole: bool,
    /// Text encoding the entries are written in, 0 when there is none.
    pub encoding: u32,
    /// "page 1", "schema leaves", "cells of page 1"; empty when nothing was found.
    pub source: &'static str,
}

impl Found {
    fn add(&mut self, entry: Option<(Entry, u32)>) {
        let Some((entry, encoding)) = entry else { return };
        let known = |e: &&Entry| e.kind == entry.kind && e.name.eq_ignore_ascii_case(&entry.name);
        if self.entries.len() < MAX_ENTRIES && (self.entries.len() > 512 || self.entries.iter().find(known).is_none()) {
            self.encoding = encoding;
            self.entries.push(entry);
        }
    }
}

/// Reads the schema. `leaves` are pages that look like schema leaves, found in the first pass over the file.
pub fn read(source: &mut Source<'_>, leaves: &[u32]) -> Found {
    let mut found = Found { whole: true, ..Found::default() };
    tree(source, &mut found);
    if !found.entries.is_empty() {
        found.source = "page 1";
    }
    if found.whole {
        return found;
    }
    for number in leaves {
        let mut bytes = Vec::new();
        if source.read(*number, &mut bytes) {
            leaf(source, *number, &bytes, None, &mut found);
        }
    }
    if found.source.is_empty() && !found.entries.is_empty() {
        found.source = "schema leaves";
    }
    let before = found.entries.len();
    carve(source, &mut found);
    if found.source.is_empty() && found.entries.len() > before {
        found.source = "cells of page 1";
    }
    found
}

fn tree(source: &mut Source<'_>, found: &mut Found) {
    let mut seen = std::collections::BTreeSet::new();
    let mut stack = vec![1_u32];
    let mut bytes = Vec::new();
    while let Some(number) = stack.pop() {
        if !seen.insert(number) || seen.len() > MAX_ENTRIES || !source.read(number, &mut bytes) {
            found.whole = false;
            continue;
        }
        let Some(sheet) = sheet::read(&bytes, number, source.usable, None) else {
            found.whole = false;
            continue;
        };
        match sheet.page.kind {
            PageKind::TableLeaf => {
                let copy = bytes.clone();
                leaf(source, number, &copy, Some(()), found);
            }
            PageKind::TableInterior => {
                found.whole &= sheet.whole;
                let mut children: Vec<u32> = sheet.cells().filter_map(|c| c.left).collect();
                children.extend(sheet.page.right());
                stack.extend(children.into_iter().rev().filter(|c| *c != 0));
            }
            _ => found.whole = false,
        }
    }
}

/// Schema rows of one leaf. In the tree (`must`) a row that is none is damage; elsewhere it is somebody else's row.
fn leaf(source: &mut Source<'_>, number: u32, bytes: &[u8], must: Option<()>, found: &mut Found) {
    let Some(sheet) = sheet::read(bytes, number, source.usable, None) else { return };
    if sheet.page.kind != PageKind::TableLeaf {
        return;
    }
    let mut whole = sheet.whole;
    for cell in sheet.cells() {
        let entry = entry(source, &cell);
        whole &= entry.is_some();
        found.add(entry);
    }
    if must.is_some() {
        found.whole &= whole;
    }
}

/// Cells on page 1 whose pointers are gone: the schema rows of a small database lie at its end.
fn carve(source: &mut Source<'_>, found: &mut Found) {
    let mut bytes = Vec::new();
    if !source.read(1, &mut bytes) || sheet::read(&bytes, 1, source.usable, None).is_some_and(|s| s.whole) {
        // The cells of a whole page are pointed to; what else lies on it is older than what they say.
        return;
    }
    // The cell count in the page header is noise here; none is asked for by its index.
    let mut blank = bytes.clone();
    if let Some(count) = blank.get_mut(103..105) {
        count.fill(0);
    }
    let Some(page) = Page::assume(&blank, 1, source.usable, PageKind::TableLeaf) else { return };
    let mut at = 108;
    let mut found_here: Vec<(i64, (Entry, u32))> = Vec::new();
    while at + 4 < blank.len() {
        let hit = page.cell_at(at).and_then(|cell| {
            let id = cell.rowid.filter(|id| (1..=1 << 32).contains(id))?;
            Some((id, cell.raw.len(), entry(source, &cell)?))
        });
        match hit {
            Some((id, len, entry)) => {
                found_here.push((id, entry));
                at += len.max(1);
            }
            None => at += 1,
        }
    }
    found_here.sort_by_key(|(id, _)| *id);
    for (_, entry) in found_here {
        found.add(Some(entry));
    }
}

/// True when the first row of a leaf is a schema row: cheap enough for every leaf of the first pass.
pub fn looks_like_schema(cell: &Cell<'_>, fields: &mut Vec<Field>) -> bool {
    if !split(cell.local, cell.payload_len, fields) || fields.len() != 5 {
        return false;
    }
    let Some(kind) = fields.first().filter(|f| f.is_text()) else { return false };
    let bytes = cell.local.get(kind.at..kind.at + kind.len).unwrap_or(&[]);
    word(bytes).is_some()
}

/// The kind word and the encoding it is written in.
fn word(bytes: &[u8]) -> Option<(&'static str, u32)> {
    for name in ["table", "index", "view", "trigger"] {
        let units = name.encode_utf16();
        if bytes == name.as_bytes() {
            return Some((name, 1));
        }
        if bytes.len() == 2 * name.len() {
            if units.clone().flat_map(u16::to_le_bytes).eq(bytes.iter().copied()) {
                return Some((name, 2));
            }
            if units.flat_map(u16::to_be_bytes).eq(bytes.iter().copied()) {
                return Some((name, 3));
            }
        }
    }
    None
}

fn entry(source: &mut Source<'_>, cell: &Cell<'_>) -> Option<(Entry, u32)> {
    let mut fields = Vec::new();
    if cell.payload_len > MAX_ROW || !looks_like_schema(cell, &mut fields) {
        return None;
    }
    let payload = assemble(source, &mut Chains::unclaimed(), cell)?.bytes;
    let value = |i: usize| fields.get(i).map(|f| f.value(&payload));
    let (kind, encoding) = match value(0) {
        Some(Value::Text(t)) => word(t)?,
        _ => return None,
    };
    let text = |i: usize| match value(i) {
        Some(Value::Text(t)) => decode(t, encoding),
        Some(Value::Null) => Some(String::new()),
        _ => None,
    };
    let (name, table, sql) = (text(1)?, text(2)?, text(4)?);
    let root = match value(3) {
        Some(Value::Integer(n)) => u32::try_from(n).ok()?,
        Some(Value::Null) => 0,
        _ => return None,
    };
    let creates = sql.trim_start().get(..6).is_some_and(|w| w.eq_ignore_ascii_case("create"));
    let believable = creates || (kind == "index" && sql.is_empty());
    (believable && !name.is_empty() && !table.is_empty())
        .then_some((Entry { kind: kind.to_string(), name, table, root, sql }, encoding))
}

/// Text in an encoding; `None` when it is not valid in it.
pub fn decode(bytes: &[u8], encoding: u32) -> Option<String> {
    let units = |f: fn([u8; 2]) -> u16| -> Vec<u16> {
        bytes.chunks_exact(2).map(|c| if let [a, b] = *c { f([a, b]) } else { 0 }).collect()
    };
    match encoding {
        2 => String::from_utf16(&units(u16::from_le_bytes)).ok(),
        3 => String::from_utf16(&units(u16::from_be_bytes)).ok(),
        _ => std::str::from_utf8(bytes).ok().map(str::to_string),
    }
}
