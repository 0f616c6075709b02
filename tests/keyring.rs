//! The keyring: who may change it, that it only goes forward, and that what is revoked stays so.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, missing_docs, dead_code)]

#[path = "support/rng.rs"]
mod rng;

use std::collections::BTreeSet;

use pyvorin_recovery::keyring::{
    Distrust, Fault, Key, Keyring, MAX_KEYS, MAX_LEN, MAX_REVOKED, MAX_STEP, Refusal, Role, present, revocation,
};
use pyvorin_recovery::sign::{KeyId, SigningKey, sign};
use rng::Rng;

fn key(seed: u8) -> SigningKey {
    SigningKey::new(&[seed; 32], [seed, 0, 0, 0, 0, 0, 0, 0x10]).unwrap()
}

fn id(seed: u8) -> KeyId {
    key(seed).public().id()
}

fn entry(seed: u8, roles: &[Role]) -> Key {
    Key { public: key(seed).public().clone(), roles: roles.iter().copied().collect(), name: None }
}

fn ring(version: u32, keys: &[(u8, &[Role])], revoked: &[u8]) -> Keyring {
    let keys = keys.iter().map(|(seed, roles)| entry(*seed, roles)).collect();
    Keyring::new(version, keys, revoked.iter().map(|seed| id(*seed)).collect()).unwrap()
}

/// 1 restores, 2 and 3 change keyrings.
fn root() -> Keyring {
    ring(1, &[(1, &[Role::Restore]), (2, &[Role::Keyring]), (3, &[Role::Keyring])], &[])
}

fn signed(seed: u8, text: &str) -> Vec<u8> {
    sign(&key(seed), text.as_bytes(), "").into_bytes()
}

fn update(present: &Keyring, next: &Keyring, by: u8) -> Result<Keyring, Refusal> {
    present.update(next.text().as_bytes(), Some(&signed(by, &next.text())))
}

fn revoke(present: &Keyring, which: &[u8], by: u8) -> Result<Keyring, Refusal> {
    let text = revocation(&which.iter().map(|seed| id(*seed)).collect());
    present.revoke(text.as_bytes(), Some(&signed(by, &text)))
}

#[test]
fn a_keyring_comes_back_as_it_was() {
    let mut keys = vec![entry(1, &[Role::Restore, Role::Keyring]), entry(2, &[Role::Keyring])];
    keys[0].name = Some("operations-2026".into());
    let ring = Keyring::new(7, keys, [id(9)].into()).unwrap();
    assert_eq!(Keyring::parse(ring.text().as_bytes()), Ok(ring.clone()));
    let json = serde_json::to_vec(&ring).unwrap();
    assert_eq!(serde_json::from_slice::<Keyring>(&json).unwrap(), ring);
}

#[test]
fn an_update_of_a_higher_version_by_a_keyring_key_is_taken() {
    let next = ring(2, &[(4, &[Role::Restore]), (2, &[Role::Keyring])], &[1]);
    let now = update(&root(), &next, 2).unwrap();
    assert_eq!(now, next);
    // And a step from there, by a key that only the new one has the word of.
    let third = ring(3, &[(4, &[Role::Restore]), (5, &[Role::Keyring])], &[]);
    assert_eq!(update(&now, &third, 2).unwrap().revoked(), &[id(1)].into());
}

#[test]
fn an_update_by_a_restore_key_is_refused() {
    let next = ring(2, &[(1, &[Role::Restore, Role::Keyring])], &[]);
    assert_eq!(update(&root(), &next, 1).unwrap_err().code(), "wrong-role");
    assert_eq!(revoke(&root(), &[2], 1).unwrap_err().code(), "wrong-role");
}

#[test]
fn an_update_signed_by_a_key_that_only_the_update_itself_has_is_refused() {
    let next = ring(2, &[(1, &[Role::Restore]), (8, &[Role::Keyring])], &[]);
    assert_eq!(update(&root(), &next, 8), Err(Refusal::Distrusted(Distrust::WrongKey(id(8)))));
}

