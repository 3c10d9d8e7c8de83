//! The decoder of the PROXY protocol, versions 1 and 2 (`proxy-protocol.txt` of its authors), read from the first bytes of a
//! connection. Sans-IO.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the proxy in front says of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Nothing: the connection is the proxy's own (`LOCAL`, a health check), or of a kind without addresses.
    Own,
    /// It carries a client's.
    Told {
        /// The client.
        source: SocketAddr,
        /// What the client connected to.
        destination: SocketAddr,
    },
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They begin with neither signature.
    Absent,
    /// The line of version 1 is malformed or too long.
    Line,
    /// Version 2 with another version, command, or addresses that are too short.
    Malformed,
    /// Version 2 for something other than a connection of TCP.
    Family,
    /// Longer than any proxy writes.
    TooLong,
}

/// The most that a header may take: AWS' with all its TLVs is below 300 bytes, one with a client certificate below 4 KiB.
pub const LONGEST: usize = 4096;

/// Section 2.2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED: usize = 16;
const PREFIX: &[u8] = b"PROXY ";
/// Section 2.1: the longest line, with its end.
const LONGEST_LINE: usize = 107;

/// The header at the start of `bytes` and its length; `None` if more bytes are needed to tell.
///
/// # Errors
/// When they can never become a header.
pub fn read(bytes: &[u8]) -> Result<Option<(Header, usize)>, Fault> {
    let begins = |start: &[u8]| start.iter().zip(bytes).all(|(want, have)| want == have);
    if begins(SIGNATURE) {
        return version_2(bytes);
    }
    if begins(PREFIX) {
        return version_1(bytes);
    }
    Err(Fault::Absent)
}

fn version_1(bytes: &[u8]) -> Result<Option<(Header, usize)>, Fault> {
    let line = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() >= LONGEST_LINE { Err(Fault::Line) } else { Ok(None) };
    };
    let text = line.get(..end).and_then(|line| str::from_utf8(line).ok()).ok_or(Fault::Line)?;
    let header = line_of(text).ok_or(Fault::Line)?;
    Ok(Some((header, end + 2)))
}

fn line_of(text: &str) -> Option<Header> {
    let mut words = text.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored (section 2.1).
        return Some(Header::Own);
    }
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, destination) = (address()?, address()?);
    let (from, to) = (port(words.next()?)?, port(words.next()?)?);
    let told = Header::Told { source: socket(source, from), destination: socket(destination, to) };
    words.next().is_none().then_some(told)
}

/// Digits without sign and without leading zeros.
fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    plain.then(|| word.parse().ok())?
}

fn version_2(bytes: &[u8]) -> Result<Option<(Header, usize)>, Fault> {
    let Some([command, family, high, low]) = bytes.get(SIGNATURE.len()..FIXED) else { return Ok(None) };
    let length = FIXED + usize::from(u16::from_be_bytes([*high, *low]));
    if length > LONGEST {
        return Err(Fault::TooLong);
    }
    if !matches!(command, 0x20 | 0x21) {
        return Err(Fault::Malformed);
    }
    let Some(body) = bytes.get(FIXED..length) else { return Ok(None) };
    // LOCAL: addresses, if there are any, are to be ignored. What follows the addresses are TLVs; none is needed here.
    let header = match (command, family) {
        (0x20, _) | (_, 0x00) => Header::Own,
        (_, 0x11) => addresses::<4>(body).ok_or(Fault::Malformed)?,
        (_, 0x21) => addresses::<16>(body).ok_or(Fault::Malformed)?,
        _ => return Err(Fault::Family),
    };
    Ok(Some((header, length)))
}

/// Two addresses of `N` bytes, then two ports.
fn addresses<const N: usize>(body: &[u8]) -> Option<Header>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (from, rest) = rest.split_first_chunk::<2>()?;
    let to = rest.first_chunk::<2>()?;
    let (from, to) = (u16::from_be_bytes(*from), u16::from_be_bytes(*to));
    Some(Header::Told {
        source: socket(IpAddr::from(*source), from),
        destination: socket(IpAddr::from(*destination), to),
    })
}

