//! Injuries to a database and its side files: each is one line, seeded where it is random, and can be applied again
//! from that line.
//!
//! ```text
//! FILE TARGET CHANGE
//!
//! FILE     db | wal | shm | journal
//! TARGET   (nothing: the whole file) | @AT+LEN | @-AT+LEN (from the end)
//!          header FIELD                         the database's, the log's, the index's, the journal's own header
//!          page PAGE [FIELD | +AT+LEN | cell N FIELD | leaf N | entry N FIELD]
//!          frame N [FIELD | +AT+LEN]            N from 1; `last`; `commit:N` the N-th commit frame; -N from the end
//!          record N [FIELD]                     of a rollback journal, from 0
//! PAGE     7 | last | root:NAME | interior:NAME:N | leaf:NAME:N | overflow:NAME:N | trunk:N | free:N | map:N
//! CHANGE   zero | ones | random SEED | flip BIT[,BIT…] | = NUMBER | = page:PAGE | = hex:BYTES | add NUMBER | shift NUMBER
//!          from TARGET | swap TARGET | old | cut | remove | empty | extend BYTES zero|random SEED | seal
//! ```
//!
//! Targets are found in the files as they were before the first injury, so that several injuries can stand in any
//! order. `old` puts back what stood there in an earlier state of the same files (a write that never arrived; with half
//! a page as target, a torn page). `cut` ends the file at the start of the target. `seal` makes the checksums of a log or
//! an index true again, so that what they cover is reached.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use super::crash::{Files, side};
use super::rng::Rng;
use super::{engine, wal};

/// The files by the word that names them.
pub const FILES: [(&str, &str); 4] = [("db", ""), ("wal", "-wal"), ("shm", "-shm"), ("journal", "-journal")];

/// A database and its side files, by the words of [`FILES`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(pub BTreeMap<String, Vec<u8>>);

impl Set {
    pub fn read(db: &Path) -> Self {
        let read = |(word, suffix): &(&str, &str)| Some(((*word).to_owned(), std::fs::read(side(db, suffix)).ok()?));
        Self(FILES.iter().filter_map(read).collect())
    }

    pub fn write(&self, db: &Path) {
        for (word, suffix) in FILES {
            match self.0.get(word) {
                Some(bytes) => std::fs::write(side(db, suffix), bytes).unwrap(),
                None => drop(std::fs::remove_file(side(db, suffix))),
            }
        }
    }

    pub fn file(&self, word: &str) -> &[u8] {
        self.0.get(word).map_or(&[], Vec::as_slice)
    }
}

impl From<Files> for Set {
    fn from(files: Files) -> Self {
        let all = [("db", Some(files.db)), ("wal", files.wal), ("shm", files.shm)];
        Self(all.into_iter().filter_map(|(word, bytes)| Some((word.to_owned(), bytes?))).collect())
    }
}

/// The files before the first injury, an earlier state of them, and where everything in them stands.
pub struct Base {
    pub files: Set,
    pub old: Set,
    page_size: usize,
    /// Name, kind (`interior`, `leaf`, `overflow`), page number; in the order of keys.
    pages: Vec<(String, String, u32)>,
    trunks: Vec<u32>,
    free: Vec<u32>,
    auto_vacuum: bool,
    log: Option<wal::Wal>,
}

impl Base {
    pub fn new(files: Set, old: Set) -> Self {
        let (db, log) = (files.file("db"), wal::Wal::read(files.file("wal")));
        let header_size = (db.len() >= 100).then(|| match usize::from(be(&db[16..18]) as u16) {
            1 => 65536,
            size => size,
        });
        let page_size = header_size.or(log.as_ref().map(|l| l.page_size)).unwrap_or(4096);
        let pages = engine::pages(&files);
        let (mut trunks, mut free) = (Vec::new(), Vec::new());
        let mut next = if db.len() >= 100 { be(&db[32..36]) as u32 } else { 0 };
        while let Some(trunk) = super::page::page(db, page_size, next) {
            if trunks.contains(&next) {
                break;
            }
            trunks.push(next);
            let count = (be(&trunk[4..8]) as usize).min(page_size / 4 - 2);
            free.extend((0..count).map(|i| wal::be32(trunk, 8 + 4 * i)));
            next = wal::be32(trunk, 0);
        }
        let auto_vacuum = db.len() >= 100 && be(&db[52..56]) != 0;
        Self { files, old, page_size, pages, trunks, free, auto_vacuum, log }
    }

    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// Pages of a tree of one kind, in the order of keys; every tree where `name` is empty.
    pub fn tree(&self, name: &str, kind: &str) -> Vec<u32> {
        let wanted = |p: &&(String, String, u32)| (name.is_empty() || p.0 == name) && p.1 == kind;
        self.pages.iter().filter(wanted).map(|p| p.2).collect()
    }

