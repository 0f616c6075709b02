//! Page size, reserved bytes and text encoding, with or without a header.
//!
//! A b-tree page accounts for every byte up to its usable end ([`super::sheet`]). Cut the file wrongly and no page does;
//! so a handful of pages that do are proof of a page size, and the bytes behind their end are the reserved ones. A
//! header that says otherwise than the pages is not believed.

use std::io;

use super::fields::{Field, split};
use super::sheet;
use crate::sqlite::bytes::be32;
use crate::sqlite::header::{self, Header, LEN};
use crate::sqlite::page::{Page, PageKind};
use crate::sqlite::{ReadAt, read_vec};

/// Pages looked at for each page size tried.
const SAMPLES: u64 = 192;
/// Table leaves whose text is looked at for the encoding.
const TEXTS: usize = 64;

/// How the file is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Page size in bytes.
    pub page_size: u32,
    /// Bytes reserved at the end of each page.
    pub reserved: u8,
    /// Text encoding: 1 UTF-8, 2 UTF-16LE, 3 UTF-16BE; 0 when nothing tells it.
    pub encoding: u32,
    /// True when the header is well-formed and the pages agree with it.
    pub header_believed: bool,
}

/// Finds the geometry. `first` is page 1 as the newest image has it (the log's, or the file's); `hint` the page size of
/// a log or of a saved record.
pub fn detect(file: &dyn ReadAt, first: &[u8], hint: Option<u32>) -> io::Result<(Geometry, Option<Header>)> {
    let parsed = header::parse(first).ok();
    if let Some(h) = &parsed {
        let tried = trial(file, h.page_size, h.reserved)?;
        let small = file.size() < 4 * u64::from(h.page_size) || hint == Some(h.page_size);
        if tried.exact > 0 || (small && tried.other == 0) {
            let encoding = if h.encoding == 0 { tried.encoding() } else { h.encoding };
            let geometry = Geometry { page_size: h.page_size, reserved: h.reserved, encoding, header_believed: true };
            return Ok((geometry, parsed));
        }
    }
    // Of a header that is not whole some fields may still be right; the pages decide.
    let mut best: Option<(Trial, u32, u8)> = None;
    for bits in 9..=16 {
        let page_size = 1_u32 << bits;
        let mut one = trial(file, page_size, 0)?;
        let mut reserved = 0;
        // With the wrong usable size some pages of rows that spill come out right by accident: the more decide.
        if let Some(r) = one.reserved(page_size) {
            let other = trial(file, page_size, r)?;
            if other.exact > one.exact {
                (one, reserved) = (other, r);
            }
        }
        if best.as_ref().is_none_or(|(b, ..)| one.exact > b.exact) {
            best = Some((one, page_size, reserved));
        }
    }
    let fallback = hint.filter(|s| header::valid_page_size(*s)).unwrap_or(4096);
    let (page_size, reserved, encoding) = match best {
        Some((t, size, reserved)) if t.exact > 0 => (size, reserved, t.encoding()),
        _ => (fallback, 0, 0),
    };
    let encoding = match be32(first, 56) {
        e @ 1..=3 if encoding == 0 && first.len() >= LEN => e,
        _ => encoding,
    };
    Ok((Geometry { page_size, reserved, encoding, header_believed: false }, parsed))
}

#[derive(Default)]
struct Trial {
    /// Pages that account for every byte.
    exact: u32,
    /// Pages that would with other reserved bytes.
    other: u32,
    ends: std::collections::BTreeMap<usize, u32>,
    texts: [u32; 3],
    leaves: usize,
}

impl Trial {
    fn reserved(&self, page_size: u32) -> Option<u8> {
        let (end, votes) = self.ends.iter().max_by_key(|(_, votes)| **votes)?;
        let reserved = usize::try_from(page_size).ok()?.checked_sub(*end)?;
        u8::try_from(reserved).ok().filter(|r| *r > 0 && *votes >= 2)
    }

    fn encoding(&self) -> u32 {
        let most = self.texts.iter().max().copied().unwrap_or(0);
        let at = self.texts.iter().position(|n| *n == most && most > 0);
        at.map_or(0, |at| u32::try_from(at + 1).unwrap_or(0))
    }

    fn read_texts(&mut self, page: &Page<'_>) {
        self.leaves += 1;
        let mut fields: Vec<Field> = Vec::new();
        for cell in (0..page.cells).filter_map(|i| page.cell(i)) {
            if cell.overflow.is_some() || !split(cell.local, cell.payload_len, &mut fields) {
                continue;
            }
            for f in fields.iter().filter(|f| f.is_text() && f.len >= 2) {
                let bytes = cell.local.get(f.at..f.at + f.len).unwrap_or(&[]);
                let zeroes = |odd: usize| bytes.iter().skip(odd).step_by(2).filter(|b| **b == 0).count();
                let half = f.len / 2;
                match (zeroes(0), zeroes(1)) {
                    // Latin text in UTF-16 has a zero in every other byte.
                    (even, odd) if f.len % 2 == 0 && odd * 2 > half && even * 2 < half => self.texts[1] += 1,
                    (even, odd) if f.len % 2 == 0 && even * 2 > half && odd * 2 < half => self.texts[2] += 1,
                    (0, 0) if std::str::from_utf8(bytes).is_ok() => self.texts[0] += 1,
                    _ => {}
                }
            }
        }
    }
}

fn trial(file: &dyn ReadAt, page_size: u32, reserved: u8) -> io::Result<Trial> {
    let mut result = Trial::default();
    let pages = file.size() / u64::from(page_size);
    // Odd, so that a page size tried in vain does not always meet the same half of the real pages.
    let step = (pages / SAMPLES).max(1) | 1;
    let len = usize::try_from(page_size).unwrap_or(0);
    let mut number = 1;
    while number <= pages {
        // A sector that cannot be read tells nothing about the page size.
        let bytes = read_vec(file, (number - 1) * u64::from(page_size), len).unwrap_or_default();
        let n = u32::try_from(number).unwrap_or(u32::MAX);
        if let Some(page) = Page::parse(&bytes, n, page_size - u32::from(reserved))
            && let Some(end) = sheet::content_end(&bytes, &page)
        {
            if end + usize::from(reserved) == len {
                result.exact += 1;
                if page.kind == PageKind::TableLeaf && result.leaves < TEXTS {
                    result.read_texts(&page);
                }
            } else if end < len {
                result.other += 1;
                *result.ends.entry(end).or_default() += 1;
            }
        }
        number += step;
    }
    Ok(result)
}
