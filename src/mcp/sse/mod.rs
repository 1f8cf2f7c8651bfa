//! Which events are in a stream of bytes?
//!
//! The rules of WHATWG's event streams, over chunks cut anywhere. Every complete event comes out with exactly its
//! bytes, so that what is not changed is forwarded as it came; an incomplete last event never comes out. What cannot be
//! shown to mean one thing (not UTF-8, too long) ends the stream.

mod event;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Buf;
use bytes::Bytes;
use bytes::BytesMut;

pub use event::Event;
pub use event::message_event;

/// A piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Fields up to and with the blank line that ends them.
    Event(Event),
    /// A comment line or a blank line between events: nothing a client hands on, though it keeps connections alive.
    Filler(Bytes),
}

impl Item {
    /// Its exact bytes. Those of all items in a row are the stream, without its byte order mark.
    pub fn raw(&self) -> &Bytes {
        match self {
            Item::Event(event) => event.raw(),
            Item::Filler(raw) => raw,
        }
    }
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SseError {
    /// An event or comment is longer than `event_bytes_max`.
    TooLong,
    /// An event or comment is not UTF-8.
    NotUtf8,
}

impl fmt::Display for SseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            SseError::TooLong => "an event is too long",
            SseError::NotUtf8 => "an event is not UTF-8",
        })
    }
}

impl std::error::Error for SseError {}

/// Cuts a stream into its items.
#[derive(Debug)]
pub struct Splitter {
    event_bytes_max: usize,
    /// What was fed and not handed out; begins with the next item.
    pending: BytesMut,
    /// Where in `pending` the line begins that is being looked for the end of.
    line: usize,
    /// How far that line has been searched.
    searched: usize,
    is_at_start: bool,
    /// The last item ended with a CR; an LF right behind it belongs to the same line end.
    ended_with_cr: bool,
    failed: Option<SseError>,
}

impl Splitter {
    /// A stream from its beginning. An event or comment of more than `event_bytes_max` bytes ends it.
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            pending: BytesMut::new(),
            line: 0,
            searched: 0,
            is_at_start: true,
            ended_with_cr: false,
            failed: None,
        }
    }

    /// Takes the next bytes of the stream. Call [`Splitter::next_item`] until it has none before feeding more, so that
    /// no more than one event and one chunk are held.
    pub fn feed(&mut self, chunk: &[u8]) {
        if self.failed.is_none() {
            self.pending.extend_from_slice(chunk);
        }
    }

    /// The next complete item, or `None` until more was fed. After an error it is always that error.
    pub fn next_item(&mut self) -> Result<Option<Item>, SseError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let next = self.cut();
        if let Err(error) = next {
            self.failed = Some(error);
            self.pending = BytesMut::new();
        }
        next
    }

    /// Whether the stream could end here without an event being lost.
    pub fn is_between_events(&self) -> bool {
        self.pending.is_empty()
    }

    /// Bytes of an event that is not complete yet.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    fn cut(&mut self) -> Result<Option<Item>, SseError> {
        if !self.skip_mark() {
            return Ok(None);
        }
        if self.ended_with_cr {
            match self.pending.first() {
                None => return Ok(None),
                Some(b'\n') => {
                    self.ended_with_cr = false;
                    return Ok(Some(Item::Filler(self.take(1))));
                }
                Some(_) => self.ended_with_cr = false,
            }
        }
        while let Some(ending) = self.next_line() {
            let is_first = self.line == 0;
            let is_blank = ending.start == self.line;
            let is_complete = is_blank || (is_first && self.pending.first() == Some(&b':'));
            if !is_complete && ending.is_open {
                // Nothing is held back by waiting for what follows, and an LF must not pass for a blank line.
                self.searched = ending.start;
                break;
            }
            if !is_complete {
                self.line = ending.end;
                self.searched = ending.end;
                continue;
            }
            // A line end counts as one byte: where it is cut between its two must make no difference.
            if ending.start + 1 > self.event_bytes_max {
                return Err(SseError::TooLong);
            }
            self.ended_with_cr = ending.is_open;
            let raw = self.take(ending.end);
            return match std::str::from_utf8(&raw) {
                Err(_) => Err(SseError::NotUtf8),
                Ok(_) if is_first => Ok(Some(Item::Filler(raw))),
                Ok(_) => Ok(Some(Item::Event(Event::parse(raw)))),
            };
        }
        if self.pending.len() > self.event_bytes_max { Err(SseError::TooLong) } else { Ok(None) }
    }

    /// Drops the byte order mark that may begin a stream. False while it cannot be told whether there is one.
    fn skip_mark(&mut self) -> bool {
        const MARK: &[u8] = b"\xef\xbb\xbf";
        if self.is_at_start {
            if self.pending.starts_with(MARK) {
                self.pending.advance(MARK.len());
            } else if MARK.starts_with(&self.pending) {
                return false;
            }
            self.is_at_start = false;
        }
        true
    }

    /// The end of the line that begins at `self.line`. A CR that is the last byte so far ends its line at once: the
    /// event is not held back for an LF that may never come.
    fn next_line(&mut self) -> Option<Ending> {
        let unsearched = self.pending.get(self.searched..)?;
        let Some(found) = memchr::memchr2(b'\r', b'\n', unsearched) else {
            self.searched = self.pending.len();
            return None;
        };
        let start = self.searched + found;
        let is_cr = self.pending.get(start) == Some(&b'\r');
        let (length, is_open) = match self.pending.get(start + 1) {
            Some(b'\n') if is_cr => (2, false),
            None if is_cr => (1, true),
            _ => (1, false),
        };
        Some(Ending { start, end: start + length, is_open })
    }

    fn take(&mut self, length: usize) -> Bytes {
        self.line = 0;
        self.searched = 0;
        self.pending.split_to(length).freeze()
    }
}

/// The end of a line.
struct Ending {
    start: usize,
    end: usize,
    /// A lone CR so far, to which an LF may still be added.
    is_open: bool,
}
