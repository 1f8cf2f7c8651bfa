//! Tests of task tokens, alone and in messages.

use bytes::Bytes;
use proptest::prelude::*;

use super::Random;
use super::ring;
use super::session;
use crate::mcp::document::Limits;
use crate::mcp::error::json_string;
use crate::mcp::message::Message;
use crate::mcp::message::TASK_ID_BYTES_MAX;
use crate::mcp::revision::Revision;
use crate::mcp::splice::Splice;
use crate::mcp::splice::apply;
use crate::mcp::tasks;
use crate::mcp::tasks::Owned;
use crate::seal::Keyring;
use crate::session::Kind;
use crate::session::NAME_BYTES_MAX;
use crate::session::PRINCIPAL_BYTES_MAX;
use crate::session::Session;
use crate::session::TOKEN_BYTES_MAX;
use crate::session::TOOL_BYTES_MAX;
use crate::session::Task;
use crate::session::UPSTREAM_ID_BYTES_MAX;
use crate::session::Unsealable;
use crate::session::codec::decode_task;
use crate::session::codec::encode_task;
use crate::session::open;
use crate::session::open_task;
use crate::session::seal;
use crate::session::seal_task;

fn task() -> Task {
    Task {
        server: "github".into(),
        endpoint: 0x0123_4567_89ab_cdef,
        upstream_id: "786512e2-9e0d-44bd-8f29-789f320fe840".into(),
        principal: "key:ci".into(),
        tool: Some("create_issue".into()),
    }
}

fn token_of(task: &Task) -> String {
    seal_task(&ring(), task).unwrap()
}

fn opened(token: &str) -> Option<Task> {
    open_task(&ring(), token, "key:ci", "github")
}

#[test]
fn a_task_has_one_token_and_no_other_task_has_it() {
    let token = token_of(&task());
    assert_eq!(token_of(&task()), token);
    assert_eq!(opened(&token), Some(task()));
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'), "{token}");
    let mut tokens = std::collections::BTreeSet::from([token]);
    for other in [
        Task { server: "githu".into(), ..task() },
        Task { endpoint: 1, ..task() },
        Task { upstream_id: "786512e2".into(), ..task() },
        Task { principal: "key:c".into(), ..task() },
        Task { tool: None, ..task() },
        Task { tool: Some("create_issues".into()), ..task() },
        Task { upstream_id: format!("{}key", task().upstream_id), principal: ":ci".into(), ..task() },
    ] {
        let token = token_of(&other);
        assert_eq!(open_task(&ring(), &token, &other.principal, &other.server), Some(other));
        assert!(tokens.insert(token));
    }
}

#[test]
fn a_task_opens_for_its_owner_on_its_server_only() {
    let token = token_of(&task());
    assert_eq!(open_task(&ring(), &token, "key:c", "github"), None);
    assert_eq!(open_task(&ring(), &token, "public", "github"), None);
    assert_eq!(open_task(&ring(), &token, "key:ci", "githu"), None);
    assert_eq!(open_task(&Keyring::new(vec![[3; 32]]).unwrap(), &token, "key:ci", "github"), None);
    assert_eq!(opened(&task().upstream_id), None);
    assert_eq!(opened(""), None);
}

#[test]
fn a_task_is_no_session_and_a_session_no_task() {
    for kind in [Kind::Streamable, Kind::Sse, Kind::Pair] {
        assert_eq!(open(&ring(), kind, &token_of(&task()), "key:ci", "github", 0), None);
        let session = Session { upstream_id: "/m".into(), ..session() };
        assert_eq!(opened(&seal(&ring(), kind, &session, [9; 24]).unwrap()), None);
    }
}

#[test]
fn a_token_outlives_the_key_that_sealed_it_as_long_as_the_ring_holds_it() {
    let key = |seed: u8| std::array::from_fn(|i| seed.wrapping_add(i as u8));
    let rotated = Keyring::new(vec![key(9), key(0)]).unwrap();
    let token = token_of(&task());
    assert_eq!(open_task(&rotated, &token, "key:ci", "github"), Some(task()));
    assert_ne!(seal_task(&rotated, &task()).unwrap(), token);
}

#[test]
fn a_changed_task_token_opens_for_nobody() {
    let token = token_of(&task());
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut changed = 0;
    while changed < 10_000 {
        let forged = random.forge(&token);
        if forged != token {
            changed += 1;
            assert_eq!(opened(&forged), None, "{forged}");
        }
    }
    for length in 0..token.len() {
        assert_eq!(opened(&token[..length]), None, "length {length}");
    }
    for more in ["A", "AAAA", "=", " ", "\n", "\0"] {
        assert_eq!(opened(&format!("{token}{more}")), None, "{more:?}");
    }
}

#[test]
fn a_task_with_any_bit_of_its_sealed_text_flipped_opens_for_nobody() {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let sealed = URL_SAFE_NO_PAD.decode(token_of(&task())).unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut forged = sealed.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(opened(&URL_SAFE_NO_PAD.encode(forged)), None, "bit {bit}");
    }
}

