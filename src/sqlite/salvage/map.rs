//! The first pass: every page once, in order, and what kind of page it is. Thirty-two bytes for each table leaf and one
//! for every other page is all that is kept.

use super::catalog::looks_like_schema;
use super::fields::Field;
use super::sheet::{self, Sheet};
use super::source::Source;
use crate::sqlite::bytes::{be32, byte};
use crate::sqlite::page::PageKind;

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A b-tree page.
    Tree(PageKind),
    /// Only zeroes.
    Zero,
    /// Something else: overflow, freelist, pointer map, or noise.
    Other,
    /// The storage does not give it.
    Unreadable,
}

/// A table leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Page number.
    pub page: u32,
    /// True when the page accounts for every byte.
    pub whole: bool,
    /// Lowest rowid; greater than `high` on a leaf without rows.
    pub low: i64,
    /// Highest rowid.
    pub high: i64,
    /// The rowid in the middle: where the leaf stands among others even if one of its ends was changed.
    pub mid: i64,
}

/// The file by pages.
#[derive(Debug, Default)]
pub struct Map {
    kinds: Vec<u8>,
    leaves: Vec<Leaf>,
    children: Vec<u8>,
    /// Table leaves whose first row is a schema row.
    pub schema_leaves: Vec<u32>,
    /// Pages that look like trunks of a freelist.
    pub trunks: Vec<u32>,
    /// B-tree pages that do not account for every byte.
    pub damaged: u32,
}

const ZERO: u8 = 1;
const OTHER: u8 = 0;
const UNREADABLE: u8 = 255;
/// Schema leaves remembered: enough for a schema of tens of thousands of objects.
const MAX_SCHEMA_LEAVES: usize = 4096;

impl Map {
    /// Reads every page. `progress` is told the pages done.
    pub fn read(source: &mut Source<'_>, progress: &mut dyn FnMut(u32)) -> Self {
        let count = usize::try_from(source.pages).unwrap_or(0);
        let mut map = Self { kinds: vec![OTHER; count + 1], children: vec![0; count / 8 + 1], ..Self::default() };
        let mut bytes = Vec::new();
        let mut fields = Vec::new();
        for number in 1..=source.pages {
            if number % 4096 == 0 {
                progress(number);
            }
            let code = if source.read(number, &mut bytes) {
                map.look(number, &bytes, source, &mut fields)
            } else {
                UNREADABLE
            };
            map.set(number, code);
        }
        map
    }

    fn set(&mut self, number: u32, code: u8) {
        if let Some(kind) = self.kinds.get_mut(usize::try_from(number).unwrap_or(usize::MAX)) {
            *kind = code;
        }
    }

    /// Takes another image of a page into the map.
    pub fn again(&mut self, number: u32, bytes: &[u8], source: &Source<'_>) {
        let code = self.look(number, bytes, source, &mut Vec::new());
        self.set(number, code);
        self.leaves.sort_by_key(|l| l.page);
    }

    fn look(&mut self, number: u32, bytes: &[u8], source: &Source<'_>, fields: &mut Vec<Field>) -> u8 {
        let header = if number == 1 { 100 } else { 0 };
        if !matches!(byte(bytes, header), 2 | 5 | 10 | 13) {
            if bytes.iter().all(|b| *b == 0) {
                return ZERO;
            }
            if trunk(bytes, source).is_some() {
                self.trunks.push(number);
            }
            return OTHER;
        }
        let Some(sheet) = sheet::read(bytes, number, source.usable, None) else { return OTHER };
        if sheet.good.is_empty() && sheet.page.cells > 0 {
            return OTHER;
        }
        self.damaged += u32::from(!sheet.whole);
        match sheet.page.kind {
            PageKind::TableLeaf => {
                if let Some(first) = sheet.cells().next()
                    && self.schema_leaves.len() < MAX_SCHEMA_LEAVES
                    && looks_like_schema(&first, fields)
                {
                    self.schema_leaves.push(number);
                }
                self.leaves.push(leaf(number, &sheet));
                13
            }
            PageKind::IndexLeaf => 10,
            kind => {
                for child in sheet.cells().filter_map(|c| c.left).chain(sheet.page.right()) {
                    if let Some(b) = self.children.get_mut(usize::try_from(child / 8).unwrap_or(usize::MAX)) {
                        *b |= 1 << (child % 8);
                    }
                }
                if kind == PageKind::TableInterior { 5 } else { 2 }
            }
        }
    }

