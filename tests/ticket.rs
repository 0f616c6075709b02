//! Tickets against whoever makes, changes, steals, repeats or delays one: a test for each attack, named after it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, missing_docs, dead_code)]

#[path = "support/rng.rs"]
mod rng;

use std::process::Command;

use pyvorin_recovery::keyring::{Fault, Key, Keyring, Role, revocation};
use pyvorin_recovery::reset::Tier;
use pyvorin_recovery::sign::{SigningKey, sign};
use pyvorin_recovery::ticket::{
    Accepted, Action, Archive, Clock, Code, Digest, Export, Facts, FileFact, Hex, KeyringFile, MAX_LEN, Memory, Policy,
    Refusal, Reset, Restore, Target, Ticket, Version, judge, only_one, raise_floor, recipient_digest, time_floor,
};
use rng::Rng;

const DAY: u64 = 86_400;
const NOW: u64 = 1_795_636_862;
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

fn key(seed: u8) -> SigningKey {
    SigningKey::new(&[seed; 32], [seed, 0, 0, 0, 0, 0, 0, 0x10]).unwrap()
}

/// 1 and 4 restore, 2 changes keyrings, 3 is revoked.
fn ring() -> Keyring {
    let entry = |seed: u8, role| Key { public: key(seed).public().clone(), roles: [role].into(), name: None };
    let keys = vec![entry(1, Role::Restore), entry(2, Role::Keyring), entry(3, Role::Restore), entry(4, Role::Restore)];
    Keyring::new(5, keys, [key(3).public().id()].into()).unwrap()
}

fn digest(n: u8) -> Digest {
    Hex([n; 32])
}

fn restore() -> Restore {
    let file = |name: &str, length| FileFact { name: name.into(), length, sha256: digest(2) };
    Restore {
        archive: Archive { sha256: digest(1), length: 139_700_000, sequence: 41 },
        files: vec![file("manifest.json", 2000), file("edge_store.db", 527_000_000), file("config/agent.toml", 900)],
        allow_older: false,
        include_certs: false,
    }
}

fn ticket_for(action: Action) -> Ticket {
    Ticket {
        nonce: Hex([0xa5; 16]),
        counter: 17,
        key: key(1).public().id(),
        devices: vec![Target { id: "GW-042".into(), recipient_sha256: Some(recipient_digest(RECIPIENT)) }],
        technician: "T-17".into(),
        reason: Some("card replaced".into()),
        issued: NOW - 3600,
        expires: NOW + 7 * DAY,
        min_version: Some(Version(0, 1, 0)),
        action,
    }
}

fn ticket() -> Ticket {
    ticket_for(Action::Restore(restore()))
}

fn with(change: impl FnOnce(&mut Ticket)) -> Ticket {
    let mut ticket = ticket();
    change(&mut ticket);
    ticket
}

fn restoring(change: impl FnOnce(&mut Restore)) -> Ticket {
    let mut restore = restore();
    change(&mut restore);
    ticket_for(Action::Restore(restore))
}

fn memory() -> Memory {
    Memory { counter: 16, nonces: [Hex([9; 16])].into(), floor: NOW - 30 * DAY, sequence: Some(41) }
}

fn facts(memory: &Memory) -> Facts<'_> {
    Facts {
        device: "GW-042",
        recipient: Some(recipient_digest(RECIPIENT)),
        own_key: None,
        memory: Some(memory),
        clock: Clock { now: NOW, trusted: true },
        version: Version(0, 1, 0),
        policy: Policy::default(),
    }
}

/// Text and signature file by the key that the ticket names.
fn signed(ticket: &Ticket) -> (String, String) {
    let seed = (1..10).find(|n| key(*n).public().id() == ticket.key).unwrap();
    ticket.sign(&key(seed)).unwrap()
}

fn judged(ticket: &Ticket, facts: &Facts<'_>) -> Result<Accepted, Refusal> {
    let (text, minisig) = signed(ticket);
    judge(text.as_bytes(), Some(minisig.as_bytes()), &ring(), facts)
}

fn plainly(ticket: &Ticket) -> Result<Accepted, Refusal> {
    judged(ticket, &facts(&memory()))
}

