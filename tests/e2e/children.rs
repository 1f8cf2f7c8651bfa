//! Keys that other keys mint, at a real gateway: how they are asked for, what they may do, when they end, and what is on record.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::clock::within;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const PATH: &str = "/v1/mcp/keys";
/// Within how long whoever is turned off must be gone.
const ENDED: Duration = Duration::from_secs(1);
const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#;
const STREAM: &str = "GET /mcp/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n";

struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    boss: Key,
    config: String,
}

impl Stage {
    /// Servers `a`, `b` and `c`; a key `boss` that reaches `a` and `b` and mints for `worker` and `helper`, two deep.
    async fn start() -> Self {
        let upstream = Upstream::start().await;
        let tool = |name: &str| json!({ "name": name, "inputSchema": { "type": "object" } });
        upstream.on("tools/list", Reply::json(json!({ "tools": [tool("get_x"), tool("put_x"), tool("never")] })));
        upstream.on("tools/call", Reply::text("done"));
        upstream.on("resources/read", Reply::json(json!({ "contents": [] })));
        upstream.on("GET", Reply::standing(Vec::new()));
        let boss = gateway::make_key("boss");
        let mut config = String::new();
        for server in ["a", "b", "c"] {
            config += &format!("[servers.{server}]\nurl = \"{}\"\n", upstream.url());
        }
        config += &format!(
            "[keys.boss]\ndigest = \"{}\"\nagent = \"boss\"\nmcp_servers = [\"a\", \"b\"]\nmay_mint = true\n\
             children = {{ depth_max = 2, agents = [\"worker\", \"helper\"] }}\n\
             [agents.boss]\n[agents.worker.servers.a]\nblocked_tools = [\"never\"]\n[agents.helper]\n[agents.other]\n",
            boss.digest
        );
        let gateway = Gateway::start(&config);
        Self { upstream, gateway, boss, config }
    }

    async fn mint_with(&self, key: &str, body: &str) -> Answer {
        self.gateway.post(PATH, &[&format!("X-API-Key: {key}")], body).await
    }

    /// A key that `key` mints.
    async fn mint(&self, key: &str, asked: Value) -> Value {
        let answer = self.mint_with(key, &asked.to_string()).await;
        assert_eq!((answer.status, answer.header("cache-control")), (201, Some("no-store")), "{}", answer.text());
        answer.json()
    }

    async fn call(&self, key: &Value, server: &str, tool: &str) -> Answer {
        let header = format!("Authorization: Bearer {}", key["key"].as_str().unwrap());
        self.gateway.post(&format!("/mcp/{server}"), &[&header], &call(tool)).await
    }
}

/// Reads a stream to its end; its connection may go on.
async fn read_to_the_end(stream: &mut Connection) {
    stream.read_until("\r\n0\r\n\r\n").await;
}

