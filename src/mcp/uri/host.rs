//! Is a host written in its one usual way?
//!
//! An address has many spellings (`0x7f.1`, `[::ffff:127.0.0.1]`), and a name has some (`EXAMPLE.com.`). Readers resolve
//! all of them to the same host; so only the usual one is taken.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use crate::mcp::uri::flaw::UriFlaw;

/// Judges `host:port` where the scheme says that it is a host of the internet.
pub(super) fn check(host_and_port: &str, default_port: Option<u16>) -> Result<(), UriFlaw> {
    let (host, port) = split(host_and_port);
    if let Some(port) = port {
        let number: u16 = port.parse().map_err(|_| UriFlaw::Port)?;
        if number.to_string() != port || Some(number) == default_port {
            return Err(UriFlaw::Port);
        }
    }
    if is_usual(host) { Ok(()) } else { Err(UriFlaw::Host) }
}

/// Host and port; a colon within brackets is none before a port.
fn split(host_and_port: &str) -> (&str, Option<&str>) {
    match host_and_port.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (host_and_port, None),
    }
}

fn is_usual(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Option<Ipv6Addr> = inner.parse().ok();
        return address.is_some_and(|address| address.to_string() == inner && embedded(address).is_none());
    }
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    };
    if !host.split('.').all(is_label) {
        return false;
    }
    // Whatever ends like a number is read as an address by somebody.
    let is_number = |label: &str| number(label).is_some() || label.bytes().all(|byte| byte.is_ascii_digit());
    !host.rsplit('.').next().is_some_and(is_number) || host.parse::<Ipv4Addr>().is_ok()
}

/// The address of a host that is written as one in any way: `0x7f.1`, `2130706433`, `[::ffff:7f00:1]`.
pub(super) fn address(host_and_port: &str) -> Option<IpAddr> {
    let (host, _) = split(host_and_port);
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().ok()?;
        return Some(embedded(address).map_or(IpAddr::V6(address), IpAddr::V4));
    }
    numbered(host).map(IpAddr::V4)
}

/// An address as one to four numbers.
fn numbered(host: &str) -> Option<Ipv4Addr> {
    let mut numbers = host.strip_suffix('.').unwrap_or(host).split('.').map(number);
    let mut address = 0_u64;
    let mut bits = 32_u32;
    loop {
        let value = numbers.next()??;
        let is_last = numbers.clone().next().is_none();
        // All but the last stand for a byte each, the last for what remains.
        let width = if is_last { bits } else { 8 };
        if bits == 0 || value >> width != 0 {
            return None;
        }
        bits -= width;
        address |= value << bits;
        if is_last {
            return Some(Ipv4Addr::from(u32::try_from(address).ok()?));
        }
    }
}

/// A number of an address: decimal, octal with a leading zero, or hexadecimal.
fn number(label: &str) -> Option<u64> {
    let (digits, radix) = match label.strip_prefix("0x").or_else(|| label.strip_prefix("0X")) {
        Some("") => return Some(0),
        Some(digits) => (digits, 16),
        None if label.len() > 1 && label.starts_with('0') => (label, 8),
        None => (label, 10),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok().filter(|number| *number <= u64::from(u32::MAX))
}

/// The address of version 4 that one of version 6 stands for: mapped, compatible, or reached through a translator.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., a, b, c, d] = address.octets();
    let embedded = Ipv4Addr::new(a, b, c, d);
    let is_translated = address.octets().starts_with(&[0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0]);
    let is_compatible = address.octets().starts_with(&[0; 12]) && embedded.to_bits() > 0xffff;
    address.to_ipv4_mapped().or_else(|| (is_translated || is_compatible).then_some(embedded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_every_spelling() {
        for host in [
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "0251.0376.0251.0376",
            "0xA9.0xfe.43518",
            "169.16689662",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "[::a9fe:a9fe]",
            "[64:ff9b::a9fe:a9fe]",
            "169.254.169.254.",
            "169.254.169.254:80",
        ] {
            assert_eq!(address(host).map(|it| it.to_string()).as_deref(), Some("169.254.169.254"), "{host}");
        }
        for host in ["", "a.b", "1.2.3.4.5", "256.1.1.1", "1.2.3.256", "4294967296", "[::1", "[x]", "1..2", "08"] {
            assert_eq!(address(host), None, "{host}");
        }
        assert_eq!(
            address("[fd00:0EC2:0::254]:80"),
            Some(IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)))
        );
    }

    #[test]
    fn only_the_usual_spelling_of_a_host_is_taken() {
        for host in
            ["a", "a.example", "a-b_c.example", "xn--mnchen-3ya.de", "127.0.0.1", "[::1]", "[fd00:ec2::254]", "1a.b2"]
        {
            assert_eq!(check(host, Some(80)), Ok(()), "{host}");
        }
        for host in [
            "",
            "A.example",
            "a.example.",
            ".a",
            "a..b",
            "münchen.de",
            "a%2eb",
            "a b",
            "127.1",
            "0x7f.1",
            "2130706433",
            "127.0.0.01",
            "1.2.3.4.5",
            "09.9.9.9",
            "a.0x1",
            "[::ffff:127.0.0.1]",
            "[::FFFF]",
            "[0:0:0:0:0:0:0:1]",
            "[fe80::1%25eth0]",
            "[::1",
            "::1",
        ] {
            assert!(check(host, Some(80)).is_err(), "{host}");
        }
    }

    #[test]
    fn a_port_is_a_number_and_not_the_one_without_it() {
        assert_eq!(check("a:8080", Some(80)), Ok(()));
        assert_eq!(check("[::1]:8080", Some(80)), Ok(()));
        for port in ["", "80", "080", "+8", "x", "65536", "8 "] {
            assert_eq!(check(&format!("a:{port}"), Some(80)), Err(UriFlaw::Port), "{port}");
        }
    }
}
