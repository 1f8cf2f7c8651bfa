//! What creeps in an hour full of faults?
//!
//! Rounds of mixed load, with reloads, an upstream that is killed, stopped and reset, and clients that leave, each round
//! followed by quiet. In quiet the gateway must hold what it held at first: descriptors and threads exactly, memory
//! without growth. Every error must be explained by a fault of that moment, every request must be on record, the record's
//! chain must verify.

mod faults;
mod fit;
mod journal;
mod judge;
mod policy;
mod traffic;
mod watch;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::chance::Chance;
use crate::records::Reading;
use crate::soak::faults::Fault;
use crate::soak::journal::Journal;
use crate::soak::judge::Round;
use crate::soak::judge::Told;
use crate::soak::policy::LISTEN;
use crate::soak::policy::Policy;
use crate::soak::traffic::Ground;
use crate::soak::watch::Sample;
use crate::stand::Gateway;
use crate::stand::Held;
use crate::stand::Upstream;
use crate::verdict::Report;

/// How long after a round the gateway may take to be as it was: kept connections to servers idle out after 4 s, threads
/// for blocking work after 10 s, and a call that hangs ends with its server's time limit.
const SETTLE_MAX: Duration = Duration::from_secs(25);
/// The end of a round in which nothing happens to the upstream any more, so that every call finds its end.
const CALM: Duration = Duration::from_secs(4);

/// What is done.
#[derive(Debug)]
pub struct Plan {
    /// Directory with the programs.
    pub programs: PathBuf,
    /// Directory for configurations, records and logs. It must not exist.
    pub scratch: PathBuf,
    /// How long all of it takes.
    pub length: Duration,
    /// How long one round takes, quiet excluded.
    pub round: Duration,
    /// Usual calls a second.
    pub rate: f64,
    /// What happens when.
    pub seed: u64,
}

/// Soaks, and says what was seen.
///
/// # Errors
/// When something cannot be started, or the gateway does not do what it is told.
pub fn run(plan: &Plan) -> io::Result<Report> {
    std::fs::create_dir_all(&plan.scratch)?;
    let program = plan.programs.join("upstream");
    let upstream = |name| Upstream::start(&program, &plan.scratch, name, &["--listen-spacing-ms", "200"]);
    let (steady, mut flappy) = (upstream("steady")?, upstream("flappy")?);
    let mut policy = Policy::new(steady.address, flappy.address);
    let gateway = plan.programs.join("portcullis");
    let gateway = Gateway::start(&gateway, &plan.scratch.join("gateway"), LISTEN, |digest| policy.text(digest, 0))?;
    let began = Instant::now();
    let base = gateway.held();
    let over = AtomicBool::new(false);
    let mut told =
        Told { round_s: plan.round.as_secs_f64(), seed: plan.seed, reading: Reading::new(), ..Told::default() };
    let samples = thread::scope(|scope| {
        let watching = scope.spawn(|| watch::watch(&gateway.process, began, &over));
        let stalls = Arc::clone(&told.stalls);
        let over = &over;
        scope.spawn(move || watch::note_stalls(over, &stalls));
        let done = rounds(plan, &gateway, &mut flappy, &mut policy, base, began, &mut told);
        over.store(true, Relaxed);
        let samples = watching.join().map_err(|_| io::Error::other("the watching thread panicked"))?;
        done.map(|()| samples)
    })?;
    finish(told, gateway, &policy, samples)
}

/// Round after round, until the time is up.
fn rounds(
    plan: &Plan,
    gateway: &Gateway,
    flappy: &mut Upstream,
    policy: &mut Policy,
    base: Held,
    began: Instant,
    told: &mut Told,
) -> io::Result<()> {
    let journal = Journal::default();
    let mut base = base;
    while told.rounds.is_empty() || began.elapsed() + plan.round < plan.length {
        let number = told.rounds.len() as u64;
        let (seen, faults) = round(plan, gateway, flappy, policy, &journal, number)?;
        let quiet = gateway.settled(base, SETTLE_MAX);
        if told.rounds.is_empty() {
            // Threads for blocking work and of the allocator come with the first load and stay.
            base.threads = base.threads.max(quiet.threads);
        }
        let entries = journal.take();
        told.round(policy, &entries, &faults, &seen);
        told.ledger.enter(&entries);
        told.reading.sweep(&gateway.record(), &mut told.ledger)?;
        let sample = Sample { at_s: began.elapsed().as_secs_f64(), held: quiet };
        let figures = gateway.figures()?;
        told.rounds.push(Round { quiet: sample, open: judge::open(&figures) });
        eprintln!(
            "round {}: {} requests, {} faults; in quiet {:.1} MiB, {} descriptors, {} threads",
            number + 1,
            entries.len(),
            faults.len(),
            quiet.anonymous_kib / 1024.0,
            quiet.descriptors,
            quiet.threads
        );
    }
    told.base = Some(base);
    Ok(())
}

/// One round: everything at once, and then the end of all of it.
fn round(
    plan: &Plan,
    gateway: &Gateway,
    flappy: &mut Upstream,
    policy: &mut Policy,
    journal: &Journal,
    number: u64,
) -> io::Result<(Vec<policy::Seen>, Vec<Fault>)> {
    let until = Instant::now() + plan.round;
    let seed = plan.seed.wrapping_add(number << 16);
    let ground = Ground {
        data: gateway.data,
        steady: gateway.target("steady"),
        flappy: gateway.target("flappy"),
        journal,
        toggled: Mutex::default(),
        until,
        rate: plan.rate,
        seed,
    };
    let faults = thread::scope(|scope| {
        let failing = scope.spawn(|| faults::inject(flappy, until - CALM, &mut Chance::new(seed, 1_000)));
        let changing = scope.spawn(|| policy.change(gateway, until - CALM / 2, &mut Chance::new(seed, 1_001)));
        traffic::run(&ground);
        let joined = |_| io::Error::other("a thread of the soak panicked");
        changing.join().map_err(joined)??;
        failing.join().map_err(joined)?
    })?;
    Ok((ground.toggled.into_inner().unwrap_or_else(PoisonError::into_inner), faults))
}

/// Ends the gateway and reads what is left of its record.
fn finish(mut told: Told, gateway: Gateway, policy: &Policy, samples: Vec<Sample>) -> io::Result<Report> {
    told.peak_kib = gateway.process.peak_kib();
    let ended = gateway.end()?;
    told.reading.finish(&ended.record, &mut told.ledger)?;
    Ok(judge::judge(&told, policy, &ended, &samples))
}
