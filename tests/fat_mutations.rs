//! Damaged and hostile volumes by the thousand, in eleven kinds: no panic, no long read, nothing wrong behind a SHA-256,
//! and reports never go to a place that is not theirs.
//!
//! The volumes are made by mkfs.fat and mtools; where their parts and files lie is found here by the fields of the boot
//! sector and by the contents, not by the code under test. `IMAGES=n` for more, `SEED=n` for one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;
use std::time::Duration;

use pyvorin_recovery::fat::overwrite::Overwrite;
use pyvorin_recovery::fat::{self, Blocks, BlocksMut, Limits, Stream};
use sha2::{Digest, Sha256};
use support::rng::Rng;
use support::stick::{Image, noise};
use support::{rounds, seeds};
use tempfile::TempDir;

const READ: [&str; 3] = ["ticket.json", "README.txt", "archive.tar.zst.age"];
const REPORTS: [&str; 3] = ["RESULT.txt", "report.json", "report.html"];
/// Somebody else's file, in the root directory.
const OTHER: &str = "other.jpg";
const LONGEST: Duration = Duration::from_secs(2);

/// A volume as it was made.
struct Base {
    bytes: Vec<u8>,
    wide: usize,
    cluster: usize,
    clusters: usize,
    table: usize,
    table_len: usize,
    data: usize,
    /// The root directory and ours.
    directories: Vec<Range<usize>>,
    files: BTreeMap<&'static str, (Range<usize>, Vec<u8>)>,
}

impl Base {
    fn made(fat32: bool) -> Base {
        let dir = TempDir::new().unwrap();
        let image = Image::new(dir.path(), "base", if fat32 { 36 << 20 } else { 8 << 20 });
        image.mkfs(if fat32 { "-F 32 -s 1 -R 32" } else { "-F 16 -s 2" }, None);
        image.mkdir("PYVORIN-RESTORE");
        let sizes = [1_234, 5_000, if fat32 { 6 << 20 } else { 3 << 20 }, 3_000, 3_000, 60_000, 50_000];
        let truth: Vec<_> = sizes.iter().zip(100..).map(|(size, seed)| noise(seed, *size)).collect();
        for (name, bytes) in READ.iter().chain(&REPORTS).zip(&truth) {
            image.put(&format!("PYVORIN-RESTORE/{name}"), bytes);
        }
        image.put(OTHER, &truth[6]);
        let mut bytes = image.bytes();
        let word = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let cluster = usize::from(bytes[13]) * 512;
        let (table, root_len) = (word(14) * 512, word(17) * 32);
        let table_len = (if fat32 { word(36) } else { word(22) }) * 512;
        let data = table + 2 * table_len + root_len;
        let clusters = (bytes.len() - data) / cluster;
        let find = |what: &[u8]| {
            let at = (data..bytes.len()).step_by(cluster).find(|at| bytes[*at..].starts_with(&what[..512])).unwrap();
            assert!(bytes[at..at + what.len()] == *what, "a file lies in pieces");
            at..at + what.len()
        };
        let files: BTreeMap<_, _> = READ
            .into_iter()
            .chain(REPORTS)
            .chain([OTHER])
            .zip(truth)
            .map(|(name, bytes)| (name, (find(&bytes), bytes)))
            .collect();
        let ours =
            (data..bytes.len()).step_by(cluster).find(|at| bytes[*at..].starts_with(b".          \x10")).unwrap();
        let root = if fat32 { data..data + cluster } else { data - root_len..data };
        // What is free looks like a directory of deleted entries, the worst thing to walk into.
        let wide = if fat32 { 4 } else { 2 };
        for n in 0..clusters {
            let entry = table + (n + 2) * wide;
            if bytes[entry..entry + wide].iter().all(|b| *b == 0) {
                let at = data + n * cluster;
                bytes[at..at + cluster]
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, b)| *b = if i % 32 == 0 { 0xE5 } else { 0x20 });
            }
        }
        let directories = vec![root, ours..ours + cluster];
        Base { bytes, wide, cluster, clusters, table, table_len, data, directories, files }
    }

    fn cluster_of(&self, at: usize) -> usize {
        (at - self.data) / self.cluster + 2
    }
}

