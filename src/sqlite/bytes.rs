//! Total accessors over byte slices: out of range reads as zero, so that no input makes a reader panic.
//! Callers check lengths first where a zero would be a lie.

/// Big-endian 16-bit word.
pub fn be16(bytes: &[u8], at: usize) -> u16 {
    array(bytes, at).map_or(0, u16::from_be_bytes)
}

/// Big-endian 32-bit word.
pub fn be32(bytes: &[u8], at: usize) -> u32 {
    array(bytes, at).map_or(0, u32::from_be_bytes)
}

/// Little-endian 16-bit word.
pub fn le16(bytes: &[u8], at: usize) -> u16 {
    array(bytes, at).map_or(0, u16::from_le_bytes)
}

/// Little-endian 32-bit word.
pub fn le32(bytes: &[u8], at: usize) -> u32 {
    array(bytes, at).map_or(0, u32::from_le_bytes)
}

/// A byte.
pub fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A variable-length integer (file format 2, section 1.6): value and length, `None` when the bytes end first.
pub fn varint(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let mut value: u64 = 0;
    for i in 0..8 {
        let b = *bytes.get(at + i)?;
        value = (value << 7) | u64::from(b & 0x7f);
        if b & 0x80 == 0 {
            return Some((value.cast_signed(), i + 1));
        }
    }
    let b = *bytes.get(at + 8)?;
    value = (value << 8) | u64::from(b);
    Some((value.cast_signed(), 9))
}
