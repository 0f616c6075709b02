//! The one form of every small durable record (intent, slots, trials): a line of facts, then JSON.
//!
//! ```text
//! pyvorin slots format=1 min_reader=1 crc=1a2b3c4d len=123\n
//! {"sequence":…}
//! ```
//!
//! `crc` is the CRC-32 (IEEE, lower-case hex) of the line up to and without ` crc=`, a newline, and the `len` bytes of
//! JSON. It covers the line as well, because a flipped digit in `min_reader` would otherwise turn a good record into
//! one of the future. The line must be exactly as [`encode`] writes it and nothing may follow the JSON, so every bit of
//! a record is covered by the checksum or by this comparison.
//!
//! Promise to later versions: a field may be added without touching either number; `format` rises when an older reader
//! would still act rightly; `min_reader` rises when it would not. A reader below `min_reader` gets [`Decoded::Newer`]
//! and must leave the record untouched.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The format that [`encode`] writes.
const FORMAT: u32 = 1;
/// The oldest reader that understands what [`encode`] writes.
const MIN_READER: u32 = 1;
/// The reader that this is. 2 knows intents whose targets go away, 3 those that go back.
const READER: u32 = 3;
/// No record of ours has a longer first line; bounds the search in foreign bytes.
const LINE_MAX: usize = 160;

/// What the bytes of a record turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<T> {
    /// Intact.
    Ok(T),
    /// Intact, and written by a version whose records this one must not interpret or replace.
    Newer {
        /// The reader it asks for.
        min_reader: u32,
    },
    /// Not a whole record of this kind; the reason in plain words.
    Damaged(String),
}

impl<T> Decoded<T> {
    /// The value, if intact.
    #[must_use]
    pub fn ok(self) -> Option<T> {
        match self {
            Self::Ok(value) => Some(value),
            Self::Newer { .. } | Self::Damaged(_) => None,
        }
    }
}

/// The bytes of a record. `kind` is one lower-case word.
///
/// A value that JSON cannot express (a map whose keys are not strings) gives no bytes at all, which decode as damaged;
/// types of records must not contain one.
#[must_use]
pub fn encode<T: Serialize>(kind: &str, value: &T) -> Vec<u8> {
    encode_for(MIN_READER, kind, value)
}

/// [`encode`] for a value that readers below `min_reader` must not interpret.
#[must_use]
pub fn encode_for<T: Serialize>(min_reader: u32, kind: &str, value: &T) -> Vec<u8> {
    let Ok(json) = serde_json::to_vec(value) else { return Vec::new() };
    let mut bytes = line(kind, FORMAT, min_reader, &json).into_bytes();
    bytes.extend_from_slice(&json);
    bytes
}

/// Reads a record. Total: any bytes give a value, and only the exact bytes of [`encode`] give [`Decoded::Ok`].
#[must_use]
pub fn decode<T: DeserializeOwned>(kind: &str, bytes: &[u8]) -> Decoded<T> {
    match open(kind, bytes) {
        Err(reason) => Decoded::Damaged(reason.to_owned()),
        Ok((min_reader, _)) if min_reader > READER => Decoded::Newer { min_reader },
        Ok((_, json)) => match serde_json::from_slice(json) {
            Ok(value) => Decoded::Ok(value),
            Err(error) => Decoded::Damaged(format!("the checksum holds and the contents do not fit: {error}")),
        },
    }
}

fn open<'b>(kind: &str, bytes: &'b [u8]) -> Result<(u32, &'b [u8]), &'static str> {
    if bytes.is_empty() {
        return Err("it is empty");
    }
    let end = bytes.iter().take(LINE_MAX).position(|b| *b == b'\n').ok_or("it has no first line of ours")?;
    let (head, rest) = bytes.split_at_checked(end + 1).ok_or("it has no first line of ours")?;
    let head = std::str::from_utf8(head).map_err(|_| "its first line is not text")?;
    let mut words = head.trim_end().split(' ');
    if words.next() != Some("pyvorin") {
        return Err("it does not begin with our name");
    }
    if words.next() != Some(kind) {
        return Err("it is a record of another kind");
    }
    let mut number = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=')?.parse::<u32>().ok();
    let format = number("format").ok_or("its first line has no format")?;
    let min_reader = number("min_reader").ok_or("its first line has no min_reader")?;
    // Canonical or damaged: +1, 01 and upper-case digits are not ours, and a bit flip can produce them. The expected
    // line also carries the expected checksum and length, so this one comparison checks everything.
    if head != line(kind, format, min_reader, rest) {
        return Err("its length or checksum does not match its contents");
    }
    Ok((min_reader, rest))
}

fn line(kind: &str, format: u32, min_reader: u32, json: &[u8]) -> String {
    let facts = format!("pyvorin {kind} format={format} min_reader={min_reader}");
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(facts.as_bytes());
    hasher.update(b"\n");
    hasher.update(json);
    format!("{facts} crc={:08x} len={}\n", hasher.finalize(), json.len())
}

#[cfg(test)]
mod tests {
    use super::{Decoded, READER, decode, encode, line};
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        name: String,
        numbers: Vec<u64>,
    }

    fn sample() -> Sample {
        Sample { name: "ein Name mit ü\n".to_owned(), numbers: vec![0, 1, u64::MAX] }
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        assert_eq!(decode("sample", &encode("sample", &sample())), Decoded::Ok(sample()));
    }

    #[test]
    fn the_form_on_disk_is_pinned() {
        let text = String::from_utf8(encode("slots", &7)).unwrap();
        assert_eq!(text, "pyvorin slots format=1 min_reader=1 crc=bec65aee len=1\n7");
    }

    #[test]
    fn a_record_cut_at_any_byte_is_damaged() {
        let whole = encode("sample", &sample());
        for len in 0..whole.len() {
            assert!(matches!(decode::<Sample>("sample", &whole[..len]), Decoded::Damaged(_)), "cut at {len}");
        }
    }

    #[test]
    fn a_record_with_any_bit_flipped_is_damaged() {
        let whole = encode("sample", &sample());
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode::<Sample>("sample", &bytes), Decoded::Damaged(_)), "bit {bit}");
        }
    }

    #[test]
    fn bytes_behind_a_record_and_other_kinds_are_damaged() {
        let mut bytes = encode("sample", &sample());
        assert!(matches!(decode::<Sample>("intent", &bytes), Decoded::Damaged(_)));
        bytes.push(b'\n');
        assert!(matches!(decode::<Sample>("sample", &bytes), Decoded::Damaged(_)));
    }

    #[test]
    fn a_record_of_the_future_is_told_apart_from_damage() {
        let json = b"{\"unheard\":true}";
        let mut newer = line("sample", READER + 1, READER + 1, json).into_bytes();
        newer.extend_from_slice(json);
        assert_eq!(decode::<Sample>("sample", &newer), Decoded::Newer { min_reader: READER + 1 });
        let json = serde_json::to_vec(&sample()).unwrap();
        let mut readable = line("sample", READER + 1, 1, &json).into_bytes();
        readable.extend_from_slice(&json);
        assert_eq!(decode("sample", &readable), Decoded::Ok(sample()));
    }

    #[test]
    fn foreign_bytes_never_panic() {
        for bytes in [&b""[..], b"\n", b"pyvorin\n", b"pyvorin sample\n", b"pyvorin sample format=\n", &[0xff; 4096]] {
            assert!(matches!(decode::<Sample>("sample", bytes), Decoded::Damaged(_)));
        }
    }
}
