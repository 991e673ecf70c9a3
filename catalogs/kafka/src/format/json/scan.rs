//! A strict reader of JSON text. It allocates nothing but messages.

use super::super::{Malformed, excerpt, no_nul};

/// As serde_json's: a value nested deeper than this is refused, so that no record can exhaust the stack.
pub(crate) const MAX_DEPTH: u32 = 128;

pub(crate) struct Scan<'a> {
    text: &'a str,
    bytes: &'a [u8],
    pos: usize,
}

/// A string as it stands between its quotes; known to be well-formed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Str<'a> {
    Plain(&'a str),
    Escaped(&'a str),
}

impl<'a> Str<'a> {
    /// The text, in `scratch` where it has to be put together.
    #[inline]
    pub(crate) fn text<'b>(self, scratch: &'b mut Vec<u8>) -> Result<&'b str, Malformed>
    where
        'a: 'b,
    {
        match self {
            Self::Plain(s) => Ok(s),
            Self::Escaped(raw) => {
                scratch.clear();
                unescape(raw, scratch);
                std::str::from_utf8(scratch).map_err(|_| Malformed::new("string is not UTF-8"))
            }
        }
    }

    /// Appends the text. One with a NUL is malformed: JSON can spell it, PostgreSQL's text cannot hold it.
    #[inline]
    pub(crate) fn append_to(self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        match self {
            // Control characters stand in strings only as escapes.
            Self::Plain(s) => out.extend_from_slice(s.as_bytes()),
            Self::Escaped(raw) => {
                let start = out.len();
                unescape(raw, out);
                no_nul(&out[start..])?;
            }
        }
        Ok(())
    }
}

