//! What must hold for any text that comes back as a token? Checked by the fuzz targets, and by the replay of their seeds.
#![expect(clippy::expect_used, reason = "what breaks a rule is to end the run")]

use crate::seal::KEY_BYTES;
use crate::seal::Keyring;
use crate::seal::NONCE_BYTES;
use crate::session;
use crate::session::Kind;
use crate::session::Session;
use crate::session::Task;
use crate::session::codec;

const NOW: u64 = 1_700_000_000;

/// No text opens as a token; a sealed one opens as what it is and no longer once any of it is another; and what a key would
/// have to be stolen for, any bytes as the content of a token, is read without harm and in one way. The first two bytes choose
/// what is changed.
pub fn token(input: &[u8]) {
    let keyring = Keyring::new(vec![[7; KEY_BYTES]]).expect("one key");
    let kinds = [Kind::Streamable, Kind::Sse, Kind::Pair];
    let open = |kind, token: &str| session::open(&keyring, kind, token, "key:ci", "files", NOW);
    if let Ok(text) = std::str::from_utf8(input) {
        for kind in kinds {
            assert_eq!(open(kind, text), None, "a forged token opens");
        }
    }
    if let Some(read) = codec::decode(input) {
        assert_eq!(codec::encode(&read), input, "two contents of one meaning");
    }
    if let Some(read) = codec::decode_task(input) {
        assert_eq!(codec::encode_task(&read), input, "two contents of one meaning");
    }
    let [at, flip, rest @ ..] = input else { return };
    task(&keyring, *at, *flip, rest);
    let visible: String = rest.iter().map(|byte| char::from(b'!' + byte % 94)).collect();
    let session = Session {
        server: "files".into(),
        endpoint: 1,
        upstream_id: format!("/{visible}"),
        principal: "key:ci".into(),
        revision: "2025-06-18".into(),
        since: NOW,
    };
    let Ok(token) = session::seal(&keyring, Kind::Streamable, &session, [*at; NONCE_BYTES]) else { return };
    assert_eq!(open(Kind::Streamable, &token).as_ref(), Some(&session));
    assert_eq!(open(Kind::Sse, &token), None, "of another kind");
    assert_eq!(session::open_task(&keyring, &token, "key:ci", "files"), None, "no task");
    if let Some(changed) = changed(&token, *at, *flip) {
        assert_eq!(open(Kind::Streamable, &changed), None, "changed at {at}");
    }
}

/// A task has one token, which opens for its owner and is neither an event's nor, once changed, anybody's.
fn task(keyring: &Keyring, at: u8, flip: u8, id: &[u8]) {
    let task = Task {
        server: "files".into(),
        endpoint: 1,
        upstream_id: String::from_utf8_lossy(id).into_owned(),
        principal: "key:ci".into(),
        tool: (flip & 1 == 1).then(|| "tool".into()),
    };
    let Ok(token) = session::seal_task(keyring, &task) else { return };
    assert_eq!(session::seal_task(keyring, &task).as_ref(), Ok(&token), "two tokens of one task");
    assert_eq!(session::open_task(keyring, &token, "key:ci", "files"), Some(task));
    assert_eq!(session::open_task(keyring, &token, "key:other", "files"), None, "another's");
    assert_eq!(session::open_event(keyring, &token, "key:ci", "files"), None, "no event");
    if let Some(changed) = changed(&token, at, flip) {
        assert_eq!(session::open_task(keyring, &changed, "key:ci", "files"), None, "changed at {at}");
    }
}

/// The token with some bits of one byte turned over; `None` if that is no text, or the same.
fn changed(token: &str, at: u8, flip: u8) -> Option<String> {
    let mut bytes = token.to_owned().into_bytes();
    let at = usize::from(at) * 7 % bytes.len();
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= flip;
    }
    String::from_utf8(bytes).ok().filter(|changed| changed != token)
}
