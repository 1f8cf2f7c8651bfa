//! Is every record under a signature, and can that be shown?

use super::*;
use crate::audit::evidence::CHECKPOINT_RECORDS_MAX;
use crate::audit::evidence::Fault;
use crate::audit::evidence::Known;
use crate::audit::evidence::Proved;
use crate::audit::evidence::Report;
use crate::audit::evidence::check_proof;
use crate::audit::evidence::prove_continued;
use crate::audit::evidence::prove_record;

/// A log with its own state, and what is known of it elsewhere.
pub(super) struct Signed {
    pub(super) directory: Fresh,
    pub(super) state: Fresh,
}

impl Signed {
    pub(super) fn new() -> Self {
        Self { directory: Fresh::new(), state: Fresh::new() }
    }

    pub(super) fn settings(&self) -> Settings {
        Settings { segment_bytes_max: 12_000, ..self.directory.signed(AuditLevel::Written, &self.state) }
    }

    /// A run of so many refusals, from start to end.
    pub(super) fn run(&self, records: usize) {
        let log = Log::open(self.settings(), NOW).unwrap();
        refuse(&log, records);
    }

    pub(super) fn verify(&self, known: &[Known]) -> Result<Report, Fault> {
        evidence::verify(&self.directory.0, signing_key().public(), known)
    }

    /// Bytes of its checkpoints: none as long as nothing is signed.
    pub(super) fn bytes_signed(&self) -> u64 {
        fs::metadata(self.directory.0.join("checkpoints")).map_or(0, |file| file.len())
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.0.join("checkpoints")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        lines.chunks(5).map(|note| note.iter().map(|line| format!("{line}\n")).collect()).collect()
    }

    pub(super) fn known(&self, note: &str) -> Vec<Known> {
        let checkpoint = signing_key().public().open(note).unwrap();
        vec![Known { file: "elsewhere".into(), checkpoint }]
    }

    pub(super) fn refused(&self) -> String {
        Log::open(self.settings(), NOW).err().unwrap().to_string()
    }
}

pub(super) fn refuse(log: &Log, records: usize) {
    for _ in 0..records {
        log.refused(&Request::default(), &refusal("no_such_tool"), NOW).unwrap();
    }
}

fn size(note: &str) -> u64 {
    signing_key().public().open(note).unwrap().size
}

#[test]
fn every_record_is_under_a_checkpoint_and_no_two_are_further_apart_than_their_limit() {
    let signed = Signed::new();
    signed.run(2_345);
    signed.run(0);
    signed.run(3);
    let sizes: Vec<u64> = signed.notes().iter().map(|note| size(note)).collect();
    assert_eq!(sizes.last(), Some(&2_348));
    let steps = sizes.iter().zip([0].iter().chain(&sizes)).map(|(size, before)| size - before);
    assert!(steps.clone().all(|step| (1..=CHECKPOINT_RECORDS_MAX).contains(&step)), "{sizes:?}");
    let report = signed.verify(&[]).unwrap();
    assert_eq!((report.records, report.unsigned, report.checkpoints), (2_348, 0, sizes.len() as u64));
    assert_eq!((report.removed, report.last_seq, report.unanswered), (0, 2_348, 0));
}

#[test]
fn a_log_that_was_never_signed_is_taken_in_piece_by_piece() {
    let signed = Signed::new();
    let settings = Settings { segment_bytes_max: 1 << 20, ..signed.directory.settings(AuditLevel::Written) };
    let log = Log::open(settings, NOW).unwrap();
    let records = evidence::ROUND_RECORDS_MAX + 1;
    refuse(&log, records as usize);
    let kept = log.writer.kept();
    drop(log);
    let signing = signed.settings().signing.unwrap();
    let (mut notary, _) = evidence::Notary::open(&signed.directory.0, signing).unwrap();
    assert!(notary.round(kept, true).unwrap(), "there is more");
    assert_eq!(notary.signed_seq(), evidence::ROUND_RECORDS_MAX);
    assert!(!notary.round(kept, true).unwrap());
    let report = signed.verify(&[]).unwrap();
    assert_eq!((report.records, report.unsigned), (records, 0));
}

