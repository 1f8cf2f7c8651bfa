//! What does a start make of damage, in front of the last checkpoint and behind it?
//!
//! A power cut leaves pages that were never written, ends that are missing and files that are empty; none of it may keep a gateway
//! down. What was signed is left as it is, whatever is wrong with it.

use std::io::Write as _;

use super::second::agreed;
use super::signed::Signed;
use super::signed::refuse;
use super::*;
use crate::audit::evidence::Reader;
use crate::audit::evidence::find;
use crate::audit::evidence::prove_record;

/// A log of which the first records are signed and the others are not, as if signing had been killed.
fn half_signed(signed: usize, unsigned: usize) -> Signed {
    half_signed_in(12_000, signed, unsigned)
}

/// The same, with the others in segments of so many bytes.
fn half_signed_in(segment_bytes_max: u64, signed: usize, unsigned: usize) -> Signed {
    let log = Signed::new();
    log.run(signed);
    let settings = Settings { signing: None, segment_bytes_max, ..log.settings() };
    let writing = Log::open(settings, NOW).unwrap();
    refuse(&writing, unsigned);
    drop(writing);
    log
}

fn append(path: &Path, bytes: &[u8]) {
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn last(signed: &Signed) -> PathBuf {
    signed.directory.segments().pop().unwrap()
}

/// Where each line of a segment begins.
fn starts(segment: &Path) -> Vec<usize> {
    let bytes = fs::read(segment).unwrap();
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    [0].into_iter().chain(ends).collect()
}

/// What stands beside the segments of what a start cut off.
fn aside(signed: &Signed) -> Vec<(String, Vec<u8>)> {
    let files = signed.directory.0.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let torn = files.filter(|file| file.extension().is_some_and(|extension| extension == "torn"));
    let mut torn: Vec<(String, Vec<u8>)> =
        torn.map(|file| (file.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&file).unwrap())).collect();
    torn.sort();
    torn
}

fn contents(signed: &Signed) -> Vec<(PathBuf, Vec<u8>)> {
    signed.directory.segments().into_iter().map(|segment| (segment.clone(), fs::read(segment).unwrap())).collect()
}

/// The start is refused, and every segment is what it was.
#[track_caller]
fn refused_untouched(signed: &Signed) -> String {
    let before = contents(signed);
    let error = signed.refused();
    assert_eq!(before, contents(signed), "{error}");
    assert_eq!(aside(signed), []);
    error
}

/// It starts, both verifiers are content, and what was cut off is on record and kept aside.
#[track_caller]
fn starts_with(signed: &Signed, what: &str, cut: usize) {
    signed.run(1);
    let report = agreed(signed, &[]).unwrap();
    assert_eq!(report.unsigned, 0, "{what}");
    let record = signed.directory.records().into_iter().find(|record| record["cause"] == "torn_tail");
    let told = record.as_ref().map_or(0, |record| record["cut_bytes"].as_u64().unwrap());
    assert_eq!(told, cut as u64, "{what}");
    let kept: usize = aside(signed).iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(kept, cut, "{what}: {:?}", aside(signed).iter().map(|(name, _)| name).collect::<Vec<_>>());
}

#[test]
fn a_start_cuts_off_nothing_that_was_signed() {
    for line in [0, 1, 20, 39] {
        for zeros in [1, 700] {
            let signed = Signed::new();
            signed.run(40);
            let segment = last(&signed);
            let mut bytes = fs::read(&segment).unwrap();
            let at = starts(&segment)[line] + 9;
            bytes.iter_mut().skip(at).take(zeros).for_each(|byte| *byte = 0);
            fs::write(&segment, bytes).unwrap();
            let error = refused_untouched(&signed);
            let place = format!("line {}:", line + 1);
            // Of the last record nothing is left that could be looked at.
            let is_told = error.contains(&place) || (line == 39 && error.contains("fewer are there"));
            assert!(is_told && error.contains("help: "), "{error}");
        }
    }
    // Without the kept hashes too.
    let signed = Signed::new();
    signed.run(40);
    let segment = last(&signed);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[starts(&segment)[30] + 9] = 0;
    fs::write(&segment, bytes).unwrap();
    fs::remove_dir_all(signed.directory.0.join("tree")).unwrap();
    assert!(refused_untouched(&signed).contains("line 31:"));
}

