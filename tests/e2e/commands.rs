//! Does each command do what it says, for people and for scripts?

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::run;
use crate::support::process::Process;
use crate::support::skip::skipped;
use crate::support::upstream::Upstream;

/// A file in a directory of its own.
struct File(PathBuf);

impl File {
    fn with(text: &str) -> Self {
        let path = gateway::fresh_directory().join("portcullis.toml");
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// `file:line:column` of the first `needle`.
    fn place(&self, needle: &str) -> String {
        let text = fs::read_to_string(&self.0).unwrap();
        let (line, found) =
            text.lines().enumerate().find_map(|(line, text)| Some((line + 1, text.find(needle)?))).unwrap();
        format!("{}:{line}:{}", self.path(), found + 1)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().unwrap());
    }
}

const POLICY: &str = r#"[servers.db]
url = "http://127.0.0.1:9/mcp"
blocked_tools = ["drop_*"]

[servers.other]
url = "http://127.0.0.1:9/mcp"

[keys.ci]
digest = "pk1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
mcp_servers = ["db"]
agent = "worker"

[agents.worker.servers.db]
argument_constraints.query = [
  { arg = "sql", pattern = '^SELECT', description = "SELECT only" },
]
"#;

#[test]
fn without_a_command_the_help_is_shown() {
    let (code, out, error) = run(&[]);
    let text = format!("{out}{error}");
    assert_eq!(code, Some(2));
    for command in ["run", "check", "demo", "explain", "keys", "import", "schema"] {
        assert!(text.contains(&format!("\n  {command} ")), "{command}\n{text}");
    }
    assert_eq!(run(&["help"]).0, Some(0));
    assert_eq!(run(&["--version"]).1.trim(), concat!("portcullis ", env!("CARGO_PKG_VERSION")));
    assert_eq!(run(&["chekc"]).0, Some(2));
}

