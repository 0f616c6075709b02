//! The Python model of the agent (`agent.py`): what it prints, and its databases as rows.

use std::path::Path;
use std::process::Command;

use rusqlite::types::Value;

/// Runs the model; its output, or a panic with what it said.
pub fn python(arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/agent.py");
    let done = Command::new("python3").arg(script).args(arguments).output().expect("python3 is needed: make setup");
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// A row: id, timestamp, action, details, prev_hash, record_hash.
pub type AuditRow = (i64, Value, Value, Value, Value, Value);

/// The chain by the real engine.
pub fn audit_rows(db: &Path) -> Vec<AuditRow> {
    let conn = rusqlite::Connection::open(db).unwrap();
    let sql = "SELECT id, timestamp, action, details, prev_hash, record_hash FROM privacy_audit ORDER BY id";
    let mut statement = conn.prepare(sql).unwrap();
    let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?)));
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}
