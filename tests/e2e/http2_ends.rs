//! HTTP/2: how a connection ends, what slow clients are given, and what is held for its streams.

use std::time::Duration;
use std::time::Instant;

use tokio::time::timeout;

use crate::support::clock::within;
use crate::support::h2::Connection;
use crate::support::h2::DATA;
use crate::support::h2::END_HEADERS;
use crate::support::h2::END_STREAM;
use crate::support::h2::End;
use crate::support::h2::GOAWAY;
use crate::support::h2::HEADERS;
use crate::support::h2::RST_STREAM;
use crate::support::h2::WINDOW_UPDATE;
use crate::support::h2::block;
use crate::support::h2::frame;
use crate::support::upstream::Reply;

use super::http2::HERE;
use super::http2::Stage;
use super::http2::call;
use super::http2::fields;
use super::http2::get;
use super::http2::marker;

/// Waits for a GOAWAY; its code.
async fn goaway(connection: &mut Connection) -> u32 {
    loop {
        let frame = connection.frame().await.expect("a goaway before the end");
        if frame.kind == GOAWAY {
            return u32::from_be_bytes(frame.payload[4..8].try_into().unwrap());
        }
    }
}

#[tokio::test]
async fn a_connection_ends_after_so_many_streams_and_says_so() {
    let stage = Stage::start("requests_per_connection_max = 3", "").await;
    let mut connection = stage.open(HERE).await;
    for stream in [1, 3] {
        connection.write(marker(stream)).await;
        assert!(matches!(connection.end_of(stream).await, End::Answered { ok: true, .. }));
    }
    connection.write(call(5, &[])).await;
    assert_eq!(goaway(&mut connection).await, 0, "NO_ERROR");
    assert!(matches!(connection.end_of(5).await, End::Answered { ok: true, .. }), "the last is answered");
    // Who does not listen is ended: as long as the ping behind the announcement is not answered, streams are still taken.
    let (mut deaf, mut answered) = (stage.open(HERE).await, 0);
    let end = loop {
        deaf.write(marker(answered * 2 + 1)).await;
        match deaf.end_of(answered * 2 + 1).await {
            End::Answered { ok: true, .. } => answered += 1,
            end => break end,
        }
    };
    assert!(matches!(end, End::Dead(_)) && answered <= 3 + 200, "{answered}, {end:?}");
    stage.gateway.wait_for_record("refused", |record| record["reason"] == "h2_abuse");
}

#[tokio::test]
async fn an_idle_connection_hears_at_once_that_the_process_goes() {
    let stage = Stage::start("keepalive_timeout_ms = 60000", "").await;
    let mut connection = stage.open(HERE).await;
    connection.write(marker(1)).await;
    assert!(matches!(connection.end_of(1).await, End::Answered { ok: true, .. }));
    stage.gateway.signal("TERM");
    let code = within(Duration::from_millis(1500), goaway(&mut connection)).await;
    assert_eq!(code, Some(0), "NO_ERROR, before the announcement is over");
    // What was on its way is answered nevertheless.
    connection.write(call(3, &[])).await;
    assert!(matches!(connection.end_of(3).await, End::Answered { ok: true, .. }));
}

#[tokio::test]
async fn a_slow_client_that_goes_on_gets_its_whole_answer() {
    let stage = Stage::start("write_timeout_ms = 1500", "").await;
    stage.upstream.on("tools/call", Reply::huge(400_000));
    let mut connection = stage.open(HERE).await;
    let began = Instant::now();
    connection.write(call(1, &[])).await;
    let (mut taken, mut owed) = (0, 0_u32);
    loop {
        let next = connection.frame().await.expect("a frame");
        assert!(next.kind != RST_STREAM && next.kind != GOAWAY, "{taken} bytes, {next:?}");
        if next.kind != DATA {
            continue;
        }
        taken += next.payload.len();
        owed += u32::try_from(next.payload.len()).unwrap();
        if next.flags & END_STREAM != 0 {
            break;
        }
        // The window is used up: about 64 KiB every 600 ms.
        if owed >= 60_000 {
            tokio::time::sleep(Duration::from_millis(600)).await;
            for stream in [0, 1] {
                connection.write(frame(WINDOW_UPDATE, 0, stream, &owed.to_be_bytes())).await;
            }
            owed = 0;
        }
    }
    assert!(taken > 400_000 && began.elapsed() > Duration::from_secs(3), "{taken} bytes, {:?}", began.elapsed());
}

