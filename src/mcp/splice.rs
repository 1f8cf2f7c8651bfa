//! What goes out when parts of a received body are replaced?
//!
//! The received bytes with the recorded spans substituted, and nothing else changed. Without substitutions it is the
//! very same buffer.

use std::cmp::Reverse;
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

/// Substitutions of one body that were found by several, as one list that [`apply`] takes: in order, those inside a cut
/// swallowed by it. Those that touch one another in any other way are an error. What is inserted at one and the same
/// place keeps the order it is given in, and stands before what is replaced there.
pub fn merge(mut splices: Vec<Splice>) -> Result<Vec<Splice>, SpliceError> {
    splices.sort_by_key(|Splice { span, replacement }| {
        (span.start, span.end != span.start, Reverse(span.end), !replacement.is_empty())
    });
    let mut merged: Vec<Splice> = Vec::with_capacity(splices.len());
    for splice in splices {
        match merged.last() {
            _ if splice.span.start > splice.span.end => return Err(SpliceError),
            Some(last) if splice.span.start < last.span.end => {
                if !last.replacement.is_empty() || splice.span.end > last.span.end {
                    return Err(SpliceError);
                }
            }
            _ => merged.push(splice),
        }
    }
    Ok(merged)
}

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

    fn splice(span: Range<usize>, replacement: &'static str) -> Splice {
        Splice { span, replacement: Bytes::from_static(replacement.as_bytes()) }
    }

    fn merged(splices: &[Splice]) -> Result<Bytes, SpliceError> {
        merge(splices.to_vec()).and_then(|splices| apply(&Bytes::from_static(b"0123456789"), &splices))
    }

    #[test]
    fn substitutions_of_several_are_made_in_the_order_of_their_spans() {
        let (end, start, inserted) = (splice(8..9, "b"), splice(0..2, "a"), splice(5..5, "-"));
        assert_eq!(merged(&[end.clone(), inserted, start, Splice::cut(2..4)]), Ok("a4-567b9".into()));
        assert_eq!(
            merged(&[splice(5..7, "x"), splice(5..5, "1"), splice(5..5, "2"), splice(7..7, "3")]),
            Ok("0123412x3789".into())
        );
        assert_eq!(merged(&[end]), Ok("01234567b9".into()));
    }

    #[test]
    fn what_is_inside_a_cut_goes_with_it() {
        let inside = [splice(4..5, "x"), splice(3..4, "y"), splice(5..5, "z"), Splice::cut(3..6), Splice::cut(3..4)];
        for at in 0..inside.len() {
            let mut splices = inside.to_vec();
            splices.rotate_left(at);
            assert_eq!(merged(&splices), Ok("0126789".into()), "{at}");
        }
        assert_eq!(merged(&[splice(3..6, "x"), Splice::cut(3..6)]), Ok("0126789".into()));
        assert_eq!(merged(&[splice(6..7, "x"), splice(2..3, "y"), Splice::cut(3..6)]), Ok("01yx789".into()));
    }

    #[test]
    fn substitutions_that_contradict_one_another_are_refused() {
        for (one, other) in [
            (Splice::cut(2..5), Splice::cut(4..6)),
            (Splice::cut(2..5), splice(4..6, "x")),
            (splice(2..5, "x"), Splice::cut(3..4)),
            (splice(2..5, "x"), splice(2..5, "x")),
            (splice(2..5, "x"), splice(3..3, "y")),
            (splice(2..4, "x"), splice(2..5, "y")),
        ] {
            assert_eq!(merged(&[one.clone(), other.clone()]), Err(SpliceError), "{one:?} {other:?}");
            assert_eq!(merged(&[other.clone(), one.clone()]), Err(SpliceError), "{other:?} {one:?}");
        }
        #[expect(clippy::reversed_empty_ranges, reason = "it is what must be refused")]
        let reversed = splice(3..1, "");
        assert_eq!(merged(&[reversed]), Err(SpliceError));
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