#[test]
fn the_texts_of_a_task_have_limits_and_its_token_is_within_them() {
    let longest = Task {
        server: "s".repeat(NAME_BYTES_MAX).into(),
        endpoint: u64::MAX,
        upstream_id: "u".repeat(UPSTREAM_ID_BYTES_MAX),
        principal: "p".repeat(PRINCIPAL_BYTES_MAX).into(),
        tool: Some("t".repeat(TOOL_BYTES_MAX).into()),
    };
    let token = token_of(&longest);
    assert!(token.len() <= TOKEN_BYTES_MAX);
    assert_eq!(TOKEN_BYTES_MAX, TASK_ID_BYTES_MAX, "what is sealed can be sent");
    assert_eq!(open_task(&ring(), &token, &longest.principal, &longest.server), Some(longest.clone()));
    let more = |text: &str| format!("{text}x");
    for task in [
        Task { server: more(&longest.server).into(), ..longest.clone() },
        Task { upstream_id: more(&longest.upstream_id), ..longest.clone() },
        Task { principal: more(&longest.principal).into(), ..longest.clone() },
        Task { tool: Some("t".repeat(TOOL_BYTES_MAX + 1).into()), ..longest.clone() },
    ] {
        assert_eq!(seal_task(&ring(), &task), Err(Unsealable::TooLong));
    }
    assert_eq!(seal_task(&ring(), &Task { upstream_id: String::new(), ..task() }), Err(Unsealable::EmptyTaskId));
    assert_eq!(opened(&"A".repeat(TOKEN_BYTES_MAX + 1)), None);
}

#[test]
fn a_task_id_may_be_any_text() {
    for id in ["a", " ", "日本", "a\n\"\\\0", "..", "\u{202e}"] {
        let task = Task { upstream_id: id.into(), ..task() };
        assert_eq!(opened(&token_of(&task)), Some(task));
    }
}

#[test]
fn an_encoding_of_a_task_cut_or_extended_is_no_task() {
    let bytes = encode_task(&task());
    assert_eq!(decode_task(&bytes), Some(task()));
    for length in 0..bytes.len() {
        assert_eq!(decode_task(&bytes[..length]), None, "length {length}");
    }
    assert_eq!(decode_task(&[bytes.as_slice(), &[0]].concat()), None);
    assert_eq!(decode_task(&[&[3], &bytes[1..]].concat()), None);
    assert_eq!(decode_task(&[&[1], &bytes[1..]].concat()), None, "the older version has no tool");
    let older = Task { tool: None, ..task() };
    let bytes = encode_task(&older);
    assert_eq!((bytes[0], decode_task(&bytes)), (1, Some(older)), "what was sealed before opens");
    assert_eq!(decode_task(&[&[2], &bytes[1..]].concat()), None);
}

/// What a client of this principal gets for a server's message.
fn to_client(body: &str, asked: Option<&str>, revision: Revision, principal: &str) -> String {
    let message = Message::read_from_server(Bytes::copy_from_slice(body.as_bytes()), &Limits::for_answers()).unwrap();
    let seal_one =
        |id: &str| seal_task(&ring(), &Task { upstream_id: id.into(), principal: principal.into(), ..task() }).ok();
    spliced(&message, &tasks::seal(&message, asked, revision, seal_one).unwrap())
}

/// What the server gets for a message of the client `key:ci`.
fn to_server(body: &str, revision: Revision) -> Result<String, tasks::NotFound> {
    let message = Message::read(Bytes::copy_from_slice(body.as_bytes()), &Limits::default()).unwrap();
    let open_one = |token: &str| {
        opened(token).map(|task| Owned { id: task.upstream_id, endpoint: task.endpoint, tool: task.tool })
    };
    tasks::open(&message, revision, open_one).map(|opened| spliced(&message, &opened.splices))
}

fn spliced(message: &Message, splices: &[Splice]) -> String {
    String::from_utf8(apply(message.body(), splices).unwrap().to_vec()).unwrap()
}

/// The only text under a key, as JSON.
fn text_of(body: &str, pointer: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(body).unwrap();
    value.pointer(pointer).unwrap().to_string()
}

proptest! {
    #[test]
    fn what_was_sealed_for_the_client_is_opened_for_the_server(
        id in "[\\PC\"\\\\\n]{1,40}", more in "[ -!#-\\[\\]-~]{0,20}", is_modern: bool, space in "[ \n]{0,3}",
    ) {
        let (revision, head) = match is_modern {
            true => (Revision::V2026_07_28, r#""id":1,"method":"tools/list""#),
            false => (Revision::V2025_11_25, r#""method":"notifications/cancelled""#),
        };
        let id = json_string(&id);
        let meta = format!(r#"{{"k":"{more}","io.modelcontextprotocol/related-task":{{"taskId":{space}{id}}}}}"#);
        let body = format!(r#"{{"jsonrpc":"2.0",{head},{space}"params":{{"_meta":{meta}{space}}}}}"#);
        let sealed = to_client(&body, None, revision, "key:ci");
        prop_assert_ne!(text_of(&sealed, "/params/_meta/io.modelcontextprotocol~1related-task/taskId"), id);
        prop_assert_eq!(to_server(&sealed, revision).unwrap(), body);
    }

    #[test]
    fn the_id_in_an_answer_leads_its_owner_back_to_the_task_and_nobody_else(
        id in "[\\PC\"\\\\\n]{1,40}", more in "[ -!#-\\[\\]-~]{0,20}", is_modern: bool, space in "[ \n]{0,3}",
    ) {
        let revision = if is_modern { Revision::V2026_07_28 } else { Revision::V2025_11_25 };
        let id = json_string(&id);
        let answer = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"taskId":{space}{id},"status":"{more}"}}}}"#);
        let get = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":2,"method":"tasks/get","params":{{"taskId":{id}}}}}"#);
        let sealed = to_client(&answer, Some("tasks/get"), revision, "key:ci");
        let token = text_of(&sealed, "/result/taskId");
        prop_assert_eq!(sealed.replace(&token, &id), answer.clone());
        prop_assert_eq!(to_client(&answer, None, revision, "key:ci"), sealed);
        prop_assert_eq!(to_server(&get(&token), revision).unwrap(), get(&id));
        let foreign = text_of(&to_client(&answer, Some("tasks/get"), revision, "key:other"), "/result/taskId");
        prop_assert_eq!(to_server(&get(&foreign), revision), Err(tasks::NotFound));
    }
}