/// A volume being changed: undone afterwards instead of copied before.
struct Changed<'a> {
    base: &'a Base,
    bytes: Vec<u8>,
    undo: Vec<(usize, u8)>,
    len: usize,
    writes: Vec<Range<usize>>,
}

impl Changed<'_> {
    fn set(&mut self, at: usize, byte: u8) {
        self.undo.push((at, self.bytes[at]));
        self.bytes[at] = byte;
    }

    fn flip(&mut self, rng: &mut Rng, at: usize) {
        let byte = self.bytes[at] ^ (1 << rng.below(8));
        self.set(at, byte);
    }

    /// An entry of both copies of the table, or of one.
    fn entry(&mut self, cluster: usize, value: usize, copies: usize) {
        for copy in 0..copies {
            let at = self.base.table + copy * self.base.table_len + cluster * self.base.wide;
            for i in 0..self.base.wide {
                self.set(at + i, value.to_le_bytes()[i]);
            }
        }
    }

    fn restore(&mut self) {
        for (at, byte) in self.undo.drain(..).rev() {
            self.bytes[at] = byte;
        }
        self.len = self.bytes.len();
        self.writes.clear();
    }

    fn mutate(&mut self, rng: &mut Rng, kind: usize) {
        let base = self.base;
        let n = rng.between(1, 6);
        let files: Vec<_> = base.files.values().map(|f| f.0.clone()).collect();
        let some_cluster = |rng: &mut Rng| {
            let file = &files[rng.below(files.len())];
            base.cluster_of(rng.between(file.start, file.end - 1))
        };
        let directory = |rng: &mut Rng| base.directories[rng.below(2)].clone();
        let end = if base.wide == 2 { 0xFFFF } else { 0x0FFF_FFFF };
        match kind {
            0 => (0..n).for_each(|_| self.flip(rng, rng.clone().below(90))),
            1 => {
                for _ in 0..n {
                    let cluster = some_cluster(rng);
                    let at = base.table + cluster * base.wide + rng.below(base.wide);
                    let bit = 1 << rng.below(8);
                    for copy in 0..rng.between(1, 2) {
                        let at = at + copy * base.table_len;
                        self.set(at, self.bytes[at] ^ bit);
                    }
                }
            }
            2 => {
                for _ in 0..n {
                    let range = directory(rng);
                    self.flip(rng, range.start + rng.clone().below(range.len().min(800)));
                    rng.next();
                }
            }
            3 => {
                let file = &files[rng.below(files.len())];
                let (first, last) = (base.cluster_of(file.start), base.cluster_of(file.end - 1));
                let from = rng.between(first, last);
                self.entry(from, rng.between(first, from), rng.clone().between(1, 3).min(2));
            }
            4 => {
                for _ in 0..n {
                    let (from, to) = (some_cluster(rng), some_cluster(rng));
                    let to = if rng.chance(30) { rng.between(2, base.clusters + 1) } else { to };
                    self.entry(from, if rng.chance(10) { end } else { to }, 2);
                }
            }
            5 => {
                // Directories that lead into themselves or elsewhere, and files that become directories.
                for _ in 0..n {
                    let range = directory(rng);
                    let entry = range.start + 32 * rng.below(24);
                    match rng.below(3) {
                        0 => self.set(entry + 11, rng.pick(&[0, 0x08, 0x0F, 0x10, 0x20, 0x30, 0xFF])),
                        1 => {
                            let to = rng.pick(&[
                                0,
                                1,
                                2,
                                3,
                                base.cluster_of(base.directories[1].start),
                                some_cluster(&mut rng.clone()),
                            ]);
                            self.set(entry + 26, to.to_le_bytes()[0]);
                            self.set(entry + 27, to.to_le_bytes()[1]);
                        }
                        _ => {
                            let own = base.cluster_of(base.directories[1].start);
                            self.entry(own, rng.pick(&[own, 2, 3, some_cluster(&mut rng.clone())]), 2);
                        }
                    }
                    rng.next();
                }
            }
            6 => {
                for _ in 0..n.min(2) {
                    let entry = base.directories[1].start + 32 * rng.below(24);
                    let word = [rng.next() as u32, u32::MAX, 0, 1, 1235, 4096, 0x8000_0000][rng.below(7)];
                    for (i, byte) in word.to_le_bytes().into_iter().enumerate() {
                        self.set(entry + 28 + i, byte);
                    }
                }
            }
            7 => {
                let fields = [
                    (0, 3),
                    (11, 2),
                    (13, 1),
                    (14, 2),
                    (16, 1),
                    (17, 2),
                    (19, 2),
                    (21, 1),
                    (22, 2),
                    (32, 4),
                    (36, 4),
                    (40, 2),
                    (42, 2),
                    (44, 4),
                    (510, 2),
                ];
                for _ in 0..n.min(3) {
                    let (at, len) = fields[rng.below(fields.len())];
                    let word = [0_u64, u64::MAX, 1, 2, rng.next(), 1 << rng.below(32)][rng.below(6)];
                    (0..len).for_each(|i| self.set(at + i, word.to_le_bytes()[i]));
                }
            }
            8 => self.len = if rng.chance(50) { rng.below(self.len) } else { rng.below(base.data + (64 << 10)) },
            9 => {
                for _ in 0..rng.between(2, 4) {
                    let kind = rng.pick(&[0, 1, 2, 3, 4, 5, 6, 7]);
                    self.mutate(rng, kind);
                }
            }
            _ => {
                // Our directory, or the root, goes on through everything that is free.
                let first = match rng.below(2) {
                    0 if base.wide == 4 => 2,
                    _ => base.cluster_of(base.directories[1].start),
                };
                let free: Vec<usize> = (2..base.clusters + 2)
                    .filter(|c| self.bytes[base.table + c * base.wide..][..base.wide].iter().all(|b| *b == 0))
                    .collect();
                let most = rng.between(1, free.len());
                let mut last = first;
                for cluster in &free[..most] {
                    self.entry(last, *cluster, 2);
                    last = *cluster;
                }
                self.entry(last, if rng.chance(50) { first } else { end }, 2);
            }
        }
    }
}

