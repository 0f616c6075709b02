//! Signatures beside Debian's minisign: what one makes the other accepts, in both directions, with both kinds of key
//! file; and a signature file with any one bit changed is refused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, missing_docs, dead_code)]

#[path = "support/rng.rs"]
mod rng;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use pyvorin_recovery::sign::{KeyFault, PublicKey, Refused, Signature, Signer, SigningKey, Verifier, sign, verify};
use rng::Rng;

/// Around the block of BLAKE2b, nothing, and more than one read.
const SIZES: [usize; 6] = [0, 1, 127, 128, 129, 1 << 20];

fn minisign(dir: &Path, arguments: &[&str]) -> Output {
    let run = Command::new("minisign").args(arguments).current_dir(dir).output();
    run.unwrap_or_else(|e| panic!("minisign: {e}; apt-get install minisign"))
}

fn content(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::new(len as u64).fill(&mut bytes);
    bytes
}

fn ours(seed: u8) -> SigningKey {
    SigningKey::new(&[seed; 32], [seed, 1, 2, 3, 4, 5, 6, 0xf7]).unwrap()
}

fn judged(key: &PublicKey, message: &[u8], file: &[u8]) -> Result<(), Refused> {
    let signature = Signature::parse(file)?;
    let mut verifier = Verifier::new(key, &signature)?;
    message.chunks(4096).for_each(|c| verifier.update(c));
    verifier.finish()
}

#[test]
fn minisign_accepts_what_we_sign() {
    let dir = tempfile::tempdir().unwrap();
    let key = ours(1);
    fs::write(dir.path().join("key.pub"), key.public().text()).unwrap();
    for len in SIZES {
        let message = content(len);
        let mut signer = Signer::new(&key);
        message.chunks(1000).for_each(|c| signer.update(c));
        fs::write(dir.path().join("file"), &message).unwrap();
        fs::write(dir.path().join("file.minisig"), signer.finish("GW-042\tbackup 17")).unwrap();
        // -H refuses whatever is not prehashed.
        let said = minisign(dir.path(), &["-V", "-H", "-m", "file", "-p", "key.pub"]);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.status.success() && text.contains("GW-042\tbackup 17"), "{len}: {said:?}");
        fs::write(dir.path().join("file"), [message, vec![0]].concat()).unwrap();
        assert!(!minisign(dir.path(), &["-V", "-m", "file", "-p", "key.pub"]).status.success(), "{len}");
    }
}

#[test]
fn we_accept_what_minisign_signs_with_its_key_and_with_ours() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    assert!(minisign(dir.path(), &["-G", "-W", "-p", "its.pub", "-s", "its.key"]).status.success());
    let key = ours(2);
    fs::write(path("our.key"), key.to_text().as_str()).unwrap();
    fs::write(path("our.pub"), key.public().text()).unwrap();
    for name in ["its", "our"] {
        let secret = SigningKey::parse(&fs::read_to_string(path(&format!("{name}.key"))).unwrap()).unwrap();
        let public = PublicKey::parse(&fs::read_to_string(path(&format!("{name}.pub"))).unwrap()).unwrap();
        assert_eq!(secret.public(), &public, "{name}");
        for len in SIZES {
            let message = content(len);
            fs::write(path("file"), &message).unwrap();
            let made = minisign(dir.path(), &["-S", "-s", &format!("{name}.key"), "-m", "file", "-t", "a ü comment"]);
            assert!(made.status.success(), "{name}, {len}: {made:?}");
            let file = fs::read(path("file.minisig")).unwrap();
            assert_eq!(judged(&public, &message, &file), Ok(()), "{name}, {len}");
            assert_eq!(Signature::parse(&file).unwrap().trusted_comment(), "a ü comment");
            // Ed25519 is deterministic: the same key over the same bytes gives the same two lines.
            let again = sign(&secret, &message, "a ü comment");
            let lines = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(lines(&again), lines(std::str::from_utf8(&file).unwrap()), "{name}, {len}");
            let mut other = message.clone();
            other.push(b'x');
            assert_eq!(judged(&public, &other, &file), Err(Refused::Forged), "{name}, {len}");
        }
    }
    // The public key that minisign derives again from our secret key file.
    assert!(minisign(dir.path(), &["-R", "-s", "our.key", "-p", "again.pub"]).status.success());
    assert_eq!(&PublicKey::parse(&fs::read_to_string(path("again.pub")).unwrap()).unwrap(), key.public());
}

