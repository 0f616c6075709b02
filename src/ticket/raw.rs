//! Tickets as they stand in JSON, and what makes such a text a ticket.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Action, Archive, Export, FileFact, KeyringFile, MAX_LEN, Nonce, Reset, Restore, TYPE, Target, Ticket, Version,
};
use crate::config::is_label;
use crate::keyring;
use crate::sign::KeyId;

const MAX_DEVICES: usize = 256;
const MAX_FILES: usize = 256;
const MAX_REASON: usize = 200;
const MAX_LABEL: usize = 64;
const MAX_PATH: usize = 200;
/// Largest number that every reader of JSON keeps exact. A counter beyond it could not be followed by another one.
const MAX_NUMBER: u64 = (1 << 53) - 1;
/// What all versions of a ticket's `type` begin with.
const ANY_TYPE: &str = "pyvorin/ticket/";

/// Why bytes are not a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not a ticket; what is wrong with it.
    Unfit(String),
    /// A ticket of a kind that a later version of this program reads.
    Newer(String),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfit(why) => f.write_str(why),
            Self::Newer(kind) => write!(f, "its type is {kind}, which is newer than {TYPE}"),
        }
    }
}

impl std::error::Error for Malformed {}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Restore,
    Reset,
    Keyring,
    Export,
    Enrol,
}

/// A ticket as written; the order of the fields is that of the text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(rename = "type")]
    kind: String,
    action: Word,
    nonce: Nonce,
    counter: u64,
    key: KeyId,
    devices: Vec<Target>,
    technician: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    issued: u64,
    expires: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_version: Option<Version>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    archive: Option<Archive>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    files: Option<Vec<FileFact>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allow_older: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    include_certs: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reset: Option<Reset>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyring: Option<KeyringFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    export: Option<Export>,
}

/// Reads a ticket. The size is bounded here and the depth by its fields, none of which holds what it does not know.
pub fn parse(bytes: &[u8]) -> Result<Ticket, Malformed> {
    if bytes.len() > MAX_LEN {
        return Err(unfit("it is longer than 64 KiB"));
    }
    let head: Head = serde_json::from_slice(bytes).map_err(json)?;
    if head.kind != TYPE {
        let later = head.kind.strip_prefix(ANY_TYPE).and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n > 1);
        // The type is said again only where it is one of ours: nothing else of an unknown text is repeated.
        return Err(if later { Malformed::Newer(head.kind) } else { unfit("its type is not that of a ticket") });
    }
    ticket(serde_json::from_slice(bytes).map_err(json)?)
}

/// The text of a ticket, indented, because people read what they sign.
pub fn text(ticket: &Ticket) -> Result<String, Malformed> {
    let text = serde_json::to_string_pretty(&raw(ticket)).map_err(json)? + "\n";
    if parse(text.as_bytes())? == *ticket { Ok(text) } else { Err(unfit("it does not come back as it was")) }
}

fn unfit(why: &str) -> Malformed {
    Malformed::Unfit(why.to_owned())
}

fn json(error: serde_json::Error) -> Malformed {
    Malformed::Unfit(error.to_string())
}

fn ticket(raw: Raw) -> Result<Ticket, Malformed> {
    let say = |holds: bool, why: &str| if holds { Ok(()) } else { Err(unfit(why)) };
    say((1..=MAX_NUMBER).contains(&raw.counter), "its counter is 0 or above 2^53 - 1")?;
    say((1..=MAX_DEVICES).contains(&raw.devices.len()), "it names no device, or more than 256")?;
    say(
        raw.devices.iter().all(|d| is_label(&d.id, MAX_LABEL)),
        "a device id is not 1 to 64 letters, digits, . _ or -",
    )?;
    let ids: BTreeSet<&str> = raw.devices.iter().map(|d| d.id.as_str()).collect();
    say(ids.len() == raw.devices.len(), "it names a device twice")?;
    say(is_label(&raw.technician, MAX_LABEL), "the technician is not 1 to 64 letters, digits, . _ or -")?;
    let reason_fits =
        |text: &str| (1..=MAX_REASON).contains(&text.len()) && text.bytes().all(|b| matches!(b, b' '..=b'~'));
    say(raw.reason.as_deref().is_none_or(reason_fits), "its reason is not 1 to 200 printable ASCII characters")?;
    say(raw.issued < raw.expires && raw.expires <= MAX_NUMBER, "it expires before it was issued")?;
    let action = action(&raw)?;
    let named = raw.devices.iter().filter(|d| d.recipient_sha256.is_some()).count();
    say(named == raw.devices.len() || !action.needs_recipient(), "a device is named without its restore recipient")?;
    let why = match &action {
        Action::Restore(r) if r.allow_older => Some("an older backup"),
        Action::Reset(_) => Some("a reset"),
        _ => None,
    };
    if let (Some(what), None) = (why, &raw.reason) {
        return Err(Malformed::Unfit(format!("{what} needs a reason")));
    }
    Ok(Ticket {
        nonce: raw.nonce,
        counter: raw.counter,
        key: raw.key,
        devices: raw.devices,
        technician: raw.technician,
        reason: raw.reason,
        issued: raw.issued,
        expires: raw.expires,
        min_version: raw.min_version,
        action,
    })
}

