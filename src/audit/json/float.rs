//! Floats as `float.__repr__` prints them.

/// The text of a double as Python prints it: the shortest digits that read back as the same double, in exponent form
/// when the decimal exponent is below -4 or at least 16.
#[must_use]
pub fn repr(x: f64) -> String {
    if x.is_nan() {
        return "NaN".to_string();
    }
    let sign = if x.is_sign_negative() { "-" } else { "" };
    if x.is_infinite() {
        return format!("{sign}Infinity");
    }
    let text = shortest(x.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..16).contains(&exponent) {
        let mark = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{mantissa}e{mark}{:02}", exponent.unsigned_abs());
    }
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    if exponent < 0 {
        let zeros = "0".repeat(usize::try_from(-exponent - 1).unwrap_or(0));
        return format!("{sign}0.{zeros}{digits}");
    }
    let whole = usize::try_from(exponent).unwrap_or(0) + 1;
    match digits.split_at_checked(whole) {
        Some((whole, fraction)) if !fraction.is_empty() => format!("{sign}{whole}.{fraction}"),
        _ => format!("{sign}{digits:0<whole$}.0"),
    }
}

/// The shortest digits as `d[.ddd]e[-]x`. Where two texts of that length are equally near, Python takes the even one
/// (-83124035673125.625 is …62) and Rust the greater.
fn shortest(x: f64) -> String {
    // More than any double has (767 significant digits), so that what follows the half is seen to be nothing.
    const EXACT: usize = 780;
    let rust = format!("{x:e}");
    let length = rust.split('e').next().unwrap_or("").bytes().filter(u8::is_ascii_digit).count();
    let longer = format!("{x:.length$e}");
    let Some((half, exponent)) = longer.split_once('e') else { return rust };
    let Some(down) = half.strip_suffix('5').map(|d| d.trim_end_matches('.')) else { return rust };
    if !down.ends_with(['0', '2', '4', '6', '8']) {
        return rust;
    }
    let exact = format!("{x:.EXACT$e}");
    let tie = exact.split('e').next().and_then(|d| d.strip_prefix(half)).is_some_and(|d| d.bytes().all(|b| b == b'0'));
    let even = format!("{down}e{exponent}");
    if tie && even.parse() == Ok(x) { even } else { rust }
}
