//! The file half of the machine, without privilege; mounts are proved in QEMU.

use std::cell::RefCell;
use std::os::unix::fs::symlink;
use std::rc::Rc;

use nix::sys::stat::Mode;
use tempfile::TempDir;

use super::*;
use crate::sqlite::read_vec;

fn machine() -> (LinuxMachine, Rc<RefCell<Vec<String>>>) {
    let lines = Rc::new(RefCell::new(Vec::new()));
    let sink = Rc::clone(&lines);
    (LinuxMachine::new(Vec::new(), Box::new(move |l| sink.borrow_mut().push(l.to_owned()))), lines)
}

#[test]
fn files_are_written_read_copied_linked_and_removed() {
    let (mut m, _) = machine();
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    m.make_dir(&at("q")).unwrap();
    m.make_dir(&at("q")).unwrap();
    assert_eq!(m.stat(&at("q")).unwrap().unwrap().mode, 0o700);
    m.write(&at("a"), b"hello world").unwrap();
    m.write(&at("a"), b"hello").unwrap();
    m.write_at(&at("a"), 1, b"ipp").unwrap();
    m.set_len(&at("a"), 6).unwrap();
    m.sync_file(&at("a")).unwrap();
    m.sync_dir(dir.path()).unwrap();
    assert_eq!(read_vec(&*m.open(&at("a")).unwrap(), 0, 100).unwrap(), b"hippo\0");
    m.link(&at("a"), &at("q/a")).unwrap();
    assert_eq!(m.link(&at("a"), &at("q/a")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    let stat = m.stat(&at("a")).unwrap().unwrap();
    assert_eq!((stat.kind, stat.len, stat.nlink, stat.mode), (FileKind::File, 6, 2, 0o600));
    m.set_owner(&at("a"), stat.uid, stat.gid, 0o640).unwrap();
    m.copy(&at("a"), &at("b")).unwrap();
    assert_eq!(read_vec(&*m.open(&at("b")).unwrap(), 0, 100).unwrap(), b"hippo\0");
    m.rename(&at("b"), &at("a")).unwrap();
    assert_eq!(m.stat(&at("q/a")).unwrap().unwrap().mode, 0o640);
    assert_eq!(m.list(dir.path()).unwrap(), ["a", "q"]);
    assert!(m.remove_dir(&at("q")).is_err());
    for _ in 0..2 {
        m.unlink(&at("q/a")).unwrap();
    }
    for _ in 0..2 {
        m.remove_dir(&at("q")).unwrap();
    }
    assert_eq!(m.stat(&at("q")).unwrap(), None);
    assert_eq!(m.stat(&at("a/below")).unwrap(), None);
    assert_eq!(m.list(&at("q")).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(m.free_bytes(dir.path()).unwrap() > 0 && m.clock() > 1_600_000_000 && m.uptime_ms() > 0);
}

#[test]
fn links_pipes_and_directories_are_refused_without_waiting() {
    let (mut m, _) = machine();
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    m.write(&at("target"), b"precious").unwrap();
    symlink(at("target"), at("link")).unwrap();
    nix::unistd::mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
    m.make_dir(&at("dir")).unwrap();
    for name in ["link", "pipe", "dir"] {
        let path = at(name);
        assert!(m.open(&path).is_err(), "{name}");
        assert!(m.write(&path, b"x").is_err(), "{name}");
        assert!(m.write_at(&path, 0, b"x").is_err(), "{name}");
        assert!(m.set_len(&path, 0).is_err(), "{name}");
        assert!(m.copy(&path, &at("copy")).is_err(), "{name}");
        assert!(m.copy(&at("target"), &path).is_err(), "{name}");
    }
    assert!(m.make_dir(&at("link")).is_err());
    assert!(m.set_owner(&at("link"), 0, 0, 0o777).is_err());
    assert_eq!(m.stat(&at("link")).unwrap().unwrap().kind, FileKind::Other);
    assert_eq!(read_vec(&*m.open(&at("target")).unwrap(), 0, 99).unwrap(), b"precious");
}

#[test]
fn a_long_copy_reports_its_progress() {
    let (mut m, lines) = machine();
    let dir = TempDir::new().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    m.write(&from, b"head").unwrap();
    m.set_len(&from, 130 << 20).unwrap();
    m.write_at(&from, (130 << 20) - 4, b"tail").unwrap();
    m.copy(&from, &to).unwrap();
    assert_eq!(m.stat(&to).unwrap().unwrap().len, 130 << 20);
    assert_eq!(read_vec(&*m.open(&to).unwrap(), (130 << 20) - 4, 9).unwrap(), b"tail");
    assert_eq!(lines.borrow().len(), 2, "{:?}", lines.borrow());
}

#[test]
fn a_machine_without_volumes_attaches_nothing() {
    let (mut m, _) = machine();
    m.attach("data", Access::ReadOnly).unwrap();
    m.attach("data", Access::ReadWrite).unwrap();
    m.detach("data").unwrap();
    assert_eq!(m.volume_head("data"), VolumeHead::NotConfigured);
    assert_eq!(m.fsck("data", &[], 1).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_missing_volume_is_not_mistaken_for_a_plain_directory() {
    let (plain, _) = machine();
    let mut m = plain.with_missing(vec![("data".into(), "no block device answers".into())]);
    assert_eq!(m.volume_head("data"), VolumeHead::Missing("no block device answers".into()));
    assert_eq!(m.attach("data", Access::ReadWrite).unwrap_err().kind(), io::ErrorKind::NotFound);
    m.attach("state", Access::ReadWrite).unwrap();
    m.detach("data").unwrap();
}

#[test]
fn a_check_of_a_file_system_gives_status_and_lines_within_its_limit() {
    let dir = TempDir::new().unwrap();
    let (plain, lines) = machine();
    let volume = Volume { name: "data".into(), device: dir.path().join("image"), target: dir.path().join("mnt") };
    let mut m = LinuxMachine { volumes: vec![volume], ..plain }.with_fsck("/bin/sh".into());
    m.write(&dir.path().join("image"), b"0123").unwrap();
    assert_eq!(m.volume_head("data"), VolumeHead::Head(b"0123".to_vec()));
    // The device comes last; for a shell it is $0.
    let script = |text: &str| vec!["-c".to_owned(), text.to_owned()];
    assert_eq!(m.fsck("data", &script("echo one; echo two >&2; printf 'three\\rfour'; exit 5"), 20).unwrap(), 5);
    assert_eq!(*lines.borrow(), ["one", "two", "three", "four"]);
    let before = uptime_ms();
    let late = m.fsck("data", &script("exec sleep 50"), 1).unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    assert!(m.fsck("data", &script("while :; do echo x; done"), 1).is_err());
    assert!(uptime_ms() - before < 20_000);
    assert!(m.fsck("data", &script("kill -9 $$"), 20).unwrap_err().to_string().contains("signal 9"));
    let mut gone = m.with_fsck("/sbin/no-such-fsck".into());
    assert!(gone.fsck("data", &[], 1).unwrap_err().to_string().contains("/sbin/no-such-fsck"));
}

#[test]
fn the_engine_checks_through_the_machine() {
    let (mut m, _) = machine();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    let (lines, rows) = m.engine_check(&path).unwrap();
    assert_eq!((lines, rows), (vec!["ok".to_owned()], vec![TableRows { table: "t".into(), rows: 1 }]));
    assert_eq!(m.engine_append(&path, &path).unwrap(), [TableGain { table: "t".into(), inserted: 0 }]);
}

/// A loop device over a fresh ext4 image, detached when dropped. `None` where this is not possible (no root, no loop
/// devices, no e2fsprogs): the same is then proved in QEMU only.
struct Loop(String);

impl Loop {
    fn new(image: &Path) -> Option<Loop> {
        let file = fs::OpenOptions::new().write(true).create_new(true).open(image).ok()?;
        file.set_len(16 << 20).ok()?;
        tool("mkfs.ext4", &["-q", "-F", "-L", "PYV-LOOP"], image)?;
        tool("losetup", &["--find", "--show"], image).map(|name| Loop(name.trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        tool("losetup", &["-d"], Path::new(&self.0));
    }
}

#[allow(clippy::disallowed_methods)]
fn tool(program: &str, args: &[&str], last: &Path) -> Option<String> {
    let path = "/sbin:/usr/sbin:/bin:/usr/bin";
    let output = std::process::Command::new(program).args(args).arg(last).env("PATH", path).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_volume_is_attached_privately_and_a_read_only_look_writes_nothing() {
    let dir = TempDir::new().unwrap();
    let image = dir.path().join("image");
    let Some(device) = Loop::new(&image) else { return };
    let target = dir.path().join("mnt");
    let volume = Volume { name: "data".into(), device: PathBuf::from(&device.0), target: target.clone() };
    let before = read_vec(&file::open(&image).unwrap(), 0, 16 << 20).unwrap();
    let limits = child::Limits {
        silence: Duration::from_secs(20),
        overall: Duration::from_secs(40),
        memory: u64::MAX,
        private_mounts: true,
    };
    // Mounts are made in a child with a mount namespace of its own, as in a boot; its answer is a sentence.
    let run = |work: &dyn Fn(&mut LinuxMachine) -> io::Result<String>| {
        let report = child::run(limits, &mut |_| {}, |tell| {
            let tell = tell.clone();
            let mut m = LinuxMachine::new(vec![volume.clone()], Box::new(move |line| tell.line(line)));
            work(&mut m).unwrap_or_else(|e| format!("error: {e}")).into_bytes()
        });
        match report.unwrap().end {
            child::ChildEnd::Finished(said) => String::from_utf8(said).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let inner = target.clone();
    let looked = run(&|m| {
        m.attach("data", Access::ReadOnly)?;
        let names = m.list(&inner)?;
        let refused = m.write(&inner.join("x"), b"x").is_err();
        let busy = m.fsck("data", &[], 1).is_err_and(|e| e.kind() == io::ErrorKind::ResourceBusy);
        m.detach("data")?;
        Ok(format!("{names:?} {refused} {busy} {:?}", m.list(&inner)?))
    });
    assert_eq!(looked, "[\"lost+found\"] true true []");
    assert!(read_vec(&file::open(&image).unwrap(), 0, 16 << 20).unwrap() == before, "looking wrote to the volume");
    let wrote = run(&|m| {
        m.attach("data", Access::ReadOnly)?;
        m.attach("data", Access::ReadWrite)?;
        m.write(&inner.join("x"), b"kept")?;
        // Left attached: the namespace goes away with the child, and the mount with it.
        Ok("wrote".into())
    });
    assert_eq!(wrote, "wrote");
    let read = run(&|m| {
        m.attach("data", Access::ReadOnly)?;
        Ok(String::from_utf8_lossy(&read_vec(&*m.open(&inner.join("x"))?, 0, 9)?).into_owned())
    });
    assert_eq!(read, "kept");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "a private mount was seen outside");
    let (plain, lines) = machine();
    let mut m = LinuxMachine { volumes: vec![volume], ..plain };
    assert_eq!(m.fsck("data", &["-p".into(), "-f".into()], 60).unwrap(), 0);
    assert!(lines.borrow().iter().any(|line| line.contains("PYV-LOOP")), "{:?}", lines.borrow());
}
