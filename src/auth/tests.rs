//! Tests of keys and of how they are shown.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;

use crate::auth::AuthError;
use crate::auth::CERTIFICATE_TEXT_MAX;
use crate::auth::Certificate;
use crate::auth::KEY_HEADERS_MAX;
use crate::auth::KEYS_MAX;
use crate::auth::Keys;
use crate::auth::Presented;
use crate::auth::Shown;
use crate::auth::challenge;
use crate::auth::child::CHILD_BYTES_MAX;
use crate::auth::key;
use crate::auth::key::KEY_BYTES_MAX;
use crate::config::model::ClientAuth;
use crate::config::model::Config;
use crate::config::model::Key;
use crate::config::model::KeyCertificate;
use crate::config::problem::Problems;
use crate::config::problem::Severity;
use crate::principal::Principal;

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
    Shown { headers, query, certificate: None, source: None, now: 0 }
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
    let (a, b) = (key::generate("ptc").unwrap(), key::generate("ptc").unwrap());
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
    assert!(rechecked(&ONE.replace("ptc_", "acme_mcp_")) && !rechecked(&ONE.replace('A', "+")));
    assert!(!rechecked(&ONE.replace("ptc_", "p_")) && !rechecked(&ONE.replace("ptc_", "a-b_")));
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
    let imported = key::imported_digest("abc");
    let bad = [
        "",
        "pk1_",
        "pk2_ungWv48",
        "sha256:",
        &digest[..46],
        &format!("{digest}A"),
        &digest.replace('-', "+"),
        &imported[7..],
        &imported[..70],
        &format!("{imported}0"),
        &imported.replace('a', "g"),
        ONE,
        &with_checksum(&ONE.replace("ptc_", "acme_")),
    ];
    for text in bad {
        let found = problems(&[text], &[]);
        assert_eq!(found.len(), 1, "{text}");
        assert!(found[0].0 == Severity::Error && found[0].1.starts_with("keys.k0"), "{found:?}");
        assert!(text.len() < 5 || !found[0].1.contains(text), "{found:?}");
    }
    assert_eq!(problems(&[&digest], &[]), []);
    assert_eq!(problems(&[&imported], &[]), []);
}

#[test]
fn a_digest_given_to_two_keys_is_reported() {
    let digest = key::digest("abc");
    let expected = "keys.k1.digest: keys `k0` and `k1` have the same digest".to_owned();
    assert_eq!(problems(&[&digest, &digest], &[]), [(Severity::Error, expected.clone())]);
    let same = key::imported_digest("abc").to_uppercase().replace("SHA256", "sha256");
    assert_eq!(problems(&[&digest, &same], &[]), [(Severity::Error, expected)], "in whichever form it is written");
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
        let shown = Shown { source: from.parse().ok(), now, ..plain(&headers, None) };
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

#[test]
fn an_imported_key_of_any_form_is_known_by_its_digest_and_no_other() {
    let imported = "sk-9aXq3TzL0vBn7KdWc2RyHg";
    let digests = [key::digest(&with_checksum(ONE)), key::imported_digest(imported)];
    assert_eq!(caller_among(&digests, imported), Ok(Some("key:k1".to_owned())));
    assert_eq!(caller_among(&digests, &with_checksum(ONE)), Ok(Some("key:k0".to_owned())));
    for other in [&imported[1..], "sk-9aXq3TzL0vBn7KdWc2RyHG", &with_checksum(TWO), &ONE.replace("A", "B")] {
        assert_eq!(caller_among(&digests, other), Err(AuthError::Unknown), "{other}");
    }
    // The digest of a key of ours in the form of the others finds it; a mistyped key stays one.
    assert_eq!(
        caller_among(&[key::imported_digest(&with_checksum(ONE))], &with_checksum(ONE)),
        Ok(Some("key:k0".into()))
    );
    let odd = key::digest("neither form");
    assert_eq!(caller_among(&[odd, digests[1].clone()], "neither"), Err(AuthError::Unknown));
}

#[test]
fn a_digest_of_ours_is_no_way_in_for_a_key_of_another_form() {
    let digests = [key::digest("abcdefghijk"), key::imported_digest("sk-9aXq3TzL0vBn7KdWc2RyHg")];
    assert_eq!(caller_among(&digests, "abcdefghijk"), Err(AuthError::Unknown));
}

/// Keys of one configuration.
fn compiled(config: &Config) -> (Keys, Vec<String>) {
    let mut problems = Problems::new();
    let keys = Keys::compile(config, &mut problems);
    (keys, problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect())
}

#[test]
fn an_imported_key_with_a_dot_is_a_key_and_what_nobody_has_a_token() {
    let mut config = Config::default();
    let dotted = "SG.9aXq3TzL0vBn7KdWc2RyHg.zzT4";
    config.keys.insert("k".into(), Key { digest: key::imported_digest(dotted), ..Key::default() });
    let (keys, _) = compiled(&config);
    for (value, expected) in [(dotted, "key:k"), ("SG.other.key", "token:SG.other.key")] {
        let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, format!("Bearer {value}").parse().unwrap())]);
        assert_eq!(
            keys.authenticate(plain(&headers, None)).map(|shown| shown.map(named)),
            Ok(Some(expected.to_owned()))
        );
    }
}

