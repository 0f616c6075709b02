//! Verdicts and outcomes to the contract's JSON and to plain words. Pure.

pub mod reset;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::assess::{Assessment, Cause, DatabaseVerdict, StructureVerdict, VolumeState, is_bad};
use super::outcome::{Outcome, StepResult};
use super::step::{Ending, Plan};
use crate::error::Exit;
use crate::sqlite::check::{DamagedObject, Scope};
use crate::sqlite::judge::{Completeness, Finding, Level, Proof, WalState};

/// The log in numbers (design contract, section 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalReport {
    /// State.
    pub state: WalState,
    /// Frame slots in the file.
    pub frames: u32,
    /// Frames up to the last commit of the valid chain.
    pub committed_frames: u32,
    /// Frames verified behind damage.
    pub resyncable_frames: u32,
}

/// Rows of a table after a repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReport {
    /// Table.
    pub name: String,
    /// Rows now.
    pub rows: u64,
    /// Rows lost; `null` when unknowable.
    pub lost: Option<u64>,
}

/// One database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseReport {
    /// Path as the OS names it.
    pub path: PathBuf,
    /// First axis.
    pub structure: StructureVerdict,
    /// Second axis.
    pub completeness: Completeness,
    /// How far the check went.
    pub scope: Scope,
    /// Page size, 0 when unknown.
    pub page_size: u32,
    /// Pages, 0 when unknown.
    pub pages: u32,
    /// The log.
    pub wal: WalReport,
    /// Named evidence for completeness.
    pub evidence: Vec<String>,
    /// Findings.
    pub findings: Vec<Finding>,
    /// Tables and indexes whose records, keys and sums were checked from their bytes (full scope).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub checked_natively: Vec<String>,
    /// What the real engine checked on a copy.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub checked_by_engine: Vec<String>,
    /// What needs SQL and was not checked, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub not_checked: Vec<String>,
    /// Milliseconds the engine took, where it was asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub engine_ms: Option<u64>,
    /// Objects with damage, and the pages where it was seen.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub damaged_objects: Vec<DamagedObject>,
    /// What was done (`repair` and `boot`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Tables after a repair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tables: Option<Vec<TableReport>>,
    /// Where the originals are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<PathBuf>,
    /// How exactly the result (or the best that a repair could do) is a committed state, and why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exactness: Option<Proof>,
    /// Rows without a table that were kept in `lost_and_found`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lost_and_found: Option<u64>,
    /// What is missing, by id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss_manifest: Option<PathBuf>,
    /// The two axes as they were found, where an action changed them; the axes above are then those of the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
}

/// The two axes before an action, and what the action gave up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// First axis.
    pub structure: StructureVerdict,
    /// Second axis.
    pub completeness: Completeness,
    /// Committed frames given up by the action.
    pub frames_lost: u32,
    /// True when verified frames were left out because nothing proved that they belong.
    pub in_doubt: bool,
}

/// `check --json` and `repair --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// `pyvorin-recovery/check/1` or `pyvorin-recovery/repair/1`.
    pub schema: String,
    /// Exit code, as in fsck(8).
    pub exit: u8,
    /// Databases.
    pub databases: Vec<DatabaseReport>,
    /// Steps run, with their results (`repair`).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub steps: Vec<Outcome>,
}

/// A file system in the boot report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeReport {
    /// "state" or "data".
    pub name: String,
    /// Verdict at the end.
    pub state: VolumeState,
    /// e2fsck runs.
    pub checks: Vec<(super::evidence::FsckLevel, i32)>,
}

