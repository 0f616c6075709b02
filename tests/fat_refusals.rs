//! One stick, one thing wrong with it, one code: each refusal by the name of what was done.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeSet;
use std::io::{self, Read};

use pyvorin_recovery::fat::format::{Layout, NewFile, Stick};
use pyvorin_recovery::fat::overwrite::Overwrite;
use pyvorin_recovery::fat::{self, Blocks, Code, Limits, Refusal};

const SECTOR: usize = 512;
const START: usize = 1 << 20;
const LEN: usize = 38 << 20;

/// A stick of ours and where its parts are.
struct Made {
    bytes: Vec<u8>,
    table: usize,
    table_len: usize,
    root: usize,
    ours: usize,
}

fn made() -> Made {
    let files = [("TICKET", 1500), ("REPORT", 1000), ("a long name.txt", 700)];
    let files = files.map(|(name, size)| NewFile { name: name.to_owned(), size }).to_vec();
    let layout = Layout::new(Stick { len: LEN as u64, sector: 512, volume_id: 1, written: 0, files }).unwrap();
    let mut bytes = vec![0; LEN];
    let sizes = [1500, 1000, 700];
    let open = &mut |i: usize| -> io::Result<Box<dyn Read>> { Ok(Box::new(io::repeat(b'x').take(sizes[i]))) };
    layout.write(&mut bytes, open).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[START + at..START + at + 4].try_into().unwrap()) as usize;
    let (table, table_len) = (START + (word(14) & 0xFFFF) * SECTOR, word(36) * SECTOR);
    let root = table + 2 * table_len;
    Made { bytes, table, table_len, root, ours: root + SECTOR }
}

impl Made {
    /// The entry of a cluster, in both copies.
    fn link(&mut self, cluster: usize, to: u32) {
        for copy in 0..2 {
            let at = self.table + copy * self.table_len + 4 * cluster;
            self.bytes[at..at + 4].copy_from_slice(&to.to_le_bytes());
        }
    }

    fn boot(&mut self, at: usize, value: &[u8]) {
        self.bytes[START + at..START + at + value.len()].copy_from_slice(value);
    }
}

/// Entries of our directory: two dots, two short names, a long name of two pieces and its short one.
const TICKET: usize = 2 * 32;
const REPORT: usize = 3 * 32;
const LONG: usize = 4 * 32;
const LONG_SHORT: usize = 6 * 32;

fn refusal(bytes: &mut Vec<u8>) -> Refusal {
    match fat::survey(bytes, &Limits::default()).and_then(fat::Survey::one) {
        Ok(contents) => panic!("not refused: {contents:?}"),
        Err(refusal) => refusal,
    }
}

type Damage = fn(&mut Made);

