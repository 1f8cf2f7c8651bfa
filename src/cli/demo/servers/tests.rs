//! Do the sample servers speak every revision as its specification says?

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::*;

/// An answer, its body as it came.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn text(mut self) -> String {
        let mut body = Vec::new();
        self.reader.read_to_end(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    fn json(self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The next message of the stream; `None` at its end.
    fn event(&mut self) -> Option<Value> {
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(data) = line.trim_end().strip_prefix("data: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
        }
    }
}

/// Sends one request and reads the answer's head. HTTP/1.0, so that a body needs no decoding.
fn send(url: &str, method: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let authority = url.strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap();
    let mut io = TcpStream::connect(authority).unwrap();
    io.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut head = format!("{method} /mcp HTTP/1.0\r\nHost: {authority}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    // The server may refuse before it has read it all.
    let _ = io.write_all(format!("{head}\r\n{body}").as_bytes());
    let mut reader = BufReader::new(io);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
    let split = |line: &String| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Answer { status, headers: lines[1..].iter().filter_map(split).collect(), reader }
}

const JSON: (&str, &str) = ("Content-Type", "application/json");
const BOTH: (&str, &str) = ("Accept", "application/json, text/event-stream");

fn request(id: u64, method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

/// A conversation of the first era.
struct Client<'u> {
    url: &'u str,
    session: String,
    revision: String,
}

impl<'u> Client<'u> {
    fn open(url: &'u str, offered: &str, capabilities: Value) -> Self {
        let client = json!({"name": "t", "version": "0"});
        let params = json!({"protocolVersion": offered, "capabilities": capabilities, "clientInfo": client});
        let answer = send(url, "POST", &[JSON, BOTH], &request(0, "initialize", params));
        assert_eq!(answer.status, 200);
        let session = answer.header("mcp-session-id").unwrap().to_owned();
        let result = answer.json();
        assert_eq!(result["result"]["capabilities"], json!({"tools": {}}));
        let revision = result["result"]["protocolVersion"].as_str().unwrap().to_owned();
        let opened = Self { url, session, revision };
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
        let answer = opened.post(&initialized);
        assert_eq!((answer.status, answer.text().as_str()), (202, ""));
        opened
    }

    fn post(&self, body: &str) -> Answer {
        let session = ("Mcp-Session-Id", self.session.as_str());
        send(self.url, "POST", &[JSON, BOTH, session, ("MCP-Protocol-Version", &self.revision)], body)
    }

    fn call(&self, id: u64, tool: &str, arguments: Value) -> Answer {
        self.post(&request(
            id,
            "tools/call",
            json!({"name": tool, "arguments": arguments, "_meta": {"progressToken": "p"}}),
        ))
    }
}

/// A request of the second era, with the headers its body asks for and `extra` in place of those of the same name.
fn stateless(url: &str, method: &str, params: Value, extra: &[(&str, &str)]) -> Answer {
    let name = params["name"].as_str().unwrap_or_default().to_owned();
    let headers =
        [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", method), ("Mcp-Name", name.as_str()), JSON, BOTH];
    let mut headers: Vec<(&str, &str)> = headers.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    headers.retain(|(name, _)| !extra.iter().any(|(other, _)| other == name));
    headers.extend(extra.iter().filter(|(_, value)| !value.is_empty()));
    send(url, "POST", &headers, &request(7, method, params))
}

fn meta(capabilities: Value) -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    })
}

fn content(message: &Value) -> &str {
    message["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{message}"))
}