#[test]
fn new_keys_begin_as_configured_and_old_ones_stay_valid() {
    let (old, new) = (with_checksum(ONE), key::generate("acme_mcp").unwrap());
    assert!(new.key.expose().starts_with("acme_mcp_") && new.key.expose().len() == 67);
    let mut config = Config::default();
    config.auth.key_prefix = "acme_mcp".into();
    config.keys.insert("old".into(), Key { digest: key::digest(&old), ..Key::default() });
    config.keys.insert("new".into(), Key { digest: new.digest.clone(), ..Key::default() });
    let (keys, problems) = compiled(&config);
    assert!(problems.is_empty(), "{problems:?}");
    for (text, name) in [(old.as_str(), "key:old"), (new.key.expose(), "key:new")] {
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-api-key"), text.parse().unwrap())]);
        assert_eq!(keys.authenticate(plain(&headers, None)).map(|shown| shown.map(named)), Ok(Some(name.to_owned())));
        let query = format!("q={text}");
        assert_eq!(keys.authenticate(plain(&HeaderMap::new(), Some(&query))), Err(AuthError::InQuery));
    }
    assert_eq!(keys.authenticate(plain(&HeaderMap::new(), Some("q=acme_mcp_x"))), Err(AuthError::InQuery));
    for bad in
        ["", "a", "1ab", "a-b", "ab_", "pk1", "ptc_m", "ptc_m_x", "a b", "größe", &"a".repeat(key::PREFIX_MAX + 1)]
    {
        config.auth.key_prefix = bad.into();
        assert_eq!(compiled(&config).1.len(), 1, "{bad}");
    }
    config.auth.key_prefix = "a".repeat(key::PREFIX_MAX);
    assert!(compiled(&config).1.is_empty());
}

/// Keys known by certificates: `ci` by a URI, `web` by a host, `mail` by an address, `old` by its subject, `one` by its digest;
/// `bound` is the key ONE with the certificate of `ci`.
fn certified() -> Config {
    let mut config = Config::default();
    config.listen.tls.client_auth = ClientAuth::Request;
    let marks = [
        ("ci", KeyCertificate { uri: Some("spiffe://example.com/ci".into()), ..KeyCertificate::default() }),
        ("web", KeyCertificate { dns: Some("Web.Example".into()), ..KeyCertificate::default() }),
        ("mail", KeyCertificate { email: Some("ana@example.com".into()), ..KeyCertificate::default() }),
        ("old", KeyCertificate { subject: Some("O=Example, CN=old".into()), ..KeyCertificate::default() }),
        ("one", KeyCertificate { sha256: Some("AB:".repeat(31) + "AB"), ..KeyCertificate::default() }),
    ];
    for (name, certificate) in marks {
        config.keys.insert(name.into(), Key { certificate, ..Key::default() });
    }
    let digest = key::digest(&with_checksum(ONE));
    let bound = Key { digest, certificate: config.keys["ci"].certificate.clone(), ..Key::default() };
    config.keys.insert("bound".into(), bound);
    config
}

/// Who comes with this certificate, and the key if one is shown.
fn coming(subject: Option<&str>, names: &[&str], sha256: u8, key: Option<&str>) -> Result<Option<String>, AuthError> {
    let (keys, problems) = compiled(&certified());
    assert!(problems.is_empty(), "{problems:?}");
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        headers.insert("x-api-key", with_checksum(key).parse().unwrap());
    }
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = Certificate { subject, names: &names, sha256: &[sha256; 32], ends: 1000, is_vouched_for: true };
    let shown = Shown { certificate: Some(certificate), ..plain(&headers, None) };
    let known = keys.authenticate(shown)?;
    if let Some(Presented::Key(principal)) = &known {
        assert_eq!(principal.credential(), if key.is_some() { "key" } else { "certificate" });
        assert_eq!(principal.expires, Some(1000), "streams end with the certificate");
    }
    Ok(known.map(named))
}

