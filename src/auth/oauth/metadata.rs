//! What is a client told that wants to log in?
//!
//! Metadata of the protected resource (RFC 9728): which issuer to go to, and with which scopes. URLs are absolute and made of the
//! configured public URL, never of what a request says.

use serde_json::json;

use crate::auth::oauth::Oauth;

/// Where metadata of a protected resource stands; the resource's path follows.
pub const RESOURCE_PATH: &str = "/.well-known/oauth-protected-resource";
/// Where the metadata of an issuer is repeated.
pub const SERVER_PATH: &str = "/.well-known/oauth-authorization-server";

impl Oauth {
    /// Where the metadata of the resource at `path` stands.
    pub fn metadata_url(&self, path: &str) -> String {
        format!("{}{RESOURCE_PATH}{path}", self.public_url)
    }

    /// The metadata of the resource at `path`, which leads to `server` in the workspace `default`; without: of the gateway as a
    /// whole. Where callers may be in other workspaces, nothing is said of single servers.
    pub fn metadata(&self, path: &str, server: Option<&str>) -> String {
        let accepts = server.filter(|_| !self.leads_elsewhere).and_then(|server| self.servers.get(server));
        let scopes: Vec<&str> = match accepts {
            Some(accepts) => accepts.known.iter(),
            None => self.scopes.iter(),
        }
        .map(|scope| &**scope)
        .collect();
        let more = accepts.iter().flat_map(|_| self.scopes.iter()).map(|scope| &**scope);
        let mut all = scopes.clone();
        all.extend(more.filter(|scope| !scopes.contains(scope)));
        let issuers: Vec<&str> = self.issuers.iter().map(|issuer| &*issuer.url).collect();
        let mut document = json!({
            "resource": format!("{}{path}", self.public_url),
            "authorization_servers": issuers,
            "bearer_methods_supported": ["header"],
        });
        if let (Some(object), false) = (document.as_object_mut(), all.is_empty()) {
            object.insert("scopes_supported".into(), json!(all));
        }
        document.to_string()
    }

    /// The path within the gateway that a client means who puts `suffix` after the well-known path: with or without the path that
    /// stands in front of ours.
    pub fn resource_path<'p>(&self, suffix: &'p str) -> &'p str {
        let prefix =
            self.public_url.split_once("://").and_then(|(_, rest)| rest.find('/').and_then(|at| rest.get(at..)));
        prefix.and_then(|prefix| suffix.strip_prefix(prefix)).unwrap_or(suffix)
    }

    /// The scopes that a client without a token should ask for where a path leads to `server` in the workspace `default`, as one
    /// text.
    pub fn scopes_of(&self, server: &str) -> Option<String> {
        let required = &self.servers.get(server).filter(|_| !self.leads_elsewhere)?.required;
        (!required.is_empty()).then(|| required.join(" "))
    }

    /// The issuer whose metadata is repeated, by its place in the order.
    pub fn metadata_of(&self) -> Option<usize> {
        self.metadata_of
    }
}
