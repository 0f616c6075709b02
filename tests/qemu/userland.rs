//! Placeholder replaced by the QEMU harness.
fn main() {}
