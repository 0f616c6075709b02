//! Configuration in two stages: [`fragment`] is the file as written (unknown keys are errors), [`settings`] are the
//! validated values every other module uses. Parsing is pure: text in, settings or a list of faults out.

pub mod fragment;
pub mod settings;

pub use settings::{Button, Database, DatabaseKind, OnTrouble, Rung, Settings, SlotBackend};
