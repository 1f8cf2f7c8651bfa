//! How does the gateway start, reload and end?
//!
//! [`compile`] and [`prepare`] do everything that can fail, before anything listens; [`Prepared::run`] serves until a
//! signal ends it. SIGHUP reloads, SIGTERM drains, SIGINT ends at once.

mod addresses;
mod attendant;
#[cfg(feature = "otlp")]
mod collector;
mod commands;
mod control;
mod door;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod limits;
mod look;
mod notify;
mod opening;
mod origin;
mod own_keys;
mod predecessor;
mod readiness;
mod reload;
mod sandbox;
mod shutdown;
mod signals;
mod sockets;
mod usage;

pub use commands::log;
pub use commands::reload;
pub use commands::status;
pub use control::ControlError;
pub use control::Status;
pub use origin::Origin;
pub use own_keys::audit_key;
pub use sandbox::Sandbox;
pub use signals::Hold;
pub use signals::Signals;

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
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
use tokio::sync::watch;

use crate::admin;
use crate::admin::AdminAddress;
use crate::admin::AdminSocket;
use crate::admin::Probes;
use crate::audit;
use crate::clock;
use crate::config::LoadError;
use crate::config::Loaded;
use crate::config::model::Config;
use crate::config::problem::At;
use crate::gateway;
use crate::gateway::Gateway;
use crate::gateway::Keeper;
use crate::policy;
use crate::runtime::Parts;
use crate::runtime::Runtime;
use crate::search::Indexer;
use crate::server::attendant::Attendant;
use crate::server::door::Door;
use crate::server::door::Lasting;
use crate::server::door::Opened;
use crate::server::door::Porter;
use crate::server::opening::Opening;
use crate::server::predecessor::Predecessor;
use crate::server::sockets::Listening;
use crate::server::usage::Usage;
use crate::snapshot::Snapshot;
use crate::snapshot::Source;
use crate::telemetry::access::AccessLog;
use crate::telemetry::access::Destination;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::Settings;
use crate::telemetry::observers::Observers;
use crate::transport::admission::Admission;
use crate::transport::edge::Edge;
use crate::upstream::Upstreams;

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
    /// What was used before cannot be told.
    #[error("`{}` says what was used of limits and budgets, and cannot be read: {why}; restore it, or remove it to begin at zero", path.display())]
    Usage {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The access log cannot be kept.
    #[error("the access log `{access}` cannot be written: {error}; make its directory, or set `log.access`")]
    Access {
        /// Where it is to be.
        access: String,
        /// What the system said.
        error: io::Error,
    },
    /// A listener's address cannot be used.
    #[error("{0}")]
    Listen(String),
    /// The running gateway cannot be followed; it serves as before.
    #[error("the running gateway cannot be taken over from: {0}")]
    TakeOver(String),
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
    /// What is wrong with the candidate that is to be asked beside it, or should be known of it; empty: nothing.
    candidate: String,
}

impl Compiled {
    /// What the operator should know, of the candidate too, each with its place; empty: nothing.
    pub fn warnings(&self) -> String {
        let mut text = self.loaded.sources.render(&self.loaded.warnings);
        text.push_str(&self.candidate);
        if let Some(hint) = sandbox::hint(&self.candidate) {
            text.push_str(&hint);
            text.push('\n');
        }
        text
    }
}

/// Loads and compiles the configuration at `path`, as `run`, `check` and reload do.
///
/// # Errors
/// Every mistake, rendered with its place. Those of a candidate that is to be asked beside it are none: it decides nothing, and with
/// mistakes it is not asked.
pub fn compile(path: &Path, revision: u64, previous: Option<&Snapshot>) -> Result<Compiled, Box<LoadError>> {
    let mut compiled = compile_alone(path, revision, previous)?;
    let Some(file) = compiled.loaded.config.policy.shadow_file.clone() else { return Ok(compiled) };
    let at = At::root().key("policy").key("shadow_file");
    let warnings = &mut compiled.loaded.warnings;
    match compile_alone(Path::new(&file), revision, previous) {
        Ok(candidate) => {
            compiled.candidate = candidate.warnings();
            if !compiled.candidate.is_empty() {
                warnings.warning(&at, "the candidate has warnings", "they follow");
            }
            compiled.snapshot.shadow = Some(candidate.snapshot.policy);
        }
        Err(error) => {
            compiled.candidate = error.to_string();
            warnings.warning(
                &at,
                "the candidate does not load and is not asked",
                "mend what follows, or remove the key",
            );
        }
    }
    Ok(compiled)
}

