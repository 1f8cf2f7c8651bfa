//! Mistakes in a server's configuration, each at its place; and what an unchanged server is.

use super::config;
use super::server;

use crate::config::model::Breaker;
use crate::config::model::Endpoint;
use crate::config::model::Health;
use crate::config::model::HealthType;
use crate::config::model::Server;
use crate::config::model::ServerTool;
use crate::config::model::Transport;
use crate::config::model::UpstreamAuth;
use crate::config::model::UpstreamAuthType;
use crate::config::problem::Problems;
use crate::config::secret::Secret;
use crate::upstream::CREDENTIAL_HEADERS_MAX;
use crate::upstream::ENDPOINTS_MAX;
use crate::upstream::Plans;
use crate::upstream::WAIT_MS_MAX;
use crate::upstream::WEIGHT_MAX;

const URL: &str = "http://a.test/mcp";

/// The places of the mistakes, below `servers.x`, each with its message.
fn mistakes(server: Server) -> Vec<String> {
    let mut problems = Problems::new();
    Plans::compile(&config(server), &mut problems);
    let texts = problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message));
    texts.map(|text| text.strip_prefix("servers.x").unwrap().trim_start_matches('.').to_owned()).collect()
}

fn base() -> Server {
    server(URL)
}

fn replicas(endpoints: Vec<(&str, usize)>) -> Server {
    let endpoints =
        endpoints.into_iter().map(|(url, weight)| Endpoint { url: url.into(), weight, draining: false }).collect();
    Server { url: None, endpoints, ..base() }
}

