//! Damage to a log, at random but by named kinds, so that a test can say which of them leave a proof of themselves.

use super::crash::Files;
use super::rng::Rng;
use super::wal::{FRAME, HEADER, Wal};

/// What was done to a set of files.
#[derive(Clone, Debug, Default)]
pub struct Injury {
    pub what: String,
    /// True when every damage done shows by itself that it is damage: a header that is none, noise in a frame's header
    /// or page, one changed word. Zeroes, copies and old sectors may as well be writes that never arrived.
    pub provable: bool,
}

/// Damages the log of `files` one to four times.
pub fn injure(files: &mut Files, rng: &mut Rng) -> Injury {
    let mut injury = Injury { what: String::new(), provable: true };
    let Some(log) = Wal::read(files.wal()).filter(|log| !log.slots.is_empty()) else { return injury };
    let many = if rng.chance(55) { 1 } else { rng.between(2, 4) };
    for _ in 0..many {
        let (what, provable) = one(files.wal.as_mut().unwrap(), &log, rng);
        injury.what.push_str(&format!("{what}; "));
        injury.provable &= provable;
    }
    injury
}

fn one(wal: &mut Vec<u8>, log: &Wal, rng: &mut Rng) -> (String, bool) {
    let n = log.slot_len();
    let live = log.committed.max(1).min(log.slots.len());
    let slot = if rng.chance(85) { rng.below(live) } else { rng.below(log.slots.len()) };
    let at = (HEADER + slot * n).min(wal.len().saturating_sub(1));
    let end = (at + n).min(wal.len());
    let f = slot + 1;
    let inside = |at: usize, len: usize, wal: &Vec<u8>| at.min(wal.len())..(at + len).min(wal.len());
    match rng.below(17) {
        0 | 1 => {
            // The salts are outside the sum, and a bit in them is seen by itself; anywhere else the sum tells.
            let at = at + rng.below(end - at);
            wal[at] ^= 1 << rng.below(8);
            (format!("bit in frame {f}"), true)
        }
        2 => {
            let at = at + rng.below((end - at) / 4) * 4;
            let range = inside(at, 4, wal);
            rng.fill(&mut wal[range]);
            (format!("word in frame {f}"), true)
        }
        3 | 4 => {
            rng.fill(&mut wal[at..end]);
            (format!("frame {f} random"), true)
        }
        5 => {
            let range = inside(at, FRAME, wal);
            rng.fill(&mut wal[range]);
            (format!("header of frame {f} random"), true)
        }
        6 => {
            let range = inside(at + FRAME, n - FRAME, wal);
            rng.fill(&mut wal[range]);
            (format!("page of frame {f} random"), true)
        }
        7 | 8 => {
            let most = rng.pick(&[32, 56, 512, 4096, 8192]);
            let upto = rng.between(1, most).min(wal.len());
            rng.fill(&mut wal[..upto]);
            (format!("first {upto} bytes random"), upto >= 24)
        }
        9 => {
            let len = rng.pick(&[512, 4096, 4096, 16384, 65536]);
            let range = inside(at / len * len, len, wal);
            let what = format!("{range:?} zeroed, frame {f}");
            wal[range].fill(0);
            (what, false)
        }
        10 => {
            let len = rng.pick(&[512, 4096, 4096, 16384, 65536]);
            let range = inside(at / len * len, len, wal);
            let what = format!("{range:?} random, frame {f}");
            rng.fill(&mut wal[range]);
            (what, false)
        }
        11 => {
            let cut = at + rng.below(end - at);
            wal.truncate(cut.max(1));
            (format!("cut to {} bytes, in frame {f}", wal.len()), false)
        }
        12 => {
            // A write that went astray: one slot over another.
            let from = HEADER + rng.below(log.slots.len()) * n;
            let range = inside(from, n, wal);
            let image = wal[range].to_vec();
            let len = image.len().min(end - at);
            wal[at..at + len].copy_from_slice(&image[..len]);
            (format!("slot {} copied over frame {f}", from / n + 1), false)
        }
        13 => {
            let from = rng.below(wal.len()) / 512 * 512;
            let to = at / 512 * 512;
            let len = rng.pick(&[512, 4096]);
            let image = {
                let r = inside(from, len, wal);
                wal[r].to_vec()
            };
            let range = inside(to, image.len(), wal);
            let take = range.len();
            wal[range].copy_from_slice(&image[..take]);
            (format!("sector {from} copied over {to}, {len} bytes, frame {f}"), false)
        }
        14 => {
            let k = rng.between(2, 6);
            for _ in 0..k {
                let at = at + rng.below(end - at);
                wal[at] ^= 1 << rng.below(8);
            }
            (format!("{k} bits in frame {f}"), false)
        }
        15 => {
            let from = rng.below(wal.len());
            let len = rng.between(1, 3 * n);
            let range = inside(from, len, wal);
            let what = format!("{range:?} random");
            rng.fill(&mut wal[range]);
            (what, false)
        }
        _ => {
            // Everything from somewhere on.
            let (from, zero) = (at + rng.below(end - at), rng.chance(50));
            if zero {
                wal[from..].fill(0)
            } else {
                rng.fill(&mut wal[from..])
            }
            (format!("from {from} on {}, in frame {f}", if zero { "zeroed" } else { "random" }), false)
        }
    }
}
