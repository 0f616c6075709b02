//! The rollback journal (file format 2, section 3): the pages of a database as they were before a transaction.
//!
//! ```text
//! header (28 bytes, padded to a sector)     record                      super-journal name, at the very end
//!  0 magic d9d505f920a163d7                  0 page number               page number of the lock-byte page
//!  8 records, or ffffffff: to the end        4 the page image            name, length, sum of its bytes, magic
//! 12 nonce                                   4 + N checksum
//! 16 database size in pages before
//! 20 sector size   24 page size
//! ```
//!
//! A journal whose first byte is not zero is *hot*: SQLite plays it back into the database before anything else. (A
//! finished transaction deletes it, empties it, or overwrites its header with zeroes.) It stops without a word at the
//! first record that does not hold, deletes the journal, and leaves a mixture. The checksum of a record is the nonce
//! plus every 200th byte of the image, so a record that holds may still be damaged, and records prove nothing about each
//! other: but each can be put back by itself, whatever stands before it. The number of records in a header is written
//! once they are synced, so a counted record that does not hold was damaged, and not merely never written.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::bytes::{be32, byte};
use super::foreign::PageOne;
use super::header::{self, valid_page_size};
use super::overlay::lock_byte_page;
use super::verdict::{Candidate, Completeness, Exactness, Finding, Level, Proof};
use super::{ReadAt, read_vec};
use crate::config::Rung;

const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// Records read at most; a journal with more is reported unreadable rather than exhausting memory.
const MAX_RECORDS: u64 = 4 << 20;

/// A journal as found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JournalEvidence {
    /// No such file.
    #[default]
    Absent,
    /// Empty, or its header is zeroed: the transaction ended.
    Cold,
    /// Reading failed; the reason.
    Unreadable(String),
    /// SQLite will play it back.
    Hot(Box<JournalFacts>),
}

/// A hot journal in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalFacts {
    /// True when the first header is whole; otherwise SQLite discards the journal and plays back nothing.
    pub header: bool,
    /// Page size in bytes.
    pub page_size: u32,
    /// Size of the database before the transaction, in pages; 0 when unknown.
    pub pages: u32,
    /// Records that the headers count.
    pub counted: u32,
    /// Records that SQLite would play back.
    pub played: u32,
    /// Counted records that do not hold: damaged, or cut off.
    pub damaged: u32,
    /// Pages that can be put back: number and offset of the image, each the first record of its page.
    pub images: Vec<(u32, u64)>,
    /// Page 1 as it was, where its record holds.
    pub original: Option<PageOne>,
    /// The super-journal of a transaction over several files.
    pub super_journal: Option<String>,
    /// Whether that file is still there; without it the transaction had ended.
    #[serde(default)]
    pub super_present: bool,
}

/// How to undo a transaction in a copy of the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// Page size in bytes.
    pub page_size: u32,
    /// Size of the database in pages, before the transaction.
    pub pages: u32,
    /// Pages and the offsets of their images in the journal.
    pub images: Vec<(u32, u64)>,
}

/// The sum of an image without the nonce.
fn summed(image: &[u8]) -> u32 {
    let mut sum = 0_u32;
    let mut at = image.len().checked_sub(200);
    while let Some(i) = at.filter(|i| *i > 0) {
        sum = sum.wrapping_add(u32::from(byte(image, i)));
        at = i.checked_sub(200);
    }
    sum
}

struct Header {
    records: u32,
    nonce: u32,
    pages: u32,
    sector: u64,
    page_size: u32,
}

fn parse_header(bytes: &[u8], db_page_size: Option<u32>) -> Option<Header> {
    if bytes.get(..8) != Some(MAGIC.as_slice()) {
        return None;
    }
    let stated = be32(bytes, 24);
    let page_size = if stated == 0 { db_page_size? } else { stated };
    let sector = be32(bytes, 20);
    let usable = valid_page_size(page_size) && sector.is_power_of_two() && (32..=65536).contains(&sector);
    usable.then(|| Header {
        records: be32(bytes, 8),
        nonce: be32(bytes, 12),
        pages: be32(bytes, 16),
        sector: u64::from(sector),
        page_size,
    })
}

