//! Is a collector told of each request as OpenTelemetry's conventions for MCP have it, and does that cost anybody a call?

use std::time::Duration;
use std::time::Instant;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::collector::Collector;
use crate::support::collector::attribute;
use crate::support::collector::told;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::gateway::Setup;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const OF_MESSAGE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OF_HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const SERVER: i32 = SpanKind::Server as i32;
const CLIENT: i32 = SpanKind::Client as i32;

struct Stage {
    collector: Collector,
    upstream: Upstream,
    gateway: Gateway,
    key: Key,
}

impl Stage {
    async fn start() -> Self {
        Self::start_with(|setup| setup).await
    }

    async fn start_with(with: impl Fn(Setup) -> Setup) -> Self {
        let (collector, upstream, key) = (Collector::start().await, Upstream::start().await, gateway::make_key("ci"));
        let config = format!(
            "[servers.a]\nurl = \"{url}\"\nblocked_tools = [\"hidden\"]\nbreaker.enabled = false\n[servers.open]\nurl = \"{url}\"\naccess = \"public\"\n[keys.ci]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\n",
            key.digest,
            url = upstream.url(),
        );
        let gateway = with(collector.told_by(gateway::setup(&config))).start();
        Self { collector, upstream, gateway, key }
    }

    async fn post(&self, headers: &[&str], body: &Value) -> Answer {
        let key = format!("X-API-Key: {}", self.key.key);
        let headers: Vec<&str> = headers.iter().copied().chain([key.as_str()]).collect();
        self.gateway.post("/mcp/a", &headers, &body.to_string()).await
    }

    async fn ask(&self, method: &str, params: Value) -> Answer {
        self.post(&[], &request(method, params)).await
    }
}

fn request(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params })
}

fn call(tool: &str) -> Value {
    json!({ "name": tool, "arguments": { "secret": "of the call" } })
}

/// What a span says: name, whether it is an error, attributes. What differs from run to run is blanked.
fn shown(span: &Span) -> String {
    let is_error = span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32);
    let blanked = |line: String| {
        let name = line.split('=').next().unwrap_or_default().to_owned();
        if ["client.port", "server.port"].contains(&name.as_str()) { format!("{name}=*") } else { line }
    };
    let attributes: Vec<String> = told(&span.attributes).into_iter().map(blanked).collect();
    format!("{}{}\n{}", span.name, if is_error { " (error)" } else { "" }, attributes.join("\n"))
}

/// The spans of one request: what the client asked, what the server was asked.
fn pair(spans: &[Span]) -> (&Span, &Span) {
    let [server, client] = spans else { panic!("two spans: {spans:#?}") };
    assert_eq!((server.kind, client.kind), (SERVER, CLIENT));
    assert_eq!((&client.trace_id, &client.parent_span_id), (&server.trace_id, &server.span_id));
    assert!(server.start_time_unix_nano <= client.start_time_unix_nano);
    assert!(client.end_time_unix_nano <= server.end_time_unix_nano);
    (server, client)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The `traceparent` of a span that is told.
fn parent_of(span: &Span) -> String {
    format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id))
}

