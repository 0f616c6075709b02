//! Named damages, `tests/corpus/<damage>/recipe.toml`: each says how the real engine made the files, how they were
//! injured (`tests/support/injury.rs`), and the verdict that the contract asks for. All of them go through `check`,
//! `check --quick`, `inspect` and `repair` of the program itself, on copies.
//!
//! What holds for every one of them whatever its recipe says: looking changes no byte and no time of change; the exit
//! code is the contract's for the verdict printed; the originals are there after a repair, byte for byte; a second
//! repair finds nothing left to do; no row appears that was not there before; what is claimed complete is.
//!
//! `CORPUS=name cargo test --test corpus -- --nocapture` runs the damages whose name begins so and prints each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::Connection;
use serde::Deserialize;
use support::engine::{self, Rows};
use support::injury::{self, Base, Set};
use support::rng::Rng;
use support::site::{Run, Scratch, Site, Tree, changed};

const DB: &str = "/var/lib/pyvorin/edge_store.db";

/// One `recipe.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    /// What happened, in a sentence.
    about: String,
    /// A base of `bases.toml`.
    base: String,
    /// Further steps behind those of the base.
    #[serde(default)]
    steps: Vec<String>,
    /// Lines of `tests/support/injury.rs`.
    #[serde(default)]
    injuries: Vec<String>,
    /// "directory": one stands where the database should be.
    #[serde(default)]
    instead: Option<String>,
    /// What the real engine makes of the injured files: why this damage matters.
    engine: Engine,
    expect: Expect,
    /// The engine itself cannot read the truth behind these steps (the schema was changed): rows are compared with
    /// `expect.rows` alone.
    #[serde(default)]
    truth_unreadable: bool,
    /// Expectation (its key in `expect`) to the reason why it is not met yet. Printed and counted.
    #[serde(default)]
    known: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Engine {
    /// "ok", "damaged" (integrity_check names something) or "error" (it cannot be read).
    says: String,
    /// Rows it finds, table to count.
    #[serde(default)]
    rows: BTreeMap<String, usize>,
}

/// What the contract asks for. Words may have alternatives: `"unknown|lossy"`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    structure: String,
    completeness: String,
    wal: String,
    /// Codes of findings that must be there.
    #[serde(default)]
    codes: Vec<String>,
    /// Exit code of `check`.
    check: String,
    /// What `repair` does.
    action: String,
    /// Exit code of `repair`.
    repair: String,
    /// Rows afterwards, by the engine; a table that is not named must be as it was.
    #[serde(default)]
    rows: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct Steps {
    steps: Vec<String>,
}

/// Files as their writer left them, an earlier state of them, and the rows that were acknowledged.
struct Made {
    files: Set,
    old: Set,
    truth: Rows,
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> T {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn recipes() -> Vec<(String, Recipe)> {
    let only = std::env::var("CORPUS").unwrap_or_default();
    let mut all: Vec<(String, Recipe)> = std::fs::read_dir(corpus())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_dir())
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), p))
        .filter(|(name, _)| name.starts_with(&only))
        .map(|(name, path)| (name, read(&path.join("recipe.toml"))))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Runs the steps of a base. A step is SQL, or:
