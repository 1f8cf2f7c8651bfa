//! Answers that two readers could understand differently, or that are no HTTP, are refused; interim ones are skipped.

use super::OK;
use super::Running;
use super::Scripted;
use super::Step;

use crate::upstream::ANSWER_HEAD_BYTES_MAX;
use crate::upstream::ANSWER_HEADERS_MAX;
use crate::upstream::Failure;
use crate::upstream::INTERIM_ANSWERS_MAX;

/// How a call ends whose answer is `text`, after which the server closes.
async fn failure(text: impl Into<String>) -> Option<Failure> {
    let scripted = Scripted::new([Step::SayAndClose(text.into())]);
    let result = Running::of(&scripted).call().await;
    assert_eq!(scripted.requests().len(), 1, "nothing is sent twice");
    result.err().map(|error| error.failure())
}

/// An answer with these header lines and this body.
fn answer(lines: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n{body}")
}

#[tokio::test]
async fn a_well_framed_answer_passes() {
    assert_eq!(failure(OK).await, None);
    assert_eq!(failure(answer("transfer-encoding: Chunked\r\n", "2\r\nab\r\n0\r\n\r\n")).await, None);
    assert_eq!(failure(answer("", "until the end of the connection")).await, None);
    assert_eq!(failure("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await, None);
    assert_eq!(failure("HTTP/1.1 204 No Content\r\n\r\n").await, None);
}

#[tokio::test]
async fn interim_answers_are_skipped() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
    let scripted = Scripted::new([Step::Say(format!("{interim}{OK}"))]);
    assert_eq!(Running::of(&scripted).call().await.unwrap(), "{\"a\":1}");
}

#[tokio::test]
async fn no_more_interim_answers_are_skipped_than_the_limit() {
    let interim = |count| format!("{}{OK}", "HTTP/1.1 102 Processing\r\n\r\n".repeat(count));
    assert_eq!(failure(interim(INTERIM_ANSWERS_MAX)).await, None);
    assert_eq!(failure(interim(INTERIM_ANSWERS_MAX + 1)).await, Some(Failure::Protocol));
}

#[tokio::test]
async fn an_ambiguous_answer_is_refused() {
    let answers = [
        answer("content-length: 2\r\ncontent-length: 7\r\n", "{\"a\":1}"),
        answer("content-length: 7\r\ncontent-length: 7\r\n", "{\"a\":1}"),
        answer("content-length: 7, 7\r\n", "{\"a\":1}"),
        answer("content-length: +7\r\n", "{\"a\":1}"),
        answer("content-length: -1\r\n", "{\"a\":1}"),
        answer("content-length: 2\r\ntransfer-encoding: chunked\r\n", "2\r\nab\r\n0\r\n\r\n"),
        answer("transfer-encoding: gzip, chunked\r\n", "2\r\nab\r\n0\r\n\r\n"),
        answer("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "2\r\nab\r\n0\r\n\r\n"),
        answer("transfer-encoding: xchunked\r\n", "2\r\nab\r\n0\r\n\r\n"),
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n".to_owned(),
        answer("x : y\r\ncontent-length: 2\r\n", "ab"),
        answer("x: y\r\n z\r\ncontent-length: 2\r\n", "ab"),
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n".to_owned(),
    ];
    for text in answers {
        assert_eq!(failure(text.clone()).await, Some(Failure::Protocol), "{text}");
    }
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    for text in
        ["\0\u{1}\u{2} nonsense\r\n\r\n", "<html>", "HTTP/2 200\r\n\r\n", "HTTP/1.1 20x OK\r\n\r\n", "SSH-2.0-x\r\n"]
    {
        assert_eq!(failure(text).await, Some(Failure::Protocol), "{text}");
    }
}

#[tokio::test]
async fn a_head_over_its_limits_is_refused() {
    let lines = |count: usize| "x: y\r\n".repeat(count - 1) + "content-length: 0\r\n";
    assert_eq!(failure(answer(&lines(ANSWER_HEADERS_MAX), "")).await, None);
    assert_eq!(failure(answer(&lines(ANSWER_HEADERS_MAX + 1), "")).await, Some(Failure::Protocol));
    let sized = |bytes: usize| {
        let rest = answer("x: \r\ncontent-length: 0\r\n", "").len();
        answer(&format!("x: {}\r\ncontent-length: 0\r\n", "y".repeat(bytes - rest)), "")
    };
    assert_eq!(failure(sized(ANSWER_HEAD_BYTES_MAX)).await, None);
    assert_eq!(failure(sized(ANSWER_HEAD_BYTES_MAX + 1)).await, Some(Failure::Protocol));
    assert_eq!(failure(sized(1024 * 1024)).await, Some(Failure::Protocol));
}

#[tokio::test]
async fn a_cut_is_an_error_and_not_an_end() {
    assert_eq!(failure(answer("content-length: 9\r\n", "abc")).await, Some(Failure::Reset));
    assert_eq!(failure(answer("transfer-encoding: chunked\r\n", "2\r\nab\r\n")).await, Some(Failure::Reset));
    assert_eq!(failure(answer("transfer-encoding: chunked\r\n", "9\r\nab")).await, Some(Failure::Reset));
}

#[tokio::test]
async fn a_bad_chunk_is_an_error() {
    for body in ["zz\r\nab\r\n0\r\n\r\n", "2\r\nabcd\r\n0\r\n\r\n", "-1\r\na\r\n", "fffffffffffffffff\r\na\r\n"] {
        assert_eq!(failure(answer("transfer-encoding: chunked\r\n", body)).await, Some(Failure::Protocol), "{body}");
    }
}

#[tokio::test]
async fn a_second_answer_to_one_request_is_never_taken_for_the_next() {
    let scripted = Scripted::new([Step::Say(format!("{OK}{OK}")), Step::Say(OK.replace("{\"a\":1}", "{\"b\":2}"))]);
    let running = Running::of(&scripted);
    assert_eq!(running.call().await.unwrap(), "{\"a\":1}");
    assert_eq!(running.call().await.unwrap(), "{\"b\":2}");
    assert_eq!(scripted.connections(), 2);
}
