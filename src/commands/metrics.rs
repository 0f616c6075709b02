//! `status --metrics`: the state of the gateway in the Prometheus text exposition format 0.0.4, for the textfile collector
//! of node_exporter. Every sample is read anew from the report of this boot, the databases and the state directory; what
//! cannot be read has no samples, and a metric of its own says that it could not be read, so that an alert can tell
//! "nothing is wrong" from "nobody looked".

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::Context;
use super::status::left;
use crate::backup::catalogue::{self, Entry};
use crate::boot::assess::{Cause, StructureVerdict};
use crate::boot::report::{BootReport, DatabaseReport};
use crate::boot::{chain, fold, queue, saved, table};
use crate::config::Database;
use crate::edge::{FileKind, Look, Machine};
use crate::journal::QUARANTINE;
use crate::sqlite::check::Scope;
use crate::sqlite::judge::Completeness;
use crate::sqlite::verdict::WalState;

/// Entries of the quarantine looked at, at most: a directory that was filled by somebody else must not hold us up.
const MAX_ENTRIES: u32 = 10_000;
/// Levels of directories in it: a reset keeps `quarantine/OPERATION/configuration/NUMBER/FILE`.
const MAX_DEPTH: u32 = 4;

/// Labels and value.
type Sample = (String, u64);

/// Text under construction.
#[derive(Default)]
struct Metrics(String);

impl Metrics {
    /// One metric with its samples: the labels of each, and its value. Without a sample there is no metric.
    fn add(&mut self, name: &str, help: &str, samples: &[Sample]) {
        if samples.is_empty() {
            return;
        }
        self.0.push_str(&format!("# HELP pyvorin_recovery_{name} {help}\n# TYPE pyvorin_recovery_{name} gauge\n"));
        for (labels, value) in samples {
            self.0.push_str(&format!("pyvorin_recovery_{name}{labels} {value}\n"));
        }
    }

    /// A time; the base unit of the format is the second.
    fn milliseconds(&mut self, name: &str, help: &str, ms: u64) {
        self.0.push_str(&format!("# HELP pyvorin_recovery_{name} {help}\n# TYPE pyvorin_recovery_{name} gauge\n"));
        self.0.push_str(&format!("pyvorin_recovery_{name} {}.{:03}\n", ms / 1000, ms % 1000));
    }

    fn one(&mut self, name: &str, help: &str, value: impl Into<Option<u64>>) {
        if let Some(value) = value.into() {
            self.add(name, help, &[(String::new(), value)]);
        }
    }
}