/// Any text, rightly signed.
fn text_judged(text: &str, seed: u8) -> Result<Accepted, Refusal> {
    let minisig = sign(&key(seed), text.as_bytes(), "");
    judge(text.as_bytes(), Some(minisig.as_bytes()), &ring(), &facts(&memory()))
}

#[track_caller]
fn refused(answer: Result<Accepted, Refusal>, code: Code, may_write: bool) -> Refusal {
    let refusal = answer.unwrap_err();
    assert_eq!((refusal.code, refusal.may_write), (code, may_write), "{refusal}");
    for sentence in [&refusal.why, &refusal.next] {
        assert!(sentence.len() > 20 && sentence.ends_with('.') && sentence.is_ascii(), "{sentence:?}");
    }
    refusal
}

#[test]
fn a_right_ticket_is_accepted_and_says_what_its_commit_record_has_to_carry() {
    let accepted = plainly(&ticket()).unwrap();
    assert_eq!(accepted.ticket, ticket());
    assert_eq!((accepted.key, accepted.clock_trusted), (key(1).public().id(), true));
    assert_eq!((accepted.used.nonce, accepted.used.counter), (ticket().nonce, 17));
    // Judged again after a cut before that record, it is still right: nothing was used up.
    assert_eq!(plainly(&ticket()), Ok(accepted));
}

#[test]
fn every_action_has_a_ticket_that_is_accepted_and_comes_back_as_it_was() {
    let keyring = KeyringFile { sha256: digest(3), length: 900, version: 6 };
    for (action, by) in [
        (Action::Restore(Restore { allow_older: true, include_certs: true, ..restore() }), 1),
        (Action::Reset(Reset { tier: Tier::Data, accept_loss: false }), 4),
        (Action::Keyring(keyring), 2),
        (Action::Export(Export { reserve: 1 << 30 }), 1),
        (Action::Enrol, 1),
    ] {
        let named = Ticket { key: key(by).public().id(), ..ticket_for(action) };
        let text = named.text().unwrap();
        assert_eq!(Ticket::parse(text.as_bytes()), Ok(named.clone()));
        assert_eq!(named.text().unwrap(), text);
        assert_eq!(plainly(&named).unwrap().ticket, named);
    }
}

#[test]
fn a_reset_is_asked_for_under_the_number_of_the_ticket() {
    let reset = ticket_for(Action::Reset(Reset { tier: Tier::Queue, accept_loss: true }));
    let request = plainly(&reset).unwrap().reset_request().unwrap();
    assert_eq!((request.tier, request.by.as_str(), request.accept_loss), (Tier::Queue, "T-17", true));
    assert_eq!(request.id, format!("ticket-{}", "a5".repeat(16)));
    assert_eq!(plainly(&ticket()).unwrap().reset_request(), None);
}

#[test]
fn another_keyring_on_the_stick_than_the_one_that_the_ticket_means() {
    let text = ring().text();
    let sha256 = Hex(<sha2::Sha256 as sha2::Digest>::digest(text.as_bytes()).into());
    let file = KeyringFile { sha256, length: text.len() as u64, version: 5 };
    assert!(file.holds(text.as_bytes()));
    assert!(!file.holds(text.replace("5", "6").as_bytes()) && !file.holds(text.trim_end().as_bytes()));
}

#[test]
fn minisign_of_debian_signs_tickets_and_accepts_ours() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| Command::new("minisign").args(arguments).current_dir(dir.path()).output().unwrap();
    let (text, minisig) = signed(&ticket());
    std::fs::write(dir.path().join("ticket.json"), &text).unwrap();
    std::fs::write(dir.path().join("ticket.json.minisig"), minisig).unwrap();
    let verified = run(&["-V", "-H", "-m", "ticket.json", "-P", key(1).public().line()]);
    assert!(verified.status.success(), "{verified:?}");
    std::fs::write(dir.path().join("ops.key"), key(1).to_text().as_str()).unwrap();
    assert!(run(&["-S", "-s", "ops.key", "-m", "ticket.json", "-t", "by hand"]).status.success());
    let theirs = std::fs::read(dir.path().join("ticket.json.minisig")).unwrap();
    assert!(judge(text.as_bytes(), Some(&theirs), &ring(), &facts(&memory())).is_ok());
}

