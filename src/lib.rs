//! pyvorin-recovery
pub mod boot;
pub mod cmdline;
pub mod config;
pub mod edge;
pub mod ext4;
pub mod sqlite;
