//! Which block devices are sticks: disks behind a USB port that call themselves removable, by sysfs
//! (`Documentation/ABI/stable/sysfs-block`).
//!
//! Both are asked, because either alone is not enough: a gateway may start from a USB disk of its own, which is not
//! removable, and card readers inside a board are removable and not on USB. What has a volume mounted, or is a part of
//! something (RAID, mapper), is in use and no candidate either.
//!
//! This only lists. A candidate is the whole disk: its partition table is read by the confined child, as everything else
//! on it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::file;

const SYS: &str = "/sys";
const DEV: &str = "/dev";
const MOUNTS: &str = "/proc/self/mountinfo";
/// Longest text of a device that is passed on.
const LONGEST: usize = 64;

/// A disk that may be a restore stick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Name in the kernel, such as `sda`.
    pub name: String,
    /// Its node.
    pub device: PathBuf,
    /// Bytes.
    pub len: u64,
    /// Bytes of its logical sector.
    pub sector: u32,
    /// It cannot be written: reports have nowhere to go.
    pub read_only: bool,
    /// Who made it and what it is, as it says itself.
    pub model: String,
    /// Serial number of the USB device; empty where it has none.
    pub serial: String,
    /// Its partitions, as far as the kernel sees any.
    pub partitions: Vec<String>,
}

/// Why a disk behind USB is not taken for a stick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Excluded {
    /// It does not call itself removable: a disk.
    Fixed,
    /// A reader without a medium.
    NoMedium,
    /// Mounted, or a part of another device.
    InUse,
}

/// All disks behind USB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidates {
    /// Those that may be sticks, by name.
    pub sticks: Vec<Candidate>,
    /// The others, by name.
    pub excluded: Vec<(String, Excluded)>,
}

/// Lists the sticks of this machine.
#[must_use]
pub fn candidates() -> Candidates {
    let mounts = file::read_text(Path::new(MOUNTS)).unwrap_or_default();
    candidates_in(Path::new(SYS), Path::new(DEV), &mounts)
}

/// [`candidates`], by a sysfs at `sys`, nodes at `dev` and the text of a mountinfo.
fn candidates_in(sys: &Path, dev: &Path, mounts: &str) -> Candidates {
    // Third field of mountinfo: major:minor.
    let mounted: BTreeSet<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    let mut found = Candidates::default();
    for name in names(&sys.join("block")) {
        let dir = sys.join("block").join(&name);
        let Some(usb) = usb_device(&dir) else { continue };
        match candidate(&dir, dev, &name, &usb, &mounted) {
            Ok(stick) => found.sticks.push(stick),
            Err(why) => found.excluded.push((name, why)),
        }
    }
    found
}

fn candidate(dir: &Path, dev: &Path, name: &str, usb: &Path, mounted: &BTreeSet<&str>) -> Result<Candidate, Excluded> {
    let number = |path: &str| text(&dir.join(path)).parse::<u64>().ok();
    if number("removable") != Some(1) {
        return Err(Excluded::Fixed);
    }
    // In sectors of 512 bytes, whatever the device counts in.
    let len = number("size").unwrap_or(0).saturating_mul(512);
    if len == 0 {
        return Err(Excluded::NoMedium);
    }
    let partitions: Vec<String> =
        names(dir).into_iter().filter(|part| dir.join(part).join("partition").exists()).collect();
    let parts = partitions.iter().map(|part| dir.join(part));
    let busy =
        |dir: PathBuf| mounted.contains(text(&dir.join("dev")).as_str()) || !names(&dir.join("holders")).is_empty();
    if parts.chain([dir.to_path_buf()]).any(busy) {
        return Err(Excluded::InUse);
    }
    let said = [text(&dir.join("device/vendor")), text(&dir.join("device/model"))];
    Ok(Candidate {
        name: name.to_owned(),
        device: dev.join(name),
        len,
        sector: number("queue/logical_block_size").and_then(|n| u32::try_from(n).ok()).unwrap_or(512),
        read_only: number("ro") != Some(0),
        model: said.join(" ").trim().to_owned(),
        serial: text(&usb.join("serial")),
        partitions,
    })
}

