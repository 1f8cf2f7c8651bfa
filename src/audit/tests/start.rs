//! What does a start make of what it finds?

use std::io::Write as _;

use super::*;

/// A closed log of three segments and twelve calls.
fn closed() -> Fresh {
    let directory = Fresh::new();
    let log = Log::open(Settings { segment_bytes_max: 1_700, ..directory.settings(AuditLevel::Written) }, NOW).unwrap();
    for _ in 0..12 {
        call(&log).unwrap();
    }
    drop(log);
    assert_eq!(directory.segments().len(), 3);
    directory
}

fn last(directory: &Fresh) -> PathBuf {
    directory.segments().pop().unwrap()
}

fn append(segment: &Path, bytes: &[u8]) {
    fs::OpenOptions::new().append(true).open(segment).unwrap().write_all(bytes).unwrap();
}

fn change(segment: &Path, change: impl FnOnce(&mut Vec<String>)) {
    let mut lines: Vec<String> = fs::read_to_string(segment).unwrap().lines().map(String::from).collect();
    change(&mut lines);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(segment, text).unwrap();
}

fn refused(directory: &Fresh) -> String {
    let before = directory.segments().iter().map(|segment| fs::read(segment).unwrap()).collect::<Vec<_>>();
    let error = Log::open(directory.settings(AuditLevel::Written), NOW).err().unwrap().to_string();
    let after = directory.segments().iter().map(|segment| fs::read(segment).unwrap()).collect::<Vec<_>>();
    assert_eq!(before, after, "what is broken is left as it is");
    error
}

#[test]
fn a_torn_tail_is_cut_and_its_length_is_on_record() {
    let zeros = [0; 4096];
    let tails: [(&str, &[u8]); 5] = [
        ("part of a line", b"{\"seq\":25,\"prev\":\"00"),
        ("a whole line of something else", b"not a record\n"),
        ("an object that is no record", b"{\"a\":1}\n"),
        ("pages that never reached the disk", &zeros),
        ("such pages, and later ones that did", b"{\"seq\":25\x00\x00\n{\"seq\":26}\n{\"seq\":27}\n"),
    ];
    for (what, tail) in tails {
        let directory = closed();
        append(&last(&directory), tail);
        assert!(verify_chain(&directory.0).is_err(), "{what}");
        let log = directory.open(AuditLevel::Written);
        assert_eq!(call(&log), Ok(26), "{what}");
        drop(log);
        let recovered = &directory.records()[24];
        assert_eq!(recovered["kind"], "recovered", "{what}");
        assert_eq!(recovered["cause"], "torn_tail");
        assert_eq!(recovered["cut_bytes"], tail.len(), "{what}");
        assert_eq!(directory.verified().records, 27, "{what}");
    }
}

#[test]
fn a_last_segment_without_a_record_is_removed() {
    for (tail, cut) in [(&b""[..], None), (b"{\"seq\":25,", Some(10)), (&[0; 4096], Some(4096))] {
        let directory = closed();
        fs::write(directory.0.join(chain::segment_name(25)), tail).unwrap();
        let log = directory.open(AuditLevel::Durable);
        call(&log).unwrap();
        drop(log);
        let recovered = directory.records().into_iter().find(|record| record["kind"] == "recovered");
        assert_eq!(recovered.map(|record| record["cut_bytes"].as_u64().unwrap()), cut);
        directory.verified();
    }
}

#[test]
fn a_change_in_the_last_segment_stops_the_start_and_is_named() {
    let directory = closed();
    let segment = last(&directory);
    change(&segment, |lines| lines[2] = lines[2].replace("read", "write"));
    let error = refused(&directory);
    let place = format!("`{}`, line 4: `prev` is not the digest of the line before", segment.display());
    assert!(error.contains(&place), "{error}");

    let directory = closed();
    let count = fs::read_to_string(last(&directory)).unwrap().lines().count();
    change(&last(&directory), |lines| lines[count - 2] = lines[count - 2].replace("read", "write"));
    assert!(refused(&directory).contains(&format!("line {count}: `prev`")), "even if only the last record tells");

    let directory = closed();
    change(&last(&directory), |lines| lines[1] = "nothing".into());
    assert!(refused(&directory).contains("line 2: the line is not a record"));

    let directory = closed();
    change(&last(&directory), |lines| drop(lines.remove(1)));
    assert!(refused(&directory).contains("line 2: `prev`"));
}

#[test]
fn a_segment_that_continues_another_chain_stops_the_start() {
    let directory = closed();
    let segments = directory.segments();
    change(&segments[1], |lines| drop(lines.pop()));
    assert!(refused(&directory).contains("line 1: `prev`"));
    let directory = closed();
    change(&directory.segments()[1], |lines| drop(lines.pop()));
    change(&last(&directory), |lines| lines.truncate(1));
    assert!(refused(&directory).contains("line 1: `prev`"), "even if it is the only record");
    let directory = closed();
    fs::remove_file(&directory.segments()[1]).unwrap();
    assert!(refused(&directory).contains("line 1: `prev`"));
}

#[test]
fn a_line_without_end_is_not_read_into_memory() {
    let directory = closed();
    append(&last(&directory), &vec![b'x'; 200 * 1024]);
    assert!(refused(&directory).contains("the line is torn"));
}

#[test]
fn a_file_that_only_looks_like_a_segment_stops_the_start() {
    let directory = closed();
    fs::write(directory.0.join("export.jsonl"), b"{}").unwrap();
    let error = Log::open(directory.settings(AuditLevel::Written), NOW).err().unwrap().to_string();
    assert!(error.contains("export.jsonl"), "{error}");
}