    fn page_number(&self, word: &str) -> Result<u32, String> {
        let parts: Vec<&str> = word.split(':').collect();
        let nth = |list: &[u32], n: &str| {
            let n: usize = n.parse().map_err(|_| format!("{word}: {n} is not a number"))?;
            list.get(n).copied().ok_or(format!("{word}: there are {}", list.len()))
        };
        match parts.as_slice() {
            ["last"] => Ok((self.files.file("db").len() / self.page_size) as u32),
            ["root", name] => {
                let first = self.pages.iter().find(|p| p.0 == *name).map(|p| p.2);
                first.ok_or(format!("{word}: there is no such tree"))
            }
            ["trunk", n] => nth(&self.trunks, n),
            ["free", n] => nth(&self.free, n),
            ["map", n] => {
                let per_map = self.page_size as u32 / 5 + 1;
                n.parse::<u32>().map(|n| 2 + n * per_map).map_err(|e| e.to_string())
            }
            [kind, name, n] => nth(&self.tree(name, kind), n),
            [number] => number.parse().map_err(|_| format!("{number} is not a page")),
            _ => Err(format!("{word} is not a page")),
        }
    }

    fn frame_number(&self, word: &str) -> Result<usize, String> {
        let log = self.log.as_ref().ok_or("there is no log")?;
        let commits: Vec<usize> = (0..log.committed).filter(|i| log.slots[*i].commit != 0).collect();
        let number = match word.split_once(':') {
            Some(("commit", n)) => n.parse::<usize>().ok().and_then(|n| commits.get(n.checked_sub(1)?)).map(|i| i + 1),
            _ if word == "last" => Some(log.committed),
            _ => match word.parse::<i64>() {
                Ok(n) if n < 0 => (log.committed as i64 + n).try_into().ok(),
                Ok(n) => n.try_into().ok(),
                Err(_) => None,
            },
        };
        let fits = |n: &usize| (1..=log.slots.len()).contains(n);
        number.filter(fits).ok_or(format!("there is no frame {word} among {}", log.slots.len()))
    }

    /// Where a target stands in its file.
    fn place(&self, file: &str, target: &[&str]) -> Result<Range<usize>, String> {
        let len = self.files.file(file).len();
        let range = match target {
            [] => 0..len,
            [at] if at.starts_with('@') => part(at.trim_start_matches('@'), 0, len)?,
            ["header", name] => field(header_fields(file), name, 0)?,
            ["page", page, rest @ ..] => {
                let at = (self.page_number(page)? as usize).saturating_sub(1) * self.page_size;
                self.in_page(at, rest)?
            }
            ["frame", frame, rest @ ..] => {
                let size = 24 + self.page_size;
                let at = 32 + (self.frame_number(frame)? - 1) * size;
                match rest {
                    [] => at..at + size,
                    ["image"] => at + 24..at + size,
                    [part_of] if part_of.starts_with('+') => part(part_of, at, at + size)?,
                    [name] => field(&FRAME, name, at)?,
                    _ => return Err(format!("{rest:?} is no part of a frame")),
                }
            }
            ["record", n, rest @ ..] => {
                let head = self.files.file("journal");
                let sector = if head.len() >= 28 { be(&head[20..24]) as usize } else { 512 };
                let n: usize = n.parse().map_err(|_| format!("{n} is not a number"))?;
                let at = sector + n * (self.page_size + 8);
                match rest {
                    [] => at..at + self.page_size + 8,
                    ["page"] => at..at + 4,
                    ["image"] => at + 4..at + 4 + self.page_size,
                    ["sum"] => at + 4 + self.page_size..at + 8 + self.page_size,
                    _ => return Err(format!("{rest:?} is no part of a record")),
                }
            }
            _ => return Err(format!("{target:?} is not a target")),
        };
        if range.end <= len { Ok(range) } else { Err(format!("{target:?} ends behind the end of {file}")) }
    }

