//! Who this device is, and its keys: a restore identity (age X25519), with which it opens what is meant for it, and a
//! signing key (Ed25519), with which it signs its backups and reports. Made on the device, 0600, outside of the data
//! partition; they survive every reset. The signing key authorises nothing (see [`crate::keyring`]).

use std::io;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;
use age::x25519;

use super::{facts, signature};
use crate::boot::act::make_dirs;
use crate::boot::sense::small_file;
use crate::config::Settings;
use crate::edge::{FileKind, Look, Machine, durable};
use crate::sign::{Signature, SigningKey, Verifier};

/// Name, in the state directory, of an id that was made because the hardware has none.
pub const ID: &str = "device-id";
/// Longest id.
const MAX_ID: usize = 64;

/// An id in the letters that file names and tickets take: everything else becomes `-`.
fn plain(text: &str) -> Option<String> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    let one = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' };
    let id: String = text.chars().take(MAX_ID).map(one).collect();
    let said = id.bytes().any(|b| b.is_ascii_alphanumeric() && b != b'0');
    said.then_some(id)
}

/// Where the configured source of the id stands.
fn sources(settings: &Settings) -> Vec<PathBuf> {
    let state = settings.state_dir.join(ID);
    match settings.device_id_from.as_str() {
        "device-tree" => vec!["/proc/device-tree/serial-number".into(), state],
        "dmi" => vec!["/sys/class/dmi/id/product_uuid".into(), "/sys/class/dmi/id/board_serial".into(), state],
        "machine-id" => vec!["/etc/machine-id".into(), state],
        _ => vec![state],
    }
}

/// The device's id; `None` where neither the hardware nor the state directory has one.
#[must_use]
pub fn id(look: &dyn Look, settings: &Settings) -> Option<String> {
    if let Some(id) = &settings.device_id {
        return plain(id);
    }
    sources(settings).iter().find_map(|path| plain(&String::from_utf8_lossy(&small_file(look, path).ok()??)))
}

/// The device's keys.
pub struct Keys {
    /// Opens archives and tickets that are meant for this device.
    pub restore: x25519::Identity,
    /// Signs backups and reports.
    pub signing: SigningKey,
}

/// Reads them; `None` when there are none yet.
///
/// # Errors
/// The signing key is missing, or one is open to others, or no key.
pub fn keys(look: &dyn Look, settings: &Settings) -> io::Result<Option<Keys>> {
    let (restore, signing) = (read(look, &settings.key_restore)?, read(look, &settings.key_signing)?);
    match (restore, signing) {
        // Made last: where it is missing, making them was cut off, or it is lost for good.
        (None, _) => Ok(None),
        (Some(restore), Some(signing)) => {
            let line = restore.lines().find(|l| !l.starts_with('#') && !l.is_empty()).unwrap_or_default();
            let restore = line.parse().map_err(|e: &str| bad(&settings.key_restore, e))?;
            let signing = SigningKey::parse(&signing).map_err(|e| bad(&settings.key_signing, &e.to_string()))?;
            Ok(Some(Keys { restore, signing }))
        }
        (Some(_), None) => Err(bad(&settings.key_signing, "it is missing, and the other key is there")),
    }
}

fn bad(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
}

fn read(look: &dyn Look, path: &Path) -> io::Result<Option<String>> {
    let Some(stat) = look.stat(path)? else { return Ok(None) };
    if stat.kind != FileKind::File || stat.mode & 0o077 != 0 {
        return Err(bad(path, "a key must be a file that nobody but its owner can read (mode 0600)"));
    }
    let bytes = small_file(look, path)?.unwrap_or_default();
    String::from_utf8(bytes).map(Some).map_err(|_| bad(path, "it is no text"))
}

/// Makes what is missing: both keys, and an id where the hardware has none. What is there stays.
///
/// # Errors
/// No randomness, no room, or a key that cannot be read.
pub fn init(machine: &mut dyn Machine, settings: &Settings) -> io::Result<Keys> {
    if id(machine.as_look(), settings).is_none() {
        let mut random = [0; 8];
        machine.random(&mut random)?;
        let id: String = random.iter().map(|b| format!("{b:02x}")).collect();
        make_dirs(machine, &settings.state_dir)?;
        durable::replace(machine, &settings.state_dir.join(ID), format!("PYV-{id}\n").as_bytes())?;
    }
    if let Some(keys) = keys(machine.as_look(), settings)? {
        return Ok(keys);
    }
    for path in [&settings.key_restore, &settings.key_signing] {
        if let Some(parent) = path.parent() {
            make_dirs(machine, parent)?;
        }
    }
    let restore = x25519::Identity::generate();
    let (mut seed, mut key_id) = (zeroize::Zeroizing::new([0; 32]), [0; 8]);
    machine.random(seed.as_mut_slice())?;
    machine.random(&mut key_id)?;
    let signing = SigningKey::new(&seed, key_id).map_err(|e| io::Error::other(e.to_string()))?;
    // The restore identity last: without it there are no keys yet.
    let secret = restore.to_string();
    let text = zeroize::Zeroizing::new(format!("# public key: {}\n{}\n", restore.to_public(), secret.expose_secret()));
    durable::replace(machine, &settings.key_signing, signing.to_text().as_bytes())?;
    durable::replace(machine, &settings.key_restore, text.as_bytes())?;
    Ok(Keys { restore, signing })
}

/// Whether this device signed `archive`; the inner error says why that is not so.
///
/// # Errors
/// It cannot be read.
pub fn made(look: &dyn Look, settings: &Settings, archive: &Path) -> io::Result<Result<(), String>> {
    let Some(bytes) = small_file(look, &signature(archive))? else { return Ok(Err("missing".to_string())) };
    let Some(keys) = keys(look, settings)? else {
        return Ok(Err("this device has no keys to compare it with; minisign -V does, with its device's".to_string()));
    };
    let signature = match Signature::parse(&bytes) {
        Ok(signature) => signature,
        Err(e) => return Ok(Err(e.to_string())),
    };
    let mut verifier = match Verifier::new(keys.signing.public(), &signature) {
        Ok(verifier) => verifier,
        Err(e) => return Ok(Err(e.to_string())),
    };
    facts::through(look, archive, |bytes| verifier.update(bytes))?;
    Ok(verifier.finish().map_err(|e| e.to_string()))
}
