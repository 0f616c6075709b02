//! The straight line. [`sense`] looks, [`assess`] and [`plan`] are pure, [`act`] is the only writer, [`report`] tells.
//!
//! It runs twice in a boot: for the volumes before anything is attached, then for what is on them. A pass that
//! repaired something is followed by another, which finds nothing to do (invariant I3) and whose verdict is the last.

pub mod act;
pub mod assess;
pub mod chain;
pub mod delegate;
pub mod events;
pub mod evidence;
pub mod fold;
pub mod guard;
pub mod install;
pub mod looked;
pub mod open;
pub mod outcome;
pub mod plan;
pub mod queue;
pub mod rebuild;
pub mod report;
pub mod rescue;
pub mod reset;
pub mod saved;
pub mod sense;
pub mod stage;
pub mod step;
pub mod table;

use crate::config::Settings;
use crate::edge::{Access, Look, Machine};
use crate::slots::Slot;
use assess::Assessment;
use evidence::{Evidence, FsckLevel};
use outcome::{Outcome, StepResult};
use report::BootReport;
use step::{Ending, Plan};

/// Passes over the volumes: preen, then yes, each followed by a look, for two volumes.
const VOLUME_PASSES: usize = 6;
/// Passes over the data: finish what was interrupted, repair, confirm.
const DATA_PASSES: usize = 4;

/// The five stages by name, for deadlines and rehearsals of our own failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Looking.
    Sense,
    /// Judging.
    Assess,
    /// Planning.
    Plan,
    /// Acting.
    Act,
    /// Telling.
    Report,
}

impl Stage {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sense => "sense",
            Self::Assess => "assess",
            Self::Plan => "plan",
            Self::Act => "act",
            Self::Report => "report",
        }
    }
}

/// What one boot is asked to do beyond the settings.
#[derive(Clone, Debug, Default)]
pub struct BootRequest {
    /// Slot asked for on the kernel command line.
    pub slot: Option<Slot>,
    /// Slots that could not be started in this boot.
    pub dead: Vec<Slot>,
    /// Recovery mode was asked for.
    pub recovery: bool,
    /// A factory reset asked for on the kernel command line.
    pub reset: Option<crate::reset::Request>,
    /// True when the slot to start is ours to choose (we are the whole `/init`).
    pub choose_slot: bool,
}

/// Everything one boot yields.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The report.
    pub report: BootReport,
    /// The first look at the data.
    pub evidence: Evidence,
    /// The plan that followed from it.
    pub plan: Plan,
    /// How it ends.
    pub ending: Ending,
}

/// Runs the line for a boot. `enter` is told each stage as it begins.
pub fn run(
    machine: &mut dyn Machine,
    settings: &Settings,
    request: &BootRequest,
    enter: &mut dyn FnMut(Stage),
) -> Boot {
    let started = machine.uptime_ms();
    let mut ask = sense::Request {
        scope: None,
        budget_ms: Some(settings.check_budget_ms),
        slots: request.choose_slot,
        dead: &request.dead,
        asked: request.slot,
        reset: request.reset.as_ref(),
        ..sense::Request::new(settings, "unattended")
    };
    let mut checks: Vec<(String, FsckLevel, i32)> = Vec::new();
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut unclean = false;
    let mut volumes = Vec::new();
    for _ in 0..VOLUME_PASSES {
        enter(Stage::Sense);
        let found = sense::volumes(machine.as_look(), &sense::Request { checks: &checks, unclean, ..ask.clone() });
        enter(Stage::Assess);
        let assessed = assess::assess(&found);
        enter(Stage::Plan);
        let plan = plan::volumes(&assessed);
        if let Ending::RebootInto { .. } = plan.ending {
            let report =
                report::boot(&assessed, &assessed, &plan, outcomes, &found.volumes, machine.uptime_ms() - started);
            return Boot { report, evidence: found, ending: plan.ending.clone(), plan };
        }
        volumes.clone_from(&found.volumes);
        if plan.steps.is_empty() {
            break;
        }
        unclean = true;
        enter(Stage::Act);
        let done = act::run(machine, settings, &plan);
        checks.extend(fsck_results(&plan, &done));
        outcomes.extend(done);
    }
    ask.checks = &checks;
    ask.unclean = unclean;
    ask.volumes = &volumes;
    let mut unattached = Vec::new();
    for volume in ["state", "data"] {
        if let Err(e) = machine.attach(volume, Access::ReadOnly) {
            log::warn!("{volume}: cannot be attached: {e}");
            unattached.push((volume.to_string(), e.to_string()));
        }
    }
    ask.unattached = &unattached;
    let line = data_line(machine, settings, &ask, request.recovery, true, enter);
    outcomes.extend(line.outcomes);
    enter(Stage::Report);
    let elapsed = machine.uptime_ms().saturating_sub(started);
    let report = report::boot(&line.first, &line.last, &line.plan, outcomes, &line.evidence.volumes, elapsed);
    Boot { report, evidence: line.evidence, plan: line.first_plan, ending: line.plan.ending }
}

