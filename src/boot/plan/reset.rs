//! A factory reset as steps, or the reason why there are none. Pure and total.
//!
//! It is asked for by a person and by nothing else, executed once, and refused while anything of it cannot be preserved,
//! unless the person accepted that loss. Once it is planned nothing else is: what it leaves is looked at afterwards.

use super::{MARGIN, Policy, tried_out};
use crate::boot::assess::{Assessment, DatabaseVerdict, IntentVerdict, StructureVerdict};
use crate::boot::evidence::ResetEvidence;
use crate::boot::step::{Reset, ResetDatabase, Step};
use crate::config::DatabaseKind;
use crate::journal::{QUARANTINE, STAGE};
use crate::reset::{SUBJECT, Tier};

/// What the plan has to say about it.
pub(super) enum Answer {
    /// None was asked for, or it was executed already.
    Nothing,
    /// These steps and no others.
    Steps(Vec<Step>),
    /// Not now.
    Refused(String),
}

pub(super) fn reset(assessment: &Assessment, policy: &Policy<'_>) -> Answer {
    let Some(asked) = assessment.reset.as_ref().filter(|r| !r.used) else { return Answer::Nothing };
    match steps(assessment, asked, policy) {
        Ok(steps) => Answer::Steps(steps),
        Err(why) => Answer::Refused(why),
    }
}

fn steps(assessment: &Assessment, asked: &ResetEvidence, policy: &Policy<'_>) -> Result<Vec<Step>, String> {
    let request = &asked.request;
    if let Some(why) = &asked.unknown {
        return Err(format!("it cannot be told whether it was executed already ({why})"));
    }
    if !assessment.state_usable {
        return Err("the state directory cannot be used, so there would be no journal and no receipt".to_string());
    }
    if let Some(why) = &assessment.data_fault {
        return Err(format!("the data partition cannot be used: {why}"));
    }
    if let IntentVerdict::Blocked(why) = &assessment.intent {
        return Err(why.clone());
    }
    if policy.failed.iter().any(|f| f == SUBJECT) || tried_out(policy, &format!("reset:{}", request.id)) {
        return Err("it was begun and did not end; see the steps of the report".to_string());
    }
    let mine = |v: &&DatabaseVerdict| request.tier >= Tier::Data || kind(policy, v) == Some(DatabaseKind::Queue);
    let verdicts: Vec<&DatabaseVerdict> = assessment.databases.iter().filter(mine).collect();
    if verdicts.is_empty() {
        return Err(format!("no database of the tier {} is configured", request.tier.name()));
    }
    for v in &verdicts {
        if !v.held_by.is_empty() {
            return Err(format!("{} is open in {}", v.path.display(), v.held_by.join(", ")));
        }
        if v.structure == StructureVerdict::Unreadable && !request.accept_loss {
            return Err(format!("{} cannot be read, so it cannot be preserved", v.path.display()));
        }
    }
    if assessment.free_bytes < MARGIN / 4 {
        return Err("there is no room on the data partition for the new databases".to_string());
    }
    let data = &policy.settings.data_dir;
    let mark = crc32fast::hash(request.id.as_bytes());
    let op = format!("{}-reset-{}-{mark:08x}", assessment.now, request.tier.name());
    let databases = verdicts.iter().filter_map(|v| {
        let settings = policy.settings.databases.iter().find(|d| d.name == v.name)?;
        Some(ResetDatabase {
            name: v.name.clone(),
            path: v.path.clone(),
            location: v.location.clone(),
            queue: settings.kind == DatabaseKind::Queue,
            sound: v.structure == StructureVerdict::Sound && !v.needs_repair,
            schema: v.rescue.schema_record.clone(),
            recreate: policy.settings.reset_recreates,
            owner: settings.owner.unwrap_or(v.files.owner),
            mode: settings.mode,
        })
    });
    let whole = Reset {
        op: op.clone(),
        request: request.clone(),
        databases: databases.collect(),
        configuration: asked.configuration.clone(),
        left: asked.left.clone(),
        into: data.join(QUARANTINE).join(&op),
        stage: data.join(STAGE).join(&op),
        volume: assessment.data_volume.clone(),
        now: assessment.now,
    };
    let mut steps = vec![Step::Reset(Box::new(whole)), Step::Install { op, database: SUBJECT.to_string() }];
    steps.extend(super::prune("reset", SUBJECT, policy));
    Ok(steps)
}

fn kind(policy: &Policy<'_>, v: &DatabaseVerdict) -> Option<DatabaseKind> {
    policy.settings.databases.iter().find(|d| d.name == v.name).map(|d| d.kind)
}
