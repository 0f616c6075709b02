//! What every writing command does before it begins: an operation that a cut left open is finished or taken back, by the
//! same stages as at boot. Two operations at once would share one journal, and the second would orphan the first.

use super::assess::IntentVerdict;
use super::outcome::{Detail, StepResult};
use super::{act, sense};
use crate::edge::Machine;
use crate::error::{Error, ErrorKind};

/// Finishes or takes back what is open; `None` when nothing was. An error: it is still open, and nothing may begin.
pub fn finish(machine: &mut dyn Machine, ask: &sense::Request<'_>) -> Result<Option<Detail>, Error> {
    let settings = ask.settings;
    let found = sense::operation(machine.as_look(), ask);
    let (assessed, plan) = super::planned(machine.as_look(), settings, &found, false);
    let refuse = |why: &str, advice: &str| {
        Error::new(ErrorKind::Refused, "an interrupted operation stands in the way", why, advice)
            .at(&settings.state_dir)
    };
    let op = match &assessed.intent {
        IntentVerdict::None => return Ok(None),
        IntentVerdict::Blocked(why) => return Err(refuse(why, "see the boot report; a technician must decide")),
        IntentVerdict::Resume(op) => op.clone(),
    };
    if !plan.again {
        let why = format!("{op} was begun too often without an end, or its directories cannot be used");
        return Err(refuse(&why, "check both directories, then start the machine again"));
    }
    match act::run(machine, settings, &plan).pop().map(|o| o.result) {
        Some(StepResult::Done(detail)) => Ok(Some(*detail)),
        Some(StepResult::Failed(why) | StepResult::Skipped(why)) => Err(refuse(
            &format!("{op}: {why}"),
            "stop what uses the databases and try again, or start the machine again",
        )),
        None => Err(refuse(&op, "start the machine again")),
    }
}
