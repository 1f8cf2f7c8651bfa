//! Which of a tool's arguments does a constraint speak of?
//!
//! A path starts at the arguments: keys joined by dots, `[*]` for every element of an array. A key with other
//! characters than letters, digits and plain signs is quoted: `"x.y".z`, `"a\"b"`; within quotes `\` stands before
//! `"` or `\` only. There is no other syntax, so that a mistyped path is a mistake rather than one that never matches.

use std::fmt;

/// Bytes of a path as it is written.
pub(super) const PATH_BYTES_MAX: usize = 1_024;
/// Steps of a path; it also bounds the recursion of whoever walks it.
pub(super) const PATH_STEPS_MAX: usize = 32;

/// The way to an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    text: Box<str>,
    steps: Box<[Step]>,
}

/// One step on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Into an object, by this key.
    Key(Box<str>),
    /// Into an array, to every element.
    Each,
}

/// Why a text is no path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathError {
    /// What is wrong.
    pub(super) message: String,
    /// What to write instead.
    pub(super) help: &'static str,
}

impl Path {
    /// Reads a path as an operator writes it.
    pub(super) fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(error("the path is too long", "an argument's path has at most 1024 bytes"));
        }
        let (first, mut rest) = key(text)?;
        if &*first == "$" && text.starts_with('$') {
            return Err(error(
                format!("`{text}` starts at `$`"),
                "a path starts at the arguments: write `sql`, not `$.sql`",
            ));
        }
        let mut steps = vec![Step::Key(first)];
        while !rest.is_empty() {
            let (step, left) = step(rest)?;
            steps.push(step);
            rest = left;
        }
        if steps.len() > PATH_STEPS_MAX {
            return Err(error(format!("`{text}` has too many steps"), "a path has at most 32 steps"));
        }
        Ok(Self { text: text.into(), steps: steps.into() })
    }

    /// The steps from the arguments to the argument; never empty, and the first is a key.
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn error(message: impl Into<String>, help: &'static str) -> PathError {
    PathError { message: message.into(), help }
}

/// The step that `text` goes on with, and what is left.
fn step(text: &str) -> Result<(Step, &str), PathError> {
    if let Some(rest) = text.strip_prefix("[*]") {
        return Ok((Step::Each, rest));
    }
    if let Some(rest) = text.strip_prefix('.') {
        return key(rest).map(|(key, left)| (Step::Key(key), left));
    }
    if text.starts_with('[') {
        let help = "write `[*]` for every element; single elements cannot be named";
        return Err(error(format!("`{text}` is not a step of a path"), help));
    }
    Err(error(
        format!("`{text}` does not follow here"),
        "a path goes on with `.key` or `[*]`; quote other keys: `\"my key\".id`",
    ))
}

/// The key that `text` begins with, and what is left.
fn key(text: &str) -> Result<(Box<str>, &str), PathError> {
    if let Some(quoted) = text.strip_prefix('"') {
        return quoted_key(quoted);
    }
    let end = text.find(|c| !is_bare(c)).unwrap_or(text.len());
    match text.split_at_checked(end) {
        Some((key, rest)) if !key.is_empty() => Ok((key.into(), rest)),
        _ if text.is_empty() => Err(error("a key is missing", "a path is keys joined by dots: `sql`, `filter.owner`")),
        _ => Err(error(format!("`{text}` is not a key"), "quote keys with other characters: `\"my key\".id`")),
    }
}

/// Whether `c` may stand in a key without quotes.
fn is_bare(c: char) -> bool {
    !matches!(c, '.' | '[' | ']' | '"' | '\\' | '*' | '\'' | '`') && !c.is_whitespace() && !c.is_control()
}

/// The key up to the closing quote; `text` begins after the opening one.
fn quoted_key(text: &str) -> Result<(Box<str>, &str), PathError> {
    let mut key = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return Ok((key.into(), characters.as_str())),
            '\\' => match characters.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => {
                    return Err(error(
                        "an unknown escape in a quoted key",
                        "within quotes write `\\\"` and `\\\\` only",
                    ));
                }
            },
            _ => key.push(character),
        }
    }
    Err(error("a quoted key is not closed", "end it with `\"`"))
}

#[cfg(test)]
mod tests {
    use super::PATH_BYTES_MAX;
    use super::PATH_STEPS_MAX;
    use super::Path;
    use super::Step;

    /// The steps of `text`, `*` for every element.
    fn steps(text: &str) -> Vec<String> {
        let path = Path::parse(text).unwrap();
        path.steps()
            .iter()
            .map(|step| match step {
                Step::Key(key) => format!("key {key}"),
                Step::Each => "*".to_owned(),
            })
            .collect()
    }

    #[test]
    fn a_path_is_keys_and_elements() {
        assert_eq!(steps("sql"), ["key sql"]);
        assert_eq!(steps("a.b"), ["key a", "key b"]);
        assert_eq!(steps("a[*].b"), ["key a", "*", "key b"]);
        assert_eq!(steps("a[*][*]"), ["key a", "*", "*"]);
        assert_eq!(steps("file-path.$ref.日本"), ["key file-path", "key $ref", "key 日本"]);
    }

    #[test]
    fn a_quoted_key_holds_anything() {
        assert_eq!(steps(r#""x.y".z"#), ["key x.y", "key z"]);
        assert_eq!(steps(r#""a\"b""#), ["key a\"b"]);
        assert_eq!(steps(r#"a."\\[*]"[*]"#), ["key a", r"key \[*]", "*"]);
        assert_eq!(steps(r#""""#), ["key "]);
        assert_eq!(steps(r#""$".x"#), ["key $", "key x"]);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let bad = [
            "", ".", "a.", ".a", "a..b", "a b", " a", "[*]", "[*].a", "a[0]", "a[]", "a[*", "a[*]b", "a.[*]", "a*",
            "*", "\"a", r#""a\n""#, r#""a\"#, r#""a"b"#, r#"a"b""#, "'a'", "$.a", "$", "a\u{0}", "a\\b", "a]",
        ];
        for text in bad {
            let refused = Path::parse(text).unwrap_err();
            assert!(!refused.message.is_empty() && !refused.help.is_empty(), "{text:?}");
        }
    }

    #[test]
    fn a_path_has_limits() {
        assert!(Path::parse(&"a".repeat(PATH_BYTES_MAX)).is_ok());
        assert!(Path::parse(&"a".repeat(PATH_BYTES_MAX + 1)).is_err());
        assert!(Path::parse(&["a"; PATH_STEPS_MAX].join(".")).is_ok());
        assert!(Path::parse(&["a"; PATH_STEPS_MAX + 1].join(".")).is_err());
    }
}
