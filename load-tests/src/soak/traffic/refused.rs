//! What is asked for that must be refused, and is it?

use crate::messages::Ask;
use crate::messages::Era;
use crate::messages::Target;
use crate::soak::journal::Leaves;
use crate::soak::journal::Server;
use crate::soak::traffic::Ground;
use crate::soak::traffic::Pace;
use crate::soak::traffic::caller::Caller;
use crate::soak::traffic::caller::status;

/// Such requests, each second.
const PER_SECOND: f64 = 12.0;

/// One request after the other that must be refused, each for another reason.
pub(super) fn requests(ground: &Ground<'_>) {
    let mut caller = Caller::new(ground, Server::Steady, "refused");
    let mut pace = Pace::new(PER_SECOND, ground.until);
    let all = wrong_ones(&ground.steady);
    for (request, wanted) in all.iter().cycle() {
        if !pace.next() {
            return;
        }
        caller.request(request, Leaves::Counted, |answer| status(answer, *wanted));
        if *wanted == 413 {
            // The body that was announced is not coming.
            caller.again();
        }
    }
}

/// Requests, and the status that each must get.
fn wrong_ones(target: &Target) -> Vec<(Vec<u8>, u16)> {
    let asked = |ask, target: &Target, session| target.prepare(ask, Era::Plain, session).numbered(1).0.to_vec();
    let query = |target: &Target, session| asked(Ask::Query, target, session);
    let text = |target: &Target| String::from_utf8_lossy(&query(target, None)).into_owned();
    let of =
        |key: Option<&str>, path: &str| Target { key: key.map(str::to_owned), path: path.to_owned(), ..target.clone() };
    let key = target.key.as_deref();
    let head = text(target);
    let head = head.split("Content-Length").next().unwrap_or_default();
    let without_json = head.replace("application/json\r\nAccept", "text/plain\r\nAccept");
    vec![
        (query(&of(Some("ptc_nobody"), &target.path), None), 401),
        (query(&of(None, &target.path), None), 401),
        (asked(Ask::List, &of(key, "/mcp/nowhere"), None), 404),
        (query(&of(key, "/nowhere"), None), 404),
        (query(target, Some("no-session")), 404),
        (format!("{head}Content-Length: 7\r\n\r\nno json").into_bytes(), 400),
        (format!("{head}Content-Length: 12\r\n\r\n{{\"id\":1,\"id\"").into_bytes(), 400),
        (format!("{without_json}Content-Length: 2\r\n\r\n{{}}").into_bytes(), 415),
        (format!("{head}Content-Length: 5000000\r\n\r\n").into_bytes(), 413),
        (text(target).replacen("POST", "PUT", 1).into_bytes(), 405),
    ]
}
