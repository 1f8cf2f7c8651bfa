//! What does signing do when files are changed beneath a running gateway?

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use super::second::agreed;
use super::signed::Signed;
use super::signed::refuse;
use super::*;
use crate::audit::evidence::Notary;
use crate::audit::evidence::ROUND_RECORDS_MAX;

/// A log of so many records that nothing signs, and what is about to sign it.
fn unsigned(records: usize) -> (Signed, chain::Tip, Notary) {
    let signed = Signed::new();
    let settings = Settings { segment_bytes_max: 1 << 30, signing: None, ..signed.settings() };
    let log = Log::open(settings, NOW).unwrap();
    refuse(&log, records);
    let kept = log.writer.kept();
    drop(log);
    let (notary, _) = Notary::open(&signed.directory.0, signed.settings().signing.unwrap()).unwrap();
    (signed, kept, notary)
}

/// Writes over part of a line, of the same length.
fn change(signed: &Signed, line: usize) {
    let segment = signed.directory.segments().pop().unwrap();
    let text = fs::read_to_string(&segment).unwrap();
    let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let at = start + text[start..].find("no_such_tool").unwrap();
    fs::OpenOptions::new().write(true).open(&segment).unwrap().write_all_at(b"no_such_fool", at as u64).unwrap();
}

#[test]
fn no_line_that_was_changed_before_the_round_is_signed() {
    for line in [1, 2, 5, 9, 10] {
        let (signed, kept, mut notary) = unsigned(10);
        change(&signed, line);
        assert!(notary.round(kept, true).is_err(), "line {line}");
        assert_eq!(signed.bytes_signed(), 0, "line {line}");
    }
    let (signed, kept, mut notary) = unsigned(10);
    notary.round(kept, true).unwrap();
    assert!(signed.bytes_signed() > 0, "nothing is signed of what is whole either");
}

#[test]
fn fewer_lines_than_were_kept_are_not_signed() {
    let (signed, kept, mut notary) = unsigned(10);
    let segment = signed.directory.segments().pop().unwrap();
    let text = fs::read_to_string(&segment).unwrap();
    let end = text[..text.len() - 1].rfind('\n').unwrap() + 1;
    fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(end as u64).unwrap();
    assert!(notary.round(kept, true).is_err());
    assert_eq!(signed.bytes_signed(), 0);
}

#[test]
fn the_last_line_of_a_piece_is_signed_only_if_the_next_follows_it() {
    let (signed, kept, mut notary) = unsigned(ROUND_RECORDS_MAX as usize + 1);
    change(&signed, ROUND_RECORDS_MAX as usize);
    assert!(notary.round(kept, true).is_err());
    assert_eq!(signed.bytes_signed(), 0);
}

#[test]
fn a_file_of_checkpoints_that_was_put_in_place_of_another_is_gone_on_with() {
    for what in ["copied back", "an older copy", "removed", "emptied"] {
        let signed = Signed::new();
        let path = signed.directory.0.join("checkpoints");
        signed.run(3);
        let older = fs::read(&path).unwrap();
        let log = Log::open(signed.settings(), NOW).unwrap();
        refuse(&log, 3);
        eventually("a checkpoint", || signed.bytes_signed() > older.len() as u64);
        let whole = fs::read(&path).unwrap();
        if what == "emptied" {
            fs::write(&path, b"").unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        match what {
            "copied back" => fs::write(&path, &whole).unwrap(),
            "an older copy" => fs::write(&path, &older).unwrap(),
            _ => {}
        }
        let before = signed.bytes_signed();
        refuse(&log, 3);
        eventually(what, || signed.bytes_signed() > before);
        drop(log);
        assert_eq!(agreed(&signed, &[]).unwrap().unsigned, 0, "{what}");
        signed.run(1);
    }
}

#[test]
fn what_somebody_appends_to_the_checkpoints_is_cut_off_and_on_record() {
    let signed = Signed::new();
    let path = signed.directory.0.join("checkpoints");
    let log = Log::open(signed.settings(), NOW).unwrap();
    refuse(&log, 3);
    eventually("a checkpoint", || signed.bytes_signed() > 0);
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"x").unwrap();
    refuse(&log, 3);
    eventually("a record of it", || {
        signed.directory.records().iter().any(|record| record["cause"] == "torn_checkpoint")
    });
    drop(log);
    assert_eq!(agreed(&signed, &[]).unwrap().unsigned, 0);
}

#[test]
fn that_nothing_can_be_signed_is_counted_for_those_who_watch() {
    let signed = Signed::new();
    let log = Log::open(signed.settings(), NOW).unwrap();
    assert!(!log.stats().is_unsigned);
    // A round may come between the line and its change: then the next line is changed.
    for line in 1..=12 {
        refuse(&log, 1);
        change(&signed, line);
        std::thread::sleep(Duration::from_millis(100));
        if log.stats().is_unsigned {
            return;
        }
    }
    eventually("it is told", || log.stats().is_unsigned);
}
