//! Who calls: keys that were brought along, keys with a prefix of one's own, certificates of clients, and what agents say they are.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::support::certificates::Authority;
use crate::support::client;
use crate::support::client::Connection;
use crate::support::clock::Clock;
use crate::support::clock::within;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::run;
use crate::support::gateway::wait_until;
use crate::support::h2;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

/// Keys as other gateways make them, the last one with dots.
const KEYS: [&str; 3] =
    ["sk-9aXq3TzL0vBn7KdWc2RyHg", "7f9c2ba4e88f827d616045507605853e", "SG.n3Xq0TzL8vBn7Kd.Wc2RyHgP5mQ1"];
const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{}}}"#;
/// Within how long whoever is turned off must be gone.
const ENDED: Duration = Duration::from_secs(1);

/// Runs `keys import` with this on standard input: exit code, standard output, standard error.
fn import(options: &[&str], text: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(gateway::binary());
    command.args(["keys", "import"]).args(options);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("portcullis");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn sha256(text: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imported_keys_are_known_in_every_header_and_stand_nowhere() {
    let upstream = Upstream::start().await;
    upstream.on("tools/call", Reply::text("done"));
    let text = format!("# of the old gateway\nci {}\n\nteam-b,{}\n{}\n", KEYS[0], KEYS[1], KEYS[2]);
    let (code, tables, error) = import(&["--mcp-servers", "a"], &text);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    for key in KEYS {
        assert!(!tables.contains(key) && tables.contains(&format!("digest = \"sha256:{}\"", sha256(key))), "{tables}");
    }
    let listen = format!("[auth]\nkey_headers = [\"X-Team-Key\"]\n[servers.a]\nurl = \"{}\"\n", upstream.url());
    let gateway = Gateway::start(&format!("{listen}{tables}"));
    let third = format!("key:imported-{}", &sha256(KEYS[2])[..12]);
    for (key, principal) in [(KEYS[0], "key:ci"), (KEYS[1], "key:team-b"), (KEYS[2], third.as_str())] {
        for header in ["Authorization: Bearer ", "X-API-Key: ", "API-Key: ", "X-Team-Key: "] {
            let answer = gateway.post("/mcp/a", &[&format!("{header}{key}")], CALL).await;
            assert_eq!(answer.status, 200, "{header}{key}: {answer:?}");
        }
        let wrong = format!("Authorization: Bearer {}", key.replace('9', "8").replace('3', "4"));
        assert_eq!(gateway.post("/mcp/a", &[&wrong], CALL).await.status, 401);
        gateway.wait_for_record("intent", |record| record["principal"] == principal && record["credential"] == "key");
    }
    let records = fs::read_dir(gateway.directory.join("audit")).unwrap();
    let records: String = records.map(|file| fs::read_to_string(file.unwrap().path()).unwrap_or_default()).collect();
    assert!(KEYS.iter().all(|key| !records.contains(key) && !gateway.log().contains(key)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn digests_that_others_hold_are_taken_as_they_are() {
    let upstream = Upstream::start().await;
    upstream.on("tools/call", Reply::text("done"));
    let listed = json!({ "keys": [
        { "token": sha256(KEYS[0]), "key_alias": "data team", "key_name": "sk-...RyHg", "expires": null },
        { "token": sha256(KEYS[1]), "key_alias": "late", "expires": "2020-01-01T00:00:00+00:00" },
        { "token": sha256(KEYS[2]), "key_alias": "off", "blocked": true },
    ] });
    let (code, tables, error) = import(&["--mcp-servers", "a"], &listed.to_string());
    assert!(code == Some(0) && error.contains("of 3 keys only the digests are known"), "{error}");
    let gateway = Gateway::start(&format!("[servers.a]\nurl = \"{}\"\n{tables}", upstream.url()));
    for (key, status, reason) in
        [(KEYS[0], 200, None), (KEYS[1], 401, Some("key_expired")), (KEYS[2], 401, Some("key_disabled"))]
    {
        let answer = gateway.post("/mcp/a", &[&format!("X-API-Key: {key}")], CALL).await;
        assert_eq!(answer.status, status, "{answer:?}");
        if let Some(reason) = reason {
            gateway.wait_for_record("refused", |record| record["reason"] == reason);
        }
    }
    gateway.wait_for_record("intent", |record| record["principal"] == "key:data-team");
    // What narrowed them there and does not here is told of.
    assert!(!error.contains("not taken over"), "{error}");
    let narrowed = json!([
        { "token": sha256(KEYS[0]), "max_budget": 1.0, "object_permission": { "mcp_servers": ["a"], "vector_stores": [] } },
        { "token": sha256(KEYS[1]), "max_budget": null, "object_permission": { "mcp_servers": [] }, "allowed_routes": [] },
        { "token": sha256(KEYS[2]), "team_id": "t1" },
    ]);
    let (code, _, error) = import(&[], &narrowed.to_string());
    let told =
        "2 of 3 entries are narrowed there in ways that are not taken over: max_budget, object_permission, team_id;";
    assert!(code == Some(0) && error.contains(told), "{error}");
    let hex = format!("x {}\ny sha256:{}\n", sha256("x"), sha256("y").to_uppercase());
    let (code, tables, _) = import(&["--digests"], &hex);
    assert_eq!((code, tables.matches("sha256:").count()), (Some(0), 2), "{tables}");
    assert!(tables.contains(&sha256("x")) && tables.contains(&sha256("y")));
}

#[test]
fn keys_are_taken_out_of_the_quotes_of_a_table_and_doubted_where_they_may_be_made_from_the_time() {
    let timed = "c232ab00941411ecb3c89f6bdeced846";
    let text = format!("\"name\",\"key\"\n\"ci\",\"{}\"\nother,'{}'\nthird {timed}\n#of old\n", KEYS[0], KEYS[1]);
    let (code, tables, error) = import(&[], &text);
    assert_eq!(code, Some(0), "{error}");
    assert!(error.contains("1 of 3 keys may be UUIDs that are made from the time"), "{error}");
    for (name, key) in [("ci", KEYS[0]), ("other", KEYS[1]), ("third", timed)] {
        let table = format!("[keys.{name}]\ndigest = \"sha256:{}\"", sha256(key));
        assert!(tables.contains(&table), "{tables}");
    }
}

#[test]
fn what_cannot_be_imported_is_told_by_its_line_and_never_shown() {
    let weak = "Passw0rd-Passw0rd-Passw0rd";
    for (text, line, message) in [
        (format!("ok {}\nci sk-1234\n", KEYS[0]), "line 2", "different characters"),
        (format!("ci {weak}\n"), "line 1", "too easy to guess"),
        (format!("{} ci\n", KEYS[0]), "line 1", "the name looks like a key"),
        (format!("a {0}\nb {0}\n", KEYS[0]), "line 2", "the same key as 1"),
        (format!("a {}\na {}\n", KEYS[0], KEYS[1]), "line 2", "the same name as 1"),
        (format!("a {} more\n", KEYS[0]), "line 1", "more than a name and a key"),
        (format!("größe {}\n", KEYS[0]), "line 1", "a name has 1 to 64 letters"),
        ("a sha256:abcd\n".to_owned(), "line 1", "64 hexadecimal digits"),
        (format!("[{{ \"token\": \"{}\" }}]", KEYS[0]), "entry 1", "64 hexadecimal digits"),
        (format!("[{{ \"key\": \"{weak}\" }}]"), "entry 1", "too easy to guess"),
        (format!("[{{ \"kee\": \"{weak}\" }}]"), "entry 1", "either `token`"),
        (format!("[\"{weak}\"]"), "error", "no list of keys"),
        (String::new(), "error", "0 keys"),
        (format!("ok {}\n#{}\n", KEYS[0], KEYS[1]), "line 2", "read as a comment"),
        (format!("ci ptc_m_{}\n", KEYS[1]), "line 1", "opened as a minted key"),
        ("ci sk-c232ab00-9414-11ec-b3c8-9f6bdeced846\n".to_owned(), "line 1", "not a random one"),
    ] {
        let (code, out, error) = import(&[], &text);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{text}");
        assert!(error.contains(line) && error.contains(message), "{text}: {error}");
        assert!(!error.contains(weak) && KEYS.iter().all(|key| !error.contains(key)), "{error}");
    }
    let (code, _, error) = run(&["keys", "import"]);
    assert!(code == Some(1) && error.contains("0 keys"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_keys_begin_as_configured_and_old_ones_stay_valid() {
    let upstream = Upstream::start().await;
    upstream.on("tools/call", Reply::text("done"));
    let old = gateway::make_key("old");
    let config = format!(
        "[auth]\nkey_prefix = \"acme\"\n[servers.a]\nurl = \"{}\"\n[keys.old]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\n",
        upstream.url(),
        old.digest
    );
    let gateway = Gateway::start(&config);
    let file = gateway.directory.join("portcullis.toml");
    let create =
        ["keys", "create", "--name", "new", "--mcp-servers", "a", "--json", "--config", file.to_str().unwrap()];
    let (code, out, error) = run(&create);
    assert_eq!(code, Some(0), "{error}");
    let made: Value = serde_json::from_str(&out).unwrap();
    let new = made["key"].as_str().unwrap();
    assert!(new.starts_with("acme_") && new.len() == "acme_".len() + 58, "{new}");
    gateway.reload(&format!("{config}{}", made["toml"].as_str().unwrap()));
    gateway.wait_for_log("configuration reloaded");
    for key in [new, &old.key] {
        assert_eq!(gateway.post("/mcp/a", &[&format!("Authorization: Bearer {key}")], CALL).await.status, 200, "{key}");
        assert_eq!(gateway.post(&format!("/mcp/a?q={key}"), &[], CALL).await.status, 400, "not in the URL");
    }
    for bad in ["a", "1a", "a-b", "pk1"] {
        let (code, _, error) = run(&["keys", "create", "--name", "x", "--prefix", bad]);
        assert!(code == Some(2) && error.contains("keys cannot begin with"), "{bad}: {error}");
    }
}

/// A gateway that asks clients for certificates, and who issued them.
struct Certified {
    authority: Authority,
    gateway: Gateway,
    directory: PathBuf,
    head: String,
}

impl Drop for Certified {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Certified {
    async fn start(keys: &str) -> (Self, Upstream) {
        let directory = gateway::fresh_directory();
        let authority = Authority::new(&directory, "ca");
        authority.issue("server", "DNS:localhost", 30);
        authority.issue("ci", "DNS:ci.example,URI:spiffe://example.com/ci", 30);
        authority.issue("other", "DNS:other.example", 30);
        fs::copy(authority.path("ca.pem"), directory.join("clients.pem")).unwrap();
        let upstream = Upstream::start().await;
        upstream.on("tools/call", Reply::text("done"));
        let path = |file: &str| authority.path(file);
        let head = format!(
            "[listen.tls]\nclient_auth = \"request\"\nclient_ca_file = \"{}\"\n\
             certificates = [{{ cert_file = \"{}\", key_file = \"{}\" }}]\n[servers.a]\nurl = \"{}\"\n",
            path("clients.pem"),
            path("server.pem"),
            path("server.key"),
            upstream.url()
        );
        let gateway = Gateway::start(&format!("{head}{keys}"));
        (Self { authority, gateway, directory, head }, upstream)
    }

    /// Reloads, and waits until the new configuration is in force.
    fn reload(&self, keys: &str) {
        let count = || self.gateway.log().matches("configuration reloaded").count();
        let before = count();
        self.gateway.reload(&format!("{}{keys}", self.head));
        wait_until("the configuration is in force", || count() > before);
    }

    /// curl with the certificate of this name, if one is named, and these further options.
    fn curl(&self, certificate: Option<&str>, options: &[&str]) -> Command {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20", "--cacert", &self.authority.path("ca.pem")]);
        if let Some(name) = certificate {
            let path = |kind: &str| self.authority.path(&format!("{name}.{kind}"));
            command.args(["--cert", &path("pem"), "--key", &path("key")]);
        }
        command.args(["-H", "Content-Type: application/json", "-H", "Accept: application/json, text/event-stream"]);
        command.args(options).arg(format!("https://localhost:{}/mcp/a", self.gateway.data.port()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The status and the body of a call.
    fn call(&self, certificate: Option<&str>, options: &[&str]) -> (u16, String) {
        let output =
            self.curl(certificate, &[&["-d", CALL, "-w", "\n%{http_code}"], options].concat()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_stands_for_a_key_and_a_shown_key_wins() {
    let (own, bound) = (gateway::make_key("own"), gateway::make_key("bound"));
    let keys = format!(
        "[keys.ci]\ncertificate = {{ uri = \"spiffe://example.com/ci\" }}\nmcp_servers = [\"a\"]\n\
         [keys.own]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\n\
         [keys.bound]\ndigest = \"{}\"\ncertificate = {{ dns = \"other.example\" }}\nmcp_servers = [\"a\"]\n",
        own.digest, bound.digest
    );
    let (certified, _upstream) = Certified::start(&keys).await;
    let (own, bound) = (format!("X-API-Key: {}", own.key), format!("X-API-Key: {}", bound.key));
    for version in ["--http1.1", "--http2"] {
        assert_eq!(certified.call(Some("ci"), &[version]).0, 200);
    }
    let by_certificate = |record: &Value| record["principal"] == "key:ci" && record["credential"] == "certificate";
    assert!(certified.gateway.wait_for_records("intent", 2).iter().all(by_certificate));
    assert_eq!(certified.call(Some("ci"), &["-H", &own]).0, 200);
    certified.gateway.wait_for_record("intent", |record| {
        record["principal"] == "key:own" && record["credential"] == "key" && record["client_cert_subject"] == "CN=ci"
    });
    assert_eq!(certified.call(Some("other"), &["-H", &bound]).0, 200);
    for (certificate, options, reason) in [
        (None, &[][..], "key_missing"),
        (Some("other"), &[], "key_missing"),
        (None, &["-H", &bound], "key_certificate"),
        (Some("ci"), &["-H", &bound], "key_certificate"),
        (Some("ci"), &["-H", "X-API-Key: nobody"], "key_unknown"),
    ] {
        let (status, body) = certified.call(certificate, options);
        assert_eq!(status, 401, "{certificate:?} {options:?}");
        assert!(!body.contains("certificate"), "{body}");
        certified.gateway.wait_for_record("refused", |record| record["reason"] == reason);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_for_keys_goes_for_those_with_a_certificate() {
    let table = "[keys.ci]\ncertificate = { uri = \"spiffe://example.com/ci\" }\nmcp_servers = [\"a\"]\n";
    let (certified, upstream) = Certified::start(table).await;
    upstream.on("tools/call", Reply::never());
    for (change, reason) in [(format!("{table}disabled = true\n"), "key_disabled"), (String::new(), "key_missing")] {
        certified.reload(table);
        let before = upstream.requests().len();
        let mut held: Child = certified.curl(Some("ci"), &["-d", CALL]).spawn().unwrap();
        wait_until("the call is out", || upstream.requests().len() > before);
        certified.reload(&change);
        let asked = Clock::start();
        wait_until("the call has ended", || held.try_wait().unwrap().is_some());
        assert!(asked.elapsed() < ENDED, "{reason}");
        assert_eq!(certified.call(Some("ci"), &[]).0, 401, "{reason}");
        certified.gateway.wait_for_record("refused", |record| record["reason"] == reason);
    }
    certified.reload(&format!("{table}allowed_sources = [\"192.0.2.0/24\"]\n"));
    assert_eq!(certified.call(Some("ci"), &[]).0, 401);
    certified.gateway.wait_for_record("refused", |record| record["reason"] == "key_source");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_bound_to_a_certificate_goes_on_only_where_that_was_shown() {
    let own = gateway::make_key("own");
    let table = format!("[keys.own]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\n", own.digest);
    let (certified, upstream) = Certified::start(&table).await;
    upstream.on("tools/call", Reply::never());
    let header = format!("X-API-Key: {}", own.key);
    let mut held = Vec::new();
    for certificate in [None, Some("other"), Some("ci")] {
        let before = upstream.requests().len();
        held.push(certified.curl(certificate, &["-d", CALL, "-H", &header]).spawn().unwrap());
        wait_until("the call is out", || upstream.requests().len() > before);
    }
    certified.reload(&format!("{table}certificate = {{ dns = \"ci.example\" }}\n"));
    let started = Instant::now();
    let [none, other, ci] = &mut held[..] else { unreachable!() };
    for ended in [none, other] {
        wait_until("the call has ended", || ended.try_wait().unwrap().is_some());
    }
    assert!(started.elapsed() < ENDED);
    assert!(ci.try_wait().unwrap().is_none(), "whoever shows the certificate goes on");
    certified.reload(&table.replace(&own.digest, &gateway::make_key("new").digest));
    wait_until("the call has ended", || ci.try_wait().unwrap().is_some());
}

/// A connection that stays open, on which a certificate was shown.
struct Open {
    openssl: Child,
    out: BufReader<ChildStdout>,
}

impl Open {
    fn by(certified: &Certified, certificate: &str) -> Self {
        let path = |file: &str| certified.authority.path(file);
        let mut openssl = Command::new("openssl");
        openssl.args([
            "s_client",
            "-quiet",
            "-connect",
            &certified.gateway.data.to_string(),
            "-CAfile",
            &path("ca.pem"),
        ]);
        openssl.args(["-cert", &path(&format!("{certificate}.pem")), "-key", &path(&format!("{certificate}.key"))]);
        openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut openssl = openssl.spawn().unwrap();
        let out = BufReader::new(openssl.stdout.take().unwrap());
        Self { openssl, out }
    }

    /// The status of a call.
    fn call(&mut self, headers: &[&str]) -> u16 {
        let mut input = self.openssl.stdin.as_ref().unwrap();
        input.write_all(client::post("/mcp/a", headers, CALL).as_bytes()).unwrap();
        input.flush().unwrap();
        let (mut head, mut line) = (Vec::new(), String::new());
        while self.out.read_line(&mut line).unwrap() > 0 && !line.trim().is_empty() {
            head.push(std::mem::take(&mut line).to_ascii_lowercase());
        }
        let length = head.iter().find_map(|line| line.strip_prefix("content-length:")).unwrap().trim().parse().unwrap();
        let mut body = vec![0; length];
        self.out.read_exact(&mut body).unwrap();
        head[0].split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn is_at_its_end(&mut self) -> bool {
        self.out.fill_buf().unwrap().is_empty()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.openssl.kill();
        let _ = self.openssl.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_proves_nothing_once_its_issuer_is_no_longer_trusted() {
    let (own, bound) = (gateway::make_key("own"), gateway::make_key("bound"));
    let keys = format!(
        "[keys.ci]\ncertificate = {{ dns = \"ci.example\" }}\nmcp_servers = [\"a\"]\n\
         [keys.own]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\n\
         [keys.bound]\ndigest = \"{}\"\ncertificate = {{ uri = \"spiffe://example.com/ci\" }}\nmcp_servers = [\"a\"]\n",
        own.digest, bound.digest
    );
    let (certified, upstream) = Certified::start(&keys).await;
    upstream.on("GET", Reply::standing(Vec::new()));
    let (own, bound) = (format!("X-API-Key: {}", own.key), format!("X-API-Key: {}", bound.key));
    let shown = [&[][..], &[bound.as_str()], &[own.as_str()]];
    let mut open = shown.map(|headers| (headers, Open::by(&certified, "ci")));
    let mut streams = [Vec::new(), vec!["-H", &bound], vec!["-H", &own]].map(|options| {
        let before = upstream.requests_for("GET").len();
        let stream = certified.curl(Some("ci"), &[&["-N"], &options[..]].concat()).spawn().unwrap();
        wait_until("the stream stands", || upstream.requests_for("GET").len() > before);
        stream
    });
    let (ca, identity) = (certified.authority.path("ca.pem"), certified.authority.path("ci"));
    let mut frames = h2::Connection::open_as(Some(&identity), &ca, Ipv4Addr::LOCALHOST, certified.gateway.data).await;
    frames.write([h2::PREFACE, &h2::frame(h2::SETTINGS, 0, 0, &[])[..]].concat()).await;
    let head = |stream: u32| {
        let fields = [(":method", "GET"), (":scheme", "https"), (":path", "/mcp/a"), (":authority", "localhost")];
        let fields = [&fields[..], &[("accept", "application/json")]].concat();
        h2::frame(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, stream, &h2::block(&fields))
    };

    // Another issuer beside the one that vouched: nothing changes.
    let next = Authority::new(&certified.directory, "next");
    next.issue("renewed", "DNS:ci.example", 30);
    let text = |name: &str| fs::read_to_string(certified.directory.join(name)).unwrap();
    let trust = |issuers: &str| {
        fs::write(certified.directory.join("clients.pem"), issuers).unwrap();
        certified.reload(&keys);
    };
    trust(&format!("{}{}", text("next.pem"), text("ca.pem")));
    for (headers, open) in &mut open {
        assert_eq!(open.call(headers), 200, "{headers:?}");
    }
    assert!(streams.iter_mut().all(|stream| stream.try_wait().unwrap().is_none()));

    trust(&text("next.pem"));
    let started = Instant::now();
    for stream in &mut streams {
        wait_until("the stream has ended", || stream.try_wait().unwrap().is_some());
    }
    assert!(started.elapsed() < ENDED);
    for (headers, open) in &mut open {
        assert_eq!(open.call(headers), 401, "{headers:?}");
        assert!(open.is_at_its_end(), "{headers:?}: its client connects again, or cannot");
    }
    // Of one reason in one second one is on record whole, the others are counted.
    certified.gateway.wait_for_record("refused", |record| record["reason"] == "certificate_untrusted");
    let records = certified.gateway.records();
    let refused: Vec<&Value> = records.iter().filter(|record| record["kind"] == "refused").collect();
    assert!(refused.iter().all(|record| record["reason"] == "certificate_untrusted"), "{refused:?}");
    frames.write(head(1)).await;
    // So do those of HTTP/2.
    while frames.frame().await.expect("it is told to go").kind != h2::GOAWAY {}
    assert_eq!(certified.call(Some("renewed"), &[]).0, 200);
}

const CLAUDE_CODE: &str = "User-Agent: claude-code/2.1.204 (cli)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_reports_itself_is_denied_and_never_granted() {
    let upstream = Upstream::start().await;
    let tool = |name: &str| json!({ "name": name, "inputSchema": { "type": "object" } });
    upstream.on("tools/list", Reply::json(json!({ "tools": [tool("x"), tool("y")] })));
    upstream.on("tools/call", Reply::text("done"));
    let key = gateway::make_key("ci");
    let mut config = String::new();
    for (server, rules) in
        [("a", "blocked_agents = [\"cursor\", \"claude-code\"]"), ("b", "allowed_agents = [\"helper\"]"), ("c", "")]
    {
        config += &format!("[servers.{server}]\nurl = \"{}\"\n{rules}\n", upstream.url());
    }
    config += &format!(
        "[keys.ci]\ndigest = \"{}\"\nmcp_servers = [\"a\", \"b\", \"c\"]\n\
         [agents.helper]\nreported_as = [\"helper/*\"]\nmcp_servers = [\"*\"]\n\
         [agents.helper.servers.c]\nallowed_tools = [\"y\"]\n",
        key.digest
    );
    let gateway = Gateway::start(&config);
    let key = format!("Authorization: Bearer {}", key.key);
    let permitted = async |path: &str, headers: &[&str], body: &str| {
        let answer = gateway.post(path, headers, body).await;
        (answer.status, answer.code()) == (200, None)
    };
    assert!(permitted("/mcp/a", &[&key], CALL).await);
    assert!(!permitted("/mcp/a", &[&key, CLAUDE_CODE], CALL).await);
    let refused = gateway.wait_for_record("refused", |record| record["reason"] == "server_agent_blocked");
    assert_eq!(
        (&refused["reported_agent"], &refused["rule"]),
        (&json!("claude-code"), &json!("servers.a.blocked_agents[1]"))
    );
    let greeting = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "cursor-vscode", "version": "1" } } });
    assert!(!permitted("/mcp/a", &[&key], &greeting.to_string()).await);
    gateway.wait_for_record("refused", |record| record["reported_agent"] == "cursor");
    let modern = client::modern("tools/call", Some("x"));
    let headers: Vec<&str> = modern.iter().map(String::as_str).chain([key.as_str()]).collect();
    let call = |name: &str| {
        let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": { "name": name, "version": "1" } });
        let params = json!({ "name": "x", "arguments": {}, "_meta": meta });
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string()
    };
    assert!(permitted("/mcp/a", &headers, &call("somebody")).await);
    assert!(!permitted("/mcp/a", &headers, &call("Cursor (via mcp-remote 0.1.37)")).await);

    // Neither the list of allowed agents nor the agent's level grants anything to who merely says so.
    assert!(!permitted("/mcp/b", &[&key, "User-Agent: helper/1.0"], CALL).await);
    // Its matrix holds, and what is listed is what may be called.
    assert!(
        permitted("/mcp/c", &[&key], CALL).await && !permitted("/mcp/c", &[&key, "User-Agent: helper/1"], CALL).await
    );
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#;
    let listed = gateway.post("/mcp/c", &[&key, "User-Agent: Helper/1"], list).await.json();
    assert_eq!(listed["result"]["tools"], json!([tool("y")]));
    gateway.wait_for_record("intent", |record| record["reported_agent"] == "helper" && record.get("agent").is_none());

    let file = gateway.directory.join("portcullis.toml");
    let explain = |reported: &str| {
        let call = ["--key", "ci", "--server", "a", "--tool", "x", "--reported-as", reported];
        run(&[&["explain", "--config", file.to_str().unwrap()], &call[..]].concat())
    };
    let (code, out, _) = explain("claude-code/2.1.204 (cli)");
    assert!(code == Some(4) && out.contains("says it is: claude-code") && out.contains("blocked_agents[1]"), "{out}");
    assert_eq!(explain("curl/8").0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reported_agent_that_is_blocked_is_gone_within_a_second() {
    let (key, upstream) = (gateway::make_key("ci"), Upstream::start().await);
    upstream.on("tools/call", Reply::never());
    let config = key.config(&upstream);
    let gateway = Gateway::start(&config);
    let post = client::post("/mcp/a", &[&format!("Authorization: Bearer {}", key.key), CLAUDE_CODE], CALL);
    let mut held = Connection::open(gateway.data).await;
    held.write(post).await;
    upstream.wait_for("tools/call", 1).await;
    // Nothing spoke of reports when the call began.
    gateway.reload(&config.replace("[servers.a]", "[servers.a]\nblocked_agents = [\"claude-code\"]"));
    let answer = within(ENDED, held.answer()).await.expect("it ends in time").unwrap();
    assert_eq!(answer.status, 403, "{answer:?}");
    gateway.wait_for_record("result", |record| record["reason"] == "permission_withdrawn");
}