/// The directory of the USB device behind a disk: the innermost above it that has a vendor id of USB, on a path that leads
/// through a USB bus.
fn usb_device(dir: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(dir).ok()?;
    let on_bus = |part: &std::ffi::OsStr| {
        let bus = part.to_str().and_then(|part| part.strip_prefix("usb"));
        bus.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    if !real.iter().any(on_bus) {
        return None;
    }
    let above = real.ancestors().find(|above| above.join("idVendor").exists()).map(Path::to_path_buf);
    Some(above.unwrap_or(real))
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// A line of sysfs. What a device says of itself is shown to people: control characters are not passed on.
fn text(path: &Path) -> String {
    let text = file::read_text(path).unwrap_or_default();
    text.trim().chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)] // Fixtures are files; the lint is about the program.

    use super::*;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    /// A sysfs with one disk: its place below `devices`, and the files in its directory.
    fn disk(sys: &Path, place: &str, name: &str, files: &[(&str, &str)]) {
        let dir = sys.join("devices").join(place).join("block").join(name);
        let standard = [("removable", "1\n"), ("size", "2048\n"), ("ro", "0\n"), ("dev", "8:0\n")];
        for (file, content) in standard.iter().chain(files) {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        fs::create_dir_all(sys.join("block")).unwrap();
        symlink(dir, sys.join("block").join(name)).unwrap();
    }

    const USB: &str = "pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0";

    #[test]
    fn removable_disks_behind_usb_are_sticks_and_nothing_else_is() {
        let root = TempDir::new().unwrap();
        let sys = root.path();
        disk(
            sys,
            USB,
            "sda",
            &[
                ("queue/logical_block_size", "4096\n"),
                ("device/vendor", "Acme    \n"),
                ("device/model", "Stick\u{1b}[2J 3.0  \n"),
                ("sda1/partition", "1\n"),
                ("sda1/dev", "8:1\n"),
                ("size", "31250000\n"),
            ],
        );
        for (file, content) in [("idVendor", "1234\n"), ("serial", "00AB\n")] {
            fs::write(sys.join("devices/pci0000:00/0000:00:14.0/usb2/2-1").join(file), content).unwrap();
        }
        let at = |name: &str| USB.replace("2-1", name);
        disk(sys, &at("2-2"), "sdb", &[("removable", "0\n"), ("dev", "8:16\n")]);
        disk(sys, &at("2-3"), "sdc", &[("size", "0\n"), ("dev", "8:32\n")]);
        disk(sys, &at("2-4"), "sdd", &[("dev", "8:48\n"), ("sdd1/partition", "1\n"), ("sdd1/dev", "8:49\n")]);
        disk(sys, &at("2-5"), "sde", &[("dev", "8:64\n"), ("holders/dm-0/dev", "252:0\n")]);
        disk(sys, &at("2-6"), "sdf", &[("dev", "8:80\n"), ("ro", "1\n")]);
        disk(sys, "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0", "sdg", &[]);
        disk(sys, "platform/fe340000.mmc/mmc_host/mmc0/mmc0:0001", "mmcblk0", &[]);
        disk(sys, "platform/usbphy/usbx/host0", "sdh", &[]);
        let mounts =
            "36 35 8:49 / /media rw,noatime shared:1 - vfat /dev/sdd1 rw\n29 1 8:2 / / rw - ext4 /dev/sda2 rw\n";
        let found = candidates_in(sys, Path::new("/dev"), mounts);
        let names: Vec<_> = found.sticks.iter().map(|s| (s.name.as_str(), s.read_only)).collect();
        assert_eq!(names, [("sda", false), ("sdf", true)]);
        assert_eq!(
            found.sticks[0],
            Candidate {
                name: "sda".into(),
                device: "/dev/sda".into(),
                len: 16_000_000_000,
                sector: 4096,
                read_only: false,
                model: "Acme Stick[2J 3.0".into(),
                serial: "00AB".into(),
                partitions: vec!["sda1".into()],
            }
        );
        let expected =
            [("sdb", Excluded::Fixed), ("sdc", Excluded::NoMedium), ("sdd", Excluded::InUse), ("sde", Excluded::InUse)];
        assert_eq!(found.excluded, expected.map(|(name, why)| (name.to_owned(), why)));
    }

    #[test]
    fn a_machine_without_sysfs_has_none() {
        assert_eq!(candidates_in(Path::new("/nowhere"), Path::new("/dev"), ""), Candidates::default());
    }
}
