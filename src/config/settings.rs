//! Validated settings. Everything behind this point may rely on: paths are absolute and free of `..`, numbers are in
//! range, names are unique, and `--root` has been applied to every path.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a database holds; decides the default ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatabaseKind {
    /// Sensor readings and the audit chain.
    Store,
    /// Unsent cloud messages.
    Queue,
    /// Any other SQLite database.
    Other,
}

/// One rung of the repair ladder that the policy accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// Apply exactly what SQLite itself would apply.
    Replay,
    /// Restart the checksum chain behind provable damage, into a copy.
    Resync,
    /// Rebuild indexes only.
    Reindex,
    /// Rows from every intact page.
    Salvage,
    /// The newest verified backup.
    Backup,
    /// An empty schema.
    Empty,
}

/// Which way the boot goes when something could not be put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTrouble {
    /// Boot the OS anyway and say so.
    Continue,
    /// Enter the recovery system.
    Recovery,
    /// Stop, show why, and go on after `hold_minutes`.
    Hold,
}

/// Where the boot loader keeps its slot state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotBackend {
    /// U-Boot environment.
    Uboot,
    /// GRUB environment block.
    Grub,
    /// Raspberry Pi autoboot.txt and tryboot.
    Tryboot,
    /// systemd-boot counted entry names.
    SystemdBoot,
    /// Our own redundant record in the state directory; this initramfs is then the selector.
    File,
}

/// One supervised database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Unique short name, also used for directories: `[a-z0-9_-]{1,32}`.
    pub name: String,
    /// What it holds.
    pub kind: DatabaseKind,
    /// The path as the running OS names it (what reports print).
    pub path: PathBuf,
    /// Numeric owner and group to give a replaced file; `None` keeps those of the file or directory displaced.
    pub owner: Option<(u32, u32)>,
    /// Permission bits of a replaced file.
    pub mode: u32,
    /// Accepted rungs, in ladder order.
    pub accept: Vec<Rung>,
}

/// The recovery button; `None` of a line means: no button, at no cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Button {
    /// GPIO line name.
    pub line: Option<String>,
    /// Chip and offset, where the line has no name.
    pub chip: Option<String>,
    /// Offset on the chip.
    pub offset: Option<u32>,
    /// True when a pressed button pulls the line low.
    pub active_low: bool,
    /// Seconds for recovery.
    pub hold_seconds: u32,
    /// Seconds after which a reset is offered.
    pub reset_seconds: u32,
}

/// All settings, with the contract's defaults for whatever the file leaves out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// `[device] id_from`.
    pub device_id_from: String,
    /// `[device] id`; only for laptops and tests, refused at boot.
    pub device_id: Option<String>,
    /// `[data] device`, such as `LABEL=PYV-DATA`.
    pub data_device: String,
    /// `[data] mountpoint` in the OS.
    pub data_mountpoint: PathBuf,
    /// `[data] dir`.
    pub data_dir: PathBuf,
    /// `[state] device`; `None` where the state is a plain directory.
    pub state_device: Option<String>,
    /// `[state] dir`.
    pub state_dir: PathBuf,
    /// `[[database]]` in order.
    pub databases: Vec<Database>,
    /// `[service] unit`.
    pub service_unit: String,
    /// `[service] health`.
    pub service_health: String,
    /// `[backup] dir`.
    pub backup_dir: PathBuf,
    /// `[quarantine] keep`: operations kept per database.
    pub quarantine_keep: u32,
    /// `[quarantine] max_percent` of the data partition.
    pub quarantine_max_percent: u32,
    /// `[slots] backend`.
    pub slot_backend: SlotBackend,
    /// `[slots] tries` granted to a slot.
    pub slot_tries: u32,
    /// `[slots] a`: device of root A.
    pub slot_a: String,
    /// `[slots] b`: device of root B.
    pub slot_b: String,
    /// `[slots] init`: program started in a slot.
    pub slot_init: PathBuf,
    /// `[button]`.
    pub button: Button,
    /// `[stick] wait_seconds`.
    pub stick_wait_seconds: u32,
    /// `[boot] check_budget_ms`.
    pub check_budget_ms: u64,
    /// `[boot] on_damage_left`.
    pub on_damage_left: OnTrouble,
    /// `[boot] on_data_missing`.
    pub on_data_missing: OnTrouble,
    /// `[boot] hold_minutes`.
    pub hold_minutes: u32,
    /// `[boot] stage_deadline_seconds` without progress.
    pub stage_deadline_seconds: u32,
    /// `[boot] device_wait_seconds`: how long to wait for the partitions to appear.
    pub device_wait_seconds: u32,
}
