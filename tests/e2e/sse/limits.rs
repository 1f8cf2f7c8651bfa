//! What a client or a server costs that does not behave.

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::client;
use crate::support::clock::Clock;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;

use super::PATIENCE;
use super::SECOND;
use super::STEP;
use super::Stage;
use super::call;

/// As many calls of one client are under way at once.
const CALLS_MAX: usize = 64;
const CALLS: u64 = 80;
const ANSWER_BYTES: usize = 1_000_000;
const MEMORY_BYTES_MAX: u64 = 60_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_wait_at_the_server_and_are_all_told_in_the_end() {
    let result = json!({ "content": [{ "type": "text", "text": "x".repeat(ANSWER_BYTES) }] });
    for reply in [Reply::json(result.clone()), Reply::sse(vec![Event::progress(1), Event::result(result)])] {
        let stage = Stage::streamable().await;
        stage.upstream.on("tools/call", reply);
        let mut client = stage.initialized().await;
        let before = stage.gateway.peak_memory_bytes();
        let mut posts = JoinSet::new();
        for id in 0..CALLS {
            let request = client::post(&client.endpoint, &[&stage.key()], &call(100 + id, "echo"));
            posts.spawn(client::send(stage.gateway.data, request));
        }
        stage.upstream.wait_for("tools/call", CALLS_MAX).await;
        tokio::time::sleep(STEP * 20).await;
        let grown = stage.gateway.peak_memory_bytes() - before;
        let (mut answered, mut busy) = (0, 0);
        while answered + busy < CALLS {
            let message = client.stream.message().await;
            answered += u64::from(message["result"].is_object());
            busy += u64::from(message["error"].is_object());
        }
        assert!(grown < MEMORY_BYTES_MAX, "{grown} bytes");
        assert!(answered >= CALLS_MAX as u64, "{answered} answers, {busy} refusals");
        let accepted = tokio::time::timeout(PATIENCE, posts.join_all()).await.expect("in time");
        assert!(accepted.iter().all(|answer| answer.status == 202));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_streams_end_without_a_word_is_asked_less_and_less_often() {
    let stage = Stage::streamable().await;
    let mut client = stage.initialized().await;
    stage.upstream.wait_for("GET", 1).await;
    stage.upstream.on("tools/call", Reply::to_be_continued("e1", 0)).on("GET", Reply::to_be_continued("e1", 0));
    assert_eq!(client.post(&call(5, "echo")).await.status, 202);
    tokio::time::sleep(SECOND * 3).await;
    let asked = stage.upstream.requests_for("GET e1").len();
    assert!((2..7).contains(&asked), "{asked} times");
    // What is said begins it anew, and an answer is none too late.
    let said = vec![Event::progress(1).id("e2").retry(0)];
    stage.upstream.on("GET e1", Reply::sse(said)).on("GET e2", Reply::sse(vec![Event::result(json!({}))]));
    assert_eq!(client.stream.message().await["method"], "notifications/progress");
    let told = Clock::start();
    assert_eq!(client.stream.message().await["id"], 5);
    assert!(told.elapsed() < SECOND, "{:?}", told.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standing_stream_that_ends_without_a_word_is_opened_less_and_less_often() {
    let stage = Stage::streamable().await;
    stage.upstream.on("GET", Reply::to_be_continued("e1", 0));
    let mut client = stage.initialized().await;
    tokio::time::sleep(SECOND * 3).await;
    let opened = stage.upstream.requests_for("GET").len();
    assert!((2..8).contains(&opened), "{opened} times");
    stage.upstream.on("GET", Reply::standing(vec![]));
    let server = tokio::time::timeout(PATIENCE, stage.upstream.stream(0)).await.expect("opened again");
    server.push(Event::notification("notifications/tools/list_changed", json!({})));
    assert_eq!(client.stream.message().await["method"], "notifications/tools/list_changed");
}
