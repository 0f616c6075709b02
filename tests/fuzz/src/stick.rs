//! A stick: the sectors that say where everything is are the input, the rest of the device is made.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::OnceLock;

use pyvorin_recovery::fat::format::{Layout, NewFile, Stick};
use pyvorin_recovery::fat::overwrite::Overwrite;
use pyvorin_recovery::fat::{self, Blocks, BlocksMut, Contents, Kind, Limits, Refusal, Stream, Survey};

const SECTOR: usize = 512;
/// Sectors of an input, behind its flags: MBR, GPT header and array, boot sector, table, second table, root directory,
/// our directory.
const PARTS: usize = 9;
/// Length of a whole input.
pub const LEN: usize = 1 + PARTS * SECTOR;
/// First sector of the partition in what we format.
const START: u64 = 2048;
const DEVICE: u64 = 38 << 20;
const FAT16_SECTORS: u64 = 6000;

/// Flags of an input.
const PARTITIONED: u8 = 1;
const TABLES_DIFFER: u8 = 2;
const FAT16: u8 = 4;
const SEALED: u8 = 8;
const SECTOR_KNOWN: u8 = 16;

type Sectors = BTreeMap<u64, [u8; SECTOR]>;

/// Sectors that are not zero.
struct Sparse(Sectors, u64);

impl Blocks for Sparse {
    fn len(&self) -> u64 {
        self.1
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.1) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf.fill(0);
        overlay(&self.0, 0, offset, buf);
        Ok(())
    }
}

/// Lays sectors, moved towards the start by `shift` of them, over the bytes of a device from `offset` on.
fn overlay(sectors: &Sectors, shift: u64, offset: u64, buf: &mut [u8]) {
    let end = offset + buf.len() as u64;
    for (sector, bytes) in sectors.range(offset / 512 + shift..end.div_ceil(512) + shift) {
        let at = (sector - shift) * 512;
        let (from, to) = (at.max(offset), (at + 512).min(end));
        let part = &bytes[(from - at) as usize..(to - at) as usize];
        buf[(from - offset) as usize..][..part.len()].copy_from_slice(part);
    }
}

impl BlocksMut for Sparse {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        for (sector, bytes) in (offset / 512..).zip(bytes.chunks_exact(SECTOR)) {
            if bytes.iter().any(|b| *b != 0) {
                self.0.insert(sector, bytes.try_into().unwrap());
            }
        }
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stick of our own making.
fn formatted() -> &'static Sectors {
    static MADE: OnceLock<Sectors> = OnceLock::new();
    MADE.get_or_init(|| {
        let sizes = [
            ("ticket.json", 600),
            ("RESULT.txt", 512),
            ("report.json", 1500),
            ("README", 0),
            ("a rather long name.age", 2048),
        ];
        let files = sizes.map(|(name, size)| NewFile { name: name.to_owned(), size }).to_vec();
        let stick = Stick { len: DEVICE, sector: 512, volume_id: 7, written: 0, files };
        let mut device = Sparse(Sectors::new(), DEVICE);
        let open = &mut |i: usize| -> io::Result<Box<dyn Read>> {
            Ok(Box::new(io::repeat(b'a').take([600, 512, 1500, 0, 2048][i])))
        };
        Layout::new(stick).unwrap().write(&mut device, open).unwrap();
        device.0
    })
}

fn made(sector: u64) -> [u8; SECTOR] {
    formatted().get(&sector).copied().unwrap_or([0; SECTOR])
}

/// Where the parts of an input lie, from the start of the volume: tables, root directory, ours.
fn places(flags: u8) -> (u64, u64, u64, u64) {
    if flags & FAT16 != 0 {
        return (1, 32, 65, 98);
    }
    let boot = made(START);
    let reserved = u64::from(u16::from_le_bytes([boot[14], boot[15]]));
    let table = u64::from(u32::from_le_bytes([boot[36], boot[37], boot[38], boot[39]]));
    (reserved, table, reserved + 2 * table, reserved + 2 * table + 1)
}

/// The device that an input describes; reads are counted.
struct Device {
    parts: Sectors,
    /// Sectors by which the made stick is shifted; none is made for FAT16.
    shift: Option<u64>,
    len: u64,
    sector: Option<u32>,
    read: u64,
    writes: Vec<(u64, u64)>,
}

