//! What stands in a record?

use std::collections::BTreeMap;

use super::*;
use crate::config::model::Money;
use crate::config::problem::At;
use crate::mcp::revision::Revision;
use crate::principal::Link;
use crate::principal::Minted;
use crate::principal::Principal;

const TOKEN: &str = "upstream-session-token";

/// A key that was minted with everything there is.
fn minted() -> Minted {
    let link = Link {
        id: [1; 10],
        agent: "agent_1".into(),
        servers: Some(vec!["db".into()]),
        tools: vec![("db".into(), vec!["execute_*".into()]), ("mail".into(), Vec::new())],
    };
    let parent = Arc::new(Principal::of_key("dev"));
    Minted { parent, binding: [2; 16], links: vec![link], expires: 1_700_000_000 }
}

fn everything(log: &Log) {
    let minted = minted();
    let principal = Principal {
        minted: Some(Arc::new(minted.clone())),
        user: Some("ann".into()),
        teams: vec!["ops".into()],
        organisation: Some("acme".into()),
        agent: Some("agent_1".into()),
        ..Principal::of_key("dev")
    };
    let rule = At::root().key("agents").key("agent_1").key("servers").key("db").key("argument_constraints").index(2);
    let names = ["uri:spiffe://example/agent".to_owned(), "dns:agent".to_owned()];
    let request = Request {
        source: Some("[2001:db8::7]:4711".parse().unwrap()),
        via: Some("192.0.2.1".parse().unwrap()),
        scheme: Some("https"),
        secured: Some(Secured {
            version: "1.3",
            client: Some(Certificate { subject: "CN=agent", names: &names, sha256: &[0xab; 32] }),
        }),
        http_method: Some("POST"),
        target: Some(b"/mcp/db?sessionId=SECRET"),
        user_agent: Some(b"agent/1.0"),
        reported_agent: Some("cursor"),
        rpc_method: Some("tools/call"),
        revision: Some(Revision::V2025_11_25),
        transport: Some("streamable-http"),
        session: Some(TOKEN),
        principal: Some(&principal),
        server: Some("db"),
        tool: Some("execute_query"),
        resource: Some("postgres://user:SECRET@db/customers?token=SECRET#SECRET"),
        prompt: Some("summarise"),
        asked: None,
        snapshot: Some("7"),
        shadow: Some(Shadow { permitted: false, reason: "tool_blocked", rule: Some(&rule) }),
    };
    let phases = Phases {
        head: Some(1),
        auth: Some(2),
        body: Some(3),
        judge: Some(4),
        record: Some(0),
        upstream: Some(6),
        answer: Some(7),
        total: Some(8),
    };
    let sent = Some(Digested::of(b"sent"));
    let permission = Permission { reason: "constraints_hold", rule: Some(&rule), sent, minted: Some(&minted) };
    let receipt = wait(log.intent(&request, &permission, NOW)).unwrap();
    let outcome = Outcome {
        reason: Some("is_error"),
        status: Some(200),
        revision: Some(Revision::V2025_11_25),
        session: Some(TOKEN),
        endpoint: Some(255),
        attempts: 1,
        sent,
        received: Some(Digested::of(b"received")),
        cost: Some(Money::from_micros(50_000)),
        phases,
        ..Outcome::of(Ending::ToolError)
    };
    log.result(receipt, &outcome, NOW + 1);
    let refusal =
        Refusal { reason: "blocked_tool", rule: Some(&rule), limit_of: Some(&"key:ci"), status: Some(200), phases };
    let asked = Request { asked: minted.links.last(), ..request };
    log.refused(&asked, &refusal, NOW).unwrap();
    log.refused_before_auth(&request, &super::refusal("unknown_key"), NOW);
    log.refused_before_auth(&request, &super::refusal("unknown_key"), NOW);
    log.flush_coalesced(NOW + 1_000_000);
}

/// Makes every kind of record with every field there is.
fn full() -> Fresh {
    let directory = Fresh::new();
    let log = directory.open(AuditLevel::Written);
    everything(&log);
    let base = evidence::Base { leaves: 5, tip: chain::Tip { seq: 6, hash: [0; 32] }, nodes: Vec::new() };
    let removal = evidence::Removal { base, bytes: 7 };
    assert!(log.writer.append(Kind::Removed, NOW, |line| encode::removal(line, &removal)).is_ok());
    log.writer.fail(&mut log.writer.state(), "write_failed", &io::Error::other("disk\u{7f}gone"));
    eventually("a new segment", || log.available());
    let unsigned = Recovery { cause: "unsigned", unsigned: Some(8), ..Recovery::default() };
    assert!(log.writer.append(Kind::Recovered, NOW, |line| encode::recovery(line, &unsigned)).is_ok());
    directory
}

