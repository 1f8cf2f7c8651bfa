//! Is a caller's token good for this?
//!
//! Scopes of a server are asked for by everything on it, those of a tool by calls of that tool beside them. They restrict what was
//! granted and grant nothing. A caller with a key has none and needs none: what it may do is in the configuration. A tool whose
//! scope is missing is listed all the same, because calling it is how a client learns which scope to ask for. And whom an issuer
//! vouched for that the configuration no longer has, nobody vouches for.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::model::Config;
use crate::config::problem::At;
use crate::policy::verdict::Denial;
use crate::policy::verdict::DenialKind;
use crate::principal::Principal;

/// Required scopes, of the servers that require any, and the issuers whose callers are known.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    servers: HashMap<Box<str>, Required>,
    /// With the workspaces that their callers are in.
    issuers: HashMap<Box<str>, Option<Box<str>>>,
}

#[derive(Debug)]
struct Required {
    server: Vec<Arc<str>>,
    tools: HashMap<Box<str>, Vec<Arc<str>>>,
    at: At,
}

impl Scopes {
    pub(super) fn compile(config: &Config) -> Self {
        let texts = |scopes: &[String]| scopes.iter().map(|scope| Arc::from(scope.as_str())).collect::<Vec<Arc<str>>>();
        let rows = config.servers.iter().filter_map(|(name, server)| {
            let tools = server.tools.iter().filter(|(_, tool)| !tool.required_scopes.is_empty());
            let tools: HashMap<Box<str>, Vec<Arc<str>>> =
                tools.map(|(tool, settings)| (tool.as_str().into(), texts(&settings.required_scopes))).collect();
            let is_empty = server.required_scopes.is_empty() && tools.is_empty();
            let required = Required { server: texts(&server.required_scopes), tools, at: At::entry("servers", name) };
            (!is_empty).then(|| (name.as_str().into(), required))
        });
        let issuers = config.auth.issuers.iter();
        let issuers = issuers.map(|(name, it)| (name.as_str().into(), it.workspace().map(Into::into))).collect();
        Self { servers: rows.collect(), issuers }
    }

    /// Whether the configuration still has the issuer that vouched for `principal`, if one did, in the same workspace.
    pub(super) fn vouched(&self, principal: &Principal) -> bool {
        let by = principal.id.strip_prefix("oauth:").map(|rest| rest.split(':').next().unwrap_or_default());
        let workspace = principal.workspace.as_deref();
        by.is_none_or(|issuer| self.issuers.get(issuer).is_some_and(|own| own.as_deref() == workspace))
    }

    /// Whether `principal` may do this on `server`, as far as scopes are concerned; `tool`: the one that is called.
    pub(super) fn check(&self, principal: &Principal, server: &str, tool: Option<&str>) -> Result<(), Box<Denial>> {
        if principal.key.is_some() {
            return Ok(());
        }
        let Some(required) = self.servers.get(server) else { return Ok(()) };
        let of_tool = tool.and_then(|tool| required.tools.get(tool)).map(Vec::as_slice).unwrap_or_default();
        let has = |scope: &Arc<str>| principal.scopes.contains(scope);
        if required.server.iter().chain(of_tool).all(has) {
            return Ok(());
        }
        let mut needed = required.server.clone();
        needed.extend(of_tool.iter().filter(|scope| !required.server.contains(scope)).cloned());
        let (at, key) = (&required.at, "required_scopes");
        let at = match tool.filter(|_| required.server.iter().all(has)) {
            Some(tool) => at.key("tools").key(tool).key(key),
            None => at.key(key),
        };
        Err(Denial::new(DenialKind::ScopeMissing { needed }, Some(at)))
    }
}

