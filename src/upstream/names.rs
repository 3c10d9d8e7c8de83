//! Which of a client's field names never reach an origin.

/// The longest name that is compared with the tables below.
const KNOWN_MAX: usize = 32;
/// The bytes of ordinary names: letters, digits and `-`.
#[expect(clippy::indexing_slicing, reason = "happens while compiling, where it cannot panic unseen")]
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0_u8;
    while byte < u8::MAX {
        plain[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'-';
        byte += 1;
    }
    plain
};

/// Whether a field of this name (lower-case) is never copied: hop-by-hop, written by ourselves, a way to
/// make an origin see another request than the one that was checked, or a name that an origin would
/// take for one of these. Names with `_` go on only if `keep_underscores`, what only proxies can know only if the peer
/// is a `trusted` one.
pub(super) fn is_protected(name: &[u8], keep_underscores: bool, trusted: bool) -> bool {
    let is_bad = |name: &[u8]| is_known(name) || (!trusted && is_vouched_for(name));
    let Some(folded) = Folded::of(name) else { return is_bad(name) };
    (name.contains(&b'_') && !keep_underscores) || folded.text().is_none_or(is_bad)
}

/// What a load balancer or CDN says of the client's connection, certificate, login or place: worth something from a
/// trusted proxy only (AWS: `X-Amzn-*` of ALB, WAF and Verified Access, `CloudFront-*` and `X-Amz-Cf-Id` of the CDN;
/// `X-ARR-*` of Azure; and what nginx, Apache and `HAProxy` are usually set up to write about a certificate).
fn is_vouched_for(name: &[u8]) -> bool {
    let starts = |starts: &[&[u8]]| starts.iter().any(|start| name.starts_with(start));
    match name.first() {
        Some(b'c') => starts(&[b"cloudfront-"]),
        Some(b's') => starts(&[b"ssl-client-"]),
        Some(b'x') => starts(&[
            b"x-amzn-mtls-",
            b"x-amzn-tls-",
            b"x-amzn-oidc-",
            b"x-amzn-waf-",
            b"x-amzn-ava-",
            b"x-amz-cf-",
            b"x-arr-",
            b"x-ssl-",
            b"x-tls-client-",
            b"x-client-cert",
        ]),
        _ => false,
    }
}

/// By length first, because every field of every request comes by here. Hop-by-hop are those of RFC 9110
/// section 7.6.1 and what older proxies called so. Ours are those that say who the client is and how
/// the body is framed, under every name that CDNs and frameworks have for the client's address, scheme and host: whoever
/// reads one of these gets no second answer beside ours. `Expect` was answered already. `proxy` is httpoxy (CVE-2016-5385), and the overrides
/// name a URL or method that was not checked.
fn is_known(name: &[u8]) -> bool {
    match name.len() {
        _ if name.starts_with(b"x-forwarded-") => true,
        // Ours tell a verified certificate; the first two are RFC 9440's.
        11 if name == b"client-cert" => true,
        17 if name == b"client-cert-chain" => true,
        _ if name.starts_with(b"x-client-cert-") => true,
        _ if name.ends_with(b"ip") && ADDRESSES.iter().any(|end| name.ends_with(end)) => true,
        2 => name == b"te",
        4 => name == b"host",
        5 => matches!(name, b"proxy" | b"https"),
        6 => matches!(name, b"expect" | b"x-host"),
        7 => matches!(name, b"trailer" | b"upgrade"),
        8 => name == b"x-scheme",
        9 => name == b"forwarded",
        10 => matches!(name, b"connection" | b"keep-alive"),
        11 => matches!(name, b"traceparent" | b"x-forwarded"),
        12 => matches!(name, b"x-request-id" | b"x-url-scheme"),
        13 => matches!(name, b"x-rewrite-url" | b"x-http-method" | b"forwarded-for" | b"x-remote-addr"),
        14 => matches!(name, b"http2-settings" | b"content-length" | b"x-original-url" | b"x-original-uri"),
        15 => {
            matches!(name, b"x-original-host" | b"x-host-override" | b"front-end-https" | b"x-amzn-trace-id")
        }
        16 => name == b"proxy-connection",
        17 => matches!(name, b"transfer-encoding" | b"x-method-override"),
        18 => name == b"cf-connecting-ipv6",
        19 => name == b"proxy-authorization",
        20 => name == b"x-http-host-override",
        22 => name == b"x-http-method-override",
        24 => matches!(name, b"x-original-forwarded-for" | b"x-envoy-external-address"),
        _ => false,
    }
}

/// How the names end under which CDNs, clouds and frameworks tell a client's address: `X-Real-IP`, `True-Client-IP`,
/// `CF-Connecting-IP`, `Fastly-Client-IP`, `X-Azure-ClientIP`, `X-Appengine-User-IP`, `CDN-Src-IP` and whoever comes next.
const ADDRESSES: [&[u8]; 8] = [
    b"client-ip",
    b"clientip",
    b"-real-ip",
    b"-connecting-ip",
    b"user-ip",
    b"-remote-ip",
    b"-src-ip",
    b"-originating-ip",
];

