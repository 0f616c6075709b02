//! What a salvage says of itself: the contract's `tables` and `lost_and_found`, and the loss manifest.

use serde::{Deserialize, Serialize};

use super::assign::Assigned;
use super::extract::Extracted;
use super::geometry::Geometry;
use super::loss::TableLoss;
use super::map::Map;
use super::objects::Object;
use super::side::Laid;
use super::source::Source;

/// Name of the schema of last resort.
pub const PRODUCT: &str = "documented product schema";

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReport {
    /// Table.
    pub name: String,
    /// Rows in it now.
    pub rows: u64,
    /// Rows lost; `null` when they cannot be counted.
    pub lost: Option<u64>,
    /// No more than this can be missing; `null` when no bound is known.
    pub lost_at_most: Option<u64>,
    /// Rows that were kept though their page is damaged.
    pub not_provable: u64,
}

/// Rows without a table, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostAndFound {
    /// All of them.
    pub rows: u64,
    /// They fit no table of the schema.
    pub fits_nothing: u64,
    /// They fit several tables and nothing tells which.
    pub ambiguous: u64,
    /// Kept like an index and without an owner: rows of a WITHOUT ROWID table, or entries of an index.
    pub index_like: u64,
    /// Nothing proves that they were not deleted: pages were freed, the list of them is lost, and neither a pointer map nor
    /// an index entry speaks for these rows.
    #[serde(default)]
    pub not_provable: u64,
    /// Another copy of the same rowid is in the table.
    pub duplicate: u64,
    /// The table refused them.
    pub refused: u64,
    /// They stand on an image in the log that is older than the page, which is gone.
    #[serde(default)]
    pub older_state: u64,
}

/// The report of one salvage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Page size found.
    pub page_size: u32,
    /// Text encoding found: 1 UTF-8, 2 UTF-16LE, 3 UTF-16BE.
    pub encoding: u32,
    /// True when the new database is in WAL mode, as the old one was.
    pub wal_mode: bool,
    /// False when the header was damaged and the geometry was found without it.
    pub header_believed: bool,
    /// Pages looked at.
    pub pages: u32,
    /// Pages of nothing but zeroes, and unreadable ones.
    pub blank_pages: u32,
    /// B-tree pages that do not account for every byte.
    pub damaged_pages: u32,
    /// Pages that the storage did not give.
    pub unreadable: u32,
    /// Pages whose newest image came from the log or journal.
    pub log_images: u32,
    /// Older images the leftovers of the log could give.
    pub donors: u32,
    /// Bad pages replaced by such an image, proved to be their contents; the manifest names the rows.
    pub donors_used: u32,
    /// Where the schema came from, the most trusted first.
    pub schema_from: Vec<String>,
    /// False when tables may have existed that no schema found names.
    pub schema_whole: bool,
    /// Tables whose statement was not understood.
    pub not_understood: Vec<String>,
    /// Objects that the engine could not make, with its reason.
    pub not_made: Vec<String>,
    /// Pages of deleted rows; their rows are not mixed with live ones.
    pub ghost_pages: u32,
    /// True when the freelist was read from head to end, so that no deleted page can pass for a live one.
    pub freelist_whole: bool,
    /// Tables.
    pub tables: Vec<TableReport>,
    /// Rows without a table.
    pub lost_and_found: LostAndFound,
    /// What is missing, table by table; only tables that miss something or hold rows that are not provable.
    pub loss: Vec<TableLoss>,
}

impl Report {
    /// Nothing read yet.
    pub fn new(geometry: &Geometry, laid: &Laid) -> Self {
        Self {
            page_size: geometry.page_size,
            encoding: geometry.encoding,
            wal_mode: false,
            header_believed: geometry.header_believed,
            pages: 0,
            blank_pages: 0,
            damaged_pages: 0,
            unreadable: 0,
            log_images: u32::try_from(laid.images.len()).unwrap_or(u32::MAX),
            donors: 0,
            donors_used: 0,
            schema_from: Vec::new(),
            schema_whole: false,
            not_understood: Vec::new(),
            not_made: Vec::new(),
            ghost_pages: 0,
            freelist_whole: false,
            tables: Vec::new(),
            lost_and_found: LostAndFound::default(),
            loss: Vec::new(),
        }
    }

    pub(super) fn tree(&mut self, map: &Map, source: &Source<'_>, assigned: &Assigned) {
        self.pages = source.pages;
        self.blank_pages = map.lost_pages();
        self.damaged_pages = map.damaged;
        self.donors_used = u32::try_from(source.adopted().len()).unwrap_or(u32::MAX);
        self.ghost_pages = assigned.ghosts;
        self.freelist_whole = assigned.freelist_whole;
    }

    pub(super) fn table(&mut self, object: &Object, got: &Extracted, loss: TableLoss) {
        self.tables.push(TableReport {
            name: object.entry.name.clone(),
            rows: got.rows,
            lost: loss.lost,
            lost_at_most: loss.lost_at_most,
            not_provable: loss.not_provable.count(),
        });
        if loss.lost != Some(0) || !loss.not_provable.is_empty() || !loss.donated.is_empty() || loss.out_of_step > 0 {
            self.loss.push(loss);
        }
    }

    /// True when every row of the database is in its table.
    pub fn nothing_lost(&self) -> bool {
        self.tables.iter().all(|t| t.lost == Some(0))
            && self.lost_and_found.rows == 0
            && self.not_understood.is_empty()
            && self.not_made.is_empty()
            && self.schema_whole
    }
}
