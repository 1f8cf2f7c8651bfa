//! What happens to the upstream, and does it explain what a client saw?
//!
//! One thing after the other, with calm in between, all drawn from the seed. Each is noted with its beginning and its
//! end; an error is explained only by a fault of its own server at its own time, or by the machine standing still then.

use std::io;
use std::time::Duration;
use std::time::Instant;

use crate::chance::Chance;
use crate::client::Wrong;
use crate::soak::journal::Entry;
use crate::soak::journal::Server;
use crate::stand::Upstream;

/// How long a fault is felt after its end: connections are opened again, checks notice.
const AFTER: Duration = Duration::from_millis(2_500);

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The process is killed and comes back.
    Killed,
    /// The process does nothing and goes on.
    Hung,
    /// Every request is answered with a reset.
    Reset,
    /// Every request is answered with half an answer.
    Cut,
    /// Every request is answered with status 503.
    Refused,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Killed, Self::Hung, Self::Reset, Self::Cut, Self::Refused];

    /// Its name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Hung => "hung",
            Self::Reset => "reset",
            Self::Cut => "cut",
            Self::Refused => "refused",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    began: Instant,
    ended: Instant,
}

/// A time in which the machine ran nobody: no gateway, no server, no client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stall {
    pub(super) began: Instant,
    pub(super) ended: Instant,
}

/// Makes faults until `until`, and leaves the upstream well.
pub(super) fn inject(upstream: &mut Upstream, until: Instant, chance: &mut Chance) -> io::Result<Vec<Fault>> {
    let mut faults = Vec::new();
    loop {
        std::thread::sleep(Duration::from_millis(chance.between(800, 3_000)));
        let kind = Kind::ALL[usize::try_from(chance.between(0, 4)).unwrap_or(0)];
        let ms = match kind {
            Kind::Killed => chance.between(100, 1_500),
            Kind::Hung => chance.between(300, 3_500),
            Kind::Reset | Kind::Cut | Kind::Refused => chance.between(200, 1_500),
        };
        let length = Duration::from_millis(ms);
        if Instant::now() + length > until {
            return Ok(faults);
        }
        let began = Instant::now();
        match kind {
            Kind::Killed => {
                upstream.kill()?;
                std::thread::sleep(length);
                upstream.again()?;
            }
            Kind::Hung => {
                upstream.pause(true)?;
                std::thread::sleep(length);
                upstream.pause(false)?;
            }
            Kind::Reset | Kind::Cut | Kind::Refused => {
                let how = match kind {
                    Kind::Reset => "reset",
                    Kind::Cut => "cut",
                    _ => "refuse",
                };
                upstream.fail(how, ms)?;
                std::thread::sleep(length);
            }
        }
        faults.push(Fault { kind, began, ended: Instant::now() });
    }
}

/// The name of what explains how `entry` went wrong, if anything does.
pub(super) fn explanation(entry: &Entry, wrong: Wrong, faults: &[Fault], stalls: &[Stall]) -> Option<&'static str> {
    // Standing streams end with their server, whatever way it went. A call is always answered.
    let is_stream = matches!(entry.kind, "listen" | "sse");
    let is_possible = match wrong {
        Wrong::Status(status) => matches!(status, 500 | 502 | 503 | 504),
        Wrong::Content => true,
        Wrong::Connection | Wrong::Timeout => is_stream,
        Wrong::Malformed | Wrong::Id | Wrong::PutOff => false,
    };
    if !is_possible {
        return None;
    }
    let meets = |began: Instant, ended: Instant| entry.ended >= began && entry.began <= ended + AFTER;
    // The latest of them: what was before it may still be felt.
    let fault = faults.iter().rev().find(|fault| meets(fault.began, fault.ended));
    let stall = stalls.iter().find(|stall| meets(stall.began, stall.ended)).map(|_| "stalled");
    fault.filter(|_| entry.server == Server::Flappy).map(|fault| fault.kind.name()).or(stall)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::journal::End;
    use crate::soak::journal::Leaves;

    #[test]
    fn only_a_fault_of_the_same_server_at_the_same_time_explains_an_error() {
        let start = Instant::now() + Duration::from_secs(60);
        let at = |ms: u64| start + Duration::from_millis(ms);
        let faults = [Fault { kind: Kind::Hung, began: at(0), ended: at(1_000) }];
        let entry = |server, began, ended, kind| {
            let (began, ended) = (at(began), at(ended));
            Entry { number: 1, kind, server, began, ended, end: End::Left, leaves: Leaves::Call }
        };
        let gateway_timeout = Wrong::Status(504);
        let explained = |entry: Entry, wrong| explanation(&entry, wrong, &faults, &[]);
        assert_eq!(explained(entry(Server::Flappy, 900, 2_900, "call"), gateway_timeout), Some("hung"));
        assert_eq!(explained(entry(Server::Steady, 900, 2_900, "call"), gateway_timeout), None);
        assert_eq!(explained(entry(Server::Flappy, 3_600, 3_700, "call"), gateway_timeout), None);
        assert_eq!(explained(entry(Server::Flappy, 500, 600, "call"), Wrong::Status(403)), None);
        assert_eq!(explained(entry(Server::Flappy, 500, 600, "call"), Wrong::Connection), None);
        assert_eq!(explained(entry(Server::Flappy, 500, 600, "sse"), Wrong::Connection), Some("hung"));
        assert_eq!(explained(entry(Server::Flappy, 500, 600, "call"), Wrong::Id), None);
        let stalls = [Stall { began: at(0), ended: at(1_000) }];
        let explained = |entry: Entry, wrong| explanation(&entry, wrong, &[], &stalls);
        assert_eq!(explained(entry(Server::Steady, 900, 2_900, "call"), gateway_timeout), Some("stalled"));
        assert_eq!(explained(entry(Server::Steady, 3_600, 3_700, "call"), gateway_timeout), None);
        assert_eq!(explained(entry(Server::Steady, 900, 2_900, "call"), Wrong::Timeout), None);
    }
}
