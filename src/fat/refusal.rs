//! Why a stick is not read: a code for scripts and tests, a place, and a sentence that ends with what to do.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// What is wrong. Each has one name ([`Code::name`]), which reports and tests rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The device gives an error when it is read.
    Unreadable,
    /// The device gives an error when it is written.
    Unwritable,
    /// No bytes at all, or fewer than a sector.
    TooShort,
    /// Neither a partition table nor a file system that is known.
    NotRecognised,
    /// The partition table contradicts itself or its checksum.
    TableDamaged,
    /// A partition reaches past the end of the device.
    PartitionBeyondDevice,
    /// Two partitions share bytes.
    PartitionsOverlap,
    /// More partitions than anybody makes.
    TooManyPartitions,
    /// exFAT.
    ExFat,
    /// NTFS.
    Ntfs,
    /// FAT12.
    Fat12,
    /// A field of the boot sector is impossible.
    BootSector,
    /// The boot sector says one kind of FAT and the number of clusters another.
    KindContradicts,
    /// FAT32 with mirroring of the table switched off: which copy is right is for one system to know.
    MirroringOff,
    /// A FAT32 of a version after 0.
    Version,
    /// The volume is larger than its partition or its device.
    VolumeBeyondDevice,
    /// The table has no room for all clusters.
    TableTooSmall,
    /// The copies of the table differ.
    CopiesDiffer,
    /// A chain leads to a cluster that is free, bad, reserved or outside the volume.
    ChainBroken,
    /// A chain ends before the size of its file.
    ChainShort,
    /// A chain goes on after the size of its file.
    ChainLong,
    /// A cluster belongs to two files, or a chain comes back to itself.
    Shared,
    /// A directory beyond the bound.
    DirectoryTooLarge,
    /// Too many files.
    TooManyFiles,
    /// In too many pieces.
    TooFragmented,
    /// More clusters than anybody needs for a restore.
    TooManyClusters,
    /// A directory entry is impossible.
    EntryDamaged,
    /// The pieces of a long name do not fit together.
    LongNameDamaged,
    /// A name with characters that no system allows.
    NameForbidden,
    /// Two entries of one name.
    NameTwice,
    /// The entries `.` and `..` do not lead where they must.
    DotEntries,
    /// No directory of ours.
    NoDirectory,
    /// Something of its name that is not a directory.
    NotADirectory,
    /// Our directory on more than one partition.
    SeveralDirectories,
    /// No file of that name.
    NoFile,
    /// More bytes than the caller takes.
    FileTooLarge,
    /// The report has more bytes than the file made for it.
    SlotTooSmall,
    /// The device is too small or too large to be formatted.
    DeviceSize,
    /// The files do not fit on the device.
    NoRoom,
    /// What was written does not read back.
    ReadBack,
}

/// Where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The device as a whole.
    Device,
    /// Its partition table.
    Table,
    /// The boot sector.
    Boot,
    /// The file allocation table.
    Fat,
    /// The root directory.
    Root,
    /// Our directory.
    Directory,
    /// A file, or an entry, in our directory.
    File(String),
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What.
    pub code: Code,
    /// Where.
    pub place: Place,
    /// The partition, from 1; 0 is a device without a partition table, `None` where it does not matter.
    pub partition: Option<u32>,
    /// Numbers that help: an offset, a field and its value, the words of the system.
    pub detail: String,
}

impl Refusal {
    /// A refusal without a partition yet.
    #[must_use]
    pub fn new(code: Code, place: Place, detail: impl Into<String>) -> Self {
        Self { code, place, partition: None, detail: detail.into() }
    }

    /// A failed read.
    #[must_use]
    pub fn read(place: Place, offset: u64, error: &io::Error) -> Self {
        Self::new(Code::Unreadable, place, format!("byte {offset}: {error}"))
    }

    /// A failed write.
    #[must_use]
    pub fn write(place: Place, offset: u64, error: &io::Error) -> Self {
        Self::new(Code::Unwritable, place, format!("byte {offset}: {error}"))
    }

    /// The same in a partition.
    #[must_use]
    pub fn on(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// How well a refusal explains a stick of which no partition served; the highest is told.
    pub(super) fn weight(&self) -> u8 {
        match self.code {
            Code::NotRecognised | Code::TooShort => 0,
            Code::NoDirectory => 1,
            Code::Fat12 | Code::Ntfs | Code::ExFat => 2,
            _ => 3,
        }
    }
}

const NEW_STICK: &str = "make the stick again with `stick format` and `stick prepare`";
const OTHER_STICK: &str = "try another USB port or another stick";
const FORMAT: &str = "format the stick with `stick format`, which makes it FAT32; this erases it";

impl Code {
    /// The name in reports, such as `chain-short`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.texts().0
    }

