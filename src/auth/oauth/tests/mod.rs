//! Tests of tokens: an issuer of the test's own, and a gateway that trusts it.

mod keys;
mod refused;
mod taken;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ring::rand::SystemRandom;
use ring::rsa::KeyPair as RsaKeyPair;
use ring::rsa::PublicKeyComponents;
use ring::signature;
use ring::signature::EcdsaKeyPair;
use ring::signature::Ed25519KeyPair;
use ring::signature::KeyPair;
use tokio::runtime::Handle;

use crate::auth::oauth::LeadsTo;
use crate::auth::oauth::Oauth;
use crate::auth::oauth::Shown;
use crate::auth::oauth::TokenError;
use crate::auth::oauth::Tokens;
use crate::auth::oauth::fetch::Fetch;
use crate::auth::oauth::fetch::FetchError;
use crate::auth::oauth::fetch::Fetching;
use crate::auth::oauth::fetch::Found;
use crate::auth::oauth::fetch::Place;
use crate::auth::oauth::jwk::KeySet;
use crate::auth::oauth::source::Source;
use crate::config::model::Config;
use crate::config::model::Issuer;
use crate::config::model::Server;
use crate::config::problem::Problems;
use crate::config::workspaces;
use crate::net::NetError;
use crate::principal::Principal;

/// The moment at which all tests begin.
const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://idp.example";
const HEADER: &str = r#"{"alg":"ES256","kid":"es","typ":"at+jwt"}"#;

/// Keys of an issuer, made anew for each run but for RSA, whose keys take long to make.
struct Signer {
    random: SystemRandom,
    es256: EcdsaKeyPair,
    es384: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    rsa: RsaKeyPair,
}

