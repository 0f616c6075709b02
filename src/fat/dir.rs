//! Directories: entries of 32 bytes (FAT, "FAT Directory Structure").
//!
//! Ours is read strictly: an entry that does not fit is a refusal. In the root directory, which other systems write as
//! they like, what does not fit is passed over; only the one entry that leads to our directory must be sound.

use super::boot::Kind;
use super::bytes::{array, byte, le16, le32};
use super::name::{self, Long};
use super::{Code, Place, Refusal};

/// Bytes of an entry.
pub const ENTRY: usize = 32;
const DIRECTORY: u8 = 0x10;
const LABEL: u8 = 0x08;
const LONG: u8 = 0x0F;
const KNOWN: u8 = 0x3F;

/// A file or directory.
pub struct Entry {
    /// Name as it is displayed: the long one where there is one.
    pub name: String,
    /// The short one.
    pub short: String,
    /// A directory.
    pub directory: bool,
    /// First cluster; 0 when there is none.
    pub first: u32,
    /// Bytes; 0 in a directory.
    pub size: u32,
}

/// Gives each entry of `bytes` to `take`. `place` is where they stand.
pub fn each(
    bytes: &[u8],
    kind: Kind,
    place: &Place,
    take: &mut dyn FnMut(Entry) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let strict = *place == Place::Directory;
    let mut long = Long::default();
    for (raw, number) in bytes.chunks_exact(ENTRY).zip(0_u32..) {
        let refuse = |code: Code, what: &str| match strict {
            true => Err(Refusal::new(code, place.clone(), format!("entry {number}{what}"))),
            false => Ok(()),
        };
        match (byte(raw, 0), byte(raw, 11)) {
            (0, _) => break,
            (0xE5, _) => {
                if long.waits() {
                    refuse(Code::LongNameDamaged, "")?;
                }
                long = Long::default();
            }
            (_, attributes) if attributes & KNOWN == LONG => {
                if !long.take(raw) {
                    refuse(Code::LongNameDamaged, "")?;
                }
            }
            _ => match entry(raw, kind, &mut long) {
                Ok(Some(entry)) => take(entry)?,
                Ok(None) if strict => refuse(Code::EntryDamaged, ": a volume label")?,
                Ok(None) => {}
                Err((code, what)) => refuse(code, what)?,
            },
        }
    }
    if long.waits() && strict {
        return Err(Refusal::new(Code::LongNameDamaged, place.clone(), "the last entry"));
    }
    Ok(())
}

/// A short entry and the long name that was waiting for it; `None` is a volume label.
fn entry(raw: &[u8], kind: Kind, long: &mut Long) -> Result<Option<Entry>, (Code, &'static str)> {
    let attributes = byte(raw, 11);
    let waited = long.waits();
    let bytes: [u8; 11] = array(raw, 0);
    let joined = long.finish(&bytes);
    if attributes & LABEL != 0 {
        return Ok(None);
    }
    if attributes & !KNOWN != 0 {
        return Err((Code::EntryDamaged, ": its attributes"));
    }
    let short = name::short(&bytes, byte(raw, 12)).ok_or((Code::NameForbidden, ": its short name"))?;
    let name = match (joined, waited) {
        (Some(name), _) if name::allowed(&name) => name,
        (Some(_), _) => return Err((Code::NameForbidden, "")),
        (None, true) => return Err((Code::LongNameDamaged, "")),
        (None, false) => short.clone(),
    };
    let high = le16(raw, 20);
    let directory = attributes & DIRECTORY != 0;
    let size = le32(raw, 28);
    if directory && size != 0 {
        return Err((Code::EntryDamaged, ": a directory with a size"));
    }
    if kind == Kind::Fat16 && high != 0 {
        return Err((Code::EntryDamaged, ": its first cluster"));
    }
    Ok(Some(Entry { name, short, directory, first: u32::from(high) << 16 | u32::from(le16(raw, 26)), size }))
}

/// A directory begins with itself and with the one above it, which for ours is the root. A start of a chain that was
/// changed to some other directory does not get past this.
pub fn dots(bytes: &[u8], kind: Kind, own: u32, root: Option<u32>) -> Result<(), Refusal> {
    let one = |at: usize, name: &[u8; 11]| {
        let raw = bytes.get(at..).unwrap_or_default();
        let high = if kind == Kind::Fat32 { u32::from(le16(raw, 20)) << 16 } else { 0 };
        (array(raw, 0) == *name && byte(raw, 11) & KNOWN == DIRECTORY).then(|| high | u32::from(le16(raw, 26)))
    };
    let itself = one(0, b".          ") == Some(own);
    // The specification says 0 for the root; some systems write its cluster.
    let above = one(ENTRY, b"..         ").is_some_and(|cluster| cluster == 0 || Some(cluster) == root);
    if itself && above {
        Ok(())
    } else {
        Err(Refusal::new(Code::DotEntries, Place::Directory, format!("cluster {own}")))
    }
}