/// The tables of docs/audit.md under a heading, as rows of cells without backticks.
fn documented(heading: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/audit.md")).unwrap();
    let section = text.split(&format!("\n## {heading}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()).collect()
}

fn first_cells(heading: &str) -> Vec<String> {
    documented(heading).into_iter().map(|row| row[0].clone()).collect()
}

/// The documentation's word for what a value is.
fn type_of(name: &str, value: &serde_json::Value) -> Vec<&'static str> {
    match value {
        serde_json::Value::Number(_) => vec!["number"],
        serde_json::Value::Array(_) => vec!["list of text"],
        serde_json::Value::Object(_) => vec!["object of number"],
        serde_json::Value::String(text) => {
            let mut fit = vec!["text"];
            let lower = text.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-'));
            if lower {
                fit.push("word");
            }
            if text.len() >= 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                fit = vec!["hex"];
            }
            if text.len() == 27 && text.ends_with('Z') {
                fit = vec!["time"];
            }
            fit
        }
        other => panic!("{name}: {other}"),
    }
}

#[test]
fn the_documentation_lists_the_fields_their_types_and_kinds() {
    let directory = full();
    let mut written: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let documented = documented("Fields");
    for record in directory.records() {
        let kind = record["kind"].as_str().unwrap();
        for (name, value) in record.as_object().unwrap() {
            let kinds = written.entry(name.clone()).or_default();
            if !kinds.iter().any(|known| known == kind) {
                kinds.push(kind.to_owned());
            }
            let row =
                documented.iter().find(|row| row[0] == *name).unwrap_or_else(|| panic!("`{name}` is not documented"));
            assert!(type_of(name, value).contains(&row[1].as_str()), "`{name}` is no {}: {value}", row[1]);
        }
    }
    for row in documented {
        let mut kinds = match row[2].as_str() {
            "all" => vec!["intent", "recovered", "refused", "removed", "result"],
            some => some.split(", ").collect(),
        };
        kinds.sort_unstable();
        let mut seen = written.remove(&row[0]).unwrap_or_default();
        seen.sort();
        assert_eq!(seen, kinds, "kinds that have `{}`", row[0]);
    }
}

#[test]
fn fields_stand_in_the_documented_order() {
    let directory = full();
    let order = first_cells("Fields");
    let text: String = directory.segments().iter().map(|segment| fs::read_to_string(segment).unwrap()).collect();
    for line in text.lines() {
        let places: Vec<usize> = order.iter().filter_map(|name| line.find(&format!("\"{name}\":"))).collect();
        assert!(places.is_sorted(), "{line}");
    }
}

#[test]
fn the_documentation_lists_kinds_outcomes_and_phases() {
    assert_eq!(first_cells("Outcomes"), Ending::ALL.map(Ending::name));
    assert_eq!(first_cells("Phases"), Phases::default().named().map(|(name, _)| name));
    let kinds = [Kind::Intent, Kind::Result, Kind::Refused, Kind::Recovered, Kind::Removed];
    assert_eq!(first_cells("Kinds"), kinds.map(Kind::name));
    assert_eq!(
        first_cells("Causes"),
        ["torn_tail", "torn_checkpoint", "write_failed", "sync_failed", "records_lost", "unsigned"]
    );
}

#[test]
fn the_documentation_names_the_limits() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/audit.md")).unwrap();
    assert_eq!((QUEUE_RECORDS_MAX, PENDING_MAX, REFUSAL_BYTES_PER_HOUR_MAX >> 20), (8_192, 1_024, 32));
    for limit in ["8,192 records", "1,024 such kinds", "32 MiB an hour"] {
        assert!(text.contains(limit), "{limit}");
    }
}