#[test]
fn a_running_log_has_each_record_under_a_checkpoint_within_a_second() {
    for level in [AuditLevel::Written, AuditLevel::Durable, AuditLevel::Queued] {
        let signed = Signed::new();
        let log = Log::open(Settings { level, ..signed.settings() }, NOW).unwrap();
        for round in 1..=3 {
            call(&log).unwrap();
            let begun = Instant::now();
            eventually("a checkpoint", || signed.notes().last().is_some_and(|note| size(note) == 2 * round));
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        }
        assert_eq!(signed.verify(&[]).unwrap().unsigned, 0);
    }
}

#[test]
fn intents_and_results_are_paired_and_what_is_open_is_counted() {
    let signed = Signed::new();
    let log = Log::open(signed.settings(), NOW).unwrap();
    call(&log).unwrap();
    let _open = intent(&log).unwrap();
    drop(log);
    assert_eq!(signed.verify(&[]).unwrap().unanswered, 1);
    let log = Log::open(signed.settings(), NOW).unwrap();
    log.result(Receipt { seq: 1 }, &Outcome::of(Ending::Ok), NOW);
    drop(log);
    let fault = signed.verify(&[]).unwrap_err();
    assert!(matches!(fault, Fault::Result { seq: 4, intent: 1 }), "{fault}");
}

#[test]
fn each_record_is_proved_to_whoever_has_the_key() {
    let signed = Signed::new();
    signed.run(700);
    let key = signing_key();
    for seq in 1..=700 {
        let proof = prove_record(&signed.directory.0, seq, None).unwrap();
        match check_proof(&proof, key.public()).unwrap() {
            Proved::Record { line, index, checkpoint } => {
                let record: serde_json::Value = serde_json::from_str(&line).unwrap();
                assert_eq!((record["seq"].as_u64(), index, checkpoint.size), (Some(seq), seq - 1, 700));
            }
            proved @ Proved::Continued { .. } => panic!("{proved:?}"),
        }
    }
    assert!(prove_record(&signed.directory.0, 701, None).unwrap_err().to_string().contains("no record 701"));
    let other = evidence::SigningKey::from_seed(&[6; 32], Some("test.example/audit")).unwrap();
    let proof = prove_record(&signed.directory.0, 300, None).unwrap();
    assert!(check_proof(&proof, other.public()).is_err());
    for bit in (0..proof.len() * 8).step_by(3) {
        let mut bad = proof.clone().into_bytes();
        bad[bit / 8] ^= 1 << (bit % 8);
        let checked = String::from_utf8(bad).map(|bad| check_proof(&bad, key.public()));
        assert!(!matches!(checked, Ok(Ok(_))), "bit {bit} of\n{proof}");
    }
}

#[test]
fn each_checkpoint_is_proved_to_continue_each_before_it() {
    let signed = Signed::new();
    for records in 1..=20 {
        signed.run(records * 7 % 13 + 1);
    }
    let (notes, key) = (signed.notes(), signing_key());
    assert!(notes.len() >= 20);
    for (position, new) in notes.iter().enumerate() {
        for old in notes.iter().take(position) {
            let proof = prove_continued(&signed.directory.0, old, Some(new)).unwrap();
            let proved = check_proof(&proof, key.public()).unwrap();
            assert!(
                matches!(proved, Proved::Continued { old: o, new: n } if o.size == size(old) && n.size == size(new))
            );
        }
    }
    assert!(prove_continued(&signed.directory.0, &notes[3], Some(&notes[2])).is_err());
}

