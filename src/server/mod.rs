//! How does the gateway start, reload and end?
//!
//! [`compile`] and [`prepare`] do everything that can fail, before anything listens; [`Prepared::run`] serves until a
//! signal ends it. SIGHUP reloads, SIGTERM drains, SIGINT ends at once.

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod limits;
mod reload;
mod shutdown;
mod signals;

pub use signals::Hold;
pub use signals::Signals;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pingora::listeners::L4BufferSettings;
use pingora::listeners::ListenerConfig;
use pingora::server::RunArgs;
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::services::listening::Service;
use tokio::net::TcpSocket;

use crate::admin;
use crate::admin::Admin;
use crate::admin::AdminAddress;
use crate::admin::Probes;
use crate::admin::Readiness;
use crate::audit;
use crate::clock;
use crate::config::LoadError;
use crate::config::Loaded;
use crate::config::model::Config;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::disk;
use crate::gateway;
use crate::gateway::Gateway;
use crate::gateway::Keeper;
use crate::policy;
use crate::runtime::Parts;
use crate::runtime::Runtime;
use crate::seal;
use crate::seal::Keyring;
use crate::snapshot::Snapshot;
use crate::snapshot::Source;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::Settings;
use crate::transport::edge::Edge;
use crate::upstream::Upstreams;

/// Name of the file in the state directory that holds the sealing key the gateway made for itself.
const SEAL_KEY_FILE: &str = "seal.key";

/// Why the gateway does not start. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The record cannot be kept.
    #[error("the audit directory cannot be used: {0}")]
    Audit(#[from] audit::OpenError),
    /// The state directory cannot be used.
    #[error("the state directory `{}` cannot be used: {error}; make it writable for this user or set `state.directory`", path.display())]
    State {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A listener's address cannot be used.
    #[error("{0}")]
    Listen(String),
    /// The operating system refused something the gateway needs.
    #[error("the gateway cannot start: {0}")]
    System(String),
}

/// A configuration that compiled, and what it was compiled from.
pub struct Compiled {
    /// The configuration and its places.
    pub loaded: Loaded,
    /// What follows from it.
    pub snapshot: Snapshot,
}

/// Loads and compiles the configuration at `path`, as `run`, `check` and reload do.
///
/// # Errors
/// Every mistake, rendered with its place.
pub fn compile(path: &Path, revision: u64, previous: Option<&Snapshot>) -> Result<Compiled, Box<LoadError>> {
    let source = Source { revision, sha256: String::new() };
    let compiled = crate::config::load_and(path, |config, problems| {
        check_listeners(config, problems);
        Snapshot::compile(config, &source, previous, problems)
    });
    let (loaded, mut snapshot) = compiled.map_err(Box::new)?;
    snapshot.sha256 = loaded.sources.sha256().to_owned();
    Ok(Compiled { loaded, snapshot })
}

/// Both listeners' addresses must be usable, and an admin listener without authentication must not be reached from elsewhere.
fn check_listeners(config: &Config, problems: &mut Problems) {
    let at = At::root().key("listen");
    if let Err(message) = admin::check_address(&config.listen.admin) {
        problems.error(
            &at.key("admin"),
            message,
            "write a loopback address such as `127.0.0.1:9090`, or `unix:/run/portcullis/admin.sock`",
        );
    }
    let is_socket = config.listen.data.strip_prefix("unix:").is_some_and(|path| path.starts_with('/'));
    if !is_socket && config.listen.data.parse::<SocketAddr>().is_err() {
        problems.error(
            &at.key("data"),
            format!("`{}` is not an address", config.listen.data),
            "write an IP address and a port (`127.0.0.1:8080`, `[::]:8080`), or `unix:/path`",
        );
    }
}

/// Everything the gateway needs, made and ready to listen.
pub struct Prepared {
    runtime: Arc<Runtime>,
    config: Config,
    path: PathBuf,
    data: String,
    admin: Admin,
    signals: Signals,
    limits: limits::Limits,
}

/// Makes everything the gateway needs, to serve what was compiled from `path`: the record, keys, metrics, connections,
/// the admin listener.
///
/// # Errors
/// See [`StartError`]; nothing listens then.
pub fn prepare(path: &Path, compiled: Compiled, signals: Signals) -> Result<Prepared, StartError> {
    let Compiled { loaded, snapshot } = compiled;
    if loaded.warnings.iter().next().is_some() {
        tracing::warn!("{}", loaded.sources.render(&loaded.warnings));
    }
    let config = loaded.config;
    let limits = limits::Limits::raise(&config.listen)?;
    let keyring =
        if snapshot.keyring.is_some() { None } else { Some(own_keyring(Path::new(&config.state.directory))?) };
    let metrics = Metrics::new(Settings {
        series_max: crate::telemetry::metrics::SERIES_MAX,
        version: env!("CARGO_PKG_VERSION"),
        decisions: policy::NAMES,
        refusals: gateway::REFUSALS,
    });
    let audit = audit::Settings::new(
        PathBuf::from(&config.audit.directory),
        config.audit.level,
        config.audit.segment_bytes_max,
    );
    let parts = Parts {
        upstreams: Upstreams::new().map_err(|error| StartError::System(error.to_string()))?,
        metrics: metrics.map_err(|error| StartError::System(error.to_string()))?,
        audit: Arc::new(audit::Log::open(audit, clock::now_micros())?),
        keyring,
        streams_max: limits.streams_max,
    };
    let runtime = Arc::new(Runtime::new(parts, snapshot));
    let data = bindable(&config.listen.data)?;
    let address = admin::check_address(&config.listen.admin).map_err(StartError::Listen)?;
    let admin = admin::start(&address, probes(&runtime)).map_err(|error| StartError::Listen(error.to_string()))?;
    Ok(Prepared { runtime, config, path: path.to_owned(), data, admin, signals, limits })
}

impl Prepared {
    /// URL of the data listener.
    pub fn data_url(&self) -> String {
        if self.data.starts_with("unix:") { self.data.clone() } else { format!("http://{}", self.data) }
    }

    /// Address of the admin listener.
    pub fn admin_address(&self) -> &AdminAddress {
        self.admin.address()
    }

    /// What survives a reload: for tests that swap snapshots beside live calls.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Serves until a signal ends it. Returns once every call is answered or its time is up, and the record is on disk.
    pub fn run(self) {
        let listen = &self.config.listen;
        let drain = Duration::from_millis(listen.drain_timeout_ms);
        let conf = ServerConf {
            threads: listen.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from)),
            grace_period_seconds: Some(0),
            graceful_shutdown_timeout_seconds: Some(1),
            // What is no MCP message is relayed one day; nothing of it may be sent twice.
            max_retries: 1,
            ..ServerConf::default()
        };
        let mut server = Server::new_with_opt_and_conf(None, conf);
        server.bootstrap();
        let keeper = Arc::new(Keeper::new(Arc::clone(&self.runtime)));
        let mut proxy =
            pingora_proxy::HttpProxy::new(Gateway::new(Arc::clone(&self.runtime)), Arc::clone(&server.configuration));
        proxy.handle_init_modules();
        let open = self.runtime.metrics.connections().clone();
        let edge = Edge::new(Arc::new(proxy), keeper, self.limits.connections_max, open);
        let mut service = Service::new("data".into(), edge);
        let listener = match self.data.strip_prefix("unix:") {
            // Who may connect is for the directory's permissions to say.
            Some(path) => ListenerConfig::uds(path),
            None => ListenerConfig::tcp(&self.data),
        };
        // The gate reads into its own buffer; Pingora's would take 64 KiB of every connection.
        service.add_listener(listener.l4_buffer(L4BufferSettings::default().read(0)));
        server.add_service(service);

        let reload = reload::Reload {
            runtime: Arc::clone(&self.runtime),
            first: self.config.clone(),
            path: self.path.clone(),
            limits: self.limits,
        };
        reload.start(&self.signals);
        let _seconds = reload::Seconds::start(Arc::clone(&self.runtime));
        tracing::info!(data = %self.data, admin = %self.admin.address(), version = env!("CARGO_PKG_VERSION"), "serving");
        let watch = shutdown::Watch::new(self.signals.end(), Arc::clone(&self.runtime), drain);
        server.run(RunArgs { shutdown_signal: Box::new(watch) });
        shutdown::close(&self.runtime, self.admin);
    }
}

