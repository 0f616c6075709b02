//! A file as a stream of bytes, in order, never more than the caller takes.

use std::io::{self, Read};

use super::{Blocks, Code, File, Refusal, in_directory};

/// Reads a file of a survey. Nothing says that the device gives the same bytes twice: what is used must be hashed as it
/// comes, and used from where it was put.
pub struct Stream<'a> {
    device: &'a mut dyn Blocks,
    file: &'a File,
    /// Extent being read, and bytes of it that are read.
    extent: usize,
    done: u64,
}

impl std::fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("file", &self.file.name).finish_non_exhaustive()
    }
}

impl<'a> Stream<'a> {
    /// A stream over a file of at most `most` bytes; a larger one is refused before anything is read.
    pub fn new(device: &'a mut dyn Blocks, file: &'a File, most: u64) -> Result<Self, Refusal> {
        if file.size > most {
            let detail = format!("{} bytes, at most {most}", file.size);
            return Err(Refusal::new(Code::FileTooLarge, in_directory(&file.name), detail));
        }
        Ok(Self { device, file, extent: 0, done: 0 })
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(extent) = self.file.extents.get(self.extent) else { return Ok(0) };
        let left = extent.len.saturating_sub(self.done);
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let part = buf.get_mut(..n).unwrap_or_default();
        self.device.read_at(extent.offset.saturating_add(self.done), part)?;
        self.done = self.done.saturating_add(n as u64);
        if self.done >= extent.len {
            (self.extent, self.done) = (self.extent + 1, 0);
        }
        Ok(n)
    }
}
