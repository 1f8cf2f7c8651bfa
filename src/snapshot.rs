//! What follows from the configuration?
//!
//! A [`Snapshot`] is a pure function of the configuration: immutable, compiled whole, swapped whole. A request loads
//! it once and keeps it. What must survive a reload is not here but in `runtime`.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::Keys;
use crate::auth::Oauth;
use crate::config::model::Config;
use crate::config::model::DenialForm;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::policy::Policy;
use crate::principal::Principal;
use crate::quota::Quotas;
use crate::seal;
use crate::seal::Keyring;
use crate::transport::admission;
use crate::transport::arrival::Front;
use crate::transport::body;
use crate::transport::gate_io;
use crate::transport::head;
use crate::transport::origin::OriginRules;
use crate::transport::pace::Pace;
use crate::transport::route::Routes;
use crate::upstream::Plans;

/// For how long a request body may come as slowly as it likes.
const BODY_PATIENCE: Duration = Duration::from_secs(5);

/// The compiled configuration.
pub struct Snapshot {
    /// Which configuration this is, counted from 1 by the process that loaded it.
    pub revision: u64,
    /// The revision as records carry it.
    pub revision_text: Arc<str>,
    /// SHA-256 of the configuration's sources, in hex.
    pub sha256: String,
    /// Which paths lead to which server.
    pub routes: Routes,
    /// Which hosts and origins are ours.
    pub origins: OriginRules,
    /// Who stands in front of the gateway, and how it is reached.
    pub front: Arc<Front>,
    /// Who holds which key.
    pub keys: Keys,
    /// Whom issuers of tokens vouch for.
    pub oauth: Oauth,
    /// Who may do what.
    pub policy: Policy,
    /// A candidate's rules (`policy.shadow_file`), which are asked beside these and decide nothing. Callers are known by the keys in
    /// force; what a key may do is what the candidate says.
    pub shadow: Option<Policy>,
    /// How much they may do.
    pub quotas: Quotas,
    /// How each server is reached.
    pub plans: Plans,
    /// The configured sealing keys; `None`: the runtime's own.
    pub keyring: Option<Keyring>,
    /// Limits of a connection and of one request head on it.
    pub gate: gate_io::Limits,
    /// Limits of one request body.
    pub body: body::Limits,
    /// Bytes held for clients and servers, all together.
    pub buffered_bytes_max: usize,
    /// For how long work may wait for a worker thread.
    pub queue_delay_max: Duration,
    /// Event streams open at once, where configured.
    pub streams_max: Option<usize>,
    /// How a refused tool call is answered.
    pub denial_form: DenialForm,
    /// Whether clients are told which constraint refused a call.
    pub explain_to_client: bool,
    /// Configured servers, each with the tool names its allow list spells out.
    pub servers: Vec<(Arc<str>, Vec<String>)>,
    /// The caller who shows nothing.
    pub public: Arc<Principal>,
}

impl Snapshot {
    /// Compiles a configuration and the files it names, reporting every mistake into `problems`; the result serves only if
    /// none is an error. Patterns of `previous` are reused by their text; the outcome is the same as without it.
    pub fn compile(config: &Config, source: &Source, previous: Option<&Self>, problems: &mut Problems) -> Self {
        let listen = &config.listen;
        check_limits(config, problems);
        let snapshot = Self {
            revision: source.revision,
            revision_text: source.revision.to_string().into(),
            sha256: source.sha256.clone(),
            routes: Routes::compile(config, problems),
            origins: OriginRules::compile(config, problems),
            front: Arc::new(Front::compile(config, previous.map(|previous| &*previous.front), problems)),
            keys: Keys::compile(config, problems),
            oauth: Oauth::compile(config, problems),
            policy: Policy::compile_reusing(config, previous.map(|previous| &previous.policy), problems),
            shadow: None,
            quotas: Quotas::compile(config),
            plans: Plans::compile(config, problems),
            keyring: compile_keyring(config, problems),
            gate: gate_io::Limits {
                address: admission::Limits {
                    per_address_max: listen.connections_per_address_max,
                    accepts_per_second_max: listen.accepts_per_address_max,
                },
                head: head::Limits {
                    count_max: listen.header_count_max,
                    block_bytes_max: listen.header_block_bytes_max,
                    line_bytes_max: listen.header_line_bytes_max,
                    target_bytes_max: listen.target_bytes_max,
                },
                timeout: Duration::from_millis(listen.header_timeout_ms),
                idle: Duration::from_millis(listen.keepalive_timeout_ms),
                write: Pace {
                    patience: Duration::from_millis(listen.write_timeout_ms),
                    bytes_per_second_min: listen.answer_bytes_per_second_min,
                },
                requests_max: listen.requests_per_connection_max,
            },
            body: body::Limits {
                bytes_max: listen.body_bytes_max,
                timeout: Duration::from_millis(listen.body_timeout_ms),
                pace: Pace { patience: BODY_PATIENCE, bytes_per_second_min: listen.body_bytes_per_second_min },
            },
            buffered_bytes_max: listen.buffered_bytes_max,
            queue_delay_max: Duration::from_millis(listen.queue_delay_ms_max),
            streams_max: listen.streams_max,
            denial_form: config.policy.denial_form,
            explain_to_client: config.policy.explain_to_client,
            servers: config
                .servers
                .iter()
                .map(|(name, server)| (name.as_str().into(), spelled_out(server.allowed_tools.as_deref())))
                .collect(),
            public: Arc::new(Principal::public()),
        };
        // Only of what is otherwise right can be told what has no effect.
        snapshot.policy.check_unused(config, problems);
        snapshot
    }
}

