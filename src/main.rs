//! Entry point: PID 1 of an initramfs, a hook inside somebody else's, or a command for people.

use std::io::Write;
use std::process::ExitCode;

use pyvorin_recovery::{cli, commands};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(invocation) => commands::run(invocation).into(),
        Err(usage) => {
            // Nothing is left to be told when stderr is closed.
            drop(writeln!(std::io::stderr(), "pyvorin-recovery: {usage}"));
            usage.exit().into()
        }
    }
}
