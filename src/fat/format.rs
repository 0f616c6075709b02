//! A new stick, laid out in one pass: an MBR with one partition, FAT32 in it, our directory and its files.
//!
//! ```text
//! 0        MBR: one partition of type 0x0C (FAT32, LBA), from 1 MiB to the last whole MiB but one
//! 1 MiB    boot sector, FSInfo, their copies in sectors 6 and 7
//!          two tables
//!          cluster 2: root directory; then our directory; then each file in one run
//! ...      not touched
//! -1 MiB   zeros, where the second half of an older GPT stood
//! ```
//!
//! The data begin at a border of clusters, so that one written cluster is never two on the flash below. Whatever is
//! written follows from [`Stick`] and the contents: the same input gives the same bytes.
//!
//! The partition table is written last, after a sync: a stick pulled before that has no partition, and not a half one.

mod entries;

use std::io::{self, Read};

use self::entries::directory;
use super::boot::{FAT32_FROM, FAT32_TOP};
use super::bytes::put;
use super::{BlocksMut, Code, DIRECTORY, Place, Refusal, in_directory, name};

/// Where the partition begins, and what its length is a multiple of: the erase blocks of flash are no larger.
const ALIGNMENT: u64 = 1 << 20;
/// Largest cluster; every system reads it.
const CLUSTER: u32 = 32 << 10;
/// Sectors before the first table, at least; what everybody uses.
const RESERVED: u64 = 32;
/// Most files: what is made here is read back under [`super::Limits`].
const FILES: usize = 200;
/// Bytes written at a time.
const PIECE: usize = 1 << 20;
const END: u32 = 0x0FFF_FFFF;
const LABEL: &[u8; 11] = b"PYVORIN    ";

/// A file to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Its name in our directory.
    pub name: String,
    /// Its bytes; the contents must have exactly as many.
    pub size: u32,
}

/// A stick to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stick {
    /// Bytes of the device.
    pub len: u64,
    /// Bytes of its logical sector: 512 to 4096.
    pub sector: u32,
    /// Serial number of the volume.
    pub volume_id: u32,
    /// When, in seconds since the epoch; stands beside every name.
    pub written: u64,
    /// The files, in their order on the stick.
    pub files: Vec<NewFile>,
}

/// A stick laid out; nothing that follows can be refused but by the device.
#[derive(Clone, Debug)]
pub struct Layout {
    stick: Stick,
    /// Sectors in a cluster.
    per_cluster: u32,
    /// Sectors of the partition.
    sectors: u32,
    reserved: u32,
    table: u32,
    clusters: u32,
    /// First cluster and number of clusters: the root directory, our directory, the files.
    runs: Vec<(u32, u32)>,
    /// First cluster after all of them.
    free: u32,
    directory: Vec<u8>,
    root: Vec<u8>,
}

