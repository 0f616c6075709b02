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

use std::collections::BTreeMap;

/// Deepest nesting read. Python's own limit is near a thousand; an honest record has three or four.
const MAX_DEPTH: u32 = 500;

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

/// Reads one JSON document as `json.loads` does. The error says what stands where.
pub fn loads(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("it is not UTF-8 from byte {}", e.valid_up_to()))?;
    let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
    reader.space();
    let value = reader.value(0)?;
    reader.space();
    if reader.at < reader.bytes.len() {
        return Err(format!("something follows its end at byte {}", reader.at));
    }
    Ok(value)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or(&[])
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn fault(&self, wanted: &str) -> String {
        format!("{wanted} is missing at byte {}", self.at)
    }

    fn word(&mut self, word: &[u8]) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn value(&mut self, depth: u32) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(format!("it is nested deeper than {MAX_DEPTH}"));
        }
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                self.string().map(Value::Text)
            }
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'-' | b'0'..=b'9') if !self.rest().starts_with(b"-I") => self.number(),
            _ => {
                let words: [(&[u8], Value); 6] = [
                    (b"null", Value::Null),
                    (b"true", Value::Bool(true)),
                    (b"false", Value::Bool(false)),
                    (b"NaN", Value::Float(f64::NAN)),
                    (b"Infinity", Value::Float(f64::INFINITY)),
                    (b"-Infinity", Value::Float(f64::NEG_INFINITY)),
                ];
                for (word, value) in words {
                    if self.word(word) {
                        return Ok(value);
                    }
                }
                Err(self.fault("a value"))
            }
        }
    }

    fn list(&mut self, depth: u32) -> Result<Value, String> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.word(b"]") {
            return Ok(Value::List(items));
        }
        loop {
            self.space();
            items.push(self.value(depth + 1)?);
            self.space();
            if self.word(b"]") {
                return Ok(Value::List(items));
            }
            if !self.word(b",") {
                return Err(self.fault("a comma or the end of a list"));
            }
        }
    }

    fn object(&mut self, depth: u32) -> Result<Value, String> {
        self.at += 1;
        let mut pairs: Vec<(Text, Value)> = Vec::new();
        self.space();
        if self.word(b"}") {
            return Ok(Value::Object(pairs));
        }
        loop {
            self.space();
            if !self.word(b"\"") {
                return Err(self.fault("a key"));
            }
            let key = self.string()?;
            self.space();
            if !self.word(b":") {
                return Err(self.fault("a colon"));
            }
            self.space();
            pairs.push((key, self.value(depth + 1)?));
            self.space();
            if self.word(b"}") {
                return Ok(Value::Object(each_key_once(pairs)));
            }
            if !self.word(b",") {
                return Err(self.fault("a comma or the end of an object"));
            }
        }
    }

    fn number(&mut self) -> Result<Value, String> {
        let from = self.at;
        self.word(b"-");
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.fault("a digit")),
        }
        let mut float = false;
        // A dot or an exponent without digits ends the number before it, and what follows is then an error.
        for part in [&b"."[..], b"eE"] {
            let mark = self.at;
            if !self.peek().is_some_and(|b| part.contains(&b)) {
                continue;
            }
            self.at += 1;
            if part.len() > 1 && matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.peek().is_some_and(|b| b.is_ascii_digit()) {
                self.digits();
                float = true;
            } else {
                self.at = mark;
                break;
            }
        }
        let token = self.bytes.get(from..self.at).and_then(|t| std::str::from_utf8(t).ok()).unwrap_or("0");
        if float {
            return token.parse().map(Value::Float).map_err(|_| format!("the number at byte {from} is none"));
        }
        Ok(Value::Int(if token == "-0" { "0".to_string() } else { token.to_string() }))
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
    }

    /// Behind the opening quote.
    fn string(&mut self) -> Result<Text, String> {
        let mut text = Text::default();
        loop {
            let plain = self.rest().iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f));
            let Some(plain) = plain else { return Err(self.fault("the end of a string")) };
            text.0.extend_from_slice(self.rest().get(..plain).unwrap_or(&[]));
            self.at += plain + 1;
            match self.bytes.get(self.at - 1) {
                Some(b'"') => return Ok(text),
                Some(b'\\') => self.escape(&mut text)?,
                _ => return Err(format!("a control character stands in a string at byte {}", self.at - 1)),
            }
        }
    }

    fn escape(&mut self, text: &mut Text) -> Result<(), String> {
        let code = match self.peek() {
            Some(c @ (b'"' | b'\\' | b'/')) => u32::from(c),
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => 0x0a,
            Some(b'r') => 0x0d,
            Some(b't') => 0x09,
            Some(b'u') => {
                self.at += 1;
                let mut code = self.hex()?;
                if (0xd800..0xdc00).contains(&code) && self.rest().starts_with(b"\\u") {
                    let mark = self.at;
                    self.at += 2;
                    let low = self.hex()?;
                    if (0xdc00..0xe000).contains(&low) {
                        code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                    } else {
                        self.at = mark;
                    }
                }
                text.push(code);
                return Ok(());
            }
            _ => return Err(format!("an escape at byte {} is none of JSON's", self.at)),
        };
        self.at += 1;
        text.push(code);
        Ok(())
    }

    fn hex(&mut self) -> Result<u32, String> {
        let digits = self.rest().get(..4).filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|d| std::str::from_utf8(d).ok()).ok_or_else(|| self.fault("four hex digits"))?;
        let code = u32::from_str_radix(digits, 16).map_err(|e| e.to_string())?;
        self.at += 4;
        Ok(code)
    }
}

fn each_key_once(pairs: Vec<(Text, Value)>) -> Vec<(Text, Value)> {
    let mut place: BTreeMap<Text, usize> = BTreeMap::new();
    let mut once: Vec<(Text, Value)> = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        match place.get(&key).and_then(|i| once.get_mut(*i)) {
            Some(slot) => slot.1 = value,
            None => {
                place.insert(key.clone(), once.len());
                once.push((key, value));
            }
        }
    }
    once
}

#[cfg(test)]
mod tests;