const CASES: &[(&str, Code, Damage)] = &[
    ("nothing but zeros", Code::NotRecognised, |m| m.bytes[..2048].fill(0)),
    ("shorter than a sector", Code::TooShort, |m| m.bytes.truncate(511)),
    ("an ext4 partition", Code::NotRecognised, |m| m.bytes[START..START + 4096].fill(0)),
    ("an MBR with a strange status", Code::TableDamaged, |m| m.bytes[446] = 1),
    ("a partition at sector 0", Code::TableDamaged, |m| m.bytes[454..458].fill(0)),
    ("a partition past the end", Code::PartitionBeyondDevice, |m| m.bytes[458..462].fill(0xFF)),
    ("two partitions on one place", Code::PartitionsOverlap, |m| {
        let entry: Vec<u8> = m.bytes[446..462].to_vec();
        m.bytes[462..478].copy_from_slice(&entry);
    }),
    ("a protective MBR without a GPT", Code::TableDamaged, |m| m.bytes[450] = 0xEE),
    ("a GPT with a wrong checksum", Code::TableDamaged, |m| {
        m.bytes[450] = 0xEE;
        m.bytes[512..520].copy_from_slice(b"EFI PART");
        m.bytes[524] = 92;
    }),
    ("a GPT header of four gigabytes", Code::TableDamaged, |m| {
        m.bytes[450] = 0xEE;
        m.bytes[512..520].copy_from_slice(b"EFI PART");
        m.bytes[524..528].fill(0xFF);
    }),
    ("exFAT", Code::ExFat, |m| m.boot(3, b"EXFAT   ")),
    ("exFAT without a table", Code::ExFat, |m| m.bytes[3..11].copy_from_slice(b"EXFAT   ")),
    ("NTFS", Code::Ntfs, |m| m.boot(3, b"NTFS    ")),
    ("sectors of 0 bytes", Code::BootSector, |m| m.boot(11, &[0, 0])),
    ("sectors of 8192 bytes", Code::BootSector, |m| m.boot(11, &[0, 0x20])),
    ("clusters of three sectors", Code::BootSector, |m| m.boot(13, &[3])),
    ("clusters of no sector", Code::BootSector, |m| m.boot(13, &[0])),
    ("no reserved sector", Code::BootSector, |m| m.boot(14, &[0, 0])),
    ("no table", Code::BootSector, |m| m.boot(16, &[0])),
    ("255 tables", Code::BootSector, |m| m.boot(16, &[255])),
    ("a table of no sector", Code::BootSector, |m| m.boot(36, &[0; 4])),
    ("an unknown medium", Code::BootSector, |m| m.boot(21, &[0x12])),
    ("FAT32 with entries in the root", Code::BootSector, |m| m.boot(17, &[0, 2])),
    ("two different numbers of sectors", Code::BootSector, |m| m.boot(19, &[9, 9])),
    ("FAT12", Code::Fat12, |m| {
        m.boot(22, &[12, 0]);
        m.boot(17, &[0, 2]);
        m.boot(32, &[0, 4, 0, 0]);
    }),
    ("FAT16 with the clusters of FAT32", Code::KindContradicts, |m| {
        m.boot(22, &[0, 2]);
        m.boot(17, &[0, 2]);
    }),
    ("FAT32 with the clusters of FAT16", Code::KindContradicts, |m| m.boot(13, &[8])),
    ("one active copy of the table", Code::MirroringOff, |m| m.boot(40, &[0x81])),
    ("a later version", Code::Version, |m| m.boot(42, &[1, 0])),
    ("more sectors than the device", Code::VolumeBeyondDevice, |m| m.boot(32, &[0xFF; 4])),
    ("a cut off stick", Code::PartitionBeyondDevice, |m| m.bytes.truncate(LEN / 2)),
    ("a table too small", Code::TableTooSmall, |m| m.boot(36, &[2, 0, 0, 0])),
    ("a copy of the table that differs", Code::CopiesDiffer, |m| {
        let at = m.table + m.table_len + 4 * 5;
        m.bytes[at] ^= 1;
    }),
    ("a root that begins at cluster 0", Code::ChainBroken, |m| m.boot(44, &[0; 4])),
    ("a root that begins outside", Code::ChainBroken, |m| m.boot(44, &[0xFF; 4])),
    ("a root that leads to itself", Code::Shared, |m| {
        m.link(2, 9000);
        m.link(9000, 2);
    }),
    ("a root without an end", Code::DirectoryTooLarge, |m| {
        (9000..15_000).for_each(|n| m.link(n, n as u32 + 1));
        m.link(2, 9000);
    }),
    ("our directory in the root's cluster", Code::Shared, |m| m.bytes[m.root + 3 * 32 + 26] = 2),
    ("our directory in a file", Code::DotEntries, |m| m.bytes[m.root + 3 * 32 + 26] = 6),
    ("our directory as a file", Code::NotADirectory, |m| m.bytes[m.root + 3 * 32 + 11] = 0x20),
    ("our directory deleted", Code::NoDirectory, |m| m.bytes[m.root + 3 * 32] = 0xE5),
    ("our directory under another name", Code::NoDirectory, |m| m.bytes[m.root + 32 + 1] ^= 1),
    ("our directory twice", Code::NameTwice, |m| m.bytes.copy_within(m.root + 32..m.root + 128, m.root + 128)),
    ("our directory on two partitions", Code::SeveralDirectories, |m| {
        let volume: Vec<u8> = m.bytes[START..].to_vec();
        let start = (LEN / SECTOR) as u32;
        m.bytes.extend_from_slice(&volume);
        let mut entry: Vec<u8> = m.bytes[446..462].to_vec();
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        m.bytes[462..478].copy_from_slice(&entry);
    }),
    ("a dot that leads elsewhere", Code::DotEntries, |m| m.bytes[m.ours + 26] = 9),
    ("dots that lead elsewhere", Code::DotEntries, |m| m.bytes[m.ours + 32 + 26] = 9),
    ("a file that begins outside", Code::ChainBroken, |m| m.bytes[m.ours + TICKET + 21] = 0xFF),
    ("a file that begins in a free cluster", Code::ChainBroken, |m| m.bytes[m.ours + TICKET + 27] = 0x40),
    ("a chain into a free cluster", Code::ChainBroken, |m| m.link(4, 0)),
    ("a chain into a bad cluster", Code::ChainBroken, |m| m.link(4, 0x0FFF_FFF7)),
    ("a chain into a reserved one", Code::ChainBroken, |m| m.link(4, 1)),
    ("a chain cut short", Code::ChainShort, |m| m.link(4, 0x0FFF_FFFF)),
    ("a chain that goes on", Code::ChainLong, |m| {
        m.link(6, 9000);
        m.link(9000, 0x0FFF_FFFF);
    }),
    ("a chain that comes back", Code::ChainLong, |m| m.link(6, 4)),
    ("a size one cluster too large", Code::ChainShort, |m| m.bytes[m.ours + TICKET + 29] += 2),
    ("a size of four gigabytes", Code::ChainShort, |m| m.bytes[m.ours + TICKET + 28..m.ours + TICKET + 32].fill(0xFF)),
    ("a size one cluster too small", Code::ChainLong, |m| m.bytes[m.ours + TICKET + 29] -= 2),
    ("a size of nothing with clusters", Code::ChainLong, |m| {
        m.bytes[m.ours + TICKET + 28..m.ours + TICKET + 32].fill(0)
    }),
    ("a size without clusters", Code::ChainShort, |m| m.bytes[m.ours + TICKET + 26] = 0),
    ("two files in one cluster", Code::Shared, |m| {
        let at = m.ours + REPORT;
        m.bytes[at + 26] = 4;
        m.bytes[at + 28..at + 30].copy_from_slice(&1500_u16.to_le_bytes());
    }),
    ("two files that grow together", Code::Shared, |m| m.link(7, 6)),
    ("a file of the root in ours", Code::Shared, |m| {
        let mut entry = *b"OTHER   JPG                     ";
        entry[11..].fill(0);
        entry[26] = 5;
        entry[28] = 1;
        m.bytes[m.root + 4 * 32..m.root + 5 * 32].copy_from_slice(&entry);
    }),
    ("a file with strange attributes", Code::EntryDamaged, |m| m.bytes[m.ours + TICKET + 11] = 0xC0),
    ("a volume label in our directory", Code::EntryDamaged, |m| m.bytes[m.ours + TICKET + 11] = 0x08),
    ("a directory with a size", Code::EntryDamaged, |m| m.bytes[m.ours + TICKET + 11] = 0x10),
    ("a name with a slash", Code::NameForbidden, |m| m.bytes[m.ours + TICKET + 2] = b'/'),
    ("a name in lower case where there is none", Code::NameForbidden, |m| m.bytes[m.ours + TICKET + 2] = b'x'),
    ("a name with an escape character", Code::NameForbidden, |m| m.bytes[m.ours + TICKET + 2] = 0x1B),
    ("a long name with a slash", Code::NameForbidden, |m| m.bytes[m.ours + LONG + 32 + 3] = b'/'),
    ("a long name with another's sum", Code::LongNameDamaged, |m| m.bytes[m.ours + LONG + 13] ^= 1),
    ("a long name out of order", Code::LongNameDamaged, |m| m.bytes[m.ours + LONG + 32] = 3),
    ("a long name of sixty pieces", Code::LongNameDamaged, |m| m.bytes[m.ours + LONG] = 0x7F),
    ("a long name whose file is deleted", Code::LongNameDamaged, |m| m.bytes[m.ours + LONG_SHORT] = 0xE5),
    ("a long name with half a surrogate", Code::LongNameDamaged, |m| m.bytes[m.ours + LONG + 32 + 2] = 0xD8),
    ("a long name with something after its end", Code::LongNameDamaged, |m| m.bytes[m.ours + LONG + 30] = 0x41),
    ("one name twice", Code::NameTwice, |m| {
        m.bytes.copy_within(m.ours + TICKET..m.ours + TICKET + 11, m.ours + REPORT)
    }),
];

