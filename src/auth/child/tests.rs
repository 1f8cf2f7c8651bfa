//! Tests of keys that others minted.

use std::sync::Arc;

use crate::auth::AuthError;
use crate::auth::Keys;
use crate::auth::child;
use crate::auth::child::CHILD_BYTES_MAX;
use crate::auth::key;
use crate::config::model::Children;
use crate::config::model::Config;
use crate::config::model::Key;
use crate::config::problem::Problems;
use crate::principal::Link;
use crate::principal::Minted;
use crate::principal::Principal;
use crate::principal::id_text;
use crate::seal::KEY_BYTES;
use crate::seal::Keyring;
use crate::seal::NONCE_BYTES;

const ENDS: u64 = 1_000;

/// A configuration in which `boss` may mint, two deep.
fn config() -> Config {
    let mut config = Config::default();
    let children = Children { depth_max: 2, ..Children::default() };
    let boss = Key { digest: key::digest("one"), may_mint: true, children, team: Some("t".into()), ..Key::default() };
    config.keys.insert("boss".into(), boss);
    config.keys.insert("other".into(), Key { digest: key::digest("two"), ..Key::default() });
    config
}

fn changed(change: impl FnOnce(&mut Key)) -> Keys {
    let mut config = config();
    change(config.keys.get_mut("boss").unwrap());
    keys(&config)
}

fn keys(config: &Config) -> Keys {
    let mut problems = Problems::new();
    let keys = Keys::compile(config, &mut problems);
    assert!(!problems.has_errors());
    keys
}

fn ring() -> Keyring {
    Keyring::new(vec![[7; KEY_BYTES], [8; KEY_BYTES]]).unwrap()
}

fn link(agent: &str, id: u8) -> Link {
    let tools = vec![("a".into(), vec!["get_*".into()]), ("b".into(), Vec::new())];
    Link { id: [id; 10], agent: agent.into(), servers: Some(vec!["a".into(), "b".into()]), tools }
}

fn minted(links: Vec<Link>) -> Minted {
    let binding = keys(&config()).binding("boss").unwrap();
    let parent = Principal { teams: vec!["t".into()], ..Principal::of_key("boss") };
    Minted { parent: Arc::new(parent), binding, links, expires: ENDS }
}

fn text(links: Vec<Link>) -> String {
    child::seal(&ring(), &minted(links), [1; NONCE_BYTES]).unwrap().expose().to_owned()
}

fn opened(keys: &Keys, text: &str, now: u64) -> Result<Arc<Principal>, AuthError> {
    keys.open_child(&ring(), text, None, now)
}

#[test]
fn a_child_is_its_parents_and_for_its_own_agent_and_sessions() {
    let keys = keys(&config());
    let links = vec![link("worker", 1), Link { servers: None, tools: Vec::new(), ..link("helper", 2) }];
    let child = opened(&keys, &text(links.clone()), ENDS - 1).unwrap();
    assert_eq!(&*child.id, "key:boss>helper#02020202020202020202");
    assert_eq!(
        (child.key.as_deref(), &child.teams[..], child.agent.as_deref()),
        (Some("boss"), &["t".into()][..], Some("helper"))
    );
    assert_eq!((child.expires, &**child.counted(), child.credential()), (Some(ENDS), "key:boss", "child_key"));
    let minted = child.minted.as_ref().unwrap();
    assert_eq!(minted.links, links);
    let chain = ["key:boss", "worker#01010101010101010101", "helper#02020202020202020202"];
    assert_eq!(minted.chain(), chain);
    assert_eq!(child.agents().map(|agent| &**agent).collect::<Vec<_>>(), ["worker", "helper"]);
    let sibling = opened(&keys, &text(vec![link("helper", 3)]), 0).unwrap();
    assert_ne!(sibling.id, child.id);
}

#[test]
fn no_byte_of_a_child_can_be_changed_added_or_left_out() {
    let (keys, text) = (keys(&config()), text(vec![link("worker", 1)]));
    assert!(opened(&keys, &text, 0).is_ok());
    for at in 0..text.len() {
        for byte in *b"Ax-" {
            let mut wrong = text.clone().into_bytes();
            if std::mem::replace(&mut wrong[at], byte) != byte {
                let wrong = String::from_utf8(wrong).unwrap();
                assert_eq!(opened(&keys, &wrong, 0), Err(AuthError::Unknown), "{at}");
            }
        }
        assert_eq!(opened(&keys, &text[..at], 0), Err(AuthError::Unknown), "{at}");
    }
    for wrong in [format!("{text}A"), format!("{text}="), format!(" {text}"), text.replacen("ptc_m_", "ptc_", 1)] {
        assert_eq!(opened(&keys, &wrong, 0), Err(AuthError::Unknown), "{wrong}");
    }
}

