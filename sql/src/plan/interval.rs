//! Intervals in text.

use arrow::datatypes::IntervalMonthDayNano;
use datafusion::common::ScalarValue;

use crate::{SqlError, SqlState};

/// `1 year -2 mons +3 days -04:05:06.789`, as PostgreSQL prints it, with the usual spellings of the units, `ago`, and
/// ISO 8601 (`P1DT2H`). None for other notations, and for fractions of anything but seconds, whose meaning depends on
/// the calendar.
pub fn interval(text: &str) -> Option<IntervalMonthDayNano> {
    let text = text.trim();
    if text.starts_with(['P', 'p']) {
        return iso(text);
    }
    let words: Vec<&str> = text.split_ascii_whitespace().filter(|w| *w != "@").collect();
    let (words, ago) = match words.as_slice() {
        [words @ .., last] if last.eq_ignore_ascii_case("ago") => (words, true),
        all => (all, false),
    };
    let mut sum = Sum::default();
    let mut words = words.iter();
    let mut empty = true;
    while let Some(word) = words.next() {
        empty = false;
        if word.contains(':') {
            sum.nanoseconds = sum.nanoseconds.checked_add(clock_nanoseconds(word)?)?;
            continue;
        }
        // `5days` is two words in one.
        let split = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
        let (count, unit) = word.split_at(split);
        let unit = if unit.is_empty() { words.next()? } else { unit };
        sum.add(count, unit)?;
    }
    if empty {
        return None;
    }
    if ago { sum.negated() } else { Some(sum.into_interval()) }
}

/// 22007 where the text is no interval.
pub(super) fn literal(text: &str) -> Result<ScalarValue, SqlError> {
    match interval(text) {
        Some(value) => Ok(ScalarValue::IntervalMonthDayNano(Some(value))),
        None => Err(SqlError::new(
            SqlState::INVALID_DATETIME,
            format!("invalid input syntax for type interval: \"{text}\""),
        )),
    }
}

#[derive(Default)]
struct Sum {
    months: i32,
    days: i32,
    nanoseconds: i64,
}

impl Sum {
    fn add(&mut self, count: &str, unit: &str) -> Option<()> {
        let unit = unit.to_ascii_lowercase();
        let singular = unit.strip_suffix('s').filter(|u| !u.is_empty() && !matches!(unit.as_str(), "ms" | "us"));
        let unit = singular.unwrap_or(&unit);
        if matches!(unit, "second" | "sec" | "s") {
            self.nanoseconds = self.nanoseconds.checked_add(seconds_nanoseconds(count)?)?;
            return Some(());
        }
        let count: i64 = count.parse().ok()?;
        let small = i32::try_from(count).ok();
        let mut months = |each: i32| {
            self.months = self.months.checked_add(small?.checked_mul(each)?)?;
            Some(())
        };
        match unit {
            "millennium" | "millennia" | "mil" => return months(12_000),
            "century" | "centurie" | "cent" | "c" => return months(1_200),
            "decade" | "dec" => return months(120),
            "year" | "yr" | "y" => return months(12),
            "month" | "mon" => return months(1),
            "week" | "w" => self.days = self.days.checked_add(small?.checked_mul(7)?)?,
            "day" | "d" => self.days = self.days.checked_add(small?)?,
            _ => {
                let each = match unit {
                    "hour" | "hr" | "h" => 3_600_000_000_000,
                    "minute" | "min" | "m" => 60_000_000_000,
                    "millisecond" | "msec" | "ms" => 1_000_000,
                    "microsecond" | "usec" | "us" => 1000,
                    _ => return None,
                };
                self.nanoseconds = self.nanoseconds.checked_add(count.checked_mul(each)?)?;
            }
        }
        Some(())
    }

    fn negated(self) -> Option<IntervalMonthDayNano> {
        let sum = Self {
            months: self.months.checked_neg()?,
            days: self.days.checked_neg()?,
            nanoseconds: self.nanoseconds.checked_neg()?,
        };
        Some(sum.into_interval())
    }

    fn into_interval(self) -> IntervalMonthDayNano {
        IntervalMonthDayNano { months: self.months, days: self.days, nanoseconds: self.nanoseconds }
    }
}

/// `P1Y2M3W4DT5H6M7.5S`.
fn iso(text: &str) -> Option<IntervalMonthDayNano> {
    let mut sum = Sum::default();
    let (mut rest, mut time, mut empty) = (text.get(1..)?, false, true);
    while !rest.is_empty() {
        if let Some(clock) = rest.strip_prefix(['T', 't']) {
            if time {
                return None;
            }
            (time, rest) = (true, clock);
            continue;
        }
        let split = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (count, unit) = rest.split_at(split);
        let unit_name = match (unit.chars().next()?.to_ascii_uppercase(), time) {
            ('Y', false) => "year",
            ('M', false) => "month",
            ('W', false) => "week",
            ('D', false) => "day",
            ('H', true) => "hour",
            ('M', true) => "minute",
            ('S', true) => "second",
            _ => return None,
        };
        sum.add(count, unit_name)?;
        empty = false;
        rest = unit.get(1..)?;
    }
    (!empty).then(|| sum.into_interval())
}

/// `[±]HH:MM[:SS[.f]]`; hours may pass 24.
fn clock_nanoseconds(word: &str) -> Option<i64> {
    let clock = word.strip_prefix(['-', '+']).unwrap_or(word);
    let mut parts = clock.splitn(3, ':');
    let whole = |part: Option<&str>| part.filter(|p| p.bytes().all(|b| b.is_ascii_digit()))?.parse::<i64>().ok();
    let (hours, minutes) = (whole(parts.next())?, whole(parts.next())?);
    let seconds = match parts.next() {
        Some(s) if s.starts_with(['-', '+']) => return None,
        Some(s) => seconds_nanoseconds(s)?,
        None => 0,
    };
    if minutes >= 60 || seconds >= 60_000_000_000 {
        return None;
    }
    let total = hours.checked_mul(3600)?.checked_add(minutes * 60)?.checked_mul(1_000_000_000)?.checked_add(seconds)?;
    Some(if word.starts_with('-') { -total } else { total })
}

fn seconds_nanoseconds(word: &str) -> Option<i64> {
    let digits = word.strip_prefix(['-', '+']).unwrap_or(word);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
    if fraction.len() > 9 || !all_digits || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    let seconds = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()? };
    let total = seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    Some(if word.starts_with('-') { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notations() {
        let parts = |text: &str| interval(text).map(|i| (i.months, i.days, i.nanoseconds / 1_000_000));
        let clock = (2 * 3600 + 3 * 60 + 4) * 1000;
        assert_eq!(parts("1 day 02:03:04"), Some((0, 1, clock)));
        assert_eq!(parts("1 year -2 mons +3 days -02:03:04"), Some((10, 3, -clock)));
        assert_eq!(parts("@ 1 minute ago"), Some((0, 0, -60_000)));
        assert_eq!(parts("P1Y2M3W4DT2H3M4S"), Some((14, 25, clock)));
        assert_eq!(parts("5days 1.5s"), Some((0, 5, 1500)));
        assert_eq!(parts("2 ms"), Some((0, 0, 2)));
        assert_eq!(parts("3000 us"), Some((0, 0, 3)));
        for bad in ["", "ago", "1", "P", "PT", "P1H", "1.5 days", "x days", "1 fortnight", "99999999999 years"] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }
}
