//! Two workspaces with the same names behind one gateway: does each see its own, and nobody anything of the other's?

use std::fmt::Write;

use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::gateway::fresh_directory;
use crate::support::issuer::Issuer;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;
const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
const READ: &str = r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"note:a"}}"#;
const METADATA: &str = "/.well-known/oauth-protected-resource";

fn call(tool: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{}}}}}}"#)
}

/// What belongs to one of the two.
struct Side {
    upstream: Upstream,
    key: Key,
}

impl Side {
    async fn start(name: &str) -> Self {
        let upstream = Upstream::start().await;
        let tool = json!({ "name": name, "inputSchema": { "type": "object" } });
        upstream.on("tools/list", Reply::json(json!({ "tools": [tool] })));
        upstream.on("tools/call", Reply::text(name));
        upstream.on("resources/read", Reply::json(json!({ "contents": [{ "uri": "note:a", "text": name }] })));
        upstream
            .on("GET", Reply::standing(vec![Event::notification("notifications/message", json!({ "data": name }))]));
        Self { upstream, key: gateway::make_key("ci") }
    }

    /// Its tables: the servers `a` and `alone` (another name on each side), and the key `ci` of a team and an agent.
    fn tables(&self, prefix: &str, alone: &str, more: &str) -> String {
        let mut tables = String::new();
        for server in ["a", alone] {
            let url = self.upstream.url();
            writeln!(tables, "[{prefix}servers.{server}]\nurl = \"{url}\"\naccess_groups = [\"g\"]").unwrap();
        }
        let digest = &self.key.digest;
        writeln!(
            tables,
            "[{prefix}keys.ci]\ndigest = \"{digest}\"\nteam = \"t\"\nagent = \"bot\"\nmcp_servers = [\"*\"]\n\
             [{prefix}teams.t]\n[{prefix}agents.bot]\n{more}"
        )
        .unwrap();
        tables
    }
}

struct Stage {
    top: Side,
    acme: Side,
    gateway: Gateway,
}

impl Stage {
    async fn start() -> Self {
        Self::with("", "", "").await
    }

    /// With further lines of both keys and tables.
    async fn with(listen: &str, of_key: &str, tables: &str) -> Self {
        let (top, acme) = (Side::start("of-top").await, Side::start("of-acme").await);
        let limits = |prefix: &str| format!("[{prefix}keys.ci.limits]\n{of_key}\n");
        let config = format!(
            "{listen}\n[routes.fixed]\n\"/tools\" = \"a\"\n{}{}{tables}",
            top.tables("", "top-only", &limits("")),
            acme.tables("workspaces.acme.", "acme-only", &limits("workspaces.acme.")),
        );
        Self { top, acme, gateway: Gateway::start(&config) }
    }

    /// Posts as the key of one of the two.
    async fn post(&self, side: &Side, path: &str, more: &[&str], body: &str) -> Answer {
        let key = format!("X-API-Key: {}", side.key.key);
        let headers: Vec<&str> = [key.as_str()].iter().chain(more).copied().collect();
        self.gateway.post(path, &headers, body).await
    }

