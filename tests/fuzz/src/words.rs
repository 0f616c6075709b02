//! Text and records: slot state, records of operations, configuration, kernel command line, evidence from the field.

use std::collections::BTreeMap;

use pyvorin_recovery::boot::assess::{self, StructureVerdict};
use pyvorin_recovery::boot::evidence::Evidence;
use pyvorin_recovery::boot::step::Step;
use pyvorin_recovery::boot::{plan, report};
use pyvorin_recovery::config::{self, Settings};
use pyvorin_recovery::journal::Intent;
use pyvorin_recovery::record::{self, Decoded};
use pyvorin_recovery::slots::{Slot, file};
use pyvorin_recovery::sqlite::schema::{self, Generated, KeySource, Origin};
use pyvorin_recovery::{cmdline, journal};
use rusqlite::Connection;

/// Puts a true checksum and length into the first line of a record, so that the contents are reached.
fn sealed(kind: &str, data: &[u8]) -> Vec<u8> {
    let value: Result<serde_json::Value, _> = serde_json::from_slice(data);
    value.map_or_else(|_| data.to_vec(), |v| record::encode(kind, &v))
}

/// Both copies of the slot state. The first byte chooses: as found, or with true checksums, and where they divide.
pub fn slots(data: &[u8]) {
    let [how, at, rest @ ..] = data else { return };
    let (first, second) = rest.split_at(rest.len() * usize::from(*at) / 256);
    let make = |copy: &[u8]| if how & 1 == 1 { sealed("slots", copy) } else { copy.to_vec() };
    let (first, second) = (make(first), make(second));
    let pick = |bit: u8, bytes: &'static [u8]| (how & bit != 0).then_some(bytes);
    let _ = pick(2, b"");
    let one = (how & 2 == 0).then_some(first.as_slice());
    let two = (how & 4 == 0).then_some(second.as_slice());
    let found = file::read(one, two, 3);
    assert_eq!(found, file::read(one, two, 3));
    let choice = found.state.choose();
    // R is chosen only when neither slot has anything left.
    if choice.slot != Slot::R {
        assert!(found.state.facts(choice.slot).is_some());
    }
    let mut next_state = found.state.clone();
    next_state.count_attempt(choice.slot);
    if let Some(next) = found.encode_next(&next_state) {
        assert!(found.newest != Some(next.index), "the newest copy must not be the one that is overwritten");
        let other = if next.index == 0 { two } else { one };
        let again = match next.index {
            0 => file::read(Some(&next.bytes), other, 3),
            _ => file::read(other, Some(&next.bytes), 3),
        };
        assert_eq!(again.state, next_state, "what was written is what is read");
    } else {
        assert!(!found.writable);
    }
}

/// Records: only exact bytes decode, and they encode to themselves.
pub fn records(data: &[u8]) {
    for bytes in [data.to_vec(), sealed(journal::RECORD, data)] {
        if let Decoded::Ok(intent) = record::decode::<Intent>(journal::RECORD, &bytes) {
            let again = record::encode(journal::RECORD, &intent);
            assert_eq!(record::decode::<Intent>(journal::RECORD, &again), Decoded::Ok(intent));
            // A single changed bit is noticed: one of them, chosen by the input itself.
            let mut flipped = bytes.clone();
            let at = bytes.len() / 2;
            flipped[at] ^= 1 << (bytes.len() % 8);
            assert!(record::decode::<Intent>(journal::RECORD, &flipped).ok().is_none());
        }
        let _ = record::decode::<BTreeMap<String, u32>>("trials", &bytes);
    }
}

/// The configuration: strict and lenient readers agree where there is nothing to complain of.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let strict = config::parse(text);
    let (lenient, faults) = Settings::lenient(text);
    match strict {
        Ok(settings) => {
            assert!(faults.is_empty(), "{faults:?}");
            assert_eq!(settings, lenient);
        }
        Err(found) => {
            assert!(!found.is_empty());
            assert!(found.iter().all(|f| f.to_string().len() >= 8));
        }
    }
}

/// The kernel command line.
pub fn cmdline(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let request = cmdline::parse(&text);
    assert_eq!(request, cmdline::parse(&text));
    // What stands behind `--` is for the OS.
    assert_eq!(cmdline::parse(&format!("-- {text}")), cmdline::Request::default());
    for key in ["root", "console", ""] {
        let _ = cmdline::value(&text, key);
    }
}

