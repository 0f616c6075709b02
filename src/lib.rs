//! pyvorin-recovery
pub mod boot;
pub mod config;
pub mod edge;
pub mod sqlite;
