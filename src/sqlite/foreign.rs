//! Whether a log belongs to the database beside it. Pure.
//!
//! SQLite does not ask: neither file names the other, and it replays whatever verifies. A backup copied over a database
//! whose log stays behind so becomes a mixture of two times. A log that belongs began when everything before it was in
//! the file. So each page of the file is as it was at that moment, S0, or as some frame of this log has it:
//!
//! * page 1 (its first sector, which is written as a whole) equals that of an image in the log, or is the one that the
//!   first image was made from: its change counter is that of the first image or one less (a connection that stays open
//!   repeats its counter), its schema cookie is not above the first image's, and the encoding is the same;
//! * until page 1 is first written the database keeps its size: every commit before that names the size in S0's header;
//! * a file is longer than every commit says only where the first commit is a vacuum, which raises the schema cookie;
//! * while the schema cookie is the same, the schema's own rows on page 1 are the same, sector by sector or row by row;
//! * the marks of AUTOINCREMENT only grow: the database's are not above those of the last image of their page;
//! * every page of the last commit is in one of the two files.
//!
//! These conditions are necessary, so a log that breaks one does not belong. Whoever refuses a log must also know that
//! the database alone is sound: damage to its header can break them too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::check::SchemaEntry;
use super::header::Header;
use super::observe::LogFacts;
use super::page::{Page, PageKind};
use super::record::{Value, values};

/// What page 1 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageOne {
    /// File change counter.
    pub change_counter: u32,
    /// The change counter for which `pages` is valid.
    pub valid_for: u32,
    /// Size in pages.
    pub pages: u32,
    /// Schema cookie.
    pub schema_cookie: u32,
    /// Text encoding, 0 before the first table.
    pub encoding: u32,
    /// Reserved bytes per page.
    pub reserved: u8,
    /// Auto-vacuum.
    pub auto_vacuum: bool,
}

impl From<&Header> for PageOne {
    fn from(h: &Header) -> Self {
        Self {
            change_counter: h.change_counter,
            valid_for: h.valid_for,
            pages: h.pages,
            schema_cookie: h.schema_cookie,
            encoding: h.encoding,
            reserved: h.reserved,
            auto_vacuum: h.largest_root != 0,
        }
    }
}

/// What the committed frames of a log say of the database they were made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The first image of page 1, where there is one.
    pub first: Option<PageOne>,
    /// True when the first sector of the file equals that of some image of page 1.
    pub held: bool,
    /// Least and greatest size named by commits before page 1 is first written; (0, 0) when there are none.
    pub early: (u32, u32),
    /// The greatest size named by any commit.
    pub largest: u32,
    /// True when the rows of the schema on page 1 of the file are those of no image in the log.
    pub other_schema: bool,
    /// True when a mark of `sqlite_sequence` in the file is above the one in the last image of its page.
    pub sequence_ahead: bool,
}

/// True when every index of a full check has as many entries as its table has rows; partial ones are left out.
pub fn counts_agree(schema: &[SchemaEntry]) -> bool {
    let rows = |table: &str| schema.iter().find(|e| e.kind == "table" && e.name == table).and_then(|e| e.entries);
    let partial = |sql: &str| sql.to_ascii_uppercase().contains("WHERE");
    schema.iter().filter(|e| e.kind == "index" && !partial(&e.sql)).all(|index| {
        match (index.entries, rows(&index.table)) {
            (Some(entries), Some(rows)) => entries == rows,
            _ => true,
        }
    })
}

/// The marks of `sqlite_sequence` on a leaf.
pub(super) fn marks(image: &[u8], number: u32, usable: u32) -> BTreeMap<Vec<u8>, i64> {
    let mut marks = BTreeMap::new();
    let Some(page) = Page::parse(image, number, usable).filter(|p| p.kind == PageKind::TableLeaf) else { return marks };
    for cell in (0..page.cells).filter_map(|i| page.cell(i)) {
        if let Some([Value::Text(name), Value::Integer(mark)]) = values(cell.local).as_deref() {
            marks.insert(name.to_vec(), *mark);
        }
    }
    marks
}

