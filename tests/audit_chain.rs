//! The audit chain against Python's own `json` and `hashlib` (through the model of the agent in `support/agent.py`), and
//! against tampering: every edit, removal and reorder is found and its first break named.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use pyvorin_recovery::audit::chain::{Anchor, BreakKind, ChainState, Start, Verified, Verifier, ZEROS};
use pyvorin_recovery::audit::dialect::{Dialect, FIRST, Parsed, Record};
use pyvorin_recovery::sqlite::rows::Cell;
use rusqlite::types::Value;
use support::agent::{audit_rows, python};
use support::rng::Rng;
use support::site::Scratch;
use support::{Failures, rounds, seeds};

fn text(t: &str) -> Cell {
    Cell::Text(t.as_bytes().to_vec())
}

fn record(id: i64, at: f64, action: &str, details: &str, prev: &str, hash: &str) -> Record {
    Record {
        id,
        timestamp: Cell::Real(at),
        action: text(action),
        details: text(details),
        prev: text(prev),
        hash: text(hash),
    }
}

const STORED: &str = r#"{"technician": "T-042", "backup_path": "/opt/pyvorin-backups/x", "note": "caf\u00e9 \u00b0C \ud83d\ude00", "n": 3, "ratio": 0.1}"#;
const STORED_SORTED: &str = r#"{"backup_path": "/opt/pyvorin-backups/x", "n": 3, "note": "caf\u00e9 \u00b0C \ud83d\ude00", "ratio": 0.1, "technician": "T-042"}"#;

/// (separators by default, raw UTF-8, details as text, stored text, hash after zeroes, hash after "").
const VECTORS: [(bool, bool, bool, &str, &str, &str); 12] = [
    (
        false,
        false,
        false,
        STORED,
        "ebf4eca8610d1ab756ad0fd904f52cd00a62449b14134e2e2b4fc1004046ae3d",
        "1654e79674db57062f24bd9e8af39c861516c8df372412dd2a0a415d6435f262",
    ),
    (
        false,
        true,
        false,
        STORED,
        "29a2f8be9dfac7d3ef30c0a31a312bdf4d4674bcc62b1adcd66968ae6b3c7de6",
        "7cf75ec5a8b6190528b1197a361d2f39e32412aa541abe3f653fa5bf4c304931",
    ),
    (
        false,
        false,
        true,
        STORED,
        "a6e3448fa71550d7567e718f029873df74559e8c3818f9407cbb544af6f2194d",
        "bcb71ca1ddb4abbdebc287c410bd0ce350b54258eca522f2b74e3483fc2376df",
    ),
    (
        false,
        true,
        true,
        STORED,
        "a6e3448fa71550d7567e718f029873df74559e8c3818f9407cbb544af6f2194d",
        "bcb71ca1ddb4abbdebc287c410bd0ce350b54258eca522f2b74e3483fc2376df",
    ),
    (
        false,
        false,
        true,
        STORED_SORTED,
        "604c46317d767e02993403a0d0f845f77f1715ce819da54add1e1de89b8829bc",
        "8ae758d7521b12ebcab6127bd37abb63e0ad8ec8213227d664537e5fef8535eb",
    ),
    (
        false,
        true,
        true,
        STORED_SORTED,
        "604c46317d767e02993403a0d0f845f77f1715ce819da54add1e1de89b8829bc",
        "8ae758d7521b12ebcab6127bd37abb63e0ad8ec8213227d664537e5fef8535eb",
    ),
    (
        true,
        false,
        false,
        STORED,
        "b0e143e85b3cbd1a0746df66b3fc7ed2a46eba60713b6c2fba029cc6a43f1557",
        "355e272f560c4c53d41330465ab699cceccc4e97210e88e0e2aa4e38095eaa43",
    ),
    (
        true,
        true,
        false,
        STORED,
        "76b8534c8e47b5830dce415266c935ecc7c7da157ddeb3b9e7ce6183f23adcf7",
        "60df4178fade0c1b23dbfaf747073a7cd1520821aa1c54aab9ae2d4530162f02",
    ),
    (
        true,
        false,
        true,
        STORED,
        "4f6f59d8edf637925dadbbdda98f574f55f210ee411d19d694746836a44f459a",
        "f3d9315251633b4ad45168a067550201ce5365394ab8775dbe15f5480f803af5",
    ),
    (
        true,
        true,
        true,
        STORED,
        "4f6f59d8edf637925dadbbdda98f574f55f210ee411d19d694746836a44f459a",
        "f3d9315251633b4ad45168a067550201ce5365394ab8775dbe15f5480f803af5",
    ),
    (
        true,
        false,
        true,
        STORED_SORTED,
        "97bd7b5614fd2ad4faed79ec1138d1189737da0787e0fa970a312f3bbabdc81b",
        "f67f69aabcc1ac0970868f1e4dc7b904d8888fd56a6c14b1fc94fc0261aa06ab",
    ),
    (
        true,
        true,
        true,
        STORED_SORTED,
        "97bd7b5614fd2ad4faed79ec1138d1189737da0787e0fa970a312f3bbabdc81b",
        "f67f69aabcc1ac0970868f1e4dc7b904d8888fd56a6c14b1fc94fc0261aa06ab",
    ),
];

