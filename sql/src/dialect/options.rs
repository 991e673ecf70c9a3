//! `WITH (name = value, …)`.

use std::fmt;
use std::time::Duration;

use sqlparser::tokenizer::Token;

use super::ast::Name;
use super::cursor::{Cursor, Parsed};
use super::errors::{SYNTAX, bad_value, error, refused};
use crate::SqlError;

/// Most options in one list.
const MAX_OPTIONS: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionValue {
    Text(String),
    /// As written.
    Number(String),
    Bool(bool),
    Secret(Name),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionEntry {
    pub name: String,
    pub value: OptionValue,
}

/// Options in the order they were written. No name comes twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(pub Vec<OptionEntry>);

impl Options {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<&OptionValue> {
        self.0.iter().find(|e| e.name == name).map(|e| &e.value)
    }

    /// Replaces the value where the option is there, adds it where not.
    pub fn set(&mut self, name: &str, value: OptionValue) {
        match self.0.iter_mut().find(|e| e.name == name) {
            Some(entry) => entry.value = value,
            None => self.0.push(OptionEntry { name: name.to_string(), value }),
        }
    }

    /// False where it was not there.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|e| e.name != name);
        self.0.len() != before
    }

    pub(super) fn parse(c: &mut Cursor<'_>) -> Parsed<Self> {
        c.expect_token(&Token::LParen)?;
        let mut options = Self::default();
        loop {
            let location = c.location();
            let mut name = c.ident()?;
            while c.eat_token(&Token::Period) {
                name = format!("{name}.{}", c.ident()?);
            }
            c.expect_token(&Token::Eq)?;
            let value = Self::value(c)?;
            if options.get(&name).is_some() {
                let e = error(SYNTAX, format!("option \"{name}\" is given more than once"));
                return Err(super::errors::At::new(e, location));
            }
            if options.0.len() == MAX_OPTIONS {
                return Err(c.fail(error(SYNTAX, format!("more than {MAX_OPTIONS} options"))));
            }
            options.0.push(OptionEntry { name, value });
            if !c.eat_token(&Token::Comma) {
                break;
            }
        }
        c.expect_token(&Token::RParen)?;
        Ok(options)
    }

    fn value(c: &mut Cursor<'_>) -> Parsed<OptionValue> {
        if c.is_at(0, "SECRET") && matches!(c.token(1), Token::Word(_)) {
            c.advance();
            return Ok(OptionValue::Secret(c.bare_name()?));
        }
        for (word, value) in [("TRUE", true), ("FALSE", false)] {
            if c.eat(&[word]) {
                return Ok(OptionValue::Bool(value));
            }
        }
        let minus = matches!(c.token(0), Token::Minus);
        let number = match c.token(usize::from(minus)) {
            Token::Number(n, false) => Some(n.clone()),
            _ => None,
        };
        if let Some(number) = number {
            if minus {
                c.advance();
            }
            c.advance();
            return Ok(OptionValue::Number(if minus { format!("-{number}") } else { number }));
        }
        if matches!(c.token(0), Token::Word(_)) || minus {
            return Err(c.unexpected("a string, a number, true, false or SECRET name"));
        }
        Ok(OptionValue::Text(c.string()?))
    }
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(s) => f.write_str(&super::quote_text(s)),
            Self::Number(n) => f.write_str(n),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Secret(name) => write!(f, "SECRET {name}"),
        }
    }
}

/// Takes options out of a list one by one; what is left at the end is unknown.
pub(super) struct Reader<'a> {
    options: &'a Options,
    /// `stream "orders"`.
    owner: String,
    choices: &'static [&'static str],
}

impl<'a> Reader<'a> {
    /// Fails where an option is not among the choices, naming the nearest.
    pub fn new(options: &'a Options, owner: String, choices: &'static [&'static str]) -> Result<Self, SqlError> {
        for entry in &options.0 {
            known(&entry.name, &owner, choices)?;
        }
        Ok(Self { options, owner, choices })
    }

    fn bad(&self, name: &str, shown: &str, hint: impl Into<String>) -> SqlError {
        debug_assert!(self.choices.contains(&name), "{name}");
        bad_value(format!("invalid value for option \"{name}\" of {}: {shown}", self.owner), hint)
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>, SqlError> {
        match self.options.get(name) {
            None => Ok(None),
            Some(OptionValue::Text(s)) => Ok(Some(s)),
            Some(other) => Err(self.bad(name, &other.to_string(), "Write the value as a string in quotes.")),
        }
    }

    /// A value that the caller did not understand.
    pub fn refuse_text(&self, name: &str, hint: &str) -> SqlError {
        let shown = self.options.get(name).map_or_else(String::new, shown);
        self.bad(name, &shown, hint)
    }

    pub fn bool(&self, name: &str) -> Result<Option<bool>, SqlError> {
        match self.options.get(name) {
            None => Ok(None),
            Some(OptionValue::Bool(b)) => Ok(Some(*b)),
            Some(OptionValue::Text(s)) if s.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(OptionValue::Text(s)) if s.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(other) => Err(self.bad(name, &shown(other), "Use true or false.")),
        }
    }

    pub fn int(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, SqlError> {
        let value = match self.options.get(name) {
            None => return Ok(None),
            Some(v) => v,
        };
        let parsed = match value {
            OptionValue::Number(s) | OptionValue::Text(s) => s.parse::<u64>().ok(),
            _ => None,
        };
        match parsed {
            Some(n) if (min..=max).contains(&n) => Ok(Some(n)),
            _ => Err(self.bad(name, &shown(value), format!("Use a whole number from {min} to {max}."))),
        }
    }

    pub fn duration(&self, name: &str, min: Duration, max: Duration) -> Result<Option<Duration>, SqlError> {
        let value = match self.options.get(name) {
            None => return Ok(None),
            Some(v) => v,
        };
        let parsed = match value {
            OptionValue::Text(s) => parse_duration(s),
            _ => None,
        };
        match parsed {
            Some(d) if d >= min && d <= max => Ok(Some(d)),
            Some(_) => Err(self.bad(
                name,
                &shown(value),
                format!("Use a duration from '{} ms' to '{} s'.", min.as_millis(), max.as_secs()),
            )),
            None => Err(self.bad(name, &shown(value), "Write a duration as '500 ms', '5 s', '2 min', '1 h' or '7 d'.")),
        }
    }

    pub fn size(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, SqlError> {
        let value = match self.options.get(name) {
            None => return Ok(None),
            Some(v) => v,
        };
        let parsed = match value {
            OptionValue::Text(s) => parse_size(s),
            OptionValue::Number(n) => n.parse().ok(),
            _ => None,
        };
        match parsed {
            Some(n) if (min..=max).contains(&n) => Ok(Some(n)),
            Some(_) => Err(self.bad(name, &shown(value), format!("Use a size from {min} to {max} bytes."))),
            None => Err(self.bad(name, &shown(value), "Write a size as '64 kB', '256 MB' or '2 GB'.")),
        }
    }

    /// One of a few words. `later` are words of the dialect that are not built yet.
    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)], later: &[&str]) -> Result<Option<T>, SqlError> {
        let Some(value) = self.text(name)? else { return Ok(None) };
        if let Some((_, found)) = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(value)) {
            return Ok(Some(*found));
        }
        let usable = list(choices.iter().map(|(word, _)| *word), "or");
        if later.iter().any(|word| word.eq_ignore_ascii_case(value)) {
            return Err(refused(
                format!("{name} = '{value}' is not supported yet for {}", self.owner),
                format!("Use {usable}."),
            ));
        }
        Err(self.bad(name, &shown_text(value), format!("Use {usable}.")))
    }

