//! Is it time?
//!
//! A window is days of the week and hours of the day, in UTC: `Mon-Fri 08:00-18:00`. The end is not in it. Without days it is every
//! day's; a window over midnight is written as two.

use std::ops::Range;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// One window.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    /// Which days of the week, Monday first.
    days: [bool; 7],
    /// Seconds of the day.
    hours: Range<u64>,
}

/// When something may be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Times(Vec<Window>);

impl Times {
    /// Reads windows as an operator writes them.
    ///
    /// # Errors
    /// The position of one that is none.
    pub(super) fn parse(texts: &[String]) -> Result<Self, usize> {
        let windows = texts.iter().enumerate().map(|(index, text)| window(text).ok_or(index));
        windows.collect::<Result<_, _>>().map(Self)
    }

    /// At no time.
    pub(super) fn never() -> Self {
        Self(Vec::new())
    }

    /// Whether a time, in seconds since 1970-01-01 UTC, is in one of them.
    pub(super) fn contain(&self, seconds: u64) -> bool {
        // That day was a Thursday.
        let day = (seconds / DAY_SECONDS + 3) % 7;
        let day = usize::try_from(day).unwrap_or_default();
        let is_in = |window: &Window| {
            window.days.get(day).copied().unwrap_or(false) && window.hours.contains(&(seconds % DAY_SECONDS))
        };
        self.0.iter().any(is_in)
    }
}

fn window(text: &str) -> Option<Window> {
    let (days, hours) = match text.split_once(' ') {
        Some((days, hours)) => (days_of(days)?, hours),
        None => ([true; 7], text),
    };
    let (from, to) = hours.split_once('-')?;
    let (from, to) = (seconds_of(from)?, seconds_of(to)?);
    (from < to).then_some(Window { days, hours: from..to })
}

/// `Mon`, `Mon-Fri`, `Sat,Sun`, `Mon-Wed,Fri`.
fn days_of(text: &str) -> Option<[bool; 7]> {
    let mut days = [false; 7];
    let day = |name: &str| DAYS.iter().position(|day| *day == name);
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        if first > last {
            return None;
        }
        days.get_mut(first..=last)?.fill(true);
    }
    Some(days)
}

/// `08:30`, up to `24:00`.
fn seconds_of(text: &str) -> Option<u64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| {
        let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| is_plain)
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let seconds = hours * 3600 + minutes * 60;
    (minutes < 60 && seconds <= DAY_SECONDS).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_a_window_from_its_first_second_to_the_one_before_its_end() {
        let times = Times::parse(&["Mon-Fri 08:00-18:00".into(), "Sat,Sun 23:00-24:00".into()]).unwrap();
        // 2026-11-30 is a Monday.
        let monday = 1_796_000_000 - 1_796_000_000 % DAY_SECONDS;
        assert_eq!((monday / DAY_SECONDS + 3) % 7, 0, "the day of the test");
        for (day, seconds, expected) in [
            (0, 8 * 3600, true),
            (0, 8 * 3600 - 1, false),
            (4, 18 * 3600 - 1, true),
            (4, 18 * 3600, false),
            (5, 9 * 3600, false),
            (5, 23 * 3600, true),
            (6, 24 * 3600 - 1, true),
            (7, 0, false),
        ] {
            assert_eq!(times.contain(monday + day * DAY_SECONDS + seconds), expected, "day {day}, {seconds} s");
        }
        assert!(Times::parse(&["00:00-24:00".into()]).unwrap().contain(12_345) && !Times(Vec::new()).contain(0));
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in [
            "",
            "Mon",
            "Mon 8:00-18:00",
            "Mon 08:00",
            "mon 08:00-09:00",
            "Fri-Mon 08:00-09:00",
            "Mon 09:00-09:00",
            "Mon 18:00-08:00",
            "Mon 08:00-24:01",
            "Mon 08:60-09:00",
            "Mon  08:00-09:00",
            "Monday 08:00-09:00",
            "Mon,08:00-09:00",
            "Mon 08:00-09:00 UTC",
            "Mon +8:00-09:00",
        ] {
            assert_eq!(Times::parse(&["00:00-01:00".into(), text.into()]), Err(1), "{text}");
        }
    }
}
