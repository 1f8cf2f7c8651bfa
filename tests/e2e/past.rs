//! Does what is on record tell what another configuration would have done, and which rules nobody needed?

use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::json;

use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::run;
use crate::support::gateway::wait_until;
use crate::support::upstream::Upstream;

/// Calls of each kind, by key, method and parameters.
fn calls() -> Vec<(&'static str, &'static str, Value)> {
    let tool = |name: &str, arguments: Value| json!({ "name": name, "arguments": arguments });
    vec![
        ("ci", "tools/call", tool("query", json!({ "sql": "SELECT 1" }))),
        ("ci", "tools/call", tool("query", json!({ "sql": "DROP TABLE x" }))),
        ("ci", "tools/call", tool("list_tables", json!({}))),
        ("ci", "tools/call", tool("drop_table", json!({}))),
        ("ci", "tools/call", tool("unlisted", json!({}))),
        ("ci", "tools/list", json!({})),
        ("ci", "prompts/get", json!({ "name": "daily" })),
        ("ci", "prompts/get", json!({ "name": "secret" })),
        ("ci", "resources/read", json!({ "uri": "file:///srv/a" })),
        ("ci", "resources/read", json!({ "uri": "file:///srv/private/a" })),
        (
            "ci",
            "completion/complete",
            json!({ "ref": { "type": "ref/prompt", "name": "daily" }, "argument": { "name": "a", "value": "b" } }),
        ),
        ("ci", "no/such/method", json!({})),
        ("free", "tools/call", tool("anything", json!({}))),
        ("free", "tools/call", tool("drop_all", json!({}))),
        ("none", "tools/call", tool("query", json!({ "sql": "SELECT 1" }))),
    ]
}

fn config(upstream: &Upstream, keys: [&gateway::Key; 4]) -> String {
    let [ci, free, none, idle] = keys.map(|key| &key.digest);
    format!(
        r#"
[servers.db]
url = "{}"
blocked_tools = ["drop_*", "never_*"]
blocked_prompts = ["secret"]
blocked_resources = ["file:///srv/private/**"]
[keys.ci]
digest = "{ci}"
mcp_servers = ["db"]
agent = "worker"
[keys.free]
digest = "{free}"
team = "all"
[keys.none]
digest = "{none}"
mcp_servers = []
[keys.idle]
digest = "{idle}"
mcp_servers = ["db"]
[teams.all]
mcp_servers = ["*"]
[agents.worker.servers.db]
allowed_tools = ["query", "list_*", "describe_*"]
argument_constraints.query = [
  {{ arg = "sql", pattern = '^SELECT' }},
  {{ arg = "sql", max_length = 1000 }},
]
"#,
        upstream.url()
    )
}

/// A gateway that has handled every call and ended, so that all of it is on record.
async fn recorded() -> (Gateway, String) {
    let upstream = Upstream::start().await;
    let keys = ["ci", "free", "none", "idle"].map(gateway::make_key);
    let config = config(&upstream, keys.each_ref());
    let mut gateway = Gateway::start(&config);
    for (id, (name, method, params)) in calls().into_iter().enumerate() {
        let key = &keys.iter().zip(["ci", "free", "none", "idle"]).find(|(_, own)| *own == name).unwrap().0.key;
        let body = json!({ "jsonrpc": "2.0", "id": id + 1, "method": method, "params": params });
        gateway.post("/mcp/db", &[&format!("X-API-Key: {key}")], &body.to_string()).await;
    }
    // What is no decision of policy, and what names nothing.
    gateway.post("/mcp/db", &["X-API-Key: wrong"], "{}").await;
    gateway.post("/mcp/db", &[&format!("X-API-Key: {}", keys[0].key)], "{").await;
    gateway.signal("TERM");
    gateway.wait();
    (gateway, config)
}

