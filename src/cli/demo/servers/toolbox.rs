//! Which tools does a server have, and what is a call of one?

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::cli::demo::servers::database::Database;
use crate::cli::demo::servers::files::Files;
use crate::cli::demo::servers::message::Fault;
use crate::cli::demo::servers::message::Object;
use crate::cli::demo::servers::sessions::Session;
use crate::cli::demo::servers::stream;

/// How long a user may think about a question.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);

/// The tools of one sample server.
pub(super) enum Toolbox {
    /// A tree of text files.
    Files(Files),
    /// A few tables.
    Database(Database),
}

impl Toolbox {
    /// The server's name, as it tells it.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Files(files) => files.replica(),
            Self::Database(_) => "database",
        }
    }

    /// What the server says about itself to a model.
    pub(super) fn instructions(&self) -> &'static str {
        match self {
            Self::Files(_) => "A small tree of text files, kept in memory.",
            Self::Database(_) => "A small shop's tables: customers, products, orders. Ask with `execute_query`.",
        }
    }

    /// The definitions of its tools.
    pub(super) fn tools(&self) -> Value {
        match self {
            Self::Files(_) => files_tools(),
            Self::Database(_) => database_tools(),
        }
    }

    /// Whether a call of the tool says something before its answer.
    pub(super) fn streams(&self, tool: &str) -> bool {
        matches!((self, tool), (Self::Database(_), "long_query" | "ask"))
    }

    /// Runs a tool. What goes wrong within one is a result that says so; a `Fault` is an error of the protocol.
    pub(super) async fn call(&self, tool: &str, arguments: &Object, channel: &Channel) -> Result<Value, Fault> {
        let known = self.tools();
        if !known.as_array().is_some_and(|tools| tools.iter().any(|known| known["name"] == tool)) {
            return Err(Fault::new(-32602, format!("Unknown tool: {tool}")));
        }
        let done = match self {
            Self::Files(files) => files.call(tool, &Arguments(arguments)),
            Self::Database(database) => database.call(tool, &Arguments(arguments), channel).await,
        };
        match done {
            Ok(texts) => Ok(tool_result(&texts, false)),
            Err(Failure::Tool(text)) => Ok(tool_result(&[text], true)),
            Err(Failure::Protocol(fault)) => Err(fault),
            Err(Failure::Answer(result)) => Ok(result),
        }
    }
}

fn tool_result(texts: &[String], is_error: bool) -> Value {
    let content: Vec<Value> = texts.iter().map(|text| json!({"type": "text", "text": text})).collect();
    json!({"content": content, "isError": is_error})
}

/// Why a tool has no plain texts to give.
pub(super) enum Failure {
    /// It failed, and the model should know.
    Tool(String),
    /// The call was wrong as a message.
    Protocol(Fault),
    /// It gives another kind of result.
    Answer(Value),
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Tool(text)
    }
}

/// The arguments of a call.
pub(super) struct Arguments<'a>(pub(super) &'a Object);

impl<'a> Arguments<'a> {
    /// A text that must be there.
    pub(super) fn text(&self, name: &str) -> Result<&'a str, String> {
        self.0.get(name).and_then(Value::as_str).ok_or_else(|| format!("argument `{name}` must be a string"))
    }

    /// A number between 1 and `max`; `default` if absent.
    pub(super) fn number(&self, name: &str, default: u64, max: u64) -> Result<u64, String> {
        match self.0.get(name) {
            None => Ok(default),
            Some(value) => value
                .as_u64()
                .filter(|number| (1..=max).contains(number))
                .ok_or_else(|| format!("argument `{name}` must be an integer between 1 and {max}")),
        }
    }
}

/// What a running tool can say to its client before it answers.
pub(super) struct Channel {
    /// The answer's stream, if it is one.
    pub(super) events: Option<mpsc::Sender<Bytes>>,
    /// What the client asked progress to be marked with.
    pub(super) progress_token: Option<Value>,
    /// How its user can be asked.
    pub(super) asking: Asking,
}

/// How a client's user can be asked.
pub(super) enum Asking {
    /// By a request on the answer's stream; the answer comes by a message of its own.
    OnStream(Arc<Session>),
    /// By a result that wants the call repeated with the answers.
    ByResult {
        /// The answers, if this is the repetition.
        responses: Option<Value>,
        /// Whether the client said that it can.
        able: bool,
    },
    /// Not at all.
    Never,
}

impl Channel {
    /// Tells how far the tool is, if the client wants to know.
    pub(super) async fn progress(&self, done: u64, total: u64, text: &str) {
        let (Some(events), Some(token)) = (&self.events, &self.progress_token) else { return };
        let params = json!({"progressToken": token, "progress": done, "total": total, "message": text});
        let message = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
        // A client that is gone ends the tool by other means.
        let _ = events.send(stream::event(&message)).await;
    }

