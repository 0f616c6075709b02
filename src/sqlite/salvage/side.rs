//! What stands beside the database: the images of its log or of its rollback journal, and the leftovers of the log.
//!
//! A hot rollback journal holds the pages as they were before the transaction that never ended (file format 2, section
//! 3): SQLite would write them back, so they win over the file. Of a log those frames win that the judge of logs
//! ([`super::super::judge`]) calls the best fold.
//!
//! The generation before the current one is a donor of pages: a log is only begun anew when all of it was copied into the
//! database, so its last image of a page that the current one does not touch is that page. That is a proof only where
//! nothing of either generation is missing: the current one whole up to its last commit with a leftover directly behind it,
//! the leftover one unbroken chain to its last commit. It may still have been cut (`journal_size_limit`), which
//! [`super::donors`] looks into. Images without that proof are *older states*: shown, never mixed with live rows.

use std::io;

use super::source::Images;
use crate::sqlite::bytes::be32;
use crate::sqlite::header::valid_page_size;
use crate::sqlite::judge::{DbSize, WalState, judge};
use crate::sqlite::observe::{self, ShmState, WalEvidence};
use crate::sqlite::overlay::Fold;
use crate::sqlite::wal::{self, WalScan};
use crate::sqlite::{ReadAt, header, read_vec};

const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// Headers of a journal followed at most: one per sync of a huge transaction.
const MAX_SEGMENTS: u32 = 1 << 20;

/// Images to lay over the database.
#[derive(Clone, Debug, Default)]
pub struct Laid {
    /// Newest image of each page.
    pub images: Images,
    /// Images of the generation before, proved to be the contents of their pages as far as the log can tell.
    pub donors: Images,
    /// Its images without that proof.
    pub older: Images,
    /// Size of the database in pages; 0: as the file has it.
    pub pages: u32,
    /// Page size of the side file, 0 when there is none.
    pub page_size: u32,
}

/// The images of a log. `fold` is what the plan chose; without it the judge chooses.
pub fn log(
    log: &dyn ReadAt,
    db: Option<&dyn ReadAt>,
    shm: Option<&dyn ReadAt>,
    fold: Option<&Fold>,
) -> io::Result<Laid> {
    let head = match db {
        Some(db) => read_vec(db, 0, header::LEN)?,
        None => Vec::new(),
    };
    let known = header::parse(&head).ok();
    let page_size = known.as_ref().map(|h| h.page_size);
    let scan = wal::scan(log, page_size)?;
    let chosen = match fold {
        Some(fold) => fold.clone(),
        None => choose(log, db, shm, known.as_ref())?,
    };
    let mut laid = Laid { page_size: scan.page_size, ..Laid::default() };
    if chosen.upto > 0 && chosen.page_size == scan.page_size {
        laid.pages = chosen.pages;
        laid.images = chosen.images(&scan).into_iter().map(|(p, n)| (p, scan.image_offset(n))).collect();
        // Of a log that is not this database's nothing is known.
        leftover(&scan, &chosen, &mut laid);
    }
    Ok(laid)
}

fn choose(
    log: &dyn ReadAt,
    db: Option<&dyn ReadAt>,
    shm: Option<&dyn ReadAt>,
    header: Option<&header::Header>,
) -> io::Result<Fold> {
    let shm = shm.map_or(ShmState::Absent, |f| observe::shm(f).unwrap_or(ShmState::Invalid));
    let hint = if let ShmState::Valid(hint) = &shm { Some(hint) } else { None };
    let page_size = header.map(|h| h.page_size);
    let (evidence, _) = observe::wal(log, db, page_size, header.map_or(0, |h| h.reserved), hint)?;
    let WalEvidence::Present(facts) = &evidence else { return Ok(Fold::nothing(page_size.unwrap_or(4096))) };
    let pages = db.map_or(0, |d| d.size() / u64::from(page_size.unwrap_or(facts.page_size).max(1)));
    let size = DbSize {
        present: db.is_some_and(|d| d.size() > 0),
        pages: u32::try_from(pages).unwrap_or(u32::MAX),
        page_size,
        page_one: header.map(Into::into),
        ..DbSize::default()
    };
    let verdict = judge(&evidence, &shm, size);
    if let Some(best) = verdict.candidates.first() {
        return Ok(best.base.clone());
    }
    if !matches!(verdict.state, WalState::Sound | WalState::TornTail) {
        return Ok(Fold::nothing(facts.page_size));
    }
    Ok(facts.fold())
}

