//! How do clients leave in the middle of everything?

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

use crate::chance::Chance;
use crate::client::connect;
use crate::messages::Ask;
use crate::messages::Era;
use crate::soak::journal::End;
use crate::soak::journal::Leaves;
use crate::soak::journal::Server;
use crate::soak::traffic::Ground;
use crate::soak::traffic::Pace;
use crate::soak::traffic::caller::Caller;
use crate::soak::traffic::caller::WAIT;

/// Clients that leave, each second on each server.
const PER_SECOND: f64 = 10.0;

/// Clients that leave in the head, in the body, before the answer, in the answer; some with a reset.
pub(super) fn in_the_middle(ground: &Ground<'_>, server: Server) {
    let mut chance = Chance::new(ground.seed, 200 + server as u64);
    let mut pace = Pace::new(PER_SECOND, ground.until);
    while pace.next() {
        let caller = Caller::new(ground, server, "left");
        let era = if chance.between(0, 1) == 0 { Era::Plain } else { Era::Modern };
        let ask = [Ask::Query, Ask::Padded(200), Ask::Blob(512), Ask::Watch(40, 20), Ask::Wait(200)]
            [usize::try_from(chance.between(0, 4)).unwrap_or(0)];
        let Some(mut prepared) = caller.prepare(std::iter::once(ask), era).pop() else { return };
        let (number, request) = caller.numbered(prepared.numbered(1).0);
        let began = Instant::now();
        // Whatever it gets to see, it leaves.
        let _ = leave(&caller, &request, &mut chance);
        caller.note(number, began, End::Left, Leaves::Anything);
    }
}

fn leave(caller: &Caller<'_>, request: &[u8], chance: &mut Chance) -> io::Result<()> {
    let mut stream = connect(caller.source, caller.ground.data, WAIT)?;
    let cut = match chance.between(0, 3) {
        // In the head or in the body.
        0 => usize::try_from(chance.between(0, request.len() as u64 - 1)).unwrap_or(0),
        _ => request.len(),
    };
    stream.write_all(&request[..cut])?;
    if chance.between(0, 1) == 0 {
        read_some(&mut stream, chance)?;
    }
    if chance.between(0, 1) == 0 {
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    }
    Ok(())
}

/// Reads for a moment, perhaps into the middle of the answer.
fn read_some(stream: &mut TcpStream, chance: &mut Chance) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(chance.between(1, 80))))?;
    let mut chunk = vec![0; usize::try_from(chance.between(1, 8_192)).unwrap_or(1)];
    match stream.read(&mut chunk) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Err(error),
        _ => Ok(()),
    }
}
