//! Reports put into files that were made for them: in place, at their fixed size, padded with newlines.
//!
//! No byte of a table, a directory or another file changes, so the volume is as sound afterwards as it was before,
//! whenever the stick is pulled. What could break is the report alone, and therefore the order is
//!
//! 1. everything is planned: each file is there, is large enough, and its clusters are its own;
//! 2. the first sector is replaced by a sentence that says "not complete", and synced. Without this an old head could
//!    stand over a new body and call the mixture complete;
//! 3. the body, synced;
//! 4. the first sector, synced: a sector is written whole or not at all, so the report is complete if and only if its
//!    head is there.
//!
//! A valid ticket says nothing about the file system around it, so the plan trusts no more than reading does: it is
//! made from a [`Contents`], in the process that writes, and a stick that shows two faces between plan and write is
//! held to the extents of the plan.

use super::boot::Kind;
use super::bytes::{le16, le32};
use super::{Blocks, BlocksMut, Code, Contents, Extent, File, Place, Refusal, in_directory};

/// What stands at the head of a report while it is written, and for ever after if the stick is pulled then.
pub const INCOMPLETE: &str = "This report is not complete: the stick was removed while it was written.\n";
/// Largest file that is taken for a slot.
pub const LARGEST_SLOT: u64 = 8 << 20;
/// Most clusters of a volume that is written to; the table is read as a whole then, and 64 MiB of it take seconds.
const MOST_CLUSTERS: u32 = 16 << 20;
/// Bytes of the table read at a time.
const PIECE: usize = 64 << 10;
/// Valid at the end of text, JSON and HTML.
const PADDING: u8 = b'\n';

/// A report and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    file: File,
    /// As long as the file.
    bytes: Vec<u8>,
    /// Bytes that are written last: a sector, or the whole of a shorter file. A cluster is no smaller than a sector, so
    /// they lie in a row.
    head: usize,
}

/// Reports ready to be written: nothing that follows can be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overwrite {
    slots: Vec<Slot>,
}

impl Overwrite {
    /// Plans to write `reports`, (name, bytes) in the order of writing. All or nothing. Reads the allocation table once,
    /// all of it: no other chain may lead into one of the files.
    pub fn plan(device: &mut dyn Blocks, contents: &Contents, reports: &[(&str, &[u8])]) -> Result<Self, Refusal> {
        let mut slots: Vec<Slot> = Vec::new();
        for (name, bytes) in reports {
            let refuse = |code, detail: String| {
                Err(Refusal::new(code, in_directory(name), detail).on(contents.partition.number))
            };
            let Some(file) = contents.file(name) else { return refuse(Code::NoFile, String::new()) };
            if slots.iter().any(|slot| slot.file == *file) {
                return refuse(Code::NameTwice, String::new());
            }
            if file.size > LARGEST_SLOT {
                return refuse(Code::FileTooLarge, format!("{} bytes, at most {LARGEST_SLOT}", file.size));
            }
            if bytes.len() as u64 > file.size {
                return refuse(Code::SlotTooSmall, format!("{} bytes for {}", bytes.len(), file.size));
            }
            let size = usize::try_from(file.size).unwrap_or(0);
            let mut padded = bytes.to_vec();
            padded.resize(size, PADDING);
            let head = usize::try_from(contents.geometry.sector).unwrap_or(512).min(size);
            slots.push(Slot { file: file.clone(), bytes: padded, head });
        }
        alone(device, contents, &slots).map_err(|refusal| refusal.on(contents.partition.number))?;
        Ok(Self { slots })
    }

