//! What does an operator see: at the start, at the end, on the admin listener, and when something is in the way?

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::e2e::reload;
use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::clock::Clock;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::process::Process;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

async fn get(address: SocketAddr, path: &str) -> Answer {
    client::send(address, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await
}

/// A configuration in a directory of its own, with these lines in `[listen]` and no server.
fn write(directory: &Path, listen: &str) -> PathBuf {
    let file = directory.join("portcullis.toml");
    fs::write(&file, format!("[listen]\n{listen}\n[audit]\ndirectory = \"audit\"\n[state]\ndirectory = \"state\"\n"))
        .unwrap();
    file
}

fn listen(data: SocketAddr, admin: &str) -> String {
    format!("data = \"{data}\"\nadmin = \"{admin}\"\n")
}

/// Tries to start a gateway that is to be refused: its exit code, and what it says.
#[track_caller]
fn refused(file: &Path) -> (Option<i32>, String) {
    let log = file.with_extension("log");
    let mut process = Process::spawn(Command::new(gateway::binary()).args(["run", "--config"]).arg(file), &log);
    let code = process.wait();
    (code, fs::read_to_string(log).unwrap())
}

/// Calls on one connection until the gateway says that it closes it; every call must be answered.
async fn call_until_told(address: SocketAddr, key: Arc<Key>, pause: Duration) -> usize {
    let mut connection = Connection::open(address).await;
    for answered in 1.. {
        connection.write(key.call("echo")).await;
        let answer = connection.answer().await.unwrap_or_else(|| panic!("call {answered} was lost"));
        assert!(answer.status == 200 && answer.complete, "{answer:?}");
        if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return answered;
        }
        tokio::time::sleep(pause).await;
    }
    0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_announces_itself_finishes_every_call_and_ends_with_zero() {
    let upstream = Upstream::start().await;
    upstream.on("tools/call slow", Reply::text("done").delay(Duration::from_millis(2_600)));
    upstream.on(
        "tools/call stream",
        Reply::sse(vec![
            Event::progress(1),
            Event::result(json!({ "content": [] })).after(Duration::from_millis(2_600)),
        ]),
    );
    let key = Arc::new(gateway::make_key("ci"));
    let mut gateway = Gateway::start(&key.config(&upstream));
    let clients: Vec<_> = [0, 0, 5, 50, 300]
        .map(|pause| tokio::spawn(call_until_told(gateway.data, Arc::clone(&key), Duration::from_millis(pause))))
        .into();
    let slow = ["slow", "stream"].map(|tool| tokio::spawn(client::send(gateway.data, key.call(tool))));
    upstream.wait_for("tools/call slow", 1).await;
    upstream.wait_for("tools/call stream", 1).await;
    assert_eq!((get(gateway.data, "/healthz").await.status, get(gateway.admin, "/readyz").await.status), (200, 200));
    gateway.signal("TERM");
    let told = Clock::start();
    while get(gateway.data, "/healthz").await.status != 503 {
        assert!(told.elapsed() < Duration::from_secs(1), "not announced");
    }
    assert_eq!(get(gateway.admin, "/readyz").await.status, 503);
    assert_eq!(get(gateway.admin, "/livez").await.status, 200);
    let new = client::send(gateway.data, key.call("echo")).await;
    assert_eq!(
        (new.status, new.header("connection").map(str::to_lowercase).as_deref()),
        (200, Some("close")),
        "while it is announced, calls are still taken"
    );
    let mut answered = 0;
    for client in clients {
        answered += client.await.unwrap();
    }
    for slow in slow {
        let answer = slow.await.unwrap();
        assert!(answer.status == 200 && answer.complete, "{answer:?}");
    }
    assert_eq!(gateway.wait(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(6), "it ends when it can: {:?}", told.elapsed());
    let records = gateway.records();
    let intents = records.iter().filter(|record| record["kind"] == "intent").count();
    let ok = records.iter().filter(|record| record["outcome"] == "ok").count();
    assert_eq!((intents, ok), (answered + 3, answered + 3), "{}", gateway.log());
    assert!(gateway.log().contains("draining") && gateway.log().contains("ended"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_does_not_end_holds_the_end_up_only_for_the_drain_timeout() {
    let upstream = Upstream::start().await;
    upstream.on("tools/call slow", Reply::never());
    let key = gateway::make_key("ci");
    let mut gateway = Gateway::start(&format!("drain_timeout_ms = 700\n{}", key.config(&upstream)));
    let mut slow = Connection::open(gateway.data).await;
    slow.write(key.call("slow")).await;
    upstream.wait_for("tools/call slow", 1).await;
    gateway.signal("TERM");
    let told = Instant::now();
    assert_eq!(gateway.wait(), Some(0));
    assert!(
        told.elapsed() > Duration::from_millis(700) && told.elapsed() < Duration::from_secs(5),
        "{:?}",
        told.elapsed()
    );
    let result = gateway.wait_for_record("result", |_| true);
    assert_eq!(result["outcome"], "abandoned");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigint_ends_at_once_and_an_abandoned_call_is_on_record() {
    let upstream = Upstream::start().await;
    upstream.on("tools/call slow", Reply::never());
    let key = gateway::make_key("ci");
    // Before, during and after the announcement of a drain.
    for draining in [None, Some(Duration::ZERO), Some(Duration::from_secs(4))] {
        let mut gateway = Gateway::start(&key.config(&upstream));
        let before = upstream.requests_for("tools/call slow").len();
        let mut slow = Connection::open(gateway.data).await;
        slow.write(key.call("slow")).await;
        upstream.wait_for("tools/call slow", before + 1).await;
        if let Some(since) = draining {
            gateway.signal("TERM");
            gateway.wait_for_log("draining");
            tokio::time::sleep(since).await;
            let taken = tokio::net::TcpStream::connect(gateway.data).await.is_ok();
            assert_eq!(taken, since.is_zero(), "connections are taken until the announcement is over");
        }
        gateway.signal("INT");
        let told = Clock::start();
        assert_eq!(gateway.wait(), Some(0));
        assert!(told.elapsed() < Duration::from_millis(1_500), "{:?}", told.elapsed());
        let kinds: Vec<Value> = gateway.records().iter().map(|record| record["kind"].clone()).collect();
        assert_eq!(kinds, ["intent", "result"], "draining: {draining:?}");
        assert_eq!(gateway.records()[1]["outcome"], "abandoned");
    }
}

/// Whether the process has a handler for SIGHUP.
fn catches_hangups(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim();
    u64::from_str_radix(caught, 16).unwrap() & 1 == 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_right_after_the_start_is_heeded_and_ends_nothing() {
    let mut gateway = gateway::setup(&reload::large("")).spawn();
    while !catches_hangups(gateway.pid()) {
        assert!(gateway.is_alive());
    }
    assert!(std::net::TcpStream::connect(gateway.data).is_err(), "it handles signals before it serves");
    gateway.signal("HUP");
    gateway.wait_for_log("configuration reloaded");
    assert!(gateway.is_alive());
    assert_eq!(get(gateway.data, "/healthz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_gateway_on_the_same_directory_or_address_is_refused() {
    let upstream = Upstream::start().await;
    let key = gateway::make_key("ci");
    let mut gateway = Gateway::start(&key.config(&upstream));
    let directory = gateway::fresh_directory();
    let file = directory.join("portcullis.toml");
    let write = |data: SocketAddr, admin: SocketAddr, audit: &Path| {
        let text = format!(
            "{}[audit]\ndirectory = \"{}\"\n[state]\ndirectory = \"state\"\n",
            listen(data, &admin.to_string()),
            audit.display()
        );
        fs::write(&file, format!("[listen]\n{text}")).unwrap();
    };
    write(gateway::free_address(), gateway::free_address(), &gateway.directory.join("audit"));
    let (code, said) = refused(&file);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("audit directory") && said.contains(&gateway.directory.join("audit").display().to_string()),
        "{said}"
    );
    for (data, admin, what) in
        [(gateway.data, gateway::free_address(), gateway.data), (gateway::free_address(), gateway.admin, gateway.admin)]
    {
        write(data, admin, &directory.join("audit"));
        let (code, said) = refused(&file);
        assert!(code == Some(1) && said.contains(&what.to_string()) && said.contains("in use"), "{code:?} {said}");
    }
    assert!(gateway.is_alive());
    assert_eq!(client::send(gateway.data, key.call("echo")).await.status, 200);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn an_admin_listener_that_others_may_reach_is_refused() {
    let directory = gateway::fresh_directory();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9090", "unix:admin.sock"] {
        let file = write(&directory, &listen(gateway::free_address(), address));
        let (code, said) = refused(&file);
        assert_eq!(code, Some(3), "{address}: {said}");
        assert!(said.contains("portcullis.toml:3:9"), "{address}: {said}");
        let (checked, _, same) = gateway::run(&["check", "--config", file.to_str().unwrap()]);
        assert_eq!((checked, same), (Some(3), said));
    }
    fs::remove_dir_all(directory).unwrap();
}

fn get_unix(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_admin_listener_can_be_a_unix_socket() {
    let directory = gateway::fresh_directory();
    let socket = directory.join("admin.sock");
    let data = gateway::free_address();
    let file = write(&directory, &listen(data, &format!("unix:{}", socket.display())));
    let start = || {
        let process = Process::spawn(
            Command::new(gateway::binary()).args(["run", "--config"]).arg(&file),
            &directory.join("log"),
        );
        gateway::wait_until("it serves", || std::net::TcpStream::connect(data).is_ok());
        gateway::wait_until("its admin listener does", || UnixStream::connect(&socket).is_ok());
        process
    };
    let process = start();
    let metadata = fs::metadata(&socket).unwrap();
    assert!(metadata.file_type().is_socket() && metadata.permissions().mode() & 0o777 == 0o660, "{metadata:?}");
    assert!(get_unix(&socket, "/livez").starts_with("HTTP/1.1 200"));
    assert!(get_unix(&socket, "/metrics").contains("\nportcullis_build_info{version="));
    // Killed, it leaves its socket behind, which is no hindrance.
    drop(process);
    assert!(socket.exists());
    let mut process = start();
    assert!(get_unix(&socket, "/readyz").starts_with("HTTP/1.1 200"));
    process.signal("TERM");
    assert_eq!(process.wait(), Some(0));
    assert!(!socket.exists(), "an orderly end takes the socket away");
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_shrink_to_the_descriptors_there_are_unless_they_were_asked_for() {
    let upstream = Upstream::start().await;
    let key = gateway::make_key("ci");
    // (300 - 128) / 2 = 86 connections.
    let config = |listen: &str| format!("connections_per_address_max = 86\n{listen}{}", key.config(&upstream));
    let gateway = gateway::setup(&config("")).descriptors(300).start();
    let mut open = Vec::new();
    for _ in 0..86 {
        let mut connection = Connection::open(gateway.data).await;
        connection.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(connection.answer().await.unwrap().status, 200);
        open.push(connection);
    }
    assert_eq!(gateway.metric("portcullis_connections").await, Some(86.0));
    let beyond = client::send(gateway.data, key.call("echo")).await;
    assert_eq!(beyond.status, 503);
    open[0].write(key.call("echo")).await;
    assert_eq!(open[0].answer().await.unwrap().status, 200, "those there are have descriptors for their calls");
    drop(open);
    gateway.wait_for_record("refused", |record| record["reason"] == "connections_max");
    // A number that does not fit is refused, at a reload as at the start.
    gateway.reload(&config("streams_max = 87\n"));
    gateway.wait_for_log("was not loaded");
    assert!(gateway.log().contains("`listen.streams_max = 87` does not fit"), "{}", gateway.log());
    assert_eq!(gateway.metric("portcullis_config_last_reload_successful").await, Some(0.0));
    gateway.reload(&config("streams_max = 86\n"));
    gateway.wait_for_log("configuration reloaded");
}

#[test]
fn a_number_of_streams_that_does_not_fit_is_refused_and_the_soft_limit_raised() {
    let directory = gateway::fresh_directory();
    let data = gateway::free_address();
    let file = write(&directory, &format!("{}streams_max = 1000\n", listen(data, "127.0.0.1:0")));
    let log = directory.join("log");
    let shell = |limit: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit {limit}; exec \"$0\" run --config \"$1\""), gateway::binary()]).arg(&file);
        Process::spawn(&mut command, &log)
    };
    let mut process = shell("-n 400");
    assert_eq!(process.wait(), Some(1));
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("`listen.streams_max = 1000` does not fit") && said.contains("allows 136"), "{said}");
    let process = shell("-S -n 400; ulimit -H -n 4000");
    gateway::wait_until("it serves", || std::net::TcpStream::connect(data).is_ok());
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap();
    let files: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
    assert_eq!(files[3..5], ["4000", "4000"]);
    drop(process);
    fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_listener_tells_whether_it_lives_and_is_ready() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&gateway::make_key("ci").config(&upstream));
    for (path, status, text) in [
        ("/livez", 200, "ok\n"),
        ("/readyz", 200, "ready\n"),
        ("/healthz", 404, "not found\n"),
        ("/mcp/a", 404, "not found\n"),
    ] {
        let answer = get(gateway.admin, path).await;
        assert!(answer.status == status && answer.text().contains(text), "{path}: {answer:?}");
    }
    assert!(get(gateway.admin, "/readyz?verbose").await.text().contains("[+] audit_available ok"));
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(get(gateway.data, path).await.status, 404, "{path} is not for clients");
    }
}

/// Every sample of a page in Prometheus' text format, by its name and labels as written.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// Calls of every kind towards one server, through a policy that names two of its tools.
async fn metered() -> (Upstream, Gateway, usize) {
    let upstream = Upstream::start().await;
    upstream.on("tools/call fail", Reply::json(json!({ "content": [], "isError": true })));
    upstream.on("tools/call canary-wrong", Reply::error(-32000, "no"));
    upstream.on("tools/call canary-garbage", Reply::garbage());
    let key = gateway::make_key("ci");
    let gateway = Gateway::start(&format!(
        "[servers.a]\nurl = \"{}\"\nallowed_tools = [\"echo\", \"fail\", \"canary-*\"]\n[keys.ci]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\nagent = \"w\"\n[agents.w.servers.a]\nargument_constraints.echo = [{{ arg = \"sql\", pattern = \"^S\" }}]\n",
        upstream.url(),
        key.digest
    ));
    let call = |tool: &str, sql: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{"sql":"{sql}"}}}}}}"#
        )
    };
    let ask = |method: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
    let owner = format!("X-API-Key: {}", key.key);
    let requests = [
        (owner.as_str(), call("echo", "S"), 200),
        (&owner, call("echo", "S"), 200),
        (&owner, call("echo", "S"), 200),
        (&owner, call("echo", "no"), 200),
        (&owner, call("fail", ""), 200),
        (&owner, call("canary-tool", ""), 200),
        (&owner, call("canary-wrong", ""), 200),
        (&owner, call("canary-garbage", ""), 502),
        (&owner, call("hidden-canary", ""), 200),
        (&owner, ask("tools/list"), 200),
        (&owner, ask("canary/method"), 404),
        (&owner, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned(), 202),
        (&owner, "{".to_owned(), 400),
        (&owner, r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#.to_owned(), 400),
        ("X-API-Key: canary", ask("ping"), 401),
        ("X-Canary: 1", ask("ping"), 401),
    ];
    let count = requests.len();
    for (header, body, status) in requests {
        let answer = gateway.post("/mcp/a", &[header], &body).await;
        let is_unknown_method = body.contains("canary/method");
        assert!(answer.status == status || is_unknown_method, "{body}: {answer:?}");
    }
    (upstream, gateway, count)
}

