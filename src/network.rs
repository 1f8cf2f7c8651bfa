//! Which addresses does an operator mean?
//!
//! A network is written as an address with a prefix length, or as one address. An IPv4 address in IPv6 clothes counts as
//! what it is, on both sides.

use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use crate::config::problem::At;
use crate::config::problem::Problems;

/// Networks in one list.
pub const NETWORKS_MAX: usize = 1024;

/// Bits by which an IPv4 address is longer when it is written as an IPv6 one.
const MAPPED_BITS: u32 = 96;

/// A network: the addresses that begin like `first`, for `bits` bits. IPv4 is kept in IPv6 clothes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    first: u128,
    bits: u32,
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Flaw {
    /// It is no address, or its prefix length does not fit one.
    Form,
    /// Bits are set behind the prefix; this is what was meant.
    Host(String),
}

impl Network {
    fn parse(text: &str) -> Result<Self, Flaw> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| Flaw::Form)?;
        let width: u32 = if address.is_ipv4() { 32 } else { 128 };
        let is_plain =
            |bits: &str| bits.bytes().all(|byte| byte.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
        let bits = match bits {
            None => width,
            Some(bits) if is_plain(bits) => bits.parse().ok().filter(|bits| *bits <= width).ok_or(Flaw::Form)?,
            Some(_) => return Err(Flaw::Form),
        };
        let network = Self { first: number(address), bits: bits + if width == 32 { MAPPED_BITS } else { 0 } };
        match network.first & !network.mask() {
            0 => Ok(network),
            _ => Err(Flaw::Host(network.corrected(bits, width == 32))),
        }
    }

    /// The same prefix with nothing behind it, as it would be written.
    fn corrected(self, bits: u32, is_ipv4: bool) -> String {
        let first = Ipv6Addr::from_bits(self.first & self.mask());
        let first = if is_ipv4 { IpAddr::V6(first).to_canonical() } else { IpAddr::V6(first) };
        format!("{first}/{bits}")
    }

    fn mask(self) -> u128 {
        u128::MAX.checked_shl(128 - self.bits).unwrap_or(0)
    }

    fn contains(self, address: u128) -> bool {
        address & self.mask() == self.first
    }
}

/// An address as one number, IPv4 in IPv6 clothes.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The addresses of the network that `text` names, as numbers, IPv4 in IPv6 clothes.
///
/// # Errors
/// It names none; the text says what to write.
pub fn range(text: &str) -> Result<RangeInclusive<u128>, String> {
    match Network::parse(text) {
        Ok(network) => Ok(network.first..=network.first | !network.mask()),
        Err(Flaw::Form) => {
            Err("write an address and a prefix length, or one address: `10.0.0.0/8`, `192.0.2.7`".into())
        }
        Err(Flaw::Host(meant)) => Err(format!("write `{meant}` for the network, or the address alone")),
    }
}

/// A list of networks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Reads the list that stands `at`, reporting what is no network.
    pub fn compile(texts: &[String], at: &At, problems: &mut Problems) -> Self {
        if texts.len() > NETWORKS_MAX {
            problems.error(at, format!("more than {NETWORKS_MAX} networks"), "join them to larger ones");
            return Self::default();
        }
        let mut networks = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match Network::parse(text) {
                Ok(network) => networks.push(network),
                Err(Flaw::Form) => problems.error(
                    &at.index(index),
                    format!("`{text}` is not a network"),
                    "write an address and a prefix length, or one address: `10.0.0.0/8`, `fd00::/8`, `192.0.2.7`",
                ),
                Err(Flaw::Host(meant)) => problems.error(
                    &at.index(index),
                    format!("`{text}` has bits set behind its prefix"),
                    format!("write `{meant}` for the network, or the address alone"),
                ),
            }
        }
        Self(networks)
    }

    /// The one network that has every address.
    pub fn everywhere() -> Self {
        Self(vec![Network { first: 0, bits: 0 }])
    }

    /// Whether an address is in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = number(address);
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let mut problems = Problems::new();
        let networks = Networks::compile(&texts, &At::root(), &mut problems);
        assert!(!problems.has_errors(), "{texts:?}");
        networks
    }

    #[test]
    fn an_address_is_in_a_network_exactly_if_it_begins_like_it() {
        let table = [
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("10.0.0.0/8", "::10.1.2.3", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("192.0.2.6/31", "192.0.2.7", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.9", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1", "::1", true),
            ("::1", "::2", false),
        ];
        for (network, address, expected) in table {
            assert_eq!(networks(&[network]).contains(address.parse().unwrap()), expected, "{network} {address}");
        }
        assert!(networks(&["::1", "10.0.0.0/8"]).contains("10.0.0.1".parse().unwrap()));
        let everywhere = Networks::everywhere();
        assert!(
            ["127.0.0.1", "::1", "203.0.113.9"].iter().all(|address| everywhere.contains(address.parse().unwrap()))
        );
        assert!(networks(&[]).is_empty() && !networks(&[]).contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_told_with_what_to_write() {
        for text in
            ["", "10", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/+8", "::/129", "localhost", "10.0.0.0 /8"]
        {
            assert_eq!(Network::parse(text), Err(Flaw::Form), "{text}");
        }
        assert_eq!(Network::parse("10.1.2.3/8"), Err(Flaw::Host("10.0.0.0/8".into())));
        assert_eq!(Network::parse("2001:db8::1/32"), Err(Flaw::Host("2001:db8::/32".into())));
        let mut problems = Problems::new();
        Networks::compile(&vec!["::1".to_owned(); NETWORKS_MAX + 1], &At::root(), &mut problems);
        assert!(problems.has_errors());
    }
}
