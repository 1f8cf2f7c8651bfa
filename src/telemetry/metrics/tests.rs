//! Do the numbers count what they say, within their limits?

use std::time::Duration;
use std::time::Instant;

use super::*;
use crate::config::model::Money;
use crate::mcp::revision::Revision;

/// Fresh metrics with room for `series_max` series each: the set-up of every test below.
fn metrics(series_max: usize) -> Metrics {
    let settings = Settings {
        series_max,
        version: "1.2.3",
        decisions: &["granted", "blocked"],
        refusals: &["bad_head", "no_key"],
    };
    Metrics::new(settings).unwrap()
}

/// The value of the series `line` begins with, up to the blank.
fn value(metrics: &Metrics, series: &str) -> Option<String> {
    let text = metrics.render();
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).map(str::to_owned)
}

fn series_of(metrics: &Metrics, metric: &str) -> usize {
    metrics.render().lines().filter(|line| line.starts_with(&format!("{metric}{{"))).count()
}

/// An endpoint that was left alone so often, and is now.
fn endpoint(server: &str, endpoint: &str, circuit_openings: u64) -> EndpointFigures {
    let (server, endpoint, origin) = (server.into(), endpoint.into(), "http://a:1".into());
    EndpointFigures { server, endpoint, origin, circuit: 2, circuit_openings, connections: 4, pending: 1 }
}

/// What a key has spent of its budget.
fn spent(name: &str) -> LimitFigures {
    LimitFigures { level: "key", name: name.into(), limit: "budget_per_day_max", used: 3, most: 7 }
}

#[test]
fn a_limit_has_series_for_as_long_as_it_is_there_and_no_more_than_fit() {
    let metrics = metrics(4);
    metrics.limits(&[spent("a"), spent("b")]);
    metrics.limits(&[spent("b")]);
    assert_eq!(series_of(&metrics, "portcullis_limit_used"), 1);
    let many: Vec<LimitFigures> = (0..9).map(|number| spent(&number.to_string())).collect();
    metrics.limits(&many);
    assert_eq!(series_of(&metrics, "portcullis_limit_max"), 3);
}

#[test]
fn an_endpoint_has_series_for_as_long_as_it_is_there() {
    let metrics = metrics(SERIES_MAX);
    metrics.endpoints(&[endpoint("files", "0a", 1), endpoint("files", "0b", 2)]);
    metrics.endpoints(&[endpoint("files", "0a", 5), endpoint("web", "0a", 0)]);
    for metric in ["upstream_circuit", "upstream_circuit_openings_total", "upstream_connections"] {
        assert_eq!(series_of(&metrics, &format!("portcullis_{metric}")), 2, "{metric}");
    }
    let openings = "portcullis_upstream_circuit_openings_total{endpoint=\"0a\",origin=\"http://a:1\",server=\"files\"}";
    assert_eq!(value(&metrics, openings).as_deref(), Some("5"), "it goes on, and is not added up");
    metrics.certificates(&[("files".into(), "ca", 7), ("files".into(), "client", 8)]);
    metrics.certificates(&[("files".into(), "client", 9)]);
    assert_eq!(series_of(&metrics, "portcullis_upstream_certificate_expiry_timestamp_seconds"), 1);
    metrics.adopt(&["web"]);
    assert_eq!(series_of(&metrics, "portcullis_upstream_circuit"), 1);
}

/// Metrics of which each has a series.
fn filled() -> Metrics {
    let metrics = metrics(SERIES_MAX);
    let server = metrics.server("files", &["read_file"]);
    server.request(Method::ToolsCall, Outcome::Ok);
    server.protocol(Some(Revision::V2024_11_05), Transport::Sse);
    server.tool_call("read_file", Outcome::Ok);
    server.cost(Money::from_micros(50_000));
    metrics.limits(&[spent("ci")]);
    server.decided("granted");
    server.upstream_took(Duration::from_millis(3));
    server.upstream_up(true);
    server.upstream_pending(2, 700);
    metrics.endpoints(&[endpoint("files", "0a", 3)]);
    metrics.certificates(&[("files".into(), "ca", 1_800_000_000)]);
    let issuer = IssuerFigures { issuer: "idp".into(), keys: 2, age_seconds: Some(9), fetched: 3, failed: 1 };
    metrics.issuers(&[issuer]);
    metrics.config_loaded(7, "abcd", 1_700_000_000);
    metrics.load(5, Duration::from_millis(3));
    metrics.listener_certificates([("localhost", 1_900_000_000)].into_iter());
    metrics
}

