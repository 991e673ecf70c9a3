//! Numbers as PostgreSQL prints and packs them. All write straight into the buffer.

use std::fmt::Write;

use arrow::datatypes::i256;
use bytes::{BufMut, BytesMut};

const PAIRS: &[u8; 200] = b"0001020304050607080910111213141516171819\
2021222324252627282930313233343536373839\
4041424344454647484950515253545556575859\
6061626364656667686970717273747576777879\
8081828384858687888990919293949596979899";

/// Decimal digits of `value`, right-aligned in `buffer`; returns where they begin.
fn digits_u64(mut value: u64, buffer: &mut [u8], mut end: usize) -> usize {
    while value >= 100 {
        let pair = (value % 100) as usize * 2;
        value /= 100;
        end -= 2;
        buffer[end] = PAIRS[pair];
        buffer[end + 1] = PAIRS[pair + 1];
    }
    if value >= 10 {
        let pair = value as usize * 2;
        end -= 2;
        buffer[end] = PAIRS[pair];
        buffer[end + 1] = PAIRS[pair + 1];
    } else {
        end -= 1;
        buffer[end] = b'0' + value as u8;
    }
    end
}

pub(super) fn put_u64(out: &mut BytesMut, value: u64) {
    let mut buffer = [0u8; 20];
    let start = digits_u64(value, &mut buffer, 20);
    out.put_slice(&buffer[start..]);
}

pub(super) fn put_i64(out: &mut BytesMut, value: i64) {
    if value < 0 {
        out.put_u8(b'-');
    }
    put_u64(out, value.unsigned_abs());
}

/// With leading zeros up to `width`; wider numbers keep all their digits.
pub(super) fn put_padded(out: &mut BytesMut, value: u64, width: usize) {
    let mut buffer = [b'0'; 24];
    let start = digits_u64(value, &mut buffer, 24);
    out.put_slice(&buffer[start.min(24 - width.min(20))..]);
}

/// Room for the scientific form of any float; formatting never allocates.
struct Small {
    bytes: [u8; 40],
    len: usize,
}

impl Write for Small {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        let end = self.len + s.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?;
        room.copy_from_slice(s.as_bytes());
        self.len = end;
        Ok(())
    }
}

