//! `check` and `repair`: the line over the databases alone.

use std::path::{Path, PathBuf};

use super::work::Work;
use super::{Context, print, print_json};
use crate::boot::evidence::DirectoryFact;
use crate::boot::report::{self, CheckReport};
use crate::boot::sense::Request;
use crate::boot::{self, assess, delegate, sense};
use crate::config::{Database, DatabaseKind, Settings};
use crate::edge::Machine;
use crate::edge::linux::scratch;
use crate::error::{Error, Exit};
use crate::sqlite::check::Scope;

/// Settings narrowed to the databases named on the command line. One that is not configured is taken as given, with
/// its own directory as the place for staging and quarantine.
pub fn narrowed(settings: &Settings, named: &[PathBuf]) -> Settings {
    let mut narrow = settings.clone();
    if named.is_empty() {
        return narrow;
    }
    let configured = |p: &PathBuf| {
        settings.databases.iter().find(|d| d.path == *p || d.location == *p || Path::new(&d.name) == p.as_path())
    };
    if let (Some(first), true) = (named.first(), named.iter().all(|p| configured(p).is_none())) {
        let parent = first.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        narrow.data_dir = parent.to_path_buf();
    }
    narrow.databases =
        named.iter().enumerate().map(|(i, p)| configured(p).cloned().unwrap_or_else(|| foreign(i, p))).collect();
    narrow
}

fn foreign(index: usize, path: &Path) -> Database {
    let stem = path.file_stem().map(|s| s.to_string_lossy().to_lowercase()).unwrap_or_default();
    let plain: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(24).collect();
    Database {
        name: format!("{plain}_{index}"),
        kind: DatabaseKind::Other,
        path: path.to_path_buf(),
        location: path.to_path_buf(),
        owner: None,
        mode: 0o640,
        accept: DatabaseKind::Other.default_accept(),
    }
}

/// Verdicts; changes nothing, not even a `-shm` file.
pub fn check(context: &Context, quick: bool, named: &[PathBuf]) -> Result<Exit, Error> {
    let settings = narrowed(&context.settings, named);
    let scope = if quick { Scope::Quick } else { Scope::Full };
    let look = context.machine.as_look();
    let mut found = sense::data(look, &Request { scope: Some(scope), ..Request::new(&settings, &context.by) });
    for database in &mut found.databases {
        delegate::engine_part(database, &|| look.uptime_ms(), &mut |d, tables| {
            sense::overlaid(look, d, |source| scratch::check_objects(look, source, tables))
        });
    }
    let mut assessed = assess::assess(&found);
    let mut exit = report::check_exit(&assessed.databases);
    if let DirectoryFact::Unusable(why) = &found.data {
        data_trouble(&settings, why);
        exit |= Exit::OPERATIONAL;
    }
    // A configured database that is missing is damage to `check`, healthy or not for the boot.
    let missing = |d: &assess::DatabaseVerdict| d.structure == assess::StructureVerdict::Missing;
    if assessed.databases.iter().any(missing) {
        exit |= Exit::LEFT;
    }
    let databases: Vec<_> = assessed.databases.drain(..).map(|v| report::verdict(&v)).collect();
    let whole =
        CheckReport { schema: "pyvorin-recovery/check/1".into(), exit: exit.code(), databases, steps: Vec::new() };
    tell(context, &whole)?;
    Ok(exit)
}

/// The repair ladder over the configured or named databases.
pub fn repair(context: &mut Context, plan_only: bool, named: &[PathBuf]) -> Result<Exit, Error> {
    if plan_only {
        return ladder(context, None, named);
    }
    let mut work = Work::begin(context)?;
    // What a cut left open is finished by the line itself, as its first step.
    let done = ladder(context, Some(&mut work), named);
    work.end(context, done)
}

fn ladder(context: &mut Context, work: Option<&mut Work>, named: &[PathBuf]) -> Result<Exit, Error> {
    let settings = narrowed(&context.settings, named);
    let by = context.by.clone();
    let ask = Request { holders: true, ..Request::new(&settings, &by) };
    let Some(work) = work else {
        let found = sense::data(context.machine.as_look(), &ask);
        print_json(&boot::planned(context.machine.as_look(), &settings, &found, false).1)?;
        return Ok(Exit::OK);
    };
    let mut line = boot::data_line(&mut context.machine, &settings, &ask, false, false, &mut |_| {});
    let in_use = |d: &&assess::DatabaseVerdict| d.needs_repair && !d.held_by.is_empty();
    let ours = |d: &assess::DatabaseVerdict| context.settings.databases.iter().any(|c| c.location == d.location);
    if line.last.databases.iter().find(in_use).is_some_and(ours) && work.quiet(context)? {
        line = boot::data_line(&mut context.machine, &settings, &ask, false, false, &mut |_| {});
    }
    let by_name = |name: &str| line.last.databases.iter().find(|d| d.name == name);
    let databases: Vec<_> =
        line.first.databases.iter().map(|v| report::repaired(v, &line.outcomes, by_name(&v.name))).collect();
    let mut exit = report::repair_exit(&databases, &line.first.databases);
    if let Some(why) = &line.first.data_fault {
        data_trouble(&settings, why);
        exit |= Exit::OPERATIONAL;
    }
    if !line.first.state_usable {
        super::complain(&format!(
            "{}: the state directory cannot be used, so nothing was repaired",
            settings.state_dir.display()
        ));
        exit |= Exit::OPERATIONAL;
    }
    let whole =
        CheckReport { schema: "pyvorin-recovery/repair/1".into(), exit: exit.code(), databases, steps: line.outcomes };
    tell(context, &whole)?;
    Ok(exit)
}

fn data_trouble(settings: &Settings, why: &str) {
    let dir = settings.data_dir.display();
    super::complain(&format!(
        "cannot look into the data directory: {dir}: {why}; next: check [data] dir, and --root if one was given"
    ));
}

fn tell(context: &Context, whole: &CheckReport) -> Result<(), Error> {
    if context.json {
        return print_json(whole);
    }
    for line in whole.databases.iter().flat_map(report::sentences) {
        print(&line);
    }
    Ok(())
}