/// The attributes of the conventions at the commit that `telemetry::traces::CONVENTIONS` names, with what is ours.
#[tokio::test]
async fn a_call_is_told_as_the_conventions_have_it() {
    let stage = Stage::start().await;
    assert_eq!(stage.ask("tools/call", call("echo")).await.status, 200);
    let spans = stage.collector.spans(2).await;
    let (server, client) = pair(&spans);
    let expected = "tools/call echo\n\
        client.address=127.0.0.1\nclient.port=*\n\
        gen_ai.operation.name=execute_tool\ngen_ai.tool.name=echo\n\
        http.response.status_code=200\njsonrpc.request.id=7\n\
        mcp.method.name=tools/call\nmcp.protocol.version=2025-03-26\n\
        network.protocol.name=http\nnetwork.protocol.version=1.1\nnetwork.transport=tcp\n\
        portcullis.outcome=ok\nportcullis.record=1\nportcullis.server=a";
    assert_eq!(shown(server), expected);
    let expected = "tools/call echo\n\
        gen_ai.operation.name=execute_tool\ngen_ai.tool.name=echo\n\
        jsonrpc.request.id=7\nmcp.method.name=tools/call\nmcp.protocol.version=2025-03-26\n\
        network.protocol.name=http\nnetwork.protocol.version=1.1\nnetwork.transport=tcp\n\
        portcullis.server=a\nserver.address=127.0.0.1\nserver.port=*";
    assert_eq!(shown(client), expected);
    let record = stage.gateway.wait_for_record("intent", |_| true);
    assert_eq!(attribute(server, "portcullis.record"), Some(record["seq"].to_string()));
    assert!(server.parent_span_id.is_empty() && server.links.is_empty());
    let resource = stage.collector.exports()[0].resource_spans[0].resource.clone().unwrap();
    let told = told(&resource.attributes);
    let version = concat!("service.version=", env!("CARGO_PKG_VERSION"));
    for line in ["service.name=portcullis", version, "telemetry.sdk.language=rust"] {
        assert!(told.iter().any(|told| told == line), "{line}: {told:?}");
    }
    assert_eq!(stage.gateway.metric("portcullis_trace_spans_total{outcome=\"exported\"}").await, Some(2.0));
}

#[tokio::test]
async fn the_environment_names_the_service_and_a_collector_gets_its_headers() {
    let stage = Stage::start_with(|setup| {
        let setup = setup.variable("OTEL_SERVICE_NAME", "edge").variable("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=acme");
        setup.variable("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.version=9")
    });
    let stage = stage.await;
    stage.ask("ping", json!({})).await;
    stage.collector.spans(2).await;
    let resource = stage.collector.exports()[0].resource_spans[0].resource.clone().unwrap();
    let told = told(&resource.attributes);
    for line in ["service.name=edge", "service.version=9", "deployment.environment.name=test"] {
        assert!(told.iter().any(|told| told == line), "{line}: {told:?}");
    }
    let sent = &stage.collector.0.requests()[0];
    assert_eq!((sent.line(), sent.header("x-tenant").as_deref()), ("POST /v1/traces HTTP/1.1", Some("acme")));
}

#[tokio::test]
async fn the_messages_context_is_the_parent_and_the_headers_a_link_and_the_bytes_stay_what_they_are() {
    let stage = Stage::start().await;
    let meta = json!({ "traceparent": OF_MESSAGE, "tracestate": "a=1", "baggage": "user=of-the-caller" });
    let body = request("tools/call", json!({ "name": "echo", "arguments": {}, "_meta": meta }));
    let headers = [&format!("Traceparent: {OF_HEADER}"), "Tracestate: b=2", "Baggage: user=of-the-header"];
    assert_eq!(stage.post(&headers, &body).await.status, 200);
    let spans = stage.collector.spans(2).await;
    let (server, client) = pair(&spans);
    assert_eq!((hex(&server.trace_id).as_str(), hex(&server.parent_span_id).as_str()), (TRACE, &OF_MESSAGE[36..52]));
    assert_eq!((server.trace_state.as_str(), client.trace_state.as_str()), ("a=1", "a=1"));
    let [link] = server.links.as_slice() else { panic!("one link: {server:#?}") };
    assert_eq!(format!("00-{}-{}-01", hex(&link.trace_id), hex(&link.span_id)), OF_HEADER);
    assert_eq!(link.trace_state, "b=2");
    // The server is told by a header alone: the body is what the client sent.
    let sent = &stage.upstream.requests_for("tools/call")[0];
    assert_eq!(sent.body, body.to_string());
    assert_eq!(sent.headers("traceparent"), [parent_of(client)]);
    assert_eq!(sent.headers("tracestate"), ["a=1"]);
    assert!(sent.headers("baggage").is_empty());
}

