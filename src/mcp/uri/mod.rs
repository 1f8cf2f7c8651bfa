//! What does a resource's URI mean to whoever might read it?
//!
//! Servers read one URI in many ways: some decode twice, some ignore the host, the case or what follows a `?`. So a URI
//! whose resolving would change it is refused, and every other one comes with all that some reader might take it for.
//! Nothing is ever written anew: a URI goes out as it came, or not at all.

mod decode;
mod flaw;
mod form;
mod host;
mod parts;
mod readings;
mod template;
#[cfg(test)]
mod tests;

use crate::mcp::message::URI_BYTES_MAX;
use crate::mcp::names;

pub use crate::mcp::uri::decode::decoded;
pub use crate::mcp::uri::flaw::UriFlaw;
pub use crate::mcp::uri::readings::joined;
pub use crate::mcp::uri::readings::loose;
pub use crate::mcp::uri::template::sample;

/// A resource's URI that resolving does not change, or a text that is no URI and is taken as it is.
#[derive(Debug)]
pub struct Uri<'t> {
    text: &'t str,
    loose: Option<String>,
    /// INVARIANT: none of them equals the text or another one.
    further: Vec<String>,
}

impl<'t> Uri<'t> {
    /// Reads a URI, or a text that is none. What could be read as something else is refused.
    pub fn read(text: &'t str) -> Result<Self, UriFlaw> {
        if text.is_empty() || text.trim() != text {
            return Err(UriFlaw::Space);
        }
        if text.len() > URI_BYTES_MAX {
            return Err(UriFlaw::Long);
        }
        if !names::is_plain(text) {
            return Err(UriFlaw::Hidden);
        }
        if text.contains('\\') {
            return Err(UriFlaw::Backslash);
        }
        decode::check(text)?;
        form::check(text)?;
        let further = readings::of(text)?;
        for reading in std::iter::once(text).chain(further.iter().map(String::as_str)) {
            form::check_dots(reading)?;
        }
        let loose = Some(loose(text)).filter(|loose| loose != text);
        Ok(Self { text, loose, further })
    }

    /// As it was written.
    pub fn text(&self) -> &'t str {
        self.text
    }

    /// What a reader takes it for that decodes separators, joins slashes and drops the user's name, where that is
    /// another text.
    pub fn loose(&self) -> Option<&str> {
        self.loose.as_deref()
    }

    /// Everything that some reader might take it for, as it was written among it.
    pub fn readings(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.text).chain(self.further.iter().map(String::as_str))
    }
}
