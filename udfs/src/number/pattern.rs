//! Patterns of `to_char` for numbers.

use datafusion::common::{Result, not_impl_err, plan_err};

/// Decimal digits that every double precision has.
const FLOAT_DIGITS: usize = 15;

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// `9` or `0`.
    Digit,
    Point,
    Comma,
    /// `S` and `MI`.
    Sign,
    Minus,
    Text(String),
}

/// A pattern in its pieces.
pub(super) struct Pattern {
    tokens: Vec<Token>,
    /// Without blanks and trailing zeros.
    bare: bool,
    /// `<1>` for -1.
    brackets: bool,
    before: usize,
    behind: usize,
    /// Digits before the point that are written even where they are leading zeros: from this one on.
    zeros_from: Option<usize>,
    /// The last `0` behind the point, counted from 1: zeros up to it stay.
    kept: usize,
}

impl Pattern {
    pub fn new(pattern: &str) -> Result<Self> {
        let mut new =
            Self { tokens: vec![], bare: false, brackets: false, before: 0, behind: 0, zeros_from: None, kept: 0 };
        let (mut rest, mut point) = (pattern, false);
        while let Some(first) = rest.chars().next() {
            let upper: String = rest.chars().take(4).flat_map(char::to_uppercase).collect();
            let (token, len) = match (upper.as_str(), first) {
                (_, '9' | '0') => {
                    if point {
                        new.behind += 1;
                        if first == '0' {
                            new.kept = new.behind;
                        }
                    } else {
                        if first == '0' && new.zeros_from.is_none() {
                            new.zeros_from = Some(new.before);
                        }
                        new.before += 1;
                    }
                    (Some(Token::Digit), 1)
                }
                (_, '.' | 'D' | 'd') => {
                    if std::mem::replace(&mut point, true) {
                        return plan_err!("multiple decimal points");
                    }
                    (Some(Token::Point), 1)
                }
                (_, ',' | 'G' | 'g') => (Some(Token::Comma), 1),
                (u, _) if u.starts_with("FM") => {
                    new.bare = true;
                    (None, 2)
                }
                (u, _) if u.starts_with("MI") => (Some(Token::Minus), 2),
                (u, _) if u.starts_with("PR") => {
                    new.brackets = true;
                    (None, 2)
                }
                (u, _) if ["SG", "SP", "PL", "TH", "RN"].iter().any(|p| u.starts_with(p)) => {
                    return not_impl_err!("pattern \"{}\" of numbers is not supported yet", &u[..2]);
                }
                (_, 'S' | 's') => (Some(Token::Sign), 1),
                (_, 'B' | 'b' | 'C' | 'c' | 'E' | 'e' | 'V' | 'v' | 'L' | 'l' | '\\') => {
                    return not_impl_err!("pattern \"{}\" of numbers is not supported yet", first.to_uppercase());
                }
                (_, '"') => {
                    let quoted = &rest[1..];
                    let end = quoted.find('"').unwrap_or(quoted.len());
                    if quoted[..end].contains('\\') {
                        return not_impl_err!("backslashes in patterns are not supported");
                    }
                    (Some(Token::Text(quoted[..end].to_owned())), (end + 2).min(rest.len()))
                }
                (_, other) => (Some(Token::Text(other.to_string())), other.len_utf8()),
            };
            new.tokens.extend(token);
            rest = &rest[len..];
        }
        // PostgreSQL writes # for the zero that has no place.
        if new.before == 0 && new.behind > 0 {
            return not_impl_err!("patterns without a digit before the point are not supported");
        }
        Ok(new)
    }

    pub fn write_decimal(&self, out: &mut String, value: i128, scale: i8) {
        let behind = self.behind as i32;
        let drop = i32::from(scale) - behind;
        let magnitude = value.unsigned_abs();
        // More digits than a value has need no rounding, and dropping more leaves nothing.
        let digits = match u32::try_from(drop) {
            Ok(drop) => match 10u128.checked_pow(drop) {
                Some(unit) => {
                    ((magnitude / unit) + u128::from(magnitude % unit >= unit.div_ceil(2) && drop > 0)).to_string()
                }
                None => "0".to_owned(),
            },
            Err(_) => format!("{magnitude}{}", "0".repeat(drop.unsigned_abs() as usize)),
        };
        self.write(out, value < 0, &digits);
    }

