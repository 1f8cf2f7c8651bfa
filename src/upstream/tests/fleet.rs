//! Which endpoint is taken, how health is found out, and what a reload keeps.

use super::OK;
use super::Running;
use super::Scripted;
use super::Step;
use super::eventually;
use super::plans;
use super::server;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::model::Endpoint;
use crate::config::model::Health;
use crate::config::model::HealthType;
use crate::config::model::Server;
use crate::upstream::Choice;
use crate::upstream::Failure;
use crate::upstream::Fleet;
use crate::upstream::Upstreams;

fn replicas(urls: &[(String, usize)], health: Health) -> Server {
    let endpoints =
        urls.iter().map(|(url, weight)| Endpoint { url: url.clone(), weight: *weight, draining: false }).collect();
    Server { url: None, endpoints, health, ..server("") }
}

fn health(r#type: HealthType, path: &str) -> Health {
    Health { r#type, path: path.into(), interval_ms: 100 }
}

/// The URL of a port on which nobody listens.
fn dead() -> String {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    format!("http://{address}/mcp")
}

/// How often each endpoint is picked in `count` picks.
fn picks(running: &Running, count: usize) -> Vec<usize> {
    let upstream = running.upstream();
    let picked: Vec<u64> = (0..count).map(|_| upstream.pick(Choice::Next).unwrap().id()).collect();
    upstream.endpoints().iter().map(|endpoint| picked.iter().filter(|id| **id == endpoint.id()).count()).collect()
}

#[test]
fn endpoints_are_taken_by_weight() {
    let urls = [("http://a.test/1".to_owned(), 3), ("http://a.test/2".to_owned(), 1)];
    let running = Running::new(replicas(&urls, health(HealthType::None, "/")));
    assert_eq!(picks(&running, 400), [300, 100]);
}

#[test]
fn a_session_keeps_its_endpoint_and_learns_when_it_is_gone() {
    let urls = [("http://a.test/1".to_owned(), 3), ("http://a.test/2".to_owned(), 1)];
    let running = Running::new(replicas(&urls, health(HealthType::None, "/")));
    let pinned = running.upstream().endpoints()[1].id();
    for _ in 0..8 {
        assert_eq!(running.upstream().pick(Choice::Pinned(pinned)).unwrap().id(), pinned);
    }
    let error = running.upstream().pick(Choice::Pinned(7)).unwrap_err();
    assert_eq!((error.failure(), error.attempts(), error.sent()), (Failure::EndpointGone, 0, false));
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over_until_there_is_no_other() {
    let scripted = Scripted::new([]);
    let running = Running::new(replicas(&[(scripted.url(), 1), (dead(), 5)], health(HealthType::Tcp, "/")));
    let endpoints = running.upstream().endpoints();
    eventually("the dead endpoint being found", || !running.upstream().is_healthy(&endpoints[1])).await;
    assert!(running.upstream().is_healthy(&endpoints[0]));
    assert_eq!(picks(&running, 20), [20, 0]);
    assert_eq!(
        running.upstream().pick(Choice::Pinned(endpoints[1].id())).unwrap().id(),
        endpoints[1].id(),
        "a session keeps it all the same"
    );

    let running = Running::new(replicas(&[(dead(), 1), (dead(), 1)], health(HealthType::Tcp, "/")));
    let endpoints = running.upstream().endpoints();
    eventually("both being found dead", || endpoints.iter().all(|endpoint| !running.upstream().is_healthy(endpoint)))
        .await;
    assert_eq!(picks(&running, 20).iter().sum::<usize>(), 20);
    let owners: Vec<u64> = (0..20).map(|_| running.upstream().pick(Choice::Of("key:ci")).unwrap().id()).collect();
    assert!(owners.iter().all(|owner| *owner == owners[0]), "a key's own is tried all the same");
    assert_eq!(running.call().await.unwrap_err().failure(), Failure::Connect);
}

#[tokio::test]
async fn a_key_leaves_its_endpoint_while_that_is_down_and_returns() {
    let unwell = OK.replace("200 OK", "503 X");
    let (well, ill) = (Scripted::new([]), Scripted::new(vec![Step::Say(unwell); 4]));
    let urls = [(well.url(), 1), (ill.url(), 1), (format!("{}/2", well.url()), 1)];
    let running = Running::new(replicas(&urls, health(HealthType::Http, "/healthz")));
    let upstream = running.upstream();
    let endpoints = upstream.endpoints();
    let owner = |key: &str| upstream.pick(Choice::Of(key)).unwrap().id();
    let keys: Vec<String> = (0..200).map(|number| format!("key:{number}")).collect();
    eventually("the failing check being noticed", || !upstream.is_healthy(&endpoints[1])).await;
    let during: Vec<u64> = keys.iter().map(|key| owner(key)).collect();
    assert!(during.iter().all(|id| *id != endpoints[1].id()), "an endpoint that is down gets nothing");
    eventually("the recovery being noticed", || upstream.is_healthy(&endpoints[1])).await;
    let after: Vec<u64> = keys.iter().map(|key| owner(key)).collect();
    let moved: Vec<(&u64, &u64)> = during.iter().zip(&after).filter(|(during, after)| during != after).collect();
    assert!(moved.iter().all(|(_, after)| **after == endpoints[1].id()), "only its own keys had left it");
    assert!((20..120).contains(&moved.len()), "{}", moved.len());
    let stand_ins: std::collections::BTreeSet<&u64> = moved.iter().map(|(during, _)| *during).collect();
    assert_eq!(stand_ins.len(), 2, "the keys of one that is down are shared by the others");
}

#[test]
fn a_key_has_an_endpoint_even_where_there_is_nothing_to_choose() {
    let running = Running::new(server("http://a.test/1"));
    assert_eq!(running.upstream().pick(Choice::Of("key:ci")).unwrap().id(), running.upstream().endpoints()[0].id());
}

#[tokio::test]
async fn an_http_check_asks_for_its_path_and_wants_success() {
    let unwell = OK.replace("200 OK", "503 X");
    let (well, ill) = (Scripted::new([]), Scripted::new([Step::Say(unwell.clone()), Step::Say(unwell)]));
    let running = Running::new(replicas(&[(well.url(), 1), (ill.url(), 1)], health(HealthType::Http, "/healthz?deep")));
    let endpoints = running.upstream().endpoints();
    eventually("the failing check being noticed", || !running.upstream().is_healthy(&endpoints[1])).await;
    assert!(running.upstream().is_healthy(&endpoints[0]));
    eventually("the other check", || !well.requests().is_empty()).await;
    let request = well.requests().remove(0);
    assert_eq!(request, format!("GET /healthz?deep HTTP/1.1\r\nhost: {}\r\n\r\n", well.address));
    eventually("the recovery being noticed", || running.upstream().is_healthy(&endpoints[1])).await;
}

#[tokio::test]
async fn a_single_endpoint_is_not_checked() {
    let scripted = Scripted::new([]);
    let running = Running::new(Server { health: health(HealthType::Tcp, "/"), ..server(&scripted.url()) });
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(scripted.connections(), 0);
    assert!(running.upstream().is_healthy(&running.upstream().endpoints()[0]));
}

#[tokio::test]
async fn a_reload_keeps_what_did_not_change() {
    let scripted = Scripted::new([]);
    let running = Running::of(&scripted);
    running.call().await.unwrap();
    let again = running.upstreams.adopt(&plans(server(&scripted.url())));
    assert!(Arc::ptr_eq(running.upstream(), again.get("x").unwrap()));
    let changed = running.upstreams.adopt(&plans(Server { timeout_ms: 500, ..server(&scripted.url()) }));
    assert!(!Arc::ptr_eq(running.upstream(), changed.get("x").unwrap()));
    assert!(Arc::ptr_eq(running.upstreams.current().get("x").unwrap(), changed.get("x").unwrap()));
}

#[tokio::test]
async fn a_retired_server_is_left_alone() {
    let (one, two) = (Scripted::new([]), Scripted::new([]));
    let upstreams = Upstreams::new().unwrap();
    let fleet = upstreams.adopt(&plans(replicas(&[(one.url(), 1), (two.url(), 1)], health(HealthType::Tcp, "/"))));
    eventually("health checks", || one.connections() > 1).await;
    upstreams.adopt(&plans(server(&dead())));
    drop(fleet);
    // A check that was under way may still end, and the sweep may hold the old fleet for a moment.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = (one.connections(), two.connections());
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!((one.connections.load(Ordering::SeqCst), two.connections()), before);
}

#[tokio::test]
async fn a_retired_server_keeps_nothing_but_its_calls() {
    let begun = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let scripted = Scripted::new([Step::SayAndHang(begun.into())]);
    let urls = [(scripted.url(), 1), (format!("{}/2", scripted.url()), 1)];
    let running = Running::new(Server { timeout_ms: 5_000, ..replicas(&urls, health(HealthType::None, "/")) });
    let mut stream = running.send().await.unwrap();
    running.call().await.unwrap();
    let checked = Scripted::new([]);
    let checks = replicas(&[(checked.url(), 1), (dead(), 1)], health(HealthType::Tcp, "/"));
    let fleet = running.upstreams.adopt(&plans(checks));
    eventually("the idle connection being closed", || scripted.departures() == 1).await;
    assert_eq!(stream.body.next(super::soon()).await.unwrap().unwrap(), "abc", "a call under way goes on");
    eventually("health checks", || checked.connections() > 1).await;
    running.upstreams.adopt(&plans(server(&scripted.url())));
    // A check that was under way may still end.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = checked.connections();
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(checked.connections(), before, "nobody is asked how a retired server is, whoever still holds it");
    assert_eq!(fleet.get("x").unwrap().endpoints().len(), 2);
    assert_eq!(scripted.departures(), 1);
}

#[tokio::test]
async fn a_reload_does_not_forget_who_is_ill_and_does_not_keep_it_where_nobody_asks() {
    let (scripted, gone) = (Scripted::new([]), dead());
    let ill = |check| replicas(&[(scripted.url(), 1), (gone.clone(), 1)], check);
    let checked = |timeout_ms| Server { timeout_ms, ..ill(health(HealthType::Tcp, "/")) };
    let running = Running::new(checked(400));
    let is_ill = |fleet: &Fleet| !fleet.get("x").unwrap().endpoints()[1].is_healthy();
    eventually("the dead endpoint being found", || is_ill(&running.fleet)).await;
    let fleet = running.upstreams.adopt(&plans(checked(500)));
    assert!(is_ill(&fleet) && fleet.get("x").unwrap().endpoints()[0].is_healthy());
    let fleet = running.upstreams.adopt(&plans(ill(health(HealthType::None, "/"))));
    assert!(!is_ill(&fleet), "nobody would ever find out that it is well");
}

#[tokio::test]
async fn connections_of_before_and_after_a_reload_count_together() {
    let hang = Step::SayAndHang("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".into());
    let scripted = Scripted::new([hang]);
    let narrow = |timeout_ms| Server { timeout_ms, connections_max: 1, ..server(&scripted.url()) };
    let mut running = Running::new(narrow(5_000));
    let stream = running.send().await.unwrap();
    running.fleet = running.upstreams.adopt(&plans(narrow(4_000)));
    let endpoint = Arc::clone(&running.upstream().endpoints()[0]);
    assert_eq!(endpoint.connections(), 1);
    assert_eq!(running.call().await.unwrap_err().failure(), Failure::ConnectionsMax);
    drop(stream);
    assert_eq!(running.call().await.unwrap(), "{\"a\":1}");
    assert_eq!((endpoint.connections(), scripted.connections()), (1, 2));
}

#[tokio::test]
async fn a_reload_does_not_forget_where_a_name_led() {
    let named = |timeout_ms| Server { timeout_ms, ..server("http://localhost:1/mcp") };
    let running = Running::new(named(400));
    let known = running.upstream().endpoints()[0].resolve().await.unwrap();
    let fleet = running.upstreams.adopt(&plans(named(500)));
    assert_eq!(fleet.get("x").unwrap().endpoints()[0].last_addresses(), Some(known));
}

#[tokio::test]
async fn an_answer_outlives_its_server_and_leaves_no_connection_behind() {
    let endless = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde";
    let scripted = Scripted::new([Step::SayAndHang(endless.into()), Step::Drip(short.into())]);
    let running = Running::new(Server { timeout_ms: 5_000, ..server(&scripted.url()) });
    let stream = running.send().await.unwrap();
    let answer = running.send().await.unwrap();
    drop(running);
    assert_eq!(super::read(answer).await.unwrap(), "abcde");
    eventually("the ended answer's connection being closed", || scripted.departures() == 1).await;
    drop(stream);
    eventually("the stream's connection being closed", || scripted.departures() == 2).await;
}

#[tokio::test]
async fn a_connection_that_idles_is_closed_before_its_server_would() {
    let scripted = Scripted::new([]);
    let running = Running::of(&scripted);
    running.call().await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(scripted.departures(), 0);
    eventually("the connection being closed", || scripted.departures() == 1).await;
}
