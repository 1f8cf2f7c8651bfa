//! When does an intent return?

use std::sync::mpsc;

use super::*;
use crate::audit::writer::GATHERED_BYTES_MAX;

#[test]
fn every_level_keeps_every_record_across_restarts() {
    for level in [AuditLevel::Durable, AuditLevel::Written, AuditLevel::Queued] {
        let directory = Fresh::new();
        for round in 0..3 {
            let log = directory.open(level);
            for number in 0..50 {
                assert_eq!(call(&log), Ok(round * 100 + number * 2 + 1), "{level:?}");
            }
            assert!(log.available());
            log.shutdown(NOW);
            assert_eq!(log.stats(), Stats { records: 100, ..Stats::default() }, "{level:?}");
        }
        assert_eq!(directory.verified(), Verified { segments: 1, records: 300, last_seq: 300 }, "{level:?}");
    }
}

#[test]
fn many_threads_make_one_chain() {
    for level in [AuditLevel::Durable, AuditLevel::Written, AuditLevel::Queued] {
        let directory = Fresh::new();
        let log = directory.open(level);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..100).for_each(|_| assert!(call(&log).is_ok())));
            }
        });
        log.shutdown(NOW);
        assert_eq!(directory.verified().records, 1_600, "{level:?}");
        let mut open: Vec<u64> = Vec::new();
        for record in directory.records() {
            match record["intent"].as_u64() {
                None => open.push(record["seq"].as_u64().unwrap()),
                Some(intent) => open.retain(|seq| *seq != intent),
            }
        }
        assert_eq!(open, Vec::<u64>::new(), "intents without a result");
    }
}

#[test]
fn written_intents_and_refusals_are_in_the_file_when_the_call_returns() {
    let directory = Fresh::new();
    let log = directory.open(AuditLevel::Written);
    let receipt = intent(&log).unwrap();
    assert_eq!(directory.records().len(), 1);
    log.result(receipt, &Outcome::of(Ending::Ok), NOW);
    log.refused(&Request::default(), &refusal("blocked_tool"), NOW).unwrap();
    assert_eq!(directory.records().len(), 3, "the result went with the refusal");
}

#[test]
fn a_written_result_is_in_the_file_soon_though_nothing_follows_it() {
    let directory = Fresh::new();
    let log = directory.open(AuditLevel::Written);
    for records in [2, 4, 6] {
        let receipt = intent(&log).unwrap();
        log.result(receipt, &Outcome::of(Ending::Ok), NOW);
        eventually("the result", || directory.records().len() == records);
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn results_that_gather_do_not_pile_up() {
    let directory = Fresh::new();
    let log = directory.open(AuditLevel::Written);
    let receipts: Vec<Receipt> = (0..1_000).map(|_| intent(&log).unwrap()).collect();
    for receipt in receipts {
        log.result(receipt, &Outcome::of(Ending::Ok), NOW);
        assert!(log.writer.gathered_bytes() <= GATHERED_BYTES_MAX);
    }
    log.shutdown(NOW);
    assert_eq!(directory.verified().records, 2_000);
}

#[test]
fn durable_intents_share_syncs_and_need_no_runtime() {
    let directory = Fresh::new();
    let log = directory.open(AuditLevel::Durable);
    let begun = Instant::now();
    let receipts = wait(async {
        let mut tasks = tokio::task::JoinSet::new();
        let log = Arc::new(log);
        for _ in 0..256 {
            let log = Arc::clone(&log);
            tasks.spawn(async move { log.intent(&Request::default(), &ALLOWED, NOW).await.unwrap().seq() });
        }
        tasks.join_all().await
    });
    assert_eq!(receipts.len(), 256);
    assert!(begun.elapsed() < Duration::from_secs(5), "one sync for each would take {:?}", begun.elapsed());
    assert_eq!(directory.verified().records, 256);
}

#[test]
fn an_intent_nobody_waits_for_is_abandoned() {
    let directory = Fresh::new();
    let log = directory.open(AuditLevel::Durable);
    {
        let request = Request::default();
        let waiting = std::pin::pin!(log.intent(&request, &ALLOWED, NOW));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.poll(&mut context).is_pending());
    }
    drop(log);
    let records = directory.records();
    assert_eq!((&records[1]["intent"], &records[1]["outcome"]), (&records[0]["seq"], &"abandoned".into()));
}

/// Holds the log's thread back by holding the segments.
fn held<T>(log: &Log, work: impl FnOnce() -> T) -> T {
    let (taken, wait) = mpsc::channel();
    let segments = log.writer.segments();
    taken.send(()).unwrap();
    wait.recv().unwrap();
    let done = work();
    drop(segments);
    done
}

#[test]
fn a_full_queue_refuses_intents_and_counts_results_that_found_no_room() {
    for level in [AuditLevel::Queued, AuditLevel::Durable] {
        let directory = Fresh::new();
        let settings = Settings { queue_records_max: 4, ..directory.settings(level) };
        let log = Log::open(settings, NOW).unwrap();
        let receipts: Vec<Receipt> = (100..110).map(|seq| Receipt { seq }).collect();
        held(&log, || {
            let request = Request::default();
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(log.intent(&request, &ALLOWED, NOW))).collect();
            let polled: Vec<_> = waiting.iter_mut().map(|intent| intent.as_mut().poll(&mut context)).collect();
            let full = polled.iter().filter(|polled| matches!(polled, std::task::Poll::Ready(Err(_)))).count();
            assert_eq!(full, 1, "{level:?}: four fit");
            for receipt in receipts {
                log.result(receipt, &Outcome::of(Ending::Ok), NOW);
            }
            assert_eq!(log.refused(&request, &refusal("blocked_tool"), NOW), Err(Unavailable::QueueFull));
            // Dropping what waits adds results that find no room either.
            waiting.clear();
        });
        let lost = log.stats().lost_results;
        eventually("room again", || intent(&log).is_ok());
        log.shutdown(NOW);
        let told = directory.records().into_iter().find(|record| record["kind"] == "recovered").unwrap();
        assert_eq!(told["cause"], "records_lost");
        assert_eq!(told["lost_results"], lost);
        assert_eq!(told["lost_refusals"], 1);
        assert!(lost >= 6, "{level:?}: {lost} of ten lost with room for eight records in all");
        directory.verified();
    }
}