/// Reads a journal. `db_page_size` is the database header's.
pub fn read(file: &dyn ReadAt, db_page_size: Option<u32>) -> io::Result<JournalEvidence> {
    let head = read_vec(file, 0, 28)?;
    if byte(&head, 0) == 0 {
        return Ok(JournalEvidence::Cold);
    }
    let first = parse_header(&head, db_page_size);
    let mut facts = JournalFacts { header: first.is_some(), ..JournalFacts::default() };
    let mut images: BTreeMap<u32, u64> = BTreeMap::new();
    let first = match first {
        Some(header) => header,
        None => match guessed(file, db_page_size)? {
            Some(header) => header,
            None => return Ok(JournalEvidence::Hot(Box::new(facts))),
        },
    };
    let name_at = super_journal(file, &mut facts)?.unwrap_or(file.size());
    facts.page_size = first.page_size;
    facts.pages = first.pages;
    let slot = u64::from(first.page_size) + 8;
    if name_at / slot > MAX_RECORDS {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more records than can be held in memory"));
    }
    let (mut at, mut header, mut playing) = (first.sector, first, facts.header);
    loop {
        let whole = name_at.saturating_sub(at) / slot;
        let to_the_end = header.records == u32::MAX;
        let counted = if to_the_end { whole } else { u64::from(header.records) };
        facts.counted = facts.counted.saturating_add(u32::try_from(counted).unwrap_or(u32::MAX));
        for i in 0..counted.min(whole) {
            let place = at + i * slot;
            let record = read_vec(file, place, usize::try_from(slot).unwrap_or(usize::MAX))?;
            let (page, image) = (be32(&record, 0), record.get(4..record.len().saturating_sub(4)).unwrap_or(&[]));
            let stored = be32(&record, record.len().saturating_sub(4));
            let holds = page != 0
                && page != lock_byte_page(header.page_size)
                && header.nonce.wrapping_add(summed(image)) == stored
                && record.len() as u64 == slot;
            if !holds {
                // Up to the end of the file the last records may never have been written.
                facts.damaged += 1;
                playing = false;
                continue;
            }
            facts.played += u32::from(playing);
            if facts.pages == 0 || page <= facts.pages {
                images.entry(page).or_insert(place + 4);
            }
            if page == 1 && facts.original.is_none() {
                facts.original = header::parse(image).ok().as_ref().map(PageOne::from);
            }
        }
        let missing = counted.saturating_sub(whole);
        facts.damaged = facts.damaged.saturating_add(u32::try_from(missing).unwrap_or(u32::MAX));
        playing &= missing == 0;
        at = (at + counted.min(whole) * slot).next_multiple_of(header.sector);
        // Every header after the first repeats its geometry; the nonce is new.
        match parse_header(&read_vec(file, at, 28)?, Some(header.page_size)) {
            Some(next) if at < name_at && next.page_size == header.page_size => {
                at += next.sector;
                header = next;
            }
            _ => break,
        }
    }
    if facts.pages == 0 {
        facts.pages = facts.original.as_ref().filter(|p| p.valid_for == p.change_counter).map_or(0, |p| p.pages);
    }
    facts.images = images.into_iter().filter(|(p, _)| *p <= facts.pages).collect();
    Ok(JournalEvidence::Hot(Box::new(facts)))
}

/// A header that is gone, from its records: behind one sector, with the database's page size, the difference between
/// stored and computed sums is the nonce, the same in every record.
fn guessed(file: &dyn ReadAt, db_page_size: Option<u32>) -> io::Result<Option<Header>> {
    let Some(page_size) = db_page_size else { return Ok(None) };
    let slot = u64::from(page_size) + 8;
    for sector in [512_u64, 4096] {
        let mut nonces: BTreeMap<u32, u32> = BTreeMap::new();
        for i in 0..(file.size().saturating_sub(sector) / slot).min(64) {
            let record = read_vec(file, sector + i * slot, usize::try_from(slot).unwrap_or(usize::MAX))?;
            let image = record.get(4..record.len().saturating_sub(4)).unwrap_or(&[]);
            let nonce = be32(&record, record.len().saturating_sub(4)).wrapping_sub(summed(image));
            *nonces.entry(nonce).or_default() += u32::from(be32(&record, 0) != 0);
        }
        if let Some((nonce, votes)) = nonces.into_iter().max_by_key(|(_, votes)| *votes).filter(|(_, v)| *v > 1) {
            let _ = votes;
            return Ok(Some(Header { records: u32::MAX, nonce, pages: 0, sector, page_size }));
        }
    }
    Ok(None)
}

/// The name of a super-journal at the end; returns where it begins.
fn super_journal(file: &dyn ReadAt, facts: &mut JournalFacts) -> io::Result<Option<u64>> {
    let Some(end) = file.size().checked_sub(16) else { return Ok(None) };
    let tail = read_vec(file, end, 16)?;
    let len = u64::from(be32(&tail, 0));
    if tail.get(8..) != Some(MAGIC.as_slice()) || !(1..=4096).contains(&len) || len + 4 > end {
        return Ok(None);
    }
    let name = read_vec(file, end - len, usize::try_from(len).unwrap_or(0))?;
    // The engine adds characters, whose sign is the compiler's.
    let signed = name.iter().fold(0_u32, |s, b| s.wrapping_add_signed(i32::from(b.cast_signed())));
    let unsigned = name.iter().fold(0_u32, |s, b| s.wrapping_add(u32::from(*b)));
    if ![signed, unsigned].contains(&be32(&tail, 4)) || !is_super_name(&name) {
        return Ok(None);
    }
    facts.super_journal = Some(String::from_utf8_lossy(&name).into_owned());
    Ok(Some(end - len - 4))
}

