//! How do commands and the next process speak to a running gateway?
//!
//! Over `control.sock` in the state directory, which only the gateway's user may open. One question a line, in JSON, one
//! answer. `take_over` is answered with the listening sockets; the gateway goes on as before until its successor says that it
//! serves, and if it never says so, for good.

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::io::Read;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use serde::Deserialize;
use serde::Serialize;

/// Name of the socket in the state directory.
const SOCKET: &str = "control.sock";
/// Bytes of one message: the mistakes of a configuration may be many.
const MESSAGE_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of the text in an answer.
const TEXT_BYTES_MAX: usize = 512 * 1024;
/// Descriptors handed over at once: those of the data and the admin listener are two.
const HANDED_MAX: usize = 4;
/// How long a reload may take.
pub(super) const RELOAD_TIME_MAX: Duration = Duration::from_secs(120);
/// From the handing out of the sockets to the successor's word that it serves.
pub(super) const TAKE_OVER_TIME_MAX: Duration = Duration::from_secs(60);

/// A question to a running gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ask {
    /// Which process is it?
    Status,
    /// Load the configuration again.
    Reload,
    /// Hand over the listening sockets, and let the record be shared.
    TakeOver,
    /// The successor serves.
    Serving,
    /// Hand over where the log goes.
    Log,
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Status(Status),
    /// The configuration is in force; what an operator should still know.
    Reloaded {
        revision: u64,
        notes: String,
    },
    /// What was asked for comes with this.
    Handed,
    /// The gateway lets its successor serve.
    Leaving,
    /// It cannot be done, and nothing has changed.
    Refused(String),
}

/// Which process a gateway is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its id.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its version.
    pub version: String,
    /// Device and inode of the program it runs.
    pub program: Option<(u64, u64)>,
    /// Where the service manager wants to hear of it.
    pub notify_socket: Option<String>,
    /// How often the service manager wants to.
    pub watchdog_usec: Option<String>,
}

