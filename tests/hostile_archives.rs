//! Archives that somebody made to harm: each named after its attack, each refused with its own code, nothing written outside
//! of the staging directory and nothing changed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::collections::BTreeSet;
use std::io::Write;

use pyvorin_recovery::edge::linux::LinuxMachine;
use rusqlite::Connection;
use serde_json::{Value, json};
use support::archive::{Desk, archives, desk, filled, frame, header, member, sealed, sha256, text};
use support::rng::Rng;
use support::site::changed;

/// A store of a few rows, as one file.
fn database(sql: &str) -> Vec<u8> {
    let scratch = support::site::Scratch::new("hostile");
    let path = scratch.path().join("x.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(sql).unwrap();
    conn.close().unwrap();
    std::fs::read(&path).unwrap()
}

const PLAIN: &str =
    "CREATE TABLE readings (id INTEGER PRIMARY KEY, value REAL); INSERT INTO readings VALUES (1, 1.5), (2, 2.5);";

/// What stands in an honest archive: the manifest's bytes come from `manifest`, so that each part can be bent.
struct Parts {
    manifest: Value,
    store: Vec<u8>,
}

/// An honest archive's parts, taken from a real backup of the store.
fn honest(desk: &Desk) -> Parts {
    let store = database(PLAIN);
    std::fs::write(desk.site.db(), &store).unwrap();
    let run = desk.site.run(&["backup", "create", "--full"]);
    assert!(run.code & !4 == 0, "{}", run.stderr);
    let archive = archives(&desk.site).pop().unwrap();
    let decryptor = age::Decryptor::new(&*std::fs::read(&archive).unwrap().leak()).unwrap();
    let plain = decryptor.decrypt(std::iter::once(&desk.operations as &dyn age::Identity)).unwrap();
    let tar = zstd::decode_all(plain).unwrap();
    let len = usize::from_str_radix(std::str::from_utf8(&tar[124..135]).unwrap(), 8).unwrap();
    let manifest: Value = serde_json::from_slice(&tar[512..512 + len]).unwrap();
    for path in archives(&desk.site) {
        std::fs::remove_file(path).unwrap();
    }
    Parts { manifest, store }
}

impl Parts {
    fn manifest(&self) -> Vec<u8> {
        member("manifest.json", self.manifest.to_string().as_bytes())
    }

    fn with(&self, change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut manifest = self.manifest.clone();
        change(&mut manifest);
        member("manifest.json", manifest.to_string().as_bytes())
    }

    fn store(&self) -> Vec<u8> {
        member("data/edge_store.db", &self.store)
    }

    /// An archive of another database, with a manifest that says the truth of it.
    fn of(&self, bytes: &[u8]) -> Vec<u8> {
        self.saying(bytes, |_| {})
    }

    /// The same, with the truth about its schema and rows too: whoever makes one need not lie.
    fn true_of(&self, bytes: &[u8]) -> Vec<u8> {
        let scratch = support::site::Scratch::new("true");
        let path = scratch.path().join("x.db");
        std::fs::write(&path, bytes).unwrap();
        let look = LinuxMachine::new(Vec::new(), Box::new(|_| {}));
        let facts = pyvorin_recovery::backup::facts::of(&look, &path, "edge_store").unwrap();
        self.saying(bytes, |d| {
            d["rows"] = json!(facts.rows);
            d["schema_sha256"] = json!(facts.schema_sha256);
        })
    }

    fn saying(&self, bytes: &[u8], more: impl FnOnce(&mut Value)) -> Vec<u8> {
        let manifest = self.with(|m| {
            more(&mut m["files"][0]["database"]);
            let file = &mut m["files"][0];
            file["len"] = json!(bytes.len());
            file["sha256"] = json!(sha256(bytes));
            file["database"]["len"] = file["len"].clone();
            file["database"]["sha256"] = file["sha256"].clone();
        });
        tar(&[manifest, member("data/edge_store.db", bytes)])
    }
}

fn tar(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut all = parts.concat();
    all.extend_from_slice(&[0; 1024]);
    all
}

fn bent(name: &str, bytes: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    filled(header(name, bytes.len() as u64, change), bytes)
}

/// A frame whose header asks for a window of `1 << log` bytes (RFC 8878, section 3.1.1.1.2).
fn window(log: u8) -> Vec<u8> {
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, (log - 10) << 3];
    bytes.extend_from_slice(&[0x01, 0x00, 0x00]);
    bytes
}