impl Denial {
    /// The scopes that the caller's token must have, if that is what it lacks.
    pub fn needed_scopes(&self) -> Option<&[Arc<str>]> {
        match self.kind() {
            DenialKind::ScopeMissing { needed } => Some(needed),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Server;
    use crate::config::model::ServerTool;

    fn config() -> Config {
        let mut config = Config::default();
        let tools = [("drop", &["admin"][..]), ("read", &[]), ("sum", &["mcp", "sum"])];
        let tool = |scopes: &[&str]| ServerTool {
            required_scopes: scopes.iter().map(ToString::to_string).collect(),
            ..ServerTool::default()
        };
        let server = Server {
            required_scopes: vec!["mcp".into()],
            tools: tools.map(|(name, scopes)| (name.to_owned(), tool(scopes))).into(),
            ..Server::default()
        };
        config.servers.insert("db".into(), server);
        config.servers.insert("free".into(), Server::default());
        config
    }

    /// What is missing for a caller with these scopes: the scopes named, and the place.
    fn missing(scopes: &[&str], server: &str, tool: Option<&str>) -> Option<(String, String)> {
        let scopes = scopes.iter().map(|scope| Arc::from(*scope)).collect();
        let principal = Principal { scopes, ..Principal::of_token("idp", "ann") };
        let denial = Scopes::compile(&config()).check(&principal, server, tool).err()?;
        let DenialKind::ScopeMissing { needed } = denial.kind() else { panic!("{denial}") };
        Some((needed.join(" "), denial.at().map(ToString::to_string).unwrap_or_default()))
    }

    #[test]
    fn all_scopes_of_server_and_tool_are_needed_and_named_in_one_go() {
        let named = |scopes: &str, at: &str| Some((scopes.to_owned(), at.to_owned()));
        assert_eq!(missing(&[], "db", None), named("mcp", "servers.db.required_scopes"));
        assert_eq!(missing(&["mcp"], "db", None), None);
        assert_eq!(missing(&["mcp"], "db", Some("read")), None);
        assert_eq!(missing(&["mcp"], "db", Some("unlisted")), None);
        assert_eq!(missing(&["mcp"], "db", Some("drop")), named("mcp admin", "servers.db.tools.drop.required_scopes"));
        assert_eq!(missing(&["admin"], "db", Some("drop")), named("mcp admin", "servers.db.required_scopes"));
        assert_eq!(missing(&["mcp", "admin"], "db", Some("drop")), None);
        assert_eq!(missing(&["MCP", "admin "], "db", Some("drop")), named("mcp admin", "servers.db.required_scopes"));
        assert_eq!(missing(&["mcp"], "db", Some("sum")), named("mcp sum", "servers.db.tools.sum.required_scopes"));
        assert_eq!(missing(&[], "free", Some("drop")), None);
    }

    #[test]
    fn nobody_is_vouched_for_by_an_issuer_that_is_gone() {
        let mut config = config();
        let vouched = |config: &Config, principal: Principal| Scopes::compile(config).vouched(&principal);
        assert!(!vouched(&config, Principal::of_token("idp", "ann")));
        config.auth.issuers.insert("idp".into(), Default::default());
        assert!(vouched(&config, Principal::of_token("idp", "ann")));
        assert!(!vouched(&config, Principal::of_token("id", "p:ann")));
        // Nor by one that has moved to another workspace.
        let elsewhere = Principal { workspace: Some("acme".into()), ..Principal::of_token("idp", "ann") };
        assert!(!vouched(&config, elsewhere.clone()));
        config.auth.issuers.entry("idp".into()).or_default().workspace = "acme".into();
        assert!(vouched(&config, elsewhere) && !vouched(&config, Principal::of_token("idp", "ann")));
        assert!(vouched(&config, Principal::of_key("oauth")) && vouched(&config, Principal::public()));
    }

    #[test]
    fn a_caller_with_a_key_needs_no_scope_and_one_who_showed_nothing_does() {
        let scopes = Scopes::compile(&config());
        assert!(scopes.check(&Principal::of_key("ci"), "db", Some("drop")).is_ok());
        assert!(scopes.check(&Principal::public(), "db", Some("drop")).is_err());
    }
}
