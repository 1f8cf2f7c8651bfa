//! Who calls?
//!
//! Clients of every kind at once, each on a thread of its own, for as long as a round lasts: usual calls in both eras,
//! sessions that come and go, standing streams, clients of HTTP+SSE, large bodies, what must be refused, clients that leave
//! in the middle, and one that follows the configuration. Each judges its answers and notes them.

mod caller;
mod large;
mod leave;
mod refused;
mod stream;
mod usual;

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::messages::Era;
use crate::messages::Target;
use crate::soak::journal::Journal;
use crate::soak::journal::Server;
use crate::soak::policy::Seen;

/// What all clients of a round have in common.
#[derive(Debug)]
pub(super) struct Ground<'a> {
    pub(super) data: SocketAddr,
    pub(super) steady: Target,
    pub(super) flappy: Target,
    pub(super) journal: &'a Journal,
    pub(super) toggled: Mutex<Vec<Seen>>,
    pub(super) until: Instant,
    /// Usual calls a second, over all of their clients.
    pub(super) rate: f64,
    pub(super) seed: u64,
}

impl Ground<'_> {
    fn target(&self, server: Server) -> &Target {
        match server {
            Server::Steady => &self.steady,
            Server::Flappy => &self.flappy,
        }
    }

    fn saw(&self, seen: Seen) {
        self.toggled.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }
}

/// Clients of usual calls.
const USUAL: [(Server, Era); 6] = [
    (Server::Steady, Era::Plain),
    (Server::Steady, Era::Session),
    (Server::Steady, Era::Modern),
    (Server::Flappy, Era::Plain),
    (Server::Flappy, Era::Session),
    (Server::Flappy, Era::Modern),
];

/// Lets all of them work until their time is over.
pub(super) fn run(ground: &Ground<'_>) {
    thread::scope(|scope| {
        for (index, (server, era)) in USUAL.into_iter().enumerate() {
            scope.spawn(move || usual::calls(ground, server, era, index as u64));
        }
        for server in [Server::Steady, Server::Flappy] {
            scope.spawn(move || usual::sessions(ground, server));
            scope.spawn(move || stream::standing(ground, server));
            scope.spawn(move || stream::http_sse(ground, server));
            scope.spawn(move || large::bodies(ground, server));
            scope.spawn(move || leave::in_the_middle(ground, server));
        }
        scope.spawn(move || usual::toggled(ground));
        scope.spawn(move || refused::requests(ground));
    });
}

/// When is the next one due? What was missed is not made up for: a server that hangs is not to be flooded afterwards.
#[derive(Debug)]
struct Pace {
    due: Instant,
    interval: Duration,
    until: Instant,
}

impl Pace {
    fn new(per_second: f64, until: Instant) -> Self {
        Self { due: Instant::now(), interval: Duration::from_secs_f64(1.0 / per_second.max(0.01)), until }
    }

    /// Waits for the next one. Whether there is one.
    fn next(&mut self) -> bool {
        let now = Instant::now();
        self.due = self.due.max(now);
        if self.due >= self.until {
            return false;
        }
        thread::sleep(self.due - now);
        self.due += self.interval;
        true
    }
}