fn compile_alone(path: &Path, revision: u64, previous: Option<&Snapshot>) -> Result<Compiled, Box<LoadError>> {
    let source = Source { revision, sha256: String::new() };
    let compiled = crate::config::load_and(path, |config, problems| {
        addresses::check(config, problems);
        Snapshot::compile(config, &source, previous, problems)
    });
    let (loaded, mut snapshot) = compiled.map_err(Box::new)?;
    snapshot.sha256 = loaded.sources.sha256().to_owned();
    Ok(Compiled { loaded, snapshot, candidate: String::new() })
}

/// Everything the gateway needs, made and ready to listen.
pub struct Prepared {
    runtime: Arc<Runtime>,
    config: Config,
    path: PathBuf,
    data: String,
    socket: Listening,
    door: Arc<Door>,
    admin: AdminAddress,
    predecessor: Option<Predecessor>,
    signals: Signals,
    limits: limits::Limits,
    usage: Arc<Usage>,
}

/// Makes everything the gateway needs, to serve what was compiled from `path`: the record, keys, metrics, connections,
/// the admin listener.
///
/// # Errors
/// See [`StartError`]; nothing listens then.
pub fn prepare(path: &Path, compiled: Compiled, signals: Signals) -> Result<Prepared, StartError> {
    prepare_from(Origin::default(), path, compiled, signals)
}

/// The same, with what was handed in. A gateway that is followed serves on if this fails.
///
/// # Errors
/// See [`StartError`].
pub fn prepare_from(
    mut origin: Origin,
    path: &Path,
    compiled: Compiled,
    signals: Signals,
) -> Result<Prepared, StartError> {
    let warnings = compiled.warnings();
    if !warnings.is_empty() {
        tracing::warn!("{warnings}");
    }
    let Compiled { loaded, snapshot, .. } = compiled;
    let config = loaded.config;
    let limits = limits::Limits::raise(&config.listen)?;
    let keyring =
        if snapshot.keyring.is_some() { None } else { Some(own_keys::keyring(Path::new(&config.state.directory))?) };
    let metrics = Metrics::new(Settings {
        series_max: crate::telemetry::metrics::SERIES_MAX,
        version: env!("CARGO_PKG_VERSION"),
        decisions: policy::NAMES,
        refusals: gateway::REFUSALS,
    });
    let audit = own_keys::audit_settings(&config)?;
    let metrics = metrics.map_err(|error| StartError::System(error.to_string()))?;
    let parts = Parts {
        upstreams: Upstreams::new().map_err(|error| StartError::System(error.to_string()))?,
        observers: observers(&config, &metrics)?,
        metrics,
        audit: Arc::new(if origin.is_beside() {
            audit::Log::open_beside(audit, clock::now_micros())?
        } else {
            audit::Log::open(audit, clock::now_micros())?
        }),
        keyring,
        streams_max: limits.streams_max,
    };
    let runtime = Arc::new(Runtime::new(parts, snapshot));
    let mode = if origin.is_beside() { usage::Mode::Waits } else { usage::Mode::Writes };
    let usage = Arc::new(Usage::open(Path::new(&config.state.directory), &runtime.ledger, mode)?);
    let socket = origin.data(&config.listen.data)?;
    let data = socket.address().map_err(|error| StartError::System(error.to_string()))?;
    // A socket that was moved to its place does not know it.
    let data = if data.starts_with("unix:") { config.listen.data.clone() } else { data };
    let address = admin::check_address(&config.listen.admin).map_err(StartError::Listen)?;
    let admin_socket = origin.admin(&address)?;
    let predecessor = origin.finish()?;
    let twins = [socket.twin(), admin_twin(&admin_socket)];
    let twins = twins.into_iter().collect::<io::Result<_>>().map_err(|error| StartError::System(error.to_string()))?;
    let admin = admin::start_on(admin_socket, &address, probes(&runtime))
        .map_err(|error| StartError::Listen(error.to_string()))?;
    let address = admin.address().clone();
    let door = Arc::new(Door::new(twins, admin));
    Ok(Prepared {
        runtime,
        config,
        path: path.to_owned(),
        data,
        socket,
        door,
        admin: address,
        predecessor,
        signals,
        limits,
        usage,
    })
}

/// Who is told of each request.
fn observers(config: &Config, metrics: &Metrics) -> Result<Observers, StartError> {
    let refuse = |error: io::Error| StartError::Access { access: config.log.access.clone(), error };
    let destination = Destination::read(&config.log.access).map_err(io::Error::other).map_err(refuse)?;
    Ok(Observers {
        access: AccessLog::open(&destination, metrics.access_lines()).map_err(refuse)?,
        #[cfg(feature = "otlp")]
        traces: collector::start(metrics.spans()),
    })
}

