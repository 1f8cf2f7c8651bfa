//! Is a key that somebody brings along hard enough to guess?
//!
//! What is kept of a key is a fast digest, so a key must hold out against everybody who ever reads the configuration. A key of
//! ours has 256 random bits; what others made is estimated, downwards: as many bits for each character as its alphabet has, and
//! none for a prefix, for what goes on as it began, for what was there already, and for words. 112 bits are the least that
//! NIST SP 800-131A allows; random UUIDs have 122, 32 hexadecimal digits 128. What is no word of the list below counts in full: the
//! estimate knows no language.

use std::collections::HashSet;

use crate::auth::key::KEY_BYTES_MAX;

/// Bits that an imported key must have.
pub const BITS_MIN: f64 = 112.0;
/// Different characters that it must have.
const DISTINCT_MIN: usize = 8;
/// Characters that one part of a prefix may have, such as `sk` and `live`.
const PREFIX_PART_MAX: usize = 8;
/// Equal or consecutive characters that chance brings about now and then.
const RUN_MIN: usize = 4;
/// The same for a text that comes a second time.
const REPEAT_MIN: usize = 5;
/// Bits for a letter where there is nothing but letters: they may be a sentence.
const LETTER_BITS: f64 = 2.0;

/// Words that stand for a key in examples, or that people take for one.
const WORDS: [&str; 28] = [
    "password",
    "passwort",
    "secret",
    "changeme",
    "change",
    "placeholder",
    "example",
    "sample",
    "dummy",
    "test",
    "testing",
    "demo",
    "admin",
    "letmein",
    "qwerty",
    "asdf",
    "welcome",
    "default",
    "master",
    "insert",
    "replace",
    "your",
    "here",
    "apikey",
    "token",
    "foobar",
    "deadbeef",
    "cafebabe",
];

/// What is wrong with a key. It says nothing of the key itself.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Weak {
    /// No header carries it.
    #[error("a key is at most {KEY_BYTES_MAX} letters, digits and signs, without spaces and commas")]
    Form,
    /// A UUID that is made from the time or from a name.
    #[error("this is a UUID, but not a random one (version 4)")]
    Uuid,
    /// A few characters, again and again.
    #[error("the key has {0} different characters, and at least {DISTINCT_MIN} are needed")]
    Distinct(usize),
    /// Too short, or too regular.
    #[error("the key is too easy to guess: it is worth about {0:.0} bits, and at least {BITS_MIN} are needed")]
    Bits(f64),
}

/// Whether a key is hard enough to guess.
///
/// # Errors
/// It is not, and how.
pub fn check(key: &str) -> Result<(), Weak> {
    let shows = |byte: u8| byte.is_ascii_graphic() && byte != b',';
    if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.bytes().all(shows) {
        return Err(Weak::Form);
    }
    if uuid_version(key).is_some_and(|version| version != b'4') {
        return Err(Weak::Uuid);
    }
    let rest = without_prefix(key).as_bytes();
    let has = |of: fn(&u8) -> bool| rest.iter().any(of);
    let is_mixed = has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit);
    // In base64url `-` and `_` are digits like others; elsewhere they separate.
    let text: Vec<u8> = rest.iter().filter(|byte| is_mixed || byte.is_ascii_alphanumeric()).copied().collect();
    let distinct = text.iter().collect::<HashSet<_>>().len();
    if distinct < DISTINCT_MIN {
        return Err(Weak::Distinct(distinct));
    }
    let bits = bits(&text, distinct);
    if bits < BITS_MIN { Err(Weak::Bits(bits)) } else { Ok(()) }
}

/// Whether a key may be a UUID that is made from the time, written without hyphens. One in 16 random ones looks so.
pub fn may_be_timed(key: &str) -> bool {
    let digits = without_prefix(key).as_bytes();
    let is_one_of = |at: usize, of: &[u8]| digits.get(at).is_some_and(|digit| of.contains(&digit.to_ascii_lowercase()));
    let is_hex = digits.len() == 32 && digits.iter().all(u8::is_ascii_hexdigit);
    is_hex && is_one_of(12, b"1267") && is_one_of(16, b"89ab")
}

