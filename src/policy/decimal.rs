//! Which of two numbers is larger, exactly?
//!
//! Numbers are compared as they are written, digit by digit, whatever their length and exponent: no rounding lets
//! `10.000000000000000001` pass for `10`.

use std::cmp::Ordering;

/// A number as JSON writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    is_negative: bool,
    /// Without zeros at either end; empty: zero.
    digits: Vec<u8>,
    /// Where the point stands: the number is `0.DIGITS` times ten to this.
    point: i64,
}

impl Decimal {
    /// Reads a number of JSON's form; `None` if it is none, or if its exponent is beyond all reason.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (is_negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok().filter(|e| e.abs() < 1 << 40)?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            Some(_) => return None,
            None => (mantissa, ""),
        };
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) || (whole.len() > 1 && whole.starts_with('0'))
        {
            return None;
        }
        let digits = [whole.as_bytes(), fraction.as_bytes()].concat();
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        let end = digits.iter().rposition(|digit| *digit != b'0').map_or(zeros, |last| last + 1);
        let digits = digits.get(zeros..end)?.to_vec();
        let point = i64::try_from(whole.len()).ok()? - i64::try_from(zeros).ok()? + exponent;
        let is_zero = digits.is_empty();
        Some(Self { is_negative: is_negative && !is_zero, digits, point: if is_zero { 0 } else { point } })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.digits.is_empty(), number.is_negative) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => -1,
        };
        let by_sign = sign(self).cmp(&sign(other));
        // Of two fractions without zeros at the end, the one that is the other's beginning is the smaller.
        let by_size = || self.point.cmp(&other.point).then_with(|| self.digits.cmp(&other.digits));
        by_sign.then_with(|| if self.is_negative { by_size().reverse() } else { by_size() })
    }
}

#[cfg(test)]
mod tests {
    use super::Decimal;

    #[test]
    fn numbers_are_ordered_exactly() {
        let ascending = [
            "-1e30",
            "-1000000000000000000000",
            "-10.5",
            "-10",
            "-9.99",
            "-1e-5",
            "0",
            "1e-1000000",
            "0.001",
            "0.1",
            "0.10000000000000000000001",
            "1",
            "1.5",
            "9",
            "10",
            "10.000000000000000001",
            "99",
            "100",
            "1e3",
            "1001",
            "18446744073709551616",
            "1e30",
            "1e1000000",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                let (a, b) = (Decimal::parse(a).unwrap(), Decimal::parse(b).unwrap());
                assert_eq!(a.cmp(&b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn one_number_has_many_forms() {
        for forms in
            [&["0", "-0", "0.00", "0e5", "-0.0E-7"][..], &["1", "1.0", "10e-1", "0.1e1", "1E+0"], &["-120", "-1.2e2"]]
        {
            for form in forms {
                assert_eq!(Decimal::parse(form), Decimal::parse(forms[0]), "{form}");
            }
        }
        for text in [
            "",
            "-",
            "+1",
            "01",
            ".5",
            "5.",
            "1e",
            "1e1e1",
            "0x10",
            "1_000",
            "NaN",
            "Infinity",
            " 1",
            "1,5",
            "1e99999999999999",
        ] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }
}
