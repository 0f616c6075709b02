//! Depth over time, in one small record in the state directory: at most one note an hour, at most a week of them, so
//! that watching a queue does not wear out the flash. "Growing" is a trend over a window, not two points.

use serde::{Deserialize, Serialize};

use super::stats::CLOCK_FLOOR;

/// Kind and file name of the record.
pub const RECORD: &str = "queue-history";
/// Seconds between two notes.
pub const INTERVAL: u64 = 3600;
/// Notes kept: a week.
const KEEP: usize = 7 * 24;
/// The window in which growth is judged.
const WINDOW: u64 = 24 * 3600;
/// Notes and seconds below which nothing is said.
const LEAST_NOTES: usize = 4;
const LEAST_SPAN: u64 = 3 * 3600;

/// One note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Seconds since the epoch.
    pub at: u64,
    /// Rows.
    pub depth: u64,
}

/// The notes with a new one, when one is due; `None`: nothing is to be written.
#[must_use]
pub fn noted(history: &[Note], now: Note) -> Option<Vec<Note>> {
    // A clock that went back, or knows no time, notes nothing: order is all that a trend has.
    let due = history.last().is_none_or(|last| now.at >= last.at.saturating_add(INTERVAL));
    if now.at < CLOCK_FLOOR || !due {
        return None;
    }
    let from = (history.len() + 1).saturating_sub(KEEP);
    Some(history.iter().skip(from).copied().chain([now]).collect())
}

/// Whether the depth grows; `None`: too little is known.
///
/// Of all pairs of notes of the last day, how many rose against how many fell (the statistic of Mann and Kendall): a
/// queue that is emptied and filled again by turns does not grow, one that loses a little now and then does. The rise must
/// also be worth a word: ten rows, and a tenth of what was there.
#[must_use]
pub fn growing(history: &[Note], now: Note) -> Option<bool> {
    let recent = |n: &&Note| n.at < now.at && n.at.saturating_add(WINDOW) >= now.at;
    let notes: Vec<Note> = history.iter().filter(recent).copied().chain([now]).collect();
    let first = notes.first()?;
    if notes.len() < LEAST_NOTES || now.at - first.at < LEAST_SPAN {
        return None;
    }
    let (mut rose, mut fell, mut pairs) = (0_u32, 0_u32, 0_u32);
    for (i, a) in notes.iter().enumerate() {
        for b in notes.iter().skip(i + 1) {
            pairs += 1;
            rose += u32::from(b.depth > a.depth);
            fell += u32::from(b.depth < a.depth);
        }
    }
    let trend = i64::from(rose) - i64::from(fell);
    let rise = now.depth.saturating_sub(first.depth);
    Some(trend * 10 >= i64::from(pairs) * 6 && rise >= 10.max(first.depth / 10))
}

#[cfg(test)]
mod tests {
    use super::{INTERVAL, KEEP, Note, growing, noted};

    const T0: u64 = 1_750_000_000;

    fn notes(depths: &[u64]) -> (Vec<Note>, Note) {
        let all: Vec<Note> = depths.iter().zip(0..).map(|(d, i)| Note { at: T0 + i * INTERVAL, depth: *d }).collect();
        (all[..all.len() - 1].to_vec(), all[all.len() - 1])
    }

    fn grows(depths: &[u64]) -> Option<bool> {
        let (history, now) = notes(depths);
        growing(&history, now)
    }

    #[test]
    fn growth_is_a_trend() {
        assert_eq!(grows(&[0, 100]), None, "two points are no trend");
        assert_eq!(grows(&[10, 20, 30, 40]), Some(true));
        assert_eq!(grows(&[10, 20, 15, 30, 28, 45, 60]), Some(true), "a little lost now and then");
        assert_eq!(grows(&[0, 80, 0, 80, 0, 80]), Some(false), "emptied by turns");
        assert_eq!(grows(&[50, 50, 50, 50, 50, 500]), Some(false), "one jump");
        assert_eq!(grows(&[90, 70, 40, 10]), Some(false));
        assert_eq!(grows(&[1000, 1001, 1002, 1003, 1011]), Some(false), "less than a tenth");
        assert_eq!(grows(&[0, 1, 2, 3, 4]), Some(false), "less than ten rows");
        let old: Vec<u64> = (0..40).map(|n| if n < 12 { n * 100 } else { 2000 - n }).collect();
        assert_eq!(grows(&old), Some(false), "what was before the window does not count");
    }

    #[test]
    fn notes_are_hourly_bounded_and_never_by_a_clock_that_is_wrong() {
        let note = |at| Note { at, depth: 1 };
        assert_eq!(noted(&[], note(100)), None, "1970");
        assert_eq!(noted(&[note(T0)], note(T0 + INTERVAL - 1)), None);
        assert_eq!(noted(&[note(T0)], note(T0 - 5)), None);
        let mut history = Vec::new();
        for n in 0..400 {
            history = noted(&history, note(T0 + n * INTERVAL)).unwrap();
        }
        assert_eq!((history.len(), history[KEEP - 1].at), (KEEP, T0 + 399 * INTERVAL));
    }
}
