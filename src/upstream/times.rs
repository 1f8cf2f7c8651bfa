//! How long may a call take?
//!
//! A server's times, and those of the tools that have their own. A JSON answer must have ended in `timeout`; an answer
//! by a stream must have begun by then, may be silent for `silence`, and ends at `timeout_max` whatever it says.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::model::Server;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::upstream::plan::WAIT_MS_MAX;

/// Ceiling of a call's time, where neither `timeout_max_ms` nor a longer `timeout_ms` is configured.
const TIMEOUT_MAX_MS: u64 = 60 * 60 * 1_000;

/// The times of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// From sending to the answer's head, or to the end of a JSON answer.
    pub timeout: Duration,
    /// Longest silence on an answering event stream.
    pub silence: Duration,
    /// Whether only messages end a silence, or whatever the server sends.
    pub is_reset_by_messages: bool,
    /// From sending to the end of the answer, however much comes in between.
    pub timeout_max: Duration,
}

/// The times of a server's calls.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Timeouts {
    any: Times,
    tools: BTreeMap<Box<str>, Times>,
}

impl Timeouts {
    /// Reads the times of a server, reporting every mistake.
    pub(crate) fn compile(server: &Server, at: &At, problems: &mut Problems) -> Self {
        let timeout = wait("timeout_ms", server.timeout_ms, at, problems);
        let silence = wait("sse_read_timeout_ms", server.sse_read_timeout_ms, at, problems);
        let default_max = Duration::from_millis(TIMEOUT_MAX_MS).max(timeout);
        let timeout_max = ceiling(server.timeout_max_ms, timeout, default_max, at, problems);
        let any = Times { timeout, silence, is_reset_by_messages: false, timeout_max };
        let at = at.key("tools");
        let tools = server.tools.iter().map(|(name, tool)| {
            let at = at.key(name);
            let own = tool.timeout_ms.map(|timeout_ms| wait("timeout_ms", timeout_ms, &at, problems));
            let timeout = own.unwrap_or(any.timeout);
            let timeout_max = ceiling(tool.timeout_max_ms, timeout, any.timeout_max.max(timeout), &at, problems);
            let silence = own.unwrap_or(any.silence);
            (name.as_str().into(), Times { timeout, silence, is_reset_by_messages: own.is_some(), timeout_max })
        });
        Self { any, tools: tools.collect() }
    }

    /// The times of a call of this tool, or of what calls none.
    pub(crate) fn of(&self, tool: Option<&str>) -> Times {
        let own = tool.filter(|_| !self.tools.is_empty()).and_then(|tool| self.tools.get(tool));
        own.copied().unwrap_or(self.any)
    }
}

/// A configured wait.
pub(crate) fn wait(key: &str, value_ms: u64, at: &At, problems: &mut Problems) -> Duration {
    if value_ms == 0 || value_ms > WAIT_MS_MAX {
        let help = format!("write milliseconds between 1 and {WAIT_MS_MAX}");
        problems.error(&at.key(key), format!("a wait of {value_ms} ms"), help);
    }
    Duration::from_millis(value_ms.min(WAIT_MS_MAX))
}

fn ceiling(
    configured_ms: Option<u64>,
    timeout: Duration,
    default: Duration,
    at: &At,
    problems: &mut Problems,
) -> Duration {
    let Some(value_ms) = configured_ms else { return default };
    let value = wait("timeout_max_ms", value_ms, at, problems);
    if value < timeout {
        let help = format!("it bounds what progress adds to `timeout_ms`: write at least {}", timeout.as_millis());
        problems.error(&at.key("timeout_max_ms"), "`timeout_max_ms` is less than `timeout_ms`", help);
    }
    value
}