pub(super) fn put_f64(out: &mut BytesMut, value: f64) {
    if value.is_nan() {
        out.put_slice(b"NaN");
    } else if value.is_infinite() {
        out.put_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else {
        let mut small = Small { bytes: [0; 40], len: 0 };
        // Shortest digits that read back as the same double. 40 bytes hold them all.
        let _ = write!(small, "{value:e}");
        put_scientific(out, &small.bytes[..small.len], 15);
    }
}

pub(super) fn put_f32(out: &mut BytesMut, value: f32) {
    if !value.is_finite() {
        return put_f64(out, f64::from(value));
    }
    let mut small = Small { bytes: [0; 40], len: 0 };
    let _ = write!(small, "{value:e}");
    put_scientific(out, &small.bytes[..small.len], 6);
}

/// Rewrites Rust's `-1.25e-7` in PostgreSQL's manner: plain for exponents in `-4..limit`, else at least two
/// digits of exponent with a sign.
fn put_scientific(out: &mut BytesMut, text: &[u8], limit: i32) {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let e = text.iter().position(|b| *b == b'e').unwrap_or(text.len());
    let mut digits = [0u8; 24];
    let mut n = 0;
    for b in &text[..e] {
        if *b != b'.' && n < digits.len() {
            digits[n] = *b;
            n += 1;
        }
    }
    let digits = &digits[..n];
    let exponent: i32 =
        std::str::from_utf8(text.get(e + 1..).unwrap_or_default()).ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    if negative {
        out.put_u8(b'-');
    }
    if exponent < -4 || exponent >= limit {
        out.put_slice(&digits[..1]);
        if n > 1 {
            out.put_u8(b'.');
            out.put_slice(&digits[1..]);
        }
        out.put_u8(b'e');
        out.put_u8(if exponent < 0 { b'-' } else { b'+' });
        put_padded(out, u64::from(exponent.unsigned_abs()), 2);
    } else {
        put_fixed(out, digits, n as i32 - 1 - exponent);
    }
}

/// `digits × 10^-scale`, with all of `scale` digits after the point.
fn put_fixed(out: &mut BytesMut, digits: &[u8], scale: i32) {
    let n = digits.len() as i32;
    if scale <= 0 {
        out.put_slice(digits);
        if digits != b"0" {
            out.put_bytes(b'0', -scale as usize);
        }
    } else if n > scale {
        let point = (n - scale) as usize;
        out.put_slice(&digits[..point]);
        out.put_u8(b'.');
        out.put_slice(&digits[point..]);
    } else {
        out.put_slice(b"0.");
        out.put_bytes(b'0', (scale - n) as usize);
        out.put_slice(digits);
    }
}

/// A decimal number taken apart: sign and digits without leading zeros (`0` for zero).
pub(super) struct Digits {
    buffer: [u8; 80],
    start: usize,
    negative: bool,
}

const TEN_18: u128 = 1_000_000_000_000_000_000;

impl Digits {
    pub fn of_i64(value: i64) -> Self {
        let mut buffer = [b'0'; 80];
        let start = digits_u64(value.unsigned_abs(), &mut buffer, 80);
        Self { buffer, start, negative: value < 0 }
    }

    pub fn of_u64(value: u64) -> Self {
        let mut buffer = [b'0'; 80];
        let start = digits_u64(value, &mut buffer, 80);
        Self { buffer, start, negative: false }
    }

    pub fn of_i128(value: i128) -> Self {
        let mut buffer = [b'0'; 80];
        let start = put_u128(value.unsigned_abs(), &mut buffer, 80);
        Self { buffer, start, negative: value < 0 }
    }

    /// `None` for the one value that has no absolute value; no decimal of 76 digits comes near it.
    pub fn of_i256(value: i256) -> Option<Self> {
        if let Some(value) = value.to_i128() {
            return Some(Self::of_i128(value));
        }
        let negative = value < i256::ZERO;
        let mut rest = value.checked_abs()?;
        let base = i256::from_i128(TEN_18 as i128);
        let mut buffer = [b'0'; 80];
        let mut end = 80;
        let mut start = 80;
        while rest > i256::ZERO {
            let part = rest.checked_rem(base)?.to_i128()?;
            rest = rest.checked_div(base)?;
            start = digits_u64(part as u64, &mut buffer, end);
            end -= 18;
            if end < 18 && rest > i256::ZERO {
                // What is left has at most five digits: 2^255 < 10^77.
                start = digits_u64(rest.to_i128()? as u64, &mut buffer, end);
                break;
            }
        }
        Some(Self { buffer, start, negative })
    }

    fn as_bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    pub fn put_text(&self, out: &mut BytesMut, scale: i8) {
        if self.negative {
            out.put_u8(b'-');
        }
        put_fixed(out, self.as_bytes(), i32::from(scale));
    }

    /// PostgreSQL's `numeric_send`: count, weight, sign and scale, then digits in base 10,000.
    pub fn put_binary(&self, out: &mut BytesMut, scale: i8) {
        let digits = self.as_bytes();
        let dscale = i16::from(scale).max(0);
        if digits == b"0" {
            out.put_slice(&[0; 6]);
            out.put_i16(dscale);
            return;
        }
        let integer_digits = digits.len() as i32 - i32::from(scale);
        let mut weight = (integer_digits - 1).div_euclid(4);
        let pad = ((weight + 1) * 4 - integer_digits) as usize;
        let mut groups = [0i16; 24];
        let mut count = 0;
        for (i, digit) in digits.iter().enumerate() {
            let at = i + pad;
            const UNIT: [i16; 4] = [1000, 100, 10, 1];
            groups[at / 4] += i16::from(digit - b'0') * UNIT[at % 4];
            count = at / 4 + 1;
        }
        while count > 0 && groups[count - 1] == 0 {
            count -= 1;
        }
        let first = groups[..count].iter().position(|g| *g != 0).unwrap_or(0);
        weight -= first as i32;
        out.put_i16((count - first) as i16);
        out.put_i16(weight as i16);
        out.put_u16(if self.negative { 0x4000 } else { 0 });
        out.put_i16(dscale);
        for group in &groups[first..count] {
            out.put_i16(*group);
        }
    }
}

fn put_u128(mut value: u128, buffer: &mut [u8; 80], mut end: usize) -> usize {
    while value > u128::from(u64::MAX) {
        let part = (value % TEN_18) as u64;
        value /= TEN_18;
        // The buffer is filled with '0', so a short part keeps its leading zeros.
        digits_u64(part, buffer, end);
        end -= 18;
    }
    digits_u64(value as u64, buffer, end)
}
