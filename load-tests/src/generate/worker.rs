//! What does one connection of the load have, and how does it make one request?

use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use crate::client;
use crate::client::Answer;
use crate::client::Connection;
use crate::client::Wrong;
use crate::generate::mix::Mix;
use crate::messages::Era;
use crate::messages::Expected;
use crate::messages::Prepared;
use crate::messages::Target;

/// What all connections of a load have in common.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where to connect.
    pub address: SocketAddr,
    /// Where requests go, and as whom.
    pub target: Target,
    /// How is spoken.
    pub era: Era,
    /// What is asked.
    pub mix: Mix,
    /// Connections, and so requests in flight at most.
    pub connections: usize,
    /// How long one answer may take.
    pub timeout: Duration,
}

/// One connection with its session and its requests.
pub(super) struct Worker<'a> {
    load: &'a Load,
    connection: Connection,
    session: Option<String>,
    prepared: Vec<Prepared>,
    asked: (u64, Expected),
}

impl<'a> Worker<'a> {
    /// Connects and begins a session, if the era has one.
    pub(super) fn start(load: &'a Load) -> Result<Self, Wrong> {
        let mut connection = Connection::new(load.address, load.timeout);
        let session = client::begin(&mut connection, &load.target, load.era)?;
        let prepare = |ask| load.target.prepare(ask, load.era, session.as_deref());
        let prepared = load.mix.asks().map(prepare).collect();
        Ok(Self { load, connection, session, prepared, asked: (0, Expected::Result) })
    }

    /// Sends request `number`.
    pub(super) fn send(&mut self, number: u64) -> Result<(), Wrong> {
        let prepared = &mut self.prepared[self.load.mix.draw(number)];
        let expected = prepared.expected();
        let (bytes, id) = prepared.numbered(number);
        self.asked = (id, expected);
        self.connection.send(bytes)
    }

    /// Reads the answer to what was sent last, and judges it.
    pub(super) fn receive(&mut self) -> Result<Answer, Wrong> {
        let answer = self.connection.receive()?;
        client::judge(&answer, self.asked.0, self.asked.1)?;
        Ok(answer)
    }

    /// Ends the session. Whether that succeeds is not what is measured.
    pub(super) fn end(mut self) {
        if let Some(session) = &self.session {
            let _ = self.connection.send(&self.load.target.end(session)).and_then(|()| self.connection.receive());
        }
    }
}

/// Sleeps until `time`, to some microseconds.
pub(super) fn sleep_until(time: Instant) {
    let left = time.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}

/// Lets this thread be woken when its time has come, not up to 50 µs later.
pub(super) fn be_punctual() {
    // Refused in some sandboxes; the report's start delay then shows it.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}
