//! What do refusals of unknown callers cost?

use super::*;

#[test]
fn a_flood_leaves_one_full_record_and_one_count_a_second() {
    let directory = Fresh::new();
    let log = directory.open(AuditLevel::Written);
    for number in 0..1_000 {
        log.refused_before_auth(&from(&format!("192.0.2.{}:1", number % 250)), &refusal("unknown_key"), NOW + number);
    }
    log.flush_coalesced(NOW + 500_000);
    assert_eq!(directory.records().len(), 1);
    log.flush_coalesced(NOW + 1_000_000);
    log.flush_coalesced(NOW + 2_000_000);
    let records = directory.records();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0]["source"], "192.0.2.0");
    assert_eq!(records[1]["source_prefix"], "192.0.2.0/24");
    assert_eq!(records[1]["kind"], "refused");
    assert_eq!(records[1]["reason"], "unknown_key");
    assert_eq!(records[1]["count"], 999);
    assert_eq!(records[1]["since"], "2023-11-14T22:13:20.000000Z");
    assert_eq!(log.stats().coalesced, 999);
}

#[test]
fn a_shutdown_writes_the_counts_that_are_left() {
    let directory = Fresh::new();
    let log = directory.open(AuditLevel::Queued);
    for _ in 0..5 {
        log.refused_before_auth(&Request::default(), &refusal("bad_framing"), NOW);
    }
    drop(log);
    let records = directory.records();
    assert_eq!((records.len(), &records[1]["count"]), (2, &4.into()));
    assert!(records[1].get("source_prefix").is_none());
}

#[test]
fn unknown_callers_cannot_fill_the_disk() {
    let directory = Fresh::new();
    let settings =
        Settings { refusal_bytes_per_hour_max: 40_000, pending_max: 64, ..directory.settings(AuditLevel::Written) };
    let log = Log::open(settings, NOW).unwrap();
    let mut sent = 0;
    for second in 0..20 {
        for network in 0..200 {
            for _ in 0..3 {
                let at = NOW + second * 1_000_000;
                log.refused_before_auth(&from(&format!("10.{second}.{network}.1:1")), &refusal("unknown_key"), at);
                sent += 1;
            }
        }
        log.flush_coalesced(NOW + (second + 1) * 1_000_000);
    }
    let bytes = fs::metadata(&directory.segments()[0]).unwrap().len();
    assert!((39_000..41_000).contains(&bytes), "{bytes} bytes");
    assert!(call(&log).is_ok(), "known callers are served all the while");
    log.flush_coalesced(NOW + 3_600_000_000);
    drop(log);
    let told: u64 = directory
        .records()
        .iter()
        .filter(|record| record["kind"] == "refused")
        .map(|record| record["count"].as_u64().unwrap_or(1))
        .sum();
    assert_eq!(told, sent, "every refusal is told, in full or in a count");
    assert!(directory.records().iter().any(|record| record["reason"] == "over_budget"));
    assert!(directory.records().iter().any(|record| record["reason"] == "other"));
}
