//! How long streams last: reloads, the way out, silence.

use std::time::Instant;

use serde_json::json;

use crate::support::client;
use crate::support::clock::Clock;
use crate::support::upstream::Event;
use crate::support::upstream::Reply;

use super::INITIALIZE;
use super::LIST;
use super::SECOND;
use super::STEP;
use super::Stage;
use super::Stream;
use super::call;
use super::get;

/// After how long without an event a comment is due.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(15);

/// A standing stream of a Streamable HTTP client.
async fn session(stage: &Stage) -> String {
    let opened = stage.post("/mcp/a", &[], INITIALIZE).await;
    format!("Mcp-Session-Id: {}", opened.header("mcp-session-id").unwrap())
}

async fn standing(stage: &Stage) -> Stream {
    let header = session(stage).await;
    Stream::open(stage.gateway.data, get("/mcp/a", &[&header, &stage.key()])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_revoked_ends_its_streams_and_nobody_else_s() {
    let relay = Stage::sse().await;
    let mut of_sse = relay.client().await;
    let mut of_hub = standing(&relay).await;
    let foreign = format!("X-API-Key: {}", relay.other.key);
    let mut other = super::Client::open(relay.gateway.data, "/mcp/a/sse", &[&foreign]).await;
    relay.reload("[keys.ci]", "[keys.gone]");
    assert!(of_sse.stream.ends_within(SECOND).await && of_hub.ends_within(SECOND).await);
    relay.upstream.stream(0).await.ended().await;
    relay.upstream.stream(1).await.ended().await;
    let withdrawn = relay.gateway.wait_for_record("result", |record| record["reason"] == "permission_withdrawn");
    assert_eq!(withdrawn["outcome"], "refused");
    assert_eq!(other.ask(LIST).await["id"], 1);
    assert_eq!(of_sse.post(LIST).await.status, 404, "the key now belongs to somebody else");
    let front = Stage::streamable().await;
    front.upstream.on("GET", Reply::standing(vec![]));
    front.upstream.on("tools/call", Reply::never());
    let mut client = front.initialized().await;
    let listening = front.upstream.stream(0).await;
    assert_eq!(client.post(&call(4, "echo")).await.status, 202);
    front.upstream.wait_for("tools/call", 1).await;
    front.reload("[keys.ci]", "[keys.gone]");
    assert!(client.stream.ends_within(SECOND).await);
    listening.ended().await;
    let call = front.upstream.requests_for("tools/call").remove(0);
    front.upstream.wait_closed(call.connection).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_no_longer_granted_ends_its_streams() {
    let stage = Stage::sse().await;
    let mut client = stage.client().await;
    stage.reload("mcp_servers = [\"a\", \"b\"]", "mcp_servers = [\"b\"]");
    assert!(client.stream.ends_within(SECOND).await);
    stage.upstream.stream(0).await.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reload_blocks_is_filtered_from_then_on() {
    for stage in [Stage::sse().await, Stage::streamable().await] {
        let mut client = stage.initialized().await;
        let names = |list: serde_json::Value| {
            list["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(client.ask(LIST).await), ["echo", "other"]);
        stage.reload("\"hidden\"", "\"hidden\", \"other\"");
        assert_eq!(names(client.ask(LIST).await), ["echo"]);
        assert_eq!(client.ask(&call(3, "other")).await["error"]["message"], "Unknown tool: other");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_under_way_between_two_transports_are_answered_before_the_process_ends() {
    let mut relay = Stage::sse().await;
    let mut front = Stage::streamable().await;
    for stage in [&relay, &front] {
        let late = Event::result(json!({ "content": [] })).after(SECOND * 3);
        stage.upstream.on("tools/call", Reply::sse(vec![late]));
    }
    let mut of_front = front.initialized().await;
    assert_eq!(of_front.post(&call(5, "echo")).await.status, 202);
    let of_hub = session(&relay).await;
    let request = client::post("/mcp/a", &[&of_hub, &relay.key()], &call(6, "echo"));
    let data = relay.gateway.data;
    let of_hub = tokio::spawn(async move { client::send(data, request).await });
    relay.upstream.wait_for("tools/call", 1).await;
    front.upstream.wait_for("tools/call", 1).await;
    relay.gateway.signal("TERM");
    front.gateway.signal("TERM");
    assert_eq!(of_front.stream.message().await["id"], 5);
    assert!(of_front.stream.ends_within(SECOND).await);
    assert_eq!(of_hub.await.unwrap().events().last().unwrap()["id"], 6);
    assert_eq!((relay.gateway.wait(), front.gateway.wait()), (Some(0), Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_after_the_announcement_and_the_process_soon_after() {
    let mut relay = Stage::sse().await;
    let mut front = Stage::streamable().await;
    front.upstream.on("GET", Reply::standing(vec![]));
    let mut of_sse = relay.client().await;
    let mut of_hub = standing(&relay).await;
    let mut of_front = front.initialized().await;
    let mut of_get = standing(&front).await;
    front.upstream.stream(1).await;
    let told = Instant::now();
    relay.gateway.signal("TERM");
    front.gateway.signal("TERM");
    // While it is announced, for two seconds, everything goes on.
    tokio::time::sleep(SECOND / 4).await;
    relay.upstream.stream(0).await.push(Event::notification("notifications/tools/list_changed", json!({})));
    assert_eq!(of_sse.stream.message().await["method"], "notifications/tools/list_changed");
    assert_eq!(of_front.ask(LIST).await["id"], 1);
    for stream in [&mut of_sse.stream, &mut of_hub, &mut of_front.stream, &mut of_get] {
        assert!(stream.ends_within(SECOND * 3).await);
    }
    assert!(told.elapsed() > SECOND * 3 / 2, "{:?}", told.elapsed());
    assert_eq!((relay.gateway.wait(), front.gateway.wait()), (Some(0), Some(0)));
    assert!(told.elapsed() < SECOND * 6, "{:?}", told.elapsed());
    for stage in [&relay, &front] {
        let records = stage.gateway.records();
        assert!(records.iter().all(|record| record["outcome"] != "abandoned"), "{records:#?}");
    }
    assert_eq!(front.upstream.requests_for("DELETE").len(), 1, "the session of the client whose stream ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_stream_is_kept_alive_by_comments() {
    let relay = Stage::sse().await;
    let front = Stage::streamable().await;
    front.upstream.on("GET", Reply::standing(vec![]));
    let mut of_sse = relay.client().await.stream;
    let mut of_hub = standing(&relay).await;
    let mut of_front = front.initialized().await.stream;
    let mut of_get = standing(&front).await;
    front.upstream.on("tools/call", Reply::sse(vec![Event::progress(1), Event::result(json!({})).after(SECOND * 17)]));
    let mut of_call = Stream::open(front.gateway.data, client::post("/mcp/a", &[&front.key()], &call(1, "echo"))).await;
    assert_eq!(of_call.message().await["method"], "notifications/progress");
    tokio::time::sleep(KEEP_ALIVE - SECOND).await;
    for stream in [&mut of_sse, &mut of_hub, &mut of_front, &mut of_get, &mut of_call] {
        assert!(stream.is_silent_for(STEP / 10).await, "not before it is due");
    }
    for stream in [&mut of_sse, &mut of_hub, &mut of_front, &mut of_get, &mut of_call] {
        let comment = tokio::time::timeout(SECOND * 2, stream.piece()).await.expect("a comment in time");
        assert_eq!(comment.as_deref(), Some(":\n\n"));
    }
    assert_eq!(of_call.message().await["id"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_on_which_nothing_is_said_for_long_ends_cleanly() {
    let idle = "stream_idle_timeout_ms = 300";
    let relay = Stage::sse_with("", idle, "").await;
    let front = Stage::streamable_with("", idle).await;
    front.upstream.on("GET", Reply::standing(vec![]));
    let mut of_sse = relay.client().await.stream;
    let began = Clock::start();
    let mut of_get = standing(&front).await;
    let mut of_front = front.client().await.stream;
    assert!(of_sse.ends_within(SECOND).await && of_get.ends_within(SECOND).await && of_front.ends_within(SECOND).await);
    assert!(began.elapsed() >= STEP * 2 && began.elapsed() < SECOND * 2, "{:?}", began.elapsed());
    relay.upstream.stream(0).await.ended().await;
    front.upstream.stream(0).await.ended().await;
    for stage in [&relay, &front] {
        let results: Vec<_> = stage.gateway.records().into_iter().filter(|record| record["kind"] == "result").collect();
        assert!(results.iter().all(|result| result["outcome"] == "ok"), "{results:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_said_on_a_stream_keeps_it_a_comment_too() {
    let relay = Stage::sse_with("", "stream_idle_timeout_ms = 1500", "").await;
    let mut lively = relay.client().await.stream;
    let server = relay.upstream.stream(0).await;
    let began = Instant::now();
    // Together longer than nothing may be said.
    for _ in 0..12 {
        server.push(Event::comment("here").after(STEP * 2));
    }
    assert!(lively.ends_within(SECOND * 6).await);
    assert!(began.elapsed() > SECOND * 3, "{:?}", began.elapsed());
}