impl Device {
    fn new(flags: u8, input: &[u8]) -> Device {
        let part = |i: usize| -> [u8; SECTOR] {
            let mut sector = [0; SECTOR];
            let from = input.get(i * SECTOR..).unwrap_or_default();
            sector.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            sector
        };
        let start = if flags & PARTITIONED != 0 { START } else { 0 };
        let (table, table_len, root, ours) = places(flags);
        let mut parts = Sectors::new();
        if flags & PARTITIONED != 0 {
            let (mut header, array) = (part(1), part(2));
            if flags & SEALED != 0 {
                seal(&mut header, &array);
            }
            parts.extend([(0, part(0)), (1, header), (2, array)]);
        }
        let second = if flags & TABLES_DIFFER != 0 { part(5) } else { part(4) };
        parts.extend([(start, part(3)), (start + table, part(4)), (start + table + table_len, second)]);
        parts.extend([(start + root, part(6)), (start + ours, part(7)), (start + ours + 1, part(8))]);
        let volume = if flags & FAT16 != 0 { FAT16_SECTORS * 512 } else { DEVICE - START * 512 };
        Device {
            parts,
            shift: (flags & FAT16 == 0).then_some(START - start),
            len: start * 512 + volume,
            sector: (flags & SECTOR_KNOWN != 0).then_some(512),
            read: 0,
            writes: Vec::new(),
        }
    }
}

impl Blocks for Device {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.len);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.read += buf.len() as u64;
        buf.fill(0);
        if let Some(shift) = self.shift {
            overlay(formatted(), shift, offset, buf);
        }
        overlay(&self.parts, 0, offset, buf);
        Ok(())
    }
    fn sector(&self) -> Option<u32> {
        self.sector
    }
}

