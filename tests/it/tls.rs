//! TLS as other people's clients find it: which versions, suites and groups are agreed on.

use std::process::{Command, Stdio};

use crate::harness::{HOST, Ravelin, proxy, run};

/// What `openssl s_client` and a listener agreed on, as `VERSION SUITE`; none if on nothing.
fn agreed(site: &Ravelin, args: &str) -> Option<String> {
    let address = format!("127.0.0.1:{}", site.https_port());
    let mut command = Command::new("openssl");
    command.args(["s_client", "-brief", "-connect", &address, "-servername", HOST]).args(args.split(' '));
    let said = run(command.stdin(Stdio::null())).all();
    let value = |name: &str| said.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
    let (version, suite) = (value("Protocol version:")?, value("Ciphersuite:")?);
    Some(format!("{version} {suite}"))
}

/// Clients by what they offer, and what each listener makes of it.
#[test]
fn versions_suites_and_groups_are_those_of_the_policy() {
    const CLIENTS: [(&str, &str); 14] = [
        ("-tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256", "TLSv1.3 TLS_AES_128_GCM_SHA256"),
        ("-tls1_3 -ciphersuites TLS_AES_256_GCM_SHA384", "TLSv1.3 TLS_AES_256_GCM_SHA384"),
        ("-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256", "TLSv1.3 TLS_CHACHA20_POLY1305_SHA256"),
        ("-tls1_3 -groups X25519", "TLSv1.3 TLS_AES_128_GCM_SHA256"),
        ("-tls1_3 -groups P-256", "TLSv1.3 TLS_AES_128_GCM_SHA256"),
        ("-tls1_3 -groups P-384", "TLSv1.3 TLS_AES_128_GCM_SHA256"),
        ("-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256", "TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305", "TLSv1.2 ECDHE-ECDSA-CHACHA20-POLY1305"),
        ("-tls1_2 -groups P-384:P-256", "TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256"),
        // What nobody should speak.
        ("-tls1_3 -groups P-521", ""),
        ("-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA256", ""),
        ("-tls1_1 -cipher ALL:@SECLEVEL=0", ""),
        ("-tls1 -cipher ALL:@SECLEVEL=0", ""),
    ];
    // For each policy the clients, by their number above, that are turned away besides the last four.
    let policies: [(&str, &[usize]); 5] = [
        ("tls_policy = \"intermediate\"", &[]),
        ("tls_policy = \"modern\"", &[6, 7, 8, 9]),
        ("tls_policy = \"ELBSecurityPolicy-TLS13-1-2-Res-2021-06\"", &[8]),
        ("tls_policy = \"ELBSecurityPolicy-FS-1-2-Res-2020-10\"", &[0, 1, 2, 3, 4, 5, 8]),
        ("tls_groups = [\"X25519MLKEM768\", \"X25519\"]", &[4, 5, 9]),
    ];
    for (keys, away) in policies {
        let site = proxy().bare_site(HOST, "http://127.0.0.1:9").https(keys).start();
        for (number, (client, want)) in CLIENTS.iter().enumerate() {
            let want = (!want.is_empty() && !away.contains(&number)).then(|| (*want).to_owned());
            assert_eq!(agreed(&site, client), want, "{keys}: {client}");
        }
    }
}

#[test]
fn the_order_of_suites_is_that_of_the_listener() {
    let keys = "tls_suites = [\"ECDHE-ECDSA-CHACHA20-POLY1305\", \"ECDHE-ECDSA-AES256-GCM-SHA384\", \"TLS_AES_256_GCM_SHA384\"]";
    let site = proxy().bare_site(HOST, "http://127.0.0.1:9").https(keys).start();
    let modest = "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305";
    assert_eq!(agreed(&site, modest).as_deref(), Some("TLSv1.2 ECDHE-ECDSA-CHACHA20-POLY1305"));
    assert_eq!(agreed(&site, "-tls1_3").as_deref(), Some("TLSv1.3 TLS_AES_256_GCM_SHA384"));
    assert_eq!(agreed(&site, "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256"), None);
}
