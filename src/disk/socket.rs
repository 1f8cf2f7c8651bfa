//! How does a Unix socket come to its path?
//!
//! It is made beside its place, given its mode and moved there, so that nobody ever sees it with another mode. One that
//! is there already is replaced only if nobody answers on it, or by who was handed its place.

use std::fs;
use std::io;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;

/// Longest path the system takes for a Unix socket, less what is appended while one is made.
pub const PATH_BYTES_MAX: usize = 107 - SUFFIX.len();

const SUFFIX: &str = ".new";

/// Listens at a path at which nobody answers. The error is for the operator, without the path.
pub fn bind(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), String> {
    check_free(path)?;
    replace(path, mode).map_err(|error| explain(&error))
}

/// Listens at a path, whoever listened there before.
pub fn replace(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(SUFFIX);
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let bound = (|| {
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))?;
        let file = SocketFile::at(&fresh)?;
        fs::rename(&fresh, path)?;
        Ok((listener, SocketFile { path: path.to_owned(), ..file }))
    })();
    if bound.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    bound
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
    match UnixStream::connect(path) {
        Ok(_) => Err("another process answers there; is a gateway running already?".into()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(format!("whether another process answers there cannot be told: {}", explain(&error))),
    }
}

/// What an error of listening means, for the operator.
pub fn explain(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => "the address is in use; is a gateway running already?".into(),
        ErrorKind::AddrNotAvailable => "this machine does not have the address".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        ErrorKind::NotFound => "the directory does not exist".into(),
        _ => error.to_string(),
    }
}

/// A socket's file, taken away when dropped unless somebody else's has come to its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// The file that stands at a path, of a socket this process was given.
    pub fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    /// Leaves the file where it is: another process goes on with the socket.
    pub fn leave(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = |metadata: fs::Metadata| metadata.dev() == self.device && metadata.ino() == self.inode;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("portcullis-socket-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    #[test]
    fn a_served_path_is_refused_and_a_forgotten_one_is_taken() {
        let path = fresh("served");
        let (listener, file) = bind(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(bind(&path, 0o600).unwrap_err().contains("another process answers"));
        drop(listener);
        file.leave();
        assert!(path.exists(), "left where it is");
        let (_listener, file) = bind(&path, 0o660).unwrap();
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn who_was_handed_the_place_takes_it_and_the_predecessor_leaves_it_alone() {
        let path = fresh("handed");
        let (_old, old_file) = bind(&path, 0o600).unwrap();
        let (new, _file) = replace(&path, 0o600).unwrap();
        drop(old_file);
        UnixStream::connect(&path).unwrap();
        new.accept().unwrap();
    }

    #[test]
    fn what_is_no_socket_is_not_replaced() {
        let path = fresh("plain");
        fs::write(&path, b"x").unwrap();
        assert!(bind(&path, 0o600).unwrap_err().contains("no socket"));
        fs::remove_file(&path).unwrap();
    }
}
