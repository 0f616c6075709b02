//! The boot sector and what follows from it: FAT, "Boot Sector and BPB", "FAT Type Determination".
//!
//! The kind of FAT is decided by the number of clusters and by nothing else; a layout that says otherwise is refused,
//! because two systems would then read two different tables.

use serde::{Deserialize, Serialize};

use super::bytes::{array, byte, le16, le32};
use super::table::Partition;
use super::{Blocks, Code, Place, Refusal};

/// Bytes of the boot sector that are looked at, whatever the sector size.
pub const LEN: usize = 512;
/// Below this a volume is FAT12, from [`FAT32_FROM`] on FAT32.
const FAT16_FROM: u64 = 4085;
pub const FAT32_FROM: u64 = 65_525;
/// Cluster numbers from here on mean "bad" and "end" in FAT32.
pub const FAT32_TOP: u64 = 0x0FFF_FFF5;
/// Largest cluster in use; the specification ends at half of it.
const LARGEST_CLUSTER: u32 = 64 << 10;

/// Kind of FAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Entries of 16 bits, root directory of fixed size.
    Fat16,
    /// Entries of 28 bits, root directory in clusters.
    Fat32,
}

/// Where the root directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Root {
    /// Between table and data.
    Fixed {
        /// Byte of the device.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// A chain that begins with this cluster.
    Cluster(u32),
}

/// A volume whose boot sector makes sense. Offsets are bytes from the start of the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// Kind of FAT.
    pub kind: Kind,
    /// Bytes in a sector: 512 to 4096.
    pub sector: u32,
    /// Bytes in a cluster: at most 64 KiB.
    pub cluster: u32,
    /// Copies of the table: 1 or 2.
    pub copies: u8,
    /// Where the first copy begins; the second follows it.
    pub table: u64,
    /// Bytes of one copy.
    pub table_len: u64,
    /// Where the root directory is.
    pub root: Root,
    /// Where cluster 2 begins.
    pub data: u64,
    /// Number of clusters; the highest number is this plus one.
    pub clusters: u32,
    /// The serial number that was given when the volume was made; 0 where there is none.
    pub volume_id: u32,
}

impl Geometry {
    /// Whether a cluster of that number exists.
    pub(super) fn has(&self, cluster: u32) -> bool {
        (2..self.clusters.saturating_add(2)).contains(&cluster)
    }

    /// First byte of a cluster that exists.
    pub(super) fn at(&self, cluster: u32) -> u64 {
        let before = u64::from(cluster.saturating_sub(2)).saturating_mul(u64::from(self.cluster));
        self.data.saturating_add(before)
    }
}

/// What the first bytes of a volume are, on sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    Fat,
    ExFat,
    Ntfs,
    /// Says that it is FAT and has impossible fields.
    Damaged,
    Other,
}

/// Looks at the first [`LEN`] bytes of a volume, or of a device without a table. A partition table has the signature of
/// a boot sector too, so this asks for more: a jump, and sizes that exist.
pub fn sight(first: &[u8]) -> Sight {
    let name: [u8; 8] = array(first, 3);
    if &name == b"EXFAT   " {
        return Sight::ExFat;
    }
    if &name == b"NTFS    " {
        return Sight::Ntfs;
    }
    let jump = matches!((byte(first, 0), byte(first, 2)), (0xEB, 0x90) | (0xE9, _));
    let signed = le16(first, 510) == 0xAA55;
    if signed
        && jump
        && sector_size(first).is_some()
        && matches!(byte(first, 16), 1 | 2)
        && cluster_size(first).is_some()
    {
        Sight::Fat
    } else if array(first, 54) == *b"FAT1" || array(first, 82) == *b"FAT32" {
        Sight::Damaged
    } else {
        Sight::Other
    }
}

fn sector_size(first: &[u8]) -> Option<u32> {
    let size = u32::from(le16(first, 11));
    (size.is_power_of_two() && (512..=4096).contains(&size)).then_some(size)
}

fn cluster_size(first: &[u8]) -> Option<u32> {
    let sectors = u32::from(byte(first, 13));
    let size = sectors.saturating_mul(sector_size(first)?);
    (sectors.is_power_of_two() && size <= LARGEST_CLUSTER).then_some(size)
}

/// Reads the boot sector of a partition.
pub fn read(device: &mut dyn Blocks, partition: &Partition) -> Result<Geometry, Refusal> {
    let mut first = [0; LEN];
    if partition.len < LEN as u64 {
        return Err(Refusal::new(Code::TooShort, Place::Boot, format!("{} bytes", partition.len)));
    }
    device.read_at(partition.offset, &mut first).map_err(|e| Refusal::read(Place::Boot, partition.offset, &e))?;
    let refuse = |code: Code| Err(Refusal::new(code, Place::Boot, ""));
    match sight(&first) {
        Sight::ExFat => refuse(Code::ExFat),
        Sight::Ntfs => refuse(Code::Ntfs),
        Sight::Other => refuse(Code::NotRecognised),
        Sight::Damaged => Err(bad("signature, jump or sizes", 0)),
        Sight::Fat => parse(&first, partition),
    }
}