/// What is asked for, where exactly the fields of that action are there.
fn action(raw: &Raw) -> Result<Action, Malformed> {
    let given = [
        raw.archive.is_some() || raw.files.is_some(),
        raw.allow_older.is_some() || raw.include_certs.is_some(),
        raw.reset.is_some(),
        raw.keyring.is_some(),
        raw.export.is_some(),
    ];
    let own = match raw.action {
        Word::Restore => [true, given[1], false, false, false],
        Word::Reset => [false, false, true, false, false],
        Word::Keyring => [false, false, false, true, false],
        Word::Export => [false, false, false, false, true],
        Word::Enrol => [false; 5],
    };
    let missing =
        || Malformed::Unfit(format!("its fields are not those of the action {:?}", raw.action).to_lowercase());
    if given != own {
        return Err(missing());
    }
    Ok(match raw.action {
        Word::Restore => Action::Restore(restore(raw)?),
        Word::Reset => Action::Reset(raw.reset.clone().ok_or_else(missing)?),
        Word::Keyring => {
            let file = raw.keyring.clone().ok_or_else(missing)?;
            if file.version == 0 || file.length == 0 || file.length > keyring::MAX_LEN as u64 {
                return Err(unfit("its keyring has version 0, or is empty or longer than 64 KiB"));
            }
            Action::Keyring(file)
        }
        Word::Export => Action::Export(raw.export.clone().filter(|e| e.reserve > 0).ok_or_else(missing)?),
        Word::Enrol => Action::Enrol,
    })
}

fn restore(raw: &Raw) -> Result<Restore, Malformed> {
    let (Some(archive), Some(files)) = (raw.archive.clone(), raw.files.clone()) else {
        return Err(unfit("it names an archive without its files, or files without an archive"));
    };
    if raw.devices.len() != 1 {
        return Err(unfit("a restore is for one device"));
    }
    if archive.length == 0 || !(1..=MAX_FILES).contains(&files.len()) {
        return Err(unfit("its archive is empty, or it has no files or more than 256"));
    }
    if !files.iter().all(|file| is_path(&file.name)) {
        return Err(unfit("a file of it does not have a plain relative name"));
    }
    let names: BTreeSet<String> = files.iter().map(|file| file.name.to_ascii_lowercase()).collect();
    if names.len() != files.len() {
        return Err(unfit("it names a file twice"));
    }
    let [allow_older, include_certs] = [raw.allow_older, raw.include_certs].map(|flag| flag.unwrap_or(false));
    Ok(Restore { archive, files, allow_older, include_certs })
}

/// A relative path of labels: nothing that climbs, is absolute, or hides.
fn is_path(name: &str) -> bool {
    let plain = |part: &str| is_label(part, MAX_PATH) && part.bytes().any(|b| b != b'.');
    name.len() <= MAX_PATH && name.split('/').all(plain)
}

fn raw(ticket: &Ticket) -> Raw {
    let mut raw = Raw {
        kind: TYPE.to_owned(),
        action: Word::Enrol,
        nonce: ticket.nonce,
        counter: ticket.counter,
        key: ticket.key,
        devices: ticket.devices.clone(),
        technician: ticket.technician.clone(),
        reason: ticket.reason.clone(),
        issued: ticket.issued,
        expires: ticket.expires,
        min_version: ticket.min_version,
        archive: None,
        files: None,
        allow_older: None,
        include_certs: None,
        reset: None,
        keyring: None,
        export: None,
    };
    match &ticket.action {
        Action::Restore(restore) => {
            raw.action = Word::Restore;
            raw.archive = Some(restore.archive.clone());
            raw.files = Some(restore.files.clone());
            raw.allow_older = Some(restore.allow_older);
            raw.include_certs = Some(restore.include_certs);
        }
        Action::Reset(reset) => (raw.action, raw.reset) = (Word::Reset, Some(reset.clone())),
        Action::Keyring(file) => (raw.action, raw.keyring) = (Word::Keyring, Some(file.clone())),
        Action::Export(export) => (raw.action, raw.export) = (Word::Export, Some(export.clone())),
        Action::Enrol => {}
    }
    raw
}
