//! What does one line of the record say to somebody who searches?
//!
//! Reads the fields a search asks for and passes over all others, so that lines of older and newer versions are read alike.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::Deserialize;

use crate::search::entry::Decision;
use crate::search::entry::Ended;
use crate::search::entry::Entry;
use crate::search::times::micros_of;

/// One line, as far as a search is concerned.
#[derive(Debug)]
pub(super) struct Record {
    /// Number of the record.
    pub(super) seq: u64,
    /// What it says.
    pub(super) said: Said,
}

/// What a record says.
#[derive(Debug)]
pub(super) enum Said {
    /// A request was let through or refused.
    Asked(Box<Entry>),
    /// The request of the intent with this number ended.
    Ended(u64, Box<Ended>),
    /// Something happened to the log: lines may have been taken back.
    Recovered,
    /// Something no search asks for.
    Other,
}

#[derive(Deserialize)]
struct Line<'l> {
    seq: u64,
    #[serde(borrow)]
    kind: Cow<'l, str>,
    #[serde(borrow)]
    time: Cow<'l, str>,
    intent: Option<u64>,
    #[serde(borrow)]
    outcome: Option<Cow<'l, str>>,
    #[serde(borrow)]
    source: Option<Cow<'l, str>>,
    #[serde(borrow)]
    source_prefix: Option<Cow<'l, str>>,
    rpc_method: Option<String>,
    principal: Option<String>,
    user: Option<String>,
    agent: Option<String>,
    workspace: Option<String>,
    server: Option<String>,
    tool: Option<String>,
    resource: Option<String>,
    prompt: Option<String>,
    #[serde(borrow)]
    decision: Option<Cow<'l, str>>,
    reason: Option<String>,
    rule: Option<String>,
    count: Option<u64>,
    status: Option<u16>,
    cost: Option<String>,
    phases_us: Option<Phases>,
}

#[derive(Deserialize)]
struct Phases {
    total: Option<u64>,
}

impl Record {
    /// Reads a line without its newline; `None` if it is no record.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        // A JSON reader would take an array for a struct.
        let line: Line<'_> = line.starts_with(b"{").then(|| serde_json::from_slice(line).ok()).flatten()?;
        let seq = line.seq;
        let said = match &*line.kind {
            "intent" | "refused" => Said::Asked(Box::new(asked(line)?)),
            "result" => Said::Ended(line.intent?, Box::new(ended(line)?)),
            "recovered" => Said::Recovered,
            _ => Said::Other,
        };
        Some(Self { seq, said })
    }
}

fn asked(line: Line<'_>) -> Option<Entry> {
    let network = line.source_prefix.as_deref().and_then(|prefix| prefix.split_once('/')).map(|(first, _)| first);
    let decision = match line.decision.as_deref() {
        Some("refused") => Decision::Refused,
        Some(_) => Decision::Allowed,
        None if line.kind == "refused" => Decision::Refused,
        None => Decision::Allowed,
    };
    Some(Entry {
        seq: line.seq,
        time_micros: micros_of(&line.time)?,
        decision,
        count: line.count,
        source: line.source.as_deref().or(network).and_then(address),
        method: line.rpc_method,
        principal: line.principal,
        user: line.user,
        agent: line.agent,
        workspace: line.workspace,
        server: line.server,
        tool: line.tool,
        resource: line.resource,
        prompt: line.prompt,
        reason: line.reason,
        rule: line.rule,
        status: line.status,
        ended: None,
    })
}

fn ended(line: Line<'_>) -> Option<Ended> {
    Some(Ended {
        seq: line.seq,
        outcome: line.outcome?.into_owned(),
        reason: line.reason,
        status: line.status,
        latency_micros: line.phases_us.and_then(|phases| phases.total),
        cost: line.cost,
    })
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}