impl Layout {
    /// Lays out a stick.
    pub fn new(stick: Stick) -> Result<Self, Refusal> {
        let size = |detail: String| Refusal::new(Code::DeviceSize, Place::Device, detail);
        if !(stick.sector.is_power_of_two() && (512..=4096).contains(&stick.sector)) {
            return Err(size(format!("sectors of {} bytes", stick.sector)));
        }
        check_names(&stick)?;
        let sector = u64::from(stick.sector);
        let usable = stick.len.saturating_sub(2 * ALIGNMENT);
        let usable = usable - usable % ALIGNMENT;
        // Tables count sectors in 32 bits: the rest of a larger device stays unused.
        let sectors = u32::try_from((usable / sector).min(u64::from(u32::MAX)))
            .map_err(|_| size(format!("{} bytes", stick.len)))?;
        let mut cluster = CLUSTER;
        let (per_cluster, reserved, table, clusters) = loop {
            if cluster < stick.sector {
                return Err(size(format!("{} bytes, in sectors of {sector}", stick.len)));
            }
            let per_cluster = u64::from(cluster / stick.sector);
            let most = u64::from(sectors).saturating_sub(RESERVED) / per_cluster;
            let table = (most + 2).saturating_mul(4).div_ceil(sector);
            let before = RESERVED + 2 * table;
            let reserved = RESERVED + (per_cluster - before % per_cluster) % per_cluster;
            let clusters = u64::from(sectors).saturating_sub(reserved + 2 * table) / per_cluster;
            // Some systems take the border for a little higher than it is.
            if (FAT32_FROM + 16..FAT32_TOP).contains(&clusters) {
                break (per_cluster, reserved, table, clusters);
            }
            cluster /= 2;
        };
        let small = |n: u64| u32::try_from(n).map_err(|_| size(format!("{} bytes", stick.len)));
        let (per_cluster, reserved, table, clusters) =
            (small(per_cluster)?, small(reserved)?, small(table)?, small(clusters)?);

        let mut free = 2_u32;
        let mut run = |bytes: u64| {
            let len = u32::try_from(bytes.div_ceil(u64::from(cluster))).unwrap_or(u32::MAX);
            let start = if len == 0 { 0 } else { free };
            free = free.saturating_add(len);
            (start, len)
        };
        let root = run(1);
        let ours = run(entries::directory_len(&stick.files) as u64);
        let files: Vec<_> = stick.files.iter().map(|file| run(u64::from(file.size))).collect();
        if free > clusters.saturating_add(2) {
            let bytes: u64 = stick.files.iter().map(|file| u64::from(file.size)).sum();
            return Err(Refusal::new(Code::NoRoom, Place::Device, format!("{bytes} bytes on {}", stick.len)));
        }
        let starts: Vec<u32> = files.iter().map(|(start, _)| *start).collect();
        let stamp = entries::Stamp::new(stick.written);
        let directory = directory(ours.0, &stick.files, &starts, stamp);
        let root_bytes = entries::root(LABEL, DIRECTORY, ours.0, stamp);
        let runs = [vec![root, ours], files].concat();
        Ok(Self { stick, per_cluster, sectors, reserved, table, clusters, runs, free, directory, root: root_bytes })
    }

