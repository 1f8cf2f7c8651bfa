//! Putting a call on record: its intent and its result, with every field a call has, into a log on disk.
//!
//! At level `written` both are encoded, chained and written by whoever calls. What the disk does is the kernel's time,
//! which a benchmark of nanoseconds includes and a count of instructions does not.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use portcullis::audit::Digested;
use portcullis::audit::Ending;
use portcullis::audit::Log;
use portcullis::audit::Outcome;
use portcullis::audit::Permission;
use portcullis::audit::Phases;
use portcullis::audit::Receipt;
use portcullis::audit::Refusal;
use portcullis::audit::Request;
use portcullis::audit::Settings;
use portcullis::config::model::AuditLevel;
use portcullis::config::problem::At;
use portcullis::mcp::revision::Revision;
use portcullis::principal::Principal;

use super::Case;
use super::rules;

const NOW: u64 = 1_790_000_000_000_000;
const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// A log in a directory of its own, which goes with it.
struct Kept {
    log: Option<Log>,
    directory: PathBuf,
    principal: Principal,
    rule: At,
}

impl Kept {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("portcullis-record-{name}-{}", std::process::id()));
        let settings = Settings::new(&directory, AuditLevel::Written, SEGMENT_BYTES_MAX);
        Self {
            log: Some(Log::open(settings, NOW).unwrap()),
            directory,
            principal: rules::principal("analyst"),
            rule: At::root().key("agents").key("analyst").key("servers").key("database"),
        }
    }

    fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    fn request(&self) -> Request<'_> {
        Request {
            source: Some(([192, 0, 2, 1], 50_123).into()),
            via: None,
            scheme: None,
            secured: None,
            http_method: Some("POST"),
            target: Some(b"/mcp/database"),
            user_agent: Some(b"an-agent/1.0 (linux)"),
            reported_agent: None,
            rpc_method: Some("tools/call"),
            revision: Some(Revision::V2025_11_25),
            transport: Some("streamable-http"),
            session: Some("3fa85f64-5717-4562-b3fc-2c963f66afa6"),
            principal: Some(&self.principal),
            server: Some("database"),
            tool: Some("execute_query"),
            resource: None,
            prompt: None,
            asked: None,
            snapshot: Some("1"),
            shadow: None,
        }
    }

    fn intent(&self, sent: Digested) -> Receipt {
        let request = self.request();
        let permission = Permission { reason: "agent_matrix", rule: Some(&self.rule), sent: Some(sent), minted: None };
        let intent = pin!(self.log().intent(&request, &permission, NOW));
        match intent.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(receipt) => receipt.unwrap(),
            Poll::Pending => unreachable!("at this level nobody waits"),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.log = None;
        // What is left in a directory for temporary files is not worth a failure.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A call's two records, and a refusal's one.
pub(crate) fn cases() -> Vec<Case> {
    let (called, refused) = (Kept::new("call"), Kept::new("refusal"));
    let digested = Digested::of(b"a body");
    let at = Some(12);
    let phases =
        Phases { head: at, auth: at, body: at, judge: at, record: at, upstream: at, answer: at, total: Some(123) };
    vec![
        Case::new("record, intent and result", 200, move || {
            let receipt = called.intent(digested);
            let outcome = Outcome {
                status: Some(200),
                endpoint: Some(1),
                attempts: 1,
                sent: Some(digested),
                received: Some(digested),
                phases,
                ..Outcome::of(Ending::Ok)
            };
            called.log().result(receipt, &outcome, NOW);
        }),
        Case::new("record, refusal", 200, move || {
            let refusal = Refusal {
                reason: "tool_blocked",
                rule: Some(&refused.rule),
                limit_of: None,
                status: Some(403),
                phases,
            };
            assert!(refused.log().refused(&refused.request(), &refusal, NOW).is_ok());
        }),
    ]
}
