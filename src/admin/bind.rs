//! How is the admin listener's address taken?
//!
//! A Unix socket is made beside its place, given its mode and moved there, so that nobody ever sees it with another
//! mode. One that is there already is replaced only if nobody answers on it.

use std::fs;
use std::io;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use tokio::net::TcpListener;
use tokio::net::UnixListener;

use crate::admin::address::AdminAddress;

/// The owner and the group; a group of operators can be made.
const SOCKET_MODE: u32 = 0o660;

/// A bound listener.
pub(super) enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A socket, and what takes it away at the end.
    Unix(UnixListener, #[expect(dead_code, reason = "held until the listener is dropped")] SocketFile),
}

/// Binds, and tells the address that resulted. To be called within a runtime.
pub(super) fn bind(address: &AdminAddress) -> Result<(Listener, AdminAddress), String> {
    match address {
        AdminAddress::Tcp(address) => {
            let listener = bind_tcp(*address).map_err(|error| explain(&error))?;
            let bound = listener.local_addr().map_err(|error| explain(&error))?;
            Ok((Listener::Tcp(listener), AdminAddress::Tcp(bound)))
        }
        AdminAddress::Unix(path) => {
            let (listener, file) = bind_unix(path)?;
            Ok((Listener::Unix(listener, file), address.clone()))
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    // The standard library sets SO_REUSEADDR, so a restart does not wait for old connections.
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn bind_unix(path: &Path) -> Result<(UnixListener, SocketFile), String> {
    check_free(path)?;
    let fresh = with_suffix(path, ".new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(explain(&error)),
        _ => {}
    }
    let bound = (|| {
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(SOCKET_MODE))?;
        let metadata = fs::symlink_metadata(&fresh)?;
        fs::rename(&fresh, path)?;
        Ok((listener, SocketFile { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() }))
    })();
    bound.map_err(|error| {
        let _ = fs::remove_file(&fresh);
        explain(&error)
    })
}

/// Refuses a path on which somebody answers, or on which something other than a socket stands.
fn check_free(path: &Path) -> Result<(), String> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(explain(&error)),
    };
    if !metadata.file_type().is_socket() {
        return Err("something that is no socket stands there".into());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err("another process answers there; is a gateway running already?".into()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(format!("whether another process answers there cannot be told: {}", explain(&error))),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(suffix);
    text.into()
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => "the address is in use; is a gateway running already?".into(),
        ErrorKind::AddrNotAvailable => "this machine does not have the address".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        ErrorKind::NotFound => "the directory does not exist".into(),
        _ => error.to_string(),
    }
}

/// The socket's file, taken away when dropped unless somebody else's has come to its place.
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = |metadata: fs::Metadata| metadata.dev() == self.device && metadata.ino() == self.inode;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