#[test]
fn the_legacy_form_of_minisign_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    assert!(minisign(dir.path(), &["-G", "-W", "-p", "k.pub", "-s", "k.key"]).status.success());
    fs::write(dir.path().join("file"), "x").unwrap();
    assert!(minisign(dir.path(), &["-S", "-l", "-s", "k.key", "-m", "file"]).status.success());
    let file = fs::read(dir.path().join("file.minisig")).unwrap();
    assert_eq!(Signature::parse(&file).err(), Some(Refused::Legacy));
}

#[test]
fn an_encrypted_key_of_minisign_is_refused_by_name() {
    // minisign -G asks for a password on the terminal; the head of such a file is what tells it.
    let text = ours(3).to_text().replacen("RWQAAEIy", "RWRTY0Iy", 1);
    assert_eq!(SigningKey::parse(&text).err(), Some(KeyFault::Encrypted));
}

/// All bits of a signature file of ours and of one of minisign.
#[test]
fn a_signature_with_any_bit_changed_is_refused_or_only_its_untrusted_comment_differs() {
    let dir = tempfile::tempdir().unwrap();
    assert!(minisign(dir.path(), &["-G", "-W", "-p", "k.pub", "-s", "k.key"]).status.success());
    let secret = SigningKey::parse(&fs::read_to_string(dir.path().join("k.key")).unwrap()).unwrap();
    fs::write(dir.path().join("file"), "a ticket").unwrap();
    assert!(minisign(dir.path(), &["-S", "-s", "k.key", "-m", "file"]).status.success());
    let theirs = fs::read(dir.path().join("file.minisig")).unwrap();
    for file in [theirs, sign(&secret, b"a ticket", "17").into_bytes()] {
        assert_eq!(judged(secret.public(), b"a ticket", &file), Ok(()));
        let free = "untrusted comment: ".len()..file.iter().position(|b| *b == b'\n').unwrap();
        let mut accepted = 0;
        for bit in 0..file.len() * 8 {
            let mut other = file.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            if judged(secret.public(), b"a ticket", &other).is_ok() {
                assert!(free.contains(&(bit / 8)), "bit {bit} of {:?}", String::from_utf8_lossy(&file));
                accepted += 1;
            }
        }
        println!("{} bits, {accepted} accepted, all in the untrusted comment", file.len() * 8);
    }
}

/// `cargo test --release --test minisign -- --ignored --nocapture`: both hashes beside minisign's own.
#[test]
#[ignore = "prints a ratio; make bench"]
fn speed_beside_minisign() {
    let dir = tempfile::tempdir().unwrap();
    let message = content(64 << 20);
    let key = ours(4);
    fs::write(dir.path().join("file"), &message).unwrap();
    fs::write(dir.path().join("k.key"), key.to_text().as_str()).unwrap();
    fs::write(dir.path().join("k.pub"), key.public().text()).unwrap();
    let timed = |what: &mut dyn FnMut()| {
        let best = (0..5).map(|_| {
            let from = std::time::Instant::now();
            what();
            from.elapsed()
        });
        best.min().unwrap().as_secs_f64()
    };
    let mut text = String::new();
    let signing = timed(&mut || text = sign(&key, &message, ""));
    let signature = Signature::parse(text.as_bytes()).unwrap();
    let checking = timed(&mut || verify(key.public(), &message, &signature).unwrap());
    let theirs = timed(&mut || assert!(minisign(dir.path(), &["-S", "-s", "k.key", "-m", "file"]).status.success()));
    let checked = timed(&mut || assert!(minisign(dir.path(), &["-V", "-p", "k.pub", "-m", "file"]).status.success()));
    println!("64 MiB: sign {signing:.3} s ({:.2} of minisign's)", signing / theirs);
    println!("64 MiB: check {checking:.3} s ({:.2} of minisign's)", checking / checked);
}