fn names(message: &Value) -> Vec<&str> {
    message["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

#[test]
fn each_revision_of_the_first_era_is_spoken_and_an_unknown_one_is_offered_the_newest() {
    let samples = start().unwrap();
    let offers = ["2025-03-26", "2025-06-18", "2025-11-25"].map(|known| (known, known));
    for (offered, agreed) in offers.into_iter().chain([("2026-07-28", "2025-11-25"), ("1.0", "2025-11-25")]) {
        let client = Client::open(samples.database(), offered, json!({}));
        assert_eq!(client.revision, agreed);
        assert_eq!(client.post(&request(1, "ping", json!({}))).json()["result"], json!({}));
        let listed = client.post(&request(2, "tools/list", json!({}))).json();
        let expected = ["list_tables", "execute_query", "long_query", "delete_rows", "drop_table", "ask"];
        assert_eq!(names(&listed), expected);
        for tool in listed["result"]["tools"].as_array().unwrap() {
            assert_eq!(tool["inputSchema"]["type"], "object");
            assert!(tool["annotations"]["readOnlyHint"].is_boolean(), "{tool}");
        }
        let unknown = client.post(&request(3, "resources/list", json!({})));
        assert_eq!((unknown.status, unknown.json()["error"]["code"].as_i64()), (200, Some(-32601)));
    }
}

#[test]
fn a_session_is_needed_and_ends() {
    let samples = start().unwrap();
    let client = Client::open(&samples.files()[0], "2025-11-25", json!({}));
    let ping = request(1, "ping", json!({}));
    assert_eq!(send(client.url, "POST", &[JSON, BOTH], &ping).status, 400);
    assert_eq!(send(client.url, "POST", &[JSON, BOTH, ("Mcp-Session-Id", "unknown")], &ping).status, 404);
    let elsewhere = &samples.files()[1];
    assert_eq!(send(elsewhere, "POST", &[JSON, BOTH, ("Mcp-Session-Id", &client.session)], &ping).status, 404);
    let wrong = [JSON, BOTH, ("Mcp-Session-Id", &client.session), ("MCP-Protocol-Version", "2025-06-18")];
    assert_eq!(send(client.url, "POST", &wrong, &ping).status, 400);
    assert_eq!(client.post(&ping).status, 200);
    let session = [("Mcp-Session-Id", client.session.as_str())];
    assert_eq!(send(client.url, "DELETE", &session, "").status, 204);
    assert_eq!(send(client.url, "DELETE", &session, "").status, 404);
    assert_eq!(send(client.url, "DELETE", &[], "").status, 400);
    assert_eq!(client.post(&ping).status, 404);
    let stream = send(client.url, "GET", &[("Accept", "text/event-stream")], "");
    assert_eq!((stream.status, stream.header("allow")), (405, Some("POST, DELETE")));
}

#[test]
fn the_oldest_session_makes_room() {
    let samples = start().unwrap();
    let url = samples.database();
    let first = Client::open(url, "2025-11-25", json!({}));
    for _ in 0..sessions::SESSIONS_MAX - 1 {
        Client::open(url, "2025-11-25", json!({}));
    }
    let second = Client::open(url, "2025-11-25", json!({}));
    assert_eq!(first.post(&request(1, "ping", json!({}))).status, 404);
    assert_eq!(second.post(&request(1, "ping", json!({}))).status, 200);
}

#[test]
fn replicas_share_their_files_and_name_themselves() {
    let samples = start().unwrap();
    let [one, two] = [0, 1].map(|at: usize| Client::open(&samples.files()[at], "2025-11-25", json!({})));
    let written = one.call(1, "write_file", json!({"path": "notes/a", "content": "hello"})).json();
    assert_eq!(written["result"]["content"][1]["text"], "(answered by replica files-1)");
    let read = two.call(1, "read_file", json!({"path": "notes/a"})).json();
    assert_eq!(
        (content(&read), &read["result"]["content"][1]["text"]),
        ("hello", &json!("(answered by replica files-2)"))
    );
    assert_eq!(content(&one.call(2, "delete_file", json!({"path": "notes/a"})).json()), "deleted `notes/a`");
    assert!(!content(&two.call(2, "list_files", json!({})).json()).contains("notes/a"));
    for path in ["../etc/passwd", "/etc/passwd", "notes/../x", "", "notes/a"] {
        let read = one.call(3, "read_file", json!({"path": path})).json();
        assert_eq!(read["result"]["isError"], true, "{path}: {read}");
    }
}

#[test]
fn the_tree_does_not_grow_without_limit() {
    let samples = start().unwrap();
    let client = Client::open(&samples.files()[0], "2025-11-25", json!({}));
    let large = "a".repeat(64 * 1024 + 1);
    assert_eq!(client.call(1, "write_file", json!({"path": "x", "content": large})).json()["result"]["isError"], true);
    let write =
        |number: usize| client.call(1, "write_file", json!({"path": format!("n{number}"), "content": ""})).json();
    let refused = (0..250).find(|number| write(*number)["result"]["isError"] == true);
    assert_eq!(refused, Some(196), "200 files, 4 of which were there");
    let body = request(1, "ping", json!({"_meta": {"x": "a".repeat(http::BODY_BYTES_MAX)}}));
    assert_eq!(client.post(&body).status, 413);
}

#[test]
fn the_database_answers_and_forgets() {
    let samples = start().unwrap();
    let client = Client::open(samples.database(), "2025-06-18", json!({}));
    let query = |sql: &str| client.call(1, "execute_query", json!({"sql": sql})).json();
    let found = query("SELECT name FROM customers WHERE country = 'UK'");
    let expected = json!({"columns": ["name"], "row_count": 2, "rows": [["Ada Lovelace"], ["Alan Turing"]]});
    assert_eq!(serde_json::from_str::<Value>(content(&found)).unwrap(), expected);
    assert_eq!(query("DELETE FROM customers")["result"]["isError"], true);
    let deleted = client.call(2, "delete_rows", json!({"table": "orders", "column": "status", "value": "open"})).json();
    assert_eq!(content(&deleted), "deleted 2 rows of `orders`");
    assert!(content(&query("SELECT COUNT(*) FROM orders")).contains("[[3]]"));
    client.call(3, "drop_table", json!({"table": "orders"}));
    assert_eq!(content(&client.call(4, "list_tables", json!({})).json()).lines().count(), 2);
    let unknown = client.call(5, "nothing", json!({})).json();
    assert_eq!((unknown["error"]["code"].as_i64(), unknown["id"].as_u64()), (Some(-32602), Some(5)));
}

#[test]
fn a_long_query_tells_its_progress_and_can_be_cancelled() {
    let samples = start().unwrap();
    let client = Client::open(samples.database(), "2025-11-25", json!({}));
    let arguments = json!({"sql": "SELECT * FROM products LIMIT 1", "steps": 3, "step_ms": 20});
    let mut answer = client.call(1, "long_query", arguments.clone());
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    for step in 1..=3 {
        let event = answer.event().unwrap();
        assert_eq!(event["method"], "notifications/progress");
        assert_eq!((&event["params"]["progressToken"], &event["params"]["progress"]), (&json!("p"), &json!(step)));
    }
    assert!(content(&answer.event().unwrap()).contains("Notebook"));
    assert_eq!(answer.event(), None, "the stream ends with the answer");
    let mut answer = client.call(2, "long_query", json!({"sql": "SELECT * FROM products", "steps": 50, "step_ms": 50}));
    assert!(answer.event().is_some());
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}});
    assert_eq!(client.post(&cancel.to_string()).status, 202);
    assert!(answer.text().lines().count() < 50, "a cancelled call ends without its answer");
}