    /// What is wrong, in words.
    #[must_use]
    pub fn why(self) -> &'static str {
        self.texts().1
    }

    /// What to do.
    #[must_use]
    pub fn advice(self) -> &'static str {
        self.texts().2
    }

    fn texts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Unreadable => ("unreadable", "the stick gives an error when it is read", OTHER_STICK),
            Self::Unwritable => (
                "unwritable",
                "the stick gives an error when it is written",
                "look for a write-protect switch, or try another stick",
            ),
            Self::TooShort => ("too-short", "there are fewer bytes than one sector", OTHER_STICK),
            Self::NotRecognised => {
                ("not-recognised", "there is no FAT16 or FAT32 file system that can be read", FORMAT)
            }
            Self::TableDamaged => ("table-damaged", "the partition table contradicts itself", NEW_STICK),
            Self::PartitionBeyondDevice => {
                ("partition-beyond-device", "a partition reaches past the end of the stick", NEW_STICK)
            }
            Self::PartitionsOverlap => ("partitions-overlap", "two partitions share bytes", NEW_STICK),
            Self::TooManyPartitions => {
                ("too-many-partitions", "there are more partitions than can be looked at", FORMAT)
            }
            Self::ExFat => ("exfat", "the file system is exFAT, which is not read here", FORMAT),
            Self::Ntfs => ("ntfs", "the file system is NTFS, which is not read here", FORMAT),
            Self::Fat12 => ("fat12", "the file system is FAT12, which is not read here", FORMAT),
            Self::BootSector => ("boot-sector", "the boot sector is damaged", NEW_STICK),
            Self::KindContradicts => (
                "kind-contradicts",
                "the boot sector says one kind of FAT and its number of clusters another",
                NEW_STICK,
            ),
            Self::MirroringOff => ("mirroring-off", "the copies of the allocation table are not kept equal", NEW_STICK),
            Self::Version => ("version", "the file system has a version that is not known", NEW_STICK),
            Self::VolumeBeyondDevice => {
                ("volume-beyond-device", "the file system is larger than the stick or its partition", NEW_STICK)
            }
            Self::TableTooSmall => ("table-too-small", "the allocation table has no room for all clusters", NEW_STICK),
            Self::CopiesDiffer => ("copies-differ", "the copies of the allocation table differ", NEW_STICK),
            Self::ChainBroken => ("chain-broken", "its chain of clusters leads nowhere", NEW_STICK),
            Self::ChainShort => ("chain-short", "its chain of clusters ends before its size", NEW_STICK),
            Self::ChainLong => ("chain-long", "its chain of clusters goes on after its size", NEW_STICK),
            Self::Shared => ("shared", "its clusters belong to something else as well", NEW_STICK),
            Self::DirectoryTooLarge => ("directory-too-large", "the directory is too large", NEW_STICK),
            Self::TooManyFiles => (
                "too-many-files",
                "there are too many files in the directory",
                "keep in it what `stick prepare` made, and move the rest elsewhere",
            ),
            Self::TooFragmented => ("too-fragmented", "the files are in too many pieces", NEW_STICK),
            Self::TooManyClusters => ("too-many-clusters", "the files have too many clusters", FORMAT),
            Self::EntryDamaged => ("entry-damaged", "a directory entry is damaged", NEW_STICK),
            Self::LongNameDamaged => ("long-name-damaged", "the pieces of a long name do not fit together", NEW_STICK),
            Self::NameForbidden => ("name-forbidden", "a name has characters that are not allowed", NEW_STICK),
            Self::NameTwice => ("name-twice", "two entries have the same name", NEW_STICK),
            Self::DotEntries => ("dot-entries", "the directory does not know where it is", NEW_STICK),
            Self::NoDirectory => (
                "no-directory",
                "there is no directory PYVORIN-RESTORE",
                "make the stick with `stick prepare`, or copy the whole directory onto it",
            ),
            Self::NotADirectory => ("not-a-directory", "PYVORIN-RESTORE is not a directory", NEW_STICK),
            Self::SeveralDirectories => (
                "several-directories",
                "more than one partition has a directory PYVORIN-RESTORE",
                "leave the directory on one partition only",
            ),
            Self::NoFile => ("no-file", "there is no such file", "make the stick with `stick prepare`"),
            Self::FileTooLarge => ("file-too-large", "the file is larger than it may be", NEW_STICK),
            Self::SlotTooSmall => (
                "slot-too-small",
                "the report is larger than the file made for it",
                "make the stick with `stick prepare`",
            ),
            Self::DeviceSize => ("device-size", "the stick is too small or too large for FAT32", "take another stick"),
            Self::NoRoom => ("no-room", "the files do not fit on the stick", "take a larger stick"),
            Self::ReadBack => ("read-back", "what was written does not read back", OTHER_STICK),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device => f.write_str("the stick"),
            Self::Table => f.write_str("the partition table"),
            Self::Boot => f.write_str("the boot sector"),
            Self::Fat => f.write_str("the allocation table"),
            Self::Root => f.write_str("the root directory"),
            Self::Directory => write!(f, "/{}", super::DIRECTORY),
            // A name from a stick goes to a console: nothing in it may steer one.
            Self::File(name) => write!(f, "/{}/{}", super::DIRECTORY, name.escape_debug()),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.partition {
            Some(0) | None => write!(f, "{}: {}", self.place, self.code.why())?,
            Some(n) => write!(f, "partition {n}, {}: {}", self.place, self.code.why())?,
        }
        if !self.detail.is_empty() {
            // It may have come out of the process that read the stick, and goes to a console too.
            let plain: String = self.detail.chars().filter(|c| !c.is_control()).collect();
            write!(f, " ({plain})")?;
        }
        write!(f, "; next: {}", self.code.advice())
    }
}

impl std::error::Error for Refusal {}