/// A name with every character that is neither letter, digit nor `-` turned into `-`, as CGI, PHP and
/// their kin do: `X_Forwarded_For` and `X.Forwarded.For` are `X-Forwarded-For` to them.
struct Folded {
    bytes: [u8; KNOWN_MAX],
    length: usize,
}

impl Folded {
    /// `None` if there is nothing to fold. A name longer than the tables' is cut: only its start matters.
    fn of(name: &[u8]) -> Option<Self> {
        // All bytes at once: stopping at the first odd one costs more than looking at the rest.
        if name.iter().fold(true, |plain, byte| plain & is_plain(*byte)) {
            return None;
        }
        let mut bytes = [b'-'; KNOWN_MAX];
        for (to, from) in bytes.iter_mut().zip(name) {
            if is_plain(*from) {
                *to = from.to_ascii_lowercase();
            }
        }
        Some(Self { bytes, length: name.len().min(KNOWN_MAX) })
    }

    fn text(&self) -> Option<&[u8]> {
        self.bytes.get(..self.length)
    }
}

/// Letters, digits and `-`.
fn is_plain(byte: u8) -> bool {
    PLAIN.get(usize::from(byte)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_name_is_not_taken_for_a_short_one() {
        // Cut at the length of the table, this is not one of its names.
        assert!(!is_protected(b"x-http-method-overrides", true, false));
        assert!(!is_protected(b"x_my_very_long_application_header_name", true, false));
        assert!(is_protected(b"x_forwarded_anything_longer_than_the_table", true, false));
    }

    #[test]
    fn what_tells_a_verified_certificate_is_ours_alone() {
        for name in [
            "client-cert",
            "client-cert-chain",
            "x-client-cert-subject",
            "x-client-cert-verify",
            "x_client_cert_verify",
            "client_cert",
            "x.client.cert.anything.longer.than.the.table",
        ] {
            for (keep, trusted) in [(true, true), (true, false), (false, true), (false, false)] {
                assert!(is_protected(name.as_bytes(), keep, trusted), "{name}");
            }
        }
        assert!(
            is_protected(b"x-ssl-client-s-dn", true, false)
                && !is_protected(b"x-ssl-client-s-dn", true, true)
        );
        assert!(!is_protected(b"client-certificate-wish", true, false));
    }

    #[test]
    fn what_only_proxies_know_is_believed_of_trusted_ones() {
        for name in [
            "x-amzn-mtls-clientcert-subject",
            "cloudfront-viewer-address",
            "x-amzn-tls-version",
            "x_amzn_mtls_clientcert",
            "x-amzn-oidc-identity",
            "x-amzn-waf-bot",
            "x-amz-cf-id",
            "x-amzn-ava-user-context",
            "x-arr-clientcert",
            "x-tls-client-verify",
            "ssl-client-verify",
            "x-ssl-client-s-dn",
            "x.ssl.client.verify",
            "x-client-cert",
        ] {
            assert!(is_protected(name.as_bytes(), true, false), "{name}");
            assert!(!is_protected(name.as_bytes(), true, true), "{name}");
        }
        for name in [
            "x-client-ip",
            "true-client-ip",
            "cf-connecting-ip",
            "x-amzn-trace-id",
            "client-cert",
            "client-cert-chain",
            "x-client-cert-subject",
            "x-amz-security-token",
        ] {
            let own = name != "x-amz-security-token";
            assert_eq!(
                (is_protected(name.as_bytes(), true, true), is_protected(name.as_bytes(), true, false)),
                (own, own),
                "{name}"
            );
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_for_a_dash_a_protected_name_stays_protected(
            which in 0_usize..11,
            dashes in prop::collection::vec("[-_.!~]", 8),
        ) {
            let names = ["x-forwarded-for", "x-real-ip", "x-original-url", "transfer-encoding", "content-length", "x-http-method-override", "client-ip", "cf-connecting-ip", "x-cluster-client-ip", "wl-proxy-client-ip", "x-original-forwarded-for"];
            let mut dash = dashes.iter();
            let spelled: String = names[which]
                .chars()
                .map(|c| if c == '-' { dash.next().unwrap().clone() } else { c.to_string() })
                .collect();
            prop_assert!(is_protected(spelled.as_bytes(), true, true) && is_protected(spelled.as_bytes(), false, true));
        }

        #[test]
        fn ordinary_names_pass(name in "[a-wyz][a-z]{0,6}(-[a-z]{1,6})?") {
            prop_assume!(!is_known(name.as_bytes()));
            prop_assert!(!is_protected(name.as_bytes(), false, false));
        }
    }
}
