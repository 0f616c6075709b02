//! JSON exactly as Python's `json` reads and writes it (CPython 3.11, `json.loads` and `json.dumps`), because the audit
//! hashes of the agent are hashes of its output. A general JSON library does not serve: it turns large integers into
//! floats, prints `1e-05` as `0.00001`, refuses lone surrogates and knows no `NaN`.
//!
//! * Integers keep their digits, whatever their size (`-0` becomes `0`, as `int("-0")` does).
//! * Floats are read as doubles and written as [`repr`].
//! * Strings are held as code points in generalised UTF-8 (WTF-8), so that a lone surrogate from an escape survives, and
//!   comparing bytes is comparing code points: the order of `sort_keys`.
//! * A key that stands twice keeps its first place and its last value, as in a `dict`.
//! * `NaN`, `Infinity` and `-Infinity` are read and written.

mod float;
mod read;

pub use float::repr;
pub use read::loads;

/// A string of code points, lone surrogates included, in generalised UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(Vec<u8>);

impl Text {
    /// Its text, where it has no lone surrogates.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// True when every character is in U+0020..U+007E or is written as a short escape in both texts: then ASCII escapes
    /// and raw UTF-8 are the same bytes.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.0.iter().all(|b| *b < 0x7f)
    }

    fn push(&mut self, code: u32) {
        // Generalised UTF-8: surrogates take three bytes like their neighbours.
        let cont = |shift: u32| u8::try_from(0x80 | (code >> shift & 0x3f)).unwrap_or(0);
        let lead = |mark: u32, shift: u32| u8::try_from(mark | code >> shift).unwrap_or(0);
        match code {
            0..=0x7f => self.0.push(lead(0, 0)),
            0x80..=0x7ff => self.0.extend([lead(0xc0, 6), cont(0)]),
            0x800..=0xffff => self.0.extend([lead(0xe0, 12), cont(6), cont(0)]),
            _ => self.0.extend([lead(0xf0, 18), cont(12), cont(6), cont(0)]),
        }
    }

    fn codes(&self) -> impl Iterator<Item = u32> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let first = u32::from(*self.0.get(at)?);
            let (len, mark) = match first {
                0..=0x7f => (1, 0),
                0x80..=0xdf => (2, 0xc0),
                0xe0..=0xef => (3, 0xe0),
                _ => (4, 0xf0),
            };
            let rest = self.0.get(at + 1..at + len).unwrap_or(&[]);
            at += len;
            Some(rest.iter().fold(first - mark, |code, b| code << 6 | u32::from(b & 0x3f)))
        })
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

/// A JSON value as Python would hold it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`.
    Null,
    /// `bool`.
    Bool(bool),
    /// `int`: its canonical decimal digits.
    Int(String),
    /// `float`.
    Float(f64),
    /// `str`.
    Text(Text),
    /// `list`.
    List(Vec<Value>),
    /// `dict`, in insertion order, each key once.
    Object(Vec<(Text, Value)>),
}

impl Value {
    /// A string.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(Text::from(text))
    }

    /// An integer.
    #[must_use]
    pub fn int(n: impl Into<i128>) -> Self {
        Self::Int(n.into().to_string())
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Object(pairs) => pairs.iter().find(|(k, _)| k.0 == key.as_bytes()).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { text.as_str() } else { None }
    }

    /// The number of an integer that fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        if let Self::Int(digits) = self { digits.parse().ok() } else { None }
    }
}

/// How `json.dumps` is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// `", "` and `": "`, Python's default, instead of `","` and `":"`.
    pub spaced: bool,
    /// `ensure_ascii=True`, Python's default.
    pub ascii: bool,
    /// `sort_keys=True`.
    pub sorted: bool,
}

/// Writes a value; `None` when Python could not: a lone surrogate has no UTF-8.
#[must_use]
pub fn dumps(value: &Value, style: Style) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    write(value, style, &mut out)?;
    Some(out)
}

/// Appends a value to `out`; `None` as for [`dumps`].
pub fn write(value: &Value, style: Style, out: &mut Vec<u8>) -> Option<()> {
    let comma: &[u8] = if style.spaced { b", " } else { b"," };
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        Value::Int(digits) => out.extend_from_slice(digits.as_bytes()),
        Value::Float(x) => out.extend_from_slice(repr(*x).as_bytes()),
        Value::Text(text) => string(text, style.ascii, out)?,
        Value::List(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.extend_from_slice(comma);
                }
                write(item, style, out)?;
            }
            out.push(b']');
        }
        Value::Object(pairs) => {
            let mut order: Vec<&(Text, Value)> = pairs.iter().collect();
            if style.sorted {
                order.sort_by(|a, b| a.0.cmp(&b.0));
            }
            out.push(b'{');
            for (i, (key, item)) in order.into_iter().enumerate() {
                if i > 0 {
                    out.extend_from_slice(comma);
                }
                string(key, style.ascii, out)?;
                out.extend_from_slice(if style.spaced { b": " } else { b":" });
                write(item, style, out)?;
            }
            out.push(b'}');
        }
    }
    Some(())
}

fn string(text: &Text, ascii: bool, out: &mut Vec<u8>) -> Option<()> {
    if !ascii && text.as_str().is_none() {
        return None;
    }
    out.push(b'"');
    for code in text.codes() {
        match code {
            0x22 => out.extend_from_slice(b"\\\""),
            0x5c => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            0x0a => out.extend_from_slice(b"\\n"),
            0x0d => out.extend_from_slice(b"\\r"),
            0x09 => out.extend_from_slice(b"\\t"),
            0x20..=0x7e => out.push(u8::try_from(code).unwrap_or(b'?')),
            0x00..=0x1f => out.extend_from_slice(format!("\\u{code:04x}").as_bytes()),
            _ if !ascii => {
                let mut one = Text::default();
                one.push(code);
                out.extend_from_slice(&one.0);
            }
            0x1_0000.. => {
                let v = code - 0x1_0000;
                let pair = (0xd800 + (v >> 10), 0xdc00 + (v & 0x3ff));
                out.extend_from_slice(format!("\\u{:04x}\\u{:04x}", pair.0, pair.1).as_bytes());
            }
            _ => out.extend_from_slice(format!("\\u{code:04x}").as_bytes()),
        }
    }
    out.push(b'"');
    Some(())
}

#[cfg(test)]
mod tests;
