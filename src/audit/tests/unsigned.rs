//! What do the verifiers say of what nothing signs, and do they say the same?

use sha2::Digest as _;

use super::second::agreed;
use super::second::second;
use super::signed::Signed;
use super::signed::refuse;
use super::*;
use crate::audit::evidence::CHECKPOINT_RECORDS_MAX;
use crate::audit::evidence::Fault;
use crate::audit::evidence::Report;

/// Adds records that nothing signs.
fn invent(signed: &Signed, records: usize) {
    let log = Log::open(Settings { signing: None, segment_bytes_max: 1 << 30, ..signed.settings() }, NOW).unwrap();
    refuse(&log, records);
}

#[test]
fn what_nothing_signs_is_no_record() {
    let signed = Signed::new();
    invent(&signed, 3);
    assert!(agreed(&signed, &[]).is_err(), "no checkpoint at all");
    let signed = Signed::new();
    signed.run(80);
    let note = signed.notes().pop().unwrap();
    invent(&signed, CHECKPOINT_RECORDS_MAX as usize);
    assert_eq!(agreed(&signed, &[]).unwrap().unsigned, CHECKPOINT_RECORDS_MAX);
    invent(&signed, 1);
    assert!(agreed(&signed, &[]).is_err(), "one record too many");
    assert!(agreed(&signed, &[&note]).is_err(), "a checkpoint from elsewhere covers no more");
    fs::remove_file(signed.directory.0.join("checkpoints")).unwrap();
    assert!(agreed(&signed, &[&note]).is_err());
    assert!(second(&signed, &[], &[]).is_err());
}

/// A signed log, and behind it a line that nothing signs.
fn with_line(make: impl Fn(u64, &str) -> String) -> Signed {
    let signed = Signed::new();
    signed.run(5);
    let segment = signed.directory.segments().pop().unwrap();
    let text = fs::read_to_string(&segment).unwrap();
    let digest = sha2::Sha256::digest(text.lines().last().unwrap());
    let prev: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(&segment, text + &make(6, &prev) + "\n").unwrap();
    signed
}

const TIME: &str = "2026-11-30T22:20:00.000000Z";

