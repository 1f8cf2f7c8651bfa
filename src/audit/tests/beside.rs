//! Does the record stay one chain while one process hands over to the next?

use super::*;

fn open_beside(directory: &Fresh, level: AuditLevel) -> Log {
    Log::open_beside(directory.settings(level), NOW).unwrap()
}

#[test]
fn two_logs_write_one_chain_in_turn_until_the_first_is_gone() {
    for level in [AuditLevel::Durable, AuditLevel::Written, AuditLevel::Queued] {
        let directory = Fresh::new();
        let first = directory.open(level);
        (0..20).for_each(|_| assert!(call(&first).is_ok()));
        let left_open = intent(&first).unwrap();
        first.share().unwrap();
        let second = open_beside(&directory, level);
        thread::scope(|scope| {
            for log in [&first, &second, &first, &second] {
                scope.spawn(move || (0..25).for_each(|_| assert!(call(log).is_ok())));
            }
        });
        assert!(!second.settle(), "the first is still there");
        first.result(left_open, &Outcome::of(Ending::Ok), NOW);
        first.shutdown(NOW);
        drop(first);
        assert!(second.settle(), "{level:?}");
        (0..10).for_each(|_| assert!(call(&second).is_ok()));
        second.shutdown(NOW);
        assert_eq!(directory.verified(), Verified { segments: 1, records: 262, last_seq: 262 }, "{level:?}");
        drop(second);
        let third = directory.open(level);
        assert!(call(&third).is_ok(), "a plain start goes on where they ended");
    }
}

#[test]
fn a_directory_that_is_not_shared_takes_no_second_log() {
    let directory = Fresh::new();
    let first = directory.open(AuditLevel::Written);
    let refused = Log::open_beside(directory.settings(AuditLevel::Written), NOW);
    assert!(matches!(refused, Err(OpenError::Directory(DirectoryError::Locked { .. }))));
    assert!(first.settle() && call(&first).is_ok());
}

#[test]
fn who_was_to_take_over_and_died_leaves_a_log_that_goes_on() {
    let directory = Fresh::new();
    let first = directory.open(AuditLevel::Written);
    first.share().unwrap();
    let second = open_beside(&directory, AuditLevel::Written);
    assert!(call(&second).is_ok() && call(&first).is_ok());
    first.take_back();
    assert!(!first.settle(), "the second still has its part");
    drop(second);
    assert!(first.settle());
    assert!(call(&first).is_ok());
    drop(first);
    assert_eq!(directory.verified().records, 6);
}

#[test]
fn a_log_that_took_over_can_be_taken_over_in_its_turn() {
    let directory = Fresh::new();
    let first = directory.open(AuditLevel::Written);
    first.share().unwrap();
    let second = open_beside(&directory, AuditLevel::Written);
    second.share().unwrap();
    let third = open_beside(&directory, AuditLevel::Written);
    for log in [&first, &second, &third, &first, &third] {
        assert!(call(log).is_ok());
    }
    drop(first);
    assert!(!third.settle() && !second.settle(), "one that leaves claims nothing");
    assert!(call(&second).is_ok());
    drop(second);
    assert!(third.settle() && call(&third).is_ok());
    drop(third);
    assert_eq!(directory.verified().records, 14);
}

#[test]
fn an_empty_record_can_be_handed_over() {
    let directory = Fresh::new();
    let first = directory.open(AuditLevel::Written);
    first.share().unwrap();
    let second = open_beside(&directory, AuditLevel::Written);
    drop(first);
    assert!(second.settle() && call(&second).is_ok());
    drop(second);
    assert_eq!(directory.verified().records, 2);
}

#[test]
fn a_line_that_another_process_left_torn_is_written_over_by_nobody() {
    let directory = Fresh::new();
    let first = directory.open(AuditLevel::Written);
    assert!(call(&first).is_ok());
    first.share().unwrap();
    let second = open_beside(&directory, AuditLevel::Written);
    let segment = directory.segments().pop().unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&segment).unwrap();
    io::Write::write_all(&mut file, b"{\"seq\":3").unwrap();
    assert_eq!(call(&second), Err(Unavailable::Failed));
    drop((first, second));
    let third = directory.open(AuditLevel::Written);
    assert!(call(&third).is_ok(), "the next start cuts it off and says so");
    assert!(directory.records().iter().any(|record| record["cause"] == "torn_tail"));
    drop(third);
    directory.verified();
}

