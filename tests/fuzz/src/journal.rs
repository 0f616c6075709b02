//! The rollback journal beside its database.

use pyvorin_recovery::sqlite::bytes::be32;
use pyvorin_recovery::sqlite::header;
use pyvorin_recovery::sqlite::rollback::{self, JournalEvidence};

use super::log::page_size;
use super::meter::Metered;

/// Bytes in front of the journal of an input: flags (1: make header and sums true), page size code, sector code.
pub const PREAMBLE: usize = 4;

/// Makes the header whole and the sums of the records true, so that what they cover is reached.
fn seal(head: &[u8], journal: &mut [u8], size: usize) {
    let sector = [512, 32, 4096].get(usize::from(head[2]) % 3).copied().unwrap_or(512);
    if journal.len() < 28 {
        return;
    }
    journal[..8].copy_from_slice(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
    journal[20..24].copy_from_slice(&u32::try_from(sector).unwrap_or(512).to_be_bytes());
    journal[24..28].copy_from_slice(&u32::try_from(size).unwrap_or(512).to_be_bytes());
    let nonce = be32(journal, 12);
    let mut at = sector;
    while at + size + 8 <= journal.len() {
        let image = &journal[at + 4..at + 4 + size];
        let sampled = (1..=size / 200).filter_map(|n| size.checked_sub(200 * n)).filter(|i| *i > 0);
        let sum = sampled.fold(nonce, |sum, i| sum.wrapping_add(u32::from(image[i])));
        journal[at + 4 + size..at + 8 + size].copy_from_slice(&sum.to_be_bytes());
        at += size + 8;
    }
}

/// A journal, as found or with its sums made true.
pub fn journal(data: &[u8]) {
    let Some((head, rest)) = data.split_at_checked(PREAMBLE) else { return };
    let (size, mut bytes) = (page_size(head[1]), rest.to_vec());
    if head[0] & 1 == 1 {
        seal(head, &mut bytes, size);
    }
    let hint = (head[0] & 2 == 0).then(|| u32::try_from(size).unwrap_or(512));
    let file = Metered::new(&bytes);
    let found = rollback::read(&file, hint).unwrap();
    // Every record is read once, where the header is gone a few of them twice; a header each sector at most.
    let bound = 4 * bytes.len() as u64 + (1 << 16);
    assert!(file.read() <= bound && file.reads() <= bytes.len() as u64 / 8 + 1024, "{} reads", file.reads());
    if data.len().is_multiple_of(16) {
        assert_eq!(found, rollback::read(&bytes, hint).unwrap());
    }
    let first = bytes.first().copied().unwrap_or(0);
    let JournalEvidence::Hot(facts) = &found else {
        assert!(first == 0, "a journal that does not begin with zero is hot: {found:?}");
        return;
    };
    assert!(first != 0);
    assert!(facts.page_size == 0 || header::valid_page_size(facts.page_size));
    let slot = u64::from(facts.page_size) + 8;
    assert!(u64::from(facts.played) * slot <= bytes.len() as u64);
    assert!(facts.header || facts.played == 0, "SQLite plays nothing back from a journal without its header");
    let mut before = 0;
    for (page, at) in &facts.images {
        assert!(*page > before, "each page once, in order");
        before = *page;
        // What is put back is where the journal says, whole, and of that page.
        assert!(at + u64::from(facts.page_size) <= bytes.len() as u64);
        assert_eq!(be32(&bytes, usize::try_from(at - 4).unwrap()), *page);
    }
}