fn named(spaced: bool, raw: bool, as_text: bool) -> Dialect {
    let name = format!(
        "{},sorted,{},{}",
        if spaced { "default-separators" } else { "compact" },
        if raw { "utf-8" } else { "ascii" },
        if as_text { "details-as-text" } else { "details-as-object" }
    );
    Dialect::named(&name).expect(&name)
}

#[test]
fn the_measured_vectors_hash_as_python_hashed_them() {
    for (spaced, raw, as_text, stored, zeros, empty) in VECTORS {
        let dialect = named(spaced, raw, as_text);
        for (prev, hash) in [(ZEROS, zeros), ("", empty)] {
            let record = record(1, 1_717_000_000.25, "factory_reset", stored, prev, hash);
            let parsed = Parsed::new(&record).unwrap();
            assert_eq!(dialect.hash(&parsed).as_deref(), Some(hash), "{} after {prev:?}", dialect.name());
            assert_ne!(parsed.explained_by(&record.hash, FIRST) & dialect.bit(), 0);
        }
    }
    let first = VECTORS[0].4;
    let second = "15162d89036a7e8c087ffb48ddf1ac49ea51b78a6599686785e46b023e72949d";
    let chained = record(2, 1_717_000_001.0, "queue_repair", "{}", first, second);
    assert_eq!(Dialect::DEFAULT.hash(&Parsed::new(&chained).unwrap()).as_deref(), Some(second));
    let mut verifier = Verifier::new(Vec::new());
    verifier.record(&record(1, 1_717_000_000.25, "factory_reset", STORED, ZEROS, first));
    verifier.record(&chained);
    let v = verifier.finish();
    assert_eq!((v.state, v.start, v.ambiguous), (ChainState::Intact, Start::Genesis(ZEROS.into()), false));
    assert_eq!(v.append_in, Some(Dialect::DEFAULT.name()));
}

#[test]
fn ten_thousand_random_records_hash_as_python_hashes_them_in_all_dialects() {
    let count = rounds("RECORDS", 10_000);
    let seed = seeds(1, 1)[0];
    let mut failures = Failures::default();
    let mut checked = 0;
    for (n, line) in python(&["records", &seed.to_string(), &count.to_string()]).lines().enumerate() {
        let r: serde_json::Value = serde_json::from_str(line).unwrap();
        let bits = r["timestamp"][1].as_str().unwrap();
        let timestamp = match r["timestamp"][0].as_str() {
            Some("f") => Cell::Real(f64::from_bits(bits.parse().unwrap())),
            _ => Cell::Integer(bits.parse().unwrap()),
        };
        let record = Record {
            id: 1,
            timestamp,
            action: text(r["action"].as_str().unwrap()),
            details: text(r["stored"].as_str().unwrap()),
            prev: r["prev"].as_str().map_or(Cell::Null, text),
            hash: Cell::Null,
        };
        let parsed = Parsed::new(&record).unwrap();
        for (dialect, hash) in Dialect::of(FIRST).zip(r["hashes"].as_array().unwrap()) {
            let ours = dialect.hash(&parsed);
            checked += 1;
            if ours.as_deref() != hash.as_str() {
                let said = dialect.hashed_text(&parsed).map(|t| String::from_utf8_lossy(&t).into_owned());
                failures.add("hash", seed, format!("record {n}, {}: {said:?} of {line}", dialect.name()));
            }
        }
    }
    println!("{count} random records, {checked} hashes compared with Python's");
    assert_eq!(checked, count * 16);
    failures.finish("random records");
}

fn cell(value: Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Integer(n) => Cell::Integer(n),
        Value::Real(x) => Cell::Real(x),
        Value::Text(t) => Cell::Text(t.into_bytes()),
        Value::Blob(b) => Cell::Blob(b),
    }
}

/// A chain written by the model.
fn chain(seed: u64, count: usize, dialect: usize, genesis: &str) -> Vec<Record> {
    let scratch = Scratch::new("chain");
    let db = scratch.path().join("edge_store.db");
    let path = db.to_str().unwrap();
    python(&["write", path, &seed.to_string(), &count.to_string(), &dialect.to_string(), genesis]);
    let record = |(id, at, action, details, prev, hash)| Record {
        id,
        timestamp: cell(at),
        action: cell(action),
        details: cell(details),
        prev: cell(prev),
        hash: cell(hash),
    };
    audit_rows(&db).into_iter().map(record).collect()
}