#[test]
fn each_damage_is_refused_by_its_code_with_a_cure() {
    let contents = fat::survey(&mut made().bytes, &Limits::default()).unwrap().one().unwrap();
    assert_eq!(contents.files.len(), 3);
    let mut names = BTreeSet::new();
    for (name, code, damage) in CASES {
        assert!(names.insert(name), "{name} stands twice");
        let mut stick = made();
        damage(&mut stick);
        let found = refusal(&mut stick.bytes);
        assert_eq!(found.code, *code, "{name}: {found}");
        let text = found.to_string();
        assert!(text.contains("; next: ") && !text.contains(char::is_control), "{name}: {text}");
        println!("{name}: {text}");
    }
    let codes: BTreeSet<_> = CASES.iter().map(|case| case.1).collect();
    println!("{} damages, {} codes", CASES.len(), codes.len());
}

/// Chains of other people's files are not followed when reading; before writing, all of the table is looked at.
#[test]
fn a_report_is_not_written_where_the_chain_of_a_foreign_file_leads() {
    for (to, shared) in [(7, true), (8, true), (6, false), (9, false)] {
        let mut stick = made();
        stick.link(9000, to);
        let contents = fat::survey(&mut stick.bytes, &Limits::default()).unwrap().one().unwrap();
        let before = stick.bytes.clone();
        let plan = Overwrite::plan(&mut stick.bytes, &contents, &[("report", b"x")]);
        assert_eq!(plan.map(|_| ()).map_err(|r| r.code), if shared { Err(Code::Shared) } else { Ok(()) }, "to {to}");
        assert!(stick.bytes == before);
    }
}

