//! Tests of what may be asked, and of what is never connected to.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::RootCertStore;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::DuplexStream;

use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::net::Client;
use crate::net::Dialling;
use crate::net::NetError;
use crate::net::Network;
use crate::net::Resolving;
use crate::net::Rules;
use crate::net::Stream;
use crate::net::URL_BYTES_MAX;
use crate::net::Url;
use crate::net::UrlFlaw;
use crate::net::special;
use crate::network::Networks;

/// Addresses that nobody is connected to on somebody else's word.
const REFUSED: &str = "
    0.0.0.0 0.0.0.1 0.255.255.255 10.0.0.0 10.0.0.1 10.255.255.255 100.64.0.0 100.64.0.1 100.100.100.200 100.127.255.255
    127.0.0.0 127.0.0.1 127.0.0.53 127.1.2.3 127.255.255.255 168.63.129.16 169.254.0.1 169.254.169.254 169.254.170.2
    169.254.169.253 169.254.255.255 172.16.0.0 172.16.0.1 172.17.0.1 172.31.255.255 192.0.0.0 192.0.0.1 192.0.0.170
    192.0.0.192 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.168.0.0 192.168.0.1 192.168.255.255 192.175.48.1
    198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 224.0.0.251 239.255.255.250 240.0.0.1 255.255.255.254
    255.255.255.255
    :: ::1 ::2 ::ffff:0.0.0.0 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:192.168.1.1 ::ffff:8.8.8.8
    ::127.0.0.1 ::8.8.8.8 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b::808:808 64:ff9b:1::1
    64:ff9b:1:ffff:ffff:ffff:a00:1 100::1 100:0:0:1::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:10::1
    2001:20::1 2001:1ff:ffff::1 2001:db8::1 2001:db8:ffff::1 2002:7f00:1:: 2002:a00:1::1 2002:808:808::1 2620:4f:8000::1
    3fff::1 3fff:fff::1 4000::1 5f00::1 8000::1 fc00::1 fcff::1 fd00::1 fd00:ec2::254 fd12:3456:789a::1 fdff:ffff::1 fe80::1
    fe80::a9fe:a9fe febf::1 fec0::1 feff::1 ff00::1 ff01::1 ff02::1 ff02::fb ff05::1:3 ffff::1
    1::1 400::1 1fff:ffff::1
";

/// Addresses that anybody can reach, those next to the ones above among them.
const LET_IN: &str = "
    1.0.0.1 1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 168.63.129.15
    168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.1 192.0.3.1 192.88.98.1 192.167.255.255
    192.169.0.0 198.17.255.255 198.20.0.0 203.0.112.1 203.0.114.1 223.255.255.255
    2000::1 2001:200::1 2001:4860:4860::8888 2001:db7::1 2001:db9::1 2003::1 2606:4700::1111 2620:4f:8001::1 2a00::1
    3ffe:ffff::1 3fff:1000::1
";

