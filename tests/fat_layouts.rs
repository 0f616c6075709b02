//! Volumes made by mkfs.fat, mtools and sfdisk are read as mtools reads them; reports put into them in place are read
//! back by mtools, leave fsck.fat content, and change no other byte; sticks of our own making please the same tools.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use pyvorin_recovery::fat::format::{Layout, NewFile, Stick};
use pyvorin_recovery::fat::overwrite::{INCOMPLETE, Overwrite};
use pyvorin_recovery::fat::{self, Blocks, BlocksMut, Code, Contents, Kind, Limits, Stream};
use support::stick::{Image, must, noise, same};
use tempfile::TempDir;

/// An image file as a device.
struct Device {
    file: fs::File,
    written: Vec<(u64, usize)>,
}

impl Device {
    fn open(image: &Image) -> Device {
        Device { file: fs::File::options().read(true).write(true).open(&image.path).unwrap(), written: Vec::new() }
    }
}

impl Blocks for Device {
    fn len(&self) -> u64 {
        self.file.metadata().unwrap().len()
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

impl BlocksMut for Device {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.written.push((offset, bytes.len()));
        self.file.write_all_at(bytes, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn read(device: &mut dyn Blocks, contents: &Contents, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    Stream::new(device, contents.file(name).unwrap(), 1 << 30).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

const DIRECTORY: &str = "PYVORIN-RESTORE";
const LONG_NAME: &str = "a name that is rather long, with thirteen times two letters, ä ö ü and more.tar.zst.age";

/// Our directory with a ticket, an archive in pieces, reports and some neighbours.
fn fill(image: &Image, sector: u64, archive: usize) -> Vec<(String, Vec<u8>)> {
    image.mkdir(DIRECTORY);
    image.put("holiday.jpg", &noise(1, 70_000));
    image.mkdir("Photos");
    image.put("Photos/other.jpg", &noise(2, 33_000));
    let mut files = Vec::new();
    let mut put = |name: &str, bytes: Vec<u8>| {
        image.put(&format!("{DIRECTORY}/{name}"), &bytes);
        files.push((name.to_owned(), bytes));
    };
    put("ticket.json", noise(3, 1_234));
    put("gap one", noise(4, 50_000));
    put("README.txt", noise(5, 4_096));
    put("gap two", noise(6, 50_000));
    put("RESULT.txt", vec![b'\n'; 65_536]);
    put("report.json", vec![b'\n'; 65_536]);
    // Holes, so that what follows lies in pieces.
    for name in ["gap one", "gap two"] {
        image.delete(&format!("{DIRECTORY}/{name}"));
    }
    image.rewind(sector);
    files.retain(|(name, _)| !name.starts_with("gap"));
    let mut put = |name: &str, bytes: Vec<u8>| {
        image.put(&format!("{DIRECTORY}/{name}"), &bytes);
        files.push((name.to_owned(), bytes));
    };
    put("report.html", vec![b'\n'; 70_001]);
    put("archive.tar.zst.age", noise(7, archive));
    put("ticket.json.minisig", noise(8, 300));
    put(LONG_NAME, noise(9, 5_000));
    put("EMPTY.BIN", Vec::new());
    image.mkdir(&format!("{DIRECTORY}/sub"));
    files
}

struct Case {
    name: &'static str,
    len: u64,
    table: Option<(&'static str, usize)>,
    mkfs: &'static str,
    blocks: Option<u64>,
    kind: Kind,
    cluster: u32,
}

const MB: u64 = 1 << 20;
const MBR: &str = "label: dos\nstart=2048, size=819200, type=c\n";
const MBR_TWO: &str = "label: dos\nstart=2048, size=65536, type=83\nstart=67584, size=614400, type=6\n";
const GPT: &str = "label: gpt\nstart=2048, size=65536, type=L\nstart=67584, size=700000, type=U\n";

const CASES: &[Case] = &[
    Case {
        name: "fat16-4k",
        len: 200 * MB,
        table: None,
        mkfs: "-F 16 -s 8",
        blocks: None,
        kind: Kind::Fat16,
        cluster: 4096,
    },
    Case {
        name: "fat16-32k",
        len: 300 * MB,
        table: None,
        mkfs: "-F 16 -s 64",
        blocks: None,
        kind: Kind::Fat16,
        cluster: 32768,
    },
    Case {
        name: "fat16-one-copy",
        len: 64 * MB,
        table: None,
        mkfs: "-F 16 -s 4 -f 1",
        blocks: None,
        kind: Kind::Fat16,
        cluster: 2048,
    },
    Case {
        name: "fat32-512",
        len: 160 * MB,
        table: None,
        mkfs: "-F 32 -s 1",
        blocks: None,
        kind: Kind::Fat32,
        cluster: 512,
    },
    Case {
        name: "fat32-4k",
        len: 300 * MB,
        table: None,
        mkfs: "-F 32 -s 8",
        blocks: None,
        kind: Kind::Fat32,
        cluster: 4096,
    },
    Case {
        name: "fat32-32k",
        len: 2200 * MB,
        table: None,
        mkfs: "-F 32 -s 64",
        blocks: None,
        kind: Kind::Fat32,
        cluster: 32768,
    },
    Case {
        name: "fat32-sector-4096",
        len: 400 * MB,
        table: None,
        mkfs: "-F 32 -S 4096 -s 1",
        blocks: None,
        kind: Kind::Fat32,
        cluster: 4096,
    },
    Case {
        name: "fat16-sector-2048",
        len: 200 * MB,
        table: None,
        mkfs: "-F 16 -S 2048 -s 4",
        blocks: None,
        kind: Kind::Fat16,
        cluster: 8192,
    },
    Case {
        name: "mbr-fat32",
        len: 401 * MB,
        table: Some((MBR, 1)),
        mkfs: "-F 32 -s 8",
        blocks: Some(409_600),
        kind: Kind::Fat32,
        cluster: 4096,
    },
    Case {
        name: "mbr-second-fat16",
        len: 340 * MB,
        table: Some((MBR_TWO, 2)),
        mkfs: "-F 16 -s 16",
        blocks: Some(307_200),
        kind: Kind::Fat16,
        cluster: 8192,
    },
    Case {
        name: "gpt-second-fat32",
        len: 400 * MB,
        table: Some((GPT, 2)),
        mkfs: "-F 32 -s 8",
        blocks: Some(350_000),
        kind: Kind::Fat32,
        cluster: 4096,
    },
];

fn made(dir: &TempDir, case: &Case) -> Image {
    let image = Image::new(dir.path(), case.name, case.len);
    let image = match case.table {
        Some((script, number)) => image.partitioned(script, number),
        None => image,
    };
    image.mkfs(case.mkfs, case.blocks);
    image
}

#[test]
fn volumes_of_other_tools_are_read_and_reported_into_without_touching_another_byte() {
    for case in CASES {
        let dir = TempDir::new().unwrap();
        let image = made(&dir, case);
        let sector = if case.mkfs.contains("-S 4096") { 4096 } else { 512 };
        let files = fill(&image, sector, 3 << 20);
        let mut device = Device::open(&image);
        let contents = fat::survey(&mut device, &Limits::default())
            .unwrap()
            .one()
            .unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let geometry = &contents.geometry;
        assert_eq!(
            (geometry.kind, geometry.cluster, geometry.volume_id),
            (case.kind, case.cluster, 0x1234_abcd),
            "{}",
            case.name
        );
        assert_eq!(contents.partition.offset, image.offset, "{}", case.name);
        let mut names: Vec<_> = contents.files.iter().map(|f| f.name.clone()).collect();
        let mut truth: Vec<_> = files.iter().map(|f| f.0.clone()).collect();
        names.sort();
        truth.sort();
        assert_eq!(names, truth, "{}", case.name);
        for (name, bytes) in &files {
            assert!(read(&mut device, &contents, name) == *bytes, "{}: {name}", case.name);
            assert!(image.get(&format!("{DIRECTORY}/{name}")) == *bytes, "{}: {name} by mtools", case.name);
        }
        let pieces: Vec<_> = contents.files.iter().map(|f| f.extents.len()).collect();
        assert!(pieces.iter().any(|n| *n > 1), "{}: nothing lies in pieces: {pieces:?}", case.name);

        let expected = image.copy();
        let reports: [(&str, &[u8]); 3] = [
            ("report.html", &noise(10, 70_001)),
            ("report.json", b"{\"complete\":true}"),
            ("result.TXT", &noise(11, 40_000)),
        ];
        let plan = Overwrite::plan(&mut device, &contents, &reports).unwrap();
        plan.write(&mut device).unwrap();
        plan.verify(&mut device).unwrap();
        let wanted = fs::File::options().write(true).open(&expected).unwrap();
        for (name, bytes) in &reports {
            let mut padded = bytes.to_vec();
            let size = files.iter().find(|f| f.0.eq_ignore_ascii_case(name)).unwrap().1.len();
            padded.resize(size, b'\n');
            assert!(image.get(&format!("{DIRECTORY}/{name}")) == padded, "{}: {name}", case.name);
            let mut rest = padded.as_slice();
            for extent in &contents.file(name).unwrap().extents {
                let (now, later) = rest.split_at(extent.len as usize);
                wanted.write_all_at(now, extent.offset).unwrap();
                rest = later;
            }
        }
        assert!(same(&image.path, &expected), "{}: another byte changed", case.name);
        for (name, bytes) in files.iter().filter(|f| !f.0.to_lowercase().starts_with("re") || f.0 == "README.txt") {
            assert!(image.get(&format!("{DIRECTORY}/{name}")) == *bytes, "{}: {name} afterwards", case.name);
        }
        assert!(image.get("holiday.jpg") == noise(1, 70_000) && image.get("Photos/other.jpg") == noise(2, 33_000));
        let (clean, said) = image.fsck(case.blocks.map_or(case.len, |n| n * 1024));
        assert!(clean, "{}: {said}", case.name);
        println!(
            "{}: {} files, {} bytes, most pieces {}",
            case.name,
            files.len(),
            case.len,
            pieces.iter().max().unwrap()
        );
    }
}

/// The order of writing, by a device that stops after `left` writes.
struct Pulled {
    bytes: Vec<u8>,
    left: usize,
}

impl Blocks for Pulled {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        Blocks::read_at(&mut self.bytes, offset, buf)
    }
}

impl BlocksMut for Pulled {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(|| io::Error::other("pulled"))?;
        BlocksMut::write_at(&mut self.bytes, offset, bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stick_pulled_at_any_write_shows_the_old_report_the_new_one_or_one_that_says_it_is_incomplete() {
    let dir = TempDir::new().unwrap();
    let image = Image::new(dir.path(), "pulled", 20 * MB);
    image.mkfs("-F 16 -s 4", None);
    fill(&image, 512, 100_000);
    let old = image.bytes();
    let mut device = old.clone();
    let contents = fat::survey(&mut device, &Limits::default()).unwrap().one().unwrap();
    let (first, second) = (noise(20, 70_001), noise(21, 70_001));
    Overwrite::plan(&mut old.clone(), &contents, &[("report.html", &first)]).unwrap().write(&mut device).unwrap();
    let plan = Overwrite::plan(&mut old.clone(), &contents, &[("report.html", &second)]).unwrap();
    let mut seen = [0; 3];
    for left in 0..1000 {
        let mut pulled = Pulled { bytes: device.clone(), left };
        let done = plan.write(&mut pulled);
        let report = read(&mut pulled.bytes.clone(), &contents, "report.html");
        let kind = [report == first, report == second, report.starts_with(INCOMPLETE.as_bytes())];
        assert_eq!(kind.iter().filter(|k| **k).count(), 1, "after {left} writes");
        seen.iter_mut().zip(kind).for_each(|(n, k)| *n += usize::from(k));
        match done {
            Ok(()) => break,
            Err(refusal) => assert_eq!(refusal.code, Code::Unwritable),
        }
    }
    assert!(seen.iter().all(|n| *n > 0) && seen[2] > 1, "{seen:?}");
}

#[test]
fn plans_that_cannot_be_kept_are_refused_before_a_byte_is_written() {
    let dir = TempDir::new().unwrap();
    let image = Image::new(dir.path(), "plans", 20 * MB);
    image.mkfs("-F 16 -s 4", None);
    fill(&image, 512, 100_000);
    let contents = fat::survey(&mut image.bytes(), &Limits::default()).unwrap().one().unwrap();
    let code = |reports: &[(&str, &[u8])]| Overwrite::plan(&mut image.bytes(), &contents, reports).unwrap_err().code;
    assert_eq!(code(&[("RESULT.txt", b"x"), ("missing.txt", b"x")]), Code::NoFile);
    assert_eq!(code(&[("RESULT.txt", &[0; 65_537])]), Code::SlotTooSmall);
    assert_eq!(code(&[("RESULT.txt", b"x"), ("result.txt", b"y")]), Code::NameTwice);
    let refusal = Stream::new(&mut image.bytes(), contents.file("ticket.json").unwrap(), 1_233).unwrap_err();
    assert_eq!(refusal.code, Code::FileTooLarge);
    assert_eq!(
        refusal.to_string(),
        "/PYVORIN-RESTORE/ticket.json: the file is larger than it may be (1234 bytes, at most 1233); next: make the stick \
         again with `stick format` and `stick prepare`"
    );
}

fn format(image: &Image, stick: &Stick, contents: &[Vec<u8>]) {
    let layout = Layout::new(stick.clone()).unwrap();
    let mut device = Device::open(image);
    layout.write(&mut device, &mut |i| Ok(Box::new(contents[i].as_slice()))).unwrap();
    assert_eq!(device.written.iter().map(|w| w.1 as u64).sum::<u64>(), layout.written() + u64::from(stick.sector));
}

#[test]
fn our_own_sticks_please_fsck_and_mtools_and_are_the_same_twice() {
    for (name, len, sector, cluster) in [
        ("smallest", 38 * MB, 512, 512),
        ("64m", 64 * MB + 12_345 * 512, 512, 1024),
        ("1g", 1000 * MB, 512, 8192),
        ("4g", 4000 * MB, 512, 32768),
        ("64g", 64_000 * MB, 512, 32768),
        ("4k-sectors", 8000 * MB, 4096, 32768),
    ] {
        let dir = TempDir::new().unwrap();
        let image = Image { offset: MB, ..Image::new(dir.path(), name, len) };
        let sizes = [
            ("ticket.json", 1_234_u32),
            ("ticket.json.minisig", 300),
            ("archive.tar.zst.age", 3_000_001),
            ("README.txt", 32_768),
            ("RESULT.txt", 65_536),
            ("report.json", 65_536),
            ("report.html", 65_536),
            ("EMPTY", 0),
            (LONG_NAME, 77),
        ];
        let files = sizes.iter().map(|(name, size)| NewFile { name: (*name).to_owned(), size: *size }).collect();
        let stick = Stick { len, sector, volume_id: 0xcafe_0042, written: 1_790_000_000, files };
        let contents: Vec<_> = sizes.iter().zip(0..).map(|((_, size), i)| noise(i, *size as usize)).collect();
        format(&image, &stick, &contents);

        let mut device = Device::open(&image);
        let read_back =
            fat::survey(&mut device, &Limits::default()).unwrap().one().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((read_back.geometry.cluster, read_back.geometry.sector), (cluster, sector), "{name}");
        assert_eq!(read_back.geometry.data % u64::from(cluster), 0, "{name}: clusters lie across borders");
        assert_eq!(read_back.geometry.volume_id, 0xcafe_0042);
        let listed = must("mdir", &["-b", "-i", &image.drive(), "::/PYVORIN-RESTORE"]);
        for ((file, size), bytes) in sizes.iter().zip(&contents) {
            assert_eq!(*size as usize, bytes.len());
            assert!(image.get(&format!("{DIRECTORY}/{file}")) == *bytes, "{name}: {file} by mtools");
            assert!(read(&mut device, &read_back, file) == *bytes, "{name}: {file}");
            assert!(!file.is_ascii() || listed.contains(&format!("/{file}\n")), "{name}: {file} in {listed}");
        }
        let dated = must("mdir", &["-i", &image.drive(), "::/PYVORIN-RESTORE"]);
        assert!(dated.contains("2026-09-21"), "{dated}");
        let partition = read_back.partition;
        let (clean, said) = image.fsck(partition.len);
        assert!(clean && !said.to_lowercase().contains("differ"), "{name}: {said}");
        let table = must("sfdisk", &["-d", image.name()]);
        assert!(table.contains("type=c") && partition.offset == MB, "{name}: {table}");

        if len < 100 * MB {
            let again = Image::new(dir.path(), "again", len);
            fs::write(&again.path, vec![0xA5; usize::try_from(len).unwrap()]).unwrap();
            format(&Image { offset: MB, ..again }, &stick, &contents);
            // Older bytes may stay where nothing is written, and nowhere else.
            let (one, two) = (image.bytes(), fs::read(dir.path().join("again")).unwrap());
            let kept = |i: usize| one[i] == 0 && two[i] == 0xA5;
            let from = (0..one.len()).find(|i| one[*i] != two[*i]).unwrap();
            let end = read_back.files.iter().flat_map(|f| &f.extents).map(|e| e.offset + e.len).max().unwrap();
            assert!(from as u64 >= end && (from..one.len()).all(|i| one[i] == two[i] || kept(i)), "{name}");
        }
        println!("{name}: {len} bytes, clusters of {cluster}");
    }
}

#[test]
fn sticks_that_cannot_be_made_are_refused() {
    let stick = |len, files: Vec<(&str, u32)>| Stick {
        len,
        sector: 512,
        volume_id: 1,
        written: 0,
        files: files.into_iter().map(|(name, size)| NewFile { name: name.to_owned(), size }).collect(),
    };
    let code = |stick| Layout::new(stick).unwrap_err().code;
    for len in [0, 1, MB, 34 * MB] {
        assert_eq!(code(stick(len, vec![])), Code::DeviceSize);
    }
    assert_eq!(code(stick(100 * MB, vec![("a", 100 << 20)])), Code::NoRoom);
    assert_eq!(code(stick(100 * MB, vec![("a", 1), ("A", 1)])), Code::NameTwice);
    for name in ["", "a/b", "a.", "x\u{7}", "a:b"] {
        assert_eq!(code(stick(100 * MB, vec![(name, 1)])), Code::NameForbidden, "{name:?}");
    }
    let layout = Layout::new(stick(40 * MB, vec![("a", 100)])).unwrap();
    for (bytes, wanted) in [(99, Code::Unreadable), (101, Code::NoRoom)] {
        let mut device = vec![0; 40 << 20];
        let done = layout.write(&mut device, &mut |_| Ok(Box::new(io::repeat(b'x').take(bytes))));
        assert_eq!(done.unwrap_err().code, wanted);
        // Nothing that looks like a stick was made.
        assert_eq!(fat::survey(&mut device, &Limits::default()).unwrap_err().code, Code::NotRecognised);
    }
}
