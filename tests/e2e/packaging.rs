//! Would what is packaged work where it is installed?

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::gateway;
use crate::support::process::Process;
use crate::support::skip::skipped;

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether a program is there; what needs it is skipped elsewhere, and that is said.
fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        skipped(&format!("{program} is not installed"));
    }
    found
}

fn ran(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn the_units_are_sound_and_leave_little_open() {
    if !is_there("systemd-analyze") {
        return;
    }
    let directory = gateway::fresh_directory();
    for unit in ["portcullis.service", "portcullis.socket"] {
        let text = text(&format!("systemd/{unit}")).replace("/usr/bin/portcullis", gateway::binary());
        fs::write(directory.join(unit), text).unwrap();
    }
    let units = ["portcullis.service", "portcullis.socket"].map(|unit| directory.join(unit));
    let (sound, said) = ran(Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units));
    assert!(sound && !said.contains("portcullis"), "{said}");
    // Tenths: 15 is an exposure of 1.5.
    let (closed, said) = ran(Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=15", "--no-pager"])
        .arg(&units[0]));
    assert!(closed, "{said}");
    println!("{}", said.lines().last().unwrap_or_default());
    fs::remove_dir_all(directory).unwrap();
}

/// Scripts of bash in a folder.
fn scripts(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(project(folder)).unwrap().map(|entry| entry.unwrap().path());
    let is_bash = |path: &PathBuf| fs::read(path).is_ok_and(|text| text.starts_with(b"#!/usr/bin/env bash\n"));
    entries.filter(is_bash).collect()
}

#[test]
fn every_script_is_read_by_bash_and_may_be_run() {
    let scripts: Vec<PathBuf> = ["scripts", "load-tests", ".ci"].into_iter().flat_map(scripts).collect();
    assert!(scripts.len() >= 10, "{scripts:?}");
    for script in scripts {
        let (read, said) = ran(Command::new("bash").arg("-n").arg(&script));
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&script).unwrap().permissions());
        assert!(read && said.is_empty() && mode & 0o111 == 0o111, "{}: {said} {mode:o}", script.display());
    }
}

/// The value of a unit's key, which is set once.
#[track_caller]
fn setting(unit: &str, key: &str) -> String {
    let found: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
    assert_eq!(found.len(), 1, "{key}: {found:?}");
    found[0].to_owned()
}

#[test]
fn the_service_starts_as_its_unit_says_with_the_packaged_configuration() {
    let (service, socket) = (text("systemd/portcullis.service"), text("systemd/portcullis.socket"));
    let packaged = text("deploy/portcullis.toml");
    let listens: Vec<&str> = socket.lines().filter_map(|line| line.strip_prefix("ListenStream=")).collect();
    assert!(
        listens.len() == 2 && listens.iter().all(|address| packaged.contains(&format!("\"{address}\""))),
        "{listens:?}"
    );
    assert!(
        setting(&service, "Wants").split(' ').any(|unit| unit == "portcullis.socket"),
        "a restart is to lose no call"
    );
    for (directory, key) in [("/var/lib/portcullis", "StateDirectory"), ("/var/log/portcullis", "LogsDirectory")] {
        assert!(packaged.contains(directory) && setting(&service, key) == "portcullis");
    }
    assert!(is_seconds(&service, "WatchdogSec") && is_seconds(&service, "TimeoutStopSec"));
    if !is_there("systemd-socket-activate") {
        return;
    }
    let directory = gateway::fresh_directory();
    let file = directory.join("portcullis.toml");
    let addresses = [gateway::free_address(), gateway::free_address()];
    let mut here = packaged;
    for (listen, address) in listens.iter().zip(addresses) {
        here = here.replace(listen, &address.to_string());
    }
    for (installed, name) in [("/var/lib/portcullis", "state"), ("/var/log/portcullis", "audit")] {
        here = here.replace(installed, directory.join(name).to_str().unwrap());
    }
    fs::write(&file, here).unwrap();
    let start = setting(&service, "ExecStart");
    let words: Vec<String> = start
        .split(' ')
        .map(|word| match word {
            "/usr/bin/portcullis" => gateway::binary().to_owned(),
            "/etc/portcullis/portcullis.toml" => file.display().to_string(),
            other => other.to_owned(),
        })
        .collect();
    let mut command = Command::new("systemd-socket-activate");
    for address in addresses {
        command.args(["-l", &address.to_string()]);
    }
    command.args(&words).env_clear().env("PATH", "/usr/bin:/bin");
    let mut process = Process::spawn(&mut command, &directory.join("log"));
    // The first connection starts it, waits in the queue meanwhile, and is answered.
    let ask = |address: std::net::SocketAddr, path: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    gateway::wait_until("systemd-socket-activate listens", || TcpStream::connect(addresses[0]).is_ok());
    assert!(
        ask(addresses[0], "/healthz").starts_with("HTTP/1.1 200"),
        "{}",
        fs::read_to_string(directory.join("log")).unwrap()
    );
    assert!(ask(addresses[1], "/readyz").starts_with("HTTP/1.1 200"));
    gateway::wait_until("it takes commands", || directory.join("state/control.sock").exists());
    let reload = setting(&service, "ExecReload").replace("/etc/portcullis/portcullis.toml", file.to_str().unwrap());
    let words: Vec<&str> = reload.split(' ').skip(1).collect();
    let (code, said, error) = gateway::run(&words);
    assert!(code == Some(0) && said.contains("revision 2"), "{said} {error}");
    process.signal("TERM");
    assert_eq!(process.wait(), Some(0));
    fs::remove_dir_all(directory).unwrap();
}

