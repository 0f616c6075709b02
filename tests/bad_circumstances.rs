//! `queue repair`, `queue import`, `audit log` and `reset` under circumstances that nobody wants: a queue with another
//! schema, with more columns, a read-only file system, a full disk, a clock at 1970. A clear error or the work done, and
//! nothing lost. (The agent running, and a second one of us: `operations.rs`.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use support::agent::{audit_rows, python};
use support::site::{CONFIG, Site, changed};

const QUEUE: &str =
    "[[database]]\nname = \"sync_queue\"\nkind = \"queue\"\npath = \"/var/lib/pyvorin/sync_queue.db\"\n";

fn site() -> Site {
    let site = Site::bare();
    std::fs::write(site.config(), format!("{CONFIG}{QUEUE}")).unwrap();
    python(&["write", site.db().to_str().unwrap(), "1", "20", "0", "zeros"]);
    python(&["queue", queue(&site).to_str().unwrap(), "1", "40"]);
    std::fs::write(site.root().join("rows.jsonl"), "{\"id\":900,\"payload\":\"{}\",\"priority\":1,\"created_at\":1.7e9,\"ttl_seconds\":60,\"retry_count\":0,\"next_retry_at\":0.0}\n").unwrap();
    site
}

fn queue(site: &Site) -> PathBuf {
    site.data().join("sync_queue.db")
}

fn sql(path: &Path, text: &str) {
    Connection::open(path).unwrap().execute_batch(text).unwrap();
}

fn spoil(site: &Site) {
    sql(&queue(site), "UPDATE sync_queue SET priority = 99 WHERE id = 7");
}

/// Runs a shell script with mounts of its own; `None` where this machine gives no such namespaces.
fn in_namespace(site: &Site, script: &str) -> Option<(i32, String)> {
    if !Command::new("unshare").args(["-Urm", "true"]).output().is_ok_and(|p| p.status.success()) {
        println!("skipped: no user namespaces here");
        return None;
    }
    let run = "r() { \"$BIN\" --config \"$CFG\" --root \"$SITE\" --technician T-042 \"$@\" 2>&1; echo \"exit $?\"; }; ";
    let done = Command::new("unshare")
        .args(["-Urm", "sh", "-c", &format!("{run}{script}")])
        .env("BIN", env!("CARGO_BIN_EXE_pyvorin-recovery"))
        .env("SITE", site.root())
        .env("CFG", site.config())
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    Some((done.status.code().unwrap_or(1000), text))
}

const COMMANDS: [&str; 4] = ["queue repair", "queue import $SITE/rows.jsonl", "audit log seen", "reset"];

#[test]
fn a_read_only_file_system_is_told_and_nothing_changes() {
    for command in COMMANDS {
        let site = site();
        spoil(&site);
        let before = site.tree();
        let script = format!("mount --bind $SITE/var $SITE/var && mount -o remount,ro,bind $SITE/var && r {command}");
        let Some((_, text)) = in_namespace(&site, &script) else { return };
        assert!(text.contains("exit 8"), "{command}: {text}");
        assert!(text.to_lowercase().contains("read-only") && text.contains("next: "), "{command}: {text}");
        assert_eq!(changed(&before, &site.tree()), Vec::<PathBuf>::new(), "{command}");
    }
}

#[test]
fn a_full_disk_is_told_and_every_original_stays() {
    for command in COMMANDS {
        let site = site();
        spoil(&site);
        // Everything on a volume of one megabyte that is filled to its end; what is on it afterwards is copied out.
        let script = format!(
            "cp -a $SITE/var $SITE/copy && mount -t tmpfs -o size=1m t $SITE/var && cp -a $SITE/copy/. $SITE/var/ && \
             (cat /dev/zero > $SITE/var/lib/fill 2>/dev/null; true) && r {command}; rm -rf $SITE/copy; mkdir $SITE/after; rm $SITE/var/lib/fill; cp -a $SITE/var/. $SITE/after/"
        );
        let Some((_, text)) = in_namespace(&site, &script) else { return };
        assert!(text.contains("exit 8"), "{command}: {text}");
        assert!(text.contains("next: "), "{command}: {text}");
        let data = site.root().join("after/lib/pyvorin");
        for name in ["edge_store.db", "sync_queue.db"] {
            let (was, is) = (std::fs::read(site.data().join(name)).unwrap(), std::fs::read(data.join(name)).unwrap());
            assert!(was == is, "{command}: {name} changed: {text}");
        }
        assert!(!data.join(".pyvorin-intent").exists(), "{command}: the agent would stay stopped: {text}");
    }
}

