//! Numbers, exactly: what does not fit is `None`, never another number.

/// An integer written in any way that JSON allows (`12`, `1.20e1`), if it is one and fits.
#[inline]
pub(crate) fn integer(text: &str) -> Option<i64> {
    match text.parse::<i64>() {
        Ok(n) => Some(n),
        Err(_) if text.bytes().any(|b| matches!(b, b'.' | b'e' | b'E')) => i64::try_from(scaled(text, 0, false)?).ok(),
        Err(_) => None,
    }
}

/// A double. `None` where the text lies outside of its range: `1e400`, or `1e-400`, which is not nought.
#[inline]
pub(crate) fn double(text: &str) -> Option<f64> {
    if !numeric_text(text) {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    in_range(value.is_infinite(), value == 0.0, text).then_some(value)
}

#[inline]
pub(crate) fn float(text: &str) -> Option<f32> {
    if !numeric_text(text) {
        return None;
    }
    let value: f32 = text.parse().ok()?;
    in_range(value.is_infinite(), value == 0.0, text).then_some(value)
}

fn in_range(infinite: bool, zero: bool, text: &str) -> bool {
    if infinite {
        return false;
    }
    if zero {
        let mantissa = text.split(['e', 'E']).next().unwrap_or(text);
        return !mantissa.bytes().any(|b| b.is_ascii_digit() && b != b'0');
    }
    true
}

/// Rust's own parser also reads `inf`, `nan` and `infinity`; those are handled (or refused) by name elsewhere.
fn numeric_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
}

/// `text` times 10^`scale`. Digits behind the scale are rounded half away from zero, as PostgreSQL's `numeric` does,
/// or refused where `round` is false. `None` on overflow and on text that is no number.
pub(crate) fn scaled(text: &str, scale: i64, round: bool) -> Option<i128> {
    let bytes = text.as_bytes();
    let (negative, bytes) = match bytes.first()? {
        b'-' => (true, &bytes[1..]),
        b'+' => (false, &bytes[1..]),
        _ => (false, bytes),
    };
    let (mantissa, exponent) = match bytes.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(at) => (&bytes[..at], parse_exponent(&bytes[at + 1..])?),
        None => (bytes, 0),
    };
    let (whole, fraction) = match mantissa.iter().position(|b| *b == b'.') {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &mantissa[..0]),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    // Digit k has the weight 10^(point - 1 - k); those of weight 10^-scale and above are kept.
    let point = (whole.len() as i64).checked_add(exponent)?;
    let kept = point.checked_add(scale)?;
    let mut value: i128 = 0;
    let mut round_up = false;
    for (k, digit) in whole.iter().chain(fraction).enumerate() {
        let k = k as i64;
        let digit = match digit {
            b'0'..=b'9' => i128::from(digit - b'0'),
            _ => return None,
        };
        if k < kept {
            value = value.checked_mul(10)?.checked_add(digit)?;
        } else if digit != 0 {
            if !round {
                return None;
            }
            if k == kept && digit >= 5 {
                round_up = true;
            }
        }
    }
    let missing = kept - (whole.len() + fraction.len()) as i64;
    if missing > 0 && value != 0 {
        value = value.checked_mul(10i128.checked_pow(u32::try_from(missing).ok()?)?)?;
    }
    if round_up {
        value = value.checked_add(1)?;
    }
    Some(if negative { -value } else { value })
}

fn parse_exponent(bytes: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // An exponent beyond any memory is as good as a large one: the value overflows, or is nought.
    let size = digits.parse::<i64>().unwrap_or(1 << 40).min(1 << 40);
    Some(if text.starts_with('-') { -size } else { size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact_or_refused() {
        assert_eq!(integer("9223372036854775807"), Some(i64::MAX));
        assert_eq!(integer("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(integer("9223372036854775808"), None);
        assert_eq!(integer("12345678901234567890"), None);
        assert_eq!(integer("1.0"), Some(1));
        assert_eq!(integer("1.5e1"), Some(15));
        assert_eq!(integer("1.5"), None);
        assert_eq!(integer("1e18"), Some(1_000_000_000_000_000_000));
        assert_eq!(integer("1e19"), None);
        assert_eq!(integer("1e400"), None);
        assert_eq!(integer("0e999999999999999999999"), Some(0));
        assert_eq!(integer(""), None);
        assert_eq!(integer("-"), None);
        assert_eq!(integer("."), None);
    }

    #[test]
    fn doubles_outside_the_range_are_refused() {
        assert_eq!(double("1e400"), None);
        assert_eq!(double("-1e400"), None);
        assert_eq!(double("1e-400"), None);
        assert_eq!(double("0e-400"), Some(0.0));
        assert_eq!(double("0.1"), Some(0.1));
        assert_eq!(double("inf"), None);
        assert_eq!(double("nan"), None);
        assert_eq!(float("1e39"), None);
    }

    #[test]
    fn decimals_round_as_numeric_does() {
        assert_eq!(scaled("1.005", 2, true), Some(101));
        assert_eq!(scaled("-1.005", 2, true), Some(-101));
        assert_eq!(scaled("1.004", 2, true), Some(100));
        assert_eq!(scaled("0.004", 2, true), Some(0));
        assert_eq!(scaled("0.0004", 2, true), Some(0));
        assert_eq!(scaled("9e-3", 2, true), Some(1));
        assert_eq!(scaled("12.5e1", 2, true), Some(12500));
        assert_eq!(scaled("1e37", 0, true), Some(10i128.pow(37)));
        assert_eq!(scaled("1e39", 0, true), None);
        assert_eq!(scaled("1a", 0, true), None);
        assert_eq!(scaled("1e", 0, true), None);
    }
}
