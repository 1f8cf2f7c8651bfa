//! How is the admin listener's address taken?
//!
//! It is bound here, or its socket was bound before and is handed in: by systemd, or by the process this one follows.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdUnixListener;

use tokio::net::TcpListener;
use tokio::net::UnixListener;

use crate::admin::address::AdminAddress;
use crate::disk::socket;
use crate::disk::socket::SocketFile;

/// The owner and the group; a group of operators can be made.
const SOCKET_MODE: u32 = 0o660;

/// A socket on which the admin listener can listen.
#[derive(Debug)]
pub enum AdminSocket {
    /// A port.
    Tcp(StdTcpListener),
    /// A Unix socket. Its file is taken away at the end if it is ours to take.
    Unix(StdUnixListener, Option<SocketFile>),
}

impl AdminSocket {
    /// Binds an address. The error is for the operator, without the address.
    pub fn bind(address: &AdminAddress) -> Result<Self, String> {
        match address {
            // The standard library sets SO_REUSEADDR, so a restart does not wait for old connections.
            AdminAddress::Tcp(address) => {
                StdTcpListener::bind(address).map(Self::Tcp).map_err(|error| socket::explain(&error))
            }
            AdminAddress::Unix(path) => {
                socket::bind(path, SOCKET_MODE).map(|(listener, file)| Self::Unix(listener, Some(file)))
            }
        }
    }

    /// Where it listens; `asked` is what was asked for, in which the port may be left to the system.
    pub(super) fn address(&self, asked: &AdminAddress) -> io::Result<AdminAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(AdminAddress::Tcp),
            Self::Unix(..) => Ok(asked.clone()),
        }
    }
}

/// A listener of the runtime it was made in.
pub(super) enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// To be called within a runtime. The socket's file, if there is one, goes to the caller.
    pub(super) fn new(socket: AdminSocket) -> io::Result<(Self, Option<SocketFile>)> {
        match socket {
            AdminSocket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Ok((Self::Tcp(TcpListener::from_std(listener)?), None))
            }
            AdminSocket::Unix(listener, file) => {
                listener.set_nonblocking(true)?;
                Ok((Self::Unix(UnixListener::from_std(listener)?), file))
            }
        }
    }
}
