//! Pages of the log's generation before the current one, put to the proof, and what is done with those that fail.
//!
//! [`super::side`] says which images are the contents of their pages as far as the log alone can tell. The database is
//! asked as well: where such a page is intact there, it must be that very image. One that is not (the end of the
//! generation was cut off with the log) or none that is the same, and none is believed. Rows of images that are not
//! believed go to lost-and-found as `older-state`, where the page itself is gone.

use std::io;

use super::extract::{Rows, StrayRow};
use super::fields::split;
use super::map::{Kind, Map};
use super::sheet;
use super::source::Source;
use super::tree::Owners;
use crate::sqlite::page::PageKind;

/// Compares the donors with the pages they would replace.
pub fn prove(source: &mut Source<'_>, map: &Map) {
    let (mut page, mut donor) = (Vec::new(), Vec::new());
    let (mut same, mut other) = (0, 0);
    let numbers: Vec<u32> = source.donors().collect();
    for number in numbers {
        if matches!(map.kind(number), Kind::Tree(_))
            && source.read(number, &mut page)
            && source.donor(number, &mut donor)
            && sheet::read(&page, number, source.usable, None).is_some_and(|s| s.whole)
        {
            same += u32::from(page == donor);
            other += u32::from(page != donor);
        }
    }
    if same == 0 || other > 0 {
        source.distrust();
    }
}

/// Rows of older states of pages that are gone. Returns how many.
pub fn older(source: &mut Source<'_>, map: &Map, owners: &Owners, out: &mut dyn Rows) -> io::Result<u64> {
    let (mut bytes, mut fields) = (Vec::new(), Vec::new());
    let mut rows = 0;
    for number in source.older_pages() {
        let gone = owners.of(number) == 0 && !matches!(map.kind(number), Kind::Tree(_));
        if !gone || !source.older(number, &mut bytes) {
            continue;
        }
        let Some(sheet) = sheet::read(&bytes, number, source.usable, None) else { continue };
        if sheet.page.kind != PageKind::TableLeaf {
            continue;
        }
        for cell in sheet.cells().filter(|c| c.overflow.is_none()) {
            if split(cell.local, cell.payload_len, &mut fields) {
                let (payload, fields) = (cell.local, fields.as_slice());
                let (page, class, rowid) = (number, "older-state", cell.rowid);
                out.stray(&StrayRow { page, top: number, class, rowid, fields, payload })?;
                rows += 1;
            }
        }
    }
    Ok(rows)
}
