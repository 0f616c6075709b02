//! The state of a database that somebody else is writing, as of one moment.
//!
//! The engine opens the original here, which it does nowhere else but for the agent's chain: only a reader that takes part in
//! the locking sees one state, and only when the sense before it found the log sound and another process at work on it.
//! Inside one read transaction the backup interface never starts over, however much is written meanwhile; the log cannot be
//! reset past the snapshot for that long, which is why the time is bounded by the caller's rate. We never checkpoint, not even as
//! the last to close.

use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{defend, failed, refuse_side_files, regular};

/// Pages copied at a time; between two portions the pause is made up.
const PORTION: i32 = 256;
/// How long somebody else's lock is waited for.
const PATIENCE_MS: u64 = 30_000;

/// What goes on around a copy.
pub struct Around<'a> {
    /// Milliseconds of a running clock.
    pub clock: &'a dyn Fn() -> u64,
    /// Told pages done and all, now and then.
    pub tell: &'a dyn Fn(i32, i32),
}

/// Copies the state of `live` into the new file `out`, at most `rate` bytes a second.
pub fn snapshot_file(live: &Path, out: &Path, rate: u64, around: &Around<'_>) -> io::Result<()> {
    regular(live)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let source = Connection::open_with_flags(live, flags).map_err(failed)?;
    source.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    source.busy_timeout(Duration::from_millis(PATIENCE_MS)).map_err(failed)?;
    defend(&source).map_err(failed)?;
    source.execute_batch("BEGIN").map_err(failed)?;
    let page_size: u32 = source
        .query_row("SELECT page_size FROM pragma_page_size, (SELECT count(*) FROM sqlite_schema)", [], |r| r.get(0))
        .map_err(failed)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    refuse_side_files(out)?;
    let mut target = Connection::open_with_flags(out, flags).map_err(failed)?;
    // A copy that is not whole is thrown away, so nothing of it need be made durable on the way.
    target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;").map_err(failed)?;
    let copied = copy(&source, &mut target, (rate, page_size), around);
    drop(target);
    source.execute_batch("ROLLBACK").map_err(failed)?;
    copied?;
    refuse_side_files(out)
}

fn copy(
    source: &Connection,
    target: &mut Connection,
    (rate, page_size): (u64, u32),
    around: &Around<'_>,
) -> io::Result<()> {
    let backup = Backup::new(source, target).map_err(failed)?;
    let begun = (around.clock)();
    let (mut told, mut moved) = (begun, begun);
    loop {
        let step = backup.step(PORTION).map_err(failed)?;
        let now = (around.clock)();
        match step {
            StepResult::Done => return Ok(()),
            StepResult::More => moved = now,
            _ if now.saturating_sub(moved) > PATIENCE_MS => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the database stays locked"));
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
        let progress = backup.progress();
        let done = progress.pagecount.saturating_sub(progress.remaining);
        if now.saturating_sub(told) > 2000 {
            told = now;
            (around.tell)(done, progress.pagecount);
        }
        let bytes = u64::from(done.unsigned_abs()) * u64::from(page_size);
        let due = bytes.saturating_mul(1000).checked_div(rate).unwrap_or(0);
        let early = due.saturating_sub(now.saturating_sub(begun));
        std::thread::sleep(Duration::from_millis(early.min(5000)));
    }
}
