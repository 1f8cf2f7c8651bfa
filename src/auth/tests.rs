//! Tests of keys and of how they are shown.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;

use crate::auth::AuthError;
use crate::auth::KEY_HEADERS_MAX;
use crate::auth::KEYS_MAX;
use crate::auth::Keys;
use crate::auth::Presented;
use crate::auth::Shown;
use crate::auth::challenge;
use crate::auth::child::CHILD_BYTES_MAX;
use crate::auth::key;
use crate::auth::key::KEY_BYTES_MAX;
use crate::config::model::Config;
use crate::config::model::Key;
use crate::config::problem::Problems;
use crate::config::problem::Severity;

/// Well-formed keys, made once with `generate`: tests show the same bytes in every run.
const ONE: &str = "ptc_00000000_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const TWO: &str = "ptc_00000000_BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

/// `body` with its checksum, reckoned here anew: CRC-32, in base 62, six digits.
fn with_checksum(body: &str) -> String {
    let digits: Vec<char> = ('0'..='9').chain('A'..='Z').chain('a'..='z').collect();
    let mut rest = body.bytes().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1)))
    }) ^ u32::MAX;
    let mut text = String::new();
    for _ in 0..6 {
        text.insert(0, digits[rest as usize % 62]);
        rest /= 62;
    }
    format!("{body}{text}")
}

fn keys() -> Keys {
    let mut config = Config::default();
    config.auth.key_headers = vec!["X-Team-Key".into()];
    for (name, body) in [("one", ONE), ("two", TWO)] {
        let digest = key::digest(&with_checksum(body));
        config
            .keys
            .insert(name.into(), Key { digest, team: Some("t".into()), agent: Some("a".into()), ..Key::default() });
    }
    let mut problems = Problems::new();
    let keys = Keys::compile(&config, &mut problems);
    assert_eq!(problems.iter().count(), 0);
    keys
}

/// Shown from nowhere, at the beginning of 1970.
fn plain<'s>(headers: &'s HeaderMap, query: Option<&'s str>) -> Shown<'s> {
    Shown { headers, query, source: None, now: 0 }
}

/// The caller's id, or the token that was shown.
fn named(presented: Presented<'_>) -> String {
    match presented {
        Presented::Key(principal) => principal.id.to_string(),
        Presented::Child(child) => format!("child:{child}"),
        Presented::Token(token) => format!("token:{token}"),
    }
}

/// The caller's id, with these header lines; `{1}` and `{2}` stand for the two keys, `{9}` for an unknown one.
fn shown(lines: &[(&str, &str)], query: Option<&str>) -> Result<Option<String>, AuthError> {
    let unknown = with_checksum(&ONE.replace("A", "C"));
    let fill = |text: &str| {
        text.replace("{1}", &with_checksum(ONE)).replace("{2}", &with_checksum(TWO)).replace("{9}", &unknown)
    };
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let value = HeaderValue::from_bytes(fill(value).as_bytes()).unwrap();
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
    }
    let keys = keys();
    Ok(keys.authenticate(plain(&headers, query.map(fill).as_deref()))?.map(named))
}

#[test]
fn a_new_key_is_well_formed_unlike_any_other_and_kept_as_its_digest() {
    let (a, b) = (key::generate().unwrap(), key::generate().unwrap());
    let text = a.key.expose();
    assert_ne!(text, b.key.expose());
    assert_eq!((text.len(), key::public_id(text)), (62, Some(a.id.as_str())));
    assert_eq!(with_checksum(&text[..56]), text);
    assert_eq!(a.digest, key::digest(text));
    assert!(a.digest.starts_with("pk1_") && a.digest.len() == 47 && !a.digest.contains(&text[13..56]));
    assert!(!format!("{a:?}").contains(&text[13..56]));
}

#[test]
fn a_mistyped_key_has_no_id() {
    let right = with_checksum(ONE);
    assert_eq!(key::public_id(&right), Some("00000000"));
    for at in 0..right.len() {
        let mut wrong = right.clone().into_bytes();
        wrong[at] = if wrong[at] == b'x' { b'y' } else { b'x' };
        assert_eq!(key::public_id(std::str::from_utf8(&wrong).unwrap()), None, "{at}");
    }
    for wrong in ["", "ptc_", &right[1..], &right[..61], &format!("{right}0"), &right.to_uppercase()] {
        assert_eq!(key::public_id(wrong), None, "{wrong}");
    }
    let rechecked = |body: &str| key::public_id(&with_checksum(body)).is_some();
    assert!(rechecked(ONE));
    assert!(!rechecked(&ONE.replace("ptc_", "ptd_")) && !rechecked(&ONE.replace('A', "+")));
    assert!(!rechecked(&ONE.replace("0_", "0-")) && !rechecked(&ONE.replacen('0', "Z", 1)));
    assert!(!rechecked(&format!("{}é", &ONE[..54])));
}