/// Waits until what is brought up once a second (the record's count, the state of servers) is there, and connections that clients
/// closed are gone.
async fn settled(gateway: &Gateway) -> (String, BTreeMap<String, f64>) {
    let started = Instant::now();
    loop {
        let text = gateway.metrics().await;
        let samples = samples(&text);
        let records = samples["portcullis_audit_records_total"];
        let is_alone = samples["portcullis_connections"] <= 1.0;
        if samples.contains_key("portcullis_upstream_up{server=\"a\"}") && records >= 20.0 && is_alone {
            return (text, samples);
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The series of one family, by their labels as written.
fn series<'s>(samples: &'s BTreeMap<String, f64>, family: &str) -> BTreeMap<&'s str, f64> {
    let labels = |name: &'s str| name.strip_prefix(family)?.strip_prefix('{')?.strip_suffix('}');
    samples.iter().filter_map(|(name, value)| Some((labels(name)?, *value))).collect()
}

#[track_caller]
fn has_exactly(samples: &BTreeMap<String, f64>, family: &str, expected: &[(String, f64)]) {
    let expected: BTreeMap<&str, f64> = expected.iter().map(|(labels, count)| (labels.as_str(), *count)).collect();
    assert_eq!(series(samples, family), expected, "{family}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_calls_decisions_and_refusals_are_counted_exactly() {
    let (_upstream, gateway, _) = metered().await;
    let (_, samples) = settled(&gateway).await;
    let request = |method: &str, outcome: &str| format!("method=\"{method}\",outcome=\"{outcome}\",server=\"a\"");
    let expected = [
        (request("tools/call", "ok"), 4.0),
        (request("tools/call", "tool_error"), 1.0),
        (request("tools/call", "rpc_error"), 1.0),
        (request("tools/call", "upstream_error"), 1.0),
        (request("tools/call", "refused"), 2.0),
        (request("tools/list", "ok"), 1.0),
        (request("_notification", "ok"), 1.0),
        (request("_other", "refused"), 3.0),
    ];
    has_exactly(&samples, "portcullis_requests_total", &expected);
    let call = |outcome: &str, tool: &str| format!("outcome=\"{outcome}\",server=\"a\",tool=\"{tool}\"");
    let expected = [
        (call("ok", "echo"), 3.0),
        (call("refused", "echo"), 1.0),
        (call("tool_error", "fail"), 1.0),
        (call("ok", "_other"), 1.0),
        (call("rpc_error", "_other"), 1.0),
        (call("upstream_error", "_other"), 1.0),
        (call("refused", "_other"), 1.0),
    ];
    has_exactly(&samples, "portcullis_tool_calls_total", &expected);
    let decision = |name: &str| format!("decision=\"{name}\",server=\"a\"");
    let expected = [
        (decision("agent_tools"), 7.0),
        (decision("key_servers"), 2.0),
        (decision("argument_mismatch"), 1.0),
        (decision("tool_not_allowed"), 1.0),
        (decision("method_unknown"), 1.0),
    ];
    has_exactly(&samples, "portcullis_policy_decisions_total", &expected);
    let counted = series(&samples, "portcullis_refusals_total").into_iter().filter(|(_, count)| *count > 0.0);
    let counted: Vec<(&str, f64)> = counted.collect();
    let expected = [
        ("reason=\"argument_mismatch\"", 1.0),
        ("reason=\"duplicate_key\"", 1.0),
        ("reason=\"key_missing\"", 1.0),
        ("reason=\"key_unknown\"", 1.0),
        ("reason=\"method_unknown\"", 1.0),
        ("reason=\"protocol\"", 1.0),
        ("reason=\"tool_not_allowed\"", 1.0),
        ("reason=\"truncated\"", 1.0),
    ];
    assert_eq!(counted, expected, "each reason is a word of the vocabulary");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_family_has_plausible_values_and_no_label_comes_from_traffic() {
    let (upstream, gateway, count) = metered().await;
    let mut open = Connection::open(gateway.data).await;
    open.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(open.answer().await.unwrap().status, 200);
    let (text, samples) = settled(&gateway).await;
    let (sent, records) = (upstream.requests().len(), gateway.records().len());
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let exact = [
        ("portcullis_upstream_duration_seconds_count{server=\"a\"}", sent as f64),
        ("portcullis_overhead_seconds_count{phase=\"total\"}", count as f64),
        ("portcullis_overhead_seconds_count{phase=\"upstream_wait\"}", sent as f64),
        ("portcullis_audit_records_total", records as f64),
        ("portcullis_audit_unavailable", 0.0),
        ("portcullis_streams", 0.0),
        ("portcullis_connections", 1.0),
        ("portcullis_config_revision", 1.0),
        ("portcullis_config_last_reload_successful", 1.0),
        ("portcullis_upstream_up{server=\"a\"}", 1.0),
        (concat!("portcullis_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ];
    for (name, value) in exact {
        assert_eq!(samples.get(name), Some(&value), "{name}\n{text}");
    }
    assert_eq!(series(&samples, "portcullis_config_info").len(), 1);
    assert!(series(&samples, "portcullis_metrics_series_dropped_total").values().all(|dropped| *dropped < 1.0));
    assert!(samples["portcullis_config_last_reload_success_timestamp_seconds"] > 1.7e9);
    assert!(samples["process_resident_memory_bytes"] > 1e6 && samples["process_open_fds"] > 5.0);
    assert!(samples.keys().all(|name| name.starts_with("portcullis_") || name.starts_with("process_")), "{text}");
    let seconds = samples["portcullis_overhead_seconds_sum{phase=\"total\"}"];
    assert!(seconds > 0.0 && seconds < 5.0, "{seconds}");
    assert!(!text.contains("canary"), "{text}");
}
