//! Findings and the objects they are about. Never stops at the first; never holds more than a report can use.

use std::collections::{BTreeMap, BTreeSet};

use super::objects::TreeSpec;
use super::{DamagedObject, MAX_DAMAGED_PAGES, ObjectKind};
use crate::sqlite::verdict::{Finding, Level};

/// Findings collected at most: a destroyed file would list every page.
const MAX_FINDINGS: usize = 64;

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    Tree(usize),
    Other(ObjectKind),
}

/// Collects.
#[derive(Default)]
pub(super) struct Collector {
    pub findings: Vec<Finding>,
    /// Findings that no longer fitted.
    dropped: u64,
    damaged: BTreeMap<About, BTreeSet<u32>>,
}

impl Collector {
    /// Notes damage on a page (0: on no page in particular).
    pub fn error(&mut self, about: About, code: &str, page: u32, text: impl FnOnce() -> String) {
        let pages = self.damaged.entry(about).or_default();
        if page != 0 && pages.len() < MAX_DAMAGED_PAGES {
            pages.insert(page);
        }
        if self.findings.len() >= MAX_FINDINGS {
            self.dropped += 1;
            return;
        }
        let finding = Finding::new(Level::Error, code, text());
        self.findings.push(if page == 0 { finding } else { finding.at_page(page) });
    }

    /// Names a page of an object without a finding of its own.
    pub fn name_page(&mut self, about: About, page: u32) {
        let pages = self.damaged.entry(about).or_default();
        if pages.len() < MAX_DAMAGED_PAGES {
            pages.insert(page);
        }
    }

    /// Notes something that is no damage.
    pub fn note(&mut self, level: Level, code: &str, text: String) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(Finding::new(level, code, text));
        }
    }

    /// True when nothing was found about this tree.
    pub fn clean(&self, tree: usize) -> bool {
        !self.damaged.contains_key(&About::Tree(tree))
    }

    /// True when no damage was found at all.
    pub fn sound(&self) -> bool {
        self.damaged.is_empty()
    }

    /// Findings and damaged objects.
    pub fn end(mut self, trees: &[TreeSpec]) -> (Vec<Finding>, Vec<DamagedObject>) {
        if self.dropped > 0 {
            let text = format!("{} more findings are not listed; damaged_objects names all objects", self.dropped);
            self.findings.push(Finding::new(Level::Error, "more", text));
        }
        let mut objects: Vec<DamagedObject> = Vec::new();
        for (about, pages) in self.damaged {
            let (name, kind) = match about {
                About::Tree(t) => match trees.get(t) {
                    Some(spec) => (spec.name.clone(), spec.kind),
                    None => continue,
                },
                About::Other(kind) => (String::new(), kind),
            };
            let pages: Vec<u32> = pages.into_iter().collect();
            objects.push(DamagedObject { name, kind, pages });
        }
        (self.findings, objects)
    }
}