/// Report of one boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootReport {
    /// `pyvorin-recovery/boot/1`.
    pub schema: String,
    /// `continue`, `reboot` or `hold`.
    pub ending: String,
    /// Slot started, where we choose it.
    pub slot: Option<String>,
    /// Why, in plain words.
    pub reason: String,
    /// Milliseconds from the start of the line to its end.
    pub elapsed_ms: u64,
    /// Databases as found, with what was done.
    pub databases: Vec<DatabaseReport>,
    /// File systems.
    pub filesystem: Vec<VolumeReport>,
    /// The restore stick; `null` until sticks are looked for.
    pub stick: Option<()>,
    /// The button.
    pub button: String,
    /// Steps run.
    pub steps: Vec<Outcome>,
    /// What this boot suffered from.
    pub cause: Cause,
    /// The factory reset that was asked for; absent when none was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reset: Option<reset::ResetReport>,
    /// Set when a stage of ours died and the boot went on without it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub own_failure: Option<String>,
}

/// A verdict as the contract prints it.
pub fn verdict(v: &DatabaseVerdict) -> DatabaseReport {
    DatabaseReport {
        path: v.path.clone(),
        structure: v.structure,
        completeness: v.completeness,
        scope: v.scope,
        page_size: v.page_size,
        pages: v.pages,
        wal: WalReport {
            state: v.log.state,
            frames: v.log.frames,
            committed_frames: v.log.committed,
            resyncable_frames: v.log.resyncable,
        },
        evidence: v.evidence.clone(),
        findings: v.findings.clone(),
        checked_natively: v.looked.natively.clone(),
        checked_by_engine: v.looked.by_engine.clone(),
        not_checked: v.looked.not_checked.clone(),
        engine_ms: v.looked.engine_ms,
        damaged_objects: v.damaged.clone(),
        action: None,
        tables: None,
        quarantine: None,
        exactness: v.log.candidates.first().map(|c| c.proof.clone()),
        lost_and_found: None,
        loss_manifest: None,
        found: None,
    }
}

/// A verdict with what became of it. `now` is the verdict of the pass after the repair.
pub fn repaired(v: &DatabaseVerdict, outcomes: &[Outcome], now: Option<&DatabaseVerdict>) -> DatabaseReport {
    let mut report = verdict(v);
    if reset::emptied(&mut report, v, outcomes) {
        return report;
    }
    let mine = |step: &str| outcomes.iter().find(|o| o.step == step && o.database.as_deref() == Some(v.name.as_str()));
    let details = |step: &str| match mine(step).map(|o| &o.result) {
        Some(StepResult::Done(detail)) => Some(detail.clone()),
        _ => None,
    };
    report.quarantine = details("preserve").and_then(|d| d.quarantine);
    let mut before = (v.structure, v.completeness);
    let mut built = details("build").filter(|_| details("install").is_some());
    if built.is_none() && !v.needs_repair && !is_bad(v) {
        // Begun before a cut of power and finished in this run: what is told is told of both.
        let finished = outcomes.iter().find_map(|o| match &o.result {
            StepResult::Done(detail) => detail.resumed.as_ref().filter(|r| r.database == v.name).map(|r| (r, detail)),
            _ => None,
        });
        if let Some((resumed, detail)) = finished {
            before = (resumed.structure, resumed.completeness);
            report.quarantine.clone_from(&detail.quarantine);
            built = Some(detail.clone());
        }
    }
    if let Some(built) = &built {
        let complete = built.completeness == Some(Completeness::Complete);
        let rows = |t: &crate::edge::TableRows| TableReport {
            name: t.table.clone(),
            rows: t.rows,
            lost: match built.losses.iter().find(|l| l.name == t.table) {
                Some(loss) => loss.lost,
                None => complete.then_some(0),
            },
        };
        report.tables = Some(built.tables.iter().map(rows).collect());
        report.action = built.action.clone();
        report.exactness = built.proof.as_deref().cloned();
        report.lost_and_found = (built.lost_and_found > 0).then_some(built.lost_and_found);
        report.loss_manifest = built.manifest.clone();
        report.found = Some(Found {
            structure: before.0,
            completeness: before.1,
            frames_lost: built.frames_lost,
            in_doubt: built.in_doubt,
        });
        report.structure = now.map_or(StructureVerdict::Sound, |n| n.structure);
        report.completeness = built.completeness.unwrap_or(Completeness::Unknown);
        return report;
    }
    for outcome in outcomes.iter().filter(|o| o.database.as_deref() == Some(v.name.as_str())) {
        if let StepResult::Failed(why) = &outcome.result {
            report.findings.push(Finding::new(Level::Error, "repair-failed", format!("{}: {why}", outcome.step)));
        }
    }
    let left = v.needs_repair || is_bad(v);
    report.action = Some(
        if left && v.structure != StructureVerdict::Missing || v.needs_repair { "left" } else { "none" }.to_string(),
    );
    if report.action.as_deref() == Some("left") {
        let text = "this could not be put right here, and nothing was changed";
        report.findings.push(Finding::new(Level::Warning, "left", text));
    }
    report
}

