//! `portcullis audit export`: records for other programs.

use std::io;
use std::io::Write;
use std::path::PathBuf;

use serde_json::Value;

use crate::audit::evidence::Reader;

use super::Failure;
use super::filter::Filter;

/// The columns of CSV: the fields of docs/audit.md, in its order.
pub(super) const COLUMNS: &[&str] = &[
    "seq",
    "prev",
    "kind",
    "time",
    "intent",
    "outcome",
    "cause",
    "error",
    "segment",
    "segment_bytes",
    "cut_bytes",
    "lost_intents",
    "lost_results",
    "lost_refusals",
    "unavailable_us",
    "unsigned",
    "last_seq",
    "leaves",
    "removed_bytes",
    "source",
    "source_port",
    "via",
    "scheme",
    "tls",
    "client_cert_subject",
    "client_cert_names",
    "client_cert_sha256",
    "http_method",
    "path",
    "query",
    "user_agent",
    "rpc_method",
    "revision",
    "era",
    "transport",
    "session",
    "workspace",
    "principal",
    "credential",
    "user",
    "teams",
    "organisation",
    "agent",
    "chain",
    "reported_agent",
    "server",
    "tool",
    "resource",
    "prompt",
    "asked_agent",
    "asked_servers",
    "asked_tools",
    "snapshot",
    "shadow_decision",
    "shadow_reason",
    "shadow_rule",
    "source_prefix",
    "decision",
    "reason",
    "rule",
    "limit_of",
    "count",
    "since",
    "status",
    "endpoint",
    "attempts",
    "sent_sha256",
    "sent_bytes",
    "minted",
    "minted_until",
    "minted_servers",
    "minted_tools",
    "received_sha256",
    "received_bytes",
    "cost",
    "phases_us",
];

/// The records to print.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The audit directory, or a copy of it.
    directory: PathBuf,
    /// The form.
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    #[command(flatten)]
    filter: Filter,
}

/// A form of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The lines as they stand.
    Jsonl,
    /// A column for each field; lists and objects as JSON. No cell is taken for a formula.
    Csv,
}

/// Prints them.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut output = io::BufWriter::with_capacity(256 * 1024, io::stdout().lock());
    match write(arguments, &mut output) {
        Ok(()) => Ok(()),
        Err(failure) => failure,
    }
}

fn write(arguments: &Arguments, output: &mut impl Write) -> Result<(), Result<(), Failure>> {
    // A reader that left is no failure.
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Failure::new(error)),
    };
    let mut wanted = arguments.filter.wanted().map_err(Err)?;
    if arguments.format == Format::Csv {
        writeln!(output, "{}", COLUMNS.join(",")).map_err(gone)?;
    }
    let mut reader = Reader::from_start(&arguments.directory);
    while let Some(line) = reader.next_line().map_err(|error| Err(Failure::new(error)))? {
        if let Some(record) = wanted.take(&line) {
            match arguments.format {
                Format::Jsonl => output.write_all(&line).map_err(gone)?,
                Format::Csv => output.write_all(row(&record).as_bytes()).map_err(gone)?,
            }
            output.write_all(b"\n").map_err(gone)?;
        }
    }
    output.flush().map_err(gone)
}

fn row(record: &Value) -> String {
    COLUMNS.iter().map(|column| record.get(*column).map(cell).unwrap_or_default()).collect::<Vec<String>>().join(",")
}

/// A cell: on one line, in quotation marks where it needs them, and with an apostrophe before it where a program could take it for a
/// formula.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::String(text) => super::plain(text),
        Value::Number(number) => return number.to_string(),
        other => super::plain(&other.to_string()),
    };
    let is_formula = text.trim_start().starts_with(['=', '+', '-', '@']);
    let text = if is_formula { format!("'{text}") } else { text };
    if text.contains([',', '"', '\'', ' ']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_or_more_than_one() {
        for (text, written) in [
            ("=1+1", "\"'=1+1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            (" -2", "\"' -2\""),
            ("+cmd|' /C calc'!A0", "\"'+cmd|' /C calc'!A0\""),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("a\nb\t\u{202e}", "a\\u{a}b\\u{9}\\u{202e}"),
            ("\t=1", "\\u{9}=1"),
            ("github", "github"),
        ] {
            assert_eq!(cell(&Value::String(text.into())), written, "{text:?}");
        }
        assert_eq!(cell(&serde_json::json!(7)), "7");
        assert_eq!(cell(&serde_json::json!(["a", "b"])), "\"[\"\"a\"\",\"\"b\"\"]\"");
    }

    #[test]
    fn every_documented_field_has_its_column() {
        let text = include_str!("../../../docs/audit.md");
        let table = text.split_once("## Fields").unwrap().1.split_once("\n## ").unwrap().0;
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        assert_eq!(rows.map(|(name, _)| name).collect::<Vec<&str>>(), COLUMNS);
    }
}