    fn in_page(&self, page: usize, rest: &[&str]) -> Result<Range<usize>, String> {
        let at = if page == 0 { 100 } else { page };
        let end = page + self.page_size;
        let number = |n: &str| n.parse::<usize>().map_err(|_| format!("{n} is not a number"));
        match rest {
            [] => Ok(page..end),
            [part_of] if part_of.starts_with('+') => part(part_of, page, end),
            ["leaf", n] => Ok(page + 8 + 4 * number(n)?..page + 12 + 4 * number(n)?),
            ["next"] => Ok(page..page + 4),
            ["count"] => Ok(page + 4..page + 8),
            ["entry", n, "kind"] => Ok(page + 5 * number(n)?..page + 5 * number(n)? + 1),
            ["entry", n, "parent"] => Ok(page + 5 * number(n)? + 1..page + 5 * number(n)? + 5),
            [name] => field(&PAGE, name, at),
            ["cell", n, name] => self.in_cell(page, at, number(n)?, name),
            _ => Err(format!("{rest:?} is no part of a page")),
        }
    }

    fn in_cell(&self, page: usize, at: usize, n: usize, name: &str) -> Result<Range<usize>, String> {
        let db = self.files.file("db");
        let bytes = db.get(page..page + self.page_size).ok_or("there is no such page")?;
        let (kind, head) = (bytes[at - page], at - page);
        let leaf = matches!(kind, 10 | 13);
        let pointer = head + if leaf { 8 } else { 12 } + 2 * n;
        if n >= be(&bytes[head + 3..head + 5]) as usize {
            return Err(format!("there is no cell {n}"));
        }
        if name == "pointer" {
            return Ok(page + pointer..page + pointer + 2);
        }
        let cell = be(&bytes[pointer..pointer + 2]) as usize;
        let mut cursor = cell;
        let mut found = BTreeMap::new();
        if !leaf {
            found.insert("child", cursor..cursor + 4);
            cursor += 4;
        }
        let mut size = 0;
        if kind != 5 {
            let (value, len) = varint(bytes, cursor).ok_or("no size")?;
            found.insert("size", cursor..cursor + len);
            size = value as usize;
            cursor += len;
        }
        if matches!(kind, 5 | 13) {
            let (_, len) = varint(bytes, cursor).ok_or("no rowid")?;
            found.insert("rowid", cursor..cursor + len);
            cursor += len;
        }
        let most = if kind == 13 { self.page_size - 35 } else { (self.page_size - 12) * 64 / 255 - 23 };
        let least = (self.page_size - 12) * 32 / 255 - 23;
        let mut local = size;
        if size > most {
            let fit = least + (size - least) % (self.page_size - 4);
            local = if fit <= most { fit } else { least };
            found.insert("overflow", cursor + local..cursor + local + 4);
        }
        if kind != 5 {
            found.insert("record", cursor..cursor + 1);
            found.insert("type", cursor + 1..cursor + 2);
            let header = usize::from(bytes[cursor]).min(local);
            found.insert("body", cursor + header..cursor + local);
        }
        let range = found.get(name).cloned().ok_or(format!("a cell of kind {kind} has no {name}"))?;
        Ok(page + range.start..page + range.end)
    }
}

