//! `status`: the last report, in plain words or as metrics for the textfile collector of node_exporter.

use std::path::Path;

use super::{Context, RUN, below, print};
use crate::boot::assess::{Cause, StructureVerdict};
use crate::boot::report::{BootReport, plain};
use crate::boot::sense::small_file;
use crate::boot::{chain, fold, queue};
use crate::edge::{Look, Machine};
use crate::error::{Error, ErrorKind, Exit};
use crate::sqlite::judge::Completeness;

/// Prints the report of this boot.
pub fn status(context: &Context, metrics: bool) -> Result<Exit, Error> {
    let path = below(&context.root, Path::new(RUN)).join("report.json");
    let cannot = |e: std::io::Error| Error::io(ErrorKind::Read, "cannot read the last report", &path, &e);
    let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
    let bytes = small_file(context.machine.as_look(), &path).and_then(|b| b.ok_or_else(missing)).map_err(cannot)?;
    let report: BootReport = serde_json::from_slice(&bytes).map_err(|e| {
        Error::new(ErrorKind::Read, "cannot understand the last report", e.to_string(), "boot again to have a new one")
            .at(&path)
    })?;
    let exit = if report.databases.iter().any(left) { Exit::LEFT } else { Exit::OK };
    if metrics {
        print(metric_text(context, &report).trim_end());
    } else if context.json {
        print(String::from_utf8_lossy(&bytes).trim_end());
    } else {
        plain(&report).iter().for_each(|line| print(line));
    }
    Ok(exit)
}

fn left(d: &crate::boot::report::DatabaseReport) -> bool {
    d.action.as_deref() == Some("left")
        || d.structure == StructureVerdict::Damaged
        || d.completeness == Completeness::Lossy
        || d.found.as_ref().is_some_and(|f| f.in_doubt)
}

/// Prometheus text exposition format 0.0.4, one metric after the other.
#[derive(Default)]
struct Metrics(String);

impl Metrics {
    fn add(&mut self, name: &str, help: &str, samples: Vec<(String, u64)>) {
        if samples.is_empty() {
            return;
        }
        self.0.push_str(&format!("# HELP pyvorin_recovery_{name} {help}\n# TYPE pyvorin_recovery_{name} gauge\n"));
        for (labels, value) in samples {
            self.0.push_str(&format!("pyvorin_recovery_{name}{labels} {value}\n"));
        }
    }

    fn one(&mut self, name: &str, help: &str, value: impl Into<Option<u64>>) {
        self.add(name, help, value.into().map(|v| (String::new(), v)).into_iter().collect());
    }
}

/// The queue as it is now. What cannot be read has no samples, and that is one.
fn queue_metrics(context: &Context, metrics: &mut Metrics) {
    let Some(database) = queue::configured(&context.settings) else { return };
    let figures = super::queue::figures(context, database).map_err(|e| log::warn!("{e}")).ok();
    metrics.one("queue_readable", "1 when the queue could be read.", u64::from(figures.is_some()));
    let Some((report, _)) = figures else { return };
    let s = &report.stats;
    metrics.one("queue_depth", "Rows waiting to be sent, valid or not.", s.depth);
    let by = s.by_priority.iter().map(|(p, n)| (format!("{{priority=\"{p}\"}}"), *n)).collect();
    metrics.add("queue_depth_by_priority", "Rows by priority: 1 critical, 2 anomaly, 3 telemetry, 4 logs.", by);
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
fn audit_metrics(context: &Context, metrics: &mut Metrics) {
    let look = context.machine.as_look();
    let ours = crate::boot::events::load(look, &context.settings).map_err(|e| log::warn!("{e}")).ok();
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
    metrics.one(
        "audit_bad",
        "1 when the chain is broken, shortened, rewritten or in no known form.",
        u64::from(!chain.verified.good()),
    );
}

fn metric_text(context: &Context, report: &BootReport) -> String {
    let mut metrics = Metrics::default();
    let mut metric = |name: &str, help: &str, samples: Vec<(String, u64)>| metrics.add(name, help, samples);
    metric(
        "boot_elapsed_milliseconds",
        "Time the recovery line took at boot.",
        vec![(String::new(), report.elapsed_ms)],
    );
    let cause = |c: Cause, word: &str| (format!("{{cause=\"{word}\"}}"), u64::from(report.cause == c));
    let causes = [(Cause::Power, "power"), (Cause::Os, "os"), (Cause::Data, "data"), (Cause::None, "none")];
    metric("boot_cause", "What the last boot suffered from.", causes.map(|(c, w)| cause(c, w)).to_vec());
    let label =
        |p: &Path| format!("{{path=\"{}\"}}", p.display().to_string().replace('\\', "\\\\").replace('"', "\\\""));
    let per = |f: &dyn Fn(&crate::boot::report::DatabaseReport) -> bool| {
        report.databases.iter().map(|d| (label(&d.path), u64::from(f(d)))).collect::<Vec<_>>()
    };
    metric("database_left_damaged", "1 when damage or loss was left.", per(&left));
    metric("database_repaired", "1 when the database was repaired at boot.", per(&|d| d.found.is_some()));
    metric(
        "own_failure",
        "1 when a stage of ours died.",
        vec![(String::new(), u64::from(report.own_failure.is_some()))],
    );
    queue_metrics(context, &mut metrics);
    audit_metrics(context, &mut metrics);
    metrics.0
}
