//! How much can this process hold open?

use rustix::process::Resource;
use rustix::process::Rlimit;

use crate::config::model::Listen;

use super::StartError;

/// Descriptors kept for files, listeners, health checks and the admin listener.
const RESERVED: u64 = 128;
/// Connections the gateway takes by default, where the descriptor limit allows.
const CONNECTIONS_MAX: u64 = 20_000;
/// Event streams the gateway takes by default, where the descriptor limit allows.
const STREAMS_MAX: u64 = 10_000;

/// Numbers that fit the descriptor limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections or streams that fit.
    fits: u64,
    /// Connections of clients.
    pub(super) connections_max: usize,
    /// Event streams.
    pub(super) streams_max: usize,
}

impl Limits {
    /// Raises the soft descriptor limit to the hard one and derives the numbers from it. Defaults shrink to what fits;
    /// a configured number that does not fit is refused.
    ///
    /// # Errors
    /// The number, what fits, and how to raise it.
    pub(super) fn raise(listen: &Listen) -> Result<Self, StartError> {
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let descriptors = match rustix::process::setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(_) => limit.current,
        };
        // A stream or a call holds one descriptor towards each side.
        let fits = descriptors.unwrap_or(u64::MAX).saturating_sub(RESERVED) / 2;
        Self::within(fits, listen)
    }

    /// Whether the numbers of another configuration fit as well: a reload can change some of them.
    ///
    /// # Errors
    /// As [`Limits::raise`].
    pub(super) fn check(&self, listen: &Listen) -> Result<(), StartError> {
        Self::within(self.fits, listen).map(|_| ())
    }

    fn within(fits: u64, listen: &Listen) -> Result<Self, StartError> {
        Ok(Self {
            fits,
            connections_max: fitting("connections_max", listen.connections_max, CONNECTIONS_MAX, fits)?,
            streams_max: fitting("streams_max", listen.streams_max, STREAMS_MAX, fits)?,
        })
    }
}

fn fitting(key: &str, configured: Option<usize>, default: u64, fits: u64) -> Result<usize, StartError> {
    match configured {
        Some(wanted) if wanted as u64 > fits => Err(StartError::System(format!(
            "`listen.{key} = {wanted}` does not fit the descriptor limit, which allows {fits}; raise it (`ulimit -Hn`, `LimitNOFILE=`) or lower the number"
        ))),
        Some(wanted) => Ok(wanted),
        None => Ok(usize::try_from(default.min(fits)).unwrap_or(usize::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_shrink_to_what_fits_and_configured_numbers_do_not() {
        assert_eq!(fitting("streams_max", None, 10_000, 448).unwrap(), 448);
        assert_eq!(fitting("streams_max", None, 10_000, 1_000_000).unwrap(), 10_000);
        assert_eq!(fitting("streams_max", Some(448), 10_000, 448).unwrap(), 448);
        let refused = fitting("streams_max", Some(449), 10_000, 448).unwrap_err().to_string();
        assert!(refused.contains("allows 448"), "{refused}");
    }
}
