//! A scripted server on a local socket, and what it takes to send it a permitted call.

mod balance;
mod exchange;
mod fleet;
mod framing;
mod listen;
mod plan;
mod tls;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::call::Action;
use crate::call::Call;
use crate::config::model::Access;
use crate::config::model::Config;
use crate::config::model::Server;
use crate::config::problem::Problems;
use crate::mcp::document::Limits;
use crate::mcp::message::Message;
use crate::mcp::revision::Revision;
use crate::policy::Permitted;
use crate::policy::Policy;
use crate::principal::Principal;
use crate::principal::Subject;
use crate::upstream::Answer;
use crate::upstream::Choice;
use crate::upstream::Dispatch;
use crate::upstream::Fleet;
use crate::upstream::Plans;
use crate::upstream::Upstream;
use crate::upstream::UpstreamError;
use crate::upstream::Upstreams;

const CALL: &str =
    r#"{"jsonrpc": "2.0", "id": 1,"method":"tools/call","params":{"name":"é\u0065","arguments":{"n":1.00}}}"#;
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 7\r\n\r\n{\"a\":1}";

/// What the scripted server does with the next request.
#[derive(Clone)]
enum Step {
    /// Says this and waits for the next request.
    Say(String),
    /// Says this and closes.
    SayAndClose(String),
    /// Says one byte every 20 ms.
    Drip(String),
    /// Says this, then nothing, until the client leaves.
    SayAndHang(String),
    /// Resets the connection.
    Reset,
}

/// A server on its own thread and runtime, that follows a script and writes down what happens.
#[derive(Clone)]
struct Scripted {
    address: SocketAddr,
    script: Arc<Mutex<VecDeque<Step>>>,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    departures: Arc<AtomicUsize>,
}

impl Scripted {
    /// Follows `script`, then answers everything with [`OK`].
    fn new(script: impl IntoIterator<Item = Step>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let scripted = Self {
            address: listener.local_addr().unwrap(),
            script: Arc::new(Mutex::new(script.into_iter().collect())),
            requests: Arc::default(),
            connections: Arc::default(),
            departures: Arc::default(),
        };
        let server = scripted.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    server.connections.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(server.clone().serve(stream));
                }
            });
        });
        scripted
    }

    async fn serve(self, mut stream: TcpStream) {
        while let Some(request) = read_request(&mut stream).await {
            self.requests.lock().unwrap().push(request);
            let step = self.script.lock().unwrap().pop_front().unwrap_or_else(|| Step::Say(OK.into()));
            match step {
                Step::Say(text) => drop(stream.write_all(text.as_bytes()).await),
                Step::SayAndClose(text) => return drop(stream.write_all(text.as_bytes()).await),
                Step::Drip(text) => {
                    for byte in text.bytes() {
                        if stream.write_all(&[byte]).await.is_err() {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                Step::SayAndHang(text) => drop(stream.write_all(text.as_bytes()).await),
                Step::Reset => return stream.set_zero_linger().unwrap(),
            }
        }
        self.departures.fetch_add(1, Ordering::SeqCst);
    }

    fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn departures(&self) -> usize {
        self.departures.load(Ordering::SeqCst)
    }
}

/// One request, head and body; `None` when the client left.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(text);
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

/// A server as configured, with short waits.
fn server(url: &str) -> Server {
    Server {
        url: Some(url.into()),
        access: Access::Public,
        timeout_ms: 400,
        connect_timeout_ms: 300,
        ..Server::default()
    }
}

fn config(server: Server) -> Config {
    Config { servers: [("x".to_owned(), server)].into(), ..Config::default() }
}

fn plans(server: Server) -> Plans {
    let mut problems = Problems::new();
    let plans = Plans::compile(&config(server), &mut problems);
    assert!(!problems.has_errors(), "{:?}", problems.iter().collect::<Vec<_>>());
    plans
}

fn permit(action: Action) -> Permitted {
    let policy = Policy::compile(&config(server("http://127.0.0.1:1/")), &mut Problems::new());
    let call = Call { server: "x".into(), action, opened: Vec::new(), task_tool: None };
    policy
        .decide(Subject::of(&Principal::public()), Revision::V2025_11_25, call)
        .map_err(|denied| denied.denial)
        .unwrap()
}

fn permitted(body: &'static str) -> Permitted {
    permit(Action::Message(Message::read(Bytes::from_static(body.as_bytes()), &Limits::default()).unwrap()))
}

/// One server, running. Keeps what must live as long.
struct Running {
    upstreams: Upstreams,
    fleet: Arc<Fleet>,
}

impl Running {
    fn new(server: Server) -> Self {
        let upstreams = Upstreams::new().unwrap();
        let fleet = upstreams.adopt(&plans(server));
        Self { upstreams, fleet }
    }

    fn of(scripted: &Scripted) -> Self {
        Self::new(server(&scripted.url()))
    }

    fn upstream(&self) -> &Arc<Upstream> {
        self.fleet.get("x").unwrap()
    }

    async fn send(&self) -> Result<Answer, UpstreamError> {
        let upstream = self.upstream();
        let endpoint = upstream.pick(Choice::Next)?;
        upstream.send(&endpoint, &permitted(CALL), dispatch(HeaderMap::new())).await
    }

    /// Sends a call and reads its whole answer.
    async fn call(&self) -> Result<String, UpstreamError> {
        read(self.send().await?).await
    }
}

/// These headers, the configured credential, the configured path.
fn dispatch(headers: HeaderMap) -> Dispatch<'static> {
    static HANDED: AtomicBool = AtomicBool::new(false);
    Dispatch { headers, path: None, handed: &HANDED }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(2)
}

async fn read(mut answer: Answer) -> Result<String, UpstreamError> {
    let mut text = Vec::new();
    while let Some(chunk) = answer.body.next(soon()).await {
        text.extend_from_slice(&chunk?);
    }
    Ok(String::from_utf8(text).unwrap())
}

/// Waits until `holds`, at most 2 s.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what} did not happen within 2 s");
}
