//! Page size and byte order of a log whose header is gone, and what frame 1 proves about that header.

use std::io;

use super::fix::{solve, step};
use super::{FRAME_HEADER, HEADER, Sum, frame_sum, sum, unsum};
use crate::sqlite::bytes::be32;
use crate::sqlite::header::valid_page_size;
use crate::sqlite::{ReadAt, read_vec};

/// Page size and byte order by trial: the pair under which a frame links to its predecessor earliest in the file. A
/// single link is 64 bits of proof; the earliest belongs to the newest generation, whatever stands behind it.
pub(super) fn guess(file: &dyn ReadAt, hint: Option<u32>) -> io::Result<(u32, bool)> {
    let sample = read_vec(file, 0, 1 << 20)?;
    let fallback = hint.filter(|s| valid_page_size(*s)).unwrap_or(4096);
    let mut best = (usize::MAX, (fallback, false));
    let mut sizes = vec![fallback];
    sizes.extend((9..=16).map(|bits| 1_u32 << bits).filter(|s| *s != fallback));
    for page_size in sizes.iter().copied() {
        for big_endian in [false, true] {
            if let Some(at) = first_link(&sample, page_size, big_endian).filter(|at| *at < best.0) {
                best = (at, (page_size, big_endian));
            }
        }
    }
    if best.0 == usize::MAX && file.size() > sample.len() as u64 {
        return spread(file, &sizes);
    }
    Ok(best.1)
}

/// Places looked at when nothing at the head verifies: a card erases blocks of megabytes.
const PLACES: u64 = 48;

/// The geometry under which most of some pairs of neighbours, spread over the whole file, verify.
fn spread(file: &dyn ReadAt, sizes: &[u32]) -> io::Result<(u32, bool)> {
    let mut best = (0, (sizes.first().copied().unwrap_or(4096), false));
    for page_size in sizes {
        let slot = FRAME_HEADER + u64::from(*page_size);
        let count = file.size().saturating_sub(HEADER) / slot;
        let len = usize::try_from(slot).unwrap_or(usize::MAX);
        let mut links = [0_u32; 2];
        for i in 0..PLACES.min(count) {
            let at = HEADER + count.saturating_sub(2) * i / PLACES.min(count) * slot;
            let pair = read_vec(file, at, len.saturating_mul(2))?;
            let (Some(first), Some(second)) = (pair.get(..len), pair.get(len..)) else { continue };
            let (seed, stored) = ([be32(first, 16), be32(first, 20)], [be32(second, 16), be32(second, 20)]);
            for (big_endian, count) in [false, true].into_iter().zip(&mut links) {
                let linked = second.len() == len && frame_sum(big_endian, seed, second) == stored;
                *count += u32::from(linked && be32(second, 0) != 0 && stored != [0, 0]);
            }
        }
        for (big_endian, count) in [false, true].into_iter().zip(links) {
            if count > best.0 {
                best = (count, (*page_size, big_endian));
            }
        }
    }
    Ok(best.1)
}

/// The header's checksum, proved by frame 1: the sum is run backwards through the frame, and what comes out must be the
/// sum of a header with this geometry and the frame's salts, whatever its checkpoint number. 64 bits are given and 32
/// are free, so a frame that is not the first, or not whole, passes once in about four thousand million. The exception:
/// a flip of the topmost bit of one word looks like another checkpoint number one time in three, and with the header
/// gone nothing tells the two apart.
pub(super) fn proved_seed(page_size: u32, big_endian: bool, first: &[u8]) -> Option<Sum> {
    let seed = unsum(big_endian, [be32(first, 16), be32(first, 20)], first.get(24..)?);
    let seed = unsum(big_endian, seed, first.get(..8)?);
    let mut header = Vec::with_capacity(32);
    for word in [0x377f_0682 | u32::from(big_endian), 3_007_000, page_size, 0] {
        header.extend_from_slice(&word.to_be_bytes());
    }
    header.extend_from_slice(first.get(8..16)?);
    let rest = sum(big_endian, [0, 0], header.get(..24)?);
    if rest == seed {
        return Some(seed);
    }
    // The checkpoint number is word 3 of 6: one step of the recurrence stands behind its pair.
    let coefficient = step([0, 1]);
    solve(coefficient, [seed[0].wrapping_sub(rest[0]), seed[1].wrapping_sub(rest[1])]).map(|_| seed)
}

/// Offset of the first frame that links to its predecessor (or to a header that it proves).
fn first_link(sample: &[u8], page_size: u32, big_endian: bool) -> Option<usize> {
    let slot = 24 + usize::try_from(page_size).ok()?;
    let body = sample.get(32..)?;
    let mut previous: Option<Sum> = None;
    for (i, raw) in body.chunks_exact(slot).enumerate() {
        let stored = [be32(raw, 16), be32(raw, 20)];
        let believable = be32(raw, 0) != 0 && stored != [0, 0];
        let linked = match previous {
            Some(seed) => frame_sum(big_endian, seed, raw) == stored,
            None => proved_seed(page_size, big_endian, raw).is_some(),
        };
        if believable && linked {
            return Some(i * slot);
        }
        previous = Some(stored);
    }
    None
}
