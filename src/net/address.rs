//! May the gateway connect to this address on somebody else's word?
//!
//! Only to addresses that anybody on the Internet can reach. What leads into the gateway's own machine or network, to a
//! cloud's metadata, to many at once or to an address hidden inside another is refused, unless the operator names its network.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use crate::network::Networks;

/// What is special about an address, in the words of a log line.
pub type Special = &'static str;

/// IPv4 networks that are not the Internet's: first address, bits, what they are (RFC 6890 and its registry).
const SPECIAL_V4: [([u8; 4], u32, Special); 20] = [
    ([0, 0, 0, 0], 8, "this network"),
    ([10, 0, 0, 0], 8, "private"),
    ([100, 64, 0, 0], 10, "shared by a provider's customers"),
    ([127, 0, 0, 0], 8, "loopback"),
    ([168, 63, 129, 16], 32, "a cloud's own"),
    ([169, 254, 0, 0], 16, "link-local"),
    ([172, 16, 0, 0], 12, "private"),
    ([192, 0, 0, 0], 24, "for protocols"),
    ([192, 0, 2, 0], 24, "for documentation"),
    ([192, 31, 196, 0], 24, "for protocols"),
    ([192, 52, 193, 0], 24, "for protocols"),
    ([192, 88, 99, 0], 24, "a 6to4 relay"),
    ([192, 168, 0, 0], 16, "private"),
    ([192, 175, 48, 0], 24, "for protocols"),
    ([198, 18, 0, 0], 15, "for benchmarks"),
    ([198, 51, 100, 0], 24, "for documentation"),
    ([203, 0, 113, 0], 24, "for documentation"),
    ([224, 0, 0, 0], 4, "multicast"),
    ([255, 255, 255, 255], 32, "broadcast"),
    ([240, 0, 0, 0], 4, "reserved"),
];

/// IPv6 networks within the Internet's own (2000::/3) that are not for anybody. All outside it is refused by what it is.
const SPECIAL_V6: [(Ipv6Addr, u32, Special); 5] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "for protocols, Teredo among them"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "for documentation"),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, "6to4"),
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48, "for protocols"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "for documentation"),
];

/// IPv6 networks outside the Internet's own that have a name.
const OUTSIDE_V6: [(Ipv6Addr, u32, Special); 11] = [
    (Ipv6Addr::UNSPECIFIED, 128, "unspecified"),
    (Ipv6Addr::LOCALHOST, 128, "loopback"),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, "an IPv4 address in IPv6 clothes"),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 0), 96, "an IPv4 address in IPv6 clothes"),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, "NAT64"),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, "NAT64"),
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64, "discard-only"),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, "unique local"),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, "link-local"),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, "site-local"),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "multicast"),
];

/// The part of IPv6 that is the Internet.
const INTERNET_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What is special about `address`; `None` for one that anybody on the Internet can reach.
pub fn special(address: IpAddr) -> Option<Special> {
    match address {
        IpAddr::V4(address) => {
            let row = SPECIAL_V4.iter().find(|(first, bits, _)| begins_v4(address, Ipv4Addr::from(*first), *bits));
            row.map(|(_, _, what)| *what)
        }
        IpAddr::V6(address) => {
            let rows = if begins_v6(address, INTERNET_V6.0, INTERNET_V6.1) {
                SPECIAL_V6.iter()
            } else {
                let named = OUTSIDE_V6.iter().find(|(first, bits, _)| begins_v6(address, *first, *bits));
                return Some(named.map_or("not the Internet's", |(_, _, what)| what));
            };
            rows.clone().find(|(first, bits, _)| begins_v6(address, *first, *bits)).map(|(_, _, what)| *what)
        }
    }
}

/// Whether `address` may be connected to: it is the Internet's, or in a network that the operator names.
///
/// # Errors
/// What is special about it.
pub(super) fn check(address: IpAddr, allowed: &Networks) -> Result<(), Special> {
    match special(address) {
        Some(what) if !allowed.contains(address) => Err(what),
        Some(_) | None => Ok(()),
    }
}

fn begins_v4(address: Ipv4Addr, first: Ipv4Addr, bits: u32) -> bool {
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    address.to_bits() & mask == first.to_bits()
}

fn begins_v6(address: Ipv6Addr, first: Ipv6Addr, bits: u32) -> bool {
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    address.to_bits() & mask == first.to_bits()
}
