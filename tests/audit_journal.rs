//! The journal of our own events: what was acknowledged survives every cut of power, its size stays bounded, and what was
//! rotated away leaves a chain that verifies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

use pyvorin_recovery::audit::events::{self, CURRENT, KEEP, New, SEGMENT};
use pyvorin_recovery::audit::json::Value;
use pyvorin_recovery::boot::events::{append, load};
use pyvorin_recovery::config::Settings;
use pyvorin_recovery::edge::sim::{CutMode, SimMachine};

const STATE: &str = "/var/lib/pyvorin-recovery";

fn settings() -> Settings {
    let mut s = Settings::default_for_agent();
    s.state_device = None;
    s
}

fn new(n: u64, size: usize) -> New {
    let details = Value::Object(vec![("n".into(), Value::int(n)), ("text".into(), Value::text(&"x".repeat(size)))]);
    New { at: n, by: "T-1".into(), event: "repair".into(), op: format!("op-{n}"), details }
}

fn sound(m: &SimMachine) -> events::Verified {
    let v = events::verify(&load(m, &settings()).unwrap().segments);
    assert!(v.breaks.is_empty(), "{:?}", v.breaks);
    v
}

fn operations(m: &SimMachine) -> Vec<String> {
    load(m, &settings()).unwrap().events().filter(|e| e.event == "repair").map(|e| e.op.clone()).collect()
}

#[test]
fn what_was_acknowledged_survives_every_cut_and_nothing_stands_twice() {
    let (mut cuts, mut torn) = (0, 0);
    // Small lines, and lines so large that the segment is full in between.
    for size in [40, 7000] {
        let count = if size > 1000 { 14 } else { 5 };
        for (mode, seeds) in [(CutMode::Applied, 1), (CutMode::Dropped, 1), (CutMode::Torn, 6)] {
            for seed in 0..seeds {
                for by_sync in [true, false] {
                    for n in 1.. {
                        let mut m = SimMachine::new().with_dir("/var/lib");
                        if by_sync {
                            m.cut_at(n, mode, seed)
                        } else {
                            m.cut_after_op(n, mode, seed)
                        }
                        let mut acknowledged = Vec::new();
                        for i in 1..=count {
                            match append(&mut m, &settings(), &new(i, size)) {
                                Ok(event) => acknowledged.push(event.unwrap().op),
                                Err(_) => break,
                            }
                        }
                        if !m.is_cut() {
                            break;
                        }
                        cuts += 1;
                        let mut m = m.after_cut();
                        let found = operations(&m);
                        torn += u32::from(sound(&m).torn);
                        assert!(
                            found.starts_with(&acknowledged),
                            "{mode:?} {seed} cut {n}: {found:?} {acknowledged:?}"
                        );
                        assert!(found.len() <= acknowledged.len() + 1, "{found:?}");
                        // The one that was interrupted is recorded by whoever resumes, and then stands once.
                        let next = acknowledged.len() as u64 + 1;
                        append(&mut m, &settings(), &new(next, size)).unwrap();
                        let found = operations(&m);
                        assert_eq!(found.len(), acknowledged.len() + 1, "{mode:?} {seed} cut {n}: {found:?}");
                        assert!(!sound(&m).torn);
                    }
                }
            }
        }
    }
    println!("{cuts} cuts, {torn} of them left a torn line");
    assert!(torn > 0, "no line was ever torn");
}

#[test]
fn size_stays_bounded_and_the_chain_verifies_across_rotation() {
    let mut m = SimMachine::new().with_dir("/var/lib");
    let mut largest = 0;
    for n in 1..=300 {
        append(&mut m, &settings(), &new(n, 4000)).unwrap();
        let sizes: Vec<usize> =
            m.paths().iter().filter(|p| p.starts_with(STATE)).map(|p| m.bytes(p).unwrap().len()).collect();
        largest = largest.max(sizes.iter().sum::<usize>());
        assert!(sizes.iter().all(|s| *s <= SEGMENT), "{sizes:?}");
        if n % 20 == 0 {
            let v = sound(&m);
            assert_eq!(v.pruned, v.first_seq != Some(1));
        }
    }
    let v = sound(&m);
    assert!(v.pruned && v.head.seq > 300, "{v:?}");
    println!("300 events of 4 kB: at most {largest} bytes on disk");
    assert!(largest <= (KEEP + 2) * SEGMENT);
}

#[test]
fn damage_in_the_middle_is_set_aside_whole_and_told() {
    let mut m = SimMachine::new().with_dir("/var/lib");
    (1..=6).for_each(|n| drop(append(&mut m, &settings(), &new(n, 40)).unwrap()));
    let path = format!("{STATE}/{CURRENT}");
    let mut bytes = m.bytes(&path).unwrap();
    bytes[400] ^= 0x10;
    let mut m = m.with_file(&path, bytes.clone());
    append(&mut m, &settings(), &new(7, 40)).unwrap();
    assert!(m.paths().iter().any(|p| m.bytes(p) == Some(bytes.clone())), "the damaged segment is gone");
    let v = events::verify(&load(&m, &settings()).unwrap().segments);
    assert!(v.breaks[0].contains("line"), "{:?}", v.breaks);
    assert!(load(&m, &settings()).unwrap().events().any(|e| e.event == events::DAMAGED));
}

#[test]
fn a_journal_of_a_later_version_is_left_alone() {
    let mut m = SimMachine::new().with_file(format!("{STATE}/{CURRENT}"), b"pyv2 of the future\n".to_vec());
    assert!(append(&mut m, &settings(), &new(1, 40)).unwrap_err().to_string().contains("newer version"));
    assert_eq!(m.bytes(format!("{STATE}/{CURRENT}")).unwrap(), b"pyv2 of the future\n");
}
