//! B-tree pages (file format 2, section 1.6): header, cell pointers, cells. Total over any bytes.
//!
//! ```text
//! header (8 bytes on leaves, 12 on interior pages; at offset 100 on page 1)
//!  0 kind 2, 5, 10 or 13     1 first freeblock     3 cells     5 cell content area (0 = 65536)     7 fragments
//!  8 right-most child (interior only)
//! then one 2-byte pointer per cell
//! ```

use super::bytes::{be16, be32, byte, varint};

/// The four kinds of b-tree page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Keys of an index and children.
    IndexInterior,
    /// Rowid bounds of a table and children.
    TableInterior,
    /// Index entries.
    IndexLeaf,
    /// Table rows.
    TableLeaf,
}

impl PageKind {
    fn from_byte(kind: u8) -> Option<Self> {
        match kind {
            2 => Some(Self::IndexInterior),
            5 => Some(Self::TableInterior),
            10 => Some(Self::IndexLeaf),
            13 => Some(Self::TableLeaf),
            _ => None,
        }
    }

    /// True for the kinds without children.
    pub fn is_leaf(self) -> bool {
        matches!(self, Self::IndexLeaf | Self::TableLeaf)
    }

    /// True for the kinds of a rowid table.
    pub fn is_table(self) -> bool {
        matches!(self, Self::TableInterior | Self::TableLeaf)
    }
}

/// One cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell<'a> {
    /// Left child (interior pages).
    pub left: Option<u32>,
    /// Rowid (table pages).
    pub rowid: Option<i64>,
    /// Whole payload length in bytes, 0 where the kind has none.
    pub payload_len: u64,
    /// The part of the payload on this page.
    pub local: &'a [u8],
    /// First overflow page.
    pub overflow: Option<u32>,
    /// The whole cell as stored.
    pub raw: &'a [u8],
    /// Offset of the cell in the page.
    pub at: usize,
}

/// A page whose header and pointer array are well-formed.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    bytes: &'a [u8],
    usable: usize,
    /// Kind of page.
    pub kind: PageKind,
    /// Offset of the page header: 100 on page 1.
    pub header_at: usize,
    /// Number of cells.
    pub cells: usize,
    /// Start of the cell content area.
    pub content: usize,
}

impl<'a> Page<'a> {
    /// Reads the page header; `None` when it is not a well-formed b-tree page. `usable` is page size minus reserved.
    pub fn parse(bytes: &'a [u8], number: u32, usable: u32) -> Option<Self> {
        let usable = usize::try_from(usable).ok()?.min(bytes.len());
        let header_at = if number == 1 { 100 } else { 0 };
        let kind = PageKind::from_byte(*bytes.get(header_at)?)?;
        let cells = usize::from(be16(bytes, header_at + 3));
        let raw_content = usize::from(be16(bytes, header_at + 5));
        let content = if raw_content == 0 { 65536 } else { raw_content };
        let page = Self { bytes, usable, kind, header_at, cells, content };
        let pointers_end = page.pointers_at() + 2 * cells;
        (pointers_end <= content && content <= usable && byte(bytes, header_at + 7) <= 60).then_some(page)
    }

    /// A page whose header is not believed beyond its number of cells: for salvage, where a parent or a neighbour says
    /// what kind of page this must be. `None` when not even the pointer array fits.
    pub fn assume(bytes: &'a [u8], number: u32, usable: u32, kind: PageKind) -> Option<Self> {
        let usable = usize::try_from(usable).ok()?.min(bytes.len());
        let header_at = if number == 1 { 100 } else { 0 };
        let cells = usize::from(be16(bytes, header_at + 3));
        let mut page = Self { bytes, usable, kind, header_at, cells, content: 0 };
        page.content = page.pointers_at() + 2 * cells;
        (page.content <= usable).then_some(page)
    }

    fn pointers_at(&self) -> usize {
        self.header_at + if self.kind.is_leaf() { 8 } else { 12 }
    }

    /// Right-most child of an interior page.
    pub fn right(&self) -> Option<u32> {
        (!self.kind.is_leaf()).then(|| be32(self.bytes, self.header_at + 8))
    }

    /// First freeblock offset, 0 when none.
    pub fn first_freeblock(&self) -> usize {
        usize::from(be16(self.bytes, self.header_at + 1))
    }

    /// Fragmented free bytes.
    pub fn fragments(&self) -> usize {
        usize::from(byte(self.bytes, self.header_at + 7))
    }

