//! Intervals in text.

use arrow::datatypes::IntervalMonthDayNano;

/// `1 year -2 mons +3 days -04:05:06.789`, as PostgreSQL prints it, with the usual spellings of the units. Other
/// notations are refused; so are fractions of anything but seconds, whose meaning depends on the calendar.
pub(super) fn interval(text: &str) -> Option<IntervalMonthDayNano> {
    let (mut months, mut days, mut nanoseconds) = (0i32, 0i32, 0i64);
    let mut words = text.split_ascii_whitespace();
    let mut empty = true;
    while let Some(word) = words.next() {
        empty = false;
        if word.contains(':') {
            nanoseconds = nanoseconds.checked_add(clock_nanoseconds(word)?)?;
            continue;
        }
        let unit = words.next()?.to_ascii_lowercase();
        let unit = unit.strip_suffix('s').filter(|u| !u.is_empty()).unwrap_or(&unit);
        if matches!(unit, "second" | "sec" | "s") {
            nanoseconds = nanoseconds.checked_add(seconds_nanoseconds(word)?)?;
            continue;
        }
        let count: i64 = word.parse().ok()?;
        let small = i32::try_from(count).ok();
        match unit {
            "year" | "yr" | "y" => months = months.checked_add(small?.checked_mul(12)?)?,
            "month" | "mon" => months = months.checked_add(small?)?,
            "week" | "w" => days = days.checked_add(small?.checked_mul(7)?)?,
            "day" | "d" => days = days.checked_add(small?)?,
            "hour" | "hr" | "h" => nanoseconds = nanoseconds.checked_add(count.checked_mul(3_600_000_000_000)?)?,
            "minute" | "min" | "m" => nanoseconds = nanoseconds.checked_add(count.checked_mul(60_000_000_000)?)?,
            "millisecond" | "msec" => nanoseconds = nanoseconds.checked_add(count.checked_mul(1_000_000)?)?,
            "microsecond" | "usec" => nanoseconds = nanoseconds.checked_add(count.checked_mul(1000)?)?,
            _ => return None,
        }
    }
    (!empty).then_some(IntervalMonthDayNano { months, days, nanoseconds })
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
    if fraction.len() > 9 || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    let total = whole.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    Some(if word.starts_with('-') { -total } else { total })
}
