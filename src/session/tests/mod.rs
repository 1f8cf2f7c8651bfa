//! Tests of session tokens.

mod tasks;

use crate::seal::Keyring;
use crate::session::AGE_SECONDS_MAX;
use crate::session::Kind;
use crate::session::NAME_BYTES_MAX;
use crate::session::PRINCIPAL_BYTES_MAX;
use crate::session::SKEW_SECONDS_MAX;
use crate::session::Session;
use crate::session::TOKEN_BYTES_MAX;
use crate::session::UPSTREAM_ID_BYTES_MAX;
use crate::session::Unsealable;
use crate::session::codec::decode;
use crate::session::codec::encode;
use crate::session::open;
use crate::session::seal;

const NOW: u64 = 1_790_000_000;

fn ring() -> Keyring {
    Keyring::new(vec![std::array::from_fn(|i| i as u8)]).unwrap()
}

fn session() -> Session {
    Session {
        server: "github".into(),
        endpoint: 0x0123_4567_89ab_cdef,
        upstream_id: "9f6b-~!upstream".into(),
        principal: "key:ci".into(),
        revision: "2025-11-25".into(),
        since: NOW,
    }
}

fn token_of(session: &Session) -> String {
    seal(&ring(), Kind::Streamable, session, [9; 24]).unwrap()
}

fn opened(token: &str) -> Option<Session> {
    open(&ring(), Kind::Streamable, token, "key:ci", "github", NOW)
}

#[test]
fn a_token_opens_to_the_session_it_was_made_of() {
    let token = token_of(&session());
    assert_eq!(opened(&token), Some(session()));
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'), "{token}");
}

#[test]
fn a_token_of_another_principal_server_key_or_purpose_opens_for_nobody() {
    let token = token_of(&session());
    assert_eq!(open(&ring(), Kind::Streamable, &token, "key:c", "github", NOW), None);
    assert_eq!(open(&ring(), Kind::Streamable, &token, "public", "github", NOW), None);
    assert_eq!(open(&ring(), Kind::Streamable, &token, "key:ci", "githu", NOW), None);
    assert_eq!(open(&Keyring::new(vec![[3; 32]]).unwrap(), Kind::Streamable, &token, "key:ci", "github", NOW), None);
    let other = ring().seal(b"portcullis cursor", &encode(&session()), [9; 24]);
    assert_eq!(opened(&base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, other)), None);
}

#[test]
fn a_token_ages_from_the_beginning_of_its_session() {
    let token = token_of(&session());
    let at = |now: u64| open(&ring(), Kind::Streamable, &token, "key:ci", "github", now).is_some();
    assert!(at(NOW + AGE_SECONDS_MAX - 1));
    assert!(!at(NOW + AGE_SECONDS_MAX));
    assert!(!at(u64::MAX));
    assert!(at(NOW - SKEW_SECONDS_MAX));
    assert!(!at(NOW - SKEW_SECONDS_MAX - 1));
    assert!(!at(0));
}

#[test]
fn a_token_with_any_bit_flipped_opens_for_nobody() {
    let token = token_of(&session()).into_bytes();
    let mut readable = 0;
    for bit in 0..token.len() * 8 {
        let mut forged = token.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(forged) = String::from_utf8(forged) {
            readable += 1;
            assert_eq!(opened(&forged), None, "bit {bit}");
        }
    }
    assert!(readable > token.len() * 6);
}

#[test]
fn a_sealed_text_with_any_bit_flipped_opens_for_nobody() {
    let sealed = ring().seal(Kind::Streamable.purpose(), &encode(&session()), [9; 24]);
    for bit in 0..sealed.len() * 8 {
        let mut forged = sealed.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        let token = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, forged);
        assert_eq!(opened(&token), None, "bit {bit}");
    }
}

#[test]
fn a_token_cut_extended_or_padded_opens_for_nobody() {
    let token = token_of(&session());
    for length in 0..token.len() {
        assert_eq!(opened(&token[..length]), None, "length {length}");
    }
    for more in ["A", "AA", "AAA", "AAAA", "=", "==", " ", "\n", ".", "\0"] {
        assert_eq!(opened(&format!("{token}{more}")), None, "{more:?}");
        assert_eq!(opened(&format!("{more}{token}")), None, "{more:?}");
    }
}

#[test]
fn random_forgeries_open_for_nobody() {
    let token = token_of(&session());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..200_000_u32 {
        let forged = random.forge(&token);
        if forged != token {
            assert_eq!(opened(&forged), None, "round {round}: {forged}");
        }
    }
}

/// A seeded xorshift generator: the same forgeries in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    fn letter(&mut self) -> u8 {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        LETTERS[self.below(64)]
    }

    /// Either a random text, or the token with a few letters replaced or a stretch repeated.
    fn forge(&mut self, token: &str) -> String {
        let mut bytes = token.as_bytes().to_vec();
        match self.below(3) {
            0 => bytes = (0..self.below(300)).map(|_| self.letter()).collect(),
            1 => (0..=self.below(4)).for_each(|_| {
                let at = self.below(bytes.len());
                bytes[at] = self.letter();
            }),
            _ => {
                let (from, to, into) = (self.below(bytes.len()), self.below(bytes.len()), self.below(bytes.len()));
                let stretch = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(into..into, stretch);
            }
        }
        String::from_utf8(bytes).unwrap()
    }
}

