//! Which configuration is in force, and does the gateway follow it?
//!
//! Every second or two another one is written and reloaded: patterns change, servers with health checks come and go, one
//! tool is permitted in every other revision. Some have mistakes and must change nothing. What clients saw of that tool is
//! compared with what was in force at that time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use crate::chance::Chance;
use crate::stand::Gateway;

/// Keys of `[listen]`.
pub(super) const LISTEN: &str = "body_timeout_ms = 5000\nwrite_timeout_ms = 5000\nheader_timeout_ms = 5000";
/// What the gateway logs of a configuration with a mistake.
const NOT_LOADED: &str = "the configuration has mistakes and was not loaded";
/// How long a reload may take to be in force.
const RELOAD_MAX: Duration = Duration::from_secs(10);
/// Servers that come and go, at most.
const PASSING_MAX: u64 = 6;

/// A change of the configuration.
#[derive(Debug, Clone, Copy)]
struct Change {
    began: Instant,
    in_force: Instant,
    permits: bool,
}

/// What one client saw of the tool that is not always permitted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) permitted: bool,
}

/// The configurations, one after the other.
#[derive(Debug)]
pub(super) struct Policy {
    steady: SocketAddr,
    flappy: SocketAddr,
    revision: u64,
    permits: bool,
    changes: Vec<Change>,
    /// Configurations that were taken up.
    pub(super) reloads: u64,
    /// Configurations with a mistake, which were not.
    pub(super) mistakes: u64,
    /// The longest time from asking for a reload to its being in force.
    pub(super) slowest: Duration,
}

impl Policy {
    /// Over these two upstreams.
    pub(super) fn new(steady: SocketAddr, flappy: SocketAddr) -> Self {
        Self {
            steady,
            flappy,
            revision: 0,
            permits: true,
            changes: Vec::new(),
            reloads: 0,
            mistakes: 0,
            slowest: Duration::ZERO,
        }
    }

