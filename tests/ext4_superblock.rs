//! Oracle: what our reader sees in a superblock equals what e2fsprogs prints, on real file systems in image files
//! (no root needed). And whatever the bytes: a value, never a panic.
// The oracle runs programs and reads images by itself; clippy takes the helpers of a test for production code.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use pyvorin_recovery::ext4::{Checksum, FileSystem, HEAD_LEN, Superblock};
use tempfile::TempDir;

/// Runs a program of e2fsprogs; their place is not on the path of every user.
fn run(program: &str, args: &[&str], image: &Path) -> String {
    let output = Command::new(program)
        .args(args)
        .arg(image)
        .env("PATH", "/sbin:/usr/sbin:/bin:/usr/bin")
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}; install e2fsprogs"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn debugfs(image: &Path, request: &str) {
    run("debugfs", &["-w", "-R", request], image);
}

fn make(dir: &TempDir, name: &str, args: &[&str]) -> PathBuf {
    let image = dir.path().join(name);
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&image).unwrap();
    file.set_len(24 << 20).unwrap();
    run("mkfs.ext4", &[&["-q", "-F"], args].concat(), &image);
    image
}

fn head(image: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(image).unwrap();
    bytes.truncate(HEAD_LEN);
    bytes
}

fn superblock(image: &Path) -> Superblock {
    FileSystem::detect(&head(image)).ext().expect("a superblock").clone()
}

/// `dumpe2fs -h` as a lookup of its `Key:   value` lines.
fn oracle(image: &Path) -> impl Fn(&str) -> String {
    let text = run("dumpe2fs", &["-h"], image);
    move |key| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned()).unwrap_or_default()
    }
}

#[test]
fn fields_equal_those_of_dumpe2fs() {
    let dir = TempDir::new().unwrap();
    let variants: [(&str, &[&str]); 8] = [
        ("plain", &["-L", "PYV-DATA"]),
        ("blocks-1k", &["-b", "1024", "-L", "sixteen-letters!"]),
        ("no-checksums", &["-O", "^metadata_csum"]),
        ("no-64bit", &["-O", "^64bit"]),
        ("no-journal", &["-O", "^has_journal"]),
        ("checksum-seed", &["-O", "metadata_csum_seed,metadata_csum"]),
        ("ext2", &["-t", "ext2"]),
        ("ext3", &["-t", "ext3", "-U", "12345678-9abc-def0-1234-56789abcdef0"]),
    ];
    for (name, args) in variants {
        let image = make(&dir, name, args);
        let (sb, said) = (superblock(&image), oracle(&image));
        let label = said("Filesystem volume name");
        assert_eq!(sb.label, if label == "<none>" { "" } else { &label }, "{name}");
        assert_eq!(sb.uuid_text(), said("Filesystem UUID"), "{name}");
        assert_eq!(sb.block_size.to_string(), said("Block size"), "{name}");
        assert_eq!(sb.blocks.to_string(), said("Block count"), "{name}");
        assert_eq!(sb.blocks_per_group.to_string(), said("Blocks per group"), "{name}");
        assert_eq!(sb.mount_count.to_string(), said("Mount count"), "{name}");
        let features = said("Filesystem features");
        let has = |feature: &str| features.split_whitespace().any(|word| word == feature);
        assert_eq!(sb.has_journal(), has("has_journal"), "{name}");
        assert_eq!(sb.needs_recovery(), has("needs_recovery"), "{name}");
        let checksum = if has("metadata_csum") { Checksum::Matches } else { Checksum::Absent };
        assert_eq!(sb.checksum, checksum, "{name}: {features}");
        assert_eq!(said("Filesystem state"), "clean");
        assert!(sb.is_clean(), "{name}");
        assert!(!sb.defaults_to_writeback() && !sb.defaults_to_nobarrier(), "{name}");
        assert_eq!((sb.mount_time, sb.last_orphan, sb.error_count), (0, 0, 0), "{name}");
        assert!(sb.write_time > 1_600_000_000 && sb.check_time <= sb.write_time, "{name}");
    }
}

#[test]
fn an_unclean_volume_is_not_clean() {
    let dir = TempDir::new().unwrap();
    let image = make(&dir, "dirty", &["-L", "PYV-DATA"]);
    debugfs(&image, "feature needs_recovery");
    let sb = superblock(&image);
    assert!(sb.needs_recovery() && !sb.is_clean() && !sb.has_errors());
    assert_eq!(sb.checksum, Checksum::Matches);
    // The check that a plan would run replays the (empty) journal, and then the volume is clean.
    run("e2fsck", &["-p"], &image);
    assert!(superblock(&image).is_clean());

    debugfs(&image, "set_super_value state 0");
    assert!(!superblock(&image).is_clean());
    debugfs(&image, "set_super_value state 3");
    assert!(superblock(&image).has_errors() && !superblock(&image).is_clean());
}

#[test]
fn recorded_errors_are_read() {
    let dir = TempDir::new().unwrap();
    let image = make(&dir, "errors", &[]);
    let fields = [
        "error_count 7",
        "first_error_time 20260102030405",
        "first_error_func ext4_lookup",
        "first_error_line 1611",
        "first_error_ino 12",
        "first_error_block 99",
        "last_error_time 20260203040506",
        "last_error_func ext4_find_extent",
        "last_error_line 880",
        "last_error_ino 13",
        "last_error_block 4294967297",
    ];
    for field in fields {
        debugfs(&image, &format!("set_super_value {field}"));
    }
    let (sb, said) = (superblock(&image), oracle(&image));
    assert!(sb.has_errors() && !sb.is_clean());
    assert_eq!(sb.error_count, 7);
    assert_eq!(said("FS Error count"), "7");
    assert_eq!((sb.first_error.line, sb.first_error.inode, sb.first_error.block), (1611, 12, 99));
    assert_eq!(sb.first_error.function, "ext4_lookup");
    assert_eq!(sb.first_error.time, 1_767_323_045);
    assert_eq!((sb.last_error.line, sb.last_error.inode, sb.last_error.block), (880, 13, 4_294_967_297));
    assert_eq!(sb.last_error.function, said("Last error function"));
    assert_eq!(sb.last_error.time, 1_770_091_506);
}

