//! `status`: the last report, in plain words or as metrics for the textfile collector of node_exporter.

use std::path::Path;

use super::{Context, RUN, below, print};
use crate::boot::assess::{Cause, StructureVerdict};
use crate::boot::report::{BootReport, plain};
use crate::boot::sense::small_file;
use crate::edge::Machine;
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
        print(metric_text(&report).trim_end());
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

/// Prometheus text exposition format 0.0.4.
fn metric_text(report: &BootReport) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, help: &str, samples: Vec<(String, u64)>| {
        text.push_str(&format!("# HELP pyvorin_recovery_{name} {help}\n# TYPE pyvorin_recovery_{name} gauge\n"));
        for (labels, value) in samples {
            text.push_str(&format!("pyvorin_recovery_{name}{labels} {value}\n"));
        }
    };
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
    text
}