    /// Options of the dialect that are not built yet.
    pub fn refuse_later(&self, names: &[&str], hint: &str) -> Result<(), SqlError> {
        match names.iter().find(|n| self.options.get(n).is_some()) {
            Some(name) => Err(refused(format!("option \"{name}\" of {} is not supported yet", self.owner), hint)),
            None => Ok(()),
        }
    }
}

/// Fails where `name` is not one of `choices`.
pub(crate) fn known(name: &str, owner: &str, choices: &[&str]) -> Result<(), SqlError> {
    if choices.contains(&name) {
        return Ok(());
    }
    let all = list(choices.iter().copied(), "and");
    let nearest = choices
        .iter()
        .map(|c| (strsim::damerau_levenshtein(c, name), *c))
        .min()
        .filter(|(distance, c)| *distance <= 1 + c.len() / 3);
    let hint = match nearest {
        Some((_, c)) => format!("Perhaps you meant \"{c}\". The options are {all}."),
        None if choices.is_empty() => "There are no options here.".to_string(),
        None => format!("The options are {all}."),
    };
    Err(bad_value(format!("unknown option \"{name}\" of {owner}"), hint))
}

/// `"a", "b" or "c"`.
pub(crate) fn list<'a>(words: impl Iterator<Item = &'a str>, last: &str) -> String {
    let words: Vec<String> = words.map(|w| format!("\"{w}\"")).collect();
    match words.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
    }
}

fn shown(value: &OptionValue) -> String {
    match value {
        OptionValue::Text(s) => shown_text(s),
        other => other.to_string(),
    }
}

fn shown_text(s: &str) -> String {
    let mut short: String = s.chars().take(60).collect();
    if short.len() < s.len() {
        short.push('…');
    }
    format!("\"{short}\"")
}

/// `'5 s'`, `'1 h 30 min'`, `'250ms'`. None where it is no duration, or too long for one.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest)?;
        let ms = match unit.to_ascii_lowercase().as_str() {
            "ms" | "msec" | "millisecond" | "milliseconds" => 1.0,
            "s" | "sec" | "secs" | "second" | "seconds" => 1e3,
            "m" | "min" | "mins" | "minute" | "minutes" => 6e4,
            "h" | "hour" | "hours" => 3.6e6,
            "d" | "day" | "days" => 8.64e7,
            "w" | "week" | "weeks" => 6.048e8,
            _ => return None,
        };
        let ms = number * ms;
        // A thousand years.
        if !(0.0..=3.2e13).contains(&ms) {
            return None;
        }
        total = total.checked_add(Duration::from_millis(ms.round() as u64))?;
        rest = after;
    }
    Some(total)
}

/// `'256 MB'`: as in PostgreSQL, a kB is 1024 bytes. None where it is no size.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(n) = text.parse() {
        return Some(n);
    }
    let (number, unit, "") = number_and_unit(text)? else { return None };
    let shift = match unit.to_ascii_lowercase().as_str() {
        "b" | "byte" | "bytes" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let bytes = number * (1u64 << shift) as f64;
    (0.0..=9e15).contains(&bytes).then_some(bytes.round() as u64)
}

fn number_and_unit(text: &str) -> Option<(f64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let number = text[..digits].parse().ok()?;
    let rest = text[digits..].trim_start();
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    Some((number, &rest[..letters], rest[letters..].trim_start()))
}

/// Milliseconds since 1970-01-01 UTC of `'2026-08-01'`, `'2026-08-01 12:00:00+02'`, …; UTC where no zone is said.
pub fn parse_timestamp_ms(text: &str) -> Option<i64> {
    let ns = arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text.trim()).ok()?;
    let ms = ns.div_euclid(1_000_000);
    (ms >= 0).then_some(ms)
}
