//! Who gets what a server says, and who is near to whom.

use super::*;
use crate::principal::Link;
use crate::principal::Minted;
use crate::runtime::budget::QUEUED_BYTES_MAX;

fn hub() -> Arc<Hub> {
    of(&Principal::of_key("ci"))
}

fn of(principal: &Principal) -> Arc<Hub> {
    Arc::new(Hub::new(principal, PathAndQuery::from_static("/message"), 7, &Buffers::new(usize::MAX)))
}

#[test]
fn callers_are_near_who_share_a_key_and_then_who_share_a_workspace() {
    let child = |id: u8| {
        let links = vec![Link { id: [id; 10], agent: "acme/worker".into(), ..Link::default() }];
        let parent = Arc::new(Principal::of_key("acme/ci"));
        Principal::of_child(Minted { parent, binding: Default::default(), links, expires: 9 })
    };
    let one = of(&child(1));
    let distances = [child(1), child(2), Principal::of_key("acme/ci"), Principal::of_key("acme/x")];
    let distances = distances.map(|other| one.distance(&of(&other)));
    assert_eq!(distances, [Distance::Own, Distance::Counted, Distance::Counted, Distance::Workspace]);
    for other in [Principal::of_key("ci"), Principal::of_key("beta/ci"), Principal::public()] {
        assert_eq!(one.distance(&of(&other)), Distance::Other, "{}", other.id);
    }
}

