//! How does one client of the soak make a request?

use std::net::Ipv4Addr;
use std::time::Duration;
use std::time::Instant;

use crate::client::Answer;
use crate::client::Connection;
use crate::client::Wrong;
use crate::client::judge;
use crate::messages::Era;
use crate::messages::Expected;
use crate::messages::Prepared;
use crate::messages::named;
use crate::soak::journal::AGENT;
use crate::soak::journal::End;
use crate::soak::journal::Entry;
use crate::soak::journal::Leaves;
use crate::soak::journal::Server;
use crate::soak::traffic::Ground;

/// How long a client waits for anything. Longer than the gateway waits for a server.
pub(super) const WAIT: Duration = Duration::from_secs(10);

/// What the refusal of a call says whose permission a reload withdrew while it was under way.
const WITHDRAWN: &[u8] = b"the permission for this call was withdrawn";

/// One client: a connection, and perhaps a session.
#[derive(Debug)]
pub(super) struct Caller<'a> {
    pub(super) ground: &'a Ground<'a>,
    pub(super) server: Server,
    pub(super) kind: &'static str,
    pub(super) source: Ipv4Addr,
    pub(super) session: Option<String>,
    connection: Connection,
}

impl<'a> Caller<'a> {
    /// A client of this kind.
    pub(super) fn new(ground: &'a Ground<'a>, server: Server, kind: &'static str) -> Self {
        let source = crate::stand::source(ground.journal.number());
        let connection = Connection::new(ground.data, WAIT).from(source);
        Self { ground, server, kind, source, session: None, connection }
    }

    /// A number, and the request that carries it.
    pub(super) fn numbered(&self, request: &[u8]) -> (u64, Vec<u8>) {
        let number = self.ground.journal.number();
        (number, named(request, &format!("{AGENT}{number}")))
    }

    /// Notes how a request ended.
    pub(super) fn note(&self, number: u64, began: Instant, end: End, leaves: Leaves) {
        let ended = Instant::now();
        self.ground.journal.note(Entry { number, kind: self.kind, server: self.server, began, ended, end, leaves });
    }

    /// Makes a request that was prepared.
    pub(super) fn ask(&mut self, prepared: &mut Prepared, leaves: Leaves) -> Option<Answer> {
        let number = self.ground.journal.number();
        let expected = prepared.expected();
        let (bytes, id) = prepared.numbered(number);
        let request = named(bytes, &format!("{AGENT}{number}"));
        self.exchange(number, &request, leaves, |answer| judge(answer, id, expected))
    }

    /// Makes any request, and judges what comes back.
    pub(super) fn request(
        &mut self,
        request: &[u8],
        leaves: Leaves,
        is_right: impl FnOnce(&Answer) -> Result<(), Wrong>,
    ) -> Option<Answer> {
        let (number, request) = self.numbered(request);
        self.exchange(number, &request, leaves, is_right)
    }

    fn exchange(
        &mut self,
        number: u64,
        request: &[u8],
        leaves: Leaves,
        is_right: impl FnOnce(&Answer) -> Result<(), Wrong>,
    ) -> Option<Answer> {
        let began = Instant::now();
        let answer = self.connection.send(request).and_then(|()| self.connection.receive());
        let judged = answer.and_then(|answer| is_right(&answer).map(|()| answer));
        let end = judged.as_ref().map_or_else(|wrong| End::Wrong(*wrong), |_| End::Right);
        self.note(number, began, end, leaves);
        judged.ok()
    }

    /// Begins a session. Whether it has one.
    pub(super) fn begin(&mut self) -> bool {
        let target = self.ground.target(self.server);
        let has_session = |answer: &Answer| {
            status(answer, 200)?;
            answer.session.as_ref().map(|_| ()).ok_or(Wrong::Content)
        };
        let Some(answer) = self.request(&target.initialize(), Leaves::Call, has_session) else { return false };
        let told = target.initialized(answer.session.as_deref());
        self.session = answer.session;
        self.request(&told, Leaves::Call, |answer| status(answer, 202)).is_some()
    }

    /// Ends its session.
    pub(super) fn end(&mut self) {
        if let Some(session) = self.session.take() {
            let request = self.ground.target(self.server).end(&session);
            let is_ended = |answer: &Answer| status(answer, 200).or_else(|_| status(answer, 204));
            self.request(&request, Leaves::Call, is_ended);
        }
    }

    /// Goes on with a new connection, from another address.
    pub(super) fn again(&mut self) {
        self.source = crate::stand::source(self.ground.journal.number());
        self.connection = Connection::new(self.ground.data, WAIT).from(self.source);
    }

    /// What `asks` make of it.
    pub(super) fn prepare(&self, asks: impl Iterator<Item = crate::messages::Ask>, era: Era) -> Vec<Prepared> {
        let target = self.ground.target(self.server);
        asks.map(|ask| target.prepare(ask, era, self.session.as_deref())).collect()
    }
}

/// Whether an answer has this status.
pub(super) fn status(answer: &Answer, wanted: u16) -> Result<(), Wrong> {
    if answer.status == wanted { Ok(()) } else { Err(answer.wrong_status()) }
}

/// What a prepared request leaves on record.
pub(super) fn leaves(ask: crate::messages::Ask) -> Leaves {
    use crate::messages::Ask;
    match ask {
        Ask::Blocked | Ask::Constrained => Leaves::Refusal,
        Ask::Toggled => Leaves::Either,
        _ => Leaves::Call,
    }
}

/// Whether an answer is the result, or the refusal, of a call that may be either. A permission that is withdrawn while the
/// call is under way is told with 403.
pub(super) fn result_or_refusal(answer: &Answer, id: u64) -> Result<bool, Wrong> {
    match judge(answer, id, Expected::Result) {
        Ok(()) => Ok(true),
        Err(Wrong::Content) => judge(answer, id, Expected::Error).map(|()| false),
        Err(Wrong::Status(403)) if memchr::memmem::find(&answer.body, WITHDRAWN).is_some() => Ok(false),
        Err(wrong) => Err(wrong),
    }
}
