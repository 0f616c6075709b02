//! The order of keys (sqlite.org/datatype3.html sections 4.1 and 7): NULL, numbers, text, blobs; numbers by value, exactly,
//! whether integer or real; text by one of the three built-in collating sequences.
//!
//! BINARY compares the bytes as stored, so in the order of UTF-16 code units' bytes where that is the encoding. NOCASE
//! and RTRIM are defined on UTF-8: other encodings are converted first, in the engine's own way for broken pairs.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::record::Value;

/// Text encoding as the header's word 56 names it; 0 (none yet) reads as UTF-8.
pub type Encoding = u32;

/// A built-in collating sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collation {
    /// `memcmp`.
    Binary,
    /// ASCII letters alike.
    Nocase,
    /// Trailing spaces ignored.
    Rtrim,
}

impl Collation {
    /// By name, any case; `None` for collations that an application defines.
    pub fn named(name: &str) -> Option<Self> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("BINARY") {
            Some(Self::Binary)
        } else if is("NOCASE") {
            Some(Self::Nocase)
        } else if is("RTRIM") {
            Some(Self::Rtrim)
        } else {
            None
        }
    }
}

/// Order of one part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyOrder {
    /// Collating sequence.
    pub collation: Collation,
    /// Descending.
    pub desc: bool,
}

/// Compares two values of one part of a key.
#[inline]
pub fn compare(a: Value<'_>, b: Value<'_>, order: KeyOrder, encoding: Encoding) -> Ordering {
    let ascending = match (a, b) {
        (Value::Text(a), Value::Text(b)) if order.collation == Collation::Binary => a.cmp(b),
        (Value::Integer(a), Value::Integer(b)) => a.cmp(&b),
        (Value::Real(a), Value::Real(b)) => real_order(a, b),
        (Value::Integer(a), Value::Real(b)) => int_real(a, b),
        (Value::Real(a), Value::Integer(b)) => int_real(b, a).reverse(),
        (Value::Text(a), Value::Text(b)) => text(a, b, order.collation, encoding),
        (Value::Blob(a), Value::Blob(b)) => a.cmp(b),
        (a, b) => class(a).cmp(&class(b)),
    };
    if order.desc { ascending.reverse() } else { ascending }
}

fn class(value: Value<'_>) -> u8 {
    match value {
        Value::Null => 0,
        // NaN cannot be stored: the engine reads it as NULL.
        Value::Real(r) if r.is_nan() => 0,
        Value::Integer(_) | Value::Real(_) => 1,
        Value::Text(_) => 2,
        Value::Blob(_) => 3,
    }
}

fn real_order(a: f64, b: f64) -> Ordering {
    // Two NaN are two NULLs, and NULL comes first.
    a.partial_cmp(&b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// Exact comparison of an integer with a real.
fn int_real(i: i64, r: f64) -> Ordering {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if r.is_nan() {
        return Ordering::Greater;
    }
    if r >= LIMIT {
        return Ordering::Less;
    }
    if r < -LIMIT {
        return Ordering::Greater;
    }
    // In range, so the conversion truncates toward zero and is exact for the whole part.
    let whole = truncated(r);
    i.cmp(&whole).then_with(|| 0.0_f64.partial_cmp(&(r - r.trunc())).unwrap_or(Ordering::Equal))
}

/// The whole part of a real that lies in the range of i64.
#[allow(clippy::cast_possible_truncation)]
fn truncated(r: f64) -> i64 {
    r as i64
}

/// The integer that a real equals exactly.
pub fn as_integer(r: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    // There and back again instead of `trunc`, which is a call where the processor has no instruction for it.
    #[allow(clippy::cast_precision_loss)]
    let exact = (-LIMIT..LIMIT).contains(&r) && truncated(r) as f64 == r;
    exact.then(|| truncated(r))
}

fn text(a: &[u8], b: &[u8], collation: Collation, encoding: Encoding) -> Ordering {
    let (a, b) = (utf8(a, encoding), utf8(b, encoding));
    match collation {
        Collation::Binary => a.cmp(&b),
        Collation::Nocase => nocase(&a, &b),
        Collation::Rtrim => trimmed(&a).cmp(trimmed(&b)),
    }
}

fn trimmed(text: &[u8]) -> &[u8] {
    let spaces = text.iter().rev().take_while(|b| **b == b' ').count();
    text.get(..text.len() - spaces).unwrap_or(&[])
}

/// As the engine does it: bytes up to the shorter length or a NUL, then the lengths.
fn nocase(a: &[u8], b: &[u8]) -> Ordering {
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x.to_ascii_lowercase(), y.to_ascii_lowercase());
        if x != y {
            return x.cmp(&y);
        }
        if x == 0 {
            break;
        }
    }
    a.len().cmp(&b.len())
}

/// Text as UTF-8 bytes, converted as the engine converts: a lone surrogate is paired with whatever follows it.
pub fn utf8(text: &[u8], encoding: Encoding) -> Cow<'_, [u8]> {
    let unit = match encoding {
        2 => u16::from_le_bytes,
        3 => u16::from_be_bytes,
        _ => return Cow::Borrowed(text),
    };
    let mut units = text.chunks_exact(2).map(|c| if let [a, b] = *c { u32::from(unit([a, b])) } else { 0 });
    let mut out = Vec::with_capacity(text.len());
    while let Some(first) = units.next() {
        let mut c = first;
        if (0xd800..0xe000).contains(&c)
            && let Some(second) = units.next()
        {
            c = (second & 0x3ff) + ((c & 0x3f) << 10) + (((c & 0x3c0) + 0x40) << 10);
        }
        let byte = |bits: u32| u8::try_from(bits & 0xff).unwrap_or(0);
        match c {
            0..0x80 => out.push(byte(c)),
            0x80..0x800 => out.extend([byte(0xc0 | (c >> 6)), byte(0x80 | (c & 0x3f))]),
            0x800..0x1_0000 => {
                out.extend([byte(0xe0 | (c >> 12)), byte(0x80 | ((c >> 6) & 0x3f)), byte(0x80 | (c & 0x3f))])
            }
            _ => out.extend([
                byte(0xf0 | ((c >> 18) & 7)),
                byte(0x80 | ((c >> 12) & 0x3f)),
                byte(0x80 | ((c >> 6) & 0x3f)),
                byte(0x80 | (c & 0x3f)),
            ]),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests;
