//! Asks for what stands under every operation: the intent journal, quarantine, and who has a database open.

use std::path::Path;

use super::{Request, read_record};
use crate::boot::evidence::Evidence;
use crate::boot::plan::side;
use crate::config::Settings;
use crate::edge::Look;
use crate::journal::{self, Intent, IntentEvidence};
use crate::record::Decoded;

/// The open operation alone, without a look at any database: what a command must know before it begins another.
pub fn operation(look: &dyn Look, request: &Request<'_>) -> Evidence {
    super::data(look, &Request { settings: &without_databases(request.settings), ..request.clone() })
}

fn without_databases(settings: &Settings) -> Settings {
    Settings { databases: Vec::new(), ..settings.clone() }
}

/// Other processes that have a database, its log or its wal-index open.
pub fn holders(look: &dyn Look, location: &Path) -> Vec<String> {
    let mut found: Vec<String> =
        ["", "-wal", "-shm"].iter().flat_map(|suffix| look.holders(&side(location, suffix))).collect();
    found.sort();
    found.dedup();
    found
}

/// The open operation: the record in state; failing that the mirror, which carries the same record.
pub(super) fn intent(look: &dyn Look, settings: &Settings, mirror: bool) -> IntentEvidence {
    let own = settings.state_dir.join(journal::FILE);
    let path = match look.stat(&own) {
        Ok(Some(_)) => own,
        Ok(None) if mirror => settings.data_dir.join(journal::MIRROR),
        Ok(None) => return IntentEvidence::None,
        Err(e) => return IntentEvidence::Damaged(e.to_string()),
    };
    match read_record::<Intent>(look, &path, journal::RECORD) {
        Decoded::Ok(intent) => IntentEvidence::Open(Box::new(intent)),
        Decoded::Newer { min_reader } => IntentEvidence::Newer(min_reader),
        Decoded::Damaged(why) => IntentEvidence::Damaged(why),
    }
}

/// Names of the operations kept in quarantine.
pub fn quarantined(look: &dyn Look, settings: &Settings) -> Vec<String> {
    let names = look.list(&settings.data_dir.join(journal::QUARANTINE)).unwrap_or_default();
    names.into_iter().map(|n| n.to_string_lossy().into_owned()).collect()
}