/// URLs that are refused as they stand, and why.
const BAD_URLS: &[(UrlFlaw, &str)] = &[
    (
        UrlFlaw::Host,
        "https://0x7f000001/ https://0x7f.0.0.1/ https://0x7F.0x0.0x0.0x1/ https://017700000001/ https://0177.0.0.1/ \
         https://2130706433/ https://127.1/ https://127.0.1/ https://10.1/ https://0/ https://0x0/ https://1/ \
         https://127.0.0.01/ https://127.0.0.0x1/ https://256.1.1.1/ https://1.2.3.4.5/ https://999999999999/ \
         https://169.254.43518/ https://0xa9fea9fe/ https://2852039166/ https://0251.0376.0251.0376/ https://127.0.0.1./ \
         https://a.1/ https://a.0x7f/ https://x.255/ https://127.0.0.1.5./ https://1.1.1.1..2/ https://[::1/ https://::1/ \
         https://[::1]x/ https://[fe80::1%25eth0]/ https://[::ffff:127.0.0.1.1]/ https://[127.0.0.1]/ https://[]/ \
         https://[0x1::1]/ https:///path https:// https://./ https://../ https://a..b/ https://.a/ https://-a.b/ https://a-.b/ \
         https://a%2eb/ https://127%2e0%2e0%2e1/ https://a_b!.c/ https://a,b/ https://a;b/ https://$(id)/ https://*.a/ \
         https://a|b/ https://0x7f.1/ https://[::]]/ https://a[b]/",
    ),
    (
        UrlFlaw::Userinfo,
        "https://user@a.example/ https://user:pass@a.example/ https://@a.example/ https://a.example@127.0.0.1/ \
         https://a.example:443@127.0.0.1:80/ https://a%40b@c/ https://a.example&@b.example/",
    ),
    (UrlFlaw::Fragment, "https://a.example/#x https://a.example#@127.0.0.1/ https://a.example/?#"),
    (
        UrlFlaw::Scheme,
        "ftp://a.example/ file:///etc/passwd gopher://a.example:70/_x dict://a.example/ ws://a.example/ \
         unix:///run/a.sock jar:https://a.example!/ httpss://a.example/ ldap://a.example/",
    ),
    (
        UrlFlaw::Form,
        "https:a.example https:/a.example //a.example/ a.example /path javascript:alert(1) data:text/plain,x mailto:a@b 1",
    ),
    (
        UrlFlaw::Port,
        "https://a.example:/ https://a.example:0/ https://a.example:00443/ https://a.example:65536/ https://a.example:-1/ \
         https://a.example:4a/ https://a.example:443:80/ https://[::1]:x/ https://a.example:+443/",
    ),
];

/// URLs with characters that belong in none. One a line, as some have spaces.
const BAD_CHARACTERS: [&str; 16] = [
    "https://a.example/ x",
    " https://a.example/",
    "https://a.example/\n",
    "https://a.example/\r\nHost: b",
    "https://a.example\t/",
    "https://a.example\\@b.example/",
    "https://a.example\\.b/",
    "https://ⓔxample.com/",
    "https://exämple.com/",
    "https://127。0。0。1/",
    "https://①②⑦.0.0.1/",
    "https://localhost\u{200b}/",
    "https://a.example/\u{0}",
    "https://a.example/<x>",
    "https://a.example/`id`",
    "https://a.example/ä",
];

fn networks(texts: &[&str]) -> Networks {
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    Networks::compile(&texts, &At::root(), &mut Problems::new())
}

#[test]
fn an_address_is_let_in_exactly_if_it_is_the_internets() {
    let refused: Vec<IpAddr> = REFUSED.split_whitespace().map(|text| text.parse().expect(text)).collect();
    for address in &refused {
        assert!(special(*address).is_some(), "{address}");
    }
    for address in LET_IN.split_whitespace() {
        assert_eq!(special(address.parse().expect(address)), None, "{address}");
    }
    let urls: usize = BAD_URLS.iter().map(|(_, urls)| urls.split_whitespace().count()).sum();
    let vectors = refused.len() + LET_IN.split_whitespace().count() + urls + BAD_CHARACTERS.len();
    assert!(vectors >= 150, "{vectors}");
}

#[test]
fn a_url_that_two_readers_could_take_for_two_is_refused() {
    for (flaw, urls) in BAD_URLS {
        for url in urls.split_whitespace() {
            assert_eq!(Url::parse(url).map(|url| url.host), Err(*flaw), "{url}");
        }
    }
    for url in BAD_CHARACTERS {
        assert_eq!(Url::parse(url), Err(UrlFlaw::Characters), "{url}");
    }
    let long = |bytes: usize| format!("https://a.example/{}", "x".repeat(bytes - "https://a.example/".len()));
    assert!(Url::parse(&long(URL_BYTES_MAX)).is_ok());
    assert_eq!(Url::parse(&long(URL_BYTES_MAX + 1)), Err(UrlFlaw::TooLong));
}

