//! The crash model that every power-cut test rests on, proved by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::io;
use std::path::{Path, PathBuf};

use pyvorin_recovery::edge::sim::{CutMode, SimMachine, clean_ext4_head};
use pyvorin_recovery::edge::{Access, FileKind, Look, Machine, VolumeHead, durable};
use pyvorin_recovery::sqlite::read_vec;

const MODES: [CutMode; 3] = [CutMode::Applied, CutMode::Dropped, CutMode::Torn];

fn p(path: &str) -> &Path {
    Path::new(path)
}

/// A file that is durable, in a directory that is.
fn disk() -> SimMachine {
    SimMachine::new().with_file("/d/old", "old contents").with_dir("/e")
}

/// Runs `act`, cuts now, and gives the machine at its next start.
fn cut(mode: CutMode, seed: u64, act: impl FnOnce(&mut SimMachine)) -> SimMachine {
    let mut machine = disk();
    machine.cut_at(u64::MAX, mode, seed);
    act(&mut machine);
    machine.after_cut()
}

#[test]
fn what_is_not_synced_is_seen_and_then_dropped() {
    let mut machine = disk();
    machine.write(p("/d/old"), b"new").unwrap();
    machine.write(p("/d/more"), b"more").unwrap();
    assert_eq!(machine.bytes("/d/old").unwrap(), b"new");
    let after = machine.after_cut();
    assert_eq!(after.bytes("/d/old").unwrap(), b"old contents");
    assert_eq!(after.paths(), [PathBuf::from("/d/old")]);
}

#[test]
fn what_is_synced_is_kept_in_every_mode() {
    for mode in MODES {
        let after = cut(mode, 7, |m| {
            m.write(p("/d/new"), b"contents").unwrap();
            m.sync_file(p("/d/new")).unwrap();
            m.sync_dir(p("/d")).unwrap();
            m.write_at(p("/d/old"), 4, b"CONTENTS").unwrap();
            m.sync_file(p("/d/old")).unwrap();
        });
        assert_eq!(after.bytes("/d/new").unwrap(), b"contents");
        assert_eq!(after.bytes("/d/old").unwrap(), b"old CONTENTS");
    }
}

#[test]
fn a_synced_name_without_synced_contents_is_empty_or_partial() {
    let after = cut(CutMode::Dropped, 0, |m| {
        m.write(p("/d/new"), b"contents").unwrap();
        m.sync_dir(p("/d")).unwrap();
    });
    assert_eq!(after.bytes("/d/new").unwrap(), b"");
    let mut sizes = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let after = cut(CutMode::Torn, seed, |m| {
            m.write(p("/d/new"), &[7; 2048]).unwrap();
            m.sync_dir(p("/d")).unwrap();
        });
        sizes.insert(after.bytes("/d/new").unwrap().len());
    }
    assert!(sizes.contains(&0) && sizes.contains(&2048) && sizes.len() > 2, "{sizes:?}");
}

#[test]
fn synced_contents_without_a_synced_name_vanish() {
    let after = cut(CutMode::Dropped, 0, |m| {
        m.write(p("/d/new"), b"contents").unwrap();
        m.sync_file(p("/d/new")).unwrap();
        m.sync_dir(p("/e")).unwrap();
    });
    assert_eq!(after.bytes("/d/new"), None);
}

#[test]
fn a_torn_write_keeps_whole_sectors_and_nothing_in_between() {
    let mut mixed = 0;
    for seed in 0..200 {
        let mut machine = SimMachine::new().with_file("/f", vec![b'o'; 4096]);
        machine.cut_at(1, CutMode::Torn, seed);
        machine.write_at(p("/f"), 300, &[b'n'; 2000]).unwrap();
        machine.sync_file(p("/f")).unwrap_err();
        let bytes = machine.after_cut().bytes("/f").unwrap();
        assert_eq!(bytes.len(), 4096);
        assert!(bytes[..300].iter().chain(&bytes[2300..]).all(|b| *b == b'o'));
        let written = &bytes[300..2300];
        for sector in [0..212, 212..724, 724..1236, 1236..1748, 1748..2000] {
            let part = &written[sector];
            assert!(part.iter().all(|b| *b == part[0]));
        }
        mixed += u32::from(written.contains(&b'o') && written.contains(&b'n'));
    }
    assert!(mixed > 100, "only {mixed} of 200 seeds tear");
}