/// What `command` prints as JSON of these records under this configuration.
fn judged(gateway: &Gateway, command: &str, config: &str) -> (Option<i32>, Value) {
    let path = gateway.directory.join("candidate.toml");
    std::fs::write(&path, config).unwrap();
    let records = gateway.directory.join("audit");
    let (code, out, error) =
        run(&[command, "--json", "--config", path.to_str().unwrap(), "--records", records.to_str().unwrap()]);
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{error}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_finds_exactly_what_a_candidate_decides_otherwise() {
    let (gateway, config) = recorded().await;
    let (code, same) = judged(&gateway, "replay", &config);
    assert_eq!(
        (code, &same["refused"], &same["permitted"], &same["unclear"]),
        (Some(0), &json!(0), &json!(0), &json!(0)),
        "{same}"
    );
    assert_eq!(same["decisions"], calls().len());
    assert_eq!(same["depends"], 2, "both queries passed or failed by their arguments");

    // What the candidate decides otherwise, and how many calls that is about.
    let table: [(&str, &str, u64, u64, &str); 6] = [
        (r#""drop_*", "never_*""#, r#""list_*""#, 1, 1, "tool_blocked"),
        (r#"blocked_prompts = ["secret"]"#, "", 0, 1, "key_servers"),
        (r#"file:///srv/private/**"#, "file:///srv/a", 1, 1, "resource_blocked"),
        ("[teams.all]\nmcp_servers = [\"*\"]", "[teams.all]", 1, 0, "server_not_granted"),
        ("[keys.ci]", "[keys.ci]\nexpires = \"2020-01-01T00:00:00Z\"", 6, 0, "key_expired"),
        ("mcp_servers = []", "mcp_servers = [\"db\"]", 0, 1, "key_servers"),
    ];
    for (old, new, refused, permitted, reason) in table {
        assert!(config.contains(old), "{old}");
        let (code, told) = judged(&gateway, "replay", &config.replace(old, new));
        assert_eq!(
            (code, &told["refused"], &told["permitted"]),
            (Some(4), &json!(refused), &json!(permitted)),
            "{new}: {told:#}"
        );
        let reasons: BTreeSet<&str> =
            told["differences"].as_array().unwrap().iter().filter_map(|d| d["now"]["reason"].as_str()).collect();
        assert!(reasons.contains(reason), "{new}: {told:#}");
    }
    // A key that the candidate does not have.
    let (_, told) = judged(&gateway, "replay", &config.replace("[keys.free]", "[keys.other]"));
    assert_eq!(told["differences"][0]["now"]["reason"], "key_unknown", "{told:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_depends_on_arguments_is_told_apart_instead_of_guessed() {
    let (gateway, config) = recorded().await;
    // Without constraints the refused query passes; the permitted one is decided alike for certain.
    let free = config.replace("argument_constraints.query", "argument_constraints.list_tables");
    let (code, told) = judged(&gateway, "replay", &free);
    assert_eq!((code, &told["permitted"], &told["refused"]), (Some(4), &json!(1), &json!(0)), "{told:#}");
    assert_eq!(told["differences"][0]["then"]["reason"], "argument_mismatch");
    assert_eq!(told["depends"], 1, "whether `list_tables` still passes depends on its arguments");
}

#[tokio::test(flavor = "multi_thread")]
async fn coverage_lists_what_no_call_came_to_and_nothing_else() {
    let (gateway, config) = recorded().await;
    let (code, told) = judged(&gateway, "coverage", &config);
    assert_eq!(code, Some(0));
    let unused: BTreeSet<&str> = told["unused"].as_array().unwrap().iter().filter_map(|u| u["rule"].as_str()).collect();
    let expected = [
        "servers.db.blocked_tools[1]",
        "keys.idle",
        "agents.worker.servers.db.allowed_tools[2]",
        "agents.worker.servers.db.argument_constraints.query[1]",
    ];
    assert_eq!(unused, expected.into_iter().collect(), "{told:#}");
    for unused in told["unused"].as_array().unwrap() {
        let place = unused["place"].as_str().unwrap();
        assert!(place.contains("candidate.toml:"), "{place}");
    }
    assert_eq!(told["unmentioned"], json!([{ "server": "db", "tool": "anything", "calls": 1 }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_record_is_looked_at_where_that_is_asked_for() {
    let (gateway, _) = recorded().await;
    let config = gateway.directory.join("portcullis.toml");
    let config = config.to_str().unwrap();
    let decisions = |more: &[&str]| {
        let (code, out, error) = run(&[&["replay", "--json", "--config", config], more].concat());
        assert_eq!(code, Some(0), "{error}");
        serde_json::from_str::<Value>(&out).unwrap()["decisions"].as_u64().unwrap()
    };
    assert_eq!(decisions(&[]), calls().len() as u64, "the configuration's own record, where none is named");
    assert_eq!(decisions(&["--since", "2999-01-01T00:00:00Z"]), 0);
    assert_eq!(decisions(&["--until", "2020-01-01T00:00:00Z"]), 0);
    assert_eq!(
        decisions(&["--since", "2020-01-01T00:00:00Z", "--until", "2999-01-01T00:00:00Z"]),
        calls().len() as u64
    );
    let (code, _, error) = run(&["replay", "--config", config, "--since", "yesterday"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("`yesterday` is not a time of RFC 3339"), "{error}");
    let (code, _, error) = run(&["coverage", "--config", config, "--records", "/nowhere"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("/nowhere cannot be read"), "{error}");
    let (_, out, _) = run(&["replay", "--config", config]);
    assert!(out.contains("would be decided alike"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_is_judged_beside_what_is_in_force_and_changes_nothing() {
    let upstream = Upstream::start().await;
    let keys = ["ci", "free", "none", "idle"].map(gateway::make_key);
    let live = config(&upstream, keys.each_ref());
    let gateway = Gateway::start(&live);
    let candidate = gateway.directory.join("candidate.toml");
    let write = |text: &str| std::fs::write(&candidate, text).unwrap();
    write(&live.replace("^SELECT", "^(SELECT|DROP)").replace(r#""list_*""#, r#""show_*""#));
    gateway.reload(&format!("[policy]\nshadow_file = \"candidate.toml\"\n{live}"));
    gateway.wait_for_log("configuration reloaded");

    let owner = format!("X-API-Key: {}", keys[0].key);
    let call = |tool: &str, arguments: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
        )
    };
    // Permitted and refused by both, then permitted by one alone, then by the other alone.
    for (tool, arguments, is_answered) in [
        ("query", r#"{"sql":"SELECT 1"}"#, true),
        ("drop_table", "{}", false),
        ("query", r#"{"sql":"DROP TABLE x"}"#, false),
        ("list_tables", "{}", true),
    ] {
        let answer = gateway.post("/mcp/db", &[&owner], &call(tool, arguments)).await;
        assert_eq!(answer.code().is_none(), is_answered, "{tool}: what is in force decides: {answer:?}");
    }
    assert_eq!(
        upstream.requests().iter().filter(|request| String::from_utf8_lossy(&request.body).contains("DROP")).count(),
        0
    );

    gateway.wait_for_records("result", 2);
    let records: Vec<Value> = gateway.records().into_iter().filter(|record| record["tool"].is_string()).collect();
    let told: Vec<[Value; 4]> = records
        .iter()
        .map(|record| {
            ["decision", "shadow_decision", "shadow_reason", "shadow_rule"].map(|field| record[field].clone())
        })
        .collect();
    let matrix = "agents.worker.servers.db";
    let expected = [
        [json!("allowed"), Value::Null, Value::Null, Value::Null],
        [json!("refused"), Value::Null, Value::Null, Value::Null],
        [json!("refused"), json!("allowed"), json!("agent_tools"), json!(matrix)],
        [json!("allowed"), json!("refused"), json!("agent_tool_not_allowed"), json!(format!("{matrix}.allowed_tools"))],
    ];
    assert_eq!(told, expected);
    for (decision, count) in [("alike", 2.0), ("permitted", 1.0), ("refused", 1.0)] {
        let series = format!("portcullis_shadow_decisions_total{{decision=\"{decision}\"}}");
        assert_eq!(gateway.metric(&series).await, Some(count), "{decision}");
    }
    assert!(gateway.metric("portcullis_shadow_seconds_total").await.unwrap() > 0.0);

    assert_eq!(gateway.metric("portcullis_shadow_asked").await, Some(1.0));

    // A candidate with mistakes is told, is not asked, and keeps nothing from coming into force.
    write("[servers.db]\nurl = \"nowhere\"\n");
    let live =
        live.replace("[agents.worker.servers.db]", "[agents.worker]\ndisabled = true\n[agents.worker.servers.db]");
    gateway.reload(&format!("[policy]\nshadow_file = \"candidate.toml\"\n{live}"));
    gateway.wait_for_log("the URL has no scheme");
    gateway.wait_for_log("the candidate does not load and is not asked");
    wait_until("the third revision is in force", || {
        gateway.log().lines().filter(|line| line.contains("configuration reloaded")).count() == 2
    });
    let answer = gateway.post("/mcp/db", &[&owner], &call("list_tables", "{}")).await;
    assert!(answer.code().is_some(), "the agent is turned off: {answer:?}");
    assert_eq!(gateway.metric("portcullis_shadow_asked").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_refused_by_its_clients_name_is_told_apart_and_what_refused_it_is_used() {
    let upstream = Upstream::start().await;
    let keys = ["ci", "free", "none", "idle"].map(gateway::make_key);
    let config = config(&upstream, keys.each_ref())
        .replace("[keys.ci]", "blocked_agents = [\"bot\"]\n[keys.ci]")
        .replace("[agents.worker.servers.db]", "[agents.bot]\nreported_as = [\"is-bot\"]\n[agents.worker.servers.db]");
    let mut gateway = Gateway::start(&config);
    let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"is-bot","version":"1"}}}"#;
    let answer = gateway.post("/mcp/db", &[&format!("X-API-Key: {}", keys[0].key)], hello).await;
    assert!(answer.code().is_some(), "{answer:?}");
    gateway.signal("TERM");
    gateway.wait();
    assert_eq!(gateway.records().last().unwrap()["reason"], "server_agent_blocked");
    let (code, told) = judged(&gateway, "replay", &config);
    assert_eq!((code, &told["permitted"], &told["depends"]), (Some(0), &json!(0), &json!(1)), "{told:#}");
    let (code, told) = judged(&gateway, "replay", &config.replace("blocked_agents = [\"bot\"]", ""));
    assert_eq!((code, &told["permitted"]), (Some(4), &json!(1)), "nothing is left that would refuse it: {told:#}");
    let (_, told) = judged(&gateway, "coverage", &config);
    let rules = told["unused"].as_array().unwrap().iter().filter_map(|unused| unused["rule"].as_str());
    assert!(rules.clone().all(|rule| !rule.starts_with("servers.db.blocked_agents")), "{told:#}");
    assert!(rules.clone().any(|rule| rule == "keys.free"), "{told:#}");
}

#[test]
fn a_file_without_a_case_tests_nothing_and_says_so() {
    let directory = gateway::fresh_directory();
    let [config, cases] = ["c.toml", "cases.toml"].map(|name| directory.join(name));
    std::fs::write(&config, "[sandbox]\nenabled = false\n").unwrap();
    std::fs::write(&cases, "case = []\n").unwrap();
    let (code, out, error) = run(&["test", "--config", config.to_str().unwrap(), cases.to_str().unwrap()]);
    assert!(code == Some(2) && out.is_empty() && error.contains("has no `[[case]]`"), "{code:?} {out}{error}");
    std::fs::remove_dir_all(directory).unwrap();
}
