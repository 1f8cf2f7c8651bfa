//! How do the bytes of an answer get out: slowly, in chunks, cut?

use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;

use crate::support::upstream::Peer;
use crate::support::upstream::Request;
use crate::support::upstream::Shared;
use crate::support::upstream::reply::Content;
use crate::support::upstream::reply::End;
use crate::support::upstream::reply::Event;
use crate::support::upstream::reply::Framing;
use crate::support::upstream::reply::Piece;
use crate::support::upstream::reply::Reply;
use crate::support::upstream::stream;
use crate::support::upstream::stream::Open;
use crate::support::upstream::stream::Push;

/// What becomes of the connection.
pub(super) enum After {
    Next,
    Close,
    Reset,
}

/// Sends the answer.
pub(super) async fn respond(peer: &Peer, write: &mut OwnedWriteHalf, request: &Request, reply: Reply) -> After {
    if matches!(reply.content, Content::Never) {
        peer.gone().await;
        return After::Close;
    }
    let (close, end) = (reply.close, reply.end);
    let left = end.map(|end| match end {
        End::Reset(bytes) | End::Close(bytes) => bytes,
    });
    let mut wire = Wire { write, drip: reply.drip, left, cut: None };
    let sent = tokio::select! {
        sent = send(&mut wire, peer, request, reply) => sent.is_ok(),
        // A server that sees its client go stops; a half-closed connection counts as closed.
        () = peer.gone() => false,
    };
    match end {
        Some(End::Reset(_)) => After::Reset,
        None if sent && !close => After::Next,
        _ => wire.cut.unwrap_or(After::Close),
    }
}

/// The way to the client, which may be slow or end.
struct Wire<'w> {
    write: &'w mut OwnedWriteHalf,
    drip: Option<(usize, Duration)>,
    left: Option<usize>,
    /// How the test broke a standing stream off.
    cut: Option<After>,
}

impl Wire<'_> {
    async fn head(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let left = self.left.take();
        let sent = self.put(bytes).await;
        self.left = left;
        sent
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let allowed = self.left.map_or(bytes.len(), |left| left.min(bytes.len()));
        let (step, pause) = self.drip.unwrap_or((allowed.max(1), Duration::ZERO));
        for part in bytes[..allowed].chunks(step) {
            self.write.write_all(part).await.map_err(|_| ())?;
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        if let Some(left) = &mut self.left {
            *left -= allowed;
            if *left == 0 {
                return Err(());
            }
        }
        Ok(())
    }

    /// Breaks off.
    fn cut(&mut self, after: After) -> Result<(), ()> {
        self.cut = Some(after);
        Err(())
    }

    /// A part of the body in its framing.
    async fn part(&mut self, framing: Framing, bytes: &[u8]) -> Result<(), ()> {
        if framing != Framing::Chunked {
            return self.put(bytes).await;
        }
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.put(&chunk).await
    }
}

async fn send(wire: &mut Wire<'_>, peer: &Peer, request: &Request, reply: Reply) -> Result<(), ()> {
    tokio::time::sleep(reply.delay).await;
    let placeholders = peer.shared.look(|state| stream::placeholders(state, request));
    let entity = match &reply.content {
        Content::Raw(bytes) => return wire.put(bytes).await,
        Content::Message(message, compressed) => {
            let text = filled(message, &placeholders, "").to_string().into_bytes();
            if *compressed { stored_gzip(&text) } else { text }
        }
        Content::Entity(bytes) => bytes.to_vec(),
        Content::Events(_) | Content::Standing(_) | Content::Never => Vec::new(),
    };
    wire.head(head(&reply, entity.len()).as_bytes()).await?;
    match &reply.content {
        Content::Events(events) => play(wire, peer, request, reply.framing, events).await?,
        Content::Standing(events) => stand(wire, peer, request, reply.framing, events).await?,
        _ if entity.is_empty() => {}
        _ => wire.part(reply.framing, &entity).await?,
    }
    if reply.framing == Framing::Chunked { wire.put(b"0\r\n\r\n").await } else { Ok(()) }
}

