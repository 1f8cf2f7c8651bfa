//! Screening a list of tools for one caller: reading the answer, asking the policy for each tool, cutting the rest.
//!
//! The parts the gateway screens with, in its order; what it does beside (sessions, tasks, the record) is in the guard's
//! whole requests.

use std::hint::black_box;
use std::rc::Rc;

use bytes::Bytes;
use portcullis::mcp::document::Limits;
use portcullis::mcp::lists;
use portcullis::mcp::lists::Filtered;
use portcullis::mcp::lists::ListKind;
use portcullis::mcp::message::Message;
use portcullis::policy::Policy;
use portcullis::principal::Subject;

use super::Case;
use super::rules;

const CONFIG: &str = r#"
[servers.tools]
url = "https://x.example/mcp"
blocked_tools = ["*_7"]
[keys.everything]
mcp_servers = ["tools"]
agent = "everything"
[keys.some]
mcp_servers = ["tools"]
agent = "some"
[agents.everything.servers.tools]
allowed_tools = ["search_*", "delete_*"]
[agents.some.servers.tools]
allowed_tools = ["search_*"]
"#;

/// Lists of 100 and 1,000 tools, of which the caller sees about all and half.
pub(crate) fn cases() -> Vec<Case> {
    let policy = Rc::new(rules::compile(CONFIG));
    let mut cases = Vec::new();
    for (tools, repeat) in [(100, 20), (1_000, 10)] {
        for (key, what) in [("everything", "all seen"), ("some", "half seen")] {
            cases.push(case(&format!("screen, {tools} tools, {what}"), repeat, &policy, key, list(tools)));
        }
    }
    cases
}

fn case(name: &str, repeat: u32, policy: &Rc<Policy>, key: &str, list: Bytes) -> Case {
    let (policy, principal) = (Rc::clone(policy), rules::principal(key));
    let limits = Limits::for_answers();
    Case::new(name, repeat, move || {
        let view = policy.view(Subject::of(&principal), "tools");
        let message = Message::read_from_server(list.clone(), &limits).unwrap();
        let filtered = lists::filter(&message, ListKind::Tools, |tool| view.lists(tool));
        assert!(matches!(black_box(filtered), Filtered::Changed(_)));
    })
}

/// The answer to `tools/list` with so many tools, each of about 300 bytes. Every tenth is blocked for all.
pub(crate) fn list(tools: usize) -> Bytes {
    let tools: Vec<String> = (0..tools)
        .map(|tool| {
            let verb = if tool / 10 % 2 == 0 { "search" } else { "delete" };
            format!(
                concat!(
                    r#"{{"name":"{}_{}_{}","title":"A tool","description":"Does what its name says to the rows of a table.","#,
                    r#""inputSchema":{{"type":"object","properties":{{"table":{{"type":"string","maxLength":64}},"#,
                    r#""limit":{{"type":"integer","minimum":1}}}},"required":["table"]}},"annotations":{{"readOnlyHint":false}}}}"#
                ),
                verb,
                tool,
                tool % 10
            )
        })
        .collect();
    format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{}]}}}}"#, tools.join(",")).into()
}