#[test]
fn a_rename_without_directory_sync_happens_or_does_not_and_is_never_half() {
    let mut outcomes = [0; 2];
    for seed in 0..64 {
        let after = cut(CutMode::Torn, seed, |m| {
            m.write(p("/d/tmp"), b"new").unwrap();
            m.sync_file(p("/d/tmp")).unwrap();
            m.sync_dir(p("/d")).unwrap();
            m.rename(p("/d/tmp"), p("/d/old")).unwrap();
        });
        let happened = after.bytes("/d/old").unwrap() == b"new";
        assert_eq!(after.bytes("/d/tmp").is_none(), happened);
        assert!(happened || after.bytes("/d/old").unwrap() == b"old contents");
        outcomes[usize::from(happened)] += 1;
    }
    assert!(outcomes.iter().all(|n| *n > 10), "{outcomes:?}");
}

#[test]
fn a_rename_between_directories_is_durable_at_both_ends_or_at_none() {
    for (synced, expected) in [(None, false), (Some("/d"), true), (Some("/e"), true)] {
        let after = cut(CutMode::Dropped, 0, |m| {
            m.rename(p("/d/old"), p("/e/old")).unwrap();
            if let Some(dir) = synced {
                m.sync_dir(p(dir)).unwrap();
            }
        });
        assert_eq!((after.bytes("/e/old").is_some(), after.bytes("/d/old").is_some()), (expected, !expected));
    }
}

#[test]
fn syncing_a_directory_never_turns_round_the_changes_of_one_name() {
    let after = cut(CutMode::Dropped, 0, |m| {
        m.write(p("/d/tmp"), b"x").unwrap();
        m.sync_file(p("/d/tmp")).unwrap();
        m.rename(p("/d/tmp"), p("/e/tmp")).unwrap();
        m.sync_dir(p("/e")).unwrap();
    });
    assert_eq!(after.paths(), [PathBuf::from("/d/old"), PathBuf::from("/e/tmp")]);
    let after = cut(CutMode::Applied, 0, |m| {
        m.write(p("/d/a"), b"x").unwrap();
        m.rename(p("/d/a"), p("/e/a")).unwrap();
        m.sync_dir(p("/e")).unwrap();
    });
    assert_eq!(after.bytes("/d/a"), None);
}

#[test]
fn name_changes_without_sync_are_lost_independently_of_their_order() {
    // link a -> b, unlink a: without a sync in between, the unlink alone may survive, and the file is gone.
    let gone = (0..64).filter(|seed| {
        let after = cut(CutMode::Torn, *seed, |m| {
            m.link(p("/d/old"), p("/e/kept")).unwrap();
            m.unlink(p("/d/old")).unwrap();
        });
        after.paths().is_empty()
    });
    assert!(gone.count() > 5);
    for seed in 0..64 {
        let after = cut(CutMode::Torn, seed, |m| {
            m.link(p("/d/old"), p("/e/kept")).unwrap();
            m.sync_dir(p("/e")).unwrap();
            m.unlink(p("/d/old")).unwrap();
        });
        assert_eq!(after.bytes("/e/kept").unwrap(), b"old contents");
    }
}

#[test]
fn a_removal_never_takes_a_file_that_it_did_not_name() {
    for seed in 0..64 {
        let after = cut(CutMode::Torn, seed, |m| {
            m.write(p("/d/tmp"), b"new").unwrap();
            m.sync_dir(p("/d")).unwrap();
            m.rename(p("/d/tmp"), p("/d/old")).unwrap();
            m.unlink(p("/d/old")).unwrap();
        });
        // With the rename lost, the removal of what it had brought has nothing to remove.
        assert!(after.bytes("/d/tmp").is_none() || after.bytes("/d/old").is_some());
    }
}

