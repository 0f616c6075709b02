//! Reads an archive that anybody may have written: strict, in order, in bounded memory and time.
//!
//! A member is accepted when it is a regular file, has the name, the length and the digest that the manifest gives at its
//! place, and nothing else stands between. Everything that tar can say besides (links, devices, directories, PAX and GNU
//! headers, sparse files) refuses the whole archive, as do bytes behind the end of any of the three layers.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use age::{Decryptor, Identity};
use sha2::{Digest, Sha256};

use super::manifest::{self, File, Manifest};
use super::refusal::{Code, Refusal};
use super::{AGE_MAGIC, MAX_HEADER, WINDOW_LOG_MAX};

/// Zero bytes accepted behind the members: GNU tar fills its last record up to 10 KiB.
const MAX_PADDING: u64 = 64 << 10;
const PIECE: usize = 128 << 10;

/// Takes what an archive holds. Nothing of it is proved before [`Sink::end`] of its member.
pub trait Sink {
    /// The manifest, before anything else; an error refuses the archive.
    ///
    /// # Errors
    /// What the receiver has against it.
    fn manifest(&mut self, manifest: &Manifest) -> Result<(), Refusal>;
    /// A member begins.
    ///
    /// # Errors
    /// It cannot be taken.
    fn begin(&mut self, file: &File) -> io::Result<()>;
    /// Bytes of it.
    ///
    /// # Errors
    /// They cannot be taken.
    fn data(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// The member is whole, and what the manifest says.
    ///
    /// # Errors
    /// It cannot be finished.
    fn end(&mut self, file: &File) -> io::Result<()>;
}

/// Which layer an error came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    None,
    Cipher,
    Input,
}

/// Notes that its reader failed, so that an error that comes out of the outer layers can be told for what it is.
struct Marked<R> {
    inner: R,
    layer: Layer,
    failed: Rc<Cell<Layer>>,
}

impl<R: Read> Read for Marked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into);
        if n.is_err() && self.failed.get() == Layer::None {
            self.failed.set(self.layer);
        }
        n
    }
}

/// Reads the whole of `input`, at most `most` bytes of members.
///
/// # Errors
/// Why the archive is refused; what the sink got by then is not to be used.
pub fn unseal(
    input: impl Read,
    identities: &[&dyn Identity],
    most: u64,
    sink: &mut dyn Sink,
) -> Result<Manifest, Refusal> {
    let failed = Rc::new(Cell::new(Layer::None));
    let mut input = Marked { inner: input, layer: Layer::Input, failed: Rc::clone(&failed) };
    let head = header(&mut input)?;
    let whole = io::Cursor::new(head).chain(input);
    let decryptor = Decryptor::new(whole).map_err(|e| told(&e, &failed))?;
    let plain = decryptor.decrypt(identities.iter().copied()).map_err(|e| told(&e, &failed))?;
    let plain = Marked { inner: plain, layer: Layer::Cipher, failed: Rc::clone(&failed) };
    let cannot = |e: io::Error| layer(&e, &failed);
    let mut frame =
        zstd::stream::read::Decoder::with_buffer(io::BufReader::with_capacity(PIECE, plain)).map_err(cannot)?;
    frame.window_log_max(WINDOW_LOG_MAX).map_err(cannot)?;
    let mut frame = frame.single_frame();
    let manifest = members(&mut frame, most, sink, &failed)?;
    ends(&mut frame, &failed)?;
    let mut behind = frame.finish();
    match behind.read(&mut [0]) {
        Ok(0) => Ok(manifest),
        Ok(_) => Err(Refusal::new(Code::TrailingBytes, "something stands behind the compressed frame")),
        Err(e) => Err(layer(&e, &failed)),
    }
}

/// Reads what lies inside the compression, bare: for whoever tests this reader without paying for the layers around it.
///
/// # Errors
/// As [`unseal`].
pub fn inside(mut tar: impl Read, most: u64, sink: &mut dyn Sink) -> Result<Manifest, Refusal> {
    let failed = Cell::new(Layer::None);
    let manifest = members(&mut tar, most, sink, &failed)?;
    ends(&mut tar, &failed)?;
    Ok(manifest)
}

