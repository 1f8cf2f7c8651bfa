//! Is the index right again, whatever becomes of its files and of the records?

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn made(seed: u64) -> (Records, Traffic) {
    let mut records = Records::new();
    let mut traffic = Traffic::new(seed, 40 * SECOND);
    traffic.write(&mut records, 4_000);
    records.index();
    records.assert_indexed();
    (records, traffic)
}

fn day_files(records: &Records) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(records.path.join("index")).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| {
        file.extension().is_some_and(|ending| ending == "sqlite") && !file.ends_with("catalogue.sqlite")
    });
    files.sort();
    files
}

#[test]
fn a_line_counts_when_it_is_whole() {
    let mut records = Records::new();
    let first = records.intent(START, "read");
    let mut index = records.keep();
    catch_up(&mut index);
    let line = records.text("result", START, json!({"intent": first, "outcome": "ok"}));
    let (begin, end) = line.split_at(40);
    records.write_raw(begin.as_bytes());
    catch_up(&mut index);
    assert!(records.found()[0].is_open());
    records.write_raw(end.as_bytes());
    catch_up(&mut index);
    assert_eq!(records.found()[0].ended.as_ref().map(|ended| ended.seq), Some(2));
    records.assert_indexed();
}

#[test]
fn files_are_its_owners_alone_and_kept_by_one() {
    let (records, _) = made(1);
    let index = records.keep();
    for file in fs::read_dir(records.path.join("index")).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
    }
    assert!(matches!(Index::keep(&records.path), Err(SearchError::Kept)));
    drop(index);
    drop(records.keep());
}

#[test]
fn a_crash_between_any_two_files_leaves_nothing_out_and_nothing_twice() {
    let mut records = Records::new();
    let mut traffic = Traffic::new(31, 60 * SECOND);
    for _ in 0..12 {
        traffic.write(&mut records, 300);
        records.index();
        // As if the process had ended before one file was written and after the others.
        let files: Vec<PathBuf> =
            fs::read_dir(records.path.join("index")).unwrap().map(|file| file.unwrap().path()).collect();
        let before = &files[usize::try_from(traffic.chance.below(files.len() as u64)).unwrap()];
        let bytes = fs::read(before).unwrap();
        traffic.write(&mut records, 300);
        records.index();
        fs::write(before, bytes).unwrap();
    }
    records.index();
    records.assert_indexed();
    let graph = records.search().graph(None, None).unwrap();
    let calls: u64 = graph.to_servers.iter().map(|(_, _, flow)| flow.calls).sum();
    let expected = naive(&records.path).iter().filter(|entry| entry.decision == Decision::Allowed).count();
    assert_eq!(calls, expected as u64);
}

#[test]
fn a_day_that_is_removed_or_damaged_is_made_anew() {
    let (mut records, mut traffic) = made(2);
    let days = day_files(&records);
    assert!(days.len() >= 3, "{days:?}");
    for day in &days {
        fs::remove_file(day).unwrap();
        records.index();
        records.assert_indexed();
        fs::write(day, "this is no database, however long it may be, and nobody can read it").unwrap();
        records.index();
        records.assert_indexed();
        let file = File::options().write(true).open(day).unwrap();
        let bytes = file.metadata().unwrap().len();
        for page in (1..bytes / 4_096).step_by(2) {
            file.write_all_at(&[0xa5; 4_096], page * 4_096).unwrap();
        }
        // Damage deep inside is met by who asks, or by who writes.
        let met = records.search().page(&Filter { tool: Some("read".into()), ..Filter::default() }, None, 1_000);
        if let Err(SearchError::Damaged { path }) = met {
            discard(&path).unwrap();
        } else {
            fs::remove_file(day).unwrap();
        }
        traffic.write(&mut records, 20);
        records.index();
        records.assert_indexed();
    }
}

#[test]
fn files_that_go_while_they_are_written_to_are_missed() {
    let (mut records, mut traffic) = made(3);
    let mut index = records.keep();
    traffic.write(&mut records, 100);
    catch_up(&mut index);
    fs::remove_file(day_files(&records).last().unwrap()).unwrap();
    index.look().unwrap();
    traffic.write(&mut records, 100);
    catch_up(&mut index);
    records.assert_indexed();
    fs::remove_dir_all(records.path.join("index")).unwrap();
    drop(index);
    records.index();
    records.assert_indexed();
}

#[test]
fn a_damaged_catalogue_has_all_of_it_made_anew() {
    let (records, _) = made(4);
    fs::write(records.index_file("catalogue.sqlite"), [0x20; 9_000]).unwrap();
    records.index();
    records.assert_indexed();
    fs::remove_file(records.index_file("catalogue.sqlite")).unwrap();
    records.index();
    records.assert_indexed();
    let mut index = records.keep();
    index.clear().unwrap();
    assert!(records.found().is_empty());
    catch_up(&mut index);
    records.assert_indexed();
}