fn is_seconds(unit: &str, key: &str) -> bool {
    setting(unit, key).parse::<u32>().is_ok_and(|seconds| seconds > 0)
}

#[test]
fn everything_a_package_names_is_there() {
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    let mut installed = Vec::new();
    for asset in assets {
        let source = asset[0].as_str().unwrap();
        let made = source.starts_with("target/");
        let folder = source.rsplit_once('/').map_or("", |(folder, _)| folder);
        let present = if source.contains('*') { project(folder).is_dir() } else { project(source).is_file() };
        assert!(made || present, "{source}");
        let mode = asset[2].as_str().unwrap();
        assert!(mode == "644" || mode == "755" && source.ends_with("/portcullis"), "{source} {mode}");
        installed.push(asset[1].as_str().unwrap().to_owned());
    }
    for place in ["usr/bin/", "etc/portcullis/", "usr/lib/systemd/system/", "usr/share/man/man1/"] {
        assert!(installed.iter().any(|installed| installed == place), "{place}");
    }
    assert!(
        manifest["package"]["metadata"]["deb"].get("maintainer-scripts").is_none(),
        "installing runs nothing of ours"
    );
}

/// Instructions of a Dockerfile: continued lines joined, comments left out.
fn instructions(text: &str) -> Vec<(String, String)> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').unwrap_or((line, "")))
        .map(|(word, rest)| (word.to_owned(), rest.trim().to_owned()))
        .collect()
}

#[test]
fn the_image_is_small_and_has_no_root() {
    // Building it needs an engine and a registry; `make test` says that this was not done.
    let known = [
        "FROM",
        "RUN",
        "COPY",
        "WORKDIR",
        "USER",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    ];
    let all = instructions(&text("deploy/Dockerfile"));
    for (word, rest) in &all {
        assert!(known.contains(&word.as_str()) && !rest.is_empty(), "{word} {rest}");
        if let Some((_, list)) = rest.split_once('[').filter(|_| ["ENTRYPOINT", "VOLUME"].contains(&word.as_str())) {
            serde_json::from_str::<Vec<String>>(&format!("[{list}")).unwrap();
        }
        if let Some(list) = rest.strip_prefix("--").and_then(|rest| rest.split_once("CMD ")).map(|(_, list)| list) {
            serde_json::from_str::<Vec<String>>(list).unwrap_or_else(|error| panic!("{list}: {error}"));
        }
    }
    let stages: Vec<usize> = (0..all.len()).filter(|at| all[*at].0 == "FROM").collect();
    assert_eq!(stages.len(), 2);
    assert!(stages.iter().all(|at| all[*at].1.contains(':') && !all[*at].1.contains(":latest")), "pinned");
    let last = &all[stages[1]..];
    let of = |word: &str| last.iter().filter(|(it, _)| it == word).map(|(_, rest)| rest.clone()).collect::<Vec<_>>();
    assert_eq!(of("USER"), ["65532:65532"], "a number, so that nobody has to be looked up");
    assert_eq!(of("RUN"), Vec::<String>::new(), "nothing is installed beside it");
    assert!(of("HEALTHCHECK").len() == 1 && of("ENTRYPOINT").len() == 1);
    assert!(of("COPY").iter().all(|copy| copy.starts_with("--from=build ")), "only what was built");
}
