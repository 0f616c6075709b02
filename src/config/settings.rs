//! Validated settings. Everything behind this point may rely on: paths are absolute and free of `..`, numbers are in
//! range, names are unique, and `--root` has been applied to every path by [`Settings::under_root`].

use std::path::{Path, PathBuf};

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
    /// Where to reach the file from here: `path` itself, or `path` below a root.
    pub location: PathBuf,
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
    /// What all paths of this machine lie below: `/`, or the directory of `--root`.
    pub root: PathBuf,
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
    /// `[backup] local_restore`: the device's own recipient is added, so that it can restore without a person.
    pub backup_local_restore: bool,
    /// `[backup] recipients`: whoever can read the archives; two or more.
    pub backup_recipients: Vec<String>,
    /// `[backup] keep_days`.
    pub backup_keep_days: u32,
    /// `[backup] keep_verified`.
    pub backup_keep_verified: u32,
    /// `[backup] level` of compression.
    pub backup_level: u32,
    /// `[backup] workers`: threads of compression beside our own.
    pub backup_workers: u32,
    /// `[backup] rate_mib`: MiB read per second at most; 0: as fast as it goes.
    pub backup_rate_mib: u32,
    /// `[backup] increments`: how many build on a full one, at most.
    pub backup_increments: u32,
    /// `[keys] restore_identity`.
    pub key_restore: PathBuf,
    /// `[keys] signing_key`.
    pub key_signing: PathBuf,
    /// `[keys] keyring`.
    pub keyring: PathBuf,
    /// `[backup] config`: files and directories of the agent's configuration.
    pub config_paths: Vec<PathBuf>,
    /// `[backup] exclude`: names below them that are never touched.
    pub config_exclude: Vec<String>,
    /// `[reset] databases`: true when a reset leaves an empty database with the schema of the one before, false when
    /// it leaves none, for the agent to create.
    pub reset_recreates: bool,
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

impl Database {
    /// The documented database of that name, with the policy of its kind; any other name is of kind `other`, with no
    /// usable path yet.
    #[must_use]
    pub(super) fn named(name: &str) -> Self {
        let (kind, path) = match name {
            "edge_store" => (DatabaseKind::Store, PathBuf::from("/var/lib/pyvorin/edge_store.db")),
            "sync_queue" => (DatabaseKind::Queue, PathBuf::from("/var/lib/pyvorin/sync_queue.db")),
            _ => (DatabaseKind::Other, PathBuf::new()),
        };
        let accept = kind.default_accept();
        Self { name: name.to_owned(), kind, location: path.clone(), path, owner: None, mode: 0o640, accept }
    }
}

impl DatabaseKind {
    /// The rungs that are right where the file says nothing. Only a queue may come back empty by itself: an empty
    /// store would look healthy and hide that the readings and the audit chain are gone.
    #[must_use]
    pub fn default_accept(self) -> Vec<Rung> {
        let mut rungs = vec![Rung::Replay, Rung::Resync, Rung::Reindex, Rung::Salvage, Rung::Backup];
        if self == Self::Queue {
            rungs.push(Rung::Empty);
        }
        rungs
    }
}

impl Settings {
    /// The contract's defaults: right for the documented agent.
    #[must_use]
    pub fn default_for_agent() -> Self {
        Self {
            root: PathBuf::from("/"),
            device_id_from: "device-tree".to_owned(),
            device_id: None,
            data_device: "LABEL=PYV-DATA".to_owned(),
            data_mountpoint: PathBuf::from("/var/lib/pyvorin"),
            data_dir: PathBuf::from("/var/lib/pyvorin"),
            state_device: Some("LABEL=PYV-STATE".to_owned()),
            state_dir: PathBuf::from("/var/lib/pyvorin-recovery"),
            databases: vec![Database::named("edge_store"), Database::named("sync_queue")],
            service_unit: "auto".to_owned(),
            service_health: "http://127.0.0.1:8080/health".to_owned(),
            backup_dir: PathBuf::from("/var/lib/pyvorin/backups"),
            backup_local_restore: false,
            backup_recipients: Vec::new(),
            backup_keep_days: 30,
            backup_keep_verified: 3,
            backup_level: 2,
            backup_workers: 0,
            backup_rate_mib: 0,
            backup_increments: 6,
            key_restore: PathBuf::from("/var/lib/pyvorin-recovery/keys/restore"),
            key_signing: PathBuf::from("/var/lib/pyvorin-recovery/keys/signing"),
            keyring: PathBuf::from("/var/lib/pyvorin-recovery/keyring"),
            config_paths: vec![PathBuf::from("/etc/pyvorin")],
            config_exclude: vec!["certs".to_owned()],
            reset_recreates: true,
            quarantine_keep: 2,
            quarantine_max_percent: 20,
            slot_backend: SlotBackend::File,
            slot_tries: 3,
            slot_a: "PARTLABEL=root-a".to_owned(),
            slot_b: "PARTLABEL=root-b".to_owned(),
            slot_init: PathBuf::from("/sbin/init"),
            button: Button {
                line: Some("RECOVERY".to_owned()),
                chip: None,
                offset: None,
                active_low: true,
                hold_seconds: 5,
                reset_seconds: 10,
            },
            stick_wait_seconds: 3,
            check_budget_ms: 2000,
            on_damage_left: OnTrouble::Continue,
            on_data_missing: OnTrouble::Continue,
            hold_minutes: 10,
            stage_deadline_seconds: 120,
            device_wait_seconds: 10,
        }
    }

    /// The same settings with every path of this machine taken below `root`. `Database::path` keeps the name that the
    /// OS uses, because reports print it; `slot_init` keeps its own, because it is a name inside the slot.
    ///
    /// Apply once: applying it again nests the roots, except for `location`, which always starts from `path`.
    #[must_use]
    pub fn under_root(&self, root: &Path) -> Settings {
        let mut settings = self.clone();
        settings.root = root.to_path_buf();
        settings.data_mountpoint = below(root, &self.data_mountpoint);
        settings.data_dir = below(root, &self.data_dir);
        settings.state_dir = below(root, &self.state_dir);
        settings.backup_dir = below(root, &self.backup_dir);
        settings.key_restore = below(root, &self.key_restore);
        settings.key_signing = below(root, &self.key_signing);
        settings.keyring = below(root, &self.keyring);
        settings.config_paths = self.config_paths.iter().map(|path| below(root, path)).collect();
        for database in &mut settings.databases {
            database.location = below(root, &database.path);
        }
        settings
    }
}

/// `path` as a name below `root`. Joining an absolute path would replace the root, so its leading slash goes.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::Settings;
    use std::path::Path;

    #[test]
    fn below_a_root_every_path_moves_and_reported_names_stay() {
        let plain = Settings::default_for_agent();
        let moved = plain.under_root(Path::new("/mnt/card"));
        let keys = [&moved.key_restore, &moved.key_signing, &moved.keyring];
        let dirs = [&moved.data_mountpoint, &moved.data_dir, &moved.state_dir, &moved.backup_dir];
        for path in dirs.into_iter().chain(keys) {
            assert!(path.starts_with("/mnt/card/var/lib"), "{path:?}");
        }
        for (before, after) in plain.databases.iter().zip(&moved.databases) {
            assert_eq!(before.path, before.location);
            assert_eq!(before.path, after.path);
            assert_eq!(after.location, Path::new("/mnt/card").join(before.path.strip_prefix("/").unwrap()));
        }
        assert_eq!(moved.slot_init, plain.slot_init);
        assert_eq!(plain.under_root(Path::new("/")), plain);
    }
}
