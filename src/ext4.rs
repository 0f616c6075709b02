//! The superblock of ext2, ext3 and ext4, read as bytes before anything mounts the volume.
//!
//! Mounting is already a write: the kernel replays the journal of an unclean volume even when asked for `ro`. So the
//! facts that decide whether a file system check is due come from the 1024 bytes at offset 1024, and from nowhere else.
//! Layout: `Documentation/filesystems/ext4/super.rst` of the Linux kernel; offsets below are its `s_*` fields. All
//! words are little-endian on every machine.
//!
//! The reader is total: any bytes give a value. What the bytes *mean* for the boot is judged elsewhere; here stands
//! only [`Superblock::is_clean`], because it is the definition of a word and not a policy.
//!
//! [`FileSystem::detect`] also names the other things that are found where a data partition was expected, so that
//! the report can say "this is FAT" instead of "this is not ext4". A volume that is not ours is never formatted.

mod crc32c;

use serde::{Deserialize, Serialize};

/// Bytes from the start of a volume that [`FileSystem::detect`] needs: up to the magic of btrfs at 0x10040.
pub const HEAD_LEN: usize = 0x1_1000;
/// Where the primary superblock begins, whatever the block size.
pub const SUPERBLOCK_OFFSET: usize = 1024;
/// Length of a superblock.
pub const SUPERBLOCK_LEN: usize = 1024;

const MAGIC: u16 = 0xEF53;
/// `s_state`: unmounted cleanly.
const STATE_VALID: u16 = 0x0001;
/// `s_state`: the kernel met an error and wrote it down.
const STATE_ERROR: u16 = 0x0002;
/// `s_feature_compat`: has a journal.
const COMPAT_HAS_JOURNAL: u32 = 0x0004;
/// `s_feature_incompat`: the journal holds transactions to be replayed.
const INCOMPAT_RECOVER: u32 = 0x0004;
/// `s_feature_incompat`: block numbers have 64 bits, so the high words count.
const INCOMPAT_64BIT: u32 = 0x0080;
/// `s_feature_ro_compat`: metadata, this superblock included, carries crc32c checksums.
const RO_COMPAT_METADATA_CSUM: u32 = 0x0400;
/// `s_default_mount_opts`: mask and value of `data=writeback`.
const DEFAULT_JOURNAL_MODE: u32 = 0x0060;
const DEFAULT_WRITEBACK: u32 = 0x0060;
/// `s_default_mount_opts`: `nobarrier`.
const DEFAULT_NOBARRIER: u32 = 0x0100;

/// One recorded error of the kernel's ext4 driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Seconds since the epoch; zero when never.
    pub time: u64,
    /// Function of the driver that saw it.
    pub function: String,
    /// Line in the driver.
    pub line: u32,
    /// Inode involved, zero when none.
    pub inode: u32,
    /// Block involved, zero when none.
    pub block: u64,
}

/// What the stored checksum of the superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checksum {
    /// The volume was made without metadata checksums.
    Absent,
    /// Present and right.
    Matches,
    /// Present and wrong: no field of this superblock can be trusted.
    Differs,
}

/// The facts of one superblock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superblock {
    /// Volume label, up to the first zero byte.
    pub label: String,
    /// Volume UUID.
    pub uuid: [u8; 16],
    /// Bytes per block; zero when the field holds an impossible value.
    pub block_size: u32,
    /// Number of blocks.
    pub blocks: u64,
    /// Blocks per group; places the backup superblocks.
    pub blocks_per_group: u32,
    /// The raw state word.
    pub state: u16,
    /// `s_feature_compat`.
    pub feature_compat: u32,
    /// `s_feature_incompat`.
    pub feature_incompat: u32,
    /// `s_feature_ro_compat`.
    pub feature_ro_compat: u32,
    /// The raw default mount options.
    pub default_mount_opts: u32,
    /// Extra mount options stored as text (`tune2fs -E mount_opts`).
    pub mount_opts: String,
    /// First inode of the list of orphans, zero when none.
    pub last_orphan: u32,
    /// Errors recorded since the last check.
    pub error_count: u32,
    /// The first of them.
    pub first_error: Fault,
    /// The latest of them.
    pub last_error: Fault,
    /// Last mount, seconds since the epoch.
    pub mount_time: u64,
    /// Last write, seconds since the epoch.
    pub write_time: u64,
    /// Last check, seconds since the epoch.
    pub check_time: u64,
    /// Mounts since the last check.
    pub mount_count: u16,
    /// Stored checksum against computed checksum.
    pub checksum: Checksum,
}

