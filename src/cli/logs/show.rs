//! How does an entry look?
//!
//! Texts in it are whatever clients sent: all but printable ASCII is shown as `\uXXXX`, in every form.

use std::fmt::Write as _;
use std::io;

use serde::Serialize;

use crate::search::COUNT_MAX;
use crate::search::Cursor;
use crate::search::Decision;
use crate::search::Entry;
use crate::search::OPEN;
use crate::search::time_text;

/// An entry as JSON. Names are those of the record where it has the field.
#[derive(Serialize)]
struct Shown<'e> {
    time: String,
    seq: u64,
    cursor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<&'e str>,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<u64>,
}

/// One JSON object; unknown values are left out.
pub(super) fn json(entry: &Entry) -> String {
    let ended = entry.ended.as_ref();
    let shown = Shown {
        time: time_text(entry.time_micros),
        seq: entry.seq,
        cursor: Cursor::after(entry).to_string(),
        source: entry.source_text(),
        method: entry.method.as_deref(),
        principal: entry.principal.as_deref(),
        user: entry.user.as_deref(),
        agent: entry.agent.as_deref(),
        workspace: entry.workspace.as_deref(),
        server: entry.server.as_deref(),
        tool: entry.tool.as_deref(),
        resource: entry.resource.as_deref(),
        prompt: entry.prompt.as_deref(),
        decision: entry.decision.name(),
        reason: entry.reason.as_deref(),
        rule: entry.rule.as_deref(),
        count: entry.count,
        outcome: if entry.is_open() { Some(OPEN) } else { ended.map(|ended| ended.outcome.as_str()) },
        failure: ended.and_then(|ended| ended.reason.as_deref()),
        status: ended.map_or(entry.status, |ended| ended.status),
        latency_us: ended.and_then(|ended| ended.latency_micros),
        cost: ended.and_then(|ended| ended.cost.as_deref()),
        result: ended.map(|ended| ended.seq),
    };
    ascii_json(&shown)
}

/// A number of entries.
pub(super) fn count(counted: u64, is_json: bool) -> String {
    let is_capped = counted >= COUNT_MAX;
    match (is_json, is_capped) {
        (true, _) => format!("{{\"count\":{counted},\"capped\":{is_capped}}}"),
        (false, true) => format!("more than {}", COUNT_MAX - 1),
        (false, false) => counted.to_string(),
    }
}

/// Names of the columns of [`text`].
pub(super) fn head() -> String {
    columns(["TIME", "WHAT", "LATENCY", "WHO", "TO", "WHY"].map(str::to_owned))
}

/// One line for people: when, what came of it, how long it took, who called, what, and why.
pub(super) fn text(entry: &Entry) -> String {
    let ended = entry.ended.as_ref();
    let what = match (entry.decision, ended, entry.count) {
        (Decision::Refused, _, Some(count)) => format!("refused x{count}"),
        (Decision::Refused, _, None) => "refused".into(),
        (Decision::Allowed, Some(ended), _) => escaped(&ended.outcome),
        (Decision::Allowed, None, _) => OPEN.into(),
    };
    let latency = ended.and_then(|ended| ended.latency_micros).map_or_else(|| "-".into(), duration);
    columns([time(entry), what, latency, who(entry), to(entry), why(entry)])
}

fn columns([time, what, latency, who, to, why]: [String; 6]) -> String {
    format!("{time:<23}  {what:<15}  {latency:>8}  {who:<24}  {to:<28}  {why}").trim_end().to_owned()
}

/// To the millisecond.
fn time(entry: &Entry) -> String {
    let mut text = time_text(entry.time_micros).replace('T', " ");
    text.truncate("2027-01-31 12:00:00.000".len());
    text
}

fn who(entry: &Entry) -> String {
    let principal = entry.principal.as_deref().map(escaped);
    match (entry.agent.as_deref().map(escaped), principal) {
        (Some(agent), Some(principal)) => format!("{agent} ({principal})"),
        (Some(name), None) | (None, Some(name)) => name,
        (None, None) => entry.source_text().unwrap_or_else(|| "-".into()),
    }
}

fn to(entry: &Entry) -> String {
    let about = [&entry.tool, &entry.resource, &entry.prompt, &entry.method].into_iter().flatten().next();
    match (entry.server.as_deref().map(escaped), about.map(|about| escaped(about))) {
        (Some(server), Some(about)) => format!("{server}/{about}"),
        (Some(name), None) | (None, Some(name)) => name,
        (None, None) => "-".into(),
    }
}

fn why(entry: &Entry) -> String {
    let ended = entry.ended.as_ref();
    let reason = ended.and_then(|ended| ended.reason.as_deref()).or(entry.reason.as_deref());
    let mut why = reason.map(escaped).unwrap_or_default();
    if let Some(rule) = entry.rule.as_deref().filter(|_| entry.decision == Decision::Refused) {
        let _ = write!(why, " ({})", escaped(rule));
    }
    if let Some(cost) = ended.and_then(|ended| ended.cost.as_deref()) {
        let _ = write!(why, "  cost {}", escaped(cost));
    }
    why
}

/// A time span with three digits.
pub(super) fn duration(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..100_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        100_000..10_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{} s", micros / 1_000_000),
    }
}

/// A text in which nothing but printable ASCII is left as it is.
pub(in crate::cli) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            ' '..='~' => shown.push(character),
            _ => push_units(&mut shown, character),
        }
    }
    shown
}

fn push_units(text: &mut String, character: char) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        // Writing to a text does not fail.
        let _ = write!(text, "\\u{unit:04x}");
    }
}

/// JSON in which all but printable ASCII is escaped.
pub(super) fn ascii_json(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Ascii);
    // Plain values, written to memory: neither fails.
    let _ = value.serialize(&mut serializer);
    String::from_utf8(bytes).unwrap_or_default()
}

struct Ascii;

impl serde_json::ser::Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        writer.write_all(escaped(fragment).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_client_moves_a_cursor_or_ends_a_line() {
        let hostile = "a\u{1b}[2J\r\n\u{202e}\"\\\u{1f600}b";
        let entry = Entry {
            seq: 7,
            time_micros: 1_700_000_000_123_456,
            decision: Decision::Refused,
            count: None,
            source: None,
            method: None,
            principal: Some(hostile.into()),
            user: None,
            agent: Some(hostile.into()),
            workspace: None,
            server: Some(hostile.into()),
            tool: Some(hostile.into()),
            resource: None,
            prompt: None,
            reason: Some(hostile.into()),
            rule: Some(hostile.into()),
            status: Some(403),
            ended: None,
        };
        for line in [text(&entry), json(&entry)] {
            assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{line}");
        }
        assert!(text(&entry).starts_with("2023-11-14 22:13:20.123  refused"), "{}", text(&entry));
        let read: serde_json::Value = serde_json::from_str(&json(&entry)).unwrap();
        assert_eq!(
            (read["tool"].as_str(), read["seq"].as_u64(), read["status"].as_u64()),
            (Some(hostile), Some(7), Some(403))
        );
        assert!(json(&entry).starts_with("{\"time\":\"2023-11-14T22:13:20.123456Z\",\"seq\":7,\"cursor\":"));
        assert!(read.get("outcome").is_none());
    }

    #[test]
    fn time_spans_have_three_digits() {
        let shown = [7, 999, 1_250, 99_999, 250_000, 9_999_999, 61_000_000].map(duration);
        assert_eq!(shown, ["7 us", "999 us", "1.2 ms", "99.9 ms", "250 ms", "9999 ms", "61 s"]);
    }
}
