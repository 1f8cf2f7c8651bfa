//! Does a search find what is on record, and nothing else?
//!
//! Records are made from a seed; what is to be found is what a naive reader of their lines finds.

mod damage;
mod follow;
mod found;
mod measure;

use std::collections::BTreeMap;
use std::fs;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use serde_json::Value;
use serde_json::json;

use super::*;

/// 2026-11-30T23:30:00Z: half an hour before a day ends.
const START: u64 = 1_796_081_400_000_000;
const SECOND: u64 = 1_000_000;

/// A directory of records that is gone when the test is over.
struct Records {
    path: PathBuf,
    seq: u64,
    segment: u64,
    /// Whether the next line begins a segment.
    is_over: bool,
}

impl Records {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("portcullis-search-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self { path, seq: 0, segment: 0, is_over: true }
    }

    fn segment(&self) -> PathBuf {
        self.path.join(format!("{:020}.jsonl", self.segment))
    }

    fn write_raw(&self, bytes: &[u8]) {
        OpenOptions::new().create(true).append(true).open(self.segment()).unwrap().write_all(bytes).unwrap();
    }

    /// A line, with its number and time put in front; the number.
    fn line(&mut self, kind: &str, micros: u64, fields: Value) -> u64 {
        let lines = self.text(kind, micros, fields);
        self.write_raw(lines.as_bytes());
        self.seq
    }

    fn text(&mut self, kind: &str, micros: u64, fields: Value) -> String {
        self.seq += 1;
        if self.is_over {
            self.segment = self.seq;
            self.is_over = false;
        }
        let mut record = json!({"seq": self.seq, "prev": "0".repeat(64), "kind": kind, "time": time_text(micros)});
        record.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        format!("{record}\n")
    }

    fn intent(&mut self, micros: u64, tool: &str) -> u64 {
        self.line("intent", micros, intent_of("key:ci", "files", tool))
    }

    fn result(&mut self, micros: u64, intent: u64, outcome: &str) -> u64 {
        self.line("result", micros, json!({"intent": intent, "outcome": outcome, "phases_us": {"total": 1_500}}))
    }

    fn keep(&self) -> Index {
        Index::keep(&self.path).unwrap()
    }

    /// Brings the index up to date and lets it go.
    fn index(&self) {
        catch_up(&mut self.keep());
    }

    fn search(&self) -> Search {
        Search::of(&self.path)
    }

    fn index_file(&self, name: &str) -> PathBuf {
        self.path.join("index").join(name)
    }

    /// What the index has, oldest first.
    fn found(&self) -> Vec<Entry> {
        let mut found = all(&self.search(), &Filter::default(), 100);
        found.reverse();
        found
    }

    /// The index must have what a naive reader finds in the lines.
    #[track_caller]
    fn assert_indexed(&self) {
        assert_eq!(self.found(), naive(&self.path));
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn intent_of(principal: &str, server: &str, tool: &str) -> Value {
    json!({
        "source": "192.0.2.7", "rpc_method": "tools/call", "principal": principal, "server": server, "tool": tool,
        "decision": "allowed", "reason": "allowed_tools",
    })
}

fn catch_up(index: &mut Index) {
    let mut idle = 0;
    // The names of all segments are looked through once in so many steps.
    while idle < 25 {
        match index.step().unwrap() {
            Step::UpToDate => idle += 1,
            Step::Read(_) | Step::Again => idle = 0,
        }
    }
}

/// Every page, one after the other.
fn all(search: &Search, filter: &Filter, limit: usize) -> Vec<Entry> {
    let (mut found, mut behind) = (Vec::new(), None);
    loop {
        let page = search.page(filter, behind, limit).unwrap();
        assert!(page.entries.len() <= limit);
        assert!(page.next.is_none() || page.entries.len() == limit, "a page in between is full");
        found.extend(page.entries);
        // As an API hands it out and takes it back.
        behind = page.next.map(|next| Cursor::parse(&next.to_string()).unwrap());
        if behind.is_none() {
            return found;
        }
    }
}

/// Entries as somebody reads them who knows docs/audit.md alone, oldest first, by day.
fn naive(directory: &Path) -> Vec<Entry> {
    let mut segments: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    segments.sort();
    let mut entries: BTreeMap<u64, Entry> = BTreeMap::new();
    for segment in segments {
        for line in fs::read_to_string(segment).unwrap().split_inclusive('\n') {
            let Some(record) = line.strip_suffix('\n').and_then(|line| serde_json::from_str::<Value>(line).ok()) else {
                continue;
            };
            naive_record(&record, &mut entries);
        }
    }
    let mut entries: Vec<Entry> = entries.into_values().collect();
    entries.sort_by_key(|entry| (entry.time_micros / entry::DAY_MICROS, entry.seq));
    entries
}

fn naive_record(record: &Value, entries: &mut BTreeMap<u64, Entry>) {
    let text = |name: &str| record.get(name).and_then(Value::as_str).map(str::to_owned);
    let number = |name: &str| record.get(name).and_then(Value::as_u64);
    let seq = number("seq").unwrap();
    let status = number("status").map(|status| u16::try_from(status).unwrap());
    match record["kind"].as_str().unwrap() {
        "intent" | "refused" => {
            let network = text("source_prefix").map(|prefix| prefix.split('/').next().unwrap().to_owned());
            let entry = Entry {
                seq,
                time_micros: micros(&text("time").unwrap()),
                decision: if record["decision"] == "refused" { Decision::Refused } else { Decision::Allowed },
                count: number("count"),
                source: text("source").or(network).map(|source| source.parse().unwrap()),
                method: text("rpc_method"),
                principal: text("principal"),
                user: text("user"),
                agent: text("agent"),
                workspace: text("workspace"),
                server: text("server"),
                tool: text("tool"),
                resource: text("resource"),
                prompt: text("prompt"),
                reason: text("reason"),
                rule: text("rule"),
                status,
                ended: None,
            };
            entries.insert(seq, entry);
        }
        "result" => {
            let Some(entry) = entries.get_mut(&number("intent").unwrap()) else { return };
            entry.ended = Some(Ended {
                seq,
                outcome: text("outcome").unwrap(),
                reason: text("reason"),
                status,
                latency_micros: record["phases_us"]["total"].as_u64(),
                cost: text("cost"),
            });
        }
        _ => {}
    }
}

fn micros(text: &str) -> u64 {
    let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap();
    u64::try_from(time.unix_timestamp_nanos() / 1_000).unwrap()
}

/// Numbers that look like chance and are the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[usize::try_from(self.below(texts.len() as u64)).unwrap()]
    }
}

