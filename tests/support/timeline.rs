//! Histories of a writer with the true sequence of states beside them: killed once, or killed, robbed of writes,
//! reopened and killed again, so that an abandoned timeline stands behind the live one.

use super::crash::{self, Files, Setup, side};
use super::engine;
use super::record::Recorder;
use super::rng::Rng;
use super::site::Scratch;
use super::wal::{self, Wal};
use super::work::{Kind, Work};

/// A killed writer.
pub struct History {
    pub setup: Setup,
    pub files: Files,
    /// Digest of every committed state, oldest first; the last is what the writer had been told is safe.
    pub states: Vec<u64>,
    /// The index file as it was some commits before the end.
    pub old_index: Option<Vec<u8>>,
    /// The index file of the timeline that was abandoned.
    pub abandoned_index: Option<Vec<u8>>,
    /// Frame slots (from 0) at which the live timeline left the abandoned one; none when there is none.
    pub forks: Vec<usize>,
    /// Commits that stand behind the live timeline with its salts.
    pub behind: usize,
    /// Which of the states is the first with the whole schema.
    pub ready: usize,
    pub what: String,
}

/// The kinds of writer that the injuries are done to.
pub const KINDS: [Kind; 5] = [Kind::Transfers, Kind::Append, Kind::Queue, Kind::Spill, Kind::Meter];

fn setup(rng: &mut Rng) -> Setup {
    let kind = rng.pick(&KINDS);
    let page_size = rng.pick(&[512, 512, 1024, 1024, 2048, 4096]);
    let mut setup = Setup::new(kind, page_size, rng.pick(&[0, 0, 0, 1, 8, 40, 100, 1000]));
    setup.accounts = rng.between(20, 120);
    setup
}

fn commits(kind: Kind, most: usize, rng: &mut Rng) -> usize {
    if kind == Kind::Spill { rng.between(1, most.div_ceil(6)) } else { rng.between(1, most) }
}

/// A writer killed once.
pub fn killed(rng: &mut Rng) -> History {
    let setup = setup(rng);
    let scratch = Scratch::new("killed");
    let db = scratch.path().join("live.db");
    let conn = engine::writer(&db, &setup);
    let mut work = Work::new(setup.kind, setup.accounts);
    let mut schema = Recorder::start(&Files::read(&db), setup.page_size);
    work.create(&conn);
    schema.observe(&db);
    if setup.kind == Kind::Transfers || rng.chance(30) {
        let _ = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get::<_, i64>(1)).unwrap();
    }
    let mut recorder = Recorder::start(&Files::read(&db), setup.page_size);
    // The statements of the schema are commits too, where no checkpoint has come between.
    let at = schema.states.iter().position(|s| *s == recorder.states[0]).unwrap_or(1).min(schema.states.len());
    recorder.states.splice(0..0, schema.states[..at].iter().copied());
    let n = commits(setup.kind, 60, rng);
    let (keep, pin, checkpoint) = (rng.below(n), rng.below(2 * n), rng.below(3 * n));
    let mut old_index = None;
    let mut reader = None;
    for i in 0..n {
        work.commit(&conn, rng);
        recorder.observe(&db);
        if i == pin {
            // A reader that stays: no checkpoint gets past it, and the log is not begun anew.
            let other = engine::writer(&db, &setup);
            other.execute_batch("BEGIN; SELECT count(*) FROM sqlite_master").unwrap();
            reader = Some(other);
        }
        if i == checkpoint {
            let _ = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |r| r.get::<_, i64>(1)).unwrap();
        }
        if i == keep {
            old_index = std::fs::read(side(&db, "-shm")).ok();
        }
    }
    let middle = rng.chance(15);
    if middle {
        work.unfinished(&conn, rng);
    }
    let files = Files::read(&db);
    drop(reader);
    let what = format!("{setup:?}, {n} commits, unfinished {middle}");
    let states = recorder.states;
    History { setup, files, states, old_index, abandoned_index: None, forks: Vec::new(), behind: 0, ready: at, what }
}

