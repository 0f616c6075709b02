//! pyvorin-recovery: the part of an edge gateway's system image that makes sure no power cut, dying SD card or bad
//! update costs the owner data or a site visit.
//!
//! # The straight line
//!
//! ```text
//! sense ──Evidence──▶ assess ──Assessment──▶ plan ──Plan──▶ act ──Outcomes──▶ report
//! read-only by type    pure, total             pure, total     the only writer     pure, then printed
//! ```
//!
//! Four serialisable values separate five stages ([`boot`]). `assess` and `plan` know no clock, no environment and no
//! failure: "could not read" is a value. Every command is these stages with a narrower scope; there is no second path.
//! Effects live behind two traits at the rim ([`edge`]): `Look` reads, `Machine` writes. Linux implements them, and so
//! does a simulated machine whose disk cuts the power at any sync.
//!
//! # Layers
//!
//! | layer | modules | may use |
//! |---|---|---|
//! | domain, no effects | [`sqlite`], [`archive`], [`audit`], [`queue`], [`slots`], [`ext4`], [`fat`], [`journal`], [`keyring`], [`record`], [`reset`], [`retention`], [`sign`], [`ticket`], [`config`], [`cmdline`], [`cli`], [`error`] | each other |
//! | rim | [`edge`] | domain |
//! | composition | [`boot`], [`backup`], [`commands`] | everything |
//!
//! `tests/layering.rs` fails on an arrow that points the other way.
//!
//! # Decisions
//!
//! 1. *Opening a database with the SQLite engine is a write.* A log whose head is damaged is discarded by it, silently,
//!    and deleted at the last close. So sensing reads bytes, and the engine only ever sees staged copies.
//! 2. *A verdict has two axes*: is the structure sound, and is every committed transaction still reachable.
//!    `integrity_check` answers the first alone.
//! 3. *Verified is not enough.* After a lost write SQLite goes on from the last commit with the same salts, and older
//!    commits stay verified behind the new ones ([`sqlite::resync`]). Frames behind a break are joined only where they
//!    are proved to descend from what stands before it.
//! 4. *Exact or not at all.* A log with a hole is folded only up to a commit at which every lost image is superseded.
//!    Of anything later, only rows above the highest rowid are taken over ([`sqlite::judge`]).
//! 5. *"Before the data partition is mounted" means before anything of the OS sees it.* We need a private mount to
//!    reach files: read-only and without journal replay to look, read-write only for a plan that writes.
//! 6. *Our own failure never stops a boot.* PID 1 forks; the line runs in a limited child; if it dies the system starts.
//!
//! # Glossary
//!
//! slot, primary, booted, other · boot attempt, tries left, mark-good/bad, boot state good/bad/unknown · fallback (the
//! loader's choice), rollback (ours) · frame, salt, commit frame, checkpoint, committed frames, tail, leftover ·
//! replay, resync, salvage · preserve, quarantine · evidence, finding, verdict, plan, step, outcome, report ·
//! sound/damaged, complete/lossy · hold.

pub mod archive;
pub mod audit;
pub mod backup;
pub mod boot;
pub mod cli;
pub mod cmdline;
pub mod commands;
pub mod config;
pub mod edge;
pub mod error;
pub mod ext4;
pub mod fat;
pub mod journal;
pub mod keyring;
pub mod queue;
pub mod record;
pub mod reset;
pub mod retention;
pub mod sign;
pub mod slots;
pub mod sqlite;
pub mod ticket;