#[tokio::test]
async fn a_client_that_goes_on_but_too_slowly_is_ended() {
    let stage = Stage::start("write_timeout_ms = 1500\nanswer_bytes_per_second_min = 200000", "").await;
    stage.upstream.on("tools/call", Reply::huge(3_000_000));
    let mut connection = stage.open(HERE).await;
    connection.write(call(1, &[])).await;
    let (mut taken, mut owed) = (0, 0_u32);
    let code = loop {
        let next = connection.frame().await.expect("a frame");
        match next.kind {
            DATA => taken += next.payload.len(),
            RST_STREAM => break u32::from_be_bytes(next.payload[..4].try_into().unwrap()),
            _ => continue,
        }
        assert!(next.flags & END_STREAM == 0, "it got all of it");
        owed += u32::try_from(next.payload.len()).unwrap();
        // About 64 KiB every 600 ms, each well within the time of a write: half of the pace.
        if owed >= 60_000 {
            tokio::time::sleep(Duration::from_millis(600)).await;
            for stream in [0, 1] {
                connection.write(frame(WINDOW_UPDATE, 0, stream, &owed.to_be_bytes())).await;
            }
            owed = 0;
        }
    };
    assert_eq!(code, 2, "INTERNAL_ERROR");
    assert!((200_000..1_500_000).contains(&taken), "{taken} bytes");
    stage.gateway.wait_for_record("result", |record| record["outcome"] == "client_gone");
    connection.write(marker(3)).await;
    assert!(matches!(connection.end_of(3).await, End::Answered { ok: true, .. }), "the connection goes on");
}