#[test]
fn an_older_copy_of_a_day_is_not_taken_for_the_day() {
    let (mut records, mut traffic) = made(5);
    let last = day_files(&records).pop().unwrap();
    let older = fs::read(&last).unwrap();
    traffic.write(&mut records, 50);
    records.index();
    fs::write(&last, older).unwrap();
    records.index();
    records.assert_indexed();
}

#[test]
fn a_day_that_is_replaced_while_the_index_is_kept_is_seen() {
    let (mut records, mut traffic) = made(9);
    let last = day_files(&records).pop().unwrap();
    let older = fs::read(&last).unwrap();
    let mut index = records.keep();
    traffic.write(&mut records, 50);
    catch_up(&mut index);
    fs::write(last.with_extension("new"), older).unwrap();
    fs::rename(last.with_extension("new"), &last).unwrap();
    index.look().unwrap();
    catch_up(&mut index);
    records.assert_indexed();
    // Looking again finds nothing to do.
    index.look().unwrap();
    assert_eq!(index.step().unwrap(), Step::UpToDate);
}

#[test]
fn records_that_were_taken_back_leave_the_index() {
    let mut records = Records::new();
    records.intent(START, "read");
    let counted = fs::metadata(records.segment()).unwrap().len();
    let taken_back = records.intent(START + 1, "never");
    let mut index = records.keep();
    catch_up(&mut index);
    assert_eq!(records.found().len(), 2);
    // A sync failed: the segment is cut back, and the next one says so.
    File::options().write(true).open(records.segment()).unwrap().set_len(counted).unwrap();
    let name = records.segment().file_name().unwrap().to_str().unwrap().to_owned();
    records.is_over = true;
    let fields = json!({"cause": "sync_failed", "segment": name, "segment_bytes": counted, "cut_bytes": 9});
    records.line("recovered", START + 2, fields);
    records.intent(START + 3, "after");
    catch_up(&mut index);
    records.assert_indexed();
    assert!(records.found().iter().all(|entry| entry.seq != taken_back));
    // A crash took the tail, and its numbers are used again in the same segment.
    let lost = records.intent(START + 4, "lost");
    catch_up(&mut index);
    drop(index);
    let text = fs::read_to_string(records.segment()).unwrap();
    let kept = text.trim_end().rfind('\n').unwrap() as u64 + 1;
    File::options().write(true).open(records.segment()).unwrap().set_len(kept).unwrap();
    records.seq = lost - 1;
    records.line("recovered", START + 5, json!({"cause": "torn_tail"}));
    records.intent(START + 6, "instead");
    records.index();
    records.assert_indexed();
    assert!(records.found().iter().all(|entry| entry.tool.as_deref() != Some("lost")));
}

#[test]
fn what_a_failed_segment_holds_beyond_what_counts_is_not_found() {
    // The numbers of what does not count are given again, or are left out.
    for are_given_again in [true, false] {
        let mut records = Records::new();
        let counts = records.intent(START, "read");
        let counted = fs::metadata(records.segment()).unwrap().len();
        records.intent(START + 1, "phantom");
        records.intent(START + 2, "phantom");
        let mut index = records.keep();
        catch_up(&mut index);
        let mut follow = Follow::behind_index(&records.path).unwrap();
        assert_eq!(records.found().len(), 3);
        // Nothing is cut off: the disk takes no change.
        let name = records.segment().file_name().unwrap().to_str().unwrap().to_owned();
        if are_given_again {
            records.seq = counts;
        }
        records.is_over = true;
        let fields = json!({"cause": "sync_failed", "segment": name, "segment_bytes": counted});
        records.line("recovered", START + 3, fields);
        let after = records.intent(START + 4, "after");
        records.result(START + 5, after, "ok");
        let assert_found = |when: &str| {
            let tools: Vec<_> = records.found().into_iter().filter_map(|entry| entry.tool).collect();
            assert_eq!(tools, ["read", "after"], "{when}: {are_given_again}");
        };
        let told: Vec<u64> = (0..50).flat_map(|_| follow.step().unwrap()).map(|entry| entry.seq).collect();
        assert_eq!(told, [after]);
        catch_up(&mut index);
        assert_found("as it happens");
        index.clear().unwrap();
        catch_up(&mut index);
        assert_found("read again");
        drop(index);
        fs::remove_dir_all(records.path.join("index")).unwrap();
        records.index();
        assert_found("made anew");
    }
}

#[test]
fn what_is_cut_off_behind_a_record_leaves_nothing_unread() {
    let mut records = Records::new();
    records.intent(START, "read");
    let counted = fs::metadata(records.segment()).unwrap().len();
    records.write_raw(b"no record\n");
    records.index();
    File::options().write(true).open(records.segment()).unwrap().set_len(counted).unwrap();
    records.is_over = true;
    records.intent(START + 1, "after");
    let mut index = records.keep();
    while index.step().unwrap() != Step::UpToDate {}
    records.assert_indexed();
}

