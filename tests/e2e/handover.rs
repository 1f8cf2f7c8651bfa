//! Is a call lost when the program is replaced, or when it is started again behind sockets that stay?

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use portcullis::audit;
use serde_json::Value;

use crate::support::certificates::Authority;
use crate::support::client;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::process;
use crate::support::process::Process;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

/// Calls without a pause until told to stop, on one connection as long as the gateway keeps it, or on a new one each time.
/// A call that is not answered as it should be ends the test: it is never made again.
async fn keep_calling(address: SocketAddr, key: Arc<Key>, kept: bool, stop: Arc<AtomicBool>) -> usize {
    let mut connection = Connection::open(address).await;
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        connection.write(key.call("echo")).await;
        let answer = connection.answer().await.unwrap_or_else(|| panic!("call {answered} was lost"));
        assert!(answer.status == 200 && answer.complete, "{answer:?}");
        answered += 1;
        let told = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if told || !kept {
            connection = Connection::open(address).await;
        }
    }
    answered
}

struct Load {
    clients: Vec<tokio::task::JoinHandle<usize>>,
    stop: Arc<AtomicBool>,
}

impl Load {
    fn start(address: SocketAddr, key: &Arc<Key>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = [true, true, true, false]
            .map(|kept| tokio::spawn(keep_calling(address, Arc::clone(key), kept, Arc::clone(&stop))));
        Self { clients: clients.into(), stop }
    }

    /// Ends it: how many calls were answered. None was lost.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let mut answered = 0;
        for client in self.clients {
            answered += client.await.unwrap();
        }
        answered
    }
}

/// A process that goes on without the one that started it; ended with the test.
struct Stray(u32);

impl Drop for Stray {
    fn drop(&mut self) {
        if is_alive(self.0) {
            process::signal(self.0, "KILL");
        }
    }
}

