//! The file allocation table: chains of clusters, followed with every bound and every owner kept in view.
//!
//! All copies are read wherever one is, and must be equal there: a copy that differs means that a write was cut short
//! or that somebody changed one of them, and which one is right cannot be known.

use std::collections::BTreeMap;

use super::boot::{Geometry, Kind};
use super::bytes::{le16, le32};
use super::{Blocks, Code, Extent, Limits, Place, Refusal};

/// Bytes of the table that are read at a time, from each copy.
const PIECE: u64 = 4096;

/// Clusters in a row: the first, and how many.
pub type Run = (u32, u32);

/// How long a chain has to be.
#[derive(Clone, Copy)]
pub enum Need {
    /// This many clusters and not one more: a file.
    Exactly(u32),
    /// At least one and at most this many: a directory, whose size stands nowhere.
    AtMost(u32),
}

/// What may still be spent.
pub struct Budget {
    fragments: u32,
    clusters: u32,
}

impl Budget {
    pub fn new(limits: &Limits) -> Self {
        Self { fragments: limits.fragments, clusters: limits.clusters }
    }
}

enum Next {
    Cluster(u32),
    End,
}

/// The chains of one volume, each cluster of them with one owner.
pub struct Chains<'a> {
    pub device: &'a mut dyn Blocks,
    pub geometry: &'a Geometry,
    budget: &'a mut Budget,
    /// Clusters that have an owner: runs by their first cluster.
    owned: BTreeMap<u32, u32>,
    /// Where in the table `piece` was read; none yet.
    at: Option<u64>,
    piece: Vec<u8>,
}

impl<'a> Chains<'a> {
    pub fn new(device: &'a mut dyn Blocks, geometry: &'a Geometry, budget: &'a mut Budget) -> Self {
        Self { device, geometry, budget, owned: BTreeMap::new(), at: None, piece: Vec::new() }
    }

    /// Follows the chain that begins with `first` and makes its clusters the property of `place`.
    pub fn follow(&mut self, first: u32, need: Need, place: &Place) -> Result<Vec<Run>, Refusal> {
        let refuse = |code: Code, cluster: u32| Err(Refusal::new(code, place.clone(), format!("cluster {cluster}")));
        let most = match need {
            Need::Exactly(n) | Need::AtMost(n) => n,
        };
        let mut runs = Vec::new();
        if !self.geometry.has(first) {
            return refuse(Code::ChainBroken, first);
        }
        let (mut start, mut len, mut count) = (first, 1_u32, 1_u32);
        loop {
            let cluster = start.saturating_add(len - 1);
            self.budget.clusters = match self.budget.clusters.checked_sub(1) {
                Some(left) => left,
                None => return refuse(Code::TooManyClusters, cluster),
            };
            let next = match self.next(cluster, place)? {
                Next::End => break,
                Next::Cluster(next) => next,
            };
            if count >= most {
                let code = if matches!(need, Need::Exactly(_)) { Code::ChainLong } else { Code::DirectoryTooLarge };
                return refuse(code, next);
            }
            count = count.saturating_add(1);
            if next == cluster.saturating_add(1) {
                len = len.saturating_add(1);
            } else {
                self.own(start, len, place)?;
                runs.push((start, len));
                (start, len) = (next, 1);
            }
        }
        self.own(start, len, place)?;
        runs.push((start, len));
        if matches!(need, Need::Exactly(n) if count < n) {
            return refuse(Code::ChainShort, start.saturating_add(len - 1));
        }
        Ok(runs)
    }

    fn next(&mut self, cluster: u32, place: &Place) -> Result<Next, Refusal> {
        let value = self.entry(cluster)?;
        let end = if self.geometry.kind == Kind::Fat16 { 0xFFF8 } else { 0x0FFF_FFF8 };
        if value >= end {
            return Ok(Next::End);
        }
        if self.geometry.has(value) {
            return Ok(Next::Cluster(value));
        }
        let what = match value {
            0 => "free",
            _ if value == end - 1 => "bad",
            _ => "outside the volume",
        };
        let detail = format!("cluster {cluster} leads to {value:#x}, which is {what}");
        Err(Refusal::new(Code::ChainBroken, place.clone(), detail))
    }