    /// Asks the user: `{action, content}`, as the client gives it.
    pub(super) async fn ask(&self, question: &str, schema: Value) -> Result<Value, Failure> {
        let params = json!({"message": question, "requestedSchema": schema});
        match &self.asking {
            Asking::Never => Err(Failure::Tool("this client cannot ask its user".into())),
            Asking::OnStream(session) => self.ask_on_stream(session, params).await,
            Asking::ByResult { able: false, .. } => {
                let fault = Fault::new(-32021, "this tool needs the client's elicitation capability")
                    .with_status(StatusCode::BAD_REQUEST)
                    .with_data(json!({"requiredCapabilities": {"elicitation": {"form": {}}}}));
                Err(Failure::Protocol(fault))
            }
            Asking::ByResult { responses, .. } => match responses.as_ref().and_then(|all| all.get("answer")) {
                Some(answer) => Ok(answer.clone()),
                None => {
                    let request = json!({"method": "elicitation/create", "params": with_mode(params)});
                    let result = json!({"resultType": "input_required", "inputRequests": {"answer": request}});
                    Err(Failure::Answer(result))
                }
            },
        }
    }

    async fn ask_on_stream(&self, session: &Session, params: Value) -> Result<Value, Failure> {
        let gone = || Failure::Tool("the client did not answer".into());
        let events = self.events.as_ref().ok_or_else(gone)?;
        let (id, answered) = session.expect_answer().ok_or_else(gone)?;
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "elicitation/create", "params": params});
        events.send(stream::event(&message)).await.map_err(|_| gone())?;
        let answer = timeout(ANSWER_TIME_MAX, answered).await;
        session.forget_answer(&id);
        answer.ok().and_then(Result::ok).flatten().ok_or_else(gone)
    }
}

fn with_mode(mut params: Value) -> Value {
    if let Some(params) = params.as_object_mut() {
        params.insert("mode".into(), "form".into());
    }
    params
}

/// A tool's definition. `hints` are read-only, destructive and idempotent.
fn tool(name: &str, title: &str, description: &str, hints: [bool; 3], properties: Value, required: &[&str]) -> Value {
    let [read_only, destructive, idempotent] = hints;
    let mut annotations = json!({"title": title, "readOnlyHint": read_only, "openWorldHint": false});
    if let (false, Some(annotations)) = (read_only, annotations.as_object_mut()) {
        annotations.insert("destructiveHint".into(), destructive.into());
        annotations.insert("idempotentHint".into(), idempotent.into());
    }
    let schema =
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    json!({"name": name, "description": description, "inputSchema": schema, "annotations": annotations})
}

const READ_ONLY: [bool; 3] = [true, false, true];
const DESTRUCTIVE: [bool; 3] = [false, true, true];

fn files_tools() -> Value {
    let path = json!({"type": "string", "description": "Path of a file, such as `notes/welcome.md`"});
    let prefix = json!({"type": "string", "description": "Only paths that begin with this; absent: all"});
    let content = json!({"type": "string", "description": "The whole new content"});
    json!([
        tool("list_files", "List files", "Lists the paths of all files.", READ_ONLY, json!({"prefix": prefix}), &[]),
        tool("read_file", "Read a file", "Gives the content of a file.", READ_ONLY, json!({"path": path}), &["path"]),
        tool(
            "write_file",
            "Write a file",
            "Creates a file, or replaces its content.",
            DESTRUCTIVE,
            json!({"path": path, "content": content}),
            &["path", "content"],
        ),
        tool("delete_file", "Delete a file", "Deletes a file for good.", DESTRUCTIVE, json!({"path": path}), &["path"]),
    ])
}

fn database_tools() -> Value {
    let sql = json!({"type": "string", "description": "SELECT columns FROM table [WHERE column = value [AND ..]] \
        [ORDER BY column [DESC]] [LIMIT n]"});
    let table = json!({"type": "string", "description": "Name of a table"});
    let steps = json!({"type": "integer", "minimum": 1, "maximum": 50, "description": "Steps to take; absent: 5"});
    let pause =
        json!({"type": "integer", "minimum": 1, "maximum": 5000, "description": "Length of a step; absent: 200"});
    let column = json!({"type": "string", "description": "Column that tells which rows"});
    let value = json!({"type": ["string", "integer"], "description": "The value of that column in those rows"});
    let question = json!({"type": "string", "description": "What to ask"});
    json!([
        tool("list_tables", "List tables", "Lists all tables with their columns.", READ_ONLY, json!({}), &[]),
        tool("execute_query", "Query", "Answers a SELECT statement.", READ_ONLY, json!({"sql": sql}), &["sql"]),
        tool(
            "long_query",
            "Slow query",
            "Answers a SELECT statement slowly, and tells how far it is.",
            READ_ONLY,
            json!({"sql": sql, "steps": steps, "step_ms": pause}),
            &["sql"],
        ),
        tool(
            "delete_rows",
            "Delete rows",
            "Deletes the rows of a table in which a column has a value.",
            DESTRUCTIVE,
            json!({"table": table, "column": column, "value": value}),
            &["table", "column", "value"],
        ),
        tool("drop_table", "Drop a table", "Deletes a whole table.", DESTRUCTIVE, json!({"table": table}), &["table"]),
        tool(
            "ask",
            "Ask the user",
            "Asks the user a question through the client, and gives the answer.",
            [false, false, false],
            json!({"question": question}),
            &[],
        ),
    ])
}
