//! pyvorin-recovery
pub mod boot;
pub mod cli;
pub mod config;
pub mod edge;
pub mod error;
pub mod record;
pub mod slots;
pub mod sqlite;
