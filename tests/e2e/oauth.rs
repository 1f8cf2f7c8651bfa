//! Callers with a token of an issuer's: how they learn where to log in, what they may do, and when it ends.

use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::issuer;
use crate::support::issuer::Issuer;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
const METADATA: &str = "/.well-known/oauth-protected-resource";

struct Stage {
    issuer: Issuer,
    upstream: Upstream,
    gateway: Gateway,
    key: Key,
}

impl Stage {
    async fn start() -> Self {
        let (issuer, upstream, key) = (Issuer::start().await, Upstream::start().await, gateway::make_key("ci"));
        let config = format!(
            r#"
            public_url = "https://gw.example"
            [auth]
            metadata_of = "idp"
            [auth.issuers.idp]
            issuer = "{issuer}"
            allow_http = true
            allowed_networks = ["127.0.0.0/8"]
            leeway_seconds = 0
            claims = {{ teams = "groups", user = "email" }}
            scopes_supported = ["mcp"]
            [servers.files]
            url = "{url}"
            access = "public"
            [servers.scoped]
            url = "{url}"
            required_scopes = ["mcp"]
            tools.echo.required_scopes = ["echo:call"]
            [servers.closed]
            url = "{url}"
            required_scopes = ["mcp"]
            [servers.keyed]
            url = "{url}"
            credentials = "key"
            [servers.tokens]
            url = "{url}"
            credentials = "token"
            [teams.dev]
            mcp_servers = ["scoped", "tokens"]
            [keys.ci]
            digest = "{digest}"
            mcp_servers = ["*"]
            "#,
            issuer = issuer.url(),
            url = upstream.url(),
            digest = key.digest,
        );
        let gateway = gateway::setup(&config).variable("RUST_LOG", "trace").start();
        gateway.wait_for_log("the issuer's keys are known");
        Self { issuer, upstream, gateway, key }
    }

    /// A token for a server, with further claims.
    fn token(&self, server: &str, claims: &Value) -> String {
        let mut all = json!({
            "aud": format!("https://gw.example/mcp/{server}"), "email": "ann@x.example", "groups": ["dev"],
        });
        for (name, value) in claims.as_object().unwrap() {
            all[name] = value.clone();
        }
        self.issuer.token(&all)
    }

    async fn post(&self, server: &str, token: &str, body: &str) -> Answer {
        self.gateway.post(&format!("/mcp/{server}"), &[&format!("Authorization: Bearer {token}")], body).await
    }

    async fn get(&self, method: &str, path: &str) -> Answer {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: gw.example\r\nOrigin: https://app.example\r\n\r\n");
        client::send(self.gateway.data, head).await
    }
}