#[test]
fn the_digest_is_the_sha_256_of_the_whole_key() {
    // Of the text `abc`, as FIPS 180-2 prints it.
    assert_eq!(key::digest("abc"), "pk1_ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
}

#[test]
fn a_key_is_accepted_in_each_of_its_headers() {
    let one = Ok(Some("key:one".to_owned()));
    assert_eq!(shown(&[("authorization", "Bearer {1}")], None), one);
    assert_eq!(shown(&[("Authorization", "bEARER   {1} ")], None), one);
    assert_eq!(shown(&[("x-api-key", "{1}")], None), one);
    assert_eq!(shown(&[("API-Key", " {1}\t")], None), one);
    assert_eq!(shown(&[("x-team-key", "{1}")], Some("sessionId=abc&cursor=ptc")), one);
    assert_eq!(shown(&[("x-other-key", "{1}")], None), Ok(None));
    assert_eq!(shown(&[], None), Ok(None));
    assert_eq!(shown(&[("x-api-key", "{2}")], None), Ok(Some("key:two".to_owned())));
}

#[test]
fn a_caller_is_its_key_with_the_keys_team_and_agent() {
    let mut headers = HeaderMap::new();
    headers.insert("api-key", with_checksum(ONE).parse().unwrap());
    let keys = keys();
    let Ok(Some(Presented::Key(principal))) = keys.authenticate(plain(&headers, None)) else {
        panic!("no key is seen")
    };
    assert_eq!((&*principal.id, principal.key.as_deref()), ("key:one", Some("one")));
    assert_eq!((&principal.teams[..], principal.agent.as_deref()), (&["t".into()][..], Some("a")));
}

#[test]
fn one_key_shown_twice_is_one_key_and_two_are_a_conflict() {
    let one = Ok(Some("key:one".to_owned()));
    assert_eq!(shown(&[("authorization", "Bearer {1}"), ("x-api-key", "{1}"), ("x-api-key", "{1}")], None), one);
    for lines in [
        [("authorization", "Bearer {1}"), ("x-api-key", "{2}")],
        [("authorization", "Bearer {1}"), ("authorization", "Bearer {2}")],
        [("x-api-key", "{1}"), ("x-api-key", "{9}")],
        [("x-team-key", "{9}"), ("api-key", "{1}")],
    ] {
        assert_eq!(shown(&lines, None), Err(AuthError::Conflicting), "{lines:?}");
    }
}

#[test]
fn what_cannot_be_read_is_malformed_even_beside_a_right_key() {
    let bad = [
        ("authorization", "Basic dXNlcjpwYXNz"),
        ("authorization", "{1}"),
        ("authorization", "Bearer"),
        ("authorization", "Bearer "),
        ("authorization", "Bearer {1} {1}"),
        ("authorization", "Bearer {1},Bearer {2}"),
        ("authorization", "Bearer\t{1}"),
        ("authorization", ""),
        ("x-api-key", ""),
        ("x-api-key", "{1}, {2}"),
        ("x-api-key", "\u{e9}"),
    ];
    for line in bad {
        assert_eq!(shown(&[line], None), Err(AuthError::Malformed), "{line:?}");
        assert_eq!(shown(&[("api-key", "{1}"), line], None), Err(AuthError::Malformed), "{line:?}");
    }
}

#[test]
fn a_key_that_no_one_has_is_unknown_however_it_is_made() {
    for value in ["{9}", "x", "ptc_", "{1}x", "eyJhbGciOiJub25lIn0.e30."] {
        assert_eq!(shown(&[("x-api-key", value)], None), Err(AuthError::Unknown), "{value}");
    }
    assert_eq!(shown(&[("x-api-key", &"x".repeat(KEY_BYTES_MAX))], None), Err(AuthError::Unknown));
    assert_eq!(shown(&[("x-api-key", &"x".repeat(KEY_BYTES_MAX + 1))], None), Err(AuthError::Malformed));
}

#[test]
fn a_minted_key_is_told_from_others_in_each_header_and_may_be_longer() {
    let long = format!("ptc_m_{}", "A".repeat(CHILD_BYTES_MAX - 6));
    for (name, scheme) in [("authorization", "Bearer "), ("x-api-key", ""), ("api-key", ""), ("x-team-key", "")] {
        let found = shown(&[(name, &format!("{scheme}{long}"))], None);
        assert_eq!(found, Ok(Some(format!("child:{long}"))), "{name}");
        assert_eq!(shown(&[(name, &format!("{scheme}{long}A"))], None), Err(AuthError::Malformed), "{name}");
    }
    assert_eq!(shown(&[("x-api-key", "ptc_m_AA"), ("api-key", "{1}")], None), Err(AuthError::Conflicting));
    assert_eq!(shown(&[], Some("q=ptc_m_AA")), Err(AuthError::InQuery));
}

/// Who shows `key` as `X-API-Key` where these digests are configured, the first for `k0`.
fn caller_among(digests: &[String], key: &str) -> Result<Option<String>, AuthError> {
    let mut config = Config::default();
    for (index, digest) in digests.iter().enumerate() {
        config.keys.insert(format!("k{index}"), Key { digest: digest.clone(), ..Key::default() });
    }
    let mut problems = Problems::new();
    let keys = Keys::compile(&config, &mut problems);
    assert!(!problems.has_errors());
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", key.parse().unwrap());
    keys.authenticate(plain(&headers, None)).map(|caller| caller.map(named))
}

#[test]
fn a_digest_is_compared_whole() {
    let one = with_checksum(ONE);
    let digest = key::digest(&one);
    // Digests are looked up by their first eight bytes, which these two share.
    let last = if digest.ends_with('A') { "E" } else { "A" };
    let near = format!("{}{last}", &digest[..46]);
    assert_eq!(caller_among(std::slice::from_ref(&near), &one), Err(AuthError::Unknown));
    assert_eq!(caller_among(&[near, digest], &one), Ok(Some("key:k1".to_owned())));
}

#[test]
fn a_key_of_another_form_is_unknown_even_where_its_digest_is_configured() {
    let mistyped = format!("{}x", &with_checksum(ONE)[..61]);
    for text in ["abc", &mistyped] {
        assert_eq!(caller_among(&[key::digest(text)], text), Err(AuthError::Unknown), "{text}");
    }
}

#[test]
fn a_key_in_the_query_is_refused_whatever_the_headers_say() {
    let refused = [
        "key={1}",
        "api_key=x",
        "apikey=",
        "x-api-key=x",
        "token=x",
        "access_token=x",
        "API_KEY=x",
        "a=1&Token=x",
        "a=1;token=x",
        "x-team-key=x",
        "anything={1}",
        "anything=%70tc_x",
        "a=b&q=Bearer%20{1}",
        "q=+{1}",
        "{1}",
        "%74oken=x",
        "authorization=Bearer+x",
        "token",
    ];
    for query in refused {
        assert_eq!(shown(&[("x-api-key", "{1}")], Some(query)), Err(AuthError::InQuery), "{query}");
        assert_eq!(shown(&[], Some(query)), Err(AuthError::InQuery), "{query}");
    }
    for query in ["", "sessionId=x", "keys=1", "monkey=1", "tokens=3", "q=my+ptc_", "q=%zz%", "&&==", "a=%70t"] {
        assert_eq!(shown(&[], Some(query)), Ok(None), "{query}");
    }
}

/// What is reported about a configuration of these digests and key headers.
fn problems(digests: &[&str], key_headers: &[&str]) -> Vec<(Severity, String)> {
    let mut config = Config::default();
    config.auth.key_headers = key_headers.iter().map(|name| (*name).to_owned()).collect();
    for (index, digest) in digests.iter().enumerate() {
        config.keys.insert(format!("k{index}"), Key { digest: (*digest).to_owned(), ..Key::default() });
    }
    let mut problems = Problems::new();
    Keys::compile(&config, &mut problems);
    problems.iter().map(|problem| (problem.severity, format!("{}: {}", problem.at, problem.message))).collect()
}

#[test]
fn a_digest_that_is_none_is_reported_at_its_key_and_not_repeated() {
    let digest = key::digest("abc");
    let bad = ["", "pk1_", "pk2_ungWv48", &digest[..46], &format!("{digest}A"), &digest.replace('-', "+"), ONE];
    for text in bad {
        let found = problems(&[text], &[]);
        assert_eq!(found.len(), 1, "{text}");
        assert!(found[0].0 == Severity::Error && found[0].1.starts_with("keys.k0"), "{found:?}");
        assert!(text.len() < 5 || !found[0].1.contains(text), "{found:?}");
    }
    assert_eq!(problems(&[&digest], &[]), []);
}

#[test]
fn a_digest_given_to_two_keys_is_reported() {
    let digest = key::digest("abc");
    let expected = "keys.k1.digest: keys `k0` and `k1` have the same digest".to_owned();
    assert_eq!(problems(&[&digest, &digest], &[]), [(Severity::Error, expected)]);
}

#[test]
fn a_header_that_means_something_else_carries_no_key() {
    let bad = [
        "Host",
        "Content-Type",
        "content-length",
        "Mcp-Session-Id",
        "Cookie",
        "Connection",
        "TE",
        "Transfer-Encoding",
        "Upgrade",
        "Keep-Alive",
        "Proxy-Authorization",
        "Trailer",
        "Origin",
        "Accept",
        "Authorization",
        "X-Forwarded-For",
        "",
        "a b",
        "x:y",
        "é",
    ];
    for name in bad {
        let found = problems(&[], &[name]);
        assert!(
            matches!(found.as_slice(), [(Severity::Error, at)] if at.starts_with("auth.key_headers[0]: ")),
            "{name}"
        );
    }
    assert_eq!(problems(&[], &["X-Team-Key", "Ocp-Apim-Subscription-Key"]), []);
    assert_eq!(problems(&[], &["X-Team-Key", "x-team-key", "x-api-key"]).len(), 2);
}

#[test]
fn keys_and_key_headers_have_limits() {
    let headers = |count: usize| {
        let names: Vec<String> = (0..count).map(|i| format!("x-key-{i}")).collect();
        problems(&[], &names.iter().map(String::as_str).collect::<Vec<_>>()).len()
    };
    assert_eq!((headers(KEY_HEADERS_MAX), headers(KEY_HEADERS_MAX + 1)), (0, 1));
    let keys = |count: usize| {
        let digests: Vec<String> = (0..count).map(|i| key::digest(&i.to_string())).collect();
        problems(&digests.iter().map(String::as_str).collect::<Vec<_>>(), &[]).len()
    };
    assert_eq!((keys(KEYS_MAX), keys(KEYS_MAX + 1)), (0, 1));
}

#[test]
fn credential_headers_are_all_that_may_carry_one() {
    let keys = keys();
    let names: Vec<&str> = keys.credential_headers().iter().map(HeaderName::as_str).collect();
    assert_eq!(names, ["authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-team-key"]);
}

#[test]
fn a_challenge_asks_for_a_bearer_token_and_is_a_header_value() {
    assert_eq!(challenge(None), r#"Bearer realm="portcullis""#);
    let errors = [AuthError::Malformed, AuthError::Unknown, AuthError::Conflicting, AuthError::InQuery];
    for error in errors {
        let value = challenge(Some(error));
        assert!(
            value.starts_with(r#"Bearer realm="portcullis", error="invalid_"#) && HeaderValue::from_str(value).is_ok()
        );
    }
    assert!(challenge(Some(AuthError::Unknown)).contains("invalid_token"));
    assert_eq!(errors.map(AuthError::name), ["key_malformed", "key_unknown", "keys_conflicting", "key_in_query"]);
}

#[test]
fn a_key_is_used_within_its_terms_only() {
    let mut config = Config::default();
    config.keys.insert(
        "k".into(),
        Key {
            digest: key::digest(&with_checksum(ONE)),
            expires: Some("2027-01-31T00:00:00Z".into()),
            allowed_sources: Some(vec!["10.0.0.0/8".into(), "2001:db8::7".into()]),
            ..Key::default()
        },
    );
    let (at_the_end, here) = (1_801_353_600, "10.1.2.3");
    let shown = |config: &Config, from: &str, now: u64| {
        let mut problems = Problems::new();
        let keys = Keys::compile(config, &mut problems);
        assert!(!problems.has_errors());
        let headers =
            HeaderMap::from_iter([(HeaderName::from_static("x-api-key"), with_checksum(ONE).parse().unwrap())]);
        let shown = Shown { headers: &headers, query: None, source: from.parse().ok(), now };
        keys.authenticate(shown).map(|caller| caller.is_some())
    };
    assert_eq!(shown(&config, here, at_the_end - 1), Ok(true));
    assert_eq!(shown(&config, "2001:db8::7", 0), Ok(true));
    assert_eq!(shown(&config, here, at_the_end), Err(AuthError::Expired));
    for elsewhere in ["11.0.0.1", "2001:db8::8", "unknown"] {
        assert_eq!(shown(&config, elsewhere, 0), Err(AuthError::Source), "{elsewhere}");
    }
    config.keys.get_mut("k").unwrap().disabled = true;
    assert_eq!(shown(&config, here, 0), Err(AuthError::Disabled));
}
