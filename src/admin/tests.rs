//! Does the admin listener answer its own machine, and nobody else?

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use super::*;

fn ready() -> Readiness {
    let checks = vec![
        Check::counting("config_loaded", true).with("revision 3"),
        Check::counting("audit_available", true),
        Check::informing("server/a", true),
    ];
    Readiness { checks }
}

/// The same with one thing amiss.
fn ready_but_for(name: &str) -> Readiness {
    let mut readiness = ready();
    readiness.checks.iter_mut().filter(|check| check.name == name).for_each(|check| check.ok = false);
    readiness
}

fn probes(readiness: &Arc<Mutex<Readiness>>) -> Probes {
    let readiness = Arc::clone(readiness);
    Probes {
        metrics: Box::new(|| "portcullis_streams 3\n".into()),
        readiness: Box::new(move || readiness.lock().unwrap().clone()),
    }
}

/// A listener on a port of the system's choice, whose gateway is ready until the test says otherwise.
fn started() -> (Admin, SocketAddr, Arc<Mutex<Readiness>>) {
    let readiness = Arc::new(Mutex::new(ready()));
    let admin = start(&check_address("127.0.0.1:0").unwrap(), probes(&readiness)).unwrap();
    let AdminAddress::Tcp(address) = *admin.address() else { panic!("a port was asked for") };
    (admin, address, readiness)
}

