//! What becomes of a request in which a step of the gateway itself panics?
//!
//! One process per step: the client reads a refusal, one entry is on record, nothing was sent, and the process goes on.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::upstream::Upstream;

const CALL: &str =
    r#"{"jsonrpc":"2.0","id":"seven","method":"tools/call","params":{"name":"echo","arguments":{"a":"secret"}}}"#;
/// Every step of the data path, and whether the request's id is known when it begins.
const STEPS: [(&str, bool); 8] = [
    ("head", false),
    ("auth", false),
    ("body", false),
    ("parse", false),
    ("session", true),
    ("policy", true),
    ("intent", true),
    ("exchange", true),
];

/// A gateway that fails as told, in front of a small server.
async fn start(failpoints: &str) -> (Upstream, Gateway, Key) {
    let upstream = Upstream::start().await;
    let key = gateway::make_key("ci");
    let config = format!(
        "[servers.a]\nurl = \"{}\"\n[keys.ci]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\n",
        upstream.url(),
        key.digest
    );
    let gateway = gateway::setup(&config).variable("FAILPOINTS", failpoints).start();
    (upstream, gateway, key)
}

fn call(key: &Key) -> String {
    client::post("/mcp/a", &[&format!("X-API-Key: {}", key.key)], CALL)
}

#[track_caller]
fn is_refused(answer: &Answer, id: Option<&str>) {
    let body = answer.json();
    assert!(answer.complete && answer.status == 500, "{answer:?}");
    assert_eq!((&body["error"]["code"], body.get("id")), (&json!(-32603), id.map(Value::from).as_ref()));
    assert!(!answer.text().contains("failpoint"), "{answer:?}");
}

#[tokio::test]
async fn a_panic_in_any_step_is_a_refusal_on_record_and_the_next_request_is_served() {
    for (step, id_is_known) in STEPS {
        let (upstream, mut gateway, key) = start(&format!("{step}=1*panic")).await;
        let answer = client::send(gateway.data, call(&key)).await;
        is_refused(&answer, id_is_known.then_some("seven"));
        assert_eq!(upstream.requests().len(), 0, "{step}");
        if step == "exchange" {
            let result = gateway.wait_for_record("result", |_| true);
            assert_eq!((&result["outcome"], &result["reason"]), (&json!("abandoned"), &json!("panicked")), "{step}");
            assert_eq!((&result["status"], &result["intent"]), (&json!(500), &gateway.records()[0]["seq"]), "{step}");
        } else {
            let refused = gateway.wait_for_record("refused", |_| true);
            assert_eq!((&refused["reason"], &refused["status"]), (&json!("panicked"), &json!(500)), "{step}");
        }
        let before = gateway.records().len();
        assert_eq!(before, if step == "exchange" { 2 } else { 1 }, "{step}");
        let answer = client::send(gateway.data, call(&key)).await;
        assert_eq!((answer.status, answer.json()["id"].as_str()), (200, Some("seven")), "{step}");
        gateway.wait_for_record("result", |record| record["outcome"] == "ok");
        assert_eq!((gateway.records().len(), upstream.requests().len()), (before + 2, 1), "{step}");
        let log = gateway.log();
        assert!(log.contains("a panic") && !log.contains("failpoint") && !log.contains("secret"), "{step}: {log}");
        assert!(gateway.is_alive(), "{step}");
    }
}

#[tokio::test]
async fn a_connection_survives_the_panic_of_one_of_its_requests() {
    let (_upstream, gateway, key) = start("policy=1*panic").await;
    let mut connection = Connection::open(gateway.data).await;
    connection.write([call(&key), call(&key)].concat()).await;
    is_refused(&connection.answer().await.unwrap(), Some("seven"));
    assert_eq!(connection.answer().await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_reads_the_refusal_although_its_body_was_not_read() {
    for step in ["head", "auth", "body"] {
        let (_upstream, gateway, key) = start(&format!("{step}=panic")).await;
        let body = CALL.replace("secret", &"x".repeat(3 << 20));
        let mut connection = Connection::open(gateway.data).await;
        connection.write(client::post("/mcp/a", &[&format!("X-API-Key: {}", key.key)], &body)).await;
        is_refused(&connection.answer().await.expect(step), None);
        assert!(connection.is_closed_within(Duration::from_secs(3)).await, "{step}: what follows cannot be told apart");
    }
}

#[tokio::test]
async fn a_step_that_always_panics_takes_nothing_else_down() {
    let (upstream, mut gateway, key) = start("session=panic").await;
    let calls = (0..50).map(|_| client::send(gateway.data, call(&key)));
    for answer in futures_util::future::join_all(calls).await {
        is_refused(&answer, Some("seven"));
    }
    assert_eq!(gateway.wait_for_records("refused", 50).len() + upstream.requests().len(), 50);
    let health = client::send(gateway.data, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(health.status, 200);
    assert_eq!(gateway.metric("portcullis_refusals_total{reason=\"panicked\"}").await, Some(50.0));
    assert!(gateway.is_alive());
}
