//! TLS as clients meet it: curl and openssl against the real gateway, with certificates that openssl made.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use pingora::tls::CertificateDer;
use pingora::tls::ClientConfig;
use pingora::tls::ClientTlsStream;
use pingora::tls::RootCertStore;
use pingora::tls::ServerName;
use pingora::tls::TlsConnector;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::certificates::Authority;
use crate::support::client;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::run;
use crate::support::gateway::wait_until;
use crate::support::upstream::Upstream;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;

const SOON: Duration = Duration::from_secs(5);

/// A gateway over TLS before a server open to everybody, and who issued its certificates.
struct Secure {
    authority: Authority,
    gateway: Gateway,
    upstream: Upstream,
    directory: PathBuf,
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What a program said, and whether it was content.
struct Said {
    content: bool,
    out: String,
    error: String,
}

fn said(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().expect("curl and openssl");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { content: output.status.success(), out: text(&output.stdout), error: text(&output.stderr) }
}

impl Secure {
    /// With certificates for `localhost` and 127.0.0.1 (the first), and for `a.example` with everything below `wild.example`.
    async fn start(listen: &str, tls: &str) -> Self {
        let directory = gateway::fresh_directory();
        let authority = Authority::new(&directory, "ca");
        authority.issue("first", "DNS:localhost,IP:127.0.0.1", 30);
        authority.issue("second", "DNS:a.example,DNS:*.wild.example", 60);
        let upstream = Upstream::start().await;
        let mut secure =
            Self { authority, gateway: Gateway::start("[servers.x]\nurl = \"http://h/\"\n"), upstream, directory };
        secure.gateway = Gateway::start(&secure.config(listen, tls));
        secure
    }

    fn config(&self, listen: &str, tls: &str) -> String {
        format!(
            "{listen}\n[listen.tls]\n{tls}\n{}[servers.open]\nurl = \"{}\"\naccess = \"public\"\n",
            if tls.contains("certificates") { String::new() } else { self.certificates(&["first", "second"]) },
            self.upstream.url()
        )
    }

    fn certificates(&self, names: &[&str]) -> String {
        let tables = names.iter().map(|name| {
            let path = |kind: &str| self.authority.path(&format!("{name}.{kind}"));
            format!("{{ cert_file = \"{}\", key_file = \"{}\" }}", path("pem"), path("key"))
        });
        format!("certificates = [{}]\n", tables.collect::<Vec<_>>().join(", "))
    }

