//! Why is a body not read?
//!
//! The texts are shown to clients: they say what is wrong and where, and never repeat content.

use std::fmt;

/// What is wrong with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing but whitespace.
    Empty,
    /// Starts with a byte order mark.
    ByteOrderMark,
    /// Not UTF-8.
    NotUtf8,
    /// More whitespace before the document than [`LEADING_WHITESPACE_BYTES_MAX`].
    LeadingWhitespace,
    /// Ends inside the document.
    Truncated,
    /// A byte that cannot stand here.
    Unexpected,
    /// Something after the document.
    TrailingData,
    /// A control character in a string, not written as an escape.
    ControlCharacter,
    /// A backslash sequence that JSON does not know.
    BadEscape,
    /// Half of a surrogate pair.
    LoneSurrogate,
    /// A number that JSON's grammar does not allow.
    BadNumber,
    /// A number beyond what a double holds.
    NumberTooLarge,
    /// The same key twice in one object, once escapes are resolved.
    DuplicateKey,
    /// Nested deeper than `depth_max`.
    TooDeep,
    /// More values than `nodes_max`.
    TooManyValues,
    /// More keys in an object than `object_keys_max`.
    TooManyKeys,
    /// A string longer than `string_bytes_max`.
    StringTooLong,
    /// A key longer than `key_bytes_max`.
    KeyTooLong,
    /// A number longer than `number_bytes_max`.
    NumberTooLong,
    /// Longer than a document may be at all.
    TooLong,
    /// The two readers of the gateway do not see the same document.
    Ambiguous,
}

/// Whitespace before a document beyond this is refused.
pub const LEADING_WHITESPACE_BYTES_MAX: usize = 64;

impl Fault {
    /// Whether the bytes are JSON in the sense of the grammar, yet not what this gateway forwards.
    pub fn is_well_formed(self) -> bool {
        match self {
            Fault::DuplicateKey
            | Fault::TooDeep
            | Fault::TooManyValues
            | Fault::TooManyKeys
            | Fault::StringTooLong
            | Fault::KeyTooLong
            | Fault::NumberTooLong
            | Fault::TooLong => true,
            Fault::Empty
            | Fault::ByteOrderMark
            | Fault::NotUtf8
            | Fault::LeadingWhitespace
            | Fault::Truncated
            | Fault::Unexpected
            | Fault::TrailingData
            | Fault::ControlCharacter
            | Fault::BadEscape
            | Fault::LoneSurrogate
            | Fault::BadNumber
            | Fault::NumberTooLarge
            | Fault::Ambiguous => false,
        }
    }

    /// A fixed word for metrics and records.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Empty => "empty",
            Fault::ByteOrderMark => "byte_order_mark",
            Fault::NotUtf8 => "not_utf8",
            Fault::LeadingWhitespace => "leading_whitespace",
            Fault::Truncated => "truncated",
            Fault::Unexpected => "unexpected_byte",
            Fault::TrailingData => "trailing_data",
            Fault::ControlCharacter => "control_character",
            Fault::BadEscape => "bad_escape",
            Fault::LoneSurrogate => "lone_surrogate",
            Fault::BadNumber => "bad_number",
            Fault::NumberTooLarge => "number_too_large",
            Fault::DuplicateKey => "duplicate_key",
            Fault::TooDeep => "too_deep",
            Fault::TooManyValues => "too_many_values",
            Fault::TooManyKeys => "too_many_keys",
            Fault::StringTooLong => "string_too_long",
            Fault::KeyTooLong => "key_too_long",
            Fault::NumberTooLong => "number_too_long",
            Fault::TooLong => "too_long",
            Fault::Ambiguous => "ambiguous",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Fault::Empty => "no JSON document",
            Fault::ByteOrderMark => "byte order mark",
            Fault::NotUtf8 => "not UTF-8",
            Fault::LeadingWhitespace => "too much whitespace before the document",
            Fault::Truncated => "the document ends too early",
            Fault::Unexpected => "unexpected character",
            Fault::TrailingData => "data after the document",
            Fault::ControlCharacter => "control character in a string",
            Fault::BadEscape => "unknown escape in a string",
            Fault::LoneSurrogate => "lone surrogate in a string",
            Fault::BadNumber => "malformed number",
            Fault::NumberTooLarge => "number out of range",
            Fault::DuplicateKey => "duplicate key",
            Fault::TooDeep => "nested too deep",
            Fault::TooManyValues => "too many values",
            Fault::TooManyKeys => "too many keys in an object",
            Fault::StringTooLong => "string too long",
            Fault::KeyTooLong => "key too long",
            Fault::NumberTooLong => "number too long",
            Fault::TooLong => "document too long",
            Fault::Ambiguous => "ambiguous document",
        }
    }
}

/// Why a body is not read, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadError {
    /// What is wrong.
    pub fault: Fault,
    /// Offset of the byte at which it shows.
    pub at: usize,
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at byte {}", self.fault.text(), self.at)
    }
}

impl std::error::Error for ReadError {}
