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
use pyvorin_recovery::{cmdline, journal};

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
