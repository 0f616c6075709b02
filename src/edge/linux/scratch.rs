//! A private copy of a database for the engine to look at, never beside the original.
//!
//! A check changes nothing on the data partition, so the copy goes to a scratch directory of the running system with room
//! for it, under a name that did not exist, and is gone when the check ends; should we die, it is a file in a directory
//! for temporary files. No room means that this part is not checked, which the report says.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::edge::Look;
use crate::edge::engine::{self, ObjectCheck};
use crate::sqlite::overlay::Overlay;

/// Where temporary files may lie, disks before memory.
const PLACES: [&str; 3] = ["/var/tmp", "/tmp", "/run"];
/// Room left over for everybody else.
const SPARE: u64 = 32 << 20;

/// The copy; removed with the value.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        // Nothing more can be done about a file that cannot be removed; its directory is cleaned at boot.
        drop(fs::remove_file(&self.0));
    }
}

/// Copies what SQLite would see and has the engine check the named tables of it.
pub fn check_objects(look: &dyn Look, source: &Overlay<'_>, tables: &[String]) -> io::Result<Vec<ObjectCheck>> {
    let bytes = u64::from(source.pages) * u64::from(source.page_size);
    let room = |p: &&&str| look.free_bytes(Path::new(p)).is_ok_and(|free| free >= bytes.saturating_add(SPARE));
    let mut why =
        io::Error::new(io::ErrorKind::StorageFull, format!("no scratch directory has room for {bytes} bytes"));
    for place in PLACES.iter().filter(room) {
        match copy_to(look, source, Path::new(place)) {
            Ok(copy) => return engine::check_objects_file(&copy.0, tables, |_| {}),
            Err(e) => why = e,
        }
    }
    Err(why)
}

fn copy_to(look: &dyn Look, source: &Overlay<'_>, place: &Path) -> io::Result<Copy> {
    let [word, _] = look.secret();
    let path = place.join(format!("pyvorin-check-{}-{word:016x}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let copy = Copy(path);
    let size = usize::try_from(source.page_size).unwrap_or(4096);
    let per_run = u32::try_from(((1 << 20) / size).max(1)).unwrap_or(1);
    let mut run = vec![0; size * usize::try_from(per_run).unwrap_or(1)];
    let mut first = 1;
    while first <= source.pages {
        let n = per_run.min(source.pages - first + 1);
        run.fill(0);
        source.run(first, n, &mut run)?;
        if let (1, Some(versions)) = (first, run.get_mut(18..20)) {
            // Rollback mode: in WAL mode the engine would make side files.
            versions.fill(1);
        }
        file.write_all(run.get(..size * usize::try_from(n).unwrap_or(0)).unwrap_or(&[]))?;
        if first % (64 * per_run) == 1 {
            look.progress(&format!("copying for the engine: {first} of {} pages", source.pages));
        }
        first += n;
    }
    Ok(copy)
}
