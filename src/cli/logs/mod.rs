//! `portcullis logs`: which requests were there, what became of them, and who calls what?
//!
//! Asks the index beside the record. Where a gateway keeps it, that is asked as it is; elsewhere it is brought up to date first.

mod graph;
mod show;
mod when;

use std::io;
use std::io::IsTerminal as _;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use clap::ValueEnum;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;

use crate::audit::Ending;
use crate::search;
use crate::search::Cursor;
use crate::search::Decision;
use crate::search::Entry;
use crate::search::Filter;
use crate::search::Follow;
use crate::search::Index;
use crate::search::PAGE_ENTRIES_MAX;
use crate::search::Search;
use crate::search::SearchError;
use crate::search::Sources;
use crate::search::Step;

use super::Failure;

pub(super) use self::show::escaped;

/// How long the gateway's index is waited for, if it is behind the record.
const BEHIND_TIME_MAX: Duration = Duration::from_secs(2);
/// How long files are waited for that the gateway has to make anew.
const REMADE_TIME_MAX: Duration = Duration::from_secs(60);
/// From one look at the records to the next.
const PAUSE: Duration = Duration::from_millis(100);
/// After so long it is said that the index is being made.
const PATIENCE: Duration = Duration::from_secs(2);

/// What to look for, and where.
#[derive(Debug, clap::Args)]
#[group(id = "place", required = true, multiple = false, args = ["directory", "config"])]
pub(super) struct Arguments {
    /// A directory of records.
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    /// The configuration of the gateway whose records are meant.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    wanted: Wanted,
    /// At most so many, the newest.
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 50)]
    limit: usize,
    /// Only what is older than an entry: its `cursor`, as `--format json` prints it.
    #[arg(long, value_name = "CURSOR", value_parser = cursor)]
    before: Option<Cursor>,
    /// Go on printing requests as they end.
    #[arg(long, short, conflicts_with_all = ["until", "before", "graph", "count"])]
    follow: bool,
    /// Print who calls which servers and tools, by whole hours.
    #[arg(long, conflicts_with_all = ["server", "tool", "agent", "principal", "domain", "workspace", "decision", "outcome", "reason", "source", "before", "count"])]
    graph: bool,
    /// Print how many there are, up to 10,001.
    #[arg(long, conflicts_with = "before")]
    count: bool,
    /// How to print; `dot` is for `--graph`.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Make the index anew first.
    #[arg(long)]
    reindex: bool,
}

/// Which requests.
#[derive(Debug, clap::Args)]
struct Wanted {
    /// From then on: an age (`90s`, `15m`, `1h`, `7d`), a day (`2027-01-31`) or a time (`2027-01-31T12:00:00Z`), in UTC.
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    since: Option<u64>,
    /// Until then, in the same forms.
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    until: Option<u64>,
    /// To this server.
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// To this tool.
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// By this agent.
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// By this principal: `key:NAME`, `oauth:ISSUER:SUBJECT` or `public`.
    #[arg(long, value_name = "ID")]
    principal: Option<String>,
    /// By users of this domain, the part behind the `@`.
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// In this workspace.
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// Let through, or refused by the gateway.
    #[arg(long, value_parser = decisions())]
    decision: Option<Decision>,
    /// How it ended; `open` if nothing says so.
    #[arg(long, value_parser = outcomes())]
    outcome: Option<String>,
    /// Why it was let through or refused, or what went wrong.
    #[arg(long, value_name = "WORD")]
    reason: Option<String>,
    /// From this address or network: `192.0.2.7`, `10.0.0.0/8`.
    #[arg(long, value_name = "ADDRESS", value_parser = Sources::parse)]
    source: Option<Sources>,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
    /// The graph in Graphviz's language.
    Dot,
}

fn decisions() -> impl clap::builder::TypedValueParser<Value = Decision> {
    PossibleValuesParser::new(Decision::ALL.map(Decision::name))
        .map(|name| if name == Decision::Refused.name() { Decision::Refused } else { Decision::Allowed })
}

fn outcomes() -> PossibleValuesParser {
    PossibleValuesParser::new(Ending::ALL.map(Ending::name).into_iter().chain([search::OPEN]))
}

fn cursor(text: &str) -> Result<Cursor, String> {
    Cursor::parse(text).ok_or_else(|| "write the `cursor` of an entry, as `--format json` prints it".into())
}

impl Wanted {
    fn filter(&self) -> Filter {
        Filter {
            since_micros: self.since,
            until_micros: self.until,
            server: self.server.clone(),
            tool: self.tool.clone(),
            agent: self.agent.clone(),
            principal: self.principal.clone(),
            domain: self.domain.as_deref().map(|domain| domain.trim_start_matches('@').to_ascii_lowercase()),
            workspace: self.workspace.clone(),
            decision: self.decision,
            outcome: self.outcome.clone(),
            reason: self.reason.clone(),
            source: self.source.clone(),
        }
    }
}

/// Prints what is asked for.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.format == Format::Dot && !arguments.graph {
        return Err(Failure { code: 2, message: "error: `--format dot` is for `--graph`".into() });
    }
    let records = records(arguments)?;
    match answer(arguments, &records) {
        Err(Stopped::Search(SearchError::Damaged { path })) => {
            eprintln!("note: `{}` is damaged: it is made anew", path.display());
            search::discard(&path).map_err(Failure::new)?;
            answer(arguments, &records)
        }
        answered => answered,
    }
    .or_else(|stopped| match stopped {
        Stopped::ReaderLeft => Ok(()),
        Stopped::Search(SearchError::Damaged { path }) => Err(Failure::new(format!(
            "the index of the running gateway is damaged: `{}`; it is made anew within half a minute",
            path.display()
        ))),
        Stopped::Search(error) => Err(Failure::new(error)),
        Stopped::Output(error) => Err(Failure::new(error)),
    })
}

