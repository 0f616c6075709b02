//! Reading as `json.loads` does (strict, so control characters in strings are refused). Recursion is bounded.

use std::collections::BTreeMap;

use super::{Text, Value};

/// Deepest nesting read. Python's own limit is near a thousand; an honest record has three or four.
const MAX_DEPTH: u32 = 500;

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
