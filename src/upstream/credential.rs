//! What do we present to a server?
//!
//! Header lines with secret values, built when the configuration is compiled. Nothing prints a value, and nothing but
//! [`UpstreamCredential::present`] takes one out.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;

use crate::config::model::Server;
use crate::config::model::UpstreamAuth;
use crate::config::model::UpstreamAuthType;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::config::secret::Secret;

/// Header lines that one server's configuration may add.
pub const CREDENTIAL_HEADERS_MAX: usize = 32;

/// What is presented to a server with every request. Built by `compile`; `Debug` shows names, never values.
#[derive(Clone, PartialEq, Default)]
pub struct UpstreamCredential {
    lines: Vec<(HeaderName, HeaderValue)>,
}

impl UpstreamCredential {
    /// Puts the credential's lines in, in place of lines of the same names.
    pub(crate) fn present(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.lines {
            headers.insert(name, value.clone());
        }
    }

    /// Reads `auth` and `headers` of a server, reporting every mistake.
    pub(crate) fn compile(server: &Server, at: &At, problems: &mut Problems) -> Self {
        let mut lines = Vec::new();
        lines.extend(authorization(&server.auth, &at.key("auth"), problems));
        let at = at.key("headers");
        if server.headers.len() > CREDENTIAL_HEADERS_MAX {
            problems.error(&at, format!("more than {CREDENTIAL_HEADERS_MAX} headers"), "leave some out");
        }
        for (name, value) in &server.headers {
            let at = at.key(name);
            let (Some(name), Some(value)) = (header_name(name, &at, problems), header_value(value, &at, problems))
            else {
                continue;
            };
            if lines.iter().any(|(other, _)| *other == name) {
                problems.error(&at, format!("`{name}` is set twice"), "set it in `auth` or once in `headers`");
            }
            lines.push((name, value));
        }
        Self { lines }
    }
}

impl fmt::Debug for UpstreamCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lines.iter().map(|(name, _)| name.as_str())).finish()
    }
}

fn authorization(auth: &UpstreamAuth, at: &At, problems: &mut Problems) -> Option<(HeaderName, HeaderValue)> {
    let secret = &auth.secret;
    match auth.r#type {
        UpstreamAuthType::None => {
            unused(auth, &["secret", "name", "username"], at, problems);
            None
        }
        UpstreamAuthType::Bearer => {
            unused(auth, &["name", "username"], at, problems);
            let secret = required(secret.as_ref(), "secret", at, problems)?;
            let at = at.key("secret");
            let token = text(secret, &at, problems)?;
            sensitive(&format!("Bearer {token}"), &at, problems).map(|value| (header::AUTHORIZATION, value))
        }
        UpstreamAuthType::Header => {
            unused(auth, &["username"], at, problems);
            let name = required(auth.name.as_ref(), "name", at, problems);
            let secret = required(secret.as_ref(), "secret", at, problems);
            let name = name.and_then(|name| header_name(name, &at.key("name"), problems));
            let value = secret.and_then(|secret| header_value(secret, &at.key("secret"), problems));
            name.zip(value)
        }
        UpstreamAuthType::Basic => {
            unused(auth, &["name"], at, problems);
            let username = required(auth.username.as_ref(), "username", at, problems);
            let secret = required(secret.as_ref(), "secret", at, problems);
            let (username, secret) = username.zip(secret)?;
            if username.contains(':') || username.chars().any(char::is_control) {
                problems.error(
                    &at.key("username"),
                    "a user name with a colon or a control character",
                    "HTTP cannot carry it",
                );
                return None;
            }
            let at = at.key("secret");
            let password = text(secret, &at, problems)?;
            let pair = STANDARD.encode(format!("{username}:{password}"));
            sensitive(&format!("Basic {pair}"), &at, problems).map(|value| (header::AUTHORIZATION, value))
        }
    }
}

/// A key that the chosen `type` needs.
fn required<'a, T>(value: Option<&'a T>, key: &str, at: &At, problems: &mut Problems) -> Option<&'a T> {
    if value.is_none() {
        problems.error(at, format!("this `type` needs `{key}`"), format!("add `{key} = \"..\"`"));
    }
    value
}

/// Keys that the chosen `type` would ignore: a secret that is not presented is a mistake, not a detail.
fn unused(auth: &UpstreamAuth, keys: &[&str], at: &At, problems: &mut Problems) {
    let given =
        [("secret", auth.secret.is_some()), ("name", auth.name.is_some()), ("username", auth.username.is_some())];
    for (key, _) in given.iter().filter(|(key, given)| *given && keys.contains(key)) {
        let help =
            "choose the `type` it belongs to: `bearer` {secret}, `header` {name, secret}, `basic` {username, secret}";
        problems.error(&at.key(key), format!("this `type` does not use `{key}`"), help);
    }
}

/// A header name that a server's configuration may set.
fn header_name(text: &str, at: &At, problems: &mut Problems) -> Option<HeaderName> {
    let Ok(name) = HeaderName::try_from(text) else {
        problems.error(at, "this is not a header name", "letters, digits and `-`, such as `X-API-Key`");
        return None;
    };
    let owner = match name.as_str() {
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "te"
        | "trailer"
        | "transfer-encoding"
        | "upgrade" => "belongs to the connection",
        "host" => "comes from the URL",
        "content-length" | "content-encoding" | "accept-encoding" | "expect" => "is the gateway's own",
        mcp if mcp.starts_with("mcp-") => "belongs to the protocol",
        _ => return Some(name),
    };
    problems.error(at, format!("`{name}` {owner} and cannot be set"), "leave it out");
    None
}

fn header_value(secret: &Secret, at: &At, problems: &mut Problems) -> Option<HeaderValue> {
    sensitive(text(secret, at, problems)?, at, problems)
}

/// A secret's text, unless it is empty or came with white space around it.
fn text<'a>(secret: &'a Secret, at: &At, problems: &mut Problems) -> Option<&'a str> {
    let text = secret.expose();
    if text.trim().is_empty() {
        problems.error(at, "this is empty", "write the value, or `${env:NAME}` or `${file:PATH}`");
        return None;
    }
    if text.trim() != text {
        let help = "a file may end with a line end that is not part of the secret";
        problems.error(at, "this begins or ends with white space", help);
        return None;
    }
    Some(text)
}

fn sensitive(text: &str, at: &At, problems: &mut Problems) -> Option<HeaderValue> {
    let value = HeaderValue::from_str(text).ok().filter(|value| value.to_str().is_ok());
    let Some(mut value) = value else {
        problems.error(at, "this has characters that a header cannot carry", "use visible ASCII");
        return None;
    };
    value.set_sensitive(true);
    Some(value)
}
