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
    /// A proof that `audit prove` printed.
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Verifies; exit code 1 if something is not as it should be.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let key = super::verifying_key(&arguments.key)?;
    if let Some(path) = &arguments.proof {
        let proved = evidence::check_proof(&super::read(path)?, &key)
            .map_err(|why| fault(arguments, &format!("`{}` proves nothing: {why}", path.display())))?;
        print_proved(arguments, &proved)?;
    }
    let Some(directory) = &arguments.directory else { return Ok(()) };
    let mut known = Vec::new();
    for path in &arguments.checkpoint {
        let checkpoint = key.open(&super::note(path)?);
        let checkpoint = checkpoint
            .map_err(|why| fault(arguments, &format!("the checkpoint in `{}` is not valid: {why}", path.display())))?;
        known.push(Known { file: path.clone(), checkpoint });
    }
    let report = evidence::verify(directory, &key, &known).map_err(|found| fault(arguments, &found.to_string()))?;
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