fn verify(records: &[Record], anchors: &[Anchor]) -> Verified {
    let mut verifier = Verifier::new(anchors.to_vec());
    records.iter().for_each(|r| verifier.record(r));
    verifier.finish()
}

fn anchor(records: &[Record]) -> Anchor {
    let last = records.last().unwrap();
    let Cell::Text(hash) = &last.hash else { panic!("no hash") };
    Anchor {
        id: last.id,
        hash: String::from_utf8(hash.clone()).unwrap(),
        first_id: Some(records[0].id),
        taken_at: 1_717_000_000,
        source: "a test".into(),
    }
}

#[test]
fn every_dialect_and_genesis_is_detected_and_verifies() {
    for dialect in 0..16 {
        let genesis = ["zeros", "empty", "null", "word"][dialect % 4];
        let records = chain(dialect as u64, 30, dialect, genesis);
        let v = verify(&records, &[anchor(&records)]);
        let wanted = Dialect::all().nth(dialect).unwrap().name();
        assert_eq!((v.state, v.breaks, v.mixed), (ChainState::Intact, 0, false), "{wanted}: {v:?}");
        assert!(v.dialects.contains(&wanted), "{wanted}: {:?}", v.dialects);
        let shown = [ZEROS, "", "null", "GENESIS"][dialect % 4];
        assert_eq!(v.start, Start::Genesis(shown.into()), "{wanted}");
        // Only ASCII and raw UTF-8 may be indistinguishable, where every text is ASCII.
        let twin = |name: &str| name.replace("utf-8", "ascii") == wanted.replace("utf-8", "ascii");
        assert!(v.dialects.iter().all(|d| twin(d)), "{wanted}: {:?}", v.dialects);
        assert_eq!(v.ambiguous, v.dialects.len() > 1);
        let purged = verify(&records[7..], &[]);
        assert_eq!(purged.state, ChainState::Anchored, "{wanted}");
    }
}

#[test]
fn a_chain_of_plain_ascii_is_ambiguous_and_not_broken() {
    let mut records = vec![record(1, 1.0, "a", "{}", "", "")];
    let hash = Dialect::DEFAULT.hash(&Parsed::new(&records[0]).unwrap()).unwrap();
    records[0].hash = text(&hash);
    let v = verify(&records, &[]);
    assert_eq!((v.state, v.ambiguous, v.dialects.len()), (ChainState::Intact, true, 2));
}

#[test]
fn a_chain_in_no_known_form_is_told_apart_from_a_broken_one() {
    let mut records = chain(5, 20, 0, "zeros");
    let mut prev = Cell::Text(ZEROS.into());
    for (n, record) in records.iter_mut().enumerate() {
        record.prev = prev;
        record.hash = text(&format!("{n:064x}"));
        prev = record.hash.clone();
    }
    let v = verify(&records, &[]);
    assert_eq!((v.state, v.append_in.clone()), (ChainState::Unexplained, None), "{v:?}");
    records.remove(7);
    assert_eq!(verify(&records, &[]).state, ChainState::Broken);
}

/// What was done, the id at which it must show, and whether as a link.
struct Tampering {
    what: &'static str,
    shows_at: i64,
    kind: Option<BreakKind>,
}

fn other(cell: &Cell, rng: &mut Rng) -> Cell {
    match cell {
        Cell::Real(x) => Cell::Real(f64::from_bits(x.to_bits() ^ 1 << rng.below(40))),
        Cell::Text(t) => {
            let mut t = t.clone();
            let at = rng.below(t.len() + 1);
            t.insert(at, b'0' + (rng.below(10)) as u8);
            Cell::Text(t)
        }
        _ => Cell::Integer(7),
    }
}

