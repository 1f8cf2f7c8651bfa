//! Batches of 2025-03-26: what refuses one as a whole, and the limits of one.

use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const BODY_BYTES_MAX: usize = 100_000;

struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    key: Key,
}

impl Stage {
    async fn start() -> Self {
        let upstream = Upstream::start().await;
        let key = gateway::make_key("ci");
        let config = format!(
            "body_bytes_max = {BODY_BYTES_MAX}\n[servers.a]\nurl = \"{}\"\n[keys.ci]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\n",
            upstream.url(),
            key.digest
        );
        let gateway = Gateway::start(&config);
        Self { upstream, gateway, key }
    }

    async fn post(&self, items: &[Value]) -> Answer {
        let key = format!("X-API-Key: {}", self.key.key);
        let headers = [key.as_str(), "MCP-Protocol-Version: 2025-03-26"];
        let body = Value::from(items.to_vec()).to_string();
        client::send(self.gateway.data, client::post("/mcp/a", &headers, &body)).await
    }
}

fn ping(id: usize) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "ping"})
}

#[tokio::test]
async fn a_batch_that_is_none_is_refused_as_a_whole_and_says_why() {
    let stage = Stage::start().await;
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}});
    let response = json!({"jsonrpc": "2.0", "id": 1, "result": {}});
    let many: Vec<Value> = (0..65).map(ping).collect();
    let rows: [(&[Value], &str, &str); 4] = [
        (&[], "batch_empty", "a batch needs at least one message"),
        (&many, "batch_too_long", "the batch has too many messages"),
        (&[ping(1), initialize], "batch_initialize", "`initialize` must stand alone, not in a batch"),
        (&[ping(1), response], "batch_mixed", "a batch holds requests and notifications, or responses, not both"),
    ];
    for (items, reason, text) in rows {
        let answer = stage.post(items).await;
        assert_eq!((answer.status, answer.code()), (400, Some(-32600)), "{reason}: {}", answer.text());
        assert_eq!(answer.json()["error"]["message"], text, "{reason}");
    }
    let reasons: Vec<Value> =
        stage.gateway.wait_for_records("refused", 4).iter().map(|record| record["reason"].clone()).collect();
    assert_eq!(reasons, rows.map(|(_, reason, _)| json!(reason)));
    assert_eq!(stage.upstream.requests().len(), 0);
}

#[tokio::test]
async fn as_many_messages_as_are_allowed_are_all_answered() {
    let stage = Stage::start().await;
    let answers = stage.post(&(0..64).map(ping).collect::<Vec<_>>()).await.json();
    let ids: Vec<Value> = answers.as_array().unwrap().iter().map(|answer| answer["id"].clone()).collect();
    assert_eq!(ids, (0..64).map(Value::from).collect::<Vec<_>>());
    assert_eq!(stage.upstream.requests_for("ping").len(), 64);
}

#[tokio::test]
async fn an_answer_for_which_there_is_no_room_in_the_one_answer_is_an_error_under_its_id() {
    let stage = Stage::start().await;
    stage.upstream.on("tools/call", Reply::json(json!({"content": [{"type": "text", "text": "x".repeat(150_000)}]})));
    let call = |id: usize| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "t"}});
    let answers = stage.post(&[call(1), call(2), call(3), ping(4)]).await.json();
    let codes: Vec<(Value, Value)> = answers
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| (answer["id"].clone(), answer["error"]["code"].clone()))
        .collect();
    let fine = |id: usize| (json!(id), Value::Null);
    // Four times the longest body fit: two of these answers, not three, and what is small.
    assert_eq!(codes, [fine(1), fine(2), (json!(3), json!(-32603)), fine(4)]);
}