#[test]
fn one_bad_byte_before_whole_records_is_damage_even_if_nothing_signed_them() {
    let signed = half_signed(20, 20);
    let segment = last(&signed);
    let mut bytes = fs::read(&segment).unwrap();
    let at = starts(&segment)[30] + 9;
    bytes[at + usize::from((at + 1).is_multiple_of(512))] = 0;
    fs::write(&segment, bytes).unwrap();
    let error = refused_untouched(&signed);
    assert!(error.contains("line 31:") && error.contains("help: "), "{error}");
}

#[test]
fn pages_that_never_reached_the_disk_are_cut_off_and_kept_aside() {
    let signed = half_signed(20, 20);
    let segment = last(&signed);
    let mut bytes = fs::read(&segment).unwrap();
    let (line, hole) = (starts(&segment)[24], starts(&segment)[24] + 100);
    let end = (hole / 512 + 1) * 512;
    bytes[hole..end].fill(0);
    fs::write(&segment, &bytes).unwrap();
    starts_with(&signed, "a hole before whole records", bytes.len() - line);
    assert_eq!(aside(&signed), [(format!("00000000000000000001.jsonl.{line}.torn"), bytes[line..].to_vec())]);
}

#[test]
fn what_is_cut_off_twice_at_one_place_is_kept_twice() {
    let signed = half_signed(20, 0);
    let segment = last(&signed);
    let end = fs::metadata(&segment).unwrap().len();
    for tail in [&b"{\"seq\":21,"[..], b"{\"seq\":21,\"prev\":"] {
        fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(end).unwrap();
        append(&segment, tail);
        drop(Log::open(Settings { signing: None, ..signed.settings() }, NOW).unwrap());
    }
    let kept: Vec<usize> = aside(&signed).iter().map(|(_, bytes)| bytes.len()).collect();
    assert_eq!(kept.iter().sum::<usize>(), 10 + 17, "{:?}", aside(&signed));
}

#[test]
fn a_power_cut_at_a_rotation_keeps_no_gateway_down() {
    // The last two segments, neither of them signed.
    let fresh = || {
        let signed = half_signed_in(4_000, 20, 90);
        assert!(signed.directory.segments().len() > 2);
        signed
    };
    for (what, tail) in [("empty", vec![]), ("zeros", vec![0; 4096]), ("half a line", b"{\"seq\":111,\"pr".to_vec())] {
        for torn in [0, 9] {
            let signed = fresh();
            let before = last(&signed);
            let mut bytes = fs::read(&before).unwrap();
            bytes.truncate(bytes.len() - torn);
            let begun = *starts(&before).iter().rfind(|start| **start < bytes.len()).unwrap();
            let cut = if torn > 0 { bytes.len() - begun } else { 0 };
            fs::write(&before, bytes).unwrap();
            fs::write(signed.directory.0.join(chain::segment_name(111)), &tail).unwrap();
            starts_with(&signed, what, cut + tail.len());
        }
    }
    // The last segment reached the disk whole, the end of the one before did not.
    for lost in ["half a line", "a page", "lines"] {
        let signed = fresh();
        let segments = signed.directory.segments();
        let before = &segments[segments.len() - 2];
        let whole = fs::read(before).unwrap();
        let mut bytes = whole.clone();
        let begun = starts(before);
        let line = begun[begun.len() - 4];
        let cut = match lost {
            "half a line" => {
                bytes.truncate(line + 50);
                50
            }
            "a page" => {
                bytes[line + 50..].fill(0);
                bytes.len() - line
            }
            _ => {
                bytes.truncate(line);
                0
            }
        };
        fs::write(before, &bytes).unwrap();
        let after = fs::read(last(&signed)).unwrap().len();
        starts_with(&signed, lost, cut + after);
    }
    // The same where the last segment is signed is no power cut.
    let signed = Signed::new();
    signed.run(110);
    let segments = signed.directory.segments();
    let before = &segments[segments.len() - 2];
    let bytes = fs::read(before).unwrap();
    fs::write(before, &bytes[..bytes.len() - 9]).unwrap();
    fs::remove_dir_all(signed.directory.0.join("tree")).unwrap();
    refused_untouched(&signed);
}

