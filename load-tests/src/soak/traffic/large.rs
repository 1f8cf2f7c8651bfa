//! How do clients call that send and get much at once?

use crate::chance::Chance;
use crate::messages::Ask;
use crate::messages::Era;
use crate::soak::journal::Leaves;
use crate::soak::journal::Server;
use crate::soak::traffic::Ground;
use crate::soak::traffic::Pace;
use crate::soak::traffic::caller::Caller;

/// Such calls, each second on each server.
const PER_SECOND: f64 = 1.5;

/// Requests of up to 3.5 MiB and answers of up to 4 MiB, in turn.
pub(super) fn bodies(ground: &Ground<'_>, server: Server) {
    let mut caller = Caller::new(ground, server, "large");
    let mut chance = Chance::new(ground.seed, 100 + server as u64);
    let mut pace = Pace::new(PER_SECOND, ground.until);
    while pace.next() {
        let kib = |low, high, chance: &mut Chance| usize::try_from(chance.between(low, high)).unwrap_or(0);
        let ask = match chance.between(0, 2) {
            0 => Ask::Padded(kib(64, 3_500, &mut chance)),
            1 => Ask::Blob(kib(256, 4_000, &mut chance)),
            _ => Ask::Padded(kib(1, 256, &mut chance)),
        };
        let era = if chance.between(0, 1) == 0 { Era::Plain } else { Era::Modern };
        for mut prepared in caller.prepare(std::iter::once(ask), era) {
            caller.ask(&mut prepared, Leaves::Call);
        }
    }
}
