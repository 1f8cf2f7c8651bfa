//! Which conversations does a server hold?
//!
//! At most [`SESSIONS_MAX`]; the one that was silent longest makes room for a new one.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Instant;

use serde_json::Value;
use tokio::sync::oneshot;

/// Sessions of one server at once.
pub(super) const SESSIONS_MAX: usize = 256;
/// Questions and running tools of one session at once.
const WAITING_MAX: usize = 32;

/// One conversation.
pub(super) struct Session {
    /// The revision agreed upon.
    pub(super) revision: &'static str,
    /// Whether the client can ask its user.
    pub(super) can_ask: bool,
    state: Mutex<State>,
}

struct State {
    used: Instant,
    questions: u64,
    /// Questions under way, by the id of the request.
    waiting: HashMap<String, oneshot::Sender<Option<Value>>>,
    /// What ends the calls under way, by the text of their request's id.
    running: HashMap<String, oneshot::Sender<()>>,
}

impl Session {
    /// A new conversation.
    pub(super) fn new(revision: &'static str, can_ask: bool) -> Self {
        let state = State { used: Instant::now(), questions: 0, waiting: HashMap::new(), running: HashMap::new() };
        Self { revision, can_ask, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An id for a question, and where its answer arrives. `None`: too many are waiting.
    pub(super) fn expect_answer(&self) -> Option<(String, oneshot::Receiver<Option<Value>>)> {
        let mut state = self.state();
        if state.waiting.len() >= WAITING_MAX {
            return None;
        }
        state.questions += 1;
        let id = format!("question-{}", state.questions);
        let (answer, answered) = oneshot::channel();
        state.waiting.insert(id.clone(), answer);
        Some((id, answered))
    }

    /// Takes an answer; one that nobody waits for is nothing to anybody.
    pub(super) fn answer(&self, id: &Value, result: Option<Value>) {
        if let Some(answer) = id.as_str().and_then(|id| self.state().waiting.remove(id)) {
            let _ = answer.send(result);
        }
    }

    /// Waits for that answer no more.
    pub(super) fn forget_answer(&self, id: &str) {
        self.state().waiting.remove(id);
    }

    /// Notes a call under way; what is returned arrives, or fails, when it is to end. `None`: too many are under way.
    pub(super) fn begin(&self, id: &Value) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state();
        if state.running.len() >= WAITING_MAX {
            return None;
        }
        let (end, ended) = oneshot::channel();
        state.running.insert(id.to_string(), end);
        Some(ended)
    }

    /// Ends a call under way, or notes that it ended.
    pub(super) fn end(&self, id: &Value) {
        self.state().running.remove(&id.to_string());
    }

    fn end_all(&self) {
        let mut state = self.state();
        state.waiting.clear();
        state.running.clear();
    }
}

/// The conversations of one server, by id.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Arc<Session>>>);

impl Sessions {
    fn table(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a conversation in, and gives its id: 128 random bits.
    pub(super) fn open(&self, session: Session) -> Result<String, getrandom::Error> {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random)?;
        let id = random.iter().fold(String::with_capacity(32), |mut id, byte| {
            let _ = write!(id, "{byte:02x}");
            id
        });
        let mut table = self.table();
        if table.len() >= SESSIONS_MAX {
            let oldest = table.iter().min_by_key(|(_, session)| session.state().used).map(|(id, _)| id.clone());
            if let Some(session) = oldest.and_then(|oldest| table.remove(&oldest)) {
                session.end_all();
            }
        }
        table.insert(id.clone(), Arc::new(session));
        Ok(id)
    }

    /// The conversation with this id.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Session>> {
        let session = self.table().get(id).cloned()?;
        session.state().used = Instant::now();
        Some(session)
    }

    /// Ends a conversation; whether there was one.
    pub(super) fn close(&self, id: &str) -> bool {
        let session = self.table().remove(id);
        session.inspect(|session| session.end_all()).is_some()
    }
}