    /// What page `number` is.
    pub fn kind(&self, number: u32) -> Kind {
        match self.kinds.get(usize::try_from(number).unwrap_or(usize::MAX)) {
            Some(2) => Kind::Tree(PageKind::IndexInterior),
            Some(5) => Kind::Tree(PageKind::TableInterior),
            Some(10) => Kind::Tree(PageKind::IndexLeaf),
            Some(13) => Kind::Tree(PageKind::TableLeaf),
            Some(1) => Kind::Zero,
            Some(0) => Kind::Other,
            _ => Kind::Unreadable,
        }
    }

    /// Facts of a table leaf.
    pub fn leaf(&self, number: u32) -> Option<&Leaf> {
        let at = self.leaves.binary_search_by_key(&number, |l| l.page).ok()?;
        self.leaves.get(at)
    }

    /// A leaf that was recognised later, by its parent.
    pub fn add_leaf(&mut self, number: u32, sheet: &Sheet<'_>) -> Leaf {
        let one = leaf(number, sheet);
        match self.leaves.binary_search_by_key(&number, |l| l.page) {
            Ok(at) => {
                if let Some(old) = self.leaves.get_mut(at) {
                    *old = one;
                }
            }
            Err(at) => self.leaves.insert(at, one),
        }
        self.damaged += 1;
        self.set(number, 13);
        one
    }

    /// True when some interior page points to it.
    pub fn has_parent(&self, number: u32) -> bool {
        self.children
            .get(usize::try_from(number / 8).unwrap_or(usize::MAX))
            .is_some_and(|b| b & (1 << (number % 8)) != 0)
    }

    /// Pages of a kind, ascending.
    pub fn pages_of(&self, kind: PageKind) -> Vec<u32> {
        let count = u32::try_from(self.kinds.len()).unwrap_or(u32::MAX);
        (1..count).filter(|n| self.kind(*n) == Kind::Tree(kind)).collect()
    }

    /// How many pages are of a kind that no reader of rows can use: zeroes where none belong, and unreadable ones.
    pub fn lost_pages(&self) -> u32 {
        let bad = self.kinds.iter().skip(1).filter(|k| matches!(**k, ZERO | UNREADABLE)).count();
        u32::try_from(bad).unwrap_or(u32::MAX)
    }
}

fn leaf(page: u32, sheet: &Sheet<'_>) -> Leaf {
    let id = |i: Option<&usize>| i.and_then(|i| sheet.page.cell(*i)).and_then(|c| c.rowid);
    let (low, high) = (id(sheet.good.first()), id(sheet.good.last()));
    let mid = id(sheet.good.get(sheet.good.len() / 2)).unwrap_or(i64::MAX);
    Leaf { page, whole: sheet.whole, low: low.unwrap_or(i64::MAX), high: high.unwrap_or(i64::MIN), mid }
}

/// The pages that a freelist trunk lists: the next trunk, then each leaf (file format 2, section 1.5). `None` when this
/// can be none.
pub fn trunk(bytes: &[u8], source: &Source<'_>) -> Option<(u32, Vec<u32>)> {
    let next = be32(bytes, 0);
    let count = be32(bytes, 4);
    if next > source.pages || count > (source.usable / 4).checked_sub(2)? || (count == 0 && next == 0) {
        return None;
    }
    let count = usize::try_from(count).ok()?;
    let leaves: Vec<u32> = (0..count).map(|i| be32(bytes, 8 + 4 * i)).collect();
    let mut sorted = leaves.clone();
    sorted.sort_unstable();
    let distinct = sorted.windows(2).all(|w| w.first() != w.last());
    let inside = leaves.iter().all(|p| (2..=source.pages).contains(p));
    (distinct && inside).then_some((next, leaves))
}