/// The engine names them "-mj", six digits, a 9 and two more; it plays back a journal that ends in any other name.
fn is_super_name(name: &[u8]) -> bool {
    let tail = name.split_at_checked(name.len().saturating_sub(12)).map_or(&[][..], |(_, tail)| tail);
    let Some(digits) = tail.strip_prefix(b"-mj") else { return false };
    digits.get(6) == Some(&b'9') && digits.iter().all(u8::is_ascii_hexdigit) && !name.contains(&0)
}

/// What is to be done about a hot journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalVerdict {
    /// Findings.
    pub findings: Vec<Finding>,
    /// Ways to repair, best first; none when SQLite does it right by itself, or nothing may be done.
    pub candidates: Vec<Candidate>,
    /// True when SQLite must not open the files as they are.
    pub needs_repair: bool,
}

/// Why a journal cannot be of the database with this page 1; `None` when nothing speaks against it. A transaction
/// changes page 1 last, by one on the change counter, so the database is at the journal's counter or one ahead.
pub fn foreign(facts: &JournalFacts, db: &PageOne, db_page_size: u32) -> Option<String> {
    if facts.header && facts.page_size != db_page_size {
        return Some(format!("its pages have {} bytes, the database's {db_page_size}", facts.page_size));
    }
    if db.valid_for != db.change_counter {
        return None;
    }
    match &facts.original {
        Some(original) => {
            let ahead = db.change_counter.wrapping_sub(original.change_counter);
            let grown = original.valid_for == original.change_counter && facts.header && facts.pages != original.pages;
            if ahead > 1 {
                return Some(format!(
                    "it was begun at change counter {}, the database stands at {}",
                    original.change_counter, db.change_counter
                ));
            }
            // At the same counter page 1 has not been written yet (the engine holds it until the end).
            if ahead == 0 && facts.header && facts.pages != db.pages {
                return Some(format!("it was begun on {} pages, the database counts {}", facts.pages, db.pages));
            }
            grown.then(|| format!("it was begun on {} pages, its page 1 counts {}", facts.pages, original.pages))
        }
        // Page 1 was not touched yet: the database is as large as it says.
        None if facts.header && facts.damaged == 0 && facts.pages != db.pages => {
            Some(format!("it was begun on {} pages, the database counts {}", facts.pages, db.pages))
        }
        None => None,
    }
}

/// Judges a hot journal. `sound_alone` and `sound_after`: whether a full check found the database sound without playing
/// it back, and with every record that holds put back.
pub fn judge(
    facts: &JournalFacts,
    db: Option<&PageOne>,
    db_page_size: u32,
    sound_alone: Option<bool>,
    sound_after: Option<bool>,
) -> JournalVerdict {
    let mut v = JournalVerdict::default();
    let find = |level, code: &str, text: String| Finding::new(level, code, text);
    let candidate = |completeness, rollback, proof| Candidate {
        rung: Rung::Replay,
        base: super::overlay::Fold::nothing(db_page_size),
        rollback,
        extras: None,
        completeness,
        frames_lost: 0,
        in_doubt: true,
        proof,
    };
    let breaks = sound_alone == Some(true) && sound_after == Some(false) && facts.header && facts.damaged == 0;
    let reason = db.and_then(|db| foreign(facts, db, db_page_size));
    let reason =
        reason.or_else(|| breaks.then(|| "the database is sound without it, and damaged after it".to_string()));
    if let Some(reason) = reason {
        let text = format!("the rollback journal is not this database's: {reason}; playing it back would corrupt it");
        v.findings.push(find(Level::Error, "journal-foreign", text));
        v.needs_repair = true;
        if sound_alone == Some(true) {
            let proof = Proof { why: vec!["log-set-aside".into()], ..Proof::default() };
            v.candidates.push(candidate(Completeness::Unknown, None, proof));
        }
        return v;
    }
    if facts.super_journal.is_some() && !facts.super_present {
        let text = "the rollback journal is of a transaction over several files that has ended; SQLite will delete it";
        v.findings.push(find(Level::Info, "journal-ended", text.to_string()));
        return v;
    }
    if facts.header && facts.damaged == 0 {
        let text = "a rollback journal is waiting; SQLite will roll it back when the agent opens the database";
        v.findings.push(find(Level::Info, "hot-journal", text.to_string()));
        return v;
    }
    v.needs_repair = true;
    let back = facts.images.len();
    let text = if facts.header {
        format!(
            "{} of {} records of the rollback journal are damaged: SQLite would put back {} pages, stop and delete it; \
             {back} can be put back",
            facts.damaged, facts.counted, facts.played
        )
    } else {
        format!("the header of the rollback journal is damaged: SQLite would put back nothing; {back} pages can be")
    };
    v.findings.push(find(Level::Error, "journal-damaged", text));
    if back > 0 && facts.pages > 0 {
        let rollback = Rollback { page_size: facts.page_size, pages: facts.pages, images: facts.images.clone() };
        let proof = Proof {
            exactness: Exactness::Plausible,
            why: vec!["records-put-back-one-by-one".into()],
            ..Proof::default()
        };
        v.candidates.push(candidate(Completeness::Lossy, Some(rollback), proof));
    }
    v
}