/// Frames whose writes were lost: dropped (what stood there before stays), torn, or zeroed.
fn lose(wal: &mut [u8], at: usize, len: usize, old: Option<&[u8]>, rng: &mut Rng) {
    let mut before = vec![0; len];
    if let Some(old) = old.and_then(|o| o.get(at..at + len)) {
        before.copy_from_slice(old);
    }
    match rng.below(4) {
        0 | 1 => wal[at..at + len].copy_from_slice(&before),
        2 => {
            let cut = (rng.between(1, (len / 512).max(1)) * 512).min(len - 1);
            wal[at + cut..at + len].copy_from_slice(&before[cut..]);
        }
        _ => wal[at..at + len].fill(0),
    }
}

fn lose_some(files: &mut Files, synced: usize, before: Option<&[u8]>, rng: &mut Rng) -> Vec<usize> {
    let Some(log) = Wal::read(files.wal()) else { return Vec::new() };
    let (low, high) = (synced.max(log.committed / 3), log.chain);
    if low >= high {
        return Vec::new();
    }
    let lost: Vec<usize> = (0..rng.between(1, 3)).map(|_| rng.between(low, high - 1)).collect();
    for slot in &lost {
        let (at, len) = (log.slots[*slot].at, log.slot_len());
        lose(files.wal.as_mut().unwrap(), at, len, before, rng);
    }
    lost
}

/// A writer killed, robbed of writes, reopened by the engine and killed again. `None` when the seed makes none.
pub fn abandoned(rng: &mut Rng) -> Option<History> {
    let mut first = killed(rng);
    let setup = first.setup;
    let mut forks = Vec::new();
    let mut abandoned_index = first.files.shm.clone();
    // Frames copied back by a checkpoint were synced before, and are not lost. The index forgets them when it is built
    // anew, for as long as the log is not begun anew.
    let (mut synced, mut salts) = (0, [0; 8]);
    for turn in 1..=rng.between(1, 2) {
        let log = Wal::read(first.files.wal())?;
        let copied = wal::backfilled(first.files.shm.as_deref());
        synced = if log.salts == salts { copied.max(synced) } else { copied };
        salts = log.salts;
        let lost = lose_some(&mut first.files, synced, None, rng);
        let fork = Wal::read(first.files.wal())?.committed;
        let mut recorder = Recorder::start(&first.files, setup.page_size);
        let recovered = recorder.states.first().copied()?;
        // What the engine recovered is a state of the sequence, or the generator is wrong.
        let at = first.states.iter().rposition(|s| *s == recovered)?;
        if at < first.ready {
            return None;
        }
        first.states.truncate(at);
        let mut old = None;
        let most = rng.pick(&[2, 10, 30]);
        let n = commits(setup.kind, most, rng);
        // The nasty end: the last frame of the new timeline stands right before a lost one.
        let stop = if lost.len() > 1 && rng.chance(60) { lost.iter().max().copied() } else { None };
        let keep = rng.below(n);
        let mut work = Work::new(setup.kind, setup.accounts);
        if turn == 2 {
            abandoned_index = first.files.shm.clone();
        }
        first.files = crash::reopen(&first.files, &setup, |conn, rows| {
            let db = std::path::PathBuf::from(conn.path().unwrap());
            work.carry_on(rows, &format!("t{turn}"));
            for i in 0..n {
                let index = std::fs::read(side(&db, "-shm")).unwrap_or_default();
                let end = index.get(16..20).map_or(0, |b| u32::from_ne_bytes(b.try_into().unwrap()) as usize);
                if i > 0 && stop.is_some_and(|stop| end >= stop) {
                    break;
                }
                work.commit(conn, rng);
                recorder.observe(&db);
                if i == keep {
                    old = std::fs::read(side(&db, "-shm")).ok();
                }
            }
        })
        .ok()?;
        first.states.extend(recorder.states);
        first.old_index = old;
        first.what.push_str(&format!("; lost slots {lost:?} (from 0), recovered {fork} frames; then {n} commits"));
        forks.push(fork);
    }
    let log = Wal::read(first.files.wal())?;
    first.behind = log.slots[log.chain..].iter().filter(|f| f.salts == log.salts && f.commit != 0).count();
    Some(History { abandoned_index, forks, ..first })
}
