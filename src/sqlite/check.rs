//! Structure of a database as seen through an [`Overlay`]: findings, never a stop at the first.
//!
//! *Quick* reads the header, the schema, every root page and the freelist head: milliseconds whatever the size.
//! *Full* reads the whole file once, in order ([`pass`]), and accounts for every page and every byte of every b-tree page;
//! it checks records, key order, uniqueness, NOT NULL and types, and compares every index with its table by keyed sums.
//! A full check decodes ten million cells of a store of 500 MB in a second, so what each cell goes through is inlined by
//! order and not by the compiler's guess (measured: a quarter of the time).
//! What needs SQL (CHECK constraints, expressions, collations that an application defines, virtual tables) is named in
//! [`Coverage`] and left to the engine on a copy.

mod accounts;
mod collect;
mod compare;
mod crew;
mod entries;
mod judge;
mod keys;
mod leaves;
mod lists;
mod objects;
mod pages;
mod pass;
mod rows;
mod stream;
mod sums;
mod tally;
mod walk;

use std::io;

use serde::{Deserialize, Serialize};

pub(crate) use accounts::map_entry;
pub use crew::{Alone, Crew};
pub use sums::SumKey;

use super::bytes::be32;
use super::header::{self, Header};
use super::overlay::Overlay;
use super::verdict::{Finding, Level};
use collect::About;
use objects::TreeSpec;
use pages::{Geometry, Tree};
use pass::{Env, Pass};
use sums::Keyed;

/// How far a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Headers, log, schema, root pages, freelist head.
    Quick,
    /// Every page.
    Full,
}

/// One entry of `sqlite_schema`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaEntry {
    /// "table", "index", "view" or "trigger".
    pub kind: String,
    /// Name.
    pub name: String,
    /// Table it belongs to.
    pub table: String,
    /// Root page, 0 for views, triggers and virtual tables.
    pub root: u32,
    /// Its SQL text.
    pub sql: String,
    /// Entries counted by a full check (rows of a table, keys of an index).
    pub entries: Option<u64>,
}

/// What a damaged object is: it decides what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectKind {
    /// A table that holds rows, WITHOUT ROWID ones included: rows may be lost.
    Table,
    /// An index: it can be built again from its table.
    Index,
    /// The header or `sqlite_schema` itself.
    Schema,
    /// The freelist: no rows, but pages that may be given out twice.
    Freelist,
    /// The pointer map of an auto-vacuum database: no rows.
    PointerMap,
    /// Pages that nothing owns: no rows by themselves, though rows that belong somewhere may stand on them.
    Unowned,
}

/// One damaged object and the pages where damage was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedObject {
    /// Name in the schema; empty for what has none.
    pub name: String,
    /// What it is.
    pub kind: ObjectKind,
    /// Pages with damage, ascending, at most [`MAX_DAMAGED_PAGES`].
    pub pages: Vec<u32>,
}

/// Damaged pages kept per object.
pub const MAX_DAMAGED_PAGES: usize = 4096;

/// Something that needs the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegated {
    /// The object.
    pub object: String,
    /// The table to have checked for it; `None`: the texts of the schema alone are in question, no copy is needed.
    pub table: Option<String>,
    /// Why.
    pub reason: String,
}

/// Who looks at which part of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Tables and indexes checked in full from the bytes.
    pub natively: Vec<String>,
    /// What needs the engine on a copy. An object may be in both lists: then only what the reason names is left.
    pub for_engine: Vec<Delegated>,
}

impl Coverage {
    pub(crate) fn delegate(&mut self, object: &str, table: Option<&str>, reason: &str) {
        let (object, table, reason) = (object.to_string(), table.map(str::to_string), reason.to_string());
        self.for_engine.push(Delegated { object, table, reason });
    }
}