    /// Everything that will be written to, in order.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        self.slots.iter().flat_map(|slot| slot.file.extents.iter().copied())
    }

    /// Writes one report after the other, each durable before the next begins.
    pub fn write(&self, device: &mut dyn BlocksMut) -> Result<(), Refusal> {
        for slot in &self.slots {
            let notice = INCOMPLETE.bytes().chain(std::iter::repeat(PADDING)).take(slot.head).collect::<Vec<_>>();
            slot.put(device, 0, &notice)?;
            slot.put(device, slot.head, slot.bytes.get(slot.head..).unwrap_or_default())?;
            slot.put(device, 0, slot.bytes.get(..slot.head).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Reads everything back; the caller sees to it that it comes from the device and not from a cache.
    pub fn verify(&self, device: &mut dyn BlocksMut) -> Result<(), Refusal> {
        for slot in &self.slots {
            let place = in_directory(&slot.file.name);
            let mut done = 0_usize;
            for extent in &slot.file.extents {
                let mut read = vec![0; usize::try_from(extent.len).unwrap_or(0)];
                device
                    .read_at(extent.offset, &mut read)
                    .map_err(|e| Refusal::read(place.clone(), extent.offset, &e))?;
                if slot.bytes.get(done..done.saturating_add(read.len())) != Some(read.as_slice()) {
                    return Err(Refusal::new(Code::ReadBack, place, format!("byte {}", extent.offset)));
                }
                done = done.saturating_add(read.len());
            }
        }
        Ok(())
    }
}

impl Slot {
    /// Writes `bytes` from byte `from` of the file, and syncs.
    fn put(&self, device: &mut dyn BlocksMut, from: usize, bytes: &[u8]) -> Result<(), Refusal> {
        let place = || in_directory(&self.file.name);
        let (mut skip, mut rest) = (from as u64, bytes);
        for extent in &self.file.extents {
            if skip >= extent.len {
                skip -= extent.len;
                continue;
            }
            let n = usize::try_from(extent.len - skip).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at(n);
            if now.is_empty() {
                break;
            }
            let offset = extent.offset.saturating_add(skip);
            device.write_at(offset, now).map_err(|e| Refusal::write(place(), offset, &e))?;
            (skip, rest) = (0, later);
        }
        device.sync().map_err(|e| Refusal::new(Code::Unwritable, Place::Device, e.to_string()))
    }
}

/// Clusters in a row that are to be written: first, last, and the only one that may lead to the first.
type Target = (u32, u32, Option<u32>);

fn targets(contents: &Contents, file: &File) -> Vec<Target> {
    let geometry = &contents.geometry;
    let cluster = u64::from(geometry.cluster.max(1));
    let mut before = None;
    let mut all = Vec::new();
    for extent in &file.extents {
        let number = |at: u64| u32::try_from(at.saturating_sub(geometry.data) / cluster).unwrap_or(u32::MAX);
        let first = number(extent.offset).saturating_add(2);
        let last = number(extent.offset.saturating_add(extent.len.saturating_sub(1))).saturating_add(2);
        all.push((first, last, before));
        before = Some(last);
    }
    all
}

/// Holds every entry of the table against what is to be written: a chain of some other file, anywhere on the volume,
/// that runs into these clusters would have its data destroyed.
fn alone(device: &mut dyn Blocks, contents: &Contents, slots: &[Slot]) -> Result<(), Refusal> {
    let geometry = &contents.geometry;
    if geometry.clusters > MOST_CLUSTERS {
        let detail = format!("{} on the volume", geometry.clusters);
        return Err(Refusal::new(Code::TooManyClusters, Place::Fat, detail));
    }
    let mut all: Vec<Target> = slots.iter().flat_map(|slot| targets(contents, &slot.file)).collect();
    all.sort_unstable();
    let (Some(low), Some(high)) = (all.first().map(|t| t.0), all.last().map(|t| t.1)) else { return Ok(()) };
    let wide: usize = if geometry.kind == Kind::Fat16 { 2 } else { 4 };
    let entries = usize::try_from(geometry.clusters).unwrap_or(0).saturating_add(2);
    let mut left = entries.saturating_mul(wide);
    let (mut offset, mut cluster) = (geometry.table, 0_u32);
    let mut buffer = vec![0; PIECE];
    while left > 0 {
        let piece = buffer.get_mut(..left.min(PIECE)).unwrap_or_default();
        device.read_at(offset, piece).map_err(|e| Refusal::read(Place::Fat, offset, &e))?;
        (offset, left) = (offset.saturating_add(piece.len() as u64), left - piece.len());
        for entry in piece.chunks_exact(wide) {
            let to = if wide == 2 { u32::from(le16(entry, 0)) } else { le32(entry, 0) & 0x0FFF_FFFF };
            if (low..=high).contains(&to) && cluster >= 2 && leads_astray(&all, cluster, to) {
                let detail = format!("cluster {cluster} leads to {to}, which is to be written");
                return Err(Refusal::new(Code::Shared, Place::Fat, detail));
            }
            cluster = cluster.saturating_add(1);
        }
    }
    Ok(())
}

fn leads_astray(all: &[Target], from: u32, to: u32) -> bool {
    let Some((first, last, before)) = all.partition_point(|t| t.0 <= to).checked_sub(1).and_then(|i| all.get(i)) else {
        return false;
    };
    to <= *last && if to == *first { Some(from) != *before } else { from.saturating_add(1) != to }
}