/// `!repeat N SQL` once per number, `{n}` standing for it · `!remember` keeps the files as the earlier state ·
/// `!kill` ends the writer as a power cut does · `!close` ends it in order · `!open` begins again ·
/// `!injure LINE` changes the files of an ended writer. A writer that is open at the end is killed.
fn make(steps: &[String]) -> Made {
    let mut place = Scratch::new("corpus");
    let open = |place: &Scratch| Connection::open(place.path().join("live.db")).unwrap();
    let mut conn = Some(open(&place));
    let mut old = Set::default();
    let kill = |place: &mut Scratch, conn: &mut Option<Connection>| {
        let files = Set::read(&place.path().join("live.db"));
        let next = Scratch::new("corpus");
        files.write(&next.path().join("live.db"));
        // The writer goes on in a directory that nobody looks at again.
        drop(conn.take());
        *place = next;
    };
    for step in steps {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        let live = place.path().join("live.db");
        match verb {
            "!remember" => old = Set::read(&live),
            "!kill" => kill(&mut place, &mut conn),
            "!close" => drop(conn.take().map(|c| c.close().unwrap())),
            "!open" => conn = Some(open(&place)),
            "!injure" => {
                let base = Base::new(Set::read(&live), old.clone());
                injury::apply([rest], &base).unwrap().write(&live);
            }
            "!repeat" => {
                let (times, sql) = rest.split_once(' ').unwrap();
                for n in 1..=times.parse().unwrap() {
                    let n: usize = n;
                    let sql = sql.replace("{n}", &n.to_string());
                    conn.as_ref().unwrap().execute_batch(&sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
                }
            }
            _ => {
                let conn = conn.as_ref().expect("the writer is open");
                conn.execute_batch(step).unwrap_or_else(|e| panic!("{step}: {e}"));
            }
        }
    }
    if conn.is_some() {
        kill(&mut place, &mut conn);
    }
    let files = Set::read(&place.path().join("live.db"));
    let truth = look(&files).rows.unwrap_or_default();
    Made { files, old, truth }
}

/// What the engine finds in a copy of files.
struct Look {
    rows: Result<Rows, String>,
    integrity: String,
}

fn look(files: &Set) -> Look {
    let scratch = Scratch::new("look");
    let db = scratch.path().join("copy.db");
    // A wal-index is a hint to us and nothing to the engine after a crash.
    let mut files = files.clone();
    files.0.remove("shm");
    files.write(&db);
    match Connection::open(&db) {
        Err(e) => Look { rows: Err(e.to_string()), integrity: e.to_string() },
        Ok(conn) => Look { rows: engine::rows(&conn).map_err(|e| e.to_string()), integrity: engine::integrity(&conn) },
    }
}

fn says(look: &Look) -> &'static str {
    match (&look.rows, look.integrity.as_str()) {
        (_, i) if i.starts_with("error") => "error",
        (Ok(_), "ok") => "ok",
        (Err(_), "ok") => "error",
        _ => "damaged",
    }
}

fn count(rows: &Rows) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for key in rows.keys() {
        *counts.entry(key.split('/').next().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

/// Makes each base once.
#[derive(Default)]
struct Bases(Mutex<BTreeMap<String, std::sync::Arc<Made>>>);

impl Bases {
    fn get(&self, recipe: &Recipe, all: &BTreeMap<String, Steps>) -> std::sync::Arc<Made> {
        let base = all.get(&recipe.base).unwrap_or_else(|| panic!("there is no base {}", recipe.base));
        if !recipe.steps.is_empty() {
            return std::sync::Arc::new(make(&[base.steps.clone(), recipe.steps.clone()].concat()));
        }
        let mut made = self.0.lock().unwrap();
        made.entry(recipe.base.clone()).or_insert_with(|| std::sync::Arc::new(make(&base.steps))).clone()
    }
}

/// What one damage showed.
#[derive(Default)]
struct Found {
    engine: String,
    wrong: Vec<String>,
    known: BTreeSet<String>,
    healed: BTreeSet<String>,
    line: String,
}

struct Trial<'a> {
    recipe: &'a Recipe,
    found: Found,
}

impl Trial<'_> {
    fn wrong(&mut self, text: impl Into<String>) {
        self.found.wrong.push(text.into());
    }

    /// Compares an expectation, and remembers whether a known miss is still one.
    fn expect(&mut self, key: &str, wanted: &str, got: &str) {
        let met = wanted.split('|').any(|w| w == got);
        match (met, self.recipe.known.get(key)) {
            (true, None) => {}
            (true, Some(_)) => drop(self.found.healed.insert(format!("{key} is {got} now"))),
            (false, Some(why)) => drop(self.found.known.insert(format!("{key}: wanted {wanted}, is {got}: {why}"))),
            (false, None) => self.found.wrong.push(format!("{key}: wanted {wanted}, is {got}")),
        }
    }
}

