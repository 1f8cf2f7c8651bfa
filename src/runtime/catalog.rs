//! Which arguments of which tools are repeated in headers?
//!
//! Learned from the tool lists that pass by, whole and before anything is cut out of them; a server's list is the same
//! for all its callers. Nothing depends on it being complete: what is not known is left for the server to verify.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use arc_swap::ArcSwap;

use crate::mcp::document::Value;
use crate::mcp::headers::annotations;
use crate::mcp::headers::annotations::Annotated;

/// Tools with repeated arguments that are remembered of one server; further ones are not.
const TOOLS_MAX: usize = 1000;

/// The tools of one server, those without repeated arguments left out.
type Tools = HashMap<Box<str>, Arc<Annotated>>;

/// The tools of all servers. A server is known by its name and a number for where that name leads, so that nothing
/// learned of one place is held against another.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Servers that have tools with repeated arguments.
    known: ArcSwap<HashMap<Arc<str>, Server>>,
    /// The servers there are; held while `known` is changed.
    adopted: Mutex<HashMap<Arc<str>, u64>>,
}

#[derive(Debug, Clone)]
struct Server {
    target: u64,
    tools: Arc<Tools>,
}

impl Catalog {
    /// Takes in the servers of a configuration. What was learned of any other is forgotten, and nothing is learned of
    /// others from now on.
    pub fn adopt(&self, servers: impl IntoIterator<Item = (Arc<str>, u64)>) {
        let mut adopted = self.lock();
        *adopted = servers.into_iter().collect();
        let known = self.known.load();
        if known.iter().any(|(name, server)| adopted.get(name) != Some(&server.target)) {
            let mut known = HashMap::clone(&known);
            known.retain(|name, server| adopted.get(name) == Some(&server.target));
            self.known.store(Arc::new(known));
        }
    }

    /// Learns from the result of a `tools/list` of 2026-07-28, as the server sent it. A tool that was known is known
    /// anew. What is no list teaches nothing.
    pub fn learn(&self, server: &str, target: u64, result: Value<'_>) {
        let Ok(listed) = annotations::of_list(result) else { return };
        let listed: Vec<_> = listed.collect();
        let adopted = self.lock();
        let Some((name, _)) = adopted.get_key_value(server).filter(|(_, adopted)| **adopted == target) else { return };
        let known = self.known.load();
        let before = known.get(server).map(|server| Arc::clone(&server.tools)).unwrap_or_default();
        let mut tools = Tools::clone(&before);
        for (tool, annotated) in listed {
            match annotated.ok().filter(|annotated| !annotated.headers.is_empty()) {
                Some(annotated) if tools.len() < TOOLS_MAX || tools.contains_key(tool) => {
                    tools.insert(tool.into(), Arc::new(annotated));
                }
                // Of a tool that finds no more room nothing is known.
                _ => drop(tools.remove(tool)),
            }
        }
        if tools != *before {
            let server = Server { target, tools: Arc::new(tools) };
            self.replace(&known, name, Some(server));
        }
    }

    /// Forgets what was learned of a server, as its list has changed.
    pub fn forget(&self, server: &str, target: u64) {
        let adopted = self.lock();
        let Some((name, _)) = adopted.get_key_value(server).filter(|(_, adopted)| **adopted == target) else { return };
        let known = self.known.load();
        if known.contains_key(name) {
            self.replace(&known, name, None);
        }
    }

    /// What a call of a tool repeats in headers; `None` if it is nothing, or not known.
    pub fn get(&self, server: &str, target: u64, tool: &str) -> Option<Arc<Annotated>> {
        let known = self.known.load();
        let server = known.get(server).filter(|server| server.target == target)?;
        server.tools.get(tool).cloned()
    }

    /// Puts what is known of one server into force. The caller holds the lock.
    fn replace(&self, known: &HashMap<Arc<str>, Server>, name: &Arc<str>, server: Option<Server>) {
        let mut known = known.clone();
        match server.filter(|server| !server.tools.is_empty()) {
            Some(server) => known.insert(Arc::clone(name), server),
            None => known.remove(name),
        };
        self.known.store(Arc::new(known));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, u64>> {
        self.adopted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
