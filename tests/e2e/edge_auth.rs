//! Who is let in, by which header, and what those are told who are not: all of it at a real gateway.
#![allow(clippy::too_many_lines, reason = "a table of vectors is read row by row")]

use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;

use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::upstream::Upstream;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
const NOTIFICATION: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// A server for the key `ci`, one for the key `ops`, and one for everybody.
struct Bench {
    upstream: Upstream,
    gateway: Gateway,
    ci: Key,
    ops: Key,
}

async fn start() -> Bench {
    let upstream = Upstream::start().await;
    let (ci, ops) = (gateway::make_key("ci"), gateway::make_key("ops"));
    let config = format!(
        r#"
        [auth]
        key_headers = ["X-Team-Key", "X-Gateway-Token"]
        [servers.files]
        url = "{url}"
        [servers.secret]
        url = "{url}"
        [servers.open]
        url = "{url}"
        access = "public"
        [keys.ci]
        digest = "{}"
        mcp_servers = ["files"]
        [keys.ops]
        digest = "{}"
        mcp_servers = ["secret"]
        "#,
        ci.digest,
        ops.digest,
        url = upstream.url(),
    );
    let gateway = gateway::setup(&config).variable("RUST_LOG", "trace").start();
    Bench { upstream, gateway, ci, ops }
}

impl Bench {
    /// Posts a call from an address of its own.
    async fn call(&self, number: usize, target: &str, lines: &[String]) -> Answer {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut connection = Connection::open_from(client::source(number), self.gateway.data).await;
        connection.write(client::post(target, &lines, CALL)).await;
        connection.answer().await.unwrap()
    }

    /// The records of that address.
    fn records(&self, number: usize, kind: &str) -> Vec<Value> {
        let source = client::source(number).to_string();
        self.gateway
            .records()
            .into_iter()
            .filter(|record| record["kind"] == kind && record["source"] == source)
            .collect()
    }

    /// Fails if any of these texts stands in the log, in the record or in what went upstream.
    fn assert_nowhere(&self, secrets: &[&str]) {
        let mut texts = vec![("the log".to_owned(), self.gateway.log().into_bytes())];
        collect(&self.gateway.directory.join("audit"), &mut texts);
        collect(&self.gateway.directory.join("state"), &mut texts);
        texts.extend(
            self.upstream
                .connections()
                .into_iter()
                .map(|connection| ("the upstream".to_owned(), connection.bytes.to_vec())),
        );
        for (place, bytes) in &texts {
            let text = String::from_utf8_lossy(bytes);
            for secret in secrets {
                assert!(!text.contains(secret), "{secret} in {place}: {}", lines_with(&text, secret));
            }
        }
    }
}

fn lines_with(text: &str, secret: &str) -> String {
    text.lines().filter(|line| line.contains(secret)).take(3).collect::<Vec<_>>().join("\n")
}

