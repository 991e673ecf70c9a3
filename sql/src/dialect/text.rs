//! Places in a text: sqlparser counts lines and columns, clients count characters.

use sqlparser::tokenizer::{Location, Span, TokenWithSpan};

/// Characters of `text` before `location`. None for the empty location, which sqlparser gives to made-up nodes.
pub(crate) fn chars_before(text: &str, location: Location) -> Option<usize> {
    let byte = byte_of(text, location)?;
    Some(text.get(..byte)?.chars().count())
}

/// Byte index of `location`; the end of the text for places behind it.
pub(crate) fn byte_of(text: &str, location: Location) -> Option<usize> {
    if location.line == 0 {
        return None;
    }
    let mut start = 0;
    for _ in 1..location.line {
        match text[start..].find('\n') {
            Some(n) => start += n + 1,
            None => return Some(text.len()),
        }
    }
    let column = usize::try_from(location.column.saturating_sub(1)).ok()?;
    Some(text[start..].char_indices().nth(column).map_or(text.len(), |(i, _)| start + i))
}

/// The text of a span.
pub(crate) fn slice(text: &str, span: Span) -> &str {
    let (Some(start), Some(end)) = (byte_of(text, span.start), byte_of(text, span.end)) else { return "" };
    text.get(start..end).unwrap_or("")
}

/// Moves the spans of tokens so that they count from `origin`.
pub(crate) fn rebase(tokens: &mut [TokenWithSpan], origin: Location) {
    let move_one = |l: Location| {
        if l.line == 0 {
            return l;
        }
        let column = if l.line == origin.line { l.column + 1 - origin.column } else { l.column };
        Location::new(l.line + 1 - origin.line, column)
    };
    for token in tokens {
        token.span = Span::new(move_one(token.span.start), move_one(token.span.end));
    }
}