#[test]
fn a_call_leaves_an_intent_and_a_result_that_refers_to_it() {
    let directory = Fresh::new();
    everything(&directory.open(AuditLevel::Written));
    let records = directory.records();
    let (intent, result, refused) = (&records[0], &records[1], &records[2]);
    assert_eq!(intent["seq"], 1);
    assert_eq!(intent["prev"], "0".repeat(64));
    assert_eq!(intent["time"], "2023-11-14T22:13:20.000000Z");
    assert_eq!(intent["source"], "2001:db8::7");
    let chain = serde_json::json!(["key:dev", "agent_1#01010101010101010101"]);
    assert_eq!((&intent["chain"], &intent["minted"], &refused["chain"]), (&chain, &chain, &chain));
    assert_eq!(intent["minted_until"], "2023-11-14T22:13:20.000000Z");
    assert_eq!(intent["minted_servers"], serde_json::json!(["db"]));
    assert_eq!(intent["minted_tools"], serde_json::json!(["db/execute_*", "mail/"]));
    assert_eq!(
        (&intent["via"], &intent["scheme"], &intent["tls"]),
        (&"192.0.2.1".into(), &"https".into(), &"1.3".into())
    );
    assert_eq!(intent["client_cert_subject"], "CN=agent");
    assert_eq!(intent["client_cert_names"], serde_json::json!(["uri:spiffe://example/agent", "dns:agent"]));
    assert_eq!(intent["client_cert_sha256"], "ab".repeat(32));
    assert_eq!(intent["query"], serde_json::json!(["sessionId"]));
    assert_eq!(intent["rule"], "agents.agent_1.servers.db.argument_constraints[2]");
    assert_eq!(intent["sent_sha256"], "7afbb3347fb7252e533d58d99d72d9106fc6fdb3f30df23fa70b764c15ac42c5");
    assert_eq!((&intent["revision"], &intent["era"]), (&"2025-11-25".into(), &"legacy".into()));
    assert_eq!(intent["transport"], "streamable-http");
    assert_eq!(intent["resource"], "postgres://…@db/customers?token=…#…");
    assert_eq!(intent["prompt"], "summarise");
    assert_eq!(result["kind"], "result");
    assert_eq!((&result["revision"], &result["era"]), (&"2025-11-25".into(), &"legacy".into()));
    assert_eq!(result["intent"], 1);
    assert_eq!(result["outcome"], "tool_error");
    assert_eq!(result["endpoint"], "00000000000000ff");
    assert_eq!(result["phases_us"]["upstream"], 6);
    assert_eq!(refused["decision"], "refused");
    assert_eq!(records[4]["count"], 1);
    assert_eq!(records[4]["source_prefix"], "2001:db8::/64");
    assert_eq!(directory.verified(), Verified { segments: 1, records: 5, last_seq: 5 });
}

#[test]
fn no_secret_that_passes_by_is_on_record() {
    let directory = full();
    let text: String = directory.segments().iter().map(|segment| fs::read_to_string(segment).unwrap()).collect();
    assert!(!text.contains("SECRET"));
    assert!(!text.contains(TOKEN));
    let digest = format!("{:016x}", u64::from_be_bytes(*Digested::of(TOKEN.as_bytes()).sha256.first_chunk().unwrap()));
    assert!(text.contains(&format!("\"session\":\"{digest}\"")));
}

