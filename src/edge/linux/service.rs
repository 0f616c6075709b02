//! Stops and starts the agent through whatever manages it: systemd, or a script in `/etc/init.d` (sysvinit, busybox).
//! Never by a signal of ours: with `Restart=always` it would be back before the files are touched.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::run;

/// Names of the documented agent's unit; its pages do not agree on one.
pub const UNITS: [&str; 2] = ["pyvorin-edge-agent", "pyvorin-edge"];
/// Where scripts are.
pub const SCRIPTS: &str = "/etc/init.d";
/// For one call of the service manager. Its own limit for a stop is 30 s, and a kill follows.
const LIMIT: Duration = Duration::from_secs(120);
/// For a question.
const ASK: Duration = Duration::from_secs(15);

/// A service that exists on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, without `.service`.
    pub unit: String,
    manager: Manager,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Manager {
    Systemd(PathBuf),
    Script(PathBuf),
}

/// Whether it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// It runs, or is about to.
    Yes,
    /// It does not.
    No,
    /// Scripts cannot be asked reliably; who has the files open tells.
    Unknown,
}

impl Service {
    /// The service: `unit` as configured, or the documented names for "auto"; `None`: there is no such service here, or
    /// nothing that manages one. `tools` are the directories in which `systemctl` is looked for.
    #[must_use]
    pub fn find(unit: &str, tools: &[PathBuf], scripts: &Path) -> Option<Service> {
        let names: Vec<&str> = match unit {
            "none" => return None,
            "auto" => UNITS.to_vec(),
            one => vec![one.strip_suffix(".service").unwrap_or(one)],
        };
        if let Some(tool) = tools.iter().map(|dir| dir.join("systemctl")).find(|path| executable(path)) {
            let known = |unit: &&str| property(&tool, unit, "LoadState").is_ok_and(|state| state == "loaded");
            let all: Vec<Service> = names
                .iter()
                .filter(|unit| known(unit))
                .map(|unit| Service { unit: (*unit).to_string(), manager: Manager::Systemd(tool.clone()) })
                .collect();
            // Both names may be there, one left over from an older image: the one that runs is meant.
            let running = all.iter().find(|s| s.running() == Running::Yes).or(all.first());
            if running.is_some() {
                return running.cloned();
            }
        }
        names.iter().find_map(|unit| {
            let script = script(scripts, unit)?;
            Some(Service { unit: (*unit).to_string(), manager: Manager::Script(script) })
        })
    }

    /// [`Self::find`] on this machine, with the path of whoever called: a service manager is not always in the same place,
    /// and nothing else depends on it.
    #[must_use]
    pub fn here(unit: &str) -> Option<Service> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self::find(unit, &std::env::split_paths(&path).collect::<Vec<_>>(), Path::new(SCRIPTS))
    }

    /// Whether it runs now.
    #[must_use]
    pub fn running(&self) -> Running {
        let Manager::Systemd(tool) = &self.manager else { return Running::Unknown };
        match property(tool, &self.unit, "ActiveState").as_deref() {
            Ok("inactive" | "failed") => Running::No,
            Ok(_) => Running::Yes,
            Err(_) => Running::Unknown,
        }
    }

    /// Stops it and waits until the manager says that it has stopped.
    pub fn stop(&self, tell: &dyn Fn(&str)) -> io::Result<()> {
        self.call("stop", tell)?;
        match self.running() {
            Running::Yes => Err(io::Error::other(format!("{} still runs after a stop", self.unit))),
            Running::No | Running::Unknown => Ok(()),
        }
    }

    /// Starts it. A unit that had failed too often is given its starts back first.
    pub fn start(&self, tell: &dyn Fn(&str)) -> io::Result<()> {
        if let Manager::Systemd(tool) = &self.manager {
            // Says that there was nothing to reset, which is the normal case.
            drop(output(tool, &["reset-failed".into(), unit_file(&self.unit)], ASK));
        }
        self.call("start", tell)
    }

    fn call(&self, verb: &str, tell: &dyn Fn(&str)) -> io::Result<()> {
        let (program, args): (&Path, Vec<OsString>) = match &self.manager {
            Manager::Systemd(tool) => (tool, vec![verb.into(), unit_file(&self.unit)]),
            Manager::Script(script) => (script, vec![verb.into()]),
        };
        match run::bounded(program, &args, LIMIT, Duration::from_secs(10), tell)? {
            0 => Ok(()),
            status => Err(io::Error::other(format!("{} {verb} ended with status {status}", program.display()))),
        }
    }
}

fn unit_file(unit: &str) -> OsString {
    if unit.contains('.') { unit.into() } else { format!("{unit}.service").into() }
}

fn property(tool: &Path, unit: &str, name: &str) -> io::Result<String> {
    let args = ["show".into(), format!("--property={name}").into(), unit_file(unit)];
    let lines = output(tool, &args, ASK)?;
    let value = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.map(str::to_string).ok_or_else(|| io::Error::other(format!("{} did not say its {name}", tool.display())))
}

/// The lines that a program prints; an exit status other than 0 is an error.
fn output(program: &Path, args: &[OsString], limit: Duration) -> io::Result<Vec<String>> {
    let lines = std::cell::RefCell::new(Vec::new());
    let status = run::bounded(program, args, limit, limit, &|line| lines.borrow_mut().push(line.to_string()))?;
    if status == 0 { Ok(lines.into_inner()) } else { Err(io::Error::other(format!("it ended with status {status}"))) }
}

/// `UNIT` or `S99UNIT` in the directory of scripts.
fn script(scripts: &Path, unit: &str) -> Option<PathBuf> {
    let plain = scripts.join(unit);
    if executable(&plain) {
        return Some(plain);
    }
    let ours = |name: &str| {
        let rest = name.strip_prefix('S')?;
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        (digits > 0 && rest.get(digits..) == Some(unit)).then_some(())
    };
    let mut found: Vec<PathBuf> = std::fs::read_dir(scripts).ok()?.flatten().map(|e| e.path()).collect();
    found.retain(|path| path.file_name().and_then(|n| n.to_str()).and_then(ours).is_some() && executable(path));
    found.sort();
    found.into_iter().next()
}

fn executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests;
