//! Retention over long histories of backups whose clock jumps, that fail, that fill the disk and are cut while they prune:
//! three verified backups are left whenever there were three, the last one is never deleted, no chain is broken, and what
//! is to be kept for thirty days is. The same checks find fault with retentions that are wrong on purpose.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, missing_docs, dead_code)]

#[path = "support/rng.rs"]
mod rng;

use pyvorin_recovery::retention::{ArchiveName, Backup, Now, Reason, Rule, drops, next_sequence, plan, room};
use rng::Rng;

const DAY: u64 = 86_400;
const START: u64 = 1_795_636_862;
const RULE: Rule = Rule { keep_days: 30, keep_verified: 3 };

/// Decides what goes, in the order of deletion.
type Retention = fn(&[Backup], Rule, Now) -> Vec<String>;

fn ours(backups: &[Backup], rule: Rule, now: Now) -> Vec<String> {
    drops(backups, &plan(backups, rule, now)).into_iter().map(str::to_owned).collect()
}

fn backup(sequence: u64, made: u64, verified: bool, base: Option<u64>) -> Backup {
    let name = |sequence: u64| format!("b{sequence}");
    Backup { name: name(sequence), sequence, made, length: 100, verified, base: base.map(name) }
}

fn known(at: u64) -> Now {
    Now { at, trusted: true, floor: START }
}

/// Written without looking at how the retention does it: can be restored, and every part of it is verified.
fn proved<'a>(backups: &'a [Backup], mut one: &'a Backup) -> bool {
    for _ in 0..=backups.len() {
        if !one.verified {
            return false;
        }
        let Some(base) = &one.base else { return true };
        let Some(next) = backups.iter().find(|b| b.name == *base) else { return false };
        one = next;
    }
    false
}

fn newest(backups: &[Backup]) -> Option<&Backup> {
    backups.iter().max_by_key(|b| b.sequence)
}

