//! What does one event say?
//!
//! Fields are read as WHATWG says; what is rendered anew has only fields that mean the same to every reader.

use std::borrow::Cow;
use std::ops::Range;

use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;

/// A complete event: its bytes and what a client reads in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    raw: Bytes,
    name: Option<Range<usize>>,
    id: Option<Range<usize>>,
    retry: Option<u64>,
    data: Option<Bytes>,
}

impl Event {
    /// Reads the fields. The bytes are UTF-8 and end with the blank line.
    pub(super) fn parse(raw: Bytes) -> Event {
        let mut event = Event { raw: raw.clone(), name: None, id: None, retry: None, data: None };
        let mut data: Vec<Range<usize>> = Vec::new();
        for line in lines(&raw) {
            let (field, value) = split_field(&raw, line);
            match raw.get(field) {
                Some(b"data") => data.push(value),
                Some(b"event") => event.name = Some(value).filter(|value| !value.is_empty()),
                Some(b"id") if !raw.get(value.clone()).unwrap_or_default().contains(&0) => event.id = Some(value),
                Some(b"retry") => event.retry = digits(&raw, value).or(event.retry),
                _ => {}
            }
        }
        event.data = match data.as_slice() {
            [] => None,
            // The usual case costs no copy.
            [line] => Some(raw.slice(line.clone())),
            lines => Some(joined(&raw, lines)),
        };
        event
    }

    /// Its exact bytes, with the blank line that ends it.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The event's type; `None` where a client takes it for `message`.
    pub fn name(&self) -> Option<&str> {
        self.text(self.name.clone()?)
    }

    /// The data, its lines joined with LF; `None` if the event has no data line.
    pub fn data(&self) -> Option<&Bytes> {
        self.data.as_ref()
    }

    /// The event's id. An empty one makes a client forget the last id.
    pub fn id(&self) -> Option<&str> {
        self.text(self.id.clone()?)
    }

    /// How many milliseconds a client shall wait before it connects again.
    pub fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// Whether it carries a message: has data that is not empty, and the type `message` or none. An event with an id
    /// and empty data only tells where to go on.
    pub fn is_message(&self) -> bool {
        self.data.as_ref().is_some_and(|data| !data.is_empty()) && self.name().is_none_or(|name| name == "message")
    }

    /// The event with other data, which is JSON: type, id and retry stay, comments and unknown fields go.
    pub fn render(&self, data: &[u8]) -> Bytes {
        let mut rendered = self.fields(data.len());
        put_data(&mut rendered, &escape_line_ends(data));
        rendered.freeze()
    }

    /// The event under another id, or without one; comments and unknown fields go.
    pub fn with_id(&self, id: Option<&str>) -> Event {
        let mut rendered = BytesMut::with_capacity(self.raw.len().saturating_add(id.map_or(0, str::len)));
        if let Some(id) = id {
            rendered.put_slice(format!("id: {id}\n").as_bytes());
        }
        let anonymous = Event { id: None, ..self.clone() };
        match self.data.as_deref() {
            Some(data) => rendered.put_slice(&anonymous.render(data)),
            None => rendered.put_slice(&anonymous.render_fields()),
        }
        Event::parse(rendered.freeze())
    }

    /// The event as it goes on to a client: its very bytes, unless a reader that splits lines otherwise than the standard
    /// could find something else in them. Then fields are written anew, and nothing but fields.
    ///
    /// Python's `splitlines`, which HTTP clients split events with, also ends a line at VT, FF, FS, GS, RS, NEL, LS and PS.
    /// In data, which is JSON, the three that may stand there are written as escapes.
    pub fn forwarded(&self) -> Bytes {
        if self.is_plain() {
            return self.raw.clone();
        }
        match self.data.as_deref() {
            Some(data) => self.render(data),
            None => self.render_fields().freeze(),
        }
    }

    /// Whether every line is a field of ours and holds no line end that only some readers see.
    fn is_plain(&self) -> bool {
        let ours: [&[u8]; 4] = [b"data:", b"event:", b"id:", b"retry:"];
        let is_blank = |line: &[u8]| line.is_empty();
        let raw: &[u8] = &self.raw;
        !has_other_line_end(raw)
            && raw
                .split(|byte| matches!(byte, b'\n' | b'\r'))
                .all(|line| is_blank(line) || ours.iter().any(|field| line.starts_with(field)))
    }

