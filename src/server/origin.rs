//! What does a gateway begin with: nothing, sockets of systemd, or those of the gateway it follows?

use std::path::Path;

use crate::admin::AdminAddress;
use crate::admin::AdminSocket;

use super::Compiled;
use super::StartError;
use super::predecessor::Predecessor;
use super::sockets::Inherited;
use super::sockets::Listening;

/// What was handed in.
#[derive(Debug, Default)]
pub struct Origin {
    inherited: Inherited,
    predecessor: Option<Predecessor>,
}

impl Origin {
    /// The sockets that systemd passed, if any. Changes the environment: to be called before there are threads.
    ///
    /// # Errors
    /// Something was passed that is no stream socket.
    pub fn from_environment() -> Result<Self, StartError> {
        Inherited::from_environment().map(|inherited| Self { inherited, predecessor: None })
    }

    /// The sockets of the gateway that runs with the same state directory, which goes on until this one serves.
    ///
    /// # Errors
    /// Nobody answers there, or not as asked.
    pub fn taking_over(compiled: &Compiled) -> Result<Self, StartError> {
        let state_directory = Path::new(&compiled.loaded.config.state.directory);
        let (predecessor, inherited) = Predecessor::ask(state_directory)?;
        Ok(Self { inherited, predecessor: Some(predecessor) })
    }

    /// Whether another process writes to the record.
    pub(super) fn is_beside(&self) -> bool {
        self.predecessor.is_some()
    }

    /// The socket for the data listener: one that was handed in, or bound now.
    pub(super) fn data(&mut self, address: &str) -> Result<Listening, StartError> {
        self.inherited.take(address).map_or_else(|| Listening::bind(address), Ok)
    }

    /// The same for the admin listener.
    pub(super) fn admin(&mut self, address: &AdminAddress) -> Result<AdminSocket, StartError> {
        let refuse = |reason| StartError::Listen(format!("the admin listener cannot use `{address}`: {reason}"));
        self.inherited.take_admin(address).map_or_else(|| AdminSocket::bind(address).map_err(refuse), Ok)
    }

    /// What was handed in and fits no listener: of systemd's that is a mistake, since nobody would ever accept there.
    pub(super) fn finish(self) -> Result<Option<Predecessor>, StartError> {
        let left = self.inherited.left();
        match (&self.predecessor, left.as_slice()) {
            (_, []) => Ok(self.predecessor),
            (Some(_), left) => {
                tracing::warn!(?left, "listened there before, and no longer, as the configuration now says");
                Ok(self.predecessor)
            }
            (None, left) => Err(StartError::Listen(format!(
                "a socket was passed for {left:?}, where neither `listen.data` nor `listen.admin` is: make them equal, letter by letter"
            ))),
        }
    }
}
