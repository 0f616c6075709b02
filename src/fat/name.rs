//! Names: the short ones of eleven bytes, the long ones in pieces of thirteen UTF-16 units (FAT, "Long Directory
//! Entries"), and when two of them are the same.

use super::bytes::{byte, le16};

/// Units in one piece of a long name.
pub const PIECE: usize = 13;
/// Pieces of the longest name.
pub const PIECES: usize = 20;
/// Units of the longest name.
const LONGEST: usize = 255;
/// Bytes above ASCII depend on a code page that the volume does not name: they are shown in the private area, each as
/// itself, so that two different names stay different.
const FOREIGN: u32 = 0xF700;

/// The sum over a short name that ties the pieces of a long one to it.
pub fn sum(short: &[u8; 11]) -> u8 {
    short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// Names that differ in case only are one name.
pub fn fold(name: &str) -> String {
    name.chars().flat_map(char::to_uppercase).collect()
}

/// The text of a short name; `None` when it has bytes that none may have. `case` is the byte in which Windows keeps
/// that a part is to be shown in lower case.
pub fn short(raw: &[u8; 11], case: u8) -> Option<String> {
    let (base, extension) = raw.split_at(8);
    let mut base = base.to_vec();
    if base.first() == Some(&0x05) {
        // 0xE5 marks a deleted entry, so a name that begins with it is stored so.
        base = [&[0xE5], base.get(1..)?].concat();
    }
    let base = part(&base, case & 0x08 != 0)?;
    let extension = part(extension, case & 0x10 != 0)?;
    match (base.is_empty(), extension.is_empty()) {
        (true, _) => None,
        (_, true) => Some(base),
        _ => Some(format!("{base}.{extension}")),
    }
}

fn part(raw: &[u8], lower: bool) -> Option<String> {
    let end = raw.iter().rposition(|b| *b != b' ').map_or(0, |last| last + 1);
    let letters = raw.get(..end)?;
    let allowed = |b: &u8| *b > b' ' && !b.is_ascii_lowercase() && !br#""*+,./:;<=>?[\]|"#.contains(b) && *b != 0x7F;
    // A space within is legal, though nobody makes one; in front it is not.
    if !letters.iter().enumerate().all(|(i, b)| allowed(b) || (*b == b' ' && i > 0)) {
        return None;
    }
    let shown = |b: &u8| match (b.is_ascii(), lower) {
        (true, true) => Some(char::from(b.to_ascii_lowercase())),
        (true, false) => Some(char::from(*b)),
        (false, _) => char::from_u32(FOREIGN + u32::from(*b)),
    };
    letters.iter().map(shown).collect()
}

/// Whether a long name is one that every system takes.
pub fn allowed(name: &str) -> bool {
    let forbidden = |c: char| c.is_control() || r#""*/:<>?\|"#.contains(c);
    let units = name.encode_utf16().count();
    (1..=LONGEST).contains(&units) && !name.chars().any(forbidden) && !name.ends_with(['.', ' '])
}

/// The units of one piece: five, six and two of them, around fields of the short entry's layout.
pub fn units(entry: &[u8]) -> [u16; PIECE] {
    let mut units = [0; PIECE];
    let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
    for (unit, at) in units.iter_mut().zip(places) {
        *unit = le16(entry, at);
    }
    units
}

/// A long name as its pieces come: the last first, each with its number and the sum of the short name.
#[derive(Default)]
pub struct Long {
    units: Vec<u16>,
    pieces: usize,
    /// Number of the piece that came last; 0 when none is waited for.
    last: usize,
    sum: u8,
}

impl Long {
    /// Whether pieces wait for their short name.
    pub fn waits(&self) -> bool {
        self.last != 0
    }

    /// Takes a piece; false when it does not fit to those before it, which are then forgotten.
    pub fn take(&mut self, entry: &[u8]) -> bool {
        let order = usize::from(byte(entry, 0));
        let number = order & 0x3F;
        let begins = order & 0x40 != 0;
        let fits = if begins { self.last == 0 } else { number + 1 == self.last && self.sum == byte(entry, 13) };
        let sound = order & 0x80 == 0 && (1..=PIECES).contains(&number) && byte(entry, 12) == 0 && le16(entry, 26) == 0;
        if !(sound && (fits || begins)) {
            *self = Self::default();
            return false;
        }
        if begins {
            *self = Self { units: vec![0; number * PIECE], pieces: number, last: number, sum: byte(entry, 13) };
        }
        self.last = number;
        let to = self.units.get_mut((number - 1) * PIECE..).unwrap_or_default();
        to.iter_mut().zip(units(entry)).for_each(|(to, unit)| *to = unit);
        fits
    }

    /// The whole name, once its first piece has come and the short name is known; the pieces are forgotten.
    /// `None` when they do not make a name.
    pub fn finish(&mut self, short: &[u8; 11]) -> Option<String> {
        let long = std::mem::take(self);
        if long.last != 1 || long.sum != sum(short) {
            return None;
        }
        let end = long.units.iter().position(|unit| *unit == 0).unwrap_or(long.units.len());
        let padded = long.units.get(end + 1..).unwrap_or_default().iter().all(|unit| *unit == 0xFFFF);
        // Every piece holds a part of the name, and the last may hold its end.
        if !padded || end <= (long.pieces - 1) * PIECE {
            return None;
        }
        String::from_utf16(long.units.get(..end)?).ok()
    }
}