#[test]
fn an_update_that_is_not_signed_or_was_changed_is_refused() {
    let next = ring(2, &[(1, &[Role::Restore]), (2, &[Role::Keyring])], &[]);
    let text = next.text();
    for none in [None, Some(&b""[..])] {
        assert_eq!(root().update(text.as_bytes(), none).unwrap_err().code(), "unsigned");
    }
    let changed = text.replace("\"version\": 2", "\"version\": 3");
    assert_ne!(changed, text);
    assert_eq!(root().update(changed.as_bytes(), Some(&signed(2, &text))).unwrap_err().code(), "forged");
    assert_eq!(root().update(text.as_bytes(), Some(b"RUQ")).unwrap_err().code(), "bad-signature");
}

#[test]
fn an_old_keyring_never_comes_back() {
    let second = update(&root(), &ring(5, &[(4, &[Role::Restore]), (2, &[Role::Keyring])], &[]), 2).unwrap();
    for version in [1, 4, 5] {
        let old = ring(version, &[(1, &[Role::Restore]), (2, &[Role::Keyring])], &[]);
        assert_eq!(update(&second, &old, 2), Err(Refusal::OlderVersion { present: 5, offered: version }));
    }
}

#[test]
fn one_update_cannot_use_up_the_versions() {
    let far = |version| ring(version, &[(1, &[Role::Restore]), (2, &[Role::Keyring])], &[]);
    assert!(update(&root(), &far(1 + MAX_STEP), 2).is_ok());
    for version in [2 + MAX_STEP, u32::MAX] {
        assert_eq!(update(&root(), &far(version), 2).unwrap_err().code(), "keyring-version-too-far");
    }
}

#[test]
fn a_revoked_key_changes_nothing_any_more() {
    let now = revoke(&root(), &[2, 1], 3).unwrap();
    assert_eq!(now.version(), 1);
    let next = ring(2, &[(1, &[Role::Restore]), (2, &[Role::Keyring])], &[]);
    assert_eq!(update(&now, &next, 2), Err(Refusal::Distrusted(Distrust::RevokedKey(id(2)))));
    assert_eq!(revoke(&now, &[3], 2).unwrap_err().code(), "revoked-key");
    // A list that was seen before is no harm.
    assert_eq!(revoke(&now, &[1, 2], 3), Ok(now));
}

#[test]
fn a_revocation_outlives_every_update_and_every_image() {
    let now = revoke(&root(), &[1], 2).unwrap();
    let back = ring(2, &[(1, &[Role::Restore]), (4, &[Role::Restore]), (2, &[Role::Keyring])], &[]);
    let next = update(&now, &back, 2).unwrap();
    assert!(next.revoked().contains(&id(1)));
    let text = "anything";
    assert_eq!(next.signer(text.as_bytes(), Some(&signed(1, text))), Err(Distrust::RevokedKey(id(1))));
    // A newer image that does not know of it.
    let image = ring(9, &[(1, &[Role::Restore]), (2, &[Role::Keyring])], &[]);
    let both = present(&image, Some(&next));
    assert_eq!((both.version(), both.revoked()), (9, &[id(1)].into()));
    assert_eq!(present(&both, Some(&next)).revoked(), &[id(1)].into());
}

#[test]
fn of_the_image_and_the_state_the_higher_version_counts() {
    let image = ring(3, &[(1, &[Role::Restore]), (2, &[Role::Keyring])], &[7]);
    assert_eq!(present(&image, None), image);
    let newer = ring(4, &[(4, &[Role::Restore]), (5, &[Role::Keyring])], &[8]);
    let both = present(&image, Some(&newer));
    assert_eq!((both.version(), both.keys()), (4, newer.keys()));
    assert_eq!(both.revoked(), &[id(7), id(8)].into());
    let same = ring(3, &[(9, &[Role::Restore]), (6, &[Role::Keyring])], &[]);
    assert_eq!(present(&image, Some(&same)).keys(), image.keys());
}