/// The age header, whose length is bounded here: the library reads on until it finds its end.
fn header(input: &mut impl Read) -> Result<Vec<u8>, Refusal> {
    let mut head = Vec::with_capacity(4096);
    let mut piece = [0; 1024];
    loop {
        let n = match input.read(&mut piece) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Refusal::new(Code::Io, format!("it cannot be read: {e}"))),
        };
        head.extend_from_slice(piece.get(..n).unwrap_or_default());
        let known = head.len().min(AGE_MAGIC.len());
        if head.get(..known) != AGE_MAGIC.get(..known) || n == 0 && known < AGE_MAGIC.len() {
            let text = if head.is_empty() { "it is empty" } else { "it does not begin as an age file does" };
            return Err(Refusal::new(Code::NotEncrypted, text));
        }
        // The last line of a header is "--- " and the code over it.
        if let Some(at) = head.windows(5).position(|w| w == b"\n--- ")
            && head.iter().skip(at + 5).any(|b| *b == b'\n')
        {
            return Ok(head);
        }
        if n == 0 {
            return Err(Refusal::new(Code::Truncated, "it ends within its header"));
        }
        if head.len() > MAX_HEADER {
            return Err(Refusal::new(Code::BadHeader, format!("its header has more than {MAX_HEADER} bytes")));
        }
    }
}

fn told(e: &age::DecryptError, failed: &Cell<Layer>) -> Refusal {
    match e {
        age::DecryptError::NoMatchingKeys => Refusal::new(Code::WrongRecipient, "none of the keys at hand opens it"),
        age::DecryptError::Io(e) => layer(e, failed),
        age::DecryptError::DecryptionFailed
        | age::DecryptError::InvalidMac
        | age::DecryptError::KeyDecryptionFailed => Refusal::new(Code::Altered, "its header was altered"),
        // In our own words: the library's come with a translation machinery of 200 KB.
        _ => Refusal::new(Code::BadHeader, "its header is none"),
    }
}

fn layer(e: &io::Error, failed: &Cell<Layer>) -> Refusal {
    match (failed.get(), e.kind()) {
        (Layer::Input, _) => Refusal::new(Code::Io, format!("it cannot be read: {e}")),
        (_, io::ErrorKind::UnexpectedEof) => Refusal::new(Code::Truncated, "it ends before its end"),
        (Layer::Cipher, _) => Refusal::new(Code::Altered, "a part of it does not decrypt"),
        // Of zstd's messages this one alone is worth telling apart.
        (Layer::None, _) if e.to_string().contains("too much memory") => Refusal::new(
            Code::Window,
            format!("its compression asks for more than {} MiB", (1 << WINDOW_LOG_MAX) >> 20),
        ),
        (Layer::None, _) => Refusal::new(Code::BadCompression, format!("what is inside does not unpack: {e}")),
    }
}

fn members(frame: &mut impl Read, most: u64, sink: &mut dyn Sink, failed: &Cell<Layer>) -> Result<Manifest, Refusal> {
    let mut archive = tar::Archive::new(frame);
    let mut manifest: Option<Manifest> = None;
    let mut done = 0;
    let entries = archive.entries().map_err(|e| layer(&e, failed))?.raw(true);
    for entry in entries {
        let mut entry = entry.map_err(|e| bad_header(&e, failed))?;
        let header = entry.header();
        let name = regular(header)?;
        let len = header.entry_size().map_err(|e| Refusal::new(Code::BadMember, format!("{name}: {e}")))?;
        let Some(known) = &manifest else {
            let read = first(&mut entry, &name, len, failed)?;
            if read.total() > most {
                let text = format!("it holds {} bytes, and {most} may be unpacked here", read.total());
                return Err(Refusal::new(Code::TooLarge, text));
            }
            sink.manifest(&read)?;
            manifest = Some(read);
            continue;
        };
        let Some(file) = known.files.get(done) else {
            return Err(Refusal::new(Code::UnexpectedMember, format!("{name} is not in its manifest")));
        };
        if file.name != name {
            return Err(Refusal::new(Code::UnexpectedMember, format!("{name} stands where {} belongs", file.name)));
        }
        if file.len != len {
            let text = format!("{name} has {len} bytes, and {} in its manifest", file.len);
            return Err(Refusal::new(Code::WrongLength, text));
        }
        member(&mut entry, file, sink, failed)?;
        done += 1;
    }
    let manifest = manifest.ok_or_else(|| Refusal::new(Code::NoManifest, "nothing is in it"))?;
    match manifest.files.get(done) {
        Some(file) => Err(Refusal::new(Code::MissingMember, format!("{} is not in it", file.name))),
        None => Ok(manifest),
    }
}

