//! How much was used today, and this month?
//!
//! Days and months are those of UTC. A window begins at zero and never goes back: a clock that is set back over midnight
//! does not begin yesterday anew.

use serde::Deserialize;
use serde::Serialize;

/// Seconds of a day.
const DAY: u64 = 86_400;

/// A length of time at whose end counting begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Period {
    Day,
    Month,
}

impl Period {
    /// The number of the period in which this second lies, counted from 1970.
    pub(super) fn number(self, seconds: u64) -> u64 {
        match self {
            Self::Day => seconds / DAY,
            Self::Month => month_of(seconds / DAY),
        }
    }

    /// The first second of the period of this number.
    pub(super) fn begin(self, number: u64) -> u64 {
        match self {
            Self::Day => number.saturating_mul(DAY),
            Self::Month => first_day_of(number).saturating_mul(DAY),
        }
    }
}

/// What was used in one period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Window {
    /// The period's number.
    #[serde(rename = "in")]
    number: u64,
    used: u64,
}

impl Window {
    /// What was used in the period that counts at this number: its own, or the one after, if the clock was set back over the
    /// boundary since.
    pub(super) fn used(self, number: u64) -> u64 {
        if self.counts(number) { self.used } else { 0 }
    }

    /// The period in which what is used at this number counts.
    pub(super) fn number(self, number: u64) -> u64 {
        if self.counts(number) { self.number } else { number }
    }

    pub(super) fn add(&mut self, number: u64, more: u64) {
        *self = Self { number: self.number(number), used: self.used(number).saturating_add(more) };
    }

    /// Takes back what was used at this number, unless another period has begun since.
    pub(super) fn give_back(&mut self, number: u64, less: u64) {
        if self.is_of(number) {
            self.used = self.used.saturating_sub(less);
        }
    }

    /// Whether nothing is remembered any more.
    pub(super) fn is_over(self, number: u64) -> bool {
        self.used(number) == 0
    }

    /// Whether it is the period of this number itself.
    pub(super) fn is_of(self, number: u64) -> bool {
        self.number == number
    }

    fn counts(self, number: u64) -> bool {
        self.number == number || self.number == number + 1
    }
}

/// The month of a day, both counted from January 1970: the calendar of Gregory, whose years are counted from March for this, so
/// that the day that may be missing is the last.
fn month_of(day: u64) -> u64 {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_from_march = (5 * of_year + 2) / 153;
    ((era * 400 + year_of_era) * 12 + months_from_march + 2).saturating_sub(1_970 * 12)
}

/// The first day of a month, both counted from January 1970.
fn first_day_of(month: u64) -> u64 {
    let from_march = month + 1_970 * 12 - 2;
    let (year, months) = (from_march / 12, from_march % 12);
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * months + 2) / 5;
    days.saturating_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Days since 1970, month after month, the way a calendar on the wall says it.
    fn naive_months() -> impl Iterator<Item = (u64, u64)> {
        let is_leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
        let mut day = 0;
        (0..12 * 500).map(move |month| {
            let (year, first) = (1970 + month / 12, day);
            day += match month % 12 {
                1 if is_leap(year) => 29,
                1 => 28,
                3 | 5 | 8 | 10 => 30,
                _ => 31,
            };
            (month, first)
        })
    }

    #[test]
    fn months_are_those_of_the_calendar_for_five_hundred_years() {
        for (month, first) in naive_months() {
            assert_eq!((first_day_of(month), month_of(first)), (first, month));
            assert_eq!(month_of(first + 27), month);
            if first > 0 {
                assert_eq!(month_of(first - 1), month - 1);
            }
        }
    }

    #[test]
    fn a_day_begins_anew_at_midnight_to_the_second() {
        let midnight = 20_000 * DAY;
        let (mut window, before) = (Window::default(), Period::Day.number(midnight - 1));
        window.add(before, 7);
        assert_eq!((window.used(before), window.used(Period::Day.number(midnight))), (7, 0));
        assert!(window.is_over(Period::Day.number(midnight)) && !window.is_over(before));
        window.add(before + 1, 2);
        window.give_back(before, 7);
        assert_eq!(window.used(before + 1), 2, "what yesterday used is not given back today");
        window.give_back(before + 1, 2);
        assert!(window.is_over(before + 1));
    }

    #[test]
    fn a_clock_that_is_set_back_over_midnight_begins_nothing_anew() {
        let mut window = Window::default();
        window.add(9, 5);
        window.add(10, 3);
        assert_eq!((window.used(9), window.number(9)), (3, 10));
        window.add(9, 1);
        assert_eq!(window.used(10), 4);
        // One that stood wrong by more than a day is believed.
        assert_eq!((window.used(3), window.number(3)), (0, 3));
    }
}
