//! Which agents does a caller say it is?
//!
//! `User-Agent` and `clientInfo` are the caller's own words: it can leave them out, or take another's. So they only ever deny:
//! nothing here is asked by what grants. Without a rule that speaks of reports nothing of this is looked at.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::known_agent;
use crate::config::model::Config;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::config::workspaces::bare;
use crate::config::workspaces::split;
use crate::policy::hash::NameMap;
use crate::policy::names::Glob;
use crate::policy::rules::AgentRules;
use crate::principal::Report;

/// Patterns of reports in one configuration: each is tried with every decision.
pub(super) const REPORT_PATTERNS_MAX: usize = 1_000;
/// Bytes of one pattern.
pub(super) const REPORT_PATTERN_BYTES_MAX: usize = 128;
/// Bytes of a report that are looked at.
pub(super) const REPORT_BYTES_MAX: usize = 512;
/// Agents with rules for one server that one report may fit. What fits more is kept out.
pub(super) const REPORTED_AGENTS_MAX: usize = 4;

/// What a bridge adds to the name of the client behind it.
const BRIDGE: &str = " (via mcp-remote ";

/// The agents that are known by their own report.
#[derive(Default)]
pub(super) struct Reports(Vec<Reported>);

/// One of them.
pub(super) struct Reported {
    pub(super) name: Box<str>,
    /// Its tables; `None`: it is not configured, or not to be known by a report.
    pub(super) rules: Option<Arc<AgentRules>>,
    patterns: Vec<Pattern>,
}

enum Pattern {
    Whole(Box<str>),
    Glob(Glob),
}

impl Pattern {
    fn new(text: &str) -> Self {
        if text.contains('*') { Self::Glob(Glob::new(text)) } else { Self::Whole(text.into()) }
    }

    fn fits(&self, text: &str) -> bool {
        match self {
            Self::Whole(whole) => **whole == *text,
            Self::Glob(glob) => glob.matches(text),
        }
    }
}

impl Reports {
    /// The agents that rules speak of: those with `reported_as`, and those that servers block. An agent is known by what the table
    /// of known agents says of its name, and by its own `reported_as` beside it: to add a pattern lifts no block.
    pub(super) fn compile(
        config: &Config,
        agents: &NameMap<Box<str>, Arc<AgentRules>>,
        problems: &mut Problems,
    ) -> Self {
        let blocked = config.servers.values().flat_map(|server| &server.blocked_agents);
        let mut heeded: BTreeSet<&str> = blocked.map(String::as_str).collect();
        heeded.extend(config.agents.iter().filter(|(_, agent)| !agent.reported_as.is_empty()).map(|(name, _)| &**name));
        let mut reports = Vec::new();
        let mut count = 0;
        for name in heeded {
            let own = config.agents.get(name).map(|agent| agent.reported_as.as_slice()).unwrap_or_default();
            let at = At::entry("agents", name).key("reported_as");
            let mut patterns = table(bare(name));
            patterns.extend(written(own, &at, problems));
            count += patterns.len();
            if count > REPORT_PATTERNS_MAX {
                let help = "`*` stands for any text: `my-agent/*`";
                let message = format!("more than {REPORT_PATTERNS_MAX} patterns of reports in all");
                problems.error(&at, message, help);
                break;
            }
            let rules = agents.get(name).filter(|_| !own.is_empty()).cloned();
            let patterns = patterns.iter().map(|pattern| Pattern::new(pattern)).collect();
            reports.push(Reported { name: name.into(), rules, patterns });
        }
        Self(reports)
    }

    /// Whether no rule speaks of reports.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The agents of a workspace, `None` for `default`, that a caller says it is, in the order of their names.
    pub(super) fn of(&self, workspace: Option<&str>, report: Report<'_>) -> Vec<&Reported> {
        if self.0.is_empty() || report == Report::default() {
            return Vec::new();
        }
        let client = report.client.map(|client| comparable(client.as_bytes()));
        let client = client.as_deref().map(without_bridge);
        let user_agent = report.user_agent.map(comparable);
        let fits = |text: Option<&str>, pattern: &Pattern| text.is_some_and(|text| pattern.fits(text));
        let is_it = |agent: &&Reported| {
            let mut patterns = agent.patterns.iter().filter(|_| split(&agent.name).0 == workspace);
            patterns.any(|pattern| fits(client, pattern) || fits(user_agent.as_deref(), pattern))
        };
        self.0.iter().filter(is_it).collect()
    }
}

/// What the table of known agents has for a name.
fn table(name: &str) -> Vec<String> {
    known_agent(name).map(|known| known.reported_as).unwrap_or_default().iter().map(ToString::to_string).collect()
}

