//! Which servers are running?
//!
//! Made once per process, and given new plans after every reload: what did not change keeps running, what changed
//! starts anew with what is known of its endpoints, what is gone is retired and ends with its last call. Health checks
//! and the sweep of idle connections run on a thread of their own, which lives as long as the process and never waits
//! for traffic.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;

use crate::upstream::dial::Dialer;
use crate::upstream::plan::Plans;
use crate::upstream::server::Upstream;

/// Time between two looks for connections that idled too long.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// All servers at run time, across reloads.
pub struct Upstreams {
    current: Arc<ArcSwap<Fleet>>,
    dialer: Arc<Dialer>,
    adopting: Mutex<()>,
    keeper: Option<Runtime>,
}

/// The servers of one configuration. Kept beside the snapshot it belongs to, so that a call judged by a snapshot is
/// sent by that snapshot's plan.
#[derive(Debug, Default)]
pub struct Fleet {
    servers: HashMap<Arc<str>, Arc<Upstream>>,
}

impl Fleet {
    /// A server, by its configured name.
    pub fn get(&self, server: &str) -> Option<&Arc<Upstream>> {
        self.servers.get(server)
    }

    /// All servers, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.servers.values()
    }
}

impl Upstreams {
    /// No servers yet. Reads the system's root certificates and starts the keeper's thread.
    pub fn new() -> io::Result<Self> {
        Self::dialling_with(Dialer::new())
    }

    pub(crate) fn dialling_with(dialer: Dialer) -> io::Result<Self> {
        let keeper =
            Builder::new_multi_thread().worker_threads(1).thread_name("upstream-keeper").enable_all().build()?;
        let current = Arc::new(ArcSwap::from_pointee(Fleet::default()));
        keeper.spawn(sweep_for_ever(Arc::clone(&current)));
        Ok(Self { current, dialer: Arc::new(dialer), adopting: Mutex::new(()), keeper: Some(keeper) })
    }

    /// Runs `plans` from now on: a server whose plan is unchanged goes on as it is. Does not wait for the network.
    pub fn adopt(&self, plans: &Plans) -> Arc<Fleet> {
        let _one_at_a_time = self.adopting.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = self.current();
        let Some(keeper) = self.keeper.as_ref().map(Runtime::handle) else {
            return previous;
        };
        let servers = plans.iter().map(|plan| {
            let before = previous.get(plan.name());
            let upstream = before.filter(|upstream| upstream.plan() == plan).cloned().unwrap_or_else(|| {
                let (plan, dialer, before) = (Arc::clone(plan), Arc::clone(&self.dialer), before.map(|known| &**known));
                Arc::new(Upstream::start(plan, dialer, keeper, before))
            });
            (Arc::clone(plan.name()), upstream)
        });
        let fleet = Arc::new(Fleet { servers: servers.collect() });
        self.current.store(Arc::clone(&fleet));
        let goes_on = |upstream: &Arc<Upstream>| {
            fleet.get(upstream.plan().name()).is_some_and(|current| Arc::ptr_eq(current, upstream))
        };
        previous.iter().filter(|upstream| !goes_on(upstream)).for_each(|upstream| upstream.retire());
        fleet
    }

    /// The servers of the last [`Self::adopt`].
    pub fn current(&self) -> Arc<Fleet> {
        self.current.load_full()
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        // A runtime must not be waited for inside another one, and there is nothing here worth waiting for.
        if let Some(keeper) = self.keeper.take() {
            keeper.shutdown_background();
        }
    }
}

async fn sweep_for_ever(current: Arc<ArcSwap<Fleet>>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let fleet = current.load_full();
        for endpoint in fleet.iter().flat_map(|upstream| upstream.endpoints()) {
            endpoint.pool.sweep();
        }
    }
}
