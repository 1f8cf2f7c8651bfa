//! How does the gateway say no, in JSON-RPC?
//!
//! These bodies are the only JSON the gateway writes itself. The id is echoed exactly as it was received, and left out
//! where none could be read.

use bytes::Bytes;

use crate::mcp::revision::Era;

/// The body is not JSON, or not JSON with one meaning.
pub const PARSE_ERROR: i32 = -32700;
/// JSON, but not a JSON-RPC message this gateway takes.
pub const INVALID_REQUEST: i32 = -32600;
/// No such method in this revision.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// Parameters of the wrong form, or a tool, prompt, resource or cursor that does not exist for the caller.
pub const INVALID_PARAMS: i32 = -32602;
/// No such resource, in the revisions before 2026-07-28, which has [`INVALID_PARAMS`] for it.
pub const RESOURCE_NOT_FOUND: i32 = -32002;
/// The gateway or the server behind it failed.
pub const INTERNAL_ERROR: i32 = -32603;
/// 2026-07-28: a header is missing, malformed or differs from the body.
pub const HEADER_MISMATCH: i32 = -32020;
/// 2026-07-28: the request needs a capability that its client did not declare.
pub const MISSING_CAPABILITY: i32 = -32021;
/// 2026-07-28: a revision that is not spoken here.
pub const UNSUPPORTED_REVISION: i32 = -32022;
/// Refused by an argument constraint, or because of content. Outside the range that JSON-RPC keeps for itself.
pub const REFUSED: i32 = -31403;
/// Waits for a human.
pub const APPROVAL_REQUIRED: i32 = -31202;
/// A quota or rate is used up.
pub const QUOTA_EXCEEDED: i32 = -31429;

/// A JSON-RPC error response. `id` and `data` are JSON as it goes on the wire.
pub fn error_body(id: Option<&str>, code: i32, text: &str, data: Option<&str>) -> Bytes {
    let id = id.map(|id| format!(r#""id":{id},"#)).unwrap_or_default();
    let data = data.map(|data| format!(r#","data":{data}"#)).unwrap_or_default();
    let text = json_string(text);
    format!(r#"{{"jsonrpc":"2.0",{id}"error":{{"code":{code},"message":{text}{data}}}}}"#).into()
}

/// A JSON-RPC response. `id` and `result` are JSON as it goes on the wire.
pub fn result_body(id: &str, result: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).into()
}

/// A response to `tools/call` that says in the form of a tool's result why there is none.
pub fn tool_error_body(id: &str, text: &str, era: Era) -> Bytes {
    let result_type = match era {
        Era::Legacy => "",
        Era::Modern => r#""resultType":"complete","#,
    };
    let text = json_string(text);
    result_body(id, &format!(r#"{{{result_type}"content":[{{"type":"text","text":{text}}}],"isError":true}}"#))
}

/// A text as a JSON string, with quotes.
pub fn json_string(text: &str) -> String {
    // A text can always be written.
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn parsed(body: &Bytes) -> Value {
        serde_json::from_slice(body).expect("the gateway writes JSON")
    }

    #[test]
    fn an_error_echoes_the_id_as_it_was_written() {
        let body = error_body(Some("9007199254740993"), INVALID_PARAMS, "Unknown tool: x", None);
        assert_eq!(
            body,
            r#"{"jsonrpc":"2.0","id":9007199254740993,"error":{"code":-32602,"message":"Unknown tool: x"}}"#
        );
        let body = error_body(Some(r#""\u0061""#), PARSE_ERROR, "x", None);
        assert_eq!(body, r#"{"jsonrpc":"2.0","id":"\u0061","error":{"code":-32700,"message":"x"}}"#);
    }

    #[test]
    fn an_error_without_a_readable_id_has_none() {
        assert_eq!(
            parsed(&error_body(None, PARSE_ERROR, "x", None)),
            json!({"jsonrpc": "2.0", "error": {"code": -32700, "message": "x"}})
        );
    }

    #[test]
    fn a_text_cannot_leave_its_string() {
        let text = "\"},\"result\":{}\\\n\u{0}\u{2028}</script>";
        assert_eq!(parsed(&error_body(None, REFUSED, text, None))["error"]["message"], text);
        assert_eq!(parsed(&tool_error_body("1", text, Era::Legacy))["result"]["content"][0]["text"], text);
    }

    #[test]
    fn data_is_written_as_it_is() {
        let body = error_body(Some("1"), UNSUPPORTED_REVISION, "x", Some(r#"{"supported":["2026-07-28"]}"#));
        assert_eq!(parsed(&body)["error"]["data"], json!({"supported": ["2026-07-28"]}));
    }

    #[test]
    fn a_tool_error_has_the_form_of_its_era() {
        let legacy = json!({"content": [{"type": "text", "text": "no"}], "isError": true});
        assert_eq!(
            parsed(&tool_error_body("7", "no", Era::Legacy)),
            json!({"jsonrpc": "2.0", "id": 7, "result": legacy})
        );
        assert_eq!(parsed(&tool_error_body("7", "no", Era::Modern))["result"]["resultType"], "complete");
    }

    #[test]
    fn own_codes_are_outside_the_reserved_range() {
        for code in [REFUSED, APPROVAL_REQUIRED, QUOTA_EXCEEDED] {
            assert!(!(-32768..=-32000).contains(&code));
        }
    }
}
