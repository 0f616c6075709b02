//! From the initramfs into the real root: what switch_root(8) does.
//!
//! Order, and what each wrong order costs:
//! 1. move `/dev`, `/proc`, `/sys`, `/run` over: after step 3 they could not be named any more;
//! 2. delete the files of the initramfs: they are memory that nothing gives back later. Only when `/` is one, and
//!    never across a mount point, or the real root would be deleted;
//! 3. move the new root over `/` and enter it. `pivot_root` cannot be used, because rootfs cannot be unmounted;
//! 4. start the init of the OS in our place, as PID 1.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::{chdir, chroot, execve};

/// `RAMFS_MAGIC` of `include/uapi/linux/magic.h`, which libc lacks.
const RAMFS_MAGIC: u32 = 0x8584_58F6;
/// Depth of directories deleted; an initramfs has fewer than ten.
const DEEPEST: u32 = 32;

/// Goes over to `new_root` and becomes `init`. Returns only what went wrong; then, up to step 3, `/` is still the
/// initramfs, but empty. Who calls this has checked [`super::init::has_init`] before.
pub fn switch_root(new_root: &Path, init: &Path) -> io::Error {
    match switch(new_root, init) {
        Err(e) => e,
        Ok(never) => match never {},
    }
}

fn switch(new_root: &Path, init: &Path) -> io::Result<Infallible> {
    // All that can fail harmlessly comes first.
    let init = CString::new(init.as_os_str().as_bytes())?;
    let old = fs::metadata("/")?.dev();
    if fs::metadata(new_root)?.dev() == old {
        let why = format!("{} is not a mounted root", new_root.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    for place in ["dev", "proc", "sys", "run"] {
        hand_over(place, new_root);
    }
    if std::process::id() == 1 && is_initramfs()? {
        delete_all(Path::new("/"), old, DEEPEST);
    }
    chdir(new_root)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    chroot(".")?;
    chdir("/")?;
    // The environment that the kernel gives its own init; ours may hold words of the initramfs.
    Ok(execve(&init, &[c"init"], &[c"HOME=/", c"TERM=linux"])?)
}

/// Moves one mount into the new root, or takes it away where there is no directory for it (the root is read-only, so
/// none can be made): init of the OS then mounts its own.
fn hand_over(place: &str, new_root: &Path) {
    let from = Path::new("/").join(place);
    let to = new_root.join(place);
    let ready = fs::symlink_metadata(&to).is_ok_and(|meta| meta.is_dir());
    let moved = ready && mount(Some(&from), &to, None::<&str>, MsFlags::MS_MOVE, None::<&str>).is_ok();
    if !moved {
        log::warn!("/{place} could not be handed over to {}", new_root.display());
        // It may not have been mounted at all.
        let _ = umount2(&from, MntFlags::MNT_DETACH);
    }
}

fn is_initramfs() -> io::Result<bool> {
    let kind = statfs("/")?.filesystem_type();
    Ok(kind == TMPFS_MAGIC || u32::try_from(kind.0).is_ok_and(|kind| kind == RAMFS_MAGIC))
}

/// Deletes what lies on `device` below `dir`. What cannot be deleted stays: it is memory, not correctness.
fn delete_all(dir: &Path, device: u64, depth: u32) {
    if depth == 0 {
        return;
    }
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.dev() != device => {}
            Ok(meta) if meta.is_dir() => {
                delete_all(&path, device, depth - 1);
                let _ = fs::remove_dir(&path);
            }
            Ok(_) => drop(fs::remove_file(&path)),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_the_old_root_is_refused_before_anything_moves() {
        // `/proc` and friends of the host stay where they are: the refusal comes first.
        let why = switch_root(Path::new("/"), Path::new("/sbin/init"));
        assert_eq!(why.kind(), io::ErrorKind::InvalidInput);
        assert!(Path::new("/proc/self").exists());
    }

    #[test]
    fn deletion_stays_on_its_device() {
        let dir = tempfile::TempDir::new().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("a/link")).unwrap();
        let device = fs::metadata(dir.path()).unwrap().dev();
        delete_all(dir.path(), device + 1, DEEPEST);
        assert!(dir.path().join("a/b").exists());
        delete_all(dir.path(), device, DEEPEST);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Path::new("/proc").exists());
    }
}
