//! How much was used today, and this month?
//!
//! Days and months are those of UTC. Each counts by itself, and two are remembered: a clock that steps over midnight, or to any
//! other day, and back finds its day as it was left.

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

/// What was used in the period that counted last, and in the one that counted before it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Window<T> {
    /// The period's number.
    #[serde(rename = "in")]
    number: u64,
    used: T,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<Box<(u64, T)>>,
}

impl<T: Default + PartialEq> Window<T> {
    /// What was used in the period of this number; `None`: nothing.
    pub(super) fn used(&self, number: u64) -> Option<&T> {
        let before = self.before.as_deref().filter(|(before, _)| *before == number).map(|(_, used)| used);
        let used = if self.number == number { Some(&self.used) } else { before };
        used.filter(|used| **used != T::default())
    }

    /// What is remembered of any period.
    pub(super) fn every(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.used).chain(self.before.as_deref().map(|(_, used)| used))
    }

    /// Whether nothing was used in it.
    pub(super) fn is_unused(&self, number: u64) -> bool {
        self.used(number).is_none()
    }

    /// What is used in the period of this number, from now on the one that counts.
    pub(super) fn turn_to(&mut self, number: u64) -> &mut T {
        if self.number != number {
            let left = (self.number, std::mem::take(&mut self.used));
            let found = self.before.take_if(|before| before.0 == number);
            (self.number, self.used) = found.map_or_else(|| (number, T::default()), |found| *found);
            if left.1 != T::default() {
                self.before = Some(Box::new(left));
            }
        }
        &mut self.used
    }

    /// What was used in the period of this number, for taking back, if it is still remembered.
    pub(super) fn remembered(&mut self, number: u64) -> Option<&mut T> {
        if self.number == number {
            return Some(&mut self.used);
        }
        self.before.as_deref_mut().filter(|before| before.0 == number).map(|before| &mut before.1)
    }
}

impl Window<u64> {
    /// How much was used in the period of this number.
    pub(super) fn count(&self, number: u64) -> u64 {
        self.used(number).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, number: u64, more: u64) {
        if more > 0 {
            let used = self.turn_to(number);
            *used = used.saturating_add(more);
        }
    }

    /// Takes back what was used at this number.
    pub(super) fn give_back(&mut self, number: u64, less: u64) {
        if let Some(used) = self.remembered(number) {
            *used = used.saturating_sub(less);
        }
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
        assert_eq!((window.count(before), window.count(Period::Day.number(midnight))), (7, 0));
        assert!(window.is_unused(Period::Day.number(midnight)) && !window.is_unused(before));
        window.add(before + 1, 2);
        window.give_back(before, 7);
        assert_eq!(window.count(before + 1), 2, "what yesterday used is not given back today");
        window.give_back(before + 1, 2);
        assert!(window.is_unused(before + 1));
    }

    #[test]
    fn a_clock_that_steps_to_another_day_and_back_begins_none_anew() {
        for far in [1, 2, 400] {
            let mut window = Window::default();
            window.add(9, 5);
            for more in 1..4 {
                window.add(9 + far, 1);
                assert_eq!((window.count(9), window.count(9 + far)), (5, more));
                // What costs nothing turns no page.
                window.add(9 + far + 1, 0);
                let _: &mut u64 = window.turn_to(9);
                assert_eq!((window.count(9), window.count(9 + far)), (5, more));
            }
            window.give_back(9 + far, 3);
            assert_eq!((window.count(9), window.count(9 + far)), (5, 0));
        }
    }
}
