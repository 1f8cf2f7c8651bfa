//! Vectors 1 to 39: headers and versions.

use serde_json::Value;
use serde_json::json;

use crate::e2e::vectors::stage::Stage;
use crate::e2e::vectors::stage::call;
use crate::e2e::vectors::stage::is_error;
use crate::e2e::vectors::stage::is_result;
use crate::e2e::vectors::stage::listing;
use crate::e2e::vectors::stage::modern_request;
use crate::support::upstream::Reply;

/// A gateway that has seen the list in which the tool `deploy` says which arguments are repeated in headers.
async fn learned() -> Stage {
    let stage = Stage::start().await;
    let properties = json!({
        "region": {"type": "string", "x-mcp-header": "Region"},
        "count": {"type": "integer", "x-mcp-header": "Count"},
        "dry": {"type": "boolean", "x-mcp-header": "Dry"},
        "deep": {"type": "object", "properties": {"zone": {"type": "string", "x-mcp-header": "Zone"}}},
        "plain": {"type": "string"},
    });
    stage.upstream.on("tools/list", listing("deploy", json!({"type": "object", "properties": properties})));
    is_result(&stage.owner().ask_modern(1, "tools/list", json!({})).await, 1);
    stage
}

/// Calls `deploy` with each row's arguments and headers, and holds the verdict to the row's.
async fn judged(rows: &[(Value, &[&str], bool)]) {
    let stage = learned().await;
    let mut sent = Vec::new();
    for (arguments, headers, is_accepted) in rows {
        let body = modern_request("c", "tools/call", json!({"name": "deploy", "arguments": arguments}));
        let mut caller = stage.owner().modern(&body);
        for header in *headers {
            caller = caller.and(*header);
        }
        let answer = caller.post(&body).await;
        if *is_accepted {
            is_result(&answer, "c");
            sent.push((body, headers.iter().map(|header| header.to_string()).collect::<Vec<_>>()));
        } else {
            assert_eq!(answer.code(), Some(-32020), "{arguments} {headers:?}: {}", answer.text());
            is_error(&answer, 400, -32020, "c");
        }
    }
    let calls = stage.upstream.requests_for("tools/call");
    assert_eq!(calls.iter().map(|request| &request.body[..]).collect::<Vec<_>>(), {
        sent.iter().map(|(body, _)| body.as_bytes()).collect::<Vec<_>>()
    });
    for (request, (_, headers)) in calls.iter().zip(&sent) {
        for (name, value) in headers.iter().map(|header| header.split_once(':').unwrap()) {
            assert_eq!(request.headers(name), [value.trim()], "{name} goes on as it came");
        }
    }
}

#[tokio::test]
pub(super) async fn an_encoded_name_is_judged_by_what_it_says() {
    let stage = Stage::start().await;
    for (tool, is_blocked) in [("日本語", true), ("日本", false)] {
        let body = modern_request("c", "tools/call", call(tool));
        let name = if is_blocked { "5pel5pys6Kqe" } else { "5pel5pys" };
        let caller = stage.owner().and("MCP-Protocol-Version: 2026-07-28").and("Mcp-Method: tools/call");
        let answer = caller.and(format!("Mcp-Name: =?base64?{name}?=")).post(&body).await;
        if is_blocked {
            is_error(&answer, 200, -32602, "c")
        } else {
            drop(is_result(&answer, "c"))
        }
        assert_eq!(stage.count("tools/call"), usize::from(!is_blocked));
    }
}

#[tokio::test]
pub(super) async fn a_header_must_repeat_an_argument_that_is_there() {
    judged(&[
        (json!({"region": "eu"}), &[], false),
        (json!({"region": "eu"}), &["Mcp-Param-Region: us"], false),
        (json!({"region": "eu"}), &["Mcp-Param-Region: EU"], false),
        (json!({"region": "eu"}), &["Mcp-Param-Region: eu", "Mcp-Param-Region: eu"], false),
        (json!({"region": "日本"}), &["Mcp-Param-Region: =?base64?5pel5pys?="], true),
        (json!({"region": "日本"}), &["Mcp-Param-Region: =?base64?5pel5pysX?="], false),
        (json!({"region": "eu"}), &["Mcp-Param-Region: eu"], true),
        (json!({"region": "eu"}), &["mcp-param-region: eu"], true),
        (json!({"deep": {"zone": "a"}}), &[], false),
        (json!({"deep": {"zone": "a"}}), &["Mcp-Param-Zone: a"], true),
        (json!({"region": "eu", "plain": "x"}), &["Mcp-Param-Region: eu", "Mcp-Param-Foo: y"], true),
    ])
    .await;
}

