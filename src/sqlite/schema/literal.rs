//! DEFAULT clauses (sqlite.org/lang_createtable.html section 3.2), as far as they are literals.
//!
//! ALTER TABLE ADD COLUMN does not touch the rows that are there: a record shorter than the column list takes the
//! default of each column it lacks, and indexes hold that value. Only literals whose value is certain are understood.

use super::token::{Cursor, Kind, Token, unquote};
use super::{Affinity, NotUnderstood};

/// A default value after its column's affinity.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// NULL.
    Null,
    /// Integer.
    Integer(i64),
    /// Real, exact.
    Real(f64),
    /// Text.
    Text(String),
    /// Blob.
    Blob(Vec<u8>),
    /// Anything else: only the engine knows its value.
    Expression,
}

/// Digits of a decimal that a double holds exactly whatever algorithm reads it, and powers of ten likewise.
const EXACT_DIGITS: usize = 15;
const EXACT_POWER: i32 = 22;

/// Reads what stands behind DEFAULT.
pub fn default(cursor: &mut Cursor<'_>, affinity: Affinity) -> Result<Literal, NotUnderstood> {
    let value = if cursor.eat_punct(b'(') {
        let mut inner = *cursor;
        let value = signed(&mut inner, true).filter(|_| inner.eat_punct(b')'));
        match value {
            Some(value) => {
                *cursor = inner;
                value
            }
            None => {
                skip_group(cursor)?;
                Literal::Expression
            }
        }
    } else {
        signed(cursor, false).ok_or_else(|| NotUnderstood::new("a DEFAULT without a value"))?
    };
    Ok(with_affinity(value, affinity))
}

/// Skips to behind the parenthesis that closes one already taken.
pub fn skip_group(cursor: &mut Cursor<'_>) -> Result<(), NotUnderstood> {
    let mut depth = 1_u32;
    while let Some(token) = cursor.take() {
        match token.kind {
            Kind::Punct(b'(') => depth = depth.saturating_add(1),
            Kind::Punct(b')') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok(());
        }
    }
    Err(NotUnderstood::new("a parenthesis that is never closed"))
}

/// A literal with any number of signs before it.
fn signed(cursor: &mut Cursor<'_>, in_group: bool) -> Option<Literal> {
    let mut negative = false;
    let mut any_sign = false;
    while let Some(token) = cursor.peek().filter(|t| t.is_punct(b'-') || t.is_punct(b'+')) {
        negative ^= token.is_punct(b'-');
        any_sign = true;
        cursor.take();
    }
    let value = term(cursor.take()?, in_group)?;
    Some(match value {
        Literal::Integer(n) if negative => n.checked_neg().map_or(Literal::Expression, Literal::Integer),
        Literal::Real(r) if negative => Literal::Real(-r),
        // A minus before anything else computes something.
        Literal::Text(_) | Literal::Blob(_) | Literal::Null if any_sign => Literal::Expression,
        other => other,
    })
}

fn term(token: Token<'_>, in_group: bool) -> Option<Literal> {
    Some(match token.kind {
        Kind::Text => Literal::Text(unquote(token.text)),
        Kind::Number => number(token.text),
        Kind::Blob => blob(token.text),
        Kind::Word if token.is("NULL") => Literal::Null,
        Kind::Word if token.is("TRUE") => Literal::Integer(1),
        Kind::Word if token.is("FALSE") => Literal::Integer(0),
        Kind::Word if in_group => return None,
        Kind::Quoted if in_group => return None,
        Kind::Word if token.text.to_ascii_uppercase().starts_with("CURRENT_") => Literal::Expression,
        // A bare name stands for its own text.
        Kind::Word => Literal::Text(token.text.to_string()),
        Kind::Quoted => Literal::Text(unquote(token.text)),
        Kind::Punct(_) => return None,
    })
}

fn number(text: &str) -> Literal {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let value = u64::from_str_radix(digits, 16).ok();
        return value.map_or(Literal::Expression, |v| Literal::Integer(v.cast_signed()));
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_or(Literal::Expression, Literal::Integer);
    }
    real(text).unwrap_or(Literal::Expression)
}

/// A decimal that every correct and every nearly correct algorithm reads alike; `None` for the others.
fn real(text: &str) -> Option<Literal> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = whole.len() + fraction.len();
    let plain = whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
    let power = exponent.parse::<i32>().ok()?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    if !plain || digits == 0 || digits > EXACT_DIGITS || power.abs() > EXACT_POWER {
        return None;
    }
    text.parse().ok().map(Literal::Real)
}

fn blob(text: &str) -> Literal {
    let digits = text.get(2..text.len().saturating_sub(1)).unwrap_or("");
    let pairs = digits.as_bytes().chunks(2);
    let value = pairs.map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap_or(""), 16).ok());
    match (digits.len() % 2, value.collect::<Option<Vec<u8>>>()) {
        (0, Some(bytes)) => Literal::Blob(bytes),
        _ => Literal::Expression,
    }
}

fn with_affinity(value: Literal, affinity: Affinity) -> Literal {
    match (affinity, value) {
        (Affinity::Blob, value) => value,
        (Affinity::Text, Literal::Integer(n)) => Literal::Text(n.to_string()),
        (Affinity::Text, Literal::Real(_)) => Literal::Expression,
        (Affinity::Text, value) => value,
        (_, Literal::Text(text)) => {
            if !looks_numeric(text.as_bytes()) {
                return Literal::Text(text);
            }
            // A sign and up to eighteen digits is an integer to everybody; of other numbers the value is not certain.
            let digits = text.trim_start_matches('-');
            if digits.len() <= 18 && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
                text.parse().map_or(Literal::Expression, Literal::Integer)
            } else {
                Literal::Expression
            }
        }
        (_, value) => value,
    }
}

/// True when numeric affinity would turn this text into a number: blanks, sign, digits with a point, exponent, blanks.
pub fn looks_numeric(text: &[u8]) -> bool {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        if !blank(first) {
            break;
        }
        rest = tail;
    }
    while let [head @ .., last] = rest {
        if !blank(last) {
            break;
        }
        rest = head;
    }
    if let [b'+' | b'-', tail @ ..] = rest {
        rest = tail;
    }
    let digits = |from: &[u8]| from.iter().take_while(|b| b.is_ascii_digit()).count();
    let whole = digits(rest);
    rest = rest.get(whole..).unwrap_or(&[]);
    let mut fraction = 0;
    if let [b'.', tail @ ..] = rest {
        fraction = digits(tail);
        rest = tail.get(fraction..).unwrap_or(&[]);
    }
    if whole + fraction == 0 {
        return false;
    }
    if let [b'e' | b'E', tail @ ..] = rest {
        let tail = if let [b'+' | b'-', tail @ ..] = tail { tail } else { tail };
        let exponent = digits(tail);
        return exponent > 0 && exponent == tail.len();
    }
    rest.is_empty()
}
