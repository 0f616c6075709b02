//! From a device to the files in our directory: every partition is looked at, and exactly one may have the directory.

use std::collections::BTreeSet;

use super::boot::{self, Root};
use super::chain::{Budget, Chains, Need};
use super::dir::{self, ENTRY, Entry};
use super::table::{self, Partition};
use super::{Blocks, Code, Contents, DIRECTORY, File, Limits, Place, Refusal, name};

/// What each partition of a device turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// In the order of the table.
    pub partitions: Vec<(Partition, Result<Contents, Refusal>)>,
}

impl Survey {
    /// The one volume with our directory. Several are refused; none is told by the refusal that explains most.
    pub fn one(self) -> Result<Contents, Refusal> {
        let mut found = None;
        let mut why = Refusal::new(Code::NotRecognised, Place::Device, "");
        for (partition, looked) in self.partitions {
            match looked {
                Ok(contents) => {
                    let Some(first) = found.replace(contents) else { continue };
                    let detail = format!("partitions {} and {}", first.partition.number, partition.number);
                    return Err(Refusal::new(Code::SeveralDirectories, Place::Device, detail));
                }
                Err(refusal) if refusal.weight() >= why.weight() => why = refusal,
                Err(_) => {}
            }
        }
        found.ok_or(why)
    }
}

/// Looks at every partition of a device; the limits hold for all of them together.
pub fn survey(device: &mut dyn Blocks, limits: &Limits) -> Result<Survey, Refusal> {
    let mut budget = Budget::new(limits);
    let all = table::partitions(device)?;
    let look = |partition: Partition| (partition, within(device, &partition, limits, &mut budget));
    Ok(Survey { partitions: all.into_iter().map(look).collect() })
}

/// Looks at one partition.
pub fn open(device: &mut dyn Blocks, partition: &Partition, limits: &Limits) -> Result<Contents, Refusal> {
    within(device, partition, limits, &mut Budget::new(limits))
}

fn within(
    device: &mut dyn Blocks,
    partition: &Partition,
    limits: &Limits,
    budget: &mut Budget,
) -> Result<Contents, Refusal> {
    let number = partition.number;
    let geometry = boot::read(device, partition).map_err(|r| r.on(number))?;
    let mut chains = Chains::new(device, &geometry, budget);
    let files = files(&mut chains, limits).map_err(|r| r.on(number))?;
    Ok(Contents { partition: *partition, geometry, files })
}

fn files(chains: &mut Chains<'_>, limits: &Limits) -> Result<Vec<File>, Refusal> {
    let kind = chains.geometry.kind;
    let longest = Need::AtMost((limits.directory / chains.geometry.cluster).max(1));
    let (root, root_cluster) = match chains.geometry.root {
        Root::Fixed { offset, len } => {
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            chains.device.read_at(offset, &mut bytes).map_err(|e| Refusal::read(Place::Root, offset, &e))?;
            (bytes, None)
        }
        Root::Cluster(first) => {
            let runs = chains.follow(first, longest, &Place::Root)?;
            (chains.bytes(&runs, limits.directory, &Place::Root)?, Some(first))
        }
    };
    let (first, others) = find(&root, kind)?;
    drop(root);
    let runs = chains.follow(first, longest, &Place::Directory)?;
    let bytes = chains.bytes(&runs, limits.directory, &Place::Directory)?;
    dir::dots(&bytes, kind, first, root_cluster)?;

    let entries = listed(bytes.get(2 * ENTRY..).unwrap_or_default(), kind, limits)?;
    let mut files = Vec::new();
    for entry in entries {
        let place = Place::File(entry.name.clone());
        if entry.directory {
            // Not descended into, but its clusters have an owner.
            chains.follow(entry.first, longest, &place)?;
            continue;
        }
        let clusters = entry.size.div_ceil(chains.geometry.cluster);
        let runs = match (clusters, entry.first) {
            (0, 0) => Vec::new(),
            (0, first) => return Err(Refusal::new(Code::ChainLong, place, format!("cluster {first}"))),
            (_, 0) => return Err(Refusal::new(Code::ChainShort, place, "no cluster")),
            (clusters, first) => chains.follow(first, Need::Exactly(clusters), &place)?,
        };
        let size = u64::from(entry.size);
        files.push(File { name: entry.name, size, extents: chains.extents(&runs, size) });
    }
    chains.foreign(&others)?;
    Ok(files)
}

/// First cluster of our directory, by the root directory; and those of its other entries.
fn find(root: &[u8], kind: boot::Kind) -> Result<(u32, Vec<u32>), Refusal> {
    let wanted = name::fold(DIRECTORY);
    let mut found: Option<Entry> = None;
    let mut others = Vec::new();
    dir::each(root, kind, &Place::Root, &mut |entry| {
        if name::fold(&entry.name) != wanted {
            others.push(entry.first);
        } else if found.replace(entry).is_some() {
            return Err(Refusal::new(Code::NameTwice, Place::Root, DIRECTORY));
        }
        Ok(())
    })?;
    match found {
        None => Err(Refusal::new(Code::NoDirectory, Place::Root, "")),
        Some(entry) if !entry.directory => Err(Refusal::new(Code::NotADirectory, Place::Root, "")),
        Some(entry) => Ok((entry.first, others)),
    }
}

/// The entries of our directory. Long and short names live in one space: either may be asked for.
fn listed(bytes: &[u8], kind: boot::Kind, limits: &Limits) -> Result<Vec<Entry>, Refusal> {
    let most = usize::try_from(limits.files).unwrap_or(usize::MAX);
    let mut names = BTreeSet::new();
    let mut all = Vec::new();
    dir::each(bytes, kind, &Place::Directory, &mut |entry| {
        if all.len() >= most {
            return Err(Refusal::new(Code::TooManyFiles, Place::Directory, format!("more than {most}")));
        }
        let (long, short) = (name::fold(&entry.name), name::fold(&entry.short));
        let twice = (long != short && !names.insert(short)) || !names.insert(long);
        if twice {
            return Err(Refusal::new(Code::NameTwice, Place::File(entry.name.clone()), ""));
        }
        all.push(entry);
        Ok(())
    })?;
    Ok(all)
}