// Who has signed it.

#[test]
fn unsigned() {
    let (text, _) = signed(&ticket());
    for none in [None, Some(&b""[..])] {
        refused(judge(text.as_bytes(), none, &ring(), &facts(&memory())), Code::Unsigned, false);
    }
}

#[test]
fn forged_by_changing_it_after_it_was_signed() {
    let (text, minisig) = signed(&ticket());
    let other = text.replace("GW-042", "GW-043");
    assert_ne!(other, text);
    let answer = judge(other.as_bytes(), Some(minisig.as_bytes()), &ring(), &facts(&memory()));
    refused(answer, Code::Forged, false);
}

#[test]
fn forged_with_the_signature_of_another_ticket() {
    let (_, minisig) = signed(&with(|t| t.counter = 18));
    let (text, _) = signed(&ticket());
    refused(judge(text.as_bytes(), Some(minisig.as_bytes()), &ring(), &facts(&memory())), Code::Forged, false);
}

#[test]
fn forged_with_a_strangers_key_under_the_id_of_ours() {
    let thief = SigningKey::new(&[99; 32], key(1).public().id().bytes()).unwrap();
    let (text, minisig) = ticket().sign(&thief).unwrap();
    refused(judge(text.as_bytes(), Some(minisig.as_bytes()), &ring(), &facts(&memory())), Code::Forged, false);
}

#[test]
fn signed_with_a_key_that_nobody_knows() {
    let named = Ticket { key: key(8).public().id(), ..ticket() };
    refused(plainly(&named), Code::WrongKey, false);
}

#[test]
fn signed_with_a_revoked_key() {
    let named = Ticket { key: key(3).public().id(), ..ticket() };
    refused(plainly(&named), Code::RevokedKey, false);
    // And from the moment of a revocation on.
    let list = revocation(&[key(1).public().id()].into());
    let minisig = sign(&key(2), list.as_bytes(), "");
    let now = ring().revoke(list.as_bytes(), Some(minisig.as_bytes())).unwrap();
    let (text, minisig) = signed(&ticket());
    refused(judge(text.as_bytes(), Some(minisig.as_bytes()), &now, &facts(&memory())), Code::RevokedKey, false);
}

#[test]
fn signed_in_the_legacy_form() {
    let (text, minisig) = signed(&ticket());
    let legacy = minisig.replacen("\nRUQ", "\nRWQ", 1);
    let answer = judge(text.as_bytes(), Some(legacy.as_bytes()), &ring(), &facts(&memory()));
    assert!(refused(answer, Code::BadSignature, false).why.contains("legacy"));
}

#[test]
fn a_signature_file_that_is_none() {
    let (text, minisig) = signed(&ticket());
    for other in ["x".repeat(20_000), "\0".repeat(400), minisig.replace('\n', "\r\n"), minisig[1..].to_owned()] {
        let answer = judge(text.as_bytes(), Some(other.as_bytes()), &ring(), &facts(&memory()));
        refused(answer, Code::BadSignature, false);
    }
}

#[test]
fn a_restore_signed_by_a_key_for_keyrings_and_a_keyring_by_a_key_for_restores() {
    refused(plainly(&Ticket { key: key(2).public().id(), ..ticket() }), Code::WrongRole, true);
    let file = KeyringFile { sha256: digest(3), length: 900, version: 6 };
    refused(plainly(&ticket_for(Action::Keyring(file))), Code::WrongRole, true);
}

#[test]
fn signed_by_the_device_itself_after_it_was_taken_over() {
    let memory = memory();
    // Even where somebody has put the device's key into the keyring.
    let own = key(4);
    let facts = Facts { own_key: Some(own.public()), ..facts(&memory) };
    let named = Ticket { key: own.public().id(), ..ticket() };
    refused(judged(&named, &facts), Code::WrongRole, true);
    assert!(judged(&ticket(), &facts).is_ok());
}