#[test]
fn a_clock_at_1970_stops_nothing() {
    let site = site();
    spoil(&site);
    let dir = tempfile::tempdir().unwrap();
    let (source, library) = (dir.path().join("clock.c"), dir.path().join("clock.so"));
    let text = "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <time.h>\n\
                int clock_gettime(clockid_t id, struct timespec *t) {\n\
                int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, \"clock_gettime\");\n\
                int r = real(id, t); if (id == CLOCK_REALTIME) { t->tv_sec = 17; t->tv_nsec = 0; } return r; }\n";
    std::fs::write(&source, text).unwrap();
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).args(["-ldl"]).status().unwrap();
    assert!(built.success());
    let run = |line: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pyvorin-recovery"));
        command.env("LD_PRELOAD", &library).arg("--config").arg(site.config()).arg("--root").arg(site.root());
        let done = command.args(["--technician", "T-042", "--json"]).args(line).output().unwrap();
        (
            done.status.code().unwrap_or(1000),
            String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr),
        )
    };
    let (code, text) = run(&["queue", "repair"]);
    assert_eq!(code & !5, 0, "{text}");
    let ids: i64 =
        Connection::open(queue(&site)).unwrap().query_row("SELECT count(*) FROM sync_queue", [], |r| r.get(0)).unwrap();
    assert_eq!(ids, 39, "{text}");
    assert!(text.contains("/17-sync_queue-"), "the clock was not 1970: {text}");
    assert_eq!(run(&["audit", "log", "seen"]).0, 0);
    for _ in 0..2 {
        // The same second each time: operations of one name must not meet.
        let (code, text) = run(&["reset"]);
        assert_eq!(code, 0, "{text}");
        assert!(python(&["verify", site.db().to_str().unwrap(), "0"]).starts_with("ok 1 "), "{text}");
    }
}

#[test]
fn more_columns_come_through_and_another_schema_is_refused_with_nothing_lost() {
    let more = site();
    sql(&queue(&more), "ALTER TABLE sync_queue ADD COLUMN topic TEXT; UPDATE sync_queue SET topic = 't' || id");
    spoil(&more);
    let run = more.run(&["--technician", "T", "queue", "repair"]);
    assert_eq!(run.code & !5, 0, "{}", run.stderr);
    let topics = Connection::open(queue(&more)).unwrap();
    let right: i64 =
        topics.query_row("SELECT count(*) FROM sync_queue WHERE topic = 't' || id", [], |r| r.get(0)).unwrap();
    assert_eq!(right, 39);

    for other in [
        "DROP TABLE sync_queue; CREATE TABLE other (x); INSERT INTO other VALUES (1), (2)",
        "ALTER TABLE sync_queue DROP COLUMN payload",
    ] {
        let name = Path::new("var/lib/pyvorin/sync_queue.db");
        let with_schema = || {
            let site = site();
            sql(&queue(&site), other);
            let original = std::fs::read(queue(&site)).unwrap();
            (site, original)
        };
        let somewhere = |site: &Site, bytes: &[u8]| site.tree().values().any(|e| e.0 == 'f' && e.4 == bytes);
        for import in [false, true] {
            let (site, original) = with_schema();
            let file = site.root().join("rows.jsonl").display().to_string();
            let line: &[&str] = if import { &["queue", "import", &file] } else { &["queue", "repair"] };
            let run = site.run(&[&["--technician", "T"], line].concat());
            let untouched = site.tree()[name].4 == original;
            assert!(run.code & 12 != 0 || untouched, "{other}: {line:?}: {} {}", run.code, run.stdout);
            assert!(run.code != 8 || untouched && run.stderr.contains("next: "), "{other}: {line:?}: {}", run.stderr);
            assert!(somewhere(&site, &original), "{other}: {line:?}: the original is gone");
        }
        // A reset takes any schema as it is.
        let (site, original) = with_schema();
        let run = site.run(&["--technician", "T", "reset", "--tier", "queue"]);
        assert_eq!(run.code, 0, "{other}: {}", run.stderr);
        assert!(somewhere(&site, &original), "{other}: the original is gone after the reset");
        assert_eq!(audit_rows(&site.db()).len(), 21, "the chain tells the reset of the queue");
    }
}
