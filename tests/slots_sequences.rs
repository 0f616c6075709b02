//! Thousands of random histories of starts, marks, resets and power losses through the slot state and its file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests")]

use pyvorin_recovery::record;
use pyvorin_recovery::slots::file::{self, FileState, Origin};
use pyvorin_recovery::slots::{BootState, REFUNDS_IN_ROW, Reason, Slot, SlotsState, TRIES_MAX};

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % sides
    }
}

/// One boot as the selector does it; the slot that was started.
fn boot(state: &mut SlotsState, power_loss_proven: bool) -> Slot {
    if let Some(slot) = state.attempt.filter(|_| power_loss_proven) {
        state.refund(slot);
    }
    let choice = state.choose();
    state.count_attempt(choice.slot);
    choice.slot
}

#[test]
fn a_bad_slot_falls_back_after_exactly_its_tries_and_both_spent_lead_to_r() {
    for tries in 1..=TRIES_MAX {
        let mut state = SlotsState::fresh(tries);
        let started: Vec<Slot> = (0..2 * tries + 3).map(|_| boot(&mut state, false)).collect();
        let count = |slot| u32::try_from(started.iter().filter(|one| **one == slot).count()).unwrap();
        assert_eq!((count(Slot::A), count(Slot::B), count(Slot::R)), (tries, tries, 3));
        assert!(started.is_sorted());
        assert_eq!(state.choose().reason, Reason::AllSpent);
        assert_eq!((state.boot_state(Slot::A), state.boot_state(Slot::B)), (BootState::Bad, BootState::Bad));
    }
}

#[test]
fn a_good_slot_is_retained_across_power_cuts_and_refunds_end() {
    let mut state = SlotsState::fresh(3);
    boot(&mut state, false);
    state.mark_good(Slot::A, 3);
    assert_eq!(boot(&mut state, false), Slot::A);
    for _ in 0..REFUNDS_IN_ROW {
        assert_eq!(boot(&mut state, true), Slot::A);
        assert_eq!(state.a.left, 2, "a refunded start costs nothing");
    }
    // From here on the power loss is an excuse no longer: the remaining tries, then B.
    assert_eq!([boot(&mut state, true), boot(&mut state, true), boot(&mut state, true)], [Slot::A, Slot::A, Slot::B]);
    assert!(state.mark_good(Slot::B, 3));
    assert_eq!(state.refunds_in_row, 0);
}

#[test]
fn one_start_is_refunded_once() {
    let mut state = SlotsState::fresh(3);
    assert!(!state.refund(Slot::A), "nothing was started");
    boot(&mut state, false);
    assert!(!state.refund(Slot::B) && state.refund(Slot::A) && !state.refund(Slot::A));
    assert_eq!((state.a.left, state.refunds_in_row), (3, 1));
}

#[test]
fn marking_good_twice_changes_nothing_the_second_time() {
    let mut state = SlotsState::fresh(3);
    boot(&mut state, false);
    assert!(state.mark_good(Slot::A, 3));
    assert!(!state.mark_good(Slot::A, 3));
    assert!(!state.mark_good(Slot::R, 3));
    assert!(!state.refund(Slot::A), "an attempt that was marked good is closed");
}

#[test]
fn bad_and_primary_are_taken_back_only_by_name() {
    let mut state = SlotsState::fresh(2);
    assert!(state.mark_bad(Slot::A));
    assert!(!state.mark_bad(Slot::A));
    assert_eq!((state.choose().slot, state.choose().reason), (Slot::B, Reason::Primary));
    assert_eq!(state.boot_state(Slot::A), BootState::Bad);
    assert!(state.set_primary(Slot::A, 2));
    assert_eq!((state.primary(), state.boot_state(Slot::A)), (Some(Slot::A), BootState::Unknown));
    assert!(!state.set_primary(Slot::A, 2));
    assert!(state.mark_bad(Slot::B) && state.mark_bad(Slot::A));
    assert_eq!((state.choose().slot, state.primary()), (Slot::R, None));
    assert!(state.mark_good(Slot::B, 2) && state.mark_good(Slot::A, 2));
    assert_eq!((state.order.as_slice(), state.boot_state(Slot::A)), ([Slot::B, Slot::A].as_slice(), BootState::Good));
    assert_eq!([Slot::A, Slot::B, Slot::R].map(Slot::other), [Some(Slot::B), Some(Slot::A), None]);
}

#[test]
fn recovery_is_entered_once_per_verdict() {
    let mut state = SlotsState::fresh(3);
    assert!(state.enter_recovery("d1") && !state.enter_recovery("d1"));
    assert!(state.enter_recovery("d2"));
}

#[test]
fn random_histories_keep_the_invariants() {
    let mut dice = Dice(0x5eed_0001);
    let (mut starts, mut fallbacks) = (0_u64, 0_u64);
    for history in 0..5000 {
        let tries = u32::try_from(1 + dice.roll(5)).unwrap();
        let works = [dice.roll(3) > 0, dice.roll(3) > 0];
        let mut state = SlotsState::fresh(tries);
        let mut disk = Disk::default();
        let mut power = false;
        let mut starts_without_mark = [0_u32; 2];
        for _ in 0..60 {
            let read = disk.read(tries);
            assert_eq!(read.state, state, "history {history}: what was durable comes back");
            let slot = boot(&mut state, power);
            disk.write(&read, &state);
            starts += 1;
            assert!(state.refunds_in_row <= REFUNDS_IN_ROW);
            assert!(state.a.left <= tries && state.b.left <= tries);
            let index = match slot {
                Slot::A => 0,
                Slot::B => 1,
                Slot::R => {
                    assert_eq!((state.a.left, state.b.left), (0, 0), "R only when both are spent");
                    break;
                }
            };
            fallbacks += u64::from(slot == Slot::B);
            starts_without_mark[index] += 1;
            // Never an endless try of a slot that does not reach its health.
            assert!(starts_without_mark[index] <= tries + REFUNDS_IN_ROW, "history {history}");
            power = dice.roll(3) == 0;
            if !power && works[index] && dice.roll(8) > 0 {
                let read = disk.read(tries);
                if state.mark_good(slot, tries) {
                    disk.write(&read, &state);
                }
                assert!(!state.clone().mark_good(slot, tries));
                assert_eq!(state.boot_state(slot), BootState::Good);
                starts_without_mark = [0; 2];
            }
        }
    }
    println!("{starts} starts in 5000 histories, {fallbacks} of them from slot B");
}

