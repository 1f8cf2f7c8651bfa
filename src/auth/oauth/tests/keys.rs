//! Keys of issuers: when they are asked for, how long they are used, and what is none. Time is passed in.

use std::collections::HashSet;

use super::*;
use crate::auth::oauth::fetch;
use crate::auth::oauth::jwk::KeySetError;
use crate::config::model::Credentials;
use TokenError as E;

const HOUR: u64 = 3_600;

impl Stage {
    /// Lets what runs in the background run, and looks after the keys at a moment.
    async fn keep_up(&self, after: u64) {
        self.source.keep_up(&Handle::current(), self.begun + Duration::from_secs(after));
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }

    /// A token that is good at a moment, by the key of this id.
    fn at(&self, after: u64, key: &str) -> String {
        let times = format!(r#"{{"iat":{},"exp":{}}}"#, NOW + after, NOW + after + 60);
        self.signer.token(format!(r#"{{"alg":"ES256","kid":"{key}"}}"#), claims(&times))
    }
}

#[tokio::test]
async fn ten_thousand_unknown_keys_bring_about_one_fetch() {
    let stage = Stage::new().await;
    let all = (0..10_000).map(|number| stage.at(0, &format!("random-{number}"))).collect::<Vec<_>>();
    // A hundred at a time, as they would come.
    for some in all.chunks(100) {
        let shown = some.iter().map(|token| stage.show(token, "files", 0));
        let refused: HashSet<_> = futures_util::future::join_all(shown)
            .await
            .into_iter()
            .map(Result::err)
            .collect::<Vec<_>>()
            .into_iter()
            .map(|e| e.map(E::name))
            .collect();
        assert_eq!(refused, HashSet::from([Some("token_key_unknown")]));
    }
    assert_eq!(stage.desk.asked(), 1);
    for (after, asked) in [(29, 1), (30, 2), (31, 2), (59, 2), (60, 3)] {
        assert_eq!(stage.show(&stage.at(after, "another"), "files", after).await.err(), Some(E::KeyUnknown));
        assert_eq!(stage.desk.asked(), asked, "{after}");
    }
}

#[tokio::test]
async fn callers_who_come_at_the_start_wait_for_one_fetch() {
    let stage = Stage::unasked(|_| {});
    let token = stage.at(0, "es");
    let all = futures_util::future::join_all((0..100).map(|_| stage.show(&token, "files", 0))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(stage.desk.asked(), 1);
}

#[tokio::test]
async fn a_new_key_is_known_at_once_and_an_old_one_is_not_for_long() {
    let stage = Stage::new().await;
    let old = stage.at(0, "es");
    assert!(stage.show(&old, "files", 0).await.is_ok());
    let new = stage.signer.jwk("es", r#","kid":"new""#);
    stage.desk.set(Some(format!(r#"{{"keys":[{new}]}}"#)));
    assert!(stage.show(&stage.at(5, "new"), "files", 5).await.is_ok());
    // The other key went with the same fetch, and what it signed is not remembered any longer.
    assert!(!stage.recalls(&old, 5));
    assert_eq!(stage.show(&old, "files", 5).await.err(), Some(E::KeyUnknown));
    assert_eq!(stage.desk.asked(), 1);
}

#[tokio::test]
async fn the_same_keys_again_forget_no_token() {
    let stage = Stage::new().await;
    let token = stage.signer.token(HEADER, claims("{}"));
    assert!(stage.show(&token, "files", 0).await.is_ok());
    stage.keep_up(300).await;
    assert_eq!(stage.desk.asked(), 1);
    assert!(stage.recalls(&token, 300));
}

#[tokio::test]
async fn keys_are_looked_at_when_they_are_due() {
    let stage = Stage::new().await;
    for (after, asked) in [(1, 0), (299, 0), (300, 1), (301, 1), (599, 1), (600, 2)] {
        stage.keep_up(after).await;
        assert_eq!(stage.desk.asked(), asked, "{after}");
    }
}

#[tokio::test]
async fn an_outage_of_an_hour_keeps_nobody_out_and_one_of_days_everybody() {
    let stage = Stage::new().await;
    stage.desk.set(None);
    for after in (0..=HOUR).step_by(10) {
        stage.keep_up(after).await;
        if after % 60 == 0 {
            assert!(stage.show(&stage.at(after, "es"), "files", after).await.is_ok(), "{after}");
        }
    }
    let figures = stage.source.figures(stage.begun + Duration::from_secs(HOUR));
    assert_eq!((figures.keys, figures.fetched, figures.age), (5, 1, Some(Duration::from_secs(HOUR))));
    // From five minutes on, a try each half a minute.
    assert_eq!(figures.failed, 111);
    let day = 24 * HOUR;
    assert!(stage.show(&stage.at(day, "es"), "files", day).await.is_ok());
    assert_eq!(stage.show(&stage.at(day + 1, "es"), "files", day + 1).await.err(), Some(E::KeysUnavailable));
    // The issuer is back: the next token brings the keys about.
    stage.desk.set(Some(stage.signer.jwks()));
    let back = day + 60;
    assert!(stage.show(&stage.at(back, "es"), "files", back).await.is_ok());
}

#[tokio::test]
async fn a_token_that_was_remembered_is_refused_when_the_keys_are_too_old() {
    let stage = Stage::with(|issuer| issuer.stale_ms_max = 300_000).await;
    let token = stage.signer.token(HEADER, claims("{}"));
    assert!(stage.show(&token, "files", 0).await.is_ok());
    stage.desk.set(None);
    assert!(stage.recalls(&token, 300) && !stage.recalls(&token, 301));
    assert_eq!(stage.show(&token, "files", 301).await.err(), Some(E::KeysUnavailable));
}

#[tokio::test]
async fn an_issuer_that_was_never_reached_is_told_apart_from_a_wrong_token() {
    let stage = Stage::unasked(|_| {});
    stage.desk.set(None);
    assert_eq!(stage.show(&stage.at(0, "es"), "files", 0).await.err(), Some(E::KeysUnavailable));
    // A set without a key is an outage too: it must not take the last keys away.
    let stage = Stage::new().await;
    stage.desk.set(Some(r#"{"keys":[]}"#.into()));
    stage.keep_up(300).await;
    assert!(stage.show(&stage.at(300, "es"), "files", 300).await.is_ok());
}

#[tokio::test]
async fn what_is_no_key_for_signatures_is_left_out() {
    let signer = Signer::new();
    let set = |keys: &[String]| KeySet::parse(Bytes::from(format!(r#"{{"keys":[{}]}}"#, keys.join(","))));
    let good = signer.jwk("es", "");
    let weak = format!(r#"{{"kty":"RSA","e":"AQAB","n":"{}"}}"#, encoded(&[0xff; 255]));
    let long = format!(r#"{{"kty":"RSA","e":"AQAB","n":"{}"}}"#, encoded(&[0xff; 1025]));
    let padded = format!(r#"{{"kty":"RSA","e":"AQAB","n":"{}"}}"#, encoded(&[&[0][..], &[0xff; 256]].concat()));
    let exponent = |e: &str| signer.jwk("rsa", "").replace(r#""e":"AQAB""#, &format!(r#""e":"{e}""#));
    let bad = [
        r#"{"kty":"oct","k":"AAAA"}"#.to_owned(),
        r#"{"kty":"EC","crv":"P-256"}"#.into(),
        "{}".into(),
        "1".into(),
        r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#.into(),
        good.replace("P-256", "P-384"),
        good.replace("P-256", "secp256k1"),
        signer.jwk("es", r#","use":"enc""#),
        signer.jwk("es", r#","key_ops":["sign"]"#),
        signer.jwk("es", r#","d":"AAAA""#),
        signer.jwk("es", r#","alg":"RS256""#),
        signer.jwk("es", r#","alg":"HS256""#),
        signer.jwk("rsa", r#","alg":"none""#),
        signer.jwk("rsa", r#","kid":7"#),
        exponent("AQ"),
        exponent("Aw"),
        exponent(""),
        weak,
        long,
        padded,
    ];
    for key in &bad {
        assert_eq!(set(std::slice::from_ref(key)), Err(KeySetError::None), "{key}");
    }
    let all: Vec<String> =
        bad.into_iter().chain([good.clone(), signer.jwk("es", r#","key_ops":["verify"],"use":"sig""#)]).collect();
    assert_eq!(set(&all).unwrap().count(), 2);
    for text in ["", "[]", "{}", r#"{"keys":1}"#, r#"{"keys":[],"keys":[]}"#, "<html>"] {
        assert!(KeySet::parse(Bytes::from(text)).is_err(), "{text}");
    }
    assert_eq!(set(&vec![good.clone(); 100]).unwrap().count(), 100);
    assert_eq!(set(&vec![good; 101]), Err(KeySetError::TooMany));
}

#[test]
fn metadata_is_looked_for_where_the_specifications_say_and_must_be_the_issuers_own() {
    assert_eq!(
        fetch::metadata_places("https://a.example/realms/x/"),
        [
            "https://a.example/.well-known/oauth-authorization-server/realms/x",
            "https://a.example/.well-known/openid-configuration/realms/x",
            "https://a.example/realms/x/.well-known/openid-configuration",
        ]
    );
    assert_eq!(
        fetch::metadata_places("https://a.example"),
        [
            "https://a.example/.well-known/oauth-authorization-server",
            "https://a.example/.well-known/openid-configuration"
        ]
    );
    let read = |text: &str| fetch::read_metadata(Bytes::from(text.to_owned()), ISSUER).map(|url| url.to_string());
    let good = r#"{"issuer":"https://idp.example","jwks_uri":"https://keys.example/jwks"}"#;
    assert_eq!(read(good).unwrap(), "https://keys.example");
    for bad in [
        good.replace("idp.example\"", "idp.example/\""),
        good.replace("idp.example", "evil.example"),
        good.replace("https://keys.example", "file:///etc"),
        good.replace("keys.example", "0x7f.1"),
        r#"{"issuer":"https://idp.example"}"#.into(),
        r#"{"issuer":"https://idp.example","issuer":"https://idp.example","jwks_uri":"https://keys.example"}"#.into(),
        "{}".into(),
        String::new(),
    ] {
        assert!(read(&bad).is_err(), "{bad}");
    }
}

#[test]
fn mistakes_in_the_configuration_are_told_at_their_place() {
    let found = |change: &dyn Fn(&mut Config)| -> Vec<String> {
        let mut config = config(|_| {});
        change(&mut config);
        let mut problems = Problems::new();
        Oauth::compile(&config, &mut problems);
        problems.iter().map(|problem| problem.at.to_string()).collect()
    };
    let issuer =
        |change: fn(&mut Issuer)| found(&move |config: &mut Config| config.auth.issuers.values_mut().for_each(change));
    assert_eq!(found(&|_| {}), Vec::<String>::new());
    assert_eq!(issuer(|issuer| issuer.issuer = "http://idp.example".into()), ["auth.issuers.idp.issuer"]);
    assert_eq!(issuer(|issuer| issuer.issuer = String::new()), ["auth.issuers.idp.issuer"]);
    assert_eq!(issuer(|issuer| issuer.jwks_url = Some("https://127.1/".into())), ["auth.issuers.idp.jwks_url"]);
    assert_eq!(issuer(|issuer| issuer.proxy = Some("proxy:3128".into())), ["auth.issuers.idp.proxy"]);
    assert_eq!(issuer(|issuer| issuer.algorithms.clear()), ["auth.issuers.idp.algorithms"]);
    assert_eq!(issuer(|issuer| issuer.audiences = Some(Vec::new())), ["auth.issuers.idp.audiences"]);
    assert_eq!(issuer(|issuer| issuer.allow_http = true), ["auth.issuers.idp.allow_http"]);
    assert_eq!(issuer(|issuer| issuer.leeway_seconds = 301), ["auth.issuers.idp.leeway_seconds"]);
    assert_eq!(issuer(|issuer| issuer.refresh_ms = 29_999), ["auth.issuers.idp.refresh_ms"]);
    assert_eq!(issuer(|issuer| issuer.stale_ms_max = 1), ["auth.issuers.idp.stale_ms_max"]);
    assert_eq!(issuer(|issuer| issuer.scopes_supported = vec!["a b".into()]), ["auth.issuers.idp.scopes_supported[0]"]);
    assert_eq!(issuer(|issuer| issuer.allowed_networks = vec!["10".into()]), ["auth.issuers.idp.allowed_networks[0]"]);
    assert_eq!(found(&|config| config.listen.public_url = None), ["auth.issuers"]);
    assert_eq!(found(&|config| config.auth.metadata_of = Some("x".into())), ["auth.metadata_of"]);
    let again = |config: &mut Config| {
        let same = config.auth.issuers["idp"].clone();
        config.auth.issuers.insert("two".into(), same);
    };
    assert_eq!(found(&again), ["auth.issuers.two.issuer"]);
    let alone = |config: &mut Config| {
        config.auth.issuers.clear();
        config.servers.values_mut().take(1).for_each(|server| server.credentials = Credentials::Token);
    };
    assert_eq!(found(&alone), ["servers.files.credentials"]);
    let scopes = |config: &mut Config| {
        config.servers.values_mut().take(1).for_each(|server| server.required_scopes = vec![String::new()]);
    };
    assert_eq!(found(&scopes), ["servers.files.required_scopes[0]"]);
    let many = |config: &mut Config| {
        for number in 0..crate::auth::oauth::ISSUERS_MAX {
            let issuer = Issuer { issuer: format!("https://{number}.example"), ..Issuer::default() };
            config.auth.issuers.insert(format!("i{number}"), issuer);
        }
    };
    assert_eq!(found(&many), ["auth.issuers"]);
}

#[test]
fn metadata_names_the_resource_as_it_is_configured() {
    let mut config = config(|issuer| issuer.scopes_supported = vec!["mcp".into()]);
    config.listen.public_url = Some("https://gw.example/gateway/".into());
    if let Some(server) = config.servers.get_mut("files") {
        server.required_scopes = vec!["files".into(), "mcp".into()];
    }
    if let Some(server) = config.servers.get_mut("other") {
        server.credentials = Credentials::Key;
    }
    let oauth = Oauth::compile(&config, &mut Problems::new());
    let read = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let expected = serde_json::json!({
        "resource": "https://gw.example/gateway/mcp/files",
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["files", "mcp"],
    });
    assert_eq!(read(oauth.metadata("/mcp/files", Some("files"))), expected);
    assert_eq!(read(oauth.metadata("", None))["resource"], "https://gw.example/gateway");
    assert_eq!(
        oauth.metadata_url("/mcp/files"),
        "https://gw.example/gateway/.well-known/oauth-protected-resource/mcp/files"
    );
    assert_eq!(["/mcp/files", "/gateway/mcp/files"].map(|suffix| oauth.resource_path(suffix)), ["/mcp/files"; 2]);
    assert_eq!((oauth.scopes_of("files").as_deref(), oauth.scopes_of("other")), (Some("files mcp"), None));
    assert_eq!(["files", "other", "nobody"].map(|server| oauth.takes_tokens(server)), [true, false, true]);
}
