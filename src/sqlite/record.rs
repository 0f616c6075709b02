//! Records (file format 2, section 2.1): a header of serial types, then the values.

use super::bytes::varint;

/// One column value, borrowed from the payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// Integer of any width.
    Integer(i64),
    /// IEEE 754 double, bit-exact.
    Real(f64),
    /// Text bytes in the database's encoding.
    Text(&'a [u8]),
    /// Blob.
    Blob(&'a [u8]),
}

/// Splits a payload into values; `None` when lengths and contents disagree.
pub fn values(payload: &[u8]) -> Option<Vec<Value<'_>>> {
    let (header_len, mut cursor) = varint(payload, 0)?;
    let header_len = usize::try_from(header_len).ok().filter(|n| *n <= payload.len())?;
    let mut body = header_len;
    let mut values = Vec::new();
    while cursor < header_len {
        let (serial, n) = varint(payload, cursor)?;
        cursor += n;
        let len = content_len(serial)?;
        let content = payload.get(body..body.checked_add(len)?)?;
        body += len;
        values.push(match serial {
            0 => Value::Null,
            1..=6 => Value::Integer(integer(content)),
            7 => Value::Real(f64::from_bits(integer(content).cast_unsigned())),
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            s if s % 2 == 0 => Value::Blob(content),
            _ => Value::Text(content),
        });
    }
    (cursor == header_len && body == payload.len()).then_some(values)
}

fn content_len(serial: i64) -> Option<usize> {
    match serial {
        0 | 8 | 9 => Some(0),
        1..=4 => usize::try_from(serial).ok(),
        5 => Some(6),
        6 | 7 => Some(8),
        12.. => usize::try_from((serial - 12) / 2).ok(),
        _ => None,
    }
}

/// Big-endian two's complement of 1 to 8 bytes.
fn integer(content: &[u8]) -> i64 {
    let negative = content.first().is_some_and(|b| b & 0x80 != 0);
    let start: i64 = if negative { -1 } else { 0 };
    content.iter().fold(start, |acc, b| (acc << 8) | i64::from(*b))
}