/// Why a running gateway did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody is there.
    #[error("no running gateway answers at `{}`: {error}; is it running, with this `state.directory`, and are you its user?", path.display())]
    Absent {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// It did not answer as it should.
    #[error("the running gateway did not answer: {0}")]
    Broken(#[from] io::Error),
}

/// The control socket's path.
pub(super) fn path(state_directory: &Path) -> PathBuf {
    state_directory.join(SOCKET)
}

/// One side of a conversation.
#[derive(Debug)]
pub(super) struct Talk(BufReader<UnixStream>);

impl Talk {
    /// Speaks to the gateway with this state directory.
    pub(super) fn with(state_directory: &Path) -> Result<Self, ControlError> {
        let path = path(state_directory);
        UnixStream::connect(&path).map(Self::over).map_err(|error| ControlError::Absent { path, error })
    }

    pub(super) fn over(stream: UnixStream) -> Self {
        Self(BufReader::new(stream))
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(&mut self, ask: Ask, time_max: Duration) -> Result<Answer, ControlError> {
        self.say(&ask)?;
        answer_of(self.hear(time_max)?)
    }

    /// Asks for descriptors.
    pub(super) fn ask_for(&mut self, ask: Ask, time_max: Duration) -> Result<Vec<OwnedFd>, ControlError> {
        self.say(&ask)?;
        self.0.get_ref().set_read_timeout(Some(time_max))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDED_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut text = vec![0; 64 * 1024];
        // No byte of the answer has been read: the descriptors come with its first.
        let received = rustix::net::recvmsg(
            self.0.get_ref(),
            &mut [IoSliceMut::new(&mut text)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let received = received.map_err(io::Error::from)?;
        let handed = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let handed: Vec<OwnedFd> = handed.flatten().collect();
        text.truncate(received.bytes);
        if !text.ends_with(b"\n") {
            // A refusal may be longer than that.
            self.0.by_ref().take(MESSAGE_BYTES_MAX).read_until(b'\n', &mut text)?;
        }
        match answer_of(serde_json::from_slice(&text).map_err(io::Error::other)?)? {
            Answer::Handed if !handed.is_empty() => Ok(handed),
            other => Err(unexpected(&other)),
        }
    }

    /// Answers with descriptors.
    pub(super) fn hand(&mut self, handed: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDED_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(handed)) {
            return Err(io::Error::other("too many descriptors to hand over"));
        }
        let line = line_of(&Answer::Handed)?;
        let stream = self.0.get_ref();
        let sent = rustix::net::sendmsg(stream.as_fd(), &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL)?;
        if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Sends one message.
    pub(super) fn say(&mut self, message: &impl Serialize) -> io::Result<()> {
        let line = line_of(message)?;
        self.0.get_mut().write_all(&line)
    }

    /// The next message of the other side.
    pub(super) fn hear<T: for<'d> Deserialize<'d>>(&mut self, time_max: Duration) -> io::Result<T> {
        self.0.get_ref().set_read_timeout(Some(time_max))?;
        let mut line = Vec::new();
        self.0.by_ref().take(MESSAGE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_slice(&line).map_err(io::Error::other)
    }

    /// The process on the other side, as the system knows it.
    pub(super) fn peer(&self) -> io::Result<u32> {
        let credentials = rustix::net::sockopt::socket_peercred(self.0.get_ref())?;
        Ok(credentials.pid.as_raw_nonzero().get().unsigned_abs())
    }
}

/// A refusal with as much of its reason as fits a message.
pub(super) fn refused(reason: &str) -> Answer {
    Answer::Refused(shortened(reason))
}

/// As much of a text as fits a message.
pub(super) fn shortened(text: &str) -> String {
    let mut end = TEXT_BYTES_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let kept = text.get(..end).unwrap_or_default();
    if kept.len() < text.len() { format!("{kept}…") } else { kept.to_owned() }
}

pub(super) fn unexpected(answer: &Answer) -> ControlError {
    io::Error::other(format!("it answered something else: {answer:?}")).into()
}

fn answer_of(answer: Answer) -> Result<Answer, ControlError> {
    match answer {
        Answer::Refused(reason) => Err(ControlError::Refused(reason)),
        answer => Ok(answer),
    }
}

fn line_of(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message).map_err(io::Error::other)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (Talk, Talk) {
        let (one, other) = UnixStream::pair().unwrap();
        (Talk::over(one), Talk::over(other))
    }

    #[test]
    fn sockets_come_with_the_answer_and_still_listen() {
        let (mut new, mut old) = pair();
        let sockets = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let addresses = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(old.hear::<Ask>(RELOAD_TIME_MAX).unwrap(), Ask::TakeOver);
                old.hand(&sockets.each_ref().map(AsFd::as_fd)).unwrap();
                assert_eq!(old.hear::<Ask>(RELOAD_TIME_MAX).unwrap(), Ask::Serving);
                old.say(&Answer::Leaving).unwrap();
            });
            let taken = new.ask_for(Ask::TakeOver, RELOAD_TIME_MAX).unwrap();
            let taken: Vec<TcpListener> = taken.into_iter().map(TcpListener::from).collect();
            assert_eq!(addresses.to_vec(), taken.iter().map(|socket| socket.local_addr().unwrap()).collect::<Vec<_>>());
            assert!(matches!(new.ask(Ask::Serving, RELOAD_TIME_MAX), Ok(Answer::Leaving)));
        });
        assert_eq!(new.peer().unwrap(), std::process::id());
    }

    #[test]
    fn a_refusal_arrives_however_long_it_is() {
        let (mut new, mut old) = pair();
        let reason = "é".repeat(TEXT_BYTES_MAX);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                old.hear::<Ask>(RELOAD_TIME_MAX).unwrap();
                old.say(&refused(&reason)).unwrap();
            });
            let error = new.ask_for(Ask::TakeOver, RELOAD_TIME_MAX).unwrap_err().to_string();
            assert!(error.len() > TEXT_BYTES_MAX - 8 && error.ends_with("é…"));
        });
    }

    #[test]
    fn what_is_no_message_or_ends_is_an_error() {
        let (mut new, old) = pair();
        drop(old);
        assert!(matches!(new.hear::<Ask>(RELOAD_TIME_MAX), Err(error) if error.kind() == io::ErrorKind::UnexpectedEof));
        let (mut new, mut old) = pair();
        old.say(&"other").unwrap();
        assert!(new.hear::<Ask>(RELOAD_TIME_MAX).is_err());
        assert!(new.hear::<Ask>(Duration::from_millis(10)).is_err(), "and waiting has an end");
    }
}
