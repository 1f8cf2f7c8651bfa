//! `portcullis audit`: what does the record say, and does it hold?
//!
//! All but `key` read a directory as it stands, a running gateway's or a copy, and change nothing.

mod export;
mod filter;
mod prove;
mod show;
mod tail;
mod verify;

use std::fs;
use std::path::Path;

use crate::audit::evidence::VerifyingKey;
use crate::server;

use super::ConfigFile;
use super::Failure;

/// Bytes of a checkpoint or a proof that is read from a file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What to do with the record.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Verify a directory, or a proof, with the public key alone.
    Verify(verify::Arguments),
    /// Print a proof that a record is in the log, or that one checkpoint continues another.
    Prove(prove::Arguments),
    /// Show a call: its intent and its result.
    Show(show::Arguments),
    /// Print the last records, and those that come.
    Tail(tail::Arguments),
    /// Print records as JSON lines or CSV.
    Export(export::Arguments),
    /// Print the public key of a configuration's gateway.
    Key(ConfigFile),
}

/// Does it.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Verify(arguments) => verify::run(arguments),
        Command::Prove(arguments) => prove::run(arguments),
        Command::Show(arguments) => show::run(arguments),
        Command::Tail(arguments) => tail::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Key(file) => key(&file.config),
    }
}

fn key(config: &Path) -> Result<(), Failure> {
    let loaded = crate::config::load(config).map_err(Failure::config)?;
    let key = server::audit_key(&loaded.config).map_err(|error| {
        Failure::new(format!(
            "the gateway has no key for checkpoints yet, or it cannot be read: {error} (help: start it once)"
        ))
    })?;
    super::print(&key.to_string())
}

/// A small file whole.
fn read(path: &Path) -> Result<String, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::new(format!("`{}` cannot be read: {why}", path.display()));
    let bytes = fs::metadata(path).map_err(|error| failed(&error))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(failed(&format!("it has {bytes} bytes, and {FILE_BYTES_MAX} are the limit")));
    }
    fs::read_to_string(path).map_err(|error| failed(&error))
}

/// The note in a file: the whole of it, or the last of several as the gateway writes them.
fn note(path: &Path) -> Result<String, Failure> {
    let text = read(path)?;
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let is_several = lines.iter().filter(|line| **line == "\n").count() > 1;
    let last = lines.len().saturating_sub(5);
    Ok(if is_several { lines.get(last..).unwrap_or_default().concat() } else { text })
}

/// A key as it is given: its text, or the file that holds it.
fn verifying_key(given: &str) -> Result<VerifyingKey, Failure> {
    if let Ok(key) = given.parse() {
        return Ok(key);
    }
    let text = read(Path::new(given))?;
    text.parse().map_err(|error| Failure::new(format!("`{given}`: {error}")))
}

/// A text of somebody else's for a terminal: what is not printable ASCII is escaped.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            ' '..='~' => plain.push(char),
            char => plain.extend(char.escape_unicode()),
        }
    }
    plain
}
