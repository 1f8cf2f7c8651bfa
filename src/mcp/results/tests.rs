//! Results that are complete, that ask for something, and that pretend.

use bytes::Bytes;
use serde_json::Value as Json;
use serde_json::json;

use super::*;
use crate::mcp::document::Document;
use crate::mcp::document::Limits;
use crate::mcp::splice;

fn read(body: &str) -> Document {
    Document::read(Bytes::copy_from_slice(body.as_bytes()), &Limits::for_answers()).expect("is read")
}

/// Keys and methods of what is asked for.
fn asked(result: &str) -> Result<Vec<(String, &'static str)>, &'static str> {
    let document = read(result);
    let requests = input_requests(document.root())?;
    Ok(requests.map(|request| (request.key.to_owned(), request.method)).collect())
}

fn url(params: &str) -> Option<Result<(), &'static str>> {
    elicitation_url(read(params).root())
}

#[test]
fn a_result_says_how_far_it_goes() {
    for (result, expected) in [
        ("{}", ResultType::Complete),
        (r#"{"resultType":"complete"}"#, ResultType::Complete),
        (r#"{"resultType":"\u0063omplete"}"#, ResultType::Complete),
        (r#"{"resultType":"input_required"}"#, ResultType::InputRequired),
        (r#"{"resultType":"task"}"#, ResultType::Task),
        (r#"{"resultType":"Task"}"#, ResultType::Unknown),
        (r#"{"resultType":""}"#, ResultType::Unknown),
        (r#"{"resultType":null}"#, ResultType::Unknown),
        (r#"{"resultType":["complete"]}"#, ResultType::Unknown),
        (r#"{"resulttype":"task"}"#, ResultType::Unknown),
        (r#"{"resultType":"complete","ResultType":"task"}"#, ResultType::Unknown),
        (r#"{"resultType":"complete","inputrequests":{}}"#, ResultType::Unknown),
        ("null", ResultType::Unknown),
        ("[]", ResultType::Unknown),
    ] {
        assert_eq!(result_type(read(result).root()), expected, "{result}");
    }
}

#[test]
fn only_three_methods_may_be_answered_with_a_question() {
    for method in ["tools/call", "prompts/get", "resources/read"] {
        assert!(may_ask(method), "{method}");
    }
    for method in ["tools/list", "resources/list", "server/discover", "completion/complete", "tasks/get", "Tools/call"]
    {
        assert!(!may_ask(method), "{method}");
    }
}

#[test]
fn whatever_may_be_shared_becomes_private_and_nothing_else_changes() {
    for (result, expected) in [
        (r#"{"cacheScope":"public","ttlMs":60000}"#, r#"{"cacheScope":"private","ttlMs":60000}"#),
        (r#"{ "cacheScope" : "p\u0075blic" }"#, r#"{ "cacheScope" : "private" }"#),
        (r#"{"cacheScope":"Private"}"#, r#"{"cacheScope":"private"}"#),
        (r#"{"cacheScope":{"a":["public"]},"x":1.0}"#, r#"{"cacheScope":"private","x":1.0}"#),
        (r#"{"cacheScope":null}"#, r#"{"cacheScope":"private"}"#),
        (r#"{"cacheScope":"private"}"#, r#"{"cacheScope":"private"}"#),
        (r#"{"cacheScope":"priv\u0061te"}"#, r#"{"cacheScope":"priv\u0061te"}"#),
        (r#"{"_meta":{"cacheScope":"public"}}"#, r#"{"_meta":{"cacheScope":"public"}}"#),
        ("{}", "{}"),
    ] {
        let document = read(result);
        let splices: Vec<Splice> = relabel(document.root()).expect("one meaning").into_iter().collect();
        assert_eq!(splice::apply(document.body(), &splices).expect("fits"), expected, "{result}");
    }
    for result in
        [r#"{"CacheScope":"public"}"#, r#"{"cacheScope":"private","cachescope":"public"}"#, r#"{"RESULTTYPE":1}"#]
    {
        assert_eq!(relabel(read(result).root()), Err("result_key"), "{result}");
    }
}

#[test]
fn what_a_result_asks_for_is_told_in_its_order() {
    let all = r#"{"resultType":"input_required","requestState":"opaque","inputRequests":{
        "b":{"method":"roots/list"},
        "a":{"method":"elicitation\/create","params":{"mode":"form","message":"?"}},
        "\u0063":{"method":"sampling/createMessage","params":{"messages":[]}}}}"#;
    let expected = [("b", "roots/list"), ("a", "elicitation/create"), ("c", "sampling/createMessage")]
        .map(|(key, method)| (key.to_owned(), method));
    assert_eq!(asked(all), Ok(expected.to_vec()));
    let document = read(all);
    let params: Vec<_> = input_requests(document.root())
        .expect("sound")
        .map(|request| request.params.map(|params| params.raw().escape_ascii().to_string()))
        .collect();
    assert_eq!(params.first(), Some(&None));
    assert_eq!(params.last(), Some(&Some(r#"{\"messages\":[]}"#.to_owned())));
    assert_eq!(asked(r#"{"requestState":"s"}"#), Ok(vec![]));
    assert_eq!(asked(r#"{"inputRequests":{}}"#), Ok(vec![]));
}

#[test]
fn a_question_of_another_form_is_named_by_a_word() {
    let one = |request: &str| format!(r#"{{"inputRequests":{{"good":{{"method":"roots/list"}},"k":{request}}}}}"#);
    for (result, word) in [
        ("{}".into(), "input_missing"),
        (r#"{"requestState":1}"#.into(), "request_state"),
        (r#"{"inputRequests":{},"requestState":null}"#.into(), "request_state"),
        (r#"{"inputRequests":[]}"#.into(), "input_requests"),
        (r#"{"inputRequests":null,"requestState":"s"}"#.into(), "input_requests"),
        (r#"{"requestState":"s","InputRequests":{}}"#.into(), "result_key"),
        (one("null"), "input_requests"),
        (one("{}"), "input_requests"),
        (one(r#"{"method":1}"#), "input_requests"),
        (one(r#"{"method":"roots/list","params":[]}"#), "input_requests"),
        (one(r#"{"method":"roots/list","params":null}"#), "input_requests"),
        (one(r#"{"method":"roots/list","Method":"sampling/createMessage"}"#), "input_requests"),
        (one(r#"{"method":"elicitation/create","Params":{"mode":"url"}}"#), "input_requests"),
        (one(r#"{"method":"Roots/list"}"#), "input_method"),
        (one(r#"{"method":"tools/call","params":{}}"#), "input_method"),
    ] {
        assert_eq!(asked(&result), Err(word), "{result}");
    }
}

#[test]
fn a_result_asks_for_so_many_things_and_no_more() {
    let many = |count: usize| {
        let requests: Vec<_> = (0..count).map(|at| format!(r#""{at}":{{"method":"roots/list"}}"#)).collect();
        format!(r#"{{"inputRequests":{{{}}}}}"#, requests.join(","))
    };
    assert_eq!(asked(&many(INPUT_REQUESTS_MAX)).map(|asked| asked.len()), Ok(INPUT_REQUESTS_MAX));
    assert_eq!(asked(&many(INPUT_REQUESTS_MAX + 1)), Err("input_requests_max"));
}

#[test]
fn a_task_asks_in_the_same_form_and_mostly_for_nothing() {
    let count = |task: &str| input_requests_of_task(read(task).root()).map(Iterator::count);
    assert_eq!(count(r#"{"taskId":"t","status":"working"}"#), Ok(0));
    assert_eq!(count(r#"{"taskId":"t","inputRequests":{"k":{"method":"roots/list"}}}"#), Ok(1));
    assert_eq!(count(r#"{"taskId":"t","inputRequests":{"k":{"method":"tools/call"}}}"#), Err("input_method"));
    assert_eq!(count(r#"{"taskId":"t","inputrequests":{}}"#), Err("result_key"));
}

#[test]
fn a_url_that_every_reader_takes_to_the_same_place_may_be_opened() {
    for address in [
        "https://example.com",
        "https://example.com/",
        "HTTPS://EXAMPLE.com:8443/a%20b?c=d@e#f",
        "https://xn--bcher-kva.example?x",
        "https://192.0.2.1/",
        "https://[2001:db8::1]:443/",
        "http://localhost:3000/cb",
        "http://LOCALHOST",
        "http://127.0.0.1:1/",
        "http://127.9.9.9",
        "http://[::1]:9/x",
    ] {
        assert_eq!(url(&json!({"mode": "url", "url": address}).to_string()), Some(Ok(())), "{address}");
    }
}

#[test]
fn any_other_url_is_named_by_a_word() {
    for (address, word) in [
        ("http://example.com/", "elicitation_url_scheme"),
        ("http://localhost.evil.example/", "elicitation_url_scheme"),
        ("http://127.0.0.1.evil.example/", "elicitation_url_scheme"),
        ("http://127.1/", "elicitation_url_scheme"),
        ("http://2130706433/", "elicitation_url_scheme"),
        ("http://169.254.169.254/", "elicitation_url_scheme"),
        ("javascript:alert(1)", "elicitation_url_scheme"),
        ("javascript://example.com/%0aalert(1)", "elicitation_url_scheme"),
        ("file:///etc/passwd", "elicitation_url_host"),
        ("data:text/html,x", "elicitation_url_scheme"),
        ("ftp://example.com/", "elicitation_url_scheme"),
        ("https:example.com", "elicitation_url_scheme"),
        ("https:/example.com", "elicitation_url_scheme"),
        ("//example.com/", "elicitation_url_scheme"),
        ("", "elicitation_url_scheme"),
        ("https://", "elicitation_url_host"),
        ("https:///example.com", "elicitation_url_host"),
        ("https://?x", "elicitation_url_host"),
        ("https://:443/", "elicitation_url_host"),
        ("https://example.com:/", "elicitation_url_host"),
        ("https://example.com:99999/", "elicitation_url_host"),
        ("https://example.com:+1/", "elicitation_url_host"),
        ("https://e%78ample.com/", "elicitation_url_host"),
        ("https://[::1/", "elicitation_url_host"),
        ("https://[::1]x/", "elicitation_url_host"),
        ("https://[fe80::1%25eth0]/", "elicitation_url_host"),
        ("https://[example.com]/", "elicitation_url_host"),
        ("https://safe.example@evil.example/", "elicitation_url_user"),
        ("https://user:secret@example.com/", "elicitation_url_user"),
        ("https://@example.com/", "elicitation_url_user"),
        (" https://example.com/", "elicitation_url"),
        ("https://example.com/\n", "elicitation_url"),
        ("https://exa\tmple.com/", "elicitation_url"),
        ("https://example.com\\@evil.example/", "elicitation_url"),
        ("https://ex\u{430}mple.com/", "elicitation_url"),
        ("https://example.com/\u{202e}", "elicitation_url"),
        ("https://example.com/\0", "elicitation_url"),
    ] {
        assert_eq!(url(&json!({"mode": "url", "url": address}).to_string()), Some(Err(word)), "{address:?}");
    }
    let long = format!("https://example.com/{}", "x".repeat(URI_BYTES_MAX));
    assert_eq!(url(&json!({"mode": "url", "url": long}).to_string()), Some(Err("elicitation_url")));
}

#[test]
fn a_url_is_judged_in_any_mode() {
    for (params, expected) in [
        (r#"{"message":"?"}"#, None),
        (r#"{"mode":"form","message":"?","requestedSchema":{"properties":{"url":{"type":"string"}}}}"#, None),
        (r#"{"mode":"form","url":"http://evil.example"}"#, Some(Err("elicitation_url_scheme"))),
        (r#"{"url":"javascript:x"}"#, Some(Err("elicitation_url_scheme"))),
        (r#"{"mode":"url"}"#, Some(Err("elicitation_url"))),
        (r#"{"mode":"url","url":null}"#, Some(Err("elicitation_url"))),
        (r#"{"mode":"url","url":["https://example.com"]}"#, Some(Err("elicitation_url"))),
        (r#"{"mode":"url","url":"https://example.com","URL":"http://evil.example"}"#, Some(Err("elicitation_key"))),
        (r#"{"Mode":"url","url":"https://example.com"}"#, Some(Err("elicitation_key"))),
        (r#"{"mode":1}"#, Some(Err("elicitation_mode"))),
    ] {
        assert_eq!(url(params), expected, "{params}");
    }
}

#[test]
fn tasks_are_declared_by_an_object_under_their_exact_name() {
    for (capabilities, expected) in [
        (r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#, true),
        (r#"{"extensions":{"io.modelcontextprotocol/tasks":{"x":1}}}"#, true),
        (r#"{"extensions":{"io.modelcontextprotocol/tasks":null}}"#, false),
        (r#"{"extensions":{"io.modelcontextprotocol/tasks":false}}"#, false),
        (r#"{"extensions":{"io.modelcontextprotocol/Tasks":{}}}"#, false),
        (r#"{"extensions":["io.modelcontextprotocol/tasks"]}"#, false),
        (r#"{"tasks":{}}"#, false),
        ("{}", false),
    ] {
        let meta = read(&format!(r#"{{"{META_CAPABILITIES}":{capabilities}}}"#));
        assert_eq!(tasks_declared(meta.root()), expected, "{capabilities}");
    }
    assert!(!tasks_declared(read("{}").root()));
}

#[test]
fn a_client_without_tasks_is_told_what_to_declare() {
    let error = tasks_undeclared();
    assert_eq!(error.code, -32021);
    let data: Json = serde_json::from_str(&error.data.expect("data")).expect("JSON");
    assert_eq!(data, json!({"requiredCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}}));
    let declared = read(&format!(r#"{{"{META_CAPABILITIES}":{}}}"#, data["requiredCapabilities"]));
    assert!(tasks_declared(declared.root()), "what is asked for would do");
}