#[test]
fn a_plain_url_is_taken_apart() {
    for (text, authority, path, shown) in [
        ("https://a.example", "a.example", "/", "https://a.example"),
        ("HTTPS://A.Example./x?y=z", "a.example", "/x?y=z", "https://a.example"),
        ("https://a.example:443/", "a.example", "/", "https://a.example"),
        ("https://a.example:8443/x", "a.example:8443", "/x", "https://a.example:8443"),
        ("http://a.example?x", "a.example", "/?x", "http://a.example"),
        ("http://192.0.2.1:8080/", "192.0.2.1:8080", "/", "http://192.0.2.1:8080"),
        ("https://[2001:DB8::1]/", "[2001:db8::1]", "/", "https://[2001:db8::1]"),
        ("https://xn--exmple-cua.com/", "xn--exmple-cua.com", "/", "https://xn--exmple-cua.com"),
    ] {
        let url = Url::parse(text).expect(text);
        assert_eq!(
            (url.authority().as_str(), url.path.to_string().as_str(), url.to_string().as_str()),
            (authority, path, shown)
        );
    }
}

/// A network of the test's: names resolve as it says, and every connection is counted and answered by it.
struct Staged {
    /// What a name resolves to, the first time, the second, and so on around.
    answers: Vec<Vec<IpAddr>>,
    resolved: AtomicUsize,
    dialled: Mutex<Vec<SocketAddr>>,
    /// What a connection brings; empty: nothing ever.
    reply: Vec<u8>,
}

impl Staged {
    fn new(answers: &[&[&str]], reply: impl Into<Vec<u8>>) -> Arc<Self> {
        let parse = |texts: &&[&str]| texts.iter().map(|text| text.parse().expect(text)).collect();
        let answers = answers.iter().map(parse).collect();
        Arc::new(Self { answers, resolved: AtomicUsize::new(0), dialled: Mutex::default(), reply: reply.into() })
    }

    fn dialled(&self) -> Vec<SocketAddr> {
        self.dialled.lock().unwrap().clone()
    }
}

impl Network for Staged {
    fn resolve<'a>(&'a self, _name: &'a str) -> Resolving<'a> {
        let turn = self.resolved.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            match self.answers.len() {
                0 => Err(io::Error::other("no such name")),
                count => Ok(self.answers[turn % count].clone()),
            }
        })
    }

    fn connect(&self, address: SocketAddr) -> Dialling<'_> {
        self.dialled.lock().unwrap().push(address);
        let reply = self.reply.clone();
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(1024 * 1024);
            tokio::spawn(serve(theirs, reply));
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }
}

