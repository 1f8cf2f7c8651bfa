//! Who calls?

use std::sync::Arc;

/// An authenticated caller, or the one caller of public servers who showed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Stable identity: `key:NAME`, or `public`. Sessions are bound to it, so that rotating a key does not cut them.
    pub id: Arc<str>,
    /// Name of the key that was presented; `None` for the public caller.
    pub key: Option<Arc<str>>,
    /// The key's team: a label.
    pub team: Option<Arc<str>>,
    /// The agent that uses the key.
    pub agent: Option<Arc<str>>,
}

impl Principal {
    /// The caller who showed no credential; reaches public servers only.
    pub fn public() -> Self {
        Self { id: "public".into(), key: None, team: None, agent: None }
    }
}
