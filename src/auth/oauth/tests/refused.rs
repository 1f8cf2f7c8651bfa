//! Tokens that are not taken, each for its reason. Those in the tables are well signed: only what the row says is wrong.
#![allow(clippy::too_many_lines, reason = "a table of vectors is read row by row")]

use std::collections::BTreeMap;

use base64::Engine;
use ring::hmac;

use super::*;
use TokenError as E;

/// Headers, with good claims and a signature of the key for ES256.
const HEADERS: &[(E, &str, &[&str])] = &[
    (
        E::Algorithm,
        r#"{"alg":@,"kid":"es"}"#,
        &[
            r#""none""#,
            r#""None""#,
            r#""NONE""#,
            r#""nOnE""#,
            r#""""#,
            "null",
            "1",
            "true",
            r#"["ES256"]"#,
            "{}",
            r#"" ES256""#,
            r#""ES256 ""#,
            r#""es256""#,
            r#""ES256\u0000""#,
            r#""HS256""#,
            r#""HS384""#,
            r#""HS512""#,
            r#""RS1""#,
            r#""ES256K""#,
            r#""ES512""#,
            r#""Ed448""#,
            r#""dir""#,
            r#""RSA-OAEP""#,
            r#""A128KW""#,
            // Another key's algorithm: a key is for what its kind is for.
            r#""RS256""#,
            r#""PS256""#,
            r#""ES384""#,
            r#""EdDSA""#,
        ],
    ),
    (
        E::Algorithm,
        "@",
        &[
            r#"{}"#,
            r#"{"kid":"es"}"#,
            r#"{"Alg":"ES256"}"#,
            r#"{"alg":"PS256","kid":"rsa256"}"#,
            r#"{"alg":"RS512","kid":"rsa256"}"#,
            r#"{"alg":"ES256","kid":"rsa"}"#,
            r#"{"alg":"ES256","kid":"ed"}"#,
        ],
    ),
    (
        E::Header,
        r#"{"alg":"ES256","kid":"es",@}"#,
        &[
            r#""crit":["exp"]"#,
            r#""crit":[]"#,
            r#""crit":null"#,
            r#""crit":["b64"],"b64":false"#,
            r#""b64":false"#,
            r#""b64":true"#,
            r#""jwk":{"kty":"EC"}"#,
            r#""jku":"https://evil.example/keys""#,
            r#""x5u":"https://evil.example""#,
            r#""x5c":["MII"]"#,
            r#""enc":"A128GCM""#,
            r#""zip":"DEF""#,
            r#""cty":"JWT""#,
            r#""epk":{}"#,
            r#""CRIT":["x"]"#,
            r#""Jku":"https://evil.example""#,
            r#""j\u0077k":{}"#,
            r#""apu":"x""#,
        ],
    ),
    (E::Header, r#"{"alg":"ES256","kid":@}"#, &["null", "1", "true", r#""""#, "[]", r#"["es"]"#, r#"{"$ne":1}"#]),
    (
        E::Kind,
        r#"{"alg":"ES256","kid":"es","typ":@}"#,
        &[
            r#""logout+jwt""#,
            r#""dpop+jwt""#,
            r#""kb+jwt""#,
            r#""JOSE""#,
            r#""secevent+jwt""#,
            r#""""#,
            "null",
            "1",
            r#"["JWT"]"#,
        ],
    ),
    (
        E::KeyUnknown,
        r#"{"alg":"ES256","kid":"@"}"#,
        &[
            "other",
            "ES",
            "es ",
            " es",
            "../../../../../../dev/null",
            "/etc/passwd",
            "file:///etc/passwd",
            "' OR 1=1 --",
            "es' UNION SELECT 'x",
            "$(id)",
            "|id",
            "es\\u0000",
            "%65s",
            "https://evil.example/key",
        ],
    ),
    (
        E::Malformed,
        "@",
        &[
            r#"{"alg":"none","alg":"ES256","kid":"es"}"#,
            r#"{"alg":"ES256","kid":"es","kid":"es"}"#,
            r#"{"alg":"ES256","\u0061lg":"none"}"#,
            r#"{"alg":"ES256"}{}"#,
            r#"{"alg":"ES256"} x"#,
            r#"["ES256"]"#,
            r#""ES256""#,
            "",
            "null",
            "{",
            r#"{'alg':'ES256'}"#,
            r#"{"alg":"ES256",}"#,
            r#"{/**/"alg":"ES256"}"#,
            r#" {"alg":"ES256"#,
            r#"{"alg":"ES256","kid":"\ud800"}"#,
            "\u{feff}{\"alg\":\"ES256\"}",
        ],
    ),
];

/// Claims that replace good ones, or as a whole, with a good header. `null` leaves one out.
const CLAIMS: &[(E, &str, &[&str])] = &[
    (
        E::Issuer,
        r#"{"iss":@}"#,
        &[
            "null",
            "1",
            "true",
            r#"["https://idp.example"]"#,
            "{}",
            r#""""#,
            r#""https://idp.example/""#,
            r#""https://IDP.example""#,
            r#""http://idp.example""#,
            r#""https://idp.example.evil.example""#,
            r#""https://idp.example ""#,
            r#""https://idp.example:443""#,
            r#""https://idp.exampl""#,
            r#""idp""#,
            r#""https://gw.example""#,
        ],
    ),
    (
        E::Audience,
        r#"{"aud":@}"#,
        &[
            "null",
            r#""""#,
            "[]",
            r#""https://gw.example/mcp/other""#,
            r#""https://gw.example/mcp/nothing""#,
            r#""https://gw.example/mcp/files/""#,
            r#""https://gw.example//mcp/files""#,
            r#""https://gw.example/mcp/files?x""#,
            r#""https://gw.example/mcp/files#x""#,
            r#""https://gw.example/mcp/../mcp/files""#,
            r#""https://GW.example/mcp/files""#,
            r#""http://gw.example/mcp/files""#,
            r#""https://gw.example:443/mcp/files""#,
            r#""https://gw.example.evil/mcp/files""#,
            r#""https://gw.example@evil.example/mcp/files""#,
            r#""/mcp/files""#,
            r#""files""#,
            r#""*""#,
            r#""https://""#,
            r#"["https://gw.example/mcp/other","https://elsewhere.example"]"#,
            r#""https://gw.example/mcp/file""#,
            r#""https://gw.example/mcp/files ""#,
            r#""https://gw.example/mcp/%66iles""#,
        ],
    ),
    (
        E::Claims,
        r#"{"aud":@}"#,
        &[
            "1",
            "true",
            "{}",
            "[1]",
            r#"["https://gw.example/mcp/files",1]"#,
            r#"[["https://gw.example/mcp/files"]]"#,
            r#"{"https://gw.example/mcp/files":1}"#,
        ],
    ),
    (
        E::Claims,
        r#"{"exp":@}"#,
        &[
            "null",
            r#""1800000600""#,
            r#""""#,
            "1800000600.5",
            "1800000600.0",
            "1.8e99",
            "-1",
            "-0",
            "true",
            "[]",
            "{}",
            "[1800000600]",
            "99999999999999",
            "18446744073709551616",
            "253402300800",
        ],
    ),
    (E::Expired, r#"{"iat":null,"exp":@}"#, &["0", "1", "1700000000", "1799999900", "1799999939", "1799999940"]),
    (E::Claims, r#"{"nbf":@}"#, &[r#""1""#, "1.5", "-1", "1e3", "[]", "true", "1800000601"]),
    (E::Early, r#"{"nbf":@}"#, &["1800000061", "1800000600"]),
    (E::Claims, r#"{"iat":@}"#, &[r#""1""#, "0.5", "-5", "[]", "99999999999999", "1800000601"]),
    (E::Early, r#"{"iat":@}"#, &["1800000061", "1800000600"]),
    (E::Claims, r#"{"sub":@}"#, &["null", r#""""#, "1", "true", r#"["ann"]"#, "{}", r#""a\u0000b""#, r#""a\nb""#]),
    (E::Claims, r#"{"cnf":@}"#, &[r#"{"jkt":"x"}"#, r#"{"x5t#S256":"x"}"#, "{}", r#""x""#]),
    (E::Claims, r#"{"scope":@}"#, &["1", "true", "{}", "[1]", r#"["a",["b"]]"#, r#"[""]"#, r#""a\tb""#]),
    (E::Claims, r#"{"groups":@}"#, &["1", "{}", "[1]", r#"["a",["b"]]"#, r#"[""]"#, r#""""#, r#"["a\u0007"]"#]),
    (E::Claims, r#"{"azp":@}"#, &["1", "{}", r#"["a"]"#, r#""""#]),
];

/// Whole texts of claims.
const WHOLE: &[(E, &str)] = &[
    (E::Malformed, r#"{"iss":"https://evil.example","iss":"https://idp.example","exp":1800000600}"#),
    (E::Malformed, r#"{"iss":"https://idp.example","exp":1,"exp":1800000600}"#),
    (E::Malformed, r#"{"iss":"https://idp.example","\u0065xp":1,"exp":1800000600}"#),
    (E::Malformed, r#"{"iss":"https://idp.example","x":{"a":1,"a":2}}"#),
    (E::Malformed, r#"{"iss":"https://idp.example"} {}"#),
    (E::Malformed, r#"[{"iss":"https://idp.example"}]"#),
    (E::Malformed, r#""https://idp.example""#),
    (E::Malformed, ""),
    (E::Malformed, "{"),
    (E::Malformed, "null"),
    (E::Malformed, r#"{"iss":"https://idp.example","exp":01800000600}"#),
    (E::Malformed, r#"{"iss":"https://idp.example","exp":NaN}"#),
    (E::Malformed, r#"{"iss":"https://idp.example","exp":+1}"#),
    (E::Malformed, r#"{"iss":"https://idp.example","exp":Infinity}"#),
    (E::Malformed, r#"{"iss":"\ud83d"}"#),
    (E::Malformed, r#"{"a":[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}"#),
    (E::Issuer, "{}"),
    (E::Issuer, r#"{"Iss":"https://idp.example"}"#),
    (E::Claims, r#"{"iss":"https://idp.example"}"#),
];

/// Every vector of the tables.
fn vectors(signer: &Signer) -> Vec<(E, String, String)> {
    let filled = |rows: &[(E, &'static str, &[&'static str])]| -> Vec<(E, String)> {
        let rows = rows.iter();
        rows.flat_map(|(error, template, fills)| fills.iter().map(move |fill| (*error, template.replace('@', fill))))
            .collect()
    };
    let good = claims("{}");
    let mut all = Vec::new();
    for (error, header) in filled(HEADERS) {
        all.push((error, header.clone(), signer.token(&header, &good)));
    }
    for (error, others) in filled(CLAIMS) {
        // Numbers as they are written: put in as text, because the writer of `claims` would write them anew.
        let token = signer.token(HEADER, replaced(&others));
        all.push((error, others, token));
    }
    for (error, whole) in WHOLE {
        all.push((*error, (*whole).to_owned(), signer.token(HEADER, whole)));
    }
    all
}

/// Good claims with those of `others` put in letter for letter.
fn replaced(others: &str) -> String {
    let raw: BTreeMap<String, Box<serde_json::value::RawValue>> = serde_json::from_str(others).unwrap();
    let mut all: BTreeMap<String, Box<serde_json::value::RawValue>> = serde_json::from_str(&claims("{}")).unwrap();
    for (name, value) in raw {
        match value.get() {
            "null" => drop(all.remove(&name)),
            _ => drop(all.insert(name, value)),
        }
    }
    serde_json::to_string(&all).unwrap()
}

/// Texts that are no token, or whose signature is none.
#[allow(clippy::too_many_lines, reason = "a table is read row by row")]
fn texts(signer: &Signer) -> Vec<(E, String)> {
    let good = signer.token(HEADER, claims("{}"));
    let parts: Vec<&str> = good.split('.').collect();
    let [header, body, signature] = parts[..] else { panic!("three parts") };
    let with = |signature: &[u8]| format!("{header}.{body}.{}", encoded(signature));
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(signature).unwrap();
    let (r, s) = bytes.split_at(32);
    let zero = [0_u8; 32];
    // The order of P-256: r and s must be below it.
    let order: Vec<u8> = (0..32)
        .map(|at| {
            u8::from_str_radix(
                &"ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"[at * 2..at * 2 + 2],
                16,
            )
            .unwrap()
        })
        .collect();
    let der = [&[0x30, 0x46, 0x02, 0x21, 0x00], r, &[0x02, 0x21, 0x00], s].concat();
    // The last character of 64 bytes carries four bits that say nothing, and must be zero.
    let mut loose = signature.to_owned();
    let last = loose.pop().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    loose.push(alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap());
    let hs = |header: &str, key: &[u8]| {
        let signed = format!("{}.{body}", encoded(header.as_bytes()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
        format!("{signed}.{}", encoded(tag.as_ref()))
    };
    let other = Signer::new();
    let long = signer.token(HEADER, claims(&format!(r#"{{"x":"{}"}}"#, "x".repeat(8_000))));
    vec![
        (E::Malformed, String::new()),
        (E::Malformed, ".".into()),
        (E::Malformed, "..".into()),
        (E::Malformed, "...".into()),
        (E::Malformed, "x".into()),
        (E::Malformed, header.into()),
        (E::Malformed, format!("{header}.{body}")),
        (E::Malformed, format!("{good}.")),
        (E::Malformed, format!(".{good}")),
        (E::Malformed, format!("{good}.{signature}")),
        (E::Malformed, format!("{header}.{body}.{signature}.x.y")),
        (E::Malformed, format!("{header}..{signature}")),
        (E::Malformed, format!(".{body}.{signature}")),
        (E::Malformed, format!("{header}=.{body}.{signature}")),
        (E::Malformed, format!("{header}.{body}.{signature}==")),
        (E::Malformed, format!("{header}.{body}.{signature} ")),
        (E::Malformed, format!(" {good}")),
        (E::Malformed, format!("{header}.{body}\n.{signature}")),
        (E::Malformed, format!("{header}.{body}.{loose}")),
        (E::Malformed, format!("{header}.{body}.{}+", &signature[..85])),
        (E::Malformed, format!("{header}.{body}.{}/", &signature[..85])),
        (E::Malformed, good.replace('.', "%2e")),
        (E::Malformed, long),
        (E::Malformed, "x".repeat(100_000)),
        (E::Signature, format!("{header}.{body}.")),
        (E::Signature, with(&bytes[..63])),
        (E::Signature, with(&[bytes.as_slice(), &[0]].concat())),
        (E::Signature, with(&[0; 64])),
        (E::Signature, with(&[0xff; 64])),
        (E::Signature, with(&[&zero, s].concat())),
        (E::Signature, with(&[r, &zero].concat())),
        (E::Signature, with(&[s, r].concat())),
        (E::Signature, with(&[&order, s].concat())),
        (E::Signature, with(&[r, &order].concat())),
        (E::Signature, with(&der)),
        (E::Signature, other.token(HEADER, claims("{}"))),
        (E::Signature, format!("{header}.{}.{signature}", encoded(claims(r#"{"sub":"root"}"#).as_bytes()))),
        (E::Signature, format!("{}.{body}.{signature}", encoded(br#"{"alg":"ES256","kid":"es"}"#))),
        (E::Signature, signer.token_by("RS256", r#"{"alg":"RS384","kid":"rsa"}"#, claims("{}"))),
        (E::Signature, signer.token_by("RS256", r#"{"alg":"PS256","kid":"rsa"}"#, claims("{}"))),
        (E::Signature, signer.token_by("PS256", r#"{"alg":"RS256","kid":"rsa256"}"#, claims("{}"))),
        (E::Signature, signer.token_by("EdDSA", HEADER, claims("{}"))),
        // The public key as the secret of a symmetric algorithm.
        (E::Algorithm, hs(r#"{"alg":"HS256","kid":"rsa"}"#, signer.rsa.public().as_ref())),
        (E::Algorithm, hs(r#"{"alg":"HS256","kid":"es"}"#, signer.es256.public_key().as_ref())),
        (E::Signature, hs(r#"{"alg":"RS256","kid":"rsa"}"#, signer.rsa.public().as_ref())),
        (E::Algorithm, format!("{}.{body}.", encoded(br#"{"alg":"none"}"#))),
    ]
}

#[tokio::test]
async fn a_token_with_anything_wrong_is_refused_for_its_reason() {
    let stage = Stage::with(|issuer| {
        issuer.claims.teams = Some("groups".into());
        issuer.claims.agent = Some("azp".into());
    })
    .await;
    assert!(stage.caller("{}").await.is_ok(), "the good one is good");
    let (tables, texts) = (vectors(&stage.signer), texts(&stage.signer));
    assert!(tables.len() + texts.len() >= 120, "{}", tables.len() + texts.len());
    for (expected, what, token) in &tables {
        assert_eq!(stage.show(token, "files", 0).await.err(), Some(*expected), "{what}");
    }
    for (expected, token) in &texts {
        let shown: String = token.chars().take(200).collect();
        assert_eq!(stage.show(token, "files", 0).await.err(), Some(*expected), "{shown}");
    }
    // What was refused is not remembered, but for two that are good at another server.
    assert_eq!(stage.tokens.count(), 3);
}

#[tokio::test]
async fn lists_in_a_token_have_limits() {
    let stage = Stage::with(|issuer| issuer.claims.teams = Some("groups".into())).await;
    let list = |name: &str, count: usize| format!(r#"{{"{name}":[{}]}}"#, vec![r#""a""#; count].join(","));
    for (name, most) in [("groups", crate::auth::oauth::TEAMS_MAX), ("scope", crate::auth::oauth::SCOPES_MAX)] {
        assert!(stage.caller(&list(name, most)).await.is_ok(), "{name}");
        assert_eq!(stage.caller(&list(name, most + 1)).await.err(), Some(E::Claims), "{name}");
    }
    let audiences = |count: usize| format!(r#"{{"aud":["https://gw.example/mcp/files"{}]}}"#, r#","x""#.repeat(count));
    assert!(stage.caller(&audiences(31)).await.is_ok());
    assert_eq!(stage.caller(&audiences(32)).await.err(), Some(E::Claims));
    let subject = |bytes: usize| format!(r#"{{"sub":"{}"}}"#, "a".repeat(bytes));
    assert!(stage.caller(&subject(256)).await.is_ok());
    assert_eq!(stage.caller(&subject(257)).await.err(), Some(E::Claims));
}

#[tokio::test]
async fn only_the_algorithms_of_the_configuration_are_taken() {
    use crate::config::model::Algorithm;
    let stage = Stage::with(|issuer| issuer.algorithms = vec![Algorithm::RS256, Algorithm::EdDSA]).await;
    for (algorithm, key, expected) in [
        ("RS256", "rsa", None),
        ("EdDSA", "ed", None),
        ("PS256", "rsa", Some(E::Algorithm)),
        ("ES256", "es", Some(E::Algorithm)),
    ] {
        let token = stage.signer.token_by(algorithm, format!(r#"{{"alg":"{algorithm}","kid":"{key}"}}"#), claims("{}"));
        assert_eq!(stage.show(&token, "files", 0).await.err(), expected, "{algorithm}");
    }
}
