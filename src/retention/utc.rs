//! Calendar times in UTC (proleptic Gregorian, no leap seconds), years 1970 to 9999.

/// Last second that can be written: 9999-12-31 23:59:59.
pub const LAST: u64 = 253_402_300_799;
const DAY: u64 = 86_400;

/// Year, month, day, hour, minute, second of a number of seconds since 1970.
fn fields(at: u64) -> [u64; 6] {
    let (days, second) = (at / DAY, at % DAY);
    // Counted from 0000-03-01, so that the leap day is the last of its year.
    let (era, day) = ((days + 719_468) / 146_097, (days + 719_468) % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year + era * 400, month + 3) } else { (year + era * 400 + 1, month - 9) };
    [year, month, of_month, second / 3600, second / 60 % 60, second % 60]
}

/// As it stands in names: `20261125T200102Z`. A time behind [`LAST`] is written as [`LAST`].
#[must_use]
pub fn compact(at: u64) -> String {
    let [year, month, day, hour, minute, second] = fields(at.min(LAST));
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// As people read it: `2026-11-25 20:01:02 UTC`.
#[must_use]
pub fn plain(at: u64) -> String {
    let [year, month, day, hour, minute, second] = fields(at.min(LAST));
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The time of a [`compact`] text; nothing for any other text.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes.get(8) != Some(&b'T') || bytes.get(15) != Some(&b'Z') {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = bytes.get(from..to)?;
        digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
    if year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y / 400 * 146_097 + y % 400 * 365 + y % 400 / 4 - y % 400 / 100 + (153 * m + 2) / 5 + day - 1;
    let at = days.checked_sub(719_468)? * DAY + hour * 3600 + minute * 60 + second;
    // 31 February, hour 24 and second 60 would come back as another text.
    (compact(at) == text).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::{LAST, compact, parse, plain};

    #[test]
    fn known_times() {
        for (at, text) in [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (1_795_636_862, "20261125T200102Z"),
            (4_102_444_799, "20991231T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
            (4_294_967_295, "21060207T062815Z"),
            (LAST, "99991231T235959Z"),
        ] {
            assert_eq!(compact(at), text);
            assert_eq!(parse(text), Some(at));
        }
        assert_eq!(plain(1_795_636_862), "2026-11-25 20:01:02 UTC");
        assert_eq!(compact(u64::MAX), compact(LAST));
    }

    #[test]
    fn every_day_comes_back_and_no_text_is_read_twice() {
        let mut last = String::new();
        for day in 0..=LAST / 86_400 {
            let at = day * 86_400 + day % 86_400;
            let text = compact(at);
            assert_eq!(parse(&text), Some(at), "{text}");
            assert!(text > last, "{text} after {last}");
            last = text;
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "20260229T000000Z",
            "20260431T000000Z",
            "20260001T000000Z",
            "20261301T000000Z",
            "20260100T000000Z",
            "20260101T240000Z",
            "20260101T006000Z",
            "20260101T000060Z",
            "19691231T235959Z",
            "2026-11-25T20:01",
            "20261125 200102Z",
            "20261125T200102z",
            "20261125T200102",
            "+2261125T200102Z",
            "２0261125T20010Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