#[test]
fn a_user_is_asked_on_the_stream_and_the_answer_finds_its_way() {
    let samples = start().unwrap();
    let client = Client::open(samples.database(), "2025-11-25", json!({"elicitation": {}}));
    for (reply, expected) in [
        (json!({"action": "accept", "content": {"answer": "blue"}}), "the user answered: blue"),
        (json!({"action": "decline"}), "the user declined to answer"),
    ] {
        let mut answer = client.call(1, "ask", json!({"question": "Which colour?"}));
        let asked = answer.event().unwrap();
        assert_eq!(
            (&asked["method"], &asked["params"]["message"]),
            (&json!("elicitation/create"), &json!("Which colour?"))
        );
        let response = json!({"jsonrpc": "2.0", "id": asked["id"], "result": reply});
        assert_eq!(client.post(&response.to_string()).status, 202);
        assert_eq!(content(&answer.event().unwrap()), expected);
    }
    let mute = Client::open(samples.database(), "2025-11-25", json!({}));
    assert_eq!(mute.call(1, "ask", json!({})).event().unwrap()["result"]["isError"], true);
}

#[test]
fn an_array_of_messages_belongs_to_one_revision() {
    let samples = start().unwrap();
    let batch = json!([
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/x"},
        {"jsonrpc": "2.0", "id": 2, "method": "initialize"},
    ]);
    let old = Client::open(samples.database(), "2025-03-26", json!({}));
    let answers = old.post(&batch.to_string()).json();
    assert_eq!((answers[0]["id"].as_u64(), answers[1]["error"]["code"].as_i64()), (Some(1), Some(-32600)));
    assert_eq!(answers.as_array().unwrap().len(), 2);
    let many = vec![json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}); 33];
    assert_eq!(old.post(&Value::from(many).to_string()).status, 400);
    let new = Client::open(samples.database(), "2025-06-18", json!({}));
    assert_eq!(new.post(&batch.to_string()).status, 400);
}

