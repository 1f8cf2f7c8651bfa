//! What does a resource's URI mean to whoever might read it?

/// Why a URI is not judged by lists: who reads it might take it for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UriFlaw {
    /// It is longer than any that is forwarded.
    Long,
}

/// A resource's URI that resolving does not change.
#[derive(Debug)]
pub struct Uri<'t> {
    text: &'t str,
}

impl<'t> Uri<'t> {
    /// Reads a URI, or a text that is none and is then taken as it is.
    pub fn read(text: &'t str) -> Result<Self, UriFlaw> {
        if text.len() > crate::mcp::message::URI_BYTES_MAX { Err(UriFlaw::Long) } else { Ok(Self { text }) }
    }

    /// As it was written.
    pub fn text(&self) -> &'t str {
        self.text
    }

    /// What a less exact reader takes it for, where that is another text.
    pub fn loose(&self) -> Option<&str> {
        None
    }

    /// Everything that some reader might take it for, as it was written among it.
    pub fn readings(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.text)
    }
}

/// A text with its percent-encoded characters decoded.
pub fn decoded(text: &str) -> String {
    text.to_owned()
}

/// A text as a less exact reader takes it.
pub fn loose(text: &str) -> String {
    text.to_owned()
}

/// A URI that may come of a template; `None` if it is none.
pub fn sample(_template: &str) -> Option<String> {
    None
}

impl std::fmt::Display for UriFlaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it is too long")
    }
}
