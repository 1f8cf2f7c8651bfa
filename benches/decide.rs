//! How long does a decision take, and does it take longer where there is more to decide about? `cargo bench --bench decide`
//!
//! 10,000 keys, 500 servers, 5,000 tools, 200 agents with matrices and 200 patterns. Budget: 300 ns for the decision
//! alone (constraints come on top, a table step per byte), 2 µs with reading a message of 300 bytes before it. Then the
//! decision alone beside other numbers of keys, servers and tools: what grows there is what the processor's caches hold
//! less of, as the calls go over all keys; the guard counts the same work in instructions, which do not grow.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark stops at the first surprise")]

mod cases;

use std::hint::black_box;
use std::time::Instant;

use portcullis::config::model::Config;
use portcullis::config::problem::Problems;
use portcullis::mcp::document::Limits;
use portcullis::mcp::message::Message;
use portcullis::policy::Policy;

use cases::Case;
use cases::decide;
use cases::decide::LARGE;
use cases::rules;
use cases::rules::Scale;

fn main() {
    first();
    compile();
    println!(
        "\nbudgets: 300 ns without constraints, 1,000 ns with three, 2,000 ns for a refusal and for one read before"
    );
    cases::time(decide::at(LARGE));
    cases::time([decide::moved(LARGE), read_and_decide()]);
    println!("\nthe decision alone, no constraint");
    for keys in [10, 100, 1_000, 10_000, 100_000] {
        point(Scale { keys, servers: 50, tools_per_server: 10 });
    }
    for servers in [5, 50, 500, 5_000] {
        point(Scale { keys: 1_000, servers, tools_per_server: 10 });
    }
    for tools_per_server in [10, 100, 1_000] {
        point(Scale { keys: 1_000, servers: 50, tools_per_server });
    }
}

fn point(scale: Scale) {
    let ns = cases::nanos(&mut decide::plain(scale));
    println!("{:<48} {ns:>9.0} ns", scale.to_string());
}

/// What a reload takes.
fn compile() {
    let config: Config = toml::from_str(&LARGE.config()).unwrap();
    let mut problems = Problems::new();
    let started = Instant::now();
    let policy = Policy::compile(&config, &mut problems);
    println!("compile                  {:>7.1} ms", started.elapsed().as_secs_f64() * 1e3);
    let started = Instant::now();
    black_box(Policy::compile_reusing(&config, Some(&policy), &mut problems));
    println!("compile, patterns reused {:>7.1} ms", started.elapsed().as_secs_f64() * 1e3);
}

/// What the policy weighs, and what the first decision of each key takes: whatever is made once for a caller or for a server is
/// made there. Budgets: 300 MB for the whole process, 50 µs.
fn first() {
    let config: Config = toml::from_str(&LARGE.config()).unwrap();
    let before = resident();
    let policy = Policy::compile(&config, &mut Problems::new());
    let of_policy = resident() - before;
    println!("resident, the policy     {of_policy:>7.1} MB of {:.1}", resident());
    let mut calls = LARGE.calls("execute_query");
    let mut times: Vec<u128> = (0..LARGE.keys)
        .map(|_| {
            let started = Instant::now();
            decide::decide_next(&policy, &mut calls, true);
            started.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100];
    println!("first decision of a key  {:>7} ns at p50, {} at p99, {} at most", at(50), at(99), times[times.len() - 1]);
}

/// Memory of this process, in MB.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / 1e6
}

fn read_and_decide() -> Case {
    let policy = LARGE.policy();
    let bodies: Vec<_> = (0..64).map(|id| rules::body(id, "execute_query")).collect();
    assert!(bodies.iter().all(|body| (280..320).contains(&body.len())));
    let mut calls = LARGE.calls("execute_query");
    let limits = Limits::default();
    let mut next = 0;
    Case::new("read 300 B and decide, 3 constraints", 0, move || {
        next = (next + 1) % bodies.len();
        assert!(black_box(Message::read(bodies[next].clone(), &limits)).is_ok());
        decide::decide_next(&policy, &mut calls, true);
    })
}
