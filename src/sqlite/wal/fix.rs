//! The checksum as an equation: which single damaged word explains why a frame does not continue its predecessor.

use serde::{Deserialize, Serialize};

use super::{Sum, frame_sum};
use crate::sqlite::bytes::be32;

/// A word that alone explains why a frame does not link: its index among the summed words and what to add to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WordFix {
    /// Index among the summed 32-bit words: 0 page number, 1 commit size, then the image.
    pub word: u32,
    /// Added (modulo 2^32) to the word as found.
    pub delta: u32,
}

/// Solves for single damaged words. The sum is linear: a change `d` of word `i` moves the result by `(a·d, b·d)` where
/// `a` and `b` are neighbouring Fibonacci numbers, one of which is always odd and so invertible modulo 2^32. A solution
/// for 64 bits of difference out of 32 bits of freedom is chance once in about 2^22 frames, so it proves that the frame
/// continues its predecessor; *which* word it was is less certain (several fit when only high bits changed).
pub fn single_word_fixes(big_endian: bool, seed: Sum, frame: &[u8]) -> Vec<WordFix> {
    let computed = frame_sum(big_endian, seed, frame);
    let target = [be32(frame, 16), be32(frame, 20)];
    let diff = [target[0].wrapping_sub(computed[0]), target[1].wrapping_sub(computed[1])];
    let words = (frame.len().saturating_sub(24) + 8) / 4;
    let mut fixes = Vec::new();
    // Coefficients of the last pair of words are (x0: 1, 1) and (x1: 0, 1); each earlier pair goes through one more
    // step (s0, s1) -> (s0 + s1, s0 + 2·s1).
    let (mut even, mut odd) = ([1_u32, 1_u32], [0_u32, 1_u32]);
    for pair in (0..words / 2).rev() {
        for (word, coefficient) in [(2 * pair, even), (2 * pair + 1, odd)] {
            if let Some(delta) = solve(coefficient, diff) {
                fixes.push(WordFix { word: u32::try_from(word).unwrap_or(u32::MAX), delta });
            }
        }
        even = step(even);
        odd = step(odd);
    }
    fixes
}

pub(super) fn step([s0, s1]: Sum) -> Sum {
    let n0 = s0.wrapping_add(s1);
    [n0, s1.wrapping_add(n0)]
}

pub(super) fn solve([a, b]: Sum, [d0, d1]: Sum) -> Option<u32> {
    let delta = if a & 1 == 1 { inverse(a).wrapping_mul(d0) } else { inverse(b).wrapping_mul(d1) };
    (delta != 0 && a.wrapping_mul(delta) == d0 && b.wrapping_mul(delta) == d1).then_some(delta)
}

/// Inverse of an odd number modulo 2^32 (Newton: each round doubles the right bits).
fn inverse(odd: u32) -> u32 {
    let mut x = odd;
    for _ in 0..5 {
        x = x.wrapping_mul(2_u32.wrapping_sub(odd.wrapping_mul(x)));
    }
    x
}
