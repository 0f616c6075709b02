//! The agent's audit chain (`privacy_audit`) and the journal of our own events.
//!
//! The chain: each record holds the hash of the one before it, and its own SHA-256 over a JSON text of four of its
//! fields. Which JSON text is not documented, so it is detected ([`dialect`]), with a writer that agrees with Python to
//! the byte ([`json`]). [`chain`] verifies and names the first break. The chain is only ever appended to by the OS while
//! the agent is stopped; what recovery has to say goes into our own journal first ([`events`]) and is folded in later.

pub mod chain;
pub mod dialect;
pub mod events;
pub mod json;
