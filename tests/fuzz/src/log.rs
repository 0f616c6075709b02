//! The write-ahead log beside its database and its index: scan, observe, judge.

use pyvorin_recovery::sqlite::bytes::{be32, byte};
use pyvorin_recovery::sqlite::check::{self, Scope};
use pyvorin_recovery::sqlite::header;
use pyvorin_recovery::sqlite::judge::{Completeness, DbSize, LogVerdict, WalState, judge};
use pyvorin_recovery::sqlite::observe::{self, ShmState, WalEvidence};
use pyvorin_recovery::sqlite::overlay::Overlay;
use pyvorin_recovery::sqlite::wal;

use super::meter::Metered;

// In `tests/fuzz_short.rs` it is there a second time, as part of `support`.
#[allow(dead_code, clippy::duplicate_mod)]
#[path = "../../support/wal.rs"]
mod independent;

/// Bytes in front of the two files of an input, see [`Input`].
pub const PREAMBLE: usize = 16;

/// Mutation alone never gets past a checksum. So an input says, in front of the bytes of both files, whether the chain
/// of sums is to be made true first, which injuries then follow, and what index stands beside.
///
/// | byte | meaning |
/// |---|---|
/// | 0 | bits: 1 make header and chain true, 2 big-endian sums, 4 an index, 8 of these salts, 16 no database file |
/// | 1 | page size: 512, 1024 or 4096 |
/// | 2 | pages of the database file |
/// | 3..6, 6..9 | frame, kind and argument of an injury after the chain was made true |
/// | 9, 10, 11 | index: frames committed, frames copied back, whose sum it names |
pub struct Input {
    /// Database file, `None` where there is none.
    pub db: Option<Vec<u8>>,
    /// Log.
    pub wal: Vec<u8>,
    /// Index.
    pub shm: Option<Vec<u8>>,
}

/// The page size that a code stands for.
pub fn page_size(code: u8) -> usize {
    [512, 1024, 4096].get(usize::from(code) % 3).copied().unwrap_or(512)
}

impl Input {
    /// Reads an input; `None` when it is shorter than its preamble.
    pub fn read(data: &[u8]) -> Option<Self> {
        let (head, rest) = data.split_at_checked(PREAMBLE)?;
        let flags = byte(head, 0);
        let size = page_size(byte(head, 1));
        let (db, log) = rest.split_at(rest.len().min(usize::from(byte(head, 2) % 48) * size));
        let mut log = log.to_vec();
        if flags & 1 == 1 && log.len() >= 32 {
            log[4..8].copy_from_slice(&3_007_000_u32.to_be_bytes());
            log[8..12].copy_from_slice(&u32::try_from(size).unwrap_or(0).to_be_bytes());
            let slots = (log.len() - 32) / (24 + size);
            let salts: [u8; 8] = log[16..24].try_into().ok()?;
            for slot in 0..slots {
                let at = 32 + slot * (24 + size);
                // Salts of the input are kept where they say "older", so that generations stay apart.
                if log[at + 8] & 0x80 == 0 {
                    log[at + 8..at + 16].copy_from_slice(&salts);
                }
            }
            independent::rechecksum(&mut log, flags & 2 != 0, slots);
            for injury in [&head[3..6], &head[6..9]] {
                injure(&mut log, size, injury);
            }
        }
        let shm = (flags & 4 != 0).then(|| index(head, &log, size));
        Some(Self { db: (flags & 16 == 0).then(|| db.to_vec()), wal: log, shm })
    }
}

fn injure(log: &mut Vec<u8>, size: usize, injury: &[u8]) {
    let (frame, kind, arg) = (usize::from(injury[0]), injury[1] % 10, injury[2]);
    let at = 32 + frame * (24 + size);
    let spot = at + 24 + usize::from(arg) * size / 256;
    if at + 24 + size > log.len() {
        return;
    }
    match kind {
        1 => log[spot] ^= 1 << (arg & 7),
        2 => log[at..at + 24].fill(0),
        3 => log[at + 8..at + 16].fill(arg),
        4 => log[at + 24..at + 24 + size].fill(0),
        5 => log[spot & !3..][..4].fill(arg),
        6 => log[..32].fill(arg),
        7 => log.truncate(spot),
        8 => log[at..at + 24].fill(arg),
        9 => log[at + 16..at + 24].fill(arg),
        _ => {}
    }
}