/// Reads one head, or the beginning of a handshake, then writes the reply.
async fn serve(mut stream: DuplexStream, reply: Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && !head.starts_with(&[0x16]) {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    if reply.is_empty() {
        std::future::pending::<()>().await;
    }
    let _ = stream.write_all(&reply).await;
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn http() -> Rules {
    Rules { http: true, ports: vec![80, 443], ..Rules::default() }
}

async fn get(network: &Arc<Staged>, url: &str, rules: &Rules) -> Result<String, NetError> {
    let client = Client::on(Arc::clone(network) as Arc<dyn Network>, RootCertStore::empty());
    let body = client.get(&Url::parse(url).expect(url), "application/json", rules).await?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn what_was_checked_is_what_is_connected_to_and_nothing_else() {
    let public = "93.184.216.34";
    let network = Staged::new(&[&[public]], ok("keys"));
    assert_eq!(get(&network, "http://a.example/", &http()).await.unwrap(), "keys");
    assert_eq!(network.dialled(), ["93.184.216.34:80".parse().unwrap()]);
    assert_eq!(network.resolved.load(Ordering::SeqCst), 1);
    // One address among many is enough to refuse the name.
    for inner in ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "::ffff:93.184.216.34"] {
        let network = Staged::new(&[&[public, inner]], ok("x"));
        assert!(matches!(get(&network, "http://a.example/", &http()).await, Err(NetError::Forbidden(..))), "{inner}");
        assert_eq!(network.dialled(), []);
    }
}

#[tokio::test]
async fn of_a_post_every_status_is_an_answer_and_nothing_is_followed() {
    let (url, rules) = (Url::parse("http://a.example/").unwrap(), http());
    let post = async |network: &Arc<Staged>, rules: &Rules| {
        let client = Client::on(Arc::clone(network) as Arc<dyn Network>, RootCertStore::empty());
        client.post(&url, http::HeaderMap::new(), "spans".into(), rules).await
    };
    for status in [200, 301, 429, 503] {
        let reply = format!("HTTP/1.1 {status} x\r\nLocation: http://b.example/\r\nContent-Length: 2\r\n\r\nno");
        let network = Staged::new(&[&["93.184.216.34"]], reply);
        let answer = post(&network, &rules).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (status, b"no".as_slice()));
        assert_eq!(network.dialled().len(), 1, "{status}");
    }
    let network = Staged::new(&[&["93.184.216.34"]], ok("four"));
    let small = Rules { bytes_max: 3, ..http() };
    assert!(matches!(post(&network, &small).await, Err(NetError::TooLarge(3))));
    let silent = Staged::new(&[&["93.184.216.34"]], "");
    let hasty = Rules { timeout: Duration::from_millis(20), ..http() };
    assert!(matches!(post(&silent, &hasty).await, Err(NetError::Timeout)));
    let inner = Staged::new(&[&["127.0.0.1"]], ok("x"));
    assert!(matches!(post(&inner, &rules).await, Err(NetError::Forbidden(..))));
}

#[tokio::test]
async fn a_name_that_flips_to_an_inner_address_is_never_connected_to_there() {
    let network = Staged::new(&[&["93.184.216.34"], &["127.0.0.1"], &["::1"], &["169.254.169.254"]], ok("keys"));
    let client = Client::on(Arc::clone(&network) as Arc<dyn Network>, RootCertStore::empty());
    let (url, rules) = (Url::parse("http://rebind.example/").unwrap(), http());
    let mut fetched = 0;
    for _ in 0..10_000 {
        match client.get(&url, "*/*", &rules).await {
            Ok(_) => fetched += 1,
            Err(NetError::Forbidden(..)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((fetched, network.resolved.load(Ordering::SeqCst)), (2_500, 10_000));
    assert!(network.dialled().iter().all(|address| address.ip() == "93.184.216.34".parse::<IpAddr>().unwrap()));
}

#[tokio::test]
async fn a_network_of_ones_own_is_reached_only_where_it_is_allowed() {
    let allowing = |texts: &[&str]| Rules { networks: networks(texts), ..http() };
    for (url, rules, expected) in [
        ("http://10.1.2.3/", allowing(&[]), false),
        ("http://10.1.2.3/", allowing(&["10.1.0.0/16"]), true),
        ("http://10.2.2.3/", allowing(&["10.1.0.0/16"]), false),
        ("http://[fd00::1]/", allowing(&["fd00::/8"]), true),
        ("http://localhost/", allowing(&[]), false),
        ("http://localhost./", allowing(&[]), false),
        ("http://a.LocalHost/", allowing(&[]), false),
        ("http://localhost/", allowing(&["127.0.0.0/8"]), true),
        ("http://a.example/", allowing(&["10.0.0.0/8"]), false),
    ] {
        let network = Staged::new(&[&["127.0.0.1"]], ok("x"));
        assert_eq!(get(&network, url, &rules).await.is_ok(), expected, "{url}");
        assert_eq!(network.dialled().is_empty(), !expected, "{url}");
    }
}

#[tokio::test]
async fn scheme_and_port_must_be_allowed() {
    let network = Staged::new(&[&["93.184.216.34"]], ok("x"));
    let strict = Rules::default();
    assert!(matches!(get(&network, "http://a.example/", &strict).await, Err(NetError::Insecure)));
    for port in [1, 22, 25, 80, 6379, 8443, 11211] {
        let refused = get(&network, &format!("https://a.example:{port}/"), &strict).await;
        assert!(matches!(refused, Err(NetError::Port(at)) if at == port));
    }
    assert_eq!(network.dialled(), []);
    // What answers in the clear is no TLS.
    assert!(matches!(get(&network, "https://a.example/", &strict).await, Err(NetError::Tls(_))));
}

#[tokio::test]
async fn an_answer_is_followed_nowhere_and_has_limits() {
    let answer = |text: String| Staged::new(&[&["93.184.216.34"]], text);
    for (status, location) in
        [(301, "http://127.0.0.1/"), (302, "https://b.example/"), (307, "/x"), (308, "/"), (304, "")]
    {
        let network = answer(format!("HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"));
        assert!(
            matches!(get(&network, "http://a.example/", &http()).await, Err(NetError::Redirect(at)) if at == status)
        );
        assert_eq!(network.dialled().len(), 1);
    }
    let rules = Rules { bytes_max: 10, timeout: Duration::from_millis(200), ..http() };
    let fetch = async |text: String| get(&answer(text), "http://a.example/", &rules).await;
    let whole = |body: &str| String::from_utf8(ok(body)).unwrap();
    assert_eq!(fetch(whole("0123456789")).await.unwrap(), "0123456789");
    assert!(matches!(fetch(whole("0123456789a")).await, Err(NetError::TooLarge(10))));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n8\r\n01234567\r\n0\r\n\r\n";
    assert!(matches!(fetch(chunked.into()).await, Err(NetError::TooLarge(10))));
    let encoded = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n";
    assert!(matches!(fetch(encoded.into()).await, Err(NetError::Encoded)));
    assert!(matches!(fetch("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n".into()).await, Err(NetError::Status(500))));
    assert!(matches!(fetch("nonsense\r\n\r\n".into()).await, Err(NetError::Protocol(_))));
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert!(matches!(fetch(large).await, Err(NetError::Protocol(_))));
    assert!(matches!(fetch(String::new()).await, Err(NetError::Timeout)));
}

#[tokio::test]
async fn a_name_without_an_address_or_with_too_many_is_not_asked() {
    let many = vec!["93.184.216.34"; 65];
    for answers in [&[][..], &[&[][..]], &[many.as_slice()]] {
        let network = Staged::new(answers, ok("x"));
        assert!(matches!(get(&network, "http://a.example/", &http()).await, Err(NetError::Resolve(_))));
        assert_eq!(network.dialled(), []);
    }
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_way_and_an_inner_address_is_not_even_asked_for() {
    let rules = Rules { proxy: Some(Url::parse("http://10.0.0.9:3128/").unwrap()), ..http() };
    let network = Staged::new(&[], "HTTP/1.1 403 Forbidden\r\n\r\n");
    assert!(matches!(get(&network, "https://a.example/", &rules).await, Err(NetError::Proxy(_))));
    assert_eq!(network.dialled(), ["10.0.0.9:3128".parse().unwrap()]);
    let network = Staged::new(&[], "HTTP/1.1 200 Connection established\r\n\r\nno tls");
    assert!(matches!(get(&network, "https://a.example/", &rules).await, Err(NetError::Tls(_))));
    let network = Staged::new(&[], "x".repeat(9_000));
    assert!(matches!(get(&network, "https://a.example/", &rules).await, Err(NetError::Proxy(_))));
    let network = Staged::new(&[], ok("x"));
    for url in ["https://169.254.169.254/", "https://[::1]/", "https://localhost/"] {
        assert!(get(&network, url, &rules).await.is_err(), "{url}");
    }
    assert_eq!(network.dialled(), []);
}