    /// Bytes that will be written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.cluster_at(self.free).saturating_add(ALIGNMENT)
    }

    /// Writes everything. `open` gives the contents of a file by its place in the list, once each and in order.
    pub fn write<'c>(
        &self,
        device: &mut dyn BlocksMut,
        open: &mut dyn FnMut(usize) -> io::Result<Box<dyn Read + 'c>>,
    ) -> Result<(), Refusal> {
        let sector = self.stick.sector as usize;
        // The whole of the first MiB: an older partition table, GPT or loader is gone before the first new byte.
        self.put(device, 0, &vec![0; ALIGNMENT as usize])?;
        sync(device)?;
        let mut head = vec![0; self.reserved as usize * sector];
        for copy in [0, 6] {
            put(&mut head, copy * sector, &self.boot_sector());
            put(&mut head, (copy + 1) * sector, &self.fs_info());
        }
        self.put(device, ALIGNMENT, &head)?;
        let table_len = u64::from(self.table).saturating_mul(sector as u64);
        for copy in 0..2 {
            self.tables(device, self.sector_at(self.reserved).saturating_add(copy * table_len), table_len)?;
        }
        let (root, ours) = (self.root.clone(), self.directory.clone());
        self.clusters(device, Place::Root, 0, root.len() as u64, &mut root.as_slice())?;
        self.clusters(device, Place::Directory, 1, ours.len() as u64, &mut ours.as_slice())?;
        for (i, file) in self.stick.files.iter().enumerate() {
            let place = in_directory(&file.name);
            let unread = |e: io::Error| Refusal::new(Code::Unreadable, place.clone(), format!("its contents: {e}"));
            let mut contents = open(i).map_err(unread)?;
            self.clusters(device, place.clone(), i + 2, u64::from(file.size), &mut contents)?;
            if contents.read(&mut [0]).map_err(unread)? != 0 {
                return Err(Refusal::new(Code::NoRoom, place, format!("its contents go on after {} bytes", file.size)));
            }
        }
        let tail = self.stick.len.saturating_sub(ALIGNMENT);
        self.put(device, tail, &vec![0; ALIGNMENT as usize])?;
        sync(device)?;
        let mut first = vec![0; sector];
        put(&mut first, 0, &self.mbr());
        self.put(device, 0, &first)?;
        sync(device)
    }

    fn sector_at(&self, sector: u32) -> u64 {
        ALIGNMENT.saturating_add(u64::from(sector).saturating_mul(u64::from(self.stick.sector)))
    }

    fn cluster_at(&self, cluster: u32) -> u64 {
        let before = self.table.saturating_mul(2).saturating_add(self.reserved);
        let bytes = u64::from(cluster.saturating_sub(2)).saturating_mul(self.cluster());
        self.sector_at(before).saturating_add(bytes)
    }

    fn cluster(&self) -> u64 {
        u64::from(self.per_cluster).saturating_mul(u64::from(self.stick.sector))
    }

    fn put(&self, device: &mut dyn BlocksMut, at: u64, bytes: &[u8]) -> Result<(), Refusal> {
        device.write_at(at, bytes).map_err(|e| Refusal::write(Place::Device, at, &e))
    }

    /// Writes one run of clusters, its last one filled up with zeros.
    fn clusters(
        &self,
        device: &mut dyn BlocksMut,
        place: Place,
        run: usize,
        size: u64,
        contents: &mut dyn Read,
    ) -> Result<(), Refusal> {
        let (start, len) = self.runs.get(run).copied().unwrap_or((0, 0));
        let mut at = self.cluster_at(start);
        let mut left = u64::from(len).saturating_mul(self.cluster());
        let mut data = size;
        let mut piece = vec![0; PIECE];
        while left > 0 {
            let n = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let whole = usize::try_from(data).unwrap_or(PIECE).min(n);
            let (now, rest) = piece.get_mut(..n).unwrap_or_default().split_at_mut(whole);
            contents.read_exact(now).map_err(|e| {
                Refusal::new(Code::Unreadable, place.clone(), format!("its contents end before {size} bytes: {e}"))
            })?;
            rest.fill(0);
            self.put(device, at, piece.get(..n).unwrap_or_default())?;
            (at, left, data) = (at.saturating_add(n as u64), left - n as u64, data - whole as u64);
        }
        Ok(())
    }

    fn tables(&self, device: &mut dyn BlocksMut, at: u64, len: u64) -> Result<(), Refusal> {
        let mut piece = vec![0; PIECE];
        let (mut done, mut cluster) = (0, 0_u32);
        while done < len {
            let n = usize::try_from(len - done).unwrap_or(PIECE).min(PIECE);
            for entry in piece.get_mut(..n).unwrap_or_default().chunks_exact_mut(4) {
                entry.copy_from_slice(&self.entry(cluster).to_le_bytes());
                cluster = cluster.saturating_add(1);
            }
            self.put(device, at.saturating_add(done), piece.get(..n).unwrap_or_default())?;
            done = done.saturating_add(n as u64);
        }
        Ok(())
    }

    /// What the table says of a cluster.
    fn entry(&self, cluster: u32) -> u32 {
        match cluster {
            // The media byte again, and an end that also says: unmounted in order, no error.
            0 => 0x0FFF_FFF8,
            1 => END,
            _ if cluster >= self.free => 0,
            _ if self.runs.iter().any(|(start, len)| *len > 0 && start + len - 1 == cluster) => END,
            _ => cluster + 1,
        }
    }

    /// Not a loader: whoever starts from this stick is sent on to the next device (INT 18h), as if it were empty.
    const NOT_BOOTABLE: [u8; 5] = [0xCD, 0x18, 0xF4, 0xEB, 0xFD];

    fn mbr(&self) -> [u8; 512] {
        let mut mbr = [0; 512];
        put(&mut mbr, 0, &Self::NOT_BOOTABLE);
        // A signature of the disk, by which systems tell two of them apart.
        put(&mut mbr, 440, &(self.stick.volume_id.rotate_left(16) ^ 0x5059_564F).to_le_bytes());
        // Cylinders, heads and sectors: beyond what they can say.
        put(&mut mbr, 446, &[0, 0xFE, 0xFF, 0xFF, 0x0C, 0xFE, 0xFF, 0xFF]);
        put(&mut mbr, 454, &self.start().to_le_bytes());
        put(&mut mbr, 458, &self.sectors.to_le_bytes());
        put(&mut mbr, 510, &[0x55, 0xAA]);
        mbr
    }

    fn start(&self) -> u32 {
        u32::try_from(ALIGNMENT / u64::from(self.stick.sector)).unwrap_or(0)
    }

    fn boot_sector(&self) -> [u8; 512] {
        let mut boot = [0; 512];
        let small = |n: u32| u16::try_from(n).unwrap_or(0).to_le_bytes();
        put(&mut boot, 0, &[0xEB, 0x58, 0x90]);
        put(&mut boot, 3, b"PYVORIN ");
        put(&mut boot, 11, &small(self.stick.sector));
        put(&mut boot, 13, &[u8::try_from(self.per_cluster).unwrap_or(0)]);
        put(&mut boot, 14, &small(self.reserved));
        put(&mut boot, 16, &[2]);
        put(&mut boot, 21, &[0xF8]);
        put(&mut boot, 24, &small(63));
        put(&mut boot, 26, &small(255));
        put(&mut boot, 28, &self.start().to_le_bytes());
        put(&mut boot, 32, &self.sectors.to_le_bytes());
        put(&mut boot, 36, &self.table.to_le_bytes());
        put(&mut boot, 44, &2_u32.to_le_bytes());
        put(&mut boot, 48, &small(1));
        put(&mut boot, 50, &small(6));
        put(&mut boot, 64, &[0x80, 0, 0x29]);
        put(&mut boot, 67, &self.stick.volume_id.to_le_bytes());
        put(&mut boot, 71, LABEL);
        put(&mut boot, 82, b"FAT32   ");
        put(&mut boot, 90, &Self::NOT_BOOTABLE);
        put(&mut boot, 510, &[0x55, 0xAA]);
        boot
    }

    fn fs_info(&self) -> [u8; 512] {
        let mut info = [0; 512];
        put(&mut info, 0, b"RRaA");
        put(&mut info, 484, b"rrAa");
        put(&mut info, 488, &self.clusters.saturating_add(2).saturating_sub(self.free).to_le_bytes());
        put(&mut info, 492, &self.free.to_le_bytes());
        put(&mut info, 510, &[0x55, 0xAA]);
        info
    }
}

fn sync(device: &mut dyn BlocksMut) -> Result<(), Refusal> {
    device.sync().map_err(|e| Refusal::new(Code::Unwritable, Place::Device, e.to_string()))
}

fn check_names(stick: &Stick) -> Result<(), Refusal> {
    if stick.files.len() > FILES {
        return Err(Refusal::new(Code::TooManyFiles, Place::Directory, format!("{} files", stick.files.len())));
    }
    let mut folded: Vec<String> = Vec::new();
    for file in &stick.files {
        let place = || in_directory(&file.name);
        if !name::allowed(&file.name) {
            return Err(Refusal::new(Code::NameForbidden, place(), ""));
        }
        let name = name::fold(&file.name);
        if folded.contains(&name) {
            return Err(Refusal::new(Code::NameTwice, place(), ""));
        }
        folded.push(name);
    }
    Ok(())
}
