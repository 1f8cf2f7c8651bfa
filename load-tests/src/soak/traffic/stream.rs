//! How do clients listen: on standing streams, and over HTTP+SSE?

use std::time::Duration;
use std::time::Instant;

use crate::chance::Chance;
use crate::client::Wrong;
use crate::events::EventStream;
use crate::events::Heard;
use crate::messages::Ask;
use crate::messages::Era;
use crate::messages::Target;
use crate::soak::journal::End;
use crate::soak::journal::Leaves;
use crate::soak::journal::Server;
use crate::soak::traffic::Ground;
use crate::soak::traffic::Pace;
use crate::soak::traffic::caller::Caller;
use crate::soak::traffic::caller::WAIT;
use crate::soak::traffic::caller::status;

/// How long an event may take that is due. The upstream speaks five times a second.
const EVENT_MAX: Duration = Duration::from_secs(3);
/// Streams that are begun, each second on each server, at most.
const PER_SECOND: f64 = 2.0;
/// Calls over HTTP+SSE on one stream.
const CALLS: u64 = 12;

/// One standing stream after the other, each heard for some seconds.
pub(super) fn standing(ground: &Ground<'_>, server: Server) {
    let mut chance = Chance::new(ground.seed, 300 + server as u64);
    let mut pace = Pace::new(PER_SECOND, ground.until);
    while pace.next() {
        let mut caller = Caller::new(ground, server, "listen");
        if !caller.begin() {
            continue;
        }
        let request = ground.target(server).listen(caller.session.as_deref());
        let (number, request) = caller.numbered(&request);
        let began = Instant::now();
        let length = Duration::from_millis(chance.between(300, 5_000));
        let until = (began + length).min(ground.until);
        let heard = EventStream::open(caller.source, ground.data, &request, WAIT).map(|stream| hear(stream, until));
        let (end, leaves) = match heard {
            Ok(Ok(())) => (End::Right, Leaves::Call),
            Ok(Err(wrong)) => (End::Wrong(wrong), Leaves::Call),
            Err(wrong) => (End::Wrong(wrong), Leaves::Either),
        };
        caller.note(number, began, end, leaves);
        caller.end();
    }
}

/// Hears events until it has heard enough.
fn hear(mut stream: EventStream, until: Instant) -> Result<(), Wrong> {
    while Instant::now() < until {
        match stream.next(Instant::now() + EVENT_MAX)? {
            Heard::Event(_) => {}
            Heard::Silence => return Err(Wrong::Timeout),
            Heard::End => return Err(Wrong::Connection),
        }
    }
    Ok(())
}

/// Clients of HTTP+SSE: a stream, the messages' path from its first event, calls whose answers come on the stream.
pub(super) fn http_sse(ground: &Ground<'_>, server: Server) {
    let mut chance = Chance::new(ground.seed, 400 + server as u64);
    let mut pace = Pace::new(PER_SECOND, ground.until);
    while pace.next() {
        let mut caller = Caller::new(ground, server, "sse");
        let target = ground.target(server);
        let door = Target { path: format!("{}/sse", target.path), ..target.clone() };
        let (number, request) = caller.numbered(&door.listen(None));
        let began = Instant::now();
        let conversed = EventStream::open(caller.source, ground.data, &request, WAIT)
            .and_then(|stream| converse(&mut caller, stream, chance.between(1, CALLS)));
        let end = conversed.map_or_else(End::Wrong, |()| End::Right);
        // Behind it the gateway opens streams of its server's, one after the other where they end.
        caller.note(number, began, end, Leaves::Stream);
    }
}

fn converse(caller: &mut Caller<'_>, mut stream: EventStream, calls: u64) -> Result<(), Wrong> {
    let Heard::Event(endpoint) = stream.next(Instant::now() + WAIT)? else { return Err(Wrong::Connection) };
    if endpoint.name != "endpoint" {
        return Err(Wrong::Content);
    }
    let target = Target { path: endpoint.data, ..caller.ground.target(caller.server).clone() };
    post(caller, &target.initialize(), Leaves::Call)?;
    answer_to(&mut stream, 0)?;
    // From here on the gateway listens to the server in the client's place.
    post(caller, &target.initialized(None), Leaves::Stream)?;
    let asks = [Ask::Query, Ask::Describe, Ask::Watch(2, 1), Ask::Blob(8)];
    for ask in asks.into_iter().cycle().take(usize::try_from(calls).unwrap_or(0)) {
        if Instant::now() > caller.ground.until {
            break;
        }
        let mut prepared = target.prepare(ask, Era::Plain, None);
        let (bytes, id) = prepared.numbered(caller.ground.journal.number());
        let request = bytes.to_vec();
        post(caller, &request, Leaves::Call)?;
        answer_to(&mut stream, id)?;
    }
    Ok(())
}

/// Sends a message whose answer comes on the stream.
fn post(caller: &mut Caller<'_>, request: &[u8], leaves: Leaves) -> Result<(), Wrong> {
    let mut wrong = Wrong::Content;
    let accepted = caller.request(request, leaves, |answer| status(answer, 202).inspect_err(|found| wrong = *found));
    accepted.map(|_| ()).ok_or(wrong)
}

/// Waits for the answer to a message.
fn answer_to(stream: &mut EventStream, id: u64) -> Result<(), Wrong> {
    let wanted = format!("\"id\":{id},");
    let until = Instant::now() + WAIT;
    loop {
        match stream.next(until)? {
            Heard::Event(event) if event.data.contains(&wanted) => {
                return if event.data.contains("\"result\":") { Ok(()) } else { Err(Wrong::Content) };
            }
            Heard::Event(_) => {}
            Heard::Silence => return Err(Wrong::Timeout),
            Heard::End => return Err(Wrong::Connection),
        }
    }
}