#[test]
fn a_stateless_call_needs_no_session() {
    let samples = start().unwrap();
    let url = samples.database();
    let discovered = stateless(url, "server/discover", json!({"_meta": meta(json!({}))}), &[]).json()["result"].clone();
    assert_eq!((&discovered["resultType"], &discovered["cacheScope"]), (&json!("complete"), &json!("public")));
    assert_eq!(discovered["supportedVersions"], json!(["2026-07-28"]));
    let listed = stateless(url, "tools/list", json!({"_meta": meta(json!({}))}), &[("Mcp-Session-Id", "ignored")]);
    assert_eq!(listed.header("mcp-session-id"), None);
    let listed = listed.json();
    assert_eq!((names(&listed).len(), listed["result"]["ttlMs"].as_u64()), (6, Some(60_000)));
    let arguments = json!({"sql": "SELECT COUNT(*) FROM customers"});
    let call = json!({"name": "execute_query", "arguments": arguments, "_meta": meta(json!({}))});
    let answer = stateless(url, "tools/call", call.clone(), &[]).json();
    assert!(content(&answer).contains("[[5]]") && answer["result"]["resultType"] == "complete", "{answer}");
    let encoded = [("Mcp-Name", "=?base64?ZXhlY3V0ZV9xdWVyeQ==?=")];
    assert_eq!(stateless(url, "tools/call", call, &encoded).status, 200);
}

