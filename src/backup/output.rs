//! The file that an archive is written to: in large pieces, hashed and signed on its way.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::edge::Machine;
use crate::sign::{Signer, SigningKey};

/// Bytes written at a time.
const PIECE: usize = 1 << 20;

/// A new file that is written from its beginning to its end.
pub struct Output<'a> {
    machine: &'a mut dyn Machine,
    path: PathBuf,
    at: u64,
    waiting: Vec<u8>,
    hash: Sha256,
    signer: Signer<'a>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes.
    pub len: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// The signature file.
    pub signature: String,
}

impl<'a> Output<'a> {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(machine: &'a mut dyn Machine, path: &Path, key: &'a SigningKey) -> io::Result<Self> {
        machine.write(path, &[])?;
        let signer = Signer::new(key);
        let waiting = Vec::with_capacity(PIECE);
        Ok(Self { machine, path: path.to_path_buf(), at: 0, waiting, hash: Sha256::new(), signer })
    }

    fn put(&mut self) -> io::Result<()> {
        self.machine.write_at(&self.path, self.at, &self.waiting)?;
        self.hash.update(&self.waiting);
        self.signer.update(&self.waiting);
        self.at += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// Writes what is left and makes the file durable. `comment` stands in the signature.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self, comment: &str) -> io::Result<Written> {
        self.put()?;
        self.machine.sync_file(&self.path)?;
        let signature = self.signer.finish(comment);
        Ok(Written { len: self.at, sha256: format!("{:x}", self.hash.finalize()), signature })
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(PIECE - self.waiting.len().min(PIECE));
        self.waiting.extend_from_slice(bytes.get(..n).unwrap_or_default());
        if self.waiting.len() >= PIECE {
            self.put()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
