//! Can a record be shown to somebody who trusts nobody here, and does a second verifier say the same?

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use serde_json::Value;

use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::gateway::run;
use crate::support::process::Process;
use crate::support::upstream::Upstream;

/// A gateway that answered some calls, and its caller's key.
async fn called(audit: &str, calls: usize) -> (Gateway, Upstream, Key) {
    let upstream = Upstream::start().await;
    let key = gateway::make_key("ci");
    let gateway = gateway::setup(&key.config(&upstream)).audit(audit).start();
    for _ in 0..calls {
        call(&gateway, &key, "echo").await;
    }
    (gateway, upstream, key)
}

async fn call(gateway: &Gateway, key: &Key, tool: &str) {
    let answer = crate::support::client::send(gateway.data, &key.call(tool)).await;
    assert_eq!(answer.status, 200);
}

fn end(gateway: &mut Gateway) {
    gateway.signal("TERM");
    assert_eq!(gateway.wait(), Some(0), "{}", gateway.log());
}

fn path(directory: &Path, name: &str) -> String {
    directory.join(name).to_str().unwrap().to_owned()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// What both verifiers say, which must be the same.
#[track_caller]
fn holds(key: &str, arguments: &[&str]) -> bool {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verify_audit.py");
    let second = Command::new("python3").arg("-B").arg(script).arg(key).args(arguments).output().unwrap();
    let own = match arguments {
        ["--proof", proof] => run(&["audit", "verify", "--key", key, "--proof", proof]),
        [directory, known @ ..] => {
            let known = known.iter().flat_map(|known| ["--checkpoint", known]);
            run(&["audit", "verify", directory, "--key", key].into_iter().chain(known).collect::<Vec<&str>>())
        }
        [] => unreachable!(),
    };
    let (out, error) = (String::from_utf8_lossy(&second.stdout), String::from_utf8_lossy(&second.stderr));
    assert!(second.status.success() || error.starts_with("fault: "), "{error}");
    assert_eq!(own.0 == Some(0), second.status.success(), "{own:?}\n{out}{error}");
    own.0 == Some(0)
}

/// The commands under a heading of the README.
fn shown(heading: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let section = text.split(&format!("## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let block = section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    block.lines().map(|line| line.split(" #").next().unwrap().trim().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_leads_from_a_call_to_a_verified_record_in_three_commands() {
    let (gateway, _upstream, key) = called("", 3).await;
    call(&gateway, &key, "the_call").await;
    let commands = shown("Prove it");
    assert_eq!(commands.len(), 3);
    let shell = |command: &str| {
        let bin = Path::new(gateway::binary()).parent().unwrap().to_str().unwrap();
        let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
        let output = Command::new("sh")
            .args(["-c", command])
            .env("PATH", path)
            .current_dir(&gateway.directory)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap(), error)
    };
    let (_, listed, error) = shell(&commands[0]);
    let last = listed.lines().last().unwrap_or_else(|| panic!("{error}"));
    assert!(last.contains("intent key:ci a/the_call allowed"), "{last}");
    let seq = last.split(' ').nth(1).unwrap();
    assert!(commands[1].contains(" 7 "));
    let prove = commands[1].replace(" 7 ", &format!(" {seq} "));
    // A checkpoint is there within a second.
    gateway::wait_until("a proof", || shell(&prove).0);
    let (is_verified, said, error) = shell(&commands[2]);
    assert!(is_verified && said.contains("the_call") && said.contains("the record holds: "), "{said}{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_verifiers_agree_on_what_holds_and_what_does_not() {
    let (mut gateway, _upstream, key) = called("", 40).await;
    let audit = gateway.directory.join("audit");
    gateway::wait_until("a checkpoint", || fs::metadata(audit.join("checkpoints")).is_ok_and(|file| file.len() > 0));
    gateway.kill();
    gateway.restart();
    call(&gateway, &key, "echo").await;
    end(&mut gateway);
    let public = path(&gateway.directory, "state/audit.pub");
    let (audit, bad) = (path(&gateway.directory, "audit"), gateway.directory.join("bad"));
    assert!(holds(&public, &[&audit]));
    let (code, printed, error) = run(&["audit", "key", "--config", &path(&gateway.directory, "portcullis.toml")]);
    assert_eq!((code, &printed), (Some(0), &fs::read_to_string(&public).unwrap()), "{error}");
    assert!(holds(printed.trim(), &[&audit]));
    assert!(!holds("other+0ddba11c+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", &[&audit]));

    // A copy of now, and one of later.
    let older = gateway.directory.join("older");
    copy(Path::new(&audit), &older);
    let notes = fs::read_to_string(older.join("checkpoints")).unwrap();
    gateway.restart();
    call(&gateway, &key, "echo").await;
    end(&mut gateway);
    let known = path(&gateway.directory, "audit/checkpoints");
    assert!(holds(&public, &[&audit, &known]));
    assert!(holds(&public, &[older.to_str().unwrap()]), "nothing in it says how old it is");
    assert!(!holds(&public, &[older.to_str().unwrap(), &known]), "a checkpoint from elsewhere does");
    let (_, proof, error) = run(&["audit", "prove", &audit, "1"]);
    let file = path(&gateway.directory, "proof");
    fs::write(&file, proof).unwrap();
    assert!(!holds(&public, &[older.to_str().unwrap(), &file]), "and so does the one in a proof: {error}");
    let (code, _, error) = run(&["audit", "verify", older.to_str().unwrap(), "--key", &public, "--proof", &file]);
    assert!(code == Some(1) && error.contains("records were cut off"), "{error}");
    let (code, _, error) = run(&["audit", "verify", &audit, "--key", &public, "--proof", &file]);
    assert_eq!(code, Some(0), "{error}");

    // Changes of every file.
    let segment = "00000000000000000001.jsonl";
    let text = fs::read_to_string(older.join(segment)).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut cases: Vec<(&str, Vec<u8>)> = Vec::new();
    for (name, whole) in [(segment, text.as_bytes()), ("checkpoints", notes.as_bytes())] {
        for place in 0..12 {
            let mut flipped = whole.to_vec();
            flipped[(whole.len() / 12 * place + place * 7) % whole.len()] ^= 1 << (place % 8);
            cases.push((name, flipped));
        }
        cases.push((name, whole[..whole.len() - 9].to_vec()));
    }
    cases.push((segment, [&lines[..5], &lines[6..]].concat().concat().into_bytes()));
    cases.push((segment, [&lines[..5], &lines[4..]].concat().concat().into_bytes()));
    cases.push((segment, [&lines[..5], &[lines[6], lines[5]], &lines[7..]].concat().concat().into_bytes()));
    cases.push((segment, lines[..lines.len() - 1].concat().into_bytes()));
    for (name, bytes) in cases {
        let _ = fs::remove_dir_all(&bad);
        copy(&older, &bad);
        fs::write(bad.join(name), &bytes).unwrap();
        assert!(!holds(&public, &[bad.to_str().unwrap()]), "{name}: {}", String::from_utf8_lossy(&bytes));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_verifiers_agree_on_proofs_and_on_what_retention_left() {
    let (mut gateway, _upstream, key) = called("segment_bytes_max = 6000", 1).await;
    let checkpoints = gateway.directory.join("audit/checkpoints");
    gateway::wait_until("a checkpoint", || fs::metadata(&checkpoints).is_ok_and(|file| file.len() > 0));
    for _ in 1..30 {
        call(&gateway, &key, "echo").await;
    }
    end(&mut gateway);
    let (public, audit) = (path(&gateway.directory, "state/audit.pub"), path(&gateway.directory, "audit"));
    let file = path(&gateway.directory, "proof");
    let older = path(&gateway.directory, "older");
    let notes = fs::read_to_string(Path::new(&audit).join("checkpoints")).unwrap();
    fs::write(&older, notes.split_inclusive('\n').take(5).collect::<String>()).unwrap();
    let mut proofs = Vec::new();
    for arguments in [vec!["1"], vec!["33"], vec!["60"], vec!["--continues", &older]] {
        let (code, proof, error) = run(&[&["audit", "prove", &audit][..], &arguments].concat());
        assert_eq!(code, Some(0), "{error}");
        fs::write(&file, &proof).unwrap();
        assert!(holds(&public, &["--proof", &file]), "{proof}");
        for place in (3..proof.len()).step_by(proof.len() / 6) {
            let mut bad = proof.clone().into_bytes();
            bad[place] ^= 1;
            fs::write(&file, bad).unwrap();
            assert!(!holds(&public, &["--proof", &file]), "byte {place} of\n{proof}");
        }
        proofs.push(proof);
    }
    // Segments are removed at the next start.
    let config = gateway.directory.join("portcullis.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text.replace("segment_bytes_max = 6000", "segment_bytes_max = 6000\nretention_bytes_max = 20000"),
    )
    .unwrap();
    gateway.restart();
    gateway.wait_for_log("old records were removed");
    end(&mut gateway);
    assert!(holds(&public, &[&audit]));
    assert!(!holds(&public, &[&audit, &older]), "what it is over was removed");
    let (_, report, _) = run(&["audit", "verify", &audit, "--key", &public, "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert!(report["removed"].as_u64() > Some(0) && report["unsigned"] == 0, "{report}");
    let base = Path::new(&audit).join("base");
    let text = fs::read_to_string(&base).unwrap();
    for line in [2, 3, 4, 5] {
        let changed = text
            .lines()
            .enumerate()
            .map(|(at, text)| if at == line { format!("1{text}\n") } else { format!("{text}\n") });
        fs::write(&base, changed.collect::<String>()).unwrap();
        assert!(!holds(&public, &[&audit]), "line {line} of {text}");
    }
    fs::write(&base, text).unwrap();
    assert!(holds(&public, &[&audit]));
    // What was given away before stays what it was.
    fs::write(&file, &proofs[0]).unwrap();
    assert!(holds(&public, &["--proof", &file]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_record_was_put_back_does_not_start_and_says_what_to_do() {
    let (mut gateway, _upstream, key) = called("", 5).await;
    end(&mut gateway);
    let (audit, older) = (gateway.directory.join("audit"), gateway.directory.join("older"));
    copy(&audit, &older);
    gateway.restart();
    call(&gateway, &key, "echo").await;
    end(&mut gateway);
    fs::remove_dir_all(&audit).unwrap();
    copy(&older, &audit);
    let config = path(&gateway.directory, "portcullis.toml");
    let (code, _, error) = run(&["run", "--config", &config]);
    assert_eq!(code, Some(1));
    assert!(error.contains("the log is not the one that was signed: 12 records were signed"), "{error}");
    assert!(error.contains("fewer are there") && error.contains("audit.checkpoint"), "{error}");
    // As it says: a new log with a new key begins.
    let before = fs::read_to_string(gateway.directory.join("state/audit.pub")).unwrap();
    fs::rename(&audit, gateway.directory.join("kept")).unwrap();
    for name in ["audit.key", "audit.checkpoint"] {
        fs::remove_file(gateway.directory.join("state").join(name)).unwrap();
    }
    gateway.restart();
    call(&gateway, &key, "echo").await;
    end(&mut gateway);
    let public = path(&gateway.directory, "state/audit.pub");
    assert_ne!(fs::read_to_string(&public).unwrap(), before);
    assert!(holds(&public, &[audit.to_str().unwrap()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_shown_followed_and_exported() {
    let (gateway, _upstream, key) = called("", 2).await;
    let audit = path(&gateway.directory, "audit");
    gateway.wait_for_records("result", 2);
    let mut follow = Command::new(gateway::binary());
    follow.args(["audit", "tail", &audit, "-n", "10", "-f", "--tool", "later"]).stdin(Stdio::null());
    let mut follow = Process::spawn(&mut follow, &gateway.directory.join("follow"));
    call(&gateway, &key, "other").await;
    call(&gateway, &key, "later").await;
    let (intent, result) = (follow.line(), follow.line());
    assert!(intent.contains("intent key:ci a/later allowed"), "{intent}");
    assert!(result.contains(&format!("result of {} ok", intent.split(' ').nth(1).unwrap())), "{result}");
    drop(follow);

    gateway.wait_for_records("result", 4);
    for seq in ["1", "2"] {
        let (code, shown, error) = run(&["audit", "show", &audit, seq]);
        assert_eq!(code, Some(0), "{error}");
        assert!(shown.contains("record 1: intent") && shown.contains(&format!("{:<16} echo", "tool")), "{shown}");
        assert!(shown.contains("record 2: result") && shown.contains(&format!("{:<16} ok", "outcome")), "{shown}");
    }
    let (code, _, error) = run(&["audit", "show", &audit, "99"]);
    assert_eq!((code, error.trim()), (Some(1), "error: there is no record 99"));

    let (_, lines, _) = run(&["audit", "export", &audit]);
    let segment = fs::read_to_string(PathBuf::from(&audit).join("00000000000000000001.jsonl")).unwrap();
    assert_eq!(lines, segment);
    let (_, lines, _) = run(&["audit", "export", &audit, "--until", "2020-01-01"]);
    assert_eq!(lines, "");
    let (code, csv, _) =
        run(&["audit", "export", &audit, "--format", "csv", "--kind", "intent", "--since", "2020-01-01"]);
    assert_eq!((code, csv.lines().count()), (Some(0), 5));
    let header: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    let tool = header.iter().position(|name| *name == "tool").unwrap();
    let tools: Vec<&str> = csv.lines().skip(1).map(|row| row.split(',').nth(tool).unwrap()).collect();
    assert_eq!(tools, ["echo", "echo", "other", "later"]);
    let (code, _, error) = run(&["audit", "export", &audit, "--since", "now"]);
    assert!(code == Some(2) && error.contains("`now` is no time"), "{error}");
    let (_, json, _) = run(&["audit", "tail", &audit, "-n", "2", "--json"]);
    assert_eq!(
        json,
        segment
            .lines()
            .rev()
            .take(2)
            .collect::<Vec<&str>>()
            .into_iter()
            .rev()
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    );
}