#[test]
fn hard_links_share_contents_and_are_counted() {
    let mut machine = disk();
    machine.link(p("/d/old"), p("/e/second")).unwrap();
    assert_eq!(machine.link(p("/d/old"), p("/e/second")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    let (first, second) = (machine.stat(p("/d/old")).unwrap().unwrap(), machine.stat(p("/e/second")).unwrap().unwrap());
    assert_eq!((first, first.nlink), (second, 2));
    machine.write_at(p("/e/second"), 0, b"NEW").unwrap();
    assert_eq!(machine.bytes("/d/old").unwrap(), b"NEW contents");
    machine.sync_file(p("/d/old")).unwrap();
    machine.unlink(p("/d/old")).unwrap();
    assert_eq!(machine.stat(p("/e/second")).unwrap().unwrap().nlink, 1);
    // The name was never synced: the contents survive under the old one alone.
    let after = machine.after_cut();
    assert_eq!(after.bytes("/d/old").unwrap(), b"NEW contents");
    assert_eq!(after.stat(p("/d/old")).unwrap().unwrap().nlink, 1);
}

#[test]
fn a_lost_directory_takes_its_synced_names_with_it() {
    let after = cut(CutMode::Dropped, 0, |m| {
        m.make_dir(p("/d/q")).unwrap();
        m.link(p("/d/old"), p("/d/q/old")).unwrap();
        m.sync_dir(p("/d/q")).unwrap();
    });
    assert_eq!(after.stat(p("/d/q")).unwrap(), None);
    assert_eq!(after.stat(p("/d/old")).unwrap().unwrap().nlink, 1);
}

#[test]
fn a_cut_at_a_sync_comes_before_its_effect_and_ends_every_call() {
    let mut machine = disk();
    machine.cut_at(2, CutMode::Dropped, 0);
    machine.write(p("/d/old"), b"1").unwrap();
    machine.sync_file(p("/d/old")).unwrap();
    machine.write(p("/d/old"), b"2").unwrap();
    let error = machine.sync_file(p("/d/old")).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::Other, "power cut"));
    assert!(machine.is_cut() && machine.stat(p("/d/old")).is_err() && machine.list(p("/d")).is_err());
    assert!(machine.write(p("/d/x"), b"").is_err() && machine.open(p("/d/old")).is_err());
    assert!(machine.engine_check(p("/d/old")).is_err() && machine.free_bytes(p("/d")).is_err());
    assert_eq!((machine.sync_count(), machine.op_count()), (2, 4));
    let after = machine.after_cut();
    assert_eq!(after.bytes("/d/old").unwrap(), b"1");
    assert_eq!((after.is_cut(), after.sync_count(), after.op_count()), (false, 0, 0));
}

#[test]
fn a_cut_after_a_call_comes_behind_its_effect() {
    for (n, expected) in [(1, "old contents"), (2, "1"), (3, "1")] {
        let mut machine = disk();
        machine.cut_after_op(n, CutMode::Dropped, 0);
        let run = |m: &mut SimMachine| {
            m.write(p("/d/old"), b"1")?;
            m.sync_file(p("/d/old"))?;
            m.write(p("/d/old"), b"2")
        };
        run(&mut machine).unwrap_err();
        assert_eq!((machine.is_cut(), machine.op_count()), (true, n));
        assert_eq!(machine.after_cut().bytes("/d/old").unwrap(), expected.as_bytes());
    }
}

#[test]
fn durable_replacement_leaves_old_or_new_at_every_cut() {
    let run = |machine: &mut SimMachine| durable::replace(machine, p("/d/old"), &[b'n'; 1500]);
    let mut uncut = disk();
    run(&mut uncut).unwrap();
    let (ops, syncs) = (uncut.op_count(), uncut.sync_count());
    assert_eq!((ops, syncs), (4, 2));
    assert_eq!(uncut.after_cut().bytes("/d/old").unwrap(), [b'n'; 1500]);
    let mut seen = [0; 2];
    for mode in MODES {
        for seed in 0..50 {
            for n in 1..=ops {
                for at_sync in [false, true] {
                    let mut machine = disk();
                    if at_sync {
                        machine.cut_at(n, mode, seed)
                    } else {
                        machine.cut_after_op(n, mode, seed)
                    }
                    let done = run(&mut machine).is_ok();
                    assert_eq!(done, at_sync && n > syncs);
                    let mut after = machine.after_cut();
                    let bytes = after.bytes("/d/old").unwrap();
                    let new = bytes == [b'n'; 1500];
                    assert!(new || bytes == b"old contents", "{mode:?} {seed} {n}");
                    assert!(new || !done);
                    seen[usize::from(new)] += 1;
                    run(&mut after).unwrap();
                }
            }
        }
    }
    println!("{} cuts left the old record, {} the new one", seen[0], seen[1]);
}

#[test]
fn a_replacement_without_the_first_sync_is_caught() {
    let caught = (0..50).any(|seed| {
        let after = cut(CutMode::Torn, seed, |m| {
            m.write(p("/d/tmp"), &[b'n'; 1500]).unwrap();
            m.rename(p("/d/tmp"), p("/d/old")).unwrap();
            m.sync_dir(p("/d")).unwrap();
        });
        let bytes = after.bytes("/d/old").unwrap();
        bytes != [b'n'; 1500] && bytes != b"old contents"
    });
    assert!(caught);
}

