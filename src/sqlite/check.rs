//! Structure of a database as seen through an [`Overlay`]: findings, never a stop at the first.
//!
//! *Quick* reads the header, the schema, every root page and the freelist head: milliseconds whatever the size.
//! *Full* walks every tree, overflow chain and the freelist and accounts for every page. Comparing tables with their
//! indexes, and whatever needs SQL, is left to the engine on a staged copy.

use std::io;

use serde::{Deserialize, Serialize};

use super::bytes::be32;
use super::header::{self, Header};
use super::judge::{Finding, Level};
use super::overlay::{Overlay, lock_byte_page};
use super::page::{Cell, Page, PageKind};
use super::record::{Value, values};

/// Findings collected at most: a destroyed file would list every page.
const MAX_FINDINGS: usize = 64;
/// Deepest b-tree walked; SQLite's own limit.
const MAX_DEPTH: u32 = 20;
/// Longest schema statement read.
const MAX_SQL: u64 = 1 << 20;

/// How far a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Headers, log, schema, root pages, freelist head.
    Quick,
    /// Every page.
    Full,
}

/// One entry of `sqlite_schema`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaEntry {
    /// "table", "index", "view" or "trigger".
    pub kind: String,
    /// Name.
    pub name: String,
    /// Table it belongs to.
    pub table: String,
    /// Root page, 0 for views, triggers and virtual tables.
    pub root: u32,
    /// Its SQL text.
    pub sql: String,
    /// Entries counted by a full check (rows of a table, keys of an index).
    pub entries: Option<u64>,
}

/// What a damaged object is: it decides what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectKind {
    /// A table that holds rows, WITHOUT ROWID ones included: rows may be lost.
    Table,
    /// An index: it can be built again from its table.
    Index,
    /// The header or `sqlite_schema` itself.
    Schema,
    /// The freelist: no rows, but pages that may be given out twice.
    Freelist,
    /// The pointer map of an auto-vacuum database: no rows.
    PointerMap,
    /// Pages that nothing owns: no rows by themselves, though rows that belong somewhere may stand on them.
    Unowned,
}

/// One damaged object and the pages where damage was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedObject {
    /// Name in the schema; empty for what has none.
    pub name: String,
    /// What it is.
    pub kind: ObjectKind,
    /// Pages with damage, ascending, at most [`MAX_DAMAGED_PAGES`].
    pub pages: Vec<u32>,
}

/// Damaged pages kept per object.
pub const MAX_DAMAGED_PAGES: usize = 4096;

/// Who looked at which part of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Objects (tables and indexes by name, and "pages") checked in full from the bytes.
    pub natively: Vec<String>,
    /// Objects, with the reason behind a colon, that need the engine on a copy.
    pub for_engine: Vec<String>,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Structure {
    /// How far it went.
    pub scope: Scope,
    /// The header seen through the overlay.
    pub header: Option<Header>,
    /// Size in pages.
    pub pages: u32,
    /// Schema entries read.
    pub schema: Vec<SchemaEntry>,
    /// Findings; any of level `error` means damaged.
    pub findings: Vec<Finding>,
    /// The objects that the findings of level `error` are about. Damage of kind `index` alone loses no row.
    #[serde(default)]
    pub damaged: Vec<DamagedObject>,
    /// Which parts were looked at from the bytes, and which need SQL.
    #[serde(default)]
    pub coverage: Coverage,
    /// True when the time budget ended a full check early; what was read is then sound as far as it goes.
    pub out_of_time: bool,
}

impl Structure {
    /// True when nothing of level `error` was found.
    pub fn sound(&self) -> bool {
        self.findings.iter().all(|f| f.level != Level::Error)
    }
}

struct Walk<'a, 'b> {
    source: &'a Overlay<'b>,
    usable: u32,
    seen: Vec<u8>,
    findings: Vec<Finding>,
    may_go_on: &'a mut dyn FnMut() -> bool,
    out_of_time: bool,
    reads: u32,
}

