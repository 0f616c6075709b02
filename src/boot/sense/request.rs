//! What a pass of sensing is asked: how deep, how long, on whose behalf.

use std::path::PathBuf;

use crate::boot::evidence::{FsckLevel, VolumeEvidence};
use crate::config::Settings;
use crate::slots::Slot;
use crate::sqlite::check::Scope;

/// What a pass is asked to look at.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Settings.
    pub settings: &'a Settings,
    /// Scope for every database; `None`: quick after a clean shutdown with a sound log, else full.
    pub scope: Option<Scope>,
    /// Milliseconds a full check may take; `None`: as long as it takes.
    pub budget_ms: Option<u64>,
    /// Only these databases (by path as configured or as located); empty: all.
    pub only: &'a [PathBuf],
    /// Who asked.
    pub by: &'a str,
    /// e2fsck runs of this boot.
    pub checks: &'a [(String, FsckLevel, i32)],
    /// True when a volume was found unclean earlier in this boot.
    pub unclean: bool,
    /// The volumes as they were before they were attached: attaching read-write makes any volume look unclean.
    pub volumes: &'a [VolumeEvidence],
    /// Volumes that could not be attached, with the reason.
    pub unattached: &'a [(String, String)],
    /// True when a repair may follow: then it matters who has the files open.
    pub holders: bool,
    /// True in the boot flow, where slots are looked at.
    pub slots: bool,
    /// Slots that could not be started in this boot.
    pub dead: &'a [Slot],
    /// Slot asked for on the kernel command line.
    pub asked: Option<Slot>,
    /// A factory reset that a person asked for.
    pub reset: Option<&'a crate::reset::Request>,
}

impl<'a> Request<'a> {
    /// What a command asks that looks at databases outside the boot flow: every configured one, in full, however long
    /// it takes, and nothing else.
    #[must_use]
    pub fn new(settings: &'a Settings, by: &'a str) -> Self {
        Self {
            settings,
            scope: Some(Scope::Full),
            budget_ms: None,
            only: &[],
            by,
            checks: &[],
            unclean: false,
            volumes: &[],
            unattached: &[],
            holders: false,
            slots: false,
            dead: &[],
            asked: None,
            reset: None,
        }
    }
}
