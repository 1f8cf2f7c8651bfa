//! Does what a caller says of itself ever grant anything?
//!
//! Random configurations in which agents are known by reports, blocked, turned off and restricted; random callers; and reports of
//! every kind, those of known agents among them. With a report nothing is permitted that is refused without it, and what is
//! listed is what is callable either way.

use portcullis::config::model::AgentServer;
use portcullis::config::model::Config;
use portcullis::config::problem::Problems;
use portcullis::policy::Policy;
use portcullis::principal::Report;

use crate::reference_cascade::ENTRIES;
use crate::reference_cascade::Maker;
use crate::reference_cascade::NAMES;
use crate::reference_cascade::SERVERS;
use crate::reference_cascade::decide_reported;
use crate::support::random::Random;

/// Cases in `make test`; `CASCADE_CASES` asks for more.
const CASES: usize = 100_000;
const CALLS_PER_CONFIG: usize = 80;

const PATTERNS: [&str; 6] = ["one", "t*", "cursor", "*e", "claude-code/*", "three"];
const BLOCKED: [&str; 5] = ["one", "two", "three", "cursor", "claude-code"];
const USER_AGENTS: [&str; 6] = ["claude-code/2.1 (cli)", "one", "two", "node", "curl/8", ""];
const CLIENTS: [&str; 6] = ["cursor-vscode", "Cursor (via mcp-remote 0.1)", "three", "TWO", "nobody", ""];

/// Has rules of every kind speak of reports.
fn restrict(random: &mut Maker, config: &mut Config) {
    for name in NAMES {
        let (reported_as, disabled) = (random.some(&PATTERNS, 2), random.below(10) == 0);
        let mut servers = Vec::new();
        for _ in 0..random.below(3) {
            let allowed_tools = (random.below(2) == 0).then(|| random.some(&ENTRIES, 2));
            let rules =
                AgentServer { allowed_tools, blocked_tools: random.some(&ENTRIES, 2), ..AgentServer::default() };
            servers.push((random.of(&SERVERS).to_owned(), rules));
        }
        let agent = config.agents.get_mut(name).unwrap();
        (agent.reported_as, agent.disabled) = (reported_as, disabled);
        agent.servers.extend(servers);
    }
    for server in config.servers.values_mut() {
        if random.below(4) == 0 {
            server.blocked_agents = random.some(&BLOCKED, 2);
        }
    }
}

#[test]
fn a_report_never_turns_a_denial_into_a_permission() {
    let cases = std::env::var("CASCADE_CASES").map_or(CASES, |text| text.parse().unwrap());
    let mut random = Maker(Random(0x2545_f491_4f6c_dd1d));
    let (mut compared, mut permitted, mut withdrawn) = (0, 0, 0);
    while compared < cases {
        let mut config = random.config();
        restrict(&mut random, &mut config);
        let mut problems = Problems::new();
        let policy = Policy::compile(&config, &mut problems);
        for _ in 0..CALLS_PER_CONFIG {
            let asked = random.asked();
            let user_agent = (random.below(3) > 0).then(|| random.of(&USER_AGENTS).as_bytes());
            let client = (random.below(3) > 0).then(|| random.of(&CLIENTS));
            let plain = decide_reported(&policy, &asked, Report::default());
            let reported = decide_reported(&policy, &asked, Report { user_agent, client });
            assert!(plain || !reported, "{asked:?} {user_agent:?} {client:?}\n{config:#?}");
            compared += 1;
            permitted += usize::from(reported);
            withdrawn += usize::from(plain && !reported);
        }
    }
    assert!(permitted > compared / 20 && withdrawn > compared / 50, "{compared} {permitted} {withdrawn}");
}
