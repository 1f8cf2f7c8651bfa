//! What does a line of the access log say?
//!
//! The request and its end in one line, in the words of the record: field by field what an intent and its result, or a refusal,
//! say together. A line is no record: nothing is chained, and it may be lost.

use crate::audit::encode;
use crate::audit::line::Line;
use crate::audit::record::Outcome;
use crate::audit::record::Refusal;
use crate::audit::record::Request;

/// Bytes a line mostly has room in.
const USUAL_BYTES: usize = 1024;

/// How a request ended, and where that is on record.
#[derive(Clone, Copy)]
pub enum Ended<'a> {
    /// It was refused. `seq`: the number of the record, where it has one of its own.
    Refused(Option<u64>, &'a Refusal<'a>),
    /// It was let through and ended so. `intent`: the number of its intent.
    Passed(u64, &'a Outcome<'a>),
}

/// One request in one line, its end included. `trace`: the id of its trace.
pub fn access_line(request: &Request<'_>, ended: Ended<'_>, trace: Option<&str>, now_micros: u64) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(USUAL_BYTES);
    let mut line = Line::begin(&mut buffer);
    line.time("time", now_micros);
    if let Some(trace) = trace {
        line.word("trace_id", trace);
    }
    encode::request(&mut line, request);
    match ended {
        Ended::Refused(seq, refusal) => {
            if let Some(seq) = seq {
                line.number("seq", seq);
            }
            encode::refusal(&mut line, refusal);
        }
        Ended::Passed(intent, outcome) => {
            line.word("decision", "allowed");
            // The request says both already, as they were settled.
            let outcome = Outcome { revision: None, session: None, ..*outcome };
            encode::outcome(&mut line, intent, &outcome);
        }
    }
    line.end();
    buffer.push(b'\n');
    buffer
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::audit::record::Ending;
    use crate::audit::record::Phases;
    use crate::mcp::revision::Revision;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    /// The one object in a line, every key of which stands there once.
    fn read(line: &[u8]) -> Value {
        let text = std::str::from_utf8(line).unwrap();
        let body = text.strip_suffix('\n').unwrap();
        assert!(body.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{text}");
        let read: Value = serde_json::from_str(body).unwrap();
        for key in read.as_object().unwrap().keys() {
            assert_eq!(body.matches(&format!("\"{key}\":")).count(), 1, "{key} in {text}");
        }
        read
    }

    #[test]
    fn a_call_is_told_with_its_end() {
        let revision = Some(Revision::V2025_06_18);
        let request =
            Request { server: Some("a"), tool: Some("x"), revision, session: Some("s"), ..Request::default() };
        let phases = Phases { total: Some(9), ..Phases::default() };
        let outcome =
            Outcome { status: Some(200), revision, session: Some("s"), phases, ..Outcome::of(Ending::ToolError) };
        let told = read(&access_line(&request, Ended::Passed(7, &outcome), Some(TRACE), 1_000_000));
        let expected = serde_json::json!({
            "time": "1970-01-01T00:00:01.000000Z", "trace_id": TRACE, "revision": "2025-06-18", "era": "legacy",
            "session": "043a718774c572bd", "server": "a", "tool": "x", "decision": "allowed", "intent": 7,
            "outcome": "tool_error", "status": 200, "attempts": 0, "phases_us": { "total": 9 }, "workspace": "default",
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn whatever_a_client_writes_stays_one_line_of_printable_ascii() {
        let evil = "a\r\n{\"forged\":1}\u{1b}[2J\u{9b}\u{202e}\u{2028}\u{0}\"\\";
        let request = Request {
            target: Some(evil.as_bytes()),
            user_agent: Some(b"\xff\r\n\x1b"),
            rpc_method: Some(evil),
            tool: Some(evil),
            resource: Some(evil),
            prompt: Some(evil),
            ..Request::default()
        };
        let refusal = Refusal {
            reason: "tool_blocked",
            rule: None,
            limit_of: None,
            status: Some(200),
            phases: Phases::default(),
        };
        let told = read(&access_line(&request, Ended::Refused(Some(3), &refusal), None, 1));
        assert_eq!((&told["tool"], &told["seq"], &told["decision"]), (&evil.into(), &3.into(), &"refused".into()));
        let long = "\u{202e}".repeat(100_000);
        let request = Request { tool: Some(&long), user_agent: Some(long.as_bytes()), ..request };
        assert!(access_line(&request, Ended::Refused(None, &refusal), None, 1).len() < 16_384);
    }
}
