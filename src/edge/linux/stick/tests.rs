//! Children that answer, hang, die, lie and try to get out; sticks read and reported into through them.
#![allow(clippy::disallowed_methods)] // Fixtures are files, and what is tried in a child is what the lint forbids.

use std::time::Instant;

use tempfile::TempDir;

use super::confine::{ask, run};
use super::*;
use crate::edge::linux::uptime_ms;
use crate::fat::format::{Layout, NewFile};

fn limits(silence_ms: u64, overall_ms: u64) -> Limits {
    Limits {
        silence: Duration::from_millis(silence_ms),
        overall: Duration::from_millis(overall_ms),
        memory: 64 << 20,
        cpu_seconds: 20,
        most: 1 << 20,
    }
}

fn image() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("stick");
    let sizes =
        [("ticket.json", 1000), ("archive.tar.zst.age", 3_000_000), ("RESULT.txt", 4096), ("report.html", 9000)];
    let files = sizes.map(|(name, size)| NewFile { name: name.to_owned(), size }).to_vec();
    let layout =
        Layout::new(fat::format::Stick { len: 64 << 20, sector: 512, volume_id: 9, written: 0, files }).unwrap();
    File::create(&path).unwrap().set_len(64 << 20).unwrap();
    let mut device = Device::open(&path, OpenOptions::new().read(true).write(true), 0).unwrap();
    layout.write(&mut device, &mut |i| Ok(Box::new(io::repeat(b'a' + i as u8).take(sizes[i].1.into())))).unwrap();
    (dir, path)
}

fn open(path: &Path) -> Device {
    Device::open(path, OpenOptions::new().read(true), 0).unwrap()
}

