//! Servers without sessions and with several endpoints.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::json;

use crate::support::client;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

use super::INITIALIZE;
use super::INITIALIZED;
use super::LIST;
use super::call;

const PRINCIPALS: usize = 24;

async fn sessionless() -> Upstream {
    let upstream = Upstream::start().await;
    let result =
        json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": { "name": "s", "version": "1" } });
    upstream.on("initialize", Reply::json(result));
    upstream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_principal_keeps_its_endpoint_and_together_they_use_all() {
    let upstreams = [sessionless().await, sessionless().await, sessionless().await];
    let mut endpoints: Vec<String> =
        upstreams.iter().map(|upstream| format!("{{ url = \"{}\" }}", upstream.url())).collect();
    let keys: Vec<_> =
        (0..PRINCIPALS).map(|number| (format!("k{number}"), gateway::make_key(&format!("k{number}")))).collect();
    let tables: String = keys
        .iter()
        .map(|(name, key)| format!("[keys.{name}]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\n", key.digest))
        .collect();
    let start = |endpoints: &[String]| {
        Gateway::start(&format!("[servers.a]\nendpoints = [{}]\n{tables}", endpoints.join(", ")))
    };
    let first = start(&endpoints);
    endpoints.reverse();
    // Another process finds the same endpoint, in whatever order they are written.
    let nodes = [first, start(&endpoints)];
    let mut used: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for (name, key) in &keys {
        let key = format!("X-API-Key: {}", key.key);
        let count = || {
            upstreams.each_ref().map(|upstream| upstream.requests().len() - upstream.requests_for("initialize").len())
        };
        for node in &nodes {
            let opened = client::send(node.data, client::post("/mcp/a", &[&key], INITIALIZE)).await;
            assert_eq!((opened.status, opened.header("mcp-session-id")), (200, None));
            for body in [INITIALIZED, LIST, &call(4, "echo"), LIST] {
                let before = count();
                let answer =
                    client::send(node.data, client::post("/mcp/a", &[&key, "MCP-Protocol-Version: 2025-06-18"], body))
                        .await;
                assert!(answer.status == 200 || answer.status == 202);
                let after = count();
                let endpoint = (0..3).find(|&index| after[index] > before[index]).unwrap();
                used.entry(name).or_default().insert(endpoint);
            }
        }
    }
    assert!(used.values().all(|endpoints| endpoints.len() == 1), "{used:?}");
    let all: BTreeSet<usize> = used.values().flatten().copied().collect();
    assert_eq!(all, BTreeSet::from([0, 1, 2]));
}
