//! What a technician and operations read, pinned.

use super::{Ending, Loss, Place, REPORT_LEN, RESULT_LEN};
use crate::keyring::{Key, Keyring, Role};
use crate::sign::SigningKey;
use crate::ticket::{
    Accepted, Action, Clock, Code, Facts, Hex, Memory, Policy, Refusal, Target, Ticket, Version, judge,
};

const PLACE: Place<'_> = Place { device: "GW-042", version: Version(0, 1, 0), at: 1_795_636_862, clock_trusted: true };

fn accepted() -> Box<Accepted> {
    let key = SigningKey::new(&[1; 32], [1; 8]).unwrap();
    let ticket = Ticket {
        nonce: Hex([7; 16]),
        counter: 17,
        key: key.public().id(),
        devices: vec![Target { id: "GW-042".into(), recipient_sha256: None }],
        technician: "T-17".into(),
        reason: None,
        issued: 1_795_000_000,
        expires: 1_796_000_000,
        min_version: None,
        action: Action::Enrol,
    };
    let (text, minisig) = ticket.sign(&key).unwrap();
    let ops = Key { public: key.public().clone(), roles: [Role::Restore].into(), name: None };
    let ring = Keyring::new(1, vec![ops], [].into()).unwrap();
    let facts = Facts {
        device: "GW-042",
        recipient: None,
        own_key: None,
        memory: Some(&Memory::default()),
        clock: Clock { now: 1_795_636_862, trusted: true },
        version: Version(0, 1, 0),
        policy: Policy::default(),
    };
    Box::new(judge(text.as_bytes(), Some(minisig.as_bytes()), &ring, &facts).unwrap())
}

fn done(lines: Vec<String>, losses: Vec<Loss>) -> Ending {
    Ending::Done { ticket: accepted(), done: lines, losses, journal: Some((40, "ab".repeat(32))) }
}

fn text(ending: &Ending) -> String {
    let bytes = ending.result_text(&PLACE);
    assert_eq!(bytes.len(), RESULT_LEN);
    String::from_utf8(bytes).unwrap()
}

fn json(ending: &Ending) -> serde_json::Value {
    let bytes = ending.report_json(&PLACE);
    assert_eq!(bytes.len(), REPORT_LEN);
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn the_result_of_a_ticket_is_pinned() {
    let losses = vec![
        Loss { what: "edge_store: readings".into(), rows: Some(1) },
        Loss { what: "edge_store: events".into(), rows: None },
    ];
    let expected = [
        "OK (done)",
        "",
        "The ticket has been carried out. Not everything could be brought back; see below.",
        "Send the stick back to operations: they have to know what is missing.",
        "",
        "Device      GW-042",
        "Time        2026-11-25 20:01:02 UTC",
        "Ticket      enrol number 17, 07070707070707070707070707070707",
        "Technician  T-17 (named by operations in the ticket)",
        "Program     pyvorin-recovery 0.1.0",
        &format!("Journal     record 40, {}", "ab".repeat(32)),
        "",
        "  MISSING  edge_store: readings: 1 row",
        "  MISSING  edge_store: events: nobody can know how many rows",
        "  done     device.pub was written",
    ];
    let ending = done(vec!["device.pub was written".into()], losses);
    assert_eq!(text(&ending).trim_end().replace("\r\n", "\n"), expected.join("\n"));
    let json = json(&ending);
    assert_eq!((&json["result"], &json["code"], &json["counter"]), (&"OK".into(), &"done".into(), &17.into()));
    assert_eq!(json["losses"][1]["rows"], serde_json::Value::Null);
}

#[test]
fn a_refusal_says_what_why_and_what_next() {
    for code in Code::ALL {
        let refusal = Refusal {
            code,
            why: "The why.".into(),
            next: "The next.".into(),
            may_write: true,
            nonce: Some(Hex([1; 16])),
        };
        let ending = Ending::Refused(refusal);
        let text = text(&ending);
        let word = if code == Code::Replayed { "ALREADY DONE" } else { "REFUSED" };
        assert!(
            text.starts_with(&format!("{word} ({})\r\n\r\nThe why.\r\nNothing was changed", code.word())),
            "{text}"
        );
        assert!(text.contains("\r\nThe next.\r\n") && text.contains(&"01".repeat(16)));
        assert_eq!(json(&ending)["code"], code.word());
        assert_eq!(serde_json::to_value(code).unwrap(), code.word(), "one word everywhere");
    }
}

/// Names of tables and messages of the engine come out of damaged databases.
#[test]
fn nothing_from_a_database_can_make_a_report_long_or_control_a_screen() {
    let evil = "\u{1b}[2J\"\\\u{202e}\r\nOK (done)\0é".repeat(200);
    let losses = (0..5000).map(|_| Loss { what: evil.clone(), rows: Some(u64::MAX) }).collect();
    let ending = done(vec!["\"\\".repeat(1000); 5000], losses);
    let text = text(&ending);
    assert!(text.starts_with("OK (done)\r\n") && text.contains("more stands in report.json"));
    assert_eq!(text.matches("\nOK").count(), 0, "a line of its own cannot be forged");
    assert!(text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\r' | b'\n')));
    let report = String::from_utf8(ending.report_json(&PLACE)).unwrap();
    assert!(report.bytes().all(|b| matches!(b, b' '..=b'~' | b'\n')));
    assert_eq!(json(&ending)["losses"].as_array().unwrap().len(), 60);
    let failed = Ending::Failed { ticket: accepted(), code: "x".into(), why: evil.clone(), next: evil };
    assert!(text_is_plain(&failed));
}

fn text_is_plain(ending: &Ending) -> bool {
    text(ending).bytes().all(|b| matches!(b, b' '..=b'~' | b'\r' | b'\n'))
}

#[test]
fn only_a_ticket_that_is_trusted_is_answered_on_the_stick() {
    let refused = |may_write| {
        Ending::Refused(Refusal { code: Code::Forged, why: String::new(), next: String::new(), may_write, nonce: None })
    };
    assert!(!refused(false).may_write() && refused(true).may_write() && done(vec![], vec![]).may_write());
}

#[test]
fn a_clock_that_nobody_has_set_is_said_to_be_one() {
    let place = Place { at: 12, clock_trusted: false, ..PLACE };
    let text = String::from_utf8(done(vec![], vec![]).result_text(&place)).unwrap();
    assert!(text.contains("1970-01-01 00:00:12 UTC by a clock that nobody had set"), "{text}");
}