/// Runs `work` in a child over an image; how it was damaged, when that is how it ended.
fn damaged(limits: Limits, work: impl FnOnce(&mut Mouth) -> Vec<u8>) -> String {
    let (_dir, path) = image();
    match run(&mut open(&path), Access::Read, limits, &mut |_| Ok(()), |_, mouth| work(mouth)) {
        Err(Unusable::Damaged(how)) => how,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stick_is_listed_read_and_reported_into() {
    let (_dir, path) = image();
    let stick = Stick::open(&path).unwrap();
    let listing = stick.list().unwrap();
    assert_eq!((listing.partition, listing.volume_id, listing.files.len()), (1, 9, 4));
    assert_eq!(listing.files[1], ("archive.tar.zst.age".to_owned(), 3_000_000));
    let mut bytes = Vec::new();
    let mut take = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    assert_eq!(stick.read("archive.tar.zst.age", 3_000_000, &mut take).unwrap(), 3_000_000);
    assert!(bytes.len() == 3_000_000 && bytes.iter().all(|b| *b == b'b'));

    let before = std::fs::read(&path).unwrap();
    stick.report(&[("report.html", b"<html>"), ("RESULT.txt", b"done")]).unwrap();
    let read = |name: &str| {
        let mut bytes = Vec::new();
        stick
            .read(name, 1 << 20, &mut |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
        bytes
    };
    assert_eq!(read("RESULT.txt"), [b"done".as_slice(), &[b'\n'; 4092]].concat());
    assert_eq!(read("report.html"), [b"<html>".as_slice(), &[b'\n'; 8994]].concat());
    let after = std::fs::read(&path).unwrap();
    let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert_eq!((before.len(), changed), (after.len(), 4096 + 9000));
}

#[test]
fn refusals_come_back_as_they_are_and_a_taker_may_stop() {
    let (_dir, path) = image();
    let stick = Stick::open(&path).unwrap();
    let code = |done: Result<u64, Unusable>| match done {
        Err(Unusable::Refused(refusal)) => refusal.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(stick.read("nothing", 10, &mut |_| Ok(()))), Code::NoFile);
    assert_eq!(code(stick.read("ticket.json", 999, &mut |_| Ok(()))), Code::FileTooLarge);
    let full = stick.read("archive.tar.zst.age", 1 << 30, &mut |_| Err(io::ErrorKind::StorageFull.into()));
    assert!(matches!(full, Err(Unusable::Failed(e)) if e.kind() == io::ErrorKind::StorageFull));
    let untouched = std::fs::read(&path).unwrap();
    assert!(
        matches!(stick.report(&[("RESULT.txt", &[0; 5000])]), Err(Unusable::Refused(r)) if r.code == Code::SlotTooSmall)
    );
    assert!(untouched == std::fs::read(&path).unwrap());
    std::fs::write(&path, [0; 4096]).unwrap();
    let empty = Stick::open(&path).unwrap();
    assert!(matches!(empty.list(), Err(Unusable::Refused(r)) if r.code == Code::NotRecognised));
    assert!(matches!(stick.report(&[]), Err(Unusable::Failed(_))), "another device in its place");
    assert!(Stick::open(Path::new("/dev/null")).is_err());
}

#[test]
fn a_child_that_hangs_is_ended() {
    let before = uptime_ms();
    let how = damaged(limits(300, 20_000), |_| {
        loop {
            std::hint::spin_loop();
        }
    });
    assert!(how.contains("silent") && uptime_ms() - before < 10_000, "{how}");
    let how = damaged(limits(2_000, 700), |mouth| {
        loop {
            mouth.word("still here");
            let until = Instant::now() + Duration::from_millis(100);
            while Instant::now() < until {}
        }
    });
    assert!(how.contains("not ready") || how.contains("kind 87"), "{how}");
    let how = damaged(Limits { cpu_seconds: 1, ..limits(20_000, 20_000) }, |_| {
        loop {
            std::hint::spin_loop();
        }
    });
    assert!(how.contains("signal SIG"), "{how}");
}

#[test]
fn a_child_that_panics_aborts_or_leaves_is_ended_without_an_answer() {
    let how = damaged(limits(10_000, 20_000), |_| panic!("on purpose"));
    assert!(how.contains("ended without an answer"), "{how}");
    let how = damaged(limits(10_000, 20_000), |_| std::process::abort());
    assert!(how.contains("signal SIG"), "{how}");
    let how = damaged(limits(10_000, 20_000), |_| {
        // SAFETY: takes no pointer.
        #[allow(unsafe_code)]
        unsafe {
            libc::_exit(0)
        }
    });
    assert!(how.contains("status 0"), "{how}");
    let said = Unusable::Damaged(how).to_string();
    assert!(said.starts_with("the stick is damaged or not ours; next: "), "{said}");
}

#[test]
fn lies_and_long_answers_are_not_believed() {
    let how = damaged(limits(10_000, 20_000), |mouth| {
        mouth.raw(&[b'A', 1, 0, 16, 0]);
        loop {
            mouth.raw(&[b'x'; 4096]);
        }
    });
    assert!(how.contains("1048577 bytes, at most 1048576"), "{how}");
    let how = damaged(limits(10_000, 20_000), |mouth| {
        (0..=16).for_each(|_| mouth.data(&[0; 64 << 10]));
        Vec::new()
    });
    assert!(how.contains("at most 0"), "more than was asked for: {how}");
    for lie in [b"A\xff\xff\xff\xff".as_slice(), b"Z\0\0\0\0", b"A\x05\0\0\0abc", b""] {
        let how = damaged(limits(10_000, 20_000), |mouth| {
            mouth.raw(lie);
            // SAFETY: takes no pointer.
            #[allow(unsafe_code)]
            unsafe {
                libc::_exit(0)
            }
        });
        assert!(
            how.contains("at most") || how.contains("kind 90") || how.contains("without an answer"),
            "{lie:?}: {how}"
        );
    }
    let (_dir, path) = image();
    let nonsense = run(&mut open(&path), Access::Read, limits(10_000, 20_000), &mut |_| Ok(()), |_, _| b"{".to_vec());
    assert_eq!(nonsense.unwrap(), b"{");
    let told: Result<u8, Unusable> =
        ask(&mut open(&path), Access::Read, limits(10_000, 20_000), &mut |_| Ok(()), |_, _| {
            Err(Refusal::new(Code::Shared, Place::Fat, ""))
        });
    assert!(matches!(told, Err(Unusable::Refused(r)) if r.code == Code::Shared));
}

#[test]
fn the_filter_kills_what_opens_connects_forks_signals_or_writes() {
    type Try = fn();
    let tries: [(&str, Try); 6] = [
        ("openat", || drop(File::open("/etc/passwd"))),
        ("socket", || drop(std::net::TcpStream::connect("127.0.0.1:1"))),
        ("fork", || drop(std::process::Command::new("/bin/true").spawn())),
        ("kill", || {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(1), None);
        }),
        ("ioctl", || {
            let _ = nix::unistd::isatty(io::stdin());
        }),
        ("mmap of a file or executable", || {
            // SAFETY: a new mapping that nothing uses.
            #[allow(unsafe_code)]
            unsafe {
                libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
            };
        }),
    ];
    for (name, attempt) in tries {
        let how = damaged(limits(10_000, 20_000), |_| {
            attempt();
            b"it lives".to_vec()
        });
        assert!(how.contains("SIGSYS"), "{name}: {how}");
    }
    // Writing to the device is no call of a child that reads.
    let (_dir, path) = image();
    let writes = |access| {
        let mut device = Device::open(&path, OpenOptions::new().read(true).write(true), 0).unwrap();
        run(&mut device, access, limits(10_000, 20_000), &mut |_| Ok(()), |device, _| {
            format!("{:?}", device.write_at(0, b"x")).into_bytes()
        })
    };
    assert!(matches!(writes(Access::Read), Err(Unusable::Damaged(how)) if how.contains("SIGSYS")));
    assert_eq!(writes(Access::Write).unwrap(), b"Ok(())");
}

#[test]
fn memory_is_limited() {
    let (_dir, path) = image();
    let reserve = |bytes: usize| {
        let mut device = open(&path);
        run(&mut device, Access::Read, limits(10_000, 20_000), &mut |_| Ok(()), |_, _| {
            let mut block: Vec<u8> = Vec::new();
            vec![u8::from(block.try_reserve_exact(bytes).is_err())]
        })
        .unwrap()
    };
    assert_eq!((reserve(40 << 20), reserve(80 << 20)), (vec![0], vec![1]));
}

/// What the kernel says of the child while it waits.
#[test]
fn the_child_has_no_rights_no_descriptors_and_a_filter() {
    let (_dir, path) = image();
    let mut device = open(&path);
    let mut seen = Vec::new();
    let us = std::process::id().to_string();
    let mut look = |_: &[u8]| {
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Ok(status) = file::read_text(&entry.path().join("status")) else { continue };
            let value =
                |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default().trim().to_owned();
            if value("PPid:") == us && value("Seccomp:") == "2" {
                let open = std::fs::read_dir(entry.path().join("fd")).map(Iterator::count).ok();
                seen.push((value("Uid:"), value("NoNewPrivs:"), value("CapEff:"), value("Groups:"), open));
            }
        }
        Ok(())
    };
    let ended = run(&mut device, Access::Read, limits(3_000, 3_000), &mut look, |_, mouth| {
        mouth.data(b"look at me");
        loop {
            std::hint::spin_loop();
        }
    });
    assert!(ended.is_err());
    // Other tests of this process have children too, in various states: one of them at least is ours and complete.
    let root = nix::unistd::Uid::effective().is_root();
    let whole = seen.iter().find(|s| s.1 == "1" && s.2.trim_start_matches('0').is_empty());
    let (uid, _, _, groups, open) = whole.unwrap_or_else(|| panic!("{seen:?}"));
    assert!(!root || (uid == "65534\t65534\t65534\t65534" && groups.is_empty()), "{seen:?}");
    assert!(open.is_none_or(|n| n == 2), "{seen:?}");
}