fn bad(field: &str, value: u64) -> Refusal {
    Refusal::new(Code::BootSector, Place::Boot, format!("{field} {value}"))
}

fn parse(first: &[u8; LEN], partition: &Partition) -> Result<Geometry, Refusal> {
    let sector = sector_size(first).ok_or_else(|| bad("bytes per sector", le16(first, 11).into()))?;
    let cluster = cluster_size(first).ok_or_else(|| bad("sectors per cluster", byte(first, 13).into()))?;
    let bytes = |sectors: u64| sectors.saturating_mul(u64::from(sector));
    let reserved = u64::from(le16(first, 14));
    let copies = byte(first, 16);
    let root_entries = le16(first, 17);
    let (small, large) = (u64::from(le16(first, 19)), u64::from(le32(first, 32)));
    let short_table = u64::from(le16(first, 22));
    if reserved == 0 {
        return Err(bad("reserved sectors", 0));
    }
    if !matches!(byte(first, 21), 0xF0 | 0xF8..) {
        return Err(bad("media", byte(first, 21).into()));
    }
    let total = match (small, large) {
        (0, total) | (total, 0) => total,
        (small, large) if small == large => small,
        _ => return Err(bad("two different numbers of sectors, one of them", large)),
    };
    let kind = if short_table == 0 { Kind::Fat32 } else { Kind::Fat16 };
    let table_sectors = if short_table == 0 { u64::from(le32(first, 36)) } else { short_table };
    if table_sectors == 0 {
        return Err(bad("sectors of the allocation table", 0));
    }
    if (kind == Kind::Fat32) != (root_entries == 0) {
        return Err(bad("entries of the root directory", root_entries.into()));
    }
    let root_len = u32::from(root_entries).saturating_mul(32);
    if !root_len.is_multiple_of(sector) {
        return Err(bad("entries of the root directory", root_entries.into()));
    }
    let before_root = reserved.saturating_add(table_sectors.saturating_mul(u64::from(copies)));
    let before_data = before_root.saturating_add(u64::from(root_len / sector));
    let clusters = total.saturating_sub(before_data) / u64::from(cluster / sector);
    if bytes(total) > partition.len {
        let detail = format!("{} bytes of {}", bytes(total), partition.len);
        return Err(Refusal::new(Code::VolumeBeyondDevice, Place::Boot, detail));
    }
    let named = |code: Code| Err(Refusal::new(code, Place::Boot, format!("{clusters} clusters")));
    match kind {
        _ if clusters == 0 => return Err(bad("clusters", 0)),
        Kind::Fat16 if clusters < FAT16_FROM => return named(Code::Fat12),
        Kind::Fat16 if clusters >= FAT32_FROM => return named(Code::KindContradicts),
        Kind::Fat32 if clusters < FAT32_FROM => return named(Code::KindContradicts),
        Kind::Fat32 if clusters >= FAT32_TOP => return Err(bad("clusters", clusters)),
        _ => {}
    }
    let wide = if kind == Kind::Fat16 { 2 } else { 4 };
    if bytes(table_sectors) < clusters.saturating_add(2).saturating_mul(wide) {
        return named(Code::TableTooSmall);
    }
    let clusters = u32::try_from(clusters).map_err(|_| bad("clusters", clusters))?;
    let offset = |sectors: u64| partition.offset.saturating_add(bytes(sectors));
    let root = match kind {
        Kind::Fat16 => Root::Fixed { offset: offset(before_root), len: root_len },
        Kind::Fat32 => Root::Cluster(root_cluster(first)?),
    };
    let extended = if kind == Kind::Fat16 { 38 } else { 66 };
    Ok(Geometry {
        kind,
        sector,
        cluster,
        copies,
        table: offset(reserved),
        table_len: bytes(table_sectors),
        root,
        data: offset(before_data),
        clusters,
        volume_id: if matches!(byte(first, extended), 0x28 | 0x29) { le32(first, extended + 1) } else { 0 },
    })
}

/// The fields that only FAT32 has; whether the cluster exists is for the chain to find out.
fn root_cluster(first: &[u8; LEN]) -> Result<u32, Refusal> {
    if le16(first, 40) & 0x80 != 0 {
        return Err(Refusal::new(Code::MirroringOff, Place::Boot, ""));
    }
    if le16(first, 42) != 0 {
        return Err(Refusal::new(Code::Version, Place::Boot, format!("version {:#06x}", le16(first, 42))));
    }
    Ok(le32(first, 44))
}
