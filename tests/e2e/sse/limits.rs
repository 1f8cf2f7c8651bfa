//! What a client or a server costs that does not behave.

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::client;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;

use super::PATIENCE;
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