/// Every attack: its name, the bytes, and the code with which it is refused.
fn attacks(desk: &Desk, p: &Parts) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let to = [desk.operations.to_public()];
    let stranger = age::x25519::Identity::generate().to_public();
    let age = |bytes: &[u8]| sealed(bytes, &to);
    let whole = |parts: &[Vec<u8>]| age(&frame(&tar(parts)));
    let (m, s) = (p.manifest(), p.store());
    let good = whole(&[m.clone(), s.clone()]);
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let payload = good.windows(5).position(|w| w == b"\n--- ").unwrap() + 50;
    let mut cut_header = good.clone();
    cut_header.truncate(60);
    let mut long_header = b"age-encryption.org/v1\n".to_vec();
    (0..3000).for_each(|_| {
        long_header.extend_from_slice(b"-> X25519 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\nbbbbbbbbbbbbbbbbbbbb\n")
    });
    let file = |change: &dyn Fn(&mut Value)| p.with(|m| change(&mut m["files"][0]));
    let pax = b"30 mtime=1700000000.123456789\n";
    let odd = |name: &'static str| whole(&[m.clone(), member(name, &p.store)]);
    let kind = |flag: u8| whole(&[m.clone(), bent("data/edge_store.db", &p.store, |h| h[156] = flag)]);
    let bomb = {
        let mut encoder = zstd::Encoder::new(Vec::new(), 19).unwrap();
        let many = p.with(|m| {
            for n in 0..64 {
                let name = format!("config/{n}");
                let file = json!({ "name": name, "kind": "config", "len": (1_u64 << 33) - 1, "sha256": sha256(b"") });
                m["files"].as_array_mut().unwrap().push(file);
            }
        });
        encoder.write_all(&many).unwrap();
        encoder.write_all(&p.store()).unwrap();
        encoder.write_all(&header("config/0", (1 << 33) - 1, |_| {})).unwrap();
        let zeroes = vec![0; 1 << 20];
        (0..64).for_each(|_| encoder.write_all(&zeroes).unwrap());
        encoder.finish().unwrap()
    };
    let garbage = {
        let mut bytes = vec![0; 4000];
        Rng::new(5).fill(&mut bytes);
        bytes
    };
    let other_rows = database(
        "CREATE TABLE readings (id INTEGER PRIMARY KEY, value REAL); INSERT INTO readings VALUES (1, 1.5), (2, 2.5), (3, 0.0);",
    );
    let trigger =
        database(&format!("{PLAIN} CREATE TRIGGER t AFTER INSERT ON readings BEGIN DELETE FROM readings; END;"));
    let view = database(&format!("{PLAIN} CREATE VIEW v AS SELECT load_extension('/tmp/x.so');"));
    let other_schema = database(
        "CREATE TABLE readings (id INTEGER PRIMARY KEY, value BLOB); INSERT INTO readings VALUES (1, 1.5), (2, 2.5);",
    );
    let mut broken = p.store.clone();
    let last = broken.len() - 1;
    broken[4096 + 3..4096 + 9].fill(0x55);
    broken[last] ^= 1;
    let mut looped = p.store.clone();
    looped[4096] = 5;
    let mut written = p.store.clone();
    written[100..110].fill(0xff);
    vec![
        ("empty file", Vec::new(), "not-encrypted"),
        ("text", b"hello".to_vec(), "not-encrypted"),
        ("plain tar", tar(&[m.clone(), s.clone()]), "not-encrypted"),
        ("compressed and not encrypted", frame(&tar(&[m.clone(), s.clone()])), "not-encrypted"),
        ("header without an end", cut_header, "truncated"),
        ("header of megabytes", long_header, "bad-header"),
        ("header that is none", b"age-encryption.org/v1\n\x00\x01\x02\n--- x\n".to_vec(), "bad-header"),
        ("for somebody else", sealed(&frame(&tar(&[m.clone(), s.clone()])), &[stranger]), "wrong-recipient"),
        ("bit in the header", flipped(30), "wrong-recipient"),
        ("bit in the nonce", flipped(payload), "altered"),
        ("bit in the payload", flipped(payload + 200), "altered"),
        ("bit in the last byte", flipped(good.len() - 1), "altered"),
        ("cut by a byte", good[..good.len() - 1].to_vec(), "altered"),
        ("cut in half", good[..good.len() / 2].to_vec(), "altered"),
        ("cut behind the header", good[..payload + 10].to_vec(), "truncated"),
        ("bytes behind the cipher", [good.clone(), b"more".to_vec()].concat(), "altered"),
        ("garbage inside", age(&garbage), "bad-compression"),
        ("nothing inside", age(b""), "truncated"),
        ("tar without compression inside", age(&tar(&[m.clone(), s.clone()])), "bad-compression"),
        ("two frames", age(&[frame(&tar(&[m.clone(), s.clone()])), frame(b"second")].concat()), "trailing-bytes"),
        (
            "bytes behind the frame",
            age(&[frame(&tar(&[m.clone(), s.clone()])), b"x".to_vec()].concat()),
            "trailing-bytes",
        ),
        ("window bomb", age(&window(31)), "window"),
        ("window just above the limit", age(&window(24)), "window"),
        ("zstd bomb", age(&bomb), "too-large"),
        ("frame cut off", age(&frame(&tar(&[m.clone(), s.clone()]))[..600]), "truncated"),
        ("empty tar", whole(&[]), "no-manifest"),
        ("no manifest", whole(std::slice::from_ref(&s)), "no-manifest"),
        ("manifest second", whole(&[s.clone(), m.clone()]), "no-manifest"),
        ("manifest that is no JSON", whole(&[member("manifest.json", b"{"), s.clone()]), "bad-manifest"),
        ("manifest of another type", whole(&[p.with(|m| m["type"] = json!("x")), s.clone()]), "bad-manifest"),
        ("manifest of the future", whole(&[p.with(|m| m["min_reader"] = json!(9)), s.clone()]), "newer"),
        ("manifest of megabytes", whole(&[member("manifest.json", &vec![b' '; 2 << 20]), s.clone()]), "bad-manifest"),
        (
            "manifest nested a thousand deep",
            whole(&[member("manifest.json", &[b'['; 4000]), s.clone()]),
            "bad-manifest",
        ),
        ("name that climbs", whole(&[file(&|f| f["name"] = json!("../../etc/passwd")), s.clone()]), "bad-manifest"),
        ("absolute name", whole(&[file(&|f| f["name"] = json!("/etc/passwd")), s.clone()]), "bad-manifest"),
        ("name with a backslash", whole(&[file(&|f| f["name"] = json!("data\\x")), s.clone()]), "bad-manifest"),
        ("digest that is none", whole(&[file(&|f| f["sha256"] = json!("zz")), s.clone()]), "bad-manifest"),
        ("negative length", whole(&[file(&|f| f["len"] = json!(-1)), s.clone()]), "bad-manifest"),
        ("length beyond everything", whole(&[file(&|f| f["len"] = json!(u64::MAX)), s.clone()]), "bad-manifest"),
        ("page size of three", whole(&[file(&|f| f["database"]["page_size"] = json!(3)), s.clone()]), "bad-manifest"),
        (
            "the same member twice in the manifest",
            whole(&[
                p.with(|m| {
                    let f = m["files"][0].clone();
                    m["files"].as_array_mut().unwrap().push(f);
                }),
                s.clone(),
                s.clone(),
            ]),
            "bad-manifest",
        ),
        ("pages without a base", whole(&[file(&|f| f["kind"] = json!("pages")), s.clone()]), "bad-manifest"),
        (
            "configuration that says it is a database",
            whole(&[file(&|f| f["kind"] = json!("config")), s.clone()]),
            "bad-manifest",
        ),
        ("member that is missing", whole(std::slice::from_ref(&m)), "missing-member"),
        ("member twice", whole(&[m.clone(), s.clone(), s.clone()]), "unexpected-member"),
        (
            "member that nobody named",
            whole(&[m.clone(), s.clone(), member("etc/cron.d/x", b"* * * * * root sh")]),
            "unexpected-member",
        ),
        ("member with another name", odd("data/other.db"), "unexpected-member"),
        ("member that climbs", odd("../data/edge_store.db"), "unexpected-member"),
        ("member with an absolute name", odd("/data/edge_store.db"), "unexpected-member"),
        (
            "member longer than it should be",
            whole(&[m.clone(), member("data/edge_store.db", &[p.store.clone(), vec![0; 512]].concat())]),
            "wrong-length",
        ),
        (
            "member shorter than it should be",
            whole(&[m.clone(), member("data/edge_store.db", &p.store[..4096])]),
            "wrong-length",
        ),
        ("member with other bytes", whole(&[m.clone(), member("data/edge_store.db", &written)]), "wrong-digest"),
        ("symbolic link", kind(b'2'), "not-a-file"),
        ("hard link", kind(b'1'), "not-a-file"),
        ("character device", kind(b'3'), "not-a-file"),
        ("block device", kind(b'4'), "not-a-file"),
        ("directory", kind(b'5'), "not-a-file"),
        ("pipe", kind(b'6'), "not-a-file"),
        ("contiguous file", kind(b'7'), "not-a-file"),
        ("PAX header", whole(&[m.clone(), bent("x", pax, |h| h[156] = b'x'), s.clone()]), "extension-header"),
        ("global PAX header", whole(&[bent("x", pax, |h| h[156] = b'g'), m.clone(), s.clone()]), "extension-header"),
        (
            "GNU long name",
            whole(&[m.clone(), bent("././@LongLink", b"data/edge_store.db\0", |h| h[156] = b'L'), s.clone()]),
            "extension-header",
        ),
        (
            "GNU long link",
            whole(&[m.clone(), bent("././@LongLink", b"/etc/passwd\0", |h| h[156] = b'K'), s.clone()]),
            "extension-header",
        ),
        ("sparse file", kind(b'S'), "extension-header"),
        (
            "header with a wrong sum",
            whole(&[m.clone(), {
                let mut h = s.clone();
                h[150] ^= 1;
                h
            }]),
            "bad-member",
        ),
        ("header of garbage", whole(&[m.clone(), garbage[..1024].to_vec()]), "bad-member"),
        (
            "bytes behind the last member",
            age(&frame(&[tar(&[m.clone(), s.clone()]), b"x".to_vec()].concat())),
            "trailing-bytes",
        ),
        (
            "megabytes of zeroes behind the last member",
            age(&frame(&[tar(&[m.clone(), s.clone()]), vec![0; 4 << 20]].concat())),
            "trailing-bytes",
        ),
        ("another number of rows", age(&frame(&p.of(&other_rows))), "bad-database"),
        ("trigger in the database", age(&frame(&p.true_of(&trigger))), "bad-database"),
        ("view in the database", age(&frame(&p.true_of(&view))), "bad-database"),
        ("trigger that the manifest hides", age(&frame(&p.of(&trigger))), "bad-database"),
        ("another schema", age(&frame(&p.of(&other_schema))), "bad-database"),
        ("damaged database with a true digest", age(&frame(&p.of(&broken))), "bad-database"),
        ("interior page in place of a leaf", age(&frame(&p.of(&looped))), "bad-database"),
        ("schema page overwritten", age(&frame(&p.of(&written))), "bad-database"),
    ]
}