    /// Opens a stream, or ends a session, as the key of one of the two.
    async fn ask(&self, side: &Side, method: &str, path: &str, more: &[&str]) -> Connection {
        let more: String = more.iter().map(|line| format!("{line}\r\n")).collect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nX-API-Key: {}\r\n{more}\r\n",
            side.key.key
        );
        let mut connection = Connection::open(self.gateway.data).await;
        connection.write(head).await;
        connection
    }

    /// A session of one of the two on `a`, as the header that names it.
    async fn session(&self, side: &Side) -> String {
        let answer = self.post(side, "/mcp/a", &[], INITIALIZE).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        format!("Mcp-Session-Id: {}", answer.header("mcp-session-id").unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_url_leads_each_caller_to_the_server_of_its_own_workspace() {
    let stage = Stage::start().await;
    for (side, other, word) in [(&stage.top, &stage.acme, "of-top"), (&stage.acme, &stage.top, "of-acme")] {
        let before = other.upstream.requests().len();
        for path in ["/mcp/a", "/gateway/mcp/a", "/a/mcp", "/any/a/v1/stream", "/tools"] {
            let called = stage.post(side, path, &[], &call("x")).await;
            assert_eq!(called.json()["result"]["content"][0]["text"], word, "{path}");
        }
        assert_eq!(stage.post(side, "/mcp/a", &[], LIST).await.json()["result"]["tools"][0]["name"], word);
        assert_eq!(stage.post(side, "/mcp/a", &[], READ).await.json()["result"]["contents"][0]["text"], word);
        let mut stream = stage.ask(side, "GET", "/mcp/a", &["MCP-Protocol-Version: 2025-06-18"]).await;
        assert!(stream.read_until("\"data\"").await.contains(word));
        assert_eq!(other.upstream.requests().len(), before, "{word}");
    }
    // The record says names as they are called in their workspace, and which that is.
    for (workspace, principal, rule) in
        [("default", "key:ci", "keys.ci.mcp_servers"), ("acme", "key:acme/ci", "workspaces.acme.keys.ci.mcp_servers")]
    {
        let record = stage.gateway.wait_for_record("intent", |record| record["workspace"] == workspace);
        let names = ["server", "agent", "principal", "rule"].map(|field| record[field].as_str().unwrap().to_owned());
        assert_eq!((names, &record["teams"]), (["a", "bot", principal, rule].map(String::from), &json!(["t"])));
    }
    for server in ["a", "acme/a"] {
        let counted = stage.gateway.metrics().await;
        let label = format!("server=\"{server}\"");
        assert!(counted.lines().any(|line| line.contains("requests_by_protocol") && line.contains(&label)), "{server}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_another_workspace_has_is_as_good_as_nowhere() {
    let stage = Stage::start().await;
    for (side, other, name) in [(&stage.top, &stage.acme, "acme-only"), (&stage.acme, &stage.top, "top-only")] {
        let before = other.upstream.requests().len();
        let session = stage.session(side).await;
        for body in [&call("x"), LIST, READ, INITIALIZE] {
            let there = stage.post(side, &format!("/mcp/{name}"), &[], body).await;
            let nowhere = stage.post(side, "/mcp/nowhere", &[], body).await;
            assert_ne!(there.json()["error"], Value::Null, "{name}: {}", there.text());
            assert_eq!((there.status, there.text()), (nowhere.status, nowhere.text()), "{name}");
        }
        for (method, path) in [("GET", "/mcp/X"), ("GET", "/mcp/X/sse"), ("DELETE", "/mcp/X")] {
            let mut answers = Vec::new();
            for name in [name, "nowhere"] {
                let path = path.replace('X', name);
                let answer = stage.ask(side, method, &path, &[&session]).await.answer().await.unwrap();
                answers.push((answer.status, answer.text()));
            }
            assert!(answers[0] == answers[1] && answers[0].0 >= 400, "{method} {path}: {answers:?}");
        }
        // Nor is it reached by the name that the gateway itself has for it.
        for path in ["/mcp/acme/a", "/mcp/acme%2Fa", "/acme/a/mcp", "/mcp/default/a"] {
            assert!(stage.post(side, path, &[], LIST).await.status >= 400, "{path}");
        }
        assert_eq!(other.upstream.requests().len(), before, "{name}");
    }
    // Who shows nothing is in `default`, and nothing there is public.
    assert_eq!(stage.gateway.post("/mcp/acme-only", &[], LIST).await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_of_one_workspace_opens_in_another() {
    let stage = Stage::start().await;
    let (of_top, of_acme) = (stage.session(&stage.top).await, stage.session(&stage.acme).await);
    for (side, own, others) in [(&stage.top, &of_top, &of_acme), (&stage.acme, &of_acme, &of_top)] {
        assert_eq!(stage.post(side, "/mcp/a", &[own], LIST).await.status, 200);
        assert_eq!(stage.post(side, "/mcp/a", &[others], LIST).await.status, 404);
        for method in ["GET", "DELETE"] {
            assert_eq!(stage.ask(side, method, "/mcp/a", &[others]).await.answer().await.unwrap().status, 404);
        }
    }
    // The URL of an HTTP+SSE conversation.
    let mut stream = stage.ask(&stage.acme, "GET", "/mcp/a/sse", &[]).await;
    let opened = stream.read_until("\n\n").await;
    let url = opened.split("data: ").nth(1).and_then(|rest| rest.lines().next()).unwrap().to_owned();
    assert!(url.starts_with("/mcp/a/message?sessionId="), "{url}");
    assert_eq!(stage.post(&stage.top, &url, &[], INITIALIZE).await.status, 404);
    assert_eq!(stage.post(&stage.acme, &url, &[], INITIALIZE).await.status, 202);
    // A task.
    let task = json!({ "taskId": "t-1", "status": "working", "createdAt": "2026-01-01T00:00:00Z", "lastUpdatedAt": "2026-01-01T00:00:00Z", "ttl": null });
    stage.acme.upstream.on("tools/call", Reply::json(json!({ "task": task })));
    let revision = "MCP-Protocol-Version: 2025-11-25";
    let made = stage.post(&stage.acme, "/mcp/a", &[&of_acme, revision], &call("slow")).await.json();
    let token = made["result"]["task"]["taskId"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    stage.acme.upstream.on("tasks/get", Reply::json(task.clone()));
    stage.top.upstream.on("tasks/get", Reply::json(task));
    let get = json!({ "jsonrpc": "2.0", "id": 2, "method": "tasks/get", "params": { "taskId": token } }).to_string();
    assert_eq!(stage.post(&stage.top, "/mcp/a", &[&of_top, revision], &get).await.code(), Some(-32602));
    assert_eq!(stage.top.upstream.requests_for("tasks/get").len(), 0);
    let own = stage.post(&stage.acme, "/mcp/a", &[&of_acme, revision], &get).await;
    assert_eq!((own.status, own.code()), (200, None), "{}", own.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_limits_are_counted_apart() {
    gateway::wait_for_midnight();
    let limits = "[servers.a.tools.\"x/y\".limits]\ncalls_per_day_max = 1\n\
                  [workspaces.acme.servers.a.tools.\"x/y\".limits]\ncalls_per_day_max = 1\n";
    let stage = Stage::with("", "calls_per_day_max = 3", limits).await;
    for (side, workspace, at) in [(&stage.top, "", ""), (&stage.acme, "acme/", "workspaces.acme.")] {
        for (tool, status) in [("x/y", 200), ("x/y", 429), ("x", 200), ("x", 200), ("x", 429)] {
            assert_eq!(stage.post(side, "/mcp/a", &[], &call(tool)).await.status, status, "{workspace} {tool}");
        }
        let (of_tool, of_key) = (format!("{workspace}a"), format!("key:{workspace}ci"));
        let refused = stage.gateway.wait_for_record("refused", |record| {
            record["reason"] == "tool_calls_per_day_max" && record["limit_of"].as_str().unwrap().contains(&of_tool)
        });
        assert_eq!(refused["rule"], format!("{at}servers.a.tools.\"x/y\".limits.calls_per_day_max"));
        let refused = stage.gateway.wait_for_record("refused", |record| record["limit_of"] == of_key);
        assert_eq!(refused["rule"], format!("{at}keys.ci.limits.calls_per_day_max"));
        let used = format!("portcullis_limit_used{{level=\"key\",limit=\"calls_per_day_max\",name=\"{workspace}ci\"}}");
        assert_eq!(stage.gateway.metric(&used).await, Some(3.0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_speaks_of_the_workspace_of_its_issuer() {
    let (of_top, of_acme) = (Issuer::start().await, Issuer::start().await);
    let issuer = |name: &str, issuer: &Issuer, more: &str| {
        format!(
            "[auth.issuers.{name}]\nissuer = \"{}\"\nallow_http = true\nallowed_networks = [\"127.0.0.0/8\"]\n\
             claims = {{ teams = \"groups\" }}\n{more}\n",
            issuer.url()
        )
    };
    // What `default` calls `k` takes keys alone, what acme calls so takes tokens.
    let tables = format!(
        "{}{}[servers.k]\nurl = \"{top}\"\ncredentials = \"key\"\n[servers.own]\nurl = \"{top}\"\ncredentials = \"key\"\n\
         [servers.scoped]\nurl = \"{top}\"\nrequired_scopes = [\"deep\"]\n[workspaces.acme.servers.k]\nurl = \"{acme}\"\n\
         required_scopes = [\"deep\"]\n[workspaces.acme.teams.crew]\nmcp_servers = [\"*\"]\n[teams.crew]\nmcp_servers = [\"*\"]\n",
        issuer("top", &of_top, ""),
        issuer("acme", &of_acme, "workspace = \"acme\""),
        top = "http://127.0.0.1:9/mcp",
        acme = "http://127.0.0.1:9/mcp",
    );
    let stage = Stage::with("public_url = \"https://gw.example\"", "", &tables).await;
    stage.gateway.wait_for_log("the issuer's keys are known");
    let token = |issuer: &Issuer, claims: Value| {
        let mut all = json!({ "aud": "https://gw.example/mcp/a", "groups": ["crew"] });
        claims.as_object().unwrap().iter().for_each(|(name, value)| all[name] = value.clone());
        format!("Authorization: Bearer {}", issuer.token(&all))
    };
    for (issuer, word) in [(&of_top, "of-top"), (&of_acme, "of-acme")] {
        let good = token(issuer, json!({}));
        for _ in 0..2 {
            let called = stage.gateway.post("/mcp/a", &[&good], &call("x")).await;
            assert_eq!(called.json()["result"]["content"][0]["text"], word, "{}", called.text());
        }
        // What a token names is not made another workspace's by writing it so.
        for group in ["acme/crew", "default/crew", "/crew"] {
            let called =
                stage.gateway.post("/mcp/a", &[&token(issuer, json!({ "groups": [group] }))], &call("x")).await;
            assert!(called.text().contains("Unknown"), "{group}: {}", called.text());
        }
        // The same path means two servers; a token for it is good for that of its own workspace alone.
        assert_eq!(stage.gateway.post("/mcp/top-only", &[&good], &call("x")).await.status, 401);
    }
    // What is said before it is known who calls is the same for every name, whichever workspace has it.
    let metadata = |path: &str| {
        client::send(stage.gateway.data, format!("GET {METADATA}{path} HTTP/1.1\r\nHost: gw.example\r\n\r\n"))
    };
    let told = async |name: &str| {
        let path = format!("/mcp/{name}");
        let said = |answer: &Answer| {
            let challenge = answer.header("www-authenticate").unwrap_or_default();
            (answer.status, format!("{challenge} {}", answer.text()).replace(&path, "/mcp/nowhere"))
        };
        let stranger = stage.gateway.post(&path, &["Authorization: Bearer a.b.c"], &call("x")).await;
        let nobody = stage.gateway.post(&path, &[], &call("x")).await;
        [metadata(&path).await, stranger, nobody].map(|answer| said(&answer))
    };
    let nowhere = told("nowhere").await;
    assert_eq!(nowhere.each_ref().map(|(status, _)| *status), [200, 401, 401], "{nowhere:?}");
    for name in ["k", "own", "scoped", "a", "top-only", "acme-only"] {
        assert_eq!(told(name).await, nowhere, "{name}");
    }
    let k = metadata("/mcp/k").await;
    assert!(k.text().contains(&of_acme.url()) && !k.text().contains("deep"), "{}", k.text());
    let anonymous = stage.gateway.post("/mcp/k", &[], &call("x")).await;
    let challenge = anonymous.header("www-authenticate").unwrap().to_owned();
    assert!(challenge.contains("oauth-protected-resource/mcp/k") && !challenge.contains("deep"), "{challenge}");
    let for_k = json!({ "aud": "https://gw.example/mcp/k" });
    let of_top = stage.gateway.post("/mcp/k", &[&token(&of_top, for_k.clone())], &call("x")).await;
    assert_eq!(of_top.status, 401, "keys alone are taken there");
    stage.gateway.wait_for_record("refused", |record| record["reason"] == "token_not_taken");
    let of_acme = stage.gateway.post("/mcp/k", &[&token(&of_acme, for_k)], &call("x")).await;
    assert_eq!(of_acme.status, 403);
    assert!(of_acme.header("www-authenticate").unwrap().contains("scope=\"deep\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_record_is_decided_again_in_its_workspace() {
    let mut stage = Stage::start().await;
    for side in [&stage.top, &stage.acme] {
        for path in ["/mcp/a", "/mcp/acme-only"] {
            stage.post(side, path, &[], &call("x")).await;
        }
    }
    stage.gateway.signal("TERM");
    stage.gateway.wait();
    let config = stage.gateway.directory.join("portcullis.toml").display().to_string();
    let (code, replayed, error) = gateway::run(&["replay", "--json", "--config", &config]);
    let replayed: Value = serde_json::from_str(&replayed).unwrap_or_else(|_| panic!("{error}"));
    let counted = ["decisions", "alike", "refused", "permitted", "unclear"].map(|count| replayed[count].clone());
    assert_eq!((code, counted), (Some(0), [4, 4, 0, 0, 0].map(Value::from)), "{replayed}");
    let (_, covered, error) = gateway::run(&["coverage", "--json", "--config", &config]);
    let covered: Value = serde_json::from_str(&covered).unwrap_or_else(|_| panic!("{error}"));
    assert_eq!(covered["unused"], json!([]), "every key called, and every list granted something");
    let called: Vec<&str> =
        covered["unmentioned"].as_array().unwrap().iter().map(|it| it["server"].as_str().unwrap()).collect();
    assert_eq!(called, ["a", "acme/a", "acme/acme-only"]);
}

#[test]
fn explain_and_test_ask_in_a_workspace() {
    let directory = fresh_directory();
    let (config, cases) = (directory.join("portcullis.toml"), directory.join("cases.toml"));
    let digest = |key: char| format!("digest = \"pk1_{key}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"");
    let text = format!(
        "[servers.a]\nurl = \"http://127.0.0.1:9/mcp\"\n[keys.ci]\n{}\nmcp_servers = []\n\
         [workspaces.acme.servers.a]\nurl = \"http://127.0.0.1:9/mcp\"\n[workspaces.acme.keys.ci]\n{}\nteam = \"t\"\n\
         [workspaces.acme.teams.t]\nmcp_servers = [\"a\"]\n",
        digest('A'),
        digest('B')
    );
    std::fs::write(&config, text).unwrap();
    let (config, mut ask) =
        (config.display().to_string(), vec!["explain", "--key", "ci", "--server", "a", "--tool", "x"]);
    ask.extend(["--config", &config]);
    let (code, said, _) = gateway::run(&ask);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("rule:  keys.ci.mcp_servers") && said.contains("portcullis.toml:5:"), "{said}");
    let (code, said, error) = gateway::run(&[ask.as_slice(), &["--workspace", "acme"]].concat());
    assert_eq!(code, Some(0), "{said}{error}");
    assert!(
        said.contains("rule:  workspaces.acme.teams.t.mcp_servers") && said.contains("portcullis.toml:12:"),
        "{said}"
    );
    let (code, _, error) = gateway::run(&[ask.as_slice(), &["--workspace", "acne"]].concat());
    assert!(code == Some(1) && error.contains("no workspace is named `acne`"), "{code:?} {error}");
    let case = |lines: &str, expect: &str| {
        format!("[[case]]\nexpect = \"{expect}\"\n[case.call]\nkey = \"ci\"\nserver = \"a\"\n{lines}\n")
    };
    std::fs::write(&cases, case("", "refused") + &case("workspace = \"acme\"", "permitted")).unwrap();
    let (code, said, error) = gateway::run(&["test", "--config", &config, &cases.display().to_string()]);
    assert_eq!((code, said.trim()), (Some(0), "2 passed, 0 failed"), "{error}");
    std::fs::remove_dir_all(directory).unwrap();
}