/// The rows of docs/metrics.md, as what is registered has them.
fn rows(metrics: &Metrics) -> String {
    let text = metrics.render();
    let row = |desc: &prometheus::core::Desc| {
        let kind = text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {} ", desc.fq_name)));
        let kind = kind.unwrap_or_else(|| panic!("{} has no series in `filled`", desc.fq_name));
        let labels: Vec<String> = desc.variable_labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {kind} | {} | {} |\n", desc.fq_name, labels.join(" "), desc.help)
    };
    let mut rows: Vec<String> = metrics.0.described.iter().map(row).collect();
    rows.sort();
    rows.concat()
}

#[test]
fn the_documentation_has_every_metric_with_its_meaning_and_its_labels() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (mark, end) = ("| --- | --- | --- | --- |\n", "\n<!-- end -->");
    let (before, rest) = text.split_once(mark).expect("the table's head");
    let (documented, after) = rest.split_once(end).expect("the table's end");
    let told = rows(&filled());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, format!("{before}{mark}{told}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(documented, told, "UPDATE_GOLDEN=1 writes it anew");
}

#[test]
fn every_metric_has_its_documented_name() {
    let text = filled().render();
    for name in [
        "requests_total{method=\"tools/call\",outcome=\"ok\",server=\"files\"} 1",
        "requests_by_protocol_total{revision=\"2024-11-05\",server=\"files\",transport=\"sse\"} 1",
        "tool_calls_total{outcome=\"ok\",server=\"files\",tool=\"read_file\"} 1",
        "cost_millionths_total{server=\"files\"} 50000",
        "limit_used{level=\"key\",limit=\"budget_per_day_max\",name=\"ci\"} 3",
        "limit_max{level=\"key\",limit=\"budget_per_day_max\",name=\"ci\"} 7",
        "policy_decisions_total{decision=\"granted\",server=\"files\"} 1",
        "upstream_duration_seconds_bucket{server=\"files\",le=\"0.005\"} 1",
        "upstream_up{server=\"files\"} 1",
        "upstream_pending{server=\"files\"} 2",
        "upstream_pending_bytes{server=\"files\"} 700",
        "upstream_circuit{endpoint=\"0a\",origin=\"http://a:1\",server=\"files\"} 2",
        "upstream_circuit_openings_total{endpoint=\"0a\",origin=\"http://a:1\",server=\"files\"} 3",
        "upstream_connections{endpoint=\"0a\",origin=\"http://a:1\",server=\"files\"} 4",
        "upstream_endpoint_pending{endpoint=\"0a\",origin=\"http://a:1\",server=\"files\"} 1",
        "upstream_certificate_expiry_timestamp_seconds{certificate=\"ca\",server=\"files\"} 1800000000",
        "issuer_keys{issuer=\"idp\"} 2",
        "issuer_keys_age_seconds{issuer=\"idp\"} 9",
        "issuer_fetches_total{issuer=\"idp\",outcome=\"ok\"} 3",
        "issuer_fetches_total{issuer=\"idp\",outcome=\"failed\"} 1",
        "oauth_metadata_total 0",
        "access_log_lines_total{outcome=\"written\"} 0",
        "access_log_lines_total{outcome=\"dropped\"} 0",
        "trace_spans_total{outcome=\"exported\"} 0",
        "trace_spans_total{outcome=\"queue_full\"} 0",
        "trace_spans_total{outcome=\"not_exported\"} 0",
        "overhead_seconds_bucket{phase=\"total\",le=\"0.00001\"} 0",
        "overhead_seconds_bucket{phase=\"policy\",le=\"0.1\"} 0",
        "refusals_total{reason=\"bad_head\"} 0",
        "audit_records_total 0",
        "audit_unavailable 0",
        "audit_unsigned 0",
        "streams 0",
        "streams_by_kind{kind=\"answer\"} 0",
        "streams_by_kind{kind=\"standing\"} 0",
        "streams_by_kind{kind=\"sse\"} 0",
        "connections 0",
        "buffered_bytes 5",
        "queue_delay_seconds 0.003",
        "listener_certificate_expiry_timestamp_seconds{certificate=\"localhost\"} 1900000000",
        "config_last_reload_successful 1",
        "config_last_reload_success_timestamp_seconds 1700000000",
        "config_revision 7",
        "config_info{sha256=\"abcd\"} 1",
        "build_info{version=\"1.2.3\"} 1",
        "metrics_series_dropped_total{metric=\"portcullis_requests_total\"} 0",
    ] {
        assert!(text.contains(&format!("\nportcullis_{name}\n")), "{name} is missing from\n{text}");
    }
    assert!(text.contains("\nprocess_open_fds "), "{text}");
    assert!(text.contains("\nprocess_cpu_seconds_total "), "{text}");
}

