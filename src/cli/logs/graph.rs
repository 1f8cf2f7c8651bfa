//! How does the workflow graph look?

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use serde_json::json;

use crate::search::Caller;
use crate::search::Flow;
use crate::search::Graph;

use super::show::ascii_json;
use super::show::duration;
use super::show::escaped;

/// One JSON object. A caller that is neither `agent` nor `principal` was not recognised.
pub(super) fn json(graph: &Graph) -> String {
    let to_servers = graph.to_servers.iter().map(|(caller, server, flow)| {
        let caller = match caller {
            Caller::Agent(agent) => Some(("agent", agent)),
            Caller::Principal(principal) => Some(("principal", principal)),
            Caller::Unknown => None,
        };
        let caller = caller.map(|(kind, name)| (kind.to_owned(), json!(name)));
        edge(caller.into_iter().chain([("server".to_owned(), json!(server))]), flow)
    });
    let to_tools = graph.to_tools.iter().map(|(server, tool, flow)| {
        edge([("server".to_owned(), json!(server)), ("tool".to_owned(), json!(tool))], flow)
    });
    let (to_servers, to_tools): (Vec<Value>, Vec<Value>) = (to_servers.collect(), to_tools.collect());
    ascii_json(&json!({ "to_servers": to_servers, "to_tools": to_tools, "cut": graph.is_cut }))
}

fn edge(ends: impl IntoIterator<Item = (String, Value)>, flow: &Flow) -> Value {
    let figures = [
        ("calls", json!(flow.calls)),
        ("denials", json!(flow.denials)),
        ("errors", json!(flow.errors)),
        ("latency_mean_us", json!(flow.latency_mean_micros)),
        ("latency_max_us", json!(flow.latency_max_micros)),
    ];
    ends.into_iter().chain(figures.map(|(name, figure)| (name.to_owned(), figure))).collect()
}

/// Two tables for people: callers and servers, servers and tools.
pub(super) fn text(graph: &Graph) -> String {
    let mut text = line("FROM", "TO", ["CALLS", "REFUSED", "ERRORS", "MEAN", "MAX"].map(str::to_owned));
    for (caller, server, flow) in &graph.to_servers {
        let caller = match caller {
            Caller::Agent(agent) => format!("{} (agent)", escaped(agent)),
            Caller::Principal(principal) => escaped(principal),
            Caller::Unknown => "(not recognised)".into(),
        };
        text.push_str(&line(&caller, &escaped(server), figures(flow)));
    }
    for (server, tool, flow) in &graph.to_tools {
        text.push_str(&line(&escaped(server), &named(tool), figures(flow)));
    }
    if graph.is_cut {
        text.push_str("(edges with fewer requests are left out)\n");
    }
    text.truncate(text.trim_end().len());
    text
}

/// The tools that an hour had no room for.
fn named(tool: &str) -> String {
    if tool == "\u{2026}" { "(other tools)".into() } else { escaped(tool) }
}

fn figures(flow: &Flow) -> [String; 5] {
    let time = |micros: Option<u64>| micros.map_or_else(|| "-".into(), duration);
    [
        flow.calls.to_string(),
        flow.denials.to_string(),
        flow.errors.to_string(),
        time(flow.latency_mean_micros),
        time(flow.latency_max_micros),
    ]
}

fn line(from: &str, to: &str, [calls, denials, errors, mean, max]: [String; 5]) -> String {
    format!("{from:<32}  {to:<28}  {calls:>9}  {denials:>9}  {errors:>9}  {mean:>8}  {max:>8}\n")
}

/// A graph for Graphviz, from left to right.
pub(super) fn dot(graph: &Graph) -> String {
    let mut nodes: BTreeMap<(u8, &str, &str), usize> = BTreeMap::new();
    let mut node = |kind, of, name| {
        let next = nodes.len();
        *nodes.entry((kind, of, name)).or_insert(next)
    };
    let mut edges = String::new();
    for (caller, server, flow) in &graph.to_servers {
        let from = match caller {
            Caller::Agent(agent) => node(AGENT, "", agent.as_str()),
            Caller::Principal(principal) => node(PRINCIPAL, "", principal.as_str()),
            Caller::Unknown => node(UNKNOWN, "", "not recognised"),
        };
        push_edge(&mut edges, from, node(SERVER, "", server.as_str()), flow);
    }
    for (server, tool, flow) in &graph.to_tools {
        let from = node(SERVER, "", server.as_str());
        // Tools of one name are others on another server.
        push_edge(&mut edges, from, node(TOOL, server.as_str(), tool.as_str()), flow);
    }
    let mut text = String::from("digraph portcullis {\n  rankdir=LR;\n");
    for ((kind, _, name), number) in &nodes {
        let shape = match *kind {
            SERVER => "box3d",
            TOOL => "box",
            UNKNOWN => "octagon",
            _ => "ellipse",
        };
        let _ = writeln!(text, "  n{number} [shape={shape}, label=\"{}\"];", quoted(name));
    }
    text.push_str(&edges);
    text.push('}');
    text
}

const AGENT: u8 = 0;
const PRINCIPAL: u8 = 1;
const UNKNOWN: u8 = 2;
const SERVER: u8 = 3;
const TOOL: u8 = 4;

fn push_edge(edges: &mut String, from: usize, to: usize, flow: &Flow) {
    let mut label = format!("{} calls", flow.calls);
    for (number, word) in [(flow.denials, "refused"), (flow.errors, "errors")] {
        if number > 0 {
            let _ = write!(label, ", {number} {word}");
        }
    }
    if let Some(mean) = flow.latency_mean_micros {
        let _ = write!(label, ", {}", duration(mean));
    }
    let colour = if flow.denials + flow.errors > 0 { ", color=red" } else { "" };
    let _ = writeln!(edges, "  n{from} -> n{to} [label=\"{label}\"{colour}];");
}

/// For a quoted text of Graphviz, in which `\` begins an escape too.
fn quoted(name: &str) -> String {
    escaped(name).replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> Graph {
        let flow =
            Flow { calls: 3, denials: 1, errors: 0, latency_mean_micros: Some(1_500), latency_max_micros: Some(9_000) };
        let tool = "a\"]; }\n\u{202e}\\".to_owned();
        Graph {
            to_servers: vec![
                (Caller::Agent("files".into()), "files".into(), flow),
                (Caller::Principal("files".into()), "files".into(), flow),
                (Caller::Unknown, "files".into(), Flow::default()),
            ],
            to_tools: vec![("files".into(), tool, flow), ("files".into(), "\u{2026}".into(), flow)],
            is_cut: true,
        }
    }

    #[test]
    fn every_form_is_plain_ascii_and_holds_every_edge() {
        for text in [text(&graph()), json(&graph()), dot(&graph())] {
            assert!(text.bytes().all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)), "{text}");
        }
        assert_eq!(text(&graph()).lines().count(), 7);
        assert_eq!(dot(&graph()).matches("->").count(), 5);
        assert_eq!(
            dot(&graph()).matches("shape=").count(),
            6,
            "an agent, a principal and a server of one name are three"
        );
        assert!(dot(&graph()).contains(r#"label="a\"]; }\\u000a\\u202e\\""#), "{}", dot(&graph()));
        let read: Value = serde_json::from_str(&json(&graph())).unwrap();
        assert_eq!(read["to_servers"][0]["agent"], "files");
        assert_eq!((read["to_tools"][0]["denials"].as_u64(), read["cut"].as_bool()), (Some(1), Some(true)));
    }
}
