//! What happens when the disk does not take a record?

use std::fs::File;
use std::fs::OpenOptions;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::getrlimit;
use rustix::process::setrlimit;

use super::*;
use crate::audit::segments::Keep;

/// A log whose new segments are what `broken` makes while the switch is on, and files otherwise.
fn failing(directory: &Fresh, level: AuditLevel, broken: fn() -> File) -> (Log, Arc<AtomicBool>) {
    failing_every(20, directory, level, broken)
}

fn failing_every(retry_ms: u64, directory: &Fresh, level: AuditLevel, broken: fn() -> File) -> (Log, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(false));
    let on = Arc::clone(&switch);
    let create = move |path: &Path| match on.load(Ordering::SeqCst) {
        true => Ok(AppendFile::from_file(broken(), 0)),
        false => AppendFile::create(path),
    };
    let settings = Settings { segment_bytes_max: 300, retry_ms, ..directory.settings(level) };
    (Log::open_with(settings, Box::new(create), NOW).unwrap(), switch)
}

/// Every write to it says that the disk is full.
fn full_device() -> File {
    OpenOptions::new().append(true).open("/dev/full").unwrap()
}

/// Takes every write and cannot be synced.
fn unsyncable() -> File {
    OpenOptions::new().append(true).open("/dev/null").unwrap()
}

fn until_refused(log: &Log) -> u64 {
    (0..1_000).take_while(|_| call(log).is_ok()).count() as u64
}

fn recovered(directory: &Fresh) -> Vec<serde_json::Value> {
    directory.records().into_iter().filter(|record| record["kind"] == "recovered").collect()
}

#[test]
fn a_full_disk_refuses_intents_counts_results_and_space_brings_service_back() {
    for level in [AuditLevel::Written, AuditLevel::Durable] {
        let directory = Fresh::new();
        let (log, full) = failing(&directory, level, full_device);
        let held = intent(&log).unwrap();
        full.store(true, Ordering::SeqCst);
        assert!(until_refused(&log) < 20, "{level:?}");
        assert!(!log.available());
        assert_eq!(intent(&log), Err(Unavailable::Failed));
        let before = log.stats();
        log.result(held, &Outcome::of(Ending::Abandoned), NOW);
        assert_eq!(log.stats().lost_results, before.lost_results + 1);
        assert_eq!(log.refused(&Request::default(), &refusal("blocked_tool"), NOW), Err(Unavailable::Failed));
        thread::sleep(Duration::from_millis(100));
        assert!(!log.available(), "attempts fail as long as there is no space");
        let lost = log.stats();

        full.store(false, Ordering::SeqCst);
        eventually("service", || log.available());
        assert!(call(&log).is_ok());
        log.shutdown(NOW);
        let told = recovered(&directory);
        assert_eq!(told.len(), 1, "{level:?}: {told:?}");
        assert_eq!(told[0]["cause"], "write_failed");
        assert!(told[0]["error"].as_str().unwrap().contains("No space left"), "{told:?}");
        assert_eq!(told[0]["lost_results"], lost.lost_results);
        assert_eq!(told[0]["lost_refusals"], 1);
        assert!(told[0]["unavailable_us"].as_u64().unwrap() >= 100_000);
        directory.verified();
    }
}

#[test]
fn a_failed_sync_refuses_the_intents_that_waited_for_it() {
    let directory = Fresh::new();
    let (log, broken) = failing(&directory, AuditLevel::Durable, unsyncable);
    call(&log).unwrap();
    broken.store(true, Ordering::SeqCst);
    let served = until_refused(&log);
    assert!(served < 20);
    assert!(!log.available());
    broken.store(false, Ordering::SeqCst);
    eventually("service", || log.available());
    call(&log).unwrap();
    log.shutdown(NOW);
    let told = recovered(&directory);
    assert_eq!(told[0]["cause"], "sync_failed", "{told:?}");
    directory.verified();
    let records = directory.records();
    let mut numbers: Vec<u64> = records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    let last = *numbers.last().unwrap();
    numbers.dedup();
    assert_eq!(numbers.len(), records.len());
    assert!(last > records.len() as u64, "numbers given to what never reached the disk are not used again");
}