/// The version of the UUID with which a key ends, whatever its maker wrote before it.
fn uuid_version(key: &str) -> Option<u8> {
    let uuid = key.get(key.len().checked_sub(36)?..)?;
    let parts: Vec<&str> = uuid.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let is_hex = || parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (lengths == [8, 4, 4, 4, 12] && is_hex()).then(|| uuid.as_bytes().get(14).copied())?
}

/// A key without the parts by which its maker knows it: `sk-`, `api_live_`.
fn without_prefix(key: &str) -> &str {
    let mut rest = key;
    while let Some((part, after)) = rest.split_once(['-', '_', '.', ':', '/'])
        && part.len() <= PREFIX_PART_MAX
        && part.bytes().all(|byte| byte.is_ascii_lowercase())
    {
        rest = after;
    }
    rest
}

fn bits(text: &[u8], distinct: usize) -> f64 {
    let counted = counted(text);
    if !text.iter().any(u8::is_ascii_digit) && !is_shuffled(text) {
        return counted as f64 * LETTER_BITS;
    }
    let has = |of: fn(&u8) -> bool| text.iter().any(of);
    let is_hex = text.iter().all(u8::is_ascii_hexdigit);
    let alphabet = match (has(u8::is_ascii_lowercase), has(u8::is_ascii_uppercase)) {
        (true, true) => 64.0_f64,
        (true, false) | (false, true) if is_hex => 16.0,
        (true, false) | (false, true) => 36.0,
        (false, false) => 10.0,
    };
    // Few different characters are a smaller alphabet than their kinds say.
    counted as f64 * alphabet.log2().min((distinct as f64).log2() + 2.0)
}

/// Whether capitals stand where chance puts them, and not where words begin.
fn is_shuffled(letters: &[u8]) -> bool {
    let changes = letters
        .windows(2)
        .filter(|pair| matches!(pair, [one, other] if one.is_ascii_uppercase() != other.is_ascii_uppercase()));
    changes.count() * 5 > letters.len() * 2
}

/// Characters that say something new.
fn counted(text: &[u8]) -> usize {
    let mut counts = vec![true; text.len()];
    let mut drop = |from: usize, to: usize| counts.iter_mut().take(to).skip(from).for_each(|counts| *counts = false);
    // What goes on as it began: `aaaa`, `1234`, `dcba`.
    let steps: Vec<i16> = text.windows(2).map(step).collect();
    let mut begin = 0;
    for end in 1..=steps.len() {
        if end < steps.len() && steps.get(end) == steps.get(begin) {
            continue;
        }
        let goes_on = steps.get(begin).is_some_and(|step| step.abs() <= 1);
        if goes_on && end - begin + 1 >= RUN_MIN {
            drop(begin + 1, end + 1);
        }
        begin = end;
    }
    // What was there already.
    let mut seen = HashSet::new();
    for (at, part) in text.windows(REPEAT_MIN).enumerate() {
        if !seen.insert(part) {
            drop(at, at + REPEAT_MIN);
        }
    }
    let lower = text.to_ascii_lowercase();
    for word in WORDS {
        for at in (0..lower.len()).filter(|at| lower.get(*at..).is_some_and(|rest| rest.starts_with(word.as_bytes()))) {
            drop(at, at + word.len());
        }
    }
    counts.iter().filter(|counts| **counts).count()
}

