//! Who may do what, at a real gateway: the levels of the cascade, restrictions, terms of keys, and turning off.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::support::client::Connection;
use crate::support::clock::within;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

fn call(tool: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{}}}}}}"#)
}

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}")
}

/// Within how long whoever is turned off must be gone.
const ENDED: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_each_level_grants_is_listed_and_callable_and_nothing_else() {
    let upstream = Upstream::start().await;
    let tool = |name: &str| json!({ "name": name, "inputSchema": { "type": "object" } });
    upstream.on("tools/list", Reply::json(json!({ "tools": [tool("x"), tool("y")] })));
    upstream.on("tools/call", Reply::text("done"));
    let key = gateway::make_key("ci");
    let mut config = String::new();
    for server in ["a", "b", "c", "d", "e", "f"] {
        config += &format!("[servers.{server}]\nurl = \"{}\"\n", upstream.url());
    }
    config += &format!(
        r#"
        [keys.ci]
        digest = "{}"
        team = "t"
        user = "u"
        agent = "bot"
        mcp_tool_permissions = {{ a = ["x"] }}
        [teams.t]
        organisation = "o"
        mcp_tool_permissions = {{ b = ["x"] }}
        [organisations.o]
        mcp_toolsets = ["s"]
        [toolsets.s]
        tools = {{ c = ["x"] }}
        [users.u]
        mcp_tool_permissions = {{ d = ["x"] }}
        [agents.bot]
        mcp_servers = ["e"]
        [agents.bot.servers.e]
        allowed_tools = ["x"]
        "#,
        key.digest
    );
    let gateway = Gateway::start(&config);
    let key = bearer(&key.key);
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#;
    for (server, reason) in [
        ("a", "key_tool_permissions"),
        ("b", "team_tool_permissions"),
        ("c", "organisation_toolsets"),
        ("d", "user_tool_permissions"),
        ("e", "agent_tools"),
    ] {
        let path = format!("/mcp/{server}");
        let listed = gateway.post(&path, &[&key], list).await.json();
        let names: Vec<&str> =
            listed["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["x"], "{server}");
        let answer = gateway.post(&path, &[&key], &call("x")).await;
        assert_eq!((answer.status, answer.code()), (200, None), "{server}: {answer:?}");
        assert_eq!(gateway.post(&path, &[&key], &call("y")).await.code(), Some(-32602), "{server}");
        gateway.wait_for_record("intent", |record| record["server"] == server && record["reason"] == reason);
    }
    assert_eq!(gateway.post("/mcp/f", &[&key], &call("x")).await.code(), Some(-32602), "nothing said is denied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_ends_at_its_time_and_is_used_from_its_networks_only() {
    let upstream = Upstream::start().await;
    upstream.on("tools/call", Reply::text("done"));
    let [good, late, far] = ["good", "late", "far"].map(gateway::make_key);
    let gateway = Gateway::start(&format!(
        r#"
        [servers.a]
        url = "{}"
        [keys.good]
        digest = "{}"
        mcp_servers = ["a"]
        expires = "2999-01-01T00:00:00Z"
        allowed_sources = ["127.0.0.0/8"]
        [keys.late]
        digest = "{}"
        mcp_servers = ["a"]
        expires = "2020-01-01T00:00:00Z"
        [keys.far]
        digest = "{}"
        mcp_servers = ["a"]
        allowed_sources = ["192.0.2.0/24"]
        "#,
        upstream.url(),
        good.digest,
        late.digest,
        far.digest,
    ));
    assert_eq!(gateway.post("/mcp/a", &[&bearer(&good.key)], &call("x")).await.status, 200);
    for (key, reason) in [(late, "key_expired"), (far, "key_source")] {
        let answer = gateway.post("/mcp/a", &[&bearer(&key.key)], &call("x")).await;
        assert_eq!(answer.status, 401);
        assert!(answer.text().contains("the API key is not known"), "whose key it was is nobody's business");
        gateway.wait_for_record("refused", |record| record["reason"] == reason);
    }
}

/// What turns a caller or a server off, what a new call is told then, and what is on record.
const SWITCHES: [(&str, &str, &str, u16); 4] = [
    ("[keys.ci]", "[keys.ci]\ndisabled = true", "key_disabled", 401),
    ("[agents.bot]", "[agents.bot]\ndisabled = true", "caller_disabled", 200),
    ("[servers.a]", "[servers.a]\ndisabled = true", "server_disabled", 200),
    ("[servers.a]", "[servers.a]\nblocked_tools = [\"slow\"]", "tool_blocked", 200),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_turned_off_is_gone_within_a_second_with_calls_and_streams_under_way() {
    let key = gateway::make_key("ci");
    for (old, new, reason, status) in SWITCHES {
        let upstream = Upstream::start().await;
        upstream.on("tools/call", Reply::never());
        let config = format!("{}agent = \"bot\"\n[agents.bot]\n", key.config(&upstream));
        let gateway = Gateway::start(&config);
        let mut held = Connection::open(gateway.data).await;
        held.write(key.call("slow")).await;
        upstream.wait_for("tools/call", 1).await;
        // Other changes leave it alone.
        gateway.reload(&format!("{config}[teams.t]\n"));
        assert!(tokio::time::timeout(Duration::from_millis(300), held.answer()).await.is_err(), "{reason}");
        gateway.reload(&config.replace(old, new));
        let answer = within(ENDED, held.answer()).await.expect(reason).unwrap();
        assert_eq!((answer.status, answer.code().is_some()), (403, true), "{reason}: {answer:?}");
        gateway.wait_for_record("result", |record: &Value| record["reason"] == "permission_withdrawn");
        let answer = gateway.post("/mcp/a", &[&bearer(&key.key)], &call("slow")).await;
        assert_eq!((answer.status, answer.code().is_some()), (status, true), "{reason}: {answer:?}");
        gateway.wait_for_record("refused", |record| record["reason"] == reason);
        assert_eq!(upstream.requests().len(), 1, "{reason}: nothing goes out any more");
    }
}