#[test]
fn a_tool_in_no_allow_list_makes_no_series_of_its_own() {
    let metrics = metrics(SERIES_MAX);
    let server = metrics.server("files", &["write_file", "read_file", "read_file"]);
    for number in 0..100 {
        server.tool_call(&format!("invented_{number}"), Outcome::Refused);
    }
    server.tool_call("read_file", Outcome::Ok);
    server.tool_call("write_file", Outcome::Ok);
    let others = "portcullis_tool_calls_total{outcome=\"refused\",server=\"files\",tool=\"_other\"}";
    assert_eq!(value(&metrics, others).as_deref(), Some("100"));
    assert_eq!(series_of(&metrics, "portcullis_tool_calls_total"), 3);
}

#[test]
fn each_revision_and_transport_has_one_series() {
    let metrics = metrics(SERIES_MAX);
    let server = metrics.server("files", &[]);
    let mut labels = Vec::new();
    for revision in Revision::ALL.into_iter().map(Some).chain([None]) {
        for transport in Transport::ALL {
            labels.push((revision.map_or("_unknown", Revision::as_str), transport.label()));
            // A different number for each, so that no series can stand in for another.
            (0..labels.len()).for_each(|_| server.protocol(revision, transport));
        }
    }
    for (at, (revision, transport)) in labels.iter().enumerate() {
        let series = format!("{{revision=\"{revision}\",server=\"files\",transport=\"{transport}\"}}");
        let counted = value(&metrics, &format!("portcullis_requests_by_protocol_total{series}"));
        assert_eq!(counted, Some((at + 1).to_string()), "{series}");
    }
    assert_eq!(series_of(&metrics, "portcullis_requests_by_protocol_total"), 12);
    metrics.adopt(&["other"]);
    assert_eq!(series_of(&metrics, "portcullis_requests_by_protocol_total"), 0);
}

#[test]
fn a_word_outside_the_vocabulary_counts_as_other() {
    let metrics = metrics(SERIES_MAX);
    metrics.refused("no_key");
    metrics.refused("invented");
    metrics.server("files", &[]).decided("invented");
    assert_eq!(value(&metrics, "portcullis_refusals_total{reason=\"no_key\"}").as_deref(), Some("1"));
    assert_eq!(value(&metrics, "portcullis_refusals_total{reason=\"_other\"}").as_deref(), Some("1"));
    let other = "portcullis_policy_decisions_total{decision=\"_other\",server=\"files\"}";
    assert_eq!(value(&metrics, other).as_deref(), Some("1"));
}

#[test]
fn a_metric_never_has_more_series_than_its_limit_and_loses_no_count() {
    let metrics = metrics(10);
    for number in 0..25 {
        let server = metrics.server(&format!("server{number}"), &[]);
        server.request(Method::Ping, Outcome::Ok);
        server.request(Method::Ping, Outcome::Ok);
        server.upstream_up(true);
    }
    assert_eq!(series_of(&metrics, "portcullis_requests_total"), 10);
    let other = "portcullis_requests_total{method=\"_other\",outcome=\"_other\",server=\"_other\"}";
    assert_eq!(value(&metrics, other).as_deref(), Some("32"));
    let dropped = "portcullis_metrics_series_dropped_total{metric=\"portcullis_requests_total\"}";
    assert_eq!(value(&metrics, dropped).as_deref(), Some("16"));
    assert_eq!(series_of(&metrics, "portcullis_upstream_up"), 9, "whether another server is up cannot be summed");
}

#[test]
fn counters_go_on_over_a_reload_and_go_away_with_their_server() {
    let metrics = metrics(10);
    let before = metrics.server("files", &[]);
    before.request(Method::Ping, Outcome::Ok);
    metrics.server("old", &[]).request(Method::Ping, Outcome::Ok);
    metrics.adopt(&["files", "new"]);
    metrics.server("files", &[]).request(Method::Ping, Outcome::Ok);
    before.request(Method::Ping, Outcome::Ok);
    metrics.server("old", &[]).request(Method::Ping, Outcome::Ok);
    let series =
        |server: &str| format!("portcullis_requests_total{{method=\"ping\",outcome=\"ok\",server=\"{server}\"}}");
    assert_eq!(value(&metrics, &series("files")).as_deref(), Some("3"));
    assert_eq!(value(&metrics, &series("old")), None);
    let dropped = "portcullis_metrics_series_dropped_total{metric=\"portcullis_requests_total\"}";
    assert_eq!(value(&metrics, dropped).as_deref(), Some("0"));
    for round in 0..30 {
        let name = format!("round{round}");
        metrics.adopt(&[&name]);
        metrics.server(&name, &[]).request(Method::Ping, Outcome::Ok);
    }
    assert_eq!(value(&metrics, &series("round29")).as_deref(), Some("1"), "a retired server's place is free again");
}

