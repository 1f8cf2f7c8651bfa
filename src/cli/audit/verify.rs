//! `portcullis audit verify`: does it hold, to whoever has nothing but the public key?

use std::path::PathBuf;

use serde_json::json;

use crate::audit::evidence;
use crate::audit::evidence::Known;
use crate::audit::evidence::Proved;
use crate::audit::evidence::Report;
use crate::audit::evidence::VerifyingKey;
use crate::cli;

use super::Failure;

/// What to verify.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The audit directory, or a copy of it.
    #[arg(required_unless_present = "proof")]
    directory: Option<PathBuf>,
    /// The public key, or the file that holds it (`audit.pub`): get it from the gateway's operators, not from beside the record.
    #[arg(long)]
    key: String,
    /// A checkpoint that was kept elsewhere: tells whether records were cut off since, or the directory is an older copy.
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// A proof that `audit prove` printed. With a directory, its checkpoints are ones that were kept elsewhere.
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
    /// Records at the end that may be under no checkpoint: of a log that was not signed, or not to its end.
    #[arg(long, value_name = "N")]
    unsigned_max: Option<u64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Verifies; exit code 1 if something is not as it should be.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let key = super::verifying_key(&arguments.key)?;
    let mut proved_by = Vec::new();
    if let Some(path) = &arguments.proof {
        let proved = evidence::check_proof(&super::read(path)?, &key)
            .map_err(|why| fault(arguments, &format!("`{}` proves nothing: {why}", path.display())))?;
        print_proved(arguments, &proved)?;
        proved_by = match proved {
            Proved::Record { checkpoint, .. } => vec![checkpoint],
            Proved::Continued { old, new } => vec![old, new],
        };
    }
    let Some(directory) = &arguments.directory else { return Ok(()) };
    let removed = evidence::removed(directory).map_err(|error| fault(arguments, &error.to_string()))?;
    // A proof stays what it is when retention has removed all that its checkpoint is over: there is nothing to compare then.
    let comparable = proved_by.into_iter().filter(|checkpoint| checkpoint.size >= removed);
    let file = arguments.proof.clone().unwrap_or_default();
    let mut known: Vec<Known> = comparable.map(|checkpoint| Known { file: file.clone(), checkpoint }).collect();
    for path in &arguments.checkpoint {
        let checkpoint = key.open(&super::note(path)?);
        let checkpoint = checkpoint
            .map_err(|why| fault(arguments, &format!("the checkpoint in `{}` is not valid: {why}", path.display())))?;
        known.push(Known { file: path.clone(), checkpoint });
    }
    let report = evidence::verify_allowing(directory, &key, &known, arguments.unsigned_max)
        .map_err(|found| fault(arguments, &found.to_string()))?;
    print_report(arguments, &report, &key)
}

fn fault(arguments: &Arguments, what: &str) -> Failure {
    if arguments.json && cli::print(&json!({ "holds": false, "fault": what }).to_string()).is_ok() {
        return Failure { code: 1, message: String::new() };
    }
    Failure::new(what)
}

fn print_report(arguments: &Arguments, report: &Report, key: &VerifyingKey) -> Result<(), Failure> {
    if arguments.json {
        let report = json!({
            "holds": true,
            "origin": key.name(),
            "records": report.records,
            "segments": report.segments,
            "last_seq": report.last_seq,
            "checkpoints": report.checkpoints,
            "unsigned": report.unsigned,
            "unanswered": report.unanswered,
            "removed": report.removed,
            "uncounted_bytes": report.uncounted_bytes,
        });
        return cli::print(&report.to_string());
    }
    let mut text = format!(
        "the record holds: {} records in {} segments, signed by {} at {} checkpoints",
        report.records,
        report.segments,
        key.name(),
        report.checkpoints
    );
    for (count, what) in [
        (report.unsigned, "at the end, under no checkpoint yet"),
        (report.unanswered, "intents without a result"),
        (report.removed, "removed before them, on record"),
        (report.uncounted_bytes, "bytes behind what counts of failed segments, which are no records"),
    ] {
        if count > 0 {
            text.push_str(&format!("\n  {count} {what}"));
        }
    }
    cli::print(&text)
}

fn print_proved(arguments: &Arguments, proved: &Proved) -> Result<(), Failure> {
    let text = match (proved, arguments.json) {
        (Proved::Record { line, index, checkpoint }, true) => {
            json!({ "holds": true, "leaf": index, "size": checkpoint.size, "record": line }).to_string()
        }
        (Proved::Continued { old, new }, true) => {
            json!({ "holds": true, "old": old.size, "new": new.size }).to_string()
        }
        (Proved::Record { line, index, checkpoint }, false) => format!(
            "this record is leaf {index} of the {} that {} signed:\n{}",
            checkpoint.size,
            checkpoint.origin,
            super::plain(line)
        ),
        (Proved::Continued { old, new }, false) => {
            format!("the {} records of {} begin with the {} that it signed before", new.size, new.origin, old.size)
        }
    };
    cli::print(&text)
}
