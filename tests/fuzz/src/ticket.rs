//! What a stick and the desk bring: tickets, keyrings, revocations, signature and key files, cards of devices, names.
//!
//! Texts are also signed with a key that is trusted, so that what lies behind the signature is reached.

use std::sync::OnceLock;

use pyvorin_recovery::keyring::{Key, Keyring, Role, revocation};
use pyvorin_recovery::retention::{ArchiveName, utc};
use pyvorin_recovery::sign::{PublicKey, Signature, SigningKey, sign};
use pyvorin_recovery::ticket::{
    Action, Clock, Code, DeviceCard, Facts, Hex, Memory, Policy, Ticket, Version, judge, recipient_digest,
};

/// The recipient of the device that judges.
pub const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
/// Time of the device that judges.
pub const NOW: u64 = 1_795_636_862;

/// The one operations key, with both roles.
pub fn operations() -> &'static SigningKey {
    static KEY: OnceLock<SigningKey> = OnceLock::new();
    KEY.get_or_init(|| SigningKey::new(&[1; 32], [0x11; 8]).unwrap())
}

/// The keyring of the device that judges.
pub fn ring() -> &'static Keyring {
    static RING: OnceLock<Keyring> = OnceLock::new();
    let roles = [Role::Restore, Role::Keyring].into();
    let key = || Key { public: operations().public().clone(), roles, name: None };
    RING.get_or_init(|| Keyring::new(5, vec![key()], [].into()).unwrap())
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

/// True for one of `n` inputs, by their content. Signing and checking cost a hundred times what all the rest does.
fn one_of(n: u32, bytes: &[u8]) -> bool {
    bytes.iter().fold(0_u32, |sum, b| sum.wrapping_mul(31).wrapping_add(u32::from(*b))).is_multiple_of(n)
}

/// One input: what it is said to be, then its bytes.
pub fn ticket(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 6 {
        0 => a_ticket(bytes),
        1 => two_files(bytes),
        2 => a_keyring(bytes),
        3 => revocations(bytes),
        4 => keys(bytes),
        _ => names(bytes),
    }
}

/// Signed as it stands: only a ticket gets further, and what was accepted is what the device may do.
fn a_ticket(bytes: &[u8]) {
    let memory = Memory { counter: 16, nonces: [Hex([9; 16])].into(), floor: NOW - 86_400, sequence: Some(41) };
    let parsed = Ticket::parse(bytes);
    assert_eq!(parsed, Ticket::parse(bytes));
    let Ok(ticket) = parsed else {
        if one_of(256, bytes) {
            let minisig = sign(operations(), bytes, "");
            let refusal = judge(bytes, Some(minisig.as_bytes()), ring(), &facts(&memory)).unwrap_err();
            assert!(matches!(refusal.code, Code::Malformed | Code::NeedsNewerVersion) && refusal.may_write);
        }
        return;
    };
    let text = ticket.text().unwrap();
    assert_eq!(Ticket::parse(text.as_bytes()).as_ref(), Ok(&ticket));
    if !one_of(16, bytes) {
        return;
    }
    let ours = Ticket { key: operations().public().id(), ..ticket };
    let (text, minisig) = ours.sign(operations()).unwrap();
    match judge(text.as_bytes(), Some(minisig.as_bytes()), ring(), &facts(&memory)) {
        Err(refusal) => {
            assert!(refusal.may_write && refusal.nonce == Some(ours.nonce), "{refusal}");
            assert!(!matches!(refusal.code, Code::Forged | Code::Unsigned | Code::Malformed), "{refusal}");
        }
        Ok(accepted) => {
            assert_eq!(accepted.ticket, ours);
            assert!(ours.counter > memory.counter && ours.expires >= NOW);
            assert!(ours.devices.iter().any(|d| d.id == "GW-042"));
            if let Action::Restore(restore) = &ours.action {
                assert!(restore.archive.sequence >= 41 || restore.allow_older && ours.reason.is_some());
                let sum: u64 = restore.files.iter().map(|f| f.length).sum();
                assert!(sum <= Policy::default().restored);
                let safe = |name: &str| !name.starts_with('/') && name.split('/').all(|p| !p.is_empty() && p != "..");
                assert!(restore.files.iter().all(|f| safe(&f.name)));
            }
            let used = accepted.used;
            let after = Memory { counter: used.counter, floor: used.floor, nonces: [used.nonce].into(), ..memory };
            let again = judge(text.as_bytes(), Some(minisig.as_bytes()), ring(), &facts(&after)).unwrap_err();
            assert_eq!(again.code, Code::Replayed);
        }
    }
}

/// The two files of a stranger's stick: nobody here has signed them, so nothing is written and nothing is done.
fn two_files(bytes: &[u8]) {
    let Some((at, bytes)) = bytes.split_first() else { return };
    let (text, minisig) = bytes.split_at(bytes.len() * usize::from(*at) / 256);
    // A signature file that can be read is checked against the key that it names.
    if Signature::parse(minisig).is_ok_and(|s| s.key_id() == operations().public().id()) && !one_of(16, bytes) {
        return;
    }
    let memory = Memory::default();
    let refusal = judge(text, Some(minisig), ring(), &facts(&memory)).unwrap_err();
    assert!(!refusal.may_write, "{refusal}");
    assert!(!refusal.why.is_empty() && !refusal.next.is_empty());
}

