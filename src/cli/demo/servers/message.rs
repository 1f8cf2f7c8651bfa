//! What did the client say?
//!
//! One JSON-RPC message, and the errors that answer one.

use axum::response::IntoResponse;
use axum::response::Response;
use http::StatusCode;
use http::header;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

/// An object of JSON.
pub(super) type Object = Map<String, Value>;

/// One message of a client.
pub(super) enum Message {
    /// Wants an answer.
    Request {
        /// A string or an integer.
        id: Value,
        /// What is asked.
        method: String,
        /// With what.
        params: Object,
    },
    /// Wants none.
    Notification {
        /// What happened.
        method: String,
        /// With what.
        params: Object,
    },
    /// Answers a request of the server.
    Response {
        /// The request's.
        id: Value,
        /// Nothing, if the client answered with an error.
        result: Option<Value>,
    },
}

impl Message {
    /// Reads one message.
    pub(super) fn read(value: Value) -> Result<Self, Fault> {
        let Value::Object(mut object) = value else { return Err(Fault::invalid("not a JSON-RPC message")) };
        if object.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return Err(Fault::invalid("`jsonrpc` must be \"2.0\""));
        }
        let id = object.remove("id");
        if !matches!(&id, None | Some(Value::String(_))) && !id.as_ref().is_some_and(is_integer) {
            return Err(Fault::invalid("an id is a string or an integer"));
        }
        let Some(method) = object.remove("method") else {
            let (Some(id), true) = (id, object.contains_key("result") ^ object.contains_key("error")) else {
                return Err(Fault::invalid("neither a method nor an answer"));
            };
            return Ok(Self::Response { id, result: object.remove("result") });
        };
        let Value::String(method) = method else { return Err(Fault::invalid("`method` is a string")) };
        let params = match object.remove("params") {
            None => Object::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return Err(Fault::invalid("`params` is an object").about(id)),
        };
        Ok(match id {
            Some(id) => Self::Request { id, method, params },
            None => Self::Notification { method, params },
        })
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64()
}

/// An error that answers a message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    pub(super) status: StatusCode,
    code: i32,
    text: String,
    data: Option<Value>,
    id: Option<Value>,
}

impl Fault {
    /// An error of the protocol that travels with status 200.
    pub(super) fn new(code: i32, text: impl Into<String>) -> Self {
        Self { status: StatusCode::OK, code, text: text.into(), data: None, id: None }
    }

    /// What is no valid request.
    pub(super) fn invalid(text: &str) -> Self {
        Self::new(-32600, text).with_status(StatusCode::BAD_REQUEST)
    }

    /// What nobody answers to.
    pub(super) fn unknown_method(method: &str) -> Self {
        Self::new(-32601, format!("Method not found: {method}"))
    }

    /// The same with this HTTP status.
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same with `error.data`.
    pub(super) fn with_data(self, data: Value) -> Self {
        Self { data: Some(data), ..self }
    }

    /// The same about the request with this id.
    pub(super) fn about(self, id: Option<Value>) -> Self {
        Self { id, ..self }
    }

    /// The message that carries it.
    pub(super) fn into_message(self) -> Value {
        let mut error = json!({"code": self.code, "message": self.text});
        if let (Some(data), Some(error)) = (self.data, error.as_object_mut()) {
            error.insert("data".into(), data);
        }
        let mut message = json!({"jsonrpc": "2.0", "error": error});
        if let (Some(id), Some(message)) = (self.id, message.as_object_mut()) {
            message.insert("id".into(), id);
        }
        message
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        json_response(self.status, &self.into_message())
    }
}

/// The message that answers request `id`.
pub(super) fn answer(id: Value, result: Result<Value, Fault>) -> Value {
    match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(fault) => fault.about(Some(id)).into_message(),
    }
}

/// An HTTP answer of one JSON document.
pub(super) fn json_response(status: StatusCode, document: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}
