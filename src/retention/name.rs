//! The name of a backup archive: `pyvorin-<device>-<UTC>-<seq>.tar.zst.age`, such as
//! `pyvorin-GW-042-20261125T200102Z-000041.tar.zst.age`.
//!
//! Six digits of sequence number or more, so that a listing by name of one device is in the order in which they were made
//! for the first million. No colons and no blanks: the name also stands on FAT and in command lines. A name has one
//! spelling, and what is not read as one is somebody else's file.

use std::fmt;

use super::utc;
use crate::config::is_label;

const PREFIX: &str = "pyvorin-";
const SUFFIX: &str = ".tar.zst.age";
const MAX_DEVICE: usize = 64;
/// Largest sequence number in a name: below 2^53, which every reader of JSON keeps exact.
pub const MAX_SEQUENCE: u64 = 999_999_999_999_999;
/// Longest name.
pub const MAX_LEN: usize = PREFIX.len() + MAX_DEVICE + 1 + 16 + 1 + 15 + SUFFIX.len();

/// The parts of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveName {
    device: String,
    made: u64,
    sequence: u64,
}

impl ArchiveName {
    /// The name of these parts; `None` where they have none: the id is not a label, the time is behind the year 9999, or
    /// the sequence number is 0 or above [`MAX_SEQUENCE`].
    #[must_use]
    pub fn new(device: &str, made: u64, sequence: u64) -> Option<Self> {
        let fits = is_label(device, MAX_DEVICE) && made <= utc::LAST && (1..=MAX_SEQUENCE).contains(&sequence);
        fits.then(|| Self { device: device.to_owned(), made, sequence })
    }

    /// The parts of a name; `None` for every other name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        if name.len() > MAX_LEN {
            return None;
        }
        let (rest, sequence) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.rsplit_once('-')?;
        // The id may have hyphens itself, the other two have none.
        let (device, made) = rest.rsplit_once('-')?;
        let parsed = Self::new(device, utc::parse(made)?, sequence.parse().ok()?)?;
        (parsed.to_string() == name).then_some(parsed)
    }

    /// Id of the device.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// When it was made by the clock of that time, seconds since 1970.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.made
    }

    /// Its sequence number.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl fmt::Display for ArchiveName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}-{:06}{SUFFIX}", self.device, utc::compact(self.made), self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::{ArchiveName, MAX_LEN, MAX_SEQUENCE};

    #[test]
    fn a_name_has_one_spelling() {
        let name = "pyvorin-GW-042-20261125T200102Z-000041.tar.zst.age";
        let parsed = ArchiveName::parse(name).unwrap();
        assert_eq!((parsed.device(), parsed.made(), parsed.sequence()), ("GW-042", 1_795_636_862, 41));
        assert_eq!(parsed.to_string(), name);
        for other in [
            name.replace("000041", "41"),
            name.replace("000041", "0000041"),
            name.replace("000041", "+00041"),
            name.replace("000041", "000000"),
            name.replace("000041", "1000000000000000"),
            name.replace("000041", "00004１"),
            name.replace("20261125", "20261131"),
            name.replace("GW-042", ""),
            name.replace("GW-042", "GW 042"),
            name.replace("GW-042", "../GW"),
            name.replace("GW-042", &"x".repeat(65)),
            name.replace("pyvorin", "Pyvorin"),
            name.replace(".age", ".age.minisig"),
            name.replace(".age", ".age.partial"),
            name.replace(".age", ".AGE"),
            format!("./{name}"),
            format!("{name}\n"),
            String::new(),
        ] {
            assert_eq!(ArchiveName::parse(&other), None, "{other}");
        }
    }

    #[test]
    fn every_name_that_can_be_made_is_read_back() {
        for device in ["a", "GW-042", "a-20261125T200102Z-000001", "-", "...", &"x".repeat(64)] {
            for made in [0, 4_294_967_295, super::utc::LAST] {
                for sequence in [1, 999_999, 1_000_000, MAX_SEQUENCE] {
                    let name = ArchiveName::new(device, made, sequence).unwrap();
                    assert!(name.to_string().len() <= MAX_LEN);
                    assert_eq!(ArchiveName::parse(&name.to_string()), Some(name));
                }
            }
        }
        assert_eq!(ArchiveName::new("GW-042", super::utc::LAST + 1, 1), None);
        assert_eq!(ArchiveName::new("GW-042", 0, MAX_SEQUENCE + 1), None);
    }
}
