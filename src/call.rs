//! What is asked of which server?

use std::sync::Arc;

use crate::mcp::message::Message;

/// One request of a client, on its way to being judged: policy decides about a `Call`, and only what it permits is sent.
#[derive(Debug)]
pub struct Call {
    /// The server's configured name.
    pub server: Arc<str>,
    /// What it is asked to do.
    pub action: Action,
}

/// What a server is asked to do.
#[derive(Debug)]
pub enum Action {
    /// To take a JSON-RPC message (`POST`).
    Message(Message),
    /// To end a session (`DELETE`).
    EndSession,
}

impl Call {
    /// The JSON-RPC message, if the call carries one.
    pub fn message(&self) -> Option<&Message> {
        match &self.action {
            Action::Message(message) => Some(message),
            Action::EndSession => None,
        }
    }

    /// The tool that is called, if the call is a `tools/call` that names one.
    pub fn tool(&self) -> Option<&str> {
        self.message().and_then(Message::tool)
    }
}
