//! `portcullis demo`: the gateway as it would serve, in front of sample servers, with nothing to set up.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

use serde_json::json;

use crate::auth::key;
use crate::auth::key::NewKey;
use crate::cli::Failure;
use crate::cli::print;
use crate::cli::run::log_panics;
use crate::config::model::KEY_PREFIX;
use crate::config::model::LogFormat;
use crate::server;
use crate::telemetry::logging;

use super::config;
use super::config::Demo;
use super::guide;
use super::guide::Guide;
use super::servers;

/// Where the demo listens if nobody does yet.
const DATA: &str = "127.0.0.1:8080";
/// Where its metrics are if nobody listens there yet.
const ADMIN: &str = "127.0.0.1:9090";
/// A port the system chooses.
const ANY: &str = "127.0.0.1:0";

/// How the demo is shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print one line of JSON (`data`, `admin`, `keys`, `servers`, `audit`) instead of a guide; ports are free ones then.
    #[arg(long)]
    json: bool,
}

/// Serves the demo until a signal ends it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let signals = server::Signals::install()?;
    logging::init(LogFormat::Auto).map_err(Failure::new)?;
    log_panics();
    let directory =
        fresh_directory().map_err(|error| Failure::new(format!("no directory for the demo's files: {error}")))?;
    let samples =
        servers::start().map_err(|error| Failure::new(format!("the sample servers do not start: {error}")))?;
    let keys: Vec<NewKey> =
        config::KEYS.iter().map(|_| key::generate(KEY_PREFIX)).collect::<Result<_, _>>().map_err(Failure::new)?;
    let [analyst, developer] = keys.as_slice() else { return Err(Failure::new("the demo has two keys")) };
    let audit = directory.join("audit");
    let text = config::to_toml(&Demo {
        data: address(DATA, arguments.json),
        admin: address(ADMIN, arguments.json),
        audit_directory: &audit,
        state_directory: &directory.join("state"),
        files: samples.files(),
        database: samples.database(),
        digests: [("analyst", analyst.digest.clone()), ("developer", developer.digest.clone())],
    });
    let file = directory.join("portcullis.toml");
    fs::write(&file, text).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    let prepared = server::prepare(&file, server::compile(&file, 1, None).map_err(Failure::config)?, signals)?;
    let (data, admin) = (prepared.data_url(), prepared.admin_address().url());
    let shown = Shown { data: &data, admin: &admin, audit: &audit, analyst, developer };
    print(&if arguments.json { shown.json() } else { shown.guide(&file) })?;
    prepared.run()?;
    drop(samples);
    Ok(())
}

/// What the demo tells its user.
struct Shown<'s> {
    data: &'s str,
    admin: &'s str,
    audit: &'s Path,
    analyst: &'s NewKey,
    developer: &'s NewKey,
}

impl Shown<'_> {
    fn json(&self) -> String {
        let keys = json!({ "analyst": self.analyst.key.expose(), "developer": self.developer.key.expose() });
        json!({ "data": self.data, "admin": self.admin, "keys": keys, "servers": ["database", "files"], "audit": self.audit }).to_string()
    }

    fn guide(&self, file: &Path) -> String {
        let text = guide::text(&Guide {
            data_url: self.data,
            admin_url: self.admin,
            audit_directory: self.audit,
            analyst_key: self.analyst.key.expose(),
            developer_key: self.developer.key.expose(),
        });
        format!("{text}\nConfiguration: {}\n", file.display())
    }
}

/// `wanted`, or a free port where it is taken or the reader is a script.
fn address(wanted: &'static str, any: bool) -> &'static str {
    if !any && TcpListener::bind(wanted).is_ok() { wanted } else { ANY }
}

/// A directory of this process alone.
fn fresh_directory() -> io::Result<PathBuf> {
    let directory = std::env::temp_dir().join(format!("portcullis-demo-{}", std::process::id()));
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::DirBuilder::new().mode(0o700).create(&directory)?;
    Ok(directory)
}
