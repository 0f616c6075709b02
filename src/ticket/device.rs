//! The public card of a device, for enrolment: `device.json` in state, `device.pub` on a stick and from `key show`.
//!
//! ```json
//! {"type":"pyvorin/device/1","device":"GW-042","restore_recipient":"age1…","signing_key":"RWQ…",
//!  "version":"0.1.0","keyring_version":2}
//! ```
//!
//! Nothing secret. `restore_recipient` is what archives for this device are encrypted to, and its digest is what tickets
//! name; `signing_key` checks its backups and reports. Who brings the card is believed: comparing
//! [`DeviceCard::fingerprint`] with what the device shows on its console is what makes it certain.
//!
//! On a stick the card is written over a file of fixed size and ends in line ends; these are white space to JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Digest, Hex, Version, recipient_digest};
use crate::config::is_label;
use crate::sign::PublicKey;
use sha2::{Digest as _, Sha256};

const TYPE: &str = "pyvorin/device/1";
const MAX_LEN: usize = 64 << 10;
const MAX_LABEL: usize = 64;
/// Length of an X25519 recipient of age: `age1` and 58 characters of Bech32.
const RECIPIENT_LEN: usize = 62;

/// Why bytes are not the card of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFault(String);

impl fmt::Display for DeviceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DeviceFault {}

/// What operations have to know of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceCard {
    #[serde(rename = "type")]
    kind: String,
    /// Its id.
    pub device: String,
    /// Its restore recipient, `age1…`.
    pub restore_recipient: String,
    /// Its signing key.
    pub signing_key: PublicKey,
    /// Version of this program on it.
    pub version: Version,
    /// Version of its keyring.
    pub keyring_version: u32,
}

impl DeviceCard {
    /// The card of these facts; refused as [`Self::parse`] would refuse its text.
    pub fn new(
        device: &str,
        restore_recipient: &str,
        signing_key: PublicKey,
        version: Version,
        keyring_version: u32,
    ) -> Result<Self, DeviceFault> {
        let (device, restore_recipient) = (device.to_owned(), restore_recipient.to_owned());
        Self { kind: TYPE.to_owned(), device, restore_recipient, signing_key, version, keyring_version }.checked()
    }

    /// Reads a card.
    pub fn parse(bytes: &[u8]) -> Result<Self, DeviceFault> {
        if bytes.len() > MAX_LEN {
            return Err(fault("it is longer than 64 KiB"));
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(fault("it is empty; the device has not written it yet"));
        }
        serde_json::from_slice::<Self>(bytes).map_err(|e| DeviceFault(e.to_string()))?.checked()
    }

    fn checked(self) -> Result<Self, DeviceFault> {
        if self.kind != TYPE {
            return Err(DeviceFault(format!("its type is not {TYPE}")));
        }
        if !is_label(&self.device, MAX_LABEL) {
            return Err(fault("the device id is not 1 to 64 letters, digits, . _ or -"));
        }
        let recipient = self.restore_recipient.as_str();
        let data = recipient.strip_prefix("age1").unwrap_or_default();
        if recipient.len() != RECIPIENT_LEN || !bech32_holds(data) {
            return Err(fault("the restore recipient is not one of age (age1…), or a character of it is wrong"));
        }
        Ok(self)
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> String {
        // This type has no value that JSON cannot express.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// What tickets for this device name.
    #[must_use]
    pub fn recipient_sha256(&self) -> Digest {
        recipient_digest(&self.restore_recipient)
    }

    /// A short form of both keys and the id, for comparing by eye: six groups of four hex digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for part in [self.device.as_str(), &self.restore_recipient, self.signing_key.line()] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let text = Hex::<32>(hash.finalize().into()).to_string();
        let groups: Vec<&str> = (0..6).filter_map(|n| text.get(n * 4..n * 4 + 4)).collect();
        groups.join(" ")
    }
}

fn fault(why: &str) -> DeviceFault {
    DeviceFault(why.to_owned())
}

/// Whether the checksum of `age1` and `data` holds (BIP 173): a recipient that was mistyped would be one to whom an archive
/// is encrypted and who does not exist.
fn bech32_holds(data: &str) -> bool {
    const CHARSET: &[u8] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let prefix = b"age";
    let expanded = prefix.iter().map(|b| u32::from(b >> 5)).chain([0]).chain(prefix.iter().map(|b| u32::from(b & 31)));
    let values = data.bytes().map(|b| CHARSET.iter().position(|c| *c == b).and_then(|n| u32::try_from(n).ok()));
    let sum = expanded.map(Some).chain(values).try_fold(1_u32, |sum, value| {
        let top = sum >> 25;
        let next = (sum & 0x1ff_ffff) << 5 ^ value?;
        Some((0..5).zip(GENERATOR).filter(|(bit, _)| top >> bit & 1 == 1).fold(next, |sum, (_, g)| sum ^ g))
    });
    sum == Some(1)
}

#[cfg(test)]
mod tests {
    use super::{DeviceCard, Version};
    use crate::sign::SigningKey;

    /// From the README of age.
    const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

    fn card() -> DeviceCard {
        let key = SigningKey::new(&[1; 32], [1; 8]).unwrap().public().clone();
        DeviceCard::new("GW-042", RECIPIENT, key, Version(0, 1, 0), 2).unwrap()
    }

    #[test]
    fn a_card_comes_back_as_it_was_also_from_a_file_of_fixed_size() {
        let text = card().text();
        assert_eq!(DeviceCard::parse(text.as_bytes()), Ok(card()));
        let padded = text + &"\n".repeat(2000);
        assert_eq!(DeviceCard::parse(padded.as_bytes()), Ok(card()));
        assert_eq!(card().fingerprint().len(), 29);
    }

    #[test]
    fn a_mistyped_recipient_is_noticed_at_every_place() {
        for at in 4..RECIPIENT.len() {
            for letter in b"qpzry9x8gf2tvdw0s3jn54khce6mua7lQ1b".iter().filter(|c| **c != RECIPIENT.as_bytes()[at]) {
                let mut other = RECIPIENT.as_bytes().to_vec();
                other[at] = *letter;
                let other = String::from_utf8(other).unwrap();
                assert!(DeviceCard::parse(card().text().replace(RECIPIENT, &other).as_bytes()).is_err(), "{other}");
            }
        }
    }

    #[test]
    fn what_is_no_card_is_refused() {
        let text = card().text();
        for other in [
            String::new(),
            "\n\n\n".to_owned(),
            text.replace("device/1", "device/2"),
            text.replace("GW-042", "GW 042"),
            text.replace(RECIPIENT, &RECIPIENT.to_uppercase()),
            text.replace("0.1.0", "0.01.0"),
            text.replacen('{', "{\"secret\":1,", 1),
            format!("{text}x"),
        ] {
            assert!(DeviceCard::parse(other.as_bytes()).is_err(), "{other}");
        }
    }

    #[test]
    fn the_fingerprint_depends_on_the_id_and_on_both_keys() {
        let other_key = SigningKey::new(&[2; 32], [1; 8]).unwrap().public().clone();
        let mut others = [card(), card(), card()];
        others[0].device = "GW-043".into();
        others[1].signing_key = other_key;
        others[2].restore_recipient.push('x');
        assert!(others.iter().all(|other| other.fingerprint() != card().fingerprint()));
        let mut same = card();
        same.keyring_version = 9;
        assert_eq!(same.fingerprint(), card().fingerprint());
    }
}