/// Why printing ends early.
enum Stopped {
    /// Nobody reads any more, which is no failure.
    ReaderLeft,
    Search(SearchError),
    Output(io::Error),
}

impl From<SearchError> for Stopped {
    fn from(error: SearchError) -> Self {
        Self::Search(error)
    }
}

fn records(arguments: &Arguments) -> Result<PathBuf, Failure> {
    let records = match (&arguments.directory, &arguments.config) {
        (Some(directory), _) => directory.clone(),
        (None, Some(config)) => {
            PathBuf::from(crate::config::load(config).map_err(Failure::config)?.config.audit.directory)
        }
        (None, None) => return Err(Failure::new("name a directory of records, or a configuration")),
    };
    match records.read_dir() {
        Ok(_) => Ok(records),
        Err(error) => Err(Failure::new(format!("the records in `{}` cannot be read: {error}", records.display()))),
    }
}

fn answer(arguments: &Arguments, records: &Path) -> Result<(), Stopped> {
    let search = Search::of(records);
    bring_up_to_date(arguments, records, &search)?;
    let filter = arguments.wanted.filter();
    if arguments.graph {
        let graph = search.graph(filter.since_micros, filter.until_micros)?;
        return print(&match arguments.format {
            Format::Text => graph::text(&graph),
            Format::Json => graph::json(&graph),
            Format::Dot => graph::dot(&graph),
        });
    }
    if arguments.count {
        return print(&show::count(search.count(&filter)?, arguments.format == Format::Json));
    }
    let follow = if arguments.follow { Some(Follow::behind_index(records)?) } else { None };
    let mut entries = newest(&search, &filter, arguments)?;
    if let Some(follow) = &follow {
        // What has not ended, or only since, is told when its result comes by.
        let last = follow.last_seq();
        entries.retain(|entry| {
            entry.ended.as_ref().map_or(!entry.is_open(), |ended| ended.seq <= last) && entry.seq <= last
        });
    }
    if arguments.format == Format::Text && io::stdout().is_terminal() {
        print(&show::head())?;
    }
    for entry in entries.iter().rev() {
        print(&shown(entry, arguments.format))?;
    }
    let Some(mut follow) = follow else { return Ok(()) };
    loop {
        let entries = follow.step()?;
        for entry in entries.iter().filter(|entry| filter.matches(entry)) {
            print(&shown(entry, arguments.format))?;
        }
        if entries.is_empty() {
            thread::sleep(PAUSE);
        }
    }
}

/// The newest entries, newest first, page by page.
fn newest(search: &Search, filter: &Filter, arguments: &Arguments) -> Result<Vec<Entry>, SearchError> {
    let (mut entries, mut behind) = (Vec::new(), arguments.before);
    while entries.len() < arguments.limit {
        let page = search.page(filter, behind, (arguments.limit - entries.len()).min(PAGE_ENTRIES_MAX))?;
        entries.extend(page.entries);
        behind = page.next;
        if behind.is_none() {
            break;
        }
    }
    Ok(entries)
}

fn shown(entry: &Entry, format: Format) -> String {
    if format == Format::Json { show::json(entry) } else { show::text(entry) }
}

/// Reads into the index what came since, unless a running gateway does that.
fn bring_up_to_date(arguments: &Arguments, records: &Path, search: &Search) -> Result<(), SearchError> {
    let mut index = match Index::keep(records) {
        Ok(index) => index,
        Err(SearchError::Kept) if arguments.reindex => {
            search.discard_days()?;
            return wait(search);
        }
        Err(SearchError::Kept) => return wait(search),
        Err(error @ SearchError::NoRoom { .. }) => {
            eprintln!("note: {error}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if arguments.reindex {
        index.clear()?;
    }
    let (begun, mut is_told) = (Instant::now(), false);
    while index.step()? != Step::UpToDate {
        if !is_told && begun.elapsed() > PATIENCE {
            eprintln!("note: the index is made from the records; this is done once");
            is_told = true;
        }
    }
    Ok(())
}

/// What was called a moment ago is to be found. Where files are missing, the answer would be that of another record: it is waited for
/// until the gateway has noticed and made them anew.
fn wait(search: &Search) -> Result<(), SearchError> {
    let (begun, mut is_lacking) = (Instant::now(), false);
    loop {
        // In this order: as soon as the gateway has noticed, the index is behind.
        let lacks_files = search.lacks_files()?;
        let behind = search.behind()?;
        if behind == 0 && !lacks_files {
            return Ok(());
        }
        if lacks_files && !is_lacking {
            eprintln!("note: files of the index are missing: the running gateway makes them anew");
            is_lacking = true;
        }
        match is_lacking {
            true if begun.elapsed() > REMADE_TIME_MAX => return Err(SearchError::Remade { behind }),
            false if begun.elapsed() > BEHIND_TIME_MAX => {
                eprintln!("note: the index is {behind} records behind");
                return Ok(());
            }
            _ => thread::sleep(PAUSE),
        }
    }
}

fn print(text: &str) -> Result<(), Stopped> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Stopped::ReaderLeft),
        written => written.map_err(Stopped::Output),
    }
}