/// A wal-index whose checksum is true, as this machine would have written it.
fn index(head: &[u8], log: &[u8], size: usize) -> Vec<u8> {
    let mut copy = [0_u8; 48];
    let max_frame = u32::from(byte(head, 9));
    let put = |copy: &mut [u8; 48], at: usize, word: u32| copy[at..at + 4].copy_from_slice(&word.to_le_bytes());
    put(&mut copy, 0, 3_007_000);
    copy[12] = 1;
    copy[13] = byte(head, 0) >> 1 & 1;
    copy[14..16].copy_from_slice(&u16::try_from(size).unwrap_or(1).to_le_bytes());
    put(&mut copy, 16, max_frame);
    let slot = 24 + size;
    let named = (max_frame as usize).saturating_sub(1) * slot + 32;
    put(&mut copy, 20, be32(log, named + 4));
    if byte(head, 11) & 1 == 0 {
        put(&mut copy, 24, be32(log, named + 16));
        put(&mut copy, 28, be32(log, named + 20));
    }
    let salts = if byte(head, 0) & 8 != 0 { log.get(16..24) } else { log.get(named + 8..named + 16) };
    copy[32..40].copy_from_slice(salts.unwrap_or(&[7; 8]));
    let sum = wal::sum(false, [0, 0], &copy[..40]);
    put(&mut copy, 40, sum[0]);
    put(&mut copy, 44, sum[1]);
    let mut shm = [copy, copy].concat();
    shm.resize(136, 0);
    shm[96..100].copy_from_slice(&u32::from(byte(head, 10)).to_le_bytes());
    for frame in 0..max_frame as usize {
        shm.extend_from_slice(&be32(log, 32 + frame * slot).to_le_bytes());
    }
    shm
}

/// A log beside its database.
pub fn wal(data: &[u8]) {
    let Some(input) = Input::read(data) else { return };
    let shm = match &input.shm {
        Some(bytes) => observe::shm(bytes).unwrap(),
        None => ShmState::Absent,
    };
    let verdict = look(&input, &shm);
    if data.len().is_multiple_of(16) {
        assert_eq!(verdict, look(&input, &shm), "the same bytes give the same verdict");
    }
}

fn look(input: &Input, shm: &ShmState) -> LogVerdict {
    let (log, empty) = (Metered::new(&input.wal), Vec::new());
    let db = Metered::new(input.db.as_ref().unwrap_or(&empty));
    let held = input.db.as_ref().filter(|d| !d.is_empty());
    let head = held.and_then(|d| header::parse(d).ok());
    let hint = if let ShmState::Valid(h) = shm { Some(h) } else { None };
    let size = head.as_ref().map(|h| h.page_size);
    let reserved = head.as_ref().map_or(0, |h| h.reserved);
    let (found, _) =
        observe::wal(&log, held.map(|_| &db as &dyn pyvorin_recovery::sqlite::ReadAt), size, reserved, hint).unwrap();
    reads_are_bounded(&log, &db, 64, "looking at the log");
    let present = held.is_some();
    let pages = held.map_or(0, |d| d.len() / size.unwrap_or(4096) as usize);
    let page_one = head.as_ref().map(Into::into);
    let pages = u32::try_from(pages).unwrap_or(0);
    let verdict = judge(&found, shm, DbSize { present, pages, page_size: size, page_one, ..DbSize::default() });
    promises(input, &found, &verdict);
    verdict
}

/// Work follows the bytes: each byte of both files is read at most so many times, whatever stands in them.
fn reads_are_bounded(log: &Metered<'_>, db: &Metered<'_>, times: u64, what: &str) {
    use pyvorin_recovery::sqlite::ReadAt;
    let bound = times * (log.size() + db.size()) + (1 << 16);
    let read = log.read() + db.read();
    assert!(read <= bound, "{what} read {read} bytes of {} and {}", log.size(), db.size());
}

