//! Images of sticks, made and looked at with dosfstools, mtools and sfdisk, never with our own code.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::rng::Rng;

/// Runs a tool; its output, and whether it was content.
pub fn tool(program: &str, args: &[&str]) -> (bool, String) {
    let sbin = ["/usr/sbin", "/sbin"].iter().map(|d| Path::new(d).join(program)).find(|p| p.exists());
    let done = Command::new(sbin.unwrap_or_else(|| program.into()))
        .args(args)
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("MTOOLS_SKIP_CHECK", "1")
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}; sh tests/setup.sh installs it"));
    let text = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Runs a tool that must be content.
pub fn must(program: &str, args: &[&str]) -> String {
    let (good, text) = tool(program, args);
    assert!(good, "{program} {args:?}: {text}");
    text
}

/// Seeded bytes.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

/// An image file with a volume at `offset`.
pub struct Image {
    pub path: PathBuf,
    pub offset: u64,
}

impl Image {
    /// A sparse file of `len` bytes.
    pub fn new(dir: &Path, name: &str, len: u64) -> Image {
        let path = dir.join(name);
        fs::File::create(&path).unwrap().set_len(len).unwrap();
        Image { path, offset: 0 }
    }

    pub fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// What mtools calls the volume.
    pub fn drive(&self) -> String {
        format!("{}@@{}", self.name(), self.offset)
    }

    /// A partition table by sfdisk; the volume is partition `number`.
    pub fn partitioned(mut self, script: &str, number: usize) -> Image {
        let input = self.path.with_extension("sfdisk");
        fs::write(&input, script).unwrap();
        let command = format!("/usr/sbin/sfdisk -q {} < {}", self.name(), input.display());
        must("sh", &["-c", &command]);
        let dump = must("sfdisk", &["--json", self.name()]);
        let starts: Vec<u64> = dump
            .split("\"start\":")
            .skip(1)
            .map(|rest| rest.trim_start().split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap())
            .collect();
        self.offset = starts[number - 1] * 512;
        self
    }

    /// mkfs.fat; `blocks` of 1 KiB, where the volume does not go to the end of the image.
    pub fn mkfs(&self, options: &str, blocks: Option<u64>) {
        let (offset, blocks) = ((self.offset / 512).to_string(), blocks.map(|n| n.to_string()));
        let mut args: Vec<&str> = options.split_whitespace().collect();
        args.extend(["-i", "1234abcd", "--offset", &offset, self.name()]);
        args.extend(blocks.as_deref());
        must("mkfs.fat", &args);
    }

    pub fn mkdir(&self, name: &str) {
        must("mmd", &["-i", &self.drive(), &format!("::{name}")]);
    }

    /// Copies bytes into the volume.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let from = self.path.with_extension("in");
        fs::write(&from, bytes).unwrap();
        must("mcopy", &["-o", "-m", "-i", &self.drive(), from.to_str().unwrap(), &format!("::{name}")]);
    }

    pub fn delete(&self, name: &str) {
        must("mdel", &["-i", &self.drive(), &format!("::{name}")]);
    }

    /// A file as mtools reads it.
    pub fn get(&self, name: &str) -> Vec<u8> {
        let to = self.path.with_extension("out");
        let _ = fs::remove_file(&to);
        must("mcopy", &["-n", "-i", &self.drive(), &format!("::{name}"), to.to_str().unwrap()]);
        fs::read(&to).unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    /// Makes FAT32 look for free clusters from the beginning: mtools goes on where it left off, and leaves no holes.
    pub fn rewind(&self, sector: u64) {
        let file = fs::File::options().read(true).write(true).open(&self.path).unwrap();
        let (at, mut magic) = (self.offset + sector, [0; 4]);
        file.read_exact_at(&mut magic, at).unwrap();
        if magic == *b"RRaA" {
            file.write_all_at(&2_u32.to_le_bytes(), at + 492).unwrap();
        }
    }

    /// A copy beside it.
    pub fn copy(&self) -> PathBuf {
        let to = self.path.with_extension("copy");
        must("cp", &["--sparse=always", self.name(), to.to_str().unwrap()]);
        to
    }

    /// fsck.fat on a copy of the volume alone, changing nothing; what it says.
    pub fn fsck(&self, len: u64) -> (bool, String) {
        if self.offset == 0 {
            return tool("fsck.fat", &["-n", "-v", self.name()]);
        }
        let volume = self.path.with_extension("volume");
        sparse_part(&self.path, &volume, self.offset, len);
        let said = tool("fsck.fat", &["-n", "-v", volume.to_str().unwrap()]);
        fs::remove_file(volume).unwrap();
        said
    }
}

/// Where a sparse file has bytes of its own, from `offset` on.
fn pieces(file: &fs::File, offset: u64, end: u64) -> Vec<(u64, u64)> {
    use nix::unistd::{Whence, lseek};
    let (mut at, end, mut all) = (offset.cast_signed(), end.cast_signed(), Vec::new());
    while let Ok(data) = lseek(file, at, Whence::SeekData) {
        if data >= end {
            break;
        }
        at = lseek(file, data, Whence::SeekHole).unwrap().min(end);
        all.push((data.cast_unsigned(), (at - data).cast_unsigned()));
    }
    all
}

fn read_piece(file: &fs::File, (at, len): (u64, u64)) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

/// Copies a part of a file, and only what there is of it.
fn sparse_part(from: &Path, to: &Path, offset: u64, len: u64) {
    let (from, to) = (fs::File::open(from).unwrap(), fs::File::create(to).unwrap());
    to.set_len(len).unwrap();
    for piece in pieces(&from, offset, offset + len) {
        to.write_all_at(&read_piece(&from, piece), piece.0 - offset).unwrap();
    }
}

/// Whether two sparse files hold the same bytes.
pub fn same(one: &Path, two: &Path) -> bool {
    let (one, two) = (fs::File::open(one).unwrap(), fs::File::open(two).unwrap());
    let len = one.metadata().unwrap().len();
    let all = [pieces(&one, 0, len), pieces(&two, 0, len)].concat();
    len == two.metadata().unwrap().len() && all.into_iter().all(|p| read_piece(&one, p) == read_piece(&two, p))
}