#[test]
fn zeros_behind_the_last_checkpoint_keep_no_gateway_down_however_many_they_are() {
    for zeros in [1, 4096, 70_000, 300_000] {
        let signed = Signed::new();
        signed.run(10);
        let path = signed.directory.0.join("checkpoints");
        append(&path, &vec![0; zeros]);
        signed.run(1);
        assert_eq!(agreed(&signed, &[]).unwrap().unsigned, 0, "{zeros}");
    }
    // A page within the file that never reached the disk: what is behind it is kept aside.
    let signed = Signed::new();
    (0..30).for_each(|_| signed.run(2));
    let path = signed.directory.0.join("checkpoints");
    let mut bytes = fs::read(&path).unwrap();
    let whole = bytes.len();
    bytes[1024..1536].fill(0);
    fs::write(&path, &bytes).unwrap();
    signed.run(1);
    assert_eq!(agreed(&signed, &[]).unwrap().unsigned, 0);
    let aside = aside(&signed);
    assert!(aside.len() == 1 && aside[0].0.starts_with("checkpoints."), "{aside:?}");
    assert!(bytes.ends_with(&aside[0].1) && aside[0].1.len() > whole - 1536);
}

#[test]
fn what_stands_behind_what_counts_of_a_failed_segment_is_read_by_nobody() {
    let signed = Signed::new();
    let log = Log::open(signed.settings(), NOW).unwrap();
    refuse(&log, 10);
    let failed = last(&signed);
    // The segment fails and cannot be cut back: the next says how much of it counts.
    log.writer.fail(&mut log.writer.state(), "write_failed", &io::Error::other("as a test wants it"));
    eventually("service", || log.available());
    refuse(&log, 10);
    drop(log);
    append(&failed, b"{\"seq\":11,\"prev\":\"half a l");
    let report = agreed(&signed, &[]).unwrap();
    assert_eq!((report.records, report.unsigned), (21, 0));
    let mut reader = Reader::from_start(&signed.directory.0);
    let read = std::iter::from_fn(|| reader.next_line().unwrap()).count();
    assert_eq!(read, 21);
    for seq in [1, 10, 12, 21] {
        assert!(find(&signed.directory.0, seq).unwrap().is_some(), "{seq}");
        assert!(prove_record(&signed.directory.0, seq, None).is_ok(), "{seq}");
    }
    // Taken in anew, and started on.
    fs::remove_dir_all(signed.directory.0.join("tree")).unwrap();
    signed.run(1);
    assert_eq!(agreed(&signed, &[]).unwrap().records, 22);
}

#[test]
fn what_a_killed_attempt_to_make_the_hashes_anew_left_goes_at_the_next_start() {
    let signed = Signed::new();
    signed.run(3);
    let left = signed.directory.0.join("tree/hashes.0.new.1");
    fs::write(&left, b"x").unwrap();
    signed.run(1);
    assert!(!left.exists() && signed.directory.0.join("tree/hashes.0").exists());
}

#[test]
fn a_torn_checkpoint_at_a_hand_over_forks_no_chain() {
    let signed = Signed::new();
    let old = Log::open(signed.settings(), NOW).unwrap();
    refuse(&old, 5);
    eventually("a checkpoint", || signed.bytes_signed() > 0);
    let stop = std::sync::atomic::AtomicBool::new(false);
    old.share().unwrap();
    let opened: Vec<Result<(), OpenError>> = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                refuse(&old, 1);
                thread::sleep(Duration::from_micros(300));
            }
        });
        let open = |_| {
            append(&signed.directory.0.join("checkpoints"), b"x");
            Log::open_beside(signed.settings(), NOW).map(drop)
        };
        let opened = (0..6).map(open).collect();
        stop.store(true, Ordering::SeqCst);
        opened
    });
    opened.into_iter().for_each(|opened| opened.unwrap());
    old.take_back();
    eventually("the directory", || old.settle());
    drop(old);
    agreed(&signed, &[]).unwrap();
    let told = signed.directory.records().iter().filter(|record| record["cause"] == "torn_checkpoint").count();
    assert!(told >= 1);
    signed.run(1);
}
