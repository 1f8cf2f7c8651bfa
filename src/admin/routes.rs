//! What does the admin listener answer?

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::State;
use axum::middleware;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::any;
use http::HeaderMap;
use http::HeaderName;
use http::Method;
use http::StatusCode;
use http::Uri;
use http::header;
use http::uri::Authority;
use serde::Serialize;

use crate::admin::Check;
use crate::admin::Probes;
use crate::admin::address::is_loopback;

/// Version 0.0.4 of the text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every path. `names_matter`: the caller must name a loopback host, as a browser led astray by DNS does not.
pub(super) fn router(probes: Probes, names_matter: bool) -> Router {
    let router = Router::new()
        .route("/metrics", any(metrics))
        .route("/livez", any(|| async { "ok\n" }))
        .route("/readyz", any(readyz))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found\n") })
        .layer(middleware::from_fn(only_get))
        .with_state(Arc::new(probes));
    if names_matter { router.layer(middleware::from_fn(only_loopback_names)) } else { router }
}

async fn metrics(State(probes): State<Arc<Probes>>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], (probes.metrics)()).into_response()
}

async fn readyz(State(probes): State<Arc<Probes>>, headers: HeaderMap, uri: Uri) -> Response {
    let readiness = (probes.readiness)();
    let (status, verdict) = if readiness.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    };
    let is_verbose = uri.query().is_some_and(|query| query.split('&').any(is_verbose));
    if wants_json(&headers) {
        let checks = is_verbose.then_some(readiness.checks.as_slice());
        return (status, Json(ReadinessTold { ready: readiness.is_ready(), checks })).into_response();
    }
    let mut text = String::new();
    for Check { name, ok, counts, detail } in readiness.checks.iter().filter(|_| is_verbose) {
        let (mark, word) = if *ok { ('+', "ok") } else { ('-', "failed") };
        let _ = write!(text, "[{mark}] {name} {word}");
        if let Some(detail) = detail {
            let _ = write!(text, ": {detail}");
        }
        text.push_str(if *ok || *counts { "\n" } else { " (does not count)\n" });
    }
    text.push_str(verdict);
    (status, text).into_response()
}

/// Readiness as programs read it.
#[derive(Serialize)]
struct ReadinessTold<'r> {
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<&'r [Check]>,
}

/// Whether the caller asks for JSON by name.
fn wants_json(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let mut ranges = accepted.flat_map(|accept| accept.split(','));
    ranges.any(|range| range.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json"))
}

fn is_verbose(pair: &str) -> bool {
    matches!(pair, "verbose" | "verbose=" | "verbose=1" | "verbose=true")
}

async fn only_get(request: Request, next: Next) -> Response {
    let mut response = if request.method() == Method::GET {
        next.run(request).await
    } else {
        (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET")], "only GET is served here\n").into_response()
    };
    let quiet: [(HeaderName, &str); 2] =
        [(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    for (name, value) in quiet {
        response.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    response
}

async fn only_loopback_names(request: Request, next: Next) -> Response {
    if names_loopback(request.headers(), request.uri()) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, Body::from("only loopback names are served here\n")).into_response()
    }
}

/// Whether the request names a loopback host and no other: once in `Host`, and again if its target names one.
fn names_loopback(headers: &HeaderMap, uri: &Uri) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let host = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    host.is_some_and(|host| is_loopback_name(&host)) && uri.authority().is_none_or(is_loopback_name)
}

fn is_loopback_name(authority: &Authority) -> bool {
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_bare = !authority.as_str().contains('@');
    is_bare && (host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(is_loopback))
}