fn is_alive(pid: u32) -> bool {
    // A zombie is as good as gone.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// `portcullis upgrade`, and the process that serves then.
fn upgrade(config: &Path) -> Stray {
    let log = fs::OpenOptions::new().create(true).append(true).open(config.with_file_name("log")).unwrap();
    let output = Command::new(gateway::binary())
        .args(["upgrade", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stderr(log)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}\n{}", fs::read_to_string(config.with_file_name("log")).unwrap());
    Stray(said.split(' ').nth(1).unwrap().parse().unwrap())
}

/// The record is one chain, and has an intent and a result for each of so many calls.
#[track_caller]
fn is_whole(records: &[Value], audit: &Path, calls: usize) {
    let verified = audit::verify_chain(audit).unwrap();
    assert_eq!(verified.records, records.len() as u64);
    let of = |kind: &str| records.iter().filter(|record| record["kind"] == kind).count();
    assert_eq!((of("intent"), of("result")), (calls, calls));
    let ended: BTreeSet<u64> = records.iter().filter_map(|record| record["intent"].as_u64()).collect();
    assert_eq!(ended.len(), calls, "each intent has one result");
    let numbers: BTreeSet<u64> = records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers.len(), records.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_under_load_lose_no_call_and_leave_one_record() {
    let upstream = Upstream::start().await;
    upstream.on("tools/call slow", Reply::text("done").delay(Duration::from_millis(2_500)));
    let key = Arc::new(gateway::make_key("ci"));
    for level in ["written", "durable"] {
        let config = key.config(&upstream);
        let mut first = gateway::setup(&config).audit(&format!("level = \"{level}\"\n")).start();
        let file = first.directory.join("portcullis.toml");
        let load = Load::start(first.data, &key);
        let slow = tokio::spawn(client::send(first.data, key.call("slow")));
        let slow_before = upstream.requests_for("tools/call slow").len();
        upstream.wait_for("tools/call slow", slow_before.max(1)).await;
        let mut strays = Vec::new();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let file = file.clone();
            strays.push(tokio::task::spawn_blocking(move || upgrade(&file)).await.unwrap());
        }
        let answer = slow.await.unwrap();
        assert!(answer.status == 200 && answer.complete, "what the first had begun, it finished: {answer:?}");
        assert_eq!(first.wait(), Some(0), "and then it ended by itself");
        for stray in &strays[..2] {
            gateway::wait_until("the ones between end too", || !is_alive(stray.0));
        }
        gateway::wait_until("the last has the record", || first.log().contains("the record is this one's alone"));
        let answered = load.end().await;
        assert!(answered > 100, "{answered}");
        let ready = client::send(first.admin, "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(ready.await.status, 200, "the admin listener went along");
        process::signal(strays[2].0, "TERM");
        gateway::wait_until("the last ends", || !is_alive(strays[2].0));
        is_whole(&first.records(), &first.directory.join("audit"), answered + 1);
        assert!(!first.log().contains("panic"), "{}", first.log());
        println!("handover: 3 upgrades at `{level}`, {answered} calls, none lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_fails_leaves_the_gateway_as_it_was() {
    let upstream = Upstream::start().await;
    let key = Arc::new(gateway::make_key("ci"));
    let config = key.config(&upstream);
    let mut gateway = Gateway::start(&config);
    let file = gateway.directory.join("portcullis.toml");
    let load = Load::start(gateway.data, &key);
    let try_it = |text: &str| {
        fs::write(&file, text).unwrap();
        gateway::run(&["upgrade", "--config", file.to_str().unwrap()])
    };
    let good = fs::read_to_string(&file).unwrap();
    let (code, _, said) = try_it(&format!("{good}\n[servers.b]\nurll = \"x\"\n"));
    assert!(code == Some(3) && said.contains("did you mean `url`"), "{code:?} {said}");
    // The new process has the sockets and the record before it finds out.
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap();
    let (code, _, said) = try_it(&good.replace(&gateway.admin.to_string(), &taken.to_string()));
    assert!(code == Some(1) && said.contains("in use") && said.contains("serves on"), "{code:?} {said}");
    gateway.wait_for_log("another process was to take over and did not");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answered = load.end().await;
    fs::write(&file, &good).unwrap();
    assert!(gateway.is_alive());
    let (code, said, _) = gateway::run(&["reload", "--config", file.to_str().unwrap()]);
    assert!(code == Some(0) && said.contains("revision 2"), "it still takes commands: {said}");
    gateway.signal("TERM");
    assert_eq!(gateway.wait(), Some(0));
    is_whole(&gateway.records(), &gateway.directory.join("audit"), answered);
}

#[test]
fn commands_say_when_no_gateway_runs() {
    let directory = gateway::fresh_directory();
    let file = directory.join("portcullis.toml");
    fs::write(&file, "[state]\ndirectory = \"state\"\n").unwrap();
    for command in ["reload", "upgrade"] {
        let (code, _, said) = gateway::run(&[command, "--config", file.to_str().unwrap()]);
        assert!(code == Some(1) && said.contains("no running gateway answers"), "{command}: {code:?} {said}");
    }
    let (code, _, said) = gateway::run(&["run", "--take-over", "--config", file.to_str().unwrap()]);
    assert!(code == Some(1) && said.contains("no running gateway answers"), "{code:?} {said}");
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reload_waits_for_the_outcome_and_tells_the_mistakes() {
    let upstream = Upstream::start().await;
    let key = gateway::make_key("ci");
    let gateway = Gateway::start(&key.config(&upstream));
    let file = gateway.directory.join("portcullis.toml");
    let reload =
        |arguments: &[&str]| gateway::run(&[&["reload", "--config", file.to_str().unwrap()][..], arguments].concat());
    gateway::wait_until("commands are taken", || gateway.directory.join("state/control.sock").exists());
    let (code, said, _) = reload(&[]);
    assert!(code == Some(0) && said.contains("in force, revision 2"), "{said}");
    let (code, said, _) = reload(&["--upgrade"]);
    assert!(code == Some(0) && said.contains("revision 3"), "the same program runs: {said}");
    gateway.write(&format!("threads = 7\n{}", key.config(&upstream)));
    let (code, said, notes) = reload(&[]);
    assert!(code == Some(0) && said.contains("revision 4"), "{said}");
    assert!(notes.contains("`listen.threads`") && notes.contains("restart"), "{notes}");
    gateway.write("urll = 1\n");
    let (code, _, mistakes) = reload(&[]);
    assert!(code == Some(3) && mistakes.contains("portcullis.toml:4:"), "{mistakes}");
    // What only the running gateway can find out is told as well.
    gateway.write(&format!("streams_max = 9000000\n{}", key.config(&upstream)));
    let (code, _, mistakes) = reload(&[]);
    assert!(code == Some(3) && mistakes.contains("does not fit the descriptor limit"), "{mistakes}");
    assert_eq!(gateway.metric("portcullis_config_revision").await, Some(4.0));
    let mode = fs::metadata(gateway.directory.join("state/control.sock")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
}

/// Starts a gateway as systemd does, with these sockets open from descriptor 3 on.
fn activated(file: &Path, sockets: &[&TcpListener], notify: Option<&Path>) -> Process {
    let stdin = OwnedFd::from(sockets[0].try_clone().unwrap());
    let (second, script) = match sockets.get(1) {
        Some(socket) => (Some(OwnedFd::from(socket.try_clone().unwrap())), "exec 3<&0 4<&1 0</dev/null 1>/dev/null"),
        None => (None, "exec 3<&0 0</dev/null"),
    };
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{script}; exec \"$0\" run --config \"$1\""), gateway::binary()]).arg(file);
    command.env("LISTEN_FDS", sockets.len().to_string()).env_remove("LISTEN_PID").stdin(stdin);
    if let Some(path) = notify {
        command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "600000").env_remove("WATCHDOG_PID");
    }
    Process::spawn_with(command, second, &file.with_file_name("log"))
}

/// A configuration for these sockets, beside which the test may write.
fn file_for(directory: &Path, data: SocketAddr, admin: SocketAddr, rest: &str) -> std::path::PathBuf {
    let file = directory.join("portcullis.toml");
    let text = format!(
        "[listen]\ndata = \"{data}\"\nadmin = \"{admin}\"\ndrain_timeout_ms = 400\n[audit]\ndirectory = \"audit\"\n[state]\ndirectory = \"state\"\n{rest}"
    );
    fs::write(&file, text).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_behind_sockets_that_stay_lose_no_call() {
    let upstream = Upstream::start().await;
    let key = Arc::new(gateway::make_key("ci"));
    let directory = gateway::fresh_directory();
    let [data, admin] = [0, 0].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [&data, &admin].map(|socket| socket.local_addr().unwrap());
    let file = file_for(&directory, addresses[0], addresses[1], &key.config(&upstream));
    let load = Load::start(addresses[0], &key);
    let mut process = activated(&file, &[&data, &admin], None);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        process.signal("TERM");
        assert_eq!(process.wait(), Some(0));
        process = activated(&file, &[&data, &admin], None);
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    let ready = client::send(addresses[1], "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(ready.await.status, 200);
    let answered = load.end().await;
    process.signal("TERM");
    assert_eq!(process.wait(), Some(0));
    let audit = directory.join("audit");
    assert!(answered > 50, "{answered}");
    assert_eq!(audit::verify_chain(&audit).unwrap().records, 2 * answered as u64);
    println!("handover: 3 restarts behind sockets that stay, {answered} calls, none lost");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_socket_that_fits_no_listener_is_refused() {
    let directory = gateway::fresh_directory();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = file_for(&directory, gateway::free_address(), gateway::free_address(), "");
    let mut process = activated(&file, &[&socket], None);
    assert_eq!(process.wait(), Some(1));
    let said = fs::read_to_string(directory.join("log")).unwrap();
    assert!(said.contains(&socket.local_addr().unwrap().to_string()) && said.contains("listen.data"), "{said}");
    fs::remove_dir_all(directory).unwrap();
}

/// What a service manager hears, line by line.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(socket)
    }

    /// The next message that is no watchdog's.
    #[track_caller]
    fn next(&self) -> String {
        loop {
            let said = self.any();
            if said != "WATCHDOG=1" {
                return said;
            }
        }
    }

    #[track_caller]
    fn any(&self) -> String {
        let mut text = [0; 4096];
        let bytes = self.0.recv(&mut text).expect("a word to the service manager");
        String::from_utf8_lossy(&text[..bytes]).trim_end().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_manager_hears_of_start_reload_watchdog_upgrade_and_end() {
    let directory = gateway::fresh_directory();
    let manager = Manager::at(&directory.join("notify"));
    let data = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = gateway::free_address();
    let file = file_for(&directory, data.local_addr().unwrap(), admin, "");
    let mut process = activated(&file, &[&data], Some(&directory.join("notify")));
    assert_eq!(manager.next(), "READY=1\nSTATUS=serving, configuration revision 1");
    let begun = Instant::now();
    for _ in 0..4 {
        assert_eq!(manager.any(), "WATCHDOG=1");
    }
    assert!(begun.elapsed() > Duration::from_millis(400), "at a third of the time allowed");
    let reload = || gateway::run(&["reload", "--config", file.to_str().unwrap()]);
    assert_eq!(reload().0, Some(0));
    let said = manager.next();
    assert!(said.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{said}");
    assert_eq!(manager.next(), "READY=1\nSTATUS=serving, configuration revision 2");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, "listen = 1").unwrap();
    process.signal("HUP");
    assert!(manager.next().starts_with("RELOADING=1"));
    assert!(manager.next().contains("revision 2; the file as it is now has mistakes"));
    fs::write(&file, good).unwrap();
    let stray = upgrade(&file);
    assert_eq!(manager.next(), format!("MAINPID={}", stray.0), "from the process that still is the service");
    assert_eq!(manager.next(), "READY=1\nSTATUS=serving, configuration revision 1");
    assert_eq!(process.wait(), Some(0));
    assert_eq!(manager.any(), "WATCHDOG=1", "the successor feeds the watchdog");
    // A gateway that stands still feeds it no more.
    process::signal(stray.0, "STOP");
    manager.0.set_read_timeout(Some(Duration::from_millis(1_500))).unwrap();
    while manager.0.recv(&mut [0; 64]).is_ok() {}
    manager.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    process::signal(stray.0, "CONT");
    assert_eq!(manager.any(), "WATCHDOG=1");
    process::signal(stray.0, "TERM");
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=draining");
    gateway::wait_until("it ends", || !is_alive(stray.0));
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_gateway_that_looks_at_itself_leaves_no_trace_of_it() {
    let directory = gateway::fresh_directory();
    let authority = Authority::new(&directory, "ca");
    authority.issue("own", "DNS:mcp.example", 30);
    let tls = format!(
        "[listen.tls]\ncertificates = [{{ cert_file = \"{}\", key_file = \"{}\" }}]\n",
        authority.path("own.pem"),
        authority.path("own.key")
    );
    let certified = format!("{tls}client_auth = \"require\"\nclient_ca_file = \"{}\"\n", authority.path("ca.pem"));
    let announced = "proxy_protocol_from = [\"127.0.0.0/8\"]\n";
    for config in [String::new(), tls.clone(), certified, announced.to_owned(), format!("{announced}{tls}")] {
        let path = directory.join("notify");
        let manager = Manager::at(&path);
        let setup = gateway::setup(&config).variable("NOTIFY_SOCKET", path.to_str().unwrap());
        let gateway = setup.variable("WATCHDOG_USEC", "600000").start();
        for _ in 0..4 {
            while manager.any() != "WATCHDOG=1" {}
        }
        // What is refused before a key is known is put together for a second.
        std::thread::sleep(Duration::from_millis(1_300));
        assert_eq!(manager.any(), "WATCHDOG=1", "{config}");
        let refused: Vec<Value> = gateway.records().into_iter().filter(|record| record["kind"] == "refused").collect();
        assert_eq!(refused, Vec::<Value>::new(), "{config}");
        drop(gateway);
        fs::remove_file(path).unwrap();
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_unix_socket_of_the_data_listener_is_handed_over_too() {
    let directory = gateway::fresh_directory();
    let file = directory.join("portcullis.toml");
    let (data, admin) = (directory.join("data.sock"), directory.join("admin.sock"));
    let text = format!(
        "[listen]\ndata = \"unix:{}\"\nadmin = \"unix:{}\"\n[audit]\ndirectory = \"audit\"\n[state]\ndirectory = \"state\"\n",
        data.display(),
        admin.display()
    );
    fs::write(&file, text).unwrap();
    let command = |name: &str| {
        let mut command = Command::new(gateway::binary());
        command.args([name, "--config"]).arg(&file);
        command
    };
    let mut first = Process::spawn(&mut command("run"), &directory.join("log"));
    let ask = |socket: &Path, path: &str| {
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        answer
    };
    gateway::wait_until("it serves", || directory.join("state/control.sock").exists());
    let stray = upgrade(&file);
    assert_eq!(first.wait(), Some(0));
    assert!(ask(&data, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(ask(&admin, "/readyz").starts_with("HTTP/1.1 200"));
    process::signal(stray.0, "TERM");
    gateway::wait_until("it ends", || !is_alive(stray.0));
    let second = Process::spawn(&mut command("run"), &directory.join("log"));
    gateway::wait_until("what is left of a socket hinders nobody", || {
        std::os::unix::net::UnixStream::connect(&data).is_ok()
    });
    drop(second);
    fs::remove_dir_all(directory).unwrap();
}
