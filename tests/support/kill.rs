//! A program killed (SIGKILL, by strace's fault injection) at a chosen one of its system calls, before the call takes effect.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// Every call by which a program of ours can change a file, a name or a mode (x86_64 and arm64 names).
const CHANGING: &str = "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,splice,rename,\
renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,fsync,fdatasync,sync,syncfs,\
sync_file_range,ftruncate,truncate,fallocate,chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,utimensat";

/// Runs a command below strace; what strace wrote, a line for each call.
fn strace(command: &[String], trace: &Path, options: &[String]) -> String {
    let status = Command::new("strace")
        .args(["-f", "-qq", "-o", trace.to_str().unwrap()])
        .args(options)
        .args(command)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.expect("strace is missing; next: sh tests/setup.sh");
    std::fs::read_to_string(trace).unwrap_or_default()
}

/// Runs a command to its end. Its calls that change something, each with its number among those of its name: strace counts
/// per thread and per name. Files opened only to be read, and what goes to the terminal, change nothing; and between two
/// calls that change something nothing changes, so a kill at any other call equals one of these.
pub fn changing(command: &[String], trace: &Path) -> Vec<(String, usize)> {
    let text = strace(command, trace, &["-e".to_string(), format!("trace={CHANGING}")]);
    let mut counted: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, arguments)) = rest.trim_start().split_once('(') else { continue };
        let count = counted.entry((thread.to_string(), call.to_string())).or_default();
        *count += 1;
        let opens = call.starts_with("open") && !arguments.contains("O_CREAT") && !arguments.contains("O_TRUNC");
        let prints = call.starts_with("write") && (arguments.starts_with("1,") || arguments.starts_with("2,"));
        if !opens && !prints {
            found.push((call.to_string(), *count));
        }
    }
    assert!(found.len() > 60, "strace saw {} calls; may this machine trace a process?", found.len());
    found
}

/// Kills a command at the n-th of its calls of a name; false where it ended before.
pub fn at(command: &[String], trace: &Path, call: &str, n: usize) -> bool {
    let inject = format!("inject={call}:signal=KILL:when={n}");
    strace(command, trace, &["-e".to_string(), format!("trace={call}"), "-e".to_string(), inject])
        .contains("killed by SIGKILL")
}