#[test]
fn queued_intents_that_are_lost_are_counted() {
    let directory = Fresh::new();
    let (log, full) = failing(&directory, AuditLevel::Queued, full_device);
    call(&log).unwrap();
    eventually("two records", || directory.records().len() == 2);
    full.store(true, Ordering::SeqCst);
    assert!(call(&log).is_ok(), "queued is acknowledged before the disk has a say");
    eventually("the failure", || !log.available());
    full.store(false, Ordering::SeqCst);
    eventually("service", || log.available());
    log.shutdown(NOW);
    assert_eq!(recovered(&directory)[0]["lost_intents"], 1);
    assert_eq!(directory.verified().records, 3);
}

#[test]
fn a_disk_that_stays_full_does_not_hold_up_the_end() {
    let directory = Fresh::new();
    let (log, full) = failing(&directory, AuditLevel::Durable, full_device);
    call(&log).unwrap();
    eventually("two records", || directory.records().len() == 2);
    full.store(true, Ordering::SeqCst);
    assert_eq!(intent(&log), Err(Unavailable::Failed));
    let begun = Instant::now();
    log.shutdown(NOW);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(directory.records().len(), 2);
    drop(log);
    assert!(call(&directory.open(AuditLevel::Written)).is_ok());
}

#[test]
fn the_end_of_service_is_one_more_chance_to_tell_what_happened() {
    let directory = Fresh::new();
    let (log, full) = failing_every(60_000, &directory, AuditLevel::Written, full_device);
    call(&log).unwrap();
    full.store(true, Ordering::SeqCst);
    assert_eq!(intent(&log), Err(Unavailable::Failed));
    thread::sleep(Duration::from_millis(100));
    full.store(false, Ordering::SeqCst);
    assert!(!log.available(), "the next attempt is a minute away");
    log.shutdown(NOW);
    assert_eq!(recovered(&directory).len(), 1);
    directory.verified();
}

#[test]
fn somebody_elses_file_in_the_way_costs_a_number_not_the_service() {
    let directory = Fresh::new();
    let settings = Settings { segment_bytes_max: 1, ..directory.settings(AuditLevel::Written) };
    let log = Log::open(settings, NOW).unwrap();
    call(&log).unwrap();
    for seq in [3, 4, 5] {
        fs::write(directory.0.join(chain::segment_name(seq)), b"").unwrap();
    }
    assert_eq!(intent(&log), Err(Unavailable::Failed));
    eventually("service", || log.available());
    assert_eq!(call(&log), Ok(7));
    log.shutdown(NOW);
    assert_eq!(directory.verified().records, 5);
}

#[test]
fn counts_of_refusals_that_are_lost_are_told_with_all_they_stand_for() {
    let directory = Fresh::new();
    let (log, full) = failing(&directory, AuditLevel::Written, full_device);
    for _ in 0..10 {
        log.refused_before_auth(&Request::default(), &refusal("unknown_key"), NOW);
    }
    full.store(true, Ordering::SeqCst);
    until_refused(&log);
    log.flush_coalesced(NOW + 1_000_000);
    assert_eq!(log.stats().lost_refusals, 9);
}

#[test]
fn losses_whose_telling_is_lost_are_told_again() {
    let directory = Fresh::new();
    let (log, full) = failing(&directory, AuditLevel::Written, full_device);
    call(&log).unwrap();
    log.writer.tally.lose(Counts { results: 5, ..Counts::default() });
    full.store(true, Ordering::SeqCst);
    assert_eq!(intent(&log), Err(Unavailable::Failed));
    full.store(false, Ordering::SeqCst);
    eventually("service", || log.available());
    log.shutdown(NOW);
    assert_eq!(recovered(&directory)[0]["lost_results"], 5);
    assert_eq!(log.stats().lost_results, 5);
}