type Fields = [(&'static str, usize, usize)];

const DATABASE: [(&str, usize, usize); 23] = [
    ("magic", 0, 16),
    ("page-size", 16, 2),
    ("write-version", 18, 1),
    ("read-version", 19, 1),
    ("reserved", 20, 1),
    ("max-fraction", 21, 1),
    ("min-fraction", 22, 1),
    ("leaf-fraction", 23, 1),
    ("change-counter", 24, 4),
    ("pages", 28, 4),
    ("freelist-head", 32, 4),
    ("freelist-count", 36, 4),
    ("schema-cookie", 40, 4),
    ("schema-format", 44, 4),
    ("cache-size", 48, 4),
    ("largest-root", 52, 4),
    ("encoding", 56, 4),
    ("user-version", 60, 4),
    ("incremental-vacuum", 64, 4),
    ("application-id", 68, 4),
    ("expansion", 72, 20),
    ("valid-for", 92, 4),
    ("writer", 96, 4),
];
const LOG: [(&str, usize, usize); 6] =
    [("magic", 0, 4), ("version", 4, 4), ("page-size", 8, 4), ("sequence", 12, 4), ("salt", 16, 8), ("sum", 24, 8)];
const INDEX: [(&str, usize, usize); 7] = [
    ("first", 0, 48),
    ("second", 48, 48),
    ("max-frame", 16, 4),
    ("pages", 20, 4),
    ("salt", 32, 8),
    ("sum", 40, 8),
    ("backfilled", 96, 4),
];
const JOURNAL: [(&str, usize, usize); 7] = [
    ("all", 0, 28),
    ("magic", 0, 8),
    ("count", 8, 4),
    ("nonce", 12, 4),
    ("pages", 16, 4),
    ("sector", 20, 4),
    ("page-size", 24, 4),
];
const PAGE: [(&str, usize, usize); 7] = [
    ("all", 0, 8),
    ("kind", 0, 1),
    ("freeblock", 1, 2),
    ("cells", 3, 2),
    ("content", 5, 2),
    ("fragments", 7, 1),
    ("right", 8, 4),
];
const FRAME: [(&str, usize, usize); 5] =
    [("header", 0, 24), ("page", 0, 4), ("commit", 4, 4), ("salt", 8, 8), ("sum", 16, 8)];

fn header_fields(file: &str) -> &'static Fields {
    match file {
        "db" => &DATABASE,
        "wal" => &LOG,
        "shm" => &INDEX,
        _ => &JOURNAL,
    }
}

fn field(fields: &Fields, name: &str, at: usize) -> Result<Range<usize>, String> {
    let found = fields.iter().find(|f| f.0 == name);
    found.map(|f| at + f.1..at + f.1 + f.2).ok_or(format!("there is no field {name}"))
}

/// `+AT+LEN` or `AT+LEN` behind `start`; a negative `AT` counts from `end`.
fn part(text: &str, start: usize, end: usize) -> Result<Range<usize>, String> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let bad = || format!("{text} is not AT+LEN");
    let (at, len) = text.split_once('+').ok_or_else(bad)?;
    let (at, len): (i64, usize) = (at.parse().map_err(|_| bad())?, len.parse().map_err(|_| bad())?);
    let from = if at < 0 { end as i64 + at } else { start as i64 + at };
    let from = usize::try_from(from).map_err(|_| bad())?;
    Ok(from..from + len)
}

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0;
    for n in 0..9 {
        let byte = *bytes.get(at + n)?;
        if n == 8 {
            return Some((value << 8 | u64::from(byte), 9));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, n + 1));
        }
    }
    None
}

const CHANGES: [&str; 15] = [
    "zero", "ones", "random", "flip", "=", "add", "shift", "from", "swap", "old", "cut", "remove", "empty", "extend",
    "seal",
];

/// One injury: its line, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injury {
    file: String,
    target: Vec<String>,
    change: Vec<String>,
}

impl FromStr for Injury {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let file = words.first().filter(|w| FILES.iter().any(|f| f.0 == w.as_str()));
        let file = file.ok_or(format!("{line}: begins with none of db, wal, shm, journal"))?.clone();
        let at = words.iter().position(|w| CHANGES.contains(&w.as_str())).ok_or(format!("{line}: changes nothing"))?;
        Ok(Self { file, target: words[1..at].to_vec(), change: words[at..].to_vec() })
    }
}

