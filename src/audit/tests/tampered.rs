//! Is every change of a signed record found?
//!
//! By whoever has the public key; where nothing newer is in the directory, by whoever kept a checkpoint elsewhere.

use super::signed::Signed;
use super::signed::refuse;
use super::*;
use crate::audit::evidence::Fault;

/// Bits that are flipped, one at a time; `PORTCULLIS_TEST_FLIPS` says otherwise.
const FLIPS: usize = 400;

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// A closed log of several segments and checkpoints.
fn closed() -> Signed {
    let signed = Signed::new();
    let log = Log::open(signed.settings(), NOW).unwrap();
    for _ in 0..60 {
        call(&log).unwrap();
    }
    drop(log);
    signed.run(40);
    signed.run(1);
    assert!(signed.directory.segments().len() >= 3 && signed.notes().len() >= 3);
    assert_eq!(signed.verify(&[]).unwrap().records, 161);
    signed
}

fn files(signed: &Signed) -> Vec<PathBuf> {
    let mut files = signed.directory.segments();
    files.push(signed.directory.0.join("checkpoints"));
    files
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to.join("tree")).unwrap();
    for directory in ["", "tree"] {
        for entry in from.join(directory).read_dir().unwrap() {
            let file = entry.unwrap().path();
            if file.is_file() {
                fs::copy(&file, to.join(directory).join(file.file_name().unwrap())).unwrap();
            }
        }
    }
}

#[test]
fn any_bit_that_is_flipped_is_found() {
    let signed = closed();
    let files: Vec<(PathBuf, Vec<u8>)> =
        files(&signed).into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect();
    let flips = std::env::var("PORTCULLIS_TEST_FLIPS").map_or(FLIPS, |flips| flips.parse().unwrap());
    let mut numbers = Numbers(7);
    let bits: usize = files.iter().map(|(_, bytes)| bytes.len() * 8).sum();
    for flip in 0..flips {
        let mut bit = numbers.below(bits);
        let (file, bytes) = files
            .iter()
            .find(|(_, bytes)| {
                bit < bytes.len() * 8 || {
                    bit -= bytes.len() * 8;
                    false
                }
            })
            .unwrap();
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(file, bad).unwrap();
        assert!(signed.verify(&[]).is_err(), "flip {flip}: bit {bit} of {}", file.display());
        fs::write(file, bytes).unwrap();
    }
    signed.verify(&[]).unwrap();
}

#[test]
fn any_line_that_is_deleted_inserted_or_swapped_is_found() {
    let signed = closed();
    for file in files(&signed) {
        let good = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = good.lines().collect();
        for at in 0..lines.len() {
            let mut deleted = lines.clone();
            deleted.remove(at);
            let mut twice = lines.clone();
            twice.insert(at, lines[at]);
            let mut swapped = lines.clone();
            swapped.swap(at, (at + 1) % lines.len());
            for (what, lines) in [("deleted", deleted), ("inserted", twice), ("swapped", swapped)] {
                let bad: String = lines.iter().map(|line| format!("{line}\n")).collect();
                if bad != good {
                    fs::write(&file, bad).unwrap();
                    assert!(signed.verify(&[]).is_err(), "line {at} {what} in {}", file.display());
                }
            }
        }
        fs::write(&file, good).unwrap();
    }
    signed.verify(&[]).unwrap();
}

#[test]
fn a_log_that_ends_early_is_found_wherever_it_is_cut() {
    let signed = closed();
    let last = signed.directory.segments().pop().unwrap();
    let good = fs::read(&last).unwrap();
    for end in (0..good.len()).rev().step_by(11) {
        fs::write(&last, &good[..end]).unwrap();
        assert!(signed.verify(&[]).is_err(), "cut at {end}");
    }
    fs::write(&last, &good).unwrap();
    for segment in signed.directory.segments() {
        let good = fs::read(&segment).unwrap();
        fs::remove_file(&segment).unwrap();
        assert!(signed.verify(&[]).is_err(), "without {}", segment.display());
        fs::write(&segment, good).unwrap();
    }
}

#[test]
fn what_stands_behind_the_last_record_is_found_however_long_it_is() {
    let signed = closed();
    let last = signed.directory.segments().pop().unwrap();
    let good = fs::read(&last).unwrap();
    for bytes in [1, 100, 70_000, 200_000] {
        fs::write(&last, [&good[..], &vec![b'x'; bytes]].concat()).unwrap();
        assert!(signed.verify(&[]).is_err(), "{bytes} bytes");
    }
}