#[tokio::test]
pub(super) async fn no_header_repeats_an_argument_that_is_null_or_missing() {
    judged(&[
        (json!({"region": null}), &[], true),
        (json!({}), &[], true),
        (json!({"region": null}), &["Mcp-Param-Region: eu"], false),
        (json!({"region": null}), &["Mcp-Param-Region:"], false),
        (json!({"region": null}), &["Mcp-Param-Region: null"], false),
        (json!({}), &["Mcp-Param-Region: eu"], false),
    ])
    .await;
}

#[tokio::test]
pub(super) async fn an_integer_is_compared_as_a_number() {
    judged(&[
        (json!({"count": 42}), &["Mcp-Param-Count: 42"], true),
        (json!({"count": 42}), &["Mcp-Param-Count: 42.0"], true),
        (json!({"count": 42}), &["Mcp-Param-Count: 42.5"], false),
        (json!({"count": 42}), &["Mcp-Param-Count: 43"], false),
        (json!({"count": 42}), &["Mcp-Param-Count: forty-two"], false),
        (json!({"count": 42}), &[], false),
        (json!({"count": 9_007_199_254_740_991_i64}), &["Mcp-Param-Count: 9007199254740991"], true),
        (json!({"count": 9_007_199_254_740_991_i64}), &["Mcp-Param-Count: 9007199254740990"], false),
    ])
    .await;
}

#[tokio::test]
pub(super) async fn a_boolean_has_one_spelling() {
    judged(&[
        (json!({"dry": true}), &["Mcp-Param-Dry: true"], true),
        (json!({"dry": false}), &["Mcp-Param-Dry: false"], true),
        (json!({"dry": true}), &["Mcp-Param-Dry: True"], false),
        (json!({"dry": true}), &["Mcp-Param-Dry: 1"], false),
        (json!({"dry": true}), &["Mcp-Param-Dry: false"], false),
        (json!({"dry": false}), &[], false),
    ])
    .await;
}

#[tokio::test]
pub(super) async fn an_empty_text_is_repeated_by_an_empty_header() {
    judged(&[
        (json!({"region": ""}), &["Mcp-Param-Region:"], true),
        (json!({"region": ""}), &[], false),
        (json!({"region": ""}), &["Mcp-Param-Region: x"], false),
    ])
    .await;
}

#[tokio::test]
pub(super) async fn a_server_without_a_handshake_says_itself_which_revisions_it_speaks() {
    let stage = Stage::start().await;
    let error = json!({"code": -32022, "message": "Unsupported protocol version", "data": {"supported": ["2026-07-28"], "requested": "2025-06-18"}});
    let refusal = Reply::message(json!({"jsonrpc": "2.0", "id": "$id", "error": error})).status_code(400);
    stage.upstream.on("initialize", refusal.header("Mcp-Session-Id", "none-of-yours"));
    let answer = stage.owner().initialize("2025-06-18", json!({})).await;
    is_error(&answer, 400, -32022, "init");
    assert_eq!((&answer.json()["error"], answer.header("mcp-session-id")), (&error, None));
}

#[tokio::test]
pub(super) async fn a_version_header_names_a_revision_and_the_one_of_its_session() {
    let stage = Stage::start().await;
    let session = stage.owner().session("2025-11-25").await.without("MCP-Protocol-Version");
    let before = stage.upstream.requests().len();
    for version in ["1.0", "2025-11-2", "", "2025-06-18", "2024-11-05", "v999"] {
        let odd = session.and(format!("MCP-Protocol-Version: {version}"));
        is_error(&odd.ask(5, "tools/list", json!({})).await, 400, -32022, 5);
        for answer in [odd.get().await, odd.delete().await] {
            assert_eq!((answer.status, answer.code()), (400, Some(-32022)), "{version}: {}", answer.text());
        }
    }
    assert_eq!(stage.upstream.requests().len(), before);
    is_result(&session.and("MCP-Protocol-Version: 2025-11-25").ask(5, "tools/list", json!({})).await, 5);
}

#[tokio::test]
pub(super) async fn a_session_knows_its_revision_without_a_header() {
    let stage = Stage::start().await;
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let session = stage.owner().session(revision).await.without("MCP-Protocol-Version");
        is_result(&session.ask(revision, "tools/list", json!({})).await, revision);
        stage
            .gateway
            .wait_for_record("intent", |record| record["rpc_method"] == "tools/list" && record["revision"] == revision);
    }
    is_result(&stage.owner().ask(1, "tools/call", call("echo")).await, 1);
    let record = stage.gateway.wait_for_record("intent", |record| record["rpc_method"] == "tools/call");
    assert_eq!(record["revision"], "2025-03-26", "what is assumed where nothing says it");
}