#[tokio::test]
async fn an_answer_goes_to_its_request_whatever_the_spelling_of_its_id() {
    let hub = hub();
    let (mut text, _text) = hub.wait(r#""a""#, None).unwrap();
    let (mut number, _number) = hub.wait("1", None).unwrap();
    hub.deliver("to text".into(), About::Answer(r#""\u0061""#));
    hub.deliver("to nobody".into(), About::Answer(r#""1""#));
    hub.deliver("to number".into(), About::Answer("1"));
    assert_eq!((text.recv().await, text.recv().await), (Some("to text".into()), None));
    assert_eq!((number.recv().await, number.recv().await), (Some("to number".into()), None));
}

#[tokio::test]
async fn progress_goes_to_the_request_with_its_token_only() {
    let hub = hub();
    let (mut one, _one) = hub.wait("1", Some("5")).unwrap();
    let (mut two, _two) = hub.wait("2", Some(r#""5""#)).unwrap();
    hub.deliver("a".into(), About::Progress(r#""5""#));
    hub.deliver("b".into(), About::Progress("5"));
    hub.deliver("c".into(), About::Progress("6"));
    assert_eq!((two.try_recv().ok(), two.try_recv().ok()), (Some("a".into()), None));
    assert_eq!((one.try_recv().ok(), one.try_recv().ok()), (Some("b".into()), None));
}

#[tokio::test]
async fn what_is_for_nobody_goes_to_the_last_standing_stream_or_a_request_or_waits() {
    let hub = hub();
    hub.deliver("early".into(), About::Anything);
    let (mut request, waits) = hub.wait("1", None).unwrap();
    hub.deliver("second".into(), About::Anything);
    let (mut standing, _stands) = hub.stand().unwrap();
    hub.deliver("third".into(), About::Anything);
    let (mut last, _stands) = hub.stand().unwrap();
    hub.deliver("fourth".into(), About::Anything);
    assert_eq!((request.try_recv().ok(), request.try_recv().ok()), (Some("early".into()), Some("second".into())));
    assert_eq!((standing.try_recv().ok(), last.try_recv().ok()), (Some("third".into()), Some("fourth".into())));
    drop(last);
    hub.deliver("fifth".into(), About::Anything);
    assert_eq!(standing.try_recv().ok(), Some("fifth".into()));
    drop(standing);
    hub.deliver("sixth".into(), About::Anything);
    assert_eq!(request.try_recv().ok(), Some("sixth".into()));
    drop(waits);
    hub.deliver("seventh".into(), About::Anything);
    assert_eq!(hub.stand().unwrap().0.try_recv().ok(), Some("seventh".into()));
}

#[tokio::test]
async fn every_queue_has_its_limit() {
    let hub = hub();
    for number in 0..=UNCLAIMED_MAX {
        hub.deliver(number.to_string().into(), About::Anything);
    }
    let (mut standing, _stands) = hub.stand().unwrap();
    assert_eq!(standing.try_recv().ok(), Some("1".into()));
    for _ in 0..=EVENTS_MAX {
        hub.deliver("x".into(), About::Anything);
    }
    assert_eq!(std::iter::from_fn(|| standing.try_recv().ok()).count(), EVENTS_MAX);
    let mut streams: Vec<_> = (0..=STANDING_MAX).map(|_| hub.stand().unwrap()).collect();
    assert_eq!(std::iter::from_fn(|| streams[0].0.try_recv().ok()).count(), UNCLAIMED_MAX);
    assert!(streams[0].0.recv().await.is_none(), "the oldest is ended");
    assert!(streams[1].0.try_recv().is_err_and(|error| error == mpsc::error::TryRecvError::Empty));
    let held: Vec<_> = (0..WAITING_MAX).map(|id| hub.wait(&id.to_string(), None)).collect();
    assert!(held.iter().all(Result::is_ok) && hub.wait("x", None).is_err());
    drop(held);
    let _first = hub.wait("1", None).unwrap();
    assert_eq!(hub.wait("1", None).err(), Some(Unread::InUse));
}

#[tokio::test]
async fn a_reader_that_lets_too_many_bytes_wait_loses_its_stream_and_the_oldest_unclaimed_go() {
    let hub = hub();
    let quarter = |name: u8| Bytes::from(vec![name; QUEUED_BYTES_MAX / 4]);
    for name in 0..5 {
        hub.deliver(quarter(name), About::Anything);
    }
    let (mut lazy, _lazy) = hub.stand().unwrap();
    hub.deliver("more".into(), About::Anything);
    let (mut request, _waits) = hub.wait("1", Some("5")).unwrap();
    hub.deliver("about it".into(), About::Progress("5"));
    assert_eq!(request.try_recv().ok(), Some("about it".into()), "requests pay for nobody else");
    let first: Vec<_> = std::iter::from_fn(|| lazy.try_recv().ok()).map(|event| event[0]).collect();
    assert_eq!(first, [1, 2, 3, 4], "no event in between is missing");
    assert_eq!(lazy.recv().await, None);
    for _ in 0..5 {
        hub.deliver(quarter(9), About::Progress("5"));
    }
    let (mut other, _other) = hub.wait("2", None).unwrap();
    hub.deliver("answer".into(), About::Answer("2"));
    assert_eq!(other.recv().await, None, "an answer for which there is no room");
    assert_eq!((std::iter::from_fn(|| request.try_recv().ok()).count(), request.recv().await), (4, None));
}

#[tokio::test]
async fn an_id_is_free_again_with_its_answer_though_the_first_reader_is_still_there() {
    let hub = hub();
    let (_, first) = hub.wait("1", None).unwrap();
    hub.deliver("first".into(), About::Answer("1"));
    let (mut events, _second) = hub.wait("1", None).unwrap();
    drop(first);
    hub.deliver("second".into(), About::Answer("1"));
    assert_eq!(events.recv().await, Some("second".into()));
}

#[tokio::test]
async fn the_end_lets_readers_read_what_there_is_and_no_others_begin() {
    let hub = hub();
    let (mut request, _waits) = hub.wait("1", None).unwrap();
    let (mut standing, _stands) = hub.stand().unwrap();
    hub.deliver("last".into(), About::Anything);
    hub.close();
    hub.closed().await;
    assert_eq!((standing.recv().await, standing.recv().await), (Some("last".into()), None));
    assert_eq!(request.recv().await, None);
    assert_eq!((hub.wait("2", None).err(), hub.stand().err()), (Some(Unread::Over), Some(Unread::Over)));
}

#[tokio::test(start_paused = true)]
async fn a_conversation_is_in_use_as_long_as_somebody_reads() {
    let hub = hub();
    let second = std::time::Duration::from_secs(1);
    let (begun, (_, stands), (_, waits)) = (hub.used_at(), hub.stand().unwrap(), hub.wait("1", None).unwrap());
    tokio::time::advance(second).await;
    assert_eq!(hub.used_at(), begun + second);
    drop(stands);
    tokio::time::advance(second).await;
    assert_eq!(hub.idle_since(), None);
    drop(waits);
    tokio::time::advance(second).await;
    assert_eq!((hub.used_at(), hub.idle_since()), (begun + second * 2, Some(begun + second * 2)));
}
