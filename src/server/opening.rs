//! What happens once connections are taken?
//!
//! A predecessor is told, then commands are answered, then the service manager hears of it: whoever waits for that word may
//! end, start or ask anything.

use std::path::PathBuf;
use std::sync::Arc;

use super::attendant::Attendant;
use super::notify;
use super::predecessor::Predecessor;
use super::reload::Reload;
use super::signals::Signals;

/// What is due then.
pub(super) struct Opening {
    pub(super) reload: Reload,
    pub(super) signals: Signals,
    pub(super) attendant: Attendant,
    pub(super) predecessor: Option<Predecessor>,
    pub(super) state_directory: PathBuf,
    pub(super) data: String,
}

impl Opening {
    /// Called by the listening service when it accepts.
    pub(super) fn done(self) {
        let follows = self.predecessor.is_some();
        if let Some(predecessor) = self.predecessor
            && !predecessor.relieve()
        {
            tracing::error!("two gateways must not go on side by side: this one ends");
            self.attendant.leaving.send_replace(Some(0));
            return;
        }
        if follows {
            self.attendant.usage.take_over();
        }
        let leaving = self.attendant.leaving.subscribe();
        let runtime = Arc::clone(&self.reload.runtime);
        let revision = self.reload.runtime.revision();
        self.reload.start(&self.signals);
        self.attendant.start(&self.state_directory, follows);
        notify::ready(revision);
        notify::watch_over(&self.data, runtime, leaving);
    }
}
