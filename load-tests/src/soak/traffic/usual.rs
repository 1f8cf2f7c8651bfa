//! How do usual clients call: tools of all kinds, in both eras, with and without sessions?

use std::time::Duration;
use std::time::Instant;

use crate::chance::Chance;
use crate::generate::Mix;
use crate::generate::Name;
use crate::messages::Ask;
use crate::messages::Era;
use crate::soak::journal::Leaves;
use crate::soak::journal::Server;
use crate::soak::policy::Seen;
use crate::soak::traffic::Ground;
use crate::soak::traffic::Pace;
use crate::soak::traffic::USUAL;
use crate::soak::traffic::caller::Caller;
use crate::soak::traffic::caller::leaves;
use crate::soak::traffic::caller::result_or_refusal;

/// How long a client waits that could not begin its session.
const PAUSE: Duration = Duration::from_millis(200);
/// Sessions that are begun and ended, each second on each server.
const SESSIONS_PER_SECOND: f64 = 3.0;
/// Calls of the tool that follows the configuration, each second.
const TOGGLED_PER_SECOND: f64 = 20.0;

/// Calls on one connection, in one session where the era has them.
pub(super) fn calls(ground: &Ground<'_>, server: Server, era: Era, index: u64) {
    let mix = Mix::new(Name::Mixed, 4, 6);
    let mut caller = Caller::new(ground, server, "call");
    while era == Era::Session && !caller.begin() {
        if Instant::now() > ground.until {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    let asks: Vec<Ask> = mix.asks().collect();
    let mut prepared = caller.prepare(asks.iter().copied(), era);
    let mut chance = Chance::new(ground.seed, index);
    let mut pace = Pace::new(ground.rate / USUAL.len() as f64, ground.until);
    while pace.next() {
        let drawn = mix.draw(chance.number());
        caller.ask(&mut prepared[drawn], leaves(asks[drawn]));
    }
    caller.end();
}

/// Sessions that are begun, used and ended, each on a connection of its own.
pub(super) fn sessions(ground: &Ground<'_>, server: Server) {
    let mut pace = Pace::new(SESSIONS_PER_SECOND, ground.until);
    while pace.next() {
        let mut caller = Caller::new(ground, server, "session");
        if caller.begin() {
            for mut prepared in caller.prepare([Ask::Query, Ask::List, Ask::Watch(2, 1)].into_iter(), Era::Session) {
                caller.ask(&mut prepared, Leaves::Call);
            }
        }
        caller.end();
    }
}

/// Calls of the one tool that is permitted by every other configuration.
pub(super) fn toggled(ground: &Ground<'_>) {
    let mut caller = Caller::new(ground, Server::Steady, "toggled");
    let mut prepared = caller.prepare(std::iter::once(Ask::Toggled), Era::Plain);
    let mut pace = Pace::new(TOGGLED_PER_SECOND, ground.until);
    while pace.next() {
        let Some(prepared) = prepared.first_mut() else { return };
        let id = ground.journal.number();
        let (bytes, id) = prepared.numbered(id);
        let request = bytes.to_vec();
        let began = Instant::now();
        let mut permitted = None;
        caller.request(&request, Leaves::Either, |answer| {
            permitted = Some(result_or_refusal(answer, id)?);
            Ok(())
        });
        if let Some(permitted) = permitted {
            ground.saw(Seen { began, ended: Instant::now(), permitted });
        }
    }
}