fn fsck_results(plan: &Plan, done: &[Outcome]) -> Vec<(String, FsckLevel, i32)> {
    let result = |(step, outcome): (&step::Step, &Outcome)| match (step, &outcome.result) {
        (step::Step::CheckVolume { volume, level }, StepResult::Done(detail)) => {
            Some((volume.clone(), *level, detail.exit.unwrap_or(8)))
        }
        (step::Step::CheckVolume { volume, level }, _) => Some((volume.clone(), *level, 8)),
        _ => None,
    };
    plan.steps.iter().zip(done).filter_map(result).collect()
}

/// What the line over the data yields.
#[derive(Clone, Debug)]
pub struct Line {
    /// Evidence of the first pass that looked at the databases.
    pub evidence: Evidence,
    /// Its assessment.
    pub first: Assessment,
    /// Its plan.
    pub first_plan: Plan,
    /// Assessment of the last pass.
    pub last: Assessment,
    /// The last plan, which says how it ends.
    pub plan: Plan,
    /// What was done in all passes.
    pub outcomes: Vec<Outcome>,
}

/// What follows from a look, before anything was tried: for whoever prints it, or acts on it once.
pub fn planned(look: &dyn Look, settings: &Settings, found: &Evidence, booting: bool) -> (Assessment, Plan) {
    let quarantined = sense::quarantined(look, settings);
    let assessed = assess::assess(found);
    let policy = plan::Policy {
        settings,
        trials: &found.trials,
        failed: &[],
        quarantined: &quarantined,
        recovery_asked: false,
        booting,
    };
    let plan = plan::data(&assessed, &policy);
    (assessed, plan)
}

/// The line for a reset by command: the one pass that resets, and a look after it. Whatever else is wrong with the
/// databases is left to `repair`.
pub fn reset_line(machine: &mut dyn Machine, settings: &Settings, ask: &sense::Request<'_>) -> Line {
    let found = sense::data(machine.as_look(), ask);
    let (assessed, plan) = planned(machine.as_look(), settings, &found, false);
    let outcomes = if plan.reset_refused.is_none() { act::run(machine, settings, &plan) } else { Vec::new() };
    let last = assess::assess(&sense::data(machine.as_look(), ask));
    Line { evidence: found, first: assessed, first_plan: plan.clone(), last, plan, outcomes }
}

/// Sense, assess, plan and act over databases and slots, until a pass asks for no other.
pub fn data_line(
    machine: &mut dyn Machine,
    settings: &Settings,
    ask: &sense::Request<'_>,
    recovery_asked: bool,
    booting: bool,
    enter: &mut dyn FnMut(Stage),
) -> Line {
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut failed: Vec<String> = Vec::new();
    let mut first: Option<(Evidence, Assessment, Plan)> = None;
    let mut pass = 0;
    loop {
        pass += 1;
        enter(Stage::Sense);
        let found = sense::data(machine.as_look(), ask);
        let quarantined = sense::quarantined(machine.as_look(), settings);
        enter(Stage::Assess);
        let assessed = assess::assess(&found);
        enter(Stage::Plan);
        let policy = plan::Policy {
            settings,
            trials: &found.trials,
            failed: &failed,
            quarantined: &quarantined,
            recovery_asked,
            booting,
        };
        let plan = plan::data(&assessed, &policy);
        let resuming = matches!(plan.steps.first(), Some(step::Step::Resume { .. }));
        if !resuming && first.is_none() {
            first = Some((found.clone(), assessed.clone(), plan.clone()));
        }
        // Slots are counted once, when nothing else remains to be done.
        let deferred = plan.again && pass < DATA_PASSES;
        let mut now = plan.clone();
        if deferred {
            now.steps.retain(|s| s.writes_data());
        }
        enter(Stage::Act);
        let done = if now.steps.is_empty() { Vec::new() } else { act::run(machine, settings, &now) };
        failed.extend(
            done.iter().filter(|o| matches!(o.result, StepResult::Failed(_))).filter_map(|o| o.database.clone()),
        );
        outcomes.extend(done);
        if !deferred {
            let (evidence, first, first_plan) = first.unwrap_or((found, assessed.clone(), plan.clone()));
            return Line { evidence, first, first_plan, last: assessed, plan, outcomes };
        }
    }
}
