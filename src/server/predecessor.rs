//! How does a gateway take over from the one that runs?
//!
//! It is given the listening sockets, opens the record beside the other, begins to accept, and only then says so. Until
//! then the other serves as if nothing happened, and goes on so if this one fails.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use super::StartError;
use super::control::Answer;
use super::control::Ask;
use super::control::ControlError;
use super::control::Talk;
use super::control::unexpected;
use super::sockets::Inherited;
use super::sockets::Listening;

/// How long the other may take to hand out its sockets: its record has to be written up to there.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// The gateway that still serves.
#[derive(Debug)]
pub(super) struct Predecessor {
    talk: Talk,
    state_directory: PathBuf,
}

impl Predecessor {
    /// Asks the gateway with this state directory for its sockets.
    pub(super) fn ask(state_directory: &Path) -> Result<(Self, Inherited), StartError> {
        let refuse = |error: ControlError| StartError::TakeOver(error.to_string());
        let mut talk = Talk::with(state_directory).map_err(refuse)?;
        let sockets = talk.ask_for(Ask::TakeOver, ANSWER_TIME_MAX).map_err(refuse)?;
        let sockets = sockets.into_iter().map(Listening::inherited).collect::<Result<Vec<_>, _>>();
        let sockets = sockets.map_err(|error| refuse(error.into()))?;
        Ok((Self { talk, state_directory: state_directory.to_owned() }, Inherited::from_sockets(sockets)))
    }

    /// Tells it that this gateway serves. Whether it lets go, or is no longer there.
    pub(super) fn relieve(mut self) -> bool {
        let error = match self.talk.ask(Ask::Serving, ANSWER_TIME_MAX) {
            Ok(Answer::Leaving) => return true,
            Ok(other) => unexpected(&other),
            Err(error) => error,
        };
        let is_gone = matches!(Talk::with(&self.state_directory), Err(ControlError::Absent { .. }));
        tracing::error!(%error, is_gone, "the running gateway did not let this one take over");
        is_gone
    }
}