fn try_one(recipe: &Recipe, made: &Made) -> Found {
    let mut trial = Trial { recipe, found: Found::default() };
    let base = Base::new(made.files.clone(), made.old.clone());
    let files = match injury::apply(recipe.injuries.iter().map(String::as_str), &base) {
        Ok(files) => files,
        Err(why) => return Found { wrong: vec![why], ..Found::default() },
    };
    let site = Site::bare();
    files.write(&site.db());
    if recipe.instead.as_deref() == Some("directory") {
        std::fs::remove_file(site.db()).unwrap();
        std::fs::create_dir(site.db()).unwrap();
    }
    // The peer, on a copy of the same bytes.
    if recipe.instead.is_none() && files.0.contains_key("db") {
        let peer = look(&files);
        trial.found.engine = says(&peer).to_owned();
        if !recipe.engine.says.split('|').any(|w| w == says(&peer)) {
            trial.wrong(format!("the engine says {}: {}", says(&peer), peer.integrity));
        }
        let counts = count(peer.rows.as_ref().unwrap_or(&Rows::new()));
        for (table, rows) in &recipe.engine.rows {
            let got = counts.get(table).copied().unwrap_or(0);
            if got != *rows {
                trial.wrong(format!("the engine finds {got} rows in {table}, the recipe says {rows}"));
            }
        }
        if says(&peer) != "ok" && recipe.expect.structure.contains("sound") && recipe.expect.completeness == "complete"
        {
            trial.wrong("the recipe asks for a verdict that the engine contradicts");
        }
    }
    looks(&mut trial, &site);
    repairs(&mut trial, &site, &files, made);
    trial.found
}

fn looks(trial: &mut Trial<'_>, site: &Site) {
    let expect = &trial.recipe.expect;
    for command in [vec!["check"], vec!["check", "--quick"], vec!["inspect", DB]] {
        let before = site.tree();
        let run = site.run(&command);
        let moved = changed(&before, &site.tree());
        if !moved.is_empty() {
            trial.wrong(format!("{command:?} changed {moved:?}"));
        }
        if run.json.is_none() || run.code & !12 != 0 || run.stderr.contains("panicked") {
            trial.wrong(format!("{command:?}: code {} stderr {:?}", run.code, run.stderr));
            continue;
        }
        if run.json.as_ref().and_then(|j| j["exit"].as_i64()) != Some(i64::from(run.code)) {
            trial.wrong(format!("{command:?}: `exit` in the document is not the exit code"));
        }
        if command.len() == 1 {
            trial.found.line = run.brief();
            trial.expect("structure", &expect.structure, run.text("structure"));
            trial.expect("completeness", &expect.completeness, run.text("completeness"));
            trial.expect("wal", &expect.wal, run.database()["wal"]["state"].as_str().unwrap_or("(none)"));
            trial.expect("check", &expect.check, &run.code.to_string());
            let codes: Vec<String> = run.findings().iter().map(|f| f["code"].as_str().unwrap().to_owned()).collect();
            for wanted in &expect.codes {
                let got = wanted.split('|').find(|w| codes.iter().any(|c| c == w));
                trial.expect("codes", wanted, got.unwrap_or(&codes.join(" ")));
            }
            if let Some(wrong) = contradiction(&run) {
                trial.wrong(wrong);
            }
            if run.text("scope") != "full" {
                trial.wrong("a check without --quick is full");
            }
        } else if command[0] == "inspect" {
            trial.expect("check", &expect.check, &run.code.to_string());
        }
    }
}