#[test]
fn every_attack_is_refused_with_its_own_code_and_nothing_is_changed() {
    let desk = desk("");
    let parts = honest(&desk);
    let archive = desk.site.config().with_file_name("pyvorin-GW-042-20261125T200000Z-000009.tar.zst.age");
    let restore =
        ["--technician", "T-1", "restore", "--any-device", "--identity", text(&desk.identity), text(&archive)];
    let mut wrong = Vec::new();
    let all = attacks(&desk, &parts);
    let names: BTreeSet<&str> = all.iter().map(|(name, _, _)| *name).collect();
    assert_eq!(names.len(), all.len());
    let before = desk.site.tree();
    let beside: Vec<_> = std::fs::read_dir(archive.parent().unwrap()).unwrap().map(|e| e.unwrap().path()).collect();
    for (name, bytes, code) in &all {
        std::fs::write(&archive, bytes).unwrap();
        let run = desk.site.run(&restore);
        if run.code != 8 || !run.stderr.contains(&format!(": {code}: ")) {
            wrong.push(format!("{name}: wanted {code}, got {} {}", run.code, run.stderr.lines().last().unwrap_or("")));
        }
        let changes = changed(&before, &desk.site.tree());
        let real: Vec<_> = changes.iter().filter(|p| !p.ends_with("pyvorin") && !p.ends_with(".stage")).collect();
        if !real.is_empty() {
            wrong.push(format!("{name}: changed {real:?}"));
        }
    }
    // Without the person's word nothing is even looked into, whatever it is.
    let (_, good, _) = all.iter().find(|(name, _, _)| *name == "another number of rows").unwrap();
    std::fs::write(&archive, good).unwrap();
    let alone = desk.site.run(&["--technician", "T-1", "restore", "--identity", text(&desk.identity), text(&archive)]);
    assert!(alone.code == 8 && alone.stderr.contains("not-signed"), "{}", alone.stderr);
    std::fs::remove_file(&archive).unwrap();
    let after: Vec<_> = std::fs::read_dir(archive.parent().unwrap()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(beside.len(), after.len(), "{after:?}");
    println!("{} attacks", all.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(all.len() >= 60);
}

#[test]
fn an_archive_cut_anywhere_is_refused() {
    let desk = desk("");
    let store = desk.site.db();
    let conn = Connection::open(&store).unwrap();
    conn.execute_batch("CREATE TABLE readings (id INTEGER PRIMARY KEY, noise BLOB)").unwrap();
    conn.execute_batch("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400) INSERT INTO readings SELECT i, randomblob(3000) FROM n").unwrap();
    conn.close().unwrap();
    assert_eq!(desk.site.run(&["backup", "create"]).code & !4, 0);
    let archive = archives(&desk.site).pop().unwrap();
    let bytes = std::fs::read(&archive).unwrap();
    let short = desk.site.config().with_file_name("short.tar.zst.age");
    let mut tried = 0;
    let borders =
        (0..bytes.len()).step_by(64 << 10).chain([1, 21, 22, 100, 200, 300, bytes.len() - 1, bytes.len() - 16]);
    for len in borders {
        std::fs::write(&short, &bytes[..len]).unwrap();
        let run = desk.site.run(&["backup", "verify", "--identity", text(&desk.identity), text(&short)]);
        let said = run.json.unwrap();
        assert_eq!((run.code, said["contents"].as_bool()), (4, Some(false)), "{len}: {said}");
        let code = said["refused"]["code"].as_str().unwrap();
        assert!(["not-encrypted", "truncated", "altered", "bad-header"].contains(&code), "{len}: {said}");
        tried += 1;
    }
    assert!(tried > 20, "{tried}");
}
