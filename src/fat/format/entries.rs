//! The directory entries of a new stick.

use super::NewFile;
use crate::fat::bytes::{byte, put};
use crate::fat::dir::ENTRY;
use crate::fat::name::{self, PIECE};

const ARCHIVE: u8 = 0x20;
const DIRECTORY: u8 = 0x10;
const LABEL: u8 = 0x08;
const LONG: u8 = 0x0F;

/// A time as FAT keeps it: seconds in twos, years from 1980 to 2107. No zone: UTC is written.
#[derive(Clone, Copy)]
pub struct Stamp {
    date: u16,
    time: u16,
}

impl Stamp {
    pub fn new(epoch: u64) -> Self {
        // 1980-01-01 and 2107-12-31 23:59:58.
        let seconds = epoch.clamp(315_532_800, 4_354_819_198);
        let (days, of_day) = (seconds / 86_400, seconds % 86_400);
        // Days to a date of the civil calendar, in years that begin with March (the leap day is the last day then).
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = year_of_era + era * 400 + later;
        let small = |n: u64| u16::try_from(n).unwrap_or(0);
        let date = small((year.saturating_sub(1980) << 9) | (month << 5) | day);
        let time = small((of_day / 3600) << 11 | (of_day / 60 % 60) << 5 | ((of_day % 60) / 2));
        Self { date, time }
    }
}

fn short_entry(short: &[u8; 11], attributes: u8, first: u32, size: u32, stamp: Stamp) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    let [a, b, high, higher] = first.to_le_bytes();
    put(&mut entry, 0, short);
    put(&mut entry, 11, &[attributes]);
    for (at, value) in [(14, stamp.time), (16, stamp.date), (18, stamp.date), (22, stamp.time), (24, stamp.date)] {
        put(&mut entry, at, &value.to_le_bytes());
    }
    put(&mut entry, 20, &[high, higher]);
    put(&mut entry, 26, &[a, b]);
    put(&mut entry, 28, &size.to_le_bytes());
    entry
}

/// The root directory: the label, and our directory.
pub fn root(label: &[u8; 11], name: &str, first: u32, stamp: Stamp) -> Vec<u8> {
    let mut all = short_entry(label, LABEL, 0, 0, stamp).to_vec();
    let mut taken = Vec::new();
    named(&mut all, name, DIRECTORY, first, 0, stamp, &mut taken);
    all
}

/// Our directory, which begins with `own`.
pub fn directory(own: u32, files: &[NewFile], starts: &[u32], stamp: Stamp) -> Vec<u8> {
    let mut all = short_entry(b".          ", DIRECTORY, own, 0, stamp).to_vec();
    all.extend(short_entry(b"..         ", DIRECTORY, 0, 0, stamp));
    let mut taken = Vec::new();
    for (file, start) in files.iter().zip(starts) {
        named(&mut all, &file.name, ARCHIVE, *start, file.size, stamp, &mut taken);
    }
    all
}

/// Bytes that [`directory`] will have.
pub fn directory_len(files: &[NewFile]) -> usize {
    let starts = vec![0; files.len()];
    directory(0, files, &starts, Stamp { date: 0, time: 0 }).len()
}

/// An entry with its long name in front, where the short one does not say everything.
fn named(
    all: &mut Vec<u8>,
    name: &str,
    attributes: u8,
    first: u32,
    size: u32,
    stamp: Stamp,
    taken: &mut Vec<[u8; 11]>,
) {
    let plain = plain(name).filter(|short| !taken.contains(short));
    let short = plain.unwrap_or_else(|| alias(name, taken));
    taken.push(short);
    if plain.is_none() {
        let mut units: Vec<u16> = name.encode_utf16().collect();
        if !units.len().is_multiple_of(PIECE) {
            units.push(0);
        }
        units.resize(units.len().next_multiple_of(PIECE), 0xFFFF);
        let pieces = units.len() / PIECE;
        for (piece, before) in units.chunks_exact(PIECE).rev().zip(0..) {
            all.extend(long_entry(piece, pieces - before, before == 0, name::sum(&short)));
        }
    }
    all.extend(short_entry(&short, attributes, first, size, stamp));
}

fn long_entry(units: &[u16], number: usize, last: bool, sum: u8) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    let order = u8::try_from(number).unwrap_or(0) | if last { 0x40 } else { 0 };
    put(&mut entry, 0, &[order]);
    put(&mut entry, 11, &[LONG, 0, sum]);
    let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
    for (unit, at) in units.iter().zip(places) {
        put(&mut entry, at, &unit.to_le_bytes());
    }
    entry
}

/// A name that is a short one as it stands.
fn plain(name: &str) -> Option<[u8; 11]> {
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let mut raw = [b' '; 11];
    if !name.is_ascii() || base.len() > 8 || extension.len() > 3 {
        return None;
    }
    put(&mut raw, 0, base.as_bytes());
    put(&mut raw, 8, extension.as_bytes());
    (byte(&raw, 0) != 0x05 && name::short(&raw, 0).as_deref() == Some(name)).then_some(raw)
}

/// `TICKET~1.JSO`: a short name that no other entry has.
fn alias(name: &str, taken: &[[u8; 11]]) -> [u8; 11] {
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let letters = |text: &str, most: usize| -> Vec<u8> {
        let kept = text.bytes().filter(|b| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_');
        kept.map(|b| b.to_ascii_uppercase()).take(most).collect()
    };
    // There are fewer files than numbers.
    for number in 1..10_000 {
        let tail = format!("~{number}");
        let mut raw = [b' '; 11];
        let base = letters(base, 8 - tail.len().min(8));
        put(&mut raw, 0, &base);
        put(&mut raw, base.len(), tail.as_bytes());
        put(&mut raw, 8, &letters(extension, 3));
        if !taken.contains(&raw) {
            return raw;
        }
    }
    [b'~'; 11]
}
