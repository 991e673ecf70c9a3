//! Patterns of `to_char` for times (PostgreSQL, "Data Type Formatting Functions").

use std::fmt::Write;

use chrono::{Datelike, NaiveDateTime, Timelike, Weekday};
use datafusion::common::{Result, not_impl_err};

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Every pattern, longer ones before those that they begin with. Letters of either case are one pattern, unless the
/// case decides how a word is written.
const PATTERNS: [&str; 47] = [
    "HH24", "HH12", "HH", "MI", "SSSSS", "SSSS", "SS", "MS", "US", "FF1", "FF2", "FF3", "FF4", "FF5", "FF6", "A.M.",
    "P.M.", "AM", "PM", "Y,YYY", "YYYY", "YYY", "YY", "Y", "IYYY", "IYY", "IDDD", "IY", "IW", "ID", "I", "B.C.",
    "A.D.", "BC", "AD", "MONTH", "MON", "MM", "DAY", "DY", "DDD", "DD", "D", "WW", "W", "CC", "Q",
];
/// Known to PostgreSQL, and not here.
const REFUSED: [&str; 8] = ["TZH", "TZM", "TZ", "OF", "RM", "J", "TM", "FX"];

/// The piece of a pattern that a text begins with.
pub(super) enum Piece<'a> {
    Pattern(&'static str, &'a str),
    /// Copied as it is.
    Text(&'a str),
}

/// Cuts a pattern into its pieces; `FM` and `TH` are left to the caller.
pub(super) fn next(rest: &str) -> Result<(Piece<'_>, &str)> {
    if let Some(quoted) = rest.strip_prefix('"') {
        let end = quoted.find('"').unwrap_or(quoted.len());
        if quoted[..end].contains('\\') {
            return not_impl_err!("backslashes in patterns are not supported");
        }
        return Ok((Piece::Text(&quoted[..end]), quoted.get(end + 1..).unwrap_or("")));
    }
    if rest.starts_with('\\') {
        return not_impl_err!("backslashes in patterns are not supported");
    }
    let begins = |p: &&&str| rest.get(..p.len()).is_some_and(|head| head.eq_ignore_ascii_case(p));
    if let Some(refused) = REFUSED.iter().find(begins) {
        return not_impl_err!("pattern \"{refused}\" of times is not supported yet");
    }
    if let Some(pattern) = PATTERNS.iter().find(begins) {
        let (head, tail) = rest.split_at(pattern.len());
        return Ok((Piece::Pattern(pattern, head), tail));
    }
    let first = rest.chars().next().map_or(0, char::len_utf8);
    let (head, tail) = rest.split_at(first);
    Ok((Piece::Text(head), tail))
}

/// Writes one time by the pattern.
pub(crate) fn write(out: &mut String, time: NaiveDateTime, pattern: &str) -> Result<()> {
    let mut rest = pattern;
    while !rest.is_empty() {
        let mut fill = true;
        if let Some(tail) = strip(rest, "FM") {
            (fill, rest) = (false, tail);
            if rest.is_empty() {
                break;
            }
        }
        let (piece, tail) = next(rest)?;
        rest = tail;
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Pattern(pattern, written) => {
                let start = out.len();
                one(out, time, pattern, written, fill);
                let numeric = out[start..].ends_with(|c: char| c.is_ascii_digit());
                if let Some(tail) = strip(rest, "TH").filter(|_| numeric) {
                    let lower = rest.starts_with("th");
                    let suffix = ordinal(&out[start..]);
                    out.push_str(&if lower { suffix.to_lowercase() } else { suffix.to_uppercase() });
                    rest = tail;
                }
            }
        }
    }
    Ok(())
}

fn strip<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

fn ordinal(number: &str) -> &'static str {
    let teen = number.len() > 1 && number.as_bytes()[number.len() - 2] == b'1';
    match number.as_bytes().last() {
        Some(b'1') if !teen => "st",
        Some(b'2') if !teen => "nd",
        Some(b'3') if !teen => "rd",
        _ => "th",
    }
}