fn challenge(answer: &Answer) -> &str {
    answer.header("www-authenticate").unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_learns_where_to_log_in_only_where_tokens_are_taken() {
    let stage = Stage::start().await;
    let anonymous = async |server: &str| stage.gateway.post(&format!("/mcp/{server}"), &[], CALL).await;
    let closed = anonymous("closed").await;
    assert_eq!(
        (closed.status, challenge(&closed)),
        (
            401,
            r#"Bearer realm="portcullis", scope="mcp", resource_metadata="https://gw.example/.well-known/oauth-protected-resource/mcp/closed""#
        )
    );
    let keyed = anonymous("keyed").await;
    assert_eq!((keyed.status, challenge(&keyed)), (401, r#"Bearer realm="portcullis""#));
    // A server that does not exist answers like one that does.
    assert!(challenge(&anonymous("nobody").await).contains("oauth-protected-resource/mcp/nobody"));
    let metadata = stage.get("GET", &format!("{METADATA}/mcp/closed")).await;
    assert_eq!((metadata.status, metadata.header("access-control-allow-origin")), (200, Some("*")));
    let expected = json!({
        "resource": "https://gw.example/mcp/closed",
        "authorization_servers": [stage.issuer.url()],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["mcp"],
    });
    assert_eq!(metadata.json(), expected);
    assert_eq!(stage.get("GET", METADATA).await.json()["resource"], "https://gw.example");
    assert_eq!(
        stage.get("GET", &format!("{METADATA}/gateway/mcp/closed/sse")).await.json()["resource"],
        "https://gw.example/gateway/mcp/closed/sse"
    );
    for (method, path, status) in [
        ("GET", "/mcp/keyed", 404),
        ("GET", "/elsewhere/x/y", 404),
        ("OPTIONS", "/mcp/closed", 204),
        ("DELETE", "/mcp/closed", 405),
    ] {
        assert_eq!(stage.get(method, &format!("{METADATA}{path}")).await.status, status, "{method} {path}");
    }
    let repeated = stage.get("GET", "/.well-known/oauth-authorization-server").await;
    assert_eq!((repeated.status, &repeated.json()["issuer"]), (200, &json!(stage.issuer.url())));
    let foreign =
        client::send(stage.gateway.data, format!("GET {METADATA} HTTP/1.1\r\nHost: evil.example\r\n\r\n")).await;
    assert_eq!(foreign.status, 403);
    // Discovery went the way of the specification, and once.
    let expected = ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration", "/jwks"];
    assert_eq!(stage.issuer.asked(), expected);
    assert_eq!(stage.gateway.metric("portcullis_oauth_metadata_total").await, Some(5.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_judged_recorded_and_goes_no_further() {
    let stage = Stage::start().await;
    let good = stage.token("files", &json!({ "groups": ["dev", "ops"] }));
    let answer = stage.post("files", &good, CALL).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let record = stage.gateway.wait_for_record("intent", |_| true);
    assert_eq!(
        (&record["principal"], &record["credential"], &record["user"], &record["teams"]),
        (&json!("oauth:idp:ann"), &json!("token"), &json!("ann@x.example"), &json!(["dev", "ops"]))
    );
    // What a team of the token is granted, and nothing else.
    let granted = stage.token("tokens", &json!({}));
    assert_eq!(stage.post("tokens", &granted, CALL).await.status, 200);
    let none = stage.token("tokens", &json!({ "groups": ["ops"] }));
    assert!(stage.post("tokens", &none, CALL).await.text().contains("Unknown"));
    let foreign = Issuer::start().await.token(&json!({ "aud": "https://gw.example/mcp/files" }));
    let ended = stage.token("files", &json!({ "exp": issuer::now() - 1, "iat": issuer::now() - 9 }));
    let unknown = stage.issuer.token_by("two", &json!({ "aud": "https://gw.example/mcp/files" }));
    let elsewhere = stage.token("closed", &json!({}));
    let key = &stage.key.key;
    for (server, header, status, reason) in [
        ("files", format!("Bearer {foreign}"), 401, "token_issuer"),
        ("files", format!("Bearer {ended}"), 401, "token_expired"),
        ("files", format!("Bearer {unknown}"), 401, "token_key_unknown"),
        ("files", format!("Bearer {elsewhere}"), 401, "token_audience"),
        ("files", format!("Bearer {}", good.trim_end_matches(|c: char| c != '.')), 401, "token_signature"),
        ("files", "Bearer a.b.c".to_owned(), 401, "token_malformed"),
        ("keyed", format!("Bearer {good}"), 401, "token_not_taken"),
        ("tokens", format!("Bearer {key}"), 401, "key_not_taken"),
        ("files", format!("Bearer {good}\r\nX-API-Key: {key}"), 400, "keys_conflicting"),
    ] {
        let refused = stage.gateway.post(&format!("/mcp/{server}"), &[&format!("Authorization: {header}")], CALL).await;
        assert_eq!(refused.status, status, "{reason}");
        let tells = challenge(&refused).contains("resource_metadata=");
        assert_eq!(tells, status == 401 && server != "keyed", "{reason}: {}", challenge(&refused));
        assert!(status != 401 || challenge(&refused).contains(r#"error="invalid_token""#), "{reason}");
        let line = format!("portcullis_refusals_total{{reason=\"{reason}\"}}");
        assert_eq!(stage.gateway.metric(&line).await, Some(1.0), "{reason}");
    }
    assert_eq!(stage.gateway.post(&format!("/mcp/files?access_token={good}"), &[], CALL).await.status, 400);
    assert_eq!(stage.gateway.post("/mcp/closed", &[&format!("X-API-Key: {key}")], CALL).await.status, 200);
    // Neither the server nor anything that is kept has any token in it.
    let sent: String =
        stage.upstream.connections().iter().map(|c| String::from_utf8_lossy(&c.bytes).into_owned()).collect();
    let records = serde_json::to_string(&stage.gateway.records()).unwrap();
    for token in [&good, &foreign, &ended, &unknown, &elsewhere] {
        let secret = token.rsplit('.').next().unwrap();
        for (place, text) in [("upstream", &sent), ("log", &stage.gateway.log()), ("record", &records)] {
            assert!(!text.contains(secret), "{place}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_scope_is_named_with_all_that_are_needed() {
    let stage = Stage::start().await;
    let with = |scope: &str| stage.token("scoped", &json!({ "scope": scope }));
    let metadata = r#"resource_metadata="https://gw.example/.well-known/oauth-protected-resource/mcp/scoped""#;
    for (scope, body, needed) in [
        ("", LIST, Some("mcp")),
        ("mcp", LIST, None),
        ("mcp", CALL, Some("mcp echo:call")),
        ("echo:call", CALL, Some("mcp echo:call")),
        ("x echo:call mcp", CALL, None),
    ] {
        let answer = stage.post("scoped", &with(scope), body).await;
        let Some(needed) = needed else {
            assert_eq!(answer.status, 200, "{scope}: {}", answer.text());
            continue;
        };
        let expected =
            format!(r#"Bearer realm="portcullis", error="insufficient_scope", scope="{needed}", {metadata}"#);
        assert_eq!((answer.status, challenge(&answer)), (403, expected.as_str()), "{scope}");
    }
    let refused = stage.gateway.wait_for_record("refused", |_| true);
    assert_eq!(
        (&refused["reason"], &refused["rule"]),
        (&json!("scope_missing"), &json!("servers.scoped.required_scopes"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standing_stream_ends_with_its_token() {
    let stage = Stage::start().await;
    stage.upstream.on("GET", Reply::standing(Vec::new()));
    let token = stage.token("files", &json!({ "exp": issuer::now() + 6 }));
    let mut connection = Connection::open(stage.gateway.data).await;
    let begun = Instant::now();
    let head = format!(
        "GET /mcp/files HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nMCP-Protocol-Version: 2025-06-18\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    connection.write(head).await;
    let answer = connection.answer().await.unwrap();
    assert_eq!((answer.status, answer.complete), (200, true));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(12), "{took:?}");
    let result = stage.gateway.wait_for_record("result", |_| true);
    assert_eq!(result["reason"], "token_expired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_is_gone_keeps_nobody_out() {
    let stage = Stage::start().await;
    stage.issuer.stop();
    let token = stage.token("files", &json!({}));
    assert_eq!(stage.post("files", &token, CALL).await.status, 200);
    assert_eq!(stage.gateway.metric("portcullis_issuer_keys{issuer=\"idp\"}").await, Some(1.0));
    // One whose keys were never known is no reason to send a client away for good.
    let config = format!(
        "public_url = \"https://gw.example\"\n[auth.issuers.idp]\nissuer = \"{}\"\nallow_http = true\nallowed_networks = [\"127.0.0.0/8\"]\n[servers.files]\nurl = \"{}\"\n",
        stage.issuer.url(),
        stage.upstream.url(),
    );
    let gateway = Gateway::start(&config);
    let answer = gateway.post("/mcp/files", &[&format!("Authorization: Bearer {token}")], CALL).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    // Without the allowance the issuer's address is not even connected to.
    let strict = Gateway::start(&config.replace("allowed_networks = [\"127.0.0.0/8\"]\n", ""));
    strict.wait_for_log("127.0.0.1, which is loopback");
}
