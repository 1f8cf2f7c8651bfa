//! An operator's first hour: a key, a server, a policy; calls that pass, calls that do not, and their records.

use serde_json::Value;
use serde_json::json;

use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;

/// A gateway in front of a database-like server, with a key for an agent that may only select.
async fn start() -> (Upstream, Gateway, Key) {
    let upstream = Upstream::start().await;
    upstream.on(
        "tools/list",
        Reply::json(json!({ "tools": [
        { "name": "execute_query", "inputSchema": { "type": "object" } },
        { "name": "drop_table", "inputSchema": { "type": "object" } },
    ] })),
    );
    upstream.on("tools/call execute_query", Reply::json(json!({ "content": [{ "type": "text", "text": "42" }] })));
    let key = gateway::make_key("ci");
    let gateway = Gateway::start(&format!(
        r#"
        [servers.database]
        url = "{}"
        [keys.ci]
        digest = "{}"
        mcp_servers = ["database"]
        agent = "analyst"
        [agents.analyst.servers.database]
        blocked_tools = ["drop_*"]
        argument_constraints.execute_query = [{{ arg = "sql", pattern = '^\s*SELECT', description = "SELECT only" }}]
        "#,
        upstream.url(),
        key.digest
    ));
    (upstream, gateway, key)
}

async fn call(gateway: &Gateway, key: &Key, tool: &str, arguments: Value) -> (u16, Value) {
    let message = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": tool, "arguments": arguments } });
    let answer =
        gateway.post("/mcp/database", &[&format!("Authorization: Bearer {}", key.key)], &message.to_string()).await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn a_permitted_call_reaches_the_server_byte_for_byte_and_leaves_an_intent_and_a_result() {
    let (upstream, gateway, key) = start().await;
    let body = r#"{ "jsonrpc":"2.0" ,"id":9007199254740993, "method":"tools/call","params":{"name":"execute_query","arguments":{"sql":"SELECT \u0031"}}}"#;
    let answer = gateway.post("/mcp/database", &[&format!("X-API-Key: {}", key.key)], body).await;
    assert_eq!((answer.status, answer.json()["id"].to_string().as_str()), (200, "9007199254740993"));
    assert_eq!(upstream.requests_for("tools/call execute_query")[0].body, body);
    let intent = gateway.wait_for_record("intent", |record| record["tool"] == "execute_query");
    let result = gateway.wait_for_record("result", |record| record["intent"] == intent["seq"]);
    assert_eq!(
        (&intent["principal"], &intent["decision"], &result["outcome"]),
        (&json!("key:ci"), &json!("allowed"), &json!("ok"))
    );
    assert_eq!(intent["sent_bytes"], body.len());
}

#[tokio::test]
async fn a_call_that_breaks_a_constraint_and_one_to_a_blocked_tool_never_reach_the_server() {
    let (upstream, gateway, key) = start().await;
    let (status, refused) = call(&gateway, &key, "execute_query", json!({ "sql": "DROP TABLE users" })).await;
    assert_eq!((status, &refused["error"]["code"], &refused["id"]), (200, &json!(-31403), &json!(7)));
    let (status, hidden) = call(&gateway, &key, "drop_table", json!({})).await;
    assert_eq!(
        (status, &hidden["error"]["code"], &hidden["error"]["message"]),
        (200, &json!(-32602), &json!("Unknown tool: drop_table"))
    );
    let (_, unknown) = call(&gateway, &key, "no_such_thing", json!({})).await;
    assert_ne!(
        unknown["error"]["message"],
        json!("Unknown tool: no_such_thing"),
        "the server itself answers for tools it does not have"
    );
    assert_eq!(
        upstream.requests_for("tools/call execute_query").len() + upstream.requests_for("tools/call drop_table").len(),
        0
    );
    let record = gateway.wait_for_record("refused", |record| record["reason"] == "argument_mismatch");
    assert_eq!(record["rule"], "agents.analyst.servers.database.argument_constraints.execute_query[0]");
    assert!(!record.to_string().contains("DROP TABLE"), "arguments are not for the record");
}

#[tokio::test]
async fn a_list_shows_exactly_what_can_be_called() {
    let (_upstream, gateway, key) = start().await;
    let answer = gateway
        .post(
            "/mcp/database",
            &[&format!("API-Key: {}", key.key)],
            r#"{"jsonrpc":"2.0","id":"l","method":"tools/list"}"#,
        )
        .await;
    let names: Vec<Value> =
        answer.json()["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(names, [json!("execute_query")]);
}

#[tokio::test]
async fn a_session_is_sealed_and_opens_only_for_its_owner() {
    let (upstream, gateway, key) = start().await;
    let owner = format!("Authorization: Bearer {}", key.key);
    let answer = gateway.post("/mcp/database", &[&owner], INITIALIZE).await;
    let token = answer.header("mcp-session-id").unwrap().to_owned();
    let session = format!("Mcp-Session-Id: {token}");
    let ping = r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#;
    upstream.on("ping", Reply::json(json!({})));
    assert_eq!(gateway.post("/mcp/database", &[&owner, &session], ping).await.status, 200);
    let sent = upstream.requests_for("ping").remove(0).header("mcp-session-id").unwrap();
    assert!(!token.contains(&sent) && !sent.is_empty());
    let other = if token.as_bytes()[40] == b'A' { "B" } else { "A" };
    let forged = format!("Mcp-Session-Id: {}{other}{}", &token[..40], &token[41..]);
    for (headers, status) in [(vec![owner.as_str(), forged.as_str()], 404), (vec![session.as_str()], 401)] {
        assert_eq!(gateway.post("/mcp/database", &headers, ping).await.status, status, "{headers:?}");
    }
    assert_eq!(upstream.requests_for("ping").len(), 1);
}
