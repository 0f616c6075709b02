//! What is asked of a log or a rollback journal beyond its bytes: whether it is this database's at all.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use super::{Request, geometry};
use crate::boot::evidence::DatabaseEvidence;
use crate::boot::plan::side;
use crate::edge::{FileKind, Look};
use crate::sqlite::ReadAt;
use crate::sqlite::check::{self, Scope};
use crate::sqlite::foreign;
use crate::sqlite::header::{Header, HeaderFault};
use crate::sqlite::observe::WalEvidence;
use crate::sqlite::overlay::Overlay;
use crate::sqlite::rollback::{self, JournalEvidence};

/// The rollback journal, and whether the super-journal that it names is still there.
pub(super) fn rollback_journal(
    look: &dyn Look,
    location: &Path,
    header: Option<&Result<Header, HeaderFault>>,
) -> JournalEvidence {
    let path = side(location, "-journal");
    let (page_size, _) = geometry(header);
    let read = match look.stat(&path) {
        Ok(None) => return JournalEvidence::Absent,
        Ok(Some(s)) if s.kind == FileKind::File => look.open(&path).and_then(|f| rollback::read(&*f, page_size)),
        Ok(Some(_)) => Err(io::Error::other("it is not a regular file")),
        Err(e) => Err(e),
    };
    match read {
        Ok(JournalEvidence::Hot(mut facts)) => {
            // The name is the whole path on the system that wrote it; here only what stands beside the database counts.
            let name = facts.super_journal.as_deref().and_then(|n| Path::new(n).file_name().map(OsStr::to_owned));
            let beside = name.and_then(|name| Some(location.parent()?.join(name)));
            facts.super_present = beside.is_some_and(|p| matches!(look.stat(&p), Ok(Some(_))));
            JournalEvidence::Hot(facts)
        }
        Ok(other) => other,
        Err(e) => JournalEvidence::Unreadable(e.to_string()),
    }
}

/// True when the log breaks a condition that every log of this database keeps.
pub(super) fn in_question(d: &DatabaseEvidence, db: &dyn ReadAt) -> bool {
    let Some(Ok(header)) = &d.header else { return false };
    if let (JournalEvidence::Hot(facts), true) = (&d.journal, d.hot_journal) {
        return rollback::foreign(facts, &header.into(), header.page_size).is_some();
    }
    let WalEvidence::Present(facts) = &d.wal else { return false };
    let pages = u32::try_from(db.size() / u64::from(header.page_size)).unwrap_or(u32::MAX);
    foreign::reason(facts, &header.into(), pages, header.page_size).is_some()
}

/// A full check of the database without its log; `None` when it could not be finished.
pub(super) fn alone(look: &dyn Look, db: &dyn ReadAt, page_size: u32, request: &Request<'_>) -> Option<bool> {
    let deadline = request.budget_ms.map(|ms| look.uptime_ms().saturating_add(ms));
    let mut may_go_on = || deadline.is_none_or(|end| look.uptime_ms() < end);
    let found = check::check(&Overlay::alone(db, page_size), Scope::Full, &mut may_go_on).ok()?;
    (!found.out_of_time).then(|| found.sound() && foreign::counts_agree(&found.schema))
}
