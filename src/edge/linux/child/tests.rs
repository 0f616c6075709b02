//! Children that finish, die, hang, chatter and lie.

use super::*;

fn limits(silence_ms: u64, overall_ms: u64) -> Limits {
    Limits {
        silence: Duration::from_millis(silence_ms),
        overall: Duration::from_millis(overall_ms),
        memory: u64::MAX,
        private_mounts: false,
    }
}

fn sleep(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

#[test]
fn a_result_arrives_whole() {
    let mut lines = Vec::new();
    let big: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let report = run(limits(5000, 20000), &mut |l| lines.push(l.to_owned()), |tell| {
        tell.stage("sense");
        tell.line("one\ntwo");
        tell.line("result:1");
        tell.stage("plan");
        big.clone()
    })
    .unwrap();
    assert_eq!(report, ChildReport { end: ChildEnd::Finished(big), last_stage: Some("plan".into()) });
    assert_eq!(lines, ["stage:sense", "one two", " result:1", "stage:plan"]);
}

#[test]
fn a_death_names_its_stage() {
    let report = run(limits(5000, 20000), &mut |_| {}, |tell| {
        tell.stage("act");
        std::process::abort()
    })
    .unwrap();
    assert_eq!(report, ChildReport { end: ChildEnd::Died("signal SIGABRT".into()), last_stage: Some("act".into()) });
}

#[test]
fn silence_ends_a_child() {
    let before = uptime_ms();
    let report = run(limits(300, 20000), &mut |_| {}, |tell| {
        tell.stage("assess");
        sleep(60_000);
        Vec::new()
    })
    .unwrap();
    assert_eq!(report, ChildReport { end: ChildEnd::TimedOut, last_stage: Some("assess".into()) });
    assert!(uptime_ms() - before < 5_000);
}

#[test]
fn a_sign_of_life_extends_the_deadline_and_the_overall_limit_stands() {
    let chatter = |rounds: u32| {
        run(limits(400, 2500), &mut |_| {}, move |tell| {
            for i in 0..rounds {
                sleep(100);
                tell.line(&format!("{i}"));
            }
            b"done".to_vec()
        })
        .unwrap()
        .end
    };
    assert_eq!(chatter(10), ChildEnd::Finished(b"done".to_vec()));
    assert_eq!(chatter(1000), ChildEnd::TimedOut);
}

#[test]
fn memory_is_limited() {
    let limits = Limits { memory: 4 << 30, ..limits(10_000, 20_000) };
    let report = run(limits, &mut |_| {}, |_| {
        let mut block: Vec<u8> = Vec::new();
        let refused = block.try_reserve_exact(8 << 30).is_err();
        vec![u8::from(refused)]
    })
    .unwrap();
    assert_eq!(report.end, ChildEnd::Finished(vec![1]));
}

#[test]
fn lies_on_the_pipe_are_not_believed() {
    for lie in ["result:99999999999999999999\n", "result:-1\n", "result:\n", "result:5\nabc", "stage:x", "\u{0}\n\n"] {
        let mut ear = Ear::default();
        for byte in lie.bytes() {
            ear.hear(&[byte], &mut |_| {});
        }
        assert_eq!(ear.whole_result(), None, "{lie:?}");
    }
    let mut ear = Ear::default();
    ear.hear(&vec![b'x'; 10 * LONGEST_LINE], &mut |_| {});
    assert!(ear.partial.len() <= LONGEST_LINE);
    let mut ear = Ear::default();
    ear.hear(b"stage:a\nresult:3\nabcdef", &mut |_| {});
    assert_eq!((ear.whole_result(), ear.last_stage), (Some(b"abc".to_vec()), Some("a".into())));
}

#[test]
fn a_program_of_a_killed_child_dies_with_it() {
    let mut pid = String::new();
    let mut keep = |line: &str| {
        if let Some(number) = line.strip_prefix("pid ") {
            pid = number.to_owned();
        }
    };
    let report = run(limits(300, 20000), &mut keep, |tell| {
        #[allow(clippy::disallowed_methods)]
        let mut program = std::process::Command::new("/bin/sleep").arg("50").spawn().unwrap();
        tell.line(&format!("pid {}", program.id()));
        let _ = program.wait();
        Vec::new()
    })
    .unwrap();
    assert_eq!(report.end, ChildEnd::TimedOut);
    // Here its orphan is init's to collect, so it may be seen as a zombie for a moment.
    let stat = std::path::PathBuf::from(format!("/proc/{pid}/stat"));
    let alive = || super::super::file::read_text(&stat).is_ok_and(|text| !text.contains(") Z "));
    let deadline = uptime_ms() + 5_000;
    while alive() && uptime_ms() < deadline {
        sleep(5);
    }
    assert!(!pid.is_empty() && !alive());
}
