//! Can anybody but retention take away the beginning of a record, or put something in its place?

use super::second::agreed;
use super::signed::Signed;
use super::*;
use crate::audit::evidence::Reader;
use crate::audit::evidence::find;

/// All lines of a log.
fn whole(signed: &Signed) -> Vec<String> {
    let text = signed.directory.segments().into_iter().map(|segment| fs::read_to_string(segment).unwrap());
    text.collect::<String>().lines().map(String::from).collect()
}

/// Puts these lines in place of all segments.
fn put(signed: &Signed, first: u64, lines: &[String]) {
    signed.directory.segments().iter().for_each(|segment| fs::remove_file(segment).unwrap());
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(signed.directory.0.join(chain::segment_name(first)), text).unwrap();
}

fn digest(line: &str) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(line).into()
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The base of the first records, with the true nodes: whoever can read the lines can make them.
fn base_of(lines: &[String]) -> evidence::Base {
    let mut tree = evidence::Frontier::default();
    lines.iter().for_each(|line| tree.push(evidence::leaf_hash(line.as_bytes()), |_, _| {}));
    let tip = chain::Tip { seq: lines.len() as u64, hash: digest(lines.last().unwrap()) };
    evidence::Base { leaves: lines.len() as u64, tip, nodes: tree.nodes().to_vec() }
}

/// A record that says so much was removed, behind the last.
fn removed_line(last: &str, seq: u64, leaves: &str) -> String {
    let prev = hex(&digest(last));
    format!(
        "{{\"seq\":{seq},\"prev\":\"{prev}\",\"kind\":\"removed\",\"time\":\"2026-11-30T22:20:00.000000Z\",\"last_seq\":150,\"leaves\":{leaves},\"removed_bytes\":9}}"
    )
}

/// A log under retention of which the first segments were removed.
pub(super) fn retained() -> Signed {
    let signed = Signed::new();
    signed.run(300);
    let before = signed.directory.segments().len();
    retain(&signed);
    assert!(signed.directory.segments().len() < before);
    signed
}

/// Runs a log that keeps 30,000 bytes until it removed something.
fn retain(signed: &Signed) {
    let limited = Retention { days: None, bytes_max: Some(30_000) };
    let before = fs::read(signed.directory.0.join("base")).unwrap_or_default();
    let log = Log::open(Settings { retention: limited, ..signed.settings() }, NOW).unwrap();
    eventually("a base", || fs::read(signed.directory.0.join("base")).unwrap_or_default() != before);
    drop(log);
}

#[test]
fn nobody_without_the_key_removes_what_was_signed_first() {
    for gone in [150, 199] {
        let signed = Signed::new();
        signed.run(200);
        let newest = signed.notes().pop().unwrap();
        let mut lines = whole(&signed);
        let base = base_of(&lines[..gone]);
        let forged = removed_line(lines.last().unwrap(), 201, &gone.to_string());
        lines.push(forged);
        put(&signed, gone as u64 + 1, &lines[gone..]);
        let nodes: Vec<String> = base.nodes.iter().map(|node| format!("\"{}\"", hex(node))).collect();
        let text = format!(
            "{{\"leaves\":{gone},\"seq\":{gone},\"prev\":\"{}\",\"nodes\":[{}]}}\n",
            hex(&base.tip.hash),
            nodes.join(",")
        );
        fs::write(signed.directory.0.join("base"), text).unwrap();
        assert!(agreed(&signed, &[&newest]).is_err(), "{gone} records");
        assert!(signed.refused().contains("/base` cannot be relied on"), "{}", signed.refused());
    }
}

#[test]
fn a_segment_before_the_first_is_none() {
    let signed = Signed::new();
    signed.run(20);
    let forged = whole(&signed)[0].replace("\"seq\":1,", "\"seq\":0,");
    fs::write(signed.directory.0.join("00000000000000000000.jsonl"), forged + "\n").unwrap();
    assert!(agreed(&signed, &[]).is_err());
    assert!(find(&signed.directory.0, 0).is_err());
    assert!(Reader::from_start(&signed.directory.0).next_line().is_err());
    assert!(Reader::last(&signed.directory.0, 100, |_| true).is_err());
}

#[test]
fn what_stands_below_the_base_is_shown_by_nobody_and_goes_at_the_next_start() {
    let signed = retained();
    let first = chain::first_seq(&signed.directory.segments()[0]).unwrap();
    let line = whole(&signed)[0].replace(&format!("\"seq\":{first},"), "\"seq\":1,");
    let left = signed.directory.0.join(chain::segment_name(1));
    fs::write(&left, line + "\n").unwrap();
    assert!(agreed(&signed, &[]).is_err());
    assert_eq!(find(&signed.directory.0, 1).unwrap(), None);
    let mut reader = Reader::from_start(&signed.directory.0);
    let shown = reader.next_line().unwrap().unwrap();
    assert!(shown.starts_with(format!("{{\"seq\":{first},").as_bytes()), "{}", String::from_utf8_lossy(&shown));
    let (last, _) = Reader::last(&signed.directory.0, 10_000, |_| true).unwrap();
    assert_eq!(last[0], shown);
    // As after a crash between the base and the removal.
    signed.run(1);
    assert!(!left.exists());
    agreed(&signed, &[]).unwrap();
}

#[test]
fn retention_believes_no_position_that_the_signed_tree_does_not_bear_out() {
    let signed = Signed::new();
    signed.run(300);
    let limited = Retention { days: None, bytes_max: Some(30_000) };
    let log = Log::open(Settings { retention: limited, ..signed.settings() }, NOW).unwrap();
    fs::write(signed.directory.0.join("tree/positions"), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3]).unwrap();
    eventually("a base", || signed.directory.0.join("base").exists());
    drop(log);
    let report = agreed(&signed, &[]).unwrap();
    let first = chain::first_seq(&signed.directory.segments()[0]).unwrap();
    assert_eq!(report.removed, first - 1);
    signed.run(1);
    agreed(&signed, &[]).unwrap();
}

#[test]
fn retention_removes_nothing_for_a_time_that_is_not_the_records() {
    let signed = Signed::new();
    // The records of NOW are years old; with a limit of centuries none is due.
    signed.run(300);
    let next = signed.directory.segments()[3].clone();
    let text = fs::read_to_string(&next).unwrap().replacen("2023-11-14", "1023-11-14", 1);
    let centuries = Retention { days: Some(365 * 50), bytes_max: None };
    let log = Log::open(Settings { retention: centuries, ..signed.settings() }, NOW).unwrap();
    fs::write(&next, text).unwrap();
    for segment in &signed.directory.segments()[1..3] {
        let text = fs::read_to_string(segment).unwrap().replacen("2023-11-14", "1023-11-14", 1);
        fs::write(segment, text).unwrap();
    }
    thread::sleep(Duration::from_millis(1_500));
    drop(log);
    assert!(!signed.directory.0.join("base").exists());
}