/// Traffic that is made up: callers, servers and tools of which some are rare, results that come late or never, refusals.
struct Traffic {
    chance: Chance,
    micros: u64,
    step_micros: u64,
    open: Vec<u64>,
}

const SOURCES: [&str; 6] = ["192.0.2.7", "192.0.2.8", "198.51.100.1", "10.1.2.3", "2001:db8::7", "2001:db8:0:1::8"];
const NETWORKS: [&str; 3] = ["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/64"];
const PRINCIPALS: [&str; 4] = ["key:ci", "key:ops", "oauth:idp:u1", "public"];
const USERS: [&str; 4] = ["ann@Example.com", "bob@example.org", "carl", "eve@x@example.com"];
const AGENTS: [&str; 3] = ["worker", "writer", "J\u{f6}rg\u{202e}"];
const SERVERS: [&str; 3] = ["files", "database", "mail"];
const TOOLS: [&str; 5] = ["read", "write", "query", "send", "a \"b\"\n"];
const OUTCOMES: [&str; 5] = ["ok", "ok", "tool_error", "network_failure", "client_gone"];
const REASONS: [&str; 4] = ["argument_mismatch", "blocked_tool", "timeout", "rate_limited"];

impl Traffic {
    fn new(seed: u64, step_micros: u64) -> Self {
        Self { chance: Chance(seed), micros: START, step_micros, open: Vec::new() }
    }

    /// The next line of the record, as text.
    fn next(&mut self, records: &mut Records) -> String {
        let chance = &mut self.chance;
        self.micros += chance.below(self.step_micros * 2);
        let micros = self.micros;
        if !self.open.is_empty() && (self.open.len() > 40 || chance.one_in(2)) {
            // The newest first as a rule, any of them now and then.
            let at = if chance.one_in(4) { chance.below(self.open.len() as u64) } else { self.open.len() as u64 - 1 };
            let intent = self.open.remove(usize::try_from(at).unwrap());
            let outcome = chance.of(&OUTCOMES);
            let mut fields = json!({"intent": intent, "outcome": outcome, "status": 200, "attempts": 1});
            if outcome != "ok" {
                fields["reason"] = chance.of(&REASONS).into();
            } else if chance.one_in(3) {
                fields["cost"] = "0.25".into();
            }
            if !chance.one_in(10) {
                fields["phases_us"] = json!({"upstream": 7, "total": chance.below(2_000_000)});
            }
            return records.text("result", micros, fields);
        }
        let mut fields = intent_of(chance.of(&PRINCIPALS), chance.of(&SERVERS), chance.of(&TOOLS));
        fields["source"] = chance.of(&SOURCES).into();
        if chance.one_in(2) {
            fields["user"] = chance.of(&USERS).into();
        }
        if chance.one_in(2) {
            fields["agent"] = chance.of(&AGENTS).into();
        }
        if chance.one_in(9) {
            fields["workspace"] = "blue".into();
        }
        if chance.one_in(5) {
            let fields = fields.as_object_mut().unwrap();
            fields.remove("tool");
            fields.insert("rpc_method".into(), chance.of(&["tools/list", "subscriptions/listen"]).into());
        }
        match chance.below(10) {
            0 => {
                fields["decision"] = "refused".into();
                fields["reason"] = chance.of(&REASONS).into();
                fields["rule"] = "agents.worker".into();
                fields["status"] = 403.into();
                records.text("refused", micros, fields)
            }
            1 => {
                let counted = json!({"source_prefix": chance.of(&NETWORKS), "decision": "refused",
                    "reason": "unknown_key", "count": 1 + chance.below(50), "since": time_text(micros)});
                records.text("refused", micros, counted)
            }
            2 => records.text("recovered", micros, json!({"cause": "records_lost", "lost_results": 1})),
            3 => {
                let seq = records.seq + 1;
                self.open.push(seq);
                fields["resource"] = "file:///a".into();
                fields["prompt"] = "p".into();
                records.text("intent", micros, fields)
            }
            _ => {
                self.open.push(records.seq + 1);
                records.text("intent", micros, fields)
            }
        }
    }

    /// Writes so many lines, now and then into a new segment.
    fn write(&mut self, records: &mut Records, lines: u64) {
        for _ in 0..lines {
            if self.chance.one_in(400) {
                records.is_over = true;
            }
            let line = self.next(records);
            records.write_raw(line.as_bytes());
        }
    }
}
