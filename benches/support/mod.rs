//! What the benchmarks that compare share: the yardstick, child processes and what they cost, medians.
//!
//! The yardstick is a Pingora proxy with nothing but a peer, on the same allocator and runtime as the gateway. Both run
//! in processes of their own beside one upstream, and what is measured of one is measured of the other in the same round.

mod bare;

use std::fs;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

pub(crate) use bare::serve_bare;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A child process that serves.
pub(crate) struct Running(Child);

impl Running {
    /// Starts `program` and waits until it takes connections at `address`.
    pub(crate) fn start(program: &str, arguments: &[&str], address: SocketAddr) -> Self {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(started.elapsed() < Duration::from_secs(10), "{program} {arguments:?} does not serve");
            thread::sleep(Duration::from_millis(20));
        }
        Self(child)
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// CPU time its threads were given so far.
    pub(crate) fn cpu_nanos(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).unwrap();
        let schedstat = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("schedstat")).ok());
        schedstat.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The length of the request that `held` begins with, once it is whole.
pub(crate) fn whole_request(held: &[u8]) -> Option<usize> {
    let head = held.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&held[..head]).unwrap().to_ascii_lowercase();
    let body = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(0, |length| length.trim().parse().unwrap());
    (held.len() >= head + body).then_some(head + body)
}

/// An address nobody listens on.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The middle of `values`.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Order statistics that hold the median at 95 %: of 21 values the sixth and the sixteenth.
pub(crate) fn interval(values: &mut [f64]) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let outside = (count / 2.0 - 0.98 * count.sqrt()) as usize;
    (values[outside - 1], values[values.len() - outside])
}