#[test]
fn an_update_that_would_lock_the_device_out_is_refused() {
    let none = ring(2, &[(1, &[Role::Restore])], &[]);
    assert_eq!(update(&root(), &none, 2), Err(Refusal::LocksOut(Role::Keyring)));
    let none = ring(2, &[(2, &[Role::Keyring])], &[]);
    assert_eq!(update(&root(), &none, 2), Err(Refusal::LocksOut(Role::Restore)));
    // A key that is there and revoked is none; and so with a revocation that only the device knows.
    let revoked = ring(2, &[(1, &[Role::Restore]), (2, &[Role::Keyring])], &[2]);
    assert_eq!(update(&root(), &revoked, 2), Err(Refusal::LocksOut(Role::Keyring)));
    let now = revoke(&root(), &[1], 2).unwrap();
    let next = ring(2, &[(1, &[Role::Restore]), (2, &[Role::Keyring])], &[]);
    assert_eq!(update(&now, &next, 2), Err(Refusal::LocksOut(Role::Restore)));
}

#[test]
fn the_last_key_of_a_role_can_be_revoked() {
    let now = revoke(&root(), &[1, 2, 3], 2).unwrap();
    assert_eq!(now.signer(b"x", Some(&signed(3, "x"))), Err(Distrust::RevokedKey(id(3))));
}

#[test]
fn a_ticket_or_a_keyring_is_no_revocation_and_the_other_way_round() {
    let next = ring(2, &[(1, &[Role::Restore]), (2, &[Role::Keyring])], &[1]);
    let refused = root().revoke(next.text().as_bytes(), Some(&signed(2, &next.text())));
    assert_eq!(refused.unwrap_err().code(), "malformed");
    let text = revocation(&[id(1)].into());
    assert_eq!(root().update(text.as_bytes(), Some(&signed(2, &text))).unwrap_err().code(), "malformed");
}

#[test]
fn revocations_have_an_end() {
    let many = |from: u64| -> BTreeSet<KeyId> {
        (from..from + MAX_REVOKED as u64).map(|n| KeyId::new((n << 8).to_le_bytes())).collect()
    };
    let text = revocation(&many(1));
    assert!(text.len() <= MAX_LEN);
    let full = root().revoke(text.as_bytes(), Some(&signed(2, &text))).unwrap();
    assert!(full.text().len() <= MAX_LEN);
    assert_eq!(revoke(&full, &[1], 2), Err(Refusal::TooManyRevoked));
    assert_eq!(full.revoke(text.as_bytes(), Some(&signed(2, &text))), Ok(full.clone()));
}

#[test]
fn the_fullest_keyring_can_be_read_back() {
    let keys = (0..MAX_KEYS).map(|n| {
        let mut key = entry(n as u8 + 1, &[Role::Restore, Role::Keyring]);
        key.name = Some("n".repeat(64));
        key
    });
    let revoked = (1..=MAX_REVOKED as u64).map(|n| KeyId::new((n << 8).to_le_bytes())).collect();
    let full = Keyring::new(u32::MAX, keys.collect(), revoked).unwrap();
    println!("the fullest keyring has {} bytes", full.text().len());
    assert!(full.text().len() <= MAX_LEN);
}

#[test]
fn a_keyring_of_the_future_is_told_apart_from_a_wrong_one() {
    let text = root()
        .text()
        .replace("\"min_reader\": 1", "\"min_reader\": 2")
        .replace("\"keys\"", "\"threshold\": 2, \"keys\"");
    assert_eq!(Keyring::parse(text.as_bytes()), Err(Fault::Newer { min_reader: 2 }));
    let refused = root().update(text.as_bytes(), Some(&signed(2, &text))).unwrap_err();
    assert_eq!(refused.code(), "needs-newer-version");
}

