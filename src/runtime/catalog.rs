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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::mcp::document::Document;
    use crate::mcp::document::Limits;

    fn catalog(servers: &[(&str, u64)]) -> Catalog {
        let catalog = Catalog::default();
        adopt(&catalog, servers);
        catalog
    }

    fn adopt(catalog: &Catalog, servers: &[(&str, u64)]) {
        catalog.adopt(servers.iter().map(|(name, target)| (Arc::from(*name), *target)));
    }

    /// A tool whose argument `a` is repeated in a header of this name; a name that is no token makes it invalid.
    fn tool(name: &str, header: &str) -> String {
        let argument = format!(r#"{{"type":"string","x-mcp-header":"{header}"}}"#);
        format!(r#"{{"name":"{name}","inputSchema":{{"properties":{{"a":{argument}}}}}}}"#)
    }

    fn learn(catalog: &Catalog, server: (&str, u64), tools: &[String]) {
        let result = format!(r#"{{"tools":[{}]}}"#, tools.join(","));
        let document = Document::read(Bytes::from(result), &Limits::for_answers()).expect("is read");
        catalog.learn(server.0, server.1, document.root());
    }

    /// The header that a call of a tool needs.
    fn header(catalog: &Catalog, server: (&str, u64), tool: &str) -> Option<String> {
        let annotated = catalog.get(server.0, server.1, tool)?;
        annotated.headers.first().map(|header| header.name.as_str().to_owned())
    }

    fn some(header: &str) -> Option<String> {
        Some(format!("mcp-param-{header}"))
    }

    const FILES: (&str, u64) = ("files", 1);

    #[test]
    fn a_tool_is_known_as_it_was_listed_last() {
        let catalog = catalog(&[FILES, ("db", 1)]);
        assert_eq!(header(&catalog, FILES, "one"), None);
        learn(&catalog, FILES, &[tool("one", "A"), tool("two", "B"), tool("three", "C")]);
        learn(&catalog, FILES, &[tool("two", "B2"), tool("three", "not a token"), tool("four", "D")]);
        for (name, expected) in [("one", some("a")), ("two", some("b2")), ("three", None), ("four", some("d"))] {
            assert_eq!(header(&catalog, FILES, name), expected, "{name}");
        }
        learn(&catalog, FILES, &[r#"{"name":"one"}"#.to_owned()]);
        assert_eq!(header(&catalog, FILES, "one"), None);
        assert_eq!(header(&catalog, ("db", 1), "two"), None);
        assert_eq!(header(&catalog, ("elsewhere", 1), "two"), None);
    }

    #[test]
    fn a_changed_list_is_forgotten() {
        let catalog = catalog(&[FILES, ("db", 1)]);
        learn(&catalog, FILES, &[tool("one", "A")]);
        learn(&catalog, ("db", 1), &[tool("one", "A")]);
        catalog.forget("files", 2);
        assert_eq!(header(&catalog, FILES, "one"), some("a"), "it was the list of another place");
        catalog.forget("files", 1);
        assert_eq!(header(&catalog, FILES, "one"), None);
        assert_eq!(header(&catalog, ("db", 1), "one"), some("a"));
    }

    #[test]
    fn what_one_place_listed_is_not_held_against_another() {
        let catalog = catalog(&[FILES]);
        learn(&catalog, FILES, &[tool("one", "A")]);
        assert_eq!(header(&catalog, ("files", 2), "one"), None);
        learn(&catalog, ("files", 2), &[tool("one", "B")]);
        assert_eq!(header(&catalog, FILES, "one"), some("a"));
        adopt(&catalog, &[("files", 2)]);
        assert_eq!(header(&catalog, FILES, "one"), None);
        learn(&catalog, FILES, &[tool("one", "A")]);
        assert_eq!(header(&catalog, FILES, "one"), None, "an answer that comes late");
        learn(&catalog, ("files", 2), &[tool("one", "B")]);
        assert_eq!(header(&catalog, ("files", 2), "one"), some("b"));
    }

    #[test]
    fn a_reload_keeps_what_was_learned_of_servers_that_stay() {
        let catalog = catalog(&[FILES, ("db", 1)]);
        learn(&catalog, FILES, &[tool("one", "A")]);
        learn(&catalog, ("db", 1), &[tool("one", "A")]);
        adopt(&catalog, &[FILES]);
        assert_eq!(header(&catalog, FILES, "one"), some("a"));
        assert_eq!(header(&catalog, ("db", 1), "one"), None);
        assert_eq!(catalog.known.load().len(), 1);
    }

    #[test]
    fn of_one_server_so_many_tools_are_remembered_and_no_more() {
        let catalog = catalog(&[FILES]);
        let tools: Vec<_> = (0..=TOOLS_MAX).map(|at| tool(&format!("t{at}"), "A")).collect();
        learn(&catalog, FILES, &tools);
        assert_eq!(header(&catalog, FILES, &format!("t{}", TOOLS_MAX - 1)), some("a"));
        assert_eq!(header(&catalog, FILES, &format!("t{TOOLS_MAX}")), None);
        learn(&catalog, FILES, &[tool("t0", "B"), r#"{"name":"t1"}"#.to_owned(), tool("new", "C")]);
        assert_eq!(header(&catalog, FILES, "t0"), some("b"), "one that is known is known anew");
        assert_eq!(header(&catalog, FILES, "new"), some("c"), "one that went makes room");
    }

    #[test]
    fn servers_without_repeated_arguments_take_no_room() {
        let catalog = catalog(&[FILES]);
        let before = Arc::clone(&catalog.known.load());
        learn(&catalog, FILES, &[r#"{"name":"one"}"#.to_owned(), tool("two", "not a token")]);
        assert!(Arc::ptr_eq(&catalog.known.load(), &before), "nothing was changed");
        learn(&catalog, FILES, &[tool("one", "A")]);
        learn(&catalog, FILES, &[r#"{"name":"one"}"#.to_owned()]);
        assert!(catalog.known.load().is_empty());
    }
}