fn admin_twin(socket: &AdminSocket) -> io::Result<Listening> {
    Ok(match socket {
        AdminSocket::Tcp(listener) => Listening::Tcp(listener.try_clone()?),
        AdminSocket::Unix(listener, _) => Listening::Unix(listener.try_clone()?, None),
    })
}

impl Prepared {
    /// URL of the data listener.
    pub fn data_url(&self) -> String {
        let scheme = if self.config.listen.tls.certificates.is_empty() { "http" } else { "https" };
        if self.data.starts_with("unix:") { self.data.clone() } else { format!("{scheme}://{}", self.data) }
    }

    /// Address of the admin listener.
    pub fn admin_address(&self) -> &AdminAddress {
        &self.admin
    }

    /// What survives a reload: for tests that swap snapshots beside live calls.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Serves until a signal ends it, or another process takes over. Returns once every call is answered or its time is up, and
    /// the record is on disk.
    ///
    /// # Errors
    /// The data listener's socket cannot be used after all.
    pub fn run(self) -> Result<(), StartError> {
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
        let (leaving, left) = watch::channel(None);
        let keeper = Arc::new(Keeper::new(Arc::clone(&self.runtime)));
        let gateway = Arc::new(Gateway::new(Arc::clone(&self.runtime)));
        let open = self.runtime.metrics.connections().clone();
        let admission = Admission::new(self.limits.connections_max);
        let delay = Arc::clone(&self.runtime.delay);
        let edge = Edge::new(gateway, keeper, admission, delay, open);
        let mut service = Service::new("data".into(), Lasting::new(edge));
        let (socket, mode, file) = self.socket.into_parts()?;
        let listener = match (self.data.strip_prefix("unix:"), mode) {
            (Some(path), Some(mode)) => ListenerConfig::uds(path).permissions(Permissions::from_mode(mode)),
            _ => ListenerConfig::tcp(&self.data),
        };
        // The gate reads into its own buffer; Pingora's would take 64 KiB of every connection.
        service.add_listener(listener.l4_buffer(L4BufferSettings::default().read(0)));

        let reload = reload::Reload {
            runtime: Arc::clone(&self.runtime),
            first: self.config.clone(),
            path: self.path,
            limits: self.limits,
        };
        let attendant = Attendant {
            runtime: Arc::clone(&self.runtime),
            door: Arc::clone(&self.door),
            wishes: self.signals.wishes(),
            usage: Arc::clone(&self.usage),
            leaving,
        };
        let opening = Opening {
            reload,
            signals: self.signals,
            attendant,
            predecessor: self.predecessor,
            state_directory: PathBuf::from(&self.config.state.directory),
            data: self.data.clone(),
        };
        let watch = shutdown::Watch::new(
            opening.signals.end(),
            left.clone(),
            Arc::clone(&self.runtime),
            Arc::clone(&self.door),
            drain,
        );
        let opened: Opened = Box::new(move || opening.done());
        let address = self.data.strip_prefix("unix:").unwrap_or(&self.data).to_owned();
        server.add_service(Porter::new(service, address, socket, &self.door, opened));
        let _seconds = reload::Seconds::start(Arc::clone(&self.runtime), Arc::clone(&self.usage));
        let indexer = self.config.audit.index.then(|| index(Path::new(&self.config.audit.directory))).flatten();
        tracing::info!(data = %self.data, admin = %self.admin, version = env!("CARGO_PKG_VERSION"), "serving");
        server.run(RunArgs { shutdown_signal: Box::new(watch) });
        if let Some(file) = file.filter(|_| left.borrow().is_some()) {
            file.leave();
        }
        shutdown::close(&self.runtime, &self.door);
        self.usage.save();
        drop(indexer);
        Ok(())
    }
}

/// The thread that keeps the index of the record. Without it, calls are recorded as ever.
fn index(records: &Path) -> Option<Indexer> {
    let started = Indexer::start(records);
    started.inspect_err(|error| tracing::error!(%error, "the record is not indexed: no thread")).ok()
}

/// What the admin listener asks.
fn probes(runtime: &Arc<Runtime>) -> Probes {
    let metrics = Arc::clone(runtime);
    let readiness = Arc::clone(runtime);
    Probes {
        metrics: Box::new(move || metrics.render_metrics()),
        readiness: Box::new(move || readiness::of(&readiness)),
    }
}
