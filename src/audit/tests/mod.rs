//! Does the log keep what it promises?
//!
//! Everything runs on real files; where a disk must fail, the kernel makes it fail.

mod beneath;
mod beside;
mod damage;
mod failure;
mod kill;
mod levels;
mod records;
mod refusals;
mod removed;
mod second;
mod signed;
mod start;
mod tampered;
mod unsigned;

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use std::time::Instant;

use super::*;

/// 2023-11-14T22:13:20Z.
const NOW: u64 = 1_700_000_000_000_000;

/// A directory that is gone when the test is over.
struct Fresh(PathBuf);

impl Fresh {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("portcullis-audit-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn settings(&self, level: AuditLevel) -> Settings {
        Settings { retry_ms: 20, ..Settings::new(&self.0, level, 1024 * 1024) }
    }

    /// The same, signed; what is kept outside of the log is in `state`.
    fn signed(&self, level: AuditLevel, state: &Fresh) -> Settings {
        let signing = Signing { key: Arc::new(signing_key()), copy: state.0.join("audit.checkpoint") };
        Settings { signing: Some(signing), ..self.settings(level) }
    }

    fn open(&self, level: AuditLevel) -> Log {
        Log::open(self.settings(level), NOW).unwrap()
    }

    /// Every record of every segment, in order.
    fn records(&self) -> Vec<serde_json::Value> {
        self.segments().iter().flat_map(|segment| lines(segment)).collect()
    }

    fn segments(&self) -> Vec<PathBuf> {
        chain::segments(&self.0).unwrap()
    }

    fn verified(&self) -> Verified {
        verify_chain(&self.0).unwrap()
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn signing_key() -> evidence::SigningKey {
    evidence::SigningKey::from_seed(&[5; 32], Some("test.example/audit")).unwrap()
}

fn lines(segment: &Path) -> Vec<serde_json::Value> {
    fs::read_to_string(segment).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits for something that another thread does.
#[track_caller]
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

const ALLOWED: Permission<'static> = Permission { reason: "allowed_tools", rule: None, sent: None, minted: None };

fn intent(log: &Log) -> Result<Receipt, Unavailable> {
    let request = Request { server: Some("files"), tool: Some("read"), ..Request::default() };
    wait(log.intent(&request, &ALLOWED, NOW))
}

/// One call from intent to result, which is no longer gathering; its intent's number.
fn call(log: &Log) -> Result<u64, Unavailable> {
    let receipt = intent(log)?;
    let seq = receipt.seq();
    log.result(receipt, &Outcome::of(Ending::Ok), NOW);
    eventually("the result's turn", || log.writer.gathered_bytes() == 0);
    Ok(seq)
}

fn refusal(reason: &'static str) -> Refusal<'static> {
    Refusal { reason, rule: None, limit_of: None, status: Some(401), phases: Phases::default() }
}

fn from(source: &str) -> Request<'static> {
    Request { source: Some(source.parse().unwrap()), http_method: Some("POST"), ..Request::default() }
}