#[test]
fn a_text_that_is_not_exactly_a_keyring_is_refused() {
    let text = root().text();
    assert!(Keyring::parse(text.as_bytes()).is_ok());
    let line = |n: u8| key(n).public().line().to_owned();
    let wrong = [
        ("unknown field", text.replacen('{', "{\"x\": 1,", 1)),
        ("field twice", text.replacen('{', "{\"version\": 1,", 1)),
        ("another type", text.replace("keyring/1", "keyring/2")),
        ("version 0", text.replace("\"version\": 1", "\"version\": 0")),
        ("version with a fraction", text.replace("\"version\": 1", "\"version\": 1.0")),
        ("version below 0", text.replace("\"version\": 1", "\"version\": -1")),
        ("unknown role", text.replace("\"restore\"", "\"root\"")),
        ("role twice", text.replace("\"restore\"", "\"restore\", \"restore\"")),
        ("no role", text.replace("\"restore\"", "")),
        ("id of another key", text.replacen(&id(1).to_string(), &id(4).to_string(), 1)),
        ("key twice", text.replace(&line(3), &line(2)).replace(&id(3).to_string(), &id(2).to_string())),
        ("lower-case id", text.replacen(&id(1).to_string(), &id(1).to_string().to_lowercase().replace("10", "1a"), 1)),
        ("key with a line end", text.replace(&line(1), &format!("{}\\n", line(1)))),
        ("revoked twice", text.replace("[]", "[\"0000000000000001\", \"0000000000000001\"]")),
        ("something behind", format!("{text}x")),
        ("too long", format!("{text}{}", " ".repeat(MAX_LEN))),
        ("deep", "[".repeat(60_000)),
        ("empty", String::new()),
        ("not text", "\u{0}".repeat(100)),
    ];
    for (what, other) in &wrong {
        assert_ne!(*other, text, "{what} changes nothing");
        assert!(matches!(Keyring::parse(other.as_bytes()), Err(Fault::Malformed(_))), "{what}");
    }
}

/// One secret under two ids: revoking one of them would leave the other.
#[test]
fn the_same_key_under_two_ids_is_refused() {
    let twin = SigningKey::new(&[1; 32], [0xee; 8]).unwrap();
    let keys = vec![
        entry(1, &[Role::Restore]),
        Key { public: twin.public().clone(), roles: [Role::Restore].into(), name: None },
    ];
    assert!(matches!(Keyring::new(1, keys, BTreeSet::new()), Err(Fault::Malformed(_))));
}

#[test]
fn an_update_with_a_bit_of_any_byte_changed_is_refused() {
    let next = ring(2, &[(1, &[Role::Restore]), (2, &[Role::Keyring])], &[]);
    let (text, file) = (next.text().into_bytes(), signed(2, &next.text()));
    assert!(root().update(&text, Some(&file)).is_ok());
    for at in 0..text.len() {
        let mut other = text.clone();
        other[at] ^= 1 << (at % 8);
        assert!(root().update(&other, Some(&file)).is_err(), "byte {at}");
    }
}

/// Random histories of updates, revocations and new images: the version never falls, nothing revoked is forgotten, and
/// nothing that a revoked key signs is taken.
#[test]
fn over_random_histories_nothing_is_forgotten() {
    let mut taken = 0;
    for seed in 0..60_u64 {
        let mut rng = Rng::new(seed);
        let mut now = root();
        let mut revoked = BTreeSet::new();
        for step in 0..20 {
            let by = rng.between(1, 5) as u8;
            let others = [rng.between(1, 5) as u8, rng.between(6, 9) as u8];
            let version = (now.version() + 2).saturating_sub(rng.below(3) as u32).max(1);
            let answer = match rng.below(3) {
                0 => update(
                    &now,
                    &ring(
                        version,
                        &[(others[0], &[Role::Restore, Role::Keyring]), (others[1], &[Role::Restore, Role::Keyring])],
                        &[],
                    ),
                    by,
                ),
                1 => revoke(&now, &others, by),
                _ => Ok(present(&ring(version, &[(1, &[Role::Restore]), (2, &[Role::Keyring])], &[]), Some(&now))),
            };
            let Ok(next) = answer else { continue };
            taken += 1;
            assert!(next.version() >= now.version(), "seed {seed}, step {step}");
            revoked.extend(next.revoked().iter().copied());
            assert_eq!(next.revoked(), &revoked, "seed {seed}, step {step}");
            assert!(Keyring::parse(next.text().as_bytes()) == Ok(next.clone()), "seed {seed}, step {step}");
            now = next;
        }
        for key in &revoked {
            let signer = (1..10).find(|n| id(*n) == *key).unwrap();
            assert_eq!(now.signer(b"x", Some(&signed(signer, "x"))), Err(Distrust::RevokedKey(*key)), "seed {seed}");
        }
    }
    assert!(taken > 400, "only {taken} changes were taken");
}