    /// The configuration of this revision, with so many servers that come and go.
    pub(super) fn text(&self, digest: &str, passing: u64) -> String {
        let Self { steady, flappy, revision, .. } = self;
        let toggled = if self.permits { r#", "toggled""# } else { "" };
        let passing: String = (0..passing)
            .map(|number| {
                format!(
                    r#"
[servers.passing_{number}]
endpoints = [{{ url = "http://{steady}/mcp" }}, {{ url = "http://{flappy}/mcp" }}]
timeout_ms = {timeout}
health = {{ type = "tcp", interval_ms = 200 }}
"#,
                    timeout = 1_000 + revision % 3
                )
            })
            .collect();
        let matrix: String = ["steady", "flappy"]
            .map(|server| {
                format!(
                    r#"
[agents.analyst.servers.{server}]
allowed_tools = ["execute_query", "describe_table", "read_blob", "watch_table", "wait", "fail", "list_*"{toggled}]
argument_constraints.execute_query = [
  {{ arg = "sql", pattern = '^\s*SELECT ' }},
  {{ arg = "database", pattern = '^(production|staging|revision_{revision})$' }},
  {{ arg = "timeout_ms", pattern = '^[1-9][0-9]{{0,3}}$', description = "revision {revision}" }},
]
"#
                )
            })
            .concat();
        format!(
            r#"
[servers.steady]
url = "http://{steady}/mcp"
blocked_tools = ["drop_*", "truncate_*"]

[servers.flappy]
url = "http://{flappy}/mcp"
blocked_tools = ["drop_*", "truncate_*"]
timeout_ms = 2000
sse_read_timeout_ms = 2500
connect_timeout_ms = 1000
breaker = {{ open_ms = 100, open_ms_max = 500 }}
{passing}
[keys.load]
digest = "{digest}"
mcp_servers = ["steady", "flappy"]
agent = "analyst"
team = "revision-{revision}"

[teams.revision-{revision}]
{matrix}"#
        )
    }

    /// Reloads until `until`.
    pub(super) fn change(&mut self, gateway: &Gateway, until: Instant, chance: &mut Chance) -> io::Result<()> {
        loop {
            std::thread::sleep(Duration::from_millis(chance.between(500, 2_000)));
            if Instant::now() > until {
                // Nothing passing is left to be looked after.
                return self.reload(gateway, 0);
            }
            if chance.between(0, 4) == 0 {
                self.mistaken(gateway)?;
            } else {
                self.reload(gateway, chance.between(0, PASSING_MAX))?;
            }
        }
    }

    /// Writes the next configuration and waits until it is in force.
    fn reload(&mut self, gateway: &Gateway, passing: u64) -> io::Result<()> {
        let before = gateway.figure("portcullis_config_revision")?;
        self.revision += 1;
        self.permits = !self.permits;
        let began = Instant::now();
        gateway.reload(LISTEN, |digest| self.text(digest, passing))?;
        await_figure(gateway, "portcullis_config_revision", |found| found > before)?;
        let in_force = Instant::now();
        self.slowest = self.slowest.max(in_force - began);
        self.reloads += 1;
        self.changes.push(Change { began, in_force, permits: self.permits });
        Ok(())
    }

    /// Writes a configuration with a mistake and waits until the gateway says so.
    fn mistaken(&mut self, gateway: &Gateway) -> io::Result<()> {
        let before = gateway.figure("portcullis_config_revision")?;
        let told = gateway.logged(NOT_LOADED)?;
        gateway.reload(LISTEN, |digest| {
            format!("{}\n[servers.broken]\nurl = \"nowhere\"\nblocked_tools = 5\n", self.text(digest, 0))
        })?;
        // After another mistake the figure says so already, so this one is waited for in the log.
        until("a mistake was not told", || Ok(gateway.logged(NOT_LOADED)? > told))?;
        await_figure(gateway, "portcullis_config_last_reload_successful", |found| found == 0.0)?;
        self.mistakes += 1;
        if gateway.figure("portcullis_config_revision")? == before {
            return Ok(());
        }
        Err(io::Error::other("a configuration with a mistake was taken up"))
    }

    /// What clients saw that was in force at no moment of their request.
    pub(super) fn contradicted<'a>(&self, seen: &'a [Seen]) -> Vec<&'a Seen> {
        seen.iter().filter(|seen| !self.was_possible(seen)).collect()
    }

    fn was_possible(&self, seen: &Seen) -> bool {
        // The first configuration permits; each holds from when it may have been read to when the next is surely in force.
        let starts = std::iter::once((None, true)).chain(self.changes.iter().map(|c| (Some(c.began), c.permits)));
        let ends = self.changes.iter().map(|change| Some(change.in_force)).chain(std::iter::once(None));
        starts.zip(ends).any(|((start, permits), end)| {
            permits == seen.permitted
                && start.is_none_or(|start| start <= seen.ended)
                && end.is_none_or(|end| seen.began <= end)
        })
    }
}

fn await_figure(gateway: &Gateway, series: &str, is_reached: impl Fn(f64) -> bool) -> io::Result<()> {
    until(&format!("`{series}` did not change"), || Ok(is_reached(gateway.figure(series)?)))
}

/// Waits until it is true; `otherwise` says what did not happen.
fn until(otherwise: &str, is_true: impl Fn() -> io::Result<bool>) -> io::Result<()> {
    let began = Instant::now();
    while !is_true()? {
        if began.elapsed() > RELOAD_MAX {
            return Err(io::Error::other(format!("{otherwise} within {RELOAD_MAX:?} of a reload")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_force_at_no_moment_of_a_request_contradicts() {
        let start = Instant::now() + Duration::from_secs(60);
        let at = |ms: u64| start + Duration::from_millis(ms);
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut policy = Policy::new(address, address);
        policy.changes = vec![
            Change { began: at(100), in_force: at(150), permits: false },
            Change { began: at(300), in_force: at(350), permits: true },
        ];
        let seen = |began, ended, permitted| Seen { began: at(began), ended: at(ended), permitted };
        for (possible, seen) in [
            (true, seen(0, 50, true)),
            (false, seen(0, 50, false)),
            (true, seen(120, 130, true)),
            (true, seen(120, 130, false)),
            (false, seen(160, 290, true)),
            (true, seen(160, 310, true)),
            (true, seen(340, 400, false)),
            (false, seen(351, 400, false)),
        ] {
            assert_eq!(policy.was_possible(&seen), possible, "{seen:?}");
        }
    }
}
