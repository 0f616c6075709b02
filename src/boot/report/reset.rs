//! What became of a factory reset that was asked for. Pure.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{DatabaseReport, Found};
use crate::boot::assess::{Assessment, DatabaseVerdict, StructureVerdict};
use crate::boot::outcome::{Issued, Outcome, StepResult};
use crate::reset::{SUBJECT, Tier};
use crate::sqlite::judge::Completeness;

/// Its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResetState {
    /// Complete, with a receipt.
    Done,
    /// Not begun; nothing was changed.
    Refused,
    /// Begun and not ended; what had begun is taken back or finished at the next start.
    Failed,
    /// This request was executed earlier; nothing was changed.
    Used,
}

/// A factory reset in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetReport {
    /// How far.
    pub tier: Tier,
    /// The technician, as claimed.
    pub technician: String,
    /// The request.
    pub request: String,
    /// Its end.
    pub state: ResetState,
    /// Why it was refused or failed.
    pub why: Option<String>,
    /// True when something is gone that was not preserved.
    pub loss: bool,
    /// Configuration that the tier means and that could not be reset.
    pub left: Vec<String>,
    /// Where the receipt stands; a text beside it.
    pub receipt: Option<PathBuf>,
}

/// `None` when none was asked for.
#[must_use]
pub fn reset(
    first: &Assessment,
    last: &Assessment,
    outcomes: &[Outcome],
    refused: Option<&str>,
) -> Option<ResetReport> {
    let asked = first.reset.as_ref().or(last.reset.as_ref())?;
    let request = &asked.request;
    let done = issued(outcomes).filter(|i| i.receipt.request == request.id);
    let failed = outcomes.iter().rev().find_map(|o| match &o.result {
        StepResult::Failed(why) if o.database.as_deref() == Some(SUBJECT) => Some(why.clone()),
        _ => None,
    });
    // An operation that is open and cannot be finished comes before it, whoever began that.
    let open = outcomes.iter().rev().find_map(|o| match &o.result {
        StepResult::Failed(why) if o.step == "resume" => Some(why.clone()),
        _ => None,
    });
    let failed = failed.or(open);
    let (state, why) = match (&done, failed, refused) {
        (Some(_), _, _) => (ResetState::Done, None),
        (None, Some(why), _) => (ResetState::Failed, Some(why)),
        (None, None, Some(why)) => (ResetState::Refused, Some(why.to_string())),
        (None, None, None) => (ResetState::Used, None),
    };
    Some(ResetReport {
        tier: request.tier,
        technician: request.by.clone(),
        request: request.id.clone(),
        state,
        why,
        loss: done.is_some_and(|i| i.receipt.loss),
        left: done.map(|i| i.receipt.left.clone()).unwrap_or_default(),
        receipt: done.map(|i| i.file.clone()),
    })
}

/// The receipt of a reset that ended in these outcomes.
#[must_use]
pub fn issued(outcomes: &[Outcome]) -> Option<&Issued> {
    outcomes.iter().find_map(|o| match &o.result {
        StepResult::Done(detail) => detail.reset.as_deref(),
        _ => None,
    })
}

/// What a reset made of a database, where it did.
pub(super) fn emptied(report: &mut DatabaseReport, v: &DatabaseVerdict, outcomes: &[Outcome]) -> bool {
    let mine = |issued: &&Issued| issued.receipt.databases.iter().any(|d| d.name == v.name);
    let Some(Issued { receipt, .. }) = issued(outcomes).filter(mine) else { return false };
    report.action = Some("reset".to_string());
    report.quarantine = Some(PathBuf::from(&receipt.quarantine).join(&v.name));
    report.found =
        Some(Found { structure: v.structure, completeness: v.completeness, frames_lost: 0, in_doubt: false });
    let gone = receipt.databases.iter().any(|d| d.name == v.name && d.schema_from.is_none());
    report.structure = if gone { StructureVerdict::Missing } else { StructureVerdict::Sound };
    report.completeness = Completeness::Unknown;
    true
}

/// In a sentence or two.
pub(super) fn sentences(r: &ResetReport) -> Vec<String> {
    let head = format!("A factory reset of tier {}, asked for by {},", r.tier.name(), r.technician);
    let why = r.why.as_deref().unwrap_or("");
    let mut lines = vec![match r.state {
        ResetState::Done => format!("{head} is complete."),
        ResetState::Refused => format!("{head} was refused, and nothing was changed: {why}."),
        ResetState::Failed => format!("{head} failed: {why}."),
        ResetState::Used => format!("{head} was executed earlier; the request is used up."),
    }];
    lines.extend(r.left.iter().map(|what| format!("  Not reset: {what}.")));
    if r.loss {
        lines.push("  Not everything could be preserved, as was accepted; the receipt names it.".to_string());
    }
    lines.extend(r.receipt.iter().map(|path| format!("  The receipt is {}.", path.display())));
    lines
}