    /// The fields but the data, and the blank line.
    fn render_fields(&self) -> BytesMut {
        let mut rendered = self.fields(0);
        rendered.put_u8(b'\n');
        rendered
    }

    fn fields(&self, more: usize) -> BytesMut {
        let mut rendered = BytesMut::with_capacity(self.raw.len().saturating_add(more));
        for (field, value) in [("event: ", self.name()), ("id: ", self.id())] {
            // A value that some readers would take for several lines is no value of a well-meaning server.
            if let Some(value) = value.filter(|value| !has_other_line_end(value.as_bytes())) {
                rendered.put_slice(field.as_bytes());
                rendered.put_slice(value.as_bytes());
                rendered.put_u8(b'\n');
            }
        }
        if let Some(retry) = self.retry {
            rendered.put_slice(format!("retry: {retry}\n").as_bytes());
        }
        rendered
    }

    fn text(&self, range: Range<usize>) -> Option<&str> {
        self.raw.get(range).and_then(|text| std::str::from_utf8(text).ok())
    }
}

/// Whether some reader would end a line where the standard does not.
fn has_other_line_end(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().any(|(at, byte)| match byte {
        0x0b | 0x0c | 0x1c..=0x1e => true,
        0xc2 => bytes.get(at + 1) == Some(&0x85),
        0xe2 => bytes.get(at + 1) == Some(&0x80) && matches!(bytes.get(at + 2), Some(0xa8 | 0xa9)),
        _ => false,
    })
}

/// JSON with NEL, LS and PS as escapes; in accepted JSON they stand inside strings only.
fn escape_line_ends(json: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(json) {
        Ok(text) if has_other_line_end(json) => {
            let escaped =
                text.replace('\u{85}', "\\u0085").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
            Cow::Owned(escaped.into_bytes())
        }
        _ => Cow::Borrowed(json),
    }
}

/// An event that carries `data`, which is JSON, and nothing else.
pub fn message_event(data: &[u8]) -> Bytes {
    let mut rendered = BytesMut::with_capacity(data.len().saturating_add(16));
    put_data(&mut rendered, &escape_line_ends(data));
    rendered.freeze()
}

/// Writes data lines and the blank line. Every line end inside the data begins a line of its own, so that no data can
/// become a field.
fn put_data(rendered: &mut BytesMut, data: &[u8]) {
    let mut rest = data;
    loop {
        let end = memchr::memchr2(b'\r', b'\n', rest);
        let (line, behind) = rest.split_at_checked(end.unwrap_or(rest.len())).unwrap_or_default();
        rendered.put_slice(b"data: ");
        rendered.put_slice(line);
        rendered.put_u8(b'\n');
        match end {
            Some(_) => rest = behind.strip_prefix(b"\r\n").or(behind.get(1..)).unwrap_or_default(),
            None => break,
        }
    }
    rendered.put_u8(b'\n');
}

/// The lines of an event, without their ends.
fn lines(raw: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = raw.get(start..).filter(|rest| !rest.is_empty())?;
        let length = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let line = start..start + length;
        let ending = if rest.get(length..).is_some_and(|end| end.starts_with(b"\r\n")) { 2 } else { 1 };
        start = line.end + ending;
        Some(line)
    })
}

/// Name and value of a field. A line without a colon is all name; one space behind the colon is not part of the value.
fn split_field(raw: &[u8], line: Range<usize>) -> (Range<usize>, Range<usize>) {
    let text = raw.get(line.clone()).unwrap_or_default();
    let Some(colon) = memchr::memchr(b':', text) else { return (line.clone(), line.end..line.end) };
    let space = usize::from(text.get(colon + 1) == Some(&b' '));
    (line.start..line.start + colon, line.start + colon + 1 + space..line.end)
}

fn joined(raw: &[u8], lines: &[Range<usize>]) -> Bytes {
    let mut data = BytesMut::with_capacity(raw.len());
    for (number, line) in lines.iter().enumerate() {
        if number > 0 {
            data.put_u8(b'\n');
        }
        data.put_slice(raw.get(line.clone()).unwrap_or_default());
    }
    data.freeze()
}

/// A number written in nothing but digits.
fn digits(raw: &[u8], value: Range<usize>) -> Option<u64> {
    let text = std::str::from_utf8(raw.get(value)?).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
