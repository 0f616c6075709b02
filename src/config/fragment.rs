//! The file as written. A `Section` hands out typed values key by key and remembers which keys it was asked for;
//! `Section::finish` turns the leftovers into faults. So the list of known keys cannot drift from the code that
//! reads them, and a misspelt key is never silently a default.
//!
//! A getter that finds a value of the wrong type or out of range records a fault and returns `None`, exactly as for
//! an absent key: the caller's default is then the one answer to both.

use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Fault;

/// Longest path the kernel accepts (PATH_MAX with its NUL).
const PATH_MAX: usize = 4095;

/// Collects faults, knowing where lines end so that each has its own.
pub(super) struct Faults {
    newlines: Vec<usize>,
    list: Vec<Fault>,
}

impl Faults {
    pub(super) fn new(text: &str) -> Self {
        Self { newlines: text.match_indices('\n').map(|(at, _)| at).collect(), list: Vec::new() }
    }

    /// Records a fault at byte offset `at`.
    pub(super) fn add(&mut self, path: impl Into<String>, at: usize, message: impl Into<String>) {
        let line = 1 + self.newlines.partition_point(|newline| *newline < at);
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        self.list.push(Fault { path: path.into(), line, message: message.into() });
    }

    /// All faults in the order of the file.
    pub(super) fn into_sorted(mut self) -> Vec<Fault> {
        self.list.sort_by(|a, b| (a.line, &a.path, &a.message).cmp(&(b.line, &b.path, &b.message)));
        self.list
    }
}

/// One value with the place it stands at.
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// One table of the file while it is being read.
pub(super) struct Section<'a, 'i> {
    name: String,
    table: Option<&'a DeTable<'i>>,
    known: Vec<&'static str>,
}

impl<'a, 'i> Section<'a, 'i> {
    /// A section that may be absent: every getter then yields `None`.
    pub(super) fn new(name: impl Into<String>, table: Option<&'a DeTable<'i>>) -> Self {
        Self { name: name.into(), table, known: Vec::new() }
    }

    /// True when the file has this section.
    pub(super) fn present(&self) -> bool {
        self.table.is_some()
    }

    /// Renames the section in later faults, once an entry's own name is known.
    pub(super) fn rename(&mut self, name: String) {
        self.name = name;
    }

    /// `section.key`, as faults print it.
    pub(super) fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// The raw value of a key, which is known from now on.
    pub(super) fn get(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.known.push(key);
        self.table?.get(key)
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str, faults: &mut Faults) {
        let found = value.get_ref().type_str();
        faults.add(self.path(key), value.span().start, format!("is a TOML {found}; write {wanted}"));
    }

    /// A string.
    pub(super) fn text(&mut self, key: &'static str, faults: &mut Faults) -> Option<Placed<String>> {
        let value = self.get(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(Placed { value: text.to_owned(), at: value.span().start }),
            None => {
                self.wrong_type(key, value, "a string in quotes", faults);
                None
            }
        }
    }

    /// A string that `accept` turns into a value; its error says what to write instead.
    pub(super) fn checked<T>(
        &mut self,
        key: &'static str,
        faults: &mut Faults,
        accept: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(key, faults)?;
        match accept(&text.value) {
            Ok(value) => Some(value),
            Err(message) => {
                faults.add(self.path(key), text.at, message);
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, faults: &mut Faults, choices: &[(&str, T)]) -> Option<T> {
        self.checked(key, faults, |text| choose(text, choices))
    }

    /// An integer in `range`.
    pub(super) fn integer(
        &mut self,
        key: &'static str,
        faults: &mut Faults,
        range: Range<u32>,
        why: &str,
    ) -> Option<u32> {
        let value = self.get(key)?;
        let Some(number) = value.get_ref().as_integer() else {
            self.wrong_type(key, value, "a whole number without quotes", faults);
            return None;
        };
        let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok().and_then(|n| u32::try_from(n).ok());
        match parsed.filter(|n| range.contains(n)) {
            Some(n) => Some(n),
            None => {
                let (from, to) = (range.start, range.end.saturating_sub(1));
                let message = format!("{} is out of range: {why}; write {from} to {to}", number.as_str());
                faults.add(self.path(key), value.span().start, message);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str, faults: &mut Faults) -> Option<bool> {
        let value = self.get(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_type(key, value, "true or false without quotes", faults);
        }
        flag
    }

    /// A list of strings; an element of another type is a fault and left out.
    pub(super) fn list(&mut self, key: &'static str, faults: &mut Faults) -> Option<Vec<Placed<String>>> {
        let value = self.get(key)?;
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of strings in square brackets", faults);
            return None;
        };
        let mut list = Vec::new();
        for item in items.iter() {
            match item.get_ref().as_str() {
                Some(text) => list.push(Placed { value: text.to_owned(), at: item.span().start }),
                None => self.wrong_type(key, item, "strings in quotes", faults),
            }
        }
        Some(list)
    }

    /// An absolute path.
    pub(super) fn absolute(&mut self, key: &'static str, faults: &mut Faults) -> Option<PathBuf> {
        self.checked(key, faults, absolute)
    }

    /// Ends the section: a key that nobody asked for is a fault that names the nearest known one.
    pub(super) fn finish(self, faults: &mut Faults) {
        for (key, _) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if !self.known.contains(&name) {
                let kind = if self.name.is_empty() { "section" } else { "key" };
                let message = format!("unknown {kind}; {}", nearest(name, &self.known));
                faults.add(self.path(name), key.span().start, message);
            }
        }
    }
}

/// Finds `text` among the choices, or says which ones there are.
pub(super) fn choose<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        format!("{text:?} is not known here; write one of {}", words.join(", "))
    })
}

/// An absolute path, free of `.` and `..`, without a trailing slash, not the root itself: so a prefix can be put
/// before it and it stays below that prefix.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    if !text.starts_with('/') {
        return Err(format!("{text:?} is a relative path; write the path from the root, beginning with /"));
    }
    if text.contains('\0') || text.len() > PATH_MAX {
        return Err(format!("the path has a NUL or more than {PATH_MAX} bytes; write a path that can exist"));
    }
    if text.split('/').any(|part| part == ".." || part == ".") {
        return Err(format!("{text:?} contains . or ..; write the path without detours"));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return Err("/ itself cannot be used; write a path below it".to_owned());
    }
    Ok(PathBuf::from(format!("/{}", parts.join("/"))))
}

/// "did you mean …", or the whole list when nothing is near.
fn nearest(name: &str, known: &[&str]) -> String {
    let near = known.iter().map(|k| (distance(name, k), *k)).min();
    match near {
        Some((d, key)) if d <= 2.max(name.chars().count() / 2) => format!("did you mean {key}?"),
        Some((_, key)) => format!("the nearest known is {key}, of {}", known.join(", ")),
        None => "remove it".to_owned(),
    }
}

/// Edits (insert, delete, replace) between two words. Bounded: a key longer than any of ours is cut first.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (cb, &up) in b.iter().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(ca != *cb)).min(up + 1).min(left + 1);
            diagonal = up;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::{absolute, distance};

    #[test]
    fn distance_counts_single_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("chek_budget_ms", "check_budget_ms"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn a_path_that_could_leave_its_prefix_is_refused() {
        for bad in ["", "a/b", "/a/../b", "/..", "/a/./b", "/", "//", "/a\0b"] {
            assert!(absolute(bad).is_err(), "{bad:?}");
        }
        assert_eq!(absolute("//a//b/").unwrap().to_str(), Some("/a/b"));
        assert_eq!(absolute("/a..b").unwrap().to_str(), Some("/a..b"));
    }
}
