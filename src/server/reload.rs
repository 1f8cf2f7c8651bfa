//! How does a new configuration come into force?
//!
//! On SIGHUP the file is compiled on a thread of low priority and swapped in whole. One with mistakes changes nothing;
//! what needs a restart is named.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::config::model::Config;
use crate::runtime::Runtime;

use super::Compiled;
use super::StartError;
use super::limits::Limits;
use super::notify;
use super::sandbox;
use super::signals::Reloaded;
use super::signals::Signals;
use super::signals::Wish;
use super::usage::Usage;

/// How often what was used is written down.
const USAGE_SECONDS: u64 = 5;
/// How much less the reloading thread matters than those that serve.
const NICE: i32 = 10;

/// What a reload works with.
pub(super) struct Reload {
    /// Where the new snapshot goes.
    pub(super) runtime: Arc<Runtime>,
    /// The configuration the process started with.
    pub(super) first: Config,
    /// The configuration's main file.
    pub(super) path: PathBuf,
    /// What this process can hold open.
    pub(super) limits: Limits,
}

impl Reload {
    /// Starts the thread that reloads on each wish. It ends with the process.
    pub(super) fn start(self, signals: &Signals) {
        let Some(wished) = signals.wished() else { return };
        let spawned = thread::Builder::new().name("reload".into()).spawn(move || {
            // Without the right to step back, reloading merely competes with serving.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
            while let Ok(Wish(answer)) = wished.recv() {
                let outcome = self.once();
                if let Some(answer) = answer {
                    // Who asked may have gone meanwhile.
                    let _ = answer.try_send(outcome);
                }
            }
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "SIGHUP will not reload: no thread");
        }
    }

    fn once(&self) -> Result<Reloaded, String> {
        notify::reloading();
        let active = self.runtime.active();
        let revision = active.snapshot.revision;
        let compiled =
            super::compile(&self.path, revision + 1, Some(&active.snapshot)).map_err(|error| error.to_string());
        match compiled.and_then(|compiled| self.fit(compiled).map_err(|error| error.to_string())) {
            Ok(compiled) => {
                let reloaded = self.adopt(compiled);
                notify::ready(reloaded.revision);
                Ok(reloaded)
            }
            Err(mut error) => {
                if let Some(hint) = sandbox::hint(&error) {
                    error = format!("{}\n{hint}", error.trim_end());
                }
                self.runtime.metrics.config_failed();
                tracing::error!(
                    revision,
                    "the configuration has mistakes and was not loaded; the present one stays\n{error}"
                );
                notify::not_reloaded(revision);
                Err(error)
            }
        }
    }

    /// What start takes care of beside compiling, for a configuration that comes later.
    fn fit(&self, mut compiled: Compiled) -> Result<Compiled, StartError> {
        self.limits.check(&compiled.loaded.config.listen)?;
        if compiled.snapshot.keyring.is_none() && !self.runtime.has_own_keyring() {
            compiled.snapshot.keyring = Some(super::own_keys::keyring(Path::new(&self.first.state.directory))?);
        }
        Ok(compiled)
    }

    fn adopt(&self, compiled: Compiled) -> Reloaded {
        let warnings = compiled.warnings();
        let Compiled { loaded, snapshot, .. } = compiled;
        let revision = snapshot.revision;
        let mut notes = String::new();
        for key in needs_restart(&self.first, &loaded.config) {
            tracing::warn!(key, "changed, and takes effect only after a restart");
            notes.push_str(&format!("`{key}` changed, and takes effect only after a restart\n"));
        }
        if !warnings.is_empty() {
            tracing::warn!("{warnings}");
            notes.push_str(&warnings);
        }
        self.runtime.adopt(snapshot);
        tracing::info!(revision, "configuration reloaded");
        Reloaded { revision, notes }
    }
}

/// Keys whose change a reload cannot bring into force.
fn needs_restart(first: &Config, now: &Config) -> Vec<&'static str> {
    let changed = [
        ("listen.data", first.listen.data != now.listen.data),
        ("listen.admin", first.listen.admin != now.listen.admin),
        ("listen.threads", first.listen.threads != now.listen.threads),
        ("listen.connections_max", first.listen.connections_max != now.listen.connections_max),
        ("listen.drain_timeout_ms", first.listen.drain_timeout_ms != now.listen.drain_timeout_ms),
        ("state.directory", first.state.directory != now.state.directory),
        ("audit", first.audit != now.audit),
        ("log.format", first.log.format != now.log.format),
        ("log.access", first.log.access != now.log.access),
        ("sandbox.enabled", first.sandbox != now.sandbox),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
}

/// The thread that does what is due each second. It ends with the process.
pub(super) struct Seconds;

impl Seconds {
    /// Writes the counts of coalesced refusals, and every few seconds what was used; sees whether a predecessor has let go of the
    /// record.
    pub(super) fn start(runtime: Arc<Runtime>, usage: Arc<Usage>) -> Self {
        let mut was_alone = runtime.audit.settle();
        let spawned = thread::Builder::new().name("seconds".into()).spawn(move || {
            for second in 1_u64.. {
                thread::sleep(Duration::from_secs(1));
                if second.is_multiple_of(USAGE_SECONDS) {
                    usage.save();
                } else {
                    usage.sweep_if_full();
                }
                runtime.audit.flush_coalesced(clock::now_micros());
                let is_alone = runtime.audit.settle();
                if is_alone && !was_alone {
                    tracing::info!("the process before this one has ended: the record is this one's alone");
                }
                was_alone = is_alone;
            }
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "counts of refused requests will be late: no thread");
        }
        Self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reload_cannot_change_is_named() {
        let first = Config::default();
        let mut now = first.clone();
        now.listen.data = "127.0.0.1:1".into();
        now.audit.segment_bytes_max = 1;
        now.listen.body_bytes_max = 1;
        assert_eq!(needs_restart(&first, &now), ["listen.data", "audit"]);
        assert_eq!(needs_restart(&first, &first), Vec::<&str>::new());
    }
}