#[test]
fn a_ticket_that_names_another_key_than_the_one_that_signs() {
    let text = ticket().text().unwrap();
    refused(text_judged(&text, 4), Code::WrongKey, true);
    assert!(ticket().sign(&key(4)).is_err());
}

#[test]
fn something_else_that_operations_have_signed() {
    let list = revocation(&[key(1).public().id()].into());
    for text in [ring().text(), list, "{\"type\":\"pyvorin/ticket/0\"}".into(), "{}".into(), String::new()] {
        refused(text_judged(&text, 2), Code::Malformed, true);
    }
}

#[test]
fn nothing_of_a_ticket_is_interpreted_before_its_signature() {
    for text in ["", "{", "[[[[", "\u{0}", "{\"type\":\"pyvorin/ticket/9\"}"] {
        refused(judge(text.as_bytes(), None, &ring(), &facts(&memory())), Code::Unsigned, false);
        let minisig = sign(&key(8), text.as_bytes(), "");
        let answer = judge(text.as_bytes(), Some(minisig.as_bytes()), &ring(), &facts(&memory()));
        refused(answer, Code::WrongKey, false);
    }
}

#[test]
fn a_trusted_comment_decides_nothing() {
    let (text, _) = signed(&ticket());
    let minisig = sign(&key(1), text.as_bytes(), "pyvorin ticket counter 1 device GW-999 expired");
    assert!(judge(text.as_bytes(), Some(minisig.as_bytes()), &ring(), &facts(&memory())).is_ok());
}

// For whom.

#[test]
fn for_another_device() {
    let answer = plainly(&with(|t| t.devices[0].id = "GW-043".into()));
    assert_eq!(refused(answer, Code::WrongDevice, true).why, "The ticket is for GW-043; this device is GW-042.");
    refused(plainly(&with(|t| t.devices[0].id = "gw-042".into())), Code::WrongDevice, true);
    refused(plainly(&with(|t| t.devices[0].id = "GW-0422".into())), Code::WrongDevice, true);
}

#[test]
fn an_old_ticket_on_a_replaced_card() {
    let fresh = Memory { counter: 0, floor: NOW - 30 * DAY, ..Memory::default() };
    let other = Facts { recipient: Some(recipient_digest("age1other")), ..facts(&fresh) };
    let reset = ticket_for(Action::Reset(Reset { tier: Tier::Full, accept_loss: true }));
    let export = ticket_for(Action::Export(Export { reserve: 4096 }));
    for old in [ticket(), reset, export] {
        refused(judged(&old, &other), Code::WrongRecipient, true);
        refused(judged(&old, &Facts { recipient: None, ..facts(&fresh) }), Code::WrongRecipient, true);
    }
}

#[test]
fn a_blank_card_can_be_enrolled() {
    let fresh = Memory { floor: NOW - 30 * DAY, ..Memory::default() };
    let blank = Facts { recipient: None, ..facts(&fresh) };
    let mut enrol = ticket_for(Action::Enrol);
    enrol.devices[0].recipient_sha256 = None;
    assert!(judged(&enrol, &blank).is_ok());
}

#[test]
fn one_ticket_for_several_devices_names_the_card_of_each() {
    let mut many = ticket_for(Action::Reset(Reset { tier: Tier::Queue, accept_loss: false }));
    many.devices.insert(0, Target { id: "GW-041".into(), recipient_sha256: Some(digest(5)) });
    assert!(plainly(&many).is_ok());
    many.devices[1].recipient_sha256 = Some(digest(5));
    refused(plainly(&many), Code::WrongRecipient, true);
}

// Again.

#[test]
fn the_same_stick_left_in_for_a_hundred_boots_is_carried_out_once() {
    let mut memory = memory();
    let mut carried_out = 0;
    for boot in 0..100 {
        match judged(&ticket(), &facts(&memory)) {
            Ok(Accepted { used, .. }) => {
                carried_out += 1;
                memory.counter = used.counter;
                memory.floor = used.floor;
                memory.nonces.insert(used.nonce);
            }
            Err(refusal) => {
                assert!(boot > 0);
                assert_eq!((refusal.code, refusal.nonce), (Code::Replayed, Some(ticket().nonce)));
            }
        }
    }
    assert_eq!(carried_out, 1);
    // The list of nonces may be cut: the counter still refuses it.
    memory.nonces.clear();
    refused(judged(&ticket(), &facts(&memory)), Code::OlderCounter, true);
}

