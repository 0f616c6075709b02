//! Unique ids of partitions, read from the table itself: sysfs does not tell them before Linux 6.9.
//!
//! GPT: UEFI specification 2.10, section 5.3; the ids are stored with their first three groups little-endian. MBR: the
//! disk signature at offset 440, and the number of the partition, in the form Linux prints
//! (`Documentation/admin-guide/kernel-parameters.rst`, `root=PARTUUID=SSSSSSSS-PP`). Pure: bytes in, text out. The
//! checksums of the table are not verified: the kernel did, or there would be no partition to ask for.

use std::io;

use crate::sqlite::{ReadAt, read_vec};

/// Sector sizes in use, the common one first.
const SECTOR_SIZES: [u64; 2] = [512, 4096];
/// Least size of an entry, and the most that is believed.
const ENTRY_SIZES: std::ops::RangeInclusive<u32> = 128..=4096;

/// The id of partition `number` (from 1) of a disk, in lower case; `None` when its table does not give one.
pub fn unique_id(disk: &dyn ReadAt, number: u32) -> io::Result<Option<String>> {
    if number == 0 {
        return Ok(None);
    }
    for sector in SECTOR_SIZES {
        let header = read_vec(disk, sector, 92)?;
        if header.starts_with(b"EFI PART") {
            let (first, size) = (u64::from_le_bytes(array(&header, 72)), u32::from_le_bytes(array(&header, 84)));
            if number > u32::from_le_bytes(array(&header, 80)) || !ENTRY_SIZES.contains(&size) {
                return Ok(None);
            }
            let entry = u64::from(number - 1).saturating_mul(u64::from(size));
            let at = first.saturating_mul(sector).saturating_add(entry).saturating_add(16);
            let id = read_vec(disk, at, 16)?;
            return Ok(<[u8; 16]>::try_from(id).ok().filter(|id| *id != [0; 16]).map(|id| guid(&id)));
        }
    }
    let boot = read_vec(disk, 0, 512)?;
    if boot.get(510..) != Some(&[0x55, 0xAA]) {
        return Ok(None);
    }
    let signature = u32::from_le_bytes(array(&boot, 440));
    Ok((signature != 0).then(|| format!("{signature:08x}-{number:02x}")))
}

fn guid(id: &[u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = *id;
    let (first, second, third) =
        (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([e, f]), u16::from_le_bytes([g, h]));
    let [i, j, k, l, m, n, o, p] = rest;
    format!("{first:08x}-{second:04x}-{third:04x}-{i:02x}{j:02x}-{k:02x}{l:02x}{m:02x}{n:02x}{o:02x}{p:02x}")
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpt(sector: usize) -> Vec<u8> {
        let mut disk = vec![0; sector * 8];
        let header = &mut disk[sector..];
        header[..8].copy_from_slice(b"EFI PART");
        header[72..80].copy_from_slice(&2_u64.to_le_bytes());
        header[80..84].copy_from_slice(&4_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        let second = sector * 2 + 128 + 16;
        disk[second..second + 16].copy_from_slice(&[
            0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
        ]);
        disk
    }

    #[test]
    fn gpt_ids_in_both_sector_sizes() {
        for sector in [512, 4096] {
            let disk = gpt(sector);
            let id = unique_id(&disk, 2).unwrap();
            assert_eq!(id.as_deref(), Some("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"));
            for other in [0, 1, 4, 5, u32::MAX] {
                assert_eq!(unique_id(&disk, other).unwrap(), None);
            }
        }
    }

    #[test]
    fn mbr_ids() {
        let mut disk = vec![0; 512];
        disk[440..444].copy_from_slice(&0x1234_abcd_u32.to_le_bytes());
        assert_eq!(unique_id(&disk, 2).unwrap(), None);
        disk[510..].copy_from_slice(&[0x55, 0xAA]);
        assert_eq!(unique_id(&disk, 2).unwrap().as_deref(), Some("1234abcd-02"));
    }

    #[test]
    fn any_bytes_give_an_answer() {
        let mut disk = gpt(512);
        for at in 512 + 72..512 + 92 {
            let kept = disk[at];
            for value in [0, 1, 0x7F, 0xFF] {
                disk[at] = value;
                unique_id(&disk, 3).unwrap();
            }
            disk[at] = kept;
        }
        unique_id(&Vec::new(), 1).unwrap();
    }
}
