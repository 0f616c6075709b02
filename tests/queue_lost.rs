//! A rebuilt queue and the rows that no page holds any more: every id that was there is in the new queue or in a line of
//! `rejected.jsonl`, as a row or in a span of ids that ends; the loss manifest stands beside it. Truth is what the agent's model wrote.
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

fn lines_of(path: &std::path::Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// How many of the ids are in a span of those that are gone; each is in such a span, or in a line of its own.
fn accounted(
    seed: u64,
    before: &BTreeSet<i64>,
    held: Vec<serde_json::Value>,
    rejected: Vec<serde_json::Value>,
) -> usize {
    let known: BTreeSet<i64> = held.iter().chain(&rejected).filter_map(|line| line["id"].as_i64()).collect();
    let ends = |ids: &Vec<serde_json::Value>| (ids[0].as_i64().unwrap(), ids[1].as_i64().unwrap());
    let spans: Vec<(i64, i64)> = rejected.iter().filter_map(|line| line["ids"].as_array().map(ends)).collect();
    let missing: Vec<&i64> = before.difference(&known).collect();
    for id in &missing {
        let listed = spans.iter().any(|(from, to)| from <= *id && *id <= to);
        assert!(listed, "seed {seed}: row {id} is gone and not listed: {spans:?}");
    }
    missing.len()
}

#[test]
fn every_id_is_in_the_new_queue_or_among_the_rejected() {
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
        let file = site.root().join("out.jsonl");
        let run = site.run(&["queue", "export", file.to_str().unwrap()]);
        assert_eq!(run.code & !4, 0, "seed {seed}: {}", run.stderr);
        accounted(seed, &before, lines_of(&file), lines_of(&site.root().join("out.jsonl.rejected")));
        assert!(std::fs::read_dir(site.root()).unwrap().all(|e| !e.unwrap().path().ends_with(".tmp")));
        let run = site.run(&["--technician", "T-042", "queue", "repair"]);
        assert_eq!(run.code & !5, 0, "seed {seed}: {}", run.stderr);
        let told = run.json.unwrap();
        let Some(quarantine) = told["quarantine"].as_str() else { continue };
        queues += 1;
        let rejected = lines_of(&std::path::Path::new(quarantine).join("rejected.jsonl"));
        let held = ids(&queue).into_iter().map(|id| serde_json::json!({ "id": id })).collect();
        let missing = accounted(seed, &before, held, rejected);
        lost += missing;
        if missing == 0 {
            continue;
        }
        let manifest = std::fs::read(told["loss_manifest"].as_str().expect("rows are gone and nothing says which"));
        let manifest: serde_json::Value = serde_json::from_slice(&manifest.unwrap()).unwrap();
        assert!(manifest["tables"].as_array().unwrap().iter().any(|t| t["table"] == "sync_queue"), "{manifest}");
    }
    println!("{queues} damaged queues, {lost} rows gone, each listed by id");
    assert!(lost > 100 && queues > 10, "{lost} rows in {queues} queues");
}