#[test]
fn what_was_sealed_otherwise_is_no_child() {
    let keys = keys(&config());
    let plain = super::codec::encode(&minted(vec![link("worker", 1)])).unwrap();
    let written = |purpose: &[u8], plain: &[u8]| {
        use base64::Engine as _;
        let sealed = ring().seal(purpose, plain, [1; NONCE_BYTES]);
        opened(&keys, &format!("ptc_m_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(sealed)), 0)
    };
    assert!(written(super::PURPOSE, &plain).is_ok());
    assert_eq!(written(b"portcullis session", &plain), Err(AuthError::Unknown));
    for cut in 0..plain.len() {
        assert_eq!(written(super::PURPOSE, &plain[..cut]), Err(AuthError::Unknown), "{cut}");
    }
    assert_eq!(written(super::PURPOSE, &[&plain[..], &[0]].concat()), Err(AuthError::Unknown));
    assert_eq!(written(super::PURPOSE, &[&[2], &plain[1..]].concat()), Err(AuthError::Unknown), "another version");
    let none = super::codec::encode(&minted(Vec::new())).unwrap();
    assert_eq!(written(super::PURPOSE, &none), Err(AuthError::Unknown), "the key itself is no child");
    let old = Keyring::new(vec![[8; KEY_BYTES]]).unwrap();
    let text = child::seal(&old, &minted(vec![link("worker", 1)]), [2; NONCE_BYTES]).unwrap();
    assert!(opened(&keys, text.expose(), 0).is_ok(), "a sealing key that is no longer the first opens");
    let other = Keyring::new(vec![[9; KEY_BYTES]]).unwrap();
    assert_eq!(keys.open_child(&other, text.expose(), None, 0), Err(AuthError::Unknown));
}

#[test]
fn a_child_ends_at_its_time() {
    let (keys, text) = (keys(&config()), text(vec![link("worker", 1)]));
    assert!(opened(&keys, &text, ENDS - 1).is_ok());
    assert_eq!(opened(&keys, &text, ENDS), Err(AuthError::Expired));
}

#[test]
fn a_child_ends_with_its_key_whatever_is_changed_about_that() {
    let text = text(vec![link("worker", 1), link("helper", 2)]);
    let with = |change: fn(&mut Key)| opened(&changed(change), &text, 0);
    assert!(with(|_| {}).is_ok());
    assert!(with(|key| key.team = None).is_ok(), "what the key may do is another matter");
    assert_eq!(with(|key| key.digest = key::digest("three")), Err(AuthError::Revoked));
    assert_eq!(with(|key| key.may_mint = false), Err(AuthError::Revoked));
    assert_eq!(with(|key| key.children.depth_max = 1), Err(AuthError::Revoked));
    assert_eq!(with(|key| key.children.agents = Some(vec!["helper".into()])), Err(AuthError::Revoked));
    assert!(with(|key| key.children.agents = Some(vec!["helper".into(), "worker".into()])).is_ok());
    // With whoever minted it, too.
    for id in [1, 2] {
        let mut config = config();
        config.keys.get_mut("boss").unwrap().children.revoked = vec![id_text(&[id; 10])];
        assert_eq!(opened(&keys(&config), &text, 0), Err(AuthError::Revoked), "{id}");
    }
    assert!(with(|key| key.children.revoked = vec![id_text(&[3; 10])]).is_ok());
    assert_eq!(with(|key| key.disabled = true), Err(AuthError::Disabled));
    assert_eq!(with(|key| key.expires = Some("1970-01-01T00:00:00Z".into())), Err(AuthError::Expired));
    let from = |address: &str| {
        let keys = changed(|key| key.allowed_sources = Some(vec!["10.0.0.0/8".into()]));
        keys.open_child(&ring(), &text, Some(address.parse().unwrap()), 0).is_ok()
    };
    assert!(from("10.1.2.3") && !from("11.1.2.3"));
    let mut config = config();
    config.keys.remove("boss");
    assert_eq!(opened(&keys(&config), &text, 0), Err(AuthError::Revoked));
}

#[test]
fn a_child_has_its_longest() {
    let named = |count: usize| {
        let servers = (0..count).map(|at| format!("server-{at:04}").into()).collect();
        child::seal(&ring(), &minted(vec![Link { servers: Some(servers), ..link("w", 1) }]), [1; NONCE_BYTES])
    };
    let most = (0..255).take_while(|count| named(*count).is_some()).last().unwrap();
    assert!(named(most).unwrap().expose().len() <= CHILD_BYTES_MAX && named(most + 1).is_none(), "{most}");
    assert!(named(64).is_some(), "as many as one minting may name");
    let keys = keys(&config());
    assert!(opened(&keys, named(most).unwrap().expose(), 0).is_ok());
    let long = format!("ptc_m_{}", "A".repeat(CHILD_BYTES_MAX));
    assert_eq!(opened(&keys, &long, 0), Err(AuthError::Unknown));
}
