//! What goes out when parts of a received body are replaced?
//!
//! The received bytes with the recorded spans substituted, and nothing else changed. Without substitutions it is the
//! very same buffer.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use bytes::BytesMut;

/// One substitution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splice {
    /// The bytes of the received body that are replaced; empty to insert.
    pub span: Range<usize>,
    /// What stands there instead; empty to remove.
    pub replacement: Bytes,
}

impl Splice {
    /// Takes a span out.
    pub fn cut(span: Range<usize>) -> Self {
        Self { span, replacement: Bytes::new() }
    }
}

/// Substitutions that do not fit the body or each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpliceError;

impl fmt::Display for SpliceError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("substitutions overlap, are out of order or leave the body")
    }
}

impl std::error::Error for SpliceError {}

/// The body with the substitutions made. They are given in the order of their spans, which do not overlap.
pub fn apply(body: &Bytes, splices: &[Splice]) -> Result<Bytes, SpliceError> {
    if splices.is_empty() {
        return Ok(body.clone());
    }
    let added: usize = splices.iter().map(|splice| splice.replacement.len()).sum();
    let mut spliced = BytesMut::with_capacity(body.len().saturating_add(added));
    let mut from = 0;
    for Splice { span, replacement } in splices {
        if span.start > span.end {
            return Err(SpliceError);
        }
        spliced.extend_from_slice(body.get(from..span.start).ok_or(SpliceError)?);
        spliced.extend_from_slice(replacement);
        from = span.end;
    }
    spliced.extend_from_slice(body.get(from..).ok_or(SpliceError)?);
    Ok(spliced.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spliced(body: &'static str, splices: &[(Range<usize>, &'static str)]) -> Result<Bytes, SpliceError> {
        let splices: Vec<Splice> = splices
            .iter()
            .map(|(span, replacement)| Splice {
                span: span.clone(),
                replacement: Bytes::from_static(replacement.as_bytes()),
            })
            .collect();
        apply(&Bytes::from_static(body.as_bytes()), &splices)
    }

    #[test]
    fn without_substitutions_the_body_is_the_same_buffer() {
        let body = Bytes::from_static(b"abc");
        assert_eq!(apply(&body, &[]).expect("nothing to do").as_ptr(), body.as_ptr());
    }

    #[test]
    fn only_the_spans_change() {
        assert_eq!(spliced("0123456789", &[(2..4, "ab!"), (4..4, "-"), (8..10, "")]), Ok("01ab!-4567".into()));
        assert_eq!(spliced("0123", &[(0..4, "")]), Ok(Bytes::new()));
    }

    #[test]
    fn spans_that_overlap_or_leave_the_body_are_refused() {
        assert_eq!(spliced("0123", &[(0..2, ""), (1..3, "")]), Err(SpliceError));
        assert_eq!(spliced("0123", &[(2..3, ""), (0..1, "")]), Err(SpliceError));
        assert_eq!(spliced("0123", &[(3..5, "")]), Err(SpliceError));
        #[expect(clippy::reversed_empty_ranges, reason = "it is what must be refused")]
        let reversed = 3..1;
        assert_eq!(spliced("0123", &[(reversed, "")]), Err(SpliceError));
    }
}