#[test]
fn a_replayed_ticket_is_known_as_such_before_it_is_called_old_or_expired() {
    let mut memory = memory();
    memory.nonces.insert(ticket().nonce);
    memory.counter = 40;
    let late = Facts { clock: Clock { now: NOW + 900 * DAY, trusted: true }, ..facts(&memory) };
    refused(judged(&ticket(), &late), Code::Replayed, true);
}

#[test]
fn an_older_ticket_that_was_held_back() {
    for counter in [1, 15, 16] {
        refused(plainly(&with(|t| t.counter = counter)), Code::OlderCounter, true);
    }
}

// In time.

#[test]
fn expired() {
    let memory = memory();
    let at = |now| judged(&ticket(), &Facts { clock: Clock { now, trusted: true }, ..facts(&memory) });
    assert!(at(NOW + 7 * DAY).is_ok());
    refused(at(NOW + 7 * DAY + 1), Code::Expired, true);
}

#[test]
fn expired_and_the_clock_set_back() {
    let memory = Memory { floor: NOW + 8 * DAY, ..memory() };
    for clock in [Clock { now: 0, trusted: false }, Clock { now: 0, trusted: true }, Clock { now: NOW, trusted: true }]
    {
        refused(judged(&ticket(), &Facts { clock, ..facts(&memory) }), Code::Expired, true);
    }
}

#[test]
fn a_clock_that_nobody_has_set_neither_expires_nor_proves_anything() {
    let memory = memory();
    for now in [0, NOW, 4_294_967_295, u64::MAX] {
        let unset = Facts { clock: Clock { now, trusted: false }, ..facts(&memory) };
        assert!(!judged(&ticket(), &unset).unwrap().clock_trusted, "{now}");
    }
}

#[test]
fn issued_in_the_future() {
    let ahead = |seconds| with(|t| (t.issued, t.expires) = (NOW + seconds, NOW + seconds + DAY));
    assert!(plainly(&ahead(DAY)).is_ok());
    refused(plainly(&ahead(DAY + 1)), Code::NotYetValid, true);
}

#[test]
fn good_for_ever() {
    let long = |days| with(|t| t.expires = t.issued + days * DAY);
    assert!(plainly(&long(90)).is_ok());
    refused(plainly(&with(|t| t.expires = t.issued + 90 * DAY + 1)), Code::TooLongLived, true);
    refused(plainly(&with(|t| t.expires = (1 << 53) - 1)), Code::TooLongLived, true);
}

#[test]
fn one_wrong_date_does_not_make_every_later_ticket_expired() {
    let memory = memory();
    let unset = |memory| Facts { clock: Clock { now: 5, trusted: false }, ..facts(memory) };
    let wrong = with(|t| (t.issued, t.expires) = (NOW + 20_000 * DAY, NOW + 20_001 * DAY));
    let used = judged(&wrong, &unset(&memory)).unwrap().used;
    assert_eq!(used.floor, memory.floor + 30 * DAY);
    let after = Memory { counter: used.counter, floor: used.floor, ..memory.clone() };
    let right = with(|t| (t.counter, t.nonce) = (18, Hex([1; 16])));
    assert!(judged(&right, &unset(&after)).is_ok());
}

#[test]
fn the_time_floor_only_rises_and_ignores_a_clock_at_its_end() {
    assert_eq!(time_floor(NOW, &[]), NOW);
    assert_eq!(time_floor(NOW, &[5, NOW + DAY, NOW - DAY]), NOW + DAY);
    assert_eq!(time_floor(NOW, &[4_294_967_295, u64::MAX, NOW + 2]), NOW + 2);
    assert_eq!(raise_floor(NOW, NOW - DAY), NOW);
    assert_eq!(raise_floor(NOW, NOW + DAY), NOW + DAY);
    assert_eq!(raise_floor(u64::MAX, u64::MAX), u64::MAX);
}

