//! What does the service manager hear?
//!
//! The words of `sd_notify`, where systemd (or who speaks like it) asks for them in `NOTIFY_SOCKET`; nothing elsewhere. The
//! watchdog is fed only while the gateway answers on its own data listener.

use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;

/// How many times the gateway looks at itself within the time the service manager allows.
const LOOKS: u32 = 3;

/// The gateway serves, under this revision of its configuration.
pub(super) fn ready(revision: u64) {
    say(&[NotifyState::Ready, NotifyState::Status(&format!("serving, configuration revision {revision}"))]);
}

/// The configuration is being loaded again.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the service manager is not told of the reload"),
    }
}

/// Loading it again came to nothing: the gateway serves as before.
pub(super) fn not_reloaded(revision: u64) {
    let status = format!("serving, configuration revision {revision}; the file as it is now has mistakes");
    say(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The gateway is on its way out.
pub(super) fn stopping() {
    say(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Another process is the service now.
pub(super) fn handed_over(pid: u32) {
    say(&[NotifyState::MainPid(pid)]);
}

fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// Feeds the service manager's watchdog, where there is one, until `leaving` says that another process does.
pub(super) fn watch_over(data: &str, leaving: watch::Receiver<Option<u32>>) {
    let Some(time_max) = sd_notify::watchdog_enabled() else { return };
    let (data, look) = (data.to_owned(), time_max / LOOKS);
    let spawned = thread::Builder::new().name("watchdog".into()).spawn(move || {
        while leaving.borrow().is_none() {
            match answers(&data, look) {
                Ok(()) => say(&[NotifyState::Watchdog]),
                Err(error) => tracing::error!(%error, "the gateway does not answer itself: the watchdog is not fed"),
            }
            thread::sleep(look);
        }
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "the watchdog will not be fed: no thread");
    }
}

/// Whether a request on the data listener is answered in time, however.
fn answers(data: &str, time_max: Duration) -> io::Result<()> {
    match data.strip_prefix("unix:") {
        Some(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(time_max))?;
            stream.set_write_timeout(Some(time_max))?;
            ask(stream)
        }
        None => {
            let address = data.parse().map(reachable).map_err(io::Error::other)?;
            let stream = TcpStream::connect_timeout(&address, time_max)?;
            stream.set_read_timeout(Some(time_max))?;
            stream.set_write_timeout(Some(time_max))?;
            ask(stream)
        }
    }
}

fn ask(mut stream: impl Read + Write) -> io::Result<()> {
    let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    // A listener that speaks TLS says so or hangs up, and one that is full may break the connection: it lives as well.
    let is_turned_away = |error: &io::Error| {
        matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe)
    };
    match asked.and_then(|()| stream.read(&mut [0; 64])) {
        Err(error) if !is_turned_away(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Where a listener on every address is reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_that_answers_lives_and_one_that_only_accepts_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let data = listener.local_addr().unwrap().to_string();
        assert!(answers(&data, Duration::from_millis(100)).is_err(), "the system accepts, nobody answers");
        let server = thread::spawn(move || {
            let _first = listener.accept().unwrap();
            let (mut second, _) = listener.accept().unwrap();
            let mut asked = [0; 12];
            second.read_exact(&mut asked).unwrap();
            second.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap();
            asked
        });
        answers(&data, Duration::from_secs(5)).unwrap();
        assert_eq!(&server.join().unwrap(), b"GET /healthz");
    }

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        let reached = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reached("[::]:80"), "[::1]:80");
        assert_eq!(reached("192.0.2.1:80"), "192.0.2.1:80");
    }

    #[test]
    fn a_listener_that_is_full_and_breaks_connections_lives() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let data = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            // What was sent is there and was not read: the system resets the connection.
            while stream.peek(&mut [0; 1]).unwrap() == 0 {}
        });
        assert!(answers(&data, Duration::from_secs(5)).is_ok());
        server.join().unwrap();
    }
}
