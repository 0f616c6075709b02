//! A gateway's directories in a scratch place, and the command line run in them.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::crash::{Files, side};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A directory that goes away with the value. In memory where the machine has that, since thousands are made.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let base = Path::new("/dev/shm");
        let base = if base.is_dir() { base.to_owned() } else { std::env::temp_dir() };
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("pyv-oracle-{}-{n}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub const CONFIG: &str = r#"[state]
dir = "/var/lib/pyvorin-recovery"
[data]
dir = "/var/lib/pyvorin"
[[database]]
name = "edge_store"
kind = "store"
path = "/var/lib/pyvorin/edge_store.db"
"#;

/// What one run of the program gave.
pub struct Run {
    /// Exit code; 1000 + signal when killed, 2000 when it had to be ended after the time limit.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub json: Option<serde_json::Value>,
}

impl Run {
    pub fn database(&self) -> &serde_json::Value {
        static NOTHING: serde_json::Value = serde_json::Value::Null;
        self.json.as_ref().and_then(|j| j.get("databases")?.get(0)).unwrap_or(&NOTHING)
    }

    pub fn text<'a>(&'a self, key: &str) -> &'a str {
        self.database().get(key).and_then(|v| v.as_str()).unwrap_or("(none)")
    }

    pub fn wal(&self, key: &str) -> i64 {
        self.database().get("wal").and_then(|w| w.get(key)?.as_i64()).unwrap_or(-1)
    }

    pub fn complete(&self) -> bool {
        self.text("completeness") == "complete"
    }

    /// True when the run says that nothing is missing: by the word, or by having repaired without a loss left. (The
    /// verdict printed by `repair` may be the one from before it; the exit code always speaks of the end.)
    pub fn claims_all(&self) -> bool {
        self.complete() || (self.code & 5 == 1 && self.text("completeness") == "lossy")
    }

    /// True when some finding of level error or warning is there.
    pub fn tells(&self) -> bool {
        self.findings().iter().any(|f| matches!(f["level"].as_str(), Some("error" | "warning")))
    }

    pub fn findings(&self) -> Vec<serde_json::Value> {
        self.database().get("findings").and_then(|f| f.as_array()).cloned().unwrap_or_default()
    }

    pub fn brief(&self) -> String {
        let codes: Vec<String> = self.findings().iter().filter_map(|f| f["code"].as_str().map(str::to_owned)).collect();
        format!(
            "exit {} action {} structure {} completeness {} wal {} findings {codes:?}",
            self.code,
            self.text("action"),
            self.text("structure"),
            self.text("completeness"),
            self.database()["wal"],
        )
    }
}

/// Path below the root: kind, mode, time of change, content.
pub type Tree = BTreeMap<PathBuf, (char, u32, i64, i64, Vec<u8>)>;

/// A gateway: ROOT with the configuration and directories of the contract.
pub struct Site {
    scratch: Scratch,
}

impl Site {
    pub fn new(files: &Files) -> Self {
        let site = Self::bare();
        files.write(&site.db());
        site
    }

    /// Without any database.
    pub fn bare() -> Self {
        let site = Self { scratch: Scratch::new("site") };
        for dir in ["var/lib/pyvorin", "var/lib/pyvorin-recovery", "run/pyvorin-recovery"] {
            std::fs::create_dir_all(site.root().join(dir)).unwrap();
        }
        std::fs::write(site.config(), CONFIG).unwrap();
        site
    }

    pub fn root(&self) -> PathBuf {
        self.scratch.path().join("root")
    }

    pub fn config(&self) -> PathBuf {
        self.scratch.path().join("recovery.toml")
    }

    pub fn data(&self) -> PathBuf {
        self.root().join("var/lib/pyvorin")
    }

    pub fn db(&self) -> PathBuf {
        self.data().join("edge_store.db")
    }

    pub fn files(&self) -> Files {
        Files::read(&self.db())
    }

    pub fn side(&self, suffix: &str) -> PathBuf {
        side(&self.db(), suffix)
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        let (config, root) = (self.config(), self.root());
        let mut all = vec!["--config", config.to_str().unwrap(), "--root", root.to_str().unwrap(), "--json"];
        all.extend_from_slice(arguments);
        run(&all)
    }

    pub fn tree(&self) -> Tree {
        tree(&self.root())
    }
}

/// Runs the program under test with a time limit; a hang is a result, not the end of the test.
pub fn run(arguments: &[&str]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pyvorin-recovery"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = out.read_to_end(&mut bytes);
        bytes
    });
    let err = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = err.read_to_end(&mut bytes);
        bytes
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            use std::os::unix::process::ExitStatusExt;
            break status.code().unwrap_or_else(|| 1000 + status.signal().unwrap_or(0));
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            break 2000;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let stdout = String::from_utf8_lossy(&out.join().unwrap()).into_owned();
    let stderr = String::from_utf8_lossy(&err.join().unwrap()).into_owned();
    Run { code, json: serde_json::from_str(&stdout).ok(), stdout, stderr }
}

/// Everything below a directory. Fifos are listed, not opened.
pub fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        let kind = meta.file_type();
        let (letter, content) = if kind.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            ('d', Vec::new())
        } else if kind.is_symlink() {
            ('l', std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes())
        } else if kind.is_file() {
            ('f', std::fs::read(&path).unwrap())
        } else {
            ('o', Vec::new())
        };
        let name = path.strip_prefix(root).unwrap().to_owned();
        tree.insert(name, (letter, meta.mode(), meta.mtime(), meta.mtime_nsec(), content));
    }
    tree
}

/// The names that differ between two trees.
pub fn changed(before: &Tree, after: &Tree) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = before.keys().chain(after.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.retain(|name| before.get(name) != after.get(name));
    names
}
