//! `restore`: a backup in place of what is there.

use age::Identity;
use serde::Serialize;

use super::backup::{identities, own};
use super::work::{Work, alone};
use super::{Context, complain, print, print_json};
use crate::archive::Refusal;
use crate::backup::restore::{self, Ask, Queue, Restored};
use crate::boot::fold::{self, Folded};
use crate::boot::stage::discard;
use crate::cli::{QueueRows, Restore};
use crate::edge::Look;
use crate::error::{Error, ErrorKind, Exit};
use crate::journal::STAGE;

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    exit: u8,
    #[serde(flatten)]
    restored: &'a Restored,
}

/// Restores, or with `--plan` proves the archive and says what is in it.
pub fn run(context: &mut Context, asked: &Restore) -> Result<Exit, Error> {
    let keys = match asked.from.identities.as_slice() {
        [] => own(context),
        files => identities(context, files)?,
    };
    let keys: Vec<&dyn Identity> = keys.iter().map(|k| k as &dyn Identity).collect();
    let by = context.by.clone();
    let ask = Ask {
        archive: &asked.from.archive,
        base: asked.from.base.as_deref(),
        identities: &keys,
        config: asked.config,
        any_device: asked.any_device,
        queue: match asked.queue {
            QueueRows::All => Queue::All,
            QueueRows::Keep => Queue::Keep,
            QueueRows::Days(days) => Queue::Younger(u64::from(days) * 86_400),
        },
        by: &by,
    };
    if asked.plan {
        return planned(context, &ask);
    }
    let mut work = Work::begin(context)?;
    let done = work.finish_open(context).and_then(|_| {
        work.quiet(context)?;
        let settings = context.settings.clone();
        let restored = restore::restore(&mut context.machine, &settings, &ask).map_err(|r| refused(&ask, &r))?;
        folded(context);
        tell(context, &restored)
    });
    work.end(context, done)
}

fn refused(ask: &Ask<'_>, refusal: &Refusal) -> Error {
    let advice = refusal.code.advice();
    Error::new(ErrorKind::Refused, "cannot restore", refusal.to_string(), advice).at(ask.archive)
}

fn planned(context: &mut Context, ask: &Ask<'_>) -> Result<Exit, Error> {
    let settings = context.settings.clone();
    let _locks = alone(context)?;
    let scratch = settings.data_dir.join(STAGE).join("plan");
    discard(&mut context.machine, &scratch).map_err(|e| Error::io(ErrorKind::Write, "cannot tidy up", &scratch, &e))?;
    let opened = restore::open(&mut context.machine, &settings, ask, &scratch);
    let tidied = discard(&mut context.machine, &scratch);
    let out = opened.map_err(|r| refused(ask, &r))?;
    tidied.map_err(|e| Error::io(ErrorKind::Write, "cannot tidy up", &scratch, &e))?;
    print_json(&out.manifest)?;
    Ok(Exit::OK)
}

fn folded(context: &mut Context) {
    let (settings, by) = (context.settings.clone(), context.by.clone());
    match fold::fold(&mut context.machine, &settings, &by) {
        Ok(Folded::Nothing | Folded::Done(..)) => {}
        Ok(Folded::Queued(n, why)) => complain(&format!("{n} events wait for the agent's chain: {why}")),
        Err(e) => complain(&format!("the event stands in our journal, and not in the agent's chain yet: {e}")),
    }
}

fn tell(context: &Context, restored: &Restored) -> Result<Exit, Error> {
    let exit = if restored.left.is_empty() { Exit::OK } else { Exit::LEFT };
    if context.json {
        print_json(&Report { schema: "pyvorin-recovery/restore/1", exit: exit.code(), restored })?;
        return Ok(exit);
    }
    let days = context.machine.clock().saturating_sub(restored.created) / 86_400;
    print(&format!("backup {} of {}, {days} days old, is in place", restored.sequence, restored.device));
    for (name, tables) in &restored.databases {
        print(&format!("  {name}: {} rows", tables.values().sum::<u64>()));
    }
    if restored.config_files > 0 {
        print(&format!("  {} files of the configuration", restored.config_files));
    }
    restored.left.iter().for_each(|(name, why)| print(&format!("  not restored: {name}: {why}")));
    print(&format!("what was there before is in {}", restored.kept.display()));
    if restored.queue_rows > 0 {
        complain(&format!(
            "the queue has {} messages of the day of the backup again, and sends those that were sent since once more; \
             next time: --queue keep, or --queue DAYS",
            restored.queue_rows
        ));
    }
    Ok(exit)
}