#[test]
fn proofs_and_starts_do_without_the_kept_hashes_and_are_not_led_astray_by_them() {
    let signed = Signed::new();
    signed.run(1_500);
    let whole = prove_record(&signed.directory.0, 777, None).unwrap();
    let tree = signed.directory.0.join("tree");
    for damage in 0..4 {
        let hashes = tree.join("hashes.0");
        match damage {
            0 => fs::remove_dir_all(&tree).unwrap(),
            1 => fs::write(&hashes, vec![7; 1_500 * 32]).unwrap(),
            2 => fs::write(&hashes, &fs::read(&hashes).unwrap()[..40_000]).unwrap(),
            _ => fs::write(tree.join("positions"), [0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap(),
        }
        assert_eq!(prove_record(&signed.directory.0, 777, None).unwrap(), whole, "damage {damage}");
        signed.run(0);
        assert_eq!(fs::metadata(&hashes).unwrap().len(), 1_500 * 32, "made again after damage {damage}");
        assert_eq!(fs::metadata(tree.join("hashes.1")).unwrap().len(), 5 * 32);
        assert_eq!(prove_record(&signed.directory.0, 777, None).unwrap(), whole);
    }
    signed.run(10);
    assert_eq!(signed.verify(&[]).unwrap().records, 1_510);
}

#[test]
fn a_gap_in_the_numbers_is_none_in_the_tree() {
    let signed = Signed::new();
    signed.run(5);
    // As after a failure: the numbers 6 to 9 were given to lines that never stood.
    let segment = signed.directory.segments().pop().unwrap();
    let tip = chain::end_of(&segment, u64::MAX).unwrap().unwrap();
    let mut line = Vec::new();
    let recovery = Recovery { cause: "write_failed", ..Recovery::default() };
    writer::link(&mut line, chain::Tip { seq: 9, ..tip }, Kind::Recovered, NOW, |line| {
        encode::recovery(line, &recovery);
    });
    std::io::Write::write_all(&mut fs::OpenOptions::new().append(true).open(&segment).unwrap(), &line).unwrap();
    signed.run(300);
    // One more: the start says that a record was there which nothing signs.
    assert_eq!(signed.verify(&[]).unwrap().records, 307);
    for (seq, leaf) in [(5, 4), (10, 5), (11, 6), (311, 306)] {
        let proof = prove_record(&signed.directory.0, seq, None).unwrap();
        let proved = check_proof(&proof, signing_key().public()).unwrap();
        assert!(matches!(proved, Proved::Record { index, .. } if index == leaf), "{seq}");
    }
    assert!(prove_record(&signed.directory.0, 7, None).is_err());
}

#[test]
fn what_a_crash_left_of_a_checkpoint_is_cut_off_and_on_record() {
    let signed = Signed::new();
    signed.run(10);
    let path = signed.directory.0.join("checkpoints");
    let whole = fs::read(&path).unwrap();
    for cut in [&whole[..1], &whole[..30], &whole[..whole.len() - 1], &[0; 100]] {
        let before = fs::read(&path).unwrap();
        fs::write(&path, [&before[..], cut].concat()).unwrap();
        assert!(signed.verify(&[]).is_err());
        signed.run(1);
        let record = signed.directory.records().into_iter().nth_back(1).unwrap();
        assert_eq!((&record["cause"], &record["segment"]), (&"torn_checkpoint".into(), &"checkpoints".into()));
        assert_eq!(record["cut_bytes"], cut.len());
        assert_eq!(signed.verify(&[]).unwrap().unsigned, 0);
    }
}

#[test]
fn two_processes_sign_one_tree_while_one_hands_over() {
    let signed = Signed::new();
    let old = Log::open(signed.settings(), NOW).unwrap();
    refuse(&old, 20);
    old.share().unwrap();
    let new = Log::open_beside(signed.settings(), NOW).unwrap();
    let begun = Instant::now();
    let mut written = 20;
    while begun.elapsed() < Duration::from_millis(2_500) {
        refuse(&old, 7);
        refuse(&new, 5);
        written += 12;
        thread::sleep(Duration::from_millis(20));
    }
    drop(old);
    assert!(new.settle());
    refuse(&new, 3);
    drop(new);
    let report = signed.verify(&[]).unwrap();
    assert_eq!((report.records, report.unsigned), (written + 3, 0));
    assert!(report.checkpoints >= 3, "{report:?}");
}

#[test]
fn what_retention_removes_is_on_record_and_the_rest_stays_proved() {
    let signed = Signed::new();
    signed.run(1_000);
    let before = signed.directory.segments();
    assert!(before.len() > 8);
    let first_notes = signed.notes();
    let limited = Retention { days: None, bytes_max: Some(70_000) };
    let log = Log::open(Settings { retention: limited, ..signed.settings() }, NOW).unwrap();
    eventually("segments to go", || signed.directory.segments().len() < before.len());
    drop(log);
    let kept = signed.directory.segments();
    let bytes: u64 = kept.iter().map(|segment| fs::metadata(segment).unwrap().len()).sum();
    assert!(bytes <= 70_000 + 2_000 && kept.len() >= 3, "{bytes} in {}", kept.len());
    let removed = signed.directory.records().into_iter().find(|record| record["kind"] == "removed").unwrap();
    let first = chain::first_seq(&kept[0]).unwrap();
    assert_eq!((removed["last_seq"].as_u64(), removed["leaves"].as_u64()), (Some(first - 1), Some(first - 1)));
    signed.run(50);
    let report = signed.verify(&[]).unwrap();
    assert_eq!((report.removed, report.removed + report.records, report.unsigned), (first - 1, 1_051, 0));
    assert_eq!(verify_chain(&signed.directory.0).unwrap().records, report.records);
    // Whether or not the kept hashes are there.
    for _ in 0..2 {
        for seq in first..=1_051 {
            let proof = prove_record(&signed.directory.0, seq, None).unwrap();
            check_proof(&proof, signing_key().public()).unwrap();
        }
        fs::remove_dir_all(signed.directory.0.join("tree")).unwrap();
        assert!(prove_record(&signed.directory.0, first, None).is_ok());
        signed.run(0);
    }
    assert!(prove_record(&signed.directory.0, first - 1, None).is_err());
    // A checkpoint of before is continued, as long as it covers what is kept.
    let last = first_notes.last().unwrap();
    check_proof(&prove_continued(&signed.directory.0, last, None).unwrap(), signing_key().public()).unwrap();
    assert!(signed.verify(&signed.known(last)).is_ok());
    let young = Signed::new();
    young.run(3);
    let fault = signed.verify(&signed.known(young.notes().last().unwrap())).unwrap_err();
    assert!(matches!(fault, Fault::TooOld { size: 3, .. }), "{fault}");
    // Removed once more, beyond what is on record.
    fs::remove_file(&kept[0]).unwrap();
    assert!(signed.verify(&[]).is_err());
}

#[test]
fn records_go_when_they_have_their_days() {
    let signed = Signed::new();
    // The records of NOW are years old, those the log makes of itself are not.
    signed.run(200);
    let two_days = Retention { days: Some(2), bytes_max: None };
    let log = Log::open(Settings { retention: two_days, ..signed.settings() }, NOW).unwrap();
    eventually("old segments to go", || signed.directory.segments().len() == 1);
    drop(log);
    let report = signed.verify(&[]).unwrap();
    assert!(report.removed > 0 && report.records > 0, "{report:?}");
    signed.run(5);
    assert_eq!(signed.verify(&[]).unwrap().unsigned, 0);
}

#[test]
#[ignore = "measures: `cargo test --release --lib -- --ignored --nocapture figures_of_evidence`, on a machine that does nothing else"]
fn figures_of_evidence() {
    let records: u64 = std::env::var("PORTCULLIS_TEST_RECORDS").map_or(1_000_000, |records| records.parse().unwrap());
    let signed = Signed::new();
    let log = Log::open(Settings { segment_bytes_max: 64 << 20, ..signed.settings() }, NOW).unwrap();
    let request = Request {
        source: Some("[2001:db8::7]:4711".parse().unwrap()),
        target: Some(b"/mcp/github"),
        user_agent: Some(b"python-httpx/0.27.0 mcp-client/1.4"),
        server: Some("github"),
        tool: Some("create_issue"),
        ..Request::default()
    };
    for _ in 0..records {
        log.refused(&request, &refusal("blocked_tool"), NOW).unwrap();
    }
    drop(log);
    let begun = Instant::now();
    drop(Log::open(signed.settings(), NOW).unwrap());
    let start = begun.elapsed();
    let begun = Instant::now();
    assert_eq!(signed.verify(&[]).unwrap().records, records);
    let rate = records as f64 / begun.elapsed().as_secs_f64();
    let proved = |seq| {
        let begun = Instant::now();
        prove_record(&signed.directory.0, seq, None).unwrap();
        begun.elapsed()
    };
    let mut times: Vec<Duration> = (1..=200).map(|number| proved(number * 7_919 * 6_151 % records + 1)).collect();
    times.sort();
    println!(
        "{records} records: opened and closed in {start:?}, {rate:.0} verified a second, proved in {:?}",
        times[100]
    );
    assert!(rate >= 500_000.0, "{rate}");
    assert!(times[100] <= Duration::from_millis(5), "{:?}", times[100]);
}