    fn entry(&mut self, cluster: u32) -> Result<u32, Refusal> {
        let wide: u64 = if self.geometry.kind == Kind::Fat16 { 2 } else { 4 };
        let at = u64::from(cluster).saturating_mul(wide);
        let piece = at - at % PIECE;
        if self.at != Some(piece) {
            self.read(piece)?;
        }
        let within = usize::try_from(at % PIECE).unwrap_or(0);
        Ok(match self.geometry.kind {
            Kind::Fat16 => le16(&self.piece, within).into(),
            // The four topmost bits belong to nobody.
            Kind::Fat32 => le32(&self.piece, within) & 0x0FFF_FFFF,
        })
    }

    fn read(&mut self, piece: u64) -> Result<(), Refusal> {
        self.at = None;
        let len = usize::try_from(self.geometry.table_len.saturating_sub(piece).min(PIECE)).unwrap_or(0);
        let offset = self.geometry.table.saturating_add(piece);
        self.piece.resize(len, 0);
        self.device.read_at(offset, &mut self.piece).map_err(|e| Refusal::read(Place::Fat, offset, &e))?;
        if self.geometry.copies > 1 {
            let offset = offset.saturating_add(self.geometry.table_len);
            let mut other = vec![0; len];
            self.device.read_at(offset, &mut other).map_err(|e| Refusal::read(Place::Fat, offset, &e))?;
            if let Some(differs) = self.piece.iter().zip(&other).position(|(a, b)| a != b) {
                let at = piece.saturating_add(differs as u64);
                return Err(Refusal::new(Code::CopiesDiffer, Place::Fat, format!("byte {at} of the table")));
            }
        }
        self.at = Some(piece);
        Ok(())
    }

    /// Gives clusters their owner; refused where they have one.
    fn own(&mut self, start: u32, len: u32, place: &Place) -> Result<(), Refusal> {
        self.budget.fragments = match self.budget.fragments.checked_sub(1) {
            Some(left) => left,
            None => return Err(Refusal::new(Code::TooFragmented, place.clone(), "")),
        };
        let end = start.saturating_add(len);
        let before = self.owned.range(..end).next_back();
        if let Some((other, _)) = before.filter(|(other, len)| other.saturating_add(**len) > start) {
            let shared = start.max(*other);
            return Err(Refusal::new(Code::Shared, place.clone(), format!("cluster {shared}")));
        }
        self.owned.insert(start, len);
        Ok(())
    }

    /// Refuses when one of `firsts`, where other chains begin, has an owner.
    pub fn foreign(&self, firsts: &[u32]) -> Result<(), Refusal> {
        let owned =
            |first: u32| self.owned.range(..=first).next_back().is_some_and(|(s, len)| first < s.saturating_add(*len));
        match firsts.iter().find(|first| owned(**first)) {
            Some(first) => Err(Refusal::new(Code::Shared, Place::Root, format!("cluster {first}"))),
            None => Ok(()),
        }
    }

    /// The bytes of whole runs, at most `most` of them.
    pub fn bytes(&mut self, runs: &[Run], most: u32, place: &Place) -> Result<Vec<u8>, Refusal> {
        let mut all = Vec::new();
        for extent in self.extents(runs, u64::from(most)) {
            let from = all.len();
            all.resize(from.saturating_add(usize::try_from(extent.len).unwrap_or(0)), 0);
            let part = all.get_mut(from..).unwrap_or_default();
            self.device.read_at(extent.offset, part).map_err(|e| Refusal::read(place.clone(), extent.offset, &e))?;
        }
        Ok(all)
    }

    /// Where the first `size` bytes of runs lie on the device.
    pub fn extents(&self, runs: &[Run], size: u64) -> Vec<Extent> {
        let mut left = size;
        let mut all = Vec::new();
        for (start, len) in runs {
            let whole = u64::from(*len).saturating_mul(u64::from(self.geometry.cluster));
            let len = whole.min(left);
            if len > 0 {
                all.push(Extent { offset: self.geometry.at(*start), len });
            }
            left -= len;
        }
        all
    }
}