#[test]
fn a_certificate_stands_for_the_key_that_names_it_letter_for_letter() {
    let known = |name: &str| Ok(Some(format!("key:{name}")));
    assert_eq!(coming(None, &["uri:spiffe://example.com/ci"], 0, None), known("ci"));
    assert_eq!(coming(None, &["ip:192.0.2.1", "dns:WEB.example"], 0, None), known("web"));
    assert_eq!(coming(None, &["email:ana@example.com"], 0, None), known("mail"));
    assert_eq!(coming(Some("O=Example, CN=old"), &[], 0, None), known("old"));
    assert_eq!(coming(None, &[], 0xab, None), known("one"));
    for names in [
        &["uri:spiffe://example.com/CI"][..],
        &["uri:spiffe://example.com/ci/"],
        &["dns:spiffe://example.com/ci"],
        &["dns:a.web.example"],
        &["dns:*.example"],
        &["uri:ana@example.com"],
        &[],
    ] {
        assert_eq!(coming(Some("CN=old"), names, 0, None), Ok(None), "{names:?}");
    }
    assert_eq!(
        coming(None, &["dns:web.example", "uri:spiffe://example.com/ci"], 0, None),
        Err(AuthError::CertificateAmbiguous)
    );
    assert_eq!(coming(None, &["dns:web.example"], 0xab, None), Err(AuthError::CertificateAmbiguous));
}

#[test]
fn a_key_bound_to_a_certificate_needs_both_and_a_shown_key_wins() {
    let known = Ok(Some("key:bound".to_owned()));
    assert_eq!(coming(None, &["uri:spiffe://example.com/ci"], 0, Some(ONE)), known);
    assert_eq!(coming(None, &["dns:web.example"], 0, Some(ONE)), Err(AuthError::Certificate));
    assert_eq!(coming(None, &["dns:web.example"], 0, Some(TWO)), Err(AuthError::Unknown));
    let (keys, _) = compiled(&certified());
    let headers = HeaderMap::from_iter([(HeaderName::from_static("x-api-key"), with_checksum(ONE).parse().unwrap())]);
    assert_eq!(keys.authenticate(plain(&headers, None)), Err(AuthError::Certificate));
    assert_eq!(keys.check_terms("ci", None, 0), Ok(()));
}

#[test]
fn a_certificate_that_has_ended_is_good_for_nothing_and_terms_hold() {
    let mut config = certified();
    let names = ["uri:spiffe://example.com/ci".to_owned()];
    let coming = |config: &Config, now: u64| {
        let certificate =
            Certificate { subject: None, names: &names, sha256: &[0; 32], ends: 1000, is_vouched_for: true };
        let (keys, headers) = (compiled(config).0, HeaderMap::new());
        keys.authenticate(Shown { certificate: Some(certificate), now, ..plain(&headers, None) })
            .map(|known| known.is_some())
    };
    assert_eq!(coming(&config, 999), Ok(true));
    assert_eq!(coming(&config, 1000), Err(AuthError::CertificateExpired));
    config.keys.get_mut("ci").unwrap().expires = Some("1970-01-01T00:00:10Z".into());
    assert_eq!((coming(&config, 9), coming(&config, 10)), (Ok(true), Err(AuthError::Expired)));
    config.keys.get_mut("ci").unwrap().disabled = true;
    assert_eq!(coming(&config, 9), Err(AuthError::Disabled));
}

#[test]
fn what_is_wrong_with_certificates_of_keys_is_told() {
    let found = |change: fn(&mut Config)| {
        let mut config = certified();
        change(&mut config);
        compiled(&config).1
    };
    let same = found(|config| {
        let certificate = config.keys["ci"].certificate.clone();
        config.keys.insert("zz".into(), Key { certificate, ..Key::default() });
    });
    assert_eq!(same, ["keys.zz.certificate: keys `ci` and `zz` have the same certificate"]);
    let unverified = found(|config| {
        config.keys.retain(|name, _| name == "ci");
        config.listen.tls.client_auth = ClientAuth::None;
    });
    assert_eq!(unverified, ["keys.ci.certificate: nothing verifies certificates of clients"]);
    let two = found(|config| config.keys.get_mut("ci").unwrap().certificate.dns = Some("a.example".into()));
    assert_eq!(two, ["keys.ci.certificate: a key has one certificate, known by one thing"]);
    let long = "x".repeat(CERTIFICATE_TEXT_MAX + 1);
    let text = |kind: &str, text: &str| {
        let mut config = Config::default();
        config.listen.tls.client_auth = ClientAuth::Require;
        let text = Some(text.to_owned());
        let certificate = match kind {
            "uri" => KeyCertificate { uri: text, ..KeyCertificate::default() },
            "dns" => KeyCertificate { dns: text, ..KeyCertificate::default() },
            "email" => KeyCertificate { email: text, ..KeyCertificate::default() },
            "subject" => KeyCertificate { subject: text, ..KeyCertificate::default() },
            _ => KeyCertificate { sha256: text, ..KeyCertificate::default() },
        };
        config.keys.insert("k".into(), Key { certificate, ..Key::default() });
        compiled(&config).1.len()
    };
    for (kind, bad) in [
        ("uri", "no uri"),
        ("uri", "spiffe"),
        ("uri", ""),
        ("dns", "*.example"),
        ("dns", "a b"),
        ("email", "ana"),
        ("subject", "CN=cut…"),
        ("subject", " CN=x"),
        ("subject", &long),
        ("sha256", "abcd"),
        ("sha256", &"g".repeat(64)),
    ] {
        assert_eq!(text(kind, bad), 1, "{kind} {bad}");
    }
    assert_eq!(text("subject", &long[1..]), 0);
    assert_eq!(text("dns", "xn--bcher-kva.example"), 0);
}

