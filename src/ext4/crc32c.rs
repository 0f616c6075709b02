//! crc32c (Castagnoli, reflected polynomial 0x82F63B78), the checksum of ext4 metadata.
//!
//! `crc32fast` computes the other CRC-32 only. One kilobyte per boot goes through this table, so one byte at a time is
//! fast enough. No inversion before or after: ext4 stores the bare register.

const TABLE: [u32; 256] = table();

/// Continues the register `crc` over `bytes`.
#[must_use]
pub fn update(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, &byte| {
        let [low, ..] = crc.to_le_bytes();
        TABLE.get(usize::from(low ^ byte)).copied().unwrap_or_default() ^ (crc >> 8)
    })
}

#[allow(clippy::indexing_slicing, clippy::as_conversions)] // Evaluated by the compiler: a fault here is a build error.
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    /// The check value of the algorithm (RFC 3720, appendix B.4 uses the same polynomial).
    #[test]
    fn check_value() {
        assert_eq!(!super::update(u32::MAX, b"123456789"), 0xE306_9283);
        assert_eq!(!super::update(u32::MAX, &[0; 32]), 0x8A91_36AA);
    }
}