    /// Cell `index`; `None` when its pointer or extent leaves the content area.
    pub fn cell(&self, index: usize) -> Option<Cell<'a>> {
        if index >= self.cells {
            return None;
        }
        self.cell_at(usize::from(be16(self.bytes, self.pointers_at() + 2 * index)))
    }

    /// The cell at an offset of the page, pointed to or not.
    pub fn cell_at(&self, at: usize) -> Option<Cell<'a>> {
        if at < self.content || at + 4 > self.usable {
            return None;
        }
        let bytes = self.bytes.get(..self.usable)?;
        let mut cursor = at;
        let mut left = None;
        if !self.kind.is_leaf() {
            left = Some(be32(bytes, at));
            cursor += 4;
        }
        let mut payload_len = 0;
        if self.kind != PageKind::TableInterior {
            let (len, n) = varint(bytes, cursor)?;
            payload_len = u64::try_from(len).ok()?;
            cursor += n;
        }
        let mut rowid = None;
        if self.kind.is_table() {
            let (id, n) = varint(bytes, cursor)?;
            rowid = Some(id);
            cursor += n;
        }
        let local_len = self.local_len(payload_len)?;
        let local = bytes.get(cursor..cursor.checked_add(local_len)?)?;
        cursor += local_len;
        let mut overflow = None;
        if u64::try_from(local_len).ok()? < payload_len {
            overflow = Some(be32(bytes.get(cursor..cursor + 4)?, 0));
            cursor += 4;
        }
        Some(Cell { left, rowid, payload_len, local, overflow, raw: bytes.get(at..cursor)?, at })
    }

    /// Bytes of a payload kept on the page (file format 2, section 1.6, "cell payload overflow").
    fn local_len(&self, payload: u64) -> Option<usize> {
        let usable = u64::try_from(self.usable).ok()?;
        let max = match self.kind {
            PageKind::TableInterior => return Some(0),
            PageKind::TableLeaf => usable.checked_sub(35)?,
            PageKind::IndexLeaf | PageKind::IndexInterior => (usable.checked_sub(12)? * 64 / 255).checked_sub(23)?,
        };
        if payload <= max {
            return usize::try_from(payload).ok();
        }
        let min = (usable.checked_sub(12)? * 32 / 255).checked_sub(23)?;
        let k = min + (payload - min) % usable.checked_sub(4)?;
        usize::try_from(if k <= max { k } else { min }).ok()
    }

    /// All cells, or `None` when any of them is malformed.
    pub fn all_cells(&self) -> Option<Vec<Cell<'a>>> {
        (0..self.cells).map(|i| self.cell(i)).collect()
    }

    /// Highest rowid of a table leaf.
    pub fn max_rowid(&self) -> Option<i64> {
        (self.kind == PageKind::TableLeaf).then(|| self.cell(self.cells.checked_sub(1)?)?.rowid).flatten()
    }
}

/// What an image can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// A well-formed b-tree page, or something that may be an overflow, freelist or pointer-map page.
    Plausible,
    /// Nothing SQLite writes under this page number.
    Malformed,
    /// Only zeroes.
    Zero,
}

/// Classifies an image. `pages` is an upper bound of the database size, against which page pointers are judged.
pub fn shape(image: &[u8], number: u32, usable: u32, pages: u32) -> Shape {
    if image.iter().all(|b| *b == 0) {
        return Shape::Zero;
    }
    if number == 1 && super::header::parse(image).is_err() {
        return Shape::Malformed;
    }
    if let Some(page) = Page::parse(image, number, usable) {
        let children_fit = |cell: &Cell<'_>| {
            cell.left.is_none_or(|p| (1..=pages).contains(&p)) && cell.overflow.is_none_or(|p| (1..=pages).contains(&p))
        };
        let right_fits = page.right().is_none_or(|p| (1..=pages).contains(&p));
        if right_fits && page.all_cells().is_some_and(|cells| cells.iter().all(children_fit)) {
            return Shape::Plausible;
        }
    }
    // An overflow page or a freelist trunk starts with the number of the next one; the rest is free-form.
    if number != 1 && be32(image, 0) <= pages {
        return Shape::Plausible;
    }
    // A pointer-map page is an array of (kind 1..=5, parent) entries, zero behind the last.
    let entry = |e: &[u8]| byte(e, 0) <= 5 && be32(e, 1) <= pages;
    if number != 1 && image.chunks_exact(5).all(entry) {
        return Shape::Plausible;
    }
    Shape::Malformed
}