fn a_keyring(bytes: &[u8]) {
    let Ok(offered) = Keyring::parse(bytes) else { return };
    let text = offered.text();
    assert_eq!(Keyring::parse(text.as_bytes()).as_ref(), Ok(&offered));
    if !one_of(16, bytes) {
        return;
    }
    let minisig = sign(operations(), text.as_bytes(), "");
    if let Ok(next) = ring().update(text.as_bytes(), Some(minisig.as_bytes())) {
        assert!(next.version() > ring().version() && next.version() == offered.version());
        assert!(next.revoked().is_superset(ring().revoked()));
        let usable = |role| next.keys().iter().any(|k| k.may(role).is_ok() && !next.revoked().contains(&k.public.id()));
        assert!(usable(Role::Keyring) && usable(Role::Restore));
    }
}

fn revocations(bytes: &[u8]) {
    if one_of(64, bytes) {
        let minisig = sign(operations(), bytes, "");
        if let Ok(next) = ring().revoke(bytes, Some(minisig.as_bytes())) {
            assert_eq!(next.version(), ring().version());
            let again = revocation(next.revoked());
            assert!(again.len() <= bytes.len() * 8 + 256);
        }
    }
    let _ = ring().revoke(bytes, None).unwrap_err();
}

/// Signature and key files, and cards.
fn keys(bytes: &[u8]) {
    if let Ok(signature) = Signature::parse(bytes) {
        assert_eq!(bytes.iter().filter(|b| **b == b'\n').count(), 4);
        let _ = (signature.key_id(), signature.trusted_comment());
    }
    if let Ok(card) = DeviceCard::parse(bytes) {
        assert_eq!(DeviceCard::parse(card.text().as_bytes()), Ok(card));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = PublicKey::parse(text) {
        assert_eq!(PublicKey::parse(&key.text()), Ok(key));
    }
    if let Ok(key) = SigningKey::parse(text) {
        assert_eq!(SigningKey::parse(&key.to_text()).unwrap().public(), key.public());
    }
}

fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(name) = ArchiveName::parse(text) {
        assert_eq!(name.to_string(), text);
        assert!(!text.contains('/'));
    }
    if let Some(at) = utc::parse(text) {
        assert_eq!(utc::compact(at), text);
    }
    if let Some(version) = Version::parse(text) {
        assert_eq!(version.to_string(), text);
    }
}

/// A ticket of each action, a keyring, and the rest, each behind the byte that says what it is.
pub fn seeds() -> Vec<Vec<u8>> {
    let digest = "01".repeat(32);
    let head = |action: &str| {
        format!(
            "{{\"type\":\"pyvorin/ticket/1\",\"action\":\"{action}\",\"nonce\":\"{}\",\"counter\":17,\"key\":\"{}\",\
             \"devices\":[{{\"id\":\"GW-042\",\"recipient_sha256\":\"{}\"}}],\"technician\":\"T-17\",\"reason\":\"x y\",\
             \"issued\":{},\"expires\":{},\"min_version\":\"0.1.0\"",
            "a5".repeat(16),
            operations().public().id(),
            recipient_digest(RECIPIENT),
            NOW - 3600,
            NOW + 86_400
        )
    };
    let file = |name: &str| format!("{{\"name\":\"{name}\",\"length\":900,\"sha256\":\"{digest}\"}}");
    let restore = format!(
        "{},\"archive\":{{\"sha256\":\"{digest}\",\"length\":90,\"sequence\":41}},\"files\":[{},{}],\"allow_older\":true}}",
        head("restore"),
        file("manifest.json"),
        file("config/agent.toml")
    );
    let tickets = [
        restore.clone(),
        head("reset") + ",\"reset\":{\"tier\":\"data\",\"accept_loss\":false}}",
        format!("{},\"keyring\":{{\"sha256\":\"{digest}\",\"length\":9,\"version\":6}}}}", head("keyring")),
        head("export") + ",\"export\":{\"reserve\":4096}}",
        head("enrol") + "}",
    ];
    let behind = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let mut all: Vec<Vec<u8>> = tickets.iter().map(|t| behind(0, t.as_bytes())).collect();
    let minisig = sign(&SigningKey::new(&[2; 32], [0x11; 8]).unwrap(), restore.as_bytes(), "c");
    let at = u8::try_from(restore.len() * 256 / (restore.len() + minisig.len()) + 1).unwrap_or(255);
    all.push([&[1, at], restore.as_bytes(), minisig.as_bytes()].concat());
    let next = ring().text().replace("\"version\": 5", "\"version\": 6");
    all.push(behind(2, next.as_bytes()));
    all.push(behind(3, revocation(&[operations().public().id()].into()).as_bytes()));
    all.push(behind(4, minisig.as_bytes()));
    all.push(behind(4, operations().public().text().as_bytes()));
    all.push(behind(4, operations().to_text().as_bytes()));
    let card = DeviceCard::new("GW-042", RECIPIENT, operations().public().clone(), Version(0, 1, 0), 5).unwrap();
    all.push(behind(4, card.text().as_bytes()));
    all.push(behind(5, b"pyvorin-GW-042-20261125T200102Z-000041.tar.zst.age"));
    all.push(behind(5, b"20261125T200102Z"));
    all
}