#[test]
fn the_same_calls_and_seed_leave_the_same_disk() {
    let story = |seed| {
        let after = cut(CutMode::Torn, seed, |m| {
            for i in 0..20_u8 {
                let path = PathBuf::from(format!("/e/{i}"));
                m.write(&path, &vec![i; 700 * usize::from(i)]).unwrap();
                if i % 3 == 0 {
                    m.rename(&path, p("/d/old")).unwrap();
                }
            }
        });
        after.paths().iter().map(|path| (path.clone(), after.bytes(path))).collect::<Vec<_>>()
    };
    assert_eq!(story(3), story(3));
    assert_ne!(story(3), story(4));
}

#[test]
fn lengths_owners_and_times_follow_the_changes() {
    let mut machine = disk();
    let before = machine.stat(p("/d/old")).unwrap().unwrap();
    machine.set_len(p("/d/old"), 3).unwrap();
    machine.set_owner(p("/d/old"), 1000, 100, 0o640).unwrap();
    let now = machine.stat(p("/d/old")).unwrap().unwrap();
    assert_eq!((now.len, now.uid, now.gid, now.mode, now.ino), (3, 1000, 100, 0o640, before.ino));
    assert!(now.mtime_ns > before.mtime_ns);
    machine.write_at(p("/d/old"), 5, b"x").unwrap();
    assert_eq!(machine.bytes("/d/old").unwrap(), b"old\0\0x");
    assert!(machine.stat(p("/d/old")).unwrap().unwrap().mtime_ns > now.mtime_ns);
    machine.copy(p("/d/old"), p("/e/copy")).unwrap();
    assert_eq!(machine.stat(p("/e/copy")).unwrap().unwrap().mode, 0o600);
    assert_eq!(read_vec(machine.open(p("/e/copy")).unwrap().as_ref(), 4, 10).unwrap(), b"\0x");
    assert_eq!(machine.after_cut().stat(p("/d/old")).unwrap().unwrap(), before);
}

#[test]
fn errors_have_the_kinds_of_the_kernel() {
    let mut m = disk().with_other("/d/pipe").with_unreadable("/d/old");
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(m.list(p("/none")).map(drop)), io::ErrorKind::NotFound);
    assert_eq!(kind(m.list(p("/d/old")).map(drop)), io::ErrorKind::NotADirectory);
    assert_eq!(kind(m.stat(p("/d/old/x")).map(drop)), io::ErrorKind::NotADirectory);
    assert_eq!(kind(m.open(p("/d")).map(drop)), io::ErrorKind::IsADirectory);
    assert_eq!(kind(m.open(p("/d/pipe")).map(drop)), io::ErrorKind::InvalidInput);
    assert_eq!(kind(m.open(p("/d/old")).map(drop)), io::ErrorKind::Other);
    assert_eq!(m.stat(p("/d/pipe")).unwrap().unwrap().kind, FileKind::Other);
    assert_eq!(kind(m.write(p("/none/x"), b"")), io::ErrorKind::NotFound);
    assert_eq!(kind(m.write_at(p("/d/none"), 0, b"")), io::ErrorKind::NotFound);
    assert_eq!(kind(m.make_dir(p("/d/old"))), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(m.remove_dir(p("/d"))), io::ErrorKind::DirectoryNotEmpty);
    assert_eq!(kind(m.unlink(p("/d"))), io::ErrorKind::IsADirectory);
    assert_eq!(kind(m.rename(p("/d"), p("/d/x"))), io::ErrorKind::InvalidInput);
    assert_eq!(kind(m.stat(p("/d/../d")).map(drop)), io::ErrorKind::InvalidInput);
    assert_eq!(kind(m.write_at(p("/d/old"), u64::MAX - 1, b"xyz")), io::ErrorKind::FileTooLarge);
    m.unlink(p("/d/none")).unwrap();
    m.remove_dir(p("/none")).unwrap();
    m.make_dir(p("/d")).unwrap();
    assert_eq!(m.list(p("/")).unwrap(), ["d", "e"]);
    let n = m.op_count() + 1;
    let mut m = m.with_failing_op(n, io::ErrorKind::StorageFull);
    assert_eq!(kind(m.write(p("/d/full"), b"x")), io::ErrorKind::StorageFull);
    assert_eq!(m.bytes("/d/full"), None);
}