impl Superblock {
    /// Reads the 1024 bytes of a superblock; `None` when they are fewer or lack the magic word.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Superblock> {
        let sb = Words(bytes.get(..SUPERBLOCK_LEN)?);
        if sb.u16(0x38) != MAGIC {
            return None;
        }
        let incompat = sb.u32(0x60);
        let ro_compat = sb.u32(0x64);
        let high = if incompat & INCOMPAT_64BIT == 0 { 0 } else { sb.u32(0x150) };
        Some(Superblock {
            label: sb.text(0x78, 16),
            uuid: sb.array(0x68),
            block_size: block_size(sb.u32(0x18)),
            blocks: join(sb.u32(0x04), high),
            blocks_per_group: sb.u32(0x20),
            state: sb.u16(0x3A),
            feature_compat: sb.u32(0x5C),
            feature_incompat: incompat,
            feature_ro_compat: ro_compat,
            default_mount_opts: sb.u32(0x100),
            mount_opts: sb.text(0x200, 64),
            last_orphan: sb.u32(0xE8),
            error_count: sb.u32(0x194),
            first_error: Fault {
                time: sb.time(0x198, 0x278),
                function: sb.text(0x1A8, 32),
                line: sb.u32(0x1C8),
                inode: sb.u32(0x19C),
                block: sb.u64(0x1A0),
            },
            last_error: Fault {
                time: sb.time(0x1CC, 0x279),
                function: sb.text(0x1E0, 32),
                line: sb.u32(0x1D4),
                inode: sb.u32(0x1D0),
                block: sb.u64(0x1D8),
            },
            mount_time: sb.time(0x2C, 0x275),
            write_time: sb.time(0x30, 0x274),
            check_time: sb.time(0x40, 0x277),
            mount_count: sb.u16(0x34),
            checksum: checksum(&sb, ro_compat),
        })
    }

    /// The journal holds transactions that a mount would replay.
    #[must_use]
    pub fn needs_recovery(&self) -> bool {
        self.feature_incompat & INCOMPAT_RECOVER != 0
    }

    /// The driver marked the volume as having errors.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.state & STATE_ERROR != 0 || self.error_count != 0
    }

    /// Has a journal at all; without one a power cut leaves metadata in any state.
    #[must_use]
    pub fn has_journal(&self) -> bool {
        self.feature_compat & COMPAT_HAS_JOURNAL != 0
    }

    /// Unmounted in order, nothing to replay, no recorded error, no orphan, and a checksum that does not contradict.
    /// Only then is a mount with `noload` sure to show the truth.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.state & STATE_VALID != 0
            && !self.has_errors()
            && !self.needs_recovery()
            && self.last_orphan == 0
            && self.block_size != 0
            && self.checksum != Checksum::Differs
    }

    /// The defaults stored in the superblock mount with `data=writeback`: after a power cut a file may hold blocks
    /// of other files, which no checksum of the journal notices.
    #[must_use]
    pub fn defaults_to_writeback(&self) -> bool {
        self.default_mount_opts & DEFAULT_JOURNAL_MODE == DEFAULT_WRITEBACK
            || self.mount_opts.split(',').any(|word| word == "data=writeback")
    }

    /// The defaults stored in the superblock turn write barriers off: a sync then promises nothing.
    #[must_use]
    pub fn defaults_to_nobarrier(&self) -> bool {
        self.default_mount_opts & DEFAULT_NOBARRIER != 0
            || self.mount_opts.split(',').any(|word| word == "nobarrier" || word == "barrier=0")
    }

    /// The UUID in the usual text form.
    #[must_use]
    pub fn uuid_text(&self) -> String {
        let mut text = String::with_capacity(36);
        for (i, byte) in self.uuid.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }
}

