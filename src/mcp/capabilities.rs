//! What does a client say it can do for a server, and how is some of it left unsaid?
//!
//! A server may only ask what a client declared. So what is not relayed is cut out of the declaration: in `initialize`,
//! and in `_meta` of every request of 2026-07-28. A second spelling of a name goes as well.

use crate::mcp::cut;
use crate::mcp::document::Value;
use crate::mcp::message::META_CAPABILITIES;
use crate::mcp::message::Message;
use crate::mcp::names;
use crate::mcp::splice::Splice;

/// What a server asks of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientRequest {
    /// To have its model write something.
    Sampling,
    /// To ask its user something.
    Elicitation,
    /// To name the directories it works in.
    Roots,
}

impl ClientRequest {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sampling, Self::Elicitation, Self::Roots];

    /// What is asked by a method, in a request of its own or in `inputRequests`.
    pub fn of_method(method: &str) -> Option<Self> {
        match method {
            "sampling/createMessage" => Some(Self::Sampling),
            "elicitation/create" => Some(Self::Elicitation),
            "roots/list" => Some(Self::Roots),
            _ => None,
        }
    }

    /// The capability that a client declares for it.
    pub const fn capability(self) -> &'static str {
        match self {
            Self::Sampling => "sampling",
            Self::Elicitation => "elicitation",
            Self::Roots => "roots",
        }
    }
}

/// What to cut out of a client's message so that it declares nothing for which `relays` is false, in the order of
/// their spans. Nothing, mostly.
pub fn narrow(message: &Message, relays: impl Fn(ClientRequest) -> bool) -> Vec<Splice> {
    let denied: Vec<&str> =
        ClientRequest::ALL.into_iter().filter(|asked| !relays(*asked)).map(ClientRequest::capability).collect();
    if denied.is_empty() {
        return Vec::new();
    }
    let of_session = message.params().and_then(|params| params.get("capabilities"));
    let of_request = message.meta().and_then(|meta| meta.get(META_CAPABILITIES));
    let mut splices = Vec::new();
    if message.method() == Some("initialize") {
        splices.extend(of_session.map(|declared| cut_capabilities(declared, &denied)).unwrap_or_default());
    }
    splices.extend(of_request.map(|declared| cut_capabilities(declared, &denied)).unwrap_or_default());
    splices.sort_by_key(|splice| splice.span.start);
    splices
}

/// The capabilities themselves, and in 2025-11-25 those to do them as tasks.
fn cut_capabilities(declared: Value<'_>, denied: &[&str]) -> Vec<Splice> {
    let keeps = |key: &str| !denied.iter().any(|name| is_spelling(key, name));
    let mut splices = cut::members(declared, |key, _| keeps(key));
    for tasks in under(declared, "tasks") {
        for requests in under(tasks, "requests") {
            splices.extend(cut::members(requests, |key, _| keeps(key)));
        }
    }
    splices
}

/// The values under every spelling of a key.
fn under<'d>(object: Value<'d>, name: &str) -> impl Iterator<Item = Value<'d>> {
    object.entries().filter(move |(key, _)| is_spelling(key, name)).map(|(_, value)| value)
}

fn is_spelling(key: &str, name: &str) -> bool {
    key == name || names::is_variant(key, name)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::Value as Json;
    use serde_json::json;

    use super::*;
    use crate::mcp::document::Limits;
    use crate::mcp::splice;

    fn narrowed(body: &str, denied: &[ClientRequest]) -> Json {
        let message = Message::read(Bytes::copy_from_slice(body.as_bytes()), &Limits::default()).unwrap();
        let splices = narrow(&message, |asked| !denied.contains(&asked));
        serde_json::from_slice(&splice::apply(message.body(), &splices).unwrap()).unwrap()
    }

    fn initialize(capabilities: &Json) -> String {
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"capabilities": capabilities}}).to_string()
    }

    #[test]
    fn what_is_denied_is_not_declared_at_all() {
        let declared = json!({
            "sampling": {"tools": {}}, "elicitation": {"form": {}, "url": {}}, "roots": {"listChanged": true},
            "Sampling": {}, "experimental": {"sampling": {}},
            "tasks": {"list": {}, "requests": {"sampling": {"createMessage": {}}, "elicitation": {"create": {}}}},
        });
        let found = narrowed(&initialize(&declared), &[ClientRequest::Sampling, ClientRequest::Roots]);
        let expected = json!({
            "elicitation": {"form": {}, "url": {}}, "experimental": {"sampling": {}},
            "tasks": {"list": {}, "requests": {"elicitation": {"create": {}}}},
        });
        assert_eq!(found["params"]["capabilities"], expected);
        assert_eq!(narrowed(&initialize(&declared), &[])["params"]["capabilities"], declared);
    }

    #[test]
    fn every_request_of_the_stateless_revision_is_narrowed() {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"sampling","arguments":{"sampling":1},
            "_meta":{"io.modelcontextprotocol/clientCapabilities":{"sampling":{},"elicitation":{}}}}}"#;
        let found = narrowed(body, &[ClientRequest::Sampling]);
        assert_eq!(found["params"]["_meta"][META_CAPABILITIES], json!({"elicitation": {}}));
        assert_eq!(found["params"]["arguments"], json!({"sampling": 1}));
    }

    #[test]
    fn a_declaration_of_another_form_is_left_to_the_server() {
        for declared in
            [json!(null), json!([]), json!("sampling"), json!({"tasks": []}), json!({"tasks": {"requests": 1}})]
        {
            assert_eq!(narrowed(&initialize(&declared), &ClientRequest::ALL)["params"]["capabilities"], declared);
        }
    }

    #[test]
    fn a_capability_belongs_to_its_method() {
        for asked in ClientRequest::ALL {
            let methods = ["sampling/createMessage", "elicitation/create", "roots/list"];
            let method = methods.into_iter().find(|method| ClientRequest::of_method(method) == Some(asked)).unwrap();
            assert!(method.starts_with(asked.capability()));
        }
        assert_eq!(ClientRequest::of_method("tools/call"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_remains_is_what_another_reader_leaves(
            keys in prop::collection::btree_set(
                prop::sample::select(vec!["sampling", "elicitation", "roots", "tasks", "experimental", "extensions"]), 0..6),
            requests in prop::collection::btree_set(prop::sample::select(vec!["sampling", "elicitation", "x"]), 0..3),
            denied in prop::sample::subsequence(ClientRequest::ALL.to_vec(), 0..3),
        ) {
            let names: Vec<&str> = denied.iter().map(|asked| asked.capability()).collect();
            let of = |keys: Vec<&&str>, inner: &Json| {
                keys.into_iter().map(|key| (key.to_string(), inner.clone())).collect::<serde_json::Map<_, _>>()
            };
            let mut declared = of(keys.iter().collect(), &json!({}));
            let mut expected = of(keys.iter().filter(|key| !names.contains(key)).collect(), &json!({}));
            for (map, keep_all) in [(&mut declared, true), (&mut expected, false)] {
                let kept = requests.iter().filter(|key| keep_all || !names.contains(key)).collect();
                map.entry("tasks").and_modify(|tasks| *tasks = json!({"requests": of(kept, &json!({"a": 1}))}));
            }
            let found = narrowed(&initialize(&Json::Object(declared)), &denied);
            prop_assert_eq!(&found["params"]["capabilities"], &Json::Object(expected));
        }
    }
}