/// What the admin listener asks.
fn probes(runtime: &Arc<Runtime>) -> Probes {
    let metrics = Arc::clone(runtime);
    let readiness = Arc::clone(runtime);
    Probes {
        metrics: Box::new(move || metrics.render_metrics()),
        readiness: Box::new(move || Readiness {
            config_loaded: true,
            audit_available: readiness.audit.available(),
            draining: readiness.is_draining(),
        }),
    }
}

/// Checks that the data address can be listened on, so that a clear message comes before a deep one. Port 0 becomes the
/// port the system chose.
fn bindable(address: &str) -> Result<String, StartError> {
    if let Some(path) = address.strip_prefix("unix:") {
        // Pingora takes over whatever stands at the path, so a socket that is still served must be noticed here.
        return match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => Err(StartError::Listen(format!(
                "the data listener cannot use `{address}`: it is being served; end what uses it or set `listen.data`"
            ))),
            Err(_) => Ok(address.to_owned()),
        };
    }
    // Bound but not listening: a client that came now would be reset.
    let bound = address.parse().map_err(io::Error::other).and_then(|address: SocketAddr| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.local_addr()
    });
    bound.map(|bound| bound.to_string()).map_err(|error| {
        StartError::Listen(format!(
            "the data listener cannot use `{address}`: {error}; end what uses it or set `listen.data`"
        ))
    })
}

/// The sealing key in the state directory, made on the first start.
fn own_keyring(directory: &Path) -> Result<Keyring, StartError> {
    let path = directory.join(SEAL_KEY_FILE);
    let refuse = |error: io::Error| StartError::State { path: path.clone(), error };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(refuse)?;
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = seal::generate_key().map_err(|error| refuse(io::Error::other(error.to_string())))?;
            let text = seal::key_text(&key);
            disk::replace::replace(&path, text.expose().as_bytes()).map_err(refuse)?;
            text.expose().to_owned()
        }
        Err(error) => return Err(refuse(error)),
    };
    let key = seal::parse_key(text.trim()).map_err(|error| refuse(io::Error::other(error.to_string())))?;
    Keyring::new(vec![key]).map_err(|error| refuse(io::Error::other(error.to_string())))
}