fn call(tool: &str) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": {} } })
        .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_lists_and_calls_what_its_key_may_and_is_left_and_the_chain_is_on_record() {
    let stage = Stage::start().await;
    let asked = json!({ "agent": "worker", "mcp_servers": ["a"], "mcp_tool_permissions": { "a": ["get_*", "never"] }, "seconds": 60 });
    let child = stage.mint(&stage.boss.key, asked).await;
    let id = child["id"].as_str().unwrap();
    let name = format!("worker#{id}");
    assert_eq!(child["principal"], format!("key:boss>{name}"));
    assert_eq!((&child["chain"], &child["agent"]), (&json!(["key:boss", name]), &json!("worker")));
    assert!(
        (59..=60).contains(&child["expires_in"].as_u64().unwrap()) && child["expires"].as_str().unwrap().ends_with('Z')
    );

    // In every header a key may stand in.
    for header in ["Authorization: Bearer ", "X-API-Key: ", "API-Key: "] {
        let header = format!("{header}{}", child["key"].as_str().unwrap());
        let listed = stage.gateway.post("/mcp/a", &[&header], LIST).await.json();
        let names: Vec<&Value> =
            listed["result"]["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
        assert_eq!(names, ["get_x"], "what the agent may not do is not listed either");
    }
    assert_eq!(stage.call(&child, "a", "get_x").await.code(), None);
    for (server, tool) in [("a", "put_x"), ("a", "never"), ("b", "get_x"), ("c", "get_x"), ("nowhere", "get_x")] {
        assert_eq!(stage.call(&child, server, tool).await.code(), Some(-32602), "{server} {tool}");
    }
    let resource = r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"note:///a"}}"#;
    let header = format!("X-API-Key: {}", child["key"].as_str().unwrap());
    assert_eq!(
        stage.gateway.post("/mcp/a", &[&header], resource).await.code(),
        Some(-32002),
        "single tools come alone"
    );

    let minting = stage.gateway.wait_for_record("intent", |record| record["path"] == PATH);
    assert_eq!((&minting["principal"], &minting["reason"]), (&json!("key:boss"), &json!("key_may_mint")));
    assert_eq!((&minting["rule"], &minting["minted"]), (&json!("keys.boss.may_mint"), &child["chain"]));
    assert_eq!((&minting["minted_servers"], &minting["minted_tools"]), (&json!(["a"]), &json!(["a/get_*", "a/never"])));
    assert_eq!(minting["minted_until"].as_str().unwrap()[..19], child["expires"].as_str().unwrap()[..19]);
    stage.gateway.wait_for_record("result", |record| record["intent"] == minting["seq"] && record["status"] == 201);
    let used = stage.gateway.wait_for_record("intent", |record| record["tool"] == "get_x");
    assert_eq!((&used["principal"], &used["chain"]), (&child["principal"], &child["chain"]));
    assert_eq!((&used["credential"], &used["agent"]), (&json!("child_key"), &json!("worker")));
    let refused = stage.gateway.wait_for_record("refused", |record| record["tool"] == "put_x");
    assert_eq!((&refused["chain"], &refused["rule"]), (&child["chain"], &json!("keys.boss.may_mint")));
    let text: String = stage.gateway.records().iter().map(Value::to_string).collect();
    assert!(!text.contains("ptc_m_") && !stage.gateway.log().contains("ptc_m_"), "the key itself is nowhere");
    for request in stage.upstream.requests() {
        assert!(!format!("{request:?}").contains("ptc_m_"), "nor does it go to a server");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_minted_is_refused_and_says_no_more_than_its_holder_may_know() {
    let stage = Stage::start().await;
    let boss = stage.boss.key.as_str();
    for (asked, status, text) in [
        (json!({ "agent": "other" }), 403, "there is no such agent for this key"),
        (json!({ "agent": "nobody" }), 403, "there is no such agent for this key"),
        (json!({ "agent": "worker", "mcp_servers": ["c"] }), 403, "there is no such server for this key"),
        (json!({ "agent": "worker", "mcp_servers": ["nowhere"] }), 403, "there is no such server for this key"),
        (json!({ "agent": "worker", "mcp_servers": ["*"] }), 403, "there is no such server for this key"),
        (
            json!({ "agent": "worker", "mcp_servers": ["a"], "mcp_tool_permissions": { "b": ["x"] } }),
            403,
            "there is no such tool for this key",
        ),
        (json!({ "agent": "worker", "seconds": 3601 }), 400, "`seconds` is more than this key may give"),
        (json!({ "agent": "worker", "more": 1 }), 400, "possible are"),
        (json!({}), 400, "`agent` is needed"),
    ] {
        let answer = stage.mint_with(boss, &asked.to_string()).await;
        assert_eq!((answer.status, answer.header("cache-control")), (status, Some("no-store")), "{asked}");
        assert!(answer.json()["error"].as_str().unwrap().starts_with(text), "{asked}: {}", answer.text());
    }
    let large = format!("{{\"agent\":\"worker\",\"x\":\"{}\"}}", "x".repeat(8 * 1024));
    let answer = stage.mint_with(boss, &large).await;
    assert_eq!((answer.status, answer.header("cache-control")), (413, Some("no-store")));
    let names: Vec<String> = (0..64).map(|at| format!("{at}{}", "x".repeat(40))).collect();
    let long = json!({ "agent": "worker", "mcp_tool_permissions": { "a": names } }).to_string();
    let answer = stage.mint_with(boss, &long).await;
    assert_eq!(
        (answer.status, answer.json()["error"].as_str().unwrap().split(':').next()),
        (400, Some("the key would be too long"))
    );
    for (key, status) in [("X-API-Key: ptc_m_AAAA", 401), ("X-Nothing: 1", 401), ("Authorization: Bearer a.b.c", 401)] {
        let answer = stage.gateway.post(PATH, &[key], r#"{"agent":"worker"}"#).await;
        assert_eq!((answer.status, answer.header("cache-control")), (status, Some("no-store")), "{key}");
        assert!(answer.json()["error"].is_string() && answer.header("www-authenticate").is_some(), "{key}");
    }
    let get = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {boss}\r\n\r\n");
    let answer = client::send(stage.gateway.data, get).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let of_page = [&format!("X-API-Key: {boss}"), "Origin: https://evil.example"];
    let page = stage.gateway.post(PATH, &of_page, r#"{"agent":"worker"}"#).await;
    assert_eq!(page.status, 403, "no page asks");
    for reason in ["mint_agent", "mint_server", "mint_tool", "mint_request"] {
        stage
            .gateway
            .wait_for_record("refused", |record| record["reason"] == reason && record["principal"] == "key:boss");
    }
    assert!(!stage.gateway.records().iter().any(|record| record["minted"].is_array()));
    // What was asked for is on record.
    let asked = stage.gateway.wait_for_record("refused", |record| record["asked_servers"] == json!(["nowhere"]));
    assert_eq!(
        (&asked["reason"], &asked["asked_agent"], &asked["rule"]),
        (&json!("mint_server"), &json!("worker"), &json!("keys.boss.may_mint"))
    );
    stage.gateway.wait_for_record("refused", |record| {
        (&record["asked_agent"], &record["asked_tools"]) == (&json!("worker"), &json!(["b/x"]))
    });
    stage
        .gateway
        .wait_for_record("refused", |record| record["asked_agent"] == "other" && record["reason"] == "mint_agent");
    // Where no key may mint there is no such path.
    stage.gateway.reload(&stage.config.replace("may_mint = true", "may_mint = false"));
    let mut status = 0;
    for _ in 0..100 {
        status = stage.mint_with(boss, r#"{"agent":"worker"}"#).await.status;
        if status == 404 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_of_children_are_narrower_still_and_no_deeper_than_may_be() {
    let stage = Stage::start().await;
    let child = stage.mint(&stage.boss.key, json!({ "agent": "worker", "mcp_servers": ["a"], "seconds": 60 })).await;
    let text = child["key"].as_str().unwrap();
    let wider = stage.mint_with(text, &json!({ "agent": "helper", "mcp_servers": ["b"] }).to_string()).await;
    assert_eq!(wider.status, 403);
    let second = stage.mint(text, json!({ "agent": "helper", "seconds": 3600 })).await;
    assert!(second["expires_in"].as_u64().unwrap() <= 60, "never later than who minted it");
    assert_eq!(second["chain"].as_array().unwrap().len(), 3);
    let third = stage.mint_with(second["key"].as_str().unwrap(), r#"{"agent":"helper"}"#).await;
    assert_eq!(
        (third.status, third.json()["error"].clone()),
        (403, json!("keys that were minted so often may mint no other"))
    );
    assert_eq!(stage.call(&second, "a", "get_x").await.code(), None);
    assert_eq!(
        stage.call(&second, "a", "never").await.code(),
        Some(-32602),
        "what the first agent may not, the second may not"
    );
    assert_eq!(stage.call(&second, "b", "get_x").await.code(), Some(-32602));
    let used = stage.gateway.wait_for_record("intent", |record| record["tool"] == "get_x");
    assert_eq!((&used["chain"], &used["agent"]), (&second["chain"], &json!("helper")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_children_of_one_key_do_not_open_each_others_sessions() {
    let stage = Stage::start().await;
    stage.upstream.on("initialize", Reply::json(json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": { "name": "s", "version": "1" } })).header("mcp-session-id", "s1"));
    let initialize = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": { "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } } });
    let one = stage.mint(&stage.boss.key, json!({ "agent": "helper" })).await;
    let two = stage.mint(&stage.boss.key, json!({ "agent": "helper" })).await;
    let keys = [&one, &two].map(|child| format!("X-API-Key: {}", child["key"].as_str().unwrap()));
    let opened = stage.gateway.post("/mcp/a", &[&keys[0]], &initialize.to_string()).await;
    let session = format!("Mcp-Session-Id: {}", opened.header("mcp-session-id").unwrap());
    assert_eq!(stage.gateway.post("/mcp/a", &[&keys[0], &session], &call("get_x")).await.status, 200);
    assert_eq!(stage.gateway.post("/mcp/a", &[&keys[1], &session], &call("get_x")).await.status, 404);
    let boss = format!("X-API-Key: {}", stage.boss.key);
    assert_eq!(stage.gateway.post("/mcp/a", &[&boss, &session], &call("get_x")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_ends_with_its_key_and_so_do_its_streams_within_a_second() {
    let other = gateway::make_key("other");
    for (what, old, new) in [
        ("rotation", "digest = \"{boss}\"", "digest = \"{other}\""),
        ("turning off", "may_mint = true", "may_mint = true\ndisabled = true"),
        ("expiry", "may_mint = true", "may_mint = true\nexpires = \"2020-01-01T00:00:00Z\""),
        ("networks", "may_mint = true", "may_mint = true\nallowed_sources = [\"192.0.2.0/24\"]"),
        ("minting", "may_mint = true", "may_mint = false"),
        ("its agent", "[agents.helper]", "[agents.helper]\ndisabled = true"),
        ("itself", "depth_max = 2", "depth_max = 2, revoked = [\"{id}\"]"),
    ] {
        let stage = Stage::start().await;
        let child = stage.mint(&stage.boss.key, json!({ "agent": "helper" })).await;
        let sibling = stage.mint(&stage.boss.key, json!({ "agent": "worker" })).await;
        let key = child["key"].as_str().unwrap();
        let mut stream = Connection::open(stage.gateway.data).await;
        stream.write(format!("{STREAM}X-API-Key: {key}\r\n\r\n")).await;
        stream.read_until("text/event-stream").await;
        assert_eq!(stage.call(&child, "a", "get_x").await.status, 200, "{what}");
        // Any other change leaves it alone.
        stage.gateway.reload(&format!("{}[teams.t]\n", stage.config));
        let goes_on = tokio::time::timeout(Duration::from_millis(300), read_to_the_end(&mut stream)).await.is_err();
        assert!(goes_on, "{what}");
        let fill = |text: &str| {
            let text = text.replace("{boss}", &stage.boss.digest).replace("{other}", &other.digest);
            text.replace("{id}", child["id"].as_str().unwrap())
        };
        assert!(stage.config.contains(&fill(old)), "{what}");
        stage.gateway.reload(&stage.config.replacen(&fill(old), &fill(new), 1));
        assert!(within(ENDED, read_to_the_end(&mut stream)).await.is_some(), "{what}: the stream goes on");
        stage.gateway.wait_for_record("result", |record| record["reason"] == "permission_withdrawn");
        let answer = stage.call(&child, "a", "get_x").await;
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        if what == "itself" {
            assert_eq!(stage.call(&sibling, "a", "get_x").await.code(), None, "others go on");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_whose_agent_is_gone_has_ended() {
    let stage = Stage::start().await;
    let config = stage.config.replace(", agents = [\"worker\", \"helper\"]", "");
    stage.gateway.reload(&config);
    let child = stage.mint(&stage.boss.key, json!({ "agent": "helper" })).await;
    assert_eq!(stage.call(&child, "a", "get_x").await.status, 200);
    stage.gateway.reload(&config.replace("[agents.helper]\n", ""));
    stage.gateway.wait_for_log("configuration reloaded");
    let mut answer = stage.call(&child, "a", "get_x").await;
    for _ in 0..100 {
        if answer.status != 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer = stage.call(&child, "a", "get_x").await;
    }
    assert_eq!(answer.status, 401, "{}", answer.text());
    stage.gateway.wait_for_record("refused", |record| record["reason"] == "key_revoked");
    let answer = stage.mint_with(child["key"].as_str().unwrap(), r#"{"agent":"worker"}"#).await;
    assert_eq!(answer.status, 401, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_outlives_a_restart_and_ends_at_its_time_with_its_stream() {
    let mut stage = Stage::start().await;
    let long = stage.mint(&stage.boss.key, json!({ "agent": "helper" })).await;
    stage.gateway.kill();
    stage.gateway.restart();
    assert_eq!(stage.call(&long, "a", "get_x").await.code(), None, "no node keeps anything of it");
    let short = stage.mint(&stage.boss.key, json!({ "agent": "helper", "seconds": 5 })).await;
    let mut stream = Connection::open(stage.gateway.data).await;
    stream.write(format!("{STREAM}X-API-Key: {}\r\n\r\n", short["key"].as_str().unwrap())).await;
    stream.read_until("text/event-stream").await;
    assert!(within(Duration::from_secs(9), read_to_the_end(&mut stream)).await.is_some(), "the stream goes on");
    stage.gateway.wait_for_record("result", |record| record["reason"] == "key_expired");
    let answer = stage.call(&short, "a", "get_x").await;
    assert_eq!((answer.status, answer.text().contains("the API key is not known")), (401, true));
    stage.gateway.wait_for_record("refused", |record| record["reason"] == "key_expired");
    // What listens to operators takes no key of any kind.
    let header = format!("X-API-Key: {}", long["key"].as_str().unwrap());
    let answer =
        client::send(stage.gateway.admin, client::post(PATH, &[&header, "Connection: close"], r#"{"agent":"helper"}"#))
            .await;
    assert!(answer.status == 404 || answer.status == 405, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_use_what_is_their_keys() {
    gateway::wait_for_midnight();
    let stage = Stage::start().await;
    let limited = format!("{}[limits.each_caller]\ncalls_per_day_max = 3\n", stage.config);
    let gateway = Gateway::start(&limited.replace("[agents.boss]\n", "[agents.boss]\nlimits.calls_per_day_max = 2\n"));
    let stage = Stage { gateway, config: limited, ..stage };
    let mut children = Vec::new();
    for agent in ["worker", "helper", "helper"] {
        children.push(stage.mint(&stage.boss.key, json!({ "agent": agent })).await);
    }
    let statuses: Vec<u16> = {
        let mut statuses = Vec::new();
        for child in &children {
            statuses.push(stage.call(child, "a", "get_x").await.status);
        }
        statuses
    };
    assert_eq!(statuses, [200, 200, 429], "the agent that invoked them has two calls a day");
    let refused = stage.gateway.wait_for_record("refused", |record| record["limit_of"].is_string());
    assert_eq!((&refused["limit_of"], &refused["reason"]), (&json!("agent:boss"), &json!("agent_calls_per_day_max")));
    stage.gateway.reload(&stage.config);
    let mut last = Value::Null;
    for _ in 0..100 {
        let answer = stage.call(&children[2], "a", "get_x").await;
        if answer.status == 200 {
            let fourth = stage.call(&children[0], "a", "get_x").await;
            assert_eq!(fourth.status, 429, "each caller has three calls, and all of these are one");
            last = stage.gateway.wait_for_record("refused", |record| record["reason"] == "caller_calls_per_day_max");
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(last["limit_of"], "caller:key:boss");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_is_in_the_workspace_of_its_key_and_what_it_names_is_meant_there() {
    let (top, acme) = (Upstream::start().await, Upstream::start().await);
    for (upstream, word) in [(&top, "of-top"), (&acme, "of-acme")] {
        upstream.on("tools/call", Reply::text(word));
    }
    let boss = gateway::make_key("boss");
    let gateway = Gateway::start(&format!(
        "[servers.a]\nurl = \"{top}\"\n[servers.top-only]\nurl = \"{top}\"\n\
         [agents.worker.servers.a]\nblocked_tools = [\"get_x\"]\n[agents.of-top]\n\
         [workspaces.acme.servers.a]\nurl = \"{acme}\"\n\
         [workspaces.acme.keys.boss]\ndigest = \"{digest}\"\nmcp_servers = [\"*\"]\nmay_mint = true\n\
         children = {{ agents = [\"worker\"] }}\n\
         [workspaces.acme.agents.worker.servers.a]\nblocked_tools = [\"never\"]\n",
        top = top.url(),
        acme = acme.url(),
        digest = boss.digest
    ));
    let key = format!("X-API-Key: {}", boss.key);
    let asked = json!({ "agent": "worker", "mcp_servers": ["a"], "mcp_tool_permissions": { "a": ["get_*", "n*"] } });
    let answer = gateway.post(PATH, &[&key], &asked.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let child = answer.json();
    let name = format!("worker#{}", child["id"].as_str().unwrap());
    assert_eq!(child["principal"], format!("key:acme/boss>{name}"));
    assert_eq!((&child["chain"], &child["agent"]), (&json!(["key:acme/boss", name]), &json!("worker")));
    for asked in [
        json!({ "agent": "of-top" }),
        json!({ "agent": "worker", "mcp_servers": ["top-only"] }),
        json!({ "agent": "worker", "mcp_servers": ["acme/a"] }),
        json!({ "agent": "worker", "mcp_servers": ["default/a"] }),
        json!({ "agent": "default/worker" }),
    ] {
        assert_eq!(gateway.post(PATH, &[&key], &asked.to_string()).await.status, 403, "{asked}");
    }

    let header = format!("X-API-Key: {}", child["key"].as_str().unwrap());
    let called = gateway.post("/mcp/a", &[&header], &call("get_x")).await;
    assert_eq!(
        called.json()["result"]["content"][0]["text"],
        "of-acme",
        "the agents of that workspace restrict it alone"
    );
    for (path, tool) in [("/mcp/a", "never"), ("/mcp/a", "put_x"), ("/mcp/top-only", "get_x")] {
        assert_eq!(gateway.post(path, &[&header], &call(tool)).await.code(), Some(-32602), "{path} {tool}");
    }
    assert!(top.requests().is_empty(), "nothing of it goes to another workspace's servers");

    let minting = gateway.wait_for_record("intent", |record| record["path"] == PATH);
    assert_eq!(
        (&minting["workspace"], &minting["rule"]),
        (&json!("acme"), &json!("workspaces.acme.keys.boss.may_mint"))
    );
    assert_eq!((&minting["minted"], &minting["minted_servers"]), (&child["chain"], &json!(["a"])));
    assert_eq!(minting["minted_tools"], json!(["a/get_*", "a/n*"]));
    let used = gateway.wait_for_record("intent", |record| record["tool"] == "get_x");
    assert_eq!((&used["workspace"], &used["agent"], &used["server"]), (&json!("acme"), &json!("worker"), &json!("a")));
    assert_eq!((&used["principal"], &used["chain"]), (&child["principal"], &child["chain"]));
}
