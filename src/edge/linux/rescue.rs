//! The long actions of the engine in a thread of their own, with signs of life to whoever watches the stage.

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::{HEARTBEAT, LinuxMachine, file};
use crate::edge::{Look, SalvageJob, engine};
use crate::sqlite::ReadAt;
use crate::sqlite::salvage::{Input, Report};

impl LinuxMachine {
    /// Runs `act` in a thread. Its words are passed on, and a sign of life in between, but only until `limit`: then the
    /// silence lets the deadline of the stage end us.
    pub(super) fn watched<T: Send + 'static>(
        &self,
        what: &str,
        limit: Duration,
        act: impl FnOnce(&mut dyn FnMut(&str)) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (words, heard) = mpsc::channel::<String>();
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || {
            // Nobody listens when the caller has given up; there is nothing left to tell then.
            act(&mut |line| drop(words.send(line.to_string())))
        })?;
        let mut waited = Duration::ZERO;
        loop {
            match heard.recv_timeout(HEARTBEAT) {
                Ok(line) => self.progress(&line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    waited += HEARTBEAT;
                    if waited < limit {
                        self.progress(&format!("{what} for {} s since the last word", waited.as_secs()));
                    }
                }
            }
        }
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the engine's thread died")))
    }
}

/// A salvage by paths; what the sorter of an index cannot hold goes beside the new file.
pub(super) fn salvage(job: &SalvageJob, out: &Path, tell: &mut dyn FnMut(&str)) -> io::Result<Report> {
    let spill = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let open = |path: &Option<std::path::PathBuf>| path.as_ref().map(|p| file::open(p)).transpose();
    let (db, wal, shm, journal) = (open(&job.db)?, open(&job.wal)?, open(&job.shm)?, open(&job.journal)?);
    fn dynamic(file: Option<&file::Opened>) -> Option<&dyn ReadAt> {
        file.map(|f| f as &dyn ReadAt)
    }
    let input = Input {
        db: dynamic(db.as_ref()),
        wal: dynamic(wal.as_ref()),
        shm: dynamic(shm.as_ref()),
        journal: dynamic(journal.as_ref()),
        fold: job.fold.clone(),
        schemas: job.schemas.clone(),
    };
    engine::salvage_file(&input, out, spill, tell)
}