/// Sends a whole request and reads the answer to its end.
fn exchange(mut io: impl Read + Write, request: &str) -> String {
    let _ = io.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = io.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn ask(address: SocketAddr, request: &str) -> String {
    let io = TcpStream::connect(address).unwrap();
    io.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    exchange(io, request)
}

fn get(address: SocketAddr, target: &str) -> String {
    ask(address, &format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

/// An empty directory of this test's own.
fn directory(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("portcullis-admin-{}-{test}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn metrics_and_life_are_told() {
    let (_admin, address, _) = started();
    assert_ne!(address.port(), 0);
    let answer = get(address, "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nportcullis_streams 3\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    assert!(get(address, "/livez").starts_with("HTTP/1.1 200 "));
    assert!(get(address, "/debug").starts_with("HTTP/1.1 404 "));
}

#[test]
fn each_thing_that_is_amiss_makes_the_gateway_unready() {
    let (_admin, address, readiness) = started();
    assert!(get(address, "/readyz").ends_with("\r\n\r\nready\n"));
    for (name, line) in [
        ("config_loaded", "[-] config_loaded failed: revision 3\n"),
        ("audit_available", "[-] audit_available failed\n"),
    ] {
        *readiness.lock().unwrap() = ready_but_for(name);
        let answer = get(address, "/readyz?verbose");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains(line), "{answer}");
        assert_eq!(answer.matches("[+]").count(), 2, "{answer}");
        assert!(get(address, "/readyz").ends_with("\r\n\r\nnot ready\n"));
        assert!(get(address, "/livez").starts_with("HTTP/1.1 200 "), "a gateway that is not ready is alive");
    }
}

#[test]
fn what_does_not_count_is_told_and_changes_nothing() {
    let (_admin, address, readiness) = started();
    *readiness.lock().unwrap() = ready_but_for("server/a");
    let answer = get(address, "/readyz?verbose=1");
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("[-] server/a failed (does not count)\nready\n"),
        "{answer}"
    );
    assert!(get(address, "/readyz").ends_with("\r\n\r\nready\n"));
}

#[test]
fn readiness_is_told_as_json_to_who_asks_for_it() {
    let (_admin, address, readiness) = started();
    let json = |target: &str, accept: &str| {
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
        let answer = ask(address, &request);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    };
    *readiness.lock().unwrap() = ready_but_for("audit_available");
    let (head, body) = json("/readyz?verbose", "text/html, Application/JSON;q=0.9");
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("content-type: application/json\r\n"), "{head}");
    let expected = serde_json::json!({ "ready": false, "checks": [
        { "name": "config_loaded", "ok": true, "counts": true, "detail": "revision 3" },
        { "name": "audit_available", "ok": false, "counts": true },
        { "name": "server/a", "ok": true, "counts": false },
    ] });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap(), expected);
    assert_eq!(json("/readyz", "application/json").1, r#"{"ready":false}"#);
    for other in ["*/*", "text/plain", "application/jsonl"] {
        assert_eq!(json("/readyz", other).1, "not ready\n", "{other}");
    }
}

#[test]
fn only_a_loopback_name_is_answered() {
    let (_admin, address, _) = started();
    let with = |head: &str| ask(address, &format!("GET {head}Connection: close\r\n\r\n"));
    for host in ["localhost", "LOCALHOST:9090", "127.0.0.1:1", "127.8.8.8", "[::1]:9090", "[::ffff:127.0.0.1]"] {
        let answer = with(&format!("/livez HTTP/1.1\r\nHost: {host}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
    }
    for host in
        ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "a@localhost", "0.0.0.0"]
    {
        let answer = with(&format!("/livez HTTP/1.1\r\nHost: {host}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 403 "), "{host}: {answer}");
    }
    for head in [
        "/metrics HTTP/1.1\r\n",
        "/metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
        "http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n",
        "/unknown HTTP/1.1\r\nHost: evil.example\r\n",
    ] {
        let answer = with(head);
        assert!(answer.starts_with("HTTP/1.1 403 ") && !answer.contains("portcullis_"), "{head}: {answer}");
    }
}

#[test]
fn nothing_but_get_is_answered() {
    let (_admin, address, _) = started();
    for method in ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "BREW"] {
        let answer =
            ask(address, &format!("{method} /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET\r\n"), "{method}: {answer}");
    }
}

#[test]
fn a_large_head_is_refused() {
    let (_admin, address, _) = started();
    let long = "a".repeat(serve::HEAD_BYTES_MAX);
    let many = "X-A: b\r\n".repeat(serve::HEADER_COUNT_MAX);
    for headers in [format!("X-Long: {long}\r\n"), many] {
        let answer = ask(address, &format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}

#[test]
fn more_connections_than_the_limit_wait_their_turn() {
    let (_admin, address, _) = started();
    let held: Vec<TcpStream> = (0..serve::CONNECTIONS_MAX).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut late = TcpStream::connect(address).unwrap();
    late.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    late.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(late.read(&mut [0]).is_err(), "all places are taken");
    drop(held);
    late.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(exchange(late, "").starts_with("HTTP/1.1 200 "));
}

#[test]
fn only_addresses_of_this_machine_are_accepted() {
    for text in
        ["127.0.0.1:9090", "127.1.2.3:0", "[::1]:9090", "[::ffff:127.0.0.1]:1", "unix:/run/portcullis/admin.sock"]
    {
        assert_eq!(check_address(text).unwrap().to_string(), text);
    }
    assert_eq!(check_address("localhost:9090").unwrap().url(), "http://127.0.0.1:9090");
    for text in ["0.0.0.0:9090", "[::]:9090", "10.0.0.1:9090", "[2001:db8::1]:9090", "[::ffff:10.0.0.1]:1"] {
        assert!(check_address(text).unwrap_err().contains("unauthenticated"), "{text}");
    }
    let long = format!("unix:/{}", "a".repeat(107));
    let wrong = ["", "9090", "localhost", "localhost:99999", "example.com:9090", "127.0.0.1", ":9090"];
    for text in wrong.into_iter().chain(["unix:", "unix:admin.sock", "unix:/", "unix:/run/", &long]) {
        assert!(check_address(text).is_err(), "{text}");
    }
}

#[test]
fn an_address_in_use_is_named() {
    let (_admin, address, readiness) = started();
    let error = start(&AdminAddress::Tcp(address), probes(&readiness)).err().unwrap().to_string();
    assert_eq!(
        error,
        format!("the admin listener cannot use `{address}`: the address is in use; is a gateway running already?")
    );
}

#[test]
fn a_unix_socket_serves_its_group_and_goes_away() {
    let path = directory("serves").join("admin.sock");
    let readiness = Arc::new(Mutex::new(ready()));
    let address = check_address(&format!("unix:{}", path.display())).unwrap();
    let admin = start(&address, probes(&readiness)).unwrap();
    assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let request = "GET /metrics HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n";
    let answer = exchange(UnixStream::connect(&path).unwrap(), request);
    assert!(answer.ends_with("portcullis_streams 3\n"), "{answer}");
    let error = start(&address, probes(&readiness)).err().unwrap().to_string();
    assert!(error.contains("another process answers there"), "{error}");
    assert!(exchange(UnixStream::connect(&path).unwrap(), request).starts_with("HTTP/1.1 200 "), "the first goes on");
    drop(admin);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else() {
    let directory = directory("stale");
    let path = directory.join("admin.sock");
    let address = AdminAddress::Unix(path.clone());
    let readiness = Arc::new(Mutex::new(ready()));
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a socket stays behind its process");
    let admin = start(&address, probes(&readiness)).unwrap();
    assert!(UnixStream::connect(&path).is_ok());
    fs::remove_file(&path).unwrap();
    fs::write(&path, "somebody's file").unwrap();
    drop(admin);
    assert_eq!(fs::read(&path).unwrap(), b"somebody's file", "what came to the socket's place is left alone");
    let error = start(&address, probes(&readiness)).err().unwrap().to_string();
    assert!(error.contains("no socket stands there"), "{error}");
    let missing = AdminAddress::Unix(directory.join("missing/admin.sock"));
    let error = start(&missing, probes(&readiness)).err().unwrap().to_string();
    assert!(error.ends_with("the directory does not exist"), "{error}");
}
