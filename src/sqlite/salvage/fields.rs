//! Records split without allocation (file format 2, section 2.1): where each value lies, before the whole payload is at
//! hand. A row that spills onto overflow pages can so be judged by its header alone.

use crate::sqlite::bytes::varint;
use crate::sqlite::record::Value;

/// Most columns a table can have (SQLITE_MAX_COLUMN is at most 32767).
const MAX_FIELDS: usize = 32_767;

/// One value: its serial type and where its bytes lie in the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Serial type.
    pub serial: u64,
    /// Offset in the payload.
    pub at: usize,
    /// Length in bytes.
    pub len: usize,
}

impl Field {
    /// NULL.
    pub fn is_null(self) -> bool {
        self.serial == 0
    }

    /// An integer of any width.
    pub fn is_integer(self) -> bool {
        matches!(self.serial, 1..=6 | 8 | 9)
    }

    /// A double.
    pub fn is_real(self) -> bool {
        self.serial == 7
    }

    /// Text.
    pub fn is_text(self) -> bool {
        self.serial >= 13 && self.serial % 2 == 1
    }

    /// A blob.
    pub fn is_blob(self) -> bool {
        self.serial >= 12 && self.serial.is_multiple_of(2)
    }

    /// The value, from the whole payload; NULL where the payload is too short, which [`split`] has excluded.
    pub fn value(self, payload: &[u8]) -> Value<'_> {
        let bytes = payload.get(self.at..self.at.saturating_add(self.len)).unwrap_or(&[]);
        match self.serial {
            1..=6 => Value::Integer(integer(bytes)),
            7 => Value::Real(f64::from_bits(integer(bytes).cast_unsigned())),
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            _ if self.is_text() => Value::Text(bytes),
            _ if self.is_blob() => Value::Blob(bytes),
            _ => Value::Null,
        }
    }

    /// The integer, where it is one.
    pub fn integer(self, payload: &[u8]) -> Option<i64> {
        if let Value::Integer(n) = self.value(payload) { Some(n) } else { None }
    }
}

/// Splits the record that begins in `local` and is `total` bytes long. False when its header does not lie in `local`
/// or does not account for exactly `total` bytes: then these bytes are no record.
pub fn split(local: &[u8], total: u64, fields: &mut Vec<Field>) -> bool {
    fields.clear();
    let Some((header, mut cursor)) = varint(local, 0) else { return false };
    let Some(header) = usize::try_from(header).ok().filter(|n| *n <= local.len() && *n >= cursor) else { return false };
    let mut body = header;
    while cursor < header {
        // One-byte serial types are nearly all there are.
        let (serial, n) = match local.get(cursor) {
            Some(b) if *b < 0x80 => (u64::from(*b), 1),
            _ => match varint(local, cursor) {
                Some((serial, n)) => (serial.cast_unsigned(), n),
                None => return false,
            },
        };
        cursor += n;
        let len = match serial {
            0 | 8 | 9 => 0,
            1..=4 => serial,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return false,
            _ => (serial - 12) / 2,
        };
        let Some(end) = usize::try_from(len).ok().and_then(|len| body.checked_add(len)) else { return false };
        if end as u64 > total || fields.len() >= MAX_FIELDS {
            return false;
        }
        fields.push(Field { serial, at: body, len: end - body });
        body = end;
    }
    cursor == header && body as u64 == total
}

/// Big-endian two's complement of 1 to 8 bytes.
fn integer(content: &[u8]) -> i64 {
    let negative = content.first().is_some_and(|b| b & 0x80 != 0);
    let start: i64 = if negative { -1 } else { 0 };
    content.iter().fold(start, |acc, b| (acc << 8) | i64::from(*b))
}