#[test]
fn a_volume_must_be_attached_and_read_write_for_a_change() {
    let mut m = SimMachine::new().with_file("/data/db", "x").with_dir("/state").with_volume("data", "/data");
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!((m.stat(p("/data/db")).unwrap(), m.list(p("/data")).unwrap().len()), (None, 0));
    assert_eq!(kind(m.write(p("/data/db"), b"y")), io::ErrorKind::NotFound);
    m.attach("data", Access::ReadOnly).unwrap();
    assert_eq!(m.list(p("/data")).unwrap(), ["db"]);
    assert_eq!(kind(m.write(p("/data/db"), b"y")), io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(kind(m.make_dir(p("/data/q"))), io::ErrorKind::ReadOnlyFilesystem);
    m.write(p("/state/x"), b"y").unwrap();
    assert_eq!(kind(m.link(p("/data/db"), p("/state/db"))), io::ErrorKind::CrossesDevices);
    m.attach("data", Access::ReadWrite).unwrap();
    m.write(p("/data/db"), b"y").unwrap();
    m.detach("data").unwrap();
    assert_eq!((m.attached("data"), m.sync_count()), (None, 1));
    // Detaching one volume says nothing about the other.
    let mut after = m.after_cut();
    assert_eq!((after.bytes("/data/db").unwrap(), after.bytes("/state/x")), (b"y".to_vec(), None));
    assert_eq!(kind(after.attach("other", Access::ReadOnly)), io::ErrorKind::NotFound);
    let mut broken = after.with_broken_volume("data");
    assert_eq!(kind(broken.attach("data", Access::ReadOnly)), io::ErrorKind::NotFound);
    SimMachine::new().attach("data", Access::ReadWrite).unwrap();
}

#[test]
fn a_cut_while_attached_read_write_leaves_the_volume_unclean_until_fsck() {
    let clean = VolumeHead::Head(clean_ext4_head());
    let m = || SimMachine::new().with_volume("data", "/data").with_fsck_exits("data", &[4, 1]);
    assert_eq!(
        (m().volume_head("data"), SimMachine::new().volume_head("data")),
        (clean.clone(), VolumeHead::NotConfigured)
    );
    assert!(matches!(m().volume_head("state"), VolumeHead::Missing(_)));
    assert!(matches!(m().with_broken_volume("data").volume_head("data"), VolumeHead::Missing(_)));
    let junk = VolumeHead::Head(vec![1, 2, 3]);
    assert_eq!(m().with_volume_head("data", junk.clone()).volume_head("data"), junk);
    for (access, orderly, unclean) in
        [(Access::ReadOnly, false, false), (Access::ReadWrite, true, false), (Access::ReadWrite, false, true)]
    {
        let mut machine = m();
        machine.attach("data", access).unwrap();
        let mut next = if orderly { machine.after_shutdown() } else { machine.after_cut() };
        assert_eq!(next.volume_head("data") != clean, unclean, "{access:?}, orderly {orderly}");
        assert_eq!(next.fsck("data", &[], 1).unwrap(), 4);
        assert_eq!(next.volume_head("data") != clean, unclean, "damage left is not clean");
        assert_eq!(next.fsck("data", &[], 1).unwrap(), 1);
        assert_eq!(next.volume_head("data"), clean);
    }
}

#[test]
fn fsck_follows_its_script_and_refuses_an_attached_volume() {
    let mut m = SimMachine::new().with_volume("data", "/data").with_fsck_exits("data", &[4, 1]);
    let args = ["-p".to_owned()];
    assert_eq!([(); 3].map(|()| m.fsck("data", &args, 10).unwrap()), [4, 1, 0]);
    m.attach("data", Access::ReadOnly).unwrap();
    assert_eq!(m.fsck("data", &args, 10).unwrap(), 8);
    assert_eq!((m.fsck_calls().len(), m.fsck_calls()[0].1.as_slice()), (4, args.as_slice()));
}

#[test]
fn looking_counts_as_no_change() {
    let mut m = disk().with_holder("/d/old", "agent (7)");
    assert_eq!((m.holders(p("/d/old")), m.holders(p("/e"))), (vec!["agent (7)".to_owned()], vec![]));
    m.set_free_bytes(42);
    m.advance_ms(2500);
    m.progress("looking");
    let _ = (m.stat(p("/d/old")), m.list(p("/d")), m.open(p("/d/old")).is_ok());
    assert_eq!((m.free_bytes(p("/d")).unwrap(), m.uptime_ms(), m.op_count()), (42, 2500, 0));
    assert_eq!((m.clock(), m.progress_lines().len()), (1_767_225_602, 1));
    assert!(m.clone().after_shutdown().clock() > m.clock());
}