fn one(out: &mut String, time: NaiveDateTime, pattern: &str, written: &str, fill: bool) {
    // PostgreSQL counts years before our era from 1 as well.
    let year = if time.year() > 0 { time.year() } else { 1 - time.year() };
    let week = time.iso_week();
    let pm = time.hour() >= 12;
    let era = time.year() > 0;
    let mut number = |value: i64, width: usize| {
        let _ = if fill { write!(out, "{value:0width$}") } else { write!(out, "{value}") };
    };
    let us = i64::from(time.nanosecond() / 1000) % 1_000_000;
    let from_monday = i64::from(time.weekday().number_from_monday());
    match pattern {
        "HH24" => number(time.hour().into(), 2),
        "HH12" | "HH" => number(i64::from((time.hour() + 11) % 12 + 1), 2),
        "MI" => number(time.minute().into(), 2),
        "SS" => number(time.second().into(), 2),
        "SSSS" | "SSSSS" => number(time.num_seconds_from_midnight().into(), 0),
        "MS" => number(us / 1000, 3),
        "US" => number(us, 6),
        "FF1" => number(us / 100_000, 1),
        "FF2" => number(us / 10_000, 2),
        "FF3" => number(us / 1000, 3),
        "FF4" => number(us / 100, 4),
        "FF5" => number(us / 10, 5),
        "FF6" => number(us, 6),
        "YYYY" => number(year.into(), 4),
        "YYY" => number((year % 1000).into(), 3),
        "YY" => number((year % 100).into(), 2),
        "Y" => number((year % 10).into(), 1),
        "IYYY" => number(week.year().into(), 4),
        "IYY" => number((week.year() % 1000).into(), 3),
        "IY" => number((week.year() % 100).into(), 2),
        "I" => number((week.year() % 10).into(), 1),
        "Y,YYY" => {
            let _ = write!(out, "{},{:03}", year / 1000, year % 1000);
        }
        "MM" => number(time.month().into(), 2),
        "DDD" => number(time.ordinal().into(), 3),
        "DD" => number(time.day().into(), 2),
        "D" => number(i64::from(time.weekday().num_days_from_sunday()) + 1, 1),
        "ID" => number(from_monday, 1),
        "IDDD" => number(i64::from(week.week() - 1) * 7 + from_monday, 3),
        "IW" => number(week.week().into(), 2),
        "WW" => number(i64::from(time.ordinal0() / 7) + 1, 2),
        "W" => number(i64::from(time.day0() / 7) + 1, 1),
        "CC" => number(i64::from((year + 99) / 100), 2),
        "Q" => number(i64::from(time.month0() / 3) + 1, 1),
        "AM" | "PM" => word(out, if pm { "pm" } else { "am" }, written, 0),
        "A.M." | "P.M." => word(out, if pm { "p.m." } else { "a.m." }, written, 0),
        "BC" | "AD" => word(out, if era { "ad" } else { "bc" }, written, 0),
        "B.C." | "A.D." => word(out, if era { "a.d." } else { "b.c." }, written, 0),
        "MONTH" => word(out, MONTHS[time.month0() as usize], written, if fill { 9 } else { 0 }),
        "MON" => word(out, &MONTHS[time.month0() as usize][..3], written, 0),
        "DAY" => word(out, day(time.weekday()), written, if fill { 9 } else { 0 }),
        _ => word(out, &day(time.weekday())[..3], written, 0),
    }
}

fn day(weekday: Weekday) -> &'static str {
    DAYS[weekday.num_days_from_sunday() as usize]
}

/// The word in the case of the pattern: `MONTH`, `Month`, `month`.
fn word(out: &mut String, word: &str, written: &str, width: usize) {
    let mut letters = written.chars().filter(char::is_ascii_alphabetic);
    let (first, second) = (letters.next(), letters.next());
    let upper = |c: Option<char>| c.is_some_and(|c| c.is_ascii_uppercase());
    let word = match (upper(first), upper(second)) {
        (true, true) => word.to_uppercase(),
        (true, false) => {
            let (head, tail) = word.split_at(1);
            format!("{}{}", head.to_uppercase(), tail.to_lowercase())
        }
        (false, _) => word.to_lowercase(),
    };
    let _ = write!(out, "{word:<width$}");
}
