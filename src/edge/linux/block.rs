//! Block devices by name, label or id, without udev: sysfs lists them, and labels are read from the raw bytes.
//!
//! Two devices that answer to one label are an error and never a guess: after a card was copied "for safety" the
//! wrong one of two would be repaired, and the right one would be lost behind it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{file, partition, uptime_ms};
use crate::ext4::{self, Superblock};
use crate::sqlite::read_vec;

/// Where the kernel lists block devices, and where their nodes are.
const SYS: &str = "/sys/class/block";
const DEV: &str = "/dev";
/// Devices appear within milliseconds of their driver or after seconds of bus enumeration: look often at first.
const OFTEN: Duration = Duration::from_millis(10);
const OFTEN_FOR_MS: u64 = 1_000;
const SELDOM: Duration = Duration::from_millis(50);

/// Why a device was not found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotFound {
    /// Nothing answers.
    Missing {
        /// As configured.
        spec: String,
    },
    /// More than one answers.
    Ambiguous {
        /// As configured.
        spec: String,
        /// All that do.
        devices: Vec<PathBuf>,
    },
    /// Not one of the forms that are understood.
    Malformed {
        /// As configured.
        spec: String,
    },
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotFound::Missing { spec } if spec.starts_with("LABEL=") => {
                write!(
                    f,
                    "no block device answers to {spec}: the device is missing, or no longer holds an ext4 file system"
                )
            }
            NotFound::Missing { spec } => write!(f, "no block device answers to {spec}"),
            NotFound::Ambiguous { spec, devices } => {
                write!(f, "more than one block device answers to {spec}:")?;
                devices.iter().try_for_each(|device| write!(f, " {}", device.display()))?;
                write!(f, "; remove or relabel all but one")
            }
            NotFound::Malformed { spec } => {
                write!(f, "{spec} is neither /dev/... nor LABEL=, UUID=, PARTLABEL= or PARTUUID=")
            }
        }
    }
}

impl std::error::Error for NotFound {}

/// Finds the one block device that answers to `spec`.
pub fn find_device(spec: &str) -> Result<PathBuf, NotFound> {
    let mut found = wait_for(&[spec], Duration::ZERO);
    found.pop().unwrap_or_else(|| Err(NotFound::Malformed { spec: spec.to_owned() }))
}

/// Waits until every one of `specs` is found, no longer than needed and no longer than `limit`; one answer for each.
/// What is ambiguous or malformed is not waited for: it does not get better.
pub fn wait_for(specs: &[&str], limit: Duration) -> Vec<Result<PathBuf, NotFound>> {
    wait_in(&mut Blocks::new(Path::new(SYS), Path::new(DEV)), specs, limit)
}

fn wait_in(blocks: &mut Blocks, specs: &[&str], limit: Duration) -> Vec<Result<PathBuf, NotFound>> {
    let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let started = uptime_ms();
    loop {
        blocks.refresh();
        let found: Vec<_> = specs.iter().map(|spec| blocks.find(spec)).collect();
        let waited = uptime_ms().saturating_sub(started);
        let missing = found.iter().any(|one| matches!(one, Err(NotFound::Missing { .. })));
        if !missing || waited >= limit {
            return found;
        }
        std::thread::sleep(if waited < OFTEN_FOR_MS { OFTEN } else { SELDOM });
    }
}

/// What is known of one device.
#[derive(Clone, Debug, Default)]
struct Facts {
    part_label: Option<String>,
    part_uuid: Option<String>,
    /// Label and UUID of an ext file system.
    ext: Option<(String, String)>,
}

/// The devices of the machine, each read once: waiting does not read every card again and again.
struct Blocks {
    sys: PathBuf,
    dev: PathBuf,
    known: BTreeMap<String, Facts>,
}

impl Blocks {
    fn new(sys: &Path, dev: &Path) -> Blocks {
        Blocks { sys: sys.to_path_buf(), dev: dev.to_path_buf(), known: BTreeMap::new() }
    }

