//! Does `kill -9` lose anything that was acknowledged?

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;

use super::*;

const ROUNDS: u64 = 4;

/// Lets a process write at full speed, kills it after a while, and returns the numbers it acknowledged.
fn killed(directory: &Fresh, level: &str, after: Duration) -> Vec<u64> {
    let name = format!("{}::child_that_is_killed", module_path!().split_once("::").unwrap().1);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--ignored", "--nocapture"])
        .env("PORTCULLIS_TEST_DIRECTORY", &directory.0)
        .env("PORTCULLIS_TEST_LEVEL", level)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (running, begun) = mpsc::channel();
    let reader = thread::spawn(move || {
        let lines = output.lines().map_while(Result::ok);
        let numbers = lines.filter_map(|line| line.strip_prefix("kept ")?.strip_suffix('.')?.parse().ok());
        numbers.inspect(|_| running.send(()).unwrap()).collect::<Vec<u64>>()
    });
    begun.recv_timeout(Duration::from_secs(20)).expect("the first record");
    thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[track_caller]
fn survives(level: AuditLevel, name: &str) {
    let directory = Fresh::new();
    let mut acknowledged = Vec::new();
    for round in 1..=ROUNDS {
        let kept = killed(&directory, name, Duration::from_millis(50 + 37 * round));
        acknowledged.extend(kept);
        let log = Log::open(directory.signed(level, &directory), NOW).unwrap();
        call(&log).unwrap();
        drop(log);
        let report = evidence::verify(&directory.0, signing_key().public(), &[]).unwrap();
        assert_eq!(report.unsigned, 0, "round {round}");
    }
    directory.verified();
    let kept: std::collections::HashSet<u64> =
        directory.records().iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    let lost: Vec<&u64> = acknowledged.iter().filter(|seq| !kept.contains(seq)).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged records are missing", lost.len(), acknowledged.len());
}

#[test]
fn every_acknowledged_record_survives_a_kill_at_written() {
    survives(AuditLevel::Written, "written");
}

#[test]
fn every_acknowledged_record_survives_a_kill_at_durable() {
    survives(AuditLevel::Durable, "durable");
}

#[test]
#[ignore = "run in a process of its own, to be killed"]
fn child_that_is_killed() {
    let Ok(directory) = std::env::var("PORTCULLIS_TEST_DIRECTORY") else { return };
    let level = match std::env::var("PORTCULLIS_TEST_LEVEL").unwrap().as_str() {
        "durable" => AuditLevel::Durable,
        _ => AuditLevel::Written,
    };
    // Not gone when this is over.
    let directory = std::mem::ManuallyDrop::new(Fresh(directory.into()));
    let log =
        Log::open(Settings { segment_bytes_max: 256 * 1024, ..directory.signed(level, &directory) }, NOW).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                // If nobody kills this process, it ends by itself.
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_secs(30) {
                    let seq = call(&log).unwrap();
                    std::io::stdout().write_all(format!("kept {seq}.\n").as_bytes()).unwrap();
                }
            });
        }
    });
}
