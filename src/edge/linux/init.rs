//! The duties of PID 1 in an initramfs without a shell, one function each; the order is `commands::init`'s.
//!
//! Nothing here ends the boot. A mount that fails, a console that is not there, a module that does not load: each is
//! said and the boot goes on, for the OS may come up all the same (invariant I9).

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::RebootMode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::{file, uptime_ms};
use crate::ext4::{FileSystem, HEAD_LEN};
use crate::sqlite::read_vec;

/// How long a sentence may wait for a console that does not take it.
const CONSOLE_PATIENCE_MS: u64 = 200;
/// Links followed before a path counts as a loop; the kernel's own number.
const MOST_LINKS: u32 = 40;

/// Mounts `/proc`, `/sys`, `/dev` and `/run` where they are not mounted yet. Gives one sentence for each that failed.
pub fn mount_api_filesystems() -> Vec<String> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let all = [
        ("proc", "/proc", quiet, None),
        ("sysfs", "/sys", quiet, None),
        ("devtmpfs", "/dev", MsFlags::MS_NOSUID, Some("mode=0755")),
        ("tmpfs", "/run", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755")),
    ];
    let mut troubles = Vec::new();
    for (kind, target, flags, options) in all {
        if let Err(e) = mount_api(kind, Path::new(target), flags, options) {
            troubles.push(format!("cannot mount {target}: {e}"));
        }
    }
    troubles
}

fn mount_api(kind: &str, target: &Path, flags: MsFlags, options: Option<&str>) -> io::Result<()> {
    fs::create_dir_all(target)?;
    if is_mount_point(target)? {
        return Ok(());
    }
    match mount(Some(kind), target, Some(kind), flags, options) {
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn is_mount_point(path: &Path) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(path);
    Ok(fs::symlink_metadata(path)?.dev() != fs::symlink_metadata(parent)?.dev())
}

/// Makes `/dev/console` the standard streams: the kernel starts init without them when its initramfs has no console
/// node. Where there is no console, `/dev/null` takes its place, so that no other file ever gets the numbers 0 to 2.
pub fn open_console() -> io::Result<()> {
    let open = |path: &str| fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path);
    let console = open("/dev/console").or_else(|_| open("/dev/null"))?;
    nix::unistd::dup2_stdin(&console)?;
    nix::unistd::dup2_stdout(&console)?;
    nix::unistd::dup2_stderr(&console)?;
    Ok(())
}

/// Says a sentence on every active console. Never fails; a console that takes nothing costs a fifth of a second.
pub fn say(line: &str) {
    let text: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = format!("{text}\n");
    let active = file::read_text(Path::new("/sys/class/tty/console/active")).unwrap_or_default();
    let mut said = false;
    for name in active.split_ascii_whitespace() {
        said |= say_on(&Path::new("/dev").join(name), &text).is_ok();
    }
    if !said {
        // The last place to speak; if it fails there is nowhere left to say so.
        let _ = say_on(Path::new("/dev/console"), &text);
    }
}

fn say_on(console: &Path, text: &str) -> io::Result<()> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut console = fs::OpenOptions::new().write(true).custom_flags(flags).open(console)?;
    let started = uptime_ms();
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match console.write(rest) {
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e)
                if e.kind() == io::ErrorKind::WouldBlock
                    && uptime_ms().saturating_sub(started) < CONSOLE_PATIENCE_MS =>
            {
                let mut fds = [PollFd::new(console.as_fd(), PollFlags::POLLOUT)];
                let _ = poll(&mut fds, PollTimeout::from(50_u8));
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Collects children that nobody waits for. As PID 1 only, and never while [`super::child::run`] waits for its own.
pub fn reap_orphans() -> u32 {
    let mut reaped = 0;
    while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        reaped += 1;
    }
    reaped
}

/// Mounts a root file system read-only. An ext journal is replayed by the kernel here, as in every boot: with
/// `noload` the OS could not make its root writable later.
pub fn mount_root(device: &Path, target: &Path) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let head = read_vec(&file::open_device(device)?, 0, HEAD_LEN)?;
    let kinds: &[&str] = match FileSystem::detect(&head) {
        FileSystem::Ext(_) => &["ext4"],
        FileSystem::Btrfs => &["btrfs"],
        FileSystem::F2fs => &["f2fs"],
        _ => &["squashfs", "erofs"],
    };
    let mut last = Errno::ENODEV;
    for kind in kinds {
        match mount(Some(device), target, Some(*kind), MsFlags::MS_RDONLY, None::<&str>) {
            Ok(()) => return Ok(()),
            Err(e) => last = e,
        }
    }
    let why = format!("cannot mount {} as {}: {last}", device.display(), kinds.join(" or "));
    Err(io::Error::new(io::Error::from(last).kind(), why))
}

