//! Dates and times in ISO 8601 / RFC 3339 spelling, without allocation.

const DAY_US: i64 = 86_400_000_000;

/// Microseconds since 1970-01-01, and the offset from UTC in seconds where the text has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instant {
    pub(crate) local_us: i64,
    pub(crate) offset_s: Option<i64>,
}

impl Instant {
    /// Without an offset the text is taken as UTC.
    pub(crate) fn utc_us(self) -> i64 {
        self.local_us - self.offset_s.unwrap_or(0) * 1_000_000
    }
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn digits(&mut self, n: usize) -> Option<i64> {
        let (head, rest) = self.0.split_at_checked(n)?;
        let mut value = 0;
        for b in head {
            if !b.is_ascii_digit() {
                return None;
            }
            value = value * 10 + i64::from(b - b'0');
        }
        self.0 = rest;
        Some(value)
    }
    fn eat(&mut self, wanted: u8) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        (*first == wanted).then(|| self.0 = rest)
    }
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }
}

/// Days since 1970-01-01 of `YYYY-MM-DD`.
pub(crate) fn date(text: &str) -> Option<i32> {
    let mut c = Cursor(text.as_bytes());
    let days = read_date(&mut c)?;
    c.0.is_empty().then_some(days as i32)
}

/// Microseconds since midnight of `hh:mm[:ss[.f…]]`.
pub(crate) fn time_of_day(text: &str) -> Option<i64> {
    let mut c = Cursor(text.as_bytes());
    let us = read_time(&mut c)?;
    (c.0.is_empty() && us < DAY_US).then_some(us)
}

/// `YYYY-MM-DD(T| )hh:mm[:ss[.f…]][Z|±hh[[:]mm]]`; a date alone is its midnight. Digits behind the microsecond are
/// rounded, as PostgreSQL does.
pub(crate) fn timestamp(text: &str) -> Option<Instant> {
    let mut c = Cursor(text.as_bytes());
    let days = read_date(&mut c)?;
    if c.0.is_empty() {
        return Some(Instant { local_us: days * DAY_US, offset_s: None });
    }
    match c.peek()? {
        b'T' | b't' | b' ' => c.0 = &c.0[1..],
        _ => return None,
    }
    let local_us = days * DAY_US + read_time(&mut c)?;
    let offset_s = match c.peek() {
        None => None,
        Some(b'Z' | b'z') => {
            c.0 = &c.0[1..];
            Some(0)
        }
        Some(sign @ (b'+' | b'-')) => {
            c.0 = &c.0[1..];
            let hours = c.digits(2)?;
            let minutes = match c.peek() {
                None => 0,
                Some(b':') => {
                    c.eat(b':')?;
                    c.digits(2)?
                }
                Some(_) => c.digits(2)?,
            };
            if hours > 18 || minutes > 59 {
                return None;
            }
            let size = hours * 3600 + minutes * 60;
            Some(if sign == b'-' { -size } else { size })
        }
        Some(_) => return None,
    };
    c.0.is_empty().then_some(Instant { local_us, offset_s })
}

/// Whether the text is a timestamp with a time and an offset: what an inferred column may be `timestamptz` for.
pub(crate) fn is_timestamp(text: &str) -> bool {
    timestamp(text).is_some_and(|i| i.offset_s.is_some())
}

fn read_date(c: &mut Cursor<'_>) -> Option<i64> {
    let year = c.digits(4)?;
    c.eat(b'-')?;
    let month = c.digits(2)?;
    c.eat(b'-')?;
    let day = c.digits(2)?;
    if year < 1 || !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    Some(days_from_civil(year, month, day))
}

fn read_time(c: &mut Cursor<'_>) -> Option<i64> {
    let hours = c.digits(2)?;
    c.eat(b':')?;
    let minutes = c.digits(2)?;
    let mut us = 0;
    let mut seconds = 0;
    if c.peek() == Some(b':') {
        c.eat(b':')?;
        seconds = c.digits(2)?;
        if c.peek() == Some(b'.') {
            c.eat(b'.')?;
            let n = c.0.iter().take_while(|b| b.is_ascii_digit()).count();
            if n == 0 {
                return None;
            }
            for i in 0..6 {
                us = us * 10 + c.0[..n].get(i).map_or(0, |b| i64::from(b - b'0'));
            }
            if c.0[..n].get(6).is_some_and(|b| *b >= b'5') {
                us += 1;
            }
            c.0 = &c.0[n..];
        }
    }
    // A leap second is the first second of the next minute, as in PostgreSQL.
    if hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + us)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Howard Hinnant's `days_from_civil`.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

/// What INSERT writes for a timestamp; `None` outside of the years that RFC 3339 can spell.
pub(crate) fn to_rfc3339(utc_us: i64, zoned: bool) -> Option<String> {
    let t = chrono::DateTime::from_timestamp_micros(utc_us)?;
    let text = t.format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
    if text.len() != 26 {
        return None;
    }
    Some(if zoned { format!("{text}Z") } else { text })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_rfc_3339_and_postgres_write() {
        let us = |s: &str| timestamp(s).map(Instant::utc_us);
        assert_eq!(us("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(us("2024-02-29T12:00:00.123456789+01:00"), Some(1_709_204_400_123_457));
        assert_eq!(us("2024-02-29 12:00:00+0100"), Some(1_709_204_400_000_000));
        assert_eq!(us("2024-02-29 12:00+01"), Some(1_709_204_400_000_000));
        assert_eq!(us("1969-12-31T23:59:59.9999995Z"), Some(0));
        assert_eq!(us("0001-01-01T00:00:00Z"), Some(-62_135_596_800_000_000));
        for bad in [
            "",
            "2023-02-29T00:00:00Z",
            "2024-1-01",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00Zx",
            "2024-01-01T00:00:00+1",
            "1700000000",
            "now",
            "2024-01-01T",
            "é024-01-01",
        ] {
            assert_eq!(us(bad), None, "{bad}");
        }
        assert_eq!(date("1970-01-02"), Some(1));
        assert_eq!(date("2024-01-01T00:00:00Z"), None);
        assert_eq!(time_of_day("23:59:59.5"), Some(86_399_500_000));
        assert_eq!(time_of_day("23:59:60"), None);
    }

    proptest! {
        #[test]
        fn equals_chrono(us in -62_135_596_800_000_000i64..253_402_300_799_999_999) {
            let text = to_rfc3339(us, true).unwrap();
            prop_assert_eq!(timestamp(&text).unwrap().utc_us(), us);
            let chrono = chrono::DateTime::parse_from_rfc3339(&text).unwrap();
            prop_assert_eq!(chrono.timestamp_micros(), us);
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = (timestamp(&text), date(&text), time_of_day(&text));
        }
    }
}
