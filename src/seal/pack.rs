//! How is what is sealed written?
//!
//! Numbers big-endian, each text after its length in two bytes. Whoever reads takes every byte into account, so that one value
//! has one encoding.

/// Adds a text after its length. One that is longer than a length can say is cut: whoever seals refuses it before.
pub fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend(text.bytes().take(usize::from(length)));
}

/// The bytes not read yet; every read checks that they are there.
#[derive(Debug)]
pub struct Reader<'b>(pub &'b [u8]);

impl<'b> Reader<'b> {
    /// The next bytes, so many of them.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next text.
    pub fn text(&mut self) -> Option<&'b str> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(head).ok()
    }

    /// Whether every byte was read.
    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }
}