impl fmt::Display for Injury {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [std::slice::from_ref(&self.file), &self.target, &self.change].concat();
        f.write_str(&words.join(" "))
    }
}

impl Injury {
    /// Applies it to `set`, which began as the files of `base`.
    pub fn apply(&self, set: &mut Set, base: &Base) -> Result<(), String> {
        let target: Vec<&str> = self.target.iter().map(String::as_str).collect();
        let number_of = |word: &String| match word.strip_prefix("page:") {
            Some(page) => base.page_number(page).map(|n| n.to_string()),
            None => Ok(word.clone()),
        };
        let change = self.change.iter().map(number_of).collect::<Result<Vec<_>, _>>()?;
        let change: Vec<&str> = change.iter().map(String::as_str).collect();
        let tell = |why: String| format!("{self}: {why}");
        if let ["remove"] = change.as_slice() {
            return set.0.remove(&self.file).map(drop).ok_or(tell("there is no such file".into()));
        }
        if let (["old"], []) = (change.as_slice(), target.as_slice()) {
            match base.old.0.get(&self.file) {
                Some(bytes) => set.0.insert(self.file.clone(), bytes.clone()),
                None => set.0.remove(&self.file),
            };
            return Ok(());
        }
        let place = base.place(&self.file, &target).map_err(tell)?;
        let bytes = set.0.get_mut(&self.file).ok_or(tell("there is no such file".into()))?;
        match change.as_slice() {
            ["empty"] => bytes.clear(),
            ["cut"] => bytes.truncate(place.start),
            ["extend", len, how, rest @ ..] => {
                let mut more = vec![0; number(len).map_err(tell)? as usize];
                if *how == "random" {
                    let seed = rest.first().ok_or(tell("random needs a seed".into()))?;
                    Rng::new(number(seed).map_err(tell)? as u64).fill(&mut more);
                }
                bytes.extend_from_slice(&more);
            }
            ["seal"] => seal(&self.file, bytes),
            ["swap" | "from", other @ ..] => {
                let other = base.place(&self.file, other).map_err(tell)?;
                if other.len() != place.len() || other.end > bytes.len() || place.end > bytes.len() {
                    return Err(tell("the two places are not of the same length".into()));
                }
                let (mine, theirs) = (bytes[place.clone()].to_vec(), bytes[other.clone()].to_vec());
                bytes[place].copy_from_slice(&theirs);
                if change[0] == "swap" {
                    bytes[other].copy_from_slice(&mine);
                }
            }
            ["old"] => {
                let old = base.old.file(&self.file).get(place.clone()).map(<[u8]>::to_vec);
                let old = old.unwrap_or_else(|| vec![0; place.len()]);
                bytes.get_mut(place).ok_or(tell("it was cut".into()))?.copy_from_slice(&old);
            }
            change => {
                alter(bytes.get_mut(place).ok_or(tell("it was cut".into()))?, change, &self.file).map_err(tell)?
            }
        }
        Ok(())
    }
}

fn number(text: &str) -> Result<i64, String> {
    let hex = text.strip_prefix("0x").map(|digits| i64::from_str_radix(digits, 16));
    hex.unwrap_or_else(|| text.parse()).map_err(|_| format!("{text} is not a number"))
}

