//! Where may the admin listener listen?
//!
//! Nobody authenticates there, so only where the machine's own users are: loopback, or a Unix socket.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;

use crate::disk::socket::PATH_BYTES_MAX as SOCKET_PATH_BYTES_MAX;

/// An address the admin listener may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// A port on loopback; 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl AdminAddress {
    /// The address as a client writes it: `http://127.0.0.1:9090`, or `unix:/path`.
    pub fn url(&self) -> String {
        match self {
            Self::Tcp(address) => format!("http://{address}"),
            Self::Unix(_) => self.to_string(),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Reads `[listen] admin`. The error is a sentence for the operator, without the place.
pub fn check_address(text: &str) -> Result<AdminAddress, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return check_path(Path::new(path));
    }
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok());
    let address = match local {
        Some(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        None => text.parse::<SocketAddr>().map_err(|_| {
            format!("`{text}` is no address of the admin listener: write `127.0.0.1:9090` or `unix:/path`")
        })?,
    };
    if is_loopback(address.ip()) {
        Ok(AdminAddress::Tcp(address))
    } else {
        Err(format!(
            "the admin listener is unauthenticated and cannot listen on `{address}`, which other machines may reach: \
             use a loopback address such as `127.0.0.1:9090`, or `unix:/path`"
        ))
    }
}

/// Whether only this machine has the address, IPv4 written as IPv6 included.
pub(super) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn check_path(path: &Path) -> Result<AdminAddress, String> {
    let bytes = path.as_os_str().as_bytes();
    if !path.is_absolute() {
        return Err(format!(
            "`unix:{}` needs an absolute path, such as `unix:/run/portcullis/admin.sock`",
            path.display()
        ));
    }
    if bytes.len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!("the socket's path is {} bytes long, {SOCKET_PATH_BYTES_MAX} are possible", bytes.len()));
    }
    if bytes.contains(&0) || path.file_name().is_none() || bytes.ends_with(b"/") {
        return Err(format!("`unix:{}` does not name a socket", path.display().to_string().escape_debug()));
    }
    Ok(AdminAddress::Unix(path.to_owned()))
}