#[tokio::test]
async fn a_header_alone_is_the_parent_and_one_that_cannot_be_read_is_none() {
    let stage = Stage::start().await;
    let ping = request("ping", json!({}));
    stage.post(&[&format!("Traceparent: {OF_HEADER}")], &ping).await;
    let spans = stage.collector.spans(2).await;
    let (server, client) = pair(&spans);
    assert_eq!(format!("00-{}-{}-01", hex(&server.trace_id), hex(&server.parent_span_id)), OF_HEADER);
    assert!(server.links.is_empty());
    assert_eq!(stage.upstream.requests_for("ping")[0].headers("traceparent"), [parent_of(client)]);
    let twice = format!("Traceparent: {OF_HEADER}");
    stage.post(&[&twice, &twice], &ping).await;
    stage.post(&["Traceparent: 00-0-0-01", "Tracestate: a=1"], &ping).await;
    let all = stage.collector.spans(6).await;
    for server in all[2..].iter().filter(|span| span.kind == SERVER) {
        assert!(server.parent_span_id.is_empty() && server.links.is_empty() && server.trace_state.is_empty());
    }
    assert!(stage.upstream.requests_for("ping")[1..].iter().all(|sent| sent.header("tracestate").is_none()));
}

#[tokio::test]
async fn whose_caller_is_nobody_stands_in_a_trace_of_its_own() {
    let stage = Stage::start_with(|setup| setup.variable("OTEL_TRACES_SAMPLER", "parentbased_always_off")).await;
    let ping = request("ping", json!({})).to_string();
    // Nobody can have traces collected that are not.
    stage.gateway.post("/mcp/open", &[&format!("Traceparent: {OF_HEADER}")], &ping).await;
    let sent = stage.upstream.requests_for("ping")[0].header("traceparent").unwrap();
    assert!(sent.ends_with("-00") && !sent.contains(&OF_HEADER[3..35]), "{sent}");
    stage.post(&[&format!("Traceparent: {OF_HEADER}")], &request("ping", json!({}))).await;
    stage.collector.spans(2).await;

    let stage = Stage::start().await;
    stage.gateway.post("/mcp/open", &[&format!("Traceparent: {OF_HEADER}")], &ping).await;
    let spans = stage.collector.spans(2).await;
    let (server, _) = pair(&spans);
    assert!(server.parent_span_id.is_empty());
    assert_eq!(hex(&server.links[0].trace_id), OF_HEADER[3..35]);
}

#[tokio::test]
async fn a_trace_that_is_not_collected_is_not_told_and_goes_on_as_such() {
    let stage = Stage::start().await;
    let header = format!("Traceparent: {}", OF_HEADER.replace("-01", "-00"));
    stage.post(&[&header], &request("ping", json!({}))).await;
    stage.ask("ping", json!({})).await;
    let spans = stage.collector.spans(2).await;
    assert_ne!(hex(&spans[0].trace_id), OF_HEADER[3..35]);
    let sent = stage.upstream.requests_for("ping")[0].header("traceparent").unwrap();
    assert!(sent.starts_with(&OF_HEADER[..36]) && sent.ends_with("-00"), "{sent}");
}

