//! How fast is it?
//!
//! Ignored unless asked for: `cargo test --release --lib -- --ignored --nocapture search::tests::measure`.

use std::time::Duration;
use std::time::Instant;

use super::*;

/// Records of one run; two of each call.
const RECORDS: u64 = 2_000_000;

/// A week of calls from 200 agents to 30 servers with 20 tools each, of which few are rare.
fn week(records: &mut Records, count: u64) {
    let mut chance = Chance(2_024);
    let step = 7 * entry::DAY_MICROS / (count / 2);
    let mut text = String::new();
    for call in 0..count / 2 {
        if call % 70_000 == 0 {
            records.is_over = true;
        }
        let micros = START + call * step;
        // The square of chance: some servers and agents are busy, others hardly ever called.
        let skewed = |chance: &mut Chance, bound: u64| chance.below(bound) * chance.below(bound) / bound;
        let (server, tool) = (skewed(&mut chance, 30), skewed(&mut chance, 20));
        let mut fields = intent_of(
            &format!("key:k{}", skewed(&mut chance, 300)),
            &format!("server-{server}"),
            &format!("tool-{tool}"),
        );
        fields["agent"] = format!("agent-{}", skewed(&mut chance, 200)).into();
        fields["user"] = format!("u{}@org{}.example", chance.below(2_000), chance.below(40)).into();
        fields["source"] = format!("10.{}.{}.{}", chance.below(4), chance.below(250), chance.below(250)).into();
        fields["user_agent"] = "an agent of some kind, version 1.2.3".into();
        fields["path"] = "/mcp/server".into();
        fields["sent_sha256"] = "0".repeat(64).into();
        text.push_str(&records.text("intent", micros, fields));
        let outcome = if chance.one_in(50) { "tool_error" } else { "ok" };
        let intent = records.seq;
        let phases = json!({"head": 9, "auth": 1, "body": 2, "judge": 7, "record": 3, "upstream": 900, "answer": 12, "total": 1_000 + chance.below(90_000)});
        let result = json!({"intent": intent, "outcome": outcome, "status": 200, "attempts": 1,
            "received_sha256": "0".repeat(64), "received_bytes": 812, "phases_us": phases});
        text.push_str(&records.text("result", micros + 900, result));
        if text.len() > 1_000_000 || call + 1 == count / 2 || (call + 1) % 70_000 == 0 {
            records.write_raw(text.as_bytes());
            text.clear();
        }
    }
}

fn bytes_below(directory: &Path) -> u64 {
    fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap())
        .filter(fs::Metadata::is_file)
        .map(|file| file.len())
        .sum()
}

/// What this thread has used of a processor.
fn cpu() -> Duration {
    let used = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(used.split(' ').next().unwrap().parse().unwrap())
}