// How much, how old, how new.

#[test]
fn an_archive_beyond_what_the_device_accepts() {
    let most = Policy::default();
    refused(plainly(&restoring(|r| r.archive.length = most.archive + 1)), Code::TooLarge, true);
    assert!(plainly(&restoring(|r| r.archive.length = most.archive)).is_ok());
}

#[test]
fn files_that_are_too_large_together_also_where_their_sum_overflows() {
    let most = Policy::default().restored;
    let two = |a, b| restoring(|r| (r.files[0].length, r.files[1].length, r.files[2].length) = (a, b, 0));
    assert!(plainly(&two(most - 5, 5)).is_ok());
    refused(plainly(&two(most - 5, 6)), Code::TooLarge, true);
    for (a, b) in [(u64::MAX, u64::MAX), (u64::MAX, 2), (1 << 63, 1 << 63)] {
        refused(plainly(&two(a, b)), Code::TooLarge, true);
    }
}

#[test]
fn an_export_beyond_what_the_device_accepts() {
    let export = |reserve| ticket_for(Action::Export(Export { reserve }));
    assert!(plainly(&export(Policy::default().export)).is_ok());
    refused(plainly(&export(u64::MAX)), Code::TooLarge, true);
}

#[test]
fn an_older_backup_needs_leave_and_a_reason() {
    refused(plainly(&restoring(|r| r.archive.sequence = 40)), Code::OlderBackup, true);
    assert!(plainly(&restoring(|r| (r.archive.sequence, r.allow_older) = (40, true))).is_ok());
    let mut silent = restoring(|r| (r.archive.sequence, r.allow_older) = (40, true));
    silent.reason = None;
    assert!(silent.text().is_err());
    // A device that knows of none takes any.
    let fresh = Memory { sequence: None, ..memory() };
    assert!(judged(&restoring(|r| r.archive.sequence = 1), &facts(&fresh)).is_ok());
}

#[test]
fn for_a_newer_version_of_this_program() {
    refused(plainly(&with(|t| t.min_version = Some(Version(0, 1, 1)))), Code::NeedsNewerVersion, true);
    refused(plainly(&with(|t| t.min_version = Some(Version(1, 0, 0)))), Code::NeedsNewerVersion, true);
    let newer = ticket().text().unwrap().replace("ticket/1", "ticket/2");
    refused(text_judged(&newer, 1), Code::NeedsNewerVersion, true);
}

// Several, and none that can be judged.

#[test]
fn two_sticks_with_a_valid_ticket_do_nothing_and_both_are_told() {
    let memory = memory();
    let other = with(|t| (t.counter, t.nonce) = (18, Hex([3; 16])));
    let forged = judge(b"{}", None, &ring(), &facts(&memory));
    let both = only_one(vec![plainly(&ticket()), forged.clone(), plainly(&other)]);
    for (answer, nonce) in [(&both[0], ticket().nonce), (&both[2], other.nonce)] {
        assert_eq!(refused(answer.clone(), Code::Ambiguous, true).nonce, Some(nonce));
    }
    assert_eq!(both[1], forged);
    // The same ticket on two sticks is no better, and a stranger's stick does not get in the way of a valid one.
    assert!(only_one(vec![plainly(&ticket()), plainly(&ticket())]).iter().all(Result::is_err));
    assert!(only_one(vec![forged.clone(), plainly(&ticket()), forged])[1].is_ok());
    assert!(only_one(Vec::new()).is_empty());
}

#[test]
fn without_its_own_records_a_device_accepts_no_ticket() {
    let memory = memory();
    let lost = Facts { memory: None, ..facts(&memory) };
    refused(judged(&ticket(), &lost), Code::StateUnusable, true);
    refused(Err(Refusal::keyring_unusable(&Fault::Newer { min_reader: 2 })), Code::KeyringUnusable, false);
}

// Shape.

#[test]
fn a_ticket_longer_than_any_ticket() {
    let text = ticket().text().unwrap() + &" ".repeat(MAX_LEN);
    refused(text_judged(&text, 1), Code::TooLong, false);
}