/// Exit bits of a check: 4 for damage, loss or a missing database, 8 for what could not be read.
pub fn check_exit(databases: &[DatabaseVerdict]) -> Exit {
    databases.iter().fold(Exit::OK, |exit, d| exit | one_exit(d))
}

fn one_exit(d: &DatabaseVerdict) -> Exit {
    if d.structure == StructureVerdict::Unreadable {
        Exit::OPERATIONAL
    } else if is_bad(d) {
        Exit::LEFT
    } else {
        Exit::OK
    }
}

/// Exit bits of a repair: 1 where something was repaired, 4 where loss or damage is left.
pub fn repair_exit(databases: &[DatabaseReport], first: &[DatabaseVerdict]) -> Exit {
    databases.iter().zip(first).fold(Exit::OK, |exit, (report, verdict)| {
        exit | match &report.found {
            Some(found) if found.in_doubt || report.completeness == Completeness::Lossy => Exit::REPAIRED | Exit::LEFT,
            Some(_) => Exit::REPAIRED,
            None => one_exit(verdict),
        }
    })
}

/// The boot report.
pub fn boot(
    first: &Assessment,
    last: &Assessment,
    plan: &Plan,
    outcomes: Vec<Outcome>,
    volumes: &[super::evidence::VolumeEvidence],
    elapsed_ms: u64,
) -> BootReport {
    let (ending, slot) = match &plan.ending {
        Ending::Continue { slot } => ("continue", *slot),
        Ending::RebootInto { slot } => ("reboot", Some(*slot)),
        Ending::Hold { recovery, then, .. } => ("hold", then.or(recovery.then_some(crate::slots::Slot::R))),
    };
    let database = |v: &DatabaseVerdict| repaired(v, &outcomes, last.databases.iter().find(|n| n.name == v.name));
    let volume = |v: &super::assess::VolumeVerdict| VolumeReport {
        name: v.name.clone(),
        state: v.state.clone(),
        checks: volumes.iter().find(|e| e.name == v.name).map(|e| e.checks.clone()).unwrap_or_default(),
    };
    BootReport {
        schema: "pyvorin-recovery/boot/1".to_string(),
        ending: ending.to_string(),
        slot: slot.map(|s| s.to_string()),
        reason: plan.reason.clone(),
        elapsed_ms,
        databases: first.databases.iter().map(database).collect(),
        filesystem: last.volumes.iter().map(volume).collect(),
        stick: None,
        button: "none".to_string(),
        cause: if first.cause == Cause::None { last.cause } else { first.cause },
        reset: reset::reset(first, last, &outcomes, plan.reset_refused.as_deref()),
        steps: outcomes,
        own_failure: None,
    }
}

