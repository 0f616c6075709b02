//! `reset`: the line with a request, and nothing else to repair first.

use std::path::PathBuf;

use serde::Serialize;

use super::work::Work;
use super::{Context, complain, print, print_json};
use crate::backup::create::{self, Fault};
use crate::boot::fold::{self, Folded};
use crate::boot::outcome::Issued;
use crate::boot::report::reset::{ResetReport, ResetState, issued, reset as told};
use crate::boot::{self, sense};
use crate::edge::{Look, Machine};
use crate::error::{Error, ErrorKind, Exit};
use crate::reset::{Receipt, Request, Tier};
use crate::sqlite::check::Scope;

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    exit: u8,
    #[serde(flatten)]
    reset: &'a ResetReport,
    /// The receipt itself.
    document: Option<&'a Receipt>,
    /// The receipt for people.
    receipt_text: Option<PathBuf>,
    /// Events of ours that wait for the agent's chain.
    waiting: usize,
    /// The encrypted backup that was made before anything was taken away.
    backup: Option<PathBuf>,
}

/// A factory reset, or with `plan` what it would do.
pub fn reset(context: &mut Context, tier: Tier, plan: bool, accept_loss: bool) -> Result<Exit, Error> {
    let [a, b] = context.machine.secret();
    let id = format!("command-{}-{}-{:016x}", tier.name(), context.machine.clock(), a ^ b);
    let asked = Request { tier, by: context.by.clone(), id, accept_loss };
    if plan {
        return planned(context, &asked);
    }
    let mut work = Work::begin(context)?;
    let done = work.finish_open(context).and_then(|finished| {
        match finished.and_then(|detail| detail.reset).filter(|issued| issued.receipt.tier == tier) {
            // The same command was cut off, or killed: what it had begun is complete now, and is what was asked for.
            Some(issued) => tell(context, &finished_report(&issued), Some(&issued.receipt), None),
            None => run(context, &asked, &mut work),
        }
    });
    work.end(context, done)
}

fn planned(context: &Context, asked: &Request) -> Result<Exit, Error> {
    let settings = &context.settings;
    let look = context.machine.as_look();
    let ask =
        sense::Request { scope: Some(Scope::Quick), reset: Some(asked), ..sense::Request::new(settings, &context.by) };
    let found = sense::data(look, &ask);
    let (_, plan) = boot::planned(look, settings, &found, false);
    print_json(&plan)?;
    Ok(if plan.reset_refused.is_some() { Exit::OPERATIONAL } else { Exit::OK })
}

fn run(context: &mut Context, asked: &Request, work: &mut Work) -> Result<Exit, Error> {
    work.quiet(context)?;
    let backup = backed_up(context);
    let (settings, by) = (context.settings.clone(), context.by.clone());
    let ask = sense::Request {
        scope: Some(Scope::Quick),
        holders: true,
        reset: Some(asked),
        ..sense::Request::new(&settings, &by)
    };
    let line = boot::reset_line(&mut context.machine, &settings, &ask);
    let Some(reset) = told(&line.first, &line.last, &line.outcomes, line.plan.reset_refused.as_deref()) else {
        let advice = "report this as a defect";
        return Err(Error::new(ErrorKind::Write, "cannot reset", "no stage saw the request", advice));
    };
    if reset.state != ResetState::Done {
        let why = reset.why.clone().unwrap_or_else(|| "it was executed already".to_string());
        let advice = match asked.accept_loss {
            true => "correct that, and run the command again",
            false => "correct that, or add --accept-loss where it is a file that cannot be preserved",
        };
        return Err(Error::new(ErrorKind::Refused, "cannot reset", why, advice).at(&settings.data_dir));
    }
    let document = issued(&line.outcomes).map(|i| &i.receipt);
    tell(context, &reset, document, backup)
}

/// A last backup, where this device can make one. Everything is preserved in quarantine all the same, so one that cannot be
/// made is said and stops nothing.
fn backed_up(context: &mut Context) -> Option<PathBuf> {
    let (settings, by) = (context.settings.clone(), context.by.clone());
    let why = match create::create(&mut context.machine, &settings, true, &by) {
        Ok(created) => return Some(created.archive),
        // A gateway that was never set up for backups is no reason to alarm anybody.
        Err(Fault::Setup(why, _)) => {
            log::info!("no backup before the reset: {why}");
            return None;
        }
        Err(Fault::Room(why) | Fault::NotProved(why)) => why,
        Err(Fault::Io(e)) => e.to_string(),
    };
    complain(&format!(
        "no encrypted backup could be made before the reset: {why}; the originals are kept in quarantine"
    ));
    None
}

fn finished_report(issued: &Issued) -> ResetReport {
    let r = &issued.receipt;
    ResetReport {
        tier: r.tier,
        technician: r.technician.clone(),
        request: r.request.clone(),
        state: ResetState::Done,
        why: None,
        loss: r.loss,
        left: r.left.clone(),
        receipt: Some(issued.file.clone()),
    }
}

fn tell(
    context: &mut Context,
    reset: &ResetReport,
    document: Option<&Receipt>,
    backup: Option<PathBuf>,
) -> Result<Exit, Error> {
    let by = context.by.clone();
    let waiting = folded(context, &by);
    let exit = if reset.loss || !reset.left.is_empty() { Exit::LEFT } else { Exit::OK };
    if context.json {
        let receipt_text = reset.receipt.as_ref().map(|path| path.with_extension("txt"));
        let schema = "pyvorin-recovery/reset/1";
        print_json(&Report { schema, exit: exit.code(), reset, document, receipt_text, waiting, backup })?;
        return Ok(exit);
    }
    backup.iter().for_each(|path| print(&format!("An encrypted backup was made first: {}.", path.display())));
    document.iter().for_each(|d| print(d.text().trim_end()));
    reset.receipt.iter().for_each(|path| print(&format!("The receipt is {}, and .txt beside it.", path.display())));
    Ok(exit)
}

/// Puts the entry that cites the old head into the new chain, while the agent is still stopped; the number of events
/// that have to wait, for a database that the agent creates or for the unit that folds.
fn folded(context: &mut Context, by: &str) -> usize {
    let settings = context.settings.clone();
    match fold::fold(&mut context.machine, &settings, by) {
        Ok(Folded::Nothing | Folded::Done(..)) => 0,
        Ok(Folded::Queued(n, why)) => {
            complain(&format!("{n} events wait for the agent's chain: {why}"));
            n
        }
        Err(e) => {
            complain(&format!("the event stands in our journal, and not in the agent's chain yet: {e}"));
            1
        }
    }
}