#[test]
fn what_is_signed_and_not_exactly_a_ticket_is_refused() {
    let text = ticket().text().unwrap();
    assert!(text_judged(&text, 1).is_ok());
    let replaced = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    let nonce = ticket().nonce.to_string();
    let file = |name: &str| replaced("edge_store.db", name);
    let wrong = [
        ("unknown field", replaced("{", "{\"max_boots\": 3,")),
        ("unknown field of a file", replaced("\"name\": \"edge", "\"dest\": \"/etc\", \"name\": \"edge")),
        ("field twice", replaced("{", "{\"counter\": 99,")),
        ("type twice", replaced("{", "{\"type\": \"pyvorin/ticket/1\",")),
        ("field left out", replaced("\"technician\": \"T-17\",", "")),
        ("unknown action", replaced("\"action\": \"restore\"", "\"action\": \"format\"")),
        ("fields of another action", replaced("\"action\": \"restore\"", "\"action\": \"reset\"")),
        ("enrol with an archive", replaced("\"action\": \"restore\"", "\"action\": \"enrol\"")),
        ("restore and reset", replaced("{", "{\"reset\": {\"tier\": \"full\", \"accept_loss\": true},")),
        ("counter 0", replaced("\"counter\": 17", "\"counter\": 0")),
        ("counter below 0", replaced("\"counter\": 17", "\"counter\": -17")),
        ("counter with a fraction", replaced("\"counter\": 17", "\"counter\": 17.0")),
        ("counter as text", replaced("\"counter\": 17", "\"counter\": \"17\"")),
        ("counter that nothing can follow", replaced("\"counter\": 17", "\"counter\": 18446744073709551615")),
        ("counter beyond what JSON keeps exact", replaced("\"counter\": 17", "\"counter\": 9007199254740992")),
        ("short nonce", replaced(&nonce, &nonce[2..])),
        ("upper-case nonce", replaced(&nonce, &nonce.to_uppercase())),
        ("nothing for a nonce", replaced(&format!("\"{nonce}\""), "null")),
        ("no device", replaced("\"id\": \"GW-042\"", "\"id\": \"\"")),
        ("every device", replaced("\"GW-042\"", "\"*\"")),
        ("device with a path", replaced("\"GW-042\"", "\"../GW-042\"")),
        ("device in other letters", replaced("\"GW-042\"", "\"GW\u{2010}042\"")),
        ("technician with a line end", replaced("T-17", "T-17\\nOK")),
        ("reason with an escape", replaced("card replaced", "card\\u001b[2J")),
        ("reason in other letters", replaced("card replaced", "\u{202e}card")),
        ("reason that is too long", replaced("card replaced", &"x".repeat(201))),
        ("expires before it was issued", replaced("\"expires\": 17", "\"expires\": 16")),
        ("version with a plus", replaced("0.1.0", "+0.1.0")),
        ("absolute file", file("/etc/shadow")),
        ("file that climbs", file("../edge_store.db")),
        ("file that climbs inside", file("config/../../x")),
        ("file with a backslash", file("config\\\\x")),
        ("file with two slashes", file("config//x")),
        ("hidden directory of dots", file("...")),
        ("file with a zero", file("edge\\u0000.db")),
        ("file twice", file("manifest.json")),
        ("file twice but for case", file("Manifest.JSON")),
        ("file of negative length", replaced("527000000", "-1")),
        ("archive of no length", replaced("139700000", "0")),
        ("short digest", replaced(&digest(1).to_string(), "0101")),
        ("no files", {
            let from = text.find("\"files\"").unwrap();
            let to = from + text[from..].find("],").unwrap() + 2;
            text[..from].to_owned() + &text[to..]
        }),
        ("deep", "[".repeat(60_000)),
        ("deep behind a type", format!("{{\"type\":\"pyvorin/ticket/1\",\"x\":{}", "[".repeat(60_000))),
        ("something behind", format!("{text}{text}")),
        ("a mark of byte order", format!("\u{feff}{text}")),
        ("not JSON", "type = pyvorin/ticket/1".to_owned()),
    ];
    for (what, other) in &wrong {
        assert_ne!(*other, text, "{what} changes nothing");
        let refusal = text_judged(other, 1).expect_err(what);
        assert_eq!((refusal.code, refusal.may_write), (Code::Malformed, true), "{what}: {refusal}");
    }
    println!("{} texts refused", wrong.len());
}