    fn refresh(&mut self) {
        let names: Vec<String> = fs::read_dir(&self.sys)
            .map(|entries| entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
            .unwrap_or_default();
        self.known.retain(|name, _| names.contains(name));
        for name in names {
            if self.known.contains_key(&name) || !self.may_hold_a_volume(&name) {
                continue;
            }
            // A device that cannot be read yet is asked again at the next look.
            if let Some(facts) = self.facts(&name) {
                self.known.insert(name, facts);
            }
        }
    }

    /// Memory disks hold nothing of ours. A device with holders is a part of another (RAID, mapper) that shows the
    /// same bytes and is the one to use.
    fn may_hold_a_volume(&self, name: &str) -> bool {
        let dir = self.sys.join(name);
        let empty = file::read_text(&dir.join("size")).is_ok_and(|size| size.trim() == "0");
        let held = fs::read_dir(dir.join("holders")).is_ok_and(|mut holders| holders.next().is_some());
        !(empty || held || name.starts_with("ram") || name.starts_with("zram"))
    }

    fn facts(&self, name: &str) -> Option<Facts> {
        let device = file::open_device(&self.node(name)).ok()?;
        let bytes = read_vec(&device, ext4::SUPERBLOCK_OFFSET as u64, ext4::SUPERBLOCK_LEN).ok()?;
        let uevent = file::read_text(&self.sys.join(name).join("uevent")).unwrap_or_default();
        let number = value(&uevent, "PARTN").and_then(|n| n.parse::<u32>().ok());
        Some(Facts {
            part_label: value(&uevent, "PARTNAME").map(str::to_owned),
            part_uuid: value(&uevent, "PARTUUID")
                .map(str::to_ascii_lowercase)
                .or_else(|| number.and_then(|number| self.part_uuid(name, number))),
            ext: Superblock::parse(&bytes).map(|sb| (sb.uuid_text(), sb.label)).map(|(uuid, label)| (label, uuid)),
        })
    }

    /// The link of a partition in sysfs leads to a directory inside that of its disk.
    fn part_uuid(&self, name: &str, number: u32) -> Option<String> {
        let real = fs::canonicalize(self.sys.join(name)).ok()?;
        let disk = real.parent()?.file_name()?.to_str()?;
        partition::unique_id(&file::open_device(&self.node(disk)).ok()?, number).ok()?
    }

    /// In sysfs `!` stands for the slash in names such as `cciss/c0d0`.
    fn node(&self, name: &str) -> PathBuf {
        self.dev.join(name.replace('!', "/"))
    }

    fn find(&self, spec: &str) -> Result<PathBuf, NotFound> {
        let owned = || spec.to_owned();
        if spec.starts_with("/dev/") {
            let there = file::open_device(Path::new(spec)).is_ok();
            return if there { Ok(PathBuf::from(spec)) } else { Err(NotFound::Missing { spec: owned() }) };
        }
        let (key, wanted) = spec.split_once('=').ok_or_else(|| NotFound::Malformed { spec: owned() })?;
        let wanted = wanted.trim_matches('"');
        if wanted.is_empty() {
            return Err(NotFound::Malformed { spec: owned() });
        }
        let answers: fn(&Facts, &str) -> bool = match key {
            "LABEL" => |facts, wanted| facts.ext.as_ref().is_some_and(|(label, _)| label == wanted),
            "UUID" => |facts, wanted| facts.ext.as_ref().is_some_and(|(_, uuid)| uuid.eq_ignore_ascii_case(wanted)),
            "PARTLABEL" => |facts, wanted| facts.part_label.as_deref() == Some(wanted),
            "PARTUUID" => |facts, wanted| facts.part_uuid.as_ref().is_some_and(|id| id.eq_ignore_ascii_case(wanted)),
            _ => return Err(NotFound::Malformed { spec: owned() }),
        };
        let mut devices: Vec<PathBuf> =
            self.known.iter().filter(|(_, facts)| answers(facts, wanted)).map(|(name, _)| self.node(name)).collect();
        match (devices.pop(), devices.is_empty()) {
            (Some(device), true) => Ok(device),
            (None, _) => Err(NotFound::Missing { spec: owned() }),
            (Some(device), false) => {
                devices.push(device);
                Err(NotFound::Ambiguous { spec: owned(), devices })
            }
        }
    }
}

fn value<'a>(uevent: &'a str, key: &str) -> Option<&'a str> {
    uevent.lines().find_map(|line| line.split_once('=').filter(|(k, _)| *k == key).map(|(_, v)| v))
}

#[cfg(test)]
mod tests;