/// Changes that need nothing but the bytes themselves. Numbers are big-endian, in an index as this machine has them.
fn alter(bytes: &mut [u8], change: &[&str], file: &str) -> Result<(), String> {
    let native = file == "shm";
    match change {
        ["zero"] => bytes.fill(0),
        ["ones"] => bytes.fill(0xff),
        ["random", seed] => Rng::new(number(seed)? as u64).fill(bytes),
        ["flip", bits] => {
            for bit in bits.split(',') {
                let bit = number(bit)? as usize;
                *bytes.get_mut(bit / 8).ok_or(format!("there is no bit {bit}"))? ^= 1 << (bit % 8);
            }
        }
        ["shift", by] => {
            let by = number(by)?.rem_euclid(bytes.len().max(1) as i64) as usize;
            bytes.rotate_right(by);
        }
        ["=", value] if value.starts_with("hex:") => {
            let digits = &value[4..];
            let put: Option<Vec<u8>> =
                (0..digits.len() / 2).map(|i| u8::from_str_radix(digits.get(2 * i..2 * i + 2)?, 16).ok()).collect();
            let put = put.filter(|p| p.len() <= bytes.len()).ok_or(format!("{value} does not fit"))?;
            bytes[..put.len()].copy_from_slice(&put);
        }
        ["=" | "add", value] => {
            let width = bytes.len();
            if width == 0 || width > 8 {
                return Err(format!("a number does not fit into {width} bytes"));
            }
            let mut value = number(value)? as u64;
            if change[0] == "add" {
                let mut now = bytes.to_vec();
                if native {
                    now.reverse();
                }
                value = value.wrapping_add(be(&now));
            }
            bytes.copy_from_slice(&value.to_be_bytes()[8 - width..]);
            if native {
                bytes.reverse();
            }
        }
        other => return Err(format!("{other:?} is not a change")),
    }
    Ok(())
}

/// Makes checksums true again: of a log's header and of as many slots as it has, of an index's two headers.
fn seal(file: &str, bytes: &mut [u8]) {
    if file == "wal" && bytes.len() >= 32 {
        let (size, big_endian) = (wal::be32(bytes, 8) as usize, bytes[3] & 1 == 1);
        let version = bytes[4..8].to_vec();
        wal::rechecksum(bytes, big_endian, (bytes.len() - 32) / (24 + size));
        assert_eq!(version, bytes[4..8]);
    }
    if file == "shm" && bytes.len() >= 96 {
        let (s0, s1) = wal::sum(cfg!(target_endian = "big"), (0, 0), &bytes[..40]);
        bytes[40..44].copy_from_slice(&s0.to_ne_bytes());
        bytes[44..48].copy_from_slice(&s1.to_ne_bytes());
        bytes.copy_within(..48, 48);
    }
}

/// Applies lines in order.
pub fn apply<'a>(lines: impl IntoIterator<Item = &'a str>, base: &Base) -> Result<Set, String> {
    let mut set = base.files.clone();
    for line in lines {
        line.parse::<Injury>()?.apply(&mut set, base)?;
    }
    Ok(set)
}

/// An injury drawn at random, of any kind that fits the files; always one that [`Injury::apply`] accepts.
pub fn random(rng: &mut Rng, base: &Base) -> Injury {
    let names: Vec<&str> = base.files.0.iter().filter(|(_, b)| !b.is_empty()).map(|(n, _)| n.as_str()).collect();
    assert!(!names.is_empty(), "nothing to injure");
    loop {
        let file = if rng.chance(70) { "db" } else { rng.pick(&names) };
        let line = match rng.below(10) {
            0..=5 => anywhere(rng, file, base),
            _ => by_field(rng, file, base),
        };
        let injury: Injury = format!("{file} {line}").parse().unwrap();
        if injury.apply(&mut base.files.clone(), base).is_ok() {
            return injury;
        }
    }
}

/// Bits, bytes, sectors, pages, lengths: what storage does to a file without knowing what is in it.
fn anywhere(rng: &mut Rng, file: &str, base: &Base) -> String {
    let len = base.files.file(file).len().max(1);
    let at = rng.below(len);
    let sector = rng.pick(&[512, 512, 4096, base.page_size]);
    let (a, b) = (rng.below(len / sector) * sector, rng.below(len / sector) * sector);
    let seed = rng.below(1 << 30);
    match rng.below(14) {
        0 => format!("@{at}+1 flip {}", rng.below(8)),
        1 => {
            let bits: Vec<String> = (0..rng.between(2, 4)).map(|_| rng.below(len * 8).to_string()).collect();
            format!("flip {}", bits.join(","))
        }
        2 => format!("@{at}+1 = {}", rng.below(256)),
        3 => format!("@{at}+{} random {seed}", rng.between(2, 64).min(len - at)),
        4 => format!("@{a}+{sector} zero"),
        5 => format!("@{a}+{sector} random {seed}"),
        6 => format!("@{a}+{sector} ones"),
        7 => format!("@{a}+{sector} from @{b}+{sector}"),
        8 => format!("@{a}+{sector} swap @{b}+{sector}"),
        9 => format!("@{a}+{sector} shift {}", rng.pick(&[-1, 1, 4, 8, 16, 512])),
        10 => format!("@{a}+{sector} old"),
        // A torn page: one half of it is what stood there before.
        11 => {
            let page = rng.below(len / base.page_size) * base.page_size;
            let half = (rng.below(base.page_size / 512) * 512).max(256);
            format!("@{}+{} {}", page + half, base.page_size - half, rng.pick(&["old", "zero"]))
        }
        12 => format!("@{}+0 cut", if rng.chance(50) { at } else { a }),
        _ => format!(
            "extend {} {}",
            rng.pick(&[1, 512, 4096]),
            if rng.chance(50) { "zero".into() } else { format!("random {seed}") }
        ),
    }
}

