//! What can the running process still touch, and does an operator learn of it?

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::client;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::process;
use crate::support::skip::skipped;
use crate::support::upstream::Upstream;

fn config(upstream: &Upstream, key: &Key, auth: &str) -> String {
    // By name, so that it has to be resolved.
    let url = upstream.url().replace("127.0.0.1", "localhost");
    format!("[servers.a]\nurl = \"{url}\"\n{auth}\n[keys.ci]\ndigest = \"{}\"\nmcp_servers = [\"a\"]\n", key.digest)
}

fn call(key: &Key) -> String {
    let body =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "echo", "arguments": {} } });
    client::post("/mcp/a", &[&format!("X-API-Key: {}", key.key)], &body.to_string())
}

/// A line of the process's status.
fn status(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim_start_matches(':').trim().to_owned()
}

/// Whether this machine's kernel has Landlock; what follows from it cannot be seen elsewhere.
fn is_confined(gateway: &Gateway) -> bool {
    gateway.wait_for_log("no_new_privs");
    let confined = gateway.log().contains("in force") && !gateway.log().contains("not in force");
    if !confined {
        skipped("this kernel has no Landlock");
    }
    confined
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confined_gateway_serves_reloads_and_says_what_it_may_not_read() {
    let upstream = Upstream::start().await;
    let key = gateway::make_key("ci");
    let elsewhere = gateway::fresh_directory();
    let secret = elsewhere.join("secret");
    fs::write(&secret, "the-token").unwrap();
    let gateway = Gateway::start(&config(&upstream, &key, ""));
    assert_eq!(status(gateway.pid(), "NoNewPrivs"), "1");
    assert_eq!(client::send(gateway.data, call(&key)).await.status, 200, "names are resolved");
    gateway::wait_until("commands are taken", || gateway.directory.join("state/control.sock").exists());
    // What lies beside the configuration can be read, also if it was not there at the start.
    let reload = || gateway::run(&["reload", "--config", gateway.directory.join("portcullis.toml").to_str().unwrap()]);
    fs::write(gateway.directory.join("near"), "near-token").unwrap();
    gateway.write(&config(&upstream, &key, "auth = { type = \"bearer\", secret = \"${file:near}\" }"));
    let (code, said, mistakes) = reload();
    assert!(code == Some(0) && said.contains("revision 2"), "{mistakes}");
    assert_eq!(client::send(gateway.data, call(&key)).await.status, 200);
    assert_eq!(upstream.requests().last().unwrap().header("authorization").as_deref(), Some("Bearer near-token"));
    if !is_confined(&gateway) {
        return;
    }
    let far = format!("auth = {{ type = \"bearer\", secret = \"${{file:{}}}\" }}", secret.display());
    gateway.write(&config(&upstream, &key, &far));
    let (code, _, mistakes) = reload();
    assert_eq!(code, Some(3), "{mistakes}");
    for part in ["Permission denied", "sandbox of the running process", "portcullis upgrade"] {
        assert!(mistakes.contains(part), "{part}: {mistakes}");
    }
    assert!(!mistakes.contains("the-token"));
    assert_eq!(client::send(gateway.data, call(&key)).await.status, 200, "and it serves as before");
    // Another process begins with the new place.
    let file = gateway.directory.join("portcullis.toml");
    let (code, said, error) = gateway::run(&["upgrade", "--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{error}");
    let successor: u32 = said.split(' ').nth(1).unwrap().parse().unwrap();
    let answer = client::send(gateway.data, call(&key)).await;
    process::signal(successor, "TERM");
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.requests().last().unwrap().header("authorization").as_deref(), Some("Bearer the-token"));
    fs::remove_dir_all(elsewhere).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confined_gateway_runs_no_program_and_reads_nothing_else() {
    let directory = gateway::fresh_directory();
    let file = directory.join("portcullis.toml");
    fs::write(&file, "").unwrap();
    let loaded = portcullis::config::load(&file).unwrap_or_else(|error| panic!("{error}"));
    let outside = std::env::temp_dir().join(format!("portcullis-outside-{}", std::process::id()));
    fs::write(&outside, "x").unwrap();
    // On a thread of its own: whoever is confined stays so.
    let seen = std::thread::spawn({
        let (outside, directory) = (outside.clone(), directory.clone());
        move || {
            portcullis::server::Sandbox::of(&loaded).unwrap().enforce_here().unwrap();
            // A link across a border is refused as one across file systems would be.
            let refused = |outcome: std::io::Result<()>| {
                outcome.is_err_and(|error| matches!(error.raw_os_error(), Some(13 | 18)))
            };
            let confined = refused(fs::read(&outside).map(drop));
            let acts = [
                ("write outside", refused(fs::write(&outside, "y"))),
                ("list outside", refused(fs::read_dir(std::env::temp_dir()).map(drop))),
                ("remove outside", refused(fs::remove_file(&outside))),
                (
                    "link outside",
                    refused(fs::hard_link(directory.join("portcullis.toml"), outside.with_extension("link"))),
                ),
                ("run a program", refused(Command::new("/bin/true").status().map(drop))),
                ("run itself", refused(Command::new("/proc/self/exe").status().map(drop))),
                ("write its configuration", refused(fs::write(directory.join("portcullis.toml"), "x"))),
                ("write system files", refused(fs::write("/etc/portcullis-was-here", "x"))),
                ("read a home", refused(fs::read_dir("/root").map(drop)) || !Path::new("/root").exists()),
            ];
            let allowed = [
                ("read its configuration", fs::read(directory.join("portcullis.toml")).is_ok()),
                ("write its state", fs::write(directory.join("state/x"), "x").is_ok()),
                ("write its record", fs::write(directory.join("audit/x"), "x").is_ok()),
                ("rename in its state", fs::rename(directory.join("state/x"), directory.join("state/y")).is_ok()),
                ("read names", fs::read("/etc/hosts").is_ok()),
                ("write to nothing", fs::write("/dev/null", "x").is_ok()),
            ];
            (confined, acts, allowed)
        }
    });
    let (confined, acts, allowed) = seen.join().unwrap();
    if confined {
        for (what, was_refused) in acts {
            assert!(was_refused, "it could {what}");
        }
    } else {
        skipped("this kernel has no Landlock");
    }
    for (what, could) in allowed {
        assert!(could, "it could not {what}");
    }
    let _ = fs::remove_file(outside);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn check_lists_the_sandbox_and_one_that_is_off_confines_nothing() {
    let directory = gateway::fresh_directory();
    let file = directory.join("portcullis.toml");
    let check = |text: &str| {
        fs::write(&file, text).unwrap();
        let (code, out, error) = gateway::run(&["check", "--config", file.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{error}");
        out
    };
    let out = check("[state]\ndirectory = \"s\"\n");
    let own = directory.display();
    assert!(out.contains("sandbox: reads below ") && out.contains(&format!("{own}/s")), "{out}");
    assert!(check("[sandbox]\nenabled = false\n").contains("sandbox: off"));
    fs::remove_dir_all(directory).unwrap();
    let gateway = Gateway::start("[sandbox]\nenabled = false\n");
    assert_eq!(status(gateway.pid(), "NoNewPrivs"), "0");
    let mode = fs::metadata(gateway.directory.join("state")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}