#[derive(Clone, Default)]
struct Disk([Option<Vec<u8>>; 2]);

impl Disk {
    fn read(&self, tries: u32) -> FileState {
        file::read(self.0[0].as_deref(), self.0[1].as_deref(), tries)
    }

    fn write(&mut self, read: &FileState, state: &SlotsState) {
        let next = read.encode_next(state).unwrap();
        self.0[next.index] = Some(next.bytes);
    }
}

#[test]
fn a_cut_at_any_byte_of_a_write_leaves_the_old_state_or_the_new() {
    let mut disk = Disk::default();
    let mut old = SlotsState::fresh(3);
    for step in 0..6 {
        let read = disk.read(3);
        let mut new = old.clone();
        boot(&mut new, step % 2 == 0);
        let next = read.encode_next(&new).unwrap();
        let before = disk.0[next.index].clone();
        for cut in 0..=next.bytes.len() {
            // Truncated and rewritten up to the cut; or rewritten in place up to the cut, the rest still old.
            let short = next.bytes[..cut].to_vec();
            let mut mixed = before.clone().unwrap_or_default();
            mixed.splice(..cut.min(mixed.len()), next.bytes[..cut].iter().copied());
            for bytes in [short, mixed] {
                let mut torn = disk.clone();
                torn.0[next.index] = Some(bytes);
                let got = torn.read(3);
                assert!(got.state == old || got.state == new, "step {step}, cut at {cut}");
                if got.origin == Origin::Unreadable {
                    assert_eq!(step, 0, "only the very first write has nothing to fall back to");
                }
            }
        }
        disk.0[next.index] = Some(next.bytes);
        old = new;
        assert_eq!(disk.read(3).state, old);
    }
}

#[test]
fn a_failed_write_is_repeated_into_the_same_copy() {
    let mut read = file::read(None, None, 3);
    assert_eq!((read.origin, read.findings.len()), (Origin::New, 0));
    let mut state = read.state.clone();
    let mut indexes = Vec::new();
    for round in 0..6 {
        boot(&mut state, false);
        let next = read.encode_next(&state).unwrap();
        indexes.push(next.index);
        if round % 2 == 1 {
            read.written(next);
        }
    }
    assert_eq!(indexes, [0, 0, 1, 1, 0, 0]);
}

#[test]
fn unreadable_copies_give_defaults_that_are_never_said_to_be_read() {
    let read = file::read(Some(b"junk"), Some(b""), 3);
    assert_eq!((read.origin, read.newest, read.writable), (Origin::Unreadable, None, true));
    assert_eq!(read.state, SlotsState::fresh(3));
    let codes: Vec<_> = read.findings.iter().map(|one| one.code.as_str()).collect();
    assert_eq!(codes, ["slots-copy-damaged", "slots-copy-damaged", "slots-unreadable"]);
}

#[test]
fn one_lost_copy_is_reported_and_the_other_is_used() {
    let mut disk = Disk::default();
    let mut state = SlotsState::fresh(3);
    for _ in 0..2 {
        let read = disk.read(3);
        boot(&mut state, false);
        disk.write(&read, &state);
    }
    let newest = disk.read(3).newest.unwrap();
    disk.0[1 - newest] = None;
    assert_eq!((disk.read(3).state, disk.read(3).findings[0].code.as_str()), (state, "slots-copy-missing"));
}

#[test]
fn copies_of_a_newer_version_are_left_untouched() {
    let good = file::read(None, None, 3).encode_next(&SlotsState::fresh(3)).unwrap().bytes;
    let facts = "pyvorin slots format=99 min_reader=99";
    let crc = crc32fast::hash(format!("{facts}\n{{}}").as_bytes());
    let newer = format!("{facts} crc={crc:08x} len=2\n{{}}");
    let read = file::read(Some(&good), Some(newer.as_bytes()), 3);
    assert_eq!((read.origin, read.writable, read.findings[0].code.as_str()), (Origin::Read, false, "slots-copy-newer"));
    assert_eq!(read.encode_next(&read.state), None);
}

#[test]
fn an_intact_record_with_impossible_contents_is_not_believed() {
    #[derive(serde::Serialize)]
    struct Copy {
        sequence: u64,
        state: SlotsState,
    }
    let ruin: [fn(&mut SlotsState); 4] = [
        |s| s.a.left = 4_000_000_000,
        |s| s.order = vec![Slot::A, Slot::A],
        |s| s.order = vec![Slot::R],
        |s| s.refunds_in_row = 10,
    ];
    for change in ruin {
        let mut state = SlotsState::fresh(3);
        change(&mut state);
        let bytes = record::encode("slots", &Copy { sequence: 1, state });
        assert_eq!(file::read(Some(&bytes), None, 3).origin, Origin::Unreadable);
    }
}