/// What must hold between what was there and what is left, whatever the clock says.
fn never_worse(before: &[Backup], after: &[Backup], rule: Rule) -> Result<(), String> {
    let count = |list: &[Backup]| list.iter().filter(|b| proved(list, b)).count();
    let (had, has, wants) = (count(before), count(after), rule.keep_verified as usize);
    if has < had.min(wants) {
        return Err(format!("{has} verified are left of {had}"));
    }
    let best = |list: &[Backup]| {
        let all: Vec<Backup> = list.iter().filter(|b| proved(list, b)).cloned().collect();
        newest(&all).map(|b| b.name.clone())
    };
    if best(before) != best(after) {
        return Err(format!("the newest verified was {:?} and is {:?}", best(before), best(after)));
    }
    if newest(before) != newest(after) {
        return Err("the newest is gone".into());
    }
    for b in after {
        let there = |list: &[Backup]| b.base.as_ref().is_none_or(|base| list.iter().any(|x| x.name == *base));
        if there(before) && !there(after) {
            return Err(format!("{} has lost its base", b.name));
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Weather {
    /// The clock is right.
    Fair,
    /// It jumps, is unset, or runs away; sometimes with somebody vouching for it.
    Foul,
}

/// One gateway over some years, one backup after another.
fn history(seed: u64, weather: Weather, retention: Retention) -> Result<(usize, usize), String> {
    let mut rng = Rng::new(seed);
    let mut shelf: Vec<Backup> = Vec::new();
    let (mut time, mut floor, mut recorded) = (START, START, 0);
    let (mut deleted, mut full) = (0, None);
    let space = rng.between(4, 60);
    let bad_luck = rng.between(0, 60);
    for run in 0..rng.between(5, 120) {
        time += rng.between(1, 3 * DAY as usize) as u64 + if rng.chance(3) { 200 * DAY } else { 0 };
        let (clock, trusted) = match weather {
            Weather::Fair => (time, true),
            Weather::Foul => match rng.below(6) {
                0 => (rng.below(1000) as u64, rng.chance(50)),
                1 => (4_294_967_295 - rng.below(1000) as u64, rng.chance(50)),
                2 => (time - time.min(rng.below(400) as u64 * DAY), rng.chance(50)),
                3 => (time + rng.below(400) as u64 * DAY, rng.chance(50)),
                _ => (time, true),
            },
        };
        if rng.chance(5) {
            recorded = 0; // the card with the state was replaced
        }
        // Made, failed while it was written, or failed to verify.
        if !rng.chance(bad_luck) && shelf.len() < space {
            let sequence = next_sequence(&shelf, Some(recorded));
            recorded = sequence;
            let verified = !rng.chance(bad_luck);
            let base = full.filter(|f| rng.chance(70) && shelf.iter().any(|b| b.sequence == *f));
            shelf.push(backup(sequence, clock, verified, base));
            full = if base.is_some() && rng.chance(80) { full } else { Some(sequence) };
            assert_eq!(newest(&shelf).unwrap().sequence, sequence);
        }
        if trusted && matches!(weather, Weather::Fair) {
            floor = clock;
        }
        let now = Now { at: clock, trusted, floor };
        let mut gone = retention(&shelf, RULE, now);
        if (!trusted || clock < floor) && !gone.is_empty() {
            return Err(format!("run {run}: deletes by a clock that proves nothing"));
        }
        if matches!(weather, Weather::Fair) {
            let young = |b: &&Backup| time - b.made <= 30 * DAY;
            if let Some(b) = shelf.iter().filter(young).find(|b| gone.contains(&b.name)) {
                return Err(format!("run {run}: {} is {} days old", b.name, (time - b.made) / DAY));
            }
        }
        if shelf.len() >= space {
            let decisions = room(&shelf, RULE, 100);
            gone.extend(
                drops(&shelf, &decisions)
                    .into_iter()
                    .filter(|n| !gone.iter().any(|g| g == n))
                    .map(str::to_owned)
                    .collect::<Vec<_>>(),
            );
        }
        // The power goes after any of the deletions.
        gone.truncate(if rng.chance(30) { rng.below(gone.len() + 1) } else { gone.len() });
        for name in gone {
            let before = shelf.clone();
            shelf.retain(|b| b.name != name);
            deleted += 1;
            never_worse(&before, &shelf, RULE).map_err(|why| format!("run {run}: {name} deleted: {why}"))?;
        }
    }
    Ok((shelf.len(), deleted))
}

fn histories(weather: Weather, count: u64, retention: Retention) -> Result<(usize, usize), String> {
    let count = std::env::var("RETENTION_ROUNDS").map_or(count, |n| n.parse().unwrap());
    let mut sum = (0, 0);
    for seed in 0..count {
        let one = history(seed, weather, retention).map_err(|why| format!("seed {seed}, {weather:?}: {why}"))?;
        sum = (sum.0 + one.0, sum.1 + one.1);
    }
    println!("{count} histories, {weather:?}: {} deleted, {} left", sum.1, sum.0);
    Ok(sum)
}

#[test]
fn over_random_clocks_failures_full_disks_and_cuts_nothing_is_lost_that_must_be_kept() {
    for weather in [Weather::Fair, Weather::Foul] {
        let (_, deleted) = histories(weather, 300, ours).unwrap_or_else(|why| panic!("{why}"));
        assert!(deleted > 5000, "only {deleted} were deleted; the histories are too kind");
    }
}

/// Without these the test above could not be believed.
#[test]
fn the_histories_find_fault_with_retentions_that_are_wrong() {
    fn by_age_alone(backups: &[Backup], _: Rule, now: Now) -> Vec<String> {
        // find -mtime +30 -delete
        let old = |b: &&Backup| now.at.saturating_sub(b.made) > 30 * DAY;
        backups.iter().filter(old).map(|b| b.name.clone()).collect()
    }
    fn one_too_few(backups: &[Backup], rule: Rule, now: Now) -> Vec<String> {
        ours(backups, Rule { keep_verified: rule.keep_verified - 1, ..rule }, now)
    }
    fn a_day_too_early(backups: &[Backup], rule: Rule, now: Now) -> Vec<String> {
        ours(backups, Rule { keep_days: rule.keep_days - 1, ..rule }, now)
    }
    fn any_clock(backups: &[Backup], rule: Rule, now: Now) -> Vec<String> {
        ours(backups, rule, Now { trusted: true, floor: now.at, ..now })
    }
    fn bases_forgotten(backups: &[Backup], rule: Rule, now: Now) -> Vec<String> {
        let decisions = plan(backups, rule, now);
        let goes = |d: &&pyvorin_recovery::retention::Decision| !d.keep || matches!(d.reason, Reason::Base { .. });
        decisions.iter().filter(goes).map(|d| d.name.clone()).collect()
    }
    fn bases_first(backups: &[Backup], rule: Rule, now: Now) -> Vec<String> {
        ours(backups, rule, now).into_iter().rev().collect()
    }
    fn verified_alone(backups: &[Backup], rule: Rule, now: Now) -> Vec<String> {
        // The newest one failed to verify, and is taken for worthless.
        let mut gone = ours(backups, rule, now);
        gone.extend(
            newest(backups).filter(|b| !b.verified && now.trusted && now.at >= now.floor).map(|b| b.name.clone()),
        );
        gone
    }
    fn unverified_count_too(backups: &[Backup], rule: Rule, now: Now) -> Vec<String> {
        let all: Vec<Backup> = backups.iter().cloned().map(|b| Backup { verified: true, ..b }).collect();
        ours(&all, rule, now)
    }
    fn by_time_of_the_name(backups: &[Backup], rule: Rule, now: Now) -> Vec<String> {
        let mut order: Vec<Backup> = backups.to_vec();
        order.sort_by_key(|b| b.made);
        let renumbered: Vec<Backup> = (1..).zip(order).map(|(sequence, b)| Backup { sequence, ..b }).collect();
        ours(&renumbered, rule, now)
    }
    let wrong: [(&str, Retention); 9] = [
        ("by age alone", by_age_alone),
        ("one too few", one_too_few),
        ("a day too early", a_day_too_early),
        ("any clock", any_clock),
        ("bases forgotten", bases_forgotten),
        ("bases first", bases_first),
        ("verified alone", verified_alone),
        ("unverified count too", unverified_count_too),
        ("by the time in the name", by_time_of_the_name),
    ];
    for (name, retention) in wrong {
        let found = [Weather::Fair, Weather::Foul].into_iter().find_map(|w| histories(w, 300, retention).err());
        println!("{name}: {}", found.unwrap_or_else(|| panic!("{name} passes")));
    }
}

#[test]
fn thirty_days_are_kept_and_then_three() {
    let daily: Vec<Backup> = (1..=100).map(|n| backup(n, START + n * DAY, true, None)).collect();
    let after = |days: u64| plan(&daily, RULE, known(START + (100 + days) * DAY)).iter().filter(|d| d.keep).count();
    assert_eq!((after(0), after(10), after(27), after(28), after(29), after(500)), (31, 21, 4, 3, 3, 3));
    let decisions = plan(&daily, RULE, known(START + 100 * DAY));
    assert_eq!((&decisions[0].reason, &decisions[2].reason), (&Reason::Newest, &Reason::NewestVerified));
    assert_eq!(decisions[30].reason, Reason::Young { days: Some(30) });
    assert_eq!((decisions[31].keep, &decisions[31].reason), (false, &Reason::Old { days: 31 }));
}

#[test]
fn failed_backups_of_months_do_not_push_the_last_good_ones_out() {
    let mut all: Vec<Backup> = (1..=3).map(|n| backup(n, START + n * DAY, true, None)).collect();
    all.extend((4..200).map(|n| backup(n, START + n * DAY, false, None)));
    let decisions = plan(&all, RULE, known(START + 200 * DAY));
    let kept: Vec<&str> = decisions.iter().filter(|d| d.keep).map(|d| d.name.as_str()).collect();
    assert_eq!(&kept[kept.len() - 3..], ["b3", "b2", "b1"]);
    // Nor does an increment whose base failed to verify count as one.
    all.push(backup(200, START + 200 * DAY, true, Some(199)));
    let decisions = plan(&all, RULE, known(START + 900 * DAY));
    let kept: Vec<&str> = decisions.iter().filter(|d| d.keep).map(|d| d.name.as_str()).collect();
    assert_eq!(kept, ["b200", "b199", "b3", "b2", "b1"]);
}

#[test]
fn the_last_one_stays_though_it_is_old_and_never_was_verified() {
    let one = [backup(1, 0, false, None)];
    assert_eq!(plan(&one, RULE, known(START + 9000 * DAY))[0].reason, Reason::Newest);
    let rule = Rule { keep_days: 0, keep_verified: 0 };
    let two = [backup(1, 0, true, None), backup(2, 0, false, None)];
    assert!(plan(&two, rule, known(START + 9000 * DAY)).iter().all(|d| d.keep), "the last verified one stays too");
    assert!(room(&two, rule, u64::MAX).iter().all(|d| d.keep));
    assert!(plan(&[], RULE, known(START)).is_empty());
}

#[test]
fn nothing_goes_by_a_clock_that_proves_nothing() {
    let daily: Vec<Backup> = (1..=100).map(|n| backup(n, START + n * DAY, true, None)).collect();
    // Where no floor is known yet, a clock of today is believed.
    assert!(plan(&daily, RULE, Now { floor: 0, ..known(START + 200 * DAY) }).iter().any(|d| !d.keep));
    for now in [
        Now { at: 4_294_967_295, trusted: true, floor: 0 },
        Now { at: 12, trusted: true, floor: START },
        Now { at: START + 5000 * DAY, trusted: false, floor: START },
        Now { at: START - 1, trusted: true, floor: START },
        Now { at: 4_294_967_295, trusted: true, floor: START },
    ] {
        let decisions = plan(&daily, RULE, now);
        assert!(decisions.iter().all(|d| d.keep && d.reason == Reason::NoClock), "{now:?}");
    }
}

/// The clock was wrong when they were made, and is right now.
#[test]
fn a_time_in_a_name_is_held_against_its_neighbours() {
    let now = START + 100 * DAY;
    let mut all: Vec<Backup> = (1..=8).map(|n| backup(n, START + (90 + n) * DAY, true, None)).collect();
    all[3].made = 77; // made in 1970, between two of this week
    assert!(plan(&all, RULE, known(now)).iter().all(|d| d.keep));
    all[3].made = 4_294_967_295;
    let decisions = plan(&all, RULE, known(now));
    assert_eq!((&decisions[4].name[..], &decisions[4].reason), ("b4", &Reason::Young { days: Some(5) }));
    // It does not stay for ever, either.
    let kept = plan(&all, RULE, known(now + 60 * DAY)).iter().filter(|d| d.keep).count();
    assert_eq!(kept, 3);
    // All of them from the future: nothing says how old they are.
    all.iter_mut().for_each(|b| b.made = 4_294_967_295);
    assert!(plan(&all, RULE, known(now)).iter().all(|d| d.keep));
}

#[test]
fn a_base_stays_as_long_as_its_newest_kept_increment_and_goes_after_it() {
    let mut all = vec![backup(1, START, true, None)];
    all.extend((2..=40).map(|n| backup(n, START + n * DAY, true, Some(n - 1))));
    let decisions = plan(&all, RULE, known(START + 40 * DAY));
    assert!(decisions.iter().all(|d| d.keep), "each needs all before it");
    assert_eq!(decisions.last().unwrap().reason, Reason::Base { of: "b2".into() });
    all.extend((41..=44).map(|n| backup(n, START + n * DAY, true, None)));
    let decisions = plan(&all, RULE, known(START + 90 * DAY));
    let order = drops(&all, &decisions);
    assert_eq!((order.len(), order[0], order[39], order[40]), (41, "b40", "b1", "b41"));
}

#[test]
fn chains_without_an_end_or_a_beginning_are_no_verified_backups_and_cost_no_time() {
    // 1 and 2 need each other, 3 needs what is not there.
    let odd = [
        backup(1, 0, true, Some(2)),
        backup(2, 0, true, Some(1)),
        backup(3, 0, true, Some(99)),
        backup(4, 0, true, None),
    ];
    let kept: Vec<String> = plan(&odd, RULE, known(START)).into_iter().filter(|d| d.keep).map(|d| d.name).collect();
    assert_eq!(kept, ["b4"]);
    assert_eq!(room(&odd, RULE, u64::MAX).iter().filter(|d| d.keep).count(), 1);
    // One chain of all: a walk from each would be of the order of 10^10 steps.
    let many: Vec<Backup> = (1..=100_000).map(|n| backup(n, START, true, (n > 1).then(|| n - 1))).collect();
    assert!(plan(&many, RULE, known(START + 90 * DAY)).iter().all(|d| d.keep));
    assert!(room(&many, RULE, 1000).iter().all(|d| d.keep));
    assert!(drops(&many, &plan(&many, RULE, known(START))).is_empty());
}

#[test]
fn room_takes_no_more_than_is_needed_the_oldest_first_and_whole_chains() {
    let mut all = vec![backup(1, START, true, None), backup(2, START, true, Some(1)), backup(3, START, true, Some(1))];
    all.extend((4..=10).map(|n| backup(n, START, true, None)));
    let goes = |wanted| {
        let decisions = room(&all, RULE, wanted);
        drops(&all, &decisions).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(goes(0).is_empty());
    assert_eq!(goes(1), ["b2", "b3", "b1"]);
    assert_eq!(goes(301), ["b2", "b3", "b1", "b4"]);
    assert_eq!(goes(u64::MAX).len(), 7, "the newest three stay however much is wanted");
}

#[test]
fn sequence_numbers_go_on_where_the_state_was_lost() {
    let all = [backup(7, START, true, None), backup(41, 0, true, None)];
    assert_eq!(next_sequence(&all, None), 42);
    assert_eq!(next_sequence(&all, Some(50)), 51);
    assert_eq!(next_sequence(&[], None), 1);
    assert_eq!(next_sequence(&[backup(u64::MAX, 0, true, None)], None), u64::MAX);
    assert!(ArchiveName::new("GW-042", START, next_sequence(&all, None)).is_some());
}