    pub fn write_float(&self, out: &mut String, value: f64) -> Result<()> {
        if !value.is_finite() {
            return not_impl_err!("to_char of NaN and infinity is not supported");
        }
        let text = format!("{:.*}", self.behind, value.abs());
        // More are noise, and PostgreSQL leaves them out.
        if text.len() - usize::from(self.behind > 0) > FLOAT_DIGITS {
            return not_impl_err!("to_char of more than {FLOAT_DIGITS} digits of a double precision is not supported");
        }
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        self.write(out, value < 0.0, digits.trim_start_matches('0'));
        Ok(())
    }

    /// `digits` are those of the number without point, of which the last `self.behind` stand behind it.
    fn write(&self, out: &mut String, negative: bool, digits: &str) {
        let digits = digits.trim_start_matches('0');
        let padded = format!("{digits:0>width$}", width = self.behind);
        let (whole, fraction) = padded.split_at(padded.len() - self.behind);
        // A zero before the point is written where nothing else would be.
        let nothing = self.bare && self.kept == 0 && fraction.bytes().all(|d| d == b'0');
        let whole = if whole.is_empty() && (self.behind == 0 || nothing) && self.before > 0 { "0" } else { whole };
        let over = whole.len() > self.before;
        let negative = negative && digits.bytes().any(|d| d != b'0');
        // What a bare number ends with: zeros that a 9 asked for are left out.
        let shown = if self.bare { fraction.trim_end_matches('0').len().max(self.kept) } else { self.behind };
        let own_sign = self.brackets || self.tokens.iter().any(|t| matches!(t, Token::Minus | Token::Sign));
        let leading = matches!(self.tokens.iter().find(|t| !matches!(t, Token::Text(_))), Some(Token::Sign));
        let sign = if self.brackets {
            if negative { "<" } else { " " }
        } else if leading {
            if negative { "-" } else { "+" }
        } else if own_sign {
            ""
        } else if negative {
            "-"
        } else {
            " "
        };
        let sign = if self.bare { sign.trim() } else { sign };
        let first = self.zeros_from.map_or(usize::MAX, |z| z).min(self.before.saturating_sub(whole.len()));
        let (mut at, mut point, mut signed) = (0, false, false);
        let mut seen_digit = false;
        for token in &self.tokens {
            match token {
                Token::Digit if point => {
                    let i = at - self.before;
                    if over {
                        out.push('#');
                    } else if i < shown {
                        out.push_str(&fraction[i..=i]);
                    }
                    at += 1;
                }
                Token::Digit => {
                    if over {
                        if !signed {
                            out.push_str(sign);
                            signed = true;
                        }
                        out.push('#');
                    } else if at >= first {
                        if !signed {
                            out.push_str(sign);
                            signed = true;
                        }
                        let from = (at + whole.len()).checked_sub(self.before);
                        out.push_str(from.map_or("0", |i| &whole[i..=i]));
                        seen_digit = true;
                    } else if !self.bare {
                        out.push(' ');
                    }
                    at += 1;
                }
                Token::Comma => {
                    if seen_digit || over {
                        out.push(',');
                    } else if !self.bare {
                        out.push(' ');
                    }
                }
                Token::Point => {
                    if !signed {
                        out.push_str(sign);
                        signed = true;
                    }
                    out.push('.');
                    point = true;
                    at = self.before;
                }
                Token::Sign if leading && !signed => {}
                Token::Sign => out.push(if negative { '-' } else { '+' }),
                Token::Minus if negative => out.push('-'),
                Token::Minus if !self.bare => out.push(' '),
                Token::Minus => {}
                Token::Text(text) => out.push_str(text),
            }
        }
        if self.brackets {
            if negative {
                out.push('>');
            } else if !self.bare {
                out.push(' ');
            }
        }
    }
}