/// What an operator wrote; a known agent's name stands for all it is known by, too.
fn written(own: &[String], at: &At, problems: &mut Problems) -> Vec<String> {
    let mut patterns = Vec::new();
    for (index, text) in own.iter().enumerate() {
        let says_something = text.chars().any(|letter| letter != '*' && !letter.is_whitespace());
        if !says_something || text.len() > REPORT_PATTERN_BYTES_MAX || text.trim() != text {
            let help =
                "write what the client sends as `clientInfo.name` or `User-Agent`, at most 128 bytes: `my-agent/*`";
            problems.error(&at.index(index), format!("`{text}` is nothing that an agent reports itself as"), help);
            continue;
        }
        let text = text.to_ascii_lowercase();
        patterns.extend(table(&text));
        patterns.push(text);
    }
    patterns
}

fn comparable(text: &[u8]) -> String {
    let text = text.get(..REPORT_BYTES_MAX).unwrap_or(text);
    String::from_utf8_lossy(text).trim().to_ascii_lowercase()
}

fn without_bridge(client: &str) -> &str {
    client.split_once(BRIDGE).map_or(client, |(client, _)| client)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Agent;
    use crate::config::model::Server;

    fn compile(config: &Config) -> (Reports, usize) {
        let mut problems = Problems::new();
        let reports = Reports::compile(config, &NameMap::default(), &mut problems);
        (reports, problems.iter().count())
    }

    fn names(reports: &Reports, user_agent: Option<&str>, client: Option<&str>) -> Vec<String> {
        let report = Report { user_agent: user_agent.map(str::as_bytes), client };
        reports.of(None, report).iter().map(|agent| agent.name.to_string()).collect()
    }

    fn config() -> Config {
        let mut config = Config::default();
        let blocked_agents = ["claude-code", "cursor"].map(String::from).to_vec();
        config.servers.insert("a".into(), Server { blocked_agents, ..Server::default() });
        let reported_as = ["My-Agent/*", "gemini-cli"].map(String::from).to_vec();
        config.agents.insert("own".into(), Agent { reported_as, ..Agent::default() });
        config.agents.insert("zed".into(), Agent::default());
        config
    }

    #[test]
    fn a_pattern_of_its_own_lifts_nothing_of_what_a_known_agent_is_known_by() {
        let mut config = config();
        config.agents.insert("cursor".into(), Agent { reported_as: vec!["acme-cursor/*".into()], ..Agent::default() });
        let (reports, problems) = compile(&config);
        assert_eq!(problems, 0);
        for said in ["Cursor", "cursor-vscode", "acme-cursor/2"] {
            assert_eq!(names(&reports, Some(said), None), ["cursor"], "{said}");
        }
        assert_eq!(names(&reports, Some("acme-zed"), None), [""; 0]);
    }

    #[test]
    fn agents_are_known_by_what_they_report_whole_and_in_any_case() {
        let (reports, problems) = compile(&config());
        assert_eq!(problems, 0);
        for (user_agent, client, expected) in [
            (Some("claude-code/2.1.204 (cli)"), None, &["claude-code"][..]),
            (None, Some("Claude-Code"), &["claude-code"]),
            (None, Some("cursor-vscode (via mcp-remote 0.1.37)"), &["cursor"]),
            (Some("claude-code/2.1"), Some("Cursor"), &["claude-code", "cursor"]),
            (Some("my-AGENT/1.0"), None, &["own"]),
            (Some("node"), Some("gemini-cli-mcp-client"), &["own"]),
            (Some("not claude-code/2.1"), Some("precursor"), &[]),
            (None, Some("zed"), &[]),
            (Some(""), Some(""), &[]),
            (None, None, &[]),
        ] {
            assert_eq!(names(&reports, user_agent, client), expected, "{user_agent:?} {client:?}");
        }
        let long = format!("my-agent/{}", "x".repeat(REPORT_BYTES_MAX));
        assert_eq!(names(&reports, Some(&long), None), ["own"]);
    }

    #[test]
    fn without_a_rule_about_reports_nothing_is_known() {
        let mut config = config();
        config.servers.clear();
        config.agents.remove("own");
        assert!(compile(&config).0.is_empty());
    }

    #[test]
    fn patterns_say_something_and_have_limits() {
        let problems = |pattern: &str| {
            let mut config = Config::default();
            config.agents.insert("a".into(), Agent { reported_as: vec![pattern.into()], ..Agent::default() });
            compile(&config).1
        };
        for bad in ["", "*", "**", " a", "* *", &"a".repeat(REPORT_PATTERN_BYTES_MAX + 1)] {
            assert_eq!(problems(bad), 1, "{bad}");
        }
        assert_eq!(problems(&"a".repeat(REPORT_PATTERN_BYTES_MAX)), 0);
        let many = |count: usize| {
            let mut config = Config::default();
            let reported_as = (0..count).map(|index| format!("agent-{index}")).collect();
            config.agents.insert("a".into(), Agent { reported_as, ..Agent::default() });
            compile(&config).1
        };
        assert_eq!((many(REPORT_PATTERNS_MAX), many(REPORT_PATTERNS_MAX + 1)), (0, 1));
    }
}
