//! Is everything found, once, in order, and nothing that was not asked for?

use std::collections::HashMap;

use super::*;

fn some(chance: &mut Chance, texts: &[&str]) -> Option<String> {
    chance.one_in(3).then(|| chance.of(texts).to_owned())
}

/// A filter of one to four conditions, some of which nothing meets.
fn filter(chance: &mut Chance, span: u64) -> Filter {
    let sources = [
        "192.0.2.7",
        "192.0.2.0/24",
        "192.0.0.0/16",
        "::/0",
        "0.0.0.0/0",
        "2001:db8::/32",
        "2001:db8::7",
        "203.0.113.0/24",
    ];
    let mut filter = Filter::default();
    for _ in 0..1 + chance.below(4) {
        match chance.below(11) {
            0 => filter.since_micros = Some(START + chance.below(span)),
            1 => filter.until_micros = Some(START + chance.below(span)),
            2 => filter.server = some(chance, &["files", "database", "mail", "none"]),
            3 => filter.tool = some(chance, &TOOLS),
            4 => filter.agent = some(chance, &AGENTS),
            5 => filter.principal = some(chance, &PRINCIPALS),
            6 => filter.domain = some(chance, &["example.com", "example.org", "nowhere"]),
            7 => filter.decision = Some(Decision::ALL[usize::from(chance.one_in(2))]),
            8 => filter.outcome = some(chance, &["ok", "tool_error", "client_gone", OPEN, "no_such_outcome"]),
            9 => filter.reason = some(chance, &["allowed_tools", "timeout", "blocked_tool", "unknown_key", "nothing"]),
            _ => filter.source = Some(Sources::parse(chance.of(&sources)).unwrap()),
        }
    }
    if chance.one_in(12) {
        filter.workspace = Some("blue".into());
    }
    filter
}

#[test]
fn every_filter_finds_what_a_naive_reader_finds() {
    for seed in [7, 77_777, 1_234_567_891] {
        let mut records = Records::new();
        let mut traffic = Traffic::new(seed, 40 * SECOND);
        let mut index = records.keep();
        for _ in 0..12 {
            let lines = 1 + traffic.chance.below(700);
            traffic.write(&mut records, lines);
            if traffic.chance.one_in(2) {
                catch_up(&mut index);
            }
        }
        catch_up(&mut index);
        records.assert_indexed();
        let (everything, span) = (naive(&records.path), traffic.micros - START);
        assert!(span / entry::DAY_MICROS >= 1, "more than one day");
        let (search, mut hits) = (records.search(), 0);
        for _ in 0..400 {
            let filter = filter(&mut traffic.chance, span);
            let mut expected: Vec<&Entry> = everything.iter().filter(|entry| filter.matches(entry)).collect();
            expected.reverse();
            let limit = 1 + usize::try_from(traffic.chance.below(200)).unwrap();
            let found = all(&search, &filter, limit);
            assert!(
                found.iter().eq(expected.iter().copied()),
                "seed {seed}: {filter:?}: {} of {}",
                found.len(),
                expected.len()
            );
            assert_eq!(search.count(&filter).unwrap(), expected.len() as u64, "{filter:?}");
            hits += usize::from(!found.is_empty());
        }
        assert!(hits > 100, "only {hits} filters found something");
    }
}

#[test]
fn the_filter_itself_is_what_is_said_of_it() {
    let mut records = Records::new();
    let mut fields = intent_of("key:ci", "files", "read");
    fields["user"] = "Ann@Example.COM".into();
    records.line("intent", START, fields);
    let counted = json!({"source_prefix": "192.0.2.0/24", "decision": "refused", "reason": "unknown_key", "count": 9});
    records.line("refused", START + 1, counted);
    records.index();
    let found = |filter: Filter| {
        records.search().page(&filter, None, 10).unwrap().entries.iter().map(|entry| entry.seq).collect::<Vec<_>>()
    };
    let from = |source: &str| found(Filter { source: Some(Sources::parse(source).unwrap()), ..Filter::default() });
    assert_eq!(found(Filter { domain: Some("example.com".into()), ..Filter::default() }), [1]);
    assert_eq!(found(Filter { outcome: Some(OPEN.into()), ..Filter::default() }), [1]);
    assert_eq!(found(Filter { since_micros: Some(START + 1), ..Filter::default() }), [2]);
    assert_eq!(found(Filter { until_micros: Some(START + 1), ..Filter::default() }), [1]);
    assert_eq!(from("192.0.2.7"), [1]);
    assert_eq!(from("192.0.2.0"), [0; 0], "a counted refusal has no address of its own");
    assert_eq!(from("192.0.2.0/25"), [1]);
    assert_eq!(from("192.0.2.0/24"), [2, 1]);
    assert_eq!(records.found()[1].source_text().as_deref(), Some("192.0.2.0/24"));
    assert!(Sources::parse("192.0.2.1/24").unwrap_err().contains("192.0.2.0/24"));
    for text in ["", "1", "1.", ".1", "1.-1", "a.b", "1.2.3", "99999999999999999999.1"] {
        assert_eq!(Cursor::parse(text), None, "{text}");
    }
}

