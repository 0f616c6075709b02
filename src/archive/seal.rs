//! Writes an archive: tar members into a zstd frame into an age file, pushed through in pieces, in memory that does not
//! grow with it.

use std::io::{self, Write};

use age::stream::StreamWriter;
use age::{Encryptor, Recipient, x25519};
use zstd::stream::write::Encoder;

use super::manifest::{MAX_MEMBER, MAX_NAME};

/// Bytes of a tar block.
const BLOCK: u64 = 512;

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Level of zstd, 1 to 19.
    pub level: i32,
    /// Threads beside this one; 0: none, and 10 MB of memory are enough.
    pub workers: u32,
}

impl Default for Effort {
    fn default() -> Self {
        Self { level: 3, workers: 0 }
    }
}

/// An archive being written.
pub struct Sealer<W: Write> {
    inner: Encoder<'static, StreamWriter<W>>,
    /// Bytes of the member that are still to come.
    left: u64,
    /// Zeroes behind it.
    padding: u64,
}

/// Reads recipients, `age1…`.
///
/// # Errors
/// Which one is none.
pub fn recipients(texts: &[String]) -> Result<Vec<x25519::Recipient>, String> {
    let one = |text: &String| text.parse().map_err(|e| format!("{text} is no age recipient: {e}"));
    texts.iter().map(one).collect()
}

impl<W: Write> Sealer<W> {
    /// Begins one.
    ///
    /// # Errors
    /// No recipients, or the output refused.
    pub fn new(out: W, recipients: &[x25519::Recipient], effort: Effort) -> io::Result<Self> {
        let recipients = recipients.iter().map(|r| r as &dyn Recipient);
        // In our own words: the library's come with a translation machinery of 200 KB.
        let age = Encryptor::with_recipients(recipients)
            .map_err(|_| io::Error::other("these recipients cannot read one archive together"))?
            .wrap_output(out)?;
        let mut inner = Encoder::new(age, effort.level)?;
        // age authenticates every byte; another checksum would be counted for nothing.
        inner.include_checksum(false)?;
        if effort.workers > 0 {
            inner.multithread(effort.workers)?;
        }
        Ok(Self { inner, left: 0, padding: 0 })
    }

    /// Begins a member of exactly `len` bytes. `mtime` in seconds since the epoch.
    ///
    /// # Errors
    /// The member before it is not complete, or the output refused.
    pub fn member(&mut self, name: &str, len: u64, mtime: u64) -> io::Result<()> {
        self.pad()?;
        if name.len() > MAX_NAME || len > MAX_MEMBER {
            return Err(io::Error::other(format!("{name} does not fit into a member header")));
        }
        let mut header = tar::Header::new_ustar();
        header.set_path(name)?;
        header.set_size(len);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(mtime);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        self.inner.write_all(header.as_bytes())?;
        self.left = len;
        self.padding = len.next_multiple_of(BLOCK) - len;
        Ok(())
    }

    /// Bytes of the member.
    ///
    /// # Errors
    /// More than were announced, or the output refused.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::other("a member is longer than it was said to be"))?;
        self.inner.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::Error::other("a member is shorter than it was said to be"));
        }
        let zeroes = [0_u8; BLOCK as usize];
        let padding = zeroes.get(..usize::try_from(self.padding).unwrap_or(0)).unwrap_or_default();
        self.inner.write_all(padding)?;
        self.padding = 0;
        Ok(())
    }

    /// Writes the end, and gives the output back.
    ///
    /// # Errors
    /// The last member is not complete, or the output refused.
    pub fn finish(mut self) -> io::Result<W> {
        self.pad()?;
        self.inner.write_all(&[0; 2 * BLOCK as usize])?;
        self.inner.finish()?.finish()
    }
}