#[tokio::test]
async fn an_error_is_told_by_its_kind() {
    let stage = Stage::start().await;
    stage.upstream.on("tools/call failing", Reply::json(json!({ "content": [], "isError": true })));
    stage.upstream.on("tools/call wrong", Reply::error(-32042, "no"));
    stage.upstream.on("tools/call wrong_http", Reply::error(-32043, "no").status_code(400));
    stage.upstream.on("tools/call gone", Reply::reset());
    stage.upstream.on("tools/call bad", Reply::garbage());
    let streamed = vec![
        Event::progress(1),
        Event::message(json!({ "jsonrpc": "2.0", "id": 7, "error": { "code": -32044, "message": "no" } })),
    ];
    stage.upstream.on("tools/call streamed", Reply::sse(streamed));
    // Tool; kind of error and code, as the client sees them; kind of error of the server, if it was asked.
    let rows: [(&str, &str, Option<&str>, Option<&str>); 7] = [
        ("failing", "tool_error", None, Some("tool_error")),
        ("wrong", "-32042", Some("-32042"), Some("-32042")),
        ("wrong_http", "-32043", Some("-32043"), Some("-32043")),
        ("streamed", "-32044", Some("-32044"), Some("-32044")),
        ("gone", "-32603", Some("-32603"), Some("reset")),
        ("bad", "-32603", Some("-32603"), Some("protocol")),
        ("hidden", "-32602", Some("-32602"), None),
    ];
    let mut count = 0;
    for (tool, error, code, of_server) in rows {
        stage.ask("tools/call", call(tool)).await;
        let told = stage.collector.spans(count + 1 + usize::from(of_server.is_some())).await;
        let spans = &told[count..];
        let server = &spans[0];
        assert_eq!(server.name, format!("tools/call {tool}"));
        assert_eq!(attribute(server, "error.type").as_deref(), Some(error), "{tool}");
        assert_eq!(attribute(server, "rpc.response.status_code").as_deref(), code, "{tool}");
        assert!(shown(server).contains(" (error)\n"), "{tool}");
        assert_eq!(spans.get(1).and_then(|span| attribute(span, "error.type")).as_deref(), of_server, "{tool}");
        count = told.len();
    }
    let spans = stage.collector.spans(count).await;
    let refused = spans.last().unwrap();
    assert_eq!(attribute(refused, "portcullis.reason").as_deref(), Some("tool_blocked"));
    assert_eq!(attribute(refused, "portcullis.outcome").as_deref(), Some("refused"));
}

#[tokio::test]
async fn who_is_not_let_in_is_told_of_with_nothing_of_the_message() {
    let stage = Stage::start().await;
    let body = request("tools/call", call("echo")).to_string();
    let answer = stage.gateway.post("/mcp/a", &["X-API-Key: wrong"], &body).await;
    assert_eq!(answer.status, 401);
    let expected = "POST (error)\nclient.address=127.0.0.1\nclient.port=*\nerror.type=-32600\n\
        http.response.status_code=401\nnetwork.protocol.name=http\nnetwork.protocol.version=1.1\nnetwork.transport=tcp\n\
        portcullis.outcome=refused\nportcullis.reason=key_unknown\nrpc.response.status_code=-32600";
    assert_eq!(shown(&stage.collector.spans(1).await[0]), expected);
}

#[tokio::test]
async fn a_resource_is_told_without_what_may_be_a_secret_and_a_prompt_by_its_name() {
    let stage = Stage::start().await;
    stage.ask("resources/read", json!({ "uri": "https://user:pw@host/doc?token=canary#canary" })).await;
    let spans = stage.collector.spans(1).await;
    assert_eq!(spans[0].name, "resources/read");
    assert_eq!(attribute(&spans[0], "mcp.resource.uri").as_deref(), Some("https://…@host/doc?token=…#…"));
    stage.ask("prompts/get", json!({ "name": "greet", "arguments": { "who": "canary" } })).await;
    let spans = stage.collector.spans(3).await;
    let (server, client) = pair(&spans[1..]);
    assert_eq!((server.name.as_str(), client.name.as_str()), ("prompts/get greet", "prompts/get greet"));
    assert_eq!(attribute(client, "gen_ai.prompt.name").as_deref(), Some("greet"));
    assert!(!String::from_utf8_lossy(&stage.collector.bytes()).contains("canary"));
}

