//! Increments: the pages of a database that changed since its full backup.
//!
//! ```text
//! member   "PYVPAGES" | version 1 | page size | pages of the base | pages | number of records      (u32 each, big-endian)
//!          | SHA-256 of the base | SHA-256 of the result | records: page number, page
//! index    "PYVINDEX" | version 1 | page size | pages | key, 32 bytes | SHA-256 of the database | tags, 16 bytes each
//!          | SHA-256 of everything before
//! ```
//!
//! The device keeps the index of the last full backup and nothing of its contents: a tag is the first half of SHA-256
//! over the index's own random key, the page number and the page. Without the key, which is made anew with every full backup
//! and stands only there, a tag tells nothing that could be compared with anything; 128 bits make an overlooked change
//! less likely than a misread sector.

use sha2::{Digest, Sha256};

use super::refusal::{Code, Refusal};

const MAGIC: &[u8; 8] = b"PYVPAGES";
const INDEX_MAGIC: &[u8; 8] = b"PYVINDEX";
const VERSION: u32 = 1;
/// Bytes before the records.
pub const HEAD: usize = 8 + 5 * 4 + 64;
const INDEX_HEAD: usize = 8 + 3 * 4 + 64;
const TAG: usize = 16;

/// What stands before the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes in a page.
    pub page_size: u32,
    /// Pages of the base.
    pub base_pages: u32,
    /// Pages of the result.
    pub pages: u32,
    /// Records.
    pub changed: u32,
    /// SHA-256 of the base.
    pub base: [u8; 32],
    /// SHA-256 of the result.
    pub result: [u8; 32],
}

impl Head {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for n in [VERSION, self.page_size, self.base_pages, self.pages, self.changed] {
            bytes.extend_from_slice(&n.to_be_bytes());
        }
        bytes.extend_from_slice(&self.base);
        bytes.extend_from_slice(&self.result);
        bytes
    }

    /// Bytes of the whole member.
    #[must_use]
    pub fn len(&self) -> u64 {
        HEAD as u64 + u64::from(self.changed) * u64::from(self.record())
    }

    /// True when nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed == 0
    }

    /// Bytes of a record.
    #[must_use]
    pub fn record(&self) -> u32 {
        self.page_size + 4
    }

    /// Reads one; `len` is that of the whole member.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8], len: u64) -> Result<Self, Refusal> {
        let bad = |text: &str| Refusal::new(Code::BadPages, text);
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| bad("changed pages do not begin as such a file does"))?;
        let word = |n: usize| rest.get(4 * n..4 * n + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
        let digest = |at: usize| rest.get(at..at + 32).and_then(|b| b.try_into().ok());
        let numbers = (word(0), word(1), word(2), word(3), word(4));
        let (Some(version), Some(page_size), Some(base_pages), Some(pages), Some(changed)) = numbers else {
            return Err(bad("changed pages end within their head"));
        };
        let (Some(base), Some(result)) = (digest(20), digest(52)) else {
            return Err(bad("changed pages end within their head"));
        };
        if version != VERSION {
            return Err(Refusal::new(Code::Newer, format!("changed pages of version {version}")));
        }
        let head = Self { page_size, base_pages, pages, changed, base, result };
        if !(512..=65_536).contains(&page_size) || !page_size.is_power_of_two() || changed > pages || head.len() != len
        {
            return Err(bad("the head of the changed pages contradicts itself"));
        }
        Ok(head)
    }
}

/// The tags of a database's pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Bytes in a page.
    pub page_size: u32,
    /// SHA-256 of the database.
    pub sha256: [u8; 32],
    key: [u8; 32],
    tags: Vec<u8>,
}

impl Index {
    /// One without pages, under a key that is random.
    #[must_use]
    pub fn new(page_size: u32, key: [u8; 32]) -> Self {
        Self { page_size, sha256: [0; 32], key, tags: Vec::new() }
    }

    /// Number of pages.
    #[must_use]
    pub fn pages(&self) -> u32 {
        u32::try_from(self.tags.len() / TAG).unwrap_or(u32::MAX)
    }

    /// Adds the next page.
    pub fn push(&mut self, page: &[u8]) {
        let tag = self.tag(self.pages() + 1, page);
        self.tags.extend_from_slice(&tag);
    }

    /// True when page `number` (from 1) is not the one that was indexed.
    #[must_use]
    pub fn changed(&self, number: u32, page: &[u8]) -> bool {
        let at = TAG * (number as usize).saturating_sub(1);
        self.tags.get(at..at + TAG) != Some(self.tag(number, page).as_slice())
    }

    fn tag(&self, number: u32, page: &[u8]) -> [u8; TAG] {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(number.to_be_bytes());
        hash.update(page);
        let whole: [u8; 32] = hash.finalize().into();
        let mut tag = [0; TAG];
        tag.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
        tag
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(INDEX_HEAD + self.tags.len() + 32);
        bytes.extend_from_slice(INDEX_MAGIC);
        for n in [VERSION, self.page_size, self.pages()] {
            bytes.extend_from_slice(&n.to_be_bytes());
        }
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(&self.sha256);
        bytes.extend_from_slice(&self.tags);
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    /// Reads one; `None` when it is damaged or of another version: the next backup is a full one then.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        if Sha256::digest(body).as_slice() != sum {
            return None;
        }
        let rest = body.strip_prefix(INDEX_MAGIC)?;
        let word = |n: usize| rest.get(4 * n..4 * n + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
        let (version, page_size, pages) = (word(0)?, word(1)?, word(2)?);
        let key = rest.get(12..44)?.try_into().ok()?;
        let sha256 = rest.get(44..76)?.try_into().ok()?;
        let tags = rest.get(76..)?.to_vec();
        let whole = version == VERSION && tags.len() == TAG * pages as usize;
        whole.then_some(Self { page_size, sha256, key, tags })
    }
}

#[cfg(test)]
mod tests {
    use super::{Head, Index};

    #[test]
    fn an_index_finds_every_changed_page_and_no_other() {
        let pages: Vec<Vec<u8>> = (0..50_u8).map(|n| vec![n; 512]).collect();
        let mut index = Index::new(512, [7; 32]);
        pages.iter().for_each(|p| index.push(p));
        let read = Index::parse(&index.encode());
        assert_eq!(read.as_ref(), Some(&index));
        for (n, page) in (1..).zip(&pages) {
            assert!(!index.changed(n, page));
            let mut other = page.clone();
            other.iter_mut().take(1).for_each(|b| *b ^= 1);
            assert!(index.changed(n, &other) && index.changed(n + 1, page));
        }
        let mut bytes = index.encode();
        for at in (0..bytes.len()).step_by(7) {
            bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 4);
            assert_eq!(Index::parse(&bytes), None, "{at}");
            bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 4);
        }
    }

    #[test]
    fn a_head_is_read_back_and_a_contradicting_one_refused() {
        let head = Head { page_size: 512, base_pages: 9, pages: 10, changed: 3, base: [1; 32], result: [2; 32] };
        let bytes = head.encode();
        assert_eq!(Head::parse(&bytes, head.len()), Ok(head.clone()));
        assert!(Head::parse(&bytes, head.len() + 1).is_err());
        assert!((0..bytes.len()).all(|n| Head::parse(bytes.get(..n).unwrap_or_default(), head.len()).is_err()));
    }
}
