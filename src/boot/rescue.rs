//! The rungs below resync for a database whose structure is damaged: reindex, backup, salvage, empty. Pure and total.
//!
//! They stand behind the candidates of the log, which keep more. The backup rung is a salvage into whose gaps the rows
//! of the newest sound backup are put, so it comes before the plain salvage, and calls itself one when the backup had
//! nothing to give.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::assess::StructureVerdict;
use super::evidence::DatabaseEvidence;
use crate::config::Rung;
use crate::sqlite::check::{ObjectKind, Scope, Structure};
use crate::sqlite::judge::{Candidate, Completeness, Exactness, Level, LogVerdict, Proof, WalState};
use crate::sqlite::observe::WalEvidence;
use crate::sqlite::overlay::Fold;

/// What may be tried when the log has no better candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rescue {
    /// Candidates, best first.
    pub candidates: Vec<Candidate>,
    /// Copies among the decrypted backups, the newest first.
    pub backups: Vec<PathBuf>,
    /// Record of the schema as of the last good boot.
    pub schema_record: Option<PathBuf>,
}

/// The rungs for one database that needs repair.
pub fn rescue(d: &DatabaseEvidence, log: &LogVerdict, structure: StructureVerdict) -> Rescue {
    let mut found =
        Rescue { candidates: Vec::new(), backups: d.backups.clone(), schema_record: d.schema_record.clone() };
    if d.hot_journal || log.candidates.iter().any(|c| c.rollback.is_some()) {
        // In the middle of a transaction the pages contradict each other; rolling back comes first, and is another look.
        return found;
    }
    let base = base(d, log);
    match structure {
        StructureVerdict::Damaged => {
            if d.structure.as_ref().is_some_and(only_contradicts) {
                // Every page is whole, and table and index contradict each other: a lost write, or a changed value.
                // Building the index from the table would hide which; nothing here can tell who is right.
                return found;
            }
            if base.upto > 0 || log.state == WalState::Foreign {
                // With its log the database is damaged. Should it be sound alone, the log is not its own.
                let alone = Fold::nothing(base.page_size);
                found.candidates.push(candidate(Rung::Replay, alone, Completeness::Lossy));
            }
            let mut add = |rung, completeness| found.candidates.push(candidate(rung, base.clone(), completeness));
            if d.structure.as_ref().is_some_and(rows_are_whole) {
                // No row is touched by this damage: what the log says of completeness stays true.
                add(Rung::Reindex, log.completeness);
            }
            if !d.backups.is_empty() {
                add(Rung::Backup, log.completeness);
            }
            add(Rung::Salvage, log.completeness);
            add(Rung::Empty, Completeness::Lossy);
        }
        StructureVerdict::Missing => {
            let mut add = |rung, completeness| found.candidates.push(candidate(rung, base.clone(), completeness));
            if !d.backups.is_empty() {
                add(Rung::Backup, Completeness::Lossy);
            }
            add(Rung::Empty, Completeness::Lossy);
        }
        // What could not be read may be read at the next boot; what is sound needs none of this.
        StructureVerdict::Unreadable | StructureVerdict::Sound => {}
    }
    found
}

fn candidate(rung: Rung, base: Fold, completeness: Completeness) -> Candidate {
    let why = vec!["structure-damaged".to_string()];
    let proof = Proof { exactness: Exactness::DatabaseOnly, why, ..Proof::default() };
    Candidate { rung, base, rollback: None, extras: None, completeness, frames_lost: 0, in_doubt: false, proof }
}

/// True when the only thing wrong is that tables and indexes do not say the same, and not merely that an index lacks
/// entries: then every row is there, and building the index anew takes nothing away.
fn only_contradicts(s: &Structure) -> bool {
    const DIFFER: [&str; 4] = ["index-differs", LACKS, "entry-without-row", "rows-missing"];
    const LACKS: &str = "row-missing-from-index";
    let errors = || s.findings.iter().filter(|f| f.level == Level::Error);
    let incomplete = rows_are_whole(s) && errors().all(|f| f.code == LACKS);
    errors().next().is_some() && errors().all(|f| DIFFER.contains(&f.code.as_str())) && !incomplete
}

/// True when a full check, run to its end, found damage in nothing that holds rows.
fn rows_are_whole(s: &Structure) -> bool {
    let harmless = |k: ObjectKind| matches!(k, ObjectKind::Index | ObjectKind::Freelist | ObjectKind::PointerMap);
    s.scope == Scope::Full && !s.out_of_time && !s.damaged.is_empty() && s.damaged.iter().all(|o| harmless(o.kind))
}

/// The frames of the log that a rescue lays over the database: those of its best candidate, or what SQLite would replay.
fn base(d: &DatabaseEvidence, log: &LogVerdict) -> Fold {
    if let Some(best) = log.candidates.first() {
        return best.base.clone();
    }
    let page_size = d.header.as_ref().and_then(|h| h.as_ref().ok()).map_or(4096, |h| h.page_size);
    match &d.wal {
        WalEvidence::Present(facts)
            if facts.committed > 0 && matches!(log.state, WalState::Sound | WalState::TornTail) =>
        {
            facts.fold()
        }
        _ => Fold::nothing(page_size),
    }
}