#[test]
fn a_catalogue_that_goes_while_it_is_written_to_is_missed() {
    let (mut records, mut traffic) = made(9);
    let mut index = records.keep();
    catch_up(&mut index);
    assert!(!records.search().lacks_files().unwrap());
    for entry in fs::read_dir(records.path.join("index")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name.to_str().unwrap().starts_with("catalogue.sqlite")) {
            fs::remove_file(path).unwrap();
        }
    }
    traffic.write(&mut records, 20);
    catch_up(&mut index);
    assert!(records.search().lacks_files().unwrap());
    index.look().unwrap();
    catch_up(&mut index);
    assert!(!records.search().lacks_files().unwrap());
    assert_eq!(records.search().behind().unwrap(), 0);
    records.assert_indexed();
    fs::remove_file(day_files(&records).first().unwrap()).unwrap();
    assert!(records.search().lacks_files().unwrap());
}

#[test]
fn a_late_result_does_not_keep_a_day_whose_requests_are_gone() {
    let mut records = Records::new();
    let day = 24 * 3_600 * SECOND;
    let early = records.intent(START, "stream");
    for later in 1..4 {
        records.is_over = true;
        records.intent(START + later * day, "read");
    }
    records.result(START + 3 * day, early, "ok");
    let mut index = records.keep();
    catch_up(&mut index);
    assert_eq!((records.found().len(), day_files(&records).len()), (4, 4));
    fs::remove_file(records.path.join(format!("{early:020}.jsonl"))).unwrap();
    // A file that a crash left behind, of which nothing knows.
    fs::write(records.index_file("2020-01-01.sqlite"), "").unwrap();
    index.look().unwrap();
    let tools: Vec<_> = records.found().into_iter().filter_map(|entry| entry.tool).collect();
    assert_eq!(tools, ["read"; 3]);
    assert_eq!(day_files(&records).len(), 3);
}

#[test]
fn a_line_that_is_no_record_is_passed_over() {
    let mut records = Records::new();
    records.intent(START, "read");
    records.write_raw(b"[1,2]\n{}\n\xff\xfe\n\n");
    records.intent(START, "write");
    records.index();
    assert_eq!(records.found().len(), 2);
    // One number twice: the record does not verify, and is searched all the same.
    let twice = fs::read(records.segment()).unwrap();
    records.write_raw(&twice);
    records.index();
    assert_eq!(records.found().len(), 2);
    // Longer than any line, and without an end.
    records.write_raw(&vec![b'x'; 3 * 1024 * 1024]);
    records.write_raw(b"\n");
    records.intent(START, "after");
    records.index();
    assert_eq!(records.found().last().unwrap().tool.as_deref(), Some("after"));
}

#[test]
fn days_go_with_their_records() {
    let (records, _) = made(6);
    let days = day_files(&records).len();
    let segments = tail::segments(&records.path).unwrap();
    let second_day = records
        .found()
        .iter()
        .find(|entry| entry.time_micros / entry::DAY_MICROS > START / entry::DAY_MICROS)
        .unwrap()
        .seq;
    let kept_from = segments.iter().find(|first| **first > second_day + 100).unwrap();
    for segment in segments.iter().filter(|first| *first < kept_from) {
        fs::remove_file(records.path.join(format!("{segment:020}.jsonl"))).unwrap();
    }
    let mut index = records.keep();
    index.look().unwrap();
    assert!(day_files(&records).len() < days);
    // An index that is made only now has what is left.
    index.clear().unwrap();
    catch_up(&mut index);
    let results_left = |entry: &Entry| entry.seq >= *kept_from;
    assert_eq!(records.found(), naive(&records.path));
    assert!(records.found().iter().all(results_left));
}

#[test]
fn an_index_that_was_left_behind_goes_on_with_what_is_kept() {
    let mut records = Records::new();
    records.intent(START, "read");
    records.index();
    fs::remove_file(records.segment()).unwrap();
    records.seq += 10;
    records.is_over = true;
    records.intent(START + 1, "write");
    records.index();
    let tools: Vec<_> = records.found().into_iter().filter_map(|entry| entry.tool).collect();
    assert_eq!(tools.last().map(String::as_str), Some("write"));
}

#[test]
fn whoever_reads_until_nothing_is_new_has_everything_of_segments_with_gaps_between() {
    let mut records = Records::new();
    for gap in 0..5 {
        records.seq += gap;
        records.is_over = true;
        records.line("recovered", START, json!({"cause": "records_lost"}));
        records.intent(START, "read");
    }
    let mut index = records.keep();
    while index.step().unwrap() != Step::UpToDate {}
    drop(index);
    records.assert_indexed();
}

#[test]
fn less_than_free_bytes_min_keeps_the_index_from_being_written() {
    let mut records = Records::new();
    records.intent(START, "read");
    let refused = index::Index::keep_with(&records.path, u64::MAX);
    assert!(matches!(refused, Err(SearchError::NoRoom { .. })));
    assert!(!records.path.join("index").exists());
}

#[test]
fn records_of_another_directory_replace_those_of_before() {
    let (mut records, _) = made(8);
    for segment in tail::segments(&records.path).unwrap() {
        fs::remove_file(records.path.join(format!("{segment:020}.jsonl"))).unwrap();
    }
    records.seq = 0;
    records.is_over = true;
    records.intent(START, "new");
    records.index();
    records.assert_indexed();
}
