//! What is wrong with a URI that could be read as another one?

use std::fmt;

/// Why a URI is refused before any list is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UriFlaw {
    /// It is empty, or begins or ends with white space.
    Space,
    /// It is longer than any that is forwarded.
    Long,
    /// It has a control or invisible character, as it is or encoded.
    Hidden,
    /// It has a backslash.
    Backslash,
    /// It has a `%` that encodes nothing, bytes that are no UTF-8, or a character whose encoding is not the usual one.
    Encoding,
    /// It is encoded more than twice.
    Nested,
    /// It has a segment that leads elsewhere: `.` or `..`, however it is written.
    Dots,
    /// Its scheme has capitals.
    Scheme,
    /// It has too few or too many slashes.
    Slashes,
    /// It names a user where none belongs, or in two ways.
    User,
    /// Its host is missing, or has another spelling.
    Host,
    /// Its port is not a number, or is the one without it.
    Port,
    /// It can be read in too many ways to judge.
    Many,
}

impl fmt::Display for UriFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Space => "it is empty, or begins or ends with white space",
            Self::Long => "it is too long",
            Self::Hidden => "it has a control or invisible character",
            Self::Backslash => "it has a backslash",
            Self::Encoding => "its percent-encoding is not the usual one",
            Self::Nested => "it is percent-encoded more than twice",
            Self::Dots => "it has a `.` or `..` segment",
            Self::Scheme => "its scheme has capitals",
            Self::Slashes => "it has too few or too many slashes",
            Self::User => "it names a user where none belongs",
            Self::Host => "its host is missing or has another spelling",
            Self::Port => "its port is no number, or the one it would have anyway",
            Self::Many => "it can be read in too many ways",
        })
    }
}
