//! Which endpoint is chosen, what a call holds, and what failures lead to.

use super::OK;
use super::Running;
use super::Scripted;
use super::Step;
use super::dispatch;
use super::eventually;
use super::permitted;
use super::plans;
use super::server;

use std::time::Duration;

use http::HeaderMap;

use crate::config::model::Balancing;
use crate::config::model::Breaker;
use crate::config::model::Endpoint;
use crate::config::model::Health;
use crate::config::model::HealthType;
use crate::config::model::Server;
use crate::upstream::Choice;
use crate::upstream::Circuit;
use crate::upstream::Failure;
use crate::upstream::Ticket;
use crate::upstream::UpstreamError;

/// A server with these endpoints, whose health nobody checks.
fn balanced(urls: &[(&str, usize, bool)]) -> Server {
    let endpoint = |(url, weight, draining): &(&str, usize, bool)| Endpoint {
        url: (*url).to_owned(),
        weight: *weight,
        draining: *draining,
    };
    let endpoints = urls.iter().map(endpoint).collect();
    Server { url: None, endpoints, health: Health { r#type: HealthType::None, ..Health::default() }, ..server("") }
}

fn three() -> Server {
    balanced(&[("http://a.test/0", 1, false), ("http://a.test/1", 1, false), ("http://a.test/2", 1, false)])
}

/// The positions of the endpoints that `count` calls go to, which are all pending at once.
fn held(running: &Running, count: usize) -> Vec<usize> {
    let tickets: Vec<Ticket> = (0..count).map(|_| running.upstream().pick(Choice::Next).unwrap()).collect();
    counts(running, &tickets.iter().map(|ticket| ticket.id()).collect::<Vec<_>>())
}

/// The same for calls that end before the next begins.
fn passing(running: &Running, count: usize) -> Vec<usize> {
    let picked = (0..count).map(|_| running.upstream().pick(Choice::Next).unwrap().id());
    counts(running, &picked.collect::<Vec<_>>())
}

fn counts(running: &Running, picked: &[u64]) -> Vec<usize> {
    let endpoints = running.upstream().endpoints();
    endpoints.iter().map(|endpoint| picked.iter().filter(|id| **id == endpoint.id()).count()).collect()
}

/// That of three endpoints this one got nothing, and the others about the same.
#[track_caller]
fn shared(taken: &[usize], nothing: usize) {
    let sum: usize = taken.iter().sum();
    for (position, count) in taken.iter().enumerate() {
        let about = if position == nothing { 0..1 } else { sum * 2 / 5..sum * 3 / 5 };
        assert!(about.contains(count), "{taken:?}");
    }
}

fn fail(running: &Running, position: usize, times: usize) {
    let upstream = running.upstream();
    for _ in 0..times {
        // Once the circuit is open, nothing can fail there any more.
        let Ok(ticket) = upstream.pick(Choice::Pinned(upstream.endpoints()[position].id())) else { return };
        ticket.failed(Failure::Reset);
    }
}

fn pick_of(running: &Running, position: usize) -> Result<Ticket, UpstreamError> {
    running.upstream().pick(Choice::Pinned(running.upstream().endpoints()[position].id()))
}

fn breaker(open_ms: u64) -> Breaker {
    Breaker { failures_max: 3, open_ms, ..Breaker::default() }
}

#[test]
fn calls_go_where_the_fewest_are_pending_for_the_weight() {
    let running = Running::new(three());
    let _busy: Vec<Ticket> = (0..5).map(|_| pick_of(&running, 1).unwrap()).collect();
    shared(&passing(&running, 300), 1);
    assert_eq!(held(&running, 10), [5, 0, 5]);
    assert_eq!(held(&running, 13).iter().sum::<usize>(), 13);
    let weighted = balanced(&[("http://a.test/0", 3, false), ("http://a.test/1", 1, false)]);
    assert_eq!(held(&Running::new(weighted.clone()), 40), [30, 10]);
    assert_eq!(passing(&Running::new(weighted), 40), [30, 10]);
}

#[test]
fn of_many_endpoints_two_are_compared_and_none_is_left_out() {
    let urls: Vec<String> = (0..20).map(|index| format!("http://a.test/{index}")).collect();
    let running = Running::new(balanced(&urls.iter().map(|url| (url.as_str(), 1, false)).collect::<Vec<_>>()));
    let _busy: Vec<Ticket> = (0..200).map(|_| pick_of(&running, 7).unwrap()).collect();
    let taken = held(&running, 400);
    assert!(taken.iter().all(|count| (0..45).contains(count)), "{taken:?}");
    assert!(taken[7] <= 2, "{taken:?}");
    assert!(taken.iter().enumerate().all(|(position, count)| position == 7 || *count > 8), "{taken:?}");
}

#[test]
fn turns_are_taken_whatever_is_pending_where_that_is_configured() {
    let running = Running::new(Server { balance: Balancing::RoundRobin, ..three() });
    let _busy: Vec<Ticket> = (0..5).map(|_| pick_of(&running, 1).unwrap()).collect();
    assert_eq!(passing(&running, 30), [10, 10, 10]);
}

#[test]
fn a_draining_endpoint_keeps_its_sessions_and_gets_nothing_new() {
    let urls = [("http://a.test/0", 1, false), ("http://a.test/1", 1, true), ("http://a.test/2", 1, false)];
    for balance in [Balancing::LeastPending, Balancing::RoundRobin, Balancing::Ketama] {
        let running = Running::new(Server { balance, ..balanced(&urls) });
        assert_eq!(passing(&running, 30), [15, 0, 15]);
        let of_keys: Vec<u64> =
            (0..60).map(|number| running.upstream().pick(Choice::Of(&format!("key:{number}"))).unwrap().id()).collect();
        assert_eq!(counts(&running, &of_keys)[1], 0);
        assert!(pick_of(&running, 1).is_ok());
    }
    let all = Running::new(balanced(&[("http://a.test/0", 1, true)]));
    assert_eq!(all.upstream().pick(Choice::Next).unwrap_err().failure(), Failure::Draining);
    assert!(pick_of(&all, 0).is_ok());
}

#[tokio::test]
async fn an_endpoint_that_came_gets_less_than_its_share_for_a_while() {
    let two = [("http://a.test/0", 1, false), ("http://a.test/1", 1, false)];
    let slow = |server: Server, balance| Server { slow_start_ms: 2_000, balance, ..server };
    for balance in [Balancing::LeastPending, Balancing::RoundRobin] {
        let mut running = Running::new(slow(balanced(&two), balance));
        assert_eq!(passing(&running, 200), [100, 100], "at the start nobody is new");
        running.fleet = running.upstreams.adopt(&plans(slow(three(), balance)));
        let taken = passing(&running, 300);
        assert!((1..60).contains(&taken[2]) && taken[0] > 100 && taken[1] > 100, "{taken:?}");
        tokio::time::sleep(Duration::from_millis(2_050)).await;
        assert_eq!(passing(&running, 300), [100, 100, 100]);
    }
}

#[test]
fn no_more_calls_are_pending_than_the_servers_limit_and_each_end_gives_its_place_back() {
    let running = Running::new(Server { pending_max: 2, ..server("http://a.test/") });
    let upstream = running.upstream();
    let one = upstream.pick(Choice::Next).unwrap();
    let two = upstream.pick(Choice::Next).unwrap();
    let refused = upstream.pick(Choice::Next).unwrap_err();
    assert_eq!((refused.failure(), refused.retry_after_seconds()), (Failure::PendingMax, Some(1)));
    assert_eq!((refused.attempts(), refused.sent()), (0, false));
    assert_eq!(upstream.pending(), (2, 0), "what was refused holds nothing");
    drop(one);
    let three = upstream.pick(Choice::Next).unwrap();
    assert!(upstream.pick(Choice::Next).is_err());
    let panicked = std::thread::spawn(move || {
        let _held = (two, three);
        panic!("as a call may");
    });
    assert!(panicked.join().is_err());
    assert_eq!(upstream.pending(), (0, 0));
    assert_eq!(upstream.endpoints()[0].pending(), 0);
    assert!(matches!(upstream.pick(Choice::Pinned(7)), Err(error) if error.failure() == Failure::EndpointGone));
    assert_eq!(upstream.pending(), (0, 0));
}

#[tokio::test]
async fn pending_calls_hold_no_more_bytes_of_requests_than_the_servers_limit() {
    let scripted = Scripted::new([Step::SayAndHang(OK.into())]);
    let bytes = super::CALL.len();
    let running = Running::new(Server { pending_bytes_max: 2 * bytes - 1, ..server(&scripted.url()) });
    let upstream = running.upstream();
    let first = upstream.pick(Choice::Next).unwrap();
    upstream.send(&first, &permitted(super::CALL), dispatch(HeaderMap::new())).await.unwrap();
    assert_eq!(upstream.pending(), (1, bytes));
    let second = upstream.pick(Choice::Next).unwrap();
    let refused = upstream.send(&second, &permitted(super::CALL), dispatch(HeaderMap::new())).await.unwrap_err();
    assert_eq!((refused.failure(), refused.sent()), (Failure::PendingBytesMax, false));
    drop((first, second));
    assert_eq!(upstream.pending(), (0, 0));
    running.send().await.unwrap();
}

#[test]
fn a_reload_does_not_forget_what_is_pending() {
    let mut running = Running::new(Server { pending_max: 2, ..server("http://a.test/") });
    let before = running.upstream().pick(Choice::Next).unwrap();
    running.fleet = running.upstreams.adopt(&plans(Server { pending_max: 1, ..server("http://a.test/") }));
    assert_eq!(running.upstream().pick(Choice::Next).unwrap_err().failure(), Failure::PendingMax);
    drop(before);
    assert!(running.upstream().pick(Choice::Next).is_ok());
}

#[tokio::test]
async fn no_more_connections_are_open_than_the_limit_of_an_endpoint() {
    let hang = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let scripted = Scripted::new([Step::SayAndHang(hang.into()), Step::SayAndHang(hang.into())]);
    let running = Running::new(Server { connections_max: 2, ..server(&scripted.url()) });
    let (one, _two) = (running.send().await.unwrap(), running.send().await.unwrap());
    assert_eq!(running.upstream().endpoints()[0].connections(), 2);
    let refused = running.send().await.unwrap_err();
    assert_eq!((refused.failure(), refused.sent()), (Failure::ConnectionsMax, false));
    assert_eq!(running.upstream().circuit(&running.upstream().endpoints()[0]), Circuit::Closed);
    drop(one);
    running.call().await.unwrap();
    assert!(running.send().await.unwrap().reused, "what is kept takes no further place");
    assert_eq!(scripted.connections(), 3);
}

#[tokio::test]
async fn an_endpoint_whose_connections_are_all_in_use_is_passed_over() {
    let hang = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let (one, other) = (Scripted::new([Step::SayAndHang(hang.into())]), Scripted::new([]));
    let urls = [(&*one.url(), 1, false), (&*other.url(), 1, false)];
    let running = Running::new(Server { connections_max: 1, ..balanced(&urls) });
    let ticket = pick_of(&running, 0).unwrap();
    let upstream = running.upstream();
    let _stream = upstream.send(&ticket, &permitted(super::CALL), dispatch(HeaderMap::new())).await.unwrap();
    for _ in 0..10 {
        running.call().await.unwrap();
    }
    assert_eq!((one.requests().len(), other.requests().len(), other.connections()), (1, 10, 1));
}

#[tokio::test]
async fn connections_of_before_a_name_lost_an_address_are_let_go() {
    let scripted = Scripted::new([]);
    let running = Running::of(&scripted);
    running.call().await.unwrap();
    let pool = &running.upstream().endpoints()[0].pool;
    pool.renew();
    eventually("the idle connection being closed", || scripted.departures() == 1).await;
    let in_use = running.send().await.unwrap();
    pool.renew();
    assert_eq!(super::read(in_use).await.unwrap(), "{\"a\":1}", "an answer under way goes on");
    eventually("the connection being closed after it", || scripted.departures() == 2).await;
    running.call().await.unwrap();
    assert!(running.send().await.unwrap().reused);
    assert_eq!(scripted.connections(), 3);
}

#[tokio::test]
async fn a_connection_that_idled_too_long_makes_room_for_the_next() {
    let scripted = Scripted::new([]);
    let running = Running::new(Server { connections_max: 1, ..server(&scripted.url()) });
    for _ in 0..2 {
        running.call().await.unwrap();
        tokio::time::sleep(Duration::from_millis(4_100)).await;
    }
    running.call().await.unwrap();
    assert_eq!(scripted.connections(), 3);
}

#[tokio::test]
async fn an_endpoint_that_resets_costs_no_more_calls_than_it_takes() {
    let (well, ill) = (Scripted::new([]), Scripted::new(vec![Step::Reset; 20]));
    let urls = [(&*well.url(), 1, false), (&*ill.url(), 1, false)];
    let running = Running::new(Server { breaker: breaker(60_000), ..balanced(&urls) });
    let mut failed = 0;
    for _ in 0..20 {
        failed += usize::from(running.call().await.is_err());
    }
    assert_eq!((failed, ill.requests().len()), (3, 3));
    let endpoint = &running.upstream().endpoints()[1];
    assert_eq!(running.upstream().circuit(endpoint), Circuit::Open);
    assert_eq!(running.upstream().circuit_openings(endpoint), 1);
    assert_eq!(passing(&running, 20), [20, 0]);
    let refused = pick_of(&running, 1).unwrap_err();
    assert_eq!(refused.failure(), Failure::CircuitOpen, "a session stays where it is");
    assert!((50..=60).contains(&refused.retry_after_seconds().unwrap()), "{refused:?}");
}

#[tokio::test]
async fn one_call_at_a_time_tries_an_endpoint_that_failed() {
    let (one, other) = (Scripted::new([]), Scripted::new([]));
    let urls = [(&*one.url(), 1, false), (&*other.url(), 1, false)];
    let running = Running::new(Server { breaker: breaker(50), ..balanced(&urls) });
    let upstream = running.upstream();
    let endpoint = &upstream.endpoints()[1];
    fail(&running, 1, 3);
    eventually("half-open", || upstream.circuit(endpoint) == Circuit::HalfOpen).await;
    let trial = upstream.pick(Choice::Next).unwrap();
    assert_eq!(trial.id(), endpoint.id());
    assert_eq!(passing(&running, 20), [20, 0], "others go elsewhere");
    assert_eq!(pick_of(&running, 1).unwrap_err().failure(), Failure::CircuitOpen);
    drop(trial);
    assert_eq!(upstream.circuit(endpoint), Circuit::HalfOpen, "a trial that came to nothing decides nothing");
    running.call().await.unwrap();
    assert_eq!((upstream.circuit(endpoint), other.requests().len()), (Circuit::Closed, 1));
    assert_eq!(passing(&running, 20), [10, 10]);
}

#[tokio::test]
async fn a_single_endpoint_that_fails_is_refused_at_once_and_tried_again() {
    let scripted = Scripted::new(vec![Step::Reset; 4]);
    let breaker = Breaker { open_ms_max: 700, ..breaker(700) };
    let running = Running::new(Server { breaker, ..server(&scripted.url()) });
    let endpoint = &running.upstream().endpoints()[0];
    for _ in 0..3 {
        assert_eq!(running.call().await.unwrap_err().failure(), Failure::Reset);
    }
    for _ in 0..5 {
        assert_eq!(running.call().await.unwrap_err().failure(), Failure::CircuitOpen);
    }
    assert_eq!(scripted.requests().len(), 3, "it is left alone");
    assert!(!running.upstream().is_up());
    eventually("half-open", || running.upstream().circuit(endpoint) == Circuit::HalfOpen).await;
    assert_eq!(running.call().await.unwrap_err().failure(), Failure::Reset);
    assert_eq!(running.call().await.unwrap_err().failure(), Failure::CircuitOpen);
    eventually("half-open", || running.upstream().circuit(endpoint) == Circuit::HalfOpen).await;
    running.call().await.unwrap();
    assert!(running.upstream().is_up());
    assert_eq!(running.upstream().circuit_openings(endpoint), 2);
}

#[test]
fn never_are_all_of_several_endpoints_left_alone() {
    let rules = Breaker { ejected_percent_max: 100, ..breaker(60_000) };
    let running = Running::new(Server { breaker: rules, ..three() });
    for position in 0..3 {
        fail(&running, position, 10);
    }
    assert_eq!(passing(&running, 30), [0, 0, 30]);
    let running = Running::new(Server { breaker: breaker(60_000), ..three() });
    fail(&running, 0, 10);
    fail(&running, 1, 10);
    shared(&passing(&running, 300), 0);
    assert!(pick_of(&running, 1).is_ok(), "half of three is one");
}

#[test]
fn where_a_breaker_is_switched_off_everything_is_asked() {
    let off = Breaker { enabled: false, ..breaker(60_000) };
    let running = Running::new(Server { breaker: off, ..server("http://a.test/") });
    fail(&running, 0, 100);
    assert!(running.upstream().pick(Choice::Next).is_ok());
}

#[test]
fn a_key_leaves_an_endpoint_that_is_left_alone_and_nobody_else_moves() {
    let running = Running::new(Server { breaker: breaker(60_000), ..three() });
    let keys: Vec<String> = (0..200).map(|number| format!("key:{number}")).collect();
    let owners =
        || -> Vec<u64> { keys.iter().map(|key| running.upstream().pick(Choice::Of(key)).unwrap().id()).collect() };
    let before = owners();
    let gone = running.upstream().endpoints()[1].id();
    fail(&running, 1, 3);
    let after = owners();
    assert!(before.contains(&gone) && !after.contains(&gone));
    assert!(before.iter().zip(&after).all(|(before, after)| before == after || *before == gone));
}

#[test]
fn a_reload_does_not_forget_who_failed() {
    let with = |timeout_ms| Server { breaker: breaker(60_000), timeout_ms, ..three() };
    let mut running = Running::new(with(400));
    fail(&running, 0, 3);
    running.fleet = running.upstreams.adopt(&plans(with(401)));
    shared(&passing(&running, 300), 0);
    let endpoint = &running.upstream().endpoints()[0];
    assert_eq!(running.upstream().circuit_openings(endpoint), 1);
}

#[tokio::test]
async fn what_a_server_says_of_itself_counts_and_what_it_says_of_a_call_does_not() {
    let status = |status: &str, media_type: &str| {
        Step::Say(format!("HTTP/1.1 {status} X\r\ncontent-type: {media_type}\r\ncontent-length: 2\r\n\r\n{{}}"))
    };
    let ended = async |step: Step| {
        let scripted = Scripted::new(vec![step; 3]);
        let running = Running::new(Server { breaker: breaker(60_000), ..server(&scripted.url()) });
        for _ in 0..3 {
            super::read(running.send().await.unwrap()).await.unwrap();
        }
        running.upstream().circuit(&running.upstream().endpoints()[0])
    };
    for own in ["500", "502", "503", "504"] {
        assert_eq!(ended(status(own, "text/html")).await, Circuit::Open, "{own}");
        assert_eq!(ended(status(own, "application/json")).await, Circuit::Closed, "{own}");
    }
    for other in ["200", "400", "401", "404", "429", "501"] {
        assert_eq!(ended(status(other, "text/html")).await, Circuit::Closed, "{other}");
    }
}

/// What it costs to choose an endpoint, hold a place there, note the success and give all of it back.
#[test]
#[ignore = "measures time"]
fn choosing_costs_little() {
    const ROUNDS: u32 = 1_000_000;
    let urls: Vec<String> = (0..64).map(|index| format!("http://a.test/{index}")).collect();
    for endpoints in [1, 3, 8, 64] {
        let list: Vec<_> = urls.iter().take(endpoints).map(|url| (url.as_str(), 1, false)).collect();
        let running = Running::new(balanced(&list));
        let begun = std::time::Instant::now();
        for _ in 0..ROUNDS {
            let ticket = running.upstream().pick(Choice::Next).unwrap();
            ticket.hold(300).unwrap();
            ticket.began();
            ticket.succeeded();
        }
        println!("{endpoints} endpoints: {:?} a call", begun.elapsed() / ROUNDS);
    }
}
