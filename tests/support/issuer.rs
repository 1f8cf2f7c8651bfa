//! An issuer of tokens, for a gateway that takes them: metadata, keys, and tokens signed with one of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use ring::signature::KeyPair;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A running issuer; gone when dropped.
pub(crate) struct Issuer {
    address: SocketAddr,
    key: Ed25519KeyPair,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Issuer {
    /// Starts an issuer with one key, `one`.
    pub(crate) async fn start() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let jwks = json!({ "keys": [{
            "kty": "OKP", "crv": "Ed25519", "kid": "one", "use": "sig", "x": encoded(key.public_key().as_ref()),
        }] });
        let base = format!("http://{address}");
        let metadata = json!({
            "issuer": base, "jwks_uri": format!("{base}/jwks"), "authorization_endpoint": format!("{base}/auth"),
            "token_endpoint": format!("{base}/token"), "response_types_supported": ["code"],
        });
        let seen = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&seen), metadata.to_string(), jwks.to_string()));
            }
        });
        Self { address, key, asked, task }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Paths it was asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Answers nobody any more; what it signs is still its own.
    pub(crate) fn stop(&self) {
        self.task.abort();
    }

    /// A token with these claims beside `iss`, `sub`, `iat` and `exp` (in ten minutes).
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_by("one", claims)
    }

    /// A token whose header names another key.
    pub(crate) fn token_by(&self, key: &str, claims: &Value) -> String {
        let now = now();
        let mut all = json!({ "iss": self.url(), "sub": "ann", "iat": now, "exp": now + 600 });
        for (name, value) in claims.as_object().unwrap() {
            all[name] = value.clone();
        }
        let header = json!({ "alg": "EdDSA", "kid": key, "typ": "at+jwt" }).to_string();
        let signed = format!("{}.{}", encoded(header.as_bytes()), encoded(all.to_string().as_bytes()));
        format!("{signed}.{}", encoded(self.key.sign(signed.as_bytes()).as_ref()))
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

async fn answer(mut stream: TcpStream, asked: Arc<Mutex<Vec<String>>>, metadata: String, jwks: String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let (status, body) = match path.as_str() {
        "/.well-known/openid-configuration" => (200, metadata),
        "/jwks" => (200, jwks),
        _ => (404, String::new()),
    };
    asked.lock().unwrap().push(path);
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
}
