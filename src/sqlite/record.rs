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
#[inline]
fn integer(content: &[u8]) -> i64 {
    // Reals and the widths that most integers have, without a loop.
    match *content {
        [a, b, c, d, e, f, g, h] => return i64::from_be_bytes([a, b, c, d, e, f, g, h]),
        [a, b, c, d] => return i64::from(i32::from_be_bytes([a, b, c, d])),
        [a, b] => return i64::from(i16::from_be_bytes([a, b])),
        [a] => return i64::from(i8::from_be_bytes([a])),
        _ => {}
    }
    let negative = content.first().is_some_and(|b| b & 0x80 != 0);
    let start: i64 = if negative { -1 } else { 0 };
    content.iter().fold(start, |acc, b| (acc << 8) | i64::from(*b))
}

/// Where one value of a record lies, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// What kind of value.
    pub class: Class,
    /// Offset in the payload.
    pub at: u32,
    /// Length in bytes.
    pub len: u32,
}

/// The serial types, lengths of text and blobs taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// NULL.
    Null,
    /// An integer of [`Field::len`] bytes.
    Integer,
    /// A double.
    Real,
    /// The integer 0 or 1, without bytes.
    Constant(bool),
    /// Text.
    Text,
    /// Blob.
    Blob,
}

/// Why a header could not be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsplit {
    /// It goes on behind the bytes given: so many bytes of the payload are needed.
    Needs(usize),
    /// It cannot be a header.
    Damaged(&'static str),
}

/// Longest header of a record, as the engine limits it: 32 767 columns of three bytes each, and its own length.
const MAX_HEADER: u64 = 98_307;

/// Splits the header of a record whose first bytes are `start` into `fields`, which is emptied first. The lengths must
/// add up to `payload_len` exactly.
pub fn split(start: &[u8], payload_len: u64, fields: &mut Vec<Field>) -> Result<(), Unsplit> {
    fields.clear();
    let (header, mut cursor) = match start.first() {
        Some(b) if *b < 0x80 => (u64::from(*b), 1),
        _ => {
            let (n, used) = varint(start, 0).ok_or(Unsplit::Damaged("it is shorter than the length of its header"))?;
            (u64::try_from(n).unwrap_or(u64::MAX), used)
        }
    };
    if header > MAX_HEADER || header > payload_len || header < cursor as u64 {
        return Err(Unsplit::Damaged("the length of its header is impossible"));
    }
    let header_len = usize::try_from(header).unwrap_or(usize::MAX);
    let Some(types) = start.get(..header_len) else { return Err(Unsplit::Needs(header_len)) };
    let mut at = header;
    while let Some(first) = types.get(cursor) {
        let serial = if *first < 0x80 {
            cursor += 1;
            u64::from(*first)
        } else {
            let (n, used) = varint(types, cursor).ok_or(Unsplit::Damaged("a type runs out of its header"))?;
            cursor += used;
            u64::try_from(n).unwrap_or(u64::MAX)
        };
        let (class, len) = match serial {
            0 => (Class::Null, 0),
            1..=4 => (Class::Integer, serial),
            5 => (Class::Integer, 6),
            6 => (Class::Integer, 8),
            7 => (Class::Real, 8),
            8 | 9 => (Class::Constant(serial == 9), 0),
            10 | 11 => return Err(Unsplit::Damaged("a value has one of the two types that are never stored")),
            _ if serial & 1 == 0 => (Class::Blob, (serial - 12) / 2),
            _ => (Class::Text, (serial - 13) / 2),
        };
        let end = at.saturating_add(len);
        if end > payload_len {
            return Err(Unsplit::Damaged("its values are longer than it is"));
        }
        let place = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        fields.push(Field { class, at: place(at), len: place(len) });
        at = end;
    }
    if at == payload_len { Ok(()) } else { Err(Unsplit::Damaged("its values are shorter than it is")) }
}

impl Field {
    /// Offset behind the value in the payload.
    pub fn end(&self) -> usize {
        usize::try_from(u64::from(self.at) + u64::from(self.len)).unwrap_or(usize::MAX)
    }

    /// The value; `None` when `payload` ends before it does.
    #[inline(always)]
    pub fn value<'a>(&self, payload: &'a [u8]) -> Option<Value<'a>> {
        match self.class {
            Class::Null => return Some(Value::Null),
            Class::Constant(one) => return Some(Value::Integer(i64::from(one))),
            _ => {}
        }
        let content = payload.get(usize::try_from(self.at).ok()?..self.end())?;
        Some(match self.class {
            Class::Integer => Value::Integer(integer(content)),
            // A NaN cannot be stored; the engine reads its bits as NULL.
            Class::Real => match f64::from_bits(integer(content).cast_unsigned()) {
                r if r.is_nan() => Value::Null,
                r => Value::Real(r),
            },
            Class::Text => Value::Text(content),
            _ => Value::Blob(content),
        })
    }
}