fn tamper(records: &mut Vec<Record>, rng: &mut Rng) -> Tampering {
    let n = records.len();
    let k = rng.below(n);
    let id = records[k].id;
    match rng.below(8) {
        0 => {
            records[k].timestamp = other(&records[k].timestamp, rng);
            Tampering { what: "timestamp", shows_at: id, kind: Some(BreakKind::Edited) }
        }
        1 => {
            records[k].action = other(&records[k].action, rng);
            Tampering { what: "action", shows_at: id, kind: Some(BreakKind::Edited) }
        }
        2 => {
            records[k].details = text(&format!("{{\"forged\": {}}}", rng.next()));
            Tampering { what: "details", shows_at: id, kind: Some(BreakKind::Edited) }
        }
        3 => {
            records[k].prev = other(&records[k].prev, rng);
            let kind = if k == 0 { BreakKind::Edited } else { BreakKind::Unlinked };
            Tampering { what: "prev_hash", shows_at: id, kind: Some(kind) }
        }
        4 => {
            records[k].hash = other(&records[k].hash, rng);
            Tampering { what: "record_hash", shows_at: id, kind: Some(BreakKind::Edited) }
        }
        5 => {
            let count = rng.between(1, 3).min(n - 2);
            let k = rng.between(1, n - count - 1);
            records.drain(k..k + count);
            Tampering { what: "removed", shows_at: records[k].id, kind: Some(BreakKind::Unlinked) }
        }
        6 => {
            let (a, b) = (rng.below(n - 1), rng.between(1, n - 1));
            let (a, b) = if a == b { (a, b + 1) } else { (a.min(b), a.max(b)) };
            let b = b.min(n - 1);
            // The contents change places, the ids stay.
            records.swap(a, b);
            let id = records[a].id;
            records[a].id = records[b].id;
            records[b].id = id;
            let shows_at = if a == 0 { records[1].id } else { records[a].id };
            let kind = Some(BreakKind::Unlinked);
            if a == b { tamper(records, rng) } else { Tampering { what: "reordered", shows_at, kind } }
        }
        _ => {
            let count = rng.between(1, n - 1);
            records.drain(..count);
            Tampering { what: "beginning removed", shows_at: records[0].id, kind: None }
        }
    }
}

#[test]
fn a_thousand_tamperings_are_all_found_and_the_first_break_is_named() {
    let mut failures = Failures::default();
    let chains: Vec<Vec<Record>> = (0..16).map(|d| chain(100 + d as u64, 24, d, "zeros")).collect();
    let per_chain = rounds("TAMPERINGS", 1600) / 16;
    let mut counts = std::collections::BTreeMap::new();
    for (d, whole) in chains.iter().enumerate() {
        assert!(verify(whole, &[anchor(whole)]).good());
        for n in 0..per_chain {
            let seed = n * 16 + d as u64;
            let mut rng = Rng::new(seed);
            let mut records = whole.clone();
            let done = tamper(&mut records, &mut rng);
            *counts.entry(done.what).or_insert(0) += 1;
            let v = verify(&records, &[anchor(whole)]);
            if v.good() {
                failures.add("not found", seed, format!("{}: {v:?}", done.what));
            }
            let Some(kind) = done.kind else {
                let said = v.remarks.iter().any(|r| r.contains(&format!("begins with {}", done.shows_at)));
                if v.state != ChainState::Shortened || !said {
                    failures.add("beginning not named", seed, format!("{v:?}"));
                }
                continue;
            };
            let first = v.first_break().map(|b| (b.id, b.kind));
            if first != Some((done.shows_at, kind)) || v.state != ChainState::Broken {
                failures.add("not named", seed, format!("{} at {}: {first:?}", done.what, done.shows_at));
            }
        }
    }
    println!("tamperings found and named: {counts:?}");
    assert_eq!(counts.len(), 8, "a kind of tampering was never tried");
    failures.finish("tamperings");
}

#[test]
fn a_cut_end_and_a_chain_hashed_anew_show_against_a_known_head_and_only_there() {
    let whole = chain(9, 40, 0, "zeros");
    let dialect = Dialect::DEFAULT;
    let head = anchor(&whole[..30]);
    for keep in 0..40 {
        let v = verify(&whole[..keep], std::slice::from_ref(&head));
        let wanted = if keep < 30 { ChainState::Shortened } else { ChainState::Intact };
        assert_eq!(v.state, wanted, "{keep}");
        assert_eq!(v.anchor.as_ref().map(|a| a.taken_at), Some(1_717_000_000));
    }
    for changed in 0..40 {
        let mut records = whole.clone();
        records[changed].details = text("{\"forged\":1}");
        for k in changed..40 {
            if k > 0 {
                records[k].prev = records[k - 1].hash.clone();
            }
            records[k].hash = text(&dialect.hash(&Parsed::new(&records[k]).unwrap()).unwrap());
        }
        let v = verify(&records, std::slice::from_ref(&head));
        let wanted = if changed < 30 { ChainState::Rewritten } else { ChainState::Intact };
        assert_eq!(v.state, wanted, "{changed}");
        assert_eq!(v.breaks, 0);
    }
}

#[test]
fn what_cannot_be_read_is_a_break_of_its_own() {
    let whole = chain(11, 20, 2, "empty");
    let mut verifier = Verifier::new(vec![anchor(&whole)]);
    whole[..8].iter().for_each(|r| verifier.record(r));
    verifier.unreadable("page 7 is damaged");
    whole[12..].iter().for_each(|r| verifier.record(r));
    let v = verifier.finish();
    assert_eq!((v.state, v.breaks), (ChainState::Broken, 1));
    assert_eq!(v.first_break().map(|b| (b.id, b.kind)), Some((8, BreakKind::Unreadable)));
    assert!(v.append_in.is_some(), "the tail is explained: records may be appended behind the gap");
}
