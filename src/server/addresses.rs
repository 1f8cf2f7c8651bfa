//! Can both listeners, and the access log, be where the configuration wants them?
//!
//! Each address must be one, an admin listener without authentication must not be reached from elsewhere, and the two must
//! not be in each other's way: a socket can be bound once.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use crate::admin;
use crate::config::model::Config;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::telemetry::access::Destination;

/// Reports what is wrong with the listeners' addresses and the access log's place.
pub(super) fn check(config: &Config, problems: &mut Problems) {
    let at = At::root().key("listen");
    let (data, admin) = (config.listen.data.as_str(), config.listen.admin.as_str());
    if let Err(message) = admin::check_address(admin) {
        problems.error(
            &at.key("admin"),
            message,
            "write a loopback address such as `127.0.0.1:9090`, or `unix:/run/portcullis/admin.sock`",
        );
    }
    let is_socket = data.strip_prefix("unix:").is_some_and(|path| path.starts_with('/'));
    if !is_socket && data.parse::<SocketAddr>().is_err() {
        problems.error(
            &at.key("data"),
            format!("`{data}` is not an address"),
            "write an IP address and a port (`127.0.0.1:8080`, `[::]:8080`), or `unix:/path`",
        );
    }
    if let Err(message) = Destination::read(&config.log.access) {
        problems.error(
            &At::root().key("log").key("access"),
            message,
            "write `off`, `stdout`, `stderr`, or an absolute path such as `/var/log/portcullis/access.log`",
        );
    }
    if collide(data, admin) {
        problems.error(
            &at.key("admin"),
            format!("the data listener takes this address already: `{data}`"),
            "give the two listeners different ports, or different paths",
        );
    }
}

/// Whether two sockets at these addresses would be one.
fn collide(one: &str, other: &str) -> bool {
    if let (Ok(one), Ok(other)) = (one.parse::<SocketAddr>(), other.parse::<SocketAddr>()) {
        // Of port 0 the system makes a free one each time.
        return one.port() == other.port() && one.port() != 0 && overlap(one.ip(), other.ip());
    }
    match (one.strip_prefix("unix:"), other.strip_prefix("unix:")) {
        (Some(one), Some(other)) => real(Path::new(one)) == real(Path::new(other)),
        _ => false,
    }
}

/// Whether a listener at one address hears what is sent to the other. `[::]` hears IPv4 as well, as Linux has it.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    let hears = |one: IpAddr, other: IpAddr| one.is_unspecified() && (one.is_ipv6() || other.is_ipv4());
    let (one, other) = (one.to_canonical(), other.to_canonical());
    one == other || hears(one, other) || hears(other, one)
}

/// A path as the system sees it: its directory without links, where there is one.
fn real(path: &Path) -> PathBuf {
    let directory = path.parent().and_then(|parent| parent.canonicalize().ok());
    match (directory, path.file_name()) {
        (Some(directory), Some(name)) => directory.join(name),
        _ => path.components().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_listeners_must_not_be_in_each_others_way() {
        let directory = std::env::temp_dir().join(format!("portcullis-addresses-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("real")).unwrap();
        std::os::unix::fs::symlink(directory.join("real"), directory.join("link")).unwrap();
        let socket = |path: &str| format!("unix:{}/{path}", directory.display());
        let together = [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("127.0.0.1:80", "0.0.0.0:80"),
            ("[::]:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
            ("unix:/no/such/a.sock", "unix:/no/such//./a.sock"),
            (&socket("real/a"), &socket("link/a")),
        ];
        let apart = [
            ("127.0.0.1:80", "127.0.0.1:81"),
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("127.0.0.1:80", "[::1]:80"),
            ("0.0.0.0:80", "[::1]:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("unix:/a", "unix:/b"),
            ("unix:/a", "127.0.0.1:80"),
            (&socket("real/a"), &socket("link/b")),
        ];
        for (one, other) in together {
            assert!(collide(one, other), "{one} {other}");
        }
        for (one, other) in apart {
            assert!(!collide(one, other), "{one} {other}");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn an_address_that_is_taken_is_told_at_its_key() {
        let mut config = Config::default();
        config.listen.data = "0.0.0.0:9090".into();
        config.listen.admin = "127.0.0.1:9090".into();
        let mut problems = Problems::new();
        check(&config, &mut problems);
        let told: Vec<String> = problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect();
        assert_eq!(told, ["listen.admin: the data listener takes this address already: `0.0.0.0:9090`"]);
    }
}
