//! When was that, and on which day?
//!
//! Times are microseconds since 1970-01-01 UTC, days are counted from there.

use time::Date;
use time::Month;

use crate::search::entry::DAY_MICROS;

/// Julian day of 1970-01-01.
const FIRST_DAY: i32 = 2_440_588;

/// A time as records write it, `2027-01-31T12:00:00.000000Z`, and nothing else. There are as many as records, so this is no
/// parser of forms.
pub(super) fn micros_of(text: &str) -> Option<u64> {
    let (date, time) = text.split_at_checked(10)?;
    let &[b'T', h1, h2, b':', m1, m2, b':', s1, s2, b'.', f1, f2, f3, f4, f5, f6, b'Z'] = time.as_bytes() else {
        return None;
    };
    let (hour, minute, second) = (digits(&[h1, h2])?, digits(&[m1, m2])?, digits(&[s1, s2])?);
    let micros = digits(&[f1, f2, f3, f4, f5, f6])?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(day_of(date)? * DAY_MICROS + (hour * 3_600 + minute * 60 + second) * 1_000_000 + micros)
}

/// The day that a date, `2027-01-31`, names.
pub(super) fn day_of(text: &str) -> Option<u64> {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text.as_bytes() else { return None };
    let year = i32::try_from(digits(&[y1, y2, y3, y4])?).ok()?;
    let month = Month::try_from(u8::try_from(digits(&[m1, m2])?).ok()?).ok()?;
    let day = u8::try_from(digits(&[d1, d2])?).ok()?;
    let date = Date::from_calendar_date(year, month, day).ok()?;
    u64::try_from(date.to_julian_day() - FIRST_DAY).ok()
}

/// The date of a day.
pub(super) fn date_of(day: u64) -> String {
    let date = i32::try_from(day).ok().and_then(|day| day.checked_add(FIRST_DAY));
    let date = date.and_then(|day| Date::from_julian_day(day).ok()).unwrap_or(Date::MAX);
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

/// A time as records write it.
pub fn time_text(micros: u64) -> String {
    let (seconds, micros_left) = (micros % DAY_MICROS / 1_000_000, micros % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{}T{hour:02}:{minute:02}:{second:02}.{micros_left:06}Z", date_of(micros / DAY_MICROS))
}

fn digits(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_records_are_read_back_and_nothing_else_is() {
        for micros in [0, 1, 951_782_399_999_999, 1_700_000_000_123_456, 4_102_444_800_000_000] {
            assert_eq!(micros_of(&time_text(micros)), Some(micros));
        }
        assert_eq!(micros_of("2027-01-31T00:00:00.000000Z"), Some(1_801_353_600_000_000));
        for text in
            ["", "2027-01-31", "2027-02-30T00:00:00.000000Z", "2027-01-31T24:00:00.000000Z", "2027-01-31T00:00:00Z"]
        {
            assert_eq!(micros_of(text), None, "{text}");
        }
        assert_eq!(day_of(&date_of(20_000)), Some(20_000));
        assert_eq!(day_of("1969-12-31"), None);
    }
}
