//! `portcullis audit tail`: what happened last, and what happens now?

use std::io;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::audit::evidence::Reader;

use super::Failure;
use super::filter::Filter;

/// From one look for new records to the next.
const PAUSE: Duration = Duration::from_millis(200);

/// The records to print.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The audit directory, or a copy of it.
    directory: PathBuf,
    /// How many of those that are there.
    #[arg(short = 'n', long, default_value_t = 20)]
    lines: usize,
    /// Go on with those that come.
    #[arg(short, long)]
    follow: bool,
    /// Print the records as they stand.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: Filter,
}

/// Prints them.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut wanted = arguments.filter.wanted()?;
    let mut take =
        |line: &[u8]| wanted.take(line).map(|record| if arguments.json { stands(line) } else { summary(&record) });
    let found = Reader::last(&arguments.directory, arguments.lines, |line| take(line).is_some());
    let (last, mut reader) = found.map_err(Failure::new)?;
    for line in last {
        let text = if arguments.json {
            Some(stands(&line))
        } else {
            serde_json::from_slice(&line).ok().map(|record| summary(&record))
        };
        if !put(text)? {
            return Ok(());
        }
    }
    if !arguments.follow {
        return Ok(());
    }
    loop {
        while let Some(line) = reader.next_line().map_err(Failure::new)? {
            if !put(take(&line))? {
                return Ok(());
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// Prints a line at once; whether anybody reads on.
fn put(text: Option<String>) -> Result<bool, Failure> {
    let Some(text) = text else { return Ok(true) };
    let mut output = io::stdout().lock();
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(error)),
    }
}

/// A canonical line is ASCII; whatever else stands there is escaped.
fn stands(line: &[u8]) -> String {
    super::plain(&String::from_utf8_lossy(line))
}

/// One line that says the most of a record.
fn summary(record: &Value) -> String {
    let of = |name: &str| match record.get(name) {
        Some(Value::String(text)) => super::plain(text),
        Some(other) => super::plain(&other.to_string()),
        None => String::new(),
    };
    let what = [of("tool"), of("resource"), of("prompt"), of("rpc_method")].into_iter().find(|what| !what.is_empty());
    let server = of("server");
    let target = match what {
        Some(what) if server.is_empty() => what,
        Some(what) => format!("{server}/{what}"),
        None => server,
    };
    let intent = of("intent");
    let parts = [
        of("time"),
        of("seq"),
        of("kind"),
        if intent.is_empty() { intent } else { format!("of {intent}") },
        of("principal"),
        target,
        of("decision"),
        of("outcome"),
        of("cause"),
        of("reason"),
        of("count"),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<String>>().join(" ")
}