#[test]
fn what_the_device_would_refuse_cannot_be_made_at_the_desk() {
    let two = Target { id: "GW-041".into(), recipient_sha256: Some(digest(1)) };
    let bad = [
        with(|t| t.counter = 0),
        with(|t| t.devices.clear()),
        with(|t| t.devices.push(two.clone())),
        with(|t| t.devices[0].recipient_sha256 = None),
        with(|t| t.technician = "T 17".into()),
        with(|t| t.expires = t.issued),
        restoring(|r| r.files.clear()),
        restoring(|r| r.files[1].name = "a/./b".into()),
        restoring(|r| r.files = vec![r.files[0].clone(); 257]),
        Ticket { reason: None, ..ticket_for(Action::Reset(Reset { tier: Tier::Data, accept_loss: false })) },
        ticket_for(Action::Export(Export { reserve: 0 })),
        ticket_for(Action::Keyring(KeyringFile { sha256: digest(1), length: 65_537, version: 2 })),
    ];
    for (n, ticket) in bad.iter().enumerate() {
        assert!(ticket.text().is_err(), "{n}");
    }
}

/// Whatever is changed in the ticket or in its signature file, it is not accepted; the untrusted comment alone is free.
#[test]
fn no_mutation_of_a_ticket_or_its_signature_is_accepted() {
    let (text, minisig) = signed(&ticket());
    let (other_text, other_minisig) = signed(&with(|t| (t.counter, t.nonce) = (18, Hex([3; 16]))));
    let memory = memory();
    let (facts, ring) = (facts(&memory), ring());
    let signed_part = |file: &[u8]| file.iter().position(|b| *b == b'\n').map(|at| file[at..].to_vec());
    let rounds = std::env::var("TICKET_ROUNDS").map_or(4000, |n| n.parse().unwrap());
    let (mut equal, mut refused) = (0, 0);
    for seed in 0..rounds {
        let mut rng = Rng::new(seed);
        let mut files = [text.as_bytes().to_vec(), minisig.as_bytes().to_vec()];
        for _ in 0..rng.between(1, 3) {
            let which = rng.below(2);
            let other = [other_text.as_bytes(), other_minisig.as_bytes()][which];
            mutate(&mut rng, &mut files[which], other);
        }
        let same = files[0] == text.as_bytes() && signed_part(&files[1]) == signed_part(minisig.as_bytes());
        let same = same
            || files[0] == other_text.as_bytes() && signed_part(&files[1]) == signed_part(other_minisig.as_bytes());
        match judge(&files[0], Some(&files[1]), &ring, &facts) {
            Ok(_) => {
                assert!(same, "seed {seed}: {:?}", files.map(|f| String::from_utf8_lossy(&f).into_owned()));
                equal += 1;
            }
            Err(_) => refused += 1,
        }
    }
    println!("{refused} refused, {equal} accepted because nothing that is signed was changed");
    assert!(refused > rounds / 2);
}

fn mutate(rng: &mut Rng, file: &mut Vec<u8>, other: &[u8]) {
    let len = file.len().max(1);
    let (at, n) = (rng.below(len), rng.between(1, 12));
    let end = (at + n).min(file.len());
    match rng.below(8) {
        _ if file.is_empty() => file.push(b'{'),
        0 | 1 => file[at] ^= 1 << rng.below(8),
        2 => file[at] = rng.pick(b"0123456789ABCDEFabcdef=+/\n\r \"{}[]\0"),
        3 => drop(file.drain(at..end)),
        4 => {
            let block = file[at..end].to_vec();
            let to = rng.below(len);
            file.splice(to..to, block);
        }
        5 => file.truncate(at),
        6 => {
            file.truncate(at);
            file.extend_from_slice(&other[at.min(other.len())..]);
        }
        _ => rng.fill(&mut file[at..end]),
    }
}