/// Exit bits follow from the verdict printed (design contract, section 4).
fn contradiction(run: &Run) -> Option<String> {
    let structure = run.text("structure");
    let error = run.findings().iter().any(|f| f["level"] == "error");
    let left = matches!(structure, "damaged" | "missing") || run.text("completeness") == "lossy";
    let wanted = if structure == "unreadable" { 8 } else { 4 * i32::from(left || error) };
    let unnamed = run.complete() && run.database()["evidence"].as_array().is_none_or(Vec::is_empty);
    match () {
        () if run.code & 12 != wanted => Some(format!("exit {} for this verdict: {}", run.code, run.brief())),
        () if unnamed => Some("complete without named evidence".into()),
        () if structure == "damaged" && !error => Some("damaged without a finding of level error".into()),
        () => None,
    }
}

/// Whether a row (`table/rowid`) is one that the loss manifest of a repair names as not provable.
fn not_provable(run: &Run) -> impl Fn(&str) -> bool + use<> {
    let manifest = std::fs::read(run.text("loss_manifest")).unwrap_or_default();
    let json: serde_json::Value = serde_json::from_slice(&manifest).unwrap_or_default();
    move |key: &str| {
        let Some((table, id)) = key.split_once('/').and_then(|(t, id)| Some((t, id.parse::<i64>().ok()?))) else {
            return false;
        };
        let tables = json["tables"].as_array().cloned().unwrap_or_default();
        tables.iter().filter(|t| t["table"] == table).any(|t| {
            let spans = t["not_provable"].as_array().cloned().unwrap_or_default();
            spans.iter().any(|s| s[0].as_i64() <= Some(id) && Some(id) <= s[1].as_i64())
        })
    }
}

fn repairs(trial: &mut Trial<'_>, site: &Site, files: &Set, made: &Made) {
    let expect = &trial.recipe.expect;
    let run = site.run(&["repair"]);
    if run.json.is_none() || run.code & !13 != 0 || run.stderr.contains("panicked") {
        trial.wrong(format!("repair: code {} stderr {:?}", run.code, run.stderr));
        return;
    }
    let action = run.text("action").to_owned();
    trial.found.line.push_str(&format!(" · {action} {}", run.code));
    trial.expect("action", &expect.action, &action);
    trial.expect("repair", &expect.repair, &run.code.to_string());
    let after = site.tree();
    for (word, bytes) in files.0.iter().filter(|(_, b)| !b.is_empty() && trial.recipe.instead.is_none()) {
        // The index is made anew by whoever opens the database; it is kept where something is repaired.
        if (word != "shm" || action != "none") && !holds(&after, bytes) {
            trial.wrong(format!("the original {word} is gone after repair"));
        }
    }
    let done = !matches!(action.as_str(), "left" | "none");
    if !done && Set::read(&site.db()) != *files && trial.recipe.instead.is_none() {
        trial.wrong(format!("repair says {action} and has changed the files"));
    }
    if done {
        let result = look(&Set::read(&site.db()));
        let rows = result.rows.clone().unwrap_or_default();
        if says(&result) != "ok" {
            trial.wrong(format!("after repair the engine says {}", result.integrity));
        }
        let doubted = not_provable(&run);
        let foreign: Vec<&String> = rows
            .iter()
            .filter(|(k, v)| made.truth.get(*k) != Some(v))
            .map(|(k, _)| k)
            .filter(|k| !k.starts_with("lost_and_found") && !doubted(k) && !trial.recipe.truth_unreadable)
            .collect();
        if !foreign.is_empty() {
            trial.wrong(format!(
                "{} rows that were never there: {:?}",
                foreign.len(),
                &foreign[..foreign.len().min(3)]
            ));
        }
        if run.complete() && rows != made.truth {
            trial.wrong(format!("called complete with {} of {} rows", rows.len(), made.truth.len()));
        }
        let (mut got, mut wanted) = (count(&rows), count(&made.truth));
        got.retain(|table, _| table != "lost_and_found");
        if trial.recipe.truth_unreadable {
            wanted.clear();
        }
        wanted.extend(expect.rows.clone());
        wanted.retain(|_, n| *n > 0);
        trial.expect("rows", &format!("{wanted:?}"), &format!("{got:?}"));
    }
    // Once more: nothing is left to do, and nothing is done.
    let data = |site: &Site| support::site::tree(&site.data());
    let before = data(site);
    let again = site.run(&["repair"]);
    if !matches!(again.text("action"), "none" | "left") || (done && again.text("action") != "none") {
        trial.wrong(format!("a second repair did something: {}", again.brief()));
    }
    let moved = changed(&before, &data(site));
    if !moved.is_empty() {
        trial.wrong(format!("a second repair changed {moved:?}"));
    }
}

