//! Does the second verifier, which knows nothing of this code, say the same?

use std::process::Command;

use super::signed::Signed;
use super::*;
use crate::audit::evidence::Fault;
use crate::audit::evidence::Known;
use crate::audit::evidence::Report;

/// What both verifiers say of a log and of checkpoints kept elsewhere: they must agree.
#[track_caller]
pub(super) fn agreed(signed: &Signed, notes: &[&str]) -> Result<Report, Fault> {
    let known: Vec<Known> = notes.iter().flat_map(|note| signed.known(note)).collect();
    let own = signed.verify(&known);
    let second = second(signed, notes, &[]);
    assert_eq!(own.is_ok(), second.is_ok(), "{own:?}\n{second:?}");
    own
}

/// What the second verifier says.
#[track_caller]
pub(super) fn second(signed: &Signed, notes: &[&str], options: &[&str]) -> Result<String, String> {
    let files: Vec<PathBuf> = (0..notes.len()).map(|at| signed.state.0.join(format!("known.{at}"))).collect();
    files.iter().zip(notes).for_each(|(file, note)| fs::write(file, note).unwrap());
    let output = Command::new("python3")
        .args(["-B", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verify_audit.py")])
        .arg(signing_key().public().to_string())
        .arg(&signed.directory.0)
        .args(options)
        .args(files)
        .output()
        .unwrap();
    let (said, fault) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() || fault.starts_with("fault: "), "{fault}");
    if output.status.success() { Ok(said) } else { Err(fault) }
}