/// Checks a database. `may_go_on` is asked now and then during a full check.
pub fn check(source: &Overlay<'_>, scope: Scope, may_go_on: &mut dyn FnMut() -> bool) -> io::Result<Structure> {
    let mut result = Structure {
        scope,
        header: None,
        pages: source.pages,
        schema: Vec::new(),
        findings: Vec::new(),
        damaged: Vec::new(),
        coverage: Coverage::default(),
        out_of_time: false,
    };
    let first = source.page(1)?;
    let header = match first.as_deref().map(header::parse) {
        Some(Ok(header)) => header,
        Some(Err(fault)) => {
            let text = format!("{}; this is not, or no longer, a SQLite database", fault.describe());
            result.findings.push(Finding::new(Level::Error, "header-damaged", text).at_page(1));
            return Ok(result);
        }
        None => {
            let text = "the file is shorter than one page";
            result.findings.push(Finding::new(Level::Error, "file-short", text).at_page(1));
            return Ok(result);
        }
    };
    if header.page_size != source.page_size {
        let text =
            format!("the header says {} bytes a page, the file is cut by {}", header.page_size, source.page_size);
        result.findings.push(Finding::new(Level::Error, "page-size-mismatch", text).at_page(1));
        result.header = Some(header);
        return Ok(result);
    }
    let mut walk = Walk {
        source,
        usable: header.page_size - u32::from(header.reserved),
        seen: vec![0; usize::try_from(source.pages / 8 + 1).unwrap_or(0)],
        findings: Vec::new(),
        may_go_on,
        out_of_time: false,
        reads: 0,
    };
    if header.valid_for == header.change_counter && header.pages > source.pages {
        let text = format!("the header counts {} pages, the file holds {}", header.pages, source.pages);
        walk.error("file-truncated", 1, text);
    }
    let mut schema = Vec::new();
    walk.tree(1, true, &mut |_, cell| schema.extend(schema_entry(source, cell, header.encoding)))?;
    result.schema = schema;
    for entry in &mut result.schema {
        if entry.root == 0 {
            continue;
        }
        let rowid_table = entry.kind == "table" && !without_rowid(&entry.sql);
        if scope == Scope::Full {
            let mut count = 0;
            let counts_interior = !rowid_table;
            walk.tree(entry.root, rowid_table, &mut |kind, _| {
                count += u64::from(kind.is_leaf() || counts_interior);
            })?;
            entry.entries = (!walk.out_of_time).then_some(count);
        } else {
            walk.root(entry.root, rowid_table, &entry.name)?;
        }
    }
    walk.freelist(&header, scope)?;
    if scope == Scope::Full && !walk.out_of_time {
        walk.unused(&header);
    }
    result.out_of_time = walk.out_of_time;
    result.findings.append(&mut walk.findings);
    result.header = Some(header);
    Ok(result)
}

fn without_rowid(sql: &str) -> bool {
    let tail: String = sql.rsplit(')').next().unwrap_or("").split_whitespace().collect::<Vec<_>>().join(" ");
    tail.to_ascii_uppercase().contains("WITHOUT ROWID")
}

fn schema_entry(source: &Overlay<'_>, cell: &Cell<'_>, encoding: u32) -> Option<SchemaEntry> {
    let payload = payload(source, cell)?;
    let columns = values(&payload)?;
    let text = |i: usize| match columns.get(i) {
        Some(Value::Text(t)) => decode(t, encoding),
        _ => String::new(),
    };
    let root = match columns.get(3) {
        Some(Value::Integer(n)) => u32::try_from(*n).unwrap_or(u32::MAX),
        _ => 0,
    };
    Some(SchemaEntry { kind: text(0), name: text(1), table: text(2), root, sql: text(4), entries: None })
}

/// The whole payload of a cell, overflow included; `None` when the chain is broken or unreasonably long.
fn payload(source: &Overlay<'_>, cell: &Cell<'_>) -> Option<Vec<u8>> {
    if cell.payload_len > MAX_SQL {
        return None;
    }
    let whole = usize::try_from(cell.payload_len).ok()?;
    let mut bytes = cell.local.to_vec();
    let mut next = cell.overflow.unwrap_or(0);
    let mut hops = 0;
    while bytes.len() < whole && next != 0 && hops <= source.pages {
        let page = source.page(next).ok()??;
        let take = (whole - bytes.len()).min(page.len().saturating_sub(4));
        bytes.extend_from_slice(page.get(4..4 + take)?);
        next = be32(&page, 0);
        hops += 1;
    }
    (bytes.len() == whole).then_some(bytes)
}

