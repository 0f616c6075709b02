//! On a directory shaped like sysfs, with image files for devices.

use tempfile::TempDir;

use super::*;

/// `/sys/class/block/NAME` is a link to `devices/DISK[/NAME]`.
fn device(root: &Path, disk: &str, part: Option<(&str, &str)>, bytes: &[u8]) {
    let dir = root.join("sys/devices").join(disk);
    let (dir, name, uevent) = match part {
        Some((name, uevent)) => (dir.join(name), name, uevent),
        None => (dir, disk, "DEVTYPE=disk\n"),
    };
    fs::create_dir_all(dir.join("holders")).unwrap();
    file::write(&dir.join("uevent"), uevent.as_bytes()).unwrap();
    file::write(&dir.join("size"), b"2048\n").unwrap();
    fs::create_dir_all(root.join("class")).unwrap();
    std::os::unix::fs::symlink(&dir, root.join("class").join(name)).unwrap();
    fs::create_dir_all(root.join("dev")).unwrap();
    file::write(&root.join("dev").join(name), bytes).unwrap();
}

fn ext(label: &[u8], uuid: u8) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[1024 + 0x38..1024 + 0x3A].copy_from_slice(&[0x53, 0xEF]);
    bytes[1024 + 0x68..1024 + 0x78].fill(uuid);
    bytes[1024 + 0x78..1024 + 0x78 + label.len()].copy_from_slice(label);
    bytes
}

fn machine() -> (TempDir, Blocks) {
    let dir = TempDir::new().unwrap();
    let root = dir.path();
    let mut table = vec![0; 512];
    table[440..444].copy_from_slice(&0xCAFE_u32.to_le_bytes());
    table[510..].copy_from_slice(&[0x55, 0xAA]);
    device(root, "sda", None, &table);
    device(root, "sda", Some(("sda1", "PARTN=1\nPARTNAME=pyv data\n")), &ext(b"PYV-DATA", 1));
    device(root, "sda", Some(("sda2", "PARTN=2\nPARTNAME=twin\nPARTUUID=AB-02\n")), &ext(b"TWIN", 2));
    device(root, "sdb", None, &ext(b"TWIN", 3));
    device(root, "ram0", None, &ext(b"PYV-DATA", 4));
    let blocks = Blocks::new(&root.join("class"), &root.join("dev"));
    (dir, blocks)
}

#[test]
fn each_form_finds_its_device() {
    let (dir, mut blocks) = machine();
    let specs = [
        ("LABEL=PYV-DATA", "sda1"),
        ("UUID=02020202-0202-0202-0202-020202020202", "sda2"),
        ("PARTLABEL=pyv data", "sda1"),
        ("PARTLABEL=\"twin\"", "sda2"),
        ("PARTUUID=0000CAFE-01", "sda1"),
        ("PARTUUID=ab-02", "sda2"),
    ];
    for (spec, name) in specs {
        let found = wait_in(&mut blocks, &[spec], Duration::ZERO);
        assert_eq!(found, [Ok(dir.path().join("dev").join(name))], "{spec}");
    }
}

#[test]
fn two_of_one_label_are_an_error_and_not_a_guess() {
    let (dir, mut blocks) = machine();
    let dev = dir.path().join("dev");
    let found = wait_in(&mut blocks, &["LABEL=TWIN"], Duration::from_secs(20));
    assert_eq!(
        found,
        [Err(NotFound::Ambiguous { spec: "LABEL=TWIN".into(), devices: vec![dev.join("sda2"), dev.join("sdb")] })]
    );
}

#[test]
fn what_is_not_there_is_waited_for_and_what_makes_no_sense_is_not() {
    let (dir, mut blocks) = machine();
    let before = uptime_ms();
    for spec in ["", "LABEL=", "PYV-DATA", "SERIAL=x", "=x"] {
        let found = wait_in(&mut blocks, &[spec], Duration::from_secs(20));
        assert_eq!(found, [Err(NotFound::Malformed { spec: spec.into() })]);
    }
    assert!(uptime_ms() - before < 2_000);
    let root = dir.path().to_path_buf();
    let plug = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(150));
        device(&root, "sdc", None, &ext(b"LATE", 9));
    });
    let found = wait_in(&mut blocks, &["LABEL=LATE", "LABEL=PYV-DATA"], Duration::from_secs(20));
    plug.join().unwrap();
    assert!(found.iter().all(Result::is_ok), "{found:?}");
    assert!(uptime_ms() - before < 3_000);
    let found = wait_in(&mut blocks, &["LABEL=NEVER"], Duration::from_millis(80));
    assert_eq!(found, [Err(NotFound::Missing { spec: "LABEL=NEVER".into() })]);
    assert_eq!(
        find_device("/dev/no-such-device").unwrap_err().to_string(),
        "no block device answers to /dev/no-such-device"
    );
}

#[test]
fn a_held_or_empty_device_is_passed_over() {
    let (dir, mut blocks) = machine();
    file::write(&dir.path().join("class/sdb/holders/dm-0"), b"").unwrap();
    let found = wait_in(&mut blocks, &["LABEL=TWIN"], Duration::ZERO);
    assert_eq!(found, [Ok(dir.path().join("dev/sda2"))]);
}
