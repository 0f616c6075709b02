//! Keyed, order-independent sums of index entries.
//!
//! A table implies one entry per row for each of its indexes; the index holds entries in another order. If the sums over
//! both, of a keyed 64-bit value per entry, agree, the two hold the same entries but for a chance of 2^-64 for random
//! damage, and whoever made the file did not know the key. The key is a value from outside: no randomness lives here.
//!
//! Entries are mixed in a canonical form: a real that is a whole number as that integer (records hold `REAL` columns
//! either way, and the engine compares them as equal), NaN as NULL, text and blobs as their exact bytes (an index must
//! hold the very text of its table whatever its collation).

use serde::{Deserialize, Serialize};

use crate::sqlite::collate::as_integer;
use crate::sqlite::record::Value;

/// Secret of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumKey(pub [u64; 2]);

/// The multipliers made of a key, once per run.
#[derive(Clone, Copy, Debug)]
pub struct Keyed {
    k: [u64; 4],
    /// One for each kind of value: integer, NULL, real, text, blob.
    kinds: [u64; 5],
}

/// The mixing of one entry.
#[derive(Clone, Copy, Debug)]
pub struct Mix<'a> {
    keyed: &'a Keyed,
    state: u64,
}

impl Keyed {
    /// Spreads a key.
    pub fn new(key: SumKey) -> Self {
        let [mut x, y] = key.0;
        let mut next = || {
            // splitmix64, so that no two words of the key are related in a way the mixing undoes.
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = x ^ y;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) | 1
        };
        Self { k: [next(), next(), next(), next()], kinds: [next(), next(), next(), next(), next()] }
    }

    /// Begins an entry.
    #[inline]
    pub fn begin(&self) -> Mix<'_> {
        let [_, _, seed, _] = self.k;
        Mix { keyed: self, state: seed }
    }
}

#[inline]
fn product(a: u64, b: u64) -> (u64, u64) {
    let wide = u128::from(a) * u128::from(b);
    #[allow(clippy::cast_possible_truncation)]
    (wide as u64, (wide >> 64) as u64)
}

impl Mix<'_> {
    #[inline]
    fn word(&mut self, word: u64) {
        let [k, ..] = self.keyed.k;
        let (low, high) = product(self.state ^ word, k);
        self.state = low ^ high ^ word.rotate_left(32);
    }

    /// Mixes one value. Each kind has a secret of its own, so that values of different kinds agree by chance alone.
    #[inline(always)]
    pub fn value(&mut self, value: Value<'_>) {
        let [.., null, real, text, blob] = self.keyed.kinds;
        match value {
            Value::Null => self.word(null),
            Value::Integer(n) => self.integer(n),
            Value::Real(r) => match as_integer(r) {
                Some(n) => self.integer(n),
                None if r.is_nan() => self.word(null),
                None => self.word(r.to_bits() ^ real),
            },
            Value::Text(bytes) => self.bytes(text, bytes),
            Value::Blob(bytes) => self.bytes(blob, bytes),
        }
    }

    /// Mixes an integer.
    #[inline]
    pub fn integer(&mut self, n: i64) {
        let [integer, ..] = self.keyed.kinds;
        self.word(n.cast_unsigned() ^ integer);
    }

    #[inline]
    fn bytes(&mut self, kind: u64, bytes: &[u8]) {
        self.word(bytes.len() as u64 ^ kind);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        if rest.is_empty() {
            return;
        }
        // The length is mixed already, so the last eight bytes may overlap those before them.
        match bytes.last_chunk::<8>() {
            Some(word) => self.word(u64::from_le_bytes(*word)),
            None => self.word(rest.iter().fold(0, |word, b| word << 8 | u64::from(*b))),
        }
    }

    /// Ends the entry.
    #[inline]
    pub fn end(self) -> u64 {
        let [_, k1, k2, _] = self.keyed.k;
        let (low, high) = product(self.state ^ k1, k2);
        low ^ high
    }
}

/// Sum and count of one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Entries.
    pub count: u64,
    /// Sum of their mixed values.
    pub sum: u64,
}

impl Side {
    /// Adds another worker's part.
    pub fn merge(&mut self, other: Self) {
        self.count = self.count.wrapping_add(other.count);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// Adds an entry.
    #[inline]
    pub fn add(&mut self, mixed: u64) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(mixed);
    }
}