/// What lies at the start of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum FileSystem {
    /// ext2, ext3 or ext4.
    Ext(Box<Superblock>),
    /// Flash-Friendly File System.
    F2fs,
    /// btrfs.
    Btrfs,
    /// FAT12, FAT16 or FAT32.
    Fat,
    /// An encrypted container.
    Luks,
    /// Every byte that was read is zero: an erased or never used volume.
    Blank,
    /// None of these, or too short to tell.
    Unknown,
}

impl FileSystem {
    /// Names what the first [`HEAD_LEN`] bytes of a volume hold. Fewer bytes are fine; what they do not reach is
    /// then not recognised. ext comes first, because `mkfs.ext4` leaves an older boot sector in place.
    #[must_use]
    pub fn detect(head: &[u8]) -> FileSystem {
        if let Some(superblock) = head.get(SUPERBLOCK_OFFSET..).and_then(Superblock::parse) {
            return FileSystem::Ext(Box::new(superblock));
        }
        let words = Words(head);
        if words.has(0, b"LUKS\xba\xbe") {
            FileSystem::Luks
        } else if words.has(1024, &0xF2F5_2010_u32.to_le_bytes()) {
            FileSystem::F2fs
        } else if words.has(0x1_0040, b"_BHRfS_M") {
            FileSystem::Btrfs
        } else if is_fat(&words) {
            FileSystem::Fat
        } else if head.len() >= SUPERBLOCK_OFFSET + SUPERBLOCK_LEN && head.iter().all(|&byte| byte == 0) {
            FileSystem::Blank
        } else {
            FileSystem::Unknown
        }
    }

    /// The superblock, when there is one.
    #[must_use]
    pub fn ext(&self) -> Option<&Superblock> {
        match self {
            FileSystem::Ext(superblock) => Some(superblock),
            _ => None,
        }
    }
}

fn is_fat(head: &Words<'_>) -> bool {
    (head.has(0, &[0xEB]) || head.has(0, &[0xE9]))
        && head.has(510, &[0x55, 0xAA])
        && (head.has(54, b"FAT1") || head.has(82, b"FAT32"))
}

/// `s_log_block_size` counts from 1 KiB; 64 KiB is the largest the format allows.
fn block_size(log: u32) -> u32 {
    if log <= 6 { 1024 << log } else { 0 }
}

fn join(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// `s_checksum`: crc32c with seed ~0, without the final inversion, over everything in front of it.
fn checksum(sb: &Words<'_>, ro_compat: u32) -> Checksum {
    if ro_compat & RO_COMPAT_METADATA_CSUM == 0 {
        return Checksum::Absent;
    }
    let covered = sb.0.get(..0x3FC).unwrap_or_default();
    if crc32c::update(u32::MAX, covered) == sb.u32(0x3FC) { Checksum::Matches } else { Checksum::Differs }
}

/// Little-endian fields by offset; a field beyond the end reads as zero, so that the reader stays total.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N])
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    /// A time of 40 bits: the low word, and the high byte that postpones the year 2038.
    fn time(&self, low: usize, high: usize) -> u64 {
        let [byte] = self.array(high);
        join(self.u32(low), u32::from(byte))
    }

    fn text(&self, at: usize, len: usize) -> String {
        let field = self.0.get(at..).and_then(|rest| rest.get(..len)).unwrap_or_default();
        let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
        String::from_utf8_lossy(field.get(..end).unwrap_or_default()).into_owned()
    }

    fn has(&self, at: usize, magic: &[u8]) -> bool {
        self.0.get(at..).is_some_and(|rest| rest.starts_with(magic))
    }
}
