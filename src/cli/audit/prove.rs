//! `portcullis audit prove`: a text that shows to somebody else that a record is in the log.

use std::path::PathBuf;

use crate::audit::evidence;
use crate::cli;

use super::Failure;

/// What to prove.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The audit directory, or a copy of it.
    directory: PathBuf,
    /// Number of the record.
    #[arg(required_unless_present = "continues", conflicts_with = "continues")]
    seq: Option<u64>,
    /// Instead of a record: prove that the newer checkpoint continues the one in this file.
    #[arg(long, value_name = "FILE")]
    continues: Option<PathBuf>,
    /// The checkpoint to prove it under; absent: the newest in the directory.
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
}

/// Prints the proof.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let newer = arguments.checkpoint.as_deref().map(super::note).transpose()?;
    let directory = &arguments.directory;
    let proof = match (&arguments.continues, arguments.seq) {
        (Some(older), _) => evidence::prove_continued(directory, &super::note(older)?, newer.as_deref()),
        (None, Some(seq)) => evidence::prove_record(directory, seq, newer.as_deref()),
        (None, None) => return Err(Failure { code: 2, message: "error: say which record".into() }),
    };
    cli::print(proof.map_err(Failure::new)?.trim_end_matches('\n'))
}