#[test]
fn pages_meet_each_entry_once_while_records_are_added() {
    let mut records = Records::new();
    let mut traffic = Traffic::new(99, 30 * SECOND);
    traffic.write(&mut records, 3_000);
    let mut index = records.keep();
    catch_up(&mut index);
    let mut expected: Vec<u64> = records.found().iter().map(|entry| entry.seq).collect();
    expected.reverse();
    let (search, mut met, mut behind) = (records.search(), Vec::new(), None);
    loop {
        let page = search.page(&Filter::default(), behind, 37).unwrap();
        met.extend(page.entries.iter().map(|entry| entry.seq));
        behind = page.next;
        if behind.is_none() {
            break;
        }
        traffic.write(&mut records, 50);
        catch_up(&mut index);
    }
    assert_eq!(met, expected);
    records.assert_indexed();
}

#[test]
fn a_result_of_the_next_day_is_joined_to_its_request() {
    let mut records = Records::new();
    let midnight = START + 1_800 * SECOND;
    let before = records.intent(midnight - 1, "read");
    let unfinished = records.intent(midnight - 1, "write");
    let mut index = records.keep();
    catch_up(&mut index);
    assert_eq!(records.found().iter().filter(|entry| entry.is_open()).count(), 2);
    let after = records.intent(midnight, "read");
    records.result(midnight, before, "tool_error");
    records.result(midnight + 1, after, "ok");
    catch_up(&mut index);
    // A stream that ends days later, as the first thing its day has.
    records.result(midnight + 3 * entry::DAY_MICROS, unfinished, "ok");
    catch_up(&mut index);
    records.assert_indexed();
    let errors = Filter { outcome: Some("tool_error".into()), until_micros: Some(midnight), ..Filter::default() };
    assert_eq!(records.search().count(&errors).unwrap(), 1, "it counts for the day on which it was asked for");
    let graph = records.search().graph(None, Some(midnight)).unwrap();
    let flow = graph.to_servers[0].2;
    assert_eq!((flow.calls, flow.errors, flow.latency_max_micros), (2, 1, Some(1_500)));
    assert_eq!(records.search().graph(Some(midnight), None).unwrap().to_servers[0].2.calls, 1);
}

#[test]
fn the_graph_is_the_sum_of_its_requests() {
    let mut records = Records::new();
    let mut traffic = Traffic::new(4_711, 20 * SECOND);
    let mut index = records.keep();
    for _ in 0..40 {
        traffic.write(&mut records, 150);
        catch_up(&mut index);
    }
    let since = START + 2 * 3_600 * SECOND;
    let whole = since - since % (3_600 * SECOND);
    let mut expected: HashMap<(Caller, String), (u64, u64, u64, u64)> = HashMap::new();
    let mut tools: HashMap<(String, String), (u64, u64, u64, u64)> = HashMap::new();
    for entry in naive(&records.path).iter().filter(|entry| entry.time_micros >= whole) {
        let Some(server) = entry.server.clone() else { continue };
        let caller = match (&entry.agent, &entry.principal) {
            (Some(agent), _) => Caller::Agent(agent.clone()),
            (None, Some(principal)) => Caller::Principal(principal.clone()),
            (None, None) => Caller::Unknown,
        };
        let is_call = entry.decision == Decision::Allowed;
        let is_error = entry.ended.as_ref().is_some_and(|ended| !["ok", "client_gone"].contains(&&*ended.outcome));
        let is_stream = entry.method.as_deref() == Some("subscriptions/listen");
        let latency = entry.ended.as_ref().and_then(|ended| ended.latency_micros).filter(|_| !is_stream).unwrap_or(0);
        let add = |flow: &mut (u64, u64, u64, u64)| {
            flow.0 += u64::from(is_call);
            flow.1 += u64::from(!is_call) * entry.count.unwrap_or(1);
            flow.2 += u64::from(is_error);
            flow.3 = flow.3.max(latency);
        };
        add(expected.entry((caller, server.clone())).or_default());
        if let Some(tool) = entry.tool.clone() {
            add(tools.entry((server, tool)).or_default());
        }
    }
    let graph = records.search().graph(Some(since), None).unwrap();
    let figures = |flow: &Flow| (flow.calls, flow.denials, flow.errors, flow.latency_max_micros.unwrap_or(0));
    let found: HashMap<_, _> = graph
        .to_servers
        .iter()
        .map(|(caller, server, flow)| ((caller.clone(), server.clone()), figures(flow)))
        .collect();
    assert_eq!(found, expected);
    let found: HashMap<_, _> =
        graph.to_tools.iter().map(|(server, tool, flow)| ((server.clone(), tool.clone()), figures(flow))).collect();
    assert_eq!(found, tools);
    assert!(!graph.is_cut && !tools.is_empty());
    assert!(graph.to_tools.is_sorted_by_key(|(_, _, flow)| std::cmp::Reverse(flow.calls + flow.denials)));
}

