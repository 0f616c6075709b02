//! Tokens of the SQL texts kept in `sqlite_schema` (sqlite.org/lang_keywords.html, sqlite.org/lang_comment.html).
//!
//! A cursor over the text, no list of tokens: memory does not grow with a hostile text, and looking ahead is copying the
//! cursor. Every step consumes at least one byte, so that reading ends.

/// Kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bare word: keyword or name.
    Word,
    /// A name in `".."`, `[..]` or a pair of backquotes.
    Quoted,
    /// Text in `'..'`.
    Text,
    /// `x'..'`.
    Blob,
    /// A number, digits first or a point and digits.
    Number,
    /// One byte of punctuation.
    Punct(u8),
}

/// One token: its kind and its text as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// Kind.
    pub kind: Kind,
    /// As written, quotes included.
    pub text: &'a str,
    /// Offset of its first byte.
    pub start: usize,
}

impl Token<'_> {
    /// True for the bare word `word` (upper case given, any case accepted).
    pub fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// True for this byte of punctuation.
    pub fn is_punct(&self, byte: u8) -> bool {
        self.kind == Kind::Punct(byte)
    }

    /// Offset behind its last byte.
    pub fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// The name it stands for: quotes taken off, doubled quotes made single.
    pub fn name(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.text.to_string()),
            Kind::Quoted | Kind::Text => Some(unquote(self.text)),
            _ => None,
        }
    }
}

/// Takes the quotes off a quoted token.
pub fn unquote(text: &str) -> String {
    let mut chars = text.chars();
    let Some(open) = chars.next() else { return String::new() };
    let close = if open == '[' { ']' } else { open };
    let mut name = String::with_capacity(text.len());
    while let Some(c) = chars.next() {
        if c == close {
            // In brackets nothing can be doubled.
            if open == '[' || chars.next() != Some(close) {
                break;
            }
        }
        name.push(c);
    }
    name
}

/// Where reading stands. Copy it to look ahead.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the start of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The text between two offsets.
    pub fn between(&self, from: usize, to: usize) -> &'a str {
        self.text.get(from..to).unwrap_or("")
    }

    /// The next token without taking it.
    pub fn peek(&self) -> Option<Token<'a>> {
        let mut ahead = *self;
        ahead.take()
    }

    /// Takes the next token when it is the bare word `word`.
    pub fn eat(&mut self, word: &str) -> bool {
        let mut ahead = *self;
        let found = ahead.take().is_some_and(|t| t.is(word));
        if found {
            *self = ahead;
        }
        found
    }

    /// Takes the next token when it is this byte of punctuation.
    pub fn eat_punct(&mut self, byte: u8) -> bool {
        let mut ahead = *self;
        let found = ahead.take().is_some_and(|t| t.is_punct(byte));
        if found {
            *self = ahead;
        }
        found
    }

    /// Takes the next token.
    pub fn take(&mut self) -> Option<Token<'a>> {
        self.blank();
        let bytes = self.text.as_bytes();
        let rest = bytes.get(self.at..)?;
        let first = *rest.first()?;
        let run = |from: usize, of: fn(u8) -> bool| {
            rest.get(from..).unwrap_or(&[]).iter().take_while(|b| of(**b)).count() + from
        };
        let (kind, len) = match first {
            b'x' | b'X' if rest.get(1) == Some(&b'\'') => (Kind::Blob, 1 + quoted(rest.get(1..)?, b'\'')),
            b'\'' => (Kind::Text, quoted(rest, b'\'')),
            b'"' | b'`' => (Kind::Quoted, quoted(rest, first)),
            b'[' => (Kind::Quoted, rest.iter().position(|b| *b == b']').map_or(rest.len(), |n| n + 1)),
            b'0'..=b'9' => (Kind::Number, number(rest)),
            b'.' if rest.get(1).is_some_and(u8::is_ascii_digit) => (Kind::Number, number(rest)),
            b if in_word(b) => (Kind::Word, run(1, in_word)),
            b => (Kind::Punct(b), 1),
        };
        let start = self.at;
        self.at = (start + len).min(bytes.len());
        // A quoted run ends at an ASCII quote or at the end, so this is a boundary of characters.
        Some(Token { kind, text: self.text.get(start..self.at)?, start })
    }

    /// Skips blanks and comments.
    fn blank(&mut self) {
        let bytes = self.text.as_bytes();
        loop {
            let rest = bytes.get(self.at..).unwrap_or(&[]);
            let skip = match rest {
                [b' ' | b'\t' | b'\n' | b'\r' | 0x0c, ..] => 1,
                [b'-', b'-', ..] => rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
                [b'/', b'*', body @ ..] => body.windows(2).position(|w| w == b"*/").map_or(rest.len(), |n| n + 4),
                _ => return,
            };
            self.at += skip;
        }
    }
}

/// Bytes of a name: everything above ASCII belongs to it, as in SQLite.
fn in_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b >= 0x80
}

/// Length of a quoted run with doubled quotes, to the end of the text when it is not closed.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(b) = rest.get(at) {
        at += 1;
        if *b == quote {
            if rest.get(at) != Some(&quote) {
                return at;
            }
            at += 1;
        }
    }
    rest.len()
}

fn number(rest: &[u8]) -> usize {
    let mut at = 0;
    while let Some(b) = rest.get(at) {
        let sign = matches!(b, b'+' | b'-') && at > 0 && matches!(rest.get(at - 1), Some(b'e' | b'E')) && !hex(rest);
        if !(in_word(*b) || *b == b'.' || sign) {
            break;
        }
        at += 1;
    }
    at
}

fn hex(rest: &[u8]) -> bool {
    matches!(rest, [b'0', b'x' | b'X', ..])
}