#[test]
fn no_client_text_can_forge_a_line_or_grow_one_without_end() {
    let directory = Fresh::new();
    let log = directory.open(AuditLevel::Written);
    let attacks = [
        "x\"}\n{\"seq\":1,\"kind\":\"result\"}\n",
        "\r\n\u{1b}[2J\u{0}\u{8}\u{7f}\u{85}\u{9b}",
        "\u{202e}gnp.exe\u{2066}\u{2028}\u{2029}\u{feff}\u{200b}\u{e0041}",
        "</script><script>alert(1)</script>",
        &"\u{0}".repeat(1 << 20),
        &"😀".repeat(1 << 18),
        "\\",
    ];
    for attack in attacks {
        let principal = Principal { id: attack.into(), agent: Some(attack.into()), ..Principal::default() };
        let rule = At::root().key(attack);
        let names = vec![attack.to_owned(); 100];
        let request = Request {
            source: None,
            via: None,
            scheme: None,
            secured: Some(Secured {
                version: "1.3",
                client: Some(Certificate { subject: attack, names: &names, sha256: &[0; 32] }),
            }),
            http_method: Some(attack),
            target: Some(attack.as_bytes()),
            user_agent: Some(attack.as_bytes()),
            reported_agent: Some(attack),
            rpc_method: Some(attack),
            revision: None,
            transport: None,
            session: Some(attack),
            principal: Some(&principal),
            server: Some(attack),
            tool: Some(attack),
            resource: Some(attack),
            prompt: Some(attack),
            asked: None,
            snapshot: Some(attack),
            shadow: Some(Shadow { permitted: true, reason: "public", rule: Some(&rule) }),
        };
        log.refused(&request, &Refusal { rule: Some(&rule), ..refusal("unknown_tool") }, NOW).unwrap();
    }
    drop(log);
    let bytes = fs::read(&directory.segments()[0]).unwrap();
    assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), attacks.len());
    assert!(bytes.iter().all(|byte| *byte == b'\n' || (0x20..0x7f).contains(byte)));
    let longest = bytes.split(|byte| *byte == b'\n').map(<[u8]>::len).max().unwrap();
    assert!(longest < 30_000, "{longest} bytes in a line of at most {}", chain::LINE_BYTES_MAX);
    for (record, attack) in directory.records().iter().zip(attacks) {
        let tool = record["tool"].as_str().unwrap();
        assert!(attack.starts_with(tool.trim_end_matches('…')), "{tool}");
        assert!(tool.len() <= 128 + '…'.len_utf8());
        assert_eq!(tool.ends_with('…'), attack.len() > 128);
        let resource = record["resource"].as_str().unwrap();
        assert!(attack.starts_with(resource.trim_end_matches('…')), "{resource}");
        assert!(resource.len() <= 1_024 + '…'.len_utf8());
        assert_eq!(resource.ends_with('…'), attack.len() > 1_024);
    }
    assert_eq!(directory.verified().records, attacks.len() as u64);
}

#[test]
fn a_digest_of_pieces_is_the_digest_of_the_whole() {
    let mut digester = Digester::default();
    assert_eq!(digester.so_far(), Digested::of(b""));
    digester.update(b"ab");
    assert_eq!(digester.so_far(), Digested::of(b"ab"));
    digester.update(b"c");
    assert_eq!(digester.so_far(), Digested::of(b"abc"));
    assert_eq!(digester.so_far().bytes, 3);
}

#[test]
fn a_record_of_the_stateless_revision_says_so() {
    let directory = Fresh::new();
    let log = directory.open(AuditLevel::Written);
    for revision in Revision::ALL {
        log.refused(&Request { revision: Some(revision), ..Request::default() }, &refusal("unknown_tool"), NOW)
            .unwrap();
    }
    let eras: Vec<_> = directory.records().iter().map(|record| record["era"].as_str().unwrap().to_owned()).collect();
    assert_eq!(eras, ["legacy", "legacy", "legacy", "legacy", "modern"]);
}

/// Two lines as they were before `era`, `transport`, `resource` and `prompt`, with every other field of theirs.
const EARLIER: [&str; 2] = [
    concat!(
        r#"{"seq":1,"prev":"0000000000000000000000000000000000000000000000000000000000000000","kind":"intent","#,
        r#""time":"2023-11-14T22:13:20.000000Z","source":"192.0.2.7","source_port":4711,"http_method":"POST","#,
        r#""path":"/mcp/db","rpc_method":"tools/call","revision":"2025-11-25","session":"00112233445566ff","#,
        r#""principal":"key:dev","server":"db","tool":"query","snapshot":"7","decision":"allowed","reason":"granted"}"#,
    ),
    concat!(
        r#"{"seq":2,"prev":"PREV","kind":"result","time":"2023-11-14T22:13:20.000001Z","intent":1,"outcome":"ok","#,
        r#""revision":"2025-11-25","session":"00112233445566ff","status":200,"attempts":1}"#,
    ),
];

#[test]
fn a_chain_of_earlier_lines_goes_on() {
    let directory = Fresh::new();
    let digest: String = Digested::of(EARLIER[0].as_bytes()).sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("{}\n{}\n", EARLIER[0], EARLIER[1].replace("PREV", &digest));
    fs::write(directory.0.join("00000000000000000001.jsonl"), text).unwrap();
    everything(&directory.open(AuditLevel::Written));
    let records = directory.records();
    assert_eq!(records[0]["tool"], "query");
    assert_eq!((&records[2]["seq"], &records[2]["era"]), (&3.into(), &"legacy".into()));
    assert_eq!(directory.verified(), Verified { segments: 1, records: 7, last_seq: 7 });
}