/// Whether `init` exists below `root` as an executable regular file. Links are followed as they will be once `root` is
/// `/`: an absolute one starts again at `root`, and `..` does not leave it.
#[must_use]
pub fn has_init(root: &Path, init: &Path) -> bool {
    resolve(root, init)
        .and_then(|path| fs::symlink_metadata(path).ok())
        .is_some_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn resolve(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut here = root.to_path_buf();
    let mut depth: u32 = 0;
    let mut links = 0;
    // What is still to walk, the next component last.
    let mut todo: Vec<PathBuf> = parts(path);
    while let Some(part) = todo.pop() {
        match part.components().next()? {
            Component::ParentDir if depth > 0 => {
                here.pop();
                depth -= 1;
            }
            Component::Normal(name) => {
                let next = here.join(name);
                if fs::symlink_metadata(&next).ok()?.is_symlink() {
                    links += 1;
                    if links > MOST_LINKS {
                        return None;
                    }
                    let target = fs::read_link(&next).ok()?;
                    if target.is_absolute() {
                        here = root.to_path_buf();
                        depth = 0;
                    }
                    todo.extend(parts(&target));
                } else {
                    here = next;
                    depth += 1;
                }
            }
            _ => {}
        }
    }
    Some(here)
}

fn parts(path: &Path) -> Vec<PathBuf> {
    path.components()
        .rev()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| PathBuf::from(part.as_os_str()))
        .collect()
}

/// How the machine goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// Start again.
    Restart,
    /// Switch off.
    PowerOff,
}

/// Milliseconds since the machine started, for the time a boot takes.
pub fn uptime() -> u64 {
    uptime_ms()
}

/// Lets go of a root that turned out not to start anything.
pub fn unmount_root(target: &Path) {
    if let Err(e) = nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH) {
        log::warn!("{}: {e}", target.display());
    }
}

/// Dies as by the hand of the kernel: the rehearsal of a stage that is killed.
pub fn kill_self() {
    if let Err(e) = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL) {
        log::error!("the rehearsal failed: {e}");
    }
}

/// Syncs and takes the machine down. Returns only what went wrong.
pub fn reboot(how: Down) -> io::Error {
    nix::unistd::sync();
    let mode = match how {
        Down::Restart => RebootMode::RB_AUTOBOOT,
        Down::PowerOff => RebootMode::RB_POWER_OFF,
    };
    match nix::sys::reboot::reboot(mode) {
        Err(e) => e.into(),
        Ok(never) => match never {},
    }
}

/// Waits for `time`, calling `look` ten times a second (watchdog, button, stick); true when `look` ended the wait.
pub fn hold(time: Duration, look: &mut dyn FnMut() -> bool) -> bool {
    let started = uptime_ms();
    let limit = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    loop {
        if look() {
            return true;
        }
        if uptime_ms().saturating_sub(started) >= limit {
            return false;
        }
        if std::process::id() == 1 {
            reap_orphans();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn init_is_found_inside_the_root_and_only_there() {
        let dir = tempfile::TempDir::new().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("usr/lib/systemd")).unwrap();
        fs::create_dir_all(root.join("usr/sbin")).unwrap();
        let real = root.join("usr/lib/systemd/systemd");
        file::write(&real, b"elf").unwrap();
        // Merged /usr: an absolute and a relative link in a row, as Debian has it.
        symlink("usr/sbin", root.join("sbin")).unwrap();
        symlink("/lib/systemd/systemd", root.join("usr/sbin/init")).unwrap();
        symlink("/usr/lib", root.join("lib")).unwrap();
        let init = Path::new("/sbin/init");
        assert!(!has_init(&root, init), "not executable");
        fs::set_permissions(&real, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(has_init(&root, init));
        assert!(has_init(&root, Path::new("../../sbin/init")));
        assert!(!has_init(&root, Path::new("/sbin")));
        assert!(!has_init(&root, Path::new("/sbin/none")));
        assert!(!has_init(&root.join("none"), init));
        // A link out of the root leads nowhere, although the host has that file.
        file::write(&dir.path().join("outside"), b"x").unwrap();
        fs::set_permissions(dir.path().join("outside"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("../outside", root.join("escape")).unwrap();
        assert!(!has_init(&root, Path::new("/escape")));
        symlink("loop", root.join("loop")).unwrap();
        assert!(!has_init(&root, Path::new("/loop")));
    }

    #[test]
    fn a_hold_ends_by_itself_or_when_told() {
        assert!(!hold(Duration::from_millis(150), &mut || false));
        let mut looks = 0;
        assert!(hold(Duration::from_secs(60), &mut || {
            looks += 1;
            looks == 2
        }));
    }

    #[test]
    fn a_root_that_is_no_file_system_is_refused_with_its_name() {
        let dir = tempfile::TempDir::new().unwrap();
        let image = dir.path().join("root-a");
        file::write(&image, &[7; 4096]).unwrap();
        let why = mount_root(&image, &dir.path().join("target")).unwrap_err().to_string();
        assert!(why.contains("root-a"), "{why}");
    }
}
