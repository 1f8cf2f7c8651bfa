//! Where do the listening sockets come from?
//!
//! From systemd (`LISTEN_FDS`), from the gateway that this one follows, or they are bound here. A socket that was handed in is
//! used where its address is configured. It listens all the while, so that clients wait in its queue and none is refused.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::IntoRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use listenfd::ListenFd;

use crate::admin::AdminAddress;
use crate::admin::AdminSocket;
use crate::disk::socket;
use crate::disk::socket::SocketFile;

use super::StartError;

/// Who may connect to the data listener's Unix socket is for its directory's permissions to say.
const DATA_SOCKET_MODE: u32 = 0o666;

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Listening {
    /// At an address.
    Tcp(TcpListener),
    /// At a path; the file is taken away at the end if it is ours.
    Unix(UnixListener, Option<SocketFile>),
}

impl Listening {
    /// A socket that another process opened.
    pub(super) fn inherited(fd: OwnedFd) -> io::Result<Self> {
        let domain = rustix::net::sockopt::socket_domain(&fd)?;
        Ok(if domain == rustix::net::AddressFamily::UNIX { Self::Unix(fd.into(), None) } else { Self::Tcp(fd.into()) })
    }

    /// Binds the data listener's address, of which [`super::addresses`] knows that it is one.
    pub(super) fn bind(address: &str) -> Result<Self, StartError> {
        let refuse = |reason: String| {
            StartError::Listen(format!(
                "the data listener cannot use `{address}`: {reason}; end what uses it or set `listen.data`"
            ))
        };
        match address.strip_prefix("unix:") {
            Some(path) => socket::bind(Path::new(path), DATA_SOCKET_MODE)
                .map(|(listener, file)| Self::Unix(listener, Some(file)))
                .map_err(refuse),
            None => TcpListener::bind(address).map(Self::Tcp).map_err(|error| refuse(socket::explain(&error))),
        }
    }

    /// The address as it is configured: `127.0.0.1:8080`, `unix:/path`.
    pub(super) fn address(&self) -> io::Result<String> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|address| address.to_string()),
            Self::Unix(listener, _) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().map(|path| path.to_string_lossy().into_owned());
                Ok(format!("unix:{}", path.unwrap_or_default()))
            }
        }
    }

    /// The same socket once more.
    pub(super) fn twin(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(listener, _) => Self::Unix(listener.try_clone()?, None),
        })
    }

    /// What Pingora asks for: the socket alone, and who may connect if it is a file. Pingora sets that again, which only its
    /// owner may.
    pub(super) fn into_parts(self) -> Result<(RawFd, Option<u32>, Option<SocketFile>), StartError> {
        let failed = |error: io::Error| StartError::System(format!("the data listener: {error}"));
        match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true).map_err(failed)?;
                Ok((listener.into_raw_fd(), None, None))
            }
            Self::Unix(listener, file) => {
                listener.set_nonblocking(true).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                // One that was moved to its place after binding does not know the place, and has its mode.
                let mode = match address.as_pathname().map(std::fs::metadata) {
                    Some(Ok(metadata)) => {
                        let own = rustix::process::geteuid();
                        if !own.is_root() && metadata.uid() != own.as_raw() {
                            return Err(StartError::Listen(format!(
                                "the data listener's socket belongs to user {}, the gateway runs as {}: set `SocketUser=` in its unit",
                                metadata.uid(),
                                own.as_raw()
                            )));
                        }
                        metadata.permissions().mode() & 0o777
                    }
                    _ => DATA_SOCKET_MODE,
                };
                Ok((listener.into_raw_fd(), Some(mode), file))
            }
        }
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }
}

/// Sockets that were handed in and are not used yet.
#[derive(Debug, Default)]
pub(super) struct Inherited(Vec<Listening>);

impl Inherited {
    /// What systemd passed to this process. Changes the environment: to be called before there are threads.
    pub(super) fn from_environment() -> Result<Self, StartError> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let tcp = passed.take_tcp_listener(index).ok().flatten().map(Listening::Tcp);
            let socket = match tcp {
                Some(socket) => socket,
                None => match passed.take_unix_listener(index) {
                    Ok(Some(listener)) => Listening::Unix(listener, None),
                    Ok(None) => continue,
                    Err(error) => {
                        return Err(StartError::Listen(format!(
                            "a socket that was passed in `LISTEN_FDS` cannot be used: {error}; pass stream sockets only (`ListenStream=`)"
                        )));
                    }
                },
            };
            sockets.push(socket);
        }
        Ok(Self(sockets))
    }

    /// What another gateway handed over.
    pub(super) fn from_sockets(sockets: Vec<Listening>) -> Self {
        Self(sockets)
    }

    /// The socket that listens at a configured address.
    pub(super) fn take(&mut self, address: &str) -> Option<Listening> {
        let wanted = normal(address);
        let at = self.0.iter().position(|socket| socket.address().is_ok_and(|address| normal(&address) == wanted))?;
        Some(self.0.swap_remove(at))
    }

    /// The same for the admin listener.
    pub(super) fn take_admin(&mut self, address: &AdminAddress) -> Option<AdminSocket> {
        match self.take(&address.to_string())? {
            Listening::Tcp(listener) => Some(AdminSocket::Tcp(listener)),
            Listening::Unix(listener, file) => Some(AdminSocket::Unix(listener, file)),
        }
    }

    /// Addresses of what nobody took.
    pub(super) fn left(&self) -> Vec<String> {
        self.0.iter().map(|socket| socket.address().unwrap_or_else(|error| error.to_string())).collect()
    }
}

/// One spelling for one address. A socket that was moved to its place knows the name it was bound by.
fn normal(address: &str) -> String {
    match address.parse::<SocketAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => address.strip_suffix(".new").unwrap_or(address).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_by_its_address_and_the_rest_is_named() {
        let one = Listening::bind("127.0.0.1:0").unwrap();
        let other = Listening::bind("127.0.0.1:0").unwrap();
        let (first, second) = (one.address().unwrap(), other.address().unwrap());
        let mut inherited = Inherited::from_sockets(vec![one.twin().unwrap(), other]);
        assert_eq!(inherited.take(&first).unwrap().address().unwrap(), first);
        assert!(inherited.take(&first).is_none(), "it is used once");
        assert_eq!(inherited.left(), [second]);
    }

    #[test]
    fn a_unix_socket_is_found_by_its_path() {
        let path = std::env::temp_dir().join(format!("portcullis-sockets-{}", std::process::id()));
        let address = format!("unix:{}", path.display());
        let bound = Listening::bind(&address).unwrap();
        let fd = bound.as_fd().try_clone_to_owned().unwrap();
        let mut inherited = Inherited::from_sockets(vec![Listening::inherited(fd).unwrap()]);
        assert!(inherited.take("unix:/elsewhere").is_none());
        let (_, mode, file) = inherited.take(&address).unwrap().into_parts().unwrap();
        assert_eq!((mode, file.is_some()), (Some(DATA_SOCKET_MODE), false));
        assert!(path.exists());
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn an_address_in_use_says_what_to_do() {
        let held = Listening::bind("127.0.0.1:0").unwrap();
        let refused = Listening::bind(&held.address().unwrap()).unwrap_err().to_string();
        assert!(refused.contains("in use") && refused.contains("listen.data"), "{refused}");
    }
}