    /// Calls the tool with curl and these further options.
    fn curl(&self, options: &[&str]) -> Said {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "10", "--cacert", &self.authority.path("ca.pem")]).args(options);
        for header in ["Content-Type: application/json", "Accept: application/json, text/event-stream"] {
            command.args(["-H", header]);
        }
        said(command.args(["-d", CALL, &format!("https://localhost:{}/mcp/open", self.gateway.data.port())]))
    }

    /// What openssl sees of the connection it opens.
    fn s_client(&self, options: &[&str]) -> Said {
        let mut command = Command::new("openssl");
        command.args([
            "s_client",
            "-connect",
            &self.gateway.data.to_string(),
            "-CAfile",
            &self.authority.path("ca.pem"),
        ]);
        said(command.args(options))
    }

    /// The subject of the certificate that is shown to a client who asks for this name.
    fn shown_to(&self, options: &[&str]) -> String {
        let said = self.s_client(options);
        let line = said.out.lines().find_map(|line| line.strip_prefix("subject="));
        line.unwrap_or_else(|| panic!("{}{}", said.out, said.error)).replace(' ', "")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_tls_is_served_and_on_record_as_secure() {
    let secure = Secure::start("", "").await;
    for (options, version) in [(&[][..], "1.3"), (&["--tls-max", "1.2"], "1.2")] {
        let said = secure.curl(options);
        assert!(said.content && said.out.contains("\"result\""), "{}{}", said.out, said.error);
        let intent = secure.gateway.wait_for_record("intent", |record| record["tls"] == version);
        assert_eq!((&intent["scheme"], &intent["source"]), (&json!("https"), &json!("127.0.0.1")));
        assert!(intent.get("client_cert_sha256").is_none());
    }
    assert_eq!(secure.upstream.requests().len(), 2);
    let old = secure.s_client(&["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"]);
    assert!(!old.content, "TLS 1.1: {}", old.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_name_is_shown_its_certificate() {
    let secure = Secure::start("", "").await;
    let table: [(&[&str], &str); 6] = [
        (&["-servername", "localhost"], "CN=first"),
        (&["-servername", "a.example"], "CN=second"),
        (&["-servername", "x.wild.example"], "CN=second"),
        (&["-servername", "wild.example"], "CN=first"),
        (&["-servername", "unknown.test"], "CN=first"),
        (&["-noservername"], "CN=first"),
    ];
    for (options, expected) in table {
        assert_eq!(secure.shown_to(options), expected, "{options:?}");
    }
    let offered = |protocols: &str| secure.s_client(&["-alpn", protocols]);
    let http1 = offered("http/1.1,http/1.0");
    assert!(http1.out.contains("ALPN protocol: http/1.1"), "{}", http1.out);
    let none = offered("spdy/3");
    assert!(!none.content, "a client that speaks none of our protocols is told so: {}", none.out);
    let expiry = |name: &str| {
        let end = secure.authority.openssl(&format!("x509 -in {name}.pem -noout -enddate"));
        let date = said(Command::new("date").args(["+%s", "-d", end.trim().trim_start_matches("notAfter=")])).out;
        date.trim().parse::<f64>().unwrap()
    };
    for (file, name) in [("first", "localhost"), ("second", "a.example")] {
        let series = format!("portcullis_listener_certificate_expiry_timestamp_seconds{{certificate=\"{name}\"}}");
        assert_eq!(secure.gateway.metric(&series).await, Some(expiry(file)), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_handshake_is_refused_and_on_record() {
    let secure = Secure::start("", "handshake_timeout_ms = 500").await;
    let data = secure.gateway.data;
    let mut plain = Connection::open(data).await;
    plain.write("GET /mcp/open HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = plain.answer().await.unwrap();
    assert_eq!((answer.status, answer.code()), (400, Some(-32600)));
    assert!(answer.text().contains("https://"), "{}", answer.text());
    assert_eq!(plain.remainder(SOON).await.as_deref(), Some(&b""[..]));

    let mut garbage = Connection::open(data).await;
    garbage.write([0x80, 0x2e, 1, 0, 2, 0, 0]).await;
    assert!(garbage.remainder(SOON).await.is_some(), "it ends, with an alert");

    for half in [&[][..], &[0x16, 3, 1, 2, 0, 1]] {
        let started = Instant::now();
        let mut slow = Connection::open(data).await;
        slow.write(half).await;
        assert_eq!(slow.remainder(SOON).await.as_deref(), Some(&b""[..]), "{half:?}");
        assert!(started.elapsed() > Duration::from_millis(400), "{half:?} was given its time");
    }
    // A balancer's probe: opened, and closed without a word.
    drop(Connection::open(data).await);

    for (reason, status) in [("tls_plain_http", Some(400)), ("tls_handshake", None), ("tls_timeout", None)] {
        let refused = secure.gateway.wait_for_record("refused", |record| record["reason"] == reason);
        assert_eq!(refused.get("status").and_then(serde_json::Value::as_u64), status, "{reason}");
    }
    let series = |reason: &str| format!("portcullis_refusals_total{{reason=\"{reason}\"}}");
    for (reason, count) in [("tls_plain_http", 1.0), ("tls_handshake", 1.0), ("tls_timeout", 2.0)] {
        assert_eq!(secure.gateway.metric(&series(reason)).await, Some(count), "{reason}");
    }
    assert!(secure.curl(&[]).content, "and everybody else is served");
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_count_as_connections() {
    let secure = Secure::start("connections_max = 2", "handshake_timeout_ms = 5000").await;
    let silent = [Connection::open(secure.gateway.data).await, Connection::open(secure.gateway.data).await];
    wait_until("both are counted", || !secure.curl(&[]).content);
    secure.gateway.wait_for_record("refused", |record| record["reason"] == "connections_max");
    drop(silent);
    wait_until("there is room again", || secure.curl(&[]).content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_certificates_and_disturbs_nobody() {
    let secure = Secure::start("", "").await;
    let mut open = HeldOpen::open(&secure).await;
    open.ask().await;
    secure.authority.issue("third", "DNS:localhost,IP:127.0.0.1", 90);
    secure.gateway.reload(&secure.config("", &secure.certificates(&["third"])));
    wait_until("the new one is shown", || secure.shown_to(&[]) == "CN=third");
    assert_eq!(secure.shown_to(&["-servername", "a.example"]), "CN=third", "the old ones are gone");
    open.ask().await;
    let gone = "portcullis_listener_certificate_expiry_timestamp_seconds{certificate=\"a.example\"}";
    assert_eq!(secure.gateway.metric(gone).await, None);

    // The same path, another certificate: what counts is what the file says now.
    secure.authority.issue("third", "DNS:localhost,DNS:renewed.example", 90);
    secure.gateway.reload(&secure.config("", &secure.certificates(&["third"])));
    let renewed = "portcullis_listener_certificate_expiry_timestamp_seconds{certificate=\"localhost\"}";
    wait_until("it is read again", || {
        secure.s_client(&["-verify_hostname", "renewed.example"]).out.contains("Verification: OK")
    });
    assert!(secure.gateway.metric(renewed).await.is_some());

    fs::copy(secure.authority.path("first.key"), secure.authority.path("third.key")).unwrap();
    secure.gateway.reload(&secure.config("", &secure.certificates(&["third"])));
    secure.gateway.wait_for_log("does not belong to the certificate");
    assert_eq!(secure.gateway.metric("portcullis_config_last_reload_successful").await, Some(0.0));
    assert_eq!(secure.shown_to(&[]), "CN=third", "nothing changed");
    assert!(secure.curl(&[]).content);
    open.ask().await;
}

/// A client that keeps its connection.
struct HeldOpen(ClientTlsStream<TcpStream>);

impl HeldOpen {
    async fn open(secure: &Secure) -> Self {
        pingora::tls::install_default_crypto_provider();
        let mut roots = RootCertStore::empty();
        let issuer = fs::read(secure.authority.path("ca.pem")).unwrap();
        roots.add(CertificateDer::from_pem_slice(&issuer).unwrap()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let tcp = TcpStream::connect(secure.gateway.data).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        Self(TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap())
    }

    /// Calls the tool once more.
    async fn ask(&mut self) {
        self.0.write_all(client::post("/mcp/open", &[], CALL).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}}") {
            let read = timeout(Duration::from_secs(10), self.0.read_buf(&mut answer)).await.expect("an answer in time");
            assert!(read.unwrap() > 0, "the connection ended: {}", String::from_utf8_lossy(&answer));
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_required_verified_and_on_record() {
    let secure = Secure::start("", "").await;
    let clients = Authority::new(&secure.directory, "clients");
    clients.issue("agent", "DNS:agent.example,URI:spiffe://example/agent", 30);
    clients.issue("late", "DNS:late.example", -1);
    let strangers = Authority::new(&secure.directory, "strangers");
    strangers.issue("stranger", "DNS:agent.example", 30);
    let with = |name: &str| {
        let path = |kind: &str| clients.path(&format!("{name}.{kind}"));
        secure.curl(&["--cert", &path("pem"), "--key", &path("key")])
    };
    let asking =
        |mode: &str| format!("client_ca_file = \"{}\"\nclient_auth = \"{mode}\"\n", clients.path("clients.pem"));

    secure.gateway.reload(&secure.config("", &asking("require")));
    wait_until("a certificate is required", || !secure.curl(&[]).content);
    let said = with("agent");
    assert!(said.content && said.out.contains("\"result\""), "{}{}", said.out, said.error);
    let intent = secure.gateway.wait_for_record("intent", |record| record["client_cert_subject"] == "CN=agent");
    assert_eq!(intent["client_cert_names"], json!(["dns:agent.example", "uri:spiffe://example/agent"]));
    let print = clients.openssl("x509 -in agent.pem -noout -fingerprint -sha256");
    let print = print.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase();
    assert_eq!(intent["client_cert_sha256"], print);
    for bad in ["stranger", "late"] {
        assert!(!with(bad).content, "{bad}");
    }
    secure.gateway.wait_for_record("refused", |record| record["reason"] == "tls_client_certificate");
    let refused = "portcullis_refusals_total{reason=\"tls_client_certificate\"}";
    assert!(secure.gateway.metric(refused).await >= Some(3.0));

    secure.gateway.reload(&secure.config("", &asking("request")));
    wait_until("none is required", || secure.curl(&[]).content);
    assert!(with("agent").content && !with("stranger").content && !with("late").content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_announces_its_client_before_the_handshake() {
    let secure = Secure::start("proxy_protocol_from = [\"127.0.0.1\"]", "").await;
    for version in ["--http1.1", "--http2"] {
        let said = secure.curl(&["--haproxy-protocol", version]);
        assert!(said.content && said.out.contains("\"result\""), "{}{}", said.out, said.error);
    }
    for intent in secure.gateway.wait_for_records("intent", 2) {
        assert_eq!((&intent["via"], &intent["tls"]), (&json!("127.0.0.1"), &json!("1.3")));
    }
    assert!(!secure.curl(&[]).content, "without it there is no handshake");
    secure.gateway.wait_for_record("refused", |record| record["reason"] == "proxy_header");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_be_a_credential_which_a_confined_gateway_reads_again() {
    let mut secure = Secure::start("", "").await;
    let credentials = gateway::fresh_directory();
    fs::rename(secure.authority.path("first.key"), credentials.join("tls.key")).unwrap();
    let certificates = secure.certificates(&["first"]).replace(&secure.authority.path("first.key"), "${cred:tls.key}");
    let setup = gateway::setup(&secure.config("", &certificates));
    secure.gateway = setup.variable("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap()).start();
    assert!(secure.curl(&[]).content);
    secure.gateway.signal("HUP");
    secure.gateway.wait_for_log("configuration reloaded");
    assert!(!secure.gateway.log().contains("ERROR"), "{}", secure.gateway.log());
    assert!(secure.curl(&[]).content);
    fs::remove_dir_all(credentials).unwrap();
}

#[test]
fn each_mistake_is_told_where_it_stands() {
    let directory = gateway::fresh_directory();
    let authority = Authority::new(&directory, "ca");
    authority.issue("good", "DNS:localhost", 30);
    authority.issue("other", "DNS:localhost", 30);
    authority.issue("late", "DNS:late.example", -1);
    authority.openssl("pkcs8 -topk8 -in good.key -out locked.key -passout pass:secret -v2 aes-256-cbc");
    fs::write(directory.join("empty.pem"), "nothing here\n").unwrap();
    let good = fs::read_to_string(directory.join("good.pem")).unwrap();
    fs::write(directory.join("damaged.pem"), good.replacen("MII", "!!!", 1)).unwrap();
    fs::write(directory.join("nonsense.pem"), "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n")
        .unwrap();

    let pair =
        |cert: &str, key: &str| format!("certificates = [\n{{ cert_file = \"{cert}\", key_file = \"{key}\" }},\n]\n");
    let asking = |file: &str| {
        format!("{}client_auth = \"require\"\nclient_ca_file = \"{file}\"\n", pair("good.pem", "good.key"))
    };
    let table = [
        (pair("absent.pem", "good.key"), "absent.pem`: No such file", "4:15"),
        (pair("good.pem", "absent.key"), "absent.key`: No such file", "4:38"),
        (pair("empty.pem", "good.key"), "there is no certificate in `", "4:15"),
        (pair("good.key", "good.key"), "there is no certificate in `", "4:15"),
        (pair("damaged.pem", "good.key"), "is damaged: a certificate in it cannot be read", "4:15"),
        (pair("nonsense.pem", "good.key"), "certificate 1 in `", "4:15"),
        (pair("good.pem", "good.pem"), "there is no private key in `", "4:38"),
        (pair("good.pem", "locked.key"), "is encrypted", "4:38"),
        (pair("good.pem", "other.key"), "other.key` does not belong to the certificate in `", "4:38"),
        (pair("late.pem", "late.key"), "the certificate of `late.example` expired on ", "4:15"),
        (asking("absent.pem"), "absent.pem`: No such file", "7:18"),
        (asking("empty.pem"), "there is no certificate in `", "7:18"),
        (asking("nonsense.pem"), "certificate 1 in `", "7:18"),
        (format!("{}client_auth = \"request\"\n", pair("good.pem", "good.key")), "there is nothing to verify", "6:15"),
    ];
    let path = directory.join("portcullis.toml");
    for (tls, message, place) in &table {
        fs::write(&path, format!("# TLS\n[listen.tls]\n{tls}[servers.a]\nurl = \"http://h/\"\n")).unwrap();
        let (code, out, error) = run(&["check", "--config", path.to_str().unwrap()]);
        let said = format!("{out}{error}");
        assert_eq!(code, Some(3), "{message}\n{said}");
        assert!(said.contains(message), "{message}\n{said}");
        assert!(said.contains(&format!("portcullis.toml:{place}")), "{message} at {place}\n{said}");
        assert_eq!(said.matches("error: ").count(), 1, "{message}\n{said}");
    }
    fs::write(&path, format!("[listen.tls]\n{}[servers.a]\nurl = \"http://h/\"\n", pair("good.pem", "good.key")))
        .unwrap();
    let (code, out, error) = run(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{out}{error}");
    fs::remove_dir_all(directory).unwrap();
}
