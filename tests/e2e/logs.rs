//! Does `portcullis logs` show what went through a gateway, beside it and without it?

use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::gateway::run;
use crate::support::process::Process;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

/// What the command prints, line by line.
#[track_caller]
fn lines(arguments: &[&str]) -> Vec<Value> {
    let (code, out, error) = run(&[&["logs", "--format", "json"], arguments].concat());
    assert_eq!(code, Some(0), "{arguments:?}: {error}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn tools(arguments: &[&str]) -> Vec<String> {
    lines(arguments).iter().map(|entry| entry["tool"].as_str().unwrap().to_owned()).collect()
}

fn config_of(gateway: &Gateway) -> String {
    gateway.directory.join("portcullis.toml").to_str().unwrap().to_owned()
}

async fn call(gateway: &Gateway, key: &Key, tool: &str) -> u16 {
    client::send(gateway.data, key.call(tool)).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_appear_while_they_are_made_and_are_found_afterwards() {
    let upstream = Upstream::start().await;
    upstream.on("tools/call gone", Reply::status(500));
    let key = gateway::make_key("ci");
    let config = key
        .config(&upstream)
        .replace("[keys.ci]", "blocked_tools = [\"drop_*\"]\n[keys.ci]\nuser = \"ann@Example.com\"")
        + "[users.\"ann@Example.com\"]\n";
    let mut gateway = gateway::setup(&config).audit("index = true").start();
    let config = config_of(&gateway);
    assert_eq!(call(&gateway, &key, "before").await, 200);
    let mut follow = Command::new(gateway::binary());
    follow.args(["logs", "--follow", "--format", "json", "--server", "a", "--config", &config]);
    let mut follow = Process::spawn(&mut follow, &gateway.directory.join("follow.log"));
    let mut told = || serde_json::from_str::<Value>(&follow.line()).unwrap();
    assert_eq!(told()["tool"], "before", "what was there is shown first");
    for tool in ["one", "two"] {
        assert_eq!(call(&gateway, &key, tool).await, 200);
        let entry = told();
        assert_eq!(
            (&entry["tool"], &entry["outcome"], &entry["principal"]),
            (&json!(tool), &json!("ok"), &json!("key:ci"))
        );
        assert!(entry["latency_us"].as_u64().unwrap() > 0 && entry["time"].as_str().unwrap().ends_with('Z'), "{entry}");
    }
    call(&gateway, &key, "gone").await;
    assert_eq!(told()["outcome"], "upstream_error");
    call(&gateway, &key, "drop_it").await;
    assert_eq!(told()["decision"], "refused");
    drop(follow);

    // Beside the gateway, which keeps the index.
    let all = tools(&["--config", &config, "--decision", "allowed"]);
    assert_eq!(all, ["before", "one", "two", "gone"], "the newest last");
    assert_eq!(tools(&["--config", &config, "--tool", "two", "--domain", "@EXAMPLE.com", "--since", "1h"]), ["two"]);
    assert_eq!(tools(&["--config", &config, "--outcome", "upstream_error"]), ["gone"]);
    assert!(lines(&["--config", &config, "--until", "1h"]).is_empty());
    let newest = lines(&["--config", &config, "--limit", "1", "--decision", "allowed", "--source", "127.0.0.0/8"]);
    let cursor = newest[0]["cursor"].as_str().unwrap();
    assert_eq!(tools(&["--config", &config, "--limit", "2", "--before", cursor]), ["one", "two"]);
    assert_eq!(lines(&["--config", &config, "--count"]), [json!({"count": 5, "capped": false})]);
    let graph = lines(&["--config", &config, "--graph"]);
    let flow = &graph[0]["to_servers"][0];
    assert_eq!(
        (&flow["principal"], &flow["calls"], &flow["errors"]),
        (&json!("key:ci"), &json!(4), &json!(1)),
        "{graph:?}"
    );
    assert_eq!(graph[0]["to_tools"].as_array().unwrap().len(), 5);

    // Without it, from the records alone.
    gateway.signal("INT");
    gateway.wait();
    let audit = gateway.directory.join("audit");
    let directory = audit.to_str().unwrap();
    let before = lines(&[directory]);
    fs::remove_dir_all(audit.join("index")).unwrap();
    assert_eq!(lines(&[directory]), before);
    assert_eq!(lines(&[directory, "--reindex"]), before);
    let (code, text, _) = run(&["logs", directory, "--limit", "2"]);
    assert_eq!((code, text.lines().count()), (Some(0), 2));
    assert!(text.contains("upstream_error") && text.contains("a/gone") && text.contains("a/drop_it"), "{text}");
    let (code, dot, _) = run(&["logs", directory, "--graph", "--format", "dot"]);
    assert!(code == Some(0) && dot.starts_with("digraph") && dot.contains("label=\"gone\""), "{dot}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_keeps_no_index_leaves_it_to_who_asks() {
    let upstream = Upstream::start().await;
    let key = gateway::make_key("ci");
    let gateway = Gateway::start(&key.config(&upstream));
    assert_eq!(call(&gateway, &key, "one").await, 200);
    gateway.wait_for_records("result", 1);
    assert!(!gateway.directory.join("audit/index").exists());
    assert_eq!(tools(&["--config", &config_of(&gateway)]), ["one"]);
    assert_eq!(call(&gateway, &key, "two").await, 200);
    gateway.wait_for_records("result", 2);
    assert_eq!(tools(&["--config", &config_of(&gateway)]), ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_goes_beside_a_running_gateway_comes_back() {
    let upstream = Upstream::start().await;
    let key = gateway::make_key("ci");
    let gateway = gateway::setup(&key.config(&upstream)).audit("index = true").start();
    assert_eq!(call(&gateway, &key, "one").await, 200);
    let config = config_of(&gateway);
    assert_eq!(tools(&["--config", &config]), ["one"]);
    // Nobody is answered from what is left.
    assert_eq!(tools(&["--config", &config, "--reindex"]), ["one"]);
    let index = gateway.directory.join("audit/index");
    let files = || fs::read_dir(&index).unwrap().map(|file| file.unwrap().path());
    let is_catalogue = |path: &Path| path.file_name().unwrap().to_str().unwrap().starts_with("catalogue.");
    files().filter(|path| is_catalogue(path)).for_each(|path| fs::remove_file(path).unwrap());
    assert_eq!(call(&gateway, &key, "two").await, 200);
    gateway.wait_for_records("result", 2);
    assert_eq!(tools(&["--config", &config]), ["one", "two"]);
    let is_day = |path: &Path| path.extension().is_some_and(|ending| ending == "sqlite") && !is_catalogue(path);
    files().filter(|path| is_day(path)).for_each(|path| fs::write(path, "no database at all").unwrap());
    assert_eq!(tools(&["--config", &config]), ["one", "two"]);
}

#[test]
fn what_is_asked_wrongly_is_told_with_what_is_allowed() {
    let directory = gateway::fresh_directory();
    let path = directory.to_str().unwrap();
    for (arguments, said) in [
        (vec![path, "--outcome", "fine"], "tool_error"),
        (vec![path, "--decision", "maybe"], "allowed, refused"),
        (vec![path, "--since", "yesterday"], "an age (`90s`"),
        (vec![path, "--source", "10.0.0.1/8"], "write `10.0.0.0/8`"),
        (vec![path, "--before", "7"], "the `cursor` of an entry"),
        (vec![path, "--format", "dot"], "`--format dot` is for `--graph`"),
        (vec![path, "--graph", "--tool", "x"], "cannot be used with"),
        (vec![path, "--config", "x.toml"], "cannot be used with"),
        (vec![], "required"),
    ] {
        let (code, out, error) = run(&[&["logs"], &*arguments].concat());
        assert!(code == Some(2) && out.is_empty() && error.contains(said), "{arguments:?}: {code:?} {error}");
    }
    let (code, _, error) = run(&["logs", "/no/such/directory"]);
    assert!(code == Some(1) && error.contains("/no/such/directory"), "{error}");
    assert_eq!(run(&["logs", path]), (Some(0), String::new(), String::new()), "no records are none");
    fs::remove_dir_all(directory).unwrap();
}

/// So many calls, as lines of a segment.
fn segment(directory: &Path, calls: u64) {
    let mut text = String::new();
    for call in 0..calls {
        let (intent, result) = (2 * call + 1, 2 * call + 2);
        let time = format!("2027-01-{:02}T12:00:00.{:06}Z", 1 + call * 3 / calls, call);
        let head = |seq: u64, kind: &str| {
            format!("{{\"seq\":{seq},\"prev\":\"{:064}\",\"kind\":\"{kind}\",\"time\":\"{time}\"", 0)
        };
        let _ = writeln!(
            text,
            "{},\"principal\":\"key:ci\",\"server\":\"a\",\"tool\":\"t{}\",\"decision\":\"allowed\"}}",
            head(intent, "intent"),
            call % 7
        );
        let _ = writeln!(text, "{},\"intent\":{intent},\"outcome\":\"ok\"}}", head(result, "result"));
    }
    fs::write(directory.join("00000000000000000001.jsonl"), text).unwrap();
}

#[test]
fn an_index_whose_maker_is_killed_again_and_again_is_whole_in_the_end() {
    const CALLS: u64 = 40_000;
    let directory = gateway::fresh_directory();
    segment(&directory, CALLS);
    let path = directory.to_str().unwrap();
    let mut killed = 0;
    for round in 0..24 {
        let mut command = Command::new(gateway::binary());
        command.args(["logs", path, "--count"]).args(["--reindex"].iter().filter(|_| round % 4 == 0));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(10 + 7 * round));
        child.kill().unwrap();
        killed += usize::from(child.wait().unwrap().code().is_none());
    }
    assert!(killed > 0, "it was always faster");
    let found = lines(&[path, "--limit", "1000000"]);
    assert_eq!(found.len() as u64, CALLS);
    assert!(found.iter().all(|entry| entry["outcome"] == "ok"));
    let graph = lines(&[path, "--graph"]);
    assert_eq!(graph[0]["to_servers"][0]["calls"], CALLS, "each call is counted once");

    // A reader that has enough is no failure.
    let mut command = Command::new(gateway::binary());
    let mut child = command
        .args(["logs", path, "--limit", "100000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 100];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut some).unwrap();
    drop(out);
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    fs::remove_dir_all(directory).unwrap();
}
