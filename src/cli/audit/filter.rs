//! Which records are asked for?
//!
//! A result says little of itself: what it does not say is looked up in its intent.

use std::collections::HashMap;

use serde_json::Value;
use time::Date;
use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;
use time::format_description::well_known::Rfc3339;

use crate::audit;
use crate::audit::evidence::Period;

use super::Failure;

/// Intents that are remembered until their results come.
const OPEN_MAX: usize = 65_536;

/// What records must say.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Filter {
    /// Only records from this time on: RFC 3339 or a date (UTC).
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only records before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only of this kind: `intent`, `result`, `refused`, `recovered`, `removed`.
    #[arg(long)]
    kind: Option<String>,
    /// Only of this caller: `key:NAME`, `oauth:ISSUER:SUBJECT` or `public`.
    #[arg(long)]
    principal: Option<String>,
    /// Only of this agent.
    #[arg(long)]
    agent: Option<String>,
    /// Only to this server.
    #[arg(long)]
    server: Option<String>,
    /// Only to this tool.
    #[arg(long)]
    tool: Option<String>,
    /// Only what was `allowed` or `refused`.
    #[arg(long)]
    decision: Option<String>,
    /// Only what ended so: `ok`, `tool_error`, ..
    #[arg(long)]
    outcome: Option<String>,
    /// Only with this reason.
    #[arg(long)]
    reason: Option<String>,
    /// Only with this field: any of docs/audit.md.
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    fields: Vec<String>,
}

/// The same, ready to be asked.
#[derive(Debug)]
pub(super) struct Wanted {
    /// When.
    pub(super) period: Period,
    fields: Vec<(String, String)>,
    /// Intents whose results may be asked for.
    open: HashMap<u64, Value>,
}

impl Filter {
    /// Makes it ready.
    pub(super) fn wanted(&self) -> Result<Wanted, Failure> {
        let of = |name: &str, value: &Option<String>| value.clone().map(|value| (name.to_owned(), value));
        let named = [
            of("kind", &self.kind),
            of("principal", &self.principal),
            of("agent", &self.agent),
            of("server", &self.server),
            of("tool", &self.tool),
            of("decision", &self.decision),
            of("outcome", &self.outcome),
            of("reason", &self.reason),
        ];
        let mut fields: Vec<(String, String)> = named.into_iter().flatten().collect();
        for field in &self.fields {
            let (name, value) = field.split_once('=').ok_or_else(|| wrong(format!("`{field}` is not FIELD=VALUE")))?;
            fields.push((name.to_owned(), value.to_owned()));
        }
        let period = Period {
            since: self.since.as_deref().map(time).transpose()?,
            until: self.until.as_deref().map(time).transpose()?,
        };
        Ok(Wanted { period, fields, open: HashMap::new() })
    }
}

fn wrong(message: String) -> Failure {
    Failure { code: 2, message: format!("error: {message}") }
}

/// A time as an operator writes it, as it stands in records.
fn time(text: &str) -> Result<String, Failure> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| Date::parse(text, &Iso8601::DATE).map(|date| date.midnight().assume_utc()));
    let time =
        parsed.map_err(|_| wrong(format!("`{text}` is no time: write `2026-01-31T12:00:00Z`, or `2026-01-31`")))?;
    let micros = u64::try_from(time.unix_timestamp_nanos() / 1_000);
    micros.map(audit::time_text).map_err(|_| wrong(format!("`{text}` is before 1970")))
}

impl Wanted {
    /// The record in a line, if it is asked for. Lines must come in their order.
    pub(super) fn take(&mut self, line: &[u8]) -> Option<Value> {
        if !self.period.holds(line) {
            return None;
        }
        let record: Value = serde_json::from_slice(line).ok()?;
        if self.fields.is_empty() {
            return Some(record);
        }
        let intent = record.get("intent").and_then(Value::as_u64).and_then(|intent| self.open.remove(&intent));
        let says = |name: &str| record.get(name).or_else(|| intent.as_ref().and_then(|intent| intent.get(name)));
        let is_wanted = self.fields.iter().all(|(name, value)| says(name).is_some_and(|said| is(said, value)));
        let seq = record.get("seq").and_then(Value::as_u64);
        if let Some(seq) = seq.filter(|_| record.get("kind").and_then(Value::as_str) == Some("intent")) {
            if self.open.len() >= OPEN_MAX {
                self.open.clear();
            }
            self.open.insert(seq, record.clone());
        }
        is_wanted.then_some(record)
    }
}

/// Whether a field has a value, or is a list with it.
fn is(said: &Value, value: &str) -> bool {
    match said {
        Value::String(text) => text == value,
        Value::Array(items) => items.iter().any(|item| is(item, value)),
        other => {
            let text = other.to_string();
            text == value
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(filter: &Filter, lines: &[&str]) -> Vec<u64> {
        let mut wanted = filter.wanted().unwrap();
        lines
            .iter()
            .filter_map(|line| wanted.take(line.as_bytes()))
            .map(|record| record["seq"].as_u64().unwrap())
            .collect()
    }

    #[test]
    fn a_result_is_asked_for_by_what_its_intent_says() {
        let prev = "0".repeat(64);
        let line = |seq: u64, kind: &str, rest: &str| {
            format!(
                "{{\"seq\":{seq},\"prev\":\"{prev}\",\"kind\":\"{kind}\",\"time\":\"2026-01-0{seq}T00:00:00.000000Z\"{rest}}}"
            )
        };
        let lines = [
            line(1, "intent", ",\"server\":\"a\",\"teams\":[\"x\",\"y\"]"),
            line(2, "intent", ",\"server\":\"b\""),
            line(3, "result", ",\"intent\":2,\"outcome\":\"ok\",\"status\":200"),
            line(4, "result", ",\"intent\":1,\"outcome\":\"tool_error\""),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let by = |server: Option<&str>, fields: &[&str]| Filter {
            server: server.map(str::to_owned),
            fields: fields.iter().map(|field| (*field).to_owned()).collect(),
            ..Filter::default()
        };
        assert_eq!(taken(&by(None, &[]), &lines), [1, 2, 3, 4]);
        assert_eq!(taken(&by(Some("a"), &[]), &lines), [1, 4]);
        assert_eq!(taken(&by(Some("b"), &["status=200"]), &lines), [3]);
        assert_eq!(taken(&by(None, &["teams=y"]), &lines), [1, 4]);
        let outcome = Filter { outcome: Some("tool_error".into()), ..Filter::default() };
        assert_eq!(taken(&outcome, &lines), [4]);
        let period = Filter {
            since: Some("2026-01-02".into()),
            until: Some("2026-01-04T01:00:00+01:00".into()),
            ..Filter::default()
        };
        assert_eq!(taken(&period, &lines), [2, 3]);
    }

    #[test]
    fn what_is_no_time_and_no_field_is_refused() {
        for bad in ["yesterday", "2026-13-01", "1969-01-01"] {
            assert!(Filter { since: Some(bad.into()), ..Filter::default() }.wanted().is_err(), "{bad}");
        }
        assert!(Filter { fields: vec!["server".into()], ..Filter::default() }.wanted().is_err());
    }
}