#[test]
fn one_gateway_writes_to_a_directory() {
    let directory = Fresh::new();
    let log = directory.open(AuditLevel::Written);
    let error = Log::open(directory.settings(AuditLevel::Written), NOW).err().unwrap().to_string();
    assert_eq!(error, format!("the audit directory `{}` is in use by another gateway", directory.0.display()));
    drop(log);
    assert_eq!(call(&directory.open(AuditLevel::Written)), Ok(1));
}

#[test]
fn verifying_finds_every_change_of_every_line() {
    let directory = closed();
    let whole = directory.verified();
    assert_eq!(whole, Verified { segments: 3, records: 24, last_seq: 24 });
    for segment in directory.segments() {
        let good = fs::read(&segment).unwrap();
        let is_last = segment == last(&directory);
        let end = good[..good.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        for position in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[position] ^= 1;
            fs::write(&segment, &bad).unwrap();
            // Nothing refers to the very last line yet: a checkpoint would.
            if !is_last || position < end {
                assert!(verify_chain(&directory.0).is_err(), "bit 0 of byte {position} of {}", segment.display());
            }
        }
        fs::write(&segment, &good).unwrap();
    }
    for number in 0..7 {
        let directory = closed();
        let segment = directory.segments()[1].clone();
        change(&segment, |lines| match number {
            0 => drop(lines.remove(0)),
            1 => drop(lines.pop()),
            2 => lines.swap(1, 2),
            3 => lines.insert(1, lines[1].clone()),
            4 => lines.clear(),
            5 => lines.truncate(2),
            _ => lines[0].push(' '),
        });
        assert!(verify_chain(&directory.0).is_err(), "change {number}");
    }
}

#[test]
fn a_line_with_anything_but_printable_ascii_is_no_record() {
    let directory = closed();
    let records = lines(&last(&directory)).len();
    let mut bytes = fs::read(last(&directory)).unwrap();
    let end = bytes.len();
    // Inside the last text of the last record: well-formed as far as a JSON reader that skips it looks.
    assert_eq!(bytes[end - 3..], *b"0}\n");
    bytes.splice(end - 2..end, *b",\"x\":\"\xff\"}\n");
    fs::write(last(&directory), bytes).unwrap();
    let broken = verify_chain(&directory.0).unwrap_err();
    assert!(matches!(broken.flaw, Flaw::NotARecord), "{broken}");
    assert_eq!((broken.file, broken.line), (last(&directory), records as u64));
}

#[test]
fn a_start_reads_only_the_last_segment() {
    let directory = Fresh::new();
    let log =
        Log::open(Settings { segment_bytes_max: 100_000, ..directory.settings(AuditLevel::Written) }, NOW).unwrap();
    for _ in 0..1_000 {
        call(&log).unwrap();
    }
    drop(log);
    let segments = directory.segments();
    assert!(segments.len() > 3);
    // A broken first segment is for the verifier to find.
    fs::write(&segments[0], b"gone\n").unwrap();
    assert_eq!(call(&directory.open(AuditLevel::Written)), Ok(2_001));
    let broken = verify_chain(&directory.0).unwrap_err();
    assert_eq!((broken.file, broken.line), (segments[0].clone(), 1));
}

/// One thing that can happen to a file.
#[derive(Debug, Clone)]
enum Damage {
    Cut(usize),
    Flip(usize),
    Zero(usize, usize),
    Insert(usize, Vec<u8>),
}

fn damage() -> impl proptest::strategy::Strategy<Value = Damage> {
    use proptest::prelude::*;
    prop_oneof![
        (0..3_000usize).prop_map(Damage::Cut),
        (0..3_000usize).prop_map(Damage::Flip),
        (0..3_000usize, 1..600usize).prop_map(|(at, bytes)| Damage::Zero(at, bytes)),
        (0..3_000usize, proptest::collection::vec(any::<u8>(), 1..80))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: Damage) {
    let end = bytes.len();
    match damage {
        Damage::Cut(at) => bytes.truncate(at % end),
        Damage::Flip(at) => bytes[at % end] ^= 1,
        Damage::Zero(at, count) => bytes.iter_mut().skip(at % end).take(count).for_each(|byte| *byte = 0),
        Damage::Insert(at, insert) => drop(bytes.splice(at % end..at % end, insert)),
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_damaged_last_segment_stops_the_start_or_leaves_a_chain_of_true_records(damage in damage()) {
        let directory = Fresh::new();
        let log = directory.open(AuditLevel::Queued);
        (0..6).for_each(|_| assert!(call(&log).is_ok()));
        drop(log);
        let segment = last(&directory);
        let good = fs::read_to_string(&segment).unwrap();
        let mut bad = good.clone().into_bytes();
        apply(&mut bad, damage);
        fs::write(&segment, bad).unwrap();
        if let Ok(log) = Log::open(directory.settings(AuditLevel::Written), NOW) {
            log.refused(&Request::default(), &refusal("after_the_damage"), NOW).unwrap();
            drop(log);
            directory.verified();
            let text = fs::read_to_string(last(&directory)).unwrap();
            let kept = text.lines().zip(good.lines()).take_while(|(line, was)| line == was).count();
            let next = text.lines().nth(kept).unwrap();
            let ours = next.contains("\"recovered\"") || next.contains("after_the_damage");
            // Nothing follows the last record, so only what stands before it is vouched for.
            let vouched = good.lines().count() - 1;
            assert!(kept >= vouched || ours, "after {kept} records: {next}");
        }
    }
}
