//! The 100-byte database header (file format 2, section 1.3).
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 16 | `SQLite format 3\0` |
//! | 16 | 2 | page size: power of two 512..=32768, or 1 for 65536 |
//! | 18, 19 | 1, 1 | write and read version: 1 rollback journal, 2 WAL |
//! | 20 | 1 | reserved bytes at the end of each page |
//! | 21..24 | 3 | payload fractions 64, 32, 32 |
//! | 24 | 4 | file change counter |
//! | 28 | 4 | database size in pages |
//! | 32, 36 | 4, 4 | first freelist trunk, number of free pages |
//! | 40, 44 | 4, 4 | schema cookie, schema format 1..=4 |
//! | 52, 56 | 4, 4 | largest root page (auto-vacuum), text encoding 1..=3 |
//! | 60, 68 | 4, 4 | user version, application id |
//! | 92, 96 | 4, 4 | version-valid-for, SQLite version |

use serde::{Deserialize, Serialize};

use super::bytes::{be16, be32};

/// Bytes every database starts with.
pub const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Length of the header.
pub const LEN: usize = 100;

/// The fields of a well-formed header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Page size in bytes.
    pub page_size: u32,
    /// True when the file is in WAL mode (read and write version 2).
    pub wal_mode: bool,
    /// Bytes reserved at the end of each page.
    pub reserved: u8,
    /// File change counter; in WAL mode it only moves when page 1 is written.
    pub change_counter: u32,
    /// Database size in pages as the header says; 0 or stale when `valid_for` differs from `change_counter`.
    pub pages: u32,
    /// First freelist trunk page, 0 when none.
    pub freelist_head: u32,
    /// Pages on the freelist.
    pub freelist_count: u32,
    /// Schema cookie.
    pub schema_cookie: u32,
    /// Schema format 0 (none yet) to 4; below 4, descending indexes do not exist.
    #[serde(default)]
    pub schema_format: u32,
    /// Largest root page; non-zero means auto-vacuum.
    pub largest_root: u32,
    /// Incremental vacuum; only meaningful when `largest_root` is non-zero.
    #[serde(default)]
    pub incremental_vacuum: u32,
    /// Text encoding: 0 (none yet) or 1 (UTF-8), 2 (UTF-16LE) or 3 (UTF-16BE).
    pub encoding: u32,
    /// `PRAGMA user_version`.
    pub user_version: u32,
    /// `PRAGMA application_id`.
    pub application_id: u32,
    /// The change counter for which `pages` is valid.
    pub valid_for: u32,
    /// Version number of the SQLite that wrote last.
    pub writer_version: u32,
}

/// Why 100 bytes are not a header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "fault", content = "detail")]
pub enum HeaderFault {
    /// Fewer than 100 bytes.
    Short(u64),
    /// The first 16 bytes are something else.
    Magic,
    /// The page size field holds an impossible value.
    PageSize(u32),
    /// Another fixed field holds an impossible value.
    Field(String),
}

impl HeaderFault {
    /// A sentence for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Short(len) => format!("only {len} bytes, a database header has {LEN}"),
            Self::Magic => "does not start with the SQLite magic".to_string(),
            Self::PageSize(size) => format!("page size {size} is not a power of two from 512 to 65536"),
            Self::Field(name) => format!("header field {name} holds an impossible value"),
        }
    }
}

/// A power of two from 512 to 65536, as the field at offset 16 and as the WAL header's word encode it.
pub fn valid_page_size(size: u32) -> bool {
    size.is_power_of_two() && (512..=65536).contains(&size)
}

/// Parses the first bytes of a database or an image of page 1.
pub fn parse(bytes: &[u8]) -> Result<Header, HeaderFault> {
    if bytes.len() < LEN {
        return Err(HeaderFault::Short(bytes.len() as u64));
    }
    if bytes.get(..16) != Some(MAGIC.as_slice()) {
        return Err(HeaderFault::Magic);
    }
    let raw = u32::from(be16(bytes, 16));
    let page_size = if raw == 1 { 65536 } else { raw };
    if !valid_page_size(page_size) {
        return Err(HeaderFault::PageSize(raw));
    }
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let fault = |name: &str| Err(HeaderFault::Field(name.to_string()));
    if !(1..=2).contains(&byte(18)) || !(1..=2).contains(&byte(19)) {
        return fault("file format version");
    }
    if (byte(21), byte(22), byte(23)) != (64, 32, 32) {
        return fault("payload fraction");
    }
    if page_size - u32::from(byte(20)) < 480 {
        return fault("reserved space");
    }
    if be32(bytes, 44) > 4 {
        return fault("schema format");
    }
    if be32(bytes, 56) > 3 {
        return fault("text encoding");
    }
    Ok(Header {
        page_size,
        wal_mode: byte(19) == 2,
        reserved: byte(20),
        change_counter: be32(bytes, 24),
        pages: be32(bytes, 28),
        freelist_head: be32(bytes, 32),
        freelist_count: be32(bytes, 36),
        schema_cookie: be32(bytes, 40),
        schema_format: be32(bytes, 44),
        largest_root: be32(bytes, 52),
        incremental_vacuum: be32(bytes, 64),
        encoding: be32(bytes, 56),
        user_version: be32(bytes, 60),
        application_id: be32(bytes, 68),
        valid_for: be32(bytes, 92),
        writer_version: be32(bytes, 96),
    })
}