#[test]
#[ignore = "a measurement"]
fn two_million_records_are_searched() {
    let mut records = Records::new();
    week(&mut records, RECORDS);
    let (begun, begun_cpu) = (Instant::now(), cpu());
    records.index();
    let (took, used) = (begun.elapsed(), cpu() - begun_cpu);
    println!(
        "index: {RECORDS} records in {took:.1?}, {:.0} records/s, {:.2} us CPU a record; {} MiB beside {} MiB of records",
        RECORDS as f64 / took.as_secs_f64(),
        used.as_secs_f64() * 1e6 / RECORDS as f64,
        bytes_below(&records.path.join("index")) >> 20,
        bytes_below(&records.path) >> 20,
    );
    let text = |text: &str| Some(text.to_owned());
    let source = |text: &str| Some(Sources::parse(text).unwrap());
    let none = Filter::default();
    let asked = [
        ("no filter", none.clone()),
        ("busy server", Filter { server: text("server-0"), ..none.clone() }),
        ("rare server", Filter { server: text("server-28"), ..none.clone() }),
        ("busy server and rare tool", Filter { server: text("server-0"), tool: text("tool-18"), ..none.clone() }),
        (
            "busy agent, principal, tool: rarely together",
            Filter { agent: text("agent-0"), principal: text("key:k0"), tool: text("tool-0"), ..none.clone() },
        ),
        (
            "agent and server that never meet",
            Filter { agent: text("agent-198"), server: text("server-28"), ..none.clone() },
        ),
        ("domain and errors", Filter { domain: text("org7.example"), outcome: text("tool_error"), ..none.clone() }),
        ("errors", Filter { outcome: text("tool_error"), ..none.clone() }),
        ("refusals: none", Filter { decision: Some(Decision::Refused), ..none.clone() }),
        ("one address", Filter { source: source("10.1.77.13"), ..none.clone() }),
        ("a /24", Filter { source: source("10.2.3.0/24"), ..none.clone() }),
        ("a /16 and errors", Filter { source: source("10.2.0.0/16"), outcome: text("tool_error"), ..none.clone() }),
        (
            "an hour of the third day and a tool",
            Filter {
                since_micros: Some(START + 3 * entry::DAY_MICROS),
                until_micros: Some(START + 3 * entry::DAY_MICROS + 3_600 * SECOND),
                tool: text("tool-3"),
                ..none.clone()
            },
        ),
        ("nothing has this reason", Filter { reason: text("timeout"), ..none.clone() }),
    ];
    let mut slowest = Duration::ZERO;
    for (name, filter) in asked {
        // As a console asks: the first page of a search that was just opened, and again.
        let search = records.search();
        let (cold, cold_cpu) = timed(|| search.page(&filter, None, 100).unwrap());
        let (warm, warm_cpu) = timed(|| search.page(&filter, None, 100).unwrap());
        let begun = Instant::now();
        let count = search.count(&filter).unwrap();
        let counted = begun.elapsed();
        println!(
            "page: {name}: {cold:.1?} ({cold_cpu:.1?} CPU), again {warm:.1?} ({warm_cpu:.1?} CPU); {count} counted in {counted:.1?}"
        );
        slowest = slowest.max(cold_cpu);
    }
    let (took, used) = timed(|| records.search().graph(None, None).unwrap());
    println!("graph of 7 days: {took:.1?} ({used:.1?} CPU); slowest page: {slowest:.1?} CPU");
    // What others on the machine take is not held against it.
    assert!(used < Duration::from_secs(1), "{used:?}");
    assert!(slowest < Duration::from_millis(50), "{slowest:?}");
}

/// How long something takes, and how long of that on a processor.
fn timed<T>(ask: impl FnOnce() -> T) -> (Duration, Duration) {
    let (begun, begun_cpu) = (Instant::now(), cpu());
    ask();
    (begun.elapsed(), cpu() - begun_cpu)
}

#[test]
#[ignore = "a measurement"]
fn the_index_keeps_up_with_five_thousand_records_a_second() {
    let mut records = Records::new();
    records.intent(START, "read");
    let indexer = Indexer::start(&records.path).unwrap();
    let (begun, mut chance) = (Instant::now(), Chance(3));
    let mut lag = 0;
    for tick in 0_u32..1_000 {
        let mut text = String::new();
        for _ in 0..25 {
            let micros = crate::clock::now_micros();
            let tool = format!("tool-{}", chance.below(40));
            text.push_str(&records.text("intent", micros, intent_of("key:ci", "files", &tool)));
            let intent = records.seq;
            text.push_str(&records.text(
                "result",
                micros,
                json!({"intent": intent, "outcome": "ok", "phases_us": {"total": 800}}),
            ));
        }
        records.write_raw(text.as_bytes());
        std::thread::sleep((begun + Duration::from_millis(10) * (tick + 1)).saturating_duration_since(Instant::now()));
        if tick % 50 == 49 {
            lag = lag.max(records.seq - records.search().position().map_or(0, |position| position.seq));
        }
    }
    let rate = records.seq as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} records/s for {:.1?}: at most {lag} records behind", begun.elapsed());
    // Others may have wanted the processor, but not all of the time.
    assert!(lag < 15_000, "three seconds behind");
    std::thread::sleep(Duration::from_secs(3));
    drop(indexer);
    records.assert_indexed();
}
