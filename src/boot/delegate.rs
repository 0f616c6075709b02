//! The part of a full check that needs SQL: CHECK constraints, expressions, foreign collations, virtual tables, and the
//! grammar of the schema's texts. It runs after the check of the bytes found nothing, on a copy, and is timed apart.
//!
//! Damage needs no second opinion: a database that the bytes show to be damaged is not handed to the engine.

use std::collections::BTreeSet;
use std::io;

use super::evidence::DatabaseEvidence;
use crate::edge::engine::{ObjectCheck, check_texts};
use crate::sqlite::check::{DamagedObject, EngineWord, ObjectKind, Scope, Structure};
use crate::sqlite::verdict::{Finding, Level};

/// The engine's answers; `None` when the database is no longer the one that was sensed.
pub type Answers = io::Result<Option<Vec<ObjectCheck>>>;

/// Runs the engine's part, where there is any, and writes its word into the evidence. `engine` checks the named tables
/// of a copy of what the overlay shows; `elapsed` gives milliseconds of a running clock.
pub fn engine_part(
    d: &mut DatabaseEvidence,
    elapsed: &dyn Fn() -> u64,
    engine: &mut dyn FnMut(&DatabaseEvidence, &[String]) -> Answers,
) {
    let ready = !d.moving && !d.hot_journal;
    let Some(mut structure) = d.structure.take() else { return };
    let wanted = structure.scope == Scope::Full && structure.sound() && !structure.out_of_time;
    if ready && wanted && !structure.coverage.for_engine.is_empty() {
        let begun = elapsed();
        let mut word = EngineWord::default();
        let tables: BTreeSet<String> = structure.coverage.for_engine.iter().filter_map(|x| x.table.clone()).collect();
        let tables: Vec<String> = tables.into_iter().collect();
        let answers = if tables.is_empty() { Ok(Some(Vec::new())) } else { engine(d, &tables) };
        match answers {
            Ok(Some(answers)) => hear(&mut structure, &mut word, answers),
            Ok(None) => {
                word.unable.extend(tables.into_iter().map(|t| (t, "the database changed meanwhile".to_string())))
            }
            Err(e) => word.unable.extend(tables.into_iter().map(|t| (t, e.to_string()))),
        }
        if structure.coverage.for_engine.iter().any(|x| x.table.is_none()) {
            texts(&mut structure, &mut word);
        }
        word.elapsed_ms = elapsed().saturating_sub(begun);
        structure.engine = Some(word);
    }
    d.structure = Some(structure);
}

fn hear(structure: &mut Structure, word: &mut EngineWord, answers: Vec<ObjectCheck>) {
    for answer in answers {
        if let Some(why) = answer.unable {
            word.unable.push((answer.table, why));
            continue;
        }
        word.checked.push(answer.table.clone());
        for line in answer.lines {
            let index = structure.schema.iter().find(|e| {
                e.kind == "index"
                    && e.table.eq_ignore_ascii_case(&answer.table)
                    && line.ends_with(&format!(" {}", e.name))
            });
            let (name, kind) = match index {
                Some(e) => (e.name.clone(), ObjectKind::Index),
                None => (answer.table.clone(), ObjectKind::Table),
            };
            blame(structure, name, kind, "engine", format!("the engine says of {}: {line}", answer.table));
        }
    }
}

fn texts(structure: &mut Structure, word: &mut EngineWord) {
    let entries: Vec<_> = structure.schema.iter().map(|e| (e.kind.clone(), e.name.clone(), e.sql.clone())).collect();
    match check_texts(&entries) {
        Ok(wrong) => {
            word.checked.push("sqlite_schema".to_string());
            for (name, why) in wrong {
                let text = format!("the text of {name} in the schema cannot be read: {why}");
                blame(structure, String::new(), ObjectKind::Schema, "schema-damaged", text);
            }
        }
        Err(e) => word.unable.push(("sqlite_schema".to_string(), e.to_string())),
    }
}

fn blame(structure: &mut Structure, name: String, kind: ObjectKind, code: &str, text: String) {
    structure.findings.push(Finding::new(Level::Error, code, text));
    if !structure.damaged.iter().any(|o| o.name == name && o.kind == kind) {
        structure.damaged.push(DamagedObject { name, kind, pages: Vec::new() });
    }
}
