//! Judging arguments, on top of the decision itself: short and long texts, nested values, refusals.

use std::rc::Rc;

use super::Case;
use super::decide::decided;
use super::rules;
use super::rules::Calls;

const CONFIG: &str = r#"
[servers.database]
url = "https://x.example/mcp"
[agents.analyst.servers.database]
allowed_tools = ["free", "scalar", "nested", "text"]
argument_constraints.scalar = [{ arg = "mode", pattern = '^(read|list)$' }]
argument_constraints.nested = [{ arg = "filters[*].column.name", pattern = '^[a-z_]+$' }]
argument_constraints.text = [{ arg = "text", pattern = '^[a-z ]+$' }]
[keys.analyst]
agent = "analyst"
mcp_servers = ["database"]
"#;

/// A decision without constraints, and what constraints add to it.
pub(crate) fn cases() -> Vec<Case> {
    let policy = Rc::new(rules::compile(CONFIG));
    let filters: Vec<String> = (0..10)
        .map(|i| {
            format!(r#"{{"column":{{"name":"region_{}","table":"t"}},"value":{i}}}"#, "abcdefghij".get(i..=i).unwrap())
        })
        .collect();
    let nested = format!(r#"{{"filters":[{}]}}"#, filters.join(","));
    let text = format!(r#"{{"text":"{}"}}"#, "a text of many words ".repeat(200));
    let case = |name: &str, tool: &str, arguments: &str, permitted| {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
        );
        let call = rules::call("database", body.into());
        decided(format!("constraint, {name}"), &policy, Calls::of(rules::principal("analyst"), call), permitted)
    };
    vec![
        case("none", "free", r#"{"mode":"read"}"#, true),
        case("1 word", "scalar", r#"{"mode":"read"}"#, true),
        case("1 word that does not match", "scalar", r#"{"mode":"write"}"#, false),
        case("10 nested values", "nested", &nested, true),
        case("4 KiB of text", "text", &text, true),
    ]
}