impl BlocksMut for Device {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(offset + bytes.len() as u64 <= self.len, "a write past the end");
        self.writes.push((offset, offset + bytes.len() as u64));
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes the sums of a GPT true, so that what they cover is reached.
fn seal(header: &mut [u8; SECTOR], array: &[u8; SECTOR]) {
    header[..8].copy_from_slice(b"EFI PART");
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    let bytes = u32::from_le_bytes([header[80], header[81], header[82], header[83]]).min(4) as usize * 128;
    header[88..92].copy_from_slice(&crc32(&array[..bytes]).to_le_bytes());
    header[16..20].fill(0);
    let sum = crc32(&header[..92]);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

fn look(device: &mut Device) -> Result<Survey, Refusal> {
    fat::survey(device, &Limits::default())
}

/// Everything that is done with a stick, on a stick of these sectors.
pub fn fat(data: &[u8]) {
    let [flags, input @ ..] = data else { return };
    let mut device = Device::new(*flags, input);
    let looked = look(&mut device);
    // A root directory of 2 MiB and ours, for each of a few partitions, and some tables.
    assert!(device.read < 32 << 20, "{} bytes read", device.read);
    if data.len().is_multiple_of(16) {
        assert_eq!(looked, look(&mut Device::new(*flags, input)));
    }
    let told = |refusal: &Refusal| assert!(refusal.to_string().contains("; next: ") && !refusal.code.name().is_empty());
    let survey = match looked {
        Ok(survey) => survey,
        Err(refusal) => return told(&refusal),
    };
    survey.partitions.iter().filter_map(|(_, p)| p.as_ref().err()).for_each(told);
    for (_, contents) in &survey.partitions {
        contents.iter().for_each(|contents| held(&mut device, contents, data.len().is_multiple_of(8)));
    }
    let several = survey.partitions.iter().filter(|(_, looked)| looked.is_ok()).count();
    assert_eq!(survey.one().is_ok(), several == 1);
}

/// What is promised of contents that were not refused. Planning a report reads a whole table, which on FAT32 is most of
/// the work: `all` says whether to.
fn held(device: &mut Device, contents: &Contents, all: bool) {
    let (geometry, partition) = (&contents.geometry, &contents.partition);
    let end = partition.offset + partition.len;
    assert!(end <= device.len && geometry.data < end);
    let cluster = u64::from(geometry.cluster);
    assert!(geometry.data + u64::from(geometry.clusters) * cluster <= end);
    assert_eq!(geometry.kind == Kind::Fat16, geometry.clusters < 65_525);
    let mut owned: Vec<(u64, u64)> = Vec::new();
    for file in &contents.files {
        assert_eq!(file.extents.iter().map(|e| e.len).sum::<u64>(), file.size);
        for extent in &file.extents {
            assert!(extent.len > 0 && extent.offset >= geometry.data && (extent.offset - geometry.data) % cluster == 0);
            let whole = extent.offset + extent.len.next_multiple_of(cluster);
            assert!(whole <= geometry.data + u64::from(geometry.clusters) * cluster);
            owned.push((extent.offset, whole));
        }
        assert_eq!(contents.file(&file.name), Some(file), "a name that leads elsewhere");
        if file.size <= 64 << 10 {
            let mut bytes = Vec::new();
            Stream::new(device, file, file.size).unwrap().read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, file.size);
        }
    }
    owned.sort_unstable();
    assert!(owned.windows(2).all(|two| two[0].1 <= two[1].0), "two files share bytes");
    if !all && geometry.kind == Kind::Fat32 {
        return;
    }
    let Some(file) = contents.files.iter().find(|f| (1..=64 << 10).contains(&f.size)) else { return };
    let Ok(plan) = Overwrite::plan(device, contents, &[(file.name.as_str(), b"x")]) else { return };
    device.writes.clear();
    plan.write(device).unwrap();
    assert!(!device.writes.is_empty());
    for (from, to) in &device.writes {
        assert!(file.extents.iter().any(|e| e.offset <= *from && *to <= e.offset + e.len), "a write elsewhere");
    }
}

/// Inputs of every form: bare and partitioned, FAT16 and FAT32, MBR and GPT.
pub fn seeds() -> Vec<Vec<u8>> {
    let (table, _, root, ours) = places(0);
    let at = |sector: u64| made(START + sector);
    let (fat32, boot, mbr) = (at(table), at(0), made(0));
    let directories = [at(root), at(ours), at(ours + 1)].concat();
    let gpt = gpt();
    let mut small = [0; SECTOR];
    small[..24].copy_from_slice(&[
        0xEB, 0x3C, 0x90, b'P', b'Y', b'V', b'O', b'R', b'I', b'N', b' ', 0, 2, 1, 1, 0, 2, 0, 2, 0x70, 0x17, 0xF8, 32,
        0,
    ]);
    small[54..62].copy_from_slice(b"FAT16   ");
    small[510..].copy_from_slice(&[0x55, 0xAA]);
    let mut fat16 = [0; SECTOR];
    for (to, from) in fat16.chunks_exact_mut(2).zip(fat32.chunks_exact(4)) {
        let wide = u32::from_le_bytes(from.try_into().unwrap());
        to.copy_from_slice(&if wide > 0xFFFF { 0xFFFF } else { wide as u16 }.to_le_bytes());
    }
    let mut protective = mbr;
    protective[450] = 0xEE;
    let whole = |flags: u8, mbr: &[u8], boot: &[u8], table: &[u8]| {
        [&[flags], mbr, gpt.as_slice(), boot, table, table, directories.as_slice()].concat()
    };
    vec![
        whole(PARTITIONED, &mbr, &boot, &fat32),
        whole(PARTITIONED | SECTOR_KNOWN | TABLES_DIFFER, &mbr, &boot, &fat32),
        whole(0, &mbr, &boot, &fat32),
        whole(FAT16, &mbr, &small, &fat16),
        whole(FAT16 | TABLES_DIFFER, &mbr, &small, &fat16),
        whole(PARTITIONED | SEALED, &protective, &boot, &fat32),
    ]
}

fn gpt() -> Vec<u8> {
    let (mut header, mut array) = ([0; SECTOR], [0; SECTOR]);
    for (at, value) in [(24, 1_u64), (72, 2), (80, 4 | 128 << 32)] {
        header[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    let last = DEVICE / 512 - 1;
    for (at, value) in [(0, 7_u64), (32, START), (40, last)] {
        array[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    [header, array].concat()
}

/// The inputs to begin with are sticks that are read.
#[cfg(test)]
#[test]
fn every_seed_is_a_stick_with_five_files() {
    for (i, seed) in seeds().iter().enumerate() {
        assert_eq!(seed.len(), LEN);
        let contents =
            look(&mut Device::new(seed[0], &seed[1..])).unwrap().one().unwrap_or_else(|e| panic!("{i}: {e}"));
        assert_eq!(contents.files.len(), 5, "{i}");
    }
}
