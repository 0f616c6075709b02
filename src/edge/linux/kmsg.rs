//! The log of the boot path: records to `/dev/kmsg`, so that they stand in `dmesg` and in the journal of the OS.
//!
//! Logging never decides anything and never blocks a boot: what cannot be written is lost, first to stderr and then
//! silently. Format: `Documentation/ABI/testing/dev-kmsg` of the Linux kernel; one write is one record.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

/// The kernel takes 1024 bytes with its own prefix; longer records are refused whole, so they are cut before.
const LONGEST: usize = 900;

struct Kmsg {
    file: Option<File>,
}

static KMSG: OnceLock<Kmsg> = OnceLock::new();

/// Makes `/dev/kmsg` the log of this process. To be called after `/dev` is mounted; a second call changes nothing.
pub fn init(level: LevelFilter) {
    unlimit();
    let file = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").ok();
    // An error says that there is a logger already; that one then goes on.
    if log::set_logger(KMSG.get_or_init(|| Kmsg { file })).is_ok() {
        log::set_max_level(level);
    }
}

/// The kernel drops all but ten records in five seconds from user space. systemd lifts this for itself as well.
fn unlimit() {
    if let Ok(mut file) = OpenOptions::new().write(true).open("/proc/sys/kernel/printk_devkmsg") {
        // Refused once the command line has fixed it; then the limit stays.
        let _ = file.write_all(b"on\n");
    }
}

impl Log for Kmsg {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = format(record.level(), &record.args().to_string());
        let written = self.file.as_ref().is_some_and(|mut file| file.write_all(line.as_bytes()).is_ok());
        if !written {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// One record: priority, name, and the text on one line.
fn format(level: Level, text: &str) -> String {
    let priority = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let mut line = format!("<{priority}>pyvorin-recovery: ");
    for c in text.chars() {
        if line.len() >= LONGEST {
            line.push('…');
            break;
        }
        line.push(if c.is_control() { ' ' } else { c });
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_bounded_line() {
        assert_eq!(format(Level::Info, "a\nb"), "<6>pyvorin-recovery: a b\n");
        assert_eq!(format(Level::Error, "x"), "<3>pyvorin-recovery: x\n");
        let long = format(Level::Warn, &"ü".repeat(5000));
        assert!(long.len() < 1000 && long.matches('\n').count() == 1);
    }
}
