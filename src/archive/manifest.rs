//! `manifest.json`, the first member of an archive: what is in it, and what it was taken from.
//!
//! Strict where it decides anything: names are relative, ASCII and unique, lengths bounded, digests whole. A reader refuses
//! a manifest whose `min_reader` is above its own number, and ignores keys that it does not know.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::refusal::{Code, Refusal};

/// Name of the member.
pub const NAME: &str = "manifest.json";
/// What it says it is.
pub const TYPE: &str = "pyvorin/backup/1";
/// The version written, and the newest read.
pub const FORMAT: u32 = 1;
/// Longest manifest.
pub const MAX_LEN: u64 = 1 << 20;
/// Most members.
pub const MAX_FILES: usize = 4096;
/// Longest name: what a ustar header holds.
pub const MAX_NAME: usize = 100;
/// Longest member: what a ustar header can say (8 GiB).
pub const MAX_MEMBER: u64 = (1 << 33) - 1;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A database, whole: one file without a log.
    Database,
    /// The pages of a database that changed since the full backup.
    Pages,
    /// A file of the configuration.
    Config,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its name in the archive.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes.
    pub len: u64,
    /// SHA-256 of it, lower-case hex.
    pub sha256: String,
    /// Of a database: what is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Database>,
}

/// A database, as it is once restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its configured name.
    pub name: String,
    /// Length of the whole file.
    pub len: u64,
    /// SHA-256 of the whole file.
    pub sha256: String,
    /// Bytes in a page.
    pub page_size: u32,
    /// SHA-256 over the statements of its schema, in the order of type and name.
    pub schema_sha256: String,
    /// Rows by table.
    pub rows: BTreeMap<String, u64>,
    /// Of changed pages: the whole file that they are laid over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_sha256: Option<String>,
}

/// The full backup that an increment builds on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Its number.
    pub sequence: u64,
    /// Its file name.
    pub archive: String,
}

/// The end of a chain of records when the backup was taken: an anchor that lies outside of the device once the archive
/// does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Records in it.
    pub records: u64,
    /// Hash of the last.
    pub hash: String,
}

/// The manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`TYPE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// Version that wrote it.
    pub format: u32,
    /// Oldest version that can read it.
    pub min_reader: u32,
    /// Device.
    pub device: String,
    /// Number of the backup; only rises.
    pub sequence: u64,
    /// When, in seconds since the epoch by the device's clock.
    pub created: u64,
    /// The program that wrote it.
    pub tool: String,
    /// The device's own recipient, for archives that are meant for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_recipient: Option<String>,
    /// Of an increment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// The agent's audit chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Head>,
    /// Our own journal of events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<Head>,
    /// The members behind it, in their order.
    pub files: Vec<File>,
}

/// True for 64 lower-case hex digits.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// True for a relative name that stays where it is put, in letters that every tool agrees on.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b'@' | b'+' | b'=' | b',');
    let part = |p: &str| !p.is_empty() && p != "." && p != "..";
    name.len() <= MAX_NAME && name.bytes().all(good) && name.split('/').all(part)
}

impl Manifest {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // A structure of texts and numbers can always be written.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads and judges one. Total.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let bad = |text: String| Refusal::new(Code::BadManifest, text);
        let head: Reader = serde_json::from_slice(bytes).map_err(|e| bad(format!("it is no manifest: {e}")))?;
        if head.kind != TYPE {
            return Err(bad(format!("its type is {:?}, not {TYPE}", short(&head.kind))));
        }
        if head.min_reader > FORMAT {
            let text = format!("it asks for a reader of version {}, this one is {FORMAT}", head.min_reader);
            return Err(Refusal::new(Code::Newer, text));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| bad(format!("it is no manifest: {e}")))?;
        manifest.judge().map_err(bad)?;
        Ok(manifest)
    }

    fn judge(&self) -> Result<(), String> {
        if self.files.len() > MAX_FILES {
            return Err(format!("it names {} files, more than {MAX_FILES}", self.files.len()));
        }
        let mut names = BTreeSet::new();
        let mut databases = BTreeSet::new();
        for file in &self.files {
            let name = short(&file.name);
            if !is_name(&file.name) || file.name == NAME {
                return Err(format!("{name:?} is no name for a member"));
            }
            if !names.insert(file.name.as_str()) {
                return Err(format!("{name} stands in it twice"));
            }
            if file.len > MAX_MEMBER {
                return Err(format!("{name} is said to have {} bytes", file.len));
            }
            if !is_digest(&file.sha256) {
                return Err(format!("the digest of {name} is none"));
            }
            match (&file.database, file.kind) {
                (None, Kind::Config) => {}
                (Some(d), Kind::Database | Kind::Pages) => {
                    judge_database(file, d).map_err(|why| format!("{name}: {why}"))?;
                    if !databases.insert(d.name.as_str()) {
                        return Err(format!("the database {} stands in it twice", short(&d.name)));
                    }
                    if file.kind == Kind::Pages && self.base.is_none() {
                        return Err(format!("{name} builds on a backup that it does not name"));
                    }
                }
                _ => return Err(format!("{name} is not described as what it is")),
            }
        }
        Ok(())
    }

    /// Bytes of all members.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.files.iter().fold(0, |sum: u64, f| sum.saturating_add(f.len))
    }
}

fn judge_database(file: &File, database: &Database) -> Result<(), String> {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
    if database.name.is_empty() || database.name.len() > 32 || !database.name.bytes().all(known) {
        return Err("its name is no name of a database".to_string());
    }
    if !is_digest(&database.sha256) || !is_digest(&database.schema_sha256) {
        return Err("a digest is none".to_string());
    }
    if !(512..=65_536).contains(&database.page_size) || !database.page_size.is_power_of_two() {
        return Err(format!("{} is no page size", database.page_size));
    }
    if database.len > MAX_MEMBER || !database.len.is_multiple_of(u64::from(database.page_size)) {
        return Err(format!("{} bytes are no number of pages", database.len));
    }
    let whole = file.len == database.len && file.sha256 == database.sha256 && database.base_sha256.is_none();
    match file.kind {
        Kind::Database if !whole => Err("it is not the whole file that it is said to be".to_string()),
        Kind::Pages if !database.base_sha256.as_deref().is_some_and(is_digest) => {
            Err("it does not say what its pages are laid over".to_string())
        }
        _ => Ok(()),
    }
}

/// A text from outside, as much of it as fits into a sentence.
fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

#[derive(Deserialize)]
struct Reader {
    #[serde(rename = "type")]
    kind: String,
    min_reader: u32,
}