impl Blocks for Changed<'_> {
    fn len(&self) -> u64 {
        self.len as u64
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let from = at.checked_add(buf.len()).filter(|end| *end <= self.len).map(|end| at..end);
        buf.copy_from_slice(&self.bytes[from.ok_or(io::ErrorKind::UnexpectedEof)?]);
        Ok(())
    }
}

impl BlocksMut for Changed<'_> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        assert!(at + bytes.len() <= self.len, "a write past the end");
        self.writes.push(at..at + bytes.len());
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Default, Debug)]
struct Counts {
    images: usize,
    refused: usize,
    right: usize,
    wrong: usize,
    planned: usize,
    elsewhere: usize,
    codes: BTreeMap<&'static str, usize>,
    longest: Duration,
}

const KINDS: [&str; 11] = [
    "boot flips",
    "table flips",
    "directory flips",
    "loops",
    "cross-links",
    "directory loops",
    "sizes",
    "boot fields",
    "truncated",
    "mixture",
    "large directory",
];

/// Processor time of this thread: a loaded machine makes no reader slow.
fn cpu() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

fn try_one(changed: &mut Changed<'_>, seed: u64, kind: usize, counts: &mut Counts) {
    let base = changed.base;
    let begun = cpu();
    counts.images += 1;
    let looked = fat::survey(changed, &Limits::default()).and_then(fat::Survey::one);
    counts.longest = counts.longest.max(cpu() - begun);
    let contents = match looked {
        Ok(contents) => contents,
        Err(refusal) => {
            counts.refused += 1;
            *counts.codes.entry(refusal.code.name()).or_default() += 1;
            assert!(refusal.to_string().contains("; next: "), "{refusal}");
            return;
        }
    };
    let mut right = 0;
    for name in READ {
        let truth = &base.files[name].1;
        let Some(file) = contents.file(name) else { continue };
        let mut bytes = Vec::new();
        let Ok(mut stream) = Stream::new(changed, file, 64 << 20) else { continue };
        if stream.read_to_end(&mut bytes).is_err() {
            continue;
        }
        assert_eq!(bytes.len() as u64, file.size);
        let equal = bytes == *truth;
        assert_eq!(Sha256::digest(&bytes) == Sha256::digest(truth), equal);
        counts.wrong += usize::from(!equal);
        right += usize::from(equal);
    }
    counts.right += usize::from(right == READ.len());
    counts.longest = counts.longest.max(cpu() - begun);
    assert!(cpu() - begun < LONGEST, "seed {seed} ({}): {:?}", KINDS[kind], cpu() - begun);

    let report = [b'x'; 900];
    let Ok(plan) = Overwrite::plan(changed, &contents, &REPORTS.map(|name| (name, report.as_slice()))) else { return };
    counts.planned += 1;
    plan.write(changed).unwrap();
    // To the end of the last cluster: a size that was changed within it is not to be noticed.
    let whole = |r: &Range<usize>| r.start..r.start + r.len().next_multiple_of(base.cluster);
    let own: Vec<_> = REPORTS.iter().map(|name| whole(&base.files[name].0)).collect();
    for write in &changed.writes {
        for name in READ.into_iter().chain([OTHER]) {
            assert!(!overlap(write, &base.files[name].0), "seed {seed} ({}): wrote to {name}", KINDS[kind]);
        }
        let metadata = write.start < base.data || base.directories.iter().any(|d| overlap(write, d));
        assert!(!metadata, "seed {seed} ({}): wrote to a table or directory", KINDS[kind]);
        counts.elsewhere += usize::from(!own.iter().any(|own| own.start <= write.start && write.end <= own.end));
    }
}

