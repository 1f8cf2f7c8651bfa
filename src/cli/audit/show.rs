//! `portcullis audit show`: what became of a call?

use std::path::Path;
use std::path::PathBuf;

use serde_json::Value;

use crate::audit::evidence;
use crate::audit::evidence::Place;
use crate::audit::evidence::Reader;
use crate::cli;

use super::Failure;
use super::export::COLUMNS;

/// The record to show.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The audit directory, or a copy of it.
    directory: PathBuf,
    /// Number of the record; of a call, its intent's or its result's.
    seq: u64,
}

/// Shows it, and what belongs to it.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let directory = &arguments.directory;
    let place =
        find(directory, arguments.seq)?.ok_or_else(|| Failure::new(format!("there is no record {}", arguments.seq)))?;
    let record = parse(&place.line)?;
    let texts = match (record.get("kind").and_then(Value::as_str), record.get("intent").and_then(Value::as_u64)) {
        (Some("intent"), _) => match result_of(directory, &place, arguments.seq)? {
            Some(result) => vec![text(&record), text(&result)],
            None => {
                vec![text(&record), "no result is on record: the gateway was killed, or the call is under way".into()]
            }
        },
        (_, Some(intent)) => match find(directory, intent)? {
            Some(intent) => vec![text(&parse(&intent.line)?), text(&record)],
            None => vec!["its intent was removed, or lost".into(), text(&record)],
        },
        _ => vec![text(&record)],
    };
    cli::print(&texts.join("\n"))
}

fn find(directory: &Path, seq: u64) -> Result<Option<Place>, Failure> {
    evidence::find(directory, seq).map_err(Failure::new)
}

fn parse(line: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(line).map_err(Failure::new)
}

fn result_of(directory: &Path, intent: &Place, seq: u64) -> Result<Option<Value>, Failure> {
    let mut reader = Reader::after(directory, intent);
    let named = format!(",\"intent\":{seq},");
    while let Some(line) = reader.next_line().map_err(Failure::new)? {
        // Texts of others cannot have unescaped quotation marks in them.
        if memchr::memmem::find(&line, named.as_bytes()).is_some() {
            return parse(&line).map(Some);
        }
    }
    Ok(None)
}

fn text(record: &Value) -> String {
    let of = |name: &str| record.get(name).map(ToString::to_string).unwrap_or_default();
    let mut text = format!("record {}: {}", of("seq"), super::plain(of("kind").trim_matches('"')));
    // In the order in which it was written; what this version does not know comes last.
    let place = |name: &str| COLUMNS.iter().position(|column| *column == name).unwrap_or(COLUMNS.len());
    let mut fields: Vec<(&String, &Value)> = record.as_object().into_iter().flatten().collect();
    fields.sort_by_key(|(name, _)| place(name));
    for (name, value) in fields {
        if name != "seq" && name != "kind" {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text.push_str(&format!("\n  {:<16} {}", super::plain(name), super::plain(&value)));
        }
    }
    text
}
