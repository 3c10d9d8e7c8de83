//! Flags that stand for a configuration file: the sidecar's way.
//!
//! They are written out as the file that the user would have written, and from there take the same road
//! as any file: one grammar, one set of complaints.

use std::fmt::Write as _;

use clap::Args;

/// Each flag is also an environment variable; lists are separated by commas there.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Flags {
    /// Where to listen, as often as needed: `https://0.0.0.0:8443`, `http://[::]:8080`.
    #[arg(
        long,
        env = "RAVELIN_LISTEN",
        value_name = "URL",
        value_delimiter = ',',
        conflicts_with = "config"
    )]
    pub(super) listen: Vec<String>,

    /// The origin, as often as needed: `http://127.0.0.1:80`, `https://…`, `unix:/run/php.sock`.
    #[arg(
        long,
        env = "RAVELIN_UPSTREAM",
        value_name = "URL",
        value_delimiter = ',',
        conflicts_with = "config"
    )]
    pub(super) upstream: Vec<String>,

    /// The certificate chain (PEM); with several, each goes with the key in the same place.
    #[arg(long, env = "RAVELIN_CERT", value_name = "FILE", value_delimiter = ',', conflicts_with = "config")]
    pub(super) cert: Vec<String>,

    /// The certificate's private key (PEM).
    #[arg(long, env = "RAVELIN_KEY", value_name = "FILE", value_delimiter = ',', conflicts_with = "config")]
    pub(super) key: Vec<String>,

    /// A host to serve, as often as needed; every host if none is given.
    #[arg(long, env = "RAVELIN_HOST", value_name = "NAME", value_delimiter = ',', conflicts_with = "config")]
    pub(super) host: Vec<String>,

    /// The preset: `typo3` or `none`.
    #[arg(
        long,
        env = "RAVELIN_PRESET",
        value_name = "NAME",
        default_value = "typo3",
        conflicts_with = "config"
    )]
    pub(super) preset: String,

    /// The preset's level: `safe` cannot break a working site, `strict` goes further.
    #[arg(
        long,
        env = "RAVELIN_LEVEL",
        value_name = "LEVEL",
        default_value = "safe",
        conflicts_with = "config"
    )]
    pub(super) level: String,

    /// Proxies whose X-Forwarded-For is believed, as address ranges.
    #[arg(
        long,
        visible_alias = "trusted-proxy",
        env = "RAVELIN_TRUSTED_PROXIES",
        value_name = "CIDR",
        value_delimiter = ',',
        conflicts_with = "config"
    )]
    pub(super) trusted_proxies: Vec<String>,

    /// Where metrics and readiness are served, and changes taken: `unix:/run/ravelin/admin.sock`, or for numbers
    /// alone `127.0.0.1:9145`; as often as needed. A file says it with `[admin]`; the variable may stand beside a
    /// file, because `ravelin health` reads it too.
    #[arg(long, env = "RAVELIN_ADMIN", value_name = "ADDRESS", value_delimiter = ',')]
    pub(super) admin: Vec<String>,

    /// Where bans are kept: `memory`, `file:PATH`, or `valkey://HOST` (with TLS `valkeys://`), which replicas share. In
    /// a file below `$STATE_DIRECTORY` or /var/lib/ravelin if that is there, else in memory.
    #[arg(
        long,
        env = "RAVELIN_STATE",
        value_name = "STORE",
        hide_env_values = true,
        conflicts_with = "config"
    )]
    pub(super) state: Option<String>,

    /// The access log's form: `json`, `combined` or `off`.
    #[arg(
        long,
        env = "RAVELIN_ACCESS_LOG",
        value_name = "FORM",
        default_value = "json",
        conflicts_with = "config"
    )]
    pub(super) access_log: String,

    /// Only watch: every rule reports what it would refuse, and refuses nothing.
    #[arg(long, env = "RAVELIN_DRY_RUN", conflicts_with = "config")]
    pub(super) dry_run: bool,
}

impl Flags {
    /// Whether the flags say enough to stand for a file.
    pub(super) fn given(&self) -> bool {
        !self.listen.is_empty() || !self.upstream.is_empty()
    }

    /// The flag that is missing beside those that were given, as a sentence.
    pub(super) fn missing(&self) -> Option<String> {
        let https = self.listen.iter().find(|url| url.starts_with("https:"));
        if self.listen.is_empty() {
            return Some(
                "--listen is missing: where are clients to connect? e.g. --listen http://0.0.0.0:8080"
                    .to_owned(),
            );
        }
        if self.upstream.is_empty() {
            return Some(
                "--upstream is missing: where is the web server? e.g. --upstream http://127.0.0.1:80"
                    .to_owned(),
            );
        }
        if let Some(url) = https.filter(|_| self.cert.is_empty()) {
            return Some(format!("--cert and --key are missing: {url} needs a certificate"));
        }
        (self.cert.len() != self.key.len()).then(|| {
            format!(
                "--cert is given {} times and --key {} times: each certificate needs its key",
                self.cert.len(),
                self.key.len()
            )
        })
    }

