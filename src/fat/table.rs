//! Which parts of a device may hold a volume: the whole device, the four entries of an MBR, or a GPT (UEFI 2.10,
//! section 5.3).
//!
//! What a partition says of its contents (its type) is not asked: sticks are made by many tools, and every system goes
//! by the first sector. Logical partitions inside an extended one are not looked for; no stick has them.

use serde::{Deserialize, Serialize};

use super::boot::{self, Sight};
use super::bytes::{array, byte, le16, le32, le64, put};
use super::{Blocks, Code, Place, Refusal};

/// Units that tables count in, the common one first.
const SECTORS: [u32; 4] = [512, 4096, 2048, 1024];
/// More used partitions than any stick has.
const MOST: usize = 64;
/// Bytes of a GPT's array that are believed: 16 KiB is what everybody makes.
const LONGEST_ARRAY: u64 = 256 << 10;
/// MBR types: a GPT stands behind this table; a list of logical partitions.
const PROTECTIVE: u8 = 0xEE;
const EXTENDED: [u8; 3] = [0x05, 0x0F, 0x85];

/// A part of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its number in the table, from 1; 0 is the whole device.
    pub number: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// Lists what may hold a volume, in the order of the table. None of them overlap, and all lie within the device.
pub fn partitions(device: &mut dyn Blocks) -> Result<Vec<Partition>, Refusal> {
    let len = device.len();
    if len < boot::LEN as u64 {
        return Err(Refusal::new(Code::TooShort, Place::Device, format!("{len} bytes")));
    }
    let mut first = [0; boot::LEN];
    device.read_at(0, &mut first).map_err(|e| Refusal::read(Place::Table, 0, &e))?;
    if boot::sight(&first) != Sight::Other {
        return Ok(vec![Partition { number: 0, offset: 0, len }]);
    }
    if le16(&first, 510) != 0xAA55 {
        return Err(Refusal::new(Code::NotRecognised, Place::Device, ""));
    }
    let sizes: Vec<u32> = device.sector().map_or_else(|| SECTORS.to_vec(), |size| vec![size]);
    if entries(&first).any(|entry| byte(&entry, 4) == PROTECTIVE) {
        gpt(device, &sizes)
    } else {
        mbr(device, &first, &sizes)
    }
}

fn damaged(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::TableDamaged, Place::Table, detail)
}

fn entries(first: &[u8; boot::LEN]) -> impl Iterator<Item = [u8; 16]> + '_ {
    (0..4).map(|i| array(first, 446 + 16 * i))
}

/// An image does not tell its unit; the first size by which some partition begins with a boot sector is the one.
fn mbr(device: &mut dyn Blocks, first: &[u8; boot::LEN], sizes: &[u32]) -> Result<Vec<Partition>, Refusal> {
    if let Some(entry) = entries(first).find(|entry| !matches!(byte(entry, 0), 0 | 0x80)) {
        return Err(damaged(format!("a status of {:#04x}", byte(&entry, 0))));
    }
    if entries(first).all(|entry| byte(&entry, 4) == 0) {
        return Err(Refusal::new(Code::NotRecognised, Place::Table, "no partition"));
    }
    let mut answer = None;
    for size in sizes {
        let found = mbr_by(device.len(), first, u64::from(*size));
        let begins = found.as_ref().is_ok_and(|all| all.iter().any(|p| is_volume(device, p)));
        if begins {
            return found;
        }
        answer.get_or_insert(found);
    }
    answer.unwrap_or_else(|| Err(damaged("no sector size")))
}

fn mbr_by(len: u64, first: &[u8; boot::LEN], size: u64) -> Result<Vec<Partition>, Refusal> {
    let used = entries(first).zip(1..).filter(|(entry, _)| byte(entry, 4) != 0 && !EXTENDED.contains(&byte(entry, 4)));
    let all = used.map(|(entry, number)| {
        let (start, sectors) = (u64::from(le32(&entry, 8)), u64::from(le32(&entry, 12)));
        if start == 0 || sectors == 0 {
            return Err(damaged(format!("partition {number} begins at {start} and has {sectors} sectors")));
        }
        Ok(Partition { number, offset: start.saturating_mul(size), len: sectors.saturating_mul(size) })
    });
    apart(all.collect::<Result<_, _>>()?, len)
}