/// The last verified image of each page in the generation before the current one, where the current one has none.
fn leftover(scan: &WalScan, chosen: &Fold, laid: &mut Laid) {
    let Ok(header) = &scan.header else { return };
    let end = scan.prefix();
    let whole = chosen.mends.is_empty()
        && chosen.upto == scan.last_commit(end).0
        && scan.tail(end, header.salt) == wal::LogTail::Clean;
    let of_before = |n: &u32| scan.frame(*n).filter(|f| f.salt[0] == header.salt[0].wrapping_sub(1));
    let Some(first) = (end + 1..=scan.len()).find(|n| of_before(n).is_some()) else { return };
    let salt = scan.frame(first).map(|f| f.salt);
    let run = (first..=scan.len()).take_while(|n| scan.frame(*n).map(|f| f.salt) == salt).last().unwrap_or(first);
    // What stands behind the last commit was never in the database.
    let (last, _) = scan.last_commit(run);
    let chained = (first + 1..=last).all(|n| scan.frame(n).is_some_and(|f| f.linked));
    let mut found = Images::new();
    // The frame that the first one continues is overwritten, so that nothing verifies the first.
    for number in first + 1..=last {
        if let Some(frame) = scan.frame(number).filter(|f| f.linked && f.page != 0)
            && !laid.images.contains_key(&frame.page)
        {
            found.insert(frame.page, scan.image_offset(number));
        }
    }
    if whole && chained && first == end + 1 {
        laid.donors = found;
    } else {
        laid.older = found;
    }
}

/// The images of a hot rollback journal. The first image of a page is the oldest and wins; a record whose checksum is
/// wrong ends the journal, as it does for SQLite.
pub fn journal(file: &dyn ReadAt) -> io::Result<Laid> {
    let mut laid = Laid::default();
    let mut at = 0_u64;
    for segment in 0..MAX_SEGMENTS {
        let head = read_vec(file, at, 28)?;
        if head.get(..8) != Some(JOURNAL_MAGIC.as_slice()) {
            break;
        }
        let (count, nonce) = (be32(&head, 8), be32(&head, 12));
        if segment == 0 {
            laid.pages = be32(&head, 16);
            laid.page_size = be32(&head, 24);
        }
        let sector = u64::from(be32(&head, 20)).clamp(28, 65_536);
        if !valid_page_size(laid.page_size) {
            return Ok(Laid::default());
        }
        let record = u64::from(laid.page_size) + 8;
        let room = file.size().saturating_sub(at + sector) / record;
        // All ones: SQLite never came to write the number; as many as fit.
        let count = if count == u32::MAX { room } else { u64::from(count).min(room) };
        at += sector;
        for _ in 0..count {
            let bytes = read_vec(file, at, usize::try_from(record).unwrap_or(0))?;
            let page = be32(&bytes, 0);
            let image = bytes.get(4..bytes.len().saturating_sub(4)).unwrap_or(&[]);
            if page == 0 || sum(nonce, image) != be32(&bytes, bytes.len().saturating_sub(4)) {
                return Ok(laid);
            }
            laid.images.entry(page).or_insert(at + 4);
            at += record;
        }
        // The next header stands at the next sector.
        at = at.div_ceil(sector) * sector;
    }
    Ok(laid)
}

/// Checksum of a journal record: the nonce and every 200th byte from the end.
fn sum(nonce: u32, image: &[u8]) -> u32 {
    let mut at = image.len().saturating_sub(200);
    let mut sum = nonce;
    while at > 0 {
        sum = sum.wrapping_add(u32::from(image.get(at).copied().unwrap_or(0)));
        at = at.saturating_sub(200);
    }
    sum
}
