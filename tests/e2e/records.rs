//! Is what happened on record, whatever becomes of the gateway and its disk?
//!
//! Records are read as bytes and verified here by a reader of its own. Calls carry a number in their user agent, which
//! is on record.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::prlimit;
use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::process::Process;
use crate::support::skip::skipped;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"a":1}}}"#;

fn numbered(key: &Key, number: &str) -> String {
    client::post("/mcp/a", &[&format!("X-API-Key: {}", key.key), &format!("User-Agent: {number}")], CALL)
}

async fn call(gateway: &Gateway, key: &Key) -> Answer {
    client::send(gateway.data, numbered(key, "one")).await
}

/// Every record, after checking what docs/audit.md promises of each line: the chain, the numbers, the names of segments,
/// and the kinds.
#[track_caller]
fn verified(directory: &Path) -> Vec<Value> {
    let mut segments: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    segments.sort();
    let (mut previous, mut seq, mut records) = ("0".repeat(64), 0, Vec::new());
    for segment in segments {
        let bytes = fs::read(&segment).unwrap();
        let whole = bytes.strip_suffix(b"\n").unwrap_or_else(|| panic!("{}: a line is torn", segment.display()));
        for (index, line) in whole.split(|byte| *byte == b'\n').enumerate() {
            let record: Value = serde_json::from_slice(line)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)));
            assert_eq!(record["prev"], previous.as_str(), "{} line {}: {record}", segment.display(), index + 1);
            let number = record["seq"].as_u64().unwrap();
            let may_jump = record["kind"] == "recovered" && number > seq;
            assert!(number == seq + 1 || may_jump, "{number} after {seq}: {record}");
            assert!(
                index > 0 || segment.ends_with(format!("{number:020}.jsonl")),
                "{} begins with {number}",
                segment.display()
            );
            assert!(
                line.is_ascii()
                    && ["intent", "result", "refused", "recovered"].contains(&record["kind"].as_str().unwrap())
            );
            previous = hex(&Sha256::digest(line));
            seq = number;
            records.push(record);
        }
    }
    records
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn audit(gateway: &Gateway) -> PathBuf {
    gateway.directory.join("audit")
}

fn count(records: &[Value], kind: &str) -> usize {
    records.iter().filter(|record| record["kind"] == kind).count()
}

