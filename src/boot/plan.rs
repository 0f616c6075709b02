//! Verdicts to steps. Pure and total; the golden table of its decisions is `tests/golden/plans.txt`.
//!
//! Rules, in the order they bind:
//! * without a usable state directory no step is destructive (there would be no intent to resume from);
//! * an interrupted operation is finished before anything else is looked at;
//! * a database is preserved before anything that concerns it, and a failure stops only its own steps;
//! * a step that was begun twice and never ended is not begun a third time;
//! * the choice of slot depends on slots alone: data never costs an OS its slot, and no slot heals data.

mod reset;

use std::path::{Path, PathBuf};

use super::assess::{Assessment, DatabaseVerdict, IntentVerdict, StructureVerdict, VolumeState, is_bad};
use super::evidence::FsckLevel;
use super::step::{Build, Ending, Plan, Step};
use crate::config::{Database, DatabaseKind, OnTrouble, Rung, Settings, SlotBackend};
use crate::journal::{QUARANTINE, STAGE};
use crate::slots::Slot;
use crate::sqlite::judge::Candidate;

/// The count at which a step is skipped for good: two deaths of ours during it, or nine power cuts (a cut is no fault
/// of the step, but a machine that resets itself nine times in the same place must come up at last).
pub const TRIALS: u32 = 9;
/// Name of the loss manifest beside the preserved originals.
pub const MANIFEST: &str = "loss.json";
/// Bytes kept free beside what a repair needs.
const MARGIN: u64 = 4 << 20;

/// What the plan must know beside the verdicts.
#[derive(Clone, Debug)]
pub struct Policy<'a> {
    /// Settings.
    pub settings: &'a Settings,
    /// Steps that were begun and never ended, with their counts.
    pub trials: &'a std::collections::BTreeMap<String, u32>,
    /// Databases whose repair failed in this run.
    pub failed: &'a [String],
    /// Names of the directories under quarantine.
    pub quarantined: &'a [String],
    /// A technician or the kernel command line asked for recovery mode.
    pub recovery_asked: bool,
    /// True in the boot flow; false for `repair` in a running system.
    pub booting: bool,
}

/// The plan for the volumes, before anything is attached.
pub fn volumes(assessment: &Assessment) -> Plan {
    let mut steps = Vec::new();
    let mut ending = Ending::Continue { slot: None };
    let mut reason = "the file systems are clean".to_string();
    for v in &assessment.volumes {
        match &v.state {
            VolumeState::Check(level, why) => {
                // The state volume comes first in the list: its own mark has no place to stand.
                if v.name != "state" && assessment.state_usable && !assessment.unclean_mark {
                    steps.push(Step::RecordUnclean { volume: v.name.clone(), text: why.clone() });
                }
                if *level == FsckLevel::Preen || (assessment.state_usable && v.name != "state") {
                    steps.push(Step::CheckVolume { volume: v.name.clone(), level: *level });
                }
                reason = format!("{}: {why}", v.name);
            }
            VolumeState::RebootWanted => {
                ending = Ending::RebootInto { slot: Slot::A };
                reason = format!("e2fsck changed {} so that the machine must start again", v.name);
            }
            VolumeState::Clean | VolumeState::Broken(_) | VolumeState::Unusable(_) => {}
        }
    }
    let again = !steps.is_empty();
    Plan { schema: SCHEMA.to_string(), steps, ending, reason, again, reset_refused: None }
}

const SCHEMA: &str = "pyvorin-recovery/plan/1";