/// One database in a sentence or two, for a technician.
pub fn sentences(d: &DatabaseReport) -> Vec<String> {
    let name = d.path.file_name().map_or_else(|| show(&d.path), |n| n.to_string_lossy().into_owned());
    let mut lines = Vec::new();
    let axes = d.found.as_ref().map_or((d.structure, d.completeness), |f| (f.structure, f.completeness));
    let was = if d.found.is_some() { "was" } else { "is" };
    let found = match axes {
        (StructureVerdict::Missing, _) if d.findings.is_empty() => "does not exist yet".to_string(),
        (StructureVerdict::Missing, _) => format!("{was} missing"),
        (StructureVerdict::Unreadable, _) => "could not be read".to_string(),
        (StructureVerdict::Damaged, _) => format!("{was} damaged"),
        (StructureVerdict::Sound, Completeness::Complete) => format!("{was} sound and complete"),
        (StructureVerdict::Sound, Completeness::Unknown) => format!("{was} sound"),
        (StructureVerdict::Sound, Completeness::Lossy) if d.wal.resyncable_frames > 0 => {
            format!("{was} sound, but SQLite alone would have lost {} log frames", d.wal.resyncable_frames)
        }
        (StructureVerdict::Sound, Completeness::Lossy) => format!("{was} sound, but committed rows are missing"),
    };
    lines.push(format!("{name} {found}."));
    for finding in d.findings.iter().filter(|f| f.level >= Level::Warning && f.code != "left") {
        lines.push(format!("  {}: {}", finding.code, finding.message));
    }
    // Where the engine was not asked at all (at boot, before a repair), the JSON says so; here it would be noise.
    for part in d.not_checked.iter().filter(|_| d.engine_ms.is_some()) {
        lines.push(format!("  not checked: {part}"));
    }
    match (d.action.as_deref(), &d.tables) {
        (Some("left"), _) => {
            lines.push("  It was not changed: nothing that can be done here would bring more back.".to_string())
        }
        (Some("reset"), _) => lines.push("  It was reset, as was asked for.".to_string()),
        (Some(action), Some(tables)) => {
            let rows: Vec<String> = tables.iter().map(|t| format!("{} rows in {}", t.rows, t.name)).collect();
            lines.push(format!("  It was {action}: {}.", rows.join(", ")));
            lines.push(match d.completeness {
                Completeness::Complete => "  Nothing was lost.".to_string(),
                Completeness::Unknown => "  No loss is known.".to_string(),
                Completeness::Lossy => lost(tables),
            });
            lines.extend(d.loss_manifest.iter().map(|m| format!("  What is missing is listed in {}.", show(m))));
        }
        _ => {}
    }
    if let Some(kept) = &d.quarantine {
        lines.push(format!("  The originals are in {}.", show(kept)));
    }
    lines
}

fn lost(tables: &[TableReport]) -> String {
    let counted: Option<u64> = tables.iter().filter(|t| !t.name.starts_with("lost_and_found")).map(|t| t.lost).sum();
    match counted {
        Some(0) => "  Every row is in its table, or counted as found without one.".to_string(),
        Some(n) => format!("  {n} rows were lost."),
        None => "  Committed rows were lost; how many cannot be told exactly.".to_string(),
    }
}

/// The boot report in plain words.
pub fn plain(report: &BootReport) -> Vec<String> {
    let mut lines = Vec::new();
    for volume in &report.filesystem {
        match &volume.state {
            VolumeState::Clean if volume.checks.is_empty() => {}
            VolumeState::Clean => {
                lines.push(format!("The {} file system was not clean and was repaired.", volume.name))
            }
            VolumeState::Unusable(why) | VolumeState::Broken(why) => {
                lines.push(format!("The {} partition cannot be used: {why}.", volume.name));
            }
            _ => {}
        }
    }
    lines.extend(report.databases.iter().flat_map(sentences));
    lines.extend(report.reset.iter().flat_map(reset::sentences));
    let slot = report.slot.as_deref().unwrap_or("the loader's choice");
    lines.push(match report.ending.as_str() {
        "continue" => format!("The system starts (slot {slot}): {}.", report.reason),
        "reboot" => format!("The machine restarts into slot {slot}: {}.", report.reason),
        _ => format!("The machine waits: {}.", report.reason),
    });
    lines
}

fn show(path: &Path) -> String {
    path.display().to_string()
}