/// The root page of `sqlite_sequence`, where page 1 names it.
pub(super) fn sequence_root(page_one: &[u8], usable: u32) -> Option<u32> {
    let page = Page::parse(page_one, 1, usable).filter(|p| p.kind == PageKind::TableLeaf)?;
    (0..page.cells).filter_map(|i| page.cell(i)).find_map(|cell| match values(cell.local).as_deref() {
        Some([Value::Text(b"table"), Value::Text(b"sqlite_sequence"), _, Value::Integer(root), ..]) => {
            u32::try_from(*root).ok()
        }
        _ => None,
    })
}

/// Kind, name, root page and length of the statement.
type SchemaRow = (Vec<u8>, Vec<u8>, i64, usize);

/// The objects that page 1 names, each with its root page and the length of its statement; `None` where page 1 is not the
/// whole schema or cannot be read. The letters of a statement are left out: one that rotted names the same object.
pub(super) fn schema_rows(page_one: &[u8], usable: u32) -> Option<Vec<SchemaRow>> {
    let page = Page::parse(page_one, 1, usable).filter(|p| p.kind == PageKind::TableLeaf)?;
    let row = |i| match values(page.cell(i)?.local).as_deref() {
        Some([Value::Text(kind), Value::Text(name), _, Value::Integer(root), sql]) => {
            let length = if let Value::Text(sql) = sql { sql.len() } else { 0 };
            Some((kind.to_vec(), name.to_vec(), *root, length))
        }
        _ => None,
    };
    (0..page.cells).map(row).collect()
}

/// Why a log cannot belong to a database with this page 1 and this many pages; `None` when nothing speaks against it.
pub fn reason(facts: &LogFacts, db: &PageOne, db_pages: u32, db_page_size: u32) -> Option<String> {
    if facts.committed == 0 {
        return None;
    }
    if db_page_size != facts.page_size {
        return Some(format!("its pages have {} bytes, the database's {db_page_size}", facts.page_size));
    }
    // A header whose two counters differ was not written by SQLite as it stands: it can be held against nothing.
    if db.valid_for != db.change_counter {
        return None;
    }
    // A file shorter than its own header says has lost its end: then pages are missing whatever the log is.
    if facts.missing_pages > 0 && db_pages >= db.pages {
        return Some(format!("{} pages are in neither file", facts.missing_pages));
    }
    let origin = &facts.origin;
    if origin.sequence_ahead {
        return Some("the database has given row ids that the log has not reached yet".to_string());
    }
    if origin.held {
        return None;
    }
    if let Some(first) = &origin.first {
        if first.reserved != db.reserved || db.encoding != 0 && first.encoding != db.encoding {
            return Some("it was made from a database with another text encoding or page layout".to_string());
        }
        let ahead = first.change_counter.wrapping_sub(db.change_counter);
        if ahead > 1 {
            return Some(format!(
                "its first change of page 1 made change counter {}, the database stands at {}",
                first.change_counter, db.change_counter
            ));
        }
        if first.schema_cookie.wrapping_sub(db.schema_cookie) > 1 << 20 {
            return Some(format!(
                "it was made from schema version {} or earlier, the database has {}",
                first.schema_cookie, db.schema_cookie
            ));
        }
    }
    if origin.other_schema && origin.first.is_some_and(|f| f.schema_cookie == db.schema_cookie) {
        return Some("its schema has other rows under the same schema version".to_string());
    }
    let (least, most) = origin.early;
    if most != 0 && (least != db.pages || most != db.pages) {
        return Some(format!("it was made from a database of {least} pages, this one counts {}", db.pages));
    }
    let vacuumed = origin.first.is_some_and(|f| f.schema_cookie != db.schema_cookie) || db.auto_vacuum;
    if db_pages > origin.largest && db.pages > origin.largest && !vacuumed {
        return Some(format!("the database has {db_pages} pages, the log never saw more than {}", origin.largest));
    }
    None
}
