//! `audit` from the command line: records of ours verify in the Python model of the agent, in every dialect and whatever
//! comes between; nothing is written while the agent has the chain open; cut ends and edits are told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use support::agent::python;
use support::crash::{self, Files, Setup};
use support::rng::Rng;
use support::site::{Run, Site, changed};
use support::work::Kind;

fn with_chain(seed: u64, count: u32, dialect: u32, genesis: &str) -> Site {
    let site = Site::bare();
    let db = site.db();
    python(&["write", db.to_str().unwrap(), &seed.to_string(), &count.to_string(), &dialect.to_string(), genesis]);
    site
}

fn model(site: &Site, dialect: u32) -> String {
    python(&["verify", site.db().to_str().unwrap(), &dialect.to_string()]).trim().to_string()
}

fn chain(run: &Run) -> serde_json::Value {
    run.json.as_ref().unwrap_or_else(|| panic!("{} {}", run.stdout, run.stderr))["chain"].clone()
}

fn log(site: &Site, action: &str) -> Run {
    site.run(&["--technician", "T-042", "audit", "log", action, "--details", r#"{"reason": "café", "n": 1e-5}"#])
}

fn number(run: &Run, key: &str) -> i64 {
    run.json.as_ref().unwrap_or_else(|| panic!("{} {}", run.stdout, run.stderr))[key].as_i64().unwrap_or(-1)
}

#[test]
fn records_of_ours_verify_in_the_model_and_the_models_behind_them_here() {
    // Both values of each of the four choices, and each genesis; all sixteen are compared in audit_chain.
    for dialect in [0, 5, 10, 15] {
        let genesis = ["zeros", "empty", "null", "word"][dialect as usize % 4];
        let site = with_chain(u64::from(dialect), 20, dialect, genesis);
        let run = log(&site, "card_replaced");
        assert_eq!((run.code, number(&run, "folded")), (0, 1), "{dialect}: {} {}", run.stdout, run.stderr);
        assert!(model(&site, dialect).starts_with("ok 21 "), "{dialect}: {}", model(&site, dialect));
        let path = site.db();
        python(&["write", path.to_str().unwrap(), "77", "5", &dialect.to_string(), genesis]);
        let run = site.run(&["audit", "verify"]);
        let chain = chain(&run);
        assert_eq!(
            (run.code, chain["state"].as_str(), chain["records"].as_u64()),
            (0, Some("intact"), Some(26)),
            "{}",
            run.stdout
        );
        assert_eq!(chain["waiting"], 0);
    }
}

#[test]
fn verify_and_show_write_nothing() {
    let site = with_chain(3, 10, 0, "zeros");
    log(&site, "card_replaced");
    let before = site.tree();
    for line in [&["audit", "verify"][..], &["audit", "show"], &["audit", "show", "--last", "3"]] {
        let run = site.run(line);
        assert_eq!(run.code, 0, "{line:?} {}", run.stderr);
    }
    assert_eq!(changed(&before, &site.tree()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn while_the_agent_has_the_chain_open_events_wait_and_go_in_once() {
    let site = with_chain(4, 10, 2, "zeros");
    let agent = rusqlite::Connection::open(site.db()).unwrap();
    agent.query_row("SELECT count(*) FROM privacy_audit", [], |r| r.get::<_, i64>(0)).unwrap();
    let files = |site: &Site| (std::fs::read(site.db()).unwrap(), std::fs::read(site.side("-wal")).ok());
    let before = files(&site);
    for n in 1..=3 {
        let run = log(&site, "card_replaced");
        assert_eq!((run.code, number(&run, "folded"), number(&run, "waiting")), (0, 0, n), "{}", run.stdout);
        assert!(run.stdout.contains("is open in"), "{}", run.stdout);
    }
    assert_eq!(files(&site), before, "the chain of a running agent was touched");
    drop(agent);
    let run = site.run(&["audit", "fold"]);
    assert_eq!(number(&run, "folded"), 3, "{} {}", run.stdout, run.stderr);
    assert!(model(&site, 2).starts_with("ok 13 "));
    assert_eq!(number(&site.run(&["audit", "fold"]), "folded"), 0);
    assert!(model(&site, 2).starts_with("ok 13 "));
}

#[test]
fn records_that_went_in_before_a_cut_are_not_put_in_again() {
    let site = with_chain(5, 10, 0, "zeros");
    log(&site, "card_replaced");
    log(&site, "fan_cleaned");
    // The cut fell between the commit in the chain and the line that says so in our journal.
    let journal = site.root().join("var/lib/pyvorin-recovery/audit.log");
    let text = String::from_utf8(std::fs::read(&journal).unwrap()).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    assert!(lines.last().unwrap().contains("\"event\":\"folded\""));
    std::fs::write(&journal, lines[..lines.len() - 1].concat()).unwrap();
    let run = site.run(&["audit", "fold"]);
    assert_eq!((run.code, number(&run, "folded")), (0, 0), "{}", run.stdout);
    assert!(model(&site, 0).starts_with("ok 12 "));
    assert_eq!(site.run(&["audit", "verify"]).code, 0);
}

#[test]
fn a_repair_is_recorded_once_and_bridges_the_chain() {
    let site = Site::bare();
    let scratch = support::site::Scratch::new("killed");
    let live = scratch.path().join("live.db");
    python(&["write", live.to_str().unwrap(), "6", "40", "0", "zeros"]);
    let conn = rusqlite::Connection::open(&live).unwrap();
    conn.execute_batch("PRAGMA wal_autocheckpoint=0; CREATE TABLE readings (id INTEGER PRIMARY KEY, v REAL)").unwrap();
    for n in 0..50 {
        conn.execute("INSERT INTO readings (v) VALUES (?1)", [f64::from(n)]).unwrap();
    }
    let mut files = Files::read(&live);
    Rng::new(1).fill(&mut files.wal.as_mut().unwrap()[..512]);
    files.write(&site.db());
    let run = site.run(&["--technician", "T-042", "repair"]);
    assert_eq!(run.code & 1, 1, "{} {}", run.stdout, run.stderr);
    let run = site.run(&["audit", "show"]);
    let journal = run.json.as_ref().unwrap()["journal"].clone();
    assert_eq!(journal.as_array().unwrap().len(), 1, "{journal}");
    let details: serde_json::Value = serde_json::from_str(journal[0]["details"].as_str().unwrap()).unwrap();
    assert_eq!((journal[0]["event"].as_str(), journal[0]["by"].as_str()), (Some("repair"), Some("T-042")));
    assert_eq!(
        (details["action"].as_str(), details["chain_head"]["id"].as_i64()),
        (details["action"].as_str(), Some(40)),
        "{details}"
    );
    let run = site.run(&["audit", "fold"]);
    assert_eq!(number(&run, "folded"), 1, "{} {}", run.stdout, run.stderr);
    assert!(model(&site, 0).starts_with("ok 41 "), "{}", model(&site, 0));
    let run = site.run(&["audit", "verify"]);
    assert_eq!((run.code, chain(&run)["state"].as_str()), (0, Some("intact")), "{}", run.stdout);
    // A second repair has nothing to do and says nothing.
    let before = site.tree();
    site.run(&["--technician", "T-042", "repair"]);
    assert_eq!(changed(&before, &site.tree()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_cut_end_shows_against_an_anchor_kept_elsewhere_and_against_our_journal() {
    let site = with_chain(8, 30, 0, "zeros");
    let anchor = site.root().join("anchor.json");
    std::fs::write(&anchor, site.run(&["audit", "verify"]).stdout).unwrap();
    let verify = |site: &Site| site.run(&["audit", "verify", "--anchor", anchor.to_str().unwrap()]);
    let run = verify(&site);
    assert_eq!(run.code, 0, "{}", run.stdout);
    assert!(run.json.as_ref().unwrap()["anchor_age_seconds"].is_u64());
    let conn = rusqlite::Connection::open(site.db()).unwrap();
    conn.execute("DELETE FROM privacy_audit WHERE id > 25", []).unwrap();
    drop(conn);
    assert_eq!(site.run(&["audit", "verify"]).code, 0, "without an anchor it cannot be seen");
    let run = verify(&site);
    assert_eq!((run.code, chain(&run)["state"].as_str()), (4, Some("shortened")), "{}", run.stdout);
    // What our own journal has seen is an anchor too.
    log(&site, "card_replaced");
    let conn = rusqlite::Connection::open(site.db()).unwrap();
    conn.execute("DELETE FROM privacy_audit WHERE id > 24", []).unwrap();
    drop(conn);
    let run = site.run(&["audit", "verify"]);
    assert_eq!((run.code, chain(&run)["state"].as_str()), (4, Some("shortened")), "{}", run.stdout);
}

#[test]
fn edits_of_the_chain_and_of_our_journal_are_named() {
    let site = with_chain(9, 40, 0, "zeros");
    log(&site, "card_replaced");
    let conn = rusqlite::Connection::open(site.db()).unwrap();
    conn.execute("UPDATE privacy_audit SET action = 'harmless' WHERE id = 7", []).unwrap();
    drop(conn);
    let run = site.run(&["audit", "verify"]);
    let chain = chain(&run);
    assert_eq!((run.code, chain["first_breaks"][0]["id"].as_i64()), (4, Some(7)), "{}", run.stdout);
    // A broken chain still takes records at its end, and that is said.
    let run = log(&site, "fan_cleaned");
    assert_eq!(number(&run, "folded"), 1, "{}", run.stdout);
    assert!(run.stdout.contains("breaks before its end"), "{}", run.stdout);
    let journal = site.root().join("var/lib/pyvorin-recovery/audit.log");
    let text = String::from_utf8(std::fs::read(&journal).unwrap()).unwrap();
    std::fs::write(&journal, text.replacen("T-042", "T-043", 1)).unwrap();
    let run = site.run(&["audit", "verify"]);
    let ours = &run.json.as_ref().unwrap()["journal"];
    assert_eq!((run.code, ours["state"].as_str()), (4, Some("broken")), "{}", run.stdout);
    assert!(ours["breaks"][0].as_str().unwrap().contains("line 1"), "{ours}");
}

#[test]
fn bad_input_is_told_and_loses_nothing() {
    let refused = |run: &Run, code: i32, word: &str| {
        assert_eq!(run.code, code, "{word}: {} {}", run.stdout, run.stderr);
        assert!(run.stderr.contains(word) && run.stderr.contains("next: "), "{word}: {}", run.stderr);
    };
    let site = with_chain(10, 5, 0, "zeros");
    let before = site.tree();
    refused(&site.run(&["audit", "log", "x", "--details", "[1]"]), 16, "no JSON object");
    refused(&site.run(&["audit", "log", "x", "--details", "{"]), 16, "missing at byte");
    refused(&site.run(&["audit", "log", "folded"]), 16, "our own");
    let big = format!("{{\"x\": \"{}\"}}", "y".repeat(5000));
    refused(&site.run(&["audit", "log", "x", "--details", &big]), 16, "longer than");
    refused(&site.run(&["audit", "verify", "--anchor", "/nonexistent"]), 8, "cannot read the anchor");
    let config = site.config();
    refused(&site.run(&["audit", "verify", "--anchor", config.to_str().unwrap()]), 8, "cannot understand the anchor");
    assert_eq!(changed(&before, &site.tree()), Vec::<std::path::PathBuf>::new());

    // No chain, no database, another table of that name: the event stays in our journal, exit 0.
    for sql in ["DROP TABLE privacy_audit", "DROP TABLE privacy_audit; CREATE TABLE privacy_audit (x)", ""] {
        let site = with_chain(11, 5, 0, "zeros");
        match sql {
            "" => std::fs::remove_file(site.db()).unwrap(),
            sql => rusqlite::Connection::open(site.db()).unwrap().execute_batch(sql).unwrap(),
        }
        let run = log(&site, "card_replaced");
        assert_eq!((run.code, number(&run, "waiting")), (0, 1), "{sql}: {} {}", run.stdout, run.stderr);
        let run = site.run(&["audit", "verify"]);
        assert!(chain(&run)["absent"].is_string(), "{}", run.stdout);
    }
    // A state directory that cannot be written.
    let site = with_chain(12, 5, 0, "zeros");
    let state = site.root().join("var/lib/pyvorin-recovery");
    std::fs::remove_dir(&state).unwrap();
    std::fs::write(&state, "a file").unwrap();
    let run = log(&site, "card_replaced");
    assert_eq!(run.code, 8, "{} {}", run.stdout, run.stderr);
    assert!(model(&site, 0).starts_with("ok 5 "));
}

#[test]
fn a_second_instance_waits_and_is_then_told() {
    let site = with_chain(13, 5, 0, "zeros");
    let state = std::fs::File::open(site.root().join("var/lib/pyvorin-recovery")).unwrap();
    let held = nix::fcntl::Flock::lock(state, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
    let run = log(&site, "card_replaced");
    assert_eq!(run.code, 8, "{} {}", run.stdout, run.stderr);
    assert!(run.stderr.contains("another pyvorin-recovery is at work"), "{}", run.stderr);
    drop(held);
    assert_eq!(log(&site, "card_replaced").code, 0);
}

#[test]
fn an_empty_chain_gets_a_guess_and_says_so() {
    let site = with_chain(14, 0, 0, "zeros");
    let run = log(&site, "card_replaced");
    assert_eq!(number(&run, "folded"), 1, "{} {}", run.stdout, run.stderr);
    assert!(run.stdout.contains("a guess was written"), "{}", run.stdout);
    assert!(model(&site, 0).starts_with("ok 1 "));
}

#[test]
fn a_killed_agents_log_is_read_with_the_chain() {
    let site = Site::bare();
    let killed = crash::kill(&Setup::new(Kind::Append, 4096, 0), 20, false, &mut Rng::new(3));
    killed.files.write(&site.db());
    let run = log(&site, "card_replaced");
    assert_eq!((run.code, number(&run, "waiting")), (0, 1), "{} {}", run.stdout, run.stderr);
}