fn bad_header(e: &io::Error, failed: &Cell<Layer>) -> Refusal {
    // The tar reader's own complaints come without an error of a layer below.
    if failed.get() == Layer::None && e.kind() != io::ErrorKind::UnexpectedEof && !is_zstd(e) {
        return Refusal::new(Code::BadMember, format!("a member header is damaged: {e}"));
    }
    layer(e, failed)
}

fn is_zstd(e: &io::Error) -> bool {
    let text = e.to_string();
    ["too much memory", "Data corruption", "Unknown frame", "Unsupported", "Restored data", "Src size"]
        .iter()
        .any(|known| text.contains(known))
}

/// The name of a member that is a regular file in the plain form.
fn regular(header: &tar::Header) -> Result<String, Refusal> {
    use tar::EntryType as T;
    let bytes = header.path_bytes();
    let name: String = String::from_utf8_lossy(&bytes).chars().take(manifest::MAX_NAME).collect();
    match header.entry_type() {
        T::Regular => {}
        T::XHeader | T::XGlobalHeader | T::GNULongName | T::GNULongLink | T::GNUSparse => {
            let text = format!("{name:?} is an extension header");
            return Err(Refusal::new(Code::ExtensionHeader, text));
        }
        _ => return Err(Refusal::new(Code::NotAFile, format!("{name:?} is no regular file"))),
    }
    if header.as_ustar().is_none() && header.as_gnu().is_none() {
        return Err(Refusal::new(Code::BadMember, format!("{name:?} has a header of an unknown kind")));
    }
    match std::str::from_utf8(&bytes) {
        Ok(whole) if manifest::is_name(whole) => Ok(whole.to_string()),
        _ => Err(Refusal::new(Code::UnexpectedMember, format!("{name:?} is no name for a member"))),
    }
}

fn first(entry: &mut impl Read, name: &str, len: u64, failed: &Cell<Layer>) -> Result<Manifest, Refusal> {
    if name != manifest::NAME {
        return Err(Refusal::new(Code::NoManifest, format!("its first member is {name}")));
    }
    if len > manifest::MAX_LEN {
        return Err(Refusal::new(Code::BadManifest, format!("the manifest has {len} bytes")));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|e| layer(&e, failed))?;
    if bytes.len() as u64 != len {
        return Err(Refusal::new(Code::Truncated, "it ends within the manifest"));
    }
    Manifest::parse(&bytes)
}

fn member(entry: &mut impl Read, file: &File, sink: &mut dyn Sink, failed: &Cell<Layer>) -> Result<(), Refusal> {
    let ours = |e: io::Error| Refusal::new(Code::Io, format!("{} cannot be written: {e}", file.name));
    sink.begin(file).map_err(ours)?;
    let mut piece = vec![0; PIECE];
    let (mut hash, mut got) = (Sha256::new(), 0_u64);
    loop {
        let n = entry.read(&mut piece).map_err(|e| layer(&e, failed))?;
        let Some(bytes) = piece.get(..n).filter(|b| !b.is_empty()) else { break };
        got += n as u64;
        hash.update(bytes);
        sink.data(bytes).map_err(ours)?;
    }
    if got != file.len {
        return Err(Refusal::new(Code::Truncated, format!("it ends within {}", file.name)));
    }
    if format!("{:x}", hash.finalize()) != file.sha256 {
        return Err(Refusal::new(Code::WrongDigest, format!("{} is not what the manifest says", file.name)));
    }
    sink.end(file).map_err(ours)
}

/// Nothing but zeroes up to the end of the frame, and not too many of those.
fn ends(frame: &mut impl Read, failed: &Cell<Layer>) -> Result<(), Refusal> {
    let mut piece = vec![0; 4096];
    let mut zeroes = 0;
    loop {
        let n = frame.read(&mut piece).map_err(|e| layer(&e, failed))?;
        let Some(bytes) = piece.get(..n).filter(|b| !b.is_empty()) else { return Ok(()) };
        zeroes += n as u64;
        if bytes.iter().any(|b| *b != 0) || zeroes > MAX_PADDING {
            return Err(Refusal::new(Code::TrailingBytes, "something stands behind its last member"));
        }
    }
}