/// IPv4 dressed as IPv6 is IPv4.
fn socket(addr: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(addr.to_canonical(), port)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "no PROXY header",
            Self::Line => "a malformed line of version 1",
            Self::Malformed => "a malformed header of version 2",
            Self::Family => "a header of version 2 for something other than TCP",
            Self::TooLong => "a header of version 2 that is too long",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(source: &str, destination: &str) -> Header {
        Header::Told { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    const TCP4: [u8; 12] = [203, 0, 113, 9, 10, 0, 0, 1, 0xc8, 0x15, 1, 0xbb];

    #[test]
    fn lines_of_version_1() {
        for (line, header) in [
            ("PROXY TCP4 203.0.113.9 10.0.0.1 51221 443\r\n", told("203.0.113.9:51221", "10.0.0.1:443")),
            ("PROXY TCP6 2001:db8::9 fd00::1 1 65535\r\n", told("[2001:db8::9]:1", "[fd00::1]:65535")),
            ("PROXY TCP6 ::ffff:203.0.113.9 ::1 1 2\r\n", told("203.0.113.9:1", "[::1]:2")),
            ("PROXY UNKNOWN\r\n", Header::Own),
            ("PROXY UNKNOWN ffff::1 whatever 1 2\r\n", Header::Own),
        ] {
            let bytes = [line.as_bytes(), b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(read(&bytes), Ok(Some((header, line.len()))), "{line}");
            for end in 0..line.len() {
                assert_eq!(read(&bytes[..end]), Ok(None), "{line}: {end} bytes");
            }
        }
        for line in [
            "PROXY TCP4 203.0.113.9 10.0.0.1 51221\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 51221 443 \r\n",
            "PROXY  TCP4 203.0.113.9 10.0.0.1 51221 443\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 051221 443\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 +1 443\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 65536 443\r\n",
            "PROXY TCP4 2001:db8::9 fd00::1 1 2\r\n",
            "PROXY TCP6 203.0.113.9 10.0.0.1 1 2\r\n",
            "PROXY UDP4 203.0.113.9 10.0.0.1 1 2\r\n",
            "PROXY tcp4 203.0.113.9 10.0.0.1 1 2\r\n",
            "PROXY TCP4 203.0.113.9\n10.0.0.1 1 2\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(read(line.as_bytes()), Err(Fault::Line), "{line}");
        }
        assert_eq!(read(&[PREFIX, &[b'x'; 200]].concat()), Err(Fault::Line), "no end in sight");
    }

    #[test]
    fn headers_of_version_2() {
        let six = [&[0x20, 1, 0xd, 0xb8], &[0; 11][..], &[9], &[0; 15], &[1], &[0, 1, 0, 2]].concat();
        // A TLV of AWS' (0xEA, the VPC endpoint), one that nobody knows, and half of one.
        let tlvs = [&TCP4[..], &[0xea, 0, 3, 1, b'v', b'p'], &[0xf7, 0, 1, 0], &[4]].concat();
        for (bytes, header) in [
            (v2(0x21, 0x11, &TCP4), told("203.0.113.9:51221", "10.0.0.1:443")),
            (v2(0x21, 0x11, &tlvs), told("203.0.113.9:51221", "10.0.0.1:443")),
            (v2(0x21, 0x21, &six), told("[2001:db8::9]:1", "[::1]:2")),
            (v2(0x20, 0x00, &[]), Header::Own),
            (v2(0x20, 0x11, &TCP4), Header::Own),
            (v2(0x20, 0x31, &[7; 216]), Header::Own),
            (v2(0x21, 0x00, &[1, 2, 3]), Header::Own),
        ] {
            let length = bytes.len();
            let whole = [&bytes[..], b"\x16\x03\x01"].concat();
            assert_eq!(read(&whole), Ok(Some((header, length))), "{bytes:02x?}");
            for end in 0..length {
                assert_eq!(read(&whole[..end]), Ok(None), "{bytes:02x?}: {end} bytes");
            }
        }
        for (bytes, fault) in [
            (v2(0x11, 0x11, &TCP4), Fault::Malformed),
            (v2(0x22, 0x11, &TCP4), Fault::Malformed),
            (v2(0x21, 0x11, &TCP4[..11]), Fault::Malformed),
            (v2(0x21, 0x21, &TCP4), Fault::Malformed),
            (v2(0x21, 0x12, &TCP4), Fault::Family),
            (v2(0x21, 0x31, &[7; 216]), Fault::Family),
            (v2(0x21, 0x11, &[0; 5000]), Fault::TooLong),
        ] {
            assert_eq!(read(&bytes), Err(fault), "{bytes:02x?}");
        }
    }

    #[test]
    fn other_protocols_are_told_from_it_at_once() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01\x02\x00",
            b"SSH-2.0-x",
            b"PROXZ",
            b"\r\n\r\nGET",
            b"P\0",
        ] {
            assert_eq!(read(bytes), Err(Fault::Absent), "{bytes:?}");
        }
        assert_eq!(read(b""), Ok(None));
        assert_eq!(read(b"P"), Ok(None), "it may be POST as well: the next byte tells");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn what_is_written_is_read_back(from: u128, to: u128, ports: (u16, u16), v4: bool, rest in prop::collection::vec(any::<u8>(), 0..40)) {
            let addr = |bits: u128| if v4 {
                IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits >> 96).unwrap()))
            } else {
                IpAddr::V6(Ipv6Addr::from_bits(bits))
            };
            let (from, to) = (addr(from), addr(to));
            let expected = Header::Told { source: socket(from, ports.0), destination: socket(to, ports.1) };
            let line = format!("PROXY {} {from} {to} {} {}\r\n", if v4 { "TCP4" } else { "TCP6" }, ports.0, ports.1);
            let one = [line.as_bytes(), &rest].concat();
            prop_assert_eq!(read(&one), Ok(Some((expected, line.len()))));
            let octets = |addr: IpAddr| match addr {
                IpAddr::V4(addr) => addr.octets().to_vec(),
                IpAddr::V6(addr) => addr.octets().to_vec(),
            };
            let body = [octets(from), octets(to), ports.0.to_be_bytes().to_vec(), ports.1.to_be_bytes().to_vec()].concat();
            let header = v2(0x21, if v4 { 0x11 } else { 0x21 }, &body);
            let two = [&header[..], &rest].concat();
            prop_assert_eq!(read(&two), Ok(Some((expected, header.len()))));
        }

        #[test]
        fn any_bytes_are_survived_and_more_of_them_change_nothing(
            start in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 1.2.3.4 ", SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"]),
            bytes in prop::collection::vec(any::<u8>(), 0..120),
            more in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let bytes = [start, &bytes].concat();
            match read(&bytes) {
                Ok(None) => prop_assert!(bytes.len() < LONGEST),
                Ok(Some((_, length))) => {
                    prop_assert!(length <= bytes.len());
                    prop_assert_eq!(read(&bytes[..length]), read(&bytes));
                    prop_assert_eq!(read(&[&bytes[..], &more].concat()), read(&bytes));
                }
                fault => prop_assert_eq!(read(&[&bytes[..], &more].concat()), fault),
            }
        }
    }
}
