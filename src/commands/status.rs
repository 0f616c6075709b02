//! `status`: the last report, in plain words or as metrics for the textfile collector of node_exporter.

use std::io;
use std::path::Path;

use super::{Context, RUN, below, metrics, print};
use crate::boot::assess::StructureVerdict;
use crate::boot::report::{BootReport, DatabaseReport, plain};
use crate::boot::sense::small_file;
use crate::cli::Status;
use crate::edge::{Machine, durable};
use crate::error::{Error, ErrorKind, Exit};
use crate::sqlite::judge::Completeness;

/// Prints the report of this boot, or the figures of the gateway.
pub fn status(context: &mut Context, what: &Status) -> Result<Exit, Error> {
    let path = below(&context.root, Path::new(RUN)).join("report.json");
    let report = report(context, &path);
    if what.metrics {
        // Figures there are always: that a boot has no report is one of them.
        let report = report.map_err(|e| log::warn!("{e}")).ok();
        let text = metrics::text(context, report.as_ref().map(|(report, _)| report));
        let Some(to) = &what.to else {
            print(text.trim_end());
            return Ok(Exit::OK);
        };
        return put(context, to, &text).map(|()| Exit::OK);
    }
    let (report, bytes) = report?;
    if context.json {
        print(String::from_utf8_lossy(&bytes).trim_end());
    } else {
        plain(&report).iter().for_each(|line| print(line));
    }
    Ok(if report.databases.iter().any(left) { Exit::LEFT } else { Exit::OK })
}

fn report(context: &Context, path: &Path) -> Result<(BootReport, Vec<u8>), Error> {
    let cannot = |e: io::Error| Error::io(ErrorKind::Read, "cannot read the last report", path, &e);
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let bytes = small_file(context.machine.as_look(), path).and_then(|b| b.ok_or_else(missing)).map_err(cannot)?;
    let report = serde_json::from_slice(&bytes).map_err(|e| {
        Error::new(ErrorKind::Read, "cannot understand the last report", e.to_string(), "boot again to have a new one")
            .at(path)
    })?;
    Ok((report, bytes))
}

/// Under a temporary name first: the collector reads `*.prom`, and must never see half a file.
fn put(context: &mut Context, to: &Path, text: &str) -> Result<(), Error> {
    let cannot = |e: io::Error| Error::io(ErrorKind::Write, "cannot write the metrics", to, &e);
    let to = std::path::absolute(to).map_err(cannot)?;
    durable::replace(&mut context.machine, &to, text.as_bytes())
        .map_err(|e| Error::io(ErrorKind::Write, "cannot write the metrics", &to, &e))
}

pub(super) fn left(d: &DatabaseReport) -> bool {
    d.action.as_deref() == Some("left")
        || d.structure == StructureVerdict::Damaged
        || d.completeness == Completeness::Lossy
        || d.found.as_ref().is_some_and(|f| f.in_doubt)
}
