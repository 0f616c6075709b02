//! What is inside a backup archive: members, the manifest, changed pages. The cipher and the compression around it are their
//! libraries' own; without them a mutated byte arrives where it was changed.

use std::io;

use pyvorin_recovery::archive::manifest::{self, File, Manifest};
use pyvorin_recovery::archive::pages::{Head, Index};
use pyvorin_recovery::archive::unseal::{Sink, inside};
use pyvorin_recovery::archive::{Refusal, manifest::is_name};
use sha2::{Digest, Sha256};

/// Holds what the reader promises to whoever takes the members.
#[derive(Default)]
struct Promises {
    manifest: Option<Manifest>,
    done: usize,
    hash: Sha256,
    got: u64,
}

impl Sink for Promises {
    fn manifest(&mut self, manifest: &Manifest) -> Result<(), Refusal> {
        assert!(self.manifest.is_none() && manifest.files.iter().all(|f| is_name(&f.name)));
        self.manifest = Some(manifest.clone());
        Ok(())
    }

    fn begin(&mut self, file: &File) -> io::Result<()> {
        let manifest = self.manifest.as_ref().expect("a member before the manifest");
        assert_eq!(manifest.files.get(self.done), Some(file), "out of order");
        (self.hash, self.got) = (Sha256::new(), 0);
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.got += bytes.len() as u64;
        Ok(())
    }

    fn end(&mut self, file: &File) -> io::Result<()> {
        assert_eq!(self.got, file.len);
        assert_eq!(format!("{:x}", self.hash.clone().finalize()), file.sha256);
        self.done += 1;
        Ok(())
    }
}

/// The first byte chooses the reader.
pub fn archive(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    match which % 4 {
        0 | 1 => {
            let mut promises = Promises::default();
            if let Ok(manifest) = inside(rest, 1 << 30, &mut promises) {
                assert_eq!(promises.done, manifest.files.len(), "accepted without a member");
            }
        }
        2 => {
            if let Ok(manifest) = Manifest::parse(rest) {
                assert_eq!(Manifest::parse(&manifest.encode()), Ok(manifest));
            }
        }
        _ => {
            if let Ok(head) = Head::parse(rest, rest.len() as u64) {
                assert_eq!(head.encode(), rest[..head.encode().len()]);
            }
            if let Some(index) = Index::parse(rest) {
                assert_eq!(index.encode(), rest);
            }
        }
    }
}

fn member(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    header.set_mtime(0);
    header.set_cksum();
    let mut all = [header.as_bytes(), bytes].concat();
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

/// Inputs to begin with.
pub fn seeds() -> Vec<Vec<u8>> {
    let text = b"a = 1\n".to_vec();
    let hash = |bytes: &[u8]| format!("{:x}", Sha256::digest(bytes));
    let file =
        File { name: "config/x".into(), kind: manifest::Kind::Config, len: 6, sha256: hash(&text), database: None };
    let manifest = Manifest {
        kind: manifest::TYPE.into(),
        format: 1,
        min_reader: 1,
        device: "GW-042".into(),
        sequence: 3,
        created: 1_795_636_862,
        tool: "x".into(),
        restore_recipient: None,
        base: None,
        audit: None,
        journal: None,
        files: vec![file],
    };
    let tar = [member(manifest::NAME, &manifest.encode()), member("config/x", &text), vec![0; 1024]].concat();
    let head = Head { page_size: 512, base_pages: 3, pages: 4, changed: 0, base: [1; 32], result: [2; 32] };
    let mut index = Index::new(512, [3; 32]);
    index.push(&[7; 512]);
    let with = |which: u8, bytes: &[u8]| [&[which], bytes].concat();
    vec![with(0, &tar), with(2, &manifest.encode()), with(3, &head.encode()), with(3, &index.encode())]
}
