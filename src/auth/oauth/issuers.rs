//! Which issuers' keys are looked after?
//!
//! Made once per process, and given the issuers of a new configuration after every reload: keys that are known stay known.
//! They are fetched by a thread of their own, which there is only where there are issuers.

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use tokio::runtime::Builder;
use tokio::runtime::Handle;
use tokio::runtime::Runtime;

use crate::auth::oauth::Oauth;
use crate::auth::oauth::fetch::Fetch;
use crate::auth::oauth::source::Figures;
use crate::auth::oauth::source::Source;
use crate::auth::oauth::tokens::Tokens;
use crate::net::Client;

/// Time between two looks for keys that are due.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// All issuers at run time, across reloads.
#[derive(Default)]
pub struct Issuers {
    current: Arc<Mutex<Vec<Arc<Source>>>>,
    running: OnceLock<Option<Running>>,
}

struct Running {
    keeper: Option<Runtime>,
    fetch: Arc<dyn Fetch>,
}

impl Issuers {
    /// Looks after the issuers of `oauth` from now on. Does not wait for the network.
    pub fn adopt(&self, oauth: &Oauth) -> Tokens {
        if oauth.issuers().is_empty() {
            self.sources().clear();
            return Tokens::default();
        }
        let running = self.running.get_or_init(|| {
            Running::start(&self.current)
                .map_err(|error| {
                    tracing::error!(%error, "keys of issuers cannot be fetched: no thread");
                })
                .ok()
        });
        let Some((keeper, fetch)) = running.as_ref().and_then(Running::parts) else { return Tokens::default() };
        let mut current = self.sources();
        let sources: Vec<Arc<Source>> = oauth
            .issuers()
            .iter()
            .map(|issuer| {
                let before = current.iter().find(|source| source.name == issuer.name);
                match before {
                    Some(same) if same.place == issuer.place && same.upkeep == issuer.upkeep => Arc::clone(same),
                    _ => {
                        let (place, upkeep) = (issuer.place.clone(), issuer.upkeep.clone());
                        Arc::new(Source::new(
                            &issuer.name,
                            place,
                            upkeep,
                            Arc::clone(&fetch),
                            before.map(|before| &**before),
                        ))
                    }
                }
            })
            .collect();
        for source in &sources {
            source.keep_up(&keeper, Instant::now());
        }
        current.clone_from(&sources);
        Tokens::new(sources, keeper)
    }

    /// What is known of each issuer's keys.
    pub fn figures(&self, now: Instant) -> Vec<Figures> {
        self.sources().iter().map(|source| source.figures(now)).collect()
    }

    fn sources(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Source>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn start(current: &Arc<Mutex<Vec<Arc<Source>>>>) -> io::Result<Self> {
        let keeper = Builder::new_multi_thread().worker_threads(1).thread_name("issuer-keeper").enable_all().build()?;
        keeper.spawn(keep_up_for_ever(Arc::clone(current)));
        Ok(Self { keeper: Some(keeper), fetch: Arc::new(Client::new()) })
    }

    fn parts(&self) -> Option<(Handle, Arc<dyn Fetch>)> {
        Some((self.keeper.as_ref()?.handle().clone(), Arc::clone(&self.fetch)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A runtime must not be waited for inside another one, and there is nothing here worth waiting for.
        if let Some(keeper) = self.keeper.take() {
            keeper.shutdown_background();
        }
    }
}

async fn keep_up_for_ever(current: Arc<Mutex<Vec<Arc<Source>>>>) {
    let keeper = Handle::current();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let sources = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for source in &sources {
            source.keep_up(&keeper, Instant::now());
        }
    }
}