/// A set of labels; values are escaped as the format asks.
fn labels(pairs: &[(&str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

/// One sample per state: 1 for the one that holds. So a query finds each by its name, and none by its absence.
fn states<T: PartialEq>(now: &T, all: &[(T, &str)], label: &str, more: &[(&str, &str)]) -> Vec<Sample> {
    let sample = |(state, word): &(T, &str)| {
        let pairs: Vec<(&str, &str)> = more.iter().copied().chain([(label, *word)]).collect();
        (labels(&pairs), u64::from(state == now))
    };
    all.iter().map(sample).collect()
}

/// The whole document. `report`: that of this boot, if there is one.
pub(super) fn text(context: &Context, report: Option<&BootReport>) -> String {
    let mut metrics = Metrics::default();
    metrics.one("time_seconds", "When these figures were taken, seconds since the epoch.", context.machine.clock());
    let version = labels(&[("version", env!("CARGO_PKG_VERSION"))]);
    metrics.add("build_info", "The version that wrote them.", &[(version, 1)]);
    metrics.one("boot_report", "1 when the recovery left a report of this boot.", u64::from(report.is_some()));
    if let Some(report) = report {
        boot(&mut metrics, report);
        databases(&mut metrics, &report.databases);
    }
    of_queue(context, &mut metrics);
    of_audit(context, &mut metrics);
    of_quarantine(context, &mut metrics);
    of_backups(context, &mut metrics);
    metrics.0
}

fn boot(metrics: &mut Metrics, report: &BootReport) {
    let causes = [(Cause::Power, "power"), (Cause::Os, "os"), (Cause::Data, "data"), (Cause::None, "none")];
    metrics.milliseconds("boot_elapsed_seconds", "Time the recovery line took at boot.", report.elapsed_ms);
    metrics.add("boot_cause", "What the last boot suffered from.", &states(&report.cause, &causes, "cause", &[]));
    let endings = ["continue", "reboot", "hold"].map(|word| (word.to_string(), word));
    metrics.add("boot_ending", "How it ended.", &states(&report.ending, &endings, "ending", &[]));
    if let Some(slot) = &report.slot {
        metrics.add("boot_slot_info", "The slot that was started.", &[(labels(&[("slot", slot)]), 1)]);
    }
    let failed = u64::from(report.own_failure.is_some());
    metrics.one("own_failure", "1 when a stage of ours died and the boot went on without it.", failed);
}

fn databases(metrics: &mut Metrics, databases: &[DatabaseReport]) {
    let paths: Vec<String> = databases.iter().map(|d| d.path.display().to_string()).collect();
    type Each<'f> = &'f dyn Fn(&DatabaseReport, &str) -> Vec<Sample>;
    let each = |f: Each<'_>| -> Vec<Sample> { databases.iter().zip(&paths).flat_map(|(d, path)| f(d, path)).collect() };
    let one = |f: &dyn Fn(&DatabaseReport) -> Option<u64>| {
        each(&|d, path| f(d).map(|v| (labels(&[("path", path)]), v)).into_iter().collect())
    };
    let structures = [
        (StructureVerdict::Sound, "sound"),
        (StructureVerdict::Damaged, "damaged"),
        (StructureVerdict::Unreadable, "unreadable"),
        (StructureVerdict::Missing, "missing"),
    ];
    let samples = each(&|d, path| states(&d.structure, &structures, "structure", &[("path", path)]));
    metrics.add("database_structure", "Verdict of the boot on the structure, after what it did.", &samples);
    let answers =
        [(Completeness::Complete, "complete"), (Completeness::Lossy, "lossy"), (Completeness::Unknown, "unknown")];
    let samples = each(&|d, path| states(&d.completeness, &answers, "completeness", &[("path", path)]));
    metrics.add("database_completeness", "Whether every committed transaction is reachable.", &samples);
    let logs = [
        (WalState::Absent, "absent"),
        (WalState::Empty, "empty"),
        (WalState::Sound, "sound"),
        (WalState::TornTail, "torn-tail"),
        (WalState::Damaged, "damaged"),
        (WalState::Foreign, "foreign"),
    ];
    let samples = each(&|d, path| states(&d.wal.state, &logs, "state", &[("path", path)]));
    metrics.add("wal_state", "The write-ahead log as the boot found it.", &samples);
    let frames = one(&|d| Some(u64::from(d.wal.frames)));
    metrics.add("wal_frames", "Frames in the log file as the boot found it.", &frames);
    let committed = one(&|d| Some(u64::from(d.wal.committed_frames)));
    metrics.add("wal_committed_frames", "Of these, up to the last commit that SQLite would replay.", &committed);
    let behind = one(&|d| Some(u64::from(d.wal.resyncable_frames)));
    metrics.add("wal_resyncable_frames", "Verified frames behind damage, which SQLite would drop.", &behind);
    let is = |f: &dyn Fn(&DatabaseReport) -> bool| one(&|d| Some(u64::from(f(d))));
    metrics.add("database_left_damaged", "1 when damage or loss was left.", &is(&left));
    metrics.add("database_repaired", "1 when it was repaired at this boot.", &is(&|d| d.found.is_some()));
    let lost = each(&|d, path| {
        let tables = d.tables.iter().flatten().filter_map(|t| Some((t, t.lost?)));
        tables.map(|(t, lost)| (labels(&[("path", path), ("table", &t.name)]), lost)).collect()
    });
    metrics.add("database_rows_lost", "Rows lost in the repair of this boot, where they can be counted.", &lost);
}

/// The queue as it is now.
fn of_queue(context: &Context, metrics: &mut Metrics) {
    let Some(database) = queue::configured(&context.settings) else { return };
    let figures = super::queue::figures(context, database).map_err(|e| log::warn!("{e}")).ok();
    metrics.one("queue_readable", "1 when the queue could be read.", u64::from(figures.is_some()));
    let Some((report, _)) = figures else { return };
    let s = &report.stats;
    metrics.one("queue_depth", "Rows waiting to be sent, valid or not.", s.depth);
    let by: Vec<_> = s.by_priority.iter().map(|(p, n)| (labels(&[("priority", p)]), *n)).collect();
    metrics.add("queue_depth_by_priority", "Rows by priority: 1 critical, 2 anomaly, 3 telemetry, 4 logs.", &by);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // seconds; out of range saturates
    let age = s.oldest_item_timestamp.map(|t| context.machine.clock().saturating_sub(t as u64));
    metrics.one("queue_oldest_age_seconds", "Age of the oldest row.", age);
    metrics.one("queue_retries", "Sum of the retry counts.", u64::try_from(s.total_retries).unwrap_or(0));
    metrics.one("queue_retrying_items", "Rows that were tried and not sent.", s.retrying_items);
    metrics.one("queue_expired", "Rows whose lifetime is over.", s.expired);
    metrics.one("queue_invalid", "Rows that cannot be sent as they are.", s.invalid);
    metrics.one("queue_growing", "1 when the depth has a rising trend over a day.", report.growing.map(u64::from));
    metrics.one("queue_damaged", "1 when the queue is damaged.", u64::from(report.damage.is_some()));
}

/// The audit chain and our journal.
fn of_audit(context: &Context, metrics: &mut Metrics) {
    let look = context.machine.as_look();
    let ours = crate::boot::events::load(look, &context.settings).map_err(|e| log::warn!("{e}")).ok();
    metrics.one("journal_readable", "1 when our own journal could be read.", u64::from(ours.is_some()));
    if let Some(ours) = &ours {
        let v = crate::audit::events::verify(&ours.segments);
        metrics.one("journal_head_seq", "Last event of our own journal.", v.head.seq);
        metrics.one("journal_broken", "1 when our own journal does not verify.", u64::from(!v.breaks.is_empty()));
        let waiting = fold::waiting(ours).len() as u64;
        metrics.one("audit_waiting", "Events that are not in the agent's chain yet.", waiting);
    }
    let Some(database) = fold::store(&context.settings) else { return };
    let (anchors, _) = ours.as_ref().map(chain::known_heads).unwrap_or_default();
    let ask = chain::Ask { anchors, ..chain::Ask::default() };
    let read = chain::read(look, &context.settings, database, &ask).map_err(|e| log::warn!("{e}")).ok();
    metrics.one("audit_readable", "1 when the audit chain could be read.", u64::from(read.is_some()));
    let Some((_, chain)) = read else { return };
    metrics.one("audit_records", "Records of the audit chain.", chain.verified.records);
    let head = chain.verified.head.as_ref().and_then(|(id, _)| u64::try_from(*id).ok());
    metrics.one("audit_head_id", "Id of the last record.", head);
    let bad = u64::from(!chain.verified.good());
    metrics.one("audit_bad", "1 when the chain is broken, shortened, rewritten or in no known form.", bad);
}

/// What the quarantine holds, and how much of it there may be.
fn of_quarantine(context: &Context, metrics: &mut Metrics) {
    let look = context.machine.as_look();
    let dir = context.settings.data_dir.join(QUARANTINE);
    let operations = match look.list(&dir) {
        Ok(names) => Some(names.len() as u64),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Some(0),
        Err(e) => {
            log::warn!("{}: {e}", dir.display());
            None
        }
    };
    metrics.one("quarantine_readable", "1 when the quarantine could be read.", u64::from(operations.is_some()));
    let Some(operations) = operations else { return };
    let mut sum = Sum::default();
    sum.below(look, &dir, MAX_DEPTH);
    metrics.one("quarantine_operations", "Operations whose originals are kept.", operations);
    metrics.one("quarantine_bytes", "Bytes they take, each file once.", sum.bytes);
    metrics.one(
        "data_free_bytes",
        "Bytes free on the data partition.",
        look.free_bytes(&context.settings.data_dir).ok(),
    );
}

/// What there is to come back from, for each database: plain copies that a repair takes lost rows from, and archives that
/// were proved to restore. A copy is looked at quickly, an archive was checked in full when it was made.
fn of_backups(context: &Context, metrics: &mut Metrics) {
    let look = context.machine.as_look();
    let archives = catalogue::read(look, &context.settings)
        .and_then(|known| catalogue::archives(look, &context.settings, &known))
        .unwrap_or_default();
    let (mut copies, mut ages, mut sound) = (Vec::new(), Vec::new(), Vec::new());
    for database in &context.settings.databases {
        let Some(name) = database.location.file_name() else { continue };
        let plain = saved::backups(look, &context.settings.backup_dir, name);
        let holds = |e: &Entry| e.verified > 0 && e.databases.iter().any(|(known, _)| *known == database.name);
        let proved: Vec<u64> =
            archives.iter().filter_map(|f| f.entry.as_ref().filter(|e| holds(e))).map(|e| e.made).collect();
        let path = labels(&[("path", &database.path.display().to_string())]);
        copies.push((path.clone(), (plain.len() + proved.len()) as u64));
        let written = plain.iter().filter_map(|copy| look.stat(copy).ok()??.mtime_ns.try_into().ok());
        let written = written.map(|ns: u64| ns / 1_000_000_000).max();
        let newest = written.max(proved.iter().max().copied());
        ages.extend(newest.map(|at| (path.clone(), look.clock().saturating_sub(at))));
        if newest.is_some() && newest == proved.iter().max().copied() {
            sound.push((path, 1));
        } else if let Some(newest) = plain.first() {
            let copy = Database { location: newest.clone(), ..database.clone() };
            let look_at = table::find(look, &context.settings, &copy, Scope::Quick, "unattended", false);
            let verdict = look_at.map(|found| found.verdict.structure);
            sound.push((path, u64::from(verdict.is_ok_and(|s| s == StructureVerdict::Sound))));
        }
    }
    metrics.add("backup_copies", "Copies and proved archives in the backup directory.", &copies);
    metrics.add("backup_newest_age_seconds", "Age of the newest of them.", &ages);
    metrics.add(
        "backup_newest_sound",
        "1 when the newest is a proved archive, or a quick look finds it sound.",
        &sound,
    );
}

/// Lengths of the files below a directory; hard links count once.
#[derive(Default)]
struct Sum {
    bytes: u64,
    seen: BTreeSet<u64>,
    entries: u32,
}

impl Sum {
    fn below(&mut self, look: &dyn Look, dir: &Path, depth: u32) {
        for name in look.list(dir).unwrap_or_default() {
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return;
            }
            let path = dir.join(name);
            match look.stat(&path) {
                Ok(Some(s)) if s.kind == FileKind::Directory && depth > 1 => self.below(look, &path, depth - 1),
                Ok(Some(s)) if s.kind == FileKind::File && self.seen.insert(s.ino) => {
                    self.bytes = self.bytes.saturating_add(s.len);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{labels, states};

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(labels(&[("path", "/a\"b\\c\nd"), ("x", "y")]), "{path=\"/a\\\"b\\\\c\\nd\",x=\"y\"}");
    }

    #[test]
    fn exactly_the_state_that_holds_is_one() {
        let all = [(1, "one"), (2, "two"), (3, "three")];
        let values: Vec<u64> = states(&2, &all, "n", &[]).into_iter().map(|(_, v)| v).collect();
        assert_eq!(values, [0, 1, 0]);
    }
}
