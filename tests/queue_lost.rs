//! A rebuilt queue and the rows that no page holds any more: every id that was there is in the new queue, among the
//! rejected, or in the loss manifest beside the preserved originals. Truth is what the agent's model wrote.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::collections::BTreeSet;

use rusqlite::Connection;
use support::agent::python;
use support::rng::Rng;
use support::site::{CONFIG, Site};

const QUEUE: &str =
    "[[database]]\nname = \"sync_queue\"\nkind = \"queue\"\npath = \"/var/lib/pyvorin/sync_queue.db\"\n";

fn ids(path: &std::path::Path) -> BTreeSet<i64> {
    let conn = Connection::open(path).unwrap();
    let mut statement = conn.prepare("SELECT id FROM sync_queue").unwrap();
    statement.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn every_id_is_in_the_new_queue_among_the_rejected_or_in_the_loss_manifest() {
    let (mut lost, mut queues) = (0, 0);
    for seed in support::seeds(1, 24) {
        let site = Site::bare();
        std::fs::write(site.config(), format!("{CONFIG}{QUEUE}")).unwrap();
        let queue = site.data().join("sync_queue.db");
        python(&["queue", queue.to_str().unwrap(), &seed.to_string(), "600"]);
        let before = ids(&queue);
        let mut bytes = std::fs::read(&queue).unwrap();
        let mut rng = Rng::new(seed);
        let pages = bytes.len() / 4096;
        for _ in 0..=rng.below(3) {
            let page = 1 + rng.below(pages - 1);
            rng.fill(&mut bytes[page * 4096..(page + 1) * 4096]);
        }
        std::fs::write(&queue, bytes).unwrap();
        let run = site.run(&["--technician", "T-042", "queue", "repair"]);
        assert_eq!(run.code & !5, 0, "seed {seed}: {}", run.stderr);
        let told = run.json.unwrap();
        let Some(quarantine) = told["quarantine"].as_str() else { continue };
        queues += 1;
        let mut known = ids(&queue);
        let dir = std::path::Path::new(quarantine);
        for line in std::fs::read_to_string(dir.join("rejected.jsonl")).unwrap_or_default().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            known.extend(line["id"].as_i64());
        }
        let missing: BTreeSet<i64> = before.difference(&known).copied().collect();
        lost += missing.len();
        if missing.is_empty() {
            continue;
        }
        let manifest = std::fs::read(dir.join("loss.json"));
        let manifest: serde_json::Value =
            serde_json::from_slice(&manifest.expect("rows are gone and nothing says which")).unwrap();
        let table = manifest["tables"].as_array().unwrap().iter().find(|t| t["table"] == "sync_queue");
        let table = table.unwrap_or_else(|| panic!("seed {seed}: {manifest}"));
        let spans: Vec<(i64, i64)> = ["named", "possible"]
            .iter()
            .flat_map(|kind| table[*kind].as_array().cloned().unwrap_or_default())
            .map(|span| (span[0].as_i64().unwrap(), span[1].as_i64().unwrap()))
            .collect();
        for id in &missing {
            let listed = spans.iter().any(|(from, to)| from <= id && id <= to);
            assert!(listed, "seed {seed}: row {id} is gone and not listed: {table}");
        }
    }
    println!("{queues} damaged queues, {lost} rows gone, each listed by id");
    assert!(lost > 100 && queues > 10, "{lost} rows in {queues} queues");
}
