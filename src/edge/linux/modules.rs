//! Kernel modules of the initramfs, in an order fixed when the image was built: there is no modprobe and no search
//! for dependencies at boot. A module that does not load is a line in the log; its device may not be in this machine.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use super::file;

/// `MODULE_INIT_COMPRESSED_FILE` of `include/uapi/linux/module.h`: the kernel decompresses (since 5.17, where built in).
const COMPRESSED: u32 = 4;

/// What became of the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Loaded now or there already.
    pub loaded: u32,
    /// Refused by the kernel or not there.
    pub failed: u32,
}

/// Loads each module named in the file at `list`: one path a line, relative ones from the directory of the list, with
/// parameters behind it. No list means no modules.
pub fn load_modules(list: &Path) -> Loaded {
    let mut loaded = Loaded::default();
    let text = match file::read_text(list) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return loaded,
        Err(e) => {
            log::warn!("{}: {e}", list.display());
            return loaded;
        }
    };
    let dir = list.parent().unwrap_or(Path::new("/"));
    for (name, parameters) in entries(&text) {
        match load(&dir.join(name), parameters) {
            Ok(()) => loaded.loaded += 1,
            Err(e) => {
                loaded.failed += 1;
                log::warn!("module {name}: {e}");
            }
        }
    }
    loaded
}

fn entries(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines()
        .map(|line| line.split_once('#').map_or(line, |(entry, _)| entry).trim())
        .filter(|line| !line.is_empty())
        .map(|line| line.split_once(char::is_whitespace).map_or((line, ""), |(name, rest)| (name, rest.trim())))
}

fn load(path: &Path, parameters: &str) -> io::Result<()> {
    let file = OpenOptions::new().read(true).open(path)?;
    let compressed = path.extension().is_some_and(|end| end == "xz" || end == "zst" || end == "gz");
    let flags = if compressed { ModuleInitFlags::from_bits_retain(COMPRESSED) } else { ModuleInitFlags::empty() };
    match finit_module(&file, &CString::new(parameters)?, flags) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_modules_in_order() {
        let text = "# order\nkernel/virtio.ko\n\n  ext4.ko.xz  debug=1 x=\"a b\" # why\n/abs/a.ko\n";
        let wanted = [("kernel/virtio.ko", ""), ("ext4.ko.xz", "debug=1 x=\"a b\""), ("/abs/a.ko", "")];
        assert_eq!(entries(text).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn no_list_means_no_modules_and_a_bad_one_goes_on() {
        let dir = tempfile::TempDir::new().unwrap();
        assert_eq!(load_modules(&dir.path().join("none")), Loaded::default());
        let list = dir.path().join("load-order");
        file::write(&list, b"missing-a.ko\nmissing-b.ko.zst\n").unwrap();
        assert_eq!(load_modules(&list), Loaded { loaded: 0, failed: 2 });
    }
}