impl Snapshot {
    /// The server that a word of a path stands for in a workspace, `None` for `default`. It need not exist.
    pub fn server(&self, workspace: Option<&str>, word: &str) -> Arc<str> {
        let name = self.routes.server(workspace, word);
        self.plans.get(&name).map_or_else(|| Arc::from(&*name), |plan| Arc::clone(plan.name()))
    }
}

/// Which configuration a snapshot is made from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Its number in this process.
    pub revision: u64,
    /// SHA-256 of its files, in hex.
    pub sha256: String,
}

/// The names in an allow list that stand for themselves.
fn spelled_out(tools: Option<&[String]>) -> Vec<String> {
    tools.unwrap_or_default().iter().filter(|tool| !tool.contains('*')).cloned().collect()
}

/// Limits of zero would refuse everything, and limits without end none: both are mistakes.
fn check_limits(config: &Config, problems: &mut Problems) {
    let at = At::root().key("listen");
    let listen = &config.listen;
    let hour_ms = 3_600_000;
    let limits = [
        // Pingora itself gives up a silent connection after 60 seconds.
        ("header_timeout_ms", listen.header_timeout_ms, 55_000),
        ("header_count_max", listen.header_count_max as u64, 256),
        ("header_block_bytes_max", listen.header_block_bytes_max as u64, 1024 * 1024),
        ("header_line_bytes_max", listen.header_line_bytes_max as u64, 1024 * 1024),
        ("target_bytes_max", listen.target_bytes_max as u64, 1024 * 1024),
        ("body_timeout_ms", listen.body_timeout_ms, hour_ms),
        ("body_bytes_max", listen.body_bytes_max as u64, 256 * 1024 * 1024),
        ("body_bytes_per_second_min", listen.body_bytes_per_second_min.into(), 1 << 30),
        ("answer_bytes_per_second_min", listen.answer_bytes_per_second_min.into(), 1 << 30),
        ("buffered_bytes_max", listen.buffered_bytes_max as u64, 1 << 40),
        ("queue_delay_ms_max", listen.queue_delay_ms_max, 60_000),
        ("keepalive_timeout_ms", listen.keepalive_timeout_ms, hour_ms),
        ("write_timeout_ms", listen.write_timeout_ms, hour_ms),
        ("drain_timeout_ms", listen.drain_timeout_ms, hour_ms),
        ("threads", listen.threads.map_or(1, |threads| threads as u64), 1024),
        ("connections_max", listen.connections_max.map_or(1, |max| max as u64), 10_000_000),
        ("connections_per_address_max", listen.connections_per_address_max.map_or(1, |max| max as u64), 10_000_000),
        ("accepts_per_address_max", listen.accepts_per_address_max.into(), 1_000_000),
        ("requests_per_connection_max", listen.requests_per_connection_max, 1_000_000_000),
        ("streams_max", listen.streams_max.map_or(1, |max| max as u64), 10_000_000),
    ];
    for (key, value, most) in limits {
        if value == 0 || value > most {
            problems.error(
                &at.key(key),
                format!("`{value}` is out of range"),
                format!("write a number from 1 to {most}"),
            );
        }
    }
    // Requests may use three quarters of it.
    let needed = listen.body_bytes_max.div_ceil(3).saturating_mul(4);
    if listen.buffered_bytes_max < needed {
        problems.error(
            &at.key("buffered_bytes_max"),
            "there is no room for a single request of `body_bytes_max`",
            format!("write at least {needed}, or lower `body_bytes_max`"),
        );
    }
}

fn compile_keyring(config: &Config, problems: &mut Problems) -> Option<Keyring> {
    let texts = config.seal.keys.as_ref()?;
    let at = At::root().key("seal").key("keys");
    let mut keys = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match seal::parse_key(text.expose()) {
            Ok(key) => keys.push(key),
            Err(error) => problems.error(
                &at.index(index),
                error.to_string(),
                "write 32 random bytes in base64, as `portcullis keys seal` prints them",
            ),
        }
    }
    if keys.len() < texts.len() {
        return None;
    }
    Keyring::new(keys)
        .map_err(|error| problems.error(&at, error.to_string(), "write one to sixteen keys, or leave `seal.keys` out"))
        .ok()
}