#[test]
fn texts_over_their_limits_are_not_sealed() {
    let sealed = |change: fn(&mut Session)| {
        let mut session = session();
        change(&mut session);
        let token = seal(&ring(), Kind::Streamable, &session, [9; 24])?;
        assert!(token.len() <= TOKEN_BYTES_MAX);
        assert_eq!(open(&ring(), Kind::Streamable, &token, &session.principal, &session.server, NOW), Some(session));
        Ok(())
    };
    assert_eq!(sealed(|s| s.upstream_id = "x".repeat(UPSTREAM_ID_BYTES_MAX)), Ok(()));
    assert_eq!(sealed(|s| s.upstream_id = "x".repeat(UPSTREAM_ID_BYTES_MAX + 1)), Err(Unsealable::TooLong));
    assert_eq!(sealed(|s| s.principal = "p".repeat(PRINCIPAL_BYTES_MAX).into()), Ok(()));
    assert_eq!(sealed(|s| s.principal = "p".repeat(PRINCIPAL_BYTES_MAX + 1).into()), Err(Unsealable::TooLong));
    assert_eq!(sealed(|s| s.server = "s".repeat(NAME_BYTES_MAX).into()), Ok(()));
    assert_eq!(sealed(|s| s.server = "s".repeat(NAME_BYTES_MAX + 1).into()), Err(Unsealable::TooLong));
    assert_eq!(sealed(|s| s.revision = "r".repeat(NAME_BYTES_MAX + 1)), Err(Unsealable::TooLong));
}

#[test]
fn the_longest_token_is_within_the_limit_on_tokens() {
    let longest = Session {
        server: "s".repeat(NAME_BYTES_MAX).into(),
        endpoint: u64::MAX,
        upstream_id: "u".repeat(UPSTREAM_ID_BYTES_MAX),
        principal: "p".repeat(PRINCIPAL_BYTES_MAX).into(),
        revision: "r".repeat(NAME_BYTES_MAX),
        since: NOW,
    };
    assert!(token_of(&longest).len() <= TOKEN_BYTES_MAX);
    assert_eq!(opened(&"A".repeat(TOKEN_BYTES_MAX + 1)), None);
}

#[test]
fn an_upstream_id_is_visible_ascii() {
    for (id, visible) in
        [("!~aZ09", true), ("", false), (" ", false), ("a b", false), ("a\u{7f}", false), ("é", false), ("a\n", false)]
    {
        let sealed = seal(&ring(), Kind::Streamable, &Session { upstream_id: id.into(), ..session() }, [9; 24]);
        assert_eq!(sealed.err(), (!visible).then_some(Unsealable::NotVisibleAscii), "{id:?}");
    }
}

#[test]
fn an_encoding_cut_or_extended_is_no_session() {
    let bytes = encode(&session());
    assert_eq!(decode(&bytes), Some(session()));
    for length in 0..bytes.len() {
        assert_eq!(decode(&bytes[..length]), None, "length {length}");
    }
    assert_eq!(decode(&[bytes.as_slice(), &[0]].concat()), None);
    assert_eq!(decode(&[&[2], &bytes[1..]].concat()), None);
}

#[test]
fn a_token_of_one_kind_never_opens_as_another() {
    const KINDS: [Kind; 3] = [Kind::Streamable, Kind::Sse, Kind::Pair];
    let session = Session { upstream_id: "/message?sessionId=9f6b".into(), ..session() };
    for kind in KINDS {
        let token = seal(&ring(), kind, &session, [9; 24]).unwrap();
        for other in KINDS {
            let opened = open(&ring(), other, &token, "key:ci", "github", NOW);
            assert_eq!(opened, (other == kind).then(|| session.clone()), "{kind:?} as {other:?}");
        }
    }
}

#[test]
fn a_stream_takes_messages_at_a_path() {
    let sealed = |kind, id: &str| seal(&ring(), kind, &Session { upstream_id: id.into(), ..session() }, [9; 24]).err();
    assert_eq!(sealed(Kind::Sse, "/"), None);
    assert_eq!(sealed(Kind::Sse, &format!("/{}", "m".repeat(UPSTREAM_ID_BYTES_MAX - 1))), None);
    assert_eq!(sealed(Kind::Sse, &format!("/{}", "m".repeat(UPSTREAM_ID_BYTES_MAX))), Some(Unsealable::TooLong));
    assert_eq!(sealed(Kind::Sse, "message"), Some(Unsealable::NotAPath));
    assert_eq!(sealed(Kind::Sse, "http://10.0.0.1/message"), Some(Unsealable::NotAPath));
    assert_eq!(sealed(Kind::Sse, "/message id"), Some(Unsealable::NotVisibleAscii));
    assert_eq!(sealed(Kind::Pair, "5f0c"), None);
}