#[test]
fn phases_are_seen_by_phase_and_in_total() {
    let metrics = metrics(SERIES_MAX);
    let mut phases = Phases::default();
    phases.add(Phase::Head, Duration::from_micros(15));
    phases.add(Phase::Policy, Duration::from_micros(30));
    phases.add(Phase::UpstreamWait, Duration::from_millis(20));
    metrics.phases(&phases);
    let bucket = |phase: &str, le: &str| {
        value(&metrics, &format!("portcullis_overhead_seconds_bucket{{phase=\"{phase}\",le=\"{le}\"}}")).unwrap()
    };
    assert_eq!((bucket("head", "0.00001"), bucket("head", "0.00002")), ("0".into(), "1".into()));
    assert_eq!((bucket("total", "0.00002"), bucket("total", "0.00005")), ("0".into(), "1".into()));
    assert_eq!((bucket("upstream_wait", "0.01"), bucket("upstream_wait", "0.02")), ("0".into(), "1".into()));
    assert_eq!(bucket("body", "+Inf"), "0", "a phase the request never came to is not a fast one");
}

#[test]
fn a_configuration_in_force_is_the_only_one_shown() {
    let metrics = metrics(SERIES_MAX);
    metrics.config_loaded(1, "aa", 100);
    metrics.config_loaded(2, "bb", 200);
    metrics.config_failed();
    assert_eq!(value(&metrics, "portcullis_config_info{sha256=\"aa\"}"), None);
    assert_eq!(value(&metrics, "portcullis_config_info{sha256=\"bb\"}").as_deref(), Some("1"));
    assert_eq!(value(&metrics, "portcullis_config_revision").as_deref(), Some("2"));
    assert_eq!(value(&metrics, "portcullis_config_last_reload_successful").as_deref(), Some("0"));
    assert_eq!(value(&metrics, "portcullis_config_last_reload_success_timestamp_seconds").as_deref(), Some("200"));
}

#[test]
fn what_is_held_is_counted_until_it_is_dropped() {
    let metrics = metrics(SERIES_MAX);
    let first = metrics.streams().hold();
    let second = metrics.streams().hold();
    assert_eq!(metrics.streams().value(), 2);
    drop(first);
    assert_eq!(value(&metrics, "portcullis_streams").as_deref(), Some("1"));
    drop(second);
    assert_eq!(metrics.streams().value(), 0);
    metrics.audit_records().add(3);
    metrics.audit_records().one();
    assert_eq!(metrics.audit_records().value(), 4);
}

#[test]
fn a_stream_of_a_kind_is_one_of_all_streams() {
    let metrics = metrics(SERIES_MAX);
    let answer = metrics.streams_of(StreamKind::Answer).hold();
    let standing = metrics.streams_of(StreamKind::Standing).hold();
    let other = metrics.streams_of(StreamKind::Standing).hold();
    let sse = metrics.streams_of(StreamKind::Sse).hold();
    let by_kind = |metrics: &Metrics| StreamKind::ALL.map(|kind| metrics.streams_of(kind).value());
    assert_eq!((by_kind(&metrics), metrics.streams().value()), ([1, 2, 1], 4));
    assert_eq!(value(&metrics, "portcullis_streams_by_kind{kind=\"standing\"}").as_deref(), Some("2"));
    drop(standing);
    drop(answer);
    assert_eq!((by_kind(&metrics), metrics.streams().value()), ([0, 1, 1], 2));
    drop((other, sse));
    assert_eq!((by_kind(&metrics), metrics.streams().value()), ([0, 0, 0], 0));
}

/// On a release build, alone: 5 ns a counter, 65 ns a tool among 200, 160 ns for all phases (`--nocapture` shows it).
#[test]
fn the_metrics_of_one_request_cost_little() {
    const ROUNDS: u32 = 20_000;
    // Far above what it takes, for builds without optimisation on a busy machine; a lock or a search shows.
    const BUDGET: Duration = Duration::from_micros(50);
    let metrics = metrics(SERIES_MAX);
    let tools: Vec<String> = (0..200).map(|number| format!("tool_{number}")).collect();
    let tools: Vec<&str> = tools.iter().map(String::as_str).collect();
    let server = metrics.server("files", &tools);
    let mut phases = Phases::default();
    Phase::ALL.into_iter().for_each(|phase| phases.add(phase, Duration::from_micros(40)));
    let measure = |name: &str, work: &dyn Fn()| {
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| work());
        let took = start.elapsed() / ROUNDS;
        println!("{name}: {took:?}");
        took
    };
    let total = measure("request", &|| server.request(Method::ToolsCall, Outcome::Ok))
        + measure("protocol", &|| server.protocol(Some(Revision::V2025_11_25), Transport::StreamableHttp))
        + measure("tool_call among 200", &|| server.tool_call("tool_77", Outcome::Ok))
        + measure("decided", &|| server.decided("blocked"))
        + measure("upstream_took", &|| server.upstream_took(Duration::from_micros(700)))
        + measure("phases (8 observations)", &|| metrics.phases(&phases));
    assert!(total < BUDGET, "{total:?}");
}