/// Evidence as a report from the field has it: verdict, plan and report are total, and the plan keeps its order.
pub fn evidence(data: &[u8]) {
    let Ok(evidence) = serde_json::from_slice::<Evidence>(data) else { return };
    let assessed = assess::assess(&evidence);
    assert_eq!(assessed, assess::assess(&evidence));
    let settings = Settings::default_for_agent();
    let policy = plan::Policy {
        settings: &settings,
        trials: &evidence.trials,
        failed: &[],
        quarantined: &[],
        recovery_asked: false,
        booting: true,
    };
    let volumes = plan::volumes(&assessed);
    let planned = plan::data(&assessed, &policy);
    assert_eq!(planned, plan::data(&assessed, &policy));
    let mut preserved = Vec::new();
    for step in &planned.steps {
        match step {
            Step::Preserve { database, .. } => preserved.push(database.clone()),
            Step::Build(build) => assert!(preserved.contains(&build.database), "built before it was preserved"),
            Step::Install { database, .. } => {
                assert!(preserved.contains(database), "installed before it was preserved")
            }
            _ => {}
        }
    }
    if !assessed.state_usable {
        assert!(preserved.is_empty(), "steps are planned without a state directory to resume from");
    }
    for verdict in &assessed.databases {
        if verdict.completeness == pyvorin_recovery::sqlite::judge::Completeness::Complete {
            assert!(!verdict.evidence.is_empty(), "complete without named evidence");
        }
        let bad = assess::is_bad(verdict);
        assert!(bad || verdict.structure == StructureVerdict::Sound);
    }
    let _ = report::check_exit(&assessed.databases);
    let report = report::boot(&assessed, &assessed, &planned, Vec::new(), &evidence.volumes, 1);
    let _ = (report::plain(&report), volumes);
}

/// The texts of a schema: a table, and behind a zero byte an index on it. What was understood of a table that the engine
/// accepts is what the engine understands.
pub fn sql(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (create, on) = text.split_once('\0').unwrap_or((&text, ""));
    let read = schema::table(create);
    assert_eq!(read.is_ok(), schema::table(create).is_ok());
    let Ok(table) = read else { return };
    let stored = table.stored_columns();
    assert!(stored.iter().all(|c| *c < table.columns.len()));
    assert!(table.rowid_alias.is_none_or(|c| c < table.columns.len() && !table.without_rowid));
    if let Ok(index) = schema::index(on, &table) {
        for part in index.layout(&table, 4) {
            assert!(!matches!(part.source, KeySource::Column(c) if c >= table.columns.len()));
        }
    }
    // Only a statement that was read as a table runs, alone, in an empty database in memory.
    let Ok(conn) = Connection::open_in_memory() else { return };
    if conn.prepare(create).and_then(|mut s| s.execute([])).is_err() {
        return;
    }
    let list = "SELECT x.name, x.\"notnull\", x.hidden FROM sqlite_schema s, pragma_table_xinfo(s.name) x
        WHERE s.type='table' AND s.name NOT LIKE 'sqlite_%' ORDER BY x.cid";
    let mut statement = conn.prepare(list).unwrap();
    let row = |r: &rusqlite::Row<'_>| Ok((r.get::<_, String>(0)?, r.get::<_, bool>(1)?, r.get::<_, i64>(2)?));
    let theirs: Vec<_> = statement.query_map([], row).unwrap().filter_map(Result::ok).collect();
    let hidden = |g: Generated| match g {
        Generated::No => 0,
        Generated::Virtual => 2,
        Generated::Stored => 3,
    };
    let ours: Vec<_> = table.columns.iter().map(|c| (c.name.clone(), c.not_null, hidden(c.generated))).collect();
    assert_eq!(ours, theirs, "columns of {create:?}");
    let rowids =
        conn.query_row("SELECT wr FROM pragma_table_list WHERE schema='main' AND name NOT LIKE 'sqlite_%'", [], |r| {
            r.get::<_, bool>(0)
        });
    assert_eq!(rowids, Ok(table.without_rowid), "{create:?}");
    let indexes = conn.query_row("SELECT count(*) FROM sqlite_schema WHERE type='index'", [], |r| r.get::<_, i64>(0));
    let implied =
        table.auto_indexes.iter().filter(|i| !(table.without_rowid && i.origin == Origin::PrimaryKey)).count();
    assert_eq!(indexes, Ok(implied as i64), "automatic indexes of {create:?}");
}
