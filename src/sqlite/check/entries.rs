//! Reading `sqlite_schema` (fileformat2.html section 2.6): whatever entries can be had, and what is wrong with the rest.

use std::collections::BTreeSet;

use super::SchemaEntry;
use super::pages::{Geometry, Tree};
use super::pass::MAX_PREFIX;
use crate::sqlite::bytes::be32;
use crate::sqlite::collate::utf8;
use crate::sqlite::overlay::Overlay;
use crate::sqlite::record::{Field, Value, split};
use crate::sqlite::schema::described;

/// Entries read at most: ten times what the largest schemas in use hold.
const MAX_ENTRIES: usize = 100_000;
/// Bytes of their texts kept at most; the texts of later entries are left out and their objects left to the engine.
const MAX_TEXTS: usize = 4 << 20;

/// The entries, and faults as (page, sentence).
pub(super) struct Entries {
    pub entries: Vec<SchemaEntry>,
    pub faults: Vec<(u32, String)>,
}

/// Reads the tree at page 1.
pub(super) fn read(
    source: &Overlay<'_>,
    geometry: &Geometry,
    encoding: u32,
    go_on: &mut dyn FnMut() -> bool,
) -> Entries {
    let mut reader = Reader {
        source,
        geometry,
        encoding,
        seen: BTreeSet::from([1]),
        chain_reads: 2 * u64::from(source.pages) + 64,
        texts: 0,
        out: Entries { entries: Vec::new(), faults: Vec::new() },
    };
    // Pages still to be read, the next one last; each is put here once.
    let mut stack = vec![1];
    while let Some(number) = stack.pop() {
        if !go_on() {
            break;
        }
        reader.page(number, &mut stack);
    }
    let mut names = BTreeSet::new();
    for entry in &reader.out.entries {
        let twin = !names.insert((entry.kind == "trigger", entry.name.to_ascii_lowercase()));
        let fault = match entry.kind.as_str() {
            _ if twin => "the name stands there twice",
            "table" if entry.root == 0 && !super::objects::is_virtual(&entry.sql) => "it has no root page",
            "index" if entry.root == 0 => "it has no root page",
            "view" | "trigger" if entry.root != 0 => "it has a root page",
            "table" | "index" | "view" | "trigger" if disagrees(entry) => "its columns and its text disagree",
            "table" | "index" | "view" | "trigger" => continue,
            _ => "its kind is unknown",
        };
        let name: String = entry.name.chars().take(60).collect();
        reader.out.faults.push((1, format!("the schema's entry {name}: {fault}")));
    }
    reader.out
}

/// True when kind, name or table are not what the text makes: the engine refuses such a schema. An index without a text
/// is made by a constraint of its table.
fn disagrees(entry: &SchemaEntry) -> bool {
    if entry.sql.is_empty() {
        return entry.kind != "index";
    }
    described(&entry.sql).is_some_and(|d| {
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        d.kind != entry.kind || !same(&d.name, &entry.name) || !same(&d.table, &entry.table)
    })
}

struct Reader<'a, 'b> {
    source: &'a Overlay<'b>,
    geometry: &'a Geometry,
    encoding: u32,
    seen: BTreeSet<u32>,
    chain_reads: u64,
    texts: usize,
    out: Entries,
}

impl Reader<'_, '_> {
    fn page(&mut self, number: u32, stack: &mut Vec<u32>) {
        let fault = |out: &mut Entries, text: String| {
            if out.faults.len() < 16 {
                out.faults.push((number, text));
            }
        };
        let image = match self.source.page(number) {
            Ok(Some(image)) => image,
            Ok(None) => return fault(&mut self.out, format!("schema page {number} lies beyond the end of the file")),
            Err(e) => return fault(&mut self.out, format!("schema page {number} cannot be read: {e}")),
        };
        let node = match Tree::parse(&image, number, self.geometry) {
            Ok(node) if node.kind.is_table() => node,
            Ok(_) => {
                fault(&mut self.out, format!("schema page {number} is of the other kind of tree"));
                return;
            }
            Err(why) => {
                fault(&mut self.out, format!("schema page {number}: {why}"));
                return;
            }
        };
        let mut children = Vec::new();
        for i in 0..node.cells {
            let Ok((cell, _)) = node.cell(i, self.geometry) else {
                fault(&mut self.out, format!("a cell of schema page {number} leaves the page"));
                continue;
            };
            if !node.kind.is_leaf() {
                children.push(cell.left);
                continue;
            }
            if self.out.entries.len() >= MAX_ENTRIES {
                fault(&mut self.out, format!("the schema has more than {MAX_ENTRIES} entries"));
                return;
            }
            match self.entry(cell.local, cell.payload_len, cell.overflow) {
                Some(entry) => self.out.entries.push(entry),
                None => fault(&mut self.out, format!("an entry of the schema on page {number} cannot be read")),
            }
        }
        if !node.kind.is_leaf() {
            children.push(node.right);
            // In order, so that tables come before their indexes as they were made.
            for child in children.into_iter().rev() {
                if child != 0 && child <= self.source.pages && self.seen.insert(child) {
                    stack.push(child);
                }
            }
        }
    }

    fn entry(&mut self, local: &[u8], payload_len: u64, overflow: u32) -> Option<SchemaEntry> {
        let whole = usize::try_from(payload_len).unwrap_or(usize::MAX);
        if whole > MAX_PREFIX {
            return None;
        }
        let mut bytes = local.to_vec();
        let mut next = overflow;
        while bytes.len() < whole {
            if self.chain_reads == 0 {
                return None;
            }
            self.chain_reads -= 1;
            let page = self.source.page(next).ok()??;
            let take = (whole - bytes.len()).min(self.geometry.usable - 4);
            bytes.extend_from_slice(page.get(4..4 + take).unwrap_or(&[]));
            next = be32(&page, 0);
        }
        let mut fields: Vec<Field> = Vec::new();
        if split(&bytes, payload_len, &mut fields).is_err() {
            return None;
        }
        let value = |i: usize| fields.get(i).and_then(|f| f.value(&bytes)).unwrap_or(Value::Null);
        let text = |i: usize| match value(i) {
            Value::Text(t) => String::from_utf8_lossy(&utf8(t, self.encoding)).into_owned(),
            _ => String::new(),
        };
        let root = match value(3) {
            Value::Integer(n) => u32::try_from(n).unwrap_or(u32::MAX),
            _ => 0,
        };
        let mut sql = text(4);
        if self.texts + sql.len() > MAX_TEXTS {
            sql = String::from("-- left out: the schema's texts are too long");
        }
        self.texts += sql.len();
        Some(SchemaEntry { kind: text(0), name: text(1), table: text(2), root, sql, entries: None })
    }
}
