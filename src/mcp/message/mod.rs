//! What does a JSON-RPC message ask for?
//!
//! A message is read from a strictly read document, and only if it has one meaning to every reader: exact keys, one
//! kind, an id that can be echoed, names that can be seen. What the accessors return is therefore what the receiver
//! will see.

mod envelope;
mod params;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use crate::mcp::document::Document;
use crate::mcp::document::Limits;
use crate::mcp::document::Value;
use crate::mcp::error;
use crate::mcp::fault::ReadError;
use crate::mcp::method::Target;

/// An id longer than this, as written between its quotes, is refused.
pub const ID_BYTES_MAX: usize = 256;
/// A method longer than this is refused.
pub const METHOD_BYTES_MAX: usize = 128;
/// A tool's or prompt's name longer than this is refused.
pub const NAME_BYTES_MAX: usize = 256;
/// A task's id longer than this is refused. Clients know tasks by sealed tokens, which are longer than what they seal.
pub const TASK_ID_BYTES_MAX: usize = 4096;
/// A resource's URI longer than this is refused.
pub const URI_BYTES_MAX: usize = 8192;
/// The key in `params._meta` that says which revision a request of 2026-07-28 speaks.
pub const META_REVISION: &str = "io.modelcontextprotocol/protocolVersion";
/// The key in `params._meta` that says what the client of a request of 2026-07-28 can do.
pub const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// The key in `params._meta` that says what the client of a request of 2026-07-28 is.
pub const META_CLIENT: &str = "io.modelcontextprotocol/clientInfo";

/// The key in `_meta` that says which task a message belongs to.
pub const META_RELATED_TASK: &str = "io.modelcontextprotocol/related-task";

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// Has a method and an id.
    Request,
    /// Has a method only.
    Notification,
    /// Has a result or an error.
    Response,
}

/// One JSON-RPC message together with the bytes it was read from.
#[derive(Debug)]
pub struct Message {
    document: Document,
    parts: Parts,
}

/// Where the parts of a message stand in its document's table.
#[derive(Debug, Clone, Copy)]
struct Parts {
    kind: MessageKind,
    id: Option<u32>,
    method: Option<u32>,
    params: Option<u32>,
    result: Option<u32>,
    error: Option<u32>,
    about: Option<About>,
}

/// Where the message says what it is about.
#[derive(Debug, Clone, Copy)]
struct About {
    target: Target,
    value: u32,
    is_tool: bool,
}

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    Client,
    Server,
}

impl Message {
    /// Reads a message of a client.
    pub fn read(body: Bytes, limits: &Limits) -> Result<Message, MessageError> {
        Self::read_from(Sender::Client, body, limits)
    }

    /// Reads a message of a server. Servers answer with an error that has no id, or a null one, where they could not
    /// read what they were sent; everything else is as strict as for clients.
    pub fn read_from_server(body: Bytes, limits: &Limits) -> Result<Message, MessageError> {
        Self::read_from(Sender::Server, body, limits)
    }

    fn read_from(sender: Sender, body: Bytes, limits: &Limits) -> Result<Message, MessageError> {
        let document = Document::read(body, limits)?;
        let parts = match envelope::read(&document, sender) {
            Ok(parts) => parts,
            Err(flaw) => return Err(MessageError::new(flaw, &document)),
        };
        Ok(Message { document, parts })
    }

    /// What it is.
    pub fn kind(&self) -> MessageKind {
        self.parts.kind
    }

    /// The bytes as they were received.
    pub fn body(&self) -> &Bytes {
        self.document.body()
    }

    /// The whole message as JSON.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// The id as written, so that digits and escapes stay what they are: `7`, `"7"`.
    pub fn id(&self) -> Option<&str> {
        self.part(self.parts.id).map(Value::raw_text)
    }

    /// The method of a request or notification.
    pub fn method(&self) -> Option<&str> {
        self.part(self.parts.method).and_then(Value::text)
    }

    /// The parameters of a request or notification: always an object.
    pub fn params(&self) -> Option<Value<'_>> {
        self.part(self.parts.params)
    }

    /// The tool that a `tools/call` names; always there for that method, never for another.
    pub fn tool(&self) -> Option<&str> {
        let about = self.parts.about.filter(|about| about.is_tool)?;
        self.document.value(about.value).text()
    }

    /// The arguments of a `tools/call` or `prompts/get`: always an object.
    pub fn arguments(&self) -> Option<Value<'_>> {
        self.parts.about.filter(|about| about.target == Target::Name)?;
        self.params()?.get("arguments")
    }

    /// What the message is about: the tool's or prompt's name, the resource's URI, the task's id; for
    /// `completion/complete` the name or URI it refers to. The method says which of them it is.
    pub fn target(&self) -> Option<&str> {
        self.document.value(self.parts.about?.value).text()
    }

    /// `params._meta`: always an object.
    pub fn meta(&self) -> Option<Value<'_>> {
        self.params()?.get("_meta")
    }

    /// The revision that the message itself says it speaks, as from 2026-07-28 on.
    pub fn meta_revision(&self) -> Option<&str> {
        self.meta()?.get(META_REVISION)?.text()
    }

    /// What the client says it is called, where the message says so: `initialize`, and requests of 2026-07-28.
    pub fn client_name(&self) -> Option<&str> {
        let greeting = || self.params().filter(|_| self.method() == Some("initialize"))?.get("clientInfo");
        let client = self.meta().and_then(|meta| meta.get(META_CLIENT)).or_else(greeting)?;
        client.get("name")?.text()
    }

    /// The result of a response.
    pub fn result(&self) -> Option<Value<'_>> {
        self.part(self.parts.result)
    }

    /// The error of a response: always an object.
    pub fn error(&self) -> Option<Value<'_>> {
        self.part(self.parts.error)
    }

    fn part(&self, index: Option<u32>) -> Option<Value<'_>> {
        index.map(|index| self.document.value(index))
    }
}

/// Why a body is no message that is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageError {
    /// The JSON-RPC error code.
    pub code: i32,
    /// What is wrong and where, without any content. For clients and operators alike.
    pub text: String,
    /// The id as written, where the message has one that can be echoed.
    pub id: Option<Box<str>>,
    /// A fixed word for metrics and records.
    pub name: &'static str,
}

impl MessageError {
    fn new(flaw: Flaw, document: &Document) -> Self {
        let id = document.root().get("id").filter(|id| envelope::is_id(*id));
        let id = id.map(|id| Box::from(id.raw_text()));
        Self { code: flaw.code, text: format!("{} at byte {}", flaw.text, flaw.at), id, name: flaw.name }
    }
}

impl From<ReadError> for MessageError {
    fn from(error: ReadError) -> Self {
        let code = if error.fault.is_well_formed() { error::INVALID_REQUEST } else { error::PARSE_ERROR };
        Self { code, text: error.to_string(), id: None, name: error.fault.name() }
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for MessageError {}

/// What is wrong with a document that should be a message.
#[derive(Debug)]
struct Flaw {
    code: i32,
    name: &'static str,
    text: Cow<'static, str>,
    at: usize,
}

impl Flaw {
    /// Not a message.
    fn request(name: &'static str, text: impl Into<Cow<'static, str>>, value: Value<'_>) -> Self {
        Self { code: error::INVALID_REQUEST, name, text: text.into(), at: value.span().start }
    }

    /// A message with wrong parameters.
    fn params(name: &'static str, text: impl Into<Cow<'static, str>>, value: Value<'_>) -> Self {
        Self { code: error::INVALID_PARAMS, name, text: text.into(), at: value.span().start }
    }
}
