//! The addresses that Kimi may fetch: only public ones, because services of this machine and of the local network
//! often trust every client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs as _};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fluent_uri::Uri;

/// Host names and domains that are never public, even if a proxy resolves them.
const LOCAL: [&str; 4] = ["localhost", "local", "internal", "localdomain"];
/// The time limit of the resolver. After 30 s, the programs ignore the hook and allow the call.
const RESOLVE_LIMIT: Duration = Duration::from_secs(8);

/// Returns the reason to refuse an address. A host name that cannot be resolved is left to the proxy, if one is set.
pub(super) fn refusal(url: &str, is_proxied: bool) -> Option<String> {
    let refused = |why: &str| Some(format!("{url} may not be fetched: {why}"));
    let Ok(uri) = Uri::parse(url) else { return refused("it is not a valid URL") };
    if !["http", "https"].iter().any(|known| uri.scheme().as_str().eq_ignore_ascii_case(known)) {
        return refused("only http and https are allowed");
    }
    let Some(authority) = uri.authority() else { return refused("it has no host") };
    let host = authority.host();
    if authority.has_userinfo() || host.is_empty() || host.contains('%') {
        return refused("it has a user name, or its host is encoded");
    }
    let host = host.trim_start_matches('[').trim_end_matches([']', '.']).to_ascii_lowercase();
    if LOCAL.iter().any(|name| host == *name || host.ends_with(&format!(".{name}"))) {
        return refused("its host is this machine or in its local network");
    }
    let host = host.as_str();
    if ends_in_a_number(host) && host.parse::<Ipv4Addr>().is_err() {
        return refused("its host is an ambiguous number; write an address such as 192.0.2.1");
    }
    match resolved(host) {
        Some(found) if found.is_empty() && !is_proxied => refused("its host name does not resolve"),
        None if !is_proxied => refused("its host name did not resolve in time"),
        Some(found) if !found.iter().copied().all(is_public) => {
            refused("its host is this machine or in its local network")
        }
        Some(_) | None => None,
    }
}

/// Returns whether a client reads a host as an IPv4 address, in any base and number of parts (WHATWG URL standard,
/// "ends in a number").
fn ends_in_a_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_hexadecimal = last
        .strip_prefix("0x")
        .is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    is_hexadecimal || (!last.is_empty() && last.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Resolves a host; `None` if the resolver takes too long.
fn resolved(host: &str) -> Option<Vec<IpAddr>> {
    let (sender, receiver) = mpsc::channel();
    let host = host.to_owned();
    thread::spawn(move || {
        let found = (host.as_str(), 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        // An error means that the time is over.
        let _ = sender.send(found.unwrap_or_default());
    });
    let found = receiver.recv_timeout(RESOLVE_LIMIT).ok()?;
    Some(found.into_iter().map(|address| address.ip()).collect())
}

/// Returns whether an address belongs to the public network.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_protocol = (a, b, c) == (192, 0, 0);
    let is_benchmark = a == 198 && (18..20).contains(&b);
    !(a == 0
        || a >= 240
        || is_shared
        || is_protocol
        || is_benchmark
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match parts {
        // IPv4 inside IPv6: compatible, mapped, translated, NAT64, 6to4.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, _, _, _, _, high, low]
        | [0x2002, high, low, ..] => is_public_v4(v4(high, low)),
        // Teredo, documentation, unique local, link-local, site-local and multicast.
        [0x2001, 0 | 0x0db8, ..] | [0xfc00..=0xfdff | 0xfe80..=0xfeff | 0xff00.., ..] => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_private_and_reserved_networks_are_not_public() {
        for address in [
            "127.0.0.1",
            "127.255.0.9",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::10.0.0.1",
            "2002:7f00:1::",
            "2001::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "198.20.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_local_address_is_refused_in_every_spelling() {
        for url in [
            "http://127.0.0.1:8080/",
            "HTTP://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://0x7f.0x.0x.1/",
            "http://0x7f.0X/",
            "http://1.1.1.0x/",
            "http://127.0.0.00001/",
            "http://name.invalid.1/",
            "http://0/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://localhost/",
            "http://localhost./",
            "http://LOCALHOST:1/",
            "http://a.localhost/",
            "http://metadata.google.internal/",
            "http://1.1.1.1@127.0.0.1/",
            "http://user:pass@1.1.1.1/",
            "http://127.0.0.1%2f@1.1.1.1/",
            "http://%31%32%37.0.0.1/",
            "http://１２７.0.0.1/",
            "http:\\\\127.0.0.1/",
            "http://1.1.1.1\\@127.0.0.1/",
            " http://127.0.0.1/",
            "http://127.0.0.1\t/",
            "http:127.0.0.1",
            "http:///127.0.0.1/",
            "file:///etc/passwd",
            "ftp://1.1.1.1/",
            "data:text/plain,x",
            "gopher://1.1.1.1/",
            "//127.0.0.1/",
            "127.0.0.1",
            "",
        ] {
            for is_proxied in [false, true] {
                assert!(refusal(url, is_proxied).is_some(), "{url}");
            }
        }
        for url in ["http://1.1.1.1/", "https://1.1.1.1:8443/a?b=http://127.0.0.1/#c"] {
            assert_eq!(refusal(url, false), None);
        }
    }

    #[test]
    fn a_name_that_does_not_resolve_is_left_to_the_proxy() {
        assert!(refusal("http://name.invalid/", false).is_some());
        assert_eq!(refusal("http://name.invalid/", true), None);
    }
}
