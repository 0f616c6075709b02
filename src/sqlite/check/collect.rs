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
    /// Each with the page that was being judged, 0 before streaming.
    findings: Vec<(u32, Finding)>,
    /// The page being judged.
    pub judging: u32,
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
        self.findings.push((self.judging, if page == 0 { finding } else { finding.at_page(page) }));
    }

    /// Adds what other workers collected, as if one had judged all their pages in order.
    pub fn merge(&mut self, others: Vec<Self>) {
        let mut findings = Vec::new();
        let mut damaged: BTreeMap<About, BTreeSet<u32>> = BTreeMap::new();
        for other in others {
            findings.extend(other.findings);
            self.dropped += other.dropped;
            for (about, pages) in other.damaged {
                damaged.entry(about).or_default().extend(pages);
            }
        }
        // Stable: the findings of one page come from one worker, in their order.
        findings.sort_by_key(|(judged, _)| *judged);
        let room = MAX_FINDINGS.saturating_sub(self.findings.len());
        self.dropped += findings.len().saturating_sub(room) as u64;
        findings.truncate(room);
        self.findings.append(&mut findings);
        for (about, pages) in damaged {
            let mine = self.damaged.entry(about).or_default();
            let room = MAX_DAMAGED_PAGES.saturating_sub(mine.len());
            let new: Vec<u32> = pages.difference(mine).take(room).copied().collect();
            mine.extend(new);
        }
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
            self.findings.push((self.judging, Finding::new(level, code, text)));
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
    pub fn end(self, trees: &[TreeSpec]) -> (Vec<Finding>, Vec<DamagedObject>) {
        let mut findings: Vec<Finding> = self.findings.into_iter().map(|(_, f)| f).collect();
        if self.dropped > 0 {
            let text = format!("{} more findings are not listed; damaged_objects names all objects", self.dropped);
            findings.push(Finding::new(Level::Error, "more", text));
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
        (findings, objects)
    }
}