#[tokio::test]
async fn where_there_is_no_room_one_small_request_of_a_connection_is_read_and_not_a_hundred() {
    let stage = Stage::start("buffered_bytes_max = 1000000\nbody_bytes_max = 650000", "").await;
    let head = |stream: u32| frame(HEADERS, END_HEADERS, stream, &block(&fields(&[])));
    let part = |stream: u32, bytes: usize| frame(DATA, 0, stream, &vec![b' '; bytes]);
    let held = async || stage.gateway.metric("portcullis_buffered_bytes").await.unwrap();
    // Three quarters of the bound are for requests.
    let mut large = stage.open(HERE).await;
    for stream in (1..).step_by(2) {
        large.write(head(stream)).await;
        for _ in 0..4 {
            large.write(part(stream, 15_000)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        if held().await > 749_000.0 - 60_500.0 {
            break;
        }
    }
    let mut rest = stage.open(HERE).await;
    rest.write(head(1)).await;
    let mut before = held().await;
    while before < 749_500.0 {
        let bytes = (749_900.0 - before).min(15_000.0) as usize;
        rest.write(part(1, bytes)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        before = held().await;
    }
    let mut many = stage.open(HERE).await;
    for number in 0..100_u32 {
        many.write([head(number * 2 + 1), part(number * 2 + 1, 4_000)].concat()).await;
        if number % 10 == 9 {
            // Within the connection's window, which what is refused gives back.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let mut refused = std::collections::BTreeSet::new();
    while let Ok(Some(next)) = timeout(Duration::from_secs(2), many.frame()).await {
        if next.kind == HEADERS {
            refused.insert(next.stream);
        }
    }
    assert!((98..=99).contains(&refused.len()), "{} of 100 are refused", refused.len());
    let more = held().await - before;
    assert!((4_000.0..9_000.0).contains(&more), "{more} bytes more are held");
    // The one that is left is answered, and after it another may be.
    let favoured = (0..100).map(|number| number * 2 + 1).find(|stream| !refused.contains(stream)).unwrap();
    many.write(frame(RST_STREAM, 0, favoured, &[0, 0, 0, 8])).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    many.write(marker(201)).await;
    assert!(
        matches!(many.end_of(201).await, End::Answered { ok: true, .. }),
        "a probe is answered however much is held"
    );
}

#[tokio::test]
async fn the_heads_of_all_streams_are_held_within_the_bound() {
    let stage = Stage::start("buffered_bytes_max = 1000000\nbody_bytes_max = 650000", "").await;
    let long = "x".repeat(5_500);
    let head = block(&fields(&[("x-a", &long), ("x-b", &long)]));
    let mut connection = stage.open(HERE).await;
    // None of them sends its body. Three quarters of the bound have room for 66 or so.
    for number in 0..100_u32 {
        connection.write(frame(HEADERS, END_HEADERS, number * 2 + 1, &head)).await;
    }
    let end = tokio::time::timeout(Duration::from_secs(8), connection.end_of(199)).await.expect("an answer at once");
    let End::Answered { ok: false, body } = end else { panic!("{end:?}") };
    assert!(String::from_utf8_lossy(&body).contains("error"), "{body:?}");
    stage.gateway.wait_for_record("refused", |record| record["reason"] == "buffered_bytes_max");
    drop(connection);
    // All of it comes back.
    let mut other = stage.open(HERE).await;
    for stream in (1..400).step_by(2) {
        other.write(call(stream, &[("x-a", &long), ("x-b", &long)])).await;
        let end = other.end_of(stream).await;
        if matches!(end, End::Answered { ok: true, .. }) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing was given back");
}

/// Opens as many streams as there may be, leaves some, and opens as many others; whether one of those was refused.
async fn is_refused_a_place(stage: &Stage) -> bool {
    let before = stage.upstream.requests_for("tools/call").len();
    let mut connection = stage.open(HERE).await;
    for number in 0..100 {
        connection.write(call(number * 2 + 1, &[])).await;
    }
    stage.upstream.wait_for("tools/call", before + 100).await;
    // The streams are gone at once, the work on them is not.
    let resets = (0..15).flat_map(|number| frame(RST_STREAM, 0, number * 2 + 1, &[0, 0, 0, 8]));
    let more = (100..115).flat_map(|number| call(number * 2 + 1, &[]));
    connection.write(resets.chain(more).collect::<Vec<_>>()).await;
    loop {
        match timeout(Duration::from_millis(500), connection.frame()).await {
            Ok(Some(next)) if next.kind == RST_STREAM && next.stream > 200 => return next.payload == [0, 0, 0, 7],
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return false,
        }
    }
}

#[tokio::test]
async fn a_stream_that_finds_no_place_is_refused_on_record() {
    let stage = Stage::start("", "").await;
    stage.upstream.on("tools/call", Reply::never());
    // The work on a stream may be gone as soon as the stream: not always.
    let mut attempts = 0;
    while !is_refused_a_place(&stage).await {
        attempts += 1;
        assert!(attempts < 20, "no stream was ever refused");
    }
    stage.gateway.wait_for_record("refused", |record| record["reason"] == "h2_streams_max");
}

#[tokio::test]
async fn errors_now_and_then_do_not_end_a_long_connection() {
    let stage = Stage::start("", "").await;
    let mut connection = stage.open(HERE).await;
    let mut streams = (0..).map(|number| number * 2 + 1);
    for _ in 0..2 {
        for stream in streams.by_ref().take(30) {
            connection.write(get(stream, &[("host", "localhost"), ("host", "localhost")])).await;
            let end = connection.end_of(stream).await;
            assert!(matches!(end, End::Answered { ok: false, .. } | End::Reset(_)), "{stream}: {end:?}");
        }
        for stream in streams.by_ref().take(1_000) {
            connection.write(marker(stream)).await;
            let end = connection.end_of(stream).await;
            assert!(matches!(end, End::Answered { ok: true, .. }), "{stream}: {end:?}");
        }
    }
}