/// What the engine said of the parts that were left to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineWord {
    /// Tables it checked ("sqlite_schema": the grammar of the texts of the schema).
    pub checked: Vec<String>,
    /// What it could not check, and why.
    pub unable: Vec<(String, String)>,
    /// Milliseconds it took, the copy included.
    pub elapsed_ms: u64,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Structure {
    /// How far it went.
    pub scope: Scope,
    /// The header seen through the overlay.
    pub header: Option<Header>,
    /// Size in pages.
    pub pages: u32,
    /// Schema entries read.
    pub schema: Vec<SchemaEntry>,
    /// Findings; any of level `error` means damaged.
    pub findings: Vec<Finding>,
    /// The objects that the findings of level `error` are about. Damage of kind `index` alone loses no row.
    #[serde(default)]
    pub damaged: Vec<DamagedObject>,
    /// Which parts were looked at from the bytes, and which need SQL.
    #[serde(default)]
    pub coverage: Coverage,
    /// What the engine said of the rest, where it was asked.
    #[serde(default)]
    pub engine: Option<EngineWord>,
    /// True when the time budget ended a full check early; what was read is then sound as far as it goes.
    pub out_of_time: bool,
}

impl Structure {
    /// True when there is damage, and all of it lies in indexes: they can be made again and no row is lost.
    pub fn only_indexes_damaged(&self) -> bool {
        !self.damaged.is_empty() && self.damaged.iter().all(|o| o.kind == ObjectKind::Index)
    }

    /// True when nothing of level `error` was found.
    pub fn sound(&self) -> bool {
        self.findings.iter().all(|f| f.level != Level::Error)
    }
}

/// Checks a database with a key that is the same for every run: for tests and for files nobody made to deceive us.
/// `may_go_on` is asked now and then during a full check.
pub fn check(source: &Overlay<'_>, scope: Scope, may_go_on: &mut dyn FnMut() -> bool) -> io::Result<Structure> {
    let key = SumKey([0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344]);
    check_keyed(source, scope, key, &Alone, &mut |_, _| may_go_on())
}

/// Checks a database. `key` is the secret of this run for the sums; `crew` does the work. `may_go_on` is told how many
/// pages of how many were read in order (0 before that) and ends the check early by answering false. An error means that
/// not even page 1 could be read; a failed read of any other page is a finding, and the rest is looked at all the same.
pub fn check_keyed(
    source: &Overlay<'_>,
    scope: Scope,
    key: SumKey,
    crew: &dyn Crew,
    may_go_on: &mut dyn FnMut(u32, u32) -> bool,
) -> io::Result<Structure> {
    let mut result = Structure {
        scope,
        header: None,
        pages: source.pages,
        schema: Vec::new(),
        findings: Vec::new(),
        damaged: Vec::new(),
        coverage: Coverage::default(),
        engine: None,
        out_of_time: false,
    };
    let whole = |result: &mut Structure, code: &str, text: String| {
        result.findings.push(Finding::new(Level::Error, code, text).at_page(1));
        result.damaged.push(DamagedObject { name: String::new(), kind: ObjectKind::Schema, pages: vec![1] });
    };
    let first = source.page(1)?;
    let header = match first.as_deref().map(header::parse) {
        Some(Ok(header)) => header,
        Some(Err(fault)) => {
            let text = format!("{}; this is not, or no longer, a SQLite database", fault.describe());
            whole(&mut result, "header-damaged", text);
            return Ok(result);
        }
        None => {
            whole(&mut result, "file-short", "the file is shorter than one page".to_string());
            return Ok(result);
        }
    };
    result.header = Some(header.clone());
    if header.page_size != source.page_size {
        let text =
            format!("the header says {} bytes a page, the file is cut by {}", header.page_size, source.page_size);
        whole(&mut result, "page-size-mismatch", text);
        return Ok(result);
    }
    // As the engine counts: the header's word where it is valid, else the size of the file.
    let counted = header.pages != 0 && header.valid_for == header.change_counter;
    let pages = if counted { header.pages.min(source.pages) } else { source.pages };
    if counted && header.pages > source.pages {
        let text = format!("the header counts {} pages, the file holds {}", header.pages, source.pages);
        whole(&mut result, "file-truncated", text);
    }
    let geometry = Geometry::new(header.page_size - u32::from(header.reserved));
    let schema = entries::read(source, &geometry, header.encoding, &mut || may_go_on(0, pages));
    let (trees, coverage) = objects::plan(&schema.entries, header.schema_format);
    result.schema = schema.entries;
    let env = Env { source, header: &header, geometry, trees, keyed: Keyed::new(key) };
    let mut pass = Pass::new(&env, pages, crew, may_go_on);
    for (page, fault) in schema.faults {
        pass.tally.found.error(About::Other(ObjectKind::Schema), "schema-damaged", page, || fault);
    }
    match scope {
        Scope::Quick => pass.quick(),
        Scope::Full => pass.full(),
    }
    if scope == Scope::Full && !pass.tally.out_of_time {
        for (tree, spec) in env.trees.iter().enumerate() {
            if let Some(entry) = spec.entry.and_then(|i| result.schema.get_mut(i)) {
                entry.entries = pass.tally.counts.get(tree).copied();
            }
        }
        result.coverage = covered(coverage, &env.trees, &pass);
    }
    result.out_of_time = pass.tally.out_of_time;
    let found = std::mem::take(&mut pass.tally.found);
    let (mut findings, mut damaged) = found.end(&env.trees);
    result.findings.append(&mut findings);
    result.damaged.append(&mut damaged);
    Ok(result)
}

