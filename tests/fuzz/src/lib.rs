//! Fuzz targets over everything that reads bytes from outside, and what each of them promises.
//!
//! A target is a function over bytes. It does not merely survive: it checks what the reader promises (bounds on memory,
//! reads and work, the same answer twice, agreement with an independent reader or the real engine) and panics when a
//! promise is broken. libFuzzer drives the targets for as long as one likes (`run.sh`); `tests/fuzz_short.rs` drives the
//! same functions over the kept inputs with a small mutator, on every run of the tests.
//!
//! This file is compiled twice: as the library of this package, and as a module of `tests/fuzz_short.rs`.

pub mod archive;
pub mod bytes;
pub mod database;
pub mod journal;
pub mod log;
pub mod meter;
pub mod salvage;
pub mod seeds;
pub mod stick;
pub mod ticket;
pub mod words;

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Name, also of its directory of kept inputs.
    pub name: &'static str,
    /// Longest input that is of use.
    pub max_len: usize,
    /// Peak of live heap bytes that one run may reach: a bound per input byte, and a constant.
    pub heap: (usize, usize),
    /// The function.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "header", max_len: 128, heap: (4, 4 << 10), run: bytes::header },
    Target { name: "page", max_len: 4112, heap: (64, 16 << 10), run: bytes::page },
    Target { name: "record", max_len: 1024, heap: (64, 4 << 10), run: bytes::record },
    Target { name: "superblock", max_len: 2048, heap: (16, 16 << 10), run: bytes::superblock },
    Target { name: "wal", max_len: 5120, heap: (64, 4 << 20), run: log::wal },
    Target { name: "journal", max_len: 6144, heap: (64, 64 << 10), run: journal::journal },
    Target { name: "shm", max_len: 4096, heap: (64, 1 << 20), run: log::shm },
    Target { name: "file", max_len: 6144, heap: (64, 4 << 20), run: database::file },
    Target { name: "engine", max_len: 6144, heap: (64, 4 << 20), run: database::engine },
    Target { name: "salvage", max_len: 6144, heap: (96, 4 << 20), run: salvage::run },
    Target { name: "sql", max_len: 512, heap: (512, 64 << 10), run: words::sql },
    Target { name: "slots", max_len: 2048, heap: (64, 64 << 10), run: words::slots },
    Target { name: "records", max_len: 2048, heap: (64, 64 << 10), run: words::records },
    Target { name: "config", max_len: 4096, heap: (512, 256 << 10), run: words::config },
    Target { name: "cmdline", max_len: 1024, heap: (64, 64 << 10), run: words::cmdline },
    Target { name: "ticket", max_len: 4096, heap: (512, 256 << 10), run: ticket::ticket },
    Target { name: "archive", max_len: 16384, heap: (512, 1 << 20), run: archive::archive },
    Target { name: "evidence", max_len: 16384, heap: (512, 256 << 10), run: words::evidence },
    Target { name: "fat", max_len: stick::LEN, heap: (64, 8 << 20), run: stick::fat },
];

/// The target of a name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}

/// Runs a target on one input and holds it to its memory bound.
pub fn run(target: &Target, data: &[u8]) {
    let data = data.get(..target.max_len).unwrap_or(data);
    let peak = meter::peak(|| (target.run)(data));
    let bound = target.heap.0 * data.len() + target.heap.1;
    assert!(peak <= bound, "{}: {peak} bytes of heap for {} bytes of input, bound {bound}", target.name, data.len());
}