/// Sends these events, each in its time; behind a question waits for its answer.
async fn play(
    wire: &mut Wire<'_>,
    peer: &Peer,
    request: &Request,
    framing: Framing,
    events: &[Event],
) -> Result<(), ()> {
    let placeholders = peer.shared.look(|state| stream::placeholders(state, request));
    let mut answer = String::new();
    for event in events {
        tokio::time::sleep(event.delay).await;
        if let Some(id) = &event.id {
            peer.shared.with(|state| stream::remember(state, id, &placeholders));
        }
        wire.part(framing, text(event, &placeholders, &answer).as_bytes()).await?;
        if let Piece::Ask(asked, _) = &event.piece {
            answer = answered(&peer.shared, asked, request.at).await;
        }
    }
    Ok(())
}

/// Sends these events, then what the test pushes, until it ends the stream.
async fn stand(
    wire: &mut Wire<'_>,
    peer: &Peer,
    request: &Request,
    framing: Framing,
    events: &[Event],
) -> Result<(), ()> {
    // Known before its first byte is out: a client that reads where messages go sends one at once.
    let mut open = Open::new(&peer.shared, request);
    let session = stream::session(open.index);
    let first: Vec<Event> = events.iter().map(|event| event.clone().of_session(&session)).collect();
    play(wire, peer, request, framing, &first).await?;
    let placeholders = peer.shared.look(|state| stream::placeholders(state, request));
    while let Some(push) = open.pushed.recv().await {
        let text = match push {
            Push::Event(event) => {
                tokio::time::sleep(event.delay).await;
                text(&event, &placeholders, "")
            }
            Push::Text(text) => text,
            Push::End => break,
            Push::Close => return wire.cut(After::Close),
            Push::Reset => return wire.cut(After::Reset),
        };
        wire.part(framing, text.as_bytes()).await?;
    }
    Ok(())
}

/// An event's bytes.
pub(super) fn text(event: &Event, placeholders: &(Value, Value), answer: &str) -> String {
    let data = match &event.piece {
        Piece::Raw(text) => return text.clone(),
        Piece::Nothing => String::new(),
        Piece::Message(message) => filled(message, placeholders, answer).to_string(),
        Piece::Ask(_, message) => message.to_string(),
    };
    let field =
        |name: &str, value: Option<String>| value.map_or_else(String::new, |value| format!("{name}: {value}\n"));
    let (name, id) = (field("event", event.name.clone()), field("id", event.id.clone()));
    format!("{name}{id}{}data: {data}\n\n", field("retry", event.retry_ms.map(|retry_ms| retry_ms.to_string())))
}

/// The text of the answer to a question, once it has come on any connection after `since`.
pub(super) async fn answered(shared: &Shared, asked: &Value, since: Instant) -> String {
    let is_answer = |request: &&Request| {
        request.at >= since && request.method() == "response" && request.json().get("id") == Some(asked)
    };
    let answer = shared.until(|state| state.requests.iter().find(is_answer).map(Request::json)).await;
    let text = answer.pointer("/result/content/answer").and_then(Value::as_str);
    text.map_or_else(|| answer.to_string(), str::to_owned)
}

fn head(reply: &Reply, length: usize) -> String {
    let mut head = format!("HTTP/1.1 {} Status\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match reply.framing {
        Framing::Length if reply.status == 204 => {}
        Framing::Length => head.push_str(&format!("Content-Length: {length}\r\n")),
        Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
        Framing::UntilClose => {}
    }
    if reply.close {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    head
}

/// The message with its placeholders filled.
fn filled(message: &Value, placeholders: &(Value, Value), answer: &str) -> Value {
    let (id, token) = placeholders;
    match message {
        Value::String(text) if text == "$id" => id.clone(),
        Value::String(text) if text == "$token" => token.clone(),
        Value::String(text) if text == "$answer" => answer.into(),
        Value::Array(items) => items.iter().map(|item| filled(item, placeholders, answer)).collect(),
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| (key.clone(), filled(value, placeholders, answer))).collect()
        }
        other => other.clone(),
    }
}

/// A gzip member whose blocks are stored as they are.
fn stored_gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let last = bytes.chunks(0xffff).count().saturating_sub(1);
    for (at, block) in bytes.chunks(0xffff).enumerate() {
        let length = u16::try_from(block.len()).unwrap();
        out.push(u8::from(at == last));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    let crc = bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    });
    out.extend_from_slice(&(!crc).to_le_bytes());
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
    out
}