impl Signer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ecdsa = |by| {
            let document = EcdsaKeyPair::generate_pkcs8(by, &random).unwrap();
            EcdsaKeyPair::from_pkcs8(by, document.as_ref(), &random).unwrap()
        };
        let (es256, es384) =
            (ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING), ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING));
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ed = Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap();
        let rsa: String = include_str!("rsa.pk8.base64").split_whitespace().collect();
        let rsa = RsaKeyPair::from_pkcs8(&STANDARD.decode(rsa).unwrap()).unwrap();
        Self { random, es256, es384, ed, rsa }
    }

    /// One key of the set, with further members.
    fn jwk(&self, kind: &str, further: &str) -> String {
        let point = |key: &EcdsaKeyPair, curve: &str| {
            let (x, y) = key.public_key().as_ref()[1..].split_at(key.public_key().as_ref().len() / 2);
            format!(r#"{{"kty":"EC","crv":"{curve}","x":"{}","y":"{}"{further}}}"#, encoded(x), encoded(y))
        };
        match kind {
            "es" => point(&self.es256, "P-256"),
            "es384" => point(&self.es384, "P-384"),
            "ed" => {
                format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"{further}}}"#, encoded(self.ed.public_key().as_ref()))
            }
            _ => {
                let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
                format!(r#"{{"kty":"RSA","n":"{}","e":"{}"{further}}}"#, encoded(&n), encoded(&e))
            }
        }
    }

    /// The set of all keys, each named after its kind; one of the RSA keys is for one algorithm alone.
    fn jwks(&self) -> String {
        let mut keys: Vec<String> = ["es", "es384", "ed", "rsa"]
            .iter()
            .map(|id| self.jwk(id, &format!(r#","kid":"{id}","use":"sig""#)))
            .collect();
        keys.push(self.jwk("rsa", r#","kid":"rsa256","alg":"RS256""#));
        format!(r#"{{"keys":[{}]}}"#, keys.join(","))
    }

    fn signature(&self, algorithm: &str, signed: &str) -> Vec<u8> {
        let signed = signed.as_bytes();
        let rsa = |by: &'static dyn signature::RsaEncoding| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            self.rsa.sign(by, &self.random, signed, &mut signature).unwrap();
            signature
        };
        match algorithm {
            "RS256" => rsa(&signature::RSA_PKCS1_SHA256),
            "RS384" => rsa(&signature::RSA_PKCS1_SHA384),
            "RS512" => rsa(&signature::RSA_PKCS1_SHA512),
            "PS256" => rsa(&signature::RSA_PSS_SHA256),
            "PS384" => rsa(&signature::RSA_PSS_SHA384),
            "PS512" => rsa(&signature::RSA_PSS_SHA512),
            "ES384" => self.es384.sign(&self.random, signed).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(signed).as_ref().to_vec(),
            _ => self.es256.sign(&self.random, signed).unwrap().as_ref().to_vec(),
        }
    }

    /// A token with this header and these claims, signed by the key for ES256 whatever the header says.
    fn token(&self, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
        self.token_by("ES256", header, claims)
    }

    fn token_by(&self, algorithm: &str, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
        let signed = format!("{}.{}", encoded(header.as_ref()), encoded(claims.as_ref()));
        let signature = self.signature(algorithm, &signed);
        format!("{signed}.{}", encoded(&signature))
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Good claims with others put in; what is put in as `null` is left out.
fn claims(others: &str) -> String {
    let mut claims = serde_json::json!({
        "iss": ISSUER, "sub": "ann", "aud": "https://gw.example/mcp/files", "exp": NOW + 600, "iat": NOW - 10,
    });
    let others: serde_json::Map<String, serde_json::Value> = serde_json::from_str(others).unwrap();
    for (name, value) in others {
        claims[name] = value;
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims.to_string()
}

/// What the issuer answers, and how often it was asked.
#[derive(Default)]
struct Desk {
    jwks: Mutex<Option<String>>,
    asked: AtomicUsize,
}

impl Desk {
    fn set(&self, jwks: Option<String>) {
        *self.jwks.lock().unwrap() = jwks;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Fetch for Desk {
    fn keys<'a>(&'a self, _place: &'a Place) -> Fetching<'a> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            // Long enough for others to come by meanwhile.
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            let jwks = self.jwks.lock().unwrap().clone().ok_or(FetchError::Keys(NetError::Timeout))?;
            Ok(Found { keys: KeySet::parse(Bytes::from(jwks))?, metadata: None })
        })
    }
}

/// A gateway that trusts the issuer.
struct Stage {
    signer: Signer,
    desk: Arc<Desk>,
    oauth: Oauth,
    source: Arc<Source>,
    tokens: Tokens,
    begun: Instant,
}

impl Stage {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With another configuration of the issuer. Its keys are known.
    async fn with(change: impl FnOnce(&mut Issuer)) -> Self {
        let stage = Self::unasked(change);
        stage.source.keep_up(&Handle::current(), stage.begun);
        stage.source.ask(&Handle::current(), stage.begun).await;
        assert_eq!(stage.desk.asked.swap(0, Ordering::SeqCst), 1);
        stage
    }

    /// The same, and nobody has asked for keys yet.
    fn unasked(change: impl FnOnce(&mut Issuer)) -> Self {
        let oauth = oauth(change);
        let (signer, desk) = (Signer::new(), Arc::new(Desk::default()));
        desk.set(Some(signer.jwks()));
        let issuer = &oauth.issuers()[0];
        let fetch: Arc<dyn Fetch> = Arc::clone(&desk) as _;
        let source = Arc::new(Source::new(&issuer.name, issuer.place.clone(), issuer.upkeep.clone(), fetch, None));
        let tokens = Tokens::new(vec![Arc::clone(&source)], Handle::current());
        Self { signer, desk, oauth, source, tokens, begun: Instant::now() }
    }

    /// What becomes of a token that is shown at a server so many seconds after the beginning.
    async fn show(&self, token: &str, server: &str, after: u64) -> Result<Arc<Principal>, TokenError> {
        let leads_to = leads_to;
        let shown = self.shown(server, after, &leads_to);
        match self.tokens.recall(token, &shown) {
            Some(known) => known,
            None => self.tokens.verify(token, &shown).await,
        }
    }

    /// Whether the token is remembered then.
    fn recalls(&self, token: &str, after: u64) -> bool {
        self.tokens.recall(token, &self.shown("files", after, &leads_to)).is_some()
    }

    fn shown<'s>(&'s self, server: &'s str, after: u64, leads_to: &'s LeadsTo<'s>) -> Shown<'s> {
        let instant = self.begun + Duration::from_secs(after);
        let path = if server == "other" { "/mcp/other" } else { "/mcp/files" };
        Shown { oauth: &self.oauth, path, server, leads_to, now: NOW + after, instant }
    }

    /// The scopes and so on of a token with these claims.
    async fn caller(&self, others: &str) -> Result<Arc<Principal>, TokenError> {
        self.show(&self.signer.token(HEADER, claims(others)), "files", 0).await
    }
}

fn leads_to(path: &str, workspace: Option<&str>) -> Option<Arc<str>> {
    let word = match path {
        "/mcp/files" | "/gateway/mcp/files" | "/mcp/files/sse" => "files",
        "/mcp/other" => "other",
        _ => return None,
    };
    Some(workspaces::qualified(workspace, word).into())
}

/// A configuration with one issuer and two servers.
fn config(change: impl FnOnce(&mut Issuer)) -> Config {
    let mut config = Config::default();
    config.listen.public_url = Some("https://gw.example".into());
    let mut issuer = Issuer { issuer: ISSUER.into(), ..Issuer::default() };
    change(&mut issuer);
    config.auth.issuers.insert("idp".into(), issuer);
    for name in ["files", "other"] {
        config.servers.insert(name.into(), Server::default());
    }
    config
}

fn oauth(change: impl FnOnce(&mut Issuer)) -> Oauth {
    let mut problems = Problems::new();
    let oauth = Oauth::compile(&config(change), &mut problems);
    assert_eq!(problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>(), Vec::<String>::new());
    oauth
}