fn promises(input: &Input, found: &WalEvidence, v: &LogVerdict) {
    assert!(v.committed <= v.frames);
    if v.completeness == Completeness::Complete {
        assert!(!v.evidence.is_empty(), "complete without named evidence");
    }
    let WalEvidence::Present(facts) = found else { return };
    assert!(facts.committed <= facts.prefix && facts.prefix <= facts.frames);
    // A reader that shares no code with ours, and follows what SQLite does.
    if let Some(peer) = independent::Wal::read(&input.wal) {
        // A whole header can be older than the first frame, which proves its own.
        let outdated = facts.header == Err(wal::WalHeaderFault::Outdated);
        assert_eq!(facts.header.is_ok() || outdated, peer.header_ok);
        if peer.header_ok {
            assert_eq!(facts.prefix as usize, peer.chain, "length of the valid chain");
            assert_eq!(facts.committed as usize, peer.committed, "committed frames");
        }
    } else {
        assert!(facts.header.is_err());
    }
    let Some(trouble) = &facts.trouble else {
        assert!(matches!(v.state, WalState::Sound | WalState::TornTail | WalState::Foreign), "{:?}", v.state);
        return;
    };
    let scan = &trouble.scan;
    if !v.needs_repair {
        // The one thing that only looks like damage: a transaction that never ended. Nothing in it can be a commit.
        assert_eq!(v.state, WalState::TornTail);
        assert_ne!(v.completeness, Completeness::Complete);
        let live = facts.header.as_ref().unwrap().salt;
        let open = &scan.frames[facts.committed as usize..];
        assert!(
            open.iter().all(|f| f.salt != live || f.commit == 0),
            "a commit was taken for an unfinished transaction"
        );
    }
    for candidate in &v.candidates {
        for fold in std::iter::once(&candidate.base).chain(&candidate.extras) {
            let numbers: Vec<u32> = fold.numbers().collect();
            assert!(numbers.windows(2).all(|w| w[0] < w[1]) && numbers.iter().all(|n| *n <= scan.len()));
            if fold.upto != 0 {
                let last = scan.frame(fold.upto).unwrap();
                assert!(
                    fold.mend(fold.upto).map_or(last.commit, |m| m.commit) != 0 && numbers.last() == Some(&fold.upto),
                    "a fold ends at a commit that is in it"
                );
            }
            let (log, db) = (Metered::new(&input.wal), Metered::new(input.db.as_deref().unwrap_or(&[])));
            let source = Overlay::folded(input.db.as_ref().map(|_| &db as _), &log, scan, fold);
            let _ = check::check(&source, Scope::Full, &mut || true).unwrap();
            reads_are_bounded(&log, &db, 16, "checking a candidate");
        }
    }
}

/// The wal-index: as found, and with its checksum made true, beside a log that is whole.
pub fn shm(data: &[u8]) {
    let [how, bytes @ ..] = data else { return };
    let mut bytes = bytes.to_vec();
    if how & 1 == 1 && bytes.len() >= 96 {
        let little = how & 2 == 0;
        let version = if little { 3_007_000_u32.to_le_bytes() } else { 3_007_000_u32.to_be_bytes() };
        bytes[..4].copy_from_slice(&version);
        bytes[12] |= 1;
        let [s0, s1] = wal::sum(!little, [0, 0], &bytes[..40]);
        for (at, word) in [(40, s0), (44, s1)] {
            let word = if little { word.to_le_bytes() } else { word.to_be_bytes() };
            bytes[at..at + 4].copy_from_slice(&word);
        }
        bytes.copy_within(..48, 48);
    }
    let state = observe::shm(&bytes).unwrap();
    assert_eq!(state, observe::shm(&bytes).unwrap());
    if how & 1 == 1 && bytes.len() >= 96 {
        assert!(matches!(state, ShmState::Valid(_)), "a true checksum is believed");
    }
    if let ShmState::Valid(hint) = &state {
        assert!(hint.frame_pages.len() * 4 <= bytes.len());
    }
    let db = DbSize { present: true, pages: 3, page_size: Some(512), ..DbSize::default() };
    for evidence in [WalEvidence::Absent, WalEvidence::Empty] {
        let v = judge(&evidence, &state, db);
        assert!(v.completeness != Completeness::Complete || !v.evidence.is_empty());
        // An index without its log, and not valid itself, is never a reason to say that all is there.
        assert!(state != ShmState::Invalid || v.completeness != Completeness::Complete);
    }
}
