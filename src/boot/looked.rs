//! Who looked at which part of a database: what was checked from the bytes, what by the engine, and what by nobody. Pure.

use serde::{Deserialize, Serialize};

use crate::sqlite::check::Structure;

/// Which parts of a database were checked, and by which checker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookedAt {
    /// Tables and indexes checked from their bytes.
    pub natively: Vec<String>,
    /// What the real engine checked on a copy.
    pub by_engine: Vec<String>,
    /// What nobody checked, with the reason.
    pub not_checked: Vec<String>,
    /// Milliseconds the engine took.
    pub engine_ms: Option<u64>,
}

/// Sorts what a check left to the engine by whether the engine looked.
pub fn looked(s: &Structure) -> LookedAt {
    let engine = s.engine.clone().unwrap_or_default();
    let unable = |name: &str| engine.unable.iter().find(|(n, _)| n == name).map(|(_, why)| why.as_str());
    let mut result = LookedAt { natively: s.coverage.natively.clone(), ..LookedAt::default() };
    result.engine_ms = s.engine.as_ref().map(|e| e.elapsed_ms);
    for part in &s.coverage.for_engine {
        let asked = part.table.as_deref().unwrap_or("sqlite_schema");
        let what = format!("{}: {}", part.object, part.reason);
        if engine.checked.iter().any(|t| t == asked) {
            result.by_engine.push(what);
        } else {
            let why = unable(asked).map_or(String::new(), |why| format!(" ({why})"));
            result.not_checked.push(format!("{what}{why}"));
        }
    }
    result
}