/// The plan for databases and slots.
pub fn data(assessment: &Assessment, policy: &Policy<'_>) -> Plan {
    let mut steps = Vec::new();
    if let IntentVerdict::Resume(op) = &assessment.intent
        && assessment.state_usable
        && assessment.data_fault.is_none()
        && !tried_out(policy, &format!("resume:{op}"))
    {
        // What was sensed of the databases is out of date once this is done: nothing else is planned on it.
        steps.push(Step::Resume { op: op.clone() });
        let reason = "an interrupted operation is finished first".to_string();
        return Plan {
            schema: SCHEMA.to_string(),
            steps,
            ending: Ending::Continue { slot: None },
            reason,
            again: true,
            reset_refused: None,
        };
    }
    let reset_refused = match reset::reset(assessment, policy) {
        reset::Answer::Nothing => None,
        reset::Answer::Refused(why) => Some(why),
        reset::Answer::Steps(steps) => {
            let by = assessment.reset.as_ref().map_or("", |r| r.request.by.as_str());
            return Plan {
                schema: SCHEMA.to_string(),
                steps,
                ending: Ending::Continue { slot: None },
                reason: format!("a factory reset was asked for by {by}"),
                again: true,
                reset_refused: None,
            };
        }
    };
    let may_write =
        assessment.state_usable && assessment.data_fault.is_none() && matches!(assessment.intent, IntentVerdict::None);
    let mut left = Vec::new();
    let mut repairing = false;
    let mut need = MARGIN;
    for verdict in &assessment.databases {
        let Some(settings) = policy.settings.databases.iter().find(|d| d.name == verdict.name) else { continue };
        let repair = if verdict.needs_repair { repair(verdict, settings, assessment, policy, &mut need) } else { None };
        match repair {
            Some(mut chain) if may_write => {
                repairing = true;
                steps.append(&mut chain);
            }
            _ => {
                if is_bad(verdict) && !unborn(verdict) {
                    left.push(verdict);
                }
                if verdict.needs_repair && may_write {
                    steps.extend(keep_copy(verdict, policy, &mut need, assessment));
                }
            }
        }
    }
    if assessment.unclean_mark && assessment.state_usable && !repairing {
        steps.push(Step::ForgetUnclean);
    }
    let (mut ending, mut reason) = slots(assessment, policy, &mut steps);
    let trouble = if let Some(why) = &assessment.data_fault {
        Some((policy.settings.on_data_missing, format!("the data partition cannot be used: {why}")))
    } else {
        left.first().map(|v| (policy.settings.on_damage_left, format!("{} is left damaged or incomplete", v.name)))
    };
    if let (Some((action, why)), false, true) = (trouble, repairing, policy.booting) {
        match (action, &ending) {
            (OnTrouble::Hold | OnTrouble::Recovery, Ending::Continue { slot }) => {
                let recovery = action == OnTrouble::Recovery;
                ending = Ending::Hold { reason: why.clone(), recovery, then: *slot };
                reason = why;
            }
            _ => reason = format!("{why}; {reason}"),
        }
    }
    Plan { schema: SCHEMA.to_string(), steps, ending, reason, again: repairing, reset_refused }
}

/// A database that never existed is healthy: the agent will create it.
fn unborn(v: &DatabaseVerdict) -> bool {
    v.structure == StructureVerdict::Missing && !v.needs_repair && !v.findings.iter().any(|f| f.code != "live")
}

fn tried_out(policy: &Policy<'_>, key: &str) -> bool {
    policy.trials.get(key).is_some_and(|n| *n >= TRIALS)
}

/// Key under which attempts at a database are counted: another state of the files is another attempt.
pub fn trial_key(database: &str, fingerprint: &str) -> String {
    format!("repair:{database}:{fingerprint}")
}

fn repair(
    v: &DatabaseVerdict,
    settings: &Database,
    assessment: &Assessment,
    policy: &Policy<'_>,
    need: &mut u64,
) -> Option<Vec<Step>> {
    let all = v.log.candidates.iter().chain(&v.rescue.candidates);
    let candidates: Vec<_> = all.filter(|c| settings.accept.contains(&c.rung)).cloned().collect();
    let key = trial_key(&v.name, &v.files.fingerprint);
    if candidates.is_empty() || !v.held_by.is_empty() || policy.failed.contains(&v.name) || tried_out(policy, &key) {
        return None;
    }
    let largest = candidates.iter().map(|c| u64::from(c.base.pages) * u64::from(c.base.page_size)).max().unwrap_or(0);
    // A donor beside the copy; the spilled sorter of an index beside the new file.
    let twice = |c: &Candidate| c.extras.is_some() || !matches!(c.rung, Rung::Replay | Rung::Resync);
    let copies = if candidates.iter().any(twice) { 2 } else { 1 };
    let bytes = largest.max(v.files.bytes).saturating_mul(copies);
    if assessment.free_bytes < need.saturating_add(bytes) {
        return None;
    }
    *need = need.saturating_add(bytes);
    let op = format!("{}-{}-{}", assessment.now, v.name, v.files.fingerprint);
    let data = &policy.settings.data_dir;
    let into = data.join(QUARANTINE).join(&op);
    let log = side(&v.location, "-wal");
    let shm = side(&v.location, "-shm");
    let mut files = Vec::new();
    let mut retire = Vec::new();
    let journal = side(&v.location, "-journal");
    if v.files.journal {
        files.push(journal.clone());
        retire.push(journal.clone());
    }
    if v.files.log {
        files.push(log.clone());
        retire.push(log.clone());
    }
    if v.files.present {
        files.push(v.location.clone());
    }
    if v.files.shm {
        files.push(shm.clone());
        retire.push(shm);
    }
    let kept = |path: &Path| path.file_name().map(|name| into.join(name));
    let build = Build {
        op: op.clone(),
        database: v.name.clone(),
        found: (v.structure, v.completeness),
        path: v.location.clone(),
        source: if v.files.present { kept(&v.location) } else { None },
        log: if v.files.log { kept(&log) } else { None },
        journal: if v.files.journal { kept(&journal) } else { None },
        stage: data.join(STAGE).join(&op),
        index: if v.files.shm { kept(&side(&v.location, "-shm")) } else { None },
        candidates,
        schema: v.rescue.schema_record.clone(),
        product: settings.kind == DatabaseKind::Store,
        backups: v.rescue.backups.clone(),
        manifest: into.join(MANIFEST),
        owner: settings.owner.unwrap_or(v.files.owner),
        mode: settings.mode,
        retire,
        by: assessment.by.clone(),
        volume: assessment.data_volume.clone(),
        now: assessment.now,
    };
    let mut steps = vec![
        Step::Preserve { op: op.clone(), database: v.name.clone(), files, into, copy: false },
        Step::Build(Box::new(build)),
        Step::Install { op, database: v.name.clone() },
    ];
    steps.extend(prune(&v.name, &v.name, policy));
    Some(steps)
}

