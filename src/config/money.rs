//! How much money is meant?
//!
//! Amounts are whole millionths of whatever unit the operator counts in: sums are exact, and nothing is ever a binary
//! fraction. The text of a file becomes an amount digit by digit.

use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error as _;
use serde_json::json;

use crate::config::number;

/// Marks an amount in the schema, where it is a number or a text.
pub(crate) const FORMAT: &str = "money";
/// Digits after the point.
const FRACTION_DIGITS: usize = 6;
/// Millionths of one unit.
const MICROS: u64 = 1_000_000;
/// The largest amount, in units: a sum of a year's calls cannot overflow.
const UNITS_MAX: u64 = 1_000_000_000;

/// An amount of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Money(u64);

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many millionths.
    pub fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// In millionths.
    pub fn micros(self) -> u64 {
        self.0
    }

    /// What a decimal number says: digits, and at most six after a point. `None` for anything else, a sign or an exponent
    /// included, and for more than a thousand million.
    pub fn parse(text: &str) -> Option<Self> {
        let (units, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(units) || !is_digits(fraction) || fraction.len() > FRACTION_DIGITS {
            return None;
        }
        let units = units.parse::<u64>().ok().filter(|units| *units <= UNITS_MAX)?;
        let micros = format!("{fraction:0<FRACTION_DIGITS$}").parse::<u64>().ok()?;
        let amount = units * MICROS + micros;
        (amount <= UNITS_MAX * MICROS).then_some(Self(amount))
    }
}

/// As short as it can be said exactly: `0.05`, `3`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, micros) = (self.0 / MICROS, self.0 % MICROS);
        if micros == 0 {
            return write!(f, "{units}");
        }
        let fraction = format!("{micros:0>FRACTION_DIGITS$}");
        write!(f, "{units}.{}", fraction.trim_end_matches('0'))
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = number::text_of(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("no amount of money"))
    }
}

impl schemars::JsonSchema for Money {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Money".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let schema =
            json!({ "type": ["number", "string"], "format": FORMAT, "minimum": 0, "pattern": r"^\d+(\.\d{1,6})?$" });
        schemars::Schema::try_from(schema).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_what_its_digits_say() {
        for (text, micros, shown) in [
            ("0", 0, "0"),
            ("0.000001", 1, "0.000001"),
            ("0.05", 50_000, "0.05"),
            ("0.30", 300_000, "0.3"),
            ("007.5", 7_500_000, "7.5"),
            ("1000000000", 1_000_000_000_000_000, "1000000000"),
        ] {
            let amount = Money::parse(text).unwrap();
            assert_eq!((amount.micros(), amount.to_string().as_str()), (micros, shown));
            assert_eq!(Money::parse(shown), Some(amount));
        }
    }

    #[test]
    fn ten_tenths_are_one_whole() {
        let tenth = Money::parse("0.1").unwrap().micros();
        assert_eq!(Money::from_micros(tenth * 10), Money::parse("1").unwrap());
    }

    #[test]
    fn what_is_no_plain_decimal_is_no_amount() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "0.0000001",
            "1,5",
            " 1",
            "1 ",
            "1000000000.000001",
            "1000000001",
            "٣",
        ] {
            assert_eq!(Money::parse(text), None, "{text}");
        }
    }
}
