//! A key that asks for another: minted, put on record, and handed out once.
//!
//! The same steps as for a call, as far as there are any: the head, who, their rate, the body, may they, the record. Nothing goes to
//! a server, and nothing is kept. No page may ask, and no answer may be stored.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use pingora::protocols::http::ServerSession;
use serde_json::json;

use crate::audit::Ending;
use crate::auth::AuthError;
use crate::auth::Presented;
use crate::auth::Shown;
use crate::auth::TokenError;
use crate::auth::child;
use crate::clock;
use crate::config::problem::At;
use crate::config::workspaces;
use crate::mcp::document::Document;
use crate::mcp::document::Kind;
use crate::mcp::document::Limits;
use crate::mcp::document::Value;
use crate::policy::SERVERS_MAX;
use crate::policy::TOOLS_MAX;
use crate::policy::check_tool;
use crate::principal::ID_BYTES;
use crate::principal::LeftTools;
use crate::principal::Link;
use crate::principal::Minted;
use crate::principal::Principal;
use crate::principal::Subject;
use crate::principal::id_text;
use crate::runtime::Active;
use crate::runtime::Runtime;
use crate::seal;
use crate::telemetry::metrics::Phase;
use crate::transport::body;
use crate::transport::cors::Page;

use super::debug;
use super::entry::Entry;
use super::handle;
use super::handle::Caller;
use super::inbound;
use super::page;
use super::quota;
use super::refusal::Refusal;
use super::reply;
use super::reply::Reply;

/// Bytes of a request for a key.
const MINT_BYTES_MAX: usize = 8 * 1024;
/// Seconds that a child lives whose request does not say.
const SECONDS: u64 = 15 * 60;
/// What keeps an answer from being stored.
pub(crate) const NO_STORE: (&str, &str) = ("cache-control", "no-store");

/// What is asked for.
struct Asked {
    link: Link,
    seconds: Option<u64>,
}

/// Answers a request for a key.
///
/// # Errors
/// The refusal that is still to be answered and put on record.
pub(crate) async fn answer(
    session: &mut ServerSession,
    entry: &mut Entry,
    (runtime, active): (&Arc<Runtime>, &Arc<Active>),
    page: Page,
) -> Result<(), Refusal> {
    entry.is_minting = true;
    let snapshot = &active.snapshot;
    page::let_in(session.req_header_mut(), page, entry.whence.scheme, snapshot)?;
    if session.req_header().method != Method::POST {
        return Err(Refusal::Method("POST"));
    }
    inbound::check_body(&session.req_header().headers)?;
    entry.lap(Phase::Head);

    let principal = authenticate(session, entry, runtime, active)?;
    entry.debug = debug::is_asked(&session.req_header().headers, &principal).then(Box::default);
    entry.note_caller(&principal);
    entry.lap(Phase::Auth);
    quota::one(&Caller { runtime, active, principal: Arc::clone(&principal), server: Arc::from("") })?;

    let limits = body::Limits { bytes_max: snapshot.body.bytes_max.min(MINT_BYTES_MAX), ..snapshot.body };
    let body = handle::read_body(session, entry, &limits).await?;
    entry.lap(Phase::Body);
    let Asked { link, seconds } = read(body).map_err(Refusal::MintRequest)?;
    let mut link = within(principal.workspace.as_deref(), link);
    entry.lap(Phase::Parse);

    // Of what is minted the record says more.
    entry.asked = Some(Box::new(link.clone()));
    let subject = entry.subject(&principal);
    let now = subject.now;
    let (rule, seconds_max) = snapshot.policy.may_mint(subject, &link).map_err(|why| {
        let key = principal.key.as_deref().unwrap_or_default();
        Refusal::NotMinted(why, At::entry("keys", key).key("may_mint"))
    })?;
    let seconds = match seconds {
        Some(seconds) if seconds > seconds_max => {
            return Err(Refusal::MintRequest("`seconds` is more than this key may give"));
        }
        seconds => seconds.unwrap_or(SECONDS.min(seconds_max)),
    };
    let (id, nonce) = (seal::fresh_nonce(), seal::fresh_nonce());
    let (id, nonce) = (id.map_err(|_| Refusal::Sealing)?, nonce.map_err(|_| Refusal::Sealing)?);
    link.id = *id.first_chunk::<ID_BYTES>().ok_or(Refusal::Sealing)?;
    let expires = now.saturating_add(seconds).min(principal.expires.unwrap_or(u64::MAX));
    let minted = minted(&principal, link, expires, active).ok_or(Refusal::Internal("no_minter"))?;
    let keyring = runtime.keyring(active).ok_or(Refusal::Internal("no_sealing_key"))?;
    let key = child::seal(keyring, &minted, nonce);
    let key = key.ok_or(Refusal::MintRequest("the key would be too long: name fewer servers and tools"))?;
    let id = minted.last().map(|link| id_text(&link.id));
    let child = Principal::of_child(minted);
    entry.lap(Phase::Policy);
    entry.asked = None;
    entry.intend_minting(&rule, &child).await?;
    entry.lap(Phase::Record);

    let document = json!({
        "key": key.expose(),
        "id": id,
        "principal": &*child.id,
        "agent": child.agent.as_deref().map(workspaces::bare),
        "expires": clock::text_of(expires),
        "expires_in": expires.saturating_sub(now),
        "chain": child.minted.map(|minted| minted.chain()),
    });
    entry.status = Some(201);
    let debug = debug::headers(entry);
    let debug = debug.iter().map(|(name, value)| (*name, value.as_str()));
    let headers: Vec<_> = std::iter::once(NO_STORE).chain(debug).collect();
    let reply = Reply { status: 201, body: document.to_string().into(), headers: &headers };
    let written = reply::whole(session, reply).await;
    entry.settle(if written.is_ok() { Ending::Ok } else { Ending::ClientGone });
    Ok(())
}