#[test]
fn after_a_shutdown_there_are_no_intents_but_late_results() {
    for level in [AuditLevel::Durable, AuditLevel::Written, AuditLevel::Queued] {
        let directory = Fresh::new();
        let log = directory.open(level);
        let late = intent(&log).unwrap();
        log.shutdown(NOW);
        assert_eq!(intent(&log), Err(Unavailable::ShutDown));
        log.result(late, &Outcome::of(Ending::Abandoned), NOW);
        log.shutdown(NOW);
        assert_eq!(directory.verified().records, 2, "{level:?}");
    }
}

#[test]
fn segments_end_at_their_size_and_the_chain_goes_on() {
    for level in [AuditLevel::Durable, AuditLevel::Written] {
        let directory = Fresh::new();
        let log = Log::open(Settings { segment_bytes_max: 2_000, ..directory.settings(level) }, NOW).unwrap();
        for _ in 0..20 {
            call(&log).unwrap();
        }
        log.shutdown(NOW);
        let segments = directory.segments();
        assert!(segments.len() >= 4, "{level:?}: {}", segments.len());
        for segment in &segments {
            assert!(fs::metadata(segment).unwrap().len() < 4_000);
            assert_eq!(chain::first_seq(segment), lines(segment)[0]["seq"].as_u64());
        }
        drop(log);
        assert_eq!(call(&directory.open(level)), Ok(41));
        assert_eq!(directory.verified().records, 42);
    }
}

#[test]
fn full_segments_keep_no_reserved_space() {
    use std::os::unix::fs::MetadataExt as _;
    let directory = Fresh::new();
    let log = Log::open(Settings { segment_bytes_max: 2_000, ..directory.settings(AuditLevel::Written) }, NOW).unwrap();
    for _ in 0..20 {
        call(&log).unwrap();
    }
    log.shutdown(NOW);
    for segment in directory.segments() {
        let blocks = fs::metadata(&segment).unwrap().blocks();
        assert!(blocks * 512 <= 8_192, "{blocks} blocks in {}", segment.display());
    }
}

#[test]
fn results_do_not_gather_while_the_thread_is_at_a_full_segment() {
    let directory = Fresh::new();
    let log = directory.open(AuditLevel::Written);
    let receipt = intent(&log).unwrap();
    log.writer.state().finishing = true;
    log.result(receipt, &Outcome::of(Ending::Ok), NOW);
    assert_eq!(log.writer.gathered_bytes(), 0);
    assert_eq!(directory.records().len(), 2);
}
