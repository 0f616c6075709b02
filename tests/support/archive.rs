//! Archives made by hand, byte by byte: what the program must refuse, and what it must take.

use std::io::Write;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;
use age::x25519::{Identity, Recipient};
use sha2::{Digest, Sha256};

use super::site::Site;

/// Keys of operations and escrow, and a configuration that names them.
pub struct Desk {
    pub site: Site,
    pub operations: Identity,
    pub escrow: Identity,
    pub identity: PathBuf,
}

/// A gateway with keys and two recipients; `more` is added below `[backup]`.
pub fn desk(more: &str) -> Desk {
    let site = Site::bare();
    let (operations, escrow) = (Identity::generate(), Identity::generate());
    let text = format!(
        "[device]\nid = \"GW-042\"\n[state]\ndir = \"/var/lib/pyvorin-recovery\"\n[backup]\n\
         recipients = [\"{}\", \"{}\"]\n{more}\n",
        operations.to_public(),
        escrow.to_public()
    );
    std::fs::write(site.config(), text).unwrap();
    let identity = site.config().with_file_name("operations.key");
    std::fs::write(&identity, operations.to_string().expose_secret()).unwrap();
    assert_eq!(site.run(&["key", "init"]).code, 0);
    Desk { site, operations, escrow, identity }
}

pub fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// A member header of the plain form, with `change` made to it before its checksum.
pub fn header(name: &str, len: u64, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut h = vec![0; 512];
    h[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
    h[100..108].copy_from_slice(b"0000600\0");
    h[108..116].copy_from_slice(b"0000000\0");
    h[116..124].copy_from_slice(b"0000000\0");
    h[124..136].copy_from_slice(format!("{len:011o}\0").as_bytes());
    h[136..148].copy_from_slice(b"00000000000\0");
    h[156] = b'0';
    h[257..263].copy_from_slice(b"ustar\0");
    h[263..265].copy_from_slice(b"00");
    change(&mut h);
    h[148..156].fill(b' ');
    let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
    h[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    h
}

/// A header, its bytes, and the zeroes behind them.
pub fn member(name: &str, bytes: &[u8]) -> Vec<u8> {
    filled(header(name, bytes.len() as u64, |_| {}), bytes)
}

pub fn filled(mut header: Vec<u8>, bytes: &[u8]) -> Vec<u8> {
    header.extend_from_slice(bytes);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}

pub fn frame(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

pub fn sealed(bytes: &[u8], to: &[Recipient]) -> Vec<u8> {
    let recipients = to.iter().map(|r| r as &dyn age::Recipient);
    let mut out = Vec::new();
    let mut writer = age::Encryptor::with_recipients(recipients).unwrap().wrap_output(&mut out).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap();
    out
}

/// The program `name` with arguments and an input; its output, or a panic with what it said.
pub fn pipe(name: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    use std::process::{Command, Stdio};
    let mut child = Command::new(name)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{name} is needed (make setup): {e}"));
    let mut stdin = child.stdin.take().unwrap();
    let bytes = input.to_vec();
    let feed = std::thread::spawn(move || drop(stdin.write_all(&bytes)));
    let done = child.wait_with_output().unwrap();
    feed.join().unwrap();
    assert!(done.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// The archives of a site, oldest first.
pub fn archives(site: &Site) -> Vec<PathBuf> {
    let Ok(dir) = std::fs::read_dir(site.data().join("backups")) else { return Vec::new() };
    let mut all: Vec<PathBuf> =
        dir.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "age")).collect();
    all.sort_by_key(|p| p.to_string_lossy().rsplit('-').next().map(str::to_string));
    all
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