#[test]
fn what_the_other_wrote_before_a_failed_attempt_is_not_forgotten() {
    let directory = Fresh::new();
    super::failure::in_own_process("beside::child_that_cannot_write_beside", &directory);
    directory.verified();
    assert!(call(&directory.open(AuditLevel::Written)).is_ok());
    directory.verified();
}

#[test]
#[ignore = "run in a process of its own by `what_the_other_wrote_before_a_failed_attempt_is_not_forgotten`"]
fn child_that_cannot_write_beside() {
    let Ok(path) = std::env::var("PORTCULLIS_TEST_DIRECTORY") else { return };
    let settings = Settings { retry_ms: 20, ..Settings::new(path.clone(), AuditLevel::Written, 1024 * 1024) };
    let first = Log::open(settings.clone(), NOW).unwrap();
    first.share().unwrap();
    let second = Log::open_beside(settings, NOW).unwrap();
    assert!(call(&second).is_ok());
    assert!(call(&first).is_ok());
    let segment = Path::new(&path).join(chain::segment_name(1));
    let bytes = fs::metadata(&segment).unwrap().len();
    super::failure::limit_files_to(Some(bytes + 50));
    assert_eq!(call(&second), Err(Unavailable::Failed));
    assert_eq!(fs::metadata(&segment).unwrap().len(), bytes, "what it wrote is cut off");
    second.result(Receipt { seq: 1 }, &Outcome::of(Ending::Ok), NOW);
    assert_eq!(second.stats().lost_results, 1);
    super::failure::limit_files_to(None);
    drop(first);
    assert!(second.settle());
    eventually("service", || second.available());
    assert!(call(&second).is_ok());
}

#[test]
fn who_could_not_sync_while_it_shared_serves_again_once_it_is_alone() {
    let directory = Fresh::new();
    super::failure::in_own_process("beside::child_that_cannot_sync_beside", &directory);
    directory.verified();
    let records = directory.records();
    let recovered: Vec<_> = records.iter().filter(|record| record["kind"] == "recovered").collect();
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    assert!(recovered[0]["error"].as_str().unwrap().contains("does not sync"), "{recovered:?}");
    assert_eq!(directory.segments().len(), 2, "nothing follows in the segment that a sync failed in");
    let intents = records.iter().filter(|record| record["kind"] == "intent").count();
    assert_eq!(intents, 4, "what the other wrote meanwhile is kept, what no sync reached was refused");
}

#[test]
#[ignore = "run in a process of its own by `who_could_not_sync_while_it_shared_serves_again_once_it_is_alone`"]
fn child_that_cannot_sync_beside() {
    let Ok(path) = std::env::var("PORTCULLIS_TEST_DIRECTORY") else { return };
    let settings = Settings { retry_ms: 20, ..Settings::new(path.clone(), AuditLevel::Durable, 1024 * 1024) };
    let first = Log::open(settings.clone(), NOW).unwrap();
    assert!(call(&first).is_ok());
    first.share().unwrap();
    let second = Log::open_beside(settings, NOW).unwrap();
    assert!(call(&second).is_ok());
    let segment = Path::new(&path).join(chain::segment_name(1));
    let bytes = fs::metadata(&segment).unwrap().len();
    fail::cfg("disk_sync", "1*return").unwrap();
    assert_eq!(intent(&second), Err(Unavailable::Failed));
    assert_eq!(fs::metadata(&segment).unwrap().len(), bytes, "what it wrote is cut off");
    assert!(!second.available() && first.available());
    assert!(call(&first).is_ok(), "the other goes on");
    thread::sleep(Duration::from_millis(100));
    assert!(!second.settle() && !second.available(), "no segment is begun while the other is there");
    first.shutdown(NOW);
    drop(first);
    // Claiming the segment asks for a sync as well, which may fail once more.
    fail::cfg("disk_sync", "1*return").unwrap();
    assert!(!second.settle() && !second.available());
    assert!(second.settle());
    eventually("service", || second.available());
    assert!(call(&second).is_ok());
    second.shutdown(NOW);
}