/// What is asked for, by the names that the whole configuration has for it: those in the request are meant in the caller's workspace.
fn within(workspace: Option<&str>, link: Link) -> Link {
    let name = |name: &Arc<str>| Arc::from(workspaces::qualified(workspace, name));
    Link {
        id: link.id,
        agent: name(&link.agent),
        servers: link.servers.map(|servers| servers.iter().map(name).collect()),
        tools: link.tools.into_iter().map(|(server, tools)| (name(&server), tools)).collect(),
    }
}

/// What a caller's child is: what the caller is, and one link more.
fn minted(principal: &Arc<Principal>, link: Link, expires: u64, active: &Active) -> Option<Minted> {
    match &principal.minted {
        Some(before) => {
            let mut minted = Minted { expires: expires.min(before.expires), ..(**before).clone() };
            minted.links.push(link);
            Some(minted)
        }
        None => {
            let binding = active.snapshot.keys.binding(principal.key.as_deref()?)?;
            Some(Minted { parent: Arc::clone(principal), binding, links: vec![link], expires })
        }
    }
}

/// Who asks: the holder of a key, or of a minted one.
fn authenticate(
    session: &ServerSession,
    entry: &Entry,
    runtime: &Runtime,
    active: &Active,
) -> Result<Arc<Principal>, Refusal> {
    let (head, subject) = (session.req_header(), entry.subject(&active.snapshot.public));
    let Subject { source, now, .. } = subject;
    let certificate = entry.whence.certificate(&active.snapshot.front);
    let shown = Shown { headers: &head.headers, query: head.uri.query(), certificate, source, now };
    match active.snapshot.keys.authenticate(shown).map_err(Refusal::Key)? {
        Some(Presented::Key(principal)) => Ok(principal),
        Some(Presented::Child(text)) => open_child(text, subject, runtime, active),
        Some(Presented::Token(_)) => Err(Refusal::Token(TokenError::NotTaken)),
        None => Err(Refusal::KeyMissing),
    }
}

/// Who holds a minted key. `subject` says from where, and when.
pub(crate) fn open_child(
    text: &str,
    subject: Subject<'_>,
    runtime: &Runtime,
    active: &Active,
) -> Result<Arc<Principal>, Refusal> {
    let keyring = runtime.keyring(active).ok_or(Refusal::Internal("no_sealing_key"))?;
    let (keys, policy) = (&active.snapshot.keys, &active.snapshot.policy);
    let child = keys.open_child(keyring, text, subject.source, subject.now).map_err(Refusal::Key)?;
    let is_upheld = child.minted.as_ref().is_some_and(|minted| policy.knows_agents_of(minted));
    if is_upheld { Ok(child) } else { Err(Refusal::Key(AuthError::Revoked)) }
}

/// The body of a refusal.
pub(crate) fn refusal_body(text: &str) -> Bytes {
    json!({ "error": text }).to_string().into()
}

