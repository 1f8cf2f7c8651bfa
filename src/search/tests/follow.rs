//! Does who follows see each request once?

use super::*;

#[test]
fn requests_are_told_once_when_they_have_ended() {
    let mut records = Records::new();
    let mut traffic = Traffic::new(12, 30 * SECOND);
    traffic.write(&mut records, 1_000);
    records.index();
    let shown: Vec<u64> = records.found().iter().filter(|entry| !entry.is_open()).map(|entry| entry.seq).collect();
    let mut follow = Follow::behind_index(&records.path).unwrap();
    let mut told = Vec::new();
    for _ in 0..20 {
        traffic.write(&mut records, 60);
        for _ in 0..25 {
            told.extend(follow.step().unwrap());
        }
    }
    let mut expected: Vec<Entry> = naive(&records.path);
    expected.retain(|entry| !entry.is_open() && !shown.contains(&entry.seq));
    told.sort_by_key(|entry| (entry.time_micros / entry::DAY_MICROS, entry.seq));
    assert_eq!(told, expected);
    assert_eq!(follow.last_seq(), records.seq);
}

#[test]
fn a_segment_that_is_cut_back_ends_nothing() {
    let mut records = Records::new();
    records.intent(START, "read");
    records.index();
    let counted = fs::metadata(records.segment()).unwrap().len();
    let mut follow = Follow::behind_index(&records.path).unwrap();
    records.intent(START, "never");
    assert!(follow.step().unwrap().is_empty());
    fs::OpenOptions::new().write(true).open(records.segment()).unwrap().set_len(counted).unwrap();
    records.is_over = true;
    let intent = records.intent(START + 1, "after");
    records.result(START + 2, intent, "ok");
    let told: Vec<Entry> = (0..50).flat_map(|_| follow.step().unwrap()).collect();
    assert_eq!(told.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [intent]);
}