/// Operations of a database, or resets, beyond those the policy keeps, the new one counted. Never the last one before
/// it, and only once the new one is in place (a failure of an earlier step skips this one).
fn prune(word: &str, database: &str, policy: &Policy<'_>) -> Option<Step> {
    let marker = format!("-{word}-");
    let mut ops: Vec<(u64, &String)> = policy
        .quarantined
        .iter()
        .filter(|op| op.contains(&marker))
        .filter_map(|op| Some((op.split('-').next()?.parse().ok()?, op)))
        .collect();
    ops.sort();
    let keep = usize::try_from(policy.settings.quarantine_keep.max(2)).unwrap_or(2) - 1;
    let surplus = ops.len().saturating_sub(keep);
    let dirs: Vec<PathBuf> =
        ops.into_iter().take(surplus).map(|(_, op)| policy.settings.data_dir.join(QUARANTINE).join(op)).collect();
    (!dirs.is_empty()).then(|| Step::Prune { database: database.to_string(), dirs })
}

/// A copy of what cannot be repaired here, once per state of the files: the agent will go on writing to the originals.
fn keep_copy(v: &DatabaseVerdict, policy: &Policy<'_>, need: &mut u64, assessment: &Assessment) -> Option<Step> {
    let op = format!("left-{}-{}", v.name, v.files.fingerprint);
    let cap = assessment.free_bytes / 100 * u64::from(policy.settings.quarantine_max_percent);
    if policy.quarantined.contains(&op) || tried_out(policy, &format!("copy:{op}")) {
        return None;
    }
    let mut files = Vec::new();
    if v.files.journal {
        files.push(side(&v.location, "-journal"));
    }
    if v.files.log {
        files.push(side(&v.location, "-wal"));
    }
    if v.files.shm {
        files.push(side(&v.location, "-shm"));
    }
    if v.files.present && v.structure != StructureVerdict::Unreadable && v.files.bytes <= cap {
        files.push(v.location.clone());
        *need = need.saturating_add(v.files.bytes);
    }
    if files.is_empty() || assessment.free_bytes < *need {
        return None;
    }
    let into = policy.settings.data_dir.join(QUARANTINE).join(&op);
    Some(Step::Preserve { op, database: v.name.clone(), files, into, copy: true })
}

/// The path of a side file.
pub fn side(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

fn slots(assessment: &Assessment, policy: &Policy<'_>, steps: &mut Vec<Step>) -> (Ending, String) {
    if policy.recovery_asked {
        let reason = "recovery mode was asked for".to_string();
        let then = assessment.slots.as_ref().map(|s| s.choice).filter(|s| *s != Slot::R);
        return (Ending::Hold { reason: reason.clone(), recovery: true, then }, reason);
    }
    let Some(slot) = &assessment.slots else {
        return (Ending::Continue { slot: None }, "nothing stands in the way of the OS".into());
    };
    let ours = policy.settings.slot_backend == SlotBackend::File && assessment.state_usable;
    if ours {
        steps.extend(slot.dead.iter().map(|s| Step::MarkBad { slot: *s }));
    }
    if slot.choice == Slot::R {
        let reason = format!("no slot is left to start: {}", slot.reason);
        return (Ending::Hold { reason: reason.clone(), recovery: true, then: None }, reason);
    }
    if ours {
        steps.push(Step::CountAttempt { slot: slot.choice });
    }
    (Ending::Continue { slot: Some(slot.choice) }, slot.reason.clone())
}