#[test]
fn a_line_that_nothing_signs_is_judged_alike() {
    let good = |seq: u64, prev: &str| {
        format!("{{\"seq\":{seq},\"prev\":\"{prev}\",\"kind\":\"refused\",\"time\":\"{TIME}\"}}")
    };
    assert!(agreed(&with_line(good), &[]).is_ok());
    type Made<'m> = dyn Fn(u64, &str) -> String + 'm;
    let bad: [(&str, &Made<'_>); 9] = [
        ("no JSON", &|seq, prev| good(seq, prev).replace(&format!("\"{TIME}\""), "")),
        ("a space", &|seq, prev| good(seq, prev).replace("\"seq\":", "\"seq\": ")),
        ("too long", &|seq, prev| good(seq, prev).replace("Z\"", &format!("Z\",\"x\":\"{}\"", "x".repeat(70_000)))),
        ("a number that is none", &|seq, prev| good(seq, prev).replace("Z\"", "Z\",\"x\":NaN")),
        ("half a character", &|seq, prev| good(seq, prev).replace("Z\"", "Z\",\"x\":\"\\ud800\"")),
        ("upper case", &|seq, prev| good(seq, &prev.to_uppercase().replace("0", "A"))),
        ("a number too large", &|seq, prev| good(seq, prev).replace("\"seq\":6", "\"seq\":18446744073709551622")),
        ("other order", &|seq, prev| {
            format!("{{\"prev\":\"{prev}\",\"seq\":{seq},\"kind\":\"refused\",\"time\":\"{TIME}\"}}")
        }),
        ("a result of nothing", &|seq, prev| {
            good(seq, prev).replace("refused", "result").replace("Z\"", "Z0\",\"intent\":4")
        }),
    ];
    for (what, make) in bad {
        assert!(agreed(&with_line(make), &[]).is_err(), "{what}");
    }
    // Where a name stands twice, the first counts.
    let twice =
        with_line(|seq, prev| good(seq, prev).replace("refused", "intent").replace("Z\"", "Z\",\"kind\":\"refused\""));
    assert_eq!(agreed(&twice, &[]).unwrap().unanswered, 1);
    assert!(second(&twice, &[], &[]).unwrap().contains("1 intents without a result"));
    let counted =
        with_line(|seq, prev| good(seq, prev).replace("refused", "removed").replace("Z\"", "Z\",\"leaves\":\"5\""));
    assert!(agreed(&counted, &[]).is_ok(), "it says nothing, and nothing is missing");
}

#[test]
fn a_file_that_is_no_segment_is_judged_alike() {
    for name in ["99999999999999999999.jsonl", ".x.jsonl", "1.jsonl", "00000000000000000000.jsonl"] {
        let signed = Signed::new();
        signed.run(5);
        fs::write(signed.directory.0.join(name), b"").unwrap();
        assert!(agreed(&signed, &[]).is_err(), "{name}");
    }
    let signed = Signed::new();
    signed.run(5);
    fs::write(signed.directory.0.join(".jsonl"), b"").unwrap();
    fs::write(signed.directory.0.join("00000000000000000001.jsonl.9.torn"), b"x").unwrap();
    assert!(agreed(&signed, &[]).is_ok());
}

#[test]
fn checkpoints_before_the_base_are_in_their_order_too() {
    let signed = super::removed::retained();
    let path = signed.directory.0.join("checkpoints");
    let text = fs::read_to_string(&path).unwrap();
    let first: String = text.split_inclusive('\n').take(5).collect();
    fs::write(&path, first + &text).unwrap();
    assert!(agreed(&signed, &[]).is_err());
}

#[test]
fn what_a_start_finds_unsigned_is_on_record() {
    let signed = Signed::new();
    signed.run(20);
    invent(&signed, 7);
    signed.run(1);
    let records = signed.directory.records();
    let told: Vec<&serde_json::Value> = records.iter().filter(|record| record["cause"] == "unsigned").collect();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0]["seq"].as_u64(), told[0]["unsigned"].as_u64()), (Some(28), Some(7)));
    signed.run(1);
    let again = signed.directory.records().iter().filter(|record| record["cause"] == "unsigned").count();
    assert_eq!(again, 1, "nothing is left unsigned at an end");
}

#[test]
fn what_is_more_than_any_gateway_leaves_is_not_waited_for() {
    let signed = Signed::new();
    signed.run(5);
    invent(&signed, 100_001);
    let begun = Instant::now();
    let fault = signed.verify(&[]).unwrap_err();
    assert!(matches!(fault, Fault::Unsigned { unsigned: 100_001, max: CHECKPOINT_RECORDS_MAX }), "{fault}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    let allowed = |max| evidence::verify_allowing(&signed.directory.0, signing_key().public(), &[], Some(max));
    assert_eq!(allowed(100_001).unwrap().unsigned, 100_001);
    assert!(allowed(100_000).is_err());
    assert!(second(&signed, &[], &["--unsigned-max", "100001"]).is_ok());
    assert!(second(&signed, &[], &["--unsigned-max", "100000"]).is_err());
}

#[test]
fn a_log_that_is_being_written_is_verified_as_far_as_it_is_signed() {
    let signed = Signed::new();
    let log = Log::open(signed.settings(), NOW).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                // As many a second as a busy gateway writes: signing goes on beside them.
                refuse(&log, 20);
                thread::sleep(Duration::from_millis(10));
            }
        });
        eventually("a checkpoint", || signed.bytes_signed() > 0);
        let verified: Vec<Result<Report, Fault>> = (0..3).map(|_| signed.verify(&[])).collect();
        stop.store(true, Ordering::SeqCst);
        for report in verified {
            assert!(report.unwrap().unsigned <= CHECKPOINT_RECORDS_MAX);
        }
    });
}