fn campaign(images: u64) {
    let bases = [Base::made(false), Base::made(true)];
    let mut changed: Vec<_> = bases
        .iter()
        .map(|base| Changed { base, bytes: base.bytes.clone(), undo: vec![], len: base.bytes.len(), writes: vec![] })
        .collect();
    let mut counts: Vec<Counts> = KINDS.iter().map(|_| Counts::default()).collect();
    for seed in seeds(1, images) {
        let mut rng = Rng::new(seed);
        let kind = (seed % KINDS.len() as u64) as usize;
        let one = &mut changed[usize::from(rng.chance(40))];
        one.mutate(&mut rng, kind);
        try_one(one, seed, kind, &mut counts[kind]);
        one.restore();
    }
    for (base, changed) in bases.iter().zip(&changed) {
        assert!(base.bytes == changed.bytes, "the test did not undo its changes");
    }
    for (kind, c) in KINDS.iter().zip(&counts) {
        println!(
            "{kind}: {} images, {} refused, all right {}, wrong without a hash {}, reports planned {}, writes elsewhere {}, \
             longest {:?}, {:?}",
            c.images, c.refused, c.right, c.wrong, c.planned, c.elsewhere, c.longest, c.codes
        );
    }
    let sum = |f: fn(&Counts) -> usize| counts.iter().map(f).sum::<usize>();
    println!(
        "{} images: {} refused, {} read whole and right, {} files wrong without a hash and none past it, {} written to, no other \
         file touched",
        sum(|c| c.images),
        sum(|c| c.refused),
        sum(|c| c.right),
        sum(|c| c.wrong),
        sum(|c| c.planned)
    );
    if images > 1000 {
        assert!(counts.iter().all(|c| c.refused > 0), "a kind of damage that is never noticed");
        assert!(sum(|c| c.right) > images as usize / 10, "nearly everything is refused");
    }
}

#[test]
fn two_thousand_damaged_volumes() {
    campaign(rounds("IMAGES", 2_200));
}

#[test]
#[ignore = "minutes"]
fn a_hundred_thousand_damaged_volumes() {
    campaign(rounds("IMAGES", 110_000));
}