#[test]
fn check_says_what_is_wrong_and_run_says_the_same() {
    let good = File::with(POLICY);
    let (code, out, error) = run(&["check", "--config", good.path()]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(out.contains("ok, 2 servers, 1 keys, 1 agents, 0 warnings"), "{out}");

    // One mistake for each of: the form, the names, the patterns, the listeners, the keys.
    let text = POLICY
        .replace("blocked_tools", "blockd_tools")
        .replace("mcp_servers = [\"db\"]", "mcp_servers = [\"bd\"]")
        .replace("'^SELECT'", "'^(SELECT'")
        .replace("pk1_AAAA", "pk1_");
    let bad = File::with(&format!("{text}\n[listen]\nadmin = \"0.0.0.0:1\"\n"));
    let (code, out, checked) = run(&["check", "--config", bad.path()]);
    assert_eq!((code, out.as_str()), (Some(3), ""));
    for (place, words) in [
        ("blockd_tools", "did you mean `blocked_tools`?"),
        ("\"bd\"", "there is no server `bd`"),
        ("'^(SELECT'", "(SELECT"),
        ("\"0.0.0.0:1\"", "unauthenticated"),
        ("\"pk1_", "digest"),
    ] {
        assert!(checked.contains(&bad.place(place)) && checked.contains(words), "{place}\n{checked}");
    }
    assert_eq!(run(&["run", "--config", bad.path()]), (Some(3), String::new(), checked));
    let (code, _, error) = run(&["check", "--config", "/nowhere/portcullis.toml"]);
    assert!(code == Some(3) && error.contains("/nowhere/portcullis.toml"), "{code:?} {error}");
    assert_eq!(run(&["check"]).0, Some(2));
}

#[test]
fn check_lists_every_server_that_lets_callers_without_a_key_in() {
    let file = File::with(&POLICY.replace("[servers.other]", "[servers.other]\naccess = \"public\""));
    let (code, out, error) = run(&["check", "--config", file.path()]);
    assert_eq!(code, Some(0));
    assert!(out.contains("1 warnings"), "{out}");
    assert!(
        error.starts_with("warning: callers need no key here") && error.contains(&file.place("\"public\"")),
        "{error}"
    );
    let smallest = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/portcullis.toml");
    let (code, _, error) = run(&["check", "--config", smallest.to_str().unwrap()]);
    assert!(code == Some(0) && error.contains("callers need no key here"), "{error}");
}

#[test]
fn explain_says_by_which_rule_and_where_it_stands() {
    let file = File::with(POLICY);
    let explain = |key: &str, server: &str, tool: &str, arguments: &str| {
        let command = [
            "explain",
            "--config",
            file.path(),
            "--key",
            key,
            "--server",
            server,
            "--tool",
            tool,
            "--arguments",
            arguments,
        ];
        let (code, text, _) = run(&command);
        let (again, json, error) = run(&[&command[..], &["--json"]].concat());
        assert_eq!(code, again);
        (code, text, serde_json::from_str::<Value>(&json).unwrap_or(Value::String(error)))
    };
    let rule = "agents.worker.servers.db.argument_constraints.query[0]";
    let (code, text, said) = explain("ci", "db", "query", r#"{"sql":"SELECT 1"}"#);
    assert_eq!((code, &said["decision"]), (Some(0), &json!("permitted")));
    assert!(text.starts_with("permitted: "), "{text}");
    let (code, text, said) = explain("ci", "db", "query", r#"{"sql":"DROP"}"#);
    assert_eq!(
        (code, &said["decision"], &said["reason"], &said["rule"]),
        (Some(4), &json!("refused"), &json!("argument_mismatch"), &json!(rule))
    );
    assert_eq!(said["place"], file.place("{ arg"));
    assert!(text.contains(&file.place("{ arg")) && text.contains(rule), "{text}");
    let (code, _, said) = explain("ci", "db", "drop_table", "{}");
    assert_eq!(
        (code, &said["reason"], &said["place"]),
        (Some(4), &json!("tool_blocked"), &json!(file.place("\"drop_*\"")))
    );
    let (code, _, said) = explain("ci", "other", "query", "{}");
    assert_eq!((code, &said["reason"]), (Some(4), &json!("server_not_granted")));
    let (code, _, said) = explain("ci", "bd", "query", "{}");
    assert_eq!((code, &said["decision"]), (Some(4), &json!("refused")), "{said}");
    let (code, _, said) = explain("nobody", "db", "query", "{}");
    assert!(code == Some(1) && said.as_str().unwrap().contains("no key is named `nobody`; there are: ci"), "{said}");
    let (code, _, said) = explain("ci", "db", "query", r#"{"sql":1,"sql":2}"#);
    assert!(code == Some(2) && said.as_str().unwrap().contains("duplicate"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_shown_once_and_its_table_loads() {
    let (code, out, _) =
        run(&["keys", "create", "--name", "a.b", "--team", "t", "--agent", "w", "--mcp-servers", "db,other", "--json"]);
    assert_eq!((code, out.lines().count()), (Some(0), 1));
    let made: Value = serde_json::from_str(&out).unwrap();
    let names: Vec<&String> = made.as_object().unwrap().keys().collect();
    assert_eq!(names, ["digest", "key", "toml"]);
    let (key, digest, toml) =
        (made["key"].as_str().unwrap(), made["digest"].as_str().unwrap(), made["toml"].as_str().unwrap());
    assert!(!toml.contains(key) && toml.contains(digest));
    let upstream = Upstream::start().await;
    let servers = format!(
        "[servers.db]\nurl = \"{0}\"\n[servers.other]\nurl = \"{0}\"\n[servers.third]\nurl = \"{0}\"\n[agents.w]\n[teams.t]\n",
        upstream.url()
    );
    let gateway = Gateway::start(&format!("{servers}{toml}"));
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for (server, status) in [("db", 200), ("other", 200)] {
        assert_eq!(
            gateway.post(&format!("/mcp/{server}"), &[&format!("Authorization: Bearer {key}")], ping).await.status,
            status
        );
    }
    let answer = gateway.post("/mcp/third", &[&format!("Authorization: Bearer {key}")], ping).await;
    assert!(answer.code().is_some(), "{answer:?}");
    let intent = gateway.wait_for_record("intent", |_| true);
    assert_eq!((&intent["principal"], &intent["agent"]), (&json!("key:a.b"), &json!("w")));

    let (_, again, _) = run(&["keys", "create", "--name", "a.b", "--json"]);
    assert_ne!(serde_json::from_str::<Value>(&again).unwrap()["key"], made["key"]);
    let (code, text, _) = run(&["keys", "create", "--name", "plain"]);
    assert!(code == Some(0) && text.contains("[keys.plain]") && text.contains("shown this once"), "{text}");
    assert_eq!(run(&["keys", "create", "--name", "not a name"]).0, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealing_keys_rotate_without_cutting_sessions() {
    let seal = || {
        let (code, out, _) = run(&["keys", "seal"]);
        assert_eq!((code, out.lines().count()), (Some(0), 1));
        out.trim().to_owned()
    };
    let (old, new) = (seal(), seal());
    assert_ne!(old, new);
    let upstream = Upstream::start().await;
    let key = gateway::make_key("ci");
    let config = |keys: &[&String]| {
        format!(
            "[servers.a]\nurl = \"{}\"\n[keys.ci]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\n[seal]\nkeys = {keys:?}\n",
            upstream.url(),
            key.digest
        )
    };
    let gateway = Gateway::start(&config(&[&old]));
    let owner = format!("X-API-Key: {}", key.key);
    let initialize = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": { "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } } }).to_string();
    let open =
        async || gateway.post("/mcp/a", &[&owner], &initialize).await.header("mcp-session-id").unwrap().to_owned();
    let ping = async |token: &str| {
        gateway
            .post(
                "/mcp/a",
                &[&owner, &format!("Mcp-Session-Id: {token}")],
                r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
            )
            .await
            .status
    };
    let before = open().await;
    let mut reloads = 0;
    let mut reload = |keys: &[&String]| {
        gateway.reload(&config(keys));
        reloads += 1;
        gateway::wait_until("a reload", || gateway.log().matches("configuration reloaded").count() == reloads);
    };
    assert_eq!(ping(&before).await, 200);
    reload(&[&new, &old]);
    let after = open().await;
    assert_eq!((ping(&before).await, ping(&after).await), (200, 200));
    reload(&[&new]);
    assert_eq!((ping(&before).await, ping(&after).await), (404, 200), "the first of two keys had sealed");
}

#[test]
fn the_schema_is_json_and_knows_the_tables() {
    let (code, out, _) = run(&["schema"]);
    assert_eq!(code, Some(0));
    let schema: Value = serde_json::from_str(&out).unwrap();
    for table in
        ["listen", "routes", "auth", "policy", "seal", "state", "audit", "log", "servers", "keys", "agents", "include"]
    {
        assert!(schema["properties"][table].is_object(), "{table}");
    }
}

#[test]
fn what_import_prints_loads() {
    let file = File::with("");
    let clients = file.0.with_file_name("mcp.json");
    let servers = json!({ "mcpServers": {
        "GitHub Server": { "type": "http", "url": "https://github.example/mcp", "headers": { "Authorization": "Bearer ghp_secret" }, "timeout": 1234 },
        "local": { "command": "npx", "args": ["server"] },
        "db": { "transport": "streamable-http", "url": "http://127.0.0.1:3000/mcp", "sseReadTimeout": 5678 },
    } });
    fs::write(&clients, servers.to_string()).unwrap();
    let (code, toml, error) = run(&["import", clients.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{error}");
    assert!(!toml.contains("ghp_secret"), "{toml}");
    fs::write(&file.0, &toml).unwrap();
    let variables: Vec<&str> = toml.split("${env:").skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
    assert_eq!(variables.len(), 1, "{toml}");
    let checked = Command::new(gateway::binary())
        .args(["check", "--config", file.path()])
        .env(variables[0], "Bearer x")
        .output()
        .unwrap();
    assert_eq!(checked.status.code(), Some(0), "{checked:?}\n{toml}");
    assert!(String::from_utf8_lossy(&checked.stdout).contains("2 servers"), "{checked:?}");
    for line in ["timeout_ms = 1234", "sse_read_timeout_ms = 5678"] {
        assert!(toml.contains(line), "{toml}");
    }
    assert_eq!(run(&["import", "/nowhere.json"]).0, Some(3));
}

/// A running demo, and what its line says.
struct Demo {
    process: Process,
    line: Value,
    data: SocketAddr,
    temporary: PathBuf,
}

impl Demo {
    fn start() -> Self {
        let temporary = gateway::fresh_directory();
        // As wide open as a shared machine may leave it.
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o777)).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "umask 000; exec \"$0\" demo --json", gateway::binary()]).env("TMPDIR", &temporary);
        let mut process = Process::spawn(&mut command, &temporary.join("log"));
        let line: Value = serde_json::from_str(&process.line()).unwrap();
        let data: SocketAddr = line["data"].as_str().unwrap().trim_start_matches("http://").parse().unwrap();
        gateway::wait_until("it serves", || std::net::TcpStream::connect(data).is_ok());
        Self { process, line, data, temporary }
    }

    fn key(&self, name: &str) -> String {
        format!("Authorization: Bearer {}", self.line["keys"][name].as_str().unwrap())
    }

    /// Opens a session and returns the headers that belong to it.
    async fn session(&self, key: &str, server: &str) -> Vec<String> {
        let capabilities = json!({ "elicitation": {} });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": { "name": "c", "version": "1" } });
        let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params }).to_string();
        let path = format!("/mcp/{server}");
        let answer = client::send(self.data, client::post(&path, &[&self.key(key)], &body)).await;
        let token = answer.header("mcp-session-id").unwrap_or_else(|| panic!("{answer:?}")).to_owned();
        let headers =
            vec![self.key(key), format!("Mcp-Session-Id: {token}"), "MCP-Protocol-Version: 2025-11-25".to_owned()];
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string();
        assert_eq!(self.post(server, &headers, &initialized).await.status, 202);
        headers
    }

    async fn post(&self, server: &str, headers: &[String], body: &str) -> Answer {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        client::send(self.data, client::post(&format!("/mcp/{server}"), &headers, body)).await
    }

    async fn call(&self, server: &str, headers: &[String], tool: &str, arguments: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": tool, "arguments": arguments, "_meta": { "progressToken": "p" } } });
        let answer = self.post(server, headers, &body.to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.events().pop().unwrap_or_else(|| answer.json())
    }

    fn records(&self) -> Vec<Value> {
        let audit = Path::new(self.line["audit"].as_str().unwrap());
        let text: String = fs::read_dir(audit)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|it| it == "jsonl"))
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_tells_scripts_where_it_is_and_shows_policy_at_work() {
    let mut demo = Demo::start();
    let names: Vec<&String> = demo.line.as_object().unwrap().keys().collect();
    assert_eq!(names, ["admin", "audit", "data", "keys", "servers"]);
    assert_eq!(demo.line["servers"], json!(["database", "files"]));
    let admin: SocketAddr = demo.line["admin"].as_str().unwrap().trim_start_matches("http://").parse().unwrap();
    let ready = client::send(admin, "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(ready.status, 200);
    let analyst = demo.session("analyst", "database").await;
    let allowed =
        demo.call("database", &analyst, "execute_query", json!({ "sql": "SELECT name FROM customers LIMIT 1" })).await;
    assert!(allowed["result"]["content"][0]["text"].as_str().unwrap().contains("Ada Lovelace"), "{allowed}");
    let stopped = demo.call("database", &analyst, "execute_query", json!({ "sql": "DELETE FROM customers" })).await;
    assert_eq!(stopped["error"]["code"], -31403, "{stopped}");
    let records = demo.records();
    let of = |kind: &str, sought: &str, value: &str| {
        records.iter().filter(|record| record["kind"] == kind && record[sought] == value).count()
    };
    assert_eq!(
        (of("intent", "tool", "execute_query"), of("refused", "reason", "argument_mismatch")),
        (1, 1),
        "{records:#?}"
    );
    let developer = demo.session("developer", "database").await;
    let still_there =
        demo.call("database", &developer, "execute_query", json!({ "sql": "SELECT id FROM customers" })).await;
    assert!(still_there["result"]["content"][0]["text"].as_str().unwrap().contains("\"row_count\":5"), "{still_there}");
    demo.process.signal("TERM");
    assert_eq!(demo.process.wait(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_keeps_its_secrets_to_its_user() {
    let mut demo = Demo::start();
    demo.session("developer", "database").await;
    let mut own =
        fs::read_dir(&demo.temporary).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let directory = own.next().unwrap();
    assert_eq!(own.next(), None);
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(demo.line["audit"].as_str().unwrap().starts_with(directory.to_str().unwrap()));
    assert!(directory.join("state/seal.key").exists());
    let config = fs::read_to_string(directory.join("portcullis.toml")).unwrap();
    for name in ["analyst", "developer"] {
        assert!(!config.contains(demo.line["keys"][name].as_str().unwrap()), "{config}");
    }
    demo.process.signal("INT");
    assert_eq!(demo.process.wait(), Some(0));
    if directory.exists() {
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_and_a_question_of_the_sample_servers_come_through() {
    let demo = Demo::start();
    let analyst = demo.session("analyst", "database").await;
    let headers: Vec<&str> = analyst.iter().map(String::as_str).collect();
    let call = |tool: &str, arguments: Value| {
        let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": "p" } });
        client::post(
            "/mcp/database",
            &headers,
            &json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params }).to_string(),
        )
    };
    let answer = client::send(
        demo.data,
        call("long_query", json!({ "sql": "SELECT id FROM orders", "steps": 3, "step_ms": 20 })),
    )
    .await;
    let events = answer.events();
    let progress: Vec<&Value> = events
        .iter()
        .filter(|event| event["method"] == "notifications/progress")
        .map(|event| &event["params"]["progress"])
        .collect();
    assert_eq!(progress, [&json!(1), &json!(2), &json!(3)], "{events:?}");
    assert_eq!(events.last().unwrap()["id"], 7);

    let mut connection = Connection::open(demo.data).await;
    connection.write(call("ask", json!({ "question": "Which colour?" }))).await;
    let text = connection.read_until("elicitation/create").await;
    let text = if text.contains("Which colour?") { text } else { connection.read_until("Which colour?").await };
    let data = text
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .find(|data| data.contains("elicitation/create"))
        .unwrap();
    let question: Value = serde_json::from_str(data.trim()).unwrap();
    let reply = json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "action": "accept", "content": { "answer": "blue" } } });
    assert_eq!(demo.post("database", &analyst, &reply.to_string()).await.status, 202);
    let answer = connection.answer().await.unwrap();
    let result = answer.events().pop().unwrap();
    assert_eq!(result["result"]["content"][0]["text"], "the user answered: blue", "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_the_sample_servers_stays_on_its_replica() {
    let demo = Demo::start();
    let mut replicas = Vec::new();
    for _ in 0..8 {
        let session = demo.session("developer", "files").await;
        let mut replica = Vec::new();
        for _ in 0..4 {
            let answer = demo.call("files", &session, "list_files", json!({})).await;
            replica
                .push(answer["result"]["content"][1]["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned());
        }
        replica.dedup();
        assert_eq!(replica.len(), 1, "{replica:?}");
        replicas.extend(replica);
    }
    replicas.sort();
    replicas.dedup();
    assert_eq!(replicas.len(), 2, "both replicas are used");
    let developer = demo.session("developer", "files").await;
    let hidden = demo.call("files", &developer, "delete_file", json!({ "path": "notes/todo.md" })).await;
    assert_eq!(hidden["error"]["message"], "Unknown tool: delete_file");
}

/// The commands of a text that begin with `program`, each on one line.
fn commands(text: &str, program: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    text.lines().map(str::trim).filter(|line| line.starts_with(&format!("{program} "))).map(str::to_owned).collect()
}

fn shell(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_commands_that_the_demo_prints_do_what_it_says() {
    if Command::new("curl").arg("--version").output().is_err() {
        skipped("there is no curl to run the demo's commands with");
        return;
    }
    let temporary = gateway::fresh_directory();
    let mut process =
        Process::spawn(Command::new(gateway::binary()).arg("demo").env("TMPDIR", &temporary), &temporary.join("log"));
    let mut text = String::new();
    while !text.contains("\nConfiguration: ") {
        let line = process.line();
        text.push_str(&line);
        text.push('\n');
        assert!(text.len() < 20_000);
    }
    let calls = commands(&text, "curl");
    assert_eq!(calls.len(), 3, "{text}");
    gateway::wait_until("it serves", || {
        let url =
            calls[0].split_whitespace().find(|word| word.starts_with("http://")).unwrap().trim_start_matches("http://");
        std::net::TcpStream::connect(url.split('/').next().unwrap()).is_ok()
    });
    let allowed: Value = serde_json::from_str(&shell(&calls[0])).unwrap();
    assert!(allowed["result"]["content"][0]["text"].as_str().unwrap().contains("Grace Hopper"), "{allowed}");
    let stopped: Value = serde_json::from_str(&shell(&calls[1])).unwrap();
    assert_eq!(stopped["error"]["code"], -31403, "{stopped}");
    // The result comes on record a moment after the client has its answer, perhaps after the refusal of the other call.
    let cat = commands(&text, "cat").remove(0);
    gateway::wait_until("three records", || shell(&cat).lines().count() >= 3);
    let records = shell(&cat);
    let mut kinds: Vec<String> =
        records.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].to_string()).collect();
    kinds.sort();
    assert_eq!(kinds, [r#""intent""#, r#""refused""#, r#""result""#], "{records}");
    assert!(shell(&calls[2]).contains("portcullis_requests_total{"));
    let file = text.lines().find_map(|line| line.strip_prefix("Configuration: ")).unwrap();
    assert_eq!(run(&["check", "--config", file]).0, Some(0));
    assert_eq!(commands(&text, "claude").len(), 2);
    process.signal("TERM");
    assert_eq!(process.wait(), Some(0));
    let mut log = String::new();
    fs::File::open(temporary.join("log")).unwrap().read_to_string(&mut log).unwrap();
    assert!(!log.contains("\"level\":\"ERROR\""), "{log}");
    fs::remove_dir_all(&temporary).unwrap();
}

#[test]
fn the_sample_cases_pass_and_one_that_does_not_is_shown_with_its_rule() {
    let conf = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/access.toml");
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/cases/access.toml");
    let (code, out, error) = run(&["test", "--config", conf, sample]);
    assert_eq!((code, out.as_str(), error.as_str()), (Some(0), "6 passed, 0 failed\n", ""));
    let directory = std::env::temp_dir().join(format!("portcullis-cases-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let cases = directory.join("cases.toml");
    let test = |text: &str| {
        std::fs::write(&cases, text).unwrap();
        run(&["test", "--config", conf, cases.to_str().unwrap()])
    };
    let call = r#"call = { key = "ci", server = "database", tool = "x" }"#;
    let (code, out, _) = test(&format!("[[case]]\n{call}\nexpect = \"permitted\"\n"));
    assert_eq!(code, Some(4));
    for part in [
        "FAILED",
        "expected: permitted",
        "found:    refused (server_not_granted)",
        "access.toml:",
        "0 passed, 1 failed",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
    let (code, out, _) = test(&format!("[[case]]\n{call}\nexpect = \"refused\"\nreason = \"tool_blocked\"\n"));
    assert!(code == Some(4) && out.contains("expected: refused (tool_blocked)"), "{out}");
    let (code, _, error) = test("[[case]]\nexpect = \"perhaps\"\n");
    assert!(code == Some(2) && error.contains("cases.toml"), "{error}");
    std::fs::remove_dir_all(directory).unwrap();
}