#[test]
fn nothing_from_a_stick_steers_a_console() {
    let refusal = Refusal::new(Code::Shared, fat::Place::File("\u{1b}[2J\nx".to_owned()), "\u{1b}]0;title\u{7}").on(2);
    assert_eq!(
        refusal.to_string(),
        "partition 2, /PYVORIN-RESTORE/\\u{1b}[2J\\nx: its clusters belong to something else as well (]0;title); next: make the \
         stick again with `stick format` and `stick prepare`"
    );
}

#[test]
fn bounds_are_refused_and_not_reached() {
    let of = |limits: Limits| fat::survey(&mut made().bytes, &limits).unwrap().one().map(|_| ()).map_err(|r| r.code);
    let limits = Limits::default();
    assert_eq!(of(Limits { files: 3, ..limits }), Ok(()));
    assert_eq!(of(Limits { files: 2, ..limits }), Err(Code::TooManyFiles));
    assert_eq!(of(Limits { fragments: 5, ..limits }), Ok(()));
    assert_eq!(of(Limits { fragments: 4, ..limits }), Err(Code::TooFragmented));
    // Two directories of one cluster, and files of three, two and two.
    assert_eq!(of(Limits { clusters: 9, ..limits }), Ok(()));
    assert_eq!(of(Limits { clusters: 8, ..limits }), Err(Code::TooManyClusters));
}

/// A volume of 128 GiB in clusters of a sector, whose table is a rule: each cluster leads `step` further.
struct Vast {
    made: Made,
    step: u32,
    read: u64,
}

const RESERVED: u64 = 32;
const TABLE: u64 = 2_097_152;
const CLUSTERS: u32 = 0x0FFF_FF00;

impl Vast {
    /// Two files of four gigabytes less a byte.
    fn new(step: u32) -> Vast {
        let mut made = made();
        let total = u32::try_from(RESERVED + 2 * TABLE).unwrap() + CLUSTERS;
        made.boot(14, &32_u16.to_le_bytes());
        made.boot(32, &total.to_le_bytes());
        made.boot(36, &u32::try_from(TABLE).unwrap().to_le_bytes());
        for (at, first) in [(TICKET, 10_u32), (REPORT, 10 + (8 << 20))] {
            let at = made.ours + at;
            made.bytes[at + 20..at + 22].copy_from_slice(&first.to_le_bytes()[2..]);
            made.bytes[at + 26..at + 28].copy_from_slice(&first.to_le_bytes()[..2]);
            made.bytes[at + 28..at + 32].fill(0xFF);
        }
        Vast { made, step, read: 0 }
    }

    fn entry(&self, cluster: u32) -> u32 {
        let ends = cluster < 10 || (cluster - 9).is_multiple_of(8 << 20);
        if ends { 0x0FFF_FFFF } else { cluster + self.step }
    }
}

impl Blocks for Vast {
    fn len(&self) -> u64 {
        (RESERVED + 2 * TABLE + u64::from(CLUSTERS)) * 512
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read += buf.len() as u64;
        let (table, data) = (RESERVED * 512, (RESERVED + 2 * TABLE) * 512);
        if (table..data).contains(&offset) {
            for (bytes, n) in buf.chunks_exact_mut(4).zip((offset - table) % (TABLE * 512) / 4..) {
                bytes.copy_from_slice(&self.entry(u32::try_from(n).unwrap()).to_le_bytes());
            }
            return Ok(());
        }
        let from = if offset < table { START as u64 + offset } else { self.made.root as u64 + (offset - data) };
        Blocks::read_at(&mut self.made.bytes, from, buf)
    }
}

#[test]
fn a_volume_made_to_be_endless_ends_at_the_bounds() {
    let limits = Limits::default();
    for (step, code, most) in [
        (1, Code::TooManyClusters, 2 * 4 * u64::from(limits.clusters)),
        (7, Code::TooFragmented, 2 * 4096 * u64::from(limits.fragments)),
    ] {
        let mut vast = Vast::new(step);
        let refused = fat::survey(&mut vast, &limits).and_then(fat::Survey::one).unwrap_err();
        assert_eq!(refused.code, code, "{refused}");
        assert!(vast.read < most + (1 << 20), "{} bytes read", vast.read);
        println!("{code:?} after {} bytes of 2 GiB of tables", vast.read);
    }
}