impl<'a> Scan<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, bytes: text.as_bytes(), pos: 0 }
    }

    #[inline]
    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    #[inline]
    pub(crate) fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.pos]
    }

    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.pos).copied()
    }

    #[inline]
    pub(crate) fn eat(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.pos += usize::from(found);
        found
    }

    #[inline]
    pub(crate) fn expect(&mut self, wanted: u8, what: &'static str) -> Result<(), Malformed> {
        if self.eat(wanted) { Ok(()) } else { Err(self.error(what)) }
    }

    #[inline]
    pub(crate) fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.pos += 1;
        }
    }

    #[cold]
    pub(crate) fn error(&self, what: &str) -> Malformed {
        match self.text.get(self.pos..).and_then(|rest| rest.chars().next()) {
            Some(c) => Malformed::new(format!("invalid JSON at byte {}: {what}, found {c:?}", self.pos)),
            None => Malformed::new(format!("invalid JSON at byte {}: {what}, found the end of the value", self.pos)),
        }
    }

    /// The error for a record whose value does not begin with `{`.
    #[cold]
    pub(crate) fn value_that_is_no_object(mut self) -> Malformed {
        let start = self.pos;
        match self.skip(1) {
            Ok(()) => Malformed::new(format!("expected a JSON object, found {}", excerpt(self.since(start)))),
            Err(e) => e,
        }
    }

    #[inline]
    pub(crate) fn eat_null(&mut self) -> Result<bool, Malformed> {
        if self.peek() != Some(b'n') {
            return Ok(false);
        }
        self.word(b"null")?;
        Ok(true)
    }

    #[inline]
    pub(crate) fn word(&mut self, word: &'static [u8]) -> Result<(), Malformed> {
        if self.bytes[self.pos..].starts_with(word) {
            self.pos += word.len();
            Ok(())
        } else {
            Err(self.error("expected a value"))
        }
    }

    /// The string whose opening quote is next.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<Str<'a>, Malformed> {
        self.expect(b'"', "expected a string")?;
        let start = self.pos;
        let mut escaped = false;
        loop {
            self.pos = special(self.bytes, self.pos);
            match self.peek() {
                Some(b'"') => {
                    let raw = &self.text[start..self.pos];
                    self.pos += 1;
                    return Ok(if escaped { Str::Escaped(raw) } else { Str::Plain(raw) });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.error("control characters have to be escaped in strings")),
                None => return Err(self.error("expected the end of a string")),
            }
        }
    }

    /// Checks one escape sequence, a surrogate pair included.
    fn escape(&mut self) -> Result<(), Malformed> {
        self.pos += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.pos += 1;
                Ok(())
            }
            Some(b'u') => {
                let high = self.hex4()?;
                match high {
                    0xD800..=0xDBFF => {
                        if !(self.eat(b'\\') && self.peek() == Some(b'u')) {
                            return Err(self.error("expected the second half of a surrogate pair"));
                        }
                        match self.hex4()? {
                            0xDC00..=0xDFFF => Ok(()),
                            _ => Err(self.error("expected the second half of a surrogate pair")),
                        }
                    }
                    0xDC00..=0xDFFF => Err(self.error("second half of a surrogate pair without the first")),
                    _ => Ok(()),
                }
            }
            _ => Err(self.error("unknown escape sequence")),
        }
    }

    fn hex4(&mut self) -> Result<u32, Malformed> {
        self.pos += 1;
        match self.bytes.get(self.pos..self.pos + 4).and_then(hex) {
            Some(value) => {
                self.pos += 4;
                Ok(value)
            }
            None => Err(self.error("expected four hexadecimal digits")),
        }
    }

    /// The number that is next, spelled as RFC 8259 says.
    #[inline]
    pub(crate) fn number(&mut self) -> Result<&'a str, Malformed> {
        let start = self.pos;
        self.eat(b'-');
        match self.peek() {
            Some(b'0') => self.pos += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.error("expected a digit")),
        }
        if self.eat(b'.') {
            if !matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.error("expected a digit"));
            }
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.pos += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.pos += 1;
            }
            if !matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.error("expected a digit"));
            }
            self.digits();
        }
        Ok(self.since(start))
    }

    #[inline]
    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.pos += 1;
        }
    }

    /// Checks one value of any kind and passes over it.
    pub(crate) fn skip(&mut self, depth: u32) -> Result<(), Malformed> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'{') => {
                self.pos += 1;
                let depth = self.deeper(depth)?;
                self.space();
                if self.eat(b'}') {
                    return Ok(());
                }
                loop {
                    self.member_name()?;
                    self.skip(depth)?;
                    if !self.more(b'}')? {
                        return Ok(());
                    }
                }
            }
            Some(b'[') => {
                self.pos += 1;
                let depth = self.deeper(depth)?;
                self.space();
                if self.eat(b']') {
                    return Ok(());
                }
                loop {
                    self.space();
                    self.skip(depth)?;
                    if !self.more(b']')? {
                        return Ok(());
                    }
                }
            }
            Some(b'-' | b'0'..=b'9') => self.number().map(|_| ()),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => Err(self.error("expected a value")),
        }
    }

    #[inline]
    pub(crate) fn deeper(&self, depth: u32) -> Result<u32, Malformed> {
        if depth >= MAX_DEPTH {
            return Err(Malformed::new(format!("value is nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(depth + 1)
    }

    /// A member's name, the colon, and the space around them.
    #[inline]
    pub(crate) fn member_name(&mut self) -> Result<Str<'a>, Malformed> {
        self.space();
        let name = self.string()?;
        self.space();
        self.expect(b':', "expected a colon")?;
        self.space();
        Ok(name)
    }

    /// Behind a value of an object or a list: true where another follows, false where `close` ends it.
    #[inline]
    pub(crate) fn more(&mut self, close: u8) -> Result<bool, Malformed> {
        self.space();
        if self.eat(b',') {
            Ok(true)
        } else if self.eat(close) {
            Ok(false)
        } else {
            Err(self.error("expected a comma or the closing bracket"))
        }
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |n, b| Some(n * 16 + char::from(*b).to_digit(16)?))
}

/// Index of the next quote, backslash or control character, or the end. Eight bytes at a time: a subtraction that
/// borrows from the top bit of a byte marks it, and marks above the first are never looked at.
#[inline]
fn special(bytes: &[u8], mut pos: usize) -> usize {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = LOW << 7;
    while let Some(chunk) = bytes.get(pos..pos + 8) {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        let word = u64::from_le_bytes(word);
        let quote = word ^ (LOW * b'"' as u64);
        let slash = word ^ (LOW * b'\\' as u64);
        let marks = ((quote.wrapping_sub(LOW) & !quote)
            | (slash.wrapping_sub(LOW) & !slash)
            | (word.wrapping_sub(LOW * 0x20) & !word))
            & HIGH;
        if marks != 0 {
            return pos + (marks.trailing_zeros() / 8) as usize;
        }
        pos += 8;
    }
    while let Some(b) = bytes.get(pos) {
        if *b == b'"' || *b == b'\\' || *b < 0x20 {
            break;
        }
        pos += 1;
    }
    pos
}

/// `raw` has been checked by [`Scan::string`]; what could not be there is left out.
fn unescape(raw: &str, out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let bytes = rest.as_bytes();
        let (plain, used) = match bytes.get(at + 1) {
            Some(b'b') => (8u8, 2),
            Some(b'f') => (12, 2),
            Some(b'n') => (b'\n', 2),
            Some(b'r') => (b'\r', 2),
            Some(b't') => (b'\t', 2),
            Some(b'u') => {
                let unit = |from: usize| bytes.get(from..from + 4).and_then(hex);
                let high = unit(at + 2).unwrap_or(0xFFFD);
                let (code, used) = match (high, unit(at + 8)) {
                    (0xD800..=0xDBFF, Some(low @ 0xDC00..=0xDFFF)) => {
                        (0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00), 12)
                    }
                    _ => (high, 6),
                };
                let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[(at + used).min(rest.len())..];
                continue;
            }
            Some(other) => (*other, 2),
            None => break,
        };
        out.push(plain);
        rest = &rest[at + used..];
    }
    out.extend_from_slice(rest.as_bytes());
}