/// The coverage as planned, less what turned out on the way to need the engine.
fn covered(mut coverage: Coverage, trees: &[TreeSpec], pass: &Pass<'_, '_>) -> Coverage {
    for (tree, why) in &pass.tally.skipped {
        let Some(spec) = trees.get(*tree) else { continue };
        coverage.natively.retain(|n| *n != spec.name);
        let table = spec.table.and_then(|t| trees.get(t)).unwrap_or(spec);
        coverage.delegate(&spec.name, Some(&table.name), why);
    }
    coverage
}

impl Pass<'_, '_> {
    /// Every page.
    fn full(&mut self) {
        self.fixed();
        self.freelist();
        for tree in 0..self.env.trees.len() {
            self.walk(tree);
        }
        self.stream();
        if self.tally.out_of_time {
            return;
        }
        self.walk_chains();
        self.pointer_maps();
        self.compare();
        self.unused();
        self.text_notes();
    }

    /// Root pages and the freelist head alone.
    fn quick(&mut self) {
        for (tree, spec) in self.env.trees.iter().enumerate() {
            if self.tally.out_of_time
                || !self.claim(About::Tree(tree), spec.root, accounts::Owner::Leaf(tree), &spec.name)
            {
                continue;
            }
            let image = self.read(spec.root).unwrap_or_default();
            let ok =
                Tree::parse(&image, spec.root, &self.env.geometry).is_ok_and(|t| t.kind.is_table() == spec.by_rowid);
            if !ok && !self.tally.out_of_time {
                self.error(tree, "root-page-damaged", spec.root, |name| {
                    format!("the root page of {name} is not a b-tree page of its kind")
                });
            }
        }
        let head = self.env.header.freelist_head;
        let freelist = About::Other(ObjectKind::Freelist);
        if head != 0 && self.claim(freelist, head, accounts::Owner::Trunk, "the freelist") {
            let image = self.read(head).unwrap_or_default();
            let leaves = be32(&image, 4);
            if leaves > u32::try_from(self.env.geometry.usable).unwrap_or(480) / 4 - 2 && !self.tally.out_of_time {
                self.tally.found.error(freelist, "freelist-damaged", head, || {
                    format!("freelist trunk {head} claims {leaves} pages")
                });
            }
        }
    }
}
