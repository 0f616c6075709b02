//! What the child says to the parent: frames of a kind, a length and that many bytes. The parent believes nothing: every
//! length is bounded, and so is the sum of them.
//!
//! ```text
//! kind u8 | length u32, little-endian | bytes
//! D  data, at most 64 KiB     W  a word for the log, at most 1 KiB     A  the answer, at most 1 MiB; ends it
//! ```

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

/// Longest piece of data.
const DATA: usize = 64 << 10;
/// Longest word for the log, and most of them.
const WORD: usize = 1 << 10;
const WORDS: usize = 16;
/// Longest answer.
const ANSWER: usize = 1 << 20;
const HEADER: usize = 5;

/// The child's end. A failure to write is ignored: without a listener there is nobody to tell.
#[derive(Debug)]
pub struct Mouth {
    pipe: OwnedFd,
}

impl Mouth {
    /// Speaks into `pipe`.
    #[must_use]
    pub fn new(pipe: OwnedFd) -> Self {
        Self { pipe }
    }

    /// Data, in order.
    pub fn data(&mut self, bytes: &[u8]) {
        bytes.chunks(DATA).for_each(|piece| self.frame(b'D', piece));
    }

    /// A word for the log.
    pub fn word(&mut self, text: &str) {
        self.frame(b'W', text.as_bytes().get(..text.len().min(WORD)).unwrap_or_default());
    }

    /// The answer; nothing is heard after it.
    pub fn answer(&mut self, bytes: &[u8]) {
        self.frame(b'A', bytes);
    }

    pub(super) fn pipe(&self) -> &OwnedFd {
        &self.pipe
    }

    fn frame(&mut self, kind: u8, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let [a, b, c, d] = len.to_le_bytes();
        self.raw(&[kind, a, b, c, d]);
        self.raw(bytes);
    }

    pub(super) fn raw(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match nix::unistd::write(&self.pipe, bytes) {
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// Why the parent stops listening.
#[derive(Debug)]
pub enum Stop {
    /// What came is not what was agreed.
    Lies(String),
    /// Whoever takes the data does not take more.
    Taker(io::Error),
}

/// The parent's end, free of effects but for the taker it is given.
#[derive(Debug)]
pub struct Ear {
    partial: Vec<u8>,
    /// Bytes of data that may still come.
    left: u64,
    words: Vec<String>,
    answer: Option<Vec<u8>>,
}

impl Ear {
    /// Takes `most` bytes of data at most.
    #[must_use]
    pub fn new(most: u64) -> Self {
        Self { partial: Vec::new(), left: most, words: Vec::new(), answer: None }
    }

    /// Hears some bytes; data goes to `take`. Bytes after the answer are not heard.
    pub fn hear(&mut self, bytes: &[u8], take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), Stop> {
        self.partial.extend_from_slice(bytes);
        let mut done = 0;
        while self.answer.is_none() {
            let Some((kind, len)) = header(self.partial.get(done..).unwrap_or_default()) else { break };
            let longest = match kind {
                b'D' => usize::try_from(self.left).unwrap_or(usize::MAX).min(DATA),
                b'W' if self.words.len() < WORDS => WORD,
                b'A' => ANSWER,
                _ => return Err(Stop::Lies(format!("a frame of kind {kind}"))),
            };
            if len > longest {
                return Err(Stop::Lies(format!("a frame of kind {kind} with {len} bytes, at most {longest}")));
            }
            let from = done.saturating_add(HEADER);
            let Some(frame) = self.partial.get(from..from.saturating_add(len)) else { break };
            match kind {
                b'D' => {
                    self.left = self.left.saturating_sub(len as u64);
                    take(frame).map_err(Stop::Taker)?;
                }
                b'W' => self.words.push(String::from_utf8_lossy(frame).into_owned()),
                _ => self.answer = Some(frame.to_vec()),
            }
            done = from.saturating_add(len);
        }
        self.partial.drain(..done);
        Ok(())
    }

    /// The words for the log.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(String::as_str)
    }

    /// The answer, once it is there.
    pub fn answer(&mut self) -> Option<Vec<u8>> {
        self.answer.take()
    }
}

fn header(bytes: &[u8]) -> Option<(u8, usize)> {
    let [kind, a, b, c, d] = *bytes.first_chunk::<HEADER>()?;
    usize::try_from(u32::from_le_bytes([a, b, c, d])).ok().map(|len| (kind, len))
}