#[test]
fn what_ends_early_together_with_its_checkpoints_is_found_by_a_checkpoint_kept_elsewhere() {
    let signed = closed();
    let kept = signed.known(signed.notes().last().unwrap());
    let (segment, notes) = (signed.directory.segments().pop().unwrap(), signed.notes());
    // Cut back to where the checkpoint before the last was signed: whole, and consistent in itself.
    let text = fs::read_to_string(&segment).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let shorter: String = lines[..lines.len() - 1].iter().map(|line| format!("{line}\n")).collect();
    fs::write(&segment, shorter).unwrap();
    fs::write(signed.directory.0.join("checkpoints"), notes[..notes.len() - 1].concat()).unwrap();
    let report = signed.verify(&[]).unwrap();
    assert_eq!((report.records, report.unsigned), (160, 0));
    let fault = signed.verify(&kept).unwrap_err();
    assert!(matches!(fault, Fault::Short { size: 161, records: 160, .. }), "{fault}");
}

#[test]
fn an_older_copy_is_found_by_a_checkpoint_kept_elsewhere_and_by_the_gateway_itself() {
    let (signed, older) = (closed(), Fresh::new());
    copy(&signed.directory.0, &older.0);
    signed.run(30);
    let kept = signed.known(signed.notes().last().unwrap());
    copy(&older.0, &signed.directory.0);
    assert!(signed.verify(&[]).is_ok(), "nothing in it says how old it is");
    assert!(matches!(signed.verify(&kept).unwrap_err(), Fault::Short { size: 191, records: 161, .. }));
    let error = signed.refused();
    assert!(error.contains("191 records were signed by") && error.contains("fewer are there"), "{error}");
    assert!(error.contains("help: "), "{error}");
    // Other records in place of those that are gone do not help.
    let forged = Log::open(Settings { signing: None, ..signed.settings() }, NOW).unwrap();
    for _ in 0..40 {
        forged.refused(&Request::default(), &refusal("forged"), NOW).unwrap();
    }
    drop(forged);
    let error = signed.refused();
    assert!(error.contains("191 records were signed by") && error.contains("others are there"), "{error}");
    assert!(matches!(signed.verify(&kept).unwrap_err(), Fault::Root { size: 191, .. }));
}

#[test]
fn the_gateway_signs_no_log_that_does_not_continue_what_it_signed() {
    // The last segment gone, as far as the chain shows all is well.
    let signed = closed();
    fs::remove_file(signed.directory.segments().pop().unwrap()).unwrap();
    let error = signed.refused();
    assert!(error.contains("161 records were signed") && error.contains("fewer are there"), "{error}");
    // Another log altogether in its place.
    let (signed, other) = (closed(), Signed::new());
    other.run(300);
    let notes = fs::read(signed.directory.0.join("checkpoints")).unwrap();
    copy(&other.directory.0, &signed.directory.0);
    fs::write(signed.directory.0.join("checkpoints"), notes).unwrap();
    assert!(signed.refused().contains("others are there"));
    // A last checkpoint of somebody else.
    let signed = closed();
    let note = evidence::SigningKey::from_seed(&[6; 32], Some("test.example/audit")).unwrap().sign(161, &[0; 32]);
    let path = signed.directory.0.join("checkpoints");
    let mut notes = fs::read(&path).unwrap();
    notes.extend(note.bytes());
    fs::write(&path, notes).unwrap();
    let error = signed.refused();
    assert!(error.contains("it is not signed by this key"), "{error}");
}

#[test]
fn a_running_gateway_stops_signing_when_its_records_are_changed() {
    let signed = Signed::new();
    let log = Log::open(signed.settings(), NOW).unwrap();
    refuse(&log, 3);
    eventually("a checkpoint", || signed.bytes_signed() > 0);
    let before = signed.notes().len();
    let segment = signed.directory.segments().pop().unwrap();
    refuse(&log, 1);
    let text = fs::read_to_string(&segment).unwrap().replace("\"no_such_tool\"", "\"no_such_fool\"");
    fs::write(&segment, text).unwrap();
    drop(log);
    assert_eq!(signed.notes().len(), before);
    assert!(signed.verify(&[]).is_err());
}

#[test]
fn a_file_that_says_what_was_removed_is_not_believed_by_itself() {
    let signed = closed();
    let segments = signed.directory.segments();
    let first = chain::first_seq(&segments[1]).unwrap();
    let tip = chain::end_of(&segments[0], u64::MAX).unwrap().unwrap();
    // The nodes are the true ones: whoever can read the directory can make them.
    let mut tree = evidence::Frontier::default();
    for line in fs::read_to_string(&segments[0]).unwrap().lines() {
        tree.push(evidence::leaf_hash(line.as_bytes()), |_, _| {});
    }
    evidence::Base { leaves: first - 1, tip, nodes: tree.nodes().to_vec() }
        .write(&signed.directory.0, &signing_key())
        .unwrap();
    fs::remove_file(&segments[0]).unwrap();
    let fault = signed.verify(&[]).unwrap_err();
    assert!(matches!(fault, Fault::Removed { removed } if removed == first - 1), "{fault}");
    let mut nodes = tree.nodes().to_vec();
    nodes[0][0] ^= 1;
    evidence::Base { leaves: first - 1, tip, nodes }.write(&signed.directory.0, &signing_key()).unwrap();
    assert!(matches!(signed.verify(&[]).unwrap_err(), Fault::Root { .. }));
}