fn collect(directory: &Path, into: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.is_file() {
            into.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
}

/// The part of a key that is nobody's to see: without the prefix and the public id.
fn secret_part(key: &Key) -> &str {
    &key.key[13..]
}

#[track_caller]
fn assert_unauthorized(answer: &Answer, error: Option<&str>, what: &str) {
    assert_eq!((answer.status, answer.code()), (401, Some(-32600)), "{what}: {}", answer.text());
    let challenge = answer.header("www-authenticate").unwrap_or_else(|| panic!("{what}: no challenge"));
    assert!(challenge.starts_with("Bearer realm="), "{challenge}");
    match error {
        Some(error) => assert!(challenge.contains(&format!("error=\"{error}\"")), "{what}: {challenge}"),
        None => assert!(!challenge.contains("error"), "{what}: {challenge}"),
    }
}

#[tokio::test]
async fn a_key_is_taken_from_every_header_that_may_carry_one_and_goes_no_further() {
    let bench = start().await;
    let key = &bench.ci.key;
    let rows = [
        vec![format!("Authorization: Bearer {key}")],
        vec![format!("authorization: bearer {key}")],
        vec![format!("AUTHORIZATION: BEARER {key}")],
        vec![format!("Authorization: Bearer   {key}  ")],
        vec![format!("X-API-Key: {key}")],
        vec![format!("x-api-key:{key}")],
        vec![format!("API-Key: {key}")],
        vec![format!("X-Team-Key: {key}")],
        vec![format!("x-gateway-token: {key}")],
        vec![format!("X-API-Key: {key}"), format!("X-API-Key: {key}")],
        vec![format!("X-API-Key: {key}"), format!("Authorization: Bearer {key}"), format!("X-Team-Key: {key}")],
    ];
    for (number, lines) in rows.iter().enumerate() {
        let answer = bench.call(number, "/mcp/files", lines).await;
        assert_eq!((answer.status, answer.json()["id"].clone()), (200, json!(1)), "{lines:?}: {}", answer.text());
        assert_eq!(bench.records(number, "intent")[0]["principal"], "key:ci", "{lines:?}");
    }
    let requests = bench.upstream.requests();
    assert_eq!(requests.len(), rows.len());
    for request in requests {
        for name in ["authorization", "x-api-key", "api-key", "x-team-key", "x-gateway-token"] {
            assert_eq!(request.headers(name), Vec::<String>::new());
        }
    }
    bench.assert_nowhere(&[secret_part(&bench.ci)]);
}

#[tokio::test]
async fn what_is_shown_as_a_key_and_is_none_is_refused() {
    let bench = start().await;
    let (ci, ops, stranger) = (&bench.ci.key, &bench.ops.key, gateway::make_key("stranger").key);
    let flipped = format!("{}{}", &ci[..61], if ci.ends_with('0') { '1' } else { '0' });
    let unknown = Some("invalid_token");
    let malformed = Some("invalid_request");
    let rows: Vec<(Vec<String>, &str, Option<&str>)> = vec![
        (vec![], "key_missing", None),
        (vec![format!("Cookie: key={ci}")], "key_missing", None),
        (vec![format!("Proxy-Authorization: Bearer {ci}")], "key_missing", None),
        (vec![format!("X-Other-Key: {ci}")], "key_missing", None),
        (vec![format!("Authorization: Bearer {stranger}")], "key_unknown", unknown),
        (vec![format!("X-Team-Key: {stranger}")], "key_unknown", unknown),
        (vec![format!("X-API-Key: {flipped}")], "key_unknown", unknown),
        (vec![format!("X-API-Key: {}", &ci[..61])], "key_unknown", unknown),
        (vec![format!("X-API-Key: {ci}x")], "key_unknown", unknown),
        (vec![format!("X-API-Key: {}", ci.to_uppercase())], "key_unknown", unknown),
        (vec![format!("X-API-Key: {}", bench.ci.digest)], "key_unknown", unknown),
        (vec!["X-API-Key: null".into()], "key_unknown", unknown),
        (vec![format!("X-API-Key: Bearer {ci}")], "key_malformed", malformed),
        (vec!["X-API-Key:".into()], "key_malformed", malformed),
        (vec![format!("X-API-Key: {ci},{ci}")], "key_malformed", malformed),
        (vec![format!("X-API-Key: {}", "k".repeat(257))], "key_malformed", malformed),
        (vec![format!("X-API-Key: {ci}\u{a0}")], "key_malformed", malformed),
        (vec![format!("Authorization: {ci}")], "key_malformed", malformed),
        (vec!["Authorization: Bearer".into()], "key_malformed", malformed),
        (vec!["Authorization: Bearer ".into()], "key_malformed", malformed),
        (vec![format!("Authorization: Basic {ci}")], "key_malformed", malformed),
        (vec![format!("Authorization: Bearer\t{ci}")], "key_malformed", malformed),
        (vec![format!("Authorization: Bearer {ci}, Bearer {ci}")], "key_malformed", malformed),
        // A right key beside it heals nothing.
        (vec![format!("X-API-Key: {ci}"), "Authorization: Basic eDp5".into()], "key_malformed", malformed),
        (vec!["Authorization: Bearer".into(), format!("X-API-Key: {ci}")], "key_malformed", malformed),
    ];
    for (number, (lines, reason, error)) in rows.iter().enumerate() {
        let answer = bench.call(number, "/mcp/files", lines).await;
        assert_unauthorized(&answer, *error, reason);
        let text = format!("{}{}", answer.head, answer.text());
        assert!([ci, ops, &stranger].iter().all(|key| !text.contains(&key[13..])), "{text}");
    }
    assert_eq!(bench.upstream.connections().len(), 0);
    bench.gateway.wait_for_records("refused", rows.len());
    for (number, (lines, reason, _)) in rows.iter().enumerate() {
        let records = bench.records(number, "refused");
        let told = |name: &str| records[0][name].clone();
        assert_eq!(
            (records.len(), told("reason"), told("status"), told("principal")),
            (1, json!(reason), json!(401), Value::Null),
            "{lines:?}"
        );
    }
    bench.assert_nowhere(&[secret_part(&bench.ci), &stranger[13..], &ci.to_uppercase()[13..], &"k".repeat(257)]);
}

#[tokio::test]
async fn two_different_keys_in_one_request_are_refused_in_any_order() {
    let bench = start().await;
    let (ci, ops, stranger) = (&bench.ci.key, &bench.ops.key, gateway::make_key("stranger").key);
    let rows = [
        [format!("X-API-Key: {ci}"), format!("X-API-Key: {ops}")],
        [format!("X-API-Key: {ops}"), format!("X-API-Key: {ci}")],
        [format!("Authorization: Bearer {ci}"), format!("X-API-Key: {ops}")],
        [format!("API-Key: {ops}"), format!("Authorization: Bearer {ci}")],
        [format!("Authorization: Bearer {ci}"), format!("Authorization: Bearer {ops}")],
        [format!("X-Team-Key: {ci}"), format!("X-Gateway-Token: {ops}")],
        [format!("X-API-Key: {ci}"), format!("Authorization: Bearer {stranger}")],
        [format!("X-API-Key: {stranger}"), format!("Authorization: Bearer {ci}")],
    ];
    for (number, lines) in rows.iter().enumerate() {
        for (turn, target) in ["/mcp/files", "/mcp/open"].iter().enumerate() {
            let answer = bench.call(2 * number + turn, target, lines).await;
            assert_eq!(
                (answer.status, answer.code(), answer.header("www-authenticate")),
                (400, Some(-32600), None),
                "{lines:?}"
            );
        }
    }
    assert_eq!(bench.upstream.connections().len(), 0);
    let records = bench.gateway.wait_for_records("refused", 2 * rows.len());
    assert!(records.iter().all(|record| record["reason"] == "keys_conflicting"), "{records:?}");
    bench.assert_nowhere(&[secret_part(&bench.ci), secret_part(&bench.ops), &stranger[13..]]);
}

#[tokio::test]
async fn a_key_in_the_query_is_refused_and_written_nowhere() {
    let bench = start().await;
    let key = &bench.ci.key;
    let escaped: String = key.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let queries = [
        format!("key={key}"),
        format!("api_key={key}"),
        format!("apikey={key}"),
        format!("API-KEY={key}"),
        format!("x-api-key={key}"),
        format!("X-Team-Key={key}"),
        format!("token={key}"),
        format!("access_token={key}"),
        format!("authorization=Bearer%20{key}"),
        format!("a=b&anything={key}"),
        format!("a=b;anything={key}"),
        format!("anything=Bearer+{key}"),
        format!("anything={escaped}"),
        format!("%61pi%5fkey={key}"),
        key.clone(),
        format!("{key}=1"),
        "api_key=canary-without-a-prefix".into(),
        "api_key=".into(),
    ];
    for (number, query) in queries.iter().enumerate() {
        for (turn, lines) in [vec![], vec![format!("Authorization: Bearer {key}")]].iter().enumerate() {
            let target = if number % 2 == 0 { "/mcp/files" } else { "/mcp/open" };
            let answer = bench.call(2 * number + turn, &format!("{target}?{query}"), lines).await;
            assert_eq!(
                (answer.status, answer.code(), answer.header("www-authenticate")),
                (400, Some(-32600), None),
                "{query}"
            );
            assert!(!format!("{}{}", answer.head, answer.text()).contains(secret_part(&bench.ci)), "{query}");
        }
    }
    assert_eq!(bench.upstream.connections().len(), 0);
    let records = bench.gateway.wait_for_records("refused", 2 * queries.len());
    assert!(records.iter().all(|record| record["reason"] == "key_in_query"), "{records:?}");
    bench.assert_nowhere(&[secret_part(&bench.ci), &escaped[3 * 13..], "canary-without-a-prefix"]);
    let answer = bench.call(100, "/mcp/files?session=keyboard&monkey=1", &[format!("X-API-Key: {key}")]).await;
    assert_eq!(answer.status, 200, "a query without a key is no concern");
}

#[tokio::test]
async fn a_server_open_to_everybody_still_wants_no_wrong_key() {
    let bench = start().await;
    let stranger = gateway::make_key("stranger").key;
    let rows = [
        (vec![], 200, json!("public")),
        (vec![format!("X-API-Key: {}", bench.ci.key)], 200, json!("key:ci")),
        (vec![format!("X-API-Key: {}", bench.ops.key)], 200, json!("key:ops")),
        (vec![format!("X-API-Key: {stranger}")], 401, Value::Null),
        (vec!["Authorization: Basic eDp5".into()], 401, Value::Null),
        (vec!["X-API-Key:".into()], 401, Value::Null),
    ];
    for (number, (lines, status, principal)) in rows.iter().enumerate() {
        let answer = bench.call(number, "/mcp/open", lines).await;
        assert_eq!(answer.status, *status, "{lines:?}");
        let kind = if *status == 200 { "intent" } else { "refused" };
        gateway::wait_until("its record", || bench.records(number, kind).len() == 1);
        assert_eq!(bench.records(number, kind)[0]["principal"], *principal, "{lines:?}");
    }
    assert_eq!(bench.upstream.requests().len(), 3);
}

#[tokio::test]
async fn a_server_that_is_not_granted_cannot_be_told_from_one_that_does_not_exist() {
    let bench = start().await;
    let key = format!("X-API-Key: {}", bench.ci.key);
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let modern = [&key, "MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/list"];
    let bodies: Vec<(&str, Vec<&str>, String)> = vec![
        ("a call", vec![&key], CALL.into()),
        ("a list", vec![&key], r#"{"jsonrpc":"2.0","id":"x","method":"tools/list"}"#.into()),
        ("initialize", vec![&key], r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#.into()),
        ("a notification", vec![&key], NOTIFICATION.into()),
        ("a response", vec![&key], r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.into()),
        ("an unknown method", vec![&key], r#"{"jsonrpc":"2.0","id":1,"method":"no/such"}"#.into()),
        ("a batch", vec![&key], format!("[{CALL}]")),
        ("no JSON", vec![&key], "{".into()),
        ("a session that is none", vec![&key, "Mcp-Session-Id: x"], CALL.into()),
        ("an unknown revision", vec![&key, "MCP-Protocol-Version: 1.0"], CALL.into()),
        ("a stateless list", modern.to_vec(), format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{meta}}}}}"#)),
        ("stateless with other headers", modern.to_vec(), CALL.into()),
        ("without a key", vec![], CALL.into()),
    ];
    let undated = |answer: &Answer, name: &str| {
        let head: Vec<&str> = answer.head.lines().filter(|line| !line.to_lowercase().starts_with("date:")).collect();
        format!("{}\n{}", head.join("\n"), answer.text()).replace(name, "NAME")
    };
    for (what, lines, body) in &bodies {
        let secret = bench.gateway.post("/mcp/secret", lines, body).await;
        let nowhere = bench.gateway.post("/mcp/nowhere", lines, body).await;
        assert_eq!(undated(&secret, "secret"), undated(&nowhere, "nowhere"), "{what}");
        assert!(secret.status >= 400 || secret.text().contains(r#""error":{"#), "{what}: {}", secret.text());
        assert!(!secret.text().contains("secret"), "{what}");
    }
    for (method, path) in [("DELETE", "/mcp/"), ("GET", "/mcp/"), ("PUT", "/mcp/")] {
        let request = |name: &str| {
            format!("{method} {path}{name} HTTP/1.1\r\nHost: localhost\r\n{key}\r\nMcp-Session-Id: x\r\n\r\n")
        };
        let (secret, nowhere) = (
            client::send(bench.gateway.data, request("secret")).await,
            client::send(bench.gateway.data, request("nowhere")).await,
        );
        assert_eq!(undated(&secret, "secret"), undated(&nowhere, "nowhere"), "{method}");
    }
    assert_eq!(bench.upstream.connections().len(), 0);
}

#[tokio::test]
async fn fifty_refusals_a_second_leave_one_record_and_a_count() {
    let bench = start().await;
    let request =
        "POST /mcp/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n";
    let since_1970 = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    // One attempt is enough, unless the machine is so busy that the fifty do not fit into the second.
    for number in 0..10 {
        let mut connection = Connection::open_from(client::source(number), bench.gateway.data).await;
        tokio::time::sleep(Duration::from_nanos(u64::from(1_000_000_000 - since_1970().subsec_nanos()))).await;
        let second = since_1970().as_secs();
        connection.write(request.repeat(50)).await;
        for _ in 0..50 {
            assert_eq!(connection.answer().await.unwrap().status, 401);
        }
        if since_1970().as_secs() != second {
            continue;
        }
        let prefix = format!("{}/24", client::source(number)).replace(".1/24", ".0/24");
        gateway::wait_until("the count", || {
            bench.gateway.records().iter().any(|record| record["source_prefix"] == *prefix)
        });
        let full = bench.records(number, "refused");
        let counted: Vec<Value> =
            bench.gateway.records().into_iter().filter(|record| record["source_prefix"] == *prefix).collect();
        assert_eq!((full.len(), counted.len(), &full[0]["reason"]), (1, 1, &json!("key_missing")));
        assert_eq!(
            (&counted[0]["count"], &counted[0]["reason"], &counted[0]["kind"]),
            (&json!(49), &json!("key_missing"), &json!("refused"))
        );
        return;
    }
    panic!("never fifty in one second");
}
