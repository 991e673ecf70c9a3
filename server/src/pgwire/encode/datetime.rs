//! Dates, times and intervals as PostgreSQL prints them under `DateStyle = ISO` and `IntervalStyle = postgres`.

use arrow::array::timezone::Tz;
use bytes::{BufMut, BytesMut};
use chrono::{DateTime, Offset, TimeZone};

use super::number::{put_i64, put_padded};

pub(super) const US_PER_SECOND: i64 = 1_000_000;
pub(super) const US_PER_DAY: i64 = 86_400 * US_PER_SECOND;
/// 2000-01-01, where PostgreSQL counts from.
pub(super) const PG_EPOCH_DAYS: i64 = 10_957;

/// Year (0 is 1 BC), month and day of a day since 1970-01-01, proleptic Gregorian.
/// Howard Hinnant, "chrono-compatible low-level date algorithms".
pub(super) fn civil_from_days(days: i64) -> (i64, u64, u64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u64, day as u64)
}

/// Writes `YYYY-MM-DD`; true where ` BC` has to follow.
fn put_ymd(out: &mut BytesMut, days: i64) -> bool {
    let (year, month, day) = civil_from_days(days);
    let before_christ = year <= 0;
    put_padded(out, if before_christ { 1 - year } else { year }.unsigned_abs(), 4);
    out.put_u8(b'-');
    put_padded(out, month, 2);
    out.put_u8(b'-');
    put_padded(out, day, 2);
    before_christ
}

pub(super) fn put_date(out: &mut BytesMut, days: i64) {
    if put_ymd(out, days) {
        out.put_slice(b" BC");
    }
}

/// `HH:MM:SS[.ffffff]` of microseconds that are not negative; hours may pass 24.
pub(super) fn put_time(out: &mut BytesMut, us: u64) {
    let seconds = us / US_PER_SECOND as u64;
    put_padded(out, seconds / 3600, 2);
    out.put_u8(b':');
    put_padded(out, seconds / 60 % 60, 2);
    out.put_u8(b':');
    put_padded(out, seconds % 60, 2);
    let mut fraction = us % US_PER_SECOND as u64;
    if fraction != 0 {
        let mut width = 6;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            width -= 1;
        }
        out.put_u8(b'.');
        put_padded(out, fraction, width);
    }
}

/// How the parts of a timestamp are joined.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `2024-01-02 03:04:05+00`
    Sql,
    /// `2024-01-02T03:04:05+00:00`, as PostgreSQL writes inside JSON
    Json,
}

pub(super) fn put_timestamp(out: &mut BytesMut, us: i64, style: Style) {
    if put_wall_clock(out, i128::from(us), style) {
        out.put_slice(b" BC");
    }
}

fn put_wall_clock(out: &mut BytesMut, us: i128, style: Style) -> bool {
    let day = i128::from(US_PER_DAY);
    let before_christ = put_ymd(out, us.div_euclid(day) as i64);
    out.put_u8(if style == Style::Sql { b' ' } else { b'T' });
    put_time(out, us.rem_euclid(day) as u64);
    before_christ
}

pub(super) fn put_timestamptz(out: &mut BytesMut, us: i64, tz: &SessionTz, style: Style) {
    let offset = tz.offset_seconds(us);
    let before_christ = put_wall_clock(out, i128::from(us) + i128::from(offset) * i128::from(US_PER_SECOND), style);
    out.put_u8(if offset < 0 { b'-' } else { b'+' });
    let offset = u64::from(offset.unsigned_abs());
    put_padded(out, offset / 3600, 2);
    let (minutes, seconds) = (offset / 60 % 60, offset % 60);
    if minutes != 0 || seconds != 0 || style == Style::Json {
        out.put_u8(b':');
        put_padded(out, minutes, 2);
    }
    if seconds != 0 {
        out.put_u8(b':');
        put_padded(out, seconds, 2);
    }
    if before_christ {
        out.put_slice(b" BC");
    }
}

/// The zone in which `timestamptz` is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SessionTz {
    Utc,
    Zone(Tz),
}

impl SessionTz {
    /// An IANA name or a fixed offset such as `+05:30`; `None` for what is neither.
    pub fn parse(name: &str) -> Option<Self> {
        let is_utc = ["utc", "gmt", "z", "etc/utc", "etc/gmt", "+00", "+00:00", "-00:00", "zulu", "uct"]
            .iter()
            .any(|n| name.eq_ignore_ascii_case(n));
        if is_utc { Some(Self::Utc) } else { name.parse().ok().map(Self::Zone) }
    }

    pub fn zone(&self) -> Option<&Tz> {
        match self {
            Self::Utc => None,
            Self::Zone(tz) => Some(tz),
        }
    }

    fn offset_seconds(&self, us: i64) -> i32 {
        let Self::Zone(tz) = self else { return 0 };
        // Far beyond what chrono can hold, the last rule of the zone goes on.
        let seconds = us.div_euclid(US_PER_SECOND).clamp(-8_000_000_000_000, 8_000_000_000_000);
        match DateTime::from_timestamp(seconds, 0) {
            Some(at) => tz.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc(),
            None => 0,
        }
    }
}

/// `EncodeInterval` of PostgreSQL for `INTSTYLE_POSTGRES`: a part after a negative one carries its plus sign.
pub(super) fn put_interval(out: &mut BytesMut, months: i32, days: i32, us: i64) {
    let mut empty = true;
    let mut negative = false;
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value == 0 {
            continue;
        }
        if !empty {
            out.put_u8(b' ');
        }
        if negative && value > 0 {
            out.put_u8(b'+');
        }
        put_i64(out, i64::from(value));
        out.put_u8(b' ');
        out.put_slice(unit.as_bytes());
        if value != 1 {
            out.put_u8(b's');
        }
        negative = value < 0;
        empty = false;
    }
    if empty || us != 0 {
        if !empty {
            out.put_u8(b' ');
        }
        if us < 0 {
            out.put_u8(b'-');
        } else if negative {
            out.put_u8(b'+');
        }
        put_time(out, us.unsigned_abs());
    }
}