#[test]
fn dangerous_defaults_are_seen() {
    let dir = TempDir::new().unwrap();
    for (set, writeback, nobarrier) in [
        (["-o", "journal_data_writeback"], true, false),
        (["-o", "journal_data_ordered"], false, false),
        (["-o", "journal_data"], false, false),
        (["-o", "nobarrier"], false, true),
    ] {
        let image = make(&dir, set[1], &[]);
        run("tune2fs", &set, &image);
        let sb = superblock(&image);
        assert_eq!((sb.defaults_to_writeback(), sb.defaults_to_nobarrier()), (writeback, nobarrier), "{set:?}");
        assert!(sb.is_clean());
    }
    // Options kept as text, whole words only.
    for (text, writeback, nobarrier) in [
        ("errors=remount-ro,data=writeback", true, false),
        ("nodata=writebacks,nobarriers", false, false),
        ("barrier=0", false, true),
    ] {
        let image = make(&dir, text, &[]);
        debugfs(&image, &format!("set_super_value mount_opts {text}"));
        let sb = superblock(&image);
        assert_eq!(sb.mount_opts, text);
        assert_eq!((sb.defaults_to_writeback(), sb.defaults_to_nobarrier()), (writeback, nobarrier), "{text}");
    }
}

#[test]
fn every_backup_superblock_reads_the_same() {
    let dir = TempDir::new().unwrap();
    let image = make(&dir, "backups", &["-b", "1024", "-L", "PYV-DATA"]);
    let primary = superblock(&image);
    let bytes = std::fs::read(&image).unwrap();
    // Group 1 holds the first backup; with 1 KiB blocks the groups begin at block 1.
    let at = (primary.blocks_per_group as usize + 1) * 1024;
    let backup = Superblock::parse(&bytes[at..]).expect("a backup superblock");
    assert_eq!((&backup.label, backup.uuid, backup.blocks), (&primary.label, primary.uuid, primary.blocks));
    assert_eq!(backup.checksum, Checksum::Matches);
}

#[test]
fn other_contents_are_named() {
    let blank = vec![0; HEAD_LEN];
    let with = |at: usize, magic: &[u8]| {
        let mut bytes = blank.clone();
        bytes[at..at + magic.len()].copy_from_slice(magic);
        bytes
    };
    assert_eq!(FileSystem::detect(&blank), FileSystem::Blank);
    assert_eq!(FileSystem::detect(&[]), FileSystem::Unknown);
    assert_eq!(FileSystem::detect(&[0; 2047]), FileSystem::Unknown);
    assert_eq!(FileSystem::detect(&with(1024, &[0x10, 0x20, 0xF5, 0xF2])), FileSystem::F2fs);
    assert_eq!(FileSystem::detect(&with(0x1_0040, b"_BHRfS_M")), FileSystem::Btrfs);
    assert_eq!(FileSystem::detect(&with(0, b"LUKS\xba\xbe\0\x02")), FileSystem::Luks);
    assert_eq!(FileSystem::detect(&with(5000, b"x")), FileSystem::Unknown);
    let mut fat = with(0, &[0xEB, 0x58, 0x90]);
    fat[82..90].copy_from_slice(b"FAT32   ");
    assert_eq!(FileSystem::detect(&fat), FileSystem::Unknown);
    fat[510..512].copy_from_slice(&[0x55, 0xAA]);
    assert_eq!(FileSystem::detect(&fat), FileSystem::Fat);
}

#[test]
fn flipped_bytes_never_panic_and_never_pass_the_checksum() {
    let dir = TempDir::new().unwrap();
    let sound = head(&make(&dir, "flips", &["-L", "PYV-DATA"]));
    let primary = FileSystem::detect(&sound).ext().cloned().unwrap();
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for _ in 0..20_000 {
        let mut bytes = sound[..2048].to_vec();
        for _ in 0..=next(4) {
            bytes[1024 + next(1024)] ^= 1 << next(8);
        }
        let changed = bytes != sound[..2048];
        if let Some(sb) = FileSystem::detect(&bytes).ext()
            && changed
            && sb.feature_ro_compat == primary.feature_ro_compat
        {
            assert_eq!(sb.checksum, Checksum::Differs);
            assert!(!sb.is_clean());
        }
    }
    for len in 0..2100 {
        let _ = FileSystem::detect(&sound[..len]);
    }
    for _ in 0..2_000 {
        let mut bytes: Vec<u8> = (0..2048).map(|_| next(256).to_le_bytes()[0]).collect();
        bytes[1024 + 0x38..1024 + 0x3A].copy_from_slice(&[0x53, 0xEF]);
        let sb = FileSystem::detect(&bytes).ext().cloned().expect("the magic is there");
        let json = serde_json::to_string(&FileSystem::Ext(Box::new(sb.clone()))).unwrap();
        let back: FileSystem = serde_json::from_str(&json).unwrap();
        assert_eq!(back.ext(), Some(&sb));
    }
}