fn is_volume(device: &mut dyn Blocks, partition: &Partition) -> bool {
    let mut first = [0; boot::LEN];
    partition.len >= boot::LEN as u64
        && device.read_at(partition.offset, &mut first).is_ok()
        && boot::sight(&first) != Sight::Other
}

fn gpt(device: &mut dyn Blocks, sizes: &[u32]) -> Result<Vec<Partition>, Refusal> {
    let mut header = [0; 512];
    for size in sizes.iter().map(|size| u64::from(*size)) {
        if device.len() < size.saturating_mul(2) {
            continue;
        }
        device.read_at(size, &mut header).map_err(|e| Refusal::read(Place::Table, size, &e))?;
        if header.starts_with(b"EFI PART") {
            return gpt_by(device, &header, size);
        }
    }
    Err(damaged("a protective MBR without a GPT"))
}

fn gpt_by(device: &mut dyn Blocks, header: &[u8; 512], size: u64) -> Result<Vec<Partition>, Refusal> {
    let header_len = usize::try_from(le32(header, 12)).unwrap_or(usize::MAX);
    let covered = header.get(..header_len).filter(|covered| covered.len() >= 92);
    let mut covered = covered.ok_or_else(|| damaged(format!("a header of {header_len} bytes")))?.to_vec();
    put(&mut covered, 16, &[0; 4]);
    if crc32fast::hash(&covered) != le32(header, 16) {
        return Err(damaged("the checksum of the header"));
    }
    let (number, each) = (u64::from(le32(header, 80)), u64::from(le32(header, 84)));
    let bytes = number.saturating_mul(each);
    if le64(header, 24) != 1 || !(128..=4096).contains(&each) || !each.is_multiple_of(8) || bytes > LONGEST_ARRAY {
        return Err(damaged(format!("{number} entries of {each} bytes")));
    }
    let at = le64(header, 72).saturating_mul(size);
    if at.saturating_add(bytes) > device.len() {
        return Err(damaged("the array lies past the end"));
    }
    let mut array_bytes = vec![0; usize::try_from(bytes).unwrap_or(0)];
    device.read_at(at, &mut array_bytes).map_err(|e| Refusal::read(Place::Table, at, &e))?;
    if crc32fast::hash(&array_bytes) != le32(header, 88) {
        return Err(damaged("the checksum of the array"));
    }
    let mut all = Vec::new();
    for (entry, number) in array_bytes.chunks_exact(usize::try_from(each).unwrap_or(128)).zip(1..) {
        if array(entry, 0) == [0_u8; 16] {
            continue;
        }
        let (first, last) = (le64(entry, 32), le64(entry, 40));
        if first < 2 || last < first {
            return Err(damaged(format!("partition {number} from sector {first} to {last}")));
        }
        let sectors = (last - first).saturating_add(1);
        all.push(Partition { number, offset: first.saturating_mul(size), len: sectors.saturating_mul(size) });
    }
    apart(all, device.len())
}

/// Holds partitions to the device and apart from each other.
fn apart(all: Vec<Partition>, len: u64) -> Result<Vec<Partition>, Refusal> {
    if all.len() > MOST {
        return Err(Refusal::new(Code::TooManyPartitions, Place::Table, format!("{} partitions", all.len())));
    }
    let mut sorted = all.clone();
    sorted.sort_by_key(|p| p.offset);
    let mut end = 0;
    for p in &sorted {
        if p.offset < end {
            return Err(Refusal::new(Code::PartitionsOverlap, Place::Table, "").on(p.number));
        }
        end = p.offset.saturating_add(p.len);
    }
    match sorted.iter().find(|p| p.offset.saturating_add(p.len) > len) {
        Some(p) => {
            let detail = format!("{} bytes of {len}", p.offset.saturating_add(p.len));
            Err(Refusal::new(Code::PartitionBeyondDevice, Place::Table, detail).on(p.number))
        }
        None => Ok(all),
    }
}
