//! What must hold for any text that comes back as a token? Checked by the fuzz targets, and by the replay of their seeds.
#![expect(clippy::expect_used, reason = "what breaks a rule is to end the run")]

use crate::seal::KEY_BYTES;
use crate::seal::Keyring;
use crate::seal::NONCE_BYTES;
use crate::session;
use crate::session::Kind;
use crate::session::Session;
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
    let [at, flip, rest @ ..] = input else { return };
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
    let mut changed = token.clone().into_bytes();
    let at = usize::from(*at) * 7 % changed.len();
    if let Some(byte) = changed.get_mut(at) {
        *byte ^= *flip;
    }
    if let Ok(changed) = String::from_utf8(changed)
        && changed != token
    {
        assert_eq!(open(Kind::Streamable, &changed), None, "changed at {at}");
    }
}
