//! Headers as balancers write them, and as an attacker would.

use super::*;

const V4: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0x01, 0xbb];

/// A header of version 2.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family][..], &length, body].concat()
}

fn extension(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

/// The client a whole header names; `Err` for a malformed one.
#[track_caller]
fn client(bytes: &[u8]) -> Result<Option<String>, ()> {
    match read(bytes) {
        Reading::Whole(header) => {
            assert!(header.bytes <= bytes.len());
            Ok(header.client.map(|client| client.to_string()))
        }
        Reading::Malformed => Err(()),
        Reading::Partial => panic!("partial: {bytes:?}"),
    }
}

#[test]
fn text_headers_name_the_client() {
    let table = [
        ("PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n", Some("192.0.2.7:4711")),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Some("255.255.255.255:65535")),
        ("PROXY TCP6 2001:db8::7 ::1 4711 443\r\n", Some("[2001:db8::7]:4711")),
        ("PROXY TCP6 ::ffff:192.0.2.7 ::1 0 443\r\n", Some("192.0.2.7:0")),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
        ),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff::1 whatever else\r\n", None),
    ];
    for (header, expected) in table {
        assert_eq!(client(header.as_bytes()), Ok(expected.map(String::from)), "{header}");
        let followed = [header.as_bytes(), b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(read(&followed), read(header.as_bytes()), "{header}");
    }
}

#[test]
fn text_headers_have_one_form() {
    let long = format!("PROXY UNKNOWN {}\r\n", "a".repeat(TEXT_BYTES_MAX));
    let table = [
        "PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443 1\r\n",
        "PROXY TCP4  192.0.2.7 198.51.100.1 4711 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443 \r\n",
        "PROXY TCP4 192.0.2.07 198.51.100.1 4711 443\r\n",
        "PROXY TCP4 192.0.2 198.51.100.1 4711 443\r\n",
        "PROXY TCP4 2001:db8::7 ::1 4711 443\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.1 4711 443\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 4711 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 04711 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 -1 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1  443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n\r\n",
        "PROXY TCP4\t192.0.2.7\t198.51.100.1\t4711\t443\r\n",
        "PROXY UDP4 192.0.2.7 198.51.100.1 4711 443\r\n",
        "PROXY tcp4 192.0.2.7 198.51.100.1 4711 443\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "proxy TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
        " PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
        "PROXYTCP4",
        "GET / HTTP/1.1\r\n\r\n",
        "\x16\x03\x01",
        &long,
    ];
    for header in table {
        assert_eq!(client(header.as_bytes()), Err(()), "{header:?}");
    }
}

#[test]
fn binary_headers_name_the_client() {
    let v6 =
        [&Ipv6Addr::from_bits(0x2001_0db8 << 96 | 7).octets()[..], &[0; 15], &[1, 0x12, 0x67, 0x01, 0xbb]].concat();
    let with = |extensions: &[u8]| [V4, extensions].concat();
    let table = [
        (binary(0x21, 0x11, V4), Some("192.0.2.7:4711")),
        (binary(0x21, 0x21, &v6), Some("[2001:db8::7]:4711")),
        (binary(0x21, 0x11, &with(&extension(0x04, &[0; 9]))), Some("192.0.2.7:4711")),
        (binary(0x21, 0x11, &with(&[extension(0x01, b"h2"), extension(0xea, b"")].concat())), Some("192.0.2.7:4711")),
        // A health check of the balancer's own, with and without addresses.
        (binary(0x20, 0x00, &[]), None),
        (binary(0x20, 0x11, V4), None),
        (binary(0x21, 0x00, &[1, 2, 3]), None),
        (binary(0x21, 0x31, &[0; 216]), None),
    ];
    for (header, expected) in table {
        assert_eq!(client(&header), Ok(expected.map(String::from)), "{header:?}");
        assert_eq!(client(&[&header[..], b"\x16\x03\x01"].concat()), Ok(expected.map(String::from)), "{header:?}");
        for cut in 0..header.len() {
            assert_eq!(read(&header[..cut]), Reading::Partial, "{cut} of {header:?}");
        }
    }
}

#[test]
fn binary_headers_have_one_form() {
    let with = |extensions: &[u8]| binary(0x21, 0x11, &[V4, extensions].concat());
    let mut flipped = binary(0x21, 0x11, V4);
    flipped[11] = b'\r';
    let table = [
        flipped,
        binary(0x11, 0x11, V4),
        binary(0x31, 0x11, V4),
        binary(0x22, 0x11, V4),
        binary(0x21, 0x12, V4),
        binary(0x21, 0x22, &[0; 36]),
        binary(0x21, 0x10, V4),
        binary(0x21, 0x41, V4),
        binary(0x21, 0x11, &V4[..11]),
        binary(0x21, 0x21, &[0; 35]),
        binary(0x21, 0x31, &[0; 215]),
        with(&[0x01]),
        with(&[0x01, 0, 2, 0]),
        with(&[0x01, 0xff, 0xff]),
        with(&[extension(0x01, b"h2"), vec![0]].concat()),
        with(&extension(CHECKSUM_TYPE, &[0; 4])),
        with(&extension(CHECKSUM_TYPE, &[0; 3])),
        binary(0x21, 0x00, &vec![0; HEADER_BYTES_MAX - FIXED_BYTES + 1]),
    ];
    for header in table {
        assert_eq!(client(&header), Err(()), "{header:?}");
    }
    assert_eq!(client(&binary(0x21, 0x00, &vec![0; HEADER_BYTES_MAX - FIXED_BYTES])), Ok(None));
}

#[test]
fn a_checksum_is_held_against_the_header() {
    assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283);
    let with =
        |sum: u32, tail: &[u8]| binary(0x21, 0x11, &[V4, &extension(CHECKSUM_TYPE, &sum.to_be_bytes()), tail].concat());
    let tail = extension(0x01, b"h2");
    let sum = crc32c(with(0, &tail).iter());
    assert_eq!(client(&with(sum, &tail)), Ok(Some("192.0.2.7:4711".into())));
    assert_eq!(client(&with(sum ^ 1, &tail)), Err(()));
    let mut moved = with(sum, &tail);
    moved[16] ^= 1;
    assert_eq!(client(&moved), Err(()));
}

#[test]
fn a_cut_text_header_is_partial_until_it_can_be_none() {
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
    for cut in 0..header.len() {
        assert_eq!(read(&header[..cut]), Reading::Partial, "{cut}");
    }
    let endless = [TEXT_START, &[b'1'; TEXT_BYTES_MAX][..]].concat();
    assert_eq!(read(&endless[..TEXT_BYTES_MAX - 1]), Reading::Partial);
    assert_eq!(read(&endless[..TEXT_BYTES_MAX]), Reading::Malformed);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_stumble_and_more_bytes_change_nothing(
        start in proptest::sample::select(vec![0, 1, 2]),
        rest in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
    ) {
        let start: &[u8] = [&b""[..], TEXT_START, SIGNATURE][start];
        let bytes = [start, &rest].concat();
        match read(&bytes) {
            Reading::Whole(header) => {
                assert!(header.bytes <= bytes.len());
                assert_eq!(read(&bytes[..header.bytes]), Reading::Whole(header));
                assert_eq!(read(&bytes[..header.bytes - 1]), Reading::Partial);
            }
            Reading::Partial => assert!(bytes.len() < HEADER_BYTES_MAX),
            Reading::Malformed => assert_eq!(read(&[&bytes[..], &[0]].concat()), Reading::Malformed),
        }
    }
}
