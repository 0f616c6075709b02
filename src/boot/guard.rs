//! What is still done for the data when the line itself has failed: the logs are copied to quarantine before the OS
//! opens the databases. Judges nothing, changes no original, and looks at as little as possible, since something that
//! was looked at has just killed the line.

use std::io;

use super::act::{count_crash, make_dirs};
use super::plan::side;
use crate::config::Settings;
use crate::edge::{Access, FileKind, Machine};
use crate::journal::QUARANTINE;

/// Share of the free space that the copies may take, in percent.
const SHARE: u64 = 50;

/// Copies `-wal` and `-shm` of every database, once per state of the files; the number of files copied.
pub fn keep_logs(machine: &mut dyn Machine, settings: &Settings) -> io::Result<u32> {
    machine.attach("data", Access::ReadWrite)?;
    let mut copied = 0;
    for database in &settings.databases {
        let log = side(&database.location, "-wal");
        let Some(stat) = machine.stat(&log)?.filter(|s| s.kind == FileKind::File && s.len > 0) else { continue };
        let word = crc32fast::hash(format!("{} {}", stat.len, stat.mtime_ns).as_bytes());
        let into = settings.data_dir.join(QUARANTINE).join(format!("unseen-{}-{word:08x}", database.name));
        let room = machine.free_bytes(&settings.data_dir)? / 100 * SHARE;
        if machine.stat(&into)?.is_some() || stat.len > room {
            continue;
        }
        make_dirs(machine, &into)?;
        for path in [log, side(&database.location, "-shm")] {
            let Some(name) = path.file_name() else { continue };
            if machine.stat(&path)?.is_some_and(|s| s.kind == FileKind::File) {
                let kept = into.join(name);
                machine.copy(&path, &kept)?;
                machine.sync_file(&kept)?;
                copied += 1;
            }
        }
        machine.sync_dir(&into)?;
    }
    Ok(copied)
}

/// Charges whatever step was begun and not ended with the death of the line.
pub fn charge(machine: &mut dyn Machine, settings: &Settings) -> io::Result<()> {
    machine.attach("state", Access::ReadOnly)?;
    count_crash(machine, settings)
}