/// What a body asks for. Names are held against the configuration later; here they are texts.
fn read(body: Bytes) -> Result<Asked, &'static str> {
    let limits =
        Limits { depth_max: 4, nodes_max: 8_192, object_keys_max: 128, string_bytes_max: 1_024, ..Limits::default() };
    let document = Document::read(body, &limits).map_err(|_| "the body is not one plain JSON object")?;
    let root = document.root();
    if root.kind() != Kind::Object {
        return Err("the body is not one plain JSON object");
    }
    let mut asked = Asked { link: Link::default(), seconds: None };
    for (key, value) in root.entries() {
        match key {
            "agent" => asked.link.agent = value.text().ok_or("`agent` is the name of an agent")?.into(),
            "mcp_servers" => {
                asked.link.servers =
                    Some(texts(value, SERVERS_MAX).ok_or("`mcp_servers` is a list of at most 64 names")?);
            }
            "mcp_tool_permissions" => asked.link.tools = tools(value)?,
            "seconds" => {
                let text = value.raw_text();
                let seconds = text.parse().ok().filter(|seconds| value.kind() == Kind::Number && *seconds > 0);
                asked.seconds = Some(seconds.ok_or("`seconds` is a whole number above 0")?);
            }
            _ => {
                return Err(
                    "possible are `agent`, `mcp_servers`, `mcp_tool_permissions` and `seconds`, and nothing else",
                );
            }
        }
    }
    if asked.link.agent.is_empty() { Err("`agent` is needed: whom the key is for") } else { Ok(asked) }
}

fn tools(value: Value<'_>) -> Result<LeftTools, &'static str> {
    const FORM: &str =
        "`mcp_tool_permissions` is an object of at most 64 servers, each with a list of at most 64 tools";
    if value.kind() != Kind::Object || value.count() > SERVERS_MAX {
        return Err(FORM);
    }
    let mut tools = Vec::new();
    for (server, list) in value.entries() {
        let list = texts(list, TOOLS_MAX).ok_or(FORM)?;
        if list.iter().any(|tool| check_tool(tool).is_err()) {
            return Err("a tool is named by at most 256 bytes, without white space around them");
        }
        tools.push((server.into(), list));
    }
    Ok(tools)
}

/// A list of at most so many texts.
fn texts(value: Value<'_>, count_max: usize) -> Option<Vec<Arc<str>>> {
    if value.kind() != Kind::Array || value.count() > count_max {
        return None;
    }
    value.items().map(|item| item.text().map(Arc::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<(Link, Option<u64>), &'static str> {
        super::read(Bytes::from(body.to_owned())).map(|asked| (asked.link, asked.seconds))
    }

    #[test]
    fn a_request_is_read_strictly() {
        let (link, seconds) =
            read(r#"{"agent":"a","mcp_servers":["x","y"],"mcp_tool_permissions":{"x":["get_*"],"y":[]},"seconds":60}"#)
                .unwrap();
        assert_eq!((&*link.agent, seconds), ("a", Some(60)));
        assert_eq!(link.servers, Some(vec!["x".into(), "y".into()]));
        assert_eq!(link.tools, [("x".into(), vec!["get_*".into()]), ("y".into(), Vec::new())]);
        assert_eq!(read(r#"{"agent":"a"}"#).map(|(link, seconds)| (link.servers, seconds)), Ok((None, None)));
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"agent":""}"#,
            r#"{"agent":1}"#,
            r#"{"agent":"a","agent":"b"}"#,
            r#"{"agent":"a","Agent":"b"}"#,
            r#"{"agent":"a","servers":["x"]}"#,
            r#"{"agent":"a","mcp_servers":"x"}"#,
            r#"{"agent":"a","mcp_servers":[1]}"#,
            r#"{"agent":"a","mcp_servers":null}"#,
            r#"{"agent":"a","mcp_tool_permissions":["x"]}"#,
            r#"{"agent":"a","mcp_tool_permissions":{"x":"y"}}"#,
            r#"{"agent":"a","mcp_tool_permissions":{"x":[" y"]}}"#,
            r#"{"agent":"a","mcp_tool_permissions":{"x":[""]}}"#,
            r#"{"agent":"a","seconds":0}"#,
            r#"{"agent":"a","seconds":-1}"#,
            r#"{"agent":"a","seconds":1.5}"#,
            r#"{"agent":"a","seconds":"60"}"#,
            r#"{"agent":"a","seconds":18446744073709551616}"#,
            r#"{"agent":"a"} x"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_more_servers_and_tools_are_named_than_may_be() {
        let list = |count: usize| serde_json::to_string(&vec!["x"; count]).unwrap();
        let servers = |count| read(&format!(r#"{{"agent":"a","mcp_servers":{}}}"#, list(count))).is_ok();
        assert!(servers(SERVERS_MAX) && !servers(SERVERS_MAX + 1));
        let tools = |count| read(&format!(r#"{{"agent":"a","mcp_tool_permissions":{{"x":{}}}}}"#, list(count))).is_ok();
        assert!(tools(TOOLS_MAX) && !tools(TOOLS_MAX + 1));
        let of_servers = |count: usize| {
            let servers: Vec<String> = (0..count).map(|server| format!(r#""s{server}":[]"#)).collect();
            read(&format!(r#"{{"agent":"a","mcp_tool_permissions":{{{}}}}}"#, servers.join(","))).is_ok()
        };
        assert!(of_servers(SERVERS_MAX) && !of_servers(SERVERS_MAX + 1));
    }
}