fn auth(r#type: UpstreamAuthType, secret: Option<&str>, name: Option<&str>, username: Option<&str>) -> Server {
    let (secret, name, username) = (secret.map(Secret::new), name.map(str::to_owned), username.map(str::to_owned));
    Server { auth: UpstreamAuth { r#type, secret, name, username }, ..base() }
}

fn header(name: &str, value: &str) -> Server {
    Server { headers: [(name.to_owned(), Secret::new(value))].into(), ..base() }
}

#[test]
fn a_plain_server_has_no_mistakes() {
    assert_eq!(mistakes(base()), [""; 0]);
    assert_eq!(mistakes(replicas(vec![(URL, 1), ("http://b.test/mcp", WEIGHT_MAX)])), [""; 0]);
    assert_eq!(
        mistakes(Server {
            r#type: Some(Transport::StreamableHttp),
            transport: Some(Transport::StreamableHttp),
            ..base()
        }),
        [""; 0]
    );
    assert_eq!(mistakes(auth(UpstreamAuthType::Basic, Some("pä:ss"), None, Some("me"))), [""; 0]);
    assert_eq!(mistakes(auth(UpstreamAuthType::Header, Some("k"), Some("X-API-Key"), None)), [""; 0]);
}

#[test]
fn a_server_has_either_a_url_or_endpoints() {
    assert_eq!(mistakes(Server { url: None, ..base() }), [": neither `url` nor `endpoints` is given"]);
    let both = Server { url: Some(URL.into()), ..replicas(vec![("http://b.test/", 1)]) };
    assert_eq!(mistakes(both), ["endpoints: both `url` and `endpoints` are given"]);
}

#[test]
fn every_bad_endpoint_is_reported_at_its_place() {
    let server =
        replicas(vec![("ftp://a.test", 1), (URL, 0), ("http://A.test:80/mcp", WEIGHT_MAX + 1), ("https://:443/", 1)]);
    let expected = [
        "endpoints[0].url: the URL's scheme is neither `http` nor `https`",
        "endpoints[1].weight: a weight of 0",
        "endpoints[2].weight: a weight of 1001",
        "endpoints[2].url: this endpoint is listed twice",
        "endpoints[3].url: the URL's host is neither a name nor an address",
    ];
    assert_eq!(mistakes(server), expected);
    assert_eq!(mistakes(server_at("http://a.test/?token=s3cret#x")), ["url: the URL has a fragment"]);
}

fn server_at(url: &str) -> Server {
    server(url)
}

#[test]
fn endpoints_and_headers_have_a_limit() {
    let urls: Vec<String> = (0..=ENDPOINTS_MAX).map(|index| format!("http://a.test/{index}")).collect();
    let many = |count: usize| replicas(urls.iter().take(count).map(|url| (url.as_str(), 1)).collect());
    assert_eq!(mistakes(many(ENDPOINTS_MAX)), [""; 0]);
    assert_eq!(mistakes(many(ENDPOINTS_MAX + 1)), ["endpoints: more than 64 endpoints"]);
    let many = |count: usize| Server {
        headers: (0..count).map(|index| (format!("x-{index}"), Secret::new("v"))).collect(),
        ..base()
    };
    assert_eq!(mistakes(many(CREDENTIAL_HEADERS_MAX)), [""; 0]);
    assert_eq!(mistakes(many(CREDENTIAL_HEADERS_MAX + 1)), ["headers: more than 32 headers"]);
}

#[test]
fn a_transport_that_is_not_served_or_contradictory_is_reported() {
    let stdio = Server { r#type: Some(Transport::Stdio), url: None, ..base() };
    assert_eq!(mistakes(stdio), ["type: `stdio` servers are not yet served"]);
    let both = Server { r#type: Some(Transport::Sse), transport: Some(Transport::StreamableHttp), ..base() };
    assert_eq!(mistakes(both), ["type: `type` and `transport` contradict each other"]);
}

#[test]
fn a_server_speaks_the_transport_that_its_configuration_names() {
    let speaks_sse = |server: Server| {
        assert_eq!(mistakes(server.clone()), [""; 0]);
        Plans::compile(&config(server), &mut Problems::new()).get("x").unwrap().speaks_sse()
    };
    assert!(speaks_sse(Server { transport: Some(Transport::Sse), ..base() }));
    assert!(speaks_sse(Server { r#type: Some(Transport::Sse), ..base() }));
    assert!(!speaks_sse(Server { transport: Some(Transport::StreamableHttp), ..base() }));
    assert!(!speaks_sse(base()));
}

#[test]
fn a_credential_must_be_complete_and_nothing_of_it_unused() {
    assert_eq!(mistakes(auth(UpstreamAuthType::Bearer, None, None, None)), ["auth: this `type` needs `secret`"]);
    assert_eq!(
        mistakes(auth(UpstreamAuthType::Bearer, Some("s"), None, Some("me"))),
        ["auth.username: this `type` does not use `username`"]
    );
    assert_eq!(
        mistakes(auth(UpstreamAuthType::None, Some("s"), None, None)),
        ["auth.secret: this `type` does not use `secret`"]
    );
    assert_eq!(
        mistakes(auth(UpstreamAuthType::Header, None, None, None)),
        ["auth: this `type` needs `name`", "auth: this `type` needs `secret`"]
    );
    assert_eq!(mistakes(auth(UpstreamAuthType::Basic, Some("s"), None, None)), ["auth: this `type` needs `username`"]);
    assert_eq!(
        mistakes(auth(UpstreamAuthType::Basic, Some("s"), None, Some("a:b"))),
        ["auth.username: a user name with a colon or a control character"]
    );
    assert_eq!(
        mistakes(auth(UpstreamAuthType::Bearer, Some("s\n"), None, None)),
        ["auth.secret: this begins or ends with white space"]
    );
    assert_eq!(mistakes(auth(UpstreamAuthType::Bearer, Some(""), None, None)), ["auth.secret: this is empty"]);
    assert_eq!(
        mistakes(auth(UpstreamAuthType::Bearer, Some("a\r\nx: y"), None, None)),
        ["auth.secret: this has characters that a header cannot carry"]
    );
    assert_eq!(
        mistakes(auth(UpstreamAuthType::Header, Some("s"), Some("Host"), None)),
        ["auth.name: `host` comes from the URL and cannot be set"]
    );
}

#[test]
fn headers_that_are_not_the_operators_are_refused() {
    assert_eq!(mistakes(header("X Y", "v")), ["headers.\"X Y\": this is not a header name"]);
    assert_eq!(mistakes(header("X-Y", "v\u{7f}")), ["headers.X-Y: this has characters that a header cannot carry"]);
    let own = [
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Upgrade",
        "TE",
        "Mcp-Session-Id",
        "mcp-protocol-version",
        "Accept-Encoding",
    ];
    for name in own {
        let found = mistakes(header(name, "v"));
        assert!(found.len() == 1 && found[0].starts_with(&format!("headers.{name}: ")), "{found:?}");
    }
    let twice = Server {
        headers: [("authorization".to_owned(), Secret::new("v"))].into(),
        ..auth(UpstreamAuthType::Bearer, Some("s"), None, None)
    };
    assert_eq!(mistakes(twice), ["headers.authorization: `authorization` is set twice"]);
}

#[test]
fn waits_limits_and_health_checks_must_make_sense() {
    let zero = Server {
        timeout_ms: 0,
        connect_timeout_ms: WAIT_MS_MAX + 1,
        sse_read_timeout_ms: 0,
        stream_idle_timeout_ms: WAIT_MS_MAX + 1,
        answer_bytes_max: 0,
        ..base()
    };
    let expected = [
        "connect_timeout_ms: a wait of 86400001 ms",
        "timeout_ms: a wait of 0 ms",
        "sse_read_timeout_ms: a wait of 0 ms",
        "stream_idle_timeout_ms: a wait of 86400001 ms",
        "answer_bytes_max: no answer fits into 0 bytes",
    ];
    assert_eq!(mistakes(zero), expected);
    let health = |interval_ms, path: &str| Server {
        health: Health { r#type: HealthType::Http, interval_ms, path: path.into() },
        ..base()
    };
    assert_eq!(mistakes(health(100, "/healthz?deep=1")), [""; 0]);
    assert_eq!(mistakes(health(99, "/")), ["health.interval_ms: a health check every 99 ms"]);
    for path in ["healthz", "", "http://b.test/", "/a b", "/#x", "/ä"] {
        assert_eq!(mistakes(health(100, path)), ["health.path: this is not a path"], "{path}");
    }
}

#[test]
fn limits_and_breakers_must_make_sense() {
    let wrong = Server {
        pending_max: 0,
        pending_bytes_max: 0,
        connections_max: 1_000_001,
        slow_start_ms: WAIT_MS_MAX + 1,
        resolve_interval_ms: 99,
        breaker: Breaker {
            failures_max: 0,
            open_ms: 2,
            open_ms_max: 1,
            ejected_percent_max: 101,
            ..Breaker::default()
        },
        ..base()
    };
    let expected = [
        "resolve_interval_ms: names resolved every 99 ms",
        "slow_start_ms: a wait of 86400001 ms",
        "pending_max: `0` is out of range",
        "pending_bytes_max: `0` is out of range",
        "connections_max: `1000001` is out of range",
        "breaker.failures_max: `0` is out of range",
        "breaker.ejected_percent_max: `101` is out of range",
        "breaker.open_ms_max: `open_ms_max` is less than `open_ms`",
    ];
    assert_eq!(mistakes(wrong), expected);
    let all_draining =
        Server { endpoints: vec![Endpoint { url: URL.into(), weight: 1, draining: true }], url: None, ..base() };
    assert_eq!(mistakes(all_draining), ["endpoints: every endpoint is draining"]);
}

#[test]
fn a_tool_has_the_servers_times_or_its_own() {
    let tool = |timeout_ms, timeout_max_ms| ServerTool { timeout_ms, timeout_max_ms, ..ServerTool::default() };
    let tools = [
        ("own", tool(Some(500), Some(900))),
        ("long", tool(Some(7_200_000), None)),
        ("bounded", tool(None, Some(2_000))),
    ];
    let tools = tools.map(|(name, tool)| (name.to_owned(), tool)).into();
    let plans = Plans::compile(&config(Server { tools, timeout_ms: 1_000, ..base() }), &mut Problems::new());
    let times = |tool| {
        let times = plans.get("x").unwrap().times(tool);
        let ms = [times.timeout, times.silence, times.timeout_max].map(|wait| wait.as_millis());
        (ms, times.is_reset_by_messages)
    };
    assert_eq!(times(None), ([1_000, 60_000, 3_600_000], false));
    assert_eq!(times(Some("other")), times(None));
    assert_eq!(times(Some("own")), ([500, 500, 900], true));
    assert_eq!(times(Some("long")), ([7_200_000, 7_200_000, 7_200_000], true));
    assert_eq!(times(Some("bounded")), ([1_000, 60_000, 2_000], false));
    let wrong = |tool| Server { tools: [("t".to_owned(), tool)].into(), ..base() };
    assert_eq!(mistakes(wrong(tool(Some(0), None))), ["tools.t.timeout_ms: a wait of 0 ms"]);
    assert_eq!(
        mistakes(wrong(tool(Some(500), Some(499)))),
        ["tools.t.timeout_max_ms: `timeout_max_ms` is less than `timeout_ms`"]
    );
    let server = Server { timeout_ms: 500, timeout_max_ms: Some(499), ..base() };
    assert_eq!(mistakes(server), ["timeout_max_ms: `timeout_max_ms` is less than `timeout_ms`"]);
}

#[test]
fn a_standing_stream_may_be_silent_for_as_long_as_its_server_says() {
    let idle = |server: Server| {
        Plans::compile(&config(server), &mut Problems::new()).get("x").unwrap().stream_idle_timeout().as_secs()
    };
    assert_eq!(idle(base()), 3_600);
    assert_eq!(idle(Server { stream_idle_timeout_ms: 90_000, ..base() }), 90);
    assert_eq!(idle(Server { stream_idle_timeout_ms: WAIT_MS_MAX, ..base() }), 86_400);
}

#[test]
fn a_plan_equals_one_of_the_same_text_and_no_other() {
    let plans = |server: Server| Plans::compile(&config(server), &mut Problems::new());
    let secret = |secret| auth(UpstreamAuthType::Bearer, Some(secret), None, None);
    assert_eq!(plans(secret("a")), plans(secret("a")));
    assert_ne!(plans(secret("a")), plans(secret("b")));
    assert_ne!(plans(base()), plans(Server { timeout_ms: 401, ..base() }));
    assert_ne!(plans(base()), plans(Server { transport: Some(Transport::Sse), ..base() }));
}

#[test]
fn nothing_prints_a_secret() {
    let headers = [("x-key".to_owned(), Secret::new("s3cret"))].into();
    let server = Server {
        headers,
        url: Some("http://a.test/s3cret?k=s3cret".into()),
        ..auth(UpstreamAuthType::Basic, Some("s3cret"), None, Some("me"))
    };
    let plans = Plans::compile(&config(server), &mut Problems::new());
    let text = format!("{plans:?}");
    assert!(!text.contains("s3cret") && !text.contains("bWU6"), "{text}");
    assert!(text.contains("http://a.test:80") && text.contains("x-key"), "{text}");
    let mut headers = http::HeaderMap::new();
    plans.get("x").unwrap().credential().present(&mut headers);
    assert!(headers.len() == 2 && headers.values().all(http::HeaderValue::is_sensitive), "{headers:?}");
}
