//! Tests of the keyring.

use crate::seal::BadKey;
use crate::seal::KEYS_MAX;
use crate::seal::Keyring;
use crate::seal::KeyringError;
use crate::seal::fresh_nonce;
use crate::seal::generate_key;
use crate::seal::key_text;
use crate::seal::parse_key;

const PLAIN: &[u8] = b"what only the gateway reads";

fn ring(keys: &[u8]) -> Keyring {
    Keyring::new(keys.iter().map(|seed| std::array::from_fn(|i| seed.wrapping_add(i as u8))).collect()).unwrap()
}

#[test]
fn what_was_sealed_opens_for_its_purpose_only() {
    let sealed = ring(&[1]).seal(b"a", PLAIN, [7; 24]);
    assert_eq!(ring(&[1]).open(b"a", &sealed).as_deref(), Some(PLAIN));
    assert_eq!(ring(&[1]).open(b"b", &sealed), None);
    assert_eq!(ring(&[1]).open(b"", &sealed), None);
}

#[test]
fn the_first_key_seals_and_every_key_opens() {
    let old = ring(&[1]).seal(b"a", PLAIN, [7; 24]);
    let rotated = ring(&[2, 1]);
    assert_eq!(rotated.open(b"a", &old).as_deref(), Some(PLAIN));
    let new = rotated.seal(b"a", PLAIN, [8; 24]);
    assert_eq!(ring(&[2]).open(b"a", &new).as_deref(), Some(PLAIN));
    assert_eq!(ring(&[1]).open(b"a", &new), None);
}

#[test]
fn what_is_sealed_the_same_each_time_has_a_nonce_of_its_own_text_and_purpose() {
    let sealed = |seed: u8, purpose: &[u8], plain: &[u8]| ring(&[seed]).seal_same(purpose, plain);
    let first = sealed(1, b"a", PLAIN);
    assert_eq!(sealed(1, b"a", PLAIN), first);
    assert_eq!(ring(&[2, 1]).open(b"a", &first).as_deref(), Some(PLAIN));
    assert_eq!(ring(&[1]).open(b"b", &first), None);
    let mut nonces = std::collections::BTreeSet::from([first[5..29].to_vec()]);
    // The purpose and the text cannot run together.
    let others: [(u8, &[u8], &[u8]); 6] =
        [(2, b"a", PLAIN), (1, b"b", PLAIN), (1, b"", PLAIN), (1, b"a", b""), (1, b"ab", b"c"), (1, b"a", b"bc")];
    for (seed, purpose, plain) in others {
        assert!(nonces.insert(sealed(seed, purpose, plain)[5..29].to_vec()), "{purpose:?} {plain:?}");
    }
}

#[test]
fn a_flipped_bit_or_a_missing_byte_opens_for_nobody() {
    let ring = ring(&[1, 2]);
    let sealed = ring.seal(b"a", PLAIN, [7; 24]);
    for bit in 0..sealed.len() * 8 {
        let mut forged = sealed.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(ring.open(b"a", &forged), None, "bit {bit}");
    }
    for length in 0..sealed.len() {
        assert_eq!(ring.open(b"a", &sealed[..length]), None, "length {length}");
    }
    assert!(ring.open(b"a", &[sealed, vec![0]].concat()).is_none());
}

#[test]
fn the_layout_is_version_key_id_nonce_and_ciphertext() {
    let sealed = ring(&[1]).seal(b"a", PLAIN, [7; 24]);
    assert_eq!(sealed[0], 1);
    assert_eq!(sealed[5..29], [7; 24]);
    assert_eq!(sealed.len(), 1 + 4 + 24 + PLAIN.len() + 16);
    assert!(!sealed.windows(PLAIN.len()).any(|window| window == PLAIN));
}

#[test]
fn a_ring_holds_between_one_key_and_the_limit() {
    assert_eq!(Keyring::new(Vec::new()).unwrap_err(), KeyringError::Empty);
    assert!(Keyring::new(vec![[1; 32]; KEYS_MAX]).is_ok());
    assert_eq!(Keyring::new(vec![[1; 32]; KEYS_MAX + 1]).unwrap_err(), KeyringError::TooMany);
}

#[test]
fn a_ring_is_printed_without_its_keys() {
    assert_eq!(format!("{:?}", ring(&[1, 2])), "Keyring(2 keys)");
}

#[test]
fn a_key_is_read_in_either_alphabet_with_or_without_padding() {
    let key: [u8; 32] = std::array::from_fn(|i| 0xff ^ (i as u8));
    let standard = key_text(&key).expose().to_owned();
    assert!(standard.contains('/') && standard.ends_with('='));
    let url_safe = standard.replace('/', "_").replace('+', "-");
    for text in [&standard, &url_safe, &standard.replace('=', ""), &format!("\n {url_safe}\n")] {
        assert_eq!(parse_key(text), Ok(key), "{text}");
    }
}

#[test]
fn what_is_no_key_is_refused_without_being_shown() {
    assert_eq!(parse_key("not base64!"), Err(BadKey::NotBase64));
    assert_eq!(parse_key(""), Err(BadKey::Length(0)));
    assert_eq!(parse_key("c2hvcnQ="), Err(BadKey::Length(5)));
    assert_eq!(parse_key(&"A".repeat(43)), Err(BadKey::Placeholder));
    assert_eq!(parse_key(&"A".repeat(44)), Err(BadKey::Length(33)));
    assert!(!BadKey::Length(5).to_string().contains("c2hvcnQ"));
}

#[test]
fn keys_and_nonces_are_drawn_afresh() {
    assert_ne!(generate_key().unwrap(), generate_key().unwrap());
    assert_ne!(fresh_nonce().unwrap(), fresh_nonce().unwrap());
    assert_eq!(parse_key(key_text(&[0x5a; 32]).expose()), Err(BadKey::Placeholder));
    let key = generate_key().unwrap();
    assert_eq!(parse_key(key_text(&key).expose()), Ok(key));
}
