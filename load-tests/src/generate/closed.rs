//! How are requests made as fast as answers come?
//!
//! Two threads write on all their connections, then read on all of them: the proxy is kept busy and little is spent on
//! the generator's own waking. For CPU per call; its times say nothing about a gateway that is not saturated.

use std::thread;
use std::time::Instant;

use crate::client::Wrong;
use crate::generate::report::Report;
use crate::generate::worker::Load;
use crate::generate::worker::Worker;

/// Threads that share the connections.
const THREADS: usize = 2;
/// After so many errors a run is given up.
const ERRORS_MAX: u64 = 1_000;

/// Makes `calls` requests.
pub fn closed(load: &Load, calls: u64) -> Report {
    let threads = THREADS.min(load.connections.max(1)).min(usize::try_from(calls).unwrap_or(THREADS).max(1));
    thread::scope(|scope| {
        let run = |thread: usize| {
            let share =
                move |whole: u64| (thread as u64 + 1) * whole / threads as u64 - thread as u64 * whole / threads as u64;
            let connections = share(load.connections as u64);
            let first = thread as u64 * calls / threads as u64;
            move || rounds(load, connections, first, share(calls))
        };
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(run(thread))).collect();
        let mut all = Report::default();
        for thread in running {
            all.add(&thread.join().expect("a thread of the load"));
        }
        all
    })
}

fn rounds(load: &Load, connections: u64, first: u64, calls: u64) -> Report {
    let mut report = Report::default();
    let mut workers = Vec::new();
    for _ in 0..connections {
        match Worker::start(load) {
            Ok(worker) => workers.push(worker),
            Err(wrong) => report.failed(wrong, Instant::now()),
        }
    }
    let mut made = 0;
    while made < calls && !workers.is_empty() && report.wrong() < ERRORS_MAX {
        let count = workers.len().min(usize::try_from(calls - made).unwrap_or(usize::MAX));
        let batch = &mut workers[..count];
        let sent: Vec<(Instant, Result<(), Wrong>)> = (first + made..)
            .zip(batch.iter_mut())
            .map(|(number, worker)| (Instant::now(), worker.send(number)))
            .collect();
        for (worker, (started, sent)) in batch.iter_mut().zip(sent) {
            let ended = sent.and_then(|()| worker.receive());
            report.take(started, started, &ended);
        }
        made += count as u64;
    }
    workers.into_iter().for_each(Worker::end);
    report
}