fn step(pair: &[u8]) -> i16 {
    match pair {
        [one, other] => i16::from(*other) - i16::from(*one),
        _ => i16::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::key;
    use crate::config::secret::Secret;

    #[test]
    fn keys_that_were_made_at_random_pass() {
        for key in [
            "7f9c2ba4e88f827d616045507605853e",
            "sk-Zm9vYmFyYmF6cXV4MTIzNA8xQ2kLpT",
            "550e8400-e29b-41d4-a716-446655440000",
            "sk-proj-9aXq3TzL0vBn7KdWc2RyHg",
            "K7QX2M9PLR4TW8ZV3NB6YH1CJD5FGS0A",
            "c8fa1d9034be77215e6bd0492fa3c1e85b9d06724ef8",
            "AbGxQzTkLmWpRsVyHnBcJdFgKt",
        ] {
            assert_eq!(check(key), Ok(()), "{key}");
        }
        for _ in 0..200 {
            let key: Secret = key::generate("ptc").unwrap().key;
            assert_eq!(check(key.expose()), Ok(()), "{}", key.expose());
        }
    }

    /// Keys as other gateways make them, in the two shortest forms that are taken: of 2,000, how many are refused.
    #[test]
    fn hardly_any_random_key_is_refused() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |digits: &[u8]| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(digits[(state >> 11) as usize % digits.len()])
        };
        let base_64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        for (digits, length) in [(&b"0123456789abcdef"[..], 32), (&base_64[..], 22)] {
            let mut made = || (0..length).map(|_| next(digits)).collect::<String>();
            let refused = (0..2_000).filter(|_| check(&format!("sk-{}", made())).is_err()).count();
            assert!(refused <= 60, "{refused} of {length} characters");
        }
    }

    #[test]
    fn what_can_be_guessed_is_refused() {
        for key in [
            "sk-1234",
            "x",
            "hunter2",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "abababababababababababababababababababababababab",
            "0123456789abcdef0123456789abcdef0123456789abcdef",
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
            "00000000-0000-0000-0000-000000000000",
            "c232ab00-9414-11ec-b3c8-9f6bdeced846",
            "correct-horse-battery-staple-and-some-more-words",
            "CorrectHorseBatteryStapleAndSomeMoreWords",
            "sk-your-api-key-here-please-replace-me-1234567890",
            "password1password2password3password4password5",
            "ThisIsASecretTestKey1234567890ForTheDemo",
            "20261130190000123456789012",
            "sk-Zm9vYmFyYmF6",
        ] {
            let weak = check(key).expect_err(key);
            assert!(!weak.to_string().contains(key) || key.len() < 2, "{weak}");
        }
        for prefix in ["", "sk-", "mcp_", "MCP-", "live2:", "sk-live-"] {
            // The last one begins with letters alone, as prefixes do.
            for uuid in [
                "c232ab00-9414-11ec-b3c8-9f6bdeced846",
                "C232AB00-9414-11EC-B3C8-9F6BDECED846",
                "1ec9414c-232a-6b00-b3c8-9f6bdeced846",
                "018f3b5a-9414-7c11-b3c8-9f6bdeced846",
                "cabfabea-cafe-11ec-b3c8-9f6bdeced846",
            ] {
                assert_eq!(check(&format!("{prefix}{uuid}")), Err(Weak::Uuid), "{prefix}{uuid}");
            }
            assert_eq!(check(&format!("{prefix}550e8400-e29b-41d4-a716-446655440000")), Ok(()), "{prefix}");
        }
    }

    #[test]
    fn what_may_be_made_from_the_time_is_doubted() {
        for timed in ["c232ab00941411ecb3c89f6bdeced846", "sk-018F3B5A94147C11B3C89F6BDECED846"] {
            assert!(may_be_timed(timed) && check(timed).is_ok(), "{timed}");
        }
        for random in [
            "550e8400e29b41d4a716446655440000",
            "c232ab00941411ec73c89f6bdeced846",
            "c232ab00941411ecb3c89f6bdeced8461",
        ] {
            assert!(!may_be_timed(random), "{random}");
        }
    }

    #[test]
    fn a_key_is_what_a_header_carries() {
        let long = "a7Fk2Qx9".repeat(40);
        for key in [
            "",
            "with space 7f9c2ba4e88f827d616045507605853e",
            "a,7f9c2ba4e88f827d616045507605853e",
            "größe7f9c2ba4e88f827d61604550760",
            &long,
        ] {
            assert_eq!(check(key), Err(Weak::Form), "{key}");
        }
    }
}