#[test]
fn what_no_sync_has_reached_does_not_count_after_a_failed_one() {
    let root = Fresh::new();
    for (keep, kept) in [(Keep::Synced, 4), (Keep::Written, 9)] {
        let path = root.0.join(format!("{keep:?}"));
        let directory = Directory::lock(&path).unwrap();
        let mut segments = Segments::new(directory, Box::new(|path: &Path| AppendFile::create(path)), 1_000, None);
        segments.append(b"one\n", 1).unwrap();
        segments.sync().unwrap();
        segments.append(b"four\n", 2).unwrap();
        segments.abandon(keep);
        let cut = segments.cut().unwrap();
        assert_eq!((cut.segment, cut.kept, cut.cut), (chain::segment_name(1), kept, 9 - kept));
        assert_eq!(fs::metadata(path.join(chain::segment_name(1))).unwrap().len(), kept);
        segments.append(b"two\n", 3).unwrap();
        assert!(path.join(chain::segment_name(3)).exists(), "a failed segment is not written to again");
    }
}

#[test]
fn a_directory_that_cannot_be_written_to_is_found_out_at_the_start() {
    let directory = Fresh::new();
    let create: Create = Box::new(|_| Err(io::ErrorKind::ReadOnlyFilesystem.into()));
    let error = Log::open_with(directory.settings(AuditLevel::Written), create, NOW).err().unwrap().to_string();
    assert!(error.contains(&directory.0.display().to_string()), "{error}");
    assert!(error.contains("read-only"), "{error}");
}

#[test]
fn a_panic_half_way_through_a_record_ends_the_log_for_good() {
    let directory = Fresh::new();
    let log = directory.open(AuditLevel::Written);
    call(&log).unwrap();
    let half = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = log.writer.append(Kind::Refused, NOW, |line| {
            line.word("reason", "half");
            panic!("half-way");
        });
    }));
    assert!(half.is_err());
    assert_eq!(intent(&log), Err(Unavailable::Failed));
    log.result(Receipt { seq: 1 }, &Outcome::of(Ending::Abandoned), NOW);
    assert!(!log.available());
    assert_eq!(log.stats().lost_results, 1);
    drop(log);
    assert_eq!(directory.verified().records, 2);
}

/// Runs an ignored test in a process of its own, where a limit of the kernel can be set. The shell
/// makes the kernel report a file's limit as an error instead of killing the process.
pub(super) fn in_own_process(test: &str, directory: &Fresh) {
    let tests = module_path!().split_once("::").unwrap().1.rsplit_once("::").unwrap().0;
    let name = format!("{tests}::{test}");
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact \"$1\" --ignored --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env("PORTCULLIS_TEST_DIRECTORY", &directory.0)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
}

#[test]
fn a_partial_write_is_cut_back_to_the_last_whole_line() {
    let directory = Fresh::new();
    in_own_process("failure::child_with_a_file_limit", &directory);
    let told = recovered(&directory);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0]["error"].as_str().unwrap().contains("File too large"), "{told:?}");
    assert_eq!(told[0]["segment"], chain::segment_name(1));
    assert_eq!(told[0]["cut_bytes"], 50, "what the kernel took of the line");
    assert_eq!(told[1]["lost_results"], 3);
    directory.verified();
}

pub(super) fn limit_files_to(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum }).unwrap();
}

#[test]
#[ignore = "run in a process of its own by `a_partial_write_is_cut_back_to_the_last_whole_line`"]
fn child_with_a_file_limit() {
    let Ok(directory) = std::env::var("PORTCULLIS_TEST_DIRECTORY") else { return };
    let settings = Settings { retry_ms: 20, ..Settings::new(directory.clone(), AuditLevel::Written, 1024 * 1024) };
    let log = Log::open(settings, NOW).unwrap();
    call(&log).unwrap();
    let segment = Path::new(&directory).join(chain::segment_name(1));
    let bytes = fs::metadata(&segment).unwrap().len();
    limit_files_to(Some(bytes + 50));
    assert_eq!(intent(&log), Err(Unavailable::Failed));
    assert_eq!(fs::metadata(&segment).unwrap().len(), bytes);
    // The next segment is below the limit.
    eventually("service", || log.available());
    limit_files_to(Some(0));
    assert_eq!(intent(&log), Err(Unavailable::Failed));
    for seq in 0..3 {
        log.result(Receipt { seq }, &Outcome::of(Ending::ClientGone), NOW);
    }
    thread::sleep(Duration::from_millis(100));
    assert!(!log.available());
    limit_files_to(None);
    eventually("service", || log.available());
    assert!(call(&log).is_ok());
}