#[test]
fn whoever_was_let_in_is_upheld_as_long_as_the_same_would_let_it_in() {
    let names = ["uri:spiffe://example.com/ci".to_owned()];
    let ends = |ends: u64| Certificate { subject: None, names: &names, sha256: &[0; 32], ends, is_vouched_for: true };
    let headers = HeaderMap::from_iter([(HeaderName::from_static("x-api-key"), with_checksum(ONE).parse().unwrap())]);
    let come = |config: &Config, headers: &HeaderMap| {
        let shown = Shown { certificate: Some(ends(1000)), ..plain(headers, None) };
        match compiled(config).0.authenticate(shown).unwrap() {
            Some(Presented::Key(principal)) => principal,
            other => panic!("{other:?}"),
        }
    };
    let (bound, ci) = (come(&certified(), &headers), come(&certified(), &HeaderMap::new()));
    let mut unbound = certified();
    unbound.keys.get_mut("bound").unwrap().certificate = KeyCertificate::default();
    let plain = come(&unbound, &headers);
    let upheld = |principal: &Principal, certificate, change: fn(&mut Config)| {
        let mut config = certified();
        change(&mut config);
        compiled(&config).0.uphold(principal, certificate, None, 5)
    };
    for principal in [&bound, &ci, &plain] {
        assert_eq!(upheld(principal, Some(ends(1000)), |_| {}), Ok(Some(1000)));
        assert_eq!(upheld(principal, None, |_| {}), Err(AuthError::Certificate));
        assert_eq!(upheld(principal, Some(ends(5)), |_| {}), Err(AuthError::CertificateExpired));
    }
    let expires = |config: &mut Config, at: &str| {
        for name in ["bound", "ci"] {
            config.keys.get_mut(name).unwrap().expires = Some(at.into());
        }
    };
    for principal in [&bound, &ci] {
        let upheld = |change| upheld(principal, Some(ends(1000)), change);
        let until = |at: &str| {
            let mut config = certified();
            expires(&mut config, at);
            compiled(&config).0.uphold(principal, Some(ends(1000)), None, 5)
        };
        assert_eq!(until("1970-01-01T00:00:09Z"), Ok(Some(9)), "not as it was when the caller came");
        assert_eq!(until("1970-01-01T00:00:05Z"), Err(AuthError::Expired));
        assert_eq!(upheld(|config| config.keys.retain(|name, _| name == "web")), Err(AuthError::Unknown));
        assert!(upheld(|config| config.keys.values_mut().for_each(|key| key.disabled = true)).is_err());
    }
    let rotated = |config: &mut Config| config.keys.get_mut("bound").unwrap().digest = key::digest(&with_checksum(TWO));
    assert_eq!(upheld(&bound, Some(ends(1000)), rotated), Err(AuthError::Unknown));
    let uncertified =
        |config: &mut Config| config.keys.get_mut("bound").unwrap().certificate = KeyCertificate::default();
    assert_eq!(upheld(&bound, None, uncertified), Ok(None), "it needs none any more");
    let moved = |config: &mut Config| {
        let certificate = KeyCertificate { dns: Some("other.example".into()), ..KeyCertificate::default() };
        config.keys.get_mut("ci").unwrap().certificate = certificate;
    };
    assert_eq!(upheld(&ci, Some(ends(1000)), moved), Err(AuthError::Unknown), "the name is another certificate's");
    let given = |config: &mut Config| config.keys.get_mut("ci").unwrap().digest = key::digest(&with_checksum(TWO));
    assert_eq!(upheld(&ci, Some(ends(1000)), given), Err(AuthError::Unknown), "it wants a key as well");
}
