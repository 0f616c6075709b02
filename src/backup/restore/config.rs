//! Files of the configuration, put back one by one below the configured paths and nowhere else.

use std::io;
use std::path::{Path, PathBuf};

use super::{Ask, KIND, Placed};
use crate::archive::manifest::File;
use crate::boot::act::make_dirs;
use crate::config::Settings;
use crate::edge::{FileKind, Machine};
use crate::journal::Target;

/// A file of the configuration goes below a configured path, beside which it is staged: it may be another file system.
pub(super) fn target(
    machine: &mut dyn Machine,
    settings: &Settings,
    ask: &Ask<'_>,
    file: &File,
    unpacked: &Path,
    op: &str,
) -> Placed {
    if !ask.config {
        return Ok(Err("the configuration was not asked for (--config)".to_string()));
    }
    let Some(relative) = file.name.strip_prefix("config/") else {
        return Ok(Err("it is no file of the configuration".to_string()));
    };
    let path = settings.root.join(relative);
    if !settings.config_paths.iter().any(|allowed| path.starts_with(allowed)) {
        return Ok(Err("it lies below no path of [backup] config".to_string()));
    }
    let parts: Vec<&str> = relative.split('/').collect();
    let never =
        |p: &&str| settings.config_exclude.iter().any(|e| e == p) || **p == *"recovery.toml" || **p == *"keyring.json";
    if parts.iter().any(never) || path.starts_with(&settings.state_dir) {
        return Ok(Err("a file of this kind is never restored".to_string()));
    }
    for dir in path.ancestors().skip(1) {
        // A link among its directories would lead somewhere else.
        if machine.stat(dir)?.is_some_and(|s| s.kind != FileKind::Directory) {
            return Ok(Err(format!("{} is no directory", dir.display())));
        }
    }
    let Some(parent) = path.parent() else { return Ok(Err("it has no directory".to_string())) };
    make_dirs(machine, parent)?;
    let like = machine.stat(&path)?;
    if like.is_some_and(|s| s.kind != FileKind::File) {
        return Ok(Err("what stands there is no file".to_string()));
    }
    let mut name = path.as_os_str().to_os_string();
    name.push(format!(".{op}"));
    let staged = PathBuf::from(name);
    machine.copy(unpacked, &staged)?;
    let dir = machine.stat(parent)?;
    let (uid, gid, mode) =
        like.map_or((dir.map_or(0, |d| d.uid), dir.map_or(0, |d| d.gid), 0o640), |s| (s.uid, s.gid, s.mode));
    machine.set_owner(&staged, uid, gid, mode)?;
    machine.sync_file(&staged)?;
    machine.sync_dir(parent)?;
    Ok(Ok(Target {
        database: "configuration".to_string(),
        path,
        staged,
        sha256: file.sha256.clone(),
        retire: Vec::new(),
        kept: PathBuf::new(),
    }))
}

/// Removes what a cut left beside files of the configuration before the operation was on record.
pub(super) fn tidy(machine: &mut dyn Machine, dir: &Path, depth: usize) -> io::Result<()> {
    let names = match machine.list(dir) {
        Ok(names) => names,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(e) => return Err(e),
    };
    for name in names {
        let path = dir.join(&name);
        let marked = name.to_str().and_then(|n| n.rsplit_once(&format!("-{KIND}-")));
        let staged = marked.is_some_and(|(head, tail)| {
            let clock = head.rsplit_once('.').map_or("", |(_, clock)| clock);
            tail.len() == 8 && !clock.is_empty() && clock.bytes().all(|b| b.is_ascii_digit())
        });
        match machine.stat(&path)?.map(|s| s.kind) {
            Some(FileKind::File) if staged => machine.unlink(&path)?,
            Some(FileKind::Directory) if depth < 8 => tidy(machine, &path, depth + 1)?,
            _ => {}
        }
    }
    Ok(())
}