#[test]
fn a_stateless_request_is_held_against_its_headers() {
    let samples = start().unwrap();
    let url = samples.database();
    let call = json!({"name": "list_tables", "arguments": {}, "_meta": meta(json!({}))});
    let mut unversioned = call.clone();
    unversioned["_meta"] = json!({});
    let mut incapable = call.clone();
    incapable["_meta"].as_object_mut().unwrap().remove("io.modelcontextprotocol/clientCapabilities");
    let mut future = call.clone();
    future["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2027-01-01");
    let other = json!({"_meta": meta(json!({}))});
    for (method, params, extra, status, code) in [
        ("tools/call", &call, vec![("Mcp-Method", "")], 400, -32020),
        ("tools/call", &call, vec![("Mcp-Method", "TOOLS/CALL")], 400, -32020),
        ("tools/call", &call, vec![("Mcp-Name", "")], 400, -32020),
        ("tools/call", &call, vec![("Mcp-Name", "drop_table")], 400, -32020),
        ("tools/call", &call, vec![("Mcp-Name", "list_tables"), ("Mcp-Name", "drop_table")], 400, -32020),
        ("tools/call", &call, vec![("Mcp-Name", "=?base64?bGlzdF90YWJsZXM?=")], 400, -32020),
        ("tools/call", &call, vec![("MCP-Protocol-Version", "")], 400, -32020),
        ("tools/call", &call, vec![("MCP-Protocol-Version", "2025-11-25")], 400, -32020),
        ("tools/call", &unversioned, vec![], 400, -32602),
        ("tools/call", &incapable, vec![], 400, -32602),
        ("tools/call", &future, vec![("MCP-Protocol-Version", "2027-01-01")], 400, -32022),
        ("ping", &other, vec![], 404, -32601),
        ("initialize", &other, vec![], 404, -32601),
    ] {
        let answer = stateless(url, method, params.clone(), &extra);
        let got = answer.status;
        let body = answer.json();
        assert_eq!((got, body["error"]["code"].as_i64()), (status, Some(code)), "{method} {extra:?}: {body}");
        assert_eq!(body["id"], 7, "{body}");
    }
    let headers = [JSON, BOTH, ("MCP-Protocol-Version", "2026-07-28")];
    assert_eq!(send(url, "POST", &headers, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).status, 400);
    assert_eq!(send(url, "POST", &headers, r#"{"jsonrpc":"2.0","method":"notifications/x"}"#).status, 202);
    assert_eq!(send(url, "DELETE", &headers, "").status, 405);
}

#[test]
fn a_stateless_question_is_a_result_and_its_answer_a_second_call() {
    let samples = start().unwrap();
    let url = samples.database();
    let mut call = json!({"name": "ask", "arguments": {}, "_meta": meta(json!({"elicitation": {"form": {}}}))});
    let first = stateless(url, "tools/call", call.clone(), &[]).json();
    assert_eq!(first["result"]["resultType"], "input_required");
    assert_eq!(first["result"]["inputRequests"]["answer"]["method"], "elicitation/create");
    call["inputResponses"] = json!({"answer": {"action": "accept", "content": {"answer": "red"}}});
    assert_eq!(content(&stateless(url, "tools/call", call.clone(), &[]).json()), "the user answered: red");
    call["_meta"] = meta(json!({}));
    let incapable = stateless(url, "tools/call", call, &[]);
    assert_eq!(incapable.status, 400);
    let error = incapable.json()["error"].clone();
    assert_eq!(error["code"], -32021);
    assert_eq!(error["data"]["requiredCapabilities"], json!({"elicitation": {"form": {}}}));
    let mut progress = json!({"name": "long_query", "_meta": meta(json!({}))});
    progress["arguments"] = json!({"sql": "SELECT * FROM products", "steps": 1, "step_ms": 1});
    progress["_meta"]["progressToken"] = json!(5);
    let mut stream = stateless(url, "tools/call", progress, &[]);
    assert_eq!(stream.event().unwrap()["params"]["progressToken"], 5);
    assert_eq!(stream.event().unwrap()["result"]["resultType"], "complete");
}

#[test]
fn what_is_no_request_of_the_protocol_is_refused() {
    let samples = start().unwrap();
    let url = samples.database();
    let ping = request(1, "ping", json!({}));
    for (headers, body, status) in [
        (vec![BOTH], ping.as_str(), 415),
        (vec![JSON, ("Accept", "application/json")], ping.as_str(), 406),
        (vec![JSON, BOTH], "{", 400),
        (vec![JSON, BOTH], r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, 400),
        (vec![JSON, BOTH], r#"{"id":1,"method":"ping"}"#, 400),
        (vec![JSON, BOTH, ("MCP-Protocol-Version", "1.0")], ping.as_str(), 400),
        (vec![JSON, BOTH, ("Origin", "http://evil.example")], ping.as_str(), 403),
        (vec![JSON, BOTH, ("Host", "evil.example")], ping.as_str(), 403),
    ] {
        assert_eq!(send(url, "POST", &headers, body).status, status, "{headers:?} {body}");
    }
}

#[test]
fn dropped_servers_are_gone() {
    let samples = start().unwrap();
    let address = samples.database().strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap().to_owned();
    assert!(TcpStream::connect(&address).is_ok());
    drop(samples);
    assert!(TcpStream::connect(&address).is_err());
}