#[tokio::test]
async fn a_stream_is_one_span_to_its_end_and_each_message_of_a_batch_has_its_own() {
    let stage = Stage::start().await;
    let events = vec![Event::progress(1), Event::result(json!({ "content": [] })).after(Duration::from_millis(300))];
    stage.upstream.on("tools/call slow", Reply::sse(events));
    stage.ask("tools/call", call("slow")).await;
    let spans = stage.collector.spans(2).await;
    let (server, client) = pair(&spans);
    for span in [server, client] {
        let took = Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano);
        assert!(took >= Duration::from_millis(300), "{took:?}");
    }
    let batch = json!([
        { "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "echo", "_meta": { "traceparent": OF_MESSAGE } } },
        { "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": { "name": "hidden" } },
        { "jsonrpc": "2.0", "method": "notifications/initialized" },
    ]);
    let headers = ["MCP-Protocol-Version: 2025-03-26", &format!("Traceparent: {OF_HEADER}")];
    assert_eq!(stage.post(&headers, &batch).await.status, 200);
    let spans = stage.collector.spans(7).await;
    let of_clients: Vec<(String, String)> = spans[2..]
        .iter()
        .filter(|span| span.kind == SERVER)
        .map(|span| (span.name.clone(), hex(&span.trace_id)))
        .collect();
    let (of_message, of_header) = (TRACE.to_owned(), OF_HEADER[3..35].to_owned());
    let expected = [
        ("tools/call echo".to_owned(), of_message),
        ("tools/call hidden".to_owned(), of_header.clone()),
        ("notifications/initialized".to_owned(), of_header),
    ];
    assert_eq!(of_clients, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_costs_spans_and_no_call_and_keeps_nobody() {
    let mut stage = Stage::start_with(|setup| {
        let setup = setup.variable("OTEL_BSP_MAX_QUEUE_SIZE", "8").variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4");
        setup.variable("OTEL_EXPORTER_OTLP_TIMEOUT", "60000")
    })
    .await;
    stage.collector.0.on("*", Reply::never());
    let began = Instant::now();
    let mut connection = Connection::open(stage.gateway.data).await;
    for _ in 0..200 {
        connection.write(stage.key.call("echo")).await;
        assert_eq!(connection.answer().await.unwrap().status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(50), "no call waits for the collector: {:?}", began.elapsed());
    let dropped = stage.gateway.metric("portcullis_trace_spans_total{outcome=\"queue_full\"}").await.unwrap();
    // What hangs with the collector, and what waits behind it.
    assert!((380.0..=392.0).contains(&dropped), "{dropped}");
    let asked = Instant::now();
    stage.gateway.signal("INT");
    assert_eq!(stage.gateway.wait(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
    assert_eq!(stage.gateway.wait_for_records("result", 200).len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_absent_is_told_of_once_and_what_is_left_at_the_end_is_sent() {
    let mut stage = Stage::start_with(|setup| setup.variable("OTEL_BSP_SCHEDULE_DELAY", "60000")).await;
    stage.ask("ping", json!({})).await;
    assert_eq!(stage.collector.0.requests().len(), 0);
    stage.gateway.signal("TERM");
    assert_eq!(stage.gateway.wait(), Some(0));
    stage.collector.spans(2).await;

    let stage = Stage::start().await;
    stage.collector.0.stop().await;
    for at in 1..4 {
        stage.ask("ping", json!({})).await;
        let failed = "portcullis_trace_spans_total{outcome=\"not_exported\"}";
        while stage.gateway.metric(failed).await != Some(f64::from(2 * at)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(stage.gateway.log().matches("the collector takes no spans").count(), 1, "{}", stage.gateway.log());
}

#[tokio::test]
async fn a_variable_that_cannot_be_followed_turns_traces_off_and_nothing_else() {
    let stage = Stage::start_with(|setup| setup.variable("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")).await;
    stage.gateway.wait_for_log("traces are off: OTEL_EXPORTER_OTLP_PROTOCOL is `grpc`");
    assert_eq!(stage.ask("ping", json!({})).await.status, 200);
    let sent = &stage.upstream.requests_for("ping")[0];
    assert!(sent.header("traceparent").is_none());
    let answer = client::send(stage.gateway.data, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(answer.status, 200);
    assert_eq!(stage.collector.0.connections().len(), 0);
}