    /// The first flag that only means something without a file.
    pub(super) fn stray(&self) -> Option<&'static str> {
        [
            (self.dry_run, "--dry-run"),
            (!self.admin.is_empty(), "--admin"),
            (self.state.is_some(), "--state"),
            (!self.trusted_proxies.is_empty(), "--trusted-proxies"),
            (!self.cert.is_empty(), "--cert"),
            (!self.key.is_empty(), "--key"),
            (!self.host.is_empty(), "--host"),
        ]
        .into_iter()
        .find_map(|(given, name)| given.then_some(name))
    }

    /// The configuration file that these flags stand for.
    pub(super) fn to_toml(&self) -> String {
        let mut text = String::new();
        for url in &self.listen {
            let _ = writeln!(text, "[[listen]]\nurl = {}", quoted(url));
            if url.starts_with("https:") {
                let pairs: Vec<String> = self.cert.iter().enumerate().map(|(i, c)| self.pair(i, c)).collect();
                let _ = writeln!(text, "certificates = [{}]", pairs.join(", "));
            }
            // A plain listener alone has nowhere to redirect to: it serves, for a balancer that ends TLS.
            if url.starts_with("http:") && !self.listen.iter().any(|l| l.starts_with("https:")) {
                let _ = writeln!(text, "plain = \"serve\"");
            }
        }
        let _ = writeln!(text, "[log]\naccess = {}", quoted(&self.access_log));
        if !self.admin.is_empty() {
            let _ = writeln!(text, "[admin]\nlisten = {}", list(&self.admin));
        }
        if let Some(state) = &self.state {
            let _ = writeln!(text, "[state]\nstore = {}", quoted(state));
        }
        if !self.trusted_proxies.is_empty() {
            let _ = writeln!(text, "[client]\ntrusted_proxies = {}", list(&self.trusted_proxies));
        }
        if self.dry_run {
            let _ = writeln!(text, "[rules]\nmode = \"report\"");
        }
        let hosts = if self.host.is_empty() { vec!["*".to_owned()] } else { self.host.clone() };
        let _ = writeln!(
            text,
            "[[site]]\nhosts = {}\nupstream = {}\npreset = {}\nlevel = {}",
            list(&hosts),
            list(&self.upstream),
            quoted(&self.preset),
            quoted(&self.level)
        );
        text
    }

    fn pair(&self, index: usize, cert: &str) -> String {
        match self.key.get(index) {
            Some(key) => format!("{{ chain = {}, key = {} }}", quoted(cert), quoted(key)),
            None => format!("{{ chain = {} }}", quoted(cert)),
        }
    }
}

pub(super) fn list(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| self::quoted(item)).collect();
    format!("[{}]", quoted.join(", "))
}

/// A TOML basic string (TOML 1.0, "String"): quotes, backslashes and control characters are escaped.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_the_file_that_one_would_have_written() {
        let flags = Flags {
            listen: vec!["https://0.0.0.0:8443".into(), "http://0.0.0.0:8080".into()],
            upstream: vec!["http://127.0.0.1:80".into()],
            cert: vec!["chain.pem".into()],
            key: vec!["key.pem".into()],
            preset: "typo3".into(),
            level: "safe".into(),
            access_log: "json".into(),
            ..Flags::default()
        };
        let text = flags.to_toml();
        assert!(text.contains("certificates = [{ chain = \"chain.pem\", key = \"key.pem\" }]"), "{text}");
        assert!(text.contains("hosts = [\"*\"]"), "{text}");
        assert!(!text.contains("plain"), "a redirect needs no word: {text}");
    }

    #[test]
    fn a_missing_flag_names_itself() {
        let text = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let https = Flags {
            listen: text(&["https://[::]:443"]),
            upstream: text(&["http://a:80"]),
            ..Flags::default()
        };
        assert!(https.missing().unwrap().starts_with("--cert and --key are missing: https://[::]:443"));
        let half = Flags { cert: text(&["a", "b"]), key: text(&["a"]), ..https.clone() };
        assert!(half.missing().unwrap().contains("--key 1 times"));
        assert!(
            Flags { listen: Vec::new(), ..https.clone() }
                .missing()
                .unwrap()
                .starts_with("--listen is missing")
        );
        assert!(
            Flags { upstream: Vec::new(), ..https.clone() }
                .missing()
                .unwrap()
                .starts_with("--upstream is missing")
        );
        assert_eq!(Flags { listen: text(&["http://[::]:80"]), ..https }.missing(), None);
    }

    #[test]
    fn nothing_typed_can_leave_its_quotes() {
        assert_eq!(quoted("a\"b\\c\nd"), "\"a\\\"b\\\\c\\u000Ad\"");
    }
}
