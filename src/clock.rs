//! What time is it?
//!
//! The only place that asks the system. Deciders are handed a time.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Microseconds since 1970-01-01 UTC; zero if the system's clock stands before that.
pub fn now_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// The time that `text` names as RFC 3339 writes it (`2027-01-31T00:00:00Z`), in seconds since 1970-01-01 UTC; `None` if it is
/// no such text, or a time before that.
pub fn seconds_of(text: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp()).ok()
}

/// A time in seconds since 1970-01-01 UTC as RFC 3339 writes it; empty for one beyond the year 9999.
pub fn text_of(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// Seconds since 1970-01-01 UTC.
pub fn now_seconds() -> u64 {
    now_micros() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::seconds_of;
    use super::text_of;

    #[test]
    fn a_time_is_read_as_rfc_3339_writes_it_and_no_other_way() {
        assert_eq!(seconds_of("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds_of("2027-01-31T00:00:00Z"), Some(1_801_353_600));
        assert_eq!((text_of(1_801_353_600).as_str(), text_of(u64::MAX).as_str()), ("2027-01-31T00:00:00Z", ""));
        assert_eq!(seconds_of("2027-01-31T01:30:00+01:30"), Some(1_801_353_600));
        for text in ["", "2027-01-31", "2027-01-31 00:00", "2027-02-30T00:00:00Z", "1969-12-31T23:59:59Z", "soon"] {
            assert_eq!(seconds_of(text), None, "{text}");
        }
    }
}
