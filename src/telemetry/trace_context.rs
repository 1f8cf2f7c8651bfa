//! Which trace does a caller say its request belongs to?
//!
//! W3C Trace Context, version 00: `traceparent` is read strictly, and what cannot be read counts as absent. `tracestate` is
//! somebody else's text, passed on within its limit and read by nobody here.

use std::fmt;

/// The header, and the key in `params._meta`, that says which span asks.
pub const TRACEPARENT: &str = "traceparent";
/// The one in which tracing systems keep what is their own.
pub const TRACESTATE: &str = "tracestate";
/// Bytes of a `tracestate`; a longer one counts as absent.
pub const TRACESTATE_BYTES_MAX: usize = 512;

/// Bytes of a `traceparent` of version 00.
const TRACEPARENT_BYTES: usize = 55;

/// A span, as its trace knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace. Never all zeros.
    pub trace: [u8; 16],
    /// The span. Never all zeros.
    pub span: [u8; 8],
    /// Whether its trace is being collected.
    pub is_sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent`. A later version is read as far as this one knows it, as the specification asks.
    pub fn read(text: &str) -> Option<Self> {
        let (known, rest) = text.split_at_checked(TRACEPARENT_BYTES)?;
        let mut parts = known.split('-');
        let [version, trace, span, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
        let [version]: [u8; 1] = hex(version)?;
        let ends_here = rest.is_empty() || (version != 0 && rest.starts_with('-'));
        if version == 0xff || !ends_here || parts.next().is_some() {
            return None;
        }
        let (trace, span, [flags]): (_, _, [u8; 1]) = (hex::<16>(trace)?, hex::<8>(span)?, hex(flags)?);
        let is_somebody = trace != [0; 16] && span != [0; 8];
        is_somebody.then_some(Self { trace, span, is_sampled: flags & 1 == 1 })
    }

    /// The trace's id as everybody writes it.
    pub fn trace_id(&self) -> String {
        Hex(&self.trace).to_string()
    }
}

/// The `traceparent` that names this span as the one that asks.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", Hex(&self.trace), Hex(&self.span), u8::from(self.is_sampled))
    }
}

struct Hex<'b>(&'b [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Exactly so many bytes in lower-case digits.
fn hex<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let is_lower = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_lower || text.len() != 2 * BYTES {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// What came with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The span that asks.
    pub context: TraceContext,
    /// What goes with it.
    pub state: Option<Box<str>>,
}

impl Remote {
    /// Reads both; without a `traceparent` that can be read, a `tracestate` says nothing.
    pub fn read(parent: &str, state: Option<&str>) -> Option<Self> {
        let context = TraceContext::read(parent)?;
        let fits = |state: &&str| {
            !state.is_empty()
                && state.len() <= TRACESTATE_BYTES_MAX
                && state.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
        };
        Some(Self { context, state: state.filter(fits).map(Box::from) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written_alike() {
        let read = TraceContext::read(GOOD).unwrap();
        assert_eq!((read.to_string().as_str(), read.is_sampled), (GOOD, true));
        assert_eq!(read.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        // Of the flags only the first is known; a later version may say more.
        assert!(!TraceContext::read(&GOOD.replace("-01", "-fe")).unwrap().is_sampled);
        assert_eq!(TraceContext::read(&format!("{}-more", GOOD.replacen("00", "01", 1))), Some(read));
    }

    #[test]
    fn what_is_no_traceparent_counts_as_absent() {
        for text in [
            "".to_owned(),
            "00".to_owned(),
            format!("{GOOD}-more"),
            format!("{GOOD} "),
            GOOD.to_uppercase(),
            GOOD.replacen("00", "ff", 1),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            GOOD.replace("00f067aa0ba902b7", "0000000000000000"),
            GOOD.replace("-00f067aa0ba902b7-", "--0f067aa0ba902b7-"),
            GOOD.replace("4b", "+b"),
            GOOD.replace("-01", "-1é"),
            format!("{}more", GOOD.replacen("00", "01", 1)),
        ] {
            assert_eq!(TraceContext::read(&text), None, "{text}");
        }
    }

    #[test]
    fn a_tracestate_goes_along_within_its_limit() {
        let state = |state: &str| Remote::read(GOOD, Some(state)).unwrap().state;
        assert_eq!(state("a=1,b=2").as_deref(), Some("a=1,b=2"));
        assert_eq!(state(&"a".repeat(TRACESTATE_BYTES_MAX)).unwrap().len(), TRACESTATE_BYTES_MAX);
        assert_eq!(state(&"a".repeat(TRACESTATE_BYTES_MAX + 1)), None);
        assert_eq!((state(""), state("a=\u{7f}"), state("a=é")), (None, None, None));
        assert_eq!(Remote::read("nothing", Some("a=1")), None);
    }
}