/// Calls on one connection until it breaks; notes each call whose answer was read whole.
async fn call_until_broken(address: std::net::SocketAddr, key: Arc<Key>, name: String, seen: Arc<Mutex<Vec<String>>>) {
    let mut connection = Connection::open(address).await;
    for number in 0.. {
        let number = format!("{name}-{number}");
        connection.write(numbered(&key, &number)).await;
        match connection.answer().await {
            Some(answer) if answer.complete => {
                assert_eq!(answer.status, 200, "{answer:?}");
                seen.lock().unwrap().push(number);
            }
            _ => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_saw_is_on_record_however_often_the_gateway_is_killed() {
    let upstream = Upstream::start().await;
    let key = Arc::new(gateway::make_key("ci"));
    for level in ["written", "durable"] {
        let mut gateway = gateway::setup(&key.config(&upstream))
            .audit(&format!("level = \"{level}\"\nsegment_bytes_max = 200000"))
            .start();
        let seen = Arc::new(Mutex::new(Vec::new()));
        // A fixed seed: the same moments in every run.
        let mut random = 0x2545_F491_4F6C_DD1D_u64;
        for round in 0..5 {
            let clients: Vec<_> = (0..4)
                .map(|client| {
                    tokio::spawn(call_until_broken(
                        gateway.data,
                        Arc::clone(&key),
                        format!("{round}-{client}"),
                        Arc::clone(&seen),
                    ))
                })
                .collect();
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            tokio::time::sleep(Duration::from_millis(50 + random % 200)).await;
            gateway.kill();
            for client in clients {
                client.await.unwrap();
            }
            gateway.restart();
        }
        let records = verified(&audit(&gateway));
        let intents: HashSet<&str> = records
            .iter()
            .filter(|record| record["kind"] == "intent")
            .map(|record| record["user_agent"].as_str().unwrap())
            .collect();
        let seen = seen.lock().unwrap();
        let missing: Vec<_> = seen.iter().filter(|number| !intents.contains(number.as_str())).collect();
        assert!(seen.len() > 20, "{level}: {}", seen.len());
        assert_eq!(missing, [""; 0], "{level}");
        assert!(
            intents.len() <= seen.len() + 5 * 4,
            "{level}: at most what was in flight was seen by nobody: {} {}",
            intents.len(),
            seen.len()
        );
        println!(
            "records: {level}: {} calls seen in 5 rounds of kill -9, {} intents, {} results",
            seen.len(),
            intents.len(),
            count(&records, "result")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_is_cut_off_and_put_on_record() {
    let upstream = Upstream::start().await;
    let key = gateway::make_key("ci");
    let mut gateway = Gateway::start(&key.config(&upstream));
    assert_eq!(call(&gateway, &key).await.status, 200);
    gateway.wait_for_records("result", 1);
    gateway.kill();
    let segment = fs::read_dir(audit(&gateway))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.ends_with("00000000000000000001.jsonl"))
        .unwrap();
    let torn = br#"{"seq":3,"prev":"00"#;
    fs::OpenOptions::new().append(true).open(&segment).unwrap().write_all(torn).unwrap();
    gateway.restart();
    assert_eq!(call(&gateway, &key).await.status, 200);
    gateway.wait_for_records("result", 2);
    let records = verified(&audit(&gateway));
    // Beside it may be told that the last second's records were not signed yet.
    let recovered: Vec<&Value> = records.iter().filter(|record| record["cause"] == "torn_tail").collect();
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    assert_eq!((&recovered[0]["kind"], &recovered[0]["cut_bytes"]), (&json!("recovered"), &json!(torn.len())));
    // What no crash leaves behind is not repaired.
    gateway.kill();
    let text = fs::read_to_string(&segment).unwrap();
    fs::write(&segment, text.replacen("\"ok\"", "\"no\"", 1)).unwrap();
    let (code, _, error) =
        gateway::run(&["run", "--config", gateway.directory.join("portcullis.toml").to_str().unwrap()]);
    assert!(code == Some(1) && error.contains("00000000000000000001.jsonl"), "{code:?} {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_level_keeps_every_record_across_an_orderly_end() {
    let upstream = Upstream::start().await;
    let key = Arc::new(gateway::make_key("ci"));
    for level in ["durable", "written", "queued"] {
        let mut gateway = gateway::setup(&key.config(&upstream)).audit(&format!("level = \"{level}\"")).start();
        let started = Instant::now();
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (key, address) = (Arc::clone(&key), gateway.data);
                tokio::spawn(async move {
                    let mut connection = Connection::open(address).await;
                    for number in 0..50 {
                        connection.write(numbered(&key, &format!("{client}-{number}"))).await;
                        assert_eq!(connection.answer().await.unwrap().status, 200);
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
        println!("records: {level}: 200 calls on 4 connections in {:?}", started.elapsed());
        gateway.signal("INT");
        assert_eq!(gateway.wait(), Some(0));
        let records = verified(&audit(&gateway));
        assert_eq!((count(&records, "intent"), count(&records, "result"), records.len()), (200, 200, 400), "{level}");
        assert!(
            records.iter().filter(|record| record["kind"] == "result").all(|record| record["outcome"] == "ok"),
            "{level}"
        );
        let bytes: u64 = fs::read_dir(audit(&gateway))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap())
            .map(|data| std::os::unix::fs::MetadataExt::blocks(&data) * 512)
            .sum();
        assert!(bytes < 1024 * 1024, "{level}: reserved space is given back: {bytes}");
    }
}

/// Sets the soft limit of file sizes of a running process: 0 makes every write to a file fail, as a full disk does.
fn limit_files(pid: u32, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    let maximum = rustix::process::getrlimit(Resource::Fsize).maximum;
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum }).unwrap();
}

async fn ready(gateway: &Gateway) -> u16 {
    client::send(gateway.admin, "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_calls_and_service_comes_back_by_itself() {
    for level in ["written", "durable", "queued"] {
        let upstream = Upstream::start().await;
        let key = gateway::make_key("ci");
        let mut gateway = gateway::setup(&key.config(&upstream)).audit(&format!("level = \"{level}\"")).start();
        assert_eq!((call(&gateway, &key).await.status, ready(&gateway).await), (200, 200));
        gateway.wait_for_records("result", 1);
        limit_files(gateway.pid(), Some(0));
        if level == "queued" {
            // The queue takes calls until the first write has failed.
            while call(&gateway, &key).await.status == 200 {}
        }
        let before = upstream.requests().len();
        for _ in 0..3 {
            let answer = call(&gateway, &key).await;
            assert_eq!((answer.status, answer.code()), (503, Some(-32603)), "{level}: {answer:?}");
            assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{answer:?}");
        }
        assert_eq!(gateway.post("/mcp/a", &[], CALL).await.status, 401, "{level}: who may not call is told so as ever");
        assert_eq!(upstream.requests().len(), before, "{level}: nothing was sent");
        assert_eq!(ready(&gateway).await, 503, "{level}");
        assert_eq!(gateway.metric("portcullis_audit_unavailable").await, Some(1.0), "{level}");
        limit_files(gateway.pid(), None);
        let freed = Instant::now();
        while call(&gateway, &key).await.status != 200 {
            assert!(freed.elapsed() < Duration::from_secs(5), "{level}: service does not come back\n{}", gateway.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(
            (ready(&gateway).await, gateway.metric("portcullis_audit_unavailable").await),
            (200, Some(0.0)),
            "{level}"
        );
        assert!(gateway.is_alive());
        gateway.signal("INT");
        assert_eq!(gateway.wait(), Some(0), "{level}");
        let records = verified(&audit(&gateway));
        let recovered: Vec<&Value> = records.iter().filter(|record| record["kind"] == "recovered").collect();
        assert!(
            recovered
                .first()
                .is_some_and(|record| record["cause"] == "write_failed" && record["unavailable_us"].as_u64() > Some(0)),
            "{level}: {recovered:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_disk_that_fills_up_refuses_calls_until_there_is_space() {
    let upstream = Upstream::start().await;
    let key = gateway::make_key("ci");
    let directory = gateway::fresh_directory();
    let (data, admin) = (gateway::free_address(), gateway::free_address());
    let file = directory.join("portcullis.toml");
    fs::create_dir(directory.join("disk")).unwrap();
    let listen = format!(
        "[listen]\ndata = \"{data}\"\nadmin = \"{admin}\"\n[audit]\ndirectory = \"disk/audit\"\n[state]\ndirectory = \"state\"\n"
    );
    fs::write(&file, format!("{listen}{}", key.config(&upstream))).unwrap();
    let script = "mount -t tmpfs -o size=256k none \"$1/disk\" && exec \"$0\" run --config \"$1/portcullis.toml\"";
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script, gateway::binary()]).arg(&directory);
    let mut process = Process::spawn(&mut command, &directory.join("log"));
    let started = Instant::now();
    while std::net::TcpStream::connect(data).is_err() {
        if process.has_ended() {
            skipped(&format!("no tmpfs of our own: {}", fs::read_to_string(directory.join("log")).unwrap()));
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "it does not serve");
        std::thread::sleep(Duration::from_millis(10));
    }
    let disk = PathBuf::from(format!("/proc/{}/root{}", process.pid(), directory.join("disk").display()));
    let mut connection = Connection::open(data).await;
    let mut next = async || {
        connection.write(numbered(&key, "filler")).await;
        connection.answer().await.unwrap()
    };
    let mut answered = 0;
    let refused = loop {
        let answer = next().await;
        if answer.status != 200 {
            break answer;
        }
        answered += 1;
        assert!(answered < 5_000, "256 KiB hold that much?");
    };
    assert_eq!((refused.status, upstream.requests().len()), (503, answered));
    // The oldest segment is shipped and deleted, as an operator would. Beside it, attempts to begin another come and go.
    let (name, shipped) = ("00000000000000000001.jsonl", directory.join("shipped"));
    fs::create_dir(&shipped).unwrap();
    fs::copy(disk.join("audit").join(name), shipped.join(name)).unwrap();
    fs::remove_file(disk.join("audit").join(name)).unwrap();
    assert!(count(&verified(&shipped), "intent") >= answered);
    let freed = Instant::now();
    while next().await.status != 200 {
        assert!(freed.elapsed() < Duration::from_secs(5), "service does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("records: a disk of 256 KiB held {answered} calls; service was back after {:?}", freed.elapsed());
    process.signal("INT");
    assert_eq!(process.wait(), Some(0));
    fs::remove_dir_all(directory).unwrap();
}

/// The fields of docs/audit.md, each with the kinds it belongs to.
fn documented() -> BTreeMap<String, String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/audit.md")).unwrap();
    let table = text.split("## Fields").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        (cells[1].trim_matches('`').to_owned(), cells[3].to_owned())
    })
    .collect()
}

/// The words of one of its other tables.
fn words(heading: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/audit.md")).unwrap();
    let table = text.split(&format!("## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    table.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned())).collect()
}

/// A gateway that has been asked everything there are fields for, and was killed in between; what it must not have
/// written down.
async fn full_of_records() -> (Gateway, [String; 2]) {
    // One tool has one call a day.
    gateway::wait_for_midnight();
    let upstream = Upstream::start().await;
    upstream.on("tools/call failing", Reply::json(json!({ "content": [], "isError": true })));
    upstream.on("tools/call wrong", Reply::error(-32000, "no"));
    upstream.on("tools/call garbage", Reply::garbage());
    upstream.on("tools/call gone", Reply::reset());
    upstream.on("tools/call stream", Reply::sse(vec![Event::progress(1), Event::result(json!({ "content": [] }))]));
    let key = gateway::make_key("ci");
    let config = format!(
        "{}team = \"platform\"\nuser = \"ana\"\nagent = \"worker\"\nmay_mint = true\n[teams.platform]\norganisation = \"example\"\n[organisations.example]\n[users.ana]\n[servers.a.mcp_server_cost_info]\ndefault_cost_per_query = 0.01\n[servers.a.tools.rare]\nlimits = {{ calls_per_day_max = 1 }}\n[agents.worker.servers.a]\nblocked_tools = [\"never\"]\nargument_constraints.echo = [{{ arg = \"sql\", pattern = \"^S\" }}]\n",
        key.config(&upstream)
    );
    let mut gateway = Gateway::start(&config);
    let owner = format!("X-API-Key: {}", key.key);
    let initialize = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": { "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } } });
    let token =
        gateway.post("/mcp/a", &[&owner], &initialize.to_string()).await.header("mcp-session-id").unwrap().to_owned();
    let session = format!("Mcp-Session-Id: {token}");
    for (tool, arguments) in [
        ("echo", json!({ "sql": "S" })),
        ("echo", json!({ "sql": "no" })),
        ("never", json!({})),
        ("failing", json!({})),
        ("wrong", json!({})),
        ("garbage", json!({})),
        ("gone", json!({})),
        ("stream", json!({})),
        ("rare", json!({})),
        ("rare", json!({})),
    ] {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool, "arguments": arguments } }).to_string();
        gateway.post("/mcp/a?verbose=1&k", &[&owner, &session, "User-Agent: tester/1"], &body).await;
    }
    for (method, params) in [("resources/read", json!({ "uri": "file:///a" })), ("prompts/get", json!({ "name": "p" }))]
    {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        gateway.post("/mcp/a", &[&owner, &session], &body).await;
    }
    let asked = json!({ "agent": "worker", "mcp_servers": ["a"], "mcp_tool_permissions": { "a": ["echo"] } });
    let minted = gateway.post("/v1/mcp/keys", &[&owner], &asked.to_string()).await.json();
    let refused = gateway.post("/v1/mcp/keys", &[&owner], &asked.to_string().replace("worker", "nobody")).await;
    assert_eq!(refused.status, 403);
    let child = format!("X-API-Key: {}", minted["key"].as_str().unwrap());
    gateway.post("/mcp/a", &[&child], CALL).await;
    for _ in 0..5 {
        gateway.post("/mcp/a", &["X-API-Key: wrong"], CALL).await;
        gateway.post("/mcp/a", &[&owner], "{").await;
    }
    gateway.wait_for_record("refused", |record| record["count"].is_u64());
    gateway.kill();
    let segment = audit(&gateway).join("00000000000000000001.jsonl");
    fs::OpenOptions::new().append(true).open(segment).unwrap().write_all(b"{\"seq").unwrap();
    gateway.restart();
    (gateway, [key.key, token])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_and_word_on_record_is_documented_and_every_documented_field_of_a_request_occurs() {
    let (gateway, [key, token]) = full_of_records().await;
    let records = verified(&audit(&gateway));
    let documented = documented();
    let (outcomes, causes, phases) = (words("Outcomes"), words("Causes"), words("Phases"));
    let mut seen = BTreeSet::new();
    let mut ended = BTreeSet::new();
    for record in &records {
        let kind = record["kind"].as_str().unwrap();
        for (field, value) in record.as_object().unwrap() {
            let kinds = documented.get(field).unwrap_or_else(|| panic!("`{field}` is not in docs/audit.md: {record}"));
            assert!(kinds == "all" || kinds.split(", ").any(|known| known == kind), "`{field}` in {kind}: {record}");
            let known = match field.as_str() {
                "outcome" => outcomes.contains(value.as_str().unwrap()),
                "cause" => causes.contains(value.as_str().unwrap()),
                "phases_us" => value.as_object().unwrap().keys().all(|phase| phases.contains(phase)),
                _ => true,
            };
            assert!(known, "{field}: {record}");
            seen.insert(field.clone());
        }
        ended.extend(record["outcome"].as_str().map(str::to_owned));
    }
    // Those of a disk that failed need one.
    let rare = ["error", "lost_intents", "lost_results", "lost_refusals", "unavailable_us", "unsigned"];
    // Those of proxies, of TLS and of reported agents are seen in `e2e::proxied`, `e2e::tls` and `e2e::identities`.
    let certificate = ["client_cert_subject", "client_cert_names", "client_cert_sha256"];
    // Those of retention are seen in `e2e::evidence`.
    let rare = [&rare[..], &["last_seq", "leaves", "removed_bytes"]].concat();
    // Those of a candidate are seen in `e2e::past`.
    let candidate = ["shadow_decision", "shadow_reason", "shadow_rule"];
    let elsewhere = [&["via", "scheme", "tls", "reported_agent"], &certificate[..], &candidate[..]].concat();
    let is_needed = |field: &str| !rare.contains(&field) && !elsewhere.contains(&field);
    let missing: Vec<&String> =
        documented.keys().filter(|field| !seen.contains(*field) && is_needed(field.as_str())).collect();
    assert_eq!(missing, [""; 0], "documented, and on no record");
    assert_eq!(
        ended.into_iter().collect::<Vec<_>>(),
        ["network_failure", "ok", "rpc_error", "tool_error", "upstream_error"]
    );
    let text = records.iter().map(Value::to_string).collect::<String>();
    assert!(
        !text.contains(&key)
            && !text.contains(&token)
            && !text.contains("upstream-session")
            && !text.contains("verbose=1")
    );
}
