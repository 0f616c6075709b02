//! pyvorin-recovery
pub mod boot;
pub mod cli;
pub mod cmdline;
pub mod commands;
pub mod config;
pub mod edge;
pub mod error;
pub mod ext4;
pub mod journal;
pub mod record;
pub mod slots;
pub mod sqlite;
