//! What does the gateway tell its operator as it runs?
//!
//! Lines on standard error: text for people, JSON for machines. `RUST_LOG` chooses what is told (default `info`), with
//! one exception: the libraries below the gateway never tell more than warnings, for their details contain URIs and
//! the headers of upstreams. Only events are printed, so an event carries all it needs.

mod line;

#[cfg(test)]
mod tests;

use std::io::IsTerminal;

use tracing::Metadata;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::FilterExt;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::Filter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::model::LogFormat;
use crate::telemetry::logging::line::Fields;
use crate::telemetry::logging::line::Line;

/// Beginnings of the targets that are capped.
const CAPPED_PREFIXES: [&str; 4] = ["pingora", "hyper", "rustls", "tokio"];

/// Whole first segments of targets that are capped.
const CAPPED_ROOTS: [&str; 1] = ["h2"];

const DEFAULT_DIRECTIVES: &str = "info";

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("the log is set up already")]
pub struct LoggingError;

/// Sets up the log of this process: events of `tracing` and records of `log` go to standard error from here on.
///
/// To be called once, first thing. A `RUST_LOG` that cannot be read is told, and does as if it were absent.
pub fn init(format: LogFormat) -> Result<(), LoggingError> {
    let stderr_is_terminal = std::io::stderr().is_terminal();
    let colours = stderr_is_terminal && std::env::var_os("NO_COLOR").is_none();
    let line = match format {
        LogFormat::Json => Line::Json,
        LogFormat::Text => Line::Text { colours },
        LogFormat::Auto if stderr_is_terminal => Line::Text { colours },
        LogFormat::Auto => Line::Json,
    };
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let (filter, mistake) = match filter(&wanted) {
        Ok(filter) => (filter, None),
        Err(mistake) => (EnvFilter::new(DEFAULT_DIRECTIVES), Some(mistake)),
    };
    subscriber(line, filter, std::io::stderr).try_init().map_err(|_| LoggingError)?;
    if let Some(mistake) = mistake {
        tracing::warn!(rust_log = wanted, error = %mistake, "RUST_LOG cannot be read and is ignored");
    }
    Ok(())
}

fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(if directives.trim().is_empty() { DEFAULT_DIRECTIVES } else { directives })
}

fn subscriber<W>(line: Line, filter: EnvFilter, writer: W) -> impl Subscriber + for<'a> LookupSpan<'a>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer()
        .event_format(line)
        .fmt_fields(Fields)
        .with_writer(writer)
        // It would complain on standard error about standard error, and panic if that is closed.
        .log_internal_errors(false);
    // The cap is a second filter and no directive: the most specific directive would win over ours.
    tracing_subscriber::registry().with(layer.with_filter(filter.and(Cap)))
}

/// Lets nothing below a warning of the libraries pass.
struct Cap;

impl Cap {
    fn lets_pass(metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN || !is_capped(metadata.target())
    }
}

fn is_capped(target: &str) -> bool {
    let root = target.split("::").next().unwrap_or(target);
    CAPPED_ROOTS.contains(&root) || CAPPED_PREFIXES.iter().any(|prefix| root.starts_with(prefix))
}

impl<S> Filter<S> for Cap {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        Self::lets_pass(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Self::lets_pass(metadata) { Interest::always() } else { Interest::never() }
    }

    /// The cap says nothing about other targets; without a hint it would switch the other filter's hint off.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }
}
