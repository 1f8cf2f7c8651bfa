//! Which time does somebody mean?

use crate::clock;

/// Microseconds since 1970 of an age, a day or a time.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    of(text, clock::now_micros()).ok_or_else(|| {
        "write an age (`90s`, `15m`, `1h`, `7d`), a day (`2027-01-31`) or a time (`2027-01-31T12:00:00Z`)".into()
    })
}

fn of(text: &str, now_micros: u64) -> Option<u64> {
    if let Some(age) = age_seconds(text) {
        return Some(now_micros.saturating_sub(age.checked_mul(1_000_000)?));
    }
    let is_day = text.len() == "2027-01-31".len();
    let time = if is_day { format!("{text}T00:00:00Z") } else { text.to_owned() };
    clock::seconds_of(&time)?.checked_mul(1_000_000)
}

fn age_seconds(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| number.parse::<u64>().ok()).flatten()?.checked_mul(seconds)
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn ages_days_and_times_are_read_and_nothing_else() {
        let now = 1_801_353_600_000_000;
        for (text, seconds) in [
            ("90s", 1_801_353_510),
            ("15m", 1_801_352_700),
            ("2h", 1_801_346_400),
            ("1d", 1_801_267_200),
            ("2027-01-30", 1_801_267_200),
            ("2027-01-31T01:30:00+01:30", 1_801_353_600),
        ] {
            assert_eq!(of(text, now), Some(seconds * 1_000_000), "{text}");
        }
        for text in [
            "",
            "h",
            "-1h",
            "1.5h",
            "1 h",
            "1w",
            "yesterday",
            "2027-02-30",
            "2027-01-31 00:00",
            "99999999999999999999d",
            "\u{e9}",
        ] {
            assert_eq!(of(text, now), None, "{text}");
        }
    }
}