fn decode(bytes: &[u8], encoding: u32) -> String {
    let units = |f: fn([u8; 2]) -> u16| -> Vec<u16> {
        bytes.chunks_exact(2).map(|c| if let [a, b] = *c { f([a, b]) } else { 0 }).collect()
    };
    match encoding {
        2 => String::from_utf16_lossy(&units(u16::from_le_bytes)),
        3 => String::from_utf16_lossy(&units(u16::from_be_bytes)),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

impl Walk<'_, '_> {
    fn error(&mut self, code: &str, page: u32, text: impl Into<String>) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(Finding::new(Level::Error, code, text).at_page(page));
        }
    }

    /// Marks a page as used; false when it was used before or does not exist.
    fn claim(&mut self, page: u32, by: &str) -> bool {
        if page == 0 || page > self.source.pages {
            self.error("page-out-of-range", page, format!("{by} points to page {page} of {}", self.source.pages));
            return false;
        }
        let (at, bit) = (usize::try_from(page / 8).unwrap_or(usize::MAX), 1_u8 << (page % 8));
        let Some(byte) = self.seen.get_mut(at) else { return false };
        if *byte & bit != 0 {
            self.error("page-used-twice", page, format!("page {page} is used twice, the second time by {by}"));
            return false;
        }
        *byte |= bit;
        true
    }

    fn read(&mut self, page: u32) -> io::Result<Option<Vec<u8>>> {
        self.reads += 1;
        if self.reads.is_multiple_of(256) && !(self.may_go_on)() {
            self.out_of_time = true;
        }
        if self.out_of_time { Ok(None) } else { self.source.page(page) }
    }

    /// The root page alone: right kind, well-formed.
    fn root(&mut self, root: u32, table: bool, name: &str) -> io::Result<()> {
        if !self.claim(root, name) {
            return Ok(());
        }
        let image = self.read(root)?.unwrap_or_default();
        let ok = Page::parse(&image, root, self.usable).is_some_and(|p| p.kind.is_table() == table);
        if !ok {
            self.error("root-page-damaged", root, format!("the root page of {name} is not a b-tree page of its kind"));
        }
        Ok(())
    }

    /// Walks one tree without recursion: (page, depth, rowid bounds).
    fn tree(&mut self, root: u32, table: bool, visit: &mut dyn FnMut(PageKind, &Cell<'_>)) -> io::Result<()> {
        let mut leaf_depth = None;
        // A page is claimed before it is put on the stack, which so never holds more than the file has pages.
        let mut stack = Vec::new();
        if self.claim(root, "a b-tree") {
            stack.push((root, 0_u32, i64::MIN, i64::MAX));
        }
        while let Some((number, depth, low, high)) = stack.pop() {
            let Some(image) = self.read(number)? else {
                if !self.out_of_time {
                    self.error("page-missing", number, format!("page {number} lies beyond the end of the file"));
                }
                continue;
            };
            let page = Page::parse(&image, number, self.usable).filter(|p| p.kind.is_table() == table);
            let Some(page) = page else {
                self.error("page-damaged", number, format!("page {number} is not a b-tree page of its kind"));
                continue;
            };
            if depth > MAX_DEPTH {
                self.error("tree-too-deep", number, format!("the tree at page {root} is deeper than {MAX_DEPTH}"));
                continue;
            }
            if page.kind.is_leaf() && *leaf_depth.get_or_insert(depth) != depth {
                self.error("tree-uneven", number, format!("leaf {number} is not at the depth of the other leaves"));
            }
            self.cells(&page, number, depth, (low, high), &mut stack, visit)?;
        }
        Ok(())
    }

    fn cells(
        &mut self,
        page: &Page<'_>,
        number: u32,
        depth: u32,
        (low, high): (i64, i64),
        stack: &mut Vec<(u32, u32, i64, i64)>,
        visit: &mut dyn FnMut(PageKind, &Cell<'_>),
    ) -> io::Result<()> {
        let mut previous = low;
        let mut extents: Vec<(usize, usize)> = Vec::with_capacity(page.cells);
        for i in 0..page.cells {
            let Some(cell) = page.cell(i) else {
                self.error("cell-damaged", number, format!("cell {i} of page {number} leaves the page"));
                continue;
            };
            extents.push((cell.at, cell.at + cell.raw.len().max(4)));
            if let Some(id) = cell.rowid {
                // Keys of an interior cell bound its left child from above, inclusively.
                let ordered = if low == i64::MIN && i == 0 { true } else { id > previous };
                if !ordered || id > high {
                    self.error("rowid-out-of-order", number, format!("rowid {id} on page {number} is out of order"));
                }
                if let Some(child) = cell.left.filter(|c| self.claim(*c, "a b-tree")) {
                    stack.push((child, depth + 1, previous, id));
                }
                previous = id;
            } else if let Some(child) = cell.left.filter(|c| self.claim(*c, "a b-tree")) {
                stack.push((child, depth + 1, i64::MIN, i64::MAX));
            }
            if let Some(first) = cell.overflow {
                let spilled = cell.payload_len - u64::try_from(cell.local.len()).unwrap_or(0);
                self.overflow(number, first, spilled)?;
            }
            visit(page.kind, &cell);
        }
        if let Some(right) = page.right().filter(|c| self.claim(*c, "a b-tree")) {
            stack.push((right, depth + 1, previous, high));
        }
        extents.sort_unstable();
        if extents.windows(2).any(|w| matches!(w, [a, b] if a.1 > b.0)) {
            self.error("cells-overlap", number, format!("two cells of page {number} overlap"));
        }
        Ok(())
    }

    fn overflow(&mut self, owner: u32, first: u32, spilled: u64) -> io::Result<()> {
        let per_page = u64::from(self.usable.saturating_sub(4)).max(1);
        let mut left = spilled.div_ceil(per_page);
        let mut next = first;
        while left > 0 {
            if !self.claim(next, "an overflow chain") {
                return Ok(());
            }
            let Some(image) = self.read(next)? else {
                if !self.out_of_time {
                    self.error("page-missing", next, format!("overflow page {next} lies beyond the end of the file"));
                }
                return Ok(());
            };
            next = be32(&image, 0);
            left -= 1;
        }
        if next != 0 {
            self.error(
                "overflow-too-long",
                owner,
                format!("an overflow chain of page {owner} does not end where its row does"),
            );
        }
        Ok(())
    }

    fn freelist(&mut self, header: &Header, scope: Scope) -> io::Result<()> {
        let mut trunk = header.freelist_head;
        let mut counted = 0_u32;
        while trunk != 0 {
            if !self.claim(trunk, "the freelist") {
                return Ok(());
            }
            let Some(image) = self.read(trunk)? else { return Ok(()) };
            counted += 1;
            let leaves = be32(&image, 4);
            if leaves > self.usable / 4 - 2 {
                self.error("freelist-damaged", trunk, format!("freelist trunk {trunk} claims {leaves} pages"));
                return Ok(());
            }
            if scope == Scope::Quick {
                return Ok(());
            }
            for i in 0..leaves {
                let at = 8 + 4 * usize::try_from(i).unwrap_or(0);
                counted += u32::from(self.claim(be32(&image, at), "the freelist"));
            }
            trunk = be32(&image, 0);
        }
        if scope == Scope::Full && !self.out_of_time && counted != header.freelist_count {
            let text = format!("the freelist holds {counted} pages, the header counts {}", header.freelist_count);
            self.error("freelist-count", 1, text);
        }
        Ok(())
    }

    /// Pages that nothing owns: lost space, and a sign of damage elsewhere, but no loss of rows by itself.
    fn unused(&mut self, header: &Header) {
        let lock = lock_byte_page(header.page_size);
        let per_map = self.usable / 5 + 1;
        let is_map = |p: u32| header.largest_root != 0 && p >= 2 && (p - 2).is_multiple_of(per_map);
        let end = if header.valid_for == header.change_counter { header.pages } else { self.source.pages };
        let used =
            |p: u32| self.seen.get(usize::try_from(p / 8).unwrap_or(usize::MAX)).is_some_and(|b| b >> (p % 8) & 1 == 1);
        let free: Vec<u32> = (1..=end).filter(|p| *p != lock && !is_map(*p) && !used(*p)).take(2).collect();
        if let (Some(first), true) = (free.first(), self.sound_so_far()) {
            let text = format!("page {first} and perhaps others are neither used nor free");
            self.findings.push(Finding::new(Level::Error, "page-unused", text).at_page(*first));
        }
    }

    fn sound_so_far(&self) -> bool {
        self.findings.iter().all(|f| f.level != Level::Error)
    }
}
