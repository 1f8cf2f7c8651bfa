//! Whom does a load balancer in front of us speak for?
//!
//! Reads the header of the PROXY protocol, versions 1 and 2, with which a connection from such a balancer begins. Pure:
//! bytes in, what they say out. Of everything the protocol leaves open, the strict reading: one space between fields,
//! numbers without zeros before them, stream sockets only, extensions whose lengths add up and a checksum that fits.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

/// Bytes of a header of version 1, its line end included, as the protocol says.
const TEXT_BYTES_MAX: usize = 107;
/// Bytes of a header of version 2: addresses, and extensions that balancers make use of.
pub const HEADER_BYTES_MAX: usize = 4096;

const TEXT_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a header of version 2 before its addresses.
const FIXED_BYTES: usize = 16;
/// The extension that holds a checksum of the header.
const CHECKSUM_TYPE: u8 = 0x03;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How long it is.
    pub bytes: usize,
    /// The client that the balancer speaks for; `None` where it speaks for itself, or does not know.
    pub client: Option<SocketAddr>,
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// More of them are needed.
    Partial,
    /// A whole header.
    Whole(Header),
    /// No header, or one that breaks the protocol's rules.
    Malformed,
}

/// Reads the header at the beginning of `bytes`. Never partial for [`HEADER_BYTES_MAX`] bytes or more.
pub fn read(bytes: &[u8]) -> Reading {
    let begins = |start: &[u8]| bytes.iter().zip(start).all(|(byte, expected)| byte == expected);
    let read = if begins(TEXT_START) && bytes.len() >= TEXT_START.len() {
        read_text(bytes)
    } else if begins(SIGNATURE) && bytes.len() >= SIGNATURE.len() {
        read_binary(bytes)
    } else if begins(TEXT_START) || begins(SIGNATURE) {
        return Reading::Partial;
    } else {
        None
    };
    read.unwrap_or(Reading::Malformed)
}

/// `PROXY TCP4 192.0.2.7 198.51.100.1 4711 443`, or `PROXY UNKNOWN` and whatever. `None`: malformed.
fn read_text(bytes: &[u8]) -> Option<Reading> {
    let window = bytes.get(..TEXT_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return (window.len() < TEXT_BYTES_MAX).then_some(Reading::Partial);
    };
    let line = std::str::from_utf8(window.get(TEXT_START.len()..end)?).ok()?;
    let client = match line.split(' ').collect::<Vec<_>>().as_slice() {
        ["UNKNOWN", ..] => None,
        ["TCP4", source, destination, from, to] => {
            let (source, _): (Ipv4Addr, Ipv4Addr) = (source.parse().ok()?, destination.parse().ok()?);
            let (from, _) = (port(from)?, port(to)?);
            Some(SocketAddr::from((source, from)))
        }
        ["TCP6", source, destination, from, to] => {
            let (source, _): (Ipv6Addr, Ipv6Addr) = (source.parse().ok()?, destination.parse().ok()?);
            let (from, _) = (port(from)?, port(to)?);
            Some(SocketAddr::from((IpAddr::V6(source).to_canonical(), from)))
        }
        _ => return None,
    };
    Some(Reading::Whole(Header { bytes: end + 2, client }))
}

fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_plain { text.parse().ok() } else { None }
}

/// Version 2. `None`: malformed.
fn read_binary(bytes: &[u8]) -> Option<Reading> {
    let Some(fixed) = bytes.get(..FIXED_BYTES) else { return Some(Reading::Partial) };
    let &[.., command, family, high, low] = fixed else { return None };
    let whole = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if whole > HEADER_BYTES_MAX {
        return None;
    }
    // Version in the upper half; 0: the balancer speaks for itself, as for a health check, 1: for a client.
    let speaks_for_client = match command {
        0x20 => false,
        0x21 => true,
        _ => return None,
    };
    let Some(header) = bytes.get(..whole) else { return Some(Reading::Partial) };
    let body = header.get(FIXED_BYTES..)?;
    let (client, extensions) = match family {
        // Not known, or not told: whatever follows is not to be read.
        0x00 => return Some(Reading::Whole(Header { bytes: whole, client: None })),
        0x11 => {
            let (addresses, extensions) = body.split_at_checked(12)?;
            let source: [u8; 4] = addresses.get(..4)?.try_into().ok()?;
            (Some(SocketAddr::from((source, port_at(addresses, 8)?))), extensions)
        }
        0x21 => {
            let (addresses, extensions) = body.split_at_checked(36)?;
            let source: [u8; 16] = addresses.get(..16)?.try_into().ok()?;
            let source = IpAddr::V6(Ipv6Addr::from(source)).to_canonical();
            (Some(SocketAddr::from((source, port_at(addresses, 32)?))), extensions)
        }
        // A Unix socket: the client is on the balancer's machine, and has no address.
        0x31 => (None, body.split_at_checked(216)?.1),
        _ => return None,
    };
    check_extensions(header, extensions)?;
    Some(Reading::Whole(Header { bytes: whole, client: client.filter(|_| speaks_for_client) }))
}

fn port_at(addresses: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(addresses.get(at..at + 2)?.try_into().ok()?))
}

/// Whether the extensions fill their room exactly, and a checksum among them fits.
fn check_extensions(header: &[u8], mut extensions: &[u8]) -> Option<()> {
    let mut has_checksum = false;
    while let [kind, high, low, rest @ ..] = extensions {
        let (value, next) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
        if *kind == CHECKSUM_TYPE {
            let expected = u32::from_be_bytes(value.try_into().ok()?);
            let at = header.len() - rest.len();
            let before = header.get(..at)?;
            let behind = header.get(at + value.len()..)?;
            let sum = crc32c(before.iter().chain(&[0; 4]).chain(behind));
            if has_checksum || sum != expected {
                return None;
            }
            has_checksum = true;
        }
        extensions = next;
    }
    extensions.is_empty().then_some(())
}

/// CRC-32C (Castagnoli), bit by bit: a header is short, and a connection has one.
fn crc32c<'b>(bytes: impl Iterator<Item = &'b u8>) -> u32 {
    !bytes.fold(!0, |sum: u32, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests;
