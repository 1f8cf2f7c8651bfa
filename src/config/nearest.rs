//! Which of the known words was meant?

/// Below this likeness (Jaro-Winkler, 0 to 1) a word is not suggested.
const LIKENESS_MIN: f64 = 0.82;

/// The known word most like `word`, the first of several; `None` if none is like it at all.
pub(crate) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k String>) -> Option<&'k str> {
    known
        .map(|candidate| (likeness(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map(|(_, candidate)| candidate.as_str())
}

/// Case and the two usual separators make no difference.
fn likeness(word: &str, candidate: &str) -> f64 {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    strsim::jaro_winkler(&plain(word), &plain(candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is suggested for `word`, out of a few keys.
    fn suggest(word: &str) -> Option<String> {
        let known = ["timeout_ms", "sse_read_timeout_ms", "url", "allowed_tools", "blocked_tools"].map(String::from);
        nearest(word, known.iter()).map(String::from)
    }

    #[test]
    fn a_slip_of_the_pen_is_understood() {
        assert_eq!(suggest("tiemout_ms").as_deref(), Some("timeout_ms"));
        assert_eq!(suggest("timeout").as_deref(), Some("timeout_ms"));
        assert_eq!(suggest("Allowed-Tools").as_deref(), Some("allowed_tools"));
    }

    #[test]
    fn something_else_is_not_guessed_at() {
        assert_eq!(suggest("rate_limit"), None);
        assert_eq!(suggest(""), None);
    }
}