#[test]
fn a_turn_that_fails_while_shared_costs_one_line_not_the_service() {
    for level in [AuditLevel::Written, AuditLevel::Durable] {
        let directory = Fresh::new();
        let first = directory.open(level);
        assert!(call(&first).is_ok());
        first.share().unwrap();
        let second = open_beside(&directory, level);
        let receipt = intent(&second).unwrap();
        second.writer.tally.lose(Counts { results: 5, ..Counts::default() });
        // Somebody else has the end of the file for longer than a line waits.
        let segment = fs::File::open(directory.segments().pop().unwrap()).unwrap();
        segment.lock().unwrap();
        assert_eq!(intent(&second), Err(Unavailable::Failed));
        second.result(receipt, &Outcome::of(Ending::Ok), NOW);
        segment.unlock().unwrap();
        assert!(second.available());
        assert_eq!(second.stats().lost_results, 6, "a line that never was made is counted as well");
        assert!(call(&second).is_ok() && call(&first).is_ok(), "both go on while both are there");
        drop((first, second));
        directory.verified();
        let records = directory.records();
        let told: Vec<_> = records.iter().filter(|record| record["lost_results"] == 6).collect();
        assert_eq!(told.len(), 1, "{level:?}: {records:?}");
    }
}

#[test]
fn losses_whose_telling_fails_while_shared_are_told_by_the_next_line() {
    let directory = Fresh::new();
    super::failure::in_own_process("beside::child_that_cannot_tell_beside", &directory);
    directory.verified();
    let told: Vec<_> = directory.records().into_iter().filter(|record| record["lost_results"] == 5).collect();
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
#[ignore = "run in a process of its own by `losses_whose_telling_fails_while_shared_are_told_by_the_next_line`"]
fn child_that_cannot_tell_beside() {
    let Ok(path) = std::env::var("PORTCULLIS_TEST_DIRECTORY") else { return };
    let first = Log::open(Settings::new(path.clone(), AuditLevel::Written, 1024 * 1024), NOW).unwrap();
    first.share().unwrap();
    assert!(call(&first).is_ok());
    first.writer.tally.lose(Counts { results: 5, ..Counts::default() });
    let bytes = fs::metadata(Path::new(&path).join(chain::segment_name(1))).unwrap().len();
    super::failure::limit_files_to(Some(bytes + 50));
    assert_eq!(intent(&first), Err(Unavailable::Failed));
    super::failure::limit_files_to(None);
    assert!(first.available() && call(&first).is_ok());
}

#[test]
fn a_torn_line_of_the_other_is_cut_off_by_who_is_left_and_told() {
    for (level, is_tried) in [
        (AuditLevel::Written, true),
        (AuditLevel::Written, false),
        (AuditLevel::Queued, false),
        (AuditLevel::Durable, true),
    ] {
        let directory = Fresh::new();
        let first = directory.open(level);
        assert!(call(&first).is_ok());
        first.share().unwrap();
        let second = open_beside(&directory, level);
        let segment = directory.segments().pop().unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(&segment).unwrap();
        io::Write::write_all(&mut file, b"{\"seq\":3").unwrap();
        if is_tried {
            assert_eq!(call(&second), Err(Unavailable::Failed));
        }
        drop(first);
        assert!(second.settle());
        eventually("service", || second.available());
        assert!(call(&second).is_ok(), "{level:?}");
        drop(second);
        directory.verified();
        let records = directory.records();
        let told: Vec<_> = records.iter().filter(|record| record["cut_bytes"] == 8).collect();
        assert_eq!(told.len(), 1, "{level:?}: {records:?}");
    }
}

#[test]
fn a_record_bigger_than_a_segment_may_be_begins_no_segment_while_it_is_shared() {
    let directory = Fresh::new();
    let small = Settings { segment_bytes_max: 400, ..directory.settings(AuditLevel::Written) };
    let first = Log::open(small.clone(), NOW).unwrap();
    first.share().unwrap();
    let second = Log::open_beside(small, NOW).unwrap();
    (0..4).for_each(|_| assert!(call(&first).is_ok() && call(&second).is_ok()));
    assert_eq!(directory.segments().len(), 1);
    drop(first);
    assert!(second.settle() && call(&second).is_ok());
    assert_eq!(directory.segments().len(), 2, "afterwards it is as ever");
    drop(second);
    directory.verified();
}