fn holds(tree: &Tree, bytes: &[u8]) -> bool {
    tree.values().any(|entry| entry.0 == 'f' && entry.4 == bytes)
}

#[test]
fn every_named_damage_gets_the_verdict_and_the_repair_of_the_contract() {
    let (all, bases) = (recipes(), Bases::default());
    let steps: BTreeMap<String, Steps> = read(&corpus().join("bases.toml"));
    let (next, results) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((name, recipe)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = try_one(recipe, &bases.get(recipe, &steps));
                    results.lock().unwrap().insert(name.clone(), found);
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    let verbose = std::env::var_os("CORPUS").is_some();
    for ((name, found), (_, recipe)) in results.iter().zip(&all) {
        assert!(recipe.about.len() >= 20, "{name}: `about` says too little");
        if verbose {
            println!("{name}: engine {} · {}", found.engine, found.line);
        }
        found.known.iter().for_each(|text| println!("known: {name}: {text}"));
        found.healed.iter().for_each(|text| println!("no longer known, to be removed: {name}: {text}"));
        if !found.wrong.is_empty() {
            println!("{name}: {}\n  {}", found.line, found.wrong.join("\n  "));
        }
    }
    let sum = |of: fn(&Found) -> usize| results.values().map(of).sum::<usize>();
    let wrong = results.values().filter(|f| !f.wrong.is_empty()).count();
    println!(
        "{} named damages: {wrong} wrong, {} known misses, {} healed",
        results.len(),
        sum(|f| f.known.len()),
        sum(|f| f.healed.len())
    );
    assert!(std::env::var_os("CORPUS").is_some() || all.len() >= 60, "only {} damages", all.len());
    assert_eq!(wrong, 0, "damages with another verdict than the contract's");
}

/// What is printed is what happens: parsed from its own line, an injury does the same.
#[test]
fn an_injury_can_be_applied_again_from_its_line() {
    let steps: BTreeMap<String, Steps> = read(&corpus().join("bases.toml"));
    let (mut kinds, mut changed) = (BTreeSet::new(), 0);
    for (i, name) in ["readings", "log", "vacuum", "journal"].into_iter().enumerate() {
        let made = make(&steps[name].steps);
        let base = Base::new(made.files, made.old);
        for seed in support::seeds(1000 * i as u64, 150) {
            let injury = injury::random(&mut Rng::new(seed), &base);
            assert_eq!(injury, injury::random(&mut Rng::new(seed), &base), "seed {seed}");
            let line = injury.to_string();
            let (mut one, mut two) = (base.files.clone(), base.files.clone());
            injury.apply(&mut one, &base).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            line.parse::<injury::Injury>().unwrap().apply(&mut two, &base).unwrap();
            assert_eq!(one, two, "seed {seed}: {line}");
            changed += usize::from(one != base.files);
            kinds.insert(
                line.split(' ').filter(|w| w.chars().all(|c| c.is_alphabetic() || c == '-')).collect::<String>(),
            );
        }
    }
    println!("600 injuries of {} kinds, {changed} of which change something", kinds.len());
    assert!(kinds.len() > 60 && changed > 500, "{} kinds, {changed} changes", kinds.len());
}