#[test]
fn tools_beyond_pairs_per_hour_max_are_counted_together() {
    let mut records = Records::new();
    let mut lines = String::new();
    let more = day::PAIRS_PER_HOUR_MAX + 500;
    for number in 0..more {
        lines.push_str(&records.text("intent", START, intent_of("key:ci", "files", &format!("tool-{number}"))));
    }
    records.write_raw(lines.as_bytes());
    let mut index = records.keep();
    catch_up(&mut index);
    records.result(START, 1, "tool_error");
    records.result(START, more as u64, "tool_error");
    catch_up(&mut index);
    let graph = records.search().graph(None, None).unwrap();
    let flow =
        |tool: &str| graph.to_tools.iter().find(|(_, found, _)| found == tool).map(|(_, _, flow)| *flow).unwrap();
    assert_eq!((flow("\u{2026}").calls, flow("\u{2026}").errors), (500, 1));
    assert_eq!((flow("tool-0").calls, flow("tool-0").errors), (1, 1));
    assert!(graph.is_cut && graph.to_tools.len() == GRAPH_EDGES_MAX);
    // Tools take no room from a caller who is new.
    records.line("intent", START, intent_of("key:new", "files", "tool-0"));
    catch_up(&mut index);
    let graph = records.search().graph(None, None).unwrap();
    let callers: Vec<_> = graph.to_servers.iter().map(|(caller, ..)| caller.clone()).collect();
    assert_eq!(callers, ["key:ci", "key:new"].map(|key| Caller::Principal(key.into())));
    let last = Filter { tool: Some(format!("tool-{}", more - 1)), ..Filter::default() };
    assert_eq!(records.search().count(&last).unwrap(), 1, "the request itself is found");
}

#[test]
fn callers_beyond_pairs_per_hour_max_are_one_edge_whatever_servers_they_name() {
    let mut records = Records::new();
    let mut lines = String::new();
    for number in 0..day::PAIRS_PER_HOUR_MAX + 500 {
        let (caller, server) = (format!("key:{number}"), format!("server-{number}"));
        lines.push_str(&records.text("intent", START, intent_of(&caller, &server, "read")));
    }
    for number in 0..50 {
        let mut unknown = intent_of("key:ci", &format!("nowhere-{number}"), "read");
        unknown["decision"] = json!("refused");
        unknown["reason"] = json!("server_unknown");
        lines.push_str(&records.text("refused", START, unknown));
    }
    records.write_raw(lines.as_bytes());
    records.index();
    let graph = records.search().graph(None, None).unwrap();
    let others: Vec<u64> = graph
        .to_servers
        .iter()
        .filter(|(caller, server, _)| *caller == Caller::Principal("\u{2026}".into()) && server == "\u{2026}")
        .map(|(_, _, flow)| flow.calls)
        .collect();
    assert_eq!(others, [500]);
    assert!(graph.to_servers.iter().all(|(_, server, _)| !server.starts_with("nowhere")), "no server, no edge");
    let file = rusqlite::Connection::open(records.index_file("2026-11-30.sqlite")).unwrap();
    let rows: i64 = file.query_row("SELECT count(*) FROM pairs", [], |row| row.get(0)).unwrap();
    assert_eq!(usize::try_from(rows), Ok(2 * (day::PAIRS_PER_HOUR_MAX + 1)));
}

#[test]
fn entries_are_counted_up_to_count_max_and_pages_hold_page_entries_max() {
    let mut records = Records::new();
    let mut lines = String::new();
    for number in 0..COUNT_MAX + 5 {
        lines.push_str(&records.text("intent", START + number, intent_of("key:ci", "files", "read")));
    }
    records.write_raw(lines.as_bytes());
    records.index();
    assert_eq!(records.search().count(&Filter::default()).unwrap(), COUNT_MAX);
    let of_server = Filter { server: Some("files".into()), ..Filter::default() };
    assert_eq!(records.search().count(&of_server).unwrap(), COUNT_MAX);
    assert_eq!(records.search().page(&of_server, None, usize::MAX).unwrap().entries.len(), PAGE_ENTRIES_MAX);
}