/// Damage where the format has a field, with values that mean something there.
fn by_field(rng: &mut Rng, file: &str, base: &Base) -> String {
    let value = |rng: &mut Rng| -> String {
        match rng.below(6) {
            0 => "zero".into(),
            1 => "ones".into(),
            2 => format!("add {}", rng.pick(&[1, -1, 2, 100])),
            3 => format!("= {}", rng.below(64)),
            4 => format!("flip {}", rng.below(8)),
            _ => format!("random {}", rng.below(1 << 30)),
        }
    };
    let any = |rng: &mut Rng, fields: &Fields| fields[rng.below(fields.len())].0;
    if rng.chance(25) {
        return format!("header {} {}", any(rng, header_fields(file)), value(rng));
    }
    match file {
        "wal" => {
            let frames = base.log.as_ref().map_or(0, |l| l.slots.len());
            let frame = 1 + rng.below(frames);
            match rng.below(5) {
                0 => format!("frame {frame} image {}", rng.pick(&["zero", "shift 8", "random 7"])),
                1 => format!("frame {frame} swap frame {}", 1 + rng.below(frames)),
                2 => format!("frame {frame} from frame {}", 1 + rng.below(frames)),
                _ => format!("frame {frame} {} {}", any(rng, &FRAME), value(rng)),
            }
        }
        "shm" if rng.chance(50) => format!("header {} {} ", rng.pick(&["max-frame", "backfilled"]), value(rng)),
        "journal" => format!("record {} {} {}", rng.below(8), rng.pick(&["page", "image", "sum"]), value(rng)),
        "db" => {
            let pages = base.files.file(file).len() / base.page_size;
            let page = 1 + rng.below(pages);
            let cell = rng.below(8);
            match rng.below(12) {
                0 | 1 => format!("page {page} {} {}", any(rng, &PAGE), value(rng)),
                2 => format!("page {page} cell {cell} pointer {}", value(rng)),
                3 => format!("page {page} cell {cell} size {}", value(rng)),
                4 => format!("page {page} cell {cell} rowid {}", value(rng)),
                5 => format!("page {page} cell {cell} child = {}", rng.below(pages + 2)),
                6 => format!("page {page} cell {cell} overflow = {}", rng.below(pages + 2)),
                7 => format!("page {page} cell {cell} {} {}", rng.pick(&["record", "type"]), value(rng)),
                8 => format!("page {page} cell {cell} body {}", rng.pick(&["zero", "shift 1", "flip 3"])),
                9 if !base.trunks.is_empty() => {
                    let trunk = rng.below(base.trunks.len());
                    let leaf = format!("leaf {}", rng.below(4));
                    let what = [leaf.as_str(), "next", "count"][rng.below(3)].to_owned();
                    format!("page trunk:{trunk} {what} = {}", rng.below(pages + 2))
                }
                10 if base.auto_vacuum => {
                    format!("page map:0 entry {} {} {}", rng.below(pages), rng.pick(&["kind", "parent"]), value(rng))
                }
                _ => format!("page {page} swap page {}", 1 + rng.below(pages)),
            }
        }
        _ => value(rng),
    }
}
